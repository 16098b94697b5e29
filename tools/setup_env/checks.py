"""Everything that can fail, looked at before anything is installed.

Each check returns a sentence that says what is wrong and what to type, or None.
"""

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_env import Problem, output_of
from setup_env.state import interpreter, pin, python_version

OLDEST = (3, 11)
NEWEST = (3, 14)  # PyTorch and others publish no build for a newer one yet

# For Linux x86-64, rounded up. "peak" is the most that .venv was measured to take while it fills,
# with downloads and the compiler's files. "cache" is what pip may keep of them in the home folder.
GB = 1000**3
DISK = {
    "cpu": {"peak": 2.5 * GB, "cache": 0.7 * GB},
    "cuda": {"peak": 8.0 * GB, "cache": 3.2 * GB},
}
SPARE = 0.3 * GB  # a disk filled to the last byte breaks other programs

CPU_TORCH = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make book"

# What llama.cpp asks of a compiler: the C library, C++17 and its library.
TRIALS = {
    "c": ((), '#include <stdio.h>\nint main(void)\n{ return puts("ok") < 0; }\n'),
    "c++": (
        ("-std=c++17",),
        '#include <filesystem>\nint main()\n{ return std::filesystem::path("ok").empty(); }\n',
    ),
}


def choose_python() -> str:
    """Return a Python that can run the book: this one, or a newer one on PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        # Inside an environment, start from the Python behind it: .venv may be about to be replaced.
        return str(getattr(sys, "_base_executable", None) or sys.executable)
    # 3.14 last: the fewest packages have been through it.
    for minor in (13, 12, 11, 14):
        found = shutil.which(f"python3.{minor}")
        if found and python_version(found) == (3, minor):
            return found
    raise Problem(
        "the book needs Python {}.{} to {}.{}, and this is {}.{}: {}, or name one that you have: "
        "make book PYTHON=/path/to/python3.12".format(
            *(OLDEST + NEWEST + tuple(sys.version_info[:2])), how_to_get("python")
        )
    )


def how_to_get(what: str) -> str:
    """Return the command that installs 'python', 'venv' or 'compiler' on this system."""
    commands = {
        "debian": {
            "python": "sudo apt install python3.11 python3.11-venv",
            "venv": "sudo apt install python{}.{}-venv".format(*sys.version_info[:2]),
            "compiler": "sudo apt install build-essential",
        },
        "fedora": {
            "python": "sudo dnf install python3.12",
            "compiler": "sudo dnf install gcc gcc-c++ make",
        },
        "suse": {
            "python": "sudo zypper install python311",
            "compiler": "sudo zypper install gcc gcc-c++ make",
        },
        "arch": {"compiler": "sudo pacman -S base-devel"},
        "macos": {"python": "brew install python@3.12", "compiler": "xcode-select --install"},
    }
    command = commands.get(system_family(), {}).get(what)
    if command and not (what == "python" and sys.version_info[:2] > NEWEST):
        return "type: " + command
    return {
        "python": "install Python 3.12, python.org has it",
        "venv": "install Python's modules venv and ensurepip",
        "compiler": "install a C and C++ compiler and make",
    }[what]


def system_family() -> str:
    """Return 'macos', 'debian', 'fedora', 'arch', 'suse', or '' where it is none of them."""
    if sys.platform == "darwin":
        return "macos"
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    names = re.findall(r"^ID(?:_LIKE)?=\"?([^\"\n]*)", text, re.MULTILINE)
    words = " ".join(names).replace("rhel", "fedora").replace("ubuntu", "debian").split()
    for family in ("debian", "fedora", "arch", "suse"):
        if any(word.startswith(family) or word == "open" + family for word in words):
            return family
    return ""


def check_platform() -> "str | None":
    """Return what is wrong with this kind of machine, or None."""
    kind = (sys.platform, platform.machine().lower())
    if kind == ("darwin", "x86_64"):
        return "PyTorch has no build for Macs with Intel processors any more: use another machine"
    if kind[0] == "linux" and platform.libc_ver()[0] != "glibc":
        return (
            "PyTorch needs the C library glibc, which this Linux (Alpine?) lacks: use another one"
        )
    if kind[0] not in ("linux", "darwin") or kind[1] not in ("x86_64", "aarch64", "arm64"):
        return "the book runs on Linux, WSL2 and macOS with 64-bit x86 or ARM, not on {} {}".format(
            *kind
        )
    return None


def check_venv_module() -> "str | None":
    """Return what Python lacks to make environments, or None. Debian packages that apart."""
    code = "import ensurepip, venv; print(ensurepip.version())"
    if output_of([choose_python(), "-I", "-c", code]):
        return None
    return f"this Python can't make environments: {how_to_get('venv')}"


def make_environment(folder: Path) -> str:
    """Make an environment with pip, and return its Python.

    Raises
    ------
    Problem
        With what Python's module venv has to say.
    """
    made = subprocess.run(
        [choose_python(), "-I", "-m", "venv", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if made.returncode != 0:
        words = " ".join(made.stdout.decode("utf-8", "replace").split())[:200]
        raise Problem(f"Python can't make an environment ({words}): {how_to_get('venv')}")
    return str(interpreter(folder))


def find_compiler(variable: str, names: "tuple[str, ...]") -> "list[str] | None":
    """Return the compiler's command, from an environment variable or PATH, as CMake would."""
    command = shlex.split(os.environ.get(variable, ""))
    if command:
        return command
    for name in names:
        if shutil.which(name):
            return [name]
    return None


