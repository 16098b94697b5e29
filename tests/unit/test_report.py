"""The plan rests on results, names what is missing, and holds nothing personal."""

from __future__ import annotations

import datetime
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_results import CHAPTERS, GIB, LAPTOP, READINGS, results_of, write_run
from test_documents import Page
from test_records import SECRETS, USER, WORDS, planted

from guidebook import anonymous, claims, plan, records, report, upgrade
from guidebook.records import Found, RecordError
from guidebook.report import Advice, Report, Wishes

TODAY = datetime.date(2026, 11, 24)
# The guide's example machine: i7-11700KF, 32 GB of DDR4, RTX 3080 10 GB, and its power supply.
GUIDES = Wishes(memory="DDR4", psu_w=750)
SERVER = {
    **LAPTOP,
    "gpus": [],
    "system": {"os": "Linux", "wsl": None, "container": None, "virtual_machine": "KVM"},
}


def found(*contents: dict[str, Any]) -> Found:
    # Without a measured bandwidth, the guide's memory is taken as what it is sold as.
    given = contents or [results_of(chapter, readings={}) for chapter in CHAPTERS]
    return Found({content["chapter"]: content for content in given}, {})


@pytest.fixture(scope="module")
def guides() -> Report:
    return report.make(found(), GUIDES, today=TODAY)


@pytest.fixture(scope="module")
def servers() -> Report:
    content = results_of("11-your-machine", machine=SERVER, device="cpu", outcome="refuted")
    return report.make(found(content), today=TODAY)


# --- What it rests on -------------------------------------------------------------------------


def test_chapters_without_results_are_named_with_the_reason_and_the_command(tmp_path: Path):
    run = write_run(tmp_path)
    (run / "results" / "12-bottlenecks.json").write_text("{")
    made = report.make(records.read(run), GUIDES, without=["13-three-paths"])
    assert set(made.missing) == set(records.chapters_of_the_book()) - {*CHAPTERS, "13-three-paths"}
    assert made.missing["12-bottlenecks"] == "results file cannot be used"
    assert made.missing["14-upgrade-path"] == "not run"
    text = made.to_markdown()
    for chapter in made.missing:
        assert chapter in text
    assert "guidebook run 12 14" in text


def test_every_claim_of_the_chapters_that_ran_is_on_the_scoreboard_with_its_evidence(guides):
    wanted = [claim.id for chapter in CHAPTERS for claim in claims.of_chapter(chapter)]
    assert [line.id for line in guides.scoreboard] == wanted
    assert all(line.evidence for line in guides.scoreboard)
    assert sum(guides.counts.values()) == len(claims.ledger())
    assert guides.counts["held"] == len(wanted)


def test_a_claim_that_was_not_tested_says_what_it_needs():
    content = results_of("42-quantization-gguf", outcome="not tested here", readings={})
    text = report.make(found(content), GUIDES, today=TODAY).to_markdown()
    for claim in claims.of_chapter("42-quantization-gguf"):
        assert f"It needs {claim.needs}." in text.replace("\\", "")


def test_a_claim_that_is_newer_than_the_results_has_no_verdict():
    content = results_of("42-quantization-gguf", readings={})
    gone = content["claims"].pop()
    made = report.make(found(content), GUIDES, today=TODAY)
    (line,) = (line for line in made.scoreboard if line.outcome is None)
    assert line.id == gone["id"]
    assert "Run the chapter again" in made.to_markdown()


def test_no_results_are_a_sentence():
    with pytest.raises(RecordError, match="no results"):
        report.make(Found({}, {}))


def test_a_gpu_that_no_chapter_used_is_pointed_out():
    content = results_of("11-your-machine", device="cpu", readings={})
    notes = report.make(found(content), GUIDES, today=TODAY).notes
    assert any("chapters ran on the processor: 11" in note for note in notes)


# --- What it recommends -----------------------------------------------------------------------


