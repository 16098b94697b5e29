"""What other calculators answer for the same case, so that a reader sees who is right.

Each estimator is the tool's own formula, read from its source or worked out from its answers,
as a small function of one :class:`Case`. Memory is in bytes, speed in tokens per second, and
``None`` means that the tool does not estimate it. The tests compare the formulas with
recorded output of the tools.

Nothing here is used by the book's own predictions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guidebook.units import GB, GIB

BACKENDS = ("CUDA", "ROCm", "Metal", "Vulkan", "CPU")

_MUST_BE_POSITIVE = (
    "n_weights",
    "n_active_weights",
    "bits_per_weight",
    "weights_bytes",
    "n_layers",
    "bandwidth",
)


@dataclass(frozen=True)
class Case:
    """One model on one device, in plain numbers.

    Attributes
    ----------
    n_weights, n_active_weights
        Weights in the model, and weights used for one token. Equal for a dense model.
    bits_per_weight, weights_bytes
        Average bits per weight, and the size of all weights as stored.
    n_layers, n_kv_heads, head_size, n_vocab
        Shape of the model.
    context
        Tokens that the cache has room for.
    depth
        Tokens that are in the cache while the speed is measured. No tool here reads it: the
        question they answer has no such term.
    bandwidth
        The device's rated memory bandwidth in bytes/s.
    tensor_flops
        Dense 16-bit FLOP/s with 32-bit accumulation, or ``None`` if not known.
    backend
        One of ``BACKENDS``.
    unified
        Whether processor and GPU share one memory.
    quant
        Name of the file type, such as ``"Q4_K_M"``. Several tools look up their own bytes per
        weight by this name. Without it they get the entry nearest to ``bits_per_weight``.
    hidden_size, n_heads, tied_embeddings
        What some tools need besides; 0 if not known.
    n_experts, n_experts_used, expert_feed_forward_size, shared_feed_forward_size
        A mixture of experts; 0 for a dense model.
    family
        Name of the model's family, such as ``"gpt-oss"``; one tool treats families unlike.
    mla_width
        Numbers cached per token and layer with multi-head latent attention; 0 without.
    """

    n_weights: int
    n_active_weights: int
    bits_per_weight: float
    weights_bytes: int
    n_layers: int
    n_kv_heads: int
    head_size: int
    n_vocab: int
    context: int
    depth: int
    bandwidth: float
    tensor_flops: float | None
    backend: str
    unified: bool
    quant: str = ""
    hidden_size: int = 0
    n_heads: int = 0
    tied_embeddings: bool = False
    n_experts: int = 0
    n_experts_used: int = 0
    expert_feed_forward_size: int = 0
    shared_feed_forward_size: int = 0
    family: str = ""
    mla_width: int = 0

    def __post_init__(self) -> None:
        for name in _MUST_BE_POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.n_active_weights > self.n_weights:
            raise ValueError(
                f"n_active_weights ({self.n_active_weights}) cannot exceed "
                f"n_weights ({self.n_weights})"
            )
        if self.context < 0 or self.depth < 0:
            raise ValueError("context and depth are numbers of tokens: give 0 or more")
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {self.backend!r}: use one of {', '.join(BACKENDS)}")

    @property
    def is_moe(self) -> bool:
        """Whether a token uses only part of the weights."""
        return self.n_active_weights < self.n_weights

    @property
    def cache_bytes(self) -> float:
        """An f16 cache in which every layer keeps every token: what these tools assume."""
        return 2.0 * 2 * self.n_layers * self.n_kv_heads * self.head_size * self.context


Estimator = Callable[[Case], float | None]


@dataclass(frozen=True)
class Peer:
    """A tool and its answers to one case.

    Attributes
    ----------
    name, version, source
        The tool, its version, and where the formula stands.
    memory, decode, prefill
        Bytes needed, tokens/s while generating, tokens/s while reading the prompt.
    note
        How the formula was obtained, or why there is none.
    """

    name: str
    version: str
    source: str
    memory: Estimator
    decode: Estimator
    prefill: Estimator
    note: str = ""


def not_estimated(_case: Case) -> float | None:
    """Answer for what a tool does not estimate."""
    return None


def _nearest(table: Mapping[str, float], case: Case) -> str:
    """Entry whose bytes per weight come closest to the case's."""
    wanted = case.bits_per_weight / 8
    return min(table, key=lambda name: abs(table[name] - wanted))


# --- accelerate ---------------------------------------------------------------------------

_ACCELERATE_DTYPE_BITS = (32, 16, 8, 4)


