"""Many ways of holding one model, measured alike: a process for each, a row for each.

A *contender* is a file or a folder and how it is loaded: a GGUF of some type, a checkpoint that
llm-compressor has packed, or the 16-bit checkpoint that a library quantizes while it loads. A
*test* is what all of them are asked: the same windows of text against the same reference, the same
prompt, the same questions.

:func:`run` measures one contender in a child process. Its peak memory is that way's alone, and a
crash, a missing library or a process that hangs becomes a row that says what prevented the rest.
The child ends with this process (:mod:`guidebook.lifeline`).

The questions are a task that costs no time: at places in the scored windows, which of four tokens
follows? (:func:`questions`). The model has read the windows already, so its answers are there.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import random
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from guidebook import figures, lifeline, machine, published, units
from guidebook.measure import Measurement, Quality, Reference
from guidebook.measure.tasks import N_CHOICES, TaskScore
from guidebook.tables import Table, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Engine = Literal["llama.cpp", "transformers"]
Place = tuple[float, float, str]

TIME_LIMIT = 120.0
_CHILD = "guidebook.quantize._contender_child"
# Right of the mark, its middle at the mark's height: in points.
_BESIDE: Place = (8, -4, "left")
_LEAST_LOSS = 1e-4
_NOTHING = "–"
_LOG_PROBS, _JOB, _REPORT = "log_probs.npy", "job.json", "report.jsonl"


class ContenderError(RuntimeError):
    """Nothing can be compared; the message says why and what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of this package.
        return [f"ContenderError: {self}"]


@dataclass(frozen=True)
class Contender:
    """One way of holding the model.

    Attributes
    ----------
    name, family
        For tables and figures; a family shares a colour.
    engine
        What computes: ``llama.cpp`` or ``transformers``.
    source
        A GGUF file, or a folder with safetensors. It never leaves this machine.
    weights_bytes
        What its weights take on disk; ``None`` for a way that quantizes while it loads: the child
        then adds up what the loaded model holds.
    dtype
        The type in which transformers computes.
    config, options
        Name and arguments of the class that says how to quantize while loading: one of
        transformers (``BitsAndBytesConfig``), or one of ``torchao.quantization``. Numbers, words
        and truth values only.
    needs
        Packages without which it cannot run.
    made_seconds
        How long it took to make the file or folder.
    """

    name: str
    family: str
    engine: Engine
    source: Path
    weights_bytes: int | None = None
    dtype: str = "float32"
    config: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    made_seconds: float = 0.0


@dataclass(frozen=True)
class Cloze:
    """A question: which of four tokens follows in a window.

    Attributes
    ----------
    window, position
        The window, and how many of its tokens are read before the question.
    choices
        Token ids.
    answer
        Index of the one that follows.
    """

    window: int
    position: int
    choices: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Test:
    """What every contender is asked.

    Attributes
    ----------
    folder
        Holds the reference's log-probabilities, shape (windows, scored tokens, vocabulary), as
        a file that the children map into memory.
    windows
        Token ids of the scored windows, all of one length.
    questions
        See :func:`questions`.
    prompt
        Token ids that are read to measure the speed.
    n_generate, repetitions
        Tokens written each time, and how often.
    n_threads
        Threads of either engine.
    device
        ``cpu``, or PyTorch's name of a GPU.
    n_gpu_layers
        Layers that llama.cpp puts on the GPU.
    time_limit
        Seconds for one contender, from the start of its process.
    """

    __test__ = False  # pytest would take it for one of its own

    folder: Path
    windows: tuple[tuple[int, ...], ...]
    questions: tuple[Cloze, ...]
    prompt: tuple[int, ...]
    n_generate: int
    repetitions: int
    n_threads: int
    device: str = "cpu"
    n_gpu_layers: int = 0
    time_limit: float = TIME_LIMIT