def test_for_the_guides_machine_it_plans_what_the_guide_advises(guides):
    # "Prioritize upgrading system RAM to 64GB"; then "a used RTX 3090 (24GB) offers excellent
    # value". Here the gain from memory is a mixture of experts; see chapter 14.
    assert [one.what for one in guides.purchases] == [
        "Buy next: RAM to 64 GiB",
        "After that: RTX 3090",
    ]
    assert "gpt-oss-120b" in guides.purchases[0].why[0]
    assert "qwen2.5-32b" in guides.purchases[1].why[0]
    usable = {row["model"]: row["usable"] for row in guides.wanted}
    # "Focus initial local work on 7B/8B models with 4-bit quantization."
    assert (usable["llama-3-8b"], usable["llama-3.3-70b"]) == ("yes", "no")


def test_what_to_run_now_is_what_the_planner_says(guides):
    rig = plan.rig("GeForce RTX 3080 10GB", ram=report._DDR4, ram_bytes=32 * GIB)
    for use, advice in zip(plan.USES, guides.now, strict=True):
        best = plan.choices(rig, use, most=1)[0]
        assert advice.command == best.command
        assert best.model.name in advice.what


def test_the_memory_bandwidth_that_was_measured_counts_and_the_highest_of_them():
    slow = {"memory_bandwidth": ("bytes/s", [1.0e10, 1.1e10, 1.2e10])}
    both = found(
        results_of("11-your-machine", machine=SERVER, readings=slow),
        results_of("42-quantization-gguf", machine=SERVER, readings=READINGS),
    )
    rig = report.rig_of(records.make(both, words=()))
    assert rig.ram.bandwidth == pytest.approx(2.5e10 / plan._SUSTAINED)
    assert rig.device.memory_bytes == 32 * GIB


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_memory_that_was_not_measured_is_what_the_reader_says(machine):
    content = results_of("11-your-machine", machine=machine, readings={})
    record = records.make(found(content), words=())
    old, new = report.rig_of(record, "DDR4"), report.rig_of(record, "DDR5")
    assert old.ram.bandwidth < new.ram.bandwidth
    assert "DDR4" in old.assumptions[0]


def test_nothing_can_be_built_into_a_virtual_machine(servers):
    options = {row["option"] for row in servers.options}
    assert options == {"nothing: wait", "Mac Studio M3 Ultra 96 GB", "DGX Spark"}
    assert any("virtual machine" in note for note in servers.notes)


def test_without_a_slot_no_card_is_proposed():
    made = report.make(found(), replace(GUIDES, card_slot=False), today=TODAY)
    assert not any("RTX" in str(row["option"]) for row in made.options)


def test_nothing_dearer_than_the_budget_is_proposed():
    made = report.make(found(), replace(GUIDES, budget_usd=300), today=TODAY)
    assert made.purchases[0].what == "Buy next: RAM to 64 GiB"
    assert made.purchases[1].what == "After that: nothing"
    assert "60 USD" in made.purchases[1].why[0]
    none = report.make(found(), replace(GUIDES, budget_usd=0), today=TODAY)
    assert [one.what for one in none.purchases] == ["Buy next: nothing"]


def test_where_everything_wanted_runs_nothing_is_bought():
    made = report.make(found(), replace(GUIDES, models=("llama-3-8b",)), today=TODAY)
    assert made.purchases == (
        Advice(
            "Buy next: nothing",
            (
                "Every wanted model is usable already: at least 5 tokens/s even at the low end of "
                "the interval.",
            ),
        ),
    )


def test_the_best_purchase_makes_most_models_usable_per_dollar():
    rig = plan.rig("GeForce RTX 3080 10GB", ram=report._DDR4, ram_bytes=32 * GIB)
    options = upgrade.evaluate(rig, upgrade.options(rig, "DDR4"), report.WANTED, psu_w=750)
    best = report.best_of(options, report.WANTED, None)
    rates = [one.newly_usable_per_1000_usd(report.WANTED) or 0 for one in options]
    assert best.newly_usable_per_1000_usd(report.WANTED) == max(rates)


def test_an_old_price_and_an_unknown_power_supply_are_said():
    made = report.make(found(), Wishes(memory="DDR4"), today=datetime.date(2030, 1, 1))
    text = made.to_markdown()
    assert "That is old: look the price up before you decide." in text
    card = next(one for one in made.purchases if "RTX" in one.what)
    assert any("without a power supply" in why for why in card.why)
    assert any("yours is unknown" in why for why in card.why)


