"""The NVIDIA driver and the GPU: there, answering, recent, healthy and free."""

from __future__ import annotations

import json
import re

from guidebook import units
from guidebook.doctor import compatibility, fixes, nvidia
from guidebook.doctor.checks.wsl import LIBRARIES
from guidebook.doctor.facts import Facts, ask_smi
from guidebook.doctor.model import (
    HERE,
    HOST,
    POWERSHELL,
    Check,
    Evidence,
    Finding,
    Fix,
    could_not_tell,
    evidence_of,
    quote,
)
from guidebook.doctor.nvidia import NvidiaGpu, version
from guidebook.doctor.probe import Output, Probe
from guidebook.machine import gpu as graphics

_PRESENT = "gpu.present"
_CONTAINER = "gpu.container"
_SMI = "gpu.nvidia-smi"
_NVML = "gpu.nvml"
_DRIVER = "gpu.driver"
_CAPABILITY = "gpu.capability"
_XID = "gpu.xid"
_ECC = "gpu.ecc"
_POWER = "gpu.power"
_PCIE = "gpu.pcie"
_MEMORY = "gpu.memory"

_WSL_CHECKS = ("wsl.version", "wsl.kernel", "wsl.linux-driver", "wsl.dxg", "wsl.libcuda")
_LEAST_DRIVER = (525,)  # the first for CUDA 12
_RECENT_DRIVER = (580,)  # the first for CUDA 13
_LEAST_CAPABILITY = (5, 0)
_RECENT_CAPABILITY = (7, 5)  # the lowest that CUDA 13 compiles for
_LEAST_POWER = 0.9
_MOST_USED = 0.15
_MOST_USED_BYTES = 1 * units.GIB

# Asks NVIDIA's management library directly, as programs do.
NVML = """# doctor: nvml
import ctypes, json, sys
name = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
library = ctypes.CDLL(name)
code = library.nvmlInit_v2()
if code:
    library.nvmlErrorString.restype = ctypes.c_char_p
    print(json.dumps({"error": library.nvmlErrorString(code).decode()}))
else:
    text, count = ctypes.create_string_buffer(80), ctypes.c_uint()
    library.nvmlSystemGetNVMLVersion(text, 80)
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    print(json.dumps({"version": text.value.decode(), "gpus": count.value}))
    library.nvmlShutdown()
"""

# NVIDIA, Xid Errors: https://docs.nvidia.com/deploy/xid-errors/ . What points at the hardware.
_HARDWARE_XIDS = {
    48: "a memory error that could not be corrected",
    62: "its own controller halted",
    64: "bad memory could not be taken out of use",
    74: "an NVLink error",
    79: "it has fallen off the bus: power, heat or the slot",
    95: "a memory error that spread",
    119: "its own processor does not answer",
    120: "its own processor failed",
}
_PROGRAM_XIDS = {
    13: "a program's error on the GPU",
    31: "a program's access to memory it does not own",
    43: "a program's error, which ended it",
    45: "a program that was ended",
    63: "bad memory taken out of use",
    94: "a memory error that ended one program",
}
_XID_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?[^)]*\): (\d+)\b.*")

_SLOWDOWNS = {
    "hw_slowdown": "the hardware slows it down",
    "hw_thermal_slowdown": "it is too hot",
    "hw_power_brake_slowdown": "the power supply brakes it",
    "sw_thermal_slowdown": "it is too hot",
}


def _none(check: str, facts: Facts) -> Finding:
    if facts.is_mac:
        return Finding(check, "not applicable", "A Mac has no NVIDIA GPU.")
    return Finding(check, "not applicable", "There is no NVIDIA GPU that answers.")


