"""Decode with less memory than the model's file has, so that each token reads the disk.

A mapped file needs no memory of its own: the system keeps the pages that it has room for, drops
the others and reads them again when they are used. :func:`decode` shows what that costs. It loads
a model in a child process whose memory is limited, and times each token.

Three kinds of limit are tried, in this order: a control group of version 2 or of version 1 made
for the child, and a scope of the user's ``systemd``. Where none can be set, Linux can still be
told to throw a file's pages out between two tokens: not a limit, but the same reading. :func:`way`
finds out by trying, and says why the others cannot be had.

The child ends with this process (:mod:`guidebook.lifeline`). Its group is removed as soon as it is
empty: by this process, or by a small second process that waits for that if this one is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import json
import mmap
import os
import platform
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from guidebook import lifeline
from guidebook.machine import _cgroup
from guidebook.machine._outside import ROOT, command_output, fields, read_int, read_text, to_int
from guidebook.measure.timing import Measurement

Kind = Literal["cgroup v2", "cgroup v1", "systemd", "pages out", "none"]
Load = Literal["mmap", "read", "mmap and mlock"]

LOADS: tuple[Load, ...] = ("mmap", "read", "mmap and mlock")
_NAME = "guidebook-limit-"
_SECONDS = 5.0
_TRIAL_BYTES = 64 * 1024**2
_PART = 1 << 20
# From <linux/mman.h>: reclaim these pages now. Python's mmap module does not name it.
_MADV_PAGEOUT = 21
# Files of a group, by version: limit, limit with swap (v1) or of swap (v2), peak, count of kills.
_FILES: Mapping[str, tuple[str, str, str, str]] = {
    "cgroup v2": ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
    "cgroup v1": (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.oom_control",
    ),
}

# Outlives a killed parent by the moment that it takes to remove the group.
_REMOVER = """
import os, sys, time
sys.stdin.read()
for _ in range(200):
    try:
        os.rmdir(sys.argv[1])
    except FileNotFoundError:
        break
    except OSError:
        time.sleep(0.05)
    else:
        break
