"""Records: what the book found on one machine, in one file that can be shared.

A record is made from the results files of a run and names no person and no computer. It copies
nothing wholesale: numbers are numbers, most words come from fixed lists, and the few names that
drivers and chapters write freely pass through :mod:`guidebook.anonymous`. Texts that a chapter
wrote about its verdicts stay behind.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from guidebook import anonymous, claims, results, units
from guidebook.claims import Evidence, Outcome
from guidebook.measure.timing import Measurement
from guidebook.writing import write_whole

SCHEMA_VERSION = 1
UNNAMED = "unnamed"

# Words that may stand in a record; whatever else is found becomes "other" or "unnamed".
SYSTEMS = ("Linux", "macOS", "Windows")
ARCHITECTURES = ("x86_64", "amd64", "arm64", "aarch64", "riscv64", "ppc64le")
CONTAINERS = (
    *("docker", "podman", "kubernetes", "containerd", "lxc", "apptainer", "systemd-nspawn"),
    UNNAMED,
)
HYPERVISORS = (
    *("Amazon EC2", "Apple Virtualization", "Firecracker", "Google Compute Engine", "Hyper-V"),
    *("KVM", "OpenStack", "Parallels", "QEMU", "VMware", "VirtualBox", "Xen", "bhyve", UNNAMED),
)
_GPU_KINDS = ("cuda", "rocm", "metal")

_DIGITS = 6
_LONGEST_NAME = 80
_LONGEST_UNIT = 24
_GIT_SECONDS = 5.0
_RESULTS_FOLDER = "results"
_VERSION = re.compile(r"\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?")
# What builds of PyTorch and the like add; another local version may hold anything.
_LOCAL_VERSION = re.compile(r"\+(?:cpu|cu\d+|rocm\d[\d.]*|xpu)")
_HUGGING_FACE_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILE_NAME = re.compile(r"[^a-z0-9]+")


class RecordError(ValueError):
    """A record cannot be made, read or shared; the message says why."""


@dataclass(frozen=True)
class Gpu:
    """A graphics processor; ``None`` is unknown. Fields as in :class:`guidebook.machine.Gpu`."""

    name: str
    kind: str
    memory_gib: float | None = None
    unified: bool = False
    compute_capability: str | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Hardware:
    """A machine without anything that names its owner; ``None`` is unknown.

    Attributes
    ----------
    cpu, architecture
        The processor's model, and ``x86_64`` or the like.
    physical_cores, logical_cores, usable_cores
        Cores, and how many of them a run may use; a container may have 1.5.
    ram_gib
        Memory that a run may use, in GiB.
    gpus
        Graphics processors.
    os
        ``Linux``, ``macOS``, ``Windows`` or ``other``.
    wsl, container, virtual_machine
        What the system runs inside of.
    """

    cpu: str | None = None
    architecture: str = "other"
    physical_cores: int | None = None
    logical_cores: int | None = None
    usable_cores: float | None = None
    ram_gib: float | None = None
    gpus: tuple[Gpu, ...] = ()
    os: str = "other"
    wsl: int | None = None
    container: str | None = None
    virtual_machine: str | None = None

    def __str__(self) -> str:
        parts = [", ".join(gpu.name for gpu in self.gpus)] if self.gpus else []
        parts.append(self.cpu or "a processor of unknown model")
        if self.cores is not None:
            parts.append(f"{self.cores:g} {'core' if self.cores == 1 else 'cores'}")
        if self.ram_gib is not None:
            parts.append(f"{self.ram_gib:.0f} GiB of memory")
        parts.append(f"WSL {self.wsl}" if self.wsl else self.os)
        return ", ".join(part for part in parts if part != "other")

    @property
    def cores(self) -> float | None:
        """Physical cores, or fewer if a run may use fewer; logical ones where nothing is known."""
        usable = self.usable_cores or self.logical_cores
        if self.physical_cores is None:
            return usable
        return self.physical_cores if usable is None else min(self.physical_cores, usable)

    @property
    def file_name(self) -> str:
        """The machine in a few words, for a file's name: ``amd-epyc-2-cores``."""
        words = [gpu.name for gpu in self.gpus[:1]] or [self.cpu or "unknown"]
        words += [] if self.gpus or self.cores is None else [f"{self.cores:g} cores"]
        return (
            _FILE_NAME.sub("-", " ".join(words).lower().replace("(r)", "")).strip("-") or "machine"
        )


