"""GGUF files: look inside, and find out whether one is whole before llama.cpp opens it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_LONG = 4096  # entries of a list in the header; only vocabularies have that many
_TRIAL_SECONDS = 180
_TRIAL = (
    "import sys; from llama_cpp import Llama; "
    "Llama(model_path=sys.argv[1], n_ctx=32, n_gpu_layers=0, verbose=False).close()"
)


class GgufError(ValueError):
    """A file is not a GGUF that can be used; the message names the file and the next step."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file.

    Attributes
    ----------
    name
        llama.cpp's name, for example ``blk.0.attn_q.weight``.
    type
        Storage type, for example ``Q4_K``.
    shape
        Rows first, as in numpy: (outputs, inputs) for a matrix.
    n_bytes
        Size in the file.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says about itself: metadata and tensors, without their data."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def file_bytes(self) -> int:
        """Size of the file on disk."""
        return self.path.stat().st_size

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of all tensors: what has to be in memory."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @cached_property
    def n_weights(self) -> int:
        """Number of weights in all tensors."""
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over all tensors, scales and norms included."""
        return 8 * self.weights_bytes / self.n_weights

    @property
    def tied_embeddings(self) -> bool:
        """Whether the token embedding also serves as the output matrix."""
        return all(tensor.name != "output.weight" for tensor in self.tensors)

    @property
    def decode_bytes(self) -> int:
        """Bytes of weights that one decoded token reads.

        Every matrix is read once, except an untied token embedding: of that, one row is.
        Mixture-of-experts models read fewer; this figure is for dense models.
        """
        if self.tied_embeddings:
            return self.weights_bytes
        embedding = sum(t.n_bytes for t in self.tensors if t.name == "token_embd.weight")
        return self.weights_bytes - embedding

    def types(self) -> dict[str, int]:
        """Return how many tensors there are of each storage type, most frequent first."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())


def inspect(path: Path) -> GgufFile:
    """Read a GGUF file's metadata and tensor list, and check that its data is all there.

    Raises
    ------
    GgufError
        The file is missing, empty, not a GGUF, or cut short.
    """
    size = _checked_size(path)
    try:
        reader = _open(path)
        end = max((t.data_offset + int(t.n_bytes) for t in reader.tensors), default=0)
        metadata = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.") and field.data
        }
        tensors = tuple(
            Tensor(
                tensor.name,
                tensor.tensor_type.name,
                tuple(int(n) for n in reversed(tensor.shape)),
                int(tensor.n_bytes),
            )
            for tensor in reader.tensors
        )
    except (
        *(ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeError),
        struct.error,
    ) as error:
        raise GgufError(
            f"{path.name} is damaged or cut short ({size:,} bytes): its header promises data that "
            "is not there. Download or copy it again."
        ) from error
    if not tensors or end > size:
        raise GgufError(
            f"{path.name} is cut short: it has {size:,} of at least {end:,} bytes. Download or "
            "copy it again."
        )
    return GgufFile(path, metadata, tensors)


def trial_load(path: Path, time_limit: float = _TRIAL_SECONDS) -> None:
    """Load a file in a child process, so that a crash in native code cannot end this one.

    Raises
    ------
    GgufError
        llama.cpp refused the file, crashed on it, or took longer than ``time_limit`` seconds.
    """
    command = [sys.executable, "-c", _TRIAL, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=time_limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise GgufError(
            f"{path.name} did not load within {time_limit:.0f} seconds. Try a smaller file, or a "
            "disk that is faster."
        ) from error
    if done.returncode < 0:
        raise GgufError(
            f"{path.name} made llama.cpp crash (signal {-done.returncode}) in a trial run. The "
            "file is damaged, or needs more memory than is free; download it again."
        )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise GgufError(
            f"llama.cpp cannot load {path.name} ({reason}). The file may be damaged or newer than "
            "this llama.cpp; download it again or update llama-cpp-python."
        )


def _open(path: Path) -> Any:  # noqa: ANN401 - a class of the package gguf, imported late
    """Open a file with the package gguf, stepping over the vocabulary, which nobody asks for here.

    Cutting its three lists into 150,000 arrays takes seconds.
    """
    from gguf import GGUFEndian, GGUFReader, GGUFValueType

    class Reader(GGUFReader):  # type: ignore[misc]
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:  # noqa: ANN401
            if raw_type == GGUFValueType.ARRAY:
                order = "<" if self.endianess == GGUFEndian.LITTLE else ">"
                kind, count = struct.unpack_from(f"{order}IQ", self.data, orig_offs)
                if count >= _LONG:
                    end = self._end_of_list(kind, count, orig_offs + 12, order)
                    return end - orig_offs, [], [], [GGUFValueType.ARRAY]
            return super()._get_field_parts(orig_offs, raw_type)

        def _end_of_list(self, kind: int, count: int, offset: int, order: str) -> int:
            if kind != GGUFValueType.STRING:
                itemsize = self.gguf_scalar_to_np[GGUFValueType(kind)]().itemsize
                return offset + count * int(itemsize)
            length = struct.Struct(f"{order}Q")
            data = memoryview(self.data)
            for _ in range(count):
                offset += 8 + length.unpack_from(data, offset)[0]
            return offset

    return Reader(path)


def _checked_size(path: Path) -> int:
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except FileNotFoundError as error:
        raise GgufError(f"There is no file {path.name} in {path.parent}.") from error
    except OSError as error:
        raise GgufError(f"{path.name} cannot be read: {error.strerror}.") from error
    if magic != _MAGIC:
        raise GgufError(
            f"{path.name} is not a GGUF file: it begins with {magic!r} instead of {_MAGIC!r}. "
            "Check the download; a web page saved under this name is a common cause."
        )
    return size
