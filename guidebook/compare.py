"""Two records side by side: which verdicts, measurements and versions differ, beyond noise.

**The test.** The ratio of two medians gets a 99 % interval: Student's t on the logarithms of the
readings, with Welch's degrees of freedom. Chapters repeat a measurement three to five times, too
few to know its noise well, so the usual noise of all measurements in that unit counts like three
more readings (a moderated t: G. Smyth, "Linear models and empirical Bayes methods", 2004, with
fixed instead of estimated weight). A difference counts if the whole interval lies beyond the
allowance, by default 10 % either way; two records agree if it lies within.

**The allowance** is for what changes from one run to the next and stays the same within it, such
as where memory lies and how warm the machine is (T. Kalibera and R. Jones, "Rigorous benchmarking
in reasonable time", ISMM 2013). Two runs cannot tell how much that is. Simulated with 3 % of noise
in a run, 4 % between runs and three readings each, 1 in 100 equal measurements come out as
different and 9 in 10 that differ by 30 %. No test can know of another program that ran meanwhile.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from guidebook import claims, results, units
from guidebook.claims import Outcome
from guidebook.records import Record, Verdict

if TYPE_CHECKING:
    from guidebook.documents import Block
    from guidebook.measure.timing import Measurement

ALLOWANCE = 0.10
CONFIDENCE = 0.99
NOT_THERE = "–"
_LARGEST = math.log(1e300)

# So many readings is the usual noise worth, beside a measurement's own.
_USUAL_COUNTS = 3
# Two-sided 99 % quantiles of Student's t by degrees of freedom; between two rows the wider one.
_QUANTILES = (
    *((1, 63.657), (2, 9.925), (3, 5.841), (4, 4.604), (5, 4.032), (6, 3.707), (7, 3.499)),
    *((8, 3.355), (9, 3.250), (10, 3.169), (12, 3.055), (15, 2.947), (20, 2.845), (30, 2.750)),
    *((60, 2.660), (120, 2.617)),
)


class Finding(StrEnum):
    """What two measurements of one quantity say."""

    DIFFERS = "differs"
    AGREES = "agrees"
    WITHIN_NOISE = "within noise"
    NOT_REPEATED = "not repeated"


@dataclass(frozen=True)
class ClaimRow:
    """A claim that did not come out alike; ``None`` is a record that says nothing about it."""

    id: str
    a: Verdict | None
    b: Verdict | None

    @property
    def contradicts(self) -> bool:
        """Whether one machine refuted what held on the other."""
        outcomes = {one.outcome for one in (self.a, self.b) if one is not None}
        return outcomes == {Outcome.HELD, Outcome.REFUTED}


@dataclass(frozen=True)
class MeasurementRow:
    """A quantity that both records measured.

    Attributes
    ----------
    chapter, name
        What was measured.
    a, b
        The readings.
    ratio, low, high
        Median of b by median of a, with its 99 % interval. ``None``: a reading is zero or
        negative, or (``low`` and ``high``) there is only one.
    finding
        What follows from it.
    """

    chapter: str
    name: str
    a: Measurement
    b: Measurement
    ratio: float | None
    low: float | None
    high: float | None
    finding: Finding


@dataclass(frozen=True)
class SettingRow:
    """Something about the machine, its software or the run that is not the same."""

    what: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """What differs between two records.

    Attributes
    ----------
    a, b
        The records.
    claims
        Claims that did not come out alike, contradictions first.
    measurements
        Every quantity that can be compared, those that differ first.
    settings
        What else is not the same.
    left_out
        What could not be compared, as sentences.
    allowance
        Share by which a measurement may differ and still agree.
    """

    a: Record
    b: Record
    claims: tuple[ClaimRow, ...]
    measurements: tuple[MeasurementRow, ...]
    settings: tuple[SettingRow, ...]
    left_out: tuple[str, ...]
    allowance: float

    @property
    def contradictions(self) -> tuple[ClaimRow, ...]:
        """Claims that held on one machine and were refuted on the other."""
        return tuple(row for row in self.claims if row.contradicts)

    def with_finding(self, finding: Finding) -> tuple[MeasurementRow, ...]:
        """Return the measurements of one finding."""
        return tuple(row for row in self.measurements if row.finding == finding)

    @property
    def matches(self) -> bool:
        """Whether no claim is contradicted and no measurement differs beyond noise."""
        return not self.contradictions and not self.with_finding(Finding.DIFFERS)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        data: dict[str, Any] = results.finite(
            {
                "matches": self.matches,
                "confidence": CONFIDENCE,
                "allowance": self.allowance,
                "claims": [
                    {
                        "id": row.id,
                        "a": row.a and row.a.outcome.value,
                        "b": row.b and row.b.outcome.value,
                        "contradicts": row.contradicts,
                    }
                    for row in self.claims
                ],
                "measurements": [
                    {
                        "chapter": row.chapter,
                        "name": row.name,
                        "unit": row.a.unit,
                        "a": row.a.median,
                        "b": row.b.median,
                        "ratio": row.ratio,
                        "low": row.low,
                        "high": row.high,
                        "finding": row.finding.value,
                    }
                    for row in self.measurements
                ],
                "settings": [{"what": row.what, "a": row.a, "b": row.b} for row in self.settings],
                "left_out": list(self.left_out),
            }
        )
        return data

    def blocks(self) -> list[Block]:
        """Return the comparison as a document."""
        return list(_blocks(self))

    def __str__(self) -> str:
        from guidebook import documents

        return documents.text(self.blocks())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from guidebook import documents

        return documents.html(self.blocks())


def compare(a: Record, b: Record, *, allowance: float = ALLOWANCE) -> Comparison:
    """Compare two records: verdicts, measurements, machines and versions.

    Measurements of a chapter are compared if it ran with the same model and profile; the device
    may be another one.

    Parameters
    ----------
    a, b
        Records; ratios are b to a.
    allowance
        Share by which a measurement may differ and still agree: 0.1 for 10 %.

    Raises
    ------
    ValueError
        The allowance is negative or not a number.
    """
    if not allowance >= 0 or math.isinf(allowance):
        raise ValueError(f"An allowance of {allowance} says nothing. Give a share such as 0.1.")
    rows = sorted(_measurements(a, b, allowance), key=lambda row: row.finding != Finding.DIFFERS)
    return Comparison(
        a,
        b,
        tuple(sorted(_claims(a, b), key=lambda row: not row.contradicts)),
        tuple(rows),
        tuple(_settings(a, b)),
        tuple(_left_out(a, b)),
        allowance,
    )


def judge(
    a: Sequence[float],
    b: Sequence[float],
    allowance: float = ALLOWANCE,
    usual: float | None = None,
) -> tuple[float | None, float | None, float | None, Finding]:
    """Say whether two series of readings differ beyond their noise.

    Parameters
    ----------
    a, b
        Readings of the same quantity in the same unit.
    allowance
        Share by which they may differ and still agree.
    usual
        Usual variance of the logarithms of such readings, from :func:`usual_noise`; None: unknown.

    Returns
    -------
    tuple
        Ratio of the medians (b to a), the two ends of its 99 % interval, and the finding. The ratio
        is None if a reading is zero or negative; differences are judged then, against the larger
        median.
    """
    positive = min(*a, *b) > 0
    middle_a, middle_b = statistics.median(a), statistics.median(b)
    scale: Callable[[float], float] = math.log if positive else float
    shift = scale(middle_b) - scale(middle_a)
    band = math.log1p(allowance) if positive else allowance * max(abs(middle_a), abs(middle_b))
    ratio = middle_b / middle_a if positive else None
    if min(len(a), len(b)) < 2:
        return ratio, None, None, Finding.NOT_REPEATED
    half = _half_width(
        [scale(one) for one in a], [scale(one) for one in b], usual if positive else None
    )
    finding = Finding.WITHIN_NOISE
    if abs(shift) - half > band:
        finding = Finding.DIFFERS
    elif abs(shift) + half <= band:
        finding = Finding.AGREES
    if ratio is None:
        return None, None, None, finding
    # A wide enough interval reaches beyond what a float can hold.
    factor = math.exp(min(half, _LARGEST))
    return ratio, ratio / factor, ratio * factor, finding


def usual_noise(series: Iterable[Sequence[float]]) -> float | None:
    """Return the usual variance of the logarithms of repeated readings; None without any.

    It is the median over the series, so that one disturbed measurement does not raise it.
    """
    variances = [
        statistics.variance(math.log(one) for one in readings)
        for readings in series
        if len(readings) > 1 and min(readings) > 0
    ]
    return statistics.median(variances) if variances else None


def quantile(degrees_of_freedom: float) -> float:
    """Return Student's t beyond which 1 % lies, both tails together; never too small."""
    below = [value for degrees, value in _QUANTILES if degrees <= degrees_of_freedom]
    return below[-1] if below else math.inf