def check_compiler() -> "str | None":
    """Return what is wrong with the compilers and make, or None."""
    fix = how_to_get("compiler")
    c = find_compiler("CC", ("cc", "gcc", "clang"))
    cxx = find_compiler("CXX", ("c++", "g++", "clang++"))
    missing = [
        name
        for name, found in (
            ("C compiler", c),
            ("C++ compiler", cxx),
            ("make", shutil.which("make")),
        )
        if not found
    ]
    if missing:
        return "llama.cpp is compiled here, and there is no {}: {}".format(
            " and no ".join(missing), fix
        )
    for command, language in ((c, "c"), (cxx, "c++")):
        failure = try_compiler(command, language)
        if failure:
            return (
                f"the compiler {command[0]} can't build a {language.upper()} program of three "
                f"lines ({failure}): {fix}"
            )
    return None


def try_compiler(command: "list[str]", language: str) -> str:
    """Compile and link a program of three lines; return the reason for a failure, or ''."""
    options, program = TRIALS[language]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*command, "-x", language, *options, "-o", str(Path(folder) / "trial"), "-"],
                input=program.encode("utf-8"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=120,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
    if done.returncode == 0:
        return ""
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if "error" in line]
    return (errors + lines + [f"exit status {done.returncode}"])[0]


def check_disk(root: Path, build: str) -> "str | None":
    """Return a sentence if the disk is too small for what is still to come, or None."""
    there = size_of(root / ".venv")
    need = {}  # type: dict[int, list]
    for folder, wanted in (
        (root, max(0.5 * GB, DISK[build]["peak"] - there)),
        (Path.home(), DISK[build]["cache"] if there < GB else 0),
    ):
        while not folder.exists():
            folder = folder.parent
        entry = need.setdefault(folder.stat().st_dev, [folder, SPARE])
        entry[1] += wanted
    for folder, wanted in need.values():
        free = shutil.disk_usage(str(folder)).free
        if free < wanted:
            return (
                f"set-up needs {wanted / GB:.1f} GB of disk space in {folder}, and "
                f"{free / GB:.1f} GB are free: delete {(wanted - free) / GB + 0.05:.1f} GB of "
                "other files, or clone the book to a larger disk"
            )
    return None


def size_of(folder: Path) -> int:
    """Return the bytes that a folder's files take."""
    total = 0
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total


def ask_index(python: str, root: Path, folder: Path) -> dict:
    """Fetch set-up's own pip into a folder, and return what pip reports on PyTorch.

    Everything goes through pip, so that configured indexes, proxies and certificates count.

    Raises
    ------
    Problem
        If the index can't be reached, or lacks one of the two.
    """
    common = ["--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "20"]
    pip = "pip==" + pin(root, "pip")
    run_check(
        [
            python,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "-d",
            str(folder),
            pip,
            *common,
        ]
    )
    wheel = next(folder.glob("pip-*.whl"))
    report = folder / "report.json"
    torch = "torch==" + pin(root, "torch")
    run_check(
        [
            python,
            str(wheel / "pip"),
            "install",
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
            "--only-binary",
            "torch",
            "--report",
            str(report),
            torch,
            *common,
        ]
    )
    return json.loads(report.read_text(encoding="utf-8"))["install"][0]


def is_cuda_build(torch: dict) -> bool:
    """Say whether pip's report describes a PyTorch that brings NVIDIA's libraries."""
    if sys.platform != "linux" or "+cpu" in torch["metadata"]["version"]:
        return False
    needs = torch["metadata"].get("requires_dist") or []
    return any(need.startswith(("nvidia", "cuda")) for need in needs)


def run_check(command: "list[str]") -> None:
    """Run one pip command of the network check, with a time limit.

    Raises
    ------
    Problem
        With the reason for its failure.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=pip_environment(),
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        raise Problem(explain_network("timed out")) from None
    if done.returncode != 0:
        raise Problem(explain_network(done.stdout.decode("utf-8", "replace")))


def explain_network(text: str) -> str:
    """Turn pip's complaint about the package index into one sentence."""
    looking = re.search(r"Looking in indexes: (\S+?)(?:,|\s|$)", text)
    host = re.search(r"host='([^']+)'", text)
    index = looking.group(1) if looking else host.group(1) if host else "pypi.org"
    index = re.sub(r"//[^/@]*@", "//", index)  # a password in the address stays out of sight
    reasons = (
        ("CERTIFICATE_VERIFY_FAILED|SSLError", "its certificate is not accepted here",
         "point PIP_CERT at your network's certificate file"),
        ("ProxyError|407 ", "the proxy refuses", "check HTTPS_PROXY"),
        ("401 |403 ", "it refuses access", "check the index that pip is configured with"),
        ("NameResolution|Name or service|nodename|Temporary failure", "its name is not found",
         "connect to the internet, or set PIP_INDEX_URL to a mirror that you can reach"),
        ("refused|[Tt]imed? ?out|unreachable|[Cc]onnection", "no connection",
         "connect to the internet, or set PIP_INDEX_URL to a mirror that you can reach"),
    )  # fmt: skip
    for pattern, reason, fix in reasons:
        if re.search(pattern, text):
            return f"pip can't reach the package index {index} ({reason}): {fix}"
    errors = [line[7:].strip() for line in text.splitlines() if line.startswith("ERROR: ")]
    return "the package index {} lacks what the book needs ({}): check pip's configuration".format(
        index, errors[-1] if errors else " ".join(text.split())[-200:]
    )


def pip_environment() -> "dict[str, str]":
    """Return the environment for pip: the reader's, less what would install elsewhere."""
    environment = dict(os.environ, PIP_USER="0", PYTHONNOUSERSITE="1", PYTHONUNBUFFERED="1")
    for name in (
        "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_QUIET",
        "PIP_LOG", "PIP_PROGRESS_BAR", "PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__",
    ):  # fmt: skip
        environment.pop(name, None)
    return environment
