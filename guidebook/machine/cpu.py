"""Which processor this is and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guidebook.machine import _cgroup
from guidebook.machine._outside import (
    ROOT,
    Run,
    command_output,
    cpu_list,
    fields,
    read_int,
    read_text,
    to_int,
    to_size,
)

# The instruction sets that decide how fast inference runs: our name, Linux's flag.
_X86 = (
    ("SSE3", "pni"),
    ("AVX", "avx"),
    ("AVX2", "avx2"),
    ("F16C", "f16c"),
    ("FMA", "fma"),
    ("AVX-VNNI", "avx_vnni"),
    ("AVX512F", "avx512f"),
    ("AVX512-VNNI", "avx512_vnni"),
    ("AVX512-BF16", "avx512_bf16"),
    ("AMX-INT8", "amx_int8"),
    ("AMX-BF16", "amx_bf16"),
)
_ARM = (
    ("NEON", "asimd"),
    ("DOTPROD", "asimddp"),
    ("I8MM", "i8mm"),
    ("SVE", "sve"),
    ("BF16", "bf16"),
)
_MACOS_ARM = (
    ("NEON", "hw.optional.neon"),
    ("DOTPROD", "hw.optional.arm.FEAT_DotProd"),
    ("I8MM", "hw.optional.arm.FEAT_I8MM"),
    ("SVE", "hw.optional.arm.FEAT_SVE"),
    ("BF16", "hw.optional.arm.FEAT_BF16"),
)
# macOS spells the flags of an Intel processor differently.
_MACOS_X86 = (
    ("SSE3", "SSE3"),
    ("AVX", "AVX1.0"),
    ("AVX2", "AVX2"),
    ("F16C", "F16C"),
    ("FMA", "FMA"),
    ("AVX512F", "AVX512F"),
    ("AVX512-VNNI", "AVX512VNNI"),
)
_MACOS_KEYS = (
    "machdep.cpu.brand_string",
    "machdep.cpu.features",
    "machdep.cpu.leaf7_features",
    "hw.physicalcpu",
    "hw.logicalcpu",
    "hw.perflevel0.physicalcpu",
    "hw.l3cachesize",
    "hw.cpufrequency_max",
    *(key for _, key in _MACOS_ARM),
)

# Arm cores say who designed them and a part number, not a name.
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4F): "Neoverse V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD83): "Neoverse V3AE",
    (0x41, 0xD84): "Neoverse V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse N3",
    (0x51, 0x001): "Qualcomm Oryon",
    (0x61, 0x022): "Apple M1 (efficiency core)",
    (0x61, 0x023): "Apple M1 (performance core)",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}
_CPU_FOLDER = re.compile(r"cpu\d+")


@dataclass(frozen=True)
class Cpu:
    """The processor; None is unknown.

    Parameters
    ----------
    model
        Its name as the machine gives it.
    architecture
        Such as ``x86_64`` or ``arm64``.
    physical_cores, logical_cores
        Cores, and hardware threads that the system runs on.
    usable_cores
        Logical cores this process may use after its CPU affinity, control group and
        CPU quota; 1.5 means one and a half cores' worth of time.
    instruction_sets
        Those that matter to inference and that every core has.
    l3_cache_bytes
        All level-3 caches together.
    max_frequency_hz
        Highest clock of the fastest core.
    """

    model: str | None
    architecture: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: float | None
    instruction_sets: tuple[str, ...] | None
    l3_cache_bytes: int | None
    max_frequency_hz: float | None


def unknown() -> Cpu:
    """Return what Python itself knows about the processor, and None for the rest."""
    return Cpu(None, platform.machine() or "unknown", None, os.cpu_count() or 1, *4 * (None,))


def describe() -> Cpu:
    """Look at the processor of this machine."""
    system = platform.system()
    if system == "Linux":
        return from_linux(ROOT, platform.machine(), affinity())
    if system == "Darwin":
        return from_macos(platform.machine(), macos_keys())
    return from_windows()


def affinity() -> frozenset[int] | None:
    """Return the logical cores the system lets this process run on; None if it can't say."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return None


