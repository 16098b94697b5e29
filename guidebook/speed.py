"""How fast a model runs: the roofline as a bound, and a calibrated prediction.

**The roofline** says how fast a model could run if one resource were the only limit. Decoding one
token reads every weight once and does two operations (a multiplication and an addition) with each.
Source: Williams, Waterman and Patterson, "Roofline", CACM 52 (4), 2009.

**The prediction** adds up what one pass over the model costs on a device::

    seconds = bandwidth × bytes / rated bandwidth       reading weights and KV cache
            + layer × layers / clock                    starting the kernels of each layer
            + weight × operations / rated FLOP/s        unpacking and multiplying

Its coefficients are fitted to published measurements by :mod:`guidebook.calibration`, which also
leaves out one device at a time to see how far the prediction is off on devices that it has never
seen. Those errors are the prediction interval.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

from guidebook.catalog import hardware
from guidebook.catalog.hardware import Device
from guidebook.workload import FLOP_PER_WEIGHT, Load

DEFAULT_N_UBATCH = 512
# Chips with many tensor cores per 32-bit unit: V100, A100, H100, B200, B300.
_DATA_CENTRE = (7.0, 8.0, 9.0, 10.0, 10.3)
# Where a data sheet names no clock: near the middle of today's chips.
_USUAL_CLOCK = 2.0e9
# A desktop processor of eight cores with AVX2; a kind of RAM says nothing about the processor.
_USUAL_CPU_FLOPS = 0.8e12
# Handing the hidden state from one device to the next, through the host. An assumption: no
# published table isolates it.
_HOP_SECONDS = 100e-6
# For a large batch llama.cpp copies offloaded weights to the GPU; pageable memory over PCIe 4.0
# x16 sustains about half of the rated 31.5 GB/s. An assumption.
_PCIE_BANDWIDTH = 16e9
# Within a layer, from the GPU to the CPU and back: two copies of some kilobytes, a wait for each,
# and the CPU's threads wake up. An assumption.
_TRIP_SECONDS = 50e-6
# From so many tokens on, a batch's experts are copied to the GPU rather than computed by the CPU
# (GGML_OP_OFFLOAD_MIN_BATCH in ggml-cuda.cu).
_LEAST_COPIED_BATCH = 32

# Attention multiplies 16-bit numbers, quantized weights are multiplied in 8 bits at twice the rate.
_ATTENTION_WORK = 2.0
# What depth and low-bit types cost may be this much more or less than predicted.
_UNSURE_MOST = 2.0
_UNSURE_LEAST = 0.9
# With fewer devices behind it, an interval says nothing.
_LEAST_DEVICES = 3

Phase = Literal["decode", "prefill"]


# --- The roofline ----------------------------------------------------------------------------


def bandwidth_bound(bandwidth: float, bytes_per_token: float) -> float:
    """Return the decode speed in tokens/s that memory allows.

    Parameters
    ----------
    bandwidth
        Memory bandwidth in bytes/s, measured or rated.
    bytes_per_token
        Weights and KV cache that one token reads, in bytes.

    Raises
    ------
    ValueError
        ``bytes_per_token`` is not positive.
    """
    if bytes_per_token <= 0:
        raise ValueError("A token reads at least one byte.")
    return bandwidth / bytes_per_token


def compute_bound(flop_per_second: float, n_weights: float) -> float:
    """Return the speed in tokens/s that arithmetic allows, at two operations per weight.

    Attention over the context comes on top; it is small while the context is short.

    Raises
    ------
    ValueError
        ``n_weights`` is not positive.
    """
    if n_weights <= 0:
        raise ValueError("A model has at least one weight.")
    return flop_per_second / (FLOP_PER_WEIGHT * n_weights)


def ridge_tokens(flop_per_second: float, bandwidth: float, bytes_per_weight: float) -> float:
    """Return how many tokens must share one pass over the weights before arithmetic binds.

    Below this batch size memory is the limit, above it arithmetic is. Decoding for one reader
    is a batch of one; prefill is a batch of hundreds.
    """
    return flop_per_second * bytes_per_weight / (FLOP_PER_WEIGHT * bandwidth)


# --- The prediction --------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """How far predictions were off on devices that had been left out.

    Attributes
    ----------
    low, high
        Factors on the predicted speed between which nine of ten measured speeds lay.
    n_devices
        Devices that were left out in turn.
    """

    low: float
    high: float
    n_devices: int

    def widened(self, factor: float) -> Interval:
        """Return the interval, wider by a factor on the logarithm."""
        return Interval(self.low**factor, self.high**factor, self.n_devices)


_UNCALIBRATED = Interval(1 / 3, 3.0, 0)


@dataclass(frozen=True)
class Coefficients:
    """The fitted figures of one family of devices.

    Attributes
    ----------
    bandwidth
        Time to read, as a multiple of bytes over rated bandwidth.
    layer, moe_layer
        Per layer: seconds × Hz on a GPU with a known clock, else seconds.
    weight
        Decoding: time to compute, as a multiple of operations over rated FLOP/s.
    prompt_layer, prompt_moe_layer, prompt_weight
        The same for a batch of many tokens.
    kv
        Time to read the KV cache, as a multiple of bytes over rated bandwidth.
    """

    bandwidth: float
    layer: float
    moe_layer: float
    weight: float
    prompt_layer: float
    prompt_moe_layer: float
    prompt_weight: float
    kv: float


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes
    ----------
    coefficients
        By :func:`family`.
    intervals
        By :func:`interval_group`.
    unpacking
        By how a quantization's name begins: see :func:`unpacking_work`.
    devices
        The devices whose measurements were fitted to.
    """

    coefficients: Mapping[str, Coefficients]
    intervals: Mapping[str, Interval]
    unpacking: Mapping[str, float]
    devices: frozenset[str]


