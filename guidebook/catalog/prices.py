"""What devices cost: dated prices with their sources, and the reader's own on top.

Prices grow old faster than anything else in this book, so each carries a date and can be
asked how old it is. A range in a source is stored as its middle, with the range in the note.
A date may be a day, a month or a year; it counts from its first day, the oldest it can be.

A reader's own prices go into a CSV file of the same columns, named by the environment variable
``GUIDEBOOK_PRICES``. They win over the catalog's, whatever their date.
"""

from __future__ import annotations

import csv
import datetime
import functools
import io
import math
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

ENVIRONMENT_VARIABLE = "GUIDEBOOK_PRICES"
KINDS = ("launch", "street", "used")
COLUMNS = ("device", "usd", "kind", "as_of", "source", "note")

_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_KIT = re.compile(r"(?P<name>.+) kit (?P<gib>\d+) GiB")


@dataclass(frozen=True)
class Price:
    """One price of one device.

    Attributes
    ----------
    device
        As the hardware catalog calls it, or a thing of its own such as ``DDR5 kit 32 GiB``.
    usd
        US dollars, without tax.
    kind
        ``launch``: the list price on the first day; ``street``: new, at a later date;
        ``used``: second-hand.
    as_of
        When this was the price; of a month or a year, its first day.
    source, note
        Where it stands, and what to know about it.
    dated
        The date as it is written in the file, to be shown: ``2026-05`` claims no day.
    is_own
        Whether it comes from the reader's file.
    """

    device: str
    usd: float
    kind: str
    as_of: datetime.date
    source: str
    note: str = ""
    dated: str = ""
    is_own: bool = False

    def age_days(self, today: datetime.date) -> int:
        """Return the days since this was the price."""
        return (today - self.as_of).days

    def is_stale(self, today: datetime.date, max_days: int = 180) -> bool:
        """Whether this price is too old to decide by.

        A launch price is history from the first and never today's price: it gets stale too.
        """
        return self.age_days(today) > max_days


def load(path: Path | str | None = None) -> tuple[Price, ...]:
    """Return all prices, oldest first, the reader's own last.

    Parameters
    ----------
    path
        The reader's file. ``None``: the file that ``GUIDEBOOK_PRICES`` names, if any.

    Raises
    ------
    ValueError
        The file is missing, or a row of it is not well-formed. The message names the row.
    """
    own = _own_file(path)
    prices = _bundled()
    if own is not None:
        prices += _parse(own.read_text(encoding="utf-8-sig"), str(own), is_own=True)
    return tuple(sorted(prices, key=_latest_last))


def of(device: str, kind: str | None = None, *, path: Path | str | None = None) -> Price | None:
    """Return the latest price of a device, or ``None`` if none is known.

    Parameters
    ----------
    device
        Its name, without regard to case.
    kind
        One of ``KINDS``; ``None`` takes any.
    path
        The reader's file, as for :func:`load`.
    """
    known = history(device, kind, path=path)
    return known[-1] if known else None


def history(
    device: str, kind: str | None = None, *, path: Path | str | None = None
) -> tuple[Price, ...]:
    """Return every price of a device, oldest first, the reader's own last."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind of price {kind!r}: use one of {', '.join(KINDS)}")
    wanted = device.strip().lower()
    return tuple(
        price
        for price in load(path)
        if price.device.lower() == wanted and kind in (None, price.kind)
    )


def usd_per_gib(memory: str, *, path: Path | str | None = None) -> tuple[float, Price] | None:
    """Return what a GiB of system memory costs by the latest kit, and that kit's price.

    Parameters
    ----------
    memory
        ``"DDR4"`` or ``"DDR5"``: the first word of the kits' names. Of several kits with the
        same date, the cheapest per GiB counts.
    path
        The reader's file, as for :func:`load`.
    """
    kits: list[tuple[float, Price]] = []
    for price in load(path):
        kit = _KIT.fullmatch(price.device)
        if kit and kit["name"].lower() == memory.strip().lower():
            kits.append((price.usd / int(kit["gib"]), price))
    return max(kits, key=lambda kit: (*_latest_last(kit[1]), -kit[0]), default=None)


def _latest_last(price: Price) -> tuple[bool, datetime.date]:
    return price.is_own, price.as_of


def _own_file(path: Path | str | None) -> Path | None:
    named_by = "the given path"
    if path is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE) or None
        named_by = ENVIRONMENT_VARIABLE
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(
            f"{named_by} names {path}, which is not a file: "
            f"make a CSV file with the columns {', '.join(COLUMNS)}"
        )
    return Path(path)


@functools.cache
def _bundled() -> tuple[Price, ...]:
    text = resources.files("guidebook.catalog").joinpath("prices.csv").read_text(encoding="utf-8")
    return _parse(text, "prices.csv", is_own=False)


def _parse(text: str, file_name: str, *, is_own: bool) -> tuple[Price, ...]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    missing = [column for column in COLUMNS[:-1] if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{file_name} has no column {', '.join(missing)}: "
            f"its first line must read {','.join(COLUMNS)}"
        )
    prices = []
    try:
        for row in reader:
            where = f"{file_name}, line {reader.line_num} ({row['device'] or 'no device'})"
            prices.append(_price(row, where, is_own=is_own))
    except csv.Error as error:
        raise ValueError(
            f"{file_name}, line {reader.line_num}: not readable as CSV: {error}"
        ) from error
    return tuple(prices)


def _price(row: dict[str, str | None], where: str, *, is_own: bool) -> Price:
    if None in row:
        raise ValueError(f"{where}: more fields than columns; put quotes around text with commas")
    cells = {column: (row.get(column) or "").strip() for column in COLUMNS}
    for column in ("device", "source"):
        if not cells[column]:
            raise ValueError(f"{where}: {column} is empty; every price needs one")
    if cells["kind"] not in KINDS:
        raise ValueError(
            f"{where}: kind is {cells['kind']!r}; it must be one of {', '.join(KINDS)}"
        )
    return Price(
        device=cells["device"],
        usd=_usd(cells["usd"], where),
        kind=cells["kind"],
        as_of=_as_of(cells["as_of"], where),
        source=cells["source"],
        note=cells["note"],
        dated=cells["as_of"],
        is_own=is_own,
    )


def _usd(text: str, where: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 < usd < math.inf:
        raise ValueError(f"{where}: usd is {text!r}; give a number greater than 0, such as 1499.99")
    return usd


def _as_of(text: str, where: str) -> datetime.date:
    parts = _DATE.fullmatch(text)
    if parts:
        year, month, day = (int(part) if part else 1 for part in parts.groups())
        try:
            return datetime.date(year, month, day)
        except ValueError:
            pass
    raise ValueError(
        f"{where}: as_of is {text!r}; every price needs a date such as 2026-11-23, 2026-11 or 2026"
    )
