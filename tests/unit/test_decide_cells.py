"""A decision's parts as texts, and the guide's points as cases."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from guidebook import decide, plan, units
from guidebook.catalog.clouds import Offer
from guidebook.decide import READY_MADE, Terms, cells, workloads
from guidebook.decide.durations import Span, between, exactly
from guidebook.decide.sides import Needs

GUIDES = plan.rig("GeForce RTX 3080 10GB", 1, "DDR4-3200 dual channel (2x64-bit)", 32 * units.GIB)
DAY = datetime.date(2026, 11, 1)
TERMS = Terms(
    tuple(
        Offer(gpu, "a provider", "on-demand", usd, usd, DAY, "by hand", dated="2026-11")
        for gpu, usd in {"GeForce RTX 4090": 0.5, "H100 SXM5 80GB": 3.0}.items()
    )
)


def decided(workload, terms=TERMS, **options):
    return decide.decide(workload, GUIDES, terms, with_changes=False, **options)


def test_inference_has_a_speed_and_a_run_a_duration():
    assert cells.pace(Needs(1, True, True, Span(1, 2, 3), hours=exactly(9))) == "1 to 3 tokens/s"
    assert cells.pace(Needs(1, True, True, hours=Span(2, 3, 4))) == "2 to 4 h"
    assert cells.pace(Needs(1, True, True)) == cells.NONE
    assert cells.pace(Needs(1, False, False)) == "does not run"


def test_ends_that_look_alike_are_shown_once():
    assert between(exactly(20.0), "h") == "20 h"


def test_what_is_rented_is_counted_and_dated():
    one = decided(workloads.PROMPT_ENGINEERING).facts.there
    assert cells.rented(one) == "GeForce RTX 4090 (a provider, $0.50, 2026\u201111)"
    two = decided(workloads.SERVICE_8B).facts.there
    assert cells.rented(two).startswith("2 × ")
    assert cells.rented(None) == "nothing on the price list"


def test_a_lead_is_a_number_or_alone():
    assert cells.lead(decided(replace(workloads.QLORA_8B, runs_per_month=0))) == "2.0"
    assert cells.lead(decided(workloads.SENSITIVE_DATA)) == "alone"
    assert cells.lead(decided(workloads.INFERENCE_70B, Terms())) == cells.NONE


def test_the_reason_given_first_is_what_bars_the_other_place():
    assert "more than" in cells.because(decided(workloads.FULL_FINE_TUNE_8B))
    assert "may not leave" in cells.because(decided(workloads.SENSITIVE_DATA))


def test_where_nothing_bars_it_is_what_weighs_most():
    assert "down" in cells.because(decided(workloads.SERVICE_8B))
    idle = replace(workloads.PREPROCESSING, kind="inference", model="llama-3.1-8b", hours=0)
    assert "tie" in cells.because(decided(idle))


def test_where_nothing_can_be_done_each_obstacle_is_named_once():
    text = cells.because(decided(replace(workloads.FULL_FINE_TUNE_8B, sensitive=True)))
    assert "may not leave" in text
    assert text.count("more than") == 1


@pytest.mark.parametrize("workload", READY_MADE, ids=lambda workload: workload.name)
def test_every_ready_made_workload_has_texts(workload):
    found = decided(workload)
    for text in (cells.because(found), cells.lead(found), cells.rented(found.facts.there)):
        assert text.strip()


def test_changes_stand_in_one_line():
    found = decide.decide(workloads.QLORA_8B, GUIDES, TERMS)
    assert cells.otherwise(found) == "; ".join(change.text for change in found.changes)
    assert cells.otherwise(decided(workloads.QLORA_8B)) == "nothing within reach"


def test_every_price_is_multiplied_and_nothing_else():
    dear = TERMS.priced(3)
    assert [o.usd_per_gpu_hour for o in dear.offers] == pytest.approx([1.5, 9.0])
    assert replace(dear, offers=TERMS.offers) == TERMS


def test_a_pace_that_is_not_bearable_makes_no_small_experiment():
    slow = replace(workloads.PROMPT_ENGINEERING, model="qwen2.5-32b")
    assert "small-scale" not in {reason.rule for reason in decided(slow).reasons}
    patient = replace(slow, least_speed=3.0)
    assert "small-scale" in {reason.rule for reason in decided(patient).reasons}


def test_a_hopeless_demand_weighs_more_than_a_bad_one():
    weights = [
        next(r.weight for r in decided(work).reasons if r.rule == "pace")
        for work in (
            replace(workloads.PROMPT_ENGINEERING, model="qwen2.5-32b", least_speed=speed)
            for speed in (2.0, 4.0, 10.0, 30.0)
        )
    ]
    assert weights == [0.0, 1.0, 3.0, 4.0]


def test_a_decision_is_laid_out_in_lines_that_fit():
    found = decide.decide(workloads.SERVICE_8B, GUIDES, TERMS)
    narrow = decide.show(found, 60)
    assert max(len(line) for line in narrow.splitlines()) <= 60
    assert narrow.split() == decide.show(found, 1000).split()
