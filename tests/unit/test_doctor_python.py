"""Python's version and environment, and what is mixed into it."""

import json
import subprocess
import sys

import pytest
from doctor_records import GPU, PROCESSOR, STATUSES, installed, machine, output, run

from guidebook.doctor import environment
from guidebook.doctor import installed as packages
from guidebook.doctor.checks.python import CHECKS, NEWEST, OLDEST
from guidebook.doctor.facts import gather

CONDA = "conda-and-pip-torch"
VENV = "/home/me/book/.venv"


def look(check_id, probe):
    return run(CHECKS, f"python.{check_id}", probe)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("3.10.12", "problem"),
        ("3.11.0rc1", "ok"),
        ("3.12.3", "ok"),
        ("3.14.0", "ok"),
        ("3.15.0a2", "warning"),
        ("", "could not tell"),
    ],
)
def test_python_is_as_old_and_as_new_as_the_pinned_packages_allow(version, verdict):
    assert look("version", machine(platform={"python": version})).verdict == verdict


def test_the_span_of_versions_is_the_packages_own_requirement(pytestconfig):
    text = (pytestconfig.rootpath / "pyproject.toml").read_text("utf-8")
    assert f'requires-python = ">={".".join(map(str, OLDEST))}"' in text
    assert NEWEST > OLDEST


@pytest.mark.parametrize(
    ("name", "platform", "commands", "command"),
    [
        (PROCESSOR, {"python": "3.10.12"}, {}, "uv venv --seed --python 3.12 .venv"),
        (CONDA, {"python": "3.10.12"}, {}, "conda create --name book --yes python=3.12"),
        (
            PROCESSOR,
            {"python": "3.10.9", "system": "win32", "machine": "AMD64"},
            {},
            "winget install --exact --id Python.Python.3.12",
        ),
        (
            PROCESSOR,
            {"python": "3.10.9", "system": "darwin", "machine": "arm64"},
            {},
            "/opt/homebrew/bin/python3.12 -m venv .venv",
        ),
    ],
)
def test_a_python_too_old_is_replaced_with_what_the_system_has(name, platform, commands, command):
    fix = look("version", machine(name, platform=platform, commands=commands)).fix
    assert command in fix.commands


def test_a_python_for_intel_on_an_apple_chip_is_a_problem():
    probe = machine(
        platform={"system": "darwin", "machine": "x86_64"},
        commands={"sysctl -n sysctl.proc_translated": "1"},
    )
    finding = look("architecture", probe)
    assert finding.verdict == "problem"
    assert "Rosetta" in finding.summary
    assert "arch -arm64 /opt/homebrew/bin/brew install python@3.12" in finding.fix.commands


def test_an_intel_mac_is_no_rosetta():
    probe = machine(platform={"system": "darwin", "machine": "x86_64"})
    assert look("architecture", probe).verdict == "ok"


def test_a_python_of_32_bits_is_a_problem():
    assert look("architecture", machine(platform={"bits": 32})).verdict == "problem"


def test_a_venv_is_an_environment():
    assert look("environment", machine()).verdict == "ok"


def test_a_conda_environment_is_one_and_is_named():
    finding = look("environment", machine(CONDA))
    assert (finding.verdict, finding.summary) == ("ok", "The conda environment llm.")


def test_the_base_environment_of_conda_is_no_place_for_the_book():
    files = {"/home/me/miniconda3/envs/llm/condabin/conda": ""}
    finding = look("environment", machine(CONDA, files=files))
    assert finding.verdict == "warning"
    assert finding.fix.commands == (
        "conda env create --file environment.yml",
        "conda activate guidebook",
    )


SYSTEM = {"prefix": "/usr", "base_prefix": "/usr", "executable": "/usr/bin/python3"}


def test_the_operating_systems_python_needs_an_environment():
    probe = machine(platform=SYSTEM, environment={"VIRTUAL_ENV": None})
    finding = look("environment", probe)
    assert finding.verdict == "warning"
    assert finding.fix.commands == ("/usr/bin/python3 -m venv .venv", "source .venv/bin/activate")


def test_a_container_is_an_environment_of_its_own():
    probe = machine(
        platform=SYSTEM,
        environment={"VIRTUAL_ENV": None},
        files={"/.dockerenv": "", "/proc/self/mountinfo": None},
    )
    assert look("environment", probe).verdict == "ok"


def test_another_active_environment_than_pythons_own_is_noticed():
    finding = look("environment", machine(environment={"VIRTUAL_ENV": "/home/me/other/.venv"}))
    assert finding.verdict == "warning"
    assert finding.fix.commands == (f"{VENV}/bin/python -m pip --version",)


def test_conda_and_pip_are_not_compared_outside_of_conda():
    assert look("conda-and-pip", machine()).verdict == "not applicable"


def test_pytorch_from_conda_and_pip_is_a_problem_and_pips_stays():
    finding = look("conda-and-pip", machine(CONDA))
    assert finding.verdict == "problem"
    assert finding.fix.commands == (
        "conda remove --name llm --yes pytorch pytorch-cuda",
        "python -m pip uninstall --yes torch",
        "python -m pip install torch==2.13.0+cu126 "
        "--index-url https://download.pytorch.org/whl/cu126",
    )


def test_another_package_from_both_is_a_warning_and_condas_stays():
    only_numpy = installed(CONDA, conda=[["numpy", "2.4.6", "py312h33ff503_0"]])
    finding = look("conda-and-pip", machine(CONDA, python=only_numpy))
    assert finding.verdict == "warning"
    assert finding.fix.commands == (
        "python -m pip uninstall --yes numpy",
        "conda install --name llm --force-reinstall --yes numpy=2.4.6",
    )


