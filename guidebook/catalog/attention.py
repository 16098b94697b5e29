"""Which kernels for attention run on which GPU, as their sources say (``attention.csv``)."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from datetime import date
from importlib import resources

from guidebook.doctor import compatibility
from guidebook.doctor.compatibility import Capability


@dataclass(frozen=True)
class Kernel:
    """A family of kernels and the NVIDIA GPUs that its source lists.

    Attributes
    ----------
    name
        Such as ``FlashAttention-2``.
    lowest, highest
        First and last compute capability on the list, both included. A GPU beyond the last one
        may run it all the same; nobody has promised that.
    part_of
        Where it comes from: PyTorch itself or a package.
    status
        ``built in``, ``stable`` or ``beta``.
    source, as_of
        Where the list stands, and when it was read.
    """

    name: str
    lowest: Capability
    highest: Capability
    part_of: str
    status: str
    source: str
    as_of: date

    def lists(self, capability: Capability) -> bool:
        """Tell whether a GPU of this compute capability is on the list."""
        return self.lowest <= capability <= self.highest

    def answer(self, capability: Capability) -> str:
        """Return ``yes``, ``no``, or ``not listed`` for a GPU that is newer than the list."""
        if self.lists(capability):
            return "yes"
        return "no" if capability < self.lowest else "not listed"


@functools.cache
def kernels() -> tuple[Kernel, ...]:
    """Return all families, in the order of the table."""
    path = resources.files("guidebook.catalog").joinpath("attention.csv")
    return tuple(
        Kernel(
            name=row["name"],
            # Where the doctor judges by the same figure, it is kept in one place: there.
            lowest=_capability(row["lowest"])
            if row["lowest"]
            else compatibility.least_capability("flash-attn"),
            highest=_capability(row["highest"]),
            part_of=row["part_of"],
            status=row["status"],
            source=row["source"],
            as_of=date.fromisoformat(row["as_of"]),
        )
        for row in csv.DictReader(path.read_text("utf-8").splitlines())
    )


def find(name: str) -> Kernel:
    """Return the family of this name.

    Raises
    ------
    LookupError
        There is none; the message lists those there are.
    """
    found = next((one for one in kernels() if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in kernels())
        raise LookupError(f"No kernels named {name!r}. Known: {known}.")
    return found


def _capability(text: str) -> Capability:
    major, minor = compatibility.as_version(text)
    return major, minor
