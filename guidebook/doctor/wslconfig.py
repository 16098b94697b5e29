"""Reading Windows' settings for WSL (``.wslconfig``) and this distribution's (``wsl.conf``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from guidebook.doctor.facts import Facts
from guidebook.doctor.probe import Probe

NAME = ".wslconfig"
# https://learn.microsoft.com/windows/wsl/wsl-config#configuration-settings-for-wslconfig
_KNOWN = {
    "wsl2": (
        "kernel kernelModules memory processors localhostForwarding kernelCommandLine safeMode "
        "swap swapFile guiApplications debugConsole maxCrashDumpCount nestedVirtualization "
        "vmIdleTimeout dnsProxy networkingMode firewall dnsTunneling autoProxy defaultVhdSize "
        "ipv6 pageReporting vmSwitch dhcp macAddress mountDeviceTimeout gpuSupport "
        "hardwarePerformanceCounters"
    ),
    "experimental": (
        "autoMemoryReclaim sparseVhd bestEffortDnsParsing dnsTunnelingIpAddress "
        "initialAutoProxyTimeout ignoredPorts hostAddressLoopback networkingMode dnsTunneling "
        "firewall autoProxy"
    ),
}
_KEYS = {section: {key.lower() for key in keys.split()} for section, keys in _KNOWN.items()}
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB|K|M|G|T)?", re.IGNORECASE)
_STEPS = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@dataclass(frozen=True)
class Settings:
    """What the file says.

    Attributes
    ----------
    path
        Where it lies, seen from here; None: there is none, or it was not found.
    text
        All of it.
    values
        By section and key, both in lower case.
    mistakes
        What WSL will not heed, a sentence each.
    """

    path: str | None = None
    text: str = ""
    values: dict[tuple[str, str], str] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()

    def get(self, key: str, section: str = "wsl2") -> str | None:
        """Return a value as it is written."""
        return self.values.get((section, key.lower()))

    def size(self, key: str) -> int | None:
        """Return a size in bytes."""
        return to_size(self.get(key))


def to_size(text: str | None) -> int | None:
    """Read a size such as ``8GB``; without a unit it is bytes."""
    found = _SIZE.fullmatch((text or "").strip())
    return int(found[1]) * _STEPS[(found[2] or "").upper().removesuffix("B")] if found else None


def find(probe: Probe, facts: Facts) -> Settings:
    """Look for the file in the Windows user's folder."""
    folder = profile(probe, facts)
    path = f"{folder}/{NAME}" if folder else None
    text = probe.read(path) if path else None
    if path is None or text is None:
        return Settings(mistakes=_misnamed(probe, folder))
    return parse(text, path)


def profile(probe: Probe, facts: Facts) -> str | None:
    """Return the Windows user's folder as this system sees it; None if it is not known."""
    if facts.windows and facts.windows.profile:
        if not facts.in_wsl:
            return facts.windows.profile
        drive, _, rest = facts.windows.profile.partition(":")
        if drive.upper() == "C" and facts.windows_drive:
            return facts.windows_drive.rstrip("/") + rest.replace("\\", "/")
        return None
    if facts.windows_drive is None:
        return None
    found = probe.glob(f"{facts.windows_drive}/Users/*/{NAME}")
    return found[0].removesuffix(f"/{NAME}") if len(found) == 1 else None


def parse(text: str, path: str | None = None) -> Settings:
    """Read the text of a .wslconfig file."""
    values: dict[tuple[str, str], str] = {}
    mistakes: list[str] = []
    section = ""
    for line in text.splitlines():
        bare = line.split("#")[0].strip()
        if not bare:
            continue
        if bare.startswith("[") and bare.endswith("]"):
            section = bare[1:-1].strip().lower()
            if section not in _KEYS:
                mistakes.append(f"WSL knows no section [{section}].")
            continue
        key, given, value = (part.strip() for part in bare.partition("="))
        if not given:
            mistakes.append(f"The line '{bare}' has no '='.")
        elif not section:
            mistakes.append(f"{key} stands before any section; WSL wants it under [wsl2].")
        elif section in _KEYS and key.lower() not in _KEYS[section]:
            other = next((name for name in _KEYS if key.lower() in _KEYS[name]), None)
            where = f"; it belongs under [{other}]" if other else ""
            mistakes.append(f"WSL knows no {key} under [{section}]{where}.")
        else:
            values[section, key.lower()] = value.strip('"')
    for key in ("memory", "swap"):
        mistakes += _size_mistakes(key, values.get(("wsl2", key)))
    processors = values.get(("wsl2", "processors"))
    if processors is not None and not processors.isdigit():
        mistakes.append(f"processors={processors} is no whole number.")
    return Settings(path, text, values, tuple(mistakes))


def _size_mistakes(key: str, value: str | None) -> list[str]:
    if value is None:
        return []
    size = to_size(value)
    if size is None:
        return [f"{key}={value} is no size; write it as 16GB, in whole numbers."]
    if 0 < size < 1024**2:
        return [f"{key}={value} means {size} bytes; write {value}GB."]
    return []


def _misnamed(probe: Probe, folder: str | None) -> tuple[str, ...]:
    if folder is None:
        return ()
    for name in (".wslconfig.txt", "wslconfig", "wslconfig.txt", ".wslconf"):
        if probe.exists(f"{folder}/{name}"):
            return (f"The file is called {name}; WSL reads .wslconfig only.",)
    return ()


def distribution_setting(probe: Probe, section: str, key: str) -> str | None:
    """Return a value of this distribution's /etc/wsl.conf, in lower case."""
    now = ""
    for line in (probe.read("/etc/wsl.conf") or "").splitlines():
        bare = line.split("#")[0].strip()
        if bare.startswith("["):
            now = bare.strip("[]").strip().lower()
        name, given, value = bare.partition("=")
        if given and now == section and name.strip().lower() == key.lower():
            return value.strip().strip("\"'").lower()
    return None
