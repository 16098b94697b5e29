"""Checks of Python itself: its version, its environment, and what is mixed into it."""

from __future__ import annotations

from guidebook.doctor import environment, installed
from guidebook.doctor.checks.pytorch import torch_again
from guidebook.doctor.facts import Facts
from guidebook.doctor.installed import CONDA_NAMES, Distribution, Installed
from guidebook.doctor.model import (
    HERE,
    POWERSHELL,
    Check,
    Early,
    Evidence,
    Finding,
    Fix,
    could_not_tell,
    quote,
)
from guidebook.doctor.nvidia import version
from guidebook.doctor.probe import Probe
from guidebook.doctor.torch_builds import dotted

# The book's pinned packages have wheels for these.
OLDEST, NEWEST = (3, 11), (3, 14)
SUGGESTED = "3.12"
_ASKED = "importlib.metadata"


def _version(probe: Probe, facts: Facts) -> Finding:
    check = "python.version"
    text = probe.platform().python
    found = (version(text) or ())[:2]
    seen = (Evidence("sys.version", text or "(nothing)"),)
    if not found:
        return Finding(check, "could not tell", "Python does not say its version.", seen)
    span = f"{dotted(OLDEST)} to {dotted(NEWEST)}"
    if found < OLDEST:
        summary = f"Python {text} is too old: the book needs {span}."
        return Finding(check, "problem", summary, seen, fix=_new_environment(probe, facts))
    if found > NEWEST:
        summary = f"Python {text} is newer than the book's packages: they have wheels for {span}."
        return Finding(check, "warning", summary, seen, fix=_new_environment(probe, facts))
    return Finding(check, "ok", f"Python {text}.", seen)


def _architecture(probe: Probe, facts: Facts) -> Finding:
    check = "python.architecture"
    platform = probe.platform()
    seen = (Evidence("platform.machine()", f"{platform.machine}, {platform.bits} bits"),)
    if platform.bits < 64:
        summary = f"This Python has {platform.bits} bits: no package for AI exists for it."
        return Finding(check, "problem", summary, seen, fix=_new_environment(probe, facts))
    if facts.os == "macos-rosetta":
        summary = "This Python is built for Intel and runs under Rosetta on an Apple chip."
        return Finding(check, "problem", summary, seen, fix=_new_environment(probe, facts))
    return Finding(check, "ok", f"Python is built for {platform.machine}.", seen)


def _environment(probe: Probe, facts: Facts) -> Finding:
    check = "python.environment"
    platform = probe.platform()
    found = environment.find(probe, facts)
    seen = (
        Evidence("sys.prefix", platform.prefix),
        Evidence("sys.base_prefix", platform.base_prefix),
    )
    virtual = probe.environment("VIRTUAL_ENV")
    conda = probe.environment("CONDA_PREFIX")
    active = virtual or conda
    if active and platform.prefix not in (virtual, conda):
        return Finding(
            check,
            "warning",
            "This Python does not belong to the environment that is active: "
            "pip installs into another one.",
            (*seen, Evidence("$VIRTUAL_ENV or $CONDA_PREFIX", active)),
            fix=Fix(
                "Leave the active environment, or call pip through this Python.",
                (f"{found.python} -m pip --version",),
                found.shell,
            ),
        )
    if found.kind == "venv":
        return Finding(check, "ok", "A virtual environment (venv).", seen)
    if found.kind == "conda" and not probe.exists(f"{platform.prefix}/condabin"):
        return Finding(check, "ok", f"The conda environment {found.name}.", seen)
    if facts.container:
        return Finding(check, "ok", "A container, which is an environment of its own.", seen)
    what = {
        "conda": "conda's base environment, which conda itself needs",
        "system": "the operating system's own",
    }.get(found.kind, "used without an environment")
    summary = f"This Python is {what}: packages of all projects end up in it."
    return Finding(check, "warning", summary, seen, fix=_own_environment(found))


def _conda_and_pip(probe: Probe, facts: Facts) -> Finding:
    check = "python.conda-and-pip"
    found = environment.find(probe, facts)
    if found.kind != "conda":
        return Finding(check, "not applicable", "This Python is not conda's.")
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, output)
    twice = _twice(packages)
    if not twice:
        return Finding(check, "ok", "No package comes from conda and pip both.")
    seen = tuple(
        quote(
            "conda-meta and INSTALLER", f"conda: {' '.join(conda)}; pip: {one.name} {one.version}"
        )
        for conda, one in twice
    )
    names = sorted({one.name for _, one in twice})
    summary = (
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} installed by conda and by pip."
    )
    if "torch" not in names:
        return Finding(check, "warning", summary, seen, fix=_conda_wins(found, twice))
    return Finding(check, "problem", summary, seen, fix=torch_again(found, facts, packages))


