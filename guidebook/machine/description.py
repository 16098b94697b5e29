"""Everything about a machine in one value, gathered within a time limit."""

from __future__ import annotations

import time
from dataclasses import dataclass

from guidebook.machine import cpu, disk, gpu, memory, software, system
from guidebook.machine._outside import Later

# Enough for slow drivers, and short enough to begin every chapter with.
_SECONDS = 2.5


@dataclass(frozen=True)
class Machine:
    """What is known about the machine that this process runs on."""

    cpu: cpu.Cpu
    memory: memory.Memory
    gpus: tuple[gpu.Gpu, ...]
    disk: disk.Disk
    system: system.System
    software: software.Software


def describe() -> Machine:
    """Describe this machine in at most three seconds.

    The parts are looked at side by side. A part that fails or does not answer in
    time is unknown; nothing is raised.
    """
    end = time.monotonic() + _SECONDS
    parts = (
        Later(cpu.describe),
        Later(memory.describe),
        Later(gpu.describe),
        Later(disk.describe),
        Later(system.describe),
        Later(software.describe),
    )
    for part in parts:
        part.result(end - time.monotonic())
    return Machine(
        cpu=parts[0].result(0) or cpu.unknown(),
        memory=parts[1].result(0) or memory.Memory(),
        gpus=parts[2].result(0) or (),
        disk=parts[3].result(0) or disk.Disk("models cache"),
        system=parts[4].result(0) or system.unknown(),
        software=parts[5].result(0) or software.Software(),
    )
