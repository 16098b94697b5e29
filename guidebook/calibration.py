"""Fits the speed model to published measurements, and checks it on devices left out of the fit.

Every table of ``guidebook/catalog/reference`` with speeds of llama.cpp is used. The fit minimizes
relative errors, with a loss that large ones do not dominate; times are sums of positive terms, so
every coefficient is bounded from below. For the check, one device after another is left out
entirely (all its rows, of all tables), the model is fitted to the others, and its speeds are
predicted. Those errors are the prediction intervals.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any, cast

from guidebook import speed, weights, workload
from guidebook.architecture import Architecture
from guidebook.catalog import hardware, models
from guidebook.catalog.hardware import Backend, Device
from guidebook.speed import Coefficients, Interval, Model, Phase

# No memory is read at more than about 95 % of its rated bandwidth: refresh and bank conflicts.
_LEAST_BANDWIDTH = 1 / 0.95
# Relative error from which on a measurement counts as an outlier.
_OUTLIER = 0.15
# Reading the KV cache: one published pair (RTX 4090, Llama-3-8B Q4_K_M, 15 % slower at 8,192 tokens
# than at 512) is reproduced with 1.1 times its bytes over the rated bandwidth. Not fitted.
_KV = 1.1
# Half of a processor's peak in matrix products. Not fitted: no table names the processor's peak.
_CPU_PROMPT = 2.0
_COVERAGE = 0.9

_DECODE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "NVIDIA": {
        "bandwidth": ("nvidia.bandwidth",),
        "layer": ("nvidia.layer",),
        "moe_layer": ("nvidia.moe_layer",),
        "weight": ("nvidia.weight",),
    },
    "Apple M1 to M4": {
        "bandwidth": ("apple.bandwidth",),
        "layer": ("apple.layer",),
        "moe_layer": ("apple.moe_layer",),
        "weight": ("apple.weight",),
    },
    "ROCm": {
        "bandwidth": ("rocm.bandwidth",),
        "layer": ("rocm.layer",),
        "moe_layer": ("amd.moe_layer",),
        "weight": ("rocm.weight",),
    },
    "Vulkan": {
        "bandwidth": ("vulkan.bandwidth",),
        "layer": ("vulkan.layer",),
        "moe_layer": ("amd.moe_layer",),
        "weight": ("vulkan.weight",),
    },
    "CPU": {"bandwidth": ("cpu.bandwidth",), "layer": (), "moe_layer": (), "weight": ()},
}
# Families that differ from another one in some coefficients only.
_VARIANTS: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "NVIDIA data centre": ("NVIDIA", {}),
    "NVIDIA before tensor cores": ("NVIDIA", {"weight": ("nvidia.weight", "nvidia.old_weight")}),
    "NVIDIA unified memory": ("NVIDIA", {"bandwidth": ("unified.bandwidth",)}),
    "Apple M1 to M4, two dies": (
        "Apple M1 to M4",
        {
            "bandwidth": ("apple.bandwidth", "apple.two_dies"),
            "layer": ("apple.layer", "apple.two_dies_layer"),
            "moe_layer": ("apple.moe_layer", "apple.two_dies_layer"),
        },
    ),
    "Apple M5 and later": ("Apple M1 to M4", {"weight": ("apple.m5_weight",)}),
    "Apple M5 and later, two dies": (
        "Apple M1 to M4",
        {
            "bandwidth": ("apple.bandwidth", "apple.two_dies"),
            "layer": ("apple.layer", "apple.two_dies_layer"),
            "moe_layer": ("apple.moe_layer", "apple.two_dies_layer"),
            "weight": ("apple.m5_weight",),
        },
    ),
    "Vulkan unified memory": ("Vulkan", {"bandwidth": ("unified.bandwidth",)}),
    "Intel": ("Vulkan", {"weight": ("intel.weight",)}),
}
# Parameters for prompts: of arithmetic, of a layer, of a layer with experts. Where models with
# experts were measured on no device or on one, None: the ratio to a dense layer is NVIDIA's.
_PROMPT: Mapping[str, tuple[str, str, str | None]] = {
    "NVIDIA": ("nvidia", "nvidia.layer", "nvidia.moe_layer"),
    "NVIDIA unified memory": ("nvidia", "nvidia.layer", "nvidia.moe_layer"),
    "NVIDIA data centre": ("nvidia_data_centre", "nvidia.layer", "nvidia.moe_layer"),
    "NVIDIA before tensor cores": ("nvidia_old", "nvidia.layer", "nvidia.moe_layer"),
    "Apple M1 to M4": ("apple", "apple.layer", "apple.moe_layer"),
    "Apple M1 to M4, two dies": ("apple", "apple.layer", "apple.moe_layer"),
    "Apple M5 and later": ("apple_m5", "apple.layer", "apple.moe_layer"),
    "Apple M5 and later, two dies": ("apple_m5", "apple.layer", "apple.moe_layer"),
    "ROCm": ("rocm", "amd.layer", None),
    "Vulkan": ("vulkan", "amd.layer", None),
    "Vulkan unified memory": ("vulkan", "amd.layer", None),
    "Intel": ("intel", "amd.layer", None),
}


@dataclass(frozen=True)
class Observation:
    """One published speed.

    Attributes
    ----------
    device
        With the backend that it was measured with.
    architecture, model, quant, weights_bytes
        What ran; the bytes where the table states them.
    phase, n_tokens
        What was timed: so many generated tokens, or a prompt of so many.
    tokens_per_second
        As published.
    table
        Its file in ``guidebook/catalog/reference``.
    """

    device: Device
    architecture: Architecture
    model: str
    quant: str
    weights_bytes: int | None
    phase: Phase
    n_tokens: int
    tokens_per_second: float
    table: str

    def load(self, unpacking: Mapping[str, float]) -> workload.Load:
        """Return what the measured model asks for."""
        return workload.of(
            self.architecture,
            weights.account(self.architecture, self.quant, self.weights_bytes),
            depth=self.n_tokens / 2,
            decode_work=speed.unpacking_work(self.quant, unpacking),
        )


@dataclass(frozen=True)
class Check:
    """A measured speed, and its prediction by a model that never saw the device."""

    observation: Observation
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.predicted / self.observation.tokens_per_second - 1


def observations() -> tuple[Observation, ...]:
    """Read every reference table."""
    return (*_scoreboards(), *_apple(), *_gpt_oss(), *_ollama())


def fit(found: Sequence[Observation]) -> Model:
    """Fit the coefficients; intervals are left empty (see :func:`calibrate`)."""
    unpacking = _unpacking()
    decode = _solve(
        _equation(o, o.load(unpacking), _parameters(speed.family(o.device)))
        for o in found
        if o.phase == "decode"
    )
    decoding = {family: _decode_coefficients(family, decode) for family in _families()}
    prompt = _solve(
        _prompt_equation(o, o.load(unpacking), decoding[speed.family(o.device)])
        for o in found
        if o.phase == "prefill" and speed.family(o.device) in _PROMPT and _has_parameters(o)
    )
    return Model(
        coefficients={
            family: _with_prompt(family, figures, prompt) for family, figures in decoding.items()
        },
        intervals={},
        unpacking=unpacking,
        devices=frozenset(o.device.name for o in found),
    )


def cross_validate(
    found: Sequence[Observation], devices: Iterable[str] | None = None
) -> tuple[Check, ...]:
    """Predict measurements by a model fitted without their device: all, or of some devices."""
    checks = []
    for name in sorted({o.device.name for o in found} if devices is None else set(devices)):
        model = fit([o for o in found if o.device.name != name])
        for o in found:
            if o.device.name == name:
                load = o.load(model.unpacking)
                taken = speed.seconds(o.device, load, o.phase, model, o.n_tokens)
                tokens = 1 if o.phase == "decode" else o.n_tokens
                checks.append(Check(o, tokens / taken))
    order = {id(o): i for i, o in enumerate(found)}
    return tuple(sorted(checks, key=lambda check: order[id(check.observation)]))


def calibrate(found: Sequence[Observation] | None = None) -> tuple[Model, tuple[Check, ...]]:
    """Fit the model, cross-validate it, and take the intervals from the errors."""
    found = observations() if found is None else found
    checks = cross_validate(found)
    return replace(fit(found), intervals=_intervals(checks)), checks


def parameters(family: str, phase: Phase, *, moe: bool) -> tuple[str, ...]:
    """Return the names of the parameters that measurements of this kind are fitted with."""
    if phase == "decode":
        layer = "moe_layer" if moe else "layer"
        found = _parameters(family)
        return tuple(name for part in ("bandwidth", layer, "weight") for name in found[part])
    if family not in _PROMPT or (moe and _PROMPT[family][2] is None):
        return ()
    weight, layer, moe_layer = _PROMPT[family]
    return tuple(f"prompt.{name}" for name in (weight, moe_layer if moe else layer) if name)


def to_dict(model: Model) -> dict[str, Any]:
    """Return a model's JSON form, with the digits that mean something."""
    return {
        "coefficients": {
            family: {name: _rounded(value) for name, value in asdict(figures).items()}
            for family, figures in model.coefficients.items()
        },
        "intervals": {
            group: {
                "low": _rounded(interval.low),
                "high": _rounded(interval.high),
                "n_devices": interval.n_devices,
            }
            for group, interval in sorted(model.intervals.items())
        },
        "unpacking": {prefix: _rounded(value) for prefix, value in model.unpacking.items()},
        "devices": sorted(model.devices),
    }


