"""Which graphics processors there are: NVIDIA through NVML, AMD and Apple where found.

A tool or driver that is missing means that nothing was found; it is not an error.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from guidebook.machine._outside import (
    ROOT,
    Run,
    command_output,
    fields,
    read_int,
    read_text,
    to_int,
)

_LOG = logging.getLogger(__name__)

Kind = Literal["cuda", "rocm", "metal", "other"]
T = TypeVar("T")

_NVIDIA, _AMD, _INTEL = "0x10de", "0x1002", "0x8086"
_MAKERS = {_NVIDIA: "NVIDIA", _AMD: "AMD", _INTEL: "Intel"}
_PCI_NAMES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
# Intel puts the graphics unit that is part of the processor in this PCI slot.
_INTEL_BUILT_IN = "0000:00:02.0"
_CARD = re.compile(r"card\d+")
_VRAM = re.compile(r"(\d+)\s*([MG])B")


@dataclass(frozen=True)
class Gpu:
    """A graphics processor; None is unknown.

    Parameters
    ----------
    name
        As its driver gives it.
    kind
        What can compute on it: ``cuda``, ``rocm``, ``metal``, or ``other`` if its
        compute driver does not answer or is none of these.
    memory_total_bytes, memory_free_bytes
        Its own memory or, if ``unified``, the memory it shares with the processor.
    unified
        Whether it is known to share the processor's memory.
    driver
        The driver's version or, where it has none, its name.
    cuda_driver_version
        The highest CUDA version the driver supports, such as ``12.8``.
    compute_capability
        NVIDIA's, such as ``(8, 6)``.
    power_limit_w
        The power limit in force, in watts.
    """

    name: str
    kind: Kind
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    unified: bool = False
    driver: str | None = None
    cuda_driver_version: str | None = None
    compute_capability: tuple[int, int] | None = None
    power_limit_w: float | None = None


def describe() -> tuple[Gpu, ...]:
    """Look for graphics processors."""
    if platform.system() == "Darwin":
        return from_macos(platform.machine())
    nvidia = from_nvml(_load_nvml())
    cards = from_drm(ROOT)
    if nvidia:  # the same cards again, seen with less detail
        cards = tuple(card for card in cards if not card.name.startswith("NVIDIA"))
    if not any(card.kind == "rocm" for card in cards):
        cards += from_rocm_smi(command_output(["rocm-smi", *_ROCM_SMI], 1.5))
    return nvidia + cards


def from_nvml(nvml: ModuleType | None) -> tuple[Gpu, ...]:
    """Ask NVIDIA's management library.

    Parameters
    ----------
    nvml
        The module ``pynvml``, or None where it is not installed.
    """
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except Exception as error:  # NVML's error classes exist only while it is imported
        _LOG.debug("no NVIDIA driver answers: %s", error)
        return ()
    try:
        driver = _text(_ask(nvml.nvmlSystemGetDriverVersion))
        cuda = _ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
        version = f"{cuda // 1000}.{cuda % 1000 // 10}" if isinstance(cuda, int) else None
        cards = (
            _ask(partial(_nvidia_gpu, nvml, index, driver, version))
            for index in range(_ask(nvml.nvmlDeviceGetCount) or 0)
        )
        return tuple(card for card in cards if card is not None)
    finally:
        _ask(nvml.nvmlShutdown)


def from_drm(root: Path) -> tuple[Gpu, ...]:
    """Read the graphics cards that the Linux kernel lists.

    Cards of a virtual machine's console or a server's management chip are left out:
    nothing can be computed on them.
    """
    cards = sorted(
        path for path in (root / "sys/class/drm").glob("card*") if _CARD.fullmatch(path.name)
    )
    found = (_drm_gpu(root, card / "device") for card in cards)
    return tuple(gpu for gpu in found if gpu is not None)


_ROCM_SMI = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")


def from_rocm_smi(text: str | None) -> tuple[Gpu, ...]:
    """Read the output of ``rocm-smi --json``, for a system without the kernel's list."""
    data = _json(text)
    driver = data.get("system", {}).get("Driver version") if _is_dict(data.get("system")) else None
    found = []
    for card, entry in sorted(data.items()):
        if not (_CARD.fullmatch(card) and _is_dict(entry)):
            continue
        total = to_int(str(entry.get("VRAM Total Memory (B)")))
        used = to_int(str(entry.get("VRAM Total Used Memory (B)")))
        name = entry.get("Card Series") or entry.get("Card series") or "AMD GPU"
        found.append(
            Gpu(
                name=str(name),
                kind="rocm",
                memory_total_bytes=total,
                memory_free_bytes=_difference(total, used),
                driver=None if driver is None else str(driver),
            )
        )
    return tuple(found)


