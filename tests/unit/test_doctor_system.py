"""Platform, WSL, GPU and toolkit: each check gives each of its verdicts for evidence that fits."""

from __future__ import annotations

import copy
import inspect
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from guidebook import doctor, units
from guidebook.doctor import compatibility, nvidia, wslconfig
from guidebook.doctor.checks import gpu, platform, toolkit, wsl
from guidebook.doctor.facts import Need, gather
from guidebook.doctor.live import LiveProbe
from guidebook.doctor.model import VERDICTS, Finding
from guidebook.doctor.probe import Output
from guidebook.doctor.recorded import RecordedProbe

DATA = Path(__file__).parent.parent / "data" / "doctor"
POWERSHELL = "/mnt/c/Windows/System32/WindowsPowerShell/v1.0/powershell.exe *"
NVCC = "/usr/local/cuda-13.0/bin/nvcc"
DPKG = "ii  bash  5.2.21-2ubuntu4  amd64  GNU Bourne Again SHell"
SILENT = {"status": "timed out"}


@dataclass(frozen=True)
class Case:
    """One piece of evidence: a recorded machine, what is different there, and the verdict."""

    check: str
    verdict: str
    machine: str
    says: str = ""
    changes: dict = field(default_factory=dict)
    needs: tuple[Need, ...] = ()

    def __str__(self) -> str:
        return f"{self.check}-{self.verdict}-{self.machine}-{self.says or 'plain'}"


def probe_of(machine: str, changes: dict) -> RecordedProbe:
    path = DATA / "machines" / f"{machine}.toml"
    record = copy.deepcopy(tomllib.loads(path.read_text()))
    for part, entries in changes.items():
        table = record.setdefault(part, {})
        for name, value in entries.items():
            if value is None:
                table.pop(name, None)
            else:
                table[name] = value
    return RecordedProbe(record, path.parent)


def find(case: Case) -> Finding:
    probe = probe_of(case.machine, case.changes)
    (check,) = (one for one in doctor.checks() if one.id == case.check)
    return check.run(probe, gather(probe, case.needs))


def smi(**elements: str) -> dict:
    """Change what nvidia-smi says about the card of the native Linux machine."""
    record = tomllib.loads((DATA / "machines" / "healthy-linux-4090.toml").read_text())
    text = record["commands"]["nvidia-smi -q -x"]
    for name, value in elements.items():
        text, count = re.subn(rf"<{name}>[^<]*</{name}>", f"<{name}>{value}</{name}>", text)
        assert count, name
    return {"commands": {"nvidia-smi -q -x": text}}


def evidence(name: str, capability: str | None = None) -> dict:
    query = "nvidia-smi --query-gpu=compute_cap --format=csv,noheader"
    refused = {
        "status": "failed",
        "code": 2,
        "text": 'Field "compute_cap" is not a valid field to query.',
    }
    return {
        "commands": {
            "nvidia-smi -q -x": {"file": f"../evidence/{name}.xml"},
            query: capability or refused,
        }
    }


def smi_fails(text: str, **commands: object) -> dict:
    failed = {"status": "failed", "code": 9, "text": text}
    return {"commands": {"nvidia-smi -q -x": failed, "nvidia-smi": failed, **commands}}


def xids(*lines: str) -> dict:
    return {"commands": {"journalctl -k -b --no-pager -o cat --grep NVRM": "\n".join(lines)}}


def gcc(heading: str) -> dict:
    return {"commands": {"g++ --version": heading}}


def nvcc(version: str) -> dict:
    said = f"nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {version}, V0"
    return {"commands": {f"{NVCC} --version": said}}


NO_SMI = {
    "nvidia-smi -q -x": None,
    "nvidia-smi --query-gpu=compute_cap --format=csv,noheader": None,
}
NO_NVIDIA = {
    "commands": NO_SMI,
    "files": {
        "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x1002",
        "/proc/driver/nvidia/version": None,
        "/dev/nvidia0": None,
        "/dev/nvidiactl": None,
    },
}
NO_TOOLKIT = {"files": {NVCC: None}}
BROKEN_NVCC = {"commands": {f"{NVCC} --version": SILENT}}
BIG = (Need("a model of 20 GiB", 20 * units.GIB, 20 * units.GIB),)
HUGE = (Need("a model of 200 GiB", 200 * units.GIB, 200 * units.GIB),)
NO_WINDOWS = {"commands": {POWERSHELL: None}}
SMALL_GPU = {"commands": {"nvidia-smi -q -x": None}}
WSLCONFIG = "/mnt/c/Users/me/.wslconfig"
ON_WINDOWS_DISK = {"platform": {"folder": "/mnt/c/Users/me/book"}}
# As /etc/wsl.conf and wsl.exe look in the wild: github.com/microsoft/WSL, issues.
LISTED = "  NAME      STATE           VERSION\n* Ubuntu    Running         {}\n"

