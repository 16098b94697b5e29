"""Break-even lies on both curves, comes no later when renting gets dearer, and has a spread."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.cost import break_even, sensitivity
from guidebook.cost.break_even import Comparison
from guidebook.cost.curves import Asset, Curve, Step
from guidebook.cost.depreciation import Depreciation
from guidebook.cost.ownership import Conditions, Purchase, Upgrade
from guidebook.cost.renting import Rental
from guidebook.cost.sensitivity import LogNormal, Triangular
from guidebook.cost.use import Use

usd = st.floats(0, 5000)
monthly = st.floats(0, 300)
steps = st.lists(st.builds(Step, st.floats(0.5, 100), usd, monthly), max_size=3).map(tuple)
losses = st.builds(Depreciation, st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0, 0.5))
assets = st.lists(st.builds(Asset, st.floats(0, 60), usd, losses), max_size=2).map(tuple)
rented_curves = st.builds(Curve, usd, monthly, steps)

CARD = Purchase(750, 350, depreciation=Depreciation(0.125, 0.125))
BASE = Comparison(CARD, Rental(0.74), Use(20), Conditions(0.17))


@settings(max_examples=100)
@given(st.builds(Curve, usd, monthly, steps, assets), rented_curves)
def test_before_the_break_even_owning_costs_more_and_at_it_no_more(
    own: Curve, rented: Curve
) -> None:
    found = break_even.month(own, rented)
    marks = [index / 4 for index in range(481)]
    if found is None:
        assert all(own.at(mark) > rented.at(mark) for mark in marks)
        return
    scale = 1e-7 * (1 + abs(own.at(found)))
    assert own.at(found, before=True) <= rented.at(found) + scale or (
        own.at(found) <= rented.at(found) + scale
    )
    earlier = [mark for mark in marks if mark < found - 1e-6]
    assert all(own.at(mark) > rented.at(mark) - scale for mark in earlier)


@settings(max_examples=100)
@given(st.builds(Curve, st.floats(1, 5000), monthly), st.builds(Curve, st.just(0.0), monthly))
def test_straight_lines_meet_where_both_cost_the_same(own: Curve, rented: Curve) -> None:
    found = break_even.month(own, rented)
    if found is None:
        assert own.at(120) > rented.at(120)
    else:
        assert found == pytest.approx(own.usd / (rented.usd_per_month - own.usd_per_month))
        assert own.at(found) == pytest.approx(rented.at(found))


@settings(max_examples=50)
@given(st.builds(Curve, usd, monthly, steps), rented_curves)
def test_halving_finds_what_the_formula_finds(own: Curve, rented: Curve) -> None:
    nothing = Asset(0, 0, Depreciation(0, 0))
    exact, halved = (
        break_even.month(curve, rented) for curve in (own, replace(own, assets=(nothing,)))
    )
    assert (exact is None) == (halved is None)
    if exact is not None and halved is not None and exact != pytest.approx(halved, abs=1e-6):
        # Lines that are almost parallel are as good as equal for a while.
        costs = [curve.at(exact, before=True) for curve in (own, rented)]
        assert costs[0] == pytest.approx(costs[1], rel=1e-9, abs=1e-9)


def test_what_costs_no_more_from_the_start_has_paid_at_once() -> None:
    assert break_even.month(Curve(0, 5), Curve(0, 4)) == 0
    assert break_even.month(Curve(), Curve()) == 0


def test_what_never_pays_is_none_and_depends_on_how_far_one_looks() -> None:
    assert break_even.month(Curve(100, 5), Curve(0, 5)) is None
    assert break_even.month(Curve(100, 5), Curve(0, 6), within_months=99) is None
    assert break_even.month(Curve(100, 5), Curve(0, 6), within_months=101) == pytest.approx(100)
    with pytest.raises(ValueError, match="within_months"):
        break_even.month(Curve(), Curve(), 0)


def test_a_payment_of_the_other_side_can_decide_it() -> None:
    # The second term of a reservation is due in month 12.
    rented = Curve(600, steps=(Step(12, 600),))
    assert break_even.month(Curve(1000), rented) == 12


def test_an_upgrade_puts_the_break_even_off() -> None:
    late = replace(CARD, upgrades=(Upgrade(6, 400),))
    plain, upgraded = BASE.month(), replace(BASE, purchase=late).month()
    assert plain is not None
    assert upgraded is not None
    saved = BASE.rented().usd_per_month - BASE.own().usd_per_month
    assert upgraded - plain == pytest.approx(400 / saved)


def test_counting_the_resale_brings_the_break_even_forward() -> None:
    sold = replace(BASE, sold=True)
    spent, net = BASE.month(), sold.month()
    assert spent is not None
    assert net is not None
    assert net < spent
    assert sold.own().at(spent) < sold.rented().at(spent)


@settings(max_examples=100)
@given(st.floats(0.1, 5), st.floats(0, 2), st.floats(1, 100), st.floats(0, 1))
def test_dearer_rents_more_hours_and_cheaper_cards_pay_no_later(
    price: float, more: float, hours: float, kwh: float
) -> None:
    base = break_even.change(BASE, usd_per_gpu_hour=price, hours_per_week=hours, usd_per_kwh=kwh)
    found = _months(base)
    for better in (
        break_even.change(base, usd_per_gpu_hour=price + more),
        break_even.change(base, purchase_usd=750 / (1 + more)),
        break_even.change(base, usd_per_kwh=kwh / (1 + more)),
        break_even.change(base, speed=1 / (1 + more)),
    ):
        assert _months(better) <= found + 1e-6
    if found < 1000:
        longer = break_even.change(base, hours_per_week=min(168, hours * (1 + more)))
        assert _months(longer) <= found + 1e-6


def _months(comparison: Comparison) -> float:
    found = comparison.month()
    return 1e9 if found is None else found


def test_zero_use_never_pays() -> None:
    assert break_even.change(BASE, hours_per_week=0).month() is None


# What would have to change


@settings(max_examples=25)
@given(st.floats(2, 60))
def test_the_hours_that_just_pay_are_found(months: float) -> None:
    hours = break_even.hours_per_week(BASE, months)
    if hours is None:
        most = break_even.change(BASE, hours_per_week=168)
        assert _months(most) > months
    else:
        at = break_even.change(BASE, hours_per_week=hours).month()
        assert at == pytest.approx(months, rel=1e-6)


def test_a_rent_that_runs_anyway_needs_no_hours() -> None:
    reserved = replace(BASE, rental=Rental(0.74, tier="reserved", term_months=12))
    assert break_even.hours_per_week(reserved, 24) == 0


def test_no_hours_make_a_dear_machine_pay_within_a_month() -> None:
    dear = break_even.change(BASE, purchase_usd=50_000)
    assert break_even.hours_per_week(dear, 1) is None


def test_the_price_that_flips_the_answer_is_found() -> None:
    # 750 USD in 12 months over 20 h a week: (750 / 12) / 86.96429 h + 0.0595 USD = 0.778186 USD.
    found = break_even.threshold(BASE, "usd_per_gpu_hour", 0.1, 5, months=12)
    assert found == pytest.approx(0.778186, abs=1e-6)
    assert break_even.threshold(BASE, "usd_per_gpu_hour", 3, 5, months=12) is None


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="purchase_usd"):
        break_even.change(BASE, colour=1)
    with pytest.raises(ValueError, match="load_w"):
        break_even.change(BASE, load_w=-1)


@pytest.mark.parametrize("name", break_even.PARAMETERS)
def test_every_parameter_can_be_changed(name: str) -> None:
    part, field = break_even.PARAMETERS[name]
    changed = break_even.change(BASE, **{name: 0.75})
    assert getattr(getattr(changed, part), field) == 0.75


# Sensitivity


def test_the_tornado_is_sorted_and_shows_what_never_pays() -> None:
    bars = sensitivity.tornado(
        BASE,
        {
            "usd_per_kwh": (0.1, 0.4),
            "hours_per_week": (1, 40),
            "purchase_usd": (600, 900),
            "idle_w": (0, 20),
        },
    )
    assert [bar.name for bar in bars] == ["hours_per_week", "purchase_usd", "usd_per_kwh", "idle_w"]
    assert [bar.swing_months for bar in bars] == sorted(
        (bar.swing_months for bar in bars), reverse=True
    )
    assert bars[0].months_at_low is None
    assert bars[-1].swing_months == 0


def test_a_bar_agrees_with_the_comparison() -> None:
    (bar,) = sensitivity.tornado(BASE, {"purchase_usd": (600, 900)})
    assert bar.months_at_high == break_even.change(BASE, purchase_usd=900).month()
    assert bar.months_at_low is not None
    assert bar.months_at_high is not None
    assert bar.months_at_low / bar.months_at_high == pytest.approx(600 / 900)


UNSURE = {
    "usd_per_gpu_hour": LogNormal(0.74, 1.4),
    "hours_per_week": Triangular(2, 15, 40),
    "purchase_usd": Triangular(700, 750, 900),
}


def test_the_same_seed_gives_the_same_distribution_in_any_order() -> None:
    first = sensitivity.monte_carlo(BASE, UNSURE, n_draws=200, seed=3)
    again = sensitivity.monte_carlo(BASE, dict(reversed(UNSURE.items())), n_draws=200, seed=3)
    other = sensitivity.monte_carlo(BASE, UNSURE, n_draws=200, seed=4)
    assert first == again
    assert first.months != other.months


def test_the_quantiles_rise_and_end_where_nothing_pays() -> None:
    found = sensitivity.monte_carlo(BASE, UNSURE, n_draws=500, seed=1)
    known = [month for month in found.quantiles.values() if month is not None]
    assert known == sorted(known)
    assert found.share_within(found.within_months) == pytest.approx(1 - found.share_never)
    assert (found.quantile(0.95) is None) == (found.share_never > 0.05)
    median = found.quantile(0.5)
    assert median is not None
    assert found.share_within(median) == pytest.approx(0.5, abs=0.01)


def test_without_doubt_all_draws_are_the_same() -> None:
    sure = {"purchase_usd": Triangular(750, 750, 750), "usd_per_kwh": LogNormal(0.17, 1)}
    found = sensitivity.monte_carlo(BASE, sure, n_draws=10)
    assert found.months == pytest.approx([BASE.month()] * 10)


def test_what_never_pays_has_no_quantile() -> None:
    never = break_even.change(BASE, purchase_usd=1e6)
    found = sensitivity.monte_carlo(never, {"usd_per_kwh": Triangular(0.1, 0.2, 0.3)}, n_draws=20)
    assert (found.share_never, found.quantile(0.05)) == (1, None)


def test_hours_beyond_the_week_are_cut_off() -> None:
    wild = {"hours_per_week": LogNormal(150, 3), "idle_hours_per_week": Triangular(0, 10, 20)}
    assert len(sensitivity.monte_carlo(BASE, wild, n_draws=50).months) == 50


def test_draws_follow_their_distribution() -> None:
    chance = random.Random(0)
    prices = sorted(LogNormal(2.0, 1.5).draw(chance) for _ in range(4000))
    assert prices[2000] == pytest.approx(2.0, rel=0.05)
    inside = sum(2.0 / 1.5 <= price <= 2.0 * 1.5 for price in prices) / 4000
    assert inside == pytest.approx(0.683, abs=0.03)
    hours = [Triangular(2, 15, 40).draw(chance) for _ in range(4000)]
    assert sum(hours) / 4000 == pytest.approx((2 + 15 + 40) / 3, rel=0.03)
    assert min(hours) >= 2
    assert max(hours) <= 40


def test_impossible_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="low ≤ mode ≤ high"):
        Triangular(3, 2, 4)
    with pytest.raises(ValueError, match="factor"):
        LogNormal(1, 0.5)
    with pytest.raises(ValueError, match="n_draws"):
        sensitivity.monte_carlo(BASE, {}, n_draws=0)
    with pytest.raises(ValueError, match="share is 0"):
        sensitivity.monte_carlo(BASE, {}, n_draws=1).quantile(0)
