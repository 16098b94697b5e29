"""How much memory and disk the models take that the reader wants to run."""

from __future__ import annotations

from collections.abc import Sequence

from guidebook import planner
from guidebook.doctor.facts import Need

# The size that most machines of the guide's first path can hold.
DEFAULT = ("llama-3.1-8b",)
_CONTEXT = 8192


def needs_of(models: Sequence[str] = ()) -> tuple[Need, ...]:
    """Work out what models take in RAM, with 8,192 tokens of context, and on disk.

    Raises
    ------
    LookupError
        The catalog has no such model; the message names near ones.
    """
    return tuple(_need(name) for name in models or DEFAULT)


def _need(name: str) -> Need:
    case = planner.Case(planner.DEFAULT_RAM, name, context=_CONTEXT)
    planner.model_of(case)  # raises for what does not exist, where an answer would only note it
    answer = planner.answer(case)
    if answer.total_bytes is None or answer.weights_bytes is None:
        raise LookupError(f"What {name} needs cannot be worked out: {answer.note}")
    return Need(name, answer.total_bytes, answer.weights_bytes)
