"""Whole recurrent layers as one primitive each, and which cells have one.

The arithmetic is that of `walk` and `gates`; the reference of each layer is the same cell folded operation by
operation, `folding.fold`.

The result of a layer is the history of its hidden state, (T+1, N, H), in the order of time: the initial state comes
before the first step that is taken (so at the end, where the walk is a reverse one). An LSTM's last cell state is one
more row at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..backend import Array
from ..core.modes import current
from ..core.primitive import primitive
from ..core.tensor import Tensor
from ..errors import memory_explained
from ..ops.elementwise import where
from ..ops.shapes import stack
from . import folding
from .cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell, State
from .folding import Validity
from .gates import Gates, GRUAfterGates, GRUGates, LSTMGates, MinimalGRUGates, RNNGates
from .walk import Segment, Walk

SMALLER = "take a smaller batch or shorter sequences (truncation)"
REMEDY = f"checkpoint=k keeps the gates of k steps only; or {SMALLER}"


# -- the primitives ----------------------------------------------------------------------------------------------


def _forward(
    xp: Any, x: Array, states: Sequence[Array], W: Array, U: Array, b: Any, c: Any, inside: Any, cell: Cell,
    reverse: bool, shortest: int | None, checkpoint: int | None, mode: str,
) -> tuple[Array, list[Segment]]:  # fmt: skip
    walk = Walk(xp, gates_of(cell), x, states, W, U, b, c, inside, reverse, shortest, mode)
    return walk.forward(checkpoint)


def _backward(
    xp: Any, g: Any, history: Array, segments: list[Segment], x: Array, *rest: Any, wanted: Sequence[bool],
    cell: Cell, reverse: bool, shortest: int | None, checkpoint: int | None, mode: str,
) -> list[Any]:  # fmt: skip
    S = len(cell.states)
    states, (W, U, b, *c, inside) = rest[:S], rest[S:]
    walk = Walk(xp, gates_of(cell), x, states, W, U, b, c[0] if c else 0.0, inside, reverse, shortest, mode)
    what = lambda: f"the way back through {type(cell).__name__} over T = {walk.T} steps of N = {walk.N} sequences"  # noqa: E731
    wanted = [*wanted[: S + 4], bool(c) and wanted[S + 4]]
    with memory_explained(what, REMEDY):
        found = walk.backward(g, history, segments, wanted)
    return [*found[: S + 4 + len(c)], None]


def _by_steps(
    x: Tensor, *rest: Any, cell: Cell, reverse: bool, shortest: int | None, checkpoint: int | None, mode: str
) -> Tensor:  # fmt: skip
    """The history of a fused layer, operation by operation: the reference of all four."""
    S = len(cell.states)
    states, (W, U, b, *c, inside) = rest[:S], rest[S:]
    twin = _copy(cell)
    given = {"W": W, "U": U, "b": b} | ({"c": c[0]} if c else {})
    vars(twin).update({name: None if isinstance(w, (int, float)) else w for name, w in given.items()})
    T, N = x.shape[:2]
    what = lambda: f"{type(cell).__name__} operation by operation over T = {T} steps of N = {N} sequences"  # noqa: E731
    with memory_explained(what, SMALLER):
        walk = folding.steps(twin, x, states, inside, T if shortest is None else shortest, reverse)
        hidden = [new[0] for new, _ in walk]
        history = [*hidden, states[0]] if reverse else [states[0], *hidden]
        return stack([*history, *walk[0 if reverse else -1][0][1:]])


_fused = partial(primitive, "general", reference=_by_steps, vjp=_backward, sparse=True)


@_fused()
def rnn_layer(xp: Any, x: Any, h: Any, W: Any, U: Any, b: Any, inside: Any,
              *, cell: Cell, reverse: bool = False, shortest: int | None = None,
              checkpoint: int | None = None, mode: str = "auto") -> Any:  # fmt: skip
    """`RNNCell` over all steps: x (T, N, I), h (N, H) -> the history of h, (T+1, N, H)."""
    return _forward(xp, x, (h,), W, U, b, 0.0, inside, cell, reverse, shortest, checkpoint, mode)


@_fused()
def minimal_gru_layer(xp: Any, x: Any, h: Any, W: Any, U: Any, b: Any, inside: Any,
                      *, cell: Cell, reverse: bool = False, shortest: int | None = None,
                      checkpoint: int | None = None, mode: str = "auto") -> Any:  # fmt: skip
    """`MinimalGRUCell` over all steps: x (T, N, I), h (N, H) -> the history of h, (T+1, N, H)."""
    return _forward(xp, x, (h,), W, U, b, 0.0, inside, cell, reverse, shortest, checkpoint, mode)


@_fused()
def gru_layer(xp: Any, x: Any, h: Any, W: Any, U: Any, b: Any, c: Any, inside: Any,
              *, cell: Cell, reverse: bool = False, shortest: int | None = None,
              checkpoint: int | None = None, mode: str = "auto") -> Any:  # fmt: skip
    """`GRUCell` over all steps: x (T, N, I), h (N, H) -> the history of h, (T+1, N, H); c: the recurrent bias, or 0."""
    return _forward(xp, x, (h,), W, U, b, c, inside, cell, reverse, shortest, checkpoint, mode)


@_fused()
def lstm_layer(xp: Any, x: Any, h: Any, c: Any, W: Any, U: Any, b: Any, inside: Any,
               *, cell: Cell, reverse: bool = False, shortest: int | None = None,
               checkpoint: int | None = None, mode: str = "auto") -> Any:  # fmt: skip
    """`LSTMCell` over all steps: x (T, N, I), h and c (N, H) -> the history of h and the last c, (T+2, N, H)."""
    return _forward(xp, x, (h, c), W, U, b, 0.0, inside, cell, reverse, shortest, checkpoint, mode)


FUSED: dict[Any, tuple[type[Cell], Callable[..., Tensor], Callable[[Any], Gates]]] = {
    RNNCell.equation: (RNNCell, rnn_layer, lambda cell: RNNGates(cell.activation)),
    MinimalGRUCell.equation: (MinimalGRUCell, minimal_gru_layer, lambda cell: MinimalGRUGates()),
    GRUCell.equation: (
        GRUCell, gru_layer, lambda cell: (GRUGates if cell.reset == "before" else GRUAfterGates)(cell.update)
    ),
    LSTMCell.equation: (LSTMCell, lstm_layer, lambda cell: LSTMGates()),
}  # fmt: skip
"""The cell, its layer and its gate arithmetic, by the very equation that it has: a cell that changes it has none."""


COMPUTES = ("gates", "states", "Gates", "weights", "_apart", "equation", "advance", "_defined")
"""What a cell computes with, beside its weights and its options."""


def can(cell: Cell) -> bool:
    """Whether there is a fused layer of this cell: it computes as the package's cell does, in all that it has."""
    kind, own = type(cell), vars(cell)
    if kind.equation not in FUSED or not own.keys().isdisjoint(COMPUTES):
        return False
    base = FUSED[kind.equation][0]
    return all(getattr(kind, name) == getattr(base, name) for name in COMPUTES) and own.get("activation") in ACTIVATIONS


