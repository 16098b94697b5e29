"""bitsandbytes' layers one at a time, and one switch for those of 4 bits on a processor.

On a processor with AVX512-BF16, bitsandbytes 0.50 rearranges a 4-bit matrix in place at its first
product outside training, and rounds its scales to 16 bits, for a faster kernel. That kernel has no
derivative, and saving afterwards writes the scales of a matrix without double quantization in the
wrong order. So a model that will be trained or saved has to stay as it is.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SWITCH = "support_avx512bf16_for_cpu"
_MARK = "packing_format_for_cpu"
_FOR_MPS = re.compile(r"""register_kernel\("bitsandbytes::(\w+)", "mps"\)""")


def rearranges() -> bool:
    """Whether bitsandbytes rearranges 4-bit matrices on this processor."""
    from bitsandbytes import functional

    asked: Any = functional  # the library has no types
    return bool(asked.has_avx512bf16())


def mps_operators() -> tuple[str, ...]:
    """Return the operators that the installed bitsandbytes has for Apple's GPUs.

    They are read from its source, because it registers them on a Mac only.
    """
    import bitsandbytes

    source = files(bitsandbytes).joinpath("backends/mps/ops.py")
    code = source.read_text("utf-8") if source.is_file() else ""
    return tuple(sorted(set(_FOR_MPS.findall(code))))


def keep_layout(model: torch.nn.Module) -> int:
    """Make the 4-bit layers of a model keep their matrices as they were quantized.

    Call it after loading, before the first token. On a GPU it changes nothing.

    Returns
    -------
    int
        Number of 4-bit layers.

    Raises
    ------
    ValueError
        A layer has been rearranged already.
    """
    layers = [module for module in model.modules() if hasattr(module, _SWITCH)]
    for layer in layers:
        if getattr(getattr(layer.weight, "quant_state", None), _MARK, False):
            raise ValueError(
                "This model has computed already, and its 4-bit matrices are rearranged. Load it "
                "again, and call keep_layout before the first token."
            )
        setattr(layer, _SWITCH, False)
    return len(layers)


def int8_layer(weights: torch.Tensor, threshold: float = 6.0) -> Any:  # noqa: ANN401 - untyped
    """Make a layer of LLM.int8() from a matrix, on the processor.

    Parameters
    ----------
    weights
        Matrix of shape (outputs, inputs).
    threshold
        Channels of the input with a magnitude of at least this are multiplied in 16 bits;
        0 rounds every channel.
    """
    nn = _layers()
    rows, columns = weights.shape
    layer = nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False, threshold=threshold)
    layer.weight = nn.Int8Params(weights.clone(), requires_grad=False)
    return layer.to("cpu").eval()


def nf4_layer(weights: torch.Tensor, *, double: bool = False) -> Any:  # noqa: ANN401 - untyped
    """Make a layer of NF4 from a matrix, on the processor, computing in 32 bits.

    Parameters
    ----------
    weights
        Matrix of shape (outputs, inputs).
    double
        Quantize the scales, too.
    """
    import torch

    nn = _layers()
    rows, columns = weights.shape
    kind = {"quant_type": "nf4", "compress_statistics": double}
    layer = nn.Linear4bit(columns, rows, bias=False, compute_dtype=torch.float32, **kind)
    layer.weight = nn.Params4bit(weights.clone(), requires_grad=False, module=layer, **kind)
    return layer.to("cpu")


def unpacked(layer: Any) -> torch.Tensor:  # noqa: ANN401 - a class of bitsandbytes
    """Return a 4-bit layer's weights in 32 bits, as they were quantized."""
    return _unpack(layer.weight)


def saved_and_read(layer: Any) -> torch.Tensor:  # noqa: ANN401 - a class of bitsandbytes
    """Save a 4-bit layer in memory, read it back, and return its weights in 32 bits."""
    saved = {name.removeprefix("weight."): value for name, value in layer.state_dict().items()}
    packed = saved.pop("weight")
    return _unpack(_layers().Params4bit.from_prequantized(packed, saved, device="cpu"))


def _unpack(weight: Any) -> torch.Tensor:  # noqa: ANN401 - a class of bitsandbytes
    from bitsandbytes import functional

    weights: torch.Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
    return weights.float()


def _layers() -> Any:  # noqa: ANN401 - the library has no types
    from bitsandbytes import nn

    return nn
