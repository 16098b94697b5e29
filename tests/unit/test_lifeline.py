"""Children that end with their parent, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from guidebook import lifeline

WATCH = "from guidebook import lifeline; lifeline.watch(); import time; "
SLEEP = WATCH + "print('ready'); time.sleep(300)"


def child_of(code: str, **options: object) -> lifeline.Child:
    return lifeline.start([sys.executable, "-c", code], **options)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    # Nobody may be there to take in an orphan's exit status: a zombie is gone too.
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def sleeping() -> Iterator[lifeline.Child]:
    with child_of(SLEEP) as child:
        assert eventually(lambda: "ready" in child.log())
        yield child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_when_its_parent_is_ended_by_a_signal(number: signal.Signals) -> None:
    code = (
        "import sys, time; from guidebook import lifeline\n"
        f"child = lifeline.start([sys.executable, '-c', {SLEEP!r}])\n"
        "while 'ready' not in child.log(): time.sleep(0.01)\n"
        "print(child.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.send_signal(number)
        parent.wait(10)
    assert eventually(lambda: is_gone(pid))


def test_a_child_ends_when_its_parent_ends_before_it_watches() -> None:
    late = f"import time; time.sleep(1); {SLEEP}"
    code = (
        "import os, sys; from guidebook import lifeline\n"
        f"print(lifeline.start([sys.executable, '-c', {late!r}]).pid, flush=True); os._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not is_gone(pid)
    assert eventually(lambda: is_gone(pid))


def test_what_a_child_has_started_ends_with_it_when_the_lifeline_is_cut() -> None:
    code = (
        "from guidebook import lifeline; lifeline.watch(); import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '300']).pid, flush=True); time.sleep(300)"
    )
    with child_of(code) as child:
        assert eventually(lambda: child.log().endswith("\n"))
        grandchild = int(child.log())
        assert child.stdin is not None
        child.stdin.close()
        assert eventually(lambda: is_gone(child.pid) and is_gone(grandchild))


def test_a_child_that_waits_in_native_code_ends_too() -> None:
    code = WATCH + "print('ready', flush=True); import ctypes; ctypes.CDLL(None).sleep(300)"
    with child_of(code) as child:
        assert eventually(lambda: "ready" in child.log())
        assert child.stdin is not None
        child.stdin.close()
        assert eventually(lambda: child.poll() is not None)


def test_ending_a_child_reaps_it_and_its_group_and_can_be_repeated() -> None:
    # A shell that ignores what it can, and never looks at its standard input.
    command = ["sh", "-c", "trap '' INT TERM HUP; sleep 300 & echo $!; wait; sleep 300"]
    child = lifeline.start(command)
    assert eventually(lambda: child.log().endswith("\n"))
    grandchild = int(child.log())
    begun = time.monotonic()
    assert lifeline.end(child)
    assert time.monotonic() - begun < 2
    assert eventually(lambda: is_gone(grandchild))
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)  # no zombie is left
    assert lifeline.end(child)


def test_ending_a_child_closes_every_descriptor_that_it_took() -> None:
    before = psutil.Process().num_fds()
    for _ in range(3):
        lifeline.end(child_of("print('short')"))
    assert psutil.Process().num_fds() == before


def test_leaving_the_context_ends_the_child(sleeping: lifeline.Child) -> None:
    with sleeping:
        pass
    assert sleeping.returncode == -signal.SIGKILL


def test_a_childs_output_never_blocks_it_and_only_its_end_is_kept() -> None:
    code = "for n in range(200_000): print('line', n)"
    child = child_of(code)
    assert child.wait(60) == 0
    child._log.wait(5)
    assert child.last_line() == "line 199999"
    assert len(child.log()) == 64 * 1024
    lifeline.end(child)


def test_the_log_has_no_colours_and_survives_what_is_no_text() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'\x1b[31mred\x1b[0m\xff\n---\n')"
    child = child_of(code)
    child.wait(10)
    child._log.wait(5)
    assert child.log() == "red�\n---\n"
    assert child.last_line() == "red�"  # a ruler says nothing
    lifeline.end(child)


def test_standard_output_can_be_left_to_the_caller() -> None:
    code = "import sys; print('report'); print('noise', file=sys.stderr)"
    with child_of(code, keep_stdout=False) as child:
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.read() == b"report\n"
        child.wait(10)
        child._log.wait(5)
        assert child.log() == "noise\n"


def test_a_child_reads_its_job_before_it_watches() -> None:
    code = (
        "from guidebook import lifeline; job = lifeline.read_line(); lifeline.watch()\n"
        "import sys; print('job', job.strip(), repr(sys.stdin.read()))"
    )
    with child_of(code) as child:
        assert child.stdin is not None
        child.stdin.write('{"ü": 1}\n'.encode())
        assert child.wait(10) == 0
        child._log.wait(5)
        # Standard input is empty for the rest, so that nothing waits there for ever.
        assert child.last_line() == "job {\"ü\": 1} ''"


def test_a_child_whose_job_never_comes_ends_when_the_parent_is_gone() -> None:
    with child_of("from guidebook import lifeline; lifeline.read_line()") as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) == 1


@pytest.mark.parametrize(
    ("code", "phrase"),
    [
        ("print('bye'); raise SystemExit(3)", "it ended with status 3; its last line: bye"),
        ("import os; os.kill(os.getpid(), 9)", "it was killed, as the system does when memory"),
        ("import os; os.abort()", "it crashed (SIGABRT)"),
    ],
)
def test_how_a_child_ended_is_a_phrase(code: str, phrase: str) -> None:
    with child_of(code) as child:
        child.wait(10)
        assert child.how_it_ended().startswith(phrase)


def test_a_running_child_says_so(sleeping: lifeline.Child) -> None:
    assert sleeping.how_it_ended() == "it still runs"


def test_a_module_runs_as_it_would_by_itself_and_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(
        "import sys, time\nif __name__ == '__main__':\n    print(sys.argv[1:])\n    time.sleep(300)"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with lifeline.start(lifeline.module("served", "--n", "1"), environment=environment) as child:
        assert eventually(lambda: child.log() == "['--n', '1']\n")
        assert child.stdin is not None
        child.stdin.close()
        assert eventually(lambda: child.poll() is not None)


def test_a_child_leads_its_own_session(sleeping: lifeline.Child) -> None:
    # So that Ctrl-C in a terminal, and a notebook's interrupt, do not reach it.
    assert os.getsid(sleeping.pid) == sleeping.pid
    assert os.getpgid(sleeping.pid) == sleeping.pid


def test_a_child_that_was_forgotten_ends() -> None:
    children = [child_of(SLEEP)]
    assert eventually(lambda: "ready" in children[0].log())
    with pytest.warns(ResourceWarning):
        pid = children.pop().pid
    assert eventually(lambda: is_gone(pid))
