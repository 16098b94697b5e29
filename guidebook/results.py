"""A chapter's measurements and verdicts as one JSON file, checked against a schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from guidebook.writing import write_whole

SCHEMA_VERSION = 1


class ResultsError(ValueError):
    """A results file is missing, unreadable or not what the schema asks for."""


def validate(results: Mapping[str, Any]) -> None:
    """Check results against ``results.schema.json``.

    Raises
    ------
    ResultsError
        Names the first place that differs from the schema.
    """
    import jsonschema

    schema = json.loads(files("guidebook").joinpath("results.schema.json").read_text("utf-8"))
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(results)
    )
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise ResultsError(f"The results are not valid at {place}: {error.message}")


def save(results: Mapping[str, Any], path: Path) -> Path:
    """Validate results and write them so that no reader ever sees half a file."""
    validate(results)
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    return write_whole(f"{text}\n", path)


def load(path: Path) -> dict[str, Any]:
    """Read and validate a results file.

    Raises
    ------
    ResultsError
        The file is missing, not JSON, or not valid; the message names it.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"There is no results file {path.name}.") from error
    except (OSError, ValueError) as error:
        raise ResultsError(f"The results file {path.name} cannot be read: {error}.") from error
    if not isinstance(results, dict):
        raise ResultsError(f"The results file {path.name} does not hold a JSON object.")
    validate(results)
    return results


def finite(value: Any) -> Any:  # noqa: ANN401 - maps whatever JSON can hold
    """Replace NaN and infinities by ``None``, which JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
