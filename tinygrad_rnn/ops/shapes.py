"""Operations that move elements and compute nothing: most are views of the same numbers.

Raises, in all of them: ShapeError for an axis that is not there, and for lengths that do not fit; BackendError for
    arrays of two backends.
"""

from __future__ import annotations

import math
from itertools import accumulate

from ..backend import as_array, backend_of
from ..core.broadcasting import broadcast_to
from ..core.primitive import primitive
from ..core.tensor import Tensor
from ..errors import OptionError, ShapeError


def axes_of(x, axis):
    """The axes that an integer, a tuple of them or None (all) names, counted from the front.

    Raises: ShapeError, if x has no such axis.
    """
    count = len(x.shape)
    axes = range(count) if axis is None else (axis,) if hasattr(axis, "__index__") else axis
    for each in axes:
        if not hasattr(each, "__index__"):
            raise ShapeError(f"an axis is an integer, a tuple of them or None, not {axis!r}")
        if not -count <= each < count:
            raise ShapeError(f"axis {each} is out of bounds for an array of shape {tuple(x.shape)}")
    return tuple([each % count for each in axes])


def axis_of(x, axis):
    """A single axis, counted from the front."""
    if not hasattr(axis, "__index__"):
        raise ShapeError(f"axis is a single integer here, not {axis!r}")
    return axes_of(x, axis)[0]


def shaped(x, beside=None):
    """x itself, or for a list or a number the Tensor of it, on the backend of what it goes with."""
    return x if hasattr(x, "shape") else Tensor(as_array(x, _home(beside) if hasattr(beside, "shape") else None))


@primitive("linear", dx=lambda g, x: reshape(g, x.shape))
def reshape(xp, x, *, shape):
    """The same elements, in the same order, in another shape; one length may be -1, and follows from the others."""
    return x.reshape(shape)


@primitive("linear", latex=r"{x}^{\top}", dx=lambda g, axes: transpose(g, axes and _inverse(axes)))
def transpose(xp, x, *, axes=None):
    """The axes in another order: with axes (2, 0, 1), (T, N, H) -> (H, T, N); None reverses them."""
    return xp.transpose(x, axes)


def _inverse(axes):
    moved = [axis % len(axes) for axis in axes]
    return tuple(moved.index(i) for i in range(len(axes)))


@primitive("linear", latex=r"{x}^{\top}", dx=lambda g, axis1, axis2: swapaxes(g, axis1, axis2))
def swapaxes(xp, x, *, axis1, axis2):
    """Two axes exchanged: 0 and 1, (T, N, H) -> (N, T, H)."""
    return xp.swapaxes(x, axis1, axis2)


@primitive("linear", dx=lambda g, source, destination: moveaxis(g, destination, source))
def moveaxis(xp, x, *, source, destination):
    """Axes moved to other places, the others keeping their order: from 0 to -1, (T, N, H) -> (N, H, T)."""
    return xp.moveaxis(x, source, destination)


@primitive("linear", latex="{x}", dx=lambda g, x: reshape(g, x.shape))
def expand_dims(xp, x, *, axis):
    """New axes of length 1, at the places that `axis` names in the result: at 0, (N, H) -> (1, N, H)."""
    return xp.expand_dims(x, axis)


@primitive("linear", latex="{x}", dx=lambda g, x: reshape(g, x.shape))
def squeeze(xp, x, *, axis=None):
    """Axes of length 1 left out; None means all of them: (1, N, 1) -> (N)."""
    return xp.squeeze(x, axis)


@primitive("linear", darrays=lambda g, arrays, axis: _cut(g, arrays, axis))
def concatenate(xp, *arrays, axis=0):
    """A list of arrays joined along an existing axis, the others being equal; None joins all elements on one axis."""
    return xp.concatenate(arrays, axis)


def _cut(g, arrays, axis):
    sizes = [math.prod(x.shape) if axis is None else x.shape[axis] for x in arrays]
    lead = (slice(None),) * axes_of(g, axis or 0)[0]
    pieces = [g[(*lead, slice(stop - n, stop))] for n, stop in zip(sizes, accumulate(sizes), strict=True)]
    return pieces if axis is not None else [reshape(piece, x.shape) for piece, x in zip(pieces, arrays, strict=True)]


@primitive("linear", darrays=lambda g, axis: unstack(g, axis))
def stack(xp, *arrays, axis=0):
    """A list of arrays of one shape joined along a new axis: T arrays (N, H) -> (T, N, H)."""
    return xp.stack(arrays, axis)


def unstack(x, axis=0):
    """The slices of x along an axis, as a tuple; the transpose of `stack`: (T, N, H) -> T tensors (N, H)."""
    x = shaped(x)
    axis = axis_of(x, axis)
    return tuple([x[(*(slice(None),) * axis, i)] for i in range(x.shape[axis])])


def ravel(x):
    """All elements on one axis: (T, N, H) -> (T*N*H)."""
    return reshape(x, (-1,))


@primitive("linear", dx=lambda g, axis: flip(g, axis))
def flip(xp, x, *, axis=None):
    """The order of elements reversed along an axis, several, or (None) all; the shape stays."""
    return xp.flip(x, axis)


@primitive("linear", dx=lambda g, shift, axis: roll(g, _negative(shift), axis))
def roll(xp, x, *, shift, axis=None):
    """Elements shifted along an axis; what leaves at the end comes back at the start.

    shift, axis: numbers, or tuples of them; None shifts all elements as if on one axis. The shape stays.
    """
    return xp.roll(x, shift, axis)


def _negative(shift):
    return tuple(-s for s in shift) if isinstance(shift, tuple) else -shift


@primitive("general", dx=lambda g, x, pad_width: g[_inner(x, pad_width)])
def pad(xp, x, *, pad_width, mode="constant", constant_values=0):
    """x with constants around it: pad_width is a number, a pair (before, after), or a pair for each axis.

    mode: "constant". constant_values: the constant.

    Raises: OptionError for another mode, or widths that are no whole numbers of at least 0.
    """
    if mode != "constant":
        raise OptionError(f"pad has mode='constant' only, not {mode!r}")
    return xp.pad(x, _pairs(x, pad_width), constant_values=constant_values)


def _pairs(x, width):
    """How many elements come before and after, for each axis of x: pad_width broadcasts, as in NumPy."""
    width = as_array(width, "numpy")
    if width.dtype.kind not in "iu" or (width < 0).any():
        raise OptionError(f"pad_width is whole numbers of at least 0, not {width.tolist()}")
    return broadcast_to(width, shape=(len(x.shape), 2)).tolist()


def _inner(x, width):
    return tuple([slice(before, before + n) for (before, _), n in zip(_pairs(x, width), x.shape, strict=True)])


@primitive("linear", dx=lambda g, k: tril(g, k))
def tril(xp, x, *, k=0):
    """The lower triangle: zero above the k-th diagonal of the last two axes; the shape stays."""
    return xp.tril(x, k)


@primitive("linear", dx=lambda g, k: triu(g, k))
def triu(xp, x, *, k=0):
    """The upper triangle: zero below the k-th diagonal of the last two axes; the shape stays."""
    return xp.triu(x, k)


@primitive("linear", latex="{x}", dx=lambda g, x: transfer(g, _home(x)))
def transfer(xp, x, *, backend):
    """x on another backend, such as "cupy"; its gradient comes back to where x lies."""
    return as_array(x, backend)


def _home(x):
    return x.backend if hasattr(x, "backend") else backend_of(x).name_of(x)
