"""Ollama through its own API, which reports more than its OpenAI-compatible one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from guidebook.engines import _http
from guidebook.engines.base import Answer, EngineError, Reported
from guidebook.machine import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    import ollama

DEFAULT_HOST = "http://127.0.0.1:11434"
_PORT = 11434
_NANOSECOND = 1e-9
# Ollama sends one piece a token. One more may be the rest of a cut character.
_COUNT_SLACK = 1
_PULL_SECONDS = 24 * 3600.0
_PULL_IDLE_SECONDS = 120.0
# Ollama cuts a prompt that does not fit and says nothing. These two make it refuse instead; the
# client library does not know them (recorded behaviour since Ollama 0.12.6).
_NO_SILENT_CUT = {"truncate": False, "shift": False}

T = TypeVar("T")


@dataclass(frozen=True)
class RunningModel:
    """A model that Ollama holds in memory.

    Attributes
    ----------
    name
        The model's name.
    size_bytes, vram_bytes
        What it takes in all, and how much of that on GPUs.
    n_ctx
        Context length it was loaded with.
    expires_at
        When it will be unloaded.
    """

    name: str
    size_bytes: int | None
    vram_bytes: int | None
    n_ctx: int | None
    expires_at: datetime | None


@dataclass(frozen=True)
class ModelFacts:
    """What Ollama knows about a model.

    Attributes
    ----------
    name
        The model's name.
    family
        Such as ``llama``.
    quantization
        Such as ``Q4_K_M``.
    n_weights
        Number of weights.
    n_ctx_train
        Longest context the model was made for.
    n_ctx_set
        Context length that its Modelfile sets, if it does.
    """

    name: str
    family: str | None
    quantization: str | None
    n_weights: int | None
    n_ctx_train: int | None
    n_ctx_set: int | None


@dataclass(frozen=True)
class Pulled:
    """How far a download is.

    Attributes
    ----------
    status
        Ollama's own words.
    completed_bytes, total_bytes
        Of all files announced so far; the largest, with the weights, usually comes first.
    """

    status: str
    completed_bytes: int
    total_bytes: int


class OllamaServer:
    """An :class:`~guidebook.engines.Engine` behind Ollama's own API.

    Each request has a connection of its own, so its time includes connecting. Ollama reuses what
    a prompt has in common with the one before it, and ends at the end-of-sequence token; neither
    can be switched off.

    Parameters
    ----------
    host
        Where Ollama is, such as ``http://127.0.0.1:11434`` or the value of ``OLLAMA_HOST``.
    model
        The model's name there, such as ``llama3.2:1b``. Without one, only what needs no model
        works: :meth:`models`, :meth:`running`, :meth:`show`, :meth:`pull`, :meth:`version`.
    n_ctx
        Context length in tokens. A model that is loaded with another one is loaded again.
    keep_alive
        How long the model stays loaded after a request, such as ``"10m"``, or seconds; ``0``
        unloads it at once, ``-1`` never. Without it, five minutes.
    time_limit
        Seconds for a whole request, loading the model included.
    idle_limit
        Seconds the server may be silent once its answer has begun.

    Raises
    ------
    EngineError
        Ollama does not answer as it should, or does not have the model.
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        model: str | None = None,
        *,
        n_ctx: int = 4096,
        keep_alive: float | str | None = None,
        time_limit: float = 120.0,
        idle_limit: float = _http.IDLE_SECONDS,
    ) -> None:
        if n_ctx < 1:
            raise ValueError(f"n_ctx is {n_ctx}: a context holds one token or more.")
        # Ollama listens on every address if told 0.0.0.0; clients need one that exists.
        address = _http.Address(host.replace("0.0.0.0", "127.0.0.1"), _PORT)  # noqa: S104
        self._n_ctx = n_ctx
        self._keep_alive = keep_alive
        self._http = _http.Http(address, "Ollama", time_limit=time_limit, idle_limit=idle_limit)
        self._patient = _http.Http(
            address, "Ollama", time_limit=_PULL_SECONDS, idle_limit=_PULL_IDLE_SECONDS
        )
        self._version = self._look()
        self._client = self._new_client(self._http)
        self._model = model
        if model is not None:
            self._model = self._found(model)

    @property
    def model(self) -> str:
        """The model's name, as Ollama lists it."""
        if self._model is None:
            raise EngineError("No model was named: give OllamaServer one that models() lists.")
        return self._model

    @property
    def name(self) -> str:
        """Runtime and model."""
        return f"Ollama {self.model}"

    @property
    def runtime(self) -> str:
        """Ollama and its version."""
        return f"Ollama {self._version}"

    @property
    def n_ctx(self) -> int:
        """Context length in tokens."""
        return self._n_ctx

    def version(self) -> str:
        """Return Ollama's version."""
        return self._version

    def models(self) -> tuple[str, ...]:
        """Return the names of the models that are there."""
        found = self._call(lambda: self._client.list().models)
        return tuple(one.model for one in found if one.model)

    def running(self) -> tuple[RunningModel, ...]:
        """Return the models that are in memory now."""
        return tuple(
            RunningModel(
                name=one.model or one.name or "",
                size_bytes=_http.whole(one.size),
                vram_bytes=_http.whole(one.size_vram),
                n_ctx=_http.whole(one.context_length),
                expires_at=one.expires_at,
            )
            for one in self._call(lambda: self._client.ps().models)
        )

    def show(self, model: str | None = None) -> ModelFacts:
        """Return what Ollama knows about a model; without a name, about this one."""
        name = model or self.model
        told = self._call(lambda: self._client.show(name), name)
        facts = told.modelinfo or {}
        details = told.details
        lengths = (value for key, value in facts.items() if key.endswith(".context_length"))
        return ModelFacts(
            name=name,
            family=details.family if details else None,
            quantization=details.quantization_level if details else None,
            n_weights=_http.whole(facts.get("general.parameter_count")),
            n_ctx_train=_http.whole(next(lengths, None)),
            n_ctx_set=_set_context(told.parameters or ""),
        )

    def pull(self, model: str) -> Generator[Pulled, None, None]:
        """Download a model, and yield how far it is.

        The size is known before the first bytes of a file come: stop iterating, and the download
        stops. Begun again, it goes on where it was.
        """
        files: dict[str, tuple[int, int]] = {}
        status = ""
        client = self._new_client(self._patient)
        for event in self._events(lambda: client.pull(model, stream=True), model):
            status = str(event.status or "")
            total = _http.whole(event.total)
            if event.digest and total:
                files[event.digest] = (_http.whole(event.completed) or 0, total)
            sizes = [sum(column) for column in zip(*files.values(), strict=True)] or [0, 0]
            yield Pulled(_http.quote(status, 100), *sizes)
        if status != "success":
            raise self._http.fault(
                f"ended the download of {model!r} before it was complete",
                "Pull it again: it goes on where it was",
            )

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model makes of a prompt, its begin-of-sequence included.

        Ollama has no way to ask: it is made to write one token, and says it with that.
        """
        answer = self.generate(text, 1)
        answer.read()
        if answer.reported.n_prompt is None:
            raise self._http.fault(
                "does not say how many tokens a prompt has", "Count them with another engine"
            )
        return answer.reported.n_prompt

    def generate(self, prompt: str, n_generate: int) -> Answer:
        """Continue a text by up to ``n_generate`` tokens, always taking the most likely one."""
        if n_generate < 1:
            raise ValueError(f"n_generate is {n_generate}: ask for one token or more.")
        if not prompt:
            raise ValueError("The prompt is empty, which only makes Ollama load the model.")
        return Answer(self._pieces(self.model, prompt, n_generate))

    def memory(self) -> processes.MemoryUse:
        """Return what Ollama's processes take; on GPUs, what Ollama says the model takes."""
        vram = [one.vram_bytes for one in self.running() if one.name == self._model]
        use = _http.memory_at(self._http.address)
        return processes.MemoryUse(use.rss_bytes, vram[0] if vram else use.vram_bytes)

    def close(self) -> None:
        """Nothing is held between requests; the model stays loaded for ``keep_alive``."""

    def __enter__(self) -> OllamaServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self) -> str:
        """Return the version; whoever does not give one is not Ollama."""
        try:
            told = self._http.ask("/api/version")
        except _http.StatusError as error:
            if error.status not in (404, 405):
                raise
            told = None
        version = told.get("version") if isinstance(told, dict) else None
        if not isinstance(version, str) or not version:
            raise EngineError(
                f"The server at {self._http.address.origin} is not Ollama. If it has OpenAI's "
                "API, use OpenAIServer."
            )
        return _http.quote(version, 40)

    def _new_client(self, http_: _http.Http) -> ollama.Client:
        import httpx
        import ollama

        # The library's own answer to redirects and proxies would go around the guard.
        return ollama.Client(
            self._http.address.origin,
            follow_redirects=False,
            trust_env=False,
            transport=http_.transport(httpx, {"/api/generate": _NO_SILENT_CUT}),
        )

    def _found(self, model: str) -> str:
        names = self.models()
        wanted = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        for name in names:
            if name.lower() in (model.lower(), wanted.lower()):
                return name
        raise self._missing(model, names)

    def _missing(self, model: str, names: tuple[str, ...]) -> EngineError:
        have = f"It has: {_http.listed(names)}" if names else "It has none yet"
        return self._http.fault(
            f"has no model {model!r}", f"Pull it with `ollama pull {model}`. {have}"
        )

    def _pieces(self, model: str, prompt: str, n_generate: int) -> Generator[str, None, Reported]:
        options = {
            "temperature": 0.0,
            "seed": 0,
            "num_predict": n_generate,
            "num_ctx": self._n_ctx,
            "repeat_penalty": 1.0,
            "stop": [],
        }
        last = None
        n_pieces = 0
        events = self._events(
            lambda: self._client.generate(
                model, prompt, raw=True, stream=True, options=options, keep_alive=self._keep_alive
            ),
            model,
        )
        try:
            for event in events:
                last = event
                piece = event.response or event.thinking or ""
                if piece:
                    n_pieces += 1
                    if n_pieces > n_generate + _COUNT_SLACK:
                        raise self._http.fault(
                            f"sends more than the {n_generate} tokens it was asked for",
                            "It repeats events: its figures would be wrong",
                        )
                    yield piece
                if event.done:
                    break
        finally:
            events.close()
        return self._reported(last, n_pieces, n_generate)

    def _reported(
        self, last: ollama.GenerateResponse | None, n_pieces: int, n_wanted: int
    ) -> Reported:
        if last is None:
            raise self._http.fault("sends an empty answer", "See what `ollama serve` writes")
        if not last.done:
            raise self._http.broken()
        n_prompt = _http.whole(last.prompt_eval_count)
        n_generated = _http.whole(last.eval_count)
        if not n_pieces and last.done_reason != "length":
            raise self._http.fault(
                "sends an answer without any text: the model ended at once",
                "Try a longer prompt, or one that a sentence breaks off in",
            )
        if n_generated is not None and n_pieces > n_generated + _COUNT_SLACK:
            raise self._http.fault(
                f"sent {n_pieces} pieces of text but counts {n_generated} tokens",
                "It repeats events: its figures would be wrong",
            )
        if n_prompt is not None and n_prompt >= self._n_ctx:
            # Before 0.12.6 it cannot be told to refuse; a cut prompt fills the context exactly.
            raise self._http.fault(
                f"has cut the prompt to its context of {self._n_ctx} tokens, and says nothing",
                "Give a larger n_ctx",
            )
        n_counted = n_wanted if n_generated is None else n_generated
        if last.done_reason == "length" and n_counted + _COUNT_SLACK < n_wanted:
            raise self._http.fault(
                f"stopped after {n_counted} of {n_wanted} tokens: its context of "
                f"{self._n_ctx} is full",
                "Give a larger n_ctx",
            )
        return Reported(
            n_prompt=n_prompt,
            n_generated=n_generated,
            load_seconds=_http.seconds(last.load_duration, _NANOSECOND),
            prefill_seconds=_http.seconds(last.prompt_eval_duration, _NANOSECOND),
            decode_seconds=_http.seconds(last.eval_duration, _NANOSECOND),
            finish_reason=last.done_reason,
            source="api/generate",
        )

    def _events(self, start: Callable[[], Iterator[T]], model: str) -> Generator[T, None, None]:
        """Yield the events of a stream; what the client library raises becomes a sentence."""
        stream = None
        try:
            stream = start()
            yield from stream
        except EngineError as error:
            raise self._explained(error, model) from None
        except Exception as error:
            raise self._translated(error, model) from None
        finally:
            if stream is not None and hasattr(stream, "close"):
                stream.close()

    def _call(self, function: Callable[[], T], model: str = "") -> T:
        """Call the client library; what it raises becomes a sentence."""
        try:
            return function()
        except EngineError as error:
            raise self._explained(error, model) from None
        except Exception as error:
            raise self._translated(error, model) from None

    def _explained(self, error: EngineError, model: str) -> EngineError:
        """Return the error with what to do about it."""
        if not isinstance(error, _http.StatusError):
            return error
        if error.is_about_context:
            return self._http.fault(
                f"cannot fit prompt and answer into a context of {self._n_ctx} tokens: "
                f"{error.said.rstrip('.')}",
                "Give a larger n_ctx, or ask for less",
            )
        if error.status == 404 and model:
            try:
                return self._missing(model, self.models())
            except EngineError:
                return error
        return error

    def _translated(self, error: Exception, model: str) -> EngineError:
        """Put an error of the client library into this engine's words."""
        import ollama

        if isinstance(error, ollama.ResponseError):
            said = error.error if isinstance(error.error, str) else str(error.error)
            refusal = self._http.refusal(200, _http.message_of(said))
            return self._explained(refusal, model)
        return self._http.fault(
            "sends something that is not what Ollama's API sends",
            "See whether Ollama listens there, and what its log says",
        )


def _set_context(parameters: str) -> int | None:
    """Return the context length that a Modelfile sets, from its list of parameters."""
    for line in parameters.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "num_ctx" and value.strip().isdigit():
            return int(value)
    return None