def mean_absolute_error(checks: Iterable[Check]) -> float:
    """Return the mean of the errors' sizes; NaN for none."""
    sizes = [abs(check.error) for check in checks]
    return sum(sizes) / len(sizes) if sizes else math.nan


# --- The fit ---------------------------------------------------------------------------------


def _families() -> tuple[str, ...]:
    return (*_DECODE, *_VARIANTS)


def _parameters(family: str) -> dict[str, tuple[str, ...]]:
    base, changes = _VARIANTS.get(family, (family, {}))
    return {"kv": ("kv",), **_DECODE[base], **changes}


@dataclass(frozen=True)
class _Equation:
    """One measurement as an equation: ``fixed + Σ parameter × amount = 1``, in its own time."""

    fixed: float
    amounts: Mapping[str, float]


def _equation(
    o: Observation, load: workload.Load, parameters: Mapping[str, tuple[str, ...]]
) -> _Equation:
    measured = 1 / o.tokens_per_second
    amounts: dict[str, float] = {}
    terms = speed.terms(o.device, load, "decode")
    fixed = _KV * terms.pop("kv") / measured
    for coefficient, amount in terms.items():
        for parameter in parameters[coefficient]:
            amounts[parameter] = amounts.get(parameter, 0.0) + amount / measured
    return _Equation(fixed, amounts)


