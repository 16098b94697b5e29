"""The charts show every point that they are given, where it belongs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guidebook import calibration, charts, figures
from guidebook.calibration import Check


@pytest.fixture(scope="module")
def checks() -> tuple[Check, ...]:
    found = calibration.observations()
    return tuple(Check(o, o.tokens_per_second * 1.1) for o in found)


def svg(figure: object) -> str:
    return figures.show(figure, name="x", alt="a", caption="c").svg  # type: ignore[arg-type]


def test_every_point_is_labelled_and_every_series_is_in_one_scatter() -> None:
    series = {"PC": {"A": (10.0, 700.0), "B": (24.0, 900.0)}, "Mac": {"C": (32.0, 120.0)}}
    figure, axes = charts.labelled(series, xlabel="x", ylabel="y")
    assert [text.get_text() for text in axes.texts] == ["A", "B", "C"]
    offsets = [tuple(map(tuple, part.get_offsets())) for part in axes.collections]
    assert offsets == [((10.0, 700.0), (24.0, 900.0)), ((32.0, 120.0),)]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert ">A<" in svg(figure)


def test_a_label_goes_where_it_is_placed() -> None:
    series = {"PC": {"A": (10.0, 700.0), "B": (24.0, 900.0)}}
    _, axes = charts.labelled(series, xlabel="x", ylabel="y", places={"A": (-7, 3, "right")})
    placed, beside = axes.texts
    assert (placed.xyann, placed.get_ha()) == ((-7, 3), "right")
    assert beside.get_ha() == "left"


def test_the_longest_interval_row_is_the_lowest_and_carries_its_text() -> None:
    series = {"PC": {"fast": (1.0, 2.0, 3.0)}, "Mac": {"slow": (20.0, 30.0, 50.0)}}
    figure, axes = charts.intervals(
        series, xlabel="seconds", texts={"fast": "2.00 s", "slow": "30.0 s"}
    )
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["slow", "fast"]
    assert [text.get_text() for text in axes.texts] == ["30.0 s", "2.00 s"]
    assert tuple(axes.lines[0].get_xdata()) == (20.0, 50.0)
    assert "30.0 s" in svg(figure)


def test_every_check_is_drawn_within_the_axes(checks: tuple[Check, ...]) -> None:
    figure = charts.predicted_against_measured(checks)
    drawn = 0
    for axes in figure.axes:
        low, high = axes.get_xlim()
        for part in axes.collections:
            points = part.get_offsets()
            drawn += len(points)
            assert all(low < value < high for point in points for value in point)
    assert drawn == len(checks)


def test_a_check_far_off_widens_the_axes(checks: tuple[Check, ...]) -> None:
    worst = replace(checks[0], predicted=1e6)
    figure = charts.predicted_against_measured((*checks, worst))
    assert max(axes.get_ylim()[1] for axes in figure.axes) > 1e6