def accelerate_memory(case: Case) -> float | None:
    """Bytes of the weights in the nearest of float32, float16, int8 and int4.

    accelerate 1.15.0, ``commands/estimate.py``: ``calculate_maximum_sizes`` of a float32
    model, divided by 1, 2, 4 or 8. It builds the model with ``AutoModel``, which has no output
    matrix of its own, so an untied one is not counted. No cache, no buffers, no block scales.
    """
    bits = min(_ACCELERATE_DTYPE_BITS, key=lambda b: abs(b - case.bits_per_weight))
    output = 0 if case.tied_embeddings else case.n_vocab * case.hidden_size
    return (case.n_weights - output) * 4 / (32 / bits)


# --- llmfit -------------------------------------------------------------------------------

_LLMFIT_MEMORY_BYTES = {
    "F32": 4.0,
    "F16": 2.0,
    "BF16": 2.0,
    "Q8_0": 1.05,
    "Q6_K": 0.80,
    "Q5_K_M": 0.68,
    "Q4_K_M": 0.58,
    "Q4_0": 0.58,
    "MXFP4": 0.55,
    "Q3_K_M": 0.48,
    "Q2_K": 0.37,
}
# Decoding reads another table, without the overhead of block scales. F32 is missing in the
# tool, so an F32 model is said to run at the speed of a 4-bit one.
_LLMFIT_SPEED_BYTES = {
    "F16": 2.0,
    "BF16": 2.0,
    "Q8_0": 1.0,
    "Q6_K": 0.75,
    "Q5_K_M": 0.625,
    "Q4_K_M": 0.5,
    "Q4_0": 0.5,
    "Q3_K_M": 0.375,
    "Q2_K": 0.25,
}
_LLMFIT_CPU_MULTIPLIER = {
    "F16": 0.6,
    "BF16": 0.6,
    "Q8_0": 0.8,
    "Q6_K": 0.95,
    "Q5_K_M": 1.0,
    "Q4_K_M": 1.15,
    "Q4_0": 1.15,
    "Q3_K_M": 1.25,
    "Q2_K": 1.35,
}
_LLMFIT_UNKNOWN_MEMORY_BYTES = 0.58
_LLMFIT_UNKNOWN_SPEED_BYTES = 0.5
_LLMFIT_OVERHEAD_GB = 0.5
_LLMFIT_EFFICIENCY = 0.55
_LLMFIT_PREFILL_EFFICIENCY = 0.35
_LLMFIT_CPU_CONSTANT = 70.0
_LLMFIT_CPU_FACTOR = 0.3
_LLMFIT_DENSE_PART_FACTOR = 3.2
_LLMFIT_DENSE_PART_FACTOR_GPT_OSS = 1.43


def _llmfit_quant(case: Case) -> str:
    return case.quant.upper() or _nearest(_LLMFIT_MEMORY_BYTES, case)


def _llmfit_weight_bytes(case: Case) -> float:
    return _LLMFIT_MEMORY_BYTES.get(_llmfit_quant(case), _LLMFIT_UNKNOWN_MEMORY_BYTES)


def llmfit_memory(case: Case) -> float | None:
    """Weights by file type, a full f16 cache and half a GB.

    llmfit 1.1.17, ``llmfit plan`` (``vram_gb``); the tables stand in ``models.rs``. The tool
    adds weights in 10^9 bytes to a cache in 2^30 bytes and compares the sum with video memory
    in GiB, so the sum is read as GiB here. No sliding window, no latent attention.
    """
    weights_gb = case.n_weights / GB * _llmfit_weight_bytes(case)
    return (weights_gb + case.cache_bytes / GIB + _LLMFIT_OVERHEAD_GB) * GIB


def llmfit_decode(case: Case) -> float | None:
    """Bandwidth x 0.55 / bytes of the weights; expert models and processors go other ways.

    llmfit 1.1.17, ``llmfit plan`` (``estimated_tps`` of the path "gpu"). A mixture of experts
    gets ``bandwidth / (active expert weights x bytes + other weights x 3.2)``, with 1.43 in
    place of 3.2 for gpt-oss: the two factors reproduce the tool's answers for twelve models to
    six digits. Without the experts' shape there is no answer here. The tool slows expert
    models further when they fill more than about 64 % of the card; that is left out, as are
    the 10 % it adds from eight processor cores up.
    """
    quant = _llmfit_quant(case)
    if case.backend == "CPU":
        multiplier = _LLMFIT_CPU_MULTIPLIER.get(quant, 1.0)
        billions = case.n_active_weights / 1e9
        return _LLMFIT_CPU_CONSTANT / billions * multiplier * _LLMFIT_CPU_FACTOR
    if not case.is_moe:
        per_weight = _LLMFIT_SPEED_BYTES.get(quant, _LLMFIT_UNKNOWN_SPEED_BYTES)
        return case.bandwidth * _LLMFIT_EFFICIENCY / (case.n_weights * per_weight)
    if not (case.hidden_size and case.n_heads and case.expert_feed_forward_size):
        return None
    one_matrix = case.hidden_size * case.expert_feed_forward_size
    experts = case.n_layers * case.n_experts_used * 3 * one_matrix
    attention = 2 * case.hidden_size * case.head_size * (case.n_heads + case.n_kv_heads)
    shared = 3 * case.hidden_size * case.shared_feed_forward_size
    router = case.hidden_size * case.n_experts
    others = case.n_layers * (attention + shared + router) + 2 * case.n_vocab * case.hidden_size
    gpt_oss = case.family.lower().replace("_", "-").startswith("gpt-oss")
    factor = _LLMFIT_DENSE_PART_FACTOR_GPT_OSS if gpt_oss else _LLMFIT_DENSE_PART_FACTOR
    return case.bandwidth / (experts * _llmfit_weight_bytes(case) + others * factor)


