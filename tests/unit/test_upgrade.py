"""What to buy: the arithmetic of price, gain, power and loss of value, on cases done by hand."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import plan, units, upgrade
from guidebook.catalog import hardware, prices
from guidebook.catalog.prices import Price
from guidebook.planner import Answer
from guidebook.upgrade import Evaluation, Option

GIB = units.GIB
DDR4 = "DDR4-3200 dual channel (2x64-bit)"
GUIDES = plan.rig("GeForce RTX 3080 10GB", 1, DDR4, 32 * GIB)
WANTED = ("llama-3-8b", "qwen2.5-32b")
HEADER = "device,usd,kind,as_of,source,note\n"


@pytest.fixture(autouse=True)
def no_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.ENVIRONMENT_VARIABLE, raising=False)


def own_file(folder: Path, *rows: str) -> Path:
    file = folder / "own.csv"
    file.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def price(usd: float, day: str, kind: str = "used") -> Price:
    return Price("a card", usd, kind, datetime.date.fromisoformat(day), "by hand", dated=day)


def speed(tokens: float | None, low: float | None = None, high: float | None = None) -> Answer:
    return Answer(tokens_per_second=tokens, low=low, high=high)


def bought(
    usd: float | None, before: Answer, after: Answer, supply_usd: float | None = 0.0
) -> Evaluation:
    option = Option("a card", "card", GUIDES, None, usd, 24 * GIB)
    return Evaluation(option, {"m": before}, {"m": after}, None, supply_usd, 1000.0)


# --- power supply ------------------------------------------------------------------------------


def test_a_supply_carries_everything_and_a_quarter_more_in_steps_of_50_watts():
    # 350 + 125 + 100 = 575 W; a quarter more is 718.75 W.
    found = upgrade.power_supply(hardware.find("RTX 3090"))
    assert found is not None
    assert found.sustained_w == 575
    assert found.needed_w == 750
    assert found.suggested_w == 750
    assert found.is_enough(750)
    assert not found.is_enough(749)


def test_each_further_card_adds_its_draw_to_rule_and_suggestion():
    found = upgrade.power_supply(hardware.find("RTX 3090"), 2)
    assert found is not None
    assert found.sustained_w == 925
    assert found.needed_w == 1200
    assert found.suggested_w == 1100


def test_intels_example_of_an_older_supply_comes_out():
    card = replace(hardware.find("RTX A6000"), tdp_w=300.0)
    found = upgrade.power_supply(card, cpu_w=300, rest_w=150)
    assert found is not None
    assert found.sustained_w == 750
    assert found.spike_w == pytest.approx(1100)


def test_the_rule_is_within_50_watts_of_the_catalogs_suggestion_for_large_cards():
    known = [
        device
        for device in hardware.every()
        if device.kind == "discrete" and device.psu_w and 200 <= (device.tdp_w or 0) <= 600
    ]
    assert len(known) > 50
    for device in known:
        found = upgrade.power_supply(device)
        assert found is not None
        assert abs(found.needed_w - (device.psu_w or 0)) <= 50, device.name


def test_a_machine_without_a_card_needs_little_and_one_with_unified_memory_brings_its_own():
    found = upgrade.power_supply(hardware.find(DDR4))
    assert found is not None
    assert found.sustained_w == 225
    assert upgrade.power_supply(hardware.find("Apple M3 Ultra (60c)")) is None
    assert upgrade.power_supply(replace(hardware.find("RTX 3090"), tdp_w=None)) is None
    with pytest.raises(ValueError, match="0 or more"):
        upgrade.power_supply(hardware.find("RTX 3090"), cpu_w=-1)


@given(st.floats(0, 1000), st.integers(0, 4), st.floats(0, 500), st.floats(0, 500))
def test_a_supply_is_never_rated_below_what_the_machine_draws(card_w, count, cpu_w, rest_w):
    device = replace(hardware.find("RTX 3090"), tdp_w=card_w, psu_w=None)
    found = upgrade.power_supply(device, count, cpu_w=cpu_w, rest_w=rest_w)
    assert found is not None
    assert found.sustained_w * 1.25 <= found.needed_w + 0.001
    assert found.needed_w < found.sustained_w * 1.25 + 50.001
    assert found.needed_w % 50 == 0
    assert found.spike_w >= found.sustained_w


# --- loss of value -----------------------------------------------------------------------------


def test_half_the_price_after_a_year_is_a_loss_of_half():
    assert upgrade.depreciation([price(800, "2024-01-01"), price(400, "2025-01-01")]) == (
        pytest.approx(0.5, abs=0.001)
    )


def test_a_quarter_of_the_price_after_two_years_is_a_loss_of_half_a_year():
    found = upgrade.depreciation([price(1600, "2023-01-01"), price(400, "2025-01-01")])
    assert found == pytest.approx(0.5, abs=0.001)


def test_what_gets_dearer_loses_less_than_nothing():
    found = upgrade.depreciation([price(50, "2025-01-01"), price(240, "2026-01-01")])
    assert found == pytest.approx(1 - 4.8, rel=0.01)


def test_one_price_or_two_of_the_same_season_say_nothing_about_a_year():
    assert upgrade.depreciation([]) is None
    assert upgrade.depreciation([price(800, "2025-01-01")]) is None
    assert upgrade.depreciation([price(800, "2025-01-01"), price(700, "2025-05-01")]) is None


@given(st.floats(1, 10_000), st.floats(-0.5, 0.9), st.integers(180, 5000))
def test_a_constant_rate_is_found_again(usd, rate, days):
    start = datetime.date(2020, 1, 1)
    later = start + datetime.timedelta(days=days)
    end = usd * (1 - rate) ** (days / 365.25)
    history = [price(end, later.isoformat()), price(usd, start.isoformat())]
    assert upgrade.depreciation(history) == pytest.approx(rate, abs=1e-6)


@given(st.lists(st.floats(1, 10_000), min_size=2, max_size=6), st.floats(0.01, 100))
def test_the_currency_does_not_matter_and_nothing_loses_more_than_all(usd, factor):
    days = [datetime.date(2020 + i, 1, 1).isoformat() for i in range(len(usd))]
    found = upgrade.depreciation([price(u, day) for u, day in zip(usd, days, strict=True)])
    same = upgrade.depreciation([price(u * factor, day) for u, day in zip(usd, days, strict=True)])
    assert found == pytest.approx(same)
    assert found is not None
    assert found < 1


def test_the_prices_next_to_an_event_are_found_or_missed():
    launch = datetime.date(2025, 1, 30)
    history = [price(900, "2024-06-01"), price(850, "2024-12-01"), price(700, "2025-03-01")]
    before, after = upgrade.around(history, launch) or (None, None)
    assert before is not None
    assert after is not None
    assert (before.usd, after.usd) == (850, 700)
    assert upgrade.around(history[:2], launch) is None
    assert upgrade.around([history[0], history[2]], launch) is None
    assert upgrade.around([history[0], history[2]], launch, within_days=300) is not None


# --- what an option brings -----------------------------------------------------------------------


def test_price_per_gib_and_per_added_token():
    found = bought(750, speed(2.5), speed(35.0))
    assert found.usd_per_gib == pytest.approx(31.25)
    assert found.usd_per_speed("m") == pytest.approx(750 / 32.5)


def test_a_model_that_did_not_run_adds_all_of_its_speed():
    assert bought(240, speed(None), speed(0.8)).usd_per_speed("m") == pytest.approx(300)


def test_what_adds_no_speed_has_no_price_for_it():
    assert bought(240, speed(2.5), speed(2.5)).usd_per_speed("m") is None
    assert bought(240, speed(2.5), speed(None)).usd_per_speed("m") is None
    assert bought(None, speed(2.5), speed(35)).usd_per_speed("m") is None


def test_usable_means_that_the_low_end_reaches_reading_pace():
    unsure = bought(240, speed(None), speed(9.0, 3.5, 16.0))
    assert unsure.usable() == ()
    assert unsure.newly_usable("tokens_per_second") == ("m",)
    assert unsure.newly_usable("high") == ("m",)
    sure = bought(750, speed(2.5, 1.3, 3.7), speed(35.0, 31.0, 38.0))
    assert sure.usable() == sure.newly_usable() == ("m",)
    assert bought(750, speed(9, 8, 10), speed(35, 31, 38)).newly_usable() == ()


def test_speed_and_gain_are_written_with_their_doubts():
    unsure = bought(240, speed(None), speed(8.95, 3.51, 15.9))
    assert upgrade.show_speed(unsure.after["m"]) == "8.9 (3.5 to 16)"
    assert upgrade.show_speed(unsure.before["m"]) == "does not run"
    assert upgrade.show_gain(unsure) == "perhaps m"
    assert upgrade.show_gain(bought(750, speed(1), speed(35, 31, 38))) == "m"
    assert upgrade.show_gain(bought(750, speed(1), speed(1, 1, 1))) == "–"


def test_models_per_1000_dollars_count_the_supply_and_the_named_models_only():
    found = bought(750, speed(None), speed(35, 31, 38), supply_usd=250)
    assert found.newly_usable_per_1000_usd(["m", "n"]) == pytest.approx(1.0)
    assert found.newly_usable_per_1000_usd(["n"]) == 0
    assert bought(None, speed(None), speed(35, 31, 38)).newly_usable_per_1000_usd(["m"]) is None


def test_the_budget_counts_the_supply_and_stays_unknown_without_a_price():
    assert bought(750, speed(1), speed(2), supply_usd=200).affordable is True
    assert bought(850, speed(1), speed(2), supply_usd=200).affordable is False
    assert bought(None, speed(1), speed(2)).affordable is None
    assert bought(750, speed(1), speed(2), supply_usd=None).affordable is None


def test_the_cheapest_sure_way_is_found():
    slow = bought(100, speed(None), speed(6, 4, 9))
    dear = bought(900, speed(None), speed(35, 31, 38))
    good = bought(750, speed(None), speed(35, 31, 38))
    unknown = bought(None, speed(None), speed(35, 31, 38))
    assert upgrade.cheapest([slow, dear, good, unknown], "m") is good
    assert upgrade.cheapest([slow, unknown], "m") is None


# --- options -------------------------------------------------------------------------------------


def by_name(options) -> dict[str, Option]:
    return {option.name: option for option in options}


def test_the_guides_machine_gets_the_options_that_the_guide_names():
    found = by_name(upgrade.options(GUIDES, "DDR4"))
    assert list(found) == [
        "nothing: wait",
        "RAM to 64 GiB",
        "RAM to 128 GiB",
        "one more RTX 3080 10GB",
        "RTX 3090",
        "RTX 4080 SUPER",
        "RTX 4090",
        "RTX 5090",
        "RTX A5000",
        "RTX A6000",
        "2 × RTX 3090",
        "Mac Studio M3 Ultra 96 GB",
        "DGX Spark",
    ]
    assert found["2 × RTX 3090"].rig.n_devices == 2
    assert found["2 × RTX 3090"].bought_bytes == 48 * GIB
    assert found["one more RTX 3080 10GB"].rig.n_devices == 2
    assert found["one more RTX 3080 10GB"].bought_bytes == 10 * GIB
    assert found["Mac Studio M3 Ultra 96 GB"].rig.device.memory_bytes == 96 * GIB


def test_modules_are_added_up_to_twice_the_memory_and_replaced_beyond(tmp_path):
    own = own_file(tmp_path, "DDR4 kit 32 GiB,320,street,2026-11-01,a shop,")
    found = by_name(upgrade.options(GUIDES, "DDR4", price_file=own))
    assert found["RAM to 64 GiB"].usd == pytest.approx(320)
    assert found["RAM to 64 GiB"].bought_bytes == 32 * GIB
    assert found["RAM to 128 GiB"].usd == pytest.approx(1280)
    assert found["RAM to 128 GiB"].bought_bytes == 128 * GIB
    # A little of the memory is missing from what the system reports.
    less = replace(GUIDES, ram_bytes=round(31.2 * GIB))
    assert by_name(upgrade.options(less, "DDR4"))["RAM to 64 GiB"].bought_bytes == 32 * GIB


def test_a_machine_without_a_slot_gets_no_card_and_more_memory_is_really_there():
    small = replace(GUIDES, device=replace(GUIDES.ram, memory_bytes=8 * GIB), ram_bytes=8 * GIB)
    found = by_name(upgrade.options(small, "DDR4", takes_cards=False))
    assert {option.kind for option in found.values()} == {"nothing", "ram", "machine"}
    grown = found["RAM to 64 GiB"]
    assert grown.rig.device.memory_bytes == grown.rig.ram_bytes == 64 * GIB
    assert upgrade.answer(small, "qwen2.5-32b").tokens_per_second is None
    assert upgrade.answer(grown.rig, "qwen2.5-32b").tokens_per_second is not None
    assert not any(name.startswith("one more") for name in by_name(upgrade.options(small, "DDR4")))


def test_unified_memory_cannot_grow_and_smaller_cards_are_no_upgrade():
    mac = replace(GUIDES, device=hardware.find("Apple M4 Pro (20c)"))
    assert {option.kind for option in upgrade.options(mac, "DDR5")} == {"nothing", "machine"}
    large = replace(GUIDES, device=hardware.find("RTX A6000"), ram_bytes=128 * GIB)
    names = list(by_name(upgrade.options(large, "DDR5")))
    assert names[:2] == ["nothing: wait", "one more RTX A6000"]
    assert "RTX 3090" not in names
    assert "2 × RTX 3090" not in names
    assert not any(name.startswith("RAM") for name in names)


def test_who_has_one_card_of_the_pair_buys_the_other():
    one = replace(GUIDES, device=hardware.find("RTX 3090"))
    names = list(by_name(upgrade.options(one, "DDR4")))
    assert "one more RTX 3090" in names
    assert "2 × RTX 3090" not in names


def test_an_unknown_kind_of_memory_has_no_price():
    assert by_name(upgrade.options(GUIDES, "DDR9"))["RAM to 64 GiB"].usd is None


def test_a_used_price_comes_before_a_new_one_and_the_readers_own_before_both(tmp_path):
    found = upgrade.price_of("GeForce RTX 4090")
    assert found is not None
    assert found.kind == "used"
    own = own_file(tmp_path, "GeForce RTX 4090,1234,street,2020-01-01,a neighbour,")
    mine = upgrade.price_of("GeForce RTX 4090", own)
    assert mine is not None
    assert mine.usd == 1234
    assert upgrade.price_of("GeForce RTX 4080 SUPER").kind == "launch"
    assert upgrade.price_of("a card that nobody makes") is None


# --- evaluation ----------------------------------------------------------------------------------


def evaluated(rig=GUIDES, **settings) -> dict[str, Evaluation]:
    settings = {"budget_usd": 1000, "psu_w": 750, **settings}
    found = upgrade.evaluate(rig, upgrade.options(rig, "DDR4"), WANTED, **settings)
    return {evaluation.option.name: evaluation for evaluation in found}


def test_waiting_changes_nothing_and_costs_nothing():
    found = evaluated()["nothing: wait"]
    assert found.before == found.after
    assert found.newly_usable() == ()
    assert found.total_usd == 0
    assert found.affordable is True
    assert found.usd_per_gib is None


def test_a_larger_card_makes_a_larger_model_usable():
    found = evaluated()["RTX 3090"]
    assert found.newly_usable() == ("qwen2.5-32b",)
    assert found.supply_usd == 0
    assert found.total_usd == found.option.usd
    assert found.affordable is True


def test_a_supply_that_is_too_small_is_bought_with_the_card(tmp_path):
    own = own_file(
        tmp_path,
        "Power supply 850 W,130,street,2026-11-01,a shop,",
        "Power supply 1200 W,210,street,2026-11-01,a shop,",
    )
    assert evaluated(price_file=own)["RTX 4090"].supply_usd == 130
    assert evaluated(price_file=own)["2 × RTX 3090"].supply_usd == 210
    assert evaluated(price_file=own, psu_w=2000)["2 × RTX 3090"].supply_usd == 0


def test_an_unknown_supply_leaves_the_total_of_a_card_unknown_but_not_of_ram_or_a_machine():
    found = evaluated(psu_w=None)
    assert found["RTX 3090"].total_usd is None
    assert found["RTX 3090"].affordable is None
    assert found["RAM to 64 GiB"].total_usd == found["RAM to 64 GiB"].option.usd
    assert found["DGX Spark"].total_usd == found["DGX Spark"].option.usd


def test_nonsense_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="No model is wanted"):
        upgrade.evaluate(GUIDES, upgrade.options(GUIDES), [])
    with pytest.raises(ValueError, match="budget_usd is -1"):
        upgrade.evaluate(GUIDES, upgrade.options(GUIDES), WANTED, budget_usd=-1)
    with pytest.raises(LookupError, match="No model 'llama-99'"):
        upgrade.evaluate(GUIDES, upgrade.options(GUIDES), ["llama-99"])


def test_a_context_that_is_longer_than_the_models_is_cut():
    assert upgrade.answer(GUIDES, "llama-2-7b").note.count("trained for") == 0


@given(st.integers(33, 512), st.integers(0, 200))
def test_more_memory_never_makes_a_model_slower_or_impossible(gib, more):
    one = upgrade.answer(replace(GUIDES, ram_bytes=gib * GIB), "llama-3.3-70b")
    other = upgrade.answer(replace(GUIDES, ram_bytes=(gib + more) * GIB), "llama-3.3-70b")
    assert (other.tokens_per_second or 0) >= (one.tokens_per_second or 0)