@dataclass(frozen=True)
class Row:
    """What was measured of one contender. What is not known is ``None``.

    Attributes
    ----------
    contender
        Which.
    weights_bytes
        Bytes of the weights. For a way that quantizes while it loads: what the model holds, with
        all that was not quantized counted in 16 bits, as it would be saved.
    ready_seconds
        From the file or folder on disk to a loaded model.
    prefill, decode
        Tokens per second.
    libraries_bytes
        Resident memory of the process with its libraries, before it loads the model.
    peak_bytes
        What the memory grew by beyond that, at most, while the model was loaded, read the prompt
        and wrote: resident memory, or the GPU's if the model was there.
    quality, task
        On the test's windows and questions.
    prevented
        Empty, or the sentence that says why something is missing.
    """

    contender: Contender
    weights_bytes: int | None = None
    ready_seconds: float | None = None
    prefill: Measurement | None = None
    decode: Measurement | None = None
    libraries_bytes: int | None = None
    peak_bytes: int | None = None
    quality: Quality | None = None
    task: TaskScore | None = None
    prevented: str = ""

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    @property
    def is_complete(self) -> bool:
        """Whether everything was measured."""
        return not self.prevented

    @property
    def task_error(self) -> float | None:
        """Standard error of the task's score, by batch means: neighbouring questions go together.

        ``None`` without a score.
        """
        if self.task is None:
            return None
        import numpy as np

        from guidebook.measure.quality import standard_error

        return standard_error(np.asarray(self.task.right, dtype=np.float64))

    def __str__(self) -> str:
        if self.quality is None or self.decode is None:
            return f"{self.name}: {self.prevented or 'not measured'}"
        loss = f"{self.quality.kl_divergence:.3f} nats"
        peak = units.memory(self.peak_bytes)
        return f"{self.name}: {loss}, {peak}, {units.quantity(self.decode.median, 'tokens/s')}"

    __repr__ = __str__

    def bits_per_weight(self, n_weights: int) -> float | None:
        """Return the bits per weight of the whole model, of which it has ``n_weights``."""
        return None if self.weights_bytes is None else 8 * self.weights_bytes / n_weights


