"""Memory that training takes: weights, gradients, optimizer states, activations.

Sources: Rajbhandari et al. 2020, *ZeRO* (bytes per parameter of mixed-precision Adam, sharding);
Korthikanti et al. 2022, *Reducing Activation Recomputation in Large Transformer Models*
(activations per layer); Hu et al. 2021, *LoRA*; Dettmers et al. 2023, *QLoRA*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guidebook.architecture import Architecture

Method = Literal["full", "lora", "qlora"]
Checkpointing = Literal["none", "selective", "full"]

# Bytes of state per trained parameter, besides the weight and its gradient. Adam keeps two
# moments in 32 bits; 8-bit Adam one byte for each, and a 32-bit scale per 2,048 of them
# (bitsandbytes); SGD one moment; Adafactor a row and a column per matrix, next to nothing.
_OPTIMIZER_BYTES = {
    "adamw": 8.0,
    "adamw-8bit": 2.0 + 2 * 4 / 2048,
    "sgd": 0.0,
    "sgd-momentum": 4.0,
    "adafactor": 0.0,
}
# NF4: 4 bits, and a 32-bit scale per 64 weights, itself quantized to 8 bits with a 32-bit scale
# per 256 of them (double quantization, Dettmers et al. 2023, section 3).
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_HALF = 2
_SINGLE = 4

ATTENTION = ("q", "k", "v", "o")
ALL_LINEAR = (*ATTENTION, "gate", "up", "down")


@dataclass(frozen=True)
class TrainingMemory:
    """What one device needs for training, in bytes.

    Attributes
    ----------
    weights_bytes
        The model as it computes, with LoRA's matrices.
    master_bytes
        32-bit copy of the trained weights in mixed precision.
    gradient_bytes, optimizer_bytes
        Of the trained weights.
    activation_bytes
        What the backward pass needs of the forward pass.
    n_trained
        Weights that are trained.
    """

    weights_bytes: int
    master_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    n_trained: int

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.state_bytes + self.activation_bytes

    @property
    def state_bytes(self) -> int:
        """What does not depend on the batch."""
        return self.weights_bytes + self.master_bytes + self.gradient_bytes + self.optimizer_bytes


def training(
    architecture: Architecture,
    n_weights: int,
    *,
    method: Method = "full",
    n_tokens: int = 1024,
    batch: int = 1,
    optimizer: str = "adamw",
    mixed_precision: bool = True,
    checkpointing: Checkpointing = "full",
    flash_attention: bool = True,
    rank: int = 16,
    targets: Sequence[str] = ALL_LINEAR,
    zero_stage: int = 0,
    n_devices: int = 1,
) -> TrainingMemory:
    """Add up the memory that training takes on each device.

    Parameters
    ----------
    architecture
        The model's shape.
    n_weights
        All weights of the model.
    method
        ``"full"``: all weights are trained. ``"lora"``: 16-bit weights are frozen, low-rank
        matrices beside them are trained. ``"qlora"``: the same, frozen weights in NF4.
    n_tokens, batch
        Length of a sequence, and sequences at once on one device.
    optimizer
        ``adamw``, ``adamw-8bit``, ``sgd``, ``sgd-momentum`` or ``adafactor``.
    mixed_precision
        Compute in 16 bits with a 32-bit master copy; otherwise all in 32 bits. LoRA's matrices
        are then kept in 32 bits alone, as PEFT does.
    checkpointing
        What is kept of a layer for the backward pass; see :func:`activation_bytes`.
    flash_attention
        Attention scores are not kept.
    rank, targets
        Of LoRA; see :func:`lora_weights`.
    zero_stage, n_devices
        ZeRO 1 shards optimizer states and master weights over the devices, 2 gradients too,
        3 the weights too.

    Raises
    ------
    ValueError
        A number is out of range or a name is unknown.
    """
    if optimizer not in _OPTIMIZER_BYTES:
        known = ", ".join(_OPTIMIZER_BYTES)
        raise ValueError(f"Unknown optimizer {optimizer!r}. Use one of {known}.")
    if zero_stage not in (0, 1, 2, 3) or n_devices < 1:
        raise ValueError("ZeRO has the stages 0 to 3, and needs at least one device.")
    element = _HALF if mixed_precision else _SINGLE
    if method == "full":
        trained = n_weights
        frozen = 0.0
        weight_element, gradient_element = element, element
        master_element = _SINGLE if mixed_precision else 0
    elif method in ("lora", "qlora"):
        trained = lora_weights(architecture, rank, targets)
        frozen = n_weights * element if method == "lora" else _nf4_bytes(architecture, n_weights)
        weight_element, gradient_element, master_element = _SINGLE, _SINGLE, 0
    else:
        raise ValueError(f"Unknown method {method!r}. Use 'full', 'lora' or 'qlora'.")

    def shard(n_bytes: float, from_stage: int) -> int:
        return round(n_bytes / (n_devices if zero_stage >= from_stage else 1))

    return TrainingMemory(
        weights_bytes=shard(frozen + trained * weight_element, 3),
        master_bytes=shard(trained * master_element, 1),
        gradient_bytes=shard(trained * gradient_element, 2),
        optimizer_bytes=shard(trained * _OPTIMIZER_BYTES[optimizer], 1),
        activation_bytes=activation_bytes(
            architecture,
            n_tokens,
            batch,
            element=element,
            checkpointing=checkpointing,
            flash_attention=flash_attention,
        ),
        n_trained=trained,
    )


def activation_bytes(
    architecture: Architecture,
    n_tokens: int,
    batch: int = 1,
    *,
    element: int = _HALF,
    checkpointing: Checkpointing = "full",
    flash_attention: bool = True,
) -> int:
    """Return what the forward pass keeps for the backward pass.

    Korthikanti et al. count ``s·b·h·(34 + 5·a·s/h)`` bytes per layer of a GPT in 16 bits: inputs
    of norms, projections and the feed-forward network, and the attention scores, with one-byte
    dropout masks. The same count is made here for the model's own widths (grouped queries, a
    gate, no dropout): per token the inputs of both norms and of the four kinds of projections,
    queries, keys and values, and the feed-forward network's inner rows.

    Parameters
    ----------
    architecture
        The model's shape. Of experts, those used count.
    n_tokens, batch
        Length of a sequence, and sequences at once.
    element
        Bytes of a number.
    checkpointing
        ``"none"`` keeps all; ``"selective"`` recomputes attention scores; ``"full"`` keeps each
        layer's input and recomputes the rest, one layer at a time.
    flash_attention
        Attention scores are never kept, whatever the checkpointing.

    Raises
    ------
    ValueError
        A number is not positive, or the checkpointing is unknown.
    """
    if n_tokens < 1 or batch < 1:
        raise ValueError("Training needs at least one sequence of one token.")
    if checkpointing not in ("none", "selective", "full"):
        raise ValueError(
            f"Unknown checkpointing {checkpointing!r}. Use 'none', 'selective' or 'full'."
        )
    a = architecture
    keeps_scores = not flash_attention and checkpointing != "selective"
    layer = _layer_bytes(a, n_tokens, element, keeps_scores=keeps_scores)
    if checkpointing == "full":
        layers = a.n_layers * n_tokens * a.hidden_size * element + layer
    else:
        layers = a.n_layers * layer
    # Logits in 32 bits, and their gradient: what frameworks allocate for the loss.
    logits = 2 * n_tokens * a.n_vocab * _SINGLE
    return batch * (layers + logits)


def lora_weights(architecture: Architecture, rank: int, targets: Sequence[str] = ALL_LINEAR) -> int:
    """Return the number of weights that LoRA trains: ``rank × (inputs + outputs)`` per matrix.

    Parameters
    ----------
    architecture
        The model's shape. Experts are left as they are; a shared one is adapted.
    rank
        Rank of the two matrices that stand beside each adapted one.
    targets
        Of ``q``, ``k``, ``v``, ``o``, ``gate``, ``up``, ``down``.

    Raises
    ------
    ValueError
        The rank is not positive, a target is unknown, or the model's attention is latent, whose
        matrices have other names.
    """
    a = architecture
    if rank < 1:
        raise ValueError(f"A rank of {rank} adapts nothing. Give 1 or more.")
    if a.is_mla:
        raise ValueError(
            f"{a.name} has latent attention, without separate query, key and value matrices. "
            "Count its targets by hand."
        )
    hidden, width = a.hidden_size, a.shared_feed_forward_size or a.feed_forward_size
    width = width if not a.is_moe or a.shared_feed_forward_size else 0
    queries, keys = a.n_heads * a.head_size, a.n_kv_heads * a.head_size
    values, heads = a.n_kv_heads * a.v_head_size, a.n_heads * a.v_head_size
    sums = {
        "q": hidden + queries,
        "k": hidden + keys,
        "v": hidden + values,
        "o": heads + hidden,
        "gate": hidden + width if a.gated and width else 0,
        "up": hidden + width if width else 0,
        "down": hidden + width if width else 0,
    }
    unknown = [target for target in targets if target not in sums]
    if unknown:
        raise ValueError(f"LoRA has no target {unknown[0]!r}. Use some of {', '.join(sums)}.")
    attention = sum(sums[target] for target in targets if target in ATTENTION)
    dense = sum(sums[target] for target in targets if target not in ATTENTION)
    return rank * (a.n_attention_layers * attention + a.n_feed_forward_layers * dense)


def _layer_bytes(a: Architecture, n_tokens: int, element: int, *, keeps_scores: bool) -> int:
    """Return one layer's activations of one sequence."""
    width = a.feed_forward_size
    if a.is_moe:
        width = a.n_experts_used * a.expert_feed_forward_size + a.shared_feed_forward_size
    queries = a.n_heads * a.head_size
    keys_values = a.n_kv_heads * (a.head_size + a.v_head_size)
    # Inputs of the two norms and of the projections behind them; of the output projection.
    numbers = 4 * a.hidden_size + queries + keys_values + a.n_heads * a.v_head_size
    # Gate and up, the activated gate, and their product; without a gate: before and after.
    numbers += (4 if a.gated else 2) * width
    scores = 2 * a.n_heads * n_tokens if keeps_scores else 0  # before and after softmax
    return n_tokens * (numbers + scores) * element


def _nf4_bytes(a: Architecture, n_weights: int) -> float:
    """Return frozen weights as bitsandbytes keeps them: matrices in NF4, embeddings in 16 bits."""
    tables = a.n_vocab * a.hidden_size * (1 if a.tied_embeddings else 2)
    return (n_weights - tables) * _NF4_BYTES + tables * _HALF
