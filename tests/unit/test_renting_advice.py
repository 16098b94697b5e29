"""The advice on renting turns where the costs cross, and says what it rests on."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import plan, renting_advice, report, units, upgrade
from guidebook.catalog import hardware
from guidebook.catalog.clouds import Offer
from guidebook.cost import ownership, renting
from guidebook.decide import Terms
from guidebook.renting_advice import Habits

DDR4 = "DDR4-3200 dual channel (2x64-bit)"
# The guide's example machine: i7-11700KF, 32 GB of DDR4, RTX 3080 10 GB.
GUIDES = plan.rig("GeForce RTX 3080 10GB", ram=DDR4, ram_bytes=32 * units.GIB)
NO_CARD = plan.Rig(
    replace(hardware.find(DDR4), memory_bytes=16 * units.GIB),
    1,
    hardware.find(DDR4),
    16 * units.GIB,
)


def offer(gpu: str, usd: float) -> Offer:
    return Offer(gpu, "Somebody", "on-demand", usd, usd, datetime.date(2026, 11, 1), "", dated="x")


# One price each, so that what is expected can be worked out by hand.
TERMS = Terms((offer("GeForce RTX 3090", 0.30), offer("H100 SXM5 80GB", 2.0)), usd_per_kwh=0.20)


def bought(name: str) -> upgrade.Evaluation:
    options = upgrade.options(GUIDES, "DDR4")
    found = upgrade.evaluate(GUIDES, options, report.WANTED, psu_w=750)
    return next(one for one in found if one.option.name == name)


@pytest.fixture(scope="module")
def advised():
    purchases = [bought("RAM to 64 GiB"), bought("RTX 3090")]
    return renting_advice.advise(GUIDES, report.WANTED, purchases)


# --- Hours and price --------------------------------------------------------------------------


def test_the_least_hours_are_those_of_a_computation_by_hand():
    # 750 USD used lose 12.5 % a year: after 24 months 750 × 0.875² = 574.22 are left, so the card
    # costs 175.78. An hour at home takes 575 W at 0.20 USD: 0.115. An hour rented costs 0.30, and
    # 10 minutes before every 2 hours: 0.325. 175.78 / (0.325 - 0.115) = 837 hours in 104.36 weeks.
    against, _ = renting_advice.comparison(bought("RTX 3090"), Habits(usd_per_kwh=0.20), TERMS)
    assert against.purchase.usd == 750
    assert against.purchase.load_w == 575
    assert renting_advice.least_hours(against, 24) == pytest.approx(837 / 104.36, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(price=st.floats(0.15, 3.0), months=st.floats(6, 60))
def test_at_the_least_hours_both_cost_the_same_and_beyond_them_buying_costs_less(price, months):
    terms = replace(TERMS, offers=(offer("GeForce RTX 3090", price),))
    against, _ = renting_advice.comparison(bought("RTX 3090"), Habits(usd_per_kwh=0.2), terms)
    least = renting_advice.least_hours(against, months)
    if least is None:
        return
    costs = []
    for hours in (least, min(168.0, 1.01 * least)):
        use = replace(against.use, hours_per_week=hours)
        owned = ownership.own(against.purchase, use, against.conditions, months).total_usd
        costs.append(renting.bill(against.rental, use, months).total_usd - owned)
    assert costs[0] == pytest.approx(0, abs=1e-6 * against.purchase.usd)
    assert costs[1] >= -1e-9


def test_where_rent_is_cheaper_than_electricity_buying_never_pays():
    terms = replace(TERMS, offers=(offer("GeForce RTX 3090", 0.05),))
    against, _ = renting_advice.comparison(bought("RTX 3090"), Habits(usd_per_kwh=0.4), terms)
    assert renting_advice.least_hours(against, 24) is None


def test_a_purchase_that_brings_nothing_or_that_nothing_rented_replaces_is_not_compared():
    assert renting_advice.comparison(bought("RTX 4080 SUPER"), Habits(), TERMS) is None
    assert renting_advice.comparison(bought("RTX 3090"), Habits(), Terms()) is None


@pytest.mark.parametrize(("hours", "first_words"), [(2, "rent instead"), (60, "buy RTX 3090")])
def test_the_advice_turns_with_the_readers_hours(hours: float, first_words: str):
    habits = Habits(hours_per_week=hours)
    found = renting_advice.advise(GUIDES, report.WANTED, [bought("RTX 3090")], habits)
    (card,) = (one for one in found if "RTX 3090" in one.what and "instead" in one.what)
    assert card.what.startswith(f"At {hours} h a week {first_words}")


@pytest.mark.parametrize("wrong", [{"hours_per_week": 0}, {"hours_per_week": 169}, {"months": 0}])
def test_habits_that_no_week_has_are_refused(wrong):
    with pytest.raises(ValueError, match="Give more than 0"):
        Habits(**wrong)


# --- Jobs and sizes ---------------------------------------------------------------------------


def test_for_the_guides_machine_large_training_is_rented_and_small_work_stays(advised):
    rent, stay = advised[0], advised[-1]
    assert rent.what.startswith("Rent for: ")
    jobs = [why.split(":")[0] for why in rent.why]
    assert {"full fine-tune of 8B", "pre-training of 1B"} <= set(jobs)
    kept = [why.split(":")[0] for why in stay.why]
    assert {"prompt engineering, 8B", "QLoRA of 8B", "coding, debugging, unit tests"} <= set(kept)
    assert not set(jobs) & set(kept)


def test_every_job_to_rent_has_a_reason_and_a_dated_price(advised):
    for why in advised[0].why:
        assert "per GPU hour (" in why
        assert why.count(".") >= 3


def test_wanted_models_that_run_here_are_not_rented(advised):
    (models,) = (one for one in advised if one.what.startswith("Rent to use"))
    assert "llama-3.3-70b" in models.what
    assert "llama-3-8b" not in models.what
    none = renting_advice.advise(GUIDES, ["llama-3-8b"])
    assert not any(one.what.startswith("Rent to use") for one in none)


def test_a_model_that_nothing_rented_runs_says_so():
    found = list(renting_advice._models(NO_CARD, ["llama-3.3-70b"], Habits(), Terms()))
    assert "nothing on the price list does better" in found[0].why[0]


def test_what_trains_here_fits_and_is_done_in_a_night():
    reach = renting_advice.training_reach(GUIDES)
    assert reach.what.startswith("Train here: QLoRA up to ")
    assert reach.what.endswith("Rent beyond that")
    # QLoRA reaches further than LoRA, and that further than all weights.
    sizes = [
        renting_advice.catalog.find(renting_advice._largest(GUIDES, method)[0]).n_weights
        for method in ("qlora", "lora", "full")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_a_machine_that_trains_nothing_within_a_night_says_so():
    slow = replace(NO_CARD, device=replace(NO_CARD.device, fp32_flops=1e9))
    assert renting_advice.training_reach(slow).what.startswith("Rent to train: nothing")
    assert renting_advice.training_reach(NO_CARD).what.startswith("Train here: ")


def test_what_a_reader_notes_in_a_price_list_of_rent_stays_there(tmp_path: Path):
    own = tmp_path / "clouds.csv"
    own.write_text(
        "item,provider,gpu,tier,gpus,low,high,as_of,source,note\n"
        "usd_per_gpu_hour,Zarniwoop's cellar,GeForce RTX 3090,on-demand,1,0.01,,2026-11-20,him,x\n"
    )
    found = renting_advice.advise(GUIDES, report.WANTED, habits=Habits(price_file=own))
    text = " ".join(why for one in found for why in one.why)
    assert "$0.01 per GPU hour (your own price list)" in text
    assert "Zarniwoop" not in text
