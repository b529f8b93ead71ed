"""First values of parameters, by name, from a generator on the host: every backend starts from the same numbers.

An initialiser is called as `f(rng, shape, size)` and returns a float64 array of `shape`; `size` is the number that
the layer's own bound follows (the hidden size of a cell, the input size of a linear map). Wherever a layer takes
`init=`, it takes a name of this table, a number (that constant), a function of this form, or a dictionary
{"W": ..., "U": ..., "b": ...} of these for single parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..core.tensor import Tensor, tensor
from ..errors import OptionError, ShapeError
from ..functions.creation import generator
from . import options

Values = NDArray[np.float64]
Shape = tuple[int, ...]
Initializer = Callable[[np.random.Generator, Shape, int], Values]
Init = str | float | Initializer | Mapping[str, "str | float | Initializer"]


def uniform(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """Uniform between -1/sqrt(size) and 1/sqrt(size), biases too, as PyTorch starts its recurrent layers."""
    bound = 1 / math.sqrt(size)
    return rng.uniform(-bound, bound, shape)


def normal(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """Normal with mean 0 and variance 1."""
    return rng.standard_normal(shape)


def glorot(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """Uniform with bound sqrt(6 / (rows + columns)) for matrices (Glorot and Bengio 2010, eq. 16), 0 for vectors."""
    bound = math.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
    return rng.uniform(-bound, bound, shape)


def orthogonal(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """A random matrix whose shorter side is orthonormal (Saxe et al. 2014), 0 for vectors."""
    if len(shape) != 2:
        return np.zeros(shape)
    rows, columns = max(shape), min(shape)
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # else QR's sign convention would favour some rotations
    return np.ascontiguousarray(q if shape == q.shape else q.T)


def zeros(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """All 0."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: Shape, size: int) -> Values:
    """All 1."""
    return np.ones(shape)


def constant(value: float) -> Initializer:
    """All `value`."""
    return lambda rng, shape, size: np.full(shape, float(value))


INITIALIZERS: dict[str, Initializer] = {f.__name__: f for f in (uniform, normal, glorot, orthogonal, zeros, ones)}


def initializer(init: Init, parameter: str, default: str) -> Initializer:
    """The function behind `init=` for one parameter; a dictionary that does not name it leaves it at the default.

    Raises: OptionError for an unknown name.
    """
    chosen: Any = init.get(parameter, default) if isinstance(init, Mapping) else init
    if isinstance(chosen, (int, float, np.number)) and not isinstance(chosen, bool):
        return constant(float(chosen))
    if callable(chosen):
        return chosen  # type: ignore[no-any-return]
    if not isinstance(chosen, str) or chosen not in INITIALIZERS:
        raise OptionError(
            f"no initialiser is called {chosen!r}; there are {', '.join(INITIALIZERS)}, a number, or a function of "
            "(rng, shape, size)"
        )
    return INITIALIZERS[chosen]


class Maker:
    """Makes the parameters of one layer, one after the other.

    init, dtype, rng: as the layer was given them. size: what the bound of "uniform" follows.
    names: the parameters that `init` may speak of. default: for those that it does not mention.
    """

    def __init__(
        self, init: Init, dtype: DTypeLike, rng: np.random.Generator | None, size: int, *names: str,
        default: str = "uniform",
    ) -> None:  # fmt: skip
        """Raises: OptionError for a name in `init` that is not there and for an rng that is no generator; DtypeError
        for a dtype that is no floating one.
        """
        if isinstance(init, Mapping) and (strangers := [name for name in init if name not in names]):
            raise OptionError(f"init= names {strangers[0]!r}; the parameters are {', '.join(names)}")
        self.init, self.size, self.default = init, size, default
        self.dtype, self.rng = options.floating(dtype), generator(rng)

    def make(self, name: str, *shape: int, blocks: int = 1) -> Tensor:
        """A leaf that requires a gradient: `blocks` arrays of this shape, each drawn by itself, side by side.

        Raises: ShapeError, DtypeError for an initialiser that returns something else than numbers of this shape.
        """
        fill = initializer(self.init, name, self.default)
        drawn = [fill(self.rng, shape, self.size) for _ in range(blocks)]
        values = [options.array(f"init of {name}", each, "numpy", self.dtype) for each in drawn]
        for value in values:
            if value.shape != shape:
                each = " for each gate" if blocks > 1 else ""
                raise ShapeError(f"init of {name} returned shape {value.shape}, but {name} needs {shape}{each}")
        return tensor(np.concatenate(values, axis=-1), dtype=self.dtype, requires_grad=True)
