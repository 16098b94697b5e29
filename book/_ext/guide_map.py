"""The ``guide-map`` directive: the guide's sections, the chapters that treat them, the claims.

Its argument says which part: ``sections`` is a table, ``claims`` the list of claims by section.
Both are made of the ledger at every build, so a new claim appears without an edit here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sphinx.application import Sphinx

    from guidebook.guide_map import Section

_KINDS = ("sections", "claims")
_CELLS = ("section of the guide", "chapters", "claims")


def anchor(title: str) -> str:
    """Return a section's place on the page."""
    return "guide-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def said(section: Section) -> str:
    """Return why a section has no claims; empty where it has some."""
    return f"Part {section.to_come}, to come." if section.to_come else section.note


class GuideMap(SphinxDirective):
    """Show where the guide's sections are in the book."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {"caption": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the table or the list."""
        from guidebook import guide_map

        kind = directives.choice(self.arguments[0], _KINDS)
        sections = guide_map.sections()
        if kind == "sections":
            return [self._table(sections)]
        return [self._list([section for section in sections if section.claims])]

    def _table(self, sections: Sequence[Section]) -> nodes.table:
        group = nodes.tgroup(cols=len(_CELLS))
        group += [nodes.colspec(colwidth=1) for _ in _CELLS]
        group += nodes.thead("", _row([nodes.Text(name) for name in _CELLS]))
        body = nodes.tbody()
        for section in sections:
            title: nodes.Node = nodes.inline("", section.title)
            if section.claims:
                title = nodes.reference(
                    "", section.title, internal=True, refid=anchor(section.title)
                )
            if section.level == 2:
                title = nodes.strong("", "", title)
            if why := said(section):
                title = nodes.inline("", "", title, nodes.Text(": "), nodes.emphasis("", why))
            links = nodes.inline()
            for number, chapter in enumerate(section.chapters):
                links += ([nodes.Text(", ")] if number else []) + [self._link(chapter, chapter[:2])]
            count = str(len(section.claims)) if section.claims else "–"
            body += _row([title, links, nodes.Text(count)])
        group += body
        caption = nodes.title("", self.options.get("caption", "Sections of the guide"))
        return nodes.table("", caption, group, classes=["colwidths-auto"])

    def _list(self, sections: Sequence[Section]) -> nodes.definition_list:
        items = nodes.definition_list(classes=["guide-map"])
        for section in sections:
            term = nodes.term("", section.title, ids=[anchor(section.title)])
            points = nodes.bullet_list()
            for claim in section.claims:
                text = nodes.paragraph("", "", self._link(claim.chapter, claim.chapter[:2]))
                text += nodes.Text(f" · {claim.statement} The guide: ")
                text += nodes.emphasis("", f"“{claim.guide}”")
                points += nodes.list_item("", text)
            items += nodes.definition_list_item("", term, nodes.definition("", points))
        return items

    def _link(self, chapter: str, text: str) -> nodes.Node:
        document = f"notebooks/{chapter}"
        if document not in self.env.found_docs:  # the ledger knows more chapters than this book has
            return nodes.inline("", text)
        return addnodes.pending_xref(
            "",
            nodes.inline("", text),
            refdoc=self.env.docname,
            refdomain="std",
            reftype="doc",
            reftarget=f"/{document}",
            refexplicit=True,
            refwarn=False,
        )


def _row(cells: Sequence[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("guide-map", GuideMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