def _prompt_equation(o: Observation, load: workload.Load, decode: Coefficients) -> _Equation:
    measured = o.n_tokens / o.tokens_per_second
    terms = speed.terms(o.device, load, "prefill", o.n_tokens)
    weight, layer, moe_layer = _PROMPT[speed.family(o.device)]
    amounts = {weight: terms["prompt_weight"], layer: terms["prompt_layer"]}
    if moe_layer:
        amounts[moe_layer] = terms["prompt_moe_layer"]
    return _Equation(
        decode.bandwidth * terms["bandwidth"] / measured,
        {name: amount / measured for name, amount in amounts.items()},
    )


def _has_parameters(o: Observation) -> bool:
    return not o.architecture.is_moe or _PROMPT[speed.family(o.device)][2] is not None


def _solve(equations: Iterable[_Equation]) -> dict[str, float]:
    """Find the parameters that fulfil the equations best; none is below its bound."""
    import numpy as np
    from scipy.optimize import least_squares

    rows = [equation for equation in equations if any(equation.amounts.values())]
    names = sorted({name for row in rows for name, amount in row.amounts.items() if amount})
    matrix = np.array([[row.amounts.get(name, 0.0) for name in names] for row in rows])
    target = 1 - np.array([row.fixed for row in rows])
    # The parameters differ by orders of magnitude; scaled to their rows they do not.
    scale = np.abs(matrix).max(axis=0)
    scaled = matrix / scale
    lowest = np.array([_LEAST_BANDWIDTH if name.endswith(".bandwidth") else 0.0 for name in names])
    found = least_squares(
        lambda x: scaled @ x - target,
        x0=lowest * scale + 0.1,
        jac=lambda _: scaled,
        bounds=(lowest * scale, np.inf),
        loss="soft_l1",
        f_scale=_OUTLIER,
    )
    return {name: float(value) for name, value in zip(names, found.x / scale, strict=True)}


