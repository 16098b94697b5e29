"""Measurements: time, memory and quality, each with its repetitions and its spread."""

from guidebook.measure.memory import PeakMemory, peak_memory
from guidebook.measure.quality import (
    Perplexity,
    Quality,
    Reference,
    compare,
    perplexity,
    reference,
)
from guidebook.measure.timing import Measurement, Throughput, throughput, timed

__all__ = [
    "Measurement",
    "PeakMemory",
    "Perplexity",
    "Quality",
    "Reference",
    "Throughput",
    "compare",
    "peak_memory",
    "perplexity",
    "reference",
    "throughput",
    "timed",
]
