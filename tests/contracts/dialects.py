"""The same conversation in the words of two APIs, for faults that both must survive."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from fault_server import Answer, Request, Wire, chunk, head, whole

from guidebook.engines.ollama import OllamaServer
from guidebook.engines.openai_server import OpenAIServer

TIME_LIMIT = 0.8
IDLE_LIMIT = 0.4


class Dialect(ABC):
    """How one API looks and what engine speaks it."""

    name: str
    kind: str
    said: str  # how messages call the server
    end: bytes = b""
    paths: tuple[str, ...]

    @abstractmethod
    def engine(self, url: str, model: str | None = "tiny:latest", **options: Any) -> Any:
        """Return the engine, with short limits."""

    @abstractmethod
    def event(self, text: object) -> bytes:
        """Return one piece of text on the wire."""

    @abstractmethod
    def last(self, n_generated: object, finish: object = "length") -> bytes:
        """Return what ends an answer."""

    @abstractmethod
    def raw(self, data: bytes) -> bytes:
        """Return foreign bytes where an event's JSON should be."""

    def error(self, message: str) -> bytes:
        """Return an error on the wire."""
        return self.raw(json.dumps({"error": message}).encode())

    def good(self, n: int = 4) -> bytes:
        """Return a whole answer of ``n`` tokens."""
        return b"".join(self.event(f" w{i}") for i in range(n)) + self.last(n)

    def streamed(self, data: bytes) -> bytes:
        """Return a stream with its proper beginning and end."""
        return head(self.kind, chunked=True) + chunk(data) + chunk(b"")

    def with_fault(self, fault: Answer) -> Answer:
        """Answer well what a client asks first, and then with the fault."""

        def answer(wire: Wire, request: Request) -> None:
            if request.method == "GET":
                wire.send(whole(self.look(request.path)))
            else:
                fault(wire, request)

        return answer

    @abstractmethod
    def look(self, path: str) -> Any:
        """Return what a client finds out before it asks for text."""


class OpenAI(Dialect):
    name = "openai"
    kind = "text/event-stream"
    said = "The server"
    end = b"data: [DONE]\n\n"

    def engine(self, url: str, model: str | None = "tiny:latest", **options: Any) -> Any:
        limits = {"time_limit": TIME_LIMIT, "idle_limit": IDLE_LIMIT, **options}
        return OpenAIServer(url, model, **limits)

    def raw(self, data: bytes) -> bytes:
        return b"data: " + data + b"\n\n"

    def event(self, text: object) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": None}
        return self.raw(json.dumps({"choices": [choice]}).encode())

    def error(self, message: str) -> bytes:
        return self.raw(json.dumps({"error": {"message": message, "code": 500}}).encode())

    def last(self, n_generated: object, finish: object = "length") -> bytes:
        choice = {"index": 0, "text": "", "finish_reason": finish}
        usage = {"prompt_tokens": 3, "completion_tokens": n_generated}
        ended = self.raw(json.dumps({"choices": [choice]}).encode())
        return ended + self.raw(json.dumps({"choices": [], "usage": usage}).encode()) + self.end

    def look(self, path: str) -> Any:
        assert path == "/v1/models"
        return {"object": "list", "data": [{"id": "tiny:latest", "owned_by": "somebody"}]}


class Ollama(Dialect):
    name = "ollama"
    kind = "application/x-ndjson"
    said = "Ollama"

    def engine(self, url: str, model: str | None = "tiny:latest", **options: Any) -> Any:
        limits = {"time_limit": TIME_LIMIT, "idle_limit": IDLE_LIMIT, **options}
        return OllamaServer(url, model, **limits)

    def raw(self, data: bytes) -> bytes:
        return data + b"\n"

    def event(self, text: object) -> bytes:
        return self.raw(json.dumps({"model": "tiny", "response": text, "done": False}).encode())

    def last(self, n_generated: object, finish: object = "length") -> bytes:
        facts = {"prompt_eval_count": 3, "eval_count": n_generated, "eval_duration": 1_000_000}
        body = {"model": "tiny", "response": "", "done": True, "done_reason": finish, **facts}
        return self.raw(json.dumps(body).encode())

    def look(self, path: str) -> Any:
        if path == "/api/version":
            return {"version": "0.40.2"}
        assert path == "/api/tags"
        return {"models": [{"model": "tiny:latest", "name": "tiny:latest"}]}


DIALECTS = (OpenAI(), Ollama())
