"""What one call of attention costs: time, and memory while it runs, for each kernel there is.

Attention has the same result whatever computes it. What differs is whether the whole matrix of
scores, length × length for each head, is ever in memory. :func:`kernels` says which kernels work
here, :func:`attend` calls one, and :func:`cost` measures points such as "math, 4,096 tokens,
causal".

The points run in a child process, so that its peak memory is theirs alone, and so that a point
that the system ends for want of memory ends nothing else. The child ends with this process
(:mod:`guidebook.lifeline`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import math
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from guidebook import lifeline, units
from guidebook.measure.timing import Measurement

if TYPE_CHECKING:
    import torch

#: Kernels by name, and what each is.
KERNELS: Mapping[str, str] = {
    "eager": "matrix products and a softmax, one after the other",
    "math": "the same inside PyTorch's scaled_dot_product_attention",
    "flash": "PyTorch's FlashAttention",
    "efficient": "PyTorch's memory-efficient attention, from xFormers",
    "cudnn": "NVIDIA's cuDNN, through PyTorch",
    "flash-attn": "the package flash-attn",
}
DTYPES = ("float64", "float32", "bfloat16", "float16")

_BACKENDS = {
    "math": "MATH",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}
_WHOLE = ("eager", "math")
_GPU_ONLY = ("efficient", "cudnn")
# Matrices of scores, in the type of the inputs, that exist at once in a kernel that writes them
# out: measured on a CPU with PyTorch 2.13, rounded up. In 16 bits the softmax works in float32.
_MATRICES = {("forward", 4): 3, ("backward", 4): 4, ("forward", 2): 7, ("backward", 2): 8}
# A point may use this part of what is free: the rest is for what happens meanwhile.
_PART_OF_FREE = 0.8
_TIME_LIMIT = 120.0
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_WARM_UP_LENGTH = 256
# glibc keeps freed blocks of up to 32 MiB for the next that asks: a call could hide in what an
# earlier one has left. With this each block is the system's, and goes back at once.
_EXACT_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(64 * units.KIB)}


class AttentionError(RuntimeError):
    """Attention cannot be measured here; the message says why and what to do."""


@dataclass(frozen=True)
class Kernel:
    """A way to compute attention, and whether it works here.

    Attributes
    ----------
    name, what
        A key of :data:`KERNELS`, and its value.
    usable
        Whether a small call has worked.
    because
        Why not, as a sentence; empty if it has.
    """

    name: str
    what: str
    usable: bool
    because: str = ""


@dataclass(frozen=True)
class Point:
    """One call to measure: one sequence through one layer of attention.

    Attributes
    ----------
    kernel
        A key of :data:`KERNELS`.
    length
        Tokens.
    n_heads, head_size
        Heads, and numbers for each head and token. Keys and values have as many heads as queries.
    causal
        Whether a token attends to itself and earlier ones only.
    dtype
        Type of the inputs, one of :data:`DTYPES`.
    backward
        Whether the gradients of queries, keys and values are computed too.
    """

    kernel: str
    length: int
    n_heads: int = 9
    head_size: int = 64
    causal: bool = True
    dtype: str = "float32"
    backward: bool = False

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"No kernel is called {self.kernel!r}. Known: {', '.join(KERNELS)}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"The type {self.dtype!r} is not one of {', '.join(DTYPES)}.")
        if min(self.length, self.n_heads, self.head_size) < 1:
            raise ValueError("A point has at least one token, one head and one number in it.")

    @property
    def bytes_per_number(self) -> int:
        """Size of a number of the inputs."""
        return {"float64": 8, "float32": 4}.get(self.dtype, 2)

    @property
    def score_bytes(self) -> int:
        """Size of the whole matrix of scores, over all heads."""
        return self.n_heads * self.length**2 * self.bytes_per_number

    @property
    def output_bytes(self) -> int:
        """Size of the result, which is that of the queries, the keys or the values."""
        return self.n_heads * self.length * self.head_size * self.bytes_per_number

    @property
    def expected_bytes(self) -> int:
        """Roughly the memory that the call needs beside its inputs, to be asked for before it."""
        phase = "backward" if self.backward else "forward"
        tensors = (6 if self.backward else 3) * self.output_bytes
        if self.kernel not in _WHOLE:
            return 3 * tensors
        return _MATRICES[phase, min(self.bytes_per_number, 4)] * self.score_bytes + tensors

    def __str__(self) -> str:
        done = "forward and backward" if self.backward else "forward"
        mask = "causal" if self.causal else "not causal"
        return f"{self.kernel}, {self.length:,} tokens, {mask}, {self.dtype}, {done}"


@dataclass(frozen=True)
class Cost:
    """What one point has cost.

    Attributes
    ----------
    point
        What was called.
    time
        Seconds for each call; None if it did not run. Large blocks of memory are fresh from the
        system at each call.
    growth_bytes
        Peak memory of one call beside its inputs, its result included; None if it did not run,
        or the system does not say.
    skipped
        Why it did not run, as a sentence; empty if it did.
    """

    point: Point
    time: Measurement | None = None
    growth_bytes: int | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Power:
    """A power law ``value = factor × length ** exponent``, fitted to logarithms.

    Attributes
    ----------
    exponent, error
        The slope in a plot with logarithmic axes, and its standard error.
    factor
        The value at length 1.
    """

    exponent: float
    error: float
    factor: float

    def at(self, length: float) -> float:
        """Return the fitted value at a length."""
        return float(self.factor * length**self.exponent)

    def __str__(self) -> str:
        return f"{self.exponent:.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Run:
    """What an action of this process has cost.

    Attributes
    ----------
    time
        Seconds of every call.
    growth_bytes
        Peak memory of the first call beside what was in use; None where the system is silent.
    result
        What the first call returned.
    """

    time: Measurement
    growth_bytes: int | None
    result: Any


def kernels(device: str = "cpu", dtype: str = "float32", head_size: int = 64) -> tuple[Kernel, ...]:
    """Find out which kernels work here, by a small call of each.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``.
    dtype, head_size
        Type and size of the inputs; on a GPU they decide which kernels can be used.

    Raises
    ------
    AttentionError
        The device is not there.
    """
    _check_device(device)
    found = []
    for name, what in KERNELS.items():
        because = _obstacle(name, device)
        if not because:
            because = _try(Point(name, 64, 2, head_size, dtype=dtype), device)
        found.append(Kernel(name, what, not because, because))
    return tuple(found)


def attend(
    kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False
) -> torch.Tensor:
    """Compute attention with one kernel.

    Parameters
    ----------
    kernel
        A key of :data:`KERNELS`.
    q, k, v
        Queries, keys and values of shape (sequences, heads, tokens, head size).
    causal
        Whether a token attends to itself and earlier ones only.

    Raises
    ------
    ValueError
        There is no kernel of this name.
    RuntimeError
        The kernel does not take such inputs; :func:`kernels` says which do.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    if kernel == "eager":
        return _eager(q, k, v, causal)
    if kernel == "flash-attn":
        from flash_attn import flash_attn_func  # type: ignore[import-not-found, unused-ignore]

        # Its axes are (sequences, tokens, heads, head size).
        parts = (one.transpose(1, 2) for one in (q, k, v))
        result: torch.Tensor = flash_attn_func(*parts, causal=causal)
        return result.transpose(1, 2)
    if kernel not in _BACKENDS:
        raise ValueError(f"No kernel is called {kernel!r}. Known: {', '.join(KERNELS)}.")
    with sdpa_kernel(getattr(SDPBackend, _BACKENDS[kernel])):
        return scaled_dot_product_attention(q, k, v, is_causal=causal)


