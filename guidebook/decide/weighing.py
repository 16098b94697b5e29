"""Weighs the reasons: which option is best, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guidebook.decide.rules import OPTIONS, RULES, Option, Reason, Rule
from guidebook.decide.sides import Facts

# A thing that the reader does not want is worse than one that has to wait for better hardware.
_SEVERITY = {"impossible": 1, "forbidden": 2}


@dataclass(frozen=True)
class Standing:
    """How an option stands.

    Attributes
    ----------
    option
        ``local``: all of it here; ``hybrid``: developed here, run on rented GPUs; ``cloud``: all
        of it there.
    score
        Sum of the weights that favour it.
    reasons
        What favours it, the weightiest first.
    bars
        What rules it out; empty: it can be done.
    """

    option: Option
    score: float
    reasons: tuple[Reason, ...]
    bars: tuple[Reason, ...]

    @property
    def is_open(self) -> bool:
        """Whether nothing rules it out."""
        return not self.bars


def reasons(facts: Facts, rules: Sequence[Rule] = RULES) -> tuple[Reason, ...]:
    """Return what the rules say, in their order."""
    return tuple(reason for rule in rules for reason in rule.judge(facts))


def rank(facts: Facts, found: Sequence[Reason]) -> tuple[Standing, ...]:
    """Rank the options, the best first.

    What can be done comes before what cannot, and that before what the reader forbids; then the
    score decides, and of equals the option that stays nearer to the reader's machine. ``hybrid``
    is missing where there is nothing to develop: it would be the cloud.

    A fact that favours a place more never moves the decision away from it: each option is the sum
    of two places, one per phase, and each rule favours a place by a monotone step.
    """
    options: Sequence[Option] = tuple(OPTIONS)
    if not facts.workload.development_hours:
        options = [option for option in options if option != "hybrid"]
    standings = [_standing(option, found) for option in options]
    return tuple(sorted(standings, key=lambda one: (_severity(one), -one.score)))


def _standing(option: Option, found: Sequence[Reason]) -> Standing:
    own = [reason for reason in found if option in reason.options]
    favour = [reason for reason in own if not reason.bar and reason.weight]
    # Rounded, so that sums of equal weights are equal.
    score = round(sum(reason.weight for reason in favour), 9)
    return Standing(
        option,
        score,
        tuple(sorted(favour, key=lambda reason: -reason.weight)),
        tuple(reason for reason in own if reason.bar),
    )


def _severity(standing: Standing) -> int:
    return max((_SEVERITY[reason.bar] for reason in standing.bars if reason.bar), default=0)