def _half_width(a: Sequence[float], b: Sequence[float], usual: float | None) -> float:
    """Return half of the 99 % interval of the difference of two means, in the readings' unit."""
    squares, degrees = [], []
    for readings in (a, b):
        own = len(readings) - 1
        variance = statistics.variance(readings)
        extra = 0 if usual is None else _USUAL_COUNTS
        pooled = (own * variance + extra * (usual or 0.0)) / (own + extra)
        squares.append(pooled / len(readings))
        degrees.append(own + extra)
    together = sum(squares)
    if together == 0:
        return 0.0
    shares = [square / together for square in squares]
    welch = 1 / sum(share**2 / own for share, own in zip(shares, degrees, strict=True))
    return quantile(welch) * math.sqrt(together)


def _claims(a: Record, b: Record) -> Iterator[ClaimRow]:
    # A claim's id begins with its chapter's number. A chapter that only one ran is named elsewhere.
    numbers = {run.chapter[:2] for run in a.chapters} & {run.chapter[:2] for run in b.chapters}
    of_a, of_b = (
        {verdict.id: verdict for verdict in one.claims if verdict.id[:2] in numbers}
        for one in (a, b)
    )
    for name in dict.fromkeys([*of_a, *of_b]):
        one, other = of_a.get(name), of_b.get(name)
        if one is None or other is None or one.outcome != other.outcome:
            yield ClaimRow(name, one, other)