def usable_threads() -> int:
    """Return the number of threads an inference run should use on this machine.

    It is the number of physical cores within what this process may use, at least 1.
    Hyper-threads are not counted: decoding waits for memory, which two threads of a
    core share, so the second one adds synchronization and no speed. On processors
    with fast and slow cores only the fast ones count, because every step of a layer
    waits for its slowest thread. A CPU quota of 1.5 cores gives one thread: the time
    of a second one would be cut off in the middle of a step.
    """
    system = platform.system()
    if system == "Linux":
        return linux_threads(ROOT, affinity())
    if system == "Darwin":
        keys = macos_keys()
        found = keys.get("hw.perflevel0.physicalcpu", keys.get("hw.physicalcpu"))
        return max(1, to_int(found) or os.cpu_count() or 1)
    return max(1, from_windows().physical_cores or os.cpu_count() or 1)


def linux_threads(root: Path, allowed: frozenset[int] | None) -> int:
    """Count the physical (and fast) cores a process may use on Linux.

    Parameters
    ----------
    root
        Where the file system begins; ``/`` except in tests.
    allowed
        The process's CPU affinity; None if unknown.
    """
    logical = _usable_set(root, allowed)
    # Intel processors with two kinds of cores list the fast ones here.
    fast = cpu_list(read_text(root / "sys/devices/cpu_core/cpus"))
    if fast and logical & fast:
        logical &= fast
    cores = len(_cores(root, logical) or logical)
    quota = _cgroup.cpu_quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def from_linux(root: Path, architecture: str, allowed: frozenset[int] | None) -> Cpu:
    """Read the processor of a Linux machine.

    Parameters
    ----------
    root
        Where the file system begins; ``/`` except in tests.
    architecture
        What ``uname -m`` says.
    allowed
        The process's CPU affinity; None if unknown.
    """
    blocks = parse_cpuinfo(read_text(root / "proc/cpuinfo"))
    online = _online(root, blocks)
    usable = float(len(_usable_set(root, allowed)))
    quota = _cgroup.cpu_quota(root)
    frequencies = [
        frequency
        for folder in _cpu_folders(root, online)
        if (frequency := read_int(folder / "cpufreq/cpuinfo_max_freq"))
    ]
    return Cpu(
        model=_model(root, blocks),
        architecture=architecture,
        physical_cores=_physical_cores(root, blocks, online),
        logical_cores=len(online),
        usable_cores=usable if quota is None else min(usable, quota),
        instruction_sets=_instruction_sets(blocks),
        l3_cache_bytes=_l3_cache(root, online),
        max_frequency_hz=max(frequencies) * 1000.0 if frequencies else None,
    )


def parse_cpuinfo(text: str | None) -> list[dict[str, str]]:
    """Split /proc/cpuinfo into one dictionary for each of its blocks."""
    blocks = [fields(block) for block in re.split(r"\n\s*\n", text or "")]
    return [block for block in blocks if block]


def has_hypervisor_flag(blocks: list[dict[str, str]]) -> bool | None:
    """Say whether an x86 processor reports a hypervisor; None on other processors."""
    flags = next((block["flags"] for block in blocks if "flags" in block), None)
    return None if flags is None else "hypervisor" in flags.split()


def macos_keys(run: Run = command_output) -> dict[str, str]:
    """Ask ``sysctl`` for what describes the processor of a Mac."""
    # With -i a key that this Mac does not have is left out instead of being an error.
    return fields(run(["sysctl", "-i", *_MACOS_KEYS]))


def from_macos(architecture: str, keys: Mapping[str, str]) -> Cpu:
    """Read the processor of a Mac from the output of ``sysctl``."""
    logical = to_int(keys.get("hw.logicalcpu")) or os.cpu_count() or 1
    features = keys.get("machdep.cpu.features")
    sets: tuple[str, ...] | None = None
    if features is not None:
        has = {*features.split(), *keys.get("machdep.cpu.leaf7_features", "").split()}
        sets = tuple(name for name, flag in _MACOS_X86 if flag in has)
    elif any(key in keys for _, key in _MACOS_ARM):
        sets = tuple(name for name, key in _MACOS_ARM if keys.get(key) == "1")
    frequency = to_int(keys.get("hw.cpufrequency_max"))
    return Cpu(
        model=keys.get("machdep.cpu.brand_string") or None,
        architecture=architecture,
        physical_cores=to_int(keys.get("hw.physicalcpu")),
        logical_cores=logical,
        usable_cores=float(logical),
        instruction_sets=sets,
        # Apple's own chips have a system cache instead and do not say its size.
        l3_cache_bytes=to_int(keys.get("hw.l3cachesize")) or None,
        max_frequency_hz=float(frequency) if frequency else None,
    )