def _user_site(probe: Probe, facts: Facts) -> Finding:
    check = "python.user-site"
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, output)
    if not packages.user_site:
        return Finding(check, "ok", "Python ignores the user's own package folder.")
    found = environment.find(probe, facts)
    mixed = [one for one in packages.distributions if one.place == "user"]
    if not mixed or found.kind not in ("venv", "conda"):
        return Finding(check, "ok", "No package of the book comes from the user's own folder.")
    names = [f"{one.name} {one.version}" for one in mixed]
    hidden = [
        one
        for one in packages.distributions
        if one.place == "environment" and packages.find(one.name) in mixed
    ]
    verb = "comes" if len(names) == 1 else "come"
    summary = f"{_listed(names)} {verb} from the user's own folder (pip install --user)"
    if hidden:
        others = _listed([f"{one.name} {one.version}" for one in hidden])
        summary += f" and {'hides' if len(names) == 1 else 'hide'} {others}"
    return Finding(
        check,
        "problem" if hidden else "warning",
        summary + ".",
        tuple(quote("site.getusersitepackages()", name) for name in names),
        fix=_without_user_site(found),
    )


def _leftovers(probe: Probe, facts: Facts) -> Finding:
    check = "python.leftovers"
    output, packages = installed.ask(probe)
    if packages is None:
        return could_not_tell(check, _ASKED, output)
    if not packages.broken:
        return Finding(check, "ok", "No installation was interrupted.")
    windows = facts.os == "windows"
    command = "Remove-Item -Recurse" if windows else "rm -r"
    return Finding(
        check,
        "warning",
        f"{len(packages.broken)} interrupted installation(s) left something behind.",
        tuple(Evidence(_ASKED, path) for path in packages.broken),
        fix=Fix(
            "Remove what is left; then install the package again if it is missing.",
            tuple(f"{command} '{path}'" for path in packages.broken),
            POWERSHELL if windows else HERE,
        ),
    )


def _twice(packages: Installed) -> list[tuple[tuple[str, str, str], Distribution]]:
    return [
        (conda, one)
        for conda in packages.conda
        for one in packages.distributions
        if one.name == CONDA_NAMES.get(conda[0], conda[0])
        and one.place == "environment"
        and one.installer not in ("", "conda")
    ]


def _conda_wins(
    found: environment.Environment, twice: list[tuple[tuple[str, str, str], Distribution]]
) -> Fix:
    names = sorted({one.name for _, one in twice})
    specs = " ".join(sorted({f"{conda[0]}={conda[1]}" for conda, _ in twice}))
    return Fix(
        "Keep conda's: remove pip's, then let conda write its own files again.",
        (
            f"{found.pip} uninstall --yes {' '.join(names)}",
            f"conda install {found.option} --force-reinstall --yes {specs}",
        ),
        found.shell,
    )


def _without_user_site(found: environment.Environment) -> Fix:
    if found.kind == "conda":
        commands = (f"conda env config vars set {found.option} PYTHONNOUSERSITE=1",)
    elif found.windows:
        commands = ("setx PYTHONNOUSERSITE 1",)
    else:
        commands = ("export PYTHONNOUSERSITE=1",)
    text = "Let this environment ignore the user's own package folder; then activate it again."
    return Fix(text, commands, found.shell)


def _own_environment(found: environment.Environment) -> Fix:
    text = "Make an environment in the book's folder, and work in it."
    if found.kind == "conda":
        commands: tuple[str, ...] = (
            "conda env create --file environment.yml",
            "conda activate guidebook",
        )
        return Fix(text, commands, found.shell)
    if found.windows:
        return Fix(
            text, (f"{found.python} -m venv .venv", ".venv\\Scripts\\Activate.ps1"), POWERSHELL
        )
    return Fix(text, (f"{found.python} -m venv .venv", "source .venv/bin/activate"))


