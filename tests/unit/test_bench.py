"""The benchmark: the same work for all, and a sentence for whatever goes wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import bench, texts
from guidebook.bench import (
    BenchError,
    Contender,
    Report,
    Settings,
    contenders,
    loading,
    pages,
    passages,
    results,
    running,
    worker,
)
from guidebook.engines import EngineError
from guidebook.engines.base import Answer, Reported
from guidebook.machine.processes import MemoryUse

SMALL = Settings(n_prompt=8, n_generate=4, repetitions=2, loads=0, concurrency=(1, 2))


# --- contenders and settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Contender("llamacpp"), "no engine 'llamacpp'"),
        (lambda: Contender("openai"), "base_url"),
        (lambda: Settings(n_generate=1), "n_generate is 1; it must be at least 2"),
        (lambda: Settings(repetitions=0), "repetitions is 0"),
        (lambda: Settings(concurrency=(1, 0)), "concurrency is 0"),
        (lambda: Settings(n_threads=0), "n_threads is 0"),
        (lambda: Settings(n_prompt=300, n_generate=100, n_ctx=256), "raise n_ctx to 400"),
        (lambda: Settings.of("fast"), "no profile 'fast'"),
        (lambda: bench.run([]), "at least one contender"),
        (lambda: bench.run([Contender("ollama"), Contender("ollama")]), "called 'Ollama'"),
        (lambda: bench.available(engines=["vllm"]), "no engine 'vllm'"),
        (lambda: bench.available(engines=["ollama"], servers=["ftp://x"]), "a server's address"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(make, said):
    with pytest.raises(BenchError, match=said):
        make()


def test_settings_and_contenders_survive_json():
    settings = Settings(concurrency=[1, 8], n_ctx=512)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    contender = Contender("transformers", options={"dtype": "bfloat16"})
    assert Contender(**json.loads(json.dumps(contender.to_dict()))) == contender
    assert contender.label == "transformers bfloat16"


def test_the_context_holds_prompt_and_answer_of_a_wasteful_tokenizer():
    assert Settings().context == 2048
    assert Settings(n_prompt=4096, n_generate=512).context >= (4096 + 512) * 1.5


@pytest.mark.parametrize(
    ("model", "names", "found"),
    [
        ("embedded", ["gemma3:1b", "smollm2:135m"], "smollm2:135m"),
        ("embedded", ["smollm2:1.7b", "smollm2:360m"], None),
        ("meta-llama/Llama-3.2-1B-Instruct", ["llama3.2:1b-instruct-q4_K_M"], "llama3.2:1b-ins"),
        ("meta-llama/Llama-3.2-1B-Instruct", ["llama-3.2-11b-vision"], None),
        ("/models/Qwen2.5-0.5B-Q8_0.gguf", ["qwen2.5-0.5b-instruct"], "qwen2.5-0.5b"),
        ("embedded", [], None),
    ],
)
def test_a_model_is_recognized_under_a_servers_name_for_it(model, names, found):
    same = contenders.same_model(model, names)
    assert same is None if found is None else same.startswith(found)


# --- prompts ---------------------------------------------------------------------------------


TEXT = passages.plain(texts.load("python-topics"))


def words(text: str) -> int:
    return len(text.split())


def test_rules_and_indentation_are_no_part_of_prompts():
    assert passages.plain("Title\n*****\n\n   a, b ... ====== c\n") == "Title a, b ... c"


@given(st.integers(1, 40))
def test_no_two_prompts_begin_alike(count):
    begun = [TEXT[place : place + 12] for place in passages.starts(TEXT, count)]
    assert len(set(begun)) == count


@given(st.integers(1, 2000), st.integers(0, 100_000))
def test_a_prompt_has_the_wanted_number_of_tokens(n_tokens, start):
    start = passages._next_word(TEXT, start)
    length = passages.cut(TEXT, start, n_tokens, words)
    counted = words(passages.passage(TEXT, start, length))
    assert counted == n_tokens


def test_cutting_a_prompt_asks_a_server_only_a_few_times():
    asked = []

    def count(text: str) -> int:
        asked.append(text)
        return len(text) // 3

    passages.cut(TEXT, 0, 512, count)
    assert len(asked) <= 6


def test_a_text_that_is_too_short_begins_again():
    assert passages.passage("one two three ", 4, 24) == "two three one two three "


# --- the page cache --------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops pages on request")
def test_a_cold_file_has_left_memory_and_a_mapped_one_has_not(tmp_path):
    import mmap

    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1 << 20))
    if pages.resident(path) != 1.0:
        pytest.skip("this file system does not keep files in the page cache")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) >= 0
        assert not pages.make_cold([path])
    assert pages.make_cold([path])
    assert pages.resident(path) == 0.0
    path.read_bytes()
    assert pages.resident(path) == 1.0


def test_what_is_no_file_is_not_cold(tmp_path):
    assert not pages.make_cold([])
    assert not pages.make_cold([tmp_path / "missing"])
    (tmp_path / "empty").touch()
    assert not pages.make_cold([tmp_path / "empty"])


# --- measuring -------------------------------------------------------------------------------


class Slow:
    """An engine that waits, writes a word, and counts what it is asked."""

    name = "Slow"
    runtime = "slow 1.0"
    n_ctx = 64

    def __init__(self, first: float = 0.0, each: float = 0.0, error: str = "") -> None:
        self.first, self.each, self.error = first, each, error
        self.asked: list[str] = []

    def count_tokens(self, text: str) -> int:
        return words(text)

    def generate(self, prompt: str, n_generate: int) -> Answer:
        self.asked.append(prompt)

        def pieces():
            time.sleep(self.first)
            for number in range(n_generate):
                if self.error and number == 1:
                    raise EngineError(self.error)
                yield f"{number} "
                time.sleep(self.each)
            return Reported(n_generated=n_generate, finish_reason="length", source="itself")

        return Answer(pieces())

    def memory(self) -> MemoryUse:
        return MemoryUse(1000 * len(self.asked))

    def close(self) -> None:
        pass


@pytest.fixture
def opened(monkeypatch):
    """Let every contender open the engine that the test sets."""
    from contextlib import contextmanager

    @contextmanager
    def open_engine(*_):
        yield loading.Opened(open_engine.engine)

    open_engine.engine = Slow()
    monkeypatch.setattr(loading, "opened", open_engine)
    monkeypatch.setattr(loading, "connected", lambda *_: open_engine.engine)
    monkeypatch.setattr(loading, "import_libraries", lambda _: None)
    return open_engine


def measured(contender: Contender, settings: Settings, lengths=None) -> list[dict]:
    events: list[dict] = []

    def send(event: str, **values) -> None:
        events.append(json.loads(json.dumps({"event": event, **values})))

    worker.measure(contender, settings, loading.Source(), lengths, 10.0, send)
    return events


def test_every_answer_is_for_a_prompt_of_its_own_and_none_is_asked_twice(opened):
    measured(Contender("ollama"), SMALL)
    asked = opened.engine.asked
    assert asked.pop(0) == "The"  # makes the server load the model
    assert len(asked) == SMALL.n_passages == len(set(asked)) == 1 + 2 + 1 + 2
    assert all(words(prompt) == 8 for prompt in asked)


def test_a_later_contender_gets_the_prompts_of_the_first(opened):
    events = measured(Contender("llama-cpp"), SMALL)
    first = opened.engine.asked
    (lengths,) = [event["lengths"] for event in events if event["event"] == "lengths"]
    opened.engine = Slow()
    measured(Contender("transformers"), SMALL, lengths)
    assert opened.engine.asked == first


def test_only_servers_are_asked_several_things_at_once(opened):
    at_once = [event["n"] for event in measured(Contender("ollama"), SMALL) if "answers" in event]
    assert at_once == [1, 2]
    assert not [event for event in measured(Contender("llama-cpp"), SMALL) if "answers" in event]


def test_decode_speed_is_taken_between_the_first_piece_and_the_last(opened):
    opened.engine = Slow(first=0.05, each=0.01)
    settings = Settings(n_prompt=8, n_generate=6, repetitions=3, loads=0, concurrency=())
    events = measured(Contender("llama-cpp"), settings)
    result = results.build("slow", "llama-cpp", events, settings)
    # A sleep may last longer than asked, never shorter.
    assert result.decode is not None
    assert result.decode.high <= 100
    assert result.time_to_first_token.low >= 0.05
    assert result.inter_token_latency_p50 >= 0.01
    assert (result.n_prompt, result.n_generated) == (8, 6)
    assert (result.reported_source, result.runtime) == ("itself", "slow 1.0")
    assert result.peak_rss_bytes > 10**6  # of this very process
    assert len(result.decode.samples) == 3


def test_requests_at_once_really_run_at_once():
    engines = [Slow(each=0.05) for _ in range(4)]
    _, seconds = worker.together(engines, ["a", "b", "c", "d"], 4)
    assert seconds < 4 * 4 * 0.05 * 0.75


def test_one_failed_request_of_several_is_a_note_and_not_the_end(opened):
    contender = Contender("ollama")
    with pytest.raises(EngineError, match=r"Of 2 requests at once, 2 failed: The server is full"):
        worker.together([Slow(error="The server is full.")] * 2, ["a", "b"], 4)
    opened.engine = Slow()
    broken = Slow(error="The server is full.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "connected", lambda *_: broken)
        events = measured(contender, SMALL)
    result = results.build("x", "ollama", events, SMALL)
    assert result.decode is not None
    assert result.concurrency == {}
    assert "The server is full." in result.notes[0]


def test_an_answer_without_a_piece_is_an_error():
    with pytest.raises(EngineError, match="wrote nothing"):
        worker.one_answer(Slow(), "a", 0)


# --- results ---------------------------------------------------------------------------------


def answer_event(**changes) -> dict:
    reported = {
        "n_prompt": 10,
        "n_cached": None,
        "n_generated": 5,
        "load_seconds": None,
        "prefill_seconds": 0.4,
        "decode_seconds": 1.25,
        "finish_reason": "length",
        "source": "usage",
    }
    reported |= changes.pop("reported", {})
    event = {
        "event": "answer",
        "counted": 11,
        "first": 0.5,
        "last": 1.5,
        "end": 1.6,
        "gaps": [0.25, 0.25, 0.25, 0.25],
        "n_pieces": 5,
        "text": "a b c",
        "reported": reported,
    }
    return event | changes


FIVE = Settings(n_prompt=10, n_generate=5, repetitions=1, concurrency=())


def test_speeds_follow_from_the_stamps_and_the_runtimes_own_count():
    result = results.build("x", "openai", [answer_event()], FIVE)
    assert result.prefill.samples == (10 / 0.5,)
    assert result.decode.samples == (4 / 1.0,)
    assert result.reported_prefill.samples == (10 / 0.4,)
    assert result.reported_decode.samples == (5 / 1.25,)
    assert result.notes == ()


def test_without_the_runtimes_count_pieces_and_our_count_stand_in():
    event = answer_event(reported={"n_prompt": None, "n_generated": None}, n_pieces=3)
    result = results.build("x", "openai", [event], FIVE)
    assert (result.n_prompt, result.n_generated) == (11, 3)
    assert result.reported_decode is None


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (answer_event(reported={"n_generated": 3}), "1 of 1 answers ended before 5 tokens"),
        (answer_event(n_pieces=2), "2.5 tokens at a time"),
        (answer_event(reported={"n_cached": 6}), "6 prompt tokens from its cache"),
    ],
)
def test_what_makes_a_figure_doubtful_is_said_beside_it(event, said):
    assert said in " ".join(results.build("x", "openai", [event], FIVE).notes)


def test_an_answer_in_one_piece_has_no_decode_speed():
    event = answer_event(last=0.5, gaps=[], n_pieces=1)
    result = results.build("x", "openai", [event], FIVE)
    assert result.decode is None
    assert result.inter_token_latency_p50 is None
    assert result.time_to_first_token is not None


def test_what_a_running_server_says_about_loading_is_kept():
    first = {"event": "first_request", "reported": 1.5}
    result = results.build("x", "ollama", [first, answer_event()], FIVE)
    assert result.reported_load.samples == (1.5,)
    assert result.load_warm is None


def test_requests_at_once_add_up_over_the_time_of_all():
    event = {"event": "together", "n": 2, "seconds": 2.0, "answers": [answer_event()] * 2}
    (row,) = results.build("x", "openai", [event], FIVE).concurrency.values()
    assert row.tokens_per_second == 5.0
    assert row.decode.samples == (4.0, 4.0)


@given(st.lists(st.floats(0, 10), min_size=1))
def test_a_percentile_is_a_reading_that_so_many_do_not_exceed(values):
    for fraction in (0.5, 0.95, 1.0):
        found = results.percentile(values, fraction)
        assert found in values
        assert sum(value <= found for value in values) >= fraction * len(values)


@pytest.fixture
def report() -> Report:
    loads = [{"event": "load", "cold": cold, "seconds": 0.2, "reported": None} for cold in (1, 0)]
    together = {"event": "together", "n": 2, "seconds": 2.0, "answers": [answer_event()] * 2}
    good = results.build("good", "ollama", [*loads, answer_event(), together], FIVE, model="M")
    bad = results.build("bad | worse", "openai", [], FIVE, failed="It <broke>.")
    machine = {"cpu": "Abacus", "memory_bytes": 2**33, "gpus": ["Beads"], "os": "Linux"}
    settings = Settings(n_prompt=10, n_generate=5, repetitions=1, concurrency=(2,))
    return Report((good, bad), settings, machine, {"guidebook": "1"}, "2026-11-23", True)


def test_json_gives_the_same_report_back(report):
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 9}', '{"schema_version": 1}'])
def test_what_is_no_report_is_refused_with_a_sentence(text):
    with pytest.raises(BenchError, match="guidebook bench"):
        Report.from_json(text)


def test_csv_has_a_row_for_each_contender_the_failed_one_too(report):
    good, bad = csv.DictReader(io.StringIO(report.to_csv()))
    assert float(good["decode_tokens_per_second"]) == 4.0
    assert float(good["load_cold_seconds"]) == 0.2
    assert float(good["at_once_2_tokens_per_second"]) == 5.0
    assert (bad["decode_tokens_per_second"], bad["failed"]) == ("", "It <broke>.")


def test_tables_leave_the_failed_one_to_the_notes(report):
    for shown in (str(report), report.to_markdown()):
        assert "4.00 (4.00 to 4.00)" in shown
        assert "bad | worse failed: It <broke>." in shown
        assert "stopped before its end" in shown
    assert "It &lt;broke&gt;." in report._repr_html_()
    assert "<broke>" not in report._repr_html_()


def test_markdown_tables_have_as_many_cells_in_every_row(report):
    tables = [part for part in report.to_markdown().split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for part in tables:
        assert len({line.count("|") for line in part.splitlines()}) == 1


def test_a_report_of_failures_only_can_be_shown(report):
    only = Report(report.results[1:], report.settings, {}, {}, "2026-11-23")
    assert "It <broke>." in str(only)
    assert Report.from_json(only.to_json()) == only
    with pytest.raises(KeyError, match=r"'bad \| worse'"):
        only["good"]


# --- processes -------------------------------------------------------------------------------

# Stands in for guidebook.bench.worker: reads the job, then does what a test wants.
PRELUDE = """\
import json, os, signal, sys, time
from guidebook import lifeline
job = json.loads(lifeline.read_line())
lifeline.watch()
def send(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)
"""
ANSWER = f"send(**{answer_event()!r})\n"


@pytest.fixture
def behaves(monkeypatch, tmp_path):
    """Replace the workers by scripts, in the order of the contenders."""

    def replace(*scripts: str) -> None:
        paths = iter(range(len(scripts)))
        real = running.lifeline.start

        def start(_command, **options):
            path = tmp_path / f"worker{next(paths)}.py"
            path.write_text(PRELUDE + scripts[int(path.stem[6:])])
            return real([sys.executable, str(path)], **options)

        monkeypatch.setattr(running.lifeline, "start", start)
        monkeypatch.setattr(loading, "find", lambda _: loading.Source(model="M"))

    return replace


def names(*labels: str) -> list[Contender]:
    return [Contender("llama-cpp", label=label) for label in labels]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("send('stage', text='load 1 of 2'); os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("sys.exit(3)", "status 3"),
        ("raise ImportError('no libcuda.so.1')", "no libcuda.so.1"),
        ("send('failed', message='The model is broken.')", "The model is broken."),
        ("send('stage', text='warming up'); time.sleep(60)", "took more than 6 s"),
        ("os.close(1); time.sleep(60)", "it still runs"),
        ("print('{' * 10000); print('[1, 2]'); print('17'); sys.exit(4)", "status 4"),
    ],
)
def test_whatever_becomes_of_a_worker_the_others_have_their_turn(
    behaves, monkeypatch, script, said
):
    monkeypatch.setattr(running.lifeline, "END_SECONDS", 0.5)
    behaves(ANSWER + "send('end')", ANSWER + script, ANSWER + "send('end')")
    begun = time.monotonic()
    # Short only where it must be reached: a busy machine takes seconds to start a process.
    report = bench.run(names("one", "two", "three"), FIVE, time_limit=6 if "6 s" in said else 60)
    assert time.monotonic() - begun < 40
    assert [result.failed is None for result in report.results] == [True, False, True]
    assert said in report["two"].failed
    # What it had measured before is kept.
    assert all(result.decode.median == 4.0 for result in report.results)


def test_a_model_that_is_not_there_is_a_sentence(tmp_path):
    missing = tmp_path / "missing.gguf"
    report = bench.run([Contender("llama-cpp", str(missing))], FIVE)
    assert "missing.gguf" in report.results[0].failed
    assert str(tmp_path) not in report.to_json()


def test_the_prompts_of_the_first_go_to_the_next(behaves):
    behaves(
        "send('lengths', lengths=[5, 6]); send('end')",
        "send('note', text=str(job['lengths'])); send('end')",
    )
    report = bench.run(names("one", "two"), FIVE)
    assert report["two"].notes == ("[5, 6]",)


def test_progress_names_contender_and_stage(behaves):
    behaves("send('stage', text='warming up'); send('end')")
    told: list[str] = []
    bench.run(names("one"), FIVE, progress=lambda now: told.append(str(now)))
    assert told == ["[1/1] one: looking for the model", "[1/1] one: warming up"]


@pytest.mark.parametrize(
    ("given_as", "shown"),
    [
        ("/home/alice/m.gguf", "m.gguf"),
        ("models/m.gguf", "m.gguf"),
        ("~/models/m", "m"),
        ("C:\\models\\m.gguf", "m.gguf"),
        ("qwen/qwen2.5-0.5b", "qwen/qwen2.5-0.5b"),
        ("smollm2:135m", "smollm2:135m"),
    ],
)
def test_a_model_that_is_a_path_is_shown_by_its_last_part(given_as, shown):
    assert loading.find(Contender("ollama", given_as)).model == shown


@pytest.mark.parametrize("output", ["to_json", "to_csv", "to_markdown", "_repr_html_", "__str__"])
def test_no_export_holds_a_path_a_host_or_a_key(behaves, output):
    url = "http://alice-laptop.lan:1234/v1"
    secret = (
        f"No answer from {url} with sk-12345 for /home/alice/models/m.gguf or C:\\\\Users\\\\a."
    )
    behaves(f"send('note', text={secret!r}); send('failed', message={secret!r})")
    options = {"base_url": url, "api_key": "sk-12345", "n_ctx": 512}
    report = bench.run([Contender("openai", "m", options=options)], FIVE)
    text = getattr(report, output)()
    assert "No answer from" in text
    for private in ("alice", "1234", "sk-", "/home", "Users"):
        assert private not in text
    assert report.results[0].options == {"n_ctx": 512}


def test_ctrl_c_ends_the_worker_and_gives_what_there_is(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(PRELUDE + ANSWER + "send('stage', text=str(os.getpid())); time.sleep(60)")
    code = f"""
