"""Questions to the planner as rows of a table, and its answers as the same rows, longer."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from guidebook import planner, units
from guidebook.planner import Answer, Case

ANSWER_COLUMNS = (
    "weights_bytes",
    "kv_cache_bytes",
    "compute_bytes",
    "overhead_bytes",
    "total_bytes",
    "fits",
    "tokens_per_second",
    "low",
    "high",
    "note",
)
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


class CasesError(ValueError):
    """A table of cases cannot be read at all; the message says why."""


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file.

    Raises
    ------
    CasesError
        The file cannot be read, is not text, or has no column ``hardware`` or ``architecture``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            missing = [name for name in ("hardware", "architecture") if name not in columns]
            if missing:
                raise CasesError(f"{path.name} has no column {' and no column '.join(missing)}.")
            # A row longer than the header has its rest under None.
            return [{k: v or "" for k, v in row.items() if k is not None} for row in reader]
    except OSError as error:
        raise CasesError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{path.name} is not a CSV file in UTF-8: {error}.") from error


def answer_rows(rows: Iterable[Mapping[str, str]], ram: str) -> list[dict[str, Any]]:
    """Answer every row; a row that cannot be answered says so in its ``note``."""
    return [answer_row(row, ram) for row in rows]


def answer_row(row: Mapping[str, str], ram: str) -> dict[str, Any]:
    """Return a row with the answer's columns; columns that are no question pass through."""
    try:
        answer = planner.answer(parse(row), ram)
    except ValueError as error:
        answer = Answer(note=str(error))
    return {**row, **_as_columns(answer)}


def parse(row: Mapping[str, str]) -> Case:
    """Read a question from a row; what is empty keeps its default.

    Raises
    ------
    ValueError
        A value is not what its column holds, or hardware or architecture is missing.
    """
    given: dict[str, Any] = {}
    for field in fields(Case):
        text = (row.get(field.name) or "").strip()
        if text:
            given[field.name] = _PARSERS.get(field.name, _whole)(field.name, text)
    for name in ("hardware", "architecture"):
        if name not in given:
            raise ValueError(f"{name} is empty. Give a name of the catalog.")
    # A prompt alone asks for prefill; the default of tokens to write is for rows without both.
    if given.get("n_prompt") and "n_generate" not in given:
        given["n_generate"] = 0
    return Case(**given)


def write(rows: Sequence[Mapping[str, Any]], stream: TextIO, *, as_json: bool) -> None:
    """Write answered rows as CSV or JSON."""
    if as_json:
        json.dump(rows, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
        return
    columns = dict.fromkeys(name for row in rows for name in row)
    columns = columns or dict.fromkeys(("hardware", "architecture", *ANSWER_COLUMNS))
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)


def show(row: Mapping[str, Any]) -> str:
    """Lay one answered row out for reading."""
    fits = {True: "yes", False: "no", None: units.UNKNOWN}[row["fits"]]
    lines = {
        "Weights": units.memory(row["weights_bytes"]),
        "KV cache": units.memory(row["kv_cache_bytes"]),
        "Compute buffers": units.memory(row["compute_bytes"]),
        "Runtime": units.memory(row["overhead_bytes"]),
        "Total": units.memory(row["total_bytes"]),
        "Fits": fits,
        "Speed": units.UNKNOWN,
        "90 % interval": units.UNKNOWN,
    }
    if row["tokens_per_second"] is not None:
        lines["Speed"] = units.quantity(row["tokens_per_second"], "tokens/s")
        lines["90 % interval"] = f"{units.number(row['low'])} to {units.number(row['high'])}"
    width = max(len(name) for name in lines)
    body = [f"{name:<{width}}  {value}" for name, value in lines.items()]
    if row["note"]:
        body += ["", row["note"]]
    # What is in a file stays as it is.
    if row["fits"] is False and not row["architecture"].endswith(".gguf"):
        body += ["", "To make it fit, in order of least harm:", *_changes(row)]
    return "\n".join(body)


def _changes(row: Mapping[str, Any]) -> Iterator[str]:
    """Say what each change saves; the last one is enough, if any is."""
    steps = planner.changes(parse({**row, "weights_bytes": ""}))
    for step in steps:
        enough = ", then it fits" if step.fits else ""
        yield f"  {step.change} (saves {units.memory(step.saved_bytes)}; costs {step.cost}){enough}"
    if not any(step.fits for step in steps):
        yield "  none of that is enough; take a smaller model, or more memory"


def _as_columns(answer: Answer) -> dict[str, Any]:
    found = {name: getattr(answer, name) for name in ANSWER_COLUMNS}
    for name in ("tokens_per_second", "low", "high"):
        if found[name] is not None:
            # Four digits: more than any interval is worth.
            found[name] = float(f"{found[name]:.4g}")
    return found


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _whole(name: str, text: str) -> int:
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}, not a whole number.") from error
    if value != value // 1:
        raise ValueError(f"{name} is {text!r}, not a whole number.")
    return int(value)


def _truth(name: str, text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"{name} is {text!r}. Give 1 or 0.")


def _text(_: str, text: str) -> str:
    return text


def _number_or_auto(name: str, text: str) -> int | None:
    return None if text.lower() == "auto" else _whole(name, text)


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "hardware": _text,
    "architecture": _text,
    "quant": _text,
    "kv_type": _text,
    "flash_attention": _truth,
    "n_cpu_moe": _number_or_auto,
    "kv_offload": _truth,
}
