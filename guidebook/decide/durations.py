"""How long training takes: the operations it needs, over those that a device really does.

Training takes about 6 operations per weight and token: 2 forward, 4 backward (Kaplan et al. 2020,
*Scaling Laws for Neural Language Models*, section 2.1). With frozen weights (LoRA, QLoRA) half of
the backward pass, the gradients of the weights, falls away: 4 remain. What checkpointing computes
a second time does not count, by the definition of the share of the rated speed that is used (model
FLOPs utilization; Chowdhery et al. 2022, *PaLM*, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from guidebook import units
from guidebook.catalog.hardware import Device
from guidebook.catalog.models import Model
from guidebook.training import Method

_FLOP_PER_WEIGHT = {"full": 6.0, "lora": 4.0, "qlora": 4.0}
# A desktop processor of eight cores with AVX2, as for predicted speeds.
_USUAL_CPU_FLOPS = 0.8e12
# Where nothing was published for a kind of device, or its rated matrix speed is not known.
_UNSURE = 2.0
# What each of several cards keeps of its speed if they share over PCIe: with LoRA on Llama-2-7B two
# A100 did 0.8 times the work of one (LitGPT, tutorials/resource-tables.md: 1,000 iterations in
# 5.93 against 2.36 minutes), two in five each. The upper end is no loss, the middle lies between.
_OVER_PCIE = (0.4, 0.63, 1.0)
# Names of cards with links of their own; the shares above were measured with these.
_LINKED = ("SXM", "NVL", "B200", "B300")


@dataclass(frozen=True)
class Span:
    """A figure that is not known better than to lie between two ends."""

    low: float
    mid: float
    high: float

    def map(self, change: Callable[[float], float]) -> Span:
        """Apply a function that grows to all three."""
        return Span(change(self.low), change(self.mid), change(self.high))

    def __mul__(self, factor: float) -> Span:
        return self.map(lambda value: value * factor)


def exactly(value: float) -> Span:
    """Return a figure without doubt."""
    return Span(value, value, value)


def between(span: Span, unit: str) -> str:
    """Show a span from end to end, or once if both ends look alike."""
    low, high = (units.number(end, 2) for end in (span.low, span.high))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


# Shares of the rated dense 16-bit speed. Full training: Qwen-1.8B on an A100 13 % at 1,024 tokens
# to 41 % at 8,192 (QwenLM/Qwen, README, "Profiling of Memory and Speed", at 6 operations);
# Llama-3.1-8B on 8 H100 33 to 39 %, Llama-3-8B on 64 A100 57 to 58 % (pytorch/torchtitan,
# docs/performance.md).
_FULL = Span(0.13, 0.33, 0.58)
# Frozen weights, at 4 operations: Qwen2.5-1.5B with QLoRA on an RTX 4060, 500 to 628 tokens/s, 10
# to 13 % (Avinash 2025, arXiv 2509.12229); Qwen-7B on an A100 at 1,024 to 4,096 tokens, QLoRA 23
# to 28 %, LoRA 29 to 32 % (QwenLM/Qwen, README). Shorter sequences are slower.
_FROZEN = Span(0.10, 0.20, 0.32)
UTILIZATION: dict[Method, Span] = {"full": _FULL, "lora": _FROZEN, "qlora": _FROZEN}


def rated_flops(device: Device) -> tuple[float, bool]:
    """Return the dense 16-bit matrix speed in FLOP/s, and whether a data sheet says so.

    A GeForce from Turing on does twice its 32-bit rate (with 32-bit accumulation), as those do
    that state both; other devices are taken at their 32-bit rate.
    """
    if device.tensor_flops:
        return device.tensor_flops, True
    single = device.fp32_flops or _USUAL_CPU_FLOPS
    has_tensor_cores = device.backend == "CUDA" and (device.compute_capability or 0) >= 7.5
    return (2 * single if has_tensor_cores else single), False


def is_linked(device: Device) -> bool:
    """Whether such cards have links of their own, faster than PCIe."""
    return any(name in device.name for name in _LINKED)


def flop(model: Model, method: Method, n_tokens: float) -> float:
    """Return the operations of training on so many tokens; of experts, those used count.

    Raises
    ------
    ValueError
        The method is unknown.
    """
    if method not in _FLOP_PER_WEIGHT:
        raise ValueError(f"Unknown method {method!r}. Use 'full', 'lora' or 'qlora'.")
    return _FLOP_PER_WEIGHT[method] * model.n_active_weights * n_tokens


def training_hours(
    model: Model, method: Method, n_tokens: float, device: Device, n_devices: int = 1
) -> Span:
    """Return how long training takes, in hours.

    Several devices with links of their own share the work without loss, as measured on 8 to 64;
    over PCIe each may do much less than alone.

    Raises
    ------
    ValueError
        The method is unknown, or there is no device.
    """
    if n_devices < 1:
        raise ValueError("Training needs at least one device.")
    rated, is_stated = rated_flops(device)
    used = UTILIZATION.get(method, _FULL)
    if not is_stated or device.backend != "CUDA":
        used = Span(used.low / _UNSURE, used.mid, min(1.0, used.high * _UNSURE))
    if n_devices > 1 and not is_linked(device):
        low, mid, high = _OVER_PCIE
        used = Span(used.low * low, used.mid * mid, used.high * high)
    seconds = flop(model, method, n_tokens) / (rated * n_devices)
    return Span(seconds / used.high, seconds / used.mid, seconds / used.low) * (1 / 3600)
