"""Where to do a workload, by controls.

:func:`explain` lays a decision out as a table and needs no widget. :class:`Decider` puts controls
around it in JupyterLab; anywhere else it shows the table of its first question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from guidebook import decide, units
from guidebook.catalog import models
from guidebook.decide import Decision, Terms, Workload, cells
from guidebook.decide.weighing import Standing
from guidebook.tables import Table, table

if TYPE_CHECKING:
    from guidebook.plan import Rig

SHARES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


@dataclass(frozen=True)
class Question:
    """What to decide.

    Attributes
    ----------
    machine
        Name of one of the machines.
    workload
        Name of a ready-made workload, or of the reader's own.
    model
        Instead of the workload's; empty: as it is.
    use, rent
        How often it runs, and the prices of rent, as multiples of what they are.
    usd_per_kwh
        Price of electricity; None: as in the terms.
    users
        At the same time; None: as it is.
    sensitive
        The data may not leave.
    """

    machine: str
    workload: str
    model: str = ""
    use: float = 1.0
    rent: float = 1.0
    usd_per_kwh: float | None = None
    users: int | None = None
    sensitive: bool = False


def explain(decision: Decision) -> Table:
    """Lay a decision out: each option with its points, what favours it and what rules it out."""
    return table(
        [_row(standing) for standing in decision.ranked],
        caption=f"{decision.facts.workload.name}: {decision.best or 'nothing can be done'}",
    )


class Decider:
    """Controls around :func:`guidebook.decide.decide`.

    Attributes
    ----------
    machine, workload, model, use, rent, usd_per_kwh, users, sensitive
        The controls.
    answer
        The table and what would change the answer, as HTML.
    """

    def __init__(
        self,
        machines: Mapping[str, Rig],
        terms: Terms,
        question: Question,
        own: tuple[Workload, ...] = (),
    ) -> None:
        import ipywidgets  # type: ignore[import-untyped]  # has no type hints

        self._machines, self._terms, self._first = dict(machines), terms, question
        self._workloads = {one.name: one for one in (*own, *decide.READY_MADE)}
        look = {"style": {"description_width": "7em"}, "layout": {"width": "28em"}}

        def choice(label: str, options: Any, value: Any) -> Any:  # noqa: ANN401 - untyped library
            return ipywidgets.Dropdown(description=label, options=options, value=value, **look)

        times = [(f"× {units.number(share)}", share) for share in SHARES]
        every = [("as given", ""), *((model.name, model.name) for model in models.all())]
        price = terms.usd_per_kwh if question.usd_per_kwh is None else question.usd_per_kwh
        self.machine = choice("Machine", list(self._machines), question.machine)
        self.workload = choice("Workload", list(self._workloads), question.workload)
        self.model = choice("Model", every, question.model)
        self.use = choice("Use", times, question.use)
        self.rent = choice("Rent", times, question.rent)
        self.usd_per_kwh = ipywidgets.BoundedFloatText(
            description="USD per kWh", value=price, min=0, max=5, step=0.01, **look
        )
        self.users = ipywidgets.BoundedIntText(
            description="Users", value=question.users or 0, min=0, max=256, **look
        )
        self.sensitive = ipywidgets.Checkbox(
            description="the data may not leave", value=question.sensitive, **look
        )
        self.answer = ipywidgets.HTML()
        controls = [
            self.machine,
            self.workload,
            self.model,
            self.use,
            self.rent,
            self.usd_per_kwh,
            self.users,
            self.sensitive,
        ]
        for one in controls:
            one.observe(self._refresh, names="value")
        self._box = ipywidgets.VBox([*controls, self.answer])
        self._refresh()

    @property
    def question(self) -> Question:
        """What the controls ask now."""
        return Question(
            self.machine.value,
            self.workload.value,
            self.model.value,
            self.use.value,
            self.rent.value,
            self.usd_per_kwh.value,
            # As given where the box shows none.
            self.users.value or None,
            self.sensitive.value,
        )

    def decide(self, question: Question) -> Decision:
        """Answer a question.

        Raises
        ------
        LookupError
            There is no such machine, workload or model.
        ValueError
            A setting is out of range.
        """
        workload = self._workloads.get(question.workload) or decide.find(question.workload)
        if question.machine not in self._machines:
            known = ", ".join(self._machines)
            raise LookupError(f"No machine {question.machine!r}. Use one of {known}.")
        changed = replace(
            workload,
            model=question.model if workload.model and question.model else workload.model,
            runs_per_month=workload.runs_per_month * question.use,
            users=question.users or workload.users,
            sensitive=workload.sensitive or question.sensitive,
            may_leave=workload.may_leave and not question.sensitive,
        )
        terms = self._terms.priced(question.rent)
        if question.usd_per_kwh is not None:
            terms = replace(terms, usd_per_kwh=question.usd_per_kwh)
        return decide.decide(changed, self._machines[question.machine], terms)

    def __repr__(self) -> str:
        return _text(self.decide(self._first))

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's
        """Return the controls, and the table for a reader whose page has no controls."""
        bundle: dict[str, Any] = dict(self._box._repr_mimebundle_(**options) or {})
        shown = self.decide(self._first)
        return bundle | {"text/plain": _text(shown), "text/html": _html(shown)}

    def _refresh(self, _change: object = None) -> None:
        try:
            self.answer.value = _html(self.decide(self.question))
        except (LookupError, ValueError) as error:
            self.answer.value = f"<p>{escape(str(error.args[0]))}</p>"


def _row(standing: Standing) -> dict[str, str]:
    return {
        "option": standing.option,
        "points": f"{standing.score:.1f}" if standing.is_open else cells.NONE,
        "for it": " ".join(
            f"{reason.rule} {reason.weight:.1f}: {reason.text}" for reason in standing.reasons
        )
        or cells.NONE,
        "ruled out": " ".join(f"{bar.rule}: {bar.text}" for bar in standing.bars) or "no",
    }


def _text(decision: Decision) -> str:
    return f"{explain(decision)}\n\nOtherwise: {cells.otherwise(decision)}"


def _html(decision: Decision) -> str:
    return f"{explain(decision)._repr_html_()}<p>Otherwise: {escape(cells.otherwise(decision))}</p>"
