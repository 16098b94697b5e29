"""A machine's description for people and for files, without anything personal.

The description holds no host name, user name, path or serial number to begin with:
the modules beside this one never read them.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guidebook import units
from guidebook.machine.cpu import Cpu
from guidebook.machine.description import Machine
from guidebook.machine.disk import Disk
from guidebook.machine.gpu import Gpu
from guidebook.machine.memory import Memory
from guidebook.machine.rates import Rate
from guidebook.machine.system import System

_KINDS = {
    "nvme": "NVMe",
    "ssd": "SSD",
    "hdd": "hard disk",
    "network": "network",
    "virtual": "virtual disk",
}
_COMPUTE = {"cuda": "CUDA", "rocm": "ROCm", "metal": "Metal", "other": "no compute driver answers"}


@dataclass(frozen=True)
class MachineReport:
    """A machine's description as rows of a label and a value.

    ``str()`` gives aligned text. In a notebook it is shown as a table.
    """

    rows: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.rows), default=0)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in self.rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # No colours: the page's own apply, light or dark.
        rows = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(label)}</th>'
            f'<td style="text-align: left">{html.escape(value)}</td></tr>\n'
            for label, value in self.rows
        )
        return f"<table>\n<caption>This machine</caption>\n<tbody>\n{rows}</tbody>\n</table>"


def show(machine: Machine, measured: Sequence[Rate] = ()) -> MachineReport:
    """Lay a machine's description out for reading.

    Parameters
    ----------
    machine
        What ``describe`` returned.
    measured
        Rates measured on it, shown below.
    """
    rows = [
        *_cpu_rows(machine.cpu),
        *_memory_rows(machine.memory),
        *_gpu_rows(machine.gpus),
        _disk_row(machine.disk),
        *_system_rows(machine.system),
        ("Python", machine.software.python),
        ("Libraries", _libraries(machine.software.packages)),
    ]
    rows += [(rate.label, str(rate)) for rate in measured]
    return MachineReport(tuple(rows))


def to_dict(machine: Machine, measured: Sequence[Rate] = ()) -> dict[str, Any]:
    """Turn a machine's description into plain data, ready for JSON.

    Parameters
    ----------
    machine
        What ``describe`` returned.
    measured
        Rates measured on it; with any, the result has a key ``measured``.
    """
    data = asdict(machine)
    if measured:
        data["measured"] = [asdict(rate) for rate in measured]
    plain: dict[str, Any] = _plain(data)
    return plain


def _cpu_rows(cpu: Cpu) -> list[tuple[str, str]]:
    cores = [
        f"{_or_unknown(cpu.physical_cores)} physical",
        f"{cpu.logical_cores} logical",
        f"{units.UNKNOWN if cpu.usable_cores is None else f'{cpu.usable_cores:g}'} usable here",
    ]
    sets = cpu.instruction_sets
    hertz = cpu.max_frequency_hz
    return [
        ("Processor", f"{cpu.model or units.UNKNOWN} ({cpu.architecture})"),
        ("Cores", ", ".join(cores)),
        (
            "Instruction sets",
            units.UNKNOWN if sets is None else " ".join(sets) or "none that matter to inference",
        ),
        ("L3 cache", units.memory(cpu.l3_cache_bytes)),
        ("Highest clock", units.quantity(None if hertz is None else hertz / 1e9, "GHz")),
    ]


def _memory_rows(memory: Memory) -> list[tuple[str, str]]:
    rows = [("Memory", _of(memory.available_bytes, memory.total_bytes, "available"))]
    if memory.limit_bytes is not None:
        usable = _of(memory.effective_available_bytes, memory.effective_total_bytes, "available")
        rows.append(("Memory limit here", usable))
    swap = (
        "none"
        if memory.swap_total_bytes == 0
        else _of(memory.swap_free_bytes, memory.swap_total_bytes, "free")
    )
    return [*rows, ("Swap", swap)]


def _gpu_rows(gpus: Sequence[Gpu]) -> list[tuple[str, str]]:
    if not gpus:
        return [("GPU", "none found")]
    return [
        ("GPU" if len(gpus) == 1 else f"GPU {number}", _gpu(gpu)) for number, gpu in enumerate(gpus)
    ]


def _gpu(gpu: Gpu) -> str:
    parts = [gpu.name]
    shared = " shared with the processor" if gpu.unified else ""
    parts.append(_of(gpu.memory_free_bytes, gpu.memory_total_bytes, "free", "memory") + shared)
    if gpu.compute_capability:
        parts.append("compute capability {}.{}".format(*gpu.compute_capability))
    if gpu.power_limit_w is not None:
        parts.append(f"power limit {gpu.power_limit_w:.0f} W")
    if gpu.driver:
        parts.append(f"driver {gpu.driver}")
    if gpu.cuda_driver_version:
        parts.append(f"CUDA up to {gpu.cuda_driver_version}")
    else:
        parts.append(_COMPUTE[gpu.kind])
    return ", ".join(parts)


def _disk_row(disk: Disk) -> tuple[str, str]:
    size = (
        units.UNKNOWN
        if disk.total_bytes is None
        else f"{units.storage(disk.total_bytes)}, {units.storage(disk.free_bytes)} free"
    )
    kind = f"kind {units.UNKNOWN}" if disk.kind is None else _KINDS[disk.kind]
    parts = [size, kind, disk.filesystem or f"file system {units.UNKNOWN}"]
    return f"Disk ({disk.label})", ", ".join(parts)


def _system_rows(system: System) -> list[tuple[str, str]]:
    inside = [
        *([f"WSL {system.wsl}"] if system.wsl else []),
        *([f"container ({system.container})"] if system.container else []),
        *([f"virtual machine ({system.virtual_machine})"] if system.virtual_machine else []),
    ]
    name = system.os_version or system.os
    if system.os not in name and system.os != "Linux":
        name = f"{system.os} {name}"
    return [
        ("Operating system", f"{name}, kernel {system.kernel or units.UNKNOWN}"),
        ("Runs inside", ", ".join(inside) or "no container or virtual machine found"),
    ]


def _libraries(packages: dict[str, str | None]) -> str:
    installed = [f"{name} {version}" for name, version in packages.items() if version]
    missing = [name for name, version in packages.items() if not version]
    text = ", ".join(installed) or "none of those that run models"
    return f"{text}; not installed: {', '.join(missing)}" if missing else text


def _of(free: int | None, total: int | None, word: str, what: str = "") -> str:
    if total is None:
        return f"{what} {units.UNKNOWN}".strip()
    return f"{units.memory(total)}, {units.memory(free)} {word}"


def _or_unknown(value: int | None) -> str:
    return units.UNKNOWN if value is None else str(value)


def _plain(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
