"""Formulas as MathML, which browsers typeset by themselves: no script, no fonts, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from tinygrad_rnn.see.notation import mathml


def inline(writer: Any, node: nodes.math) -> None:
    """A formula in a line."""
    writer.body.append(f'<span class="math">{mathml(node.astext())}</span>')
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """A formula, or the lines of an `aligned`, on lines of their own."""
    latex = node.astext().strip()
    lines = ALIGNED.fullmatch(latex)
    shown = aligned(lines["lines"]) if lines else inner(latex)
    writer.body.append(f'<div class="math" tabindex="0"><math display="block">{shown}</math></div>')
    raise nodes.SkipNode


ALIGNED = re.compile(r"\\begin\{aligned\}(?P<lines>.*)\\end\{aligned\}", re.S)


def aligned(lines: str) -> str:
    """Lines that are aligned at their `&`, as a table: MathML has no other way."""
    rows = [line.split("&") for line in re.split(r"\\\\", lines) if line.strip()]
    cells = ["".join(f"<mtd>{inner(part.strip())}</mtd>" for part in row) for row in rows]
    return f'<mtable class="aligned">{"".join(f"<mtr>{row}</mtr>" for row in cells)}</mtable>'


def inner(latex: str) -> str:
    """What stands inside of the element <math> of a formula."""
    return mathml(latex).removeprefix("<math>").removesuffix("</math>")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
