"""Where the guide's sections are in the book: section, chapters, claims.

The sections stand in ``guide.toml``, the claims in ``claims.toml``; a claim names its section.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from guidebook import claims
from guidebook.claims import Claim


@dataclass(frozen=True)
class Section:
    """A section of the guide.

    Attributes
    ----------
    title
        As in the guide.
    level
        2 for a chapter of the guide, 3 for a section of it, 4 for a table.
    note
        Why it has no claim of its own; empty where it has some.
    to_come
        The book's part that will treat it; None: it is written.
    """

    title: str
    level: int
    note: str = ""
    to_come: int | None = None

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the book tests of it, in the ledger's order."""
        return tuple(one for one in claims.ledger().values() if one.section == self.title)

    @property
    def chapters(self) -> tuple[str, ...]:
        """The chapters that test it."""
        return tuple(dict.fromkeys(claim.chapter for claim in self.claims))

    @property
    def is_covered(self) -> bool:
        """Whether the book tests something of it, or says why not."""
        return bool(self.claims or self.note or self.to_come)


@cache
def sections() -> tuple[Section, ...]:
    """Return the guide's sections, in its order."""
    text = files("guidebook").joinpath("guide.toml").read_text(encoding="utf-8")
    return tuple(Section(**entry) for entry in tomllib.loads(text)["section"])


def gaps() -> Mapping[str, str]:
    """Say what is wrong between guide and ledger, by section or claim; empty: nothing.

    A section must have claims, a reason why it has none, or a part to come. A claim must name a
    section of the guide.
    """
    known = {section.title for section in sections()}
    found = {one.title: "has neither claims nor a note" for one in sections() if not one.is_covered}
    found |= {one.title: "has claims and a note" for one in sections() if one.claims and one.note}
    found |= {
        claim.id: f"names a section that the guide does not have: {claim.section}"
        for claim in claims.ledger().values()
        if claim.section not in known
    }
    return found
