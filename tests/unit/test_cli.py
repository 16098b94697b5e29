"""The command line: quick to answer, and clear about what it cannot do."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from run_results import CHAPTERS, results_of, write_run

from guidebook import cli, runner
from guidebook._worker import ChapterError

if TYPE_CHECKING:
    from conftest import WriteChapter

HEAVY = ("llama_cpp", "matplotlib", "nbformat", "numpy", "papermill", "psutil", "torch", "tqdm")


@pytest.fixture
def project(write_chapter: WriteChapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("11-your-machine", "42-quantization-gguf"):
        write_chapter(tmp_path / "notebooks", name)
    monkeypatch.delenv("GUIDEBOOK_NOTEBOOKS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replace the run by a note of what was asked for."""
    asked: dict[str, object] = {}

    def run(chapters: list[Path], **options: object) -> runner.Summary:
        asked.update(options, chapters=[path.stem for path in chapters])
        return runner.Summary((runner.ChapterRun("11-x", runner.Status.DONE, 1.0),), {})

    monkeypatch.setattr(runner, "run", run)
    return asked


def test_help_is_there_within_300_ms() -> None:
    def seconds() -> float:
        before = os.times()
        command = [sys.executable, "-m", "guidebook.cli", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        return (after.children_user - before.children_user) + (
            after.children_system - before.children_system
        )

    # Processor time, because a busy machine must not fail this; a heavy import must.
    assert min(seconds() for _ in range(3)) < 0.3


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, guidebook.cli\n"
        "try: guidebook.cli.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("loaded []\n")


def test_help_of_run_says_why_workers_disturb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "speeds come out too low" in " ".join(capsys.readouterr().out.split())


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"guidebook \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: guidebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "43"],
        ["run", "-p", "prompt_x", "x"],
        ["run", "-p", "model", "a", "--model", "b"],
        ["run", "--notebooks", "nowhere"],
        ["run", "nowhere/11-your-machine.ipynb"],
        ["run", "-p", "results_dir", "x"],
    ],
)
def test_bad_usage_is_one_sentence_and_code_2(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"guidebook: [A-Z].*[.?]\n", captured.err), captured.err
    assert not (project / "_build").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--workers", "0"],
        ["run", "--workers", "two"],
        ["run", "--profile", "slow"],
        ["run", "--cell-timeout", "0"],
        ["run", "-p", "model"],
        ["fly"],
    ],
)
def test_bad_options_leave_with_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_options_reach_the_run(project: Path, asked: dict[str, object]) -> None:
    arguments = "42 -p repeats 3 --model m.gguf --device cpu --profile full --workers 2 --fresh"
    assert cli.main(["run", *arguments.split(), "--out", "there"]) == 0
    asked.pop("observer")
    assert asked == {
        "chapters": ["42-quantization-gguf"],
        "out": Path("there"),
        "parameters": {"repeats": "3", "model": "m.gguf", "device": "cpu", "profile": "full"},
        "workers": 2,
        "fresh": True,
        "cell_timeout": runner.CELL_TIMEOUT,
    }


def test_by_default_every_chapter_runs_alone_into_build(
    project: Path, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "notebooks")
    assert cli.main(["run"]) == 0
    assert asked["chapters"] == ["11-your-machine", "42-quantization-gguf"]
    assert asked["out"] == project / "_build" / "run"
    assert asked["workers"] == 1
    assert asked["parameters"] == {}


def test_a_failed_chapter_is_shown_and_is_code_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = runner.ChapterRun(
        "11-x", runner.Status.FAILED, 2.0, error=ChapterError("ValueError", "no weight", 4)
    )
    monkeypatch.setattr(runner, "run", lambda *_, **__: runner.Summary((failed,), {}))
    assert cli.main(["run"]) == 1
    assert "11-x: ValueError in cell [4]: no weight" in capsys.readouterr().out


def test_ctrl_c_before_a_run_is_code_130(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert cli.main(["run"]) == 130


def test_a_log_gets_a_line_for_each_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines = cli._Lines(2)
    lines.started("11-x")
    lines.reached_cell("11-x", 3, 9)
    lines.waited()
    lines.ended(runner.ChapterRun("11-x", runner.Status.DONE, 3.0))
    lines.ended(runner.ChapterRun("12-y", runner.Status.ALREADY_DONE, 3.0))
    assert capsys.readouterr().err.splitlines() == [
        "[0/2] 11-x: running",
        "[1/2] 11-x: done in 3.00 s",
        "[2/2] 12-y: already done",
    ]


def test_a_log_shows_the_cell_when_a_chapter_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli._Lines, "_EVERY", 0.0)
    lines = cli._Lines(1)
    lines.started("11-x")
    lines.reached_cell("11-x", 3, 9)
    lines.waited()
    assert capsys.readouterr().err.splitlines()[-1] == "[0/1] 11-x cell 3/9"


