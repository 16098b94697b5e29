"""Speculative decoding: guess a few tokens, check them all in one step, keep those that were right.

Checking ``k`` guessed tokens reads the weights once, as writing one token does. Every guess that
the model would have written itself is a token saved; the first wrong one is replaced by the
model's own, and the rest is thrown away. So the text is the one that plain greedy decoding writes,
but for ties: a step of several tokens adds in another order than a step of one, and where two
tokens are equally likely to the last digits, either may come out. :func:`difference` tells that
from a mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guidebook.measure.timing import Measurement

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llama_cpp import Llama

    Ids = npt.NDArray[np.intc]

# From all tokens so far to the tokens that may come next; llama_cpp's drafters are such.
Draft = Callable[["Ids"], "Ids"]


@dataclass(frozen=True)
class Written:
    """A text and what writing it took.

    Attributes
    ----------
    tokens
        The text. The first token comes out of reading the prompt and is not timed.
    seconds
        Time for the others.
    n_steps
        Calls of the model for them.
    n_drafted, n_accepted
        Tokens that were guessed, and those of them that were right.
    """

    tokens: tuple[int, ...]
    seconds: float
    n_steps: int
    n_drafted: int = 0
    n_accepted: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Decode speed."""
        return (len(self.tokens) - 1) / self.seconds

    @property
    def tokens_per_step(self) -> float:
        """Tokens that each call of the model brought; 1 without guessing."""
        return (len(self.tokens) - 1) / self.n_steps


@dataclass(frozen=True)
class Difference:
    """Where two texts part.

    Attributes
    ----------
    at
        Index of the first token that differs; None if the texts are equal.
    gap
        How far apart the model's logits of the two tokens are there; 0 if the texts are equal.
    """

    at: int | None
    gap: float


def write(
    llama: Llama, prompt: Sequence[int], n_generate: int, draft: Draft | None = None
) -> Written:
    """Read a prompt into an empty cache and write ``n_generate`` greedy tokens.

    Parameters
    ----------
    llama
        A loaded model. Its cache is emptied.
    prompt
        Token ids; at least one.
    n_generate
        Tokens to write; at least two. An end-of-sequence token ends nothing.
    draft
        Guesses the next tokens; without it the text is written token by token.

    Raises
    ------
    ValueError
        There is too little to do, or no room for it.
    """
    if not prompt or n_generate < 2:
        raise ValueError("Writing needs a prompt and at least two tokens to write.")
    if len(prompt) + n_generate > llama.n_ctx():
        raise ValueError(
            f"{len(prompt)} prompt and {n_generate} new tokens do not fit a context of "
            f"{llama.n_ctx()} tokens. Load the model with a larger n_ctx."
        )
    import numpy as np

    steps = drafted = accepted = 0
    with _Steps.on(llama) as step:
        tokens = [step.read(prompt)]
        start = time.perf_counter()
        while len(tokens) < n_generate:
            guessed: list[int] = []
            if draft is not None:
                # The last token of a step is the model's own: guess one less than is wanted.
                most = min(n_generate - len(tokens) - 1, llama.n_batch - 1)
                so_far = np.array([*prompt, *tokens], dtype=np.intc)
                guessed = [int(token) for token in draft(so_far)[:most]]
            right = step.check([tokens[-1], *guessed], len(prompt) + len(tokens) - 1)
            tokens += right
            steps += 1
            drafted += len(guessed)
            accepted += len(right) - 1
        seconds = time.perf_counter() - start
    return Written(tuple(tokens), seconds, steps, drafted, accepted)


