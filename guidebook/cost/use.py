"""How much a GPU is used: the hours that owning and renting are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_PER_WEEK = 168.0
HOURS_PER_MONTH = 365.25 * 24 / 12
WEEKS_PER_MONTH = HOURS_PER_MONTH / HOURS_PER_WEEK


@dataclass(frozen=True)
class Use:
    """What a GPU is used for in a usual week.

    Attributes
    ----------
    hours_per_week
        Hours that the reader's own machine would work. A faster rented one takes fewer.
    idle_hours_per_week
        Hours that the reader's own machine is on and waits.
    hours_per_session
        Hours of work, on the reader's own machine, from switching on to switching off: each
        session is a rental of its own, with its start and its rounding.
    forgotten_hours_per_month
        Hours that a rented machine runs, because nobody switched it off.
    storage_gb
        What is kept at the provider all the time, in GB (10⁹ bytes).
    egress_gb_per_month
        What is brought home, in GB a month.

    Raises
    ------
    ValueError
        A number is negative or not finite, or a week has more than its hours.
    """

    hours_per_week: float
    idle_hours_per_week: float = 0.0
    hours_per_session: float = 2.0
    forgotten_hours_per_month: float = 0.0
    storage_gb: float = 0.0
    egress_gb_per_month: float = 0.0

    def __post_init__(self) -> None:
        check(
            hours_per_week=self.hours_per_week,
            idle_hours_per_week=self.idle_hours_per_week,
            forgotten_hours_per_month=self.forgotten_hours_per_month,
            storage_gb=self.storage_gb,
            egress_gb_per_month=self.egress_gb_per_month,
        )
        check_positive(hours_per_session=self.hours_per_session)
        hours = self.hours_per_week + self.idle_hours_per_week
        if hours > HOURS_PER_WEEK:
            raise ValueError(
                f"hours_per_week and idle_hours_per_week make {hours:g} hours: "
                "a week has 168, lower one of them"
            )

    @property
    def hours_per_month(self) -> float:
        """Hours of work in a month."""
        return self.hours_per_week * WEEKS_PER_MONTH

    @property
    def sessions_per_month(self) -> float:
        """Rentals in a month, on average."""
        return self.hours_per_month / self.hours_per_session


def check(**values: float) -> None:
    """Refuse numbers that are negative or not finite.

    Raises
    ------
    ValueError
        Names the first such number.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}: give a number from 0 on")


def check_positive(**values: float) -> None:
    """Refuse numbers that are not finite or not greater than 0.

    Raises
    ------
    ValueError
        Names the first such number.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a number greater than 0")
