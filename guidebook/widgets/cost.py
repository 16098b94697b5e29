"""Buy a card or rent one: an answer, drop-down lists in JupyterLab, a calculator on a page.

:func:`compare` is the whole answer and needs no widget. :class:`Controls` puts lists around it in
JupyterLab. :class:`Calculator` is HTML with a small ES module that does the same arithmetic in the
browser (``cost.js``), so that a published page answers without Python.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from guidebook import upgrade
from guidebook.catalog import clouds, hardware
from guidebook.catalog.clouds import Offer
from guidebook.catalog.hardware import Device
from guidebook.catalog.prices import Price
from guidebook.cost import break_even, depreciation, ownership, renting, show
from guidebook.cost.break_even import Comparison
from guidebook.cost.depreciation import Depreciation
from guidebook.cost.ownership import Conditions, Purchase
from guidebook.cost.renting import Rental
from guidebook.cost.use import Use
from guidebook.tables import Table, table

# How long a card is kept, and how far the curves go.
MONTHS = 36.0
# A rented machine is paid from its start on; before work begins it loads software and a model.
# An assumption, and a cautious one where a model is downloaded each time.
STARTUP_MINUTES = 10.0
HOURS_PER_SESSION = 2.0
# A residential price: the mean of the USA (EIA, Electric Power Monthly, table 5.6.A, in April
# 2026: 18.72 cents).
USD_PER_KWH = 0.187
# What eBay keeps of the price of electronics, 13.25 to 14.6 % by category (BundleLive, February
# 2026, https://bundlelive.com/blog/ebay-seller-fees-explained-2026).
SELLING_FEE = 0.14


@dataclass(frozen=True)
class Question:
    """What to compare.

    Attributes
    ----------
    gpu
        What is bought: a name of :func:`cards`.
    provider
        Who rents out: a name of :func:`providers`.
    hours_per_week
        Hours of work, on the card that is bought.
    usd_per_kwh
        Price of electricity.
    usd, load_w
        Price and power of the card; None: the price list's and the rated one.
    usd_per_gpu_hour, speed
        Price of the rented GPU, and how many times as fast it works; None: the price list's, and
        what the memory bandwidths say.
    startup_minutes
        Paid time at the start of every session of two hours.
    """

    gpu: str = "GeForce RTX 3090"
    provider: str = "RunPod"
    hours_per_week: float = 10.0
    usd_per_kwh: float = USD_PER_KWH
    usd: float | None = None
    load_w: float | None = None
    usd_per_gpu_hour: float | None = None
    speed: float | None = None
    startup_minutes: float = STARTUP_MINUTES


@dataclass(frozen=True)
class Answer:
    """What both sides cost, in US dollars.

    Attributes
    ----------
    rent_per_month, electricity_per_month
        What is paid evenly: for renting all of it, for owning the electricity at work.
    months
        Until owning has cost no more than renting; None: not within ten years.
    own_usd, rent_usd
        Over three years: the purchase and the electricity less what selling brings, and the rent.
    own_per_hour, rent_per_hour
        The same for each hour of work on the card; None if it never works.
    hours_for_a_year
        Weekly hours from which the card has paid for itself within a year; None: no number does.
    """

    rent_per_month: float
    electricity_per_month: float
    months: float | None
    own_usd: float
    rent_usd: float
    own_per_hour: float | None
    rent_per_hour: float | None
    hours_for_a_year: float | None


def cards() -> Mapping[str, Price]:
    """Return what can be bought: devices with a price, a rated power and something to rent."""
    found = {d.name: _price(d) for d in hardware.every()}
    return {
        name: price
        for name, price in sorted(found.items())
        if price is not None and providers(name)
    }


def providers(gpu: str, path: Path | str | None = None) -> Mapping[str, Offer]:
    """Return by provider the cheapest single GPU with at least as much memory as a card.

    On demand, the provider's own or a third party's machine: nothing that is taken away or paid
    for a term.

    Parameters
    ----------
    gpu
        A name of the hardware catalog.
    path
        The reader's own prices, as for :func:`guidebook.catalog.clouds.history`.
    """
    device = hardware.find(gpu)
    found: dict[str, Offer] = {}
    for offer in clouds.offers(n_gpus=1, least_memory_bytes=device.memory_bytes or 0, path=path):
        if offer.is_firm:
            found.setdefault(offer.provider, offer)
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def speed_of(offer: Offer, gpu: str) -> float:
    """Return how many times as fast a rented GPU writes, by memory bandwidth, to two digits.

    Writing text reads the weights once for each token; where the work is arithmetic, as in
    training, the ratio is another. Of a GPU whose form is not known the slowest counts.
    """
    own, rented = hardware.find(gpu), offer.device
    words = set(offer.gpu.casefold().split())
    forms = [rented] if rented else [d for d in hardware.every() if words <= _words(d)]
    return round(min(form.bandwidth for form in forms) / own.bandwidth, 2) if forms else 1.0


def comparison(question: Question, path: Path | str | None = None) -> Comparison:
    """Return a question in the terms of :mod:`guidebook.cost`.

    Parameters
    ----------
    question
        What to compare.
    path
        The reader's own rental prices, as for :func:`guidebook.catalog.clouds.history`.

    Raises
    ------
    LookupError
        There is no such card, or this provider rents out nothing of its size.
    ValueError
        A number is out of range.
    """
    device = hardware.find(question.gpu)
    known = _price(device)
    if known is None:
        raise LookupError(f"No price of {question.gpu}. Put one into GUIDEBOOK_PRICES.")
    rents = providers(question.gpu, path)
    if question.provider not in rents:
        raise LookupError(
            f"{question.provider} has no single GPU with the memory of {question.gpu} in the "
            f"price list. It has those of {', '.join(rents)}."
        )
    offer = rents[question.provider]
    speed = speed_of(offer, question.gpu) if question.speed is None else question.speed
    terms = renting.from_offer(
        offer, speed=speed, startup_minutes=question.startup_minutes, path=path
    )
    price = question.usd_per_gpu_hour
    load_w = question.load_w
    return Comparison(
        Purchase(
            usd=known.usd if question.usd is None else question.usd,
            load_w=(device.tdp_w or 0.0) if load_w is None else load_w,
            depreciation=loss_of(known),
            name=question.gpu,
        ),
        Rental(
            usd_per_gpu_hour=terms.usd_per_gpu_hour if price is None else price,
            tier=terms.tier,
            speed=terms.speed,
            startup_minutes=terms.startup_minutes,
            billing_seconds=terms.billing_seconds,
            minimum_seconds=terms.minimum_seconds,
        ),
        Use(question.hours_per_week, hours_per_session=HOURS_PER_SESSION),
        Conditions(question.usd_per_kwh),
    )


def loss_of(price: Price) -> Depreciation:
    """Return how a thing loses value: as a used card if its price is one, else as a new one.

    What a marketplace keeps when it is sold is taken off.
    """
    rule = depreciation.USED_CARD if price.kind == "used" else depreciation.NEW_CARD
    return replace(rule, selling_fee=SELLING_FEE)


def answer(question: Question, path: Path | str | None = None) -> Answer:
    """Answer a question; raises as :func:`comparison` does."""
    asked = comparison(question, path)
    owned = ownership.own(asked.purchase, asked.use, asked.conditions, MONTHS)
    rented = renting.bill(asked.rental, asked.use, MONTHS)
    hours = owned.gpu_hours
    return Answer(
        rent_per_month=rented.total_usd / MONTHS,
        electricity_per_month=owned.electricity_usd / MONTHS,
        months=asked.month(),
        own_usd=owned.total_usd,
        rent_usd=rented.total_usd,
        own_per_hour=owned.total_usd / hours if hours else None,
        rent_per_hour=rented.total_usd / hours if hours else None,
        hours_for_a_year=break_even.hours_per_week(asked, 12.0),
    )


def compare(question: Question | None = None, path: Path | str | None = None) -> Table:
    """Answer a question as a table; raises as :func:`comparison` does."""
    asked = question or Question()
    found = answer(asked, path)
    return table(
        [{"cost": name, "buy": buy, "rent": rent} for name, buy, rent in _rows(asked, found, path)],
        caption=_sentence(asked, found),
    )


class Controls:
    """Lists and numbers around :func:`compare`, for JupyterLab.

    Attributes
    ----------
    gpu, provider, hours_per_week, usd_per_kwh
        The controls.
    answer
        The table, as HTML.
    """

    def __init__(self, question: Question | None = None) -> None:
        import ipywidgets  # type: ignore[import-untyped]  # has no type hints

        self._first = question or Question()
        look = {"style": {"description_width": "10em"}, "layout": {"width": "30em"}}
        self.gpu = ipywidgets.Dropdown(
            description="Buy", options=list(cards()), value=self._first.gpu, **look
        )
        self.provider = ipywidgets.Dropdown(
            description="Rent from",
            options=list(providers(self._first.gpu)),
            value=self._first.provider,
            **look,
        )
        self.hours_per_week = ipywidgets.FloatSlider(
            description="Hours a week", min=1, max=100, step=1, **look
        )
        self.hours_per_week.value = self._first.hours_per_week
        self.usd_per_kwh = ipywidgets.BoundedFloatText(
            description="USD per kWh", min=0, max=2, step=0.01, **look
        )
        self.usd_per_kwh.value = self._first.usd_per_kwh
        self.answer = ipywidgets.HTML()
        self.gpu.observe(self._new_gpu, names="value")
        controls = [self.gpu, self.provider, self.hours_per_week, self.usd_per_kwh]
        for one in controls:
            one.observe(self._refresh, names="value")
        self._box = ipywidgets.VBox([*controls, self.answer])
        self._refresh()

    @property
    def question(self) -> Question:
        """What the controls ask now."""
        return Question(
            self.gpu.value,
            self.provider.value,
            self.hours_per_week.value,
            self.usd_per_kwh.value,
        )

    def __repr__(self) -> str:
        return str(compare(self._first))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's
        """Return the controls, and the table for a reader whose page has no controls."""
        bundle: dict[str, Any] = dict(self._box._repr_mimebundle_(**options) or {})
        shown = compare(self._first)
        return bundle | {"text/plain": str(shown), "text/html": shown._repr_html_()}

    def _new_gpu(self, _change: object) -> None:
        """Offer the providers of GPUs of the new card's size, the present one first if it can."""
        before, names = self.provider.value, list(providers(self.gpu.value))
        self.provider.options = names
        self.provider.value = before if before in names else names[0]

    def _refresh(self, _change: object = None) -> None:
        try:
            self.answer.value = compare(self.question)._repr_html_()
        except (LookupError, ValueError) as error:
            self.answer.value = f"<p>{escape(str(error.args[0]))}</p>"


