"""Importing the package costs little and pulls in no heavy library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "llama_cpp",
    "numpy",
    "scipy",
    "matplotlib",
    "psutil",
    "papermill",
    "gguf",
    "openai",
    "ollama",
    "httpx",
    "httpx2",
)
CORE = (
    "advice",
    "anonymous",
    "architecture",
    "cases",
    "catalog.clouds",
    "catalog.hardware",
    "catalog.models",
    "catalog.prices",
    "catalog.quantizations",
    "claims",
    "compare",
    "compute_graph",
    "cost.break_even",
    "cost.carbon",
    "cost.depreciation",
    "cost.ownership",
    "cost.renting",
    "cost.sensitivity",
    "cost.tokens",
    "cost.use",
    "decide",
    "decide.judgement",
    "documents",
    "fit",
    "memory",
    "peers",
    "planner",
    "quantization_recipe",
    "records",
    "results",
    "speed",
    "tables",
    "texts",
    "training",
    "units",
    "weights",
    "workload",
    "writing",
)
LIVE = (
    "bench",
    "calibration",
    "catalog.attention",
    "chapter",
    "charts",
    "cli",
    "convert",
    "cost.show",
    "derive",
    "doctor",
    "engines",
    "engines.discovery",
    "engines.server",
    "figures",
    "finetuning",
    "guide_map",
    "hindsight",
    "lifeline",
    "live_prices",
    "machine",
    "measure",
    "measure.allocation",
    "measure.attention",
    "measure.blank_models",
    "measure.limited",
    "measure.quality",
    "measure.speculative",
    "measure.tasks",
    "measure.weights_held",
    "models",
    "plan",
    "published",
    "quantize.bnb",
    "quantize.compressor",
    "quantize.contenders",
    "quantize.gguf",
    "quantize.importance",
    "quantize.mixture",
    "quantize.show",
    "quiet",
    "renting_advice",
    "report",
    "runner",
    "scoreboard",
    "splits",
    "upgrade",
    "widgets.cost",
    "widgets.decider",
    "widgets.explorer",
)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", [*CORE, *LIVE])
def test_no_module_imports_a_heavy_library_by_itself(module):
    code = f"import sys, guidebook.{module}; print([m for m in {HEAVY} if m in sys.modules])"
    assert _python(code) == "[]"


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_the_standard_library_only(module):
    code = (
        "import sys; before = set(sys.modules); "
        f"import guidebook.{module}; "
        "tops = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(t for t in tops if t not in sys.stdlib_module_names and t != 'guidebook'))"
    )
    assert _python(code) == "[]"


def test_importing_the_package_takes_at_most_50_ms():
    code = (
        "import time; start = time.perf_counter(); import guidebook; "
        "print(time.perf_counter() - start)"
    )
    # The best of five: what the import costs, not what else the machine was doing.
    assert min(float(_python(code)) for _ in range(5)) <= 0.05
