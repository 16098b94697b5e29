"""Every model of the catalog has a source, adds up to its weights, and is found by its names."""

from __future__ import annotations

import datetime
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import architecture
from guidebook.catalog import models

ALL = models.all()
TABLE = {
    "name": "tiny",
    "family": "Tiny",
    "released": datetime.date(2026, 1, 1),
    "n_weights": 1000,
    "licence": "mit",
    "source": "a paper",
    "as_of": datetime.date(2026, 11, 1),
    "architecture": {
        "name": "llama",
        "n_layers": 1,
        "n_heads": 1,
        "n_kv_heads": 1,
        "head_size": 8,
        "hidden_size": 8,
        "n_vocab": 10,
        "context_length": 100,
    },
}


def n_weights(shape: architecture.Architecture, *, active: bool = False) -> int:
    """Count weights from the shape, independently of the package; active: what a token passes."""
    hidden = shape.hidden_size
    tables = 1 if shape.tied_embeddings or active else 2
    total = tables * shape.n_vocab * hidden + hidden * (2 * shape.n_layers + 1)
    if shape.is_mla:
        queries = shape.n_heads * shape.head_size
        plain = shape.head_size - shape.rope_head_size
        values = shape.n_heads * shape.v_head_size
        low = shape.q_lora_rank
        one = low * (hidden + queries) if low else hidden * queries
        one += hidden * (shape.kv_lora_rank + shape.rope_head_size)
        one += shape.kv_lora_rank * (shape.n_heads * plain + values) + values * hidden
        total += shape.n_layers * one
    else:
        total += shape.n_full_layers * attention(shape, shape.head_size, shape.n_kv_heads)
        total += shape.n_window_layers * attention(
            shape,
            shape.window_head_size or shape.head_size,
            shape.window_kv_heads or shape.n_kv_heads,
        )
    matrices = 3 if shape.gated else 2
    dense = shape.n_feed_forward_layers - shape.n_expert_layers
    total += dense * matrices * hidden * shape.feed_forward_size
    experts = shape.n_experts_used if active else shape.n_experts
    width = experts * shape.expert_feed_forward_size + shape.shared_feed_forward_size
    total += shape.n_expert_layers * hidden * (matrices * width + shape.n_experts)
    return total + shape.n_recurrent_layers * shape.recurrent_weights


def attention(shape: architecture.Architecture, head_size: int, kv_heads: int) -> int:
    queries = shape.n_heads * head_size * (2 if shape.gated_attention else 1)
    keys_and_values = 2 * kv_heads * head_size
    return shape.hidden_size * (queries + keys_and_values + shape.n_heads * head_size)


def test_the_catalog_is_large_and_varied():
    assert len(ALL) >= 45
    assert min(one.n_weights for one in ALL) < 2e8
    assert max(one.n_weights for one in ALL) > 4e11
    shapes = [one.architecture for one in ALL]
    assert sum(shape.is_moe for shape in shapes) >= 15
    assert sum(shape.n_recurrent_layers > 0 for shape in shapes) >= 10
    assert sum(shape.n_window_layers > 0 for shape in shapes) >= 10
    assert any(shape.is_mla for shape in shapes)
    assert any(shape.n_kv_heads == 1 for shape in shapes)


# Where the published figure is rounded, or a small part is not counted from the shape.
LOOSER = {
    "gemma-4-12b": 0.004,  # the published figure has the image projection
    "gemma-4-26b-a4b": 0.001,  # full layers have no matrix of values of their own
    "gemma-4-31b": 0.004,  # full layers have no matrix of values of their own
    "glm-5": 0.0015,  # rounded to a billion; the indexers of sparse attention
    "qwen3.5-4b": 0.0015,  # rounded to ten million
}


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_the_shape_adds_up_to_the_published_weights(model):
    tolerance = LOOSER.get(model.name, 0.0005)
    assert n_weights(model.architecture) == pytest.approx(model.n_weights, rel=tolerance)


@pytest.mark.parametrize(
    "model", [one for one in ALL if one.architecture.is_moe], ids=lambda model: model.name
)
def test_the_experts_in_use_add_up_to_the_makers_round_figure(model):
    # A maker rounds to a whole billion, and may count the embedding or not.
    counted = n_weights(model.architecture, active=True)
    assert counted == pytest.approx(model.n_active_weights, rel=0.1, abs=0.6e9)
    assert model.n_active_weights < model.n_weights


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_a_model_says_where_its_facts_are_from(model):
    assert "shape: " in model.source
    assert "weights: " in model.source
    assert datetime.date(2026, 1, 1) <= model.as_of <= datetime.date(2100, 1, 1)
    assert datetime.date(2023, 1, 1) <= model.released <= model.as_of
    assert model.licence
    if not model.architecture.is_moe:
        assert model.n_active_weights == model.n_weights


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_a_shape_is_consistent(model):
    shape = model.architecture
    assert shape.n_heads % shape.n_kv_heads == 0
    assert shape.n_full_layers > 0
    assert bool(shape.sliding_window) == bool(shape.n_window_layers)
    assert bool(shape.n_recurrent_layers) == bool(shape.recurrent_state_bytes)
    assert shape.feed_forward_size or shape.is_moe
    if shape.is_moe:
        assert 0 < shape.n_experts_used < shape.n_experts
        assert bool(shape.feed_forward_size) == bool(shape.n_dense_layers)


