"""Write constraints.txt: what the pinned packages pull in, at the newest versions that fit.

Usage: .venv/bin/python tools/constraints.py   (make constraints)

pip resolves the requirements files without installing anything. The versions are those for the
Python and the machine that run this; on Linux, PyTorch is resolved with its CUDA libraries, so that
one file serves machines with and without a GPU.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_env.state import normalize, read_pins

ROOT = Path(__file__).resolve().parent.parent
LISTS = ("requirements.txt", "requirements-dev.txt")

# Nothing in the lists asks for these on Linux, yet set-up needs a version of each.
TOOLS = ("pip", "scikit-build-core", "cmake", "ninja")  # installs; compiles llama-cpp-python
ELSEWHERE = ("appnope",)  # ipykernel on macOS

HEADER = """\
# What the packages of requirements.txt and requirements-dev.txt pull in, at the versions that this
# book was tested with, and the tools that install and compile them. A constraint installs nothing:
# it says which version, wherever a package asks for one.
#
# Written by `make constraints`; run it after changing a pin. Don't edit by hand.

"""


def resolve() -> "dict[str, str]":
    """Return {name: version} of everything that an installation of the lists would bring.

    Raises
    ------
    subprocess.CalledProcessError
        If pip finds no set of versions that fits.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pins = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in LISTS)
        # "===" leaves out the builds with a suffix, such as 2.13.0+cpu, that lack CUDA's libraries.
        wanted = re.sub(r"^torch==", "torch===", pins, flags=re.MULTILINE)
        (folder / "wanted.txt").write_text(
            "\n".join((wanted, *TOOLS, *ELSEWHERE)), encoding="utf-8"
        )
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--dry-run",
                "--ignore-installed",
                "--quiet",
                "--report",
                str(folder / "report.json"),
                "-r",
                str(folder / "wanted.txt"),
            ],
            check=True,
        )
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        item["metadata"]["name"]: item["metadata"]["version"].split("+")[0]
        for item in report["install"]
    }


def main() -> None:
    """Write the file."""
    pinned = {name for file in LISTS for name in read_pins(ROOT / file)}
    rest = {name: version for name, version in resolve().items() if normalize(name) not in pinned}
    lines = [f"{name}=={rest[name]}\n" for name in sorted(rest, key=str.lower)]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"constraints.txt: {len(lines)} versions")


if __name__ == "__main__":
    main()
