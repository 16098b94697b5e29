"""Figures that read in light and dark, on paper and aloud.

A figure is shown as inline SVG whose text and axes take the page's own text colour, so one
figure serves every theme. It always carries a sentence for readers who cannot see it.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

# Mid-tones with at least 3:1 contrast against white and against the site's dark background,
# told apart by readers with colour-vision deficiency (after Okabe and Ito, 2008).
COLORS = ("#0f7fc0", "#d1660a", "#0f9d76", "#c0589a", "#8d7f2f", "#6f7fd0")
MARKERS = ("o", "s", "^", "D", "v", "P")

# A colour that no figure uses otherwise: it marks what shall take the page's text colour.
_INK = "#010203"
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 11,
    "font.family": "sans-serif",
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be searched
}


@dataclass(frozen=True)
class Figure:
    """A finished figure: SVG for the page, a sentence for everyone else."""

    name: str
    svg: str
    alt: str
    caption: str

    def _repr_html_(self) -> str:
        return (
            f'<figure class="guidebook-figure" id="{self.name}">{self.svg}'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def __str__(self) -> str:
        return f"[Figure: {self.alt}]\n{self.caption}"

    __repr__ = __str__


def new(
    n_columns: int = 1, *, width: float = 7.0, height: float = 3.8
) -> tuple[MatplotlibFigure, list[Axes]]:
    """Start a figure with ``n_columns`` plots side by side, in the book's style (inches)."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure as MatplotlibFigure

    # For the whole process: a legend or label that the chapter adds later must match.
    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLORS, marker=MARKERS)}
    mpl.rcParams.update(style)
    # Made without pyplot: nothing is shown by itself, and nothing piles up in memory.
    figure = MatplotlibFigure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, n_columns, squeeze=False)[0])


def show(figure: MatplotlibFigure, *, name: str, alt: str, caption: str) -> Figure:
    """Finish a figure for display.

    Parameters
    ----------
    figure
        From :func:`new`.
    name
        Unique in the chapter, lower case with hyphens; also the figure's anchor on the page.
    alt
        What the figure shows, for readers who cannot see it: the finding and its numbers.
    caption
        What is plotted, with units, origin and repetitions.

    Raises
    ------
    ValueError
        ``alt`` or ``caption`` is empty, or ``name`` cannot be an anchor.
    """
    if not alt.strip() or not caption.strip():
        raise ValueError("A figure needs an alternative text and a caption.")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"{name!r} cannot name a figure; use lower-case words and hyphens.")
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(name, _page_ready(buffer.getvalue(), name, alt), alt, caption)


def _page_ready(svg: str, name: str, alt: str) -> str:
    """Turn matplotlib's SVG document into an element of a page."""
    body = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="[^"]+"', body)
    if view_box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox.")
    opening = body.index(">") + 1
    inner = re.sub(r"<metadata>.*?</metadata>", "", body[opening:], flags=re.DOTALL)
    # Ids must be unique on a page that holds several figures.
    inner = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', inner)
    inner = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", inner)
    inner = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', inner)
    inner = inner.replace(_INK, "currentColor")
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL)
    # matplotlib's style sheet would apply to the whole page; its two rules go on the root.
    inner = re.sub(r"<style.*?</style>", "", inner, flags=re.DOTALL)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{name}-title" '
        f'{view_box[0]} style="width: 100%; height: auto; color: inherit" '
        f'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{name}-title">{escape(alt)}</title>{inner}'
    )
