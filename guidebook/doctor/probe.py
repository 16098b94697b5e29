"""What a check may ask of the outside, and what it gets back.

Nothing here raises for what lies outside: a command that is missing, hangs or prints garbage
comes back as an :class:`Output` that says so. :class:`guidebook.doctor.live.LiveProbe` asks
this machine, :class:`guidebook.doctor.recorded.RecordedProbe` one that was written down.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

COMMAND_SECONDS = 3.0
PYTHON_SECONDS = 8.0
LARGEST_OUTPUT = 1024**2

Status = Literal["ok", "failed", "missing", "not executable", "timed out", "unreadable"]
NO_INPUTS: Mapping[str, str] = MappingProxyType({})

# Output of which a larger share cannot be characters is no text.
_MOST_GARBAGE = 0.05
_GARBAGE = re.compile("[\ufffd\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CODE_NAME = re.compile(r"\s*# doctor: ([\w.-]+)")


@dataclass(frozen=True)
class Output:
    """What came of a command.

    Attributes
    ----------
    status
        ``ok``: it ended with code 0. ``failed``: with another one. ``unreadable``: what it
        printed is no text, or too much.
    text, error
        Standard output and standard error, without white space around them.
    code
        Its exit code; None where it never ended by itself.
    """

    status: Status
    text: str = ""
    error: str = ""
    code: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the command ended well."""
        return self.status == "ok"

    @property
    def both(self) -> str:
        """Standard output, then standard error."""
        return "\n".join(part for part in (self.text, self.error) if part)


@dataclass(frozen=True)
class PlatformFacts:
    """What Python itself knows about where it runs.

    Attributes
    ----------
    system
        As ``sys.platform``: ``linux``, ``darwin``, ``win32``.
    machine, release, version
        As in module ``platform``: ``x86_64``, the kernel's release and its banner.
    python
        Python's version, such as ``3.12.3``.
    prefix, base_prefix, executable
        As in module ``sys``; prefix and base_prefix differ in a virtual environment.
    folder, home
        The working folder (the project's) and the user's home.
    bits
        Size of a pointer of this Python.
    """

    system: str
    machine: str
    release: str = ""
    version: str = ""
    python: str = ""
    prefix: str = ""
    base_prefix: str = ""
    executable: str = ""
    folder: str = ""
    home: str = ""
    bits: int = 64


class Probe(Protocol):
    """The only door to the outside. No method raises, and each has a time limit."""

    @property
    def root(self) -> Path:
        """Where the file system begins, for the readers of :mod:`guidebook.machine`."""

    def begin(self, command: Sequence[str], *, time_limit: float = COMMAND_SECONDS) -> None:
        """Start a slow command now; :meth:`run` takes its result later."""

    def begin_python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> None:
        """Start slow Python code now; :meth:`python` takes its result later."""

    def run(
        self,
        command: Sequence[str],
        *,
        time_limit: float = COMMAND_SECONDS,
        inputs: Mapping[str, str] = NO_INPUTS,
    ) -> Output:
        """Run a command, at most once in a probe's life.

        Parameters
        ----------
        command
            A program and its arguments; no shell sees them.
        time_limit
            Seconds after which it is ended with everything it started.
        inputs
            Texts of files by name. With any, the command runs in a new folder that holds
            them and is removed afterwards.
        """

    def python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> Output:
        """Run code in a child of this interpreter, so that a crash stays there.

        The first line of the code names it for recordings: ``# doctor: torch``. It finds
        ``arguments`` in ``sys.argv[1:]``.
        """

    def read(self, path: str, *, limit: int = LARGEST_OUTPUT) -> str | None:
        """Read a text file, whose path may begin with ``~``; None if that cannot be done."""

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file, folder or device."""

    def glob(self, pattern: str) -> tuple[str, ...]:
        """List the absolute paths that match, in order."""

    def resolve(self, path: str) -> str | None:
        """Follow symbolic links; None if there is no such file or folder."""

    def environment(self, name: str) -> str | None:
        """Return an environment variable."""

    def platform(self) -> PlatformFacts:
        """Return what Python knows about where it runs."""

    def disk(self, path: str) -> tuple[int, int] | None:
        """Return the size and the free bytes of the disk under a path."""

    def connects(self, host: str, port: int, time_limit: float = 1.0) -> bool | None:
        """Tell whether a server accepts a connection; None if it cannot be found out."""


def code_name(code: str) -> str:
    """Return the name that code for :meth:`Probe.python` carries in its first line.

    Raises
    ------
    ValueError
        The first line names nothing.
    """
    found = _CODE_NAME.match(code)
    if found is None:
        raise ValueError("Code for a probe begins with a line such as '# doctor: torch'.")
    return found[1]


def decode(data: bytes) -> str:
    """Turn what a program or file holds into text, whatever its encoding.

    Windows programs print UTF-16, often without the mark that says so: every second byte of
    English text is zero then. Bytes that are no text are replaced.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    elif len(data) > 1 and data[1::2].count(0) > 0.7 * len(data[1::2]) and data[0] != 0:
        text = data.decode("utf-16-le", errors="replace")
    else:
        text = data.decode("utf-8-sig", errors="replace")
    return text.replace("\r\n", "\n").strip(" \t\r\n\0")


def is_text(text: str) -> bool:
    """Tell text from what is left of bytes that never were any."""
    return len(_GARBAGE.findall(text)) <= _MOST_GARBAGE * len(text)
