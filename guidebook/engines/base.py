"""What the book asks of a runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class EngineError(RuntimeError):
    """A runtime could not do what was asked; the message says what to do."""


class Engine(Protocol):
    """A loaded model that can be measured."""

    @property
    def name(self) -> str:
        """Runtime and model, for messages and tables."""

    @property
    def n_ctx(self) -> int:
        """Context length in tokens: prompt and answer together."""

    def tokenize(self, text: str) -> list[int]:
        """Turn text into token ids, without a begin-of-sequence token."""

    def stream(self, prompt: Sequence[int], n_generate: int) -> Iterator[int]:
        """Read the prompt into an empty KV cache, then yield ``n_generate`` greedy tokens."""

    def logits(self, tokens: Sequence[int], first: int = 0) -> npt.NDArray[np.float32]:
        """Return next-token logits at positions ``first`` … end.

        Shape: (``len(tokens) - first``, vocabulary). Row ``i`` predicts ``tokens[first + i + 1]``.
        """

    def close(self) -> None:
        """Free the model's memory; calling it twice does no harm."""