def _present(probe: Probe, facts: Facts) -> Finding:
    if facts.is_mac:
        chip = probe.run(("sysctl", "-n", "machdep.cpu.brand_string"))
        name = chip.text if chip.ok and chip.text else "an unknown chip"
        if facts.os == "macos-intel":
            return Finding(_PRESENT, "not applicable", f"{name}: models run on the processor.")
        return Finding(
            _PRESENT,
            "ok",
            f"{name}, whose GPU computes with Metal.",
            (evidence_of("sysctl", chip),),
        )
    if facts.gpus:
        names = ", ".join(_described(gpu) for gpu in facts.gpus)
        return Finding(_PRESENT, "ok", f"{names}.", (Evidence(facts.smi, names),))
    if facts.nvidia_expected:
        cards = [card for card in _cards(facts) if "nvidia" in card.lower()]
        what = cards[0] if cards else "An NVIDIA GPU"
        return Finding(_PRESENT, "ok", f"{what} is in the computer, but does not answer.")
    others = [card.name for card in graphics.from_drm(probe.root)] if facts.is_linux else []
    others += [card for card in _cards(facts) if card not in others]
    if facts.nvidia_expected is None and not facts.container:
        return Finding(
            _PRESENT, "could not tell", "No NVIDIA GPU answers; whether there is one is not known."
        )
    seen = f" There is {', '.join(others)}." if others else ""
    evidence: tuple[Evidence, ...] = ()
    devices = probe.glob("/sys/bus/pci/devices/*/vendor")
    if devices:
        evidence = (Evidence("/sys/bus/pci/devices", f"{len(devices)} devices, none NVIDIA's"),)
    return Finding(
        _PRESENT,
        "not applicable",
        f"This computer has no NVIDIA GPU: models run on the processor.{seen}",
        evidence,
    )


def _described(gpu: NvidiaGpu) -> str:
    parts = [gpu.name, units.memory(gpu.memory_bytes)]
    if gpu.compute_capability:
        parts.append("compute capability {}.{}".format(*gpu.compute_capability))
    return f"{parts[0]} ({', '.join(parts[1:])})"


def _cards(facts: Facts) -> tuple[str, ...]:
    return (facts.windows.cards or ()) if facts.windows else ()


def _container(probe: Probe, facts: Facts) -> Finding:
    if not facts.container or facts.os != "linux":
        return Finding(_CONTAINER, "not applicable", "This is no container on Linux.")
    if not facts.nvidia_expected:
        return Finding(_CONTAINER, "not applicable", "No sign of an NVIDIA GPU on the host.")
    devices = probe.glob("/dev/nvidia[0-9]*")
    if devices:
        seen = Evidence("/dev", ", ".join(devices))
        return Finding(_CONTAINER, "ok", "The container was given the GPU.", (seen,))
    command = {
        "podman": "podman run --device nvidia.com/gpu=all …",
        "apptainer": "apptainer exec --nv …",
        "kubernetes": "kubectl explain pod.spec.containers.resources.limits  # nvidia.com/gpu: 1",
    }.get(facts.container, "docker run --gpus all …")
    return Finding(
        _CONTAINER,
        "problem",
        "The host has an NVIDIA GPU, but this container was not given it.",
        (Evidence("/dev/nvidia0", "does not exist"),),
        fix=Fix(
            "Start the container with the GPU. The host needs the NVIDIA Container Toolkit for it: "
            "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/",
            (command,),
            HOST,
        ),
    )


def _smi(probe: Probe, facts: Facts) -> Finding:
    if facts.is_mac or facts.os == "other":
        return _none(_SMI, facts)
    output = ask_smi(probe, facts.smi, "-q", "-x")
    command = f"{facts.smi} -q -x"
    if facts.gpus:
        return Finding(
            _SMI,
            "ok",
            f"nvidia-smi answers: driver {facts.driver}, CUDA up to {facts.cuda or units.UNKNOWN}.",
            (
                Evidence(
                    command, f"driver {facts.driver}, CUDA {facts.cuda}, {len(facts.gpus)} GPU"
                ),
            ),
        )
    if output.status == "missing":
        return _driver_missing(probe, facts, output)
    if output.status in ("timed out", "unreadable", "not executable"):
        if facts.nvidia_expected is False:
            return Finding(_SMI, "not applicable", "This computer has no NVIDIA GPU.")
        return could_not_tell(_SMI, command, output)
    plain = ask_smi(probe, facts.smi)
    said = f"{output.both}\n{plain.both}"
    evidence = (evidence_of(facts.smi, plain if plain.both else output),)
    if output.ok and nvidia.parse_xml(output.text) is None:
        return could_not_tell(_SMI, command, output)
    for words, summary, fix in _failures(probe, facts):
        if words in said.lower():
            return Finding(_SMI, "problem", summary, evidence, fix=fix)
    if facts.nvidia_expected is False:
        return Finding(
            _SMI, "not applicable", "nvidia-smi finds no NVIDIA GPU, and there is none.", evidence
        )
    return Finding(
        _SMI,
        "problem",
        "nvidia-smi fails.",
        evidence,
        fix=fixes.update_driver(facts, "The driver does not work."),
    )


