"""The speed model is what the published measurements give, and holds on devices left out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from guidebook import calibration, scoreboard, speed, units
from guidebook.calibration import mean_absolute_error
from guidebook.catalog import hardware


@pytest.fixture(scope="module")
def calibrated():
    return calibration.calibrate()


def chosen(checks, table, phase, backend=None, moe=None):
    return [
        check
        for check in checks
        if check.observation.table.startswith(table)
        and check.observation.phase == phase
        and backend in (None, check.observation.device.backend)
        and moe in (None, check.observation.architecture.is_moe)
    ]


def test_the_committed_coefficients_are_those_that_the_tables_give(calibrated):
    text = resources.files("guidebook.catalog").joinpath("speed.json").read_text("utf-8")
    committed, fitted = json.loads(text), calibration.to_dict(calibrated[0])
    assert committed["devices"] == fitted["devices"]
    for part in ("coefficients", "intervals"):
        assert committed[part].keys() == fitted[part].keys()
        for name, figures in fitted[part].items():
            # A coefficient at its bound of zero is zero but for rounding.
            assert committed[part][name] == pytest.approx(figures, rel=0.01, abs=1e-9), name
    assert committed["unpacking"] == pytest.approx(fitted["unpacking"], rel=0.01)


@pytest.mark.parametrize(
    ("table", "phase", "backend", "most"),
    [
        ("llamacpp_scoreboards", "decode", "CUDA", 0.07),
        ("llamacpp_scoreboards", "prefill", "CUDA", 0.25),
        ("llamacpp_4167", "decode", "Metal", 0.08),
        ("llamacpp_4167", "prefill", "Metal", 0.25),
        ("llamacpp_15396", "decode", None, 0.20),
        ("llamacpp_15396", "prefill", None, 0.25),
    ],
)
def test_devices_left_out_of_the_fit_are_predicted_within_the_target(
    calibrated, table, phase, backend, most
):
    found = chosen(calibrated[1], table, phase, backend)
    assert len(found) >= 10
    assert mean_absolute_error(found) <= most


def test_every_device_is_left_out_once_with_all_its_rows(calibrated):
    _, checks = calibrated
    assert [check.observation for check in checks] == list(calibration.observations())


def test_leaving_a_device_out_really_keeps_its_measurements_from_the_fit():
    found = calibration.observations()
    wrong = [
        replace(o, tokens_per_second=o.tokens_per_second * 10)
        if o.device.name == "GeForce RTX 3090"
        else o
        for o in found
    ]
    one, other = (
        [check.predicted for check in calibration.cross_validate(rows, ["GeForce RTX 3090"])]
        for rows in (found, wrong)
    )
    assert len(one) >= 3
    assert one == other


def test_no_family_rests_on_a_single_device():
    """Every coefficient that the fit finds is shared by at least two devices."""
    devices: dict[str, set[str]] = {}
    for o in calibration.observations():
        family = speed.family(o.device)
        parameters = calibration.parameters(family, o.phase, moe=o.architecture.is_moe)
        for name in parameters:
            devices.setdefault(name, set()).add(o.device.name)
    alone = {name: members for name, members in devices.items() if len(members) < 2}
    assert not alone


def test_intervals_hold_about_nine_of_ten_of_the_errors_behind_them(calibrated):
    model, checks = calibrated
    inside = []
    for check in checks:
        o = check.observation
        interval = model.intervals[speed.interval_group(o.device, o.phase, o.architecture.is_moe)]
        inside.append(interval.low <= o.tokens_per_second / check.predicted <= interval.high)
    assert 0.88 <= sum(inside) / len(inside) <= 1


def test_the_planner_is_closer_than_every_other_tool_on_its_main_tables(calibrated):
    rows = scoreboard.summary(calibrated[1])
    main = [
        row for row in rows if row["backend"] in ("CUDA", "Metal") and "#" in row["measurements"]
    ]
    assert main
    for row in main:
        for tool in ("llmfit", "ggufit", "llmcalculator", "bandwidth / size", "fitted formula"):
            if row[tool] != "–":
                assert _percent(row["planner"]) < _percent(row[tool]), (row, tool)


def _percent(text):
    return float(text.removesuffix(" %"))


def test_every_row_of_the_scoreboard_names_its_device_and_error(calibrated):
    rows = scoreboard.devices(calibrated[1])
    assert len(rows) == len(calibrated[1])
    assert all(row["device"] and row["error"][0] in "+-" for row in rows)


def test_devices_of_the_tables_are_in_the_catalog_under_the_names_given():
    for o in calibration.observations():
        assert hardware.find(o.device.name).name == o.device.name


def test_no_error_is_no_mean():
    assert math.isnan(mean_absolute_error([]))


def test_the_readme_states_the_errors_that_the_calibration_has(calibrated):
    """One row of the README's table per row here: what it is, its size, then percentages."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    stated = {
        tuple(cell.strip() for cell in line.strip("| \n").split("|")[1:3])
        for line in readme.splitlines()
        if line.startswith("|") and "Planner" not in line and line.count("|") == 8
    }
    _, checks = calibrated
    for table, phase, backend in (
        ("llamacpp_scoreboards", "decode", "CUDA"),
        ("llamacpp_4167", "decode", "Metal"),
        ("llamacpp_15396", "decode", "CUDA"),
        ("llamacpp_scoreboards", "prefill", "CUDA"),
    ):
        found = chosen(checks, table, phase, backend)
        error = units.percent(mean_absolute_error(found))
        assert (str(len(found)), error) in stated
    assert f"{len(checks)} published measurements" in readme
