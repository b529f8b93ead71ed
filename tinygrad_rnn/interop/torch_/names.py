"""What PyTorch calls the layers that have a counterpart here, and their arrays in a state_dict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...nn.cells import Cell
from ...nn.layers import Embedding, LayerNorm, Linear
from .. import packing
from ..conventions import Convention

CELL_NAMES = {f"{name}Cell": name for name in packing.CELLS}
PLAIN: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    "Linear": (Linear, {"weight": "W", "bias": "b"}, {"init": "zeros"}),
    "Embedding": (Embedding, {"weight": "W"}, {"init": "zeros"}),
    "LayerNorm": (LayerNorm, {"weight": "gain", "bias": "shift"}, {}),
}
"""Layers without time: ours, our names of torch's arrays, and options that make an empty one."""

ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "relu": ("ReLU", {}),
    "leaky_relu": ("LeakyReLU", {"negative_slope": 0.01}),
    "elu": ("ELU", {"alpha": 1.0}),
    "gelu": ("GELU", {"approximate": "none"}),
    "silu": ("SiLU", {}),
    "softmax": ("Softmax", {"dim": -1}),
    "log_softmax": ("LogSoftmax", {"dim": -1}),
}
"""Functions that are modules there: the class, and the settings with which it computes ours."""


def suffixes(layers: int, bidirectional: bool) -> list[str]:
    """What torch appends to the names of the arrays of a layer's cells, in the order of ours."""
    return [f"_l{layer}{direction}" for layer in range(layers) for direction in ("", "_reverse")[: 1 + bidirectional]]


def row_of(kind: type[Cell], suffix: str = "") -> Convention:
    """The row of one of the cells in a layer: its arrays are called as those of a cell, with a suffix."""
    row = packing.convention("torch", kind)
    return replace(row, slots=tuple(slot._replace(name=f"{slot.name}{suffix}") for slot in row.slots))
