"""A document says the same in every form, and nothing in it can break the form."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from guidebook import documents
from guidebook.documents import Code, Heading, Items, Paragraph
from guidebook.tables import table

BLOCKS = [
    Heading("A plan", 1),
    Paragraph("Some words."),
    Items(("one", "two")),
    Code("guidebook run"),
    table([{"name": "a|b", "size": None}, {"name": "<i>", "size": "2 GiB"}], "Sizes"),
]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_markdown_keeps_cells_apart_and_markup_out():
    text = documents.markdown(BLOCKS)
    assert "# A plan\n" in text
    assert "| a\\|b | unknown |" in text
    assert "\\<i\\>" in text
    assert "```console\nguidebook run\n```" in text


def test_text_writes_a_wide_table_row_by_row():
    wide = table([{"claim": "word " * 40, "evidence": "more " * 40}])
    narrow = documents.text([wide])
    assert max(map(len, narrow.splitlines())) <= 120
    assert "- evidence: more" in narrow
    assert "name" in documents.text(BLOCKS)


def test_a_page_is_whole_accessible_and_asks_no_other_host():
    text = documents.page(BLOCKS, "A <plan>")
    found = Page(text)
    names = [tag for tag, _ in found.tags]
    assert text.startswith("<!doctype html>")
    assert ("html", {"lang": "en"}) in found.tags
    assert "<title>A &lt;plan&gt;</title>" in text
    assert [names.count(tag) for tag in ("main", "h1", "caption")] == [1, 1, 1]
    assert not {"script", "link", "img", "iframe", "a", "i"} & set(names)
    assert all("href" not in given and "src" not in given for _, given in found.tags)
    assert all(given.get("scope") for tag, given in found.tags if tag == "th")
    regions = [given for _, given in found.tags if given.get("role") == "region"]
    assert [(one["tabindex"], one["aria-label"]) for one in regions] == [("0", "Sizes")]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@settings(max_examples=100)
def test_any_text_stays_text(words: str):
    blocks = [Paragraph(words), Items((words,)), table([{"x": words}], words)]
    names = [tag for tag, _ in Page(documents.html(blocks)).tags]
    assert set(names) <= {"p", "ul", "li", "div", "table", "caption", "thead", "tbody"} | {
        "tr",
        "th",
        "td",
    }
    # A table's row stays one line with its two outer bars, whatever the cell holds.
    shown = documents.markdown([table([{"x": words}])])
    rows = shown.rstrip("\n").split("\n")
    assert len(rows) == 3
    assert rows[2].replace("\\\\", "").replace("\\|", "").count("|") == 2