@pytest.mark.parametrize("wishes", [Wishes(models=("no-such-model",)), Wishes(models=())])
def test_wishes_that_cannot_be_planned_are_refused(wishes):
    with pytest.raises((LookupError, ValueError), match="model"):
        report.make(found(), wishes)


# --- When to rent -----------------------------------------------------------------------------


def test_advice_on_renting_is_shown_as_it_is_given(guides):
    advice = Advice("Rent: above 6 h a week", ("An A100 costs 1.10 USD an hour.",), "sky launch")
    made = report.make(found(), GUIDES, renting=[advice], today=TODAY)
    for text in (made.to_markdown(), made.to_html(), made.to_json(), str(made)):
        for part in (advice.what, *advice.why, advice.command):
            assert part in text
    assert "Not worked out in this report." in guides.to_markdown()
    assert guides.to_dict()["renting"] == []


# --- Its forms --------------------------------------------------------------------------------


def test_the_page_is_whole_accessible_and_asks_no_other_host(guides):
    page = Page(guides.to_html())
    names = [tag for tag, _ in page.tags]
    levels = [int(tag[1]) for tag in names if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in page.tags
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(names)
    assert all("src" not in given and "href" not in given for _, given in page.tags)
    assert names.count("table") == names.count("caption") > 3
    labels = [given["aria-label"] for _, given in page.tags if given.get("role") == "region"]
    assert len(labels) == len(set(labels)) == names.count("table")


def test_json_holds_what_the_page_shows(guides):
    data = json.loads(guides.to_json())
    assert data["hardware"]["gpus"][0]["name"] == "NVIDIA GeForce RTX 3080"
    assert data["counts"] == guides.counts
    assert [one["what"] for one in data["purchases"]] == [one.what for one in guides.purchases]
    assert [one["id"] for one in data["claims"]] == [line.id for line in guides.scoreboard]


def test_every_form_says_what_to_run_to_buy_and_what_came_out(guides):
    for text in (guides.to_markdown(), guides.to_html(), guides._repr_html_(), str(guides)):
        for part in ("RAM to 64 GiB", guides.now[0].command, "held", "12-bottlenecks"):
            assert part in text


def test_saving_writes_three_whole_files_and_keeps_the_old_ones_if_it_fails(
    guides, tmp_path: Path, monkeypatch
):
    paths = guides.save(tmp_path / "new")
    assert [path.name for path in paths] == ["your-plan.md", "your-plan.html", "your-plan.json"]
    before = {path: path.read_bytes() for path in paths}
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        replace(guides, notes=("other",)).save(tmp_path / "new")
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before


# A report is made of a record, and that is tried with every kind of secret.
@pytest.mark.parametrize(
    "kind", ["user name", "home path", "address", "MAC", "Hugging Face token", "serial of a laptop"]
)
def test_a_secret_in_every_text_of_the_results_is_not_in_the_report(
    kind: str, tmp_path: Path, monkeypatch
):
    secret = SECRETS[kind]
    monkeypatch.setattr(anonymous, "names_here", lambda: WORDS)
    run = write_run(tmp_path / "run", planted(secret))
    made = report.make(records.read(run), GUIDES, today=TODAY)
    made.save(tmp_path / "report")
    texts = [path.read_text("utf-8") for path in (tmp_path / "report").iterdir()]
    for text in (*texts, str(made), made._repr_html_()):
        for part in (secret, "zarniwoop", "vann", "magrathea", USER):
            assert part.lower() not in text.lower()


def test_what_a_reader_notes_in_a_price_list_stays_there(tmp_path: Path):
    own = tmp_path / "prices.csv"
    own.write_text(
        "device,usd,kind,as_of,source,note\n"
        f"GeForce RTX 3090,100,used,2026-11-20,from {USER} at work,call him\n"
    )
    made = report.make(found(), replace(GUIDES, price_file=own), today=TODAY)
    assert made.purchases[0].what == "Buy next: RTX 3090"
    assert "your own price list" in made.to_markdown()
    assert USER not in made.to_json() + made.to_html()
