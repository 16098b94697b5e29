"""Code that tries a library in a process of its own, and how to read what it says.

The code prints one JSON object for each thing that it tried, so that a crash loses only what
comes after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from guidebook.doctor.probe import Output

# bitsandbytes comes last and in the same process, because importing PyTorch takes seconds.
TORCH = """# doctor: torch
import importlib.util, json, logging, warnings

def tell(name, value):
    print(json.dumps({name: value}), flush=True)

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import torch
    available = torch.cuda.is_available()
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()
    devices = []
    for number in range(torch.cuda.device_count() if available else 0):
        capability = torch.cuda.get_device_capability(number)
        devices.append([torch.cuda.get_device_name(number), list(capability)])
metal = getattr(torch.backends, "mps", None)
on_metal = bool(metal and metal.is_available())
device = "cuda" if available else "mps" if on_metal else "cpu"
tell("torch", {
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "hip": torch.version.hip,
    "architectures": (flags or "").split(),
    "available": available,
    "devices": devices,
    "mps_built": bool(metal and metal.is_built()),
    "mps": on_metal,
    "warnings": [str(one.message).strip() for one in said],
})

try:
    ones = torch.ones(8, 8, device=device)
    tell("product", {"device": device, "right": (ones @ ones).sum().item() == 512})
except Exception as error:
    tell("product", {"device": device, "right": False, "error": str(error).strip()})

if importlib.util.find_spec("bitsandbytes"):
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # bitsandbytes has parts of its optimizers compiled while it is imported: seconds for nothing.
    torch.compile = lambda function=None, *_, **__: function or (lambda one: one)
    try:
        import bitsandbytes
        from bitsandbytes import functional
        torch.manual_seed(0)
        weights = torch.randn(64, 64).to(device)
        values = torch.randn(2, 64).to(device)
        packed, state = functional.quantize_4bit(weights, quant_type="nf4", blocksize=64)
        product = bitsandbytes.matmul_4bit(values, packed.t(), quant_state=state)
        unpacked = values @ functional.dequantize_4bit(packed, state).t()
        exact = values @ weights.t()
        tell("bitsandbytes", {
            "device": device,
            "deviation": ((product - unpacked).norm() / unpacked.norm()).item(),
            "loss": ((product - exact).norm() / exact.norm()).item(),
        })
    except Exception as error:
        tell("bitsandbytes", {"device": device, "error": f"{type(error).__name__}: {error}"})
"""

LLAMA_CPP = """# doctor: llama-cpp
import json, os, re, llama_cpp
gpu = bool(llama_cpp.llama_supports_gpu_offload())
files = os.listdir(os.path.join(os.path.dirname(llama_cpp.__file__), "lib"))
parts = {found[1] for name in files if (found := re.match(r"(?:lib)?ggml-(\\w+)\\.", name))}
print(json.dumps({"llama_cpp": {"gpu": gpu, "parts": sorted(parts)}}))
"""

FLASH_ATTENTION = """# doctor: flash-attention
import json, importlib.util
answer = {"found": importlib.util.find_spec("flash_attn") is not None}
if answer["found"]:
    import torch, flash_attn
    answer["computes"] = None
    if torch.cuda.is_available():
        values = torch.ones(1, 16, 2, 64, device="cuda", dtype=torch.float16)
        try:
            right = flash_attn.flash_attn_func(values, values, values) == 1
            answer["computes"] = bool(right.all().item())
        except Exception as error:
            answer["error"] = str(error).strip()
print(json.dumps({"flash_attention": answer}))
"""


def said(answer: Output) -> Mapping[str, Mapping[str, Any]]:
    """Read what our code printed, by what it tried; what a library prints beside is skipped."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in answer.text.splitlines():
        try:
            data = json.loads(line)
        except ValueError:
            continue
        if isinstance(data, dict):
            found |= {name: value for name, value in data.items() if isinstance(value, dict)}
    return found


def last_words(answer: Output) -> str:
    """Return what a program said last: of a Python error, the line that names it."""
    lines = [line for line in answer.error.splitlines() if line.strip()]
    if lines:
        return lines[-1].strip()
    return f"it ended with code {answer.code}" if answer.code is not None else answer.status
