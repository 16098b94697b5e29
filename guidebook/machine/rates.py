"""What this machine's memory and processor really do, measured in a few seconds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from guidebook import units
from guidebook.machine import cpu, memory
from guidebook.machine.cpu import usable_threads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DType", "Rate", "matrix_flops", "memory_bandwidth", "usable_threads"]

DType = Literal["float32", "float64", "float16", "bfloat16"]

_REPETITIONS = 5
_SMALLEST_ARRAY = 256 * units.MIB
_LARGEST_ARRAY = 2 * units.GIB
_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_FIRST_SIZE = 256
_FLOPS_SECONDS = 2.0


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Parameters
    ----------
    value
        The median of the samples.
    samples
        One rate for each repetition, in the order measured.
    unit
        ``bytes/s`` or ``FLOP/s``.
    method
        How it was measured, in one sentence.
    threads
        How many threads did it.
    label
        What was measured, for a reader.
    """

    value: float
    samples: tuple[float, ...]
    unit: str
    method: str
    threads: int
    label: str = "Measured rate"

    def __str__(self) -> str:
        write = units.bandwidth if self.unit == "bytes/s" else units.compute
        low, high = write(min(self.samples)), write(max(self.samples))
        runs = _counted(len(self.samples), "run")
        return f"{write(self.value)} ({low} to {high}, {runs}, {_counted(self.threads, 'thread')})"


def memory_bandwidth(threads: int | None = None, seconds: float = 2.0) -> Rate:
    """Measure how fast this machine reads its main memory.

    Several threads each look for the largest number in their part of an array that is
    much larger than the processor's caches. Of the reductions that numpy offers, the
    maximum of float32 is the fastest on data in the cache (about twice the rate of a
    sum), so that memory and not arithmetic is what limits it. Decoding a
    language model does the same thing: it reads all the weights once for each token.

    Parameters
    ----------
    threads
        How many threads read; by default ``usable_threads()``.
    seconds
        How long to repeat, after one warm-up; at least five repetitions are made.

    Returns
    -------
    Rate
        In bytes per second.
    """
    import numpy as np

    threads = usable_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}.")
    l3_bytes = cpu.describe().l3_cache_bytes
    n_bytes = array_bytes(l3_bytes, memory.describe().effective_available_bytes)
    array = np.empty(n_bytes // 4, dtype=np.float32)
    parts: list[NDArray[np.float32]] = [
        array[first:last] for first, last in pairwise(_bounds(array.size, threads))
    ]
    with ThreadPoolExecutor(threads) as pool:

        def each(work: Callable[[NDArray[np.float32]], object]) -> None:
            list(pool.map(work, parts))

        # Each thread touches its part first, so that the memory lies close to its core.
        each(lambda part: part.fill(1.0))
        samples = _repeat(lambda: each(np.maximum.reduce), array.nbytes, seconds)
    times = f", {array.nbytes / l3_bytes:.3g} times the L3 cache" if l3_bytes else ""
    return Rate(
        value=statistics.median(samples),
        samples=samples,
        unit="bytes/s",
        method=f"numpy maximum over {units.memory(array.nbytes)} of float32{times}",
        threads=threads,
        label="Memory bandwidth (read)",
    )


def matrix_flops(size: int = 2048, dtype: DType = "float32") -> Rate:
    """Measure how fast this processor multiplies matrices.

    float32 and float64 go through numpy and its BLAS library, bfloat16 and float16
    through torch. A processor without instructions for a type can be hundreds of times
    slower with it: the size is then reduced, so that the time stays short.

    Parameters
    ----------
    size
        Rows and columns of the square matrices; never more than this.
    dtype
        The numbers' type.

    Returns
    -------
    Rate
        In floating-point operations per second, 2 size³ for each product.

    Raises
    ------
    ValueError
        For a size below 1 or an unknown type.
    RuntimeError
        For bfloat16 and float16 if torch is not installed.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}.")
    if dtype in ("float32", "float64"):
        prepare, threads, through = _numpy_product(dtype)
    elif dtype in ("bfloat16", "float16"):
        prepare, threads, through = _torch_product(dtype)
    else:
        raise ValueError(f"dtype must be float32, float64, bfloat16 or float16, not {dtype!r}.")
    size = _fitting_size(prepare, size)
    samples = _repeat(prepare(size), 2 * size**3, _FLOPS_SECONDS / 2)
    return Rate(
        value=statistics.median(samples),
        samples=samples,
        unit="FLOP/s",
        method=f"product of two {size} × {size} matrices of {dtype} with {through}",
        threads=threads,
        label=f"Matrix product ({dtype})",
    )


def array_bytes(l3_bytes: int | None, available_bytes: int | None) -> int:
    """Choose how large an array must be so that caches do not hold it.

    Parameters
    ----------
    l3_bytes
        The level-3 caches together; None if unknown.
    available_bytes
        Memory that may be used; None if unknown.

    Returns
    -------
    Eight times the cache and at least 256 MiB; no more than 2 GiB unless twice the
    cache is more; never above an eighth of the available memory.
    """
    cache = l3_bytes or 0
    wanted = max(_SMALLEST_ARRAY, min(8 * cache, max(_LARGEST_ARRAY, 2 * cache)))
    if available_bytes is not None:
        wanted = min(wanted, available_bytes // 8)
    return max(wanted, units.MIB)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _bounds(length: int, parts: int) -> list[int]:
    return [length * part // parts for part in range(parts + 1)]


def _repeat(work: Callable[[], object], amount: float, seconds: float) -> tuple[float, ...]:
    """Time some work after one warm-up: five times or more, until the time is used up."""
    work()
    samples: list[float] = []
    begin = time.perf_counter()
    while len(samples) < _REPETITIONS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        work()
        samples.append(amount / max(time.perf_counter() - start, 1e-9))
    return tuple(samples)


Prepare = Callable[[int], Callable[[], object]]


def _numpy_product(dtype: str) -> tuple[Prepare, int, str]:
    import numpy as np

    def prepare(size: int) -> Callable[[], object]:
        generator = np.random.default_rng(0)
        first, second = (generator.random((size, size)).astype(dtype) for _ in range(2))
        result = np.empty_like(first)
        return lambda: np.matmul(first, second, out=result)

    return prepare, _blas_threads(), f"numpy {np.__version__} and its BLAS library"


def _torch_product(dtype: str) -> tuple[Prepare, int, str]:
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(f"Measuring {dtype} needs torch, which is not installed.") from error

    def prepare(size: int) -> Callable[[], object]:
        kind = getattr(torch, dtype)
        generator = torch.Generator().manual_seed(0)
        first, second = (torch.rand((size, size), generator=generator).to(kind) for _ in range(2))
        return lambda: torch.mm(first, second)

    return prepare, torch.get_num_threads(), f"torch {torch.__version__} on the CPU"


def _blas_threads() -> int:
    """Say how many threads numpy's BLAS library takes: all it may, unless told otherwise."""
    for name in _BLAS_VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(cpu.affinity() or ()) or os.cpu_count() or 1


def _fitting_size(prepare: Prepare, largest: int) -> int:
    """Find the largest size, doubling from a small one, whose repetitions fit the time."""
    size = min(_FIRST_SIZE, largest)
    while size < largest:
        work = prepare(size)
        work()
        start = time.perf_counter()
        work()
        # The next size takes eight times as long; a warm-up and all repetitions must fit.
        expected = 8 * (time.perf_counter() - start) * (_REPETITIONS + 1)
        if expected > _FLOPS_SECONDS:
            break
        size = min(2 * size, largest)
    return size
