"""Models without weights, to ask llama.cpp about what this machine could never load.

A GGUF header says everything that llama.cpp needs to plan its buffers. This module writes one for
an architecture, followed by a hole in the place of the weights: seconds of work and kilobytes of
disk for any size of model. :func:`guidebook.measure.allocation.report` with ``no_alloc=True``
then reads the plan of the real llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guidebook.architecture import Architecture

#: Families whose tensors this module knows, by the name of the architecture in GGUF.
FAMILIES = ("llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "deepseek2", "gpt-oss")

_QK_NORMS = {"qwen3", "qwen3moe", "gemma3"}
_SIGMOID = 2  # llama.cpp, llama_expert_gating_func_type


def write(path: Path, architecture: Architecture) -> None:
    """Write a GGUF file whose matrices are F16, vectors F32, and whose data is a hole.

    Only for simulation: loading it for real would give a model of zeros, without a vocabulary.

    Raises
    ------
    ValueError
        The family's tensors are not known here.
    """
    import gguf
    import numpy as np

    if architecture.name not in FAMILIES:
        raise ValueError(
            f"No blank model of the family {architecture.name!r} can be written. Known: "
            f"{', '.join(FAMILIES)}."
        )
    writer = gguf.GGUFWriter(path, arch=architecture.name)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for key, value in _metadata(architecture):
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add[type(value)](f"{architecture.name}.{key}", value)
    size = 0
    for name, shape in _tensors(architecture):
        dtype = np.dtype(np.float16 if len(shape) > 1 and ".bias" not in name else np.float32)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        writer.add_tensor_info(name, shape, dtype, n_bytes)
        size += -(-n_bytes // 32) * 32  # GGUF's alignment
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as stream:
        header = stream.seek(0, 2)
        stream.truncate(-(-header // 32) * 32 + size)


def _metadata(a: Architecture) -> Iterator[tuple[str, Any]]:
    yield "block_count", a.n_layers
    yield "context_length", a.context_length
    yield "vocab_size", a.n_vocab
    yield "embedding_length", a.hidden_size
    yield "feed_forward_length", a.feed_forward_size or a.expert_feed_forward_size
    yield "attention.head_count", a.n_heads
    yield "attention.layer_norm_rms_epsilon", 1e-5
    yield "rope.freq_base", 10000.0
    if a.is_mla:
        # llama.cpp keeps latent attention as one head of the compressed width.
        yield "attention.head_count_kv", 1
        yield "attention.key_length", a.kv_lora_rank + a.rope_head_size
        yield "attention.value_length", a.kv_lora_rank
        yield "attention.key_length_mla", a.head_size
        yield "attention.value_length_mla", a.v_head_size
        yield "attention.kv_lora_rank", a.kv_lora_rank
        yield "rope.dimension_count", a.rope_head_size
        if a.q_lora_rank:
            yield "attention.q_lora_rank", a.q_lora_rank
    else:
        yield "attention.head_count_kv", a.n_kv_heads
        yield "attention.key_length", a.head_size
        yield "attention.value_length", a.v_head_size
        yield "rope.dimension_count", a.head_size
    if a.n_window_layers:
        yield "attention.sliding_window", a.sliding_window
    if a.is_moe:
        yield "expert_count", a.n_experts
        yield "expert_used_count", a.n_experts_used
        yield "expert_feed_forward_length", a.expert_feed_forward_size
    if a.name == "deepseek2":
        yield "leading_dense_block_count", a.n_dense_layers
        yield "expert_shared_count", a.shared_feed_forward_size // a.expert_feed_forward_size
        yield "expert_gating_func", _SIGMOID
        yield "expert_weights_norm", True
        yield "expert_weights_scale", 2.5


def _tensors(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names as llama.cpp writes them, and shapes rows first."""
    yield "token_embd.weight", (a.n_vocab, a.hidden_size)
    yield "output_norm.weight", (a.hidden_size,)
    if not a.tied_embeddings:
        yield "output.weight", (a.n_vocab, a.hidden_size)
    for layer in range(a.n_layers):
        for name, shape in _layer(a, layer):
            yield f"blk.{layer}.{name}", shape


def _layer(a: Architecture, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = a.hidden_size
    yield "attn_norm.weight", (hidden,)
    yield from _latent_attention(a) if a.is_mla else _attention(a)
    if a.name == "gpt-oss":
        yield "post_attention_norm.weight", (hidden,)
    else:
        yield "ffn_norm.weight", (hidden,)
    if a.name == "gemma3":
        yield "post_attention_norm.weight", (hidden,)
        yield "post_ffw_norm.weight", (hidden,)
    if a.is_moe and layer >= a.n_dense_layers:
        yield from _experts(a)
        return
    yield "ffn_gate.weight", (a.feed_forward_size, hidden)
    yield "ffn_up.weight", (a.feed_forward_size, hidden)
    yield "ffn_down.weight", (hidden, a.feed_forward_size)


def _attention(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    rows = {
        "q": a.n_heads * a.head_size,
        "k": a.n_kv_heads * a.head_size,
        "v": a.n_kv_heads * a.v_head_size,
    }
    for part, size in rows.items():
        yield f"attn_{part}.weight", (size, a.hidden_size)
        if a.name in ("qwen2", "gpt-oss"):
            yield f"attn_{part}.bias", (size,)
    yield "attn_output.weight", (a.hidden_size, a.n_heads * a.v_head_size)
    if a.name in _QK_NORMS:
        yield "attn_q_norm.weight", (a.head_size,)
        yield "attn_k_norm.weight", (a.head_size,)
    if a.name == "gpt-oss":
        yield "attn_output.bias", (a.hidden_size,)
        yield "attn_sinks.weight", (a.n_heads,)


def _latent_attention(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, nope = a.n_heads * a.head_size, a.head_size - a.rope_head_size
    if a.q_lora_rank:
        yield "attn_q_a.weight", (a.q_lora_rank, a.hidden_size)
        yield "attn_q_a_norm.weight", (a.q_lora_rank,)
        yield "attn_q_b.weight", (queries, a.q_lora_rank)
    else:
        yield "attn_q.weight", (queries, a.hidden_size)
    yield "attn_kv_a_mqa.weight", (a.kv_lora_rank + a.rope_head_size, a.hidden_size)
    yield "attn_kv_a_norm.weight", (a.kv_lora_rank,)
    yield "attn_k_b.weight", (a.n_heads, a.kv_lora_rank, nope)
    yield "attn_v_b.weight", (a.n_heads, a.v_head_size, a.kv_lora_rank)
    yield "attn_output.weight", (a.hidden_size, a.n_heads * a.v_head_size)


def _experts(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, width, count = a.hidden_size, a.expert_feed_forward_size, a.n_experts
    yield "ffn_gate_inp.weight", (count, hidden)
    yield "ffn_gate_exps.weight", (count, width, hidden)
    yield "ffn_up_exps.weight", (count, width, hidden)
    yield "ffn_down_exps.weight", (count, hidden, width)
    if a.name == "gpt-oss":
        yield "ffn_gate_inp.bias", (count,)
        yield "ffn_gate_exps.bias", (count, width)
        yield "ffn_up_exps.bias", (count, width)
        yield "ffn_down_exps.bias", (count, hidden)
    if a.name == "deepseek2":
        yield "exp_probs_b.bias", (count,)
        shared = a.shared_feed_forward_size
        yield "ffn_gate_shexp.weight", (shared, hidden)
        yield "ffn_up_shexp.weight", (shared, hidden)
        yield "ffn_down_shexp.weight", (hidden, shared)
