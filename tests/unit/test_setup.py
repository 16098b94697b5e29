"""Set-up: the pins agree, each check gives one sentence, and work is done once."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import bootstrap  # noqa: E402
from setup_env import Problem, checks, llama, progress, state  # noqa: E402

RUNTIME, DEV, GPU = "requirements.txt", "requirements-dev.txt", "requirements-gpu.txt"
NO_LOCK = 2  # the standard error, which every child has anyway
PROGRAM = [ROOT / "tools/bootstrap.py", *sorted((ROOT / "tools/setup_env").glob("*.py"))]


def requirement_lines(name: str) -> list[str]:
    """Return the lines of a requirements file that ask for a package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


# --- Requirements files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [RUNTIME, DEV, GPU])
def test_every_requirement_is_an_exact_pin_and_says_which_chapter_needs_it(name: str):
    chapters = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]-*.ipynb")}
    chapter, part = r"chapters? \d\d(?:, \d\d)*", r"parts? [1-7](?:, [1-7])*"
    needs = rf"every chapter|(?:{chapter}|{part})(?:; {part})?"
    for line in requirement_lines(name):
        match = re.fullmatch(rf"[A-Za-z0-9._-]+==[^\s;#]+ +# ({needs}): .+", line)
        assert match, f"{name}: {line}"
        assert set(re.findall(r"\d\d", match[1])) <= chapters, f"{name}: {line}"


def test_environment_yml_carries_the_pins_of_requirements_txt():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    asked = [line.split("#")[0].strip() for line in requirement_lines(RUNTIME)]
    assert pip == ["-c constraints.txt", *asked, "-e ."]
    python = next(item for item in environment["dependencies"] if str(item).startswith("python="))
    version = tuple(int(part) for part in python.split("=")[1].split("."))
    assert checks.OLDEST <= version <= checks.NEWEST


def test_no_package_is_pinned_twice():
    names = [
        state.normalize(line.split("==")[0])
        for name in (RUNTIME, DEV, "constraints.txt")
        for line in requirement_lines(name)
    ]
    assert sorted(set(names)) == sorted(names)


def test_gpu_packages_do_not_contradict_the_constraints():
    constraints = state.read_pins(ROOT / "constraints.txt")
    for name, version in state.read_pins(ROOT / GPU).items():
        assert constraints.get(name, version) == version


def test_what_the_pinned_packages_need_is_pinned_too():
    pins = {
        name: version
        for file in (RUNTIME, DEV, "constraints.txt")
        for name, version in state.read_pins(ROOT / file).items()
    }
    for name, version in pins.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            distribution = importlib.metadata.distribution(name)
            if distribution.version.split("+")[0] != version:
                continue  # this environment isn't the one that the pins describe
            for need in distribution.requires or []:
                if ";" not in need:
                    needed = re.match(r"[A-Za-z0-9._-]+", need).group()
                    assert state.normalize(needed) in pins, f"{name} needs {needed}"


@pytest.mark.parametrize(
    ("folders", "files"), [(["guidebook", "tools", "book"], [RUNTIME]), (["tests"], [RUNTIME, DEV])]
)
def test_every_imported_package_is_asked_for(folders: list[str], files: list[str]):
    pins = {name for file in files for name in state.read_pins(ROOT / file)}
    owners = importlib.metadata.packages_distributions()
    ours = {"guidebook", "conftest", *(path.stem for path in (ROOT / "tools").iterdir())}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - ours - sys.stdlib_module_names:
                if name in owners:
                    asked = {state.normalize(owner) for owner in owners[name]} & pins
                    assert asked, f"{path.relative_to(ROOT)} imports {name}, which no list pins"


# --- The program runs, and explains itself, on any Python -----------------------------------------


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: path.name)
def test_an_old_python_can_read_the_program(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name for node in imports for name in [getattr(node, "module", None)] if name}
    modules |= {a.name for node in imports if isinstance(node, ast.Import) for a in node.names}
    assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names | {"setup_env"}


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: path.name)
def test_what_is_printed_is_ascii(path: Path):
    assert path.read_text(encoding="utf-8").isascii()


