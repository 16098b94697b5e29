"""What a model is: the figures that decide its memory and its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """A dense transformer's shape.

    Attributes
    ----------
    name
        Family as GGUF names it, for example ``llama``.
    n_layers, n_heads, n_kv_heads, head_size
        Attention: layers, query heads, key/value heads, numbers per head.
    hidden_size, n_vocab, context_length
        Width of the residual stream, vocabulary, longest context it was trained for.
    """

    name: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    hidden_size: int
    n_vocab: int
    context_length: int


def from_gguf_metadata(metadata: Mapping[str, Any]) -> Architecture:
    """Read the architecture out of a GGUF file's metadata.

    Source: the key names of the GGUF specification (ggml-org/ggml, docs/gguf.md).

    Raises
    ------
    ValueError
        A key that the figures need is missing; the message names it.
    """
    try:
        name = metadata["general.architecture"]
        hidden_size = int(metadata[f"{name}.embedding_length"])
        n_heads = int(metadata[f"{name}.attention.head_count"])
        return Architecture(
            name=name,
            n_layers=int(metadata[f"{name}.block_count"]),
            n_heads=n_heads,
            n_kv_heads=int(metadata.get(f"{name}.attention.head_count_kv", n_heads)),
            head_size=int(metadata.get(f"{name}.attention.key_length", hidden_size // n_heads)),
            hidden_size=hidden_size,
            n_vocab=int(metadata[f"{name}.vocab_size"]),
            context_length=int(metadata[f"{name}.context_length"]),
        )
    except KeyError as error:
        raise ValueError(f"The GGUF metadata has no {error.args[0]!r}.") from error
