"""A damaged model file is one sentence, and the process lives on."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidebook import architecture, gguf_files, memory, models
from guidebook.gguf_files import GgufError


@pytest.fixture(scope="module")
def whole():
    return models.embedded_file()


def test_the_embedded_file_is_described_as_it_is(whole):
    found = gguf_files.inspect(whole)
    shape = architecture.from_gguf_metadata(found.metadata)
    assert (shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.head_size) == (30, 9, 3, 64)
    assert (shape.hidden_size, shape.n_vocab, shape.context_length) == (576, 49152, 8192)
    assert found.n_weights == 134_515_008
    assert found.tied_embeddings
    assert found.decode_bytes == found.weights_bytes < found.file_bytes
    assert sum(found.types().values()) == len(found.tensors) == 272


def test_an_untied_embedding_is_not_read_for_each_token(whole):
    tensors = (
        gguf_files.Tensor("token_embd.weight", "F16", (100, 8), 1600),
        gguf_files.Tensor("output.weight", "F16", (100, 8), 1600),
    )
    assert gguf_files.GgufFile(whole, {}, tensors).decode_bytes == 1600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a GGUF file"),
        (b"GG", "is not a GGUF file"),
        (b"<!DOCTYPE html><html>404</html>", "a web page saved under this name"),
        (b"GGUF", "damaged or cut short"),
        (b"GGUF" + bytes(range(256)) * 8, "damaged or cut short"),
    ],
)
def test_what_is_no_gguf_is_one_sentence_with_the_next_step(tmp_path, content, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(GgufError, match=message) as caught:
        gguf_files.inspect(path)
    assert "bad.gguf" in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99, 1 - 1e-6])
def test_a_truncated_file_is_found_out(tmp_path, whole, kept):
    data = whole.read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(GgufError, match=r"short\.gguf is .*cut short"):
        gguf_files.inspect(path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=4000))
def test_random_bytes_never_raise_anything_else(tmp_path, content):
    path = tmp_path / "random.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + content)
    with pytest.raises(GgufError):
        gguf_files.inspect(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GgufError, match=r"There is no file none\.gguf"):
        gguf_files.inspect(tmp_path / "none.gguf")


def test_a_whole_file_passes_the_trial_in_a_child_process(whole):
    gguf_files.trial_load(whole)


def test_a_file_that_llama_cpp_refuses_is_one_sentence(tmp_path, whole):
    path = tmp_path / "odd.gguf"
    data = bytearray(whole.read_bytes())
    place = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
    data[place : place + 4] = (31).to_bytes(4, "little")  # one layer more than there are tensors
    path.write_bytes(data)
    with pytest.raises(GgufError, match=r"llama\.cpp cannot load odd\.gguf") as caught:
        gguf_files.trial_load(path)
    assert "\n" not in str(caught.value)


def test_a_crash_or_a_hang_in_native_code_ends_only_the_child(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(gguf_files, "_TRIAL", "import os; os.abort()")
    with pytest.raises(GgufError, match=r"crash \(signal 6\)"):
        gguf_files.trial_load(whole)
    monkeypatch.setattr(gguf_files, "_TRIAL", "import time; time.sleep(60)")
    with pytest.raises(GgufError, match="did not load within 1 seconds"):
        gguf_files.trial_load(whole, time_limit=1)


@given(st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 16), st.integers(1, 8))
def test_the_kv_cache_grows_in_proportion(tokens, layers, heads, share):
    shape = architecture.Architecture("x", layers, heads * share, heads, 64, 64, 100, 10**6)
    one = memory.kv_cache_bytes(shape, 1)
    assert one == 2 * layers * heads * 64 * 2
    assert memory.kv_cache_bytes(shape, tokens) == tokens * one


def test_the_kv_cache_of_llama_2_7b_is_half_a_mebibyte_per_token():
    # 32 layers, 32 heads of 128, no grouping: 2 × 32 × 32 × 128 × 2 bytes.
    shape = architecture.Architecture("llama", 32, 32, 32, 128, 4096, 32000, 4096)
    assert memory.kv_cache_bytes(shape, 4096) == 2 * 1024**3
    with pytest.raises(ValueError, match="-1 tokens"):
        memory.kv_cache_bytes(shape, -1)


def test_missing_metadata_is_named():
    with pytest.raises(ValueError, match=r"general\.architecture"):
        architecture.from_gguf_metadata({})
