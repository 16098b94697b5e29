"""Local, cloud or hybrid: the guide's decision framework, with the reader's own numbers.

``decide()`` ranks the options for a workload on a machine, says why, and what would change the
answer. The workload is the reader's own or ready-made; prices are what the reader passes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.decide.judgement import at_end, shaken, turning, weighed, without
from guidebook.decide.points import POINTS, Point
from guidebook.decide.rules import OPTIONS, RULES, Option, Reason, Rule
from guidebook.decide.sides import Facts, Terms, facts, listed
from guidebook.decide.weighing import Standing, rank, reasons
from guidebook.decide.what_if import Change, changes
from guidebook.decide.workloads import READY_MADE, Workload, find

if TYPE_CHECKING:
    from guidebook.plan import Rig

__all__ = [
    "OPTIONS",
    "POINTS",
    "READY_MADE",
    "RULES",
    "Change",
    "Decision",
    "Facts",
    "Option",
    "Point",
    "Reason",
    "Rule",
    "Standing",
    "Terms",
    "Workload",
    "at_end",
    "decide",
    "find",
    "listed",
    "shaken",
    "show",
    "to_dict",
    "turning",
    "weighed",
    "without",
]

# Where the text of a reason begins, after its points.
_TEXT = 9


@dataclass(frozen=True)
class Decision:
    """What to do where.

    Attributes
    ----------
    facts
        The workload, the terms, and what it takes here and there.
    reasons
        What each rule says, in the order of the rules; those without weight only tell.
    ranked
        The options, the best first; ``hybrid`` is missing where there is nothing to develop.
    changes
        The nearest value of each figure that would change the answer.
    """

    facts: Facts
    reasons: tuple[Reason, ...]
    ranked: tuple[Standing, ...]
    changes: tuple[Change, ...] = ()

    @property
    def best(self) -> Option | None:
        """The best option; None: as it stands nothing can be done."""
        return self.ranked[0].option if self.ranked[0].is_open else None

    @property
    def lead(self) -> float | None:
        """By how many points the best option leads; None: no other can be done."""
        others = [standing.score for standing in self.ranked[1:] if standing.is_open]
        return round(self.ranked[0].score - max(others), 9) if self.best and others else None


def decide(
    workload: Workload,
    rig: Rig,
    terms: Terms | None = None,
    rules: Sequence[Rule] = RULES,
    *,
    with_changes: bool = True,
) -> Decision:
    """Decide where to do a workload.

    Parameters
    ----------
    workload
        The reader's own, or one of ``READY_MADE``.
    rig
        The reader's machine: :func:`guidebook.plan.rig` or :func:`guidebook.plan.rig_of`.
    terms
        Prices of rent and electricity, and circumstances; None: the price list on demand, and
        the assumptions of :class:`Terms`.
    rules
        The framework; leave rules out to see what they do.
    with_changes
        Look for what would change the answer, which takes some hundred decisions more.

    Raises
    ------
    LookupError
        The catalogs have no such model, file type or GPU.
    ValueError
        A setting is out of range.
    """
    terms = Terms(listed()) if terms is None else terms
    found = facts(workload, rig, terms)
    said = reasons(found, rules)
    turns = changes(workload, rig, terms, rules) if with_changes else ()
    return Decision(found, said, rank(found, said), turns)


def show(decision: Decision, width: int = 78) -> str:
    """Lay a decision out as text, in lines of at most so many characters."""
    return "\n".join(
        textwrap.fill(
            line, width, subsequent_indent=" " * (_TEXT if line.startswith("    ") else 4)
        )
        for line in _lines(decision)
    )


def to_dict(decision: Decision) -> dict[str, object]:
    """Return a decision as JSON-ready data."""
    return {
        "workload": decision.facts.workload.name,
        "best": decision.best,
        "lead": decision.lead,
        "ranked": [
            {
                "option": standing.option,
                "score": standing.score,
                "reasons": [_reason(reason) for reason in standing.reasons],
                "bars": [_reason(reason) for reason in standing.bars],
            }
            for standing in decision.ranked
        ],
        "changes": [
            {
                "figure": change.figure,
                "value": change.value,
                "unit": change.unit,
                "now": change.now,
                "becomes": change.becomes,
                "text": change.text,
            }
            for change in decision.changes
        ],
    }


def _reason(reason: Reason) -> dict[str, object]:
    return {
        "rule": reason.rule,
        "phase": reason.phase,
        "place": reason.place,
        "weight": reason.weight,
        "bar": reason.bar,
        "value": reason.value,
        "unit": reason.unit,
        "text": reason.text,
    }


def _lines(decision: Decision) -> Iterator[str]:
    yield f"{decision.facts.workload.name}: {decision.best or 'nothing can be done as it stands'}"
    for standing in decision.ranked:
        state = f"{standing.score:.1f} points" if standing.is_open else f"{standing.bars[0].bar}"
        yield f"  {standing.option}, {state}"
        for reason in (*standing.bars, *standing.reasons):
            weight = "  –" if reason.bar else f"{reason.weight:3.1f}"
            yield f"    {weight}  {reason.rule}: {reason.text}"
    for change in decision.changes:
        yield f"  otherwise {change.text}"
