"""What fits, how many layers go to the GPU, and what to change."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import fit, memory, units, weights
from guidebook.architecture import Architecture
from guidebook.catalog import models
from guidebook.fit import Place, Setup

GIB = units.GIB
LLAMA_8B = models.find("llama-3-8b").architecture
RAM = Place("RAM", 28 * GIB, "CPU")


def card(gib: float, name: str = "card") -> Place:
    return Place(name, int(gib * GIB), "CUDA")


# --- usable memory ---------------------------------------------------------------------------


def test_a_driver_keeps_its_share_of_a_card():
    # CUDA offers 24,077 MiB of a 24 GiB card; a server's card has no desktop on it.
    headless = fit.usable_bytes("discrete", 24 * GIB, "CUDA", desktop=False)
    assert headless == pytest.approx(24_077 * units.MIB, rel=0.001)
    assert fit.usable_bytes("discrete", 24 * GIB, "CUDA") < headless


@pytest.mark.parametrize(("gib", "share"), [(16, 2 / 3), (32, 2 / 3), (36, 2 / 3), (64, 3 / 4)])
def test_metal_may_use_its_share(gib, share):
    assert fit.usable_bytes("unified", gib * GIB, "Metal") == pytest.approx(share * gib * GIB)


def test_other_unified_memory_and_ram_leave_room_for_the_system():
    assert fit.usable_bytes("unified", 128 * GIB, "CUDA") == pytest.approx(0.9 * 128 * GIB)
    assert fit.usable_bytes("ram", 8 * GIB, "CPU") == 6 * GIB
    with pytest.raises(ValueError, match="'tape'"):
        fit.usable_bytes("tape", GIB, "CPU")


# --- fit -------------------------------------------------------------------------------------


def test_an_8b_model_in_four_bits_fits_ten_gib_and_a_70b_does_not():
    usable = Place("RTX 3080", fit.usable_bytes("discrete", 10 * GIB, "CUDA"), "CUDA")
    small = fit.fit(LLAMA_8B, weights.account(LLAMA_8B, "Q4_K_M"), [usable], RAM)
    assert small.fits
    assert small.n_gpu_layers == small.n_layers == 33
    shape = models.find("llama-3-70b").architecture
    large = fit.fit(shape, weights.account(shape, "Q4_K_M"), [usable], RAM)
    assert not large.fits
    assert not large.runs
    assert large.n_gpu_layers == 0
    assert large.margin_bytes < -30 * GIB


def test_what_does_not_fit_the_card_is_split_with_ram():
    account = weights.account(LLAMA_8B, "Q8_0")
    found = fit.fit(LLAMA_8B, account, [card(6)], RAM)
    assert found.runs
    assert not found.fits
    assert 0 < found.n_gpu_layers < 33
    used = dict(found.used_bytes)
    assert used["card"] <= 6 * GIB
    assert used["card"] + used["RAM"] > account.total_bytes
    alone = fit.fit(LLAMA_8B, account, [card(6)])
    assert not alone.fits


@given(st.floats(1, 24), st.floats(1, 24))
def test_a_larger_card_never_holds_fewer_layers(one, other):
    account = weights.account(LLAMA_8B, "Q8_0")
    small, large = (fit.fit(LLAMA_8B, account, [card(size)], RAM) for size in sorted((one, other)))
    assert small.n_gpu_layers <= large.n_gpu_layers
    assert small.margin_bytes <= large.margin_bytes
    assert large.fits == (large.margin_bytes >= 0)


def test_two_cards_hold_what_one_does_not_and_each_pays_its_own_overhead():
    account = weights.account(LLAMA_8B, "Q8_0")
    setup = Setup(n_ctx=8192, n_outputs=1)
    assert not fit.fit(LLAMA_8B, account, [card(6)], None, setup).fits
    both = fit.fit(LLAMA_8B, account, [card(6, "a"), card(6, "b")], None, setup)
    assert both.fits
    one = fit.fit(LLAMA_8B, account, [card(24)], None, setup)
    assert sum(used for _, used in both.used_bytes) > one.used_bytes[0][1] + 300 * units.MIB


def test_in_shared_memory_the_host_part_counts_too():
    account = weights.account(LLAMA_8B, "Q8_0")
    own = Place("M4", 24 * GIB, "Metal", shares_host_memory=True)
    apart = Place("M4", 24 * GIB, "Metal")
    shared = fit.fit(LLAMA_8B, account, [own])
    separate = fit.fit(LLAMA_8B, account, [apart])
    lost = separate.margin_bytes - shared.margin_bytes
    assert lost > account.embedding_bytes


def test_without_a_gpu_everything_is_in_ram():
    account = weights.account(LLAMA_8B, "Q4_K_M")
    found = fit.fit(LLAMA_8B, account, [], RAM)
    assert found.fits
    assert (found.n_gpu_layers, found.n_layers) == (0, 0)
    assert not fit.fit(LLAMA_8B, account, [], replace(RAM, usable_bytes=4 * GIB)).runs


def test_a_margin_is_kept_free():
    account = weights.account(LLAMA_8B, "Q4_K_M")
    free = fit.fit(LLAMA_8B, account, [card(8)], RAM)
    kept = fit.fit(LLAMA_8B, account, [card(8)], RAM, margin=GIB)
    assert free.margin_bytes - kept.margin_bytes == GIB


def test_copied_experts_enlarge_the_buffer_of_a_split_model():
    # llama.cpp reports 898 MiB for this one (tools/fit-params/README.md, RTX 4090, build 6895).
    shape = models.find("qwen3-30b-a3b").architecture
    account = weights.account(shape, "F16")
    found = fit._device_compute(shape, account, Setup(n_ctx=4096), "CUDA", True)
    assert found == pytest.approx(898 * units.MIB, rel=0.06)


# --- experts in RAM --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("qwen3-30b-a3b", tuple(range(48))),
        ("deepseek-v3", tuple(range(3, 61))),
        ("llama-4-maverick", tuple(range(1, 48, 2))),
        ("llama-3-8b", ()),
    ],
)
def test_layers_with_experts_are_those_that_the_model_has(name, layers):
    assert fit.expert_layers(models.find(name).architecture) == layers


@pytest.mark.parametrize(
    "model", [m for m in models.all() if m.architecture.is_moe], ids=lambda m: m.name
)
def test_every_mixture_in_the_catalog_has_as_many_expert_layers_as_it_says(model):
    assert len(fit.expert_layers(model.architecture)) == model.architecture.n_expert_layers


def test_the_weights_on_the_card_are_those_of_llama_cpps_own_report():
    # The model above with its last 34 layers' experts in RAM: 17,904 MiB on the card, where this
    # build of llama.cpp left the output matrix in RAM too.
    shape = models.find("qwen3-30b-a3b").architecture
    account = weights.account(shape, "F16")
    split = memory.device_weights_bytes(
        account, 49, 48, n_cpu_moe=34, expert_layers=fit.expert_layers(shape)
    )
    assert split.device_bytes - account.output_bytes == pytest.approx(17_904 * units.MIB, rel=1e-3)


@pytest.mark.parametrize(
    ("n_gpu_layers", "n_cpu_moe", "on_card", "in_ram"),
    [
        (99, 0, 57_642.30, 593.50),
        (99, 20, 34_602.30, 23_633.50),
        (99, 48, 2_346.30, 55_889.50),
        (30, 24, 29_300.49, 28_935.32),
    ],
)
def test_a_second_device_gets_what_llama_cpp_says_that_it_gets(
    n_gpu_layers, n_cpu_moe, on_card, in_ram
):
    """Qwen3-30B-A3B in F16 on llama.cpp's RPC device, which it takes for a GPU (ggml 0.25.3)."""
    shape = models.find("qwen3-30b-a3b").architecture
    split = memory.device_weights_bytes(
        weights.account(shape, "F16"),
        n_gpu_layers,
        48,
        n_cpu_moe=n_cpu_moe,
        expert_layers=fit.expert_layers(shape),
    )
    # The file asked about had its 48 routers in 16 bits, 24 MiB less.
    assert split.device_bytes / units.MIB == pytest.approx(on_card + 24, abs=12)
    assert split.host_bytes / units.MIB == pytest.approx(in_ram, abs=12)


