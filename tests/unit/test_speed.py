"""The speed model: bounds, properties, and what a prediction says about itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import speed, weights, workload
from guidebook.catalog import hardware, models
from guidebook.speed import Kept, Share

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


# --- experts and cache in RAM ----------------------------------------------------------------

RAM = hardware.find("DDR5-5600 dual channel (2x64-bit)")
RTX_4090 = hardware.find("GeForce RTX 4090")


def gpt_oss(depth=0.0):
    return load("MXFP4", depth, "gpt-oss-20b")


def with_kept(wanted, phase="decode", n_tokens=1, **kept):
    parts = Kept(RAM, **kept)
    return speed.predict([Share(RTX_4090)], wanted, phase, n_tokens, kept=parts).tokens_per_second


def test_a_token_reads_the_experts_that_it_uses():
    shape = models.find("gpt-oss-20b").architecture
    wanted = gpt_oss()
    account = weights.account(shape, "MXFP4")
    experts = wanted.experts(1)
    assert experts.decode_bytes == pytest.approx(account.expert_bytes * 4 / 32)
    assert experts.weights_bytes == account.expert_bytes
    # 3 matrices × 2,880 × 2,880 × 4 experts × 24 layers.
    assert experts.n_weights == 3 * 2880 * 2880 * 4 * 24
    rest = wanted.less(experts)
    assert rest.n_weights + experts.n_weights == wanted.n_weights
    assert rest.n_moe_layers == wanted.n_moe_layers
    assert experts.n_layers == experts.n_moe_layers == 0


@given(st.integers(1, 24))
def test_writing_takes_longer_the_more_experts_are_in_ram_but_never_as_long_as_layers_do(layers):
    wanted = gpt_oss()
    part = layers / 24
    found = with_kept(wanted, experts=part, expert_layers=layers)
    fewer = with_kept(wanted, experts=(layers - 1) / 24, expert_layers=layers - 1)
    assert found < fewer
    # The same bytes leave the card as whole layers.
    shape = models.find("gpt-oss-20b").architecture
    account = weights.account(shape, "MXFP4")
    fraction = part * account.expert_bytes / account.layer_bytes
    split = [Share(RAM, fraction), Share(RTX_4090, 1 - fraction)]
    if layers > 1:
        assert found > speed.predict(split, wanted, "decode").tokens_per_second


def test_the_time_of_experts_in_ram_is_what_reading_them_there_takes():
    wanted = gpt_oss()
    kept = Kept(RAM, experts=1.0, expert_layers=24)
    alone = speed.seconds(RTX_4090, wanted.less(wanted.experts(1)), "decode")
    there = 1 / with_kept(wanted, experts=1.0, expert_layers=24) - alone
    reading = 1.795 * wanted.experts(1).decode_bytes / RAM.bandwidth
    assert there == pytest.approx(reading + kept.trip_seconds, rel=0.01)


def test_a_long_prompt_copies_the_experts_to_the_card_and_a_short_one_does_not():
    wanted = gpt_oss()
    everything = {"experts": 1.0, "expert_layers": 24}
    short, long = (
        n_tokens / with_kept(wanted, "prefill", n_tokens, **everything) for n_tokens in (31, 32)
    )
    # Nearly all experts cross at 16 GB/s, which takes longer than the CPU reading them.
    crossing = wanted.expert_bytes * wanted.used_experts(32) / 16e9
    assert long > crossing
    assert short < long
    whole = speed.predict([Share(RTX_4090)], wanted, "prefill", 512).tokens_per_second
    assert with_kept(wanted, "prefill", 512, **everything) < whole / 2


@given(st.integers(1, 512))
def test_a_larger_batch_uses_more_of_the_experts_but_never_more_than_all(n_tokens):
    wanted = gpt_oss()
    assert wanted.used_experts(1) == pytest.approx(4 / 32)
    assert wanted.used_experts(n_tokens) <= wanted.used_experts(n_tokens + 1) <= 1


def test_a_cache_in_ram_costs_nothing_while_it_is_empty_but_its_trips():
    near = speed.predict([Share(RTX_4090)], load(), "decode").tokens_per_second
    kept = Kept(RAM, cache=1.0, cache_layers=32)
    assert 1 / with_kept(load(), cache=1.0, cache_layers=32) == pytest.approx(
        1 / near + kept.trip_seconds
    )


def test_flash_attention_copies_a_cache_in_ram_and_the_cpu_reads_it_without():
    wanted = load(depth=8192)
    cache = {"cache": 1.0, "cache_layers": 32}
    near = speed.predict([Share(RTX_4090)], wanted, "decode").tokens_per_second
    copied = with_kept(wanted, **cache)
    read = with_kept(wanted, flash_attention=False, **cache)
    assert 1 / copied - 1 / near == pytest.approx(wanted.kv_bytes / 16e9 + 32 * 50e-6)
    assert copied < read < near
    # Reading a prompt it is the other way round: attention is arithmetic, which a CPU is slow at.
    assert with_kept(wanted, "prefill", 512, flash_attention=False, **cache) < with_kept(
        wanted, "prefill", 512, **cache
    )


def test_nothing_kept_in_ram_changes_nothing():
    for phase in ("decode", "prefill"):
        plain = speed.predict([Share(RTX_4090)], gpt_oss(), phase, 512)
        assert with_kept(gpt_oss(), phase, 512) == pytest.approx(plain.tokens_per_second)


def test_what_is_kept_in_ram_counts_for_the_interval():
    split = speed.predict(
        [Share(RTX_4090)], gpt_oss(), "decode", kept=Kept(RAM, experts=0.5, expert_layers=12)
    )
    assert "splits are not calibrated" in split.basis
    assert split.high / split.low > 3


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