@dataclass(frozen=True)
class Prediction:
    """A predicted speed.

    Attributes
    ----------
    tokens_per_second
        The prediction.
    low, high
        Nine of ten measurements should lie between them.
    basis
        Where the interval comes from, one sentence.
    """

    tokens_per_second: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True)
class Share:
    """A part of a model on one device: ``fraction`` of its layers."""

    device: Device
    fraction: float = 1.0


@dataclass(frozen=True)
class Kept:
    """What layers on the GPUs keep in RAM.

    Attributes
    ----------
    device
        The RAM.
    experts
        The fraction of all experts: with ``--n-cpu-moe``. The CPU computes them, except for large
        batches.
    expert_layers
        The layers that these experts belong to.
    cache
        The fraction of the KV cache: with ``--no-kv-offload``.
    cache_layers
        The layers with attention that this cache belongs to.
    flash_attention
        With it, llama.cpp copies this cache to the GPU for every pass; without, the CPU computes
        the attention over it. Its scheduler gives an operation to the GPU that computes what
        follows, unless told otherwise (``ggml_backend_sched_split_graph``), and it is told
        otherwise without flash attention only (``build_attn_mha`` in llama-graph.cpp).
    """

    device: Device
    experts: float = 0.0
    expert_layers: int = 0
    cache: float = 0.0
    cache_layers: int = 0
    flash_attention: bool = True

    @property
    def trip_seconds(self) -> float:
        """What going to the CPU and back takes in one pass over the model."""
        return (self.expert_layers + self.cache_layers) * _TRIP_SECONDS

    def on_cpu(self, load: Load, *, experts: bool) -> Load:
        """Return what the CPU computes of it, the experts or not."""
        attention = 0.0 if self.flash_attention else self.cache
        return replace(
            load.experts(self.experts if experts else 0.0),
            kv_bytes=load.kv_bytes * attention,
            attention_flop=load.attention_flop * attention,
        )

    def copied_bytes(self, load: Load) -> float:
        """Return what crosses to the GPU of the cache in one pass."""
        return load.kv_bytes * self.cache if self.flash_attention else 0.0


