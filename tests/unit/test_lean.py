"""The committed form of chapters: what it keeps, what it drops, what it refuses."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from guidebook import lean
from guidebook.lean import LeanError, leanify, problems, source_hash

if TYPE_CHECKING:
    from conftest import WriteChapter

IGNORED = {"tags": ["nbval-ignore-output"]}


def printed(text: str, name: str = "stdout") -> Any:
    return new_output("stream", name=name, text=text)


def original() -> Any:
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("model = 'embedded'", metadata={"tags": ["parameters"]}),
            new_code_cell("print(1)"),
            new_code_cell("2"),
            new_code_cell("print(time())", metadata=IGNORED),
            new_code_cell("print(3)", metadata={"mystnb": {"figure": {"name": "f"}}}),
        ]
    )


def executed() -> Any:
    """The original after papermill: timings, an injected cell, chunks, machine's outputs."""
    notebook = copy.deepcopy(original())
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[1].outputs = [printed("1"), printed("\n")]
    code[2].outputs = [
        new_output("execute_result", {"text/plain": "2"}, execution_count=7, metadata={"a": 1})
    ]
    code[3].outputs = [
        printed("0.123\n"),
        printed("warning", "stderr"),
        new_output("display_data", {"image/png": "abcd", "text/plain": "<Figure>"}),
    ]
    code[4].outputs = [printed("3\n")]
    for count, cell in enumerate(code, 11):
        cell.execution_count = count
        cell.metadata["papermill"] = {"duration": 1.5}
        cell.metadata["execution"] = {"iopub.status.busy": "2026-11-23T12:00:00Z"}
    injected = new_code_cell("model = 'x'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "My Python", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.2"},
        "papermill": {"duration": 3.0},
        "widgets": {"state": {}},
    }
    return nbformat.from_dict(notebook)


def lean_notebook() -> Any:
    return leanify(executed(), original())


def test_a_lean_notebook_is_valid_and_has_no_problem() -> None:
    notebook = lean_notebook()
    nbformat.validate(notebook)
    assert problems(notebook) == []


def test_outputs_stay_only_where_they_are_compared() -> None:
    code = [cell for cell in lean_notebook().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert [cell.outputs for cell in code] == [
        [],
        [{"name": "stdout", "output_type": "stream", "text": "1\n"}],
        [
            {
                "data": {"text/plain": "2"},
                "execution_count": 3,
                "metadata": {},
                "output_type": "execute_result",
            }
        ],
        [],
        [{"name": "stdout", "output_type": "stream", "text": "3\n"}],
    ]


def test_only_what_an_author_sets_stays_in_metadata() -> None:
    notebook = lean_notebook()
    assert set(notebook.metadata) == {"kernelspec", "language_info", "guidebook"}
    assert notebook.metadata.kernelspec.display_name == "Python 3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert [dict(cell.metadata) for cell in notebook.cells] == [
        dict(cell.metadata) for cell in original().cells
    ]


def test_ids_are_the_authors_and_missing_ones_are_always_the_same() -> None:
    author = original()
    for cell in author.cells[:2]:
        del cell["id"]
    first, second = leanify(executed(), author), leanify(executed(), author)
    ids = [cell.id for cell in first.cells]
    assert ids[:2] == ["cell-000", "cell-001"]
    assert ids[2:] == [cell.id for cell in author.cells[2:]]
    assert lean.to_text(first) == lean.to_text(second)


def test_making_a_lean_notebook_lean_changes_nothing() -> None:
    notebook = lean_notebook()
    assert lean.to_text(leanify(notebook, notebook)) == lean.to_text(notebook)


def test_another_notebooks_outputs_are_refused() -> None:
    other = executed()
    other.cells[-1].source = "print(4)"
    with pytest.raises(LeanError, match="other cells"):
        leanify(other, original())


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (printed("UserWarning: careful", "stderr"), r"\[2\] writes to stderr \(UserWarning"),
        (new_output("display_data", {"image/png": "aa", "text/plain": "f"}), "shows image/png"),
        (new_output("display_data", {"text/html": "<figure><svg/></figure>"}), "a picture"),
        (new_output("display_data", {"text/html": "<img src='x.png'>"}), "a picture"),
        (
            new_output(
                "display_data",
                {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Slider"},
            ),
            "widget",
        ),
        (new_output("error", ename="E", evalue="v", traceback=[]), r"\[2\] ends in an error"),
    ],
)
def test_what_cannot_be_compared_is_the_authors_error(output: Any, told: str) -> None:
    notebook = executed()
    notebook.cells[3].outputs = [output]
    with pytest.raises(LeanError, match=told):
        leanify(notebook, original())


def edit_source(notebook: Any) -> None:
    notebook.cells[3].source = "print(2)"


def edit_prose(notebook: Any) -> None:
    notebook.cells[0].source = "# Another title"


def edit_tags(notebook: Any) -> None:
    notebook.cells[2].metadata["tags"] = ["nbval-ignore-output"]


