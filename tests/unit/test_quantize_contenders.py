"""Contenders: whatever a child process does, there is a row, and no process stays."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import measure, published
from guidebook.measure import Measurement, Quality
from guidebook.measure.tasks import Question, TaskScore, score
from guidebook.quantize import _contender_child, contenders
from guidebook.quantize.contenders import Contender, ContenderError, Row

VOCABULARY = 50
WINDOWS = (tuple(range(8)), tuple(range(8, 16)))
FILE = Path("/somewhere/private/model.gguf")
ONE = Contender("one", "GGUF", "llama.cpp", FILE, weights_bytes=100)
QUALITY = Quality(8, 2.5, 0.1, 0.2, 0.02, 0.05, 0.005, 0.9, 0.01, 0.4, 1.0)


@pytest.fixture
def test(tmp_path):
    flat = np.full((4, VOCABULARY), -np.log(VOCABULARY), np.float32)
    reference = measure.Reference(WINDOWS, (flat, flat))
    text = [*range(16), *range(0, 16, 2), *range(0, 16, 3)]
    return contenders.prepare(reference, text, tmp_path, n_prompt=4, n_generate=2, repetitions=2)


@pytest.fixture
def child(monkeypatch, tmp_path):
    """Let the module of the child be a few lines; it gets the file of the job."""

    def become(source):
        name = "a_contender_child"
        Path(tmp_path, f"{name}.py").write_text(
            "import json, os, sys, time\n"
            "job = json.load(open(sys.argv[1]))\n"
            "def say(event, **values):\n"
            "    with open(job['report'], 'a') as report:\n"
            "        report.write(json.dumps({'event': event, **values}) + '\\n')\n"
            f"{source}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(contenders, "_CHILD", name)

    return become


@pytest.fixture(autouse=True)
def no_process_stays_behind():
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


# --- what a row says ---------------------------------------------------------------------------


def test_a_child_that_reports_everything_becomes_a_whole_row(child, test):
    child(
        "say('ready', seconds=0.5, weights_bytes=None)\n"
        "say('speed', prefill=[100.0, 90.0], decode=[10.0, 11.0])\n"
        "say('memory', before_bytes=1000, growth_bytes=2000)\n"
        f"say('quality', **{measure_values()!r})\n"
        "say('task', right=[True, False, True, True])\n"
    )
    row = contenders.run(ONE, test)
    assert (row.is_complete, row.prevented) == (True, "")
    assert (row.weights_bytes, row.peak_bytes, row.libraries_bytes) == (100, 2000, 1000)
    assert row.decode == Measurement("tokens/s", (10.0, 11.0))
    assert row.quality == QUALITY
    assert row.task == TaskScore((True, False, True, True))
    assert row.bits_per_weight(400) == 2.0


def measure_values():
    return asdict(QUALITY)


def test_a_way_without_a_file_has_the_size_that_its_child_adds_up(child, test):
    child("say('ready', seconds=0.5, weights_bytes=321)")
    on_load = Contender("NF4", "bitsandbytes", "transformers", FILE)
    assert contenders.run(on_load, test).weights_bytes == 321


def test_what_was_measured_before_a_crash_is_kept_and_the_crash_named(child, test):
    child(
        "say('ready', seconds=0.5, weights_bytes=None)\n"
        "open(job['report'], 'a').write('{\"event\": \"spe')\n"
        "sys.stdout.flush(); os.kill(os.getpid(), 11)"
    )
    row = contenders.run(ONE, test)
    assert row.ready_seconds == 0.5
    assert row.decode is None
    assert not row.is_complete
    assert row.prevented == "Its process did not come to its end: it crashed (SIGSEGV)."


def test_a_child_that_takes_too_long_is_ended_with_all_that_it_started(child, test, tmp_path):
    child(
        "import subprocess\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(other.pid))\n"
        "time.sleep(60)"
    )
    start = time.monotonic()
    row = contenders.run(ONE, replace(test, time_limit=2.0))
    assert time.monotonic() - start < 20
    assert "it took longer than 2.00 s and was ended" in row.prevented
    grandchild = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(grandchild) and time.monotonic() < deadline:
        if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(grandchild)


def test_a_failure_that_the_child_names_stands_in_the_row(child, test):
    child("say('failed', message='The model is not to its liking.')")
    assert contenders.run(ONE, test).prevented == "The model is not to its liking."


def test_a_childs_last_words_do_not_publish_where_the_model_lies(child, test):
    child("print(job['contender']['source'], 'is bad'); sys.exit(3)")
    said = contenders.run(ONE, test).prevented
    assert "status 3" in said
    assert "model.gguf is bad" in said
    assert "private" not in said


def test_a_missing_package_is_named_without_starting_a_process(test, monkeypatch):
    monkeypatch.setattr(contenders.lifeline, "start", lambda *_: pytest.fail("started"))
    wants = Contender("x", "x", "transformers", FILE, needs=("json", "notapackage"))
    assert contenders.run(wants, test).prevented == (
        "notapackage is not installed. Run: pip install notapackage"
    )


def test_a_process_that_cannot_start_becomes_a_row(test, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(contenders.lifeline, "start", refuse)
    said = contenders.run(ONE, test).prevented
    assert said == "Its process could not be started: Cannot allocate memory."


def test_a_file_that_is_no_model_becomes_a_row(test, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    row = contenders.run(Contender("broken", "GGUF", "llama.cpp", broken), test)
    assert row.prevented.startswith("llama.cpp could not load broken.gguf.")
    assert str(tmp_path) not in row.prevented


def test_rows_print_their_figures_or_their_obstacle():
    speed = Measurement("tokens/s", (10.0,))
    row = Row(ONE, quality=QUALITY, decode=speed, peak_bytes=2**20)
    assert str(row) == "one: 0.050 nats, 1.00 MiB, 10.0 tokens/s"
    assert str(contenders.absent("EXL2", "ExLlama", "It needs a GPU.")) == "EXL2: It needs a GPU."


def test_the_tables_show_what_was_measured_and_what_was_not():
    measured = Row(ONE, 100, 0.5, quality=QUALITY, task=TaskScore((True, True, False, True)))
    timed = replace(measured, decode=Measurement("tokens/s", (8.0, 10.0, 12.0)))
    lost = contenders.absent("two", "x", "Because.")
    shown = contenders.comparison([measured, lost], 400, "c")
    assert [row["way"] for row in shown.rows] == ["one"]
    assert shown.rows[0]["bits"] == "2.00"
    assert shown.rows[0]["KL divergence (nats)"] == "0.0500 ± 0.0050"
    assert (shown.rows[0]["decode (tok/s)"], shown.caption) == ("–", "c")
    shown = contenders.comparison([timed, lost], 400, "c")
    assert shown.rows[0]["decode (tok/s)"] == "10.0"
    assert shown.caption == f"c; readings of a speed at most {timed.decode.spread:.0%} apart"
    why = contenders.obstacles([measured, lost], "c")
    assert why.rows == [{"way": "two", "why": "Because."}]


def test_neighbouring_answers_count_as_less_than_independent_ones():
    alternating = Row(ONE, task=TaskScore((True, False) * 200))
    in_blocks = Row(ONE, task=TaskScore(((True,) * 50 + (False,) * 50) * 4))
    assert alternating.task_error < 0.01 < in_blocks.task_error
    assert Row(ONE).task_error is None


# --- the test that all take --------------------------------------------------------------------


texts = st.lists(st.integers(0, 6), min_size=24, max_size=120)


@given(texts, st.integers(0, 5))
def test_every_question_has_its_answer_and_three_other_followers(text, seed):
    windows = [tuple(text[:12]), tuple(text[12:24])]
    asked = contenders.questions(windows, text, seed)
    follow = set(itertools.pairwise(text))
    for one in asked:
        window = windows[one.window]
        assert 6 <= one.position < 12
        assert one.choices[one.answer] == window[one.position]
        assert len(set(one.choices)) == 4
        before = window[one.position - 1]
        wrong = set(one.choices) - {window[one.position]}
        assert all((before, token) in follow for token in wrong)
    assert asked == contenders.questions(windows, text, seed)


def test_the_reference_is_written_once_for_all(test):
    stored = np.load(test.folder / "log_probs.npy", mmap_mode="r")
    assert stored.shape == (2, 4, VOCABULARY)
    assert test.windows == WINDOWS
    assert test.prompt == (0, 1, 2, 3)


def test_a_text_too_short_for_the_prompt_is_refused(tmp_path):
    reference = measure.Reference(WINDOWS, (np.zeros((4, 2), np.float32),) * 2)
    with pytest.raises(ContenderError, match="3 tokens, and the prompt needs 4"):
        contenders.prepare(reference, [1, 2, 3], tmp_path, n_prompt=4)


def test_windows_of_several_lengths_are_refused(tmp_path):
    reference = measure.Reference(((1, 2, 3, 4), (1, 2)), (np.zeros((2, 2), np.float32),) * 2)
    with pytest.raises(ContenderError, match="same length"):
        contenders.prepare(reference, [1, 2, 3, 4], tmp_path, n_prompt=2)


# --- the Pareto front --------------------------------------------------------------------------


points = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    max_size=12,
)


@given(points)
def test_a_point_is_on_the_front_exactly_if_none_dominates_it(found):
    on_front = contenders.front(found)
    for name, (x, y) in found.items():
        dominated = any(a <= x and b <= y and (a < x or b < y) for a, b in found.values())
        assert (name in on_front) != dominated
    # From left to right the front only falls.
    values = [found[name] for name in on_front]
    assert values == sorted(values)
    assert [y for _, y in values] == sorted((y for _, y in values), reverse=True)


def test_the_figure_leaves_out_what_cannot_be_drawn():
    speed = Measurement("tokens/s", (10.0,))
    drawn = Row(ONE, 10**6, quality=QUALITY, decode=speed)
    nothing_lost = replace(QUALITY, kl_divergence=0.0)
    whole = Row(replace(ONE, name="whole"), 10**6, quality=nothing_lost, decode=speed)
    figure = contenders.pareto([drawn, whole, contenders.absent("two", "x", "y")])
    assert [text.get_text() for text in figure.axes[0].texts] == ["one"]


# --- the child ---------------------------------------------------------------------------------


class Counting:
    """An engine whose logits tell what it has read; it counts how often it is asked."""

    name = "counting"

    def __init__(self):
        self.calls = 0

    def logits(self, tokens, first=0):
        self.calls += 1
        rows = np.cumsum(np.eye(VOCABULARY, dtype=np.float32)[list(tokens)], axis=0)
        return rows[first:]


def test_questions_are_answered_from_the_windows_that_were_read():
    engine = Counting()
    remembering = _contender_child.Remembering(engine, WINDOWS)
    for window in WINDOWS:
        remembering.logits(window, first=3)
    for window in WINDOWS:
        for position in range(4, 8):
            kept = remembering.logits(window[:position], first=position - 1)
            direct = Counting().logits(window[:position], first=position - 1)
            assert np.array_equal(kept, direct)
    assert engine.calls == len(WINDOWS)
    remembering.logits((30, 31, 32), first=2)
    assert engine.calls == len(WINDOWS) + 1


def test_a_cloze_becomes_a_question_of_the_task():
    cloze = {"window": 1, "position": 6, "choices": [1, 14, 3, 4], "answer": 1}
    (asked,) = _contender_child._questions({"windows": WINDOWS, "questions": [cloze]})
    assert asked == Question(WINDOWS[1][:6], ((1,), (14,), (3,), (4,)), 1)
    # An engine that repeats what it has seen prefers 8 to 13, and cannot know 14.
    assert score(Counting(), [asked]).n_questions == 1


def test_held_bytes_count_shared_tensors_once_and_the_rest_in_16_bits():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    )
    model[1].weight = model[0].weight
    assert _contender_child.held_bytes(model, rest_in_16_bits=False) == 64 * 4
    assert _contender_child.held_bytes(model, rest_in_16_bits=True) == 64 * 2


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_held_bytes_look_inside_torchaos_tensors():
    import logging

    for chatty in ("torchao", "torch.utils._pytree"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL + 1)
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = torch.nn.Sequential(torch.nn.Embedding(10, 64), torch.nn.Linear(64, 32, bias=False))
    quantize_(model, Int8WeightOnlyConfig())
    whole = _contender_child.held_bytes(model, rest_in_16_bits=True)
    matrix, table = 32 * 64, 2 * 10 * 64
    assert matrix + table < whole <= matrix + table + 32 * 8


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no good.\nAnd more"), "ValueError: no good."),
        (RuntimeError(), "RuntimeError, without a word."),
    ],
)
def test_a_foreign_error_becomes_one_sentence(error, said):
    assert _contender_child._sentence(error) == said


def test_our_own_errors_are_sentences_already():
    from guidebook.engines import EngineError

    assert _contender_child._sentence(EngineError("It is closed. Load it.")) == (
        "It is closed. Load it."
    )


def test_the_childs_job_fits_what_the_parent_writes(test, monkeypatch):
    """The child reads the fields that the parent's dataclasses have."""
    seen = {}

    def start(command):
        import json

        seen.update(json.loads(Path(command[-1]).read_text()))
        raise OSError(1, "no")

    monkeypatch.setattr(contenders.lifeline, "start", start)
    contenders.run(ONE, test)
    assert seen["contender"]["source"] == str(FILE)
    assert {"engine", "config", "options", "dtype", "needs"} <= set(seen["contender"])
    names = {"windows", "questions", "prompt", "n_generate", "repetitions", "n_threads", "device"}
    assert names | {"n_gpu_layers"} <= set(seen["test"])
    assert Path(seen["log_probs"]).is_file()


