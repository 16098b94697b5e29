"""The ledger of claims: what the guide says, and how a chapter finds out whether it is so.

A claim's *criterion* is a short expression over named evidence, kept beside the claim in
``claims.toml``: ``decode_tokens_per_second <= 1.05 * bound_tokens_per_second``. It is a pure
function by construction: the evaluator below knows comparison, arithmetic and a few
aggregates, and nothing that reads or changes the world. A new claim is a new entry in the
ledger, not new code.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidebook.tables import Table

Evidence = float | bool | Sequence[float] | None
"""One piece of evidence: a number, a truth value, a series of numbers, or ``None`` (unknown)."""


class ClaimError(ValueError):
    """A ledger entry or a call that judges a claim is not well-formed."""


class Outcome(StrEnum):
    """What came out for a claim on this machine."""

    HELD = "held"
    REFUTED = "refuted"
    NOT_TESTED = "not tested here"


@dataclass(frozen=True)
class Example:
    """Evidence together with the outcome it must lead to: the criterion's own test."""

    evidence: Mapping[str, Evidence]
    outcome: Outcome


@dataclass(frozen=True)
class Claim:
    """One checkable statement of the guide.

    Attributes
    ----------
    id
        Unique name, starting with the chapter's number.
    chapter
        The one notebook that judges the claim (its file name without suffix).
    section
        The guide's section that makes the statement.
    guide
        The guide's words.
    statement
        What is tested, as one sentence with a subject and a figure.
    needs
        What a machine must have for the test.
    criterion
        Expression over the evidence that is true when the claim holds.
    evidence
        Name of each piece of evidence and its unit.
    examples
        Evidence with known outcomes; the unit tests run them.
    """

    id: str
    chapter: str
    section: str
    guide: str
    statement: str
    needs: str
    criterion: str
    evidence: Mapping[str, str]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The outcome for one claim, with the evidence it rests on."""

    claim: Claim
    outcome: Outcome
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    because: str = ""

    def __str__(self) -> str:
        lines = [f"{self.outcome.value.upper()}: {self.claim.statement}"]
        lines += [f"  {text}" for text in self._evidence_lines()]
        if self.because:
            lines.append(f"  {self.because}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        css = self.outcome.name.lower().replace("_", "-")
        evidence = "".join(f"<li>{escape(text)}</li>" for text in self._evidence_lines())
        because = f"<p>{escape(self.because)}</p>" if self.because else ""
        return (
            f'<div class="verdict {css}"><p><strong class="verdict-badge">'
            f"{escape(self.outcome.value)}</strong> {escape(self.claim.statement)}</p>"
            f"{f'<ul>{evidence}</ul>' if evidence else ''}{because}</div>"
        )

    def _evidence_lines(self) -> list[str]:
        return [
            f"{name.replace('_', ' ')}: {_shown(value, self.claim.evidence.get(name, ''))}"
            for name, value in self.evidence.items()
        ]


def judge(claim_id: str, evidence: Mapping[str, Evidence]) -> Verdict:
    """Judge a claim on measured evidence.

    Parameters
    ----------
    claim_id
        An id of the ledger.
    evidence
        A value for every piece of evidence that the ledger names. ``None`` or NaN means "could
        not be measured": the claim is then *not tested here*, never held or refuted.

    Raises
    ------
    ClaimError
        The id is unknown, or the evidence is not what the ledger asks for.
    """
    claim = find(claim_id)
    _check_names(claim, evidence)
    missing = [name for name, value in evidence.items() if _is_unknown(value)]
    if missing:
        names = ", ".join(name.replace("_", " ") for name in missing)
        return Verdict(
            claim,
            Outcome.NOT_TESTED,
            dict(evidence),
            f"Not measured: {names}. It needs {claim.needs}.",
        )
    held = evaluate(claim.criterion, evidence)
    return Verdict(claim, Outcome.HELD if held else Outcome.REFUTED, dict(evidence))


def not_tested(claim_id: str, because: str) -> Verdict:
    """Say that a claim could not be tested here, and why."""
    claim = find(claim_id)
    return Verdict(claim, Outcome.NOT_TESTED, {}, f"{because} It needs {claim.needs}.")


def find(claim_id: str) -> Claim:
    """Return the claim with this id; an unknown id raises :class:`ClaimError`."""
    known = ledger()
    if claim_id not in known:
        close = difflib.get_close_matches(claim_id, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ClaimError(f"There is no claim {claim_id!r} in claims.toml.{hint}")
    return known[claim_id]


def of_chapter(chapter_id: str) -> list[Claim]:
    """Return the claims that a chapter judges, in the ledger's order."""
    return [claim for claim in ledger().values() if claim.chapter == chapter_id]


