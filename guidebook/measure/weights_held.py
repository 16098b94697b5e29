"""What the weights of a loaded PyTorch model really take in memory.

A checkpoint's size on disk says what was saved. In memory a quantized model holds packed
matrices, their scales and tables, and everything that was not quantized: embeddings, norms and
often the output matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class WeightsHeld:
    """Bytes of a model's weights, by what they are for.

    Attributes
    ----------
    n_quantized
        Weights inside quantized matrices.
    quantized_bytes
        Their packed numbers.
    scale_bytes
        What it takes to read them: scales, scales of scales, tables of levels.
    n_other, other_bytes
        All other weights and buffers, such as embeddings and norms.
    """

    n_quantized: int
    quantized_bytes: int
    scale_bytes: int
    n_other: int
    other_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.quantized_bytes + self.scale_bytes + self.other_bytes

    @property
    def quantized_bits(self) -> float | None:
        """Bits per quantized weight, scales and tables included; ``None`` without any."""
        if not self.n_quantized:
            return None
        return 8 * (self.quantized_bytes + self.scale_bytes) / self.n_quantized

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the whole model."""
        return 8 * self.total_bytes / (self.n_quantized + self.n_other)


def weights_held(model: torch.nn.Module) -> WeightsHeld:
    """Add up what a loaded model holds, each tensor once, however many modules share it.

    Quantized matrices are those of bitsandbytes, in 8 and in 4 bits. In any other model all
    tensors count as "other", at the size that they have in memory.
    """
    seen: set[int] = set()

    def add(tensor: torch.Tensor) -> int:
        """Return a tensor's bytes, or none if its memory was counted before."""
        if tensor.data_ptr() in seen:
            return 0
        seen.add(tensor.data_ptr())
        return tensor.nbytes

    n_quantized = quantized = scales = n_other = other = 0
    for module in model.modules():
        tensors = list(_scales(module))
        if tensors:
            weight: Any = module.weight
            new = add(weight.data)
            quantized += new
            n_quantized += _n_weights(weight) if new else 0
            scales += sum(add(tensor) for tensor in tensors)
    for tensor in (*model.parameters(), *model.buffers()):
        new = add(tensor.data)
        other += new
        n_other += tensor.numel() if new else 0
    return WeightsHeld(n_quantized, quantized, scales, n_other, other)


def _scales(module: Any) -> Iterator[torch.Tensor]:  # noqa: ANN401 - classes of bitsandbytes
    """Yield the scales and tables of a quantized layer; nothing for any other module."""
    weight = getattr(module, "weight", None)
    four_bit = getattr(weight, "quant_state", None)
    for state in (four_bit, getattr(four_bit, "state2", None)):
        for name in ("absmax", "code", "offset"):
            tensor = getattr(state, name, None)
            if tensor is not None:
                yield tensor
    # 8-bit rows: the scales move from the weight to the layer's state at the first product.
    for holder in (weight, getattr(module, "state", None)):
        tensor = getattr(holder, "SCB", None)
        if tensor is not None:
            yield tensor


def _n_weights(weight: Any) -> int:  # noqa: ANN401 - a parameter class of bitsandbytes
    state = getattr(weight, "quant_state", None)
    shape = weight.shape if state is None else state.shape
    count = 1
    for size in shape:
        count *= int(size)
    return count
