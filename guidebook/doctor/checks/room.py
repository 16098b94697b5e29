"""Checks of the room that models need: memory, disk, and a way to the model hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from guidebook import units
from guidebook.doctor import environment
from guidebook.doctor import facts as machine
from guidebook.doctor.facts import Facts, Need
from guidebook.doctor.model import (
    HERE,
    HOST,
    POWERSHELL,
    Check,
    Evidence,
    Finding,
    Fix,
)
from guidebook.doctor.probe import Probe
from guidebook.machine import disk, memory
from guidebook.machine.memory import Memory

# Below this much RAM not even the book's own examples run beside a browser.
_LEAST_RAM = 4 * units.GIB
_SMALL_RAM = 8 * units.GIB
# With more than this, models that fit the plan leave room, and swap is rarely missed.
_SWAP_MATTERS_BELOW = 16 * units.GIB
# A first environment (PyTorch with CUDA: about 8 GB) and one larger model beside it.
_COMFORTABLE_DISK = 20 * units.GB
_FULL = units.GB
_MEMINFO = "/proc/meminfo"
_HUB = "https://huggingface.co"
_HUB_SECONDS = 2.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_LOCAL = ("localhost", "127.0.0.1")
_SECRET = re.compile(r"(//|^)[^/@\s]*@")


def hf_home(probe: Probe) -> str:
    """Return the folder where Hugging Face's libraries keep models and settings."""
    if home := probe.environment("HF_HOME"):
        return home.rstrip("/")
    cache = probe.environment("XDG_CACHE_HOME") or f"{probe.platform().home}/.cache"
    return f"{cache}/huggingface"


def _ram(probe: Probe, facts: Facts) -> Finding:
    check = "room.ram"
    found = _memory(probe, facts)
    total, available = found.effective_total_bytes, found.effective_available_bytes
    if total is None:
        return Finding(check, "could not tell", "The amount of memory could not be read.")
    shown = units.memory(total)
    free = "" if available is None else f", {units.memory(available)} of it free"
    seen = (Evidence(_source(facts), f"{shown}{free}"),)
    if total < _LEAST_RAM:
        summary = f"{shown} of memory is too little for language models."
        return Finding(check, "problem", summary, seen, fix=_more_memory(facts))
    need = _largest(facts)
    place = total + _gpu_bytes(facts)
    if need is not None and need.memory_bytes > place:
        summary = f"{need.name} takes {units.memory(need.memory_bytes)}; this machine has "
        summary += f"{units.memory(place)}{' with its GPU' if facts.gpus else ''}."
        fix = Fix("Choose a smaller model or quantization.", ("guidebook plan",))
        return Finding(check, "warning", summary, seen, fix=fix)
    if total < _SMALL_RAM:
        summary = f"{shown} of memory holds small models only."
        return Finding(check, "warning", summary, seen, fix=_more_memory(facts))
    if (
        need is not None
        and available is not None
        and need.memory_bytes > available + _gpu_bytes(facts)
    ):
        summary = f"{shown} of memory, but only {units.memory(available)} is free: "
        summary += f"{need.name} takes {units.memory(need.memory_bytes)}."
        fix = Fix("Close what takes the memory; a browser is often the largest.")
        return Finding(check, "warning", summary, seen, fix=fix)
    beside = f"; {need.name} takes {units.memory(need.memory_bytes)}" if need else ""
    return Finding(check, "ok", f"{shown} of memory{free}{beside}.", seen)


def _swap(probe: Probe, facts: Facts) -> Finding:
    check = "room.swap"
    if not facts.is_linux:
        return Finding(check, "not applicable", "macOS and Windows size their swap themselves.")
    if facts.in_wsl:
        return Finding(check, "not applicable", "WSL has a check of its own for swap.")
    if facts.container:
        return Finding(check, "not applicable", "In a container the host decides about swap.")
    found = _memory(probe, facts)
    total, swap, free = found.total_bytes, found.swap_total_bytes, found.swap_free_bytes
    if total is None or swap is None:
        return Finding(check, "could not tell", f"{_MEMINFO} does not tell about swap.")
    seen = (Evidence(_MEMINFO, f"SwapTotal {units.memory(swap)}, SwapFree {units.memory(free)}"),)
    if swap and free is not None and free < 0.2 * swap:
        summary = f"{units.memory(swap - free)} of {units.memory(swap)} of swap is in use: "
        summary += "memory was short lately, and models will run slowly."
        return Finding(check, "warning", summary, seen, fix=Fix("Close programs, or restart."))
    if not swap and total < _SWAP_MATTERS_BELOW:
        summary = f"No swap beside {units.memory(total)} of memory."
        return Finding(check, "warning", summary, seen, fix=_more_swap())
    if not swap:
        summary = f"No swap; {units.memory(total)} of memory gets by without."
        return Finding(check, "ok", summary, seen)
    return Finding(check, "ok", f"{units.memory(swap)} of swap, {units.memory(free)} free.", seen)


