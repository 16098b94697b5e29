"""Speculative decoding writes the same text in fewer steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from guidebook import models
from guidebook.engines import LlamaCpp
from guidebook.measure import speculative

if TYPE_CHECKING:
    from guidebook.measure.speculative import Ids

N = 24


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    # In 16 bits: what a step of several tokens computes differs least there from single steps.
    path = models.resolve("embedded", "gguf-f16").path
    loaded = Llama(str(path), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def prompt(llama: Llama) -> list[int]:
    text = "One two three four five six seven eight. One two three four five six seven eight. One"
    return list(llama.tokenize(text.encode(), add_bos=False))


@pytest.fixture(scope="module")
def plain(llama: Llama, prompt: list[int]) -> speculative.Written:
    return speculative.write(llama, prompt, N)


def test_without_a_draft_it_writes_what_the_engine_writes(
    llama: Llama, prompt: list[int], plain: speculative.Written
) -> None:
    assert plain.tokens == tuple(LlamaCpp(llama).stream(prompt, N))
    assert (plain.n_steps, plain.n_drafted, plain.n_accepted) == (N - 1, 0, 0)
    assert plain.tokens_per_step == 1


def test_prompt_lookup_writes_the_same_text_in_fewer_steps(
    llama: Llama, prompt: list[int], plain: speculative.Written
) -> None:
    lookup = LlamaPromptLookupDecoding(max_ngram_size=3, num_pred_tokens=4)
    found = speculative.write(llama, prompt, N, lookup)
    assert speculative.difference(llama, prompt, plain.tokens, found.tokens).gap < 0.1
    assert found.n_steps < plain.n_steps
    assert found.n_accepted == N - 1 - found.n_steps
    assert found.tokens_per_step > 1.2


def test_wrong_guesses_are_never_kept(
    llama: Llama, prompt: list[int], plain: speculative.Written
) -> None:
    def wrong(so_far: Ids) -> Ids:
        return np.full(3, (plain.tokens[len(so_far) - len(prompt)] + 1) % 1000, dtype=np.intc)

    found = speculative.write(llama, prompt, N, wrong)
    assert speculative.difference(llama, prompt, plain.tokens, found.tokens).gap < 0.1
    if found.tokens == plain.tokens:
        assert found.n_accepted == 0


def test_perfect_guesses_are_all_kept(
    llama: Llama, prompt: list[int], plain: speculative.Written
) -> None:
    def right(so_far: Ids) -> Ids:
        at = len(so_far) - len(prompt)
        return np.array(plain.tokens[at : at + 5], dtype=np.intc)

    found = speculative.write(llama, prompt, N, right)
    assert found.n_accepted == found.n_drafted
    assert found.n_steps == 4  # 23 tokens in steps of 6


def test_steps_of_every_size_are_timed_as_often(llama: Llama, prompt: list[int]) -> None:
    taken = speculative.step_seconds(llama, prompt, (1, 4), repetitions=3)
    assert [len(taken[size].samples) for size in (1, 4)] == [3, 3]
    assert all(one.unit == "s" and one.low > 0 for one in taken.values())


def test_a_difference_says_where_and_how_close(
    llama: Llama, prompt: list[int], plain: speculative.Written
) -> None:
    tokens = list(plain.tokens)
    assert speculative.difference(llama, prompt, tokens, tokens) == speculative.Difference(None, 0)
    other = [*tokens[:5], (tokens[5] + 1) % 1000, *tokens[6:]]
    found = speculative.difference(llama, prompt, tokens, other)
    assert found.at == 5
    assert found.gap > 1  # the model was sure


def test_what_does_not_fit_is_refused_in_a_sentence(llama: Llama, prompt: list[int]) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        speculative.write(llama, prompt, 1)
    with pytest.raises(ValueError, match="larger n_ctx"):
        speculative.write(llama, prompt, 1000)
    with pytest.raises(ValueError, match="at least 64 tokens"):
        speculative.step_seconds(llama, prompt, (1, 64))
    with pytest.raises(ValueError, match="same length"):
        speculative.difference(llama, prompt, [1], [1, 2])