def _driver_missing(probe: Probe, facts: Facts, output: Output) -> Finding:
    if not facts.nvidia_expected:
        return Finding(_SMI, "not applicable", "There is no NVIDIA GPU, and no nvidia-smi.")
    evidence = [evidence_of("nvidia-smi", output)]
    if facts.os == "wsl2":
        return Finding(
            _SMI,
            "warning",
            "nvidia-smi is not on the search path of this shell.",
            tuple(evidence),
            fix=Fix("Add the folder.", fixes.add_to_search_path(LIBRARIES), HERE),
        )
    modules = probe.read("/proc/modules") or ""
    if re.search(r"^nouveau ", modules, re.MULTILINE):
        evidence.append(Evidence("/proc/modules", "nouveau"))
    return Finding(
        _SMI,
        "problem",
        "An NVIDIA GPU is there, but NVIDIA's driver is not installed.",
        tuple(evidence),
        fix=fixes.update_driver(facts, "Programs need NVIDIA's own driver."),
    )


def _failures(probe: Probe, facts: Facts) -> list[tuple[str, str, Fix]]:
    """List what nvidia-smi says when it fails, what that means, and what helps."""
    restart = (
        Fix("Restart WSL.", (fixes.SHUTDOWN,), POWERSHELL)
        if facts.in_wsl
        else Fix("Restart the container.", where=HOST)
        if facts.container
        else Fix("Restart the computer.", ("sudo reboot",), HERE)
    )
    update = fixes.update_driver(facts, "Restart WSL; if that does not help, update the driver.")
    return [
        (
            "driver/library version mismatch",
            "The driver was updated, but the old one still runs.",
            restart,
        ),
        (
            "couldn't communicate with the nvidia driver",
            "NVIDIA's driver is installed, but not loaded.",
            update if facts.in_wsl else _load_driver(probe, facts),
        ),
        ("blocked by the operating system", "Windows does not let WSL use the GPU.", update),
        (
            "no devices were found",
            "The driver runs, but finds no GPU.",
            Fix(
                "Switch the computer off and on. If the GPU stays away, look at its power cables "
                "and its slot, and at what the kernel says.",
                ("sudo dmesg | grep -i nvrm",),
                HERE,
            ),
        ),
        (
            "gpu is lost",
            "The GPU has stopped answering.",
            Fix(
                "Switch the computer off and on; look at power cables and temperature if it comes "
                "again.",
                ("sudo dmesg | grep -i xid",),
                HERE,
            ),
        ),
        ("failed to initialize nvml: unknown error", "The container lost the GPU.", restart),
        (
            "insufficient permissions",
            "This user may not use the GPU.",
            Fix(
                "Join the group that owns it, and log in again.",
                ('sudo usermod -aG video,render "$USER"',),
            ),
        ),
    ]


def _load_driver(probe: Probe, facts: Facts) -> Fix:
    secure = probe.run(("mokutil", "--sb-state"))
    if "secureboot enabled" in secure.text.lower():
        return Fix(
            "Secure Boot refuses the driver's module. Enrol the key that signs it: the command "
            "asks for a password, and the blue screen at the next start asks for it again "
            "(Enroll MOK).",
            ("sudo mokutil --import /var/lib/shim-signed/mok/MOK.der", "sudo reboot"),
            HERE,
        )
    if facts.distribution in ("ubuntu", "debian", "linuxmint", "pop"):
        return Fix(
            "The module was not built for the kernel that runs. Build it and load it.",
            (
                'sudo apt-get install "linux-headers-$(uname -r)"',
                "sudo dkms autoinstall",
                "sudo modprobe nvidia",
            ),
            HERE,
        )
    return Fix(
        "Load the module; if it is not found, install the driver again.", ("sudo modprobe nvidia",)
    )


