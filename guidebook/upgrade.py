"""What to buy next: each upgrade of a machine with its price, its gain and its power supply.

Speeds are the planner's. Prices are those of the catalog or the reader's own, each with its date.
What is not known stays ``None``: a price, the draw of a card, the power supply that is there.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from guidebook import plan, planner, units
from guidebook.catalog import hardware, models, prices
from guidebook.catalog.hardware import Device
from guidebook.catalog.prices import Price
from guidebook.plan import Rig, Use
from guidebook.planner import Answer, Case

Kind = Literal["nothing", "ram", "card", "machine"]
End = Literal["tokens_per_second", "low", "high"]

# As fast as most people read.
READING_PACE = 5.0
CHAT = plan.USES[0]
RAM_TARGETS = (64 * units.GIB, 128 * units.GIB)
# The cards that the guide names, and the machines of its other two paths by their price's name.
CARDS = (
    "GeForce RTX 3090",
    "GeForce RTX 4080 SUPER",
    "GeForce RTX 4090",
    "GeForce RTX 5090",
    "RTX A5000",
    "RTX A6000",
)
MACHINES = ("Mac Studio M3 Ultra 96 GB (60c)", "NVIDIA DGX Spark (GB10)")
# Two of these are the usual way to 48 GiB.
PAIRED_CARD = "GeForce RTX 3090"

# A desktop processor's rated power, and board, memory, disks and fans. Meant to be overridden.
CPU_W = 125.0
REST_W = 100.0
# A supply that is loaded to four fifths. With the two figures above it comes within 50 W of the
# hardware catalog's suggestion for every card of 200 to 600 W.
_HEADROOM = 0.25
# Supplies made to ATX 3.0 carry a card's spikes beyond their own rating, older ones need not:
# Intel expects 1,100 W where 750 W of ATX 3.0 do for 300 W of GPU, 300 W of CPU and 150 W of the
# rest (S. Eastman to PCWorld, in TweakTown, 2022-04-22). So the 300 W count as 650 W.
_SPIKE = 650 / 300
_STEP_W = 50
_SUPPLY = re.compile(r"Power supply (\d+) W")

_YEAR = datetime.timedelta(days=365.25)
# A yearly rate from prices that are closer together says more about the market's mood.
_LEAST_SPAN = datetime.timedelta(days=180)


@dataclass(frozen=True)
class Option:
    """One thing to buy.

    Attributes
    ----------
    name
        For tables.
    kind
        ``nothing``: wait; ``ram``: more system memory; ``card``: graphics cards instead of those
        that are there, or one more; ``machine``: a whole new machine.
    rig
        The machine afterwards.
    price
        What the unit price rests on, with its date and source; None if no price is known.
    usd
        Price of all of it, without a power supply; None if no price is known.
    bought_bytes
        The memory that is paid for.
    """

    name: str
    kind: Kind
    rig: Rig
    price: Price | None = None
    usd: float | None = None
    bought_bytes: int = 0


@dataclass(frozen=True)
class PowerSupply:
    """What a machine draws, and the supply that it takes, in watts.

    Attributes
    ----------
    sustained_w
        All at full load at the same time.
    needed_w
        The rating to buy: a quarter more, in steps of 50 W.
    spike_w
        The rating that a supply from before ATX 3.0 needs in order to carry short spikes.
    suggested_w
        What the hardware catalog suggests for such a card; None if it says nothing.
    """

    sustained_w: float
    needed_w: float
    spike_w: float
    suggested_w: float | None = None

    def is_enough(self, psu_w: float) -> bool:
        """Whether a supply of this rating meets both the rule and the catalog's suggestion."""
        return psu_w >= max(self.needed_w, self.suggested_w or 0)


