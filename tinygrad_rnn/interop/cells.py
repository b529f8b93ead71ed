"""Cells with what other libraries' have beyond the package's: other activations, clipping, peepholes, coupled gates.

They are op by op and have no fused layer; everything else that the package does works with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..core.tensor import Tensor
from ..errors import ConversionError, OptionError
from ..nn import equations, options
from ..nn.cells import Cell, GRUCell, LSTMCell, RNNCell, State
from ..nn.initializers import Maker
from ..nn.recurrent import GRU, LSTM, RNN, Recurrent
from ..ops import elementwise as e


class Formula(NamedTuple):
    """A function of x, alpha and beta; alpha, beta: what they are if left out, None where the formula has none."""

    function: Callable[[Any, float, float], Any]
    alpha: float | None = None
    beta: float | None = None


FORMULAS: dict[str, Formula] = {
    "Affine": Formula(lambda x, a, b: a * x + b, 1.0, 0.0),
    "Elu": Formula(lambda x, a, b: e.elu(x, alpha=a), 1.0),
    "HardSigmoid": Formula(lambda x, a, b: e.clip(a * x + b, min=0.0, max=1.0), 0.2, 0.5),
    "LeakyRelu": Formula(lambda x, a, b: e.leaky_relu(x, slope=a), 0.01),
    "Relu": Formula(lambda x, a, b: e.relu(x)),
    "ScaledTanh": Formula(lambda x, a, b: a * e.tanh(b * x), 1.0, 1.0),
    "Sigmoid": Formula(lambda x, a, b: e.sigmoid(x)),
    "Softplus": Formula(lambda x, a, b: e.softplus(x)),
    "Softsign": Formula(lambda x, a, b: x / (1 + e.abs(x))),
    "Tanh": Formula(lambda x, a, b: e.tanh(x)),
    "ThresholdedRelu": Formula(lambda x, a, b: e.where(x > a, x, 0), 1.0),
}
"""The activations of ONNX's recurrent operators."""
TAKES = {part: {name for name, row in FORMULAS.items() if getattr(row, part) is not None} for part in ("alpha", "beta")}
"""Those that have an alpha, and those that have a beta: where ONNX lists these, it lists them for these only."""


class Activation(NamedTuple):
    """A function of one number, by the name that ONNX gives it; alpha, beta: what its formula has.

    Called, it is the function.
    """

    name: str
    alpha: float
    beta: float

    def __call__(self, x: Any) -> Any:
        return FORMULAS[self.name].function(x, self.alpha, self.beta)

    @property
    def turns(self) -> bool:
        """Whether 1 - f(a) = f(-a), so that an update gate can be written the other way round."""
        return self.name == "Sigmoid" or (self.name == "HardSigmoid" and self.beta == 0.5)


def activation(name: str, alpha: float | None = None, beta: float | None = None) -> Activation:
    """An activation by ONNX's name, in capitals or not.

    Raises: ConversionError for one that is not known; OptionError for an alpha or beta that is not finite.
    """
    known = spelled(name)
    usual = FORMULAS[known].alpha, FORMULAS[known].beta
    given = [float(default or 0.0) if value is None else float(value) for value, default in zip((alpha, beta), usual)]
    if not all(map(math.isfinite, given)):
        raise OptionError(f"{known} has alpha = {given[0]}, beta = {given[1]}; they must be finite")
    return Activation(known, *given)


def spelled(name: str) -> str:
    """The name of an activation with ONNX's capitals.

    Raises: ConversionError for one that is not known.
    """
    known = next((each for each in FORMULAS if each.lower() == name.lower()), None)
    if known is None:
        raise ConversionError(f"there is no activation {name!r}; known are {', '.join(FORMULAS)}")
    return known


SIGMOID, TANH = activation("Sigmoid"), activation("Tanh")


def _clipped(x: Any, bound: float | None) -> Any:
    return x if bound is None else e.clip(x, min=-bound, max=bound)


def _check(cell: Any, count: int) -> None:
    if len(cell.activations) != count or not all(isinstance(each, Activation) for each in cell.activations):
        raise OptionError(f"{type(cell).__name__} takes {count} activations, not {cell.activations!r}")
    if cell.clip is not None and not options.number("clip", cell.clip) > 0:
        raise OptionError(f"clip is {cell.clip!r}; it must be a positive number, or None")


@dataclass(eq=False, repr=False, kw_only=True)
class VariedRNNCell(RNNCell):
    """As `RNNCell`, with any activation.

    activations: (g,), of h' = g(x W + h U + b). clip: bounds what goes into it. All else: as `Cell`.

    Raises: as `Cell`; OptionError.
    """

    activations: tuple[Activation, ...] = (TANH,)
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self, 1)
        super().__post_init__()

    def equation(self, x: Any, state: State, weights: Any) -> equations.RNNStep:
        (h,), (W, U, b) = state, weights
        return equations.RNNStep(self.activations[0](_clipped(x @ W + h @ U + b, self.clip)))


