"""A machine that was written down: for tests, and for readers who do not have it.

One TOML file is one machine::

    about = "Ubuntu 24.04 in WSL2, no NVIDIA driver in Windows"
    [platform]              # the fields of PlatformFacts
    system = "linux"
    machine = "x86_64"
    [commands]              # what a command prints; or a table with the fields of Output
    "nvcc --version" = "…"
    "nvidia-smi *" = { status = "failed", code = 9, text = "NVIDIA-SMI has failed because …" }
    [python]                # the same, by the name in the code's first line
    nvml = { status = "failed", error = "…" }
    [files]                 # a text; or { text = "…", encoding = "utf-16" }, { link = "…" }
    "/proc/version" = "Linux version …"
    "/dev/dxg" = ""
    [environment]
    PATH = "/usr/bin"
    [disks]                 # size and free bytes of the disk under a folder
    "/" = [1000000000, 500000000]
    [connects]
    "huggingface.co:443" = false

A text may stand in a file beside it: ``{ file = "../evidence/smi.xml" }``. A command that is
not written down is missing, a file is not there.
"""

# ruff: noqa: ARG002 - a record answers at once, so it has no use for time limits

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from guidebook.doctor.live import LiveProbe
from guidebook.doctor.probe import (
    COMMAND_SECONDS,
    LARGEST_OUTPUT,
    NO_INPUTS,
    PYTHON_SECONDS,
    Output,
    PlatformFacts,
    code_name,
)

_KEYS = {"about", "source", "platform", "commands", "python", "files", "environment", "disks"}
_KEYS |= {"connects", "expected"}


class RecordedProbe:
    """Answers from a record.

    Parameters
    ----------
    record
        What the TOML file holds.
    folder
        Where texts in files of their own are looked for.
    """

    def __init__(self, record: Mapping[str, Any], folder: Path = Path()) -> None:
        if unknown := sorted(set(record) - _KEYS):
            raise ValueError(f"A record of a machine has no part {unknown[0]!r}.")
        self.about = str(record.get("about", ""))
        self._source = folder
        platform = {"home": "/home/me", "folder": "/home/me/book", **record.get("platform", {})}
        self._platform = PlatformFacts(**platform)
        self._commands = record.get("commands", {})
        self._python = record.get("python", {})
        self._environment = record.get("environment", {})
        self._disks = record.get("disks", {})
        self._connects = record.get("connects", {})
        self._keep = tempfile.TemporaryDirectory(prefix="guidebook-recorded-")
        self._files = LiveProbe(root=Path(self._keep.name).resolve())
        for path, entry in record.get("files", {}).items():
            self._write(self.root / self._absolute(path).lstrip("/"), entry)

    @classmethod
    def load(cls, path: Path) -> RecordedProbe:
        """Read the record in a file.

        Raises
        ------
        ValueError
            The file is no record.
        """
        return cls(tomllib.loads(path.read_text("utf-8")), path.parent)

    @property
    def root(self) -> Path:
        """The folder in which the recorded files lie."""
        return self._files.root

    def begin(self, command: Sequence[str], *, time_limit: float = COMMAND_SECONDS) -> None:
        """Do nothing: a record answers at once."""

    def begin_python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> None:
        """Do nothing: a record answers at once."""

    def run(
        self,
        command: Sequence[str],
        *,
        time_limit: float = COMMAND_SECONDS,
        inputs: Mapping[str, str] = NO_INPUTS,
    ) -> Output:
        """Return what the command printed."""
        line = " ".join(command)
        if line in self._commands:
            return self._output(self._commands[line])
        for start, entry in self._commands.items():
            if start.endswith("*") and line.startswith(start[:-1].rstrip()):
                return self._output(entry)
        return Output("missing")

    def python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> Output:
        """Return what the code printed."""
        name = code_name(code)
        return self._output(self._python[name]) if name in self._python else Output("missing")

    def read(self, path: str, *, limit: int = LARGEST_OUTPUT) -> str | None:
        """Read a recorded file."""
        return self._files.read(self._absolute(path), limit=limit)

    def exists(self, path: str) -> bool:
        """Tell whether a file or folder was recorded."""
        return self._files.exists(self._absolute(path))

    def glob(self, pattern: str) -> tuple[str, ...]:
        """List the recorded paths that match."""
        return self._files.glob(self._absolute(pattern))

    def resolve(self, path: str) -> str | None:
        """Follow recorded links."""
        return self._files.resolve(self._absolute(path))

    def environment(self, name: str) -> str | None:
        """Return a recorded variable."""
        value = self._environment.get(name)
        return None if value is None else str(value)

    def platform(self) -> PlatformFacts:
        """Return what was recorded."""
        return self._platform

    def disk(self, path: str) -> tuple[int, int] | None:
        """Return the size and the free bytes of the recorded disk that holds a path."""
        place = PurePosixPath(self._absolute(path))
        holding = [disk for disk in self._disks if place.is_relative_to(disk)]
        if not holding:
            return None
        total, free = self._disks[max(holding, key=len)]
        return int(total), int(free)

    def connects(self, host: str, port: int, time_limit: float = 1.0) -> bool | None:
        """Tell whether the recorded server answered."""
        value = self._connects.get(f"{host}:{port}")
        return None if value is None else bool(value)

    def _absolute(self, path: str) -> str:
        return self._platform.home + path[1:] if path == "~" or path.startswith("~/") else path

    def _text(self, entry: Mapping[str, object]) -> str:
        if "file" in entry:
            return (self._source / str(entry["file"])).read_text("utf-8")
        return str(entry.get("text", ""))

    def _output(self, entry: str | Mapping[str, Any]) -> Output:
        if isinstance(entry, str):
            return Output("ok", entry.strip(), code=0)
        status = entry.get("status", "ok")
        code = entry.get("code", 0 if status == "ok" else None)
        return Output(status, self._text(entry).strip(), str(entry.get("error", "")), code)

    def _write(self, path: Path, entry: str | Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, str):
            path.write_text(entry, "utf-8")
        elif "link" in entry:
            path.symlink_to(self.root / str(entry["link"]).lstrip("/"))
        else:
            path.write_bytes(self._text(entry).encode(entry.get("encoding", "utf-8")))
