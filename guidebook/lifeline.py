"""Child processes that end with the process that started them, however that one ends.

A child holds the reading end of a pipe as its standard input, and the parent the writing end. The
system closes the parent's end when the parent is gone, ``kill -9`` included, and the child then
reads the end of the file and ends itself. That needs no temporary file and no help of a system's
own, so that it is the same on Linux, WSL and macOS.

One thing must not happen: the parent forks without starting another program, and that copy, which
holds the pipe too, lives on. ``subprocess`` never does that, ``multiprocessing`` can.

The parent calls :func:`start` and :func:`end`, the child calls :func:`watch`. A Python module that
knows nothing of this becomes such a child with :func:`module`.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

END_SECONDS = 5.0
_LOG_BYTES = 64 * 1024
_PART = 8 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Child(subprocess.Popen[bytes]):
    """A process that :func:`start` has started; the last it has printed is kept.

    Use :func:`end` to end it, or use it as a context, which calls that.
    """

    _log: _Log

    def log(self) -> str:
        """Return the end of what the process has printed, without colours."""
        return self._log.text()

    def last_line(self) -> str:
        """Return the last line that says something; empty if there is none."""
        lines = (line.strip() for line in reversed(self.log().splitlines()))
        return next((line for line in lines if any(c.isalnum() for c in line)), "")

    def how_it_ended(self) -> str:
        """Say how the process ended, and its last line, as a phrase."""
        status = self.poll()
        if status is None:
            return "it still runs"
        # What it printed last may still be on its way.
        self._log.wait(1.0)
        said = self.last_line()
        last = f"; its last line: {said}" if said else ""
        if status == -signal.SIGKILL:
            return f"it was killed, as the system does when memory runs out{last}"
        if status < 0:
            return f"it crashed ({_signal_name(-status)}){last}"
        return f"it ended with status {status}{last}"

    def __exit__(self, *_: object) -> None:
        """End the process."""
        end(self)

    def __del__(self) -> None:
        """Cut the lifeline: the base class would keep a forgotten process, and its pipe, alive."""
        if (line := getattr(self, "stdin", None)) is not None:
            line.close()
        super().__del__()


def start(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    keep_stdout: bool = True,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a process that ends with this one.

    It leads a session and a process group of its own: Ctrl-C in a terminal does not reach it, and
    :func:`end` reaches whatever it has started.

    Parameters
    ----------
    arguments
        A program and its arguments; no shell sees them. The program must call :func:`watch`, or
        end by itself when its standard input ends.
    environment
        All its environment variables; by default those of this process.
    folder
        Its working folder; by default that of this process.
    keep_stdout
        Keep the end of its standard output in :meth:`Child.log`, together with its standard
        error. Otherwise the caller must read and close ``child.stdout``, and the log is standard
        error.
    pass_fds
        Descriptors that it inherits.

    Raises
    ------
    OSError
        The program cannot be started.
    """
    child = Child(
        list(arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if keep_stdout else subprocess.PIPE,
        # Unbuffered, so that what is written to it is there, and closing it never waits.
        bufsize=0,
        # What a Python child prints must be in the log before it crashes, not in its buffer.
        env={**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    pipe = child.stdout if keep_stdout else child.stderr
    assert pipe is not None  # noqa: S101 - opened as a pipe
    child._log = _Log(pipe)
    return child


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as ``python -m`` does, and watches the lifeline."""
    return [sys.executable, "-P", "-m", "guidebook.lifeline", name, *arguments]


def end(child: Child, time_limit: float = END_SECONDS) -> bool:
    """End a child with its whole group, and wait until it is gone; twice does no harm.

    Returns
    -------
    Whether it is gone. A process that waits for a broken device can outlive every signal.
    """
    if child.poll() is None:
        # It has not been waited for, so its number, and its group's, is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.stdin is not None:
        child.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(time_limit)
    child._log.wait(1.0)
    return child.returncode is not None


def watch() -> None:
    """End this process and its group as soon as the process that started it is gone.

    To be called early in a process that :func:`start` has started, once it has read what it is
    told on standard input (see :func:`read_line`). Standard input is empty from then on.

    A thread waits for the end, so native code that keeps Python's lock for itself delays it. That
    of llama.cpp and PyTorch does not.
    """
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_end_with_the_line, args=(line,), name="lifeline", daemon=True).start()


def read_line() -> str:
    """Read a line that the parent has written; end this process if the parent is gone."""
    # Unbuffered: a buffer would swallow what comes after the line.
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            raise SystemExit(1)
        line += part
    return line.decode("utf-8")


def main(arguments: Sequence[str]) -> None:
    """Watch the lifeline and run a module, with the rest of the arguments as its own."""
    watch()
    name, *rest = arguments
    sys.argv = [name, *rest]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


class _Log:
    """Keeps the end of what comes out of a pipe, and reads on so that nobody waits for a reader."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._parts: deque[bytes] = deque(maxlen=2 * _LOG_BYTES // _PART)
        self._last = b""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="lifeline log", daemon=True)
        self._thread.start()

    def text(self) -> str:
        with self._lock:
            data = b"".join((*self._parts, self._last))
        return _ANSI.sub("", data[-_LOG_BYTES:].decode("utf-8", errors="replace"))

    def wait(self, seconds: float) -> None:
        """Wait for the end of the output; a grandchild that holds the pipe open delays it."""
        self._thread.join(seconds)

    def _read(self) -> None:
        with self._pipe, contextlib.suppress(OSError):
            while part := self._pipe.read(_PART):
                with self._lock:
                    self._last += part
                    if len(self._last) >= _PART:
                        self._parts.append(self._last)
                        self._last = b""


def _end_with_the_line(line: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(line, 4096):
            pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    main(sys.argv[1:])
