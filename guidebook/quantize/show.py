"""Tables and figures that compare quantized models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from guidebook import figures, units
from guidebook.tables import Table, table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from guidebook.measure import Quality, Throughput
    from guidebook.measure.weights_held import WeightsHeld

    Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

Place = tuple[float, float, str]

# Right of the mark, its middle at the mark's height: in points.
_BESIDE: Place = (9, -4, "left")


def quality_table(qualities: Mapping[str, Quality], caption: str) -> Table:
    """Make a table of perplexity, its rise, KL divergence and top-1 agreement, with errors."""
    rows = []
    for name, seen in qualities.items():
        rise, rise_error = seen.log_perplexity_rise, seen.log_perplexity_rise_error
        divergence, divergence_error = seen.kl_divergence, seen.kl_divergence_error
        rows.append(
            {
                "kind": name,
                "perplexity": f"{seen.perplexity:.2f}",
                "rise (nats)": f"{rise:+.4f} ± {rise_error:.4f}",
                "KL divergence (nats)": f"{divergence:.4f} ± {divergence_error:.4f}",
                "same top": f"{seen.top1_agreement:.1%} ± {seen.top1_agreement_error:.1%}",
            }
        )
    return table(rows, caption=caption)


def weights_table(held: Mapping[str, WeightsHeld], caption: str) -> Table:
    """Make a table of what loaded models hold, with the size if the rest were in 16 bits."""
    rows = []
    for name, one in held.items():
        quantized = one.quantized_bytes + one.scale_bytes
        rows.append(
            {
                "kind": name,
                "quantized": units.storage(one.quantized_bytes) if quantized else "–",
                "scales": units.storage(one.scale_bytes) if quantized else "–",
                "not quantized": f"{one.n_other / 1e6:.1f} million weights",
                "all, rest in 16 bits": units.storage(quantized + 2 * one.n_other),
            }
        )
    return table(rows, caption=caption)


def work_table(
    speeds: Mapping[str, Throughput],
    bits: Mapping[str, float],
    peaks: Mapping[str, int | None],
    seconds: Mapping[str, float],
    caption: str,
) -> Table:
    """Make a table of bits, peak memory, time until ready, prefill and decode, by kind.

    Parameters
    ----------
    speeds
        Names the rows. What another argument has not is shown as "–".
    bits
        Bits per weight while the model works.
    peaks
        Peak memory in bytes.
    seconds
        From the folder to a model that answers.
    """
    rows = [
        {
            "kind": name,
            "bits at work": f"{bits[name]:.2f}" if name in bits else "–",
            "peak": units.memory(peaks[name]) if name in peaks else "–",
            "ready after": units.duration(seconds[name]) if name in seconds else "–",
            "prefill": units.quantity(speed.prefill.median, "tokens/s"),
            "decode": units.quantity(speed.decode.median, "tokens/s"),
        }
        for name, speed in speeds.items()
    ]
    return table(rows, caption=caption)


def levels(scaled: Floats, grids: Mapping[str, Floats]) -> Figure:
    """Draw the distribution of scaled weights, and under it the levels that formats offer.

    Parameters
    ----------
    scaled
        Weights over the absmax of their block, any shape.
    grids
        The levels of each format, from −1 to 1.
    """
    import numpy as np

    figure, (axes,) = figures.new(height=3.4)
    axes.hist(np.ravel(scaled), bins=121, color=figures.COLORS[0], alpha=0.35)
    top = axes.get_ylim()[1]
    for row, (name, grid) in enumerate(grids.items()):
        axes.plot(
            grid,
            np.full(len(grid), -top * (0.06 + 0.09 * row)),
            color=figures.COLORS[1 + row],
            marker=figures.MARKERS[row],
            ls="",
            label=f"levels of {name}",
        )
    axes.axhline(0, lw=0.8, color="#888888", marker="")
    axes.set(xlabel="weight over its block's absmax", ylabel="weights")
    axes.set_yticks([])
    axes.legend(loc="upper right")
    return figure


def loss_and_speed(
    losses: Mapping[str, tuple[float, float, float]],
    speeds: Mapping[str, float],
    places: Mapping[str, Place] | None = None,
) -> Figure:
    """Draw KL divergence over bits per weight left, decode speed right.

    Parameters
    ----------
    losses
        By name: bits per weight, KL divergence in nats, its standard error.
    speeds
        By name: tokens per second; drawn from top to bottom.
    places
        Where a name goes if not right of its mark: right, up (in points), and the side of the
        text that lies there, ``left``, ``center`` or ``right``.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, (loss, pace) = figures.new(2, width=8.5)
    for number, (name, (bits, divergence, error)) in enumerate(losses.items()):
        marker = figures.MARKERS[number % len(figures.MARKERS)]
        loss.errorbar(bits, divergence, yerr=error, color=figures.COLORS[0], marker=marker)
        right, up, side = (places or {}).get(name, _BESIDE)
        at = (bits, divergence)
        loss.annotate(name, at, (right, up), textcoords="offset points", ha=side, fontsize=9)
    loss.set(xlabel="bits per quantized weight", ylabel="KL divergence (nats)", yscale="log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    loss.yaxis.set_minor_formatter(NullFormatter())
    names = list(speeds)[::-1]
    bars = pace.barh(names, [speeds[name] for name in names], color=figures.COLORS[1])
    pace.bar_label(bars, fmt="%.0f", padding=4, fontsize=9)
    pace.set(xlabel="decode (tokens/s)")
    pace.margins(x=0.15)
    return figure


def learning_curve(
    training: Sequence[float], held_out: Mapping[int, tuple[float, float]]
) -> Figure:
    """Draw the loss of each training step, and the held-out loss where it was taken.

    Parameters
    ----------
    training
        Loss of each step's batch, in nats per token.
    held_out
        By the number of steps before it: mean loss and its standard error.
    """
    figure, (axes,) = figures.new(height=3.4)
    steps = range(1, len(training) + 1)
    axes.plot(steps, training, color=figures.COLORS[0], marker="", label="training batch")
    axes.errorbar(
        list(held_out),
        [mean for mean, _ in held_out.values()],
        yerr=[error for _, error in held_out.values()],
        color=figures.COLORS[1],
        marker=figures.MARKERS[1],
        ls="",
        capsize=3,
        label="held out",
    )
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    return figure