def _measurements(a: Record, b: Record, allowance: float) -> Iterator[MeasurementRow]:
    comparable = _comparable(a, b)
    of_b = {(one.chapter, one.name): one.measured for one in b.measurements}
    pairs = [
        (reading, of_b[reading.chapter, reading.name])
        for reading in a.measurements
        if reading.chapter in comparable and (reading.chapter, reading.name) in of_b
    ]
    by_unit: dict[str, list[Sequence[float]]] = {}
    for reading, other in pairs:
        by_unit.setdefault(reading.measured.unit, []).extend(
            (reading.measured.samples, other.samples)
        )
    usual = {unit: usual_noise(series) for unit, series in by_unit.items()}
    for reading, other in pairs:
        one = reading.measured
        if one.unit == other.unit:
            found = judge(one.samples, other.samples, allowance, usual[one.unit])
            yield MeasurementRow(reading.chapter, reading.name, one, other, *found)


def _comparable(a: Record, b: Record) -> set[str]:
    tests = [{(run.chapter, run.model, run.profile) for run in one.chapters} for one in (a, b)]
    return {chapter for chapter, _, _ in tests[0] & tests[1]}


def _left_out(a: Record, b: Record) -> Iterator[str]:
    runs = [{run.chapter: run for run in one.chapters} for one in (a, b)]
    for name, mine, other in (("A", runs[0], runs[1]), ("B", runs[1], runs[0])):
        alone = [chapter for chapter in mine if chapter not in other]
        if alone:
            yield f"Only {name} ran {', '.join(alone)}."
    together = set(runs[0]) & set(runs[1])
    for chapter in sorted(together - _comparable(a, b)):
        yield (
            f"The measurements of {chapter} are not compared: it ran with another model or another "
            "profile."
        )
    names = [{(one.chapter, one.name): one.measured.unit for one in r.measurements} for r in (a, b)]
    odd = sorted(key for key in set(names[0]) ^ set(names[1]) if key[0] in together)
    odd += sorted(k for k in set(names[0]) & set(names[1]) if names[0][k] != names[1][k])
    if odd:
        shown = ", ".join(f"{chapter[:2]} {name}" for chapter, name in odd)
        yield f"Measured on one machine only, or in another unit: {shown}."


