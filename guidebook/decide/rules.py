"""The guide's decision framework as rules, each with its reason and its number.

The work has two phases: *development*, where code is written and tried out small, and the *run*,
the real thing. Each is done *here*, on the reader's machine, or *there*, on rented GPUs. A rule
looks at the facts and favours a place for a phase, with a weight, or bars one.

What is possible is not yet a reason: that a model fits bars nothing and weighs nothing. The guide
gives no weights; these are this book's own: 1 leans, 2 is one of the guide's plain points, 3 says
that it would be done badly elsewhere, 4 that it would fail. Money weighs by its digits: 1 for
every factor of ten above a dollar a month.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from guidebook import units
from guidebook.decide.durations import Span, between
from guidebook.decide.sides import Facts, Needs, There

Phase = Literal["development", "run"]
Place = Literal["here", "there"]
Option = Literal["local", "hybrid", "cloud"]
Bar = Literal["impossible", "forbidden"]
Basis = Literal["limit", "figure", "advice"]
Judge = Callable[[Facts], Iterator["Reason"]]

# What each option means; the fourth, to develop there and run here, is nobody's wish.
OPTIONS: dict[Option, dict[Phase, Place]] = {
    "local": {"development": "here", "run": "here"},
    "hybrid": {"development": "here", "run": "there"},
    "cloud": {"development": "there", "run": "there"},
}
LEAN, PLAIN, BADLY, FAILS = 1.0, 2.0, 3.0, 4.0
# A small experiment is done the next morning.
NIGHT_HOURS = 12.0
HOURS_PER_YEAR = 365.25 * 24
_MOST_MONEY = 4.0
# A demand that is missed, or met, by such a factor is so surely; by the second one, hopelessly.
_FAR, _HOPELESS = 2.0, 10.0


@dataclass(frozen=True)
class Reason:
    """What one rule says about a workload.

    Attributes
    ----------
    rule
        Id of the rule.
    phase, place
        What it favours; with ``bar``: what it bars.
    weight
        How much; 0: it only tells.
    text
        The reason with its number, one sentence.
    value, unit
        The number.
    bar
        ``impossible``: it cannot be done; ``forbidden``: the reader does not want it.
    """

    rule: str
    phase: Phase
    place: Place
    weight: float
    text: str
    value: float | None = None
    unit: str = ""
    bar: Bar | None = None

    @property
    def options(self) -> tuple[Option, ...]:
        """The options that it favours, or bars."""
        return tuple(
            option for option, places in OPTIONS.items() if places[self.phase] == self.place
        )


@dataclass(frozen=True)
class Rule:
    """One rule of the framework.

    Attributes
    ----------
    id
        Short name.
    quote, section
        What the guide says, and where.
    basis
        What its weight rests on: a ``limit`` bars what goes beyond it; a ``figure`` weighs by how
        much it is; ``advice`` weighs the same whenever it applies, because the guide says so.
    judge
        Looks at the facts and yields reasons, or nothing where the rule is not about them.
    """

    id: str
    quote: str
    section: str
    basis: Basis
    judge: Judge


_FRAMEWORK = "Decision Framework: When to Use Local vs. Cloud"


# --- Prioritize Local Development For ---------------------------------------------------------


def _development(facts: Facts) -> Iterator[Reason]:
    """Favour here for coding and tests, and for the trials of whatever is developed."""
    work, here = facts.workload, facts.here
    if work.kind == "coding":
        text = f"{_month(work.hours * work.runs_per_month)} of writing and testing need no GPU."
        hours = work.hours * work.runs_per_month
        yield Reason("development", "run", "here", PLAIN, text, hours, "h/month")
    if not work.development_hours:
        return
    what = f"A trial of {work.trial_model or work.model or 'the code'}"
    needed = here.trial.needed_bytes
    takes = f"takes {units.memory(needed)}" if needed else "takes no GPU"
    if here.trial.runs:
        text = f"{what} {takes} and runs here: {_month(work.development_hours)} of trials."
        yield _memory_reason("development", "development", "here", PLAIN, text, needed)
    else:
        text = f"{what} {takes}, and there is room for {_room(facts)}."
        yield _memory_reason("development", "development", "here", 0.0, text, needed, "impossible")


def _small_scale(facts: Facts) -> Iterator[Reason]:
    """Favour here for experiments that are done by the next morning, if their pace is bearable."""
    work, needs = facts.workload, facts.here.needs
    if work.kind not in ("experiment", "training") or not needs.runs or needs.hours is None:
        return
    if needs.speed is not None and work.least_speed > _FAR * needs.speed.mid:
        return
    if needs.hours.mid <= NIGHT_HOURS:
        text = f"A run of {_hours(needs.hours)} is small here: done by the next morning."
        yield Reason("small-scale", "run", "here", PLAIN, text, needs.hours.mid, "h")


def _quantization(facts: Facts) -> Iterator[Reason]:
    """Favour here for comparing file types: the runtime and the card that will be used."""
    work, needed = facts.workload, facts.here.needs.needed_bytes
    if work.kind == "quantization":
        fits = "fits" if facts.here.needs.fits else "does not fit whole"
        text = f"{work.model} takes {units.memory(needed)} and {fits}: what counts is this machine."
        yield _memory_reason("quantization", "run", "here", PLAIN, text, needed)


def _pipeline_steps(facts: Facts) -> Iterator[Reason]:
    """Favour here for a pipeline's steps: where they can be looked at."""
    work = facts.workload
    if work.kind == "pipeline" and work.development_hours:
        each = facts.here.needs.hours
        takes = f"takes {_hours(each)} here" if each else "can be tried in part"
        text = f"A step that {takes} is debugged without waiting for a queue."
        value = each.mid if each else None
        yield Reason("pipeline-steps", "development", "here", PLAIN, text, value, "h")