class Calculator:
    """A form for a page without Python: the browser answers with ``cost.js``.

    Before its module runs, and without JavaScript, it is the table of its first question.
    """

    def __init__(self, question: Question | None = None) -> None:
        self.question = question or Question()

    def __repr__(self) -> str:
        return str(compare(self.question))

    def _repr_html_(self) -> str:
        asked = self.question
        first = {
            "gpu": asked.gpu,
            "provider": asked.provider,
            "hours_per_week": asked.hours_per_week,
            "usd_per_kwh": asked.usd_per_kwh,
        }
        data = json.dumps(coefficients() | {"first": first}, ensure_ascii=False)
        # What stands in an element cannot end it: "<" is written as JSON allows.
        data = data.replace("<", "\\u003c")
        return (
            f'<div class="guidebook-cost">'
            f'<div class="guidebook-cost-answer">{compare(asked)._repr_html_()}</div>'
            f'<script type="application/json">{data}</script>'
            f'<script type="module">{module()}</script></div>'
        )


def module() -> str:
    """Return the source of the ES module that does the arithmetic in a browser."""
    return resources.files("guidebook.widgets").joinpath("cost.js").read_text("utf-8")


def coefficients(path: Path | str | None = None) -> dict[str, Any]:
    """Return what the ES module needs to know, ready for JSON: prices, powers and terms."""
    known = cards()
    offers: list[Offer] = []
    choices: dict[str, dict[str, list[float]]] = {}
    for gpu in known:
        choices[gpu] = {}
        for provider, offer in providers(gpu, path).items():
            if offer not in offers:
                offers.append(offer)
            choices[gpu][provider] = [offers.index(offer), speed_of(offer, gpu)]
    rentals = [renting.from_offer(offer, path=path) for offer in offers]
    return {
        "cards": {
            name: {
                "usd": price.usd,
                "kind": price.kind,
                "dated": price.dated,
                "load_w": hardware.find(name).tdp_w,
                "first_year": loss_of(price).first_year,
                "later_years": loss_of(price).later_years,
                "selling_fee": loss_of(price).selling_fee,
            }
            for name, price in known.items()
        },
        "offers": [
            {
                "gpu": offer.gpu,
                "tier": offer.tier,
                "dated": offer.dated,
                "usd_per_gpu_hour": rental.usd_per_gpu_hour,
                "billing_seconds": rental.billing_seconds,
                "minimum_seconds": rental.minimum_seconds,
            }
            for offer, rental in zip(offers, rentals, strict=True)
        ],
        "choices": choices,
        "months": MONTHS,
        "within_months": break_even.WITHIN_MONTHS,
        "startup_minutes": STARTUP_MINUTES,
        "hours_per_session": HOURS_PER_SESSION,
    }


