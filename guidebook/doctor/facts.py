"""What several checks need to know, worked out once from the probe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from guidebook.catalog import hardware
from guidebook.doctor import compatibility, nvidia
from guidebook.doctor.nvidia import NvidiaGpu, Version
from guidebook.doctor.probe import Output, Probe
from guidebook.machine import _cgroup, system
from guidebook.machine._outside import fields

Os = Literal[
    "linux", "wsl1", "wsl2", "macos-arm", "macos-intel", "macos-rosetta", "windows", "other"
]

SMI = "nvidia-smi"
SMI_IN_WSL = "/usr/lib/wsl/lib/nvidia-smi"
SMI_SECONDS = 4.0
WINDOWS_SECONDS = 6.0

# One question for everything, because starting PowerShell takes longer than the answer.
_WINDOWS_SCRIPT = (
    "$c=Get-CimInstance Win32_ComputerSystem;"
    "$p=@(Get-CimInstance Win32_Processor)[0];"
    "$o=Get-CimInstance Win32_OperatingSystem;"
    "ConvertTo-Json -Compress -Depth 3 @{"
    "memory=$c.TotalPhysicalMemory;processors=$c.NumberOfLogicalProcessors;"
    "hypervisor=$c.HypervisorPresent;virtualization=$p.VirtualizationFirmwareEnabled;"
    "build=$o.BuildNumber;profile=$env:USERPROFILE;"
    "cards=@(Get-CimInstance Win32_VideoController|ForEach-Object{$_.Name})}"
)
_POWERSHELL = "Windows/System32/WindowsPowerShell/v1.0/powershell.exe"
_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_NVIDIA_PCI, _DISPLAY_CLASS = "0x10de", "0x03"


@dataclass(frozen=True)
class Need:
    """What a model that the reader wants to run takes."""

    name: str
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Windows:
    r"""What Windows says about the computer under WSL, or under this Python; None is unknown.

    Attributes
    ----------
    virtualization
        Whether the processor's virtualization is switched on in the firmware.
    profile
        The user's folder, such as ``C:\Users\me``; never shown.
    cards
        Names of the graphics cards.
    """

    memory_bytes: int | None = None
    processors: int | None = None
    virtualization: bool | None = None
    build: int | None = None
    profile: str | None = None
    cards: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Facts:
    """The machine in a few words; None is unknown.

    Attributes
    ----------
    os
        What this Python runs on. ``macos-rosetta``: Python for Intel on an Apple chip.
    architecture
        Of the Python process, as ``platform.machine()`` says.
    distribution, distribution_version
        ``ubuntu`` and ``24.04``, as in /etc/os-release.
    kernel
        Version numbers of the kernel.
    container, virtual_machine
        Name of what it runs inside, ``unnamed`` if that is all that is known; None: none found.
    nvidia_expected
        Whether the computer has an NVIDIA GPU, working or not.
    smi
        The program ``nvidia-smi`` that was asked.
    gpus
        The NVIDIA GPUs that the driver shows.
    driver
        NVIDIA's driver version; in WSL, that of the Windows driver.
    cuda
        The highest CUDA version that the driver supports.
    windows
        None outside of Windows and WSL.
    windows_drive
        Where WSL shows drive C:, such as ``/mnt/c``.
    folder, home
        The project's folder and the user's home; home is shown as ``~``.
    needs
        The models that the reader wants to run.
    """

    os: Os
    architecture: str = ""
    distribution: str | None = None
    distribution_version: str | None = None
    distribution_name: str | None = None
    kernel: Version | None = None
    container: str | None = None
    virtual_machine: str | None = None
    nvidia_expected: bool | None = None
    smi: str = SMI
    gpus: tuple[NvidiaGpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    windows: Windows | None = None
    windows_drive: str | None = None
    folder: str = ""
    home: str = ""
    needs: tuple[Need, ...] = ()

    @property
    def in_wsl(self) -> bool:
        """Whether this is the Windows Subsystem for Linux."""
        return self.os in ("wsl1", "wsl2")

    @property
    def is_linux(self) -> bool:
        """Whether this is Linux of any kind."""
        return self.os in ("linux", "wsl1", "wsl2")

    @property
    def is_mac(self) -> bool:
        """Whether this is a Mac of any kind."""
        return self.os.startswith("macos")

    @property
    def has_nvidia(self) -> bool:
        """Whether an NVIDIA GPU answers."""
        return bool(self.gpus)

    @property
    def capability(self) -> tuple[int, int] | None:
        """The lowest compute capability among the GPUs: what every build must support."""
        known = [gpu.compute_capability for gpu in self.gpus if gpu.compute_capability]
        return min(known) if known else None

    @property
    def cuda_version(self) -> Version | None:
        """The highest CUDA version that the driver supports, as numbers."""
        return nvidia.version(self.cuda)


def gather(
    probe: Probe,
    needs: tuple[Need, ...] = (),
    meanwhile: Callable[[Facts], None] = lambda _: None,
) -> Facts:
    """Work out what several checks need.

    Parameters
    ----------
    probe
        The machine.
    needs
        The models that must find room.
    meanwhile
        Called with what is known so far, before the wait for Windows' answer.
    """
    platform = probe.platform()
    facts = Facts(
        os=_os(probe),
        architecture=platform.machine,
        kernel=_version_of(platform.release),
        folder=platform.folder,
        home=platform.home,
        needs=needs,
    )
    if facts.is_linux:
        facts = _with_linux(facts, probe)
    on_windows = facts.in_wsl or facts.os == "windows"
    drive = windows_drive(probe) if facts.in_wsl else None
    command = windows_command(drive)
    if on_windows:
        probe.begin(command, time_limit=WINDOWS_SECONDS)
    if facts.is_linux or on_windows:
        facts = replace(_with_nvidia(facts, probe), windows_drive=drive)
    meanwhile(replace(facts, nvidia_expected=_nvidia_expected(facts, probe)))
    if on_windows:
        answer = probe.run(command, time_limit=WINDOWS_SECONDS)
        facts = replace(facts, windows=parse_windows(answer))
    return replace(facts, nvidia_expected=_nvidia_expected(facts, probe))


def windows_command(drive: str | None) -> tuple[str, ...]:
    """Return the command that asks Windows about the computer.

    Parameters
    ----------
    drive
        Where WSL shows drive C:; None on Windows, or if it does not show it.
    """
    program = f"{drive}/{_POWERSHELL}" if drive else "powershell.exe"
    return (program, "-NoProfile", "-NonInteractive", "-Command", _WINDOWS_SCRIPT)


def parse_windows(output: Output) -> Windows:
    """Read the answer to :func:`windows_command`."""
    start = output.text.find("{")
    try:
        data = json.loads(output.text[start:]) if output.ok and start >= 0 else {}
    except ValueError:
        data = {}
    if not isinstance(data, dict):
        data = {}
    cards = data.get("cards")
    virtualization = data.get("virtualization")
    # Under a running hypervisor Windows reports the processor's own switch as off.
    on = True if data.get("hypervisor") is True else virtualization
    return Windows(
        memory_bytes=_int(data, "memory"),
        processors=_int(data, "processors"),
        virtualization=on if isinstance(on, bool) else None,
        build=_int(data, "build"),
        profile=data["profile"] if isinstance(data.get("profile"), str) else None,
        cards=tuple(str(card) for card in cards) if isinstance(cards, list) else None,
    )


def ask_smi(probe: Probe, smi: str, *arguments: str) -> Output:
    """Ask ``nvidia-smi``; several checks ask the same, and it runs once."""
    return probe.run((smi, *arguments), time_limit=SMI_SECONDS)


def mounts(probe: Probe) -> list[_cgroup.Mount]:
    """Return the mount table of Linux."""
    return _cgroup.mounts(probe.root)


def mount_of(probe: Probe, folder: str) -> _cgroup.Mount | None:
    """Return the mount that holds a folder of Linux."""
    path = PurePosixPath(folder)
    holding = [mount for mount in mounts(probe) if path.is_relative_to(mount.point)]
    # Of equal mount points the last hides the others.
    return max(reversed(holding), key=lambda mount: len(mount.point), default=None)


def _os(probe: Probe) -> Os:
    platform = probe.platform()
    if platform.system == "linux":
        wsl: Mapping[int | None, Os] = {1: "wsl1", 2: "wsl2"}
        return wsl.get(system.wsl_version(probe.root), "linux")
    if platform.system == "darwin":
        if platform.machine == "arm64":
            return "macos-arm"
        # 1 for a process that Rosetta translates; an Intel Mac does not know the name.
        translated = probe.run(("sysctl", "-n", "sysctl.proc_translated")).text == "1"
        return "macos-rosetta" if translated else "macos-intel"
    return "windows" if platform.system == "win32" else "other"


def _with_linux(facts: Facts, probe: Probe) -> Facts:
    names = ("KUBERNETES_SERVICE_HOST", "APPTAINER_CONTAINER")
    environment = {name: value for name in names if (value := probe.environment(name))}

    def run(command: Sequence[str], *_: float) -> str | None:
        output = probe.run(command)
        return output.text if output.ok else None

    release = fields(probe.read("/etc/os-release") or probe.read("/usr/lib/os-release"), "=")
    found = system.from_linux(probe.root, None, environment, run)
    return replace(
        facts,
        # A container on WSL's kernel is a container: what is special about WSL lies outside of it.
        os="linux" if found.container else facts.os,
        distribution=release.get("ID", "").strip("\"'").lower() or None,
        distribution_version=release.get("VERSION_ID", "").strip("\"'") or None,
        distribution_name=found.os_version,
        container=found.container,
        virtual_machine=found.virtual_machine,
    )


def _with_nvidia(facts: Facts, probe: Probe) -> Facts:
    smi = SMI
    log = ask_smi(probe, smi, "-q", "-x")
    if log.status == "missing" and facts.in_wsl and probe.exists(SMI_IN_WSL):
        smi = SMI_IN_WSL
        log = ask_smi(probe, smi, "-q", "-x")
    found = nvidia.parse_xml(log.text) if log.ok else None
    if found is None:
        return replace(facts, smi=smi)
    answer = ask_smi(probe, smi, "--query-gpu=compute_cap", "--format=csv,noheader")
    capabilities = nvidia.parse_capabilities(answer.text) if answer.ok else ()
    gpus = tuple(
        replace(
            gpu,
            compute_capability=(capabilities[index] if index < len(capabilities) else None)
            or _capability(gpu.name),
        )
        for index, gpu in enumerate(found.gpus)
    )
    driver, cuda = found.driver, found.cuda
    if driver is None or cuda is None:
        table = nvidia.parse_header(ask_smi(probe, smi).text)
        driver, cuda = driver or table[0], cuda or table[1]
    cuda = cuda or compatibility.highest_cuda(driver)
    return replace(facts, smi=smi, gpus=gpus, driver=driver, cuda=cuda)


def _capability(name: str) -> tuple[int, int] | None:
    """Look a GPU up by name: drivers before 2021 do not tell its compute capability."""
    try:
        known = nvidia.version(str(hardware.find(name).compute_capability))
    except LookupError:
        return None
    return (known[0], known[1]) if known and len(known) == 2 else None


def _nvidia_expected(facts: Facts, probe: Probe) -> bool | None:
    if facts.gpus:
        return True
    if facts.is_mac:
        return False
    if facts.windows is not None and facts.windows.cards is not None:
        return any("nvidia" in card.lower() for card in facts.windows.cards)
    if facts.os == "wsl2":
        # Windows puts NVIDIA's part there, if its driver is installed.
        return True if probe.exists("/usr/lib/wsl/lib/libcuda.so.1") else None
    if facts.os != "linux":
        return None
    devices = probe.glob("/sys/bus/pci/devices/*/vendor")
    if any(_is_nvidia_card(probe, path.removesuffix("/vendor")) for path in devices):
        return True
    if probe.exists("/proc/driver/nvidia/version") or probe.exists("/dev/nvidiactl"):
        return True
    if "microsoft" in (probe.read("/proc/version") or "").lower():
        return None  # WSL shows its GPU on no bus
    # NVIDIA's boards with the GPU inside the processor have none on a PCI bus.
    model = (probe.read("/proc/device-tree/model") or "").lower()
    return True if "nvidia" in model else False if devices else None


def _is_nvidia_card(probe: Probe, device: str) -> bool:
    return (probe.read(f"{device}/vendor") or "").strip() == _NVIDIA_PCI and (
        probe.read(f"{device}/class") or _DISPLAY_CLASS
    ).startswith(_DISPLAY_CLASS)


def windows_drive(probe: Probe) -> str | None:
    """Find where WSL shows drive C:; the mount point can be changed in /etc/wsl.conf."""
    for mount in mounts(probe):
        if mount.filesystem in ("9p", "drvfs", "virtiofs") and re.match(
            r"C:\\?(?:$|\\)", mount.source + "\\" if mount.source == "C:" else mount.source
        ):
            return mount.point
        if mount.filesystem == "9p" and re.search(r"path=C:\\?(?:[;,]|$)", mount.super_options):
            return mount.point
    return "/mnt/c" if probe.exists("/mnt/c/Windows") else None


def _version_of(release: str) -> Version | None:
    found = _RELEASE.match(release)
    return nvidia.version(found[0]) if found else None


def _int(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