def family(device: Device) -> str:
    """Return which devices share coefficients with this one.

    A chip's matrix units are not in its 32-bit rate, so chips with stronger ones stand apart:
    NVIDIA's data-centre chips, and Apple's from the M5 on.
    """
    if device.backend == "CUDA":
        if device.kind == "unified":
            return "NVIDIA unified memory"
        level = device.compute_capability or 0.0
        if level < 7:
            return "NVIDIA before tensor cores"
        return "NVIDIA data centre" if level in _DATA_CENTRE else "NVIDIA"
    if device.backend == "Metal":
        chip = "Apple M5 and later" if _apple_generation(device) >= 5 else "Apple M1 to M4"
        return f"{chip}, two dies" if "Ultra" in device.name else chip
    if device.vendor == "intel":
        return "Intel"
    return f"{device.backend} unified memory" if device.kind == "unified" else device.backend


def unpacking_work(quant: str, factors: Mapping[str, float] | None = None) -> float:
    """Return how much more work a type's weights are to unpack than 4-bit ones, while decoding.

    From the decode speeds of one table, Llama-3.1-8B in 23 types on one unnamed device
    (llama.cpp, tools/quantize/README.md), after what reading the bytes takes. It matters below
    four bits.
    """
    factors = calibrated().unpacking if factors is None else factors
    name = quant.upper()
    return next((factors[prefix] for prefix in factors if name.startswith(prefix)), 1.0)


def terms(device: Device, load: Load, phase: Phase, n_tokens: int = 1) -> dict[str, float]:
    """Return what each coefficient is multiplied with, in seconds per coefficient.

    Decode: for one token. Prefill: for ``n_tokens`` of a prompt, in batches of
    ``DEFAULT_N_UBATCH``.
    """
    clock = 1.0
    if device.backend == "CUDA":
        clock = device.boost_clock or _USUAL_CLOCK
    flops = _flops(device, phase)
    if phase == "decode":
        return {
            "bandwidth": load.decode_bytes / device.bandwidth,
            "kv": load.kv_bytes / device.bandwidth,
            "layer": load.n_layers / clock,
            "moe_layer": load.n_moe_layers / clock,
            "weight": FLOP_PER_WEIGHT * load.n_weights * load.decode_work / flops,
        }
    batches = math.ceil(n_tokens / DEFAULT_N_UBATCH)
    work = FLOP_PER_WEIGHT * load.n_weights + _ATTENTION_WORK * load.attention_flop
    operations = n_tokens * work / flops
    return {
        "bandwidth": batches * load.weights_bytes / device.bandwidth,
        "prompt_layer": batches * load.n_layers / clock,
        "prompt_moe_layer": batches * load.n_moe_layers / clock,
        "prompt_weight": operations,
    }


def seconds(
    device: Device, load: Load, phase: Phase, model: Model | None = None, n_tokens: int = 1
) -> float:
    """Return how long one decoded token, or a prompt of ``n_tokens``, takes on one device."""
    figures = (model or calibrated()).coefficients[family(device)]
    return sum(
        float(getattr(figures, name)) * amount
        for name, amount in terms(device, load, phase, n_tokens).items()
    )


def predict(
    shares: Sequence[Share],
    load: Load,
    phase: Phase,
    n_tokens: int = 1,
    model: Model | None = None,
    kept: Kept | None = None,
) -> Prediction:
    """Predict the speed of a model that lies on one device, on several, or on GPU and RAM.

    Parameters
    ----------
    shares
        Where the layers lie, in the order in which they are computed; the fractions add up to 1.
    load
        What the whole model asks for.
    phase
        ``decode``: tokens/s while writing. ``prefill``: tokens/s while reading a prompt.
    n_tokens
        Length of the prompt.
    model
        Coefficients; the committed ones by default.
    kept
        What the layers on GPUs leave in RAM; None: nothing.

    Raises
    ------
    ValueError
        There is no share, or the fractions do not add up to 1.
    """
    if not shares or not math.isclose(sum(share.fraction for share in shares), 1, abs_tol=1e-6):
        raise ValueError("The shares of a model must add up to the whole model.")
    model = model or calibrated()
    time = _decode_seconds if phase == "decode" else _prefill_seconds
    total = time(shares, load, n_tokens, model, kept)
    # Published tables hardly vary the depth and the low-bit types: these parts are less sure.
    sure = time(shares, load.without_depth(), n_tokens, model, kept)
    devices = [share.device for share in shares] + ([kept.device] if kept else [])
    interval, basis = _interval(devices, phase, bool(load.n_moe_layers), model)
    tokens = 1 if phase == "decode" else n_tokens
    return Prediction(
        tokens_per_second=tokens / total,
        low=interval.low * tokens / (sure + _UNSURE_MOST * (total - sure)),
        high=interval.high * tokens / (sure + _UNSURE_LEAST * (total - sure)),
        basis=basis,
    )


