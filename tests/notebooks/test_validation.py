"""The validation itself: what nbval would let pass, and that it sees what it must see."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbval.plugin import get_sanitize_patterns

from guidebook import lean

if TYPE_CHECKING:
    from conftest import Validation

SANITIZER = Path(__file__).parent / "sanitize.cfg"


@pytest.fixture
def chapter(tmp_path: Path) -> Path:
    """A small chapter in its lean form, with the outputs that it really has."""
    sources = ["x = 3\nprint(x)", "x + 1", "print('held')", "import os\nprint(os.getpid())"]
    notebook = new_notebook(
        cells=[new_markdown_cell("# Title"), *(new_code_cell(source) for source in sources)]
    )
    notebook.cells[-1].metadata["tags"] = [lean.IGNORE_OUTPUT]
    executed = nbformat.from_dict(notebook)
    for cell, text in zip(executed.cells[1:], ("3\n", "4", "held\n", ""), strict=True):
        if text.endswith("\n"):
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        elif text:
            data = {"text/plain": text}
            cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=2)]
    path = tmp_path / "chapter.ipynb"
    path.write_text(lean.to_text(lean.leanify(executed, notebook)), encoding="utf-8")
    return path


def change(path: Path, edit: Callable[[Any], None]) -> Any:
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)
    return notebook


def test_a_true_chapter_passes_with_every_cell_run(
    chapter: Path, validate: Callable[[Path], Validation]
) -> None:
    validation = validate(chapter)
    assert (validation.status, validation.cells) == (0, {"passed": 4}), validation.text
    assert lean.problems(nbformat.read(chapter, as_version=4)) == []


def test_one_altered_output_fails(chapter: Path, validate: Callable[[Path], Validation]) -> None:
    def alter(notebook: Any) -> None:
        notebook.cells[1].outputs[0].text = "5\n"

    # The sources are the same, so that only nbval can see it.
    assert lean.problems(change(chapter, alter)) == []
    validation = validate(chapter)
    assert validation.status == 1
    assert validation.cells == {"failure": 1, "passed": 3}, validation.text


def test_a_stripped_chapter_passes_nbval_but_not_the_check_of_its_form(
    chapter: Path, validate: Callable[[Path], Validation]
) -> None:
    def strip(notebook: Any) -> None:
        for cell in notebook.cells[1:]:
            cell.outputs, cell.execution_count = [], None

    found = lean.problems(change(chapter, strip))
    assert any("not counted from 1 to n" in problem for problem in found)
    assert any("fewer than 3 outputs" in problem for problem in found)
    # Why the form needs a check: nbval compares nothing here, and is content.
    assert validate(chapter).status == 0


def test_the_sanitizer_overlooks_no_number() -> None:
    configuration = SANITIZER.read_text()
    rules = get_sanitize_patterns(configuration)
    # nbval drops a rule that it cannot read, without a word.
    assert len(rules) == configuration.count("regex:") > 0
    for text in ("12.3 tokens/s", "3 of 3 claims held", "a/b.py", "results/11-x.json", "0.5"):
        sanitized = text
        for pattern, replacement in rules:
            sanitized = re.sub(pattern, replacement, sanitized)
        assert sanitized == text
