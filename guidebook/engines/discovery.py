"""Which tools are on this machine, and which model servers answer here and on Windows beside WSL.

``look()`` asks everything at once, each question with a time limit, and never starts anything.
"""

from __future__ import annotations

import importlib.metadata
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from guidebook import tables
from guidebook.doctor import windows_host
from guidebook.doctor.facts import Facts, windows_drive
from guidebook.doctor.live import LiveProbe
from guidebook.doctor.probe import Probe
from guidebook.engines import _tools
from guidebook.engines._http import Address, Http, StatusError, quote
from guidebook.engines._tools import Tool, VersionOf
from guidebook.engines.base import EngineError
from guidebook.machine import system
from guidebook.machine._outside import Later

__all__ = ["Found", "ModelServer", "Tool", "look"]

Kind = Literal[
    "Ollama",
    "LM Studio",
    "llama.cpp",
    "llama-cpp-python",
    "vLLM",
    "Docker Model Runner",
    "OpenAI-compatible",
    "unknown",
]

Get = Callable[[str], Any]

SERVERS_VARIABLE = "GUIDEBOOK_SERVERS"
_OLLAMA_VARIABLE = "OLLAMA_HOST"
_LOCAL = "127.0.0.1"
# The usual ports, by what usually listens there.
_PORTS: Mapping[int, Kind] = {
    11434: "Ollama",
    1234: "LM Studio",
    8080: "llama.cpp",
    8000: "vLLM",
    12434: "Docker Model Runner",
}
_CONNECT_SECONDS = 0.5
_ANSWER_SECONDS = 1.5
_MOST_MODELS = 200
_NOT_ONE = "answers, but is not a model server"
_LATE = "accepts connections, but did not answer in time; it may be busy"
_REFUSALS = {
    401: "wants a key",
    403: "wants a key",
    503: "is not ready; it may still be loading its model",
}
_PATH = re.compile(r"(?:[~/]|[A-Za-z]:[\\/])")
# How servers call the owner of their models in /v1/models, which tells what to ask first.
_OWNERS: Mapping[str, Kind] = {
    "library": "Ollama",
    "organization_owner": "LM Studio",
    "llamacpp": "llama.cpp",
    "me": "llama-cpp-python",
    "vllm": "vLLM",
    "docker": "Docker Model Runner",
}


