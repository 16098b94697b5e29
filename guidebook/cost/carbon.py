"""Greenhouse gases of computing: of the electricity, and of making the hardware where known."""

from __future__ import annotations

import datetime
import difflib
import functools
from dataclasses import dataclass

from guidebook.catalog import dated
from guidebook.catalog.dated import Dated
from guidebook.cost.use import HOURS_PER_WEEK, WEEKS_PER_MONTH, check, check_positive

# Total power of a data centre over that of its computers: the mean of the Uptime Institute's
# Global Data Center Survey 2025 (thefreesheet.com, 2026-01-19). At home: 1.
DATA_CENTRE_PUE = 1.54

_COLUMNS = ("region", "g_co2e_per_kwh", "as_of", "source", "note")


@dataclass(frozen=True)
class Grid(Dated):
    """The electricity of a region.

    Attributes
    ----------
    region
        A country, ``European Union`` or ``World``.
    g_co2e_per_kwh
        Grams of CO₂ equivalents per kWh generated, a year's mean over the whole life cycle.
    as_of, source, note
        When it was read, where it stands, and what to know about it.
    """

    region: str
    g_co2e_per_kwh: float
    as_of: datetime.date
    source: str
    note: str = ""


@dataclass(frozen=True)
class Embodied(Dated):
    """What making a device emitted.

    Attributes
    ----------
    device
        The words of its name that the source gives: ``A100`` is every A100.
    kg_co2e
        Kilograms of CO₂ equivalents.
    as_of, source, note
        When it was published, where, and what it covers.
    """

    device: str
    kg_co2e: float
    as_of: datetime.date
    source: str
    note: str = ""


# Makers of graphics cards publish no such figure, so there is no row for one.
EMBODIED = (
    Embodied(
        "A100",
        318,
        datetime.date(2023, 7, 9),
        "Chien et al. 2023, Reducing the Carbon Impact of Generative AI Inference, HotCarbon '23 "
        "https://dl.acm.org/doi/pdf/10.1145/3604930.3605705",
        "an estimate: an eighth of a server with eight of them, memory not stated",
    ),
)


@dataclass(frozen=True)
class Footprint:
    """Emissions in kilograms of CO₂ equivalents.

    Attributes
    ----------
    electricity_kg
        Of the electricity.
    embodied_kg
        The share of what making the device emitted; None: not known, and not in the total.
    """

    electricity_kg: float
    embodied_kg: float | None = None

    @property
    def total_kg(self) -> float:
        """Both, as far as they are known."""
        return self.electricity_kg + (self.embodied_kg or 0.0)


@functools.cache
def grids() -> tuple[Grid, ...]:
    """Return the regions whose electricity is known, the world first."""
    rows = dated.rows(
        dated.bundled("grids.csv"),
        "grids.csv",
        _COLUMNS,
        named_by="region",
        required=("region", "source"),
    )
    return tuple(
        Grid(
            region=cells["region"],
            g_co2e_per_kwh=dated.number(cells["g_co2e_per_kwh"], where, "g_co2e_per_kwh"),
            as_of=dated.date(cells["as_of"], where),
            source=cells["source"],
            note=cells["note"],
        )
        for where, cells in rows
    )


def grid(region: str) -> Grid:
    """Look a region up; case does not matter.

    Raises
    ------
    LookupError
        It is not in the table; the message names near ones.
    """
    by_name = {found.region.casefold(): found for found in grids()}
    wanted = region.strip().casefold()
    if wanted in by_name:
        return by_name[wanted]
    near = [by_name[name].region for name in difflib.get_close_matches(wanted, by_name, 3, 0.5)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Give the grams per kWh yourself."
    raise LookupError(f"No region {region!r} in the table of grids. {hint}")


def embodied(device: str) -> Embodied | None:
    """Return what making a device emitted, or None where nobody has published it."""
    words = set(device.casefold().split())
    return next((row for row in EMBODIED if set(row.device.casefold().split()) <= words), None)


def footprint(
    kwh: float,
    g_co2e_per_kwh: float,
    *,
    pue: float = 1.0,
    embodied_kg: float | None = None,
    share_of_life: float = 1.0,
) -> Footprint:
    """Return the emissions of some work.

    Parameters
    ----------
    kwh
        Energy of the computer, in kWh.
    g_co2e_per_kwh
        Of the reader's grid, or of :func:`grid`.
    pue
        What the building takes for each kWh of the computer: 1 at home,
        :data:`DATA_CENTRE_PUE` where the provider does not say.
    embodied_kg
        What making the device emitted, if it is known and counted.
    share_of_life
        Share of the device's working life that the work took.

    Raises
    ------
    ValueError
        A number is negative, ``pue`` is below 1, or the share is more than a life.
    """
    check(kwh=kwh, g_co2e_per_kwh=g_co2e_per_kwh, embodied_kg=embodied_kg or 0.0)
    check(pue_above_1=pue - 1)
    check(share_of_life=share_of_life, rest_of_life=1 - share_of_life)
    return Footprint(
        electricity_kg=kwh * pue * g_co2e_per_kwh / 1000,
        embodied_kg=None if embodied_kg is None else embodied_kg * share_of_life,
    )


def share_of_life(hours: float, hours_per_week: float, years: float) -> float:
    """Return the share of a device's working life that some hours of work are, at most 1.

    Parameters
    ----------
    hours
        Hours of work.
    hours_per_week
        Hours that it works in a usual week, at most 168.
    years
        How long it is used.
    """
    check(hours=hours)
    check_positive(hours_per_week=hours_per_week, years=years)
    life = min(hours_per_week, HOURS_PER_WEEK) * WEEKS_PER_MONTH * 12 * years
    return min(1.0, hours / life)
