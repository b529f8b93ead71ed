"""A cell folded over time, one operation after the other: what every fused layer is held to.

`Validity` says which steps of which sequences are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import BACKEND_OF, as_array, backend_of
from ..core.modes import place, scope
from ..core.tensor import Tensor
from ..errors import BackendError, DtypeError, ShapeError
from ..ops.elementwise import where
from ..ops.shapes import stack, unstack
from .cells import Cell, State


class Validity:
    """Which steps of which sequences are real: made on the host from `lengths`, moved to the weights' backend once.

    inside: (T, N, 1). shortest: the number of steps that all sequences have.
    """

    def __init__(self, lengths: Any, T: int, N: int, backend: str) -> None:
        lengths = checked_lengths(lengths, T, N)
        self.inside = Tensor(as_array(np.arange(T)[:, None, None] < lengths[:, None], backend), name="inside")
        self.shortest = int(lengths.min(initial=T))


def checked_lengths(lengths: Any, T: int, N: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Lengths as a NumPy array (N): integers from 0 (the state stays as it was) to T.

    Raises: BackendError, if they lie on a GPU, where reading them would stop the pipeline; DtypeError, ShapeError.
    """
    bare = getattr(lengths, "_array", lengths)
    if type(bare) in BACKEND_OF and backend_of(bare).name != "numpy":
        home = backend_of(bare).name_of(bare)
        raise BackendError(f"lengths lie on {home}, but are needed on the host: keep them as NumPy integers{place()}")
    fitting = f"x has N = {N} sequences of T = {T} steps, so that {N} integers from 0 to {T} would fit{place()}"
    try:
        found = np.asarray(bare)
    except ValueError:
        raise ShapeError(f"lengths are nested lists of several lengths; {fitting}") from None
    if found.shape != (N,):
        raise ShapeError(f"lengths has shape {found.shape}; {fitting}")
    if found.dtype.kind not in "iu" and N:
        raise DtypeError(f"lengths are {found.dtype}; {fitting}")
    for n, length in enumerate(found.tolist()):
        if not 0 <= length <= T:
            raise ShapeError(f"lengths[{n}] is {length}; {fitting}")
    return found.astype(np.int64)


def steps(
    cell: Cell, x: Tensor, state: State, inside: Tensor | bool, shortest: int, reverse: bool
) -> list[tuple[State, Tensor | None]]:
    """The states after each step, in the order of time, and which sequences have that step (None: all of them).

    x (T, N, I); state: before the first step that is taken; inside, shortest: of `Validity`, or True.
    Past the end of a sequence its state stands still; so walking in reverse starts it at its last valid step.
    """
    T = x.shape[0]
    if x.requires_grad:
        xs: Sequence[Tensor] = unstack(x)
    else:  # nothing to record: eight times as fast
        xs = [Tensor(x_t) for x_t in x._array]
    for x_t in xs:
        x_t.name = "x"
    found: list[tuple[State, Tensor | None]] = []
    weights = cell.weights()
    for t in reversed(range(T)) if reverse else range(T):
        with scope(step=t):
            new, mask = cell.advance(xs[t], state, weights), None
            if isinstance(inside, Tensor) and t >= shortest:
                mask = Tensor(inside._array[t], name="inside")
                new = tuple([where(mask, after, before) for after, before in zip(new, state)])
                for name, s in zip(cell.states, new):
                    s.name = name
            found.append((new, mask))
            state = new
    return found[::-1] if reverse else found


def fold(
    cell: Cell, x: Tensor, state: State, valid: Validity | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """A cell along the time axis: x (T, N, I) -> (T, N, H) and the last states (N, H).

    Past the end of a sequence the outputs are zero. `fused.fold` has the same arguments and the same results.
    """
    inside, shortest = (valid.inside, valid.shortest) if valid else (True, x.shape[0])
    with cell.scope():
        walked = steps(cell, x, state, inside, shortest, reverse)
        outputs = [new[0] if mask is None else where(mask, new[0], 0) for new, mask in walked]
    return stack(outputs), walked[0 if reverse else -1][0]
