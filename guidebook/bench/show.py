"""A report as tables: in a notebook, in a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from guidebook import units
from guidebook.tables import Table, table

if TYPE_CHECKING:
    from guidebook.bench.results import Report, Result
    from guidebook.measure import Measurement

_NONE = "–"


def comparison(report: Report) -> Table | None:
    """Return the main table, or ``None`` if nothing was measured."""
    shown = [result for result in report.results if result.time_to_first_token is not None]
    if not shown:
        return None
    columns: dict[str, Callable[[Result], str | None]] = {
        "runtime": lambda one: one.label,
        "weights": lambda one: one.weights or _NONE,
        "first token": lambda one: _seconds(one.time_to_first_token),
        "prefill (tokens/s)": lambda one: _speed(one.prefill),
        "decode (tokens/s)": lambda one: _speed(one.decode),
        "between tokens p50": lambda one: units.duration(one.inter_token_latency_p50),
        "p95": lambda one: units.duration(one.inter_token_latency_p95),
        "peak memory": lambda one: units.memory(one.peak_rss_bytes),
    }
    if any(one.peak_vram_bytes for one in shown):
        columns["peak VRAM"] = lambda one: units.memory(one.peak_vram_bytes)
    if any(one.load_cold for one in shown):
        columns["load, cold file"] = lambda one: _seconds(one.load_cold)
    if any(one.load_warm for one in shown):
        columns["load, warm file"] = lambda one: _seconds(one.load_warm)
    settings = report.settings
    return table(
        [{name: value(one) for name, value in columns.items()} for one in shown],
        f"{settings.n_prompt} prompt tokens, {settings.n_generate} generated, "
        f"median of {settings.repetitions} (lowest to highest)",
    )


def reported(report: Report) -> Table | None:
    """Return what the runtimes say themselves beside what was measured from outside."""
    rows = []
    for one in report.results:
        if one.reported_prefill is None and one.reported_decode is None:
            continue
        row = {
            "runtime": one.label,
            "prefill, ours": _median(one.prefill),
            "prefill, its own": _median(one.reported_prefill),
            "decode, ours": _median(one.decode),
            "decode, its own": _median(one.reported_decode),
        }
        if any(other.reported_load for other in report.results):
            row["load, its own"] = _seconds(one.reported_load)
        rows.append({**row, "its source": one.reported_source or _NONE})
    return table(rows, "Measured from outside, and reported (tokens/s)") if rows else None


def concurrency(report: Report) -> Table | None:
    """Return how servers do with several requests at once."""
    rows = [
        {
            "runtime": one.label,
            "at once": str(n),
            "all together (tokens/s)": units.number(row.tokens_per_second),
            "each (tokens/s)": _median(row.decode),
            "first token, median": units.duration(row.time_to_first_token.median),
            "slowest": units.duration(row.time_to_first_token.high),
        }
        for one in report.results
        for n, row in one.concurrency.items()
    ]
    return table(rows, "Several requests at once") if rows else None


def text(report: Report) -> str:
    """Return the report for a terminal."""
    parts = [summary(report), *(str(one) for one in _tables(report))]
    parts += ["\n".join(notes(report))] if notes(report) else []
    return "\n\n".join(parts)


def html(report: Report) -> str:
    """Return the report for a notebook."""
    tables = "".join(one._repr_html_() for one in _tables(report))
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes(report))
    below = f"<ul>{listed}</ul>" if listed else ""
    return f"<div>{tables}{below}</div>"


def markdown(report: Report) -> str:
    """Return the report as GitHub's Markdown."""
    parts = [summary(report)]
    for one in _tables(report):
        lines = [_line(one.columns), _line(["---"] * len(one.columns))]
        lines += [_line([row.get(name) for name in one.columns]) for row in one.rows]
        parts.append(f"{one.caption}\n\n" + "\n".join(lines))
    if notes(report):
        parts.append("\n".join(f"- {note}" for note in notes(report)))
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """Say in a line what was measured where and when."""
    models = list(dict.fromkeys(one.model for one in report.results if one.model))
    hardware = report.machine
    parts = [
        ", ".join(models) or "no model",
        str(hardware.get("cpu") or "unknown processor"),
        f"{units.memory(hardware.get('memory_bytes'))} memory",
        *hardware.get("gpus", []),
        str(hardware.get("os") or "unknown system"),
        f"guidebook {report.versions.get('guidebook', units.UNKNOWN)}",
        report.date,
    ]
    return "; ".join(parts)


def notes(report: Report) -> list[str]:
    """Return what to know about the figures: a sentence each, failures first."""
    found = [f"{one.label} failed: {one.failed}" for one in report.results if one.failed]
    found += [f"{one.label}: {note}" for one in report.results for note in one.notes]
    if report.interrupted:
        found.append("The benchmark was stopped before its end.")
    return found


def _tables(report: Report) -> list[Table]:
    made = (comparison(report), reported(report), concurrency(report))
    return [one for one in made if one is not None]


def _seconds(measured: Measurement | None) -> str:
    return _NONE if measured is None else units.duration(measured.median)


def _speed(measured: Measurement | None) -> str:
    if measured is None:
        return _NONE
    low, high = units.number(measured.low), units.number(measured.high)
    return f"{units.number(measured.median)} ({low} to {high})"


def _median(measured: Measurement | None) -> str:
    return _NONE if measured is None else units.number(measured.median)


def _line(cells: Sequence[Any]) -> str:
    shown = (units.UNKNOWN if cell is None else str(cell) for cell in cells)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in shown) + " |"