def llmfit_prefill(case: Case) -> float | None:
    """FLOP/s x 0.35 / (2 x active weights), on a GPU whose FLOP/s are known.

    llmfit 1.1.17, ``llmfit --profile ... info`` (``prefill_tps``).
    """
    if case.tensor_flops is None or case.backend == "CPU":
        return None
    return case.tensor_flops * _LLMFIT_PREFILL_EFFICIENCY / (2 * case.n_active_weights)


# --- ggufit -------------------------------------------------------------------------------

_GGUFIT_BYTES = {
    "fp32": 4.0,
    "fp16": 2.0,
    "q8": 1.05,
    "q6": 0.8,
    "q5": 0.7,
    "q4": 0.6,
    "q3": 0.5,
    "q2": 0.4,
}


def _ggufit_weights(case: Case, n_weights: int) -> float:
    """Bytes that ggufit takes the weights for: one class per number of bits."""
    name = case.quant.upper()
    digit = re.search(r"(?:Q|FP)(\d)", name)
    if name in ("F16", "BF16"):
        label = "fp16"
    elif name == "F32":
        label = "fp32"
    elif digit:
        label = f"q{max(2, int(digit.group(1)))}"
    else:
        label = _nearest(_GGUFIT_BYTES, case)
    return n_weights * _GGUFIT_BYTES[label]


def ggufit_memory(case: Case) -> float | None:
    """Weights, cache and a baseline: 0.6 GiB + 5 % on a GPU, 1 GiB + 7.6 % in system memory.

    ggufit 0.3.0, ``calculator.py``: ``gpu_vram_needed`` and ``host_ram_needed`` over
    ``kv_cache_gb``, which knows latent attention but no sliding window.
    """
    weights = _ggufit_weights(case, case.n_weights)
    cache = case.cache_bytes
    if case.mla_width:
        cache = 2.0 * case.n_layers * case.mla_width * case.context
    if case.backend == "CPU":
        return weights * 1.076 + cache + 1.0 * GIB
    return weights * 1.05 + cache + 0.6 * GIB


def ggufit_decode(case: Case) -> float | None:
    """Bandwidth / active weights, x 0.80 on a GPU, x 0.85 on a processor; no cache term.

    ggufit 0.3.0, ``calculator.py``: ``plan_offload`` and ``tokens_per_sec`` (the middle of
    its +/- 30 % band). It divides GB/s by GiB. On a processor the tool measures the bandwidth;
    here it gets the rated one.
    """
    efficiency = 0.85 if case.backend == "CPU" else 0.80
    active_gib = _ggufit_weights(case, case.n_active_weights) / GIB
    return case.bandwidth / GB / active_gib * efficiency


# --- llmcalculator ------------------------------------------------------------------------

_LLMCALCULATOR_BYTES = {
    "FP32": 4.0,
    "FP16": 2.0,
    "BF16": 2.0,
    "Q8_0": 1.09,
    "Q6_K": 0.84,
    "Q5_K_M": 0.73,
    "Q4_K_M": 0.63,
    "Q4_K_S": 0.58,
    "IQ4_XS": 0.53,
    "Q3_K_M": 0.51,
    "IQ3_XS": 0.43,
    "Q2_K": 0.40,
}


def _llmcalculator_bytes(case: Case) -> float:
    name = {"F32": "FP32", "F16": "FP16"}.get(case.quant.upper(), case.quant.upper())
    if name not in _LLMCALCULATOR_BYTES:
        name = _nearest(_LLMCALCULATOR_BYTES, case)
    return _LLMCALCULATOR_BYTES[name]


def llmcalculator_memory(case: Case) -> float | None:
    """Weights by file type, a full f16 cache, 0.15 GB of buffers and 0.6 GB.

    llmcalculator 0.2.3, ``estimate.py`` (``estimate``) with the bytes per weight of
    ``quant.py``. The buffers grow by 4 bytes x hidden size x context / 1000.
    """
    weights = case.n_weights * _llmcalculator_bytes(case)
    buffers = 0.15e9 + case.context * case.hidden_size * 4 / 1e3
    return weights + case.cache_bytes + buffers + 0.6e9