@given(
    st.sampled_from(["qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v2-lite", "lfm2-8b-a1b"]),
    st.floats(3, 30),
    st.integers(1, 2),
)
def test_as_few_experts_as_needed_go_to_ram_and_no_layer_before_all_have(name, gib, count):
    shape = models.find(name).architecture
    account = weights.account(shape, "Q4_K_M")
    cards = [card(gib)] * count
    found = fit.fit(shape, account, cards, RAM, Setup(n_cpu_moe=None))
    fixed = fit.fit(shape, account, cards, RAM, Setup(n_cpu_moe=found.n_cpu_moe))
    assert found.runs
    assert (found.n_gpu_layers, found.used_bytes) == (fixed.n_gpu_layers, fixed.used_bytes)
    if found.n_gpu_layers < found.n_layers:
        assert found.n_cpu_moe == fit.expert_layers(shape)[-1] + 1
    elif found.n_cpu_moe:
        fewer = fit.fit(shape, account, cards, RAM, Setup(n_cpu_moe=found.n_cpu_moe - 1))
        assert not fewer.fits
        assert fixed.fits
    assert found.fits == (not found.n_cpu_moe and found.n_gpu_layers == found.n_layers)


def test_experts_leave_more_layers_on_the_card_than_whole_layers_do():
    shape = models.find("qwen3-30b-a3b").architecture
    account = weights.account(shape, "Q4_K_M")
    whole, experts = (
        fit.fit(shape, account, [card(12)], RAM, Setup(n_cpu_moe=number)) for number in (0, None)
    )
    assert whole.n_gpu_layers < experts.n_gpu_layers == experts.n_layers
    assert whole.margin_bytes == experts.margin_bytes < 0
    in_ram = [dict(found.used_bytes)["RAM"] for found in (whole, experts)]
    assert in_ram[1] == pytest.approx(in_ram[0], rel=0.1)


