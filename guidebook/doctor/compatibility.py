"""Which versions go together, from the vendors' tables (``compatibility.toml``)."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any

from guidebook.doctor.nvidia import Version, version

Capability = tuple[int, int]


@functools.cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("guidebook.doctor").joinpath("compatibility.toml").read_text("utf-8")
    return tomllib.loads(text)


def table(name: str) -> tuple[dict[str, Any], ...]:
    """Return the rows of one of the tables: driver, capability, gcc or library."""
    return tuple(_tables()[name])


def highest_cuda(driver: str | None) -> str | None:
    """Return the highest CUDA version that a Linux driver supports; None if unknown."""
    given = version(driver)
    if given is None:
        return None
    rows = ((as_version(row["linux_driver"]), str(row["cuda"])) for row in table("driver"))
    return max(((needed, cuda) for needed, cuda in rows if needed <= given), default=(0, None))[1]


def least_driver(cuda: str, *, windows: bool = False) -> str | None:
    """Return the lowest driver version that supports a CUDA version fully; None if unknown.

    Parameters
    ----------
    cuda
        Such as ``12.8``.
    windows
        Whether Windows' driver is meant, which also serves WSL.
    """
    column = "windows_driver" if windows else "linux_driver"
    return next((str(row[column]) for row in table("driver") if row["cuda"] == cuda), None)


def toolkit_for(cuda: Version | None, capability: Capability | None) -> str | None:
    """Return the newest toolkit that a driver runs and that compiles for a GPU.

    Parameters
    ----------
    cuda
        The highest CUDA version that the driver supports; None: any.
    capability
        The GPU's compute capability; None: any.
    """
    versions = (str(row["cuda"]) for row in table("driver"))
    fitting = [
        (as_version(one), one)
        for one in versions
        if (cuda is None or as_version(one) <= cuda) and compiles(one, capability) is not False
    ]
    return max(fitting, default=(0, None))[1]


def compiles(cuda: str, capability: Capability | None) -> bool | None:
    """Tell whether a toolkit compiles for a compute capability; None if unknown."""
    row = _capability(capability)
    if row is None:
        return None
    given = as_version(cuda)[:2]
    last = version(row.get("last"))
    return as_version(row["first"]) <= given and (last is None or given <= last)


def toolkits(capability: Capability | None) -> tuple[str, str | None] | None:
    """Return the first and the last toolkit for a compute capability; None if unknown.

    The last is None where the newest toolkit still compiles for it.
    """
    row = _capability(capability)
    return None if row is None else (str(row["first"]), row.get("last"))


def newest_gcc(cuda: str) -> int | None:
    """Return the newest GCC that a toolkit accepts; None if unknown."""
    return next((int(row["newest"]) for row in table("gcc") if row["cuda"] == cuda), None)


def least_capability(library: str) -> Capability:
    """Return the lowest compute capability on which a library's GPU code runs."""
    (row,) = (row for row in table("library") if row["name"] == library)
    major, minor = as_version(row["capability"])
    return major, minor


def as_version(text: str) -> Version:
    """Turn a version of the tables into numbers.

    Raises
    ------
    ValueError
        The text is no version.
    """
    found = version(text)
    if found is None:
        raise ValueError(f"{text!r} is no version.")
    return found


def _capability(capability: Capability | None) -> dict[str, Any] | None:
    if capability is None:
        return None
    text = "{}.{}".format(*capability)
    return next((row for row in table("capability") if row["capability"] == text), None)
