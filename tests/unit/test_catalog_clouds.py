"""Rental prices: every row dated and sourced, stale ones known as such, the reader's own first."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import units
from guidebook.catalog import clouds, hardware

TODAY = datetime.date(2026, 11, 24)
HEADER = ",".join(clouds.COLUMNS) + "\n"
GOOD = "usd_per_gpu_hour,Me,My GPU,on-demand,1,0.5,,2026-11,a friend,"


@pytest.fixture(autouse=True)
def no_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(clouds.ENVIRONMENT_VARIABLE, raising=False)


def own_file(folder: Path, *rows: str) -> Path:
    file = folder / "own.csv"
    file.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return file


# The catalog


def test_every_row_has_a_source_that_can_be_looked_up() -> None:
    for row in (*clouds.history(), *clouds.terms()):
        assert "https://" in row.source, row
        assert datetime.date(2017, 1, 1) <= row.as_of <= TODAY, row


def test_no_price_stands_twice() -> None:
    keys = [(o.gpu, o.provider, o.tier, o.n_gpus, o.as_of, o.source) for o in clouds.history()]
    assert len(keys) == len(set(keys))


def test_gpus_are_called_as_in_the_hardware_catalog() -> None:
    names = {device.name for device in hardware.every()}
    others = {offer.gpu for offer in clouds.history()} - names
    # Offers that do not say whether they mean the PCIe or the SXM card.
    assert others == {"A100 40GB", "A100 80GB"}


@pytest.mark.parametrize(
    "provider", ["Vast.ai", "RunPod", "ThunderCompute", "Lambda", "AWS", "GCP", "Azure"]
)
def test_the_providers_of_the_guide_have_a_price_that_is_not_stale(provider: str) -> None:
    found = clouds.offers(provider=provider)
    assert [offer for offer in found if not offer.is_stale(TODAY)], provider


def test_the_prices_of_2025_are_kept_and_marked_as_stale() -> None:
    old = [offer for offer in clouds.history() if offer.dated == "2025"]
    assert len(old) == 63
    assert all(offer.is_stale(TODAY) for offer in old)
    assert all("2025" in offer.note for offer in old)


def test_the_latest_price_is_the_one_given() -> None:
    found = clouds.offers("H100 SXM5", provider="runpod", tier="on-demand")
    assert [(offer.usd_per_gpu_hour, offer.dated) for offer in found] == [(3.99, "2026-11-09")]
    before = [o for o in clouds.history() if o.gpu == found[0].gpu and o.provider == "RunPod"]
    assert {3.49, 2.99} < {offer.usd_per_gpu_hour for offer in before}


def test_words_of_a_name_find_all_that_have_them_and_no_others() -> None:
    a100 = {offer.gpu for offer in clouds.offers("a100")}
    assert "A100 SXM4 80GB" in a100
    assert all(name.startswith("A100") for name in a100)
    assert {offer.gpu for offer in clouds.offers("L4")} == {"L4"}
    assert clouds.offers("a GPU of nobody") == ()


def test_offers_come_cheapest_first() -> None:
    prices = [offer.usd_per_gpu_hour for offer in clouds.offers()]
    assert prices == sorted(prices)


def test_one_gpu_is_not_offered_at_the_price_of_eight() -> None:
    one = clouds.offers("H100 SXM5", provider="AWS", tier="on-demand", n_gpus=1)
    eight = clouds.offers("H100 SXM5", provider="AWS", tier="on-demand", n_gpus=8)
    assert 6.88 not in [offer.usd_per_gpu_hour for offer in one]
    assert 6.88 in [offer.usd_per_gpu_hour for offer in eight]


def test_memory_can_be_asked_for() -> None:
    found = clouds.offers(least_memory_bytes=24 * units.GIB)
    assert {"GeForce RTX 3090", "A100 40GB"} <= {offer.gpu for offer in found}
    more = clouds.offers(least_memory_bytes=48 * units.GIB)
    assert not {offer.gpu for offer in more} & {"GeForce RTX 3090", "A100 40GB", "L4"}


@pytest.mark.parametrize(
    ("provider", "seconds"), [("AWS", 120), ("GCP", 30), ("RunPod", 5), ("Vast.ai", 0)]
)
def test_the_notice_before_an_interruption_is_known(provider: str, seconds: float) -> None:
    found = clouds.term(provider, "spot_notice_seconds")
    assert found is not None
    assert found.value == seconds


def test_what_is_not_known_is_none() -> None:
    assert clouds.term("Lambda", "spot_notice_seconds") is None
    assert clouds.term("nobody", "usd_per_gb_egress") is None


def test_free_traffic_is_known_to_be_free() -> None:
    found = clouds.term("RunPod", "usd_per_gb_egress")
    assert found is not None
    assert found.value == 0


def test_an_unknown_tier_or_term_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="on-demand, community, spot, reserved"):
        clouds.offers(tier="free")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="usd_per_gb_month"):
        clouds.term("AWS", "support")  # type: ignore[arg-type]


# The reader's own prices


def test_an_own_price_wins_even_when_older(tmp_path: Path) -> None:
    row = "usd_per_gpu_hour,RunPod,H100 SXM5 80GB,on-demand,1,2.20,,2024-01,my contract,"
    found = clouds.offers(
        "H100 SXM5", provider="RunPod", tier="on-demand", path=own_file(tmp_path, row)
    )
    assert [(offer.usd_per_gpu_hour, offer.is_own) for offer in found] == [(2.2, True)]


def test_the_environment_names_the_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = own_file(tmp_path, GOOD, "usd_per_gb_month,Me,,,,0.02,,2026-11,a friend,")
    monkeypatch.setenv(clouds.ENVIRONMENT_VARIABLE, str(file))
    assert [offer.usd_per_gpu_hour for offer in clouds.offers("my gpu")] == [0.5]
    storage = clouds.term("me", "usd_per_gb_month")
    assert storage is not None
    assert storage.value == 0.02
    assert "Me" in clouds.providers()


def test_optional_columns_may_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("item,provider,low,as_of,source\nbilling_seconds,Me,1,2026,me\n", "utf-8")
    assert clouds.term("Me", "billing_seconds", path=file) is not None


def test_a_range_is_kept_and_its_middle_is_the_price(tmp_path: Path) -> None:
    row = "usd_per_gpu_hour,Me,My GPU,spot,4,1,2,2026-11,a friend,"
    (found,) = clouds.offers("My GPU", path=own_file(tmp_path, row))
    assert (found.usd_per_gpu_hour_low, found.usd_per_gpu_hour_high) == (1, 2)
    assert (found.usd_per_gpu_hour, found.n_gpus) == (1.5, 4)
    assert found.memory_bytes is None


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("usd_per_gpu_hour,Me,,on-demand,1,0.5,,2026-11,me,", "gpu is empty"),
        ("usd_per_gpu_hour,Me,G,free,1,0.5,,2026-11,me,", "tier is 'free'"),
        ("usd_per_gpu_hour,Me,G,spot,1,0,,2026-11,me,", "low is '0'"),
        ("usd_per_gpu_hour,Me,G,spot,1,nan,,2026-11,me,", "low is 'nan'"),
        ("usd_per_gpu_hour,Me,G,spot,1,2,1,2026-11,me,", "high is 1, less than low, 2"),
        ("usd_per_gpu_hour,Me,G,spot,1.5,2,,2026-11,me,", "gpus is '1.5'"),
        ("usd_per_gpu_hour,Me,G,spot,1,2,,,me,", "as_of is ''"),
        ("usd_per_gpu_hour,Me,G,spot,1,2,,2026-11,,", "source is empty"),
        ("usd_per_gpu_hour,,G,spot,1,2,,2026-11,me,", "provider is empty"),
        ("usd_per_day,Me,G,spot,1,2,,2026-11,me,", "item is 'usd_per_day'"),
        ("usd_per_gb_egress,Me,,,,-1,,2026-11,me,", "low is '-1'"),
    ],
)
def test_a_bad_row_is_refused_and_named(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refusal:
        clouds.history(own_file(tmp_path, GOOD, row))
    assert "own.csv, line 3" in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clouds.ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere.csv"))
    with pytest.raises(ValueError, match=r"GUIDEBOOK_CLOUD_PRICES names .*nowhere\.csv"):
        clouds.offers()


def test_written_offers_can_be_read_again(tmp_path: Path) -> None:
    written = clouds.history()
    file = tmp_path / "written.csv"
    file.write_text(clouds.to_csv(written), encoding="utf-8")
    read = [offer for offer in clouds.history(file) if offer.is_own]
    assert len(read) == len(written)
    for old, new in zip(written, read, strict=True):
        assert (old.gpu, old.usd_per_gpu_hour, old.dated) == (
            new.gpu,
            new.usd_per_gpu_hour,
            new.dated,
        )


# Age


@settings(max_examples=50)
@given(days=st.integers(0, 4000), later=st.integers(0, 1000))
def test_what_is_stale_stays_stale(days: int, later: int) -> None:
    offer = clouds.offers("A100")[0]
    day = offer.as_of + datetime.timedelta(days=days)
    assert offer.age_days(day) == days
    assert offer.is_stale(day) == (days > 180)
    assert not offer.is_stale(day) or offer.is_stale(day + datetime.timedelta(days=later))