def from_macos(architecture: str, run: Run = command_output) -> tuple[Gpu, ...]:
    """Ask a Mac's ``system_profiler``; only names and sizes are taken from its answer."""
    memory = to_int(run(["sysctl", "-n", "hw.memsize"]))
    built_in = architecture == "arm64"
    data = _json(run(["system_profiler", "SPDisplaysDataType", "-json"]))
    entries = data.get("SPDisplaysDataType")
    found = []
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("sppci_model") if _is_dict(entry) else None
        if not name:
            continue
        metal = any("metal" in key or "mtlgpu" in key for key in entry)
        unified = built_in or "spdisplays_vram_shared" in entry
        found.append(
            Gpu(
                name=str(name),
                kind="metal" if metal else "other",
                memory_total_bytes=memory if unified else _vram(entry.get("spdisplays_vram")),
                unified=unified,
            )
        )
    if not found and built_in and (chip := run(["sysctl", "-n", "machdep.cpu.brand_string"])):
        # Every Apple chip has its GPU inside, also when system_profiler took too long.
        found.append(Gpu(chip, "metal", memory_total_bytes=memory, unified=True))
    return tuple(found)


def _load_nvml() -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old package of the same name warns
            import pynvml
    except ImportError:
        return None
    return pynvml  # type: ignore[no-any-return]


def _ask(call: Callable[[], T]) -> T | None:
    """Ask NVML one thing; a card that cannot answer says so by raising."""
    try:
        return call()
    except Exception as error:
        _LOG.debug("NVML: %s", error)
        return None


def _nvidia_gpu(nvml: ModuleType, index: int, driver: str | None, cuda: str | None) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    unified = False
    memory = None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except Exception as error:
        # NVIDIA's chips that share the processor's memory do not support the question.
        unified = "not supported" in str(error).lower()
    capability = _ask(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    limit = _ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return Gpu(
        name=_text(_ask(lambda: nvml.nvmlDeviceGetName(handle))) or "NVIDIA GPU",
        kind="cuda",
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_free_bytes=None if memory is None else int(memory.free),
        unified=unified,
        driver=driver,
        cuda_driver_version=cuda,
        compute_capability=None if capability is None else (capability[0], capability[1]),
        power_limit_w=None if limit is None else limit / 1000,
    )


def _drm_gpu(root: Path, device: Path) -> Gpu | None:
    vendor = read_text(device / "vendor") or ""
    if vendor not in _MAKERS:
        return None
    total = read_int(device / "mem_info_vram_total")
    used = read_int(device / "mem_info_vram_used")
    compute = vendor == _AMD and (root / "dev/kfd").exists()
    event = fields(read_text(device / "uevent"), "=")
    name = read_text(device / "product_name") or _pci_name(root, vendor, device)
    maker = _MAKERS[vendor]
    return Gpu(
        name=name if name.startswith(maker) else f"{maker} {name}",
        kind="rocm" if compute else "other",
        memory_total_bytes=total,
        memory_free_bytes=_difference(total, used),
        unified=vendor == _INTEL and event.get("PCI_SLOT_NAME") == _INTEL_BUILT_IN,
        driver=event.get("DRIVER"),
    )


def _pci_name(root: Path, vendor: str, device: Path) -> str:
    number = (read_text(device / "device") or "").removeprefix("0x")
    for path in _PCI_NAMES:
        inside = False
        for line in (read_text(root / path) or "").splitlines():
            if line[:1] not in ("\t", "#", ""):
                inside = line.startswith(vendor.removeprefix("0x"))
            elif inside and number and line.startswith(f"\t{number} "):
                return line[len(number) + 1 :].strip()
    return f"GPU {number}" if number else "GPU"


def _vram(text: object) -> int | None:
    found = _VRAM.search(str(text))
    return int(found[1]) * {"M": 1024**2, "G": 1024**3}[found[2]] if found else None


def _difference(total: int | None, used: int | None) -> int | None:
    return None if total is None or used is None else max(0, total - used)


def _text(value: object) -> str | None:
    """Old versions of the NVML package give bytes, new ones text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return None if value is None else str(value)


def _json(text: str | None) -> dict[str, Any]:
    try:
        data = json.loads(text or "")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)
