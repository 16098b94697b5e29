"""Facts that carry a date and a source, in CSV files, with the reader's own on top.

What prices of devices and prices of rented GPUs have in common: an age, a date that may be a
day, a month or a year, and a file of the reader's that wins over the catalog.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

STALE_DAYS = 180

_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")


class Dated:
    """Something that was so on a date, ``as_of``, and may have changed since."""

    as_of: datetime.date

    def age_days(self, today: datetime.date) -> int:
        """Return the days since this was so."""
        return (today - self.as_of).days

    def is_stale(self, today: datetime.date, max_days: int = STALE_DAYS) -> bool:
        """Whether this is too old to decide by."""
        return self.age_days(today) > max_days


def own_file(path: Path | str | None, variable: str, columns: Sequence[str]) -> Path | None:
    """Return the reader's file, or None if there is none.

    Parameters
    ----------
    path
        The file, if the caller names one; else the environment variable does.
    variable
        Name of the environment variable.
    columns
        What the file must hold, for the message.

    Raises
    ------
    ValueError
        A file is named that is not there.
    """
    named_by = "the given path"
    if path is None:
        path = os.environ.get(variable) or None
        named_by = variable
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(
            f"{named_by} names {path}, which is not a file: "
            f"make a CSV file with the columns {', '.join(columns)}"
        )
    return Path(path)


def read_own(path: Path) -> str:
    """Return the text of a reader's file; spreadsheets put a byte order mark before it."""
    return path.read_text(encoding="utf-8-sig")


def bundled(file_name: str) -> str:
    """Return the text of a file of the catalog."""
    return resources.files("guidebook.catalog").joinpath(file_name).read_text(encoding="utf-8")


def rows(
    text: str,
    file_name: str,
    columns: Sequence[str],
    *,
    named_by: str,
    required: Sequence[str],
    may_lack: Sequence[str] = ("note",),
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a CSV text row by row.

    Parameters
    ----------
    text, file_name
        The file, and what to call it in a message.
    columns
        The columns to return; others are left out.
    named_by
        The column whose value names a row in a message.
    required
        Columns that must not be empty.
    may_lack
        Columns that the file need not have.

    Yields
    ------
    Where the row stands, for messages, and its cells without the white space around them.

    Raises
    ------
    ValueError
        A column is missing, a required cell is empty or the file is not CSV; the message names
        the row.
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    given = reader.fieldnames or ()
    missing = [column for column in columns if column not in given and column not in may_lack]
    if missing:
        raise ValueError(
            f"{file_name} has no column {', '.join(missing)}: "
            f"its first line must read {','.join(columns)}"
        )
    try:
        for row in reader:
            where = f"{file_name}, line {reader.line_num} ({row[named_by] or f'no {named_by}'})"
            yield where, _cells(row, where, columns, required)
    except csv.Error as error:
        raise ValueError(
            f"{file_name}, line {reader.line_num}: not readable as CSV: {error}"
        ) from error


def _cells(
    row: Mapping[str, str | None], where: str, columns: Sequence[str], required: Sequence[str]
) -> dict[str, str]:
    if None in row:
        raise ValueError(f"{where}: more fields than columns; put quotes around text with commas")
    cells = {column: (row.get(column) or "").strip() for column in columns}
    for column in required:
        if not cells[column]:
            raise ValueError(f"{where}: {column} is empty; every row needs one")
    return cells


def number(text: str, where: str, column: str, *, zero: bool = False, example: str = "1") -> float:
    """Return a number greater than 0, or from 0 on if ``zero``.

    Raises
    ------
    ValueError
        The text is not such a number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if (value == 0 and zero) or 0 < value < math.inf:
        return value
    kind = "a number from 0 on" if zero else "a number greater than 0"
    raise ValueError(f"{where}: {column} is {text!r}; give {kind}, such as {example}")


def date(text: str, where: str) -> datetime.date:
    """Return the first day of a day, a month or a year: the oldest that it can be.

    Raises
    ------
    ValueError
        The text is no date.
    """
    parts = _DATE.fullmatch(text)
    if parts:
        year, month, day = (int(part) if part else 1 for part in parts.groups())
        try:
            return datetime.date(year, month, day)
        except ValueError:
            pass
    raise ValueError(f"{where}: as_of is {text!r}; give a date such as 2026-11-23, 2026-11 or 2026")
