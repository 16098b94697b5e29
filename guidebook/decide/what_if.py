"""What would change the answer: for each figure, the nearest value that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guidebook import units
from guidebook.decide.rules import RULES, Option, Rule
from guidebook.decide.sides import Facts, Terms, facts
from guidebook.decide.weighing import rank, reasons
from guidebook.decide.workloads import Workload

if TYPE_CHECKING:
    from guidebook.plan import Rig

Question = tuple[Workload, "Rig", Terms]

# Sizes that cards and kits are sold in, in GiB.
_CARD_GIB = (8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 192, 256, 512)
_RAM_GIB = (16, 32, 64, 96, 128, 192, 256, 512)
_AVAILABILITIES = (0.9, 0.95, 0.99, 0.995, 0.999, 0.9999)
# A figure is looked for up to twenty times as large or as small: what lies beyond, no reader meets.
_STEPS = 20
_STEP = 20 ** (1 / _STEPS)
_HALVINGS = 12


@dataclass(frozen=True)
class Change:
    """A change of one figure that changes the answer.

    Attributes
    ----------
    figure
        What changes.
    value, unit
        The nearest value at which the answer is another; of a yes or no: 1 or 0, without unit.
    now
        The value that it has.
    becomes
        The option that is then best; None: nothing can then be done.
    text
        For readers: ``rent below $0.90 per GPU hour: cloud``.
    """

    figure: str
    value: float
    unit: str
    now: float
    becomes: Option | None
    text: str


@dataclass(frozen=True)
class _Figure:
    """A figure that can be turned.

    ``turn`` gives the question another value of it; ``values`` are those to try, or none for a
    search along the numbers.
    """

    name: str
    unit: str
    now: float
    turn: Callable[[float], Question]
    say: Callable[[float], str]
    values: tuple[float, ...] = ()
    whole: bool = False


def best(question: Question, rules: Sequence[Rule] = RULES) -> Option | None:
    """Return the best option of a question; None if none can be done."""
    return best_of(facts(*question), rules)


def best_of(found: Facts, rules: Sequence[Rule] = RULES) -> Option | None:
    """Return the best option of facts; None if none can be done."""
    first = rank(found, reasons(found, rules))[0]
    return first.option if first.is_open else None


def changes(
    workload: Workload, rig: Rig, terms: Terms, rules: Sequence[Rule] = RULES
) -> tuple[Change, ...]:
    """Return for each figure the nearest value that changes the answer, if one does.

    Each figure is turned alone, upwards and downwards; all others stay as they are.

    Parameters
    ----------
    workload, rig, terms
        As for :func:`guidebook.decide.decide`.
    rules
        The framework.

    Raises
    ------
    LookupError, ValueError
        As :func:`guidebook.decide.sides.facts`.
    """
    question = (workload, rig, terms)
    found = facts(*question)
    now = best_of(found, rules)
    return tuple(
        change
        for figure in _figures(question, found)
        for above in (False, True)
        for change in _nearest(figure, above, now, rules)
    )


def _nearest(
    figure: _Figure, above: bool, now: Option | None, rules: Sequence[Rule]
) -> Iterator[Change]:
    """Yield the nearest change in one direction, if there is one."""
    last = figure.now
    for value in _candidates(figure, above):
        becomes = best(figure.turn(value), rules)
        if becomes != now:
            if not figure.values:
                value, becomes = _closer(figure, last, value, becomes, now, rules)
            text = f"{_side(figure, above)}{figure.say(value)}: {becomes or 'nothing can be done'}"
            yield Change(figure.name, value, figure.unit, figure.now, becomes, text)
            return
        last = value


def _side(figure: _Figure, above: bool) -> str:
    if figure.values:
        return ""
    if figure.whole:
        return f"{figure.name} from " if above else f"{figure.name} down to "
    return f"{figure.name} {'above' if above else 'below'} "


def _candidates(figure: _Figure, above: bool) -> Iterator[float]:
    if figure.values:
        if above:
            yield from sorted(value for value in figure.values if value > figure.now)
        else:
            yield from sorted((v for v in figure.values if v < figure.now), reverse=True)
        return
    if not figure.now:
        return
    for step in range(1, _STEPS + 1):
        value = figure.now * _STEP ** (step if above else -step)
        if figure.whole and value < 1:
            return
        yield round(value) if figure.whole else value


def _closer(
    figure: _Figure,
    same: float,
    other: float,
    becomes: Option | None,
    now: Option | None,
    rules: Sequence[Rule],
) -> tuple[float, Option | None]:
    """Halve the gap between a value with the same answer and one with another."""
    for _ in range(_HALVINGS):
        middle = (same * other) ** 0.5
        if figure.whole:
            middle = round(middle)
            if middle in (same, other):
                break
        found = best(figure.turn(middle), rules)
        if found == now:
            same = middle
        else:
            other, becomes = middle, found
    return other, becomes


def _figures(question: Question, found: Facts) -> Iterator[_Figure]:
    workload, rig, terms = question

    def work(**changed: object) -> Question:
        return replace(workload, **changed), rig, terms  # type: ignore[arg-type]

    if found.there is not None:
        price = found.there.offer.usd_per_gpu_hour
        yield _Figure(
            "rent",
            "USD per GPU hour",
            price,
            lambda value: (workload, rig, terms.priced(value / price)),
            lambda value: (
                f"${value:.3g} per GPU hour ({found.there.offer.gpu})" if found.there else ""
            ),
        )
    yield from _machine_figures(question, found)
    yield _Figure(
        "electricity",
        "USD per kWh",
        terms.usd_per_kwh,
        lambda value: (workload, rig, replace(terms, usd_per_kwh=value)),
        lambda value: f"${value:.3g} per kWh",
    )
    if workload.kind != "service":
        yield from _amounts(question, work)
    yield from _demands(workload, found, work)


def _machine_figures(question: Question, found: Facts) -> Iterator[_Figure]:
    workload, rig, terms = question
    if not workload.model:
        return
    device = found.here.device
    if device.memory_bytes is not None and device.kind != "ram":
        kind = "VRAM" if device.kind == "discrete" else "unified memory"

        def with_card(gib: float) -> Question:
            changed = replace(rig.device, memory_bytes=round(gib * units.GIB))
            return workload, replace(rig, device=changed), terms

        yield _Figure(
            kind,
            "GiB",
            device.memory_bytes / units.GIB,
            with_card,
            lambda gib: f"with {gib:g} GB of {kind}",
            _CARD_GIB,
        )
    if rig.ram_bytes is not None and device.kind != "unified":

        def with_ram(gib: float) -> Question:
            size = round(gib * units.GIB)
            changed = rig.device
            if changed.kind == "ram":
                changed = replace(changed, memory_bytes=size)
            return workload, replace(rig, device=changed, ram_bytes=size), terms

        yield _Figure(
            "RAM",
            "GiB",
            rig.ram_bytes / units.GIB,
            with_ram,
            lambda gib: f"with {gib:g} GB of RAM",
            _RAM_GIB,
        )


def _amounts(question: Question, work: Callable[..., Question]) -> Iterator[_Figure]:
    workload, rig, terms = question
    weekly = workload.hours_per_week
    if weekly is not None:
        yield _Figure(
            "use",
            "h/week",
            weekly,
            lambda value: (workload.weekly(value), rig, terms),
            lambda value: f"{units.number(value, 2)} h per week",
        )
    else:
        yield _Figure(
            "runs",
            "runs/month",
            workload.runs_per_month,
            lambda value: work(runs_per_month=value),
            lambda value: f"{units.number(value, 2)} a month",
        )
    if workload.tokens:
        yield _Figure(
            "tokens",
            "tokens",
            workload.tokens,
            lambda value: work(tokens=value),
            lambda value: f"{units.number(value / 1e6, 2)} million per run",
        )


def _demands(workload: Workload, found: Facts, work: Callable[..., Question]) -> Iterator[_Figure]:
    if workload.deadline_hours:
        yield _Figure(
            "deadline",
            "h",
            workload.deadline_hours,
            lambda value: work(deadline_hours=value),
            lambda value: f"{units.number(value, 2)} h",
        )
    if workload.kind in ("service", "inference", "experiment", "quantization"):
        yield _Figure(
            "users",
            "users",
            workload.users,
            lambda value: work(users=int(value)),
            lambda value: f"{value:g} at once",
            whole=True,
        )
        yield _Figure(
            "wanted speed",
            "tokens/s",
            workload.least_speed,
            lambda value: work(least_speed=value),
            lambda value: f"{units.number(value, 2)} tokens/s",
        )
    if workload.availability:
        yield _Figure(
            "availability",
            "share",
            workload.availability,
            lambda value: work(availability=value),
            lambda value: (
                f"if {100 * value:g} % of the time is enough"
                if value < workload.availability
                else f"if it must answer {100 * value:g} % of the time"
            ),
            _AVAILABILITIES,
        )
    yield _yes_or_no(
        "sensitive data",
        workload.sensitive,
        lambda value: work(sensitive=bool(value), may_leave=False),
        "if the data are not sensitive" if workload.sensitive else "if the data may not leave",
    )
    if workload.sensitive:
        yield _yes_or_no(
            "leave to send the data",
            workload.may_leave,
            lambda value: work(may_leave=bool(value)),
            "if the data may not leave" if workload.may_leave else "if the data may leave",
        )
    if workload.n_nodes > found.terms.n_machines:
        yield _yes_or_no(
            "several machines", True, lambda _: work(n_nodes=1), "if one machine is enough"
        )


def _yes_or_no(name: str, now: bool, turn: Callable[[float], Question], text: str) -> _Figure:
    return _Figure(name, "", float(now), turn, lambda _: text, (float(not now),))
