"""The kind of a disk is known through partitions, encryption and mounts, or is unknown."""

import os
from pathlib import Path

import pytest
from machine_trees import answers, plant, recorded

from guidebook.machine import disk

DESKTOP = {"proc/self/mountinfo": recorded("mountinfo-desktop.txt")}


def block(root: Path, number: str, place: str, rotational: str = "0", **files: str) -> None:
    """Add a block device: its folder in /sys/devices and the link by number."""
    folder = root / "sys/devices" / place
    plant(folder, {"uevent": f"DEVNAME={folder.name}\n", **files})
    if "partition" not in files:
        plant(folder, {"queue/rotational": rotational + "\n"})
    for link in (root / "sys/dev/block" / number, root / "sys/class/block" / folder.name):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)


def test_a_partition_of_an_nvme_drive_is_nvme(tmp_path: Path):
    root = plant(tmp_path, DESKTOP)
    block(root, "259:0", "pci/nvme/nvme0/nvme0n1")
    block(root, "259:2", "pci/nvme/nvme0/nvme0n1/nvme0n1p2", partition="2\n")
    found = disk.linux_kind(root, Path("/var/cache"), os.makedev(259, 2))
    assert found == ("nvme", "ext4")


@pytest.mark.parametrize(("rotational", "kind"), [("1", "hdd"), ("0", "ssd"), ("?", None)])
def test_a_sata_disk_is_told_by_whether_it_rotates(tmp_path: Path, rotational, kind):
    root = plant(tmp_path, DESKTOP)
    block(root, "8:1", "pci/sda", rotational)
    assert disk.linux_kind(root, Path("/mnt/old disk/models"), os.makedev(8, 1)) == (kind, "ext4")


def test_an_encrypted_btrfs_is_as_fast_as_the_disk_below(tmp_path: Path):
    root = plant(tmp_path, DESKTOP)
    block(root, "259:0", "pci/nvme/nvme0/nvme0n1")
    block(root, "259:3", "pci/nvme/nvme0/nvme0n1/nvme0n1p3", partition="3\n")
    block(root, "253:0", "virtual/block/dm-0")
    (root / "sys/class/block/home").symlink_to(root / "sys/devices/virtual/block/dm-0")
    slaves = root / "sys/devices/virtual/block/dm-0/slaves"
    slaves.mkdir()
    (slaves / "nvme0n1p3").symlink_to(root / "sys/devices/pci/nvme/nvme0/nvme0n1/nvme0n1p3")
    # btrfs reports a device number that belongs to no disk.
    assert disk.linux_kind(root, Path("/home/x"), os.makedev(0, 50)) == ("nvme", "btrfs")


def test_an_array_of_unlike_disks_is_of_no_one_kind(tmp_path: Path):
    root = plant(tmp_path, DESKTOP)
    block(root, "8:0", "pci/sda", "1")
    block(root, "8:16", "pci/sdb", "0")
    block(root, "9:0", "virtual/block/md0")
    for name in ("sda", "sdb"):
        link = root / "sys/devices/virtual/block/md0/slaves" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(root / "sys/devices/pci" / name)
    assert disk.linux_kind(root, Path("/srv"), os.makedev(9, 0)) == (None, "ext4")


def test_a_network_mount_is_network(tmp_path: Path):
    root = plant(tmp_path, DESKTOP)
    assert disk.linux_kind(root, Path("/mnt/nas/m"), os.makedev(0, 48)) == ("network", "nfs4")


def test_a_windows_drive_in_wsl_is_network_and_its_own_disk_virtual(tmp_path: Path):
    root = plant(tmp_path, {"proc/self/mountinfo": recorded("mountinfo-wsl2.txt")})
    vendor = {"device/vendor": "Msft    \n", "device/model": "Virtual Disk    \n"}
    block(root, "8:32", "pci/sdc", "1", **vendor)
    assert disk.linux_kind(root, Path("/mnt/c/Users"), os.makedev(0, 40)) == ("network", "9p")
    assert disk.linux_kind(root, Path("/srv"), os.makedev(8, 32)) == ("virtual", "ext4")


