"""The two places to work, here and on rented GPUs, and what a workload takes in each."""

from __future__ import annotations

import datetime
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guidebook import planner, training, upgrade, weights
from guidebook.catalog import clouds, hardware, models
from guidebook.catalog.clouds import Offer, Tier
from guidebook.catalog.hardware import Device
from guidebook.cost import renting
from guidebook.cost.use import HOURS_PER_MONTH
from guidebook.decide.durations import Span, exactly, is_linked, training_hours
from guidebook.decide.workloads import Workload
from guidebook.planner import Answer, Case

if TYPE_CHECKING:
    from guidebook.plan import Rig

# Residential price in the USA (EIA, Electric Power Monthly, table 5.6.A, as of April 2026).
USD_PER_KWH = 0.187
# A desktop that waits for work. An assumption, meant to be overridden by a measured figure.
IDLE_W = 60.0
# Power failed for 5.5 hours in 2022 for the average customer in the USA (EIA, Annual Electric
# Power Industry Report); the rest, for the connection, updates and repairs, is an assumption.
HOURS_DOWN_PER_YEAR = 40.0
# Upload speed of a home connection; an assumption.
UPLINK_MBPS = 20.0
# From renting a machine to working on it: start, download, loading. An assumption.
STARTUP_MINUTES = 10.0
# Development comes in sessions, each a rental of its own.
_SESSION_HOURS = 2.0
# What AWS commits itself to for one machine (Amazon Compute Service Level Agreement); a service
# that must answer more of the time runs several times over, in places that fail apart.
RENTED_AVAILABILITY = 0.995
_MOST_COPIES = 4
# What one machine of the large clouds holds; more need several.
GPUS_PER_NODE = 8
_COUNTS = (1, 2, 4, 8)
_MOST_NODES = 64
# RAM of rented machines is not the limit: they come with more of it than of GPU memory.
_RENTED_RAM_BYTES = 1 << 41


@dataclass(frozen=True)
class Terms:
    """What the reader pays and has, besides the machine.

    Attributes
    ----------
    offers
        GPUs to rent, such as :func:`listed` returns; none: there is nothing to rent.
    usd_per_kwh
        Price of electricity.
    load_w, idle_w
        What the machine draws at work and while it waits; ``load_w`` None: rated powers.
    hours_down_per_year
        Hours in which the machine does not answer: power, connection, updates.
    uplink_mbps
        Upload speed, in 10⁶ bits a second.
    startup_minutes
        Paid time of a rented machine before work begins, in each session.
    n_machines
        Machines like this one that can compute together.
    """

    offers: tuple[Offer, ...] = ()
    usd_per_kwh: float = USD_PER_KWH
    load_w: float | None = None
    idle_w: float = IDLE_W
    hours_down_per_year: float = HOURS_DOWN_PER_YEAR
    uplink_mbps: float = UPLINK_MBPS
    startup_minutes: float = STARTUP_MINUTES
    n_machines: int = 1

    def __post_init__(self) -> None:
        for name in ("usd_per_kwh", "idle_w", "hours_down_per_year", "startup_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name):g}. Give 0 or more.")
        if self.load_w is not None and not 0 <= self.load_w < math.inf:
            raise ValueError(f"load_w is {self.load_w:g}. Give 0 or more, or None for rated.")
        if not 0 < self.uplink_mbps < math.inf or self.n_machines < 1:
            raise ValueError("Give an uplink_mbps above 0 and at least one machine.")

    def priced(self, factor: float) -> Terms:
        """Return the same terms with every price of rent multiplied."""
        offers = tuple(
            replace(
                offer,
                usd_per_gpu_hour_low=offer.usd_per_gpu_hour_low * factor,
                usd_per_gpu_hour_high=offer.usd_per_gpu_hour_high * factor,
            )
            for offer in self.offers
        )
        return replace(self, offers=offers)


@dataclass(frozen=True)
class Needs:
    """What a workload takes on one machine; None is unknown, or no matter.

    Attributes
    ----------
    needed_bytes
        Memory of all devices together; None without a model.
    fits, runs
        All of it lies on the devices; it runs at all.
    speed
        Tokens/s that each user gets, with a 90 % interval; of inference.
    first_token_s
        Seconds until the first token, with a 90 % interval.
    hours
        Of one run.
    """

    needed_bytes: int | None
    fits: bool
    runs: bool
    speed: Span | None = None
    first_token_s: Span | None = None
    hours: Span | None = None

    def meets(self, workload: Workload) -> bool:
        """Whether speed, first token and deadline are likely met, by the middle figures."""
        if not self.runs:
            return False
        wanted = workload.first_token_s
        deadline = workload.deadline_hours
        return (
            (self.speed is None or self.speed.mid >= workload.least_speed)
            and (self.first_token_s is None or not wanted or self.first_token_s.mid <= wanted)
            and (self.hours is None or not deadline or self.hours.mid <= deadline)
        )


