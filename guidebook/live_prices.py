"""Rental prices of this minute, from the catalogs of gpuhunt or SkyPilot, when asked for.

Nothing in the book calls this by itself: it goes to the network. One of the two packages must be
installed (``pip install gpuhunt`` or ``pip install skypilot``); each reads its own public catalog
and needs no account. It runs in a child process with a time limit, so that neither a slow network
nor what the package imports can harm the caller. SkyPilot keeps its catalog under ``~/.sky``.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Literal, cast, get_args

from guidebook import units
from guidebook.catalog import clouds, hardware
from guidebook.catalog.clouds import Offer, Tier
from guidebook.machine import _outside

Catalog = Literal["gpuhunt", "skypilot"]
Run = Callable[[Sequence[str], float], str | None]

CATALOGS: tuple[Catalog, ...] = get_args(Catalog)
SECONDS = 90.0

_MODULES = {"gpuhunt": "gpuhunt", "skypilot": "sky"}
# Each prints one JSON list: provider, GPU, its memory in GiB, number of GPUs, US dollars an hour
# for all of them, and the tier.
_CODE = {
    "gpuhunt": """
import json, gpuhunt
rows = [
    [i.provider, i.gpu_name, i.gpu_memory, i.gpu_count, i.price, "spot" if i.spot else "on-demand"]
    for i in gpuhunt.query(min_gpu_count=1) if i.gpu_name
]
print(json.dumps(rows))
""",
    "skypilot": """
import json
from sky import catalog
rows = []
for name, types in catalog.list_accelerators(gpus_only=True, all_regions=True).items():
    for t in types:
        listed = "community" if "COMMUNITY" in str(t.instance_type) else "on-demand"
        for price, tier in ((t.price, listed), (t.spot_price, "spot")):
            if price is not None and price == price:
                rows.append([t.cloud, name, t.device_memory, t.accelerator_count, price, tier])
print(json.dumps(rows))
""",
}
_SIZE = re.compile(r"(\d+) ?GB")
_PROVIDERS = {
    "aws": "AWS",
    "azure": "Azure",
    "gcp": "GCP",
    "lambda": "Lambda",
    "lambdalabs": "Lambda",
    "nebius": "Nebius",
    "runpod": "RunPod",
    "vast": "Vast.ai",
    "vastai": "Vast.ai",
}


class LivePricesError(RuntimeError):
    """No live prices; the message says why and what is left."""


def fetch(
    gpu: str = "",
    catalog: Catalog | None = None,
    *,
    seconds: float = SECONDS,
    today: datetime.date | None = None,
    run: Run = _outside.command_output,
) -> tuple[Offer, ...]:
    """Ask a catalog for what GPUs cost now.

    Parameters
    ----------
    gpu
        Words of a GPU's name, as for :func:`guidebook.catalog.clouds.offers`. Empty: all.
    catalog
        Which to ask; None: the first that is installed.
    seconds
        Time limit.
    today
        The date to put on the offers; None: today.
    run
        Starts a program with a time limit and returns what it prints, or None; for tests.

    Returns
    -------
    One offer for each GPU, provider, tier and number of GPUs, cheapest first; its range goes from
    the cheapest region to the dearest.

    Raises
    ------
    LivePricesError
        No such package is installed, or it gave no answer in time.
    ValueError
        There is no such catalog.
    """
    chosen = _installed(catalog)
    output = run([sys.executable, "-c", _CODE[chosen]], seconds)
    if output is None:
        raise LivePricesError(
            f"{chosen} gave no prices (time limit {seconds:g} s): is there a way to the internet? "
            "The dated prices of the book remain, and your own in GUIDEBOOK_CLOUD_PRICES."
        )
    day = today or datetime.datetime.now(tz=datetime.UTC).date()
    source = f"{chosen} {metadata.version(chosen)}, its catalog on the day"
    found = _offers(_rows(chosen, output), day, source)
    words = set(gpu.casefold().split())
    wanted = [offer for offer in found if words <= set(offer.gpu.casefold().split())]
    return tuple(sorted(wanted, key=lambda offer: (offer.usd_per_gpu_hour, offer.provider)))


def _installed(catalog: Catalog | None) -> Catalog:
    if catalog is not None and catalog not in CATALOGS:
        raise ValueError(f"unknown catalog {catalog!r}: use one of {', '.join(CATALOGS)}")
    for name in CATALOGS if catalog is None else (catalog,):
        if importlib.util.find_spec(_MODULES[name]) is not None:
            return name
    wanted = " or ".join(CATALOGS if catalog is None else (catalog,))
    raise LivePricesError(
        f"No live prices: {wanted} is not installed. Install it with pip, or go on with the "
        "dated prices of the book."
    )


def _rows(catalog: Catalog, output: str) -> list[list[object]]:
    # A package may print a notice first; the list is the last line.
    try:
        rows = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise LivePricesError(
            f"{catalog} gave an answer that is not a list of prices: install another version, or "
            "go on with the dated prices of the book."
        ) from error
    return [row for row in rows if isinstance(row, list) and len(row) == 6]


def _offers(rows: list[list[object]], day: datetime.date, source: str) -> list[Offer]:
    prices: dict[tuple[str, str, Tier, int], list[float]] = {}
    for provider, gpu, memory_gib, count, usd, tier in rows:
        known = isinstance(usd, int | float) and isinstance(count, int | float)
        # A catalog has rows of a part of a GPU, and of nothing.
        if not known or tier not in clouds.TIERS or cast(float, count) < 1 or cast(float, usd) <= 0:
            continue
        n_gpus = round(cast(float, count))
        key = (_gpu(str(gpu), memory_gib), _provider(str(provider)), tier, n_gpus)
        prices.setdefault(key, []).append(cast(float, usd) / n_gpus)
    return [
        Offer(gpu, provider, tier, min(found), max(found), day, source, "", n_gpus, day.isoformat())
        for (gpu, provider, tier, n_gpus), found in prices.items()
    ]


def _gpu(name: str, memory_gib: object) -> str:
    """Return the hardware catalog's name of a GPU, or its own with its memory."""
    in_name = _SIZE.search(name)
    size = float(in_name[1]) if in_name else memory_gib
    # SkyPilot's rows of some providers give a thousandth of the size.
    gib = size if isinstance(size, int | float) and size >= 1 else None
    try:
        return hardware.find(name, None if gib is None else round(gib * units.GIB)).name
    except LookupError:
        plain = re.sub(r"[-_]+", " ", name)
        return plain if gib is None or in_name else f"{plain} {gib:.0f}GB"


def _provider(name: str) -> str:
    return _PROVIDERS.get(name.casefold(), name)
