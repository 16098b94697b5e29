"""Published speeds and power of whole computers, as one collection of measurements has them.

The collection is geerlingguy/ai-benchmarks: many systems, each running the same few models under
Ollama, with the highest power that the system drew at the wall.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources

from guidebook.catalog import hardware
from guidebook.catalog.hardware import Device

_TABLE = "geerling_ollama_power"


@dataclass(frozen=True)
class Run:
    """One model on one system.

    Attributes
    ----------
    model, system
        As the collection names them.
    processor
        What computed: ``GPU``, ``CPU``, or both, ``GPU/CPU``.
    device
        The device of the hardware catalog; None where the collection does not name it clearly.
    tokens_per_second
        While writing.
    watts
        Highest power at the wall; None where it was not measured.
    source
        Where the row stands.
    """

    model: str
    system: str
    processor: str
    device: Device | None
    tokens_per_second: float
    watts: float | None
    source: str

    @property
    def tokens_per_joule(self) -> float | None:
        """Tokens for each joule, at the highest power: a lower bound."""
        return self.tokens_per_second / self.watts if self.watts else None

    @property
    def path(self) -> str | None:
        """``Mac``, ``PC`` or ``DGX`` if a GPU of that kind did the work, else None."""
        if self.device is None or self.processor != "GPU":
            return None
        kinds = {"apple unified": "Mac", "nvidia discrete": "PC", "nvidia unified": "DGX"}
        return kinds.get(f"{self.device.vendor} {self.device.kind}")


@functools.cache
def runs() -> tuple[Run, ...]:
    """Return every run of the collection."""
    devices = {
        row["name"]: hardware.find(row["device"])
        for row in _rows("devices")
        if row["table"] == _TABLE
    }
    return tuple(
        Run(
            model=row["model"],
            system=row["system"],
            processor=row["proc"],
            device=devices.get(row["system"]),
            tokens_per_second=float(row["eval_tok_s"]),
            watts=float(row["peak_wall_power_w"]) if row["peak_wall_power_w"] else None,
            source=row["source"],
        )
        for row in _rows(_TABLE)
    )


def find(model: str, system: str) -> Run:
    """Return the run of a model on the first system whose name holds ``system``.

    Raises
    ------
    LookupError
        There is none.
    """
    found = next((r for r in runs() if r.model == model and system in r.system), None)
    if found is None:
        raise LookupError(f"No published run of {model!r} on a system named {system!r}.")
    return found


def most_per_joule(model: str) -> dict[str, Run]:
    """Return for each path the run of a model with the most tokens per joule."""
    best: dict[str, Run] = {}
    for run in runs():
        if run.model == model and run.path is not None and run.tokens_per_joule is not None:
            best[run.path] = max(best.get(run.path, run), run, key=_per_joule)
    return best


def _per_joule(run: Run) -> float:
    return run.tokens_per_joule or 0.0


def _rows(table: str) -> list[dict[str, str]]:
    path = resources.files("guidebook.catalog").joinpath(f"reference/{table}.csv")
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))
