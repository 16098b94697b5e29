"""When to rent instead of working here or buying: the trigger, in hours, price and model size.

It asks :mod:`guidebook.decide` for the guide's kinds of work, and :mod:`guidebook.cost` for what
could be bought. Rented GPUs are the cheapest of the price list that do the job.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guidebook import decide, units, upgrade
from guidebook.advice import Advice
from guidebook.catalog import models as catalog
from guidebook.cost import depreciation, ownership, renting
from guidebook.cost.break_even import Comparison
from guidebook.cost.ownership import Conditions, Purchase
from guidebook.cost.renting import Rental
from guidebook.cost.use import HOURS_PER_WEEK, WEEKS_PER_MONTH, Use
from guidebook.decide import Decision, Workload, sides
from guidebook.decide.rules import NIGHT_HOURS
from guidebook.decide.sides import Terms, There
from guidebook.training import Method

if TYPE_CHECKING:
    from guidebook.plan import Rig
    from guidebook.upgrade import Evaluation

# A small set of examples for fine-tuning, as the ready-made QLoRA has.
TUNING_TOKENS = 5e6
_SESSION_HOURS = 2.0
_NAMED = 3
_METHODS: dict[Method, str] = {"qlora": "QLoRA", "lora": "LoRA", "full": "all weights"}
# A question about the reader's data, not about a figure of this machine.
_NOT_A_TRIGGER = "sensitive data"


@dataclass(frozen=True)
class Habits:
    """How much the reader computes, and what electricity costs.

    Attributes
    ----------
    hours_per_week
        Hours in which a model is used.
    months
        After which a purchase is sold, and should have paid for itself.
    usd_per_kwh
        Price of electricity.
    price_file
        The reader's own rental prices; None: as ``GUIDEBOOK_CLOUD_PRICES`` says.
    """

    hours_per_week: float = 10.0
    months: float = 24.0
    usd_per_kwh: float = sides.USD_PER_KWH
    price_file: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.hours_per_week <= 168:
            raise ValueError(
                f"hours_per_week is {self.hours_per_week:g}. Give more than 0 and at most 168."
            )
        if not 0 < self.months <= 120:
            raise ValueError(f"months is {self.months:g}. Give more than 0 and at most 120.")


def advise(
    rig: Rig,
    wanted: Sequence[str],
    purchases: Sequence[Evaluation] = (),
    habits: Habits | None = None,
    *,
    today: datetime.date | None = None,
) -> tuple[Advice, ...]:
    """Say when to rent.

    Parameters
    ----------
    rig
        The machine as it is.
    wanted
        Models of the catalog to use, each taken in 4 bits.
    purchases
        What could be bought instead, the best first.
    habits
        Hours, and price of electricity.
    today
        Leaves out stale rental prices of GPUs that have fresh ones; None: all count.

    Raises
    ------
    LookupError
        The catalog has no such model.
    ValueError
        The reader's price list is not well-formed.
    """
    habits = habits or Habits()
    terms = Terms(sides.listed(today=today, path=habits.price_file), usd_per_kwh=habits.usd_per_kwh)
    decisions = [decide.decide(one, rig, terms, with_changes=False) for one in decide.READY_MADE]
    return (
        _rent_for(decisions, rig, terms),
        *(
            advice
            for one in purchases
            if one.newly_usable()
            for advice in _or_buy(one, habits, terms)
        ),
        *_models(rig, wanted, habits, terms),
        training_reach(rig),
        _stay_for(decisions),
    )


def comparison(found: Evaluation, habits: Habits, terms: Terms) -> tuple[Comparison, There] | None:
    """Set a purchase against renting for the models that it makes usable.

    Parameters
    ----------
    found
        What could be bought.
    habits, terms
        Hours and prices.

    Returns
    -------
    The comparison, and the rented GPUs that do for the most demanding of the models; None if the
    purchase has no price, makes nothing usable, or nothing on the price list would do.
    """
    rented = [_rented(name, found.option.rig, habits, terms) for name in found.newly_usable()]
    there = [one for one in rented if one is not None and one.meets]
    price = found.option.usd if found.total_usd is None else found.total_usd
    if price is None or not there or len(there) < len(rented):
        return None
    dearest = max(there, key=lambda one: one.offer.usd_per_gpu_hour * one.n_gpus)
    device, count = found.option.rig.device, found.option.rig.n_devices
    is_used = found.option.price is not None and found.option.price.kind == "used"
    return (
        Comparison(
            Purchase(
                price,
                sides.load_w(device, count),
                depreciation=depreciation.USED_CARD if is_used else depreciation.NEW_CARD,
                name=found.option.name,
            ),
            Rental(
                dearest.offer.usd_per_gpu_hour,
                dearest.n_gpus,
                startup_minutes=terms.startup_minutes,
            ),
            Use(habits.hours_per_week, hours_per_session=_SESSION_HOURS),
            Conditions(habits.usd_per_kwh),
        ),
        dearest,
    )


def training_reach(rig: Rig) -> Advice:
    """Say up to which size models can be trained here, by method.

    Trained here means that it fits, and that five million tokens are done within a night.
    """
    found = {words: _largest(rig, method) for method, words in _METHODS.items()}
    reached = [f"{words} up to {best[0]}" for words, best in found.items() if best]
    here = f"Train here: {'; '.join(reached)}. Rent beyond that"
    return Advice(
        here if reached else "Rent to train: nothing trains here within a night",
        (
            *(
                f"{words}: {best[0]} takes {units.memory(best[1])} and {_hours(best[2])} for "
                f"{TUNING_TOKENS / 1e6:g} million tokens."
                if best
                else f"{words}: no model of the catalog fits and is done within a night."
                for words, best in found.items()
            ),
            f"Counted as trained here: it fits, and is likely done within {NIGHT_HOURS:g} hours.",
        ),
    )


# --- Jobs -------------------------------------------------------------------------------------


def _rent_for(decisions: Sequence[Decision], rig: Rig, terms: Terms) -> Advice:
    chosen = [one for one in decisions if one.best != "local" and one.facts.there is not None]
    if not chosen:
        return Advice("Rent for none of the guide's kinds of work: all of them are best done here")
    return Advice(
        f"Rent for: {_names(chosen)}",
        tuple(_job(one.facts.workload, rig, terms) for one in chosen),
    )


# What would change an answer takes hundreds of decisions; a plan is often made again.
@functools.lru_cache(maxsize=256)
def _job(work: Workload, rig: Rig, terms: Terms) -> str:
    decision = decide.decide(work, rig, terms)
    there = decision.facts.there
    how = {
        "hybrid": "develop here, run it rented",
        "cloud": "all of it rented",
        None: "cannot be done as it stands",
    }[decision.best if decision.best != "local" else None]
    parts = [f"{work.name}: {how}.", _because(decision)]
    if there is not None:
        parts.append(f"Rent: {_offer(there)}; {_usd(there.usd_per_month)} a month at this use.")
    turns = [
        change.text
        for change in decision.changes
        if change.becomes is not None and change.figure != _NOT_A_TRIGGER
    ]
    if turns:
        parts.append(f"Otherwise {', or '.join(turns[:2])}.")
    return " ".join(part for part in parts if part)


def _because(decision: Decision) -> str:
    local = next(one for one in decision.ranked if one.option == "local")
    against = [*local.bars, *decision.ranked[0].reasons]
    said = [reason.text for reason in against if reason.phase == "run"]
    return said[0] if said else ""


def _stay_for(decisions: Sequence[Decision]) -> Advice:
    chosen = [one for one in decisions if one.best == "local"]
    why = []
    for one in chosen:
        there = one.facts.there
        rent = f", rented {_usd(there.usd_per_month)}" if there is not None else ""
        why.append(
            f"{one.facts.workload.name}: electricity {_usd(one.facts.here.usd_per_month)} a month"
            f"{rent}."
        )
    return Advice(f"Stay here for: {_names(chosen) or 'nothing'}", tuple(why))


# --- Models -----------------------------------------------------------------------------------


def _models(rig: Rig, wanted: Sequence[str], habits: Habits, terms: Terms) -> Iterator[Advice]:
    """Yield what to rent for the wanted models that are not usable here."""
    why, names = [], []
    for name in wanted:
        here = upgrade.answer(rig, name)
        if here.low is not None and here.low >= upgrade.READING_PACE:
            continue
        speed = (
            "it does not run here"
            if here.tokens_per_second is None
            else f"{upgrade.show_speed(here)} tokens/s here"
        )
        there = _rented(name, rig, habits, terms)
        names.append(name)
        if there is None or not there.meets:
            why.append(f"{name}: {speed}, and nothing on the price list does better.")
            continue
        span = there.needs.speed
        rented = (
            f" with {units.number(span.low, 2)} to {units.number(span.high, 2)} tokens/s"
            if span
            else ""
        )
        why.append(
            f"{name}: {speed}; {_offer(there)}{rented}. {habits.hours_per_week:g} h a week are "
            f"{_usd(there.usd_per_month)} a month."
        )
    if names:
        yield Advice(f"Rent to use, unless you buy: {', '.join(names)}", tuple(why))


def _rented(name: str, rig: Rig, habits: Habits, terms: Terms) -> There | None:
    work = Workload(
        name,
        "inference",
        name,
        least_speed=upgrade.READING_PACE,
        hours=_SESSION_HOURS,
        runs_per_month=habits.hours_per_week * WEEKS_PER_MONTH / _SESSION_HOURS,
    )
    return sides.facts(work, rig, terms).there


# --- Or buying --------------------------------------------------------------------------------


def _or_buy(found: Evaluation, habits: Habits, terms: Terms) -> Iterator[Advice]:
    made = comparison(found, habits, terms)
    if made is None:
        return
    against, there = made
    name, hours = found.option.name, f"{habits.hours_per_week:g} h a week"
    least = least_hours(against, habits.months)
    if least is None:
        what = f"Rent instead of buying {name}, however many hours a week"
    elif habits.hours_per_week < least:
        what = (
            f"At {hours} rent instead of buying {name}; buying pays from "
            f"{units.number(least, 2)} h on"
        )
    else:
        what = (
            f"At {hours} buy {name} instead of renting; rent below {units.number(least, 2)} h a "
            "week"
        )
    yield Advice(
        what,
        (
            f"It makes usable: {', '.join(found.newly_usable())}. Bought: "
            f"{against.purchase.usd:,.0f} USD, and {against.purchase.load_w:,.0f} W at work at "
            f"${habits.usd_per_kwh:g} per kWh. Rented: {_offer(there)}, with "
            f"{terms.startup_minutes:g} minutes to start before every {_SESSION_HOURS:g} h.",
            *_over_the_months(against, habits),
        ),
    )


def least_hours(against: Comparison, months: float) -> float | None:
    """Return the weekly hours from which buying costs no more than renting, with resale.

    Both costs are straight lines over the hours, so two points of each tell.

    Parameters
    ----------
    against
        The purchase and the rental.
    months
        Over how long.

    Returns
    -------
    Hours a week; None if it never does, or would take more hours than a week has.
    """

    def gain(hours: float) -> float:
        use = replace(against.use, hours_per_week=hours)
        owned = ownership.own(against.purchase, use, against.conditions, months)
        return renting.bill(against.rental, use, months).total_usd - owned.total_usd

    start = gain(0.0)
    slope = gain(1.0) - start
    if start >= 0:
        return 0.0
    least = -start / slope if slope > 0 else HOURS_PER_WEEK + 1
    return least if least <= HOURS_PER_WEEK else None


def _over_the_months(against: Comparison, habits: Habits) -> Iterator[str]:
    owned = ownership.own(against.purchase, against.use, against.conditions, habits.months)
    rent = renting.bill(against.rental, against.use, habits.months).total_usd
    worth = against.purchase.depreciation
    yield (
        f"Over {habits.months:g} months at {habits.hours_per_week:g} h a week: "
        f"{_usd(owned.spent_usd)} for buying, less {_usd(owned.resale_usd)} for selling it then, "
        f"or {_usd(rent)} of rent. Assumed: it loses {100 * worth.first_year:g} % of its value in "
        f"the first year, and {100 * worth.later_years:g} % a year from then on."
    )
    month = against.month()
    yield (
        "Without selling, renting stays cheaper for ten years."
        if month is None
        else f"Without selling, buying has paid for itself after {units.number(month, 2)} months."
    )
    price = against.rental.usd_per_gpu_hour
    yield (
        f"By price: at these hours rent below {_usd(price * owned.total_usd / rent)} per GPU "
        f"hour; now it is {_usd(price)}."
    )


# --- Training ---------------------------------------------------------------------------------


def _largest(rig: Rig, method: Method) -> tuple[str, int, float] | None:
    """Return the largest model that trains here: its name, bytes and hours."""
    device = rig.device
    if device.memory_bytes is None:
        device = replace(device, memory_bytes=rig.ram_bytes)
    for model in sorted(catalog.all(), key=lambda one: one.n_weights, reverse=True):
        work = Workload(model.name, "training", model.name, method=method, tokens=TUNING_TOKENS)
        try:
            needs = sides.needs_of(work, device, rig.n_devices, rig.ram, rig.ram_bytes)
        except ValueError:  # of some architectures nobody has counted what LoRA trains
            continue
        if needs.fits and needs.needed_bytes and needs.hours and needs.hours.mid <= NIGHT_HOURS:
            return model.name, needs.needed_bytes, needs.hours.mid
    return None


# --- Words ------------------------------------------------------------------------------------


def _names(chosen: Sequence[Decision]) -> str:
    """Name the first three; the reasons name all."""
    names = [one.facts.workload.name for one in chosen]
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _offer(there: There) -> str:
    offer = there.offer
    count = there.n_gpus * there.n_copies
    gpus = f"{count} × {offer.gpu}" if count > 1 else offer.gpu
    # What a reader writes into a file of their own stays there.
    where = "your own price list" if offer.is_own else f"{offer.provider}, {offer.dated}"
    return f"{gpus} at {_usd(offer.usd_per_gpu_hour)} per GPU hour ({where})"


def _hours(hours: float) -> str:
    return f"about {units.number(hours, 2)} h"


def _usd(value: float) -> str:
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"
