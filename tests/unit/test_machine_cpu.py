"""The processor is named, its cores are counted, and only the usable ones are used."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_trees import answers, cgroup2, plant, recorded, topology

from guidebook.machine import cpu

MIB = 1024**2


def i7(root: Path) -> Path:
    siblings = [f"{number % 8},{number % 8 + 8}" for number in range(16)]
    files = {"proc/cpuinfo": recorded("cpuinfo-i7-11700kf.txt"), **topology(siblings)}
    for number in range(16):
        folder = f"sys/devices/system/cpu/cpu{number}"
        files[f"{folder}/cpufreq/cpuinfo_max_freq"] = "5000000\n"
        for index, (level, size) in enumerate((("1", "48K"), ("2", "512K"), ("3", "16384K"))):
            files[f"{folder}/cache/index{index}/level"] = level + "\n"
            files[f"{folder}/cache/index{index}/size"] = size + "\n"
            shared = "0-15" if level == "3" else siblings[number]
            files[f"{folder}/cache/index{index}/shared_cpu_list"] = shared + "\n"
    return plant(root, files)


def test_an_intel_desktop_is_read_in_full(tmp_path: Path):
    assert cpu.from_linux(i7(tmp_path), "x86_64", frozenset(range(16))) == cpu.Cpu(
        model="11th Gen Intel(R) Core(TM) i7-11700KF @ 3.60GHz",
        architecture="x86_64",
        physical_cores=8,
        logical_cores=16,
        usable_cores=16.0,
        instruction_sets=("SSE3", "AVX", "AVX2", "F16C", "FMA", "AVX512F", "AVX512-VNNI"),
        l3_cache_bytes=16 * MIB,
        max_frequency_hz=5.0e9,
    )


def test_hyper_threads_are_not_used_for_inference(tmp_path: Path):
    assert cpu.linux_threads(i7(tmp_path), frozenset(range(16))) == 8


def test_two_threads_of_one_core_are_one_thread_of_work(tmp_path: Path):
    root = i7(tmp_path)
    assert cpu.linux_threads(root, frozenset({3, 11})) == 1
    assert cpu.linux_threads(root, frozenset({3, 11, 4})) == 2
    assert cpu.from_linux(root, "x86_64", frozenset({3, 11})).usable_cores == 2.0


def test_an_amd_desktop_without_sysfs_counts_its_cores_from_cpuinfo(tmp_path: Path):
    root = plant(tmp_path, {"proc/cpuinfo": recorded("cpuinfo-ryzen-5600x.txt")})
    found = cpu.from_linux(root, "x86_64", None)
    assert found.model == "AMD Ryzen 5 5600X 6-Core Processor"
    assert (found.physical_cores, found.logical_cores, found.usable_cores) == (6, 12, 12.0)
    assert found.instruction_sets == ("SSE3", "AVX", "AVX2", "F16C", "FMA")
    assert found.l3_cache_bytes is None
    assert found.max_frequency_hz is None


def test_a_raspberry_pi_is_named_by_core_and_board_and_not_by_serial_number(tmp_path: Path):
    root = plant(tmp_path, {"proc/cpuinfo": recorded("cpuinfo-raspberry-pi-5.txt")})
    found = cpu.from_linux(root, "aarch64", None)
    assert found.model == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert found.instruction_sets == ("NEON", "DOTPROD")
    assert found.logical_cores == 4
    assert found.physical_cores is None
    assert "5e71a1000decafe5" not in repr(found)


def test_an_arm_server_without_a_model_name_is_named_by_its_core(tmp_path: Path):
    files = {"proc/cpuinfo": recorded("cpuinfo-ampere-altra-vm.txt"), **topology("0123")}
    found = cpu.from_linux(plant(tmp_path, files), "aarch64", None)
    assert found.model == "Neoverse N1"
    assert found.physical_cores == 4


def test_an_arm_core_that_is_not_listed_is_described_and_not_guessed(tmp_path: Path):
    text = "processor : 0\nCPU implementer : 0x48\nCPU part : 0xd99\n"
    found = cpu.from_linux(plant(tmp_path, {"proc/cpuinfo": text}), "aarch64", None)
    assert found.model == "Arm core of designer 0x48, part 0xd99"


def test_an_arm_processor_with_two_kinds_of_cores_has_what_both_have(tmp_path: Path):
    big = "Features : fp asimd asimddp i8mm sve\nCPU implementer : 0x41\nCPU part : 0xd85\n"
    little = "Features : fp asimd asimddp\nCPU implementer : 0x41\nCPU part : 0xd87\n"
    root = plant(tmp_path, {"proc/cpuinfo": f"processor : 0\n{big}\nprocessor : 1\n{little}"})
    found = cpu.from_linux(root, "aarch64", None)
    assert found.model == "Cortex-X925 + Cortex-A725"
    assert found.instruction_sets == ("NEON", "DOTPROD")


def test_the_newest_x86_matrix_instructions_are_seen(tmp_path: Path):
    text = "processor : 0\nflags : pni avx avx_vnni avx512_bf16 amx_bf16 amx_tile amx_int8\n"
    found = cpu.from_linux(plant(tmp_path, {"proc/cpuinfo": text}), "x86_64", None)
    assert found.instruction_sets == (
        "SSE3", "AVX", "AVX-VNNI", "AVX512-BF16", "AMX-INT8", "AMX-BF16",
    )  # fmt: skip


def test_several_l3_caches_are_added_up(tmp_path: Path):
    files = topology(["0", "1", "2", "3"])
    for number, shared in enumerate(("0-1", "0-1", "2-3", "2-3")):
        folder = f"sys/devices/system/cpu/cpu{number}/cache/index3"
        files[f"{folder}/level"] = "3"
        files[f"{folder}/size"] = "32768K"
        files[f"{folder}/shared_cpu_list"] = shared
    found = cpu.from_linux(plant(tmp_path, files), "x86_64", None)
    assert found.l3_cache_bytes == 64 * MIB


@pytest.mark.parametrize(("quota", "usable", "threads"), [("150000", 1.5, 1), ("400000", 4.0, 4)])
def test_a_cpu_quota_limits_cores_and_threads(tmp_path: Path, quota, usable, threads):
    root = plant(i7(tmp_path), cgroup2("/", {"/": {"cpu.max": f"{quota} 100000"}}))
    assert cpu.from_linux(root, "x86_64", None).usable_cores == usable
    assert cpu.linux_threads(root, None) == threads


def test_a_quota_below_one_core_still_gives_one_thread(tmp_path: Path):
    root = plant(i7(tmp_path), cgroup2("/", {"/": {"cpu.max": "20000 100000"}}))
    assert cpu.linux_threads(root, None) == 1


def test_a_cpu_set_limits_cores_even_where_affinity_is_unknown(tmp_path: Path):
    root = plant(i7(tmp_path), cgroup2("/", {"/": {"cpuset.cpus.effective": "0-3,8"}}))
    assert cpu.from_linux(root, "x86_64", None).usable_cores == 5.0
    assert cpu.linux_threads(root, None) == 4


def test_only_the_fast_cores_of_a_hybrid_processor_are_used(tmp_path: Path):
    siblings = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]
    files = {**topology(siblings), "sys/devices/cpu_core/cpus": "0-3\n"}
    root = plant(tmp_path, files)
    assert cpu.linux_threads(root, frozenset(range(8))) == 2
    assert cpu.linux_threads(root, frozenset({5, 6, 7})) == 3  # pinned to the slow ones


def test_an_empty_machine_is_unknown_and_still_counts_a_core(tmp_path: Path):
    found = cpu.from_linux(tmp_path, "x86_64", None)
    assert found.model is None
    assert found.physical_cores is None
    assert found.instruction_sets is None
    assert found.logical_cores == os.cpu_count()
    assert cpu.linux_threads(tmp_path, None) >= 1


@given(st.text())
def test_no_text_in_cpuinfo_makes_reading_raise(tmp_path_factory, text):
    files = {"proc/cpuinfo": text.encode("utf-8", "replace")}
    root = plant(tmp_path_factory.mktemp("machine"), files)
    assert cpu.from_linux(root, "x86_64", None).logical_cores >= 1
    assert cpu.linux_threads(root, None) >= 1


def test_an_apple_chip_is_read_from_sysctl():
    run = answers({"sysctl -i machdep.cpu.brand_string": recorded("sysctl-apple-m2-pro.txt")})
    assert cpu.from_macos("arm64", cpu.macos_keys(run)) == cpu.Cpu(
        model="Apple M2 Pro",
        architecture="arm64",
        physical_cores=12,
        logical_cores=12,
        usable_cores=12.0,
        instruction_sets=("NEON", "DOTPROD", "I8MM", "BF16"),
        l3_cache_bytes=None,
        max_frequency_hz=None,
    )


def test_an_intel_mac_is_read_from_sysctl():
    run = answers({"sysctl -i": recorded("sysctl-intel-mac.txt")})
    found = cpu.from_macos("x86_64", cpu.macos_keys(run))
    assert found.model == "Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz"
    assert (found.physical_cores, found.logical_cores) == (8, 16)
    assert found.instruction_sets == ("SSE3", "AVX", "AVX2", "F16C", "FMA")
    assert found.l3_cache_bytes == 16 * MIB
    assert found.max_frequency_hz == 2.4e9


def test_a_mac_uses_its_performance_cores(monkeypatch):
    keys = cpu.macos_keys(lambda command: recorded("sysctl-apple-m2-pro.txt"))
    monkeypatch.setattr(cpu.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(cpu, "macos_keys", lambda: keys)
    assert cpu.usable_threads() == 8


def test_a_mac_whose_sysctl_does_not_answer_is_unknown():
    found = cpu.from_macos("arm64", cpu.macos_keys(lambda command: None))
    assert found.model is None
    assert found.physical_cores is None
    assert found.instruction_sets is None


def test_windows_gets_its_cores_from_psutil(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    found = cpu.from_windows()
    assert (found.physical_cores, found.logical_cores) == (8, 16)
    assert found.instruction_sets is None


def test_the_threads_for_this_machine_are_within_its_cores():
    assert 1 <= cpu.usable_threads() <= (os.cpu_count() or 1)
