"""Open-weight language models: shape, number of weights, licence, and where each fact is from."""

from __future__ import annotations

import datetime
import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from guidebook import architecture
from guidebook.architecture import Architecture

_MIXERS: Mapping[str, Callable[..., tuple[int, int]]] = {
    "delta_net": architecture.delta_net,
    "mamba2": architecture.mamba2,
    "short_convolution": architecture.short_convolution,
}
# What vendors add to a name without changing the shape: a purpose, a format, a version, a month.
_ADDITION = re.compile(
    r"[\W_]+(base|bf16|chat|gguf|hf|instruct|it|latest|preview|pt|qat|thinking|v0\.?\d|\d{4})$"
)
_N_NEAREST = 4


@dataclass(frozen=True)
class Model:
    """One open-weight model.

    Attributes
    ----------
    name, aliases
        The catalog's name, and other names of models with the same shape.
    family
        As its maker writes it, for example ``Llama 3.1``.
    released
        Day that the maker opened the model's repository; the announcement is days away.
    n_weights
        Weights that generate text: without a vision tower or layers that predict ahead.
    n_active_weights
        Weights that one token passes. For a mixture of experts the maker's round figure.
    licence
        Short name of its licence.
    architecture
        Its shape.
    source, as_of
        Where the facts are from, and the day they were read.
    """

    name: str
    family: str
    released: datetime.date
    n_weights: int
    n_active_weights: int
    licence: str
    architecture: Architecture
    source: str
    as_of: datetime.date
    aliases: tuple[str, ...] = ()


def from_table(table: Mapping[str, Any]) -> Model:
    """Build a model from one table of ``models.toml``.

    Raises
    ------
    ValueError
        A fact or its source is missing; the message names the model and the key.
    """
    name = table.get("name", "without a name")
    try:
        if not table["source"] or not isinstance(table["as_of"], datetime.date):
            raise ValueError(f"The model {name} needs a source and a date as_of (YYYY-MM-DD).")
        return Model(
            name=table["name"],
            family=table["family"],
            released=table["released"],
            n_weights=table["n_weights"],
            n_active_weights=table.get("n_active_weights", table["n_weights"]),
            licence=table["licence"],
            architecture=_shape(table["architecture"]),
            source=table["source"],
            as_of=table["as_of"],
            aliases=tuple(table.get("aliases", ())),
        )
    except KeyError as error:
        raise ValueError(f"The model {name} has no {error.args[0]!r} in models.toml.") from error
    except TypeError as error:
        raise ValueError(f"The model {name} has a wrong field in models.toml: {error}.") from error


def _shape(facts: Mapping[str, Any]) -> Architecture:
    facts = dict(facts)
    sizes = dict(facts.pop("recurrent", {}))
    if sizes:
        mixer = _MIXERS[sizes.pop("kind")]
        weights, state = mixer(facts["hidden_size"], **sizes)
        facts |= {"recurrent_weights": weights, "recurrent_state_bytes": state}
    return Architecture(**facts)


@functools.cache
def all() -> tuple[Model, ...]:
    """Return every model of the catalog, in the order of the file."""
    text = resources.files("guidebook.catalog").joinpath("models.toml").read_text("utf-8")
    return tuple(from_table(table) for table in tomllib.loads(text)["model"])


@functools.cache
def find(name: str) -> Model:
    """Return the model of this name.

    Case, spaces, punctuation, the vendor before a slash and endings such as ``-Instruct`` don't
    matter: ``llama3.1:8b`` and ``meta-llama/Llama-3.1-8B-Instruct`` are the same model.

    Raises
    ------
    LookupError
        There is none; the message names the nearest ones.
    """
    found = _index()
    words = name.strip().lower().rsplit("/", 1)[-1].removeprefix("meta-")
    while True:
        if model := found.get(_key(words)):
            return model
        shorter = _ADDITION.sub("", words)
        if shorter == words:
            break
        words = shorter
    names = {_key(one): one for model in all() for one in (model.name, *model.aliases)}
    nearest = difflib.get_close_matches(_key(words), names, _N_NEAREST, cutoff=0.4)
    hint = f"Nearest: {', '.join(names[one] for one in nearest)}." if nearest else ""
    raise LookupError(f"No model {name!r} in the catalog. {hint}".strip())


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


@functools.cache
def _index() -> Mapping[str, Model]:
    found: dict[str, Model] = {}
    for model in all():
        for one in (model.name, *model.aliases):
            if other := found.get(_key(one)):
                raise ValueError(
                    f"The name {one!r} stands twice in models.toml: {other.name}, {model.name}."
                )
            found[_key(one)] = model
    return found
