"""cuDNN's one long vector of all weights of a recurrent layer, to and from the layers of this package."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from ..backend import Array
from ..core.tensor import tensor
from ..errors import ConversionError, OptionError, ShapeError
from ..nn import options
from ..nn.recurrent import Recurrent
from . import packing
from .conventions import Convention, Slot
from .report import Report


def from_cudnn(
    vector: Any, kind: str, input_size: int, hidden_size: int, num_layers: int = 1, *, bidirectional: bool = False,
    **settings: Any,
) -> Recurrent:  # fmt: skip
    """A layer from cuDNN's weight space: first the matrices of all cells, each cell's W before its U, then all biases.

    The cells come layer by layer, in each the forward direction, then the reverse one, as in `Recurrent.cells`;
    the biases are double (CUDNN_RNN_DOUBLE_BIAS).

    vector: the numbers, without padding, of shape (n). kind: "RNN", "GRU" or "LSTM".
    settings: options of the layer that weights do not settle, such as activation="relu" or batch_first=True.

    Raises: ShapeError for a vector of another length; OptionError, DtypeError.
    """
    options.choice("kind", kind, packing.CELLS)
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        options.count(name, size)
    row = packing.convention("cudnn", packing.CELLS[kind])
    kind_of_layer = packing.LAYERS[packing.CELLS[kind]]
    if unknown := settings.keys() - packing.unsettled(kind_of_layer):
        raise OptionError(f"from_cudnn has no option {min(unknown)!r} for a {kind}; there are "
                          f"{', '.join(sorted(packing.unsettled(kind_of_layer)))}")  # fmt: skip
    numbers = tensor(vector, backend="numpy").numpy()
    if num_layers > numbers.size:
        raise ShapeError(f"the vector has shape {numbers.shape}, which is less than one number for each of "
                         f"{num_layers} layers")  # fmt: skip
    places = _places(row, input_size, hidden_size, num_layers, 1 + bidirectional)
    shapes = [packing.shape_of(slot, I, hidden_size) for _, slot, I in places]
    ends = np.cumsum([int(np.prod(shape, dtype=object)) for shape in shapes], dtype=object)
    if numbers.shape != (ends[-1],):
        sizes = f"{input_size=}, {hidden_size=}, {num_layers=}, {bidirectional=}"
        raise ShapeError(f"the vector has shape {numbers.shape}; {kind} with {sizes} has ({ends[-1]},)")
    arrays: list[dict[str, Array]] = [{} for _ in range(num_layers * (1 + bidirectional))]
    for (cell, slot, _), shape, end in zip(places, shapes, ends):
        arrays[cell][slot.name] = numbers[end - int(np.prod(shape)) : end].reshape(shape)
    of_cells = {each.name for each in fields(packing.CELLS[kind])}
    to_cells = {name: value for name, value in settings.items() if name in of_cells}
    cells = [
        packing.unpacked(row, each, owner=f"cell {k}: ", report=Report(), **to_cells) for k, each in enumerate(arrays)
    ]
    return packing.layer_of(cells, bidirectional=bidirectional, **settings)


def to_cudnn(layer: Recurrent) -> Array:
    """The vector of `from_cudnn` for a layer: (n), on the host.

    Raises: ConversionError for what cuDNN cannot compute, with the reason; OptionError for what is no recurrent layer.
    """
    options.kind("to_cudnn", layer, Recurrent, words="a recurrent layer")
    if layer.reverse:
        raise ConversionError("cuDNN has no recurrent layer that walks in reverse alone (reverse=True)")
    row = packing.convention("cudnn", packing.kind_of(layer.cells[0]))
    arrays = [packing.packed(cell, row, owner=f"cells.{k}.", report=Report()) for k, cell in enumerate(layer.cells)]
    places = _places(row, layer.input_size, layer.hidden_size, layer.num_layers, 1 + layer.bidirectional)
    return np.concatenate([arrays[cell][slot.name].ravel() for cell, slot, _ in places])


def _places(
    row: Convention, input_size: int, hidden_size: int, layers: int, directions: int
) -> list[tuple[int, Slot, int]]:
    """The arrays in their order: of which cell, which, and how many inputs that cell has."""
    inputs = [input_size if cell < directions else directions * hidden_size for cell in range(layers * directions)]
    of_kind = [[slot for slot in row.slots if (slot.holds in "WU") is matrices] for matrices in (True, False)]
    return [(cell, slot, I) for slots in of_kind for cell, I in enumerate(inputs) for slot in slots]
