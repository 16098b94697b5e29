"""What renting costs: dated prices of GPUs per hour and the terms that come with them.

A row is an offer, the price of one GPU for one hour, or a term of a provider: storage, traffic,
notice before an interruption, the unit of billing. Every row has a date and a source and gets
stale; none is today's price. Prices are without tax.

A reader's own rows go into a CSV file of the same columns, named by the environment variable
``GUIDEBOOK_CLOUD_PRICES``. They win over the catalog's, whatever their date.
"""

from __future__ import annotations

import csv
import datetime
import functools
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from guidebook import units
from guidebook.catalog import dated, hardware
from guidebook.catalog.dated import Dated
from guidebook.catalog.hardware import Device

Tier = Literal["on-demand", "community", "spot", "reserved"]
Item = Literal[
    "usd_per_gb_month",
    "usd_per_gb_egress",
    "spot_notice_seconds",
    "billing_seconds",
    "minimum_seconds",
]

ENVIRONMENT_VARIABLE = "GUIDEBOOK_CLOUD_PRICES"
COLUMNS = ("item", "provider", "gpu", "tier", "gpus", "low", "high", "as_of", "source", "note")
TIERS: tuple[Tier, ...] = get_args(Tier)
ITEMS: tuple[Item, ...] = get_args(Item)

_OFFER = "usd_per_gpu_hour"
_SIZE = re.compile(r"(\d+) ?GB\b")


@dataclass(frozen=True)
class Offer(Dated):
    """The price of renting a GPU.

    Attributes
    ----------
    gpu
        As the hardware catalog calls it, where it is there; ``A100 80GB`` where the offer does
        not say which form.
    provider
        Who rents it out.
    tier
        ``on-demand``; ``community``: on demand, on the machine of a third party; ``spot``:
        cheaper, and may be taken away; ``reserved``: for a term, paid whether used or not.
    usd_per_gpu_hour_low, usd_per_gpu_hour_high
        US dollars per GPU and hour; the same unless the source gives a range.
    as_of
        When this was the price; of a month or a year, its first day.
    source, note
        Where it stands, and what to know about it.
    n_gpus
        The fewest GPUs that are rented at this price.
    dated
        The date as it is written in the file, to be shown: ``2026-05`` claims no day.
    is_own
        Whether it comes from the reader's file.
    """

    gpu: str
    provider: str
    tier: Tier
    usd_per_gpu_hour_low: float
    usd_per_gpu_hour_high: float
    as_of: datetime.date
    source: str
    note: str = ""
    n_gpus: int = 1
    dated: str = ""
    is_own: bool = False

    @property
    def usd_per_gpu_hour(self) -> float:
        """The price, or the middle of its range."""
        return (self.usd_per_gpu_hour_low + self.usd_per_gpu_hour_high) / 2

    @property
    def is_firm(self) -> bool:
        """Whether it is paid by the hour and nobody takes it away."""
        return self.tier in ("on-demand", "community")

    @property
    def device(self) -> Device | None:
        """The GPU's row in the hardware catalog; None where there is none, or several fit."""
        try:
            return hardware.find(self.gpu)
        except LookupError:
            return None

    @property
    def memory_bytes(self) -> int | None:
        """Memory of one GPU; None if it is not known."""
        device = self.device
        if device is not None:
            return device.memory_bytes
        size = _SIZE.search(self.gpu)
        return int(size[1]) * units.GIB if size else None


@dataclass(frozen=True)
class Term(Dated):
    """A condition of a provider.

    Attributes
    ----------
    provider
        Whose.
    item
        What, with its unit: ``usd_per_gb_month`` (storage), ``usd_per_gb_egress`` (traffic out),
        ``spot_notice_seconds`` (from the warning to the end), ``billing_seconds`` (time is
        rounded up to these), ``minimum_seconds`` (billed at least).
    value
        In the item's unit.
    as_of, source, note, dated, is_own
        As for an offer.
    """

    provider: str
    item: Item
    value: float
    as_of: datetime.date
    source: str
    note: str = ""
    dated: str = ""
    is_own: bool = False


def history(path: Path | str | None = None) -> tuple[Offer, ...]:
    """Return every price there is, oldest first, the reader's own last.

    Parameters
    ----------
    path
        The reader's file. ``None``: the file that ``GUIDEBOOK_CLOUD_PRICES`` names, if any.

    Raises
    ------
    ValueError
        The file is missing, or a row of it is not well-formed. The message names the row.
    """
    found = [row for row in _load(path) if isinstance(row, Offer)]
    return tuple(sorted(found, key=_latest_last))