@dataclass(frozen=True)
class Here:
    """The reader's machine with a workload.

    Attributes
    ----------
    device, n_devices, ram_bytes
        What computes, and the system memory.
    room_bytes
        What a model may take on the devices.
    needs, trial
        Of the run, and of one step of its development.
    usd_per_month, development_usd
        Electricity of the run and of development, per month.
    """

    device: Device
    n_devices: int
    ram_bytes: int | None
    room_bytes: int
    needs: Needs
    trial: Needs
    usd_per_month: float
    development_usd: float


@dataclass(frozen=True)
class There:
    """The rented GPUs that do a workload for the least money.

    Attributes
    ----------
    offer, n_gpus, n_copies
        What is rented: so many GPUs for one copy, and copies, more than one for a service that
        one rented machine would interrupt too often.
    needs
        Of the run.
    meets
        Whether speed, first token and deadline are likely met.
    usd_per_month
        Price of the run, per month.
    development_usd
        Price of developing on the cheapest GPU that runs its trials, per month; None: none does.
    """

    offer: Offer
    n_gpus: int
    n_copies: int
    needs: Needs
    meets: bool
    usd_per_month: float
    development_usd: float | None

    @property
    def n_nodes(self) -> int:
        """Machines that these GPUs are in."""
        return math.ceil(self.n_gpus / GPUS_PER_NODE)


@dataclass(frozen=True)
class Facts:
    """All that the rules look at."""

    workload: Workload
    terms: Terms
    here: Here
    there: There | None


def listed(
    tier: Tier = "on-demand",
    *,
    today: datetime.date | None = None,
    path: Path | str | None = None,
) -> tuple[Offer, ...]:
    """Return the offers of the price list whose GPU the hardware catalog knows.

    Parameters
    ----------
    tier
        One tier. Prices of ``spot`` do not count the work that is lost.
    today
        Leaves out the stale prices of GPUs that have fresh ones; None: all count.
    path
        The reader's own prices, as for :func:`guidebook.catalog.clouds.history`.

    Raises
    ------
    ValueError
        There is no such tier, or the reader's file is not well-formed.
    """
    found = [o for o in clouds.offers(tier=tier, path=path) if o.device is not None]
    if today is None:
        return tuple(found)
    fresh = {offer.gpu for offer in found if not offer.is_stale(today)}
    return tuple(o for o in found if o.gpu not in fresh or not o.is_stale(today))


def facts(workload: Workload, rig: Rig, terms: Terms) -> Facts:
    """Work out what a workload takes on a machine and on rented GPUs.

    Parameters
    ----------
    workload
        What is to be done.
    rig
        The reader's machine, as :func:`guidebook.plan.rig` makes it.
    terms
        Prices and circumstances.

    Raises
    ------
    LookupError
        The catalogs have no such model, file type or GPU.
    ValueError
        A setting is out of range.
    """
    return Facts(workload, terms, _here(workload, rig, terms), _there(workload, terms))


def needs_of(
    workload: Workload, device: Device, n_devices: int, ram: Device, ram_bytes: int | None
) -> Needs:
    """Return what a workload takes on a machine.

    Parameters
    ----------
    workload
        What is to be done.
    device, n_devices
        What computes.
    ram, ram_bytes
        Where layers go that the devices have no room for; of training, nothing goes there.

    Raises
    ------
    LookupError, ValueError
        As :func:`facts`.
    """
    if workload.is_training:
        return _training(workload, device, n_devices)
    hours = exactly(workload.hours) if workload.hours else None
    if not workload.model:
        return Needs(None, True, True, hours=hours)
    found = _inference(workload, device, n_devices, ram, ram_bytes)
    if workload.kind == "pipeline" and found.speed is not None:
        whole = found.speed * workload.users
        seconds = Span(*(workload.tokens / speed for speed in (whole.high, whole.mid, whole.low)))
        return replace(found, hours=seconds * (1 / 3600))
    return replace(found, hours=hours)


def trial_of(workload: Workload) -> Workload:
    """Return what one step of development runs: the trial model, for one user."""
    model = workload.trial_model or workload.model
    return replace(workload, model=model, users=1, n_gpus=None, n_nodes=1)


def room_bytes(device: Device, n_devices: int) -> int:
    """Return what a model may take on devices without a screen."""
    return planner.place_of(device).usable_bytes * n_devices