def _sensitive_data(facts: Facts) -> Iterator[Reason]:
    """Keep sensitive data, unless the reader says otherwise."""
    work = facts.workload
    if not work.sensitive:
        return
    data = f"{units.number(work.data_gb)} GB of sensitive data" if work.data_gb else "The data"
    if work.may_leave:
        text = f"{data} may leave, but every copy elsewhere is one more to protect."
        yield Reason("sensitive-data", "run", "here", PLAIN, text, work.data_gb, "GB")
    else:
        text = f"{data} may not leave this machine."
        yield Reason("sensitive-data", "run", "there", 0.0, text, work.data_gb, "GB", "forbidden")


def _preprocessing(facts: Facts) -> Iterator[Reason]:
    """Favour here for what needs CPUs only: the data are here."""
    work = facts.workload
    if work.kind == "preprocessing":
        hours = work.data_gb * 8000 / facts.terms.uplink_mbps / 3600
        text = (
            f"It needs no GPU, and sending {units.number(work.data_gb)} GB at "
            f"{facts.terms.uplink_mbps:g} Mbit/s takes {units.number(hours, 2)} h."
        )
        yield Reason("preprocessing", "run", "here", PLAIN, text, hours, "h")


# --- Leverage Cloud Resources For -------------------------------------------------------------


def _memory(facts: Facts) -> Iterator[Reason]:
    """Bar what does not fit."""
    work, here = facts.workload, facts.here
    needed = here.needs.needed_bytes
    if needed is None:
        return
    method = f"{work.method} training" if work.is_training else "inference"
    what = f"{work.model} takes {units.memory(needed)} for {method}"
    if here.needs.runs:
        split = "" if here.needs.fits else "; the rest lies in RAM"
        text = f"{what}, and there is room for {_room(facts)}{split}."
        yield _memory_reason("memory", "run", "here", 0.0, text, needed)
    else:
        text = f"{what}, more than the {_room(facts)} that there is room for."
        yield _memory_reason("memory", "run", "here", 0.0, text, needed, "impossible")


