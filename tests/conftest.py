"""What tests of all kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import nbformat
import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# A deadline in milliseconds fails now and then on a busy machine, and tells nothing.
settings.register_profile("book", deadline=None)
settings.load_profile("book")

PARAMETERS = """\
model = "embedded"
device = "auto"
profile = "quick"
results_dir = "results"
"""

# What a chapter writes, without the libraries that a real chapter needs.
SAVE_RESULTS = """\
import json
from pathlib import Path

outcomes = ["held", "held", "refuted", "not tested here"]
Path(results_dir).mkdir(exist_ok=True)
Path(results_dir, "{name}.json").write_text(json.dumps({{
    "schema_version": 1, "chapter": "{name}", "created": "2026-11-23T12:00:00Z",
    "guidebook": "0.1.0", "measurements": {{}}, "machine": {{}},
    "parameters": {{"model": model, "device": device, "profile": profile}},
    "claims": [
        {{"id": f"claim-{{n}}", "outcome": outcome, "evidence": {{}}, "because": ""}}
        for n, outcome in enumerate(outcomes)
    ],
}}))
"""


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


class WriteChapter(Protocol):
    """The type of the fixture ``write_chapter``."""

    def __call__(
        self,
        folder: Path,
        name: str,
        cells: Sequence[str] = (),
        parameters: str = "",
        *,
        save: bool = True,
    ) -> Path:
        """Write a small chapter: parameters, some cells of code, and valid results."""


@pytest.fixture(scope="session")
def write_chapter() -> WriteChapter:
    """Return a function that writes a small chapter, which loads no model."""
    return _write_chapter


def _write_chapter(
    folder: Path, name: str, cells: Sequence[str] = (), parameters: str = "", *, save: bool = True
) -> Path:
    code = [*cells, SAVE_RESULTS.format(name=name)] if save else cells
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(f"# Chapter {name}"),
            nbformat.v4.new_code_cell(PARAMETERS + parameters, metadata={"tags": ["parameters"]}),
            *(nbformat.v4.new_code_cell(source) for source in code),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path
