"""Two records differ where their readings do, beyond noise, and agree where noise explains it."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from run_results import CHAPTERS, LAPTOP, record_of, results_of

from guidebook import compare
from guidebook.compare import Finding

STEADY = [100.0, 101.0, 99.0]
TWICE = [200.0, 202.0, 198.0]


def with_decode(*samples: float, unit: str = "tokens/s", **changes):
    return results_of("11-your-machine", readings={"decode": (unit, samples)}, **changes)


def row(a: list[float], b: list[float]) -> compare.MeasurementRow:
    (found,) = compare.compare(record_of(with_decode(*a)), record_of(with_decode(*b))).measurements
    return found


# --- The whole --------------------------------------------------------------------------------


def test_a_record_matches_itself():
    found = compare.compare(record_of(), record_of())
    assert found.matches
    assert (found.claims, found.settings, found.left_out) == ((), (), ())
    assert {one.finding for one in found.measurements} == {Finding.AGREES}
    assert "They match" in str(found)


def test_a_claim_that_held_here_and_was_refuted_there_contradicts():
    a = record_of(results_of("11-your-machine", outcome="held"))
    b = record_of(results_of("11-your-machine", outcome="refuted"))
    found = compare.compare(a, b)
    assert found.contradictions
    assert not found.matches
    assert "11-memory-binds-decode" in {one.id for one in found.contradictions}
    assert "evidence of A" in str(found)


def test_a_claim_that_was_not_tested_on_one_machine_is_shown_and_contradicts_nothing():
    a = record_of(results_of("11-your-machine", outcome="held"))
    b = record_of(results_of("11-your-machine", outcome="not tested here"))
    found = compare.compare(a, b)
    assert len(found.claims) == len(a.claims)
    assert found.contradictions == ()
    assert found.matches


def test_a_chapter_that_only_one_ran_is_named_and_not_compared():
    a, b = record_of(), record_of(results_of(CHAPTERS[1]))
    found = compare.compare(a, b)
    assert found.left_out == (f"Only A ran {CHAPTERS[0]}.",)
    assert {one.chapter for one in found.measurements} == {CHAPTERS[1]}
    assert found.claims == ()


@pytest.mark.parametrize("other", [{"model": "mine.gguf"}, {"profile": "full"}])
def test_measurements_with_another_model_or_profile_are_not_compared(other):
    found = compare.compare(
        record_of(with_decode(*STEADY)), record_of(with_decode(*STEADY, **other))
    )
    assert found.measurements == ()
    assert "another model or another profile" in found.left_out[0]
    assert [one.what for one in found.settings] == list(other)


def test_another_device_is_compared_and_named():
    found = compare.compare(
        record_of(with_decode(*STEADY)), record_of(with_decode(*TWICE, device="cpu"))
    )
    assert [one.finding for one in found.measurements] == [Finding.DIFFERS]
    assert [(one.what, one.a, one.b) for one in found.settings] == [("device", "cuda", "cpu")]


def test_another_unit_and_a_measurement_of_one_side_are_named():
    a = record_of(with_decode(*STEADY))
    b = record_of(with_decode(*STEADY, unit="tokens/min"))
    found = compare.compare(a, b)
    assert found.measurements == ()
    assert "11 decode" in found.left_out[0]


def test_what_differs_in_machine_and_software_is_listed():
    software = {"python": "3.12.3", "packages": {"torch": "2.14.0+cu130", "vllm": "1.0.0"}}
    b = replace(
        record_of(results_of("11-your-machine", machine={**LAPTOP, "software": software})),
        commit="f" * 40,
    )
    a = replace(record_of(results_of("11-your-machine")), commit=None)
    found = {one.what: (one.a, one.b) for one in compare.compare(a, b).settings}
    assert found == {
        "commit": ("unknown", "f" * 12),
        "torch": ("2.13.0+cu130", "2.14.0+cu130"),
        "numpy": ("2.4.6", "–"),
        "vllm": ("–", "1.0.0"),
    }


def test_differences_come_first_and_in_every_form():
    readings = {"a": ("tokens/s", STEADY), "b": ("tokens/s", STEADY), "c": ("s", [0.5])}
    faster = {**readings, "b": ("tokens/s", TWICE)}
    a, b = (record_of(results_of("11-your-machine", readings=one)) for one in (readings, faster))
    found = compare.compare(a, b)
    assert [one.name for one in found.measurements] == ["b", "a", "c"]
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["matches"], data["measurements"][0]["ratio"]) == (False, 2.0)
    assert data["measurements"][2]["finding"] == "not repeated"
    assert "2.00 ×" in str(found)
    assert "<caption>" in found._repr_html_()


@pytest.mark.parametrize("allowance", [-0.1, math.nan, math.inf])
def test_an_allowance_that_says_nothing_is_refused(allowance):
    with pytest.raises(ValueError, match="Give a share"):
        compare.compare(record_of(), record_of(), allowance=allowance)


# --- The test ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "finding"),
    [
        (STEADY, TWICE, Finding.DIFFERS),
        (STEADY, STEADY, Finding.AGREES),
        (STEADY, [103.0, 104.0, 102.0], Finding.AGREES),
        ([50.0, 100.0, 150.0], [60.0, 130.0, 180.0], Finding.WITHIN_NOISE),
        ([100.0], [300.0], Finding.NOT_REPEATED),
        ([7.0, 7.0], [7.0, 7.0], Finding.AGREES),
        ([7.0, 7.0], [9.0, 9.0], Finding.DIFFERS),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], Finding.AGREES),
        ([0.0, 0.0, 0.0], [5.0, 5.0, 5.0], Finding.DIFFERS),
        ([-1.0, -1.1, -0.9], [-2.0, -2.1, -1.9], Finding.DIFFERS),
    ],
)
def test_readings_lead_to_the_finding(a, b, finding):
    found = row(a, b)
    assert found.finding == finding
    if min(*a, *b) > 0 and len(a) > 1:
        assert found.low <= found.ratio <= found.high


def test_the_interval_is_the_one_worked_out_by_hand():
    # logs of 90, 100, 110 and 190, 200, 210: variances 0.010088 and 0.0025073; with no usual noise
    # Welch has (0.010088/3 + 0.0025073/3)² / ((0.010088/3)²/2 + (0.0025073/3)²/2) = 2.94 degrees,
    # so t = 9.925 (of 2), and half of the interval is 9.925 · √(0.0041985) = 0.643.
    ratio, low, high, finding = compare.judge([90, 100, 110], [190, 200, 210])
    assert ratio == 2
    assert math.log(high / ratio) == pytest.approx(0.643, abs=0.001)
    assert math.log(ratio / low) == pytest.approx(0.643, abs=0.001)
    assert finding == Finding.WITHIN_NOISE
    # The usual noise of 2 % (variance 0.0004) counts like three readings more in each series:
    # (2·0.010088 + 3·0.0004)/5 = 0.004275 and 0.001243, 3 of each: variance 0.001839; Welch has
    # 7.7 degrees, so t = 3.499 and the half is 0.150.
    *_, high, finding = compare.judge([90, 100, 110], [190, 200, 210], usual=0.0004)
    assert math.log(high / 2) == pytest.approx(0.150, abs=0.001)
    assert finding == Finding.DIFFERS


def test_quantiles_are_those_of_student_and_never_too_small():
    stats = pytest.importorskip("scipy.stats")
    for degrees, value in compare._QUANTILES:
        assert value == pytest.approx(stats.t.ppf(0.995, degrees), abs=0.001)
    for degrees in (1.5, 2.9, 11, 25.5, 500):
        assert compare.quantile(degrees) >= stats.t.ppf(0.995, degrees) - 0.001
    assert compare.quantile(0.5) == math.inf


def series() -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.1, 1e6), min_size=2, max_size=8)


@given(series(), series(), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 0.5)))
@settings(max_examples=100)
def test_the_finding_is_the_same_from_either_side_and_in_any_unit_and_order(a, b, allowed, usual):
    forth = compare.judge(a, b, allowed, usual)
    back = compare.judge(b, a, allowed, usual)
    other = compare.judge([x * 1024 for x in reversed(a)], [x * 1024 for x in b], allowed, usual)
    # At the very edge rounding may decide, and decides nothing of interest.
    band = math.log1p(allowed)
    edges = [abs(abs(math.log(end)) - band) for end in forth[1:3] if 0 < end < 1e299]
    assume(all(edge > 1e-9 for edge in edges))
    assert forth[3] == back[3] == other[3]
    assert forth[0] * back[0] == pytest.approx(1)
    assert forth[0] == pytest.approx(other[0])


@given(series(), series(), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100)
def test_a_larger_allowance_finds_no_new_difference(a, b, one, other):
    less, more = sorted((one, other))
    if compare.judge(a, b, more)[3] == Finding.DIFFERS:
        assert compare.judge(a, b, less)[3] == Finding.DIFFERS
    if compare.judge(a, b, less)[3] == Finding.AGREES:
        assert compare.judge(a, b, more)[3] == Finding.AGREES


@given(series(), st.floats(0, 1))
@settings(max_examples=100)
def test_the_same_readings_never_differ(a, allowed):
    assert compare.judge(a, a, allowed)[3] != Finding.DIFFERS


def simulated(ratio: float, pairs: int = 1500) -> float:
    """Return the share of pairs that come out as different: 3 % noise in a run, 4 % between."""
    draw = random.Random(7)

    def run(centre: float) -> list[float]:
        middle = math.log(centre) + draw.gauss(0, 0.04)
        spread = 0.03 * math.exp(draw.gauss(0, 0.5))
        return [math.exp(middle + draw.gauss(0, spread)) for _ in range(3)]

    both = [(run(100), run(100 * ratio)) for _ in range(pairs)]
    usual = compare.usual_noise([one for pair in both for one in pair])
    found = [compare.judge(a, b, usual=usual)[3] for a, b in both]
    return found.count(Finding.DIFFERS) / pairs


def test_equal_machines_seldom_differ_and_unequal_ones_are_found():
    assert simulated(1.0) <= 0.02
    assert simulated(1.3) >= 0.8
    assert simulated(1 / 1.3) >= 0.8
    assert simulated(2.0) >= 0.99


def test_usual_noise_is_not_raised_by_one_disturbed_measurement():
    quiet = [[100, 101, 99]] * 4
    assert compare.usual_noise([*quiet, [10, 100, 1000]]) == compare.usual_noise(quiet)
    assert compare.usual_noise([[1.0], [0.0, 1.0]]) is None


# --- Many records -----------------------------------------------------------------------------


def test_tables_of_records_have_one_column_a_record_and_say_what_is_missing():
    found = {"laptop": record_of(), "cloud": record_of(results_of(CHAPTERS[1], outcome="refuted"))}
    machines, verdicts, speeds = (
        table(found) for table in (compare.machines, compare.verdicts, compare.speeds)
    )
    assert [one["record"] for one in machines] == ["laptop", "cloud"]
    assert machines[1]["held"] == "0"
    assert len(verdicts) == len(found["laptop"].claims)
    assert {(one["laptop"], one["cloud"]) for one in verdicts} == {
        ("held", "–"),
        ("held", "refuted"),
    }
    assert speeds[0]["measurement"] == "11 · decode"
    assert speeds[0]["laptop"] == "100 tokens/s (99.0 tokens/s to 101 tokens/s, 3 runs)"
    assert speeds[0]["cloud"] == "–"
    assert "25.0 GB/s" in speeds[1]["laptop"]
    for table in (machines, verdicts, speeds):
        assert len({tuple(one) for one in table}) == 1  # the same columns in every row


def test_no_records_make_empty_tables():
    assert compare.machines({}) == compare.verdicts({}) == compare.speeds({}) == []