CASES = (
    # platform.system: /proc/version of Ubuntu, Debian, WSL 1 and 2.
    Case("platform.system", "ok", "healthy-linux-4090", "Ubuntu 24.04.1 LTS, kernel 6.8.0"),
    Case("platform.system", "ok", "healthy-wsl2", "in WSL 2"),
    Case("platform.system", "ok", "wsl1", "in WSL 1"),
    Case("platform.system", "ok", "mac-arm", "Apple chip"),
    Case(
        "platform.system",
        "ok",
        "mac-arm",
        "Rosetta",
        {
            "platform": {"machine": "x86_64"},
            "commands": {"sysctl -n sysctl.proc_translated": "1"},
        },
    ),
    Case("platform.system", "ok", "windows", "Windows"),
    Case(
        "platform.system",
        "warning",
        "mac-arm",
        "Intel",
        {"platform": {"machine": "x86_64"}},
    ),
    Case(
        "platform.system",
        "could not tell",
        "mac-arm",
        "freebsd14",
        {"platform": {"system": "freebsd14"}},
    ),
    Case("platform.virtualization", "ok", "healthy-wsl2"),
    Case(
        "platform.virtualization",
        "ok",
        "windows",
        "switched on",
        {"commands": {"powershell.exe *": '{"hypervisor": true, "virtualization": false}'}},
    ),
    Case("platform.virtualization", "problem", "virtualization-off"),
    Case(
        "platform.virtualization",
        "could not tell",
        "windows",
        changes={"commands": {"powershell.exe *": SILENT}},
    ),
    Case("platform.virtualization", "not applicable", "healthy-linux-4090"),
    Case("platform.container", "ok", "healthy-linux-4090", "No container"),
    Case("platform.container", "ok", "container-without-gpu", "a container (docker)"),
    Case(
        "platform.container",
        "ok",
        "healthy-linux-4090",
        "made from a container's image",
        {
            "files": {"/.dockerenv": "", "/proc/cpuinfo": "flags : hypervisor"},
            "commands": {"systemd-detect-virt --vm": "kvm"},
        },
    ),
    Case("platform.container", "not applicable", "mac-arm"),
    Case("platform.kernel", "ok", "healthy-linux-4090", "6.8.0"),
    Case(
        "platform.kernel",
        "warning",
        "healthy-linux-4090",
        "3.10.0",
        {"platform": {"release": "3.10.0-1160.el7.x86_64"}},
    ),
    Case(
        "platform.kernel",
        "could not tell",
        "healthy-linux-4090",
        changes={"platform": {"release": "unknown"}},
    ),
    Case("platform.kernel", "not applicable", "healthy-wsl2"),
    Case("platform.c-library", "ok", "healthy-linux-4090", "2.39"),
    Case(
        "platform.c-library",
        "problem",
        "healthy-linux-4090",
        "2.17 is too old",
        {"commands": {"getconf GNU_LIBC_VERSION": "glibc 2.17"}},
    ),
    Case(
        "platform.c-library",
        "problem",
        "healthy-linux-4090",
        "musl",
        {
            "commands": {"getconf GNU_LIBC_VERSION": None},
            "files": {"/lib/ld-musl-x86_64.so.1": ""},
        },
    ),
    Case(
        "platform.c-library",
        "could not tell",
        "healthy-linux-4090",
        changes={"commands": {"getconf GNU_LIBC_VERSION": SILENT}},
    ),
    Case("platform.c-library", "not applicable", "mac-arm"),
    Case(
        "platform.container",
        "ok",
        "container-without-gpu",
        "a container (docker)",
        {"files": {"/proc/version": "Linux version 6.6.87.2-microsoft-standard-WSL2"}},
    ),
    # wsl.installed: wsl.exe -l -v
    Case("wsl.installed", "problem", "windows", "not installed"),
    Case(
        "wsl.installed",
        "problem",
        "windows",
        "WSL 1",
        {"commands": {"wsl.exe -l -v": LISTED.format(1)}},
    ),
    Case(
        "wsl.installed",
        "warning",
        "windows",
        "Ubuntu stands ready",
        {"commands": {"wsl.exe -l -v": LISTED.format(2)}},
    ),
    Case(
        "wsl.installed",
        "problem",
        "windows",
        "no Linux distribution",
        {"commands": {"wsl.exe -l -v": "  NAME  STATE  VERSION\n* docker-desktop  Running  2"}},
    ),
    Case(
        "wsl.installed",
        "could not tell",
        "windows",
        changes={"commands": {"wsl.exe -l -v": SILENT}},
    ),
    Case("wsl.installed", "not applicable", "healthy-wsl2"),
    Case("wsl.version", "ok", "healthy-wsl2"),
    Case("wsl.version", "problem", "wsl1"),
    Case("wsl.version", "not applicable", "healthy-linux-4090"),
    Case("wsl.windows", "ok", "healthy-wsl2", "26100"),
    Case(
        "wsl.windows",
        "problem",
        "healthy-wsl2",
        "19041",
        {"commands": {POWERSHELL: '{"build": "19041"}'}},
    ),
    Case("wsl.windows", "could not tell", "healthy-wsl2", changes=NO_WINDOWS),
    Case("wsl.windows", "not applicable", "mac-arm"),
    Case("wsl.kernel", "ok", "healthy-wsl2", "6.6.87.2"),
    Case(
        "wsl.kernel",
        "problem",
        "healthy-wsl2",
        "4.19.104",
        {"platform": {"release": "4.19.104-microsoft-standard"}},
    ),
    Case(
        "wsl.kernel",
        "could not tell",
        "healthy-wsl2",
        changes={"platform": {"release": "WSL2-custom"}},
    ),
    Case("wsl.kernel", "not applicable", "wsl1"),
    Case("wsl.linux-driver", "ok", "healthy-wsl2"),
    Case("wsl.linux-driver", "problem", "linux-driver-in-wsl", "cuda, cuda-12-4"),
    Case(
        "wsl.linux-driver",
        "problem",
        "healthy-wsl2",
        ".run installer",
        {"files": {"/usr/lib/x86_64-linux-gnu/libcuda.so.1": ""}},
    ),
    Case(
        "wsl.linux-driver",
        "ok",
        "healthy-wsl2",
        "No Linux driver",
        {"files": {"/usr/lib64/libcuda.so.1": {"link": "/usr/lib/wsl/lib/libcuda.so.1"}}},
    ),
    Case(
        "wsl.linux-driver",
        "could not tell",
        "healthy-wsl2",
        changes={"commands": {"dpkg -l": SILENT}},
    ),
    Case("wsl.linux-driver", "not applicable", "healthy-linux-4090"),
    Case("wsl.dxg", "ok", "healthy-wsl2"),
    Case("wsl.dxg", "problem", "no-dev-dxg", "does not pass"),
    Case(
        "wsl.dxg",
        "problem",
        "no-dev-dxg",
        "switched off",
        {"files": {"/etc/wsl.conf": "[boot]\nsystemd=true\n[gpu]\nenabled = false\n"}},
    ),
    Case(
        "wsl.dxg",
        "problem",
        "no-dev-dxg",
        "kernel of your own",
        {"files": {WSLCONFIG: "[wsl2]\nkernel=C:\\\\temp\\\\bzImage\n"}},
    ),
    Case(
        "wsl.dxg",
        "not applicable",
        "no-dev-dxg",
        changes={
            "commands": {POWERSHELL: '{"cards": ["Intel(R) UHD Graphics"]}'},
        },
    ),
    Case("wsl.libcuda", "ok", "healthy-wsl2"),
    Case(
        "wsl.libcuda",
        "problem",
        "no-dev-dxg",
        "libcuda.so.1 is missing",
        {"files": {"/usr/lib/wsl/lib/libcuda.so.1": None}},
    ),
    Case(
        "wsl.libcuda",
        "could not tell",
        "no-dev-dxg",
        changes={
            "files": {
                f"/usr/lib/wsl/lib/{name}": None
                for name in ("libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1")
            },
            **NO_WINDOWS,
        },
    ),
    Case(
        "wsl.libcuda",
        "not applicable",
        "no-dev-dxg",
        changes={
            "files": {"/usr/lib/wsl/lib/libcuda.so.1": None},
            "commands": {POWERSHELL: '{"cards": ["AMD Radeon RX 7800 XT"]}'},
        },
    ),
    Case("wsl.systemd", "ok", "healthy-wsl2"),
    Case(
        "wsl.systemd",
        "warning",
        "healthy-wsl2",
        "does not run; the first process is init",
        {"files": {"/proc/1/comm": "init", "/etc/wsl.conf": "[user]\ndefault=me"}},
    ),
    Case(
        "wsl.systemd",
        "warning",
        "healthy-wsl2",
        "switched on in /etc/wsl.conf",
        {"files": {"/proc/1/comm": "init(Ubuntu)"}},
    ),
    Case(
        "wsl.systemd", "could not tell", "healthy-wsl2", changes={"files": {"/proc/1/comm": None}}
    ),
    Case("wsl.systemd", "not applicable", "mac-arm"),
    Case("wsl.config", "ok", "healthy-wsl2", "no .wslconfig"),
    Case("wsl.config", "ok", "wslconfig-half-ram", "understands"),
    Case(
        "wsl.config",
        "warning",
        "healthy-wsl2",
        "16 bytes",
        {"files": {WSLCONFIG: "[wsl2]\nmemory=16\n"}},
    ),
    Case(
        "wsl.config",
        "warning",
        "healthy-wsl2",
        ".wslconfig.txt",
        {"files": {"/mnt/c/Users/me/.wslconfig.txt": "[wsl2]\nmemory=16GB\n"}},
    ),
    Case("wsl.config", "could not tell", "healthy-wsl2", changes=NO_WINDOWS),
    Case("wsl.config", "not applicable", "wsl1"),
    Case("wsl.memory", "ok", "healthy-wsl2", "its default, one half"),
    Case("wsl.memory", "problem", "healthy-wsl2", "20.0 GiB", smi(total="8188 MiB"), BIG),
    Case("wsl.memory", "warning", "healthy-wsl2", "20.0 GiB", needs=BIG),
    Case("wsl.memory", "warning", "healthy-wsl2", "more than Windows could give", needs=HUGE),
    Case(
        "wsl.memory",
        "could not tell",
        "healthy-wsl2",
        changes={"files": {"/proc/meminfo": "garbage"}},
    ),
    Case("wsl.memory", "not applicable", "wsl1"),
    Case("wsl.processors", "ok", "healthy-wsl2", "24 of the computer's 24"),
    Case(
        "wsl.processors",
        "warning",
        "healthy-wsl2",
        "2 of the computer's 24",
        {
            "files": {
                "/proc/cpuinfo": "processor : 0\nprocessor : 1\n",
                WSLCONFIG: "[wsl2]\nprocessors=2",
            }
        },
    ),
    Case("wsl.processors", "could not tell", "healthy-wsl2", changes=NO_WINDOWS),
    Case("wsl.processors", "not applicable", "mac-arm"),
    Case("wsl.swap", "ok", "healthy-wsl2", "4.00 GiB"),
    Case(
        "wsl.swap",
        "warning",
        "healthy-wsl2",
        "no swap",
        {"files": {"/proc/meminfo": "MemTotal: 16374544 kB\nSwapTotal: 0 kB"}},
        BIG,
    ),
    Case(
        "wsl.swap",
        "could not tell",
        "healthy-wsl2",
        changes={"files": {"/proc/meminfo": None}},
    ),
    Case("wsl.swap", "not applicable", "mac-arm"),
    Case("wsl.folder", "ok", "healthy-wsl2", "ext4 writes 1.21 GB/s"),
    Case("wsl.folder", "warning", "healthy-wsl2", "Windows' disk", ON_WINDOWS_DISK),
    Case(
        "wsl.folder",
        "could not tell",
        "healthy-wsl2",
        changes={"files": {"/proc/self/mountinfo": ""}},
    ),
    Case("wsl.folder", "not applicable", "healthy-linux-4090"),
    Case("wsl.network", "ok", "healthy-wsl2", "http://172.29.64.1:1234/v1 from here; it answers"),
    Case(
        "wsl.network",
        "ok",
        "healthy-wsl2",
        "http://localhost:1234/v1",
        {"commands": {"wslinfo --networking-mode": "mirrored"}},
    ),
    Case(
        "wsl.network",
        "warning",
        "healthy-wsl2",
        "no network",
        {"commands": {"wslinfo --networking-mode": "none"}},
    ),
    Case(
        "wsl.network",
        "could not tell",
        "healthy-wsl2",
        changes={"commands": {"ip route show default": None}},
    ),
    Case("wsl.network", "not applicable", "wsl1"),
    # gpu.*
    Case("gpu.present", "ok", "healthy-linux-4090", "RTX 4090 (24.0 GiB, compute capability 8.9)"),
    Case("gpu.present", "ok", "secure-boot", "does not answer"),
    Case("gpu.present", "ok", "mac-arm", "Apple M4 Pro"),
    Case("gpu.present", "not applicable", "healthy-linux-4090", "no NVIDIA GPU", NO_NVIDIA),
    Case(
        "gpu.present",
        "could not tell",
        "healthy-linux-4090",
        changes={
            **NO_NVIDIA,
            "files": {
                **NO_NVIDIA["files"],
                "/sys/bus/pci/devices/0000:01:00.0/vendor": None,
                "/sys/bus/pci/devices/0000:01:00.0/class": None,
            },
        },
    ),
    Case("gpu.container", "problem", "container-without-gpu"),
    Case(
        "gpu.container",
        "ok",
        "container-without-gpu",
        changes={"files": {"/dev/nvidia0": ""}},
    ),
    Case("gpu.container", "not applicable", "healthy-linux-4090"),
    Case("gpu.nvidia-smi", "ok", "healthy-linux-4090", "driver 580.95.05, CUDA up to 13.0"),
    Case(
        "gpu.nvidia-smi",
        "ok",
        "healthy-linux-4090",
        "driver 515.105.01, CUDA up to 11.7",
        evidence("smi-515-tesla-t4"),
    ),
    Case(
        "gpu.nvidia-smi",
        "ok",
        "healthy-linux-4090",
        "driver 530.30.02, CUDA up to 12.1",
        evidence("smi-530-gtx-1070"),
    ),
    Case(
        "gpu.nvidia-smi",
        "ok",
        "healthy-linux-4090",
        "driver 590.44.01, CUDA up to 13.1",
        evidence("smi-590-rtx-pro-6000", "12.0"),
    ),
    Case("gpu.nvidia-smi", "problem", "secure-boot", "not loaded"),
    Case("gpu.nvidia-smi", "problem", "driver-mismatch", "old one still runs"),
    Case(
        "gpu.nvidia-smi",
        "problem",
        "healthy-linux-4090",
        "not installed",
        {"commands": NO_SMI},
    ),
    Case(
        "gpu.nvidia-smi",
        "problem",
        "healthy-linux-4090",
        "finds no GPU",
        smi_fails("No devices were found"),
    ),
    Case(
        "gpu.nvidia-smi",
        "problem",
        "healthy-linux-4090",
        "stopped answering",
        smi_fails(
            "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.  Reboot the "
            "system to recover this GPU"
        ),
    ),
    Case(
        "gpu.nvidia-smi",
        "problem",
        "healthy-wsl2",
        "Windows does not let",
        smi_fails("Failed to initialize NVML: GPU access blocked by the operating system"),
    ),
    Case(
        "gpu.nvidia-smi",
        "problem",
        "healthy-linux-4090",
        "nvidia-smi fails",
        smi_fails("a message that nobody has seen"),
    ),
    Case(
        "gpu.nvidia-smi",
        "could not tell",
        "healthy-linux-4090",
        changes={"commands": {"nvidia-smi -q -x": SILENT}},
    ),
    Case("gpu.nvidia-smi", "not applicable", "healthy-linux-4090", changes=NO_NVIDIA),
    Case("gpu.nvml", "ok", "healthy-linux-4090"),
    Case(
        "gpu.nvml",
        "warning",
        "healthy-linux-4090",
        "does not find",
        {
            "python": {
                "nvml": {
                    "status": "failed",
                    "code": 1,
                    "error": "OSError: libnvidia-ml.so.1: cannot open shared object file",
                }
            }
        },
    ),
    Case(
        "gpu.nvml",
        "warning",
        "healthy-linux-4090",
        "Driver Not Loaded",
        {"python": {"nvml": '{"error": "Driver Not Loaded"}'}},
    ),
    Case("gpu.nvml", "could not tell", "healthy-linux-4090", changes={"python": {"nvml": SILENT}}),
    Case("gpu.nvml", "not applicable", "mac-arm"),
    Case("gpu.driver", "ok", "healthy-linux-4090"),
    Case("gpu.driver", "warning", "toolkit-newer-than-driver", "12.2"),
    Case(
        "gpu.driver", "problem", "healthy-linux-4090", "11.7", evidence("smi-515-tesla-t4", "7.5")
    ),
    Case("gpu.driver", "not applicable", "mac-arm"),
    Case("gpu.capability", "ok", "healthy-linux-4090", "8.9 is supported."),
    Case(
        "gpu.capability",
        "ok",
        "healthy-linux-4090",
        "FlashAttention-2 needs 8.0",
        evidence("smi-515-tesla-t4", "7.5"),
    ),
    Case(
        "gpu.capability",
        "warning",
        "healthy-linux-4090",
        "6.1: CUDA 13",
        evidence("smi-530-gtx-1070"),
    ),
    Case(
        "gpu.capability",
        "problem",
        "healthy-linux-4090",
        "3.5 is too old",
        {"commands": {"nvidia-smi --query-gpu=compute_cap --format=csv,noheader": "3.5"}},
    ),
    Case(
        "gpu.capability",
        "could not tell",
        "healthy-linux-4090",
        changes={
            "commands": {
                **smi(product_name="NVIDIA Something New")["commands"],
                "nvidia-smi --query-gpu=compute_cap --format=csv,noheader": None,
            }
        },
    ),
    Case("gpu.capability", "not applicable", "mac-arm"),
    Case("gpu.xid", "ok", "healthy-linux-4090"),
    Case(
        "gpu.xid",
        "ok",
        "healthy-linux-4090",
        "no GPU error",
        {
            "commands": {
                "journalctl -k -b --no-pager -o cat --grep NVRM": {"status": "failed", "code": 1}
            }
        },
    ),
    Case(
        "gpu.xid",
        "problem",
        "healthy-linux-4090",
        "Xid 79",
        xids(
            "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off "
            "the bus.",
            "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.",
        ),
    ),
    Case(
        "gpu.xid",
        "warning",
        "healthy-linux-4090",
        "Xid 31",
        xids(
            "NVRM: Xid (PCI:0000:01:00): 31, pid=4211, name=python3, Ch 00000008, intr 00000000. "
            "MMU Fault"
        ),
    ),
    Case(
        "gpu.xid",
        "could not tell",
        "healthy-linux-4090",
        changes={
            "commands": {
                "journalctl -k -b --no-pager -o cat --grep NVRM": {
                    "status": "failed",
                    "code": 1,
                    "error": "Hint: You are currently not seeing messages from other users and the "
                    "system.",
                },
                "dmesg": {
                    "status": "failed",
                    "code": 1,
                    "error": "dmesg: read kernel buffer failed: Operation not permitted",
                },
            }
        },
    ),
    Case("gpu.xid", "not applicable", "healthy-wsl2"),
    Case("gpu.ecc", "ok", "healthy-linux-4090", "no error-correcting memory"),
    Case("gpu.ecc", "ok", "healthy-linux-4090", "correction is on", evidence("smi-515-tesla-t4")),
    Case("gpu.ecc", "not applicable", "mac-arm"),
    Case("gpu.power", "ok", "healthy-linux-4090", "450 W"),
    Case(
        "gpu.power", "warning", "healthy-linux-4090", "300 W", smi(current_power_limit="300.00 W")
    ),
    Case(
        "gpu.power",
        "warning",
        "healthy-linux-4090",
        "too hot",
        smi(clocks_event_reason_hw_thermal_slowdown="Active"),
    ),
    Case("gpu.power", "not applicable", "mac-arm"),
    Case("gpu.pcie", "ok", "healthy-linux-4090", "all its 16 lanes"),
    Case("gpu.pcie", "warning", "healthy-linux-4090", "4 of 16", smi(current_link_width="4x")),
    Case(
        "gpu.pcie",
        "ok",
        "healthy-linux-4090",
        "virtual machine's host",
        {
            **evidence("smi-515-tesla-t4"),
            "files": {"/proc/cpuinfo": "processor : 0\nflags : fpu hypervisor"},
        },
    ),
    Case("gpu.pcie", "could not tell", "healthy-linux-4090", changes=smi(current_link_width="N/A")),
    Case("gpu.pcie", "not applicable", "mac-arm"),
    Case("gpu.memory", "ok", "healthy-linux-4090", "412 MiB of 24.0 GiB"),
    Case(
        "gpu.memory",
        "warning",
        "healthy-linux-4090",
        "64.2 GiB of 95.6 GiB",
        evidence("smi-590-rtx-pro-6000", "12.0"),
    ),
    Case("gpu.memory", "could not tell", "healthy-linux-4090", changes=smi(used="N/A")),
    Case("gpu.memory", "not applicable", "mac-arm"),
    # toolkit.*
    Case("toolkit.nvcc", "ok", "healthy-linux-4090", "nvcc of CUDA 13.0"),
    Case("toolkit.nvcc", "not applicable", "healthy-linux-4090", "need one", NO_TOOLKIT),
    Case("toolkit.nvcc", "could not tell", "healthy-linux-4090", changes=BROKEN_NVCC),
    Case("toolkit.paths", "ok", "healthy-linux-4090"),
    Case(
        "toolkit.paths",
        "warning",
        "healthy-linux-4090",
        "not on the search path",
        {"environment": {"PATH": "/usr/bin:/bin"}},
    ),
    Case(
        "toolkit.paths",
        "warning",
        "healthy-linux-4090",
        "LD_LIBRARY_PATH names CUDA 11.8",
        {"environment": {"LD_LIBRARY_PATH": "/usr/local/cuda-11.8/lib64"}},
    ),
    Case(
        "toolkit.paths",
        "warning",
        "healthy-linux-4090",
        "CUDA_HOME is /opt/gone",
        {"environment": {"CUDA_HOME": "/opt/gone"}},
    ),
    Case(
        "toolkit.paths",
        "problem",
        "healthy-linux-4090",
        "stubs",
        {"environment": {"LD_LIBRARY_PATH": "/usr/local/cuda-13.0/lib64/stubs"}},
    ),
    Case("toolkit.paths", "not applicable", "healthy-linux-4090", "No CUDA", NO_TOOLKIT),
    Case("toolkit.paths", "not applicable", "healthy-linux-4090", "does not tell", BROKEN_NVCC),
    Case("toolkit.packages", "ok", "healthy-linux-4090", "cuda-toolkit-13-0"),
    Case("toolkit.packages", "problem", "linux-driver-in-wsl", "meta-package cuda is installed"),
    Case(
        "toolkit.packages",
        "warning",
        "healthy-linux-4090",
        "Two toolkits",
        {
            "commands": {
                "dpkg -l": f"{DPKG}\nii  nvidia-cuda-toolkit  12.0.140~12.0.1-4build4  amd64  x\n"
                "ii  cuda-toolkit-13-0  13.0.2-1  amd64  x"
            }
        },
    ),
    Case(
        "toolkit.packages",
        "could not tell",
        "healthy-linux-4090",
        changes={"commands": {"dpkg -l": SILENT}},
    ),
    Case(
        "toolkit.packages",
        "not applicable",
        "healthy-linux-4090",
        changes={"commands": {"dpkg -l": None}},
    ),
    Case("toolkit.driver", "ok", "healthy-linux-4090"),
    Case("toolkit.driver", "problem", "toolkit-newer-than-driver", "CUDA 13.0 against 12.2"),
    Case("toolkit.driver", "warning", "healthy-linux-4090", "13.4 against 13.0", nvcc("13.4")),
    Case(
        "toolkit.driver",
        "could not tell",
        "healthy-linux-4090",
        changes=smi(driver_version="N/A", cuda_version="N/A"),
    ),
    Case("toolkit.driver", "not applicable", "healthy-linux-4090", changes=NO_NVIDIA),
    Case("toolkit.capability", "ok", "healthy-linux-4090", "8.9"),
    Case(
        "toolkit.capability",
        "problem",
        "rtx-50-old-torch",
        "takes 12.8 or newer",
        {
            "files": {NVCC: ""},
            **nvcc("12.4"),
        },
    ),
    Case(
        "toolkit.capability",
        "problem",
        "healthy-linux-4090",
        "takes 12.9 or older",
        evidence("smi-530-gtx-1070"),
    ),
    Case(
        "toolkit.capability",
        "could not tell",
        "healthy-linux-4090",
        changes={"commands": {"nvidia-smi --query-gpu=compute_cap --format=csv,noheader": "9.9"}},
    ),
    Case("toolkit.capability", "not applicable", "healthy-linux-4090", changes=NO_NVIDIA),
    Case("toolkit.compiler", "ok", "healthy-linux-4090", "GCC 13 goes with CUDA 13.0"),
    Case(
        "toolkit.compiler",
        "problem",
        "healthy-linux-4090",
        "GCC 16 is too new",
        gcc("g++ (Ubuntu 16.1.0-1ubuntu1) 16.1.0"),
    ),
    Case(
        "toolkit.compiler",
        "problem",
        "healthy-linux-4090",
        "there is no g++",
        {"commands": {"g++ --version": None}},
    ),
    Case(
        "toolkit.compiler",
        "warning",
        "healthy-linux-4090",
        "GCC 16",
        {
            "commands": {**NO_SMI, "g++ --version": "g++ (GCC) 16.0.1 20260101 (Red Hat 16.0.1-0)"},
            "files": NO_NVIDIA["files"],
        },
    ),
    Case(
        "toolkit.compiler",
        "could not tell",
        "healthy-linux-4090",
        "is not known",
        nvcc("14.0"),
    ),
    Case(
        "toolkit.compiler",
        "could not tell",
        "healthy-linux-4090",
        "clang",
        gcc("Ubuntu clang version 18.1.3 (1ubuntu1)"),
    ),
    Case("toolkit.compiler", "not applicable", "mac-arm"),
    Case("toolkit.compile", "ok", "healthy-linux-4090", "RTX 4090, compute capability 8.9"),
    Case("toolkit.compile", "problem", "toolkit-newer-than-driver", "older than the toolkit"),
    Case(
        "toolkit.compile",
        "problem",
        "healthy-linux-4090",
        "refuses the host compiler",
        {
            "commands": {
                f"{NVCC} -run device.cu": {
                    "status": "failed",
                    "code": 1,
                    "error": "host_config.h:132:2: error: #error -- unsupported GNU version! gcc "
                    "versions later than 11 are not supported!",
                }
            }
        },
    ),
    Case(
        "toolkit.compile",
        "problem",
        "healthy-linux-4090",
        "no code for this GPU",
        {
            "commands": {
                f"{NVCC} -run device.cu": {
                    "status": "failed",
                    "code": 5,
                    "text": "launch: no kernel image is available for execution on the device",
                }
            }
        },
    ),
    Case(
        "toolkit.compile",
        "could not tell",
        "healthy-linux-4090",
        changes={"commands": {f"{NVCC} -run device.cu": SILENT}},
    ),
    Case("toolkit.compile", "not applicable", "healthy-linux-4090", changes=NO_NVIDIA),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_evidence_leads_to_the_verdict(case):
    finding = find(case)
    assert finding.verdict == case.verdict, finding
    assert case.says in finding.summary, finding
    assert (finding.fix is not None) or finding.verdict not in ("problem", "warning")


def test_every_verdict_that_a_check_can_give_has_evidence():
    missing = []
    for module in (platform, wsl, gpu, toolkit):
        for check in module.CHECKS:
            covered = {case.verdict for case in CASES if case.check == check.id}
            source = inspect.getsource(check.run)
            named = {verdict for verdict in VERDICTS if f'"{verdict}"' in source}
            missing += [(check.id, verdict) for verdict in named - covered]
    # Counts of memory errors are tested by themselves below.
    assert sorted(missing) == [("gpu.ecc", "problem"), ("gpu.ecc", "warning")]


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        # Drivers before 450 count by width, later ones by memory.
        ("<aggregate><double_bit><total>3</total></double_bit></aggregate>", "warning"),
        ("<aggregate><dram_uncorrectable>2</dram_uncorrectable></aggregate>", "warning"),
        ("<aggregate><dram_uncorrectable>0</dram_uncorrectable></aggregate>", "ok"),
    ],
)
def test_memory_errors_are_counted_for_every_generation_of_drivers(errors, verdict):
    changes = smi(current_ecc="Enabled")
    text = changes["commands"]["nvidia-smi -q -x"]
    changes["commands"]["nvidia-smi -q -x"] = text.replace(
        "</ecc_mode>", f"</ecc_mode><ecc_errors>{errors}</ecc_errors>"
    )
    assert find(Case("gpu.ecc", verdict, "healthy-linux-4090", changes=changes)).verdict == verdict


