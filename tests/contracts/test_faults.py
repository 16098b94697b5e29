"""Whatever a server does, its client says one clear sentence within its time limit."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from dialects import IDLE_LIMIT, TIME_LIMIT, Dialect
from fault_server import FaultServer, Request, Wire, chunk, head, whole

from guidebook.engines.base import EngineError
from guidebook.engines.ollama import OllamaServer
from guidebook.engines.openai_server import OpenAIServer

# Time for threads and imports on a busy machine, beside the limit itself.
SLACK = 1.5
BIG = 2 * 1024**2

Serve = Callable[..., FaultServer]


@dataclass(frozen=True)
class Fault:
    """A way to fail, and what the reader must be told."""

    name: str
    play: Callable[[Wire, Dialect], None]
    says: str
    n_generate: int = 4


FAULTS = (
    Fault("silent-before-headers", lambda w, d: w.pause(), r"within 0\.8 s"),
    Fault(
        "headers-one-byte-at-a-time",
        lambda w, d: w.drip(head(d.kind) + b"x" * 1000),
        r"within 0\.8 s",
    ),
    Fault("silent-after-headers", lambda w, d: (w.send(head(d.kind)), w.pause()), r"within 0\.8 s"),
    Fault(
        "silent-between-events",
        lambda w, d: (w.send(head(d.kind) + d.event(" one")), w.pause()),
        r"silent for 0\.4 s in the middle",
    ),
    Fault(
        "events-one-byte-at-a-time",
        lambda w, d: (w.send(head(d.kind)), w.drip(d.event(" one") * 100)),
        r"within 0\.8 s",
    ),
    Fault(
        "wants-a-key", lambda w, d: w.send(whole({"error": "no key"}, status="401 No")), "api_key"
    ),
    Fault("forbidden", lambda w, d: w.send(whole(b"", status="403 No")), r"forbids .*api_key"),
    Fault(
        "not-found",
        lambda w, d: w.send(whole({"detail": "Not Found"}, status="404 No")),
        "404|no model",
    ),
    Fault(
        "too-many-requests",
        lambda w, d: w.send(whole({"error": "queue is full"}, status="429 No")),
        r"too many requests \(429\): queue is full\. Wait",
    ),
    Fault(
        "its-own-error",
        lambda w, d: w.send(whole({"error": {"message": "out of memory"}}, status="500 No")),
        r"\(500\): out of memory\. See the server's log",
    ),
    Fault(
        "still-loading",
        lambda w, d: w.send(
            whole(
                {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
                status="503 No",
            )
        ),
        r"\(503\): Loading model\. .*try again",
    ),
    Fault(
        "context-too-small",
        lambda w, d: w.send(
            whole(
                {
                    "error": {
                        "code": 400,
                        "message": "request (90 tokens) exceeds the available context size "
                        "(64 tokens), try increasing it",
                        "type": "exceed_context_size_error",
                    }
                },
                status="400 No",
            )
        ),
        r"cannot fit prompt and answer into .*context.*90 tokens.*(larger context|larger n_ctx)",
    ),
    Fault(
        "refuses-with-a-web-page",
        lambda w, d: w.send(whole(b"<html>Bad gateway</html>", status="502 No", kind="text/html")),
        r"\(502\)\. See the server's log",
    ),
    Fault(
        "refuses-without-end",
        lambda w, d: (w.send(head("text/plain", status="500 No")), w.drip(b"no " * 1000)),
        r"\(500\)",
    ),
    Fault(
        "redirects",
        lambda w, d: w.send(
            b"HTTP/1.1 307 Go\r\nLocation: http://10.0.0.1/v1\r\nContent-Length: 0\r\n\r\n"
        ),
        r"redirects to http://10\.0\.0\.1/v1",
    ),
    Fault("no-content", lambda w, d: w.send(b"HTTP/1.1 204 No\r\n\r\n"), "status 204"),
    Fault(
        "a-web-page",
        lambda w, d: w.send(whole(b"<!doctype html><p>Hi", kind="text/html; charset=utf-8")),
        "web page",
    ),
    Fault("an-image", lambda w, d: w.send(whole(b"GIF89a", kind="image/gif")), "image/gif"),
    Fault("not-http", lambda w, d: w.send(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak HTTP"),
    Fault("hangs-up-at-once", lambda w, d: None, "closed the connection"),
    Fault(
        "empty-body", lambda w, d: w.send(whole(b"", kind=d.kind)), "empty answer|before it began"
    ),
    Fault(
        "no-events",
        lambda w, d: w.send(d.streamed(b"\n" if d.name == "openai" else b"")),
        "empty answer|before it began",
    ),
    Fault(
        "ends-without-an-end",
        lambda w, d: w.send(d.streamed(d.event(" one") + d.event(" two"))),
        "closed the connection in the middle",
    ),
    Fault(
        "cut-inside-a-chunk",
        lambda w, d: w.send(head(d.kind, chunked=True) + b"ffff\r\n" + d.event(" one")),
        "closed the connection in the middle",
    ),
    Fault(
        "cut-before-its-length",
        lambda w, d: w.send(head(d.kind, length=5000) + d.event(" one")),
        "closed the connection in the middle",
    ),
    Fault(
        "cut-without-a-length",
        lambda w, d: w.send(head(d.kind) + d.event(" one")),
        "closed the connection in the middle",
    ),
    Fault(
        "reset",
        lambda w, d: (w.send(head(d.kind) + d.event(" one")), w.pause(0.1), w.reset()),
        "closed the connection in the middle",
    ),
    Fault(
        "a-bad-chunk-size",
        lambda w, d: w.send(head(d.kind, chunked=True) + b"many\r\n" + d.event(" one")),
        "closed the connection|does not speak HTTP",
    ),
    Fault(
        "not-json", lambda w, d: w.send(d.streamed(d.raw(b"{'text': 1}"))), "valid JSON|not what"
    ),
    Fault(
        "cut-json", lambda w, d: w.send(d.streamed(d.raw(b'{"choices": ['))), "valid JSON|not what"
    ),
    Fault(
        "nan-for-text",
        lambda w, d: w.send(d.streamed(d.event(float("nan")) + d.last(1))),
        "not text|not what",
    ),
    Fault(
        "a-number-for-text",
        lambda w, d: w.send(d.streamed(d.event(7) + d.last(1))),
        "not text|not what",
    ),
    Fault(
        "a-list-for-an-event",
        lambda w, d: w.send(d.streamed(d.raw(b"[1, 2]"))),
        "not those|not what",
    ),
    Fault(
        "endless-brackets",
        lambda w, d: w.send(d.streamed(d.raw(b"[" * 100_000))),
        "valid JSON|not what|not those",
    ),
    Fault(
        "not-utf8",
        lambda w, d: w.send(d.streamed(d.event("x").replace(b"x", b"\xff\xfe") + d.last(1))),
        "not UTF-8",
    ),
    Fault(
        "a-line-without-end",
        lambda w, d: (w.send(head(d.kind)), w.send(d.event("x" * BIG)[:-2])),
        "a line that does not end",
    ),
    Fault(
        "terabytes-announced",
        lambda w, d: w.send(head(d.kind, length=10**13) + d.event(" one")),
        "more than 16 MiB",
    ),
    Fault(
        "packed",
        lambda w, d: w.send(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(d.good())
        ),
        "gzip-packed",
    ),
    Fault(
        "an-error-at-the-beginning",
        lambda w, d: w.send(d.streamed(d.error("model runner has stopped"))),
        "in the middle of its answer: model runner has stopped",
    ),
    Fault(
        "an-error-in-the-middle",
        lambda w, d: w.send(d.streamed(d.event(" one") + d.error("CUDA error"))),
        "in the middle of its answer: CUDA error",
    ),
    Fault(
        "every-event-twice",
        lambda w, d: w.send(
            d.streamed(b"".join(d.event(f" {i}") * 2 for i in range(4)) + d.last(4))
        ),
        "sent 8 pieces of text but counts 4 tokens",
        n_generate=16,
    ),
    Fault(
        "more-than-was-asked-for",
        lambda w, d: w.send(d.streamed(d.good(40))),
        "more than the 4 tokens",
    ),
    Fault(
        "text-for-ever",
        lambda w, d: (w.send(head(d.kind)), [w.send(d.event(" on")) for _ in range(10_000)]),
        "more than the 4 tokens",
    ),
    Fault(
        "an-end-without-text",
        lambda w, d: w.send(d.streamed(d.last(0, "stop"))),
        "without any text",
    ),
    Fault(
        "a-full-context",
        lambda w, d: w.send(d.streamed(d.good(4))),
        "stopped after 4 of 64 tokens: its context",
        n_generate=64,
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_one_sentence_within_the_time_limit(
    serve: Serve, dialect: Dialect, fault: Fault
) -> None:
    server = serve(dialect.with_fault(lambda wire, request: fault.play(wire, dialect)))
    engine = dialect.engine(server.url)
    begun = time.monotonic()
    with pytest.raises(EngineError, match=fault.says) as caught:
        engine.generate("The", fault.n_generate).read()
    assert time.monotonic() - begun < TIME_LIMIT + SLACK
    _check_sentence(caught.value, f"{dialect.said} at {server.url}")


def _check_sentence(error: EngineError, who: str) -> None:
    sentence = str(error)
    assert sentence.startswith(who)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert not re.search(r"[A-Z]\w+Error|Errno|Traceback|httpx|<html", sentence)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_good_answer_comes_through(serve: Serve, dialect: Dialect) -> None:
    server = serve(
        dialect.with_fault(lambda wire, request: wire.send(dialect.streamed(dialect.good())))
    )
    with dialect.engine(server.url) as engine:
        answer = engine.generate("The", 4)
        assert answer.read() == " w0 w1 w2 w3"
        assert answer.reported.n_prompt == 3
        assert answer.reported.n_generated == 4
        assert answer.reported.finish_reason == "length"
        assert engine.model == "tiny:latest"


def test_pieces_come_when_they_are_sent_and_not_at_the_end(serve: Serve, dialect: Dialect) -> None:
    def slow(wire: Wire, request: Request) -> None:
        wire.send(head(dialect.kind, chunked=True))
        for _ in range(3):
            wire.send(chunk(dialect.event(" on")))
            wire.pause(0.2)
        wire.send(chunk(dialect.last(3)) + chunk(b""))

    engine = dialect.engine(serve(dialect.with_fault(slow)).url, time_limit=10, idle_limit=5)
    times = []
    for piece in engine.generate("The", 3):
        if piece:
            times.append(time.monotonic())
    assert [later - sooner for sooner, later in itertools.pairwise(times)] == pytest.approx(
        [0.2, 0.2], abs=0.15
    )


def test_an_event_may_come_in_parts_and_several_at_once(serve: Serve, dialect: Dialect) -> None:
    wire_bytes = dialect.streamed(
        dialect.event(" café ☕").replace(b"\\u2615", "☕".encode()) + dialect.good(4)
    )

    def torn(wire: Wire, request: Request) -> None:
        for start in range(0, len(wire_bytes), 7):
            wire.send(wire_bytes[start : start + 7])

    engine = dialect.engine(serve(dialect.with_fault(torn)).url)
    assert engine.generate("The", 4).read() == " café ☕ w0 w1 w2 w3"


def test_closing_an_answer_hangs_up(serve: Serve, dialect: Dialect) -> None:
    hung_up = threading.Event()

    def talk(wire: Wire, request: Request) -> None:
        wire.send(head(dialect.kind))
        try:
            for _ in range(400):
                wire.send(dialect.event(" on"))
                wire.pause(0.02)
        except OSError:
            hung_up.set()
            raise

    engine = dialect.engine(serve(dialect.with_fault(talk)).url, time_limit=10)
    answer = engine.generate("The", 4000)
    assert next(answer) == " on"
    answer.close()
    assert hung_up.wait(5)


def test_nothing_is_asked_twice(serve: Serve, dialect: Dialect) -> None:
    server = serve(dialect.with_fault(lambda wire, request: wire.send(whole(b"", status="503 No"))))
    engine = dialect.engine(server.url)
    with pytest.raises(EngineError):
        engine.generate("The", 4).read()
    assert [request.method for request in server.requests].count("POST") == 1


def test_a_refused_connection_says_how_to_start_a_server(dialect: Dialect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        EngineError, match="refuses the connection: nothing listens there"
    ) as caught:
        dialect.engine(f"http://127.0.0.1:{port}")
    _check_sentence(caught.value, f"{dialect.said} at http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("engine", "url", "command"),
    [
        (OllamaServer, "http://127.0.0.1:11434", "ollama serve"),
        (OpenAIServer, "http://127.0.0.1:1234/v1", "lms server start"),
        (OpenAIServer, "http://127.0.0.1:8080", "llama-server -m FILE.gguf"),
    ],
)
def test_a_refused_connection_at_a_known_port_names_the_command(
    engine: Callable[..., object], url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(EngineError, match=f"`{command}`"):
        engine(url, "tiny")


def test_an_unknown_host_is_a_sentence(dialect: Dialect) -> None:
    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"no host named 'model-server\.invalid'"):
        dialect.engine("http://model-server.invalid:1234")
    assert time.monotonic() - begun < TIME_LIMIT + SLACK


def test_a_look_up_without_end_is_cut_off(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asleep.wait(10))
    begun = time.monotonic()
    with pytest.raises(EngineError, match="no host named"):
        dialect.engine("http://model-server.example:1234")
    asleep.set()
    assert time.monotonic() - begun < TIME_LIMIT + SLACK


def test_a_port_that_does_not_answer_is_a_sentence(dialect: Dialect) -> None:
    # A full backlog: the system neither takes nor refuses a further connection.
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        port = busy.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        begun = time.monotonic()
        with pytest.raises(EngineError, match=r"within 0\.8 s"):
            dialect.engine(f"http://127.0.0.1:{port}")
        assert time.monotonic() - begun < TIME_LIMIT + SLACK
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    "reply",
    [whole({"data": []}), whole({"version": "0.40.2", "models": []})],
    ids=["no-list", "empty-list"],
)
def test_a_server_without_the_model_says_so(serve: Serve, dialect: Dialect, reply: bytes) -> None:
    server = serve(lambda wire, request: wire.send(reply))
    with pytest.raises(EngineError, match=r"no model|is not Ollama|does not list its models"):
        dialect.engine(server.url)


def test_a_wrong_model_name_gets_the_list_of_those_that_are_there(
    serve: Serve, dialect: Dialect
) -> None:
    server = serve(dialect.with_fault(lambda wire, request: None))
    with pytest.raises(EngineError, match=r"has no model 'huge'\..*It has: tiny:latest\."):
        dialect.engine(server.url, "huge")


@pytest.mark.parametrize(
    "reply",
    [
        whole(b"<html>", kind="text/html"),
        whole(b"<html>", kind="application/json"),
        whole(b"NaN"),
        whole(b""),
        whole([1, 2]),
        whole({"data": [{"name": "no id"}], "models": 3}),
        whole(b'{"data": [' + b" " * 17 * 1024**2),
        whole(b"\xff\xfe\x00"),
        b"220 mail.example ESMTP\r\n",
        whole({"detail": "Not Found"}, status="404 Not Found"),
    ],
    ids=[
        "web-page", "hidden-web-page", "nan", "nothing", "list", "other-fields", "too-large",
        "not-utf8", "mail-server", "other-server",
    ],
)  # fmt: skip
def test_what_is_no_model_server_is_told_apart_before_anything_is_asked(
    serve: Serve, dialect: Dialect, reply: bytes
) -> None:
    server = serve(lambda wire, request: wire.send(reply))
    begun = time.monotonic()
    with pytest.raises(EngineError) as caught:
        dialect.engine(server.url)
    assert time.monotonic() - begun < TIME_LIMIT + SLACK
    assert server.url in str(caught.value)
    assert all(request.method == "GET" for request in server.requests)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://a b", ""])
def test_an_address_that_is_none_is_refused_with_an_example(dialect: Dialect, url: str) -> None:
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:1234"):
        dialect.engine(url)


def test_a_password_in_an_address_is_refused_and_not_repeated(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        dialect.engine("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(dialect: Dialect, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        dialect.engine("http://127.0.0.1:1", time_limit=seconds)


def test_environment_proxies_are_not_used(
    serve: Serve, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = serve(
        dialect.with_fault(lambda wire, request: wire.send(dialect.streamed(dialect.good())))
    )
    assert dialect.engine(server.url).generate("The", 4).read() == " w0 w1 w2 w3"


def test_foreign_words_are_put_on_one_short_line(serve: Serve, dialect: Dialect) -> None:
    nasty = "a\x1b[31m\n" * 5000
    server = serve(
        dialect.with_fault(
            lambda wire, request: wire.send(whole({"error": nasty}, status="500 No"))
        )
    )
    with pytest.raises(EngineError) as caught:
        dialect.engine(server.url).generate("The", 4).read()
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_the_idle_limit_is_shorter_than_the_time_limit_here() -> None:
    assert IDLE_LIMIT < TIME_LIMIT


def test_bad_counts_are_left_out_of_the_report(serve: Serve, dialect: Dialect) -> None:
    body = dialect.event(" one") + dialect.last(json.loads("-5"))
    server = serve(dialect.with_fault(lambda wire, request: wire.send(dialect.streamed(body))))
    answer = dialect.engine(server.url).generate("The", 1)
    assert answer.read() == " one"
    assert answer.reported.n_generated in (None, 1)
