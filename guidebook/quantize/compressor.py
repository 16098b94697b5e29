"""llm-compressor made fit for a chapter: silent, on a processor too, and nothing left behind.

A chapter calls llm-compressor itself, in sight of the reader, inside :func:`session`::

    with compressor.session():
        from llmcompressor import oneshot  # importing it is noisy too

        oneshot(model=model, recipe=recipe, dataset=compressor.calibration_set(tokens))
        compressor.save(model, tokenizer, folder)

:func:`stored` then says what the folder holds.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

# Both log through loguru, each under its own name.
_TALKERS = ("llmcompressor", "compressed_tensors")
_QUIET = {
    # Read when llm-compressor is first imported. LLM_COMPRESSOR_LOG_DISABLED would do more than
    # that: it leaves out the log level "METRIC", and GPTQ then ends with a ValueError.
    "LLM_COMPRESSOR_LOG_LEVEL": "CRITICAL",
    # llm-compressor would set it for the rest of the process, and warn that it did.
    "TOKENIZERS_PARALLELISM": "false",
}
_PACKED = "weight_packed"


class CompressorError(RuntimeError):
    """llm-compressor could not do what was asked; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of the library.
        return [f"CompressorError: {self}"]


@dataclass(frozen=True)
class Stored:
    """What a checkpoint holds on disk.

    Attributes
    ----------
    n_packed
        Weights in matrices that were quantized.
    packed_bytes
        Their integers, with scales and zero points.
    other_bytes
        Everything that was not quantized: embeddings, norms, often the output matrix.
    """

    n_packed: int
    packed_bytes: int
    other_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything together, without the files' headers."""
        return self.packed_bytes + self.other_bytes

    @property
    def packed_bits(self) -> float | None:
        """Bits per quantized weight, scales and zero points included; ``None`` without any."""
        return 8 * self.packed_bytes / self.n_packed if self.n_packed else None


@contextmanager
def session() -> Iterator[None]:
    """Let llm-compressor work in silence, and on a machine without a GPU.

    Inside, nothing logs, warns or draws progress bars, not even while it is imported. Afterwards
    everything speaks as before, and the model is forgotten: llm-compressor's global session and
    PyTorch's list of wrapped functions would keep it in memory.

    llm-compressor 0.14 asks for pinned memory in AWQ's search, which PyTorch refuses where there
    is no GPU (https://github.com/vllm-project/llm-compressor/pull/2813 brought the call, and no
    option leaves it out). Pinned memory only speeds up copies to a GPU, so without one the call
    does nothing here.

    Raises
    ------
    CompressorError
        llm-compressor is not installed, a matrix cannot be cut into groups of the wanted size, or
        the memory is full.
    """
    import torch

    gc.collect()  # models refer to themselves: the last one is garbage, but still there
    with _silence():
        try:
            from llmcompressor.core import active_session
            from llmcompressor.pipelines.cache import IntermediatesCache
        except ImportError as error:
            raise CompressorError(
                "llm-compressor is not installed. Run: pip install llmcompressor"
            ) from error
        library: Any = active_session()
        pinning = mock.patch.object(IntermediatesCache, "pin_memory", _do_nothing)
        unless_gpu = nullcontext() if torch.accelerator.is_available() else pinning
        with unless_gpu, _forgotten_wraps():
            try:
                yield
            except (ValueError, RuntimeError, MemoryError) as error:
                reason = _reason(error)
                if reason is None:
                    raise
                raise CompressorError(reason) from error
            finally:
                library.reset()


def calibration_set(
    tokens: Sequence[int], *, length: int = 256, count: int = 8, batch_size: int = 8
) -> DataLoader[dict[str, Any]]:
    """Cut the first ``count`` windows of ``length`` tokens, in the form that ``oneshot`` takes.

    Up to ``batch_size`` windows go through the model together: fewer, larger products are faster.

    Raises
    ------
    CompressorError
        The text is too short, or a count is not positive.
    """
    import torch
    from torch.utils.data import DataLoader

    if length < 1 or count < 1:
        raise CompressorError("Calibration needs at least one window of at least one token.")
    if len(tokens) < length * count:
        raise CompressorError(
            f"The calibration text has {len(tokens)} tokens; {count} windows of {length} need "
            f"{length * count}. Take fewer windows or a longer text."
        )
    cut = [tokens[start : start + length] for start in range(0, length * count, length)]
    windows: Any = [{"input_ids": torch.tensor(window)} for window in cut]
    return DataLoader(windows, batch_size=batch_size)


