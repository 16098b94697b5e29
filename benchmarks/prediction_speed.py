"""How long a thousand predictions take, through the command line as a reader calls it.

    python benchmarks/prediction_speed.py [REPETITIONS]

Prints the median and the spread over the repetitions, start of Python included.
"""

from __future__ import annotations

import csv
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guidebook.catalog import hardware, models

N_CASES = 1000


def write_cases(path: Path) -> None:
    """Write cases over all devices and models, prompts and answers, shallow and deep."""
    names = itertools.cycle(device.name for device in hardware.every())
    shapes = itertools.cycle(model.name for model in models.all())
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "hardware", "architecture", "quant", "n_prompt", "depth", "context"))
        for i, name, shape in zip(range(N_CASES), names, shapes, strict=False):
            quant = ("Q4_K_M", "Q8_0", "F16")[i % 3]
            writer.writerow((i, name, shape, quant, 512 * (i % 2), 1024 * (i % 5), 8192))


def main() -> None:
    """Measure and print."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cases.csv")
        write_cases(path)
        command = [sys.executable, "-m", "guidebook.cli", "predict", "--cases", str(path)]
        for _ in range(repetitions):
            start = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds.append(time.perf_counter() - start)
    answered = sum(1 for _ in csv.reader(done.stdout.splitlines())) - 1
    low, high = min(seconds), max(seconds)
    print(f"{answered} cases, {repetitions} repetitions")
    print(f"median {statistics.median(seconds):.2f} s, {low:.2f} to {high:.2f} s")


if __name__ == "__main__":
    main()
