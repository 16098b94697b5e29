"""Prices: every one dated and sourced, the reader's own first, stale ones known as such."""

from __future__ import annotations

import csv
import datetime
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook.catalog import prices

TODAY = datetime.date(2026, 11, 23)
HEADER = "device,usd,kind,as_of,source,note\n"


@pytest.fixture(autouse=True)
def no_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.ENVIRONMENT_VARIABLE, raising=False)


def own_file(folder: Path, *rows: str) -> Path:
    file = folder / "own.csv"
    file.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def hardware_names() -> set[str]:
    text = resources.files("guidebook.catalog").joinpath("hardware.csv").read_text("utf-8")
    return {row["name"] for row in csv.DictReader(text.splitlines())}


# The catalog


def test_every_price_has_a_source_that_can_be_looked_up() -> None:
    for price in prices.load():
        assert any(mark in price.source for mark in ("https://", "@", ".ai", ".com")), price
        assert datetime.date(2020, 1, 1) <= price.as_of <= TODAY, price


def test_no_price_stands_twice() -> None:
    keys = [(p.device, p.kind, p.as_of, p.source) for p in prices.load()]
    assert len(keys) == len(set(keys))


def test_devices_are_called_as_in_the_hardware_catalog() -> None:
    others = {price.device for price in prices.load()} - hardware_names()
    own_names = ("DDR", "Power supply", "Mac ", "NVIDIA DGX Spark 64GB")
    assert not [name for name in others if not name.startswith(own_names)]


@pytest.mark.parametrize(
    "device",
    [
        "GeForce RTX 3080 10GB",
        "GeForce RTX 3090",
        "GeForce RTX 4080 SUPER",
        "GeForce RTX 4090",
        "GeForce RTX 5090",
        "RTX A5000",
        "RTX A6000",
        "RTX PRO 6000 Blackwell WS",
        "NVIDIA DGX Spark (GB10)",
        "NVIDIA DGX Station (GB300)",
    ],
)
def test_the_devices_of_the_guide_have_a_price(device: str) -> None:
    assert prices.of(device) is not None


def test_there_is_one_launch_price_per_device_and_nothing_precedes_it() -> None:
    for device in {price.device for price in prices.load()}:
        launch = prices.history(device, "launch")
        assert len(launch) <= 1, device
        if launch:
            assert prices.history(device)[0] == launch[0], device


def test_the_latest_price_is_the_one_given() -> None:
    spark = prices.of("NVIDIA DGX Spark (GB10)")
    assert spark is not None
    assert (spark.usd, spark.kind, spark.as_of) == (6950, "street", datetime.date(2026, 10, 2))
    at_launch = prices.of("nvidia dgx spark (gb10)", "launch")
    assert at_launch is not None
    assert at_launch.usd == 3999


def test_the_used_3090_has_a_history_to_draw() -> None:
    used = prices.history("GeForce RTX 3090", "used")
    assert len(used) >= 4
    assert [price.as_of for price in used] == sorted(price.as_of for price in used)
    assert used[-1].usd < used[0].usd


def test_what_has_no_price_is_none() -> None:
    assert prices.of("H100 SXM5 80GB") is None
    assert prices.of("a device of nobody") is None
    assert prices.of("Arc B580", "used") is None


def test_memory_costs_by_its_latest_and_cheapest_kit() -> None:
    found = prices.usd_per_gib("DDR5")
    assert found is not None
    per_gib, kit = found
    # 64 GiB for 679.99 against 32 GiB for 374.97 on the same day.
    assert kit.device == "DDR5 kit 64 GiB"
    assert per_gib == pytest.approx(679.99 / 64)
    assert prices.usd_per_gib("DDR3") is None


# The reader's own prices


def test_an_own_price_wins_even_when_older(tmp_path: Path) -> None:
    file = own_file(tmp_path, "GeForce RTX 3090,620,used,2024-05-02,the shop round the corner,")
    price = prices.of("GeForce RTX 3090", path=file)
    assert price is not None
    assert (price.usd, price.is_own) == (620, True)
    assert prices.of("GeForce RTX 3090", "launch", path=file) == prices.of(
        "GeForce RTX 3090", "launch"
    )


