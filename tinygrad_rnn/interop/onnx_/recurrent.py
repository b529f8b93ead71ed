"""Recurrent layers in ONNX: RNN, GRU and LSTM nodes where these compute the same, else a Scan over the cell's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...backend import Array
from ...core.tensor import Tensor
from ...errors import ConversionError
from ...nn import fused
from ...nn.cells import Cell, MinimalGRUCell
from ...nn.recurrent import Recurrent
from .. import packing
from ..cells import TAKES, VARIED, Activation, VariedGRUCell
from ..nests import leaves
from . import tracing
from .building import Builder, Emitter, Item, Result
from .nodes import INPUTS, in_order
from .tracing import Size

WAYS = ("auto", "always", "never")


def emitter(way: str, names: Mapping[int, str]) -> Emitter:
    """How recurrent layers are written.

    way: "auto" writes nodes where they compute exactly the same and runtimes have them (float32), else a Scan;
        "always" writes nodes in float64 too, and simplified GRUs as GRUs with an open reset gate; "never" writes none.
    names: of the weights, by identity.
    """

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> list[str]:
        x, *initial, lengths = inputs
        return LayerWriter(g, options["layer"], names, lengths).write(way, x, initial)

    return emit


def scan_emitter(names: Mapping[int, str]) -> Emitter:
    """How a Scan of a graph that was read is written: its body, traced by itself. names: as in `emitter`."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> list[str]:
        step: tracing.Step = options["step"]
        body, letters, given = g.body(), dict[Size, str](), dict[str, Item]()
        for i, x in enumerate(inputs):
            shape = list(x.shape if i < step.states else x.shape[1:])
            for axis, size in enumerate(shape):
                if isinstance(size, Size):
                    letter = letters.setdefault(size, f"size_{len(letters)}")
                    body.axes[letter], shape[axis] = g.size(size), Size((letter,))
            name = body.free(f"state_{i}" if i < step.states else f"step_{i - step.states}")
            given[name] = Item(name, x.dtype, tuple(shape))
        dynamic = {name: {axis: size.axes[0] for axis, size in enumerate(item.shape) if isinstance(size, Size)}
                   for name, item in given.items()}  # fmt: skip
        call = lambda tensors: step.body([tensors[name] for name in given])  # noqa: E731
        program = tracing.program(call, dict(zip(given, step.examples)), dynamic, names)
        found = list(leaves(body.write(program, list(given.values()))))
        wishes = [g.free("state_next" if i < step.states else "shown") for i in range(len(found))]
        inner = body.finished(g.free("body"), list(given.values()), body.deliver(found, wishes))
        outputs = ["state_end" if i < step.states else "results" for i in range(len(found))]
        return g.many("Scan", [x.name for x in inputs], outputs, body=inner, num_scan_inputs=len(inputs) - step.states)

    return emit


def _has_node(way: str, cells: Sequence[Cell]) -> bool:
    """Whether a layer is written as a node.

    Raises: ConversionError, if it must and cannot be.
    """
    if way == "never" or (way == "auto" and any(cell.dtype != np.float32 for cell in cells)):
        return False
    whole = all(map(_computed_by_a_node, cells))
    if way == "always" and not whole:
        raise ConversionError(f"no RNN, GRU or LSTM node of ONNX computes what {type(cells[0]).__name__} does; "
                              'nodes="auto" writes it as a Scan')  # fmt: skip
    return whole and (way == "always" or not isinstance(cells[0], MinimalGRUCell))


def _computed_by_a_node(cell: Cell) -> bool:
    """Whether a node computes what a cell does; the update gate of ONNX's takes the old state where it is 1."""
    if type(cell) is VariedGRUCell and cell.update == "new" and not cell.activations[0].turns:
        return False
    return fused.can(cell) or type(cell) in VARIED


