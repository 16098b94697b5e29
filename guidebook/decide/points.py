"""The guide's two lists point by point, each with a workload that is its case.

Whoever makes a rule of each point finds each point in the answers. So a point also says which
rules quote it: what comes out without them is what the figures say.
"""

from __future__ import annotations

from dataclasses import dataclass

from guidebook.decide import workloads
from guidebook.decide.rules import OPTIONS, RULES, Option, Phase, Place
from guidebook.decide.workloads import Workload


@dataclass(frozen=True)
class Point:
    """One point of the guide's lists as a case to decide.

    Attributes
    ----------
    quote
        The point, in the guide's words.
    workload
        A ready-made workload that it is about.
    phase, place
        What the guide says: this phase of it is done there.
    """

    quote: str
    workload: Workload
    phase: Phase
    place: Place

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules that quote the point."""
        return tuple(rule.id for rule in RULES if rule.quote == self.quote)

    def agrees(self, option: Option | None) -> bool:
        """Whether an answer puts this phase where the guide does; no answer agrees with nothing."""
        return option is not None and OPTIONS[option][self.phase] == self.place


_CODING = "Initial coding, debugging, unit testing (code & data validation)."
_SMALL = "Small-scale experiments, prompt engineering, parameter tuning (tracked via MLflow/W&B)."
_LARGE = "Large-scale model training or fine-tuning exceeding local compute/memory."

# "Prioritize Local Development For", then "Leverage Cloud Resources For".
POINTS = (
    Point(_CODING, workloads.CODING, "run", "here"),
    Point(_CODING, workloads.FULL_FINE_TUNE_8B, "development", "here"),
    Point(_SMALL, workloads.PROMPT_ENGINEERING, "run", "here"),
    Point(_SMALL, workloads.QLORA_8B, "run", "here"),
    Point(
        "Testing quantization effects and pipeline configurations.",
        workloads.QUANTIZATION_TESTS,
        "run",
        "here",
    ),
    Point(
        "Developing and testing CI/CD pipeline steps locally.",
        workloads.CI_EVALUATION,
        "development",
        "here",
    ),
    Point("Working with sensitive data.", workloads.SENSITIVE_DATA, "run", "here"),
    Point("CPU-intensive data preprocessing.", workloads.PREPROCESSING, "run", "here"),
    Point(_LARGE, workloads.FULL_FINE_TUNE_8B, "run", "there"),
    Point(_LARGE, workloads.PRE_TRAINING, "run", "there"),
    Point(
        "Distributed training across multiple nodes.",
        workloads.DISTRIBUTED_TRAINING,
        "run",
        "there",
    ),
    Point(
        "Production deployment requiring high availability, scalability, and low latency.",
        workloads.SERVICE_8B,
        "run",
        "there",
    ),
    Point(
        "Running automated CI/CD pipelines for model validation and deployment.",
        workloads.CI_EVALUATION,
        "run",
        "there",
    ),
    Point(
        "Accessing specific powerful hardware (latest GPUs, TPUs) or managed services (e.g., "
        "SageMaker, Vertex AI).",
        workloads.FP8_TRAINING,
        "run",
        "there",
    ),
)
