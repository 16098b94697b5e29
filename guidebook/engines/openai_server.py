"""Any server with OpenAI's API: LM Studio, llama.cpp, llama-cpp-python, vLLM, Ollama.

The API leaves much open, so the same request is another task to another server: one penalizes
repetitions unless told not to, one ends at the end-of-sequence token, one reuses the last prompt.
The engine asks each server it knows for the same: greedy, no penalties, no early end, no reuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as url_quote

from guidebook.engines import _http
from guidebook.engines.base import Answer, EngineError, Reported
from guidebook.machine import processes

if TYPE_CHECKING:
    from openai import OpenAI, Stream


# A server may count one token less than it sends: LM Studio's documentation shows 9 tokens in the
# usage of an answer that was cut at 10.
_COUNT_SLACK = 1
_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class _Kind:
    """What has to be known about one kind of server.

    Attributes
    ----------
    name
        How tables and messages call it.
    fields
        Fields beside OpenAI's own that make its answers comparable.
    has_min_tokens
        Whether ``min_tokens`` is its way not to end early.
    count_path, count_body
        Where it counts a prompt's tokens, and how it wants to be asked.
    larger_context
        How to get a larger context.
    version_path, version_keys
        Where it says its version.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    has_min_tokens: bool = False
    count_path: str = ""
    count_body: Callable[[str, str], dict[str, Any]] | None = None
    larger_context: str = "start the server with a larger context"
    version_path: str = ""
    version_keys: tuple[str, ...] = ()


_UNKNOWN = _Kind(
    "OpenAI-compatible server",
    {"ignore_eos": True, "cache_prompt": False, "repeat_penalty": 1.0},
)
# By what the model list says of a model's owner.
_KINDS = {
    "llamacpp": _Kind(
        "llama.cpp server",
        {"ignore_eos": True, "cache_prompt": False, "repeat_penalty": 1.0},
        False,
        "/tokenize",
        lambda text, _: {"content": text, "add_special": True},
        "start it with `llama-server --ctx-size N`",
        "/props",
        ("build_info",),
    ),
    "me": _Kind(
        "llama-cpp-python server",
        {"repeat_penalty": 1.0},
        True,
        "/extras/tokenize/count",
        lambda text, model: {"input": text, "model": model},
        "start it with `--n_ctx N`",
        "/openapi.json",
        ("info", "version"),
    ),
    "vllm": _Kind(
        "vLLM",
        {"ignore_eos": True, "repetition_penalty": 1.0},
        False,
        "/tokenize",
        lambda text, model: {"prompt": text, "model": model},
        "start it with `--max-model-len N`",
        "/version",
        ("version",),
    ),
    "organization_owner": _Kind(
        "LM Studio",
        {"repeat_penalty": 1.0},
        larger_context="load the model with `lms load MODEL --context-length N`",
    ),
    "library": _Kind(
        "Ollama",
        larger_context=(
            "start it with OLLAMA_CONTEXT_LENGTH=N, or use OllamaServer, which sends n_ctx"
        ),
        version_path="/api/version",
        version_keys=("version",),
    ),
}


