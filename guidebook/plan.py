"""What to run on a machine: for each use, the models that fit and are fast enough."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from guidebook import planner, units, weights
from guidebook.catalog import hardware, models
from guidebook.catalog.hardware import Device
from guidebook.catalog.models import Model
from guidebook.machine import Machine, Rate
from guidebook.planner import Answer, Case

# RAM sustains 65 to 85 % of its rated bandwidth (hardware catalog); the speed model's
# coefficients refer to the rated one.
_SUSTAINED = 0.75
DEFAULT_RAM_BYTES = 32 * units.GIB
# How far back a model may have appeared before the catalog's newest one to be suggested.
_RECENT = datetime.timedelta(days=2 * 365)


@dataclass(frozen=True)
class Use:
    """What a model is wanted for.

    Attributes
    ----------
    name
        For tables.
    context
        Tokens to allocate.
    depth
        Tokens that are in the context when the speed counts.
    least_speed
        Decode speed in tokens/s below which it is a burden.
    why
        Where these figures come from, a phrase.
    """

    name: str
    context: int
    depth: int
    least_speed: float
    why: str


USES = (
    Use("chat", 8192, 2048, 10, "twice as fast as most people read (about 5 tokens/s)"),
    Use("coding", 32768, 8192, 20, "files and a conversation in the context; answers are skimmed"),
    Use("long documents", 65536, 32768, 5, "one answer about a long text, read as it comes"),
    Use("batch over night", 8192, 2048, 1, "nobody waits"),
)


@dataclass(frozen=True)
class Rig:
    """A machine to plan for.

    Attributes
    ----------
    device, n_devices
        What computes: a catalog device, or the RAM itself.
    ram, ram_bytes
        The kind of system memory, and how much of it.
    assumptions
        What was not measured or not known, as phrases.
    """

    device: Device
    n_devices: int
    ram: Device
    ram_bytes: int | None
    assumptions: tuple[str, ...] = ()

    def answer(self, model: Model, case: Case) -> Answer:
        """Answer a case about a model on this machine."""
        quant = case.quant or planner.usual_quants(model.architecture)[-1]
        account = weights.account(model.architecture, quant)
        case = replace(case, quant=quant, n_devices=self.n_devices)
        return planner.predict(
            self.device, model.architecture, account, case, self.ram, self.ram_bytes
        )


@dataclass(frozen=True)
class Choice:
    """A model that does for a use."""

    model: Model
    case: Case
    answer: Answer

    @property
    def command(self) -> str:
        """What starts it, with llama.cpp's server."""
        layers = self.answer.n_gpu_layers or 0
        everything = self.model.architecture.n_layers + 1
        offload = f" -ngl {99 if layers >= everything else layers}" if layers else ""
        if layers and self.answer.n_cpu_moe:
            offload += f" --n-cpu-moe {self.answer.n_cpu_moe}"
        return (
            f"llama-server -m {self.model.name}-{self.case.quant}.gguf -c {self.case.context}"
            f"{offload} -fa on --host 127.0.0.1"
        )


def rig(
    device: str,
    n_devices: int = 1,
    ram: str = planner.DEFAULT_RAM,
    ram_bytes: int = DEFAULT_RAM_BYTES,
) -> Rig:
    """Make a machine of catalog names.

    Raises
    ------
    LookupError
        The catalog has no such device.
    """
    return Rig(hardware.find(device), n_devices, hardware.find(ram), ram_bytes)


def rig_of(machine: Machine, bandwidth: Rate | None = None, flops: Rate | None = None) -> Rig:
    """Make a machine to plan for of what this machine is.

    Parameters
    ----------
    machine
        As :func:`guidebook.machine.describe` found it.
    bandwidth, flops
        Measured memory bandwidth and matrix speed of the CPU; without them, typical figures of a
        desktop are assumed.
    """
    assumptions = []
    ram = hardware.find(planner.DEFAULT_RAM)
    ram_bytes = machine.memory.effective_total_bytes
    if bandwidth is None:
        assumptions.append(f"system memory is taken as {ram.name}")
    else:
        ram = replace(ram, name="system RAM, measured", bandwidth=bandwidth.value / _SUSTAINED)
    if flops is not None:
        ram = replace(ram, fp32_flops=flops.value)
    for gpu in machine.gpus:
        try:
            device = hardware.find(gpu.name, gpu.memory_total_bytes)
        except LookupError:
            assumptions.append(f"{gpu.name} is not in the catalog and is left out")
            continue
        if gpu.memory_total_bytes:
            device = replace(device, memory_bytes=gpu.memory_total_bytes)
        same = sum(other.name == gpu.name for other in machine.gpus)
        return Rig(device, same, ram, ram_bytes, tuple(assumptions))
    return Rig(replace(ram, memory_bytes=ram_bytes), 1, ram, ram_bytes, tuple(assumptions))


