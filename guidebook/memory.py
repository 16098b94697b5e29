"""Memory that running a model takes: weights, caches, compute buffers and the runtime itself.

The figures follow what llama.cpp allocates. Its own report is the test for them; see
:mod:`guidebook.measure.allocation`.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook import compute_graph, units
from guidebook.architecture import Architecture

if TYPE_CHECKING:
    from guidebook.weights import WeightAccount

# Bytes of a number in the cache: block bytes over numbers in a block (ggml-common.h).
_BYTES_PER_NUMBER = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
# llama.cpp rounds contexts up to this (GGML_PAD in llama-context.cpp, llama-kv-cache-iswa.cpp).
_CONTEXT_STEP = 256
_ALIGNMENT = {"CPU": 32, "Metal": 32, "CUDA": 128, "ROCm": 128, "Vulkan": 128}
_ROTATION = 64  # smallest side of the rotation before quantizing (llama-kv-cache.cpp)

# What a process takes on a device besides llama.cpp's buffers.
_CPU_BYTES = 64 * units.MIB
_CUDA_CONTEXT_BYTES = 300 * units.MIB
_CUDA_CONTEXT_BYTES_PER_MULTIPROCESSOR = 3 * units.MIB
_CUBLAS_BYTES = 4 * units.MIB
_CUBLAS_BYTES_FROM_HOPPER = 32 * units.MIB
_METAL_BYTES = 64 * units.MIB
_OTHER_GPU_BYTES = 300 * units.MIB
_HOPPER = 9.0


# --- caches ----------------------------------------------------------------------------------


def kv_types(kv_type: str) -> tuple[str, str]:
    """Return the types of keys and values: of ``"q8_0"`` twice q8_0, of ``"q8_0/f16"`` both.

    Raises
    ------
    ValueError
        llama.cpp keeps no cache of that type.
    """
    key, _, value = kv_type.lower().partition("/")
    pair = (key, value or key)
    for kind in pair:
        if kind not in _BYTES_PER_NUMBER:
            raise ValueError(
                f"There is no cache of type {kind!r}. Use one of {', '.join(_BYTES_PER_NUMBER)}, "
                "or two of them for keys and values: 'q8_0/f16'."
            )
    return pair


def kv_bytes_per_element(kv_type: str) -> float:
    """Return the bytes of one number of the cache, on average over keys and values."""
    k_type, v_type = kv_types(kv_type)
    return (_BYTES_PER_NUMBER[k_type] + _BYTES_PER_NUMBER[v_type]) / 2


def padded_context(n_ctx: int) -> int:
    """Return the context that llama.cpp makes of ``n_ctx``: the next multiple of 256.

    Raises
    ------
    ValueError
        ``n_ctx`` is not positive.
    """
    if n_ctx <= 0:
        raise ValueError(f"A context of {n_ctx} tokens holds nothing. Give a positive number.")
    return _padded(n_ctx)


def window_cells(
    architecture: Architecture, n_tokens: int, n_ubatch: int = 512, n_sequences: int = 1
) -> int:
    """Return how many tokens the cache of a sliding-window layer holds.

    The window of every sequence and the batch that is being computed, rounded up, but never more
    than the context. Source: llama-kv-cache-iswa.cpp.
    """
    return min(n_tokens, _padded(architecture.sliding_window * n_sequences + n_ubatch))


def kv_cache_bytes(
    architecture: Architecture,
    n_tokens: int,
    kv_type: str = "f16",
    *,
    n_ubatch: int = 512,
    n_sequences: int = 1,
    full_window_cache: bool = False,
) -> int:
    """Return the size of the KV cache in bytes.

    Every layer with attention keeps one key and one value vector per token and key/value head:
    ``2 × layers × KV heads × head size × tokens × bytes per number`` for a plain model. Latent
    attention keeps one compressed row instead of both. Window layers keep their window. Recurrent
    layers keep nothing here; see :func:`recurrent_bytes`.

    Parameters
    ----------
    architecture
        The model's shape.
    n_tokens
        Tokens that the cache has room for, of all sequences together. llama.cpp rounds a context
        up with :func:`padded_context` first.
    kv_type
        ``"f16"`` as llama.cpp does by default, ``"q8_0"``, …; ``"q8_0/f16"`` for keys/values.
    n_ubatch, n_sequences
        Tokens computed at once, and sequences; they matter for window layers only.
    full_window_cache
        Window layers keep the whole context too (llama.cpp's ``--swa-full``, and the default of
        ``llama_cpp.Llama``).

    Raises
    ------
    ValueError
        ``n_tokens`` is negative, or the type is unknown.
    """
    if n_tokens < 0:
        raise ValueError(f"A context cannot hold {n_tokens} tokens.")
    a = architecture
    k_bytes, v_bytes = (_BYTES_PER_NUMBER[kind] for kind in kv_types(kv_type))
    if a.is_mla:
        row = (a.kv_lora_rank + a.rope_head_size) * k_bytes
        return round(a.n_attention_layers * n_tokens * row)
    row = a.n_kv_heads * (a.head_size * k_bytes + a.v_head_size * v_bytes)
    window_row = (a.window_kv_heads or a.n_kv_heads) * (
        (a.window_head_size or a.head_size) * k_bytes
        + (a.window_head_size or a.v_head_size) * v_bytes
    )
    cells = n_tokens if full_window_cache else window_cells(a, n_tokens, n_ubatch, n_sequences)
    return round(a.n_full_layers * n_tokens * row + a.n_window_layers * cells * window_row)


def recurrent_bytes(architecture: Architecture, n_sequences: int = 1) -> int:
    """Return the size of the states of all recurrent layers, whatever the context length."""
    return architecture.n_recurrent_layers * architecture.recurrent_state_bytes * n_sequences


# --- compute buffers -------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def compute_bytes(
    architecture: Architecture,
    n_ctx: int,
    n_ubatch: int = 512,
    flash_attention: bool = True,
    kv_type: str = "f16",
    backend: str = "CPU",
    *,
    n_outputs: int | None = None,
    n_sequences: int = 1,
    full_window_cache: bool = False,
) -> int:
    """Return the size of the buffer for intermediate results, on the device that computes.

    Parameters
    ----------
    architecture
        The model's shape.
    n_ctx
        Context length; rounded up as llama.cpp does.
    n_ubatch
        Tokens computed at once (llama.cpp's ``--ubatch-size``).
    flash_attention
        Without it, the scores of every head are written out.
    kv_type
        As for :func:`kv_cache_bytes`. A GPU makes a 16-bit copy of one layer's quantized cache.
    backend
        ``CPU``, ``CUDA``, ``ROCm``, ``Metal`` or ``Vulkan``. Only ``CPU`` is tested against
        llama.cpp's report; the others follow their source.
    n_outputs
        Rows of logits; None: one per token, as llama-cpp-python and llama-bench do. llama-server
        asks for one per sequence.
    n_sequences, full_window_cache
        As for :func:`kv_cache_bytes`.

    Raises
    ------
    ValueError
        A number is not positive, the type or the backend is unknown.
    """
    if backend not in _ALIGNMENT:
        raise ValueError(f"Unknown backend {backend!r}. Use one of {', '.join(_ALIGNMENT)}.")
    if n_ubatch <= 0:
        raise ValueError(f"A batch of {n_ubatch} tokens computes nothing. Give a positive number.")
    a = architecture
    k_type, v_type = kv_types(kv_type)
    cells = padded_context(n_ctx)
    n_tokens = min(n_ubatch, n_ctx)
    window = 0
    if a.n_window_layers:
        window = cells if full_window_cache else window_cells(a, cells, n_ubatch, n_sequences)
    quantized_k, quantized_v = (_BYTES_PER_NUMBER[kind] < 2 for kind in (k_type, v_type))
    # Metal reserves the copy for any cache (ggml-metal-ops.cpp, "always reserve").
    copies = backend != "CPU"
    shape = compute_graph.Shape(
        n_tokens=n_tokens,
        n_outputs=min(n_outputs or n_tokens, n_tokens),
        n_kv=cells,
        n_kv_window=window,
        flash_attention=flash_attention,
        rotate_k=_largest_rotation(a.head_size) if quantized_k and not a.is_mla else 0,
        rotate_v=_smallest_rotation(a.v_head_size) if quantized_v and not a.is_mla else 0,
        copy_k=copies and (quantized_k or backend == "Metal"),
        copy_v=copies and (quantized_v or backend == "Metal"),
        host_embedding=backend != "CPU",
        alignment=_ALIGNMENT[backend],
    )
    return compute_graph.peak_bytes(a, shape)


def host_compute_bytes(
    architecture: Architecture, n_ctx: int, n_ubatch: int = 512, flash_attention: bool = True
) -> int:
    """Return the host's compute buffer when a GPU computes: the inputs, and looked-up embeddings.

    llama.cpp looks tokens up in the embedding table on the CPU, and fills in masks there.
    """
    n_tokens = min(n_ubatch, n_ctx)
    mask_bytes = 2 if flash_attention else 4
    cells = padded_context(n_ctx)
    masks = cells * bool(architecture.n_full_layers)
    if architecture.n_window_layers:
        masks += window_cells(architecture, cells, n_ubatch)
    return n_tokens * (2 * 4 * architecture.hidden_size + masks * mask_bytes)


def output_bytes(architecture: Architecture, n_sequences: int = 1) -> int:
    """Return the size of the buffer that logits are handed out in: one row per sequence."""
    return architecture.n_vocab * n_sequences * 4


# --- runtime ---------------------------------------------------------------------------------


def overhead_bytes(
    backend: str, *, compute_capability: float | None = None, multiprocessors: int | None = None
) -> int:
    """Return what the runtime takes on a device besides the model's buffers.

    ========  ==========================================================================
    CPU       64 MiB. Measured: Python with llama.cpp loaded 41 MiB, vocabulary and graph
              of the embedded model 19 MiB (Linux, llama-cpp-python 0.3.36).
    CUDA      Context: 3 MiB per multiprocessor, from 107 MiB on an RTX 4060 Ti (34) and
              555 MiB on an RTX PRO 6000 Blackwell (188), reported in llama.cpp pull
              request 23604 (2026-05); 300 MiB where their number is unknown. cuBLAS
              workspace: 4 MiB, from Hopper on 32 MiB (ggml-cuda/common.cuh).
    Metal     64 MiB. Unverified.
    ROCm      300 MiB. Unverified: taken from CUDA.
    Vulkan    300 MiB. Unverified: taken from CUDA.
    ========  ==========================================================================

    Parameters
    ----------
    backend
        As for :func:`compute_bytes`.
    compute_capability, multiprocessors
        Of an NVIDIA card, where known.

    Raises
    ------
    ValueError
        The backend is unknown.
    """
    match backend:
        case "CPU":
            return _CPU_BYTES
        case "CUDA":
            context = _CUDA_CONTEXT_BYTES
            if multiprocessors is not None:
                context = multiprocessors * _CUDA_CONTEXT_BYTES_PER_MULTIPROCESSOR
            is_new = compute_capability is not None and compute_capability >= _HOPPER
            return context + (_CUBLAS_BYTES_FROM_HOPPER if is_new else _CUBLAS_BYTES)
        case "Metal":
            return _METAL_BYTES
        case "ROCm" | "Vulkan":
            return _OTHER_GPU_BYTES
    raise ValueError(f"Unknown backend {backend!r}. Use one of {', '.join(_ALIGNMENT)}.")


# --- together --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Bytes on the GPU, and in the host's memory."""

    device_bytes: int
    host_bytes: int


@dataclass(frozen=True)
class InferenceMemory:
    """What running a model takes, in bytes.

    Attributes
    ----------
    weights_bytes
        All tensors, once.
    kv_cache_bytes, recurrent_bytes
        Keys and values of attention; states of recurrent layers.
    compute_bytes
        Intermediate results of one batch, and the logits that are handed out.
    overhead_bytes
        The runtime itself.
    """

    weights_bytes: int
    kv_cache_bytes: int
    recurrent_bytes: int
    compute_bytes: int
    overhead_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return (
            self.weights_bytes
            + self.kv_cache_bytes
            + self.recurrent_bytes
            + self.compute_bytes
            + self.overhead_bytes
        )


def inference(
    architecture: Architecture,
    weights: WeightAccount,
    n_ctx: int,
    *,
    n_ubatch: int = 512,
    flash_attention: bool = True,
    kv_type: str = "f16",
    backend: str = "CPU",
    n_outputs: int | None = None,
    n_sequences: int = 1,
    full_window_cache: bool = False,
    compute_capability: float | None = None,
    multiprocessors: int | None = None,
) -> InferenceMemory:
    """Add up what running a model takes on one device that holds all of it.

    On a GPU the weights are what is offloaded: the input table stays in the host's memory, and a
    tied one is on both sides (:func:`device_weights_bytes`).

    Parameters are those of :func:`kv_cache_bytes`, :func:`compute_bytes` and
    :func:`overhead_bytes`.

    Raises
    ------
    ValueError
        A number is not positive, the type or the backend is unknown, or the values' cache is
        quantized without flash attention, which llama.cpp refuses.
    """
    check_cache(kv_type, flash_attention)
    cells = padded_context(n_ctx)
    on_host = backend == "CPU"
    return InferenceMemory(
        weights_bytes=weights.total_bytes if on_host else weights.offloaded_bytes,
        kv_cache_bytes=kv_cache_bytes(
            architecture,
            cells,
            kv_type,
            n_ubatch=n_ubatch,
            n_sequences=n_sequences,
            full_window_cache=full_window_cache,
        ),
        recurrent_bytes=recurrent_bytes(architecture, n_sequences),
        compute_bytes=compute_bytes(
            architecture,
            n_ctx,
            n_ubatch,
            flash_attention,
            kv_type,
            backend,
            n_outputs=n_outputs,
            n_sequences=n_sequences,
            full_window_cache=full_window_cache,
        )
        + (output_bytes(architecture, n_sequences) if on_host else 0),
        overhead_bytes=overhead_bytes(
            backend, compute_capability=compute_capability, multiprocessors=multiprocessors
        ),
    )


def check_cache(kv_type: str, flash_attention: bool) -> None:
    """Refuse what llama.cpp refuses: a quantized cache of values without flash attention.

    Raises
    ------
    ValueError
        It is one, or the type is unknown.
    """
    _, v_type = kv_types(kv_type)
    if not flash_attention and _BYTES_PER_NUMBER[v_type] < 2:
        raise ValueError(
            f"llama.cpp keeps values in {v_type} with flash attention only. Turn it on, or keep "
            f"them in f16: '{kv_types(kv_type)[0]}/f16'."
        )


def device_weights_bytes(
    account: WeightAccount,
    n_gpu_layers: int,
    n_layers: int,
    tied: bool | None = None,
    *,
    n_cpu_moe: int = 0,
    expert_layers: Sequence[int] = (),
) -> Split:
    """Split a model's weights between GPU and host as llama.cpp does.

    The first layer that is offloaded is the output matrix, then layers from the last to the
    first; all are offloaded with ``n_gpu_layers`` above ``n_layers``. The input table stays on
    the host always. A tied one is copied to the GPU as output matrix, and is then on both sides.
    Layers count as equally large, and so do the experts of those that have some.

    Parameters
    ----------
    account
        The model's weights.
    n_gpu_layers
        As given to llama.cpp.
    n_layers
        Layers of the model.
    tied
        Whether input and output share a table; None: as the account says.
    n_cpu_moe
        The experts of so many layers, counted from the first, stay on the host (llama.cpp's
        ``--n-cpu-moe``).
    expert_layers
        Numbers of the layers with experts, rising (:func:`guidebook.fit.expert_layers`). Empty:
        experts are spread over all layers, and none stay.

    Raises
    ------
    ValueError
        ``n_gpu_layers`` is negative.
    """
    if n_gpu_layers < 0:
        raise ValueError(f"{n_gpu_layers} layers cannot be offloaded. Give 0 or more.")
    if n_gpu_layers == 0:
        return Split(0, account.total_bytes)
    is_tied = account.tied_embeddings if tied is None else tied
    repeating = min(n_gpu_layers - 1, n_layers)
    experts = account.expert_bytes if expert_layers else 0
    held = experts_between(expert_layers, max(n_layers - repeating, n_cpu_moe), n_layers)
    layers = round(
        (account.layer_bytes - experts) * repeating / n_layers
        + experts * held / max(1, len(expert_layers))
    )
    output = account.output_bytes + (account.embedding_bytes if is_tied else 0)
    return Split(
        device_bytes=layers + output,
        host_bytes=account.embedding_bytes + account.layer_bytes - layers,
    )


def experts_between(expert_layers: Sequence[int], first: int, end: int) -> int:
    """Return how many layers with experts lie from layer ``first`` to before ``end``."""
    found = bisect.bisect_left(expert_layers, end) - bisect.bisect_left(expert_layers, first)
    return max(0, found)


def _padded(n: int) -> int:
    return -(-n // _CONTEXT_STEP) * _CONTEXT_STEP


def _smallest_rotation(head_size: int) -> int:
    return 0 if head_size % _ROTATION else _ROTATION


def _largest_rotation(head_size: int) -> int:
    side = _smallest_rotation(head_size)
    while side and head_size % (2 * side) == 0:
        side *= 2
    return side