def show(chapter_id: str) -> Table:
    """Lay out what a chapter will test; an unknown chapter raises :class:`ClaimError`."""
    from guidebook.tables import table

    found = of_chapter(chapter_id)
    if not found:
        raise ClaimError(f"The ledger has no claims for a chapter {chapter_id!r}.")
    return table(
        [
            {"claim": claim.statement, "the guide says": claim.guide, "needs": claim.needs}
            for claim in found
        ]
    )


@cache
def ledger() -> Mapping[str, Claim]:
    """Return all claims of the book by id, in the ledger's order."""
    return parse(files("guidebook").joinpath("claims.toml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Claim]:
    """Read a ledger from TOML text; a malformed entry raises :class:`ClaimError`."""
    claims: dict[str, Claim] = {}
    for entry in tomllib.loads(text).get("claim", []):
        claim = _claim(entry)
        if claim.id in claims:
            raise ClaimError(f"The claim {claim.id!r} stands in the ledger twice.")
        claims[claim.id] = claim
    return claims


def _claim(entry: Mapping[str, Any]) -> Claim:
    name = entry.get("id", "without id")
    try:
        claim = Claim(
            id=entry["id"],
            chapter=entry["chapter"],
            section=entry["section"],
            guide=entry["guide"],
            statement=entry["statement"],
            needs=entry["needs"],
            criterion=entry["criterion"],
            evidence=dict(entry["evidence"]),
            examples=tuple(
                Example(example["evidence"], Outcome(example["outcome"]))
                for example in entry.get("example", [])
            ),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ClaimError(f"The claim {name!r} is incomplete: {error}.") from error
    used = names_in(claim.criterion)
    if used != set(claim.evidence):
        odd = ", ".join(sorted(used ^ set(claim.evidence)))
        raise ClaimError(f"The claim {name!r}: criterion and evidence differ in {odd}.")
    return claim


def _check_names(claim: Claim, evidence: Mapping[str, Evidence]) -> None:
    if set(evidence) != set(claim.evidence):
        wanted = ", ".join(claim.evidence)
        given = ", ".join(evidence) or "nothing"
        raise ClaimError(f"The claim {claim.id!r} asks for {wanted}; given: {given}.")


def _is_unknown(value: Evidence) -> bool:
    if value is None:
        return True
    if isinstance(value, Sequence):
        return len(value) == 0 or any(_is_unknown(item) for item in value)
    return math.isnan(value)


def _shown(value: Evidence, unit: str) -> str:
    from guidebook import units

    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence):
        return ", ".join(units.number(item) for item in value) + f" {unit}"
    return units.quantity(value, unit).strip()


# --- the criterion language -----------------------------------------------------------------

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "len": len}


def evaluate(criterion: str, evidence: Mapping[str, Evidence]) -> bool:
    """Evaluate a criterion on complete evidence.

    The language: numbers, evidence names, ``+ - * /``, comparisons, ``and``, ``or``, ``not``,
    and ``abs``, ``min``, ``max``, ``len``. Anything else raises :class:`ClaimError`.
    """
    value = _value(_parsed(criterion).body, evidence)
    if not isinstance(value, bool):
        raise ClaimError(f"The criterion {criterion!r} is a number, not a comparison.")
    return value


def names_in(criterion: str) -> set[str]:
    """Return the evidence names that a criterion uses."""
    tree = _parsed(criterion)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names - set(_FUNCTIONS)


def _parsed(criterion: str) -> ast.Expression:
    try:
        return ast.parse(criterion, mode="eval")
    except SyntaxError as error:
        raise ClaimError(f"The criterion {criterion!r} is not an expression.") from error


def _value(node: ast.expr, evidence: Mapping[str, Evidence]) -> Any:  # noqa: ANN401 - a small interpreter returns what the expression does
    match node:
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.Name(id=name) if name in evidence:
            return evidence[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, evidence), _value(right, evidence))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand, evidence))
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, evidence) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_value(part, evidence) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(op) in _OPERATORS for op in ops
        ):
            values = [_value(part, evidence) for part in (left, *comparators)]
            pairs = zip(ops, values, values[1:], strict=False)
            return all(bool(_OPERATORS[type(op)](a, b)) for op, a, b in pairs)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(arg, evidence) for arg in args))
    raise ClaimError(f"A criterion cannot hold {ast.unparse(node)!r}.")
