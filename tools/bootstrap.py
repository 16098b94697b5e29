#!/usr/bin/env python3
"""Make the book's environment in .venv, once, and say what happens.

Usage: python3 tools/bootstrap.py [--dev]

Whatever can fail is looked at first, before anything is installed: Python, compiler, disk, network.
A stamp in .venv remembers what is installed. While it fits the requirements files, this program
returns at once and prints nothing.

Standard library only. The syntax stays at Python 3.6 and the output in ASCII, so that a Python that
is too old for the book gets a sentence and not a SyntaxError.
"""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator  # noqa: UP035 - collections.abc.Iterator[None] is Python 3.9

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a check that fails leaves nothing behind

from setup_env import Problem, checks, llama, state
from setup_env.progress import Step, clock

ROOT = Path(__file__).resolve().parent.parent


class Setup:
    """One run of set-up in one project folder."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self.lock = lock
        self.venv = root / ".venv"
        self.scratch = self.venv / "setup-tmp"  # on the book's disk: /tmp is often small
        self.log = self.venv / "setup.log"
        self.python = str(state.interpreter(self.venv))
        self.stamp = state.read_stamp(root)
        self.llama = llama.wanted(root, self.stamp)

    def run(self, layers: "list[str]") -> None:
        """Bring the layers up to date.

        Raises
        ------
        Problem
            With a sentence for each thing that stands in the way.
        """
        began = time.time()
        reusable = self.is_reusable()
        if reusable:
            self.tidy()
        here = state.installed(self.venv) if reusable else {}
        wanted = state.outdated(self.root, layers, here)
        llama_fits = (
            here.get("llama-cpp-python") == self.llama["version"]
            and self.stamp.get("llama") == self.llama
        )
        compiles = not llama_fits and not llama.find_wheel(self.wheel_folder())

        with tempfile.TemporaryDirectory() as folder:
            if wanted or compiles:
                print("Checking this machine before anything is installed.", flush=True)
                self.check(reusable, compiles, Path(folder))
            if not reusable:
                self.make_venv()
            self.mark_unfinished(layers)
            if state.installed(self.venv).get("pip") != state.pin(self.root, "pip"):
                # A wheel of pip can run itself. The pip that came with Python is often too old.
                wheel = next(Path(folder).glob("pip-*.whl"))
                arguments = ["--no-index", "--no-deps", str(wheel)]
                self.pip("Preparing pip", arguments, program=(str(wheel / "pip"),))
        if "book" in layers:
            self.install_book(wanted, llama_fits)
        if "dev" in layers and wanted:
            self.pip("Installing what the tests need", ["-r", self.file("requirements-dev.txt")])
        if wanted or not llama_fits:
            self.try_imports()
        self.stamp["layers"].update(
            (layer, state.fingerprint(self.root, layer)) for layer in layers
        )
        state.write_stamp(self.root, self.stamp)
        shutil.rmtree(str(self.scratch), ignore_errors=True)
        print(f"The environment in .venv is ready ({clock(time.time() - began)}).\n", flush=True)

    def file(self, name: str) -> str:
        """Return the full path of one of the project's files."""
        return str(self.root / name)

    def is_reusable(self) -> bool:
        """Say whether .venv is a working environment of this folder.

        Raises
        ------
        Problem
            If something else lies there: set-up deletes nothing that it may not have made.
        """
        if not self.venv.exists():
            return False
        names = {path.name for path in self.venv.iterdir()} if self.venv.is_dir() else {"a file"}
        if names and not names & {"pyvenv.cfg", "setup.json"}:
            raise Problem(f"{self.venv} is there and is no Python environment: move it away")
        version = state.python_version(self.python)
        return (
            version is not None
            and checks.OLDEST <= version <= checks.NEWEST
            and self.stamp.get("root", str(self.root)) == str(self.root)
            and self.stamp.get("python", list(version)) == list(version)
            and state.has_pip(self.python)
        )

    def tidy(self) -> None:
        """Clear what an interrupted run left half installed, so that pip installs it again."""
        shutil.rmtree(str(self.scratch), ignore_errors=True)
        for site in self.venv.glob("lib/python*/site-packages"):
            for path in site.iterdir():
                # pip writes INSTALLER last; "~" starts the name of what it was about to remove.
                unfinished = path.suffix == ".dist-info" and not (path / "INSTALLER").exists()
                if unfinished or path.name.startswith("~"):
                    shutil.rmtree(str(path), ignore_errors=True)

    def wheel_folder(self) -> Path:
        """Return where the compiled llama.cpp is kept for this user."""
        version = state.python_version(self.python) if self.venv.exists() else None
        return llama.wheel_folder(self.llama, version or sys.version_info[:2])

    def check(self, reusable: bool, compiles: bool, folder: Path) -> None:
        """Look for everything that can fail; leave set-up's own pip as a wheel in a folder.

        Raises
        ------
        Problem
            With one sentence for each thing that is wrong.
        """
        problems = [checks.check_platform(), checks.check_venv_module()]
        if compiles:
            problems.append(checks.check_compiler())
        problems.append(checks.check_disk(self.root, "cpu"))
        found = [problem for problem in problems if problem]
        if found:
            raise Problem("\n".join(found))
        python = self.python
        if not reusable:  # pip is needed to ask the index: borrow one that is thrown away
            python = checks.make_environment(folder / "venv")
        offered = checks.ask_index(python, self.root, folder)
        if checks.is_cuda_build(offered):
            gpu = llama.has_nvidia_gpu()
            problem = checks.check_disk(self.root, "cuda")
            if problem and not gpu:
                problem += f" (or take the smaller build: {checks.CPU_TORCH})"
            if problem:
                raise Problem(problem)
            if not gpu and "torch" not in state.installed(self.venv):
                print(
                    "No NVIDIA GPU is found, and pip offers PyTorch for one (2.7 GB to download). "
                    f"For the small\nbuild, press Ctrl-C and type: {checks.CPU_TORCH}",
                    flush=True,
                )

    def make_venv(self) -> None:
        """Make .venv, in place of one that doesn't work."""
        if self.venv.exists():
            print("Replacing .venv: its Python is gone or broken, or the folder was moved.")
        elif self.venv.is_symlink():
            self.venv.unlink()  # it leads nowhere
        print(
            "Setting up the book in .venv, once. If it is interrupted, the same command goes on.\n"
            "All output is kept in .venv/setup.log.",
            flush=True,
        )
        self.venv.mkdir(exist_ok=True)
        self.stamp = {}
        state.write_stamp(self.root, self.stamp)  # first and last: whatever is here is set-up's
        for path in self.venv.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            elif path.name != "setup.json":
                path.unlink()
        checks.make_environment(self.venv)

    def mark_unfinished(self, layers: "list[str]") -> None:
        """Note whose environment this is, and that these layers of it are not complete."""
        self.scratch.mkdir(exist_ok=True)
        done = self.stamp.get("layers", {})
        self.stamp["root"] = str(self.root)
        self.stamp["python"] = list(state.python_version(self.python) or ())
        self.stamp["layers"] = {name: done[name] for name in done if name not in layers}
        state.write_stamp(self.root, self.stamp)

    def install_book(self, wanted: "list[str]", llama_fits: bool) -> None:
        """Install what every reader needs: PyTorch, llama.cpp, the rest, this project."""
        if "torch" in wanted:
            self.pip("Installing PyTorch", ["torch==" + state.pin(self.root, "torch")])
        if not llama_fits:
            wheel = llama.find_wheel(self.wheel_folder()) or self.compile_llama()
            self.pip("Installing llama.cpp", ["--force-reinstall", "--no-deps", str(wheel)])
            self.stamp["llama"] = self.llama
            state.write_stamp(self.root, self.stamp)
        if wanted:
            self.pip("Installing the other packages", ["-r", self.file("requirements.txt")])
        self.pip(
            "Installing the book's own package",
            ["--no-deps", "--no-build-isolation", "-e", str(self.root)],
        )

    def compile_llama(self) -> Path:
        """Compile llama.cpp for this machine; return the wheel, kept for the next environment."""
        build = llama.build_environment(self.llama)
        jobs = int(build["CMAKE_BUILD_PARALLEL_LEVEL"])
        cuda = llama.uses_cuda(self.llama)
        if not cuda and llama.has_nvidia_gpu():
            print(
                "  An NVIDIA GPU is here and CUDA's compiler, nvcc, is not: llama.cpp will use the "
                "processor alone.\n  To change that, install the CUDA toolkit and run make again.",
                flush=True,
            )
        low, high = (40, 120) if cuda else (11, 30)  # minutes of work for one core
        self.pip(
            "Compiling llama.cpp for this machine, once: {} to {} minutes on {} core{}".format(
                max(1, low // jobs), max(3, -(-high // jobs)), jobs, "s" if jobs > 1 else ""
            ),
            [
                "-v",
                "--no-cache-dir",
                "--no-deps",
                "-w",
                str(self.scratch),
                "--build-constraint",
                self.file("constraints.txt"),
                "llama-cpp-python==" + self.llama["version"],
            ],
            "wheel",
            build,
        )
        wheel = next(self.scratch.glob("llama_cpp_python-*.whl"))
        try:
            llama.keep_wheel(wheel, self.wheel_folder())
        except OSError as error:
            print(f"  The compiled wheel can't be kept for next time: {error}")
        return wheel

    def pip(
        self,
        title: str,
        arguments: "list[str]",
        command: str = "install",
        build: "dict[str, str] | None" = None,
        program: "tuple[str, ...]" = ("-m", "pip"),
    ) -> None:
        """Run one pip command, under the book's pins, as a step.

        Raises
        ------
        Problem
            If pip fails. Its last words are printed before.
        """
        step = Step(title, self.log, self.lock)
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "raw"]
        pins = ["-c", self.file("requirements.txt"), "-c", self.file("constraints.txt")]
        status, tail = step.run(
            [self.python, *program, command, *options, *pins, *arguments],
            dict(checks.pip_environment(), TMPDIR=str(self.scratch), **(build or {})),
        )
        if status != 0:
            print("\n".join("    " + line for line in tail[-15:]), file=sys.stderr)
            raise Problem(self.explain_pip(title, "\n".join(tail)))
        step.done()

    def explain_pip(self, title: str, text: str) -> str:
        """Turn the end of pip's output into one sentence."""
        again = "type the same command again, what is done stays done (all output: .venv/setup.log)"
        if re.search(r"No space left on device|Errno 28", text):
            return f"the disk is full: free some space, then {again}"
        if re.search(r"signal terminated program|[Oo]ut of memory", text):
            return (
                "the compiler ran out of memory: close other programs, then type: "
                "CMAKE_BUILD_PARALLEL_LEVEL=1 make book"
            )
        if re.search(r"ConnectionError|Max retries|timed out|NameResolution|broken by", text):
            return f"the network failed in '{title}': {again}"
        if llama.uses_cuda(self.llama) and title.startswith("Compiling"):
            return (
                "llama.cpp can't be compiled with CUDA here: update the CUDA toolkit, or build for "
                f"the processor alone: CMAKE_ARGS={llama.MINIMAL_BUILD} make book"
            )
        return f"'{title}' failed as shown above: mend that, then {again}"

    def try_imports(self) -> None:
        """Load the compiled packages once: what can't be loaded should be known now.

        Raises
        ------
        Problem
            With the last line of Python's complaint.
        """
        step = Step("Loading PyTorch and llama.cpp, as a trial", self.log, self.lock)
        code = "import torch, llama_cpp, guidebook"
        status, tail = step.run([self.python, "-c", code], checks.pip_environment())
        if status != 0:
            reason = tail[-1] if tail else f"status {status}"
            raise Problem(
                f"the installed packages don't load ({reason}): delete .venv and type the same "
                "command again"
            )
        step.done()