def llmcalculator_decode(case: Case) -> float | None:
    """Bandwidth x 0.80 / (active weights + half the cache); 0.75 unified, 0.35 processor.

    llmcalculator 0.2.3, ``estimate.py`` (``_add_performance``). It takes the cache as half
    full, whatever the depth. For a processor it assumes a bandwidth of its own (50 or
    100 GB/s); here it gets the rated one.
    """
    efficiency = 0.75 if case.unified else 0.80
    if case.backend == "CPU":
        efficiency = 0.35
    active = case.n_active_weights * _llmcalculator_bytes(case)
    return case.bandwidth * efficiency / (active + 0.5 * case.cache_bytes)


def llmcalculator_prefill(case: Case) -> float | None:
    """FLOP/s x 0.35 / (2 x active weights).

    llmcalculator 0.2.3, ``estimate.py`` (``_add_performance``). For a processor the tool
    counts cores, which a case does not carry.
    """
    if case.tensor_flops is None or case.backend == "CPU":
        return None
    return case.tensor_flops * 0.35 / (2 * case.n_active_weights)


# --- rules of thumb -----------------------------------------------------------------------


def _bytes_per_token(case: Case) -> float:
    return case.weights_bytes * case.n_active_weights / case.n_weights


def file_size_memory(case: Case) -> float | None:
    """Return the size of the file and nothing else."""
    return float(case.weights_bytes)


def bandwidth_over_size_decode(case: Case) -> float | None:
    """Bandwidth / stored bytes of the active weights: the upper bound taken as the answer."""
    return case.bandwidth / _bytes_per_token(case)


_FITTED = {"CUDA": (0.90, 0.035e-3), "Metal": (0.90, 0.14e-3)}


def fitted_decode(case: Case) -> float | None:
    """One token takes bytes / (bandwidth x 0.90) and a fixed time per layer.

    0.035 ms per layer with CUDA and 0.14 ms with Metal; other backends have no constants.
    """
    if case.backend not in _FITTED:
        return None
    efficiency, seconds_per_layer = _FITTED[case.backend]
    reading = _bytes_per_token(case) / (case.bandwidth * efficiency)
    return 1 / (reading + case.n_layers * seconds_per_layer)


PEERS: tuple[Peer, ...] = (
    Peer(
        name="accelerate estimate-memory",
        version="1.15.0",
        source="accelerate/commands/estimate.py",
        memory=accelerate_memory,
        decode=not_estimated,
        prefill=not_estimated,
        note="formula from the source, checked against calculate_maximum_sizes",
    ),
    Peer(
        name="llmfit",
        version="1.1.17",
        source="llmfit-core/src/models.rs and fit.rs; output of `llmfit plan`",
        memory=llmfit_memory,
        decode=llmfit_decode,
        prefill=llmfit_prefill,
        note="formula checked against the program's output",
    ),
    Peer(
        name="ggufit",
        version="0.3.0",
        source="ggufit/calculator.py",
        memory=ggufit_memory,
        decode=ggufit_decode,
        prefill=not_estimated,
        note="formula from the source, checked against its output",
    ),
    Peer(
        name="llmcalculator",
        version="0.2.3",
        source="llmcalculator/estimate.py and quant.py",
        memory=llmcalculator_memory,
        decode=llmcalculator_decode,
        prefill=llmcalculator_prefill,
        note="formula from the source, checked against its output",
    ),
    Peer(
        name="gguf-parser-go",
        version="not run",
        source="github.com/gpustack/gguf-parser-go",
        memory=not_estimated,
        decode=not_estimated,
        prefill=not_estimated,
        note="not run: it walks a model file's graph in Go and has no closed formula",
    ),
    Peer(
        name="bandwidth / size",
        version="rule of thumb",
        source="widespread",
        memory=file_size_memory,
        decode=bandwidth_over_size_decode,
        prefill=not_estimated,
        note="a mixture of experts counts with its active share of the file",
    ),
    Peer(
        name="fitted formula",
        version="rule of thumb",
        source="in circulation; fitted by others to public tables of llama.cpp",
        memory=not_estimated,
        decode=fitted_decode,
        prefill=not_estimated,
        note="constants exist for CUDA and Metal only",
    ),
)


def find(name: str) -> Peer:
    """Return the peer of that name, without regard to case."""
    for peer in PEERS:
        if peer.name.lower() == name.lower():
            return peer
    names = ", ".join(peer.name for peer in PEERS)
    raise LookupError(f"no peer is called {name!r}; there are {names}")
