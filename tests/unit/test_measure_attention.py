"""Attention's kernels: all compute the same, cost is measured honestly, nothing is left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.catalog import attention as catalog
from guidebook.catalog import hardware
from guidebook.doctor import compatibility
from guidebook.measure import attention
from guidebook.measure.attention import AttentionError, Cost, Point

MODULE = "guidebook.measure.attention"
has_cuda = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not has_cuda, reason="needs a GPU")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children(pid: int | None = None) -> list[psutil.Process]:
    """Return the processes that measure attention, of one parent or all."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "ppid"]):
        line = process.info["cmdline"] or []
        is_ours = MODULE in line and process.info["status"] != psutil.STATUS_ZOMBIE
        if is_ours and pid in (None, process.info["ppid"]):
            found.append(process)
    return found


def growth(one: Cost) -> int:
    assert not one.skipped
    assert one.growth_bytes is not None
    return one.growth_bytes


# --- the kernels ------------------------------------------------------------------------------


def test_on_a_cpu_three_kernels_work_and_the_others_say_why_not() -> None:
    found = {one.name: one for one in attention.kernels("cpu")}
    assert list(found) == list(attention.KERNELS)
    for name in ("eager", "math", "flash"):
        assert found[name].usable
        assert found[name].because == ""
    for name in ("efficient", "cudnn", "flash-attn"):
        assert not found[name].usable
        assert found[name].because.endswith(".")


def test_a_kernel_that_takes_no_such_type_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("no kernel for this type\nand a stack")

    monkeypatch.setattr(attention, "attend", refuse)
    flash = next(one for one in attention.kernels("cpu") if one.name == "flash")
    assert not flash.usable
    assert flash.because == "No kernel for this type."


@settings(max_examples=25)
@given(
    length=st.integers(1, 70),
    n_heads=st.integers(1, 3),
    head_size=st.sampled_from([8, 16, 64]),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_all_kernels_compute_the_same(
    length: int, n_heads: int, head_size: int, causal: bool, seed: int
) -> None:
    q, k, v = attention.inputs(Point("eager", length, n_heads, head_size), seed=seed)
    exact = attention.attend("eager", q.double(), k.double(), v.double(), causal)
    for name in ("eager", "math", "flash"):
        difference = attention.attend(name, q, k, v, causal) - exact
        assert difference.abs().max() < 1e-5


def test_all_kernels_have_the_same_gradients() -> None:
    found = []
    for name in ("eager", "math", "flash"):
        q, k, v = attention.inputs(Point(name, 40, 2, 16, backward=True))
        result = attention.attend(name, q, k, v, causal=True)
        found.append(torch.autograd.grad(result.square().sum(), (q, k, v)))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            assert torch.allclose(first, second, atol=1e-4)


def test_a_causal_token_sees_nothing_of_what_follows() -> None:
    q, k, v = attention.inputs(Point("eager", 20, 1, 8))
    for name in ("eager", "math", "flash"):
        whole = attention.attend(name, q, k, v, causal=True)
        part = attention.attend(name, q[:, :, :7], k[:, :, :7], v[:, :, :7], causal=True)
        assert torch.allclose(whole[:, :, :7], part, atol=1e-6)


def test_every_type_starts_from_the_same_numbers() -> None:
    wide = attention.inputs(Point("eager", 9, 1, 8))[0]
    narrow = attention.inputs(Point("eager", 9, 1, 8, dtype="bfloat16"))[0]
    assert torch.equal(wide.to(torch.bfloat16), narrow)


def test_an_unknown_kernel_is_refused_with_those_there_are() -> None:
    q, k, v = attention.inputs(Point("eager", 4, 1, 8))
    with pytest.raises(ValueError, match=r"'fast'.*flash"):
        attention.attend("fast", q, k, v)
    with pytest.raises(ValueError, match=r"'fast'.*flash"):
        Point("fast", 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "int8"}, "'int8'"),
        ({"length": 0}, "at least one token"),
        ({"head_size": 0}, "at least one"),
    ],
)
def test_a_point_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Point(**({"kernel": "eager", "length": 8} | change))  # type: ignore[arg-type]


def test_the_size_of_the_scores_is_arithmetic() -> None:
    assert Point("eager", 4096, n_heads=32, dtype="bfloat16").score_bytes == 2**30
    assert Point("eager", 4096, n_heads=32, dtype="float32").score_bytes == 2**31
    assert Point("eager", 128, n_heads=2, head_size=64).output_bytes == 128 * 2 * 64 * 4


# --- what a call costs ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> dict[str, Cost]:
    """Measure a few points in one child, small and large ones in turn."""
    points = {
        "flash": Point("flash", 512),
        "eager": Point("eager", 1024),
        "flash again": Point("flash", 512),
        "math": Point("math", 1024),
        "eager shorter": Point("eager", 512),
        "eager trained": Point("eager", 1024, backward=True),
        "math trained": Point("math", 1024, backward=True),
        "flash long": Point("flash", 1024),
    }
    found = attention.cost(list(points.values()), repetitions=3, enough_seconds=0.5)
    return dict(zip(points, found, strict=True))