def test_a_model_too_large_for_card_and_ram_together_does_not_run():
    shape = models.find("gpt-oss-120b").architecture
    account = weights.account(shape, "MXFP4")
    found = fit.fit(shape, account, [card(12)], RAM, Setup(n_cpu_moe=None))
    assert not found.runs
    assert found.n_cpu_moe == 0


def test_a_model_without_experts_has_none_to_move():
    account = weights.account(LLAMA_8B, "Q8_0")
    plain, asked, automatic = (
        fit.fit(LLAMA_8B, account, [card(6)], RAM, Setup(n_cpu_moe=number))
        for number in (0, 8, None)
    )
    assert plain.used_bytes == asked.used_bytes == automatic.used_bytes
    assert automatic.n_cpu_moe == 0


# --- the cache in RAM ------------------------------------------------------------------------


def test_a_cache_in_ram_leaves_the_card_and_is_counted_once():
    account = weights.account(LLAMA_8B, "Q4_K_M")
    near, far = (
        fit.fit(LLAMA_8B, account, [card(24)], RAM, Setup(n_ctx=8192, kv_offload=offload))
        for offload in (True, False)
    )
    cache = memory.kv_cache_bytes(LLAMA_8B, 8192)
    used = [dict(found.used_bytes) for found in (near, far)]
    assert used[0]["card"] - used[1]["card"] == pytest.approx(cache, abs=32 * units.MIB)
    assert used[1]["RAM"] - used[0]["RAM"] == cache


@pytest.mark.parametrize(
    ("n_ctx", "reported"),
    [(131_072, 408.00), (262_144, 792.00)],
)
def test_a_card_gets_a_copy_of_one_layers_cache(n_ctx, reported):
    """Qwen3-30B-A3B, llama.cpp's RPC device with --no-kv-offload (ggml 0.25.3)."""
    shape = models.find("qwen3-30b-a3b").architecture
    layer_cache = memory.kv_cache_bytes(shape, n_ctx) // shape.n_layers
    setup = Setup(n_ctx=n_ctx, kv_offload=False)
    found = fit._device_compute(
        shape, weights.account(shape, "F16"), setup, "CUDA", False, layer_cache
    )
    assert found / units.MIB == pytest.approx(reported, rel=0.15)


