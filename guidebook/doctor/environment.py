"""What kind of Python environment this is, and how to install something into it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from guidebook.doctor.facts import Facts
from guidebook.doctor.model import HERE, POWERSHELL, Fix
from guidebook.doctor.probe import Probe

Kind = Literal["venv", "conda", "system", "own"]


@dataclass(frozen=True)
class Environment:
    """Where this Python's packages go.

    Attributes
    ----------
    kind
        ``system``: the operating system's Python. ``own``: another one without an environment,
        such as pyenv's or one from python.org.
    python
        How to call it here: ``python`` in an active environment, or else its path.
    name
        Of a conda environment; its path if it has no name.
    managed
        Whether the operating system forbids pip to install into it.
    windows
        Whether commands are typed into PowerShell.
    """

    kind: Kind
    python: str = "python"
    name: str = ""
    managed: bool = False
    windows: bool = False

    @property
    def pip(self) -> str:
        """The command that installs into it."""
        return f"{self.python} -m pip"

    @property
    def option(self) -> str:
        """What tells conda that this environment is meant."""
        return f"--prefix {self.name}" if "/" in self.name else f"--name {self.name}"

    @property
    def shell(self) -> str:
        """Where its commands are typed."""
        return POWERSHELL if self.windows else HERE

    def install(self, text: str, *arguments: str, cmake: str = "") -> Fix:
        """Say how to install something into it.

        Parameters
        ----------
        text
            What the commands do.
        arguments
            What follows ``pip``, one command each.
        cmake
            Options for a package that is compiled here.
        """
        commands = [f"{self.pip} {one}" for one in arguments]
        if cmake:
            setting = f'$env:CMAKE_ARGS = "{cmake}"; ' if self.windows else f'CMAKE_ARGS="{cmake}" '
            commands = [setting + one for one in commands]
        if self.managed:
            text += " First make an environment: this Python belongs to the operating system."
            commands = [
                f"{self.python} -m venv .venv",
                "source .venv/bin/activate",
                *(one.replace(self.pip, "python -m pip") for one in commands),
            ]
        return Fix(text, tuple(commands), self.shell)


def find(probe: Probe, facts: Facts) -> Environment:
    """Find out what kind of environment this Python is."""
    platform = probe.platform()
    prefix, windows = platform.prefix, facts.os == "windows"
    if probe.exists(f"{prefix}/conda-meta"):
        active = probe.environment("CONDA_PREFIX") == prefix
        name = probe.environment("CONDA_DEFAULT_ENV") if active else None
        python = _python(active, platform.executable, windows)
        return Environment("conda", python, name or prefix, windows=windows)
    if prefix != platform.base_prefix:
        active = probe.environment("VIRTUAL_ENV") == prefix
        return Environment("venv", _python(active, platform.executable, windows), windows=windows)
    kind: Kind = "system" if prefix == "/usr" and facts.is_linux else "own"
    managed = bool(probe.glob(f"{prefix}/lib/python3*/EXTERNALLY-MANAGED"))
    python = _python(False, platform.executable, windows)
    return Environment(kind, python, managed=managed, windows=windows)


def _python(active: bool, executable: str, windows: bool) -> str:
    if active or not executable:
        return "python"
    if windows:
        # PowerShell takes a quoted path for a text unless it is told to call it.
        return f'& "{executable}"' if " " in executable else executable
    return shlex.quote(executable)
