"""What devices cost: dated prices with their sources, and the reader's own on top.

Prices grow old faster than anything else in this book, so each carries a date and can be
asked how old it is. A range in a source is stored as its middle, with the range in the note.
A date may be a day, a month or a year; it counts from its first day, the oldest it can be.

A reader's own prices go into a CSV file of the same columns, named by the environment variable
``GUIDEBOOK_PRICES``. They win over the catalog's, whatever their date.
"""

from __future__ import annotations

import datetime
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from guidebook.catalog import dated
from guidebook.catalog.dated import Dated

ENVIRONMENT_VARIABLE = "GUIDEBOOK_PRICES"
KINDS = ("launch", "street", "used")
COLUMNS = ("device", "usd", "kind", "as_of", "source", "note")

_KIT = re.compile(r"(?P<name>.+) kit (?P<gib>\d+) GiB")


@dataclass(frozen=True)
class Price(Dated):
    """One price of one device.

    A launch price is history from the first and never today's price: it gets stale too.

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
    own = dated.own_file(path, ENVIRONMENT_VARIABLE, COLUMNS)
    prices = _bundled()
    if own is not None:
        prices += _parse(dated.read_own(own), str(own), is_own=True)
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


@functools.cache
def _bundled() -> tuple[Price, ...]:
    return _parse(dated.bundled("prices.csv"), "prices.csv", is_own=False)


def _parse(text: str, file_name: str, *, is_own: bool) -> tuple[Price, ...]:
    rows = dated.rows(text, file_name, COLUMNS, named_by="device", required=("device", "source"))
    return tuple(_price(cells, where, is_own=is_own) for where, cells in rows)


def _price(cells: dict[str, str], where: str, *, is_own: bool) -> Price:
    if cells["kind"] not in KINDS:
        raise ValueError(
            f"{where}: kind is {cells['kind']!r}; it must be one of {', '.join(KINDS)}"
        )
    return Price(
        device=cells["device"],
        usd=dated.number(cells["usd"], where, "usd", example="1499.99"),
        kind=cells["kind"],
        as_of=dated.date(cells["as_of"], where),
        source=cells["source"],
        note=cells["note"],
        dated=cells["as_of"],
        is_own=is_own,
    )