# Peers report these, in GiB, for float16 and the longest context (unslothai/unsloth #4757).
# GLM-5's includes the layer that predicts ahead.
@pytest.mark.parametrize(
    ("name", "wanted", "extra_layers"),
    [
        ("gemma-3-27b", 10.41, 0),
        ("qwen3.5-27b", 16.0, 0),
        ("deepseek-v3.1", 10.72, 0),
        ("glm-5", 17.18, 1),
        ("kimi-k2.5", 17.16, 0),
        ("qwen3-0.6b", 4.38, 0),
    ],
)
def test_the_facts_behind_the_kv_cache_are_those_of_the_peers(name, wanted, extra_layers):
    shape = models.find(name).architecture
    row = 2 * shape.n_kv_heads * shape.head_size
    if shape.is_mla:
        row = shape.kv_lora_rank + shape.rope_head_size
    tokens = (shape.n_full_layers + extra_layers) * shape.context_length
    tokens += shape.n_window_layers * shape.sliding_window
    assert 2 * row * tokens / 2**30 == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize("key", ["source", "as_of", "licence", "architecture", "n_weights"])
def test_a_row_without_a_fact_or_its_source_is_refused(key):
    table = {one: value for one, value in TABLE.items() if one != key}
    with pytest.raises(ValueError, match=rf"tiny.*{key}"):
        models.from_table(table)


@pytest.mark.parametrize(("key", "value"), [("source", ""), ("as_of", "yesterday")])
def test_a_row_with_an_empty_source_or_no_real_date_is_refused(key, value):
    with pytest.raises(ValueError, match=r"tiny needs a source and a date"):
        models.from_table({**TABLE, key: value})


def test_a_row_with_an_unknown_field_of_the_shape_is_refused():
    wrong = {**TABLE, "architecture": {**TABLE["architecture"], "n_layer": 3}}
    with pytest.raises(ValueError, match=r"tiny has a wrong field.*n_layer"):
        models.from_table(wrong)


def test_no_name_stands_for_two_models():
    names = Counter(name for one in ALL for name in (one.name, *one.aliases))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Llama-3-8B-Instruct", "llama-3-8b"),
        ("meta-llama/Meta-Llama-3-70B", "llama-3-70b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("Llama 3.1 405B", "llama-3.1-405b"),
        ("llama_3.3_70b", "llama-3.3-70b"),
        ("Llama-2-7b-chat-hf", "llama-2-7b"),
        ("NousResearch/Llama-2-13b-hf", "llama-2-13b"),
        ("deepseek-r1-14b", "qwen2.5-14b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama-3.1-8b"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1"),
        ("gpt-oss:20b", "gpt-oss-20b"),
        ("unsloth/gemma-3-27b-it-GGUF", "gemma-3-27b"),
        ("gemma3:4b", "gemma-3-4b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
        ("Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b-2507"),
        ("qwen3-coder:30b", "qwen3-coder-30b-a3b"),
        ("qwen2.5-coder:7b-instruct", "qwen2.5-coder-7b"),
        ("GLM 4.5 Air", "glm-4.5-air"),
        ("smollm2:135m", "smollm2-135m"),
        ("CohereForAI/c4ai-command-r-v01", "command-r-35b"),
        ("phi4", "phi-4"),
    ],
)
def test_a_model_is_found_by_the_names_that_people_use(said, meant):
    assert models.find(said).name == meant


@given(
    model=st.sampled_from(ALL),
    separator=st.sampled_from(["-", "_", " ", ":", ""]),
    ending=st.sampled_from(["", "-Instruct", "-it", "-chat", "-hf", "-base", "-GGUF"]),
    vendor=st.sampled_from(["", "meta-llama/", "someone/"]),
    upper=st.booleans(),
)
def test_spelling_does_not_matter(model, separator, ending, vendor, upper):
    said = vendor + model.name.replace("-", separator) + ending
    assert models.find(said.upper() if upper else said) is model


def test_an_unknown_model_is_answered_with_the_nearest_names():
    with pytest.raises(LookupError, match=r"'llama-9-8b'.*Nearest: .*llama-3-8b"):
        models.find("llama-9-8b")
    with pytest.raises(LookupError, match="No model"):
        models.find("")
