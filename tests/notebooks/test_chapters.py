"""Every committed chapter is lean, keeps the book's rules, and shows what comes out here too."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from guidebook import anatomy, lean
from guidebook._worker import scrub

if TYPE_CHECKING:
    from conftest import Validation

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_there_are_chapters() -> None:
    assert CHAPTERS


@every_chapter
def test_a_chapter_is_lean_and_fresh(path: Path) -> None:
    assert lean.problems(read(path)) == [], "run: make lean"


@every_chapter
def test_a_chapter_is_stored_as_the_normalizer_writes_it(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == lean.to_text(read(path)), "run: make lean"


@every_chapter
def test_a_chapter_keeps_the_rules(path: Path) -> None:
    assert anatomy.problems(read(path)) == []


@every_chapter
def test_a_chapter_tells_nobodys_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert scrub(text) == text


def test_the_chapters_fit_together() -> None:
    pages = frozenset(f"../{p.relative_to(ROOT)}" for p in (ROOT / "book").rglob("*.md"))
    notebooks = {path.name: read(path) for path in CHAPTERS}
    assert anatomy.problems_across(notebooks, pages) == []


def test_every_chapter_leads_to_the_next_one() -> None:
    for path, following in itertools.pairwise(CHAPTERS):
        leading = read(path).cells[-1].source.partition("## Next")[2]
        assert f"{{doc}}`{following.stem}`" in leading, path.name


@every_chapter
def test_a_chapter_shows_what_comes_out_here(
    path: Path, validate: Callable[[Path], Validation]
) -> None:
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    validation = validate(path)
    assert validation.status == 0, validation.text
    assert validation.cells == {"passed": len(code)}, validation.text
    assert len(lean.compared_cells(notebook)) >= lean.MIN_COMPARED
