"""Training memory, against cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import training, units
from guidebook.architecture import Architecture

LLAMA_7B = Architecture("llama", 32, 32, 32, 128, 4096, 32000, 4096, feed_forward_size=11008)
GPT = replace(LLAMA_7B, feed_forward_size=4 * 4096, gated=False)
N_7B = 6_738_415_616


@pytest.mark.parametrize(
    ("optimizer", "mixed", "bytes_per_weight"),
    [
        ("adamw", True, 16),  # 2 weight + 4 master + 2 gradient + 8 moments (ZeRO, section 3.1)
        ("adamw", False, 16),  # 4 weight + 4 gradient + 8 moments
        ("sgd", True, 8),
        ("sgd-momentum", False, 12),
        ("adamw-8bit", True, 10.00390625),
        ("adafactor", True, 8),
    ],
)
def test_full_training_takes_the_textbook_bytes_per_weight(optimizer, mixed, bytes_per_weight):
    found = training.training(LLAMA_7B, N_7B, optimizer=optimizer, mixed_precision=mixed)
    assert found.state_bytes == pytest.approx(bytes_per_weight * N_7B)
    assert found.n_trained == N_7B


@pytest.mark.parametrize(
    ("stage", "bytes_per_weight"),
    [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)],
)
def test_zero_shards_as_its_paper_says(stage, bytes_per_weight):
    # Rajbhandari et al., figure 1: 120, 31.4, 16.6 and 1.88 GB for 7.5 billion on 64 devices.
    found = training.training(LLAMA_7B, 7_500_000_000, zero_stage=stage, n_devices=64)
    assert found.state_bytes == pytest.approx(bytes_per_weight * 7.5e9)


def test_lora_trains_rank_times_inputs_plus_outputs():
    # Llama 2 7B, rank 8 on q and v: 32 layers × 2 × 8 × (4096 + 4096) = 4,194,304 (PEFT prints it).
    assert training.lora_weights(LLAMA_7B, 8, ("q", "v")) == 4_194_304
    # Rank 16 on all seven: PEFT prints 39,976,960.
    assert training.lora_weights(LLAMA_7B, 16) == 39_976_960


def test_grouped_queries_have_smaller_adapters():
    grouped = replace(LLAMA_7B, n_kv_heads=8)
    assert training.lora_weights(grouped, 8, ("k",)) == 32 * 8 * (4096 + 1024)


def test_experts_are_not_adapted():
    sparse = replace(LLAMA_7B, n_experts=8, n_experts_used=2, expert_feed_forward_size=11008)
    assert training.lora_weights(sparse, 8) == training.lora_weights(sparse, 8, training.ATTENTION)


def test_qlora_of_7b_keeps_its_weights_in_four_gib():
    full = training.training(LLAMA_7B, N_7B)
    lora = training.training(LLAMA_7B, N_7B, method="lora")
    qlora = training.training(LLAMA_7B, N_7B, method="qlora")
    assert full.state_bytes > 6 * lora.state_bytes
    assert lora.weights_bytes == 2 * N_7B + 4 * 39_976_960
    # 6.48 billion weights at 4.127 bits, embeddings of 0.26 billion in 16 bits, adapters.
    assert qlora.weights_bytes == pytest.approx(
        (N_7B - 262_144_000) * 4.127 / 8 + 262_144_000 * 2 + 4 * 39_976_960, rel=0.001
    )
    assert qlora.weights_bytes < 4 * units.GIB
    assert qlora.gradient_bytes == lora.gradient_bytes == 4 * 39_976_960
    assert qlora.master_bytes == 0


def test_activations_of_a_gpt_are_those_of_the_paper_without_dropout():
    # s·b·h·(34 + 5·a·s/h) per layer, less the dropout masks: two of s·b·h, one of a·s²·b bytes.
    s, b, h, a = 2048, 4, 4096, 32
    logits = 2 * s * b * 32000 * 4
    kept = training.activation_bytes(GPT, s, b, checkpointing="none", flash_attention=False)
    assert kept - logits == 32 * (s * b * h * 32 + 4 * a * s * s * b)
    selective = training.activation_bytes(
        GPT, s, b, checkpointing="selective", flash_attention=False
    )
    assert selective - logits == 32 * s * b * h * 32


def test_full_checkpointing_keeps_layer_inputs_and_one_layer():
    s, h = 2048, 4096
    found = training.activation_bytes(GPT, s, checkpointing="full")
    assert found == 32 * 2 * s * h + 32 * s * h + 2 * s * 32000 * 4


@given(st.integers(1, 4096), st.integers(1, 8))
def test_activations_grow_with_the_batch_and_shrink_with_checkpointing(tokens, batch):
    none, selective, full = (
        training.activation_bytes(LLAMA_7B, tokens, batch, checkpointing=how, flash_attention=False)
        for how in ("none", "selective", "full")
    )
    assert full <= none
    assert selective <= none
    assert none == batch * training.activation_bytes(
        LLAMA_7B, tokens, checkpointing="none", flash_attention=False
    )


def test_the_total_is_the_sum():
    found = training.training(LLAMA_7B, N_7B, method="lora", n_tokens=512)
    assert found.total_bytes == (
        found.weights_bytes
        + found.master_bytes
        + found.gradient_bytes
        + found.optimizer_bytes
        + found.activation_bytes
    )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"optimizer": "lion"}, "Unknown optimizer 'lion'"),
        ({"method": "dora"}, "Unknown method 'dora'"),
        ({"zero_stage": 4}, "stages 0 to 3"),
        ({"n_tokens": 0}, "one sequence of one token"),
        ({"checkpointing": "some"}, "Unknown checkpointing 'some'"),
        ({"method": "lora", "rank": 0}, "rank of 0"),
        ({"method": "lora", "targets": ("lm_head",)}, "no target 'lm_head'"),
    ],
)
def test_bad_input_is_one_sentence(named, message):
    with pytest.raises(ValueError, match=message):
        training.training(LLAMA_7B, N_7B, **named)


def test_latent_attention_is_refused_for_lora():
    latent = replace(LLAMA_7B, kv_lora_rank=512, rope_head_size=64)
    with pytest.raises(ValueError, match="latent attention"):
        training.lora_weights(latent, 8)
