"""A shape is read the same from a GGUF file, from a config.json and from the catalog."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import architecture
from guidebook.architecture import Architecture
from guidebook.catalog import models

CONFIGS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.json"))
NANO_9B_PATTERN = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"

# The keys that the makers publish, without those that say nothing about the shape.
WRITTEN_CONFIGS = {
    "gemma-3-270m": {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "vocab_size": 262144,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 2048,
        "_sliding_window_pattern": 6,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
    },
    "gemma-4-26b-a4b": {
        "model_type": "gemma4",
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size": 2816,
            "num_hidden_layers": 30,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "num_global_key_value_heads": 2,
            "head_dim": 256,
            "global_head_dim": 512,
            "intermediate_size": 2112,
            "moe_intermediate_size": 704,
            "num_experts": 128,
            "top_k_experts": 8,
            "sliding_window": 1024,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
            "vocab_size": 262144,
            "max_position_embeddings": 262144,
        },
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 24,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "hidden_size": 4544,
        "multi_query": True,
        "new_decoder_architecture": False,
        "vocab_size": 65024,
        "max_position_embeddings": 2048,
    },
    "llama-4-maverick": {
        "model_type": "llama4",
        "text_config": {
            "model_type": "llama4_text",
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "num_local_experts": 128,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 8192,
            "vocab_size": 202048,
            "max_position_embeddings": 1048576,
            "tie_word_embeddings": False,
        },
    },
    "granite-4.0-h-small": {
        "model_type": "granitemoehybrid",
        "hidden_size": 4096,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 72,
        "num_experts_per_tok": 10,
        "shared_intermediate_size": 1536,
        "intermediate_size": 768,
        "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 128,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "tie_word_embeddings": True,
        "vocab_size": 100352,
        "max_position_embeddings": 131072,
    },
    "nemotron-nano-9b-v2": {
        "model_type": "nemotron_h",
        "vocab_size": 131072,
        "hidden_size": 4480,
        "intermediate_size": 15680,
        "num_hidden_layers": 56,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "hybrid_override_pattern": NANO_9B_PATTERN,
        "mamba_num_heads": 128,
        "mamba_head_dim": 80,
        "n_groups": 8,
        "ssm_state_size": 128,
        "conv_kernel": 4,
        "tie_word_embeddings": False,
    },
    "lfm2-1.2b": {
        "model_type": "lfm2",
        "vocab_size": 65536,
        "hidden_size": 2048,
        "block_ff_dim": 12288,
        "block_auto_adjust_ff_dim": True,
        "block_multiple_of": 256,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "conv_L_cache": 3,
    },
}

# Metadata of published GGUF files; a list has one number per layer.
GGUF = {
    "gemma-3-27b": {
        "general.architecture": "gemma3",
        "gemma3.block_count": 62,
        "gemma3.embedding_length": 5376,
        "gemma3.feed_forward_length": 21504,
        "gemma3.context_length": 131072,
        "gemma3.attention.head_count": 32,
        "gemma3.attention.head_count_kv": 16,
        "gemma3.attention.key_length": 128,
        "gemma3.attention.value_length": 128,
        "gemma3.attention.sliding_window": 1024,
        "gemma3.vocab_size": 262208,
    },
    "gemma-4-26b-a4b": {
        "general.architecture": "gemma4",
        "gemma4.block_count": 30,
        "gemma4.embedding_length": 2816,
        "gemma4.feed_forward_length": 2112,
        "gemma4.expert_feed_forward_length": 704,
        "gemma4.expert_count": 128,
        "gemma4.expert_used_count": 8,
        "gemma4.context_length": 262144,
        "gemma4.attention.head_count": 16,
        "gemma4.attention.head_count_kv": ([8] * 5 + [2]) * 5,
        "gemma4.attention.key_length": 512,
        "gemma4.attention.value_length": 512,
        "gemma4.attention.key_length_swa": 256,
        "gemma4.attention.value_length_swa": 256,
        "gemma4.attention.sliding_window": 1024,
        "gemma4.attention.sliding_window_pattern": ([True] * 5 + [False]) * 5,
        "gemma4.vocab_size": 262144,
    },
    "deepseek-v3": {
        "general.architecture": "deepseek2",
        "deepseek2.block_count": 62,
        "deepseek2.nextn_predict_layers": 1,
        "deepseek2.embedding_length": 7168,
        "deepseek2.feed_forward_length": 18432,
        "deepseek2.context_length": 163840,
        "deepseek2.attention.head_count": 128,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
        "deepseek2.attention.kv_lora_rank": 512,
        "deepseek2.attention.q_lora_rank": 1536,
        "deepseek2.rope.dimension_count": 64,
        "deepseek2.leading_dense_block_count": 3,
        "deepseek2.expert_count": 256,
        "deepseek2.expert_used_count": 8,
        "deepseek2.expert_shared_count": 1,
        "deepseek2.expert_feed_forward_length": 2048,
        "deepseek2.vocab_size": 129280,
    },
    "qwen3.5-35b-a3b": {
        "general.architecture": "qwen35moe",
        "qwen35moe.block_count": 41,
        "qwen35moe.nextn_predict_layers": 1,
        "qwen35moe.embedding_length": 2048,
        "qwen35moe.context_length": 262144,
        "qwen35moe.attention.head_count": 16,
        "qwen35moe.attention.head_count_kv": 2,
        "qwen35moe.attention.key_length": 256,
        "qwen35moe.attention.value_length": 256,
        "qwen35moe.expert_count": 256,
        "qwen35moe.expert_used_count": 8,
        "qwen35moe.expert_feed_forward_length": 512,
        "qwen35moe.expert_shared_feed_forward_length": 512,
        "qwen35moe.ssm.conv_kernel": 4,
        "qwen35moe.ssm.state_size": 128,
        "qwen35moe.ssm.group_count": 16,
        "qwen35moe.ssm.time_step_rank": 32,
        "qwen35moe.ssm.inner_size": 4096,
        "qwen35moe.full_attention_interval": 4,
        "qwen35moe.rope.dimension_count": 64,
        "tokenizer.ggml.tokens": range(248320),
    },
    "granite-4.0-h-small": {
        "general.architecture": "granitehybrid",
        "granitehybrid.block_count": 40,
        "granitehybrid.embedding_length": 4096,
        "granitehybrid.feed_forward_length": 768,
        "granitehybrid.expert_shared_feed_forward_length": 1536,
        "granitehybrid.context_length": 131072,
        "granitehybrid.attention.head_count": 32,
        "granitehybrid.attention.head_count_kv": ([0] * 5 + [8] + [0] * 4) * 4,
        "granitehybrid.expert_count": 72,
        "granitehybrid.expert_used_count": 10,
        "granitehybrid.ssm.conv_kernel": 4,
        "granitehybrid.ssm.state_size": 128,
        "granitehybrid.ssm.group_count": 1,
        "granitehybrid.ssm.inner_size": 8192,
        "granitehybrid.ssm.time_step_rank": 128,
        "granitehybrid.vocab_size": 100352,
    },
    "nemotron-nano-9b-v2": {
        "general.architecture": "nemotron_h",
        "nemotron_h.block_count": 56,
        "nemotron_h.embedding_length": 4480,
        "nemotron_h.feed_forward_length": [15680 * (kind == "-") for kind in NANO_9B_PATTERN],
        "nemotron_h.context_length": 131072,
        "nemotron_h.attention.head_count": 40,
        "nemotron_h.attention.head_count_kv": [8 * (kind == "*") for kind in NANO_9B_PATTERN],
        "nemotron_h.attention.key_length": 128,
        "nemotron_h.attention.value_length": 128,
        "nemotron_h.ssm.conv_kernel": 4,
        "nemotron_h.ssm.state_size": 128,
        "nemotron_h.ssm.group_count": 8,
        "nemotron_h.ssm.inner_size": 10240,
        "nemotron_h.ssm.time_step_rank": 128,
        "nemotron_h.vocab_size": 131072,
    },
    "lfm2-1.2b": {
        "general.architecture": "lfm2",
        "lfm2.block_count": 16,
        "lfm2.embedding_length": 2048,
        "lfm2.feed_forward_length": 8192,
        "lfm2.context_length": 128000,
        "lfm2.attention.head_count": 32,
        "lfm2.attention.head_count_kv": [8 * (i in {2, 5, 8, 10, 12, 14}) for i in range(16)],
        "lfm2.shortconv.l_cache": 3,
        "lfm2.vocab_size": 65536,
    },
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_published_config_gives_the_shape_of_the_catalog(path):
    found = architecture.from_config(json.loads(path.read_text("utf-8")))
    wanted = models.find(path.stem).architecture
    # The copies don't all keep the key of the layers that predict ahead.
    assert replace(found, n_prediction_layers=wanted.n_prediction_layers) == wanted


@pytest.mark.parametrize("name", WRITTEN_CONFIGS)
def test_a_config_of_each_kind_gives_the_shape_of_the_catalog(name):
    assert architecture.from_config(WRITTEN_CONFIGS[name]) == models.find(name).architecture


@pytest.mark.parametrize("name", GGUF)
def test_gguf_metadata_gives_the_shape_of_the_catalog(name):
    wanted = models.find(name).architecture
    found = architecture.from_gguf_metadata(GGUF[name], tied_embeddings=wanted.tied_embeddings)
    if wanted.is_mla:  # llama.cpp's cache of latent attention has one head
        wanted = replace(wanted, n_kv_heads=1)
    assert found == wanted


@pytest.mark.parametrize(
    "key", ["model_type", "hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"]
)
def test_a_config_without_a_needed_key_is_refused_by_its_name(key):
    config = {one: value for one, value in WRITTEN_CONFIGS["mixtral-8x7b"].items() if one != key}
    with pytest.raises(ValueError, match=key):
        architecture.from_config(config)


@pytest.mark.parametrize(
    "key", ["granitehybrid.ssm.inner_size", "granitehybrid.block_count", "general.architecture"]
)
def test_metadata_without_a_needed_key_is_refused_by_its_name(key):
    metadata = {one: value for one, value in GGUF["granite-4.0-h-small"].items() if one != key}
    with pytest.raises(ValueError, match=key):
        architecture.from_gguf_metadata(metadata)


def test_a_window_that_no_pattern_places_is_ignored_as_llama_cpp_does():
    config = {**WRITTEN_CONFIGS["mixtral-8x7b"], "sliding_window": 4096}
    assert architecture.from_config(config).n_window_layers == 0


def test_layers_of_every_kind_add_up():
    shape = models.find("nemotron-nano-9b-v2").architecture
    assert (shape.n_full_layers, shape.n_recurrent_layers, shape.n_feed_forward_layers) == (
        4,
        27,
        25,
    )
    beside = models.find("falcon-h1-7b").architecture
    assert beside.n_full_layers == beside.n_recurrent_layers == beside.n_layers
    mixture = models.find("llama-4-maverick").architecture
    assert (mixture.n_full_layers, mixture.n_window_layers) == (12, 36)
    assert (mixture.n_expert_layers, mixture.n_dense_layers) == (24, 24)


def test_the_recurrent_state_of_qwen_is_what_llama_cpp_reports():
    shape = models.find("qwen3.6-27b").architecture
    four_sequences = 4 * shape.n_recurrent_layers * shape.recurrent_state_bytes
    assert four_sequences / 2**20 == pytest.approx(598.5, abs=0.05)


@given(
    layers=st.integers(1, 200),
    window=st.integers(0, 200),
    recurrent=st.integers(0, 200),
    beside=st.booleans(),
)
def test_no_layer_is_lost_or_counted_twice(layers, window, recurrent, beside):
    window = min(window, layers)
    recurrent = layers if beside else min(recurrent, layers - window)
    shape = Architecture(
        *("x", layers, 8, 2, 64, 512, 100, 1000),
        n_window_layers=window,
        n_recurrent_layers=recurrent,
        recurrent_beside_attention=beside,
    )
    alone = 0 if beside else recurrent
    assert shape.n_full_layers + shape.n_window_layers + alone == layers
    assert shape.n_full_layers >= 0


@given(kernel=st.integers(1, 8), hidden=st.integers(1, 4096))
def test_a_longer_convolution_needs_a_longer_state(kernel, hidden):
    _, state = architecture.short_convolution(hidden, kernel)
    _, longer = architecture.short_convolution(hidden, kernel + 1)
    assert longer - state == 4 * hidden
