"""The transformers engine computes what transformers computes, and what llama.cpp computes."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")

from guidebook import models, texts  # noqa: E402
from guidebook.engines import EngineError, LlamaCpp, Reported  # noqa: E402
from guidebook.engines import transformers as module  # noqa: E402
from guidebook.engines.transformers import Transformers  # noqa: E402
from guidebook.measure import quality  # noqa: E402

PROMPT = "The sea is wide, and the ship"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def folder():
    """The embedded model's checkpoint."""
    return models.resolve("embedded", "transformers").path


@pytest.fixture(scope="module")
def engine(folder):
    with Transformers.load(folder, device="cpu", name="SmolLM2-135M-Instruct") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def llama():
    with LlamaCpp.load(models.resolve("embedded", "gguf-f16").path, n_ctx=512) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def small_folder(folder, tmp_path_factory):
    """A checkpoint with random weights that loads at once, and the embedded model's tokenizer."""
    target = tmp_path_factory.mktemp("models") / "small"
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(7)
    config = hf.LlamaConfig(
        vocab_size=49152,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    hf.LlamaForCausalLM(config).save_pretrained(target)
    return target


@pytest.fixture
def small(small_folder):
    with Transformers.load(small_folder, device="cpu") as loaded:
        yield loaded


@pytest.fixture
def changed(small_folder, tmp_path):
    """A copy of the small checkpoint, to be spoiled."""
    return shutil.copytree(small_folder, tmp_path / "changed")


def spoil_config(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# --- the same model as in llama.cpp ------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        "<|im_start|>user\nWhat is a ship?<|im_end|>\n",
        "naïve 海\n\n\tx = '1'",
        "In 1999,\n   2 ships and 345 fish",
    ],
)
def test_llama_cpp_makes_the_same_tokens_of_a_text(engine, llama, text):
    assert engine.tokenize(text) == llama.tokenize(text)
    assert engine.count_tokens(text) == llama.count_tokens(text)


def test_special_tokens_count_in_a_prompt_and_not_in_a_text(engine):
    assert engine.count_tokens("<|im_start|>") == 1
    assert len(engine.tokenize("<|im_start|>")) > 1


def test_probabilities_are_those_of_llama_cpp(engine, llama):
    tokens = llama.tokenize(texts.load("python-topics")[:2000])
    against = quality.reference(llama, tokens, length=128, count=1)
    seen = quality.compare(engine, against)
    assert seen.kl_divergence < 1e-4
    assert seen.top1_agreement > 0.95


def test_llama_cpp_writes_the_same_first_words(engine, llama):
    assert engine.generate(PROMPT, 8).read() == llama.generate(PROMPT, 8).read()


# --- the same computation as in transformers ---------------------------------------------------


def test_streaming_gives_the_tokens_that_generate_gives(engine, folder):
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    prompt = engine.tokenize(PROMPT)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=-1
    )
    assert list(engine.stream(prompt, 16)) == expected[0, len(prompt) :].tolist()


def test_a_model_that_the_reader_loaded_is_driven_as_it_is(small_folder):
    model = hf.AutoModelForCausalLM.from_pretrained(small_folder, dtype="bfloat16")
    engine = Transformers(model, hf.AutoTokenizer.from_pretrained(small_folder))
    assert engine.name == "transformers small bfloat16"
    assert len(list(engine.stream([1, 2, 3], 4))) == 4


