"""Measurements are what they say: the right counts, the right formulas, the right spread."""

from __future__ import annotations

import math
import mmap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from guidebook import measure, speed, texts
from guidebook.measure import Measurement
from guidebook.measure.quality import kl_divergence, log_softmax, windows


class CountingEngine:
    """An engine of known speed and known probabilities: what a formula must give is exact."""

    name = "counting"
    n_ctx = 1000

    def __init__(self, shift: float = 0.0, stops_after: int = 10**6) -> None:
        self.calls: list[tuple[int, int]] = []
        self.shift = shift
        self.stops_after = stops_after

    def stream(self, prompt, n_generate):
        self.calls.append((len(prompt), n_generate))
        for token in range(min(n_generate, self.stops_after)):
            time.sleep(0.001)
            yield token

    def logits(self, tokens, first=0):
        rows = np.tile(np.arange(8, dtype=np.float32), (len(tokens) - first, 1))
        rows[:, 0] += self.shift
        return rows


def test_every_repetition_does_the_same_work_and_the_warm_up_is_not_counted():
    engine = CountingEngine()
    seen = measure.throughput(engine, [1] * 10, n_generate=5, repetitions=3, warm_up=2)
    assert engine.calls == [(10, 5)] * 5
    assert len(seen.decode.samples) == len(seen.prefill.samples) == 3


def test_decode_speed_counts_the_tokens_after_the_first():
    seen = measure.throughput(CountingEngine(), [1] * 10, n_generate=21, repetitions=3, warm_up=0)
    assert 0 < seen.decode.median < 1000  # a token takes at least the millisecond it sleeps
    for prefill, first in zip(seen.prefill.samples, seen.time_to_first_token.samples, strict=True):
        assert prefill * first == pytest.approx(10)


@pytest.mark.parametrize(
    ("prompt", "n_generate", "message"),
    [([], 5, "needs a prompt"), ([1], 1, "two tokens"), ([1] * 999, 5, "do not fit a context")],
)
def test_what_cannot_be_measured_is_refused(prompt, n_generate, message):
    with pytest.raises(ValueError, match=message):
        measure.throughput(CountingEngine(), prompt, n_generate)


def test_an_engine_that_stops_early_is_an_error_not_a_speed():
    with pytest.raises(RuntimeError, match="wrote 3 of 5"):
        measure.throughput(CountingEngine(stops_after=3), [1], 5)


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=20))
def test_the_median_lies_between_the_extremes_and_nothing_is_thrown_away(samples):
    seen = Measurement("tokens/s", tuple(samples))
    assert seen.low <= seen.median <= seen.high
    assert seen.to_dict()["samples"] == samples
    assert seen.to_dict()["repetitions"] == len(samples)
    assert seen.spread >= 0


def test_a_measurement_prints_its_unit_its_range_and_its_repetitions():
    assert str(Measurement("tokens/s", (101.0, 99.0, 107.0))) == (
        "101 tokens/s (99.0 to 107; 3 runs)"
    )
    assert str(Measurement("s", (0.002,))) == "2.00 ms (2.00 ms to 2.00 ms; 1 run)"
    with pytest.raises(ValueError, match="at least one reading"):
        Measurement("s", ())


def test_timed_repeats_after_its_warm_up():
    calls = []
    assert len(measure.timed(lambda: calls.append(1), repetitions=4, warm_up=2).samples) == 4
    assert len(calls) == 6


def take_memory(n_bytes: int) -> mmap.mmap:
    """Memory fresh from the kernel: an array may be given what earlier tests freed but kept."""
    block = mmap.mmap(-1, n_bytes)
    for start in range(0, n_bytes, mmap.PAGESIZE):
        block[start] = 1
    return block


def test_peak_memory_sees_a_large_allocation_that_is_gone_again():
    with measure.peak_memory() as peak:
        take_memory(200_000_000).close()
    assert peak.growth_bytes > 150e6
    assert peak.method


def test_peak_memory_falls_back_to_samples_where_the_kernel_refuses(monkeypatch):
    monkeypatch.setattr("guidebook.measure.memory._reset_high_water_mark", lambda: False)
    with measure.peak_memory() as peak:
        block = take_memory(200_000_000)
        time.sleep(0.1)
        block.close()
    assert peak.growth_bytes > 150e6
    assert peak.method == "samples every 10 ms"


