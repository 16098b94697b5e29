"""Write formulas as MathML at build time, so that a page needs no script for them.

Browsers draw MathML themselves since 2023. A formula that the converter does not
understand is a build warning, and the build treats warnings as errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# The converter knows align*, which draws the same as its relatives.
_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|align|split|gather|gathered|eqnarray)\*?\}")
_SINGLE = re.compile(r"\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}")
_ARITY = {"mfrac": 2, "msup": 2, "msub": 2, "mover": 2, "munder": 2, "mroot": 2} | {
    "msubsup": 3,
    "munderover": 3,
}
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
# In a displayed formula the limits of these stand above and below, not beside.
_LARGE = {"∑", "∏", "lim", "max", "min", "arg max", "arg min"}
_STACKED = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_THIN_SPACE = "0.167em"


def to_mathml(latex: str, *, block: bool = False) -> str:
    """Return the MathML of a LaTeX formula.

    Raises
    ------
    ValueError
        If the formula holds something that cannot be written as MathML.
    """
    source = _SINGLE.sub("", _ALIGNED.sub(r"\\\1{align*}", latex)).strip()
    if block and "&" in source and r"\begin" not in source:
        source = rf"\begin{{align*}}{source}\end{{align*}}"
    try:
        markup = convert(source, display="block" if block else "inline")
    except Exception as error:  # the converter has a class of its own for each complaint
        raise ValueError(f"{type(error).__name__} {error}".strip()) from error
    # The converter writes a stray & as it stands, which no XML parser accepts.
    try:
        tree = ElementTree.fromstring(markup)
    except ElementTree.ParseError as error:
        raise ValueError("an & outside an aligned block") from error
    for element in tree.iter():
        text = (element.text or "").strip()
        if text.startswith("\\") and len(text) > 1:
            raise ValueError(f"unknown command {text}")
        expected = _ARITY.get(element.tag.removeprefix(_NAMESPACE))
        if expected is not None and len(element) != expected:
            raise ValueError("an argument is missing")
    _polish(tree, block=block)
    tree.set("alttext", " ".join(latex.split()))
    ElementTree.register_namespace("", _NAMESPACE.strip("{}"))
    return ElementTree.tostring(tree, encoding="unicode")


def _polish(tree: ElementTree.Element, *, block: bool) -> None:
    """Mend what the converter does less well than TeX."""
    for parent in list(tree.iter()):
        kind = parent.tag.removeprefix(_NAMESPACE)
        if block and kind in _STACKED and (parent[0].text or "").strip() in _LARGE:
            parent.tag = _NAMESPACE + _STACKED[kind]
        if kind not in {"mrow", "math", "mtd"}:
            continue
        for index in reversed(range(len(parent) - 1)):
            name, following = parent[index], parent[index + 1]
            # "ln p", not "lnp"; but "exp(" without a gap.
            is_function = name.tag == f"{_NAMESPACE}mi" and len(name.text or "") > 1
            if is_function and following.tag not in {f"{_NAMESPACE}mo", f"{_NAMESPACE}mspace"}:
                if len(following) and following[0].get("fence") == "true":
                    continue
                gap = ElementTree.Element(f"{_NAMESPACE}mspace", width=_THIN_SPACE)
                parent.insert(index + 1, gap)


def _markup(node: nodes.Element, *, block: bool) -> str:
    latex = node.astext()
    try:
        return to_mathml(latex, block=block)
    except ValueError as error:
        logger.warning("formula %r cannot be shown: %s", latex, error, location=node)
        return f"<code>{nodes.unescape(latex)}</code>"


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{_markup(node, block=False)}</span>')
    raise nodes.SkipNode


def _visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(_markup(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; ``html_math_renderer: mathml`` chooses it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
