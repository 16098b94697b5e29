"""The planner: what fits, how fast, and what it says about cases that it cannot answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import models as model_files
from guidebook import planner, units
from guidebook.catalog import hardware, models
from guidebook.planner import Case

NAMES = [device.name for device in hardware.every()]
SHAPES = ["llama-2-7b", "llama-3-8b", "llama-3-70b", "gpt-oss-20b", "qwen2.5-7b", "gemma-3-27b"]


def answer(hardware_name="GeForce RTX 3090", architecture="llama-3-8b", **settings_):
    return planner.answer(Case(hardware_name, architecture, **settings_))


@pytest.mark.parametrize(
    ("device", "model", "quant", "fits"),
    [
        ("GeForce RTX 3080 10GB", "llama-3-8b", "Q4_K_M", True),
        ("GeForce RTX 3080 10GB", "llama-3-8b", "F16", False),
        ("GeForce RTX 4090", "qwen2.5-32b", "Q4_K_M", True),
        ("GeForce RTX 4090", "llama-3-70b", "Q4_K_M", False),
        ("A100 SXM4 80GB", "llama-3-70b", "Q4_K_M", True),
        ("A100 SXM4 80GB", "llama-3-70b", "F16", False),
        ("Apple M3 Ultra (80c)", "llama-3.1-405b", "Q4_K_M", True),
        ("NVIDIA DGX Spark (GB10)", "gpt-oss-120b", "MXFP4", True),
    ],
)
def test_a_model_fits_where_its_weights_and_cache_do(device, model, quant, fits):
    assert answer(device, model, quant=quant, context=4096).fits is fits


def test_the_parts_add_up_to_the_total():
    found = answer(context=8192)
    parts = (
        found.weights_bytes,
        found.kv_cache_bytes,
        found.compute_bytes,
        found.overhead_bytes,
    )
    assert found.total_bytes == sum(parts)
    # 2 × 32 layers × 8 heads × 128 numbers × 8,192 tokens × 2 bytes.
    assert found.kv_cache_bytes == units.GIB


def test_an_eight_bit_cache_is_about_half_of_a_sixteen_bit_one():
    sixteen, eight = answer(context=8192), answer(context=8192, kv_type="q8_0")
    assert eight.kv_cache_bytes / sixteen.kv_cache_bytes == pytest.approx(17 / 32)


def test_what_has_no_room_goes_to_ram_and_slows_the_model_down():
    whole = answer("A100 SXM4 80GB", "llama-3-70b", context=4096)
    split = answer("GeForce RTX 3090", "llama-3-70b", context=4096)
    assert whole.n_gpu_layers == 81
    assert 0 < split.n_gpu_layers < 81
    assert split.tokens_per_second < whole.tokens_per_second / 5
    assert "does not fit" in split.note
    assert "DDR5-5600" in split.note


def test_unified_memory_has_no_other_memory_to_go_to():
    found = answer("Apple M1 (8c GPU)", "llama-3-70b")
    assert found.fits is False
    assert found.tokens_per_second is None
    assert "does not run" in found.note


def test_layers_asked_for_are_taken_as_llama_cpp_counts_them():
    few, everything = answer(n_gpu_layers=10), answer(n_gpu_layers=99)
    assert (few.n_gpu_layers, everything.n_gpu_layers) == (10, 33)
    assert answer(n_gpu_layers=-1) == everything
    assert few.fits is True
    assert few.tokens_per_second < everything.tokens_per_second
    too_many = answer("GeForce RTX 3090", "llama-3-70b", n_gpu_layers=80, context=4096)
    assert too_many.fits is False
    assert "at most" in too_many.note


def test_of_a_mixture_that_does_not_fit_experts_go_to_ram_where_that_is_faster():
    settings_ = {"architecture": "gpt-oss-120b", "context": 8192}
    chosen = answer("GeForce RTX 4090", **settings_)
    layers = answer("GeForce RTX 4090", n_cpu_moe=0, **settings_)
    assert chosen.fits is layers.fits is False
    assert (chosen.n_gpu_layers, layers.n_cpu_moe) == (37, 0)
    assert 0 < chosen.n_cpu_moe < 36
    assert chosen.tokens_per_second > 1.2 * layers.tokens_per_second
    assert chosen.margin_bytes == layers.margin_bytes
    assert f"--n-cpu-moe {chosen.n_cpu_moe}" in chosen.note
    assert "DDR5-5600" in chosen.note
    # Asked about a prompt, it is the same way to open the model.
    prompt = answer("GeForce RTX 4090", n_prompt=512, n_generate=0, **settings_)
    assert (prompt.n_gpu_layers, prompt.n_cpu_moe) == (37, chosen.n_cpu_moe)


def test_what_is_asked_for_is_taken_as_it_is():
    settings_ = {"architecture": "gpt-oss-120b", "context": 8192}
    chosen = answer("GeForce RTX 4090", **settings_)
    asked = answer("GeForce RTX 4090", n_cpu_moe=chosen.n_cpu_moe, **settings_)
    assert asked.fits is True
    assert asked.tokens_per_second == chosen.tokens_per_second
    assert answer("GeForce RTX 4090", n_cpu_moe=99, **settings_).tokens_per_second < (
        chosen.tokens_per_second
    )
    too_few = answer("GeForce RTX 4090", n_cpu_moe=chosen.n_cpu_moe - 1, **settings_)
    assert too_few.fits is False
    assert too_few.n_gpu_layers < 37
    by_layers = answer("GeForce RTX 4090", n_gpu_layers=10, **settings_)
    assert (by_layers.n_gpu_layers, by_layers.n_cpu_moe) == (10, 0)
    both = answer("GeForce RTX 4090", n_gpu_layers=20, n_cpu_moe=30, **settings_)
    assert both.fits is True
    assert "the experts of 13 layers" in both.note


def test_a_mixture_that_fits_keeps_its_experts_on_the_card():
    found = answer("GeForce RTX 4090", "gpt-oss-20b")
    assert (found.fits, found.n_cpu_moe) == (True, 0)


def test_without_a_card_or_without_experts_there_is_nothing_to_leave_in_ram():
    ram = "DDR5-5600 dual channel (2x64-bit)"
    assert answer(ram, "gpt-oss-20b", n_cpu_moe=8) == answer(ram, "gpt-oss-20b")
    plain, asked = answer(), answer(n_cpu_moe=8)
    assert asked.tokens_per_second == plain.tokens_per_second
    assert "changes nothing" in asked.note


def test_a_cache_in_ram_makes_room_and_costs_speed():
    near, far, read = (
        answer(context=8192, depth=4096, kv_offload=offload, flash_attention=flash)
        for offload, flash in ((True, True), (False, True), (False, False))
    )
    assert far.margin_bytes > near.margin_bytes + 0.9 * near.kv_cache_bytes
    assert far.kv_cache_bytes == near.kv_cache_bytes
    assert far.tokens_per_second < read.tokens_per_second < near.tokens_per_second
    assert "copied to the GPU for every token" in far.note
    assert "read by the CPU" in read.note


def test_more_devices_hold_more_and_each_has_its_buffers():
    one, two = (
        answer("GeForce RTX 3090", "llama-3-70b", n_devices=n, context=4096) for n in (1, 2)
    )
    assert (one.fits, two.fits) == (False, True)
    assert two.compute_bytes == 2 * one.compute_bytes
    assert two.overhead_bytes == 2 * one.overhead_bytes


def test_a_prompt_alone_asks_for_prefill():
    decode, prefill = answer(), answer(n_prompt=512, n_generate=0)
    assert prefill.tokens_per_second > 10 * decode.tokens_per_second


def test_ram_has_no_size_so_nobody_knows_whether_it_fits():
    found = answer("DDR5-5600 dual channel (2x64-bit)")
    assert found.fits is None
    assert found.tokens_per_second > 0
    assert "how much RAM" in found.note


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware_name": "GeForce RTX 9999"}, "No device 'GeForce RTX 9999'"),
        ({"architecture": "llama-9-9b"}, "llama-9-9b"),
        ({"quant": "Q9_9"}, "Q9_9"),
        ({"kv_type": "q3_0"}, "q3_0"),
        ({"kv_type": "q8_0", "flash_attention": False}, "flash attention"),
        ({"n_devices": 0}, "n_devices is 0"),
        ({"depth": -1}, "depth is -1"),
        ({"n_cpu_moe": -1}, "n_cpu_moe is -1"),
        ({"context": 0, "n_generate": 0}, "context"),
        ({"weights_bytes": -5}, "-5"),
        ({"architecture": "no/such/file.gguf"}, "There is no file file.gguf"),
        ({"architecture": "no/such/config.json"}, "cannot be read"),
    ],
)
def test_what_cannot_be_answered_is_said(changes, said):
    found = answer(**changes)
    assert said in found.note
    assert found.tokens_per_second is None


def test_a_gguf_file_gives_its_own_bytes():
    path = model_files.resolve("embedded", "gguf").path
    found = answer(architecture=str(path), context=2048)
    assert found.weights_bytes == 96_576_768
    # 2 × 30 layers × 3 heads × 64 numbers × 2,048 tokens × 2 bytes.
    assert found.kv_cache_bytes == 45 * units.MIB


def test_a_config_json_gives_the_shape(tmp_path):
    a = models.find("llama-3-8b").architecture
    config = {
        "model_type": "llama",
        "num_hidden_layers": a.n_layers,
        "num_attention_heads": a.n_heads,
        "num_key_value_heads": a.n_kv_heads,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.feed_forward_size,
        "vocab_size": a.n_vocab,
        "max_position_embeddings": a.context_length,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_folder, by_name = answer(architecture=str(tmp_path)), answer()
    assert by_folder == by_name
    (tmp_path / "config.json").write_text("{")
    assert "not JSON" in planner.answer(Case("A40", str(tmp_path / "config.json"))).note


def test_a_low_bit_type_says_that_its_unpacking_is_known_from_one_device():
    assert "known from one device" in answer(quant="Q2_K").note
    assert "known from one device" not in answer(quant="Q4_K_M").note


def test_a_context_longer_than_the_training_is_said():
    assert "trained for 8,192" in answer(context=16384).note


@settings(max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(SHAPES),
    st.sampled_from(["F16", "Q8_0", "Q4_K_M", "Q2_K"]),
    st.integers(1, 4),
    st.integers(0, 4096),
    st.integers(0, 4096),
    st.integers(0, 32768),
    st.sampled_from([None, 0, 5, 99]),
    st.booleans(),
)
def test_every_case_of_the_catalogs_gets_an_answer_without_surprise(
    device, model, quant, n_devices, n_prompt, n_generate, depth, n_cpu_moe, kv_offload
):
    found = answer(
        device,
        model,
        quant=quant,
        n_devices=n_devices,
        n_prompt=n_prompt,
        n_generate=n_generate,
        depth=depth,
        n_cpu_moe=n_cpu_moe,
        kv_offload=kv_offload,
    )
    assert found.total_bytes > found.weights_bytes > 0
    if found.tokens_per_second is not None:
        assert 0 < found.low < found.high
    else:
        assert found.fits is False


@settings(max_examples=40)
@given(st.sampled_from(SHAPES), st.integers(256, 65536), st.integers(256, 65536))
def test_a_longer_context_never_takes_less(model, one, other):
    short, long = sorted((one, other))
    totals = [answer(architecture=model, context=n).total_bytes for n in (short, long)]
    assert totals[0] <= totals[1]
