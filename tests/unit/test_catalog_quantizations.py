"""The quantization catalog: layouts as in llama.cpp, sources everywhere, names found."""

from __future__ import annotations

import datetime

import pytest

from guidebook.catalog import quantizations


def test_every_row_has_a_source_and_a_date() -> None:
    rows = [*quantizations.tensor_types().values(), *quantizations.file_types().values()]
    assert len(rows) >= 60
    for row in rows:
        assert "llama.cpp" in row.source, row.name
        assert datetime.date(2024, 1, 1) < row.as_of <= datetime.date(2026, 12, 31), row.name


def test_layouts_equal_those_of_the_gguf_package() -> None:
    from gguf import GGML_QUANT_SIZES

    sizes = {kind.name: size for kind, size in GGML_QUANT_SIZES.items()}
    checked = quantizations.tensor_types().keys() & sizes.keys()
    assert len(checked) >= 25
    for name in checked:
        kind = quantizations.tensor_type(name)
        assert (kind.block_weights, kind.block_bytes) == sizes[name], name


def test_every_tensor_type_a_model_file_may_hold_is_listed() -> None:
    from gguf import GGML_QUANT_SIZES

    # Intermediate results and integers are never weights.
    never = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
    missing = {kind.name for kind in GGML_QUANT_SIZES} - quantizations.tensor_types().keys()
    assert missing <= never


def test_every_file_type_has_a_base_type_with_a_layout() -> None:
    for file_type in quantizations.file_types().values():
        assert file_type.base_type in quantizations.tensor_types(), file_type.name


def test_names_and_aliases_are_unique() -> None:
    files = quantizations.file_types().values()
    names = [name for kind in files for name in (kind.name, *kind.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("Q4-K-M", "Q4_K_M"),
        (" q4 k m ", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("fp16", "F16"),
        ("mxfp4", "MXFP4_MOE"),
    ],
)
def test_a_file_type_is_found_by_any_spelling(asked: str, found: str) -> None:
    assert quantizations.find(asked).name == found


def test_an_unknown_file_type_names_the_nearest() -> None:
    with pytest.raises(LookupError, match=r"no quantization 'UD-Q4_K_XL'.*Q4_K"):
        quantizations.find("UD-Q4_K_XL")


def test_an_unknown_tensor_type_names_the_nearest() -> None:
    with pytest.raises(LookupError, match=r"no tensor type 'Q7_K'.*Q[0-9]_K"):
        quantizations.tensor_type("Q7_K")


def test_bits_per_weight_count_the_scales() -> None:
    assert quantizations.tensor_type("Q4_0").bits_per_weight == 4.5
    assert quantizations.tensor_type("Q6_K").bits_per_weight == 6.5625
    assert quantizations.tensor_type("MXFP4").bits_per_weight == 4.25


def test_a_row_that_does_not_fill_blocks_is_refused() -> None:
    assert quantizations.tensor_type("Q4_K").n_bytes(512) == 288
    with pytest.raises(ValueError, match="blocks of 256 weights"):
        quantizations.tensor_type("Q4_K").n_bytes(300)