"""
_WAITER = "import sys; sys.stdin.read()"


class LimitError(RuntimeError):
    """A run under a limit cannot be had here; the message says why and what to do."""


@dataclass(frozen=True)
class Way:
    """How the memory of a child process is kept small here.

    Attributes
    ----------
    kind
        ``"none"`` if nothing works.
    because
        Why the ways that come before it do not work, a sentence each.
    """

    kind: Kind
    because: tuple[str, ...] = ()
    _parent: Path | None = None

    @property
    def is_limit(self) -> bool:
        """Whether the system itself holds the child below a limit."""
        return self.kind not in ("pages out", "none")

    def __str__(self) -> str:
        how = {
            "cgroup v2": "a control group of its own (version 2)",
            "cgroup v1": "a control group of its own (version 1)",
            "systemd": "a scope of the user's systemd",
            "pages out": "no limit: the file's pages are thrown out after each token",
            "none": "no way to limit a process's memory here",
        }[self.kind]
        return " ".join((f"{how}.", *self.because)) if self.because else how


@dataclass(frozen=True)
class Decode:
    """What came out of one child process.

    Attributes
    ----------
    way, limit_bytes, load
        How it was limited, to what (None: not at all), and how the file was loaded.
    load_seconds
        Time to load; None if it never was.
    per_token
        Seconds for each token after the first; None if there is none.
    read_bytes
        What was read from the disk for each of these tokens; empty where the system does not say.
    peak_bytes
        The most memory the group has used, cached pages included; None without a group.
    locked_bytes
        Memory that the system has promised never to drop.
    lock_limit_bytes
        The most a process may lock (``RLIMIT_MEMLOCK``); None is no limit.
    ended
        Why it ended early; empty if it did not.
    """

    way: Kind
    limit_bytes: int | None
    load: Load
    load_seconds: float | None = None
    per_token: Measurement | None = None
    read_bytes: tuple[int, ...] = ()
    peak_bytes: int | None = None
    locked_bytes: int | None = None
    lock_limit_bytes: int | None = None
    ended: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """Median speed."""
        return 1 / self.per_token.median if self.per_token else None


@functools.cache
def way() -> Way:
    """Find the first way that works here, by trying each."""
    if platform.system() != "Linux":
        return Way("none", (f"{platform.system()} has no control groups.",))
    reasons: list[str] = []
    for kind in ("cgroup v2", "cgroup v1"):
        found = _parent_group(kind)
        if isinstance(found, Path):
            return Way(kind, tuple(reasons), found)
        reasons.append(found)
    refusal = _systemd_refuses()
    if not refusal:
        return Way("systemd", tuple(reasons))
    reasons.append(refusal)
    if _can_page_out():
        return Way("pages out", tuple(reasons))
    return Way("none", (*reasons, "The kernel does not throw pages out when asked (Linux 5.4)."))


def decode(
    path: Path,
    *,
    limit_bytes: int | None = None,
    load: Load = "mmap",
    n_tokens: int = 8,
    n_threads: int = 1,
    seconds: float = 10.0,
    time_limit: float = 30.0,
    by: Way | None = None,
) -> Decode:
    """Load a model in a child process and time the tokens that it writes.

    Parameters
    ----------
    path
        A GGUF file. Its cached pages are dropped first if there is a limit, so that all that is
        read is charged to the child.
    limit_bytes
        Memory that the child may use, cached pages of the file included; None: no limit.
    load
        ``"mmap"`` maps the file, ``"read"`` copies it (``--no-mmap``), ``"mmap and mlock"`` maps
        it and asks the system to keep it (``--mlock``).
    n_tokens, n_threads
        Tokens to time, after a first one that is not counted; threads that compute them.
    seconds
        The child starts no further token after this time, so that a slow disk gives fewer.
    time_limit
        The child is ended after this time.
    by
        How to set the limit; by default what :func:`way` finds.

    Raises
    ------
    LimitError
        No limit can be set, the file stays cached, or the child failed or took too long. A child
        that the system ended for want of memory is no error: :attr:`Decode.ended` says so.
    """
    if load not in LOADS:
        raise ValueError(f"A file is not loaded by {load!r}. Use one of {', '.join(LOADS)}.")
    if n_tokens < 1 or (limit_bytes is not None and limit_bytes < 1):
        raise ValueError("Give at least one token to time, and a limit of at least one byte.")
    used = Way("none") if limit_bytes is None else (by or way())
    if limit_bytes is not None:
        if used.kind == "none":
            raise LimitError(f"There is {used}")
        if not used.is_limit and load != "mmap":
            raise LimitError("Only a mapped file has pages that can be thrown out: use mmap.")
        _drop_or_say(path)
    job = {
        "path": str(path),
        "load": load,
        "n_tokens": n_tokens,
        "n_threads": n_threads,
        "seconds": seconds,
        "page_out": used.kind == "pages out",
    }
    with _group(used, limit_bytes) as group:
        job["group"] = str(group) if group else None
        events, ended = _run(job, _command(used, limit_bytes), time_limit)
        killed = _kills(used.kind, group)
        peak = read_int(group / _FILES[used.kind][2]) if group else None
    if ended and killed:
        ended = "The system ended it: it needs more memory than the limit."
    return _collect(events, ended, Decode(used.kind, limit_bytes, load, peak_bytes=peak))


def read_speed(path: Path, repetitions: int = 3, time_limit: float = 20.0) -> Measurement:
    """Measure how fast a file comes from the disk, in bytes/s.

    Its cached pages are dropped before each reading. A disk that a hypervisor provides may still
    have it in the host's memory.

    Raises
    ------
    LimitError
        The pages stay cached.
    """
    end = time.monotonic() + time_limit
    speeds: list[float] = []
    buffer = bytearray(_PART)
    for _ in range(repetitions):
        _drop_or_say(path)
        done = 0
        with path.open("rb", buffering=0) as file:
            start = time.perf_counter()
            while (part := file.readinto(buffer)) and time.monotonic() < end:
                done += part
            speeds.append(done / (time.perf_counter() - start))
        if time.monotonic() >= end:
            break
    return Measurement("bytes/s", tuple(speeds))


def left_behind() -> int:
    """Count the groups and child processes that runs of this process have left: none, or a bug."""
    import psutil

    parent = way()._parent
    mine = f"{_NAME}{os.getpid()}-*"
    groups = [] if parent is None else list(parent.glob(mine))
    children = psutil.Process().children(recursive=True)
    running = [one for one in children if _is_child_of_ours(one)]
    return len(groups) + len(running)


def drop(path: Path) -> float | None:
    """Ask the system to drop a file's cached pages.

    Returns
    -------
    The part of the file that is cached afterwards: what another program has mapped stays. None
    where the system cannot be asked.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    with path.open("rb") as file:
        os.fsync(file.fileno())  # a page that is not written yet is not dropped
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _cached_part(path)


