"""A server for a model on this machine, started here and ended here.

llama-cpp-python's OpenAI-compatible server, as it comes, in a process of its own::

    with server.llama_cpp(path) as running:
        engine = OpenAIServer(running.base_url, running.model)

It listens on 127.0.0.1 only, writes no file, and ends with this process even if that is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from guidebook import lifeline
from guidebook.engines.base import EngineError

_HOST = "127.0.0.1"
_LAST_WORDS_SECONDS = 2.0
_LARGEST_ANSWER = 64 * 1024
# The module of each package that llama-cpp-python's server needs, and its name to install.
_PACKAGES = {
    "llama_cpp": "llama-cpp-python",
    "uvicorn": "uvicorn",
    "fastapi": "fastapi",
    "sse_starlette": "sse-starlette",
    "starlette_context": "starlette-context",
    "pydantic_settings": "pydantic-settings",
}


class Server:
    """A server that this process starts and ends; :func:`llama_cpp` makes one.

    Attributes
    ----------
    model
        The model's name for clients.
    load_seconds
        Time from the start of the process to its first right answer, with the model loaded; 0
        before that. Python and its libraries start in it too, about a second and a half.
    """

    def __init__(self, path: Path, model: str, options: dict[str, Any], time_limit: float) -> None:
        self.model = model
        self.load_seconds = 0.0
        self._path = path
        self._options = options
        self._time_limit = time_limit
        self._child: lifeline.Child | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """Where clients of the OpenAI API find it, such as ``http://127.0.0.1:41234/v1``."""
        self._running()
        return f"http://{_HOST}:{self._port}/v1"

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._running().pid

    def log(self) -> str:
        """Return the end of what the server has printed."""
        return "" if self._child is None else self._child.log()

    def start(self) -> Server:
        """Start the server and wait until it answers; one that runs stays as it is.

        Raises
        ------
        EngineError
            It ended, or did not answer in time; the message holds its last words.
        """
        if self._child is not None and self._child.poll() is None:
            return self
        self.close()
        _check_installed()
        if not self._path.is_file():
            raise EngineError(f"There is no model file {self._path.name}. Check its path.")
        begun = time.perf_counter()
        # The child gets the open socket and not a port's number: in between, another program
        # could take the port, and its answers would count as the model's.
        with socket.create_server((_HOST, 0)) as listening:
            self._port = listening.getsockname()[1]
            self._child = self._start_listening_on(listening)
        # From here on only the child holds the socket. If it ends, the connection breaks at once.
        try:
            self._wait(begun + self._time_limit)
        except BaseException:
            self.close()
            raise
        self.load_seconds = time.perf_counter() - begun
        return self

    def close(self) -> None:
        """End the server and free its memory and its port; calling it twice does no harm."""
        if self._child is not None:
            lifeline.end(self._child)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_listening_on(self, listening: socket.socket) -> lifeline.Child:
        number = listening.fileno()
        child = lifeline.start(
            [sys.executable, "-P", "-m", "guidebook.engines._llama_cpp_server"], pass_fds=[number]
        )
        job = {
            "socket": number,
            # By default a new request ends the one before it, in the middle of its answer. Here
            # the new one waits: the server computes one answer at a time.
            "server": {"interrupt_requests": False},
            "model": self._options,
        }
        assert child.stdin is not None  # noqa: S101 - opened as a pipe
        with contextlib.suppress(BrokenPipeError):  # it died at once, as will be seen
            child.stdin.write(json.dumps(job).encode() + b"\n")
        return child

    def _wait(self, deadline: float) -> None:
        """Wait for the first answer. The socket is open already, so one request can wait for it."""
        left = max(0.1, deadline - time.perf_counter())
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=left)
        try:
            connection.request("GET", "/v1/models")
            answer = connection.getresponse()
            models = json.loads(answer.read(_LARGEST_ANSWER))["data"]
            if self.model in [model["id"] for model in models]:
                return
        except TimeoutError as error:
            raise EngineError(
                f"llama-cpp-python's server did not answer within {self._time_limit:g} s. Give it "
                "more with time_limit, or take a smaller model."
            ) from error
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            pass  # it has ended, or is about to
        finally:
            connection.close()
        raise EngineError(f"llama-cpp-python's server did not start: {self._last_words()}.")

    def _last_words(self) -> str:
        assert self._child is not None  # noqa: S101 - set by start
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_LAST_WORDS_SECONDS)
        # Outputs are published, and a path would name a home folder.
        return self._child.how_it_ended().replace(str(self._path), self._path.name).rstrip(".")

    def _running(self) -> lifeline.Child:
        if self._child is None:
            raise EngineError("The server does not run: use it in a with statement, or start it.")
        if self._child.poll() is not None and self._child.stdin is not None:
            if self._child.stdin.closed:
                raise EngineError("The server has been closed: start it again.")
            raise EngineError(f"The server has ended: {self._last_words()}.")
        return self._child


def llama_cpp(
    path: Path,
    *,
    n_ctx: int = 2048,
    n_threads: int | None = None,
    n_gpu_layers: int = 0,
    alias: str = "local",
    time_limit: float = 60.0,
) -> Server:
    """Prepare llama-cpp-python's server for a GGUF file.

    Its options are those of ``Llama(...)`` and of :meth:`LlamaCpp.load`, where the server's own
    defaults differ from them, so that both can be compared. It computes one answer at a time; a
    further request waits for its turn. What a prompt has in common with the one before it is not
    computed again, and that cannot be switched off.

    Parameters
    ----------
    path
        The file.
    n_ctx
        Context length in tokens.
    n_threads
        Threads for reading and for writing; without a number, llama-cpp-python chooses.
    n_gpu_layers
        Layers that go to the GPU; -1 for all.
    alias
        The model's name for clients.
    time_limit
        Seconds from its start to its first answer.

    Raises
    ------
    ValueError
        A number is not one that llama.cpp can take.
    """
    if n_ctx < 1 or (n_threads is not None and n_threads < 1):
        raise ValueError("n_ctx and n_threads must be 1 or more.")
    if not time_limit > 0:
        raise ValueError("time_limit must be more than 0 seconds.")
    options: dict[str, Any] = {
        "model": str(path.resolve()),
        "model_alias": alias,
        "n_ctx": n_ctx,
        "n_gpu_layers": n_gpu_layers,
        # Off in Llama(...), on in the server: logits of every token of the prompt cost time, and
        # 400 MB for 2,048 tokens of the embedded model's vocabulary.
        "logits_all": False,
        # Off in Llama(...), on in the server: pins the model in memory, where that is allowed.
        "use_mlock": False,
        "verbose": False,
    }
    if n_threads is not None:
        options |= {"n_threads": n_threads, "n_threads_batch": n_threads}
    return Server(path, alias, options, time_limit)


def _check_installed() -> None:
    missing = [name for module, name in _PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise EngineError(
            f"llama-cpp-python's server needs {', '.join(missing)}. "
            f"Run: pip install {' '.join(missing)}"
        )
