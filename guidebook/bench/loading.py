"""From a contender to an engine that is ready to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guidebook.bench.plan import Contender, Settings, shown_model
from guidebook.engines import Engine, EngineError

# On the GPU wherever the runtime was built for one; on the processor otherwise.
_EVERY_LAYER = -1


@dataclass(frozen=True)
class Source:
    """What a contender loads; empty for a server that already runs.

    Attributes
    ----------
    path
        A ``.gguf`` file or a folder for transformers. It never leaves this machine.
    model
        The model's name, for tables.
    weights
        The file's type, such as ``Q4_1``.
    n_bytes
        Size of the weights on the disk.
    """

    path: str = ""
    model: str = ""
    weights: str = ""
    n_bytes: int | None = None

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""
        if not self.path:
            return []
        path = Path(self.path)
        return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


@dataclass(frozen=True)
class Opened:
    """An engine, and the server's process if we have started one."""

    engine: Engine
    pid: int | None = None
    address: str = ""
    model: str = ""


def find(contender: Contender) -> Source:
    """Find the files of a contender, deriving or downloading them if need be.

    Raises
    ------
    guidebook.models.ModelError
        There is no such model in the form that the engine needs.
    """
    from guidebook import models

    if contender.engine in ("openai", "ollama"):
        return Source(model=shown_model(contender.model))
    form: models.Form = "transformers" if contender.engine == "transformers" else "gguf"
    found = models.resolve(contender.model, form)
    source = Source(str(found.path), found.name)
    if contender.engine == "transformers":
        weights = str(contender.options.get("dtype", "float32"))
    else:
        weights = _file_type(found.path)
    n_bytes = sum(file.stat().st_size for file in source.files)
    return Source(source.path, source.model, weights, n_bytes)


@contextmanager
def opened(
    contender: Contender, settings: Settings, source: Source, time_limit: float
) -> Iterator[Opened]:
    """Load a contender's model, or connect to its server, until the body ends.

    Raises
    ------
    EngineError
        The runtime cannot do it; the message says what to do.
    """
    with ExitStack() as stack:
        try:
            ready = stack.enter_context(
                _OPENERS[contender.engine](contender, settings, source, time_limit)
            )
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            name = str(error).rpartition("argument ")[2]
            raise EngineError(
                f"{contender.label} does not know the option {name}: leave it out."
            ) from error
        yield ready


def connected(contender: Contender, settings: Settings, first: Opened, time_limit: float) -> Engine:
    """Return one more connection to the server of an opened contender."""
    if contender.engine == "llama-cpp-server":
        from guidebook.engines.openai_server import OpenAIServer

        return OpenAIServer(first.address, first.model, time_limit=time_limit)
    return _connect(contender, settings.context, time_limit)


def import_libraries(engine: str) -> None:
    """Import what an engine needs, so that loading a model does not pay for it."""
    if engine == "llama-cpp":
        import llama_cpp  # noqa: F401
    elif engine == "transformers":
        import torch  # noqa: F401
        import transformers  # noqa: F401
    elif engine == "ollama":
        import ollama  # noqa: F401
    else:
        import openai  # noqa: F401


@contextmanager
def _llama_cpp(
    contender: Contender, settings: Settings, source: Source, _time_limit: float
) -> Iterator[Opened]:
    from guidebook.engines import LlamaCpp

    options = {"n_gpu_layers": _EVERY_LAYER, **_common(contender, settings)}
    with LlamaCpp.load(Path(source.path), **options) as engine:
        yield Opened(engine)


@contextmanager
def _llama_cpp_server(
    contender: Contender, settings: Settings, source: Source, time_limit: float
) -> Iterator[Opened]:
    from guidebook.engines import server
    from guidebook.engines.openai_server import OpenAIServer

    options = {"n_gpu_layers": _EVERY_LAYER, **_common(contender, settings)}
    with (
        server.llama_cpp(Path(source.path), **options) as running,
        OpenAIServer(running.base_url, running.model, time_limit=time_limit) as engine,
    ):
        yield Opened(engine, running.pid, running.base_url, running.model)


@contextmanager
def _transformers(
    contender: Contender, settings: Settings, source: Source, _time_limit: float
) -> Iterator[Opened]:
    from guidebook.engines.transformers import Transformers

    options = _common(contender, settings)
    options.pop("n_ctx")
    options.setdefault("device", "auto")
    options.setdefault("dtype", "float32")
    with Transformers.load(source.path, name=source.model, **options) as engine:
        yield Opened(engine)


@contextmanager
def _running_server(
    contender: Contender, settings: Settings, _source: Source, time_limit: float
) -> Iterator[Opened]:
    with _connect(contender, settings.context, time_limit) as engine:
        yield Opened(engine)


def _connect(contender: Contender, context: int, time_limit: float) -> Engine:
    options = {"time_limit": time_limit, **contender.options}
    if contender.engine == "ollama":
        from guidebook.engines.ollama import OllamaServer

        host = options.pop("host", "http://127.0.0.1:11434")
        options.setdefault("n_ctx", context)
        return OllamaServer(host, contender.model, **options)
    from guidebook.engines.openai_server import OpenAIServer

    return OpenAIServer(options.pop("base_url"), contender.model or None, **options)


def _common(contender: Contender, settings: Settings) -> dict[str, Any]:
    from guidebook import machine

    options: Mapping[str, Any] = contender.options
    threads = settings.n_threads or machine.usable_threads()
    return {"n_ctx": settings.context, "n_threads": threads, **options}


def _file_type(path: Path) -> str:
    """Return the type that most of a GGUF file's bytes have, or the one its header names."""
    from guidebook import gguf_files

    found = gguf_files.inspect(path)
    try:
        from gguf import LlamaFileType

        name = str(LlamaFileType(int(found.metadata["general.file_type"])).name)
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError, TypeError):
        sizes: dict[str, int] = {}
        for tensor in found.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.n_bytes
        return max(sizes, key=lambda name: sizes[name], default="")


_OPENERS: dict[str, Any] = {
    "llama-cpp": _llama_cpp,
    "llama-cpp-server": _llama_cpp_server,
    "transformers": _transformers,
    "openai": _running_server,
    "ollama": _running_server,
}
