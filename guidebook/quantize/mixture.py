"""What a recipe such as Q4_K_M really puts into a file: the types of each kind of matrix."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from guidebook import units, weights

if TYPE_CHECKING:
    from guidebook.architecture import Architecture
    from guidebook.gguf_files import GgufFile

# What llama.cpp's files call the tensors that guidebook.weights knows by their role.
_NAMES = {
    "embedding": "token_embd",
    "output": "output",
    "attention_q": "attn_q",
    "attention_k": "attn_k",
    "attention_v": "attn_v",
    "attention_output": "attn_output",
    "feed_forward_gate": "ffn_gate",
    "feed_forward_up": "ffn_up",
    "feed_forward_down": "ffn_down",
}


@dataclass(frozen=True)
class Part:
    """All matrices of one kind in a file.

    Attributes
    ----------
    name
        llama.cpp's name without the number of the layer: ``attn_v``.
    columns
        Weights in one row.
    types
        How many of the matrices have each type, the most frequent first.
    n_weights, n_bytes
        Of all together.
    """

    name: str
    columns: int
    types: Mapping[str, int]
    n_weights: int
    n_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, scales included."""
        return 8 * self.n_bytes / self.n_weights

    def __str__(self) -> str:
        return ", ".join(f"{kind} × {count}" for kind, count in self.types.items())


def of_file(content: GgufFile) -> tuple[Part, ...]:
    """List the kinds of matrices in a file, in the order of their first tensor."""
    return _grouped(
        (
            tensor.name.removesuffix(".weight").split(".")[-1],
            tensor.shape[-1],
            tensor.type,
            tensor.n_weights,
            tensor.n_bytes,
        )
        for tensor in content.tensors
        if len(tensor.shape) > 1
    )


def predicted(
    architecture: Architecture, recipe: str, *, imatrix: bool | None = None
) -> tuple[Part, ...]:
    """List the kinds of matrices that llama.cpp's rules put into a file of a model.

    Parameters
    ----------
    architecture
        A model with dense layers.
    recipe
        File type, for example ``Q4_K_M``.
    imatrix
        Whether an importance matrix is used; None: only if the type cannot be made without.
    """
    return _grouped(
        (
            _NAMES[tensor.role],
            tensor.n_weights // tensor.rows,
            tensor.type,
            tensor.n_weights,
            tensor.n_bytes,
        )
        for tensor in weights.stored(architecture, recipe, imatrix)
        if tensor.role in _NAMES
    )


def published_sizes() -> dict[str, int]:
    """Return the bytes of Llama 3.1 8B's files by their type, as llama.cpp publishes them.

    They are rounded to hundredths of a GiB (documentation of ``llama-quantize``).
    """
    table = resources.files("guidebook.catalog") / "reference/llamacpp_quantize_llama31_8b.csv"
    rows = csv.DictReader(table.read_text("utf-8").splitlines())
    return {row["quant"]: round(float(row["size_gib"]) * units.GIB) for row in rows}


def _grouped(tensors: Iterable[tuple[str, int, str, int, int]]) -> tuple[Part, ...]:
    groups: dict[tuple[str, int], list[tuple[str, int, int]]] = {}
    for name, columns, kind, n_weights, n_bytes in tensors:
        groups.setdefault((name, columns), []).append((kind, n_weights, n_bytes))
    return tuple(
        Part(
            name,
            columns,
            dict(Counter(kind for kind, _, _ in group).most_common()),
            sum(n_weights for _, n_weights, _ in group),
            sum(n_bytes for _, _, n_bytes in group),
        )
        for (name, columns), group in groups.items()
    )
