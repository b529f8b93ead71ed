"""Recurrent layers in ONNX: RNN, GRU and LSTM nodes where these compute the same, else a Scan over the cell's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...backend import Array
from ...core.tensor import Tensor
from ...errors import ConversionError
from ...nn import fused
from ...nn.cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell
from ...nn.recurrent import Recurrent
from .. import packing
from ..cells import TAKES, VARIED, Activation, VariedGRUCell
from ..conventions import PEEPHOLES
from ..report import Report
from . import tracing
from .building import Builder, Item, Result
from .tracing import Size

NODES = {RNNCell: "RNN", GRUCell: "GRU", LSTMCell: "LSTM", MinimalGRUCell: "GRU"}
WAYS = ("auto", "always", "never")


def emitter(way: str, names: dict[int, str]) -> Callable[..., list[str]]:
    """How recurrent layers are written.

    way: "auto" writes nodes where they compute exactly the same and runtimes have them (float32), else a Scan;
        "always" writes nodes in float64 too, and simplified GRUs as GRUs with an open reset gate; "never" writes none.
    names: of the weights, by identity.
    """
    return partial(_layer, way, names)


def _layer(
    way: str, names: dict[int, str], g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]
) -> list[str]:  # fmt: skip
    layer: Recurrent = options["layer"]
    x, *initial, lengths = inputs
    D, L = len(layer._directions), layer.num_layers
    ends: list[list[str]] = [[] for _ in layer.cell_type.states]
    for place in range(L):
        cells = layer.cells[place * D : (place + 1) * D]
        starts = [_rows(g, state, place * D, D, L * D) for state in initial]
        write = _nodes if _has_node(way, cells) else _scans
        name, last = write(names, g, layer, cells, x, starts, lengths)
        x = Item(name, x.dtype, (*x.shape[:2], D * layer.hidden_size))
        for each, end in zip(ends, last):
            each.append(end)
    output = g.add("Transpose", x.name, name="output", perm=[1, 0, 2]) if layer.batch_first else x.name
    joined = [each[0] if L == 1 else g.add("Concat", *each, name=f"{state}_n", axis=0)
              for state, each in zip(layer.cell_type.states, ends)]  # fmt: skip
    return [output, *joined]


def _rows(g: Builder, state: Item | None, start: int, count: int, of: int) -> str | None:
    """The initial states of one layer's cells (D, N, H), from those of all layers."""
    if state is None or count == of:
        return state.name if state else None
    return g.add("Slice", state.name, g.integers([start]), g.integers([start + count]), g.integers([0]))


def _has_node(way: str, cells: Sequence[Cell]) -> bool:
    """Whether a layer is written as a node.

    Raises: ConversionError, if it must and cannot be.
    """
    if way == "never" or (way == "auto" and any(cell.dtype != np.float32 for cell in cells)):
        return False
    whole = all(fused.can(cell) or type(cell) in VARIED for cell in cells)
    whole = whole and all(map(_turned, cells))
    if way == "always" and not whole:
        raise ConversionError(f"no RNN, GRU or LSTM node of ONNX computes what {type(cells[0]).__name__} does; "
                              'nodes="auto" writes it as a Scan')  # fmt: skip
    return whole and (way == "always" or not isinstance(cells[0], MinimalGRUCell))


def _turned(cell: Cell) -> bool:
    """Whether the update gate can be as in ONNX, which takes the old state where z is 1."""
    return type(cell) is not VariedGRUCell or cell.update == "old" or cell.activations[0].turns


# -- nodes -------------------------------------------------------------------------------------------------------


