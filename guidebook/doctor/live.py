"""Asking this machine: every question has a time limit, and all of them together have one."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from guidebook.doctor.probe import (
    COMMAND_SECONDS,
    LARGEST_OUTPUT,
    NO_INPUTS,
    PYTHON_SECONDS,
    Output,
    PlatformFacts,
    Status,
    code_name,
    decode,
    is_text,
)
from guidebook.machine._outside import ROOT, Later, end_group, within

# With what it takes to end the last child and to report, the whole stays under ten seconds.
TOTAL_SECONDS = 8.5
_FILE_SECONDS = 1.0
_GLOB_SECONDS = 1.5
_LAST_WORDS_SECONDS = 0.5

_Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


class LiveProbe:
    """Asks this machine. What was asked once is not asked again.

    Use it as a context: what still runs at its end is ended.

    Parameters
    ----------
    seconds
        Time for everything. After it, commands come back as timed out at once.
    root
        Where the file system begins; ``/`` except in tests.
    """

    def __init__(self, seconds: float = TOTAL_SECONDS, root: Path = ROOT) -> None:
        self._end = time.monotonic() + seconds
        self._root = root
        self._lock = threading.Lock()
        self._asked: dict[_Key, Later[Output]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._hung: set[str] = set()

    def __enter__(self) -> LiveProbe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end = 0.0
        with self._lock:
            running = list(self._running)
        for process in running:
            end_group(process)

    @property
    def root(self) -> Path:
        """Where the file system begins."""
        return self._root

    def begin(self, command: Sequence[str], *, time_limit: float = COMMAND_SECONDS) -> None:
        """Start a slow command now."""
        self._begin(tuple(command), time_limit, NO_INPUTS)

    def begin_python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> None:
        """Start slow Python code now."""
        self._begin(_python(code, arguments), time_limit, NO_INPUTS)

    def run(
        self,
        command: Sequence[str],
        *,
        time_limit: float = COMMAND_SECONDS,
        inputs: Mapping[str, str] = NO_INPUTS,
    ) -> Output:
        """Run a command, at most once."""
        answer = self._begin(tuple(command), time_limit, inputs)
        # The thread keeps the limit itself; this one is for a thread that cannot.
        left = min(time_limit, self._left()) + 2 * _LAST_WORDS_SECONDS
        return answer.result(left) or Output("timed out")

    def python(
        self, code: str, *, arguments: Sequence[str] = (), time_limit: float = PYTHON_SECONDS
    ) -> Output:
        """Run code in a child of this interpreter."""
        return self.run(_python(code, arguments), time_limit=time_limit)

    def read(self, path: str, *, limit: int = LARGEST_OUTPUT) -> str | None:
        """Read a text file."""

        def read() -> bytes:
            with self._path(path).open("rb") as file:
                return file.read(limit)

        data = within(_FILE_SECONDS, read)
        return None if data is None else decode(data)

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file, folder or device."""
        # Below a file, on a server that is gone, or with a zero byte: there is no such thing.
        return bool(within(_FILE_SECONDS, lambda: self._path(path).exists()))

    def glob(self, pattern: str) -> tuple[str, ...]:
        """List the absolute paths that match."""
        found = within(_GLOB_SECONDS, lambda: glob.glob(str(self._path(pattern))))  # noqa: PTH207
        return tuple(sorted(self._shown(Path(path)) for path in found or ()))

    def resolve(self, path: str) -> str | None:
        """Follow symbolic links."""
        found = within(_FILE_SECONDS, lambda: self._path(path).resolve(strict=True))
        return None if found is None else self._shown(found)

    def environment(self, name: str) -> str | None:
        """Return an environment variable."""
        return os.environ.get(name)

    def platform(self) -> PlatformFacts:
        """Return what Python knows about where it runs."""
        try:
            folder = str(Path.cwd())
        except OSError:  # someone removed it
            folder = ""
        return PlatformFacts(
            system=sys.platform,
            machine=platform.machine(),
            release=platform.release(),
            version=platform.version(),
            python=platform.python_version(),
            prefix=sys.prefix,
            base_prefix=sys.base_prefix,
            executable=sys.executable,
            folder=folder,
            home=os.path.expanduser("~"),  # noqa: PTH111 - Path.home() raises without one
            bits=64 if sys.maxsize > 2**32 else 32,
        )

    def disk(self, path: str) -> tuple[int, int] | None:
        """Return the size and the free bytes of the disk under a path."""
        usage = within(_FILE_SECONDS, lambda: shutil.disk_usage(self._path(path)))
        return None if usage is None else (usage.total, usage.free)

    def connects(self, host: str, port: int, time_limit: float = 1.0) -> bool | None:
        """Tell whether a server accepts a connection."""
        limit = min(time_limit, self._left())

        def connect() -> bool:
            try:
                with socket.create_connection((host, port), timeout=limit):
                    return True
            except OSError:
                return False

        return within(limit, connect) if limit > 0 else None

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def _path(self, path: str) -> Path:
        if self._root == ROOT:
            return Path(path).expanduser()
        return self._root / path.lstrip("/")

    def _shown(self, path: Path) -> str:
        return str(path) if self._root == ROOT else "/" + str(path.relative_to(self._root))

    def _begin(
        self, command: tuple[str, ...], time_limit: float, inputs: Mapping[str, str]
    ) -> Later[Output]:
        key = (command, tuple(inputs.items()))
        with self._lock:
            if key not in self._asked:
                self._asked[key] = Later(lambda: self._ask(command, time_limit, inputs))
            return self._asked[key]

    def _ask(self, command: tuple[str, ...], seconds: float, inputs: Mapping[str, str]) -> Output:
        end = time.monotonic() + min(seconds, self._left())
        if end <= time.monotonic() or command[0] in self._hung:
            # A program that hung once would hang again, and take the others' time.
            return Output("timed out")
        if not inputs:
            output = self._execute(command, end, None)
        else:
            with tempfile.TemporaryDirectory(
                prefix="guidebook-doctor-", ignore_cleanup_errors=True
            ) as folder:
                for name, text in inputs.items():
                    Path(folder, name).write_text(text, "utf-8")
                output = self._execute(command, end, folder)
        if output.status == "timed out" and command[0] != sys.executable:
            self._hung.add(command[0])
        return output

    def _execute(self, command: tuple[str, ...], end: float, folder: str | None) -> Output:
        environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "utf-8"}
        if folder is not None:
            environment["TMPDIR"] = folder
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=folder,
                # Unbuffered: what was read before a program hung is not lost, and closing a
                # pipe that another thread reads does not wait for that thread.
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Output(_why_not_started(command[0], error), error=_words(error))
        with self._lock:
            self._running.add(process)
        try:
            return _listen(process, end)
        finally:
            end_group(process)
            if process.stderr is not None:
                process.stderr.close()
            with self._lock:
                self._running.discard(process)


