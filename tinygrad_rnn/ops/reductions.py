"""Sums, extremes and other operations that take several elements to one.

`axis` is an integer, a tuple of them, or None for all; `keepdims=True` keeps the reduced axes, of length 1. What is
left of x's shape are the other axes: over axis 0, (T, N, H) -> (N, H).

Raises, in all of them: ShapeError for an axis that is not there, and for an extreme of no elements; DtypeError for
    numbers that a function does not take.
"""

from __future__ import annotations

import math

from ..core.broadcasting import astype, broadcast_to
from ..core.primitive import primitive
from ..errors import OptionError
from .elementwise import exp, where
from .shapes import axes_of, flip, reshape


def _restored(g, x, axis, keepdims):
    """g with the reduced axes of x back in place, of length 1."""
    if keepdims or not x.shape:
        return g
    gone = axes_of(x, axis)
    return reshape(g, tuple([1 if i in gone else n for i, n in enumerate(x.shape)]))


def _spread(g, x, axis, keepdims):
    return broadcast_to(_restored(g, x, axis, keepdims), shape=x.shape)


def _shared(g, n):
    return g / n if n <= 65504 else g * (1 / n)  # more than float16 can count


def count(x, axis):
    """How many elements of x a reduction over `axis` takes together."""
    return math.prod([x.shape[a] for a in axes_of(x, axis)])


@primitive("linear", latex=r"\sum {x}", dx=_spread)
def sum(xp, x, *, axis=None, keepdims=False):
    """Sum; 0 over no elements."""
    return xp.sum(x, axis=axis, keepdims=keepdims)


@primitive("linear", dx=lambda g, x, axis, keepdims: _spread(_shared(g, count(x, axis)), x, axis, keepdims))
def mean(xp, x, *, axis=None, keepdims=False):
    """Mean; nan over no elements."""
    return xp.mean(x, axis=axis, keepdims=keepdims)


def _winners(g, y, x, axis, keepdims):
    """The gradient of an extreme: shared evenly among the elements that attain it."""
    hit = astype(x == _restored(y, x, axis, keepdims), dtype=x.dtype)
    return _restored(g, x, axis, keepdims) * hit / sum(hit, axis=axis, keepdims=True)


@primitive("general", analytic=False, latex=r"\max({x})", dx=_winners)
def max(xp, x, *, axis=None, keepdims=False):
    """Maximum; elements that tie share the gradient evenly."""
    return xp.max(x, axis=axis, keepdims=keepdims)


@primitive("general", analytic=False, latex=r"\min({x})", dx=_winners)
def min(xp, x, *, axis=None, keepdims=False):
    """Minimum; elements that tie share the gradient evenly."""
    return xp.min(x, axis=axis, keepdims=keepdims)


def degrees(x, axis, correction):
    """What the squares of a variance are divided by; not below 0, so that too few elements give inf, as in NumPy."""
    n = count(x, axis)
    return (n - correction) * (n > correction)


def _std_slope(g, y, x, axis, keepdims, correction):
    y = _restored(y, x, axis, keepdims)
    safe = where(y == 0, math.inf, y) * degrees(x, axis, correction)
    return _restored(g, x, axis, keepdims) * (x - mean(x, axis=axis, keepdims=True)) / safe


@primitive("general", dx=_std_slope)
def std(xp, x, *, axis=None, keepdims=False, correction=0):
    """Standard deviation: the root of the variance, with derivative 0 where it is 0.

    correction: as in `tg.var`.
    """
    away = x - xp.mean(x, axis=axis, keepdims=True)
    return xp.sqrt(xp.sum(away * away, axis=axis, keepdims=keepdims) / degrees(x, axis, correction))


def _norm_slope(g, y, x, axis, keepdims):
    y = _restored(y, x, axis, keepdims)
    return _restored(g, x, axis, keepdims) * x / where(y == 0, math.inf, y)


@primitive("general", latex=r"\lVert {x} \rVert", dx=_norm_slope)
def norm(xp, x, *, ord=None, axis=None, keepdims=False):
    """Euclidean length: the root of the sum of squares, with derivative 0 where it is 0.

    ord: None, or 2 along a single axis, which is the same.

    Raises: OptionError for another norm.
    """
    if ord is not None and (ord != 2 or len(axes_of(x, axis)) != 1):
        raise OptionError(f"norm is the Euclidean one: ord is None, or 2 along a single axis, not {ord!r}")
    x = x + 0.0 if x.dtype.kind in "biu" else x  # squares of integers overflow
    return xp.sqrt(xp.sum(x * x, axis=axis, keepdims=keepdims))


@primitive(
    "general", latex=r"\log \sum e^{{x}}",
    dx=lambda g, y, x, axis, keepdims: _restored(g, x, axis, keepdims) * exp(x - _restored(y, x, axis, keepdims)),
)  # fmt: skip
def logsumexp(xp, x, *, axis=None, keepdims=False):
    """log(sum(exp(x))), without overflow; -inf over no elements."""
    if not x.size:
        return xp.sum(x, axis=axis, keepdims=keepdims) - math.inf
    top = xp.max(x.real, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0)
    total = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis)


def _top(xp, x, axis):
    """The maximum along an axis, which may have no elements."""
    return xp.max(x.real, axis=axis, keepdims=True) if x.size else 0


@primitive("general", dx=lambda g, y, axis: y * (g - sum(g * y, axis=axis, keepdims=True)))
def softmax(xp, x, *, axis=-1):
    """exp(x) / sum(exp(x)) along an axis, without overflow; the shape stays."""
    y = xp.exp(x - _top(xp, x, axis))
    return y / xp.sum(y, axis=axis, keepdims=True)


@primitive(
    "general", latex=r"\log\mathrm{softmax}({x})", dx=lambda g, y, axis: g - exp(y) * sum(g, axis=axis, keepdims=True)
)
def log_softmax(xp, x, *, axis=-1):
    """log(softmax(x)) along an axis, without overflow; the shape stays."""
    y = x - _top(xp, x, axis)
    return y - xp.log(xp.sum(xp.exp(y), axis=axis, keepdims=True))


@primitive("linear", dx=lambda g, x, axis: reshape(flip(cumsum(flip(g, axis), axis=axis), axis), x.shape))
def cumsum(xp, x, *, axis=None):
    """Running sum along an axis, the shape stays; None runs over all elements on one axis."""
    return xp.cumsum(x, axis=axis)


@primitive("general", analytic=False)
def argmax(xp, x, *, axis=None, keepdims=False):
    """Where the maximum is (the first, at a tie), as int64; None counts over all elements. No gradient."""
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@primitive("general", analytic=False)
def argmin(xp, x, *, axis=None, keepdims=False):
    """Where the minimum is (the first, at a tie), as int64; None counts over all elements. No gradient."""
    return xp.argmin(x, axis=axis, keepdims=keepdims)