@dataclass(frozen=True)
class ModelServer:
    """A server that answers.

    Attributes
    ----------
    kind
        What it is; ``unknown`` if it is no model server, or will not say without a key.
    base_url
        Where its OpenAI-compatible API is, with ``/v1`` at the end.
    where
        ``this machine``, ``Windows``, or the environment variable that names it.
    version
        ``None`` if it does not say.
    models
        Their names, as a request must give them.
    note
        What is odd about it; empty if nothing is.
    """

    kind: Kind
    base_url: str
    where: str
    version: str | None = None
    models: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether a model can be asked there."""
        return bool(self.models)

    @property
    def shown_url(self) -> str:
        """The address without a host that names a person's computer."""
        parts = urlsplit(self.base_url)
        if self.where in ("this machine", "Windows"):
            return self.base_url
        host = f"HOST:{parts.port}" if parts.port else "HOST"
        return urlunsplit(parts._replace(netloc=host))

    @property
    def shown_models(self) -> tuple[str, ...]:
        """The models' names; of one that is a path, only its end."""
        return tuple(
            re.split(r"[\\/]", name.rstrip("\\/"))[-1] if _PATH.match(name) else name
            for name in self.models
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data in which nothing names a person or a computer."""
        shown = replace(self, base_url=self.shown_url, models=self.shown_models)
        return asdict(shown) | {"models": list(shown.models)}


@dataclass(frozen=True)
class Found:
    """What :func:`look` has found.

    Attributes
    ----------
    tools
        Every tool that this system can have, here or not.
    servers
        Every server that answers.
    windows
        In WSL 2, how servers on Windows are reached; empty otherwise.
    seconds
        How long it took.
    """

    tools: tuple[Tool, ...]
    servers: tuple[ModelServer, ...]
    windows: str = ""
    seconds: float = 0.0

    @property
    def tool_table(self) -> tables.Table:
        """The tools and what to type next, as a table."""
        rows = []
        for tool in self.tools:
            row = {
                "tool": tool.name,
                "version": tool.version or ("unknown" if tool.installed else "not installed"),
                "next step": ("start: " if tool.installed else "install: ") + tool.next_step,
            }
            if any(one.on_windows for one in self.tools):
                row["on Windows"] = tool.on_windows or "–"
            rows.append(row)
        return tables.table(rows, "Tools")

    @property
    def server_table(self) -> tables.Table:
        """The servers that answer, as a table."""
        rows = [
            {
                "server": server.kind,
                "address": server.shown_url,
                "where": server.where,
                "version": server.version or "unknown",
                "models": _listed(server.shown_models) or server.note or "none",
            }
            for server in self.servers
        ]
        none = {"server": "none answers", "address": "–", "where": "–", "version": "–"}
        return tables.table(rows or [none | {"models": "–"}], "Servers that answer")

    def __str__(self) -> str:
        return "\n\n".join(
            str(part) for part in (self.tool_table, self.server_table, self.windows) if part
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        windows = f"<p>{escape(self.windows)}</p>" if self.windows else ""
        return self.tool_table._repr_html_() + self.server_table._repr_html_() + windows

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data in which nothing names a person or a computer."""
        return {
            "tools": [asdict(tool) for tool in self.tools],
            "servers": [server.to_dict() for server in self.servers],
            "windows": self.windows,
        }


@dataclass(frozen=True)
class _Place:
    """Where to look for a server, and for which one first."""

    url: str
    where: str
    usual: Kind


def look(
    time_limit: float = 3.0,
    *,
    servers: Sequence[str] = (),
    probe: Probe | None = None,
    version_of: VersionOf | None = None,
) -> Found:
    """Look for tools and servers.

    Servers are looked for on their usual ports of this machine and, from WSL 2, of Windows; where
    ``OLLAMA_HOST`` says; and at the addresses in ``GUIDEBOOK_SERVERS``, which are separated by
    commas.

    Parameters
    ----------
    time_limit
        Seconds for all of it. What has not answered by then is left out.
    servers
        More addresses to ask.
    probe
        The machine to look at; this one if there is none.
    version_of
        The version of an installed package; this Python's if there is none.

    Raises
    ------
    ValueError
        One of ``servers`` is no address, or an environment variable holds none.
    """
    begun = time.monotonic()
    end = begun + time_limit
    if probe is None:
        with LiveProbe(time_limit) as live:
            return look(time_limit, servers=servers, probe=live, version_of=version_of)
    facts = _facts(probe)
    # Local servers answer while the programs below are still starting.
    asked = [_ask_later(place, end) for place in _places(probe, servers)]
    windows = windows_host.find(probe, facts) if facts.os == "wsl2" else None
    if windows is not None and windows.mode != "mirrored" and windows.address:
        asked += [
            _ask_later(_Place(f"http://{windows.address}:{port}", "Windows", usual), end)
            for port, usual in _PORTS.items()
        ]
    tools = _tools.look(probe, facts, version_of or _installed_version)
    found: dict[str, ModelServer] = {}
    for later in asked:
        server = later.result(end - time.monotonic())
        if server is not None:
            if windows is not None and windows.mode == "mirrored":
                server = _told_from_windows(server)
            # A variable may name what its usual port has shown already.
            found.setdefault(server.base_url.replace("localhost", _LOCAL), server)
    seconds = round(time.monotonic() - begun, 2)
    return Found(tools, tuple(found.values()), _how_to_reach(windows), seconds)


def _facts(probe: Probe) -> Facts:
    """Return the few facts that are needed here, and that cost no time."""
    platform = probe.platform()
    names = ("KUBERNETES_SERVICE_HOST", "APPTAINER_CONTAINER")
    environment = {name: value for name in names if (value := probe.environment(name))}
    if platform.system == "darwin":
        return Facts("macos-arm" if platform.machine == "arm64" else "macos-intel")
    if platform.system == "win32":
        return Facts("windows")
    if platform.system != "linux":
        return Facts("other")
    # A container on WSL's kernel is a container: Windows is not its neighbour.
    if system.wsl_version(probe.root) != 2 or system.container(probe.root, environment):
        return Facts("linux")
    return Facts("wsl2", windows_drive=windows_drive(probe))


def _places(probe: Probe, servers: Sequence[str]) -> Iterator[_Place]:
    for port, usual in _PORTS.items():
        yield _Place(f"http://{_LOCAL}:{port}", "this machine", usual)
    if named := (probe.environment(_OLLAMA_VARIABLE) or "").strip():
        yield _Place(_ollama_origin(named), _OLLAMA_VARIABLE, "Ollama")
    for url in (probe.environment(SERVERS_VARIABLE) or "").split(","):
        if url.strip():
            yield _Place(_named_url(url, SERVERS_VARIABLE), SERVERS_VARIABLE, "OpenAI-compatible")
    for url in servers:
        yield _Place(_url(Address(url)), "the address given", "OpenAI-compatible")


def _url(address: Address) -> str:
    return address.origin + address.path


def _named_url(url: str, variable: str, port: int | None = None) -> str:
    try:
        return _url(Address(url, port))
    except ValueError as error:
        raise ValueError(f"The environment variable {variable} is wrong: {error}") from None


def _ollama_origin(value: str) -> str:
    """Read OLLAMA_HOST as Ollama does: a host, a port, both, or a whole address."""
    scheme, given, rest = value.rpartition("://")
    host = rest.partition("/")[0]
    if host.startswith(":"):
        host = _LOCAL + host
    # What a server listens on everywhere is reached here.
    for everywhere in ("0.0.0.0", "[::]"):  # noqa: S104 - recognized, not listened on
        if host == everywhere or host.startswith(f"{everywhere}:"):
            host = _LOCAL + host.removeprefix(everywhere)
    # Without a scheme the port is Ollama's, with one it is the scheme's.
    port = None if given else 11434
    return _named_url(f"{scheme}{given}{host}", _OLLAMA_VARIABLE, port)


def _ask_later(place: _Place, end: float) -> Later[ModelServer | None]:
    return Later(lambda: _ask(place, end))


def _ask(place: _Place, end: float) -> ModelServer | None:
    """Find out what listens at a place; None if nothing does."""
    address = Address(place.url)
    if not _connects(address, end):
        return None
    prefix = address.path.removesuffix("/v1")
    if not prefix and place.usual == "Docker Model Runner":
        prefix = "/engines"
    where = "this machine" if address.is_this_machine else place.where
    server = ModelServer("unknown", f"{address.origin}{prefix}/v1", where)
    get = _getter(address, end)
    begun = time.monotonic()
    try:
        models, owner = _models_of(get(f"{prefix}/v1/models"))
    except StatusError as error:
        return replace(server, note=_REFUSALS.get(error.status, _NOT_ONE))
    except EngineError:
        is_late = time.monotonic() - begun > 0.9 * _ANSWER_SECONDS
        return replace(server, note=_LATE if is_late else _NOT_ONE)
    if prefix:
        kind: Kind = "Docker Model Runner" if prefix == "/engines" else "OpenAI-compatible"
        return replace(server, kind=kind, models=models)
    # The likeliest first: a server notes every question that it does not understand in its log.
    likely = [_OWNERS.get(owner), place.usual]
    for kind in sorted(_RECOGNIZE, key=lambda kind: likely.index(kind) if kind in likely else 2):
        try:
            is_it, version = _RECOGNIZE[kind](get, owner)
        except EngineError:
            continue
        if is_it:
            return replace(server, kind=kind, version=version, models=models)
    return replace(server, kind="OpenAI-compatible", models=models)


def _connects(address: Address, end: float) -> bool:
    left = min(_CONNECT_SECONDS, end - time.monotonic())
    if left <= 0:
        return False
    try:
        with socket.create_connection((address.host, address.port), timeout=left):
            return True
    except OSError:
        return False


def _getter(address: Address, end: float) -> Get:
    http = Http(address, "The server")

    def get(path: str) -> Any:  # noqa: ANN401 - JSON
        left = min(_ANSWER_SECONDS, end - time.monotonic())
        if left <= 0:
            raise EngineError("The time is up.")
        return http.ask(path, seconds=left)

    return get


def _models_of(answer: object) -> tuple[tuple[str, ...], str]:
    """Read an answer to /v1/models: the models' names, and the first one's owner."""
    if not isinstance(answer, Mapping) or "data" not in answer:
        raise EngineError("That is no list of models.")
    # Ollama without any model says null.
    rows = answer["data"] or []
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise EngineError("That is no list of models.")
    names = [row.get("id") for row in rows[:_MOST_MODELS]]
    owner = rows[0].get("owned_by") if rows else ""
    return (
        tuple(name for name in names if isinstance(name, str) and name and name.isprintable()),
        owner if isinstance(owner, str) else "",
    )


def _is_ollama(get: Get, _: str) -> tuple[bool, str | None]:
    version = _field(get("/api/version"), "version")
    return version is not None, version


def _is_lm_studio(get: Get, _: str) -> tuple[bool, str | None]:
    # It does not tell its version. It answers every question with status 200.
    rows = get("/api/v0/models")
    data = rows.get("data") if isinstance(rows, Mapping) else None
    return isinstance(data, list) and all("state" in row for row in data), None


def _is_llama_cpp(get: Get, _: str) -> tuple[bool, str | None]:
    build = _field(get("/props"), "build_info")
    return build is not None, build


def _is_llama_cpp_python(get: Get, _: str) -> tuple[bool, str | None]:
    api = get("/openapi.json")
    info = api.get("info") if isinstance(api, Mapping) else None
    title = _field(info, "title") or ""
    return "llama.cpp Python" in title, _field(info, "version")


def _is_vllm(get: Get, owner: str) -> tuple[bool, str | None]:
    return owner == "vllm", _field(get("/version"), "version") if owner == "vllm" else None


# https://docs.ollama.com/api-reference/get-version, https://lmstudio.ai/docs/developer/rest,
# tools/server/README.md of llama.cpp, llama_cpp/server/app.py, docs.vllm.ai
_RECOGNIZE: Mapping[Kind, Callable[[Get, str], tuple[bool, str | None]]] = {
    "Ollama": _is_ollama,
    "LM Studio": _is_lm_studio,
    "llama.cpp": _is_llama_cpp,
    "llama-cpp-python": _is_llama_cpp_python,
    "vLLM": _is_vllm,
}


def _field(answer: object, name: str) -> str | None:
    value = answer.get(name) if isinstance(answer, Mapping) else None
    return quote(value, 60) if isinstance(value, str) and value.strip() else None


def _told_from_windows(server: ModelServer) -> ModelServer:
    """With a mirrored network the same address leads here and to Windows."""
    import psutil

    try:
        ports = {
            getattr(connection.laddr, "port", None)
            for connection in psutil.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    except (psutil.Error, OSError):
        return server
    is_elsewhere = urlsplit(server.base_url).port not in ports
    return replace(server, where="Windows") if is_elsewhere else server


def _how_to_reach(windows: windows_host.WindowsHost | None) -> str:
    if windows is None:
        return ""
    if windows.mode == "mirrored":
        return "WSL's network is mirrored: servers on Windows answer at 127.0.0.1 here."
    if windows.address is None:
        return f"WSL's network is {windows.mode}: servers on Windows cannot be reached."
    return (
        f"WSL's network is {windows.mode}: servers on Windows are at {windows.address} from here, "
        "if they listen to more than Windows itself. In LM Studio, switch on 'Serve on Local "
        "Network'. For Ollama, set OLLAMA_HOST=0.0.0.0 on Windows and start it again. Then let WSL "
        "through Windows' firewall; `guidebook doctor --only wsl.network` names the command."
    )


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _listed(names: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quote(name, 60) for name in names[:most]) + more
