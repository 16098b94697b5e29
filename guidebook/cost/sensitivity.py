"""How sure a break-even is: one parameter at a time, and all of them at random."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from guidebook.cost.break_even import Comparison, change
from guidebook.cost.use import HOURS_PER_WEEK, check_positive

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Bar:
    """What one parameter does to the break-even.

    Attributes
    ----------
    name
        One of :data:`guidebook.cost.break_even.PARAMETERS`.
    low, high
        Its values.
    months_at_low, months_at_high
        Break-even with each; None: none within the months looked at.
    within_months
        How far that was.
    """

    name: str
    low: float
    high: float
    months_at_low: float | None
    months_at_high: float | None
    within_months: float

    @property
    def swing_months(self) -> float:
        """Difference of the two; where there is no break-even, the months looked at count."""
        ends = [
            self.within_months if end is None else end
            for end in (self.months_at_low, self.months_at_high)
        ]
        return abs(ends[0] - ends[1])


def tornado(comparison: Comparison, ranges: Mapping[str, tuple[float, float]]) -> tuple[Bar, ...]:
    """Change one parameter at a time and return what it does, the largest swing first.

    Parameters
    ----------
    comparison
        The other parameters.
    ranges
        For names of :data:`guidebook.cost.break_even.PARAMETERS`, a low and a high value.

    Raises
    ------
    ValueError
        As for :func:`guidebook.cost.break_even.change`.
    """
    bars = [
        Bar(
            name,
            low,
            high,
            change(comparison, **{name: low}).month(),
            change(comparison, **{name: high}).month(),
            comparison.within_months,
        )
        for name, (low, high) in ranges.items()
    ]
    return tuple(sorted(bars, key=lambda bar: (-bar.swing_months, bar.name)))


class Distribution(Protocol):
    """Something that values are drawn from."""

    def draw(self, chance: random.Random) -> float:
        """Return a value."""
        ...


@dataclass(frozen=True)
class Triangular:
    """Values between two ends, most often near ``mode``: for what one can name a range of."""

    low: float
    mode: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.mode <= self.high < math.inf:
            raise ValueError(
                f"a triangle of {self.low}, {self.mode}, {self.high}: give low ≤ mode ≤ high"
            )

    def draw(self, chance: random.Random) -> float:
        """Return a value."""
        return chance.triangular(self.low, self.high, self.mode)


@dataclass(frozen=True)
class LogNormal:
    """Values above 0 that are as often twice too high as twice too low: for prices.

    Attributes
    ----------
    median
        Half of the values are below.
    factor
        About two thirds of the values lie between the median divided and multiplied by this.
    """

    median: float
    factor: float

    def __post_init__(self) -> None:
        check_positive(median=self.median)
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor is {self.factor}: give a number from 1 on, such as 1.3")

    def draw(self, chance: random.Random) -> float:
        """Return a value."""
        return chance.lognormvariate(math.log(self.median), math.log(self.factor))


@dataclass(frozen=True)
class Outcome:
    """Break-even months of many draws.

    Attributes
    ----------
    months
        The months, lowest first, of the draws that have a break-even.
    n_draws
        How many draws there were.
    within_months
        How far each looked.
    seed
        What the draws come from.
    """

    months: tuple[float, ...]
    n_draws: int
    within_months: float
    seed: int

    @property
    def share_never(self) -> float:
        """Share of the draws without a break-even within the months."""
        return (self.n_draws - len(self.months)) / self.n_draws

    def share_within(self, months: float) -> float:
        """Return the share of the draws that pay within so many months."""
        return sum(found <= months for found in self.months) / self.n_draws

    def quantile(self, share: float) -> float | None:
        """Return the month by which this share of the draws has paid; None: it never does.

        Raises
        ------
        ValueError
            ``share`` is not greater than 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}: give one above 0 and up to 1, such as 0.5")
        rank = math.ceil(share * self.n_draws - 1e-9)
        return self.months[rank - 1] if rank <= len(self.months) else None

    @property
    def quantiles(self) -> Mapping[float, float | None]:
        """The months by which 5, 25, 50, 75 and 95 % of the draws have paid."""
        return {share: self.quantile(share) for share in QUANTILES}


def monte_carlo(
    comparison: Comparison,
    distributions: Mapping[str, Distribution],
    *,
    n_draws: int = 2000,
    seed: int = 0,
) -> Outcome:
    """Draw the uncertain parameters at random, each for itself, and collect the break-evens.

    Parameters
    ----------
    comparison
        The parameters that are sure.
    distributions
        For names of :data:`guidebook.cost.break_even.PARAMETERS`, where to draw from. Hours
        beyond the end of a week are cut off there.
    n_draws
        How many draws.
    seed
        The same seed gives the same draws, in whatever order the distributions come.

    Raises
    ------
    ValueError
        A parameter does not exist or got a value that it cannot have, or there is no draw.
    """
    check_positive(n_draws=n_draws)
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    months = []
    for _ in range(n_draws):
        drawn = {name: distributions[name].draw(chance) for name in sorted(distributions)}
        if "hours_per_week" in drawn:
            idle = drawn.get("idle_hours_per_week", comparison.use.idle_hours_per_week)
            drawn["hours_per_week"] = min(drawn["hours_per_week"], HOURS_PER_WEEK - idle)
        found = change(comparison, **drawn).month()
        if found is not None:
            months.append(found)
    return Outcome(tuple(sorted(months)), n_draws, comparison.within_months, seed)
