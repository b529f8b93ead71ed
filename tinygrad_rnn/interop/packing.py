"""Weights of a cell to and from the arrays of a library: the one code that all libraries share, driven by the table.

Exact differences are made up for: the order of gates, transposes, biases that come twice, the direction of the update
gate. Where no weights compute the same, it refuses and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, cast

import numpy as np

from ..backend import Array
from ..core.tensor import tensor
from ..errors import ConversionError, DtypeError, OptionError, ShapeError
from ..nn import fused, options
from ..nn.cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell
from ..nn.recurrent import GRU, LSTM, RNN, MinimalGRU, Recurrent
from .cells import SIGMOID, VARIED
from .conventions import CONVENTIONS, PEEPHOLES, Convention, Slot
from .report import Report

Parts = dict[str, dict[str, Array]]
"""By letter and gate, each in the package's form: {"W": {"z": (I, H), ...}, "U": ..., "b": ..., "c": ...}."""

CELLS: dict[str, type[Cell]] = {"RNN": RNNCell, "GRU": GRUCell, "LSTM": LSTMCell}
LAYERS: dict[type[Cell], type[Recurrent]] = {
    RNNCell: RNN,
    MinimalGRUCell: MinimalGRU,
    GRUCell: GRU,
    LSTMCell: LSTM,
}
OPEN = 40.0
"""The bias of a reset gate that stays open: sigmoid(40) is 1 in double precision, whatever a trained x W + h U adds."""


def convention(library: str, cell: type[Cell], reset: str | None = None) -> Convention:
    """The row of the table for a library and a cell; reset: of a GRU, for libraries that can do both.

    Raises: OptionError, if there is none.
    """
    of_library = [row for row in CONVENTIONS if row.key == library]
    if not of_library:
        raise OptionError(f"there is no library {library!r} in the table; choose from {', '.join(libraries())}")
    wanted = GRUCell if issubclass(cell, MinimalGRUCell) else cell
    rows = [row for row in of_library if issubclass(wanted, row.cell)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.cell.__name__ for row in of_library))
        raise OptionError(f"{library} has nothing in the table for {cell.__name__}; it has {known}")
    fitting = [row for row in rows if reset is None or row.reset in (None, reset)]
    return (fitting or rows)[0]


def cell_by_matrix(library: str, shape: tuple[int, ...]) -> type[Cell] | None:
    """The cell of a library whose recurrent matrix has this shape, by the number of gates; None, if there is none."""
    H = min(shape, default=0)
    for row in CONVENTIONS:
        if row.key == library and H and shape == shape_of(next(slot for slot in row.slots if "U" in slot.holds), 1, H):
            return row.cell
    return None


def libraries() -> list[str]:
    """The libraries of the table, as they are called here."""
    return list(dict.fromkeys(row.key for row in CONVENTIONS))


# -- public: bare arrays -----------------------------------------------------------------------------------------


def from_arrays(
    library: str, cell: str, arrays: Mapping[str, Any], *, reset: str | None = None, **settings: Any
) -> Cell:  # fmt: skip
    """A cell from the arrays of a library's cell, by the names in the table: `from_arrays("haiku", "GRU", {...})`.

    library: "torch", "cudnn", "keras", "onnx", "flax", "flax.nnx", "flax.nnx.optimized", "equinox", "haiku", "chainer"
        or "chainer.nstep".
    cell: "RNN", "GRU" or "LSTM". reset: which row of the table, for a GRU of Keras or ONNX.
    settings: options of the cell, such as activation="relu". Its reset= and update= are the library's.

    Raises: OptionError for a library, a cell or an array that is not in the table; ShapeError, DtypeError.
    """
    options.choice("cell", cell, CELLS)
    options.kind("from_arrays", arrays, Mapping, words="arrays by their names")
    if reset is not None:
        options.choice("reset", reset, ("before", "after"))
    return unpacked(convention(library, CELLS[cell], reset), arrays, report=Report(), **settings)


def to_arrays(cell: Cell, library: str) -> dict[str, Array]:
    """The arrays that a library's cell needs to compute what this one computes, by the names in the table.

    Raises: ConversionError with the reason, where there are none; OptionError for an unknown library.
    """
    return packed(cell, convention(library, kind_of(cell), getattr(cell, "reset", None)), report=Report())


# -- from a library to a cell ------------------------------------------------------------------------------------


