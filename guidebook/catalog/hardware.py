"""The devices that models run on: graphics cards, unified-memory machines, kinds of RAM."""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Literal, get_args

from guidebook import units

Kind = Literal["discrete", "unified", "ram"]
Backend = Literal["CUDA", "ROCm", "Vulkan", "Metal", "CPU"]

# Vendors write memory sizes in GB and mean GiB, for graphics cards as for RAM.
_MEMORY_UNIT = units.GIB
_BACKENDS: dict[str, Backend] = {
    "nvidia": "CUDA",
    "amd": "ROCm",
    "apple": "Metal",
    "intel": "Vulkan",
    "memory": "CPU",
}
# Machines that are sold with less memory than the catalog's row for their chip, which states the
# most there is: chip and GiB. Their names are those of the price list.
_SMALLER = {
    "Mac mini M4 Pro 24 GB": ("Apple M4 Pro (16c)", 24),
    "Mac Studio M3 Ultra 96 GB (60c)": ("Apple M3 Ultra (60c)", 96),
    "Mac Studio M3 Ultra 256 GB (60c)": ("Apple M3 Ultra (60c)", 256),
    "NVIDIA DGX Spark 64GB (GB10)": ("NVIDIA DGX Spark (GB10)", 64),
}
_COMPANY = re.compile(r"\b(nvidia|amd|intel|geforce|radeon|tesla)\b")
# What tells no two devices apart, unless it is the only difference between them.
_SERIES = re.compile(r"\b(rtx|gtx|rx|pcie|sxm\d?|hbm\d?e?)\b|\d+\s*gi?b\b|\([^)]*\)|-")


@dataclass(frozen=True)
class Device:
    """One device, with the figures of its data sheet.

    Attributes
    ----------
    name, aliases
        Name in the catalog, and others: the machine that a chip is sold in.
    vendor
        ``nvidia``, ``amd``, ``intel``, ``apple``, ``memory``.
    kind
        ``discrete``: a card with memory of its own; ``unified``: GPU and CPU share one memory;
        ``ram``: system memory, computed on by the CPU.
    backend
        The build of llama.cpp that is used on it.
    memory_bytes
        The memory it is sold with, at most; None for a kind of RAM, which has no size.
    bandwidth
        Rated memory bandwidth in bytes/s.
    fp32_flops, tensor_flops
        Rated FLOP/s: 32-bit without tensor cores; dense 16-bit with 32-bit accumulation.
    boost_clock
        Hz.
    cores
        Shading units; GPU cores of an Apple chip.
    multiprocessors
        NVIDIA's.
    tdp_w, psu_w
        Rated board power and the power supply that the database suggests, in watts.
    launch_usd, launched
        Price and date at launch.
    compute_capability
        NVIDIA's feature level, for example 8.6.
    note, source, as_of
        What to know about the row, where it comes from, when that was read (year-month).
    unverified
        Columns whose value no source was opened for.
    """

    name: str
    aliases: tuple[str, ...]
    vendor: str
    kind: Kind
    backend: Backend
    memory_bytes: int | None
    bandwidth: float
    fp32_flops: float | None
    tensor_flops: float | None
    boost_clock: float | None
    cores: int | None
    multiprocessors: int | None
    tdp_w: float | None
    psu_w: float | None
    launch_usd: float | None
    launched: str
    compute_capability: float | None
    note: str
    source: str
    as_of: str
    unverified: frozenset[str]


@functools.cache
def every() -> tuple[Device, ...]:
    """Return every device of the catalog."""
    text = resources.files("guidebook.catalog").joinpath("hardware.csv").read_text("utf-8")
    return parse(text.splitlines())


def parse(lines: Iterable[str]) -> tuple[Device, ...]:
    """Read devices from the lines of a CSV file with the catalog's columns.

    Raises
    ------
    ValueError
        A row lacks a value that it must have, or a value is not what its column holds; the
        message names the row.
    """
    return tuple(_device(number, row) for number, row in enumerate(csv.DictReader(lines), 2))


@functools.cache
def smaller() -> Mapping[str, Device]:
    """Return the machines that are sold with less memory than the most their chip comes with."""
    chips = {device.name: device for device in every()}
    return {
        name: replace(chips[chip], memory_bytes=gib * units.GIB)
        for name, (chip, gib) in _SMALLER.items()
    }


