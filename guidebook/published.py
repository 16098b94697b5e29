"""Published measurements that chapters set beside their own: typed rows, each with its source.

Whole computers: :func:`runs`, the collection geerlingguy/ai-benchmarks. Many systems run the same
few models under Ollama, with the highest power that the system drew at the wall.

Quantization: :func:`method_qualities` (what GPTQ, AWQ and NF4 cost in quality),
:func:`divergences` (llama.cpp's file types against F16), :func:`files` (size, perplexity and speed
of llama.cpp files), :func:`awq_latencies` and :func:`exllama_speeds`.

Attention: :func:`training_speeds` (FlashAttention-2, table 1).

Nothing here was measured on this machine, and the tables are old: their orders and ratios hold
longer than their speeds.
"""

from __future__ import annotations

import csv
import functools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from guidebook import units
from guidebook.catalog import hardware
from guidebook.catalog.hardware import Device

_TABLE = "geerling_ollama_power"


@dataclass(frozen=True)
class Run:
    """One model on one system.

    Attributes
    ----------
    model, system
        As the collection names them.
    processor
        What computed: ``GPU``, ``CPU``, or both, ``GPU/CPU``.
    device
        The device of the hardware catalog; None where the collection does not name it clearly.
    tokens_per_second
        While writing.
    watts
        Highest power at the wall; None where it was not measured.
    source
        Where the row stands.
    """

    model: str
    system: str
    processor: str
    device: Device | None
    tokens_per_second: float
    watts: float | None
    source: str

    @property
    def tokens_per_joule(self) -> float | None:
        """Tokens for each joule, at the highest power: a lower bound."""
        return self.tokens_per_second / self.watts if self.watts else None

    @property
    def path(self) -> str | None:
        """``Mac``, ``PC`` or ``DGX`` if a GPU of that kind did the work, else None."""
        if self.device is None or self.processor != "GPU":
            return None
        kinds = {"apple unified": "Mac", "nvidia discrete": "PC", "nvidia unified": "DGX"}
        return kinds.get(f"{self.device.vendor} {self.device.kind}")


@functools.cache
def runs() -> tuple[Run, ...]:
    """Return every run of the collection."""
    devices = {
        row["name"]: hardware.find(row["device"])
        for row in _rows("devices")
        if row["table"] == _TABLE
    }
    return tuple(
        Run(
            model=row["model"],
            system=row["system"],
            processor=row["proc"],
            device=devices.get(row["system"]),
            tokens_per_second=float(row["eval_tok_s"]),
            watts=float(row["peak_wall_power_w"]) if row["peak_wall_power_w"] else None,
            source=row["source"],
        )
        for row in _rows(_TABLE)
    )


def find(model: str, system: str) -> Run:
    """Return the run of a model on the first system whose name holds ``system``.

    Raises
    ------
    LookupError
        There is none.
    """
    found = next((r for r in runs() if r.model == model and system in r.system), None)
    if found is None:
        raise LookupError(f"No published run of {model!r} on a system named {system!r}.")
    return found


def most_per_joule(model: str) -> dict[str, Run]:
    """Return for each path the run of a model with the most tokens per joule."""
    best: dict[str, Run] = {}
    for run in runs():
        if run.model == model and run.path is not None and run.tokens_per_joule is not None:
            best[run.path] = max(best.get(run.path, run), run, key=_per_joule)
    return best


def _per_joule(run: Run) -> float:
    return run.tokens_per_joule or 0.0


# --- quantization ----------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodQuality:
    """What a quantization method leaves of a model's quality.

    Attributes
    ----------
    model, method
        As the source names them; ``method`` is ``FP16`` or ``BFloat16`` for the original.
    bits
        Nominal bits per weight, without scales.
    metric
        What was measured, and how. Only rows of one metric can be compared.
    value
        In the metric's unit.
    note, source
        What to know about the row, and where it stands.
    """

    model: str
    method: str
    bits: int
    metric: str
    value: float
    note: str
    source: str

    @property
    def higher_is_better(self) -> bool:
        """Whether the metric is a score (MMLU), not a perplexity."""
        return "PPL" not in self.metric