@dataclass(frozen=True)
class ChapterRun:
    """How and when a chapter ran. The model is a name of the catalog, or a file's hash."""

    chapter: str
    day: datetime.date
    model: str
    device: str
    profile: str


@dataclass(frozen=True)
class Verdict:
    """What came out for a claim, with the evidence, and what its test needs."""

    id: str
    outcome: Outcome
    evidence: Mapping[str, Evidence]
    needs: str


@dataclass(frozen=True)
class Reading:
    """What a chapter measured under a name."""

    chapter: str
    name: str
    measured: Measurement


@dataclass(frozen=True)
class Record:
    """What the book found on one machine.

    Attributes
    ----------
    created
        The day on which the newest chapter ran.
    guidebook, commit
        Version of the book, and the commit that it was checked out at when the record was made.
        ``+changes`` says that files differed from it; None: no checkout.
    hardware, software
        The machine, and versions by library. A library that changed between chapters has all its
        versions, joined by "and".
    chapters, claims, measurements
        What ran, and what came out, in the book's order.
    """

    created: datetime.date
    guidebook: str
    commit: str | None
    hardware: Hardware
    software: Mapping[str, str]
    chapters: tuple[ChapterRun, ...]
    claims: tuple[Verdict, ...]
    measurements: tuple[Reading, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created": self.created.isoformat(),
            "guidebook": self.guidebook,
            "commit": self.commit,
            "hardware": {
                **asdict(self.hardware),
                "gpus": [asdict(gpu) for gpu in self.hardware.gpus],
            },
            "software": dict(self.software),
            "chapters": [{**asdict(run), "day": run.day.isoformat()} for run in self.chapters],
            "claims": [
                {
                    "id": verdict.id,
                    "outcome": verdict.outcome.value,
                    "evidence": results.finite(dict(verdict.evidence)),
                    "needs": verdict.needs,
                }
                for verdict in self.claims
            ],
            "measurements": [
                results.finite(
                    {
                        "chapter": reading.chapter,
                        "name": reading.name,
                        **reading.measured.to_dict(),
                        "spread": reading.measured.spread,
                    }
                )
                for reading in self.measurements
            ],
        }

    @property
    def file_name(self) -> str:
        """Where the record lies under ``records/``: machine and day."""
        return f"{self.hardware.file_name}-{self.created.isoformat()}.json"

    def count(self, outcome: Outcome) -> int:
        """Return how many claims came out like this."""
        return sum(verdict.outcome == outcome for verdict in self.claims)


@dataclass(frozen=True)
class Found:
    """The results files of a folder.

    Attributes
    ----------
    results
        Their content by chapter, in the book's order.
    problems
        What is wrong with the others, by chapter, as a phrase for a page that is shared.
    left_out
        What was not taken, as sentences for the reader of this machine alone.
    """

    results: Mapping[str, Mapping[str, Any]]
    problems: Mapping[str, str]
    left_out: tuple[str, ...] = ()


def chapters_of_the_book() -> tuple[str, ...]:
    """Return the chapters that have claims, in the book's order."""
    return tuple(sorted({claim.chapter for claim in claims.ledger().values()}))


def read(folder: Path) -> Found:
    """Read the results files of a folder, or of a run's folder.

    A file that is damaged or of another book stops nothing: it is named.

    Raises
    ------
    RecordError
        There is no such folder.
    """
    inner = folder / _RESULTS_FOLDER
    folder = inner if inner.is_dir() else folder
    if not folder.is_dir():
        raise RecordError(
            f"There is no folder {folder}. Run chapters first: guidebook run, or make book."
        )
    known = set(chapters_of_the_book())
    found: dict[str, Mapping[str, Any]] = {}
    problems: dict[str, str] = {}
    left_out: list[str] = []
    for path in sorted(folder.glob("*.json")):
        if path.stem not in known:
            left_out.append(f"{path.name}: it is not about a chapter of this book.")
            continue
        try:
            content = results.load(path)
        except results.ResultsError as error:
            problems[path.stem] = "results file cannot be used"
            left_out.append(f"{path.name}: {error}")
            continue
        if content["chapter"] != path.stem:
            problems[path.stem] = "results file is about another chapter"
            continue
        left_out += _unknown_claims(content)
        found[path.stem] = content
    return Found(found, problems, tuple(left_out))


