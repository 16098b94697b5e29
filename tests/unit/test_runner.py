"""Headless runs, with small chapters that load no model."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import runner
from guidebook._worker import MARKER, ChapterError, scrub, scrub_notebook
from guidebook.runner import RunError, Status, Summary

if TYPE_CHECKING:
    from conftest import WriteChapter

GUIDEBOOK = [sys.executable, "-m", "guidebook.cli"]


def artifacts(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def statuses(summary: Summary) -> dict[str, str]:
    return {run.chapter[:2]: run.status.value for run in summary.runs}


def stored_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- One run of several chapters, looked at from several sides ------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a start-up file that would break every chapter."""
    home = tmp_path_factory.mktemp("home") / "zaphod"
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-own.py").write_text("profile = 'spoilt by a start-up file'\n")
    return home


@pytest.fixture(scope="module")
def finished(
    write_chapter: WriteChapter, tmp_path_factory: pytest.TempPathFactory, home: Path
) -> tuple[Path, Path, Summary]:
    """Run four chapters: one in order, one with an error, one with no results, one with a server.

    Returns the notebooks' folder, the run's folder and the summary.
    """
    base = tmp_path_factory.mktemp("run")
    notebooks, out = base / "notebooks", base / "out"
    write_chapter(
        notebooks,
        "11-in-order",
        [
            "from pathlib import Path\nprint(Path.home() / 'models')",
            "import os\nprint(os.environ['PYTHONHASHSEED'], os.environ['TOKENIZERS_PARALLELISM'])",
            "print('repeats', repr(repeats), 'profile', profile, 'cwd', Path.cwd().name)",
        ],
        "repeats = 3\n",
    )
    write_chapter(notebooks, "12-error", ["import os", "raise ValueError('no such weight')"])
    write_chapter(notebooks, "13-no-results", ["print('forgot to save')"], save=False)
    write_chapter(
        notebooks,
        "14-server",
        [
            "import subprocess\n"
            "server = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
            "print('pid', server.pid)"
        ],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        summary = runner.run(
            runner.find_chapters([], notebooks),
            out=out,
            parameters={"repeats": "5"},
            profile="full",
            workers=2,
        )
    return notebooks, out, summary


def test_a_failing_chapter_does_not_stop_the_others(
    finished: tuple[Path, Path, Summary],
) -> None:
    _, _, summary = finished
    assert statuses(summary) == {"11": "done", "12": "failed", "13": "failed", "14": "done"}
    assert summary.exit_code == 1


def test_a_chapters_error_is_told_with_name_message_and_cell(
    finished: tuple[Path, Path, Summary],
) -> None:
    _, out, summary = finished
    # The parameters are given, so that the cell after them is [3].
    assert summary.runs[1].error == ChapterError("ValueError", "no such weight", 4)
    told = "12-error: ValueError in cell [4]: no such weight"
    assert told in str(summary)
    assert told in (out / "summary.md").read_text()


def test_a_chapter_without_results_has_failed(finished: tuple[Path, Path, Summary]) -> None:
    _, out, summary = finished
    error = summary.runs[2].error
    assert error is not None
    assert "no results file 13-no-results.json" in error.message
    assert not (out / "notebooks" / "13-no-results.ipynb").exists()
    assert (out / "failed" / "13-no-results.ipynb").exists()


def test_claims_are_counted_from_the_results(finished: tuple[Path, Path, Summary]) -> None:
    _, out, summary = finished
    assert summary.runs[0].claims == runner.Verdicts(held=2, refuted=1, not_tested=1)
    saved = json.loads((out / "summary.json").read_text())
    assert saved["chapters"][0]["claims"] == {"held": 2, "refuted": 1, "not_tested": 1}
    assert saved["parameters"] == {"repeats": "5", "profile": "full"}


def test_a_run_leaves_exactly_the_artifacts_it_promises(
    finished: tuple[Path, Path, Summary],
) -> None:
    _, out, _ = finished
    done = ("11-in-order", "14-server")
    failed = ("12-error", "13-no-results")
    assert artifacts(out) == {
        ".lock",
        "summary.json",
        "summary.md",
        *(f"{folder}/{name}.json" for folder in ("state", "results") for name in done),
        *(f"notebooks/{name}.ipynb" for name in done),
        *(f"failed/{name}.{suffix}" for suffix in ("ipynb", "log") for name in failed),
    }


def test_chapters_run_in_the_books_environment_with_typed_parameters(
    finished: tuple[Path, Path, Summary],
) -> None:
    _, out, _ = finished
    text = stored_text(out / "notebooks" / "11-in-order.ipynb")
    assert "0 false" in text
    assert "repeats 5 profile full cwd out" in text


def test_executed_notebooks_tell_nobodys_name(
    finished: tuple[Path, Path, Summary], home: Path
) -> None:
    _, out, _ = finished
    for path in [*out.rglob("*.ipynb"), *out.rglob("*.json"), *out.rglob("*.md")]:
        assert str(home) not in stored_text(path), path
        assert str(out) not in stored_text(path), path
    executed = stored_text(out / "notebooks" / "11-in-order.ipynb")
    assert "~/models" in executed  # the planted path was there, and was taken out
    papermill = nbformat.read(out / "notebooks" / "11-in-order.ipynb", 4).metadata.papermill
    assert papermill.input_path == "notebooks/11-in-order.ipynb"
    assert papermill.output_path == "11-in-order.ipynb"
    assert "environment_variables" not in papermill


def test_what_a_chapter_started_ends_with_it(finished: tuple[Path, Path, Summary]) -> None:
    _, out, _ = finished
    assert re.search(r"pid \d+", stored_text(out / "notebooks" / "14-server.ipynb"))
    assert processes_of_run(out) == []


def test_the_same_run_again_executes_only_what_failed_and_leaves_the_same_artifacts(
    finished: tuple[Path, Path, Summary],
) -> None:
    notebooks, out, _ = finished
    before = artifacts(out)
    executed = (out / "notebooks" / "11-in-order.ipynb").stat().st_mtime_ns
    again = runner.run(
        runner.find_chapters(["11", "12", "14"], notebooks),
        out=out,
        parameters={"repeats": "5", "profile": "full"},
    )
    assert statuses(again) == {"11": "already done", "12": "failed", "14": "already done"}
    assert again.runs[0].claims == runner.Verdicts(2, 1, 1)
    assert (out / "notebooks" / "11-in-order.ipynb").stat().st_mtime_ns == executed
    assert artifacts(out) == before


# --- What makes a finished chapter count as not done ----------------------------------------


@pytest.fixture
def batch_of_one(write_chapter: WriteChapter, tmp_path: Path) -> Callable[..., bool]:
    """Return a function that says whether a chapter counts as done, without executing any."""
    out = tmp_path / "out"
    path = write_chapter(tmp_path / "notebooks", "11-one")
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF1")

    def parts(**parameters: str) -> tuple[runner._Batch, runner._Task]:
        return (
            runner._Batch(out, -1, 60, runner.Silent()),
            runner._Task(path, {"model": str(model), **parameters}),
        )

    batch, task = parts()
    for folder in ("state", "notebooks", "results"):
        (out / folder).mkdir(parents=True)
    (out / "state" / "11-one.json").write_text(json.dumps({"key": batch._key(task), "seconds": 1}))
    (out / "notebooks" / "11-one.ipynb").write_text("{}")
    results = {
        "schema_version": 1,
        "chapter": "11-one",
        "created": "2026-11-23T12:00:00Z",
        "guidebook": "0.1.0",
        "parameters": {"model": "embedded", "device": "cpu", "profile": "quick"},
        "machine": {},
        "measurements": {},
        "claims": [],
    }
    (out / "results" / "11-one.json").write_text(json.dumps(results))

    def is_done(**parameters: str) -> bool:
        batch, task = parts(**parameters)
        return batch._already_done("11-one", batch._key(task)) is not None

    assert is_done()
    return is_done


def test_an_edited_notebook_is_executed_again(
    write_chapter: WriteChapter, batch_of_one: Callable[..., bool], tmp_path: Path
) -> None:
    write_chapter(tmp_path / "notebooks", "11-one", ["print('new')"])
    assert not batch_of_one()


def test_another_parameter_is_executed_again(batch_of_one: Callable[..., bool]) -> None:
    assert not batch_of_one(profile="full")


def test_a_replaced_model_file_is_executed_again(
    batch_of_one: Callable[..., bool], tmp_path: Path
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF2, another one")
    assert not batch_of_one()


@pytest.mark.parametrize("artifact", ["notebooks/11-one.ipynb", "results/11-one.json"])
def test_a_lost_artifact_is_made_again(
    batch_of_one: Callable[..., bool], tmp_path: Path, artifact: str
) -> None:
    (tmp_path / "out" / artifact).unlink()
    assert not batch_of_one()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"key": 1}', "null"])
def test_an_unreadable_state_counts_as_not_done(
    batch_of_one: Callable[..., bool], tmp_path: Path, content: str
) -> None:
    (tmp_path / "out" / "state" / "11-one.json").write_text(content)
    assert not batch_of_one()


def test_a_library_in_another_version_is_executed_again(
    batch_of_one: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_version", lambda name: "0.0.1")
    assert not batch_of_one()


def test_a_changed_data_file_of_the_package_changes_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "files", lambda name: tmp_path)
    (tmp_path / "claims.toml").write_text("limit = 3\n")
    before = runner._package_hash()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "units.pyc").write_bytes(b"compiled")
    assert runner._package_hash() == before
    (tmp_path / "claims.toml").write_text("limit = 4\n")
    assert runner._package_hash() != before


