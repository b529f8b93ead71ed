"""Formulas as MathML, which browsers typeset by themselves: no script, no fonts, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from tinygrad_rnn.see.notation import mathml


def inline(writer: Any, node: nodes.math) -> None:
    """A formula in a line."""
    writer.body.append(f'<span class="math"><math>{inner(node.astext(), node)}</math></span>')
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """A formula, or the lines of an `aligned`, on lines of their own."""
    latex = node.astext().strip()
    lines = ALIGNED.fullmatch(latex)
    shown = aligned(lines["lines"], node) if lines else inner(latex, node)
    writer.body.append(f'<div class="math" tabindex="0"><math display="block">{shown}</math></div>')
    raise nodes.SkipNode


ALIGNED = re.compile(r"\\begin\{aligned\}(?P<lines>.*)\\end\{aligned\}", re.S)


def aligned(lines: str, node: nodes.Node) -> str:
    """Lines that are aligned at their `&`, as a table: MathML has no other way."""
    rows = [line.split("&") for line in re.split(r"\\\\", lines) if line.strip()]
    cells = ["".join(f"<mtd>{inner(part.strip(), node)}</mtd>" for part in row) for row in rows]
    return f'<mtable class="aligned">{"".join(f"<mtr>{row}</mtr>" for row in cells)}</mtable>'


UNSET = re.compile(r"<math><mtext>|<m\w+[^>]*>[^<]*[\\{}&]")
"""What is left of words that the converter does not know; a name of an entity, such as `&#x02299;`, is none."""


def is_set(latex: str, made: str) -> bool:
    """Whether MathML is all of a formula."""
    braces = re.sub(r"\\[{}]", "", latex)
    return braces.count("{") == braces.count("}") and not UNSET.search(re.sub(r"&#?\w+;", "", made))


def inner(latex: str, node: nodes.Node) -> str:
    """What stands inside of the element <math> of a formula. One that cannot be set is a warning."""
    made = mathml(latex)
    if not is_set(latex, made):
        logging.getLogger(__name__).warning("%s cannot be set as a formula", latex, location=node)
    return made.removeprefix("<math>").removesuffix("</math>")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