def unpacked(
    row: Convention, arrays: Mapping[str, Any], kind: type[Cell] | None = None, *, owner: str = "",
    report: Report, to: str = "", **settings: Any,
) -> Cell:  # fmt: skip
    """A cell with the weights of a library's arrays.

    arrays: by the names of the slots; biases may be missing if the library can do without.
    kind: the cell to make, if not that of the row. owner: what goes before the arrays' names in messages.
    report: takes down what went where; to: what goes before the names of our weights in it.
    settings: options of the cell.

    Raises: OptionError for arrays that are missing or unknown; ShapeError, DtypeError.
    """
    found = {name: tensor(array, backend="numpy").numpy() for name, array in arrays.items()}
    seen = row.peepholes if settings.get("peepholes") else None
    weights = {name: array for name, array in found.items() if seen is None or name != seen.name}
    _check_names(row, weights, owner)
    parts = _parts(row, weights, owner)
    cell = _cell(row, parts, kind or row.cell, settings)
    if seen is not None:
        cast(Any, cell).P.assign_(_reordered(found[seen.name], seen, PEEPHOLES))
    for slot in (*row.slots, *filter(None, [seen])):
        if slot.name in found:
            _note(report, row, slot, cell, (f"{owner}{slot.name}", found[slot.name].shape), to, out=False)
    return cell


def _check_names(row: Convention, found: Mapping[str, Array], owner: str) -> None:
    needed = {slot.name for slot in row.slots}
    without_bias = {slot.name for slot in row.slots if slot.holds[0] in "WU"}
    if found.keys() == needed or (row.bias_optional and found.keys() == without_bias):
        return
    wrong = [f"{owner}{name} is missing" for name in sorted(needed - found.keys())]
    wrong += [f"{owner}{name} is unexpected" for name in sorted(found.keys() - needed)]
    have = ", ".join(slot.name for slot in row.slots)
    raise OptionError(f"{'; '.join(wrong)}: {row.classes} has {have}")


def _parts(row: Convention, found: Mapping[str, Array], owner: str) -> Parts:
    """The arrays taken apart by letter and gate, in the package's form."""
    dtypes = {name: array.dtype for name, array in found.items()}
    if len(set(dtypes.values())) > 1 or next(iter(dtypes.values())).kind != "f":
        have = ", ".join(f"{owner}{name} {dtype}" for name, dtype in dtypes.items())
        raise DtypeError(f"{row.classes} needs arrays of one floating dtype, not {have}")
    I, H = _sizes(row, found, owner)
    parts: Parts = {letter: {} for letter in "WUbc"}
    for slot in row.slots:
        if slot.name not in found:
            continue
        array, needed = found[slot.name], shape_of(slot, I, H)
        if array.shape != needed:
            raise ShapeError(f"{owner}{slot.name} has shape {array.shape}; beside I = {I} inputs and H = {H} units, "
                             f"{needed} would fit")  # fmt: skip
        for letter, piece in _by_letter(slot, array, I, H):
            parts[letter].update(zip(slot.gates, _blocks(slot, piece)))
    return parts


def _sizes(row: Convention, found: Mapping[str, Array], owner: str) -> tuple[int, int]:
    """I and H, by the arrays of W and U."""
    U, W = (next(slot for slot in row.slots if letter in slot.holds) for letter in "UW")
    for slot in (U, W):
        if found[slot.name].ndim != 2:
            raise ShapeError(f"{owner}{slot.name} has shape {found[slot.name].shape}; a matrix is needed")
    columns = found[U.name].shape[U.form == "columns"]
    H = columns // len(U.gates)
    if not H or H * len(U.gates) != columns:
        raise ShapeError(f"{owner}{U.name} has shape {found[U.name].shape}, which is not made of {len(U.gates)} "
                         f"blocks, one for each of {', '.join(U.gates)}")  # fmt: skip
    I = found[W.name].shape[W.form != "columns"] - (H if W is U else 0)
    if I < 1:
        raise ShapeError(f"{owner}{W.name} has shape {found[W.name].shape}, which leaves {I} inputs for {H} units")
    return I, H


def shape_of(slot: Slot, I: int, H: int) -> tuple[int, ...]:
    """The shape of a library's array."""
    columns = len(slot.gates) * H
    if slot.holds[0] in "bc":
        return (len(slot.holds), columns) if slot.stacked else (len(slot.holds) * columns,)
    rows = sum({"W": I, "U": H}[letter] for letter in slot.holds)
    return (rows, columns) if slot.form == "columns" else (columns, rows)