class LayerWriter:
    """Writes one call of a recurrent layer into a graph.

    names: of the weights, by identity. lengths: how many steps of each sequence are real, (N), or None.
    """

    def __init__(self, g: Builder, layer: Recurrent, names: Mapping[int, str], lengths: Item | None) -> None:
        self.g, self.layer, self.names, self.lengths = g, layer, names, lengths
        self.D = len(layer._directions)

    def write(self, way: str, x: Item, initial: Sequence[Item | None]) -> list[str]:
        """x (T, N, I), the initial states (L*D, N, H) -> the names of the output and of the final states, alike."""
        g, layer, D, L = self.g, self.layer, self.D, self.layer.num_layers
        ends: list[list[str]] = [[] for _ in layer.cell_type.states]
        for at in range(L):
            cells = layer.cells[at * D : (at + 1) * D]
            starts = [None if state is None else self._start(state, at) for state in initial]
            output, last = (self._node if _has_node(way, cells) else self._scans)(cells, x, starts)
            x = Item(output, x.dtype, (*x.shape[:2], D * layer.hidden_size))
            for each, end in zip(ends, last):
                each.append(end)
        output = g.add("Transpose", x.name, name="output", perm=[1, 0, 2]) if layer.batch_first else x.name
        joined = [each[0] if L == 1 else g.add("Concat", *each, name=f"{state}_n", axis=0)
                  for state, each in zip(layer.cell_type.states, ends)]  # fmt: skip
        return [output, *joined]

    def _start(self, state: Item, at: int) -> str:
        """The initial states of the cells of layer `at` (D, N, H), from those of all layers."""
        g, D = self.g, self.D
        if self.layer.num_layers == 1:
            return state.name
        return g.add("Slice", state.name, g.integers([at * D]), g.integers([at * D + D]), g.integers([0]))

    def _prefix(self, cell: Cell) -> str:
        """What the arrays of a node are called: as the cell's W, but without that."""
        return self.names.get(id(cell.W), cell.W.name or "W").removesuffix("W")

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _node(self, cells: Sequence[Cell], x: Item, starts: Sequence[str | None]) -> tuple[str, list[str]]:
        """One layer, both directions, as one node: its output (T, N, D*H) and last states (D, N, H)."""
        g, states, lengths = self.g, cells[0].states, self.lengths
        kind = packing.name_of(cells[0])
        given = {"X": x.name, **self._weights(cells)}
        if lengths is not None:
            given["sequence_lens"] = g.cast(lengths.name, lengths.dtype, np.int32)
        given |= {f"initial_{state}": start for state, start in zip(states, starts) if start is not None}
        outputs = ["Y", *[f"Y_{state}" for state in states]]
        y, *last = g.many(kind, in_order(given, INPUTS), outputs, **_attributes(self.layer, kind, cells))
        if lengths is not None:
            last = [end if start is None else self._kept(lengths, start, end) for start, end in zip(starts, last)]
        if self.D == 1:
            return g.add("Squeeze", y, g.integers([1]), name="output"), last
        turned = g.add("Transpose", y, perm=[0, 2, 1, 3])  # (T, D, N, H) -> (T, N, D, H)
        return g.add("Reshape", turned, g.integers([0, 0, self.D * self.layer.hidden_size]), name="output"), last

    def _weights(self, cells: Sequence[Cell]) -> dict[str, str]:
        """The weights of a node, all directions together, by the names of its inputs."""
        at = self.layer.cells.index(cells[0]) // self.D
        stem = self._prefix(cells[0]).rpartition("cells.")[0] + (f"layer{at}." if self.layer.num_layers > 1 else "")
        arrays: list[dict[str, Array]] = []
        for direction, cell in enumerate(cells):
            row = packing.convention("onnx", type(cell), getattr(cell, "reset", None))
            arrays.append(packing.packed(cell, row, varied=True, owner=self._prefix(cell), report=self.g.report,
                                         to=stem, after=f"[{direction}]"))  # fmt: skip
        return {name: self.g.constant(np.stack([each[name] for each in arrays]), f"{stem}{name}") for name in arrays[0]}

    def _kept(self, lengths: Item, start: str, end: str) -> str:
        """The last state; that of a sequence of no steps is its first one, for which onnxruntime has zeros."""
        g = self.g
        some = g.add("Greater", lengths.name, g.number(0, lengths.dtype))
        return g.add("Where", g.add("Unsqueeze", some, g.integers([0, 2])), end, start)

    # -- Scan ----------------------------------------------------------------------------------------------------

    def _scans(self, cells: Sequence[Cell], x: Item, starts: Sequence[str | None]) -> tuple[str, list[str]]:
        """One layer as a Scan for each direction: its output (T, N, D*H) and last states (D, N, H)."""
        g, outputs, ends = self.g, [], []
        inside = None if self.lengths is None else self._inside(self.lengths, x)
        for direction, (cell, reverse) in enumerate(zip(cells, self.layer._directions)):
            mine = g.constant(np.int64(direction))
            own = [g.add("Gather", start, mine, axis=0) if start else self._zeros(cell, x) for start in starts]
            output, *last = self._scan(cell, reverse, x, own, inside)
            outputs.append(output)
            ends.append([g.add("Unsqueeze", end, g.integers([0])) for end in last])
        if self.D == 1:
            return outputs[0], ends[0]
        joined = [g.add("Concat", *each, axis=0) for each in zip(*ends)]
        return g.add("Concat", *outputs, name="output", axis=2), joined

    def _zeros(self, cell: Cell, x: Item) -> str:
        shape = self.g.sizes([x.shape[1], cell.hidden_size])
        return self.g.add("Expand", self.g.number(0, x.dtype), shape, name="zeros")

    def _inside(self, lengths: Item, x: Item) -> str:
        """Which steps of which sequences are real, (T, N, 1)."""
        g = self.g
        steps = g.add("Unsqueeze", g.counted(x.shape[0]), g.integers([1, 2]))
        ends = g.add("Unsqueeze", g.cast(lengths.name, lengths.dtype, np.int64), g.integers([1]))
        return g.add("Less", steps, ends, name="inside")

    def _scan(self, cell: Cell, reverse: bool, x: Item, starts: list[str], inside: str | None) -> list[str]:
        """A cell over time: its outputs (T, N, H), then its last states (N, H)."""
        g, N, states, body = self.g, x.shape[1], cell.states, self.g.body()
        if isinstance(N, Size):
            body.axes["N"] = g.size(N)
        width: int | Size = Size(("N",)) if isinstance(N, Size) else N
        shapes = {"x": (width, cell.input_size)} | {name: (width, cell.hidden_size) for name in states}
        given = {name: Item(body.free(f"{name}_t"), x.dtype, shape) for name, shape in shapes.items()}
        new = list(body.write(_step(cell, x.dtype, self.names, N), list(given.values())))
        scanned, shown = [given["x"]], new[0]
        if inside is not None:
            mask = Item(body.free("inside_t"), np.dtype(bool), (width, 1))
            scanned.append(mask)
            new = [replace(each, name=body.add("Where", mask.name, each.name, given[name].name))
                   for name, each in zip(states, new)]  # fmt: skip
            shown = replace(shown, name=body.add("Where", mask.name, new[0].name, body.number(0, x.dtype)))
        wishes = [g.free(name) for name in (*[f"{state}_next" for state in states], "y")]
        ins = [*[given[name] for name in states], *scanned]
        inner = body.finished(g.free(type(cell).__name__), ins, body.deliver([*new, shown], wishes))
        directions = [int(reverse)]
        *ends, output = g.many(
            "Scan", [*starts, x.name, *([] if inside is None else [inside])],
            [*[f"{state}_end" for state in states], "Y"], body=inner, num_scan_inputs=len(scanned),
            scan_input_directions=directions * len(scanned), scan_output_directions=directions,
        )  # fmt: skip
        for name, weight in cell.named_parameters():
            name = f"{self._prefix(cell)}{name}"
            g.report.add(name, weight.shape, name, weight.shape, "inside of a Scan, by gate")
        return [output, *ends]