def _decode_coefficients(family: str, fitted: Mapping[str, float]) -> Coefficients:
    def value(coefficient: str) -> float:
        return sum(fitted.get(name, 0.0) for name in _parameters(family)[coefficient])

    return Coefficients(
        bandwidth=value("bandwidth"),
        layer=value("layer"),
        moe_layer=value("moe_layer"),
        weight=value("weight"),
        prompt_layer=value("layer"),
        prompt_moe_layer=value("moe_layer"),
        prompt_weight=_CPU_PROMPT,
        kv=_KV,
    )


def _with_prompt(family: str, figures: Coefficients, prompt: Mapping[str, float]) -> Coefficients:
    if family not in _PROMPT:
        return figures
    weight, layer, moe_layer = _PROMPT[family]
    # A device may be the only one behind a parameter: without it, there is none.
    dense = prompt.get(layer, 0.0)
    ratio = prompt["nvidia.moe_layer"] / prompt["nvidia.layer"]
    return replace(
        figures,
        prompt_layer=dense,
        prompt_moe_layer=prompt[moe_layer] if moe_layer else dense * ratio,
        prompt_weight=prompt[weight],
    )


def _intervals(checks: Sequence[Check]) -> dict[str, Interval]:
    """Take intervals from the errors on left-out devices (conformal prediction).

    Of n errors, the one at rank (n + 1) × 0.95 bounds the next one with that probability, if the
    next device is like these.
    """
    groups: dict[str, list[Check]] = {}
    for check in checks:
        o = check.observation
        name = speed.interval_group(o.device, o.phase, o.architecture.is_moe)
        groups.setdefault(name, []).append(check)
    intervals = {}
    for name, members in groups.items():
        ratios = sorted(1 / (1 + check.error) for check in members)
        tail = max(0, math.floor((len(ratios) + 1) * (1 - _COVERAGE) / 2) - 1)
        intervals[name] = Interval(
            ratios[tail],
            ratios[-1 - tail],
            len({check.observation.device.name for check in members}),
        )
    return intervals


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# --- The tables ------------------------------------------------------------------------------

_GIB = 1024**3
_SPEEDS: tuple[tuple[str, Phase, int], ...] = (
    ("tg128_tok_s", "decode", 128),
    ("pp512_tok_s", "prefill", 512),
    ("pp2048_tok_s", "prefill", 2048),
)


def _rows(table: str) -> list[dict[str, str]]:
    text = resources.files("guidebook.catalog").joinpath(f"reference/{table}.csv")
    return list(csv.DictReader(text.read_text("utf-8").splitlines()))


def _devices(table: str) -> dict[tuple[str, str], Device]:
    """Return the devices of a table by the name and backend that it gives them."""
    return {
        (row["name"], row["backend"]): replace(
            hardware.find(row["device"]), backend=cast(Backend, row["backend"])
        )
        for row in _rows("devices")
        if row["table"] == table
    }


def _scoreboards() -> Iterable[Observation]:
    table = "llamacpp_scoreboards_llama2_7b_q4_0"
    devices = _devices(table)
    for row in _rows(table):
        device = devices.get((row["device"], row["backend"]))
        if device is not None:
            yield from _speeds(table, device, "llama-2-7b", "Q4_0", 3.56, row)