def _disk(probe: Probe, facts: Facts) -> Finding:
    check = "room.disk"
    folder = _existing(probe, _hub_cache(probe))
    usage = probe.disk(folder)
    if usage is None:
        return Finding(check, "could not tell", "The disk's free space could not be read.")
    seen = [
        Evidence(
            f"disk of {folder}", f"{units.storage(usage[1])} of {units.storage(usage[0])} free"
        )
    ]
    free = usage[1]
    where = "The disk of the model cache"
    if facts.os == "wsl2" and facts.windows_drive and (windows := probe.disk(facts.windows_drive)):
        # The disk of WSL is a file on drive C: that grows: it says more free than there is.
        text = f"{units.storage(windows[1])} of {units.storage(windows[0])} free"
        seen.append(Evidence(f"disk of {facts.windows_drive}", text))
        if windows[1] < free and not folder.startswith("/mnt/"):
            free, where = windows[1], "Drive C:, on which WSL's disk is a file,"
    need = sum(one.disk_bytes for one in facts.needs)
    names = ", ".join(one.name for one in facts.needs)
    shown = units.storage(free)
    if free < max(need, _FULL):
        summary = f"{where} has {shown} free; "
        summary += f"{names or 'a model'} takes {units.storage(max(need, _FULL))}."
        return Finding(check, "problem", summary, tuple(seen), fix=_free_disk(probe, facts))
    if free < max(_COMFORTABLE_DISK, need):
        summary = f"{shown} free: enough for {names or 'a model'}, little beyond it."
        return Finding(check, "warning", summary, tuple(seen), fix=_free_disk(probe, facts))
    beside = f"; {names} takes {units.storage(need)}" if need else ""
    return Finding(check, "ok", f"{shown} free{beside}.", tuple(seen))


def _hf_home(probe: Probe, facts: Facts) -> Finding:
    check = "room.hf-home"
    folder = _hub_cache(probe)
    named = next((name for name in ("HF_HUB_CACHE", "HF_HOME") if probe.environment(name)), None)
    source = f"${named}" if named else "the default place"
    seen: tuple[Evidence, ...] = (Evidence(source, folder),)
    if not facts.is_linux:
        return Finding(check, "ok", f"Models are kept in {folder}.", seen)
    mount = machine.mount_of(probe, probe.resolve(_existing(probe, folder)) or folder)
    if mount is None:
        return Finding(check, "could not tell", f"The disk of {folder} is not known.", seen)
    major, _, minor = mount.device.partition(":")
    device = os.makedev(int(major), int(minor)) if major.isdigit() and minor.isdigit() else 0
    kind, filesystem = disk.linux_kind(probe.root, _plain(probe, folder), device)
    seen = (*seen, Evidence("/proc/self/mountinfo", f"{mount.point}: {filesystem}"))
    slow = ""
    if facts.in_wsl and filesystem in ("9p", "drvfs", "virtiofs"):
        slow = "on a Windows drive, which WSL reads through a slow bridge"
    elif kind == "network":
        slow = f"on a network drive ({filesystem})"
    elif kind == "hdd" and not facts.in_wsl and not facts.virtual_machine:
        slow = "on a hard disk"
    if slow:
        fix = Fix(
            "Keep models on the fastest local disk; move what is there, then set it for good.",
            ("export HF_HOME=~/.cache/huggingface",),
        )
        return Finding(check, "warning", f"Models are kept {slow}.", seen, fix=fix)
    if filesystem == "tmpfs":
        summary = "Models are kept in memory (tmpfs): they are lost at the next start."
        fix = Fix("Choose a folder on disk.", ("export HF_HOME=~/.cache/huggingface",))
        return Finding(check, "warning", summary, seen, fix=fix)
    what = {"nvme": "an NVMe disk", "ssd": "an SSD", "virtual": "a virtual disk"}.get(
        kind or "", ""
    )
    on = f"on {what} ({filesystem})" if what else f"on {filesystem}"
    return Finding(check, "ok", f"Models are kept {on}.", seen)


