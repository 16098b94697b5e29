"""Machines for the tests of the doctor: recorded ones, with what a test changes about them."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guidebook.doctor.facts import Facts, Need, gather
from guidebook.doctor.model import Check, Finding
from guidebook.doctor.probe import Output
from guidebook.doctor.recorded import RecordedProbe

MACHINES = Path(__file__).parents[1] / "data" / "doctor" / "machines"

# Bases for changes: nothing is wrong with either, but for what the second one is about.
PROCESSOR = "healthy-cpu-only"
GPU = "llama-cpp-without-cuda"


def record(name: str = PROCESSOR, **parts: Mapping[str, Any]) -> dict[str, Any]:
    """Read a recorded machine, and change parts of it; None takes an entry away."""
    found = tomllib.loads((MACHINES / f"{name}.toml").read_text("utf-8"))
    for part, changes in parts.items():
        table = found.setdefault(part, {})
        table.update(changes)
        found[part] = {key: value for key, value in table.items() if value is not None}
    return found


def machine(name: str = PROCESSOR, **parts: Mapping[str, Any]) -> RecordedProbe:
    return RecordedProbe(record(name, **parts), MACHINES)


def run(
    checks: tuple[Check, ...],
    check_id: str,
    probe: RecordedProbe,
    needs: tuple[Need, ...] = (),
    facts: Facts | None = None,
) -> Finding:
    """Make one check, whatever the others say."""
    (check,) = (one for one in checks if one.id == check_id)
    return check.run(probe, facts or gather(probe, needs))


def installed(name: str = PROCESSOR, **changes: Any) -> dict[str, str]:
    """Change what is recorded of the installed packages.

    A version of None takes a package away; other names than packages are parts of the answer.
    """
    data = json.loads(record(name)["python"]["installed"])
    for key, value in changes.items():
        package = key.replace("_", "-")
        if key in data:
            data[key] = value
            continue
        rows = [row for row in data["distributions"] if row[0] != package]
        if value is not None:
            rows.append([package, value, "environment", "pip"])
        data["distributions"] = rows
    return {"installed": json.dumps(data)}


def tried(name: str = PROCESSOR, **changes: Any) -> dict[str, Any]:
    """Change what is recorded of PyTorch and bitsandbytes; None takes a line away."""
    found: dict[str, dict[str, Any]] = {}
    for line in record(name)["python"]["torch"].splitlines():
        if line.strip():
            found.update(json.loads(line))
    for part, change in changes.items():
        if change is None:
            found.pop(part, None)
        elif part in found:
            found[part] = {**found[part], **change}
        else:
            found[part] = change
    return {"torch": "\n".join(json.dumps({key: value}) for key, value in found.items())}


def failed(error: str, code: int = 1) -> dict[str, Any]:
    return {"status": "failed", "code": code, "error": error}


STATUSES = (
    {"status": "missing"},
    {"status": "not executable"},
    {"status": "timed out"},
    {"status": "unreadable"},
    {"status": "failed", "code": -11},
    {"text": "\x1b[1mÿþ{]}\n[1, 2]\nnull"},
    {"text": ""},
)


def output(text: str) -> Output:
    return Output("ok", text, code=0)
