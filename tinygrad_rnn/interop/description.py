"""What a module is, in words that JSON can hold: enough to build it again, before its weights come back into it.

A description names classes of this package and their settings, and nothing that would run: building from one that a
stranger wrote makes layers of this package or an error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..errors import FileError, TinygradError
from ..nn.layers import Dropout, Embedding, LayerNorm, Linear, Sequential
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..train.model import LanguageModel
from .cells import VARIED, activation
from .layers import FUNCTIONS, HOLDERS, Final, Layers, parts_of
from .packing import LAYERS

Description = dict[str, Any]

TIMED: dict[str, Any] = {kind.__name__: kind for pair in (LAYERS | VARIED).items() for kind in pair}
"""Cells and recurrent layers, whose settings are their fields."""

PLAIN: dict[str, tuple[Any, Callable[[Any], dict[str, Any]]]] = {
    "Linear": (Linear, lambda m: {"input_size": m.input_size, "output_size": m.output_size, "bias": m.b is not None}),
    "Embedding": (Embedding, lambda m: {"symbols": m.symbols, "size": m.size}),
    "LayerNorm": (LayerNorm, lambda m: {"size": m.size, "eps": m.eps}),
    "Dropout": (Dropout, lambda m: {"p": m.p}),
}
"""Other layers, with what reads off their settings."""

MOST_PARTS = 10_000
"""How many layers and cells a description may name."""

MADE: dict[str, Callable[[Mapping[str, Any], Any], Any]] = {
    "Sequential": lambda parts, order: Sequential(*parts.values()),
    "Layers": Layers,
    "Final": lambda parts, order: Final(parts["layer"]),
    "LanguageModel": lambda parts, order: _language_model(**parts),
}
"""How modules are made of others, and of the order in which these act."""


def _language_model(*, embedding: Any, recurrent: Any, head: Any) -> LanguageModel:
    model = LanguageModel(1, 1, 1, rng=np.random.default_rng(0))
    model.embedding, model.recurrent, model.head = embedding, recurrent, head
    return model


def described(module: Module) -> Description | None:
    """The description of a module; None for one that is more than its settings say, such as code or shared weights."""
    found = _described(module)
    return found if found is not None and _form(_built(found)) == _form(module) else None


def _form(module: Module) -> list[tuple[Any, ...]]:
    return [(name, own.shape, own.dtype) for name, own in module.state_dict().items()]


def _described(module: Any) -> Description | None:
    if module in FUNCTIONS.values():
        return {"function": module.__name__}
    name = type(module).__name__
    if TIMED.get(name) is type(module):
        return {"class": name, "settings": _settings(module)} if _as_made(module) else None
    if name in PLAIN and PLAIN[name][0] is type(module):
        dtype = {str(own.dtype) for own in module.state_dict().values()}
        if len(dtype) > 1:
            return None
        return {"class": name, "settings": PLAIN[name][1](module) | ({"dtype": dtype.pop()} if dtype else {})}
    holder = parts_of(module)
    if holder is not None and type(module) in HOLDERS:
        parts = {own: _described(part) for own, part in holder.layers.items()}
        order = {"order": module.order} if name == "Layers" else {}
        return None if None in parts.values() else {"class": name, "parts": parts} | order
    return None


def _settings(module: Any) -> dict[str, Any]:
    """The options that a cell or a recurrent layer was made with, as JSON can hold them."""
    names = [each.name for each in fields(module) if each.name not in ("init", "rng")]
    return {name: _plain(getattr(module, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [list(each) for each in value]
    return str(value) if isinstance(value, np.dtype) else value


def _as_made(module: Any) -> bool:
    """Whether a layer's cells are still those that its settings make."""
    if not isinstance(module, Recurrent):
        return True
    own = {each.name for each in fields(module)}
    shared = [each.name for each in fields(module.cell_type) if each.name in own and each.name not in _OF_A_PLACE]
    return all(type(cell) is module.cell_type and all(getattr(cell, name) == getattr(module, name) for name in shared)
               for cell in module.cells)  # fmt: skip


_OF_A_PLACE = ("input_size", "init", "rng")


# -- back --------------------------------------------------------------------------------------------------------


def built(description: Any, room: int) -> Any:
    """The module that a description speaks of; its weights are zeros.

    room: the number of bytes that all its weights together may take, since there are as many in the file; nothing is
        made before this was compared.

    Raises: FileError for what `described` does not write.
    """
    try:
        if (needed := _need(description, [MOST_PARTS])) > room:
            raise FileError(f"the description speaks of {needed:,} bytes of weights, and the file has {room:,}")
        with warnings.catch_warnings(action="ignore"):  # whoever made the module was warned
            return _built(description)
    except RecursionError:
        raise FileError("the description is nested too deeply") from None
    except FileError:
        raise
    except (TinygradError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileError(f"the description is wrong ({type(error).__name__}: {error})") from None


def _need(description: Any, left: list[int]) -> int:
    """How many bytes the weights take at the least; left: how many parts may still come."""
    _count(left, 1)
    if "parts" in description:
        return sum(_need(part, left) for part in description["parts"].values())
    if "function" in description:
        return 0
    settings = description["settings"]
    item = np.dtype(settings.get("dtype", "float32")).itemsize
    sizes = [settings[name] for name in ("input_size", "output_size", "hidden_size", "symbols", "size", "num_layers")
             if name in settings]  # fmt: skip
    if not all(type(size) is int and size > 0 for size in sizes):
        raise FileError(f"the description has sizes {sizes}; they must be whole numbers of at least 1")
    kind = TIMED.get(description["class"])
    if kind is None:
        return item * math.prod(sizes) if sizes else 0
    cell = kind.cell_type if issubclass(kind, Recurrent) else kind
    G, H, layers = len(cell.gates), settings["hidden_size"], settings.get("num_layers", 1)
    D = 2 if settings.get("bidirectional") else 1
    _count(left, layers * D)
    return int(item * G * H * D * (settings["input_size"] + H + (layers - 1) * (D * H + H)))


def _count(left: list[int], parts: int) -> None:
    left[0] -= parts
    if left[0] < 0:
        raise FileError(f"the description names more than {MOST_PARTS:,} layers")


def _built(description: Description) -> Any:
    if "function" in description:
        return FUNCTIONS[description["function"]]
    name = description["class"]
    if name in MADE:
        parts = {own: _built(part) for own, part in description["parts"].items()}
        return MADE[name](parts, description.get("order"))
    settings = dict(description["settings"])
    if "activations" in settings:
        settings["activations"] = tuple(activation(*each) for each in settings["activations"])
    if name in TIMED:
        return TIMED[name](**settings, init="zeros")
    kind = PLAIN[name][0]
    return kind(**settings, **({"init": "zeros"} if kind in (Linear, Embedding) else {}))
