"""Checks of what users pass in: each returns the value in its proper form, or says what would have been right."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import numpy as np

from ..errors import OptionError


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


def probability(name: str, value: Any) -> float:
    """A number from 0 up to, but not including, 1.

    Raises: OptionError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
        raise OptionError(f"{name} is {value!r}; it must be a number with 0 <= {name} < 1")
    return float(value)