def _proxies(probe: Probe, facts: Facts) -> Finding:
    check = "room.proxies"
    found = {
        name: value
        for name in (*_PROXIES, *(one.lower() for one in _PROXIES))
        if (value := (probe.environment(name) or "").strip())
    }
    if not found:
        return Finding(check, "ok", "No proxy is set.")
    seen = tuple(Evidence(f"${name}", _SECRET.sub(r"\1", value)) for name, value in found.items())
    windows = facts.os == "windows"
    bare = [name for name, value in found.items() if "://" not in value]
    if bare:
        summary = f"${bare[0]} lacks http:// in front, which Python's libraries refuse."
        value = _SECRET.sub(r"\1", found[bare[0]])
        return Finding(
            check, "problem", summary, seen, fix=_set(bare[0], f"http://{value}", windows)
        )
    for name in _PROXIES:
        if name in found and found.get(name.lower(), found[name]) != found[name]:
            summary = f"${name} and ${name.lower()} differ; programs choose either."
            value = _SECRET.sub(r"\1", found[name])
            return Finding(check, "warning", summary, seen, fix=_set(name.lower(), value, windows))
    around = ",".join(probe.environment(name) or "" for name in ("NO_PROXY", "no_proxy"))
    missing = [name for name in _LOCAL if name not in around.split(",") and "*" not in around]
    if missing:
        summary = f"The proxy is asked for {missing[0]} too: local model servers stay out of reach."
        kept = [one for one in around.split(",") if one]
        value = ",".join(dict.fromkeys((*kept, *_LOCAL)))
        return Finding(check, "warning", summary, seen, fix=_set("NO_PROXY", value, windows))
    return Finding(check, "ok", "A proxy is set, and not used for this computer itself.", seen)


def _hub(probe: Probe, facts: Facts) -> Finding:
    check = "room.hub"
    if (probe.environment("HF_HUB_OFFLINE") or "").strip().upper() in ("1", "ON", "YES", "TRUE"):
        seen = (Evidence("$HF_HUB_OFFLINE", probe.environment("HF_HUB_OFFLINE") or ""),)
        summary = "HF_HUB_OFFLINE is set: nothing is downloaded, and what is in the cache works."
        return Finding(check, "ok", summary, seen)
    endpoint = probe.environment("HF_ENDPOINT") or _HUB
    hub, _ = _host(endpoint)
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    proxy = next((value for name in names if (value := probe.environment(name))), None)
    host, port = _host(proxy or endpoint)
    if not hub or not host:
        return Finding(check, "could not tell", "The address of the hub or the proxy has no host.")
    reached = probe.connects(host, port, _HUB_SECONDS)
    through = " through the proxy" if proxy else ""
    said = {True: "answers", False: "does not answer", None: "has not answered"}[reached]
    seen = (Evidence("TCP", f"{host}:{port} {said}"),)
    if reached:
        what = "The proxy answers" if proxy else f"{host} answers"
        return Finding(check, "ok", f"{what}: models can be looked for{through}.", seen)
    if reached is None:
        summary = f"{host} did not answer within {_HUB_SECONDS:.0f} s."
        return Finding(check, "could not tell", summary, seen)
    summary = f"{hub} cannot be reached{through}: no model can be downloaded."
    fix = Fix(
        "Connect to the network, or go on without: the book's embedded model, models already in "
        "the cache and .gguf files work offline. HF_HUB_OFFLINE saves the waiting.",
        ("$env:HF_HUB_OFFLINE = 1" if facts.os == "windows" else "export HF_HUB_OFFLINE=1",),
        POWERSHELL if facts.os == "windows" else HERE,
    )
    return Finding(check, "warning", summary, seen, fix=fix)


def _memory(probe: Probe, facts: Facts) -> Memory:
    """Read the memory of this machine, and what a container leaves of it."""
    if facts.is_linux:
        return memory.from_linux(probe.root)
    if facts.is_mac:
        return memory.from_macos(lambda command, *_: _said(probe, command))
    total = facts.windows.memory_bytes if facts.windows else None
    return Memory(total_bytes=total, effective_total_bytes=total)


def _said(probe: Probe, command: Sequence[str]) -> str | None:
    output = probe.run(command)
    return output.text if output.ok else None


def _source(facts: Facts) -> str:
    return _MEMINFO if facts.is_linux else "sysctl hw.memsize" if facts.is_mac else "Windows"


def _largest(facts: Facts) -> Need | None:
    return max(facts.needs, key=lambda need: need.memory_bytes, default=None)


def _gpu_bytes(facts: Facts) -> int:
    return sum(gpu.memory_bytes or 0 for gpu in facts.gpus)


def _hub_cache(probe: Probe) -> str:
    named = probe.environment("HF_HUB_CACHE")
    return named.rstrip("/") if named else f"{hf_home(probe)}/hub"


def _plain(probe: Probe, folder: str) -> Path:
    """Return a folder that exists, without links and without ``~``."""
    found = _existing(probe, folder)
    return Path(probe.resolve(found) or found)


