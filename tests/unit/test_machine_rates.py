"""Rates are medians of real repetitions, within a few seconds."""

import os
import statistics
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook.machine import rates

MIB = 1024**2
GIB = 1024**3


class Clock:
    """A clock that only moves when work is done."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(rates.time, "perf_counter", lambda: self.now)

    def work(self, seconds: float):
        def work():
            self.now += seconds

        return work


def test_a_rate_is_the_amount_over_the_time_of_each_repetition(monkeypatch):
    clock = Clock(monkeypatch)
    samples = rates._repeat(clock.work(0.5), amount=100.0, seconds=4.0)
    assert samples == (200.0,) * 8


def test_slow_work_is_repeated_five_times_all_the_same(monkeypatch):
    clock = Clock(monkeypatch)
    assert len(rates._repeat(clock.work(3.0), amount=1.0, seconds=1.0)) == 5


def test_the_warm_up_is_not_counted(monkeypatch):
    clock = Clock(monkeypatch)
    durations = iter([50.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    def work():
        clock.now += next(durations)

    assert rates._repeat(work, amount=1.0, seconds=1.0) == (1.0,) * 5


sizes = st.one_of(st.none(), st.integers(0, 4 * GIB))


@given(l3_bytes=sizes, available=st.one_of(st.none(), st.integers(0, 2**45)))
def test_the_array_is_large_against_the_cache_and_small_against_the_memory(l3_bytes, available):
    size = rates.array_bytes(l3_bytes, available)
    assert size >= MIB
    if available is not None and size > MIB:
        assert size <= available / 8
    if available is None or available // 8 >= max(2 * GIB, 8 * (l3_bytes or 0)):
        assert size >= 256 * MIB
        assert size >= min(8 * (l3_bytes or 0), max(2 * GIB, 2 * (l3_bytes or 0)))


def test_an_unknown_cache_gets_256_mib_and_a_large_one_eight_times_its_size():
    assert rates.array_bytes(None, None) == 256 * MIB
    assert rates.array_bytes(16 * MIB, 24 * GIB) == 256 * MIB
    assert rates.array_bytes(128 * MIB, 24 * GIB) == 1 * GIB


@given(length=st.integers(0, 10**9), parts=st.integers(1, 200))
def test_the_threads_parts_cover_the_array_once(length, parts):
    bounds = rates._bounds(length, parts)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, length, parts + 1)
    widths = [last - first for first, last in pairwise(bounds)]
    assert max(widths) - min(widths) <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidth_is_measured_and_plausible(monkeypatch, threads):
    monkeypatch.setattr(rates, "array_bytes", lambda l3, available: 64 * MIB)
    rate = rates.memory_bandwidth(threads=threads, seconds=0.1)
    assert rate.unit == "bytes/s"
    assert rate.threads == threads
    assert len(rate.samples) >= 5
    assert rate.value == statistics.median(rate.samples)
    assert 1e8 < rate.value < 5e12
    assert "64.0 MiB of float32" in rate.method


def test_every_byte_of_the_array_is_read_in_every_repetition(monkeypatch):
    import numpy as np

    read = []

    class Counting:
        def reduce(self, part):
            read.append(part.nbytes)

    monkeypatch.setattr(rates, "array_bytes", lambda l3, available: 1 * MIB)
    monkeypatch.setattr(np, "maximum", Counting())
    rate = rates.memory_bandwidth(threads=3, seconds=0.0)
    passes = len(rate.samples) + 1  # and the warm-up
    assert sum(read) == passes * MIB


def test_matrix_products_are_measured_and_plausible():
    rate = rates.matrix_flops(size=256)
    assert rate.unit == "FLOP/s"
    assert rate.value == statistics.median(rate.samples)
    assert 1e7 < rate.value < 1e15
    assert "256 × 256 matrices of float32" in rate.method


def test_a_product_counts_two_operations_for_each_of_size_cubed_steps(monkeypatch):
    clock = Clock(monkeypatch)

    def prepare(size):
        multiplications = additions = size * size * size
        return clock.work((multiplications + additions) / 3e9)

    monkeypatch.setattr(rates, "_numpy_product", lambda dtype: (prepare, 1, "a fake"))
    assert rates.matrix_flops(size=128).value == pytest.approx(3e9)


def test_half_precision_goes_through_torch():
    pytest.importorskip("torch")
    rate = rates.matrix_flops(size=64, dtype="bfloat16")
    assert rate.value > 0
    assert "bfloat16 with torch" in rate.method


def test_half_precision_without_torch_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeError, match="needs torch, which is not installed"):
        rates.matrix_flops(size=64, dtype="float16")


def test_a_slow_type_gets_a_smaller_matrix(monkeypatch):
    clock = Clock(monkeypatch)

    def at(flop_per_second: float):
        return lambda size: clock.work(2 * size**3 / flop_per_second)

    assert rates._fitting_size(at(200e9), 2048) == 2048
    assert rates._fitting_size(at(0.3e9), 2048) == 256
    assert rates._fitting_size(at(2.5e9), 2048) == 512
    assert rates._fitting_size(at(200e9), 100) == 100
    assert rates._fitting_size(at(200e9), 1000) == 1000


@pytest.mark.parametrize("speed", [0.3e9, 3e9, 20e9, 200e9, 5e12])
def test_a_matrix_measurement_ends_within_its_time_at_any_speed(monkeypatch, speed):
    clock = Clock(monkeypatch)
    start = clock.now

    def prepare(size):
        return clock.work(2 * size**3 / speed)

    size = rates._fitting_size(prepare, 2048)
    rates._repeat(prepare(size), 2 * size**3, rates._FLOPS_SECONDS / 2)
    assert clock.now - start <= 3.0


@pytest.mark.parametrize("arguments", [{"size": 0}, {"dtype": "int4"}])
def test_a_wrong_matrix_is_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        rates.matrix_flops(**arguments)


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        rates.memory_bandwidth(threads=0)


def test_the_threads_of_blas_are_those_the_environment_asks_for(monkeypatch):
    for name in rates._BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert 1 <= rates._blas_threads() <= (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert rates._blas_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert 1 <= rates._blas_threads() <= (os.cpu_count() or 1)


def test_the_default_measurements_take_a_few_seconds():
    start = time.monotonic()
    rates.memory_bandwidth()
    rates.matrix_flops()
    # 4 s and 3 s on a free machine; the rest is for one that others use as well.
    assert time.monotonic() - start < 15


def test_a_rate_is_written_with_its_spread():
    rate = rates.Rate(25e9, (24e9, 25e9, 26e9), "bytes/s", "how", 2)
    assert str(rate) == "25.0 GB/s (24.0 GB/s to 26.0 GB/s, 3 runs, 2 threads)"
    one = rates.Rate(155e9, (155e9,), "FLOP/s", "how", 1)
    assert str(one) == "155 GFLOP/s (155 GFLOP/s to 155 GFLOP/s, 1 run, 1 thread)"
