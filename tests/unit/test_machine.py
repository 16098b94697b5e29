"""The whole description: quick, never failing, readable and anonymous."""

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from machine_trees import plant, recorded

from guidebook import machine
from guidebook.machine import cpu, description, disk, gpu, memory, software, system

PARTS = (cpu, memory, gpu, disk, system, software)
GIB = 1024**3

UNKNOWN = machine.Machine(
    cpu=machine.Cpu(None, "x86_64", None, 1, None, None, None, None),
    memory=machine.Memory(),
    gpus=(machine.Gpu("NVIDIA GPU", "cuda"),),
    disk=machine.Disk("here"),
    system=machine.System("Linux"),
    software=machine.Software(python="3.12.1", packages={"torch": None}),
)
KNOWN = machine.Machine(
    cpu=machine.Cpu(
        model="11th Gen Intel(R) Core(TM) i7-11700KF @ 3.60GHz",
        architecture="x86_64",
        physical_cores=8,
        logical_cores=16,
        usable_cores=1.5,
        instruction_sets=("AVX2", "AVX512F"),
        l3_cache_bytes=16 * 1024**2,
        max_frequency_hz=5e9,
    ),
    memory=machine.Memory(32 * GIB, 26 * GIB, 8 * GIB, 8 * GIB, 4 * GIB, 4 * GIB, 3 * GIB),
    gpus=(
        machine.Gpu(
            name="NVIDIA GeForce RTX 3080",
            kind="cuda",
            memory_total_bytes=10 * GIB,
            memory_free_bytes=9 * GIB,
            driver="570.133.07",
            cuda_driver_version="12.8",
            compute_capability=(8, 6),
            power_limit_w=320.0,
        ),
        machine.Gpu("Some <b>GPU</b>", "other", driver="i915", unified=True),
    ),
    disk=machine.Disk("models cache", 2_000_000_000_000, 1_200_000_000_000, "nvme", "ext4"),
    system=machine.System("Linux", "Ubuntu 24.04.1 LTS", "6.6.87", 2, "docker", "Hyper-V"),
    software=machine.Software("3.12.1", {"torch": "2.13.0+cpu", "flash-attn": None}),
)
RATE = machine.Rate(25e9, (24e9, 25e9, 26e9), "bytes/s", "how", 2, "Memory bandwidth (read)")


def test_this_machine_is_described_as_python_sees_it():
    found = machine.describe()
    assert found.software.python == platform.python_version()
    assert found.cpu.architecture == platform.machine()
    assert found.cpu.logical_cores == os.cpu_count()
    assert found.memory.total_bytes is not None
    assert found.memory.effective_total_bytes is not None
    assert found.memory.effective_total_bytes <= found.memory.total_bytes
    assert found.disk.free_bytes is not None
    assert found.system.kernel is not None


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's own counting")
def test_this_machines_memory_is_what_the_kernel_gives():
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.describe().memory.total_bytes == pages


def test_a_description_takes_less_than_three_seconds():
    start = time.monotonic()
    machine.describe()
    assert time.monotonic() - start < 3


def test_parts_that_hang_are_unknown_within_three_seconds(monkeypatch):
    for part in PARTS:
        monkeypatch.setattr(part, "describe", lambda: time.sleep(30))
    start = time.monotonic()
    found = machine.describe()
    assert time.monotonic() - start < 3
    assert found.cpu.model is None
    assert found.memory == machine.Memory()
    assert found.gpus == ()


@pytest.mark.parametrize("broken", PARTS, ids=lambda part: part.__name__)
def test_a_part_that_fails_leaves_the_others_known(monkeypatch, broken):
    def fail():
        raise OSError("the outside is broken")

    monkeypatch.setattr(broken, "describe", fail)
    found = machine.describe()
    known = {
        cpu: found.cpu.physical_cores or found.cpu.usable_cores,
        memory: found.memory.total_bytes,
        disk: found.disk.total_bytes,
        system: found.system.kernel,
        software: found.software.packages,
    }
    assert [part for part, value in known.items() if not value] == [
        part for part in known if part is broken
    ]
    str(machine.show(found))


def test_a_description_is_plain_data_that_json_keeps():
    data = machine.to_dict(KNOWN, [RATE])
    assert json.loads(json.dumps(data)) == data
    assert data["cpu"]["instruction_sets"] == ["AVX2", "AVX512F"]
    assert data["gpus"][0]["compute_capability"] == [8, 6]
    assert data["measured"][0]["samples"] == [24e9, 25e9, 26e9]
    assert "measured" not in machine.to_dict(KNOWN)