class _Ear:
    """Collects what a process writes to a pipe; one that does not stop is ended."""

    def __init__(self, pipe: IO[bytes] | None, process: subprocess.Popen[bytes]) -> None:
        self._pipe = pipe
        self._process = process
        self._parts: list[bytes] = []
        self.too_much = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        size = 0
        try:
            while self._pipe and (part := self._pipe.read(65536)):
                self._parts.append(part)
                size += len(part)
                if size > LARGEST_OUTPUT:
                    self.too_much = True
                    end_group(self._process)
                    return
        except (OSError, ValueError):
            return  # closed, because the time was up

    def words(self) -> str:
        self._thread.join(_LAST_WORDS_SECONDS)
        return decode(b"".join(self._parts)[:LARGEST_OUTPUT])


def _listen(process: subprocess.Popen[bytes], end: float) -> Output:
    out, error = _Ear(process.stdout, process), _Ear(process.stderr, process)
    status: Status = "ok"
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        status = "timed out"
        end_group(process)
    text, said = out.words(), error.words()
    if status == "ok":
        if out.too_much or error.too_much or not is_text(text) or not is_text(said):
            status = "unreadable"
        elif process.returncode != 0:
            status = "failed"
    return Output(status, text, said, process.returncode if status != "timed out" else None)


def _python(code: str, arguments: Sequence[str]) -> tuple[str, ...]:
    code_name(code)  # a code without a name could never be recorded
    return (sys.executable, "-c", code, *arguments)


def _why_not_started(program: str, error: OSError | ValueError) -> Status:
    """Tell a program that is not there from one that cannot be started."""
    if isinstance(error, FileNotFoundError):
        # Also said where the program is a script and its interpreter is missing.
        return "not executable" if shutil.which(program) else "missing"
    if isinstance(error, PermissionError) and not _is_there(program):
        return "missing"  # a folder of PATH may not be read
    return "not executable"


def _is_there(program: str) -> bool:
    if os.path.dirname(program):  # noqa: PTH120 - Path drops a leading "./"
        return True
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # A folder that may not be looked into holds no program for this user.
    return any(os.path.lexists(os.path.join(folder, program)) for folder in folders)  # noqa: PTH118


def _words(error: OSError | ValueError) -> str:
    # The error's own text names the program's path, which may name a person.
    number = error.errno if isinstance(error, OSError) else None
    return str(error) if number is None else os.strerror(number)