# --- The chapters that read what the others found -------------------------------------------

_SEES = "import os\nprint('sees', sorted(os.listdir('results')))"


def test_chapters_of_the_last_part_wait_for_all_others_whatever_the_order(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    notebooks, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("11-one", "61-two"):
        write_chapter(notebooks, name, ["import time", "time.sleep(1)"])
    write_chapter(notebooks, "71-plan", [_SEES])
    summary = runner.run(runner.find_chapters(["71", "61", "11"], notebooks), out=out, workers=3)
    assert [run.chapter[:2] for run in summary.runs] == ["71", "61", "11"]
    assert set(statuses(summary).values()) == {"done"}
    assert "sees ['11-one.json', '61-two.json']" in stored_text(out / "notebooks" / "71-plan.ipynb")


def test_a_chapter_of_the_last_part_runs_again_when_another_chapters_results_have_changed(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    notebooks, out = tmp_path / "notebooks", tmp_path / "out"
    chapters = [write_chapter(notebooks, "11-one"), write_chapter(notebooks, "71-plan")]
    runner.run(chapters, out=out)
    assert statuses(runner.run(chapters, out=out)) == {"11": "already done", "71": "already done"}
    results = out / "results" / "11-one.json"
    results.write_text(results.read_text().replace("T12:", "T13:"))
    assert statuses(runner.run(chapters, out=out)) == {"11": "already done", "71": "done"}
    # A chapter that fails leaves no results; the last part does without them.
    chapters[0] = write_chapter(notebooks, "11-one", ["raise ValueError('no')"])
    assert statuses(runner.run(chapters, out=out)) == {"11": "failed", "71": "done"}


# --- Parameters -----------------------------------------------------------------------------


@pytest.fixture
def two_chapters(write_chapter: WriteChapter, tmp_path: Path) -> list[Path]:
    return [
        write_chapter(tmp_path, "11-plain"),
        write_chapter(
            tmp_path,
            "12-own",
            parameters="repeats: int = 3\nlimit = 0.5\nstrict = False\nseed = None\n",
        ),
    ]


def test_an_unknown_parameter_is_refused_with_the_known_ones_and_the_closest(
    two_chapters: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"repeat; there are device, limit, .*Did you mean repeats"):
        runner.run(two_chapters, out=tmp_path / "out", parameters={"repeat": 4})
    assert not (tmp_path / "out").exists()


def test_a_parameter_goes_only_to_the_chapters_that_know_it(two_chapters: list[Path]) -> None:
    plain, own = two_chapters
    bound = runner.bind(two_chapters, {"repeats": "4", "model": "embedded"})
    assert bound[plain] == {"model": "embedded"}
    assert bound[own] == {"repeats": 4, "model": "embedded"}


def test_no_parameters_give_none_to_any_chapter(two_chapters: list[Path]) -> None:
    assert runner.bind(two_chapters, {}) == {path: {} for path in two_chapters}


@pytest.mark.parametrize(
    ("name", "given", "bound"),
    [
        ("repeats", "7", 7),
        ("repeats", 7, 7),
        ("limit", "0.25", 0.25),
        ("limit", "1", 1),
        ("strict", "True", True),
        ("seed", "12", 12),
        ("seed", "None", None),
        ("seed", "a word", "a word"),
        ("model", "7", "7"),
        ("model", "None", "None"),
    ],
)
def test_a_value_is_read_as_the_type_of_its_default(
    two_chapters: list[Path], name: str, given: runner.Value, bound: runner.Value
) -> None:
    value = runner.bind(two_chapters, {name: given})[two_chapters[1]][name]
    assert value == bound
    assert type(value) is type(bound)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("repeats", "many", "a whole number"),
        ("repeats", "1.5", "a whole number"),
        ("repeats", "True", "a whole number"),
        ("limit", "half", "a number"),
        ("strict", "true", "True or False"),
        ("strict", "1", "True or False"),
        ("model", 7, "a text"),
    ],
)
def test_a_value_of_another_type_is_refused(
    two_chapters: list[Path], name: str, given: runner.Value, wanted: str
) -> None:
    with pytest.raises(RunError, match=f"{name} must be {wanted}"):
        runner.bind(two_chapters, {name: given})