def _rows(asked: Question, found: Answer, path: Path | str | None) -> list[tuple[str, str, str]]:
    """Return the table's rows: what, when bought, when rented. ``cost.js`` writes the same."""
    both = comparison(asked, path)
    offer = providers(asked.gpu, path)[asked.provider]
    price = _price(hardware.find(asked.gpu))
    listed = f"{price.kind}, {show.day(price)}" if price and asked.usd is None else "yours"
    dated = show.day(offer) if asked.usd_per_gpu_hour is None else "yours"
    return [
        ("thing", asked.gpu, f"{offer.gpu}, {asked.provider}, {offer.tier}"),
        (
            "price",
            f"{_usd(both.purchase.usd)} ({listed})",
            f"{_usd(both.rental.usd_per_gpu_hour, 3)} an hour ({dated})",
        ),
        ("speed", "1", f"{both.rental.speed:.2f} times"),
        (
            "each month",
            f"{_usd(found.electricity_per_month, 2)} of electricity",
            _usd(found.rent_per_month, 2),
        ),
        ("three years", f"{_usd(found.own_usd)}, sold at the end", _usd(found.rent_usd)),
        ("each hour of work", _usd(found.own_per_hour, 3), _usd(found.rent_per_hour, 3)),
    ]


def _sentence(asked: Question, found: Answer) -> str:
    """Say the answer in words. ``cost.js`` says the same."""
    hours = found.hours_for_a_year
    if hours is None:
        year = "No number of hours pays within a year."
    elif hours <= 0:
        year = "It pays within a year without any."
    else:
        year = f"From {hours:.1f} hours a week on, it pays within a year."
    paid = (
        f"has paid for itself after {show.months(found.months)}"
        if found.months is not None
        else "has not paid for itself within 10 years"
    )
    return f"With {asked.hours_per_week:g} hours a week, the {asked.gpu} {paid}. {year}"


def _usd(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:,.{decimals}f} USD"


def _price(device: Device) -> Price | None:
    """Return the price of what can be bought and whose power is known."""
    return upgrade.price_of(device.name) if device.kind != "ram" and device.tdp_w else None


def _words(device: Device) -> set[str]:
    return set(device.name.casefold().split())