def _drop_or_say(path: Path) -> None:
    left = drop(path)
    if left is None:
        raise LimitError("This system cannot drop a file's pages from memory on request.")
    if left > 0.05:
        raise LimitError(
            f"{left:.0%} of {path.name} stays in memory. Close the programs and notebooks that "
            "have it open; if it lies on a disk in memory (tmpfs), move it to a real one."
        )


def _is_child_of_ours(process: Any) -> bool:  # noqa: ANN401 - psutil is imported late
    import psutil

    try:
        return __name__ in process.cmdline() or _REMOVER in process.cmdline()
    except psutil.Error:  # gone meanwhile
        return False


def _cached_part(path: Path) -> float | None:
    size = path.stat().st_size
    library = _libc()
    if not size or library is None:
        return None
    with path.open("rb") as file:
        # Private and writable, because only then does Python tell where it lies. Nothing is read.
        mapped = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)
    try:
        start = ctypes.c_char.from_buffer(mapped)
        pages = -(-size // mmap.PAGESIZE)
        seen = (ctypes.c_ubyte * pages)()
        code = library.mincore(ctypes.c_void_p(ctypes.addressof(start)), size, seen)
        del start
        return sum(one & 1 for one in seen) / pages if code == 0 else None
    finally:
        mapped.close()


def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    except (OSError, AttributeError, TypeError):
        return None
    return library


# --- groups -----------------------------------------------------------------------------------


def _parent_group(kind: Kind) -> Path | str:
    """Return the group in which a child's group can be made, or why there is none."""
    filesystem = "cgroup2" if kind == "cgroup v2" else "cgroup"
    if not any(mount.filesystem == filesystem for mount in _cgroup.mounts(ROOT)):
        return f"No control groups of version {kind[-1]} are mounted."
    said = ""
    for folder in _cgroup._groups(ROOT, "memory"):
        if not (folder / "cgroup.procs").exists():
            continue
        is_v2 = (folder / "cgroup.controllers").exists()
        if is_v2 != (kind == "cgroup v2"):
            continue
        if is_v2 and "memory" not in (read_text(folder / "cgroup.subtree_control") or "").split():
            said = said or "its group does not hand the memory controller on"
            continue
        trial = _try_group(folder, kind)
        if not trial:
            _sweep(folder)
            return folder
        said = trial
    if not said:
        said = "the memory controller is not among them"
    return f"Control groups of version {kind[-1]} cannot be used by this process: {said}."


def _try_group(folder: Path, kind: Kind) -> str:
    """Make a group with a process in it, and remove it; return what was refused."""
    trial = folder / f"{_NAME}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        trial.mkdir()
    except OSError as error:
        return f"a group cannot be made ({error.strerror})"
    waiter = None
    try:
        _set_limit(trial, kind, _TRIAL_BYTES)
        waiter = _start_small(_WAITER)
        (trial / "cgroup.procs").write_text(str(waiter.pid), "ascii")
        return ""
    except OSError as error:
        return f"a process cannot be moved into a limited group ({error.strerror})"
    finally:
        if waiter is not None:
            _end_small(waiter)
        _remove(trial)


def _set_limit(group: Path, kind: Kind, limit_bytes: int) -> None:
    limit, swap, _, _ = _FILES[kind]
    (group / limit).write_text(str(limit_bytes), "ascii")
    # Kernels without swap accounting lack the file; there the child may use swap.
    with contextlib.suppress(OSError):
        (group / swap).write_text("0" if kind == "cgroup v2" else str(limit_bytes), "ascii")


@contextlib.contextmanager
def _group(used: Way, limit_bytes: int | None) -> Iterator[Path | None]:
    """Make the child's group, and remove it afterwards, whatever happens."""
    if used._parent is None or limit_bytes is None:
        yield None
        return
    group = used._parent / f"{_NAME}{os.getpid()}-{secrets.token_hex(4)}"
    remover = _start_small(_REMOVER, str(group))
    try:
        group.mkdir()
        _set_limit(group, used.kind, limit_bytes)
        yield group
    except OSError as error:
        raise LimitError(f"The limit could not be set: {error.strerror or error}.") from error
    finally:
        _remove(group)
        _end_small(remover)


def _remove(group: Path) -> None:
    for _ in range(100):  # a process that has just ended still counts for a moment
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _sweep(folder: Path) -> None:
    """Remove the empty groups of runs whose process is gone, remover and all."""
    for group in folder.glob(f"{_NAME}*"):
        pid = to_int(group.name.removeprefix(_NAME).partition("-")[0])
        if pid is not None and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):  # in use: only an empty group can be removed
                group.rmdir()