def is_calibrated(device: Device, model: Model | None = None) -> bool:
    """Return whether measurements of this very device are among those that were fitted to."""
    return device.name in (model or calibrated()).devices


@functools.cache
def calibrated() -> Model:
    """Return the committed model, as ``guidebook calibrate`` wrote it."""
    text = resources.files("guidebook.catalog").joinpath("speed.json").read_text("utf-8")
    return from_dict(json.loads(text))


def from_dict(data: Mapping[str, Any]) -> Model:
    """Read a model from its JSON form."""
    return Model(
        {name: Coefficients(**figures) for name, figures in data["coefficients"].items()},
        {name: Interval(**figures) for name, figures in data["intervals"].items()},
        dict(data["unpacking"]),
        frozenset(data["devices"]),
    )


def interval_group(device: Device, phase: Phase, moe: bool) -> str:
    """Return the name under which the errors of such predictions are collected."""
    if device.backend == "CUDA":
        chips = "old NVIDIA" if family(device) == "NVIDIA before tensor cores" else "NVIDIA"
    else:
        chips = {"Metal": "Apple", "CPU": "CPU"}.get(device.backend, "AMD and Intel")
    return f"{chips}, {phase}{', experts' if moe else ''}"


def _decode_seconds(
    shares: Sequence[Share], load: Load, _: int, model: Model, kept: Kept | None
) -> float:
    """Return the time of one token: one device after the other."""
    parts = [load.part(share.fraction) for share in shares]
    beside = 0.0
    if kept is not None:
        elsewhere = kept.on_cpu(load, experts=True)
        parts = _without(shares, load, elsewhere)
        beside = seconds(kept.device, elsewhere, "decode", model) + kept.trip_seconds
        beside += kept.copied_bytes(load) / _PCIE_BANDWIDTH
    return (
        (len(shares) - 1) * _HOP_SECONDS
        + beside
        + sum(
            seconds(share.device, part, "decode", model)
            for share, part in zip(shares, parts, strict=True)
        )
    )


def _without(shares: Sequence[Share], load: Load, elsewhere: Load) -> list[Load]:
    """Return every share's load; what is computed elsewhere is taken from the GPUs' alike."""
    on_gpus = sum(share.fraction for share in shares if share.device.kind != "ram")
    return [
        load.part(share.fraction)
        if share.device.kind == "ram"
        else load.part(share.fraction).less(elsewhere.part(share.fraction / on_gpus))
        for share in shares
    ]


def _prefill_seconds(
    shares: Sequence[Share], load: Load, n_tokens: int, model: Model, kept: Kept | None
) -> float:
    """Return the time of a prompt: devices of one kind work on different batches at once."""
    gpus = [share for share in shares if share.device.kind != "ram"]
    rest = sum(share.fraction for share in shares if share.device.kind == "ram")
    if not gpus:
        return sum(
            seconds(share.device, load.part(share.fraction), "prefill", model, n_tokens)
            for share in shares
        )
    batches = math.ceil(n_tokens / DEFAULT_N_UBATCH)
    # Layers in RAM are computed by the first GPU, which has to fetch their weights every time.
    copied = batches * load.weights_bytes * rest / _PCIE_BANDWIDTH
    parts = [load.part(share.fraction) for share in gpus]
    if kept is not None:
        # So it does with experts in RAM, unless the batch is small.
        used = load.used_experts(min(n_tokens, DEFAULT_N_UBATCH))
        is_small = n_tokens < _LEAST_COPIED_BATCH
        crossing = kept.copied_bytes(load)
        if not is_small:
            crossing += load.experts(kept.experts).weights_bytes * used
        elsewhere = kept.on_cpu(load, experts=is_small)
        parts = _without(gpus, load, elsewhere)
        elsewhere = replace(elsewhere, weights_bytes=elsewhere.weights_bytes * used)
        copied += batches * (crossing / _PCIE_BANDWIDTH + kept.trip_seconds)
        copied += seconds(kept.device, elsewhere, "prefill", model, n_tokens)
    stages = [
        seconds(share.device, part, "prefill", model, n_tokens)
        for share, part in zip(gpus, parts, strict=True)
    ]
    stages[0] += copied + (
        seconds(gpus[0].device, load.part(rest), "prefill", model, n_tokens) if rest else 0.0
    )
    if kept is not None:
        # With either in RAM llama.cpp gives up its pipeline (llama-context.cpp).
        return sum(stages) + batches * (len(stages) - 1) * _HOP_SECONDS
    # A pipeline: while the second device computes a batch, the first begins the next one.
    return (sum(stages) + (batches - 1) * max(stages)) / batches + (len(stages) - 1) * _HOP_SECONDS


