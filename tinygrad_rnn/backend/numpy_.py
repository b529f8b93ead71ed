"""The NumPy backend: always there, and the meaning that every other backend is held to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .base import Array, Backend, Namespace

# fmt: off
_NEAR = (
    (3.20937758913846947e03, 3.77485237685302021e02, 1.13864154151050156e02, 3.16112374387056560e00,
     1.85777706184603153e-1),
    (2.84423683343917062e03, 1.28261652607737228e03, 2.44024637934444173e02, 2.36012909523441209e01, 1.0),
)
_MIDDLE = (
    (1.23033935479799725e03, 2.05107837782607147e03, 1.71204761263407058e03, 8.81952221241769090e02,
     2.98635138197400131e02, 6.61191906371416295e01, 8.88314979438837594e00, 5.64188496988670089e-1,
     2.15311535474403846e-8),
    (1.23033935480374942e03, 3.43936767414372164e03, 4.36261909014324716e03, 3.29079923573345963e03,
     1.62138957456669019e03, 5.37181101862009858e02, 1.17693950891312499e02, 1.57449261107098347e01, 1.0),
)
_FAR = (
    (-6.58749161529837803e-4, -1.60837851487422766e-2, -1.25781726111229246e-1, -3.60344899949804439e-1,
     -3.05326634961232344e-1, -1.63153871373020978e-2),
    (2.33520497626869185e-3, 6.05183413124413191e-2, 5.27905102951428412e-1, 1.87295284992346047e00,
     2.56852019228982242e00, 1.0),
)
# fmt: on


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], t: Array) -> Array:
    above, below = coefficients
    return np.polynomial.polynomial.polyval(t, above) / np.polynomial.polynomial.polyval(t, below)


def erf(x: Array) -> Array:
    """The error function to rounding error, in three rational pieces (Cody, Math. Comp. 23, 1969, 631-637)."""
    wide = np.asarray(x, np.float64)
    size = np.abs(wide)
    square, middle, far = np.minimum(size, 0.46875) ** 2, np.clip(size, 0.46875, 4.0), np.clip(size, 4.0, 6.0)
    near = wide * _ratio(_NEAR, square)
    tail_middle = np.exp(-middle * middle) * _ratio(_MIDDLE, middle)
    inverse = 1 / (far * far)
    tail_far = np.exp(-far * far) / far * (1 / np.sqrt(np.pi) + inverse * _ratio(_FAR, inverse))
    tail = np.where(size <= 4.0, tail_middle, tail_far)
    result = np.where(size <= 0.46875, near, np.sign(wide) * (1 - tail))
    dtype = x.dtype if x.dtype.kind == "f" else np.result_type(x, np.float32)
    return np.where(np.isnan(wide), np.nan, result).astype(dtype, copy=False)


_LAST = {
    np.dtype(d): (np.array(11 if d is np.float16 else 40, d), np.array(1, d))
    for d in (np.float16, np.float32, np.float64, np.complex64, np.complex128)
}


def sigmoid(x: Array) -> Array:
    """e / (1 + e) with e = exp(x), in place; arrays without axes are cheaper here than Python numbers."""
    if x.dtype not in _LAST:
        return sigmoid(x.astype(np.float64))
    last, one = _LAST[x.dtype]
    e = np.minimum(x, last)
    if not e.ndim:
        e = np.exp(e)
        return e / (one + e)
    np.exp(e, e)
    return np.divide(e, np.add(one, e), e)


_KERNELS: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "exp": np.exp, "tanh": np.tanh, "sigmoid": sigmoid,
}  # fmt: skip


# glibc gives memory back to the system as soon as more than twice its largest freed piece is unused, and has it zeroed
# page by page when it is wanted again: for some sizes of a layer a third of a training step. It takes the largest piece
# from experience, up to 32 MiB; so let it see one, which nobody ever touches.
np.empty(2**25 - 2**16, np.uint8)


class NumpyBackend(Backend):
    """Arrays in the computer's own memory; NumPy's scalars count as arrays of no axes."""

    name = "numpy"
    xp = Namespace(
        np,
        {f"tinygrad_rnn.ops.elementwise.{name}": kernel for name, kernel in _KERNELS.items()},
        erf=erf,
        add_at=np.add.at,
    )  # fmt: skip
    types = (np.ndarray, *{scalar for scalar in np.sctypeDict.values() if issubclass(scalar, np.generic)})

    def to_host(self, array: Array) -> np.ndarray:
        view: np.ndarray = np.asarray(array).view()
        view.flags.writeable = False
        return view
