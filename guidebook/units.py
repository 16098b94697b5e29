"""Units and how to write them: GiB for memory, GB for disk, GB/s for bandwidth.

One rule holds everywhere: a value that is not known is ``None`` and is written
"unknown", never guessed and never zero.
"""

from __future__ import annotations

import math

KIB = 1024
MIB = 1024**2
GIB = 1024**3
KB = 1000
MB = 1000**2
GB = 1000**3

UNKNOWN = "unknown"

_BINARY_STEPS = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_DECIMAL_STEPS = ((1000 * GB, "TB"), (GB, "GB"), (MB, "MB"), (KB, "kB"))


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits and thousands separators.

    Parameters
    ----------
    value
        Any real number, or ``None`` for unknown.
    digits
        Significant digits to keep; digits before the decimal point are never dropped.
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = max(0, digits - 1 - magnitude)
    return f"{value:,.{decimals}f}"


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """Write a value with its unit, for example ``107 tokens/s``."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{number(value, digits)} {unit}"


def memory(n_bytes: float | None) -> str:
    """Write an amount of memory in binary units, for example ``1.50 GiB``."""
    return _scaled(n_bytes, _BINARY_STEPS)


def storage(n_bytes: float | None) -> str:
    """Write an amount of disk in decimal units, as disks are sold: ``98.3 MB``."""
    return _scaled(n_bytes, _DECIMAL_STEPS)


def bandwidth(bytes_per_second: float | None) -> str:
    """Write a memory bandwidth in GB/s (10⁹ bytes a second), as data sheets do."""
    return quantity(None if bytes_per_second is None else bytes_per_second / GB, "GB/s")


def compute(flop_per_second: float | None) -> str:
    """Write an arithmetic rate in GFLOP/s, or TFLOP/s from 1,000 GFLOP/s on."""
    if flop_per_second is None:
        return UNKNOWN
    if abs(flop_per_second) >= 1e12:
        return quantity(flop_per_second / 1e12, "TFLOP/s")
    return quantity(flop_per_second / 1e9, "GFLOP/s")


def duration(seconds: float | None) -> str:
    """Write a time span in the largest unit that keeps it readable."""
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if abs(seconds) < 1e-3:
        return quantity(seconds * 1e6, "µs")
    if abs(seconds) < 1:
        return quantity(seconds * 1e3, "ms")
    if abs(seconds) < 120:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction (0.031) as a percentage (``3.1 %``)."""
    return quantity(None if fraction is None else fraction * 100, "%", digits)


def _scaled(n_bytes: float | None, steps: tuple[tuple[int, str], ...]) -> str:
    if n_bytes is None or math.isnan(n_bytes):
        return UNKNOWN
    for size, name in steps:
        if abs(n_bytes) >= size:
            return quantity(n_bytes / size, name)
    return f"{number(n_bytes)} bytes"