def _nvml(probe: Probe, facts: Facts) -> Finding:
    if not facts.gpus:
        return _none(_NVML, facts)
    output = probe.python(NVML, time_limit=3.0)
    command = "python: nvmlInit"
    if output.ok:
        try:
            answer = json.loads(output.text)
        except ValueError:
            return could_not_tell(_NVML, command, output)
        evidence = (evidence_of(command, output),)
        if not isinstance(answer, dict):
            return could_not_tell(_NVML, command, output)
        if "error" not in answer:
            return Finding(
                _NVML, "ok", f"NVML {answer.get('version')} answers a Python program.", evidence
            )
        return Finding(
            _NVML,
            "warning",
            f"NVML does not start in a Python program: {answer['error']}.",
            evidence,
            fix=_library_path(facts),
        )
    if output.status != "failed":
        return could_not_tell(_NVML, command, output)
    return Finding(
        _NVML,
        "warning",
        "A Python program does not find NVIDIA's management library, though nvidia-smi does.",
        (quote(command, output.error.splitlines()[-1] if output.error else ""),),
        fix=_library_path(facts),
    )


def _library_path(facts: Facts) -> Fix:
    if facts.in_wsl:
        return Fix(
            "Tell Linux where the Windows driver's libraries are.",
            (f"echo {LIBRARIES} | sudo tee /etc/ld.so.conf.d/ld.wsl.conf", "sudo ldconfig"),
            HERE,
        )
    return Fix("Let Linux read its list of libraries again.", ("sudo ldconfig",), HERE)


def _driver(_: Probe, facts: Facts) -> Finding:
    number = version(facts.driver)
    if not facts.gpus or number is None:
        return _none(_DRIVER, facts)
    evidence = (Evidence(facts.smi, f"driver {facts.driver}, CUDA {facts.cuda or units.UNKNOWN}"),)
    runs = f"Driver {facts.driver} runs programs for CUDA {facts.cuda or units.UNKNOWN} and older"
    if number < _LEAST_DRIVER:
        return Finding(
            _DRIVER,
            "problem",
            f"{runs}: PyTorch and llama.cpp are built for CUDA 12.6 or newer now.",
            evidence,
            fix=fixes.update_driver(facts, "The driver is too old."),
        )
    if number < _RECENT_DRIVER:
        return Finding(
            _DRIVER,
            "warning",
            f"{runs}: packages for CUDA 13, which most are now, need 580.",
            evidence,
            fix=fixes.update_driver(facts, "The driver is old."),
        )
    return Finding(_DRIVER, "ok", f"{runs}.", evidence)


def _capability(_: Probe, facts: Facts) -> Finding:
    lowest = facts.capability
    if not facts.gpus:
        return _none(_CAPABILITY, facts)
    if lowest is None:
        return Finding(
            _CAPABILITY, "could not tell", "The driver does not tell the GPU's compute capability."
        )
    text = "{}.{}".format(*lowest)
    evidence = (Evidence(f"{facts.smi} --query-gpu=compute_cap", text),)
    if lowest < _LEAST_CAPABILITY:
        return Finding(
            _CAPABILITY,
            "problem",
            f"Compute capability {text} is too old: PyTorch has no build for it.",
            evidence,
            fix=Fix(
                "Let models run on the processor, or get a newer GPU (Turing, 2018, or later)."
            ),
        )
    if lowest < _RECENT_CAPABILITY:
        return Finding(
            _CAPABILITY,
            "warning",
            f"Compute capability {text}: CUDA 13 no longer supports it.",
            evidence,
            fix=Fix(
                "Take packages for CUDA 12.6 (PyTorch: the index cu126), and toolkits up to 12.9."
            ),
        )
    flash = compatibility.least_capability("flash-attn")
    note = "" if lowest >= flash else ", but FlashAttention-2 needs 8.0"
    return Finding(_CAPABILITY, "ok", f"Compute capability {text} is supported{note}.", evidence)


