"""What a benchmark has found, as values that a file can hold and give back."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from guidebook.bench.plan import BenchError, Settings
from guidebook.engines.base import Reported
from guidebook.measure import Measurement

SCHEMA_VERSION = 1

_MEASURED = (
    "load_cold",
    "load_warm",
    "time_to_first_token",
    "prefill",
    "decode",
    "reported_load",
    "reported_prefill",
    "reported_decode",
)


@dataclass(frozen=True)
class Concurrency:
    """Several requests at once to one server.

    Attributes
    ----------
    tokens_per_second
        All tokens of all answers, by the time until the last of them had ended.
    time_to_first_token
        One reading for each request.
    decode
        One reading for each request that sent more than one piece; ``None`` if none did.
    """

    tokens_per_second: float
    time_to_first_token: Measurement
    decode: Measurement | None


@dataclass(frozen=True)
class Result:
    """One contender's figures; ``None`` where there is none.

    Attributes
    ----------
    runtime
        The runtime and its version.
    model, weights, weights_bytes
        Name of the model, type of its weights, and their size on the disk.
    n_prompt, n_generated
        Tokens of the prompt and of the answer, as the runtime counts them (medians).
    load_cold, load_warm
        Seconds until the first token of a one-word prompt is there: with the file's pages dropped
        from memory before, and with the file in memory. For a server that we start, its process
        is part of it.
    time_to_first_token, prefill, decode
        From the request to the first piece; prompt tokens by that time; tokens after the first
        by the time from the first piece to the last.
    inter_token_latency_p50, inter_token_latency_p95
        Seconds between one piece and the next, over all answers together.
    peak_rss_bytes, peak_vram_bytes
        The most memory that the process with the model has held.
    reported_load, reported_prefill, reported_decode, reported_source
        What the runtime says itself, and where.
    concurrency
        For servers: by the number of requests at once.
    answer
        The first measured answer.
    notes, failed
        What to know about the figures, and why there are no more of them.
    """

    label: str
    engine: str
    runtime: str = ""
    model: str = ""
    weights: str = ""
    weights_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    n_ctx: int | None = None
    n_prompt: int | None = None
    n_generated: int | None = None
    load_cold: Measurement | None = None
    load_warm: Measurement | None = None
    time_to_first_token: Measurement | None = None
    prefill: Measurement | None = None
    decode: Measurement | None = None
    inter_token_latency_p50: float | None = None
    inter_token_latency_p95: float | None = None
    peak_rss_bytes: int | None = None
    peak_vram_bytes: int | None = None
    reported_load: Measurement | None = None
    reported_prefill: Measurement | None = None
    reported_decode: Measurement | None = None
    reported_source: str = ""
    concurrency: Mapping[int, Concurrency] = field(default_factory=dict)
    answer: str = ""
    notes: tuple[str, ...] = ()
    failed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data, with every reading."""
        data = asdict(self)
        for name in _MEASURED:
            measured = getattr(self, name)
            data[name] = None if measured is None else measured.to_dict()
        data["concurrency"] = {
            str(n): {
                "tokens_per_second": row.tokens_per_second,
                "time_to_first_token": row.time_to_first_token.to_dict(),
                "decode": None if row.decode is None else row.decode.to_dict(),
            }
            for n, row in self.concurrency.items()
        }
        data["notes"] = list(self.notes)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Return the result that ``to_dict`` wrote."""
        values = dict(data)
        for name in _MEASURED:
            values[name] = _measurement(values[name])
        values["concurrency"] = {
            int(n): Concurrency(
                row["tokens_per_second"],
                Measurement(
                    row["time_to_first_token"]["unit"],
                    tuple(row["time_to_first_token"]["samples"]),
                ),
                _measurement(row["decode"]),
            )
            for n, row in values["concurrency"].items()
        }
        values["notes"] = tuple(values["notes"])
        return cls(**values)


@dataclass(frozen=True)
class Report:
    """What a benchmark has found: a table in a notebook, and files for elsewhere.

    Attributes
    ----------
    results
        One for each contender, in the order given; those that failed say why.
    interrupted
        Whether it was stopped before every contender had its turn.
    """

    results: tuple[Result, ...]
    settings: Settings
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    date: str
    interrupted: bool = False

    def __getitem__(self, label: str) -> Result:
        """Return the result of the contender with this label."""
        for result in self.results:
            if result.label == label:
                return result
        names = ", ".join(repr(result.label) for result in self.results)
        raise KeyError(f"There is no result called {label!r}; there are {names}.")

    def __str__(self) -> str:
        from guidebook.bench import show

        return show.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from guidebook.bench import show

        return show.html(self)

    def to_markdown(self) -> str:
        """Return tables and notes for a page or an issue."""
        from guidebook.bench import show

        return show.markdown(self)

    def to_json(self) -> str:
        """Return everything, every reading included; :meth:`from_json` reads it."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "date": self.date,
            "interrupted": self.interrupted,
            "settings": self.settings.to_dict(),
            "machine": self.machine,
            "versions": self.versions,
            "results": [result.to_dict() for result in self.results],
        }
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that ``to_json`` wrote.

        Raises
        ------
        BenchError
            The text is not such a report, or of another version.
        """
        try:
            data = json.loads(text)
            if data["schema_version"] != SCHEMA_VERSION:
                raise BenchError(
                    f"The report has version {data['schema_version']}, and this package reads "
                    f"version {SCHEMA_VERSION}: make it again with `guidebook bench`."
                )
            return cls(
                results=tuple(Result.from_dict(one) for one in data["results"]),
                settings=Settings.from_dict(data["settings"]),
                machine=data["machine"],
                versions=data["versions"],
                date=data["date"],
                interrupted=data["interrupted"],
            )
        except BenchError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BenchError(
                "The text is not a report that `guidebook bench --format json` wrote."
            ) from error

    def to_csv(self) -> str:
        """Return one row for each contender, with medians, lowest and highest readings."""
        rows = [_flat(result, self.settings) for result in self.results]
        out = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """Return the smallest value that so many of the values do not exceed; ``None`` of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def build(
    label: str,
    engine: str,
    events: Sequence[Mapping[str, Any]],
    settings: Settings,
    **known: Any,  # noqa: ANN401
) -> Result:
    """Make a result of what a worker has reported, as far as it got.

    Parameters
    ----------
    events
        The worker's reports, in order.
    known
        More fields of the result, known before the worker began.
    """

    def of(kind: str) -> list[Mapping[str, Any]]:
        return [event for event in events if event["event"] == kind]

    loads = of("load")
    answers = of("answer")
    about = of("about")[0] if of("about") else {}
    counts = [_n_prompt(one) for one in answers]
    firsts = [one["first"] for one in answers]
    gaps = [gap for one in answers for gap in one["gaps"]]
    memory = of("memory")
    said = [Reported(**one["reported"]) for one in answers]
    sources = [one.source for one in said if one.source]
    return Result(
        label=label,
        engine=engine,
        runtime=about.get("runtime", ""),
        n_ctx=about.get("n_ctx"),
        n_prompt=_middle(counts),
        n_generated=_middle([_n_generated(one) for one in answers]),
        load_cold=_seconds([one["seconds"] for one in loads if one["cold"]]),
        load_warm=_seconds([one["seconds"] for one in loads if not one["cold"]]),
        time_to_first_token=_seconds(firsts),
        prefill=_speed([n / first for n, first in zip(counts, firsts, strict=True) if first > 0]),
        decode=_speed(_decodes(answers)),
        inter_token_latency_p50=percentile(gaps, 0.50),
        inter_token_latency_p95=percentile(gaps, 0.95),
        peak_rss_bytes=_most(one["rss_bytes"] for one in memory),
        peak_vram_bytes=_most(one["vram_bytes"] for one in memory),
        reported_load=_seconds(
            [one["reported"] for one in (*loads, *of("first_request")) if one["reported"]]
        ),
        reported_prefill=_speed([*filter(None, (one.prefill_tokens_per_second for one in said))]),
        reported_decode=_speed([*filter(None, (one.decode_tokens_per_second for one in said))]),
        reported_source=sources[0] if sources else "",
        concurrency={one["n"]: _together(one) for one in of("together")},
        answer=answers[0]["text"] if answers else "",
        notes=tuple(_notes(events, answers, loads, settings, engine)),
        **known,
    )


