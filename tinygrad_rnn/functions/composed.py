"""What NumPy offers beyond the table: composed of primitives, and so without a derivative rule of its own."""

from __future__ import annotations

import math
from itertools import pairwise

from ..backend import as_array, backend_of
from ..core.broadcasting import broadcast_to
from ..core.tensor import Tensor
from ..errors import OptionError, ShapeError
from ..ops.elementwise import square
from ..ops.matmul import contract
from ..ops.reductions import count, mean, sum
from ..ops.shapes import concatenate, expand_dims, moveaxis, places, ravel, reshape


def prod(x, axis=None, keepdims=False):
    """Product; 1 over no elements. Its derivatives are right at zeros too: halves are multiplied with each other."""
    shape, axes = tuple(x.shape), places(x, axis)
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    rest = tuple(shape[i] for i in kept)
    x = x.transpose((*kept, *axes)).reshape((*rest, math.prod(shape[i] for i in axes)))
    if not x.shape[-1]:
        return (
            sum(x, axis=-1).reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)) if keepdims else rest) + 1
        )
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        paired = x[..., :half] * x[..., half : 2 * half]
        x = paired if x.shape[-1] == 2 * half else concatenate([paired, x[..., -1:]], axis=-1)
    return x.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)) if keepdims else rest)


def var(x, axis=None, keepdims=False, correction=0):
    """Variance: the mean squared distance from the mean, over count - correction."""
    n = count(x, axis)
    return sum(square(x - mean(x, axis=axis, keepdims=True)), axis=axis, keepdims=keepdims) / (n - correction)


def split(x, indices_or_sections, axis=0):
    """x cut along an axis into equal sections (an integer) or at the given indices, as a list."""
    (axis,) = places(x, axis)
    length, lead = x.shape[axis], (slice(None),) * axis
    if isinstance(indices_or_sections, int):
        if length % indices_or_sections:
            raise ShapeError(f"an axis of length {length} does not divide into {indices_or_sections} equal sections")
        indices_or_sections = range(length // indices_or_sections, length, length // indices_or_sections)
    ends = [0, *indices_or_sections, length]
    return [x[(*lead, slice(a, b))] for a, b in pairwise(ends)]


def tile(x, reps):
    """x repeated like tiles, `reps` times along each axis."""
    reps = (reps,) if isinstance(reps, int) else tuple(reps)
    reps, shape = (1,) * (len(x.shape) - len(reps)) + reps, (1,) * (len(reps) - len(x.shape)) + tuple(x.shape)
    between = tuple(n for size in shape for n in (1, size))
    across = tuple(n for count, size in zip(reps, shape, strict=True) for n in (count, size))
    final = tuple(count * size for count, size in zip(reps, shape, strict=True))
    return reshape(broadcast_to(reshape(x, between), shape=across), final)


def repeat(x, repeats, axis=None):
    """Each element `repeats` times in a row along an axis (None: of all elements on one axis)."""
    if axis is None:
        x, axis = ravel(x), 0
    if not isinstance(repeats, int) or repeats < 0:
        raise OptionError(f"repeats is an integer of at least 0, not {repeats!r}")
    (axis,), shape = places(x, axis), tuple(x.shape)
    wide = broadcast_to(expand_dims(x, axis + 1), shape=(*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return reshape(wide, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


def take(x, indices, axis=None):
    """The slices of x at `indices` (integers of any shape) along an axis; None indexes all elements on one axis."""
    if axis is None:
        x, axis = ravel(x), 0
    return x[(*(slice(None),) * places(x, axis)[0], indices)]


def take_along_axis(x, indices, axis):
    """One element of x for each of `indices`, matched position by position along the other axes."""
    (axis,) = places(x, axis)
    indices = indices if isinstance(indices, Tensor) else Tensor(as_array(indices, x.backend))
    if indices.ndim != x.ndim:
        raise ShapeError(f"take_along_axis: indices of shape {indices.shape} for {x.label}; they need as many axes")
    xp = backend_of(x._array).xp
    key = [xp.arange(n).reshape((-1,) + (1,) * (x.ndim - i - 1)) for i, n in enumerate(x.shape)]
    return x[tuple(indices if i == axis else Tensor(part) for i, part in enumerate(key))]


def diagonal(x, offset=0, axis1=0, axis2=1):
    """The elements x[i, i + offset] of two axes, on a new last axis."""
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    first = max(0, -offset), max(0, offset)
    n = max(0, min(rows - first[0], columns - first[1]))
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    start = first[0] * columns + first[1]
    return flat[..., start : start + n * (columns + 1) : columns + 1] if n else flat[..., :0]


def dot(a, b):
    """`a @ b`, and `a * b` if one of them has no axes."""
    return a @ b if len(a.shape) and len(b.shape) else a * b


def outer(a, b):
    """All products a[i] * b[j] of two vectors: shape (a.size, b.size)."""
    return expand_dims(ravel(a), 1) * ravel(b)


def einsum(subscripts, *operands):
    """Einstein's summation, as NumPy writes it: `einsum("tnh,hk->tnk", x, w)`; `...` stands for leading axes.

    Raises: ShapeError, if subscripts and operands do not fit.
    """
    inputs, _, output = subscripts.replace(" ", "").partition("->")
    parts = inputs.split(",")
    if len(parts) != len(operands):
        raise ShapeError(f"einsum: {subscripts!r} names {len(parts)} operands, and there are {len(operands)}")
    spare = [c for c in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts]
    depth = max(
        (len(x.shape) - len(p.replace("...", "")) for p, x in zip(parts, operands, strict=True) if "..." in p),
        default=0,
    )
    lead = "".join(spare[:depth])
    if "->" not in subscripts:
        letters = "".join(parts).replace("...", "")
        output = ("..." if lead else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    prepared = []
    for place, x in enumerate(operands):
        part = parts[place].replace(
            "...",
            lead[depth - (len(x.shape) - len(parts[place].replace("...", ""))) :] if "..." in parts[place] else "",
        )
        if len(part) != len(x.shape):
            raise ShapeError(
                f"einsum: {parts[place]!r} names {len(part)} axes, but operand {place} has shape {x.shape}"
            )
        for letter in dict.fromkeys(part):
            while part.count(letter) > 1:  # a repeated letter is a diagonal
                one, two = part.index(letter), part.rindex(letter)
                x = diagonal(x, 0, one, two)
                part = part[:one] + part[one + 1 : two] + part[two + 1 :] + letter
        prepared.append((part, x))
    if strangers := set(output.replace("...", "")) - set("".join(parts)):
        raise ShapeError(f"einsum: {strangers.pop()!r} of the output is in none of the inputs of {subscripts!r}")
    sizes = {}
    for part, x in prepared:
        for letter, n in zip(part, x.shape, strict=True):
            if n != 1 and sizes.setdefault(letter, n) not in (1, n):
                raise ShapeError(f"einsum: {letter!r} is {sizes[letter]} long in one operand and {n} in another")
    arrays = [broadcast_to(x, shape=tuple([sizes.get(c, 1) for c in part])) for part, x in prepared]
    return contract(arrays, parts=tuple(part for part, _ in prepared), output=output.replace("...", lead))
