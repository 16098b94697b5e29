"""Other forms of a GGUF model: 16-bit GGUF, rescaled GGUF, transformers checkpoint.

"F16" of the embedded model always means its 4-bit weights written out in 16 bits. The numbers
lost in the original quantization do not come back.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidebook import architecture, gguf_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Transform = Callable[[str, Floats], Floats]

_RESCALE_SEED = 20261123
_RESCALE_RANGE = 1.25  # Scales lie between 1/1.25 and 1.25, evenly in the logarithm.

# Names in a GGUF file and in a Hugging Face Llama checkpoint.
_HF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HF_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def f16_gguf(source: Path, target: Path) -> None:
    """Write a GGUF file's weights as F16; vectors (norms, biases) stay F32, as llama.cpp does."""
    _rewrite(source, target, lambda _, weights: weights)


def rescaled_f16_gguf(source: Path, target: Path) -> None:
    """Write an F16 GGUF that computes the same function with other numbers.

    A Llama layer does not change when a channel is multiplied by a factor and its neighbour
    divided by it: norm gains against the columns of the matrices behind them, rows of ``up``
    against columns of ``down``, rows of ``v`` against columns of ``o``. AWQ and SmoothQuant rest
    on the same invariance. Here the factors are random (fixed seed), and their purpose is that
    the weights leave the rounding grid of the 4-bit file they came from.

    The token embedding cannot be rescaled this way and stays as it is.
    """
    shape = architecture.from_gguf_metadata(gguf_files.inspect(source).metadata)
    if shape.name != "llama":
        raise ValueError(f"Rescaling knows the llama architecture, not {shape.name!r}.")
    _rewrite(source, target, _rescaling(shape))


def rescaled_transformers_folder(source: Path, target: Path) -> None:
    """Write the model of :func:`rescaled_f16_gguf` as :func:`transformers_folder` does."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="rescaling-") as folder:
        # The tokenizer is read from the file too, and its reader looks at the suffix.
        rescaled = Path(folder, f"{source.stem}.gguf")
        rescaled_f16_gguf(source, rescaled)
        transformers_folder(rescaled, target)


def transformers_folder(source: Path, target: Path) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads, in F16 safetensors."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    metadata = gguf_files.inspect(source).metadata
    shape = architecture.from_gguf_metadata(metadata)
    if shape.name != "llama":
        raise ValueError(f"The conversion knows the llama architecture, not {shape.name!r}.")
    target.mkdir()
    state: dict[str, npt.NDArray[Any]] = {}
    for name, weights in _dequantized(source):
        ordered = weights
        if ".attn_q." in name:
            ordered = _unpermute(weights, shape.n_heads)
        elif ".attn_k." in name:
            ordered = _unpermute(weights, shape.n_kv_heads)
        state[hf_name(name)] = np.ascontiguousarray(ordered.astype(np.float16))
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    config = _hf_config(metadata, shape, tied="lm_head.weight" not in state)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(source, target, metadata)
    if load_file(target / "model.safetensors").keys() != state.keys():
        raise OSError("The safetensors file does not hold the tensors that were written to it.")


# --- GGUF to GGUF ----------------------------------------------------------------------------


def _dequantized(source: Path) -> Iterator[tuple[str, Floats]]:
    """Yield each tensor's name and weights, one at a time: a large model need not fit in RAM."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    for tensor in GGUFReader(source).tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        yield tensor.name, weights.astype(np.float32, copy=False)


def _rewrite(source: Path, target: Path, transform: Transform) -> None:
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

    wanted = gguf_files.inspect(source)
    writer = GGUFWriter(target, arch=wanted.metadata["general.architecture"])
    for field in GGUFReader(source).fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        is_file_type = field.name == "general.file_type"
        value = int(LlamaFileType.MOSTLY_F16) if is_file_type else field.contents()
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    stored = {
        t.name: np.dtype(np.float32 if len(t.shape) == 1 else np.float16) for t in wanted.tensors
    }
    for tensor in wanted.tensors:
        dtype = stored[tensor.name]
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.n_weights * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weights in _dequantized(source):
        changed = transform(name, weights).astype(stored[name])
        if not np.isfinite(changed).all():
            raise ValueError(f"The tensor {name} does not fit 16-bit floating point.")
        writer.write_tensor_data(changed)
    writer.close()
    written = gguf_files.inspect(target)
    if [(t.name, t.shape) for t in written.tensors] != [(t.name, t.shape) for t in wanted.tensors]:
        raise OSError(f"{target.name} does not hold the tensors of {source.name}.")