def find(name: str, memory_bytes: int | None = None) -> Device:
    """Look a device up by its name; case, vendor and spaces do not matter.

    Parameters
    ----------
    name
        A name of the catalog, or what the driver calls the device:
        ``NVIDIA GeForce RTX 3080``, ``RTX 4070 Laptop GPU``; or short, ``4090``.
    memory_bytes
        Decides between devices that differ in memory only.

    Raises
    ------
    LookupError
        No device, or several, have this name; the message lists near ones.
    """
    by_name, by_key, by_stem = _indexes()
    exact = by_name.get(name.strip().casefold()) or by_key.get(_key(name))
    if exact is not None:
        return exact
    same_stem = by_stem.get(_stem(name), ())
    if memory_bytes is not None and len(same_stem) > 1:
        nearest = min(abs((d.memory_bytes or 0) - memory_bytes) for d in same_stem)
        same_stem = tuple(
            d for d in same_stem if abs((d.memory_bytes or 0) - memory_bytes) == nearest
        )
    if len(same_stem) == 1:
        return same_stem[0]
    near = [device.name for device in same_stem] or [
        by_key[key].name for key in difflib.get_close_matches(_key(name), by_key, 3, 0.5)
    ]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise LookupError(f"No device {name!r} in the catalog.{hint}")


@functools.cache
def _indexes() -> tuple[dict[str, Device], dict[str, Device], dict[str, tuple[Device, ...]]]:
    stems: dict[str, tuple[Device, ...]] = {}
    for device in every():
        stems[_stem(device.name)] = (*stems.get(_stem(device.name), ()), device)
    by_name = {
        name.casefold(): device for device in every() for name in (device.name, *device.aliases)
    }
    return (
        by_name | {name.casefold(): device for name, device in smaller().items()},
        {_key(name): device for device in every() for name in (device.name, *device.aliases)},
        stems,
    )


def _key(name: str) -> str:
    """Reduce a name to what tells devices apart."""
    plain = name.casefold().replace("laptop gpu", "mobile").replace("laptop", "mobile")
    plain = _COMPANY.sub(" ", plain.replace("(tm)", " ").replace("(r)", " "))
    return re.sub(r"[^a-z0-9+]+", "", plain)


def _stem(name: str) -> str:
    """Reduce a name further: without series, memory size and what stands in parentheses."""
    return _key(_SERIES.sub(" ", name.casefold()))


def _device(number: int, row: dict[str, str]) -> Device:
    where = f"Row {number} of the hardware catalog ({row.get('name') or 'without a name'})"
    for column in ("name", "vendor", "kind", "bandwidth_gbs", "source", "as_of"):
        if not row.get(column):
            raise ValueError(f"{where} has no {column}. Every row needs one.")
    kind = row["kind"]
    if kind not in get_args(Kind) or row["vendor"] not in _BACKENDS:
        raise ValueError(f"{where} has the kind {kind!r} and the vendor {row['vendor']!r}.")

    def number_of(column: str, factor: float = 1.0) -> float | None:
        text = row.get(column) or ""
        try:
            return float(text) * factor if text else None
        except ValueError as error:
            raise ValueError(f"{where}: {column} is {text!r}, not a number.") from error

    def count_of(column: str, factor: float = 1.0) -> int | None:
        value = number_of(column, factor)
        return None if value is None else round(value)

    # A system on a chip from AMD is run with Vulkan: ROCm supports few of them.
    soc = row["vendor"] == "amd" and kind == "unified"
    return Device(
        name=row["name"],
        aliases=tuple(name for name in (row.get("aliases") or "").split(";") if name),
        vendor=row["vendor"],
        kind=kind,  # type: ignore[arg-type]  # checked above
        backend="Vulkan" if soc else _BACKENDS[row["vendor"]],
        memory_bytes=count_of("memory_gb", _MEMORY_UNIT),
        bandwidth=number_of("bandwidth_gbs", units.GB) or 0.0,
        fp32_flops=number_of("fp32_tflops", 1e12),
        tensor_flops=number_of("fp16_tensor_tflops", 1e12),
        boost_clock=number_of("boost_clock_mhz", 1e6),
        cores=count_of("cores"),
        multiprocessors=count_of("multiprocessors"),
        tdp_w=number_of("tdp_w"),
        psu_w=number_of("psu_w"),
        launch_usd=number_of("launch_usd"),
        launched=row.get("launch_date") or "",
        compute_capability=number_of("compute_capability"),
        note=row.get("note") or "",
        source=row["source"],
        as_of=row["as_of"],
        unverified=frozenset((row.get("unverified") or "").split()),
    )