def _time(facts: Facts) -> Iterator[Reason]:
    """Favour there what is not done by its deadline here."""
    work, hours = facts.workload, facts.here.needs.hours
    if work.deadline_hours is None or hours is None:
        return
    limit = work.deadline_hours
    weight, verdict = _demand(hours.mid / limit, facts)
    text = (
        f"One run takes {_hours(hours)} here, {verdict} {units.number(limit)} h; "
        f"{_there_hours(facts)}."
    )
    yield Reason("time", "run", "there", weight, text, hours.mid, "h")


def _nodes(facts: Facts) -> Iterator[Reason]:
    """Bar training over several machines where there are fewer."""
    wanted, present = facts.workload.n_nodes, facts.terms.n_machines
    if wanted > present:
        text = f"It spreads over {wanted} machines, and there is {present} here."
        yield Reason("nodes", "run", "here", 0.0, text, wanted, "machines", "impossible")


def _availability(facts: Facts) -> Iterator[Reason]:
    """Favour there a service that may hardly ever be down."""
    wanted = facts.workload.availability
    if not wanted:
        return
    allowed = (1 - wanted) * HOURS_PER_YEAR
    expected = facts.terms.hours_down_per_year
    weight = FAILS if expected > allowed else 0.0
    text = (
        f"It may be down for {units.number(allowed, 2)} h a year; this machine is for about "
        f"{units.number(expected, 2)} h, and a second one on the same line would be too."
    )
    yield Reason("availability", "run", "there", weight, text, allowed, "h/year")


def _scale(facts: Facts) -> Iterator[Reason]:
    """Favour there what is too slow for several users here."""
    if facts.workload.users > 1 and facts.workload.kind != "pipeline":
        yield from _speed(facts, "scale", f"each of {facts.workload.users} users gets")


def _latency(facts: Facts) -> Iterator[Reason]:
    """Favour there what keeps users waiting for the first token here."""
    work, wait = facts.workload, facts.here.needs.first_token_s
    if work.first_token_s is None or wait is None:
        return
    limit = work.first_token_s
    weight, verdict = _demand(wait.mid / limit, facts)
    text = (
        f"The first token after a prompt of {work.n_prompt:,} comes in {between(wait, 's')} "
        f"here, {verdict} {units.number(limit)} s."
    )
    yield Reason("latency", "run", "there", weight, text, wait.mid, "s")


def _automation(facts: Facts) -> Iterator[Reason]:
    """Favour there a pipeline that runs by itself, whoever is at home."""
    work = facts.workload
    if work.kind == "pipeline":
        text = (
            f"{units.number(work.runs_per_month)} runs a month start by themselves: a machine "
            "here would have to be on, reachable and idle for them."
        )
        yield Reason("automation", "run", "there", PLAIN, text, work.runs_per_month, "runs/month")


def _hardware(facts: Facts) -> Iterator[Reason]:
    """Bar what takes hardware or services that only exist elsewhere."""
    work, device = facts.workload, facts.here.device
    level = device.compute_capability or 0.0
    if level < work.least_compute_capability:
        text = (
            f"It takes compute capability {work.least_compute_capability:g}; "
            f"{device.name} has {f'{level:g}' if level else 'none'}."
        )
        yield Reason("hardware", "run", "here", 0.0, text, level, "", "impossible")
        if work.development_hours:
            tried = f"A trial takes it too: {device.name} cannot stand in."
            yield Reason("hardware", "development", "here", 0.0, tried, level, "", "impossible")
    if work.managed:
        text = f"{work.managed} runs at its provider only."
        yield Reason("hardware", "run", "here", 0.0, text, bar="impossible")


# --- The rest of the guide --------------------------------------------------------------------


def _pace(facts: Facts) -> Iterator[Reason]:
    """Favour there what offloaded layers make too slow here."""
    if facts.workload.users == 1 and facts.workload.kind != "pipeline":
        yield from _speed(facts, "pace", "it writes")


