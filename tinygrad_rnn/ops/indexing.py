"""Picking elements, and its transpose: adding a gradient back at the places it came from."""

from __future__ import annotations

from ..backend import as_array
from ..core.autodiff import Part
from ..core.modes import current
from ..core.primitive import primitive
from ..core.tensor import Tensor
from ..errors import BackendError, IndexOutOfRange


@primitive("linear", latex="{x}[{key}]", dx=lambda g, x, key: _embed(g, x, key))
def index(xp, x, *, key):
    """x[key], as NumPy indexes: integers, slices, None, ..., a mask, arrays of integers."""
    if current().debug:
        _check(xp, x, key)
    return x[key]


@primitive("linear", dx=lambda g, key: index(g, key=key))
def scatter(xp, x, *, key, shape):
    """Zeros of `shape` with x added at [key]; an element that is named twice receives both."""
    return Part(x, key, _unique(key), shape).whole()


def _embed(g, x, key):
    if isinstance(g, Tensor) or hasattr(g, "__apply_primitive__"):
        return scatter(g, key=key, shape=x.shape)
    return Part(g, key, _unique(key), x.shape)


def _unique(key):
    """Whether no element can be named twice: only arrays of integers can do that."""
    parts = key if isinstance(key, tuple) else (key,)
    return not any(getattr(part, "dtype", None) is not None and part.dtype.kind in "iu" and part.ndim for part in parts)


def _check(xp, x, key):
    """CuPy wraps an index that is out of range around silently; look at the numbers instead."""
    parts = key if isinstance(key, tuple) else (key,)
    kinds = [getattr(getattr(part, "dtype", None), "kind", "") for part in parts]
    widths = [0 if p is None or p is Ellipsis else p.ndim if kind == "b" else 1 for p, kind in zip(parts, kinds)]
    axis = 0
    for part, kind, width in zip(parts, kinds, widths):
        if kind and kind in "iu" and part.size and axis < x.ndim:
            low, high = int(xp.min(part)), int(xp.max(part))
            if low < -x.shape[axis] or high >= x.shape[axis]:
                worst = low if low < -x.shape[axis] else high
                raise IndexOutOfRange(f"index {worst} is out of range for axis {axis} of length {x.shape[axis]}")
        axis += x.ndim - sum(widths) if part is Ellipsis else width


def getitem(x, key):
    """`x[key]`: what is not a number, a slice, None or ... becomes an array where x lies."""
    parts = key if isinstance(key, tuple) else (key,)
    plain = [isinstance(part, (int, slice)) or part is None or part is Ellipsis for part in parts]
    return index(x, key=tuple([part if ok else _places(part, x.backend) for part, ok in zip(parts, plain)]))


def _places(part, backend):
    """An array of an index; an empty list has no dtype, and names integers."""
    if isinstance(part, Tensor):
        if part.backend != backend:
            raise BackendError(f"the index {part.label} lies on {part.backend}; bring it along with .to({backend!r})")
        return part._array
    found = as_array(part, backend)
    return found if found.size or hasattr(part, "dtype") else found.astype("int64")
