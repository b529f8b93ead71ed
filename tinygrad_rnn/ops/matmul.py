"""Products of matrices and their generalisations."""

from __future__ import annotations

import math

from ..core.broadcasting import broadcast_to
from ..core.primitive import primitive
from ..errors import ShapeError, misfit
from .reductions import sum
from .shapes import expand_dims, reshape, swapaxes


def _left(g, b):
    if b.ndim == 2:  # by the kernel below where it folds the leading axes
        return g @ b.T if g.ndim < 3 else matmul(g, b.T)
    if b.ndim == 1:
        return expand_dims(g, -1) * b
    if g.ndim < b.ndim:  # a was a vector
        return sum(expand_dims(g, -2) * b, axis=-1)
    return g @ swapaxes(b, -1, -2)


def _right(g, a, b):
    if a.ndim == 2 == g.ndim:
        return a.T @ g
    if b.ndim == 1:
        return sum(expand_dims(g, -1) * a, axis=tuple(range(a.ndim - 1)))
    if a.ndim == 1:
        return expand_dims(a, -1) * expand_dims(g, -2)
    if b.ndim == 2:  # one product over all rows, not one for each leading index
        return reshape(a, _flat(a)).T @ reshape(g, _flat(g))
    return swapaxes(a, -1, -2) @ g


def _flat(x):
    """The shape of a matrix with all rows of x; said in full, since -1 does not do beside an axis of length 0."""
    return math.prod(x.shape[:-1]), x.shape[-1]


@primitive("bilinear", latex="{a} {b}", da=_left, db=_right)
def matmul(xp, a, b):
    """Product of matrices: (..., m, k) @ (..., k, n) -> (..., m, n); leading axes broadcast, vectors as in NumPy.

    Raises: ShapeError, if the inner axes differ, or one side has no axes; BackendError for arrays of two backends.
    """
    try:
        if a.ndim > 2 == b.ndim:
            return (a.reshape(_flat(a)) @ b).reshape(*a.shape[:-1], b.shape[1])
        return a @ b
    except (ValueError, AttributeError, TypeError) as error:
        if not (getattr(a, "ndim", 0) and getattr(b, "ndim", 0)):
            raise ShapeError("@ needs at least one axis on each side; use * for scalars") from None
        if isinstance(error, TypeError):
            raise
        inner, which = b.shape[-2 if b.ndim > 1 else -1], "last but one" if b.ndim > 1 else "only"
        if a.shape[-1] == inner:
            raise ShapeError(misfit([(*x.shape[:-2], 1, 1) for x in (a, b)])) from None
        raise ShapeError(f"the last axis of a ({a.shape[-1]}) must be as long as the {which} of b ({inner})") from None


def _contract_rule(g, arrays, parts, output):
    gradients = []
    for i, x in enumerate(arrays):
        others = [(p, a) for j, (p, a) in enumerate(zip(parts, arrays, strict=True)) if j != i]
        known = set(output).union(*[p for p, _ in others])
        kept = "".join(c for c in parts[i] if c in known)
        d = contract([g, *[a for _, a in others]], parts=(output, *[p for p, _ in others]), output=kept)
        for axis, letter in enumerate(parts[i]):
            if letter not in known:  # summed over in x alone: the gradient is the same all along it
                d = expand_dims(d, axis)
        gradients.append(broadcast_to(d, shape=x.shape))
    return gradients


@primitive("bilinear", latex=r"\mathrm{einsum}({arrays})", darrays=_contract_rule)
def contract(xp, *arrays, parts, output):
    """Sum of products over the letters that `output` lacks; `parts` names the axes of each array, none twice."""
    return xp.einsum(",".join(parts) + "->" + output, *arrays)
