"""What NumPy offers beyond the table: composed of primitives, and so without a derivative rule of its own."""

from __future__ import annotations

import math
import operator
from functools import wraps
from itertools import pairwise

import numpy as np

from ..backend import backend_of
from ..core.broadcasting import broadcast_to
from ..errors import DtypeError, OptionError, ShapeError
from ..ops.elementwise import square
from ..ops.matmul import contract
from ..ops.reductions import degrees, mean, sum
from ..ops.shapes import axes_of, axis_of, concatenate, expand_dims, moveaxis, ravel, reshape, shaped, transpose


def lists_too(function):
    """Let a composed function take a list or a number for its first argument, as primitives do."""
    return wraps(function)(lambda x, *args, **options: function(shaped(x), *args, **options))


def _whole(value, name, least=0):
    """A count as a Python integer: NumPy's integers will do, and so does a bool, as in NumPy."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = -1
    if whole < least:
        raise OptionError(f"{name} is an integer of at least {least}, not {value!r}")
    return whole


def _along(x, axis):
    """x and one of its axes, counted from the front; None means all elements on one axis."""
    x = ravel(x) if axis is None or not x.shape else x  # NumPy lets a scalar have an axis 0
    return x, axis_of(x, axis or 0)


@lists_too
def prod(x, axis=None, keepdims=False):
    """Product; 1 over no elements. Its derivatives are right at zeros too: halves are multiplied with each other.

    axis, keepdims: as in `tg.sum`.

    Raises: ShapeError for an axis that is not there.
    """
    if not x.shape:
        return prod(ravel(x), axis)  # NumPy lets a scalar have an axis 0
    axes, shape = axes_of(x, axis), tuple(x.shape)
    kept = [i for i in range(len(shape)) if i not in axes]
    final = tuple([1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes])
    x = reshape(transpose(x, (*kept, *axes)), (*[shape[i] for i in kept], math.prod([shape[i] for i in axes])))
    if x.dtype.kind in "biu":
        x = sum(expand_dims(x, -1), axis=-1)  # in the wide dtype that NumPy gives sums and products of small integers
    if not x.shape[-1]:
        return reshape(sum(x, axis=-1) + 1, final)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        paired = x[..., :half] * x[..., half : 2 * half]
        x = paired if x.shape[-1] == 2 * half else concatenate([paired, x[..., -1:]], axis=-1)
    return reshape(x, final)


@lists_too
def var(x, axis=None, keepdims=False, correction=0):
    """Variance: the sum of the squared distances from the mean over count - correction.

    axis, keepdims: as in `tg.sum`. correction: 0 divides by the count, as NumPy does, 1 by one less, as PyTorch does.

    Raises: ShapeError for an axis that is not there.
    """
    away = x - mean(x, axis=axis, keepdims=True)
    return sum(square(away), axis=axis, keepdims=keepdims) / degrees(x, axis, correction)


@lists_too
def split(x, indices_or_sections, axis=0):
    """x cut along an axis into equal sections (an integer) or at the given indices, as a list.

    Raises: ShapeError, if the axis does not divide into equal sections; OptionError for fewer sections than 1.
    """
    axis = axis_of(x, axis)
    length, lead = x.shape[axis], (slice(None),) * axis
    if not np.ndim(indices_or_sections):
        sections = _whole(indices_or_sections, "indices_or_sections", 1)
        if length % sections:
            raise ShapeError(f"an axis of length {length} does not divide into {sections} equal sections")
        indices_or_sections = [length // sections * i for i in range(1, sections)]
    return [x[(*lead, slice(a, b))] for a, b in pairwise([0, *indices_or_sections, length])]


@lists_too
def tile(x, reps):
    """x repeated like tiles, `reps` times along each axis: (2, 3) tiled (2, 1) -> (4, 3).

    Raises: OptionError for what are no whole numbers of at least 0.
    """
    reps = tuple([_whole(n, "reps") for n in np.atleast_1d(reps)])
    reps, shape = (1,) * (len(x.shape) - len(reps)) + reps, (1,) * (len(reps) - len(x.shape)) + tuple(x.shape)
    between = tuple(n for size in shape for n in (1, size))
    across = tuple(n for times, size in zip(reps, shape, strict=True) for n in (times, size))
    final = tuple(times * size for times, size in zip(reps, shape, strict=True))
    return reshape(broadcast_to(reshape(x, between), shape=across), final)


@lists_too
def repeat(x, repeats, axis=None):
    """Each element `repeats` times in a row along an axis (None: of all elements on one axis).

    repeats: one number for all elements.

    Raises: OptionError for what is no whole number of at least 0; ShapeError for an axis that is not there.
    """
    (x, axis), times = _along(x, axis), _whole(repeats, "repeats")
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    wide = broadcast_to(expand_dims(x, axis + 1), shape=(*before, size, times, *after))
    return reshape(wide, (*before, size * times, *after))


@lists_too
def take(x, indices, axis=None):
    """The slices of x at `indices` (integers of any shape) along an axis; None indexes all elements on one axis.

    (A, n, B) and indices of shape S along the axis of length n -> (A, S, B).

    Raises: IndexOutOfRange, on a GPU under `debug()` only; ShapeError for an axis that is not there; BackendError.
    """
    x, axis = _along(x, axis)
    if not hasattr(indices, "dtype"):
        indices = np.asarray(indices, None if np.size(indices) else np.int64)
    if indices.dtype.kind == "b":
        indices = indices * 1  # here True is the index 1, not a mask
    return x[(*(slice(None),) * axis, indices)]


@lists_too
def take_along_axis(x, indices, axis=-1):
    """One element of x for each of `indices`, matched position by position along the other axes.

    indices: integers, as many axes as x has; the result has their shape. axis: None takes all elements on one axis.

    Raises: ShapeError for another number of axes; DtypeError for indices that are no integers; IndexOutOfRange.
    """
    (x, axis), indices = _along(x, axis), shaped(indices, x)
    if len(indices.shape) != len(x.shape):
        raise ShapeError(f"take_along_axis: indices of shape {indices.shape} for {x.shape}; they need as many axes")
    if indices.dtype.kind not in "iu":
        raise DtypeError(f"take_along_axis: indices are integers, not {indices.dtype}")
    arange = backend_of(getattr(x, "_array", x)).xp.arange  # where x lies, so that nothing is copied there
    key = [arange(n).reshape(-1, *(1,) * (len(x.shape) - i - 1)) for i, n in enumerate(x.shape)]
    key[axis] = indices
    return x[tuple(key)]


@lists_too
def diagonal(x, offset=0, axis1=0, axis2=1):
    """The elements x[i, i + offset] of two axes, on a new last axis: (n, m, ...) -> (..., min(n, m)) at offset 0.

    Raises: ShapeError for an axis that is not there.
    """
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = max(0, -offset), max(0, offset)
    n = max(0, min(rows - first[0], columns - first[1]))
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    start = first[0] * columns + first[1]
    return flat[..., start : start + n * (columns + 1) : columns + 1] if n else flat[..., :0]


def dot(a, b):
    """The sum over the last axis of a and the last but one of b, or its only one; `a * b` if one has no axes.

    (A, k) and (B, k, n) -> (A, B, n): unlike in `tg.matmul`, leading axes do not go together.

    Raises: ShapeError, if the two axes differ in length; BackendError.
    """
    a, b = shaped(a, b), shaped(b, a)
    if not (a.shape and b.shape):
        return a * b
    if len(b.shape) <= 2:
        return a @ b
    b = moveaxis(b, -2, 0)
    inner, *rest = b.shape
    return reshape(a @ reshape(b, (inner, math.prod(rest))), (*a.shape[:-1], *rest))


def outer(a, b):
    """All products a[i] * b[j] of two vectors: shape (a.size, b.size). More axes are taken as one.

    Raises: BackendError.
    """
    return expand_dims(ravel(shaped(a, b)), 1) * ravel(shaped(b, a))


def einsum(subscripts, *operands):
    """Einstein's summation, as NumPy writes it: `einsum("tnh,hk->tnk", x, w)`; `...` stands for leading axes.

    Raises: ShapeError, if subscripts and operands do not fit.
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    written, operands = inputs.split(","), [shaped(x, operands[0]) for x in operands]
    if len(written) != len(operands):
        raise ShapeError(f"einsum: {subscripts!r} names {len(written)} operands, and there are {len(operands)}")
    letters = inputs.replace("...", "").replace(",", "")
    unnamed = [len(x.shape) - len(part.replace("...", "")) for part, x in zip(written, operands, strict=True)]
    for i, (part, n) in enumerate(zip(written, unnamed, strict=True)):
        if n < 0 or (n and "..." not in part):
            named, shape = len(part.replace("...", "")), tuple(operands[i].shape)
            raise ShapeError(f"einsum: {part!r} names {named} axes, but operand {i} has shape {shape}")
    spare = [c for c in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts]
    lead = "".join(spare[: max(unnamed)])
    if not arrow:
        output = ("..." if lead else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    _check_output(subscripts, output.replace("...", ""), letters)
    if lead and "..." not in output:
        raise ShapeError(f"einsum: the output of {subscripts!r} lacks the '...' for {len(lead)} axes of its operands")
    parts = [part.replace("...", lead[len(lead) - n :]) for part, n in zip(written, unnamed, strict=True)]
    parts, operands = zip(*map(_without_repeats, parts, operands), strict=True)
    sizes = {}
    for part, x in zip(parts, operands, strict=True):
        for letter, n in zip(part, x.shape, strict=True):
            if n != 1 and sizes.setdefault(letter, n) != n:
                raise ShapeError(f"einsum: {letter!r} is {sizes[letter]} long in one operand and {n} in another")
    arrays = [
        broadcast_to(x, shape=tuple([sizes.get(c, 1) for c in part])) for part, x in zip(parts, operands, strict=True)
    ]
    return contract(arrays, parts=parts, output=output.replace("...", lead))


def _check_output(subscripts, output, letters):
    for letter in output:
        if letter not in letters:
            raise ShapeError(f"einsum: {letter!r} of the output is in none of the inputs of {subscripts!r}")
        if output.count(letter) > 1:
            raise ShapeError(f"einsum: {letter!r} stands more than once in the output of {subscripts!r}")


def _without_repeats(part, x):
    """An operand of einsum without letters that name two axes: those mean the diagonal, whose axis comes last."""
    for letter in dict.fromkeys(part):
        while part.count(letter) > 1:
            one, two = part.index(letter), part.rindex(letter)
            if x.shape[one] != x.shape[two]:
                raise ShapeError(f"einsum: {letter!r} is {x.shape[one]} and {x.shape[two]} long in one operand")
            x = diagonal(x, 0, one, two)
            part = part[:one] + part[one + 1 : two] + part[two + 1 :] + letter
    return part, x