def questions(
    windows: Sequence[Sequence[int]], text: Sequence[int], seed: int = 0
) -> tuple[Cloze, ...]:
    """Ask which token follows, at every place of the scored halves where it is not too easy.

    The three wrong tokens stand elsewhere in the text, behind the same token. So each can follow
    the last token, and only the rest of the context tells them apart. Guessing scores a quarter.

    Parameters
    ----------
    windows
        Token ids.
    text
        Token ids of a longer text, from which the wrong tokens come.
    seed
        Chooses the wrong tokens and the order.
    """
    follow: dict[int, set[int]] = {}
    for before, token in itertools.pairwise(text):
        follow.setdefault(before, set()).add(token)
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    asked = []
    for number, window in enumerate(windows):
        for position in range(len(window) // 2, len(window)):
            right = window[position]
            others = sorted(follow.get(window[position - 1], set()) - {right})
            if len(others) >= N_CHOICES - 1:
                choices = [right, *chance.sample(others, N_CHOICES - 1)]
                chance.shuffle(choices)
                asked.append(Cloze(number, position, tuple(choices), choices.index(right)))
    return tuple(asked)


def prepare(
    reference: Reference,
    text: Sequence[int],
    folder: Path,
    *,
    n_prompt: int = 96,
    n_generate: int = 12,
    repetitions: int = 3,
    device: str = "cpu",
    n_gpu_layers: int = 0,
    time_limit: float = TIME_LIMIT,
) -> Test:
    """Write the reference down for the children, and make up the questions.

    Parameters
    ----------
    reference
        The unquantized model's log-probabilities.
    text
        Token ids of the scored text, of which the reference's windows are the beginning.
    folder
        For the file; it must outlive the measuring.
    n_prompt
        Tokens of the prompt, from the beginning of the text.

    Raises
    ------
    ContenderError
        The text is too short for the prompt, or the windows differ in length.
    """
    import numpy as np

    if len(text) < n_prompt:
        raise ContenderError(f"The text has {len(text)} tokens, and the prompt needs {n_prompt}.")
    if len({len(window) for window in reference.windows}) != 1:
        raise ContenderError("The reference's windows must all have the same length.")
    np.save(folder / _LOG_PROBS, np.stack(reference.log_probs))
    return Test(
        folder=folder,
        windows=reference.windows,
        questions=questions(reference.windows, text),
        prompt=tuple(text[:n_prompt]),
        n_generate=n_generate,
        repetitions=repetitions,
        n_threads=machine.usable_threads(),
        device=device,
        n_gpu_layers=n_gpu_layers,
        time_limit=time_limit,
    )


def run(contender: Contender, test: Test) -> Row:
    """Measure a contender in a child process; whatever happens there, return its row."""
    missing = [name for name in contender.needs if importlib.util.find_spec(name) is None]
    if missing:
        return Row(
            contender,
            prevented=f"{missing[0]} is not installed. Run: pip install {missing[0]}",
        )
    with tempfile.TemporaryDirectory(prefix="guidebook-contender-") as folder:
        job, report = Path(folder, _JOB), Path(folder, _REPORT)
        job.write_text(
            json.dumps(
                {
                    "contender": asdict(contender) | {"source": str(contender.source)},
                    "test": asdict(test) | {"folder": str(test.folder)},
                    "log_probs": str(test.folder / _LOG_PROBS),
                    "report": str(report),
                }
            ),
            encoding="utf-8",
        )
        try:
            child = lifeline.start(lifeline.module(_CHILD, str(job)))
        except OSError as error:
            return Row(contender, prevented=f"Its process could not be started: {error.strerror}.")
        with child:
            try:
                child.wait(test.time_limit)
                ended = child.how_it_ended() if child.returncode else ""
            except subprocess.TimeoutExpired:
                ended = f"it took longer than {units.duration(test.time_limit)} and was ended"
        events = _events(report)
    row = _row(contender, events)
    if row.prevented or not ended:
        return row
    # A child's last words may name a home folder, and rows are published.
    said = ended.replace(str(contender.source), contender.source.name).rstrip(".")
    return replace(row, prevented=f"Its process did not come to its end: {said}.")


def absent(name: str, family: str, because: str) -> Row:
    """Return the row of a contender that could not even be made, and why."""
    nothing = Contender(name, family, "transformers", Path())
    return Row(nothing, prevented=because)


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names on the Pareto front, from the lowest first number to the highest.

    Of both numbers less is better. A point is on the front if no other is at least as good in
    both and better in one.
    """
    on_it = [
        name
        for name, (x, y) in points.items()
        if not any(
            a <= x and b <= y and (a, b) != (x, y)
            for other, (a, b) in points.items()
            if other != name
        )
    ]
    return sorted(on_it, key=lambda name: points[name])


def comparison(rows: Sequence[Row], n_weights: int, caption: str) -> Table:
    """Make the table of what was measured: size, memory, quality, task and speed.

    Contenders of which nothing was measured are left out; see :func:`obstacles`. The caption ends
    with the largest spread of a speed's readings.
    """
    spreads = [speed.spread for row in rows for speed in (row.prefill, row.decode) if speed]
    if spreads:
        caption += f"; readings of a speed at most {max(spreads):.0%} apart"
    return table(
        [_cells(row, n_weights) for row in rows if row.ready_seconds is not None], caption=caption
    )


def obstacles(rows: Sequence[Row], caption: str) -> Table:
    """Make the table of what was not measured, or not to the end, and why."""
    return table(
        [{"way": row.name, "why": row.prevented} for row in rows if row.prevented],
        caption=caption,
    )


def pareto(
    rows: Sequence[Row],
    by_size: Mapping[str, Place] | None = None,
    by_speed: Mapping[str, Place] | None = None,
) -> Figure:
    """Draw KL divergence against size left and against decode speed right, with both fronts.

    Parameters
    ----------
    rows
        Those without quality, size or speed are left out, and those that lose less than 0.0001
        nats: on a logarithmic axis they would push all others together.
    by_size, by_speed
        Where a name goes in the left and the right plot if not right of its mark: right, up (in
        points), and the side of the text that lies there, ``left``, ``center`` or ``right``.
    """
    figure, (left, right) = figures.new(2, width=9.0, height=4.6)
    shown = [row for row in rows if _is_point(row)]
    families = list(dict.fromkeys(row.contender.family for row in shown))
    for axes, measure, places in ((left, _megabytes, by_size), (right, _pace, by_speed)):
        # Of both numbers of a point on the front less is better.
        sign = 1 if axes is left else -1
        best = front({row.name: (sign * measure(row), _loss(row)) for row in shown})
        line = [(measure(row), _loss(row)) for name in best for row in shown if row.name == name]
        if line:
            axes.plot(*zip(*line, strict=True), color="#888888", marker="", lw=1, zorder=0)
        for index, family in enumerate(families):
            own = [row for row in shown if row.contender.family == family]
            axes.errorbar(
                [measure(row) for row in own],
                [_loss(row) for row in own],
                yerr=[_loss_error(row) for row in own],
                color=figures.COLORS[index % len(figures.COLORS)],
                marker=figures.MARKERS[index % len(figures.MARKERS)],
                ls="",
                label=family if axes is left else None,
            )
        for row in shown:
            x, y, side = (places or {}).get(row.name, _BESIDE)
            at = (measure(row), _loss(row))
            axes.annotate(row.name, at, (x, y), textcoords="offset points", ha=side, fontsize=9)
        axes.set_yscale("log")
        axes.margins(x=0.2)
    left.set(xlabel="size of the weights (MB)", ylabel="KL divergence (nats)")
    right.set(xlabel="decode (tokens/s)")
    figure.legend(loc="outside upper center", ncols=max(1, len(families)))
    return figure


# --- published ---------------------------------------------------------------------------------


@functools.cache
def published_rises() -> Mapping[tuple[str, str], float]:
    """Return how much published perplexities rise over 16 bits, by model and format.

    A rise of 0.02 is 2 %. The rows come from llama.cpp's tables (its file types, on Wikipedia
    text) and from one that compares GPTQ and AWQ on Llama 2, with a longer context.
    """
    files: dict[str, dict[str, float]] = {}
    for one in published.files():
        if one.perplexity is not None:
            files.setdefault(one.model, {})[one.quant] = one.perplexity
    rises = {
        (model, quant): value / found["F16"] - 1
        for model, found in files.items()
        for quant, value in found.items()
        if quant != "F16" and "F16" in found
    }
    rises |= {(one.model, one.quant): one.perplexity_ratio - 1 for one in published.divergences()}
    methods = [one for one in published.method_qualities() if "seq 2048" in one.metric]
    whole = {one.model: one.value for one in methods if one.method == "FP16"}
    rises |= {
        (one.model, one.method): one.value / whole[one.model] - 1
        for one in methods
        if one.method != "FP16"
    }
    return MappingProxyType(rises)


def rises_table(models: Sequence[str], formats: Sequence[str], caption: str) -> Table:
    """Make a table of :func:`published_rises`: a row for each format, a column for each model."""
    rises = published_rises()
    rows = [
        {"format": name}
        | {
            model: f"+{rises[model, name]:.1%}" if (model, name) in rises else "–"
            for model in models
        }
        for name in formats
    ]
    return table(rows, caption=caption)


# --- rows --------------------------------------------------------------------------------------


def _events(report: Path) -> list[dict[str, Any]]:
    """Read what a child has reported, up to a line that it did not finish."""
    try:
        lines = report.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def _row(contender: Contender, events: Sequence[Mapping[str, Any]]) -> Row:
    found = {event["event"]: event for event in events}
    row = Row(contender, weights_bytes=contender.weights_bytes)
    if ready := found.get("ready"):
        row = replace(
            row,
            ready_seconds=ready["seconds"],
            weights_bytes=contender.weights_bytes or ready["weights_bytes"],
        )
    if speed := found.get("speed"):
        prefill = Measurement("tokens/s", tuple(speed["prefill"]))
        decode = Measurement("tokens/s", tuple(speed["decode"]))
        row = replace(row, prefill=prefill, decode=decode)
    if memory := found.get("memory"):
        row = replace(
            row, libraries_bytes=memory["before_bytes"], peak_bytes=memory["growth_bytes"]
        )
    if quality := found.get("quality"):
        values = {name: value for name, value in quality.items() if name != "event"}
        row = replace(row, quality=Quality(**values))
    if task := found.get("task"):
        row = replace(row, task=TaskScore(tuple(task["right"])))
    if failed := found.get("failed"):
        row = replace(row, prevented=failed["message"])
    return row


def _cells(row: Row, n_weights: int) -> dict[str, object]:
    seen, task = row.quality, row.task
    ready = None if row.ready_seconds is None else row.contender.made_seconds + row.ready_seconds
    divergence = f"{seen.kl_divergence:.4f} ± {seen.kl_divergence_error:.4f}" if seen else _NOTHING
    # The units stand in the head, and shortened, so that eleven columns fit a page.
    return {
        "way": row.name,
        "size (MB)": _number(row.weights_bytes, units.MB),
        "bits": _number(row.bits_per_weight(n_weights)),
        "peak (MiB)": _number(row.peak_bytes, units.MIB),
        "ready (s)": _number(ready),
        "KL divergence (nats)": divergence,
        "same top (%)": f"{100 * seen.top1_agreement:.1f}" if seen else _NOTHING,
        "perplexity": f"{seen.perplexity:.2f}" if seen else _NOTHING,
        "task (%)": f"{100 * task.score:.1f}" if task else _NOTHING,
        "prefill (tok/s)": _median(row.prefill),
        "decode (tok/s)": _median(row.decode),
    }


def _number(value: float | None, unit: float = 1.0) -> str:
    return _NOTHING if value is None else units.number(value / unit)


def _median(readings: Measurement | None) -> str:
    return _NOTHING if readings is None else units.number(readings.median)


def _is_point(row: Row) -> bool:
    has_all = bool(row.quality and row.weights_bytes and row.decode)
    return has_all and _loss(row) >= _LEAST_LOSS


def _megabytes(row: Row) -> float:
    return (row.weights_bytes or 0) / units.MB


def _pace(row: Row) -> float:
    return row.decode.median if row.decode else 0.0


def _loss(row: Row) -> float:
    return row.quality.kl_divergence if row.quality else 0.0


def _loss_error(row: Row) -> float:
    return row.quality.kl_divergence_error if row.quality else 0.0