def _xid(probe: Probe, facts: Facts) -> Finding:
    if not facts.gpus and not (facts.os == "linux" and facts.nvidia_expected):
        return _none(_XID, facts)
    if facts.os != "linux":
        return Finding(
            _XID, "not applicable", "The driver reports errors to Windows, not to Linux."
        )
    command = "journalctl -k -b --no-pager -o cat --grep NVRM"
    output = probe.run(tuple(command.split()))
    denied = "not seeing messages" in output.error or "insufficient permissions" in output.error
    if not _XID_LINE.search(output.text) and (denied or not _searched(output)):
        command = "dmesg"
        output = probe.run((command,))
        if not output.ok:
            finding = could_not_tell(_XID, command, output)
            return Finding(
                _XID,
                "could not tell",
                "The kernel's log is not open to this user.",
                finding.evidence,
                fix=Fix("Look yourself.", ("sudo dmesg | grep -i xid",), HERE),
            )
    lines = list(_XID_LINE.finditer(output.text))
    codes = sorted({int(match[1]) for match in lines})
    if not codes:
        return Finding(_XID, "ok", "The kernel reports no GPU error since it started.")
    evidence = (quote(command, "\n".join(match[0] for match in lines[-3:])),)
    bad = [code for code in codes if code in _HARDWARE_XIDS]
    if bad:
        return Finding(
            _XID,
            "problem",
            f"The GPU reported Xid {bad[0]}: {_HARDWARE_XIDS[bad[0]]}.",
            evidence,
            fix=Fix(
                "Switch the computer off and on. If it comes again: check power cables, "
                "temperature and the slot, try another driver, then have the card replaced.",
                ("nvidia-smi -q -d TEMPERATURE,POWER,ECC",),
                HERE,
            ),
        )
    meaning = _PROGRAM_XIDS.get(codes[0], "see NVIDIA's list of Xid errors")
    return Finding(
        _XID,
        "warning",
        f"The GPU reported Xid {codes[0]}: {meaning}.",
        evidence,
        fix=Fix(
            "Find the program that ran then. If several programs cause it, test the card's memory.",
            ("sudo dmesg | grep -i xid",),
            HERE,
        ),
    )


def _searched(output: Output) -> bool:
    """Tell whether the journal was read; it ends with code 1 where nothing matches."""
    return output.ok or (output.status == "failed" and output.code == 1 and not output.error)


def _ecc(_: Probe, facts: Facts) -> Finding:
    if not facts.gpus:
        return _none(_ECC, facts)
    for gpu in facts.gpus:
        if gpu.pending or gpu.ecc_uncorrected:
            what = (
                f"{gpu.ecc_uncorrected} memory errors that could not be corrected"
                if gpu.ecc_uncorrected
                else "bad memory that waits to be taken out of use"
            )
            seen = f"uncorrected: {gpu.ecc_uncorrected}, pending: {'yes' if gpu.pending else 'no'}"
            return Finding(
                _ECC,
                "problem" if gpu.pending else "warning",
                f"{gpu.name} has {what}.",
                (Evidence(f"{facts.smi} -q -x", seen),),
                fix=Fix(
                    "End what runs on the GPU and reset it, which takes bad memory out of use. "
                    "Have the card replaced if the count grows.",
                    ("sudo nvidia-smi --gpu-reset",),
                    HERE,
                )
                if facts.os == "linux"
                else Fix("Restart the computer; have the card replaced if the count grows."),
            )
    if all(gpu.ecc is None for gpu in facts.gpus):
        return Finding(
            _ECC, "ok", "The GPU has no error-correcting memory, as most cards for desktops."
        )
    on = all(gpu.ecc for gpu in facts.gpus)
    return Finding(
        _ECC,
        "ok",
        f"Error correction is {'on' if on else 'off'}; no uncorrected error is on record.",
        (Evidence(f"{facts.smi} -q -x", f"ECC: {'Enabled' if on else 'Disabled'}"),),
    )


