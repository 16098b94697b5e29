"""The weights of a model: its tensors, the bytes of each in a file, and the bytes a token reads.

The list follows the tensors that llama.cpp creates for a family (src/models/*.cpp). What is too
small to matter is left out: biases (except those of gpt-oss's experts), norms of single heads,
rotary factors, attention sinks; together below 0.1 % of a file. Layers that predict ahead are
left out too, because llama.cpp doesn't load them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guidebook.architecture import Architecture
from guidebook.catalog import quantizations
from guidebook.quantization_recipe import Category, Recipe

if TYPE_CHECKING:
    from guidebook.gguf_files import GgufFile, Tensor

# Families whose queries, keys and values are one matrix; the recipe treats it as the values.
_FUSED_ATTENTION = frozenset({"bloom", "dbrx", "falcon", "gpt2", "gptneox", "mpt", "phi2", "phi3"})
# Recurrent mixers with a fused matrix of queries, keys and values, which the recipe treats so too.
_DELTA_NET = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})
# Vectors of the hidden size in a layer, where there are not two.
_NORMS = {"cohere2": 1, "command-r": 1, "gemma2": 4, "gemma3": 4, "gemma4": 4, "glm4": 4}

_CATEGORIES: Mapping[str, Category] = {
    "embedding": "embedding",
    "output": "output",
    "attention_q": "attention_q",
    "attention_k": "attention_k",
    "attention_v": "attention_v",
    "attention_qkv": "attention_v",
    "recurrent_qkv": "attention_v",
    "attention_output": "attention_output",
    "feed_forward_gate": "feed_forward_gate",
    "feed_forward_up": "feed_forward_up",
    "feed_forward_down": "feed_forward_down",
    "expert_gate": "feed_forward_gate",
    "expert_up": "feed_forward_up",
    "expert_down": "feed_forward_down",
    "shared_expert_gate": "feed_forward_gate",
    "shared_expert_up": "feed_forward_up",
    "shared_expert_down": "feed_forward_down",
    "expert_bias": "unquantized",
    "norm": "unquantized",
    "output_norm": "unquantized",
    "recurrent_vectors": "unquantized",
    "router": "unquantized",
}
# Roles by the name that llama.cpp gives a tensor.
_ROLES = {
    "token_embd": "embedding",
    "per_layer_token_embd": "layer_embedding",
    "output": "output",
    "output_norm": "output_norm",
    "attn_q": "attention_q",
    "attn_k": "attention_k",
    "attn_v": "attention_v",
    "attn_qkv": "attention_qkv",
    "attn_output": "attention_output",
    "attn_q_a": "attention_q_a",
    "attn_q_b": "attention_q_b",
    "attn_kv_a_mqa": "attention_kv_a",
    "attn_kv_b": "attention_kv_b",
    "attn_k_b": "attention_k_b",
    "attn_v_b": "attention_v_b",
    "ffn_gate": "feed_forward_gate",
    "ffn_up": "feed_forward_up",
    "ffn_down": "feed_forward_down",
    "ffn_gate_exps": "expert_gate",
    "ffn_up_exps": "expert_up",
    "ffn_gate_up_exps": "expert_gate_up",
    "ffn_down_exps": "expert_down",
    "ffn_gate_shexp": "shared_expert_gate",
    "ffn_up_shexp": "shared_expert_up",
    "ffn_down_shexp": "shared_expert_down",
    "ffn_gate_inp": "router",
    "attn_norm": "norm",
    "ffn_norm": "norm",
}


@dataclass(frozen=True)
class TensorGroup:
    """One kind of tensor and the layers that have it.

    Attributes
    ----------
    role
        What it is for: ``embedding``, ``attention_q``, ``expert_down``, …
    rows, columns
        Outputs and inputs of one matrix.
    stack
        Matrices in one tensor: experts, or heads of latent attention.
    layers
        Numbers of the layers that have one; empty: it is outside the layers, once.
    """

    role: str
    rows: int
    columns: int
    stack: int = 1
    layers: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Matrices in all layers."""
        return self.stack * max(1, len(self.layers))

    @property
    def n_weights(self) -> int:
        """Weights in all layers."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Attributes
    ----------
    role
        What it is for, as in :class:`TensorGroup`.
    layer
        Number of its layer; None: outside the layers.
    type
        Tensor type, for example ``Q4_K``.
    rows
        Rows in the whole tensor.
    n_weights, n_bytes
        Size.
    """

    role: str
    layer: int | None
    type: str
    rows: int
    n_weights: int
    n_bytes: int