def test_each_point_has_its_times(measured: dict[str, Cost]) -> None:
    for one in measured.values():
        assert one.skipped == ""
        assert one.time is not None
        assert 2 <= len(one.time.samples) <= 3
        assert one.time.low > 0


def test_standard_attention_holds_the_whole_matrix_and_flash_a_small_part(
    measured: dict[str, Cost],
) -> None:
    for name in ("eager", "math", "eager trained", "math trained"):
        assert growth(measured[name]) >= measured[name].point.score_bytes
    long = measured["flash long"]
    assert long.point.output_bytes * 0.8 <= growth(long) <= long.point.score_bytes / 3


def test_a_point_costs_the_same_after_a_larger_one(measured: dict[str, Cost]) -> None:
    before, after = growth(measured["flash"]), growth(measured["flash again"])
    assert abs(before - after) < 2**20


def test_the_same_number_of_matrices_is_held_whatever_the_length(
    measured: dict[str, Cost],
) -> None:
    parts = [
        growth(measured[name]) / measured[name].point.score_bytes
        for name in ("eager", "eager shorter")
    ]
    assert parts[0] == pytest.approx(parts[1], rel=0.2)


def test_what_is_asked_for_beforehand_covers_what_is_taken(measured: dict[str, Cost]) -> None:
    for one in measured.values():
        assert growth(one) <= one.point.expected_bytes + 2**20
        if one.point.kernel in ("eager", "math"):
            assert one.point.expected_bytes < 2 * growth(one)


def test_a_matrix_that_does_not_fit_is_skipped_in_a_sentence_and_the_rest_runs() -> None:
    points = [Point("math", 65_536), Point("flash", 64)]
    large, small = attention.cost(points, repetitions=1, free_bytes=2**30)
    assert large.time is None
    assert large.growth_bytes is None
    assert "math at 65,536 tokens needs about" in large.skipped
    assert "1.00 GiB are free." in large.skipped
    assert small.time is not None


def test_a_kernel_that_fails_is_skipped_in_a_sentence_and_the_rest_runs() -> None:
    failing, fine = attention.cost([Point("cudnn", 64), Point("flash", 64)], repetitions=1)
    if not has_cuda:
        assert failing.time is None
        assert failing.skipped.startswith("cudnn, 64 tokens")
        assert failing.skipped.endswith(".")
    assert fine.time is not None


def test_a_point_that_takes_too_long_is_ended_and_the_rest_runs() -> None:
    points = [Point("math", 2048), Point("flash", 64)]
    slow, fast = attention.cost(points, repetitions=1000, enough_seconds=60, time_limit=3)
    assert "took longer than 3 s" in slow.skipped
    assert fast.time is not None
    assert not children(os.getpid())


def test_a_child_that_is_killed_costs_one_point_only() -> None:
    def kill() -> None:
        if eventually(lambda: bool(children(os.getpid()))):
            time.sleep(4)
            for one in children(os.getpid()):
                one.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    points = [Point("math", 2048, backward=True), Point("flash", 64)]
    found = attention.cost(points, repetitions=1000, enough_seconds=15)
    killer.join()
    assert len(found) == 2
    assert "killed" in found[0].skipped
    assert found[1].time is not None


def test_the_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "from guidebook.measure import attention\n"
        "point = attention.Point('math', 2048)\n"
        "attention.cost([point], repetitions=1000, enough_seconds=60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert eventually(lambda: bool(children(parent.pid)))
        started = children(parent.pid)
        time.sleep(3)
        parent.send_signal(signal.SIGKILL)
        parent.wait(20)
        assert eventually(lambda: not any(one.is_running() for one in started))
    finally:
        parent.kill()
        parent.wait(5)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        attention.cost([])
    with pytest.raises(ValueError, match="one repetition"):
        attention.cost([Point("flash", 8)], repetitions=0)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(AttentionError, match="'mps'"):
        attention.kernels("mps")
    if not has_cuda:
        with pytest.raises(AttentionError, match="device='cpu'"):
            attention.cost([Point("flash", 8)], device="cuda")


def test_growth_is_that_of_the_action() -> None:
    size = 64 * 2**20
    found = attention.memory_growth(lambda: torch.ones(size, dtype=torch.uint8))
    assert found is not None
    # The kernel counts resident pages in batches: a few may be missing.
    assert 0.99 * size <= found < 1.2 * size


def test_a_run_keeps_the_first_result_all_times_and_the_memory_of_one_call() -> None:
    size = 32 * 2**20
    calls = []

    def action() -> torch.Tensor:
        calls.append(len(calls))
        return torch.full((size,), len(calls), dtype=torch.uint8)

    found = attention.run(action, repetitions=3)
    assert len(calls) == len(found.time.samples) == 3
    assert found.result[0] == 1
    assert found.growth_bytes is not None
    assert 0.99 * size <= found.growth_bytes < 1.2 * size
    with pytest.raises(ValueError, match="one repetition"):
        attention.run(action, repetitions=0)


