"""Predicted against measured: what the planner says about speeds that chapters then measured.

It looks at measurements whose name tells file type and depth: ``decode_q4_0_256``. The planner
gets the machine and its measured memory bandwidth, and nothing else of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from guidebook import planner, weights
from guidebook.catalog import models
from guidebook.catalog.models import Model
from guidebook.plan import Rig
from guidebook.planner import Case
from guidebook.records import Record

EMBEDDED_MODEL = "smollm2-135m"
# Chapter: tokens of the prompt where the name does not tell them, and tokens that are written.
_TOLD = {"12-bottlenecks": (256, 64), "42-quantization-gguf": (128, 32)}
_NAME = re.compile(r"decode_(f16|q8_0|q[2-6]_k(?:_[ms])?|q[45]_[01])(?:_(\d+))?")


@dataclass(frozen=True)
class Check:
    """A prediction and what came out.

    Attributes
    ----------
    chapter
        Who measured it.
    quant, n_prompt
        File type of the weights, and tokens in the context before.
    predicted, low, high
        Tokens/s, with the 90 % interval.
    measured
        Median, in tokens/s.
    """

    chapter: str
    quant: str
    n_prompt: int
    predicted: float
    low: float
    high: float
    measured: float

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the measurement."""
        return self.low <= self.measured <= self.high


def checks(record: Record, rig: Rig) -> tuple[Check, ...]:
    """Return every measured speed of a record that the planner can predict.

    Parameters
    ----------
    record
        What the chapters measured.
    rig
        Their machine, as :func:`guidebook.report.rig_of` returns it.
    """
    return tuple(_checks(record, rig))


def _checks(record: Record, rig: Rig) -> Iterator[Check]:
    runs = {run.chapter: run for run in record.chapters}
    on_cpu = Rig(replace(rig.ram, memory_bytes=rig.ram_bytes), 1, rig.ram, rig.ram_bytes)
    for reading in record.measurements:
        name = _NAME.fullmatch(reading.name)
        if name is None or reading.chapter not in _TOLD or reading.measured.unit != "tokens/s":
            continue
        run = runs[reading.chapter]
        model = _model(run.model)
        if model is None:
            continue
        told, n_generate = _TOLD[reading.chapter]
        n_prompt = int(name[2] or told)
        case = Case("", model.name, name[1].upper(), n_prompt=n_prompt, n_generate=n_generate)
        used = on_cpu if run.device == "cpu" else rig
        answer = planner.predict(
            used.device,
            model.architecture,
            weights.account(model.architecture, case.quant),
            case,
            used.ram,
            used.ram_bytes,
        )
        if answer.tokens_per_second and answer.low is not None and answer.high is not None:
            ends = (answer.tokens_per_second, answer.low, answer.high)
            yield Check(
                reading.chapter, case.quant, n_prompt, *ends, measured=reading.measured.median
            )


def _model(name: str) -> Model | None:
    """Return a model of the catalog; None for one that only its owner knows."""
    try:
        return models.find(EMBEDDED_MODEL if name == "embedded" else name)
    except LookupError:
        return None
