"""Every claim is well-formed and judged by one chapter; its criterion does what it should."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import claims
from guidebook.claims import ClaimError, Outcome

LEDGER = claims.ledger()
EXAMPLES = [(claim.id, example) for claim in LEDGER.values() for example in claim.examples]


@pytest.mark.parametrize(("claim_id", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_criterion_gives_the_outcome_that_the_example_states(claim_id, example):
    assert claims.judge(claim_id, example.evidence).outcome is example.outcome


@pytest.mark.parametrize("claim", LEDGER.values(), ids=list(LEDGER))
def test_a_claim_has_an_example_that_holds_and_one_that_is_refuted(claim):
    outcomes = {example.outcome for example in claim.examples}
    assert {Outcome.HELD, Outcome.REFUTED} <= outcomes


@pytest.mark.parametrize("claim", LEDGER.values(), ids=list(LEDGER))
def test_unknown_evidence_is_never_a_verdict(claim):
    evidence = dict(claim.examples[0].evidence)
    for name in evidence:
        for unknown in (None, math.nan, [1.0, None], []):
            verdict = claims.judge(claim.id, {**evidence, name: unknown})
            assert verdict.outcome is Outcome.NOT_TESTED
            assert claim.needs in verdict.because


def _judging_calls(notebook: Path) -> list[ast.Call]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("judge", "not_tested")
    ]


def test_each_claim_is_judged_by_exactly_its_chapter(root):
    judged = {
        (notebook.stem, call.args[0].value)
        for notebook in (root / "notebooks").glob("*.ipynb")
        for call in _judging_calls(notebook)
    }
    assert judged == {(claim.chapter, claim.id) for claim in LEDGER.values()}
    assert max(Counter(claim_id for _, claim_id in judged).values()) == 1


def test_no_chapter_passes_a_constant_as_evidence(root):
    constants = [
        f"{notebook.name}: {ast.unparse(call)}"
        for notebook in (root / "notebooks").glob("*.ipynb")
        for call in _judging_calls(notebook)
        if call.func.attr == "judge"
        for keyword in call.keywords
        if not any(isinstance(node, ast.Name) for node in ast.walk(keyword.value))
    ]
    assert constants == []


def test_the_guide_is_quoted_and_a_section_is_named():
    for claim in LEDGER.values():
        assert len(claim.guide) > 10
        assert claim.section


def test_a_chapters_claims_are_shown_with_the_guides_words_and_what_they_need():
    text = str(claims.show("42-quantization-gguf"))
    for claim in claims.of_chapter("42-quantization-gguf"):
        assert claim.statement in text
        assert claim.guide in text
    with pytest.raises(ClaimError, match="no claims for a chapter '99-none'"):
        claims.show("99-none")


def test_an_unknown_claim_names_the_nearest_one():
    with pytest.raises(ClaimError, match="Did you mean '42-four-bits-faster'"):
        claims.judge("42-four-bits-fast", {})


def test_missing_and_extra_evidence_are_refused():
    with pytest.raises(ClaimError, match="asks for q4_k_m_bytes, f16_bytes; given: nothing"):
        claims.judge("42-four-bits-shrink", {})
    with pytest.raises(ClaimError, match="asks for"):
        claims.judge("42-four-bits-shrink", {"q4_k_m_bytes": 1, "f16_bytes": 2, "more": 3})


@pytest.mark.parametrize(
    "criterion",
    [
        "__import__('os')",
        "x.real > 1",
        "x[0] > 1",
        "(lambda: 1)() > 0",
        "x ** 9 > 1",
        "'a' > x",
        "x",
    ],
)
def test_a_criterion_can_do_nothing_but_compare_numbers(criterion):
    with pytest.raises(ClaimError):
        claims.evaluate(criterion, {"x": 2.0})


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_criterion_language_agrees_with_python(a, b, c):
    evidence = {"a": a, "b": b, "c": c}
    for text in ("a < b <= c", "a + 2 * b > c or not a >= c", "max(a, b) == abs(c) and a != b"):
        expected = eval(text, {"max": max, "abs": abs}, evidence)
        assert claims.evaluate(text, evidence) is expected


GOOD = """
[[claim]]
id = "11-x"
chapter = "11-your-machine"
section = "S"
guide = "the guide's words"
statement = "A sentence."
needs = "nothing"
criterion = "a > 1"
[claim.evidence]
a = "s"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD, "twice"),
        (GOOD.replace('criterion = "a > 1"', 'criterion = "b > 1"'), "differ in a, b"),
        (GOOD.replace('needs = "nothing"\n', ""), "incomplete: 'needs'"),
        (GOOD.replace("a > 1", "a >"), "not an expression"),
    ],
)
def test_a_malformed_ledger_is_refused_with_the_claims_name(text, message):
    with pytest.raises(ClaimError, match=message):
        claims.parse(text)


def test_a_verdict_says_its_outcome_and_evidence_in_text_and_html():
    verdict = claims.judge("42-four-bits-shrink", {"q4_k_m_bytes": 90e6, "f16_bytes": 300e6})
    assert str(verdict).startswith("HELD: A 4-bit K-quant")
    assert "300,000,000 bytes" in str(verdict)
    assert 'class="verdict held"' in verdict._repr_html_()