@dataclass(frozen=True)
class WeightAccount:
    """Where a model's bytes are, and how many of them one decoded token reads.

    Attributes
    ----------
    n_weights
        All weights.
    n_active_weights
        Weights that compute with one token: of the experts those used, of an untied input table
        none, because it is only looked up.
    total_bytes
        ``embedding_bytes + layer_bytes + output_bytes``.
    embedding_bytes
        The input table, which is the output matrix too if ``tied_embeddings``.
    output_bytes
        Output matrix (none of its own if tied) and final norm.
    layer_bytes
        All layers.
    expert_bytes
        The part of ``layer_bytes`` that is experts, without shared ones.
    decode_bytes
        What one decoded token reads: all layers, of the experts those used; the output matrix;
        of an untied input table one row.
    tied_embeddings
        The output matrix is the input table.
    """

    n_weights: int
    n_active_weights: int
    total_bytes: int
    embedding_bytes: int
    output_bytes: int
    layer_bytes: int
    expert_bytes: int
    decode_bytes: int
    tied_embeddings: bool

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over all tensors, scales and norms included."""
        return 8 * self.total_bytes / self.n_weights

    @property
    def offloaded_bytes(self) -> int:
        """What a GPU holds when everything is offloaded.

        llama.cpp leaves the input table in system RAM; a tied one is on both sides, because the
        GPU needs it as output matrix.
        """
        table = self.embedding_bytes if self.tied_embeddings else 0
        return self.layer_bytes + self.output_bytes + table


@functools.cache
def tensors(architecture: Architecture) -> tuple[TensorGroup, ...]:
    """List a model's tensors by kind.

    Layers of several kinds are spread evenly, as models mix them; dense layers come first.
    """
    a = architecture
    groups = [TensorGroup("embedding", a.n_vocab, a.hidden_size)]
    if not a.tied_embeddings:
        groups.append(TensorGroup("output", a.n_vocab, a.hidden_size))
    groups.append(TensorGroup("output_norm", 1, a.hidden_size))

    everywhere = tuple(range(a.n_layers))
    attention = _spread(a.n_attention_layers, everywhere)
    rest = tuple(layer for layer in everywhere if layer not in attention)
    feed_forward = everywhere
    if a.n_feed_forward_only_layers:
        feed_forward = _spread(a.n_feed_forward_only_layers, rest)
        rest = tuple(layer for layer in rest if layer not in feed_forward)
    recurrent = everywhere if a.recurrent_beside_attention else rest

    full = _spread(a.n_full_layers, attention)
    window = tuple(layer for layer in attention if layer not in full)
    if a.is_mla:
        groups += _latent_attention(a, attention)
    else:
        groups += _attention(a, full, a.n_kv_heads, a.head_size, a.v_head_size)
        head_size = a.window_head_size or a.head_size
        value_head_size = a.window_head_size or a.v_head_size
        kv_heads = a.window_kv_heads or a.n_kv_heads
        groups += _attention(a, window, kv_heads, head_size, value_head_size)
    groups += _recurrent(a, recurrent[: a.n_recurrent_layers])

    n_dense = a.n_dense_layers if a.is_moe else len(feed_forward)
    dense, sparse = feed_forward[:n_dense], feed_forward[n_dense:]
    groups += _feed_forward(a, "feed_forward", a.feed_forward_size, dense)
    groups += _feed_forward(a, "shared_expert", a.shared_feed_forward_size, sparse)
    groups += _experts(a, sparse)
    norms = _NORMS.get(a.name, 2)
    groups.append(TensorGroup("norm", norms, a.hidden_size, 1, everywhere))
    return tuple(group for group in groups if group.n_weights and (group.layers or _is_top(group)))


def n_weights(architecture: Architecture) -> int:
    """Return the number of a model's weights."""
    return sum(group.n_weights for group in tensors(architecture))