def _kills(kind: Kind, group: Path | None) -> int:
    if group is None:
        return 0
    counts = fields(read_text(group / _FILES[kind][3]), " ")
    return to_int(counts.get("oom_kill")) or 0


def _systemd_refuses() -> str:
    """Return why a scope of the user's systemd cannot hold a limit; empty if it can."""
    shell = 'cat "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max"'
    said = command_output([*_scope(_TRIAL_BYTES), "sh", "-c", shell], _SECONDS)
    if said is None:
        return "The user has no systemd session in which to start a scope."
    if to_int(said) != _TRIAL_BYTES:
        return "The user's systemd sets no memory limit (the controller is not delegated)."
    return ""


def _scope(limit_bytes: int) -> list[str]:
    limits = (f"MemoryMax={limit_bytes}", "MemorySwapMax=0")
    return ["systemd-run", "--user", "--scope", "--quiet", *(f"--property={one}" for one in limits)]


def _can_page_out() -> bool:
    library = _libc()
    if library is None:
        return False
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        start = ctypes.c_char.from_buffer(page)
        code = library.madvise(ctypes.addressof(start), mmap.PAGESIZE, _MADV_PAGEOUT)
        del start
    return bool(code == 0)


def _start_small(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a small Python program that ends when its standard input does."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it
    )


def _end_small(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_SECONDS)


# --- the child, as the parent sees it ---------------------------------------------------------


def _command(used: Way, limit_bytes: int | None) -> list[str]:
    child = [sys.executable, "-P", "-m", __name__]
    if used.kind != "systemd" or limit_bytes is None:
        return child
    return [*_scope(limit_bytes), *child]


def _run(
    job: Mapping[str, object], command: list[str], time_limit: float
) -> tuple[list[dict[str, Any]], str]:
    """Run a child to its end; return what it said, and how it ended if it ended early."""
    try:
        child = lifeline.start(command, keep_stdout=False)
    except OSError as error:
        raise LimitError(f"A child process cannot be started: {error.strerror}.") from error
    lines: list[str] = []
    try:
        assert child.stdin is not None  # noqa: S101 - opened as pipes
        assert child.stdout is not None  # noqa: S101
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        # A child that has ended already says why below.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"{json.dumps(job)}\n".encode())
        reader.join(time_limit)
        if reader.is_alive():
            raise LimitError(
                f"The model wrote nothing more within {time_limit:.0f} seconds. Raise the limit, "
                "or take a smaller file."
            )
        child.wait(_SECONDS)
        events = [json.loads(line) for line in lines]
        ended = "" if child.returncode == 0 else f"{child.how_it_ended()}.".capitalize()
    except subprocess.TimeoutExpired as error:
        raise LimitError("The child process did not end by itself.") from error
    finally:
        lifeline.end(child)
        if child.stdout is not None:
            child.stdout.close()
    return events, ended


