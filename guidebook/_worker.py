"""The process that executes one chapter for :mod:`guidebook.runner`.

It reads its job as one line of JSON on standard input and reports as lines of JSON on standard
output. Standard input stays open as a lifeline: the runner never writes to it again, so the end
of the file means that the runner is gone, for whatever reason, ``kill -9`` included. The worker
then ends its kernel and itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

# Every process of a worker inherits this variable, so that each can be found and ended even when
# the process that started it is gone.
MARKER = "GUIDEBOOK_WORKER"

_KERNEL_START_TIMEOUT = 120
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Job:
    """One chapter to execute; all paths are relative to the worker's working directory."""

    source: str
    target: str
    shown_as: str
    parameters: dict[str, Any]
    cell_timeout: int
    scratch: str


@dataclass(frozen=True)
class ChapterError:
    """What made a chapter fail: the error's name and message, and the cell's number if known."""

    name: str
    message: str
    cell: int | None

    def __str__(self) -> str:
        place = "" if self.cell is None else f" in cell [{self.cell}]"
        return f"{self.name}{place}: {self.message}" if self.message else f"{self.name}{place}"


def main() -> int:
    """Execute the job on standard input; return the exit status."""
    job = Job(**json.loads(_read_line(0)))
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # From here on standard output is the log: a library that prints must not break the reports.
    os.dup2(2, 1)
    marker = os.environ[MARKER]
    threading.Thread(target=_end_with_the_runner, args=(marker, job.scratch), daemon=True).start()
    try:
        error = _execute(job, reports)
        _report(reports, event="end", error=None if error is None else asdict(error))
    finally:
        # A chapter may have started a server and failed before it stopped it.
        end_processes(marker)
    return 0


def end_processes(marker: str) -> None:
    """Kill every other process that carries a worker's marker, and what those have started."""
    import psutil

    # Repeated, because a process may start another one while this looks around. The second round
    # normally finds nothing; a process that cannot be killed must not keep this here for ever.
    for _ in range(20):
        found = [process for process in psutil.process_iter() if _carries(process, marker)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=0.5)


def scrub(text: str) -> str:
    """Take home folders, user names in paths, and the host's name out of a text."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    text = re.sub(r"(?<![\w.-])/(home|Users)/[^/\s\"'\\<>]+", r"/\1/user", text)
    text = re.sub(r"(/mnt/[a-z]/Users)/[^/\s\"'\\<>]+", r"\1/user", text)
    host = socket.gethostname()
    # A host called "laptop" is a word of the book, and names nobody.
    if re.search(r"[\d._-]", host) and not host.startswith("localhost"):
        text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "host", text)
    return text


def scrub_notebook(path: Path, shown_as: str) -> None:
    """Rewrite an executed notebook without anything that tells whose machine ran it."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    written_by_papermill = notebook.metadata.get("papermill", {})
    written_by_papermill.pop("environment_variables", None)
    written_by_papermill["input_path"] = shown_as
    written_by_papermill["output_path"] = Path(shown_as).name
    clean = nbformat.from_dict(_scrub_all(notebook))
    nbformat.write(clean, path)


def _execute(job: Job, reports: TextIO) -> ChapterError | None:
    # jsonschema would parse the grammar of all web addresses, for more than a second in each
    # chapter, to check a format that no notebook has. It does without what cannot be imported.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    import papermill

    def report_cell(*, cell_index: int, **_cell: object) -> None:
        _report(reports, event="cell", number=cell_index + 1, total=total)

    total = len(nbformat.read(job.source, as_version=4).cells)
    try:
        papermill.execute_notebook(
            job.source,
            job.target,
            parameters=job.parameters,
            kernel_name="python3",
            progress_bar=False,
            start_timeout=_KERNEL_START_TIMEOUT,
            execution_timeout=job.cell_timeout,
            on_cell_start=report_cell,
        )
    except papermill.PapermillExecutionError as error:
        return _chapter_error(error.ename, error.evalue, error.exec_count)
    except Exception as error:
        # Not the chapter's own error: a time limit, a dead kernel, a notebook that cannot be read.
        return _chapter_error(*_explain(error, job), _running_cell(Path(job.target)))
    finally:
        if Path(job.target).exists():
            scrub_notebook(Path(job.target), job.shown_as)
    return None


def _explain(error: Exception, job: Job) -> tuple[str, str]:
    name = type(error).__name__
    if name == "CellTimeoutError":
        return name, f"the cell took more than {job.cell_timeout} s"
    if name == "DeadKernelError":
        return name, "the kernel died, as it does when memory runs out or native code crashes"
    return name, str(error)


def _chapter_error(name: str, message: str, cell: int | None) -> ChapterError:
    text = " ".join(_ANSI.sub("", message).split())
    return ChapterError(name, scrub(text if len(text) <= 400 else f"{text[:399]}…"), cell)


def _running_cell(path: Path) -> int | None:
    """Return the number of the code cell that an unfinished notebook had reached."""
    import nbformat

    if not path.exists():
        return None
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    begun = [
        number
        for number, cell in enumerate(code, 1)
        if cell.metadata.get("papermill", {}).get("start_time")
    ]
    return max(begun, default=None)


def _end_with_the_runner(marker: str, scratch: str) -> None:
    os.read(0, 1)
    end_processes(marker)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def _carries(process: Any, marker: str) -> bool:  # noqa: ANN401 - psutil is imported late
    import psutil

    if process.pid == os.getpid():
        return False
    try:
        return bool(process.environ().get(MARKER) == marker)
    except (psutil.Error, OSError):  # ended meanwhile, or somebody else's
        return False


def _read_line(descriptor: int) -> str:
    # Unbuffered: a thread that waits in a buffered read would block the interpreter's exit.
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return line.decode()


def _report(reports: TextIO, **event: object) -> None:
    reports.write(json.dumps(event) + "\n")
    reports.flush()


def _scrub_all(value: Any) -> Any:  # noqa: ANN401 - maps whatever JSON can hold
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {key: _scrub_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrub_all(item) for item in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
