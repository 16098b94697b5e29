"""What the site build accepts, refuses and leaves behind; no browser."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import build_site
import pytest
import yaml
from build_site import SiteError
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_ext"))

import chapter_list  # noqa: E402
import mathml  # noqa: E402

NAME = "11-your-machine"


def cell(source: str, *, count: int | None = 1, **output: Any) -> dict[str, Any]:
    outputs = [output] if output else []
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "id": f"cell-{abs(hash(source)) % 10_000}",
        "execution_count": count,
        "outputs": outputs,
    }


def text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}, "id": "text"}


def write(path: Path, *cells: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {
        "cells": list(cells),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A whole book with one chapter, executed."""
    root = tmp_path / "a book"
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, root / name)
    prose = text("# Your machine\n\nWhat it *is*, see {term}`roofline`.\n\n$$\\frac{S}{B}$$")
    stream = {"output_type": "stream", "name": "stdout", "text": "measured\n"}
    for folder in ("notebooks", "_build/run/notebooks"):
        write(root / folder / f"{NAME}.ipynb", prose, cell("print('measured')", **stream))
    build_site.update_toc(root)
    return root


def build(root: Path) -> str:
    return build_site.build(root / "_build/run/notebooks", root / "_build/site", root)


# --- the table of contents ----------------------------------------------------------------------


def test_committed_toc_names_every_chapter_and_only_pages_that_exist():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    chapters = build_site.chapter_names(ROOT)
    assert build_site.toc_with_chapters(toc, chapters) == toc, (
        "run: python tools/build_site.py --toc"
    )
    for page in build_site.toc_pages(ROOT / "_toc.yml"):
        assert any((ROOT / f"{page}{suffix}").exists() for suffix in (".md", ".ipynb")), page


@given(
    st.lists(
        st.from_regex(r"[1-7][0-9](-[a-z0-9]{1,8}){1,3}", fullmatch=True), min_size=1, unique=True
    )
)
def test_any_chapters_can_be_written_into_the_toc_in_order_and_written_again(names: list[str]):
    before = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    after = build_site.toc_with_chapters(before, sorted(names))
    parts = yaml.safe_load(after)["parts"]
    files = [entry["file"] for part in parts for entry in part["chapters"]]
    assert [file for file in files if file.startswith("notebooks/")] == [
        f"notebooks/{name}" for name in sorted(names)
    ]
    assert [file for file in files if file.startswith("book/")] == [
        entry["file"]
        for part in yaml.safe_load(before)["parts"]
        for entry in part["chapters"]
        if entry["file"].startswith("book/")
    ]
    assert build_site.toc_with_chapters(after, sorted(names)) == after


@pytest.mark.parametrize("name", ["1-a", "81-too-far", "42-Capital", "42_under", "draft"])
def test_notebook_whose_name_tells_no_part_is_refused(tmp_path: Path, name: str):
    write(tmp_path / "notebooks" / f"{name}.ipynb")
    with pytest.raises(SiteError, match=name):
        build_site.chapter_names(tmp_path)


def test_toc_without_its_marks_is_refused():
    with pytest.raises(SiteError, match="lost"):
        build_site.toc_with_chapters("format: jb-book\nroot: book/index\n", [NAME])


# --- what is refused ----------------------------------------------------------------------------


def test_chapter_that_was_not_executed_is_named_with_the_command_that_executes_it(book: Path):
    (book / f"_build/run/notebooks/{NAME}.ipynb").unlink()
    with pytest.raises(SiteError, match=rf"{NAME} has not been executed.*guidebook run {NAME}"):
        build(book)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            [cell("1/0", output_type="error", ename="ZeroDivisionError", evalue="", traceback=[])],
            "failed when it was executed",
        ),
        ([cell("1 + 1", count=None)], "cells that were not executed"),
    ],
)
def test_chapter_that_failed_or_stopped_half_way_is_refused(book: Path, content: Any, says: str):
    write(book / f"_build/run/notebooks/{NAME}.ipynb", text("# A title"), *content)
    with pytest.raises(SiteError, match=says):
        build(book)


def test_file_that_is_no_notebook_is_refused(book: Path):
    (book / f"_build/run/notebooks/{NAME}.ipynb").write_bytes(b"\x00\x01 not JSON")
    with pytest.raises(SiteError, match="is not a notebook"):
        build(book)


def test_folder_that_holds_something_else_is_not_replaced(book: Path):
    precious = book / "_build/site/thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(SiteError, match="not a site"):
        build(book)
    assert precious.read_text() == "years of work"


def test_command_line_says_an_error_in_one_sentence_and_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    code = build_site.main(["--executed", str(tmp_path / "none"), "--out", str(tmp_path / "site")])
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<script src="//cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        '<link rel="shortcut icon" href="http://example.org/i.ico">',
        '<img srcset="local.png 1x, https://example.org/big.png 2x">',
        '<div style="background: url(https://example.org/b.png)"></div>',
        '<style>@import "https://example.org/c.css";</style>',
        '<svg><use href="https://example.org/d.svg#x"/></svg>',
        '<iframe src="https://example.org/"></iframe>',
    ],
)
def test_resource_from_another_host_is_found(tmp_path: Path, markup: str):
    (tmp_path / "page.html").write_text(f"<html><head></head><body>{markup}</body></html>")
    with pytest.raises(SiteError, match=r"page\.html loads .*example\.org"):
        build_site.check(tmp_path, ["page"])


