"""What llama.cpp itself says that it allocates, buffer by buffer.

llama.cpp logs the size of every buffer it makes. This module loads a model in a child process,
reads that log, and ends the child again. With ``no_alloc`` llama.cpp only simulates: it plans the
same buffers and takes no memory, so a model that is far too large for this machine can be asked
about as well.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from guidebook import units

_SECONDS = 180

# Names and numbers of ggml's types (ggml.h, enum ggml_type) that a KV cache can have.
_KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}

# Runs in the child. Only C functions: the high-level class allocates logits of its own.
_CHILD = """
import ctypes, json, sys
import llama_cpp as llama

job = json.loads(sys.argv[1])

@llama.llama_log_callback
def show(level, text, data):
    sys.stdout.write(text.decode("utf-8", "replace"))

llama.llama_log_set(show, ctypes.c_void_p(0))
llama.llama_backend_init()
model_params = llama.llama_model_default_params()
model_params.n_gpu_layers = job["n_gpu_layers"]
model_params.no_alloc = job["no_alloc"]
if job["n_cpu_moe"]:
    # As common/common.h, llm_add_n_cpu_ffn_overrides; the list ends with an empty entry.
    class Override(ctypes.Structure):
        _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]

    cpu = llama.llama_cpp._lib.ggml_backend_cpu_buffer_type
    cpu.restype = ctypes.c_void_p
    overrides = (Override * (job["n_cpu_moe"] + 1))()
    for i in range(job["n_cpu_moe"]):
        pattern = r"blk\\.%d\\.ffn_(up|down|gate|gate_up)_(ch|)exps" % i
        overrides[i] = Override(pattern.encode(), cpu())
    model_params.tensor_buft_overrides = ctypes.addressof(overrides)
# Without mmap each buffer holds its tensors and nothing else; a simulation must not map at all.
model_params.load_mode = llama.LLAMA_LOAD_MODE_MMAP if job["mmap"] else llama.LLAMA_LOAD_MODE_NONE
model = llama.llama_model_load_from_file(job["path"].encode(), model_params)
if not model:
    sys.exit("llama.cpp could not load the model")
for case in job["cases"]:
    params = llama.llama_context_default_params()
    for name, value in case.items():
        setattr(params, name, value)
    print("\\n=== case", flush=True)
    context = llama.llama_init_from_model(model, params)
    print("\\n=== made" if context else "\\n=== refused", flush=True)
    if context:
        llama.llama_free(context)
