"""The decider's controls show what the function says, and a page without them shows a table."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from guidebook import decide, plan, units
from guidebook.catalog.clouds import Offer
from guidebook.decide import Terms, cells, workloads
from guidebook.widgets import decider
from guidebook.widgets.decider import Decider, Question

GUIDES = plan.rig("GeForce RTX 3080 10GB", 1, "DDR4-3200 dual channel (2x64-bit)", 32 * units.GIB)
LARGE = plan.rig("RTX A6000")
DAY = datetime.date(2026, 11, 1)
TERMS = Terms(
    tuple(
        Offer(gpu, "a provider", "on-demand", usd, usd, DAY, "by hand")
        for gpu, usd in {"GeForce RTX 4090": 0.5, "RTX A6000": 0.6, "H100 SXM5 80GB": 3.0}.items()
    )
)
FIRST = Question("guide's", "70B inference")


def controls(question: Question = FIRST, **options) -> Decider:
    return Decider({"guide's": GUIDES, "large": LARGE}, TERMS, question, **options)


def test_the_controls_show_the_first_question_and_its_answer() -> None:
    shown = controls()
    found = decide.decide(workloads.INFERENCE_70B, GUIDES, TERMS)
    assert shown.question == replace(FIRST, usd_per_kwh=TERMS.usd_per_kwh)
    assert decider.explain(found)._repr_html_() in shown.answer.value
    assert cells.otherwise(found) in repr(shown)


def test_a_changed_control_changes_the_answer() -> None:
    shown = controls()
    before = shown.answer.value
    shown.machine.value = "large"
    assert "70B inference: local" in shown.answer.value != before
    shown.model.value = "llama-3.1-8b"
    shown.users.value = 4
    assert shown.question == Question(
        "large", "70B inference", "llama-3.1-8b", 1.0, 1.0, TERMS.usd_per_kwh, 4
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": "llama-3.1-8b"}, replace(workloads.INFERENCE_70B, model="llama-3.1-8b")),
        ({"use": 2.0}, replace(workloads.INFERENCE_70B, runs_per_month=40)),
        ({"users": 3}, replace(workloads.INFERENCE_70B, users=3)),
        ({"sensitive": True}, replace(workloads.INFERENCE_70B, sensitive=True)),
    ],
)
def test_a_question_changes_the_workload_as_it_says(changed, expected) -> None:
    found = controls().decide(replace(FIRST, **changed))
    assert found == decide.decide(expected, GUIDES, TERMS)


def test_prices_are_those_of_the_question() -> None:
    found = controls().decide(replace(FIRST, rent=2.0, usd_per_kwh=0.5))
    assert found.facts.terms == replace(TERMS.priced(2.0), usd_per_kwh=0.5)


def test_data_that_may_leave_may_not_once_the_box_is_ticked() -> None:
    free = replace(workloads.INFERENCE_70B, name="mine", sensitive=True, may_leave=True)
    shown = controls(Question("guide's", "mine"), own=(free,))
    assert "mine: hybrid" in shown.answer.value
    shown.sensitive.value = True
    assert "mine: nothing can be done" in shown.answer.value


def test_a_model_is_not_given_to_work_without_one() -> None:
    found = controls().decide(
        Question("guide's", workloads.CODING.name, model="llama-3.1-8b", usd_per_kwh=0.2)
    )
    assert found.facts.workload.model == ""


def test_an_unknown_machine_or_workload_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="large"):
        controls().decide(replace(FIRST, machine="none"))
    with pytest.raises(LookupError, match="70B inference"):
        controls().decide(replace(FIRST, workload="70B inferenc"))


def test_a_question_that_cannot_be_answered_shows_the_sentence(monkeypatch) -> None:
    shown = controls()

    def refuse(*_: object) -> None:
        raise ValueError("Give 1 < 2.")

    monkeypatch.setattr(decide, "decide", refuse)
    shown.users.value = 2
    assert shown.answer.value == "<p>Give 1 &lt; 2.</p>"


def test_each_control_has_a_label_of_its_own() -> None:
    shown = controls()
    labels = [one.description for one in shown._box.children[:-1]]
    assert len(set(labels)) == len(labels) == 8
    assert all(labels)


def test_a_page_without_controls_gets_the_table() -> None:
    bundle = controls()._repr_mimebundle_()
    assert "70B inference: hybrid" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_every_option_is_a_row_with_its_points_or_what_rules_it_out() -> None:
    rows = decider.explain(decide.decide(workloads.FULL_FINE_TUNE_8B, GUIDES, TERMS)).rows
    by_option = {row["option"]: row for row in rows}
    assert by_option["local"]["points"] == cells.NONE
    assert "memory: llama-3.1-8b takes" in str(by_option["local"]["ruled out"])
    assert by_option["hybrid"]["ruled out"] == "no"
    assert by_option["cloud"]["for it"] == cells.NONE
