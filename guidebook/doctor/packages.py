"""Which packages of the system bring an NVIDIA driver or a CUDA toolkit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidebook.doctor.probe import Output, Probe

COMMAND = "dpkg -l"
# Packages that only help containers to reach the driver of the host.
_CONTAINER = re.compile(r"(?:lib)?nvidia-container.*|nvidia-docker.*")
_DRIVER = re.compile(
    r"nvidia-(?:driver|headless|dkms|kernel|utils|compute-utils|open|firmware|persistenced|modprobe"
    r"|smi|alternative|legacy|egl|vdpau|vulkan|opencl).*"
    r"|libnvidia-(?:compute|gl|decode|encode|cfg1|common|extra|fbc1|ifr1|ptxjitcompiler|ml1).*"
    r"|libcuda1(?:-.*)?|linux-(?:modules|objects|signatures)-nvidia-.*|xserver-xorg-video-nvidia.*"
    r"|cuda-drivers(?:-.*)?|cuda-compat-.*"
)
# They depend on cuda-drivers.
_META = re.compile(r"cuda(?:-\d+-\d+)?|cuda-runtime-\d+-\d+|cuda-demo-suite-\d+-\d+|cuda-drivers.*")
_LINE = re.compile(r"ii\s+(\S+?)(?::\w+)?\s+(\S+)")


@dataclass(frozen=True)
class Package:
    """An installed package, and the line that says so."""

    name: str
    version: str
    line: str


def ask(probe: Probe) -> Output:
    """List the system's packages; there is no such list but on Debian and its family."""
    return probe.run(tuple(COMMAND.split()))


def installed(output: Output) -> tuple[Package, ...]:
    """Read the installed packages out of ``dpkg -l``."""
    found = []
    for line in output.text.splitlines():
        match = _LINE.match(line)
        if match:
            short = " ".join(line.split()[:3])
            found.append(Package(match[1], match[2], short))
    return tuple(found)


def drivers(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Pick those that are, or bring, a driver."""
    return tuple(
        one
        for one in packages
        if (_DRIVER.fullmatch(one.name) or _META.fullmatch(one.name))
        and not _CONTAINER.fullmatch(one.name)
    )


def meta(packages: tuple[Package, ...]) -> tuple[Package, ...]:
    """Pick NVIDIA's meta-packages that bring a driver along with the toolkit."""
    return tuple(one for one in packages if _META.fullmatch(one.name))


def toolkit_version(packages: tuple[Package, ...]) -> str | None:
    """Return the newest toolkit among the packages, such as ``12.4``."""
    found = [
        (int(match[1]), int(match[2]))
        for one in packages
        if (match := re.fullmatch(r"cuda(?:-toolkit|-nvcc)?-(\d+)-(\d+)", one.name))
    ]
    return "{}.{}".format(*max(found)) if found else None
