"""Compare up to three devices on a model of the reader's choice.

:func:`compare` is the whole answer and needs no widget. :class:`Explorer` puts drop-down lists
around it in JupyterLab; anywhere else it shows the table of its first question.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guidebook import planner, speed, units, weights
from guidebook.catalog import hardware, models, prices
from guidebook.catalog.hardware import Device
from guidebook.planner import Answer, Case
from guidebook.tables import Table, table

MOST_DEVICES = 3
QUANTS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "MXFP4")
CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)
KV_TYPES = ("f16", "q8_0", "q4_0")

_NONE = "–"


@dataclass(frozen=True)
class Question:
    """What to compare.

    Attributes
    ----------
    devices
        One to three names of :func:`candidates`.
    model, quant
        A name of the model catalog, and the file type of its weights; empty: the one that the
        model is usually run in.
    context, kv_type
        Tokens to make room for, and the type of the KV cache.
    """

    devices: tuple[str, ...] = (
        "GeForce RTX 4090",
        "Mac Studio M3 Ultra 96 GB (60c)",
        "NVIDIA DGX Spark (GB10)",
    )
    model: str = "llama-3.1-70b"
    quant: str = ""
    context: int = 8192
    kv_type: str = "f16"


@functools.cache
def candidates() -> Mapping[str, Device]:
    """Return what can be compared, by name.

    That is every device of the hardware catalog but the kinds of RAM, and the machines of the
    price list that hold less memory than their chip's row there.
    """
    found = {device.name: device for device in hardware.every() if device.kind != "ram"}
    return dict(sorted({**found, **hardware.smaller()}.items()))


def candidate(name: str) -> Device:
    """Return a candidate by its name, or as :func:`guidebook.catalog.hardware.find` does."""
    return candidates().get(name) or hardware.find(name)


def compare(question: Question | None = None) -> Table:
    """Answer a question as a table: memory, fit, speed with its interval, dated price.

    The devices are its columns.

    A graphics card that a model does not fit on computes with the rest of it in system memory,
    two channels of DDR5-5600 of any size.

    Raises
    ------
    LookupError
        A device, a model or a file type is not in the catalog.
    ValueError
        There is no device, there are more than three, or a setting is out of range.
    """
    asked = question or Question()
    names = tuple(dict.fromkeys(asked.devices))
    if not asked.quant:
        usual = planner.usual_quants(models.find(asked.model).architecture)
        asked = replace(asked, quant=usual[-1])
    if not 1 <= len(names) <= MOST_DEVICES:
        raise ValueError(f"{len(names)} devices are given. Compare one to {MOST_DEVICES}.")
    columns = {name: _column(name, asked) for name in names}
    features = next(iter(columns.values()))
    return table(
        [
            {"device": feature} | {name: column[feature] for name, column in columns.items()}
            for feature in features
        ],
        caption=f"{asked.model} in {asked.quant}, {asked.context:,} tokens, {asked.kv_type} cache: "
        "predicted for llama.cpp",
    )


def price(name: str) -> str:
    """Return a candidate's latest price with its kind and date, or ``unknown``."""
    known = prices.of(name)
    return f"{known.usd:,.0f} ({known.kind}, {known.dated})" if known else units.UNKNOWN


class Explorer:
    """Drop-down lists around :func:`compare`.

    Attributes
    ----------
    devices
        The lists of devices; the later ones may be left empty.
    model, quant, context, kv_type
        The other lists.
    answer
        The table, as HTML.
    """

    def __init__(self, question: Question | None = None) -> None:
        import ipywidgets  # type: ignore[import-untyped]  # has no type hints

        self._first = question or Question()
        names = list(candidates())
        chosen = [*self._first.devices, *(_NONE,) * MOST_DEVICES][:MOST_DEVICES]

        def choice(label: str, options: Any, value: Any) -> Any:  # noqa: ANN401 - untyped library
            return ipywidgets.Dropdown(
                description=label,
                options=options,
                value=value,
                style={"description_width": "6em"},
                layout={"width": "26em"},
            )

        self.devices = [
            choice(f"Device {i}", names if i == 1 else [_NONE, *names], name)
            for i, name in enumerate(chosen, 1)
        ]
        self.model = choice("Model", [model.name for model in models.all()], self._first.model)
        self.quant = choice("Weights", [("as usual", ""), *_same(QUANTS)], self._first.quant)
        lengths = [(f"{n:,} tokens", n) for n in CONTEXTS]
        self.context = choice("Context", lengths, self._first.context)
        self.kv_type = choice("KV cache", KV_TYPES, self._first.kv_type)
        self.answer = ipywidgets.HTML()
        lists = [*self.devices, self.model, self.quant, self.context, self.kv_type]
        for one in lists:
            one.observe(self._refresh, names="value")
        self._box = ipywidgets.VBox([*lists, self.answer])
        self._refresh()

    @property
    def question(self) -> Question:
        """What the lists ask now."""
        return Question(
            tuple(one.value for one in self.devices if one.value != _NONE),
            self.model.value,
            self.quant.value,
            self.context.value,
            self.kv_type.value,
        )

    def __repr__(self) -> str:
        return str(compare(self._first))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's
        """Return the controls, and the table for a reader whose page has no controls."""
        bundle: dict[str, Any] = dict(self._box._repr_mimebundle_(**options) or {})
        shown = compare(self._first)
        return bundle | {"text/plain": str(shown), "text/html": shown._repr_html_()}

    def _refresh(self, _change: object = None) -> None:
        from html import escape

        try:
            self.answer.value = compare(self.question)._repr_html_()
        except (LookupError, ValueError) as error:
            self.answer.value = f"<p>{escape(str(error.args[0]))}</p>"


def _same(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return options whose label is their value."""
    return [(name, name) for name in names]


def _column(name: str, asked: Question) -> dict[str, str]:
    device = candidate(name)
    architecture = models.find(asked.model).architecture
    case = Case(device.name, asked.model, asked.quant, context=asked.context, kv_type=asked.kv_type)
    answer = planner.predict(
        device,
        architecture,
        weights.account(architecture, asked.quant),
        case,
        hardware.find(planner.DEFAULT_RAM),
    )
    decode, interval = _NONE, _NONE
    if answer.tokens_per_second is not None:
        decode = units.number(answer.tokens_per_second)
        interval = f"{units.number(answer.low)} to {units.number(answer.high)}"
    return {
        "memory": units.memory(device.memory_bytes),
        "needed": units.memory(answer.total_bytes),
        "fits": _fits(answer, architecture.n_layers + 1),
        "writes, tokens/s": decode,
        "90 % interval": interval,
        "speed measured on it": "yes" if speed.is_calibrated(device) else "no",
        "price, USD": price(name),
    }


def _fits(answer: Answer, n_layers: int) -> str:
    if answer.fits is None or answer.margin_bytes is None:
        return units.UNKNOWN
    if answer.fits:
        return f"yes, {units.memory(answer.margin_bytes)} to spare"
    missing = f"no, {units.memory(-answer.margin_bytes)} too much"
    if answer.tokens_per_second is None:
        return missing
    if answer.n_cpu_moe:
        return f"{missing}; the experts of {answer.n_cpu_moe} layers in RAM"
    return f"{missing}; {answer.n_gpu_layers} of {n_layers} layers on the GPU"
