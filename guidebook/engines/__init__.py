"""One protocol, several runtimes.

In this process: :class:`LlamaCpp`, :class:`Transformers`. Behind a server: :class:`OpenAIServer`,
:class:`OllamaServer`. What of all that is on this machine: :mod:`guidebook.engines.discovery`.
"""

from guidebook.engines.base import Answer, Engine, EngineError, Reported, TokenEngine
from guidebook.engines.llama_cpp import LlamaCpp
from guidebook.engines.ollama import OllamaServer
from guidebook.engines.openai_server import OpenAIServer
from guidebook.engines.transformers import Transformers

__all__ = [
    "Answer",
    "Engine",
    "EngineError",
    "LlamaCpp",
    "OllamaServer",
    "OpenAIServer",
    "Reported",
    "TokenEngine",
    "Transformers",
]
