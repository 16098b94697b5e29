"""Prompts that differ from their first word on, cut to a number of tokens.

Prompt ``i`` is the same text for every contender. No two prompts begin alike, so a server that
keeps earlier prompts in its cache has nothing to reuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_CHARACTERS_PER_TOKEN = 4.0
_MOST_CHARACTERS = 16
_TRIES = 16
_RULE = re.compile(r"([^\w\s])\1{3,}")


def plain(text: str) -> str:
    """Take rules and indentation out of a text: such runs are one token or many by chance."""
    return " ".join(_RULE.sub(" ", text).split())


def starts(text: str, count: int) -> list[int]:
    """Return ``count`` places in a text, evenly spread, each at the beginning of a word.

    Raises
    ------
    ValueError
        The text has too few different words to begin with.
    """
    found: list[int] = []
    begun: set[str] = set()
    for number in range(count):
        place = len(text) * number // count
        while True:
            place = _next_word(text, place)
            word = text[place : place + 12]
            if word not in begun:
                break
            place += 1
        begun.add(word)
        found.append(place)
    return found


def cut(text: str, start: int, n_tokens: int, count: Callable[[str], int]) -> int:
    """Return how many characters from ``start`` make ``n_tokens`` tokens, or a little less.

    Parameters
    ----------
    text
        Text to cut from; it is repeated if it is too short.
    count
        Counts the tokens of a text; each call may cost a request.
    """
    longest = passage(text, start, n_tokens * _MOST_CHARACTERS + 100)
    low, high = 0, len(longest)  # the longest cut known to fit, the shortest known not to
    low_count, per_token = 0, _CHARACTERS_PER_TOKEN
    for number in range(_TRIES):
        if high - low <= 1 or low_count == n_tokens:
            break
        if number % 3 == 2:  # halving ends where the text is too uneven for the rule of three
            guess = (low + high) // 2
        else:
            guess = low + round((n_tokens - low_count) * per_token)
        guess = min(max(guess, low + 1), high - 1)
        counted = count(longest[:guess])
        if counted <= n_tokens:
            per_token = guess / max(1, counted)
            low, low_count = guess, counted
        else:
            per_token = (guess - low) / (counted - low_count)
            high = guess
    return max(low, 1)


def passage(text: str, start: int, length: int) -> str:
    """Return ``length`` characters from ``start`` on; the text begins again at its end."""
    return (text[start:] + text * (length // len(text) + 1))[:length]


def passages(text: str, lengths: Sequence[int]) -> list[str]:
    """Return the prompts whose lengths in characters are given."""
    return [
        passage(text, start, length)
        for start, length in zip(starts(text, len(lengths)), lengths, strict=True)
    ]


def _next_word(text: str, place: int) -> int:
    for index in range(max(1, place), len(text) - 1):
        if text[index - 1].isspace() and text[index].isalpha():
            return index
    raise ValueError("The text is too short to take so many different prompts from it.")
