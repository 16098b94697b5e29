"""Costs as tables and figures: what a chapter shows of what it has computed."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from guidebook import figures
from guidebook.catalog.clouds import Offer
from guidebook.catalog.prices import Price
from guidebook.cost import break_even
from guidebook.cost.break_even import Comparison
from guidebook.cost.ownership import Ownership
from guidebook.cost.renting import Bill
from guidebook.cost.sensitivity import Bar, Outcome
from guidebook.tables import Table, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

_NONE = "–"
_ITEMS = {
    "price": "purchase_usd",
    "upgrades": "upgrades_usd",
    "electricity at work": "electricity_usd",
    "electricity while it waits": "idle_electricity_usd",
    "your time": "time_usd",
    "interest": "interest_usd",
    "sold at the end": "resale_usd",
    "work": "work_usd",
    "start": "startup_usd",
    "rounding": "rounding_usd",
    "interruptions": "interruption_usd",
    "forgotten or unused": "idle_usd",
    "storage": "storage_usd",
    "egress": "egress_usd",
}


def months(count: float | None) -> str:
    """Write how long it takes until a purchase has paid: ``11 months``, ``4.2 years``."""
    if count is None:
        return "not within 10 years"
    if count >= 24:
        return f"{count / 12:.1f} years"
    return f"{count:.0f} months" if count >= 1.5 else "1 month or less"


def day(price: Price | Offer) -> str:
    """Write the date of a price so that it stays in one line."""
    return price.dated.replace("-", "\u2011")


def items(columns: Mapping[str, Ownership] | Mapping[str, Bill], caption: str) -> Table:
    """Show costs item by item, with the total and what an hour of work costs.

    Items that are zero everywhere are left out. What selling brings is taken off.

    Parameters
    ----------
    columns
        Totals of owning, or bills, by the column's name.
    caption
        Of the table.
    """

    def row(name: str, values: Iterable[float | None], decimals: int) -> dict[str, str]:
        shown = [_NONE if value is None else f"{value:,.{decimals}f}" for value in values]
        return {"item (USD)": name} | dict(zip(columns, shown, strict=True))

    decimals = 0 if max(one.total_usd for one in columns.values()) >= 100 else 2
    rows = []
    for name, key in _ITEMS.items():
        sign = -1 if key == "resale_usd" else 1
        values = [sign * getattr(one, key, 0.0) for one in columns.values()]
        if any(values):
            rows.append(row(name, values, decimals))
    rows.append(row("total", [one.total_usd for one in columns.values()], decimals))
    rows.append(row("per GPU hour", [one.usd_per_gpu_hour for one in columns.values()], 3))
    return table(rows, caption)


def chosen(
    offers: Sequence[Offer], providers: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], Offer | None]:
    """Return for each provider and class of GPU the first offer.

    Parameters
    ----------
    offers
        In the order of preference.
    providers
        Names of providers.
    classes
        By the name of a class: words that the GPU's name must have, ``A100 80GB``, one or more
        such texts.
    """
    return {
        (provider, name): next(
            (
                offer
                for offer in offers
                if offer.provider == provider
                and any(set(words.split()) <= set(offer.gpu.split()) for words in wanted)
            ),
            None,
        )
        for provider in providers
        for name, wanted in classes.items()
    }


def price_table(found: Mapping[tuple[str, str], Offer | None], caption: str) -> Table:
    """Show the prices of :func:`chosen` with their dates, a row for each provider."""
    rows: dict[str, dict[str, str]] = {}
    for (provider, name), offer in found.items():
        rows.setdefault(provider, {"provider": provider})[name] = _price(offer)
    return table(list(rows.values()), caption)


def age_table(found: Iterable[Offer | None], today: datetime.date, caption: str) -> Table:
    """Show how old prices are on a day, and whose page they stand on, the newest first."""
    known = {offer for offer in found if offer is not None}
    return table(
        [
            {
                "offer": f"{offer.gpu}, {offer.provider}, {offer.tier}",
                "age": f"{offer.age_days(today):,} days",
                "old": "yes" if offer.is_stale(today) else "no",
                "source": _place(offer.source),
            }
            for offer in sorted(known, key=lambda offer: (offer.age_days(today), offer.gpu))
        ],
        caption,
    )


def discount_table(offers: Sequence[Offer], caption: str) -> Table:
    """Show spot and reserved prices as shares of the price on demand in the same year.

    Of the same GPU at the same provider; an offer without such a price is left out.
    """
    shares = {}
    for offer in offers:
        if offer.tier in ("spot", "reserved"):
            base = [
                other.usd_per_gpu_hour
                for other in offers
                if other.tier == "on-demand"
                and (other.gpu, other.provider) == (offer.gpu, offer.provider)
                and other.as_of.year == offer.as_of.year
            ]
            if base:
                shares[offer] = offer.usd_per_gpu_hour / min(base)
    return table(
        [
            {
                "GPU": offer.gpu,
                "provider": offer.provider,
                "tier": offer.tier,
                "year": str(offer.as_of.year),
                "of the price on demand": f"{share:.0%}",
            }
            for offer, share in sorted(shares.items(), key=lambda item: item[1])
        ],
        caption,
    )


def payback_table(
    comparisons: Mapping[str, Comparison], within_months: float, caption: str
) -> Table:
    """Show when a purchase pays against several rentals, and from how many hours on soon."""
    rows = []
    for name, one in comparisons.items():
        hours = break_even.hours_per_week(one, within_months)
        sold = break_even.Comparison(
            one.purchase, one.rental, one.use, one.conditions, True, one.within_months
        )
        rows.append(
            {
                "instead of renting": name,
                "rent (USD a month)": f"{one.rented().at(1):.0f}",
                "pays after": months(one.month()),
                f"within {within_months:g} months from": _NONE
                if hours is None
                else f"{hours:.0f} h a week",
                "if sold, after": months(sold.month()),
            }
        )
    return table(rows, caption)


def outcome_table(outcomes: Mapping[str, Outcome], within_months: float, caption: str) -> Table:
    """Show how draws of uncertain prices come out: quantiles in months, and shares."""
    return table(
        [
            {
                "case": name,
                **{f"{share:.0%} by month": _quantile(one, share) for share in (0.05, 0.5, 0.95)},
                f"within {within_months:g} months": f"{one.share_within(within_months):.0%}",
                "never": f"{one.share_never:.0%}",
            }
            for name, one in outcomes.items()
        ],
        caption,
    )


def tornado(bars: Sequence[Bar], labels: Mapping[str, str], middle: float) -> MatplotlibFigure:
    """Draw what one parameter at a time does to a break-even, the largest effect on top.

    Parameters
    ----------
    bars
        As :func:`guidebook.cost.sensitivity.tornado` returns them.
    labels
        Names of the parameters for the reader, with units.
    middle
        The break-even in months with every parameter in its place.
    """
    figure, (axes,) = figures.new(height=1.2 + 0.38 * len(bars))
    for y, bar in enumerate(reversed(bars)):
        ends = ((bar.low, bar.months_at_low), (bar.high, bar.months_at_high))
        for (value, at), color in zip(ends, figures.COLORS, strict=False):
            reach = bar.within_months if at is None else at
            axes.barh(y, reach - middle, left=middle, color=color, height=0.6)
            text = f"{value:,.3g}" if at is not None else f"{value:,.3g}: never"
            right = reach >= middle
            axes.annotate(
                text,
                (reach, y),
                (5 if right else -5, 0),
                textcoords="offset points",
                va="center",
                ha="left" if right else "right",
                fontsize=9,
            )
    axes.axvline(middle, color="#888888", lw=1, marker="")
    axes.set_yticks(range(len(bars)), [labels[bar.name] for bar in reversed(bars)])
    axes.margins(x=0.14)
    axes.set(xlabel="break-even (months)")
    return figure


def tornado_in_words(bars: Sequence[Bar], labels: Mapping[str, str]) -> str:
    """Say what :func:`tornado` draws."""
    return "; ".join(
        f"{labels[bar.name]} from {bar.low:,.3g} to {bar.high:,.3g}: "
        f"{months(bar.months_at_low)} to {months(bar.months_at_high)}"
        for bar in bars
    )


def shares(outcomes: Mapping[str, Outcome]) -> MatplotlibFigure:
    """Draw which share of the draws has paid by each month."""
    figure, (axes,) = figures.new(height=4)
    for name, one in outcomes.items():
        y = [100 * count / one.n_draws for count in range(1, len(one.months) + 1)]
        axes.plot(one.months, y, label=name, markevery=max(1, len(y) // 8))
        axes.set(xlim=(0, one.within_months), ylim=(0, 100))
    axes.set(xlabel="months", ylabel="share of draws that have paid (%)")
    axes.legend(loc="lower right")
    return figure


def _place(source: str) -> str:
    """Return whose page a source is: the repository or data set, else the host."""
    for host in ("github.com", "githubusercontent.com", "huggingface.co/datasets"):
        if match := re.search(rf"{host}/([\w.-]+/[\w.-]+)", source):
            return match[1]
    match = re.search(r"https?://(?:www\.)?([^/\s]+)", source)
    return match[1] if match else source


def _price(offer: Offer | None) -> str:
    if offer is None:
        return _NONE
    count = f"{offer.n_gpus} × " if offer.n_gpus > 1 else ""
    return f"{count}{offer.usd_per_gpu_hour:.2f} ({day(offer)})"


def _quantile(outcome: Outcome, share: float) -> str:
    found = outcome.quantile(share)
    return _NONE if found is None else f"{found:.0f}"
