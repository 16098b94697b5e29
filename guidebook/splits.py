"""Published speeds of models that were split between a graphics card and RAM.

The planner's speed model was fitted to runs on one device (``guidebook calibrate``). These runs
are none of them: they are kept aside to test what it says about a split.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass, replace
from importlib import resources

from guidebook import planner, units
from guidebook.catalog import hardware, models
from guidebook.plan import Rig
from guidebook.planner import Answer, Case

_TABLE = "llmfit_rtx2080_splits"
# The runs had a context of 4,096 tokens, short prompts and short answers.
_CONTEXT = 4096
_N_PROMPT = 64
# "quad-channel DDR4, about 102 GB/s", says the submitter; the catalog has no desktop like it.
_RAM = "DDR4-3200 quad channel (4x64-bit)"
_RAM_BANDWIDTH = 102.4e9
_RAM_BYTES = 62 * units.GIB


@dataclass(frozen=True)
class Split:
    """One model, split between an RTX 2080 with 8 GB and the RAM of its host.

    Attributes
    ----------
    model, quant
        Name in the model catalog, and the file type.
    n_gpu_layers, n_cpu_moe
        As llama.cpp was told; None where it was not.
    tokens_per_second
        As published. It includes the reading of a short prompt, so decode alone was a little
        faster.
    source
        Where the figure stands.
    """

    model: str
    quant: str
    n_gpu_layers: int
    n_cpu_moe: int | None
    tokens_per_second: float
    source: str

    @property
    def has_experts(self) -> bool:
        """Whether experts lie in RAM, and not whole layers."""
        return self.n_cpu_moe is not None

    def predicted(self) -> Answer:
        """Return what the planner says about the same split."""
        return self._ask(rig(), self.n_gpu_layers)

    def predicted_whole(self) -> Answer:
        """Return what it says about the same card with room for the whole model."""
        real = rig()
        endless = replace(real.device, memory_bytes=1024 * units.GIB)
        return self._ask(replace(real, device=endless), None)

    def _ask(self, machine: Rig, n_gpu_layers: int | None) -> Answer:
        model = models.find(self.model)
        if n_gpu_layers is not None:
            n_gpu_layers = min(n_gpu_layers, model.architecture.n_layers + 1)
        case = Case(
            machine.device.name,
            self.model,
            self.quant,
            n_prompt=_N_PROMPT,
            n_generate=planner.DEFAULT_N_GENERATE,
            context=_CONTEXT,
            n_gpu_layers=n_gpu_layers,
            n_cpu_moe=None if n_gpu_layers is None else self.n_cpu_moe,
        )
        return machine.answer(model, case)


@functools.cache
def rig() -> Rig:
    """Return the machine on which all of them ran."""
    ram = hardware.find("DDR4-3200 dual channel (2x64-bit)")
    ram = replace(ram, name=_RAM, bandwidth=_RAM_BANDWIDTH)
    return Rig(hardware.find("GeForce RTX 2080"), 1, ram, _RAM_BYTES)


@functools.cache
def published() -> tuple[Split, ...]:
    """Return all published splits, whole layers first, the fastest first."""
    path = resources.files("guidebook.catalog").joinpath(f"reference/{_TABLE}.csv")
    rows = csv.DictReader(path.read_text("utf-8").splitlines())
    found = [
        Split(
            row["catalog_model"],
            row["quant"],
            int(row["n_gpu_layers"]),
            int(row["n_cpu_moe"]) if row["n_cpu_moe"] else None,
            float(row["tok_s"]),
            row["source"],
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda one: (one.has_experts, -one.tokens_per_second)))
