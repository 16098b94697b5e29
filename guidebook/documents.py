"""Short documents that are written once and read as text, Markdown or HTML.

A document is a list of blocks. The HTML page needs nothing but itself: no script, no other file,
no other host. It takes the browser's own colours, light or dark.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from guidebook import units
from guidebook.tables import Table

_WIDTH = 96
_WIDEST = 120
_SPECIAL = re.compile(r"([\\`*\[\]|<>])")
_STYLE = """\
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; line-height: 1.5; margin: 0; }
main { margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
caption { padding: 0.4rem 0; text-align: left; }
th, td { border-bottom: 1px solid; padding: 0.3rem 0.6rem; vertical-align: top; }
th { vertical-align: bottom; }
th, td { overflow-wrap: normal; }
td.number { white-space: nowrap; }
pre, .scroll { overflow-x: auto; }
pre { border: 1px solid; padding: 0.5rem; }
@media print { .scroll, pre { overflow: visible; white-space: pre-wrap; } }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the document's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of plain texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Commands to type, one a line."""

    text: str


Block = Heading | Paragraph | Items | Code | Table


def text(blocks: Sequence[Block]) -> str:
    """Write a document for a terminal."""
    return "\n\n".join(_as_text(block) for block in blocks)


def markdown(blocks: Sequence[Block]) -> str:
    """Write a document as Markdown with tables."""
    return "\n\n".join(_as_markdown(block) for block in blocks) + "\n"


def html(blocks: Sequence[Block]) -> str:
    """Write a document as a piece of a page, for a notebook."""
    return "\n".join(_as_html(block, number) for number, block in enumerate(blocks))


def page(blocks: Sequence[Block], title: str) -> str:
    """Write a document as a page of its own.

    Parameters
    ----------
    blocks
        The document, beginning with its heading of level 1.
    title
        For the browser's tab.
    """
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
{html(blocks)}
</main>
</body>
</html>
"""


def _as_text(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"{words}\n{('=' if level == 1 else '-') * len(words)}"
        case Paragraph(words):
            return textwrap.fill(words, _WIDTH, break_on_hyphens=False, break_long_words=False)
        case Items(texts):
            return "\n".join(_item(words) for words in texts)
        case Code(words):
            return textwrap.indent(words, "    ")
        case Table():
            return _text_table(block)


def _text_table(block: Table) -> str:
    """Write a table in columns, or, where that is too wide for a terminal, row by row."""
    shown = str(block)
    if max(map(len, shown.splitlines())) <= _WIDEST:
        return shown
    parts = [block.caption] if block.caption else []
    for row in block.rows:
        first, *others = ((name, _cell(cell)) for name, cell in row.items())
        parts.append("\n".join([_item(first[1]), *(_item(f"{n}: {c}", "    ") for n, c in others)]))
    return "\n\n".join(parts)


def _item(words: str, indent: str = "") -> str:
    return textwrap.fill(
        words,
        _WIDTH,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _as_markdown(block: Block) -> str:
    match block:
        case Heading(words, level):
            return f"{'#' * level} {_escaped(words)}"
        case Paragraph(words):
            return _escaped(words)
        case Items(texts):
            return "\n".join(f"- {_escaped(words)}" for words in texts)
        case Code(words):
            return f"```console\n{words}\n```"
        case Table():
            return _markdown_table(block)


def _markdown_table(block: Table) -> str:
    columns = block.columns
    rows = [columns, ["---"] * len(columns)]
    rows += [[_cell(row.get(name)) for name in columns] for row in block.rows]
    lines = [
        f"| {' | '.join(cells if cells[0] == '---' else map(_escaped, cells))} |" for cells in rows
    ]
    return "\n".join([f"{_escaped(block.caption)}\n"] * bool(block.caption) + lines)


def _cell(cell: object) -> str:
    return units.UNKNOWN if cell is None else str(cell)


def _as_html(block: Block, number: int) -> str:
    match block:
        case Heading(words, level):
            return f"<h{level}>{escape(words)}</h{level}>"
        case Paragraph(words):
            return f"<p>{escape(words)}</p>"
        case Items(texts):
            return "<ul>" + "".join(f"<li>{escape(words)}</li>" for words in texts) + "</ul>"
        case Code(words):
            # It scrolls where a screen is narrow, so the keyboard must reach it.
            return f'<pre tabindex="0"><code>{escape(words)}</code></pre>'
        case Table():
            name = escape(block.caption or f"Table {number}", quote=True)
            return (
                f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">'
                f"{block._repr_html_()}</div>"
            )


def _escaped(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(words.split()))
