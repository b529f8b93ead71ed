"""Layers of another library's model, as they are found: what they are, and their arrays, before they are made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import packing
from .names import ACTIVATIONS, CELL_NAMES, PLAIN

KINDS = (*packing.CELLS, *CELL_NAMES, *PLAIN, *ACTIVATIONS)
"""What a layer may be: the names of torch's classes, and of functions."""


@dataclass
class Found:
    """A layer of another library's model, before it is made here.

    kind: as torch calls it, or the name of a function. arrays: by their names within the layer. settings: of our layer.
    frozen: the arrays that are not learned. training: whether Dropout acts. final: whether its last output is all
    that it hands on. origin: the module that it is there; one that stands in two places does so here, too.
    """

    kind: str
    arrays: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    training: bool = True
    final: bool = False
    origin: Any = None


FoundLayers = dict[str, Found]
