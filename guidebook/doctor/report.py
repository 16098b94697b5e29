"""What the doctor found, as text, as HTML and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from guidebook import units
from guidebook.doctor.model import VERDICTS, Finding, Fix, Verdict
from guidebook.doctor.privacy import Private

SCHEMA_VERSION = 1
_WIDTH = 96
_INDENT = "         "
_LINES_OF_EVIDENCE = 6
_EXIT_CODES: Mapping[Verdict, int] = {"problem": 2, "warning": 1}
_COUNTS: Mapping[Verdict, tuple[str, str]] = {
    "problem": ("problem", "problems"),
    "warning": ("warning", "warnings"),
    "could not tell": ("could not be told", "could not be told"),
    "ok": ("is fine", "are fine"),
    "not applicable": ("does not apply", "do not apply"),
}
_HEADINGS: Mapping[Verdict, str] = {
    "problem": "Problem",
    "warning": "Warning",
    "could not tell": "Could not tell",
    "ok": "Fine",
    "not applicable": "Not applicable",
}


@dataclass(frozen=True)
class Report:
    """Findings in the order in which the reader should look at them.

    Attributes
    ----------
    findings
        As they were made; what others rest on comes first.
    seconds
        How long it took.
    titles
        What each check is called.
    private
        What to take out before the report leaves this computer.
    """

    findings: tuple[Finding, ...]
    seconds: float
    titles: Mapping[str, str] = field(default_factory=dict)
    private: Private = field(default_factory=Private)

    @property
    def ordered(self) -> tuple[Finding, ...]:
        """Problems first, then warnings; of each, what others rest on comes first."""
        return tuple(sorted(self.findings, key=lambda one: VERDICTS.index(one.verdict)))

    @property
    def first(self) -> Finding | None:
        """The problem to solve first, or the first warning; None if there is neither."""
        return next((one for one in self.ordered if one.verdict in _EXIT_CODES), None)

    @property
    def worst(self) -> Verdict:
        """The verdict that counts for the whole."""
        present = {one.verdict for one in self.findings}
        return next((verdict for verdict in VERDICTS if verdict in present), "not applicable")

    @property
    def exit_code(self) -> int:
        """2 for a problem, 1 for a warning, otherwise 0."""
        return _EXIT_CODES.get(self.worst, 0)

    def of(self, check: str) -> Finding:
        """Return what a check found.

        Raises
        ------
        LookupError
            The report has no such check.
        """
        for one in self.findings:
            if one.check == check:
                return one
        raise LookupError(f"The report has no check {check!r}.")

    def with_verdict(self, verdict: Verdict) -> tuple[Finding, ...]:
        """Return the findings of one verdict."""
        return tuple(one for one in self.findings if one.verdict == verdict)

    def __str__(self) -> str:
        parts = [self._counts()]
        parts += [
            "\n".join(self._full(one))
            for verdict in ("problem", "warning")
            for one in self.with_verdict(verdict)
        ]
        for verdict in ("could not tell", "ok"):
            if lines := self._brief(self.with_verdict(verdict)):
                parts.append("\n".join((f"{_HEADINGS[verdict]}:", *lines)))
        if lines := self._not_applicable():
            parts.append("\n".join(("Not applicable:", *lines)))
        return self.private.shorten("\n\n".join(parts))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        loud = [one for one in self.ordered if one.verdict in ("problem", "warning")]
        quiet = [one for one in self.ordered if one.verdict not in ("problem", "warning")]
        counts = escape(self._counts())
        parts = [f'<div class="guidebook-doctor">\n<p><strong>{counts}</strong></p>']
        if loud:
            parts.append(self._table(loud, "What to do, in this order"))
        if quiet:
            checks = "check" if len(quiet) == 1 else "checks"
            parts.append(
                f"<details{'' if loud else ' open'}><summary>{len(quiet)} {checks} without a "
                f"complaint</summary>\n{self._table(quiet, 'Checks without a complaint')}</details>"
            )
        return "\n".join((*parts, "</div>"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without anything that names a person or a computer."""
        clean = self.private.remove
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.worst,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "findings": [self._plain(one, clean) for one in self.ordered],
        }

    def _plain(self, one: Finding, clean: Callable[[str], str]) -> dict[str, Any]:
        fix = one.fix and {
            "text": clean(one.fix.text),
            "commands": [clean(command) for command in one.fix.commands],
            "where": one.fix.where,
        }
        return {
            "check": one.check,
            "title": self._title(one),
            "verdict": one.verdict,
            "summary": clean(one.summary),
            "why": clean(one.why),
            "evidence": [
                {"source": clean(seen.source), "text": clean(seen.text)} for seen in one.evidence
            ],
            "fix": fix,
            "because": one.because,
        }

    def _title(self, one: Finding) -> str:
        return self.titles.get(one.check, one.check)

    def _counts(self) -> str:
        parts = []
        for verdict, (single, several) in _COUNTS.items():
            count = len(self.with_verdict(verdict))
            if count or verdict == "problem":
                words = single if count == 1 else several
                parts.append(f"{count or 'no'} {words}")
        text = ", ".join(parts)
        return f"{text[:1].upper()}{text[1:]} ({units.duration(self.seconds)})."

    def _full(self, one: Finding) -> Iterator[str]:
        yield f"{one.verdict.upper():<9}{self._title(one)}  [{one.check}]"
        yield from _wrap(one.summary, _INDENT)
        if one.why:
            yield from _wrap(f"Why it matters: {one.why}", _INDENT)
        for seen in one.evidence:
            yield from _seen(seen.source, seen.text)
        if one.fix:
            yield from _fix(one.fix)

    def _brief(self, findings: Sequence[Finding]) -> list[str]:
        width = max((len(one.check) for one in findings), default=0)
        lines: list[str] = []
        for one in findings:
            lines += _wrap(one.summary, f"  {one.check:<{width}}  ")
        return lines

    def _not_applicable(self) -> list[str]:
        """Name the checks by reason: most of them share one."""
        reasons: dict[str, list[str]] = {}
        for one in self.with_verdict("not applicable"):
            reasons.setdefault(one.summary, []).append(one.check)
        return [
            line
            for reason, names in reasons.items()
            for line in _wrap(f"{reason.rstrip('.')}: {', '.join(names)}", "  ")
        ]

    def _table(self, findings: Sequence[Finding], caption: str) -> str:
        head = "".join(
            f'<th scope="col" style="text-align: left">{name}</th>'
            for name in ("Verdict", "Check", "Finding")
        )
        rows = "\n".join(self._row(one) for one in findings)
        return (
            f'<table class="guidebook-table">\n<caption>{caption}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
        )

    def _row(self, one: Finding) -> str:
        clean = self.private.remove
        body = [f"<div>{escape(clean(one.summary))}</div>"]
        if one.verdict in ("problem", "warning"):
            body.append(f"<div>Why it matters: {escape(clean(one.why))}</div>")
        body += [
            f"<details><summary>Seen in {escape(clean(seen.source))}</summary>"
            f"<pre>{escape(clean(seen.text))}</pre></details>"
            for seen in one.evidence
        ]
        if one.fix:
            body.append(
                f"<div>Fix, in {escape(one.fix.where)}: {escape(clean(one.fix.text))}</div>"
            )
            if one.fix.commands:
                commands = "\n".join(escape(clean(command)) for command in one.fix.commands)
                body.append(f"<pre><code>{commands}</code></pre>")
        css = one.verdict.replace(" ", "-")
        return (
            f'<tr><td class="verdict verdict-{css}" style="text-align: left">'
            f"{_HEADINGS[one.verdict]}</td>"
            f'<th scope="row" style="text-align: left">{escape(self._title(one))}<br>'
            f"<code>{one.check}</code></th>"
            f'<td style="text-align: left">{"".join(body)}</td></tr>'
        )


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _seen(source: str, text: str) -> Iterator[str]:
    lines = text.splitlines() or [""]
    if len(lines) == 1 and len(source) + len(text) < _WIDTH - 20:
        yield f"{_INDENT}Seen in {source}: {lines[0]}"
        return
    yield f"{_INDENT}Seen in {source}:"
    for line in lines[:_LINES_OF_EVIDENCE]:
        yield f"{_INDENT}  | {line[: _WIDTH - 4]}"
    rest = len(lines) - _LINES_OF_EVIDENCE
    if rest > 0:
        yield f"{_INDENT}  | … {rest} more line{'s' if rest > 1 else ''}"


def _fix(fix: Fix) -> Iterator[str]:
    yield from _wrap(f"Fix, in {fix.where}: {fix.text}", _INDENT)
    for command in fix.commands:
        for line in command.splitlines():
            yield f"{_INDENT}    {line}"