def stale_layers(root: Path, layers: "list[str]") -> "list[str]":
    """Return the layers that need work; all of them if .venv isn't ours, here and working."""
    stamp = state.read_stamp(root)
    python = state.interpreter(root / ".venv")
    version = state.python_version(str(python)) if stamp else None
    if (
        version is None
        or stamp.get("python") != list(version)
        or stamp.get("root") != str(root)
        or stamp.get("llama") != llama.wanted(root, stamp)
    ):
        return layers
    done = stamp.get("layers", {})
    return [layer for layer in layers if done.get(layer) != state.fingerprint(root, layer)]


@contextlib.contextmanager
def only_one(root: Path) -> "Iterator[int]":
    """Hold this folder's lock, so that two set-ups don't fill one .venv; wait if it is taken.

    The open file that is yielded carries the lock. A pip that inherits it keeps the lock where
    set-up itself was killed, so that the next set-up doesn't work beside it.
    """
    descriptor = os.open(str(root), os.O_RDONLY)  # the folder itself: leaves no file behind
    told = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    print("Another set-up is at work in this folder: waiting for it.", flush=True)
                told = True
                time.sleep(0.5)
            except OSError:  # a file system without locks
                break
        yield descriptor
    finally:
        os.close(descriptor)


def interrupt(*_: object) -> None:
    """Treat a polite end and a closed terminal like Ctrl-C: what was started ends as well."""
    raise KeyboardInterrupt


def main(arguments: "list[str] | None" = None) -> int:
    """Run set-up and return the exit status."""
    parser = argparse.ArgumentParser(description="Make the book's environment in .venv.")
    parser.add_argument("--dev", action="store_true", help="also install what make test needs")
    layers = ["book", "dev"] if parser.parse_args(arguments).dev else ["book"]
    try:
        if not stale_layers(ROOT, layers):
            return 0
        python = checks.choose_python()
        if state.python_version(python) != tuple(sys.version_info[:2]):
            print("python3 is {}.{}; going on with {}.".format(*sys.version_info[:2], python))
            sys.stdout.flush()
            given = sys.argv[1:] if arguments is None else arguments
            os.execv(python, [python, str(Path(__file__).resolve()), *given])
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        with only_one(ROOT) as lock:
            layers = stale_layers(ROOT, layers)
            if layers:
                Setup(ROOT, lock).run(layers)
    except Problem as problem:
        for sentence in str(problem).splitlines():
            print(f"Set-up stopped: {sentence}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
