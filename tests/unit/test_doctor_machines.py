"""Whole machines: the first complaint is the root cause and names the command, whatever happens."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import doctor
from guidebook.doctor.live import LiveProbe
from guidebook.doctor.model import Verdict
from guidebook.doctor.probe import Output, Status
from guidebook.doctor.recorded import RecordedProbe

FOLDER = Path(__file__).parent.parent / "data" / "doctor" / "machines"
MACHINES = sorted(path.stem for path in FOLDER.glob("*.toml"))
NAMED_IN_THE_BOOK = {
    "linux-driver-in-wsl",
    "wsl1",
    "no-dev-dxg",
    "toolkit-newer-than-driver",
    "cpu-torch-on-gpu-machine",
    "rtx-50-old-torch",
    "wslconfig-half-ram",
    "conda-and-pip-torch",
    "llama-cpp-without-cuda",
    "flash-attn-on-t4",
    "full-disk",
    "no-network",
}
HERE = ("platform", "wsl", "gpu", "toolkit")


def examine(name: str) -> tuple[doctor.Report, dict]:
    path = FOLDER / f"{name}.toml"
    expected = tomllib.loads(path.read_text())["expected"]
    probe = RecordedProbe.load(path)
    return doctor.examine(probe, models=expected.get("models", ())), expected


@pytest.mark.parametrize("name", MACHINES)
def test_the_first_complaint_is_the_root_cause_and_its_fix_names_the_command(name):
    report, expected = examine(name)
    if not expected["first"]:
        assert report.first is None, report
        assert report.exit_code == 0
        return
    assert report.first is not None
    assert report.first.check == expected["first"], report
    assert report.first.fix is not None
    assert expected["command"] in report.first.fix.commands
    assert report.first.evidence
    assert report.exit_code == (2 if report.first.verdict == "problem" else 1)


@pytest.mark.parametrize("name", MACHINES)
def test_every_finding_is_complete(name):
    report, _ = examine(name)
    assert [one.check for one in report.findings] == [check.id for check in doctor.checks()]
    for one in report.findings:
        assert one.summary.endswith("."), one
        assert one.why, one
        assert "This check failed" not in one.summary, one
        if one.verdict in ("problem", "warning"):
            assert one.fix is not None, one
    assert "/home/me" not in str(report)


def test_the_common_broken_states_are_there():
    assert set(MACHINES) >= NAMED_IN_THE_BOOK


@pytest.mark.parametrize(
    ("name", "check", "because"),
    [
        ("linux-driver-in-wsl", "gpu.nvidia-smi", "wsl.linux-driver"),
        ("linux-driver-in-wsl", "toolkit.driver", "wsl.linux-driver"),
        ("wsl1", "wsl.dxg", "wsl.version"),
        ("no-dev-dxg", "gpu.nvml", "wsl.dxg"),
        ("toolkit-newer-than-driver", "toolkit.compile", "toolkit.driver"),
        ("secure-boot", "gpu.driver", "gpu.nvidia-smi"),
        ("container-without-gpu", "gpu.nvidia-smi", "gpu.container"),
        ("virtualization-off", "wsl.installed", "platform.virtualization"),
    ],
)
def test_a_symptom_points_at_its_cause(name, check, because):
    report, _ = examine(name)
    assert report.of(check).verdict == "not applicable"
    assert report.of(check).because == because


def test_wsl_gets_as_much_memory_as_the_model_needs_and_windows_keeps_some():
    report, _ = examine("wslconfig-half-ram")
    finding = report.of("wsl.memory")
    assert "memory=24GB" in finding.fix.text
    assert "31.7 GiB" in finding.summary


def test_the_toolkit_for_wsl_comes_from_the_repository_for_wsl():
    report, _ = examine("toolkit-newer-than-driver")
    commands = "\n".join(report.of("toolkit.driver").fix.commands)
    assert "repos/wsl-ubuntu/x86_64/cuda-keyring" in commands
    assert "cuda-toolkit-12-2" in commands
    assert "install -y cuda\n" not in commands


def test_removing_a_driver_from_wsl_keeps_the_toolkit_and_what_serves_containers():
    report, _ = examine("linux-driver-in-wsl")
    commands = report.of("wsl.linux-driver").fix.commands
    assert commands[0] == "sudo apt-get install cuda-toolkit-12-4"
    assert "libnvidia-container" not in commands[1]
    assert "cuda-toolkit" not in commands[1]


class Mad:
    """A machine on which every command and file answers the same nonsense."""

    def __init__(self, base: RecordedProbe, status: Status, text: str) -> None:
        self._base = base
        self._output = Output(status, text, text, None if status == "timed out" else 3)
        self._text = text

    def __getattr__(self, name):
        return getattr(self._base, name)

    def run(self, command, **_):
        return self._output

    def python(self, code, **_):
        return self._output

    def read(self, path, *, limit=0):
        return self._text


TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "[]",
            "{}",
            "null",
            '{"memory": "many", "cards": 7, "error": 1}',
            "<nvidia_smi_log></nvidia_smi_log>",
            "<nvidia_smi_log><gpu></gpu></nvidia_smi_log>",
            "<nvidia_smi_log><gpu><fb_memory_usage><total>x MiB</total></fb_memory_usage></gpu>"
            "</nvidia_smi_log>",
            "Driver Version: 1..2 CUDA Version: .",
            "ii",
            "ii  cuda  1",
            "release 99.9",
            "g++ (x) 9999999999",
            "default via",
        ]
    ),
)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["healthy-wsl2", "healthy-linux-4090", "mac-arm", "windows", "wsl1"]),
    status=st.sampled_from(get_args(Status)),
    text=TEXTS,
)
def test_no_nonsense_from_outside_makes_a_check_fail(name, status, text):
    base = RecordedProbe.load(FOLDER / f"{name}.toml")
    report = doctor.examine(Mad(base, status, text), only=HERE)
    for one in report.findings:
        assert one.verdict in get_args(Verdict)
        assert "This check failed" not in one.summary, one
    assert str(report)
    assert report._repr_html_()
    assert report.to_dict()


@pytest.mark.parametrize("system", ["linux", "darwin", "win32", "freebsd14"])
def test_a_machine_that_tells_nothing_is_no_reason_to_fail(system):
    report = doctor.examine(RecordedProbe({"platform": {"system": system, "machine": "x86_64"}}))
    assert all("This check failed" not in one.summary for one in report.findings)


FAKES = {
    "hangs": "#!/bin/sh\nsleep 60\n",
    "prints garbage": "#!/bin/sh\nhead -c 3000 /dev/urandom\n",
    "prints UTF-16": "#!/bin/sh\nprintf 'N\\0V\\0I\\0D\\0I\\0A\\0-\\0S\\0M\\0I\\0'\n",
    "floods": "#!/bin/sh\nyes NVIDIA\n",
    "fails": "#!/bin/sh\necho 'No devices were found'; exit 6\n",
    "has no interpreter": "#!/no/such/interpreter\n",
}
COMMANDS = ("nvidia-smi", "nvcc", "g++", "dpkg", "getconf", "systemd-detect-virt", "journalctl")


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
@pytest.mark.parametrize("kind", [*FAKES, "is missing", "is not executable"])
def test_this_machine_is_examined_when_every_command(kind, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COMMANDS if kind != "is missing" else ():
        path = folder / name
        path.write_text(FAKES.get(kind, "#!/bin/sh\n"))
        path.chmod(0o644 if kind == "is not executable" else 0o755)
    # A shell goes on along the path after what it cannot start; the other fakes need some tools.
    cannot_start = kind in ("is missing", "is not executable", "has no interpreter")
    monkeypatch.setenv("PATH", f"{folder}" if cannot_start else f"{folder}:/usr/bin:/bin")
    began = time.monotonic()
    with LiveProbe(seconds=4.0) as probe:
        report = doctor.examine(probe, only=HERE)
    assert time.monotonic() - began < 6.5
    assert all("This check failed" not in one.summary for one in report.findings), report
    if kind in ("hangs", "prints garbage", "is not executable", "has no interpreter"):
        assert report.of("platform.c-library").verdict in ("could not tell", "not applicable")