def _nodes(
    names: dict[int, str], g: Builder, layer: Recurrent, cells: Sequence[Cell], x: Item, starts: Sequence[str | None],
    lengths: Item | None,
) -> tuple[str, list[str]]:  # fmt: skip
    """One layer, both directions, as one node: its output (T, N, D*H) and last states (D, N, H)."""
    first, states = cells[0], cells[0].states
    kind = next(name for base, name in NODES.items() if isinstance(first, base))
    at = layer.cells.index(first) // len(cells)
    stem = _prefix(names, first).rpartition("cells.")[0] + (f"layer{at}." if layer.num_layers > 1 else "")
    arrays = [_packed(names, g, cell, f"{stem}{{}}[{way}]") for way, cell in enumerate(cells)]
    weights = [g.constant(np.stack([each[name] for each in arrays]), f"{stem}{name}") if name in arrays[0] else ""
               for name in "WRB"]  # fmt: skip
    inputs = [x.name, *weights, g.cast(lengths.name, lengths.dtype, np.int32) if lengths else ""]
    inputs += [start or "" for start in starts]
    if getattr(first, "peepholes", False):
        P = np.stack([_peepholes(cell) for cell in cells])
        inputs += [""] * (7 - len(inputs)) + [g.constant(P, f"{stem}P")]
        for way, cell in enumerate(cells):
            g.report.add(f"{_prefix(names, cell)}P", P[way].shape, f"{stem}P[{way}]", P[way].shape, "gates i o f")
    outputs = ["Y", *[f"Y_{state}" for state in states]]
    y, *last = g.many(kind, _trimmed(inputs), outputs, **_attributes(layer, kind, cells))
    if lengths:
        last = [_kept(g, lengths, start, end) if start else end for start, end in zip(starts, last)]
    if len(cells) == 1:
        return g.add("Squeeze", y, g.integers([1]), name="output"), last
    turned = g.add("Transpose", y, perm=[0, 2, 1, 3])  # (T, D, N, H) -> (T, N, D, H)
    return g.add("Reshape", turned, g.integers([0, 0, len(cells) * layer.hidden_size]), name="output"), last


def _kept(g: Builder, lengths: Item, start: str, end: str) -> str:
    """The last state; that of a sequence of no steps is its first one, for which onnxruntime has zeros."""
    some = g.add("Greater", lengths.name, g.number(0, lengths.dtype))
    return g.add("Where", g.add("Unsqueeze", some, g.integers([0, 2])), end, start)


def _trimmed(inputs: list[str]) -> list[str]:
    """Without the inputs at the end that are left out."""
    while not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def _prefix(names: dict[int, str], cell: Cell) -> str:
    """What the arrays of a node are called: as the cell's W, but without that."""
    return names.get(id(cell.W), cell.W.name or "W").removesuffix("W")


def _packed(names: dict[int, str], g: Builder, cell: Cell, to: str) -> dict[str, Array]:
    """W, R and B of one direction; to: what they are called in the report, around {}."""
    row = packing.convention("onnx", type(cell), getattr(cell, "reset", None))
    moves = Report()
    arrays = packing.packed(cell, row, varied=True, owner=_prefix(names, cell), report=moves)
    if True:
        g.report.moves += [move._replace(target=to.format(move.target)) for move in moves.moves]
    return arrays


def _peepholes(cell: Any) -> Array:
    """P as ONNX has it."""
    parts = dict(zip("ifo", np.split(cell.P.numpy(), 3)))
    return np.concatenate([parts[gate] for gate in PEEPHOLES.gates])


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


# -- Scan --------------------------------------------------------------------------------------------------------


def _scans(
    names: dict[int, str], g: Builder, layer: Recurrent, cells: Sequence[Cell], x: Item, starts: Sequence[str | None],
    lengths: Item | None,
) -> tuple[str, list[str]]:  # fmt: skip
    """One layer as a Scan for each direction: its output (T, N, D*H) and last states (D, N, H)."""
    outputs, ends = [], []
    inside = _inside(g, x, lengths) if lengths else None
    for at, (cell, reverse) in enumerate(zip(cells, layer._directions)):
        own = [_one(g, start, at) if start else _zeros(g, cell, x) for start in starts]
        output, *last = _scan(names, g, cell, reverse, x, own, inside)
        outputs.append(output)
        ends.append([g.add("Unsqueeze", end, g.integers([0])) for end in last])
    if len(cells) == 1:
        return outputs[0], ends[0]
    joined = [g.add("Concat", *each, axis=0) for each in zip(*ends)]
    return g.add("Concat", *outputs, name="output", axis=2), joined


