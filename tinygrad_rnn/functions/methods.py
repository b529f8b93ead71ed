"""Gives Tensor its operators and methods: each is a function of the table under the name that Python or NumPy has."""

from __future__ import annotations

from ..core import autodiff
from ..core.broadcasting import astype
from ..core.tensor import Tensor
from ..ops import elementwise as e
from ..ops import indexing, matmul, reductions, shapes
from . import composed

OPERATORS = {
    "add": e.add, "sub": e.sub, "mul": e.mul, "truediv": e.div, "pow": e.power, "matmul": matmul.matmul,
}  # fmt: skip
COMPARISONS = {
    "eq": e.equal, "ne": e.not_equal, "lt": e.less, "le": e.less_equal, "gt": e.greater, "ge": e.greater_equal,
}  # fmt: skip
METHODS = [
    e.abs, e.clip, e.exp, e.log, e.sqrt, e.tanh, e.sigmoid, e.relu, astype,
    reductions.sum, reductions.mean, reductions.max, reductions.min, composed.prod, composed.var, reductions.std,
    reductions.cumsum, reductions.argmax, reductions.argmin, composed.dot,
    shapes.swapaxes, shapes.ravel, shapes.squeeze, composed.repeat, composed.take, composed.diagonal,
]  # fmt: skip


def _reversed(function):
    return lambda self, other: function(other, self)


def _to(self, backend):
    """The same numbers on another backend, such as "numpy", "cupy" or "cupy:1"; gradients come back.

    Raises: BackendUnavailable, with the reason and what to install.
    """
    return shapes.transfer(self, backend)


def _shape_from(function):
    """NumPy lets the lengths or axes of these be given one by one: x.reshape(2, 3)."""

    def method(self, *numbers):
        return function(self, numbers[0] if len(numbers) == 1 and not isinstance(numbers[0], int) else numbers or None)

    method.__doc__ = function.__doc__
    return method


def operators(cls):
    """Install Python's operators and the methods of the table on a class of numbers."""
    for name, function in OPERATORS.items():
        setattr(cls, f"__{name}__", function)
        setattr(cls, f"__r{name}__", _reversed(function))
    for name, function in COMPARISONS.items():
        setattr(cls, f"__{name}__", function)
    cls.__neg__, cls.__abs__, cls.__invert__ = e.neg, e.abs, e.logical_not
    cls.__getitem__ = indexing.getitem
    cls.reshape, cls.transpose = _shape_from(shapes.reshape), _shape_from(shapes.transpose)
    cls.T = property(shapes.transpose, doc="The axes in reverse order.")
    for function in METHODS:
        setattr(cls, function.__name__, function)
    return cls


operators(Tensor)
for name, method in {"to": _to, "backward": autodiff.backward}.items():
    setattr(Tensor, name, method)
