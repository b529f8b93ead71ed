"""Random graphs with shared nodes and broadcasting have the same gradients here and in the naive engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutated
from naive import OPS, Value, gradient

import tinygrad_rnn as tg
from tinygrad_rnn.core import autodiff

OURS: dict[str, Any] = {
    "add": tg.add, "sub": tg.sub, "mul": tg.mul, "div": lambda a, b: a / b, "tanh": tg.tanh, "sin": tg.sin,
    "total": tg.sum, "column": lambda a: a[..., :1], "turned": lambda a: a.T, "product": tg.matmul,
}  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "product")

# each step names an operation and which of the values so far it takes, counted from the end
steps = st.lists(st.tuples(st.sampled_from(sorted(OPS)), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9)
shapes = st.lists(st.sampled_from([(), (3,), (2, 1), (1, 3), (2, 3), (3, 2)]), min_size=1, max_size=3)


def built(
    numbers: list[np.ndarray], program: list[tuple[str, int, int]], wrap: Any, ops: dict[str, Any]
) -> tuple[list[Any], Any]:
    """The leaves and the last value of a program; steps whose operands do not fit are left out in both engines."""
    leaves = [wrap(x) for x in numbers]
    values = list(leaves)
    for name, i, j in program:
        a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
        shape, other = [np.shape(getattr(x, "array", x)) if isinstance(x, Value) else x.shape for x in (a, b)]
        if name == "product" and not (len(shape) == len(other) == 2 and shape[1] == other[0]):
            continue
        if name in BINARY and name != "product":
            try:
                np.broadcast_shapes(shape, other)
            except ValueError:
                continue
        if name == "column" and not shape:
            continue
        if name == "div":
            b = ops["add"](ops["mul"](b, b), wrap(np.array(1.5)))  # away from 0
        y = ops[name](a, b) if name in BINARY else ops[name](a)
        values.append(ops["tanh"](y) if name in ("mul", "product", "total") else y)  # lest numbers explode
    return leaves, values[-1]


def compare(forms: list[tuple[int, ...]], program: list[tuple[str, int, int]]) -> None:
    rng = np.random.default_rng(len(program))
    numbers = [rng.normal(size=form) for form in forms]
    naive_leaves, naive_y = built(numbers, program, Value, OPS)
    leaves, y = built(numbers, program, lambda x: tg.tensor(x, requires_grad=True), OURS)
    np.testing.assert_allclose(y.numpy(), naive_y.array, rtol=1e-12, atol=1e-14)
    g = rng.normal(size=y.shape)
    y.backward(g)
    for x, naive in zip(leaves, naive_leaves, strict=True):
        expected = gradient(naive_y, naive, g)
        found = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    for x, d in zip(leaves, tg.pullback(y, leaves, g, create_graph=True), strict=True):
        np.testing.assert_allclose(
            d.numpy(), np.zeros(x.shape) if x.grad is None else x.grad.numpy(), rtol=1e-9, atol=1e-11
        )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(shapes, steps)
def test_random_graphs(forms: list[tuple[int, ...]], program: list[tuple[str, int, int]]) -> None:
    compare(forms, program)


DIAMOND = [((2, 3),), [("sin", 0, 0), ("mul", 0, 1), ("add", 0, 1), ("add", 0, 2)]]
STRETCHED = [((2, 3), (3,)), [("mul", 0, 1)]]


@pytest.mark.parametrize(
    ("forms", "program", "old", "new"),
    [
        (*DIAMOND, "pending[at] = before + d", "pending[at] = d"),
        (*DIAMOND, "(-at, x)", "(at, x)"),
        (*STRETCHED, "g = fitted(g, node)", "g = g[0] if g.ndim > node.ndim else g"),
    ],
)
def test_a_broken_engine_is_caught(
    forms: Any, program: Any, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(list(forms), program)
    mutated(monkeypatch, autodiff, "pull", old, new)
    with pytest.raises((AssertionError, KeyError)):
        compare(list(forms), program)