def _notes(
    events: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    loads: Sequence[Mapping[str, Any]],
    settings: Settings,
    engine: str,
) -> list[str]:
    notes = [one["text"] for one in events if one["event"] == "note"]
    short = [one for one in answers if _n_generated(one) < settings.n_generate]
    if short:
        notes.append(
            f"{len(short)} of {len(answers)} answers ended before {settings.n_generate} tokens."
        )
    tokens = sum(_n_generated(one) for one in answers)
    pieces = sum(one["n_pieces"] for one in answers)
    if pieces and tokens > 1.1 * pieces:
        notes.append(
            f"It sends {tokens / pieces:.1f} tokens at a time: the latency is between such pieces."
        )
    cached = [one["reported"]["n_cached"] or 0 for one in answers]
    if any(cached):
        notes.append(
            f"It took up to {max(cached)} prompt tokens from its cache: its prefill is too good."
        )
    if any(one["event"] == "not_cold" for one in events):
        notes.append(
            "No cold load: the system keeps the file in memory, as while another process uses it."
        )
    if loads and engine == "llama-cpp-server":
        notes.append("Its load time includes starting the server's process.")
    return notes


def _n_prompt(answer: Mapping[str, Any]) -> int:
    return int(answer["reported"]["n_prompt"] or answer["counted"])


