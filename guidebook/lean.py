"""The form in which chapters are committed: executed, but without what differs by machine.

A lean notebook keeps what must come out the same everywhere: the outputs of every cell that is
not tagged ``nbval-ignore-output``, as text. Counts are 1 to n, because nbval compares no output
of a cell without a count. A hash of the sources tells whether the outputs belong to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

IGNORE_OUTPUT = "nbval-ignore-output"
MIN_COMPARED = 3

# A notebook as nbformat reads it: JSON with attribute access.
Notebook = Any

_KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE_INFO = {"name": "python"}
# What an author sets by hand; everything else in a cell's metadata is written by tools.
_KEPT_METADATA = frozenset({"jupyter", "mystnb", "tags"})
_TEXT_FORMS = frozenset({"text/plain", "text/html"})
_PICTURES = ("<svg", "<img", "<canvas", "<script", "data:image")
# nbval obeys these comments too; a tag is what the other tools see.
_NBVAL_COMMENTS = ("NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT", "NBVAL_SKIP", "NBVAL_RAISES")
_FORBIDDEN_TAGS = frozenset({"nbval-skip", "nbval-raises-exception", "raises-exception"})


class LeanError(ValueError):
    """An executed notebook has no lean form; the message says what its author can do."""


def source_hash(notebook: Notebook) -> str:
    """Return the SHA-256 of what an author writes: each cell's kind, source and tags."""
    written = [[cell.cell_type, cell.source, sorted(_tags(cell))] for cell in notebook.cells]
    text = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def leanify(executed: Notebook, original: Notebook) -> Notebook:
    """Put an executed notebook into the form that is committed.

    Parameters
    ----------
    executed
        The original, executed with its own parameters from the first cell to the last.
    original
        The notebook as its author wrote it; its sources and ids are kept.

    Raises
    ------
    LeanError
        The two do not belong together, or a compared cell shows what cannot be compared.
    """
    import nbformat

    outputs = [cell.get("outputs", []) for cell in executed.cells if not _is_papermills(cell)]
    sources = [cell.source for cell in executed.cells if not _is_papermills(cell)]
    if sources != [cell.source for cell in original.cells]:
        raise LeanError("The executed notebook has other cells than the original.")
    cells = []
    count = 0
    for index, (cell, shown) in enumerate(zip(original.cells, outputs, strict=True)):
        lean = {
            "cell_type": cell.cell_type,
            "id": cell.get("id") or f"cell-{index:03d}",
            "metadata": {k: v for k, v in cell.metadata.items() if k in _KEPT_METADATA},
            "source": cell.source,
        }
        if cell.cell_type == "code":
            count += 1
            compared = [] if IGNORE_OUTPUT in _tags(cell) else _lean_outputs(shown, count)
            lean |= {"execution_count": count, "outputs": compared}
        cells.append(lean)
    notebook = nbformat.from_dict(
        {
            "cells": cells,
            "metadata": {"kernelspec": _KERNELSPEC, "language_info": _LANGUAGE_INFO},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )
    notebook.metadata["guidebook"] = {"source_sha256": source_hash(notebook)}
    return notebook


def to_text(notebook: Notebook) -> str:
    """Return a notebook as the text of its file, always the same for the same notebook."""
    import nbformat

    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def compared_cells(notebook: Notebook) -> list[Notebook]:
    """Return the code cells whose outputs nbval really compares."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and IGNORE_OUTPUT not in _tags(cell)
        and cell.get("execution_count") is not None
        and cell.get("outputs")
    ]


def problems(notebook: Notebook) -> list[str]:
    """Say in which points a notebook is not in its lean form; an empty list is a lean one."""
    return [*_metadata_problems(notebook), *_count_problems(notebook), *_cell_problems(notebook)]


def _metadata_problems(notebook: Notebook) -> Iterator[str]:
    metadata = dict(notebook.metadata)
    stored = metadata.pop("guidebook", {}).get("source_sha256")
    if stored is None:
        yield "has no hash of its sources"
    elif stored != source_hash(notebook):
        yield "was edited after it was executed"
    if metadata != {"kernelspec": _KERNELSPEC, "language_info": _LANGUAGE_INFO}:
        yield "has metadata of a kernel, a widget or a tool"
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "has cells without an id of their own"


def _count_problems(notebook: Notebook) -> Iterator[str]:
    counts = [cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        yield "its code cells are not counted from 1 to n, so nbval would compare nothing"
    if len(compared_cells(notebook)) < MIN_COMPARED:
        yield f"stores fewer than {MIN_COMPARED} outputs that nbval compares"


def _cell_problems(notebook: Notebook) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        extra = set(cell.metadata) - _KEPT_METADATA
        if extra:
            yield f"{_name(cell, index)} has metadata of a tool: {', '.join(sorted(extra))}"
        if cell.cell_type != "code":
            continue
        if _FORBIDDEN_TAGS & _tags(cell):
            yield f"{_name(cell, index)} has a tag that keeps nbval from checking it"
        if any(comment in cell.source for comment in _NBVAL_COMMENTS):
            yield f"{_name(cell, index)} talks to nbval in a comment; use a tag"
        if _is_papermills(cell):
            yield f"{_name(cell, index)} was injected by papermill"
        outputs = cell.get("outputs", [])
        if IGNORE_OUTPUT in _tags(cell):
            if outputs:
                yield f"{_name(cell, index)} stores an output that differs by machine"
            continue
        try:
            wanted = _lean_outputs(outputs, cell.get("execution_count"))
        except LeanError as error:
            yield str(error)
            continue
        if outputs != wanted:
            yield f"{_name(cell, index)} stores outputs that are not lean"


def _lean_outputs(outputs: list[Any], count: int | None) -> list[dict[str, Any]]:
    """Return outputs as nbval compares them; raise if one cannot be the same everywhere."""
    lean: list[dict[str, Any]] = []
    printed: dict[str, Any] | None = None
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream" and output["name"] == "stdout":
            # A kernel sends prints in chunks that depend on time.
            if printed is None:
                printed = {"name": "stdout", "output_type": "stream", "text": ""}
                lean.append(printed)
            printed["text"] += output["text"]
        elif kind in ("display_data", "execute_result"):
            kept: dict[str, Any] = {
                "data": _text_data(output["data"], count),
                "metadata": {},
                "output_type": kind,
            }
            if kind == "execute_result":
                kept["execution_count"] = count
            lean.append(kept)
        elif kind == "stream":
            raise LeanError(
                f"cell [{count}] writes to stderr ({_excerpt(output['text'])}); "
                f"silence it or tag the cell {IGNORE_OUTPUT}"
            )
        else:
            raise LeanError(f"cell [{count}] ends in an error")
    return lean


def _text_data(data: Mapping[str, Any], count: int | None) -> dict[str, str]:
    shown = next((form for form in data if form not in _TEXT_FORMS), None)
    if shown is None and any(mark in str(data.get("text/html", "")) for mark in _PICTURES):
        shown = "a picture"
    if shown is not None:
        raise LeanError(f"cell [{count}] shows {shown}; tag the cell {IGNORE_OUTPUT}")
    return dict(data)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def _name(cell: Notebook, index: int) -> str:
    count = cell.get("execution_count")
    return f"cell [{count}]" if count else f"cell {index + 1} of all"


def _is_papermills(cell: Notebook) -> bool:
    return bool({"injected-parameters", "papermill-error-cell-tag"} & _tags(cell))


def _tags(cell: Notebook) -> set[str]:
    return set(cell.metadata.get("tags", []))