def test_the_environment_names_the_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own_file(tmp_path, "My old card,80,used,2026-11,a flea market,")
    monkeypatch.setenv(prices.ENVIRONMENT_VARIABLE, str(file))
    price = prices.of("my old card")
    assert price is not None
    assert price.usd == 80
    assert len(prices.load()) == len(prices.history("my old card")) + len(prices._bundled())


def test_own_memory_prices_win_too(tmp_path: Path) -> None:
    file = own_file(tmp_path, "DDR5 kit 96 GiB,480,street,2025-01,my receipt,")
    found = prices.usd_per_gib("DDR5", path=file)
    assert found is not None
    assert found[0] == pytest.approx(5)


def test_a_file_of_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(HEADER + "Card,1,used,2026,me,\n", encoding="utf-8-sig")
    assert prices.of("Card", path=file) is not None


def test_the_note_may_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("device,usd,kind,as_of,source\nCard,1,used,2026,me\n", encoding="utf-8")
    assert prices.of("Card", path=file) is not None


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("Card,100,used,2026-11,,", "source is empty"),
        ("Card,100,used,,me,", "as_of is ''"),
        ("Card,100,used,2026-13,me,", "as_of is '2026-13'"),
        ("Card,100,used,last week,me,", "as_of is 'last week'"),
        ("Card,100,rented,2026-11,me,", "kind is 'rented'"),
        ("Card,about 100,used,2026-11,me,", "usd is 'about 100'"),
        ("Card,-5,used,2026-11,me,", "usd is '-5'"),
        ("Card,inf,used,2026-11,me,", "usd is 'inf'"),
        ("Card,1,499,used,2026-11,me,", "more fields than columns"),
        (",100,used,2026-11,me,", "device is empty"),
        ("Card", "source is empty"),
    ],
)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str, complaint: str) -> None:
    file = own_file(tmp_path, "Good card,100,used,2026-11,me,", row)
    with pytest.raises(ValueError, match=complaint) as refusal:
        prices.load(file)
    assert "line 3" in str(refusal.value)
    assert "own.csv" in str(refusal.value)


def test_an_unclosed_quote_is_refused_by_name(tmp_path: Path) -> None:
    file = own_file(tmp_path, 'Card,100,used,2026-11,"me')
    with pytest.raises(ValueError, match="not readable as CSV"):
        prices.load(file)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("device,usd,kind,source\nCard,1,used,me\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column as_of"):
        prices.load(file)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(prices.ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere.csv"))
    with pytest.raises(ValueError, match=r"GUIDEBOOK_PRICES names .*nowhere\.csv"):
        prices.load()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="launch, street, used"):
        prices.of("GeForce RTX 3090", "rented")


# Age


def test_a_price_gets_stale_after_half_a_year() -> None:
    price = prices.Price("Card", 100, "used", datetime.date(2026, 5, 27), "me")
    assert price.age_days(TODAY) == 180
    assert not price.is_stale(TODAY)
    assert price.is_stale(TODAY + datetime.timedelta(days=1))
    assert price.is_stale(TODAY, max_days=30)


@pytest.mark.parametrize(("as_of", "age"), [("2026-11-20", 3), ("2026-11", 22), ("2026", 326)])
def test_a_vague_date_counts_as_old_as_it_can_be(tmp_path: Path, as_of: str, age: int) -> None:
    price = prices.of("Card", path=own_file(tmp_path, f"Card,1,used,{as_of},me,"))
    assert price is not None
    assert price.age_days(TODAY) == age
    assert price.dated == as_of


@given(first=st.dates(), later=st.integers(0, 10_000), limit=st.integers(0, 1000))
def test_what_is_stale_stays_stale(first: datetime.date, later: int, limit: int) -> None:
    price = prices.Price("Card", 1, "used", datetime.date(2020, 1, 1), "me")
    try:
        second = first + datetime.timedelta(days=later)
    except OverflowError:
        return
    assert price.is_stale(second, limit) or not price.is_stale(first, limit)
