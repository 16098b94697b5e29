"""What a model is: the figures that decide its memory and its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# In a GGUF file a window layer may only be known from the family: of every n layers, the last
# one sees the whole context (llama.cpp, src/models/*.cpp, load_swa_pattern).
_WINDOW_PATTERNS = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
}
# Windows that llama.cpp knows without a key in the file.
_WINDOW_DEFAULTS = {"gemma2": 4096, "llama4": 8192}
# Of every n layers, the last is full attention and the others are recurrent.
_RECURRENT_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
# Feed-forward networks of two matrices, without a gate.
_UNGATED = frozenset({"falcon", "gpt2", "phi2", "nemotron_h", "nemotron_h_moe", "starcoder2"})
_RECURRENT_STATE_ELEMENT = 4  # llama.cpp keeps recurrent state in 32-bit floats


@dataclass(frozen=True)
class Architecture:
    """A language model's shape.

    Attributes
    ----------
    name
        Family as GGUF names it, for example ``llama``.
    n_layers, n_heads, n_kv_heads, head_size
        Attention: layers, query heads, key/value heads, numbers per head.
    hidden_size, n_vocab, context_length
        Width of the residual stream, vocabulary, longest context it was trained for.
    feed_forward_size
        Width of the dense feed-forward network.
    gated
        The feed-forward network has a gate matrix: three matrices, not two.
    tied_embeddings
        The output matrix is the embedding table.
    value_head_size
        Numbers per value head; 0: as ``head_size``.
    sliding_window, n_window_layers
        Tokens that a window layer sees, and how many layers are window layers.
    window_kv_heads, window_head_size
        Where window layers differ from full layers (Gemma 4); 0: they don't.
    n_experts, n_experts_used, expert_feed_forward_size
        Mixture of experts: how many per layer, how many per token, width of each.
    shared_feed_forward_size
        Width of what every token passes beside its experts.
    n_dense_layers
        Layers of a mixture of experts that have one dense network instead.
    kv_lora_rank, rope_head_size, q_lora_rank
        Latent attention: the cache holds ``kv_lora_rank + rope_head_size`` numbers per token
        and layer. ``head_size`` counts the rotary part too.
    n_recurrent_layers, recurrent_weights, recurrent_state_bytes
        Layers that keep a state of fixed size; weights of one such mixer, and bytes of the
        state of one layer and one sequence.
    recurrent_beside_attention
        Recurrent mixers stand beside attention in the same layer (Falcon-H1), not in its place.
    n_feed_forward_only_layers
        Layers with neither attention nor recurrence; where there are any, the feed-forward
        network is in no other layer (Nemotron-H).
    gated_attention
        The query matrix is twice as wide: its second half gates attention (Qwen3-Next).
    n_prediction_layers
        Extra layers that predict the next-but-one token, not counted in ``n_layers``.
    """

    name: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    hidden_size: int
    n_vocab: int
    context_length: int
    feed_forward_size: int = 0
    gated: bool = True
    tied_embeddings: bool = False
    value_head_size: int = 0
    sliding_window: int = 0
    n_window_layers: int = 0
    window_kv_heads: int = 0
    window_head_size: int = 0
    n_experts: int = 0
    n_experts_used: int = 0
    expert_feed_forward_size: int = 0
    shared_feed_forward_size: int = 0
    n_dense_layers: int = 0
    kv_lora_rank: int = 0
    rope_head_size: int = 0
    q_lora_rank: int = 0
    n_recurrent_layers: int = 0
    recurrent_weights: int = 0
    recurrent_state_bytes: int = 0
    recurrent_beside_attention: bool = False
    n_feed_forward_only_layers: int = 0
    gated_attention: bool = False
    n_prediction_layers: int = 0

    @property
    def v_head_size(self) -> int:
        """Numbers per value head."""
        return self.value_head_size or self.head_size

    @property
    def n_attention_layers(self) -> int:
        """Layers with attention, of either kind."""
        recurrent = 0 if self.recurrent_beside_attention else self.n_recurrent_layers
        return self.n_layers - recurrent - self.n_feed_forward_only_layers

    @property
    def n_full_layers(self) -> int:
        """Layers whose attention sees the whole context."""
        return self.n_attention_layers - self.n_window_layers

    @property
    def n_feed_forward_layers(self) -> int:
        """Layers with a feed-forward network, dense or of experts."""
        return self.n_feed_forward_only_layers or self.n_layers

    @property
    def n_expert_layers(self) -> int:
        """Layers with experts."""
        return self.n_feed_forward_layers - self.n_dense_layers if self.is_moe else 0

    @property
    def is_moe(self) -> bool:
        """Whether it is a mixture of experts."""
        return self.n_experts > 0

    @property
    def is_mla(self) -> bool:
        """Whether attention is latent: the cache holds one compressed row per token."""
        return self.kv_lora_rank > 0


def delta_net(
    hidden_size: int, key_heads: int, value_heads: int, key_size: int, value_size: int, kernel: int
) -> tuple[int, int]:
    """Weights and state bytes of one Gated DeltaNet mixer.

    Source: ``Qwen3NextGatedDeltaNet`` of transformers for the weights; ``n_embd_r`` and
    ``n_embd_s`` of llama.cpp's src/llama-hparams.cpp for the state.
    """
    keys, values = key_heads * key_size, value_heads * value_size
    channels = 2 * keys + values
    weights = (
        hidden_size * (channels + values + 2 * value_heads)
        + channels * kernel
        + 2 * value_heads
        + value_size
        + values * hidden_size
    )
    state = (kernel - 1) * channels + values * key_size
    return weights, state * _RECURRENT_STATE_ELEMENT


def mamba2(
    hidden_size: int, heads: int, inner_size: int, state_size: int, groups: int, kernel: int
) -> tuple[int, int]:
    """Weights and state bytes of one Mamba-2 mixer.

    Source: ``Mamba2Mixer`` of transformers for the weights; ``n_embd_r`` and ``n_embd_s`` of
    llama.cpp's src/llama-hparams.cpp for the state.
    """
    channels = inner_size + 2 * groups * state_size
    weights = (
        hidden_size * (inner_size + channels + heads)
        + channels * (kernel + 1)
        + 3 * heads
        + inner_size
        + inner_size * hidden_size
    )
    state = (kernel - 1) * channels + state_size * inner_size
    return weights, state * _RECURRENT_STATE_ELEMENT


def short_convolution(hidden_size: int, kernel: int) -> tuple[int, int]:
    """Weights and state bytes of one gated short convolution (LFM2).

    Source: ``Lfm2ShortConv`` of transformers; ``n_embd_r`` of llama.cpp's llama-hparams.cpp.
    """
    weights = 4 * hidden_size * hidden_size + hidden_size * kernel
    return weights, (kernel - 1) * hidden_size * _RECURRENT_STATE_ELEMENT


def from_gguf_metadata(
    metadata: Mapping[str, Any], *, tied_embeddings: bool = False
) -> Architecture:
    """Read the architecture out of a GGUF file's metadata.

    Source: the key names of the GGUF specification (ggml-org/ggml, docs/gguf.md) and of
    llama.cpp's src/llama-arch.cpp.

    Parameters
    ----------
    metadata
        The file's keys and values.
    tied_embeddings
        Metadata doesn't say it: only the list of tensors does.

    Raises
    ------
    ValueError
        A key that the figures need is missing; the message names it.
    """
    try:
        name = str(metadata["general.architecture"])
        return _from_gguf(_Values(metadata, f"{name}."), name, tied_embeddings)
    except KeyError as error:
        raise ValueError(f"The GGUF metadata has no {error.args[0]!r}.") from error


@dataclass(frozen=True)
class _Values:
    """Named values of one model; a hybrid gives one number per layer."""

    values: Mapping[str, Any]
    prefix: str = ""

    def get(self, key: str) -> object:
        return self.values.get(self.prefix + key)

    def number(self, key: str, default: int | None = None) -> int:
        value: Any = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise KeyError(self.prefix + key)
        # A layer without such a part says 0.
        return max(map(int, value), default=0) if _is_list(value) else int(value)

    def first(self, *keys: str) -> int:
        """Give the first of these keys that has a number, or 0."""
        return next((self.number(key) for key in keys if self.get(key)), 0)

    def texts(self, key: str) -> list[str]:
        value: Any = self.get(key)
        return [str(one) for one in value] if _is_list(value) else []

    def per_layer(self, key: str, n_layers: int, default: int = 0) -> list[int]:
        value: Any = self.get(key)
        if _is_list(value):
            return [int(one) for one in value][:n_layers]
        return [default if value is None else int(value)] * n_layers


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _from_gguf(keys: _Values, name: str, tied_embeddings: bool) -> Architecture:
    hidden_size = keys.number("embedding_length")
    n_heads = keys.number("attention.head_count")
    n_prediction_layers = keys.number("nextn_predict_layers", 0)
    n_layers = keys.number("block_count") - n_prediction_layers
    kv_lora_rank = keys.number("attention.kv_lora_rank", 0)
    # A latent model's key_length is that of the cache; the heads' own lengths end in _mla.
    mla = "_mla" if keys.get("attention.key_length_mla") else ""
    head_size = keys.number(f"attention.key_length{mla}", hidden_size // max(n_heads, 1))
    value_size = keys.number(f"attention.value_length{mla}", head_size)
    n_experts = keys.number("expert_count", 0)
    expert_size = keys.first("expert_feed_forward_length", "feed_forward_length")
    dense_size = keys.number("feed_forward_length", 0)
    shared = keys.first("expert_shared_feed_forward_length")
    shared = shared or keys.number("expert_shared_count", 0) * expert_size
    # Known to llama.cpp by the family alone: what stands beside the experts.
    shared = {"gemma4": dense_size, "llama4": expert_size}.get(name, shared)
    n_dense = keys.number("leading_dense_block_count", 0)
    if (step := keys.number("interleave_moe_layer_step", 0)) > 1:
        n_dense = n_layers - n_layers // step
    n_recurrent, n_feed_forward_only = _gguf_other_layers(keys, name, n_layers)
    recurrent_weights, state = _gguf_recurrent(keys, name, hidden_size) if n_recurrent else (0, 0)
    window, n_window, kv_heads, window_kv = _gguf_window(keys, name, n_layers, n_heads)
    return Architecture(
        name=name,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=kv_heads,
        head_size=head_size,
        hidden_size=hidden_size,
        n_vocab=_gguf_vocabulary(keys),
        context_length=keys.number("context_length"),
        feed_forward_size=dense_size if n_dense or not n_experts else 0,
        gated=name not in _UNGATED,
        tied_embeddings=tied_embeddings,
        value_head_size=0 if value_size == head_size else value_size,
        sliding_window=window,
        n_window_layers=n_window,
        window_kv_heads=window_kv,
        window_head_size=keys.number("attention.key_length_swa", 0) if n_window else 0,
        n_experts=n_experts,
        n_experts_used=keys.number("expert_used_count", 0),
        expert_feed_forward_size=expert_size if n_experts else 0,
        shared_feed_forward_size=shared if n_experts else 0,
        n_dense_layers=n_dense if n_experts else 0,
        kv_lora_rank=kv_lora_rank,
        rope_head_size=keys.number("rope.dimension_count") if kv_lora_rank else 0,
        q_lora_rank=keys.number("attention.q_lora_rank", 0),
        n_recurrent_layers=n_recurrent,
        recurrent_weights=recurrent_weights,
        recurrent_state_bytes=state,
        recurrent_beside_attention=name == "falcon-h1",
        n_feed_forward_only_layers=n_feed_forward_only,
        gated_attention=name in _RECURRENT_INTERVAL,
        n_prediction_layers=n_prediction_layers,
    )


def _gguf_vocabulary(keys: _Values) -> int:
    tokens: Any = keys.values.get("tokenizer.ggml.tokens")
    if keys.get("vocab_size") is None and tokens is not None:
        return len(tokens)
    return keys.number("vocab_size")


def _gguf_window(
    keys: _Values, name: str, n_layers: int, n_heads: int
) -> tuple[int, int, int, int]:
    """Window, window layers, KV heads of full layers, and of window layers where they differ."""
    heads = keys.per_layer("attention.head_count_kv", n_layers, n_heads)
    window = keys.number("attention.sliding_window", _WINDOW_DEFAULTS.get(name, 0))
    if _is_list(keys.get("attention.sliding_window_pattern")):
        marks = [bool(one) for one in keys.per_layer("attention.sliding_window_pattern", n_layers)]
    else:
        every = keys.number("attention.sliding_window_pattern", _WINDOW_PATTERNS.get(name, 1))
        # Without a pattern llama.cpp ignores the window (Mistral 7B, Phi-3).
        marks = [layer % every < every - 1 for layer in range(n_layers)]
    if not window or not any(marks):
        return 0, 0, max(heads), 0
    inside = max(one for one, mark in zip(heads, marks, strict=True) if mark)
    full = max((one for one, mark in zip(heads, marks, strict=True) if not mark), default=inside)
    return window, sum(marks), full, 0 if inside == full else inside


def _gguf_other_layers(keys: _Values, name: str, n_layers: int) -> tuple[int, int]:
    """Recurrent layers, and layers with a feed-forward network alone."""
    if name == "falcon-h1":
        return n_layers, 0
    if every := keys.number("full_attention_interval", _RECURRENT_INTERVAL.get(name, 0)):
        return n_layers - n_layers // every, 0
    heads = keys.per_layer("attention.head_count_kv", n_layers, 1)
    without = [layer for layer, one in enumerate(heads) if one == 0]
    if not name.startswith("nemotron_h"):
        return len(without), 0
    sizes = keys.per_layer("feed_forward_length", n_layers)
    recurrent = sum(sizes[layer] == 0 for layer in without)
    return recurrent, len(without) - recurrent


def _gguf_recurrent(keys: _Values, name: str, hidden_size: int) -> tuple[int, int]:
    if kernel := keys.number("shortconv.l_cache", 0):
        return short_convolution(hidden_size, kernel)
    kernel = keys.number("ssm.conv_kernel")
    inner = keys.number("ssm.inner_size")
    state = keys.number("ssm.state_size")
    heads = keys.number("ssm.time_step_rank")
    groups = keys.number("ssm.group_count", 1)
    if name in _RECURRENT_INTERVAL:
        return delta_net(hidden_size, groups, heads, state, inner // heads, kernel)
    return mamba2(hidden_size, heads, inner, state, groups, kernel)


# Hugging Face's model_type, and GGUF's name for the same family where it differs.
_GGUF_NAMES = {
    "cohere": "command-r",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "falcon_h1": "falcon-h1",
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "glm4_moe": "glm4moe",
    "glm_moe_dsa": "glm-dsa",
    "gpt_oss": "gpt-oss",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitehybrid",
    "kimi_k2": "deepseek2",
    "kimi_k25": "deepseek2",
    "lfm2_moe": "lfm2moe",
    "llama4_text": "llama4",
    "mistral": "llama",
    "mixtral": "llama",
    "olmo3": "olmo2",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
}
# Families whose configuration class ties the embeddings unless the file says otherwise.
_TIED = frozenset({"command-r", "falcon", "gemma", "gemma2", "gemma3", "gemma4", "gpt2", "lfm2"})
_WINDOW_LAYERS = frozenset({"sliding_attention", "chunked_attention"})
_RECURRENT_LAYERS = frozenset({"linear_attention", "mamba", "conv"})
_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}  # Nemotron-H's pattern
_FEED_FORWARD_ONLY = frozenset({"mlp", "moe"})


def from_config(config: Mapping[str, Any]) -> Architecture:
    """Read the architecture out of a Hugging Face ``config.json``.

    A vision-language model's text part is read (``text_config``). Source: the configuration
    classes of transformers 5.17.

    Raises
    ------
    ValueError
        A key that the figures need is missing; the message names it.
    """
    values = {**config, **(config.get("text_config") or {})}
    if "tie_word_embeddings" in config:
        values["tie_word_embeddings"] = config["tie_word_embeddings"]
    try:
        model_type = str(values["model_type"])
        return _from_hugging_face(_Values(values), _GGUF_NAMES.get(model_type, model_type))
    except KeyError as error:
        raise ValueError(
            f"The config.json has no {error.args[0]!r}: it may rely on a default of its "
            "configuration class. Add the key."
        ) from error


def _from_hugging_face(keys: _Values, name: str) -> Architecture:
    kinds = _layer_kinds(keys, name)
    hidden_size = keys.number("hidden_size")
    n_heads = keys.number("num_attention_heads")
    head_size = keys.first("head_dim") or hidden_size // n_heads
    kv_lora_rank = keys.first("kv_lora_rank")
    value_size = 0
    if kv_lora_rank:
        head_size = keys.number("qk_nope_head_dim") + keys.number("qk_rope_head_dim")
        value_size = keys.number("v_head_dim")
    if name == "nemotron_h" and "moe" in kinds:
        name = "nemotron_h_moe"
    n_window = sum(kind in _WINDOW_LAYERS for kind in kinds)
    kv_heads = _config_kv_heads(keys, name, n_heads)
    window_kv = window_head = 0
    if n_window and keys.get("global_head_dim"):  # Gemma 4
        window_kv, window_head = kv_heads, head_size
        head_size = keys.number("global_head_dim")
        kv_heads = keys.first("num_global_key_value_heads") or kv_heads
    n_recurrent = sum(kind in _RECURRENT_LAYERS for kind in kinds)
    if name == "falcon-h1":
        n_recurrent = len(kinds)
    recurrent_weights, state = _config_recurrent(keys, name) if n_recurrent else (0, 0)
    dense, n_experts, expert, shared, n_dense = _config_feed_forward(keys, name, len(kinds))
    return Architecture(
        name=name,
        n_layers=len(kinds),
        n_heads=n_heads,
        n_kv_heads=kv_heads,
        head_size=head_size,
        hidden_size=hidden_size,
        n_vocab=keys.number("vocab_size"),
        context_length=keys.number("max_position_embeddings"),
        feed_forward_size=dense,
        gated=name not in _UNGATED,
        tied_embeddings=bool(keys.number("tie_word_embeddings", int(name in _TIED))),
        value_head_size=0 if value_size == head_size else value_size,
        sliding_window=keys.first("sliding_window", "attention_chunk_size") if n_window else 0,
        n_window_layers=n_window,
        window_kv_heads=window_kv,
        window_head_size=window_head,
        n_experts=n_experts,
        n_experts_used=keys.first("num_experts_per_tok", "top_k_experts") if n_experts else 0,
        expert_feed_forward_size=expert,
        shared_feed_forward_size=shared,
        n_dense_layers=n_dense,
        kv_lora_rank=kv_lora_rank,
        rope_head_size=keys.first("qk_rope_head_dim") if kv_lora_rank else 0,
        q_lora_rank=keys.first("q_lora_rank"),
        n_recurrent_layers=n_recurrent,
        recurrent_weights=recurrent_weights,
        recurrent_state_bytes=state,
        recurrent_beside_attention=name == "falcon-h1",
        n_feed_forward_only_layers=sum(kind in _FEED_FORWARD_ONLY for kind in kinds),
        gated_attention=name in _RECURRENT_INTERVAL,
        n_prediction_layers=keys.first("num_nextn_predict_layers", "mtp_num_hidden_layers"),
    )


def _layer_kinds(keys: _Values, name: str) -> list[str]:
    """Name what stands in each layer, in transformers' words."""
    if pattern := keys.get("hybrid_override_pattern"):
        return [_LETTERS[letter] for letter in str(pattern)]
    if kinds := keys.texts("layer_types") or keys.texts("layers_block_type"):
        return kinds
    n_layers = keys.number("num_hidden_layers")
    if keys.get("full_attn_idxs"):  # LFM2
        full = set(keys.per_layer("full_attn_idxs", n_layers))
        return ["full_attention" if layer in full else "conv" for layer in range(n_layers)]
    other = "linear_attention"
    every = keys.number("full_attention_interval", _RECURRENT_INTERVAL.get(name, 0))
    if not every and keys.first("sliding_window", "attention_chunk_size"):
        other = "sliding_attention"
        every = keys.first("sliding_window_pattern", "_sliding_window_pattern")
        every = every or _WINDOW_PATTERNS.get(name, 0)
    return [
        other if every and layer % every < every - 1 else "full_attention"
        for layer in range(n_layers)
    ]