def from_windows() -> Cpu:
    """Read the processor through psutil and, on Windows, its registry."""
    try:
        import psutil

        physical = psutil.cpu_count(logical=False)
        logical = psutil.cpu_count() or os.cpu_count() or 1
    except ImportError:
        physical, logical = None, os.cpu_count() or 1
    return Cpu(
        model=_windows_model(),
        architecture=platform.machine() or "unknown",
        physical_cores=physical,
        logical_cores=logical,
        usable_cores=float(logical),
        instruction_sets=None,
        l3_cache_bytes=None,
        max_frequency_hz=None,
    )


def _windows_model() -> str | None:
    if sys.platform != "win32":
        return None
    import winreg

    place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
        return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip() or None


def _model(root: Path, blocks: list[dict[str, str]]) -> str | None:
    arm = [name for block in blocks if (name := _arm_core(block))]
    # Raspberry Pi's kernel names the board in a block of its own, others in the device tree.
    board = next((block["Model"] for block in blocks if block.get("Model")), None)
    board = board or read_text(root / "proc/device-tree/model") or None
    if arm:
        cores = " + ".join(dict.fromkeys(arm))
        return f"{cores} ({board})" if board else cores
    for key in ("model name", "cpu model", "cpu", "uarch"):
        for block in blocks:
            if block.get(key):
                return " ".join(block[key].split())
    return board


def _arm_core(block: Mapping[str, str]) -> str | None:
    designer, part = to_int(block.get("CPU implementer"), 16), to_int(block.get("CPU part"), 16)
    if designer is None or part is None:
        return None
    unlisted = f"Arm core of designer {designer:#04x}, part {part:#05x}"
    return _ARM_PARTS.get((designer, part), unlisted)


def _instruction_sets(blocks: list[dict[str, str]]) -> tuple[str, ...] | None:
    for key, names in (("flags", _X86), ("Features", _ARM)):
        flags = [set(block[key].split()) for block in blocks if key in block]
        if flags:
            # A program may run on any core: only what all of them have counts.
            common = set.intersection(*flags)
            return tuple(
                name
                for name, flag in names
                # 32-bit Arm kernels call the same unit "neon".
                if flag in common or (name == "NEON" and "neon" in common)
            )
    return None


def _online(root: Path, blocks: list[dict[str, str]]) -> frozenset[int]:
    listed = cpu_list(read_text(root / "sys/devices/system/cpu/online"))
    if listed:
        return listed
    numbers = (to_int(block.get("processor")) for block in blocks)
    found = frozenset(number for number in numbers if number is not None)
    return found or frozenset(range(os.cpu_count() or 1))


def _usable_set(root: Path, allowed: frozenset[int] | None) -> frozenset[int]:
    usable = _online(root, parse_cpuinfo(read_text(root / "proc/cpuinfo")))
    for restriction in (allowed, _cgroup.cpu_set(root)):
        # A restriction that shares nothing with the machine is stale or misread.
        if restriction and usable & restriction:
            usable &= restriction
    return usable


def _cpu_folders(root: Path, numbers: frozenset[int]) -> list[Path]:
    return [root / f"sys/devices/system/cpu/cpu{number}" for number in sorted(numbers)]


def _cores(root: Path, numbers: frozenset[int]) -> set[str] | None:
    """Tell physical cores apart by the hardware threads they list; None if unknown."""
    cores = set()
    for folder in _cpu_folders(root, numbers):
        topology = folder / "topology"
        siblings = read_text(topology / "core_cpus_list")
        siblings = siblings or read_text(topology / "thread_siblings_list")
        if not siblings:
            return None
        cores.add(siblings)
    return cores


def _physical_cores(root: Path, blocks: list[dict[str, str]], online: frozenset[int]) -> int | None:
    cores = _cores(root, online)
    if cores:
        return len(cores)
    pairs = {
        (block["physical id"], block["core id"])
        for block in blocks
        if "physical id" in block and "core id" in block
    }
    return len(pairs) or None


def _l3_cache(root: Path, online: frozenset[int]) -> int | None:
    caches: dict[str, int] = {}
    for folder in _cpu_folders(root, online):
        for level in folder.glob("cache/index*/level"):
            size = to_size(read_text(level.with_name("size")))
            if read_int(level) == 3 and size:
                # Cores that share a cache name the same group of cores.
                caches[read_text(level.with_name("shared_cpu_list")) or folder.name] = size
    return sum(caches.values()) or None
