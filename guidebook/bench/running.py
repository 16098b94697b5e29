"""Runs a benchmark: one child process after the other, each with a time limit."""

from __future__ import annotations

import contextlib
import json
import platform
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import guidebook
from guidebook import lifeline
from guidebook.bench import loading, results
from guidebook.bench.plan import PUBLIC_OPTIONS, Contender, Settings, check_labels, shown_model

TIME_LIMIT = 900.0
_REQUEST_SECONDS = 300.0
_POLL_SECONDS = 0.2
_WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "guidebook.bench.worker")
_PATH = re.compile(r"(?<![\w.:/~])~?(?:/[^\s/'\"`;,:()]+)+/?|(?i:\b[a-z]:\\[^\s'\"`;,:()]+)")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Progress:
    """What a benchmark is at: a contender, its number of all, and what it does now."""

    label: str
    number: int
    total: int
    stage: str

    def __str__(self) -> str:
        return f"[{self.number}/{self.total}] {self.label}: {self.stage}"


def run(
    contenders: Sequence[Contender],
    settings: Settings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    time_limit: float = TIME_LIMIT,
) -> results.Report:
    """Measure contenders one after the other, each in a process of its own.

    Whatever happens to one of them, a crash or a hang included, is a sentence in its result, and
    the others have their turn. Ctrl-C ends the one that runs and returns what there is.

    Parameters
    ----------
    contenders
        What to compare; each with a label of its own.
    settings
        How; the defaults if left out.
    progress
        Called whenever a contender comes to its next step.
    time_limit
        Seconds for one contender, its loads included.

    Raises
    ------
    guidebook.bench.BenchError
        There is no contender, or two have the same label.
    """
    check_labels(contenders)
    settings = settings or Settings()
    found: list[results.Result] = []
    lengths: list[int] | None = None
    interrupted = False
    for number, contender in enumerate(contenders, 1):

        def tell(stage: str, number: int = number, label: str = contender.label) -> None:
            if progress is not None:
                progress(Progress(label, number, len(contenders), stage))

        turn = _Turn(contender, settings, lengths, time_limit, tell)
        try:
            turn.run()
        except KeyboardInterrupt:
            interrupted = True
            turn.failed = turn.failed or "It was stopped."
        found.append(turn.result())
        lengths = turn.lengths
        if interrupted:
            break
    return results.Report(
        results=tuple(found),
        settings=settings,
        machine=_machine(),
        versions=_versions(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        interrupted=interrupted,
    )


def without_private(text: str, contender: Contender) -> str:
    """Take paths, addresses, hosts and keys out of a message."""
    for name in ("base_url", "host"):
        given = str(contender.options.get(name) or "")
        address = urlsplit(given if "//" in given else f"//{given}")
        if address.hostname and address.hostname not in _LOOPBACK:
            text = text.replace(address.netloc, "<server>").replace(address.hostname, "<server>")
    key = contender.options.get("api_key")
    if key:
        text = text.replace(str(key), "<key>")
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)


class _Turn:
    """One contender's turn: its process, and what that has reported so far."""

    def __init__(
        self,
        contender: Contender,
        settings: Settings,
        lengths: list[int] | None,
        time_limit: float,
        tell: Callable[[str], None],
    ) -> None:
        self.contender = contender
        self.settings = settings
        self.lengths = lengths
        self.time_limit = time_limit
        self.failed: str | None = None
        self._tell = tell
        self._stage = "starting"
        self._source = loading.Source(model=shown_model(contender.model))
        self._events: list[Mapping[str, Any]] = []

    def run(self) -> None:
        """Find the model, start the process, and read its reports to the end."""
        from guidebook.gguf_files import GgufError
        from guidebook.models import ModelError

        self._tell("looking for the model")
        try:
            self._source = loading.find(self.contender)
        except (ModelError, GgufError, OSError) as error:
            self.failed = str(error)
            return
        try:
            child = lifeline.start(_WORKER, keep_stdout=False)
        except OSError as error:
            self.failed = f"Its process could not be started ({error})."
            return
        try:
            self._watch(child)
        finally:
            lifeline.end(child)

    def result(self) -> results.Result:
        """Return what there is, however far it got."""
        contender, source = self.contender, self._source
        options = {
            name: value for name, value in contender.options.items() if name in PUBLIC_OPTIONS
        }
        failed = None if self.failed is None else without_private(self.failed, contender)
        return results.build(
            contender.label,
            contender.engine,
            [self._clean(event) for event in self._events],
            self.settings,
            model=source.model,
            weights=source.weights,
            weights_bytes=source.n_bytes,
            options=options,
            failed=failed,
        )

    def _watch(self, child: lifeline.Child) -> None:
        job = {
            "contender": self.contender.to_dict(),
            "settings": self.settings.to_dict(),
            "source": asdict(self._source),
            "lengths": self.lengths,
            "time_limit": min(self.time_limit, _REQUEST_SECONDS),
        }
        lines = _lines_of(child)
        assert child.stdin is not None  # noqa: S101 - opened as a pipe
        with contextlib.suppress(OSError):  # it has ended already; below is said how
            child.stdin.write(json.dumps(job).encode() + b"\n")
        end = time.monotonic() + self.time_limit
        while True:
            try:
                # Short waits: Ctrl-C is noticed at once on every system.
                line = lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() > end:
                    self.failed = (
                        f"It took more than {self.time_limit:.0f} s and was ended at "
                        f"{self._stage!r}. Ask for less (n_generate, repetitions), or raise "
                        "time_limit."
                    )
                    return
                continue
            if line is None:
                self.failed = f"Its process ended at {self._stage!r}: {_how(child)}."
                return
            if self._take(line):
                return

    def _take(self, line: bytes) -> bool:
        """Keep a report; return whether it was the last."""
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            return False  # some library's own output
        if kind == "stage":
            self._stage = event["text"]
            self._tell(self._stage)
        elif kind == "lengths":
            self.lengths = event["lengths"]
        elif kind == "failed":
            self.failed = event["message"]
        else:
            self._events.append(event)
        return kind in ("failed", "end")

    def _clean(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        if event["event"] != "note":
            return event
        return {**event, "text": without_private(event["text"], self.contender)}


def _lines_of(child: lifeline.Child) -> queue.Queue[bytes | None]:
    """Read a child's standard output in a thread; ``None`` is its end."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    pipe = child.stdout
    assert pipe is not None  # noqa: S101 - opened as a pipe

    def read() -> None:
        rest = b""
        with pipe:
            while part := pipe.read(1 << 16):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="bench reports", daemon=True).start()
    return lines


def _how(child: lifeline.Child) -> str:
    deadline = time.monotonic() + lifeline.END_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return child.how_it_ended()


def _machine() -> dict[str, Any]:
    """Describe this machine in a few words that name nobody."""
    from guidebook import machine

    here = machine.describe()
    return {
        "cpu": here.cpu.model,
        "cores": here.cpu.usable_cores,
        "threads": machine.usable_threads(),
        "memory_bytes": here.memory.effective_total_bytes,
        "gpus": [gpu.name for gpu in here.gpus],
        "os": here.system.os_version or here.system.os,
        "wsl": here.system.wsl,
        "virtual_machine": here.system.virtual_machine,
    }


def _versions() -> dict[str, str]:
    from guidebook.machine import software

    packages = software.describe().packages
    return {
        "guidebook": guidebook.__version__,
        "python": platform.python_version(),
        **{name: version for name, version in packages.items() if version},
    }