def test_the_report_reads_with_units_and_in_columns():
    text = str(machine.show(KNOWN, [RATE]))
    lines = text.splitlines()
    column = lines[0].index("11th Gen")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    rows = {line[:column].strip(): line[column:] for line in lines}
    assert rows["Processor"] == "11th Gen Intel(R) Core(TM) i7-11700KF @ 3.60GHz (x86_64)"
    assert rows["Cores"] == "8 physical, 16 logical, 1.5 usable here"
    assert rows["L3 cache"] == "16.0 MiB"
    assert rows["Highest clock"] == "5.00 GHz"
    assert rows["Memory"] == "32.0 GiB, 26.0 GiB available"
    assert rows["Memory limit here"] == "4.00 GiB, 3.00 GiB available"
    assert rows["GPU 0"] == (
        "NVIDIA GeForce RTX 3080, 10.0 GiB, 9.00 GiB free, compute capability 8.6, "
        "power limit 320 W, driver 570.133.07, CUDA up to 12.8"
    )
    assert rows["Disk (models cache)"] == "2.00 TB, 1.20 TB free, NVMe, ext4"
    assert rows["Operating system"] == "Ubuntu 24.04.1 LTS, kernel 6.6.87"
    assert rows["Runs inside"] == "WSL 2, container (docker), virtual machine (Hyper-V)"
    assert rows["Libraries"] == "torch 2.13.0+cpu; not installed: flash-attn"
    assert rows["Memory bandwidth (read)"].startswith("25.0 GB/s (24.0 GB/s to 26.0 GB/s")


def test_what_is_unknown_is_called_unknown_and_never_none_or_zero():
    text = str(machine.show(UNKNOWN))
    assert "None" not in text
    assert "0 bytes" not in text
    rows = dict(machine.show(UNKNOWN).rows)
    assert rows["Processor"] == "unknown (x86_64)"
    assert rows["Cores"] == "unknown physical, 1 logical, unknown usable here"
    assert rows["Memory"] == rows["Swap"] == rows["Instruction sets"] == "unknown"
    assert rows["GPU"] == "NVIDIA GPU, memory unknown, CUDA"
    assert rows["Disk (here)"] == "unknown, kind unknown, file system unknown"


def test_a_machine_without_swap_and_gpu_says_so():
    bare = machine.Machine(
        UNKNOWN.cpu,
        machine.Memory(GIB, GIB, 0, 0, None, GIB, GIB),
        (),
        UNKNOWN.disk,
        UNKNOWN.system,
        UNKNOWN.software,
    )
    rows = dict(machine.show(bare).rows)
    assert rows["Swap"] == "none"
    assert rows["GPU"] == "none found"
    assert "Memory limit here" not in rows


class Table(HTMLParser):
    """Collect the tags and the text of a table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.strip()


def test_the_table_says_what_the_text_says():
    report = machine.show(KNOWN, [RATE])
    table = Table(report._repr_html_())
    assert table.cells == [cell for row in report.rows for cell in row]


def test_the_table_is_accessible_and_brings_no_colours():
    text = machine.show(KNOWN)._repr_html_()
    table = Table(text)
    headings = [attributes for tag, attributes in table.tags if tag == "th"]
    assert len(headings) == len(machine.show(KNOWN).rows)
    assert all(attributes["scope"] == "row" for attributes in headings)
    assert [tag for tag, _ in table.tags].count("caption") == 1
    assert "color" not in text
    assert "background" not in text


PERSON = ("annafromaccounting", "annas-thinkpad", "5e71a1000decafe5")


def test_nothing_personal_is_read_from_a_machine_full_of_it(tmp_path: Path, monkeypatch):
    user, host, serial = PERSON
    home = tmp_path / "home" / user
    (home / ".cache").mkdir(parents=True)
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, user)
    for name in ("HOSTNAME", "HOST", "COMPUTERNAME"):
        monkeypatch.setenv(name, host)
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(platform, "node", lambda: host)
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    monkeypatch.setattr(platform, "release", lambda: f"6.9.1-{host}")
    root = plant(
        tmp_path / "root",
        {
            "etc/hostname": host,
            "etc/machine-id": serial,
            "proc/cpuinfo": recorded("cpuinfo-raspberry-pi-5.txt"),
            "proc/version": f"Linux version 6.9.1-{host} ({user}@{host}) (gcc) #1 SMP\n",
            "proc/self/cgroup": f"0::/user.slice/{user}.scope\n",
            "proc/self/mountinfo": f"28 1 259:2 / / rw - ext4 /dev/mapper/{host}-root rw\n",
            "sys/class/dmi/id/product_serial": serial,
            "sys/class/dmi/id/sys_vendor": "LENOVO",
        },
    )
    for module in (cpu, memory, gpu, disk, system):
        if hasattr(module, "ROOT"):
            monkeypatch.setattr(module, "ROOT", root)
    found = description.describe()
    assert found.system.kernel == "6.9.1"  # the planted machine is the one that was read
    assert found.cpu.model == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    report = machine.show(found)
    for text in (json.dumps(machine.to_dict(found)), str(report), report._repr_html_()):
        for secret in (*PERSON, str(home), str(tmp_path)):
            assert secret not in text


def test_the_description_of_this_machine_names_neither_host_nor_home():
    found = machine.describe()
    text = json.dumps(machine.to_dict(found)) + str(machine.show(found))
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    # A host called "linux" or "debian" would be found in every description.
    host = socket.gethostname()
    if len(host) > 6 and host.lower() not in ("linux", "debian", "ubuntu", "localhost"):
        assert host not in text


def test_importing_it_loads_no_heavy_library():
    heavy = ("numpy", "torch", "psutil", "pynvml", "platformdirs")
    code = (
        f"import sys, guidebook.machine\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_come_without_importing_anything():
    code = (
        "import sys\n"
        "from guidebook.machine import software\n"
        "found = software.describe()\n"
        "print(sorted(found.packages) == sorted(software.PACKAGES), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"
