"""What is calibrated on is not what is scored."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guidebook import texts

# Few words, so that paragraphs repeat; blank lines of several kinds.
WORDS = st.sampled_from(["one", "two", "three.", "one\ntwo"])
PARAGRAPHS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), max_size=20)
GAPS = st.sampled_from(["\n\n", "\n \n", "\n\n\n", "\n"])


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def shingles(text: str, n: int = 12) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@given(PARAGRAPHS, GAPS)
def test_the_two_parts_share_no_paragraph_and_lie_in_order(tmp_path_factory, parts, gap):
    path = tmp_path_factory.mktemp("text") / "own.txt"
    path.write_text(gap.join(parts), encoding="utf-8")
    whole = texts.load(str(path))
    scored = texts.evaluation(str(path))
    assert whole.startswith(scored)
    assert len(scored) >= len(whole) * 2 // 3
    try:
        calibration = texts.calibration(str(path))
    except ValueError:
        # Then the rest only repeats what is scored.
        assert set(paragraphs(whole[len(scored) :])) <= set(paragraphs(scored))
        return
    assert calibration.strip()
    assert not set(paragraphs(calibration)) & set(paragraphs(scored))
    rest = iter(paragraphs(whole[len(scored) :]))
    assert all(one in rest for one in paragraphs(calibration))


@given(st.text(min_size=1, max_size=200))
def test_the_scored_part_begins_any_text(tmp_path_factory, text):
    assume("\r" not in text)  # a file that is read as text gives line ends in one form
    path = tmp_path_factory.mktemp("text") / "own.txt"
    path.write_text(text, encoding="utf-8")
    assert text.startswith(texts.evaluation(str(path)))


def test_the_book_s_text_is_scored_where_it_was_and_calibrated_elsewhere():
    whole, scored = texts.load("python-topics"), texts.evaluation("python-topics")
    calibration = texts.calibration("python-topics")
    assert whole.startswith(scored)
    assert 0.66 < len(scored) / len(whole) < 0.68
    assert len(calibration) > 60_000
    # The articles quote each other: cutting alone shares whole passages, the two parts do not.
    rest = shingles(whole[len(scored) :])
    assert len(rest & shingles(scored)) > 0.05 * len(rest)
    assert len(shingles(calibration) & shingles(scored)) < 0.002 * len(shingles(calibration))


def test_no_sentence_is_cut_where_the_parts_meet():
    assert texts.evaluation("python-topics").endswith("\n\n")


def test_a_text_that_only_repeats_itself_has_nothing_to_calibrate_on(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("Again and again.\n\n" * 30, encoding="utf-8")
    with pytest.raises(ValueError, match="no paragraph of its own"):
        texts.calibration(str(path))


def test_an_empty_text_is_refused_only_for_calibration(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("", encoding="utf-8")
    assert texts.evaluation(str(path)) == ""
    with pytest.raises(ValueError, match="longer text"):
        texts.calibration(str(path))