def make(found: Found, words: Sequence[str] | None = None) -> Record:
    """Make the record of a run.

    Parameters
    ----------
    found
        From :func:`read`.
    words
        Names of people and computers to take out; None: those of this computer.

    Raises
    ------
    RecordError
        There are no results, or they come from more than one machine.
    """
    if not found.results:
        raise RecordError(
            "There are no results to record. Run chapters first: guidebook run, or make book."
        )
    names = anonymous.names_here() if words is None else tuple(words)
    newest_first = sorted(found.results.values(), key=lambda one: one["created"], reverse=True)
    machines = [_hardware(one["machine"], names) for one in newest_first]
    _check_is_one(machines)
    return Record(
        created=_day(newest_first[0]),
        guidebook=" and ".join(_distinct(_version(one["guidebook"]) for one in newest_first)),
        commit=_commit(),
        hardware=machines[0],
        software=_software(newest_first),
        chapters=tuple(_chapter_run(one) for one in found.results.values()),
        claims=tuple(_verdicts(found)),
        measurements=tuple(
            reading for one in found.results.values() for reading in _readings(one, names)
        ),
    )


def validate(data: Mapping[str, Any]) -> None:
    """Check a record against ``records.schema.json``, and that no text in it names somebody.

    Raises
    ------
    RecordError
        Names the first place that is wrong.
    """
    import jsonschema

    schema = json.loads(files("guidebook").joinpath("records.schema.json").read_text("utf-8"))
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(data)
    )
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise RecordError(f"The record is not valid at {place}: {error.message}")
    for place, text in _texts({name: part for name, part in data.items() if name != "commit"}):
        if not anonymous.is_clean(text):
            raise RecordError(
                f"The record may name a person or a computer at {place}. Take it out first."
            )


def save(record: Record, path: Path) -> Path:
    """Validate a record and write it so that no reader ever sees half a file."""
    data = record.to_dict()
    validate(data)
    return write_whole(_json_text(data), path)


