"""Room for models: memory, disk, and a way to the hub."""

import pytest
from doctor_records import GPU, PROCESSOR, machine, run
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import units
from guidebook.doctor.checks.room import CHECKS, hf_home
from guidebook.doctor.facts import Need

SMALL = (Need("smollm2-135m", units.GIB // 4, units.GB // 10),)
LARGE = (Need("llama-3.3-70b", 45 * units.GIB, 43 * units.GB),)


def look(check_id, probe, needs=SMALL):
    return run(CHECKS, f"room.{check_id}", probe, needs)


def meminfo(total, available=None, swap=8 * units.GIB, swap_free=None):
    lines = {
        "MemTotal": total,
        "MemAvailable": total // 2 if available is None else available,
        "SwapTotal": swap,
        "SwapFree": swap if swap_free is None else swap_free,
    }
    text = "".join(f"{name}: {int(value) // 1024} kB\n" for name, value in lines.items())
    return {"/proc/meminfo": text}


def mounted(filesystem, point="/", source="/dev/nvme0n1p2", device="259:2", options="rw"):
    root = "28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n"
    line = f"30 28 {device} / {point} rw,relatime shared:2 - {filesystem} {source} {options}\n"
    return {"/proc/self/mountinfo": root + line}


# Memory.


@pytest.mark.parametrize(
    ("gib", "needs", "verdict"),
    [
        (2, SMALL, "problem"),
        (6, SMALL, "warning"),
        (16, SMALL, "ok"),
        (16, LARGE, "warning"),
        (128, LARGE, "ok"),
    ],
)
def test_memory_is_compared_with_the_models_of_the_plan(gib, needs, verdict):
    assert look("ram", machine(files=meminfo(gib * units.GIB)), needs).verdict == verdict


def test_the_gpus_memory_counts_too():
    needs = (Need("qwen3-14b", 20 * units.GIB, 12 * units.GB),)
    files = meminfo(16 * units.GIB)
    assert look("ram", machine(files=files), needs).verdict == "warning"
    assert look("ram", machine(GPU, files=files), needs).verdict == "ok"


def test_memory_that_other_programs_hold_is_a_warning():
    files = meminfo(16 * units.GIB, available=2 * units.GIB)
    finding = look("ram", machine(files=files), (Need("llama-3.1-8b", 6 * units.GIB, 1),))
    assert finding.verdict == "warning"
    assert "2.00 GiB" in finding.summary


def test_a_containers_limit_is_the_memory_that_counts():
    files = {
        **meminfo(64 * units.GIB),
        "/proc/self/mountinfo": "31 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
        "40 1 0:50 / / rw - overlay overlay rw\n",
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": str(2 * units.GIB),
        "/sys/fs/cgroup/memory.current": "1000",
        "/.dockerenv": "",
    }
    finding = look("ram", machine(files=files))
    assert finding.verdict == "problem"
    assert "2.00 GiB" in finding.summary
    assert finding.fix.where == "the host of this container"


def test_a_macs_memory_is_asked_for():
    probe = machine(
        platform={"system": "darwin", "machine": "arm64"},
        commands={"sysctl -n hw.memsize": str(16 * units.GIB)},
    )
    finding = look("ram", probe)
    assert finding.verdict == "ok"
    assert finding.summary.startswith("16.0 GiB")


def test_unknown_memory_is_not_guessed():
    assert look("ram", machine(files={"/proc/meminfo": None})).verdict == "could not tell"
    assert look("swap", machine(files={"/proc/meminfo": "garbage"})).verdict == "could not tell"


# Swap.


@pytest.mark.parametrize(
    ("gib", "swap", "free", "verdict"),
    [
        (8, 0, 0, "warning"),
        (24, 0, 0, "ok"),
        (8, 8 * units.GIB, 7 * units.GIB, "ok"),
        (24, 8 * units.GIB, units.GIB, "warning"),
    ],
)
def test_swap_matters_where_memory_is_small_and_must_not_be_full(gib, swap, free, verdict):
    files = meminfo(gib * units.GIB, swap=swap, swap_free=free)
    assert look("swap", machine(files=files)).verdict == verdict


def test_swap_is_added_with_commands_that_survive_a_restart():
    finding = look("swap", machine(files=meminfo(8 * units.GIB, swap=0)))
    assert "sudo swapon /swapfile" in finding.fix.commands
    assert "/etc/fstab" in finding.fix.commands[-1]


def test_swap_is_the_systems_business_on_a_mac():
    probe = machine(platform={"system": "darwin", "machine": "arm64"})
    assert look("swap", probe).verdict == "not applicable"


# Disk.


@pytest.mark.parametrize(
    ("free", "needs", "verdict"),
    [
        (units.GB // 2, SMALL, "problem"),
        (10 * units.GB, SMALL, "warning"),
        (30 * units.GB, SMALL, "ok"),
        (30 * units.GB, LARGE, "problem"),
        (60 * units.GB, LARGE, "ok"),
        (60 * units.GB, (*LARGE, *LARGE), "problem"),
    ],
)
def test_the_disk_has_room_for_all_models_of_the_plan(free, needs, verdict):
    probe = machine(disks={"/": [500 * units.GB, free]})
    assert look("disk", probe, needs).verdict == verdict


@settings(max_examples=20)
@given(free=st.integers(0, 10**13), more=st.integers(0, 10**13))
def test_more_free_disk_is_never_worse(free, more):
    order = ("problem", "warning", "ok")
    verdicts = []
    for amount in (free, free + more):
        probe = machine(disks={"/": [10**14, amount]})
        verdicts.append(order.index(look("disk", probe, LARGE).verdict))
    assert verdicts[0] <= verdicts[1]


def test_the_disk_that_counts_holds_the_cache():
    disks = {"/": [500 * units.GB, 0], "/data": [500 * units.GB, 400 * units.GB]}
    environment = {"HF_HOME": "/data/hf"}
    probe = machine(disks=disks, environment=environment, files={"/data/readme": ""})
    assert look("disk", probe).verdict == "ok"
    assert look("disk", machine(disks=disks)).verdict == "problem"


def test_a_full_disk_is_emptied_with_the_tools_of_the_environment():
    disks = {"/": [500 * units.GB, 0]}
    plain = look("disk", machine(disks=disks)).fix.commands
    assert plain == ("python -m pip cache purge", "hf cache ls", "hf cache prune")
    conda = look("disk", machine("conda-and-pip-torch", disks=disks)).fix.commands
    assert "conda clean --all --yes" in conda


def test_in_wsl_the_disk_below_counts():
    files = {
        "/proc/version": "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f)",
        "/mnt/c/Windows/System32/x": "",
    }
    disks = {"/": [10**12, 900 * units.GB], "/mnt/c": [256 * units.GB, 3 * units.GB]}
    platform = {"release": "5.15.167.4-microsoft-standard-WSL2"}
    finding = look("disk", machine(platform=platform, files=files, disks=disks), LARGE)
    assert finding.verdict == "problem"
    assert finding.summary.startswith("Drive C:, on which WSL's disk is a file, has 3.00 GB free")


def test_an_unknown_disk_is_not_guessed():
    assert look("disk", machine(disks={"/": None})).verdict == "could not tell"


# Where models are kept.


def test_the_place_of_models_follows_the_variables():
    assert hf_home(machine()) == "/home/me/.cache/huggingface"
    assert hf_home(machine(environment={"XDG_CACHE_HOME": "/x"})) == "/x/huggingface"
    both = {"XDG_CACHE_HOME": "/x", "HF_HOME": "/data/hf/"}
    assert hf_home(machine(environment=both)) == "/data/hf"


@pytest.mark.parametrize(
    ("filesystem", "source", "words"),
    [
        ("nfs4", "nas:/models", "network drive (nfs4)"),
        ("fuse.sshfs", "me@nas:/models", "network drive (fuse.sshfs)"),
        ("tmpfs", "tmpfs", "in memory (tmpfs)"),
    ],
)
def test_models_on_a_slow_or_fleeting_disk_are_a_warning(filesystem, source, words):
    files = {**mounted(filesystem, "/data", source, "0:55"), "/data/hf/x": ""}
    probe = machine(files=files, environment={"HF_HOME": "/data/hf"})
    finding = look("hf-home", probe)
    assert finding.verdict == "warning"
    assert words in finding.summary
    assert finding.fix.commands == ("export HF_HOME=~/.cache/huggingface",)


def test_models_on_a_windows_drive_seen_from_wsl_are_a_warning():
    files = {
        **mounted("9p", "/mnt/c", "C:\\134", "0:60", "rw,aname=drvfs;path=C:\\;uid=1000"),
        "/proc/version": "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f)",
        "/mnt/c/hf/x": "",
    }
    probe = machine(
        platform={"release": "5.15.167.4-microsoft-standard-WSL2"},
        files=files,
        environment={"HF_HOME": "/mnt/c/hf"},
    )
    finding = look("hf-home", probe)
    assert finding.verdict == "warning"
    assert "Windows drive" in finding.summary


@pytest.mark.parametrize(
    ("rotational", "verdict", "words"), [("1", "warning", "hard disk"), ("0", "ok", "an SSD")]
)
def test_a_hard_disk_is_told_from_an_ssd(rotational, verdict, words):
    files = {
        **mounted("ext4", "/data", "/dev/sda1", "8:1"),
        "/data/hf/x": "",
        "/sys/devices/sda/queue/rotational": rotational,
        "/sys/devices/sda/sda1/partition": "1",
        "/sys/dev/block/8:1": {"link": "/sys/devices/sda/sda1"},
    }
    finding = look("hf-home", machine(files=files, environment={"HF_HOME": "/data/hf"}))
    assert finding.verdict == verdict
    assert words in finding.summary


def test_a_missing_mount_table_is_not_guessed():
    finding = look("hf-home", machine(files={"/proc/self/mountinfo": None}))
    assert finding.verdict == "could not tell"


# Proxies.

PROXY = "http://proxy.example:3128"


def test_no_proxy_is_fine():
    assert look("proxies", machine()).verdict == "ok"


def test_a_proxy_with_exceptions_for_this_computer_is_fine():
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost,127.0.0.1"}
    assert look("proxies", machine(environment=environment)).verdict == "ok"


def test_a_proxy_without_exceptions_keeps_local_servers_out_of_reach():
    environment = {"https_proxy": PROXY, "no_proxy": "example.org"}
    finding = look("proxies", machine(environment=environment))
    assert finding.verdict == "warning"
    assert finding.fix.commands == ('export NO_PROXY="example.org,localhost,127.0.0.1"',)


def test_a_proxy_without_a_scheme_is_a_problem():
    finding = look("proxies", machine(environment={"HTTPS_PROXY": "proxy.example:3128"}))
    assert finding.verdict == "problem"
    assert finding.fix.commands == ('export HTTPS_PROXY="http://proxy.example:3128"',)


def test_proxies_that_differ_are_a_warning():
    environment = {"HTTPS_PROXY": PROXY, "https_proxy": "http://old.example:80", "NO_PROXY": "*"}
    finding = look("proxies", machine(environment=environment))
    assert finding.verdict == "warning"
    assert "differ" in finding.summary


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTPS_PROXY": "http://ada:secret@proxy.example:3128"},
        {"HTTPS_PROXY": "http://ada:secret@proxy.example:3128", "https_proxy": PROXY},
        {"HTTPS_PROXY": "ada:secret@proxy.example:3128"},
    ],
)
def test_a_proxys_password_is_never_shown(environment):
    finding = look("proxies", machine(environment=environment))
    assert "secret" not in repr(finding)
    assert "ada" not in repr(finding)


# The hub.


@pytest.mark.parametrize(
    ("answer", "verdict"), [(True, "ok"), (False, "warning"), (None, "could not tell")]
)
def test_the_hub_is_reachable_or_said_not_to_be(answer, verdict):
    probe = machine(connects={"huggingface.co:443": answer})
    finding = look("hub", probe)
    assert finding.verdict == verdict
    if verdict == "warning":
        assert "embedded model" in finding.fix.text


def test_working_offline_on_purpose_is_fine():
    probe = machine(environment={"HF_HUB_OFFLINE": "1"}, connects={"huggingface.co:443": False})
    assert look("hub", probe).verdict == "ok"


def test_through_a_proxy_the_proxy_is_asked():
    probe = machine(
        environment={"HTTPS_PROXY": PROXY},
        connects={"huggingface.co:443": False, "proxy.example:3128": True},
    )
    assert look("hub", probe).verdict == "ok"


def test_another_endpoint_is_asked_instead_of_the_hub():
    probe = machine(
        environment={"HF_ENDPOINT": "https://hub.example.org"},
        connects={"hub.example.org:443": False},
    )
    finding = look("hub", probe)
    assert finding.verdict == "warning"
    assert finding.summary.startswith("hub.example.org ")


@pytest.mark.parametrize("address", ["", "https://", "http://[::1", "https://hub:port"])
def test_a_senseless_address_does_not_end_the_check(address):
    finding = look("hub", machine(environment={"HF_ENDPOINT": address}))
    assert finding.verdict in ("could not tell", "ok")


def test_a_healthy_machine_passes_all_checks_of_room():
    verdicts = {
        check.id: look(check.id.split(".")[1], machine(PROCESSOR)).verdict for check in CHECKS
    }
    assert set(verdicts.values()) == {"ok"}, verdicts