def test_without_flash_attention_scores_are_where_the_cache_is():
    account = weights.account(LLAMA_8B, "Q4_K_M")
    used = [
        dict(
            fit.fit(
                LLAMA_8B,
                account,
                [card(24)],
                RAM,
                Setup(n_ctx=32768, flash_attention=False, kv_offload=offload),
            ).used_bytes
        )
        for offload in (True, False)
    ]
    cache = memory.kv_cache_bytes(LLAMA_8B, 32768)
    # 32 heads × 512 tokens × 32,768 tokens × 4 bytes.
    scores = 2 * GIB
    assert used[0]["card"] - used[1]["card"] > cache + 0.7 * scores
    assert used[1]["RAM"] - used[0]["RAM"] == pytest.approx(cache + scores, rel=0.1)


def test_bad_input_is_one_sentence():
    account = weights.account(LLAMA_8B, "Q4_K_M")
    with pytest.raises(ValueError, match="Give a GPU, RAM"):
        fit.fit(LLAMA_8B, account, [])
    with pytest.raises(ValueError, match="flash attention only"):
        fit.fit(LLAMA_8B, account, [], RAM, Setup(flash_attention=False, kv_type="q8_0"))


# --- advice ----------------------------------------------------------------------------------


def changes(*arguments: object, **named: object) -> list[str]:
    return [step.change for step in fit.advice(*arguments, **named)]


def test_what_fits_needs_no_advice():
    assert fit.advice(LLAMA_8B, "Q4_K_M", [card(24)], RAM) == ()


def test_the_free_change_comes_first_and_is_enough_where_it_is():
    setup = Setup(n_ctx=16384, flash_attention=False)
    steps = fit.advice(LLAMA_8B, "Q4_K_M", [card(7.5)], RAM, setup)
    assert [step.change for step in steps] == ["flash attention on"]
    assert steps[0].fits
    assert steps[0].saved_bytes > 500 * units.MIB


def test_a_smaller_quantization_alone_is_kept_where_it_is_enough():
    assert changes(LLAMA_8B, "F16", [card(12)], RAM, Setup(n_ctx=4096)) == ["quantization Q8_0"]


def test_layers_go_to_ram_before_quality_goes_below_four_bits():
    shape = models.find("qwen2.5-32b").architecture
    steps = fit.advice(shape, "Q4_K_M", [card(10)], RAM)
    assert steps[-1].change.endswith("layers in RAM")
    assert steps[-1].fits
    assert not any("Q3" in step.change or "Q2" in step.change for step in steps)


def test_of_a_mixture_the_experts_go_to_ram_and_the_step_names_the_option():
    shape = models.find("gpt-oss-20b").architecture
    steps = fit.advice(shape, "MXFP4", [card(8)], RAM, Setup(n_ctx=4096))
    last = steps[-1].change
    assert re.fullmatch(r"the experts of \d+ layers in RAM \(--n-cpu-moe \d+\)", last)
    assert steps[-1].fits
    both = fit.advice(shape, "MXFP4", [card(1.5)], RAM, Setup(n_ctx=4096))[-1].change
    assert re.search(r"\d+ of 25 layers in RAM, and the experts of", both)


def test_without_ram_the_steps_go_down_to_a_smaller_model():
    shape = models.find("llama-3-70b").architecture
    steps = fit.advice(shape, "Q8_0", [card(10)], smaller=[("llama-3-8b", LLAMA_8B)])
    assert steps[-1].change == "the smaller model llama-3-8b"
    assert steps[-1].fits


@given(st.floats(3, 40), st.sampled_from(["F16", "Q8_0", "Q5_K_M"]), st.booleans())
def test_every_step_saves_and_only_the_last_fits(gib, quant, flash):
    setup = Setup(n_ctx=16384, flash_attention=flash)
    steps = fit.advice(LLAMA_8B, quant, [card(gib)], RAM, setup)
    assert all(step.saved_bytes >= 0 for step in steps)
    assert not any(step.fits for step in steps[:-1])


def test_a_model_nowhere_to_go_gets_steps_that_do_not_fit():
    shape = Architecture("llama", 80, 64, 8, 128, 8192, 128256, 8192, feed_forward_size=28672)
    steps = fit.advice(shape, "Q8_0", [card(4)])
    assert steps
    assert not steps[-1].fits
