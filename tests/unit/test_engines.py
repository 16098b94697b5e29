"""The llama.cpp engine computes what llama.cpp computes, on the real embedded model."""

from __future__ import annotations

import time

import numpy as np
import pytest
from llama_cpp import Llama

from guidebook import models
from guidebook.engines import EngineError, LlamaCpp, Reported


@pytest.fixture(scope="module")
def llama():
    loaded = Llama(
        str(models.embedded_file()), n_ctx=256, n_batch=32, logits_all=True, verbose=False
    )
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def engine(llama):
    return LlamaCpp(llama)


@pytest.fixture(scope="module")
def prompt(engine):
    return engine.tokenize("The sea is wide, and the ship is small. " * 5)


def test_streaming_gives_the_tokens_that_llama_cpp_python_gives(llama, engine, prompt):
    ours = list(engine.stream(prompt, 24))
    llama.reset()
    theirs = []
    for token in llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        theirs.append(token)
        if len(theirs) == 24:
            break
    assert ours == theirs


def test_a_second_run_starts_from_an_empty_cache(engine, prompt):
    assert list(engine.stream(prompt, 12)) == list(engine.stream(prompt, 12))


def test_an_abandoned_stream_does_not_disturb_the_next(engine, prompt):
    expected = list(engine.stream(prompt, 6))
    next(engine.stream(prompt, 50))
    assert list(engine.stream(prompt, 6)) == expected


def test_generate_continues_a_text_as_llama_cpp_python_does(llama, engine):
    text = "The sea is wide, and the ship"
    answer = engine.generate(text, 12)
    pieces = list(answer)
    llama.reset()
    theirs = llama.create_completion(text, max_tokens=12, temperature=0, repeat_penalty=1.0)
    assert len(pieces) == 12
    assert "".join(pieces) == answer.text == theirs["choices"][0]["text"]


def test_a_character_of_several_tokens_comes_out_whole(engine):
    answer = engine.generate("The sea, the ship, and the fish 海 船 魚 海 船 魚 海 船 魚 海", 12)
    pieces = list(answer)
    assert len(pieces) == 12
    assert "" in pieces  # a token that ends in the middle of a character
    assert "\N{REPLACEMENT CHARACTER}" not in answer.text.rstrip("\N{REPLACEMENT CHARACTER}")


def test_llama_cpps_own_times_come_with_the_answer(engine, prompt):
    answer = engine.generate("The sea is wide. " * 12, 16)
    assert answer.reported == Reported()
    start = time.perf_counter()
    answer.read()
    seconds = time.perf_counter() - start
    seen = answer.reported
    assert (seen.n_prompt, seen.n_generated, seen.n_decoded) == (
        engine.count_tokens("The sea is wide. " * 12),
        16,
        15,
    )
    assert seen.prefill_seconds
    assert seen.decode_seconds
    assert seen.prefill_seconds + seen.decode_seconds < seconds


def test_an_answer_given_up_leaves_the_engine_usable(engine):
    answer = engine.generate("One, two, three,", 100)
    next(answer)
    answer.close()
    assert list(answer) == []
    assert engine.generate("One, two, three,", 3).read()


def test_a_file_that_is_no_model_is_refused_with_a_sentence(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, or not")
    with pytest.raises(EngineError, match=r"could not load broken\.gguf\. Check that it is"):
        LlamaCpp.load(broken)


def test_logits_are_those_of_llama_cpp_python_across_batches(llama, engine, prompt):
    assert len(prompt) > 32  # more than one batch
    ours = engine.logits(prompt)
    llama.reset()
    llama.eval(prompt)
    theirs = np.array(llama.scores[: len(prompt)])
    assert ours.shape == theirs.shape == (len(prompt), 49152)
    assert np.allclose(ours, theirs, atol=1e-3)


def test_logits_from_a_position_on_are_the_last_rows(engine, prompt):
    whole = engine.logits(prompt)
    for first in (5, 32, len(prompt) - 1):
        assert np.allclose(engine.logits(prompt, first), whole[first:], atol=1e-3)


def test_the_most_likely_next_token_is_what_the_stream_writes_first(engine, prompt):
    assert next(engine.stream(prompt, 2)) == engine.logits(prompt)[-1].argmax()


def test_what_does_not_fit_the_context_is_refused_with_the_way_out(engine, prompt):
    with pytest.raises(EngineError, match="do not fit the context of 256: load the model with"):
        next(engine.stream(prompt, 300))
    with pytest.raises(EngineError, match="300 tokens"):
        engine.logits([1] * 300)


def test_the_name_is_no_path_and_closing_twice_does_no_harm():
    engine = LlamaCpp(Llama(str(models.embedded_file()), n_ctx=32, verbose=False))
    assert engine.name == "llama.cpp SmolLM2-135M-Instruct.Q4_1.gguf"
    engine.close()
    engine.close()
