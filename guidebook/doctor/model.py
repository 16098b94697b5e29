"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from guidebook.doctor.facts import Facts
from guidebook.doctor.probe import Output, Probe

Verdict = Literal["ok", "warning", "problem", "not applicable", "could not tell"]
Group = Literal["platform", "wsl", "gpu", "toolkit", "python", "libraries", "room"]

VERDICTS: tuple[Verdict, ...] = ("problem", "warning", "could not tell", "ok", "not applicable")
GROUPS: tuple[Group, ...] = ("platform", "wsl", "gpu", "toolkit", "python", "libraries", "room")

HERE = "this shell"
POWERSHELL = "Windows PowerShell"
ADMINISTRATOR = "Windows PowerShell as administrator"
BIOS = "BIOS"
HOST = "the host of this container"
EDITOR = "a text editor"
_LONGEST_EVIDENCE = 400


@dataclass(frozen=True)
class Fix:
    """What the reader does about it. The doctor never does it.

    Attributes
    ----------
    text
        What the commands do, or what to do where there is no command: one or two sentences.
    commands
        To be typed one after the other, ready for this system.
    where
        Where to type them.
    """

    text: str
    commands: tuple[str, ...] = ()
    where: str = HERE


@dataclass(frozen=True)
class Evidence:
    """What was read, and where: the least that lets a reader see the finding for themselves."""

    source: str
    text: str


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check
        The check's id.
    summary
        One sentence with the figures that matter.
    why
        Why it matters; empty: as the check says.
    because
        The id of the check that found the root cause, where this one could not look.
    """

    check: str
    verdict: Verdict
    summary: str
    evidence: tuple[Evidence, ...] = ()
    why: str = ""
    fix: Fix | None = None
    because: str | None = None


@dataclass(frozen=True)
class Early:
    """A slow thing that a check will ask for, to be started before the first check runs.

    Attributes
    ----------
    code
        Code for :meth:`Probe.python`.
    when
        Tells whether this machine needs it at all.
    """

    code: str
    when: Callable[[Facts], bool] = field(default=lambda _: True)
    time_limit: float = 8.0


@dataclass(frozen=True)
class Check:
    """One question about the machine.

    Attributes
    ----------
    id
        ``group.name``, such as ``gpu.driver``.
    why
        Why the answer matters, one sentence.
    depends_on
        Checks, listed before this one, without which the question makes no sense. If one of
        them finds a problem, this one is not asked.
    run
        Looks. What it cannot find out is the verdict ``could not tell``.
    explain
        What the check reads, how it judges, and where that comes from.
    """

    id: str
    title: str
    group: Group
    why: str
    run: Callable[[Probe, Facts], Finding]
    explain: str
    depends_on: tuple[str, ...] = ()
    early: tuple[Early, ...] = ()


def evidence_of(command: str, output: Output) -> Evidence:
    """Quote what a command said, or how it failed."""
    said = output.text if output.ok else output.both
    how = "" if output.ok else f"[{output.status}] "
    return quote(command, how + said)


def quote(source: str, text: str) -> Evidence:
    """Quote a text, shortened where it is long."""
    text = text.strip()
    short = text if len(text) <= _LONGEST_EVIDENCE else text[:_LONGEST_EVIDENCE].rstrip() + " …"
    return Evidence(source, short or "(nothing)")


def could_not_tell(check: str, command: str, output: Output) -> Finding:
    """Say that a command gave no answer, and how."""
    how = {
        "ok": "gave an answer that makes no sense here",
        "failed": "failed",
        "missing": "is not installed",
        "not executable": "cannot be started",
        "timed out": "did not answer in time",
        "unreadable": "printed something that is no text",
    }[output.status]
    return Finding(check, "could not tell", f"`{command}` {how}.", (evidence_of(command, output),))
