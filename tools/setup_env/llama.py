"""How llama.cpp is compiled here, and where the result is kept."""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import zipfile
from pathlib import Path

from setup_env import output_of
from setup_env.state import pin

MINIMAL_BUILD = "-DLLAVA_BUILD=OFF"  # without the image part, which no chapter uses

# What decides which machine code a compiler may write. Kernels rename and add other flags, and a
# new kernel alone must not start a compile of ten minutes.
CPU_FLAG = re.compile(
    r"(sse|ssse|pni$|avx|fma|f16c|bmi|amx|abm$|popcnt|movbe|gfni|vaes|vpclmul|adx$|sha"
    r"|asimd|neon|fphp|s[vm]e|i8mm|bf16|atomics)"
)


def wanted(root: Path, stamp: dict) -> dict:
    """Return how llama.cpp is to be built here: version, options, for which processor.

    The reader's CMAKE_ARGS win, and are remembered for the runs after. Without them, CUDA is built
    in where its compiler and a GPU are found.
    """
    old = stamp.get("llama", {})
    chosen, options = "set-up", MINIMAL_BUILD
    if os.environ.get("CMAKE_ARGS"):
        chosen, options = "reader", os.environ["CMAKE_ARGS"]
    elif old.get("chosen") == "reader":
        chosen, options = "reader", old["options"]
    elif find_nvcc() and has_nvidia_gpu():
        options += " -DGGML_CUDA=on"
    return {
        "version": pin(root, "llama-cpp-python"),
        "options": options,
        "chosen": chosen,
        "processor": processor(),
    }


def uses_cuda(llama: dict) -> bool:
    """Say whether a build runs on NVIDIA GPUs."""
    return "GGML_CUDA=on" in llama["options"]


def find_nvcc() -> "str | None":
    """Return CUDA's compiler, also where its installer leaves it: outside PATH."""
    usual = Path("/usr/local/cuda/bin/nvcc")
    return shutil.which("nvcc") or (str(usual) if usual.exists() else None)


def has_nvidia_gpu() -> bool:
    """Say whether the NVIDIA driver is here and sees a GPU."""
    return bool(shutil.which("nvidia-smi")) and "GPU 0" in output_of(["nvidia-smi", "-L"], 20)


def processor() -> str:
    """Return a hash of the instruction sets that a compiler targets on this machine."""
    flags = set()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # macOS
        text = output_of(["sysctl", "machdep.cpu.brand_string", "hw.optional"])
        flags.update(text.lower().splitlines())
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            flags.update(flag for flag in value.lower().split() if CPU_FLAG.match(flag))
    return hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16]


def wheel_folder(llama: dict, version: "tuple[int, int]") -> Path:
    """Return the folder that holds, or will hold, the compiled wheel for exactly this case.

    pip's own cache would not do: it looks neither at the options nor at the processor.
    """
    parts = [llama["version"], "cp{}{}".format(*version), llama["options"], llama["processor"]]
    parts += [platform.machine(), sys.platform, "-".join(platform.libc_ver())]
    names = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "SKBUILD_CMAKE_ARGS")
    parts += [name + "=" + os.environ.get(name, "") for name in names]
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    return base / "guidebook" / "wheels" / key


def find_wheel(folder: Path) -> "Path | None":
    """Return the whole wheel in a folder, or None."""
    return next((path for path in folder.glob("*.whl") if zipfile.is_zipfile(str(path))), None)


def keep_wheel(wheel: Path, folder: Path) -> None:
    """Copy a wheel into a folder in one step: it is there whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{wheel.name}.part{os.getpid()}"
    shutil.copyfile(str(wheel), str(part))
    part.replace(folder / wheel.name)


def build_environment(llama: dict) -> "dict[str, str]":
    """Return the variables that llama.cpp's build reads."""
    variables = {
        "CMAKE_ARGS": llama["options"],
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL")
        or str(compile_jobs()),
    }
    nvcc = find_nvcc()
    if nvcc and uses_cuda(llama):
        variables["CUDACXX"] = os.environ.get("CUDACXX", nvcc)
    return variables


def compile_jobs() -> int:
    """Return how many compilers to run: one per usable core, with 1 GB of memory each."""
    try:
        jobs = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS
        jobs = float(os.cpu_count() or 1)
    control = Path("/sys/fs/cgroup")  # a container's share of the processor and of the memory
    with contextlib.suppress(OSError, ValueError):
        quota, period = (control / "cpu.max").read_text(encoding="utf-8").split()
        jobs = min(jobs, float(quota) / float(period))
    with contextlib.suppress(OSError, ValueError):
        jobs = min(jobs, int((control / "memory.max").read_text(encoding="utf-8")) / 1e9)
    with contextlib.suppress(OSError, ValueError):
        jobs = min(jobs, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    return max(1, int(jobs + 0.5))
