"""A recurrent layer taken step by step, with everything on the way in hand: what each step defines, and its weights.

The layer computes itself, from copies of its cells that keep a record: so fused layers, both directions, several
layers, sequences of several lengths and cells of your own are all seen in the same way. The layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from ...core.modes import enable_grad, no_grad
from ...core.tensor import Tensor
from ...errors import OptionError, ShapeError
from ...nn.cells import Cell, State
from ...nn.module import replaced, twin_of
from ...nn.recurrent import Recurrent


@dataclass(eq=False)
class Walk:
    """What one cell did, in the order of time.

    number: its place in `layer.cells`. reverse: whether it walked from the end to the start.
    defined: what its equation defines at each step, by name. states: those after each step.
    weights: for each step the leaves, by name, that took the place of the cell's weights there.
    """

    cell: Cell
    number: int
    reverse: bool
    defined: list[Any] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)


def watched(layer: Recurrent, x: Any, initial: Any = None, lengths: Any = None) -> list[Walk]:
    """What each cell of a layer defines at each step, without gradients; arguments as those of the layer itself.

    Raises: OptionError for what is no recurrent layer; and as the layer does.
    """
    walks = _walks(layer)
    with no_grad():
        _twin(layer, {id(walk.cell): _with_record_of_equation(walk) for walk in walks})(x, initial, lengths)
    return _in_time(walks)


def unrolled(layer: Recurrent, x: Any, initial: Any = None, *, cut: int | None = None) -> list[Walk]:
    """A layer op by op on a tape of its own, each step of each cell with weights of its own.

    So the gradient for a weight can be taken apart by steps: the numbers are the same, the leaves are not.
    cut: the state is detached before every `cut`-th step, as truncated back-propagation does.

    Raises: as `watched`.
    """
    walks = _walks(layer)
    with enable_grad():
        _twin(layer, {id(walk.cell): _with_record_of_steps(walk, cut) for walk in walks})(x, initial)
    return _in_time(walks)


def counts(number: Any, low: int, high: int) -> bool:
    """Whether something is a whole number, NumPy's too, from low up to high, and not high itself."""
    return isinstance(number, Integral) and not isinstance(number, bool) and low <= int(number) < high


def labelled(labels: Sequence[str] | None, T: int) -> tuple[str, ...]:
    """A label for each step: those given, or the numbers of the steps.

    Raises: OptionError, if they are no sequence; ShapeError, if they are not T.
    """
    if labels is not None and not isinstance(labels, Sized):
        raise OptionError(f"labels is {labels!r}; it must be a sequence of T = {T} texts, one for each step")
    if labels is not None and len(labels) != T:
        raise ShapeError(f"there are {len(labels)} labels for T = {T} steps; one for each would fit")
    return tuple(map(str, range(T))) if labels is None else tuple(labels)


def _walks(layer: Recurrent) -> list[Walk]:
    if not isinstance(layer, Recurrent):
        own = "; a cell becomes a layer by class Mine(nn.Recurrent): cell_type = ..." if isinstance(layer, Cell) else ""
        raise OptionError(
            f"what happens through time is seen in a recurrent layer such as nn.GRU, not in {type(layer).__name__}; "
            f"of a model, give the layer that it holds{own}"
        )
    D = 1 + layer.bidirectional
    return [Walk(cell, number, reverse=number % D == 1) for number, cell in enumerate(layer.cells)]


def _twin(layer: Recurrent, cells: dict[int, Any]) -> Any:
    """The layer with the recording cells; it goes op by op and drops nothing out."""
    twin = replaced(layer, cells, training=False)
    vars(twin)["fused"] = False
    return twin


def _in_time(walks: list[Walk]) -> list[Walk]:
    """The records of walks from the end to the start, turned into the order of time."""
    for walk in walks:
        for record in (walk.defined, walk.states, walk.weights) if walk.reverse else ():
            record.reverse()
    return walks


def _with_record_of_equation(walk: Walk) -> Cell:
    def equation(x: Any, state: State, weights: Any) -> Any:
        walk.defined.append(walk.cell.equation(x, state, weights))
        return walk.defined[-1]

    twin: Cell = twin_of(walk.cell, equation=equation, training=False)
    return twin


def _with_record_of_steps(walk: Walk, cut: int | None) -> Cell:
    cell = walk.cell
    weights = {name: w for name, w in cell._named_state() if w.dtype.kind == "f"}

    def advance(x: Any, state: State, _: Any) -> State:
        if cut is not None and walk.states and len(walk.states) % cut == 0:
            state = tuple([s.detach() for s in state])
        leaves = {name: Tensor(w._array, requires_grad=True, name=name) for name, w in weights.items()}
        own = replaced(cell, {id(w): leaves[name] for name, w in weights.items()}, training=False)
        walk.weights.append(leaves)
        walk.states.append(own.advance(x, state, own.weights()))
        return walk.states[-1]

    twin: Cell = twin_of(cell, advance=advance, training=False)
    return twin
