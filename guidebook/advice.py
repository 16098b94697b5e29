"""One thing to do, with its reasons: what a plan is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes
    ----------
    what
        What to do, in a sentence or a phrase.
    why
        Reasons with their numbers, and what would change the answer.
    command
        What to type, if anything.
    """

    what: str
    why: tuple[str, ...] = ()
    command: str = ""