def _n_generated(answer: Mapping[str, Any]) -> int:
    return int(answer["reported"]["n_generated"] or answer["n_pieces"])


def _decodes(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    return [
        (_n_generated(one) - 1) / (one["last"] - one["first"])
        for one in answers
        if _n_generated(one) > 1 and one["last"] > one["first"]
    ]


def _together(event: Mapping[str, Any]) -> Concurrency:
    answers = event["answers"]
    return Concurrency(
        sum(_n_generated(one) for one in answers) / event["seconds"],
        Measurement("s", tuple(one["first"] for one in answers)),
        _speed(_decodes(answers)),
    )


def _flat(result: Result, settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": result.label,
        "engine": result.engine,
        "runtime": result.runtime,
        "model": result.model,
        "weights": result.weights,
        "weights_bytes": result.weights_bytes,
        "n_prompt": result.n_prompt,
        "n_generated": result.n_generated,
        "repetitions": settings.repetitions,
    }
    for name in _MEASURED:
        measured: Measurement | None = getattr(result, name)
        unit = "tokens_per_second" if "prefill" in name or "decode" in name else "seconds"
        row[f"{name}_{unit}"] = None if measured is None else measured.median
        if not name.startswith("reported"):
            row[f"{name}_low"] = None if measured is None else measured.low
            row[f"{name}_high"] = None if measured is None else measured.high
    row["inter_token_latency_p50_seconds"] = result.inter_token_latency_p50
    row["inter_token_latency_p95_seconds"] = result.inter_token_latency_p95
    row["peak_rss_bytes"] = result.peak_rss_bytes
    row["peak_vram_bytes"] = result.peak_vram_bytes
    for n in settings.concurrency:
        at_once = result.concurrency.get(n)
        found = None if at_once is None else at_once.tokens_per_second
        row[f"at_once_{n}_tokens_per_second"] = found
        first = None if at_once is None else at_once.time_to_first_token.high
        row[f"at_once_{n}_slowest_first_token_seconds"] = first
    row["notes"] = " ".join(result.notes)
    row["failed"] = result.failed
    return row


def _measurement(data: Mapping[str, Any] | None) -> Measurement | None:
    return None if data is None else Measurement(data["unit"], tuple(data["samples"]))


def _seconds(values: Sequence[float]) -> Measurement | None:
    return Measurement("s", tuple(values)) if values else None


def _speed(values: Sequence[float]) -> Measurement | None:
    return Measurement("tokens/s", tuple(values)) if values else None


def _middle(values: Sequence[int]) -> int | None:
    return round(statistics.median(values)) if values else None


def _most(values: Any) -> int | None:  # noqa: ANN401 - any iterable of numbers and None
    return max((value for value in values if value is not None), default=None)