def save(model: Any, tokenizer: Any, folder: Path) -> None:  # noqa: ANN401 - transformers' classes
    """Save what ``oneshot`` made of a model, inside a :func:`session`, in the usual 16 bits.

    On a processor a model is calibrated in 32 bits, and llm-compressor would save it so: the
    embedding and the scales would take twice the usual room. Casting to 16 bits first would change
    the integers, since they are only computed while saving. So the integers come first, then the
    cast. The model is left as it was saved.
    """
    library: Any = import_module("compressed_tensors.compressors")  # it has no types
    library.ModelCompressor.from_pretrained_model(model).compress_model(model)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def stored(folder: Path) -> Stored:
    """Add up what a checkpoint's safetensors files hold, from their headers.

    Quantized matrices are those that compressed-tensors packed; scales and zero points beside them
    count as theirs.

    Raises
    ------
    CompressorError
        The folder holds no safetensors file.
    """
    headers = [_header(path) for path in sorted(folder.glob("*.safetensors"))]
    if not headers:
        raise CompressorError(
            f"There is no safetensors file in {folder.name}. Save the model there first."
        )
    tensors = {name: entry for header in headers for name, entry in header.items()}
    matrices = {name.removesuffix(_PACKED) for name in tensors if name.endswith(_PACKED)}
    n_packed = packed = other = 0
    for name, entry in tensors.items():
        start, end = entry["data_offsets"]
        if name.rpartition(".")[0] + "." in matrices:
            packed += end - start
            if name.endswith(_PACKED):
                n_packed += _n_weights(entry["shape"], _bits(folder))
        else:
            other += end - start
    return Stored(n_packed, packed, other)


# --- silence ---------------------------------------------------------------------------------


@contextmanager
def _silence() -> Iterator[None]:
    from loguru import logger
    from tqdm.std import tqdm

    draw = tqdm.__init__

    def never_draw(bar: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401
        draw(bar, *args, **options | {"disable": True})

    heard = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    for name in _TALKERS:
        logger.disable(name)
    try:
        with (
            mock.patch.dict(os.environ, _QUIET),
            mock.patch.object(tqdm, "__init__", never_draw),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(heard)
        for name in _TALKERS:
            logger.enable(name)


@contextmanager
def _forgotten_wraps() -> Iterator[None]:
    """Take back what is registered with ``torch.fx.wrap`` inside.

    llm-compressor registers functions that it writes for one model, with the model among their
    globals. PyTorch's list keeps them for good: 0.5 GB with each run on the embedded model.
    """
    from torch.fx import _symbolic_trace

    wrapped: dict[Any, Any] = getattr(_symbolic_trace, "_wrapped_fns_to_patch", {})
    before = set(wrapped)
    try:
        yield
    finally:
        for key in wrapped.keys() - before:
            del wrapped[key]


def _do_nothing(*_: object, **__: object) -> None:
    """Stand in for a method that has nothing to do here."""


# --- small things ----------------------------------------------------------------------------


def _reason(error: BaseException) -> str | None:
    """Return a sentence for the errors that a reader can do something about."""
    text = str(error)
    if isinstance(error, ValueError) and "divisible" in text and "group_size" in text:
        named = text.partition("- ")[2].partition("\n")[0]
        return (
            f"A matrix cannot be cut into groups of that size: {named.strip()}. Take a group_size "
            "that divides the columns of every matrix, such as 64 or 32."
        )
    full = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or any(words in text.lower() for words in full):
        return "The memory is full. Take fewer calibration windows, or a smaller model."
    return None


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header


def _bits(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    groups = config["quantization_config"]["config_groups"].values()
    return int(next(group["weights"]["num_bits"] for group in groups))


def _n_weights(shape: Sequence[int], bits: int) -> int:
    """Return how many weights are packed into 32-bit numbers; rows are filled up to whole ones."""
    rows, columns = shape
    return int(rows) * int(columns) * 32 // bits
