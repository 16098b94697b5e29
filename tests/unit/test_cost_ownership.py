"""Owning: items that add up, more of anything costs more, and curves that agree with totals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.catalog import prices
from guidebook.cost import depreciation, ownership
from guidebook.cost.curves import Asset, Curve, Step
from guidebook.cost.depreciation import NEW_CARD, USED_CARD, Depreciation
from guidebook.cost.ownership import Conditions, Purchase, Upgrade
from guidebook.cost.use import HOURS_PER_MONTH, WEEKS_PER_MONTH, Use

usd = st.floats(0, 20_000)
watts = st.floats(0, 3000)
months = st.floats(0.1, 120)
shares = st.floats(0, 0.9)
depreciations = st.builds(Depreciation, shares, shares, st.floats(0, 0.5))
upgrades = st.lists(st.builds(Upgrade, st.floats(0, 130), usd), max_size=3).map(tuple)
purchases = st.builds(Purchase, usd, watts, watts, st.integers(1, 8), depreciations, upgrades)
hours = st.just(0.0) | st.floats(0.01, 100)
uses = st.builds(Use, hours, st.floats(0, 68))
conditions = st.builds(
    Conditions, st.floats(0, 2), st.floats(0, 40), st.floats(0, 10), usd, st.floats(0, 0.3)
)


@settings(max_examples=100)
@given(purchases, uses, conditions, months)
def test_the_items_make_the_total_and_the_curves_agree(
    purchase: Purchase, use: Use, around: Conditions, span: float
) -> None:
    found = ownership.own(purchase, use, around, span)
    assert found.curve.at(span) == pytest.approx(found.spent_usd, rel=1e-9, abs=1e-6)
    sold = ownership.curve(purchase, use, around, sold=True)
    assert sold.at(span) == pytest.approx(found.total_usd, rel=1e-9, abs=1e-6)
    assert found.usd_per_month * span == pytest.approx(found.total_usd, rel=1e-9, abs=1e-6)
    assert all(math.isfinite(value) for value in (found.total_usd, found.kwh, found.gpu_hours))
    if found.usd_per_gpu_hour is not None:
        assert math.isfinite(found.usd_per_gpu_hour)


@settings(max_examples=100)
@given(purchases, uses, conditions, months, st.floats(0, 1000))
def test_dearer_purchases_and_electricity_never_cost_less(
    purchase: Purchase, use: Use, around: Conditions, span: float, more: float
) -> None:
    base = ownership.own(purchase, use, around, span)
    slack = 1e-9 * (1 + abs(base.spent_usd))
    for dearer in (
        ownership.own(replace(purchase, usd=purchase.usd + more), use, around, span),
        ownership.own(replace(purchase, load_w=purchase.load_w + more), use, around, span),
        ownership.own(purchase, use, replace(around, usd_per_kwh=around.usd_per_kwh + more), span),
    ):
        assert dearer.total_usd >= base.total_usd - slack
    longer = ownership.own(purchase, use, around, span + more / 100)
    assert longer.spent_usd >= base.spent_usd - slack


@settings(max_examples=50)
@given(purchases, conditions, months, st.floats(0, 50))
def test_more_hours_cost_electricity_and_nothing_else(
    purchase: Purchase, around: Conditions, span: float, hours: float
) -> None:
    rest = ownership.own(purchase, Use(0), around, span)
    work = ownership.own(purchase, Use(hours), around, span)
    kwh = purchase.load_w / 1000 * hours * WEEKS_PER_MONTH * span
    assert work.total_usd - rest.total_usd == pytest.approx(
        kwh * around.usd_per_kwh, rel=1e-6, abs=1e-6
    )


def test_a_machine_that_never_works_has_no_price_per_hour() -> None:
    found = ownership.own(Purchase(1000, 400), Use(0), Conditions(0.3), 12)
    assert found.usd_per_gpu_hour is None
    assert found.electricity_usd == 0
    assert found.total_usd == pytest.approx(250)


def test_a_machine_that_waits_all_day_costs_its_idle_power() -> None:
    # 50 W in all hours of a month of 730.5 h: 36.525 kWh.
    use = Use(hours_per_week=0, idle_hours_per_week=168)
    found = ownership.own(Purchase(0, 400, idle_w=50), use, Conditions(0.40), 1)
    assert found.kwh == pytest.approx(0.05 * HOURS_PER_MONTH)
    assert found.total_usd == pytest.approx(36.525 * 0.40)


def test_an_upgrade_counts_from_its_month_on() -> None:
    bought = Purchase(1000, 0, upgrades=(Upgrade(6, 300, "RAM"),))
    around = Conditions(0.3, yearly_interest=0.06)
    before, after = (ownership.own(bought, Use(0), around, span) for span in (5.9, 12))
    assert (before.upgrades_usd, after.upgrades_usd) == (0, 300)
    # 6 % of 1,000 USD for a year and of 300 USD for half of one.
    assert after.interest_usd == pytest.approx(60 + 9)
    curve = ownership.curve(bought, Use(0), around)
    assert curve.at(6) - curve.at(6, before=True) == pytest.approx(300)


def test_time_and_interest_are_not_counted_unless_asked_for() -> None:
    found = ownership.own(Purchase(1000, 300), Use(10), Conditions(0.3), 36)
    assert (found.time_usd, found.interest_usd) == (0, 0)
    paid = Conditions(0.3, setup_hours=8, upkeep_hours_per_month=1, usd_per_hour=50)
    assert ownership.own(Purchase(1000, 300), Use(10), paid, 36).time_usd == 50 * (8 + 36)


# Loss of value


@settings(max_examples=50)
@given(depreciations, usd, months, months)
def test_a_value_never_rises_with_age(
    loss: Depreciation, price: float, first: float, second: float
) -> None:
    young, old = sorted((first, second))
    assert loss.value(price, old) <= loss.value(price, young) * (1 + 1e-12)
    assert loss.value(price, 0) <= price


def test_the_first_year_and_the_later_ones_lose_their_shares() -> None:
    loss = Depreciation(0.4, 0.1, selling_fee=0.13)
    assert loss.value(1000, 0) == pytest.approx(870)
    assert loss.value(1000, 12) == pytest.approx(870 * 0.6)
    assert loss.value(1000, 36) == pytest.approx(870 * 0.6 * 0.81)


def test_the_usual_losses_name_their_source() -> None:
    assert "https://" in NEW_CARD.source
    assert "https://" in USED_CARD.source


def test_the_observed_loss_leads_from_the_launch_price_to_the_used_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(prices.ENVIRONMENT_VARIABLE, raising=False)
    loss = depreciation.observed("GeForce RTX 3090")
    launch, used = prices.of("GeForce RTX 3090", "launch"), prices.of("GeForce RTX 3090", "used")
    assert loss is not None
    assert launch is not None
    assert used is not None
    age = (used.as_of - launch.as_of).days / 365.25 * 12
    assert loss.value(launch.usd, age) == pytest.approx(used.usd)
    assert 0.05 < loss.later_years < 0.25
    assert "1,499" in loss.source


def test_a_loss_that_cannot_be_observed_is_none() -> None:
    assert depreciation.observed("GeForce RTX 5090") is None
    assert depreciation.observed("a card of nobody") is None


@pytest.mark.parametrize("share", [1, 1.5, -1, math.nan])
def test_an_impossible_loss_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="first_year"):
        Depreciation(share, 0.1)


# Curves


def test_a_curve_jumps_at_its_steps() -> None:
    curve = Curve(100, 10, (Step(2, 50, 5),))
    assert [curve.at(month) for month in (0, 1, 2, 3)] == [100, 110, 170, 185]
    assert curve.at(2, before=True) == 120
    assert (curve.slope(1), curve.slope(2)) == (10, 15)
    assert not curve.is_straight


def test_a_curve_is_drawn_from_start_to_end() -> None:
    assert Curve(1, 1).points(2.5) == ((0, 1), (1, 2), (2, 3), (2.5, 3.5))
    with pytest.raises(ValueError, match="every"):
        Curve().points(1, every=0)


def test_what_is_sold_counts_against_the_cost() -> None:
    curve = Curve(1000, assets=(Asset(0, 1000, Depreciation(0.2, 0.2)),))
    assert curve.at(0) == 0
    assert curve.at(12) == pytest.approx(200)


# Refusals


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["hours_per_week", "storage_gb", "forgotten_hours_per_month"])
def test_impossible_use_is_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        Use(**{"hours_per_week": 1, name: bad})


def test_a_week_has_168_hours() -> None:
    Use(100, 68)
    with pytest.raises(ValueError, match="a week has 168"):
        Use(100, 69)
    with pytest.raises(ValueError, match="hours_per_session"):
        Use(1, hours_per_session=0)


@pytest.mark.parametrize("name", ["usd", "load_w", "idle_w"])
def test_an_impossible_purchase_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Purchase(**{"usd": 1, "load_w": 1, name: -1})


def test_no_months_are_refused() -> None:
    with pytest.raises(ValueError, match="months is 0"):
        ownership.own(Purchase(1, 1), Use(1), Conditions(0), 0)