@dataclass(frozen=True)
class Divergence:
    """A llama.cpp file type against the F16 file of the same model.

    Attributes
    ----------
    model, quant
        Model, and file type as llama.cpp writes it, such as ``Q4_K_M``.
    perplexity
        As published.
    perplexity_ratio
        Perplexity over that of F16.
    kl_divergence
        Mean KL(F16 ‖ file) in nats per token.
    same_top
        Share of positions with F16's most likely token, 0 to 1.
    note, source
        What to know about the row, and where it stands.
    """

    model: str
    quant: str
    perplexity: float
    perplexity_ratio: float
    kl_divergence: float
    same_top: float
    note: str
    source: str

    @property
    def perplexity_by_ratio(self) -> float:
        """Perplexity that the ratio asks for, with F16's from the model's other rows."""
        return self.perplexity_ratio * _f16_perplexity(self.model)

    @property
    def is_consistent(self) -> bool:
        """Whether perplexity and ratio agree to 0.5 %; where not, trust the ratio.

        It finds one misprint: Llama 2's Q2_K carries the perplexity of F16.
        """
        return math.isclose(self.perplexity, self.perplexity_by_ratio, rel_tol=0.005)


@dataclass(frozen=True)
class File:
    """A llama.cpp file: what it takes, and how good and how fast it is.

    Attributes
    ----------
    model, quant
        Model and file type.
    file_bytes, perplexity
        ``None`` where the source does not say.
    corpus
        Text and context of the perplexity; only rows of one corpus can be compared.
    milliseconds_per_token
        By device, where it was measured: decode at batch 1.
    source
        Where the row stands.
    """

    model: str
    quant: str
    file_bytes: int | None
    perplexity: float | None
    corpus: str
    milliseconds_per_token: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class AwqLatency:
    """One model in FP16 and as AWQ with 4 bits (TinyChat), at batch 1.

    Attributes
    ----------
    device, model
        As the source names them.
    fp16_seconds, awq_seconds
        For each token; ``fp16_seconds`` is ``None`` where FP16 does not fit the memory.
    note, source
        How it was measured, and where the row stands.
    """

    device: str
    model: str
    fp16_seconds: float | None
    awq_seconds: float
    note: str
    source: str

    @property
    def speedup(self) -> float | None:
        """FP16's time over AWQ's."""
        return None if self.fp16_seconds is None else self.fp16_seconds / self.awq_seconds


@dataclass(frozen=True)
class ExllamaSpeed:
    """Decode speed of one model under ExLlamaV2.

    Attributes
    ----------
    device, model, size
        As the source names them; ``size`` such as ``7B``.
    mode
        ``GPTQ``, or ``EXL2`` with its bits per weight.
    bits_per_weight
        Of an EXL2 file; ``None`` for GPTQ, where the source does not say.
    group_size, act_order
        Of a GPTQ file, else ``None``.
    tokens_per_second
        While writing, at batch 1.
    source
        Where the row stands.
    """

    device: str
    model: str
    size: str
    mode: str
    bits_per_weight: float | None
    group_size: int | None
    act_order: bool | None
    tokens_per_second: float
    source: str


@functools.cache
def method_qualities() -> tuple[MethodQuality, ...]:
    """Return what GPTQ, AWQ and 4-bit number formats cost, on models from 7B to 70B."""
    return tuple(
        MethodQuality(
            model=row["model"],
            method=row["method"],
            bits=int(row["bits"]),
            metric=row["metric"],
            value=float(row["value"]),
            note=row["note"],
            source=row["source"],
        )
        for row in _rows("quant_methods_quality")
    )


@functools.cache
def divergences() -> tuple[Divergence, ...]:
    """Return llama.cpp's perplexities and KL divergences of Llama 2 7B and Llama 3 8B."""
    return tuple(
        Divergence(
            model=row["model"],
            quant=_file_type(row["quant"]),
            perplexity=float(row["mean_ppl"]),
            perplexity_ratio=float(row["ppl_ratio_vs_fp16"]),
            kl_divergence=float(row["mean_kld"]),
            same_top=float(row["same_top_p_pct"]) / 100,
            note=row["note"],
            source=row["source"],
        )
        for row in _rows("llamacpp_perplexity_llama2_vs_3")
    )


@functools.cache
def files() -> tuple[File, ...]:
    """Return llama.cpp files of LLaMA 7B to 65B, Llama 2 70B and Llama 3 70B.

    Those of the first LLaMA date from June 2023, when the K-quants came: their sizes and
    perplexities hold, but not their speeds. Some sizes and perplexities are missing, and the sizes
    of F16 are rounded up to whole GiB.
    """
    large = [
        File(
            model=row["model"],
            quant=_file_type(row["quant"]),
            file_bytes=round(float(row["size_gib"]) * units.GIB),
            perplexity=float(row["ppl"]),
            corpus=row["corpus"],
            milliseconds_per_token=MappingProxyType({}),
            source=row["source"],
        )
        for row in _rows("perplexity_70b")
    ]
    return (*_first_llamas(), *large)


