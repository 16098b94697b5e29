"""Memory is read in bytes, and a control group's limit comes before the machine's total."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from machine_trees import answers, cgroup2, plant, recorded

from guidebook.machine import memory

GIB = 1024**3


def test_a_desktop_is_read_in_bytes(tmp_path: Path):
    root = plant(tmp_path, {"proc/meminfo": recorded("meminfo-desktop-32-gib.txt")})
    assert memory.from_linux(root) == memory.Memory(
        total_bytes=32763380 * 1024,
        available_bytes=26817540 * 1024,
        swap_total_bytes=8388604 * 1024,
        swap_free_bytes=8388604 * 1024,
        limit_bytes=None,
        effective_total_bytes=32763380 * 1024,
        effective_available_bytes=26817540 * 1024,
    )


def test_inside_a_container_its_limit_and_its_usage_count(tmp_path: Path):
    groups = {"/": {"memory.max": str(4 * GIB), "memory.current": str(1 * GIB)}}
    files = {"proc/meminfo": recorded("meminfo-desktop-32-gib.txt"), **cgroup2("/", groups)}
    found = memory.from_linux(plant(tmp_path, files))
    assert found.total_bytes == 32763380 * 1024
    assert found.limit_bytes == 4 * GIB
    assert found.effective_total_bytes == 4 * GIB
    assert found.effective_available_bytes == 3 * GIB


def test_a_limit_above_the_total_limits_nothing(tmp_path: Path):
    groups = {"/": {"memory.max": str(64 * GIB), "memory.current": str(1 * GIB)}}
    files = {"proc/meminfo": recorded("meminfo-desktop-32-gib.txt"), **cgroup2("/", groups)}
    found = memory.from_linux(plant(tmp_path, files))
    assert found.limit_bytes is None
    assert found.effective_total_bytes == found.total_bytes
    assert found.effective_available_bytes == found.available_bytes


def test_a_crowded_machine_leaves_a_container_less_than_its_limit(tmp_path: Path):
    text = "MemTotal: 33554432 kB\nMemAvailable: 1048576 kB\n"
    groups = {"/": {"memory.max": str(4 * GIB), "memory.current": "0"}}
    found = memory.from_linux(plant(tmp_path, {"proc/meminfo": text, **cgroup2("/", groups)}))
    assert found.effective_available_bytes == 1 * GIB


def test_without_memavailable_free_memory_is_the_lower_bound(tmp_path: Path):
    root = plant(tmp_path, {"proc/meminfo": recorded("meminfo-wsl1.txt")})
    assert memory.from_linux(root).available_bytes == 7234504 * 1024


def test_a_machine_without_meminfo_is_unknown(tmp_path: Path):
    assert memory.from_linux(tmp_path) == memory.Memory()


names = st.from_regex(r"[A-Z][A-Za-z0-9_()]{0,20}", fullmatch=True)


@given(st.dictionaries(names, st.integers(0, 2**50)))
def test_meminfo_reads_back_what_was_written(values):
    text = "".join(f"{name + ':':<16}{amount:>8} kB\n" for name, amount in values.items())
    assert memory.parse_meminfo(text) == {name: amount * 1024 for name, amount in values.items()}


@given(st.text())
def test_no_text_makes_meminfo_raise(text):
    memory.parse_meminfo(text)


def test_counts_in_meminfo_are_not_taken_for_kilobytes():
    assert memory.parse_meminfo("HugePages_Total:       4\n") == {"HugePages_Total": 4}


def test_a_mac_counts_free_inactive_and_speculative_pages_as_available():
    swap = "total = 2048.00M  used = 1021.50M  free = 1026.50M  (encrypted)"
    run = answers(
        {
            "sysctl -n hw.memsize": "34359738368",
            "sysctl -n vm.swapusage": swap,
            "vm_stat": recorded("vm-stat-apple-m2-pro.txt"),
        }
    )
    found = memory.from_macos(run)
    assert found.total_bytes == 32 * GIB
    assert found.available_bytes == (301284 + 604310 + 9120) * 16384
    assert found.swap_total_bytes == 2 * GIB
    assert found.swap_free_bytes == round(1026.5 * 1024**2)
    assert found.effective_available_bytes == found.available_bytes


def test_a_mac_whose_tools_do_not_answer_is_unknown():
    assert memory.from_macos(lambda command: None) == memory.Memory()
    assert memory.from_macos(lambda command: "?? total = 1.1.1M") == memory.Memory()


def test_psutil_serves_where_there_is_neither_proc_nor_sysctl():
    found = memory.from_psutil()
    assert found.total_bytes is not None
    assert 0 < (found.available_bytes or 0) <= found.total_bytes