def load_w(device: Device, n_devices: int) -> float:
    """Return what a machine draws at full load by its rated powers, in watts."""
    if device.kind == "discrete":
        # Where the catalog knows no draw: a card of the middle class.
        cards = n_devices * (device.tdp_w or 200.0)
        return cards + upgrade.CPU_W + upgrade.REST_W
    if device.kind == "unified":
        return n_devices * (device.tdp_w or upgrade.CPU_W)
    return upgrade.CPU_W + upgrade.REST_W


def copies(availability: float) -> int:
    """Return how many rented machines, failing apart, answer for this share of the time."""
    if availability <= RENTED_AVAILABILITY:
        return 1
    if availability >= 1:
        return _MOST_COPIES
    needed = math.log(1 - availability) / math.log(1 - RENTED_AVAILABILITY)
    return min(_MOST_COPIES, math.ceil(round(needed, 9)))


def busy_hours(workload: Workload, needs: Needs) -> Span | None:
    """Return the hours per month in which a workload occupies a machine; None if it cannot run."""
    if not needs.runs:
        return None
    if workload.kind == "service":
        return exactly(HOURS_PER_MONTH)
    return (needs.hours or exactly(0.0)) * workload.runs_per_month


def _here(workload: Workload, rig: Rig, terms: Terms) -> Here:
    device = rig.device
    if device.kind == "ram" and device.memory_bytes is None:
        device = replace(device, memory_bytes=rig.ram_bytes)

    def on_rig(what: Workload) -> Needs:
        return _needs(_essence(what), device, rig.n_devices, rig.ram, rig.ram_bytes)

    needs = on_rig(workload)
    trial = on_rig(trial_of(workload))
    watts = load_w(device, rig.n_devices) if terms.load_w is None else terms.load_w
    per_hour = watts / 1000 * terms.usd_per_kwh
    hours = busy_hours(workload, needs)
    usd = (hours.mid if hours else 0.0) * per_hour
    if workload.kind == "pipeline" and hours is not None:
        # It waits for changes around the clock.
        waiting = max(0.0, HOURS_PER_MONTH - hours.mid)
        usd += waiting * terms.idle_w / 1000 * terms.usd_per_kwh
    return Here(
        device,
        rig.n_devices,
        rig.ram_bytes,
        room_bytes(device, rig.n_devices),
        needs,
        trial,
        usd,
        workload.development_hours * per_hour,
    )


def _there(workload: Workload, terms: Terms) -> There | None:
    """Choose the cheapest GPUs that meet the demands, or else the cheapest that run it at all."""
    essence, trial = _essence(workload), _essence(trial_of(workload))
    offers = list(_cheapest_each(workload, terms))
    development = [
        _rent(offer, offer.n_gpus, _SESSION_HOURS, terms)
        * (workload.development_hours / _SESSION_HOURS)
        for offer in offers
        if _rented_needs(trial, offer.gpu, offer.n_gpus).runs
    ]
    found = [
        There(
            offer,
            count,
            copies(workload.availability),
            needs,
            needs.meets(workload),
            _rent_per_month(workload, offer, count * copies(workload.availability), hours, terms),
            min(development, default=None),
        )
        for offer in offers
        for count in [_count(workload, essence, offer.gpu, offer.n_gpus)]
        if count
        for needs in [_rented_needs(essence, offer.gpu, count)]
        for hours in [busy_hours(workload, needs)]
        if hours is not None
    ]
    return min(found, key=lambda one: (not one.meets, one.usd_per_month), default=None)


def _rent_per_month(
    workload: Workload, offer: Offer, n_gpus: int, hours: Span, terms: Terms
) -> float:
    """Return the rent of a month: of one session for a service, else of one for each run."""
    sessions = 1.0 if workload.kind == "service" else workload.runs_per_month
    return sessions * _rent(offer, n_gpus, hours.mid / sessions, terms) if sessions else 0.0


def _rent(offer: Offer, n_gpus: int, hours: float, terms: Terms) -> float:
    rental = renting.Rental(offer.usd_per_gpu_hour, n_gpus, startup_minutes=terms.startup_minutes)
    return renting.job(rental, hours).total_usd


def _cheapest_each(workload: Workload, terms: Terms) -> Iterator[Offer]:
    """Yield the lowest price of each GPU that the software runs on, by the number to rent."""

    def kind(offer: Offer) -> tuple[str, int]:
        return offer.gpu, offer.n_gpus

    ordered = sorted(terms.offers, key=lambda offer: (*kind(offer), offer.usd_per_gpu_hour))
    for (gpu, _), offers in itertools.groupby(ordered, key=kind):
        device = hardware.find(gpu)
        is_cuda = device.backend == "CUDA" or not workload.needs_cuda
        if is_cuda and (device.compute_capability or 0.0) >= workload.least_compute_capability:
            yield next(offers)


