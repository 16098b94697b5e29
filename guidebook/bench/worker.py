"""The process that measures one contender for :mod:`guidebook.bench`.

A process of its own, so that its peak memory is that runtime's alone and a crash in native code
ends nothing else. It reads its job as one line of JSON on standard input, which then is the
lifeline, and reports each reading as a line of JSON as soon as it has it: what was measured before
a failure is kept.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guidebook import lifeline, texts
from guidebook.bench import loading, pages, passages
from guidebook.bench.plan import Contender, Settings
from guidebook.engines import Engine, EngineError

Send = Callable[..., None]

TEXT = "python-topics"
_WORD = "The"


def main() -> int:
    """Measure the contender of the job on standard input; return the exit status."""
    job = json.loads(lifeline.read_line())
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # From here on standard output is the log: a library that prints must not break the reports.
    os.dup2(2, 1)
    lifeline.watch()

    def send(event: str, **values: Any) -> None:  # noqa: ANN401
        reports.write(json.dumps({"event": event, **values}) + "\n")
        reports.flush()

    try:
        measure(
            Contender(**job["contender"]),
            Settings.from_dict(job["settings"]),
            loading.Source(**job["source"]),
            job["lengths"],
            job["time_limit"],
            send,
        )
    except EngineError as error:
        send("failed", message=str(error))
    except MemoryError:
        send("failed", message="Memory ran out. Choose a smaller model or a smaller n_ctx.")
    except Exception as error:
        # The benchmark goes on with the next contender, and says what became of this one.
        send("failed", message=f"{type(error).__name__}: {error}")
    else:
        send("end")
    return 0


def measure(
    contender: Contender,
    settings: Settings,
    source: loading.Source,
    lengths: Sequence[int] | None,
    time_limit: float,
    send: Send,
) -> None:
    """Load a contender and take every reading.

    Parameters
    ----------
    lengths
        Lengths of the prompts in characters, as an earlier contender has cut them; ``None``: cut
        them with this one's tokenizer.
    time_limit
        Seconds for one request to a server.
    send
        Called with each reading.
    """
    from guidebook.measure import memory

    def open_now() -> Any:  # noqa: ANN401 - a context manager
        return loading.opened(contender, settings, source, time_limit)

    loading.import_libraries(contender.engine)
    if source.path and settings.loads:
        _measure_loads(open_now, contender, settings, source, send)
    with memory.peak_memory() as peak, open_now() as opened:
        engine = opened.engine
        send("about", runtime=engine.runtime, n_ctx=engine.n_ctx)
        if not source.path:
            # A server that runs may load the model only now, and some say how long that took.
            send("stage", text="first request")
            answer = engine.generate(_WORD, 1)
            answer.read()
            send("first_request", reported=answer.reported.load_seconds)
        prompts = _prompts(engine, settings, lengths, send)
        _measure_answers(engine, settings, prompts, send)
        if contender.is_server:
            _measure_together(contender, settings, opened, prompts, time_limit, send)
            _send_memory(engine, send)
            if opened.pid is not None:
                send("memory", rss_bytes=tree_peak(opened.pid), vram_bytes=None)
    if not contender.is_server:
        send("memory", rss_bytes=peak.peak_bytes, vram_bytes=None)


def tree_peak(pid: int) -> int | None:
    """Return the highest resident memory of a process and its children, as Linux keeps it."""
    import psutil

    try:
        process = psutil.Process(pid)
        pids = [pid, *(child.pid for child in process.children(recursive=True))]
        total = 0
        for one in pids:
            status = Path(f"/proc/{one}/status").read_text("ascii", errors="replace")
            found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    except (psutil.Error, OSError):
        return None
    return total or None


def one_answer(engine: Engine, prompt: str, n_generate: int) -> dict[str, Any]:
    """Ask for one answer and return its readings."""
    start = time.perf_counter()
    stamps = []
    answer = engine.generate(prompt, n_generate)
    for _ in answer:
        stamps.append(time.perf_counter())
    end = time.perf_counter()
    if not stamps:
        raise EngineError(f"{engine.name} wrote nothing.")
    return {
        "first": stamps[0] - start,
        "last": stamps[-1] - start,
        "end": end - start,
        "gaps": [later - sooner for sooner, later in itertools.pairwise(stamps)],
        "n_pieces": len(stamps),
        "reported": asdict(answer.reported),
        "text": answer.text,
    }


def _measure_loads(
    open_now: Callable[[], Any],
    contender: Contender,
    settings: Settings,
    source: loading.Source,
    send: Send,
) -> None:
    """Time loads until the first token is there, which has read every weight."""

    def load() -> tuple[float, float | None]:
        start = time.perf_counter()
        with open_now() as opened:
            answer = opened.engine.generate(_WORD, 1)
            answer.read()
            seconds = time.perf_counter() - start
        gc.collect()
        return seconds, answer.reported.load_seconds

    total = 2 * settings.loads
    if not contender.is_server:
        # The first load of a process also imports modules and starts the GPU's driver.
        send("stage", text="first load")
        load()
    for number in range(total):
        send("stage", text=f"load {number + 1} of {total}")
        wanted_cold = number < settings.loads
        if wanted_cold and not pages.make_cold(source.files):
            send("not_cold")
            continue
        seconds, reported = load()
        send("load", cold=wanted_cold, seconds=seconds, reported=reported)


def _prompts(
    engine: Engine, settings: Settings, lengths: Sequence[int] | None, send: Send
) -> list[str]:
    text = passages.plain(texts.load(TEXT))
    if lengths is None:
        send("stage", text="cutting the prompts")
        lengths = [
            passages.cut(text, start, settings.n_prompt, engine.count_tokens)
            for start in passages.starts(text, settings.n_passages)
        ]
        send("lengths", lengths=lengths)
    return passages.passages(text, lengths)


def _measure_answers(
    engine: Engine, settings: Settings, prompts: Sequence[str], send: Send
) -> None:
    for number in range(settings.warm_up):
        send("stage", text="warming up")
        one_answer(engine, prompts[number], settings.n_generate)
    for number in range(settings.repetitions):
        send("stage", text=f"answer {number + 1} of {settings.repetitions}")
        prompt = prompts[settings.warm_up + number]
        reading = one_answer(engine, prompt, settings.n_generate)
        # Counted outside the measured time: a server may need a request for it.
        send("answer", counted=engine.count_tokens(prompt), **reading)
        _send_memory(engine, send)


def _measure_together(
    contender: Contender,
    settings: Settings,
    opened: loading.Opened,
    prompts: Sequence[str],
    time_limit: float,
    send: Send,
) -> None:
    """Ask a server several things at once, each from a thread and a connection of its own."""
    used = settings.warm_up + settings.repetitions
    for n in settings.concurrency:
        send("stage", text=f"{n} at once")
        mine = prompts[used : used + n]
        used += n
        engines = [loading.connected(contender, settings, opened, time_limit) for _ in mine]
        try:
            readings, seconds = together(engines, mine, settings.n_generate)
        except EngineError as error:
            send("note", text=str(error))
            continue
        finally:
            for engine in engines:
                engine.close()
        send("together", n=n, seconds=seconds, answers=readings)


def together(
    engines: Sequence[Engine], prompts: Sequence[str], n_generate: int
) -> tuple[list[dict[str, Any]], float]:
    """Ask all engines at the same moment; return their readings and the seconds for all.

    Raises
    ------
    EngineError
        One of them failed.
    """
    barrier = threading.Barrier(len(engines) + 1)
    readings: list[dict[str, Any] | None] = [None] * len(engines)
    errors: list[Exception] = []

    def ask(number: int) -> None:
        barrier.wait()
        try:
            readings[number] = one_answer(engines[number], prompts[number], n_generate)
        except Exception as error:
            # Raised again below, in the thread that waits.
            errors.append(error)

    threads = [
        threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(engines))
    ]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise EngineError(
            f"Of {len(engines)} requests at once, {len(errors)} failed: {errors[0]}"
        ) from errors[0]
    return [reading for reading in readings if reading is not None], seconds


def _send_memory(engine: Engine, send: Send) -> None:
    use = engine.memory()
    send("memory", rss_bytes=use.rss_bytes, vram_bytes=use.vram_bytes)


if __name__ == "__main__":
    sys.exit(main())
