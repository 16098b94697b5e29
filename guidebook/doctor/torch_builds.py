"""Which build of PyTorch suits a GPU and its driver."""

from __future__ import annotations

import datetime
import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from guidebook.doctor.facts import Facts
from guidebook.doctor.nvidia import Version, version


@dataclass(frozen=True)
class Build:
    """One build of PyTorch.

    Attributes
    ----------
    torch
        Release, such as ``2.13.0``.
    cuda
        CUDA version it is built for.
    capabilities
        Compute capabilities that it has machine code for.
    index
        Package index that has it.
    source, as_of
        Where the facts are from, and the day they were read.
    """

    torch: str
    cuda: Version
    capabilities: tuple[Version, ...]
    index: str
    source: str
    as_of: datetime.date


@dataclass(frozen=True)
class Channel:
    """Where conda gets PyTorch from in ``conda install pytorch pytorch-cuda``.

    Attributes
    ----------
    torch
        The last release on it.
    source, as_of
        Where the fact is from, and the day it was read.
    """

    torch: str
    source: str
    as_of: datetime.date


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("guidebook.doctor").joinpath("torch_builds.toml").read_text("utf-8")
    return tomllib.loads(text)


def book_release() -> str:
    """Return the release of PyTorch that the book pins."""
    return str(_table()["book"])


def conda_channel() -> Channel:
    """Return the channel of conda that the PyTorch project published to."""
    return Channel(**_table()["conda"])


def _numbers(text: str) -> Version:
    return version(text) or ()


@functools.cache
def builds() -> tuple[Build, ...]:
    """Return every known build, the newest release first.

    Raises
    ------
    ValueError
        A fact is missing from ``torch_builds.toml``.
    """
    table = _table()
    try:
        return tuple(
            Build(
                torch=row["torch"],
                cuda=_numbers(cuda),
                capabilities=tuple(map(_numbers, table["capabilities"][kind])),
                index=f"{table['index']}/cu{cuda.replace('.', '')}",
                source=row["source"],
                as_of=row["as_of"],
            )
            for row in table["release"]
            for cuda, kind in row["cuda"].items()
        )
    except KeyError as error:
        raise ValueError(f"torch_builds.toml lacks {error.args[0]!r}; add it.") from error


def dotted(numbers: Version) -> str:
    """Write a version: ``12.8``."""
    return ".".join(map(str, numbers))


def covers(capabilities: Iterable[Version], wanted: Version) -> bool:
    """Tell whether machine code for some capabilities runs on a GPU of another.

    It does within one major capability, from a lower minor one to a higher.
    """
    return any(one[:1] == wanted[:1] and one <= wanted for one in capabilities)


def suits_driver(cuda: Version, driver_cuda: Version) -> bool:
    """Tell whether a program built for a CUDA version runs with a driver.

    Within one major version every driver runs every program (CUDA's minor version
    compatibility); a driver of a newer major version runs the older ones as well.
    """
    return cuda[:1] <= driver_cuda[:1]


def covers_all(capabilities: Iterable[Version], wanted: Iterable[Version]) -> bool:
    """Tell whether machine code for some capabilities runs on every one of some GPUs."""
    have = tuple(capabilities)
    return all(covers(have, one) for one in wanted)


def best(
    driver_cuda: Version | None, capabilities: Iterable[Version], preferred: Iterable[str] = ()
) -> Build | None:
    """Return the build to install.

    Parameters
    ----------
    driver_cuda
        Highest CUDA version that the driver supports; None if unknown.
    capabilities
        Compute capabilities of the GPUs that shall work.
    preferred
        Releases to take if one of their builds fits, the most wanted first; after them comes the
        newest release that has one.

    Returns
    -------
    The build for the newest CUDA version that the driver knows, or else one that it runs through
    minor version compatibility; None where no known build fits.
    """
    gpus = tuple(capabilities)
    fitting = [
        build
        for build in builds()
        if (driver_cuda is None or suits_driver(build.cuda, driver_cuda))
        and covers_all(build.capabilities, gpus)
    ]
    for wanted in (*preferred, *(build.torch for build in fitting[:1])):
        same = [b for b in fitting if _numbers(b.torch)[:2] == _numbers(wanted)[:2]]
        known = [b for b in same if driver_cuda is None or b.cuda <= driver_cuda]
        if known:
            return max(known, key=lambda build: build.cuda)
        if same:
            return min(same, key=lambda build: build.cuda)
    return None


def fit(facts: Facts, installed: str = "") -> Build | None:
    """Return the build for the GPUs of a machine, the installed release if it has one."""
    capabilities = [gpu.compute_capability for gpu in facts.gpus if gpu.compute_capability]
    return best(facts.cuda_version, capabilities, (installed, book_release()))


def install(facts: Facts, installed: str = "", beside: Iterable[str] = ()) -> str | None:
    """Return what follows ``pip install`` for the build that suits a machine.

    The version carries its build (``2.13.0+cu130``): pip takes ``2.13.0`` for installed already
    if another build of it is.

    Parameters
    ----------
    installed
        The version that is installed; its release is kept where it has a build that fits.
    beside
        Packages that must come from the same index, such as ``torchvision``.

    Returns
    -------
    None where no build is known to fit.
    """
    index = _table()["index"]
    beside = tuple(beside)
    upgrade = "--upgrade " if beside else ""
    if facts.has_nvidia:
        build = fit(facts, installed)
        if build is None:
            return None
        wanted = f"{build.torch}+{build.index.rsplit('/', 1)[1]}"
        return " ".join((f"{upgrade}torch=={wanted}", *beside, "--index-url", build.index))
    known = {build.torch for build in builds()}
    release = installed.partition("+")[0]
    release = release if release in known else book_release()
    if facts.is_mac:
        return " ".join((f"{upgrade}torch=={release}", *beside))
    return " ".join((f"{upgrade}torch=={release}+cpu", *beside, f"--index-url {index}/cpu"))
