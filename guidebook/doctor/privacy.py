"""Taking out of a report what names a person or a single computer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guidebook.doctor.probe import Probe

# Names that many computers and people share tell nothing, and stand in other words' places.
_COMMON = {"admin", "debian", "docker", "fedora", "home", "linux", "localhost", "nvidia", "python"}
_COMMON |= {"root", "runner", "ubuntu", "user", "users", "windows"}
_SHORTEST = 3
_NAME_VARIABLES = ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME", "USERDOMAIN")
_RULES = (
    (re.compile(r"(?i)\b(GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4,12}){1,4}"), r"\1-…"),
    (re.compile(r"(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"(?i)\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b"), "<address>"),
    (re.compile(r"(?i)(serial(?:[ _]number)?[\"']?\s*[:=>]\s*)[^\s<,]+"), r"\1<serial>"),
    (re.compile(r"(://)[^/\s@]+@"), r"\1<user>@"),
    (re.compile(r"((?:/mnt)?(?:/[a-z])?/Users/|/home/)[^/\s:;,'\"`]+"), r"\1<user>"),
    (re.compile(r"(?i)([a-z]:\\+Users\\+)[^\\\r\n:;,'\"`<]+"), r"\1<user>"),
)


@dataclass(frozen=True)
class Private:
    """What to take out.

    Attributes
    ----------
    home
        The user's home; shown as ``~``.
    words
        Names of the user and of the computer.
    project
        The folder that the virtual environment lies in; shown as ``.``, which a shell there
        understands.
    """

    home: str = ""
    words: tuple[str, ...] = ()
    project: str = ""

    def shorten(self, text: str) -> str:
        """Write the user's home as ``~``, which a shell understands."""
        if len(self.home) < 2:
            return text
        return re.sub(re.escape(self.home) + r"(?=$|[/\\\s:;,'\")`])", "~", text)

    def remove(self, text: str) -> str:
        """Take out everything that names a person or a computer."""
        if self.project.count("/") > 1:
            text = re.sub(re.escape(self.project) + r"(?=$|[/\\\s:;,'\")`])", ".", text)
        text = self.shorten(text)
        for pattern, instead in _RULES:
            text = pattern.sub(instead, text)
        for word in self.words:
            text = re.sub(rf"(?i)(?<![\w.-]){re.escape(word)}(?![\w-])", "<name>", text)
        return text


def private_words(probe: Probe) -> Private:
    """Find out what names this user and this computer."""
    given = [probe.environment(name) for name in _NAME_VARIABLES]
    given.append(probe.read("/proc/sys/kernel/hostname") or probe.read("/etc/hostname"))
    names = {part for name in given if name for part in (name.strip(), name.strip().split(".")[0])}
    words = {
        name for name in names if len(name) >= _SHORTEST and name.strip().lower() not in _COMMON
    }
    # The longest first: a name may stand inside another.
    platform = probe.platform()
    in_venv = platform.prefix != platform.base_prefix
    return Private(
        platform.home,
        tuple(sorted(words, key=lambda word: (-len(word), word))),
        platform.prefix.rpartition("/")[0] if in_venv else "",
    )
