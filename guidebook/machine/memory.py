"""How much memory there is, and how much of it this process may use."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from guidebook.machine import _cgroup
from guidebook.machine._outside import ROOT, Run, command_output, fields, read_text, to_int

_PAGE_SIZE = re.compile(r"page size of (\d+) bytes")
_SWAP = re.compile(r"(total|free)\s*=\s*([\d.]+)M")


@dataclass(frozen=True)
class Memory:
    """Memory in bytes; None is unknown.

    Parameters
    ----------
    total_bytes, available_bytes
        What the operating system reports: installed, and free without swapping.
    swap_total_bytes, swap_free_bytes
        Swap space; 0 if there is none.
    limit_bytes
        The limit of this process's control group (a container's, for example) if
        it is below the total.
    effective_total_bytes, effective_available_bytes
        What this process can really use: the smaller of the machine's and the group's.
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    limit_bytes: int | None = None
    effective_total_bytes: int | None = None
    effective_available_bytes: int | None = None


def describe() -> Memory:
    """Look at the memory of this machine."""
    system = platform.system()
    if system == "Linux":
        return from_linux()
    if system == "Darwin":
        return from_macos()
    return from_psutil()


def parse_meminfo(text: str | None) -> dict[str, int]:
    """Read /proc/meminfo.

    Returns
    -------
    The values by name, in bytes. Lines that are not understood are left out.
    """
    values = {}
    for name, value in fields(text).items():
        words = value.split()
        amount = to_int(words[0]) if words else None
        if amount is not None:
            values[name] = amount * 1024 if words[1:] == ["kB"] else amount
    return values


def from_linux(root: Path = ROOT) -> Memory:
    """Read the memory of a Linux machine and of the control groups of this process."""
    info = parse_meminfo(read_text(root / "proc/meminfo"))
    total = info.get("MemTotal")
    # Old kernels and WSL 1 have no MemAvailable: free memory is then a safe lower bound.
    available = info.get("MemAvailable", info.get("MemFree"))
    group = _cgroup.memory(root)
    limit = group.limit_bytes
    if limit is not None and total is not None and limit >= total:
        limit = None
    return Memory(
        total_bytes=total,
        available_bytes=available,
        swap_total_bytes=info.get("SwapTotal"),
        swap_free_bytes=info.get("SwapFree"),
        limit_bytes=limit,
        effective_total_bytes=_smaller(total, limit),
        effective_available_bytes=_smaller(available, group.headroom_bytes),
    )


def from_macos(run: Run = command_output) -> Memory:
    """Read the memory of a Mac through ``sysctl`` and ``vm_stat``."""
    total = to_int(run(["sysctl", "-n", "hw.memsize"]))
    swap = dict(_SWAP.findall(run(["sysctl", "-n", "vm.swapusage"]) or ""))
    available = _macos_available(run(["vm_stat"]))
    return Memory(
        total_bytes=total,
        available_bytes=available,
        swap_total_bytes=_mebibytes(swap.get("total")),
        swap_free_bytes=_mebibytes(swap.get("free")),
        effective_total_bytes=total,
        effective_available_bytes=available,
    )


def from_psutil() -> Memory:
    """Read the memory through psutil, where there is neither /proc nor sysctl."""
    try:
        import psutil
    except ImportError:
        return Memory()
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        swap_total_bytes=swap.total,
        swap_free_bytes=swap.free,
        effective_total_bytes=memory.total,
        effective_available_bytes=memory.available,
    )


def _macos_available(text: str | None) -> int | None:
    page = _PAGE_SIZE.search(text or "")
    pages = {
        name: to_int(value.rstrip(".")) for name, value in fields(text).items() if name[:1] == "P"
    }
    kinds = [pages.get(f"Pages {kind}") for kind in ("free", "inactive", "speculative")]
    known = [kind for kind in kinds if kind is not None]
    return int(page[1]) * sum(known) if page and len(known) == len(kinds) else None


def _mebibytes(text: str | None) -> int | None:
    try:
        return None if text is None else round(float(text) * 1024**2)
    except (ValueError, OverflowError):
        return None


def _smaller(first: int | None, second: int | None) -> int | None:
    return min((value for value in (first, second) if value is not None), default=None)