@pytest.mark.parametrize("first", [0, 1, 6, 7, 8, 13, 29])
def test_logits_are_the_models_wherever_the_chunks_end(small, monkeypatch, first):
    monkeypatch.setattr(module, "_CHUNK", 7)
    tokens = list(range(100, 130))
    with torch.inference_mode():
        expected = small._model(torch.tensor([tokens])).logits[0].numpy()
    seen = small.logits(tokens, first)
    assert seen.dtype == np.float32
    assert np.allclose(seen, expected[first:], atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_of_16_bit_weights_are_float32(small_folder, small, dtype):
    with Transformers.load(small_folder, device="cpu", dtype=dtype) as engine:
        assert engine.dtype == dtype
        seen = engine.logits([1, 2, 3])
    assert seen.dtype == np.float32
    assert np.allclose(seen, small.logits([1, 2, 3]), atol=0.02)


def test_attention_as_matrix_products_gives_the_same(small_folder, small):
    with Transformers.load(small_folder, device="cpu", attn_implementation="eager") as engine:
        assert np.allclose(engine.logits([5, 6, 7]), small.logits([5, 6, 7]), atol=1e-5)


def test_dtype_auto_takes_the_type_of_the_file(folder):
    with Transformers.load(folder, device="cpu", dtype="auto") as engine:
        assert engine.dtype == "float16"


def test_the_most_likely_next_token_is_what_the_stream_writes_first(engine):
    prompt = engine.tokenize(PROMPT)
    assert next(engine.stream(prompt, 2)) == engine.logits(prompt)[-1].argmax()


def test_an_abandoned_stream_does_not_disturb_the_next(small):
    expected = list(small.stream([1, 2, 3], 12))
    next(small.stream([4, 5], 50))
    assert list(small.stream([1, 2, 3], 12)) == expected


def test_an_end_of_sequence_token_does_not_end_the_stream(small):
    ended = list(small.stream([1, 2, 3], 12))
    small._model.generation_config.eos_token_id = ended[0]
    small._model.config.eos_token_id = ended[0]
    assert list(small.stream([1, 2, 3], 12)) == ended


def test_between_two_tokens_pytorch_is_as_the_caller_left_it(small):
    for _ in small.stream([1, 2, 3], 3):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


# --- text --------------------------------------------------------------------------------------


def test_there_is_one_piece_per_token_and_the_tokenizers_counts(small):
    answer = small.generate(PROMPT, 9)
    assert answer.reported == Reported()
    assert len(list(answer)) == 9
    assert answer.reported == Reported(
        n_prompt=small.count_tokens(PROMPT),
        n_cached=0,
        n_generated=9,
        finish_reason="length",
        source="tokenizer",
    )


@given(
    prompt=st.lists(st.integers(3, 49151), min_size=1, max_size=9),
    tokens=st.lists(st.integers(0, 49151), min_size=1, max_size=30),
)
def test_pieces_join_to_what_the_tokenizer_makes_of_all_tokens(engine, prompt, tokens):
    class Given(Transformers):
        def stream(self, prompt, n_generate):
            yield from tokens

    known = Given(engine._model, engine._tokenizer)
    pieces = list(_run(known._pieces(prompt, len(tokens))))
    whole = engine._tokenizer.decode(prompt + tokens)
    before = engine._tokenizer.decode(prompt)
    assert len(pieces) == len(tokens)
    # A prompt of random tokens can end within a character; no text does.
    if not before.endswith("\N{REPLACEMENT CHARACTER}"):
        text = "".join(pieces)
        assert whole[len(before) :].startswith(text)
        rest = whole[len(before) + len(text) :]
        assert not rest or rest.endswith("\N{REPLACEMENT CHARACTER}")


def test_spaces_survive_a_tokenizer_that_marks_the_beginnings_of_words(small):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"▁The": 0, "▁sea": 1, "▁is": 2, "▁wide": 3, ".": 4}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="."))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    plain.decoder = tokenizers.decoders.Metaspace()

    class Given(Transformers):
        def stream(self, prompt, n_generate):
            yield from (1, 2, 3, 4)

    known = Given(small._model, hf.PreTrainedTokenizerFast(tokenizer_object=plain))
    assert list(_run(known._pieces([0], 4))) == [" sea", " is", " wide", "."]


def _run(pieces):
    yield from pieces


# --- what it takes -----------------------------------------------------------------------------


