"""The speed model: bounds, properties, and what a prediction says about itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import speed, weights, workload
from guidebook.catalog import hardware, models
from guidebook.speed import Share

CARDS = [device for device in hardware.every() if device.kind == "discrete"]
LLAMA = models.find("llama-3-8b").architecture


def load(quant="Q4_K_M", depth=0.0, model="llama-3-8b"):
    shape = models.find(model).architecture
    return workload.of(shape, weights.account(shape, quant), depth)


def decode(device, wanted):
    return speed.predict([Share(device)], wanted, "decode")


@given(st.sampled_from(hardware.every()), st.sampled_from(["F16", "Q8_0", "Q4_K_M", "Q2_K"]))
def test_no_prediction_is_above_what_memory_allows(device, quant):
    wanted = load(quant)
    bound = speed.bandwidth_bound(device.bandwidth, wanted.decode_bytes)
    assert decode(device, wanted).tokens_per_second <= bound


@given(st.sampled_from(CARDS), st.floats(1.01, 3))
def test_more_bandwidth_never_makes_decoding_slower(device, factor):
    faster = replace(device, bandwidth=device.bandwidth * factor)
    assert decode(faster, load()).tokens_per_second >= decode(device, load()).tokens_per_second


@given(st.sampled_from(hardware.every()), st.floats(0, 1e5), st.floats(1, 1e5))
def test_decoding_gets_slower_with_depth(device, depth, more):
    near, far = load(depth=depth), load(depth=depth + more)
    assert decode(device, far).tokens_per_second < decode(device, near).tokens_per_second


@given(st.sampled_from(hardware.every()), st.sampled_from(["decode", "prefill"]))
def test_the_interval_holds_the_prediction_or_names_its_bias(device, phase):
    found = speed.predict([Share(device)], load(), phase, 512)
    assert 0 < found.low < found.high
    assert found.low <= found.tokens_per_second * 1.1
    assert found.basis


@given(st.sampled_from(CARDS), st.floats(0.05, 0.95))
def test_a_split_with_ram_lies_between_the_card_and_the_ram(card, fraction):
    ram = hardware.find("DDR4-3200 dual channel (2x64-bit)")
    split = speed.predict([Share(ram, 1 - fraction), Share(card, fraction)], load(), "decode")
    ends = sorted(decode(device, load()).tokens_per_second for device in (card, ram))
    # Handing the hidden state over costs a little.
    assert ends[0] * 0.95 <= split.tokens_per_second <= ends[1]


def test_two_cards_decode_no_faster_than_one_but_read_a_long_prompt_faster():
    card = hardware.find("GeForce RTX 4090")
    both = [Share(card, 0.5), Share(card, 0.5)]
    one = decode(card, load()).tokens_per_second
    assert speed.predict(both, load(), "decode").tokens_per_second == pytest.approx(one, rel=0.1)
    alone = speed.predict([Share(card)], load(), "prefill", 4096).tokens_per_second
    assert 1.5 < speed.predict(both, load(), "prefill", 4096).tokens_per_second / alone < 2


def test_a_prediction_that_was_not_calibrated_says_so():
    spark = hardware.find("NVIDIA DGX Spark (GB10)")
    unseen = hardware.find("GeForce RTX 3070")
    assert speed.is_calibrated(spark)
    assert not speed.is_calibrated(unseen)
    assert "uncalibrated" not in decode(spark, load()).basis
    assert "uncalibrated: this device was not measured" in decode(unseen, load()).basis
    fast = decode(hardware.find("B200 SXM"), load())
    assert "no device of its family with such a bandwidth" in fast.basis
    split = speed.predict([Share(unseen, 0.5), Share(spark, 0.5)], load(), "decode")
    assert "splits are not calibrated" in split.basis


def test_a_family_with_too_few_devices_gets_a_factor_of_three():
    ram = hardware.find("DDR5-5600 dual channel (2x64-bit)")
    found = speed.predict([Share(ram)], load(), "prefill", 512)
    assert "uncalibrated: fewer than 3 devices" in found.basis
    assert found.high / found.low == pytest.approx(9)


def test_experts_that_are_not_used_cost_no_decoding_time_but_memory_time_for_a_prompt():
    card = hardware.find("GeForce RTX 5090")
    moe, dense = load("MXFP4", model="gpt-oss-20b"), load(model="qwen2.5-14b")
    assert moe.weights_bytes > dense.weights_bytes
    assert decode(card, moe).tokens_per_second > 1.5 * decode(card, dense).tokens_per_second


def test_low_bit_types_take_more_unpacking():
    assert speed.unpacking_work("Q4_K_M") == speed.unpacking_work("F16") == 1
    assert 1 < speed.unpacking_work("Q3_K_M") < speed.unpacking_work("IQ1_S")


def test_shares_that_are_not_a_whole_model_are_refused():
    card = hardware.find("GeForce RTX 4090")
    for shares in ([], [Share(card, 0.5)]):
        with pytest.raises(ValueError, match="add up to the whole model"):
            speed.predict(shares, load(), "decode")


def test_window_layers_stop_reading_more_at_their_window():
    gemma = models.find("gemma-3-27b").architecture
    account = weights.account(gemma, "Q4_K_M")
    read = [workload.of(gemma, account, depth).kv_bytes for depth in (1024, 2048, 4096)]
    full = gemma.n_full_layers * 2 * gemma.n_kv_heads * gemma.head_size * 2
    assert read[1] - read[0] == pytest.approx(1024 * full)
    assert read[2] - read[1] == pytest.approx(2048 * full)


def test_the_roofline_takes_the_slower_of_reading_and_computing():
    assert speed.bandwidth_bound(1e12, 4e9) == 250
    assert speed.compute_bound(1e13, 5e9) == 1000
    with pytest.raises(ValueError, match="at least one byte"):
        speed.bandwidth_bound(1e12, 0)
    with pytest.raises(ValueError, match="at least one weight"):
        speed.compute_bound(1e12, 0)
