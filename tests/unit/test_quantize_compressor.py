"""llm-compressor in a session: silent, on a processor too, forgotten afterwards, and whole."""

from __future__ import annotations

import json
import logging
import os
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llmcompressor")
transformers = pytest.importorskip("transformers")

from guidebook.quantize import compressor  # noqa: E402

GROUP = 32
WIDTH, HIDDEN, LAYERS, VOCABULARY = 64, 96, 2, 128
# q, o: 64 × 64; k, v: 32 × 64; gate, up, down: 96 × 64.
N_ROUNDED = LAYERS * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        dtype="float32",
    )
    target = tmp_path / "tiny"
    with compressor.session():
        model = transformers.LlamaForCausalLM(config)
        # Numbers that 16 bits hold, as those of a published model.
        model.half().float().save_pretrained(target)
    return target


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def scheme(*, symmetric=False, group=GROUP):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    grid = QuantizationArgs(num_bits=4, symmetric=symmetric, strategy="group", group_size=group)
    groups = {"all": QuantizationScheme(targets=["Linear"], weights=grid)}
    return {"config_groups": groups, "ignore": ["lm_head"]}


def recipe(name, **settings):
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    return {
        "rounding": lambda: [QuantizationModifier(**scheme(**settings))],
        "gptq": lambda: [GPTQModifier(**scheme(**settings))],
        "awq": lambda: [AWQModifier(n_grid=4), QuantizationModifier(**scheme(**settings))],
    }[name]()


@pytest.fixture
def quantize(folder, tokenizer):
    """Return a function that does as a chapter does, and returns what the model says."""

    def function(target, name, **settings):
        return quantize_folder(folder, tokenizer, target, name, **settings)

    return function


def quantize_folder(folder, tokenizer, target, name, **settings):
    tokens = torch.randint(VOCABULARY, (256,), generator=torch.Generator().manual_seed(1)).tolist()
    with compressor.session(), torch.no_grad():
        from llmcompressor import oneshot

        model = load(folder)
        text = compressor.calibration_set(tokens, length=32, count=4)
        oneshot(
            model=model,
            tokenizer=tokenizer,
            recipe=recipe(name, **settings),
            dataset=None if name == "rounding" else text,
        )
        probabilities = model(PROBE).logits.log_softmax(-1)
        compressor.save(model, tokenizer, target)
    return probabilities


PROBE = torch.arange(24)[None]


@pytest.mark.parametrize("name", ["rounding", "gptq", "awq"])
def test_each_method_runs_without_a_gpu_and_loads_as_it_was_saved(folder, tmp_path, name, quantize):
    target = tmp_path / name
    before = quantize(target, name)
    with compressor.session(), torch.no_grad():
        after = load(target)(PROBE).logits.log_softmax(-1)
        original = load(folder)(PROBE).logits.log_softmax(-1)
    changed = (before - original).abs().max()
    assert changed > 1e-3  # it was rounded
    assert (after - before).abs().max() < changed / 20
    assert (target / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", ["rounding", "gptq", "awq"])
def test_nothing_is_written_to_the_terminal_or_the_log(tmp_path, name, capfd, caplog, quantize):
    from llmcompressor import oneshot  # noqa: F401 - its own import is another test's matter

    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize(tmp_path / name, name)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert [str(one.message) for one in caught] == []
    assert caplog.records == []


def test_a_session_leaves_everything_as_it_found_it(tmp_path, quantize):
    from llmcompressor.pipelines.cache import IntermediatesCache
    from tqdm.std import tqdm

    def state():
        return (
            logging.root.manager.disable,
            dict(os.environ),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            IntermediatesCache.pin_memory,
            vars(tqdm)["__init__"],
            warnings.filters[:],
        )

    before = state()
    quantize(tmp_path / "awq", "awq")
    assert state() == before


def test_a_session_that_fails_leaves_everything_as_it_found_it():
    before = logging.root.manager.disable
    with pytest.raises(KeyError), compressor.session():
        raise KeyError("the chapter's own mistake")
    assert logging.root.manager.disable == before


@pytest.mark.parametrize("name", ["rounding", "gptq", "awq"])
def test_the_model_is_forgotten(folder, tokenizer, name):
    import gc
    import weakref

    from llmcompressor import oneshot

    with compressor.session():
        model = load(folder)
        text = compressor.calibration_set(range(64), length=32, count=2)
        oneshot(model, tokenizer=tokenizer, recipe=recipe(name), dataset=text)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_files_hold_16_bit_numbers_beside_the_packed_ones(tmp_path, quantize):
    from safetensors.torch import load_file

    quantize(tmp_path / "gptq", "gptq")
    tensors = load_file(tmp_path / "gptq" / "model.safetensors")
    kinds = {name: tensor.dtype for name, tensor in tensors.items()}
    assert {kind for kind in kinds.values() if kind.is_floating_point} == {torch.float16}
    packed = [name for name in kinds if name.endswith("weight_packed")]
    assert len(packed) == 7 * LAYERS


def test_rounding_stores_the_integers_of_32_bit_arithmetic(folder, tmp_path, quantize):
    from compressed_tensors.quantization import QuantizationArgs, fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams
    from safetensors.torch import load_file

    name = "model.layers.0.self_attn.q_proj"
    quantize(tmp_path / "rounded", "rounding", symmetric=True)
    with compressor.session(), torch.no_grad():
        loaded = load(tmp_path / "rounded")
        loaded(PROBE)
    matrix = load_file(folder / "model.safetensors")[f"{name}.weight"].float()
    groups = matrix.unflatten(1, (-1, GROUP))
    grid = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=GROUP)
    scales, zeros = calculate_qparams(groups.amin(2), groups.amax(2), grid)
    expected = fake_quantize(matrix, scales, zeros, grid)
    # Scales are stored in 16 bits; a wrong integer would be off by a whole scale.
    assert torch.allclose(loaded.get_submodule(name).weight, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("symmetric", "zero_point_bits"), [(True, 0), (False, 4)])
