"""Numbers are written with the right unit, and an unknown is never a number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import units

FORMATTERS = [units.number, units.memory, units.storage, units.bandwidth, units.compute]


@pytest.mark.parametrize("write", [*FORMATTERS, units.duration, units.percent])
def test_none_is_written_as_unknown(write):
    assert write(None) == "unknown"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (units.memory(1.5 * units.GIB), "1.50 GiB"),
        (units.memory(10 * units.GIB), "10.0 GiB"),
        (units.memory(600), "600 bytes"),
        (units.storage(98_300_000), "98.3 MB"),
        (units.storage(2e12), "2.00 TB"),
        (units.bandwidth(936.2e9), "936 GB/s"),
        (units.compute(155e9), "155 GFLOP/s"),
        (units.compute(71e12), "71.0 TFLOP/s"),
        (units.duration(0.0042), "4.20 ms"),
        (units.duration(3725), "1 h 02 min"),
        (units.duration(150), "2 min 30 s"),
        (units.percent(0.031), "3.1 %"),
        (units.quantity(7, "tokens"), "7 tokens"),
        (units.number(1_234_567.0), "1,234,567"),
        (units.number(math.inf), "∞"),
        (units.number(0.0), "0"),
    ],
)
def test_a_quantity_is_written_as_its_field_writes_it(written, expected):
    assert written == expected


@given(st.floats(min_value=1e-6, max_value=1e15))
def test_what_is_written_is_within_rounding_of_the_value(value):
    assert float(units.number(value).replace(",", "")) == pytest.approx(value, rel=0.005)


@given(st.integers(min_value=0, max_value=2**60))
def test_memory_and_storage_name_the_same_number_of_bytes(n_bytes):
    factors = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    factors |= {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    for text in (units.memory(n_bytes), units.storage(n_bytes)):
        value, unit = text.rsplit(" ", 1)
        assert float(value.replace(",", "")) * factors[unit] == pytest.approx(n_bytes, rel=0.006)