def test_a_terminal_gets_a_bar_with_the_running_cell(capsys: pytest.CaptureFixture[str]) -> None:
    bar = cli._Bar(2)
    bar.started("11-x")
    bar.reached_cell("11-x", 3, 9)
    bar.waited()
    bar.ended(runner.ChapterRun("11-x", runner.Status.DONE, 3.0))
    bar.ended(runner.ChapterRun("12-y", runner.Status.DONE, 3.0))
    shown = capsys.readouterr().err
    assert "11-x cell 3/9" in shown
    assert "11-x: done in 3.00 s" in shown
    assert "2/2" in shown


def test_machine_prints_json_that_names_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["machine", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["cpu"]["logical_cores"] >= 1
    assert str(Path.home()) not in json.dumps(described)


def test_machine_prints_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["machine"]) == 0
    shown = capsys.readouterr().out
    assert "Memory" in shown
    assert str(Path.home()) not in shown


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "guidebook.cli", "machine"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- predict, plan, calibrate ----------------------------------------------------------------


def test_predict_answers_one_case_in_words(capsys):
    assert cli.main(["predict", "rtx 3090", "llama-3-8b", "--context", "8192"]) == 0
    text = capsys.readouterr().out
    assert "1.00 GiB" in text
    assert "tokens/s" in text
    assert "left out of the fit" in text


