"""Which Python and which libraries are installed; nothing is imported to find out."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib import metadata

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "bitsandbytes",
    "flash-attn",
    "llama-cpp-python",
    "gguf",
    "vllm",
    "numpy",
)


@dataclass(frozen=True)
class Software:
    """Python's version, and each library's; None for one that is not installed."""

    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str | None] = field(default_factory=dict)


def describe() -> Software:
    """Look up the versions of the libraries that run models."""
    return Software(packages={name: _version(name) for name in PACKAGES})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
