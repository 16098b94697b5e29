"""A figure reads in light and dark, and aloud; a table in every medium."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from guidebook import figures
from guidebook.tables import table


def _drawing():
    figure, (left, right) = figures.new(2)
    left.plot([1, 2], [3, 4], label="a line")
    left.legend()
    right.bar(["x"], [1])
    return figure


@pytest.fixture
def drawn():
    return _drawing()


def _shown(figure, name="demo", alt="The line rises from 3 to 4."):
    return figures.show(figure, name=name, alt=alt, caption="Made up, 1 run.")


def test_a_figure_carries_its_sentence_and_its_caption(drawn):
    shown = _shown(drawn)
    assert '<title id="demo-title">The line rises from 3 to 4.</title>' in shown.svg
    assert "<figcaption>Made up, 1 run.</figcaption>" in shown._repr_html_()
    assert "The line rises" in str(shown)


@pytest.mark.parametrize(
    ("alt", "caption", "name"), [("", "c", "x"), ("a", " ", "x"), ("a", "c", "X y")]
)
def test_a_figure_without_its_sentence_is_refused(drawn, alt, caption, name):
    with pytest.raises(ValueError, match=r"needs an alternative text|cannot name a figure"):
        figures.show(drawn, name=name, alt=alt, caption=caption)


def test_the_svg_is_well_formed_and_its_text_takes_the_pages_colour(drawn):
    shown = _shown(drawn, alt="a < b & c")
    ET.fromstring(shown.svg)
    assert "#010203" not in shown.svg
    assert "currentColor" in shown.svg
    assert "<style" not in shown.svg
    assert "#000000" not in shown.svg


def test_two_figures_on_a_page_share_no_id_and_every_reference_resolves(drawn):
    first, second = _shown(drawn, "first").svg, _shown(drawn, "second").svg
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        used = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^")]+)', svg)
        assert used
        assert set(used) <= known


def test_the_same_figure_is_drawn_the_same_twice():
    assert _shown(_drawing()).svg == _shown(_drawing()).svg


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("color", figures.COLORS)
@pytest.mark.parametrize("background", ["#ffffff", "#121212"])
def test_every_colour_has_contrast_of_three_on_light_and_dark(color, background):
    bright, dark = sorted((_luminance(color), _luminance(background)), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 3


ROWS = [{"format": "Q8_0 <b>", "decode": "104 tokens/s"}, {"format": "F16", "decode": None}]


def test_a_table_reads_as_text_with_unknowns_named():
    text = str(table(ROWS, caption="Speed"))
    assert text.splitlines()[0] == "Speed"
    assert "104 tokens/s" in text
    assert "unknown" in text


def test_a_table_in_html_has_column_heads_and_escapes_its_cells():
    html = table(ROWS, caption="Speed")._repr_html_()
    assert html.count('scope="col"') == 2
    assert "&lt;b&gt;" in html
    assert "<caption>Speed</caption>" in html
    ET.fromstring(html)


def test_numbers_stand_right_and_words_left():
    html = table([{"word": "a", "number": "1.5 GiB"}])._repr_html_()
    assert re.search(r'text-align: left">a<', html)
    assert re.search(r'text-align: right">1.5 GiB<', html)


def test_a_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        table([])
