"""Each system sees its own steps, in their order, and no other system's."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from guidebook import doctor, setup_steps
from guidebook.doctor.recorded import RecordedProbe

MACHINES = Path(__file__).parents[1] / "data" / "doctor" / "machines"
ALL = sorted(path.stem for path in MACHINES.glob("*.toml"))
CUDA = ("driver", "toolkit", "paths", "verify")


def machine(name: str) -> RecordedProbe:
    return RecordedProbe.load(MACHINES / f"{name}.toml")


@pytest.mark.parametrize(
    ("name", "system", "steps"),
    [
        (
            "healthy-wsl2",
            "WSL 2, with an NVIDIA GPU",
            ["system", "virtualization", "wsl", *CUDA, "memory", "disk", "network"],
        ),
        ("healthy-linux-4090", "Linux, outside of Windows, with an NVIDIA GPU", None),
        ("healthy-cpu-only", "Linux, outside of Windows, without an NVIDIA GPU", None),
        ("container-without-gpu", None, ["system", *CUDA, "memory", "disk"]),
        ("mac-arm", "a Mac", ["system", "memory", "disk"]),
        ("windows", None, ["system", "virtualization", "wsl", "driver"]),
    ],
)
def test_a_system_takes_its_own_steps(name, system, steps):
    found = setup_steps.of(machine(name))
    assert system in (None, found.system)
    assert steps is None or list(found.steps) == steps


@pytest.mark.parametrize("name", ALL)
def test_every_check_of_a_step_is_one_of_the_doctors_and_belongs_to_the_system(name):
    found = setup_steps.of(machine(name))
    known = {check.id for check in doctor.checks()}
    used = {check for checks in found.steps.values() for check in checks}
    assert used <= known
    if not found.facts.in_wsl and found.facts.os != "windows":
        assert not any(check.startswith("wsl.") for check in used)
    if not found.facts.is_linux and found.facts.os != "windows":
        assert not any(check.startswith(("gpu.", "toolkit.")) for check in used)


@pytest.mark.parametrize("name", ALL)
def test_a_step_of_another_system_is_named_and_not_looked_at(name):
    probe = machine(name)
    found = setup_steps.of(probe)
    for step in setup_steps.TITLES:
        look = found.look(step, probe)
        assert (look.report is not None) == (step in found.steps)
        if look.report is None:
            assert found.system in str(look)
            assert len(str(look).splitlines()) == 1
            assert look.says("platform.system") is None


@pytest.mark.parametrize("name", ALL)
def test_the_overview_has_a_row_for_each_step_and_names_no_person(name):
    probe = machine(name)
    found = setup_steps.of(probe)
    table = found.overview(probe)
    assert [row["step"] for row in table.rows] == [setup_steps.TITLES[one] for one in found.steps]
    assert "/home/me" not in str(table)


def test_a_look_says_what_is_fine_what_is_not_and_what_is_neither():
    probe = machine("linux-driver-in-wsl")
    look = setup_steps.of(probe).look("driver", probe)
    assert look.says("wsl.linux-driver") is False
    assert look.says("wsl.dxg") is True
    assert look.says("gpu.nvidia-smi") is None
    assert look.says("no.such") is None
    assert "sudo apt-get remove --purge" in str(look)
    assert "<table" in look._repr_html_()


def test_wsl_names_a_folder_on_windows_disk_only_where_one_can_be_written():
    record = tomllib.loads((MACHINES / "healthy-wsl2.toml").read_text("utf-8"))
    temporary = "/mnt/c/Users/me/AppData/Local/Temp"
    record["files"][f"{temporary}/a"] = ""
    assert setup_steps.of(RecordedProbe(record, MACHINES)).windows_folder == temporary
    assert setup_steps.of(machine("healthy-cpu-only")).windows_folder is None


def test_an_unknown_step_names_those_there_are():
    with pytest.raises(LookupError, match="There are: system, virtualization"):
        setup_steps.of(machine("mac-arm")).look("toolkits")
