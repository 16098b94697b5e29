"""What the requirements files want, what .venv holds, and the stamp that compares them."""

import hashlib
import json
import re
from pathlib import Path

from setup_env import output_of

# Which files decide what a layer of the environment holds.
LAYERS = {
    "book": ("requirements.txt", "constraints.txt", "pyproject.toml"),
    "dev": ("requirements.txt", "constraints.txt", "requirements-dev.txt"),
}


def read_pins(path: Path) -> "dict[str, str]":
    """Return {normalized name: version} of the exact pins in a requirements file."""
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", line)
        if match:
            pins[normalize(match.group(1))] = match.group(2)
    return pins


def pin(root: Path, name: str) -> str:
    """Return the version that the book pins of a package."""
    pins = read_pins(root / "constraints.txt")
    pins.update(read_pins(root / "requirements.txt"))
    return pins[name]


def normalize(name: str) -> str:
    """Return a package's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(venv: Path) -> "dict[str, str]":
    """Return {normalized name: version} of what is installed, without starting that Python."""
    found = {}
    for info in venv.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = info.name[: -len(".dist-info")].rpartition("-")
        found[normalize(name)] = version.split("+")[0]  # 2.13.0+cpu is 2.13.0
    return found


def outdated(root: Path, layers: "list[str]", here: "dict[str, str]") -> "list[str]":
    """Return what layers pin and isn't here, or is here in another version than the pin's."""
    wrong = set()
    for name in {name for layer in layers for name in LAYERS[layer]}:
        if name.startswith("requirements"):
            pins = read_pins(root / name)
            wrong.update(package for package in pins if here.get(package) != pins[package])
        elif name.startswith("constraints"):  # says which version, not that it is needed
            pins = read_pins(root / name)
            wrong.update(
                package for package in pins if here.get(package, pins[package]) != pins[package]
            )
    return sorted(wrong)


def fingerprint(root: Path, layer: str) -> str:
    """Return a hash of the files that decide what a layer holds."""
    digest = hashlib.sha256()
    for name in LAYERS[layer]:
        content = (root / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_stamp(root: Path) -> dict:
    """Return what set-up noted in .venv, or {} if there is nothing to go by."""
    try:
        stamp = json.loads((root / ".venv" / "setup.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(root: Path, stamp: dict) -> None:
    """Store the stamp in one step: it is the old one or the new one, never half of it."""
    part = root / ".venv" / "setup.json.part"
    part.write_text(json.dumps(stamp, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(root / ".venv" / "setup.json")


def interpreter(venv: Path) -> Path:
    """Return the path of an environment's Python."""
    return venv / "bin" / "python"


def python_version(python: str) -> "tuple[int, int] | None":
    """Return (major, minor) of a Python, or None if it doesn't start."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        major, minor = output_of([python, "-I", "-S", "-c", code]).split()
        return int(major), int(minor)
    except ValueError:
        return None


def has_pip(python: str) -> bool:
    """Say whether an environment's pip starts."""
    return output_of([python, "-I", "-m", "pip", "--version"], 60).startswith("pip ")
