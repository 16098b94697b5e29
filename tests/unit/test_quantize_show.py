"""Tables and figures of quantized models show the numbers that they were given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from guidebook import figures
from guidebook.measure import Measurement, Throughput
from guidebook.measure.weights_held import WeightsHeld
from guidebook.quantize import show

SEEN = SimpleNamespace(
    perplexity=20.09,
    log_perplexity_rise=0.05,
    log_perplexity_rise_error=0.01,
    kl_divergence=0.18,
    kl_divergence_error=0.02,
    top1_agreement=0.8,
    top1_agreement_error=0.03,
)
PARTS = ("a caption", "NF4", "20.09", "+0.0500 ± 0.0100", "0.1800 ± 0.0200", "80.0% ± 3.0%")


def _svg(figure):
    return figures.show(figure, name="test", alt="what it shows", caption="source").svg


def test_a_table_of_quality_has_a_row_for_each_kind_with_its_errors():
    text = str(show.quality_table({"NF4": SEEN}, "a caption"))
    for part in PARTS:
        assert part in text


def test_levels_are_named():
    scaled = np.linspace(-1, 1, 100)
    svg = _svg(show.levels(scaled, {"NF4": np.linspace(-1, 1, 16)}))
    assert "levels of NF4" in svg


@pytest.mark.parametrize("places", [None, {"NF4": (0, -20, "right")}])
def test_losses_and_speeds_are_named(places):
    figure = show.loss_and_speed({"NF4": (4.5, 0.18, 0.02)}, {"GGUF": 100.0}, places)
    svg = _svg(figure)
    assert "NF4" in svg
    assert "GGUF" in svg
    assert figure.axes[0].get_yscale() == "log"


def test_a_learning_curve_shows_both_losses():
    figure = show.learning_curve([3.0, 2.0], {0: (3.5, 0.1), 2: (2.0, 0.1)})
    assert "held out" in _svg(figure)
    assert figure.axes[0].get_ylim()[0] == 0


def test_a_table_of_weights_says_what_is_not_quantized():
    nf4 = WeightsHeld(1000, 500, 62, 2_000_000, 8_000_000)
    plain = WeightsHeld(0, 0, 0, 2_001_000, 8_004_000)
    quantized, unquantized = str(show.weights_table({"NF4": nf4, "fp32": plain}, "held")).split(
        "\n"
    )[-2:]
    for part in ("500 bytes", "62 bytes", "2.0 million weights", "4.00 MB"):
        assert part in quantized
    assert "–" in unquantized


def test_a_table_of_work_leaves_out_what_was_not_measured():
    rate = Measurement("tokens/s", (50.0,))
    speed = Throughput(4, 4, rate, rate, Measurement("s", (1.0,)))
    text = str(
        show.work_table(
            {"NF4": speed, "GGUF": speed},
            {"NF4": 4.5},
            {"NF4": 2**30, "GGUF": None},
            {"NF4": 1.0},
            "work",
        )
    )
    nf4, gguf = text.split("\n")[-2:]
    for part in ("4.50", "1.00 GiB", "1.00 s", "50.0 tokens/s"):
        assert part in nf4
    assert "–" in gguf
    assert "unknown" in gguf
