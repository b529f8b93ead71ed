"""When two computations agree: up to rounding, by the coarsest dtype on the way, and in infinities and nan too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import Array

TOLERANCES = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-10}
"""How far results may be apart, beside 1 plus the largest number, where a dtype is the coarsest."""


def tolerance(dtypes: Iterable[Any]) -> float:
    """How far results may be apart that were computed in some dtypes; 0, if none of them rounds."""
    return max([TOLERANCES.get(str(each), 0.0) for each in dtypes], default=0.0)


def agree(ours: Array, theirs: Array, tolerance: float) -> bool:
    """Whether arrays of one shape and dtype hold the same numbers; only floats may differ by rounding."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    room = tolerance * (1 + np.abs(ours[np.isfinite(ours)]).max(initial=0)) if ours.dtype.kind == "f" else 0
    return bool((_same(ours, theirs) | (_away(ours, theirs) <= room)).all())


def apart(ours: Array, theirs: Array) -> float:
    """The largest difference; of arrays of one shape."""
    return float(_away(ours, theirs)[~_same(ours, theirs)].max(initial=0))


def _same(ours: Array, theirs: Array) -> Array:
    return (theirs == ours) | ((theirs != theirs) & (ours != ours))


def _away(ours: Array, theirs: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.abs(theirs.astype(np.float64) - ours)