def _config_kv_heads(keys: _Values, name: str, n_heads: int) -> int:
    if name == "falcon" and not keys.get("new_decoder_architecture"):
        return 1 if keys.number("multi_query", 1) else n_heads
    return keys.first("num_key_value_heads", "num_kv_heads") or n_heads


def _config_feed_forward(keys: _Values, name: str, n_layers: int) -> tuple[int, int, int, int, int]:
    """Dense width, experts, their width, the shared expert's width, dense layers."""
    dense = keys.first("block_ff_dim", "intermediate_size", "ffn_hidden_size")
    if name == "falcon":
        dense = dense or 4 * keys.number("hidden_size")
    if name == "lfm2" and keys.number("block_auto_adjust_ff_dim", 1):
        multiple = keys.number("block_multiple_of", 256)
        dense = -(-(2 * dense // 3) // multiple) * multiple
    n_experts = keys.first("n_routed_experts", "num_local_experts", "num_experts")
    if name == "nemotron_h":  # its configuration class has experts that this one doesn't use
        n_experts = 0
    shared = keys.first(
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    )
    if not n_experts:
        return shared or dense, 0, 0, 0, 0
    expert = keys.first("moe_intermediate_size", "intermediate_size")
    shared = shared or keys.first("n_shared_experts") * expert
    n_dense = keys.first("first_k_dense_replace", "num_dense_layers")
    n_dense = n_dense or len(keys.texts("mlp_only_layers"))
    if name == "gemma4":
        shared = dense
    if name == "llama4":
        shared, dense = expert, keys.first("intermediate_size_mlp")
        n_dense = n_layers - n_layers // keys.number("interleave_moe_layer_step", 1)
    return dense if n_dense else 0, n_experts, expert, shared, n_dense


def _config_recurrent(keys: _Values, name: str) -> tuple[int, int]:
    hidden_size = keys.number("hidden_size")
    if name in {"lfm2", "lfm2moe"}:
        return short_convolution(hidden_size, keys.number("conv_L_cache"))
    if name in _RECURRENT_INTERVAL:
        return delta_net(
            hidden_size,
            key_heads=keys.number("linear_num_key_heads"),
            value_heads=keys.number("linear_num_value_heads"),
            key_size=keys.number("linear_key_head_dim"),
            value_size=keys.number("linear_value_head_dim"),
            kernel=keys.number("linear_conv_kernel_dim"),
        )
    if name.startswith("nemotron_h"):
        heads, size = keys.number("mamba_num_heads"), keys.number("mamba_head_dim")
        state, groups = keys.number("ssm_state_size"), keys.number("n_groups")
        return mamba2(hidden_size, heads, heads * size, state, groups, keys.number("conv_kernel"))
    heads = keys.number("mamba_n_heads")
    inner = keys.first("mamba_d_ssm") or keys.number("mamba_expand") * hidden_size
    state, groups = keys.number("mamba_d_state"), keys.number("mamba_n_groups")
    return mamba2(hidden_size, heads, inner, state, groups, keys.number("mamba_d_conv"))
