"""llama.cpp's log is read right, and its failures are one sentence."""

from __future__ import annotations

import pytest

from guidebook import architecture, fit, gguf_files, memory, models, units, weights
from guidebook.architecture import Architecture
from guidebook.catalog import models as catalog
from guidebook.measure import allocation, blank_models
from guidebook.measure.allocation import AllocationError, Setting

LOG = """\
print_info: file size   = 4.36 GiB (4.66 BPW)
load_tensors:   CPU_Mapped model buffer size =    12.00 MiB
load_tensors:   CPU_REPACK model buffer size =    61.00 MiB
load_tensors:        CUDA0 model buffer size =  4096.50 MiB
llama_context:  CUDA_Host  output buffer size =     0.49 MiB
llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB
llama_kv_cache: size =   10.00 MiB (   256 cells,  4 layers,  1/1 seqs), K (f16):  5.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =     2.50 MiB
llama_kv_cache: size =    2.50 MiB (   256 cells,  1 layers,  1/1 seqs), K (f16):  1.25 MiB
llama_memory_recurrent: size =  149.62 MiB (  1 cells,  64 layers), R (f32):    5.62 MiB
sched_reserve:      CUDA0 compute buffer size =   300.75 MiB
sched_reserve:  CUDA_Host compute buffer size =    12.00 MiB
~llama_context:      CUDA0 compute buffer size is 300.7500 MiB, matches expectation of 300.7500 MiB
"""


@pytest.fixture(scope="module")
def embedded():
    return models.embedded_file()


def test_every_buffer_is_counted_once_by_device_and_purpose():
    found = allocation._combine({}, allocation._parse(LOG.splitlines()))
    assert found.weights_bytes == (12 + 61 + 4096.5) * units.MIB
    assert found.kv_cache_bytes == 12.5 * units.MIB
    assert found.recurrent_bytes == round(149.62 * units.MIB)
    assert found.compute_bytes == 312.75 * units.MIB
    assert found.buffers["CUDA0 compute"] == 300.75 * units.MIB
    assert found.buffers["CPU_REPACK model"] == 61 * units.MIB
    assert found.total_bytes == sum(found.buffers.values()) + found.recurrent_bytes


def test_a_simulation_says_what_a_real_run_says(embedded):
    real = allocation.report(embedded, 1024, flash_attention=True)
    simulated = allocation.report(embedded, 1024, flash_attention=True, no_alloc=True)
    assert simulated.total_bytes == real.total_bytes
    assert simulated.compute_bytes == real.compute_bytes > 0
    assert "CPU KV" in real.buffers
    assert "CPU KV" not in simulated.buffers


def test_the_reported_weights_are_the_tensors_of_the_file(embedded):
    found = gguf_files.inspect(embedded)
    report = allocation.report(embedded, 256)
    assert report.weights_bytes == pytest.approx(found.weights_bytes, abs=0.01 * units.MIB)


def test_several_settings_are_asked_in_one_load(embedded):
    asked = [Setting(512), Setting(1024, flash_attention=True, kv_type="q8_0/f16")]
    small, large = allocation.reports(embedded, asked, no_alloc=True)
    assert large.kv_cache_bytes == pytest.approx(
        small.kv_cache_bytes * 2 * (17 + 32) / 64, abs=0.02 * units.MIB
    )


def test_what_llama_cpp_refuses_is_one_sentence(embedded, tmp_path):
    with pytest.raises(AllocationError, match=r"refused a setting .*flash_attn"):
        allocation.report(embedded, 512, kv_type="q8_0", no_alloc=True)
    with pytest.raises(ValueError, match="no cache of type 'q9'"):
        allocation.report(embedded, 512, kv_type="q9")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AllocationError, match=r"cannot load bad\.gguf") as caught:
        allocation.report(bad, 512)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v3"])
def test_the_experts_that_llama_cpp_keeps_in_ram_are_those_that_the_planner_counts(name, tmp_path):
    shape = catalog.find(name).architecture
    path = tmp_path / "blank.gguf"
    blank_models.write(path, shape)
    kept = allocation.report(path, 512, no_alloc=True, n_cpu_moe=5).kept_tensors
    found = gguf_files.inspect(path)
    layers = {int(tensor.split(".")[1]) for tensor in kept}
    assert layers == {layer for layer in fit.expert_layers(shape) if layer < 5}
    account = weights.from_gguf(found)
    everything, without = (
        memory.device_weights_bytes(
            account, 999, shape.n_layers, n_cpu_moe=n, expert_layers=fit.expert_layers(shape)
        )
        for n in (0, 5)
    )
    in_ram = sum(tensor.n_bytes for tensor in found.tensors if tensor.name in kept)
    assert everything.device_bytes - without.device_bytes == in_ram > 0
    assert without.host_bytes - everything.host_bytes == in_ram


def test_a_crash_or_a_hang_ends_only_the_child(embedded, monkeypatch):
    monkeypatch.setattr(allocation, "_CHILD", "import os; os.abort()")
    with pytest.raises(AllocationError, match=r"crashed .*signal 6"):
        allocation.report(embedded, 512)
    monkeypatch.setattr(allocation, "_CHILD", "import time; time.sleep(60)")
    with pytest.raises(AllocationError, match="within 1 seconds"):
        allocation.report(embedded, 512, time_limit=1)


def test_a_blank_model_takes_no_disk_and_keeps_its_shape(tmp_path):
    shape = Architecture(
        "llama", 80, 64, 8, 128, 8192, 128256, 131072, feed_forward_size=28672
    )  # Llama 3 70B
    path = tmp_path / "blank.gguf"
    blank_models.write(path, shape)
    found = gguf_files.inspect(path)
    assert found.n_weights == pytest.approx(70.55e9, rel=0.001)
    assert architecture.from_gguf_metadata(found.metadata) == shape
    assert path.stat().st_blocks * 512 < 200_000
    assert allocation.report(path, 512, no_alloc=True).weights_bytes == pytest.approx(
        found.weights_bytes, rel=0.001
    )


def test_an_unknown_family_is_named(tmp_path):
    shape = Architecture("rwkv", 1, 1, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="family 'rwkv'"):
        blank_models.write(tmp_path / "x.gguf", shape)
