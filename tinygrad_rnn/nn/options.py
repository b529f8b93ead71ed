"""Checks of what users pass in: each returns the value in its proper form, or says what would have been right."""

from __future__ import annotations

import operator
from collections.abc import Collection
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..backend import BACKEND_OF, Array, as_array
from ..core.modes import place
from ..core.tensor import Tensor
from ..errors import DtypeError, OptionError, TinygradError


def count(name: str, value: Any) -> int:
    """A whole number of at least 1, such as a size.

    Raises: OptionError.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise OptionError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return number


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of a few words.

    Raises: OptionError.
    """
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{name} is {value!r}; choose from {', '.join(map(repr, choices))}")
    return value


def kind(function: str, value: Any, *kinds: type, words: str | None = None) -> None:
    """What a function is given is of one of these kinds; words: what to call them.

    Raises: OptionError.
    """
    if not isinstance(value, kinds):
        wanted = words or " or ".join(f"a {each.__name__}" for each in kinds)
        raise OptionError(f"{function} takes {wanted}, not {type(value).__name__}")


def number(name: str, value: Any) -> float:
    """A real number.

    Raises: OptionError.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise OptionError(f"{name} is {value!r}; it must be a number")
    return float(value)


def floating(value: Any) -> np.dtype[Any]:
    """A dtype that weights can have.

    Raises: DtypeError.
    """
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise DtypeError(f"{value!r} is no dtype; float32 and float64 are") from None
    if dtype.kind != "f":
        raise DtypeError(f"parameters need a floating dtype such as float32 or float64, not {dtype}")
    return dtype


def probability(name: str, value: Any) -> float:
    """A number from 0 up to, but not including, 1.

    Raises: OptionError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
        raise OptionError(f"{name} is {value!r}; it must be a number with 0 <= {name} < 1")
    return float(value)


def array(name: str, value: Any, backend: str | None = None, dtype: DTypeLike | None = None) -> Array:
    """A fresh bare array, as `as_array` makes it.

    Raises: ShapeError, DtypeError, which begin with the name.
    """
    try:
        return as_array(value, backend, dtype)
    except TinygradError as error:
        raise type(error)(f"{name}: {error}{place()}") from None


def beside(weight: Tensor, name: str, value: Any) -> Tensor:
    """What comes in to meet a weight: lists take its dtype and backend, arrays and Tensors have their own.

    Raises: as `array`.
    """
    if isinstance(value, Tensor):
        return value
    listed = type(value) not in BACKEND_OF
    return Tensor(array(name, value, weight.backend, weight.dtype) if listed else array(name, value))
