"""Files of fewer bits: llama.cpp's own bytes, its own rules, and errors that are sentences."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

from guidebook import architecture, gguf_files
from guidebook.quantize import gguf, mixture
from guidebook.quantize import importance as importances
from guidebook.quantize.gguf import QuantizeError
from guidebook.quantize.importance import Importance

LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def write_llama(path: Path, hidden: int, feed_forward: int = 512, layers: int = 2) -> Path:
    """Write a Llama model of random weights, as small as llama.cpp takes."""
    random = np.random.default_rng(0)
    heads, vocabulary = hidden // 32, 64
    writer = GGUFWriter(path, arch="llama")
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    shapes = {"token_embd.weight": (vocabulary, hidden), "output_norm.weight": (hidden,)}
    for layer in range(layers):
        parts = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (hidden, hidden))
        parts |= {"attn_norm": (hidden,), "ffn_norm": (hidden,)}
        parts |= {"ffn_gate": (feed_forward, hidden), "ffn_up": (feed_forward, hidden)}
        parts["ffn_down"] = (hidden, feed_forward)
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in parts.items()}
    for name, shape in shapes.items():
        dtype = np.float32 if len(shape) == 1 else np.float16
        writer.add_tensor(name, random.normal(0, 0.05, shape).astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    return {t.name: (t.tensor_type.name, np.array(t.data)) for t in GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose rows fill blocks of 256."""
    return write_llama(tmp_path_factory.mktemp("wide") / "wide.gguf", hidden=256)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A model whose rows of 96 do not, but for those of ffn_down."""
    return write_llama(tmp_path_factory.mktemp("narrow") / "narrow.gguf", hidden=96)


def importance_of(path: Path) -> Importance:
    random = np.random.default_rng(1)
    found = gguf_files.inspect(path)
    return Importance(
        {
            t.name: random.lognormal(0, 2, t.shape[-1]).astype(np.float32)
            for t in found.tensors
            if t.name.startswith("blk.") and len(t.shape) == 2
        },
        n_tokens=100,
    )


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["Q4_0", "Q8_0", "Q4_K_M", "IQ4_NL"])
def test_a_file_is_what_llama_cpps_function_writes_byte_for_byte(wide, tmp_path, recipe):
    made = gguf.quantize(wide, tmp_path / "made.gguf", recipe, n_threads=1)
    call = (
        "import sys, llama_cpp as l, logging\n"
        "logging.getLogger('llama-cpp-python').setLevel(51)\n"
        "p = l.llama_model_quantize_default_params()\n"
        f"p.ftype = l.LLAMA_FTYPE_MOSTLY_{recipe}\n"
        "sys.exit(l.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))\n"
    )
    direct = tmp_path / "direct.gguf"
    subprocess.run([sys.executable, "-c", call, wide, direct], check=True)
    assert made.path.read_bytes() == direct.read_bytes()
    assert made.plan.recipe == recipe
    assert (made.plan.fallbacks, made.unweighted) == ((), ())


def test_every_tensor_is_what_encode_makes_of_it(wide, tmp_path):
    made = gguf.quantize(wide, tmp_path / "made.gguf", "q4_k_m", n_threads=1)
    source = stored(wide)
    for name, (kind, data) in stored(made.path).items():
        if kind != "F32":
            weights = source[name][1].astype(np.float32)
            assert np.array_equal(gguf.encode(weights, kind), data), name


def test_an_importance_matrix_reaches_llama_cpp_tensor_by_tensor(wide, tmp_path):
    importance = importance_of(wide)
    made = gguf.quantize(wide, tmp_path / "made.gguf", "Q3_K_S", importance=importance)
    plain = stored(gguf.quantize(wide, tmp_path / "plain.gguf", "Q3_K_S").path)
    source = stored(wide)
    for name, (kind, data) in stored(made.path).items():
        if kind == "F32":
            continue
        assert kind == plain[name][0]
        weights = source[name][1].astype(np.float32)
        columns = importance.mean_squares.get(name)
        assert np.array_equal(gguf.encode(weights, kind, columns), data), name
        assert np.array_equal(data, plain[name][1]) == (columns is None)
    assert made.unweighted == ("token_embd.weight",)


def test_a_type_that_needs_an_importance_matrix_is_refused_without(wide, tmp_path):
    with pytest.raises(QuantizeError, match=r"an imatrix\. Give one as importance") as caught:
        gguf.quantize(wide, tmp_path / "made.gguf", "IQ2_XXS")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    made = gguf.quantize(wide, tmp_path / "made.gguf", "IQ2_XXS", importance=importance_of(wide))
    assert "IQ2_XXS" in gguf_files.inspect(made.path).types()


def test_an_importance_matrix_of_another_model_is_refused(wide, narrow, tmp_path):
    with pytest.raises(QuantizeError, match="Collect the importance from the same model"):
        gguf.quantize(wide, tmp_path / "made.gguf", "Q4_0", importance=importance_of(narrow))
    assert not list(tmp_path.iterdir())


def test_pure_gives_every_matrix_the_same_type(wide, tmp_path):
    made = gguf.quantize(wide, tmp_path / "made.gguf", "Q4_K_M", pure=True)
    assert set(gguf_files.inspect(made.path).types()) == {"Q4_K", "F32"}


# --- fallbacks and mixtures ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "used"),
    [("Q2_K", "Q4_0"), ("Q4_K_S", "Q5_0"), ("Q6_K", "Q8_0"), ("IQ4_XS", "IQ4_NL")],
)
def test_rows_that_fill_no_block_of_256_fall_back_as_the_file_shows(narrow, tmp_path, recipe, used):
    made = gguf.quantize(narrow, tmp_path / "made.gguf", recipe)
    kinds = {tensor.name: tensor.type for tensor in gguf_files.inspect(made.path).tensors}
    assert len(made.plan.fallbacks) == 12  # six of the seven matrices of two layers
    for fallback in made.plan.fallbacks:
        assert fallback.columns == 96
        assert kinds[fallback.tensor] == fallback.used
        assert "ffn_down" not in fallback.tensor
    assert used in {fallback.used for fallback in made.plan.fallbacks}


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q2_K", "Q8_0"])
@pytest.mark.parametrize("model", ["wide", "narrow"])
def test_the_predicted_mixture_is_that_of_the_file(model, recipe, tmp_path, request):
    source = request.getfixturevalue(model)
    found = gguf_files.inspect(gguf.quantize(source, tmp_path / "made.gguf", recipe).path)
    metadata = {**found.metadata, "tokenizer.ggml.tokens": [""] * 64}
    shape = architecture.from_gguf_metadata(metadata, tied_embeddings=True)
    by_name = {part.name: part for part in mixture.of_file(found)}
    expected = {part.name: part for part in mixture.predicted(shape, recipe)}
    assert by_name == expected


def test_a_part_reads_as_counts_of_types():
    part = mixture.Part("attn_v", 256, {"Q6_K": 2, "Q4_K": 1}, 768, 468)
    assert str(part) == "Q6_K × 2, Q4_K × 1"
    assert part.bits_per_weight == pytest.approx(4.875)


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q2_K", "IQ3_XXS"])
@pytest.mark.parametrize("model", ["wide", "narrow"])
def test_a_plan_tells_size_and_types_of_the_file_and_writes_nothing(
    model, recipe, tmp_path, request
):
    source = request.getfixturevalue(model)
    importance = importance_of(source)
    before = source.read_bytes()
    plan = gguf.plan(source, recipe, importance=importance)
    assert source.read_bytes() == before
    assert not list(tmp_path.iterdir())
    made = gguf.quantize(source, tmp_path / "made.gguf", recipe, importance=importance)
    assert made.plan == plan
    found = gguf_files.inspect(made.path)
    assert plan.types == {tensor.name: tensor.type for tensor in found.tensors}
    assert plan.file_bytes == pytest.approx(found.file_bytes, abs=2e4)  # the log rounds MiB


# --- errors ----------------------------------------------------------------------------------


def test_what_cannot_be_quantized_is_one_sentence_and_leaves_nothing(wide, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    four = gguf.quantize(wide, tmp_path / "four.gguf", "Q4_0").path
    before = sorted(tmp_path.iterdir())
    target = tmp_path / "made.gguf"
    cases = [
        (tmp_path / "missing.gguf", target, "no file missing.gguf"),
        (wide, tmp_path / "nowhere" / "made.gguf", "no folder nowhere"),
        (wide, wide, "onto itself"),
        (bad, target, "Check that the source is a whole GGUF file"),
        (four, target, "requantizing.*Start from a file in F16"),
    ]
    for source, made, message in cases:
        with pytest.raises(QuantizeError, match=message) as caught:
            gguf.quantize(source, made, "Q8_0")
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_recipe_names_the_nearest(wide, tmp_path):
    with pytest.raises(LookupError, match="Q4_K_M"):
        gguf.quantize(wide, tmp_path / "made.gguf", "Q4_K_N")


def test_a_full_disk_is_found_before_anything_is_written(wide, tmp_path, monkeypatch):
    # The child looks at the disk itself, so it gets a shutil that sees a full one.
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        "import shutil, types\nshutil.disk_usage = lambda _: types.SimpleNamespace(free=1000)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(shim))
    with pytest.raises(QuantizeError, match=r"takes .* of disk, and 1.00 kB are free") as caught:
        gguf.quantize(wide, tmp_path / "made.gguf", "Q8_0")
    assert not list(tmp_path.glob("made*"))
    monkeypatch.delenv("PYTHONPATH")
    size = gguf.quantize(wide, tmp_path / "made.gguf", "Q8_0").path.stat().st_size
    asked = float(str(caught.value).split("takes ")[1].split(" MB")[0])
    assert asked == pytest.approx(size / 1e6, rel=0.02)


@pytest.mark.parametrize(
    ("child", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "crashed .SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was killed"),
        ("import time; time.sleep(60)", "did not finish Q8_0 of wide.gguf within"),
        ("raise SystemExit(0)", "could not make Q8_0 of wide.gguf"),
    ],
)
def test_a_crash_in_native_code_ends_the_child_only(wide, tmp_path, monkeypatch, child, message):
    # A partial file is there already when the crash comes.
    script = (
        "import json, sys, pathlib\n"
        "pathlib.Path(json.loads(sys.argv[1])['target']).write_bytes(b'GGUF')\n" + child
    )
    monkeypatch.setattr(
        gguf.lifeline, "module", lambda name, job: [sys.executable, "-c", script, job]
    )
    kept = tmp_path / "made.gguf"
    kept.write_bytes(b"an older file")
    with pytest.raises(QuantizeError, match=message) as caught:
        gguf.quantize(wide, kept, "Q8_0", time_limit=3)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["made.gguf"]
    assert kept.read_bytes() == b"an older file"


def test_nothing_is_printed(wide, tmp_path, capfd):
    gguf.quantize(wide, tmp_path / "made.gguf", "Q4_K_M")
    assert capfd.readouterr() == ("", "")


# --- one matrix ------------------------------------------------------------------------------


def matrix(rows: int = 16, columns: int = 512) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    weights = random.normal(0, 0.05, (rows, columns)).astype(np.float32)
    return weights, random.lognormal(0, 1.5, columns).astype(np.float32)


def decoded(data: np.ndarray, kind: str) -> np.ndarray:
    return dequantize(data, GGMLQuantizationType[kind])


@pytest.mark.parametrize("kind", [*LEGACY[:4], *K_QUANTS, "IQ4_NL", "IQ4_XS", "IQ3_S"])
def test_importance_lowers_the_error_that_counts(kind):
    weights, importance = matrix()
    plain = decoded(gguf.encode(weights, kind), kind)
    weighted = decoded(gguf.encode(weights, kind, importance), kind)
    before = importances.weighted_error(weights, plain, importance)
    after = importances.weighted_error(weights, weighted, importance)
    assert after < before


def test_more_bits_of_the_same_generation_leave_less_error():
    weights, importance = matrix()
    for family in (("Q4_0", "Q5_0", "Q8_0"), K_QUANTS, ("IQ2_XXS", "IQ3_XXS", "IQ4_XS")):
        errors = [
            importances.weighted_error(
                weights, decoded(gguf.encode(weights, kind, importance), kind), importance
            )
            for kind in family
        ]
        assert errors == sorted(errors, reverse=True), family


def test_what_would_kill_the_process_is_refused_before():
    kind = "IQ2_XXS"
    weights, importance = matrix()
    with pytest.raises(ValueError, match="without the importance"):
        gguf.encode(weights, kind)
    for wrong in (importance[:-1], -importance, importance * np.nan, importance * np.inf):
        with pytest.raises(ValueError, match=r"importance|finite"):
            gguf.encode(weights, kind, wrong)
    with pytest.raises(ValueError, match="finite"):
        gguf.encode(weights * np.inf, kind, importance)
    with pytest.raises(ValueError, match="whole blocks of 256"):
        gguf.encode(weights[:, :300], kind, importance[:300])
    assert gguf.encode(weights, kind, importance).shape[0] == 16


def test_encode_names_the_nearest_type():
    with pytest.raises(LookupError, match="Q4_K"):
        gguf.encode(matrix()[0], "Q4_KK")


# --- importance ------------------------------------------------------------------------------


def tiny_llama():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def test_the_importance_is_the_mean_square_of_what_goes_into_each_matrix():
    import torch

    model = tiny_llama()
    windows = [list(range(20)), list(range(40, 52))]
    found = importances.collect(model, windows)
    assert found.n_tokens == 32
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    expected = {f"blk.{layer}.{name}.weight" for layer in (0, 1) for name in names}
    assert set(found.mean_squares) == expected
    # What enters q, k and v of the first layer is the normalized embedding.
    with torch.inference_mode():
        inputs = torch.cat(
            [
                model.model.layers[0].input_layernorm(model.model.embed_tokens(torch.tensor(w)))
                for w in windows
            ]
        )
    by_hand = inputs.double().square().mean(dim=0).numpy()
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found.mean_squares[f"blk.0.{name}.weight"], by_hand, rtol=1e-5)
    assert found.mean_squares["blk.1.ffn_down.weight"].shape == (48,)


def test_no_hook_stays_on_the_model():
    model = tiny_llama()
    importances.collect(model, [[1, 2, 3]])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_text_is_needed_and_infinity_is_refused():
    import torch

    model = tiny_llama()
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="at least one window"):
            importances.collect(model, nothing)
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        importances.collect(model, [[1, 2, 3]])


class _Tensor(ctypes.Structure):
    """The head of ggml's tensor, as in ggml.h of llama-cpp-python 0.3.36."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


