"""Take out of the built site what no page asks for: source maps, old font formats, catalogs.

It halves the site and, with the template that leaves out Font Awesome's script
(the theme's own fonts draw the icons), takes half a megabyte off every first visit.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_UNUSED = (
    "**/*.map",
    "**/*.ttf",
    "**/*.scss",
    "scripts/fontawesome.js*",
    "sbt-webpack-macros.html",
)
_UNUSED_FOLDERS = ("locales",)


def _trim(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for pattern in (*_UNUSED, "webpack-macros.html"):
        for path in static.glob(pattern):
            path.unlink()
    for folder in _UNUSED_FOLDERS:
        shutil.rmtree(static / folder, ignore_errors=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run after the pages are written."""
    # Jupyter Book sets this option of an extension that the book leaves out.
    app.add_config_value("comments_config", {}, "html")
    app.connect("build-finished", _trim)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
