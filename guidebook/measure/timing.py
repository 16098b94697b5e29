"""Speed: prefill, decode, time to first token. Repeated, never a single reading."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guidebook import units

if TYPE_CHECKING:
    from guidebook.engines import TokenEngine


@dataclass(frozen=True)
class Measurement:
    """Repeated readings of one quantity.

    Attributes
    ----------
    unit
        Unit of every reading, for example ``tokens/s``.
    samples
        All readings in the order taken; nothing is thrown away.
    """

    unit: str
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("A measurement needs at least one reading.")

    @property
    def median(self) -> float:
        """The middle reading: one slow repetition does not move it."""
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        """The smallest reading."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The largest reading."""
        return max(self.samples)

    @property
    def spread(self) -> float:
        """Distance from the smallest to the largest reading, as a fraction of the median."""
        return (self.high - self.low) / self.median if self.median else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON-ready data, with every reading."""
        return {
            "unit": self.unit,
            "samples": list(self.samples),
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "repetitions": len(self.samples),
        }

    def __str__(self) -> str:
        if self.unit == "s":
            middle, low, high = map(units.duration, (self.median, self.low, self.high))
            text = f"{middle} ({low} to {high}"
        else:
            low, high = units.number(self.low), units.number(self.high)
            text = f"{units.quantity(self.median, self.unit)} ({low} to {high}"
        runs = len(self.samples)
        return f"{text}; {runs} {'run' if runs == 1 else 'runs'})"

    __repr__ = __str__


@dataclass(frozen=True)
class Throughput:
    """How fast a model reads and writes.

    Attributes
    ----------
    n_prompt, n_generate
        Length of the prompt and of the answer, in tokens.
    prefill
        Prompt tokens read per second, from the start to the first token of the answer.
    decode
        Tokens written per second after the first.
    time_to_first_token
        Seconds from the start to the first token of the answer.
    """

    n_prompt: int
    n_generate: int
    prefill: Measurement
    decode: Measurement
    time_to_first_token: Measurement


def throughput(
    engine: TokenEngine,
    prompt: Sequence[int],
    n_generate: int = 64,
    repetitions: int = 5,
    warm_up: int = 1,
) -> Throughput:
    """Measure prefill and decode speed of a loaded model.

    Each repetition starts from an empty KV cache, so no prompt token is reused. Decoding is
    greedy and does not stop at an end-of-sequence token: every run does the same work.

    Parameters
    ----------
    engine
        A loaded model.
    prompt
        Token ids of the prompt; at least one.
    n_generate
        Tokens to write in each repetition; at least two, since decode speed is taken between
        the first and the last.
    repetitions
        Measured runs.
    warm_up
        Runs before them that are not counted: they fault memory in and raise clock rates.

    Raises
    ------
    ValueError
        A count is too small, or prompt and answer do not fit the engine's context.
    """
    if not prompt or n_generate < 2 or repetitions < 1:
        raise ValueError("Measuring needs a prompt, two tokens to write and one repetition.")
    if len(prompt) + n_generate > engine.n_ctx:
        raise ValueError(
            f"{len(prompt)} prompt and {n_generate} new tokens do not fit a context of "
            f"{engine.n_ctx} tokens."
        )
    readings = [_one_run(engine, prompt, n_generate) for _ in range(warm_up + repetitions)]
    counted = readings[warm_up:]
    return Throughput(
        n_prompt=len(prompt),
        n_generate=n_generate,
        prefill=Measurement("tokens/s", tuple(len(prompt) / first for first, _ in counted)),
        decode=Measurement("tokens/s", tuple((n_generate - 1) / rest for _, rest in counted)),
        time_to_first_token=Measurement("s", tuple(first for first, _ in counted)),
    )


def timed(action: Callable[[], object], repetitions: int = 5, warm_up: int = 1) -> Measurement:
    """Time an action in seconds, after ``warm_up`` runs that are not counted."""
    for _ in range(warm_up):
        action()
    samples = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        samples.append(time.perf_counter() - start)
    return Measurement("s", tuple(samples))


def _one_run(engine: TokenEngine, prompt: Sequence[int], n_generate: int) -> tuple[float, float]:
    """Return the seconds to the first token, and from the first token to the last."""
    start = time.perf_counter()
    first = last = start
    count = 0
    for _ in engine.stream(prompt, n_generate):
        last = time.perf_counter()
        if count == 0:
            first = last
        count += 1
    if count != n_generate:
        raise RuntimeError(f"{engine.name} wrote {count} of {n_generate} tokens.")
    return first - start, last - first