def test_memory_that_waits_to_be_taken_out_of_use_is_a_problem():
    changes = smi(current_ecc="Enabled")
    text = changes["commands"]["nvidia-smi -q -x"]
    changes["commands"]["nvidia-smi -q -x"] = text.replace(
        "</ecc_mode>",
        "</ecc_mode><remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>",
    )
    finding = find(Case("gpu.ecc", "problem", "healthy-linux-4090", changes=changes))
    assert finding.verdict == "problem"
    assert finding.fix.commands == ("sudo nvidia-smi --gpu-reset",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "| NVIDIA-SMI 418.56       Driver Version: 418.56       CUDA Version: 10.1     |",
            ("418.56", "10.1"),
        ),
        (
            "| NVIDIA-SMI 384.130                Driver Version: 384.130                   |",
            ("384.130", None),
        ),
        (
            "| NVIDIA-SMI 560.35.03              Driver Version: 560.94         CUDA Version: "
            "12.6     |",
            ("560.94", "12.6"),
        ),
        (
            "| NVIDIA-SMI 610.57.04              KMD Version: 610.57.04     CUDA UMD Version: "
            "13.3     |",
            ("610.57.04", "13.3"),
        ),
        ("NVIDIA-SMI version  : 616.56", (None, None)),
        ("", (None, None)),
    ],
)
def test_the_table_of_nvidia_smi_is_read_in_every_generation(text, expected):
    assert nvidia.parse_header(text) == expected


