"""Quality: perplexity, KL divergence and top-1 agreement against a reference model.

All three are read off the same tokens. *Perplexity* asks how surprised a model is by a text.
*KL divergence* asks how far its next-token probabilities are from the reference's, whatever the
text says: it sees damage that perplexity averages away. *Top-1 agreement* is the share of
positions where both models would write the same token.

As in llama.cpp's ``llama-perplexity``, the text is cut into windows that share nothing, and only
the second half of each window is scored, so that every scored token has a long context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from guidebook.engines import TokenEngine

    Floats = npt.NDArray[np.float32]


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
class Quality:
    """A model's quality on a text, with standard errors of the mean over scored tokens.

    The standard errors treat tokens as independent. Neighbouring tokens are not, so read them
    as a lower bound of the uncertainty.

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

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood; 1 is a model that is never surprised."""
        return math.exp(self.log_perplexity)


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
        len(merged["kl"]), *summary["nll"], *summary["rise"], *summary["kl"], *summary["top1"]
    )


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
    mean = float(values.mean())
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return mean, error
