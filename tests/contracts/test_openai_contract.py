"""What OpenAIServer sends to each server it knows and understands of it, against public sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Request, Wire, chunk, head, whole

from guidebook.engines.base import EngineError
from guidebook.engines.openai_server import OpenAIServer

DOCS: dict[str, Any] = json.loads(
    Path(__file__)
    .parents[1]
    .joinpath("data/contracts/openai_servers.json")
    .read_text(encoding="utf-8")
)
LMSTUDIO = "http://127.0.0.1:1234/v1"
OPENAI_FIELDS = {
    "model", "prompt", "max_tokens", "temperature", "seed", "stream", "stream_options",
}  # fmt: skip
Serve = Callable[..., FaultServer]


def completion(
    n: int = 4, *, usage: bool = True, last: dict[str, Any] | None = None, finish: str = "length"
) -> bytes:
    """Return a stream as OpenAI's API documents it, with fields of one server beside."""
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "text": f" w{i}", "finish_reason": None}]} for i in range(n)
    ]
    ended = {"choices": [{"index": 0, "text": "", "finish_reason": finish}], **(last or {})}
    events.append(ended)
    if usage:
        counts = {"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n}
        events.append({"choices": [], "usage": counts})
    lines = [": ping", "", *(f"data: {json.dumps(event)}\r\n\r" for event in events)]
    body = ("\n".join(lines) + "\ndata: [DONE]\n\n").encode()
    return head("text/event-stream; charset=utf-8", chunked=True) + chunk(body) + chunk(b"")


def answering(paths: dict[str, Any]) -> Callable[[Wire, Request], None]:
    """Answer each path with bytes or JSON, and the rest with 404."""

    def answer(wire: Wire, request: Request) -> None:
        found = paths.get(request.path)
        if found is None:
            wire.send(whole({"error": "Unexpected endpoint or method."}, status="404 No"))
        else:
            wire.send(found if isinstance(found, bytes) else whole(found))

    return answer


def asked(server: FaultServer) -> dict[str, Any]:
    """Return the fields of the last completion request."""
    requests = [request for request in server.requests if request.path == "/v1/completions"]
    return dict(requests[-1].json)


def test_lm_studio_is_known_and_reports_its_stats(serve: Serve) -> None:
    docs = DOCS["lmstudio"]
    server = serve(
        answering(
            {
                "/v1/models": docs["models"],
                "/api/v0/models/granite-3.0-2b-instruct": docs["model"],
                "/v1/completions": completion(last={"stats": docs["stats"]}),
            }
        )
    )
    engine = OpenAIServer(server.url + "/v1")
    assert engine.name == "LM Studio granite-3.0-2b-instruct"
    assert engine.n_ctx == 4096
    answer = engine.generate("the meaning of life is", 4)
    assert answer.read() == " w0 w1 w2 w3"
    body = asked(server)
    # https://lmstudio.ai/docs/developer/openai-compat/chat-completions lists what it takes.
    assert set(body) == {*OPENAI_FIELDS, "repeat_penalty"}
    assert (body["temperature"], body["repeat_penalty"], body["stream"]) == (0, 1.0, True)
    assert body["max_tokens"] == 4
    assert body["stream_options"] == {"include_usage": True}
    assert answer.reported.n_prompt == 5
    assert answer.reported.n_generated == 4
    assert answer.reported.prefill_seconds == 0.299
    assert answer.reported.decode_seconds == 0.156
    assert answer.reported.source == "stats"


def test_lm_studio_counts_tokens_by_writing_one(serve: Serve) -> None:
    docs = DOCS["lmstudio"]
    server = serve(answering({"/v1/models": docs["models"], "/v1/completions": docs["completion"]}))
    assert OpenAIServer(server.url).count_tokens("the meaning of life is") == 5
    assert asked(server)["max_tokens"] == 1
    assert "stream" not in asked(server)


def test_lm_studios_count_may_be_one_token_short(serve: Serve) -> None:
    # Its documentation shows 9 tokens in the usage of an answer cut at 10.
    short = {"usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}}
    models = DOCS["lmstudio"]["models"]
    stream = completion(10, usage=False, last=short)
    server = serve(answering({"/v1/models": models, "/v1/completions": stream}))
    answer = OpenAIServer(server.url).generate("the", 10)
    answer.read()
    assert answer.reported.n_generated == 9


def test_llama_cpps_server_gets_its_own_fields_and_reports_its_timings(serve: Serve) -> None:
    docs = DOCS["llamacpp"]
    server = serve(
        answering(
            {
                "/v1/models": docs["models"],
                "/props": docs["props"],
                "/tokenize": docs["tokenize"],
                "/v1/completions": completion(last={"timings": docs["timings"]}),
            }
        )
    )
    engine = OpenAIServer(server.url, "tiny.gguf")
    assert engine.runtime == "llama.cpp server b7062-9b17d74"
    assert engine.n_ctx == 2048
    assert engine.count_tokens("Hi") == 3
    assert server.requests[-1].json == {"content": "Hi", "add_special": True}
    answer = engine.generate("Hi", 4)
    answer.read()
    body = asked(server)
    assert (body["ignore_eos"], body["cache_prompt"]) == (True, False)
    reported = answer.reported
    assert (reported.n_cached, reported.n_generated, reported.source) == (2, 4, "timings")
    assert reported.prefill_seconds == pytest.approx(0.0125)
    assert reported.decode_tokens_per_second == pytest.approx(50)


def test_vllm_says_its_context_and_counts_tokens(serve: Serve) -> None:
    docs = DOCS["vllm"]
    refusal = whole(docs["overflow"], status="400 Bad Request")
    server = serve(
        answering(
            {
                "/v1/models": docs["models"],
                "/version": docs["version"],
                "/tokenize": docs["tokenize"],
                "/v1/completions": refusal,
            }
        )
    )
    engine = OpenAIServer(server.url, api_key="secret")
    assert engine.runtime == "vLLM 0.19.1"
    assert engine.n_ctx == 1024
    assert engine.count_tokens("Hi") == 3
    with pytest.raises(EngineError, match=r"maximum context length is 1024.*--max-model-len N"):
        engine.generate("Hi", 900).read()
    assert asked(server)["ignore_eos"] is True
    completions = [one for one in server.requests if one.path == "/v1/completions"]
    assert len(completions) == 1
    assert {one.headers["authorization"] for one in server.requests} == {"Bearer secret"}


def test_llama_cpp_python_says_why_it_hung_up(serve: Serve) -> None:
    # Its server promises a stream before it looks at the prompt, and then just hangs up.
    docs = DOCS["llama_cpp_python"]

    def answer(wire: Wire, request: Request) -> None:
        if request.path == "/v1/models":
            wire.send(whole(docs["models"]))
        elif request.json.get("stream"):
            wire.send(head("text/event-stream", chunked=True))
        else:
            wire.send(whole(docs["overflow"], status="400 Bad Request"))

    server = serve(answer)
    with pytest.raises(EngineError, match=r"601 in your prompt.*`--n_ctx N`"):
        OpenAIServer(server.url).generate("word " * 600, 8).read()


def test_llama_cpp_python_is_told_not_to_penalize_and_not_to_end(serve: Serve) -> None:
    docs = DOCS["llama_cpp_python"]
    server = serve(
        answering(
            {
                "/v1/models": docs["models"],
                "/openapi.json": docs["openapi"],
                "/extras/tokenize/count": docs["count"],
                "/v1/completions": completion(usage=False),
            }
        )
    )
    engine = OpenAIServer(server.url)
    assert engine.runtime == "llama-cpp-python server 0.3.36"
    assert engine.count_tokens("Hi") == 3
    assert server.requests[-1].json == {"input": "Hi", "model": "local"}
    answer = engine.generate("Hi", 4)
    answer.read()
    body = asked(server)
    assert (body["repeat_penalty"], body["min_tokens"]) == (1.0, 4)
    # Its streams say no counts: an answer cut at its length has that many tokens.
    assert (answer.reported.n_generated, answer.reported.source) == (4, "finish_reason")


def test_an_answer_that_a_full_context_cut_is_noticed_without_counts(serve: Serve) -> None:
    docs = DOCS["llama_cpp_python"]
    server = serve(
        answering(
            {
                "/v1/models": docs["models"],
                "/extras/tokenize/count": {"count": 5},
                "/v1/completions": completion(4, usage=False),
            }
        )
    )
    with pytest.raises(EngineError, match=r"stopped after 5 of 64 tokens: its context is full"):
        OpenAIServer(server.url).generate("Hi", 64).read()


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Entity"])
def test_a_strict_server_is_asked_once_without_the_fields_it_refuses(
    serve: Serve, status: str
) -> None:
    def answer(wire: Wire, request: Request) -> None:
        if request.path == "/v1/models":
            wire.send(whole({"data": [{"id": "m", "owned_by": "somebody"}]}))
        elif "ignore_eos" in request.json or "stream_options" in request.json:
            wire.send(whole({"detail": [{"msg": "Extra inputs are not permitted"}]}, status=status))
        else:
            assert set(request.json) <= OPENAI_FIELDS
            wire.send(completion(usage=False))

    server = serve(answer)
    engine = OpenAIServer(server.url)
    assert engine.generate("Hi", 4).read() == " w0 w1 w2 w3"
    assert engine.generate("Hi", 4).read() == " w0 w1 w2 w3"
    completions = [one for one in server.requests if one.path == "/v1/completions"]
    # The second answer did not try the refused fields again.
    assert len(completions) == 3


def test_a_bare_string_as_error_in_a_stream_is_passed_on(serve: Serve) -> None:
    body = b'data: {"error": "the model has crashed"}\n\n'
    server = serve(
        answering(
            {
                "/v1/models": {"data": [{"id": "m"}]},
                "/v1/completions": whole(body, kind="text/event-stream"),
            }
        )
    )
    with pytest.raises(EngineError, match="the model has crashed"):
        OpenAIServer(server.url).generate("Hi", 4).read()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_written_with_or_without_its_path(serve: Serve, suffix: str) -> None:
    server = serve(answering({"/v1/models": {"data": [{"id": "m"}]}}))
    assert OpenAIServer(f"127.0.0.1:{server.port}{suffix}").models() == ("m",)


def test_another_path_than_v1_is_kept(serve: Serve) -> None:
    paths = {
        "/engines/v1/models": {"data": [{"id": "m"}]},
        "/engines/v1/completions": completion(1),
    }
    server = serve(answering(paths))
    assert OpenAIServer(server.url + "/engines/v1").generate("Hi", 1).read() == " w0"


def test_the_memory_of_a_server_here_is_that_of_the_process_at_its_port(serve: Serve) -> None:
    use = OpenAIServer(serve(answering({"/v1/models": {"data": [{"id": "m"}]}})).url).memory()
    assert use.rss_bytes is not None
    assert use.rss_bytes > 10 * 1024**2


def test_answers_may_come_at_the_same_time(serve: Serve) -> None:
    paths = {"/v1/models": {"data": [{"id": "m"}]}, "/v1/completions": completion()}
    engine = OpenAIServer(serve(answering(paths)).url)
    answers = [engine.generate("Hi", 4) for _ in range(4)]
    assert [next(answer) for answer in answers] == [" w0"] * 4
    assert [answer.read() for answer in answers] == [" w0 w1 w2 w3"] * 4


@pytest.mark.lmstudio
def test_live_lm_studio_writes_greedy_text() -> None:
    try:
        engine = OpenAIServer(LMSTUDIO, time_limit=300)
    except EngineError as error:
        pytest.skip(str(error))
    with engine:
        first, second = (engine.generate("The capital of France is", 8) for _ in range(2))
        assert first.read() == second.read()
        assert first.text
        assert engine.count_tokens("The capital of France is") >= 5
