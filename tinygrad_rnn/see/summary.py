"""A few words for many numbers: all of them if they are at most four, else the least, the largest and the norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import backend_of

FEW = 4
"""Up to this many numbers are shown one by one."""


@dataclass(frozen=True)
class Summary:
    """What a picture says of an array.

    numbers: all of them, row by row, if they are at most `FEW`; else ().
    low, high, norm: the least and the largest of the finite ones, and the square root of the sum of their squares.
    nan, inf: how many are not a number, and how many are infinite.
    size: how many there are in all. kind: that of NumPy's dtype: "f", "i", "u", "b" or "c".
    """

    numbers: tuple[Any, ...]
    low: float
    high: float
    norm: float
    nan: int
    inf: int
    size: int
    kind: str

    @property
    def broken(self) -> bool:
        """Whether a number is not finite."""
        return bool(self.nan or self.inf)

    @property
    def largest(self) -> float:
        """The largest of the finite ones, whatever their sign."""
        return max(-self.low, self.high)

    @property
    def lines(self) -> tuple[str, ...]:
        """The summary in a line, and in a second one what is not finite, if anything is."""
        return self._lines(3)

    def words(self, digits: int = 3) -> str:
        """The summary in one line, its numbers with so many digits."""
        return ", ".join(self._lines(digits))

    def __str__(self) -> str:
        return self.words()

    def _lines(self, digits: int) -> tuple[str, ...]:
        def short(x: Any) -> str:
            return number(x, digits)

        counted = [f"{count} {word}" for count, word in ((self.nan, "nan"), (self.inf, "inf")) if count]
        if self.numbers or not self.size:
            return (", ".join(map(short, self.numbers)) or "empty",)
        first = f"{short(self.low)} \u2026 {short(self.high)}" if self.nan + self.inf < self.size else ""
        if first and self.low == self.high and self.kind != "c":
            first = f"all {short(self.low)}" if not self.broken else short(self.low)
        elif first and self.kind in "fc":
            first += f"  \u2016{short(self.norm)}\u2016"
        return tuple(line for line in (first, ", ".join(counted)) if line)


def host(array: Any) -> Any:
    """An array of any backend, or a number, as an array of NumPy."""
    return np.asarray(array) if isinstance(array, (np.generic, int, float)) else backend_of(array).to_host(array)


def summary(array: Any) -> Summary:
    """The summary of an array of any backend."""
    flat = host(array).ravel()
    kind, size = flat.dtype.kind, flat.size
    numbers = tuple(flat.tolist()) if size <= FEW else ()
    if kind == "b" or not size:
        return Summary(numbers, float(flat.min(initial=1)), float(flat.max(initial=0)), 0.0, 0, 0, size, kind)
    nan = inf = 0
    if kind in "fc" and not (finite := np.isfinite(flat)).all():
        nan, inf = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
        flat = flat[finite]
    size_of = np.abs(flat) if kind == "c" else flat
    low, high = (float(size_of.min()), float(size_of.max())) if flat.size else (0.0, 0.0)
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(flat.astype(np.complex128 if kind == "c" else np.float64)))
    return Summary(numbers, low, high, norm, nan, inf, size, kind)


def number(x: Any, digits: int = 3) -> str:
    """A number in few characters; whole ones as they are."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        return str(x)
    return str(x) if isinstance(x, int) else f"{x + 0.0:.{digits}g}"  # there is no need to tell -0 from 0