"""

_BUFFER = re.compile(
    r"^\w+: +(?P<device>\S+) +(?P<kind>model|KV|RS|compute|output) buffer size = +(?P<mib>[\d.]+)"
)
# "size =  45.00 MiB (2048 cells, …), K (f16): 22.50 MiB, V (f16): 22.50 MiB"
_CACHE = re.compile(r"^llama_kv_cache\w*: size = +(?P<mib>[\d.]+) MiB")
_STATE = re.compile(r"^llama_memory_recurrent: size = +(?P<mib>[\d.]+) MiB")
_FILE_SIZE = re.compile(r"file size += +(?P<number>[\d.]+) (?P<unit>[MG]iB)")
# "tensor blk.0.ffn_up_exps.weight (384 MiB f16) buffer type overridden to CPU"
_KEPT = re.compile(r"^tensor (?P<name>\S+) \(\d+ MiB \S+\) buffer type overridden")
_ERROR = re.compile(r"error loading model: (.+)")


class AllocationError(RuntimeError):
    """llama.cpp could not be asked; the message says why and what to do."""


@dataclass(frozen=True)
class Setting:
    """One way of opening a model.

    Attributes
    ----------
    n_ctx
        Context length in tokens.
    n_ubatch, n_batch
        Tokens of a prompt that are computed at once, and that are handed over at once.
    flash_attention
        Whether attention is computed without writing out its scores.
    kv_type
        Type of the cache, ``"f16"``, or of keys and values, ``"q8_0/f16"``.
    full_window_cache
        Keep the whole context for window layers too. llama.cpp's own programs don't;
        ``llama_cpp.Llama`` does unless ``swa_full=False`` is given.
    kv_offload
        The cache lies where its layer does, and not in RAM.
    """

    n_ctx: int
    n_ubatch: int = 512
    n_batch: int = 2048
    flash_attention: bool = False
    kv_type: str = "f16"
    full_window_cache: bool = False
    kv_offload: bool = True

    def _params(self) -> dict[str, int]:
        key, _, value = self.kv_type.partition("/")
        try:
            type_k, type_v = _KV_TYPES[key], _KV_TYPES[value or key]
        except KeyError as error:
            known = ", ".join(_KV_TYPES)
            raise ValueError(
                f"llama.cpp keeps no cache of type {error.args[0]!r}. Use one of {known}."
            ) from error
        return {
            "n_ctx": self.n_ctx,
            "n_ubatch": self.n_ubatch,
            "n_batch": max(self.n_batch, self.n_ubatch),
            "flash_attn_type": int(self.flash_attention),
            "type_k": type_k,
            "type_v": type_v,
            "swa_full": int(self.full_window_cache),
            "offload_kqv": self.kv_offload,
        }


@dataclass(frozen=True)
class Allocation:
    """Bytes per purpose, as llama.cpp reports them, over all devices.

    The log rounds to hundredths of a MiB, and so does this.

    Attributes
    ----------
    weights_bytes
        The model's buffers. From a simulation: the tensors' bytes in the file.
    kv_cache_bytes, recurrent_bytes
        Keys and values of attention; states of recurrent layers.
    compute_bytes, output_bytes
        Intermediate results of one batch; the logits that are handed out.
    buffers
        Bytes by device and purpose, for example ``{"CPU_REPACK model": 63963136}``. Empty
        buffers are left out, so a simulation has no ``model`` and no ``KV`` here.
    kept_tensors
        Names of the tensors that ``n_cpu_moe`` keeps in RAM.
    """

    weights_bytes: int
    kv_cache_bytes: int
    recurrent_bytes: int
    compute_bytes: int
    output_bytes: int
    buffers: Mapping[str, int] = field(default_factory=dict)
    kept_tensors: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return (
            self.weights_bytes
            + self.kv_cache_bytes
            + self.recurrent_bytes
            + self.compute_bytes
            + self.output_bytes
        )


def report(
    path: Path,
    n_ctx: int,
    n_ubatch: int = 512,
    n_batch: int = 2048,
    flash_attention: bool = False,
    kv_type: str = "f16",
    n_gpu_layers: int = 0,
    no_alloc: bool = False,
    *,
    n_cpu_moe: int = 0,
    mmap: bool = False,
    time_limit: float = _SECONDS,
) -> Allocation:
    """Ask llama.cpp what it allocates for one setting.

    Parameters
    ----------
    path
        A GGUF file. With ``no_alloc`` its tensors' data is never read.
    n_ctx, n_ubatch, n_batch, flash_attention, kv_type
        See :class:`Setting`.
    n_gpu_layers
        Layers that go to the GPU, if llama.cpp was built for one.
    no_alloc
        Only simulate.
    n_cpu_moe
        The experts of so many layers, counted from the first, stay in RAM.
    mmap
        Map the file instead of reading it. A mapped buffer's reported size runs from the first
        of its tensors to the last, and counts what lies between them as well.
    time_limit
        Seconds that the child process may take.

    Raises
    ------
    AllocationError
        llama.cpp refused the file or the setting, crashed, or took too long.
    ValueError
        The cache type is unknown.
    """
    setting = Setting(n_ctx, n_ubatch, n_batch, flash_attention, kv_type)
    return reports(
        path,
        [setting],
        n_gpu_layers=n_gpu_layers,
        no_alloc=no_alloc,
        n_cpu_moe=n_cpu_moe,
        mmap=mmap,
        time_limit=time_limit,
    )[0]


def reports(
    path: Path,
    settings: Iterable[Setting],
    *,
    n_gpu_layers: int = 0,
    no_alloc: bool = False,
    n_cpu_moe: int = 0,
    mmap: bool = False,
    time_limit: float = _SECONDS,
) -> tuple[Allocation, ...]:
    """Ask llama.cpp about several settings of one file, which is loaded once.

    Parameters and errors are those of :func:`report`.
    """
    job = {
        "path": str(path),
        "n_gpu_layers": n_gpu_layers,
        "no_alloc": no_alloc,
        "n_cpu_moe": n_cpu_moe,
        "mmap": mmap and not no_alloc,
        "cases": [setting._params() for setting in settings],
    }
    log = _run(path, json.dumps(job), time_limit)
    head, *cases = log.split("\n=== case\n")
    weights = _parse(head.splitlines())
    # llama.cpp goes through the tensors twice, to count and to create.
    kept = tuple(dict.fromkeys(m["name"] for m in map(_KEPT.match, head.splitlines()) if m))
    found = []
    for case in cases:
        lines, ending, _ = case.partition("\n=== made")
        if not ending:
            raise AllocationError(
                f"llama.cpp refused a setting for {path.name}: {_last_line(case)} A quantized V "
                "cache needs flash attention; a smaller context needs less memory."
            )
        report = _combine(weights, _parse(lines.splitlines()))
        found.append(replace(report, kept_tensors=kept))
    return tuple(found)


def _run(path: Path, job: str, time_limit: float) -> str:
    command = [sys.executable, "-c", _CHILD, job]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=time_limit, check=False, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise AllocationError(
            f"llama.cpp did not report on {path.name} within {time_limit:.0f} seconds. Ask with "
            "no_alloc=True, or allow more time."
        ) from error
    if done.returncode < 0:
        raise AllocationError(
            f"llama.cpp crashed on {path.name} (signal {-done.returncode}). The file is damaged, "
            "or needs more memory than is free; ask with no_alloc=True."
        )
    if done.returncode:
        reasons = _ERROR.findall(done.stdout) or [_last_line(done.stderr)]
        raise AllocationError(
            f"llama.cpp cannot load {path.name}: {reasons[0].rstrip('.')}. Check the file, or "
            "install llama-cpp-python."
        )
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("===")]
    return f"{lines[-1].strip().rstrip('.')}." if lines else "no reason given."


def _parse(lines: Sequence[str]) -> dict[str, int]:
    """Sum the sizes of a log by device and purpose.

    A simulation reports empty caches per device, but their true size in the line of the sum; it
    is kept under ``cache``, ``state`` and ``file``.
    """
    sizes: dict[str, int] = {}

    def add(name: str, mib: str, unit: int = units.MIB) -> None:
        sizes[name] = sizes.get(name, 0) + round(float(mib) * unit)

    for line in lines:
        if match := _BUFFER.match(line):
            if float(match["mib"]):
                add(f"{match['device']} {match['kind']}", match["mib"])
        elif match := _CACHE.match(line):
            add("cache", match["mib"])
        elif match := _STATE.match(line):
            add("state", match["mib"])
        elif match := _FILE_SIZE.search(line):
            add("file", match["number"], units.MIB if match["unit"] == "MiB" else units.GIB)
    return sizes


def _combine(model: Mapping[str, int], context: Mapping[str, int]) -> Allocation:
    sums = ("cache", "state", "file")
    buffers = {name: size for name, size in {**model, **context}.items() if name not in sums}

    def total(kind: str) -> int:
        return sum(size for name, size in buffers.items() if name.endswith(f" {kind}"))

    return Allocation(
        weights_bytes=total("model") or model.get("file", 0),
        kv_cache_bytes=context.get("cache", 0),
        recurrent_bytes=context.get("state", 0),
        compute_bytes=total("compute"),
        output_bytes=total("output"),
        buffers=MappingProxyType(buffers),
    )
