"""What a model asks of a device: bytes to read, weights to multiply, layers to start."""

from __future__ import annotations

from dataclasses import dataclass, replace

from guidebook.architecture import Architecture
from guidebook.weights import WeightAccount

# A multiplication and an addition.
FLOP_PER_WEIGHT = 2


@dataclass(frozen=True)
class Load:
    """What a model asks for, per decoded token or per token of a prompt.

    Attributes
    ----------
    decode_bytes
        Bytes of weights that one decoded token reads.
    weights_bytes
        Bytes of weights that a batch of many tokens reads: with experts, nearly all of them.
    n_weights
        Weights that one token is multiplied with.
    n_layers, n_moe_layers
        Dense layers, and layers with experts, which start more kernels.
    kv_bytes
        KV cache and recurrent state that one decoded token reads, at its depth.
    attention_flop
        Operations of the attention scores, per token of the prompt, at its depth.
    decode_work
        How much more unpacking the weights takes than 4-bit ones (``speed.unpacking_work``).
    expert_bytes, n_expert_weights
        What experts are of ``weights_bytes``, and of ``n_weights``.
    expert_share
        Of a layer's experts, those that one token uses.
    """

    decode_bytes: float
    weights_bytes: float
    n_weights: float
    n_layers: float
    n_moe_layers: float = 0
    kv_bytes: float = 0.0
    attention_flop: float = 0.0
    decode_work: float = 1.0
    expert_bytes: float = 0.0
    n_expert_weights: float = 0.0
    expert_share: float = 1.0

    def part(self, fraction: float) -> Load:
        """Return the load of a fraction of the model."""
        return replace(
            self,
            decode_bytes=self.decode_bytes * fraction,
            weights_bytes=self.weights_bytes * fraction,
            n_weights=self.n_weights * fraction,
            n_layers=self.n_layers * fraction,
            n_moe_layers=self.n_moe_layers * fraction,
            kv_bytes=self.kv_bytes * fraction,
            attention_flop=self.attention_flop * fraction,
            expert_bytes=self.expert_bytes * fraction,
            n_expert_weights=self.n_expert_weights * fraction,
        )

    def used_experts(self, n_tokens: int) -> float:
        """Return which share of the experts a batch of so many tokens uses.

        Tokens choose their experts independently, and all experts equally often: an assumption.
        """
        return 1 - (1 - self.expert_share) ** n_tokens

    def experts(self, fraction: float) -> Load:
        """Return the load of a fraction of the experts alone.

        Layers stay with the rest, which starts them.
        """
        return Load(
            decode_bytes=self.expert_bytes * self.expert_share * fraction,
            weights_bytes=self.expert_bytes * fraction,
            n_weights=self.n_expert_weights * fraction,
            n_layers=0,
            decode_work=self.decode_work,
        )

    def less(self, other: Load) -> Load:
        """Return what is left of the load when a part of it is elsewhere."""
        return replace(
            self,
            decode_bytes=self.decode_bytes - other.decode_bytes,
            weights_bytes=self.weights_bytes - other.weights_bytes,
            n_weights=self.n_weights - other.n_weights,
            kv_bytes=self.kv_bytes - other.kv_bytes,
            attention_flop=self.attention_flop - other.attention_flop,
        )

    def without_depth(self) -> Load:
        """Return the load of the weights alone, as easy to unpack as 4-bit ones."""
        return replace(
            self, kv_bytes=0.0, attention_flop=0.0, decode_work=min(1.0, self.decode_work)
        )


def of(
    architecture: Architecture,
    account: WeightAccount,
    depth: float = 0,
    bytes_per_element: float = 2.0,
    decode_work: float = 1.0,
) -> Load:
    """Work out the load of a model.

    Parameters
    ----------
    architecture, account
        The model and where its bytes are.
    depth
        Tokens that come before the one in question, on average.
    bytes_per_element
        Of the KV cache: 2 for f16.
    decode_work
        See :class:`Load`.
    """
    a = architecture
    moe_layers = a.n_layers - a.n_dense_layers if a.is_moe else 0
    return Load(
        decode_bytes=account.decode_bytes,
        weights_bytes=account.offloaded_bytes,
        n_weights=account.n_active_weights,
        n_layers=a.n_layers - moe_layers,
        n_moe_layers=moe_layers,
        kv_bytes=_kv_bytes(a, depth, bytes_per_element),
        attention_flop=_attention_flop(a, depth),
        decode_work=decode_work,
        expert_bytes=account.expert_bytes,
        n_expert_weights=_expert_weights(a),
        expert_share=a.n_experts_used / a.n_experts if a.is_moe else 1.0,
    )


def _expert_weights(a: Architecture) -> int:
    """Return the experts' weights that one token is multiplied with."""
    matrices = 3 if a.gated else 2
    return (
        matrices * a.hidden_size * a.expert_feed_forward_size * a.n_experts_used * a.n_expert_layers
    )


def _kv_bytes(a: Architecture, depth: float, bytes_per_element: float) -> float:
    """Return what attention reads for one token: of window layers, the window only."""
    state = a.n_recurrent_layers * a.recurrent_state_bytes
    if a.is_mla:
        per_token = a.kv_lora_rank + a.rope_head_size
        return a.n_full_layers * per_token * depth * bytes_per_element + state
    full = a.n_kv_heads * (a.head_size + a.v_head_size)
    window = full
    if a.window_kv_heads or a.window_head_size:
        window = 2 * (a.window_kv_heads or a.n_kv_heads) * (a.window_head_size or a.head_size)
    elements = a.n_full_layers * full * depth
    elements += a.n_window_layers * window * min(depth, a.sliding_window)
    return elements * bytes_per_element + state


def _attention_flop(a: Architecture, depth: float) -> float:
    """Return the operations of scores and weighted values for one token."""
    heads = a.n_heads * (a.head_size + a.v_head_size)
    seen = a.n_full_layers * depth + a.n_window_layers * min(depth, a.sliding_window)
    return FLOP_PER_WEIGHT * heads * seen
