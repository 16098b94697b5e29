"""Costs are shown with their total, their dates, and what never pays."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from guidebook.catalog import clouds
from guidebook.catalog.clouds import Offer
from guidebook.cost import ownership, renting, sensitivity, show
from guidebook.cost.break_even import Comparison
from guidebook.cost.ownership import Conditions, Purchase
from guidebook.cost.renting import Rental
from guidebook.cost.use import Use

HOME, USE = Conditions(0.2), Use(10)
PAYS = Comparison(Purchase(500, 300), Rental(2.0), USE, HOME)
NEVER = Comparison(Purchase(5000, 300), Rental(0.05), USE, HOME)


def offer(**changes: Any) -> Offer:
    values = {
        "gpu": "A100 SXM4 80GB",
        "provider": "RunPod",
        "tier": "on-demand",
        "usd_per_gpu_hour_low": 2.0,
        "usd_per_gpu_hour_high": 2.0,
        "as_of": datetime.date(2026, 11, 9),
        "source": "a page",
        "dated": "2026-11-09",
    }
    return Offer(**(values | changes))


def column(table: Any, name: str, key: str) -> dict[str, str]:
    return {str(row[key]): str(row[name]) for row in table.rows}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0.0, "1 month or less"),
        (2.0, "2 months"),
        (23.4, "23 months"),
        (30.0, "2.5 years"),
        (None, "not within 10 years"),
    ],
)
def test_a_time_is_written_in_months_and_then_in_years(count: float | None, text: str) -> None:
    assert show.months(count) == text


def test_the_items_of_owning_add_up_to_the_total() -> None:
    owned = ownership.own(PAYS.purchase, USE, HOME, 36)
    found = column(show.items({"card": owned}, "x"), "card", "item (USD)")
    parts = [float(v.replace(",", "")) for k, v in found.items() if k not in _SUMS]
    assert sum(parts) == pytest.approx(owned.total_usd, abs=len(parts) / 2)
    assert found["sold at the end"].startswith("-")
    assert "your time" not in found, "nothing was paid for it"
    assert found["per GPU hour"] == f"{owned.usd_per_gpu_hour:.3f}"


_SUMS = ("total", "per GPU hour")


def test_the_items_of_a_bill_add_up_to_the_total() -> None:
    rental = Rental(0.3, startup_minutes=10, usd_per_gb_month=0.1)
    bill = renting.bill(rental, Use(10, storage_gb=50, forgotten_hours_per_month=2), 1)
    found = column(show.items({"month": bill}, "x"), "month", "item (USD)")
    parts = [float(v) for k, v in found.items() if k not in _SUMS]
    assert sum(parts) == pytest.approx(bill.total_usd, abs=0.005 * len(parts))
    assert set(found) == {"work", "start", "forgotten or unused", "storage", *_SUMS}


def test_what_never_works_has_no_price_per_hour() -> None:
    owned = ownership.own(PAYS.purchase, Use(0), HOME, 36)
    assert column(show.items({"c": owned}, "x"), "c", "item (USD)")["per GPU hour"] == "–"


def test_the_first_offer_of_a_class_is_chosen_and_shown_with_its_date() -> None:
    eight = offer(provider="AWS", n_gpus=8, usd_per_gpu_hour_low=3.0, usd_per_gpu_hour_high=4.0)
    found = show.chosen(
        [offer(), offer(usd_per_gpu_hour_low=9, usd_per_gpu_hour_high=9), eight],
        ("RunPod", "AWS"),
        {"A100": ["A100 80GB"], "H100": ["H100 80GB", "H100 94GB"]},
    )
    rows = show.price_table(found, "x").rows
    assert rows == [
        {"provider": "RunPod", "A100": "2.00 (2026‑11‑09)", "H100": "–"},
        {"provider": "AWS", "A100": "8 × 3.50 (2026‑11‑09)", "H100": "–"},
    ]


def test_an_old_price_is_marked_and_the_newest_comes_first() -> None:
    old = offer(as_of=datetime.date(2025, 1, 1), source="https://github.com/a/b c.csv, from d.com")
    rows = show.age_table([old, None, offer()], datetime.date(2026, 11, 19), "x").rows
    assert [(row["age"], row["old"]) for row in rows] == [("10 days", "no"), ("687 days", "yes")]
    assert [row["source"] for row in rows] == ["a page", "a/b"]


def test_a_source_is_named_by_its_repository_or_host() -> None:
    places = [offer(source=text) for text in ("https://www.x.org/y/z, read", "h https://q.io")]
    rows = show.age_table(places, datetime.date(2026, 11, 19), "x").rows
    assert {row["source"] for row in rows} == {"x.org", "q.io"}


def test_a_discount_is_a_share_of_the_same_offer_on_demand_in_the_same_year() -> None:
    spot = offer(tier="spot", usd_per_gpu_hour_low=0.5, usd_per_gpu_hour_high=0.5)
    elsewhere = offer(tier="spot", provider="AWS")
    before = offer(tier="reserved", as_of=datetime.date(2025, 1, 1))
    rows = show.discount_table([offer(), spot, elsewhere, before], "x").rows
    assert [(row["tier"], row["of the price on demand"]) for row in rows] == [("spot", "25%")]


def test_the_catalog_has_discounts_to_show() -> None:
    rows = show.discount_table(clouds.offers(), "x").rows
    assert {row["tier"] for row in rows} == {"spot", "reserved"}


def test_a_purchase_that_never_pays_says_so() -> None:
    rows = show.payback_table({"a": PAYS, "b": NEVER}, 18, "x").rows
    assert rows[0]["pays after"] == show.months(PAYS.month())
    assert rows[1]["pays after"] == "not within 10 years"
    assert rows[1]["within 18 months from"] == "–"
    assert str(rows[0]["within 18 months from"]).endswith("h a week")


def test_draws_that_never_pay_have_no_quantile() -> None:
    sure = {"usd_per_gpu_hour": sensitivity.Triangular(0.04, 0.05, 0.06)}
    never = sensitivity.monte_carlo(NEVER, sure, n_draws=20)
    row = show.outcome_table({"x": never}, 18, "x").rows[0]
    assert (row["50% by month"], row["within 18 months"], row["never"]) == ("–", "0%", "100%")


def test_the_tornado_has_a_bar_for_each_end_and_says_what_never_pays() -> None:
    ranges = {"usd_per_gpu_hour": (0.05, 3.0), "purchase_usd": (400.0, 600.0)}
    bars = sensitivity.tornado(PAYS, ranges)
    labels = {"usd_per_gpu_hour": "rent", "purchase_usd": "price"}
    middle = PAYS.month()
    assert middle is not None
    (axes,) = show.tornado(bars, labels, middle).axes
    assert len(axes.patches) == 4
    assert [text.get_text() for text in axes.get_yticklabels()] == ["price", "rent"]
    assert any("never" in text.get_text() for text in axes.texts)
    words = show.tornado_in_words(bars, labels)
    assert words.startswith("rent from 0.05 to 3: not within 10 years to ")


def test_the_curve_of_shares_ends_at_the_share_that_pays() -> None:
    unsure = {"usd_per_gpu_hour": sensitivity.Triangular(0.05, 0.1, 0.5)}
    some = sensitivity.monte_carlo(PAYS, unsure, n_draws=50)
    (axes,) = show.shares({"x": some}).axes
    (line,) = axes.lines
    assert line.get_ydata()[-1] == pytest.approx(100 * (1 - some.share_never))
