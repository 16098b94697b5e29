"""What renting a GPU costs: hours, starts, rounding, interruptions, storage, traffic, neglect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from guidebook.catalog import clouds
from guidebook.catalog.clouds import Offer, Tier
from guidebook.cost.curves import Curve, Step
from guidebook.cost.use import HOURS_PER_MONTH, Use, check, check_positive

# As far as a curve of terms is drawn.
MOST_MONTHS = 240.0
# So many paid hours for one of work are no plan but a way to spend money.
_HOPELESS = 1000.0


@dataclass(frozen=True)
class Spot:
    """Interruptions of a rented machine, and how work survives them.

    Attributes
    ----------
    interruptions_per_hour
        Mean number in an hour of running: 1 over the mean hours between two of them.
    checkpoint_interval_minutes
        Work between two checkpoints.
    checkpoint_minutes
        Time that writing one takes.
    restart_minutes
        Paid time from getting a new machine to working again: start, download, loading. Waiting
        until there is a machine costs time but no money and is not in it.
    notice_seconds
        Warning before the end. If a checkpoint can be written in that time, no work is lost.
    """

    interruptions_per_hour: float
    checkpoint_interval_minutes: float
    checkpoint_minutes: float = 0.0
    restart_minutes: float = 0.0
    notice_seconds: float = 0.0

    def __post_init__(self) -> None:
        check(
            interruptions_per_hour=self.interruptions_per_hour,
            checkpoint_minutes=self.checkpoint_minutes,
            restart_minutes=self.restart_minutes,
            notice_seconds=self.notice_seconds,
        )
        check_positive(checkpoint_interval_minutes=self.checkpoint_interval_minutes)

    @property
    def saves_on_notice(self) -> bool:
        """Whether a checkpoint can be written between the warning and the end."""
        return self.notice_seconds > 0 and self.notice_seconds >= self.checkpoint_minutes * 60

    def overhead(self) -> float:
        """Return how many hours are paid for an hour of work, from 1 on.

        Interruptions come at random, at the same mean rate all the time. Then Daly's complete
        model holds: ``M / t · exp(R / M) · (exp((t + d) / M) - 1)``, with M the mean time between
        interruptions, t the work between checkpoints, d the time to write one and R the restart.
        For rare interruptions it is 1 + d/t + ((t + d)/2 + R)/M: half an interval is lost. If
        work is saved on notice, an interruption costs the writing and the restart only.

        Source: J. T. Daly 2006, *A higher order estimate of the optimum checkpoint interval for
        restart dumps*, Future Generation Computer Systems 22.

        Raises
        ------
        ValueError
            Interruptions come so often that the work would hardly ever end.
        """
        work = self.checkpoint_interval_minutes / 60
        write = self.checkpoint_minutes / 60
        restart = self.restart_minutes / 60
        rate = self.interruptions_per_hour
        undisturbed = 1 + write / work
        if self.saves_on_notice:
            return undisturbed * (1 + rate * (write + restart))
        cycle = rate * (work + write)
        try:
            again = math.expm1(cycle) / cycle if cycle else 1.0
            factor = undisturbed * again * math.exp(rate * restart)
        except OverflowError:
            factor = math.inf
        if not factor < _HOPELESS:
            raise ValueError(
                f"{rate:g} interruptions an hour leave no time to get from one checkpoint to the "
                "next: write checkpoints more often or rent on demand"
            )
        return factor


def best_interval_minutes(interruptions_per_hour: float, checkpoint_minutes: float) -> float:
    """Return the work between checkpoints that loses the least time, in minutes.

    The first term, √(2·d·M), is Young's; the others are Daly's correction.

    Sources: J. W. Young 1974, *A first order approximation to the optimum checkpoint interval*,
    Communications of the ACM 17; Daly 2006, as above.

    Raises
    ------
    ValueError
        A number is not greater than 0: without interruptions, or with checkpoints that cost
        nothing, there is no best interval.
    """
    check_positive(
        interruptions_per_hour=interruptions_per_hour, checkpoint_minutes=checkpoint_minutes
    )
    between = 60 / interruptions_per_hour
    if checkpoint_minutes >= 2 * between:
        return between
    ratio = checkpoint_minutes / (2 * between)
    first = math.sqrt(2 * checkpoint_minutes * between)
    return first * (1 + math.sqrt(ratio) / 3 + ratio / 9) - checkpoint_minutes


@dataclass(frozen=True)
class Rental:
    """A way to rent.

    Attributes
    ----------
    usd_per_gpu_hour
        Price of one GPU for one hour.
    n_gpus
        GPUs that are rented together.
    tier
        ``reserved`` is paid for its whole term, used or not; the others by the hour.
    speed
        How many times as fast as the reader's own machine the rented one does the work.
    startup_minutes
        Paid time of a session before work begins: start, download, loading.
    billing_seconds, minimum_seconds
        Time is rounded up to the one, and the other is billed at least.
    usd_per_gb_month, usd_per_gb_egress
        Price of storage and of traffic out; None: not known.
    spot
        Interruptions; None: there are none.
    term_months
        Of a reservation.
    """

    usd_per_gpu_hour: float
    n_gpus: int = 1
    tier: Tier = "on-demand"
    speed: float = 1.0
    startup_minutes: float = 0.0
    billing_seconds: float = 1.0
    minimum_seconds: float = 0.0
    usd_per_gb_month: float | None = None
    usd_per_gb_egress: float | None = None
    spot: Spot | None = None
    term_months: float = 0.0

    def __post_init__(self) -> None:
        check(
            usd_per_gpu_hour=self.usd_per_gpu_hour,
            startup_minutes=self.startup_minutes,
            minimum_seconds=self.minimum_seconds,
            usd_per_gb_month=self.usd_per_gb_month or 0.0,
            usd_per_gb_egress=self.usd_per_gb_egress or 0.0,
            term_months=self.term_months,
        )
        check_positive(n_gpus=self.n_gpus, speed=self.speed, billing_seconds=self.billing_seconds)
        if (self.tier == "reserved") != (self.term_months > 0):
            raise ValueError(
                f"a rental of the tier {self.tier} has a term of {self.term_months:g} months: "
                "give term_months with the tier reserved, and with no other"
            )

    @property
    def usd_per_hour(self) -> float:
        """Price of an hour of all GPUs."""
        return self.usd_per_gpu_hour * self.n_gpus


@dataclass(frozen=True)
class Bill:
    """What is paid to a provider, item by item, in US dollars.

    Attributes
    ----------
    work_usd
        Hours that do the work.
    startup_usd, rounding_usd
        Hours before it begins, and those that exist on the bill only.
    interruption_usd
        Checkpoints, work done again and restarts.
    idle_usd
        Hours that nobody switched off, and the unused hours of a reservation.
    storage_usd, egress_usd
        Storage and traffic out.
    work_hours
        Useful hours of the rented machine.
    billed_hours
        Hours on the bill.
    gpu_hours
        Useful hours times the number of GPUs.
    """

    work_usd: float
    startup_usd: float
    rounding_usd: float
    interruption_usd: float
    idle_usd: float
    storage_usd: float
    egress_usd: float
    work_hours: float
    billed_hours: float
    gpu_hours: float

    @property
    def compute_usd(self) -> float:
        """Everything that is paid by the hour."""
        return (
            self.work_usd
            + self.startup_usd
            + self.rounding_usd
            + self.interruption_usd
            + self.idle_usd
        )

    @property
    def total_usd(self) -> float:
        """Everything."""
        return self.compute_usd + self.storage_usd + self.egress_usd

    @property
    def usd_per_gpu_hour(self) -> float | None:
        """Everything, by the useful GPU hour; None if there is none."""
        return self.total_usd / self.gpu_hours if self.gpu_hours else None


def from_offer(
    offer: Offer,
    n_gpus: int = 1,
    *,
    speed: float = 1.0,
    startup_minutes: float = 0.0,
    spot: Spot | None = None,
    term_months: float = 0.0,
    path: Path | str | None = None,
) -> Rental:
    """Return an offer of the catalog as a way to rent, with its provider's terms where known.

    Parameters
    ----------
    offer
        A price; of a range, its middle counts.
    n_gpus
        How many GPUs.
    speed, startup_minutes, spot, term_months
        As for :class:`Rental`. A spot offer without ``spot`` counts as never interrupted.
    path
        The reader's own prices, as for :func:`guidebook.catalog.clouds.history`.

    Raises
    ------
    ValueError
        The offer is for more GPUs.
    """
    if n_gpus < offer.n_gpus:
        raise ValueError(
            f"{offer.provider} rents out {offer.gpu} by {offer.n_gpus}: "
            f"ask for at least as many instead of {n_gpus}"
        )
    found = {item: clouds.term(offer.provider, item, path=path) for item in clouds.ITEMS}
    terms = {item: term.value for item, term in found.items() if term is not None}
    return Rental(
        usd_per_gpu_hour=offer.usd_per_gpu_hour,
        n_gpus=n_gpus,
        tier=offer.tier,
        speed=speed,
        startup_minutes=startup_minutes,
        billing_seconds=terms.get("billing_seconds", 1.0),
        minimum_seconds=terms.get("minimum_seconds", 0.0),
        usd_per_gb_month=terms.get("usd_per_gb_month"),
        usd_per_gb_egress=terms.get("usd_per_gb_egress"),
        spot=spot,
        term_months=term_months,
    )


def bill(rental: Rental, use: Use, months: float) -> Bill:
    """Return what renting costs for some months of use.

    Raises
    ------
    ValueError
        ``months`` is not greater than 0, a price that is needed is not known, or interruptions
        leave no time for work.
    """
    check_positive(months=months)
    return _bill(
        rental,
        sessions=use.sessions_per_month * months,
        hours=use.hours_per_session,
        idle_hours=use.forgotten_hours_per_month * months,
        gb_months=use.storage_gb * months,
        egress_gb=use.egress_gb_per_month * months,
        months=months,
    )


def job(
    rental: Rental,
    hours: float,
    *,
    forgotten_hours: float = 0.0,
    storage_gb: float = 0.0,
    storage_months: float = 0.0,
    egress_gb: float = 0.0,
) -> Bill:
    """Return what one piece of work costs in one session.

    Parameters
    ----------
    rental
        The way to rent. A reservation is paid for as many terms as the hours take.
    hours
        Hours of work on the reader's own machine; with ``speed`` 1, on the rented one.
    forgotten_hours
        Hours until somebody switches it off.
    storage_gb, storage_months, egress_gb
        What is stored, how long, and what is brought home.

    Raises
    ------
    ValueError
        As for :func:`bill`.
    """
    check(
        hours=hours,
        forgotten_hours=forgotten_hours,
        storage_gb=storage_gb,
        storage_months=storage_months,
        egress_gb=egress_gb,
    )
    return _bill(
        rental,
        sessions=1 if hours else 0,
        hours=hours,
        idle_hours=forgotten_hours,
        gb_months=storage_gb * storage_months,
        egress_gb=egress_gb,
    )


def curve(rental: Rental, use: Use, months: float = MOST_MONTHS) -> Curve:
    """Return the cumulative cost of renting over months.

    Parameters
    ----------
    rental, use
        As for :func:`bill`.
    months
        How far the terms of a reservation are paid; without one, the curve is a straight line.

    Raises
    ------
    ValueError
        As for :func:`bill`.
    """
    monthly = bill(rental, use, 1.0)
    if rental.tier != "reserved":
        return Curve(usd_per_month=monthly.total_usd)
    per_term = rental.usd_per_hour * HOURS_PER_MONTH * rental.term_months
    # A term is paid when it begins; one that would begin at the very end is not.
    terms = max(1, math.ceil(months / rental.term_months - 1e-9))
    return Curve(
        usd=per_term,
        usd_per_month=monthly.storage_usd + monthly.egress_usd,
        steps=tuple(Step(number * rental.term_months, per_term) for number in range(1, terms)),
    )


def _bill(
    rental: Rental,
    *,
    sessions: float,
    hours: float,
    idle_hours: float,
    gb_months: float,
    egress_gb: float,
    months: float | None = None,
) -> Bill:
    work = hours / rental.speed
    overhead = rental.spot.overhead() if rental.spot else 1.0
    startup = rental.startup_minutes / 60
    running = startup + work * overhead
    billed = _rounded(rental, running)
    price = rental.usd_per_hour
    work_hours = work * sessions
    billed_hours = billed * sessions + idle_hours
    if rental.tier == "reserved":
        reserved = _reserved_hours(rental, running * sessions, months)
        idle_hours = reserved - running * sessions
        billed_hours, billed = reserved, running
    return Bill(
        work_usd=work_hours * price,
        startup_usd=startup * sessions * price,
        rounding_usd=max(0.0, billed - running) * sessions * price,
        interruption_usd=work_hours * (overhead - 1) * price,
        idle_usd=idle_hours * price,
        storage_usd=_priced(gb_months, rental.usd_per_gb_month, "usd_per_gb_month"),
        egress_usd=_priced(egress_gb, rental.usd_per_gb_egress, "usd_per_gb_egress"),
        work_hours=work_hours,
        billed_hours=billed_hours,
        gpu_hours=work_hours * rental.n_gpus,
    )


def _reserved_hours(rental: Rental, running: float, months: float | None) -> float:
    """Return the hours of all terms that begin within the months, or that the work takes."""
    if months is None:
        months = running / HOURS_PER_MONTH
    if running > months * HOURS_PER_MONTH * (1 + 1e-9):
        raise ValueError(
            f"the work takes {running:,.0f} hours, {months:g} months have "
            f"{months * HOURS_PER_MONTH:,.0f}: reserve more GPUs or rent on demand"
        )
    terms = max(1, math.ceil(months / rental.term_months - 1e-9))
    return terms * rental.term_months * HOURS_PER_MONTH


def _rounded(rental: Rental, hours: float) -> float:
    """Return the hours on the bill of one session."""
    seconds = max(hours * 3600, rental.minimum_seconds)
    # The last digit of a product must not cost a whole unit.
    units = math.ceil(seconds / rental.billing_seconds - 1e-9)
    return max(hours, units * rental.billing_seconds / 3600)


def _priced(amount: float, price: float | None, name: str) -> float:
    if amount == 0:
        return 0.0
    if price is None:
        raise ValueError(f"the rental has no {name}, and {amount:g} GB have to be paid: give one")
    return amount * price