def _new_environment(probe: Probe, facts: Facts) -> Fix:
    """Say how to get a Python that the book's packages have wheels for."""
    text = f"Make an environment with Python {SUGGESTED}, and install the book's packages there."
    if facts.os == "windows":
        commands: tuple[str, ...] = (
            f"winget install --exact --id Python.Python.{SUGGESTED}",
            f"py -{SUGGESTED} -m venv .venv",
            ".venv\\Scripts\\Activate.ps1",
        )
        return Fix(text, commands, POWERSHELL)
    if environment.find(probe, facts).kind == "conda":
        prefix = "CONDA_SUBDIR=osx-arm64 " if facts.os == "macos-rosetta" else ""
        commands = (
            f"{prefix}conda create --name book --yes python={SUGGESTED}",
            "conda activate book",
        )
        if prefix:
            commands = (*commands, "conda config --env --set subdir osx-arm64")
        return Fix(text, commands)
    if facts.os in ("macos-arm", "macos-rosetta"):
        brew = "/opt/homebrew/bin"
        commands = (
            f"arch -arm64 {brew}/brew install python@{SUGGESTED}",
            f"{brew}/python{SUGGESTED} -m venv .venv",
            "source .venv/bin/activate",
        )
        return Fix(text, commands)
    commands = (
        "curl -LsSf https://astral.sh/uv/install.sh | sh",
        f"uv venv --seed --python {SUGGESTED} .venv",
        "source .venv/bin/activate",
    )
    return Fix(text, commands)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


_INSTALLED = Early(installed.CODE)

CHECKS: tuple[Check, ...] = (
    Check(
        id="python.version",
        title="Python's version",
        group="python",
        why="The book's packages are compiled for certain versions of Python; "
        "for others pip finds none, or compiles for an hour.",
        run=_version,
        explain="Reads Python's own version. The book's package needs 3.11 or newer. Its pinned "
        "numpy, scipy and torch have wheels up to 3.14 on the package index (looked up in "
        "November 2026). An older Python is a problem, a newer one a warning.",
    ),
    Check(
        id="python.architecture",
        title="Python is built for this processor",
        group="python",
        why="A Python for another processor runs in emulation, without the GPU, "
        "and gets other packages.",
        run=_architecture,
        explain="Reads the processor that this Python was built for, and its number of bits. On an "
        "Apple chip, a Python for Intel runs under Rosetta: it works, but slowly, PyTorch no "
        "longer has releases for it, and Metal stays out of reach. A Python of 32 bits finds "
        "no packages.",
        depends_on=("python.version",),
    ),
    Check(
        id="python.environment",
        title="An environment of its own",
        group="python",
        why="In an environment of its own nothing can break another project, "
        "and it can be thrown away.",
        run=_environment,
        explain="Compares sys.prefix with sys.base_prefix (they differ in a venv), looks for "
        "conda-meta (conda), and for the environment that is active in this shell. The "
        "operating system's Python, conda's base, and a Python of another environment than "
        "the active one are warnings. In a container no environment is needed.",
    ),
    Check(
        id="python.conda-and-pip",
        title="No package from conda and pip both",
        group="python",
        why="Two copies of PyTorch overwrite each other's files: imports fail with undefined "
        "symbols, or the GPU is lost.",
        run=_conda_and_pip,
        explain="In a conda environment, compares the records of conda (the folder conda-meta) "
        "with those of pip (the file INSTALLER of each package). The same package in both "
        "means that one overwrote the other. For PyTorch it is a problem: conda's channel "
        "ended with 2.5.1 (pytorch issue 138506), so pip's stays. For others it is a "
        "warning.",
        early=(_INSTALLED,),
    ),
    Check(
        id="python.user-site",
        title="No packages from the user's own folder",
        group="python",
        why="Packages of `pip install --user` are found before a conda environment's own, "
        "in every environment with the same Python version.",
        run=_user_site,
        explain="Asks Python whether it imports from the user's own package folder, and whether "
        "one of the book's packages lies there. A venv ignores that folder; a conda "
        "environment does not. If such a package hides another version in the "
        "environment, it is a problem.",
        early=(_INSTALLED,),
    ),
    Check(
        id="python.leftovers",
        title="No interrupted installations",
        group="python",
        why="Half-removed packages make pip warn at each call, and take up disk.",
        run=_leftovers,
        explain="pip renames a package's folder to begin with ~ while it replaces it. If it is "
        "interrupted, for example by a full disk, the folder stays.",
        early=(_INSTALLED,),
    ),
)
