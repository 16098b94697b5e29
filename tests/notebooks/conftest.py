"""What the tests of the chapters share."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from guidebook import runner

SANITIZER = Path(__file__).parent / "sanitize.cfg"


@dataclass(frozen=True)
class Validation:
    """What nbval said about a notebook: its exit status, cells by outcome, and its words."""

    status: int
    cells: Counter[str]
    text: str


@pytest.fixture
def validate(tmp_path: Path) -> Callable[[Path], Validation]:
    """Return a function that runs nbval over a copy of a notebook.

    A copy in a folder of its own, because nbval starts the kernel beside the notebook, and a
    chapter writes its results there. With a pytest of its own, so that the cells' options and
    this project's settings stay apart.
    """

    def validate(notebook: Path) -> Validation:
        copy = tmp_path / "nbval" / notebook.name
        copy.parent.mkdir()
        copy.write_bytes(notebook.read_bytes())
        (copy.parent / "pytest.ini").write_text("[pytest]\n")
        report = tmp_path / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"),
            *("--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZER)),
            *("--nbval-cell-timeout", str(runner.CELL_TIMEOUT), f"--junitxml={report}", copy.name),
        ]
        ended = subprocess.run(
            command,
            cwd=copy.parent,
            env=runner.kernel_environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        cases = ET.parse(report).iter("testcase") if report.exists() else []
        outcomes = Counter(case[0].tag if len(case) else "passed" for case in cases)
        return Validation(ended.returncode, outcomes, ended.stdout + ended.stderr)

    return validate