# --- A project folder to try things in ------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of what set-up reads, with an empty home and no pip configuration."""
    root = tmp_path / "project"
    (root / "tools").mkdir(parents=True)
    for name in (RUNTIME, DEV, "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tools/setup_env", root / "tools/setup_env", ignore=ignore)
    shutil.copy(ROOT / "tools/bootstrap.py", root / "tools")
    (tmp_path / "home").mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name in ("CMAKE_ARGS", "CC", "CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(bootstrap, "ROOT", root)
    return root


def listing(root: Path) -> set[str]:
    """Return every path in the project, and what set-up itself would keep in the home."""
    kept = root.parent / "home/.cache/guidebook"
    return {str(path) for folder in (root, kept) for path in folder.rglob("*")}


def run_setup(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's set-up as a reader would."""
    return subprocess.run(
        [sys.executable, "tools/bootstrap.py", *arguments],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def one_sentence(text: str) -> str:
    """Return the only sentence of an error output."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("Set-up stopped: ")
    return lines[0]


# --- Checks ---------------------------------------------------------------------------------------


def test_without_a_compiler_one_sentence_says_what_to_install(project: Path):
    before = listing(project)
    done = run_setup(project, PATH="/nonexistent")
    assert done.returncode == 1
    sentence = one_sentence(done.stderr)
    assert "C compiler" in sentence
    assert "C++ compiler" in sentence
    assert listing(project) == before


def test_a_compiler_that_does_not_work_is_found_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    assert "can't build a C program" in (checks.check_compiler() or "")


@pytest.mark.skipif(checks.check_compiler() is not None, reason="no C and C++ compiler here")
def test_without_a_package_index_one_sentence_names_it(project: Path):
    before = listing(project)
    done = run_setup(project, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert done.returncode == 1
    assert "http://127.0.0.1:9/simple" in one_sentence(done.stderr)
    assert listing(project) == before


def test_a_full_disk_is_said_with_what_is_needed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    usage = shutil.disk_usage("/")._replace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    before = listing(project)
    assert bootstrap.main([]) == 1
    sentence = one_sentence(capsys.readouterr().err)
    assert "1.0 GB are free" in sentence
    needed = float(re.search(r"needs ([\d.]+) GB", sentence).group(1))
    assert needed > 2
    assert listing(project) == before


def test_disk_space_that_venv_already_takes_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage("/")._replace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(checks, "size_of", lambda _: 3_000_000_000)
    assert checks.check_disk(tmp_path, "cpu") is None
    assert checks.check_disk(tmp_path, "cuda") is not None


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 10, 0), (3, 15, 0)])
def test_a_python_outside_the_range_gets_one_sentence(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: tuple[int, int, int],
):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setenv("PATH", "/nonexistent")
    before = listing(project)
    assert bootstrap.main([]) == 1
    assert f"this is {version[0]}.{version[1]}" in one_sentence(capsys.readouterr().err)
    assert listing(project) == before


def test_an_old_python_hands_over_to_a_newer_one_on_the_path(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = project.parent / "bin"
    folder.mkdir()
    for name, prints in (("python3.13", "not a version"), ("python3.12", "3 12")):
        (folder / name).write_text(f"#!/bin/sh\necho {prints}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    started: list[list[str]] = []

    def execv(program: str, arguments: list[str]) -> None:
        started.append([program, *arguments[2:]])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execv", execv)
    bootstrap.main(["--dev"])
    assert started == [[str(folder / "python3.12"), "--dev"]]


@pytest.mark.parametrize(
    ("pip_says", "sentence_has"),
    [
        ("host='pypi.org' NameResolutionError: Failed to resolve", "its name is not found"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("ProxyError('Cannot connect to proxy.'", "HTTPS_PROXY"),
        ("ERROR: 403 Client Error: Forbidden", "refuses access"),
        ("connection timed out", "no connection"),
        ("ERROR: No matching distribution found for torch==2.13.0", "for torch==2.13.0"),
    ],
)
def test_pips_complaint_becomes_a_sentence(pip_says: str, sentence_has: str):
    sentence = checks.explain_network("Looking in indexes: https://me:pw@host/simple\n" + pip_says)
    assert sentence_has in sentence
    assert "https://host/simple" in sentence
    assert "pw" not in sentence
    assert "\n" not in sentence


def test_a_pytorch_with_cuda_libraries_is_told_from_one_without(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    needs = ["filelock", 'nvidia-nccl-cu13==2.29.7; platform_system == "Linux"']
    with_cuda = {"metadata": {"version": "2.13.0", "requires_dist": needs}}
    without = {"metadata": {"version": "2.13.0+cpu", "requires_dist": ["filelock"]}}
    assert checks.is_cuda_build(with_cuda)
    assert not checks.is_cuda_build(without)


# --- The stamp: work is done once -----------------------------------------------------------------


@pytest.fixture
def finished(project: Path) -> Path:
    """Return a project folder whose set-up is complete, as far as its stamp says."""
    venv = [checks.choose_python(), "-m", "venv", "--without-pip", str(project / ".venv")]
    subprocess.run(venv, check=True)
    stamp = {
        "root": str(project),
        "python": list(sys.version_info[:2]),
        "layers": {layer: state.fingerprint(project, layer) for layer in state.LAYERS},
        "llama": llama.wanted(project, {}),
    }
    state.write_stamp(project, stamp)
    return project


def test_a_finished_set_up_prints_nothing_and_changes_nothing(finished: Path):
    before = {path: path.lstat().st_mtime_ns for path in finished.rglob("*")}
    done = run_setup(finished, "--dev", PATH="/nonexistent")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path: path.lstat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        (RUNTIME, ["book", "dev"]),
        ("constraints.txt", ["book", "dev"]),
        ("pyproject.toml", ["book"]),
        (DEV, ["dev"]),
    ],
)
def test_a_changed_file_refreshes_what_depends_on_it(finished: Path, file: str, stale: list[str]):
    with (finished / file).open("a", encoding="utf-8") as text:
        text.write("# changed\n")
    assert bootstrap.stale_layers(finished, ["book", "dev"]) == stale


def test_a_set_up_that_was_interrupted_is_not_finished(finished: Path):
    setup = bootstrap.Setup(finished, NO_LOCK)
    setup.mark_unfinished(["dev"])
    assert bootstrap.stale_layers(finished, ["book", "dev"]) == ["dev"]
    setup.mark_unfinished(["book", "dev"])
    assert bootstrap.stale_layers(finished, ["book", "dev"]) == ["book", "dev"]
    assert setup.stamp["llama"] == llama.wanted(finished, {}), "a compiled llama.cpp stays"


def test_an_environment_whose_python_is_gone_is_made_again(finished: Path):
    state.interpreter(finished / ".venv").unlink()
    assert bootstrap.stale_layers(finished, ["book"]) == ["book"]
    assert not bootstrap.Setup(finished, NO_LOCK).is_reusable()


def test_an_environment_that_was_moved_is_made_again(finished: Path):
    moved = finished.rename(finished.with_name("moved"))
    assert bootstrap.stale_layers(moved, ["book"]) == ["book"]
    assert not bootstrap.Setup(moved, NO_LOCK).is_reusable()


def test_a_folder_that_is_no_environment_is_left_alone(project: Path):
    (project / ".venv").mkdir()
    (project / ".venv/diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(Problem, match="move it away"):
        bootstrap.Setup(project, NO_LOCK).is_reusable()


def test_an_environment_is_replaced_whole_even_if_that_was_interrupted_before(finished: Path):
    venv = finished / ".venv"
    (venv / "lib/leftover").write_text("", encoding="utf-8")
    (venv / "pyvenv.cfg").unlink()  # as if the replacement had been killed
    state.interpreter(venv).unlink()
    setup = bootstrap.Setup(finished, NO_LOCK)
    assert not setup.is_reusable()
    setup.make_venv()
    assert not (venv / "lib/leftover").exists()
    assert state.has_pip(str(state.interpreter(venv)))
    assert bootstrap.stale_layers(finished, ["book"]) == ["book"]


def test_what_an_interrupted_pip_left_is_installed_again(finished: Path):
    site = next((finished / ".venv").glob("lib/python*/site-packages"))
    for name, whole in (("torch-2.13.0+cpu.dist-info", True), ("numpy-2.4.6.dist-info", False)):
        (site / name).mkdir()
        (site / name / "METADATA").touch()
        if whole:
            (site / name / "INSTALLER").write_text("pip\n", encoding="utf-8")
    (site / "~umpy").mkdir()
    setup = bootstrap.Setup(finished, NO_LOCK)
    setup.tidy()
    here = state.installed(setup.venv)
    assert here == {"torch": "2.13.0"}
    wanted = state.outdated(finished, ["book"], here)
    assert "numpy" in wanted
    assert "torch" not in wanted
    assert not (site / "~umpy").exists()


@given(st.data())
def test_exactly_the_packages_that_miss_their_pin_are_wanted(data: st.DataObject):
    pins = state.read_pins(ROOT / RUNTIME)
    fine = {**pins, **state.read_pins(ROOT / "constraints.txt")}
    absent = data.draw(st.sets(st.sampled_from(sorted(fine))))
    other = data.draw(st.sets(st.sampled_from(sorted(fine))))
    here = {name: "0" if name in other else fine[name] for name in fine if name not in absent}
    here["not-ours"] = "1"
    # A constraint wants a version where the package is there; only a requirement wants it there.
    assert set(state.outdated(ROOT, ["book"], here)) == (absent & set(pins)) | (other - absent)


def test_a_second_set_up_waits_for_the_first_and_says_so(project: Path):
    with bootstrap.only_one(project):
        second = subprocess.Popen(
            [sys.executable, "tools/bootstrap.py"],
            cwd=project,
            env={**os.environ, "PATH": "/nonexistent"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting" in second.stdout.readline()
        assert second.poll() is None
    assert "C compiler" in second.communicate(timeout=60)[1]


def is_locked(root: Path) -> bool:
    """Say whether a set-up is at work in a folder."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_pip_that_outlives_a_killed_set_up_keeps_the_lock(project: Path):
    code = (
        "import sys; sys.path.insert(0, 'tools'); import bootstrap, os, pathlib\n"
        "with bootstrap.only_one(pathlib.Path()) as lock:\n"
        "    step = bootstrap.Step('Installing', pathlib.Path('setup.log'), lock)\n"
        "    step.run(['sh', '-c', 'echo $$ > pid; exec sleep 60'], dict(os.environ))\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code], cwd=project, stdout=subprocess.DEVNULL)
    while not (project / "pid").exists() or not (project / "pid").read_text(encoding="utf-8"):
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert is_locked(project)
    pid = int((project / "pid").read_text(encoding="utf-8"))
    os.kill(pid, signal.SIGKILL)
    assert gone_within(pid, seconds=10)
    assert not is_locked(project)


# --- llama.cpp ------------------------------------------------------------------------------------


def test_the_readers_cmake_arguments_win_and_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_VULKAN=on")
    chosen = llama.wanted(ROOT, {})
    assert chosen["options"] == "-DGGML_VULKAN=on"
    monkeypatch.delenv("CMAKE_ARGS")
    assert llama.wanted(ROOT, {"llama": chosen}) == chosen
    assert "VULKAN" not in llama.wanted(ROOT, {})["options"]


@pytest.mark.parametrize(("nvcc", "gpu"), [(True, True), (True, False), (False, True)])
def test_cuda_is_built_in_only_with_its_compiler_and_a_gpu(
    monkeypatch: pytest.MonkeyPatch, nvcc: bool, gpu: bool
):
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    monkeypatch.setattr(llama, "find_nvcc", lambda: "/usr/local/cuda/bin/nvcc" if nvcc else None)
    monkeypatch.setattr(llama, "has_nvidia_gpu", lambda: gpu)
    assert llama.uses_cuda(llama.wanted(ROOT, {})) is (nvcc and gpu)


def test_a_wheel_is_shared_only_between_equal_machines_and_options():
    one = llama.wanted(ROOT, {})
    folders = {
        llama.wheel_folder(one, (3, 11)),
        llama.wheel_folder(one, (3, 12)),
        llama.wheel_folder({**one, "options": "-DGGML_CUDA=on"}, (3, 11)),
        llama.wheel_folder({**one, "processor": "another"}, (3, 11)),
        llama.wheel_folder({**one, "version": "0.0.1"}, (3, 11)),
    }
    assert len(folders) == 5
    assert llama.wheel_folder(dict(one), (3, 11)) in folders


def test_only_a_whole_wheel_is_taken_from_the_cache(tmp_path: Path):
    wheel, cache = tmp_path / "llama_cpp_python-1-py3-none-any.whl", tmp_path / "cache"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llama_cpp/__init__.py", "x = 1\n" * 100)
    cache.mkdir()
    (cache / wheel.name).write_bytes(wheel.read_bytes()[:100])
    assert llama.find_wheel(cache) is None
    llama.keep_wheel(wheel, cache)
    assert llama.find_wheel(cache) == cache / wheel.name
    assert [path.name for path in cache.iterdir()] == [wheel.name]


def test_compile_jobs_fit_the_usable_cores():
    assert 1 <= llama.compile_jobs() <= (os.cpu_count() or 1)


# --- Progress -------------------------------------------------------------------------------------


def python_step(tmp_path: Path, code: str) -> tuple[int, list[str], str]:
    """Run Python code as a step; return its status, last lines and log."""
    step = progress.Step("Compiling", tmp_path / "setup.log", NO_LOCK)
    status, tail = step.run([sys.executable, "-c", code], dict(os.environ))
    return status, tail, (tmp_path / "setup.log").read_text(encoding="utf-8")


def test_a_compile_shows_a_line_every_ten_percent_and_logs_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code = "for n in range(1, 141): print(f'  [{n}/140] g++ file{n}.cpp')"
    status, _, log = python_step(tmp_path, code)
    shown = [line for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert status == 0
    assert len(shown) == 10
    assert "140 of 140" in shown[-1]
    assert all(f"file{n}.cpp" in log for n in range(1, 141))


def test_download_progress_is_shown_and_not_logged(tmp_path: Path):
    step = progress.Step("Installing", tmp_path / "setup.log", NO_LOCK)
    assert not step.read("  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.1 MB)")
    assert step.read("Progress 95000000 of 190100000")
    assert step.now == "downloading torch: 95 of 190 MB"


def test_a_failing_command_returns_its_last_lines(tmp_path: Path):
    status, tail, _ = python_step(tmp_path, "print('ERROR: no such thing'); raise SystemExit(3)")
    assert (status, tail) == (3, ["ERROR: no such thing"])


def test_an_interrupted_step_ends_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(_: progress.Step) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Step, "show", interrupt)
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']);"
        "open('pid', 'w').write(str(child.pid)); print('up', flush=True); child.wait()"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        python_step(tmp_path, code)
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    assert gone_within(pid, seconds=10)


def gone_within(pid: int, seconds: float) -> bool:
    """Say whether a process ends in time; one that nobody has waited for yet has ended."""
    for _ in range(int(seconds * 10)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            if stat.rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.1)
    return False


# --- Commands -------------------------------------------------------------------------------------


def test_make_lists_every_command_with_a_sentence():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    inner = {"setup", "setup-dev"}
    for target in set(re.search(r"\.PHONY: (.*)", makefile).group(1).split()) - inner:
        assert re.search(rf"make {target} +\S.*\.$", shown, re.MULTILINE), target


def test_ci_runs_the_readme_commands_and_ends_with_the_tests():
    script = ROOT / ".ci/run"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = [line.strip() for line in script.read_text(encoding="utf-8").splitlines()]
    assert lines[-2:] == ["make book", "make test"]
    assert os.access(script, os.X_OK)
