"""How much room the disk with the models has, and what kind of disk it is."""

from __future__ import annotations

import os
import platform
import plistlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from guidebook.machine import _cgroup
from guidebook.machine._outside import ROOT, Run, command_output, read_int, read_text, within

Kind = Literal["nvme", "ssd", "hdd", "network", "virtual"]

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|smbfs|9p|drvfs|afpfs|webdav|ceph|lustre|beegfs|gpfs|glusterfs|afs"
    r"|fuse\.(?:sshfs|glusterfs|rclone|s3fs)"
)
_SHARED_BY_HOST = frozenset(("virtiofs", "vboxsf", "fuse.vmhgfs-fuse", "prl_fs", "fakeowner"))
# What the virtual disks of hypervisors and clouds call themselves.
_VIRTUAL = ("QEMU", "VBOX", "VMware", "Msft", "Google", "Elastic Block Store", "nvme_card-pd")
_DEEPEST = 8


@dataclass(frozen=True)
class Disk:
    """The disk that holds a folder; None is unknown.

    Parameters
    ----------
    label
        What the folder is for; never its path, which may name a person.
    total_bytes, free_bytes
        Size, and what this user may still write.
    kind
        ``virtual`` is a disk that a hypervisor provides: what lies behind it is
        not visible from inside.
    filesystem
        Such as ``ext4``.
    """

    label: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    kind: Kind | None = None
    filesystem: str | None = None


def describe(path: Path | None = None) -> Disk:
    """Look at the disk of a folder.

    Parameters
    ----------
    path
        The folder; without one, it is the cache where models are kept.
    """
    cache = _models_cache()
    label = "models cache" if path is None and cache else "here"
    folder = _existing(path or cache or Path.cwd())
    # A network server that is gone makes this call wait forever.
    usage = within(1.0, lambda: shutil.disk_usage(folder))
    if usage is None:
        return Disk(label)
    kind: Kind | None = None
    filesystem: str | None = None
    if platform.system() == "Linux":
        kind, filesystem = linux_kind(ROOT, folder, folder.stat().st_dev)
    elif platform.system() == "Darwin":
        kind, filesystem = macos_kind(folder)
    return Disk(label, usage.total, usage.free, kind, filesystem)


def linux_kind(root: Path, folder: Path, device: int) -> tuple[Kind | None, str | None]:
    """Find the kind of disk and the file system under a folder on Linux.

    Parameters
    ----------
    root
        Where the file system begins; ``/`` except in tests.
    folder
        An absolute path without symbolic links.
    device
        Its device number (``st_dev``).
    """
    mount = _mount_of(folder, _cgroup.mounts(root))
    filesystem = mount.filesystem if mount else None
    if filesystem and _NETWORK.fullmatch(filesystem):
        return "network", filesystem
    if filesystem in _SHARED_BY_HOST:
        return "virtual", filesystem
    block = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if not block.exists() and mount and mount.source.startswith("/dev/"):
        # btrfs and others give each mount a device number that belongs to no disk.
        block = root / "sys/class/block" / PurePosixPath(mount.source).name
    kinds = _disk_kinds(block, _DEEPEST)
    return (kinds.pop() if len(kinds) == 1 else None), filesystem


def macos_kind(folder: Path, run: Run = command_output) -> tuple[Kind | None, str | None]:
    """Find the kind of disk and the file system under a folder on a Mac."""
    table = (run(["df", "-P", str(folder)]) or "").splitlines()
    device = table[-1].split()[0] if len(table) > 1 and table[-1].strip() else ""
    if device.startswith("//") or ":/" in device:
        return "network", None
    text = run(["diskutil", "info", "-plist", device]) if device else None
    try:
        info = plistlib.loads((text or "").encode())
    except (ValueError, plistlib.InvalidFileException, OverflowError):
        return None, None
    except Exception:  # plistlib lets the XML parser's own errors through
        return None, None
    if not isinstance(info, dict):
        return None, None
    filesystem = info.get("FilesystemType")
    kind: Kind | None = None
    if info.get("VirtualOrPhysical") == "Virtual" and info.get("BusProtocol") == "Disk Image":
        kind = "virtual"
    elif info.get("BusProtocol") in ("Apple Fabric", "PCI-Express"):
        kind = "nvme"
    elif isinstance(info.get("SolidState"), bool):
        kind = "ssd" if info["SolidState"] else "hdd"
    return kind, str(filesystem) if filesystem else None


def _models_cache() -> Path | None:
    try:
        import platformdirs
    except ImportError:
        return None
    return platformdirs.user_cache_path("guidebook")


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists, without symbolic links."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() may wait for a dead server
    found = within(1.0, lambda: next(p for p in (path, *path.parents) if p.exists()).resolve())
    return found or path


def _mount_of(folder: Path, table: list[_cgroup.Mount]) -> _cgroup.Mount | None:
    path = PurePosixPath(folder)
    holding = [mount for mount in table if path.is_relative_to(mount.point)]
    # The longest mount point holds the folder; of equal ones the last hides the others.
    return max(
        enumerate(holding), key=lambda pair: (len(pair[1].point), pair[0]), default=(0, None)
    )[1]


def _disk_kinds(block: Path, depth: int) -> set[Kind | None]:
    """Collect the kinds of the disks under a block device; encryption and RAID are layers."""
    if depth == 0 or not block.exists():
        return {None}
    if (block / "partition").exists():
        return _disk_kinds(block.resolve().parent, depth - 1)
    below = sorted((block / "slaves").glob("*"))
    if below:
        return set().union(*(_disk_kinds(layer, depth - 1) for layer in below))
    return {_disk_kind(block)}


def _disk_kind(block: Path) -> Kind | None:
    name = block.resolve().name
    words = (read_text(block / "device" / part) for part in ("vendor", "model"))
    maker = " ".join(word for word in words if word)
    if name.startswith(("vd", "xvd")) or any(word in maker for word in _VIRTUAL):
        return "virtual"
    if name.startswith(("nbd", "rbd")):
        return "network"
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith(("sd", "hd")):
        rotational = read_int(block / "queue/rotational")
        return None if rotational is None else "hdd" if rotational else "ssd"
    return None