def test_only_the_second_half_of_each_window_is_scored():
    reference = measure.reference(CountingEngine(), list(range(8)) * 4, length=8, count=4)
    assert reference.n_scored == 4 * 4


def test_a_model_has_no_divergence_from_itself():
    tokens = [1, 2, 3, 4, 5, 6, 7, 0] * 4
    reference = measure.reference(CountingEngine(), tokens, length=8, count=2)
    quality = measure.compare(CountingEngine(), reference)
    assert quality.kl_divergence == pytest.approx(0, abs=1e-9)
    assert quality.top1_agreement == 1
    assert quality.log_perplexity_rise == pytest.approx(0, abs=1e-9)


def test_perplexity_is_the_exponential_of_the_mean_surprise():
    tokens = [7] * 16
    reference = measure.reference(CountingEngine(), tokens, length=16, count=1)
    quality = measure.compare(CountingEngine(), reference)
    expected = math.log(sum(math.exp(i) for i in range(8))) - 7  # of the last of eight logits
    assert quality.log_perplexity == pytest.approx(expected, rel=1e-6)
    assert quality.perplexity == pytest.approx(math.exp(expected), rel=1e-6)


def test_another_favourite_token_is_seen():
    reference = measure.reference(CountingEngine(), [1] * 16, length=8, count=2)
    quality = measure.compare(CountingEngine(shift=100), reference)
    assert quality.top1_agreement == 0
    assert quality.kl_divergence > 1


def test_another_vocabulary_is_refused():
    reference = measure.reference(CountingEngine(), [1] * 8, length=8, count=1)

    class Smaller(CountingEngine):
        def logits(self, tokens, first=0):
            return super().logits(tokens, first)[:, :5]

    with pytest.raises(ValueError, match="5 tokens in its vocabulary, the reference 8"):
        measure.compare(Smaller(), reference)


def test_a_text_that_is_too_short_is_named_with_what_is_needed():
    with pytest.raises(ValueError, match="has 10 tokens; 2 windows of 8 need 16"):
        windows(range(10), 8, 2)


LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32))


@given(LOGITS, LOGITS)
def test_kl_divergence_is_never_negative_and_zero_only_for_equals(a, b):
    p, q = log_softmax(a), log_softmax(b)
    assert np.allclose(np.exp(p).sum(axis=-1), 1, atol=1e-4)
    assert (kl_divergence(p, q) >= -1e-4).all()
    assert np.allclose(kl_divergence(p, p), 0)


@given(LOGITS, st.floats(-1000, 1000))
def test_log_softmax_does_not_depend_on_a_shift_and_never_overflows(logits, shift):
    shifted = log_softmax((logits + np.float32(shift)).astype(np.float32))
    assert np.isfinite(shifted).all()
    assert np.allclose(shifted, log_softmax(logits), atol=1e-2)


@given(st.floats(1e9, 1e13), st.floats(1e6, 1e12), st.floats(1e9, 1e15))
def test_the_two_ceilings_meet_at_the_ridge(bandwidth, n_weights, flops):
    bytes_per_weight = 0.56
    batch = speed.ridge_tokens(flops, bandwidth, bytes_per_weight)
    memory = batch * speed.bandwidth_bound(bandwidth, n_weights * bytes_per_weight)
    assert memory == pytest.approx(speed.compute_bound(flops, n_weights))


def test_a_ceiling_without_bytes_or_weights_is_refused():
    with pytest.raises(ValueError, match="at least one byte"):
        speed.bandwidth_bound(1e9, 0)
    with pytest.raises(ValueError, match="at least one weight"):
        speed.compute_bound(1e9, 0)


def test_the_offline_text_is_long_english_prose_and_a_file_can_replace_it(tmp_path):
    assert len(texts.load("python-topics")) > 300_000
    (tmp_path / "own.txt").write_text("Grüße", encoding="utf-8")
    assert texts.load(str(tmp_path / "own.txt")) == "Grüße"
    with pytest.raises(FileNotFoundError, match=r"no text file none\.txt"):
        texts.load(str(tmp_path / "none.txt"))
