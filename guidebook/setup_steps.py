"""The steps of a set-up: which ones this system takes, and how far it has come.

A Mac, native Linux, WSL 2 and Windows take different steps to the same end. Each step is a
handful of the doctor's checks; a step of another system is named and not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from guidebook.doctor import Facts, LiveProbe, Probe, Report, examine
from guidebook.doctor.facts import gather
from guidebook.doctor.model import VERDICTS
from guidebook.doctor.wslconfig import profile

if TYPE_CHECKING:
    from guidebook.tables import Table

TITLES: Mapping[str, str] = {
    "system": "Know the system",
    "virtualization": "Switch on virtualization",
    "wsl": "Install WSL 2 and Ubuntu",
    "driver": "Install the NVIDIA driver",
    "toolkit": "Install the CUDA toolkit",
    "paths": "Set the search paths",
    "verify": "Compile and run",
    "memory": "Give it enough memory",
    "disk": "Choose the right disk",
    "network": "Reach a server on Windows",
}

_SYSTEM = ("platform.system", "platform.container", "platform.kernel", "platform.c-library")
_WSL = ("wsl.version", "wsl.windows", "wsl.kernel", "wsl.systemd")
_DRIVER = ("gpu.nvidia-smi", "gpu.nvml", "gpu.driver", "gpu.capability")
_WSL_DRIVER = ("wsl.linux-driver", "wsl.dxg", "wsl.libcuda")
_TOOLKIT: Mapping[str, tuple[str, ...]] = {
    "toolkit": ("toolkit.nvcc", "toolkit.packages", "toolkit.driver", "toolkit.capability"),
    "paths": ("toolkit.paths", "toolkit.compiler"),
    "verify": ("toolkit.compile",),
}
_ROOM: Mapping[str, tuple[str, ...]] = {
    "memory": ("room.ram", "room.swap"),
    "disk": ("room.disk",),
}
_WSL_ROOM: Mapping[str, tuple[str, ...]] = {
    "memory": ("wsl.config", "wsl.memory", "wsl.processors", "wsl.swap"),
    "disk": ("wsl.folder", "room.disk"),
    "network": ("wsl.network",),
}


@dataclass(frozen=True)
class Look:
    """What the doctor finds about one step, now.

    Attributes
    ----------
    step
        The step's name.
    system
        The system that was looked at, as a phrase.
    report
        None where the system does not take this step.
    """

    step: str
    system: str
    report: Report | None

    def says(self, check: str) -> bool | None:
        """Tell whether a check is fine (True) or found a problem (False); None: neither."""
        verdicts = {} if self.report is None else {one.check: one for one in self.report.findings}
        found = verdicts.get(check)
        return {"ok": True, "problem": False}.get(found.verdict) if found else None

    def __str__(self) -> str:
        return self._no_step() if self.report is None else str(self.report)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if self.report is None:
            return f"<p>{escape(self._no_step())}</p>"
        return self.report._repr_html_()

    def _no_step(self) -> str:
        return f"“{TITLES[self.step]}” is no step of yours: this is {self.system}."


@dataclass(frozen=True)
class Setup:
    """The steps of one system.

    Attributes
    ----------
    facts
        What the doctor knows of the machine.
    system
        What it is, as a phrase.
    steps
        The doctor's checks by the step's name, in the order in which they are taken.
    windows_folder
        In WSL, a folder on Windows' disk that this user may write to; None if there is none.
    """

    facts: Facts
    system: str
    steps: Mapping[str, tuple[str, ...]]
    windows_folder: str | None = None

    def look(self, step: str, probe: Probe | None = None) -> Look:
        """Look at one step, now; a step of another system is not looked at.

        Raises
        ------
        LookupError
            There is no such step; the message names those there are.
        """
        if step not in TITLES:
            raise LookupError(f"There is no step {step!r}. There are: {', '.join(TITLES)}.")
        wanted = self.steps.get(step)
        return Look(step, self.system, examine(probe, only=wanted) if wanted else None)

    def overview(self, probe: Probe | None = None) -> Table:
        """Look at all steps at once and lay out where each of them stands."""
        from guidebook.tables import table

        report = examine(probe, only=[check for checks in self.steps.values() for check in checks])
        rows = []
        for number, (step, checks) in enumerate(self.steps.items(), 1):
            found = [report.of(check) for check in checks]
            worst = min(found, key=lambda one: VERDICTS.index(one.verdict))
            rows.append(
                {
                    "no.": str(number),
                    "step": TITLES[step],
                    "doctor": worst.verdict,
                    "what it says": report.private.remove(worst.summary),
                }
            )
        return table(rows, caption=f"Your steps: {self.system}")


def here() -> Setup:
    """Work out which steps this machine takes."""
    with LiveProbe() as probe:
        return of(probe)


def of(probe: Probe) -> Setup:
    """Work out which steps a machine takes."""
    facts = gather(probe)
    nvidia = facts.nvidia_expected is not False
    # Known to have none, or unknown on a system where the GPU would show itself.
    if facts.nvidia_expected is None and not facts.in_wsl and facts.os != "windows":
        nvidia = False
    steps: dict[str, tuple[str, ...]] = {"system": _SYSTEM}
    if facts.os == "windows":
        steps["virtualization"] = ("platform.virtualization",)
        steps["wsl"] = ("wsl.installed", "wsl.windows")
        if nvidia:
            steps["driver"] = ("gpu.nvidia-smi", "gpu.driver")
        return Setup(facts, _phrase("Windows, outside of WSL", facts), steps)
    if facts.in_wsl:
        steps["virtualization"] = ("platform.virtualization",)
        steps["wsl"] = _WSL
        if nvidia:
            steps |= {"driver": (*_WSL_DRIVER, *_DRIVER), **_TOOLKIT}
        steps |= _WSL_ROOM
        name = "WSL 2" if facts.os == "wsl2" else "WSL 1"
        return Setup(facts, _phrase(name, facts), steps, _windows_folder(probe, facts))
    if facts.is_linux and nvidia:
        inside = ("gpu.container",) if facts.container else ()
        steps |= {"driver": (*inside, *_DRIVER), **_TOOLKIT}
    if facts.is_linux:
        name = "a Linux container" if facts.container else "Linux, outside of Windows"
        return Setup(facts, _phrase(name, facts), {**steps, **_ROOM})
    return Setup(facts, "a Mac" if facts.is_mac else "another system", {**steps, **_ROOM})


def _phrase(name: str, facts: Facts) -> str:
    return name + {
        True: ", with an NVIDIA GPU",
        False: ", without an NVIDIA GPU",
        None: ", with no NVIDIA GPU found",
    }.get(facts.nvidia_expected, "")


def _windows_folder(probe: Probe, facts: Facts) -> str | None:
    user = profile(probe, facts)
    folder = f"{user}/AppData/Local/Temp" if user else None
    return folder if folder and probe.exists(folder) else None
