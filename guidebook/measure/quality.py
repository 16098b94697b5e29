"""Quality: perplexity, KL divergence and top-1 agreement against a reference model.

All three are read off the same tokens. *Perplexity* asks how surprised a model is by a text.
*KL divergence* asks how far its next-token probabilities are from the reference's, whatever the
text says: it sees damage that perplexity averages away. *Top-1 agreement* is the share of
positions where both models would write the same token.

Two protocols, because a perplexity means little without its own:

- :func:`reference` and :func:`compare` do as llama.cpp's ``llama-perplexity``: the text is cut into
  windows that share nothing, and only the second half of each window is scored, so that every
  scored token has a long context. llama.cpp leaves out the first token of each second half.
- :func:`perplexity` does as Hugging Face's documentation: windows overlap, and each token is scored
  once (https://huggingface.co/docs/transformers/perplexity).

The tokens are used as given: no begin-of-sequence token is put before a window.

Every mean has a standard error. Tokens next to each other are hard or easy together, so the error
of independent tokens would be too small. Here it comes from *batch means*: blocks of consecutive
tokens, whose means are close to independent (:func:`standard_error`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from guidebook.engines import TokenEngine

    Floats = npt.NDArray[np.float32]

_BLOCK = 32
_LEAST_BLOCKS = 8


@dataclass(frozen=True)
class Reference:
    """A reference model's log-probabilities on windows of text.

    Attributes
    ----------
    windows
        Token ids, one sequence per window.
    log_probs
        Per window an array of shape (scored tokens, vocabulary), natural logarithm.
    """

    windows: tuple[tuple[int, ...], ...]
    log_probs: tuple[Floats, ...]

    @property
    def n_scored(self) -> int:
        """Number of scored tokens over all windows."""
        return sum(len(window) for window in self.log_probs)


@dataclass(frozen=True)
class Perplexity:
    """How surprised a model is by a text, and how it was asked.

    Attributes
    ----------
    log_perplexity, error
        Mean negative log-likelihood in nats per token, and its standard error by batch means.
    n_scored
        Scored tokens: each once.
    length
        Tokens in a window; the longest context is one less.
    stride
        Tokens from one window's start to the next's.
    """

    log_perplexity: float
    error: float
    n_scored: int
    length: int
    stride: int

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood; 1 is a model that is never surprised."""
        return math.exp(self.log_perplexity)

    @property
    def perplexity_error(self) -> float:
        """Standard error of the perplexity, from that of its logarithm."""
        return self.perplexity * self.error

    @property
    def least_context(self) -> int:
        """Tokens before every scored token, but for those of the first window."""
        return self.length - self.stride


@dataclass(frozen=True)
class Quality:
    """A model's quality on a text, with standard errors of the means by batch means.

    Attributes
    ----------
    n_scored
        Scored tokens.
    log_perplexity, log_perplexity_error
        Mean negative log-likelihood in nats per token; its exponential is the perplexity.
    log_perplexity_rise, log_perplexity_rise_error
        The same less the reference's, paired token by token: a much smaller error.
    kl_divergence, kl_divergence_error
        Mean KL(reference ‖ model) in nats per token.
    top1_agreement, top1_agreement_error
        Share of positions with the same most likely token, 0 to 1.
    kl_divergence_99, kl_divergence_max
        KL divergence that 99 % of the positions stay below, and that of the worst position. A
        mean hides the few places where a model goes astray. With 1,024 scored tokens, ten lie
        above the first, and the second is a single token: neither has an error worth printing.
    """

    n_scored: int
    log_perplexity: float
    log_perplexity_error: float
    log_perplexity_rise: float
    log_perplexity_rise_error: float
    kl_divergence: float
    kl_divergence_error: float
    top1_agreement: float
    top1_agreement_error: float
    kl_divergence_99: float
    kl_divergence_max: float

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood; 1 is a model that is never surprised."""
        return math.exp(self.log_perplexity)

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity over the reference's: what published tables call ``PPL ratio``."""
        return math.exp(self.log_perplexity_rise)