def _rescaling(shape: architecture.Architecture) -> Transform:
    """Return the function that rescales one tensor of a Llama model, by its name."""
    import numpy as np

    def factors(layer: str, place: str, count: int) -> Floats:
        seed = [_RESCALE_SEED, int(layer), *place.encode()]
        exponents = np.random.default_rng(seed).uniform(-1, 1, count)
        scales: Floats = (_RESCALE_RANGE**exponents).astype(np.float32)
        return scales

    def per_query_head(v_rows: Floats) -> Floats:
        """Repeat the factors of each KV head for all the query heads that share it."""
        by_head = v_rows.reshape(shape.n_kv_heads, shape.head_size)
        return by_head.repeat(shape.n_heads // shape.n_kv_heads, axis=0).ravel()

    def transform(name: str, weights: Floats) -> Floats:
        if not name.startswith("blk."):
            return weights
        _, layer, part, kind = name.split(".")
        if kind != "weight":
            return weights
        v_rows = factors(layer, "v", shape.n_kv_heads * shape.head_size)
        match part:
            case "attn_norm":
                return weights / factors(layer, "attn", len(weights))
            case "ffn_norm":
                return weights / factors(layer, "ffn", len(weights))
            case "attn_q" | "attn_k":
                return weights * factors(layer, "attn", weights.shape[1])
            case "attn_v":
                return weights * factors(layer, "attn", weights.shape[1]) * v_rows[:, None]
            case "attn_output":
                return weights / per_query_head(v_rows)
            case "ffn_gate":
                return weights * factors(layer, "ffn", weights.shape[1])
            case "ffn_up":
                rows = factors(layer, "up", weights.shape[0])
                return weights * factors(layer, "ffn", weights.shape[1]) * rows[:, None]
            case "ffn_down":
                return weights / factors(layer, "up", weights.shape[1])
        return weights

    return transform


# --- GGUF to transformers --------------------------------------------------------------------


def hf_name(name: str) -> str:
    """Return a tensor's name in a Hugging Face Llama checkpoint, from its name in a GGUF file."""
    if name in _HF_TOP_NAMES:
        return _HF_TOP_NAMES[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_HF_LAYER_NAMES[part]}.{kind}"


def _unpermute(weights: Floats, n_heads: int) -> Floats:
    """Undo llama.cpp's reordering of the rotary halves in the rows of Q and K.

    llama.cpp's converter interleaves the two halves of every head; transformers keeps them one
    after the other.
    """
    rows, columns = weights.shape
    halves = weights.reshape(n_heads, rows // n_heads // 2, 2, columns)
    ordered: Floats = halves.swapaxes(1, 2).reshape(rows, columns)
    return ordered


def _hf_config(
    metadata: Mapping[str, Any], shape: architecture.Architecture, *, tied: bool
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "intermediate_size": int(metadata["llama.feed_forward_length"]),
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_size,
        "vocab_size": shape.n_vocab,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": float(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(metadata["llama.rope.freq_base"]),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": int(metadata["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(metadata["tokenizer.ggml.eos_token_id"]),
        "pad_token_id": int(metadata["tokenizer.ggml.padding_token_id"]),
        "dtype": "float16",
    }


def _write_tokenizer(source: Path, target: Path, metadata: Mapping[str, Any]) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    # transformers takes <|im_start|> for the end of the sequence; the file says <|im_end|>.
    end = tokenizer.convert_ids_to_tokens(int(metadata["tokenizer.ggml.eos_token_id"]))
    tokenizer.eos_token = end
    tokenizer.pad_token = end
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        # transformers' reader of GGUF does not know this rule: each digit is a token of its own.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokenizer.clean_up_tokenization_spaces = False  # else each decode() warns
    tokenizer.save_pretrained(str(target))