def _power(_: Probe, facts: Facts) -> Finding:
    if not facts.gpus:
        return _none(_POWER, facts)
    for number, gpu in enumerate(facts.gpus):
        slow = [name for name in gpu.slowdowns if name in _SLOWDOWNS]
        if slow:
            return Finding(
                _POWER,
                "warning",
                f"{gpu.name} runs slower than it could: {_SLOWDOWNS[slow[-1]]}.",
                (Evidence(f"{facts.smi} -q -x", ", ".join(slow)),),
                fix=Fix(
                    "Look at its temperature and at the power cables.",
                    ("nvidia-smi -q -d TEMPERATURE,POWER,PERFORMANCE",),
                ),
            )
        limit, usual = gpu.power_limit_w, gpu.default_power_limit_w
        if limit and usual and limit < _LEAST_POWER * usual:
            return Finding(
                _POWER,
                "warning",
                f"{gpu.name} is limited to {limit:.0f} W; its usual limit is {usual:.0f} W.",
                (Evidence(f"{facts.smi} -q -x", f"limit {limit:.0f} W, default {usual:.0f} W"),),
                fix=Fix(
                    "If nobody set this on purpose, for noise or the power bill, undo it. Reading "
                    "prompts gets faster, writing answers hardly.",
                    (f"sudo nvidia-smi -i {number} -pl {usual:.0f}",)
                    if facts.os == "linux"
                    else (f"nvidia-smi -i {number} -pl {usual:.0f}",),
                    HERE if facts.os == "linux" else "Windows PowerShell as administrator",
                ),
            )
    limits = [gpu.power_limit_w for gpu in facts.gpus if gpu.power_limit_w]
    if not limits:
        return Finding(
            _POWER, "ok", "Nothing slows the GPU down; it does not tell its power limit."
        )
    text = ", ".join(f"{limit:.0f} W" for limit in limits)
    return Finding(_POWER, "ok", f"Nothing slows the GPU down; its power limit is {text}.")


def _pcie(_: Probe, facts: Facts) -> Finding:
    if not facts.gpus:
        return _none(_PCIE, facts)
    known = [gpu for gpu in facts.gpus if gpu.pcie_width and gpu.max_pcie_width]
    if not known:
        return Finding(_PCIE, "could not tell", "The driver does not tell the width of the link.")
    for gpu in known:
        width, most = gpu.pcie_width or 0, gpu.max_pcie_width or 0
        if width < most:
            seen = (Evidence(f"{facts.smi} -q -x", f"{width} of {most} lanes"),)
            summary = f"{gpu.name} is connected by {width} of {most} PCIe lanes"
            if facts.virtual_machine and not facts.in_wsl:
                return Finding(
                    _PCIE, "ok", f"{summary}, as the virtual machine's host gives it.", seen
                )
            return Finding(
                _PCIE,
                "warning",
                f"{summary}.",
                seen,
                fix=Fix(
                    "Switch off, seat the card again, use the slot nearest to the processor, and "
                    "look in the manual whether an SSD takes the slot's lanes. It matters for "
                    "loading, offloading and several GPUs, hardly for a model that fits.",
                ),
            )
    gpu = known[0]
    generation = f" of generation {gpu.max_pcie_generation}" if gpu.max_pcie_generation else ""
    return Finding(
        _PCIE,
        "ok",
        f"The link has all its {gpu.max_pcie_width} lanes{generation} (it slows down while idle).",
        (Evidence(f"{facts.smi} -q -x", f"{gpu.pcie_width} of {gpu.max_pcie_width} lanes"),),
    )


def _memory(_: Probe, facts: Facts) -> Finding:
    if not facts.gpus:
        return _none(_MEMORY, facts)
    known = [gpu for gpu in facts.gpus if gpu.memory_bytes and gpu.used_bytes is not None]
    if not known:
        return Finding(
            _MEMORY, "could not tell", "The driver does not tell how much memory is in use."
        )
    parts = []
    full = False
    for gpu in known:
        used, total = gpu.used_bytes or 0, gpu.memory_bytes or 0
        parts.append(f"{units.memory(used)} of {units.memory(total)}")
        full = full or (used > _MOST_USED * total and used > _MOST_USED_BYTES)
    text = " and ".join(parts)
    holders = sorted(
        ((name, size or 0) for gpu in known for name, size in gpu.processes),
        key=lambda one: -one[1],
    )
    said = ", ".join(
        f"{name} {units.memory(size) if size else ''}".strip() for name, size in holders
    )
    evidence = (quote(f"{facts.smi} -q -x", said or "no processes shown"),)
    if not full:
        return Finding(_MEMORY, "ok", f"{text} of the GPU's memory is in use.", evidence)
    hidden = " WSL does not show Windows' programs: look in Task Manager." if facts.in_wsl else ""
    who = f", by {said}" if said else ""
    return Finding(
        _MEMORY,
        "warning",
        f"{text} of the GPU's memory is in use{who}.",
        evidence,
        fix=Fix(
            f"Close what you do not need: other notebooks, model servers, browsers, games.{hidden}",
            ("nvidia-smi",),
        ),
    )


