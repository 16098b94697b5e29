"""Measurements: time, memory and quality, each with its repetitions and its spread."""

from guidebook.measure.memory import PeakMemory, peak_memory
from guidebook.measure.quality import Quality, Reference, compare, reference
from guidebook.measure.timing import Measurement, Throughput, throughput, timed

__all__ = [
    "Measurement",
    "PeakMemory",
    "Quality",
    "Reference",
    "Throughput",
    "compare",
    "peak_memory",
    "reference",
    "throughput",
    "timed",
]
