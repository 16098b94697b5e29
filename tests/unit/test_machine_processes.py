"""What a process takes, and who listens on a port: read from the real system."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from guidebook.machine import processes


@pytest.fixture
def nvml(monkeypatch):
    """A driver with two GPUs, of which this process uses both and a stranger one."""
    here = SimpleNamespace(pid=os.getpid(), usedGpuMemory=100)
    stranger = SimpleNamespace(pid=1, usedGpuMemory=7_000)
    unknown = SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)  # as WSL2 answers
    fake = SimpleNamespace(
        gpus=[[here, stranger], [here, unknown]],
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(fake.gpus),
        nvmlDeviceGetHandleByIndex=lambda index: fake.gpus[index],
        nvmlDeviceGetComputeRunningProcesses=lambda gpu: gpu,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_this_process_takes_what_the_system_says():
    block = bytearray(os.urandom(1)) * 50_000_000
    used = processes.memory_of()
    assert used.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert used.rss_bytes > len(block)


def test_children_of_another_process_count_with_it():
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', "
        "'block = bytearray(b\"x\") * 80_000_000; print(1, flush=True); input()'], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        parent.stdout.readline()
        used = processes.memory_of(parent.pid)
        alone = psutil.Process(parent.pid).memory_info().rss
        parent.stdin.close()
    assert used.rss_bytes > alone + 80_000_000


def test_a_process_that_has_ended_takes_an_unknown_amount():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert processes.memory_of(ended.pid) == processes.MemoryUse(None)


def test_only_its_own_share_of_a_gpu_is_counted(nvml):
    assert processes.memory_of().vram_bytes == 200


def test_a_driver_that_does_not_tell_processes_apart_leaves_vram_unknown(nvml):
    nvml.gpus = [[SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)]]
    assert processes.memory_of().vram_bytes is None


def test_without_a_driver_vram_is_unknown(nvml):
    def fails():
        raise OSError("NVML Shared Library Not Found")

    nvml.nvmlInit = fails
    assert processes.memory_of().vram_bytes is None


def test_the_process_behind_a_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert processes.listening_on(port) == os.getpid()
    assert processes.listening_on(port) is None
