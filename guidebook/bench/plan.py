"""What is compared, and how: contenders and settings, both plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Engines that run in the measuring process itself, and those that are asked over HTTP.
IN_PROCESS = ("llama-cpp", "transformers")
SERVERS = ("llama-cpp-server", "openai", "ollama")
ENGINES = (*IN_PROCESS, *SERVERS)

# What a result repeats of a contender's options. Addresses and keys stay out of every export.
PUBLIC_OPTIONS = (
    "attn_implementation",
    "device",
    "dtype",
    "n_batch",
    "n_ctx",
    "n_gpu_layers",
    "n_parallel",
    "n_threads",
)

_LABELS = {
    "llama-cpp": "llama.cpp in process",
    "llama-cpp-server": "llama.cpp server",
    "openai": "OpenAI-compatible server",
    "ollama": "Ollama",
}
_SMALLEST_CONTEXT = 2048
_PATH = re.compile(r"[~/.]|[A-Za-z]:[\\/]")


class BenchError(ValueError):
    """A benchmark cannot be made of what was given; the message says what to change."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of this package.
        return [f"BenchError: {self}"]


@dataclass(frozen=True)
class Contender:
    """One way to run a model.

    Attributes
    ----------
    engine
        ``"llama-cpp"``: llama-cpp-python in the measuring process. ``"llama-cpp-server"``: its
        server, started for the measurement. ``"transformers"``: transformers in the measuring
        process. ``"openai"``: a running server with an OpenAI-compatible API. ``"ollama"``: a
        running Ollama, asked through its own API.
    model
        For a running server: the model's name there (empty: its only model). Else what
        ``models.resolve`` takes: ``"embedded"``, a Hugging Face id, a folder, a ``.gguf`` file.
    label
        Name in tables; made from engine and options if empty.
    options
        Passed to the engine: ``n_ctx``, ``n_threads``, ``n_gpu_layers``, ``dtype``, ``device``,
        ``attn_implementation``, ``base_url`` (``openai``), ``host`` (``ollama``) and so on.
    """

    engine: str
    model: str = "embedded"
    label: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise BenchError(
                f"There is no engine {self.engine!r}. Choose one of {', '.join(ENGINES)}."
            )
        if self.engine == "openai" and not self.options.get("base_url"):
            raise BenchError(
                "The engine 'openai' needs the option base_url, such as http://127.0.0.1:1234/v1."
            )
        if not self.label:
            object.__setattr__(self, "label", self._made_label())

    @property
    def is_server(self) -> bool:
        """Whether the model is asked over HTTP, so that several can ask at once."""
        return self.engine in SERVERS

    def to_dict(self) -> dict[str, Any]:
        """Return the contender as JSON-ready data, addresses and paths included."""
        return {**asdict(self), "options": dict(self.options)}

    def _made_label(self) -> str:
        if self.engine == "transformers":
            return f"transformers {self.options.get('dtype', 'float32')}"
        return _LABELS[self.engine]


@dataclass(frozen=True)
class Settings:
    """How every contender is measured; the same for all.

    Attributes
    ----------
    n_prompt, n_generate
        Tokens of each prompt and of each answer.
    repetitions, warm_up
        Measured answers, and answers before them that are not counted.
    loads
        Readings of the load time from a cold file, and again from a warm one; 0: none.
    concurrency
        So many requests at once, for servers; empty: none.
    n_ctx
        Context to load the model with; ``None``: what prompt and answer need, at least 2,048.
    n_threads
        Threads for models on the processor; ``None``: the usable physical cores.
    """

    n_prompt: int = 256
    n_generate: int = 64
    repetitions: int = 5
    warm_up: int = 1
    loads: int = 2
    concurrency: tuple[int, ...] = (1, 2, 4)
    n_ctx: int | None = None
    n_threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "concurrency", tuple(self.concurrency))
        least = {
            "n_prompt": (self.n_prompt, 1),
            "n_generate": (self.n_generate, 2),
            "repetitions": (self.repetitions, 1),
            "warm_up": (self.warm_up, 0),
            "loads": (self.loads, 0),
            "concurrency": (min(self.concurrency, default=1), 1),
            "n_threads": (1 if self.n_threads is None else self.n_threads, 1),
        }
        for name, (value, minimum) in least.items():
            if value < minimum:
                raise BenchError(f"{name} is {value}; it must be at least {minimum}.")
        needed = self.n_prompt + self.n_generate
        if self.n_ctx is not None and self.n_ctx < needed:
            raise BenchError(
                f"A context of {self.n_ctx} tokens does not hold {self.n_prompt} prompt and "
                f"{self.n_generate} new tokens: raise n_ctx to {needed} or more."
            )

    @classmethod
    def of(cls, profile: str = "quick", **changes: Any) -> Settings:  # noqa: ANN401
        """Return the settings of a chapter's profile, ``"quick"`` or ``"full"``, with changes."""
        if profile not in ("quick", "full"):
            raise BenchError(f"There is no profile {profile!r}. Choose 'quick' or 'full'.")
        full = {"n_prompt": 512, "n_generate": 128, "repetitions": 11, "loads": 3}
        return cls(**({**full, **changes} if profile == "full" else changes))

    @property
    def context(self) -> int:
        """The context length to load a model with."""
        if self.n_ctx is not None:
            return self.n_ctx
        # Half as much again: another model's tokenizer may make more tokens of the same text.
        needed = (self.n_prompt + self.n_generate) * 3 // 2
        return max(_SMALLEST_CONTEXT, -(-needed // 256) * 256)

    @property
    def n_passages(self) -> int:
        """How many different prompts one contender is asked."""
        return self.warm_up + self.repetitions + sum(self.concurrency)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data."""
        return {**asdict(self), "concurrency": list(self.concurrency)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Return the settings that ``to_dict`` wrote."""
        return cls(**{**data, "concurrency": tuple(data["concurrency"])})


def shown_model(model: str) -> str:
    """Return a model's name for tables; of a path only the last part."""
    if model.endswith(".gguf") or _PATH.match(model):
        return re.split(r"[\\/]", model.rstrip("\\/"))[-1]
    return model


def check_labels(contenders: Sequence[Contender]) -> None:
    """Make sure that tables can tell the contenders apart.

    Raises
    ------
    BenchError
        There is none, or two have the same label.
    """
    if not contenders:
        raise BenchError("There is nothing to compare: give at least one contender.")
    labels = [contender.label for contender in contenders]
    for label in labels:
        if labels.count(label) > 1:
            raise BenchError(f"Two contenders are called {label!r}: give each its own label.")