def _cuda(facts: Facts) -> Iterator[Reason]:
    """Bar software that this GPU cannot run."""
    device = facts.here.device
    if facts.workload.needs_cuda and device.backend != "CUDA":
        text = f"It needs CUDA, and {device.name} runs {device.backend}."
        yield Reason("cuda", "run", "here", 0.0, text, bar="impossible")
        if facts.workload.development_hours:
            tried = f"{text} What is tried here behaves differently there."
            yield Reason("cuda", "development", "there", BADLY, tried)


def _cost(facts: Facts) -> Iterator[Reason]:
    """Weigh electricity here against rent there, per month.

    The machine here is there already: its price is spent whatever is decided.
    """
    here, there = facts.here, facts.there
    if there is None:
        text = "No GPU on the price list runs it."
        yield Reason("cost", "run", "there", 0.0, text, bar="impossible")
        return
    offer = there.offer
    rent = (
        f"{_gpus(there)} at {_usd(offer.usd_per_gpu_hour)} per GPU hour, {offer.provider}, "
        f"{offer.dated or offer.as_of}"
    )
    if not facts.workload.model:
        rent += "; nothing without a GPU is on the price list"
    if here.needs.runs:
        yield _money(
            "run",
            there.usd_per_month - here.usd_per_month,
            f"The run costs {_usd(here.usd_per_month)} of electricity a month here, and "
            f"{_usd(there.usd_per_month)} there ({rent}).",
        )
    else:
        text = f"The run costs {_usd(there.usd_per_month)} a month there ({rent})."
        yield Reason("cost", "run", "there", 0.0, text, there.usd_per_month, "USD/month")
    if facts.workload.development_hours and there.development_usd is not None:
        yield _money(
            "development",
            there.development_usd - here.development_usd,
            f"Development costs {_usd(here.development_usd)} of electricity a month here, and "
            f"{_usd(there.development_usd)} of rent there.",
        )


RULES = (
    Rule(
        "development",
        "Initial coding, debugging, unit testing (code & data validation).",
        _FRAMEWORK,
        "advice",
        _development,
    ),
    Rule(
        "small-scale",
        "Small-scale experiments, prompt engineering, parameter tuning (tracked via MLflow/W&B).",
        _FRAMEWORK,
        "advice",
        _small_scale,
    ),
    Rule(
        "quantization",
        "Testing quantization effects and pipeline configurations.",
        _FRAMEWORK,
        "advice",
        _quantization,
    ),
    Rule(
        "pipeline-steps",
        "Developing and testing CI/CD pipeline steps locally.",
        _FRAMEWORK,
        "advice",
        _pipeline_steps,
    ),
    Rule("sensitive-data", "Working with sensitive data.", _FRAMEWORK, "limit", _sensitive_data),
    Rule(
        "preprocessing", "CPU-intensive data preprocessing.", _FRAMEWORK, "advice", _preprocessing
    ),
    Rule(
        "memory",
        "Large-scale model training or fine-tuning exceeding local compute/memory.",
        _FRAMEWORK,
        "limit",
        _memory,
    ),
    Rule(
        "time",
        "Large-scale model training or fine-tuning exceeding local compute/memory.",
        _FRAMEWORK,
        "figure",
        _time,
    ),
    Rule("nodes", "Distributed training across multiple nodes.", _FRAMEWORK, "limit", _nodes),
    Rule(
        "availability",
        "Production deployment requiring high availability, scalability, and low latency.",
        _FRAMEWORK,
        "figure",
        _availability,
    ),
    Rule(
        "scale",
        "Production deployment requiring high availability, scalability, and low latency.",
        _FRAMEWORK,
        "figure",
        _scale,
    ),
    Rule(
        "latency",
        "Production deployment requiring high availability, scalability, and low latency.",
        _FRAMEWORK,
        "figure",
        _latency,
    ),
    Rule(
        "automation",
        "Running automated CI/CD pipelines for model validation and deployment.",
        _FRAMEWORK,
        "advice",
        _automation,
    ),
    Rule(
        "hardware",
        "Accessing specific powerful hardware (latest GPUs, TPUs) or managed services (e.g., "
        "SageMaker, Vertex AI).",
        _FRAMEWORK,
        "limit",
        _hardware,
    ),
    Rule(
        "pace",
        "offloading significantly slows down inference as the CPU becomes the bottleneck",
        "Common Hardware Bottlenecks",
        "figure",
        _pace,
    ),
    Rule(
        "cuda",
        "Cannot run CUDA-exclusive tools or libraries.",
        "Path 2: Apple Silicon Workstation (Unified Memory Focus)",
        "limit",
        _cuda,
    ),
    Rule(
        "cost",
        "local has upfront hardware costs but low marginal usage cost; cloud has low upfront cost "
        "but recurring pay-per-use fees that can escalate, especially during development",
        "Cost-Benefit Analysis: Local vs. Cloud",
        "figure",
        _cost,
    ),
)


