"""The child process of :func:`guidebook.quantize.gguf.quantize`: one call of llama.cpp.

It gets its job as JSON in its only argument, and writes what came out into the job's report.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from guidebook import units

_FALLBACK = re.compile(
    r"warning: (\S+) +- ncols +(\d+) not divisible by +\d+ \(required for type +(\w+)\)"
    r"[^\n]*-> falling back to +(\w+)"
)
# "[   1/ 272] token_embd.weight - [576, 49152, 1, 1], type = f16, size = … -> 28.69 MiB (q8_0)"
_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] +(\S+) +- \[[^]]*\], type = +(\w+), size = +[\d.]+ MiB"
    r"(?: -> +[\d.]+ MiB \((\w+)\))?",
    re.MULTILINE,
)
_SIZE = re.compile(r"(model|quant) size += +([\d.]+) MiB")
_UNWEIGHTED = re.compile(r"did not find weights for (\S+)")
_REASON = re.compile(r"failed to quantize: (.+)")


def main(arguments: list[str]) -> None:
    """Do the job and write the report."""
    job = json.loads(arguments[0])
    Path(job["report"]).write_text(json.dumps(_quantize(job)), encoding="utf-8")


def _quantize(job: dict[str, Any]) -> dict[str, Any]:
    import llama_cpp

    log: list[str] = []

    def keep(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        log.append(text.decode("utf-8", "replace"))

    callback = llama_cpp.llama_log_callback(keep)  # must live as long as the log is written
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = job["ftype"]
    parameters.nthread = job["n_threads"]
    parameters.pure = job["pure"]
    entries, kept = _entries(job["importance"])
    if kept:
        parameters.imatrix = entries

    def call(*, dry_run: bool) -> str:
        log.clear()
        parameters.dry_run = dry_run
        target = (job["target"] or job["source"]).encode()  # a dry run opens no target
        code = llama_cpp.llama_model_quantize(
            job["source"].encode(), target, ctypes.byref(parameters)
        )
        return _reason("".join(log)) if code else ""

    # Without writing a byte, llama.cpp says what it will make of each tensor.
    if error := call(dry_run=True):
        return {"error": error}
    said = _planned("".join(log), Path(job["source"]).stat().st_size)
    if job["target"]:
        free = shutil.disk_usage(Path(job["target"]).parent).free
        if said["needed_bytes"] > free:
            return {**said, "error": "disk", "free_bytes": free}
        said["error"] = call(dry_run=False)
        said["unweighted"] = _UNWEIGHTED.findall("".join(log))
    return said


def _planned(log: str, source_bytes: int) -> dict[str, Any]:
    """Read the log of a dry run."""
    sizes = {name: float(mib) * units.MIB for name, mib in _SIZE.findall(log)}
    fallbacks = [
        (tensor, int(columns), wanted.upper(), used.upper())
        for tensor, columns, wanted, used in _FALLBACK.findall(log)
    ]
    return {
        "error": "",
        "needed_bytes": round(source_bytes - sizes["model"] + sizes["quant"]),
        "types": {name: (new or old).upper() for name, old, new in _TENSOR.findall(log)},
        "fallbacks": fallbacks,
    }


def _reason(log: str) -> str:
    found = _REASON.findall(log)
    return str(found[-1]) if found else "it gave no reason"


def _entries(path: str | None) -> tuple[Any, list[Any]]:
    """Return the importance as the list of llama.cpp's C interface, and what must outlive it."""
    import llama_cpp
    import numpy as np

    if path is None:
        return None, []
    with np.load(path) as stored:
        kept = [(name.encode(), np.ascontiguousarray(stored[name])) for name in stored.files]
    # The list ends with an entry without a name.
    entries = (llama_cpp.llama_model_imatrix_data * (len(kept) + 1))()
    for entry, (name, values) in zip(entries, kept, strict=False):
        entry.name = name
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries, kept


if __name__ == "__main__":
    main(sys.argv[1:])
