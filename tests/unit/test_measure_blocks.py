"""Readings in blocks: the clock stops where it should, and stalls stay out of the middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook.measure import Measurement, blocks


class FakeEngine:
    """Writes a token in 10 ms after reading a prompt at 1,000 tokens/s, on a clock of its own."""

    name = "fake"
    n_ctx = 4096

    def __init__(self, writes: int | None = None) -> None:
        self.now = 0.0
        self.writes = writes

    def stream(self, prompt: Sequence[int], n_generate: int) -> Iterator[int]:
        self.now += len(prompt) / 1000
        for count in range(n_generate if self.writes is None else self.writes):
            if count:
                self.now += 0.01
            yield count


def run(monkeypatch: pytest.MonkeyPatch, engine: Any, **counts: int) -> blocks.Blocks:
    monkeypatch.setattr(blocks, "time", SimpleNamespace(perf_counter=lambda: engine.now))
    return blocks.read_and_write(engine, [1] * 500, **counts)


def test_prefill_and_decode_are_told_apart(monkeypatch):
    found = run(monkeypatch, FakeEngine(), n_blocks=3, block=8)
    assert found.prefill == pytest.approx(1000)
    assert found.decode == pytest.approx((100, 100, 100))


def test_an_engine_that_stops_early_is_an_error_not_a_speed(monkeypatch):
    with pytest.raises(RuntimeError, match="fake stopped"):
        run(monkeypatch, FakeEngine(writes=20), n_blocks=3, block=8)


@pytest.mark.parametrize("counts", [{"n_blocks": 0}, {"block": 0}])
def test_nothing_to_measure_is_refused(counts):
    with pytest.raises(ValueError, match="one block"):
        blocks.read_and_write(FakeEngine(), [1], **counts)


def test_a_prompt_is_needed():
    with pytest.raises(ValueError, match="prompt"):
        blocks.read_and_write(FakeEngine(), [])


def test_one_stalled_reading_is_outside_the_middle_half():
    readings = Measurement("tokens/s", (100.0, 101.0, 102.0, 6.0, 103.0))
    low, high = blocks.middle_half(readings)
    assert (low, high) == (100.0, 102.0)


@given(st.lists(st.floats(min_value=1, max_value=1e4), min_size=1, max_size=20))
def test_the_median_lies_in_the_middle_half(samples):
    readings = Measurement("tokens/s", tuple(samples))
    low, high = blocks.middle_half(readings)
    assert readings.low <= low <= high <= readings.high
    assert low * (1 - 1e-9) <= readings.median <= high * (1 + 1e-9)
