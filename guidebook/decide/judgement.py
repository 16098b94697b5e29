"""How far an answer hangs on judgement: on the weights, which are this book's own.

Three questions to an answer: which rule turns it when it is left out, how often it stays when
every weight is drawn anew, and whether it stays when all predictions here err to the same side.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from guidebook.decide.durations import Span, exactly
from guidebook.decide.rules import RULES, Option, Reason, Rule
from guidebook.decide.sides import Facts
from guidebook.decide.weighing import rank, reasons

if TYPE_CHECKING:
    from guidebook.decide import Decision

End = Literal["slow", "fast"]


def without(decision: Decision, rules: Iterable[str]) -> Option | None:
    """Return the answer if these rules said nothing; None: nothing can be done.

    Parameters
    ----------
    decision
        From :func:`guidebook.decide.decide`.
    rules
        Ids of rules.
    """
    silent = set(rules)
    return _best(decision.facts, [one for one in decision.reasons if one.rule not in silent])


def turning(decision: Decision) -> Mapping[str, Option | None]:
    """Return the rules that turn the answer if they alone are left out, and what it becomes."""
    ids = dict.fromkeys(reason.rule for reason in decision.reasons)
    found = {rule: without(decision, [rule]) for rule in ids}
    return {rule: option for rule, option in found.items() if option != decision.best}


def weighed(decision: Decision, weigh: Callable[[Reason], float]) -> Option | None:
    """Return the answer with other weights; limits stay limits.

    Parameters
    ----------
    decision
        From :func:`guidebook.decide.decide`.
    weigh
        Gives each reason its weight, 0 or more.
    """
    changed = [replace(reason, weight=weigh(reason)) for reason in decision.reasons]
    return _best(decision.facts, changed)


def shaken(
    decision: Decision, factor: float = 2.0, n_draws: int = 1000, seed: int = 0
) -> dict[Option | None, float]:
    """Return how often each answer comes out when the weight of each rule is drawn anew.

    Parameters
    ----------
    decision
        From :func:`guidebook.decide.decide`.
    factor
        Each rule weighs from a ``factor``-th to ``factor`` times as much, evenly by its logarithm.
    n_draws
        How often all rules are drawn.
    seed
        Of the random numbers: the same seed gives the same shares.

    Returns
    -------
    dict
        Shares of the draws, the answer that stands first; they add up to 1.

    Raises
    ------
    ValueError
        The factor is below 1, or there is no draw.
    """
    if not factor >= 1 or n_draws < 1:
        raise ValueError(f"Factor {factor:g}, {n_draws} draws: give at least 1 of both.")
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    ids = sorted({rule.id for rule in RULES} | {reason.rule for reason in decision.reasons})
    counts: Counter[Option | None] = Counter({decision.best: 0})
    for _ in range(n_draws):
        times = {rule: factor ** rng.uniform(-1, 1) for rule in ids}
        counts[weighed(decision, functools.partial(_times, times))] += 1
    return {option: count / n_draws for option, count in counts.items()}


def at_end(decision: Decision, end: End, rules: Sequence[Rule] = RULES) -> Option | None:
    """Return the answer if speed and time here lie at one end of their intervals.

    The prices stay as they are, and so do speed and time on rented GPUs.

    Parameters
    ----------
    decision
        From :func:`guidebook.decide.decide`.
    end
        ``slow`` or ``fast``.
    rules
        Those of the decision.
    """
    needs = decision.facts.here.needs
    best_is_high = end == "fast"
    moved = replace(
        needs,
        speed=_end(needs.speed, high=best_is_high),
        first_token_s=_end(needs.first_token_s, high=not best_is_high),
        hours=_end(needs.hours, high=not best_is_high),
    )
    facts = replace(decision.facts, here=replace(decision.facts.here, needs=moved))
    return _best(facts, reasons(facts, rules))


def _times(factors: Mapping[str, float], reason: Reason) -> float:
    return reason.weight * factors[reason.rule]


def _end(span: Span | None, *, high: bool) -> Span | None:
    return span and exactly(span.high if high else span.low)


def _best(facts: Facts, found: Sequence[Reason]) -> Option | None:
    first = rank(facts, found)[0]
    return first.option if first.is_open else None