@dataclass(frozen=True)
class Evaluation:
    """What an option brings and costs.

    Attributes
    ----------
    option
        What is bought.
    before, after
        The planner's answer for each wanted model.
    supply
        The power supply it takes; None for a machine that has its own, or an unknown draw.
    supply_usd
        Price of a larger power supply where one is needed, else 0; None if unknown.
    budget_usd
        What there is to spend; None if nobody said.
    """

    option: Option
    before: Mapping[str, Answer]
    after: Mapping[str, Answer]
    supply: PowerSupply | None
    supply_usd: float | None
    budget_usd: float | None = None

    @property
    def total_usd(self) -> float | None:
        """Price with the power supply."""
        if self.option.usd is None or self.supply_usd is None:
            return None
        return self.option.usd + self.supply_usd

    @property
    def affordable(self) -> bool | None:
        """Whether it is within the budget."""
        if self.total_usd is None or self.budget_usd is None:
            return None
        return self.total_usd <= self.budget_usd

    @property
    def usd_per_gib(self) -> float | None:
        """Price of the thing itself per GiB of the memory that is bought."""
        if self.option.usd is None or not self.option.bought_bytes:
            return None
        return self.option.usd / (self.option.bought_bytes / units.GIB)

    def usable(self, end: End = "low", pace: float = READING_PACE) -> tuple[str, ...]:
        """Return the models that run at reading pace: with the low end of the interval, surely."""
        return tuple(name for name, found in self.after.items() if _reaches(found, end, pace))

    def newly_usable(self, end: End = "low", pace: float = READING_PACE) -> tuple[str, ...]:
        """Return the usable models that were not usable before, both judged at the same end."""
        return tuple(
            name for name in self.usable(end, pace) if not _reaches(self.before[name], end, pace)
        )

    def newly_usable_per_1000_usd(
        self, names: Sequence[str], end: End = "low", pace: float = READING_PACE
    ) -> float | None:
        """Return how many of these models 1,000 USD make usable; None without a price."""
        if not self.total_usd:
            return None
        gained = sum(name in names for name in self.newly_usable(end, pace))
        return 1000 * gained / self.total_usd

    def usd_per_speed(self, name: str) -> float | None:
        """Return the price of the thing itself per added token/s; None if nothing is added."""
        after = self.after[name].tokens_per_second
        before = self.before[name].tokens_per_second or 0.0
        if self.option.usd is None or after is None or after <= 1.01 * before:
            return None
        return self.option.usd / (after - before)


def options(
    rig: Rig,
    memory: str = "DDR5",
    *,
    takes_cards: bool = True,
    price_file: Path | str | None = None,
) -> tuple[Option, ...]:
    """List what can be bought for a machine, beginning with nothing.

    Parameters
    ----------
    rig
        The machine as it is.
    memory
        The kind of its memory modules, as the price list calls them: ``DDR4``, ``DDR5``,
        ``DDR4 SO-DIMM``.
    takes_cards
        Whether it has a slot and room for a graphics card; a laptop and a virtual machine don't.
    price_file
        The reader's own prices, as for :func:`guidebook.catalog.prices.load`.
    """
    found = [Option("nothing: wait", "nothing", rig, usd=0.0)]
    found += _memory(rig, memory, price_file)
    if takes_cards and rig.device.kind != "unified":
        found += _cards(rig, price_file)
    found += _machines(rig, price_file)
    return tuple(found)


def evaluate(
    rig: Rig,
    candidates: Sequence[Option],
    wanted: Sequence[str],
    *,
    budget_usd: float | None = None,
    psu_w: float | None = None,
    use: Use = CHAT,
    price_file: Path | str | None = None,
) -> tuple[Evaluation, ...]:
    """Work out for each option what it brings and what it costs.

    Parameters
    ----------
    rig
        The machine as it is.
    candidates
        From :func:`options`, or the reader's own.
    wanted
        Names of the model catalog. Each is taken in 4 bits.
    budget_usd
        What there is to spend.
    psu_w
        Rating of the power supply that is there; None: unknown.
    use
        Context, and depth at which the speed counts.
    price_file
        The reader's own prices.

    Raises
    ------
    LookupError
        The catalog has no such model.
    ValueError
        No model is wanted, or a figure is negative.
    """
    if not wanted:
        raise ValueError("No model is wanted. Name at least one, such as 'llama-3-8b'.")
    for name, value in (("budget_usd", budget_usd), ("psu_w", psu_w)):
        if value is not None and value < 0:
            raise ValueError(f"{name} is {value:g}. Give 0 or more, or None for unknown.")
    before = {name: answer(rig, name, use) for name in wanted}
    evaluations = []
    for option in candidates:
        changed = option.kind in ("card", "machine")
        supply = power_supply(option.rig.device, option.rig.n_devices)
        evaluations.append(
            Evaluation(
                option,
                before,
                {name: answer(option.rig, name, use) for name in wanted},
                supply,
                _supply_usd(option, supply, psu_w, price_file) if changed else 0.0,
                budget_usd,
            )
        )
    return tuple(evaluations)


