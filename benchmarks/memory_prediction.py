"""Predicted memory against llama.cpp's own allocation report.

Usage: .venv/bin/python benchmarks/memory_prediction.py [--skip-embedded] [--skip-simulated]

First the embedded model: several quantizations, contexts, flash attention on and off, really
loaded. Then models from the catalog that this machine need not be able to hold: llama.cpp
simulates them from a header. Each row compares weights, KV cache, compute buffer and their sum.
The exit code is 1 if a row of the embedded model is off by more than 3 % and 8 MiB, or a
simulated compute buffer by more than 10 % and 8 MiB.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import llama_cpp

from guidebook import architecture, gguf_files, memory, models, units, weights
from guidebook.architecture import Architecture
from guidebook.catalog import models as model_catalog
from guidebook.measure import allocation, blank_models
from guidebook.measure.allocation import Allocation, Setting

CONTEXTS = (512, 2048, 8192, 32768)
QUANTIZATIONS = {"Q8_0": 7, "Q4_K_M": 15, "Q4_0": 2, "Q2_K": 10}  # llama.h, enum llama_ftype
SIMULATED = (
    "llama-2-7b",
    "llama-3-8b",
    "llama-3-70b",
    "mixtral-8x7b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "gemma-3-27b",
    "gpt-oss-20b",
    "deepseek-v3",
)
CLOSE = 8 * units.MIB


@dataclass(frozen=True)
class Row:
    """One comparison, in bytes."""

    name: str
    setting: Setting
    predicted: memory.InferenceMemory
    reported: Allocation

    @property
    def error_bytes(self) -> int:
        """Predicted less reported, everything together."""
        return predicted_bytes(self.predicted) - self.reported.total_bytes

    @property
    def error(self) -> float:
        """The same as a share of what was reported."""
        return self.error_bytes / self.reported.total_bytes

    @property
    def compute_error(self) -> float:
        """Error of the compute buffer alone."""
        reported = self.reported.compute_bytes + self.reported.output_bytes
        return self.predicted.compute_bytes / reported - 1


def predicted_bytes(found: memory.InferenceMemory) -> int:
    """Sum what the report knows about: all but the runtime itself."""
    return found.total_bytes - found.overhead_bytes


def settings(n_ubatches: tuple[int, ...], kv_types: tuple[str, ...]) -> list[Setting]:
    """List contexts × batch sizes × flash attention × cache types that llama.cpp accepts."""
    return [
        Setting(n_ctx, n_ubatch, flash_attention=flash, kv_type=kv_type)
        for n_ctx, n_ubatch, flash, kv_type in itertools.product(
            CONTEXTS, n_ubatches, (True, False), kv_types
        )
        if flash or kv_type == "f16"
    ]


def predict(
    shape: Architecture, account: weights.WeightAccount, setting: Setting
) -> memory.InferenceMemory:
    """Predict what the report will say."""
    return memory.inference(
        shape,
        account,
        setting.n_ctx,
        n_ubatch=setting.n_ubatch,
        flash_attention=setting.flash_attention,
        kv_type=setting.kv_type,
    )


def embedded_rows(folder: Path) -> Iterator[Row]:
    """Compare every quantization of the embedded model, loaded for real."""
    source = models.resolve("embedded", "gguf-f16").path
    files = {"Q4_1 as shipped": models.embedded_file(), "F16": source}
    for name, number in QUANTIZATIONS.items():
        files[name] = folder / f"{name}.gguf"
        quantize(source, files[name], number)
    wanted = settings((512,), ("f16",))
    for name, path in files.items():
        found = gguf_files.inspect(path)
        shape = architecture.from_gguf_metadata(
            found.metadata, tied_embeddings=found.tied_embeddings
        )
        account = weights.from_gguf(found)
        for setting, report in zip(wanted, allocation.reports(path, wanted), strict=True):
            yield Row(name, setting, predict(shape, account, setting), report)


def quantize(source: Path, target: Path, file_type: int) -> None:
    """Write a quantized copy with llama.cpp's own function."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise RuntimeError(f"llama.cpp could not quantize {source.name}.")


def simulated_rows(folder: Path) -> Iterator[Row]:
    """Compare models of the catalog, simulated from a header without weights."""
    wanted = settings((128, 512), ("f16", "q8_0"))
    for name in SIMULATED:
        shape = model_catalog.find(name).architecture
        path = folder / "blank.gguf"
        blank_models.write(path, shape)
        account = weights.from_gguf(gguf_files.inspect(path))
        reports = allocation.reports(path, wanted, no_alloc=True)
        for setting, report in zip(wanted, reports, strict=True):
            # The report of a simulation gives the file's size rounded to hundredths of a GiB.
            exact = replace(report, weights_bytes=account.total_bytes)
            yield Row(name, setting, predict(shape, account, setting), exact)


def show(rows: Iterator[Row]) -> list[Row]:
    """Print rows as they come, and return them."""
    print(
        f"{'model':16} {'context':>7} {'batch':>5} {'FA':3} {'cache':5} "
        f"{'KV cache':>10} {'said':>10} {'compute':>10} {'said':>10} {'off':>7} "
        f"{'total':>10} {'said':>10} {'off':>7}"
    )
    shown = []
    for row in rows:
        report, ours, case = row.reported, row.predicted, row.setting
        print(
            f"{row.name:16} {case.n_ctx:7} {case.n_ubatch:5} "
            f"{'on' if case.flash_attention else 'off':3} {case.kv_type:5} "
            f"{units.memory(ours.kv_cache_bytes):>10} {units.memory(report.kv_cache_bytes):>10} "
            f"{units.memory(ours.compute_bytes):>10} "
            f"{units.memory(report.compute_bytes + report.output_bytes):>10} "
            f"{row.compute_error:+7.2%} "
            f"{units.memory(predicted_bytes(ours)):>10} {units.memory(report.total_bytes):>10} "
            f"{row.error:+7.2%}"
        )
        shown.append(row)
    return shown


def main() -> int:
    """Print both tables, and say whether every row is close enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-embedded", action="store_true")
    parser.add_argument("--skip-simulated", action="store_true")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        if not options.skip_embedded:
            rows = show(embedded_rows(Path(folder)))
            off = [row for row in rows if abs(row.error) > 0.03 and abs(row.error_bytes) > CLOSE]
            worst = max(abs(row.error) for row in rows)
            print(f"embedded: {len(rows)} rows, worst total {worst:.2%}, {len(off)} beyond\n")
            failed += len(off)
        if not options.skip_simulated:
            rows = show(simulated_rows(Path(folder)))
            off = [
                row
                for row in rows
                if abs(row.compute_error) > 0.1
                and abs(row.predicted.compute_bytes - row.reported.compute_bytes) > CLOSE
            ]
            worst = max(abs(row.compute_error) for row in rows)
            print(f"simulated: {len(rows)} rows, worst compute {worst:.2%}, {len(off)} beyond")
            failed += len(off)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