def _by_letter(slot: Slot, array: Array, I: int, H: int) -> Iterable[tuple[str, Array]]:
    if slot.stacked:
        return zip(slot.holds, array)
    sizes = {"W": I, "U": H, "b": len(slot.gates) * H, "c": len(slot.gates) * H}
    ends = np.cumsum([sizes[letter] for letter in slot.holds])[:-1]
    return zip(slot.holds, np.split(array, ends, axis=0 if slot.form == "columns" or array.ndim == 1 else 1))


def _blocks(slot: Slot, piece: Array) -> list[Array]:
    """A block for each gate: (I, H) or (H)."""
    G = len(slot.gates)
    if slot.form == "interleaved":
        return [piece[k::G].T for k in range(G)]
    return [
        block if slot.form == "columns" else block.T
        for block in np.split(piece, G, -1 if slot.form == "columns" else 0)
    ]


# -- from a cell to a library ------------------------------------------------------------------------------------


def packed(
    cell: Cell, row: Convention, *, owner: str = "", report: Report, to: str = "", after: str = "",
    varied: bool = False,
) -> dict[str, Array]:  # fmt: skip
    """The arrays that a library's cell needs to compute what this one computes.

    owner, report, to: as in `unpacked`, seen from here. after: what goes behind the names of the library's arrays.
    varied: whether the caller writes down himself what the cells of `VARIED` have beyond ours, which else is refused.

    Raises: ConversionError with the reason, where there are none.
    """
    parts = parts_for(row, cell, varied)
    arrays = arrays_of(row, parts)
    peepholes = getattr(cell, "P", None)
    if row.peepholes is not None and peepholes is not None:
        arrays[row.peepholes.name] = _reordered(peepholes.numpy(), PEEPHOLES, row.peepholes)
    for slot in (*row.slots, *filter(None, [row.peepholes])):
        if slot.name in arrays:
            theirs = f"{to}{slot.name}{after}", arrays[slot.name].shape
            _note(report, row, slot, cell, theirs, owner, out=True)
    return arrays


def parts_for(row: Convention, cell: Cell, varied: bool = False) -> Parts:
    """The weights of a cell by letter and gate, as the library's formula wants them; varied: as in `packed`.

    Raises: ConversionError with the reason.
    """
    if not (fused.can(cell) or (varied and type(cell) in VARIED)):
        raise ConversionError(f"{type(cell).__name__} is a cell of its own, with no counterpart in {row.key}; "
                              "to_onnx writes any cell, operation by operation")  # fmt: skip
    activation = getattr(cell, "activation", "tanh")
    if activation not in row.activations:
        raise ConversionError(f"{row.classes} computes {' or '.join(row.activations)}, not {activation}")
    return _turned(row, cell, gate_parts(cell))


def gate_parts(cell: Cell) -> Parts:
    """The weights of a cell by letter and gate; letters that it has no bias for are empty."""
    found = cell.to_gates()
    c = found.get("c")
    return {"W": found["W"], "U": found["U"], "b": found.get("b", {}), "c": {} if c is None else {"n": c}}


def arrays_of(row: Convention, parts: Parts) -> dict[str, Array]:
    """The library's arrays, made of parts; biases that are not there are left out where the library can, else zeros."""
    biases = parts["b"] or parts["c"]
    zeros = np.zeros_like(next(iter(parts["U"].values()))[0])
    arrays = {}
    for slot in row.slots:
        if slot.holds[0] in "bc" and not biases and row.bias_optional:
            continue
        pieces = [_joined(slot, [parts[letter].get(gate, zeros) for gate in slot.gates]) for letter in slot.holds]
        if slot.stacked:
            arrays[slot.name] = np.stack(pieces)
        else:
            rows = slot.form == "columns" or pieces[0].ndim == 1
            arrays[slot.name] = np.ascontiguousarray(np.concatenate(pieces, axis=0 if rows else 1))
    return arrays


def _joined(slot: Slot, blocks: list[Array]) -> Array:
    """The inverse of `_blocks`."""
    if slot.form == "columns":
        return np.concatenate(blocks, axis=-1)
    turned = [block.T for block in blocks]
    if slot.form == "rows":
        return np.concatenate(turned)
    together = np.stack(turned, axis=1)
    return together.reshape(-1, *together.shape[2:])


def _reordered(array: Array, source: Slot, target: Slot) -> Array:
    """A block for each gate, from one slot's order to another's."""
    blocks = dict(zip(source.gates, _blocks(source, array)))
    return _joined(target, [blocks[gate] for gate in target.gates])