def _settings(a: Record, b: Record) -> Iterator[SettingRow]:
    described = [{**_machine(one), **one.software} for one in (a, b)]
    for what in dict.fromkeys([*described[0], *described[1]]):
        one, other = (each.get(what, NOT_THERE) for each in described)
        if one != other:
            yield SettingRow(what, one, other)
    runs = [{run.chapter: run for run in one.chapters} for one in (a, b)]
    together = [chapter for chapter in runs[0] if chapter in runs[1]]
    for what in ("model", "device", "profile"):
        changed: dict[tuple[str, str], list[str]] = {}
        for chapter in together:
            one, other = (getattr(each[chapter], what) for each in runs)
            if one != other:
                changed.setdefault((one, other), []).append(chapter)
        for (one, other), chapters in changed.items():
            where = "" if chapters == together else f" of {', '.join(c[:2] for c in chapters)}"
            yield SettingRow(f"{what}{where}", one, other)


def _machine(record: Record) -> dict[str, str]:
    hardware = record.hardware
    gpus = [
        f"{gpu.name} ({units.quantity(gpu.memory_gib, 'GiB')})" if gpu.memory_gib else gpu.name
        for gpu in hardware.gpus
    ]
    inside = [name for name in (hardware.container, hardware.virtual_machine) if name]
    return {
        "book": record.guidebook,
        "commit": (record.commit or units.UNKNOWN)[:12],
        "processor": hardware.cpu or units.UNKNOWN,
        "cores": units.UNKNOWN if hardware.cores is None else f"{hardware.cores:g}",
        "memory": units.UNKNOWN if hardware.ram_gib is None else f"{hardware.ram_gib:.0f} GiB",
        "GPU": ", ".join(gpus) or "none",
        "system": f"WSL {hardware.wsl}" if hardware.wsl else hardware.os,
        "runs inside": ", ".join(inside) or "nothing",
    }


# --- Many records -----------------------------------------------------------------------------


def machines(records: Mapping[str, Record]) -> list[dict[str, object]]:
    """Return one row for each record: machine, day, versions, and how its claims came out."""
    return [
        {
            "record": name,
            "machine": str(record.hardware),
            "day": record.created.isoformat(),
            "book": record.guidebook,
            "chapters": str(len(record.chapters)),
            "held": str(record.count(Outcome.HELD)),
            "refuted": str(record.count(Outcome.REFUTED)),
            "not tested": str(record.count(Outcome.NOT_TESTED)),
        }
        for name, record in records.items()
    ]


def verdicts(records: Mapping[str, Record]) -> list[dict[str, object]]:
    """Return one row for each claim of the ledger that a record judges, one column a record."""
    by_record = {
        name: {verdict.id: verdict.outcome.value for verdict in record.claims}
        for name, record in records.items()
    }
    return [
        {
            "claim": f"{claim.id[:2]} · {claim.statement}",
            **{name: found.get(claim.id, NOT_THERE) for name, found in by_record.items()},
        }
        for claim in claims.ledger().values()
        if any(claim.id in found for found in by_record.values())
    ]


def speeds(records: Mapping[str, Record]) -> list[dict[str, object]]:
    """Return one row for each measurement, with median, range and repetitions of each record."""
    by_record = {
        name: {(one.chapter, one.name): one.measured for one in record.measurements}
        for name, record in records.items()
    }
    # Sorting by chapter alone keeps the order in which each chapter measures.
    keys = sorted(dict.fromkeys(key for found in by_record.values() for key in found), key=_chapter)
    return [
        {
            "measurement": f"{chapter[:2]} · {name.replace('_', ' ')}",
            **{
                record: _with_range(found[chapter, name]) if (chapter, name) in found else NOT_THERE
                for record, found in by_record.items()
            },
        }
        for chapter, name in keys
    ]


def _chapter(key: tuple[str, str]) -> str:
    return key[0]


# --- As a document ----------------------------------------------------------------------------


