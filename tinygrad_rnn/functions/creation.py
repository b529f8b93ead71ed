"""New leaves: constants and random numbers. Floats are float32 unless `dtype` says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backend import random
from ..core.tensor import Tensor, tensor
from ..errors import OptionError

Shape = int | tuple[int, ...]


def zeros(shape: Shape, *, dtype: DTypeLike = np.float32, **keywords: Any) -> Tensor:
    """A leaf of zeros.

    shape: an integer or a tuple of them. keywords: as in `tg.tensor` (requires_grad, backend, name).

    Raises: as `tg.tensor`.
    """
    return tensor(np.zeros(shape), dtype=dtype, **keywords)


def ones(shape: Shape, *, dtype: DTypeLike = np.float32, **keywords: Any) -> Tensor:
    """A leaf of ones; shape, keywords and errors are those of `tg.zeros`."""
    return tensor(np.ones(shape), dtype=dtype, **keywords)


def full(shape: Shape, fill_value: Any, *, dtype: DTypeLike | None = None, **keywords: Any) -> Tensor:
    """A leaf of one value, in its dtype; shape, keywords and errors are those of `tg.zeros`."""
    return tensor(np.full(shape, tensor(fill_value, dtype=dtype, backend="numpy").numpy()), **keywords)


def arange(
    start: float, stop: float | None = None, step: float = 1, *, dtype: DTypeLike | None = None, **keywords: Any
) -> Tensor:
    """The numbers start, start + step, ... below stop, as NumPy counts: integers give int64, floats float32.

    `arange(n)` counts from 0 to n - 1. keywords, and errors: as in `tg.tensor`.
    """
    first, last = (0, start) if stop is None else (start, stop)
    numbers = np.arange(first, last, step)
    if dtype is None:
        dtype = np.float32 if numbers.dtype.kind == "f" else np.int64
    return tensor(numbers, dtype=dtype, **keywords)


def eye(n: int, *, dtype: DTypeLike = np.float32, **keywords: Any) -> Tensor:
    """The identity matrix of shape (n, n); keywords and errors are those of `tg.tensor`."""
    return tensor(np.eye(n), dtype=dtype, **keywords)


def generator(rng: np.random.Generator | None) -> np.random.Generator:
    """Where random numbers come from: `rng`, or the generator that `tg.seed` starts.

    Raises: OptionError for something else, such as a seed.
    """
    if not (rng is None or isinstance(rng, np.random.Generator)):
        raise OptionError(f"rng is {rng!r}; it must be a numpy.random.Generator, as numpy.random.default_rng(7) is one")
    return random.host_generator() if rng is None else rng


def randn(
    *shape: int, rng: np.random.Generator | None = None, dtype: DTypeLike = np.float32, **keywords: Any
) -> Tensor:
    """Normal random numbers of mean 0 and variance 1, drawn on the host, so that every backend gets the same ones.

    shape: the lengths one by one, `randn(2, 3)`; none for a single number. keywords: as in `tg.tensor`.
    rng: a numpy.random.Generator; left out, the one that `tg.seed` starts.

    Raises: OptionError for an rng that is none, such as a seed; as `tg.tensor`.
    """
    return tensor(generator(rng).standard_normal(shape), dtype=dtype, **keywords)


def rand(*shape: int, rng: np.random.Generator | None = None, dtype: DTypeLike = np.float32, **keywords: Any) -> Tensor:
    """Uniform random numbers in [0, 1), drawn on the host; all else is as in `tg.randn`."""
    return tensor(generator(rng).random(shape), dtype=dtype, **keywords)
