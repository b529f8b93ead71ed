"""Gradients from step to step: how much of the loss at one step reaches the states of others, and its decay.

It runs op by op on a tape of its own, `unrolled`, in the dtype of the layer; norms are summed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.autodiff import pullback
from ...core.modes import enable_grad
from ...core.tensor import Tensor
from ...errors import GraphError, OptionError
from ...nn.recurrent import Recurrent
from ...ops.shapes import concatenate
from ..summary import number
from .heat import Strip, logarithmic, seen
from .plots import Curve, Matrix, Plot
from .unrolled import Walk, counts, labelled, unrolled

Loss = Callable[[Tensor, int], Tensor]
"""The loss of one step: from what the layer puts out there, (N, D*H), and the number of the step."""
Arrays = Mapping[str, NDArray[Any]]


def total(output: Tensor, t: int) -> Tensor:
    """The default loss of a step: the sum of all that the layer puts out there, so that all cells start alike."""
    summed: Tensor = output.sum()
    return summed


def losses(layer: Recurrent, walks: list[Walk], loss: Loss) -> list[Tensor]:
    """The loss of each step, from what the top of the layer puts out there."""
    if not callable(loss):
        raise OptionError(f"loss is {loss!r}; it must be a function of an output (N, D*H) and the number of its step")
    D = 1 + layer.bidirectional
    tops = [[state[0] for state in walk.states] for walk in walks[-D:]]
    found = []
    with enable_grad():
        for t, parts in enumerate(zip(*tops)):
            lost = loss(parts[0] if D == 1 else concatenate(list(parts), axis=-1), t)
            if not isinstance(lost, Tensor) or lost.size != 1:
                what = lost.label if isinstance(lost, Tensor) else type(lost).__name__
                raise GraphError(f"the loss of step {t} must be a Tensor of one element, not {what}: sum it up")
            found.append(lost)
    return found


def norm(array: NDArray[Any]) -> float:
    """The root of the sum of the squares of all elements, summed in float64."""
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


@dataclass(frozen=True, eq=False, repr=False)
class GradientThroughTime(Plot):
    """How much of the loss of each step reaches the state after each other: `norms[t, k]` is ||dL_t/dh_k||, (T, T).

    The norm is over the units and, as the losses of N sequences are summed, over the sequences too. Steps count from 0.
    name: the layer. state: "h", or "c" of an LSTM. reverse: whether the cell walks from the end to the start.
    labels (T): the symbols that were read, or the numbers of the steps.
    """

    norms: NDArray[Any]
    name: str
    state: str = "h"
    reverse: bool = False
    labels: tuple[str, ...] = ()

    @property
    def decay(self) -> NDArray[Any]:
        """What is left of the gradient d steps away, relative to that at the step itself (T): its mean over all t.

        1 at d = 0; nan where the loss of no step reaches its own state.
        """
        own = np.diagonal(self.norms)
        found = []
        for d in range(len(own)):
            reached = np.diagonal(self.norms, d if self.reverse else -d)
            start = own[: len(own) - d] if self.reverse else own[d:]
            there = start > 0
            found.append(float(np.mean(reached[there] / start[there])) if there.any() else np.nan)
        return np.array(found)

    @property
    def forgotten(self) -> NDArray[Any]:
        """The share of the gradient that is gone d steps away (T): 1 - decay, negative where gradients grow."""
        return 1 - self.decay

    @property
    def title(self) -> str:
        return f"{self.name}: the gradient of the loss at step t for the state {self.state}_k"

    def sentences(self) -> list[str]:
        return [_left(self.name, self.decay)]

    def numbers(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        steps = [*map(str, range(len(self.norms)))]
        rows = [[f"t = {t}", *map(number, row)] for t, row in zip(steps, self.norms.tolist())]
        return [f"||dL_t/d{self.state}_k||", *[f"k = {k}" for k in steps]], rows

    def strips(self) -> list[Strip]:
        """The matrix for a terminal; of a large one, one in so many rows and columns."""
        T = len(self.norms)
        each = -(-T // 60)
        steps = list(map(str, range(T)))[::each]
        labels = [seen(label) for label in labelled(self.labels or None, T)]
        note = f"a row for each t, a column for each k{f', one in {each}' if each > 1 else ''}"
        return [logarithmic(f"||dL_t/d{self.state}_k||", note, self.norms[::each, ::each], labels[::each], steps)]

    def drawn(self) -> Matrix:
        """What is plotted."""
        labels = labelled(self.labels or None, len(self.norms))
        k = f"{self.state}_k"
        return Matrix(self.norms, labels, x=f"step $k$ of the state ${k}$", y="step $t$ of the loss",
                      scale=f"$\\|\\partial L_t / \\partial {k}\\|$")  # fmt: skip


def gradient_through_time(
    layer: Recurrent, x: Any, h_0: Any = None, *, loss: Loss = total, state: str = "h", cell: int | None = None,
    labels: Sequence[str] | None = None, name: str | None = None,
) -> GradientThroughTime:  # fmt: skip
    """The matrix ||dL_t/dh_k|| of a layer over a sequence: for each t one way back to all states at once.

    x, h_0: as the layer takes them. loss: the loss of each step; the default is the sum of its output.
    state: "h", or "c" of an LSTM. An LSTM carries both: h_k alone leads on through the gates only; what stays in the
        cell passes by c_k, and from there to h_k too. So dL/dc_k is all that remembering brings, dL/dh_k a part of it.
    cell: whose states, by number in `layer.cells`; left out, those of the top layer, in the forward direction.
    labels: the T symbols that x stands for. name: what pictures call the layer.

    Raises: OptionError for what is no recurrent layer, or a state or cell that it has not; ShapeError for too few
        labels; as the layer does.
    """
    walks = unrolled(layer, x, h_0)
    walk = _chosen(layer, walks, cell)
    if state not in walk.cell.states:
        raise OptionError(f"{type(walk.cell).__name__} has the states {', '.join(walk.cell.states)}, not {state!r}")
    states = [each[walk.cell.states.index(state)] for each in walk.states]
    T = len(states)
    norms = np.zeros((T, T))
    for t, lost in enumerate(losses(layer, walks, loss)):
        norms[t] = [norm(d.numpy()) for d in pullback(lost, states)]
    return GradientThroughTime(norms, name or type(layer).__name__, state, walk.reverse, labelled(labels, T))


@dataclass(frozen=True, eq=False, repr=False)
class Decay(Plot):
    """What is left of a gradient with distance, of several layers in one plot: `curves[name]` is its decay (T).

    name: what they have in common, such as "New layers"; "", if there is nothing to say.
    """

    curves: Arrays
    name: str = ""

    @property
    def title(self) -> str:
        left = "hat is left of the gradient, with distance"
        return f"{self.name}: w{left}" if self.name else f"W{left}"

    @property
    def forgotten(self) -> dict[str, NDArray[Any]]:
        """The share that is gone, by name (T)."""
        return {name: 1 - curve for name, curve in self.curves.items()}

    def sentences(self) -> list[str]:
        return [_left(name, curve) for name, curve in self.curves.items()]

    def numbers(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        T = max(map(len, self.curves.values()))
        shown = [d for d in range(T) if d < 5 or str(d).rstrip("0") in "125" or d == T - 1]
        rows = [[str(d), *[number(float(c[d])) if d < len(c) else "" for c in self.curves.values()]] for d in shown]
        return ["distance", *self.curves], rows

    def strips(self) -> list[Strip]:
        """A row for each layer, a column for each distance."""
        T = max(map(len, self.curves.values()))
        values = np.full((len(self.curves), T), np.nan)
        for row, curve in zip(values, self.curves.values()):
            row[: len(curve)] = curve
        note = "||dL_t/dh_(t-d)|| relative to d = 0; a column for each d"
        return [logarithmic("decay", note, values, list(self.curves), list(map(str, range(T))))]

    def drawn(self) -> Curve:
        """What is plotted."""
        return Curve(self.curves, x="distance $d$ in steps",
                     y="$\\|\\partial L_t / \\partial h_{t-d}\\|$, relative to $d = 0$")  # fmt: skip


def decay(layers: Mapping[str, Recurrent], x: Any, *, loss: Loss = total, name: str = "") -> Decay:
    """How the gradient of several layers decays with distance on the same input; of an LSTM, for h and for c.

    layers: by the name that the plot gives them. name: what they have in common, for the title of the picture.

    Raises: as `gradient_through_time`; OptionError, if there is no layer, or what is given is no dict of them by name.
    """
    if not isinstance(layers, Mapping) or not all(isinstance(name, str) for name in layers):
        raise OptionError(f"layers is {layers!r}; it must be a dict of layers by name, as in {{'GRU': layer}}")
    if not layers:
        raise OptionError("there is no layer to compare: give at least one, as in {'GRU': layer}")
    curves: dict[str, NDArray[Any]] = {}
    for each, layer in layers.items():
        states = layer.cell_type.states if isinstance(layer, Recurrent) else ("h",)
        for state in states:
            found = gradient_through_time(layer, x, loss=loss, state=state)
            curves[each if len(states) == 1 else f"{each}, {state}"] = found.decay
    return Decay(curves, name)


def _left(name: str, curve: NDArray[Any]) -> str:
    last = len(curve) - 1
    places = [d for d in (1, 10, last) if 0 < d <= last]
    said = [f"{curve[d]:.2g} after {d} step{'s' * (d > 1)}" for d in dict.fromkeys(places)]
    return f"{name}: what is left of 1 is {', '.join(said)}." if said else f"{name}: one step, so nothing decays."


def _chosen(layer: Recurrent, walks: list[Walk], cell: int | None) -> Walk:
    number = len(walks) - 1 - layer.bidirectional if cell is None else cell
    if not counts(number, 0, len(walks)):
        raise OptionError(f"cell is {cell!r}; the layer has {len(walks)}, counted from 0")
    return walks[number]
