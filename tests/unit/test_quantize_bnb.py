"""4-bit and 8-bit layers: their bytes are counted once each, and their layout can be kept."""

from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
bitsandbytes = pytest.importorskip("bitsandbytes")

from guidebook.measure.weights_held import weights_held  # noqa: E402
from guidebook.quantize import bnb  # noqa: E402

ROWS, COLUMNS = 64, 128


def four_bit(*, nested=False, kind="nf4"):
    layer = bitsandbytes.nn.Linear4bit(
        COLUMNS,
        ROWS,
        bias=False,
        compute_dtype=torch.float32,
        compress_statistics=nested,
        quant_type=kind,
    )
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(0.1, 3.0, ROWS * COLUMNS // 64).reshape(ROWS, -1)
    weights = torch.randn(ROWS, COLUMNS, generator=generator)
    weights *= scales.repeat_interleave(64, dim=1)
    layer.weight = bitsandbytes.nn.Params4bit(
        weights, requires_grad=False, compress_statistics=nested, quant_type=kind, module=layer
    )
    return layer.to("cpu")


def eight_bit():
    layer = bitsandbytes.nn.Linear8bitLt(COLUMNS, ROWS, bias=False, has_fp16_weights=False)
    return layer.to("cpu")


def test_a_plain_model_holds_its_parameters_and_nothing_else():
    held = weights_held(torch.nn.Linear(10, 4))
    assert held.other_bytes == held.total_bytes == 4 * 44
    assert (held.n_quantized, held.n_other) == (0, 44)
    assert held.quantized_bits is None
    assert held.bits_per_weight == 32


def test_tied_weights_are_counted_once():
    first, second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    assert weights_held(torch.nn.Sequential(first, second)).total_bytes == 4 * 64


def test_four_bits_hold_half_a_byte_per_weight_and_a_scale_per_block():
    held = weights_held(four_bit())
    assert held.n_quantized == ROWS * COLUMNS
    assert held.quantized_bytes == ROWS * COLUMNS // 2
    levels = 16 * 4
    assert held.scale_bytes == ROWS * COLUMNS // 64 * 4 + levels
    assert held.other_bytes == 0


def test_double_quantization_holds_a_byte_per_block_and_the_tables():
    held = weights_held(four_bit(nested=True))
    n_blocks = ROWS * COLUMNS // 64
    tables = 16 * 4 + 256 * 4
    second_scales, mean = 4 * (n_blocks // 256 or 1), 4
    assert held.scale_bytes == n_blocks + second_scales + mean + tables


def test_eight_bits_hold_a_scale_per_row_before_and_after_the_first_product():
    layer = eight_bit().eval()
    before = weights_held(layer)
    assert (before.quantized_bytes, before.scale_bytes) == (ROWS * COLUMNS, ROWS * 4)
    with torch.inference_mode():
        layer(torch.randn(2, COLUMNS))
    assert weights_held(layer) == before


def test_what_lies_beside_quantized_layers_is_counted_apart():
    model = torch.nn.Sequential(four_bit(), torch.nn.LayerNorm(ROWS))
    held = weights_held(model)
    assert (held.n_other, held.other_bytes) == (2 * ROWS, 2 * ROWS * 4)
    assert held.quantized_bytes == ROWS * COLUMNS // 2


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_kept_layer_is_the_same_after_a_product_and_has_a_derivative(nested, kind):
    layer = four_bit(nested=nested, kind=kind)
    assert bnb.keep_layout(layer) == 1
    packed = layer.weight.data.clone()
    unpacked = bitsandbytes.functional.dequantize_4bit(packed, layer.weight.quant_state)
    layer.eval()
    with torch.inference_mode():
        seen = layer(torch.eye(COLUMNS))
    assert torch.equal(layer.weight.data, packed)
    assert torch.allclose(seen.t(), unpacked, atol=1e-5)
    values = torch.randn(2, COLUMNS, requires_grad=True)
    layer(values).sum().backward()
    assert torch.allclose(values.grad[0], unpacked.sum(dim=0), atol=1e-3)


def test_a_layer_that_was_rearranged_is_refused():
    layer = four_bit().eval()
    if not bnb.rearranges():
        layer.weight.quant_state.packing_format_for_cpu = True
    else:
        with torch.inference_mode():
            layer(torch.randn(2, COLUMNS))
    with pytest.raises(ValueError, match="Load it again"):
        bnb.keep_layout(layer)


def test_a_model_without_four_bit_layers_has_nothing_to_keep():
    assert bnb.keep_layout(torch.nn.Linear(2, 2)) == 0


def test_a_layer_of_eight_bits_multiplies_outliers_apart():
    weights = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    values = torch.randn(8, 64, generator=torch.Generator().manual_seed(2))
    values[:, 3] *= 60
    exact = values @ weights.t()
    off = {}
    for threshold in (0.0, 6.0):
        with torch.inference_mode():
            product = bnb.int8_layer(weights, threshold)(values.clone())
        off[threshold] = float((product - exact).norm() / exact.norm())
    assert off[6.0] < off[0.0] / 3


@pytest.mark.parametrize("double", [False, True])
def test_a_kept_layer_is_saved_and_read_without_loss(double):
    weights = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    layer = bnb.nf4_layer(weights, double=double)
    bnb.keep_layout(layer)
    before = bnb.unpacked(layer)
    assert float((before - weights).norm() / weights.norm()) < 0.12
    with torch.inference_mode():
        layer.eval()(torch.randn(2, 128))
    assert torch.equal(bnb.saved_and_read(layer), before)


def test_the_frozen_checksum_sees_a_changed_scale():
    from guidebook import finetuning

    layer = bnb.nf4_layer(torch.randn(64, 128, generator=torch.Generator().manual_seed(1)))
    before = finetuning.frozen_checksum(layer)
    layer.weight.quant_state.absmax[0] *= 2
    assert finetuning.frozen_checksum(layer) != before


def test_the_operators_for_mps_are_read_from_the_library():
    assert {"quantize_4bit", "dequantize_4bit"} <= set(bnb.mps_operators())