def _speed(facts: Facts, rule: str, what: str) -> Iterator[Reason]:
    work, speed = facts.workload, facts.here.needs.speed
    if speed is None:
        return
    least = work.least_speed
    weight, verdict = _demand(least / speed.mid, facts)
    text = f"Here {what} {between(speed, 'tokens/s')}, {verdict} {least:g} tokens/s."
    yield Reason(rule, "run", "there", weight, text, speed.mid, "tokens/s")


def _demand(shortfall: float, facts: Facts) -> tuple[float, str]:
    """Return how much a demand weighs that is missed by this factor, and how to say so.

    The middle of the interval decides. Its ends would not do: where a model is split between GPU
    and RAM the interval is wider, so that more memory could seem to make the best case worse.
    Where rented GPUs miss the demand too it weighs nothing.
    """
    is_far = max(shortfall, 1 / shortfall) > _FAR
    verdict = f"which {'' if is_far else 'likely '}{'misses' if shortfall > 1 else 'meets'}"
    if shortfall <= 1 or facts.there is None or not facts.there.meets:
        return 0.0, verdict
    return FAILS if shortfall > _HOPELESS else BADLY if is_far else LEAN, verdict


def _money(phase: Phase, saved_here: float, text: str) -> Reason:
    weight = min(_MOST_MONEY, max(0.0, math.log10(max(1.0, abs(saved_here)))))
    place: Place = "here" if saved_here >= 0 else "there"
    return Reason("cost", phase, place, weight, text, saved_here, "USD/month")


def _memory_reason(
    rule: str,
    phase: Phase,
    place: Place,
    weight: float,
    text: str,
    needed: int | None,
    bar: Bar | None = None,
) -> Reason:
    value = None if needed is None else needed / units.GIB
    return Reason(rule, phase, place, weight, text, value, "GiB", bar)


def _room(facts: Facts) -> str:
    here = facts.here
    gpus = units.memory(here.room_bytes)
    if here.device.kind == "discrete" and here.ram_bytes and not facts.workload.is_training:
        return f"{gpus} on the GPU beside {units.memory(here.ram_bytes)} of RAM"
    return gpus


def _there_hours(facts: Facts) -> str:
    needs: Needs | None = facts.there.needs if facts.there else None
    if facts.there is None or needs is None or needs.hours is None:
        return "nothing on the price list runs it"
    return f"rented, {_gpus(facts.there)}: {_hours(needs.hours)}"


def _gpus(there: There) -> str:
    gpus = f"{there.n_gpus} × {there.offer.gpu}" if there.n_gpus > 1 else there.offer.gpu
    return f"{there.n_copies} machines with {gpus} each" if there.n_copies > 1 else gpus


def _hours(span: Span) -> str:
    return between(span, "h")


def _month(hours: float) -> str:
    return f"{units.number(hours, 2)} h a month"


def _usd(value: float) -> str:
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"