@pytest.mark.parametrize(
    "markup",
    [
        '<a href="https://example.org/">a link is not a resource</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<img src="local.png"><script src="_static/a.js?v=1"></script>',
        '<img src="data:image/png;base64,AAAA">',
    ],
)
def test_links_and_local_resources_are_allowed(tmp_path: Path, markup: str):
    (tmp_path / "page.html").write_text(markup)
    build_site.check(tmp_path, ["page"])


def test_style_sheet_that_loads_a_font_from_another_host_is_found(tmp_path: Path):
    (tmp_path / "a.css").write_text("@font-face { src: url('https://example.org/f.woff2') }")
    with pytest.raises(SiteError, match=r"a\.css loads https://example\.org/f\.woff2"):
        build_site.check(tmp_path, [])


def test_missing_page_is_found(tmp_path: Path):
    with pytest.raises(SiteError, match=r"book/index\.html is missing"):
        build_site.check(tmp_path, ["book/index"])


def test_text_printed_piece_by_piece_is_shown_as_one_text(tmp_path: Path):
    pieces = [("stdout", "The"), ("stdout", [" sea", " is"]), ("stderr", "!"), ("stdout", " big")]
    streams = [{"output_type": "stream", "name": name, "text": part} for name, part in pieces]
    streamed = cell("stream()") | {"outputs": streams, "metadata": {"papermill": {"duration": 1}}}
    executed = write(tmp_path / "run" / "32-a.ipynb", text("# A"), streamed)
    build_site.stage_chapter(executed, tmp_path)
    _, staged = json.loads((tmp_path / "32-a.ipynb").read_text(encoding="utf-8"))["cells"]
    assert [output["text"] for output in staged["outputs"]] == ["The sea is", "!", " big"]
    assert staged["metadata"] == {}


# --- real builds --------------------------------------------------------------------------------


@pytest.mark.slow
def test_broken_page_stops_the_build_names_the_place_and_keeps_the_old_site(book: Path):
    said = build(book)
    site = book / "_build/site"
    assert str(site / "index.html") in said
    page = (site / f"notebooks/{NAME}.html").read_text(encoding="utf-8")
    assert "measured" in page
    assert "<mfrac>" in page
    assert 'href="../book/glossary.html#term-roofline"' in page
    (book / "book/how-to-use.md").write_text(
        "# How to\n\n[gone](no-such-page.md), {term}`no such term`, $\\nosuchcommand$\n"
    )
    with pytest.raises(SiteError) as refused:
        build(book)
    message = str(refused.value)
    assert "how-to-use.md:3" in message
    for reason in ("no-such-page.md", "no such term", "nosuchcommand"):
        assert reason in message
    assert "Parameters" in (site / "book/how-to-use.html").read_text(encoding="utf-8")
    assert (book / "_build/site.log").stat().st_size > len(message)


# --- formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"\frac{S}{B}", ["<mfrac>"]),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", ["<mtable", "<mtd"]),
        (r"a &= b \\ c &= d", ["<mtable"]),
        (r"\sum_{i=1}^{N} x_i", ["<munderover>"]),
        (r"\mathrm{KL}(P \,\|\, Q)", ["<mi"]),
        (r"\ln p", ["ln</mi><mspace"]),
        (r"a < b", ["&lt;"]),
    ],
)
def test_formula_becomes_mathml_with_its_source_as_text(latex: str, parts: list[str]):
    markup = mathml.to_mathml(latex, block=True)
    assert markup.startswith("<math ")
    assert "alttext=" in markup
    for part in parts:
        assert part in markup


@pytest.mark.parametrize("latex", [r"\nosuchcommand{x}", r"\frac{a", r"\left( a", "a & b"])
def test_formula_that_cannot_be_shown_is_refused_instead_of_shown_wrongly(latex: str):
    with pytest.raises(ValueError, match=r"."):
        mathml.to_mathml(latex)


# --- the list of chapters -----------------------------------------------------------------------


def test_promise_is_the_first_paragraph_without_links(tmp_path: Path):
    path = write(
        tmp_path / "11-a.ipynb",
        text("# Title\n\nWhat [this](x.md) *is*: {term}`roofline`,\nmeasured.\n\nMore."),
    )
    assert chapter_list.promise(path) == "What this *is*: roofline,\nmeasured."


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["held"], "1 claim held"),
        (["held", "refuted", "held"], "2 claims held, 1 refuted"),
        (["not tested here"] * 2, "2 claims not tested"),
        ([], ""),
    ],
)
def test_verdicts_of_a_run_are_counted_in_words(tmp_path: Path, outcomes: list[str], said: str):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"claims": [{"id": "x", "outcome": item} for item in outcomes]}))
    assert chapter_list.verdicts(path) == said


def test_what_is_not_known_of_the_machine_is_not_made_up(tmp_path: Path):
    path = tmp_path / "results.json"
    machine = {"cpu": {"model": None, "usable_cores": None}, "memory": {}, "gpus": []}
    path.write_text(json.dumps({"machine": machine}))
    assert chapter_list.hardware([path]) == "a CPU of unknown model, no GPU"
    assert chapter_list.hardware([]) == ""
