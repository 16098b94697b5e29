"""Execute chapters and write them back in the lean form that is committed.

``python tools/lean.py notebooks/*.ipynb`` executes each chapter with its own parameters and
stores only what must come out the same on every machine. ``--check`` executes nothing: it says
where a chapter is not lean, was edited since, or breaks a rule of ``guidebook.anatomy``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from guidebook import anatomy, lean, runner
from guidebook.cli import progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if every chapter is in order, 1 if not, 2 on bad usage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--check", action="store_true", help="execute nothing, only check")
    options = parser.parse_args(arguments)
    try:
        paths = runner.find_chapters([str(path) for path in options.notebooks])
        return check(paths) if options.check else execute(paths)
    except runner.RunError as error:
        print(f"lean: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def check(paths: Sequence[Path]) -> int:
    """Print each chapter's problems; return 1 if there are any."""
    found = False
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for problem in [*lean.problems(notebook), *anatomy.problems(notebook)]:
            print(f"{path.name}: {problem}")
            found = True
    return int(found)


def execute(paths: Sequence[Path]) -> int:
    """Execute chapters in a folder of their own and write their lean form; return 1 on failure."""
    failed = False
    with tempfile.TemporaryDirectory(prefix="lean-") as folder:
        out = Path(folder)
        summary = runner.run(paths, out=out, observer=progress(len(paths)))
        if summary.interrupted:
            return summary.exit_code
        for path, run in zip(paths, summary.runs, strict=True):
            if run.error is not None:
                failed = True
                continue
            executed = nbformat.read(out / "notebooks" / path.name, as_version=4)
            try:
                notebook = lean.leanify(executed, nbformat.read(path, as_version=4))
            except lean.LeanError as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                failed = True
                continue
            path.write_text(lean.to_text(notebook), encoding="utf-8")
    # What was stored may still break a rule, such as a measured figure in a compared output.
    return max(int(failed), check(paths))


if __name__ == "__main__":
    sys.exit(main())
