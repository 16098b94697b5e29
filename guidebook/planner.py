"""Answers one question: does this model fit on this hardware, and how fast does it run.

It brings together what a model is (architecture and weights), what that takes (memory, fit) and
how long it takes (speed).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from guidebook import architecture as architectures
from guidebook import fit, memory, speed, units, weights, workload
from guidebook.architecture import Architecture
from guidebook.catalog import hardware, models
from guidebook.catalog.hardware import Device
from guidebook.fit import Fit
from guidebook.speed import Kept, Phase, Prediction, Share
from guidebook.weights import WeightAccount

# Best first; the last is what most people run. Below four bits a smaller model at four bits is
# usually the better choice.
_USUAL_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
# Published with 4-bit experts, and trained for them.
_NATIVE_QUANTS = {"gpt-oss": ("MXFP4",)}
DEFAULT_N_GENERATE = 128
# Where layers lie that the GPU has no room for, if the reader says nothing.
DEFAULT_RAM = "DDR5-5600 dual channel (2x64-bit)"
# llama.cpp's own limit.
_MOST_DEVICES = 16
_ENDLESS = 1 << 60


@dataclass(frozen=True)
class Case:
    """One question; the defaults are llama.cpp's.

    Attributes
    ----------
    hardware
        A name of the hardware catalog.
    architecture
        A name of the model catalog, a ``.gguf`` file, a ``config.json`` or a folder with one.
    quant
        File type of the weights; empty: the usual one (:func:`usual_quants`). A ``.gguf`` file has
        its own.
    weights_bytes
        Size of the real file, where it is known.
    n_devices
        So many of the same device.
    n_prompt, n_generate
        Tokens to read and to write. A prompt without anything to write asks for prefill.
    depth
        Tokens in the context before.
    context
        Context to allocate; None: what the tokens above need.
    flash_attention, kv_type
        As llama.cpp takes them.
    n_gpu_layers
        As llama.cpp counts them; None: as many as fit.
    n_cpu_moe
        The experts of so many layers, counted from the first, stay in RAM (``--n-cpu-moe``).
        None: none where the layers are given or the model fits; else of as few layers as needed,
        if that writes faster than leaving whole layers in RAM.
    kv_offload
        The KV cache lies where its layer does; without (``--no-kv-offload``), in RAM.
    """

    hardware: str
    architecture: str
    quant: str = ""
    weights_bytes: int | None = None
    n_devices: int = 1
    n_prompt: int = 0
    n_generate: int = DEFAULT_N_GENERATE
    depth: int = 0
    context: int | None = None
    flash_attention: bool = True
    kv_type: str = "f16"
    n_gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    kv_offload: bool = True

    @property
    def phase(self) -> Phase:
        """What the speed is asked for."""
        return "prefill" if self.n_prompt and not self.n_generate else "decode"

    @property
    def n_ctx(self) -> int:
        """Context to allocate."""
        return self.context or max(1, self.depth + self.n_prompt + self.n_generate)


@dataclass(frozen=True)
class Answer:
    """What the planner says; None is unknown.

    Attributes
    ----------
    weights_bytes, kv_cache_bytes, compute_bytes, overhead_bytes
        Memory, over all places. The cache includes the states of recurrent layers.
    fits
        Whether it fits as asked: with all layers on the hardware, or ``n_gpu_layers`` of them, and
        with the experts of ``n_cpu_moe`` layers in RAM where that is asked for.
    n_gpu_layers
        Layers on the GPUs, the output matrix counting as one; 0 on a CPU.
    n_cpu_moe
        The experts of so many layers, counted from the first, are in RAM.
    margin_bytes
        Room left in the tightest place with all layers there; negative: what is missing.
    tokens_per_second, low, high
        Predicted speed and its 90 % interval; None where the model cannot run.
    note
        What the reader should know: what was assumed, where the interval comes from.
    """

    weights_bytes: int | None = None
    kv_cache_bytes: int | None = None
    compute_bytes: int | None = None
    overhead_bytes: int | None = None
    fits: bool | None = None
    n_gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    margin_bytes: int | None = None
    tokens_per_second: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def total_bytes(self) -> int | None:
        """All memory together."""
        parts = (
            self.weights_bytes,
            self.kv_cache_bytes,
            self.compute_bytes,
            self.overhead_bytes,
        )
        return None if None in parts else sum(part or 0 for part in parts)


def answer(case: Case, ram: str = DEFAULT_RAM) -> Answer:
    """Answer one question; what cannot be answered says so in ``note``.

    ``ram`` is where layers go that a graphics card has no room for.
    """
    try:
        device = hardware.find(case.hardware)
        architecture, account = model_of(case)
        return predict(device, architecture, account, case, hardware.find(ram))
    except (LookupError, ValueError) as error:
        return Answer(note=str(error.args[0] if error.args else error))


def predict(
    device: Device,
    architecture: Architecture,
    account: WeightAccount,
    case: Case,
    ram: Device,
    ram_bytes: int | None = None,
) -> Answer:
    """Answer a question about a device and a model that are already looked up.

    Parameters
    ----------
    device
        What computes.
    architecture, account
        The model and its weights.
    case
        Settings; its names are not read.
    ram, ram_bytes
        Where the layers go that the device has no room for, and how much of it there is; None:
        enough.

    Raises
    ------
    ValueError
        A setting is out of range, or one that llama.cpp refuses.
    """
    _check(case)
    needed = memory.inference(
        architecture,
        account,
        case.n_ctx,
        flash_attention=case.flash_attention,
        kv_type=case.kv_type,
        backend=device.backend,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
    )
    gpus, host = _places(device, case.n_devices, ram_bytes)

    def predicted(found: Fit, phase: Phase) -> Prediction:
        layers = _layers(case, found)
        return speed.predict(
            _shares(device, ram, case.n_devices, layers / found.n_layers if gpus else 0.0),
            load_of(architecture, account, case),
            phase,
            max(1, case.n_prompt),
            kept=_kept(case, architecture, found, layers, ram),
        )

    setup = _setup(case)
    found = fit.fit(architecture, account, gpus, host, setup)
    is_free = case.n_cpu_moe is None and case.n_gpu_layers is None
    if architecture.is_moe and is_free and not found.fits:
        other = fit.fit(architecture, account, gpus, host, replace(setup, n_cpu_moe=None))
        if other.runs and (
            not found.runs
            # One way to open the model, whatever is asked about it: the one that writes faster.
            or predicted(other, "decode").tokens_per_second
            > predicted(found, "decode").tokens_per_second
        ):
            found = other
    layers = _layers(case, found)
    is_known = device.memory_bytes is not None
    as_asked = found.runs and layers <= found.n_gpu_layers
    fits = found.fits if case.n_gpu_layers is None else as_asked
    notes = list(_notes(case, architecture, device, found, layers, fits, ram))
    prediction = None
    if found.runs:
        prediction = predicted(found, case.phase)
        notes.append(prediction.basis)
    copies = max(1, len(gpus))
    return Answer(
        weights_bytes=account.total_bytes,
        kv_cache_bytes=needed.kv_cache_bytes + needed.recurrent_bytes,
        compute_bytes=needed.compute_bytes * copies,
        overhead_bytes=needed.overhead_bytes * copies,
        fits=fits if is_known else None,
        n_gpu_layers=layers,
        n_cpu_moe=found.n_cpu_moe if gpus else 0,
        margin_bytes=found.margin_bytes if is_known else None,
        tokens_per_second=prediction.tokens_per_second if prediction else None,
        low=prediction.low if prediction else None,
        high=prediction.high if prediction else None,
        note="; ".join(notes),
    )


def changes(case: Case) -> tuple[fit.Step, ...]:
    """Return what to change so that a case fits, in order of least harm; nothing if it does.

    Raises
    ------
    LookupError, ValueError
        As :func:`model_of`; a file's weights cannot be made smaller here.
    """
    device = hardware.find(case.hardware)
    architecture, _ = model_of(case)
    gpus, host = _places(device, case.n_devices, None)
    quant = case.quant or usual_quants(architecture)[-1]
    return fit.advice(architecture, quant, gpus, host, _setup(case))


def model_of(case: Case) -> tuple[Architecture, WeightAccount]:
    """Look a case's model up: by name, or in a file.

    Raises
    ------
    LookupError
        The catalog has no such model or file type.
    ValueError
        The file cannot be read.
    """
    path = Path(case.architecture)
    if path.suffix == ".gguf":
        return _from_gguf(path, _stamp(path))
    if path.suffix == ".json" or path.is_dir():
        config = path if path.suffix == ".json" else path / "config.json"
        shape = _from_config(config, _stamp(config))
    else:
        shape = models.find(case.architecture).architecture
    return shape, weights.account(shape, case.quant or usual_quants(shape)[-1], case.weights_bytes)


def usual_quants(architecture: Architecture) -> tuple[str, ...]:
    """Return the file types that a model is usually run in, the best first."""
    return _NATIVE_QUANTS.get(architecture.name, _USUAL_QUANTS)


def load_of(architecture: Architecture, account: WeightAccount, case: Case) -> workload.Load:
    """Return what a case asks of the hardware, at the middle of what it reads or writes."""
    if case.phase == "prefill":
        depth = case.depth + case.n_prompt / 2
    else:
        depth = case.depth + case.n_prompt + case.n_generate / 2
    return workload.of(
        architecture,
        account,
        depth,
        memory.kv_bytes_per_element(case.kv_type),
        speed.unpacking_work(case.quant),
    )


def place_of(device: Device, *, desktop: bool = False) -> fit.Place:
    """Return what a device offers to a model.

    Parameters
    ----------
    device
        Of the catalog. A kind of RAM has no size; it counts as endless.
    desktop
        A screen draws on the same memory.
    """
    if device.memory_bytes is None:
        usable = _ENDLESS
    else:
        usable = fit.usable_bytes(device.kind, device.memory_bytes, device.backend, desktop=desktop)
    return fit.Place(
        device.name,
        usable,
        device.backend,
        shares_host_memory=device.kind == "unified",
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
    )


def _setup(case: Case) -> fit.Setup:
    return fit.Setup(
        case.n_ctx,
        flash_attention=case.flash_attention,
        kv_type=case.kv_type,
        n_cpu_moe=case.n_cpu_moe or 0,
        kv_offload=case.kv_offload,
    )


def _places(
    device: Device, n_devices: int, ram_bytes: int | None
) -> tuple[tuple[fit.Place, ...], fit.Place | None]:
    usable = _ENDLESS if ram_bytes is None else fit.usable_bytes("ram", ram_bytes, "CPU")
    host = fit.Place("system RAM", usable, "CPU")
    if device.kind == "ram":
        return (), host if device.memory_bytes is None else place_of(device)
    return (place_of(device),) * n_devices, host if device.kind == "discrete" else None


def _layers(case: Case, found: fit.Fit) -> int:
    """Return how many layers go to the GPU: those asked for, or those that fit."""
    if case.n_gpu_layers is None:
        return found.n_gpu_layers if found.runs else found.n_layers
    # Negative means all, as for llama-cpp-python.
    asked = case.n_gpu_layers if case.n_gpu_layers >= 0 else found.n_layers
    return min(asked, found.n_layers)


def _shares(device: Device, ram: Device, n_devices: int, on_gpu: float) -> list[Share]:
    if device.kind == "ram":
        return [Share(device)]
    shares = [Share(device, on_gpu / n_devices)] * n_devices if on_gpu else []
    # The first layers are the ones that stay behind.
    return [Share(ram, 1 - on_gpu), *shares] if on_gpu < 1 else shares


def _kept(
    case: Case, architecture: Architecture, found: Fit, layers: int, ram: Device
) -> Kept | None:
    """Return what the layers on the GPUs keep in RAM, if anything."""
    if not layers:
        return None
    a = architecture
    experts = fit.n_layers_without_experts(a, layers, found.n_cpu_moe)
    cached = 0.0 if case.kv_offload else min(layers - 1, a.n_layers) / a.n_layers
    if not experts and not cached:
        return None
    return Kept(
        ram,
        experts=experts / max(1, a.n_expert_layers),
        expert_layers=experts,
        cache=cached,
        cache_layers=round(a.n_attention_layers * cached),
        flash_attention=case.flash_attention,
    )


def _notes(
    case: Case,
    architecture: Architecture,
    device: Device,
    found: fit.Fit,
    layers: int,
    fits: bool,
    ram: Device,
) -> Iterator[str]:
    if device.memory_bytes is None:
        yield "whether it fits depends on how much RAM there is"
    elif not found.runs:
        yield f"does not run: {units.memory(-found.margin_bytes)} too much, and no other memory"
    elif not found.fits and case.n_gpu_layers is None:
        yield f"does not fit: {units.memory(-found.margin_bytes)} too much"
    elif not fits:
        yield f"does not fit: at most {found.n_gpu_layers} of {found.n_layers} layers do"
    if found.runs and layers < found.n_layers:
        yield f"{layers} of {found.n_layers} layers on the GPU, the others in {ram.name}"
    if found.n_cpu_moe and not architecture.is_moe:
        yield "n_cpu_moe changes nothing: the model has no experts"
    experts = fit.n_layers_without_experts(architecture, layers, found.n_cpu_moe)
    if found.runs and experts:
        yield (
            f"the experts of {experts} layers in {ram.name}, the rest of these layers on the GPU "
            f"(--n-cpu-moe {found.n_cpu_moe})"
        )
    if found.runs and layers and not case.kv_offload:
        does = "copied to the GPU for every token" if case.flash_attention else "read by the CPU"
        yield f"the KV cache in {ram.name}, {does}"
    if case.n_ctx > architecture.context_length:
        yield f"the model was trained for {architecture.context_length:,} tokens"
    if case.phase == "decode" and speed.unpacking_work(case.quant) > 1:
        yield "what unpacking fewer than 4 bits takes is known from one device: a wider range"


def _check(case: Case) -> None:
    for name in ("n_prompt", "n_generate", "depth"):
        if getattr(case, name) < 0:
            raise ValueError(f"{name} is {getattr(case, name)}. Give 0 or more tokens.")
    if case.n_cpu_moe is not None and case.n_cpu_moe < 0:
        raise ValueError(
            f"n_cpu_moe is {case.n_cpu_moe}. Give 0 or more layers, or leave it out for as few "
            "as needed."
        )
    if case.context is not None and case.context < 1:
        raise ValueError(f"A context of {case.context} tokens holds nothing. Give at least 1.")
    if not 1 <= case.n_devices <= _MOST_DEVICES:
        raise ValueError(f"n_devices is {case.n_devices}. Give 1 to {_MOST_DEVICES}.")


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes with a file's content, so that no old content is remembered."""
    try:
        status = path.stat()
    except OSError:
        return None  # Reading it will say what is wrong.
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _from_gguf(path: Path, _: tuple[int, int] | None) -> tuple[Architecture, WeightAccount]:
    from guidebook import gguf_files

    found = gguf_files.inspect(path)
    shape = architectures.from_gguf_metadata(found.metadata, tied_embeddings=found.tied_embeddings)
    return shape, weights.from_gguf(found)


@functools.lru_cache(maxsize=64)
def _from_config(path: Path, _: tuple[int, int] | None) -> Architecture:
    try:
        return architectures.from_config(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
