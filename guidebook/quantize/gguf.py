"""GGUF files of fewer bits, made by llama.cpp's own quantizer.

:func:`quantize` makes a file with ``llama_model_quantize``, the function behind llama.cpp's tool
``llama-quantize``. llama.cpp ends the whole process where one of its own checks fails, so the
function runs in a child process, whose log also tells why something did not work.

:func:`encode` quantizes one matrix with the same code, in this process and after the checks that
llama.cpp would die of.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from guidebook import lifeline, machine, units
from guidebook.catalog import quantizations

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from guidebook.quantize.importance import Importance

    Floats = npt.NDArray[np.float32]

_SECONDS = 3600.0
_CHILD = "guidebook.quantize._gguf_child"


class QuantizeError(RuntimeError):
    """A file could not be quantized; the message says why and what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of this package.
        return [f"QuantizeError: {self}"]


@dataclass(frozen=True)
class Fallback:
    """A tensor that could not have the type that the recipe wants.

    Attributes
    ----------
    tensor
        llama.cpp's name, for example ``blk.0.attn_q.weight``.
    columns
        Weights in one of its rows; they do not fill whole blocks of ``wanted``.
    wanted, used
        Tensor types, for example ``Q4_K`` and ``Q5_0``.
    """

    tensor: str
    columns: int
    wanted: str
    used: str


@dataclass(frozen=True)
class Plan:
    """What llama.cpp would make of a file.

    Attributes
    ----------
    recipe
        File type, for example ``Q4_K_M``.
    types
        Type of each tensor by its name, for example ``blk.0.attn_q.weight``.
    fallbacks
        Tensors that get another type than the recipe wants, because of their shape.
    file_bytes
        Size of the file.
    """

    recipe: str
    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    file_bytes: int


@dataclass(frozen=True)
class Quantized:
    """A file that :func:`quantize` has made.

    Attributes
    ----------
    path
        The file.
    plan
        What llama.cpp said about it before.
    unweighted
        Names of quantized tensors that the importance matrix says nothing about; empty without
        one.
    """

    path: Path
    plan: Plan
    unweighted: tuple[str, ...]


def quantize(
    source: Path,
    target: Path,
    recipe: str,
    *,
    importance: Importance | None = None,
    pure: bool = False,
    n_threads: int | None = None,
    time_limit: float = _SECONDS,
) -> Quantized:
    """Make a GGUF file of fewer bits with ``llama_model_quantize``.

    The file appears under its name when it is whole; if anything fails, or is interrupted,
    nothing is left, and a file that had the name before is still there.

    Parameters
    ----------
    source
        A GGUF file in F16, BF16 or F32.
    target
        The file to make.
    recipe
        File type, for example ``Q4_K_M``.
    importance
        Weigh the errors of each matrix by the mean square of its inputs.
    pure
        Give every matrix the recipe's base type, as ``llama-quantize --pure`` does.
    n_threads
        Threads; without a number, one per physical core that this process may use.
    time_limit
        Seconds after which the child process is ended.

    Raises
    ------
    LookupError
        There is no such file type.
    QuantizeError
        A file or folder is missing, the disk is too full, llama.cpp refused or crashed, or it
        took too long.
    """
    job = _job(source, recipe, pure=pure)
    if not target.parent.is_dir():
        raise QuantizeError(f"There is no folder {target.parent.name} for {target.name}. Make it.")
    if target.exists() and target.samefile(source):
        raise QuantizeError(f"{source.name} cannot be quantized onto itself. Name another file.")
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    job |= {"target": str(partial), "n_threads": n_threads or machine.usable_threads()}
    try:
        said = _run(job, importance, time_limit)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Quantized(target, _plan(job, said), tuple(said["unweighted"]))


def plan(
    source: Path,
    recipe: str,
    *,
    importance: Importance | None = None,
    pure: bool = False,
    time_limit: float = _SECONDS,
) -> Plan:
    """Ask llama.cpp what it would make of a file, as ``llama-quantize --dry-run`` does.

    It takes a second and writes nothing. The parameters are those of :func:`quantize`.

    Raises
    ------
    LookupError
        There is no such file type.
    QuantizeError
        The file is missing, or llama.cpp refused, crashed or took too long.
    """
    job = _job(source, recipe, pure=pure)
    return _plan(job, _run(job, importance, time_limit))