def inputs(
    point: Point, device: str = "cpu", seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random queries, keys and values for a point, the same for every kernel."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (1, point.n_heads, point.length, point.head_size)

    def draw() -> torch.Tensor:
        # Drawn in one type, so that every type starts from the same numbers.
        wide = torch.randn(shape, generator=generator)
        return wide.to(device, getattr(torch, point.dtype)).requires_grad_(point.backward)

    return draw(), draw(), draw()


def cost(
    points: Sequence[Point],
    *,
    device: str = "cpu",
    repetitions: int = 5,
    enough_seconds: float = 2.0,
    free_bytes: int | None = None,
    time_limit: float = _TIME_LIMIT,
    n_threads: int | None = None,
) -> tuple[Cost, ...]:
    """Measure points, one after the other, in a child process.

    A point whose matrix would not fit what is free is skipped. So is one that fails: the points
    after it still run.

    Parameters
    ----------
    points
        What to call.
    device
        ``"cpu"`` or ``"cuda"``.
    repetitions, enough_seconds
        Timed calls for each point; after so many seconds no further one is started, but there
        are at least two, unless one is wanted.
    free_bytes
        Memory that may be used; by default what is free when the point's turn comes.
    time_limit
        Seconds for one point.
    n_threads
        PyTorch's threads; by default its own choice.

    Raises
    ------
    AttentionError
        The device is not there, or the child process does not start.
    """
    if not points or repetitions < 1:
        raise ValueError("Measuring needs at least one point and one repetition.")
    _check_device(device)
    found: list[Cost] = []
    while len(found) < len(points):
        left = points[len(found) :]
        job = {
            "points": [asdict(point) for point in left],
            "device": device,
            "repetitions": repetitions,
            "enough_seconds": enough_seconds,
            "free_bytes": free_bytes,
            "n_threads": n_threads,
        }
        done, ended = _run(job, len(left), time_limit)
        found += [_as_cost(point, event) for point, event in zip(left, done, strict=False)]
        if len(done) < len(left):
            point = left[len(done)]
            found.append(Cost(point, skipped=f"{point}: {ended}."))
    return tuple(found)


def fit_power(lengths: Sequence[float], values: Sequence[float]) -> Power:
    """Fit a power law to measured values: how they grow with the length.

    Raises
    ------
    ValueError
        There are fewer than three different lengths, or a value is not positive.
    """
    if len(lengths) != len(values) or len(set(lengths)) < 3:
        raise ValueError("A slope and its error need values at three different lengths or more.")
    if min(*lengths, *values) <= 0:
        raise ValueError("A power law has positive lengths and values only.")
    xs, ys = [math.log(one) for one in lengths], [math.log(one) for one in values]
    x_mean, y_mean = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    spread = math.fsum((x - x_mean) ** 2 for x in xs)
    slope = math.fsum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    start = y_mean - slope * x_mean
    rest = math.fsum((y - start - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Power(slope, math.sqrt(rest / (len(xs) - 2) / spread), math.exp(start))


def memory_growth(action: Callable[[], object], device: str = "cpu") -> int | None:
    """Return the peak memory of an action beside what is in use before, in bytes.

    On a CPU it is that of the whole process, so nothing else may run in it.

    Returns
    -------
    The bytes; None where the system does not say.
    """
    from guidebook.measure.memory import peak_memory

    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    _return_memory()
    with peak_memory() as peak:
        action()
    return peak.growth_bytes


def seconds(action: Callable[[], object], device: str = "cpu") -> float:
    """Time an action once; on a GPU, by the GPU's own clock."""
    if device == "cuda":
        import torch

        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call, unused-ignore]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call, unused-ignore]
        start.record()
        action()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1000  # it is told in milliseconds
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run(action: Callable[[], object], device: str = "cpu", repetitions: int = 2) -> Run:
    """Measure an action: the memory of its first call, the time of all.

    Call it once on something small before, or the first reading pays for loading libraries.
    """
    if repetitions < 1:
        raise ValueError("Measuring needs at least one repetition.")
    results: list[object] = []
    samples: list[float] = []

    def once() -> None:
        samples.append(seconds(lambda: results.append(action()), device))

    growth = memory_growth(once, device)
    for _ in range(repetitions - 1):
        once()
        results.pop()
    return Run(Measurement("s", tuple(samples)), growth, results[0])


def _return_memory() -> None:
    """Give what this process has freed back to the system, or a call could hide in it."""
    from guidebook.engines.transformers import _trim_heap

    gc.collect()
    _trim_heap()


def _eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Compute attention as transformers does with ``attn_implementation="eager"``."""
    import torch

    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        ones = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
        scores = scores.masked_fill(~ones.tril(), torch.finfo(scores.dtype).min)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights: torch.Tensor = torch.softmax(scores, dim=-1, dtype=wide).to(q.dtype)
    return weights @ v


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise AttentionError(f"Attention is not measured on {device!r}. Use 'cpu' or 'cuda'.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise AttentionError("PyTorch finds no NVIDIA or AMD GPU here. Use device='cpu'.")


def _obstacle(name: str, device: str) -> str:
    """Say what keeps a kernel from working before it is tried; empty: nothing."""
    if device == "cpu" and name in _GPU_ONLY:
        return "PyTorch has it for GPUs only."
    if name == "flash-attn":
        if device == "cpu":
            return "The package runs on GPUs only."
        if importlib.util.find_spec("flash_attn") is None:
            return "The package is not installed; requirements-gpu.txt says how."
    return ""


def _try(point: Point, device: str) -> str:
    """Call a kernel once; return why it failed, as a sentence."""
    with warnings.catch_warnings(record=True) as said:
        # On a GPU, PyTorch warns about everything that is in the way, and then raises.
        warnings.simplefilter("always")
        try:
            attend(point.kernel, *inputs(point, device), point.causal).sum().item()
        except Exception as error:
            reasons = [str(one.message) for one in said]
            named = [one for one in reasons if "not used because" not in one]
            return _sentence((named or [str(error)])[-1])
    return ""


def _sentence(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "it failed without a word")
    # PyTorch ends a warning with the place in its source.
    line = line.partition(" (Triggered internally")[0].strip().rstrip(".")
    return f"{line[:1].upper()}{line[1:]}."


# --- the child, as the parent sees it ---------------------------------------------------------


def _run(job: Mapping[str, Any], n_points: int, limit: float) -> tuple[list[dict[str, Any]], str]:
    """Run points in a child; return what came back, and how it ended if some did not."""
    try:
        child = lifeline.start(
            [sys.executable, "-P", "-m", __name__],
            environment={**os.environ, **_EXACT_HEAP},
            keep_stdout=False,
        )
    except OSError as error:
        raise AttentionError(f"A child process cannot be started: {error.strerror}.") from error
    events: list[dict[str, Any]] = []
    try:
        assert child.stdin is not None  # noqa: S101 - opened as pipes
        assert child.stdout is not None  # noqa: S101
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and says why below
            child.stdin.write(f"{json.dumps(job)}\n".encode())
        ended = ""
        while len(events) <= n_points:
            try:
                line = lines.get(timeout=limit if events else max(limit, _START_SECONDS))
            except queue.Empty:
                ended = f"it took longer than {units.duration(limit)}"
                break
            if line is None:
                with contextlib.suppress(Exception):
                    child.wait(_END_SECONDS)
                ended = child.how_it_ended()
                break
            events.append(json.loads(line))
        if not events:
            raise AttentionError(f"The process that measures attention did not start: {ended}.")
        return events[1:], ended
    finally:
        lifeline.end(child)


def _read(pipe: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(OSError, ValueError), pipe:
        rest = b""
        while part := pipe.read(4096):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                lines.put(line.decode("utf-8", "replace"))
    lines.put(None)


def _as_cost(point: Point, event: Mapping[str, Any]) -> Cost:
    if event.get("skipped"):
        return Cost(point, skipped=str(event["skipped"]))
    return Cost(point, Measurement("s", tuple(event["seconds"])), event["growth_bytes"])


# --- the child itself -------------------------------------------------------------------------


def _child() -> None:
    job = json.loads(lifeline.read_line())
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # From here on standard output is the log: a library that prints must not break the reports.
    os.dup2(2, 1)
    lifeline.watch()
    import torch

    def say(**event: object) -> None:
        reports.write(json.dumps(event) + "\n")
        reports.flush()

    if job["n_threads"]:
        torch.set_num_threads(job["n_threads"])
    say(ready=True)
    for one in job["points"]:
        point = Point(**one)
        try:
            say(**_measure(point, job))
        except (RuntimeError, MemoryError, ImportError) as error:
            say(skipped=f"{point}: {_sentence(str(error))}")


def _measure(point: Point, job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one point: first the memory of one call, then the time of several."""
    device = job["device"]
    free = _free_bytes(device) if job["free_bytes"] is None else job["free_bytes"]
    if free is not None and point.expected_bytes > _PART_OF_FREE * free:
        return {
            "skipped": f"{point.kernel} at {point.length:,} tokens needs about "
            f"{units.memory(point.expected_bytes)}, and {units.memory(free)} are free."
        }
    # Loads libraries and starts threads, which would count as memory of the call.
    small = asdict(point) | {"length": min(point.length, _WARM_UP_LENGTH)}
    _step(Point(**small), device)()
    step = _step(point, device)
    growth = memory_growth(step, device)
    samples: list[float] = []
    end = time.monotonic() + job["enough_seconds"]
    least = min(2, job["repetitions"])
    while len(samples) < least or (len(samples) < job["repetitions"] and time.monotonic() < end):
        samples.append(seconds(step, device))
    return {"seconds": samples, "growth_bytes": growth}


def _step(point: Point, device: str) -> Callable[[], object]:
    """Return a function that makes the call of a point, on inputs that exist before it."""
    import torch

    q, k, v = inputs(point, device)
    if not point.backward:
        return lambda: attend(point.kernel, q, k, v, point.causal)
    gradient = torch.ones_like(q)

    def both() -> object:
        result = attend(point.kernel, q, k, v, point.causal)
        return torch.autograd.grad(result, (q, k, v), gradient)

    return both


def _free_bytes(device: str) -> int | None:
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    from guidebook.machine import memory

    return memory.describe().effective_available_bytes


if __name__ == "__main__":
    _child()