class OpenAIServer:
    """An :class:`~guidebook.engines.Engine` behind OpenAI's API.

    Each request has a connection of its own, so its time includes connecting.

    Parameters
    ----------
    base_url
        Where the API is, such as ``http://127.0.0.1:1234/v1``. Without a path, ``/v1`` is meant.
    model
        The model's name there; without one, the first in the server's list.
    api_key
        The server's key, if it wants one.
    time_limit
        Seconds for a whole request, its answer included.
    n_ctx
        The server's context length, if it does not say so itself.
    idle_limit
        Seconds the server may be silent once its answer has begun.

    Raises
    ------
    EngineError
        The server does not answer as it should, or does not have the model.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        time_limit: float = 120.0,
        n_ctx: int | None = None,
        idle_limit: float = _http.IDLE_SECONDS,
    ) -> None:
        address = _http.Address(base_url)
        self._base = address.path or "/v1"
        self._http = _http.Http(
            address, "The server", api_key=api_key, time_limit=time_limit, idle_limit=idle_limit
        )
        entries = self._entries()
        self.model = self._chosen(model, entries)
        entry = next((one for one in entries if one.get("id") == self.model), {})
        self._kind = _KINDS.get(str(entry.get("owned_by")), _UNKNOWN)
        self._n_ctx = n_ctx if n_ctx is not None else self._stated_context(entry)
        self._is_strict = False
        self._runtime: str | None = None
        # Made here: importing the library takes a second, which no answer's time may contain.
        self._client = self._new_client(api_key)

    @property
    def name(self) -> str:
        """Kind of server and model."""
        return f"{self._kind.name} {self.model}"

    @property
    def runtime(self) -> str:
        """Kind of server, and its version where it says so."""
        if self._runtime is None:
            self._runtime = f"{self._kind.name} {self._version()}".strip()
        return self._runtime

    @property
    def n_ctx(self) -> int | None:
        """Context length in tokens; ``None`` if the server does not say."""
        return self._n_ctx

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that the server lists."""
        return tuple(str(entry["id"]) for entry in self._entries())

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model makes of a prompt, its begin-of-sequence included.

        A server without a way to ask is made to write one token, and says it with that.
        """
        if self._kind.count_body is not None:
            body = self._kind.count_body(text, self.model)
            answer = self._ask(self._kind.count_path, body)
            tokens = answer.get("tokens") if isinstance(answer, dict) else None
            count = answer.get("count") if isinstance(answer, dict) else None
            found = len(tokens) if isinstance(tokens, list) else _http.whole(count)
        else:
            answer = self._ask(f"{self._base}/completions", self._one_token(text))
            usage = answer.get("usage") if isinstance(answer, dict) else None
            found = _http.whole(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
        if found is None:
            raise self._http.fault(
                "does not say how many tokens a prompt has", "Count them with another engine"
            )
        return found

    def generate(self, prompt: str, n_generate: int) -> Answer:
        """Continue a text by up to ``n_generate`` tokens, always taking the most likely one."""
        if n_generate < 1:
            raise ValueError(f"n_generate is {n_generate}: ask for one token or more.")
        return Answer(self._pieces(prompt, n_generate))

    def memory(self) -> processes.MemoryUse:
        """Return what the server's process takes; unknown if it is on another machine."""
        return _http.memory_at(self._http.address)

    def close(self) -> None:
        """Close the client; no connection is held between requests."""
        self._client.close()

    def __enter__(self) -> OpenAIServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _entries(self) -> list[dict[str, Any]]:
        answer = self._http.ask(f"{self._base}/models")
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in data
        ):
            raise self._http.fault(
                "does not list its models as OpenAI's API does",
                "Look at the address: an OpenAI-compatible one ends in /v1",
            )
        return data

    def _chosen(self, model: str | None, entries: list[dict[str, Any]]) -> str:
        names = [str(entry["id"]) for entry in entries]
        if not names:
            raise self._http.fault("lists no model", "Download or load one there first")
        if model is None:
            # LM Studio lists what it has downloaded, models for embeddings too.
            return next((name for name in names if "embed" not in name.lower()), names[0])
        if model not in names:
            raise self._http.fault(
                f"has no model {model!r}", f"It has: {_http.listed(tuple(names))}"
            )
        return model

    def _stated_context(self, entry: Mapping[str, Any]) -> int | None:
        """Return the context length that a server says: vLLM, llama.cpp, LM Studio."""
        meta = entry.get("meta")
        stated = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else 0)
        if not stated and self._kind is _KINDS["organization_owner"]:
            try:
                told = self._http.ask(
                    f"/api/v0/models/{url_quote(self.model)}", seconds=self._look_seconds()
                )
            except EngineError:
                return None
            stated = told.get("loaded_context_length") if isinstance(told, dict) else None
        return _http.whole(stated) or None

    def _version(self) -> str:
        if not self._kind.version_path:
            return ""
        try:
            told = self._http.ask(self._kind.version_path, seconds=self._look_seconds())
        except EngineError:
            return ""
        for key in self._kind.version_keys:
            told = told.get(key) if isinstance(told, dict) else None
        return _http.quote(told, 40) if isinstance(told, str) else ""

    def _look_seconds(self) -> float:
        return min(_LOOK_SECONDS, self._http.time_limit)

    def _one_token(self, prompt: str) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}

    def _ask(self, path: str, body: dict[str, Any]) -> _http.Json:
        try:
            return self._http.ask(path, body)
        except _http.StatusError as error:
            raise self._explained(error) from None

    def _explained(self, error: _http.StatusError) -> EngineError:
        """Return the error with what to do about it."""
        if error.is_about_context:
            return self._http.fault(
                f"cannot fit prompt and answer into its context: {error.said.rstrip('.')}",
                f"Ask for less, or {self._kind.larger_context}",
            )
        if error.status == 404 and "model" in error.said.lower():
            return self._http.fault(
                f"no longer has the model {self.model!r}: {error.said.rstrip('.')}",
                "Load it there again",
            )
        return error

    def _pieces(self, prompt: str, n_generate: int) -> Generator[str, None, Reported]:
        end = time.monotonic() + self._http.time_limit
        tally = _Tally(self._http, n_generate)
        stream = None
        try:
            stream = self._open(prompt, n_generate)
            for event in stream:
                text = tally.take(event)
                if text is not None:
                    yield text
            return self._checked(tally.end(), tally)
        except _http.StatusError as error:
            raise self._explained(error) from None
        except _http.BrokenStream as error:
            if tally.n_pieces:
                raise
            raise self._reason(error, prompt, end) from None
        except EngineError:
            raise
        except Exception as error:
            raise self._translated(error) from None
        finally:
            if stream is not None:
                stream.close()

    def _new_client(self, api_key: str | None) -> OpenAI:
        import httpx2
        import openai

        return openai.OpenAI(
            base_url=f"{self._http.address.origin}{self._base}",
            api_key=api_key or "none",
            max_retries=0,
            http_client=httpx2.Client(transport=self._http.transport(httpx2), trust_env=False),
        )

    def _open(self, prompt: str, n_generate: int) -> Stream[object]:
        from openai import Stream

        def send(fields: Mapping[str, Any]) -> Stream[object]:
            body: dict[str, Any] = {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": n_generate,
                "temperature": 0,
                "seed": 0,
                "stream": True,
                **fields,
            }
            # Not completions.create: it makes a model object of each event, 0.3 ms for a token
            # that takes 10, on a processor that the server needs.
            return self._client.post(
                "/completions",
                body=body,
                cast_to=object,
                stream=True,
                stream_cls=Stream[object],
            )

        if self._is_strict:
            return send({})
        fields = {**self._kind.fields, "stream_options": {"include_usage": True}}
        if self._kind.has_min_tokens:
            fields["min_tokens"] = n_generate
        try:
            return send(fields)
        except _http.StatusError as error:
            if error.status not in (400, 422) or error.is_about_context:
                raise
            # A strict server refuses fields that it does not know. It is asked once without.
            stream = send({})
            self._is_strict = True
            return stream

    def _checked(self, reported: Reported, tally: _Tally) -> Reported:
        """Refuse an answer that a full context has cut short, which counts as its length too."""
        n_wanted, n_written = tally.n_wanted, reported.n_generated
        slack = _COUNT_SLACK
        if reported.finish_reason != "length":
            return reported
        if reported.source == "finish_reason" and tally.n_pieces < n_wanted:
            # Several tokens can make one piece. Read again, a text can have a few tokens less.
            n_written = max(tally.n_pieces, self._tokens_of(tally.text) or n_wanted)
            slack = max(_COUNT_SLACK, n_wanted // 4)
        if n_written is not None and n_written + slack < n_wanted:
            raise self._http.fault(
                f"stopped after {n_written} of {n_wanted} tokens: its context is full",
                f"Ask for less, or {self._kind.larger_context}",
            )
        return reported

    def _tokens_of(self, text: str) -> int | None:
        try:
            return self.count_tokens(text) if self._kind.count_body is not None else None
        except EngineError:
            return None

    def _reason(self, error: _http.BrokenStream, prompt: str, end: float) -> EngineError:
        """Ask why a stream has broken off before its first word.

        llama-cpp-python's server notices a prompt that is too long only when it has already
        promised a stream, and then just hangs up; without a stream it says what is wrong.
        """
        left = end - time.monotonic()
        try:
            if left > 0:
                body = self._one_token(prompt)
                self._http.ask(f"{self._base}/completions", body, seconds=left)
        except _http.StatusError as reason:
            return self._explained(reason)
        except EngineError:
            pass
        return error

    def _translated(self, error: Exception) -> EngineError:
        """Put an error of the client library into this engine's words."""
        import openai

        if isinstance(error, openai.APIError):
            said = _http.message_of(error.body) or _http.quote(error.message)
            return self._explained(self._http.refusal(200, said))
        return self._http.fault(
            "sends events that are not valid JSON", "See whether a model server listens there"
        )


class _Tally:
    """Watches a stream: what has come, and whether it can be true."""

    def __init__(self, http_: _http.Http, n_wanted: int) -> None:
        self._http = http_
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._stats: Mapping[str, Any] = {}
        self._has_events = False
        self.n_wanted = n_wanted
        self.n_pieces = 0
        self.text = ""

    def take(self, event: object) -> str | None:
        """Return an event's text; ``None`` if it has none to give."""
        fields = _fields_of(event)
        if fields is None:
            raise self._http.fault(
                "sends events that are not those of OpenAI's API",
                "See whether a model server listens there",
            )
        self._has_events = True
        for name in ("usage", "timings", "stats"):
            value = _fields_of(fields.get(name))
            if value:
                setattr(self, f"_{name}", value)
        choices = fields.get("choices")
        choice = _fields_of(choices[0]) if isinstance(choices, list) and choices else None
        if choice is None:
            return None
        text = choice.get("text")
        finish = choice.get("finish_reason")
        if not isinstance(text, str | None) or not isinstance(finish, str | None):
            raise self._http.fault(
                "sends text that is not text", "See whether a model server listens there"
            )
        self._finish = finish or self._finish
        if text:
            self.n_pieces += 1
            self.text += text
            if self.n_pieces > self.n_wanted + _COUNT_SLACK:
                raise self._http.fault(
                    f"sends more than the {self.n_wanted} tokens it was asked for",
                    "It repeats events or ignores max_tokens: its figures would be wrong",
                )
        # The event that only ends the answer is no piece: it would count as its last token's time.
        return None if finish and not text else text

    def end(self) -> Reported:
        """Return what the server has reported, if the answer is whole."""
        if self._finish is None:
            if not self._has_events:
                raise _http.BrokenStream(
                    f"{self._http.who} ended its answer before it began. See its log."
                )
            raise self._http.broken()
        reported = self._reported()
        n_generated = reported.n_generated
        if not self.n_pieces and self._finish != "length":
            raise self._http.fault(
                "sends an answer without any text: the model ended at once",
                "Try a longer prompt, or one that a sentence breaks off in",
            )
        if n_generated is not None and self.n_pieces > n_generated + _COUNT_SLACK:
            raise self._http.fault(
                f"sent {self.n_pieces} pieces of text but counts {n_generated} tokens",
                "It repeats events: its figures would be wrong",
            )
        return reported

    def _reported(self) -> Reported:
        usage, timings, stats = self._usage, self._timings, self._stats
        details = _fields_of(usage.get("prompt_tokens_details")) or {}
        n_prompt = _http.whole(usage.get("prompt_tokens"))
        n_cached = _http.whole(details.get("cached_tokens"))
        n_generated = _http.whole(usage.get("completion_tokens"))
        source = "usage" if usage else ""
        if timings:
            n_read = _http.whole(timings.get("prompt_n"))
            n_cached = _http.whole(timings.get("cache_n")) if n_cached is None else n_cached
            if n_prompt is None and n_read is not None:
                n_prompt = n_read + (n_cached or 0)
            if n_generated is None:
                n_generated = _http.whole(timings.get("predicted_n"))
            prefill, decode = timings.get("prompt_ms"), timings.get("predicted_ms")
            return Reported(
                n_prompt=n_prompt,
                n_cached=n_cached,
                n_generated=n_generated,
                prefill_seconds=_http.seconds(prefill, 1e-3),
                decode_seconds=_http.seconds(decode, 1e-3),
                finish_reason=self._finish,
                source="timings",
            )
        if n_generated is None and self._finish == "length":
            # Cut at the wanted length: that is the number of tokens.
            n_generated, source = self.n_wanted, source or "finish_reason"
        return Reported(
            n_prompt=n_prompt,
            n_cached=n_cached,
            n_generated=n_generated,
            prefill_seconds=_http.seconds(stats.get("time_to_first_token")),
            decode_seconds=_http.seconds(stats.get("generation_time")),
            finish_reason=self._finish,
            source="stats" if stats else source,
        )


def _fields_of(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None