def test_the_results_folder_cannot_be_moved(two_chapters: list[Path]) -> None:
    with pytest.raises(RunError, match="results_dir"):
        runner.bind(two_chapters, {"results_dir": "elsewhere"})


def test_two_profiles_are_refused(two_chapters: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="twice"):
        runner.run(two_chapters, out=tmp_path, parameters={"profile": "quick"}, profile="full")


def test_a_models_relative_path_still_names_it_from_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert runner._absolute("model", "tiny.gguf") == str(tmp_path / "tiny.gguf")
    assert runner._absolute("model", "org/name") == "org/name"
    assert runner._absolute("device", "tiny.gguf") == "tiny.gguf"


# --- Finding chapters -----------------------------------------------------------------------


@pytest.fixture
def project(write_chapter: WriteChapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("32-inference-with-llama-cpp", "11-your-machine", "42-quantization-gguf"):
        write_chapter(tmp_path / "notebooks", name)
    (tmp_path / "notebooks" / "scratch.ipynb").write_text("{}")
    monkeypatch.delenv("GUIDEBOOK_NOTEBOOKS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stems(paths: list[Path]) -> list[str]:
    return [path.stem[:2] for path in paths]


def test_no_name_means_every_chapter_in_order(project: Path) -> None:
    assert stems(runner.find_chapters([])) == ["11", "32", "42"]


def test_a_chapter_is_found_by_number_name_and_path(project: Path) -> None:
    names = ["42", "11-your-machine", "notebooks/32-inference-with-llama-cpp.ipynb", "42"]
    assert stems(runner.find_chapters(names)) == ["42", "11", "32"]


def test_chapters_are_found_from_a_folder_below(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "book" / "_static"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert stems(runner.find_chapters(["42"])) == ["42"]


def test_the_environment_can_say_where_the_chapters_are(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(RunError, match="--notebooks DIR"):
        runner.find_chapters([])
    monkeypatch.setenv("GUIDEBOOK_NOTEBOOKS", str(project / "notebooks"))
    assert len(runner.find_chapters([])) == 3
    with pytest.raises(RunError, match="holds no chapter"):
        runner.find_chapters([], elsewhere)


@pytest.mark.parametrize("name", ["43", "4", "quantization", "", "*", "42-quantisation-gguf"])
def test_an_unknown_chapter_is_refused_with_the_known_ones(project: Path, name: str) -> None:
    with pytest.raises(RunError, match=r"there are 11-your-machine, 32-inf.*, 42-quant"):
        runner.find_chapters([name])


def test_a_nearly_right_chapter_is_suggested(project: Path) -> None:
    with pytest.raises(RunError, match=r"Did you mean 42-quantization-gguf\?"):
        runner.find_chapters(["42-quantisation-gguf"])


def test_a_missing_path_is_refused_by_name(project: Path) -> None:
    with pytest.raises(RunError, match=r"no notebook notebooks/43-none\.ipynb"):
        runner.find_chapters(["notebooks/43-none.ipynb"])


def test_two_notebooks_of_one_name_are_refused(
    write_chapter: WriteChapter, project: Path, tmp_path: Path
) -> None:
    other = write_chapter(tmp_path / "other", "11-your-machine")
    with pytest.raises(RunError, match="Two different notebooks"):
        runner.find_chapters(["11", str(other)])


# --- Chapters that hang, die or leave things behind -----------------------------------------


def test_a_hung_cell_fails_its_chapter_and_names_the_cell(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    chapter = write_chapter(tmp_path, "11-hangs", ["import time", "time.sleep(300)"])
    begun = time.monotonic()
    summary = runner.run([chapter], out=tmp_path / "out", cell_timeout=1)
    assert time.monotonic() - begun < 30
    assert summary.runs[0].error == ChapterError(
        "CellTimeoutError", "the cell took more than 1 s", 3
    )
    assert processes_of_run(tmp_path / "out") == []


def test_a_dead_kernel_fails_its_chapter_and_says_what_kills_kernels(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    chapter = write_chapter(tmp_path, "11-dies", ["import os\nos.kill(os.getpid(), 9)"])
    error = runner.run([chapter], out=tmp_path / "out").runs[0].error
    assert error is not None
    assert (error.name, error.cell) == ("DeadKernelError", 2)
    assert "memory" in error.message


def test_a_killed_worker_fails_its_chapter_and_leaves_no_kernel(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    source = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(300)"
    chapter = write_chapter(tmp_path, "11-orphan", ["print('before')", source])
    error = runner.run([chapter], out=tmp_path / "out").runs[0].error
    assert error is not None
    assert error.name == "WorkerDied"
    assert "killed" in error.message
    assert processes_of_run(tmp_path / "out") == []


def test_no_two_runs_write_to_one_folder(
    write_chapter: WriteChapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = write_chapter(tmp_path, "11-one")
    monkeypatch.setattr(runner, "_STOP_TIMEOUT", 0.2)
    with (
        runner._only_run_in(tmp_path / "out"),
        pytest.raises(RunError, match="Another run is writing"),
    ):
        runner.run([chapter], out=tmp_path / "out")


def test_a_folder_that_cannot_be_written_to_is_refused(
    write_chapter: WriteChapter, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(RunError, match="cannot be written to"):
        runner.run([write_chapter(tmp_path, "11-one")], out=tmp_path / "out")


# --- Runs that are killed -------------------------------------------------------------------


def processes_of_run(out: Path) -> list[psutil.Process]:
    """Every process, orphans too, whose environment says that it belongs to a run in ``out``."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARKER in environment and environment.get("IPYTHONDIR", "").startswith(str(out)):
            found.append(process)
    return found


def names_of_run(out: Path) -> set[str]:
    names = set()
    for process in processes_of_run(out):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            names.add(process.name())
    return names


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def sleepers(write_chapter: WriteChapter, tmp_path: Path) -> Path:
    """Four chapters that count their executions; the second sleeps on its first one."""
    for name in ("11-first", "12-second", "13-third", "14-fourth"):
        count = (
            f"with open({str(tmp_path / 'count')!r}, 'a') as count:\n"
            f"    count.write('{name[:2]} ')\n"
        )
        first_time = f"open({str(tmp_path / 'count')!r}).read().split().count('12') == 1"
        sleep = f"import subprocess\nif {first_time}: subprocess.run(['sleep', '300'])"
        cells = [count, sleep] if name == "12-second" else [count]
        write_chapter(tmp_path / "notebooks", name, cells)
    return tmp_path


@pytest.fixture
def start(sleepers: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a run and returns when its second chapter sleeps."""
    processes: list[subprocess.Popen[str]] = []

    def start(*chapters: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*GUIDEBOOK, "run", *chapters, "--out", str(sleepers / "out")],
            cwd=sleepers,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert eventually(lambda: "sleep" in names_of_run(sleepers / "out"), 60)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_kill_9_leaves_no_process_and_the_next_run_executes_only_what_is_missing(
    sleepers: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    out = sleepers / "out"
    process = start()
    assert len(processes_of_run(out)) >= 3  # worker, kernel, and what the chapter started
    process.kill()
    process.wait()
    assert eventually(lambda: processes_of_run(out) == [], 10)
    assert (sleepers / "count").read_text().split() == ["11", "12"]
    assert (out / "notebooks" / "11-first.ipynb").exists()

    again = runner.run(runner.find_chapters([], sleepers / "notebooks"), out=out, workers=2)
    assert statuses(again) == {"11": "already done", "12": "done", "13": "done", "14": "done"}
    assert sorted((sleepers / "count").read_text().split()) == ["11", "12", "12", "13", "14"]
    assert not (out / ".partial").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_in_order(
    sleepers: Path, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    out = sleepers / "out"
    process = start("12", "14")
    process.send_signal(number)
    shown, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert processes_of_run(out) == []
    assert "Traceback" not in told
    assert "the same command goes on from here" in told
    assert re.search(r"12-second\s+stopped", shown)
    assert re.search(r"14-fourth\s+stopped", shown)
    assert json.loads((out / "summary.json").read_text())["interrupted"] is True
    assert not (out / ".partial").exists()


# --- Privacy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/zaphod/models/a.gguf", "~/models/a.gguf"),
        ('"/home/zaphod"', '"~"'),
        ("/home/zaphodine/x", "/home/user/x"),
        ("/Users/trillian/x and /home/ford", "/Users/user/x and /home/user"),
        ("/mnt/c/Users/arthur/x", "/mnt/c/Users/user/x"),
        ("on heart-of-gold-2 now", "on host now"),
        ("heart-of-gold-2.local", "host.local"),
        ("https://example.org/home/page", "https://example.org/home/page"),
        ("heart of gold", "heart of gold"),
    ],
)
def test_scrubbing_takes_out_names_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, text: str, clean: str
) -> None:
    monkeypatch.setenv("HOME", "/home/zaphod")
    monkeypatch.setattr("socket.gethostname", lambda: "heart-of-gold-2")
    assert scrub(text) == clean


@given(st.text())
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


def test_a_host_named_with_a_plain_word_does_not_rewrite_the_book(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    assert scrub("On a laptop") == "On a laptop"


def test_outputs_metadata_and_parameters_are_scrubbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/zaphod")
    output = nbformat.v4.new_output("stream", text="/home/zaphod/a\n")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("model = '/home/zaphod/b'", outputs=[output])],
        metadata={
            "papermill": {
                "parameters": {"model": "/home/zaphod/b"},
                "environment_variables": {"USER": "zaphod"},
            }
        },
    )
    nbformat.write(notebook, tmp_path / "a.ipynb")
    scrub_notebook(tmp_path / "a.ipynb", "notebooks/a.ipynb")
    assert "zaphod" not in stored_text(tmp_path / "a.ipynb")


# --- The summary ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "interrupted", "code"),
    [
        ([Status.DONE, Status.ALREADY_DONE], False, 0),
        ([Status.DONE, Status.FAILED], False, 1),
        ([Status.FAILED, Status.STOPPED], True, 130),
        ([], False, 0),
    ],
)
def test_the_exit_code_says_how_the_run_ended(
    ends: list[Status], interrupted: bool, code: int
) -> None:
    runs = tuple(runner.ChapterRun(f"1{n}-x", status) for n, status in enumerate(ends))
    assert Summary(runs, {}, interrupted).exit_code == code


def test_an_unknown_time_is_shown_as_unknown() -> None:
    assert "unknown" in str(Summary((runner.ChapterRun("11-x", Status.STOPPED),), {}))