def _read(pipe: IO[bytes], lines: list[str]) -> None:
    rest = b""
    with contextlib.suppress(OSError, ValueError):
        while part := pipe.read(4096):
            *whole, rest = (rest + part).split(b"\n")
            lines.extend(line.decode("utf-8", "replace") for line in whole)


def _collect(events: list[dict[str, Any]], ended: str, empty: Decode) -> Decode:
    found: dict[str, Any] = {}
    for event in events:
        found |= event
    if "error" in found:
        raise LimitError(str(found["error"]))
    tokens = [event for event in events if "seconds" in event][1:]
    reads = [event["read"] for event in tokens]
    return dataclasses.replace(
        empty,
        load_seconds=found.get("load"),
        per_token=Measurement("s", tuple(one["seconds"] for one in tokens)) if tokens else None,
        read_bytes=() if None in reads else tuple(reads),
        locked_bytes=found.get("locked"),
        lock_limit_bytes=found.get("lock_limit"),
        ended=ended,
    )


# --- the child itself -------------------------------------------------------------------------


def _child() -> None:
    job = json.loads(lifeline.read_line())
    lifeline.watch()
    if job["group"]:
        # Before anything large: what was read earlier is charged to the group it was read in.
        Path(job["group"], "cgroup.procs").write_text(str(os.getpid()), "ascii")
    import llama_cpp

    start = time.perf_counter()
    small = {"n_ctx": 64, "n_batch": 8, "n_ubatch": 8, "verbose": False}
    try:
        llm = llama_cpp.Llama(
            job["path"],
            n_gpu_layers=0,
            n_threads=job["n_threads"],
            n_threads_batch=job["n_threads"],
            use_mmap=job["load"] != "read",
            use_mlock=job["load"] == "mmap and mlock",
            **small,
        )
    except (ValueError, RuntimeError, OSError):
        _say(error=f"llama.cpp cannot load {Path(job['path']).name}: is it a whole GGUF file?")
        return
    _say(load=time.perf_counter() - start, **_locked())
    one = (llama_cpp.llama_token * 1)(llm.token_bos() if llm.token_bos() >= 0 else 0)
    end = time.monotonic() + job["seconds"]
    for count in range(min(job["n_tokens"] + 1, small["n_ctx"])):
        if count > 1 and time.monotonic() > end:
            break
        if job["page_out"]:
            _page_out(job["path"])
        before, start = _disk_bytes(), time.perf_counter()
        if llama_cpp.llama_decode(llm.ctx, llama_cpp.llama_batch_get_one(one, 1)):
            _say(error="llama.cpp could not compute a token.")
            return
        seconds, after = time.perf_counter() - start, _disk_bytes()
        _say(seconds=seconds, read=None if before is None or after is None else after - before)
    llm.close()


def _say(**event: object) -> None:
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


def _disk_bytes() -> int | None:
    return to_int(fields(read_text(Path("/proc/self/io"))).get("read_bytes"))


def _locked() -> dict[str, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    locked = fields(read_text(Path("/proc/self/status"))).get("VmLck", "").split()
    return {
        "lock_limit": None if most == resource.RLIM_INFINITY else most,
        "locked": int(locked[0]) * 1024 if locked else None,
    }


def _page_out(path: str) -> None:
    """Unmap a file's pages and drop them; the next use reads them from the disk."""
    library = _libc()
    for line in (read_text(Path("/proc/self/maps")) or "").splitlines():
        if library is not None and line.endswith(path):
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            library.madvise(first, last - first, _MADV_PAGEOUT)
    drop(Path(path))


if __name__ == "__main__":
    _child()
