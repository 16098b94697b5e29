"""System, WSL, containers and virtual machines are told by the marks they leave."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_trees import answers, plant, recorded

from guidebook.machine import system


def nothing(command):
    return None


@pytest.mark.parametrize(
    ("name", "expected"), [("wsl1", 1), ("wsl2", 2), ("ubuntu", None), ("azure", None)]
)
def test_wsl_is_told_by_the_kernels_banner(tmp_path: Path, name, expected):
    root = plant(tmp_path, {"proc/version": recorded(f"version-{name}.txt")})
    assert system.wsl_version(root) == expected


def test_wsl_with_a_kernel_of_its_users_own_is_told_by_windows_programs(tmp_path: Path):
    files = {
        "proc/version": "Linux version 6.9.1-mine (me@host) #1 SMP\n",
        "proc/sys/fs/binfmt_misc/WSLInterop": "enabled\n",
    }
    assert system.wsl_version(plant(tmp_path, files)) == 2


def test_wsl_2_is_a_virtual_machine_and_wsl_1_is_none(tmp_path: Path):
    for name, expected in (("wsl1", None), ("wsl2", "Hyper-V")):
        root = plant(tmp_path / name, {"proc/version": recorded(f"version-{name}.txt")})
        found = system.from_linux(root, "5.15.167", {}, nothing)
        assert found.virtual_machine == expected


OVERLAY = "1 0 0:5 / / rw - overlay overlay rw,lowerdir=/l,upperdir={}/diff,workdir=/w\n"


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, {}, None),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": 'engine="podman-4.9.3"\n'}, {}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({".singularity.d/runscript": ""}, {}, "apptainer"),
        ({}, {"APPTAINER_CONTAINER": "/image.sif"}, "apptainer"),
        ({"run/systemd/container": "lxc\n"}, {}, "lxc"),
        ({"run/systemd/container": "something-new\n"}, {}, "unnamed"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1/cri-2\n"}, {}, "kubernetes"),
        ({"proc/1/cgroup": "5:memory:/docker/4f2a\n"}, {}, "docker"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, {}, None),
        (
            {"proc/self/mountinfo": OVERLAY.format("/var/lib/docker/overlay2/x")},
            {},
            "docker",
        ),
        (
            {"proc/self/mountinfo": OVERLAY.format("/var/lib/containers/storage/overlay/x")},
            {},
            "podman",
        ),
        ({"proc/self/mountinfo": OVERLAY.format("/cow/upper")}, {}, None),
    ],
)
def test_a_container_is_told_by_what_its_run_time_leaves(
    tmp_path: Path, files, environment, expected
):
    assert system.container(plant(tmp_path, files), environment) == expected


GUEST = "processor : 0\nflags : fpu pni hypervisor\n"
BARE = "processor : 0\nflags : fpu pni\n"
ARM = "processor : 0\nFeatures : fp asimd\n"
DMI = "sys/class/dmi/id/"


@pytest.mark.parametrize(
    ("cpuinfo", "vendor", "product", "expected"),
    [
        (BARE, "ASUS", "ROG STRIX Z590-E", None),
        (BARE, "Amazon EC2", "c5.metal", None),
        (GUEST, "QEMU", "Standard PC (Q35 + ICH9, 2009)", "QEMU"),
        (GUEST, "VMware, Inc.", "VMware Virtual Platform", "VMware"),
        (GUEST, "innotek GmbH", "VirtualBox", "VirtualBox"),
        (GUEST, "Microsoft Corporation", "Virtual Machine", "Hyper-V"),
        (GUEST, "Amazon EC2", "g5.xlarge", "Amazon EC2"),
        (GUEST, "Google", "Google Compute Engine", "Google Compute Engine"),
        (GUEST, "Nobody", "Box", "unnamed"),
        (ARM, "Amazon EC2", "c7g.large", "Amazon EC2"),
        (ARM, "Amazon EC2", "c7g.metal", None),
        (ARM, "", "", None),
    ],
)
def test_a_virtual_machine_is_told_by_flag_and_firmware(
    tmp_path: Path, cpuinfo, vendor, product, expected
):
    files = {"proc/cpuinfo": cpuinfo, DMI + "sys_vendor": vendor, DMI + "product_name": product}
    assert system.virtual_machine(plant(tmp_path, files), nothing) == expected


def test_systemd_names_the_hypervisor_where_firmware_is_silent(tmp_path: Path):
    root = plant(tmp_path, {"proc/cpuinfo": GUEST})
    run = answers({"systemd-detect-virt --vm": "kvm"})
    assert system.virtual_machine(root, run) == "KVM"
    assert system.virtual_machine(root, lambda command: "none") == "unnamed"


def test_xens_guests_are_virtual_and_its_first_system_is_not(tmp_path: Path):
    guest = plant(tmp_path / "u", {"proc/cpuinfo": BARE, "sys/hypervisor/type": "xen\n"})
    host = plant(tmp_path / "0", {"proc/cpuinfo": GUEST, "proc/xen/capabilities": "control_d\n"})
    assert system.virtual_machine(guest, nothing) == "Xen"
    assert system.virtual_machine(host, nothing) is None


def test_the_distribution_is_named(tmp_path: Path):
    root = plant(tmp_path, {"etc/os-release": recorded("os-release-ubuntu.txt")})
    found = system.from_linux(root, "6.8.0-45", {}, nothing)
    assert (found.os, found.os_version, found.kernel) == ("Linux", "Ubuntu 24.04.1 LTS", "6.8.0-45")


@pytest.mark.parametrize("text", ["PRETTY_NAME='Half", "PRETTY_NAME=\n", "\0\1", "="])
def test_a_broken_release_file_does_not_stop_anything(tmp_path: Path, text):
    found = system.from_linux(plant(tmp_path, {"etc/os-release": text}), None, {}, nothing)
    assert found.os_version in (None, "Half")


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.8.0-45-generic", "6.8.0-45"),
        ("5.15.167.4-microsoft-standard-WSL2", "5.15.167.4"),
        ("6.9.1-annas-laptop", "6.9.1"),
        ("24.1.0", "24.1.0"),
        ("", None),
        ("strange", None),
    ],
)
def test_the_kernels_version_is_kept_without_names(release, expected):
    assert system.kernel_version(release) == expected


def test_a_mac_and_a_virtual_mac_are_told_apart():
    real = system.from_macos("24.1.0", "15.1", answers({"sysctl -n kern.hv_vmm_present": "0"}))
    guest = system.from_macos("24.1.0", "15.1", answers({"sysctl -n kern.hv_vmm_present": "1"}))
    assert real == system.System("macOS", "15.1", "24.1.0")
    assert guest.virtual_machine == "unnamed"


@given(st.text())
def test_no_text_makes_reading_raise(tmp_path_factory, text):
    content = text.encode("utf-8", "replace")
    names = ("proc/version", "proc/cpuinfo", "etc/os-release", "proc/1/cgroup")
    files = {**dict.fromkeys(names, content), DMI + "sys_vendor": content}
    system.from_linux(plant(tmp_path_factory.mktemp("machine"), files), None, {}, nothing)
