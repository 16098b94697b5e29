"""Peak memory of this process while a piece of work runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_SECONDS = 0.01


@dataclass
class PeakMemory:
    """Resident memory before a piece of work and at its highest point, in bytes.

    ``method`` says how the peak was found: the kernel's own high-water mark (exact), or samples
    every 10 ms (a short peak can be missed). Memory-mapped model files count as they are read.
    """

    before_bytes: int = 0
    peak_bytes: int | None = None
    method: str = ""

    @property
    def growth_bytes(self) -> int | None:
        """Peak less the memory in use before; ``None`` while the work runs."""
        return None if self.peak_bytes is None else max(0, self.peak_bytes - self.before_bytes)


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the peak resident memory of the body of a ``with`` statement.

    On Linux the kernel's high-water mark is reset first and read afterwards. Elsewhere, and
    where the reset is not allowed, a thread samples the resident memory.
    """
    import psutil

    process = psutil.Process()
    result = PeakMemory(before_bytes=process.memory_info().rss)
    if _reset_high_water_mark():
        try:
            yield result
        finally:
            result.peak_bytes = _high_water_mark()
            result.method = "kernel high-water mark"
        return
    samples = [result.before_bytes]
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()
        samples.append(process.memory_info().rss)
        result.peak_bytes = max(samples)
        result.method = "samples every 10 ms"


def _reset_high_water_mark() -> bool:
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")  # 5: proc(5), reset VmHWM
    except OSError:
        return False
    return _high_water_mark() is not None


def _high_water_mark() -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) * 1024 if found else None
