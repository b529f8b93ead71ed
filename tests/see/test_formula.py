"""The formulas are right: as numbers, as LaTeX read back by another grammar, and as pages that are current."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from building import tables
from latex import FUNCTIONS, evaluate
from samples import SAMPLES, package_primitives

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.nn import equations as cells
from tinygrad_rnn.see import formula
from tinygrad_rnn.see.formula import Formula, derivative_formulas, equations, symbol

rng = np.random.default_rng(4)
a, b, c, x = (symbol(name, rng.uniform(0.3, 0.9, (3, 3))) for name in "abcx")
VALUES = {f.symbol: f.value for f in (a, b, c, x)}


@pytest.mark.parametrize(
    "made, expected",
    [
        (a - (b - c), "a - (b - c)"),
        (a - b - c, "a - b - c"),
        (a + (b + c), "a + b + c"),
        (a + -b, "a + (-b)"),
        (-(a + b), "-(a + b)"),
        (-a * b, r"-a \odot b"),
        (a * -b, r"a \odot (-b)"),
        ((a + b) * c, r"(a + b) \odot c"),
        ((a * b) @ c, r"(a \odot b) c"),
        (a * (b @ c), r"a \odot (b c)"),
        ((-a * b) @ c, r"(-a \odot b) c"),
        (a @ (b @ c), "a b c"),
        (2 * a * b, r"2 a \odot b"),
        (a * 2 * b, r"2 a \odot b"),
        (a * (2 * b), r"a \odot (2 b)"),
        (2 * (3 * a), r"2 \cdot 3 a"),
        (0.5 + 0.5 * a, "0.5 + 0.5 a"),
        (1 - a, "1 - a"),
        (tg.maximum(a, -math.inf), r"\max(a, -\infty)"),
        (a / (b / c), r"\frac{a}{\frac{b}{c}}"),
        ((a + b) ** 2, "(a + b)^{2}"),
        ((a**b) ** c, "(a^{b})^{c}"),
        (a ** (b + 1), "a^{b + 1}"),
        ((a @ b).T, r"(a b)^{\top}"),
        (tg.exp(-x * x), r"e^{-x \odot x}"),
        (tg.log1p(-x), r"\log(1 + (-x))"),
        (tg.sum(a + b) * c, r"(\sum (a + b)) \odot c"),
        (tg.tanh(a @ b + c), r"\tanh(a b + c)"),
        (tg.where(a > b, a, -b), r"\mathrm{where}([a > b], a, -b)"),
        (tg.concatenate([a, b + c], axis=1), r"\mathrm{concatenate}(a, b + c)"),
        (a * 0, "0"),
        (a @ b + 0.0, "a b"),
        ((0 + a - b) * c, r"(a - b) \odot c"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_parentheses_stand_where_precedence_asks_for_them(made, expected):
    assert made.latex == expected


def random_formula(chance: random.Random, depth: int) -> Formula:
    """A tree of operations on matrices of three by three, whose numbers stay moderate."""
    if depth == 0:
        return chance.choice([a, b, c, x])
    one, other = random_formula(chance, depth - 1), random_formula(chance, chance.randrange(depth))
    return chance.choice([
        lambda: one + other, lambda: other - one, lambda: one * other, lambda: other * one, lambda: -one,
        lambda: one @ other, lambda: other @ one, lambda: one / (1 + other * other), lambda: tg.tanh(one),
        lambda: tg.sigmoid(one) ** 2, lambda: one.T, lambda: 2 * one, lambda: one * 0.5, lambda: 1 - one,
        lambda: tg.exp(-one * one), lambda: tg.where(one > other, one, other),
    ])()  # fmt: skip


def disagreements(seeds: range) -> int:
    """How many random formulas mean something else, or nothing, when they are read back."""
    wrong = 0
    for seed in seeds:
        made = random_formula(random.Random(seed), 4)
        try:
            wrong += not np.allclose(evaluate(made.latex, VALUES), made.value, rtol=1e-9)
        except (AssertionError, ValueError, TypeError):
            wrong += 1
    return wrong


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_what_is_written_means_what_was_computed():
    assert disagreements(range(400)) == 0


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:divide by zero")
def test_the_reader_notices_missing_parentheses(monkeypatch):
    monkeypatch.setattr(formula, "NEEDS", dict.fromkeys(formula.NEEDS, formula.RELATION))
    formula._parsed.cache_clear()
    try:
        assert disagreements(range(100)) > 20
    finally:
        formula._parsed.cache_clear()


def directional(f, args, at, direction, g, step=1e-6):
    """The derivative of sum(g * f) when one argument moves in a direction, by central differences."""
    moved = [[x + s * step * direction if i == at else x for i, x in enumerate(args)] for s in (1, -1)]
    up, down = (np.sum(g * f(*each)) for each in moved)
    return (up - down) / (2 * step)


DIFFERENTIABLE = [
    name for name, op in package_primitives().items() if op.rules and name not in ("recomputed", "transfer", "astype")
]  # the first has no formula of its own, the others copy


def first_sample(name):
    return next(s for s in SAMPLES[name] if all(isinstance(x, np.ndarray) and x.size for x in s.args))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_value_of_a_derivative_formula_is_the_derivative(name):
    op, sample = PRIMITIVES[name], first_sample(name)
    _, g, derivatives = derivative_formulas(op, sample.args, sample.options)
    run = lambda *args: op.function(*args, **sample.options)  # noqa: E731
    for argument, made in derivatives.items():
        places = range(len(sample.args)) if op.variadic else [op.arrays.index(argument)]
        for place, each in zip(places, made if op.variadic else [made], strict=True):
            array = sample.args[place]
            direction = np.random.default_rng(place).standard_normal(array.shape)
            slope = np.sum(np.broadcast_to(each.value, np.broadcast_shapes(each.shape, array.shape)) * direction)
            assert slope == pytest.approx(directional(run, sample.args, place, direction, g.value), rel=1e-6, abs=1e-7)


ELEMENTWISE = [op.name for op in tables.table()["tinygrad_rnn.ops.elementwise"] if op.rules]


@pytest.mark.parametrize("name", ["matmul", "transpose", *ELEMENTWISE])
def test_the_latex_of_a_derivative_is_the_derivative(name):
    op = PRIMITIVES[name]
    args, options = tables.sample(op)
    y, g, derivatives = derivative_formulas(op, args, options)
    values = {formula.identifier(argument): array for argument, array in zip(op.arrays, args, strict=True)}
    values |= {formula.identifier(option): value for option, value in {**op.defaults, **options}.items()}
    values |= {"y": y.value, r"\bar{y}": g.value}
    run = lambda *args: op.function(*args, **options)  # noqa: E731
    for argument, made in derivatives.items():
        array, place = args[op.arrays.index(argument)], op.arrays.index(argument)
        direction = np.random.default_rng(place).standard_normal(array.shape)
        slope = np.sum(evaluate(made.latex, values) * direction)
        assert slope == pytest.approx(directional(run, args, place, direction, g.value), rel=1e-6)


def test_a_wrong_rule_has_a_wrong_formula():
    @tg.primitive("elementwise", dx=lambda g, x: g * x)  # the factor 2 is missing
    def forgetful_square(xp, x):
        return x * x

    try:
        _, g, derivatives = derivative_formulas(forgetful_square.primitive, [np.array([0.7, -1.2])])
        slope = directional(forgetful_square, [np.array([0.7, -1.2])], 0, np.ones(2), g.value)
        assert np.sum(derivatives["x"].value) != pytest.approx(slope, rel=1e-3)
        assert derivatives["x"].latex == r"\bar{y} \odot x"
    finally:
        del PRIMITIVES["forgetful_square"]


def test_ones_own_primitive_has_its_own_notation_or_its_name():
    @tg.primitive("bilinear", latex=r"{left} \times {right}", dleft=lambda g, right: g * right)
    def cross_of_two(xp, left, right):
        return left * right

    @tg.primitive("elementwise", dx=lambda g, x, rho: g * rho)
    def scaled_by(xp, x, *, rho=2.0):
        return x * rho

    try:
        assert cross_of_two(a + b, c).latex == r"(a + b) \times c"
        y, _, derivatives = derivative_formulas(scaled_by.primitive, [np.ones(3)])
        assert y.latex == r"\mathrm{scaled\ by}(x)"
        assert derivatives["x"].latex == r"\rho \bar{y}"
    finally:
        del PRIMITIVES["cross_of_two"], PRIMITIVES["scaled_by"]


def test_a_state_that_passes_through_keeps_its_name():
    class Pass(cells.RNNStep):
        pass

    assert equations(lambda h: Pass(h), symbol("h_{t-1}", np.ones(2))) == {"h": "h_t = h_{t-1}"}


def test_the_reader_knows_a_product_from_another():
    with pytest.raises(AssertionError, match="two kinds"):
        evaluate(r"a \odot b c", VALUES)
    np.testing.assert_allclose(evaluate(r"2 a \odot b", VALUES), 2 * a.value * b.value)
    assert set(FUNCTIONS)


def test_formulas_show_themselves_in_notebooks():
    assert (a + b)._repr_latex_() == "$a + b$"
    assert repr(a @ b) == "<Formula a b>"
