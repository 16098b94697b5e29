"""The door to the outside: nothing raises, everything ends, and a record answers the same way."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook.doctor.facts import gather
from guidebook.doctor.live import LiveProbe
from guidebook.doctor.probe import LARGEST_OUTPUT, code_name, decode, is_text
from guidebook.doctor.recorded import RecordedProbe

HELLO = "# doctor: hello\nimport sys; print('hello', *sys.argv[1:])"
ON_POSIX = pytest.mark.skipif(os.name == "nt", reason="shell scripts")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a shell script on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, script: str, mode: int = 0o755) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    return write


def test_a_command_that_ends_well_is_ok(program):
    program("greet", "echo hello; echo careful >&2")
    with LiveProbe() as probe:
        output = probe.run(["greet"])
    assert (output.status, output.text, output.error, output.code) == ("ok", "hello", "careful", 0)


@ON_POSIX
def test_a_command_that_fails_keeps_its_words_and_its_code(program):
    program("fail", "echo why >&2; exit 9")
    with LiveProbe() as probe:
        output = probe.run(["fail"])
    assert (output.status, output.error, output.code) == ("failed", "why", 9)


def test_a_command_that_does_not_exist_is_missing():
    with LiveProbe() as probe:
        assert probe.run(["no-such-program-anywhere"]).status == "missing"
        assert probe.run(["/no/such/folder/program"]).status == "missing"


@ON_POSIX
def test_a_file_without_permission_to_run_is_not_executable(program):
    path = program("locked", "echo never", mode=0o644)
    with LiveProbe() as probe:
        assert probe.run([str(path)]).status == "not executable"


@ON_POSIX
def test_a_file_that_is_no_program_is_not_executable(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"\x00\x01\x02 no program")
    path.chmod(stat.S_IRWXU)
    with LiveProbe() as probe:
        assert probe.run([str(path)]).status == "not executable"


@ON_POSIX
def test_a_script_whose_interpreter_is_missing_is_not_executable(tmp_path):
    path = tmp_path / "script"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(stat.S_IRWXU)
    with LiveProbe() as probe:
        assert probe.run([str(path)]).status == "not executable"


@ON_POSIX
def test_a_command_that_hangs_ends_at_its_limit_with_all_it_started(program, tmp_path):
    mark = tmp_path / "mark"
    program("hang", f"echo first; (sleep 2; touch {mark}) & sleep 30")
    began = time.monotonic()
    with LiveProbe() as probe:
        output = probe.run(["hang"], time_limit=0.3)
    assert output.status == "timed out"
    assert output.text == "first"
    assert time.monotonic() - began < 2
    time.sleep(2.2)
    assert not mark.exists()


@ON_POSIX
def test_a_program_that_hung_once_is_not_waited_for_again(program):
    program("hang", "sleep 30")
    with LiveProbe() as probe:
        probe.run(["hang"], time_limit=0.3)
        began = time.monotonic()
        assert probe.run(["hang", "--version"], time_limit=3).status == "timed out"
    assert time.monotonic() - began < 0.2


@ON_POSIX
def test_all_commands_together_end_at_the_common_deadline(program):
    for number in range(5):
        program(f"hang{number}", "sleep 30")
    began = time.monotonic()
    with LiveProbe(seconds=1.0) as probe:
        statuses = {probe.run([f"hang{number}"], time_limit=3).status for number in range(5)}
    assert statuses == {"timed out"}
    assert time.monotonic() - began < 2.5


@ON_POSIX
def test_what_runs_on_is_ended_with_the_probe(program, tmp_path):
    mark = tmp_path / "mark"
    program("slow", f"sleep 1; touch {mark}")
    with LiveProbe() as probe:
        probe.begin(["slow"])
        time.sleep(0.3)
    time.sleep(1.2)
    assert not mark.exists()


def test_a_command_runs_once(program, tmp_path):
    log = tmp_path / "log"
    program("count", f"echo run >> {log}")
    with LiveProbe() as probe:
        probe.begin(["count"])
        probe.run(["count"])
        probe.run(["count"])
    assert log.read_text() == "run\n"


@ON_POSIX
def test_bytes_that_are_no_text_are_unreadable(program):
    program("noise", "head -c 4000 /dev/urandom")
    with LiveProbe() as probe:
        assert probe.run(["noise"]).status == "unreadable"


@ON_POSIX
def test_output_without_end_is_cut_and_ended(program):
    program("flood", "yes")
    began = time.monotonic()
    with LiveProbe() as probe:
        output = probe.run(["flood"], time_limit=5)
    assert output.status == "unreadable"
    assert len(output.text) <= LARGEST_OUTPUT
    assert time.monotonic() - began < 4


@ON_POSIX
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-8"])
def test_what_windows_prints_is_read_in_its_encoding(program, tmp_path, encoding):
    text = "  NAME      STATE           VERSION\r\n* Ubuntu    Running         2\r\n"
    (tmp_path / "said").write_bytes(text.encode(encoding))
    program("wsl.exe", f"cat {tmp_path / 'said'}")
    with LiveProbe() as probe:
        output = probe.run(["wsl.exe", "-l", "-v"])
    assert output.status == "ok"
    assert output.text.splitlines()[1] == "* Ubuntu    Running         2"


@given(st.binary(max_size=300))
def test_any_bytes_decode(data):
    assert isinstance(decode(data), str)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=3))
def test_english_text_is_text_in_either_encoding(text):
    assert decode(text.encode("utf-16")) == decode(text.encode("utf-8"))
    assert is_text(text)


def test_python_code_runs_in_a_child_of_this_interpreter():
    with LiveProbe() as probe:
        assert probe.python(HELLO, arguments=["you"]).text == "hello you"


def test_a_crash_of_python_code_stays_in_the_child():
    with LiveProbe() as probe:
        output = probe.python("# doctor: crash\nimport os; os.abort()")
    assert output.status == "failed"


def test_python_code_without_a_name_is_refused():
    with pytest.raises(ValueError, match="doctor: torch"):
        code_name("import torch")


@ON_POSIX
def test_inputs_lie_in_a_folder_that_is_gone_afterwards(program, tmp_path):
    program("where", f"pwd > {tmp_path / 'where'}; echo $TMPDIR >> {tmp_path / 'where'}; cat a.txt")
    with LiveProbe() as probe:
        assert probe.run(["where"], inputs={"a.txt": "inside"}).text == "inside"
    folder, temporary = (tmp_path / "where").read_text().split()
    assert Path(folder).resolve() == Path(temporary).resolve()
    assert not Path(folder).exists()


@ON_POSIX
def test_the_folder_of_inputs_is_gone_after_a_time_out_too(program, tmp_path):
    program("where", f"pwd > {tmp_path / 'where'}; sleep 30")
    with LiveProbe() as probe:
        assert probe.run(["where"], time_limit=0.5, inputs={"a": ""}).status == "timed out"
    assert not Path((tmp_path / "where").read_text().strip()).exists()


def test_files_that_are_missing_folders_or_nonsense_are_nothing(tmp_path):
    with LiveProbe() as probe:
        assert probe.read(str(tmp_path / "none")) is None
        assert probe.read(str(tmp_path)) is None
        assert probe.read("nul\0byte") is None
        assert probe.exists("nul\0byte") is False
        assert probe.resolve(str(tmp_path / "none")) is None
        assert probe.disk(str(tmp_path / "none" / "deeper")) is None
        assert probe.glob(str(tmp_path / "*")) == ()


@ON_POSIX
def test_a_file_that_never_ends_to_be_read_is_given_up(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    began = time.monotonic()
    with LiveProbe() as probe:
        assert probe.read(str(path)) is None
    assert time.monotonic() - began < 2


def test_a_closed_port_does_not_connect():
    with LiveProbe() as probe:
        assert probe.connects("127.0.0.1", 1, 0.5) is False
    with LiveProbe(seconds=0) as probe:
        assert probe.connects("127.0.0.1", 1, 0.5) is None


def test_this_machine_is_described():
    with LiveProbe() as probe:
        facts = gather(probe)
    assert facts.os != "other"
    assert facts.architecture
    if sys.platform == "linux" and not facts.in_wsl:
        assert facts.windows is None


RECORD = {
    "platform": {"system": "linux", "machine": "x86_64", "home": "/home/me"},
    "commands": {
        "nvcc --version": "release 13.0",
        "powershell.exe *": "{}",
        "broken": {"status": "failed", "code": 3, "error": "no"},
    },
    "python": {"hello": "hi"},
    "files": {
        "/proc/version": "Linux",
        "/home/me/.bashrc": {"text": "export Ä=1", "encoding": "utf-16"},
        "/usr/local/cuda-13.0/bin/nvcc": "",
        "/usr/local/cuda": {"link": "/usr/local/cuda-13.0"},
    },
    "environment": {"PATH": "/usr/bin"},
    "disks": {"/": [100, 50], "/home": [10, 5]},
    "connects": {"huggingface.co:443": False},
}


def test_a_record_answers_what_it_holds_and_nothing_else():
    probe = RecordedProbe(RECORD)
    assert probe.run(["nvcc", "--version"]).text == "release 13.0"
    assert probe.run(["powershell.exe", "-Command", "anything"]).ok
    assert probe.run(["broken"]).code == 3
    assert probe.run(["nvidia-smi"]).status == "missing"
    assert probe.python(HELLO).text == "hi"
    assert probe.python("# doctor: other").status == "missing"
    assert probe.read("~/.bashrc") == "export Ä=1"
    assert probe.read("/etc/passwd") is None
    assert probe.glob("/usr/local/cuda*") == ("/usr/local/cuda", "/usr/local/cuda-13.0")
    assert probe.resolve("/usr/local/cuda/bin/nvcc") == "/usr/local/cuda-13.0/bin/nvcc"
    assert probe.environment("PATH") == "/usr/bin"
    assert probe.environment("HOME") is None
    assert probe.disk("/home/me/models") == (10, 5)
    assert probe.disk("/var") == (100, 50)
    assert probe.connects("huggingface.co", 443) is False
    assert probe.connects("pypi.org", 443) is None


def test_an_unknown_part_of_a_record_is_refused():
    with pytest.raises(ValueError, match="orders"):
        RecordedProbe({**RECORD, "orders": {}})
