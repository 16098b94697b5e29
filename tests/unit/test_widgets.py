"""The explorer answers without a browser, and its controls show what the function says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import planner, units
from guidebook.catalog import hardware, prices
from guidebook.tables import Table
from guidebook.widgets import explorer
from guidebook.widgets.explorer import Explorer, Question

CARD, MAC, SPARK = "GeForce RTX 3090", "Apple M3 Ultra (80c)", "NVIDIA DGX Spark (GB10)"


def answered(device: str, **settings: Any) -> dict[str, Any]:
    return column(explorer.compare(Question(devices=(device,), **settings)), device)


def column(shown: Table, device: str) -> dict[str, Any]:
    return {str(r["device"]): r[device] for r in shown.rows}


def test_the_first_question_is_answered_for_every_device_with_its_price() -> None:
    shown = explorer.compare()
    assert shown.columns[1:] == list(Question().devices)
    for device in Question().devices:
        assert column(shown, device)["price, USD"] == explorer.price(device) != units.UNKNOWN


def test_a_row_says_what_the_planner_says() -> None:
    answer = planner.answer(planner.Case(CARD, "llama-3.1-8b", "Q8_0", context=4096))
    found = answered(CARD, model="llama-3.1-8b", quant="Q8_0", context=4096)
    assert found["needed"] == units.memory(answer.total_bytes)
    assert found["writes, tokens/s"] == units.number(answer.tokens_per_second)
    assert found["90 % interval"] == f"{units.number(answer.low)} to {units.number(answer.high)}"
    assert found["fits"] == f"yes, {units.memory(answer.margin_bytes)} to spare"


def test_a_card_that_is_too_small_says_how_many_layers_it_takes() -> None:
    found = answered(CARD, model="llama-3.1-70b")
    assert found["fits"].startswith("no, ")
    assert "of 81 layers on the GPU" in found["fits"]
    assert found["writes, tokens/s"] != "–"


def test_unified_memory_that_is_too_small_has_no_speed() -> None:
    found = answered("Apple M4 (10c)", model="llama-3.1-70b")
    assert found["fits"].endswith("too much")
    assert found["writes, tokens/s"] == found["90 % interval"] == "–"


def test_without_a_file_type_a_model_comes_in_its_usual_one() -> None:
    native = Question(devices=(CARD,), model="gpt-oss-20b")
    assert "gpt-oss-20b in MXFP4" in explorer.compare(native).caption
    assert "llama-3.1-70b in Q4_K_M" in explorer.compare().caption


def test_a_smaller_configuration_holds_less_than_its_chip() -> None:
    wanted = {"model": "llama-3.1-405b"}
    assert answered(MAC, **wanted)["fits"].startswith("yes")
    assert answered("Mac Studio M3 Ultra 96 GB (60c)", **wanted)["fits"].startswith("no")


@pytest.mark.parametrize("name", sorted(hardware.smaller()))
def test_every_configuration_has_a_price_and_less_memory_than_its_chip(name: str) -> None:
    small = hardware.smaller()[name]
    assert prices.of(name) is not None
    assert (small.memory_bytes or 0) < (hardware.find(small.name).memory_bytes or 0)
    assert explorer.candidate(name) == small


def test_kinds_of_ram_are_no_candidates() -> None:
    assert not [d for d in explorer.candidates().values() if d.kind == "ram"]


def test_a_price_carries_its_kind_and_date() -> None:
    latest = prices.of(SPARK)
    assert latest is not None
    assert explorer.price(SPARK) == f"{latest.usd:,.0f} ({latest.kind}, {latest.dated})"
    assert explorer.price("Apple M5 Ultra (80c)") == units.UNKNOWN


def test_a_device_named_twice_is_shown_once() -> None:
    assert explorer.compare(Question(devices=(CARD, CARD, MAC))).columns == ["device", CARD, MAC]


def test_no_device_and_four_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="Compare one to 3"):
        explorer.compare(Question(devices=()))
    with pytest.raises(ValueError, match="4 devices"):
        explorer.compare(Question(devices=(CARD, MAC, SPARK, "GeForce RTX 5090")))


def test_an_unknown_device_is_refused_with_near_names() -> None:
    with pytest.raises(LookupError, match="RTX 3090"):
        explorer.compare(Question(devices=("GeForce RTX 3099",)))


@given(
    st.sampled_from([CARD, MAC, SPARK]),
    st.sampled_from(explorer.CONTEXTS[:-1]),
    st.sampled_from(explorer.KV_TYPES),
)
def test_a_longer_context_never_needs_less_memory(device: str, context: int, kv: str) -> None:
    def needed(n: int) -> float:
        found = answered(device, model="qwen2.5-14b", context=n, kv_type=kv)
        number, unit = found["needed"].split()
        assert unit == "GiB"
        return float(number)

    assert needed(2 * context) >= needed(context)


def test_the_controls_show_the_table_of_their_question() -> None:
    shown = Explorer()
    assert shown.question == Question()
    assert shown.answer.value == explorer.compare()._repr_html_()


def test_a_changed_list_changes_the_table() -> None:
    shown = Explorer()
    before = shown.answer.value
    shown.model.value = "llama-3.1-8b"
    shown.context.value = 32768
    shown.devices[1].value = explorer._NONE
    asked = Question(
        devices=(Question().devices[0], Question().devices[2]), model="llama-3.1-8b", context=32768
    )
    assert shown.question == asked
    assert shown.answer.value == explorer.compare(asked)._repr_html_() != before


def test_every_choice_of_every_list_has_an_answer() -> None:
    shown = Explorer()
    for one in (shown.model, shown.quant, shown.context, shown.kv_type):
        for option in one.options:
            one.value = option[1] if isinstance(option, tuple) else option
            assert "<table" in shown.answer.value, (one.description, option)


def test_a_question_that_cannot_be_answered_shows_the_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: Question) -> None:
        raise ValueError("A < B.")

    shown = Explorer()
    monkeypatch.setattr(explorer, "compare", refuse)
    shown.quant.value = "Q8_0"
    assert shown.answer.value == "<p>A &lt; B.</p>"


def test_a_page_without_controls_gets_the_table() -> None:
    bundle = Explorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == explorer.compare()._repr_html_()
    assert bundle["text/plain"] == str(explorer.compare())


def test_the_table_needs_no_widget_library() -> None:
    code = (
        "import sys; from guidebook.widgets import explorer; explorer.compare(); "
        "print('ipywidgets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