def test_seconds_are_those_of_the_action() -> None:
    assert 0.05 <= attention.seconds(lambda: time.sleep(0.05)) < 1


@needs_cuda
def test_a_gpu_measures_its_own_memory_and_time() -> None:
    points = [Point(name, 2048, dtype="float16") for name in ("eager", "efficient")]
    whole, tiled = attention.cost(points, device="cuda", repetitions=3)
    assert growth(whole) >= whole.point.score_bytes > 4 * growth(tiled)
    assert whole.time is not None
    assert whole.time.low > 0


# --- the fit ----------------------------------------------------------------------------------

LENGTHS = (512, 1024, 2048, 4096)


@given(exponent=st.floats(0, 3), factor=st.floats(1e-9, 1e9))
def test_the_fit_finds_the_power_that_made_the_values(exponent: float, factor: float) -> None:
    found = attention.fit_power(LENGTHS, [factor * n**exponent for n in LENGTHS])
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.factor == pytest.approx(factor, rel=1e-5)
    assert found.at(1000) == pytest.approx(factor * 1000**exponent, rel=1e-5)


@given(st.lists(st.floats(0.8, 1.25), min_size=4, max_size=4))
def test_the_fit_of_noisy_values_says_how_sure_it_is(noise: list[float]) -> None:
    values = [n**2 * part for n, part in zip(LENGTHS, noise, strict=True)]
    found = attention.fit_power(LENGTHS, values)
    off = abs(found.exponent - 2)
    most = math.log(1.25 / 0.8) / math.log(2)
    assert off <= most
    assert 0 <= found.error <= most
    same = attention.fit_power(LENGTHS, [7 * value for value in values])
    assert same.exponent == pytest.approx(found.exponent)
    assert same.error == pytest.approx(found.error, abs=1e-7)


def test_the_error_is_that_of_a_line_through_logarithms() -> None:
    # Logarithms 0, 1, 2 against 0, 2, 2: the slope is 1, and its error √(2/3 ÷ 1 ÷ 2).
    e = math.e
    found = attention.fit_power([1, e, e**2], [1, e**2, e**2])
    assert found.exponent == pytest.approx(1)
    assert found.error == pytest.approx(math.sqrt(1 / 3))
    assert str(found) == "1.00 ± 0.58"


@pytest.mark.parametrize(
    ("lengths", "values", "words"),
    [
        ((1, 2), (1, 2), "three different lengths"),
        ((1, 1, 2), (1, 2, 3), "three different lengths"),
        ((1, 2, 3), (1, 2), "three different lengths"),
        ((1, 2, 3), (1, 0, 2), "positive"),
        ((0, 2, 3), (1, 1, 2), "positive"),
    ],
)
def test_values_without_a_slope_are_refused(
    lengths: tuple[float, ...], values: tuple[float, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        attention.fit_power(lengths, values)


# --- which GPU runs what ----------------------------------------------------------------------


def capability(name: str) -> compatibility.Capability:
    number = hardware.find(name).compute_capability
    assert number is not None
    major, minor = compatibility.as_version(str(number))
    return major, minor


def test_flash_attention_2_needs_what_the_doctor_says() -> None:
    found = catalog.find("FlashAttention-2")
    assert found.lowest == compatibility.least_capability("flash-attn") == (8, 0)
    assert found.lists(capability("RTX 3080 10GB"))
    assert not found.lists((7, 5))


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("PyTorch memory-efficient", {(7, 5), (8, 6), (9, 0), (12, 0)}),
        ("PyTorch flash", {(8, 6), (9, 0), (12, 0)}),
        ("FlashAttention-2", {(8, 6), (9, 0)}),
        ("FlashAttention-3", {(9, 0)}),
        ("FlashAttention-4", {(9, 0), (10, 0)}),
    ],
)
def test_each_family_lists_its_generations(
    name: str, listed: set[compatibility.Capability]
) -> None:
    asked = {(7, 5), (8, 6), (9, 0), (10, 0), (12, 0)}
    found = {one for one in asked if catalog.find(name).lists(one)}
    assert found == listed | ({(10, 0)} if name.startswith("PyTorch") else set())


def test_a_gpu_newer_than_the_list_is_not_refused() -> None:
    found = catalog.find("FlashAttention-2")
    answers = [found.answer(one) for one in ((7, 5), (8, 6), (12, 0))]
    assert answers == ["no", "yes", "not listed"]
    # FlashAttention-3 is for one generation: what comes after it is not on its list either.
    assert catalog.find("FlashAttention-3").answer((10, 0)) == "not listed"


def test_every_family_says_where_it_stands_and_when_it_was_read() -> None:
    for one in catalog.kernels():
        assert one.source.startswith("https://")
        assert one.as_of.year >= 2026
        assert one.lowest <= one.highest
        assert one.status in ("built in", "stable", "beta")


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(LookupError, match="FlashAttention-3"):
        catalog.find("FlashAttention-5")
