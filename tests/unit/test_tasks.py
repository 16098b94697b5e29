"""The task asks fair questions, and its score and interval are what they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidebook import models, texts
from guidebook.engines import LlamaCpp
from guidebook.measure import tasks
from guidebook.measure.tasks import CHANCE, Question, TaskScore

N_VOCAB = 50
TEXT = np.random.default_rng(0).integers(0, N_VOCAB, size=4000).tolist()


class Knows:
    """A model that has learnt a text by heart; with ``mistaken`` it dreads what follows."""

    def __init__(self, tokens, *, mistaken: bool = False) -> None:
        self.follows = {tuple(tokens[i : i + 3]): tokens[i + 3] for i in range(len(tokens) - 3)}
        self.sign = -1 if mistaken else 1
        self.n_read = 0

    def logits(self, tokens, first=0):
        self.n_read += len(tokens)
        rows = np.zeros((len(tokens) - first, N_VOCAB), dtype=np.float32)
        for row, at in enumerate(range(first, len(tokens))):
            known = self.follows.get(tuple(tokens[max(0, at - 2) : at + 1]))
            if known is not None:
                rows[row, known] = 9 * self.sign
        return rows


def found_at(part, tokens=TEXT):
    return [i for i in range(len(tokens)) if tuple(tokens[i : i + len(part)]) == tuple(part)]


@given(st.integers(1, 25), st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_the_right_answer_follows_and_the_wrong_ones_stand_elsewhere(count, context, more, seed):
    asked = tasks.questions(TEXT, count, n_context=context, n_continuation=more, seed=seed)
    assert len(asked) == count
    for one in asked:
        assert len(one.context) == context
        assert len(set(one.choices)) == tasks.N_CHOICES
        assert found_at(one.context + one.choices[one.answer])
        for choice in one.choices:
            assert len(choice) == more
            # Each follows the same token somewhere in the text.
            assert found_at((one.context[-1], *choice))


def test_contexts_do_not_overlap_and_cover_the_whole_text():
    starts = [found_at(one.context)[0] for one in tasks.questions(TEXT, 20)]
    assert all(b - a >= 20 for a, b in itertools.pairwise(starts))
    assert starts[-1] > 0.9 * len(TEXT)


def test_the_same_seed_asks_the_same_and_another_seed_something_else():
    assert tasks.questions(TEXT, 10, seed=3) == tasks.questions(TEXT, 10, seed=3)
    assert tasks.questions(TEXT, 10, seed=3) != tasks.questions(TEXT, 10, seed=4)


def test_every_place_can_be_the_right_one():
    answers = [one.answer for one in tasks.questions(TEXT, 100)]
    assert all(answers.count(place) > 10 for place in range(tasks.N_CHOICES))


@pytest.mark.parametrize(
    ("tokens", "count", "message"),
    [
        (TEXT[:100], 10, r"100 tokens gives 0 of 10 questions"),
        (list(range(4000)), 10, "gives 0 of 10"),  # no token stands in four places
        ([7] * 400, 2, "gives 0 of 2"),  # everything follows everything
        ([], 1, "0 tokens gives 0 of 1"),
        (TEXT, 0, "at least one question"),
    ],
)
def test_a_text_without_questions_is_refused(tokens, count, message):
    with pytest.raises(ValueError, match=message):
        tasks.questions(tokens, count)


def test_a_model_that_knows_the_text_gets_all_right_and_one_that_dreads_it_none():
    asked = tasks.questions(TEXT, 50)
    assert tasks.score(Knows(TEXT), asked).score == 1
    assert tasks.score(Knows(TEXT, mistaken=True), asked).score == 0


def test_a_model_that_knows_nothing_scores_about_chance():
    class Random(Knows):
        def logits(self, tokens, first=0):
            rng = np.random.default_rng(abs(hash(tuple(tokens))))
            return rng.normal(size=(len(tokens) - first, N_VOCAB)).astype(np.float32)

    seen = tasks.score(Random([]), tasks.questions(TEXT, 150))
    assert abs(seen.score - CHANCE) < 4 * math.sqrt(CHANCE * (1 - CHANCE) / 150)


def test_the_last_token_of_a_continuation_is_not_read():
    engine = Knows(TEXT)
    tasks.score(engine, tasks.questions(TEXT, 10, n_context=16, n_continuation=4))
    assert engine.n_read == 10 * tasks.N_CHOICES * (16 + 4 - 1)


def test_answers_are_judged_by_all_their_tokens():
    class Table:
        def logits(self, tokens, first=0):
            rows = np.zeros((len(tokens) - first, 4), dtype=np.float32)
            rows[0] = [2, 1.5, 0, 0]  # token 0 first is likelier ...
            rows[1] = [0, 0, 5, 0] if tokens[first + 1] == 1 else [0, 0, 0, 0]  # ... but 1, 2 wins
            return rows

    question = Question((3,), ((0, 2), (1, 2), (2, 2), (3, 2)), 1)
    assert tasks.score(Table(), [question]).right == (True,)


def test_no_questions_are_refused():
    with pytest.raises(ValueError, match="no questions"):
        tasks.score(Knows(TEXT), [])


def test_wilson_s_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for right, n in ((0, 10), (10, 10), (58, 100), (1, 1), (30, 40)):
        seen = TaskScore((True,) * right + (False,) * (n - right))
        theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert seen.interval == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_interval_holds_the_score_and_stays_between_0_and_1(right):
    seen = TaskScore(tuple(right))
    low, high = seen.interval
    assert 0 <= low <= seen.score + 1e-12
    assert seen.score - 1e-12 <= high <= 1
    assert low < high
    assert seen.error == pytest.approx(np.std(right) / math.sqrt(len(right)))


@pytest.mark.slow
def test_both_engines_answer_above_chance_and_nearly_alike():
    pytest.importorskip("torch")
    from guidebook.engines.transformers import Transformers

    with LlamaCpp.load(models.resolve("embedded", "gguf-f16").path, n_ctx=64) as llama:
        text = llama.tokenize(texts.evaluation("python-topics")[:60_000])
        asked = tasks.questions(text, 12, n_context=32)
        ours = tasks.score(llama, asked)
    folder = models.resolve("embedded", "transformers").path
    with Transformers.load(folder, device="cpu") as engine:
        theirs = tasks.score(engine, asked)
    assert ours.interval[0] > CHANCE
    # Only near-ties may fall differently: llama.cpp multiplies in 16 bits.
    assert sum(a != b for a, b in zip(ours.right, theirs.right, strict=True)) <= 1