def answer(rig: Rig, name: str, use: Use = CHAT) -> Answer:
    """Answer for a model of the catalog in the file type that most people run (4 bits).

    Raises
    ------
    LookupError
        The catalog has no such model.
    """
    model = models.find(name)
    quant = planner.usual_quants(model.architecture)[-1]
    context = min(use.context, model.architecture.context_length)
    depth = min(use.depth, context // 2)
    return rig.answer(model, Case(rig.device.name, name, quant, depth=depth, context=context))


def cheapest(evaluations: Sequence[Evaluation], name: str) -> Evaluation | None:
    """Return the option of the lowest known total that makes a model usable, if any does."""
    enough = [
        found for found in evaluations if found.total_usd is not None and name in found.usable()
    ]
    return min(enough, key=lambda found: found.total_usd or 0.0, default=None)


def power_supply(
    device: Device, n_devices: int = 1, *, cpu_w: float = CPU_W, rest_w: float = REST_W
) -> PowerSupply | None:
    """Return the power supply for a machine with these devices.

    Parameters
    ----------
    device, n_devices
        The graphics cards; RAM stands for a machine without one.
    cpu_w, rest_w
        What the processor draws at full load, and what everything else does.

    Returns
    -------
    PowerSupply or None
        None for a machine with unified memory, which brings its own, and for a card whose draw
        the catalog does not know.

    Raises
    ------
    ValueError
        A figure is negative.
    """
    if min(n_devices, cpu_w, rest_w) < 0:
        raise ValueError("A power supply is worked out from figures of 0 or more.")
    if device.kind == "unified":
        return None
    card_w = 0.0 if device.kind == "ram" else device.tdp_w
    if card_w is None:
        return None
    cards_w = n_devices * card_w
    sustained = cards_w + cpu_w + rest_w
    needed = sustained * (1 + _HEADROOM)
    suggested = None if device.psu_w is None else device.psu_w + (n_devices - 1) * card_w
    return PowerSupply(
        sustained,
        math.ceil(round(needed / _STEP_W, 6)) * _STEP_W,
        cards_w * _SPIKE + cpu_w + rest_w,
        suggested,
    )


def depreciation(history: Sequence[Price]) -> float | None:
    """Return the share of its value that a thing loses in a year; negative: it gains.

    It is the constant yearly rate that leads from the oldest price to the newest one.

    Returns
    -------
    float or None
        None with fewer than two prices, or with less than half a year between them.
    """
    if len(history) < 2:
        return None
    first = min(history, key=lambda price: price.as_of)
    last = max(history, key=lambda price: price.as_of)
    span = last.as_of - first.as_of
    if span < _LEAST_SPAN:
        return None
    return 1 - math.pow(last.usd / first.usd, _YEAR / span)


def around(
    history: Sequence[Price], day: datetime.date, within_days: int = 180
) -> tuple[Price, Price] | None:
    """Return the prices next to a day, one before it and one from it on.

    Parameters
    ----------
    history
        Prices of one thing and of one kind.
    day
        The event, for example the launch of a new generation.
    within_days
        How far from it a price still says something about it.

    Returns
    -------
    tuple of Price, or None
        None if either is missing.
    """
    limit = datetime.timedelta(days=within_days)
    before = [price for price in history if day - limit <= price.as_of < day]
    after = [price for price in history if day <= price.as_of <= day + limit]
    if not before or not after:
        return None
    return (
        max(before, key=lambda price: price.as_of),
        min(after, key=lambda price: price.as_of),
    )


def price_of(name: str, price_file: Path | str | None = None) -> Price | None:
    """Return what a thing costs: the reader's own price, else used, else new, else at launch."""
    known = prices.history(name, path=price_file)
    own = [price for price in known if price.is_own]
    if own:
        return own[-1]
    for kind in ("used", "street", "launch"):
        latest = [price for price in known if price.kind == kind]
        if latest:
            return latest[-1]
    return None


def show_speed(found: Answer) -> str:
    """Write a predicted speed with its interval: ``35 (31 to 38)``, in tokens/s."""
    if found.tokens_per_second is None:
        return "does not run"
    speed, low, high = (
        units.number(end, 2) for end in (found.tokens_per_second, found.low, found.high)
    )
    return f"{speed} ({low} to {high})"


def show_gain(found: Evaluation) -> str:
    """Name the models that become usable, and those of which the interval leaves it open."""
    sure = found.newly_usable()
    likely = found.newly_usable("tokens_per_second")
    open_ones = [f"perhaps {name}" for name in likely if name not in sure]
    return ", ".join([*sure, *open_ones]) or "–"


def _memory(rig: Rig, memory: str, price_file: Path | str | None) -> Iterator[Option]:
    if rig.ram_bytes is None or rig.device.kind == "unified":
        return
    # Firmware and graphics keep a little: 31.2 GiB are two modules of 16.
    present = 4 * units.GIB * math.ceil(rig.ram_bytes / (4 * units.GIB))
    known = prices.usd_per_gib(memory, path=price_file)
    for target in RAM_TARGETS:
        if target <= present:
            continue
        # As many modules again go into the free slots of a desktop board; more than that means
        # larger modules instead of those that are there.
        bought = target - present if target <= 2 * present else target
        device = rig.device
        if device.kind == "ram":
            device = replace(device, memory_bytes=target)
        yield Option(
            f"RAM to {target // units.GIB} GiB",
            "ram",
            replace(rig, device=device, ram_bytes=target),
            known[1] if known else None,
            known[0] * bought / units.GIB if known else None,
            bought,
        )


def _cards(rig: Rig, price_file: Path | str | None) -> Iterator[Option]:
    present = 0
    if rig.device.kind == "discrete":
        present = (rig.device.memory_bytes or 0) * rig.n_devices
        more = _bought(rig, rig.device, rig.n_devices + 1, 1, price_file)
        yield replace(more, name=f"one more {_short(rig.device.name)}")
    for name in CARDS:
        yield from _replacing(rig, hardware.find(name), 1, present, price_file)
    if rig.device.name != PAIRED_CARD:
        yield from _replacing(rig, hardware.find(PAIRED_CARD), 2, present, price_file)


def _replacing(
    rig: Rig, device: Device, count: int, present: int, price_file: Path | str | None
) -> Iterator[Option]:
    if (device.memory_bytes or 0) * count > present:
        yield _bought(rig, device, count, count, price_file)


def _bought(
    rig: Rig, device: Device, count: int, bought: int, price_file: Path | str | None
) -> Option:
    price = price_of(device.name, price_file)
    number = f"{bought} × " if bought > 1 else ""
    return Option(
        f"{number}{_short(device.name)}",
        "card",
        replace(rig, device=device, n_devices=count),
        price,
        price.usd * bought if price else None,
        (device.memory_bytes or 0) * bought,
    )


def _machines(rig: Rig, price_file: Path | str | None) -> Iterator[Option]:
    for name in MACHINES:
        price = price_of(name, price_file)
        device = hardware.find(name)
        yield Option(
            re.sub(r" \([^)]*\)", "", name).removeprefix("NVIDIA "),
            "machine",
            replace(rig, device=device, n_devices=1),
            price,
            price.usd if price else None,
            device.memory_bytes or 0,
        )


def _supply_usd(
    option: Option,
    supply: PowerSupply | None,
    psu_w: float | None,
    price_file: Path | str | None,
) -> float | None:
    """Return what a larger supply costs: 0 where none is needed, None where nobody knows."""
    if option.kind == "machine":
        return 0.0
    if supply is None or psu_w is None:
        return None
    if supply.is_enough(psu_w):
        return 0.0
    known = {}
    for price in prices.load(price_file):
        rating = _SUPPLY.fullmatch(price.device)
        if rating and supply.is_enough(float(rating[1])):
            known[price.device] = price.usd
    return min(known.values(), default=None)


def _short(name: str) -> str:
    return name.removeprefix("GeForce ")


def _reaches(found: Answer, end: End, pace: float) -> bool:
    ends = {"tokens_per_second": found.tokens_per_second, "low": found.low, "high": found.high}
    speed = ends[end]
    return speed is not None and speed >= pace
