"""What the book asks of a runtime."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from guidebook.machine.processes import MemoryUse


class EngineError(RuntimeError):
    """A runtime could not do what was asked; the message says what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of a client library.
        return [f"EngineError: {self}"]


@dataclass(frozen=True)
class Reported:
    """What a runtime itself says about one answer; ``None`` where it says nothing.

    Attributes
    ----------
    n_prompt, n_cached, n_generated
        Tokens of the prompt, how many of them came from an earlier request's cache, and tokens
        of the answer.
    load_seconds, prefill_seconds, decode_seconds
        Time for loading the model, for reading the prompt, and for writing the answer.
    n_decoded
        Tokens that ``decode_seconds`` covers, where they are not ``n_generated``: the first token
        comes from reading the prompt.
    finish_reason
        ``"length"``: the answer was cut at the wanted number of tokens. ``"stop"``: the model
        ended it.
    source
        Where the figures come from, such as ``llama_perf_context`` or ``usage``.
    """

    n_prompt: int | None = None
    n_cached: int | None = None
    n_generated: int | None = None
    load_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    n_decoded: int | None = None
    finish_reason: str | None = None
    source: str = ""

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Prompt tokens read per second, as the runtime counts and times them."""
        if not self.n_prompt or not self.prefill_seconds:
            return None
        return (self.n_prompt - (self.n_cached or 0)) / self.prefill_seconds

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens written per second, as the runtime counts and times them."""
        n_decoded = self.n_generated if self.n_decoded is None else self.n_decoded
        if not n_decoded or not self.decode_seconds:
            return None
        return n_decoded / self.decode_seconds


class Answer(Iterator[str]):
    """An answer while it is written: iterate for its pieces, then ask for the rest.

    In-process engines give one piece per token; a piece can be empty, where a token ends in the
    middle of a character. Servers send what they like: ``reported.n_generated`` counts the tokens.

    Attributes
    ----------
    text
        What has come so far.
    reported
        What the runtime says about the answer; empty until the answer has ended.
    """

    def __init__(self, pieces: Generator[str, None, Reported]) -> None:
        self._pieces = pieces
        self.text = ""
        self.reported = Reported()

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self.reported = end.value
            raise StopIteration from None
        self.text += piece
        return piece

    def close(self) -> None:
        """Give the answer up: the runtime stops writing, a connection is closed."""
        self._pieces.close()

    def read(self) -> str:
        """Wait for the whole answer and return it."""
        for _ in self:
            pass
        return self.text


class Engine(Protocol):
    """A model that answers, in this process or behind a server."""

    @property
    def name(self) -> str:
        """Runtime and model, for messages and tables."""

    @property
    def runtime(self) -> str:
        """The runtime and its version, such as ``llama-cpp-python 0.3.36``."""

    @property
    def n_ctx(self) -> int | None:
        """Context length in tokens, prompt and answer together; ``None`` if nobody says."""

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model makes of a prompt, its begin-of-sequence included."""

    def generate(self, prompt: str, n_generate: int) -> Answer:
        """Continue a text by up to ``n_generate`` tokens, always taking the most likely one.

        The prompt is used as it is, without a chat template. Where the runtime allows it, nothing
        is reused from earlier prompts, and the answer does not end before its length is reached.

        Raises
        ------
        EngineError
            Here or while the answer is read; the message says what to do.
        """

    def memory(self) -> MemoryUse:
        """Return what the process that holds the model takes now."""

    def close(self) -> None:
        """Free what this object holds; calling it twice does no harm."""

    def __enter__(self) -> Engine:
        """Return the engine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine."""


class TokenEngine(Engine, Protocol):
    """An engine in this process: it takes tokens, and shows its logits."""

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
