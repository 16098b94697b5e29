"""A results file is whole and valid, or there is none."""

from __future__ import annotations

import json
import math

import pytest

from guidebook import results
from guidebook.results import ResultsError

VALID = {
    "schema_version": 1,
    "chapter": "11-your-machine",
    "created": "2026-11-23T12:00:00Z",
    "guidebook": "0.1.0",
    "parameters": {"model": "embedded", "device": "cpu", "profile": "quick"},
    "machine": {},
    "measurements": {
        "decode": {
            "unit": "tokens/s",
            "samples": [1.0, 2.0],
            "median": 1.5,
            "low": 1.0,
            "high": 2.0,
            "repetitions": 2,
        }
    },
    "claims": [{"id": "x", "outcome": "held", "evidence": {"a": [1.0]}, "because": ""}],
}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = results.save(VALID, tmp_path / "new" / "11-your-machine.json")
    assert results.load(path) == VALID
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"chapter": "My chapter"}, "chapter"),
        ({"schema_version": 2}, "schema_version"),
        ({"claims": [{"id": "x", "outcome": "maybe", "evidence": {}, "because": ""}]}, "outcome"),
        ({"hostname": "laptop"}, "top level"),
    ],
)
def test_an_invalid_result_is_named_and_writes_nothing(tmp_path, change, place):
    with pytest.raises(ResultsError, match=place):
        results.save({**VALID, **change}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = results.save(VALID, tmp_path / "x.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.save({**VALID, "parameters": {**VALID["parameters"], "t": math.nan}}, path)
    assert results.load(path) == VALID


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\xff"])
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ResultsError, match=r"x\.json"):
        results.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"no results file x\.json"):
        results.load(tmp_path / "x.json")


def test_numbers_that_json_cannot_say_become_null():
    assert results.finite({"a": [math.nan, 1.0], "b": math.inf}) == {"a": [None, 1.0], "b": None}
    json.dumps(results.finite({"a": math.nan}), allow_nan=False)