import sys
from guidebook import bench
from guidebook.bench import loading, running
running._WORKER = (sys.executable, {str(slow)!r})
loading.find = lambda _: loading.Source()
settings = bench.Settings(n_prompt=10, n_generate=5, repetitions=1)
two = [bench.Contender("llama-cpp", label=label) for label in ("one", "two")]
print(bench.run(two, settings, progress=lambda p: print(p.stage, flush=True)).to_json())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "looking for the model\n"
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGINT)
        report = Report.from_json(run.stdout.read())
    assert run.returncode == 0
    assert not psutil.pid_exists(pid)
    assert report.interrupted
    assert [result.label for result in report.results] == ["one"]
    assert report["one"].decode.median == 4.0


def test_a_killed_benchmark_leaves_no_worker(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(PRELUDE + "send('stage', text=str(os.getpid())); time.sleep(60)")
    code = f"""
import sys
from guidebook import bench
from guidebook.bench import loading, running
running._WORKER = (sys.executable, {str(slow)!r})
loading.find = lambda _: loading.Source()
bench.run([bench.Contender("llama-cpp")], progress=lambda p: print(p.stage, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        run.stdout.readline()
        pid = int(run.stdout.readline())
        run.kill()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)


# --- real runtimes ---------------------------------------------------------------------------


def test_llama_cpp_in_process_is_measured_in_full():
    settings = Settings(n_prompt=16, n_generate=4, repetitions=2, loads=1)
    report = bench.run([Contender("llama-cpp", options={"n_gpu_layers": 0})], settings)
    (result,) = report.results
    assert result.failed is None
    assert result.model == "SmolLM2-135M-Instruct"
    assert result.weights == "Q4_1"
    assert (result.n_prompt, result.n_generated) == (16, 4)
    assert len(result.load_warm.samples) == 1
    assert result.peak_rss_bytes > 90e6  # its weights
    assert result.reported_decode is not None
    assert "llama-cpp-python" in result.runtime
    assert str(Path.home()) not in report.to_json()
    assert Report.from_json(report.to_json()) == report


@pytest.mark.slow
def test_the_same_model_writes_the_same_text_in_process_and_behind_a_server():
    settings = Settings(n_prompt=24, n_generate=8, repetitions=1, loads=1, concurrency=(2,))
    report = bench.run([Contender("llama-cpp"), Contender("llama-cpp-server")], settings)
    inside, server = report.results
    assert (inside.failed, server.failed) == (None, None)
    assert server.answer == inside.answer
    assert server.n_prompt == inside.n_prompt == 24
    assert "starting the server's process" in " ".join(server.notes)
    assert list(server.concurrency) == [2]
    assert server.peak_rss_bytes > 90e6


@pytest.mark.slow
def test_transformers_is_measured_in_both_types():
    settings = Settings(n_prompt=24, n_generate=4, repetitions=1, loads=0)
    kinds = [Contender("transformers", options={"dtype": t}) for t in ("float32", "bfloat16")]
    whole, half = bench.run(kinds, settings).results
    assert (whole.failed, half.failed) == (None, None)
    assert whole.peak_rss_bytes > half.peak_rss_bytes
    assert (whole.weights, half.weights) == ("float32", "bfloat16")


@pytest.mark.slow
def test_a_server_that_runs_already_takes_part_under_its_own_name_for_the_model():
    from guidebook import models
    from guidebook.engines import server

    settings = Settings(n_prompt=24, n_generate=4, repetitions=1, loads=1, concurrency=(2,))
    with server.llama_cpp(models.embedded_file()) as started:
        found = bench.available("embedded", ["openai"], [started.base_url])
        mine = [one for one in found.contenders if one.options["base_url"] == started.base_url]
        assert [(one.engine, one.model) for one in mine] == [("openai", "local")]
        report = bench.run(mine, settings)
        assert started.base_url.split("/")[2] not in report.to_json()
    (result,) = report.results
    assert result.failed is None
    assert (result.n_prompt, result.load_warm, result.load_cold) == (24, None, None)
    assert result.peak_rss_bytes > 90e6
