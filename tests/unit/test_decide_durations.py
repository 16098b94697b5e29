"""How long training takes: by hand, and against what others measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook.catalog import hardware, models
from guidebook.decide import durations
from guidebook.decide.durations import Span

LLAMA_8B = models.find("llama-3.1-8b")
RTX_3080 = hardware.find("GeForce RTX 3080 10GB")
A100 = hardware.find("A100 SXM4 80GB")
H100 = hardware.find("H100 SXM5 80GB")


def test_full_training_takes_six_operations_a_weight_and_token_and_lora_four():
    n = LLAMA_8B.n_weights
    assert durations.flop(LLAMA_8B, "full", 1000) == 6000 * n
    assert durations.flop(LLAMA_8B, "lora", 1000) == 4000 * n
    assert durations.flop(LLAMA_8B, "qlora", 1000) == 4000 * n


def test_of_experts_only_those_used_count():
    model = models.find("mixtral-8x7b")
    assert durations.flop(model, "full", 1) == 6 * model.n_active_weights < 6 * model.n_weights


def test_a_case_by_hand():
    # 4 × 8.03e9 weights × 5e6 tokens are 1.606e17 operations. The card is rated 59.5e12 a second
    # and does a fifth of that: 1.19e13, so it takes 13,496 s, 3.75 h.
    found = durations.training_hours(LLAMA_8B, "qlora", 5e6, RTX_3080)
    assert found.mid == pytest.approx(3.75, rel=0.002)
    assert found.low < found.mid < found.high


@pytest.mark.parametrize(
    ("tokens_per_second", "model", "method", "gpu", "n_gpus"),
    [
        # What the shares were set by.
        (5762 * 8, "llama-3.1-8b", "full", "H100 SXM5 80GB", 8),  # torchtitan
        (2904 * 64, "llama-3-8b", "full", "A100 SXM4 80GB", 64),  # torchtitan
        (500, "qwen2.5-1.5b", "qlora", "GeForce RTX 4060", 1),  # arXiv 2509.12229
        (628, "qwen2.5-1.5b", "qlora", "GeForce RTX 4060", 1),
    ],
)
def test_published_speeds_lie_within_the_interval(tokens_per_second, model, method, gpu, n_gpus):
    found = durations.training_hours(
        models.find(model), method, tokens_per_second * 3600, hardware.find(gpu), n_gpus
    )
    assert found.low <= 1.02
    assert found.high >= 0.98


def test_a_geforce_without_a_rated_matrix_speed_does_twice_its_32_bit_rate():
    card = hardware.find("GeForce RTX 4090")
    assert durations.rated_flops(card) == (165.2e12, True)
    unrated = replace(card, tensor_flops=None)
    flops, is_stated = durations.rated_flops(unrated)
    assert flops == pytest.approx(165.2e12, rel=0.01)
    assert not is_stated


def test_what_nobody_published_has_a_wider_interval():
    known = durations.training_hours(LLAMA_8B, "full", 1e6, RTX_3080)
    guessed = durations.training_hours(
        LLAMA_8B, "full", 1e6, replace(RTX_3080, tensor_flops=None, fp32_flops=59.5e12 / 2)
    )
    assert guessed.mid == pytest.approx(known.mid)
    assert guessed.low < known.low < known.high < guessed.high


def test_cards_without_links_lose_when_they_share():
    alone = durations.training_hours(LLAMA_8B, "lora", 1e6, RTX_3080)
    two = durations.training_hours(LLAMA_8B, "lora", 1e6, RTX_3080, 2)
    assert alone.mid / 2 < two.mid < alone.mid
    # As measured with two A100 over PCIe, two may even be slower than one.
    assert two.high > alone.high
    linked = durations.training_hours(LLAMA_8B, "lora", 1e6, A100, 2)
    assert linked.mid == pytest.approx(
        durations.training_hours(LLAMA_8B, "lora", 1e6, A100).mid / 2
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["full", "lora", "qlora"]),
    st.floats(1, 1e12),
    st.sampled_from(hardware.every()),
    st.integers(1, 64),
)
def test_hours_are_ordered_finite_and_grow_with_the_tokens(method, n_tokens, device, count):
    found = durations.training_hours(LLAMA_8B, method, n_tokens, device, count)
    assert 0 < found.low <= found.mid <= found.high < float("inf")
    double = durations.training_hours(LLAMA_8B, method, 2 * n_tokens, device, count)
    assert double.mid == pytest.approx(2 * found.mid)


def test_a_span_scales_and_maps_all_its_ends():
    assert Span(1, 2, 3) * 2 == Span(2, 4, 6)
    assert Span(1, 2, 3).map(lambda value: value + 1) == Span(2, 3, 4)
    assert durations.exactly(5) == Span(5, 5, 5)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="at least one device"):
        durations.training_hours(LLAMA_8B, "full", 1.0, H100, 0)
    with pytest.raises(ValueError, match="Unknown method 'dora'"):
        durations.flop(LLAMA_8B, "dora", 1.0)  # type: ignore[arg-type]
