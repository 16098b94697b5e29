"""A checkpoint becomes the GGUF file that computes the same, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from guidebook import convert, gguf_files, models
from guidebook.models import ModelError

TEXT = 2 * "The cat's 1234 mats, and it'll rain: 56 \u00e9t\u00e9s.\n\n  Two  spaces <|end|> end. "
LLAMA_3_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def write_checkpoint(folder, pre_tokenizer, *, tied=False, rope=None, dtype="bfloat16"):
    """Write a tiny Llama with random weights and a tokenizer that was trained on one text."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    steps = {
        "smollm": [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ],
        "llama-bpe": [
            pre_tokenizers.Split(Regex(LLAMA_3_RULE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
    }
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps[pre_tokenizer])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=280,
            special_tokens=["<|begin|>", "<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>"
    )
    fast.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=288,  # padded, as real models are
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        rope_parameters=rope or {"rope_type": "default", "rope_theta": 10_000.0},
    )
    model = LlamaForCausalLM(config)
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)  # so that attention and positions matter
    model.to(getattr(torch, dtype)).save_pretrained(str(folder))
    return Path(folder)


@pytest.mark.parametrize(
    ("pre_tokenizer", "tied", "rope", "dtype"),
    [
        ("smollm", True, None, "float16"),
        ("llama-bpe", False, LLAMA_3_ROPE, "bfloat16"),
        ("llama-bpe", True, None, "float32"),
    ],
)
def test_llama_cpp_computes_what_transformers_computes(tmp_path, pre_tokenizer, tied, rope, dtype):
    from llama_cpp import Llama

    from guidebook.engines import LlamaCpp, Transformers
    from guidebook.measure.quality import kl_divergence, log_softmax

    folder = write_checkpoint(tmp_path / "tiny", pre_tokenizer, tied=tied, rope=rope, dtype=dtype)
    convert.f16_gguf(folder, tmp_path / "tiny.gguf")
    engine = LlamaCpp(Llama(str(tmp_path / "tiny.gguf"), n_ctx=128, verbose=False))
    with Transformers.load(folder) as theirs, engine:
        tokens = theirs.tokenize(TEXT)
        assert engine.tokenize(TEXT) == tokens
        assert len(tokens) > 40  # longer than the original context of the scaled positions
        wanted, found = log_softmax(theirs.logits(tokens)), log_softmax(engine.logits(tokens))
    assert found.shape == wanted.shape
    assert kl_divergence(wanted, found).max() < 1e-3
    uniform = np.full_like(wanted, -np.log(wanted.shape[1]))
    assert kl_divergence(wanted, uniform).mean() > 1  # the comparison could have failed


def test_positions_scaled_as_in_llama_3_1_matter(tmp_path):
    """Without the factors the same file computes something else."""
    plain = write_checkpoint(tmp_path / "a", "llama-bpe")
    scaled = write_checkpoint(tmp_path / "b", "llama-bpe", rope=LLAMA_3_ROPE)
    for folder in (plain, scaled):
        convert.f16_gguf(folder, folder.with_suffix(".gguf"))
    names = [
        {tensor.name for tensor in gguf_files.inspect(tmp_path / name).tensors}
        for name in ("a.gguf", "b.gguf")
    ]
    assert names[1] - names[0] == {"rope_freqs.weight"}


def test_a_checkpoint_folder_is_a_gguf_where_one_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    folder = write_checkpoint(tmp_path / "tiny", "smollm")
    model = models.resolve(str(folder), "gguf-f16-rescaled")
    assert str(model) == "tiny: your folder, converted to F16 GGUF"
    assert gguf_files.inspect(model.path).types() == {"F16": 16, "F32": 5}


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: change(folder, "config.json", model_type="gemma3"), "is a gemma3 model"),
        (
            lambda folder: change(folder, "tokenizer.json", pre_tokenizer={"type": "Metaspace"}),
            "of a kind that the book does not know",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no readable tokenizer.json"),
        (
            lambda folder: change(folder, "config.json", num_hidden_layers=3),
            "lacks 9 tensors, such as model.layers.2",
        ),
        (
            lambda folder: change(folder, "config.json", num_hidden_layers=1),
            "has tensors that a Llama has not, such as model.layers.1",
        ),
        (
            lambda folder: change(
                folder,
                "config.json",
                rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
            ),
            "scales its positions by 'linear'",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"not safetensors"),
            "model.safetensors is damaged",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(tmp_path, monkeypatch, spoil, said):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    folder = write_checkpoint(tmp_path / "tiny", "smollm")
    spoil(folder)
    with pytest.raises(ModelError, match=said) as caught:
        models.resolve(str(folder), "gguf-f16")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [name for name in left if not name.endswith(".lock")]


def test_a_weight_too_large_for_16_bits_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path / "tiny", "smollm", tied=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight does not fit 16-bit"):
        convert.f16_gguf(folder, tmp_path / "tiny.gguf")
