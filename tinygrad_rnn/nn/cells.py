"""Cells own the weights of one recurrent step and say what they cannot take; `equations` does the computing.

A cell has W (I, G*H), U (H, G*H) and b (G*H), its G gates packed side by side in the order of `gates`.
"""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..backend import resolve
from ..core.modes import place
from ..core.tensor import Tensor, tensor
from ..errors import CellError, DtypeError, OptionError, ShapeError, mixed
from ..functions.composed import split
from ..ops.elementwise import relu, tanh
from . import equations, options
from .initializers import Init, Maker
from .module import Module

State = tuple[Any, ...]
ByGate = Mapping[str, Any]
M = TypeVar("M", bound=Module)


class Weights(NamedTuple):
    """A cell's weights taken apart: each of W, U and b by gate (b is 0 for a cell without biases)."""

    W: Any
    U: Any
    b: Any


@dataclass(eq=False, repr=False)
class Cell(Module):
    """What all cells share: weights, checks, one step.

    gates: the letters of the packed blocks, in order. candidate: the one of them that is no gate but new content.
    states: what is carried from step to step.

    bias: False leaves b out. init: see `nn.initializers`; the default is uniform within 1/sqrt(H).
    rng: where the numbers come from; the default is the generator that `tg.seed` starts.

    Raises: OptionError for a size below 1, an unknown initialiser or an rng that is no generator; DtypeError;
        ShapeError for an initialiser that returns another shape.

    A cell of your own: set gates, candidate and states, and write `equation`. What does not fit together there is a
    CellError.
    """

    gates: ClassVar[tuple[str, ...]]
    candidate: ClassVar[str]
    states: ClassVar[tuple[str, ...]] = ("h",)
    Gates: ClassVar[Any]
    """What W, U and b come in, one thing for each gate: a named tuple of the letters in `gates`, made from them."""

    input_size: int
    hidden_size: int
    _: KW_ONLY
    bias: bool = True
    init: Init = "uniform"
    dtype: DTypeLike = np.float32
    rng: np.random.Generator | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if hasattr(cls, "gates"):
            _check(cls)

    def __post_init__(self) -> None:
        if not hasattr(self, "gates"):
            raise CellError(f"{type(self).__name__} has no gates: set gates, candidate and states, and write equation")
        self.input_size = options.count("input_size", self.input_size)
        self.hidden_size = options.count("hidden_size", self.hidden_size)
        maker = Maker(self.init, self.dtype, self.rng, self.hidden_size, "W", "U", "b", "c")
        self.dtype = maker.dtype
        self._make(maker)

    def _make(self, maker: Maker) -> None:
        G = len(self.gates)
        self.W = maker.make("W", self.input_size, self.hidden_size, blocks=G)
        self.U = maker.make("U", self.hidden_size, self.hidden_size, blocks=G)
        self.b = maker.make("b", self.hidden_size, blocks=G) if self.bias else None

    def weights(self) -> Weights:
        """The weights by gate, for as many steps as you like: taking them apart costs as much as a few operations."""
        return Weights(self._apart(self.W, "W"), self._apart(self.U, "U"), self._apart(self.b, "b"))

    def _apart(self, packed: Tensor | None, name: str) -> Any:
        if packed is None:
            return self.Gates(*[0.0 for _ in self.gates])
        parts: list[Tensor] = split(packed, len(self.gates), packed.ndim - 1)
        for gate, part in zip(self.gates, parts):
            part.name = f"{name}_{gate}"
        return self.Gates(*parts)

    def equation(self, x: Any, state: State, weights: Weights) -> Any:
        """One step as in `equations`, everything that it defines by name: x (N, I), each state (N, H)."""
        raise NotImplementedError(f"{type(self).__name__} is a cell without an equation(self, x, state, weights)")

    def advance(self, x: Any, state: State, weights: Weights) -> State:
        """The states after one step, the hidden state first; every gate is named after its letter on the way.

        Raises: CellError for an equation that calls NumPy, or that returns no named tuple with the states in it, each a
            Tensor of the shape that it had.
        """
        defined = self._defined(x, state, weights)
        for name, value in zip(defined._fields, defined):
            if type(value) is Tensor and not any([value is old for old in state]):
                value.name = name
        new = tuple([getattr(defined, name) for name in self.states])
        for name, value, old in zip(self.states, new, state):
            if type(value) is not Tensor or value.shape != old.shape:
                made = value.label if type(value) is Tensor else f"a {type(value).__name__}"
                raise CellError(
                    f"the equation of {type(self).__name__} made of the state {name}, of shape {old.shape}, {made}: "
                    f"a state is a Tensor that keeps its shape, (N, H), from step to step{place()}"
                )
        return new

    def _defined(self, x: Any, state: State, weights: Weights) -> Any:
        """What the equation returns, on whatever it runs, provided that the states can be found in it."""
        name = type(self).__name__
        try:
            defined = self.equation(x, state, weights)
        except TypeError as error:
            if "ufunc" not in str(error):
                raise
            raise CellError(
                f"the equation of {name} uses operators and tg's functions, not NumPy's: {error}{place()}"
            ) from error
        fields = getattr(defined, "_fields", ())
        if not all([state in fields for state in self.states]):
            returned = "None" if defined is None else f"a {type(defined).__name__}"
            returned += f" of {', '.join(fields)}" if fields else ""
            raise CellError(
                f"the equation of {name} returned {returned}: return a named tuple of all that it defines, "
                f"the new states ({', '.join(self.states)}) among it{place()}"
            )
        return defined

    def forward(self, x: Any, h: Any = None) -> Any:
        """x (..., I) and h (..., H), which is 0 if left out -> the next h (..., H).

        Raises: ShapeError or DtypeError that says what would have fitted, in which module and at which time step.
        """
        x = self.checked_input(x)
        many = len(self.states) > 1
        state = (None,) * len(self.states) if h is None else tuple(h) if many and hasattr(h, "__len__") else (h,)
        if len(state) != len(self.states):
            raise ShapeError(
                f"the state of {type(self).__name__} is ({', '.join(self.states)}), not {len(state)} arrays{place()}"
            )
        state = tuple(self.checked_state(s, x.shape[:-1], name) for s, name in zip(state, self.states))
        new = self.advance(x, state, self.weights())
        return new[0] if len(new) == 1 else new

    def checked_input(self, x: Any) -> Tensor:
        """x as a Tensor, provided that it has I numbers in its last axis, of this cell's dtype.

        Raises: ShapeError, DtypeError or BackendError, if it does not fit.
        """
        checked = self._as_tensor(x, "x")
        if checked.shape[-1:] != (self.input_size,):
            raise ShapeError(
                f"x has shape {checked.shape}, but {type(self).__name__} takes input_size={self.input_size} numbers "
                f"in the last axis: shape {(*checked.shape[:-1], self.input_size)} would fit{place()}"
            )
        return checked

    def checked_state(self, state: Any, lead: tuple[int, ...], name: str) -> Tensor:
        """A state as a Tensor of shape (*lead, H); None is zeros where the weights lie.

        Raises: ShapeError, DtypeError or BackendError, if it does not fit.
        """
        shape = (*lead, self.hidden_size)
        if state is None:
            backend, device = resolve(self.W.backend)
            with backend.on(device):
                return Tensor(backend.xp.zeros(shape, self.W.dtype), name=f"{name}_0")
        checked = self._as_tensor(state, name)
        if checked.shape != shape:
            raise ShapeError(
                f"{name} has shape {checked.shape}; with hidden_size={self.hidden_size} and this x, {shape} "
                f"would fit{place()}"
            )
        return checked

    def _as_tensor(self, data: Any, name: str) -> Tensor:
        """Lists take the dtype and the backend of the weights; arrays and Tensors have to come with them."""
        found, wanted = options.beside(self.W, name, data), self.W.dtype
        if found.backend != self.W.backend:
            raise mixed(type(self).__name__, ("the weights", name), (self.W, found), place())
        if found.dtype != wanted and found.dtype.kind != "c":  # complex numbers come from the complex step
            raise DtypeError(
                f"{name} is {found.dtype} and the weights are {wanted}: {name}.astype({str(wanted)!r}) "
                f"would fit{place()}"
            )
        return found

    # -- weights from elsewhere, and back ------------------------------------------------------------------------

    def to_gates(self) -> dict[str, Any]:
        """Copies of the weights on the host: {"W": {gate: (I, H)}, "U": {gate: (H, H)}, "b": {gate: (H)}}."""
        found: dict[str, Any] = {"W": self.W, "U": self.U} | ({} if self.b is None else {"b": self.b})
        apart = {name: np.split(packed.numpy(), len(self.gates), axis=-1) for name, packed in found.items()}
        return {name: dict(zip(self.gates, map(np.copy, parts))) for name, parts in apart.items()}

    @classmethod
    def from_gates(cls, *, W: ByGate, U: ByGate, b: ByGate | None = None, **settings: Any) -> Self:
        """A cell from one matrix for each gate: `Cell.from_gates(**cell.to_gates())` is a copy.

        settings: options of the cell, such as reset=.

        Raises: OptionError for a gate that is missing or unknown; ShapeError for one that does not fit the others.
        """
        packed = {name: cls._packed(name, given) for name, given in (("W", W), ("U", U), ("b", b)) if given is not None}
        rows, hidden = packed["W"].shape[0], packed["U"].shape[0]
        cell = cls(rows, hidden, bias=b is not None, init="zeros", dtype=packed["W"].dtype, **settings)
        for name, array in packed.items():
            own: Tensor = getattr(cell, name)
            if array.shape != own.shape:
                blocks = len(cls.gates)
                have, need = (tuple([*a.shape[:-1], a.shape[-1] // blocks]) for a in (array, own))
                raise ShapeError(f"{name} has shape {have} per gate; beside U of {hidden} rows, {need} fits")
            own.assign_(array)
        return cell

    @classmethod
    def _packed(cls, name: str, by_gate: ByGate) -> NDArray[Any]:
        if set(by_gate) != set(cls.gates):
            raise OptionError(f"{name} has the gates {', '.join(by_gate)}; {cls.__name__} has {', '.join(cls.gates)}")
        parts = [tensor(by_gate[gate], backend="numpy").numpy() for gate in cls.gates]
        if len({part.shape for part in parts}) > 1 or parts[0].ndim != (1 if name == "b" else 2):
            shapes, need = ", ".join(str(part.shape) for part in parts), "(H,)" if name == "b" else "(rows, H)"
            raise ShapeError(f"{name} has the shapes {shapes}; every gate needs the same {need}")
        return np.concatenate(parts, axis=-1)

    def to_concatenated(self, order: str = "xh", *, columns: bool = False) -> dict[str, Any]:
        """Copies of the weights with one matrix per gate for the concatenated input: {"weights": ..., "b": ...}.

        order: "xh" for W [x, h], the input block first, shape (I+H, H); "hx" for W [h, x], the hidden block first.
        columns: the transposes (H, I+H), for texts that write vectors as columns.
        """
        options.choice("order", order, ("xh", "hx"))
        parts = self.to_gates()
        W, U = parts.pop("W"), parts.pop("U")
        joined = {g: np.concatenate([W[g], U[g]] if order == "xh" else [U[g], W[g]]) for g in self.gates}
        return {"weights": {g: m.T.copy() for g, m in joined.items()} if columns else joined, **parts}

    @classmethod
    def from_concatenated(cls, weights: ByGate, order: str = "xh", *, columns: bool = False, **rest: Any) -> Self:
        """A cell from one matrix per gate as `to_concatenated` gives them; rest: b=, and options of the cell.

        Raises: as `from_gates`.
        """
        options.choice("order", order, ("xh", "hx"))
        W, U = {}, {}
        for gate, given in weights.items():
            matrix = tensor(given, backend="numpy").numpy()
            matrix = matrix.T if columns else matrix
            if matrix.ndim != 2 or matrix.shape[0] <= matrix.shape[1]:
                raise ShapeError(f"the matrix of gate {gate} has shape {tensor(given).shape}; "
                                 f"{'(H, I+H)' if columns else '(I+H, H)'} is needed")  # fmt: skip
            rows = matrix.shape[0] - matrix.shape[1] if order == "xh" else matrix.shape[1]
            first, second = matrix[:rows], matrix[rows:]
            W[gate], U[gate] = (first, second) if order == "xh" else (second, first)
        return cls.from_gates(W=W, U=U, **rest)


def _check(kind: type[Cell]) -> None:
    """Make `Gates` where a class has gates of its own, and see that gates, candidate and `Gates` fit each other.

    Raises: CellError.
    """
    own, name = vars(kind), kind.__name__
    if "Gates" not in own and ("gates" in own or not hasattr(kind, "Gates")):
        try:
            kind.Gates = namedtuple("Gates", tuple(kind.gates))  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            raise CellError(f"{name} has gates = {kind.gates!r}, which cannot be names: {error}") from None
    letters, fields = ", ".join(kind.gates), getattr(kind.Gates, "_fields", kind.gates)
    if tuple(fields) != tuple(kind.gates):
        raise CellError(
            f"{name} packs its weights in the order of gates, {letters}, and its Gates has {', '.join(fields)}: "
            "leave Gates out, or give it the same letters in the same order"
        )
    if getattr(kind, "candidate", None) not in kind.gates:
        said = f"candidate = {kind.candidate!r}" if hasattr(kind, "candidate") else "no candidate"
        raise CellError(f"{name} has {said}: it is the one of {letters} that is no gate but new content")


ACTIVATIONS = {"tanh": tanh, "relu": relu}


@dataclass(eq=False, repr=False, kw_only=True)
class RNNCell(Cell):
    """The basic unit: h' = g(x W + h U + b), with g = tanh or relu; see `equations.rnn`.

    W (I, H), U (H, H), b (H).

    activation: "tanh" or "relu". All else: as `Cell`.

    Raises: as `Cell`; OptionError for another activation.
    """

    gates, candidate = ("h",), "h"
    Gates = staticmethod(lambda only: only)

    activation: str = "tanh"

    def __post_init__(self) -> None:
        options.choice("activation", self.activation, ACTIVATIONS)
        super().__post_init__()

    def equation(self, x: Any, state: State, weights: Weights) -> equations.RNNStep:
        return equations.rnn(x, state[0], weights.W, weights.U, weights.b, activation=ACTIVATIONS[self.activation])


class MinimalGRUCell(Cell):
    """The simplified GRU with an update gate only; see `equations.minimal_gru`.

    W (I, 2H), U (H, 2H), b (2H), packed [z|n]. Options and errors: as `Cell`.
    """

    gates, candidate = ("z", "n"), "n"
    Gates = equations.MinimalGates

    def equation(self, x: Any, state: State, weights: Weights) -> equations.MinimalGRUStep:
        return equations.minimal_gru(x, state[0], weights.W, weights.U, weights.b)


@dataclass(eq=False, repr=False, kw_only=True)
class GRUCell(Cell):
    """The gated recurrent unit; see `equations.gru`.

    W (I, 3H), U (H, 3H), b (3H), packed [z|r|n]; with recurrent_bias also c (H).

    reset: the reset gate acts "before" the product with U_n or "after" it (as in torch, cuDNN, Keras).
    update: z = 1 takes the "new" candidate or the "old" state (as in torch, Keras, ONNX).
    recurrent_bias: with reset="after", a bias c inside of r * (h U_n + c), as other libraries have it.
    All else: as `Cell`.

    Raises: as `Cell`; OptionError for a recurrent_bias with reset="before".
    """

    gates, candidate = ("z", "r", "n"), "n"
    Gates = equations.GRUGates

    reset: str = "before"
    update: str = "new"
    recurrent_bias: bool = False

    def __post_init__(self) -> None:
        options.choice("reset", self.reset, ("before", "after"))
        options.choice("update", self.update, ("new", "old"))
        if self.recurrent_bias and self.reset == "before":
            raise OptionError('recurrent_bias is the c in r * (h U_n + c), which only reset="after" has')
        super().__post_init__()

    def _make(self, maker: Maker) -> None:
        super()._make(maker)
        self.c = maker.make("c", self.hidden_size) if self.recurrent_bias else None

    def equation(self, x: Any, state: State, weights: Weights) -> equations.GRUStep:
        W, U, b = weights
        return equations.gru(x, state[0], W, U, b, self.c, reset=self.reset, update=self.update)

    def _turn(self) -> None:
        """Make the update gate z what 1 - z was, by the signs of its weights."""
        sign = np.repeat([-1, 1, 1], self.hidden_size)
        for packed in (self.W, self.U, self.b):
            if packed is not None:
                packed.assign_(packed.numpy() * sign.astype(packed.dtype))

    def to_gates(self) -> dict[str, Any]:
        return super().to_gates() | ({} if self.c is None else {"c": self.c.numpy().copy()})

    @classmethod
    def from_gates(cls, *, c: Any = None, **parts: Any) -> Self:
        """As `Cell.from_gates`; c: the recurrent bias (H), for reset="after"."""
        cell = super().from_gates(**parts, recurrent_bias=c is not None)
        if cell.c is not None:
            cell.c.assign_(c)
        return cell


@dataclass(eq=False, repr=False, kw_only=True)
class LSTMCell(Cell):
    """Long short-term memory; see `equations.lstm`. Its state is the pair (h, c): `h, c = cell(x, (h, c))`.

    W (I, 4H), U (H, 4H), b (4H), packed [i|f|g|o].

    forget_bias: what the forget gate's bias starts at, so that a new cell remembers (Gers et al. 2000; Jozefowicz
        et al. 2015); None leaves it to init=. All else: as `Cell`.

    Raises: as `Cell`; OptionError for a forget_bias that is no number.
    """

    gates, candidate, states = ("i", "f", "g", "o"), "g", ("h", "c")
    Gates = equations.LSTMGates

    forget_bias: float | None = 1.0

    def _make(self, maker: Maker) -> None:
        super()._make(maker)
        if self.b is not None and self.forget_bias is not None:
            values = self.b.numpy().copy()
            values[self.hidden_size : 2 * self.hidden_size] = options.number("forget_bias", self.forget_bias)
            self.b.assign_(values)

    def equation(self, x: Any, state: State, weights: Weights) -> equations.LSTMStep:
        h, c = state
        return equations.lstm(x, h, c, weights.W, weights.U, weights.b)


def flipped(module: M) -> M:
    """An equal copy of a module, in all of whose GRU cells the update gate has the other direction.

    Since sigmoid(-a) = 1 - sigmoid(a), negating W_z, U_z and b_z makes up for it exactly: same values, other weights.

    Raises: OptionError, if there is no GRU cell in it.
    """
    result = copy.deepcopy(module)
    turned = [each for _, each in result.named_modules() if hasattr(each, "update")]
    if not turned:
        raise OptionError(f"{type(module).__name__} holds no GRU cell, so there is no update gate to flip")
    for each in turned:
        each.update = "old" if each.update == "new" else "new"
        if isinstance(each, GRUCell):
            each._turn()
    return result