def llama_cpps_own_sums(path: Path, tokens: list[int]) -> dict[str, np.ndarray]:
    """Collect the mean squares as llama-imatrix does, from llama.cpp's own computation."""
    import llama_cpp

    library = llama_cpp.llama_cpp._lib
    library.ggml_op_name.restype = ctypes.c_char_p
    sums: dict[str, np.ndarray] = {}

    @ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(_Tensor), ctypes.c_bool, ctypes.c_void_p)
    def watch(pointer, ask, _data):
        tensor = pointer.contents
        if library.ggml_op_name(tensor.op) != b"MUL_MAT":
            return not ask
        weight, inputs = tensor.src[0].contents, tensor.src[1].contents
        name = weight.name.decode()
        if not (name.startswith("blk.") and name.endswith(".weight")):
            return not ask
        if not ask:
            columns, rows = inputs.ne[0], inputs.ne[1]
            values = (ctypes.c_float * (columns * rows)).from_address(inputs.data)
            sums[name] = np.square(np.array(values).reshape(rows, columns)).mean(axis=0)
        return True

    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = len(tokens)
    parameters.n_threads = parameters.n_threads_batch = 1
    parameters.cb_eval = ctypes.cast(watch, type(parameters.cb_eval))
    model_parameters = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_parameters)
    context = llama_cpp.llama_init_from_model(model, parameters)
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, i
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.logits[i] = True  # else the last layer computes the last token only
    assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return sums


def test_the_importance_is_that_of_llama_cpp_on_the_same_tokens():
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from guidebook import models

    tokens = [int(t) for t in np.random.default_rng(3).integers(100, 40_000, 64)]
    transformers_logging.disable_progress_bar()
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
    folder = models.resolve("embedded", "transformers-rescaled").path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    found = importances.collect(model, [tokens]).mean_squares
    own = llama_cpps_own_sums(models.resolve("embedded", "gguf-f16-rescaled").path, tokens)
    assert set(found) == set(own)
    for name, values in own.items():
        np.testing.assert_allclose(found[name].sum(), values.sum(), rtol=0.02, err_msg=name)
        assert np.corrcoef(found[name], values)[0, 1] > 0.999, name


def test_a_name_with_a_space_and_a_quote_is_a_name_like_any_other(wide, tmp_path):
    source = tmp_path / "a 'quoted' name.gguf"
    source.write_bytes(wide.read_bytes())
    made = gguf.quantize(source, tmp_path / 'made "so".gguf', "Q8_0")
    assert made.path.is_file()