def test_predict_answers_a_table_with_the_same_rows(tmp_path, capsys):
    path = tmp_path / "cases.csv"
    path.write_text("id,hardware,architecture\na,RTX 3090,llama-3-8b\nb,Abacus,llama-3-8b\n")
    assert cli.main(["predict", "--cases", str(path)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert float(rows[0]["low"]) < float(rows[0]["tokens_per_second"]) < float(rows[0]["high"])
    assert "Abacus" in rows[1]["note"]


def test_predict_writes_json(capsys):
    assert cli.main(["predict", "rtx 3090", "llama-3-8b", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "Give a device and a model"),
        (["predict", "rtx 3090"], "Give a device and a model"),
        (["predict", "rtx 9999", "llama-3-8b"], "rtx 9999"),
        (["predict", "rtx 3090", "llama-3-8b", "--depth", "deep"], "depth is 'deep'"),
        (["predict", "--cases", "no-such.csv"], "cannot be read"),
        (["predict", "rtx 3090", "llama-3-8b", "--cases", "x.csv"], "not both"),
        (["plan", "--hardware", "rtx 9999"], "rtx 9999"),
    ],
)
def test_a_question_that_cannot_be_answered_is_bad_usage(arguments, said, capsys):
    assert cli.main(arguments) == cli.USAGE_ERROR
    assert said in capsys.readouterr().err


def test_plan_names_models_and_commands(capsys):
    assert cli.main(["plan", "--hardware", "rtx 3090", "--ram-gib", "64"]) == 0
    text = capsys.readouterr().out
    assert "GeForce RTX 3090, 64.0 GiB RAM" in text
    assert "llama-server -m " in text


def test_plan_for_this_machine_is_json_without_personal_data(capsys):
    assert cli.main(["plan", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {use["use"] for use in data["uses"]} >= {"chat", "coding"}
    assert str(Path.home()) not in json.dumps(data)


def test_calibrate_shows_the_planner_beside_other_tools(capsys):
    assert cli.main(["calibrate"]) == 0
    text = capsys.readouterr().out
    assert "planner" in text
    assert "llmfit" in text
    assert cli.main(["calibrate", "--rows"]) == 0
    assert "GeForce RTX 3090" in capsys.readouterr().out


# --- doctor ----------------------------------------------------------------------------------


def test_doctor_ends_with_the_code_of_its_worst_verdict(capsys):
    code = cli.main(["doctor", "--only", "python.version", "--json"])
    (finding,) = [
        one
        for one in json.loads(capsys.readouterr().out)["findings"]
        if one["check"] == "python.version"
    ]
    assert (code, finding["verdict"]) in ((0, "ok"), (1, "warning"), (2, "problem"))


def test_doctor_explains_a_check_without_running_any(capsys):
    assert cli.main(["doctor", "--explain", "wsl.memory"]) == 0
    assert ".wslconfig" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--explain", "no.such"], ["--only", "no.such"], ["--model", "no-such-model"]],
)
def test_doctor_names_what_there_is_when_asked_for_something_else(arguments, capsys):
    assert cli.main(["doctor", *arguments]) == cli.USAGE_ERROR
    assert "no" in capsys.readouterr().err


# --- bench -----------------------------------------------------------------------------------


@pytest.fixture
def benched(monkeypatch):
    """Replace the benchmark by a note of what was asked for, and a short report."""
    from guidebook import bench
    from guidebook.measure import Measurement

    asked = {}

    def run(contenders, settings, *, progress):
        progress(bench.Progress("one", 1, 1, "warming up"))
        asked.update(contenders=contenders, settings=settings)
        one = Measurement("s", (0.5,))
        result = bench.Result("one", "llama-cpp", time_to_first_token=one, failed=asked["failed"])
        return bench.Report((result,), settings, {}, {}, "2026-11-23", asked["interrupted"])

    def available(model, engines, servers):
        asked.update(model=model, engines=engines, servers=servers)
        found = (bench.Contender("llama-cpp"),) if "none" not in engines else ()
        return bench.Available(found, ("transformers is not installed: pip install it",))

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench, "available", available)
    asked.update(failed=None, interrupted=False)
    return asked


def test_options_reach_the_benchmark(benched, capsys):
    arguments = "--model m.gguf --engine llama-cpp --engine openai --server http://h:1 --n-prompt 9"
    more = "--n-generate 5 --repetitions 2 --concurrency 1,8"
    assert cli.main(["bench", *arguments.split(), *more.split()]) == 0
    settings = benched["settings"]
    assert (benched["model"], benched["engines"]) == ("m.gguf", ["llama-cpp", "openai"])
    assert benched["servers"] == ["http://h:1"]
    assert (settings.n_prompt, settings.n_generate, settings.repetitions) == (9, 5, 2)
    assert settings.concurrency == (1, 8)
    captured = capsys.readouterr()
    assert "500 ms" in captured.out
    assert "left out: transformers is not installed" in captured.err
    assert "[1/1] one: warming up" in captured.err


@pytest.mark.parametrize(
    ("form", "begins"),
    [("csv", "label,"), ("json", "{"), ("table", "no model"), ("markdown", "no")],
)
def test_a_benchmark_is_written_as_asked(benched, capsys, form, begins):
    assert cli.main(["bench", "--format", form]) == 0
    assert capsys.readouterr().out.startswith(begins)


def test_the_file_name_says_how_a_benchmark_is_written(benched, tmp_path, capsys):
    assert cli.main(["bench", "--out", str(tmp_path / "speeds.csv")]) == 0
    assert (tmp_path / "speeds.csv").read_text().startswith("label,")
    assert cli.main(["bench", "--out", str(tmp_path / "x.csv"), "--format", "json"]) == 0
    assert json.loads((tmp_path / "x.csv").read_text())["schema_version"] == 1
    assert capsys.readouterr().out == ""


def test_a_failed_contender_is_code_1_and_an_interrupted_benchmark_130(benched, tmp_path):
    benched["failed"] = "It broke."
    assert cli.main(["bench"]) == 1
    benched["interrupted"] = True
    assert cli.main(["bench", "--out", str(tmp_path / "x.json")]) == cli.INTERRUPTED
    assert (tmp_path / "x.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--n-generate", "1"], "n_generate is 1"),
        (["--engine", "none"], "Nothing here can run the model"),
        (["--out", "nowhere/x.csv"], "cannot be written"),
        (["--out", "."], "cannot be written"),
    ],
)
def test_a_benchmark_that_cannot_be_made_is_bad_usage(benched, arguments, said, capsys):
    assert cli.main(["bench", *arguments]) == cli.USAGE_ERROR
    assert said in capsys.readouterr().err
    assert "contenders" not in benched


def test_an_engine_that_does_not_exist_is_bad_usage(capsys):
    assert cli.main(["bench", "--engine", "abacus"]) == cli.USAGE_ERROR
    assert "no engine 'abacus'" in capsys.readouterr().err


def test_predict_takes_experts_and_cache_in_ram_as_options(capsys):
    case = ["predict", "rtx 4090", "gpt-oss-120b", "--context", "8192", "--n-cpu-moe", "30"]
    assert cli.main(case) == 0
    text = capsys.readouterr().out
    assert "--n-cpu-moe 30" in text
    assert "DDR5-5600" in text
    assert cli.main([*case, "--kv-offload", "0", "--n-cpu-moe", "auto"]) == 0
    assert "the KV cache in DDR5-5600" in capsys.readouterr().out


# --- record, compare, report -------------------------------------------------------------------


