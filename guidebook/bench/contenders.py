"""What can be compared on this machine, and what is left out and why."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from guidebook.bench.plan import ENGINES, BenchError, Contender

if TYPE_CHECKING:
    from guidebook.engines.discovery import ModelServer

_SECONDS = 3.0
_SIZE = re.compile(r"\d+(?:\.\d+)?[bm]")
_PACKAGES = {
    "llama-cpp": ("llama_cpp", "pip install llama-cpp-python"),
    "llama-cpp-server": ("uvicorn", "pip install 'llama-cpp-python[server]'"),
    "transformers": ("transformers", "pip install transformers torch"),
}


@dataclass(frozen=True)
class Available:
    """What can be compared.

    Attributes
    ----------
    contenders
        Ready to run.
    left_out
        A sentence for everything that cannot be compared.
    """

    contenders: tuple[Contender, ...]
    left_out: tuple[str, ...]


def available(
    model: str = "embedded", engines: Sequence[str] = (), servers: Sequence[str] = ()
) -> Available:
    """Find everything on this machine that can run a model.

    Parameters
    ----------
    model
        ``"embedded"``, a Hugging Face id, a folder, or a ``.gguf`` file. Of a running server,
        the model with the same name takes part.
    engines
        Only these; empty: all.
    servers
        Addresses of servers to ask beside those that are found. Their only model takes part,
        whatever its name.

    Raises
    ------
    BenchError
        There is no such engine, or an address is not one.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise BenchError(f"There is no engine {engine!r}. Choose from {', '.join(ENGINES)}.")
    wanted = tuple(engines) or ENGINES
    contenders: list[Contender] = []
    left_out: list[str] = []
    for engine, (module, command) in _PACKAGES.items():
        if engine not in wanted:
            continue
        if importlib.util.find_spec(module) is None:
            left_out.append(f"{engine} is not installed: {command}")
        elif engine == "transformers" and model.endswith(".gguf"):
            left_out.append("transformers: a GGUF file is not for it; give a Hugging Face id.")
        elif engine == "transformers":
            kinds = ("float32", "bfloat16")
            contenders += [Contender(engine, model, options={"dtype": kind}) for kind in kinds]
        else:
            contenders.append(Contender(engine, model))
    if servers or {"openai", "ollama"} & set(wanted):
        found, without = _servers(model, wanted, servers)
        contenders += found
        left_out += without
    return Available(tuple(contenders), tuple(left_out))


def same_model(model: str, names: Sequence[str]) -> str | None:
    """Return the name under which a server has a model; ``None`` if it has not.

    Names are compared up to the model's size, without signs between: ``SmolLM2-135M-Instruct`` is
    ``smollm2:135m``. Instruction tuning and quantization are not part of that.
    """
    wanted = _core(_own_name(model))
    return next((name for name in names if wanted in _core(name, whole=True)), None)


def _servers(
    model: str, wanted: Sequence[str], given: Sequence[str]
) -> tuple[list[Contender], list[str]]:
    from guidebook.engines import discovery

    try:
        found = discovery.look(_SECONDS, servers=given)
    except ValueError as error:
        raise BenchError(str(error)) from error
    contenders: list[Contender] = []
    left_out: list[str] = []
    answering = {_origin(server.base_url) for server in found.servers}
    for address in given:
        if _origin(address) not in answering:
            left_out.append(f"{address}: no server answers there. Start it, and check the address.")
    for server in found.servers:
        named = _origin(server.base_url) in {_origin(address) for address in given}
        engine = "ollama" if server.kind == "Ollama" else "openai"
        if not named and engine not in wanted:
            continue
        name = same_model(model, server.models)
        if name is None and named and len(server.models) == 1:
            name = server.models[0]
        if name is None:
            left_out.append(_why(server, model))
            continue
        label = _label(server, {contender.label for contender in contenders})
        origin = server.base_url.removesuffix("/v1")
        where = {"host": origin} if engine == "ollama" else {"base_url": server.base_url}
        contenders.append(Contender(engine, name, label, where))
    return contenders, left_out


def _why(server: ModelServer, model: str) -> str:
    if not server.models:
        return f"{server.kind} ({server.where}): {server.note or 'it has no model.'}"
    some = ", ".join(server.shown_models[:4])
    return f"{server.kind} ({server.where}) has no {_own_name(model)}; it has {some}."


def _label(server: ModelServer, taken: set[str]) -> str:
    base = "server" if server.kind == "unknown" else f"{server.kind} server"
    base = "Ollama" if server.kind == "Ollama" else base
    base += " on Windows" if server.where == "Windows" else ""
    return next(label for label in _numbered(base) if label not in taken)


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base} {number}"
        number += 1


def _own_name(model: str) -> str:
    from guidebook.models import EMBEDDED, EMBEDDED_NAME

    return EMBEDDED_NAME if model == EMBEDDED else PurePath(model).name.removesuffix(".gguf")


def _core(name: str, whole: bool = False) -> str:
    """Return a model's name up to its size, letters and digits only."""
    parts = re.split(r"[^a-z0-9.]+", name.lower())
    sizes = [number for number, part in enumerate(parts) if _SIZE.fullmatch(part)]
    if sizes and not whole:
        parts = parts[: sizes[0] + 1]
    return re.sub(r"[^a-z0-9]", "", "".join(parts))


def _origin(address: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(address if "://" in address else f"http://{address}")
    return parts.netloc.lower().replace("localhost", "127.0.0.1")
