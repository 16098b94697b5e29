"""The parts of tools/bootstrap.py. Standard library only, syntax of Python 3.6."""

import subprocess


class Problem(Exception):
    """Set-up can't go on: one sentence with what is wrong and what to type."""


def output_of(command: "list[str]", seconds: float = 10) -> str:
    """Return what a short command prints, or nothing if it fails, hangs or isn't there."""
    try:
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=seconds
        ).decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""