def test_closing_frees_the_weights_and_twice_does_no_harm(small_folder):
    engine = Transformers.load(small_folder, device="cpu")
    alive = weakref.ref(engine._model)
    next(engine.stream([1, 2], 5))
    engine.close()
    engine.close()
    assert alive() is None
    with pytest.raises(EngineError, match=r"small is closed\. Load it again"):
        engine.count_tokens("a")
    with pytest.raises(EngineError, match="small is closed"):
        next(engine.stream([1], 1))


@pytest.mark.skipif(sys.platform != "linux", reason="measures what glibc gives back")
def test_closing_gives_the_memory_back_to_the_system(engine, folder):
    before = engine.memory().rss_bytes
    Transformers.load(folder, device="cpu").close()
    assert engine.memory().rss_bytes - before < 0.5 * 4 * 134e6


def test_threads_are_given_back(small_folder):
    before = torch.get_num_threads()
    with Transformers.load(small_folder, device="cpu", n_threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_memory_holds_at_least_the_weights(engine):
    use = engine.memory()
    assert use.rss_bytes is not None
    assert use.rss_bytes > 4 * 134e6


def test_loading_says_nothing_and_leaves_transformers_talking(small_folder, capfd, caplog):
    before = hf.utils.logging.get_verbosity(), hf.utils.logging.is_progress_bar_enabled()
    with caplog.at_level(logging.WARNING):
        Transformers.load(small_folder, device="cpu").generate(PROMPT, 2).read()
    assert (hf.utils.logging.get_verbosity(), hf.utils.logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_name_tells_model_and_type_and_the_runtime_its_versions(small):
    assert small.name == "transformers small float32"
    assert small.runtime == f"transformers {hf.__version__}, PyTorch {torch.__version__}"
    assert small.n_ctx == 128


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_computes_what_the_processor_computes(engine, folder, dtype):
    tokens = engine.tokenize(texts.load("python-topics")[:2000])
    against = quality.reference(engine, tokens, length=128, count=1)
    with Transformers.load(folder, device="cuda", dtype=dtype) as on_gpu:
        assert on_gpu.device == "cuda:0"
        assert (on_gpu.memory().vram_bytes or 0) > 134e6
        seen = quality.compare(on_gpu, against)
        assert list(on_gpu.stream(tokens[:9], 2))
    assert seen.kl_divergence < (1e-4 if dtype == "float32" else 1e-2)
    assert torch.cuda.memory_allocated() < 100e6


# --- what cannot be done -----------------------------------------------------------------------


def test_a_prompt_without_tokens_is_refused(small):
    with pytest.raises(EngineError, match=r"holds no tokens\. Give it some text"):
        small.generate("", 3).read()
    with pytest.raises(EngineError, match="holds no tokens"):
        small.logits([])


@pytest.mark.parametrize("token", [-1, 49152])
def test_a_token_that_the_model_does_not_know_is_refused(small, token):
    with pytest.raises(EngineError, match="outside the vocabulary of 49152 tokens"):
        small.logits([1, token])


def test_what_does_not_fit_the_context_is_refused_with_the_way_out(small):
    with pytest.raises(EngineError, match=r"129 tokens do not fit the context of 128 .* Shorten"):
        next(small.stream([1] * 100, 29))
    assert len(list(small.stream([1] * 100, 28))) == 28


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to …"), "has no memory left on cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "has no memory left"),
        (MemoryError(), "has no memory left on cpu for 3 more tokens. Shorten the prompt"),
        (RuntimeError("no kernel\nmore"), "small could not compute on cpu: no kernel$"),
    ],
)
def test_what_fails_inside_a_step_is_a_sentence(small, monkeypatch, error, sentence):
    def fail(**_):
        raise error

    monkeypatch.setattr(small._model, "forward", fail)
    with pytest.raises(EngineError, match=sentence):
        list(small.stream([1, 2, 3], 2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "float8"}, "no dtype 'float8'. Use one of 'float32', 'bfloat16'"),
        ({"device": "tpu"}, "no device 'tpu'. Use 'auto', 'cpu', 'cuda' or 'mps'"),
        ({"device": "xpu"}, "no device 'xpu'"),
        ({"attn_implementation": "fast"}, "no attention 'fast'. Use one of 'sdpa', 'eager'"),
        ({"attn_implementation": "flash_attention_2"}, "runs on GPUs only, and .* goes to cpu"),
    ],
)
def test_an_unknown_option_is_named_with_those_there_are(small_folder, options, sentence):
    with pytest.raises(EngineError, match=sentence):
        Transformers.load(small_folder, **{"device": "cpu", **options})


