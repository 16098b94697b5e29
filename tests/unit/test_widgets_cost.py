"""The calculator says the same in Python and in JavaScript, and it is what the cost core says."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.catalog import clouds, hardware
from guidebook.cost import break_even, ownership, renting
from guidebook.widgets import cost
from guidebook.widgets.cost import Calculator, Controls, Question

CARD = "GeForce RTX 3090"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None, reason="no Node.js found, so the JavaScript side was not run; install node"
)

# Answers a list of [names, values] with [numbers, rows, sentence] each, by the page's own module.
_DRIVER = """
const { data, asked } = JSON.parse(INPUT);
console.log(JSON.stringify(asked.map(([names, values]) => {
  const { q, card, offer } = combine(data, names, values);
  const found = answer(q);
  return [found, rows(names, q, found, card, offer), sentence(names.gpu, q, found)];
})));
"""


def in_javascript(questions: list[Question]) -> list[Any]:
    assert NODE is not None
    asked = []
    for question in questions:
        values = dataclasses.asdict(question)
        names = {"gpu": values.pop("gpu"), "provider": values.pop("provider")}
        asked.append([names, {key: v for key, v in values.items() if v is not None}])
    given_to_it = json.dumps(json.dumps({"data": cost.coefficients(), "asked": asked}))
    done = subprocess.run(
        [NODE, "--input-type=module", "-"],
        input=f"{cost.module()}\nconst INPUT = {given_to_it};\n{_DRIVER}",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drawn(chance: random.Random) -> Question:
    """A question that the form can ask, from edge to edge."""
    gpu = chance.choice(list(cost.cards()))

    def perhaps(low: float, high: float) -> float | None:
        return chance.choice([None, low, chance.uniform(low, high)])

    return Question(
        gpu,
        chance.choice(list(cost.providers(gpu))),
        hours_per_week=chance.choice([0.0, 1.0, 10.0, 100.0, chance.uniform(0, 168)]),
        usd_per_kwh=chance.choice([0.0, 0.187, chance.uniform(0, 2)]),
        usd=perhaps(0, 10_000),
        load_w=perhaps(0, 1000),
        usd_per_gpu_hour=perhaps(0, 15),
        speed=perhaps(0.01, 20),
        startup_minutes=chance.choice([0.0, 10.0, chance.uniform(0, 90)]),
    )


@needs_node
def test_the_browser_computes_what_python_computes() -> None:
    chance = random.Random(61)
    questions = [drawn(chance) for _ in range(300)]
    kinds = set()
    for question, (numbers, _, _) in zip(questions, in_javascript(questions), strict=True):
        wanted = dataclasses.asdict(cost.answer(question))
        assert list(numbers) == list(wanted)
        for name, value in wanted.items():
            close = None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)
            assert numbers[name] == close, (name, question)
        kinds.add((wanted["months"] is None, wanted["hours_for_a_year"] is None))
    assert len(kinds) >= 3, "the questions hardly differ in their answers"


@needs_node
def test_the_browser_writes_the_table_and_the_sentence_that_python_writes() -> None:
    questions = [Question(gpu, provider) for gpu in cost.cards() for provider in ("RunPod",)]
    questions += [Question(provider=name, hours_per_week=40) for name in cost.providers(CARD)]
    questions += [Question(usd=600, usd_per_gpu_hour=0.5), Question(usd=0), Question(speed=3)]
    for question, (_, rows, sentence) in zip(questions, in_javascript(questions), strict=True):
        table = cost.compare(question)
        wanted = [list(row.values()) for row in table.rows]
        assert same_text(json.dumps(rows), json.dumps(wanted)), question
        assert same_text(sentence, table.caption), question


def same_text(one: str, other: str) -> bool:
    """Whether two texts agree, but for the last digit of a number that lies between two."""
    apart = [re.split(r"(\d[\d,]*(?:\.\d+)?)", text) for text in (one, other)]
    numbers = [[float(part.replace(",", "")) for part in parts[1::2]] for parts in apart]
    digits = [len(part.partition(".")[2]) for part in apart[0][1::2]]
    return apart[0][::2] == apart[1][::2] and all(
        abs(a - b) <= 1.01 * 10**-n for a, b, n in zip(*numbers, digits, strict=True)
    )


def test_the_answer_is_that_of_the_cost_core() -> None:
    question = Question(hours_per_week=20)
    found, asked = cost.answer(question), cost.comparison(question)
    owned = ownership.own(asked.purchase, asked.use, asked.conditions, 36)
    rented = renting.bill(asked.rental, asked.use, 36)
    assert (found.own_usd, found.rent_usd) == (owned.total_usd, rented.total_usd)
    assert found.months == asked.month()
    assert found.hours_for_a_year == break_even.hours_per_week(asked, 12)
    assert found.own_per_hour == owned.usd_per_gpu_hour


def test_a_question_by_hand() -> None:
    # 10 h a week are 43.48214 h a month; each two hours are paid as two hours and ten minutes:
    # 43.48214 · 13 / 12 · 1.00 USD = 47.10565 USD a month.
    # Electricity: 43.48214 h · 0.350 kW · 0.20 USD = 3.043750 USD a month.
    # Break-even: 600 / (47.10565 - 3.04375) = 13.61721 months.
    # Three years, sold at the end for 14 % less: 600 · (1 - 0.86 · 0.875³) + 36 · 3.04375
    # = 254.3203 + 109.575 = 363.8953.
    found = cost.answer(Question(usd_per_kwh=0.2, usd=600, usd_per_gpu_hour=1.0))
    assert found.rent_per_month == pytest.approx(47.10565, abs=1e-5)
    assert found.electricity_per_month == pytest.approx(3.04375, abs=1e-5)
    assert found.months == pytest.approx(13.61721, abs=1e-4)
    assert found.own_usd == pytest.approx(363.8953, abs=1e-4)


def test_every_card_can_be_rented_from_somebody_and_every_pair_has_an_answer() -> None:
    for gpu in cost.cards():
        assert cost.providers(gpu), gpu
        for provider in cost.providers(gpu):
            assert str(cost.compare(Question(gpu, provider)))


def test_what_is_rented_has_the_memory_of_the_card_and_is_there_as_long_as_it_is_paid() -> None:
    for gpu in cost.cards():
        least = hardware.find(gpu).memory_bytes or 0
        for offer in cost.providers(gpu).values():
            assert (offer.memory_bytes or 0) >= least
            assert offer.is_firm
            assert offer.n_gpus == 1


def test_speed_is_the_ratio_of_the_bandwidths_and_of_an_unknown_form_the_slowest() -> None:
    (own,) = clouds.offers(CARD, provider="RunPod", tier="community")
    assert cost.speed_of(own, CARD) == 1
    generic = clouds.offers("A100 80GB", provider="Vast.ai", tier="on-demand")
    unsaid = next(offer for offer in generic if offer.device is None)
    pcie = hardware.find("A100 PCIe 80GB").bandwidth / hardware.find(CARD).bandwidth
    assert cost.speed_of(unsaid, CARD) == round(pcie, 2)


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_dearer_electricity_never_helps_the_card(hours: float, low: float, more: float) -> None:
    cheap = cost.answer(Question(hours_per_week=hours, usd_per_kwh=low))
    dear = cost.answer(Question(hours_per_week=hours, usd_per_kwh=low + more))
    assert dear.own_usd >= cheap.own_usd
    assert dear.rent_usd == cheap.rent_usd
    assert (dear.months or 1e9) >= (cheap.months or 1e9)


def test_the_readers_own_rental_price_is_used(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "item,provider,gpu,tier,gpus,low,high,as_of,source,note\n"
        "usd_per_gpu_hour,RunPod,GeForce RTX 3090,community,1,0.11,,2026-11-20,my invoice,\n"
    )
    before, after = cost.answer(Question()), cost.answer(Question(), mine)
    assert after.rent_usd == pytest.approx(before.rent_usd / 2)
    assert "0.110 USD an hour (2026‑11‑20)" in str(cost.compare(Question(), mine))


def test_names_that_do_not_exist_are_refused_with_what_there_is() -> None:
    with pytest.raises(LookupError, match="RTX 3090"):
        cost.compare(Question(gpu="GeForce RTX 3099"))
    with pytest.raises(LookupError, match="RunPod"):
        cost.compare(Question(provider="Nobody"))
    with pytest.raises(LookupError, match="GUIDEBOOK_PRICES"):
        cost.compare(Question(gpu="H100 SXM5 80GB"))


def test_the_controls_show_the_table_of_their_question() -> None:
    shown = Controls()
    assert shown.question == Question()
    assert shown.answer.value == cost.compare()._repr_html_()


def test_a_changed_control_changes_the_table() -> None:
    shown = Controls()
    before = shown.answer.value
    shown.hours_per_week.value = 40
    shown.usd_per_kwh.value = 0.4
    shown.provider.value = "Lambda"
    asked = Question(provider="Lambda", hours_per_week=40, usd_per_kwh=0.4)
    assert shown.question == asked
    assert shown.answer.value == cost.compare(asked)._repr_html_() != before


def test_a_larger_card_leaves_only_those_who_rent_out_its_size() -> None:
    shown = Controls()
    shown.provider.value = "Vast.ai"
    shown.gpu.value = "RTX PRO 6000 Blackwell WS"
    assert list(shown.provider.options) == list(cost.providers("RTX PRO 6000 Blackwell WS"))
    assert "<table" in shown.answer.value


def test_a_question_that_cannot_be_answered_shows_the_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: Question) -> None:
        raise ValueError("A < B.")

    shown = Controls()
    monkeypatch.setattr(cost, "compare", refuse)
    shown.hours_per_week.value = 30
    assert shown.answer.value == "<p>A &lt; B.</p>"


def test_without_a_browsers_javascript_the_calculator_is_the_table() -> None:
    question = Question(hours_per_week=30)
    page = Calculator(question)._repr_html_()
    assert cost.compare(question)._repr_html_() in page
    assert str(Calculator(question)) == str(cost.compare(question))


def test_the_calculator_carries_its_data_and_ends_no_element_early() -> None:
    page = Calculator(Question(hours_per_week=30))._repr_html_()
    start = page.index('<script type="application/json">') + len('<script type="application/json">')
    data = json.loads(page[start : page.index("</script>")])
    assert data["first"]["hours_per_week"] == 30
    assert data["cards"] == json.loads(json.dumps(cost.coefficients()["cards"]))
    assert page.count("</script>") == 2
    assert "</script" not in cost.module()


def test_the_module_asks_nobody_for_anything() -> None:
    outside = ("import ", "fetch(", "XMLHttp", "WebSocket", "localStorage", "https:")
    assert not [word for word in outside if word in cost.module()]


def test_the_table_needs_no_widget_library() -> None:
    code = (
        "import sys; from guidebook.widgets import cost; str(cost.Calculator()); "
        "print('ipywidgets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
