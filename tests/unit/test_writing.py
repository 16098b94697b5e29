"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from guidebook.writing import write_whole


def test_a_written_file_can_be_read_by_others(tmp_path: Path):
    path = write_whole("text", tmp_path / "new" / "x.txt")
    assert path.read_text() == "text"
    assert path.stat().st_mode & 0o044 == 0o044


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    path = write_whole("old", tmp_path / "x.txt")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_whole("new", path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["x.txt"]