def encode(
    weights: Floats, tensor_type: str, importance: Floats | None = None
) -> npt.NDArray[np.uint8]:
    """Quantize a matrix as llama.cpp does, with ``ggml_quantize_chunk``.

    ``gguf.quants.dequantize`` turns the bytes into numbers again.

    Parameters
    ----------
    weights
        Shape (rows, columns).
    tensor_type
        For example ``Q4_K`` or ``IQ2_XXS``.
    importance
        Weight of each column's squared error, shape (columns,); None: llama.cpp's own rule for
        the type.

    Returns
    -------
    numpy.ndarray
        The blocks as bytes, shape (rows, bytes of a row).

    Raises
    ------
    LookupError
        There is no such tensor type.
    ValueError
        The matrix or the importance does not suit the type; says how.
    """
    import ctypes

    import numpy as np
    from gguf import GGMLQuantizationType
    from llama_cpp import llama_cpp

    kind = quantizations.tensor_type(tensor_type)
    number = GGMLQuantizationType[kind.name].value
    rows = np.ascontiguousarray(weights, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] % kind.block_weights:
        raise ValueError(
            f"{kind.name} stores rows of whole blocks of {kind.block_weights} weights; a matrix of "
            f"shape {rows.shape} has none. Take a type with smaller blocks."
        )
    columns = rows.shape[1]
    library = llama_cpp._lib
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    if importance is None and library.ggml_quantize_requires_imatrix(number):
        raise ValueError(f"{kind.name} cannot be made without the importance of the columns.")
    column_weights = None
    if importance is not None:
        column_weights = np.ascontiguousarray(importance, dtype=np.float32)
        if column_weights.shape != (columns,) or not (column_weights >= 0).all():
            raise ValueError(
                f"The importance must be {columns} numbers, one for each column, none of them "
                "negative or NaN."
            )
    if not np.isfinite(rows).all() or (
        column_weights is not None and not np.isfinite(column_weights).all()
    ):
        raise ValueError("Weights and importance must be finite: infinity and NaN have no block.")
    encoded = np.empty((len(rows), kind.n_bytes(columns)), dtype=np.uint8)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = library.ggml_quantize_chunk(
        ctypes.c_int(number),
        rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        encoded.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(len(rows)),
        ctypes.c_int64(columns),
        None
        if column_weights is None
        else column_weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
    )
    if written != encoded.nbytes:
        raise RuntimeError(f"llama.cpp wrote {written} bytes of {encoded.nbytes}.")
    return encoded


def _job(source: Path, recipe: str, *, pure: bool) -> dict[str, Any]:
    kind = quantizations.find(recipe).name
    ftype = _ftype(kind)
    if not source.is_file():
        raise QuantizeError(f"There is no file {source.name} to quantize. Check its path.")
    return {
        "source": str(source),
        "target": None,
        "recipe": kind,
        "ftype": ftype,
        "pure": pure,
        "n_threads": 1,
    }


def _plan(job: Mapping[str, Any], said: Mapping[str, Any]) -> Plan:
    return Plan(
        recipe=job["recipe"],
        types=MappingProxyType(said["types"]),
        fallbacks=tuple(Fallback(*found) for found in said["fallbacks"]),
        file_bytes=said["needed_bytes"],
    )


def _ftype(kind: str) -> int:
    import llama_cpp

    for prefix in ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_"):
        number = getattr(llama_cpp, prefix + kind, None)
        if number is not None:
            return int(number)
    raise LookupError(
        f"llama-cpp-python {llama_cpp.__version__} cannot make {kind}. Update it, or take another "
        "file type."
    )


def _run(
    job: Mapping[str, Any], importance: Importance | None, time_limit: float
) -> dict[str, Any]:
    """Do the job in a child process and return what it reports."""
    import numpy as np

    what = f"{job['recipe']} of {Path(job['source']).name}"
    with tempfile.TemporaryDirectory(prefix="guidebook-quantize-") as folder:
        report, weights = Path(folder, "report.json"), Path(folder, "importance.npz")
        if importance is not None:
            arrays: dict[str, Any] = dict(importance.mean_squares)
            np.savez(weights, **arrays)
        files = {"report": str(report), "importance": str(weights) if importance else None}
        command = lifeline.module(_CHILD, json.dumps({**job, **files}))
        # Without this, llama.cpp calls a debugger when it aborts.
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        with lifeline.start(command, environment=environment) as child:
            try:
                child.wait(time_limit)
            except subprocess.TimeoutExpired as error:
                raise QuantizeError(
                    f"llama.cpp did not finish {what} within {units.duration(time_limit)}. Allow "
                    "more time, or more threads."
                ) from error
            ended = child.how_it_ended()
        said: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            said = json.loads(report.read_text(encoding="utf-8"))
    if child.returncode or "error" not in said:
        raise QuantizeError(
            f"llama.cpp could not make {what}: {ended}. The file may be damaged, or need more "
            "memory than is free."
        )
    if said["error"]:
        # Messages are published with a notebook, and a path would name a home folder.
        for path in filter(None, (job["source"], job["target"])):
            said["error"] = said["error"].replace(path, Path(path).name)
        raise QuantizeError(f"llama.cpp could not make {what}: {_explained(said)}")
    return said


def _explained(said: Mapping[str, Any]) -> str:
    """Add the next step to a reason that llama.cpp gave."""
    reason = str(said["error"]).strip().rstrip(".!")
    if "free_bytes" in said:
        return (
            f"it takes {units.storage(said['needed_bytes'])} of disk, and "
            f"{units.storage(said['free_bytes'])} are free. Free some, or choose another folder."
        )
    if "requires an imatrix" in reason or "Missing importance matrix" in reason:
        return f"{reason}. Give one as importance, or take a type of more bits."
    if "imatrix" in reason:
        return f"{reason}. Collect the importance from the same model."
    if "requantizing" in reason:
        return f"{reason}. Start from a file in F16, BF16 or F32."
    return f"{reason}. Check that the source is a whole GGUF file of a model."
