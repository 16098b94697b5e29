"""What every chapter does first and last: say what it runs on, collect, and save.

A notebook calls :func:`begin` once. The object it gets back takes measurements and verdicts
as the chapter goes, and :meth:`Chapter.finish` writes them to ``<results_dir>/<chapter>.json``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import guidebook
from guidebook import claims, results

if TYPE_CHECKING:
    from guidebook.machine import Machine
    from guidebook.measure import Measurement
    from guidebook.tables import Table


class Readings(Protocol):
    """Repeated readings of one quantity, such as a ``Measurement`` or a ``Rate``."""

    @property
    def unit(self) -> str:
        """Unit of every reading."""

    @property
    def samples(self) -> tuple[float, ...]:
        """All readings, in the order taken."""


Option = TypeVar("Option")
AnyReadings = TypeVar("AnyReadings", bound=Readings)

PROFILES = ("quick", "full")
DEVICES = ("auto", "cpu", "cuda", "metal", "rocm")
_CHAPTER_ID = re.compile(r"[1-7][0-9](-[a-z0-9]+)+")

_log = logging.getLogger(__name__)


class ParameterError(ValueError):
    """A chapter's parameter has a value that it cannot use."""


@dataclass
class Chapter:
    """One run of one chapter: its parameters, its machine, and what it has found so far."""

    id: str
    model: str
    device: str
    device_reason: str
    profile: str
    results_dir: Path
    machine: Machine
    measurements: dict[str, Measurement] = field(default_factory=dict)
    verdicts: dict[str, claims.Verdict] = field(default_factory=dict)

    @property
    def n_gpu_layers(self) -> int:
        """Layers that llama.cpp shall put on the GPU: all (-1) or none (0)."""
        return 0 if self.device == "cpu" else -1

    def pick(self, *, quick: Option, full: Option) -> Option:
        """Return the value for this run's profile."""
        return quick if self.profile == "quick" else full

    def record(self, name: str, readings: AnyReadings) -> AnyReadings:
        """Keep repeated readings for the results file under a name, and hand them back."""
        from guidebook.measure import Measurement

        self.measurements[name] = Measurement(readings.unit, readings.samples)
        return readings

    def judge(self, claim_id: str, **evidence: claims.Evidence) -> claims.Verdict:
        """Judge one of this chapter's claims on measured evidence."""
        return self._keep(claims.judge(claim_id, evidence))

    def not_tested(self, claim_id: str, because: str) -> claims.Verdict:
        """Say that one of this chapter's claims cannot be tested here."""
        return self._keep(claims.not_tested(claim_id, because))

    def finish(self) -> Table:
        """Write the results file and return the chapter's verdicts as a table.

        Raises
        ------
        guidebook.claims.ClaimError
            A claim of this chapter was not judged.
        """
        from guidebook.tables import table

        missing = [
            claim.id for claim in claims.of_chapter(self.id) if claim.id not in self.verdicts
        ]
        if missing:
            raise claims.ClaimError(f"This chapter has not judged {', '.join(missing)}.")
        results.save(self.to_dict(), self.results_dir / f"{self.id}.json")
        rows = [
            {"verdict": verdict.outcome.value, "claim": verdict.claim.statement}
            for verdict in self.verdicts.values()
        ]
        return table(rows, caption="What this machine says about the chapter's claims")

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON-ready data, free of personal data."""
        from guidebook import machine

        return {
            "schema_version": results.SCHEMA_VERSION,
            "chapter": self.id,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "guidebook": guidebook.__version__,
            "parameters": {
                # A path would give away a home folder; its last part says which model it was.
                "model": Path(self.model).name if _is_path(self.model) else self.model,
                "device": self.device,
                "profile": self.profile,
            },
            "machine": machine.to_dict(self.machine),
            "measurements": {name: item.to_dict() for name, item in self.measurements.items()},
            "claims": [
                {
                    "id": verdict.claim.id,
                    "outcome": verdict.outcome.value,
                    "evidence": results.finite(dict(verdict.evidence)),
                    "because": verdict.because,
                }
                for verdict in self.verdicts.values()
            ],
        }

    def __str__(self) -> str:
        lines: Mapping[str, str] = {
            "chapter": self.id,
            "model": self.model,
            "device": f"{self.device} ({self.device_reason})",
            "profile": self.profile,
            "results": f"{self.results_dir.name}/{self.id}.json",
        }
        return "\n".join(f"{name:<8} {value}" for name, value in lines.items())

    __repr__ = __str__

    def _keep(self, verdict: claims.Verdict) -> claims.Verdict:
        if verdict.claim.chapter != self.id:
            raise claims.ClaimError(
                f"The claim {verdict.claim.id!r} belongs to chapter {verdict.claim.chapter}."
            )
        self.verdicts[verdict.claim.id] = verdict
        return verdict


def begin(chapter_id: str, *, model: str, device: str, profile: str, results_dir: str) -> Chapter:
    """Open a chapter: check its parameters, look at the machine, choose the device.

    Parameters
    ----------
    chapter_id
        The notebook's file name without suffix.
    model
        ``"embedded"``, a Hugging Face id, a folder, or a ``.gguf`` file.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"metal"`` or ``"rocm"``.
    profile
        ``"quick"`` or ``"full"``.
    results_dir
        Folder for the results file; made when it is missing.

    Raises
    ------
    ParameterError
        A parameter has a value the chapter cannot use; the message lists those it can.
    """
    from guidebook import machine

    if not _CHAPTER_ID.fullmatch(chapter_id):
        raise ParameterError(f"{chapter_id!r} is not a chapter's name, such as '11-your-machine'.")
    _one_of("profile", profile, PROFILES)
    _one_of("device", device, DEVICES)
    if not model:
        raise ParameterError("The parameter model is empty; use 'embedded' for the book's own.")
    here = machine.describe()
    chosen, reason = choose_device(device, here)
    # Keeps the tokenizers library from warning about forks in the middle of a chapter.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return Chapter(chapter_id, model, chosen, reason, profile, Path(results_dir), here)


def choose_device(wanted: str, here: Machine) -> tuple[str, str]:
    """Choose the device for llama.cpp and say why.

    Returns
    -------
    tuple
        The device and the reason, as a phrase to print.

    Raises
    ------
    ParameterError
        A GPU was asked for that this machine or this build of llama.cpp cannot use.
    """
    kinds = [gpu.kind for gpu in here.gpus]
    if wanted == "cpu":
        return "cpu", "asked for"
    if wanted == "auto" and not kinds:
        return "cpu", "no GPU was found"
    if wanted != "auto" and wanted not in kinds:
        found = ", ".join(kinds) or "none"
        raise ParameterError(
            f"No {wanted} GPU was found on this machine (found: {found}). Use device='auto'."
        )
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        if wanted == "auto":
            return kinds[0], "found, and llama.cpp can use it"
        return wanted, "asked for"
    reason = "llama-cpp-python was built without GPU support; see the book's troubleshooting page"
    if wanted == "auto":
        return "cpu", f"a GPU was found, but {reason}"
    raise ParameterError(f"The device {wanted} cannot be used: {reason}.")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ParameterError(f"The parameter {name} is {value!r}; it can be {', '.join(known)}.")


def _is_path(model: str) -> bool:
    return model.endswith(".gguf") or Path(model).exists()