def choices(wanted: Rig, use: Use, most: int = 3) -> list[Choice]:
    """Return the models that do best for a use: they run, and are fast enough.

    Fast enough is the low end of the predicted interval. Best is the largest, by
    :func:`size_rank`; of models of one shape the newest. Each comes in the best quantization that
    fits whole and is fast enough, or, where none fits, in the smallest.
    """
    found: list[Choice] = []
    ranked = sorted(_candidates(), key=lambda model: model.released, reverse=True)
    for model in sorted(ranked, key=size_rank, reverse=True):
        if len(found) == most:
            break
        if not any(_same_shape(model, choice.model) for choice in found):
            choice = _best(wanted, model, use)
            if choice is not None:
                found.append(choice)
    return found


def size_rank(model: Model) -> float:
    """Return a rough measure of what a model can do: its size.

    Of a mixture of experts it is the geometric mean of all and of active weights, a rule of
    thumb. No single number says how good a model is: try the first three.
    """
    return math.sqrt(float(model.n_weights) * float(model.n_active_weights))


def show(wanted: Rig, uses: Sequence[Use] = USES) -> str:
    """Lay a plan out as text."""
    return "\n".join(_lines(wanted, uses))


def to_dict(wanted: Rig, uses: Sequence[Use] = USES) -> dict[str, object]:
    """Return a plan as JSON-ready data."""
    return {
        "device": wanted.device.name,
        "n_devices": wanted.n_devices,
        "ram_bytes": wanted.ram_bytes,
        "assumptions": list(wanted.assumptions),
        "uses": [
            {
                "use": use.name,
                "context": use.context,
                "least_tokens_per_second": use.least_speed,
                "choices": [
                    {
                        "model": choice.model.name,
                        "quant": choice.case.quant,
                        "total_bytes": choice.answer.total_bytes,
                        "n_gpu_layers": choice.answer.n_gpu_layers,
                        "n_cpu_moe": choice.answer.n_cpu_moe,
                        "tokens_per_second": choice.answer.tokens_per_second,
                        "low": choice.answer.low,
                        "high": choice.answer.high,
                        "command": choice.command,
                    }
                    for choice in choices(wanted, use)
                ],
            }
            for use in uses
        ],
    }


def _candidates() -> Iterator[Model]:
    newest = max(model.released for model in models.all())
    return (model for model in models.all() if newest - model.released <= _RECENT)


def _same_shape(one: Model, other: Model) -> bool:
    return replace(one.architecture, context_length=0) == replace(
        other.architecture, context_length=0
    )


def _best(wanted: Rig, model: Model, use: Use) -> Choice | None:
    """Choose the best file that lies on the device whole, or else the smallest, split with RAM."""
    if use.context > model.architecture.context_length:
        return None
    found = [
        Choice(model, case, wanted.answer(model, case))
        for quant in planner.usual_quants(model.architecture)
        for case in [
            Case(wanted.device.name, model.name, quant, depth=use.depth, context=use.context)
        ]
    ]
    whole = [choice for choice in found if choice.answer.fits]
    for choice in whole or found[-1:]:
        if choice.answer.low is not None and choice.answer.low >= use.least_speed:
            return choice
    return None


def _lines(wanted: Rig, uses: Sequence[Use]) -> Iterator[str]:
    count = f"{wanted.n_devices} × " if wanted.n_devices > 1 else ""
    room = f", {units.memory(wanted.ram_bytes)} RAM" if wanted.ram_bytes else ""
    yield f"{count}{wanted.device.name}{room}"
    for assumption in wanted.assumptions:
        yield f"  Assumed: {assumption}."
    for use in uses:
        yield ""
        yield (
            f"{use.name}: context {use.context:,} tokens, at least {use.least_speed:g} tokens/s "
            f"({use.why})"
        )
        found = choices(wanted, use)
        if not found:
            yield "  nothing in the catalog runs here that fast"
        for choice in found:
            yield from _choice_lines(choice)
    yield ""
    yield "Speeds are predictions with a 90 % interval. The largest model comes first, which is a"
    yield "rough guide to quality: try all three. Look for the file on huggingface.co under the"
    yield "model's name and 'GGUF'."


def _choice_lines(choice: Choice) -> Iterator[str]:
    answer = choice.answer
    speed = " to ".join(units.number(value, 2) for value in (answer.low, answer.high))
    where = ""
    if answer.n_gpu_layers and answer.n_gpu_layers <= choice.model.architecture.n_layers:
        where = f", {answer.n_gpu_layers} layers on the GPU"
    if answer.n_gpu_layers and answer.n_cpu_moe:
        where += f", the experts of the first {answer.n_cpu_moe} layers in RAM"
    yield (
        f"  {choice.model.name} {choice.case.quant}: {units.memory(answer.total_bytes)}, "
        f"{units.number(answer.tokens_per_second, 2)} tokens/s ({speed}){where}"
    )
    yield f"      {choice.command}"
