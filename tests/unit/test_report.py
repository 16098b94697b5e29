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

from guidebook import anonymous, claims, cli, plan, records, report, upgrade
from guidebook.advice import Advice
from guidebook.chapter import Chapter, begin
from guidebook.records import Found, RecordError
from guidebook.renting_advice import Habits
from guidebook.report import Report, Wishes

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


def test_each_claim_is_counted_once_in_its_part(guides):
    by_part = guides.by_part
    assert list(by_part) == sorted({int(claim.chapter[0]) for claim in claims.ledger().values()})
    for outcome, total in guides.counts.items():
        assert sum(counts[outcome] for counts in by_part.values()) == total


def test_speeds_that_were_predicted_stand_beside_the_measured_ones():
    measured = {"decode_q4_0_256": ("tokens/s", [50.0, 51.0, 49.0])}
    content = results_of("12-bottlenecks", readings=measured, device="cpu")
    made = report.make(found(content), GUIDES, today=TODAY)
    assert [one.measured for one in made.checks] == [50.0]
    assert "Predicted against measured" in made.to_markdown()


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


def test_the_trigger_for_renting_has_hours_price_and_size_in_every_form(guides):
    for text in (guides.to_markdown(), guides.to_html(), guides.to_json(), str(guides)):
        shown = " ".join(text.replace("\\", "").split())
        for part in ("h a week", "per GPU hour", "Train here: QLoRA up to", "Rent for: "):
            assert part in shown


def test_the_readers_hours_and_price_of_electricity_count():
    habits = Habits(hours_per_week=80, usd_per_kwh=0.05)
    made = report.make(found(), replace(GUIDES, habits=habits), today=TODAY)
    assert any("80 h a week" in one.what for one in made.renting)
    assert "$0.05 per kWh" in made.to_markdown().replace("\\", "")


def test_what_is_compared_with_renting_is_what_the_plan_would_buy(guides):
    bought = [one.what.split(": ")[1] for one in guides.purchases]
    compared = [one.what for one in guides.renting if "instead" in one.what]
    assert len(compared) == len(bought) == 2
    assert all(name in what for name, what in zip(bought, compared, strict=True))


def test_the_command_takes_hours_and_the_price_of_electricity(tmp_path: Path, capsys):
    run = write_run(tmp_path)
    arguments = ["report", str(run), "--hours", "33", "--kwh", "0.4"]
    assert cli.main([*arguments, "--format", "json"]) == 0
    text = json.dumps(json.loads(capsys.readouterr().out)["renting"])
    assert "33 h a week" in text
    assert "$0.4 per kWh" in text
    assert cli.main(["report", str(run), "--hours", "0"]) == cli.USAGE_ERROR
    assert "hours_per_week is 0" in capsys.readouterr().err


# --- The guide's own machine, described and not measured --------------------------------------


@pytest.fixture(scope="module")
def described() -> Report:
    return report.of(report.guides_machine(), GUIDES, today=TODAY)


def test_the_plan_for_the_guides_machine_is_the_guides_advice(described):
    # "Focus initial local work on 7B/8B models with 4-bit quantization."
    usable = {row["model"]: (row["usable"], row["fits whole"]) for row in described.wanted}
    assert usable["llama-3-8b"] == ("yes", "yes")
    # "Prioritize upgrading system RAM to 64GB." Then "a used RTX 3090 (24GB) offers excellent
    # value".
    assert [one.what for one in described.purchases] == [
        "Buy next: RAM to 64 GiB",
        "After that: RTX 3090",
    ]
    # "Large-scale model training or fine-tuning exceeding local compute/memory" is rented.
    jobs = [why.split(":")[0] for why in described.renting[0].why]
    assert {"full fine-tune of 8B", "pre-training of 1B"} <= set(jobs)


def test_where_the_plan_differs_from_the_guide_it_has_the_numbers(described):
    # The guide wants the memory for 13B models; these run with 32 GB already. Without the mixture
    # of experts the card comes first.
    rows = {row["model"]: row for row in described.wanted}
    assert rows["qwen2.5-14b"]["usable"] == "yes"
    assert described.purchases[0].why[0].startswith("It makes usable, predicted in tokens/s: gpt-")
    dense = tuple(name for name in report.WANTED if name != "gpt-oss-120b")
    made = report.of(report.guides_machine(), replace(GUIDES, models=dense), today=TODAY)
    assert made.purchases[0].what == "Buy next: RTX 3090"


def test_a_machine_that_is_only_described_says_that_nothing_was_measured(described):
    text = described.to_markdown()
    assert "Nothing was measured on it" in text
    assert "# The claims" not in text
    assert described.checks == ()
    assert described.missing == {}


# --- In the chapter ---------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Chapter:
    # Opened in an empty folder, as a chapter that is run alone.
    return begin(
        "71-your-plan",
        model="embedded",
        device="auto",
        profile="quick",
        results_dir=str(tmp_path / "results"),
    )


def test_a_chapter_alone_makes_a_plan_and_names_all_others(own, tmp_path: Path):
    gathered = report.gather(tmp_path / "results", own)
    made = report.make(gathered, today=TODAY, without=[own.id])
    assert set(made.missing) == set(records.chapters_of_the_book()) - {own.id}
    assert made.purchases
    assert made.renting


def test_a_chapter_sees_the_others_and_itself_as_it_is_now(own, tmp_path: Path):
    here = own.to_dict()["machine"]
    write_run(
        tmp_path,
        results_of("42-quantization-gguf", machine=here),
        # What the chapter left the last time that it ran.
        results_of(own.id, machine=here, outcome="refuted"),
    )
    own.not_tested("71-hardware-dates-first", "There is too little.")
    gathered = report.gather(tmp_path / "results", own)
    assert list(gathered.results) == ["42-quantization-gguf", own.id]
    (verdict,) = (v for v in records.make(gathered).claims if v.id.startswith("71"))
    assert verdict.outcome == "not tested here"


def test_results_of_another_machine_are_named_and_left_out(own, tmp_path: Path):
    here = own.to_dict()["machine"]
    write_run(
        tmp_path, results_of("11-your-machine"), results_of("42-quantization-gguf", machine=here)
    )
    gathered = report.gather(tmp_path / "results", own)
    assert gathered.problems == {"11-your-machine": "measured on another machine"}
    assert "42-quantization-gguf" in gathered.results
    made = report.make(gathered, today=TODAY)
    assert made.missing["11-your-machine"] == "measured on another machine"


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
