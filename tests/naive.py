"""The simplest automatic differentiation there is, as an oracle: a closure per edge, each path alone, recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Edge = tuple["Value", Callable[[np.ndarray], np.ndarray]]


class Value:
    """A number or array, and for each thing that it was made from how a gradient passes on to it."""

    def __init__(self, array: Any, *edges: Edge) -> None:
        self.array, self.edges = np.asarray(array, float), edges


def copies_summed(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of a value that was copied to g's shape, one element at a time."""
    total = np.zeros(shape)
    for place in np.ndindex(g.shape):
        home = place[len(place) - len(shape) :]
        total[tuple(0 if n == 1 else i for i, n in zip(home, shape, strict=True))] += g[place]
    return total


def gradient(y: Value, x: Value, g: np.ndarray) -> np.ndarray:
    """dy/dx: over all paths from y to x, the sum of what arrives along each."""
    g = copies_summed(np.asarray(g), y.array.shape)
    total = g if y is x else np.zeros(x.array.shape)
    return total + sum(gradient(before, x, pull(g)) for before, pull in y.edges)


OPS: dict[str, Callable[..., Value]] = {
    "add": lambda a, b: Value(a.array + b.array, (a, lambda g: g), (b, lambda g: g)),
    "sub": lambda a, b: Value(a.array - b.array, (a, lambda g: g), (b, lambda g: -g)),
    "mul": lambda a, b: Value(a.array * b.array, (a, lambda g: g * b.array), (b, lambda g: g * a.array)),
    "div": lambda a, b: Value(
        a.array / b.array, (a, lambda g: g / b.array), (b, lambda g: -g * a.array / b.array**2)
    ),
    "tanh": lambda a: Value(np.tanh(a.array), (a, lambda g: g / np.cosh(a.array) ** 2)),
    "sin": lambda a: Value(np.sin(a.array), (a, lambda g: g * np.cos(a.array))),
    "total": lambda a: Value(a.array.sum(), (a, lambda g: g * np.ones(a.array.shape))),
    "column": lambda a: Value(a.array[..., :1],
        (a, lambda g: np.pad(g, [*[(0, 0)] * (g.ndim - 1), (0, a.array.shape[-1] - 1)]))),
    "turned": lambda a: Value(a.array.T, (a, lambda g: g.T)),
    "product": lambda a, b: Value(a.array @ b.array, (a, lambda g: g @ b.array.T), (b, lambda g: a.array.T @ g)),
}  # fmt: skip