@pytest.fixture
def ran(project: Path) -> Path:
    """Give the project results of two chapters, and a record of them."""
    write_run(project / "_build" / "run")
    assert cli.main(["record", "--out", "records/mine.json"]) == 0
    return project


def test_record_writes_under_records_by_machine_and_day(ran: Path, capsys):
    assert cli.main(["record"]) == 0
    path = Path("records/nvidia-geforce-rtx-3080-2026-11-23.json")
    assert capsys.readouterr().out.splitlines()[-1] == f"Written to {path}"
    assert json.loads(path.read_text())["schema_version"] == 1


def test_record_replaces_another_record_only_when_told(ran: Path, capsys):
    again = ["record", "--out", "records/mine.json"]
    assert cli.main(again) == 0  # nothing has changed
    write_run(ran / "_build/run", results_of(CHAPTERS[0], outcome="refuted"))
    assert cli.main(again) == cli.USAGE_ERROR
    assert "--replace" in capsys.readouterr().err
    assert cli.main([*again, "--replace"]) == 0


def test_record_names_what_it_left_out(ran: Path, capsys):
    (ran / "_build/run/results/12-bottlenecks.json").write_text("{")
    assert cli.main(["record", "--replace", "--out", "x.json"]) == 0
    assert "left out: 12-bottlenecks.json: " in capsys.readouterr().err


def test_compare_takes_records_by_name_and_file_and_folders_of_runs(ran: Path, capsys):
    for one in ("mine", "records/mine.json", "_build/run", "_build/run/results"):
        assert cli.main(["compare", "mine", one]) == 0
    assert "They match" in capsys.readouterr().out


def test_compare_ends_with_1_for_a_difference_and_claims_only_for_contradictions(ran: Path, capsys):
    fast = {"decode": ("tokens/s", [200.0, 201.0, 199.0])}
    write_run(ran / "fast", results_of(CHAPTERS[0], readings=fast))
    write_run(ran / "other", results_of(CHAPTERS[0], outcome="refuted"))
    assert cli.main(["compare", "mine", "fast"]) == 1
    assert cli.main(["compare", "mine", "fast", "--allow", "150"]) == 0
    assert cli.main(["compare", "mine", "fast", "--claims-only"]) == 0
    assert cli.main(["compare", "mine", "other", "--claims-only"]) == 1
    capsys.readouterr()
    assert cli.main(["compare", "mine", "fast", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["matches"] is False


def test_report_writes_three_files_beside_the_results(ran: Path, capsys):
    assert cli.main(["report"]) == 0
    paths = [f"_build/run/report/your-plan.{suffix}" for suffix in ("md", "html", "json")]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-3:] == [f"Written to {path}" for path in paths]
    assert all(Path(path).is_file() for path in paths)
    assert cli.main(["report", "_build/run/results", "--out", "plan"]) == 0
    assert Path("plan/your-plan.html").is_file()


def test_report_takes_wishes_and_prints_in_one_form(ran: Path, capsys):
    arguments = "--want llama-3-8b --budget 500 --psu 750 --memory DDR4 --no-card-slot"
    capsys.readouterr()
    assert cli.main(["report", *arguments.split(), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in data["wanted"]] == ["llama-3-8b"]
    assert not any("RTX" in row["option"] for row in data["options"])
    assert not Path("_build/run/report").exists()
    for form, begins in (("markdown", "# Your plan"), ("html", "<!doctype html>")):
        assert cli.main(["report", "--format", form]) == 0
        assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["record", "nowhere"], "There is no folder nowhere"),
        (["record", "--out", "_build/run/results/x/../11-your-machine.json/y"], "cannot be"),
        (["compare", "mine", "yours"], "There is no record yours.json"),
        (["compare", "mine", "notebooks"], "no results"),
        (["report", "nowhere"], "There is no folder nowhere"),
        (["report", "notebooks"], "no results"),
        (["report", "--want", "no-such-model"], "no-such-model"),
        (["report", "--out", "records/mine.json"], "cannot be written"),
    ],
)
def test_records_and_reports_that_cannot_be_made_are_bad_usage(ran: Path, arguments, said, capsys):
    assert cli.main(arguments) == cli.USAGE_ERROR
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "one"],
        ["compare", "a", "b", "--allow", "-1"],
        ["report", "--budget", "lots"],
        ["report", "--format", "pdf"],
    ],
)
def test_arguments_of_records_and_reports_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == cli.USAGE_ERROR


def test_outside_of_the_book_a_folder_must_be_named(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUIDEBOOK_NOTEBOOKS", raising=False)
    for command in ("record", "report"):
        assert cli.main([command]) == cli.USAGE_ERROR
        assert "The book's folder is not here" in capsys.readouterr().err
