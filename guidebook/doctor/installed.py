"""Which Python packages are installed, where, by whom, and whether they fit together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from guidebook.doctor.probe import Output, Probe

Place = Literal["environment", "user", "elsewhere"]

# Packages whose versions matter here, by their name on the package index.
WATCHED = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "safetensors",
    "accelerate",
    "bitsandbytes",
    "llama-cpp-python",
    "gguf",
    "flash-attn",
    "numpy",
)
# What conda calls them, where it differs.
CONDA_NAMES: Mapping[str, str] = {
    "pytorch": "torch",
    "libtorch": "torch",
    "pytorch-cuda": "torch",
    "pytorch-gpu": "torch",
    "pytorch-cpu": "torch",
    "huggingface_hub": "huggingface-hub",
}

_CODE = """# doctor: installed
import json, os, re, site, sys
from importlib import metadata

def plain(name):
    return re.sub(r"[-_.]+", "-", name or "").lower()

watched, user = WATCHED, os.path.realpath(site.getusersitepackages())
prefix = os.path.realpath(sys.prefix)
found, first, broken = [], {}, []
for one in metadata.distributions():
    name = plain(one.metadata["Name"])
    folder = os.path.realpath(str(one.locate_file("")))
    if os.path.basename(str(getattr(one, "_path", ""))).startswith("~"):
        broken.append(str(one._path))
        continue
    first.setdefault(name, one.version)
    if name in watched:
        place = "user" if folder == user else "elsewhere"
        if place != "user" and folder.startswith(prefix + os.sep):
            place = "environment"
        installer = (one.read_text("INSTALLER") or "").strip()
        found.append([name, one.version, place, installer])
conflicts = []
try:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
except ImportError:
    conflicts = None
else:
    for name in watched:
        if name not in first:
            continue
        for text in metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            have = first.get(plain(wanted.name))
            if have is None or not wanted.specifier.contains(have, prereleases=True):
                conflicts.append([name, first[name], wanted.name + str(wanted.specifier), have])
try:
    conda = sorted(os.listdir(os.path.join(sys.prefix, "conda-meta")))
except OSError:
    conda = []
conda = [name[:-5] for name in conda if name.endswith(".json")]
conda = [name.rsplit("-", 2) for name in conda if name.count("-") >= 2]
print(json.dumps({
    "distributions": found,
    "conflicts": conflicts,
    "broken": broken,
    "conda": conda,
    "user_site": bool(site.ENABLE_USER_SITE),
}))
"""


CODE = _CODE.replace("WATCHED", repr(WATCHED))


@dataclass(frozen=True)
class Distribution:
    """One installed package.

    Attributes
    ----------
    name
        Its normalized name, such as ``llama-cpp-python``.
    place
        In this environment, in the user's own folder, or in another one on the path.
    installer
        What put it there: ``pip``, ``conda``, ``uv``; empty if it did not say.
    """

    name: str
    version: str
    place: Place
    installer: str = ""


@dataclass(frozen=True)
class Conflict:
    """A package that does not get the version of another one that it wants.

    Attributes
    ----------
    wanted
        A requirement, such as ``tokenizers<0.24,>=0.22``.
    have
        The version that is installed; None if there is none.
    """

    name: str
    version: str
    wanted: str
    have: str | None


@dataclass(frozen=True)
class Installed:
    """The packages of a Python.

    Attributes
    ----------
    distributions
        The watched ones, in the order in which Python looks for them: of several with one name
        the first is imported.
    conflicts
        None if it could not be found out.
    broken
        Leftovers of an interrupted installation, as paths.
    conda
        The watched packages that conda installed: its name, the version, the build.
    user_site
        Whether Python also imports what ``pip install --user`` installed.
    """

    distributions: tuple[Distribution, ...] = ()
    conflicts: tuple[Conflict, ...] | None = ()
    broken: tuple[str, ...] = ()
    conda: tuple[tuple[str, str, str], ...] = ()
    user_site: bool = False

    def find(self, name: str) -> Distribution | None:
        """Return the package that is imported under a name of the package index."""
        return next((one for one in self.distributions if one.name == name), None)

    def version(self, name: str) -> str | None:
        """Return its version; None if it is not installed."""
        found = self.find(name)
        return found.version if found else None


def ask(probe: Probe) -> tuple[Output, Installed | None]:
    """Look at the packages of this Python.

    Returns
    -------
    The answer, and what it says; None if it says nothing.
    """
    output = probe.python(CODE)
    return output, parse(output)


def parse(output: Output) -> Installed | None:
    """Read the answer to :data:`CODE`."""
    try:
        data = json.loads(output.text.splitlines()[-1]) if output.ok and output.text else None
        if not isinstance(data, dict):
            return None
        conflicts = data["conflicts"]
        return Installed(
            distributions=tuple(Distribution(*row) for row in data["distributions"]),
            conflicts=None if conflicts is None else tuple(Conflict(*row) for row in conflicts),
            broken=tuple(data["broken"]),
            conda=tuple(
                (name, number, build)
                for name, number, build in data["conda"]
                if CONDA_NAMES.get(name, name) in WATCHED
            ),
            user_site=bool(data["user_site"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