def _note(
    report: Report, row: Convention, slot: Slot, cell: Cell, theirs: tuple[str, Any], ours: str, *, out: bool
) -> None:  # fmt: skip
    """Write down an array of a library, and the weights of ours that it went to, or (`out`) came from.

    theirs: its name and shape. ours: what goes before the names of our weights.
    """
    met = homes(slot, cell)
    names = " and ".join(f"{ours}{name}" for name in met)
    here: tuple[str, Any] = (names, getattr(cell, met[0]).shape) if met else ("constant", "")
    changes = ", ".join(_changes(row, slot, cell, met, out))
    source, target = (here, theirs) if out else (theirs, here)
    report.add(*source, *target, changes)


def homes(slot: Slot, cell: Cell) -> list[str]:
    """The weights of ours that meet the blocks of a library's array; a second bias has its home in c, or else in b."""
    own = {name for name in "bcP" if getattr(cell, name, None) is not None}
    inside = "c" in own and "n" in slot.gates
    found = {"W": ["W"], "U": ["U"], "b": ["b"], "P": ["P"]}
    found["c"] = ["b"] * (not inside or slot.gates != "n") + ["c"] * inside
    met = dict.fromkeys(name for letter in slot.holds for name in found[letter])
    return [name for name in met if name in own | {"W", "U"}]


def _changes(row: Convention, slot: Slot, cell: Cell, met: list[str], out: bool) -> Iterator[str]:
    """What happens to the blocks of a library's array on their way here, or (`out`) from here, in words."""
    if slot.gates != "h":
        yield f"gate{'s' * (len(slot.gates) > 1)} {' '.join(slot.gates)}"
    if slot.form == "interleaved":
        yield "interleaved"
    if slot.form != "columns" and slot.holds[0] in "WU":
        yield "transposed"
    if "c" in slot.holds and "b" in met and not out:
        yield "added to b"
    if "c" in slot.holds and slot.gates != "n" and out:
        yield f"{'the second ' * ('b' in slot.holds)}zeros{' but for n' * ('c' in met)}"
    if out and "r" in slot.gates and isinstance(cell, MinimalGRUCell) and slot.holds != "c":
        yield "r held open"
    if out and "z" in slot.gates and slot.holds != "c" and row.update != getattr(cell, "update", "new"):
        yield "z negated"
    if "b" in slot.holds:
        for gate, offset in row.offsets.items():
            if gate in slot.gates:
                yield f"{-offset if out else offset:+g} for {gate}"


# -- between the two formulas: what `_cell` does on the way here, `_turned` undoes in the opposite order --------------


def _cell(row: Convention, parts: Parts, kind: type[Cell], settings: dict[str, Any]) -> Cell:
    """The cell with these parts: biases that come twice are added up, where the cell has one for both."""
    W, U, b, c = (parts[letter] for letter in "WUbc")
    apart = {"n"} if row.reset == "after" else set[str]()
    whole: dict[str, Array] | None = None
    if b or c:
        whole = {gate: b.get(gate, 0) + (0 if gate in apart else c.get(gate, 0)) + np.zeros_like(U[gate][0])
                 for gate in row.order}  # fmt: skip
        for gate, offset in row.offsets.items():
            whole[gate] = whole[gate] + np.asarray(offset, whole[gate].dtype)
    if "n" in c and "n" in apart:
        settings["c"] = c["n"]
    if row.cell is GRUCell:
        for name, value in (("reset", row.reset), ("update", row.update)):
            if settings.setdefault(name, value) != value:
                raise OptionError(f"{name}={settings[name]!r} is not what {row.classes} computes, which is {value!r}; "
                                  "nn.flipped turns the update gate of what was imported")  # fmt: skip
    return kind.from_gates(W=W, U=U, b=whole, **settings)