def load(path: Path) -> Record:
    """Read and validate a record.

    Raises
    ------
    RecordError
        The file is missing, not JSON, not valid, or names somebody; the message names the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise RecordError("it does not hold a JSON object")
        validate(data)
        return _from_dict(data)
    except FileNotFoundError as error:
        raise RecordError(f"There is no record {path.name}.") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"The record {path.name} cannot be used: {error}") from error


def load_all(folder: Path) -> dict[str, Record]:
    """Read every record of a folder, by file name without suffix, the oldest first.

    A folder that is not there has none. A bad record raises :class:`RecordError`.
    """
    found = {path.stem: load(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: (item[1].created, item[0])))


# --- From results to a record -----------------------------------------------------------------


def _unknown_claims(content: Mapping[str, Any]) -> Iterator[str]:
    for claim in content["claims"]:
        known = claims.ledger().get(claim["id"])
        if known is None or known.chapter != content["chapter"]:
            yield (
                f"{content['chapter']}: the ledger gives it no claim {claim['id']!r}; "
                "run the chapter again."
            )


def _hardware(machine: Mapping[str, Any], words: tuple[str, ...]) -> Hardware:
    cpu, memory, system = (_part(machine, name) for name in ("cpu", "memory", "system"))
    model = anonymous.clean(str(cpu.get("model") or ""), words)[:_LONGEST_NAME].strip()
    return Hardware(
        cpu=model or None,
        architecture=_one_of(str(cpu.get("architecture")).lower(), ARCHITECTURES, "other"),
        physical_cores=_count(cpu.get("physical_cores")),
        logical_cores=_count(cpu.get("logical_cores")),
        usable_cores=_positive(cpu.get("usable_cores")),
        ram_gib=_gib(memory.get("effective_total_bytes")),
        gpus=tuple(_gpu(one, words) for one in machine.get("gpus") or () if isinstance(one, dict)),
        os={"Darwin": "macOS"}.get(
            str(system.get("os")), _one_of(system.get("os"), SYSTEMS, "other")
        ),
        wsl=system.get("wsl") if system.get("wsl") in (1, 2) else None,
        container=_inside(system.get("container"), CONTAINERS),
        virtual_machine=_inside(system.get("virtual_machine"), HYPERVISORS),
    )


def _gpu(gpu: Mapping[str, Any], words: tuple[str, ...]) -> Gpu:
    name = anonymous.clean(str(gpu.get("name") or ""), words)[:_LONGEST_NAME].strip()
    capability = gpu.get("compute_capability")
    is_pair = isinstance(capability, list | tuple) and [type(part) for part in capability] == [
        int,
        int,
    ]
    return Gpu(
        name=name or "unknown GPU",
        kind=_one_of(gpu.get("kind"), _GPU_KINDS, "other"),
        memory_gib=_gib(gpu.get("memory_total_bytes")),
        unified=gpu.get("unified") is True,
        compute_capability="{}.{}".format(*capability) if is_pair and capability else None,
        power_limit_w=_positive(gpu.get("power_limit_w")),
    )


def _software(newest_first: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    from guidebook.machine.software import PACKAGES

    seen: dict[str, list[str]] = {}
    for content in newest_first:
        software = _part(content["machine"], "software")
        packages = _part(software, "packages")
        versions = {"Python": software.get("python")}
        versions |= {name: packages.get(name) for name in PACKAGES}
        for gpu in content["machine"].get("gpus") or ():
            if isinstance(gpu, dict):
                versions["GPU driver"] = gpu.get("driver")
                versions["CUDA of the driver"] = gpu.get("cuda_driver_version")
        for name, version in versions.items():
            if version and (known := _version(version)):
                seen.setdefault(name, []).append(known)
    return {name: " and ".join(_distinct(versions)) for name, versions in seen.items()}


def _version(text: object) -> str:
    """Keep of a version what a release has; a local build may be named after anything."""
    found = _VERSION.match(str(text))
    if not found:
        return ""
    local = _LOCAL_VERSION.match(str(text), found.end())
    return found[0] + (local[0] if local else "")


def _chapter_run(content: Mapping[str, Any]) -> ChapterRun:
    given = content["parameters"]
    return ChapterRun(
        content["chapter"],
        _day(content),
        shared_model(given["model"]),
        _one_of(given["device"], ("cpu", "cuda", "metal", "rocm"), "auto"),
        given["profile"],
    )


def shared_model(model: str) -> str:
    """Return how a record calls a model: the catalog's name, or a hash of one that is unknown.

    A hash tells whether two records used a file or a repository of the same name, without
    giving the name away.
    """
    from guidebook.catalog import models

    if model == "embedded":
        return model
    if _HUGGING_FACE_ID.fullmatch(model) and not model.endswith(".gguf"):
        with contextlib.suppress(LookupError):
            return models.find(model).name
        return f"Hugging Face model {_hash(model)}"
    return f"local file {_hash(PurePath(model.replace(chr(92), '/')).name)}"


def _verdicts(found: Found) -> Iterator[Verdict]:
    outcomes = {
        claim["id"]: claim for content in found.results.values() for claim in content["claims"]
    }
    for claim in claims.ledger().values():
        judged = outcomes.get(claim.id)
        if judged is None or claim.chapter not in found.results:
            continue
        evidence = {
            name: _rounded(judged["evidence"][name])
            for name in claim.evidence
            if name in judged["evidence"]
        }
        yield Verdict(claim.id, Outcome(judged["outcome"]), evidence, claim.needs)


def _readings(content: Mapping[str, Any], words: tuple[str, ...]) -> Iterator[Reading]:
    taken: set[str] = set()
    for name, measured in content["measurements"].items():
        shown = _free(anonymous.clean(name, words)[:_LONGEST_NAME].strip() or anonymous.GONE, taken)
        taken.add(shown)
        unit = anonymous.clean(measured["unit"], words)[:_LONGEST_UNIT].strip() or anonymous.GONE
        samples = tuple(float(_rounded(sample)) for sample in measured["samples"])
        yield Reading(content["chapter"], shown, Measurement(unit, samples))


def _free(name: str, taken: set[str]) -> str:
    """Return the name with a number where another reading has it, its address taken out too."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[: _LONGEST_NAME - 5]} ({number})"
    return free


