"""The rules that every chapter keeps, so that readers find the same things in the same places.

Each rule is a function from a notebook to the sentences that say where it is broken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from guidebook.lean import IGNORE_OUTPUT

# A compared cell with this tag shows figures that are computed, not measured, and so come out the
# same on every machine.
SAME_EVERYWHERE = "same-everywhere"

PARAMETERS: Mapping[str, object] = {
    "model": "embedded",
    "device": "auto",
    "profile": "quick",
    "results_dir": "results",
}
MAX_LINES = 25
MAX_CODE_IN_A_ROW = 2
WORDS_PER_LINE = (6.0, 30.0)
# Headings that every chapter has, in this order.
HEADINGS = ("If it fails", "Key takeaways", "Exercises", "Next")

Notebook = Any

_MEASURED = {
    "a rate": r"\d[ \xa0]?(?:tokens?|tok|t|GB|GiB|MB|MiB|[GTM]?FLOPS?|it)/s\b",
    "a time": r"\d[ \xa0]?(?:ns|µs|us|ms|s|sec|seconds|min|minutes)\b|\b\d\d?:\d\d(?::\d\d)?\b",
    "an amount of memory": r"\d[ \xa0]?GiB\b",
    "a date": r"\b20\d\d-\d\d-\d\d\b",
}
_PERSONAL = {
    "a home folder": r"(?<![\w.-])/(?:home|Users)/\w|(?<![\w/])/root\b|(?<!\w)~/\w|\\Users\\",
    "a temporary folder": r"(?<![\w.])/(?:tmp|var/folders|private/var)/",
    "a memory address": r"\b0x[0-9a-fA-F]{6,}\b",
}
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def problems(notebook: Notebook) -> list[str]:
    """Say which rules a chapter breaks; an empty list is a chapter that keeps them all."""
    return [
        problem
        for rule in (_opening, _parameters, _headings, _lengths, _rhythm, _measure, _outputs)
        for problem in rule(notebook)
    ]


def problems_across(notebooks: Mapping[str, Notebook], pages: frozenset[str]) -> list[str]:
    """Say which rules the chapters break together.

    Parameters
    ----------
    notebooks
        Every chapter by its file name.
    pages
        The files outside ``notebooks/`` that a chapter may link to, relative to it, such as
        ``../book/glossary.md``.
    """
    return [*_links(notebooks, pages), *_helpers(notebooks)]


def _opening(notebook: Notebook) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "does not begin with its title"
    titles = [text for level, text in _heading_lines(notebook) if level == 1]
    if len(titles) > 1:
        yield f"has more than one title: {', '.join(titles)}"


def _parameters(notebook: Notebook) -> Iterator[str]:
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"has {len(tagged)} cells tagged parameters, not one"
        return
    try:
        values = {
            target.id: ast.literal_eval(statement.value)
            for statement in ast.parse(tagged[0].source).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError):
        yield "has parameters that are not plain values"
        return
    for name, default in PARAMETERS.items():
        if values.get(name) != default:
            yield f"its parameter {name} is {values.get(name)!r}, not {default!r}"


def _headings(notebook: Notebook) -> Iterator[str]:
    present = [text for _, text in _heading_lines(notebook)]
    missing = [heading for heading in HEADINGS if heading not in present]
    for heading in missing:
        yield f"has no heading {heading!r}"
    places = [present.index(heading) for heading in HEADINGS if heading in present]
    if places != sorted(places):
        yield f"has its headings in another order than {', '.join(HEADINGS)}"
    if not any("claim" in text.lower() for text in present):
        yield "has no heading that names the claims it tests"


def _lengths(notebook: Notebook) -> Iterator[str]:
    for number, cell in _code(notebook):
        lines = len(cell.source.splitlines())
        if lines > MAX_LINES:
            yield f"cell [{number}] has {lines} lines; {MAX_LINES} are the most"


def _rhythm(notebook: Notebook) -> Iterator[str]:
    in_a_row = 0
    number = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            in_a_row = 0
            continue
        number += 1
        in_a_row += 1
        if in_a_row == MAX_CODE_IN_A_ROW + 1:
            yield f"cell [{number}] has {MAX_CODE_IN_A_ROW} code cells and no prose before it"
    for cell, after in pairwise(notebook.cells):
        if cell.cell_type == after.cell_type == "code" and "parameters" in _tags(after):
            yield "has no prose before its parameters"


def _measure(notebook: Notebook) -> Iterator[str]:
    lines = sum(
        1
        for _, cell in _code(notebook)
        for line in cell.source.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    )
    words = sum(
        len(re.findall(r"\b\w[\w’'-]*", cell.source))
        for cell in notebook.cells
        if cell.cell_type == "markdown"
    )
    low, high = WORDS_PER_LINE
    if lines and not low <= words / lines <= high:
        yield (
            f"has {words / lines:.1f} words of prose for each line of code; "
            f"from {low:g} to {high:g} read well"
        )


def _outputs(notebook: Notebook) -> Iterator[str]:
    for number, cell in _code(notebook):
        if IGNORE_OUTPUT in _tags(cell):
            continue
        text = "\n".join(_output_texts(cell))
        patterns = dict(_PERSONAL)
        if SAME_EVERYWHERE not in _tags(cell):
            patterns |= _MEASURED
        for what, pattern in patterns.items():
            if match := re.search(pattern, text):
                yield f"cell [{number}] stores {what}: {_around(text, match)!r}"


def _links(notebooks: Mapping[str, Notebook], pages: frozenset[str]) -> Iterator[str]:
    known = set(notebooks) | pages
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            if cell.cell_type != "markdown":
                continue
            for target in _LINK.findall(cell.source):
                if not re.match(r"[a-z]+:", target) and target not in known:
                    yield f"{name} links to {target}, which does not exist"


def _helpers(notebooks: Mapping[str, Notebook]) -> Iterator[str]:
    defined: dict[str, str] = {}
    for name, notebook in notebooks.items():
        for _, cell in _code(notebook):
            for node in ast.walk(ast.parse(_python(cell.source))):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    continue
                other = defined.setdefault(node.name, name)
                if other != name:
                    yield f"{node.name} is defined in {other} and in {name}; put it in guidebook/"


def _python(source: str) -> str:
    """Return a cell's source without IPython's own lines."""
    return "\n".join(
        "pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()
    )


def _code(notebook: Notebook) -> Iterator[tuple[int, Any]]:
    return enumerate((c for c in notebook.cells if c.cell_type == "code"), 1)


def _heading_lines(notebook: Notebook) -> list[tuple[int, str]]:
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        # A `#` inside a fenced block is a comment of its language.
        prose = re.sub(r"^(`{3,}).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
        found += [
            (len(marks), text.strip())
            for marks, text in re.findall(r"^(#{1,6}) +(.+?) *$", prose, re.MULTILINE)
        ]
    return found


def _output_texts(cell: Any) -> Iterator[str]:  # noqa: ANN401 - a notebook node
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield from (str(text) for text in output.get("data", {}).values())


def _around(text: str, match: re.Match[str]) -> str:
    start = max(match.start() - 10, 0)
    return " ".join(text[start : match.end() + 10].split())


def _tags(cell: Any) -> list[str]:  # noqa: ANN401 - a notebook node
    return list(cell.metadata.get("tags", []))
