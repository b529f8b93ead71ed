"""Layers without time: Linear, Embedding, Dropout, LayerNorm, Sequential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backend import BACKEND_OF, as_array, backend_of, random
from ..core.modes import current, place
from ..core.tensor import Tensor
from ..errors import BackendError, DtypeError, IndexOutOfRange, ShapeError
from ..ops.elementwise import sqrt, square
from ..ops.indexing import index
from ..ops.reductions import mean
from . import options
from .initializers import Init, Maker
from .module import Module


class Linear(Module):
    """An affine map of the last axis: y = x W + b.

    W (I, O), b (O).
    """

    def __init__(
        self, input_size: int, output_size: int, *, bias: bool = True, init: Init = "uniform",
        dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        """init: see `nn.initializers`; the default is uniform within 1/sqrt(I).

        Raises: OptionError for a size below 1 or an unknown initialiser; DtypeError.
        """
        self.input_size = options.count("input_size", input_size)
        self.output_size = options.count("output_size", output_size)
        maker = Maker(init, dtype, rng, self.input_size, "W", "b")
        self.W = maker.make("W", self.input_size, self.output_size)
        self.b = maker.make("b", self.output_size) if bias else None

    def forward(self, x: Any) -> Any:
        """x (..., I) -> (..., O), in the dtype that x and W have together; lists take that of W.

        Raises: ShapeError, DtypeError, BackendError.
        """
        x = options.beside(self.W, "x", x)
        if x.shape[-1:] != (self.input_size,):
            raise ShapeError(
                f"x has shape {x.shape}, but Linear takes input_size={self.input_size} numbers in the last "
                f"axis: shape {(*x.shape[:-1], self.input_size)} would fit{place()}"
            )
        y = x @ self.W
        return y if self.b is None else y + self.b


class Embedding(Module):
    """A row of numbers for each symbol.

    W (V, E).
    """

    def __init__(
        self, symbols: int, size: int, *, init: Init = "normal",
        dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        """symbols: V. size: E. init: see `nn.initializers`; the default is normal with variance 1.

        Raises: OptionError for a size below 1 or an unknown initialiser; DtypeError.
        """
        self.symbols, self.size = options.count("symbols", symbols), options.count("size", size)
        self.W = Maker(init, dtype, rng, self.size, "W", default="normal").make("W", self.symbols, self.size)

    def forward(self, ids: Any) -> Any:
        """ids: integers of any shape, 0 to V-1 -> (*ids.shape, E). From the host they are taken to where W lies.

        Their range is checked where that costs no wait for a GPU: if they lie on the host, or under `debug()`.

        Raises: IndexOutOfRange, DtypeError; BackendError for ids on a GPU and W elsewhere.
        """
        array = (
            ids._array
            if type(ids) is Tensor
            else ids
            if type(ids) in BACKEND_OF
            else options.array("ids", ids, "numpy")
        )
        if array.dtype.kind not in "iu":
            raise DtypeError(f"Embedding takes integers, not {array.dtype}{place()}")
        home = backend_of(array)
        if home.name != "numpy" and home is not backend_of(self.W._array):
            raise BackendError(f"ids lie on {home.name_of(array)}, but the rows of Embedding on {self.W.backend}; "
                               f"bring them together, as in ids.to({self.W.backend!r}){place()}")  # fmt: skip
        if array.size and (home.name == "numpy" or current().debug):
            low, high = int(array.min()), int(array.max())
            if low < 0 or high >= self.symbols:
                worst = low if low < 0 else high
                raise IndexOutOfRange(f"index {worst} is out of range for Embedding of {self.symbols} symbols, "
                                      f"which takes 0 to {self.symbols - 1}{place()}")  # fmt: skip
        here = array if home is backend_of(self.W._array) else as_array(array, self.W.backend)
        return index(self.W, key=(here,))


class Dropout(Module):
    """Sets each number to 0 with probability p while training, and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        """Raises: OptionError, unless 0 <= p < 1."""
        self.p = options.probability("p", p)

    def forward(self, x: Any) -> Any:
        """x of any shape -> the same shape. The masks are the same on every backend; see `tg.seed`.

        Raises: ShapeError, DtypeError for what is no Tensor and cannot become one.
        """
        x = x if isinstance(x, Tensor) else Tensor(options.array("x", x))
        if not self.training or not self.p:
            return x
        kept = random.uniform(backend_of(x._array), x.shape) >= self.p
        return x * Tensor(kept.astype(x.dtype) * (1 / (1 - self.p)), name="mask")


class LayerNorm(Module):
    """Centres and scales the last axis, then gives it back a gain and a shift (Ba et al. 2016).

    gain (size), shift (size).
    """

    def __init__(self, size: int, *, eps: float = 1e-5, dtype: DTypeLike = np.float32) -> None:
        """eps: what is added to the variance.

        Raises: OptionError for a size below 1 or an eps that is no number; DtypeError.
        """
        self.size, self.eps = options.count("size", size), options.number("eps", eps)
        maker = Maker({"gain": 1.0, "shift": 0.0}, dtype, None, self.size, "gain", "shift")
        self.gain, self.shift = maker.make("gain", self.size), maker.make("shift", self.size)

    def forward(self, x: Any) -> Any:
        """x (..., size) -> the same shape.

        Raises: ShapeError, DtypeError, BackendError.
        """
        x = options.beside(self.gain, "x", x)
        if x.shape[-1:] != (self.size,):
            raise ShapeError(f"x has shape {x.shape}, but LayerNorm takes {(*x.shape[:-1], self.size)}{place()}")
        away = x - mean(x, axis=-1, keepdims=True)
        return away / sqrt(mean(square(away), axis=-1, keepdims=True) + self.eps) * self.gain + self.shift


class Sequential(Module):
    """One thing after another: `Sequential(Linear(3, 4), tg.tanh, Linear(4, 2))`; modules or plain functions."""

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        """x through all of them, one after another; what they return, and raise."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, place: int) -> Callable[[Any], Any]:
        return self.layers[place]