def stored(
    architecture: Architecture, quant: str, imatrix: bool | None = None
) -> tuple[StoredTensor, ...]:
    """List the tensors of a model's file of a given type, in llama.cpp's order.

    Parameters
    ----------
    architecture
        The model.
    quant
        File type, for example ``Q4_K_M``.
    imatrix
        Quantized with an importance matrix, which changes some types. None: only if files of
        this type cannot be made without.

    Raises
    ------
    LookupError
        There is no such file type.
    """
    file_type = quantizations.find(quant)
    recipe = Recipe(
        file_type=file_type,
        family=architecture.name,
        n_layers=architecture.n_layers,
        n_experts=architecture.n_experts,
        n_queries_per_kv=architecture.n_heads // max(1, architecture.n_kv_heads),
        tied_embeddings=architecture.tied_embeddings,
        imatrix=file_type.needs_imatrix if imatrix is None else imatrix,
    )
    places = sorted(
        ((layer, group) for group in tensors(architecture) for layer in group.layers or (-1,)),
        key=lambda place: (place[0], place[1].role),
    )
    categories = [_CATEGORIES.get(group.role, "other") for _, group in places]
    counts = {category: categories.count(category) for category in set(categories)}
    seen = dict.fromkeys(counts, 0)
    found = []
    for (layer, group), category in zip(places, categories, strict=True):
        kind = recipe.tensor_type(
            category,
            group.columns,
            stacked=group.stack > 1,
            layer=layer,
            rank=seen[category],
            count=counts[category],
        )
        seen[category] += 1
        rows = group.rows * group.stack
        found.append(
            StoredTensor(
                role=group.role,
                layer=None if layer < 0 else layer,
                type=kind.name,
                rows=rows,
                n_weights=rows * group.columns,
                n_bytes=rows * kind.n_bytes(group.columns),
            )
        )
    return tuple(found)


def account(
    architecture: Architecture, quant: str, weights_bytes: int | None = None
) -> WeightAccount:
    """Return where the bytes of a model's file of a given type are.

    Parameters
    ----------
    architecture
        The model.
    quant
        File type, for example ``Q4_K_M``.
    weights_bytes
        Size of the real file's tensors, where it is known; every figure is scaled to it.

    Raises
    ------
    LookupError
        There is no such file type.
    ValueError
        ``weights_bytes`` is not positive.
    """
    computed = _account(architecture, quant)
    if weights_bytes is None:
        return computed
    if weights_bytes <= 0:
        raise ValueError(
            f"A model's weights can't take {weights_bytes:,} bytes. Give the size of the file, or "
            "leave it out."
        )
    return _scaled(computed, weights_bytes)


def from_gguf(gguf_file: GgufFile) -> WeightAccount:
    """Return where the bytes of a GGUF file are, tensor by tensor.

    Layers that predict ahead are left out: llama.cpp doesn't load them.
    """
    metadata = gguf_file.metadata
    family = metadata["general.architecture"]
    n_experts = int(metadata.get(f"{family}.expert_count", 0))
    used = int(metadata.get(f"{family}.expert_used_count", 0))
    n_layers = int(metadata[f"{family}.block_count"])
    n_loaded = n_layers - int(metadata.get(f"{family}.nextn_predict_layers", 0))
    found = (_from_tensor(tensor) for tensor in gguf_file.tensors)
    return _account_of(
        [tensor for tensor in found if tensor.layer is None or tensor.layer < n_loaded],
        tied_embeddings=gguf_file.tied_embeddings,
        expert_share=used / n_experts if n_experts else 1.0,
    )


# --- the tensors of a layer ------------------------------------------------------------------


def _attention(
    a: Architecture, layers: tuple[int, ...], kv_heads: int, head_size: int, value_head_size: int
) -> Iterator[TensorGroup]:
    query = a.n_heads * head_size * (2 if a.gated_attention else 1)
    key, value = kv_heads * head_size, kv_heads * value_head_size
    if a.name in _FUSED_ATTENTION:
        yield TensorGroup("attention_qkv", query + key + value, a.hidden_size, 1, layers)
    else:
        yield TensorGroup("attention_q", query, a.hidden_size, 1, layers)
        yield TensorGroup("attention_k", key, a.hidden_size, 1, layers)
        yield TensorGroup("attention_v", value, a.hidden_size, 1, layers)
    yield TensorGroup("attention_output", a.hidden_size, a.n_heads * value_head_size, 1, layers)


def _latent_attention(a: Architecture, layers: tuple[int, ...]) -> Iterator[TensorGroup]:
    query = a.n_heads * a.head_size
    if a.q_lora_rank:
        yield TensorGroup("attention_q_a", a.q_lora_rank, a.hidden_size, 1, layers)
        yield TensorGroup("attention_q_b", query, a.q_lora_rank, 1, layers)
    else:
        yield TensorGroup("attention_q", query, a.hidden_size, 1, layers)
    latent = a.kv_lora_rank + a.rope_head_size
    yield TensorGroup("attention_kv_a", latent, a.hidden_size, 1, layers)
    unrotated = a.head_size - a.rope_head_size
    yield TensorGroup("attention_k_b", a.kv_lora_rank, unrotated, a.n_heads, layers)
    yield TensorGroup("attention_v_b", a.v_head_size, a.kv_lora_rank, a.n_heads, layers)
    yield TensorGroup("attention_output", a.hidden_size, a.n_heads * a.v_head_size, 1, layers)


