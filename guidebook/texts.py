"""English text that is on every machine, for measuring how well a model predicts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def load(source: str) -> str:
    """Return a text to score models on.

    Parameters
    ----------
    source
        ``"python-topics"``: the reference articles about Python that every Python installation
        carries for ``help()`` (module ``pydoc_data.topics``; 450,000 characters). They differ a
        little between Python versions, so compare perplexities within one version only.
        Anything else is the path of a UTF-8 text file.

    Raises
    ------
    FileNotFoundError
        There is no such file; the message says what can be given.
    """
    if source == "python-topics":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no text file {path.name}. Give the path of a UTF-8 text, or 'python-topics'."
        )
    return path.read_text(encoding="utf-8")


def evaluation(source: str) -> str:
    """Return the part of a text to score models on: the first two thirds.

    It starts where :func:`load` starts, so the first windows of both are the same tokens.
    """
    text = load(source)
    return text[: _cut(text)]


def calibration(source: str) -> str:
    """Return the part of a text to calibrate a quantizer on: the last third.

    It shares no paragraph with :func:`evaluation`. Cutting alone does not do that: of the last
    third of ``"python-topics"``, a sixth stands word for word in the first two. A paragraph that
    repeats one, however its lines are broken, is left out.

    Raises
    ------
    ValueError
        Nothing is left: the text is too short, or its last third only repeats the rest.
    """
    text = load(source)
    cut = _cut(text)
    scored = {_words(paragraph) for paragraph in _paragraphs(text[:cut])}
    own = [one for one in _paragraphs(text[cut:]) if _words(one) not in scored]
    if not own:
        raise ValueError(
            "The last third of the text holds no paragraph of its own to calibrate on. "
            "Give a longer text, with blank lines between its paragraphs."
        )
    return "\n\n".join(own)


def _cut(text: str) -> int:
    """Where the last third begins: at a paragraph, or else at a line, or else at a word."""
    third = len(text) * 2 // 3
    for gap in (r"\n(?:[^\S\n]*\n)+", r"\n", r"\s+"):
        found = re.compile(gap).search(text, third)
        if found is not None and found.end() < len(text):
            return found.end()
    return third


def _paragraphs(text: str) -> Iterator[str]:
    return (part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip())


def _words(paragraph: str) -> str:
    return " ".join(paragraph.split())
