"""What OllamaServer sends and understands, against Ollama's public API documentation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Request, Wire, chunk, head, whole

from guidebook.engines.base import EngineError
from guidebook.engines.ollama import DEFAULT_HOST, OllamaServer

DOCS: dict[str, Any] = json.loads(
    Path(__file__).parents[1].joinpath("data/contracts/ollama.json").read_text(encoding="utf-8")
)
Serve = Callable[..., FaultServer]


def stream(events: list[dict[str, Any]]) -> bytes:
    lines = b"".join(chunk(json.dumps(event).encode() + b"\n") for event in events)
    return head("application/x-ndjson", chunked=True) + lines + chunk(b"")


def documented(**instead: bytes) -> Callable[[Wire, Request], None]:
    """Answer as the documentation says, but for the paths named."""
    answers = {
        "version": whole(DOCS["version"]),
        "tags": whole(DOCS["tags"]),
        "ps": whole(DOCS["ps"]),
        "show": whole(DOCS["show"]),
        "generate": stream(DOCS["generate"]),
        "pull": stream(DOCS["pull"]),
        **instead,
    }

    def answer(wire: Wire, request: Request) -> None:
        method = "GET" if request.path in ("/api/version", "/api/tags", "/api/ps") else "POST"
        assert request.method == method
        wire.send(answers[request.path.removeprefix("/api/")])

    return answer


def test_a_request_asks_for_greedy_raw_text_and_no_silent_cut(serve: Serve) -> None:
    server = serve(documented())
    engine = OllamaServer(server.url, "llama3", n_ctx=512, keep_alive="10m")
    assert engine.generate("Why is the", 3).read() == " sky is blue"
    body = server.requests[-1].json
    assert {name: body[name] for name in ("model", "prompt", "raw", "stream", "keep_alive")} == {
        "model": "llama3:latest",
        "prompt": "Why is the",
        "raw": True,
        "stream": True,
        "keep_alive": "10m",
    }
    assert body["truncate"] is False
    assert body["shift"] is False
    assert body["options"] == {
        "temperature": 0.0,
        "seed": 0,
        "num_predict": 3,
        "num_ctx": 512,
        "repeat_penalty": 1.0,
        "stop": [],
    }


def test_its_timing_fields_become_seconds(serve: Serve) -> None:
    answer = OllamaServer(serve(documented()).url, "llama3").generate("Why is the", 3)
    answer.read()
    reported = answer.reported
    assert reported.load_seconds == pytest.approx(6.338219291)
    assert reported.prefill_seconds == pytest.approx(0.130079)
    assert reported.decode_seconds == pytest.approx(0.06)
    assert (reported.n_prompt, reported.n_generated) == (26, 3)
    assert reported.decode_tokens_per_second == pytest.approx(50)
    assert reported.finish_reason == "length"


def test_models_running_show_and_version_read_the_documented_answers(serve: Serve) -> None:
    server = serve(documented())
    engine = OllamaServer(server.url, "LLAMA3")
    assert engine.model == "llama3:latest"
    assert engine.models() == ("codellama:13b", "llama3:latest")
    assert engine.version() == "0.40.2"
    assert engine.runtime == "Ollama 0.40.2"
    assert engine.name == "Ollama llama3:latest"
    running = engine.running()[0]
    assert (running.name, running.size_bytes, running.vram_bytes, running.n_ctx) == (
        "llama3:latest",
        6591830464,
        5333539264,
        4096,
    )
    assert running.expires_at is not None
    assert running.expires_at.year == 2025
    shown = engine.show()
    assert server.requests[-1].json == {"model": "llama3:latest"}
    assert (shown.family, shown.quantization) == ("llama", "Q4_0")
    assert (shown.n_weights, shown.n_ctx_train, shown.n_ctx_set) == (8030261248, 8192, 2048)


def test_memory_takes_vram_from_ollama_and_the_rest_from_its_process(serve: Serve) -> None:
    use = OllamaServer(serve(documented()).url, "llama3").memory()
    assert use.vram_bytes == 5333539264
    assert use.rss_bytes is None or use.rss_bytes > 0


def test_a_pull_says_the_size_before_the_bytes_come(serve: Serve) -> None:
    server = serve(documented())
    steps = list(OllamaServer(server.url).pull("llama3.2:1b"))
    assert server.requests[-1].json["model"] == "llama3.2:1b"
    assert server.requests[-1].json["stream"] is True
    first = next(step for step in steps if step.total_bytes)
    assert (first.completed_bytes, first.total_bytes) == (0, 2142590208)
    assert steps[-1].status == "success"
    assert steps[-1].completed_bytes == steps[-1].total_bytes == 2142590208 + 254
    assert [step.completed_bytes for step in steps] == sorted(
        step.completed_bytes for step in steps
    )


def test_a_pull_that_ends_early_is_no_success(serve: Serve) -> None:
    engine = OllamaServer(serve(documented(pull=stream(DOCS["pull"][:3]))).url)
    with pytest.raises(EngineError, match=r"before it was complete\. Pull it again"):
        list(engine.pull("llama3.2:1b"))


def test_a_pull_of_an_unknown_model_passes_on_what_ollama_says(serve: Serve) -> None:
    event = {"error": "pull model manifest: file does not exist"}
    engine = OllamaServer(serve(documented(pull=stream([event]))).url)
    with pytest.raises(EngineError, match="file does not exist"):
        list(engine.pull("lama3.2"))


def test_an_abandoned_pull_hangs_up(serve: Serve) -> None:
    pulling = OllamaServer(serve(documented()).url).pull("llama3.2:1b")
    assert next(pulling).status == "pulling manifest"
    pulling.close()


@pytest.mark.parametrize("recorded", ["overflow_0_40", "overflow_0_12_6"])
def test_a_refused_prompt_names_n_ctx(serve: Serve, recorded: str) -> None:
    refusal = whole(DOCS[recorded], status="400 Bad Request")
    engine = OllamaServer(serve(documented(generate=refusal)).url, "llama3", n_ctx=512)
    with pytest.raises(
        EngineError, match=r"into a context of 512 tokens: .*exceeds the .*larger n_ctx"
    ) as caught:
        engine.generate("Why", 3).read()
    assert "{" not in str(caught.value)


def test_a_prompt_that_an_old_version_has_cut_is_noticed(serve: Serve) -> None:
    # Before 0.12.6, truncate and shift are unknown; a cut prompt then fills the context exactly.
    *pieces, last = DOCS["generate"]
    cut = stream([*pieces, {**last, "prompt_eval_count": 512}])
    engine = OllamaServer(serve(documented(generate=cut)).url, "llama3", n_ctx=512)
    with pytest.raises(EngineError, match=r"has cut the prompt to its context of 512 tokens"):
        engine.generate("Why", 3).read()


def test_a_model_that_has_gone_gets_the_command_to_pull_it(serve: Serve) -> None:
    gone = whole(DOCS["not_found"], status="404 Not Found")
    engine = OllamaServer(serve(documented(generate=gone)).url, "llama3")
    with pytest.raises(EngineError, match=r"`ollama pull llama3:latest`\. It has: codellama:13b"):
        engine.generate("Why", 3).read()


def test_tokens_are_counted_by_writing_one(serve: Serve) -> None:
    *_, last = DOCS["generate"]
    one = stream([{**last, "response": " sky", "eval_count": 1}])
    server = serve(documented(generate=one))
    assert OllamaServer(server.url, "llama3").count_tokens("Why is the") == 26
    assert server.requests[-1].json["options"]["num_predict"] == 1


def test_an_engine_without_a_model_says_what_it_needs(serve: Serve) -> None:
    engine = OllamaServer(serve(documented()).url)
    with pytest.raises(EngineError, match=r"models\(\) lists"):
        engine.generate("Why", 3)


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "http://localhost:{}/", "0.0.0.0:{}"])
def test_hosts_may_be_written_as_in_ollama_host(serve: Serve, host: str) -> None:
    server = serve(documented())
    assert OllamaServer(host.format(server.port)).version() == "0.40.2"


def test_a_host_without_a_port_is_ollamas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"127\.0\.0\.2:11434"):
        OllamaServer("127.0.0.2")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda engine: engine.generate("", 3),
        lambda engine: engine.generate("Why", 0),
        lambda engine: OllamaServer(n_ctx=0),
    ],
)
def test_wrong_arguments_are_refused(serve: Serve, wrong: Callable[[Any], Any]) -> None:
    engine = OllamaServer(serve(documented()).url, "llama3")
    with pytest.raises(ValueError, match=r"empty|n_generate is 0|n_ctx is 0"):
        wrong(engine)


@pytest.mark.ollama
def test_live_ollama_writes_greedy_text_and_times_it() -> None:
    try:
        names = OllamaServer(DEFAULT_HOST, time_limit=5).models()
    except EngineError as error:
        pytest.skip(str(error))
    name = next((name for name in names if "embed" not in name), None)
    if name is None:
        pytest.skip("Ollama has no model: ollama pull smollm2:135m")
    with OllamaServer(DEFAULT_HOST, name, n_ctx=512, time_limit=300) as engine:
        first, second = (engine.generate("The capital of France is", 8) for _ in range(2))
        assert first.read() == second.read()
        assert first.text
        assert second.reported.n_generated
        assert second.reported.decode_tokens_per_second
        assert name in [one.name for one in engine.running()]
        assert engine.show().n_ctx_train
        with pytest.raises(EngineError, match="n_ctx"):
            engine.generate("word " * 2000, 8).read()