@dataclass(eq=False, repr=False, kw_only=True)
class VariedGRUCell(GRUCell):
    """As `GRUCell`, with any activations.

    activations: (f, g), of the gates and of the candidate. clip: bounds what goes into them. All else: as `GRUCell`.

    Raises: as `GRUCell`; OptionError.
    """

    activations: tuple[Activation, ...] = (SIGMOID, TANH)
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self, 2)
        super().__post_init__()

    def _turn(self) -> None:
        if not self.activations[0].turns:  # clipped or not: the bounds lie on both sides
            raise OptionError(f"1 - f(a) = f(-a) holds for a sigmoid, not for {self.activations[0]}: the update gate "
                              "of this cell has no other direction")  # fmt: skip
        super()._turn()

    def equation(self, x: Any, state: State, weights: Any) -> equations.GRUStep:
        (h,), (W, U, b), (f, g) = state, weights, self.activations
        z = f(_clipped(x @ W.z + h @ U.z + b.z, self.clip))
        r = f(_clipped(x @ W.r + h @ U.r + b.r, self.clip))
        if self.reset == "before":
            n = g(_clipped(x @ W.n + (r * h) @ U.n + b.n, self.clip))
        else:
            n = g(_clipped(x @ W.n + b.n + r * (h @ U.n + (0 if self.c is None else self.c)), self.clip))
        h = z * n + (1 - z) * h if self.update == "new" else (1 - z) * n + z * h
        return equations.GRUStep(z, r, n, h)


@dataclass(eq=False, repr=False, kw_only=True)
class VariedLSTMCell(LSTMCell):
    """As `LSTMCell`, with any activations, peepholes (Gers and Schmidhuber 2000) and coupled gates.

    activations: (f, g, h), of the gates, of the candidate, and of the cell state on its way out.
    clip: bounds what goes into those of gates and candidate. peepholes: adds P (3H), packed [i|f|o]: how much i and f
    see of the cell state before the step, and o of the one after it. input_forget: couples f = 1 - i.
    All else: as `LSTMCell`.

    Raises: as `LSTMCell`; OptionError.
    """

    activations: tuple[Activation, ...] = (SIGMOID, TANH, TANH)
    clip: float | None = None
    peepholes: bool = False
    input_forget: bool = False

    def __post_init__(self) -> None:
        _check(self, 3)
        super().__post_init__()

    def _make(self, maker: Maker) -> None:
        super()._make(maker)
        zeros = np.zeros(3 * self.hidden_size, maker.dtype)
        self.P = Tensor(zeros, requires_grad=True) if self.peepholes else None

    def equation(self, x: Any, state: State, weights: Any) -> equations.LSTMStep:
        (h, c), (W, U, b), (f_, g_, h_), H = state, weights, self.activations, self.hidden_size
        p = [0.0 if self.P is None else self.P[k * H : (k + 1) * H] * c for k in range(2)]
        i = f_(_clipped(x @ W.i + h @ U.i + p[0] + b.i, self.clip))
        f = 1 - i if self.input_forget else f_(_clipped(x @ W.f + h @ U.f + p[1] + b.f, self.clip))
        g = g_(_clipped(x @ W.g + h @ U.g + b.g, self.clip))
        c = f * c + i * g
        o = f_(_clipped(x @ W.o + h @ U.o + (0.0 if self.P is None else self.P[2 * H :] * c) + b.o, self.clip))
        h = o * h_(c)
        return equations.LSTMStep(i, f, g, o, c, h)


@dataclass(eq=False, repr=False, kw_only=True)
class VariedRNN(RNN):
    """`VariedRNNCell` over time. All else: as `RNN`."""

    cell_type = VariedRNNCell
    activations: tuple[Activation, ...] = (TANH,)
    clip: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class VariedGRU(GRU):
    """`VariedGRUCell` over time. All else: as `GRU`."""

    cell_type = VariedGRUCell
    activations: tuple[Activation, ...] = (SIGMOID, TANH)
    clip: float | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class VariedLSTM(LSTM):
    """`VariedLSTMCell` over time. All else: as `LSTM`."""

    cell_type = VariedLSTMCell
    activations: tuple[Activation, ...] = (SIGMOID, TANH, TANH)
    clip: float | None = None
    peepholes: bool = False
    input_forget: bool = False


VARIED: dict[type[Cell], type[Recurrent]] = {
    VariedRNNCell: VariedRNN,
    VariedGRUCell: VariedGRU,
    VariedLSTMCell: VariedLSTM,
}
"""The layer of each cell."""
