"""Names and formulas in LaTeX, MathML and plain text, and arrays in a few words."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.see import formula, notation
from tinygrad_rnn.see.notation import latex_name, mathml, plain
from tinygrad_rnn.see.summary import FEW, number, summary
from tinygrad_rnn.see.words import printable

FORMULAS = {
    r"\frac{-\bar{y} \odot y}{b}": "-ȳ ⊙ y/b",
    r"\frac{a + 1}{b}": "(a + 1)/b",
    r"\frac{\bar{y}}{2 y}": "ȳ/(2 y)",
    r"\frac{\frac{a}{b}}{c}": "(a/b)/c",
    r"\bar{y} \odot (1 - y^{2})": "ȳ ⊙ (1 - y²)",
    r"a^{b - 1}": "a^(b - 1)",
    r"x^{-2}": "x⁻²",
    r"\bar{y} b^{\top}": "ȳ bᵀ",
    r"h_{t-1} + x_t W_{z}": "h[t-1] + x_t W_z",
    r"\lVert x \rVert": "‖x‖",
    r"1 - \lvert x \rvert": "1 - |x|",
    r"\lvert x \rvert \lVert y \rVert": "|x| ‖y‖",
    r"\lfloor x \rfloor": "⌊x⌋",
    r"\log \sum e^{x}": "log ∑ e^x",
    r"\mathrm{one\ hot}(x)": "one hot(x)",
    r"[a \leq b]": "[a ≤ b]",
    r"\sqrt{1 - x \odot x}": "√(1 - x ⊙ x)",
    r"\sqrt{x}": "√x",
    r"\sigma(x)": "σ(x)",
}


def test_plain_text_keeps_the_meaning_of_a_formula():
    for latex, text in FORMULAS.items():
        assert notation.plain(latex) == text


@pytest.mark.parametrize(
    ("latex", "marked", "text"),
    [("x", r"\bar{x}", "x̄"), ("x_{1}", r"\bar{x}_{1}", "x̄_1"), (r"\alpha_{t}", r"\bar{\alpha}_{t}", "ᾱ_t"),
     ("h_{[2]}", r"\bar{h}_{[2]}", "h̄[2]"), ("{W_{z}}_{[2]}", r"{\bar{W}_{z}}_{[2]}", "W̄_z[2]"),
     (r"\mathrm{loss}", r"\bar{\mathrm{loss}}", "l̄oss"),
     (r"\text{cells.0.}W", r"\text{cells.0.}\bar{W}", "cells.0.W̄"),
     (r"\text{cells.0.W\_z}", r"\text{cells.0.}\bar{\text{W\_z}}", "cells.0.W̄_z"),
     (r"\text{a.}", r"\bar{\text{a.}}", "ā.")],
)  # fmt: skip
def test_a_mark_stands_on_the_letter(latex, marked, text):
    assert notation.accented("bar", latex) == marked and plain(marked) == normalize("NFC", text)


NAMES = [
    "<script>alert(1)</script>", 'say "hi"', "back\\slash", "two\nlines", "重み🙂", "\u202eabc", "a_b_c", "{x}$",
    "x^2~", "&amp;", "%d#", "\\text{x}", "}{",
]  # fmt: skip


def letters(page: str) -> str:
    return "".join(ET.fromstring(page).itertext())


@pytest.mark.parametrize("name", [*NAMES, "W_z", "h", "loss", "alpha", "cells.0.W"])
def test_any_name_is_literal_in_all_scripts(name):
    shown = printable(name)
    latex = latex_name(name)
    expected = notation.GREEK.get(name, shown)
    assert plain(latex) == normalize("NFC", expected.strip())
    product = rf"\bar{{{latex}}} \odot {latex}"
    assert letters(mathml(product)).count(expected.replace("W_z", "Wz")) == 2
    assert latex.count("{") == latex.count("}") or "\\{" in latex or "\\}" in latex


@example("\x00")
@example("\\}")
@given(st.text(min_size=1))
def test_no_name_breaks_a_script(name):
    latex = latex_name(name)
    assert (
        plain(rf"{latex} + {latex}").count(normalize("NFC", printable(name).strip())) >= 2
        or "_" in latex
        or latex.startswith("\\")
    )
    ET.fromstring(mathml(rf"\frac{{{latex}}}{{{latex}}}"))


def test_words_are_one_identifier_for_a_screen_reader():
    assert "<mi>softmax</mi>" in mathml(r"\mathrm{softmax}(x)")
    assert "<mi>a</mi><mi>b</mi>" in mathml("a b")


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [("_plain", "_enclosed(_group(tokens), tight=True)", "_group(tokens)"), ("_enclosed", '"+/=<>"', '"="')],
)
def test_a_notation_that_loses_parentheses_is_caught(function, old, new, monkeypatch):
    plain.cache_clear()
    mutated(monkeypatch, notation, function, old, new)
    with pytest.raises(AssertionError):
        test_plain_text_keeps_the_meaning_of_a_formula()
    plain.cache_clear()


def test_the_formulas_of_a_node_are_those_of_its_primitive_with_its_names():
    x, w = (tg.tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3), (3, 4)))
    found = formula.local(x @ w, {0: "x", 1: "W_{z}"}, "a")
    assert found.result == "x W_{z}" and found.slopes == {0: r"\bar{a} W_{z}^{\top}", 1: r"x^{\top} \bar{a}"}
    assert formula.local(2.0 * x).slopes == {1: r"2 \bar{y}"}
    assert formula.local(tg.stack([x, x])).slopes.keys() == {0, 1}
    assert formula.local(tg.leaky_relu(x, 0.2)).slopes == {0: r"\mathrm{where}([x > 0], \bar{y}, 0.2 \bar{y})"}
    layer = tg.nn.GRU(3, 5)(tg.zeros((4, 2, 3)))[0].inputs[0]
    assert formula.local(layer) == (r"\mathrm{gru layer}", {}) or "gru" in formula.local(layer).result


def test_a_rule_that_takes_no_symbols_has_no_formula():
    @tg.primitive("elementwise", dx=lambda g, x: g * float(np.sum(x.numpy())) if hasattr(x, "numpy") else g.nothing)
    def private(xp, x):
        return x * 1.0

    assert formula.local(private(tg.tensor([1.0], requires_grad=True))).slopes == {}
    del PRIMITIVES["private"]


def test_a_few_numbers_are_shown_and_many_are_summed_up():
    assert str(summary(np.array([1.0, -2.5]))) == "1, -2.5"
    assert str(summary(np.float32(0.1))) == "0.1"
    assert str(summary(np.array([True, False]))) == "True, False"
    assert str(summary(np.arange(9))) == "0 … 8"
    many = summary(np.array([3.0, -4.0, 0.0, 0.0, 0.0]))
    assert (many.low, many.high, many.norm, many.numbers) == (-4.0, 3.0, 5.0, ()) and str(many) == "-4 … 3  ‖5‖"
    assert str(summary(np.zeros((0, 3)))) == "empty" and str(summary(np.full(7, 0.5))) == "all 0.5"
    assert len(summary(np.zeros(FEW)).numbers) == FEW and not summary(np.zeros(FEW + 1)).numbers
    assert str(summary(np.array([3 + 4j] * 5))) == "5 … 5  ‖11.2‖"
    assert summary(np.arange(7) > 3).high == 1.0


def test_what_is_not_finite_is_counted():
    found = summary(np.array([np.nan, np.inf, -np.inf, 1.0, 2.0, np.nan]))
    assert (found.nan, found.inf, found.broken) == (2, 2, True) and found.lines == ("1 … 2  ‖2.24‖", "2 nan, 2 inf")
    assert summary(np.full(5, np.nan)).lines == ("5 nan",)
    assert summary(np.array([np.nan, 1.0])).lines == ("nan, 1",) and summary(np.array([np.nan, 1.0])).broken
    assert not summary(np.full(5, 1e308)).broken and math.isfinite(summary(np.full(5, 1e30, np.float32)).norm)


def test_numbers_are_short():
    assert [number(x) for x in (3, 3.0, 1 / 3, 1e-7, True, -123456.0)] == [
        "3",
        "3",
        "0.333",
        "1e-07",
        "True",
        "-1.23e+05",
    ]
    assert re.fullmatch(r"[-\d.e+]+", number(-1.23456789e-300))
