"""Tables that read in a notebook, on the site and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Rows of cells with a caption; text columns left, numeric columns right."""

    rows: Sequence[Mapping[str, object]]
    caption: str = ""

    @property
    def columns(self) -> list[str]:
        """Column names in the order in which the rows first use them."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __str__(self) -> str:
        from tabulate import tabulate

        cells = [[_text(row.get(name)) for name in self.columns] for row in self.rows]
        aligned = ["right" if self._is_numeric(name) else "left" for name in self.columns]
        body = tabulate(
            cells, self.columns, tablefmt="simple", colalign=aligned, disable_numparse=True
        )
        return f"{self.caption}\n\n{body}" if self.caption else body

    __repr__ = __str__

    def _repr_html_(self) -> str:
        numeric = {name: self._is_numeric(name) for name in self.columns}
        head = "".join(
            f'<th scope="col"{_align(numeric[name])}>{escape(name)}</th>' for name in self.columns
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{_align(numeric[name])}>{escape(_text(row.get(name)))}</td>"
                for name in self.columns
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<table class="guidebook-table">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def _is_numeric(self, column: str) -> bool:
        cells = [_text(row[column]) for row in self.rows if row.get(column) is not None]
        return bool(cells) and all(cell[:1].isdigit() or cell[:1] in "-−+" for cell in cells)


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> Table:
    """Make a table from rows given as mappings from column name to cell.

    Cells are shown as they are: format numbers with :mod:`guidebook.units` first, so that each
    carries its unit. ``None`` is shown as "unknown".

    Raises
    ------
    ValueError
        There are no rows.
    """
    if not rows:
        raise ValueError("A table needs at least one row.")
    return Table(rows, caption)


def _text(cell: object) -> str:
    return "unknown" if cell is None else str(cell)


def _align(numeric: bool) -> str:
    return ' class="number" style="text-align: right"' if numeric else ' style="text-align: left"'
