"""Each rule for chapters sees the chapter that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from guidebook import anatomy

PARAMETERS = 'model = "embedded"\ndevice = "auto"\nprofile = "quick"\nresults_dir = "results"'
PROSE = "Some words of prose that say what the next cell does, and why a reader would want it. "


def chapter() -> Any:
    """A chapter that keeps every rule."""
    prose = [new_markdown_cell(PROSE * 3) for _ in range(3)]
    printed = [new_output("stream", name="stdout", text="The file has 32 layers.\n")]
    return new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nOne promise. See [the other](12-other.ipynb#part)."),
            new_markdown_cell("## The claims this chapter tests\n\n```bash\n# no heading\n```"),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            prose[0],
            new_code_cell("print(layers)", outputs=printed),
            prose[1],
            new_code_cell(
                "%matplotlib inline\nspeed()", metadata={"tags": ["nbval-ignore-output"]}
            ),
            new_markdown_cell("## If it fails\n\nSee [the glossary](../book/glossary.md)."),
            prose[2],
            new_markdown_cell("## Key takeaways\n\n## Exercises\n\n## Next"),
        ]
    )


def test_a_good_chapter_has_no_problem() -> None:
    assert anatomy.problems(chapter()) == []


def drop_title(notebook: Any) -> None:
    notebook.cells[0].source = "No title"


def begin_with_code(notebook: Any) -> None:
    notebook.cells.insert(0, notebook.cells.pop(2))


def add_title(notebook: Any) -> None:
    notebook.cells[3].source += "\n\n# Second title\n"


def untag_parameters(notebook: Any) -> None:
    notebook.cells[2].metadata["tags"] = []


def compute_parameters(notebook: Any) -> None:
    notebook.cells[2].source += "\nseed = time()"


def change_default(notebook: Any) -> None:
    notebook.cells[2].source = PARAMETERS.replace("quick", "full")


def drop_parameter(notebook: Any) -> None:
    notebook.cells[2].source = PARAMETERS.replace('device = "auto"\n', "")


def drop_exercises(notebook: Any) -> None:
    notebook.cells[-1].source = "## Key takeaways\n\n## Next"


def hide_exercises_in_a_fence(notebook: Any) -> None:
    notebook.cells[-1].source = "## Key takeaways\n\n```text\n## Exercises\n```\n\n## Next"


def swap_headings(notebook: Any) -> None:
    notebook.cells[-1].source = "## Exercises\n\n## Key takeaways\n\n## Next"


def drop_claims(notebook: Any) -> None:
    notebook.cells[1].source = "## What it tests"


def lengthen_cell(notebook: Any) -> None:
    notebook.cells[4].source = "\n".join(f"x{n} = {n}" for n in range(26))


def pile_up_code(notebook: Any) -> None:
    notebook.cells[5:5] = [new_code_cell("a"), new_code_cell("b")]


def drop_prose(notebook: Any) -> None:
    for index in (3, 5, 8):
        notebook.cells[index].source = "Short."


def drown_code(notebook: Any) -> None:
    notebook.cells[3].source = PROSE * 100


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_title, "does not begin with its title"),
        (begin_with_code, "does not begin with its title"),
        (add_title, "more than one title: Title, Second title"),
        (untag_parameters, "0 cells tagged parameters"),
        (compute_parameters, "parameters that are not plain values"),
        (change_default, "profile is 'full', not 'quick'"),
        (drop_parameter, "device is None, not 'auto'"),
        (drop_exercises, "no heading 'Exercises'"),
        (hide_exercises_in_a_fence, "no heading 'Exercises'"),
        (swap_headings, "in another order"),
        (drop_claims, "no heading that names the claims"),
        (lengthen_cell, "cell [2] has 26 lines"),
        (pile_up_code, "cell [4] has 2 code cells and no prose before it"),
        (drop_prose, "words of prose for each line of code"),
        (drown_code, "words of prose for each line of code"),
    ],
)
def test_a_broken_chapter_is_reported(damage: Callable[[Any], None], told: str) -> None:
    notebook = chapter()
    damage(notebook)
    assert any(told in problem for problem in anatomy.problems(notebook)), anatomy.problems(
        notebook
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("12.3 tokens/s", "a rate"),
        ("107 t/s", "a rate"),
        ("38 GB/s", "a rate"),
        ("1.2 TFLOP/s", "a rate"),
        ("took 31 ms", "a time"),
        ("took 3.1 s", "a time"),
        ("at 12:41", "a time"),
        ("2.5 GiB free", "an amount of memory"),
        ("on 2026-11-23", "a date"),
        ("/home/zaphod/models", "a home folder"),
        ("/Users/trillian", "a home folder"),
        ("/root/.cache", "a home folder"),
        ("~/models", "a home folder"),
        ("in /tmp/x1", "a temporary folder"),
        ("<Llama object at 0x7f3a12bc4d>", "a memory address"),
    ],
)
@pytest.mark.parametrize("form", ["printed", "html"])
def test_a_stored_output_that_differs_by_machine_is_reported(
    text: str, what: str, form: str
) -> None:
    notebook = chapter()
    output = (
        new_output("stream", name="stdout", text=text)
        if form == "printed"
        else new_output("display_data", {"text/html": f"<td>{text}</td>"})
    )
    notebook.cells[4].outputs = [output]
    assert any(f"cell [2] stores {what}: " in problem for problem in anatomy.problems(notebook))


@pytest.mark.parametrize(
    "text",
    [
        "32 layers, 9 heads",
        "Q4_K_M 4.85 bits a weight",
        "held: 3 of 3 claims",
        "results/42-quantization-gguf.json",
        "98 MB",
        "0x1F",
        "2 steps, 5 seeds, 3 models",
        "https://example.org/home/x",
    ],
)
def test_an_output_that_is_the_same_everywhere_is_not_reported(text: str) -> None:
    notebook = chapter()
    notebook.cells[4].outputs = [new_output("stream", name="stdout", text=text)]
    assert anatomy.problems(notebook) == []


def test_an_author_can_say_that_figures_are_computed_but_not_that_paths_are() -> None:
    notebook = chapter()
    notebook.cells[4].metadata["tags"] = ["same-everywhere"]
    notebook.cells[4].outputs = [new_output("stream", name="stdout", text="3.50 GiB")]
    assert anatomy.problems(notebook) == []
    notebook.cells[4].outputs = [new_output("stream", name="stdout", text="/home/zaphod")]
    assert len(anatomy.problems(notebook)) == 1


# --- Rules for the chapters together --------------------------------------------------------

PAGES = frozenset({"../book/glossary.md"})


def book() -> dict[str, Any]:
    return {"11-first.ipynb": chapter(), "12-other.ipynb": chapter()}


def test_a_good_book_has_no_problem() -> None:
    assert anatomy.problems_across(book(), PAGES) == []


def test_a_link_to_nowhere_is_reported() -> None:
    chapters = book()
    chapters["11-first.ipynb"].cells[3].source += "[more](13-gone.ipynb)"
    assert anatomy.problems_across(chapters, PAGES) == [
        "11-first.ipynb links to 13-gone.ipynb, which does not exist"
    ]
    assert len(anatomy.problems_across(book(), frozenset())) == 2


def test_a_link_within_the_page_or_to_another_host_is_left_alone() -> None:
    chapters = book()
    chapters["11-first.ipynb"].cells[3].source += "[a](#exercises) [b](https://example.org/x)"
    assert anatomy.problems_across(chapters, PAGES) == []


def test_a_helper_defined_in_two_chapters_is_reported() -> None:
    chapters = book()
    for notebook in chapters.values():
        notebook.cells[6].source = "!ls\ndef helper():\n    return 1"
    assert anatomy.problems_across(chapters, PAGES) == [
        "helper is defined in 11-first.ipynb and in 12-other.ipynb; put it in guidebook/"
    ]


def test_a_function_redefined_within_one_chapter_is_fine() -> None:
    chapters = book()
    cell = chapters["11-first.ipynb"].cells[6]
    chapters["11-first.ipynb"].cells.append(copy.deepcopy(cell))
    cell.source = "def helper():\n    return 1"
    chapters["11-first.ipynb"].cells[-1].source = cell.source
    assert anatomy.problems_across(chapters, PAGES) == []
