"""Which operating system this is, and what it runs inside of."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guidebook.machine import _cgroup
from guidebook.machine._outside import ROOT, Run, command_output, fields, read_text
from guidebook.machine.cpu import has_hypervisor_flag, parse_cpuinfo

Wsl = Literal[1, 2]

# A kernel's own version, without the suffix in which people and hosts leave their names.
_KERNEL_VERSION = re.compile(r"\d+(?:\.\d+)*(?:-\d+)*")
_UNNAMED = "unnamed"
# Words in the paths of control groups and layers, by the run-time that writes them.
_RUNTIMES = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("containers/storage", "podman"),
    ("docker", "docker"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
    ("machine.slice/systemd-nspawn", "systemd-nspawn"),
)
# What machines call themselves in their firmware, and systemd's names for the same.
_FIRMWARE = (
    ("firecracker", "Firecracker"),
    ("vmware", "VMware"),
    ("virtualbox", "VirtualBox"),
    ("innotek", "VirtualBox"),
    ("parallels", "Parallels"),
    ("amazon ec2", "Amazon EC2"),
    ("google compute engine", "Google Compute Engine"),
    ("xen", "Xen"),
    ("qemu", "QEMU"),
    ("kvm", "KVM"),
    ("openstack", "OpenStack"),
    ("apple virtualization", "Apple Virtualization"),
    ("microsoft corporation virtual machine", "Hyper-V"),
)
_SYSTEMD = {
    "amazon": "Amazon EC2",
    "apple": "Apple Virtualization",
    "bhyve": "bhyve",
    "google": "Google Compute Engine",
    "kvm": "KVM",
    "microsoft": "Hyper-V",
    "oracle": "VirtualBox",
    "parallels": "Parallels",
    "qemu": "QEMU",
    "vmware": "VMware",
    "xen": "Xen",
}


@dataclass(frozen=True)
class System:
    """The operating system and what it runs inside of.

    Parameters
    ----------
    os, os_version
        Such as ``Linux`` and ``Debian GNU/Linux 12 (bookworm)``.
    kernel
        The kernel's version number.
    wsl
        Version of the Windows Subsystem for Linux; None outside of it.
    container, virtual_machine
        The name of what was found; ``unnamed`` if it is certain but says no name;
        None if no sign of one was found.
    """

    os: str
    os_version: str | None = None
    kernel: str | None = None
    wsl: Wsl | None = None
    container: str | None = None
    virtual_machine: str | None = None


def unknown() -> System:
    """Return what Python itself knows about the system."""
    return System(platform.system() or "unknown")


def describe() -> System:
    """Look at the operating system of this machine."""
    name = platform.system()
    kernel = kernel_version(platform.release())
    if name == "Linux":
        return from_linux(ROOT, kernel, os.environ)
    if name == "Darwin":
        return from_macos(kernel, platform.mac_ver()[0])
    return System(name or "unknown", platform.version() or None, kernel)


def kernel_version(release: str) -> str | None:
    """Take the version number out of what ``uname -r`` says."""
    found = _KERNEL_VERSION.match(release)
    return found[0] if found else None


def from_linux(
    root: Path,
    kernel: str | None,
    environment: Mapping[str, str],
    run: Run = command_output,
) -> System:
    """Read the system of a Linux machine.

    Parameters
    ----------
    root
        Where the file system begins; ``/`` except in tests.
    kernel
        The kernel's version number.
    environment
        The environment variables, in which Kubernetes and Apptainer show themselves.
    run
        How to run a program.
    """
    wsl = wsl_version(root)
    return System(
        os="Linux",
        os_version=_os_version(root),
        kernel=kernel,
        wsl=wsl,
        container=container(root, environment),
        virtual_machine="Hyper-V" if wsl == 2 else virtual_machine(root, run),
    )


def from_macos(kernel: str | None, version: str, run: Run = command_output) -> System:
    """Read the system of a Mac."""
    guest = run(["sysctl", "-n", "kern.hv_vmm_present"]) == "1"
    return System("macOS", version or None, kernel, virtual_machine=_UNNAMED if guest else None)


def wsl_version(root: Path) -> Wsl | None:
    """Tell the Windows Subsystem for Linux and its two versions by the kernel's banner."""
    banner = read_text(root / "proc/version") or ""
    release = re.match(r"Linux version (\S+)", banner)
    name = release[1] if release else ""
    if "microsoft-standard" in name or "WSL2" in name:
        return 2
    if name.endswith("-Microsoft"):
        return 1
    # A kernel that its user built has any name, but Windows programs start all the same.
    return 2 if (root / "proc/sys/fs/binfmt_misc/WSLInterop").exists() else None


def container(root: Path, environment: Mapping[str, str]) -> str | None:
    """Find the container run-time around this process by the marks that each leaves.

    A virtual machine can be made of a container's image, with all its marks. But a container's root
    is a layered file system or a folder of the host's disk, never a whole disk.
    """
    root_mount = next((m for m in reversed(_cgroup.mounts(root)) if m.point == "/"), None)
    if root_mount and root_mount.root == "/" and root_mount.source.startswith("/dev/"):
        return None
    if environment.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if environment.get("APPTAINER_CONTAINER") or (root / ".singularity.d").is_dir():
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    named = read_text(root / "run/systemd/container")
    if named:
        return next((runtime for word, runtime in _RUNTIMES if word in named), _UNNAMED)
    layers = [
        mount.super_options
        for mount in _cgroup.mounts(root)
        if mount.point == "/" and mount.filesystem == "overlay"
    ]
    # An overlay alone proves nothing: a live system has one too.
    for text in (read_text(root / "proc/1/cgroup") or "", *layers):
        for word, runtime in _RUNTIMES:
            if word in text:
                return runtime
    return None


def virtual_machine(root: Path, run: Run = command_output) -> str | None:
    """Find the hypervisor under this system by processor flag, firmware or systemd."""
    if "control_d" in (read_text(root / "proc/xen/capabilities") or ""):
        return None  # this is the system that runs Xen's guests
    flag = has_hypervisor_flag(parse_cpuinfo(read_text(root / "proc/cpuinfo")))
    if flag is False and not (root / "sys/hypervisor/type").exists():
        return None  # a cloud's bare machine has the cloud's name in its firmware too
    parts = (
        read_text(root / "sys/class/dmi/id" / name)
        for name in ("sys_vendor", "product_name", "bios_vendor")
    )
    firmware = " ".join(part for part in parts if part).lower()
    if not (flag is None and ".metal" in firmware):
        for word, name in _FIRMWARE:
            if word in firmware:
                return name
    answer = run(["systemd-detect-virt", "--vm"])
    if answer and answer != "none":
        return _SYSTEMD.get(answer, _UNNAMED)
    xen = (read_text(root / "sys/hypervisor/type") or "").lower() == "xen"
    if xen:
        return "Xen"
    return _UNNAMED if flag else None


def _os_version(root: Path) -> str | None:
    for path in ("etc/os-release", "usr/lib/os-release"):
        found = fields(read_text(root / path), "=")
        text = found.get("PRETTY_NAME") or found.get("NAME")
        if text:
            try:
                return " ".join(shlex.split(text)) or None
            except ValueError:  # an unbalanced quote
                return text.strip("\"'") or None
    return None
