"""The Windows Subsystem for Linux: the right version, enough of the computer, and its GPU."""

from __future__ import annotations

import json
import re

from guidebook import units
from guidebook.doctor import fixes, packages, windows_host, wslconfig
from guidebook.doctor.facts import Facts, mount_of
from guidebook.doctor.model import (
    ADMINISTRATOR,
    HERE,
    POWERSHELL,
    Check,
    Evidence,
    Finding,
    Fix,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.probe import Probe
from guidebook.machine._outside import fields, to_int

_INSTALLED = "wsl.installed"
_VERSION = "wsl.version"
_WINDOWS = "wsl.windows"
_KERNEL = "wsl.kernel"
_SYSTEMD = "wsl.systemd"
_CONFIG = "wsl.config"
_MEMORY = "wsl.memory"
_PROCESSORS = "wsl.processors"
_SWAP = "wsl.swap"
_FOLDER = "wsl.folder"
_LINUX_DRIVER = "wsl.linux-driver"
_DXG = "wsl.dxg"
_LIBCUDA = "wsl.libcuda"
_NETWORK = "wsl.network"

DXG = "/dev/dxg"
LIBRARIES = "/usr/lib/wsl/lib"
LM_STUDIO_PORT = 1234

# https://learn.microsoft.com/windows/ai/directml/gpu-cuda-in-wsl
_LEAST_KERNEL = (5, 10, 43, 3)
_LEAST_WINDOWS = 19044  # Windows 10 21H2
_OWN_MEMORY = 1 * units.GIB  # what Ubuntu itself takes
_WINDOWS_MEMORY = 4 * units.GIB  # what Windows needs to stay usable
_SERVER_SECONDS = 0.4
# What a package brings of the driver, where a .run installer leaves it.
_FOREIGN = (
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    "/usr/bin/nvidia-uninstall",
)

# Writes and reads in each folder named, removes what it wrote, and ends itself in time.
DISK_SPEED = """# doctor: disk-speed
import json, os, shutil, sys, tempfile, time
results = []
for folder in sys.argv[1:]:
    end = time.perf_counter() + 0.45
    made = None
    try:
        made = tempfile.mkdtemp(prefix="guidebook-doctor-", dir=folder)
        path, chunk = os.path.join(made, "large"), os.urandom(1 << 18)
        began, written = time.perf_counter(), 0
        with open(path, "wb", buffering=0) as file:
            while written < 1 << 23 and time.perf_counter() < end - 0.2:
                written += file.write(chunk)
            os.fsync(file.fileno())
        write = written / (time.perf_counter() - began)
        began = time.perf_counter()
        with open(path, "rb") as file:
            size = len(file.read())
        read = size / (time.perf_counter() - began)
        began, files = time.perf_counter(), 0
        while files < 200 and time.perf_counter() < end:
            with open(os.path.join(made, str(files)), "wb") as file:
                file.write(b"x")
            files += 1
        small = files / (time.perf_counter() - began)
        results.append({"folder": folder, "write": write, "read": read, "files": small})
    except OSError as error:
        results.append({"folder": folder, "error": os.strerror(error.errno or 0)})
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)
print(json.dumps(results))
"""


def _outside(check: str) -> Finding:
    return Finding(check, "not applicable", "This is not WSL.")


def _installed(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "windows":
        return Finding(_INSTALLED, "not applicable", "Looked at from Windows only.")
    command = "wsl.exe -l -v"
    output = probe.run(tuple(command.split()))
    if output.status in ("timed out", "unreadable", "not executable"):
        return could_not_tell(_INSTALLED, command, output)
    found = distributions(output.text) if output.ok else []
    # Docker's own distributions hold no Linux to work in.
    found = [one for one in found if not one[0].startswith("docker-desktop")]
    evidence = (evidence_of(command, output),)
    if not found:
        return Finding(
            _INSTALLED,
            "problem",
            "WSL is not installed, or has no Linux distribution.",
            evidence,
            fix=Fix(
                "This installs WSL 2 with Ubuntu. Restart Windows afterwards.",
                ("wsl --install -d Ubuntu",),
                ADMINISTRATOR,
            ),
        )
    second = [name for name, version in found if version == 2]
    if not second:
        name = found[0][0]
        return Finding(
            _INSTALLED,
            "problem",
            f"{name} runs in WSL 1, which has no Linux kernel and no GPU.",
            evidence,
            fix=Fix(
                "This converts it, which takes some minutes.",
                ("wsl --update", f"wsl --set-version {name} 2"),
                POWERSHELL,
            ),
        )
    return Finding(
        _INSTALLED,
        "warning",
        f"This is Python for Windows; {second[0]} stands ready in WSL 2.",
        evidence,
        fix=Fix(
            "The book's programs are made for Linux. Open it there and run the doctor again.",
            (f"wsl -d {second[0]} --cd ~",),
            POWERSHELL,
        ),
    )


def distributions(text: str) -> list[tuple[str, int]]:
    """Read names and versions out of ``wsl.exe -l -v``, in whatever language its heading is."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*(?:\*\s+|\s+)(\S+)\s+.*?\s([12])\s*$", " " + line.replace("\0", ""))
        if match:
            found.append((match[1], int(match[2])))
    return found


def _version(probe: Probe, facts: Facts) -> Finding:
    if not facts.in_wsl:
        return _outside(_VERSION)
    evidence = (quote("/proc/version", probe.read("/proc/version") or ""),)
    if facts.os == "wsl2":
        return Finding(_VERSION, "ok", "This is WSL 2.", evidence)
    name = probe.environment("WSL_DISTRO_NAME") or "Ubuntu"
    return Finding(
        _VERSION,
        "problem",
        "This is WSL 1: it has no Linux kernel, so no GPU, and little of the book runs.",
        evidence,
        fix=Fix(
            "Convert the distribution, which keeps its files and takes some minutes, and make "
            "WSL 2 the version of new ones.",
            ("wsl --update", f"wsl --set-version {name} 2", "wsl --set-default-version 2"),
            POWERSHELL,
        ),
    )


def _windows(_: Probe, facts: Facts) -> Finding:
    if not facts.in_wsl and facts.os != "windows":
        return _outside(_WINDOWS)
    build = facts.windows.build if facts.windows else None
    if build is None:
        return Finding(_WINDOWS, "could not tell", "Windows did not say which build it is.")
    evidence = (Evidence("Win32_OperatingSystem.BuildNumber", str(build)),)
    if build < _LEAST_WINDOWS:
        return Finding(
            _WINDOWS,
            "problem",
            f"Windows build {build} is older than {_LEAST_WINDOWS} (Windows 10 21H2): "
            "its WSL has no GPU.",
            evidence,
            fix=Fix(
                "Install all updates, or Windows 11.",
                ("start ms-settings:windowsupdate",),
                POWERSHELL,
            ),
        )
    return Finding(_WINDOWS, "ok", f"Windows build {build} gives WSL a GPU.", evidence)


def _kernel(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_KERNEL) if not facts.in_wsl else _only_second(_KERNEL)
    evidence = (Evidence("uname -r", probe.platform().release),)
    if facts.kernel is None:
        return Finding(_KERNEL, "could not tell", "The kernel does not say a version.", evidence)
    text = ".".join(str(part) for part in facts.kernel)
    if facts.kernel < _LEAST_KERNEL:
        return Finding(
            _KERNEL,
            "problem",
            f"WSL's kernel {text} is older than 5.10.43.3: it does not reach the GPU.",
            evidence,
            fix=fixes.restart_wsl("Update WSL and restart it."),
        )
    return Finding(_KERNEL, "ok", f"WSL's kernel {text} is recent enough for the GPU.", evidence)


def _only_second(check: str) -> Finding:
    return Finding(check, "not applicable", "Only WSL 2 has this.")


def _systemd(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_SYSTEMD) if not facts.in_wsl else _only_second(_SYSTEMD)
    first = probe.read("/proc/1/comm")
    if first is None:
        return Finding(_SYSTEMD, "could not tell", "The first process does not say its name.")
    evidence = (Evidence("/proc/1/comm", first),)
    if first == "systemd":
        return Finding(_SYSTEMD, "ok", "systemd runs.", evidence)
    setting = wslconfig.distribution_setting(probe, "boot", "systemd")
    if setting == "true":
        return Finding(
            _SYSTEMD,
            "warning",
            "systemd is switched on in /etc/wsl.conf but does not run.",
            (*evidence, Evidence("/etc/wsl.conf", f"systemd={setting}")),
            fix=fixes.restart_wsl("Restart WSL; if that does not help, update it."),
        )
    return Finding(
        _SYSTEMD,
        "warning",
        f"systemd does not run; the first process is {first}.",
        evidence,
        fix=fixes.edit_wsl_conf("boot", "systemd=true", "Switch it on."),
    )


def _config(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_CONFIG) if not facts.in_wsl else _only_second(_CONFIG)
    settings = wslconfig.find(probe, facts)
    if settings.mistakes:
        evidence = (quote(wslconfig.NAME, settings.text),) if settings.text else ()
        first = settings.mistakes[0]
        return Finding(
            _CONFIG,
            "warning",
            f"WSL does not heed all of .wslconfig: {first}",
            evidence + tuple(Evidence("mistake", one) for one in settings.mistakes[1:]),
            fix=Fix(
                f"{first} Correct it in the file that opens, save it as .wslconfig (no .txt), and "
                "restart WSL.",
                ('notepad "$env:USERPROFILE\\.wslconfig"', fixes.SHUTDOWN),
                POWERSHELL,
            ),
        )
    if settings.path:
        return Finding(
            _CONFIG, "ok", "WSL understands .wslconfig.", (quote(wslconfig.NAME, settings.text),)
        )
    if wslconfig.profile(probe, facts) is None:
        return Finding(_CONFIG, "could not tell", "The Windows user's folder was not found.")
    return Finding(_CONFIG, "ok", "There is no .wslconfig: WSL's defaults hold.")


def _memory(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_MEMORY) if not facts.in_wsl else _only_second(_MEMORY)
    own = _meminfo(probe, "MemTotal")
    if own is None:
        return Finding(_MEMORY, "could not tell", "/proc/meminfo does not say how much memory.")
    host = facts.windows.memory_bytes if facts.windows else None
    settings = wslconfig.find(probe, facts)
    limit = settings.get("memory")
    evidence = [Evidence("/proc/meminfo", f"MemTotal: {units.memory(own)}")]
    if host:
        evidence.append(Evidence("Win32_ComputerSystem.TotalPhysicalMemory", units.memory(host)))
    if limit:
        evidence.append(Evidence(wslconfig.NAME, f"memory={limit}"))
    share = (
        f"WSL has {units.memory(own)} of the computer's {units.memory(host)}"
        if host
        else f"WSL has {units.memory(own)} of the computer's memory"
    )
    whose = f"as .wslconfig says (memory={limit})" if limit else "its default, one half"
    need = max(facts.needs, key=lambda one: one.memory_bytes, default=None)
    if need is None or need.memory_bytes + _OWN_MEMORY <= own:
        fits = f"; {need.name} needs {units.memory(need.memory_bytes)}" if need else ""
        return Finding(_MEMORY, "ok", f"{share}, {whose}{fits}.", tuple(evidence))
    wants = f"{need.name} needs {units.memory(need.memory_bytes)}"
    on_gpu = sum(gpu.memory_bytes or 0 for gpu in facts.gpus) >= need.memory_bytes
    most = host - _WINDOWS_MEMORY if host else None
    if most is None or need.memory_bytes + _OWN_MEMORY > most:
        advice = "Take a smaller model or a smaller file type, or add memory to the computer."
        return Finding(
            _MEMORY,
            "warning",
            f"{share}, {whose}; {wants}, more than Windows could give.",
            tuple(evidence),
            fix=Fix(advice)
            if host
            else fixes.edit_wslconfig(_memory_line(need.memory_bytes), text=advice),
        )
    given = max(host * 3 // 4 if host else 0, need.memory_bytes + _OWN_MEMORY)
    return Finding(
        _MEMORY,
        "warning" if on_gpu else "problem",
        f"{share}, {whose}; {wants}.",
        tuple(evidence),
        fix=fixes.edit_wslconfig(_memory_line(min(given, most)), text="Give WSL more."),
    )


def _memory_line(n_bytes: int) -> str:
    return f"memory={-(-n_bytes // units.GIB)}GB"


def _processors(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_PROCESSORS) if not facts.in_wsl else _only_second(_PROCESSORS)
    own = len(re.findall(r"^processor\s*:", probe.read("/proc/cpuinfo") or "", re.MULTILINE))
    host = facts.windows.processors if facts.windows else None
    if not own or not host:
        seen = f"WSL sees {own} processors" if own else "/proc/cpuinfo says nothing"
        return Finding(
            _PROCESSORS, "could not tell", f"{seen}; Windows did not say how many it has."
        )
    setting = wslconfig.find(probe, facts).get("processors")
    evidence = [
        Evidence("/proc/cpuinfo", f"{own} processors"),
        Evidence("Win32_ComputerSystem.NumberOfLogicalProcessors", str(host)),
    ]
    if setting:
        evidence.append(Evidence(wslconfig.NAME, f"processors={setting}"))
    summary = f"WSL has {own} of the computer's {host} logical processors."
    # Models compute on physical cores: half of the logical processors are enough.
    if own * 2 < host:
        return Finding(
            _PROCESSORS,
            "warning",
            summary,
            tuple(evidence),
            fix=fixes.edit_wslconfig(
                f"processors={host}", text="Give WSL more, or delete the line."
            ),
        )
    return Finding(_PROCESSORS, "ok", summary, tuple(evidence))


def _swap(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_SWAP) if not facts.in_wsl else _only_second(_SWAP)
    memory, swap = _meminfo(probe, "MemTotal"), _meminfo(probe, "SwapTotal")
    if memory is None or swap is None:
        return Finding(_SWAP, "could not tell", "/proc/meminfo does not say how much swap.")
    evidence = (Evidence("/proc/meminfo", f"SwapTotal: {units.memory(swap)}"),)
    need = max((one.memory_bytes for one in facts.needs), default=0)
    if swap == 0 and need > 0.8 * memory:
        return Finding(
            _SWAP,
            "warning",
            f"WSL has no swap, and a model takes most of its {units.memory(memory)} of memory.",
            evidence,
            fix=fixes.edit_wslconfig("swap=8GB", text="Give WSL some."),
        )
    return Finding(_SWAP, "ok", f"WSL has {units.memory(swap) if swap else 'no'} swap.", evidence)


def _folder(probe: Probe, facts: Facts) -> Finding:
    if not facts.in_wsl:
        return _outside(_FOLDER)
    mount = mount_of(probe, facts.folder)
    if mount is None:
        return Finding(_FOLDER, "could not tell", "The project's file system is not known.")
    evidence = [Evidence("/proc/self/mountinfo", f"{mount.point} is {mount.filesystem}")]
    on_windows = mount.filesystem in ("9p", "drvfs", "virtiofs")
    other = facts.home if on_windows else _windows_folder(probe, facts)
    speeds = _speeds(probe, [facts.folder, *([other] if other else [])])
    measured = ""
    if len(speeds) == 2:
        here, there = speeds
        first, second = ("/mnt/c", "ext4") if on_windows else ("ext4", "/mnt/c")
        measured = (
            f" Measured: {first} writes {units.bandwidth(here['write'])} and "
            f"{units.number(here['files'])} small files/s, {second} "
            f"{units.bandwidth(there['write'])} and {units.number(there['files'])} small files/s."
        )
    if on_windows:
        return Finding(
            _FOLDER,
            "warning",
            f"The project lies on Windows' disk, which is slow from Linux.{measured}",
            tuple(evidence),
            fix=Fix(
                "Move the project, its environment and its models into Linux' own file system.",
                ('cp -r "$PWD" ~/', 'cd ~/"$(basename "$PWD")"'),
                HERE,
            ),
        )
    return Finding(
        _FOLDER,
        "ok",
        f"The project lies on Linux' own disk ({mount.filesystem}).{measured}",
        tuple(evidence),
    )


def _windows_folder(probe: Probe, facts: Facts) -> str | None:
    """Return a folder on Windows' disk in which this user may write."""
    profile = wslconfig.profile(probe, facts)
    folder = f"{profile}/AppData/Local/Temp" if profile else None
    return folder if folder and probe.exists(folder) else None


def _speeds(probe: Probe, folders: list[str]) -> list[dict[str, float]]:
    output = probe.python(DISK_SPEED, arguments=folders, time_limit=2.5)
    try:
        results = json.loads(output.text) if output.ok else []
    except ValueError:
        return []
    if not isinstance(results, list) or any("files" not in one for one in results):
        return []
    return results


def _linux_driver(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_LINUX_DRIVER) if not facts.in_wsl else _only_second(_LINUX_DRIVER)
    listed = packages.ask(probe)
    everything = packages.installed(listed) if listed.ok else ()
    found = packages.drivers(everything)
    if found:
        names = [one.name for one in found]
        metas = packages.meta(everything)
        toolkit = packages.toolkit_version(everything)
        commands = [f"sudo apt-get remove --purge {' '.join(names)}"]
        if toolkit and metas:
            # The meta-package goes, and must not take the toolkit with it.
            commands.insert(0, f"sudo apt-get install cuda-toolkit-{toolkit.replace('.', '-')}")
        commands += ["sudo apt-get autoremove --purge", "sudo ldconfig", "wsl.exe --shutdown"]
        most = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return Finding(
            _LINUX_DRIVER,
            "problem",
            f"A Linux driver for NVIDIA is installed inside WSL: {most}.",
            (quote(packages.COMMAND, "\n".join(one.line for one in found)),),
            fix=Fix(
                "Remove it, so that programs find the part of the Windows driver in "
                f"{LIBRARIES} again, and restart WSL.",
                tuple(commands),
                HERE,
            ),
        )
    foreign = next((path for path in _FOREIGN if probe.exists(path)), None)
    if foreign and not (probe.resolve(foreign) or "").startswith(LIBRARIES):
        return Finding(
            _LINUX_DRIVER,
            "problem",
            "A Linux driver for NVIDIA was installed inside WSL by NVIDIA's .run installer.",
            (Evidence(foreign, "exists"),),
            fix=Fix(
                "Remove it and restart WSL.",
                ("sudo nvidia-uninstall", "sudo ldconfig", "wsl.exe --shutdown"),
                HERE,
            ),
        )
    if not listed.ok and listed.status != "missing":
        return could_not_tell(_LINUX_DRIVER, packages.COMMAND, listed)
    return Finding(_LINUX_DRIVER, "ok", "No Linux driver is installed inside WSL.")


def _dxg(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_DXG) if not facts.in_wsl else _only_second(_DXG)
    if probe.exists(DXG):
        return Finding(_DXG, "ok", f"{DXG} is there.", (Evidence(DXG, "exists"),))
    if facts.nvidia_expected is False:
        return Finding(_DXG, "not applicable", "This computer has no NVIDIA GPU.")
    seen = (Evidence(DXG, "does not exist"),)
    if wslconfig.distribution_setting(probe, "gpu", "enabled") == "false":
        return Finding(
            _DXG,
            "problem",
            "The GPU is switched off for this distribution in /etc/wsl.conf.",
            (*seen, Evidence("/etc/wsl.conf", "[gpu] enabled=false")),
            fix=fixes.edit_wsl_conf("gpu", "enabled=true", "Switch it on."),
        )
    kernel = wslconfig.find(probe, facts).get("kernel")
    if kernel:
        return Finding(
            _DXG,
            "problem",
            f"{DXG} is missing: WSL runs a kernel of your own, without the GPU's part.",
            (*seen, Evidence(wslconfig.NAME, f"kernel={kernel}")),
            fix=fixes.edit_wslconfig("nothing for kernel", text="Delete the line kernel=…"),
        )
    return Finding(
        _DXG,
        "problem",
        f"{DXG} is missing: WSL does not pass the GPU through.",
        seen,
        fix=fixes.restart_wsl(
            "Update WSL and restart it. If the device is still missing, install NVIDIA's current "
            "driver in Windows, restart Windows, and look again."
        ),
    )


def _libcuda(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_LIBCUDA) if not facts.in_wsl else _only_second(_LIBCUDA)
    found = [f"{LIBRARIES}/{name}" for name in ("libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1")]
    there = [path for path in found if probe.exists(path)]
    if len(there) == len(found):
        return Finding(
            _LIBCUDA,
            "ok",
            f"{LIBRARIES} holds the Windows driver's libcuda.",
            (Evidence(there[0], "exists"),),
        )
    if facts.nvidia_expected is False:
        return Finding(_LIBCUDA, "not applicable", "This computer has no NVIDIA GPU.")
    missing = next(path for path in found if path not in there)
    if facts.nvidia_expected is None and not there:
        return Finding(
            _LIBCUDA,
            "could not tell",
            "Windows has no NVIDIA driver for WSL, and did not say whether there is such a GPU.",
            (Evidence(missing, "does not exist"),),
            fix=fixes.update_driver(facts, "If this computer has an NVIDIA GPU:"),
        )
    return Finding(
        _LIBCUDA,
        "problem",
        f"{missing} is missing: Windows has no NVIDIA driver that serves WSL.",
        (Evidence(missing, "does not exist"),),
        fix=fixes.update_driver(
            facts, "The part of the driver that Linux programs load is missing."
        ),
    )


def _network(probe: Probe, facts: Facts) -> Finding:
    if facts.os != "wsl2":
        return _outside(_NETWORK) if not facts.in_wsl else _only_second(_NETWORK)
    found = windows_host.find(probe, facts)
    mode, host, evidence = found.mode, found.address, found.evidence
    if mode == "none":
        return Finding(
            _NETWORK,
            "warning",
            "WSL has no network.",
            evidence,
            fix=fixes.edit_wslconfig("networkingMode=mirrored", text="Give it one."),
        )
    if host is None:
        return Finding(
            _NETWORK, "could not tell", f"The network is {mode}; it has no way out.", evidence
        )
    answers = probe.connects(host, LM_STUDIO_PORT, _SERVER_SECONDS)
    now = "answers" if answers else "does not answer now"
    address = f"http://{host}:{LM_STUDIO_PORT}/v1"
    fix = None
    if not answers:
        steps = "Start LM Studio's server (Developer, Start server)"
        if mode != "mirrored":
            steps += ", switch on 'Serve on Local Network', and let WSL through the firewall"
        rule = (
            "New-NetFirewallRule -DisplayName 'LM Studio' -Direction Inbound -Protocol TCP "
            f"-LocalPort {LM_STUDIO_PORT} -InterfaceAlias 'vEthernet (WSL*' -Action Allow"
        )
        fix = Fix(f"{steps}.", () if mode == "mirrored" else (rule,), ADMINISTRATOR)
    return Finding(
        _NETWORK,
        "ok",
        f"The network is {mode}: LM Studio on Windows is at {address} from here; it {now}.",
        evidence,
        fix=fix,
    )


def _meminfo(probe: Probe, name: str) -> int | None:
    value = fields(probe.read("/proc/meminfo")).get(name, "")
    kib = to_int(value.removesuffix("kB"))
    return None if kib is None else kib * units.KIB


CHECKS = (
    Check(
        id=_INSTALLED,
        title="WSL on this Windows",
        group="wsl",
        why="The book's programs are made for Linux, and reach the GPU there.",
        run=_installed,
        depends_on=("platform.virtualization",),
        explain="From Windows, lists the installed distributions with wsl.exe -l -v (which prints "
        "UTF-16). https://learn.microsoft.com/windows/wsl/install",
    ),
    Check(
        id=_VERSION,
        title="Version of WSL",
        group="wsl",
        why="Only WSL 2 runs a real Linux kernel; without it there is no GPU.",
        run=_version,
        depends_on=("platform.virtualization",),
        explain="Reads the kernel's banner in /proc/version: '-Microsoft' at the end of the "
        "release is WSL 1, 'microsoft-standard' is WSL 2. "
        "https://learn.microsoft.com/windows/wsl/compare-versions",
    ),
    Check(
        id=_WINDOWS,
        title="Windows build",
        group="wsl",
        why="Older Windows gives WSL no GPU.",
        run=_windows,
        explain="Asks Windows for its build number and compares it with 19044 (Windows 10 21H2). "
        "https://learn.microsoft.com/windows/ai/directml/gpu-cuda-in-wsl",
    ),
    Check(
        id=_KERNEL,
        title="WSL's kernel",
        group="wsl",
        why="The kernel carries the driver that reaches the GPU.",
        run=_kernel,
        depends_on=(_VERSION, _WINDOWS),
        explain="Compares the kernel's release with 5.10.43.3, which GPU support needs. "
        "https://learn.microsoft.com/windows/ai/directml/gpu-cuda-in-wsl",
    ),
    Check(
        id=_LINUX_DRIVER,
        title="No Linux driver inside WSL",
        group="wsl",
        why="It hides the part of the Windows driver that reaches the GPU, and CUDA stops working.",
        run=_linux_driver,
        depends_on=(_VERSION,),
        explain="Looks in dpkg -l for packages that are, or bring, an NVIDIA driver "
        "(nvidia-driver-*, libnvidia-compute-*, cuda-drivers, and the meta-packages cuda "
        "and cuda-X-Y), and for a libcuda outside of /usr/lib/wsl/lib. cuda-toolkit-* is "
        "right. https://docs.nvidia.com/cuda/wsl-user-guide/",
    ),
    Check(
        id=_DXG,
        title="GPU device of WSL",
        group="wsl",
        why="Linux programs reach the Windows driver through the device /dev/dxg.",
        run=_dxg,
        depends_on=(_VERSION, _WINDOWS, _KERNEL),
        explain="Looks for /dev/dxg. If it is missing, looks for the reason: the GPU switched "
        "off in /etc/wsl.conf, a kernel of one's own in .wslconfig, or an old WSL. "
        "https://devblogs.microsoft.com/directx/directx-heart-linux/",
    ),
    Check(
        id=_LIBCUDA,
        title="CUDA library of the Windows driver",
        group="wsl",
        why="Programs load this library; it comes from Windows and must not be installed in Linux.",
        run=_libcuda,
        depends_on=(_VERSION, _DXG),
        explain="Looks for libcuda.so and libnvidia-ml.so.1 in /usr/lib/wsl/lib, where WSL shows "
        "the Windows driver. https://docs.nvidia.com/cuda/wsl-user-guide/",
    ),
    Check(
        id=_SYSTEMD,
        title="systemd in WSL",
        group="wsl",
        why="Services such as Docker and Ollama are started by it.",
        run=_systemd,
        depends_on=(_VERSION,),
        explain="Reads the first process's name in /proc/1/comm and [boot] systemd in "
        "/etc/wsl.conf. https://learn.microsoft.com/windows/wsl/systemd",
    ),
    Check(
        id=_CONFIG,
        title="Settings in .wslconfig",
        group="wsl",
        why="WSL starts without a word when it does not understand a line, and ignores it.",
        run=_config,
        depends_on=(_VERSION,),
        explain="Reads .wslconfig in the Windows user's folder and looks for unknown sections "
        "and keys, sizes without a unit, and a file of another name. "
        "https://learn.microsoft.com/windows/wsl/wsl-config",
    ),
    Check(
        id=_MEMORY,
        title="Memory for WSL",
        group="wsl",
        why="WSL gets half of the computer's memory unless told otherwise; a model that does not "
        "fit is killed or crawls.",
        run=_memory,
        depends_on=(_VERSION,),
        explain="Compares the memory in /proc/meminfo with the computer's (asked of Windows), with "
        "memory= in .wslconfig, and with what the models of the plan need, plus 1 GiB for Linux. "
        "Leaves Windows 4 GiB. https://learn.microsoft.com/windows/wsl/wsl-config",
    ),
    Check(
        id=_PROCESSORS,
        title="Processors for WSL",
        group="wsl",
        why="Without a GPU the processor's cores read the prompt.",
        run=_processors,
        depends_on=(_VERSION,),
        explain="Compares the processors in /proc/cpuinfo with the computer's. Half of the logical "
        "processors are as many as there are cores on most machines, and enough.",
    ),
    Check(
        id=_SWAP,
        title="Swap for WSL",
        group="wsl",
        why="Without swap, what does not fit into memory is killed at once.",
        run=_swap,
        depends_on=(_VERSION,),
        explain="Reads SwapTotal in /proc/meminfo. No swap is a warning only where a model of "
        "the plan takes more than 80 % of the memory.",
    ),
    Check(
        id=_FOLDER,
        title="Project on Linux' own disk",
        group="wsl",
        why="Files on Windows' disk are many times slower from Linux: loading models and importing "
        "packages wait for them.",
        run=_folder,
        depends_on=(_VERSION,),
        explain="Finds the file system under the project in the mount table, and measures: it "
        "writes 8 MB and up to 200 small files there and in a folder on the other disk, "
        "for at most half a second each, and removes them. "
        "https://learn.microsoft.com/windows/wsl/filesystems",
    ),
    Check(
        id=_NETWORK,
        title="Network of WSL",
        group="wsl",
        why="A server on Windows, such as LM Studio's, has another address for each network mode.",
        run=_network,
        depends_on=(_VERSION,),
        explain="Asks wslinfo for the mode, or reads networkingMode in .wslconfig. With mirrored "
        "networking Windows is localhost; with NAT it is the gateway of the default "
        "route. Tries to connect to LM Studio's port 1234. "
        "https://learn.microsoft.com/windows/wsl/networking",
    ),
)
