"""Recurrent layers: a cell folded over time, in layers and directions. What the four kinds share is here once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..backend.kernels import sequence
from ..core.modes import current, place
from ..core.tensor import Tensor
from ..errors import CellError, OptionError, ShapeError, memory_explained
from ..ops.elementwise import where
from ..ops.shapes import concatenate, reshape, stack, swapaxes, unstack
from . import folding, fused, options
from .cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell, State
from .folding import Validity
from .initializers import Init
from .layers import Dropout
from .module import Module

UNFUSED_REMEDY = f"fused=True takes a fraction of that; or {fused.SMALLER}"


@dataclass(eq=False, repr=False)
class Recurrent(Module):
    """A stack of cells folded over time, in one direction or both.

    num_layers: each takes the outputs (D*H) of the one below.
    batch_first: x and the output are (N, T, ...) instead of (T, N, ...); states stay as they are.
    dropout: the probability of zeroing an output on its way from layer to layer, while training.
    bidirectional: D = 2, with a second cell per layer that walks from the end to the start.
    reverse: D = 1, and that one direction walks from the end to the start; outputs stay where their inputs were.
    fused: run each cell of the package over all steps as one primitive, forward and back; under `debug()`, which names
        the first bad operation, and for cells of your own, it goes operation by operation all the same. The
        weights are read on the way back too: writing to one of them before it is a ModifiedError.
    checkpoint: k keeps the gates of k steps only, and computes those of all others again on the way back, so that
        k near the root of T takes memory for the gates and states of about two roots of T steps in place of T; what
        goes in and comes out, x and the outputs, still grows with T. None keeps all.
    mode: how a GPU takes the steps of a fused layer: "steps", "graph" or "persistent" as in `backend.kernels.sequence`,
        where it can; "auto" takes what was measured to be fastest. On a CPU there is one way.
    bias, init, dtype, rng: of each cell; see `Cell`.

    cells: layer by layer, in each the forward direction, then the reverse one.

    Raises: OptionError, DtypeError, and ShapeError as `Cell`; CellError without a cell_type.

    A layer of your own: set cell_type; fields that it declares, as a dataclass, are options of its cells.
    """

    cell_type: ClassVar[type[Cell]]

    input_size: int
    hidden_size: int
    num_layers: int = 1
    _: KW_ONLY
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    reverse: bool = False
    fused: bool = True
    checkpoint: int | None = None
    mode: str = "auto"
    init: Init = "uniform"
    dtype: DTypeLike = np.float32
    rng: np.random.Generator | None = None

    def __post_init__(self) -> None:
        kind = getattr(self, "cell_type", None)
        if not (isinstance(kind, type) and issubclass(kind, Cell)):
            raise CellError(f"{type(self).__name__} has cell_type = {kind!r}: set it to the class of its cells, a Cell")
        self.input_size = options.count("input_size", self.input_size)
        self.hidden_size = options.count("hidden_size", self.hidden_size)
        self.num_layers = options.count("num_layers", self.num_layers)
        self.dropout = options.probability("dropout", self.dropout)
        options.choice("mode", self.mode, sequence.WAYS)
        if self.bidirectional and self.reverse:
            raise OptionError("bidirectional=True walks in reverse too, so that reverse=True has no meaning beside it")
        if self.checkpoint is not None:
            self.checkpoint = options.count("checkpoint", self.checkpoint)
            if not self.fused:
                raise OptionError("checkpoint= is an option of the fused layers, and fused is False")
        if self.dropout and self.num_layers == 1:
            warnings.warn("dropout acts between layers, and there is only one; use num_layers=2 or more", stacklevel=3)
        self.drop = Dropout(self.dropout)
        D = len(self._directions)
        settings = {field.name: getattr(self, field.name) for field in fields(self)[len(fields(Recurrent)) :]}
        self.cells = [
            self.cell_type(self.input_size if layer == 0 else D * self.hidden_size, self.hidden_size,
                           bias=self.bias, init=self.init, dtype=self.dtype, rng=self.rng, **settings)
            for layer in range(self.num_layers) for _ in range(D)
        ]  # fmt: skip
        self.dtype = self.cells[0].dtype
        if self.checkpoint is not None and not fused.can(self.cells[0]):
            raise OptionError(
                f"checkpoint= is an option of the fused layers, and there is none of {self.cell_type.__name__}"
            )

    @property
    def _directions(self) -> tuple[bool, ...]:
        """For each cell of a layer, whether it walks in reverse."""
        return (False, True) if self.bidirectional else (self.reverse,)

    def forward(self, x: Any, h_0: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """x (T, N, I) -> output (T, N, D*H) and the final state h_n (num_layers*D, N, H), cell by cell as in `cells`.

        h_0: the initial state, of h_n's shape; zeros if left out. Where the cell carries several states, h_n is a tuple
            of them, in the order of its `states`, and h_0 may be one too.
        lengths: how many steps of each sequence are real, as N integers on the host. Outputs past the end are zero,
            the final state is that of the last valid step, the reverse direction starts there. A length of 0 leaves
            the state as it was.

        Raises: ShapeError, DtypeError, BackendError.
        """
        output, final = self._folded(x, self._initial(h_0), lengths)
        return output, final[0] if len(final) == 1 else final

    def _initial(self, given: Any) -> State:
        """For each state that the cell carries the initial one, or None: as a tuple, a list of arrays, or the first."""
        states = self.cell_type.states
        several = isinstance(given, tuple) or (isinstance(given, list) and any(hasattr(s, "shape") for s in given))
        if len(states) == 1 or not several:
            return (given, *[None] * (len(states) - 1))
        if len(given) != len(states):
            raise ShapeError(
                f"h_0 is a {type(given).__name__} of {len(given)}; {type(self).__name__} carries {len(states)} states, "
                f"so that ({', '.join(f'{name}_0' for name in states)}) would fit{place()}"
            )
        return tuple(given)

    def _folded(self, x: Any, initial: State, lengths: Any) -> tuple[Tensor, State]:
        x = self._checked_input(x)
        T, N = x.shape[:2]
        what = lambda: f"{type(self).__name__} over T = {T} steps of N = {N} sequences{place()}"  # noqa: E731
        with memory_explained(what, self._remedy):
            taken = getattr(current().listener, "layer", None)  # by a listener that takes layers as a whole
            return self._over_time(x, initial, lengths) if taken is None else taken(self, x, initial, lengths)

    def _remedy(self) -> str:
        """What to do where memory runs out."""
        if not fused.can(self.cells[0]):
            return fused.SMALLER
        return fused.REMEDY if self.fused and not current().debug else UNFUSED_REMEDY

    def _over_time(self, x: Tensor, initial: State, lengths: Any) -> tuple[Tensor, State]:
        T, N = x.shape[:2]
        valid = None if lengths is None else Validity(lengths, T, N, self.cells[0].W.backend)
        if valid is not None:
            x = where(valid.inside, x, 0)  # whatever stands past the end, even nan, is without effect
        starts = zip(*[self._checked_state(s, N, name) for s, name in zip(initial, self.cell_type.states)])
        ends, cells = [], iter(self.cells)
        for layer in range(self.num_layers):
            outputs = []
            for reverse in self._directions:
                cell = next(cells)
                y, state = self._fold(cell)(cell, x, next(starts), valid, reverse=reverse)
                outputs.append(y)
                ends.append(state)
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, axis=-1)
            if layer + 1 < self.num_layers:
                x = self.drop(x)
        return (swapaxes(x, axis1=0, axis2=1) if self.batch_first else x), tuple(
            [_together(each) for each in zip(*ends)]
        )

    def _fold(self, cell: Cell) -> Callable[..., tuple[Tensor, State]]:
        """What takes a cell along the time axis, with the arguments of `folding.fold`."""
        if self.fused and not current().debug and fused.can(cell):
            return partial(fused.fold, checkpoint=self.checkpoint, mode=self.mode)
        return folding.fold

    def _checked_input(self, x: Any) -> Tensor:
        first, letters = self.cells[0], "N, T, " if self.batch_first else "T, N, "
        x = options.beside(first.W, "x", x)
        if x.ndim != 3:
            raise ShapeError(
                f"x has shape {x.shape}, but {type(self).__name__} takes three axes, ({letters}I): shape "
                f"({letters}{self.input_size}) would fit{place()}"
            )
        checked = first.checked_input(x)
        if self.batch_first:
            checked = swapaxes(checked, axis1=0, axis2=1)
        if not checked.shape[0]:
            raise ShapeError(f"x has no time step: ({letters}I) with T of at least 1 would fit{place()}")
        return checked

    def _checked_state(self, state: Any, N: int, name: str) -> tuple[Tensor, ...]:
        """One state per cell."""
        first, count = self.cells[0], len(self.cells)
        if state is None:
            return (first.checked_state(None, (N,), name),) * count
        return tuple(unstack(first.checked_state(state, (count, N), f"{name}_0")))


def _together(states: tuple[Tensor, ...]) -> Tensor:
    """The final states of all cells (cells, N, H)."""
    if len(states) == 1:
        return reshape(states[0], shape=(1, *states[0].shape))  # costs nothing
    joined: Tensor = stack(states)
    return joined


@dataclass(eq=False, repr=False, kw_only=True)
class RNN(Recurrent):
    """Basic units over time; activation: "tanh" or "relu", as `RNNCell`. All else: as `Recurrent`."""

    cell_type = RNNCell
    activation: str = "tanh"


class MinimalGRU(Recurrent):
    """Simplified GRUs over time, with an update gate only; options: as `Recurrent`."""

    cell_type = MinimalGRUCell


@dataclass(eq=False, repr=False, kw_only=True)
class GRU(Recurrent):
    """Gated recurrent units over time; reset, update and recurrent_bias: as `GRUCell`. All else: as `Recurrent`."""

    cell_type = GRUCell
    reset: str = "before"
    update: str = "new"
    recurrent_bias: bool = False


@dataclass(eq=False, repr=False, kw_only=True)
class LSTM(Recurrent):
    """Long short-term memory over time; forget_bias: as `LSTMCell`. All else: as `Recurrent`."""

    cell_type = LSTMCell
    forget_bias: float | None = 1.0

    def forward(
        self, x: Any, h_0: Any = None, lengths: Any = None, *, c_0: Any = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `Recurrent`, but the final state is the pair (h_n, c_n), each (num_layers*D, N, H).

        h_0, c_0: the initial states, zeros if left out; h_0 may also be the pair, as an earlier call returned it: a
            tuple, or a list of arrays.

        Raises: as `Recurrent.forward`; ShapeError for a pair that is none.
        """
        if c_0 is not None:
            first, *others = self._initial(h_0)
            if any(state is not None for state in others):
                raise ShapeError(f"c_0 is given twice: give the pair (h_0, c_0), or h_0= and c_0={place()}")
            h_0 = first, c_0
        output, (h_n, c_n) = super().forward(x, h_0, lengths)
        return output, (h_n, c_n)
