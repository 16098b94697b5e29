"""What this is: an operating system, on a computer or inside of something."""

from __future__ import annotations

from guidebook.doctor.facts import Facts
from guidebook.doctor.model import (
    ADMINISTRATOR,
    BIOS,
    HERE,
    Check,
    Evidence,
    Finding,
    Fix,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.nvidia import version
from guidebook.doctor.probe import Probe

_SYSTEM = "platform.system"
_VIRTUALIZATION = "platform.virtualization"
_CONTAINER = "platform.container"
_KERNEL = "platform.kernel"
_LIBRARY = "platform.c-library"

# The lowest kernel and C library that packages tagged manylinux_2_28 are built for.
_LEAST_LIBRARY = (2, 28)
_LEAST_KERNEL = (4, 18)
_NAMES = {
    "linux": "Linux",
    "wsl1": "WSL 1",
    "wsl2": "WSL 2",
    "macos-arm": "macOS on an Apple chip",
    "macos-intel": "macOS on an Intel processor",
    "macos-rosetta": "macOS on an Apple chip, with a Python for Intel that Rosetta translates",
    "windows": "Windows",
    "other": "an operating system that this book does not know",
}


def _system(probe: Probe, facts: Facts) -> Finding:
    platform = probe.platform()
    name = _NAMES[facts.os]
    parts = [facts.distribution_name or name]
    if facts.in_wsl and facts.distribution_name:
        parts.append(f"in {name}")
    if facts.kernel and not facts.is_mac:
        parts.append(f"kernel {'.'.join(str(part) for part in facts.kernel)}")
    parts.append(platform.machine)
    summary = ", ".join(parts) + "."
    banner = (probe.read("/proc/version") if facts.is_linux else None) or platform.version
    evidence = (quote("/proc/version" if facts.is_linux else "Python", banner),)
    if facts.os == "macos-intel":
        return Finding(
            _SYSTEM,
            "warning",
            f"{summary} PyTorch's last version for Intel Macs is 2.2, of 2024.",
            evidence,
            fix=Fix("Use llama.cpp, which still supports this Mac, or another computer."),
        )
    if facts.os == "other":
        return Finding(_SYSTEM, "could not tell", f"This is {platform.system}: {name}.", evidence)
    return Finding(_SYSTEM, "ok", summary, evidence)


def _virtualization(_: Probe, facts: Facts) -> Finding:
    if facts.os == "wsl2":
        return Finding(_VIRTUALIZATION, "ok", "Virtualization works: WSL 2 runs on it.")
    if facts.os not in ("wsl1", "windows"):
        return Finding(
            _VIRTUALIZATION, "not applicable", "Only WSL 2 on Windows needs virtualization."
        )
    on = facts.windows.virtualization if facts.windows else None
    source = "Win32_Processor, Win32_ComputerSystem"
    if on is None:
        return Finding(
            _VIRTUALIZATION,
            "could not tell",
            "Windows did not say whether virtualization is switched on.",
            fix=Fix(
                "Look at Task Manager, Performance, CPU: Virtualization.",
                ("taskmgr",),
                ADMINISTRATOR,
            ),
        )
    if on:
        seen = Evidence(source, "a hypervisor runs, or the firmware allows one")
        return Finding(_VIRTUALIZATION, "ok", "Virtualization is switched on.", (seen,))
    return Finding(
        _VIRTUALIZATION,
        "problem",
        "The processor's virtualization is switched off in the firmware.",
        (Evidence(source, "VirtualizationFirmwareEnabled = False, HypervisorPresent = False"),),
        fix=Fix(
            "Restart into the firmware's settings with the command below (as administrator), "
            "switch on 'Intel VT-x' or, on AMD, 'SVM Mode', save, and start Windows again.",
            ("shutdown /r /fw /t 0",),
            BIOS,
        ),
    )


def _container(probe: Probe, facts: Facts) -> Finding:
    if not facts.is_linux:
        return Finding(_CONTAINER, "not applicable", "Looked at on Linux only.")
    inside = []
    if facts.container:
        inside.append(_named("a container", facts.container))
    if facts.virtual_machine and not facts.in_wsl:
        inside.append(_named("a virtual machine", facts.virtual_machine))
    signs = [path for path in ("/.dockerenv", "/run/.containerenv") if probe.exists(path)]
    evidence = [Evidence(path, "exists") for path in signs]
    detected = probe.run(("systemd-detect-virt",))
    if detected.text:
        evidence.append(evidence_of("systemd-detect-virt", detected))
    if not inside:
        return Finding(
            _CONTAINER, "ok", "No container and no virtual machine around it.", tuple(evidence)
        )
    note = ""
    if signs and not facts.container:
        note = ", whose disk was made from a container's image"
    return Finding(
        _CONTAINER,
        "ok",
        f"This runs inside {' and '.join(inside)}{note}: it sees what that lets through.",
        tuple(evidence),
    )


def _named(what: str, name: str) -> str:
    return what if name == "unnamed" else f"{what} ({name})"


def _kernel(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "linux":
        where = "wsl.kernel looks at WSL's" if facts.in_wsl else "Only Linux kernels are looked at"
        return Finding(_KERNEL, "not applicable", f"{where}.")
    release = probe.platform().release
    evidence = (Evidence("uname -r", release),)
    if facts.kernel is None:
        return Finding(_KERNEL, "could not tell", "The kernel does not say a version.", evidence)
    text = ".".join(str(part) for part in facts.kernel)
    if facts.kernel < _LEAST_KERNEL:
        return Finding(
            _KERNEL,
            "warning",
            f"Kernel {text} is from before 2018.",
            evidence,
            fix=Fix(
                "Upgrade to a release of your distribution that is still supported"
                + (", on the host." if facts.container else "."),
                where="the host of this container" if facts.container else HERE,
            ),
        )
    return Finding(_KERNEL, "ok", f"Kernel {text} is recent enough.", evidence)


def _c_library(probe: Probe, facts: Facts) -> Finding:
    if not facts.is_linux:
        return Finding(_LIBRARY, "not applicable", "Looked at on Linux only.")
    command = "getconf GNU_LIBC_VERSION"
    output = probe.run(tuple(command.split()))
    found = version(output.text.removeprefix("glibc")) if output.ok else None
    if found is None:
        musl = probe.glob("/lib/ld-musl-*")
        if musl:
            return Finding(
                _LIBRARY,
                "problem",
                "This Linux has the C library musl, for which PyTorch has no packages.",
                (Evidence(musl[0], "exists"),),
                fix=Fix("Use a distribution with the GNU C library, such as Ubuntu or Debian."),
            )
        return could_not_tell(_LIBRARY, command, output)
    text = ".".join(str(part) for part in found)
    evidence = (evidence_of(command, output),)
    if found < _LEAST_LIBRARY:
        return Finding(
            _LIBRARY,
            "problem",
            f"The GNU C library {text} is too old: packages are built for 2.28 or newer.",
            evidence,
            fix=Fix("Upgrade to Ubuntu 20.04, Debian 10, RHEL 8 or something newer."),
        )
    return Finding(_LIBRARY, "ok", f"The GNU C library {text} runs today's packages.", evidence)


CHECKS = (
    Check(
        id=_SYSTEM,
        title="Operating system",
        group="platform",
        why="Every other answer depends on what this is.",
        run=_system,
        explain="Reads what Python says about the platform and, on Linux, /proc/version and "
        "/etc/os-release. The kernel's name tells WSL and its two versions; on a Mac, "
        "sysctl.proc_translated tells whether Rosetta translates this Python.",
    ),
    Check(
        id=_VIRTUALIZATION,
        title="Virtualization",
        group="platform",
        why="WSL 2 is a virtual machine: without the processor's virtualization it cannot start.",
        run=_virtualization,
        explain="Asks Windows (Win32_ComputerSystem.HypervisorPresent and "
        "Win32_Processor.VirtualizationFirmwareEnabled). Where a hypervisor runs, the second says "
        "'off' although it is on, so either is enough. "
        "https://learn.microsoft.com/windows/wsl/troubleshooting",
    ),
    Check(
        id=_CONTAINER,
        title="Container and virtual machine",
        group="platform",
        why="Inside of something, memory, processors and GPUs are what it lets through.",
        run=_container,
        explain="Looks for the marks that container run-times and hypervisors leave: files such as "
        "/.dockerenv, control groups, the processor's hypervisor flag, firmware names, and what "
        "systemd-detect-virt says. A system whose root is a whole disk is no container, whatever "
        "marks its image carries.",
    ),
    Check(
        id=_KERNEL,
        title="Linux kernel",
        group="platform",
        why="Drivers and packages no longer support very old kernels.",
        run=_kernel,
        explain="Compares the kernel's version with 4.18, that of the oldest distribution for "
        "which packages tagged manylinux_2_28 are built. "
        "https://github.com/pypa/manylinux",
    ),
    Check(
        id=_LIBRARY,
        title="C library",
        group="platform",
        why="A package that is built for a newer C library does not load.",
        run=_c_library,
        explain="Runs getconf GNU_LIBC_VERSION. PyTorch's packages are tagged manylinux_2_28: they "
        "need the GNU C library 2.28 or newer, and do not run with musl (Alpine Linux). "
        "https://github.com/pypa/manylinux",
    ),
)
