"""Raise every pin to the newest releases that fit together, in place.

    python .github/scripts/newest_pins.py

The weekly run with the newest releases calls this on a throw-away checkout, where ``git diff``
then shows what was tried. By hand it proposes the next set of pins. ``requirements-gpu.txt`` is
left alone: what it lists can only be resolved beside a CUDA toolkit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOTS = ("requirements.txt", "requirements-dev.txt")
PINNED = (*ROOTS, "constraints.txt", "environment.yml")
# "numpy==2.4.6" of pip, "  - numpy=2.4.6" of conda.
PIN = re.compile(
    r"^(?P<lead>\s*(?:-\s+)?)(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<extras>\[[^\]]*\])?"
    r"(?P<sign>==?)(?P<version>[^\s;,#=]+)"
)
KEEP_MAJOR = {
    # Jupyter Book 2 renames _config.yml and _toc.yml and fetches its theme from the network;
    # version 1 in turn fixes the range of Sphinx.
    "jupyter-book",
    "sphinx",
}
RESOLVE_SECONDS = 900


def normalized(name: str) -> str:
    """Return a package's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def loosened(line: str) -> str:
    """Return a pin as a lower bound, without its comment; other lines come back unchanged."""
    pin = PIN.match(line)
    if pin is None:
        return line
    version = pin["version"]
    bound = f">={version}"
    if normalized(pin["name"]) in KEEP_MAJOR:
        bound += f",<{int(version.split('.')[0]) + 1}"
    marker = line[pin.end() :].split("#")[0].rstrip()
    return f"{pin['name']}{pin['extras'] or ''}{bound}{marker}"


def repinned(line: str, versions: Mapping[str, str]) -> str:
    """Return a line with its pin raised; a package without a new version keeps its own."""
    pin = PIN.match(line)
    version = pin and versions.get(normalized(pin["name"]))
    if not version or version == pin["version"]:
        return line
    rest = line[pin.end() :]
    # Keep comments in their column where there is room.
    grown = len(version) - len(pin["version"])
    blanks = len(rest) - len(rest.lstrip(" "))
    if blanks > 1:
        rest = " " * max(1, blanks - grown) + rest.lstrip(" ")
    return f"{line[: pin.start('version')]}{version}{rest}"


def resolve(requirements: Sequence[str]) -> dict[str, str]:
    """Ask pip for the newest versions that fit together; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--no-input", "--report", str(report), "-r", str(wanted)]
        subprocess.run(command, check=True, timeout=RESOLVE_SECONDS)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    # The local part, as in 2.13.0+cpu, names a build and not a release.
    return {
        normalized(item["metadata"]["name"]): item["metadata"]["version"].split("+")[0]
        for item in items
    }


def main(root: Path) -> None:
    """Raise the pins of a checkout."""
    lines = [line for name in ROOTS for line in (root / name).read_text("utf-8").splitlines()]
    versions = resolve([loosened(line) for line in lines])
    for name in PINNED:
        path = root / name
        text = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{repinned(line, versions)}\n" for line in text), "utf-8")


if __name__ == "__main__":
    main(Path())
