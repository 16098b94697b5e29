"""When a machine has paid for itself against renting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guidebook.cost import ownership, renting
from guidebook.cost.curves import Curve
from guidebook.cost.ownership import Conditions, Purchase
from guidebook.cost.renting import Rental
from guidebook.cost.use import HOURS_PER_WEEK, Use, check_positive

# Beyond ten years nobody knows a price, and few machines run.
WITHIN_MONTHS = 120.0

_BISECTIONS = 80


def month(own: Curve, rented: Curve, within_months: float = WITHIN_MONTHS) -> float | None:
    """Return the first month at which owning has cost no more than renting.

    Between jumps and bends two straight lines cross where the difference at the start, divided
    by the difference of the slopes, says. With assets the difference of the curves is concave
    there (a value falls ever more slowly), so that it turns from more to less at most once, and
    halving the interval finds the place.

    Parameters
    ----------
    own, rented
        Cumulative costs. What is rented cannot be sold: the second has no assets.
    within_months
        How far to look.

    Returns
    -------
    Months from the start, or None if owning costs more all the time. A later upgrade may turn
    it round again: this is the first time.

    Raises
    ------
    ValueError
        ``within_months`` is not greater than 0.
    """
    check_positive(within_months=within_months)
    inner = {bend for bend in own.bends() | rented.bends() if 0 < bend < within_months}
    bounds = sorted({0.0, within_months} | inner)
    for start, end in itertools.pairwise(bounds):
        found = _crossing(own, rented, start, end)
        if found is not None:
            return found
    return within_months if own.at(within_months) <= rented.at(within_months) else None


def _crossing(own: Curve, rented: Curve, start: float, end: float) -> float | None:
    """Return where owning gets cheaper from a bend on and before the next one."""
    more = own.at(start) - rented.at(start)
    if more <= 0:
        return start
    if own.at(end, before=True) - rented.at(end, before=True) > 0:
        return None
    if not own.assets:
        closer = rented.slope(start) - own.slope(start)
        # Where the lines keep their distance, only rounding let them meet.
        return min(end, start + more / closer) if closer > 0 else end
    low, high = start, end
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if own.at(middle, before=True) > rented.at(middle, before=True):
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class Comparison:
    """Owning one machine against renting another for the same work.

    Attributes
    ----------
    purchase, rental
        What is bought, and what would be rented.
    use
        What they are used for.
    conditions
        Price of electricity, time and money.
    sold
        Count what the machine would bring if it were sold in that month. Without, it has paid
        for itself when the money spent on it is no more than the rent would have been.
    within_months
        How far to look.
    """

    purchase: Purchase
    rental: Rental
    use: Use
    conditions: Conditions
    sold: bool = False
    within_months: float = WITHIN_MONTHS

    def own(self) -> Curve:
        """Return the cumulative cost of owning."""
        return ownership.curve(self.purchase, self.use, self.conditions, sold=self.sold)

    def rented(self) -> Curve:
        """Return the cumulative cost of renting."""
        return renting.curve(self.rental, self.use, self.within_months)

    def month(self) -> float | None:
        """Return the month of break-even, or None if there is none within the months."""
        return month(self.own(), self.rented(), self.within_months)


# What may be changed by name: the part of a comparison, and its field.
PARAMETERS: Mapping[str, tuple[str, str]] = {
    "purchase_usd": ("purchase", "usd"),
    "load_w": ("purchase", "load_w"),
    "idle_w": ("purchase", "idle_w"),
    "usd_per_gpu_hour": ("rental", "usd_per_gpu_hour"),
    "speed": ("rental", "speed"),
    "startup_minutes": ("rental", "startup_minutes"),
    "usd_per_gb_month": ("rental", "usd_per_gb_month"),
    "hours_per_week": ("use", "hours_per_week"),
    "idle_hours_per_week": ("use", "idle_hours_per_week"),
    "hours_per_session": ("use", "hours_per_session"),
    "forgotten_hours_per_month": ("use", "forgotten_hours_per_month"),
    "storage_gb": ("use", "storage_gb"),
    "egress_gb_per_month": ("use", "egress_gb_per_month"),
    "usd_per_kwh": ("conditions", "usd_per_kwh"),
    "upkeep_hours_per_month": ("conditions", "upkeep_hours_per_month"),
    "usd_per_hour": ("conditions", "usd_per_hour"),
    "yearly_interest": ("conditions", "yearly_interest"),
}


def change(comparison: Comparison, **values: float) -> Comparison:
    """Return the comparison with other values for some of :data:`PARAMETERS`.

    Raises
    ------
    ValueError
        There is no such parameter, or it cannot have this value.
    """
    parts: dict[str, Any] = {}
    for name, value in values.items():
        if name not in PARAMETERS:
            raise ValueError(f"unknown parameter {name!r}: use one of {', '.join(PARAMETERS)}")
        part, field = PARAMETERS[name]
        parts.setdefault(part, {})[field] = value
    new: dict[str, Any] = {
        part: replace(getattr(comparison, part), **fields) for part, fields in parts.items()
    }
    return replace(comparison, **new)


def threshold(
    comparison: Comparison, name: str, low: float, high: float, months: float
) -> float | None:
    """Return the value of a parameter at which owning just pays within some months.

    Parameters
    ----------
    comparison
        Everything else.
    name
        One of :data:`PARAMETERS`.
    low, high
        Between which values to look.
    months
        How soon it must pay.

    Returns
    -------
    The value nearest to ``low`` beyond which the answer changes, or None if it is the same at
    both ends. At the returned value owning pays.

    Raises
    ------
    ValueError
        As for :func:`change`.
    """
    comparison = replace(comparison, within_months=months)

    def pays(value: float) -> bool:
        return change(comparison, **{name: value}).month() is not None

    if pays(low) == pays(high):
        return None
    yes, no = (low, high) if pays(low) else (high, low)
    for _ in range(_BISECTIONS):
        middle = (yes + no) / 2
        yes, no = (middle, no) if pays(middle) else (yes, middle)
    return yes


def hours_per_week(comparison: Comparison, months: float) -> float | None:
    """Return the least weekly hours with which owning pays within some months.

    Returns
    -------
    Hours of work on the reader's own machine; 0 if it pays without any, because renting costs
    something anyway; None if it does not pay within the months however much it works.
    """
    most = HOURS_PER_WEEK - comparison.use.idle_hours_per_week
    soon = replace(comparison, within_months=months)
    if change(soon, hours_per_week=0.0).month() is not None:
        return 0.0
    return threshold(soon, "hours_per_week", 0.0, most, months)
