"""Decode speed at a depth of the context: one long prompt, then several short readings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guidebook.engines import TokenEngine
    from guidebook.measure.timing import Measurement


@dataclass(frozen=True)
class Blocks:
    """What one pass showed, in tokens/s.

    Attributes
    ----------
    prefill
        Prompt tokens read per second.
    decode
        Tokens written per second, one reading for each block.
    """

    prefill: float
    decode: tuple[float, ...]


def read_and_write(
    engine: TokenEngine, prompt: Sequence[int], n_blocks: int = 4, block: int = 16
) -> Blocks:
    """Read a prompt once, then time blocks of written tokens.

    Where the prompt is long, reading it anew for each reading would take most of the time;
    :func:`guidebook.measure.throughput` does that. Here the context grows by ``block`` tokens
    from one reading to the next.

    Parameters
    ----------
    engine
        A loaded model.
    prompt
        Token ids; its length is the depth.
    n_blocks, block
        Readings, and tokens in each.

    Raises
    ------
    ValueError
        A count is not positive, or there is no prompt.
    RuntimeError
        The engine wrote fewer tokens than it was asked for.
    """
    if not prompt or n_blocks < 1 or block < 1:
        raise ValueError("Measuring needs a prompt, one block and one token in it.")
    marks = [time.perf_counter()]
    for count, _ in enumerate(engine.stream(prompt, n_blocks * block + 1)):
        if count % block == 0:
            marks.append(time.perf_counter())
    if len(marks) != n_blocks + 2:
        raise RuntimeError(f"{engine.name} stopped before it had written all tokens.")
    first, *rest = (end - start for start, end in pairwise(marks))
    return Blocks(len(prompt) / first, tuple(block / seconds for seconds in rest))


def middle_half(readings: Measurement) -> tuple[float, float]:
    """Return the range of the middle half of the readings.

    On a busy machine the slowest reading says what else was running. The middle half says how
    far the median can be trusted.
    """
    if len(readings.samples) == 1:
        return readings.samples[0], readings.samples[0]
    low, _, high = statistics.quantiles(readings.samples, n=4, method="inclusive")
    return low, high