def step_seconds(
    llama: Llama, prompt: Sequence[int], sizes: Iterable[int], repetitions: int = 9
) -> dict[int, Measurement]:
    """Time one call of the model for steps of several sizes, all of them after the same prompt.

    The sizes take turns, so that a busy moment does not fall on one of them.
    """
    sizes = tuple(sizes)
    longest = max(sizes)
    if min(sizes) < 1 or longest > llama.n_batch or len(prompt) < longest:
        raise ValueError(
            f"Steps of {sizes} tokens need a prompt of at least {longest} tokens and an n_batch "
            "as large."
        )
    if len(prompt) + longest > llama.n_ctx():
        raise ValueError("The prompt and the longest step do not fit the context.")
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    with _Steps.on(llama) as step:
        step.read(prompt)
        for turn in range(repetitions + 1):
            for size in sizes:
                start = time.perf_counter()
                step.decode(prompt[:size], len(prompt), first=0)
                seconds = time.perf_counter() - start
                step.forget(len(prompt))
                if turn:  # the first turn warms up
                    samples[size].append(seconds)
    return {size: Measurement("s", tuple(taken)) for size, taken in samples.items()}


def difference(
    llama: Llama, prompt: Sequence[int], first: Sequence[int], second: Sequence[int]
) -> Difference:
    """Find where two texts part, and how close the model's choice was there.

    Raises
    ------
    ValueError
        One text is longer than the other.
    """
    if len(first) != len(second):
        raise ValueError("Compare two texts of the same length.")
    pairs = enumerate(zip(first, second, strict=True))
    at = next((index for index, (one, other) in pairs if one != other), None)
    if at is None:
        return Difference(None, 0.0)
    with _Steps.on(llama) as step:
        step.read([*prompt, *first[:at]])
        logits = step.logits()
        return Difference(at, abs(float(logits[first[at]] - logits[second[at]])))


class _Steps:
    """Calls of a model, with llama.cpp's own functions: what is timed is not Python."""

    def __init__(self, llama: Llama, batch: Any, sampler: Any) -> None:  # noqa: ANN401 - ctypes
        self._llama = llama
        self._batch = batch
        self._sampler = sampler

    @classmethod
    @contextmanager
    def on(cls, llama: Llama) -> Iterator[_Steps]:
        """Begin with an empty cache, and leave one."""
        import llama_cpp

        batch = llama_cpp.llama_batch_init(llama.n_batch, 0, 1)
        sampler = llama_cpp.llama_sampler_init_greedy()
        steps = cls(llama, batch, sampler)
        steps.forget(0)
        try:
            yield steps
        finally:
            steps.forget(0)
            # The high-level object counts tokens itself; it must not believe in old ones.
            llama.reset()
            llama_cpp.llama_sampler_free(sampler)
            llama_cpp.llama_batch_free(batch)

    def read(self, prompt: Sequence[int]) -> int:
        """Read a prompt and return the token that follows."""
        for start in range(0, len(prompt), self._llama.n_batch):
            part = prompt[start : start + self._llama.n_batch]
            self.decode(part, start, first=len(part) - 1)
        return self._sample(-1)

    def check(self, tokens: Sequence[int], position: int) -> list[int]:
        """Compute a known token and the guesses after it; return the model's own tokens."""
        self.decode(tokens, position, first=0)
        own = [self._sample(0)]
        for index, guess in enumerate(tokens[1:], 1):
            if own[-1] != guess:
                break
            own.append(self._sample(index))
        self.forget(position + len(own))
        return own

    def decode(self, tokens: Sequence[int], position: int, first: int) -> None:
        """Compute tokens at a position, with logits from index ``first`` on."""
        import llama_cpp

        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i >= first
        code = llama_cpp.llama_decode(self._llama.ctx, batch)
        if code:
            raise RuntimeError(f"llama.cpp could not compute a step (llama_decode: {code}).")

    def forget(self, position: int) -> None:
        """Take everything from a position on out of the cache."""
        import llama_cpp

        cache = llama_cpp.llama_get_memory(self._llama.ctx)
        if not llama_cpp.llama_memory_seq_rm(cache, 0, position, -1):
            raise RuntimeError(
                "This model's cache cannot be shortened (it has recurrent layers), so guesses "
                "cannot be taken back. Use a model with attention only."
            )

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the logits of the last token computed."""
        import llama_cpp
        import numpy as np

        flat = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return np.ctypeslib.as_array(flat, shape=(self._llama.n_vocab(),)).copy()

    def _sample(self, index: int) -> int:
        import llama_cpp

        return int(llama_cpp.llama_sampler_sample(self._sampler, self._llama.ctx, index))