def test_the_facts_of_old_drivers_are_completed_from_tables():
    facts = gather(probe_of("healthy-linux-4090", evidence("smi-530-gtx-1070")))
    assert facts.cuda == "12.1"
    assert facts.capability == (6, 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LISTED.format(2), [("Ubuntu", 2)]),
        (
            "  NAME            STATE           VERSION\n* Ubuntu-24.04    Stopped         2\n"
            "  docker-desktop  Running         2\n  Debian          Stopped         1\n",
            [("Ubuntu-24.04", 2), ("docker-desktop", 2), ("Debian", 1)],
        ),
        # In German and in Chinese.
        (
            "  NAME      STATUS             VERSION\n* Ubuntu    Wird ausgeführt    2\n",
            [("Ubuntu", 2)],
        ),
        ("  名称      状态            版本\n* Ubuntu    正在运行        2\n", [("Ubuntu", 2)]),
        ("Windows Subsystem for Linux has no installed distributions.", []),
        ("", []),
    ],
)
def test_the_list_of_distributions_is_read_in_every_language(text, found):
    assert wsl.distributions(text) == found


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16 * units.GIB),
        ("512MB", 512 * units.MIB),
        ("8G", 8 * units.GIB),
        ("0", 0),
        ("16 GB", 16 * units.GIB),
        ("1.5GB", None),
        ("half", None),
        ("", None),
    ],
)
def test_sizes_of_wslconfig_are_read_as_wsl_reads_them(text, size):
    assert wslconfig.to_size(text) == size


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("memory=8GB", "before any section"),
        ("[wsl]\nmemory=8GB", "no section [wsl]"),
        ("[wsl2]\nmaxMemory=8GB", "no maxMemory under [wsl2]"),
        ("[wsl2]\nsparseVhd=true", "belongs under [experimental]"),
        ("[wsl2]\nmemory=1.5GB", "is no size"),
        ("[wsl2]\nprocessors=all", "no whole number"),
        ("[wsl2]\nmemory 8GB", "has no '='"),
    ],
)
def test_mistakes_in_wslconfig_are_named(text, mistake):
    (found,) = wslconfig.parse(text).mistakes
    assert mistake in found