def _count(workload: Workload, essence: Workload, gpu: str, least: int) -> int:
    """Return the fewest GPUs that meet the demands, or else that run it; 0: no number does."""
    if workload.n_gpus:
        counts: tuple[int, ...] = (workload.n_gpus,)
    else:
        counts = (*_COUNTS, *(GPUS_PER_NODE * nodes for nodes in range(2, _MOST_NODES + 1)))
    # Training over several machines takes links between the cards first of all.
    spreads = workload.is_training and is_linked(hardware.find(gpu))
    most = GPUS_PER_NODE * (_MOST_NODES if spreads else 1)
    least = max(least, 1 + GPUS_PER_NODE * (workload.n_nodes - 1))
    enough = 0
    for count in counts:
        if least <= count <= most:
            needs = _rented_needs(essence, gpu, count)
            if needs.meets(workload):
                return count
            enough = enough or (count if needs.runs else 0)
    return enough


def _essence(workload: Workload) -> Workload:
    """Return what a workload takes follows from, without what only changes price or demands."""
    return Workload(
        "",
        workload.kind,
        workload.model,
        workload.quant,
        workload.context,
        workload.depth,
        workload.n_prompt,
        workload.method,
        workload.optimizer,
        workload.sequence,
        workload.batch,
        workload.tokens,
        workload.hours,
        users=workload.users,
    )


# What would change an answer asks for the same work on the same machine again and again.
_needs = functools.lru_cache(maxsize=4096)(needs_of)


@functools.lru_cache(maxsize=8192)
def _rented_needs(essence: Workload, gpu: str, count: int) -> Needs:
    ram = hardware.find(planner.DEFAULT_RAM)
    return needs_of(essence, hardware.find(gpu), count, ram, _RENTED_RAM_BYTES)


def _training(workload: Workload, device: Device, n_devices: int) -> Needs:
    model = models.find(workload.model)
    needed = training.training(
        model.architecture,
        model.n_weights,
        method=workload.method,
        n_tokens=workload.sequence,
        batch=workload.batch,
        optimizer=workload.optimizer,
        # Everything is sharded, as FSDP does.
        zero_stage=3 if n_devices > 1 else 0,
        n_devices=n_devices,
    )
    total = needed.total_bytes * n_devices
    fits = total <= room_bytes(device, n_devices)
    hours = training_hours(model, workload.method, workload.tokens, device, n_devices)
    return Needs(total, fits, fits, hours=hours if fits else None)


def _inference(
    workload: Workload, device: Device, n_devices: int, ram: Device, ram_bytes: int | None
) -> Needs:
    shape = models.find(workload.model).architecture
    account = weights.account(shape, workload.quant or planner.usual_quants(shape)[-1])
    # Users share the weights; each has a context of their own, read at every step.
    case = Case(
        device.name,
        workload.model,
        workload.quant or planner.usual_quants(shape)[-1],
        n_devices=n_devices,
        depth=workload.depth * workload.users,
        context=max(workload.context, workload.n_prompt) * workload.users,
    )
    reading = replace(case, depth=0, n_prompt=workload.n_prompt, n_generate=0)
    writes = planner.predict(device, shape, account, case, ram, ram_bytes)
    reads = planner.predict(device, shape, account, reading, ram, ram_bytes)
    runs = writes.tokens_per_second is not None
    return Needs(
        writes.total_bytes,
        bool(writes.fits),
        runs,
        _shared_speed(writes, reads, workload.users) if runs else None,
        _first_token(writes, reads, workload.n_prompt) if runs else None,
    )


def _shared_speed(writes: Answer, reads: Answer, users: int) -> Span:
    """Return tokens/s for each of several users.

    One step reads the weights once and writes a token for each. What computing the further tokens
    takes is counted at the speed of reading a prompt, which is bound by computing: an upper limit,
    so the speed errs on the slow side.
    """
    return Span(
        *(
            1 / (1 / write + (users - 1) / read)
            for write, read in zip(_ends(writes), _ends(reads), strict=True)
        )
    )


def _first_token(writes: Answer, reads: Answer, n_prompt: int) -> Span:
    """Return seconds for reading a prompt and writing one token; the shortest first."""
    low, mid, high = (
        n_prompt / read + 1 / write for write, read in zip(_ends(writes), _ends(reads), strict=True)
    )
    return Span(high, mid, low)


def _ends(found: Answer) -> tuple[float, float, float]:
    return found.low or 0.0, found.tokens_per_second or 0.0, found.high or 0.0
