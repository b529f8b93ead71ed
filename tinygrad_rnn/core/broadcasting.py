"""Broadcasting and its transpose, in one place: no derivative rule ever mentions it.

NumPy copies a value along the axes in which it is stretched; so its gradient is the sum over those copies.
"""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..errors import PrimitiveError
from .primitive import PRIMITIVES, primitive, unchanged
from .tensor import Tensor


@primitive("linear", dx=lambda g, x: sum_to(g, shape=x.shape))
def broadcast_to(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """x stretched to `shape`, as NumPy broadcasts.

    Raises: ShapeError, if x does not broadcast to it.
    """
    return xp.broadcast_to(x, shape)


@primitive("linear", dx=lambda g, x: broadcast_to(g, shape=x.shape))
def sum_to(xp: Any, x: Array, *, shape: tuple[int, ...]) -> Array:
    """The transpose of `broadcast_to`: x summed over the axes that were stretched to make it from `shape`."""
    lead = x.ndim - len(shape)
    axes = (*range(lead), *[lead + i for i, size in enumerate(shape) if size == 1 != x.shape[lead + i]])
    return (x.sum(axes) if axes else x).reshape(shape)


@primitive("linear", analytic=False, latex="{x}", dx=unchanged)
def astype(xp: Any, x: Array, *, dtype: Any) -> Array:
    """x in another dtype (a copy). Between floating dtypes gradients flow; to integers they stop.

    Raises: DtypeError for what is no dtype.
    """
    return x.astype(dtype)


_sum_to = PRIMITIVES["sum_to"].kernel


def fitted(d: Any, x: Tensor) -> Any:
    """A gradient for x in x's own shape and dtype: the copies that broadcasting made of x are summed up.

    Raises: PrimitiveError, if a rule gave a shape that no broadcasting of x can explain.
    """
    shape, dtype = x._array.shape, x._array.dtype
    if d.shape != shape:
        lead = len(d.shape) - len(shape)
        if lead < 0 or any([have != want != 1 for have, want in zip(d.shape[lead:], shape, strict=True)]):
            hint = "; transposed, it would fit" if d.shape[::-1] == shape else ""
            raise PrimitiveError(f"a derivative rule gave a gradient of shape {d.shape} for {x.label}{hint}")
        d = sum_to(d, shape=shape) if type(d) is Tensor else _sum_to(None, d, shape=shape)
    return d if d.dtype == dtype else astype(d, dtype=dtype)