def _attributes(layer: Recurrent, kind: str, cells: Sequence[Cell]) -> dict[str, Any]:
    first: Any = cells[0]
    found: dict[str, Any] = {"hidden_size": first.hidden_size}
    if layer._directions != (False,):
        found["direction"] = "bidirectional" if layer.bidirectional else "reverse"
    if getattr(first, "reset", "before") == "after":
        found["linear_before_reset"] = 1
    if getattr(first, "clip", None) is not None:
        found["clip"] = float(first.clip)
    if getattr(first, "input_forget", False):
        found["input_forget"] = 1
    if type(first) in VARIED:
        acting: list[Activation] = [each for cell in cells for each in cell.activations]  # type: ignore[attr-defined]
        found["activations"] = [each.name for each in acting]
        alphas = [each.alpha for each in acting if each.name in TAKES["alpha"]]
        betas = [each.beta for each in acting if each.name in TAKES["beta"]]
        found |= {name: values for name, values in (("activation_alpha", alphas), ("activation_beta", betas)) if values}
    elif getattr(first, "activation", "tanh") == "relu":
        found["activations"] = ["Relu"] * len(cells)
    return found


def _step(cell: Cell, dtype: Any, names: Mapping[int, str], N: int | Size) -> tracing.Program:
    """One step of a cell, traced: x (N, I) and its states (N, H) -> the states after it."""
    rng, rows = np.random.default_rng(0), 3 if isinstance(N, Size) else N
    widths = {"x": cell.input_size} | dict.fromkeys(cell.states, cell.hidden_size)
    inputs = {name: rng.normal(size=(rows, width)).astype(dtype) for name, width in widths.items()}

    def advance(given: dict[str, Tensor]) -> Any:
        state = tuple([given[name] for name in cell.states])
        return cell.advance(given["x"], state, cell.weights())

    dynamic = {name: {0: "N"} for name in inputs} if isinstance(N, Size) else {}
    return tracing.program(advance, inputs, dynamic, names)
