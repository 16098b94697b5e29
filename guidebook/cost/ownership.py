"""What owning a machine costs: purchase, loss of value, electricity, upgrades, time."""

from __future__ import annotations

from dataclasses import dataclass

from guidebook.cost import depreciation
from guidebook.cost.curves import Asset, Curve, Step
from guidebook.cost.depreciation import Depreciation
from guidebook.cost.use import WEEKS_PER_MONTH, Use, check, check_positive


@dataclass(frozen=True)
class Upgrade:
    """Something that is bought later: its month, its price in US dollars, its name."""

    month: float
    usd: float
    name: str = ""

    def __post_init__(self) -> None:
        check(month=self.month, usd=self.usd)


@dataclass(frozen=True)
class Purchase:
    """A machine, or the part of one, that is bought.

    Attributes
    ----------
    usd
        Price, without tax unless the reader counts it in.
    load_w, idle_w
        Power at the socket while it works and while it waits, in watts, measured or rated. For
        a card that goes into a machine that is there anyway: what the card adds.
    n_gpus
        GPUs that work at the same time.
    depreciation
        How its value falls.
    upgrades
        What is bought later; its value falls in the same way.
    name
        For tables.
    """

    usd: float
    load_w: float
    idle_w: float = 0.0
    n_gpus: int = 1
    depreciation: Depreciation = depreciation.NEW_CARD
    upgrades: tuple[Upgrade, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        check(usd=self.usd, load_w=self.load_w, idle_w=self.idle_w)
        check_positive(n_gpus=self.n_gpus)


@dataclass(frozen=True)
class Conditions:
    """What does not depend on the machine.

    Attributes
    ----------
    usd_per_kwh
        Price of electricity.
    setup_hours, upkeep_hours_per_month
        The reader's own time at the start and in every month.
    usd_per_hour
        What an hour of it is worth; 0: time is not counted.
    yearly_interest
        What the money would have brought elsewhere, as a share a year, without compound
        interest; 0: not counted.
    """

    usd_per_kwh: float
    setup_hours: float = 0.0
    upkeep_hours_per_month: float = 0.0
    usd_per_hour: float = 0.0
    yearly_interest: float = 0.0

    def __post_init__(self) -> None:
        check(
            usd_per_kwh=self.usd_per_kwh,
            setup_hours=self.setup_hours,
            upkeep_hours_per_month=self.upkeep_hours_per_month,
            usd_per_hour=self.usd_per_hour,
            yearly_interest=self.yearly_interest,
        )


@dataclass(frozen=True)
class Ownership:
    """What owning costs over some months, item by item, in US dollars.

    Attributes
    ----------
    months
        How long.
    purchase_usd, upgrades_usd, resale_usd
        Paid for the machine, paid for upgrades in that time, and what selling all of it brings.
    electricity_usd, idle_electricity_usd
        While it works and while it waits.
    time_usd, interest_usd
        The reader's time, and what the money would have brought; 0 where not counted.
    kwh
        Energy in kWh.
    gpu_hours
        Hours of work, times the number of GPUs.
    curve
        What has been spent, without selling.
    """

    months: float
    purchase_usd: float
    upgrades_usd: float
    resale_usd: float
    electricity_usd: float
    idle_electricity_usd: float
    time_usd: float
    interest_usd: float
    kwh: float
    gpu_hours: float
    curve: Curve

    @property
    def spent_usd(self) -> float:
        """Everything that was paid."""
        return (
            self.purchase_usd
            + self.upgrades_usd
            + self.electricity_usd
            + self.idle_electricity_usd
            + self.time_usd
            + self.interest_usd
        )

    @property
    def total_usd(self) -> float:
        """Total cost of ownership: what was paid, less what selling brings."""
        return self.spent_usd - self.resale_usd

    @property
    def usd_per_month(self) -> float:
        """Total cost, by the month."""
        return self.total_usd / self.months

    @property
    def usd_per_gpu_hour(self) -> float | None:
        """Total cost, by the GPU hour of work; None if it never works."""
        return self.total_usd / self.gpu_hours if self.gpu_hours else None


def own(purchase: Purchase, use: Use, conditions: Conditions, months: float) -> Ownership:
    """Return the total cost of owning a machine for some months and selling it then.

    Raises
    ------
    ValueError
        ``months`` is not greater than 0.
    """
    check_positive(months=months)
    bought = [upgrade for upgrade in purchase.upgrades if upgrade.month <= months]
    work_kwh, idle_kwh = kwh_per_month(purchase, use)
    held = [(purchase.usd, months)] + [(u.usd, months - u.month) for u in bought]
    return Ownership(
        months=months,
        purchase_usd=purchase.usd,
        upgrades_usd=sum(upgrade.usd for upgrade in bought),
        resale_usd=sum(purchase.depreciation.value(usd, age) for usd, age in held),
        electricity_usd=work_kwh * conditions.usd_per_kwh * months,
        idle_electricity_usd=idle_kwh * conditions.usd_per_kwh * months,
        time_usd=(conditions.setup_hours + conditions.upkeep_hours_per_month * months)
        * conditions.usd_per_hour,
        interest_usd=sum(usd * age for usd, age in held) * conditions.yearly_interest / 12,
        kwh=(work_kwh + idle_kwh) * months,
        gpu_hours=use.hours_per_month * months * purchase.n_gpus,
        curve=curve(purchase, use, conditions),
    )


def kwh_per_month(purchase: Purchase, use: Use) -> tuple[float, float]:
    """Return the energy of a month in kWh: at work, and waiting."""
    weekly = (
        purchase.load_w * use.hours_per_week / 1000,
        purchase.idle_w * use.idle_hours_per_week / 1000,
    )
    return weekly[0] * WEEKS_PER_MONTH, weekly[1] * WEEKS_PER_MONTH


def curve(purchase: Purchase, use: Use, conditions: Conditions, *, sold: bool = False) -> Curve:
    """Return the cumulative cost of owning over months.

    Parameters
    ----------
    purchase, use, conditions
        As for :func:`own`.
    sold
        Count what selling everything would bring in each month against the cost. Without, the
        curve is the money that has left the reader's pocket.
    """
    interest = conditions.yearly_interest / 12
    running = sum(kwh_per_month(purchase, use)) * conditions.usd_per_kwh
    bought = [(0.0, purchase.usd)] + [(u.month, u.usd) for u in purchase.upgrades]
    return Curve(
        usd=purchase.usd + conditions.setup_hours * conditions.usd_per_hour,
        usd_per_month=running
        + conditions.upkeep_hours_per_month * conditions.usd_per_hour
        + purchase.usd * interest,
        steps=tuple(Step(u.month, u.usd, u.usd * interest) for u in purchase.upgrades),
        assets=tuple(Asset(month, usd, purchase.depreciation) for month, usd in bought)
        if sold
        else (),
    )
