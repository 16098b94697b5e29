"""Reading what NVIDIA's tools print, of any driver generation."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

Version = tuple[int, ...]

_MISSING = (
    "",
    "n/a",
    "[n/a]",
    "not supported",
    "[not supported]",
    "not found",
    "unknown error",
    "requested functionality has been deprecated",
)
_HEADER = re.compile(
    r"(?:Driver|KMD) Version\s*:\s*(?P<driver>[\d.]+)"
    r"(?:.*?CUDA(?: UMD)? Version\s*:\s*(?P<cuda>[\d.]+))?"
)
_NVCC = re.compile(r"release (\d+)\.(\d+)(?:, V([\d.]+))?")


@dataclass(frozen=True)
class NvidiaGpu:
    """A GPU as the driver describes it; None is unknown or does not apply.

    Attributes
    ----------
    memory_bytes, used_bytes
        Its memory, and how much of it is taken.
    power_limit_w, default_power_limit_w, max_power_limit_w
        Watts.
    pcie_width, max_pcie_width, pcie_generation, max_pcie_generation
        The link now, and the widest and fastest that card and slot could make.
    ecc_uncorrected
        Memory errors that ECC could not correct, in the card's life where it keeps count.
    pending
        Whether memory waits to be taken out of use at the next reset.
    slowdowns
        Why the clocks are held down now, as the driver names it.
    processes
        Program names and the bytes they hold; the driver hides both in WSL.
    """

    name: str
    compute_capability: tuple[int, int] | None = None
    memory_bytes: int | None = None
    used_bytes: int | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    max_power_limit_w: float | None = None
    pcie_width: int | None = None
    max_pcie_width: int | None = None
    pcie_generation: int | None = None
    max_pcie_generation: int | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    pending: bool = False
    slowdowns: tuple[str, ...] = ()
    processes: tuple[tuple[str, int | None], ...] = ()


@dataclass(frozen=True)
class Smi:
    """What ``nvidia-smi`` says about the machine."""

    driver: str | None
    cuda: str | None
    gpus: tuple[NvidiaGpu, ...]


def version(text: str | None) -> Version | None:
    """Turn ``12.4`` into ``(12, 4)``; None if it is no version."""
    found = re.match(r"\d+(?:\.\d+)*", (text or "").strip())
    return tuple(int(part) for part in found[0].split(".")) if found else None


def nvcc_version(text: str) -> str | None:
    """Read the version out of ``nvcc --version``, such as ``12.4``."""
    found = _NVCC.search(text)
    return f"{found[1]}.{found[2]}" if found else None


def parse_header(text: str) -> tuple[str | None, str | None]:
    """Read driver and highest CUDA version out of the table that ``nvidia-smi`` prints.

    Since driver 610 it calls them "KMD Version" and "CUDA UMD Version".
    """
    found = _HEADER.search(text)
    return (found["driver"], found["cuda"]) if found else (None, None)


def parse_xml(text: str) -> Smi | None:
    """Read ``nvidia-smi -q -x``; None if it is not that."""
    start = text.find("<nvidia_smi_log")
    end = text.rfind("</nvidia_smi_log>")
    if start < 0 or end < 0:
        return None
    try:
        log = ET.fromstring(text[start : end + len("</nvidia_smi_log>")])  # noqa: S314 - the text comes from the driver's own tool
    except ET.ParseError:
        return None
    return Smi(
        driver=_value(log, "driver_version") or _value(log, "kmd_version"),
        cuda=_value(log, "cuda_version") or _value(log, "cuda_umd_version"),
        gpus=tuple(_gpu(entry) for entry in log.iter("gpu")),
    )


def parse_capabilities(text: str) -> tuple[tuple[int, int] | None, ...]:
    """Read ``nvidia-smi --query-gpu=compute_cap --format=csv,noheader``, one card a line."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(\d+)\.(\d+)\s*", line)
        found.append((int(match[1]), int(match[2])) if match else None)
    return tuple(found)