@pytest.mark.parametrize("name", ["vda", "xvda"])
def test_a_hypervisors_disk_is_virtual(tmp_path: Path, name):
    block(tmp_path, "254:0", f"pci/{name}", "1")
    assert disk.linux_kind(tmp_path, Path("/"), os.makedev(254, 0)) == ("virtual", None)


def test_a_clouds_network_disk_that_speaks_nvme_is_virtual(tmp_path: Path):
    model = {"device/model": "Amazon Elastic Block Store              \n"}
    block(tmp_path, "259:0", "pci/nvme/nvme0/nvme0n1", **model)
    assert disk.linux_kind(tmp_path, Path("/"), os.makedev(259, 0)) == ("virtual", None)


def test_a_containers_overlay_hides_the_disk(tmp_path: Path):
    root = plant(tmp_path, {"proc/self/mountinfo": recorded("mountinfo-docker-cgroup2.txt")})
    assert disk.linux_kind(root, Path("/root"), os.makedev(0, 130)) == (None, "overlay")


def test_a_memory_card_and_an_empty_machine_are_unknown(tmp_path: Path):
    block(tmp_path, "179:0", "mmc/mmcblk0")
    assert disk.linux_kind(tmp_path, Path("/"), os.makedev(179, 0)) == (None, None)
    assert disk.linux_kind(tmp_path / "nothing", Path("/"), os.makedev(1, 1)) == (None, None)


def test_a_loop_of_layers_ends(tmp_path: Path):
    block(tmp_path, "253:0", "virtual/dm-0")
    slaves = tmp_path / "sys/devices/virtual/dm-0/slaves"
    slaves.mkdir()
    (slaves / "dm-0").symlink_to(slaves.parent)
    assert disk.linux_kind(tmp_path, Path("/"), os.makedev(253, 0)) == (None, None)


DF = "Filesystem 512-blocks Used Available Capacity Mounted on\n{} 965595304 5 9 40% /\n"


def test_a_macs_internal_disk_is_nvme():
    run = answers(
        {
            "df -P": DF.format("/dev/disk3s5"),
            "diskutil info -plist /dev/disk3s5": recorded("diskutil-apple-internal.plist"),
        }
    )
    assert disk.macos_kind(Path("/Users"), run) == ("nvme", "apfs")


def test_a_macs_network_share_is_network():
    run = answers({"df -P": DF.format("//guest@server/models")})
    assert disk.macos_kind(Path("/Volumes/models"), run) == ("network", None)


@pytest.mark.parametrize("answer", [None, "", "<plist", "bplist00\x00", "<plist><array/></plist>"])
def test_a_mac_whose_tools_give_garbage_is_unknown(answer):
    run = answers({"df -P": DF.format("/dev/disk9")} | ({"diskutil": answer} if answer else {}))
    assert disk.macos_kind(Path("/"), run) == (None, None)
    assert disk.macos_kind(Path("/"), lambda command: answer) == (None, None)


def test_the_space_is_what_the_system_says(tmp_path: Path):
    import shutil

    found = disk.describe(tmp_path)
    assert found.label == "here"
    assert found.total_bytes == shutil.disk_usage(tmp_path).total
    assert 0 <= (found.free_bytes or 0) <= (found.total_bytes or 0)


def test_a_cache_that_does_not_exist_yet_is_on_the_disk_of_its_parent(tmp_path: Path):
    found = disk.describe(tmp_path / "not" / "made" / "yet")
    assert found.total_bytes == disk.describe(tmp_path).total_bytes


def test_a_file_server_that_does_not_answer_is_unknown_in_time(tmp_path: Path, monkeypatch):
    import time

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: time.sleep(30))
    start = time.monotonic()
    assert disk.describe(tmp_path) == disk.Disk("here")
    assert time.monotonic() - start < 3
