"""The figures that compare machines: labelled marks, intervals, predicted against measured.

Each function draws into the book's style and hands the figure back unfinished, so that a chapter
can add to it and say what it shows (:func:`guidebook.figures.show`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guidebook import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

    from guidebook.calibration import Check

Point = tuple[float, float]
Place = tuple[float, float, str]

# Right of the mark, its middle at the mark's height: in points.
_BESIDE: Place = (8, -4, "left")
_GREY = "#888888"
_KINDS = {
    "NVIDIA": ("nvidia",),
    "Apple": ("apple",),
    "AMD and Intel": ("amd", "intel"),
    "CPU": ("memory",),
}


def labelled(
    series: Mapping[str, Mapping[str, Point]],
    *,
    xlabel: str,
    ylabel: str,
    places: Mapping[str, Place] | None = None,
) -> tuple[MatplotlibFigure, Axes]:
    """Draw marks with their names on logarithmic axes.

    Parameters
    ----------
    series
        By the legend's name: points by their label.
    xlabel, ylabel
        Names of the axes, with their units.
    places
        Where a label goes if not beside its mark: right, up (in points), and the side of the text
        that lies there, ``left`` or ``right``.
    """
    figure, (axes,) = figures.new(width=7, height=4.8)
    for index, (name, points) in enumerate(series.items()):
        axes.scatter(
            [x for x, _ in points.values()],
            [y for _, y in points.values()],
            s=48,
            color=figures.COLORS[index],
            marker=figures.MARKERS[index],
            label=name,
        )
        for label, point in points.items():
            right, up, side = (places or {}).get(label, _BESIDE)
            axes.annotate(
                label, point, (right, up), textcoords="offset points", ha=side, fontsize=10
            )
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def intervals(
    series: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    xlabel: str,
    texts: Mapping[str, str],
) -> tuple[MatplotlibFigure, Axes]:
    """Draw values with their intervals as rows, the largest value below, on a logarithmic axis.

    Parameters
    ----------
    series
        By the legend's name: low end, value, high end by label.
    xlabel
        Name of the axis, with its unit.
    texts
        What to write beside each row.
    """
    colors = dict(zip(series, figures.COLORS, strict=False))
    rows = sorted(
        (
            (values, label, name)
            for name, group in series.items()
            for label, values in group.items()
        ),
        key=lambda row: -row[0][1],
    )
    figure, (axes,) = figures.new(width=7, height=1.2 + 0.27 * len(rows))
    for y, ((low, value, high), label, name) in enumerate(rows):
        axes.plot((low, high), (y, y), color=colors[name], marker="", lw=5, alpha=0.35)
        axes.plot(value, y, color=colors[name], marker="o")
        axes.annotate(texts[label], (high, y), (7, -3), textcoords="offset points", fontsize=9)
    for name, color in colors.items():
        axes.plot([], [], color=color, marker="o", ls="", label=name)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.set(xscale="log", xlabel=xlabel)
    axes.margins(x=0.12)
    axes.legend(loc="upper right")
    return figure, axes


def predicted_against_measured(checks: Sequence[Check]) -> MatplotlibFigure:
    """Draw every check of a calibration, decode left and prefill right, by the chip's maker."""
    figure, panels = figures.new(2, width=8, height=4.2)
    for axes, phase in zip(panels, ("decode", "prefill"), strict=True):
        here = [check for check in checks if check.observation.phase == phase]
        for index, (kind, vendors) in enumerate(_KINDS.items()):
            chosen = [check for check in here if check.observation.device.vendor in vendors]
            axes.scatter(
                [check.observation.tokens_per_second for check in chosen],
                [check.predicted for check in chosen],
                s=20,
                color=figures.COLORS[index],
                marker=figures.MARKERS[index],
                label=kind if phase == "decode" else None,
            )
        speeds = [s for c in here for s in (c.predicted, c.observation.tokens_per_second)]
        ends = (min(speeds) / 2, max(speeds) * 2)
        axes.plot(ends, ends, color=_GREY, marker="", lw=1)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, title=phase)
        axes.set(xlabel="measured (tokens/s)", ylabel="predicted (tokens/s)")
    figure.legend(loc="outside upper center", ncols=len(_KINDS))
    return figure
