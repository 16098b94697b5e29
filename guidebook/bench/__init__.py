"""One fair comparison of everything that runs a model on this machine.

Each contender has a process of its own and gets the same prompts; decoding is greedy. Whatever
happens to one of them is a sentence in the report, and the others have their turn::

    report = bench.run([bench.Contender("llama-cpp"), bench.Contender("transformers")])
"""

from guidebook.bench.contenders import Available, available
from guidebook.bench.plan import ENGINES, BenchError, Contender, Settings
from guidebook.bench.results import Concurrency, Report, Result
from guidebook.bench.running import Progress, run

__all__ = [
    "ENGINES",
    "Available",
    "BenchError",
    "Concurrency",
    "Contender",
    "Progress",
    "Report",
    "Result",
    "Settings",
    "available",
    "run",
]
