"""The reader's plan: what the chapters found, what to run now, what to buy next, when to rent.

Everything comes from a record (:mod:`guidebook.records`), which names no person and no computer,
and from the planner. So a report can be shared, and it can be made of a run on another machine,
or of a machine that is only described.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import guidebook
from guidebook import (
    claims,
    compare,
    documents,
    hindsight,
    machine,
    plan,
    records,
    renting_advice,
    results,
    units,
    upgrade,
)
from guidebook.advice import Advice
from guidebook.catalog import hardware
from guidebook.catalog.prices import Price
from guidebook.claims import Outcome
from guidebook.documents import Block, Code, Heading, Items, Paragraph
from guidebook.hindsight import Check
from guidebook.machine import cpu
from guidebook.plan import Rig
from guidebook.records import Found, Record
from guidebook.renting_advice import Habits
from guidebook.tables import table
from guidebook.upgrade import Evaluation
from guidebook.writing import write_whole

if TYPE_CHECKING:
    from guidebook.chapter import Chapter
    from guidebook.machine import Machine, Rate

SCHEMA_VERSION = 2
TITLE = "Your plan"
FILE_NAME = "your-plan"
WANTED = ("llama-3-8b", "qwen2.5-14b", "qwen2.5-32b", "llama-3.3-70b", "gpt-oss-120b")

_STEPS = 2
_DDR4 = "DDR4-3200 dual channel (2x64-bit)"
_BANDWIDTH, _FLOPS = "memory_bandwidth", "matrix_flops"
_USABLE = f"at least {upgrade.READING_PACE:g} tokens/s even at the low end of the interval"


@dataclass(frozen=True)
class Wishes:
    """What the reader wants and has, as far as no machine can know it.

    Attributes
    ----------
    models
        Models of the catalog to run, each taken in 4 bits.
    budget_usd
        What there is to spend; None: no limit.
    psu_w
        Rating of the power supply; None: unknown.
    memory
        Kind of the memory modules, as the price list calls them, such as ``DDR4``.
    card_slot
        Whether a graphics card can be built in; None: yes, but for a virtual machine.
    price_file
        The reader's own prices; None: as the environment variable ``GUIDEBOOK_PRICES`` says.
    habits
        Hours a week, price of electricity and the like, for renting.
    """

    models: tuple[str, ...] = WANTED
    budget_usd: float | None = None
    psu_w: float | None = None
    memory: str = "DDR5"
    card_slot: bool | None = None
    price_file: Path | None = None
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True)
class Line:
    """A claim on the scoreboard. ``outcome`` is None where its chapter gave no verdict."""

    id: str
    chapter: str
    statement: str
    outcome: Outcome | None
    evidence: str
    needs: str


@dataclass(frozen=True)
class Report:
    """The plan.

    Attributes
    ----------
    record
        What the chapters found.
    missing
        Chapters without results, each with the reason.
    scoreboard
        Every claim of the chapters that ran, in the book's order.
    now
        What to run on this machine, use by use.
    wanted
        For each wanted model: what it takes, and whether it is usable. Rows of a table.
    purchases
        What to buy next, and what after that.
    options
        Everything that was compared for it. Rows of a table.
    renting
        When to rent.
    checks
        Predicted speeds against those that were measured.
    notes
        Assumptions, and what to know about the run.
    """

    record: Record
    missing: Mapping[str, str]
    scoreboard: tuple[Line, ...]
    now: tuple[Advice, ...]
    wanted: tuple[Mapping[str, object], ...]
    purchases: tuple[Advice, ...]
    options: tuple[Mapping[str, object], ...]
    renting: tuple[Advice, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims of the whole ledger came out which way."""
        seen = Counter(line.outcome for line in self.scoreboard)
        counts = {outcome.value: seen[outcome] for outcome in Outcome}
        return {**counts, "no verdict": len(claims.ledger()) - sum(counts.values())}

    @property
    def by_part(self) -> dict[int, dict[str, int]]:
        """The same by part of the book."""
        outcomes = {line.id: line.outcome for line in self.scoreboard}
        parts: dict[int, dict[str, int]] = {}
        for claim in claims.ledger().values():
            counts = parts.setdefault(int(claim.chapter[0]), dict.fromkeys(self.counts, 0))
            outcome = outcomes.get(claim.id)
            counts[outcome.value if outcome else "no verdict"] += 1
        return dict(sorted(parts.items()))

    def blocks(self) -> list[Block]:
        """Return the report as a document."""
        return list(_blocks(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        record = self.record.to_dict()
        data: dict[str, Any] = results.finite(
            {
                "schema_version": SCHEMA_VERSION,
                **{name: record[name] for name in ("created", "guidebook", "hardware", "software")},
                "chapters": record["chapters"],
                "missing": dict(self.missing),
                "counts": self.counts,
                "by_part": {str(part): counts for part, counts in self.by_part.items()},
                "claims": [
                    {**asdict(line), "outcome": line.outcome and line.outcome.value}
                    for line in self.scoreboard
                ],
                "now": [asdict(advice) for advice in self.now],
                "wanted": [dict(row) for row in self.wanted],
                "purchases": [asdict(advice) for advice in self.purchases],
                "options": [dict(row) for row in self.options],
                "renting": [asdict(advice) for advice in self.renting],
                "checks": [{**asdict(one), "is_inside": one.is_inside} for one in self.checks],
                "notes": list(self.notes),
            }
        )
        return data

    def to_json(self) -> str:
        """Write the report as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Write the report as Markdown."""
        return documents.markdown(self.blocks())

    def to_html(self) -> str:
        """Write the report as a page that needs no other file and no other host."""
        return documents.page(self.blocks(), TITLE)

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write the report as Markdown, HTML and JSON; each file is whole, or the old one stays."""
        texts = {"md": self.to_markdown(), "html": self.to_html(), "json": self.to_json()}
        return tuple(
            write_whole(text, folder / f"{FILE_NAME}.{suffix}") for suffix, text in texts.items()
        )

    def __str__(self) -> str:
        return documents.text(self.blocks())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return documents.html(self.blocks())


def gather(folder: Path, own: Chapter) -> Found:
    """Read the results of the other chapters beside what a chapter has found so far.

    Results that were measured on another kind of machine are left out, and named.

    Parameters
    ----------
    folder
        With the results files; it need not be there.
    own
        The chapter that asks. It says which machine this is.
    """
    here = json.loads(json.dumps(own.to_dict()))
    found = records.read(folder) if folder.is_dir() else Found({}, {})
    elsewhere = []
    if not _is_one_machine([*found.results.values(), here]):
        elsewhere = [n for n, one in found.results.items() if not _is_one_machine([one, here])]
    kept = {name: one for name, one in found.results.items() if name not in elsewhere}
    return Found(
        dict(sorted({**kept, own.id: here}.items())),
        {**found.problems, **dict.fromkeys(elsewhere, "measured on another machine")},
        found.left_out,
    )


def make(
    found: Found,
    wishes: Wishes | None = None,
    *,
    without: Collection[str] = (),
    today: datetime.date | None = None,
) -> Report:
    """Make the report of a run.

    Parameters
    ----------
    found
        From :func:`guidebook.records.read`.
    wishes
        What the reader wants and has.
    without
        Chapters that need not have run.
    today
        The day from which prices are dated; None: today.

    Raises
    ------
    guidebook.records.RecordError
        There are no results, or they come from more than one machine.
    LookupError
        The catalog has no such model.
    ValueError
        No model is wanted, or a figure is negative.
    """
    return of(records.make(found), wishes, missing=_missing(found, without), today=today)


def of(
    record: Record,
    wishes: Wishes | None = None,
    *,
    missing: Mapping[str, str] | None = None,
    today: datetime.date | None = None,
) -> Report:
    """Make the report of a record; one without chapters is a machine that is only described.

    Parameters
    ----------
    record
        What the chapters found, and where.
    wishes
        What the reader wants and has.
    missing
        Chapters without results, each with the reason.
    today
        The day from which prices are dated; None: today.

    Raises
    ------
    LookupError
        The catalog has no such model.
    ValueError
        No model is wanted, or a figure is negative.
    """
    wishes = wishes or Wishes()
    today = today or datetime.date.today()
    rig = rig_of(record, wishes.memory)
    steps = tuple(_steps(rig, record, wishes))
    return Report(
        record,
        dict(missing or {}),
        tuple(_scoreboard(record)),
        tuple(_now(rig)),
        tuple(_wanted(rig, wishes)),
        tuple(_purchases(steps, wishes, today)),
        tuple(_option_row(one, wishes.models) for one in steps[0]),
        renting_advice.advise(
            rig, wishes.models, _chosen(steps, wishes), wishes.habits, today=today
        ),
        hindsight.checks(record, rig),
        tuple(_notes(record, rig)),
    )


def guides_machine() -> Record:
    """Describe the machine that the guide starts from, as a record without results.

    "Starting Point (e.g., i7-11700KF, 32GB RAM, RTX 3080 10GB)"; that processor has 8 cores.
    """
    return Record(
        created=datetime.date(2025, 4, 1),
        guidebook=guidebook.__version__,
        commit=None,
        hardware=records.Hardware(
            cpu="Intel Core i7-11700KF",
            architecture="x86_64",
            physical_cores=8,
            logical_cores=16,
            ram_gib=32.0,
            gpus=(records.Gpu("NVIDIA GeForce RTX 3080", "cuda", 10.0, compute_capability="8.6"),),
            os="Linux",
            wsl=2,
        ),
        software={},
        chapters=(),
        claims=(),
        measurements=(),
    )


def rig_of(record: Record, memory: str = "DDR5") -> Rig:
    """Return the machine of a record as the planner sees it.

    Parameters
    ----------
    record
        With the memory bandwidth that a chapter measured there, if one did.
    memory
        Kind of the memory modules, for want of a measured bandwidth: ``DDR4`` or ``DDR5``.
    """
    bandwidth = _rate(record, _BANDWIDTH, "bytes/s")
    rig = plan.rig_of(_machine(record), bandwidth, _rate(record, _FLOPS, "FLOP/s"))
    if bandwidth is not None or not memory.startswith("DDR4"):
        return rig
    ram = replace(rig.ram, name=_DDR4, bandwidth=hardware.find(_DDR4).bandwidth)
    assumptions = tuple(text.replace(rig.ram.name, ram.name) for text in rig.assumptions)
    if rig.device.kind == "ram":
        return Rig(replace(ram, memory_bytes=rig.ram_bytes), 1, ram, rig.ram_bytes, assumptions)
    return replace(rig, ram=ram, assumptions=assumptions)


# --- What ran ---------------------------------------------------------------------------------


def _is_one_machine(contents: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a record would take these results as those of one machine."""
    try:
        records.make(Found({str(number): one for number, one in enumerate(contents)}, {}), ())
    except records.RecordError:
        return False
    return True


def _missing(found: Found, without: Collection[str]) -> dict[str, str]:
    return {
        chapter: found.problems.get(chapter, "not run")
        for chapter in records.chapters_of_the_book()
        if chapter not in found.results and chapter not in without
    }


def _scoreboard(record: Record) -> Iterator[Line]:
    judged = {verdict.id: verdict for verdict in record.claims}
    ran = {run.chapter for run in record.chapters}
    for claim in claims.ledger().values():
        if claim.chapter not in ran:
            continue
        verdict = judged.get(claim.id)
        tested = verdict is not None and verdict.outcome != Outcome.NOT_TESTED
        yield Line(
            claim.id,
            claim.chapter,
            claim.statement,
            verdict.outcome if verdict else None,
            compare.evidence_of(verdict) if verdict and tested else "",
            claim.needs,
        )


def _notes(record: Record, rig: Rig) -> Iterator[str]:
    for assumption in rig.assumptions:
        yield f"Assumed: {assumption}."
    found = _rate(record, _BANDWIDTH, "bytes/s")
    if found is not None:
        yield (
            f"Measured memory bandwidth: {units.bandwidth(found.value)}, the highest of the "
            "chapters' medians."
        )
    can_compute = [gpu.name for gpu in record.hardware.gpus if gpu.kind != "other"]
    on_cpu = [run.chapter[:2] for run in record.chapters if run.device == "cpu"]
    if can_compute and on_cpu:
        yield (
            f"There is a GPU ({can_compute[0]}), but chapters ran on the processor: "
            f"{', '.join(on_cpu)}. The page on troubleshooting says how to build llama.cpp for it."
        )
    if _is_virtual(record):
        yield (
            "This is a virtual machine. Nothing can be built into it, so the purchases are whole "
            "machines."
        )


# --- The machine ------------------------------------------------------------------------------


def _machine(record: Record) -> Machine:
    """Return what the planner looks at: memory and graphics processors that can compute."""
    here = record.hardware
    return machine.Machine(
        cpu=cpu.unknown(),
        memory=machine.Memory(effective_total_bytes=_bytes(here.ram_gib)),
        gpus=tuple(
            machine.Gpu(gpu.name, "other", _bytes(gpu.memory_gib), unified=gpu.unified)
            for gpu in here.gpus
            if gpu.kind != "other"
        ),
        disk=machine.Disk("none"),
        system=machine.System(here.os),
        software=machine.Software(),
    )


def _rate(record: Record, name: str, unit: str) -> Rate | None:
    """Return the highest of the chapters' readings: another program only ever lowers one."""
    found = [
        one.measured
        for one in record.measurements
        if one.name == name and one.measured.unit == unit and one.measured.median > 0
    ]
    if not found:
        return None
    best = max(found, key=lambda measured: measured.median)
    return machine.Rate(best.median, best.samples, unit, "measured by a chapter", threads=0)


def _is_virtual(record: Record) -> bool:
    # WSL 2 is a virtual machine on a computer of the reader's own.
    return record.hardware.virtual_machine is not None and record.hardware.wsl is None


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * units.GIB)


# --- What to run ------------------------------------------------------------------------------


def _now(rig: Rig) -> Iterator[Advice]:
    for use in plan.USES:
        best = next(iter(plan.choices(rig, use, most=1)), None)
        if best is None:
            yield Advice(
                f"For {use.name}: nothing",
                (
                    f"No model of the catalog surely reaches {use.least_speed:g} tokens/s here "
                    f"with a context of {use.context:,} tokens.",
                ),
            )
            continue
        answer = best.answer
        yield Advice(
            f"For {use.name}: {best.model.name} in {best.case.quant}",
            (
                f"It takes {units.memory(answer.total_bytes)} with a context of {use.context:,} "
                "tokens.",
                f"Predicted: {upgrade.show_speed(answer)} tokens/s with {use.depth:,} tokens in "
                f"the context; {use.least_speed:g} would do: {use.why}.",
            ),
            best.command,
        )


def _wanted(rig: Rig, wishes: Wishes) -> Iterator[dict[str, object]]:
    for name in wishes.models:
        answer = upgrade.answer(rig, name)
        yield {
            "model": name,
            "memory": units.memory(answer.total_bytes),
            "fits whole": {True: "yes", False: "no", None: units.UNKNOWN}[answer.fits],
            "tokens/s": upgrade.show_speed(answer),
            "usable": _usable(answer.low, answer.high),
        }


def _usable(low: float | None, high: float | None) -> str:
    if low is None or high is None or high < upgrade.READING_PACE:
        return "no"
    return "yes" if low >= upgrade.READING_PACE else "perhaps"


# --- What to buy ------------------------------------------------------------------------------


def _steps(rig: Rig, record: Record, wishes: Wishes) -> Iterator[tuple[Evaluation, ...]]:
    """Yield what can be bought now, and what after the best of it, with what is left to spend."""
    virtual = _is_virtual(record)
    left = wishes.budget_usd
    takes_cards = not virtual if wishes.card_slot is None else wishes.card_slot
    for _ in range(_STEPS):
        candidates = [
            option
            for option in upgrade.options(
                rig, wishes.memory, takes_cards=takes_cards, price_file=wishes.price_file
            )
            if not virtual or option.kind in ("nothing", "machine")
        ]
        found = upgrade.evaluate(
            rig,
            candidates,
            wishes.models,
            budget_usd=left,
            psu_w=wishes.psu_w,
            price_file=wishes.price_file,
        )
        yield found
        best = best_of(found, wishes.models, left)
        # A whole machine is the end of the list: what it takes further is another question.
        if best is None or best.option.kind == "machine":
            return
        rig = best.option.rig
        left = None if left is None else left - (price_usd(best) or 0.0)


def price_usd(found: Evaluation) -> float | None:
    """Return the price with a power supply, or without one where nobody knows the present one."""
    return found.option.usd if found.total_usd is None else found.total_usd


def best_of(
    found: Sequence[Evaluation], wanted: Sequence[str], budget_usd: float | None
) -> Evaluation | None:
    """Return what makes most of the wanted models usable per dollar, if anything does."""
    gains = {
        number: _per_1000_usd(one, wanted)
        for number, one in enumerate(found)
        if budget_usd is None or (price_usd(one) or 0.0) <= budget_usd
    }
    best = max(gains, key=lambda number: gains[number] or 0.0, default=None)
    return found[best] if best is not None and gains[best] else None


def _per_1000_usd(one: Evaluation, wanted: Sequence[str]) -> float | None:
    price = price_usd(one)
    gained = sum(name in wanted for name in one.newly_usable())
    return 1000 * gained / price if price else None


def _chosen(steps: Sequence[tuple[Evaluation, ...]], wishes: Wishes) -> list[Evaluation]:
    """Return the best of each step, as far as there is one."""
    left, chosen = wishes.budget_usd, []
    for found in steps:
        best = best_of(found, wishes.models, left)
        if best is None:
            break
        chosen.append(best)
        left = None if left is None else left - (price_usd(best) or 0.0)
    return chosen


def _purchases(
    steps: Sequence[tuple[Evaluation, ...]], wishes: Wishes, today: datetime.date
) -> Iterator[Advice]:
    left = wishes.budget_usd
    for number, found in enumerate(steps):
        best = best_of(found, wishes.models, left)
        when = "Buy next" if number == 0 else "After that"
        if best is None:
            yield Advice(f"{when}: nothing", (_why_nothing(found, wishes, left),))
            return
        yield Advice(f"{when}: {best.option.name}", tuple(_why(best, found, wishes, left, today)))
        left = None if left is None else left - (price_usd(best) or 0.0)


def _why_nothing(found: Sequence[Evaluation], wishes: Wishes, left: float | None) -> str:
    if all(name in found[0].usable() for name in wishes.models):
        return f"Every wanted model is usable already: {_USABLE}."
    within = "" if left is None else f" for the {left:,.0f} USD that there are"
    return f"No option with a known price makes another of the wanted models usable{within}."


def _why(
    best: Evaluation,
    found: Sequence[Evaluation],
    wishes: Wishes,
    left: float | None,
    today: datetime.date,
) -> Iterator[str]:
    gained = best.newly_usable()
    speeds = ", ".join(f"{name} at {upgrade.show_speed(best.after[name])}" for name in gained)
    yield f"It makes usable, predicted in tokens/s: {speeds}. Usable means {_USABLE}."
    yield _price_text(best, today)
    others = [one for one in found if one is not best]
    second = best_of(others, wishes.models, left)
    rate = f"{units.number(_per_1000_usd(best, wishes.models), 2)} models per 1,000 USD"
    if second is None:
        yield f"That is {rate}; nothing else in reach makes one usable."
    else:
        other = units.number(_per_1000_usd(second, wishes.models), 2)
        yield f"That is {rate}; the next best is {second.option.name} with {other}."
    if best.option.kind == "card" and best.supply is not None:
        needed = max(best.supply.needed_w, best.supply.suggested_w or 0)
        have = "yours is unknown" if wishes.psu_w is None else f"yours has {wishes.psu_w:,.0f} W"
        yield f"It takes a power supply of {needed:,.0f} W ({have})."


def _price_text(one: Evaluation, today: datetime.date) -> str:
    price = one.option.price
    dated = "" if price is None else f", as of {_dated(price)}"
    old = ""
    if price is not None and price.is_stale(today):
        old = " That is old: look the price up before you decide."
    supply = ""
    if one.supply_usd:
        supply = f", {one.supply_usd:,.0f} of it for a larger power supply"
    elif one.supply_usd is None:
        supply = ", without a power supply"
    source = "" if price is None else f" ({_source(price)})"
    return f"It costs {price_usd(one) or 0.0:,.0f} USD{supply}{dated}{source}.{old}"


def _dated(price: Price) -> str:
    return price.dated or price.as_of.isoformat()


def _source(price: Price) -> str:
    # What a reader writes into a file of their own stays there.
    return "your own price list" if price.is_own else price.source


def _option_row(one: Evaluation, wanted: Sequence[str]) -> dict[str, object]:
    price = one.option.price
    rate = _per_1000_usd(one, wanted)
    return {
        "option": one.option.name,
        "price (USD)": units.number(price_usd(one)) if one.option.kind != "nothing" else "0",
        "as of": _dated(price) if price else "–",
        "newly usable": upgrade.show_gain(one),
        "models per 1,000 USD": units.number(rate, 2) if rate else "–",
    }


# --- As a document ----------------------------------------------------------------------------


def _blocks(report: Report) -> Iterator[Block]:
    record = report.record
    yield Heading(TITLE, 1)
    measured = (
        f"Measured until {record.created.isoformat()} with version {record.guidebook} of the book."
        if record.chapters
        else "Nothing was measured on it: all of this is predicted."
    )
    yield Paragraph(
        f"{record.hardware}. {measured} This page names no person and no computer; it can be "
        "shared."
    )
    yield from _short_blocks(report)
    yield Heading("What to run now")
    for advice in report.now:
        yield from _advice_blocks(advice)
    yield table(report.wanted, "The models that you want, in 4 bits: predicted, 90 % interval")
    yield Heading("What to buy")
    for advice in report.purchases:
        yield from _advice_blocks(advice)
    yield table(report.options, "What was compared: predicted gain and dated prices")
    yield Heading("When to rent")
    for advice in report.renting:
        yield from _advice_blocks(advice)
    if report.checks:
        yield Heading("Predicted against measured")
        yield from _check_blocks(report.checks)
    if record.chapters:
        yield from _claim_blocks(report)
    if record.chapters or report.notes:
        yield Heading("What this rests on")
        yield from _basis_blocks(report)


def _short_blocks(report: Report) -> Iterator[Block]:
    yield Heading("In short")
    advice = [*report.now[:1], *report.purchases[:1], *report.renting[:2]]
    counted = [_counted(report)] if report.record.chapters else []
    yield Items((*(f"{one.what}." for one in advice), *counted))
    if report.missing:
        numbers = " ".join(chapter[:2] for chapter in report.missing)
        yield Paragraph(f"Chapters without results: {len(report.missing)}.")
        by_reason: dict[str, list[str]] = {}
        for chapter, why in report.missing.items():
            by_reason.setdefault(why, []).append(chapter)
        yield Items(
            tuple(f"{why.capitalize()}: {', '.join(names)}" for why, names in by_reason.items())
        )
        yield Code(f"guidebook run {numbers}")


def _counted(report: Report) -> str:
    counts = report.counts
    return (
        f"Of {len(claims.ledger())} claims {counts['held']} held here, {counts['refuted']} were "
        f"refuted, {counts['not tested here']} could not be tested, and {counts['no verdict']} "
        "have no verdict yet."
    )


def _advice_blocks(advice: Advice) -> Iterator[Block]:
    yield Heading(advice.what, 3)
    if advice.why:
        yield Items(advice.why)
    if advice.command:
        yield Code(advice.command)


def _check_blocks(checks: Sequence[Check]) -> Iterator[Block]:
    inside = sum(one.is_inside for one in checks)
    text = f"{inside} of {len(checks)} measured speeds lie in the interval that was predicted."
    slower = sum(one.measured < one.low for one in checks)
    if slower:
        text += (
            f" {slower} came out slower. The intervals come from models of billions of weights; "
            "for a small model they are too hopeful, and for a machine that does something else "
            "at the same time as well."
        )
    yield Paragraph(text)
    yield table(
        [
            {
                "file": one.quant,
                "tokens before": f"{one.n_prompt:,}",
                "predicted (tokens/s)": f"{units.number(one.predicted)} "
                f"({units.number(one.low)} to {units.number(one.high)})",
                "measured (tokens/s)": units.number(one.measured),
                "inside": "yes" if one.is_inside else "no",
                "chapter": one.chapter,
            }
            for one in checks
        ],
        "Writing: the planner's 90 % interval, and the median of what was measured",
    )


def _claim_blocks(report: Report) -> Iterator[Block]:
    yield Heading("The claims")
    yield Paragraph(_counted(report))
    for chapter in dict.fromkeys(line.chapter for line in report.scoreboard):
        lines = [line for line in report.scoreboard if line.chapter == chapter]
        yield Heading(chapter, 3)
        yield table([_claim_row(line) for line in lines], f"Verdicts of {chapter}")


def _claim_row(line: Line) -> dict[str, object]:
    if line.outcome is None:
        return {
            "verdict": "no verdict",
            "claim": line.statement,
            "evidence": "Run the chapter again: this claim is newer than its results.",
        }
    untested = line.outcome == Outcome.NOT_TESTED
    return {
        "verdict": line.outcome.value,
        "claim": line.statement,
        "evidence": f"It needs {line.needs}." if untested else line.evidence or "–",
    }


def _basis_blocks(report: Report) -> Iterator[Block]:
    if report.notes:
        yield Items(report.notes)
    runs = Counter((run.model, run.device, run.profile) for run in report.record.chapters)
    rows: list[dict[str, object]] = [
        {"chapters": str(number), "model": model, "device": device, "profile": profile}
        for (model, device, profile), number in runs.items()
    ]
    if rows:
        yield table(rows, "How the chapters ran")
    versions: list[dict[str, object]] = [
        {"software": name, "version": version} for name, version in report.record.software.items()
    ]
    if versions:
        yield table(versions, "Versions")
