"""The ``chapter-list`` directive: every chapter with its promise and what its claims came to.

It reads the notebooks themselves, so a new chapter appears without an edit here, and the
results of the run that the site is built from where there are any.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

_OUTCOMES = {"held": "held", "refuted": "refuted", "not tested here": "not tested"}
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ROLE = re.compile(r"\{[a-z:-]+\}`([^`<]*?)(?: <[^`]*>)?`")


def promise(notebook: Path) -> str:
    """Return a chapter's first paragraph as text without links."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    first = next((cell for cell in cells if cell["cell_type"] == "markdown"), {"source": ""})
    source = "".join(first["source"])
    paragraphs = [part.strip() for part in source.split("\n\n")]
    text = next((part for part in paragraphs if part and part[0] not in "#:`(+-*|"), "")
    return _ROLE.sub(r"\1", _LINK.sub(r"\1", text))


def verdicts(results: Path) -> str:
    """Return "2 claims held, 1 refuted" for a chapter's results file, or "" without one."""
    if not results.exists():
        return ""
    claims = json.loads(results.read_text(encoding="utf-8"))["claims"]
    counts = Counter(claim["outcome"] for claim in claims)
    parts = [f"{counts[name]} {shown}" for name, shown in _OUTCOMES.items() if counts[name]]
    if not parts:
        return ""
    number, _, rest = parts[0].partition(" ")
    noun = "claim" if number == "1" else "claims"
    return ", ".join([f"{number} {noun} {rest}", *parts[1:]])


def hardware(results: list[Path]) -> str:
    """Return the machine of a run in a phrase, or "" where it is not known."""
    for path in results:
        machine = json.loads(path.read_text(encoding="utf-8")).get("machine", {})
        cpu, memory = machine.get("cpu") or {}, machine.get("memory") or {}
        parts = [cpu.get("model") or "a CPU of unknown model"]
        if cpu.get("usable_cores") is not None:
            parts.append(f"{cpu['usable_cores']:g} usable cores")
        if memory.get("effective_total_bytes") is not None:
            parts.append(f"{memory['effective_total_bytes'] / 2**30:.0f} GiB of memory")
        gpus = [gpu["name"] for gpu in machine.get("gpus") or []]
        parts.append(", ".join(gpus) or "no GPU")
        return ", ".join(parts)
    return ""


class ChapterList(SphinxDirective):
    """List the chapters in the order of their numbers."""

    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return a definition list, and a line on the machine that built the site."""
        source = Path(self.env.srcdir)
        self.env.note_dependency(str(source / "notebooks"))
        notebooks = sorted((source / "notebooks").glob("[1-7][0-9]-*.ipynb"))
        results = [source / "results" / f"{notebook.stem}.json" for notebook in notebooks]
        items = nodes.definition_list(classes=["chapter-list"])
        for notebook, result in zip(notebooks, results, strict=True):
            for path in (notebook, result):
                self.env.note_dependency(str(path))
            items += self._item(notebook, verdicts(result))
        machine = hardware([path for path in results if path.exists()])
        if not machine:
            return [items]
        built = nodes.paragraph("", f"The machine behind this site: {machine}.")
        return [items, built]

    def _item(self, notebook: Path, outcome: str) -> nodes.definition_list_item:
        link = addnodes.pending_xref(
            "",
            nodes.inline("", notebook.stem),
            refdoc=self.env.docname,
            refdomain="std",
            reftype="doc",
            reftarget=f"/notebooks/{notebook.stem}",
            refexplicit=False,
            refwarn=True,
        )
        term = nodes.term("", "", nodes.inline("", f"{notebook.stem[:2]} · "), link)
        body = nodes.definition()
        body += list(self._markdown(promise(notebook)))
        if outcome:
            body += nodes.paragraph(
                "", f"In the run behind this site: {outcome}.", classes=["chapter-verdicts"]
            )
        return nodes.definition_list_item("", term, body)

    def _markdown(self, text: str) -> Iterator[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), "chapter-list"), 0, holder)
        yield from holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("chapter-list", ChapterList)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
