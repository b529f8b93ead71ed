"""Verdicts on a gradient that somebody worked out by hand: exact, close, or which of the usual mistakes it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.tensor import Tensor
from ..see.summary import host, number
from .sheet import Sheet, Table

EXACT, CLOSE, FOLLOWS, BLANK, FAILS = "exact", "close", "follows", "blank", "fails"
FACTOR, TRANSPOSED, SHAPE, MISSING, WRONG = "factor", "transposed", "wrong shape", "missing", "wrong"
RIGHT = (EXACT, CLOSE)
MANY = 8
"""Of up to so many contributions, every selection of them is tried; of more, one that is missing, or alone."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one variable. kind: one of the words above. words: the rest of the sentence."""

    name: str
    kind: str
    words: str = ""

    @property
    def right(self) -> bool:
        """Whether it is the gradient, up to rounding."""
        return self.kind in RIGHT


class Verdicts(Sheet, Mapping[str, Verdict]):
    """The verdicts of a worksheet by the names of the variables, in their order."""

    def __init__(self, title: str, verdicts: Sequence[Verdict]) -> None:
        self._found = {verdict.name: verdict for verdict in verdicts}
        good = sum(verdict.right for verdict in verdicts)
        notes = [f"{good} of {len(verdicts)} are right."]
        rows = [["✓" if v.right else " ", v.name, v.kind, v.words] for v in verdicts]
        super().__init__(title, [Table(["", "variable", "verdict", ""], rows)], notes)

    def __getitem__(self, name: str) -> Verdict:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def right(self) -> bool:
        """Whether all of them are right."""
        return all(verdict.right for verdict in self._found.values())


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a gradient.

    right: the numbers. parts: by a name for each use, what it adds. broadcast: whether the variable was, in one use.
    """

    right: NDArray[Any]
    parts: Mapping[str, NDArray[Any]]
    broadcast: bool = False

    def same(self, found: Any, wanted: Any = None) -> bool:
        """Whether numbers are equal up to rounding of the size of what is summed."""
        wanted = self.right if wanted is None else wanted
        allowed = float(np.finfo(self.right.dtype).eps) ** 0.7
        size = max([_size(self.right), *[_size(part) for part in self.parts.values()]])
        if found.shape != wanted.shape:
            return False
        with np.errstate(all="ignore"):
            return bool(np.allclose(found, wanted, rtol=allowed, atol=allowed * size, equal_nan=True))


def _size(array: Any) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0.0))


def numbers(answer: Any) -> NDArray[Any] | None:
    """An answer as an array of NumPy: numbers, nested lists, arrays of any backend, Tensors. None if it is no such."""
    try:
        found = host(answer._array if isinstance(answer, Tensor) else answer)
    except Exception:  # no array of a backend
        try:
            found = np.asarray(answer)
        except ValueError:  # lists of several lengths
            return None
    return found if found.dtype.kind in "fiub" else None


def judged(name: str, answer: Any, known: Known, follows: NDArray[Any] | None, through: str) -> Verdict:
    """The verdict on one answer.

    follows: what the right rule makes of the learner's own gradients, if one of them is wrong; through: their names.
    """
    if answer is None or answer is ...:
        return Verdict(name, BLANK)
    if isinstance(answer, Exception):
        return Verdict(name, FAILS, str(answer))
    found, right = numbers(answer), known.right
    if found is None:
        return Verdict(name, WRONG, f"{type(answer).__name__} is no array of numbers")
    if found.shape != right.shape:
        return Verdict(name, *_of_shape(found, known))
    if np.array_equal(found, right, equal_nan=True):
        return Verdict(name, EXACT)
    with np.errstate(all="ignore"):
        found = found.astype(np.result_type(found, right))
        off = np.abs(found - right)
    far = f"the largest difference is {number(float(off.max()), 2)}"
    if known.same(found):
        return Verdict(name, CLOSE, far)
    if follows is not None and known.same(found, follows):
        return Verdict(name, FOLLOWS, f"right, given your {through}")
    return Verdict(name, *(_lacking(found, known) or _scaled(found, known) or (WRONG, far)))


def _of_shape(found: NDArray[Any], known: Known) -> tuple[str, str]:
    """What is wrong with an answer of another shape than the variable's."""
    right = known.right
    needs = f"it has the shape {found.shape}, and needs {right.shape}, that of the variable"
    if found.ndim > 1 and known.same(found.swapaxes(-1, -2)):
        return TRANSPOSED, needs
    lead = found.ndim - right.ndim
    pairs = list(zip(found.shape[max(lead, 0) :], right.shape))
    if lead >= 0 and all(have == want or want == 1 for have, want in pairs):
        axes = [*range(lead), *[lead + i for i, (have, want) in enumerate(pairs) if have != want]]
        why = ", along which the variable was broadcast" if known.broadcast else ""
        return SHAPE, f"{needs}: sum it over ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}{why}"
    try:
        if known.same(np.broadcast_to(found, right.shape)):
            return SHAPE, f"{needs}: the numbers are right, and belong to every element"
    except ValueError:
        pass
    return SHAPE, needs


def _lacking(found: NDArray[Any], known: Known) -> tuple[str, str] | None:
    """Which contributions are missing in the sum."""
    uses = list(known.parts)
    if len(uses) < 2:
        return None
    sizes = range(len(uses) - 1, 0, -1) if len(uses) <= MANY else (len(uses) - 1, 1)
    for size in sizes:
        for there in combinations(uses, size):
            if known.same(found, np.sum([known.parts[use] for use in there], axis=0)):
                gone = [use for use in uses if use not in there]
                told = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
                return MISSING, f"without the contribution of {told}: all uses add up, +="
    return None


def _scaled(found: NDArray[Any], known: Known) -> tuple[str, str] | None:
    """By which factor it is wrong, or whether rows and columns have changed places."""
    right = known.right
    if found.ndim > 1 and known.same(found.swapaxes(-1, -2)):
        return TRANSPOSED, "rows and columns have changed places"
    weight = float((right.astype(np.float64) ** 2).sum())
    if not weight or not np.isfinite(found).all() or not np.isfinite(weight):
        return None
    factor = float((found.astype(np.float64) * right).sum()) / weight
    simple = Fraction(factor).limit_denominator(64)
    plain = simple != 0 and abs(factor - simple) <= 1e-5 * abs(factor)
    alone = right.size == 1 and not plain  # one number is always a multiple of another
    if alone or not factor or not known.same(found / factor):
        return None
    if plain:
        return FACTOR, "the sign is wrong" if simple == -1 else f"{simple} times what it should be"
    return FACTOR, f"{number(factor, 4)} times what it should be"
