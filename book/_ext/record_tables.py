"""The ``record-table`` directive: the records of ``records/``, side by side.

Its argument says which table: ``machines``, ``verdicts`` or ``speeds``. The tables are made by
:mod:`guidebook.compare` at every build, so a new record appears without an edit here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sphinx.application import Sphinx

_KINDS = ("machines", "verdicts", "speeds")


def table(rows: Sequence[Mapping[str, object]], caption: str) -> nodes.table:
    """Return rows of cells as a table; every row names the columns in the same order."""
    columns = list(rows[0])
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    group += nodes.thead("", _row(columns))
    group += nodes.tbody("", *(_row([str(row[name]) for name in columns]) for row in rows))
    return nodes.table("", nodes.title("", caption), group, classes=["colwidths-auto"])


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))


class RecordTable(SphinxDirective):
    """Show one of the tables of all records."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {"caption": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the table, or a sentence where there is no record yet."""
        from guidebook import compare, records

        kind = directives.choice(self.arguments[0], _KINDS)
        folder = Path(self.env.srcdir) / "records"
        for path in [folder, *sorted(folder.glob("*.json"))]:
            self.env.note_dependency(str(path))
        try:
            found = records.load_all(folder)
        except records.RecordError as error:
            raise self.error(str(error)) from error
        rows = getattr(compare, kind)(found)
        if not rows:
            return [nodes.paragraph("", "There is no record yet.")]
        return [table(rows, self.options.get("caption", "Records"))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("record-table", RecordTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
