"""Nothing is left of a server when what started it ends: no process, no port, no file."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from guidebook._worker import MARKER

if TYPE_CHECKING:
    from conftest import WriteChapter

# Every process of a test inherits this variable.
TEST = "GUIDEBOOK_TEST_OF_LEFTOVERS"

# Starts a server, asks it, and tells what there is to look for; then waits for its end.
SERVE = """\
import json, os
from pathlib import Path
from urllib.request import Request, urlopen
from guidebook import models
from guidebook.engines import server

running = server.llama_cpp(models.resolve("embedded").path, n_ctx=256).start()
question = json.dumps({"prompt": "One, two,", "max_tokens": 4}).encode()
request = Request(running.base_url + "/completions", question, {"Content-Type": "application/json"})
assert json.load(urlopen(request))["usage"]["completion_tokens"] == 4
told = {"pids": [os.getpid(), running.pid], "url": running.base_url}
Path("told.partial").write_text(json.dumps(told))
Path("told.partial").rename("told.json")
"""
WAIT = "import time\ntime.sleep(300)"


@dataclass(frozen=True)
class Started:
    """A process that has started a server."""

    process: subprocess.Popen[bytes]
    folder: Path
    pids: tuple[int, ...]
    port: int

    def leftovers(self) -> list[str]:
        """Return everything that is still there of it."""
        left = [f"process {pid}" for pid in self.pids if is_alive(pid)]
        left += [f"process {pid} of its children" for pid in marked(self.folder)]
        with socket.socket() as connection:
            connection.settimeout(1)
            if connection.connect_ex(("127.0.0.1", self.port)) == 0:
                left.append(f"port {self.port}")
        return left + [f"file {path}" for path in temporary_files(self.folder)]


def is_alive(pid: int) -> bool:
    # Nobody may be there to take in an orphan's exit status: a zombie is gone too.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(folder: Path) -> list[int]:
    """Return every process that was started for a test, orphans too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TEST) == str(folder) and is_alive(process.pid):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def temporary_files(folder: Path) -> list[Path]:
    """Return what lies in the temporary folder of the system, or in one that a run has made."""
    return [
        Path(place, name)
        for where in (folder / "temporary", folder / "out" / ".partial")
        # Unlike Path.rglob, this bears that a folder is removed meanwhile.
        for place, folders, files in os.walk(where)
        for name in (*folders, *files)
        if where.name == "temporary" or name.startswith("tmp") or Path(place).name == "tmp"
    ]


def environment_of(folder: Path) -> dict[str, str]:
    (folder / "temporary").mkdir()
    environment = os.environ | {TEST: str(folder), "TMPDIR": str(folder / "temporary")}
    environment.pop(MARKER, None)
    return environment


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str], Path], Started]]:
    """Return a function that starts a command and returns when its server has answered."""
    processes: list[subprocess.Popen[bytes]] = []
    environment = environment_of(tmp_path)

    def start(command: list[str], told: Path) -> Started:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A session of its own, so that an interrupt meant for it reaches nobody else.
            start_new_session=True,
        )
        processes.append(process)
        assert eventually(told.exists, 90), f"no server came up (status {process.poll()})"
        facts = json.loads(told.read_text())
        port = int(facts["url"].split(":")[2].split("/")[0])
        started = Started(process, tmp_path, tuple(facts["pids"]), port)
        assert f"port {port}" in started.leftovers()  # so that its absence means something
        return started

    yield start
    for process in processes:
        process.kill()
        process.wait()
    for pid in marked(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_of_a_chapters_server(
    start: Callable[[list[str], Path], Started],
    write_chapter: WriteChapter,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    write_chapter(tmp_path / "notebooks", "31-serves", [SERVE, WAIT])
    command = [sys.executable, "-m", "guidebook.cli", "run", "31", "--out", "out"]
    started = start(command, tmp_path / "out" / "told.json")
    started.process.send_signal(number)
    started.process.wait(15)
    assert eventually(lambda: started.leftovers() == [], 5), started.leftovers()


def test_a_chapter_that_fails_leaves_nothing_of_its_server(
    start: Callable[[list[str], Path], Started], write_chapter: WriteChapter, tmp_path: Path
) -> None:
    fail = "import time\ntime.sleep(1)\nraise ValueError('no such weight')"
    write_chapter(tmp_path / "notebooks", "31-fails", [SERVE, fail])
    command = [sys.executable, "-m", "guidebook.cli", "run", "31", "--out", "out"]
    started = start(command, tmp_path / "out" / "told.json")
    assert started.process.wait(30) == 1
    assert eventually(lambda: started.leftovers() == [], 5), started.leftovers()


# As in JupyterLab, where no runner looks after the kernel.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_an_ended_process_leaves_nothing_of_its_server(
    start: Callable[[list[str], Path], Started], tmp_path: Path, number: signal.Signals
) -> None:
    started = start([sys.executable, "-c", f"{SERVE}\n{WAIT}"], tmp_path / "told.json")
    started.process.send_signal(number)
    started.process.wait(15)
    assert eventually(lambda: started.leftovers() == [], 5), started.leftovers()


def test_a_process_killed_in_the_middle_of_an_answer_leaves_nothing_of_its_server(
    start: Callable[[list[str], Path], Started], tmp_path: Path
) -> None:
    ask = (
        'question = json.dumps({"prompt": "Once", "max_tokens": 200, "min_tokens": 200}).encode()\n'
        "request = Request(request.full_url, question, request.headers)\n"
        "while True: urlopen(request).read()"
    )
    started = start([sys.executable, "-c", f"{SERVE}\n{ask}"], tmp_path / "told.json")
    time.sleep(0.5)
    started.process.kill()
    started.process.wait(15)
    assert eventually(lambda: started.leftovers() == [], 5), started.leftovers()


def test_a_process_killed_while_its_server_starts_leaves_nothing_of_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=tmp_path,
        env=environment_of(tmp_path),
        start_new_session=True,
    )
    try:
        assert eventually(lambda: len(marked(tmp_path)) == 2, 60)
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: marked(tmp_path) == [], 5)
    assert temporary_files(tmp_path) == []
