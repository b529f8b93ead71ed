"""Layers of a `.weights.h5` file, which holds no settings: by the shapes of their weights, and what somebody says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...backend import Array
from ...errors import ConversionError, OptionError
from ..packing import cell_by_matrix
from .config import CELLS, FILE_NAMES, KerasLayer, short


def guessed(name: str, given: Any, weights: dict[str, Array]) -> KerasLayer:
    """A layer by the shapes of its weights, and what somebody said about it."""
    if not (given is None or isinstance(given, (str, Mapping))):
        raise OptionError(f"layers= has {short(given)} for {name}; a class, a mapping of settings or None would fit")
    settings = {"class_name": given} if isinstance(given, str) else dict(given or {})
    kind = settings.pop("class_name", None) or settings.pop("kind", None) or _kind(name, weights)
    below = next((each for each in ("forward_layer/cell/", "cell/") if f"{each}vars/0" in weights), "")
    bias = weights.get(f"{below}vars/{1 if kind == 'Dense' else 2}")
    guess: dict[str, Any] = {"use_bias": bias is not None} if below or kind == "Dense" else {}
    if below:
        guess["return_sequences"] = True
    inner = _by_recurrence(weights, below) if kind in ("Bidirectional", "RNN") else kind
    if inner == "GRU" and bias is not None:
        guess["reset_after"] = bias.ndim == 2
    if kind == "Bidirectional":
        inside = {"module": "keras.layers", "class_name": inner, "config": guess | settings}
        return KerasLayer(name, kind, {"layer": inside}, weights)
    if kind == "RNN":
        kind = str(inner)
    return KerasLayer(name, kind, guess | settings, weights)


def _kind(name: str, weights: Mapping[str, Array]) -> str:
    """The class of a layer, by what its weights look like."""
    shapes = [weights[path].ndim for path in sorted(weights)]
    if "forward_layer/cell/vars/0" in weights:
        return "Bidirectional"
    if "cell/vars/0" in weights:
        return _by_recurrence(weights, "cell/")
    by_name = next((kind for kind, snake in FILE_NAMES.items() if name.rstrip("0123456789").rstrip("_") == snake), None)
    found = by_name or {(2, 1): "Dense", (1, 1): "LayerNormalization"}.get(tuple(shapes))
    if found is None:
        raise ConversionError(f"the weights of {short(name)} do not show what it is; say it, as in layers="
                              f"{{{name[:60]!r}: 'Embedding', ...}} (--layers {name[:60]}=Embedding,...)")  # fmt: skip
    return found


def _by_recurrence(weights: Mapping[str, Array], below: str) -> str:
    shape = weights[f"{below}vars/1"].shape if f"{below}vars/1" in weights else ()
    found = cell_by_matrix("keras", shape)
    if found is None:
        raise ConversionError(f"a recurrent kernel of shape {shape} is that of no cell: (H, H), (H, 3H) or (H, 4H) is")
    return next(kind for kind, cell in CELLS.items() if cell is found)