def _gpu(entry: ET.Element) -> NvidiaGpu:
    link = "pci/pci_gpu_link_info"
    power = (
        "gpu_power_readings" if entry.find("gpu_power_readings") is not None else ("power_readings")
    )
    now = _number(entry, f"{power}/current_power_limit") or _number(entry, f"{power}/power_limit")
    return NvidiaGpu(
        name=_value(entry, "product_name") or "NVIDIA GPU",
        memory_bytes=_mib(entry, "fb_memory_usage/total"),
        used_bytes=_mib(entry, "fb_memory_usage/used"),
        power_limit_w=now,
        default_power_limit_w=_number(entry, f"{power}/default_power_limit"),
        max_power_limit_w=_number(entry, f"{power}/max_power_limit"),
        pcie_width=_whole(entry, f"{link}/link_widths/current_link_width"),
        max_pcie_width=_whole(entry, f"{link}/link_widths/max_link_width"),
        pcie_generation=_whole(entry, f"{link}/pcie_gen/current_link_gen"),
        max_pcie_generation=_whole(entry, f"{link}/pcie_gen/max_link_gen"),
        ecc={"Enabled": True, "Disabled": False}.get(_value(entry, "ecc_mode/current_ecc") or ""),
        ecc_uncorrected=_uncorrected(entry),
        pending=_pending(entry),
        slowdowns=_slowdowns(entry),
        processes=tuple(
            (
                _program(_value(process, "process_name")),
                _mib(process, "used_memory"),
            )
            for process in entry.iterfind("processes/process_info")
        ),
    )


def _uncorrected(entry: ET.Element) -> int | None:
    """Add up the errors of the card's life, under the names of all driver generations."""
    aggregate = entry.find("ecc_errors/aggregate")
    if aggregate is None:
        return None
    total = _whole(aggregate, "double_bit/total")
    if total is not None:
        return total
    counts = [
        _whole(aggregate, name.tag)
        for name in aggregate
        if "uncorrectable" in name.tag and "threshold" not in name.tag
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _pending(entry: ET.Element) -> bool:
    names = ("retired_pages/pending_blacklist", "retired_pages/pending_retirement")
    remapped = ("remapped_rows/remapped_row_pending", "remapped_rows/remapped_row_failure")
    return any((_value(entry, name) or "No") not in ("No", "0") for name in (*names, *remapped))


def _slowdowns(entry: ET.Element) -> tuple[str, ...]:
    """List the active reasons but for those that every idle or busy card gives."""
    harmless = ("gpu_idle", "applications_clocks_setting", "sync_boost", "sw_power_cap")
    found = []
    for group in ("clocks_throttle_reasons", "clocks_event_reasons"):
        for reason in entry.iterfind(f"{group}/*"):
            name = re.sub(r"^clocks_(?:throttle|event)_reason_", "", reason.tag)
            if (reason.text or "").strip() == "Active" and name not in harmless:
                found.append(name)
    return tuple(dict.fromkeys(found))


def _program(path: str | None) -> str:
    """Keep a program's name, without its folder and arguments, which may name a person."""
    if path is None:
        return "unknown"
    return re.split(r"[/\\]", path.split(" --")[0].strip())[-1].split(" ")[0] or "unknown"


def _value(entry: ET.Element, path: str) -> str | None:
    text = (entry.findtext(path) or "").strip()
    return None if text.lower() in _MISSING else text


def _number(entry: ET.Element, path: str) -> float | None:
    found = re.match(r"\d+(?:\.\d+)?", _value(entry, path) or "")
    return float(found[0]) if found else None


def _whole(entry: ET.Element, path: str) -> int | None:
    number = _number(entry, path)
    return None if number is None else int(number)


def _mib(entry: ET.Element, path: str) -> int | None:
    number = _whole(entry, path)
    return None if number is None else number * 1024**2
