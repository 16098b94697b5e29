"""What keeps language models from running well on this machine, and what to type about it.

``examine()`` looks and never changes anything, ``explain()`` says how a check judges. A check
that cannot look says so; nothing raises for what is found.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from guidebook.doctor.checks import gpu, libraries, platform, python, room, toolkit, wsl
from guidebook.doctor.facts import Facts, Need, gather
from guidebook.doctor.live import LiveProbe
from guidebook.doctor.model import GROUPS, Check, Evidence, Finding, Fix, Verdict
from guidebook.doctor.needs import needs_of
from guidebook.doctor.privacy import private_words
from guidebook.doctor.probe import Output, Probe
from guidebook.doctor.recorded import RecordedProbe
from guidebook.doctor.report import Report

__all__ = [
    "Check",
    "Evidence",
    "Facts",
    "Finding",
    "Fix",
    "LiveProbe",
    "Need",
    "Output",
    "Probe",
    "RecordedProbe",
    "Report",
    "Verdict",
    "checks",
    "examine",
    "explain",
]

_LOG = logging.getLogger(__name__)
_MODULES = (platform, wsl, gpu, toolkit, python, libraries, room)


@functools.cache
def checks() -> tuple[Check, ...]:
    """Return all checks in the order in which they are made: what others rest on comes first."""
    return tuple(check for module in _MODULES for check in module.CHECKS)


def examine(
    probe: Probe | None = None, only: Sequence[str] = (), models: Sequence[str] = ()
) -> Report:
    """Make the checks, in at most ten seconds.

    Parameters
    ----------
    probe
        The machine to look at; this one if there is none.
    only
        Ids of checks (``gpu.driver``) or groups (``gpu``) to report on; empty: all. What they
        rest on is looked at too, and reported where it has a problem.
    models
        Names of the model catalog, or ``.gguf`` files, that must find room; empty: one of the
        size that the book starts with.

    Raises
    ------
    LookupError
        There is no such check, group or model; the message names what there is.
    """
    began = time.monotonic()
    asked = _select(only)
    needs = needs_of(models)
    with ExitStack() as stack:
        live = probe if probe is not None else stack.enter_context(LiveProbe())
        findings = _findings(live, needs, _with_prerequisites(asked))
        ids = {check.id for check in asked}
        shown = [one for one in findings if one.check in ids or one.verdict == "problem"]
        titles = {check.id: check.title for check in checks()}
        report = Report(tuple(shown), 0.0, titles, private_words(live))
    return replace(report, seconds=time.monotonic() - began)


def explain(check_id: str) -> str:
    """Say what a check looks at, why, and how it judges.

    Raises
    ------
    LookupError
        There is no such check; the message names what there is.
    """
    if check_id in GROUPS:
        raise LookupError(f"{check_id} is a group. Name one check: {_names(check_id)}.")
    (check,) = _select([check_id])
    rests = f"\n\nRests on: {', '.join(check.depends_on)}." if check.depends_on else ""
    return f"{check.title} ({check.id})\n\n{check.why}\n\n{check.explain.strip()}{rests}"


def _select(only: Sequence[str]) -> tuple[Check, ...]:
    if not only:
        return checks()
    for name in only:
        if name not in GROUPS and all(check.id != name for check in checks()):
            raise LookupError(f"There is no check {name!r}. There are: {_names()}.")
    return tuple(check for check in checks() if check.id in only or check.group in only)


def _names(group: str = "") -> str:
    return ", ".join(check.id for check in checks() if group in ("", check.group))


def _with_prerequisites(asked: Iterable[Check]) -> tuple[Check, ...]:
    by_id = {check.id: check for check in checks()}
    wanted: set[str] = set()
    left = [check.id for check in asked]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left.extend(by_id[name].depends_on)
    return tuple(check for check in checks() if check.id in wanted)


def _findings(probe: Probe, needs: tuple[Need, ...], wanted: Iterable[Check]) -> list[Finding]:
    wanted = tuple(wanted)

    def begin_slow_ones(facts: Facts) -> None:
        for check in wanted:
            for early in check.early:
                if early.when(facts):
                    probe.begin_python(early.code, time_limit=early.time_limit)

    facts = gather(probe, needs, begin_slow_ones)
    found: dict[str, Finding] = {}
    for check in wanted:
        found[check.id] = _root_cause(check, found) or _ask(check, probe, facts)
    return list(found.values())


def _root_cause(check: Check, found: Mapping[str, Finding]) -> Finding | None:
    """Point at the problem that makes a check senseless."""
    for name in check.depends_on:
        before = found[name]
        cause = name if before.verdict == "problem" else before.because
        if cause is not None:
            return Finding(
                check.id,
                "not applicable",
                f"Looked at once {cause} is solved.",
                why=check.why,
                because=cause,
            )
    return None


def _ask(check: Check, probe: Probe, facts: Facts) -> Finding:
    try:
        finding = check.run(probe, facts)
    except Exception as error:
        # A check that meets what nobody foresaw must not take the others with it.
        _LOG.debug("check %s failed", check.id, exc_info=True)
        summary = f"This check failed ({type(error).__name__}); please report it."
        finding = Finding(check.id, "could not tell", summary)
    return finding if finding.why else replace(finding, why=check.why)
