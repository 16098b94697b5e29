"""Decoding under a memory limit: the limit holds, the disk is read, nothing is left behind."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from guidebook import models
from guidebook.measure import limited
from guidebook.measure.limited import Decode, LimitError, Way

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="limits are Linux's")

BELOW = 200_000_000  # the file has 271 MB
ABOVE = 600_000_000


@pytest.fixture(scope="module")
def path() -> Path:
    return models.resolve("embedded", "gguf-f16").path


@pytest.fixture(scope="module")
def limit() -> Way:
    found = limited.way()
    if not found.is_limit:
        pytest.skip(f"no limit can be set here: {found}")
    return found


def groups(way: Way) -> list[Path]:
    return list(way._parent.glob("guidebook-limit-*")) if way._parent else []


def eventually(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def children(module: str = "guidebook.measure.limited") -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if module in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_what_is_used_is_found_by_trying_and_leaves_nothing() -> None:
    found = limited.way()
    assert found.kind in ("cgroup v2", "cgroup v1", "systemd", "pages out", "none")
    assert all(sentence.endswith(".") for sentence in found.because)
    assert not groups(found)


def test_a_file_larger_than_the_limit_is_read_again_for_every_token(path: Path, limit: Way) -> None:
    found = limited.decode(path, limit_bytes=BELOW, n_tokens=3)
    assert not found.ended
    assert len(found.read_bytes) >= 1
    size = path.stat().st_size
    assert min(found.read_bytes) > size / 4
    assert limited.left_behind() == 0
    if limit.kind != "systemd":
        assert found.peak_bytes is not None
        assert size / 2 < found.peak_bytes <= BELOW
    assert not groups(limit)


def test_a_file_smaller_than_the_limit_is_read_once(path: Path, limit: Way) -> None:
    found = limited.decode(path, limit_bytes=ABOVE, n_tokens=3)
    assert not found.ended
    assert max(found.read_bytes) < path.stat().st_size / 10


def test_a_copied_file_larger_than_the_limit_ends_the_child_in_a_sentence(
    path: Path, limit: Way
) -> None:
    found = limited.decode(path, limit_bytes=BELOW, load="read", n_tokens=2)
    if found.per_token:  # with swap that the kernel does not count
        pytest.skip("this kernel lets the group swap")
    assert "limit" in found.ended or "memory" in found.ended
    assert found.tokens_per_second is None
    assert not groups(limit)


def test_pages_thrown_out_are_read_again(path: Path) -> None:
    if not limited._can_page_out():
        pytest.skip("this kernel does not throw pages out")
    found = limited.decode(path, limit_bytes=BELOW, n_tokens=3, by=Way("pages out"))
    assert found.way == "pages out"
    if found.read_bytes:
        assert min(found.read_bytes) > path.stat().st_size / 2


def test_without_a_limit_nothing_is_read_and_what_is_locked_is_told(path: Path) -> None:
    found = limited.decode(path, load="mmap and mlock", n_tokens=2)
    assert found.per_token is not None
    assert len(found.per_token.samples) == 2
    assert found.tokens_per_second == pytest.approx(1 / found.per_token.median)
    assert found.locked_bytes is not None
    allowed = found.lock_limit_bytes
    assert found.locked_bytes > 0 or (allowed is not None and allowed < path.stat().st_size)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_and_no_group_is_left_when_the_parent_is_ended(
    path: Path, limit: Way, number: signal.Signals
) -> None:
    before = set(children())
    code = (
        "from pathlib import Path; from guidebook.measure import limited\n"
        f"limited.decode(Path({str(path)!r}), limit_bytes={BELOW}, n_tokens=60, seconds=25)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert eventually(lambda: bool(set(children()) - before))
        if limit._parent:
            assert eventually(lambda: any((g / "cgroup.procs").read_text() for g in groups(limit)))
        parent.send_signal(number)
        parent.wait(20)
    finally:
        parent.kill()
        parent.wait(5)
    assert eventually(lambda: not set(children()) - before)
    assert eventually(lambda: not groups(limit))


def test_a_group_whose_run_is_gone_is_removed_by_the_next(limit: Way) -> None:
    if limit._parent is None:
        pytest.skip("no groups are used here")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True,
                          capture_output=True).stdout.decode().strip()  # fmt: skip
    left = limit._parent / f"guidebook-limit-{gone}-0"
    alive = limit._parent / f"guidebook-limit-{os.getpid()}-0"
    for group in (left, alive):
        group.mkdir()
    try:
        limited._sweep(limit._parent)
        assert (left.exists(), alive.exists()) == (False, True)
    finally:
        alive.rmdir()


def test_a_dropped_file_is_not_cached_and_a_mapped_one_is_told(path: Path) -> None:
    assert limited.drop(path) == pytest.approx(0, abs=0.05)
    held = (
        "import mmap, sys; f = open(sys.argv[1], 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[::4096])\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        other.stdout.readline()
        with pytest.raises(LimitError, match=r"stays in memory\. Close the programs"):
            limited.read_speed(path, repetitions=1)
    finally:
        other.communicate(timeout=10)


def test_the_disk_is_timed(path: Path) -> None:
    found = limited.read_speed(path, repetitions=2)
    assert found.unit == "bytes/s"
    assert len(found.samples) == 2
    assert found.low > 1e6


def test_what_cannot_be_done_is_a_sentence(path: Path, tmp_path: Path) -> None:
    nothing = Way("none", ("Nothing works.",))
    with pytest.raises(LimitError, match=r"no way to limit .* Nothing works\."):
        limited.decode(path, limit_bytes=BELOW, by=nothing)
    with pytest.raises(LimitError, match="use mmap"):
        limited.decode(path, limit_bytes=BELOW, load="read", by=Way("pages out"))
    with pytest.raises(ValueError, match="Use one of mmap, read, mmap and mlock"):
        limited.decode(path, load="floppy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one token"):
        limited.decode(path, n_tokens=0)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else" * 100)
    with pytest.raises(LimitError, match=r"cannot load broken\.gguf"):
        limited.decode(broken)


def test_a_run_that_takes_too_long_is_ended(path: Path) -> None:
    before = set(children())
    with pytest.raises(LimitError, match="within 0 seconds"):
        limited.decode(path, time_limit=0.2)
    assert not set(children()) - before


def test_the_first_token_is_not_counted() -> None:
    events: list[dict[str, object]] = [
        {"load": 0.5, "locked": 0},
        *({"seconds": s, "read": 10} for s in (9.0, 1.0, 3.0, 2.0)),
    ]
    found = limited._collect(events, "", Decode("cgroup v2", 5, "mmap"))  # type: ignore[arg-type]
    assert found.per_token is not None
    assert found.per_token.samples == (1.0, 3.0, 2.0)
    assert found.tokens_per_second == 0.5
    assert (found.load_seconds, found.read_bytes) == (0.5, (10, 10, 10))