def test_a_missing_gpu_is_told_from_a_pytorch_that_cannot_use_one(small_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EngineError, match="is a build for the processor"):
        Transformers.load(small_folder, device="cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EngineError, match=r"finds no GPU\. Look at what 'guidebook doctor' says"):
        Transformers.load(small_folder, device="cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"Apple-silicon Mac\. Use device='cpu' here"):
        Transformers.load(small_folder, device="mps")
    assert Transformers.load(small_folder).device == "cpu"


def test_missing_flash_attention_says_where_to_get_it(small_folder, monkeypatch):
    monkeypatch.setattr(module, "_device", torch.device)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    options = {"device": "cuda", "attn_implementation": "flash_attention_2"}
    with pytest.raises(EngineError, match=r"has no float32\. Use dtype='bfloat16'"):
        Transformers.load(small_folder, **options)
    with pytest.raises(EngineError, match=r"is not installed\. requirements-gpu\.txt says how"):
        Transformers.load(small_folder, dtype="bfloat16", **options)


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(changed):
    (changed / "config.json").unlink()
    with pytest.raises(EngineError, match=r"changed is not a transformers checkpoint\. Put config"):
        Transformers.load(changed)


def test_pickled_weights_are_not_opened(changed):
    (changed / "model.safetensors").rename(changed / "pytorch_model.bin")
    with pytest.raises(EngineError, match="is not a transformers checkpoint"):
        Transformers.load(changed)


def test_a_name_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(EngineError, match="There is no model 'no such thing'"):
        Transformers.load("no such thing")


def test_a_checkpoint_without_all_its_tensors_is_not_filled_with_random_numbers(changed):
    from safetensors.torch import load_file, save_file

    path = changed / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"incomplete: 1 tensors .* model\.layers\.1\.mlp\.up_pr"):
        Transformers.load(changed, device="cpu")


def test_a_damaged_file_is_a_sentence_without_the_path(changed):
    path = changed / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(EngineError, match=r"could not load changed .* Check that config") as seen:
        Transformers.load(changed, device="cpu")
    assert str(changed.parent) not in str(seen.value)


@pytest.mark.parametrize(
    "entries",
    [
        {"model_type": "nobody-knows"},
        {"hidden_size": 24},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
    ],
)
def test_a_wrong_config_is_a_sentence(changed, entries):
    spoil_config(changed, **entries)
    with pytest.raises(EngineError, match="transformers could not load changed ") as seen:
        Transformers.load(changed, device="cpu")
    assert str(changed.parent) not in str(seen.value)


def test_code_in_a_models_folder_is_never_run(changed):
    spoil_config(
        changed,
        model_type="theirs",
        auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"},
    )
    (changed / "theirs.py").write_text("raise SystemExit('their code ran')\n")
    with pytest.raises(EngineError, match="comes with code of its own, and the book runs no code"):
        Transformers.load(changed, device="cpu")


def test_weights_that_do_not_fit_the_memory_are_a_sentence(small_folder, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(hf.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(EngineError, match=r"small does not fit the memory of cpu\. Use dtype='bfl"):
        Transformers.load(small_folder, device="cpu")


def test_a_model_without_a_key_value_cache_is_refused(small):
    model = hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=1)
    )
    with pytest.raises(EngineError, match=r"\(mamba\) keeps no key-value cache"):
        Transformers(model, small._tokenizer, name="state")
