"""Does a model fit, how many of its layers go to the GPU, and what to change if it doesn't."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guidebook import memory, units, weights
from guidebook.architecture import Architecture

# A card's driver keeps part of the memory: of an RTX 4090's 24,564 MiB CUDA offers 24,077
# (llama.cpp, tools/fit-params/README.md).
_DRIVER_SHARE = 0.02
# What a desktop with a browser commonly draws on. Unverified; a server has none of it.
_DESKTOP_BYTES = 512 * units.MIB
# macOS lets Metal wire two thirds of a small machine's memory and three quarters of a large one's
# (llama.cpp issue 1870: 48 of 64 GB). Newer systems allow more: 11.84 of 16 GiB (llmfit pull
# request 754, 2026-07), 107.5 of 128 GiB (ds4 pull request 893, 2026-08). These are the floor.
_METAL_SHARE_SMALL = 2 / 3
_METAL_SHARE_LARGE = 3 / 4
_METAL_LARGE_BYTES = 36 * units.GIB
# What the operating system and its programs hold of RAM. Unverified, meant to be overridden.
_SYSTEM_SHARE = 0.10
_SYSTEM_LEAST_BYTES = 2 * units.GIB

# Below 4 bits losses grow fast; the chapter on GGUF quantization measures them.
_GOOD_QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
_POOR_QUANTS = ("Q3_K_M", "Q2_K")
_FREE = "nothing"


@dataclass(frozen=True)
class Place:
    """Memory that part of a model can go to.

    Attributes
    ----------
    name
        For tables and reasons.
    usable_bytes
        What a model may take; see :func:`usable_bytes`.
    backend
        ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal``, or ``CPU`` for system RAM.
    shares_host_memory
        The GPU's memory is the machine's memory (Apple silicon, DGX Spark).
    compute_capability, multiprocessors
        Of an NVIDIA card, where known.
    """

    name: str
    usable_bytes: int
    backend: str
    shares_host_memory: bool = False
    compute_capability: float | None = None
    multiprocessors: int | None = None

    @property
    def overhead_bytes(self) -> int:
        """What the runtime takes here."""
        return memory.overhead_bytes(
            self.backend,
            compute_capability=self.compute_capability,
            multiprocessors=self.multiprocessors,
        )


@dataclass(frozen=True)
class Setup:
    """How a model is opened; the defaults are those of llama.cpp's programs.

    Attributes
    ----------
    n_ctx, n_ubatch
        Context, and tokens computed at once.
    flash_attention, kv_type
        As for :func:`guidebook.memory.compute_bytes`.
    n_outputs
        Rows of logits; None: one per token of a batch.
    n_sequences
        Conversations at the same time.
    n_cpu_moe
        The experts of so many layers, counted from the first, stay in RAM (``--n-cpu-moe``).
        None: of as few layers as needed, and none in memory that is shared.
    kv_offload
        The KV cache lies where its layer does; without, all of it is in RAM
        (``--no-kv-offload``).
    """

    n_ctx: int = 4096
    n_ubatch: int = 512
    flash_attention: bool = True
    kv_type: str = "f16"
    n_outputs: int | None = None
    n_sequences: int = 1
    n_cpu_moe: int | None = 0
    kv_offload: bool = True


@dataclass(frozen=True)
class Fit:
    """Whether a model fits, and how much room there is.

    Attributes
    ----------
    fits
        All of it runs where it should: on the GPUs, or in RAM where there is none. What the setup
        itself keeps in RAM, such as the experts of ``n_cpu_moe`` layers, should be there.
    runs
        It runs at all: with some layers on the GPU and the others in RAM.
    margin_bytes
        Room left in the tightest place if all layers are there; negative: what is missing.
    n_gpu_layers
        The most layers that go to the GPUs, the output matrix counting as one, as llama.cpp
        counts them; 0 without a GPU.
    n_layers
        All there are to offload: the model's layers and the output matrix.
    used_bytes
        Bytes per place at ``n_gpu_layers``, the GPUs first and RAM last.
    n_cpu_moe
        The experts of so many layers stay in RAM: the setup's own number, or as few as needed.
    """

    fits: bool
    runs: bool
    margin_bytes: int
    n_gpu_layers: int
    n_layers: int
    used_bytes: tuple[tuple[str, int], ...]
    n_cpu_moe: int = 0


@dataclass(frozen=True)
class Step:
    """One change that saves memory.

    Attributes
    ----------
    change
        What to do, as a phrase.
    cost
        What it costs, as a phrase.
    saved_bytes
        Memory that this change saves, after the ones before it.
    fits
        Whether the model fits with this change and all before it.
    """

    change: str
    cost: str
    saved_bytes: int
    fits: bool


def usable_bytes(kind: str, memory_bytes: int, backend: str, *, desktop: bool = True) -> int:
    """Return what a model may take of a device's memory.

    Parameters
    ----------
    kind
        ``"discrete"``, ``"unified"`` or ``"ram"``, as in the hardware catalog.
    memory_bytes
        The memory it is sold with.
    backend
        Of unified memory: ``Metal`` has a limit of its own, others leave what RAM leaves.
    desktop
        A screen is attached to the discrete card.

    Raises
    ------
    ValueError
        The kind is unknown.
    """
    if kind == "discrete":
        usable = memory_bytes * (1 - _DRIVER_SHARE) - (_DESKTOP_BYTES if desktop else 0)
    elif kind == "unified" and backend == "Metal":
        is_large = memory_bytes > _METAL_LARGE_BYTES
        usable = memory_bytes * (_METAL_SHARE_LARGE if is_large else _METAL_SHARE_SMALL)
    elif kind in ("unified", "ram"):
        usable = memory_bytes - max(_SYSTEM_SHARE * memory_bytes, _SYSTEM_LEAST_BYTES)
    else:
        raise ValueError(f"Unknown kind of memory {kind!r}. Use 'discrete', 'unified' or 'ram'.")
    return max(0, int(usable))


def fit(
    architecture: Architecture,
    account: weights.WeightAccount,
    gpus: Sequence[Place],
    ram: Place | None = None,
    setup: Setup | None = None,
    *,
    margin: int = 0,
) -> Fit:
    """Find out whether a model fits, and how many layers go to the GPUs.

    With several GPUs each gets layers in proportion to its memory, as llama.cpp does by default,
    and each has a compute buffer and a runtime of its own.

    Parameters
    ----------
    architecture, account
        The model and its weights.
    gpus
        Devices that compute; empty: the CPU does.
    ram
        System memory; None: what is not on a GPU has no place, except in memory that is shared.
    setup
        How the model is opened.
    margin
        Bytes to leave free in every place. llama.cpp's own ``--fit`` leaves 1 GiB on each GPU.

    Raises
    ------
    ValueError
        There is neither a GPU nor RAM, or the setup is one that llama.cpp refuses.
    """
    if not gpus and ram is None:
        raise ValueError("Nothing can fit nowhere. Give a GPU, RAM, or both.")
    wanted = setup or Setup()
    memory.check_cache(wanted.kv_type, wanted.flash_attention)
    everything = architecture.n_layers + 1 if gpus else 0
    layers = everything
    in_ram = wanted.n_cpu_moe or 0

    def places() -> list[tuple[str, int, int]]:
        return _use(architecture, account, gpus, ram, wanted, layers, in_ram)

    def fit_in(found: list[tuple[str, int, int]]) -> bool:
        return all(used + margin <= room for _, used, room in found)

    use = places()
    spare = min(room - used - margin for _, used, room in use)
    fits = spare >= 0
    runs = fits
    if not fits and wanted.n_cpu_moe is None and gpus and ram is not None:
        # The first number of layers with which every GPU has room, or else all of them.
        numbers = [layer + 1 for layer in expert_layers(architecture)]
        low, high = 0, len(numbers) - 1
        while low < high:
            middle = (low + high) // 2
            in_ram = numbers[middle]
            if fit_in(places()[: len(gpus)]):
                high = middle
            else:
                low = middle + 1
        in_ram = numbers[high] if numbers else 0
        use = places()
        runs = fit_in(use)
    while not runs and layers > 0:
        layers -= 1
        use = places()
        runs = fit_in(use)
    return Fit(
        fits=fits,
        runs=runs,
        margin_bytes=spare,
        n_gpu_layers=layers if runs else 0,
        n_layers=everything,
        used_bytes=tuple((name, used) for name, used, _ in use),
        n_cpu_moe=in_ram if runs else wanted.n_cpu_moe or 0,
    )


@functools.cache
def expert_layers(architecture: Architecture) -> tuple[int, ...]:
    """Return the numbers of the layers that have experts, rising; none for a dense model."""
    a = architecture
    if a.name == "llama4" and a.n_dense_layers:
        # Experts in every so-and-so-many-th layer (llama.cpp, src/models/llama4.cpp).
        step = a.n_layers // a.n_expert_layers
        return tuple(range(step - 1, a.n_layers, step))
    groups = weights.tensors(a)
    return next((group.layers for group in groups if group.role == "expert_up"), ())


def n_layers_without_experts(architecture: Architecture, n_gpu_layers: int, n_cpu_moe: int) -> int:
    """Return how many layers on a GPU have their experts in RAM."""
    first = architecture.n_layers - max(0, min(n_gpu_layers - 1, architecture.n_layers))
    return memory.experts_between(expert_layers(architecture), first, n_cpu_moe)


def advice(
    architecture: Architecture,
    quant: str,
    gpus: Sequence[Place],
    ram: Place | None = None,
    setup: Setup | None = None,
    *,
    smaller: Sequence[tuple[str, Architecture]] = (),
    least_context: int = 4096,
    margin: int = 0,
) -> tuple[Step, ...]:
    """List what to change so that a model fits, in order of least harm, until it does.

    Flash attention costs nothing. An 8-bit cache, a shorter context and a smaller quantization
    down to 4 bits cost little. Then layers go to RAM, which costs speed, and of a mixture of
    experts only the experts, which costs less of it; then come a 4-bit cache and fewer than 4
    bits, which cost quality; last a smaller model. What turns out not to be needed is left out
    again.

    Parameters
    ----------
    architecture, quant
        The model and its file type, for example ``Q8_0``.
    gpus, ram, setup, margin
        As for :func:`fit`.
    smaller
        Models to fall back to, as name and architecture, the largest first.
    least_context
        Tokens below which the context is not shortened.

    Returns
    -------
    tuple of Step
        Empty if it fits as it is. The last step fits, unless nothing does.
    """

    def measure(choice: _Choice) -> tuple[Fit, int]:
        account = weights.account(choice.architecture, choice.quant)
        found = fit(choice.architecture, account, gpus, ram, choice.setup, margin=margin)
        use = _use(
            choice.architecture,
            account,
            gpus,
            ram,
            choice.setup,
            found.n_layers,
            choice.setup.n_cpu_moe or 0,
        )
        return found, sum(used for _, used, _ in use)

    start = _Choice(architecture, quant, setup or Setup())
    found, before = measure(start)
    if found.fits:
        return ()
    choice = start
    taken: list[_Change] = []
    for change in _changes(start, smaller, least_context, bool(gpus and ram)):
        changed = change.apply(choice)
        found, after = measure(changed)
        if change.offloads:
            if found.runs:
                taken.append(change)
                choice = changed
                break
        elif after < before:
            taken.append(change)
            choice, before = changed, after
            if found.fits:
                break

    # What makes the rest unnecessary goes, the most harmful first; what is free stays. Where
    # layers go to RAM in the end, every change keeps some of them on the GPU.
    if found.fits:
        for change in reversed(taken[:-1]):
            others = [other for other in taken if other is not change]
            if change.cost != _FREE and measure(_all(others, start))[0].fits:
                taken = others
    return _steps(taken, start, measure)


@dataclass(frozen=True)
class _Choice:
    architecture: Architecture
    quant: str
    setup: Setup


@dataclass(frozen=True, eq=False)
class _Change:
    phrase: str
    cost: str
    apply: Callable[[_Choice], _Choice]
    offloads: bool = False


def _changes(
    start: _Choice,
    smaller: Sequence[tuple[str, Architecture]],
    least_context: int,
    can_offload: bool,
) -> Iterator[_Change]:
    def opened(phrase: str, cost: str, **settings: Any) -> _Change:  # noqa: ANN401 - of Setup
        return _Change(
            phrase, cost, lambda choice: replace(choice, setup=replace(choice.setup, **settings))
        )

    def quantized(kind: str, cost: str) -> _Change:
        return _Change(f"quantization {kind}", cost, lambda choice: replace(choice, quant=kind))

    yield opened("flash attention on", _FREE, flash_attention=True)
    if start.setup.kv_type in ("f32", "f16", "bf16"):
        yield opened("KV cache in q8_0", "hardly measurable", kv_type="q8_0")
    n_ctx = start.setup.n_ctx // 2
    while n_ctx >= least_context:
        yield opened(f"context of {n_ctx:,} tokens", "long texts", n_ctx=n_ctx)
        n_ctx //= 2
    for kind in _GOOD_QUANTS:
        yield quantized(kind, "a little quality")
    if can_offload:
        # Without experts this is what it always was: layers go.
        yield replace(opened("some layers in RAM", "speed", n_cpu_moe=None), offloads=True)
    yield opened("KV cache in q4_0", "some quality", kv_type="q4_0")
    for kind in _POOR_QUANTS:
        yield quantized(kind, "much quality")
    for name, shape in smaller:
        yield _Change(f"the smaller model {name}", "ability", _swap(shape))


def _swap(shape: Architecture) -> Callable[[_Choice], _Choice]:
    return lambda choice: replace(choice, architecture=shape, quant=_GOOD_QUANTS[-1])


def _all(changes: Sequence[_Change], start: _Choice) -> _Choice:
    choice = start
    for change in changes:
        choice = change.apply(choice)
    return choice


def _steps(
    changes: Sequence[_Change],
    start: _Choice,
    measure: Callable[[_Choice], tuple[Fit, int]],
) -> tuple[Step, ...]:
    steps = []
    choice = start
    _, before = measure(start)
    for change in changes:
        choice = change.apply(choice)
        found, after = measure(choice)
        if change.offloads:
            phrase = _in_ram(choice.architecture, found)
            steps.append(Step(phrase, change.cost, max(0, -found.margin_bytes), True))
        else:
            steps.append(Step(change.phrase, change.cost, before - after, found.fits))
        before = after
    return tuple(steps)


def _in_ram(architecture: Architecture, found: Fit) -> str:
    """Say what lies in RAM."""
    layers = found.n_layers - found.n_gpu_layers
    whole = f"{layers} of {found.n_layers} layers in RAM"
    kept = n_layers_without_experts(architecture, found.n_gpu_layers, found.n_cpu_moe)
    if not kept:
        return whole
    experts = f"the experts of {kept} layers in RAM (--n-cpu-moe {found.n_cpu_moe})"
    return f"{whole}, and {experts}" if layers else experts


def _use(
    architecture: Architecture,
    account: weights.WeightAccount,
    gpus: Sequence[Place],
    ram: Place | None,
    setup: Setup,
    n_gpu_layers: int,
    n_cpu_moe: int,
) -> list[tuple[str, int, int]]:
    """Return name, used bytes and usable bytes of every place."""
    a = architecture
    cells = memory.padded_context(setup.n_ctx)
    sequences = setup.n_sequences
    caches = memory.kv_cache_bytes(
        a, cells, setup.kv_type, n_ubatch=setup.n_ubatch, n_sequences=sequences
    ) + memory.recurrent_bytes(a, sequences)
    # Without experts to tell apart, all layers count as equally large.
    with_experts = expert_layers(a) if n_cpu_moe else ()
    split = memory.device_weights_bytes(
        account, n_gpu_layers, a.n_layers, n_cpu_moe=n_cpu_moe, expert_layers=with_experts
    )
    repeating = max(0, n_gpu_layers - 1)
    on_gpu = repeating / a.n_layers if setup.kv_offload else 0.0
    host = split.host_bytes + round(caches * (1 - on_gpu)) + memory.output_bytes(a, sequences)
    places: list[tuple[str, int, int]] = []
    if n_gpu_layers:
        experts = account.expert_bytes if with_experts else 0
        per_expert_layer = experts / max(1, len(with_experts))
        per_layer = (account.layer_bytes - experts + caches * setup.kv_offload) / a.n_layers
        output = account.output_bytes + account.embedding_bytes * account.tied_embeddings
        is_partial = repeating < a.n_layers or (
            n_layers_without_experts(a, n_gpu_layers, n_cpu_moe) > 0
        )
        layer_cache = 0 if setup.kv_offload else round(caches / a.n_layers)
        start = a.n_layers - repeating
        for gpu, layers in zip(gpus, _shares(gpus, repeating), strict=True):
            end = start + layers
            held = memory.experts_between(with_experts, max(start, n_cpu_moe), end)
            used = round(per_layer * layers + per_expert_layer * held) + gpu.overhead_bytes
            used += _device_compute(a, account, setup, gpu.backend, is_partial, layer_cache)
            if gpu is gpus[-1]:
                used += output
            places.append((gpu.name, used, gpu.usable_bytes))
            start = end
        if setup.kv_offload or setup.flash_attention:
            host += memory.host_compute_bytes(a, setup.n_ctx, setup.n_ubatch, setup.flash_attention)
        else:
            host += _compute(a, setup, "CPU", 1)
    else:
        places += [(gpu.name, 0, gpu.usable_bytes) for gpu in gpus]
        host += _compute(a, setup, "CPU", setup.n_outputs)
    shared = next((i for i, gpu in enumerate(gpus) if gpu.shares_host_memory), None)
    if shared is not None:
        name, used, room = places[shared]
        places[shared] = (name, used + host, room)
    elif ram is not None:
        places.append((ram.name, host + ram.overhead_bytes, ram.usable_bytes))
    return places


def _compute(a: Architecture, setup: Setup, backend: str, n_outputs: int | None) -> int:
    return memory.compute_bytes(
        a,
        setup.n_ctx,
        setup.n_ubatch,
        setup.flash_attention,
        setup.kv_type,
        backend,
        n_outputs=n_outputs,
        n_sequences=setup.n_sequences,
    )


def _device_compute(
    a: Architecture,
    account: weights.WeightAccount,
    setup: Setup,
    backend: str,
    is_partial: bool,
    layer_cache: int = 0,
) -> int:
    """Return a GPU's compute buffer.

    While some layers are in RAM, llama.cpp copies their matrices to the GPU to read a prompt: two
    of the largest at a time. Checked against one report only: Qwen3-30B-A3B in F16 on an RTX 4090
    (llama.cpp, tools/fit-params/README.md), 898 MiB, here 856.

    With the cache in RAM, flash attention gets a copy of one layer's, ``layer_cache`` bytes;
    without flash attention, no scores are computed here. Checked against a second device that
    llama.cpp took for a GPU: at most 15 % too much.
    """
    if layer_cache and not setup.flash_attention:
        setup = replace(setup, n_ctx=min(setup.n_ctx, setup.n_ubatch))
    whole = _compute(a, setup, backend, setup.n_outputs)
    if layer_cache and setup.flash_attention:
        whole = max(whole, _compute(a, setup, backend, 1) + layer_cache)
    if not is_partial:
        return whole
    if a.is_moe:
        largest = account.expert_bytes / max(1, a.n_expert_layers) / 3
    else:
        share = a.feed_forward_size * a.hidden_size * a.n_layers / account.n_weights
        largest = share * account.total_bytes / a.n_layers
    return max(whole, _compute(a, setup, backend, 1) + round(2 * largest))


def _shares(gpus: Sequence[Place], n_layers: int) -> list[int]:
    """Deal layers out in proportion to usable memory."""
    total = sum(gpu.usable_bytes for gpu in gpus) or 1
    shares = [n_layers * gpu.usable_bytes // total for gpu in gpus]
    for i in range(n_layers - sum(shares)):
        shares[i % len(shares)] += 1
    return shares
