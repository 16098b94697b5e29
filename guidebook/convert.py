"""A Llama checkpoint of Hugging Face as an F16 GGUF file.

With it one model id serves every chapter: llama.cpp's and PyTorch's figures are then those of the
same original weights. It does what llama.cpp's ``convert_hf_to_gguf.py`` does, for one family:
Llama models whose tokenizer is a byte-level BPE (SmolLM2, Llama 3). For others, use that script.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidebook import architecture, derive

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from gguf import GGUFWriter

    Array = npt.NDArray[Any]

_ROPE = "rope_freqs.weight"
_SCRIPT = "Convert it with llama.cpp's convert_hf_to_gguf.py, and give the .gguf file."
_LAYER_PARTS = (
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)
# How a tokenizer cuts text into words before its merges, by llama.cpp's names for it: the kinds
# of its steps, and for a rule in words how that begins (llama.cpp, conversion/base.py).
_SMOLLM = ("Digits", "ByteLevel")
_LLAMA_3 = ("Split", "ByteLevel")
_LLAMA_3_RULE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"


def f16_gguf(source: Path, target: Path) -> None:
    """Write a checkpoint folder as a GGUF file: matrices in F16, vectors in F32.

    Parameters
    ----------
    source
        A folder with ``config.json``, ``tokenizer.json`` and safetensors.
    target
        The file to write.

    Raises
    ------
    ValueError
        The model is of another family, or a tensor is missing, too many, or too large for 16 bits.
    """
    import numpy as np
    from gguf import GGUFWriter

    config = _read(source / "config.json")
    if config.get("model_type") != "llama":
        raise ValueError(f"{source.name} is a {config.get('model_type')} model. {_SCRIPT}")
    shape = architecture.from_config(config)
    with ExitStack() as stack:
        tensors = _tensors(source, stack)
        names = tuple(_names(shape))
        _check_names(source.name, {derive.hf_name(name) for name in names}, set(tensors))
        writer = GGUFWriter(target, arch="llama")
        _write_settings(writer, source.name, config, shape)
        _write_tokenizer(writer, source, shape.n_vocab)
        # Infos first, then the data one by one: a large model need not fit in RAM.
        for name in names:
            dimensions = tuple(tensors[derive.hf_name(name)].get_shape())
            dtype = np.dtype(np.float32 if len(dimensions) == 1 else np.float16)
            n_bytes = math.prod(dimensions) * dtype.itemsize
            writer.add_tensor_info(name, dimensions, dtype, n_bytes)
        factors = _rope_factors(config, shape.head_size)
        if factors is not None:
            writer.add_tensor_info(_ROPE, factors.shape, factors.dtype, factors.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            writer.write_tensor_data(_weights(name, tensors[derive.hf_name(name)][:], shape))
        if factors is not None:
            writer.write_tensor_data(factors)
        writer.close()


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.parent.name} has no readable {path.name}. {_SCRIPT}") from error
    return found


# --- weights ---------------------------------------------------------------------------------


def _names(shape: architecture.Architecture) -> Iterator[str]:
    yield "token_embd.weight"
    for layer in range(shape.n_layers):
        yield from (f"blk.{layer}.{part}.weight" for part in _LAYER_PARTS)
    yield "output_norm.weight"
    if not shape.tied_embeddings:
        yield "output.weight"


def _tensors(source: Path, stack: ExitStack) -> dict[str, Any]:
    """Return each tensor of the folder by its name, unread."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Any] = {}
    for path in sorted(source.glob("*.safetensors")):
        try:
            # PyTorch's tensors, because numpy has no bfloat16.
            file = stack.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged ({error}). Fetch it again.") from error
        found |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def _check_names(model: str, wanted: set[str], found: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise ValueError(f"{model} lacks {len(missing)} tensors, such as {missing[0]}.")
    # A tied output matrix may be stored all the same.
    extra = sorted(found - wanted - {"lm_head.weight"})
    if extra:
        raise ValueError(f"{model} has tensors that a Llama has not, such as {extra[0]}. {_SCRIPT}")


def _weights(name: str, tensor: torch.Tensor, shape: architecture.Architecture) -> Array:
    import numpy as np

    weights: Array = tensor.float().numpy()
    if ".attn_q." in name:
        weights = _permute(weights, shape.n_heads)
    elif ".attn_k." in name:
        weights = _permute(weights, shape.n_kv_heads)
    with np.errstate(over="ignore"):  # looked at below
        stored = np.ascontiguousarray(weights, np.float32 if weights.ndim == 1 else np.float16)
    if not np.isfinite(stored).all():
        raise ValueError(f"The tensor {name} does not fit 16-bit floating point.")
    return stored


def _permute(weights: Array, n_heads: int) -> Array:
    """Interleave the rotary halves in the rows of Q and K, as llama.cpp wants them."""
    rows, columns = weights.shape
    halves = weights.reshape(n_heads, 2, rows // n_heads // 2, columns)
    ordered: Array = halves.swapaxes(1, 2).reshape(rows, columns)
    return ordered


def _rope_factors(config: Mapping[str, Any], head_size: int) -> Array | None:
    """Return Llama 3.1's divisors of the rotary frequencies; ``None`` for plain ones.

    Shape: (``head_size / 2``,). Source: llama.cpp, conversion/llama.py.
    """
    import numpy as np

    rope = _rope(config)
    if rope.get("rope_type") in (None, "default"):
        return None
    if rope.get("rope_type") != "llama3":
        raise ValueError(f"This model scales its positions by {rope['rope_type']!r}. {_SCRIPT}")
    steps = np.arange(0, head_size, 2, dtype=np.float32) / head_size
    wavelengths = 2 * math.pi * float(rope["rope_theta"]) ** steps
    factor, low, high = (
        float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    turns = float(rope["original_max_position_embeddings"]) / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings, in transformers' new place or its two old ones."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type"))
    return {"rope_theta": config.get("rope_theta", 10_000.0), **found, "rope_type": kind}


# --- metadata --------------------------------------------------------------------------------


def _write_settings(
    writer: GGUFWriter, name: str, config: Mapping[str, Any], shape: architecture.Architecture
) -> None:
    from gguf import LlamaFileType

    writer.add_name(name)
    writer.add_file_type(int(LlamaFileType.MOSTLY_F16))
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.feed_forward_size)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(shape.n_vocab)


def _write_tokenizer(writer: GGUFWriter, source: Path, n_vocab: int) -> None:
    from gguf import TokenType

    described = _read(source / "tokenizer.json")
    ids: dict[str, int] = described["model"].get("vocab", {})
    added = {entry["id"]: entry for entry in described.get("added_tokens", ())}
    text = {number: token for token, number in ids.items()}
    text |= {number: entry["content"] for number, entry in added.items()}
    kinds = {
        number: TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
        for number, entry in added.items()
    }
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(source.name, described))
    writer.add_token_list([text.get(number, f"[PAD{number}]") for number in range(n_vocab)])
    writer.add_token_types(
        [
            kinds.get(number, TokenType.NORMAL if number in text else TokenType.UNUSED)
            for number in range(n_vocab)
        ]
    )
    merges = described["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    _write_special_tokens(writer, source)


def _pre_tokenizer(model: str, described: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how the tokenizer cuts text into words."""
    step = described.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    kinds = tuple(one.get("type") for one in steps)
    if described["model"].get("type") == "BPE" and kinds == _SMOLLM:
        return "smollm"
    if described["model"].get("type") == "BPE" and kinds == _LLAMA_3:
        rule = steps[0].get("pattern", {}).get("Regex", "")
        if rule.startswith(_LLAMA_3_RULE):
            return "llama-bpe"
    raise ValueError(
        f"The tokenizer of {model} is of a kind that the book does not know. {_SCRIPT}"
    )


def _write_special_tokens(writer: GGUFWriter, source: Path) -> None:
    from transformers import AutoTokenizer

    # Only the settings around the tokenizer: which file holds them has changed over the years.
    tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    # What the tokenizer puts before every text.
    writer.add_add_bos_token(tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id])
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
