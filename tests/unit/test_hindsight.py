"""Measured speeds are set against what the planner says, and nothing else is."""

from __future__ import annotations

import pytest
from run_results import LAPTOP, record_of, results_of

from guidebook import hindsight, plan, report

READINGS = {
    "memory_bandwidth": ("bytes/s", [3.0e10, 3.0e10, 3.0e10]),
    "decode_q4_0_256": ("tokens/s", [100.0, 101.0, 99.0]),
    "decode_q8_0_1536": ("tokens/s", [1.0, 1.0, 1.0]),
    "decode_8_layers_in_ram": ("tokens/s", [9.0, 9.0, 9.0]),
    "load": ("s", [1.0, 1.0, 1.0]),
}
SERVER = {**LAPTOP, "gpus": []}


def checks(**given):
    wanted = {"device": "cpu", "machine": SERVER, "readings": READINGS, **given}
    record = record_of(results_of("12-bottlenecks", **wanted))
    return hindsight.checks(record, report.rig_of(record))


def test_only_speeds_whose_name_tells_file_and_depth_are_checked():
    found = checks()
    assert [(one.quant, one.n_prompt) for one in found] == [("Q4_0", 256), ("Q8_0", 1536)]
    assert [one.measured for one in found] == [100.0, 1.0]
    assert not found[1].is_inside


def test_the_prediction_is_the_planners_for_the_measured_bandwidth():
    (one, _) = checks()
    doubled = {**READINGS, "memory_bandwidth": ("bytes/s", [6.0e10] * 3)}
    (other, _) = checks(readings=doubled)
    assert one.low < one.predicted < one.high
    assert other.predicted > 1.3 * one.predicted


def test_a_run_on_the_processor_is_not_predicted_for_the_card_beside_it():
    (on_cpu, _) = checks(machine=LAPTOP)
    (on_card, _) = checks(machine=LAPTOP, device="cuda")
    assert on_card.predicted > 2 * on_cpu.predicted


def test_a_model_that_the_catalog_does_not_know_is_not_guessed():
    assert checks(model="some/private-model") == ()
    assert checks(model="model.gguf") == ()


def test_a_chapter_that_says_nothing_about_its_prompts_is_left_out():
    record = record_of(results_of("33-offloading", readings=READINGS))
    assert hindsight.checks(record, report.rig_of(record)) == ()


def test_without_measurements_there_is_nothing_to_check():
    record = report.guides_machine()
    assert hindsight.checks(record, plan.rig("GeForce RTX 3080 10GB")) == ()


@pytest.mark.parametrize("measured", [10.0, 1e6])
def test_a_speed_on_either_side_of_the_interval_is_outside(measured: float):
    readings = {"decode_q4_0_256": ("tokens/s", [measured] * 3)}
    (one,) = checks(readings=readings)
    assert not one.is_inside
