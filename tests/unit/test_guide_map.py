"""Every section of the guide has its chapter and its claims, or a reason why not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from guidebook import claims, guide_map
from guidebook.claims import Claim

ROOT = Path(__file__).parents[2]


def test_no_section_is_uncovered_and_every_claim_names_one_of_the_guide():
    assert guide_map.gaps() == {}


def test_at_least_forty_claims_of_the_guide_are_in_the_ledger():
    assert len(claims.ledger()) >= 40
    # Several claims may test one statement, so the statements are counted too.
    assert len({claim.guide for claim in claims.ledger().values()}) >= 40


def test_every_claim_says_what_its_test_needs():
    assert all(claim.needs for claim in claims.ledger().values())


def test_the_sections_are_named_once_and_stand_below_one_another():
    sections = guide_map.sections()
    assert Counter(section.title for section in sections).most_common(1)[0][1] == 1
    assert sections[0].title == "Introduction"
    assert {section.level for section in sections} == {2, 3, 4}


def test_only_the_guides_part_on_mlops_is_to_come_and_it_belongs_to_part_5():
    to_come = {section.title: section.to_come for section in guide_map.sections()}
    assert {title: part for title, part in to_come.items() if part} == {
        "MLOps Best Practices for Seamless Transition": 5
    }


def test_every_chapter_of_the_book_is_on_the_map():
    chapters = {chapter for section in guide_map.sections() for chapter in section.chapters}
    assert chapters == {claim.chapter for claim in claims.ledger().values()}


@pytest.mark.parametrize(
    ("section", "wrong"),
    [("Introductions", "x-claim"), ("Synthesized Recommendations and Conclusion", None)],
)
def test_a_claim_of_another_section_and_a_note_that_is_not_needed_are_found(
    monkeypatch, section: str, wrong: str | None
):
    claim = Claim("x-claim", "11-your-machine", section, "", "", "", "a > 0", {"a": ""})
    ledger = {**claims.ledger(), claim.id: claim}
    monkeypatch.setattr(claims, "ledger", lambda: ledger)
    assert set(guide_map.gaps()) == {wrong or section}


def test_a_section_without_claims_is_found(monkeypatch):
    ledger = {k: c for k, c in claims.ledger().items() if c.section != "Introduction"}
    monkeypatch.setattr(claims, "ledger", lambda: ledger)
    assert guide_map.gaps() == {"Introduction": "has neither claims nor a note"}


def test_the_page_gives_each_section_a_place_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    sys.modules.pop("guide_map", None)
    import guide_map as page  # the directive, not the module of the package

    anchors = [page.anchor(section.title) for section in guide_map.sections()]
    assert len(set(anchors)) == len(anchors)
    said = [page.said(section) for section in guide_map.sections()]
    assert [bool(why) for why in said] == [not section.claims for section in guide_map.sections()]
    assert "Part 5, to come." in said
