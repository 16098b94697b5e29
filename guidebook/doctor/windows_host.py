"""Where Windows is on the network, seen from WSL 2."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidebook.doctor import wslconfig
from guidebook.doctor.facts import Facts
from guidebook.doctor.model import Evidence, evidence_of
from guidebook.doctor.probe import Probe

_GATEWAY = re.compile(r"default via (\S+)")


@dataclass(frozen=True)
class WindowsHost:
    """How WSL 2 reaches Windows.

    Attributes
    ----------
    mode
        As WSL names it: ``nat``, ``mirrored``, ``none`` …
    address
        The host to connect to; None if there is no way, or none was found.
    evidence
        What was asked, and what came.
    """

    mode: str
    address: str | None
    evidence: tuple[Evidence, ...] = ()


def find(probe: Probe, facts: Facts) -> WindowsHost:
    """Find out how this WSL 2 reaches servers on Windows."""
    asked = probe.run(("wslinfo", "--networking-mode"))
    written = None if asked.ok else wslconfig.find(probe, facts).get("networkingMode")
    mode = (asked.text if asked.ok else written or "nat").strip().lower()
    first = (
        evidence_of("wslinfo --networking-mode", asked)
        if asked.ok
        else Evidence(wslconfig.NAME, f"networkingMode={mode}")
    )
    if mode == "none":
        return WindowsHost(mode, None, (first,))
    if mode == "mirrored":
        return WindowsHost(mode, "localhost", (first,))
    routes = probe.run(("ip", "route", "show", "default"))
    gateway = _GATEWAY.search(routes.text)
    return WindowsHost(
        mode,
        gateway[1] if gateway else None,
        (first, evidence_of("ip route show default", routes)),
    )