ACTIVATIONS = (None, "tanh", "relu")
"""Those of an RNN that have a gate arithmetic; None: of all other cells."""


def _fits(cell: Cell, weights: Sequence[Any]) -> bool:
    """Whether the weights have the shapes that the cell gave them; others go step by step, and may be refused."""
    columns, H = len(cell.gates) * cell.hidden_size, cell.hidden_size
    shapes = (cell.input_size, columns), (H, columns), (columns,), (H,)
    return all(weight is None or weight.shape == shape for weight, shape in zip(weights, shapes))


def _copy(cell: Cell) -> Cell:
    """The cell with its own settings and the same weights; in a fourth of the time that `copy.copy` takes."""
    twin: Cell = object.__new__(type(cell))
    vars(twin).update(vars(cell))
    return twin


def gates_of(cell: Cell) -> Gates:
    """The gate arithmetic of a cell, with its options."""
    return FUSED[type(cell).equation][2](cell)


def fold(
    cell: Cell, x: Tensor, state: State, valid: Validity | None = None, reverse: bool = False,
    *, checkpoint: int | None = None, mode: str = "auto",
) -> tuple[Tensor, State]:  # fmt: skip
    """As `folding.fold`, in one primitive; checkpoint, mode: as in `Recurrent`."""
    T = x.shape[0]
    weights = [cell.W, cell.U, cell.b, *([vars(cell)["c"]] if "c" in vars(cell) else [])]
    if not _fits(cell, weights):
        return folding.fold(cell, x, state, valid, reverse)
    arrays = [0.0 if weight is None else weight for weight in weights]
    cell = _copy(cell)  # whoever changes its settings afterwards does not change what has been computed
    if not (current().recording and any(each.requires_grad for each in (x, *state, *weights) if each is not None)):
        checkpoint = 0
    options: dict[str, Any] = {"cell": cell, "reverse": reverse, "checkpoint": checkpoint, "mode": mode}
    if valid is not None:
        options["shortest"] = valid.shortest
    with cell.scope():
        history = FUSED[type(cell).equation][1](x, *state, *arrays, True if valid is None else valid.inside, **options)
        rows = history[0:T] if reverse else history[1 : T + 1]
        output = rows if valid is None else where(valid.inside, rows, 0)
        ends = [history[0 if reverse else T], *[history[T + i] for i in range(1, len(state))]]
    for name, end in zip(cell.states, ends):
        end.name = name
    return output, tuple(ends)
