"""Renting: items that add up, rounding, interruptions as the literature has them, reservations."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.catalog import clouds
from guidebook.cost import renting
from guidebook.cost.renting import Rental, Spot
from guidebook.cost.use import HOURS_PER_MONTH, Use

spots = st.builds(
    Spot, st.floats(0, 2), st.floats(1, 120), st.floats(0, 10), st.floats(0, 30), st.floats(0, 300)
)
rentals = st.builds(
    Rental,
    st.floats(0, 20),
    st.integers(1, 16),
    st.just("spot"),
    st.floats(0.2, 10),
    st.floats(0, 60),
    st.floats(1, 3600),
    st.floats(0, 3600),
    st.floats(0, 1),
    st.floats(0, 1),
    st.none() | spots,
)
uses = st.builds(
    Use,
    st.floats(0, 100),
    st.just(0.0),
    st.floats(0.1, 24),
    st.floats(0, 100),
    st.floats(0, 2000),
    st.floats(0, 500),
)
months = st.floats(0.1, 60)


@settings(max_examples=100)
@given(rentals, uses, months)
def test_the_bill_is_the_price_of_its_hours_and_the_rest(
    rental: Rental, use: Use, span: float
) -> None:
    found = renting.bill(rental, use, span)
    assert found.compute_usd == pytest.approx(
        found.billed_hours * rental.usd_per_hour, rel=1e-6, abs=1e-6
    )
    parts = (found.work_usd, found.startup_usd, found.rounding_usd, found.interruption_usd)
    assert all(part >= -1e-9 and math.isfinite(part) for part in (*parts, found.idle_usd))
    assert renting.curve(rental, use).at(span) == pytest.approx(found.total_usd, rel=1e-9, abs=1e-6)


@settings(max_examples=100)
@given(rentals, uses, months, st.floats(0, 10))
def test_dearer_longer_and_more_never_cost_less(
    rental: Rental, use: Use, span: float, more: float
) -> None:
    base = renting.bill(rental, use, span).total_usd
    dearer = replace(rental, usd_per_gpu_hour=rental.usd_per_gpu_hour + more)
    longer = replace(use, hours_per_week=use.hours_per_week + more)
    neglected = replace(use, forgotten_hours_per_month=use.forgotten_hours_per_month + more)
    slack = 1e-9 * (1 + base)
    assert renting.bill(dearer, use, span).total_usd >= base - slack
    assert renting.bill(rental, longer, span).total_usd >= base - slack
    assert renting.bill(rental, neglected, span).total_usd >= base - slack
    assert renting.bill(rental, use, span + more).total_usd >= base - slack
    faster = replace(rental, speed=rental.speed * (1 + more))
    assert renting.bill(faster, use, span).total_usd <= base + slack


@settings(max_examples=50)
@given(rentals, uses, months, st.floats(0.01, 100))
def test_the_unit_of_money_does_not_matter(
    rental: Rental, use: Use, span: float, rate: float
) -> None:
    other = replace(
        rental,
        usd_per_gpu_hour=rental.usd_per_gpu_hour * rate,
        usd_per_gb_month=(rental.usd_per_gb_month or 0) * rate,
        usd_per_gb_egress=(rental.usd_per_gb_egress or 0) * rate,
    )
    assert renting.bill(other, use, span).total_usd == pytest.approx(
        renting.bill(rental, use, span).total_usd * rate, rel=1e-6, abs=1e-6
    )


def test_no_use_costs_nothing() -> None:
    found = renting.bill(Rental(2.0), Use(0), 12)
    assert (found.total_usd, found.usd_per_gpu_hour) == (0, None)
    assert renting.job(Rental(2.0), 0).total_usd == 0


def test_time_is_rounded_up_to_the_unit_and_to_the_minimum() -> None:
    by_hour = Rental(1.0, billing_seconds=3600)
    assert renting.job(by_hour, 0.1).billed_hours == 1
    assert renting.job(by_hour, 1.0).billed_hours == 1
    assert renting.job(by_hour, 1.01).billed_hours == 2
    by_second = Rental(3600.0, minimum_seconds=60)
    assert renting.job(by_second, 1 / 3600).total_usd == pytest.approx(60)
    assert renting.job(by_second, 90.5 / 3600).total_usd == pytest.approx(91)


def test_each_session_starts_and_is_rounded() -> None:
    # 4 h in sessions of 1 h: four starts of 15 min; in one session of 4 h: one.
    rental = Rental(1.0, startup_minutes=15)
    short = renting.bill(rental, Use(4, hours_per_session=1), 1)
    long = renting.bill(rental, Use(4, hours_per_session=4), 1)
    assert short.startup_usd == pytest.approx(4 * long.startup_usd)


def test_a_forgotten_machine_is_paid_for() -> None:
    use = Use(0, forgotten_hours_per_month=10)
    assert renting.bill(Rental(2.0, n_gpus=4), use, 3).total_usd == pytest.approx(240)


def test_an_unknown_price_is_asked_for_only_when_it_is_needed() -> None:
    assert renting.bill(Rental(1.0), Use(1), 1).storage_usd == 0
    with pytest.raises(ValueError, match="no usd_per_gb_month"):
        renting.bill(Rental(1.0), Use(1, storage_gb=10), 1)
    with pytest.raises(ValueError, match="no usd_per_gb_egress"):
        renting.job(Rental(1.0), 1, egress_gb=10)


# Interruptions


@pytest.mark.parametrize(("hours_between", "minutes"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_the_best_interval_is_that_of_the_figures_in_daly_2006(
    hours_between: float, minutes: float
) -> None:
    # Figures 3 to 5 of the paper: 5 minutes to write a checkpoint.
    found = renting.best_interval_minutes(1 / hours_between, 5)
    assert found == pytest.approx(minutes, rel=0.006)


def test_the_best_interval_has_the_least_overhead() -> None:
    best = renting.best_interval_minutes(0.25, 2)
    overheads = {
        minutes: Spot(0.25, minutes, 2, 10).overhead()
        for minutes in (best * 0.5, best * 0.9, best, best * 1.1, best * 2)
    }
    assert min(overheads.values()) >= Spot(0.25, best, 2, 10).overhead() * (1 - 1e-4)


def test_the_overhead_is_what_a_simulation_finds() -> None:
    # Interruptions at random, every 3 h on average; a checkpoint of 3 min each half hour; 12 min
    # to start again, which an interruption may hit as well.
    spot = Spot(1 / 3, 30, 3, 12)
    chance = random.Random(7)
    wanted, paid = 4000.0, 0.0
    done = 0.0
    restarting = 0.0
    while done < wanted:
        span, needed = chance.expovariate(1 / 3), restarting + 0.5 + 0.05
        while span >= needed and done < wanted:
            span, paid, done, needed = span - needed, paid + needed, done + 0.5, 0.55
        paid, restarting = paid + min(span, needed), 0.2
    assert paid / done == pytest.approx(spot.overhead(), rel=0.02)


def test_rare_interruptions_lose_half_an_interval_and_the_restart() -> None:
    rate, work, write, restart = 0.001, 0.5, 0.05, 0.2
    spot = Spot(rate, work * 60, write * 60, restart * 60)
    first_order = 1 + write / work + rate * (1 + write / work) * ((work + write) / 2 + restart)
    assert spot.overhead() == pytest.approx(first_order, rel=1e-6)


def test_without_interruptions_only_checkpoints_cost() -> None:
    assert Spot(0, 30).overhead() == 1
    assert Spot(0, 30, checkpoint_minutes=3).overhead() == pytest.approx(1.1)
    assert Spot(1e-12, 30, 3).overhead() == pytest.approx(1.1)


@settings(max_examples=100)
@given(spots, st.floats(0, 1))
def test_more_interruptions_never_take_less_time(spot: Spot, more: float) -> None:
    worse = replace(spot, interruptions_per_hour=spot.interruptions_per_hour + more)
    assert worse.overhead() >= spot.overhead() * (1 - 1e-9) >= 1 - 1e-9


def test_a_warning_that_is_long_enough_saves_the_work() -> None:
    warned = Spot(0.5, 60, checkpoint_minutes=1, restart_minutes=6, notice_seconds=120)
    late = replace(warned, notice_seconds=30)
    assert warned.saves_on_notice
    assert not late.saves_on_notice
    # An hour of work with its checkpoint, and half an interruption of 1 + 6 min.
    assert warned.overhead() == pytest.approx(61 / 60 * (1 + 0.5 * 7 / 60))
    assert warned.overhead() < late.overhead()


def test_hopeless_interruptions_are_refused() -> None:
    with pytest.raises(ValueError, match="checkpoints more often"):
        Spot(60, 60).overhead()
    with pytest.raises(ValueError, match="checkpoints more often"):
        Spot(1e6, 60).overhead()


# Reservations


def test_a_reservation_is_paid_in_full_used_or_not() -> None:
    reserved = Rental(1.0, n_gpus=2, tier="reserved", term_months=12)
    idle, busy = (renting.bill(reserved, Use(hours), 6) for hours in (0, 100))
    assert idle.total_usd == busy.total_usd == pytest.approx(2 * 12 * HOURS_PER_MONTH)
    assert busy.idle_usd < idle.idle_usd
    curve = renting.curve(reserved, Use(10), 36)
    assert [round(curve.at(month) / idle.total_usd) for month in (0, 11.9, 12, 24, 35)] == [
        1,
        1,
        2,
        3,
        3,
    ]


def test_work_that_does_not_fit_a_reservation_is_refused() -> None:
    slow = Rental(1.0, tier="reserved", term_months=1, speed=0.1)
    with pytest.raises(ValueError, match="reserve more GPUs"):
        renting.bill(slow, Use(100), 1)
    assert renting.job(slow, 100).billed_hours == pytest.approx(2 * HOURS_PER_MONTH)


@pytest.mark.parametrize(("tier", "term"), [("reserved", 0), ("on-demand", 12)])
def test_a_term_belongs_to_a_reservation(tier: clouds.Tier, term: float) -> None:
    with pytest.raises(ValueError, match="term_months"):
        Rental(1.0, tier=tier, term_months=term)


# From the catalog


def test_an_offer_brings_the_terms_of_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(clouds.ENVIRONMENT_VARIABLE, raising=False)
    (offer,) = clouds.offers("H100 SXM5", provider="RunPod", tier="on-demand")
    rental = renting.from_offer(offer, 8, startup_minutes=5)
    assert rental.usd_per_hour == pytest.approx(8 * offer.usd_per_gpu_hour)
    assert (rental.usd_per_gb_egress, rental.billing_seconds) == (0, 1)
    (big,) = clouds.offers("H100 SXM5", provider="AWS", tier="on-demand", n_gpus=8)[:1]
    found = renting.from_offer(big, 8)
    assert (found.minimum_seconds, found.usd_per_gb_egress) == (60, 0.09)


def test_fewer_gpus_than_an_offer_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(clouds.ENVIRONMENT_VARIABLE, raising=False)
    offer = next(o for o in clouds.offers("H100", provider="AWS") if o.n_gpus == 8)
    with pytest.raises(ValueError, match="by 8"):
        renting.from_offer(offer, 1)


@pytest.mark.parametrize("name", ["usd_per_gpu_hour", "startup_minutes", "minimum_seconds"])
def test_an_impossible_rental_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Rental(**{"usd_per_gpu_hour": 1.0, name: math.nan})