def test_stored_counts_scales_and_zero_points(tmp_path, symmetric, zero_point_bits, quantize):
    quantize(tmp_path / "rounded", "rounding", symmetric=symmetric)
    found = compressor.stored(tmp_path / "rounded")
    assert found.n_packed == N_ROUNDED
    # Each matrix also stores its shape: two 8-byte numbers.
    shapes = 7 * LAYERS * 2 * 8
    bits = 4 + (16 + zero_point_bits) / GROUP
    assert found.packed_bytes == pytest.approx(N_ROUNDED * bits / 8 + shapes)
    assert found.packed_bits == pytest.approx(8 * found.packed_bytes / N_ROUNDED)
    norms = (2 * LAYERS + 1) * WIDTH
    assert found.other_bytes == 2 * (VOCABULARY * WIDTH + norms)
    size = (tmp_path / "rounded" / "model.safetensors").stat().st_size
    assert found.total_bytes <= size < found.total_bytes + 20_000


def test_a_checkpoint_that_was_not_quantized_has_no_packed_weights(folder):
    found = compressor.stored(folder)
    assert (found.n_packed, found.packed_bytes, found.packed_bits) == (0, 0, None)
    assert found.other_bytes == 4 * (N_ROUNDED + VOCABULARY * WIDTH + (2 * LAYERS + 1) * WIDTH)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(compressor.CompressorError, match="no safetensors file"):
        compressor.stored(tmp_path)


def test_a_group_size_that_does_not_divide_names_a_matrix(tmp_path, quantize):
    with pytest.raises(compressor.CompressorError, match=r"columns=\d+, group_size=48.*such as 64"):
        quantize(tmp_path / "never", "rounding", group=48)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_full_memory_is_a_sentence(error):
    with pytest.raises(compressor.CompressorError, match="memory is full"), compressor.session():
        raise error


def test_other_errors_come_through_unchanged():
    with pytest.raises(ValueError, match=r"^something else$"), compressor.session():
        raise ValueError("something else")


def test_calibration_windows_are_the_texts_first_tokens_in_order():
    batches = list(compressor.calibration_set(range(100), length=16, count=5))
    found = torch.cat([batch["input_ids"] for batch in batches])
    assert found.shape == (5, 16)
    assert found.ravel().tolist() == list(range(80))


def test_windows_can_go_through_the_model_together():
    batches = list(compressor.calibration_set(range(100), length=10, count=5, batch_size=4))
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(4, 10), (1, 10)]


@pytest.mark.parametrize(
    ("length", "count", "match"), [(16, 7, "need 112"), (0, 1, "at least"), (8, 0, "at least")]
)
def test_calibration_windows_that_cannot_be_cut_are_refused(length, count, match):
    with pytest.raises(compressor.CompressorError, match=match):
        compressor.calibration_set(range(100), length=length, count=count)


def test_an_error_is_shown_as_one_sentence():
    shown = compressor.CompressorError("Take a smaller model.")._render_traceback_()
    assert shown == ["CompressorError: Take a smaller model."]


@pytest.mark.slow
def test_importing_inside_a_session_is_silent():
    import subprocess
    import sys

    code = (
        "from guidebook.quantize import compressor\n"
        "with compressor.session():\n"
        "    from llmcompressor import oneshot\n"
        "    from llmcompressor.modifiers.gptq import GPTQModifier\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert json.dumps([done.stdout, done.stderr]) == '["", ""]'
