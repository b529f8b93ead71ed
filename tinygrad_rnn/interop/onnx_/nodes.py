"""ONNX's recurrent nodes as layers of the package: every attribute is carried over exactly, or refused by its name.

A node whose attributes say what the package's own cells compute becomes `nn.RNN`, `nn.GRU` or `nn.LSTM`, others the
layers of `cells`. Of the arguments of activations in its clip, ONNX's text leaves open whether the cell state of an
LSTM is among them on its way out; it is not, as in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...backend import Array, as_array
from ...core.tensor import Tensor
from ...errors import ConversionError, FileError, OptionError, ShapeError, TinygradError
from ...nn.recurrent import LSTM, Recurrent
from ...ops.elementwise import where
from ...ops.shapes import expand_dims, reshape, swapaxes
from ..cells import TAKES, VARIED, Activation, activation, spelled
from ..nests import leaves
from ..packing import CELLS, convention, layer_of, unpacked
from ..report import Report
from .graph import Node, fits
from .operators import Value

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
GIVEN = ("X", "sequence_lens", "initial_h", "initial_c")
"""The inputs that a layer takes when it is called; the others are its weights."""
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
ATTRIBUTES = {
    "activations": tuple[str, ...], "activation_alpha": tuple[float, ...], "activation_beta": tuple[float, ...],
    "clip": float, "direction": str, "hidden_size": int, "layout": int, "linear_before_reset": int, "input_forget": int,
    "output_sequence": int,
}  # fmt: skip
OWN = {"linear_before_reset": "GRU", "input_forget": "LSTM"}
UNSETTLED = {"Affine", "ScaledTanh", "ThresholdedRelu"}
"""Those for which ONNX Runtime takes 0 if an alpha or beta is left out, and ONNX's text something else or nothing."""


def inputs_of(node: Node) -> dict[str, str]:
    """What goes into a recurrent node, by the names that ONNX gives to its inputs.

    Raises: FileError for one that is missing, or too many.
    """
    names = INPUTS if node.op == "LSTM" else INPUTS[:6]
    if len(node.inputs) > len(names) or len(node.outputs) > (3 if node.op == "LSTM" else 2):
        raise FileError(
            f"{node} has {len(node.inputs)} inputs and {len(node.outputs)} outputs, more than a {node.op} has"
        )
    found = {name: given for name, given in zip(names, node.inputs) if given}
    if missing := [name for name in ("X", "W", "R") if name not in found]:
        raise FileError(f"{node} is without its input {missing[0]}")
    return found


