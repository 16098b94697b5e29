"""Three cases that were computed by hand, with the arithmetic beside the code."""

from __future__ import annotations

import pytest

from guidebook.cost import break_even, ownership, renting
from guidebook.cost.break_even import Comparison
from guidebook.cost.depreciation import Depreciation
from guidebook.cost.ownership import Conditions, Purchase
from guidebook.cost.renting import Rental, Spot
from guidebook.cost.use import Use


def test_ten_hours_a_week_of_an_a100_against_a_used_3090() -> None:
    # A month has 365.25 / 7 / 12 = 4.348214 weeks, so 10 h a week are 43.48214 h a month.
    # Rent:  43.48214 h · 1.79 USD            = 77.83304 USD a month.
    # Own:   43.48214 h · 0.450 kW · 0.30 USD =  5.87009 USD a month, and 750 USD at the start.
    # Break-even: 750 / (77.83304 - 5.87009) = 750 / 71.96295 = 10.42203 months.
    own = Purchase(usd=750, load_w=450)
    home = Conditions(usd_per_kwh=0.30)
    comparison = Comparison(own, Rental(1.79), Use(hours_per_week=10), home)
    assert comparison.rented().at(1) == pytest.approx(77.83304, abs=1e-5)
    assert comparison.own().at(1) - 750 == pytest.approx(5.87009, abs=1e-5)
    assert comparison.month() == pytest.approx(10.42203, abs=1e-5)
    # An A100 that is twice as fast is rented for half of the hours:
    # 750 / (77.83304 / 2 - 5.87009) = 750 / 33.04643 = 22.69534 months.
    twice = break_even.change(comparison, speed=2)
    assert twice.month() == pytest.approx(22.69534, abs=1e-5)
    # To pay within a year, h hours a week must save 750 / 12 = 62.5 USD a month:
    # h · 4.348214 · (1.79 - 0.135) = 62.5, so h = 62.5 / 7.196295 = 8.68503.
    assert break_even.hours_per_week(comparison, months=12) == pytest.approx(8.68503, abs=1e-4)


def test_fine_tuning_70b_for_a_day_on_eight_gpus() -> None:
    # On demand: 24 h · 8 · 3.99              = 766.08 USD of work
    #            0.5 h start · 8 · 3.99        =  15.96
    #            500 GB · 1 month · 0.10       =  50.00
    #            140 GB home · 0.09            =  12.60
    #                                      sum = 844.64 USD
    rental = Rental(
        3.99, n_gpus=8, startup_minutes=30, usd_per_gb_month=0.10, usd_per_gb_egress=0.09
    )
    kept = {"storage_gb": 500, "storage_months": 1, "egress_gb": 140}
    found = renting.job(rental, hours=24, **kept)
    assert found.work_usd == pytest.approx(766.08)
    assert found.startup_usd == pytest.approx(15.96)
    assert (found.storage_usd, found.egress_usd) == (pytest.approx(50), pytest.approx(12.6))
    assert found.total_usd == pytest.approx(844.64)
    assert found.billed_hours == pytest.approx(24.5)
    assert found.usd_per_gpu_hour == pytest.approx(844.64 / (24 * 8))
    # On spot for 1.52, interrupted every 5 h on average, a checkpoint of 3 min every 57 min and
    # 12 min to start again: M = 5 h, t = 0.95 h, d = 0.05 h, R = 0.2 h.
    # Overhead: 5 / 0.95 · exp(0.2 / 5) · (exp(1 / 5) - 1) = 5.263158 · 1.040811 · 0.221403
    #           = 1.212834 hours for an hour of work.
    # Billed: 24 · 1.212834 + 0.5 = 29.60801 h; · 8 · 1.52 = 360.0334 USD; + 62.60 = 422.6334 USD.
    spot = Spot(0.2, checkpoint_interval_minutes=57, checkpoint_minutes=3, restart_minutes=12)
    assert spot.overhead() == pytest.approx(1.212834, abs=1e-6)
    cheap = Rental(
        1.52,
        n_gpus=8,
        tier="spot",
        startup_minutes=30,
        usd_per_gb_month=0.10,
        usd_per_gb_egress=0.09,
        spot=spot,
    )
    found = renting.job(cheap, hours=24, **kept)
    # Billed by the second, rounded up: at most 1 s · 8 · 1.52 / 3600 = 0.0034 USD more.
    assert found.total_usd == pytest.approx(422.6334, abs=0.004)
    assert found.interruption_usd == pytest.approx(24 * 0.212834 * 8 * 1.52, abs=1e-3)
    # Forgotten over the weekend, the machine costs 48 h · 8 · 3.99 = 1,532.16 USD more.
    forgotten = renting.job(rental, hours=24, forgotten_hours=48, **kept)
    assert forgotten.total_usd == pytest.approx(844.64 + 1532.16)


def test_a_used_3090_pays_back_against_renting_24_gb() -> None:
    # 20 h a week are 86.96429 h a month.
    # Rent: 86.96429 h · 0.34 USD             = 29.56786 USD a month.
    # Own:  86.96429 h · 0.350 kW · 0.17 USD  =  5.17438 USD a month, 750 USD at the start.
    # Break-even: 750 / 24.39348 = 30.74592 months: later than the 6 to 18 months of the guide.
    use = Use(hours_per_week=20)
    card = Purchase(usd=750, load_w=350, depreciation=Depreciation(0.125, 0.125))
    comparison = Comparison(card, Rental(0.34), use, Conditions(usd_per_kwh=0.17))
    assert comparison.month() == pytest.approx(30.74592, abs=1e-4)
    # On 74 cents: 750 / (64.35357 - 5.17438) = 12.67338 months.
    dear = break_even.change(comparison, usd_per_gpu_hour=0.74)
    assert dear.month() == pytest.approx(12.67338, abs=1e-4)
    # Three years, sold at the end: 750 · 0.875³ = 502.4414 USD come back;
    # 750 - 502.4414 + 36 · 5.17438 = 433.8361 USD; / (36 · 86.96429 h) = 0.138573 USD an hour.
    found = ownership.own(card, use, Conditions(usd_per_kwh=0.17), months=36)
    assert found.resale_usd == pytest.approx(502.4414, abs=1e-4)
    assert found.total_usd == pytest.approx(433.8361, abs=1e-3)
    assert found.usd_per_gpu_hour == pytest.approx(0.138573, abs=1e-5)
