"""What a Linux control group, such as a container's, allows this process.

A container sees the whole host in /proc/meminfo and /proc/cpuinfo, and is killed
or slowed down when it takes the host at its word. What counts is the group of the
process and every group above it: the smallest limit on that path holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from guidebook.machine._outside import cpu_list, fields, read_int, read_text, to_int

# Version 1 says "no limit" with the largest page-aligned number there is.
_NO_LIMIT = 2**60
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    device: str
    root: str
    point: str
    filesystem: str
    source: str
    super_options: str


@dataclass(frozen=True)
class MemoryGroup:
    """What the groups above a process leave it: bytes, None where there is no limit."""

    limit_bytes: int | None
    headroom_bytes: int | None


def mounts(root: Path) -> list[Mount]:
    """Read the mount table of this process, in the order of mounting.

    Parameters
    ----------
    root
        Where the file system begins; ``/`` except in tests.
    """
    table = []
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) >= 6 and len(after) >= 2:
            options = after[2] if len(after) > 2 else ""
            table.append(
                Mount(before[2], _plain(before[3]), _plain(before[4]), after[0], after[1], options)
            )
    return table


def memory(root: Path) -> MemoryGroup:
    """Find the smallest memory limit over this process, and the least that is left of one.

    Page cache that the kernel can drop at once (inactive file pages) counts as free,
    as it does for container run-times.
    """
    limits: list[int] = []
    headrooms: list[int] = []
    for folder in _groups(root, "memory"):
        # memory.high does not kill, but a process above it is slowed to a crawl.
        here = [
            limit
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
            if (limit := read_int(folder / name)) is not None and 0 <= limit < _NO_LIMIT
        ]
        if not here:
            continue
        limits.append(min(here))
        used = _first_int(folder, ("memory.current", "memory.usage_in_bytes"))
        if used is not None:
            headrooms.append(max(0, min(here) - max(0, used - _droppable(folder))))
    return MemoryGroup(min(limits, default=None), min(headrooms, default=None))


def cpu_quota(root: Path) -> float | None:
    """Find how many cores' worth of time this process may use; None without a quota."""
    quotas = []
    for folder in _groups(root, "cpu"):
        words = (read_text(folder / "cpu.max") or "").split()
        if len(words) == 2:
            quota, period = to_int(words[0]), to_int(words[1])
        else:
            quota = read_int(folder / "cpu.cfs_quota_us")
            period = read_int(folder / "cpu.cfs_period_us")
        if quota is not None and period is not None and quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def cpu_set(root: Path) -> frozenset[int] | None:
    """Find the logical cores this process may run on; None if nothing restricts it."""
    allowed: frozenset[int] | None = None
    for folder in _groups(root, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            numbers = cpu_list(read_text(folder / name))
            if numbers is not None:
                allowed = numbers if allowed is None else allowed & numbers
                break
    return allowed


def _groups(root: Path, controller: str) -> list[Path]:
    """List the folders of the groups that hold this process, from its own upward."""
    table = [mount for mount in mounts(root) if mount.filesystem in ("cgroup", "cgroup2")]
    folders: list[Path] = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        number, names, path = parts
        if number == "0" and not names:
            fitting: Iterable[Mount] = (m for m in table if m.filesystem == "cgroup2")
        elif controller in names.split(","):
            fitting = (
                m
                for m in table
                if m.filesystem == "cgroup" and controller in m.super_options.split(",")
            )
        else:
            continue
        for mount in fitting:
            folders.extend(_upward(root, mount, path))
            break
    return folders


def _upward(root: Path, mount: Mount, path: str) -> list[Path]:
    top = root / mount.point.lstrip("/")
    # A container often sees only its own part of the tree, mounted as the top.
    base = "" if mount.root == "/" else mount.root
    inside = path.removeprefix(base) if path == base or path.startswith(base + "/") else ""
    names = [name for name in inside.split("/") if name]
    if ".." in names:  # the process lies outside of what this mount shows
        names = []
    return [top.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _first_int(folder: Path, names: Iterable[str]) -> int | None:
    values = (read_int(folder / name) for name in names)
    return next((value for value in values if value is not None), None)


def _droppable(folder: Path) -> int:
    stat = fields(read_text(folder / "memory.stat"), " ")
    # Version 1 counts a group alone and, with total_, together with those below it.
    return to_int(stat.get("total_inactive_file", stat.get("inactive_file"))) or 0


def _plain(text: str) -> str:
    """Undo the kernel's octal escapes, by which it writes a space in a path."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
