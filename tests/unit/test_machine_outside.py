"""Files, programs and calls outside Python never fail or hang their caller."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook.machine._outside import (
    command_output,
    cpu_list,
    fields,
    read_int,
    read_text,
    to_int,
    to_size,
    within,
)


def as_cpu_list(numbers: frozenset[int]) -> str:
    """Write numbers the way the kernel does, with ranges."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_a_cpu_list_reads_back_as_the_numbers_it_was_written_from(numbers):
    assert cpu_list(as_cpu_list(numbers)) == numbers


def test_a_cpu_list_with_ranges_and_single_numbers_is_read():
    assert cpu_list("0-3,8\n") == {0, 1, 2, 3, 8}


@pytest.mark.parametrize("text", [None, "", "\n", "3-1", "a-b", "-1", "0-99999999999", "0,,1"])
def test_what_is_no_cpu_list_is_unknown(text):
    assert cpu_list(text) is None


@given(st.text())
def test_no_text_makes_a_parser_raise(text):
    cpu_list(text)
    to_int(text)
    to_size(text)
    fields(text)


def test_cache_sizes_are_in_bytes():
    assert to_size("32768K") == 32 * 1024**2
    assert to_size("2M") == 2 * 1024**2
    assert to_size("512") == 512
    assert to_size("large") is None


def test_a_missing_file_a_folder_and_a_closed_file_are_unknown(tmp_path: Path):
    assert read_text(tmp_path / "nothing") is None
    assert read_text(tmp_path) is None
    assert read_int(tmp_path / "nothing") is None
    assert read_text(Path("nul\0byte")) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_unknown(tmp_path: Path):
    path = tmp_path / "secret"
    path.write_text("1")
    path.chmod(0)
    assert read_text(path) is None


def test_a_file_whose_reading_fails_midway_is_unknown(tmp_path: Path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "file"
    path.write_text("1")
    monkeypatch.setattr(Path, "open", fail)
    assert read_text(path) is None


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path):
    path = tmp_path / "garbage"
    path.write_bytes(b"\xff\xfe\x00abc\x80\n")
    assert "abc" in (read_text(path) or "")


def test_a_program_gives_its_output():
    assert command_output([sys.executable, "-c", "print(' ok ')"], 30) == "ok"


def test_a_program_that_is_missing_fails_or_may_not_run_gives_nothing(tmp_path: Path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert command_output([str(tmp_path / "missing")]) is None
    assert command_output([str(plain)]) is None
    assert command_output([sys.executable, "-c", "print('half'); raise SystemExit(3)"], 30) is None


def test_a_program_whose_output_is_garbage_is_read_all_the_same():
    code = r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb')"
    assert command_output([sys.executable, "-c", code], 30) == "a\ufffd\ufffdb"


@pytest.mark.skipif(os.name == "nt", reason="process groups are a POSIX matter")
def test_a_program_that_hangs_is_killed_with_the_programs_it_started(tmp_path: Path):
    note = tmp_path / "grandchild"
    script = f"sleep 60 & echo $! > '{note}'; wait"
    start = time.monotonic()
    assert command_output(["sh", "-c", script], seconds=1.0) is None
    assert time.monotonic() - start < 5
    grandchild = int(note.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not ended(grandchild):
        time.sleep(0.05)
    assert ended(grandchild)


def ended(pid: int) -> bool:
    """Say whether a process is gone or waits, dead, for its parent to notice."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] in ("", "Z")


def test_a_call_that_raises_or_hangs_gives_nothing_in_time():
    start = time.monotonic()
    assert within(0.2, lambda: time.sleep(30)) is None
    assert within(5, lambda: 1 / 0) is None
    assert within(5, lambda: 7) == 7
    assert time.monotonic() - start < 3


def test_a_call_that_hangs_does_not_keep_python_from_ending():
    code = (
        "import time\n"
        "from guidebook.machine._outside import within\n"
        "within(0.1, lambda: time.sleep(60))\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=20, check=True)