def test_a_wslconfig_from_the_documentation_has_no_mistakes():
    text = (
        "# Settings apply across all Linux distros running on WSL 2\n[wsl2]\n\nmemory=4GB\n"
        "processors=2\nkernel=C:\\\\temp\\\\myCustomKernel\nkernelCommandLine = vsyscall=emulate\n"
        "swap=8GB\nswapfile=C:\\\\temp\\\\wsl-swap.vhdx\nlocalhostforwarding=true\n"
        "nestedVirtualization=false\ndebugConsole=true\n[experimental]\nsparseVhd=true\n"
    )
    settings = wslconfig.parse(text)
    assert settings.mistakes == ()
    assert settings.size("memory") == 4 * units.GIB


def test_the_disk_is_measured_and_left_as_it_was(tmp_path):
    with LiveProbe() as probe:
        output = probe.python(wsl.DISK_SPEED, arguments=[str(tmp_path), str(tmp_path / "none")])
    assert output.ok, output
    assert '"files"' in output.text
    assert '"error": "No such file or directory"' in output.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["driver", "capability", "gcc", "library"])
def test_every_row_of_the_tables_has_a_source_and_a_date(name):
    for row in compatibility.table(name):
        assert row["source"].startswith("https://")
        assert row["as_of"].year >= 2025


