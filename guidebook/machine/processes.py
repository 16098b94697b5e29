"""What a process takes of memory and of a GPU's memory, and which process holds a port."""

from __future__ import annotations

import os
from dataclasses import dataclass

from guidebook.machine._outside import within

_SECONDS = 3.0


@dataclass(frozen=True)
class MemoryUse:
    """Memory of a process and of those it has started, in bytes; ``None`` is unknown.

    Attributes
    ----------
    rss_bytes
        Resident memory. Pages of a mapped model file count as soon as they have been read.
    vram_bytes
        Memory on NVIDIA GPUs, as the driver counts it; ``None`` without such a GPU, and where the
        driver does not tell processes apart (WSL2).
    """

    rss_bytes: int | None
    vram_bytes: int | None = None


def memory_of(pid: int | None = None) -> MemoryUse:
    """Return what a process (without a number: this one) and its children take now."""
    import psutil

    pids = []
    rss = 0
    try:
        process = psutil.Process(pid if pid is not None else os.getpid())
        for one in (process, *(process.children(recursive=True) if pid is not None else ())):
            rss += one.memory_info().rss
            pids.append(one.pid)
    except psutil.Error:
        return MemoryUse(None)
    return MemoryUse(rss, within(_SECONDS, lambda: _vram_bytes(pids)))


def listening_on(port: int) -> int | None:
    """Return the number of the process that listens on a TCP port of this machine.

    ``None`` if there is none, or if it belongs to somebody else and the system keeps it secret.
    """
    import psutil

    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    for connection in found:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port == port:
            return connection.pid
    return None


def _vram_bytes(pids: list[int]) -> int | None:
    import pynvml

    pynvml.nvmlInit()
    try:
        total = None
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device):
                if process.pid in pids and process.usedGpuMemory is not None:
                    total = (total or 0) + process.usedGpuMemory
        return total
    finally:
        pynvml.nvmlShutdown()