def windows(tokens: Sequence[int], length: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Cut the first ``count`` windows of ``length`` tokens from a text, without overlap.

    Raises
    ------
    ValueError
        The text is too short, or the window too short to score half of it.
    """
    if length < 4 or count < 1:
        raise ValueError("Scoring needs windows of at least 4 tokens, and at least one window.")
    if len(tokens) < length * count:
        raise ValueError(
            f"The text has {len(tokens)} tokens; {count} windows of {length} need {length * count}."
        )
    return tuple(tuple(tokens[i * length : (i + 1) * length]) for i in range(count))


def reference(
    engine: TokenEngine, tokens: Sequence[int], *, length: int = 512, count: int = 4
) -> Reference:
    """Run the reference model over a text and keep its log-probabilities.

    They take ``count × length / 2 × vocabulary × 4`` bytes: 200 MB for the defaults and a
    vocabulary of 49,152.
    """
    cut = windows(tokens, length, count)
    return Reference(cut, tuple(log_softmax(_scored_logits(engine, window)) for window in cut))


def compare(engine: TokenEngine, against: Reference) -> Quality:
    """Score a model on the reference's text and against its probabilities.

    Raises
    ------
    ValueError
        The model's vocabulary is not the reference's.
    """
    import numpy as np

    parts: list[dict[str, npt.NDArray[Any]]] = []
    for window, expected in zip(against.windows, against.log_probs, strict=True):
        logits = _scored_logits(engine, window)
        if logits.shape != expected.shape:
            raise ValueError(
                f"The model has {logits.shape[1]} tokens in its vocabulary, the reference "
                f"{expected.shape[1]}: their probabilities cannot be compared."
            )
        parts.append(_compare_window(log_softmax(logits), expected, _targets(window)))
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    summary = {name: _mean_and_error(values) for name, values in merged.items()}
    return Quality(
        len(merged["kl"]),
        *summary["nll"],
        *summary["rise"],
        *summary["kl"],
        *summary["top1"],
        kl_divergence_99=float(np.quantile(merged["kl"], 0.99)),
        kl_divergence_max=float(merged["kl"].max()),
    )


def perplexity(
    engine: TokenEngine, tokens: Sequence[int], *, length: int = 512, stride: int | None = None
) -> Perplexity:
    """Score all of a text in windows that overlap, each token once.

    A window's new tokens are scored, and those that it shares with the one before serve as their
    context: ``length - stride`` tokens at least. The first window has nothing before it: all its
    tokens but the first are scored, with what context there is.

    Parameters
    ----------
    engine
        The model.
    tokens
        The text. It takes about ``length / stride`` times as long as reading it once.
    length
        Tokens in a window.
    stride
        New tokens in each window after the first; without a number, ``length``: the windows share
        nothing, and the first token of each is not scored.

    Raises
    ------
    ValueError
        There are fewer than two tokens, or no such windows.
    """
    import numpy as np

    stride = length if stride is None else stride
    if not (length >= 2 and 1 <= stride <= length):
        raise ValueError(
            f"There are no windows of {length} tokens every {stride} tokens: give a length of at "
            "least 2, and a stride from 1 to the length."
        )
    if len(tokens) < 2:
        raise ValueError(f"A text of {len(tokens)} tokens has nothing to predict; 2 are needed.")
    parts = [
        _surprise(engine.logits(tokens[start:end], first=seen - start - 1)[:-1], tokens[seen:end])
        for start, seen, end in _spans(len(tokens), length, stride)
    ]
    values = np.concatenate(parts)
    return Perplexity(float(values.mean()), standard_error(values), len(values), length, stride)


def standard_error(values: npt.NDArray[Any]) -> float:
    """Return the standard error of a mean over consecutive tokens, by batch means.

    The values are cut into blocks of about 32 consecutive tokens, and the error is the spread of
    the blocks' means over the square root of their number. On 1,024 scored tokens of the book's
    text, the embedded model's surprise then has 1.55 times the error that independent tokens
    would have (1.75 times in blocks of 64), a KL divergence 1.3 to 2 times. Longer blocks catch
    a little more, and leave too few of them to know the error: 32 blocks give it to 13 %.

    Where fewer than 256 values are given, the blocks are shorter, so that there are 8 of them; of
    8 values or fewer, each is a block.

    Returns
    -------
    float
        In the values' unit; NaN for a single value.
    """
    import numpy as np

    n_blocks = max(len(values) // _BLOCK, min(len(values), _LEAST_BLOCKS))
    if n_blocks < 2:
        return math.nan
    means = [block.mean() for block in np.array_split(values, n_blocks)]
    return float(np.std(means, ddof=1) / math.sqrt(n_blocks))


def log_softmax(logits: Floats) -> Floats:
    """Turn logits into log-probabilities along the last axis, without overflow."""
    import numpy as np

    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_divergence(expected: Floats, log_probs: Floats) -> npt.NDArray[np.float64]:
    """Return KL(expected ‖ model) per row in nats, from two arrays of log-probabilities."""
    import numpy as np

    terms = np.exp(expected) * (expected - log_probs)
    divergence: npt.NDArray[np.float64] = terms.sum(axis=-1, dtype=np.float64)
    return divergence


def _compare_window(
    log_probs: Floats, expected: Floats, targets: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    import numpy as np

    rows = np.arange(len(targets))
    nll = -log_probs[rows, targets].astype(np.float64)
    return {
        "nll": nll,
        "rise": nll + expected[rows, targets],
        "kl": kl_divergence(expected, log_probs),
        "top1": (log_probs.argmax(axis=-1) == expected.argmax(axis=-1)).astype(np.float64),
    }


def _first_scored(length: int) -> int:
    """Position of the first logits that are scored: they predict the second half."""
    return length // 2 - 1


def _scored_logits(engine: TokenEngine, window: Sequence[int]) -> Floats:
    """Return the logits that predict the window's second half; the last ones predict nothing."""
    return engine.logits(window, first=_first_scored(len(window)))[:-1]


def _targets(window: Sequence[int]) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.asarray(window[_first_scored(len(window)) + 1 :], dtype=np.int64)


def _mean_and_error(values: npt.NDArray[Any]) -> tuple[float, float]:
    return float(values.mean()), standard_error(values)


def _spans(n_tokens: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield for each window its start, its first scored token, and its end."""
    scored = 0
    for start in range(0, n_tokens, stride):
        end = min(start + length, n_tokens)
        first = max(scored, start + 1)  # what stands first in a window is predicted by nothing
        if first < end:
            yield start, first, end
        scored = end
        if end == n_tokens:
            return


def _surprise(logits: Floats, targets: Sequence[int]) -> npt.NDArray[np.float64]:
    import numpy as np

    rows = np.arange(len(targets))
    chosen: npt.NDArray[np.float64] = log_softmax(logits)[rows, np.asarray(targets)]
    return -chosen.astype(np.float64)
