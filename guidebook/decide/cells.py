"""A decision's parts as short texts, for the cells of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guidebook.decide.durations import between
from guidebook.decide.rules import OPTIONS
from guidebook.decide.sides import Needs, There

if TYPE_CHECKING:
    from guidebook.decide import Decision

NONE = "–"


def pace(needs: Needs) -> str:
    """Return the speed of inference, else the duration of a run, from end to end."""
    if not needs.runs:
        return "does not run"
    if needs.speed is not None:
        return between(needs.speed, "tokens/s")
    return between(needs.hours, "h") if needs.hours is not None else NONE


def rented(there: There | None) -> str:
    """Return what is rented, from whom and at which price of which date."""
    if there is None:
        return "nothing on the price list"
    count = there.n_gpus * there.n_copies
    gpus = f"{count} × {there.offer.gpu}" if count > 1 else there.offer.gpu
    offer = there.offer
    # A hyphen that does not break keeps a date in one line.
    dated = (offer.dated or str(offer.as_of)).replace("-", "\u2011")
    return f"{gpus} ({offer.provider}, ${offer.usd_per_gpu_hour:.2f}, {dated})"


def lead(decision: Decision) -> str:
    """Return by how many points the best option leads; ``alone``: no other can be done."""
    if decision.best is None:
        return NONE
    return "alone" if decision.lead is None else f"{decision.lead:.1f}"


def because(decision: Decision) -> str:
    """Return why the run is done where it is: what bars the other place, else what weighs most."""
    if decision.best is None:
        return " ".join(dict.fromkeys(b.text for one in decision.ranked for b in one.bars))
    place = OPTIONS[decision.best]["run"]
    run = [reason for reason in decision.reasons if reason.phase == "run"]
    bars = [reason.text for reason in run if reason.bar and reason.place != place]
    own = [reason for reason in run if reason.weight and reason.place == place]
    if bars:
        return bars[0]
    if own:
        return max(own, key=lambda reason: reason.weight).text
    return "Nothing speaks against it, and at a tie work stays at home."


def otherwise(decision: Decision) -> str:
    """Return what would change the answer, in one line."""
    return "; ".join(change.text for change in decision.changes) or "nothing within reach"
