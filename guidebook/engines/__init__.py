"""One protocol, several runtimes."""

from guidebook.engines.base import Engine, EngineError
from guidebook.engines.llama_cpp import LlamaCpp

__all__ = ["Engine", "EngineError", "LlamaCpp"]
