"""Libraries: there, built for this machine, and really computing."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from doctor_records import (
    GPU,
    PROCESSOR,
    STATUSES,
    failed,
    installed,
    machine,
    output,
    record,
    run,
    tried,
)
from hypothesis import given
from hypothesis import strategies as st

from guidebook import doctor
from guidebook.doctor import nvidia, torch_builds, trials
from guidebook.doctor.checks import libraries
from guidebook.doctor.checks.libraries import CHECKS
from guidebook.doctor.facts import gather

MAC = {"system": "darwin", "machine": "arm64"}
LEGACY = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = "--index-url https://download.pytorch.org/whl/cu130"


def look(check_id, probe):
    return run(CHECKS, f"libraries.{check_id}", probe)


def torch(name=GPU, **changes):
    """A machine whose PyTorch differs in what it says of itself."""
    version = changes.get("version")
    packages = installed(name, torch=version) if version else {}
    return {**packages, **tried(name, torch=changes)}


def smi(driver, cuda, capability, name="NVIDIA GeForce RTX 3060"):
    text = machine(GPU).run(("nvidia-smi", "-q", "-x")).text
    text = text.replace("560.35.05", driver).replace(">12.6<", f">{cuda}<")
    return {
        "nvidia-smi -q -x": text.replace("NVIDIA GeForce RTX 3060", name),
        "nvidia-smi --query-gpu=compute_cap --format=csv,noheader": capability,
    }


# Whole machines.


@pytest.mark.parametrize(
    "name",
    [
        "conda-and-pip-torch",
        "cpu-torch-on-gpu-machine",
        "flash-attn-on-t4",
        "full-disk",
        "healthy-cpu-only",
        "llama-cpp-without-cuda",
        "no-network",
        "rtx-50-old-torch",
    ],
)
def test_the_first_finding_is_the_root_cause_and_its_fix_names_the_command(name):
    probe = machine(name)
    wanted = record(name)["expected"]
    report = doctor.examine(probe)
    wrong = [one for one in report.ordered if one.verdict in ("problem", "warning")]
    unknown = [one.check for one in report.findings if one.verdict == "could not tell"]
    assert not unknown
    if not wanted["first"]:
        assert not wrong
        return
    assert wrong[0].check == wanted["first"]
    assert wrong[0].fix.commands[0] == wanted["command"]
    assert [one.check for one in wrong if one.verdict == "problem"] in ([], [wanted["first"]])


def test_what_rests_on_a_broken_pytorch_points_at_it():
    report = doctor.examine(machine("cpu-torch-on-gpu-machine"))
    because = {one.check: one.because for one in report.findings if one.because}
    for check in ("torch-driver", "torch-capability", "torch-gpu", "bitsandbytes"):
        assert because[f"libraries.{check}"] == "libraries.torch-build"


# The list of packages.


def test_missing_libraries_are_listed_with_one_way_to_install_them():
    probe = machine(python=installed(bitsandbytes=None, gguf=None))
    finding = look("packages", probe)
    assert finding.verdict == "problem"
    assert finding.summary == "Not installed: bitsandbytes, gguf."
    assert finding.fix.commands == ("python -m pip install -r requirements.txt -c constraints.txt",)


@pytest.mark.parametrize(
    ("name", "platform", "first"),
    [
        (GPU, {}, "torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126"),
        (PROCESSOR, {}, "torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu"),
        (PROCESSOR, MAC, "-r requirements.txt -c constraints.txt"),
    ],
)
def test_a_missing_pytorch_is_installed_first_and_in_the_right_build(name, platform, first):
    finding = look("packages", machine(name, platform=platform, python=installed(name, torch=None)))
    assert finding.fix.commands[0] == f"python -m pip install {first}"
    assert finding.fix.commands[-1].endswith("-r requirements.txt -c constraints.txt")


def test_into_the_operating_systems_python_nothing_is_installed():
    probe = machine(
        platform={"prefix": "/usr", "base_prefix": "/usr", "executable": "/usr/bin/python3"},
        environment={"VIRTUAL_ENV": None},
        files={"/usr/lib/python3.12/EXTERNALLY-MANAGED": "[externally-managed]"},
        python=installed(gguf=None),
    )
    assert look("packages", probe).fix.commands == (
        "/usr/bin/python3 -m venv .venv",
        "source .venv/bin/activate",
        "python -m pip install -r requirements.txt -c constraints.txt",
    )


def test_versions_that_do_not_fit_are_named():
    conflict = ["transformers", "5.17.0", "tokenizers<0.24,>=0.23", "0.22.1"]
    finding = look("packages", machine(python=installed(conflicts=[conflict])))
    assert finding.verdict == "warning"
    assert "transformers 5.17.0 wants tokenizers<0.24,>=0.23, found 0.22.1" in finding.summary


def test_the_libraries_that_chapters_need_are_pinned(pytestconfig):
    text = (pytestconfig.rootpath / "requirements.txt").read_text("utf-8").lower()
    pins = {line.split("==")[0].replace("_", "-") for line in text.splitlines() if "==" in line}
    assert set(libraries.NEEDED) <= pins


@pytest.mark.parametrize(
    ("package", "check"),
    [
        ("torch", "torch"),
        ("transformers", "transformers"),
        ("accelerate", "accelerate"),
        ("bitsandbytes", "bitsandbytes"),
        ("llama_cpp_python", "llama-cpp"),
    ],
)
def test_a_missing_library_is_one_problem_not_two(package, check):
    finding = look(check, machine(python=installed(**{package: None})))
    assert (finding.verdict, finding.because) == ("not applicable", "libraries.packages")


# PyTorch.


def test_an_import_that_fails_shows_the_errors_last_line():
    error = "Traceback …\nImportError: libcudnn.so.9: cannot open shared object file"
    finding = look("torch", machine(GPU, python={"torch": failed(error)}))
    assert finding.verdict == "problem"
    assert finding.summary.endswith("ImportError: libcudnn.so.9: cannot open shared object file")
    assert finding.fix.commands == (
        "python -m pip install torch==2.13.0+cu126 "
        "--index-url https://download.pytorch.org/whl/cu126",
    )


def test_a_wrong_product_on_the_processor_is_a_problem():
    probe = machine(python=tried(product={"right": False}))
    assert look("torch", probe).verdict == "problem"


def test_a_crash_after_the_import_does_not_lose_what_was_said():
    lines = tried(GPU, product=None, bitsandbytes=None)["torch"]
    answer = {"status": "failed", "code": -11, "text": lines}
    probe = machine(GPU, python={"torch": answer})
    assert look("torch-build", probe).verdict == "ok"
    finding = look("torch-gpu", probe)
    assert finding.verdict == "problem"
    assert "-11" in finding.summary


def test_the_gpus_checks_do_not_apply_without_one():
    for check in ("visible-gpus", "torch-build", "torch-driver", "torch-capability", "torch-gpu"):
        assert look(check, machine()).verdict == "not applicable"


@pytest.mark.parametrize(
    ("cuda", "driver", "wanted"),
    [
        ("13.2", "595.71.05", "torch==2.13.0+cu132 --index-url {}/cu132"),
        ("13.0", "580.95.05", "torch==2.13.0+cu130 --index-url {}/cu130"),
        ("12.9", "575.57.08", "torch==2.13.0+cu126 --index-url {}/cu126"),
        ("12.2", "535.183.01", "torch==2.13.0+cu126 --index-url {}/cu126"),
        ("11.4", "470.256.02", "torch==2.7.1+cu118 --index-url {}/cu118"),
    ],
)
def test_a_build_for_the_processor_is_replaced_by_the_one_that_the_driver_runs(
    cuda, driver, wanted
):
    python = torch(version="2.13.0+cpu", cuda=None, architectures=[], available=False)
    finding = look("torch-build", machine(GPU, commands=smi(driver, cuda, "8.6"), python=python))
    assert finding.verdict == "problem"
    wanted = wanted.format("https://download.pytorch.org/whl")
    assert finding.fix.commands == (f"python -m pip install {wanted}",)


def test_what_belongs_to_pytorch_comes_from_the_same_index():
    python = torch(version="2.13.0+cpu", cuda=None, architectures=[], available=False)
    python |= installed(GPU, torch="2.13.0+cpu", torchvision="0.28.0+cpu")
    finding = look("torch-build", machine(GPU, python=python))
    assert finding.fix.commands[0].startswith(
        "python -m pip install --upgrade torch==2.13.0+cu126 torchvision --index-url "
    )


def test_a_build_for_amd_is_no_build_for_nvidia():
    python = torch(cuda=None, hip="7.2", architectures=[])
    finding = look("torch-build", machine(GPU, python=python))
    assert finding.verdict == "problem"
    assert "AMD" in finding.summary


@pytest.mark.parametrize(
    ("built", "driver", "cuda", "verdict"),
    [
        ("12.6", "560.35.05", "12.6", "ok"),
        ("12.6", "535.183.01", "12.2", "ok"),  # minor version compatibility
        ("12.6", "580.95.05", "13.0", "ok"),
        ("13.0", "570.124.04", "12.8", "problem"),
        ("13.2", "580.95.05", "13.0", "ok"),
    ],
)
def test_a_driver_runs_its_own_major_cuda_version_and_older(built, driver, cuda, verdict):
    python = torch(version=f"2.13.0+cu{built.replace('.', '')}", cuda=built)
    finding = look("torch-driver", machine(GPU, commands=smi(driver, cuda, "8.6"), python=python))
    assert finding.verdict == verdict
    if verdict == "problem":
        assert "torch==2.13.0+cu126" in finding.fix.commands[0]


@pytest.mark.parametrize(
    ("architectures", "capability", "verdict"),
    [
        (LEGACY, "8.6", "ok"),
        (LEGACY, "8.9", "ok"),  # code for 8.6
        (LEGACY, "6.1", "ok"),  # code for 6.0
        (LEGACY, "12.0", "problem"),
        ([*LEGACY, "compute_90"], "12.0", "ok"),  # portable code
        (["sm_80", "sm_90a", "sm_100", "sm_120"], "12.1", "ok"),
        (["sm_75", "sm_80", "sm_90", "sm_120"], "7.0", "problem"),
        (["sm_86"], "8.0", "problem"),  # never from a higher minor one
        ([], "8.6", "could not tell"),
    ],
)
def test_machine_code_runs_within_a_major_capability_and_upwards(
    architectures, capability, verdict
):
    probe = machine(
        GPU,
        commands=smi("560.35.05", "12.6", capability),
        python=torch(architectures=architectures),
    )
    assert look("torch-capability", probe).verdict == verdict


@pytest.mark.parametrize(
    ("driver", "cuda", "capability", "wanted"),
    [
        ("570.124.04", "12.8", "12.0", "torch==2.11.0+cu128"),
        ("580.95.05", "13.0", "12.0", "torch==2.13.0+cu130"),
        ("580.95.05", "13.0", "6.1", "torch==2.13.0+cu126"),
        ("580.95.05", "13.0", "7.0", "torch==2.13.0+cu126"),
    ],
)
def test_a_gpu_without_code_gets_a_build_that_has_it(driver, cuda, capability, wanted):
    python = torch(version="2.5.1+cu121", cuda="12.1", architectures=["sm_37"])
    finding = look(
        "torch-capability", machine(GPU, commands=smi(driver, cuda, capability), python=python)
    )
    assert wanted in finding.fix.commands[0]


def test_where_no_build_fits_the_driver_comes_first():
    python = torch(version="2.5.1+cu121", cuda="12.1", architectures=["sm_37"])
    probe = machine(GPU, commands=smi("470.256.02", "11.4", "12.0"), python=python)
    finding = look("torch-capability", probe)
    assert "ubuntu-drivers" in " ".join(finding.fix.commands)
    assert "580" in finding.fix.text


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_variable_that_hides_every_gpu_is_the_problem(value):
    finding = look("visible-gpus", machine(GPU, environment={"CUDA_VISIBLE_DEVICES": value}))
    assert finding.verdict == "problem"
    assert finding.fix.commands == ("unset CUDA_VISIBLE_DEVICES",)


def test_a_variable_that_names_gpus_is_fine():
    assert (
        look("visible-gpus", machine(GPU, environment={"CUDA_VISIBLE_DEVICES": "0"})).verdict
        == "ok"
    )


def test_pytorchs_own_words_are_shown_where_it_finds_no_gpu():
    words = "CUDA initialization: CUDA unknown error - this may be due to an incorrect set up"
    python = tried(
        GPU,
        torch={"available": False, "devices": [], "warnings": [words]},
        product={"device": "cpu", "right": True},
    )
    finding = look("torch-gpu", machine(GPU, python=python))
    assert finding.verdict == "problem"
    assert words in finding.evidence[0].text


def test_a_product_that_fails_on_the_gpu_is_a_problem():
    error = "CUDA out of memory.\nTried to allocate 20 MiB."
    python = tried(GPU, product={"right": False, "error": error})
    finding = look("torch-gpu", machine(GPU, python=python))
    assert finding.verdict == "problem"
    assert finding.summary.endswith("CUDA out of memory.")


@pytest.mark.parametrize(
    ("changes", "product", "verdict"),
    [
        ({"mps_built": True, "mps": True}, {"device": "mps", "right": True}, "ok"),
        ({"mps_built": True, "mps": False}, {}, "problem"),
        ({"mps_built": False, "mps": False}, {}, "problem"),
    ],
)
def test_metal_is_built_available_and_computes(changes, product, verdict):
    python = tried(torch=changes, product=product)
    assert look("mps", machine(platform=MAC, python=python)).verdict == verdict


def test_metal_is_for_apple_chips_only():
    assert look("mps", machine()).verdict == "not applicable"
    intel = {"system": "darwin", "machine": "x86_64"}
    assert look("mps", machine(platform=intel)).verdict == "not applicable"


# The others.


@pytest.mark.parametrize(("version", "verdict"), [("5.17.0", "ok"), ("4.57.1", "warning")])
def test_transformers_is_the_books_major_version(version, verdict):
    assert look("transformers", machine(python=installed(transformers=version))).verdict == verdict


CONFIGURATION = """compute_environment: LOCAL_MACHINE
debug: false
distributed_type: {kind}
mixed_precision: {precision}
num_processes: {number}
use_cpu: {cpu}
"""
PLACE = "/home/me/.cache/huggingface/accelerate/default_config.yaml"


@pytest.mark.parametrize(
    ("name", "settings", "verdict"),
    [
        (GPU, {}, "ok"),
        (GPU, {"cpu": "true"}, "warning"),
        (PROCESSOR, {"cpu": "true"}, "ok"),
        (GPU, {"kind": "MULTI_GPU", "number": 2}, "warning"),
        (GPU, {"precision": "bf16"}, "ok"),
        (GPU, {"precision": "fp8"}, "warning"),
        ("flash-attn-on-t4", {"precision": "bf16"}, "warning"),
    ],
)
def test_accelerates_configuration_is_compared_with_the_machine(name, settings, verdict):
    usual = {"kind": "NO", "precision": "no", "number": 1, "cpu": "false"}
    text = CONFIGURATION.format(**{**usual, **settings})
    assert look("accelerate", machine(name, files={PLACE: text})).verdict == verdict


def test_accelerates_configuration_as_json_is_read_too():
    text = json.dumps({"distributed_type": "MULTI_GPU", "num_processes": 4}, indent=2)
    probe = machine(GPU, files={PLACE.replace("yaml", "json"): text})
    assert "4 processes on 1 GPU" in look("accelerate", probe).summary


def test_accelerates_configuration_is_looked_for_where_hugging_face_keeps_things():
    text = CONFIGURATION.format(kind="NO", precision="no", number=1, cpu="true")
    files = {"/data/hf/accelerate/default_config.yaml": text}
    probe = machine(GPU, files=files, environment={"HF_HOME": "/data/hf/"})
    assert look("accelerate", probe).verdict == "warning"
    assert "no configuration" in look("accelerate", machine(GPU, files=files)).summary


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "ok"),
        ({"deviation": 0.5}, "problem"),
        ({"deviation": float("nan")}, "problem"),
        ({"loss": 1.0}, "problem"),
        ({"error": "RuntimeError: CUDA Setup failed"}, "problem"),
    ],
)
def test_bitsandbytes_is_judged_by_what_it_computes(changes, verdict):
    finding = look("bitsandbytes", machine(GPU, python=tried(GPU, bitsandbytes=changes)))
    assert finding.verdict == verdict


def test_bitsandbytes_that_crashes_python_is_a_problem():
    lines = tried(bitsandbytes=None)["torch"]
    answer = {"status": "failed", "code": -6, "text": lines, "error": "Aborted"}
    finding = look("bitsandbytes", machine(python={"torch": answer}))
    assert finding.verdict == "problem"
    assert "Aborted" in finding.summary


def test_bitsandbytes_does_not_run_on_gpus_before_pascal():
    finding = look("bitsandbytes", machine(GPU, commands=smi("560.35.05", "12.6", "5.2")))
    assert finding.verdict == "problem"
    assert "6.0" in finding.summary


def test_llama_cpp_without_cuda_is_compiled_again_with_it():
    finding = look("llama-cpp", machine(GPU))
    assert finding.verdict == "problem"
    assert finding.fix.commands == (
        'CMAKE_ARGS="-DGGML_CUDA=on" python -m pip install --force-reinstall '
        "--no-cache-dir --no-deps llama-cpp-python==0.3.36",
    )


def test_llama_cpp_is_compiled_in_powershells_words_on_windows():
    facts = replace(gather(machine(GPU)), os="windows")
    finding = run(CHECKS, "libraries.llama-cpp", machine(GPU), facts=facts)
    assert finding.fix.commands[0].startswith('$env:CMAKE_ARGS = "-DGGML_CUDA=on"; ')
    assert finding.fix.where == "Windows PowerShell"


def test_without_nvcc_the_toolkit_is_installed_first():
    nvcc = "/usr/local/cuda-12.6/bin/nvcc"
    finding = look("llama-cpp", machine(GPU, files={nvcc: None}))
    commands = finding.fix.commands
    assert "sudo apt-get install -y cuda-toolkit-12-6" in commands
    assert commands[-1].startswith('CMAKE_ARGS="-DGGML_CUDA=on" ')


def test_an_nvcc_outside_of_the_search_path_is_named_to_the_build():
    finding = look("llama-cpp", machine(GPU, environment={"PATH": "/usr/bin"}))
    assert finding.fix.commands[0].startswith("CUDACXX=/usr/local/cuda-12.6/bin/nvcc CMAKE_ARGS=")


def test_llama_cpp_on_a_mac_is_compiled_with_metal():
    finding = look("llama-cpp", machine(platform=MAC))
    assert finding.verdict == "problem"
    assert finding.fix.commands[0].startswith('CMAKE_ARGS="-DGGML_METAL=on" ')


def test_llama_cpp_with_cuda_that_finds_no_gpu_is_not_compiled_again():
    answer = '{"llama_cpp": {"gpu": false, "parts": ["base", "cpu", "cuda"]}}'
    finding = look("llama-cpp", machine(GPU, python={"llama-cpp": answer}))
    assert finding.verdict == "problem"
    assert finding.fix.commands == ()


@pytest.mark.parametrize("code", [-4, 132, 3221225501])
def test_llama_cpp_of_another_processor_is_recognized(code):
    finding = look("llama-cpp", machine(python={"llama-cpp": failed("", code)}))
    assert finding.summary.endswith("was compiled for another processor.")
    assert "--no-cache-dir" in finding.fix.commands[0]
    assert "GGML" not in finding.fix.commands[0]


def test_llama_cpp_for_the_processor_is_right_where_there_is_no_gpu():
    assert look("llama-cpp", machine()).verdict == "ok"


@pytest.mark.parametrize(
    ("capability", "name", "verdict", "words"),
    [
        ("7.5", "Tesla T4", "not applicable", "Tesla T4 has compute capability 7.5 (Turing)"),
        ("7.0", "Tesla V100", "not applicable", "7.0 (Volta)"),
        ("6.1", "Tesla P4", "not applicable", "6.1 (Pascal)"),
        ("8.6", "NVIDIA GeForce RTX 3060", "ok", "not installed"),
    ],
)
def test_what_keeps_flash_attention_from_working_is_said(capability, name, verdict, words):
    probe = machine(GPU, commands=smi("560.35.05", "12.6", capability, name))
    finding = look("flash-attention", probe)
    assert finding.verdict == verdict
    assert words in finding.summary


def test_flash_attention_cannot_be_compiled_without_nvcc():
    nvcc = "/usr/local/cuda-12.6/bin/nvcc"
    finding = look("flash-attention", machine(GPU, files={nvcc: None}))
    assert "cannot be compiled without nvcc" in finding.summary
    assert "nvcc" not in look("flash-attention", machine(GPU)).summary


FLASH = installed(GPU, flash_attn="2.8.3.post2")


@pytest.mark.parametrize(
    ("answer", "verdict", "command"),
    [
        ('{"flash_attention": {"found": true, "computes": true}}', "ok", None),
        (
            '{"flash_attention": {"found": true, "computes": null, "error": "CUDA error"}}',
            "problem",
            "python -m pip uninstall --yes flash-attn",
        ),
        (
            failed(
                "ImportError: flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so: undefined "
                "symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringI"
            ),
            "problem",
            "python -m pip install --force-reinstall --no-deps --no-cache-dir "
            "--no-build-isolation flash-attn==2.8.3.post2",
        ),
    ],
)
def test_an_installed_flash_attention_must_compute(answer, verdict, command):
    probe = machine(GPU, python={**FLASH, "flash-attention": answer})
    finding = look("flash-attention", probe)
    assert finding.verdict == verdict
    assert (finding.fix.commands if finding.fix else (None,)) == (command,)


def test_flash_attention_without_a_gpu_is_a_warning():
    probe = machine(python=installed(flash_attn="2.8.3"))
    assert look("flash-attention", probe).verdict == "warning"


# What goes wrong while looking.


@pytest.mark.parametrize("status", STATUSES)
def test_a_library_that_gives_no_sense_is_never_fine(status):
    codes = ("installed", "torch", "llama-cpp", "flash-attention")
    probe = machine(GPU, python=dict.fromkeys(codes, status))
    for check in CHECKS:
        finding = check.run(probe, gather(probe))
        if check.id not in ("libraries.visible-gpus", "libraries.mps"):
            assert finding.verdict in ("could not tell", "problem"), check.id
        assert finding.summary


@given(st.text(max_size=200))
def test_whatever_a_library_prints_is_read_without_an_error(text):
    found = trials.said(output(text))
    assert all(isinstance(value, dict) for value in found.values())


def test_what_a_library_prints_between_our_lines_is_skipped():
    text = 'ggml_cuda_init: found 1 device\n{"llama_cpp": {"gpu": true}}\n{"x": 1}\n[]'
    assert trials.said(output(text)) == {"llama_cpp": {"gpu": True}}


@pytest.mark.slow
def test_the_code_of_the_trials_runs_here():
    pytest.importorskip("torch")
    for code, name in [
        (trials.TORCH, "torch"),
        (trials.LLAMA_CPP, "llama_cpp"),
        (trials.FLASH_ATTENTION, "flash_attention"),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found = trials.said(output(done.stdout))
        assert name in found
        if name == "torch":
            assert found["product"]["right"] is True
            assert found["bitsandbytes"]["deviation"] < 0.01
            assert 0.05 < found["bitsandbytes"]["loss"] < 0.2


# PyTorch's builds.

CAPABILITIES = st.sampled_from(
    [(5, 2), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), (12, 1)]
)
DRIVERS = st.sampled_from([(11, 4), (12, 0), (12, 4), (12, 8), (12, 9), (13, 0), (13, 2), (14, 0)])


@given(driver=DRIVERS, capabilities=st.lists(CAPABILITIES, max_size=3))
def test_the_best_build_runs_on_every_gpu_with_the_driver(driver, capabilities):
    build = torch_builds.best(driver, capabilities, (torch_builds.book_release(),))
    if build is None:
        assert not any(
            torch_builds.suits_driver(one.cuda, driver)
            and torch_builds.covers_all(one.capabilities, capabilities)
            for one in torch_builds.builds()
        )
        return
    assert build.cuda[0] <= driver[0]
    for capability in capabilities:
        assert any(have[0] == capability[0] and have <= capability for have in build.capabilities)


@given(driver=DRIVERS, capability=CAPABILITIES)
def test_a_newer_driver_never_leaves_a_gpu_without_a_build(driver, capability):
    if torch_builds.best(driver, [capability]) is not None:
        assert torch_builds.best((driver[0] + 1, 0), [capability]) is not None


def test_every_build_has_a_source_a_date_and_an_index_of_its_cuda_version():
    assert len(torch_builds.builds()) >= 25
    for build in torch_builds.builds():
        assert build.source.startswith("https://")
        assert build.as_of.year == 2026
        assert build.index.endswith("/cu" + "".join(map(str, build.cuda)))


def test_builds_are_listed_from_the_newest_release_on():
    releases = [nvidia.version(build.torch) for build in torch_builds.builds()]
    assert releases == sorted(releases, reverse=True)


def test_the_books_release_of_pytorch_is_the_one_it_pins(pytestconfig):
    text = (pytestconfig.rootpath / "requirements.txt").read_text("utf-8")
    (pinned,) = re.findall(r"^torch==([\d.]+)", text, re.MULTILINE)
    assert torch_builds.book_release() == pinned
    assert any(build.torch == pinned for build in torch_builds.builds())