def _existing(probe: Probe, folder: str) -> str:
    """Return the folder, or its nearest parent that exists."""
    path = PurePosixPath(folder)
    return str(next((one for one in (path, *path.parents) if probe.exists(str(one))), path))


def _host(address: str) -> tuple[str, int]:
    """Return the host and the port of an address; no host where it makes no sense."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0


def _set(name: str, value: str, windows: bool) -> Fix:
    command = f'$env:{name} = "{value}"' if windows else f'export {name}="{value}"'
    text = f"Set {name} like this where it is set, with the password if it has one."
    return Fix(text, (command,), POWERSHELL if windows else HERE)


def _more_memory(facts: Facts) -> Fix:
    if facts.os == "wsl2":
        return Fix("Give WSL more of the computer's memory: the check `wsl.memory` says how.")
    if facts.container:
        return Fix("Start the container with more memory, such as `--memory 16g`.", where=HOST)
    return Fix("Add memory, or rent a machine. Models up to 1 B still run.")


def _more_swap() -> Fix:
    return Fix(
        "Add 8 GiB of swap, and a line to /etc/fstab to keep it.",
        (
            "sudo fallocate --length 8G /swapfile",
            "sudo chmod 600 /swapfile",
            "sudo mkswap /swapfile",
            "sudo swapon /swapfile",
            "echo '/swapfile none swap sw 0 0' | sudo tee --append /etc/fstab",
        ),
    )


def _free_disk(probe: Probe, facts: Facts) -> Fix:
    found = environment.find(probe, facts)
    commands = [f"{found.pip} cache purge", "hf cache ls", "hf cache prune"]
    if found.kind == "conda":
        commands.insert(1, "conda clean --all --yes")
    return Fix(
        "Empty the caches, and remove models that you no longer use (hf cache rm). "
        "Or keep models on a larger disk: set HF_HOME to a folder there.",
        tuple(commands),
        POWERSHELL if found.windows else HERE,
    )


CHECKS: tuple[Check, ...] = (
    Check(
        id="room.ram",
        title="Memory",
        group="room",
        why="A model that does not fit into memory is read from disk again for each token: "
        "a hundred times slower, or ended by the system.",
        run=_ram,
        explain="Reads the memory of the machine and the limit of the container. Less than 4 GiB "
        "is a problem, less than 8 GiB a warning, as is a model of the plan that takes "
        "more than memory and GPU hold together, or more than is free now.",
    ),
    Check(
        id="room.swap",
        title="Swap",
        group="room",
        why="Without swap, a program that needs a little more memory than there is gets ended.",
        run=_swap,
        explain="Reads /proc/meminfo. No swap is a warning below 16 GiB of memory. Swap that is "
        "more than 80 % full is a warning: what is being used lies on disk.",
    ),
    Check(
        id="room.disk",
        title="Disk for the models",
        group="room",
        why="A full disk interrupts downloads and installations, and leaves broken files behind.",
        run=_disk,
        explain="Reads the free space of the disk that holds Hugging Face's cache. Less than the "
        "models of the plan take is a problem; less than 20 GB a warning, because PyTorch "
        "with CUDA and one more model take that. In WSL 2 the disk is a file on drive C:, so "
        "drive C: counts where it has less.",
    ),
    Check(
        id="room.hf-home",
        title="Where models are kept",
        group="room",
        why="Loading a model of 5 GB takes 2 s from an NVMe disk, and minutes from a network "
        "drive or a Windows drive seen from WSL.",
        run=_hf_home,
        explain="Follows HF_HUB_CACHE, HF_HOME or the default place to the mount that holds it, "
        "and to the kind of disk below. A network drive, a Windows drive seen from WSL, a "
        "hard disk and a disk in memory are warnings. Of a virtual disk nobody inside "
        "knows what lies below.",
    ),
    Check(
        id="room.proxies",
        title="Proxies",
        group="room",
        why="With a proxy that is set wrongly downloads fail, and so do calls to a model server on "
        "this computer.",
        run=_proxies,
        explain="Reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in capital and small "
        "letters. An address without http:// is a problem, because httpx refuses it. "
        "Different values in capital and small letters are a warning, and so is a proxy "
        "without exceptions for localhost and 127.0.0.1. User names and passwords are not "
        "shown.",
    ),
    Check(
        id="room.hub",
        title="The model hub",
        group="room",
        why="Models come from huggingface.co; the book's embedded model does not need it.",
        run=_hub,
        explain="Opens a connection to port 443 of huggingface.co (or of HF_ENDPOINT, or to the "
        "proxy) for at most two seconds, and sends nothing. Where nothing answers it is a "
        "warning: the embedded model, models in the cache and files on disk still work.",
        depends_on=("room.proxies",),
    ),
)
