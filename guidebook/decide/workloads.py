"""What is to be done: a workload as the decision needs it, and ready-made ones."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from guidebook.cost.use import WEEKS_PER_MONTH
from guidebook.training import Method

Kind = Literal[
    "coding",
    "experiment",
    "quantization",
    "preprocessing",
    "inference",
    "pipeline",
    "service",
    "training",
]


@dataclass(frozen=True)
class Workload:
    """One thing to do, as the reader states it.

    Attributes
    ----------
    name
        For tables.
    kind
        ``coding``, ``experiment`` (prompts, parameters), ``quantization`` (its effects),
        ``preprocessing`` (of data, by the CPU), ``inference`` (for oneself), ``pipeline`` (runs
        by itself on every change), ``service`` (answers others, always on), ``training``.
    model
        Name of the model catalog; empty: no model is loaded.
    quant
        File type for inference; empty: the usual one, 4 bits.
    context, depth, n_prompt
        Tokens: to allocate for each user, in the context when the speed counts, and of the prompt
        that the first token waits for.
    method, optimizer, sequence, batch
        Of training, as for :func:`guidebook.training.training`; ``sequence`` in tokens.
    tokens
        Per run: tokens trained on, or written by a pipeline.
    hours
        Per run, where a person sets the pace; of preprocessing: hours of this machine's CPU.
    runs_per_month
        How often. A service runs all the time.
    users, least_speed
        At the same time, and tokens/s that each should get.
    first_token_s
        Longest wait for the first token, in seconds; None: no matter.
    availability
        Share of the year in which it must answer; 0: it may stop at any time.
    deadline_hours
        By when one run must be done; None: no matter.
    n_nodes, n_gpus
        Machines that it must spread over; GPUs to rent, None: as few as do.
    sensitive, may_leave
        The data are sensitive; the reader allows them in a public cloud all the same.
    data_gb
        Data in GB (10⁹ bytes).
    development_hours
        Per month, spent on code and small trials before the real run; 0: nothing to develop.
    trial_model
        What development runs; empty: the model itself.
    needs_cuda, least_compute_capability
        Software for NVIDIA only; the feature level that it takes, for example 8.9 for FP8.
    managed
        Name of a managed service that is wanted; empty: none.
    """

    name: str
    kind: Kind
    model: str = ""
    quant: str = ""
    context: int = 8192
    depth: int = 2048
    n_prompt: int = 2048
    method: Method = "full"
    optimizer: str = "adamw"
    sequence: int = 1024
    batch: int = 1
    tokens: float = 0.0
    hours: float = 0.0
    runs_per_month: float = 1.0
    users: int = 1
    least_speed: float = 10.0
    first_token_s: float | None = None
    availability: float = 0.0
    deadline_hours: float | None = None
    n_nodes: int = 1
    n_gpus: int | None = None
    sensitive: bool = False
    may_leave: bool = False
    data_gb: float = 0.0
    development_hours: float = 0.0
    trial_model: str = ""
    needs_cuda: bool = False
    least_compute_capability: float = 0.0
    managed: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise ValueError(f"Unknown kind of workload {self.kind!r}. Use one of {known}.")
        for name in ("tokens", "hours", "runs_per_month", "data_gb", "development_hours"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name):g}. Give 0 or more.")
        for name in ("users", "n_nodes", "context", "n_prompt", "sequence", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}. Give 1 or more.")
        if self.depth < 0 or not 0 < self.least_speed < math.inf:
            raise ValueError("Give a depth of 0 or more tokens and a least_speed above 0.")
        if not 0 <= self.availability <= 1:
            raise ValueError(
                f"An availability of {self.availability:g} is no share. Give 0 to 1: 0.999."
            )
        for name in ("deadline_hours", "first_token_s", "n_gpus"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value:g}. Give more than 0, or None for no matter.")
        if self.kind in ("training", "pipeline") and not (self.model and self.tokens):
            raise ValueError(f"{self.name!r} needs a model and the tokens of one run.")
        if self.kind in ("inference", "service", "quantization") and not self.model:
            raise ValueError(f"{self.name!r} needs a model, such as 'llama-3.1-8b'.")

    @property
    def is_training(self) -> bool:
        """Whether it trains weights."""
        return self.kind == "training"

    @property
    def hours_per_week(self) -> float | None:
        """Hours of an average week; None: the machine sets the pace, not a person."""
        return self.hours * self.runs_per_month / WEEKS_PER_MONTH if self.hours else None

    def weekly(self, hours: float) -> Workload:
        """Return the same workload for so many hours of an average week, in runs as long as now.

        Raises
        ------
        ValueError
            The machine sets the pace, or the hours are not 0 or more.
        """
        if not self.hours:
            raise ValueError(
                f"How long {self.name!r} takes is up to the machine. Set runs_per_month instead."
            )
        return replace(self, runs_per_month=hours * WEEKS_PER_MONTH / self.hours)


PROMPT_ENGINEERING = Workload(
    "prompt engineering, 8B", "experiment", "llama-3.1-8b", hours=2, runs_per_month=20
)
SERVICE_8B = Workload(
    "8B inference service",
    "service",
    "llama-3.1-8b",
    users=8,
    least_speed=15,
    first_token_s=1.0,
    availability=0.999,
    development_hours=10,
)
QLORA_8B = Workload(
    "QLoRA of 8B",
    "training",
    "llama-3.1-8b",
    method="qlora",
    sequence=512,
    tokens=5e6,
    runs_per_month=4,
    deadline_hours=12,
    development_hours=10,
)
FULL_FINE_TUNE_8B = Workload(
    "full fine-tune of 8B",
    "training",
    "llama-3.1-8b",
    tokens=50e6,
    deadline_hours=48,
    development_hours=20,
    trial_model="smollm2-135m",
)
INFERENCE_70B = Workload(
    "70B inference",
    "inference",
    "llama-3.3-70b",
    hours=2,
    runs_per_month=20,
    development_hours=10,
    trial_model="llama-3.1-8b",
)
PRE_TRAINING = Workload(
    "pre-training of 1B",
    "training",
    "llama-3.2-1b",
    # 20 tokens per weight: Hoffmann et al. 2022, Training Compute-Optimal Large Language Models.
    tokens=25e9,
    deadline_hours=14 * 24,
    development_hours=40,
    trial_model="smollm2-135m",
)
SENSITIVE_DATA = Workload(
    "questions about sensitive data, 8B",
    "inference",
    "llama-3.1-8b",
    hours=2,
    runs_per_month=20,
    sensitive=True,
    data_gb=5,
)
CI_EVALUATION = Workload(
    "CI evaluation of 8B",
    "pipeline",
    "llama-3.1-8b",
    tokens=100e3,
    runs_per_month=60,
    deadline_hours=1,
    development_hours=10,
)
CODING = Workload("coding, debugging, unit tests", "coding", hours=4, runs_per_month=20)
QUANTIZATION_TESTS = Workload(
    "effects of quantization, 8B", "quantization", "llama-3.1-8b", hours=2, runs_per_month=10
)
PREPROCESSING = Workload(
    "preprocessing of 200 GB of text", "preprocessing", hours=20, data_gb=200, runs_per_month=1
)
DISTRIBUTED_TRAINING = Workload(
    "full fine-tune of 70B on 2 nodes",
    "training",
    "llama-3.3-70b",
    tokens=20e6,
    n_nodes=2,
    needs_cuda=True,
    development_hours=40,
    trial_model="smollm2-135m",
)
FP8_TRAINING = Workload(
    "FP8 kernels for the latest GPUs",
    "training",
    "llama-3.2-1b",
    tokens=1e9,
    runs_per_month=4,
    needs_cuda=True,
    least_compute_capability=9.0,
    development_hours=20,
    trial_model="smollm2-135m",
)
# The eight of the chapter, then one for each remaining point of the guide's list.
READY_MADE = (
    PROMPT_ENGINEERING,
    SERVICE_8B,
    QLORA_8B,
    FULL_FINE_TUNE_8B,
    INFERENCE_70B,
    PRE_TRAINING,
    SENSITIVE_DATA,
    CI_EVALUATION,
    CODING,
    QUANTIZATION_TESTS,
    PREPROCESSING,
    DISTRIBUTED_TRAINING,
    FP8_TRAINING,
)


def find(name: str) -> Workload:
    """Return a ready-made workload by its name.

    Raises
    ------
    LookupError
        There is none of this name; the message lists near ones.
    """
    by_name = {workload.name.casefold(): workload for workload in READY_MADE}
    found = by_name.get(name.strip().casefold())
    if found is None:
        near = difflib.get_close_matches(name.strip().casefold(), by_name, 3, 0.3)
        known = " or ".join(repr(by_name[key].name) for key in near or by_name)
        raise LookupError(f"No ready-made workload {name!r}. Try {known}.")
    return found