def test_newer_toolkits_need_newer_drivers():
    rows = sorted(
        compatibility.table("driver"), key=lambda row: compatibility.as_version(row["cuda"])
    )
    for column in ("linux_driver", "windows_driver"):
        drivers = [compatibility.as_version(row[column]) for row in rows]
        assert drivers == sorted(drivers)


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("535.183.01", "12.2"),
        ("550.54.15", "12.4"),
        ("580.95.05", "13.0"),
        ("700.1", "13.4"),
        ("390.157", None),
        ("garbage", None),
        (None, None),
    ],
)
def test_a_driver_supports_the_toolkits_that_came_before_it(driver, cuda):
    assert compatibility.highest_cuda(driver) == cuda


@pytest.mark.parametrize(
    ("cuda", "capability", "toolkit_version"),
    [
        ((12, 4), (8, 9), "12.4"),
        ((13, 0), (6, 1), "12.9"),
        ((13, 2), (12, 0), "13.2"),
        (None, None, "13.4"),
    ],
)
def test_the_toolkit_to_install_goes_with_driver_and_gpu(cuda, capability, toolkit_version):
    assert compatibility.toolkit_for(cuda, capability) == toolkit_version


@pytest.mark.skipif(not Path("/usr/local/cuda/bin/nvcc").exists(), reason="needs a CUDA toolkit")
def test_the_compiled_program_says_which_step_failed_or_what_it_computed():
    with LiveProbe() as probe:
        output = probe.run(
            ("/usr/local/cuda/bin/nvcc", "-run", "device.cu"),
            time_limit=8,
            inputs={"device.cu": toolkit.DEVICE_QUERY},
        )
    assert isinstance(output, Output)
    if output.status != "timed out":
        assert "cudaGetDeviceCount" in output.both or "sums are right" in output.text