def _apple() -> Iterable[Observation]:
    table = "llamacpp_4167_apple_llama2_7b"
    devices = _devices(table)
    for row in _rows(table):
        yield _observation(
            table,
            devices[f"{row['chip']} ({row['gpu_cores']}c)", row["backend"]],
            "llama-2-7b",
            row["quant"],
            float(row["size_gib"]),
            "decode" if row["test"] == "tg" else "prefill",
            int(row["n_tokens"]),
            row["tok_s"],
        )


def _gpt_oss() -> Iterable[Observation]:
    table = "llamacpp_15396_gptoss"
    devices = _devices(table)
    for row in _rows(table):
        device = devices[row["device"], row["backend"]]
        yield from _speeds(table, device, row["model"], row["quant"], None, row)


def _ollama() -> Iterable[Observation]:
    """Read what Ollama generated: a few hundred tokens; taken as 256."""
    table = "geerling_ollama_power"
    devices = _devices(table)
    shapes = {
        "Llama 3.2:3b": ("llama-3.2-3b", "Q4_K_M"),
        "DeepSeek R1 14b": ("qwen2.5-14b", "Q4_K_M"),
        "Llama 3.1:70b": ("llama-3.1-70b", "Q4_K_M"),
        "gpt-oss 20b": ("gpt-oss-20b", "MXFP4"),
    }
    for row in _rows(table):
        processor = "CPU" if row["proc"] == "CPU" else None
        for (name, backend), device in devices.items():
            on_this = row["system"] == name and (backend == "CPU") == (processor == "CPU")
            if on_this and row["model"] in shapes and row["proc"] in ("GPU", "CPU"):
                model, quant = shapes[row["model"]]
                yield _observation(
                    table, device, model, quant, None, "decode", 256, row["eval_tok_s"]
                )


def _speeds(
    table: str,
    device: Device,
    model: str,
    quant: str,
    size_gib: float | None,
    row: Mapping[str, str],
) -> Iterable[Observation]:
    for column, phase, n_tokens in _SPEEDS:
        if row.get(column):
            yield _observation(table, device, model, quant, size_gib, phase, n_tokens, row[column])


def _observation(
    table: str,
    device: Device,
    model: str,
    quant: str,
    size_gib: float | None,
    phase: Phase,
    n_tokens: int,
    tokens_per_second: str,
) -> Observation:
    return Observation(
        device=device,
        architecture=models.find(model).architecture,
        model=model,
        quant=quant,
        weights_bytes=None if size_gib is None else round(size_gib * _GIB),
        phase=phase,
        n_tokens=n_tokens,
        tokens_per_second=float(tokens_per_second),
        table=table,
    )


def _unpacking() -> dict[str, float]:
    """Derive what low-bit types cost to unpack from the table of one unnamed device.

    F16 and Q8_0 give the time per byte and the time of everything else; what a type takes beyond
    them is unpacking. The average of Q4_0-like types (four bits and more) is the unit.
    """
    shape = models.find("llama-3.1-8b").architecture
    times = {
        row["quant"]: (
            weights.account(shape, row["quant"]).decode_bytes,
            1 / float(row["tg128_tok_s"]),
        )
        for row in _rows("llamacpp_quantize_llama31_8b")
    }
    (bytes_f16, time_f16), (bytes_q8, time_q8) = times["F16"], times["Q8_0"]
    per_byte = (time_f16 - time_q8) / (bytes_f16 - bytes_q8)
    rest = time_f16 - per_byte * bytes_f16

    def extra(*prefixes: str) -> float:
        found = [
            taken - rest - per_byte * size
            for name, (size, taken) in times.items()
            if name.startswith(prefixes)
        ]
        return sum(found) / len(found)

    unit = extra("Q4", "Q5", "Q6", "IQ4")
    groups = {"IQ1": ("IQ1",), "IQ2": ("IQ2",), "IQ3": ("IQ3",), "Q2": ("Q2",), "Q3": ("Q3",)}
    return {name: extra(*prefixes) / unit for name, prefixes in groups.items()}
