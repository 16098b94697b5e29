"""How llama.cpp stores weights: the layout of each tensor type, and the file types made of them.

A *tensor type* packs a fixed number of weights into a block of a fixed number of bytes. A *file
type* such as Q4_K_M is a recipe: most matrices get its base type, some a better one
(:mod:`guidebook.quantization_recipe` says which).
"""

from __future__ import annotations

import csv
import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType


@dataclass(frozen=True)
class TensorType:
    """A way to store the weights of one tensor.

    Attributes
    ----------
    name
        As llama.cpp prints it, in capitals: ``Q4_K``.
    block_weights, block_bytes
        Weights in one block, and its bytes with scales and offsets.
    source, as_of
        Where the layout is written down, and when it was read.
    """

    name: str
    block_weights: int
    block_bytes: int
    source: str
    as_of: datetime.date

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, scales and offsets included."""
        return 8 * self.block_bytes / self.block_weights

    @property
    def is_quantized(self) -> bool:
        """Whether weights share a scale; plain floating-point numbers don't."""
        return self.block_weights > 1

    def n_bytes(self, n_weights: int) -> int:
        """Return the bytes that this many weights take.

        Raises
        ------
        ValueError
            The weights don't fill whole blocks.
        """
        blocks, rest = divmod(n_weights, self.block_weights)
        if rest:
            raise ValueError(
                f"{self.name} stores blocks of {self.block_weights} weights, and {n_weights:,} "
                "don't fill whole blocks. Take a tensor type with smaller blocks."
            )
        return blocks * self.block_bytes


@dataclass(frozen=True)
class FileType:
    """A recipe for a whole file, as ``llama-quantize`` takes it.

    Attributes
    ----------
    name
        For example ``Q4_K_M``.
    base_type
        Tensor type of the matrices that the recipe doesn't single out.
    needs_imatrix
        ``llama-quantize`` refuses to make it without an importance matrix.
    aliases
        Other names for it.
    source, as_of
        Where the recipe is written down, and when it was read.
    """

    name: str
    base_type: str
    needs_imatrix: bool
    aliases: tuple[str, ...]
    source: str
    as_of: datetime.date


@functools.cache
def tensor_types() -> Mapping[str, TensorType]:
    """Return all tensor types by name."""
    rows = (row for row in _rows() if row["kind"] == "tensor")
    return MappingProxyType(
        {
            row["name"]: TensorType(
                name=row["name"],
                block_weights=int(row["block_weights"]),
                block_bytes=int(row["block_bytes"]),
                source=row["source"],
                as_of=datetime.date.fromisoformat(row["as_of"]),
            )
            for row in rows
        }
    )


@functools.cache
def file_types() -> Mapping[str, FileType]:
    """Return all file types by name."""
    rows = (row for row in _rows() if row["kind"] == "file")
    return MappingProxyType(
        {
            row["name"]: FileType(
                name=row["name"],
                base_type=row["base_type"],
                needs_imatrix=row["needs_imatrix"] == "yes",
                aliases=tuple(row["aliases"].split()),
                source=row["source"],
                as_of=datetime.date.fromisoformat(row["as_of"]),
            )
            for row in rows
        }
    )


@functools.cache
def tensor_type(name: str) -> TensorType:
    """Return a tensor type; case, spaces and hyphens don't matter.

    Raises
    ------
    LookupError
        There is none of this name; the message lists the nearest.
    """
    found = tensor_types().get(_key(name))
    if found is None:
        raise LookupError(_unknown("tensor type", name, list(tensor_types())))
    return found


@functools.cache
def find(name: str) -> FileType:
    """Return a file type by its name or an alias; case, spaces and hyphens don't matter.

    Raises
    ------
    LookupError
        There is none of this name; the message lists the nearest.
    """
    by_name = {alias: kind for kind in file_types().values() for alias in kind.aliases}
    by_name |= file_types()
    found = by_name.get(_key(name))
    if found is None:
        raise LookupError(_unknown("quantization", name, list(by_name)))
    return found


def _key(name: str) -> str:
    return name.strip().upper().replace("-", "_").replace(" ", "_")


def _unknown(what: str, name: str, known: list[str]) -> str:
    import difflib  # costs milliseconds, and is only needed for the message

    near = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.4) or known
    return f"There is no {what} {name!r}. Nearest: {', '.join(near)}."


@functools.cache
def _rows() -> tuple[dict[str, str], ...]:
    source = resources.files("guidebook.catalog").joinpath("quantizations.csv")
    with source.open(encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))
