"""The roofline: how fast a model could run if one resource were the only limit.

Decoding one token reads every weight once and does two operations (a multiplication and an
addition) with each. Whichever takes longer, reading or computing, is the bound. Source of the
model: Williams, Waterman and Patterson, "Roofline", CACM 52 (4), 2009.
"""

from __future__ import annotations

FLOP_PER_WEIGHT = 2


def bandwidth_bound(bandwidth: float, bytes_per_token: float) -> float:
    """Return the decode speed in tokens/s that memory allows.

    Parameters
    ----------
    bandwidth
        Memory bandwidth in bytes/s, measured or rated.
    bytes_per_token
        Weights and KV cache that one token reads, in bytes.

    Raises
    ------
    ValueError
        ``bytes_per_token`` is not positive.
    """
    if bytes_per_token <= 0:
        raise ValueError("A token reads at least one byte.")
    return bandwidth / bytes_per_token


def compute_bound(flop_per_second: float, n_weights: float) -> float:
    """Return the speed in tokens/s that arithmetic allows, at two operations per weight.

    Attention over the context comes on top; it is small while the context is short.

    Raises
    ------
    ValueError
        ``n_weights`` is not positive.
    """
    if n_weights <= 0:
        raise ValueError("A model has at least one weight.")
    return flop_per_second / (FLOP_PER_WEIGHT * n_weights)


def ridge_tokens(flop_per_second: float, bandwidth: float, bytes_per_weight: float) -> float:
    """Return how many tokens must share one pass over the weights before arithmetic binds.

    Below this batch size memory is the limit, above it arithmetic is. Decoding for one reader
    is a batch of one; prefill is a batch of hundreds.
    """
    return flop_per_second * bytes_per_weight / (FLOP_PER_WEIGHT * bandwidth)