def offers(
    gpu: str = "",
    *,
    provider: str = "",
    tier: Tier | None = None,
    n_gpus: int | None = None,
    least_memory_bytes: int = 0,
    path: Path | str | None = None,
) -> tuple[Offer, ...]:
    """Return the latest price of each offer, cheapest first.

    Of the same GPU, provider, tier and number of GPUs only the latest price counts.

    Parameters
    ----------
    gpu
        A name, or words of it: ``A100`` finds every A100, ``A100 80GB`` those with 80 GB.
    provider
        A provider; case, spaces and punctuation do not matter. Empty: any.
    tier
        One tier; None: any.
    n_gpus
        How many are wanted: leaves out what is only rented in larger numbers.
    least_memory_bytes
        Leaves out GPUs with less memory, and those whose memory is not known.
    path
        The reader's file, as for :func:`history`.

    Raises
    ------
    ValueError
        There is no such tier.
    """
    if tier is not None and tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}: use one of {', '.join(TIERS)}")
    latest = {(o.gpu, o.provider, o.tier, o.n_gpus): o for o in history(path)}
    words = set(gpu.casefold().split())
    found = [
        offer
        for offer in latest.values()
        if words <= set(offer.gpu.casefold().split())
        and (not provider or _key(provider) == _key(offer.provider))
        and tier in (None, offer.tier)
        and (n_gpus is None or offer.n_gpus <= n_gpus)
        and (offer.memory_bytes or 0) >= least_memory_bytes
    ]
    return tuple(sorted(found, key=lambda offer: (offer.usd_per_gpu_hour, offer.provider)))


def terms(path: Path | str | None = None) -> tuple[Term, ...]:
    """Return every term of every provider, oldest first, the reader's own last."""
    return tuple(sorted((r for r in _load(path) if isinstance(r, Term)), key=_latest_last))


def term(provider: str, item: Item, *, path: Path | str | None = None) -> Term | None:
    """Return the latest term of a provider, or ``None`` if it is not known.

    Raises
    ------
    ValueError
        There is no such item.
    """
    if item not in ITEMS:
        raise ValueError(f"unknown term {item!r}: use one of {', '.join(ITEMS)}")
    known = [t for t in terms(path) if t.item == item and _key(t.provider) == _key(provider)]
    return known[-1] if known else None


def providers(path: Path | str | None = None) -> tuple[str, ...]:
    """Return the names of all who have an offer, in alphabetical order."""
    return tuple(sorted({offer.provider for offer in history(path)}, key=str.casefold))


def to_csv(some_offers: Iterable[Offer]) -> str:
    """Write offers as the text of a CSV file that ``GUIDEBOOK_CLOUD_PRICES`` may name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for offer in some_offers:
        low, high = offer.usd_per_gpu_hour_low, offer.usd_per_gpu_hour_high
        cells = [_OFFER, offer.provider, offer.gpu, offer.tier, offer.n_gpus]
        cells += [low, "" if high == low else high, offer.dated or offer.as_of.isoformat()]
        writer.writerow([*cells, offer.source, offer.note])
    return text.getvalue()


def _latest_last(row: Offer | Term) -> tuple[bool, datetime.date]:
    return row.is_own, row.as_of


def _key(provider: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", provider.casefold())


def _load(path: Path | str | None) -> tuple[Offer | Term, ...]:
    own = dated.own_file(path, ENVIRONMENT_VARIABLE, COLUMNS)
    found = _bundled()
    if own is not None:
        found += _parse(dated.read_own(own), str(own), is_own=True)
    return found


@functools.cache
def _bundled() -> tuple[Offer | Term, ...]:
    return _parse(dated.bundled("clouds.csv"), "clouds.csv", is_own=False)


def _parse(text: str, file_name: str, *, is_own: bool) -> tuple[Offer | Term, ...]:
    rows = dated.rows(
        text,
        file_name,
        COLUMNS,
        named_by="provider",
        required=("item", "provider", "source"),
        may_lack=("gpu", "tier", "gpus", "high", "note"),
    )
    return tuple(_row(cells, where, is_own=is_own) for where, cells in rows)


def _row(cells: dict[str, str], where: str, *, is_own: bool) -> Offer | Term:
    common: dict[str, Any] = {
        "provider": cells["provider"],
        "as_of": dated.date(cells["as_of"], where),
        "source": cells["source"],
        "note": cells["note"],
        "dated": cells["as_of"],
        "is_own": is_own,
    }
    if cells["item"] == _OFFER:
        return _offer(cells, where, common)
    if cells["item"] not in ITEMS:
        known = ", ".join((_OFFER, *ITEMS))
        raise ValueError(f"{where}: item is {cells['item']!r}; it must be one of {known}")
    value = dated.number(cells["low"], where, "low", zero=True, example="0.09")
    return Term(item=cells["item"], value=value, **common)


def _offer(cells: dict[str, str], where: str, common: dict[str, Any]) -> Offer:
    if not cells["gpu"]:
        raise ValueError(f"{where}: gpu is empty; a price per hour needs one")
    if cells["tier"] not in TIERS:
        raise ValueError(
            f"{where}: tier is {cells['tier']!r}; it must be one of {', '.join(TIERS)}"
        )
    low = dated.number(cells["low"], where, "low", example="1.89")
    high = dated.number(cells["high"], where, "high", example="2.49") if cells["high"] else low
    if high < low:
        raise ValueError(f"{where}: high is {high:g}, less than low, {low:g}; swap them")
    n_gpus = dated.number(cells["gpus"] or "1", where, "gpus", example="8")
    if n_gpus != int(n_gpus):
        raise ValueError(f"{where}: gpus is {cells['gpus']!r}; give a whole number, such as 8")
    return Offer(
        gpu=cells["gpu"],
        tier=cells["tier"],
        usd_per_gpu_hour_low=low,
        usd_per_gpu_hour_high=high,
        n_gpus=int(n_gpus),
        **common,
    )