def strip_outputs(notebook: Any) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def strip_only_outputs(notebook: Any) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []


def swap_counts(notebook: Any) -> None:
    notebook.cells[2].execution_count = 3


def remove_hash(notebook: Any) -> None:
    del notebook.metadata["guidebook"]


def add_widget_state(notebook: Any) -> None:
    notebook.metadata["widgets"] = {"state": {}}


def add_python_version(notebook: Any) -> None:
    notebook.metadata.language_info["version"] = "3.11.2"


def add_timing(notebook: Any) -> None:
    notebook.cells[2].metadata["execution"] = {"start": "now"}


def add_image(notebook: Any) -> None:
    notebook.cells[2].outputs = [new_output("display_data", {"image/png": "aa"})]


def store_ignored_output(notebook: Any) -> None:
    notebook.cells[4].outputs = [printed("0.123")]


def leave_chunks(notebook: Any) -> None:
    notebook.cells[2].outputs = [printed("1"), printed("\n")]


def skip_cell(notebook: Any) -> None:
    notebook.cells[2].metadata["tags"] = ["nbval-skip"]


def comment_to_nbval(notebook: Any) -> None:
    notebook.cells[2].source = "# NBVAL_IGNORE_OUTPUT\nprint(1)"


def leave_injected(notebook: Any) -> None:
    notebook.cells[2].metadata["tags"] = ["injected-parameters"]


def repeat_an_id(notebook: Any) -> None:
    notebook.cells[2].id = notebook.cells[3].id


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (edit_source, "was edited after it was executed"),
        (edit_prose, "was edited after it was executed"),
        (edit_tags, "was edited after it was executed"),
        (strip_outputs, "not counted from 1 to n"),
        (strip_only_outputs, "fewer than 3 outputs"),
        (swap_counts, "not counted from 1 to n"),
        (remove_hash, "no hash"),
        (add_widget_state, "metadata of a kernel, a widget or a tool"),
        (add_python_version, "metadata of a kernel, a widget or a tool"),
        (add_timing, "[2] has metadata of a tool: execution"),
        (add_image, "[2] shows image/png"),
        (store_ignored_output, "[4] stores an output that differs by machine"),
        (leave_chunks, "[2] stores outputs that are not lean"),
        (skip_cell, "[2] has a tag that keeps nbval from checking"),
        (comment_to_nbval, "[2] talks to nbval in a comment"),
        (leave_injected, "[2] was injected by papermill"),
        (repeat_an_id, "without an id of their own"),
    ],
)
def test_a_damaged_notebook_is_reported(damage: Callable[[Any], None], told: str) -> None:
    notebook = lean_notebook()
    damage(notebook)
    assert any(told in problem for problem in problems(notebook)), problems(notebook)


cells = st.lists(st.tuples(st.sampled_from(["code", "markdown"]), st.text(max_size=5)), max_size=5)


def build(parts: list[tuple[str, str]]) -> Any:
    new = {"code": new_code_cell, "markdown": new_markdown_cell}
    return new_notebook(cells=[new[kind](source) for kind, source in parts])


@given(cells, cells)
def test_two_notebooks_have_one_hash_only_if_their_sources_are_equal(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    assert (source_hash(build(first)) == source_hash(build(second))) == (first == second)


def test_the_hash_does_not_depend_on_outputs_or_the_order_of_tags() -> None:
    first = new_notebook(cells=[new_code_cell("1", metadata={"tags": ["a", "b"]})])
    second = new_notebook(
        cells=[new_code_cell("1", metadata={"tags": ["b", "a"]}, outputs=[printed("1")])]
    )
    assert source_hash(first) == source_hash(second)


# --- The command ----------------------------------------------------------------------------


@pytest.fixture
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lean_tool", root / "tools" / "lean.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_executes_and_writes_lean_and_leaves_nothing_else(
    tool: ModuleType, write_chapter: WriteChapter, tmp_path: Path
) -> None:
    cells = ["print('once')", "1 + 1", "print('a'); import sys; sys.stdout.flush(); print('b')"]
    good = write_chapter(tmp_path, "11-good", cells)
    bad = write_chapter(tmp_path, "12-noisy", ["import sys; print('oh', file=sys.stderr)"])
    before = bad.read_text()
    assert tool.main([str(good), str(bad)]) == 1
    assert problems(nbformat.read(good, as_version=4)) == []
    assert bad.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {good.name, bad.name}


def test_checking_executes_nothing_and_reports_problems(
    tool: ModuleType,
    write_chapter: WriteChapter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_chapter(tmp_path, "11-draft", [f"open({str(tmp_path / 'x')!r}, 'w')"])
    assert tool.main(["--check", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "11-draft.ipynb: has no hash of its sources" in shown
    assert "11-draft.ipynb: has no heading 'Exercises'" in shown
    assert not (tmp_path / "x").exists()


def test_a_missing_notebook_is_one_sentence(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["nowhere.ipynb"]) == 2
    assert capsys.readouterr().err == "lean: There is no notebook nowhere.ipynb.\n"