def test_a_conda_environment_without_a_name_is_meant_by_its_path():
    probe = machine(CONDA, environment={"CONDA_PREFIX": None, "CONDA_DEFAULT_ENV": None})
    commands = look("conda-and-pip", probe).fix.commands
    assert commands[0].startswith("conda remove --prefix /home/me/miniconda3/envs/llm ")
    assert commands[1].startswith("/home/me/miniconda3/envs/llm/bin/python -m pip ")


def test_packages_of_conda_alone_are_fine():
    rows = [["torch", "2.5.1", "environment", "conda"]]
    conda = [["pytorch", "2.5.1", "py3.12_cuda12.4_cudnn9.1.0_0"]]
    only = installed(CONDA, distributions=rows, conda=conda)
    assert look("conda-and-pip", machine(CONDA, python=only)).verdict == "ok"


def test_a_users_package_that_hides_the_environments_is_a_problem():
    rows = [["numpy", "1.26.4", "user", "pip"], ["numpy", "2.4.6", "environment", "pip"]]
    mixed = installed(CONDA, distributions=rows, user_site=True)
    finding = look("user-site", machine(CONDA, python=mixed))
    assert finding.verdict == "problem"
    assert "numpy 1.26.4" in finding.summary
    assert "hides numpy 2.4.6" in finding.summary
    assert finding.fix.commands == ("conda env config vars set --name llm PYTHONNOUSERSITE=1",)


def test_a_users_package_that_hides_nothing_is_a_warning():
    mixed = installed(CONDA, distributions=[["gguf", "0.19.0", "user", "pip"]], user_site=True)
    finding = look("user-site", machine(CONDA, python=mixed))
    assert finding.verdict == "warning"
    assert finding.summary == "gguf 0.19.0 comes from the user's own folder (pip install --user)."


def test_users_packages_are_fine_where_python_ignores_them_or_has_no_environment():
    rows = [["numpy", "1.26.4", "user", "pip"]]
    ignored = installed(distributions=rows, user_site=False)
    assert look("user-site", machine(python=ignored)).verdict == "ok"
    used = installed(distributions=rows, user_site=True)
    assert look("user-site", machine(platform=SYSTEM, python=used)).verdict == "ok"


def test_leftovers_of_an_interrupted_installation_are_named_with_their_folder():
    path = f"{VENV}/lib/python3.12/site-packages/~orch-2.13.0.dist-info"
    finding = look("leftovers", machine(python=installed(broken=[path])))
    assert finding.verdict == "warning"
    assert finding.fix.commands == (f"rm -r '{path}'",)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("check", ["conda-and-pip", "user-site", "leftovers"])
def test_without_an_answer_about_packages_nothing_is_claimed(check, status):
    finding = look(check, machine(CONDA, python={"installed": status}))
    assert finding.verdict == "could not tell"


def test_the_code_about_packages_runs_and_knows_this_environment():
    done = subprocess.run(
        [sys.executable, "-c", packages.CODE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = packages.parse(output(done.stdout))
    assert found.find("numpy").place == "environment"
    assert found.version("numpy").count(".") == 2
    assert found.conflicts == ()
    assert "guidebook" not in done.stdout


def test_the_code_about_packages_sees_conflicts_leftovers_and_other_folders(tmp_path):
    for name, version, needs in [
        ("transformers-9.9.dist-info", "9.9", "tokenizers<0.1"),
        ("~okenizers-0.0.1.dist-info", "0.0.1", ""),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name.split('-')[0].lstrip('~')}"]
        lines += [f"Version: {version}", *([f"Requires-Dist: {needs}"] if needs else [])]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", packages.CODE],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(tmp_path)},
    )
    found = packages.parse(output(done.stdout))
    assert found.find("transformers") == packages.Distribution("transformers", "9.9", "elsewhere")
    assert [one.wanted for one in found.conflicts if one.name == "transformers"] == [
        "tokenizers<0.1"
    ]
    assert found.broken == (str(tmp_path / "~okenizers-0.0.1.dist-info"),)


def test_conda_packages_that_are_not_watched_are_left_out():
    conda = [["pytorch", "2.5.1", "b"], ["openssl", "3.0", "b"]]
    text = json.dumps(
        {"distributions": [], "conflicts": None, "broken": [], "conda": conda, "user_site": False}
    )
    found = packages.parse(output(text))
    assert found.conda == (("pytorch", "2.5.1", "b"),)
    assert found.conflicts is None


def test_a_gpu_machine_passes_all_checks_of_python():
    probe = machine(GPU)
    verdicts = {check.id: look(check.id.split(".")[1], probe).verdict for check in CHECKS}
    assert set(verdicts.values()) <= {"ok", "not applicable"}, verdicts


@pytest.mark.parametrize(
    ("executable", "pip"),
    [
        ("C:\\Python313\\python.exe", "C:\\Python313\\python.exe -m pip"),
        ("C:\\Program Files\\python.exe", '& "C:\\Program Files\\python.exe" -m pip'),
    ],
)
def test_powershell_is_told_to_call_a_path_with_spaces(executable, pip):
    platform = {"system": "win32", "machine": "AMD64", "executable": executable}
    probe = machine(platform=platform, environment={"VIRTUAL_ENV": None})
    assert environment.find(probe, gather(probe)).pip == pip


def test_a_shell_is_given_a_path_with_spaces_in_quotes():
    platform = {"executable": "/home/me/my book/.venv/bin/python"}
    probe = machine(platform=platform, environment={"VIRTUAL_ENV": None})
    assert (
        environment.find(probe, gather(probe)).pip == "'/home/me/my book/.venv/bin/python' -m pip"
    )
