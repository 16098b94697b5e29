"""Take the empty header row off tables that need none.

Markdown has no table without a header, so a plain two-column list is written with an empty
one. A screen reader would announce those empty cells as the names of the columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class RemoveEmptyHeaders(SphinxTransform):
    """Remove every table head in which nothing is written."""

    default_priority = 500

    def apply(self, **kwargs: object) -> None:  # noqa: ARG002 - docutils calls it so
        """Change the document in place."""
        for head in list(self.document.findall(nodes.thead)):
            if not head.astext().strip():
                head.parent.remove(head)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.add_transform(RemoveEmptyHeaders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