CHECKS = (
    Check(
        id=_PRESENT,
        title="GPU",
        group="gpu",
        why="With a GPU that computes, a model runs many times faster.",
        run=_present,
        explain="Asks nvidia-smi; where it does not answer, looks for NVIDIA's cards on the PCI "
        "bus, and in WSL and Windows in Windows' list of graphics cards.",
    ),
    Check(
        id=_CONTAINER,
        title="GPU in this container",
        group="gpu",
        why="A container sees a GPU only when it was started with it.",
        run=_container,
        explain="In a container on a computer with an NVIDIA GPU, looks for the devices "
        "/dev/nvidia0 and on. "
        "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/",
    ),
    Check(
        id=_SMI,
        title="NVIDIA driver",
        group="gpu",
        why="Nothing reaches the GPU but through a driver that runs.",
        run=_smi,
        depends_on=(*_WSL_CHECKS, _CONTAINER),
        explain="Runs nvidia-smi -q -x and knows what it says when it fails: no driver, a driver "
        "that is not loaded (a new kernel, Secure Boot), two versions at once, a GPU "
        "that is lost. https://docs.nvidia.com/deploy/nvidia-smi/",
    ),
    Check(
        id=_NVML,
        title="NVML from Python",
        group="gpu",
        why="Programs find the driver's libraries by another way than nvidia-smi.",
        run=_nvml,
        depends_on=(_SMI,),
        explain="Loads libnvidia-ml in a child of this Python and initializes it. "
        "https://docs.nvidia.com/deploy/nvml-api/",
    ),
    Check(
        id=_DRIVER,
        title="Version of the driver",
        group="gpu",
        why="A program that was built for a newer CUDA than the driver supports does not start.",
        run=_driver,
        depends_on=(_SMI,),
        explain="Compares the driver's version with 525, the first for CUDA 12, and 580, the "
        "first for CUDA 13. https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/",
    ),
    Check(
        id=_CAPABILITY,
        title="Compute capability",
        group="gpu",
        why="A library has code for some generations of GPUs only.",
        run=_capability,
        depends_on=(_SMI,),
        explain="Asks the driver for the compute capability. CUDA 13 supports 7.5 (Turing) and "
        "newer; PyTorch's builds for CUDA 12.6 support 5.0 and newer. "
        "https://developer.nvidia.com/cuda-gpus",
    ),
    Check(
        id=_XID,
        title="Errors of the GPU",
        group="gpu",
        why="A card that loses its connection or its memory's contents gives wrong answers or "
        "none.",
        run=_xid,
        explain="Looks for the driver's Xid messages in the kernel's log since it started, and "
        "tells those of the hardware from those of programs. "
        "https://docs.nvidia.com/deploy/xid-errors/",
    ),
    Check(
        id=_ECC,
        title="Error-correcting memory",
        group="gpu",
        why="Errors that could not be corrected come before a card's end.",
        run=_ecc,
        depends_on=(_SMI,),
        explain="Reads ECC's mode, the count of uncorrected errors, and memory waiting to be "
        "taken out of use from nvidia-smi -q -x. "
        "https://docs.nvidia.com/deploy/dynamic-page-retirement/",
    ),
    Check(
        id=_POWER,
        title="Power and heat",
        group="gpu",
        why="A limited or hot card reads prompts more slowly than it could.",
        run=_power,
        depends_on=(_SMI,),
        explain="Compares the power limit in force with the default one (a warning below 90 %), "
        "and reads whether heat or the power supply slows the card down now.",
    ),
    Check(
        id=_PCIE,
        title="Connection of the GPU",
        group="gpu",
        why="Loading models and computing partly on the processor go through this link.",
        run=_pcie,
        depends_on=(_SMI,),
        explain="Compares the PCIe lanes in use with those that card and slot could use. The "
        "generation is lowered while the card idles, so it is not judged.",
    ),
    Check(
        id=_MEMORY,
        title="Who uses the GPU's memory",
        group="gpu",
        why="What others hold is missing to the model, and layers move to the processor.",
        run=_memory,
        depends_on=(_SMI,),
        explain="Reads used memory and processes from nvidia-smi -q -x. More than 15 % and 1 GiB "
        "in use is a warning. Inside WSL the driver does not show the programs of "
        "Windows.",
    ),
)