def test_the_config_is_made_from_its_name(monkeypatch):
    made = SimpleNamespace(
        BitsAndBytesConfig=lambda **options: ("bnb", options),
        TorchAoConfig=lambda inner: ("ao", inner),
    )
    quantization = SimpleNamespace(Int8WeightOnlyConfig=lambda **options: ("int8", options))
    monkeypatch.setitem(sys.modules, "transformers", made)
    monkeypatch.setattr(_contender_child, "import_module", lambda _: quantization)
    assert _contender_child._config("", {}) is None
    assert _contender_child._config("BitsAndBytesConfig", {"a": 1}) == ("bnb", {"a": 1})
    assert _contender_child._config("Int8WeightOnlyConfig", {}) == ("ao", ("int8", {}))


# --- published ---------------------------------------------------------------------------------


def test_published_rises_are_those_of_the_tables():
    rises = contenders.published_rises()
    q4 = next(
        one for one in published.files() if (one.model, one.quant) == ("Llama-3-70B", "Q4_K_M")
    )
    f16 = next(one for one in published.files() if (one.model, one.quant) == ("Llama-3-70B", "F16"))
    assert rises["Llama-3-70B", "Q4_K_M"] == pytest.approx(q4.perplexity / f16.perplexity - 1)
    assert rises["Llama-2-7B", "AWQ INT4-g128"] == pytest.approx(5.60 / 5.47 - 1)
    assert rises["Llama-3-8B", "Q2_K"] == pytest.approx(0.564849)
    assert all(kind not in ("F16", "FP16") for _, kind in rises)
    shown = contenders.rises_table(("Llama-3-8B", "none"), ("Q2_K",), "c")
    assert shown.rows == [{"format": "Q2_K", "Llama-3-8B": "+56.5%", "none": "–"}]
