"""How far an answer hangs on the weights: rules left out, weights drawn anew, intervals' ends."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import decide, plan, units
from guidebook.catalog.clouds import Offer
from guidebook.cost.use import WEEKS_PER_MONTH
from guidebook.decide import READY_MADE, RULES, Terms, Workload, judgement, workloads

DAY = datetime.date(2026, 11, 1)
GUIDES = plan.rig("GeForce RTX 3080 10GB", 1, "DDR4-3200 dual channel (2x64-bit)", 32 * units.GIB)
TERMS = Terms(
    tuple(
        Offer(gpu, "a provider", "on-demand", usd, usd, DAY, "by hand")
        for gpu, usd in {"GeForce RTX 4090": 0.5, "RTX A6000": 0.6, "H100 SXM5 80GB": 3.0}.items()
    )
)
ANY = st.sampled_from(READY_MADE)
# Slow here, and rent costs little: 3 points against the digits of money.
CLOSE = Workload("32B prompts", "experiment", "qwen2.5-32b", hours=2, runs_per_month=20)


def decided(workload, terms=TERMS):
    return decide.decide(workload, GUIDES, terms, with_changes=False)


@given(ANY)
def test_leaving_nothing_out_and_weighing_as_before_change_nothing(workload):
    found = decided(workload)
    assert decide.without(found, []) == found.best
    assert decide.weighed(found, lambda reason: reason.weight) == found.best
    assert decide.shaken(found, 1.0, 3) == {found.best: 1.0}


@given(ANY, st.sampled_from(RULES))
def test_without_a_rule_the_answer_is_that_of_the_other_rules(workload, rule):
    rest = [other for other in RULES if other.id != rule.id]
    again = decide.decide(workload, GUIDES, TERMS, rest, with_changes=False)
    found = decided(workload)
    assert decide.without(found, [rule.id]) == again.best
    assert decide.turning(found).get(rule.id, found.best) == again.best


def test_a_service_comes_home_when_it_may_be_down():
    assert decide.turning(decided(workloads.SERVICE_8B)) == {"availability": "local"}


def test_what_does_not_fit_stays_away_whatever_the_weights():
    found = decided(workloads.FULL_FINE_TUNE_8B)
    assert "local" not in decide.shaken(found, 100.0, 200)
    assert decide.weighed(found, lambda reason: 4.0 if reason.place == "here" else 0.0) == "hybrid"


@settings(max_examples=30)
@given(ANY, st.integers(0, 2**32), st.floats(1, 10))
def test_shares_add_up_and_the_same_seed_gives_the_same(workload, seed, factor):
    found = decided(workload)
    shares = decide.shaken(found, factor, 20, seed)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == found.best
    assert shares == decide.shaken(found, factor, 20, seed)


def test_a_close_answer_is_shaken_and_a_clear_one_is_not():
    close, clear = decided(CLOSE), decided(workloads.PROMPT_ENGINEERING)
    assert 0.2 < decide.shaken(close, 2.0, 300)["cloud"] < 0.95
    assert decide.shaken(clear, 2.0, 300) == {"local": 1.0}


@pytest.mark.parametrize(("factor", "n_draws"), [(0.5, 10), (float("nan"), 10), (2.0, 0)])
def test_a_factor_below_one_and_no_draw_are_refused(factor, n_draws):
    with pytest.raises(ValueError, match="at least 1"):
        decide.shaken(decided(CLOSE), factor, n_draws)


def test_the_ends_of_an_interval_can_give_two_answers():
    workload = replace(CLOSE, model="llama-3.1-8b", quant="F16", runs_per_month=1)
    speed = decided(workload).facts.here.needs.speed
    # More than twice what the slow end brings, less than the fast one does.
    wanted = speed.low * 2.1
    assert wanted < speed.high
    found = decided(replace(workload, least_speed=wanted))
    assert decide.at_end(found, "slow") == "cloud"
    assert decide.at_end(found, "fast") == "local"


@given(ANY)
def test_a_faster_machine_never_sends_work_away(workload):
    distance = {"local": 0, "hybrid": 1, "cloud": 2, None: 3}
    found = decided(workload)
    ends = [distance[decide.at_end(found, end)] for end in ("fast", "slow")]
    assert ends[0] <= distance[found.best] <= ends[1]


def test_the_end_of_an_interval_is_slow_in_speed_and_long_in_time():
    span = decided(workloads.QLORA_8B).facts.here.needs.hours
    assert judgement._end(span, high=True).mid == span.high
    assert judgement._end(None, high=True) is None


def test_hours_of_a_week_are_runs_of_a_month():
    weekly = workloads.PROMPT_ENGINEERING.weekly(10)
    assert weekly.hours_per_week == pytest.approx(10)
    assert weekly.runs_per_month == pytest.approx(10 * WEEKS_PER_MONTH / 2)
    assert workloads.QLORA_8B.hours_per_week is None
    with pytest.raises(ValueError, match="runs_per_month"):
        workloads.QLORA_8B.weekly(10)
    with pytest.raises(ValueError, match="0 or more"):
        workloads.PROMPT_ENGINEERING.weekly(-1)