def _blocks(found: Comparison) -> Iterator[Block]:
    from guidebook.documents import Heading, Items, Paragraph
    from guidebook.tables import table

    yield Heading("Two records compared", 1)
    yield Items((f"A: {_title(found.a)}", f"B: {_title(found.b)}"))
    yield Paragraph(_summary(found))
    yield Heading("Claims")
    if found.claims:
        yield table([_claim_row(row) for row in found.claims], "Claims that came out differently")
    else:
        yield Paragraph("Every claim came out alike.")
    yield Heading("Measurements")
    if found.measurements:
        yield table(
            [_measurement_row(row) for row in found.measurements],
            "Median of each; B ÷ A with its 99 % interval",
        )
        yield Paragraph(
            "Test: Student's t on the logarithms of the readings, with Welch's degrees of freedom; "
            "the usual noise of all measurements in that unit counts like three more readings. A "
            "measurement differs if the whole interval lies more than "
            f"{units.percent(found.allowance)} away from 1, and agrees if all of it lies within. "
            "Among many, one in a hundred may come out as different by chance. What else a machine "
            "was doing at the time, no test can know."
        )
    else:
        yield Paragraph("There is nothing that both measured in the same way.")
    yield Heading("Machine, software and settings")
    if found.settings:
        rows: list[dict[str, object]] = [
            {"what": row.what, "A": row.a, "B": row.b} for row in found.settings
        ]
        yield table(rows, "What is not the same")
    else:
        yield Paragraph("All the same.")
    if found.left_out:
        yield Heading("Not compared")
        yield Items(found.left_out)


def _title(record: Record) -> str:
    return f"{record.hardware} ({record.created.isoformat()}, book {record.guidebook})"


def _summary(found: Comparison) -> str:
    counts = {finding: len(found.with_finding(finding)) for finding in Finding}
    contradicted = len(found.contradictions)
    verdict = "They match" if found.matches else "They do not match"
    return (
        f"{verdict}: {_counted(contradicted, 'claim')} held on one and refuted on the other; of "
        f"{_counted(len(found.measurements), 'measurement')} {counts[Finding.DIFFERS]} differ "
        f"beyond noise, {counts[Finding.AGREES]} agree, {counts[Finding.WITHIN_NOISE]} lie within "
        f"noise, {counts[Finding.NOT_REPEATED]} were not repeated."
    )


def _claim_row(row: ClaimRow) -> dict[str, object]:
    known = claims.ledger().get(row.id)
    return {
        "claim": f"{row.id[:2]} · {known.statement if known else row.id}",
        "A": row.a.outcome.value if row.a else NOT_THERE,
        "B": row.b.outcome.value if row.b else NOT_THERE,
        "evidence of A": _evidence(row.a),
        "evidence of B": _evidence(row.b),
    }


def _evidence(verdict: Verdict | None) -> str:
    known = verdict and claims.ledger().get(verdict.id)
    if not verdict or not known or verdict.outcome == Outcome.NOT_TESTED:
        return NOT_THERE
    return evidence_of(verdict) or NOT_THERE


def evidence_of(verdict: Verdict) -> str:
    """Write a verdict's evidence with its units: ``decode tokens per second: 107 tokens/s``."""
    claim = claims.ledger()[verdict.id]
    shown = claims.Verdict(claim, verdict.outcome, verdict.evidence)
    return "; ".join(line.strip() for line in str(shown).splitlines()[1:])


def _measurement_row(row: MeasurementRow) -> dict[str, object]:
    ratio = NOT_THERE if row.ratio is None else f"{units.number(row.ratio)} ×"
    if row.low is not None and row.high is not None:
        ratio += f" ({_short(row.low)} to {_short(row.high)})"
    return {
        "measurement": f"{row.chapter[:2]} · {row.name.replace('_', ' ')}",
        "A": _amount(row.a.median, row.a.unit),
        "B": _amount(row.b.median, row.b.unit),
        "B ÷ A": ratio,
        "finding": row.finding.value,
    }


def _short(value: float) -> str:
    if value < 0.001:
        return "0"
    return units.number(value) if value < 1000 else "∞"


def _amount(value: float, unit: str) -> str:
    special = {"bytes/s": units.bandwidth, "FLOP/s": units.compute, "s": units.duration}
    return special[unit](value) if unit in special else units.quantity(value, unit)


def _with_range(measured: Measurement) -> str:
    middle, low, high = (
        _amount(value, measured.unit) for value in (measured.median, measured.low, measured.high)
    )
    return f"{middle} ({low} to {high}, {_counted(len(measured.samples), 'run')})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