def _one(g: Builder, states: str, at: int) -> str:
    return g.add("Gather", states, g.constant(np.int64(at)), axis=0)


def _zeros(g: Builder, cell: Cell, x: Item) -> str:
    return g.add("Expand", g.number(0, x.dtype), g.sizes([x.shape[1], cell.hidden_size]), name="zeros")


def _inside(g: Builder, x: Item, lengths: Item) -> str:
    """Which steps of which sequences are real, (T, N, 1)."""
    steps = g.add("Unsqueeze", g.counted(x.shape[0]), g.integers([1, 2]))
    ends = g.add("Unsqueeze", g.cast(lengths.name, lengths.dtype, np.int64), g.integers([1]))
    return g.add("Less", steps, ends, name="inside")


def _scan(
    names: dict[int, str], g: Builder, cell: Cell, reverse: bool, x: Item, starts: list[str], inside: str | None
) -> list[str]:  # fmt: skip
    """A cell over time: its outputs (T, N, H), then its last states (N, H)."""
    N, dtype, states = x.shape[1], x.dtype, cell.states
    body = g.body()
    if isinstance(N, Size):
        body.axes["N"] = g.size(N)
    width: int | Size = Size(("N",)) if isinstance(N, Size) else N
    step = _step(cell, dtype, names, N)
    shapes = {"x": (width, cell.input_size)} | {name: (width, cell.hidden_size) for name in states}
    given = {name: Item(body.free(f"{name}_t"), dtype, shape) for name, shape in shapes.items()}
    new = list(body.write(step, list(given.values())))
    scanned, mask = [given["x"]], None
    if inside:
        mask = Item(body.free("inside_t"), np.dtype(bool), (width, 1))
        scanned.append(mask)
        new = [Item(body.add("Where", mask.name, each.name, given[name].name), dtype, each.shape)
               for name, each in zip(states, new)]  # fmt: skip
    shown = new[0] if mask is None else replace(
        new[0], name=body.add("Where", mask.name, new[0].name, body.number(0, dtype)))  # fmt: skip
    wishes = [g.free(name) for name in (*[f"{state}_next" for state in states], "y")]
    ins = [*[given[name] for name in states], *scanned]
    inner = body.finished(g.free(type(cell).__name__), ins, body.deliver([*new, shown], wishes))
    way = int(reverse)
    *ends, output = g.many(
        "Scan", [*starts, x.name, *([inside] if inside else [])], [*[f"{state}_end" for state in states], "Y"],
        body=inner, num_scan_inputs=len(scanned),
        scan_input_directions=[way] * len(scanned), scan_output_directions=[way],
    )  # fmt: skip
    if True:
        for name, weight in cell.named_parameters():
            name = f"{_prefix(names, cell)}{name}"
            g.report.add(name, weight.shape, name, weight.shape, "inside of a Scan, by gate")
    return [output, *ends]


def _step(cell: Cell, dtype: Any, names: dict[int, str], N: int | Size) -> tracing.Program:
    """One step of a cell, traced: x (N, I) and its states (N, H) -> the states after it."""
    rng, rows = np.random.default_rng(0), 3 if isinstance(N, Size) else N
    widths = {"x": cell.input_size} | dict.fromkeys(cell.states, cell.hidden_size)
    inputs = {name: rng.normal(size=(rows, width)).astype(dtype) for name, width in widths.items()}

    def advance(given: dict[str, Tensor]) -> Any:
        state = tuple([given[name] for name in cell.states])
        return cell.advance(given["x"], state, cell.weights())

    dynamic = {name: {0: "N"} for name in inputs} if isinstance(N, Size) else {}
    return tracing.program(advance, inputs, dynamic, names)
