"""Verdicts on a gradient that somebody worked out by hand: exact, close, or which of the usual mistakes it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import as_array
from ..errors import TinygradError
from ..see.ledger import stretched
from ..see.summary import number, summary
from ..see.words import over_axes
from .sheet import Sheet

MANY = 8
"""Of up to so many contributions, every selection of them is tried; of more, one that is missing, or alone."""
NEAR = 1e-5
"""Of the largest element of a gradient: as near come finite differences, and float32 where float64 is asked for."""
NO_FACTOR = 0.02
"""A factor no further from 1 is none: an answer may be rounded, or lack something small."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one variable.

    kind: "exact", "close" (up to rounding), "follows" (right, given a wrong line above), "factor", "transposed",
        "wrong shape", "missing" (some of the contributions), "wrong", "blank" or "fails".
    words: the rest of the sentence.
    """

    name: str
    kind: str
    words: str = ""

    @property
    def right(self) -> bool:
        """Whether it is the gradient, up to rounding."""
        return self.kind in ("exact", "close")


class Verdicts(Sheet, dict[str, Verdict]):
    """The verdicts of a worksheet by the names of the variables, in their order."""

    def __init__(self, title: str, verdicts: Sequence[Verdict]) -> None:
        dict.__init__(self, {verdict.name: verdict for verdict in verdicts})
        rows = [["✓" if v.right else " ", v.name, v.kind, v.words] for v in verdicts]
        good = f"{sum(v.right for v in verdicts)} of {len(verdicts)} are right."
        Sheet.__init__(self, title, [(["", "variable", "verdict", ""], rows)], [good])

    @property
    def right(self) -> bool:
        """Whether all of them are right."""
        return all(verdict.right for verdict in self.values())


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a gradient.

    right: the numbers. parts: by a name for each use, what it adds. broadcast: whether the variable was, in one use.
    """

    right: NDArray[Any]
    parts: Mapping[str, NDArray[Any]]
    broadcast: bool

    def same(self, found: NDArray[Any], wanted: NDArray[Any] | None = None) -> bool:
        """Whether numbers are equal up to rounding of the size of what is summed, or `NEAR`."""
        wanted = self.right if wanted is None else wanted
        allowed = float(np.finfo(self.right.dtype).eps) ** 0.7
        size = max(summary(each).largest for each in (self.right, *self.parts.values()))
        off = max(allowed * size, max(allowed, NEAR) * summary(wanted).largest)
        return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=0, atol=off, equal_nan=True))


def numbers(answer: Any) -> NDArray[Any] | None:
    """An answer in float64: numbers, nested lists, arrays of any backend, Tensors. None if it is no such."""
    try:
        found: NDArray[Any] = as_array(answer, "numpy", np.float64)
    except TinygradError:
        return None
    return found


def judged(name: str, answer: Any, known: Known, follows: NDArray[Any] | None, through: str) -> Verdict:
    """The verdict on one answer.

    follows: what the right rule makes of the learner's own gradients, if one of them is wrong; through: their names.
    """
    if answer is None or answer is ...:
        return Verdict(name, "blank")
    if isinstance(answer, Exception):
        return Verdict(name, "fails", str(answer))
    if (found := numbers(answer)) is None:
        return Verdict(name, "wrong", f"{type(answer).__name__} is no array of numbers")
    if found.shape != known.right.shape:
        return Verdict(name, *_of_shape(found, known))
    if np.array_equal(found, known.right, equal_nan=True):
        return Verdict(name, "exact")
    off, size = float(np.abs(found - known.right).max()), summary(known.right).largest
    far = f"the largest difference is {number(off, 2)}"
    if known.same(found):
        return Verdict(name, "close", far)
    if follows is not None and known.same(found, follows):
        return Verdict(name, "follows", f"right, given your {through}")
    if off <= NO_FACTOR * size:
        far += f", of {number(size, 2)}: rounded to too few digits, or without something small"
    return Verdict(name, *(_lacking(found, known) or _scaled(found, known) or ("wrong", far)))


def _of_shape(found: NDArray[Any], known: Known) -> tuple[str, str]:
    """What is wrong with an answer of another shape than the variable's."""
    shape = known.right.shape
    needs = f"it has the shape {found.shape}, and needs {shape}, that of the variable"
    if found.ndim > 1 and known.same(found.swapaxes(-1, -2)):
        return "transposed", needs
    if _stretches(shape, found.shape):
        axes, why = stretched(found.shape, shape), ", along which the variable was broadcast" if known.broadcast else ""
        if known.same(found.sum(axes).reshape(shape)):
            return "wrong shape", f"{needs}: sum it over {over_axes(axes)}{why}"
    if _stretches(found.shape, shape) and known.same(np.broadcast_to(found, shape)):
        return "wrong shape", f"{needs}: the numbers are right, and belong to every element"
    return "wrong shape", needs


def _stretches(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether broadcasting makes one shape of another."""
    return len(shape) <= len(wide) and all(n in (1, of) for n, of in zip(shape[::-1], wide[::-1]))


def _lacking(found: NDArray[Any], known: Known) -> tuple[str, str] | None:
    """Which contributions are missing in the sum."""
    count = len(known.parts)
    for size in range(count - 1, 0, -1) if count <= MANY else (count - 1, 1):
        for there in combinations(known.parts, size):
            if known.same(found, np.sum([known.parts[use] for use in there], axis=0)):
                gone = ", ".join(use for use in known.parts if use not in there)
                return "missing", f"without the contribution of {gone}: all uses add up, +="
    return None


def _scaled(found: NDArray[Any], known: Known) -> tuple[str, str] | None:
    """By which factor it is wrong, or whether rows and columns have changed places."""
    if found.ndim > 1 and known.same(found.swapaxes(-1, -2)):
        return "transposed", "rows and columns have changed places"
    right = known.right.astype(np.float64)
    factor = float((found * right).sum() / (right * right).sum())
    if not np.isfinite(factor) or not factor or abs(factor - 1) <= NO_FACTOR or not known.same(found / factor):
        return None
    simple = Fraction(factor).limit_denominator(64)
    plain = abs(factor - simple) <= 1e-5 * abs(factor)
    if right.size == 1 and not plain:  # one number is always a multiple of another
        return None
    if plain and simple == -1:
        return "factor", "the sign is wrong"
    return "factor", f"{simple if plain else number(factor, 4)} times what it should be"