@functools.cache
def awq_latencies() -> tuple[AwqLatency, ...]:
    """Return the time for each token in FP16 and with AWQ, on two cards and a Jetson."""
    return tuple(
        AwqLatency(
            device=row["device"],
            model=row["model"],
            fp16_seconds=_unless_out_of_memory(row["fp16_ms_per_token"]),
            awq_seconds=float(row["awq_int4_ms_per_token"]) / 1000,
            note=row["note"],
            source=row["source"],
        )
        for row in _rows("awq_tinychat_latency")
    )


@functools.cache
def exllama_speeds() -> tuple[ExllamaSpeed, ...]:
    """Return decode speeds of GPTQ and EXL2 files under ExLlamaV2, on two cards."""
    return tuple(_exllama_speed(row) for row in _rows("exllamav2_speed"))


def _first_llamas() -> tuple[File, ...]:
    # The table has one row for each figure; those of one file belong together.
    grouped: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows("llamacpp_kquants_pr1684"):
        grouped.setdefault((row["model"], row["quant"]), []).append(row)
    found = []
    for (model, quant), rows in grouped.items():
        values = {row["measure"]: float(row["value"]) for row in rows}
        size = values.get("file_size")
        times = {
            _KQUANTS_DEVICES[name]: value
            for name, value in values.items()
            if name in _KQUANTS_DEVICES
        }
        found.append(
            File(
                model=model,
                quant=_file_type(quant),
                file_bytes=None if size is None else round(size * units.GIB),
                perplexity=values.get("perplexity"),
                corpus="wikitext-2, context 512",
                milliseconds_per_token=MappingProxyType(times),
                source=rows[0]["source"],
            )
        )
    return tuple(found)


_KQUANTS_DEVICES = {
    "ms_per_tok_M2Max_4th": "M2 Max, 4 threads",
    "ms_per_tok_M2Max_8th": "M2 Max, 8 threads",
    "ms_per_tok_RTX4080": "RTX 4080",
    "ms_per_tok_Ryzen7950X_4th": "Ryzen 7950X, 4 threads",
}


@functools.cache
def _f16_perplexity(model: str) -> float:
    # The median: one misprinted row of several does not move it.
    ratios = [one.perplexity / one.perplexity_ratio for one in divergences() if one.model == model]
    return statistics.median(ratios)


def _exllama_speed(row: dict[str, str]) -> ExllamaSpeed:
    mode, _, bits = row["mode"].partition(" ")
    group, _, act = row["grp_act"].partition(" ")
    return ExllamaSpeed(
        device=row["device"],
        model=row["model"],
        size=row["size"],
        mode=row["mode"],
        bits_per_weight=float(bits.removesuffix("bpw")) if mode == "EXL2" else None,
        group_size=int(group) if group else None,
        act_order={"yes": True, "no": False}.get(act),
        tokens_per_second=float(row["tok_s"]),
        source=row["source"],
    )


def _unless_out_of_memory(milliseconds: str) -> float | None:
    return None if milliseconds == "OOM" else float(milliseconds) / 1000


def _file_type(name: str) -> str:
    """Return a file type as llama.cpp writes it: the tables say ``q4_K_M`` and ``fp16`` too."""
    return {"FP16": "F16"}.get(name.upper(), name.upper())


# --- attention -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSpeed:
    """How fast a GPT is trained with one kind of attention.

    Attributes
    ----------
    gpu, model
        As the source names them; the figure is for one of eight GPUs.
    context
        Tokens in a sequence.
    method
        ``no FlashAttention``, ``FlashAttention`` or ``FlashAttention-2``.
    flops
        FLOP/s for each GPU, forward and backward through the whole model.
    source
        Where the row stands.
    """

    gpu: str
    model: str
    context: int
    method: str
    flops: float
    source: str


@functools.cache
def training_speeds() -> tuple[TrainingSpeed, ...]:
    """Return table 1 of the FlashAttention-2 paper: GPT training on eight A100."""
    return tuple(
        TrainingSpeed(
            gpu=row["gpu"],
            model=row["model"],
            context=int(row["context"].removesuffix("k")) * 1024,
            method=row["method"],
            flops=float(row["tflops"]) * 1e12,
            source=row["source"],
        )
        for row in _rows("flashattention2_table1")
    )


def _rows(table: str) -> list[dict[str, str]]:
    path = resources.files("guidebook.catalog").joinpath(f"reference/{table}.csv")
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))
