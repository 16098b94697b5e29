"""The real server of llama-cpp-python, asked by this project's engine and by OpenAI's client."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from guidebook import models
from guidebook.engines import EngineError, LlamaCpp, server
from guidebook.engines.openai_server import OpenAIServer

if TYPE_CHECKING:
    import openai

N_CTX = 512
# With more, llama.cpp's threads wait for each other, for minutes where others want the cores too.
N_THREADS = 1
SECONDS = 180
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "Zażółć gęślą jaźń. 東京は",
    "<|im_start|>user\nCount to three.<|im_end|>\n<|im_start|>assistant\n",
)


@pytest.fixture(scope="session")
def path() -> Path:
    return models.resolve("embedded").path


@pytest.fixture(scope="session")
def running(path: Path) -> Iterator[server.Server]:
    """A server with the embedded model."""
    with server.llama_cpp(path, n_ctx=N_CTX, n_threads=N_THREADS) as one:
        yield one


@pytest.fixture(scope="session")
def in_process(path: Path) -> Iterator[LlamaCpp]:
    """The same model in this process."""
    with LlamaCpp.load(path, n_ctx=N_CTX, n_threads=N_THREADS) as engine:
        yield engine


@pytest.fixture
def engine(running: server.Server) -> Iterator[OpenAIServer]:
    with OpenAIServer(running.base_url, running.model, time_limit=SECONDS) as one:
        yield one


@pytest.fixture
def client(running: server.Server) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(
        base_url=running.base_url, api_key="none", max_retries=0, timeout=SECONDS
    ) as one:
        yield one


# --- The engine against the real server -----------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_server_writes_what_the_same_model_writes_in_this_process(
    engine: OpenAIServer, in_process: LlamaCpp, prompt: str
) -> None:
    here, there = in_process.generate(prompt, 24), engine.generate(prompt, 24)
    # The server keeps a half character back, and drops it at the end.
    assert there.read() == here.read().rstrip("\ufffd")
    assert there.reported.n_generated == 24
    assert there.reported.finish_reason == "length"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_server_counts_tokens_as_the_same_model_does_in_this_process(
    engine: OpenAIServer, in_process: LlamaCpp, prompt: str
) -> None:
    assert engine.count_tokens(prompt) == in_process.count_tokens(prompt)


def test_an_answer_comes_in_pieces_while_it_is_written(engine: OpenAIServer) -> None:
    answer = engine.generate("Once upon a time", 24)
    times = []
    for _ in answer:
        times.append(time.monotonic())
    assert len(times) >= 20
    assert times[-1] > times[0]


def test_the_model_does_not_end_an_answer_early(engine: OpenAIServer) -> None:
    # After this, the model would end within a few tokens.
    answer = engine.generate("<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\nHi!", 40)
    answer.read()
    assert (answer.reported.n_generated, answer.reported.finish_reason) == (40, "length")


def test_the_same_question_gets_the_same_answer(engine: OpenAIServer) -> None:
    assert len({engine.generate(PROMPTS[0], 24).read() for _ in range(3)}) == 1


def test_the_engine_names_runtime_and_memory(engine: OpenAIServer, running: server.Server) -> None:
    import llama_cpp

    assert engine.runtime == f"llama-cpp-python server {llama_cpp.__version__}"
    assert engine.models() == ("local",)
    used = engine.memory().rss_bytes
    assert used is not None
    assert 50e6 < used < 2e9
    assert abs(used - psutil.Process(running.pid).memory_info().rss) < 100e6


def test_a_model_the_server_does_not_have_is_told_with_those_it_has(
    running: server.Server,
) -> None:
    with pytest.raises(EngineError, match=r"has no model 'other'.*local"):
        OpenAIServer(running.base_url, "other")


@pytest.mark.parametrize(("n_words", "n_generate"), [(2000, 8), (480, 100)])
def test_what_does_not_fit_the_context_is_an_error_that_says_what_to_do(
    engine: OpenAIServer, n_words: int, n_generate: int
) -> None:
    with pytest.raises(EngineError, match="context") as raised:
        engine.generate("word " * n_words, n_generate).read()
    assert "--n_ctx" in str(raised.value)
    # The server goes on as if nothing had happened.
    assert engine.generate(PROMPTS[0], 4).read()


def test_an_answer_that_is_given_up_does_not_hold_up_the_next(engine: OpenAIServer) -> None:
    answer = engine.generate("Once upon a time", 400)
    for _ in range(3):
        next(answer)
    answer.close()
    begun = time.monotonic()
    assert engine.generate(PROMPTS[0], 2).read()
    assert time.monotonic() - begun < 10


def test_answers_that_are_asked_for_at_once_all_come_whole(running: server.Server) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        with OpenAIServer(running.base_url, running.model, time_limit=SECONDS) as one:
            answers[number] = one.generate(PROMPTS[number % 2], 24).read()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(answers) == [0, 1, 2, 3]
    assert answers[0] == answers[2] != answers[1]
    assert answers[1] == answers[3]


def test_a_server_that_dies_in_the_middle_of_an_answer_is_an_error_at_once(path: Path) -> None:
    with (
        server.llama_cpp(path, n_ctx=N_CTX, n_threads=N_THREADS) as one,
        OpenAIServer(one.base_url) as engine,
    ):
        answer = engine.generate("Once upon a time", 400)
        next(answer)
        os.kill(one.pid, signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(EngineError, match="closed the connection"):
            answer.read()
        assert time.monotonic() - begun < 5
        # The system closes a process's sockets first, and tells of its end a little later.
        assert one._child is not None
        one._child.wait(5)
        with pytest.raises(EngineError, match="has ended: it was killed"):
            _ = one.base_url


# --- OpenAI's own client against the real server --------------------------------------------


def test_openais_client_completes_and_streams_the_same(client: openai.OpenAI) -> None:
    def ask(**options: bool) -> object:
        return client.completions.create(
            model="local",
            prompt=PROMPTS[0],
            max_tokens=12,
            temperature=0,
            extra_body={"repeat_penalty": 1.0},
            **options,  # type: ignore[call-overload]
        )

    whole = ask()
    pieces = [event.choices[0].text for event in ask(stream=True)]  # type: ignore[attr-defined]
    assert "".join(pieces) == whole.choices[0].text  # type: ignore[attr-defined]
    assert whole.usage.completion_tokens == 12  # type: ignore[attr-defined]


def test_openais_client_chats_with_the_models_own_template(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="local",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=8,
        temperature=0,
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    # With the template's own tokens, and the system prompt that it brings.
    assert answer.usage.prompt_tokens > 25


def test_the_server_answers_for_any_models_name(client: openai.OpenAI) -> None:
    # Which is why the engine compares the name with the server's list.
    answer = client.completions.create(model="no-such-model", prompt="One, two,", max_tokens=2)
    assert answer.choices[0].text


def test_openais_client_is_told_that_the_context_is_exceeded(client: openai.OpenAI) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match="maximum context length is 512"):
        client.completions.create(model="local", prompt="word " * 2000, max_tokens=8)


# --- Starting and ending --------------------------------------------------------------------


def test_a_server_listens_on_this_machine_only(running: server.Server) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(running.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    assert running.base_url.startswith("http://127.0.0.1:")
    assert 0.1 < running.load_seconds < 60
    assert running.start() is running  # it runs already


def test_a_server_can_be_closed_twice_and_started_again(path: Path) -> None:
    one = server.llama_cpp(path, n_ctx=N_CTX, alias="again").start()
    pid, port = one.pid, int(one.base_url.split(":")[2].split("/")[0])
    one.close()
    one.close()
    assert not psutil.pid_exists(pid)
    with socket.socket() as connection:
        assert connection.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(EngineError, match="has been closed"):
        _ = one.base_url
    with one:
        assert OpenAIServer(one.base_url).models() == ("again",)
        assert one.pid != pid


def test_two_servers_run_side_by_side(path: Path, running: server.Server) -> None:
    with server.llama_cpp(path, n_ctx=256, alias="second") as second:
        assert OpenAIServer(second.base_url).models() == ("second",)
        assert OpenAIServer(running.base_url).models() == ("local",)


def test_variables_of_the_readers_shell_change_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("SEED", "no number")
    monkeypatch.setenv("CONFIG_FILE", "/no/such/file")
    monkeypatch.setenv("cache", "true")
    with server.llama_cpp(path, n_ctx=256) as one:
        assert OpenAIServer(one.base_url).models() == ("local",)


def test_the_servers_options_are_those_of_a_plain_llama(path: Path) -> None:
    from llama_cpp import Llama
    from llama_cpp.server.settings import ModelSettings

    options = server.llama_cpp(path)._options
    served = ModelSettings(**options).model_dump()
    plain = {
        name: parameter.default
        for name, parameter in inspect.signature(Llama.__init__).parameters.items()
        if parameter.default is not None and parameter.default is not inspect.Parameter.empty
    }
    differing = {name for name in served.keys() & plain.keys() if served[name] != plain[name]}
    # Those that LlamaCpp.load gives too.
    assert differing == {"n_ctx", "verbose"}


def test_a_file_that_is_no_model_is_told_by_name_only(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineError, match=r"did not start.*broken\.gguf") as raised:
        server.llama_cpp(broken).start()
    assert str(tmp_path) not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"There is no model file missing\.gguf"):
        server.llama_cpp(tmp_path / "missing.gguf").start()


def test_a_server_that_takes_too_long_is_ended(path: Path) -> None:
    one = server.llama_cpp(path, time_limit=0.2)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"did not answer within 0\.2 s.*time_limit"):
        one.start()
    assert time.monotonic() - begun < 5
    assert one._child is not None
    assert not psutil.pid_exists(one._child.pid)


def test_a_server_that_was_not_started_says_so(path: Path) -> None:
    one = server.llama_cpp(path)
    with pytest.raises(EngineError, match="does not run"):
        _ = one.base_url
    one.close()
    assert one.log() == ""


def test_a_missing_package_is_told_with_the_command(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PACKAGES", {"no_such_module": "no-such-package"})
    with pytest.raises(EngineError, match="pip install no-such-package"):
        server.llama_cpp(path).start()


@pytest.mark.parametrize("options", [{"n_ctx": 0}, {"n_threads": 0}, {"time_limit": 0}])
def test_senseless_numbers_are_refused(path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        server.llama_cpp(path, **options)  # type: ignore[arg-type]
