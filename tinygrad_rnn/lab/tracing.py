"""A computation whose tensors are called like the variables of the function that made them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, iscoroutine, signature
from types import FrameType
from typing import Any

from ..core.modes import enable_grad
from ..core.tensor import Tensor, next_age, tensor
from ..errors import GraphError, LabError


def traced(function: Callable[..., Any], *xs: Any) -> Tensor:
    """The result of a function at copies of its arguments, of which the floating ones have gradients and names.

    These share the widest dtype among them; numbers of Python's have that one, or float32, if they are alone.
    What it computes and still has in a variable when it returns is called like that; its result, if nobody has named
    it, like the function.

    Raises: GraphError, if it returns no Tensor, or if nothing is floating; LabError, as `parameters_of`.
    """
    called = [p.name for p in parameters_of(function)]
    called += [f"x{i}" for i in range(len(called), len(xs))]
    name, born = getattr(function, "__name__", "y"), next_age()
    dtypes = [x.dtype for x in xs if getattr(getattr(x, "dtype", None), "kind", "") == "f"]
    wide = max(dtypes, key=lambda dtype: dtype.itemsize, default=None)
    leaves = [_leaf(x, each, wide) for x, each in zip(xs, called)]
    with enable_grad(), _variables_named(function, born):
        y = function(*leaves)
    if iscoroutine(y):
        y.close()  # or Python warns that nobody waits for it
    if leaves and not any(getattr(each, "requires_grad", False) for each in (y, *leaves)):
        raise GraphError(f"no argument of {name} is floating, and whole numbers have no derivatives: give 1.0 for 1")
    if not isinstance(y, Tensor):
        raise GraphError(f"{name} must return a Tensor, not {type(y).__name__}: tg's functions of its arguments do")
    _name(y, name if name.isidentifier() else "y", born)  # a lambda has no name
    return y


def _name(t: Any, name: str, born: int) -> None:
    """Give a name to a result that is younger than that and has none."""
    if type(t) is Tensor and t.op is not None and t.age > born and not t.name:
        t.name = name


@contextmanager
def _variables_named(function: Callable[..., Any], born: int) -> Iterator[None]:
    """Inside, results of the function that have no name are called like the variables that it has when it returns."""
    code, before = getattr(function, "__code__", None), sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            for name, value in frame.f_locals.items():
                _name(value, name, born)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


def _leaf(x: Any, name: str, wide: Any) -> Any:
    """A copy of numbers, with a gradient if they are floating; anything else as it is."""
    if not (isinstance(x, (float, list, tuple)) or hasattr(x, "dtype")):
        return x
    leaf = tensor(x, backend=getattr(x, "backend", None), name=getattr(x, "name", None) or name)
    if leaf.dtype.kind == "f":
        leaf = tensor(x, dtype=wide, requires_grad=True, backend=leaf.backend, name=leaf.name)
    return leaf


def parameters_of(function: Callable[..., Any]) -> list[Parameter]:
    """Those that arguments by position go to, one each. Raises: LabError, if Python cannot tell."""
    try:
        found = signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise LabError(f"{error}: give a function of yours, such as a lambda") from None
    return [p for p in found if p.kind <= Parameter.POSITIONAL_OR_KEYWORD]
