"""How the value of a device falls with time."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

from guidebook.catalog import prices

_YEAR_DAYS = 365.25
# Closer together, two prices say more about the market's mood than about age.
_LEAST_DAYS = 365


@dataclass(frozen=True)
class Depreciation:
    """A value that falls by a share each year.

    Attributes
    ----------
    first_year, later_years
        Share of the value that is lost in the first year after the purchase, and in every
        further one. Negative: the value rises, as used cards did in some years.
    selling_fee
        Share of the price that does not reach the seller.
    source
        Where the shares come from; an assumption says that it is one.

    Raises
    ------
    ValueError
        A share is not below 1, or a fee is negative.
    """

    first_year: float
    later_years: float
    selling_fee: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("first_year", "later_years"):
            share = getattr(self, name)
            if not -1 < share < 1:
                raise ValueError(
                    f"{name} is {share}: give the share of the value that is lost in a year, "
                    "such as 0.25"
                )
        if not 0 <= self.selling_fee < 1:
            raise ValueError(
                f"selling_fee is {self.selling_fee}: give a share of the price, such as 0.13"
            )

    def value(self, usd: float, months: float) -> float:
        """Return what selling brings after ``months``.

        Parameters
        ----------
        usd
            Price at the purchase.
        months
            Age since the purchase; a part of a year counts as that part of its loss.
        """
        years = months / 12
        first, later = min(years, 1.0), max(years - 1.0, 0.0)
        kept: float = (1 - self.first_year) ** first * (1 - self.later_years) ** later
        return usd * (1 - self.selling_fee) * kept


# CalcBee: 20 to 30 % in the first year, 10 to 15 % in each one after.
_CALCBEE = "https://www.calcbee.com/calculators/gaming/pc-hardware/used-gpu-value"
NEW_CARD = Depreciation(
    0.25, 0.125, source=f"20 to 30 % in the first year, then 10 to 15 %: {_CALCBEE}"
)
USED_CARD = Depreciation(0.125, 0.125, source=f"10 to 15 % a year: {_CALCBEE}")


def observed(device: str, *, path: Path | str | None = None) -> Depreciation | None:
    """Return the yearly loss between a device's launch price and its latest used price.

    Parameters
    ----------
    device
        A name of the hardware catalog.
    path
        The reader's own prices, as for :func:`guidebook.catalog.prices.load`.

    Returns
    -------
    One rate for all years, or None if the two prices are not known or less than a year apart.
    A mean over years of shortage and of glut: the next year need not follow it.
    """
    first = prices.of(device, "launch", path=path)
    last = prices.of(device, "used", path=path)
    if first is None or last is None or (last.as_of - first.as_of).days < _LEAST_DAYS:
        return None
    years = (last.as_of - first.as_of) / datetime.timedelta(days=_YEAR_DAYS)
    loss = 1 - math.exp(math.log(last.usd / first.usd) / years)
    source = f"{first.usd:,.0f} USD at launch ({first.dated}), {last.usd:,.0f} used ({last.dated})"
    return Depreciation(loss, loss, source=source)
