"""The smallest limit between a process's control group and the top is the one that holds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_trees import cgroup2, plant, recorded

from guidebook.machine import _cgroup

GIB = 1024**3
V1_NO_LIMIT = "9223372036854771712"


def test_the_smallest_memory_limit_on_the_path_holds(tmp_path: Path):
    files = cgroup2(
        "/work.slice/job.scope",
        {
            "/work.slice": {"memory.max": str(4 * GIB), "memory.current": str(1 * GIB)},
            "/work.slice/job.scope": {"memory.max": str(6 * GIB), "memory.current": "0"},
            "/other.slice": {"memory.max": "4096", "memory.current": "0"},
        },
    )
    found = _cgroup.memory(plant(tmp_path, files))
    assert found == _cgroup.MemoryGroup(limit_bytes=4 * GIB, headroom_bytes=3 * GIB)


limits = st.lists(st.one_of(st.none(), st.integers(0, 2**50)), min_size=1, max_size=6)


@given(limits=limits)
def test_the_limit_is_the_minimum_along_any_path(tmp_path_factory, limits):
    names = [f"g{depth}" for depth in range(len(limits))]
    groups = {
        "/" + "/".join(names[: depth + 1]): {"memory.max": "max" if limit is None else str(limit)}
        for depth, limit in enumerate(limits)
    }
    root = plant(tmp_path_factory.mktemp("machine"), cgroup2("/" + "/".join(names), groups))
    known = [limit for limit in limits if limit is not None]
    assert _cgroup.memory(root).limit_bytes == min(known, default=None)


def test_max_means_no_limit(tmp_path: Path):
    files = cgroup2(
        "/a", {"/a": {"memory.max": "max", "memory.high": "max", "cpu.max": "max 100000"}}
    )
    root = plant(tmp_path, files)
    assert _cgroup.memory(root) == _cgroup.MemoryGroup(None, None)
    assert _cgroup.cpu_quota(root) is None


def test_a_throttling_limit_below_the_hard_one_counts(tmp_path: Path):
    files = cgroup2(
        "/a",
        {"/a": {"memory.max": str(8 * GIB), "memory.high": str(6 * GIB), "memory.current": "0"}},
    )
    assert _cgroup.memory(plant(tmp_path, files)).limit_bytes == 6 * GIB


def test_page_cache_that_can_be_dropped_is_not_counted_as_used(tmp_path: Path):
    files = cgroup2(
        "/a",
        {
            "/a": {
                "memory.max": str(4 * GIB),
                "memory.current": str(3 * GIB),
                "memory.stat": f"anon {1 * GIB}\nfile {2 * GIB}\ninactive_file {2 * GIB}",
            }
        },
    )
    assert _cgroup.memory(plant(tmp_path, files)).headroom_bytes == 3 * GIB


def test_a_docker_container_with_version_2_sees_its_limits_at_the_top(tmp_path: Path):
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": recorded("mountinfo-docker-cgroup2.txt"),
        "sys/fs/cgroup/memory.max": "2147483648\n",
        "sys/fs/cgroup/memory.current": "147483648\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/cpuset.cpus.effective": "0-3,8\n",
    }
    root = plant(tmp_path, files)
    assert _cgroup.memory(root) == _cgroup.MemoryGroup(2 * GIB, 2_000_000_000)
    assert _cgroup.cpu_quota(root) == 1.5
    assert _cgroup.cpu_set(root) == {0, 1, 2, 3, 8}


def test_a_docker_container_with_version_1_finds_its_part_of_the_tree(tmp_path: Path):
    files = {
        "proc/self/cgroup": recorded("cgroup-docker-cgroup1.txt"),
        "proc/self/mountinfo": recorded("mountinfo-docker-cgroup1.txt"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "136870912\n",
        "sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 100000000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpuset/cpuset.cpus": "0-1\n",
    }
    root = plant(tmp_path, files)
    assert _cgroup.memory(root) == _cgroup.MemoryGroup(536870912, 500_000_000)
    assert _cgroup.cpu_quota(root) == 2.0
    assert _cgroup.cpu_set(root) == {0, 1}


def test_a_group_below_a_containers_own_is_found_too(tmp_path: Path):
    files = {
        "proc/self/cgroup": "10:memory:/docker/4f2a/job\n",
        "proc/self/mountinfo": recorded("mountinfo-docker-cgroup1.txt"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(1 * GIB),
    }
    assert _cgroup.memory(plant(tmp_path, files)).limit_bytes == 1 * GIB


def test_only_cores_that_every_group_allows_are_usable(tmp_path: Path):
    groups = {
        "/a": {"cpuset.cpus.effective": "0-3"},
        "/a/b": {"cpuset.cpus": "2-5"},
    }
    assert _cgroup.cpu_set(plant(tmp_path, cgroup2("/a/b", groups))) == {2, 3}


def test_version_1_without_limits_is_unlimited(tmp_path: Path):
    files = {
        "proc/self/cgroup": recorded("cgroup-docker-cgroup1.txt"),
        "proc/self/mountinfo": recorded("mountinfo-docker-cgroup1.txt"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NO_LIMIT + "\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    root = plant(tmp_path, files)
    assert _cgroup.memory(root).limit_bytes is None
    assert _cgroup.cpu_quota(root) is None
    assert _cgroup.cpu_set(root) is None


def test_a_hybrid_system_keeps_the_limits_of_both_versions(tmp_path: Path):
    files = {
        "proc/self/cgroup": "4:memory:/job/one\n0::/job\n",
        "proc/self/mountinfo": (
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/job/one/memory.limit_in_bytes": V1_NO_LIMIT,
    }
    assert _cgroup.memory(plant(tmp_path, files)).limit_bytes == 3 * GIB


def test_a_group_outside_of_the_mounted_part_gives_the_top_of_that_part(tmp_path: Path):
    files = cgroup2("/../../elsewhere", {"/": {"memory.max": "1000"}})
    assert _cgroup.memory(plant(tmp_path, files)).limit_bytes == 1000


def test_without_control_groups_nothing_is_limited(tmp_path: Path):
    assert _cgroup.memory(tmp_path) == _cgroup.MemoryGroup(None, None)
    assert _cgroup.cpu_quota(tmp_path) is None
    assert _cgroup.cpu_set(tmp_path) is None


@pytest.mark.parametrize("garbage", ["", "many", "-5", "1e9", "\0\0", "0x10", "nan 100000", "1 0"])
def test_garbage_in_a_limit_is_no_limit(tmp_path: Path, garbage):
    names = ("memory.max", "memory.high", "memory.current", "cpu.max", "cpuset.cpus.effective")
    root = plant(tmp_path, cgroup2("/a", {"/a": dict.fromkeys(names, garbage)}))
    assert _cgroup.memory(root).limit_bytes is None
    assert _cgroup.cpu_quota(root) is None
    assert _cgroup.cpu_set(root) is None


@given(cgroup=st.text(max_size=80), mountinfo=st.text(max_size=200))
def test_no_text_in_the_tables_makes_reading_raise(tmp_path_factory, cgroup, mountinfo):
    files = {"proc/self/cgroup": cgroup.encode("utf-8", "replace")}
    files["proc/self/mountinfo"] = mountinfo.encode("utf-8", "replace")
    root = plant(tmp_path_factory.mktemp("machine"), files)
    _cgroup.memory(root)
    _cgroup.cpu_quota(root)
    _cgroup.cpu_set(root)


def test_a_mount_point_with_a_space_is_read(tmp_path: Path):
    root = plant(tmp_path, {"proc/self/mountinfo": recorded("mountinfo-desktop.txt")})
    assert "/mnt/old disk" in [mount.point for mount in _cgroup.mounts(root)]