def _turned(row: Convention, cell: Cell, parts: Parts) -> Parts:
    """The same function in the library's formula: the reset gate open, the update gate turned, the offset taken off."""
    W, U, b, c = (dict(parts[letter]) for letter in "WUbc")
    zeros = np.zeros_like(next(iter(U.values()))[0])
    update, reset = getattr(cell, "update", "new"), str(getattr(cell, "reset", row.reset))
    if isinstance(cell, MinimalGRUCell):
        W["r"], U["r"] = np.zeros_like(W["z"]), np.zeros_like(U["z"])
        b = {"z": zeros, "n": zeros} | b | {"r": np.full_like(zeros, OPEN)}
    if reset != row.reset and row.cell is GRUCell:
        raise ConversionError(_other_reset(row, reset))
    if update != row.update and row.cell is GRUCell:
        if not (f := getattr(cell, "activations", (SIGMOID,))[0]).turns:
            raise ConversionError(f"the update gate of this cell and that of {row.classes} have opposite directions, "
                                  f"and f = {f} cannot be turned, as f(-a) is not 1 - f(a)")  # fmt: skip
        for each in (W, U, b):
            if "z" in each:
                each["z"] = -each["z"]
    if c.get("n", zeros).any() and not row.recurrent_bias:
        raise ConversionError(f"{row.classes} has no bias inside of the reset, r * (h U_n + c), and this cell's c is "
                              "not zero; no other weight can stand for it")  # fmt: skip
    for gate, offset in row.offsets.items():
        b = {each: zeros for each in row.order} | b
        b[gate] = b[gate] - np.asarray(offset, zeros.dtype)
    return {"W": W, "U": U, "b": b, "c": c}


RESETS = {"before": "before the product, (r * h) U_n", "after": "after it, r * (h U_n + c)"}


def _other_reset(row: Convention, reset: str) -> str:
    able = dict.fromkeys(each.key for each in CONVENTIONS if each.reset == reset)
    return (
        f"the reset gate of this cell acts {RESETS[reset]}, that of {row.classes} {RESETS[str(row.reset)]}; no weights "
        "turn one into the other, as (r * h) U = r * (h U) for every h only where U is diagonal: train a GRU with "
        f"reset={row.reset!r}, or convert this one to {', '.join(able)}, which can compute it"
    )


# -- layers ------------------------------------------------------------------------------------------------------


def kind_of(cell: Cell | type[Cell]) -> type[Cell]:
    """The cell of the package that this one is, or is made of.

    Raises: ConversionError for a cell of another kind.
    """
    own = cell if isinstance(cell, type) else type(cell)
    for kind in LAYERS:
        if issubclass(own, kind):
            return kind
    raise ConversionError(f"{own.__name__} is none of the package's cells, and has no counterpart elsewhere")


def name_of(cell: Cell | type[Cell]) -> str:
    """What most libraries call cells of this kind: "RNN", "GRU" (the simplified one is a case of it) or "LSTM".

    Raises: ConversionError as `kind_of`.
    """
    kind = kind_of(cell)
    return next(name for name, usual in CELLS.items() if usual is (GRUCell if kind is MinimalGRUCell else kind))


def varied_of(kind: type[Cell]) -> type[Cell]:
    """The cell with all that other libraries' have, of the same kind as RNNCell, GRUCell or LSTMCell."""
    return next(each for each in VARIED if issubclass(each, kind))


SETTLED = {
    "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dtype", "init", "rng",
    "reset", "update", "recurrent_bias", "forget_bias", "reverse",
}  # fmt: skip
"""The options of recurrent layers that weights, or the library, settle."""


def unsettled(kind: type[Recurrent]) -> set[str]:
    """The options of a kind of recurrent layers that weights do not settle, such as batch_first."""
    return {option.name for option in fields(cast(Any, kind))} - SETTLED


def layer_of(cells: list[Cell], **settings: Any) -> Recurrent:
    """A recurrent layer around cells, which come layer by layer, in each the forward direction, then the reverse one.

    settings: options of the layer, such as bidirectional; those of the cells are read off the first.

    Raises: OptionError, if the cells do not fit each other.
    """
    first = cells[0]
    kind = VARIED.get(type(first)) or LAYERS[kind_of(first)]
    own = {each.name for each in fields(cast(Any, kind))} - {"rng", "init"}
    of_cells = {name: value for name, value in vars(first).items() if name in own and name not in settings}
    directions = 1 + bool(settings.get("bidirectional", False))
    of_cells |= {"num_layers": len(cells) // directions, "init": "zeros"}
    layer = kind(**of_cells | settings)
    for place, (mine, given) in enumerate(zip(layer.cells, cells, strict=True)):
        for name in ("input_size", "hidden_size", "bias", "dtype"):
            if getattr(mine, name) != getattr(given, name):
                raise OptionError(f"cell {place} has {name}={getattr(given, name)}; "
                                  f"{getattr(mine, name)} is needed beside the others")  # fmt: skip
    layer.cells = cells
    return layer