def _interval(
    devices: Sequence[Device], phase: Phase, moe: bool, model: Model
) -> tuple[Interval, str]:
    """Return the interval of the least certain device, and a sentence about it."""
    parts = [_interval_of(device, phase, moe, model) for device in devices]
    widest, basis = max(parts, key=lambda part: part[0].high / part[0].low)
    distinct = {device.name for device in devices}
    if len(distinct) > 1:
        return widest.widened(1.5), f"{basis}; wider, because splits are not calibrated"
    if len(devices) > 1:
        return widest.widened(1.25), f"{basis}; wider, because several devices are not calibrated"
    return widest, basis


def _interval_of(device: Device, phase: Phase, moe: bool, model: Model) -> tuple[Interval, str]:
    name = interval_group(device, phase, moe)
    interval = _known(name, model)
    if interval is None and moe:
        # Models with experts on such a device: as dense ones, less certain.
        name = interval_group(device, phase, False)
        dense = _known(name, model)
        interval = dense.widened(1.5) if dense else None
    if interval is None:
        return _UNCALIBRATED, (
            f"uncalibrated: fewer than {_LEAST_DEVICES} devices were measured ({name}); a factor "
            "of three either way"
        )
    basis = (
        f"nine of ten measurements on {interval.n_devices} devices that had been left out of the "
        f"fit lay in this range ({name})"
    )
    if is_calibrated(device, model):
        return interval, basis
    if device.bandwidth > 1.1 * _fastest_relative(family(device), model.devices):
        return interval.widened(2), (
            f"uncalibrated: no device of its family with such a bandwidth was measured; {basis}, "
            "and the range is doubled"
        )
    return interval, (
        f"uncalibrated: this device was not measured, others of its family were; {basis}"
    )


def _known(name: str, model: Model) -> Interval | None:
    interval = model.intervals.get(name)
    return interval if interval and interval.n_devices >= _LEAST_DEVICES else None


@functools.cache
def _fastest_relative(name: str, devices: frozenset[str]) -> float:
    """Return the highest rated bandwidth among the measured devices of a family."""
    found = (hardware.find(device) for device in devices)
    return max((device.bandwidth for device in found if family(device) == name), default=0.0)


def _flops(device: Device, phase: Phase) -> float:
    """Return the 32-bit rate that the coefficients refer to."""
    if phase == "prefill" and device.vendor == "amd" and device.cores and device.boost_clock:
        # Data sheets of some AMD chips count two instructions at once; matrix kernels rarely
        # find two.
        return 2 * device.cores * device.boost_clock
    if device.fp32_flops:
        return device.fp32_flops
    if device.kind == "ram":
        return _USUAL_CPU_FLOPS
    # NVIDIA's data-centre chips do about 30 times as many 16-bit tensor operations.
    return (device.tensor_flops or 30 * _USUAL_CPU_FLOPS) / 30


def _apple_generation(device: Device) -> int:
    digits = "".join(c for c in device.name.split("(")[0] if c.isdigit())
    return int(digits or 0)
