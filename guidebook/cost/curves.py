"""Costs over time: what has been spent by a month, less what could be sold then."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guidebook.cost.depreciation import Depreciation
from guidebook.cost.use import check_positive


@dataclass(frozen=True)
class Step:
    """A payment at a month, and what it adds to every month from then on, in US dollars."""

    month: float
    usd: float
    usd_per_month: float = 0.0


@dataclass(frozen=True)
class Asset:
    """A thing that was bought at a month for a price and can be sold again."""

    month: float
    usd: float
    depreciation: Depreciation


@dataclass(frozen=True)
class Curve:
    """Cumulative cost in US dollars.

    Attributes
    ----------
    usd
        Paid at the start.
    usd_per_month
        Paid evenly, from the start on.
    steps
        Payments at later months.
    assets
        What is there to sell; its value at a month counts against the cost.
    """

    usd: float = 0.0
    usd_per_month: float = 0.0
    steps: tuple[Step, ...] = ()
    assets: tuple[Asset, ...] = ()

    @property
    def is_straight(self) -> bool:
        """Whether the cost is a straight line."""
        return not self.steps and not self.assets

    def at(self, month: float, *, before: bool = False) -> float:
        """Return the cost up to a month in US dollars.

        Parameters
        ----------
        month
            From 0 on.
        before
            Leave out what is paid or bought in this very moment.
        """
        total = self.usd + self.usd_per_month * month
        for step in self.steps:
            if step.month < month or (step.month == month and not before):
                total += step.usd + step.usd_per_month * (month - step.month)
        for asset in self.assets:
            if asset.month < month or (asset.month == month and not before):
                total -= asset.depreciation.value(asset.usd, month - asset.month)
        return total

    def slope(self, month: float) -> float:
        """Return what is paid evenly from a month on, in US dollars a month, without assets."""
        return self.usd_per_month + sum(
            step.usd_per_month for step in self.steps if step.month <= month
        )

    def bends(self) -> frozenset[float]:
        """Return the months at which the curve jumps or bends; in between it is smooth."""
        # An asset's rate of loss changes after its first year.
        return frozenset(
            [step.month for step in self.steps]
            + [month for asset in self.assets for month in (asset.month, asset.month + 12)]
        )

    def points(self, months: float, every: float = 1.0) -> tuple[tuple[float, float], ...]:
        """Return (month, US dollars) for a plot, from 0 to ``months``, both included."""
        check_positive(months=months, every=every)
        count = math.ceil(months / every - 1e-9)
        marks = [min(index * every, months) for index in range(count + 1)]
        return tuple((month, self.at(month)) for month in marks)