def in_order(given: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """Inputs of a node in the order of their names, "" for those between them that are left out."""
    found = [given.get(name, "") for name in names]
    return tuple(found[: max(i for i, name in enumerate(found) if name) + 1])


class NodeSettings:
    """The attributes of a recurrent node, checked, with what ONNX takes for those that are left out.

    Raises: ConversionError that names the attribute.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        for name, value in node.attributes.items():
            if name not in ATTRIBUTES or OWN.get(name, node.op) != node.op:
                raise ConversionError(f"{node} has the attribute {name}, which is not known of a {node.op}")
            if not fits(value, ATTRIBUTES[name]):
                raise FileError(f"{node}: the attribute {name} = {str(value)[:40]} has a wrong type")
        given = node.attributes.get
        self.direction: str = given("direction", "forward")
        self.clip: float | None = given("clip")
        self.layout: bool = self._flag("layout")
        self.reset = "after" if self._flag("linear_before_reset") else "before"
        self.input_forget = self._flag("input_forget")
        if self.direction not in DIRECTIONS:
            raise ConversionError(f"{node}: direction is {self.direction!r}; known are {', '.join(DIRECTIONS)}")
        self.walks = DIRECTIONS[self.direction]
        self.activations = self._activations()

    def _flag(self, name: str) -> bool:
        value = self.node.attributes.get(name, 0)
        if value not in (0, 1):
            raise ConversionError(f"{self.node}: {name} is {value}; 0 and 1 are known")
        return bool(value)

    def _activations(self) -> list[tuple[Activation, ...]]:
        """For each direction, its activations; those with an alpha or a beta take the next of the lists."""
        node, usual = self.node, USUAL[self.node.op]
        names = node.attributes.get("activations") or usual * len(self.walks)
        if len(names) != (count := len(usual) * len(self.walks)):
            raise ConversionError(f"{node}: activations are {', '.join(names)}; {count} are needed")
        left = {part: list(node.attributes.get(f"activation_{part}", ())) for part in TAKES}
        found = []
        try:
            names = tuple(map(spelled, names))
            for name in names:
                given = {part: left[part].pop(0) for part in left if left[part] and name in TAKES[part]}
                self._check_given(name, given)
                found.append(activation(name, **given))
        except TinygradError as error:
            raise ConversionError(f"{node}: activations: {error}") from None
        for part, rest in left.items():
            if rest and TAKES[part].intersection(names):
                raise ConversionError(f"{node}: activation_{part} has {len(rest)} numbers too many for those of "
                                      f"{', '.join(names)} that take one; whose they are is not clear")  # fmt: skip
        return [tuple(found[i : i + len(usual)]) for i in range(0, len(found), len(usual))]

    def _check_given(self, name: str, given: Mapping[str, float]) -> None:
        for part, takers in TAKES.items():
            if name in UNSETTLED & takers and part not in given:
                raise ConversionError(f"activation_{part} lacks a number for {name}, and what that means "
                                      "is not settled: ONNX's text and ONNX Runtime differ")  # fmt: skip

    @property
    def ours(self) -> bool:
        """Whether the package's own cells compute this, which have fused layers."""
        if self.clip is not None or self.input_forget:
            return False
        ours = [USUAL[self.node.op], *([("Relu",)] if self.node.op == "RNN" else [])]
        return all(tuple([each.name for each in chosen]) in ours for chosen in self.activations)

    def of_cell(self, direction: int, ours: bool, peepholes: bool) -> dict[str, Any]:
        """The options of the cell of a direction."""
        chosen = self.activations[direction]
        if ours:
            return {"activation": chosen[0].name.lower()} if self.node.op == "RNN" else {}
        lstm = {"peepholes": peepholes, "input_forget": self.input_forget} if self.node.op == "LSTM" else {}
        return {"activations": chosen, "clip": self.clip, **lstm}


def layer_from(node: Node, arrays: Mapping[str, Array], report: Report, to: str = "") -> Recurrent:
    """The layer that computes what a recurrent node does.

    arrays: W and R, and B and P if there are, of all directions. report: takes down what went where; to: what goes
    before the names of our weights in it.

    Raises: ConversionError for an attribute that is not known; ShapeError, DtypeError for arrays that do not fit.
    """
    settings = NodeSettings(node)
    _check_shapes(node, arrays, len(settings.walks))
    ours, kind = settings.ours and "P" not in arrays, CELLS[node.op]
    if not ours:
        kind = next(each for each in VARIED if issubclass(each, kind))
    cells = []
    for d, _ in enumerate(settings.walks):
        owner = f"{node.label}[{d}]." if len(settings.walks) > 1 else f"{node.label}."
        own = {name: array[d] for name, array in arrays.items()}
        row = convention("onnx", CELLS[node.op], settings.reset)
        options = settings.of_cell(d, ours, "P" in arrays)
        try:
            cell = unpacked(row, own, kind, owner=owner, report=report, to=f"{to}cells.{d}.", **options)
        except OptionError as error:
            raise ConversionError(f"{node}: {error}") from None
        cells.append(cell)
    return layer_of(
        cells, bidirectional=len(cells) == 2, reverse=settings.walks == (True,), batch_first=settings.layout
    )


def _check_shapes(node: Node, arrays: Mapping[str, Array], D: int) -> None:
    """Directions first, then what one of them needs, by R (D, G*H, H)."""
    R = arrays["R"]
    H = R.shape[-1] if R.ndim == 3 else 0
    axes = {"W": 3, "R": 3, "B": 2, "P": 2}
    for name, array in arrays.items():
        if array.ndim != axes[name] or len(array) != D or not array.size:
            raise ShapeError(f"{node}: {name} has shape {array.shape}; {axes[name]} axes are needed, the first "
                             f"of them, {D} long, for the direction")  # fmt: skip
    if node.attributes.get("hidden_size", H) != H:
        raise ShapeError(f"{node}: hidden_size is {node.attributes['hidden_size']}, and R has shape {R.shape}")
    if "P" in arrays and (arrays["P"].shape[1], arrays["P"].dtype) != (3 * H, R.dtype):
        raise ShapeError(f"{node}: P is {arrays['P'].dtype} {arrays['P'].shape}; {R.dtype} {(D, 3 * H)} is needed")


@dataclass
class LayerNode:
    """A layer in the place of its node: takes and gives what the node does, in its shapes.

    Y is (T, D, N, H), and states are (D, N, H), of a layer that is not batch_first; else (N, T, D, H) and (N, D, H).
    """

    layer: Recurrent

    def __call__(self, X: Value, lengths: Value = None, *initial: Value) -> tuple[Value, ...]:
        layer, D = self.layer, 1 + self.layer.bidirectional
        if isinstance(lengths, Tensor) and {lengths.backend, layer.cells[0].W.backend} != {"numpy"}:
            lengths = lengths.numpy()  # layers take them on the host only
        h_0, c_0, *_ = *[self._state(state) for state in initial], None, None
        x = self._here(X)
        output, states = layer(x, h_0, lengths, c_0=c_0) if isinstance(layer, LSTM) else layer(x, h_0, lengths)
        Y = reshape(output, shape=(*output.shape[:2], D, layer.hidden_size))
        found = [self._ended(state, lengths) for state in leaves(states)]
        if layer.batch_first:
            return (Y, *[swapaxes(state, axis1=0, axis2=1) for state in found])
        return (swapaxes(Y, axis1=1, axis2=2), *found)

    def _here(self, x: Value) -> Tensor:
        """Arrays of the host come to where the weights lie."""
        return x if isinstance(x, Tensor) else Tensor(as_array(x, self.layer.cells[0].W.backend))

    def _state(self, state: Value) -> Tensor | None:
        if state is None:
            return None
        return swapaxes(self._here(state), axis1=0, axis2=1) if self.layer.batch_first else self._here(state)

    def _ended(self, state: Tensor, lengths: Value) -> Tensor:
        """The final states; those of sequences of length 0 are zero, as in ONNX Runtime."""
        if lengths is None or (not isinstance(lengths, Tensor) and lengths.all()):
            return state
        return where(self._here(expand_dims(lengths, axis=1) > 0), state, 0)
