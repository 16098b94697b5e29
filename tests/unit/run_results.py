"""Results of chapters to try records on: real claims with evidence from the ledger's examples."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guidebook import claims, records
from guidebook.records import Record

GIB = 1024**3
CHAPTERS = ("11-your-machine", "42-quantization-gguf")
READINGS = {
    "decode": ("tokens/s", [100.0, 101.0, 99.0]),
    "memory_bandwidth": ("bytes/s", [2.50e10, 2.52e10, 2.49e10]),
}
LAPTOP: dict[str, Any] = {
    "cpu": {
        "model": "Intel(R) Core(TM) i7-11700KF @ 3.60GHz",
        "architecture": "x86_64",
        "physical_cores": 8,
        "logical_cores": 16,
        "usable_cores": 16.0,
    },
    "memory": {"total_bytes": 34 * GIB, "effective_total_bytes": 32 * GIB},
    "gpus": [
        {
            "name": "NVIDIA GeForce RTX 3080",
            "kind": "cuda",
            "memory_total_bytes": 10 * GIB,
            "memory_free_bytes": 9 * GIB,
            "unified": False,
            "driver": "581.29",
            "cuda_driver_version": "13.0",
            "compute_capability": [8, 6],
            "power_limit_w": 320.0,
        }
    ],
    "disk": {"label": "models cache", "kind": "nvme", "filesystem": "ext4"},
    "system": {
        "os": "Linux",
        "os_version": "Ubuntu 24.04",
        "kernel": "6.6.87",
        "wsl": 2,
        "container": None,
        "virtual_machine": "Hyper-V",
    },
    "software": {
        "python": "3.12.3",
        "packages": {"torch": "2.13.0+cu130", "numpy": "2.4.6", "vllm": None},
    },
}


def results_of(
    chapter: str,
    *,
    outcome: str = "held",
    readings: Mapping[str, tuple[str, Sequence[float]]] | None = None,
    machine: Mapping[str, Any] = LAPTOP,
    created: str = "2026-11-23T12:34:56Z",
    **parameters: str,
) -> dict[str, Any]:
    """Return valid results of a chapter whose claims all come out alike."""
    measured = READINGS if readings is None else readings
    return {
        "schema_version": 1,
        "chapter": chapter,
        "created": created,
        "guidebook": "0.1.0",
        "parameters": {"model": "embedded", "device": "cuda", "profile": "quick", **parameters},
        "machine": copy.deepcopy(dict(machine)),
        "measurements": {
            name: {
                "unit": unit,
                "samples": list(samples),
                "median": sorted(samples)[len(samples) // 2],
                "low": min(samples),
                "high": max(samples),
                "repetitions": len(samples),
            }
            for name, (unit, samples) in measured.items()
        },
        "claims": [_judged(claim, outcome) for claim in claims.of_chapter(chapter)],
    }


def _judged(claim: claims.Claim, outcome: str) -> dict[str, Any]:
    example = next((one for one in claim.examples if one.outcome.value == outcome), None)
    return {
        "id": claim.id,
        "outcome": outcome,
        "evidence": dict(example.evidence) if example else {},
        "because": "" if example else "It was not tried.",
    }


def write_run(folder: Path, *contents: Mapping[str, Any]) -> Path:
    """Write results files as a run does and return the run's folder."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for content in contents or [results_of(chapter) for chapter in CHAPTERS]:
        path = folder / "results" / f"{content['chapter']}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def record_of(*contents: Mapping[str, Any]) -> Record:
    """Make a record of results without a folder."""
    given = contents or [results_of(chapter) for chapter in CHAPTERS]
    found = records.Found({content["chapter"]: content for content in given}, {})
    return records.make(found, words=())
