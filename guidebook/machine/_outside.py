"""The one door to what lies outside Python: files, programs, calls that may hang.

Whatever goes wrong out there, a missing file, a program that never ends, a driver
that does not answer, comes back as ``None``. Looking at a machine never fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)

ROOT = Path("/")
COMMAND_SECONDS = 2.0
_LARGEST_FILE = 4 * 1024**2
_SIZE = re.compile(r"(\d+)\s*([KMG]?)", re.IGNORECASE)
_SIZE_STEPS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_MOST_CPUS = 65_536

T = TypeVar("T")
Run = Callable[[Sequence[str]], str | None]


class Later(Generic[T]):
    """A call made in a daemon thread, so that nobody has to wait for its end.

    A daemon thread, because a call that hangs in a driver cannot be interrupted
    and must not keep the interpreter from exiting either.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._value = self._function()
        except Exception:
            # A probe never fails its caller: what cannot be found out is unknown.
            _LOG.debug("a look at the machine failed", exc_info=True)

    def result(self, seconds: float) -> T | None:
        """Return the call's value, or None if it failed or has not come by then."""
        self._thread.join(max(0.0, seconds))
        return self._value


def within(seconds: float, function: Callable[[], T]) -> T | None:
    """Call a function and wait at most ``seconds`` for its value.

    Returns
    -------
    The value, or None if the call raised or took longer.
    """
    return Later(function).result(seconds)


def read_text(path: Path) -> str | None:
    """Read a small text file, without the white space around it.

    Returns
    -------
    The text, or None if there is no such file or it cannot be read. Bytes that
    are not UTF-8 are replaced.
    """
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE).decode("utf-8", errors="replace").strip(" \t\r\n\0")
    except (OSError, ValueError):
        return None


def read_int(path: Path) -> int | None:
    """Read a file that holds one whole number; None if it does not."""
    return to_int(read_text(path))


def to_int(text: str | None, base: int = 10) -> int | None:
    """Turn text into a whole number, or into None if it is not one."""
    try:
        return None if text is None else int(text.strip(), base)
    except ValueError:
        return None


def to_size(text: str | None) -> int | None:
    """Turn a kernel's size, such as ``32768K``, into bytes; None if it is not one."""
    found = _SIZE.match(text.strip()) if text else None
    return int(found[1]) * _SIZE_STEPS[found[2].upper()] if found else None


def cpu_list(text: str | None) -> frozenset[int] | None:
    """Read the kernel's list format, such as ``0-3,8``.

    Returns
    -------
    The numbers in the list, or None if the text is missing, empty or not such a list.
    """
    numbers: set[int] = set()
    for part in (text or "").strip().split(","):
        first, _, last = part.partition("-")
        low = to_int(first)
        high = to_int(last) if last else low
        if low is None or high is None or not 0 <= low <= high < _MOST_CPUS:
            return None
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def fields(text: str | None, separator: str = ":") -> dict[str, str]:
    """Read ``key<separator>value`` lines; the first of several equal keys counts."""
    found: dict[str, str] = {}
    for line in (text or "").splitlines():
        key, given, value = line.partition(separator)
        if given:
            found.setdefault(key.strip(), value.strip())
    return found


def command_output(command: Sequence[str], seconds: float = COMMAND_SECONDS) -> str | None:
    """Run a program and return what it writes.

    The program gets a process group of its own. When the time is up the whole
    group is killed, so that no grandchild stays behind either.

    Parameters
    ----------
    command
        The program's name and its arguments; never seen by a shell.
    seconds
        Time limit.

    Returns
    -------
    Its standard output, or None if it cannot be started, fails or takes too long.
    """
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},  # translated output could not be read
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
    try:
        output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _LOG.debug("%s did not end within %s s", command[0], seconds)
        return None
    finally:
        end_group(process)
    if process.returncode != 0:
        return None
    return output.decode("utf-8", errors="replace").strip()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the group of a process that leads one, and wait a moment until it is gone."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        # The group's leader has not been waited for, so its number is still its own.
        # It may have ended just now: there is nothing left to kill then.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        _LOG.debug("process %s does not die; it is left to the system", process.pid)