def _recurrent(a: Architecture, layers: tuple[int, ...]) -> Iterator[TensorGroup]:
    rows, vectors = divmod(a.recurrent_weights, a.hidden_size)
    # Of a Gated DeltaNet mixer, about half is the fused matrix (5/11 to 3/5 in known models).
    fused = rows // 2 if a.name in _DELTA_NET else 0
    yield TensorGroup("recurrent_qkv", fused, a.hidden_size, 1, layers)
    yield TensorGroup("recurrent", rows - fused, a.hidden_size, 1, layers)
    yield TensorGroup("recurrent_vectors", 1, vectors, 1, layers)


def _feed_forward(
    a: Architecture, name: str, width: int, layers: tuple[int, ...], stack: int = 1
) -> Iterator[TensorGroup]:
    if a.gated:
        yield TensorGroup(f"{name}_gate", width, a.hidden_size, stack, layers)
    yield TensorGroup(f"{name}_up", width, a.hidden_size, stack, layers)
    yield TensorGroup(f"{name}_down", a.hidden_size, width, stack, layers)


def _experts(a: Architecture, layers: tuple[int, ...]) -> Iterator[TensorGroup]:
    width = a.expert_feed_forward_size
    yield from _feed_forward(a, "expert", width, layers, a.n_experts)
    yield TensorGroup("router", a.n_experts, a.hidden_size, 1, layers)
    if a.name == "gpt-oss":
        yield TensorGroup("expert_bias", 1, 2 * width + a.hidden_size, a.n_experts, layers)


def _spread(count: int, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Choose so many of the layers at equal distances, each the last of its share."""
    total = len(layers)
    return tuple(
        layer for i, layer in enumerate(layers) if (i + 1) * count // total > i * count // total
    )


def _is_top(group: TensorGroup) -> bool:
    return group.role in {"embedding", "output", "output_norm"}


# --- from tensors to the account -------------------------------------------------------------


@functools.cache
def _account(architecture: Architecture, quant: str) -> WeightAccount:
    a = architecture
    return _account_of(
        stored(a, quant),
        tied_embeddings=a.tied_embeddings,
        expert_share=a.n_experts_used / a.n_experts if a.is_moe else 1.0,
    )


def _account_of(
    found: Iterable[StoredTensor], *, tied_embeddings: bool, expert_share: float
) -> WeightAccount:
    weights = embedding = output = layers = experts = 0
    active = read = 0.0
    for tensor in found:
        share = 1.0
        weights += tensor.n_weights
        if tensor.role in {"embedding", "layer_embedding"}:
            embedding += tensor.n_bytes
            if not (tied_embeddings and tensor.role == "embedding"):
                read += tensor.n_bytes / tensor.rows
                continue
        elif tensor.layer is None:
            output += tensor.n_bytes
        else:
            layers += tensor.n_bytes
            if tensor.role.startswith("expert_"):
                experts += tensor.n_bytes
                share = expert_share
        active += tensor.n_weights * share
        read += tensor.n_bytes * share
    return WeightAccount(
        n_weights=weights,
        n_active_weights=round(active),
        total_bytes=embedding + output + layers,
        embedding_bytes=embedding,
        output_bytes=output,
        layer_bytes=layers,
        expert_bytes=experts,
        decode_bytes=round(read),
        tied_embeddings=tied_embeddings,
    )


def _scaled(computed: WeightAccount, weights_bytes: int) -> WeightAccount:
    factor = weights_bytes / computed.total_bytes
    layers = round(computed.layer_bytes * factor)
    embedding = round(computed.embedding_bytes * factor)
    return replace(
        computed,
        total_bytes=weights_bytes,
        embedding_bytes=embedding,
        output_bytes=weights_bytes - layers - embedding,
        layer_bytes=layers,
        expert_bytes=round(computed.expert_bytes * factor),
        decode_bytes=round(computed.decode_bytes * factor),
    )


def _from_tensor(tensor: Tensor) -> StoredTensor:
    parts = tensor.name.split(".")
    in_layer = parts[0] == "blk"
    name = parts[2] if in_layer else parts[0]
    role = _ROLES.get(name, "other")
    if parts[-1] != "weight":
        role = "expert_bias" if role.startswith("expert_") else "other"
    return StoredTensor(
        role=role,
        layer=int(parts[1]) if in_layer else None,
        type=tensor.type,
        rows=tensor.n_weights // tensor.shape[-1],
        n_weights=tensor.n_weights,
        n_bytes=tensor.n_bytes,
    )
