"""A small task score on any text: find which of four continuations follows.

Tests such as HellaSwag ask a model to choose among endings, by the likelihood that it gives them.
This does the same without a data set: a stretch of the text is the question, what follows it is
the right answer, and the wrong ones stand elsewhere in the same text, behind the same token. So
each can follow the last token, and only the rest of the context tells them apart. Guessing scores
25 %. It says how much of a model's sense of a text is left, not what the model knows.

It is a blunt tool beside the KL divergence: 100 questions have a standard error of 5 percentage
points. Two models are best compared on the same questions, one by one (``TaskScore.right``).

All answers have the same number of tokens, so the highest mean log-likelihood is the highest sum.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.measure.quality import log_softmax

if TYPE_CHECKING:
    from guidebook.engines import TokenEngine

N_CHOICES = 4
CHANCE = 1 / N_CHOICES

_95_PERCENT = 1.959964  # standard normal, two-sided


@dataclass(frozen=True)
class Question:
    """One question, in tokens.

    Attributes
    ----------
    context
        What the model reads.
    choices
        Continuations, all of the same length.
    answer
        Index of the one that follows in the text.
    """

    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    answer: int


@dataclass(frozen=True)
class TaskScore:
    """How many questions a model got right.

    Attributes
    ----------
    right
        For each question whether the answer was right: two models on the same questions can be
        compared question by question.
    """

    right: tuple[bool, ...]

    @property
    def n_questions(self) -> int:
        """Number of questions."""
        return len(self.right)

    @property
    def score(self) -> float:
        """Share of right answers, 0 to 1; guessing scores :data:`CHANCE`."""
        return sum(self.right) / len(self.right)

    @property
    def error(self) -> float:
        """Binomial standard error of the score; 0 if all are right, so print the interval too."""
        return math.sqrt(self.score * (1 - self.score) / len(self.right))

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the score: it stays honest near 0 and 1."""
        n, z2 = len(self.right), _95_PERCENT**2
        middle = (self.score + z2 / (2 * n)) / (1 + z2 / n)
        half = _95_PERCENT / (1 + z2 / n) * math.sqrt(self.error**2 + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def questions(
    tokens: Sequence[int],
    count: int = 100,
    *,
    n_context: int = 16,
    n_continuation: int = 4,
    seed: int = 0,
) -> tuple[Question, ...]:
    """Make questions from a text, spread evenly over it.

    Parameters
    ----------
    tokens
        The text. The same tokens and seed give the same questions.
    count
        Number of questions.
    n_context, n_continuation
        Tokens of the context and of each continuation. A shorter context makes the questions
        harder, and answering faster.
    seed
        Chooses the wrong continuations and the order.

    Raises
    ------
    ValueError
        The text is too short for so many questions.
    """
    if min(count, n_context, n_continuation) < 1:
        raise ValueError("Give at least one question, with a context and a continuation.")
    step = len(tokens) // count
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    places = _places(tokens, n_continuation)
    made = []
    for i in range(count):
        start = i * step
        # Not every token stands in enough places: the first that does ends the context.
        candidates = (
            _question(tokens, at, n_context, n_continuation, places, chance)
            for at in range(start + n_context, start + step - n_continuation + 1)
        )
        question = next((one for one in candidates if one is not None), None)
        if question is not None:
            made.append(question)
    if len(made) < count:
        raise ValueError(
            f"The text of {len(tokens)} tokens gives {len(made)} of {count} questions: give a "
            "longer text, or ask for fewer."
        )
    return tuple(made)


def score(engine: TokenEngine, asked: Sequence[Question]) -> TaskScore:
    """Let a model answer: it takes the continuation that it finds most likely.

    A question costs four readings of its context and a continuation: 100 questions of the default
    size read 7,600 tokens.

    Raises
    ------
    ValueError
        There are no questions.
    """
    if not asked:
        raise ValueError("There are no questions to score.")
    return TaskScore(tuple(_chosen(engine, one) == one.answer for one in asked))


def _chosen(engine: TokenEngine, question: Question) -> int:
    values = [_log_likelihood(engine, question.context, one) for one in question.choices]
    return values.index(max(values))


def _log_likelihood(
    engine: TokenEngine, context: Sequence[int], continuation: Sequence[int]
) -> float:
    # The last token predicts nothing that is asked for, so it is not read.
    read = [*context, *continuation[:-1]]
    log_probs = log_softmax(engine.logits(read, first=len(context) - 1))
    return float(sum(log_probs[i, token] for i, token in enumerate(continuation)))


def _places(tokens: Sequence[int], n_continuation: int) -> dict[int, list[int]]:
    """Return for each token the positions behind it where a continuation can start."""
    places: dict[int, list[int]] = {}
    for at in range(1, len(tokens) - n_continuation + 1):
        places.setdefault(tokens[at - 1], []).append(at)
    return places


def _question(
    tokens: Sequence[int],
    at: int,
    n_context: int,
    n_continuation: int,
    places: dict[int, list[int]],
    chance: random.Random,
) -> Question | None:
    """Ask what follows at a position; ``None`` if its last token stands in too few places."""
    start, end = at - n_context, at + n_continuation
    right = tuple(tokens[at:end])
    elsewhere = (p for p in places[tokens[at - 1]] if p >= end or p + n_continuation <= start)
    others = {tuple(tokens[p : p + n_continuation]) for p in elsewhere} - {right}
    if len(others) < N_CHOICES - 1:
        return None
    choices = [right, *chance.sample(sorted(others), N_CHOICES - 1)]
    chance.shuffle(choices)
    return Question(tuple(tokens[start:at]), tuple(choices), choices.index(right))