def _check_is_one(machines: Sequence[Hardware]) -> None:
    # What a run may use of a machine differs from day to day; these do not.
    kinds = {
        (one.cpu, one.logical_cores, one.os, tuple(gpu.name for gpu in one.gpus)): str(one)
        for one in machines
    }
    if len(kinds) > 1:
        shown = "; ".join(sorted(kinds.values()))
        raise RecordError(
            f"The results come from {len(kinds)} machines ({shown}). Keep the results of each in a "
            "folder of its own."
        )


def _commit() -> str | None:
    """Return the commit of the checkout that this package lies in, if it lies in one."""
    import guidebook

    root = Path(guidebook.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# --- From a file to a record ------------------------------------------------------------------


def _from_dict(data: Mapping[str, Any]) -> Record:
    hardware = dict(data["hardware"])
    hardware["gpus"] = tuple(Gpu(**gpu) for gpu in hardware["gpus"])
    return Record(
        created=datetime.date.fromisoformat(data["created"]),
        guidebook=data["guidebook"],
        commit=data["commit"],
        hardware=Hardware(**hardware),
        software=dict(data["software"]),
        chapters=tuple(
            ChapterRun(**{**run, "day": datetime.date.fromisoformat(run["day"])})
            for run in data["chapters"]
        ),
        claims=tuple(
            Verdict(one["id"], Outcome(one["outcome"]), one["evidence"], one["needs"])
            for one in data["claims"]
        ),
        measurements=tuple(
            Reading(
                one["chapter"],
                one["name"],
                Measurement(one["unit"], tuple(map(float, one["samples"]))),
            )
            for one in data["measurements"]
        ),
    )


def _texts(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield f"a name under {place or 'the top level'}", str(name)
            yield from _texts(item, f"{place}/{name}".strip("/"))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{place}/{number}")


# --- Small things -----------------------------------------------------------------------------


def _json_text(data: Mapping[str, Any]) -> str:
    """Write JSON with a list of plain values on one line: samples would fill pages otherwise."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    flat = re.sub(
        r"\[\n\s+([^\[\]{}]*?)\n\s+\]",
        lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]",
        text,
    )
    return flat + "\n"


def _part(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = mapping.get(name)
    return part if isinstance(part, Mapping) else {}


def _day(content: Mapping[str, Any]) -> datetime.date:
    return datetime.date.fromisoformat(content["created"][:10])


def _one_of(value: object, known: Sequence[str], otherwise: str) -> str:
    return value if isinstance(value, str) and value in known else otherwise


def _inside(value: object, known: Sequence[str]) -> str | None:
    return None if value is None else _one_of(value, known, UNNAMED)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> float | None:  # noqa: ANN401 - whatever JSON can hold
    return float(_rounded(value)) if _is_number(value) and value > 0 else None


def _count(value: Any) -> int | None:  # noqa: ANN401 - whatever JSON can hold
    return int(value) if _is_number(value) and value >= 1 else None


def _gib(n_bytes: Any) -> float | None:  # noqa: ANN401 - whatever JSON can hold
    gib = round(n_bytes / units.GIB, 2) if _is_number(n_bytes) else 0.0
    return gib if gib > 0 else None


def _rounded(value: Any) -> Any:  # noqa: ANN401 - a piece of evidence: number, list, flag or None
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _distinct(texts: Iterator[str] | Sequence[str]) -> list[str]:
    return sorted({text for text in texts if text})
