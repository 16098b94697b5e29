"""Finding tools and servers: recorded machines, and small servers that really answer."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from doctor_records import machine

from guidebook.doctor.recorded import RecordedProbe
from guidebook.engines import discovery
from guidebook.engines.discovery import Found, ModelServer

Answers = Mapping[str, object]


def models_of(owner: str, *names: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]}


# What each server answers, from its public documentation; sources in discovery.py.
OLLAMA: Answers = {
    "/v1/models": models_of("library", "qwen3:0.6b", "gemma3:1b"),
    "/api/version": {"version": "0.34.0"},
}
LM_STUDIO: Answers = {
    "/v1/models": models_of("organization_owner", "qwen3-0.6b"),
    "/api/v0/models": {
        "object": "list",
        "data": [{"id": "qwen3-0.6b", "object": "model", "type": "llm", "state": "not-loaded"}],
    },
    # It answers what it does not know with status 200.
    "*": {"error": "Unexpected endpoint or method. (GET)"},
}
LLAMA_CPP: Answers = {
    "/v1/models": models_of("llamacpp", "/home/zaphod/models/tiny-q4.gguf"),
    "/props": {"build_info": "b8681-3f1a2bc", "total_slots": 4, "model_path": "/home/zaphod/m"},
}
LLAMA_CPP_PYTHON: Answers = {
    "/v1/models": models_of("me", "local"),
    "/openapi.json": {"info": {"title": "🦙 llama.cpp Python API", "version": "0.3.36"}},
}
VLLM: Answers = {
    "/v1/models": models_of("vllm", "Qwen/Qwen3-0.6B"),
    "/version": {"version": "0.26.0"},
    "/openapi.json": {"info": {"title": "FastAPI", "version": "0.1.0"}},
}
SOME_OTHER: Answers = {"/v1/models": models_of("someone", "tiny")}


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Return a function that starts a server with given answers and returns its port."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: Answers, host: str = "127.0.0.1", status: int = 200) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path, answers.get("*"))
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(404 if answer is None else status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer((host, 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent_server(host: str = "127.0.0.1", greeting: bytes = b"") -> Iterator[int]:
    """Accept connections, say what is given, and then nothing."""
    with socket.create_server((host, 0)) as listening:
        kept = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    connection.sendall(greeting)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in kept:
            connection.close()


@pytest.fixture(autouse=True)
def no_usual_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    # What really runs on the machine that tests is none of their business.
    monkeypatch.setattr(discovery, "_PORTS", {})


def look(probe: RecordedProbe | None = None, time_limit: float = 3.0, **packages: str) -> Found:
    return discovery.look(
        time_limit, probe=probe or machine(), version_of=lambda name: packages.get(name)
    )


def look_at(monkeypatch: pytest.MonkeyPatch, ports: Mapping[int, discovery.Kind]) -> Found:
    monkeypatch.setattr(discovery, "_PORTS", ports)
    return look()


# --- Servers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "kind", "version", "models"),
    [
        (OLLAMA, "Ollama", "0.34.0", ("qwen3:0.6b", "gemma3:1b")),
        (LM_STUDIO, "LM Studio", None, ("qwen3-0.6b",)),
        (LLAMA_CPP, "llama.cpp", "b8681-3f1a2bc", ("/home/zaphod/models/tiny-q4.gguf",)),
        (LLAMA_CPP_PYTHON, "llama-cpp-python", "0.3.36", ("local",)),
        (VLLM, "vLLM", "0.26.0", ("Qwen/Qwen3-0.6B",)),
        (SOME_OTHER, "OpenAI-compatible", None, ("tiny",)),
    ],
)
# Whatever usually listens on the port: what answers counts.
@pytest.mark.parametrize("usual", ["Ollama", "vLLM"])
def test_each_server_is_recognized_with_its_version_and_models(
    serve: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    kind: discovery.Kind,
    version: str | None,
    models: tuple[str, ...],
    usual: discovery.Kind,
) -> None:
    port = serve(answers)
    (server,) = look_at(monkeypatch, {port: usual}).servers
    url = f"http://127.0.0.1:{port}/v1"
    assert server == ModelServer(kind, url, "this machine", version, models)
    assert server.is_usable


def test_dockers_models_lie_below_a_path_of_their_own(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = serve({"/engines/v1/models": models_of("docker", "ai/smollm2")})
    (server,) = look_at(monkeypatch, {port: "Docker Model Runner"}).servers
    assert server.kind == "Docker Model Runner"
    assert server.base_url == f"http://127.0.0.1:{port}/engines/v1"
    assert server.models == ("ai/smollm2",)


def test_an_ollama_without_models_is_an_ollama(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = OLLAMA | {"/v1/models": {"object": "list", "data": None}}
    (server,) = look_at(monkeypatch, {serve(answers): "Ollama"}).servers
    assert (server.kind, server.models, server.is_usable) == ("Ollama", (), False)


@pytest.mark.parametrize(
    "answers",
    [
        {},  # 404 for everything
        {"*": b"<html>hello</html>"},
        {"*": b"\xff\xfe\x00garbage"},
        {"*": b""},
        {"*": []},
        {"*": {"data": "no list"}},
        {"*": {"data": ["no mapping"]}},
        {"*": b'{"data": NaN}'},
        {"*": b"[" * 100_000},
    ],
)
def test_what_answers_with_anything_else_is_no_model_server(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, answers: Answers
) -> None:
    found = look_at(monkeypatch, {serve(answers): "vLLM"})
    (server,) = found.servers
    assert (server.kind, server.note) == ("unknown", "answers, but is not a model server")
    assert "answers, but is not a model server" in str(found)


def test_what_does_not_speak_http_is_no_model_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server(greeting=b"220 mail.example ESMTP\r\n") as port:
        (server,) = look_at(monkeypatch, {port: "vLLM"}).servers
    assert server.note == "answers, but is not a model server"


@pytest.mark.parametrize(("status", "note"), [(401, "wants a key"), (503, "is not ready")])
def test_a_server_that_refuses_says_why(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, status: int, note: str
) -> None:
    port = serve({"*": {"error": "no"}}, status=status)
    (server,) = look_at(monkeypatch, {port: "vLLM"}).servers
    assert server.kind == "unknown"
    assert server.note.startswith(note)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: applicat"])
def test_servers_that_hang_cost_one_time_limit_together(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(discovery, "_ANSWER_SECONDS", 0.5)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(silent_server(greeting=greeting)) for _ in range(5)]
        ports: dict[int, discovery.Kind] = dict.fromkeys([*silent, serve(OLLAMA)], "vLLM")
        begun = time.monotonic()
        found = look_at(monkeypatch, ports)
        assert time.monotonic() - begun < 1.5
    assert [server.kind for server in found.servers] == ["unknown"] * 5 + ["Ollama"]
    assert "may be busy" in found.servers[0].note


def test_the_whole_look_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as port:
        monkeypatch.setattr(discovery, "_PORTS", {port: "vLLM"})
        begun = time.monotonic()
        found = look(time_limit=0.3)
        assert time.monotonic() - begun < 0.8
    assert found.servers == ()


def test_absurd_model_names_and_numbers_of_models_are_left_out(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ok", "", "two\nlines", *(f"m{n}" for n in range(500))]
    rows: list[dict[str, object]] = [{"id": name} for name in names]
    port = serve({"/v1/models": {"data": [{"id": 5}, {}, *rows]}})
    found = look_at(monkeypatch, {port: "vLLM"})
    assert found.servers[0].models[:2] == ("ok", "m0")
    assert len(found.servers[0].models) < 200
    assert "ok, m0, m1, m2 and" in str(found)


# --- Environment variables ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("[::]:8000", "http://127.0.0.1:8000"),
        ("[::1]", "http://[::1]:11434"),
        ("big.example:5", "http://big.example:5"),
        ("http://big.example", "http://big.example:80"),
        ("https://big.example/", "https://big.example:443"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value: str, origin: str) -> None:
    assert discovery._ollama_origin(value) == origin


def test_servers_named_in_variables_are_found_once_each(serve: Callable[..., int]) -> None:
    ollama, other = serve(OLLAMA), serve(SOME_OTHER)
    environment = {
        "OLLAMA_HOST": f"http://127.0.0.1:{ollama}",
        "GUIDEBOOK_SERVERS": f"localhost:{ollama}, http://127.0.0.1:{other}/v1,, localhost:9",
    }
    found = look(machine(environment=environment))
    assert [server.kind for server in found.servers] == ["Ollama", "OpenAI-compatible"]
    assert [server.where for server in found.servers] == ["this machine"] * 2


@pytest.mark.parametrize("value", ["http://", "ftp://x", "http://me:secret@host:1", "host:port"])
@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "GUIDEBOOK_SERVERS"])
def test_a_variable_that_holds_no_address_is_named_without_its_secrets(
    variable: str, value: str
) -> None:
    with pytest.raises(ValueError, match=variable) as raised:
        look(machine(environment={variable: value}))
    assert "secret" not in str(raised.value)


# --- WSL ------------------------------------------------------------------------------------


def wsl(mode: str = "nat", gateway: str = "127.0.0.2", **files: str) -> RecordedProbe:
    # The second loopback address plays Windows.
    commands = {
        "wslinfo --networking-mode": mode,
        "ip route show default": f"default via {gateway} dev eth0",
    }
    return machine("healthy-wsl2", commands=commands, files=files)


def test_with_nat_windows_is_the_gateway(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidebook.engines._http.Address.is_this_machine", False)
    port = serve(LM_STUDIO, "127.0.0.2")
    monkeypatch.setattr(discovery, "_PORTS", {port: "LM Studio"})
    found = look(wsl())
    (server,) = found.servers
    assert (server.where, server.base_url) == ("Windows", f"http://127.0.0.2:{port}/v1")
    assert "Serve on Local Network" in found.windows
    assert "OLLAMA_HOST=0.0.0.0" in found.windows
    assert "127.0.0.2" in str(found)


@pytest.mark.parametrize(("listens_here", "where"), [(True, "this machine"), (False, "Windows")])
def test_with_a_mirrored_network_ports_tell_here_from_windows(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, listens_here: bool, where: str
) -> None:
    monkeypatch.setattr(discovery, "_PORTS", {serve(LM_STUDIO): "LM Studio"})
    if not listens_here:
        monkeypatch.setattr("psutil.net_connections", lambda kind: [])
    found = look(wsl("mirrored"))
    assert [server.where for server in found.servers] == [where]
    assert "127.0.0.1" in found.windows


def test_wsl_without_a_network_says_so() -> None:
    assert "cannot be reached" in look(wsl("none")).windows


def test_outside_of_wsl_nothing_is_said_about_windows() -> None:
    found = look()
    assert found.windows == ""
    assert "Windows" not in str(found)


def test_in_a_container_on_wsl_windows_is_not_looked_for() -> None:
    layers = "30 1 0:50 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/x"
    probe = wsl(**{"/.dockerenv": "", "/proc/self/mountinfo": layers})
    assert look(probe).windows == ""


def test_tools_on_the_windows_side_are_seen_from_wsl() -> None:
    path = "/mnt/c/Users/me/AppData/Local/Programs/LM Studio/LM Studio.exe"
    by_name = {tool.name: tool for tool in look(wsl(**{path: ""})).tools}
    assert by_name["LM Studio"].on_windows == "installed"
    assert by_name["Ollama"].on_windows == "winget install Ollama.Ollama"


# --- Tools ----------------------------------------------------------------------------------


def test_a_machine_without_tools_is_told_how_to_install_each() -> None:
    found = look()
    assert not any(tool.installed for tool in found.tools)
    assert all(tool.install and tool.version is None for tool in found.tools)
    assert "curl -fsSL https://ollama.com/install.sh | sh" in str(found)
    assert "none answers" in str(found)


def test_installed_tools_come_with_version_and_how_to_start_them() -> None:
    plugin = "/usr/libexec/docker/cli-plugins/docker-model"
    probe = machine(
        commands={
            "ollama --version": {
                "status": "ok",
                "text": "Warning: could not connect to a running Ollama instance\n"
                "Warning: client version is 0.34.0",
            },
            "/home/me/.lmstudio/bin/lms version": "lms - LM Studio CLI - v0.0.47",
            "llama-server --version": {
                "status": "ok",
                "error": "version: 8681 (3f1a2bc)\nbuilt with cc for x86_64-linux-gnu",
            },
            f"{plugin} docker-cli-plugin-metadata": '{"Vendor":"Docker Inc.","Version":"v1.0.6"}',
        },
        files={plugin: ""},
    )
    found = look(probe, **{"llama-cpp-python": "0.3.36", "vllm": "0.26.0"})
    versions = {tool.name: tool.version for tool in found.tools if tool.installed}
    assert versions == {
        "Ollama": "0.34.0",
        "LM Studio": "0.0.47",
        "llama.cpp": "b8681",
        "llama-cpp-python": "0.3.36",
        "vLLM": "0.26.0",
        "Docker Model Runner": "1.0.6",
    }
    for start in ("ollama serve", "lms server start", "llama-server -m", "vllm serve"):
        assert f"start: {start}" in str(found)


def test_a_tool_that_says_no_version_is_installed_all_the_same() -> None:
    probe = machine(commands={"ollama --version": {"status": "timed out"}})
    (tool,) = [one for one in look(probe).tools if one.name == "Ollama"]
    assert (tool.installed, tool.version) == (True, None)


@pytest.mark.parametrize(
    ("system", "architecture", "has_mlx", "ollama"),
    [
        ("darwin", "arm64", True, "brew install ollama"),
        ("darwin", "x86_64", False, "brew install ollama"),
        ("linux", "x86_64", False, "curl"),
        ("win32", "AMD64", False, "ollama.com/download"),
    ],
)
def test_what_to_install_fits_the_system(
    system: str, architecture: str, has_mlx: bool, ollama: str
) -> None:
    probe = machine(platform={"system": system, "machine": architecture})
    by_name = {tool.name: tool for tool in look(probe).tools}
    assert ("MLX LM" in by_name) == has_mlx
    assert ("vLLM" in by_name) == (system == "linux")
    assert by_name["Ollama"].install.startswith(ollama)


def test_macs_apps_count_as_installed() -> None:
    probe = machine(
        platform={"system": "darwin", "machine": "arm64"},
        files={"/Applications/Ollama.app/x": "", "/Applications/LM Studio.app/x": ""},
    )
    installed = {tool.name for tool in look(probe).tools if tool.installed}
    assert installed == {"Ollama", "LM Studio"}


# --- Privacy and rendering ------------------------------------------------------------------


def test_what_is_shown_and_exported_names_nobody() -> None:
    paths = ("/home/zaphod/m/tiny.gguf", r"C:\Users\zaphod\other.gguf", "Qwen/Qwen3-0.6B")
    server = ModelServer(
        "llama.cpp", "http://zaphods-desktop.lan:8080/v1", "GUIDEBOOK_SERVERS", None, paths
    )
    found = Found(look().tools, (server,))
    for text in (str(found), found._repr_html_(), json.dumps(found.to_dict())):
        assert "zaphod" not in text
        assert "http://HOST:8080/v1" in text
        assert "tiny.gguf" in text
        assert "other.gguf" in text
        assert "Qwen/Qwen3-0.6B" in text
    assert server.models == paths  # a request needs the true names


def test_hostile_names_are_escaped() -> None:
    server = ModelServer("unknown", "http://127.0.0.1:1/v1", "this machine", None, ("<b>x</b>",))
    assert "<b>x" not in Found(look().tools, (server,))._repr_html_()
