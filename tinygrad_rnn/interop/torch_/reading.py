"""`from_torch`: the layers of this package that compute what those of PyTorch's do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ...backend import Array
from ...core.tensor import Tensor, tensor
from ...errors import ConversionError, DtypeError, OptionError, ShapeError
from ...nn.cells import Cell
from ...nn.layers import Dropout, LayerNorm, Linear
from ...nn.module import Module
from ...nn.recurrent import Recurrent
from .. import packing
from ..conventions import Convention
from ..layers import FUNCTIONS, Final, Layers, LayersGiven, given_layers
from ..report import Report
from .found import Found, FoundLayers
from .modules import of_module
from .names import ACTIVATIONS, CELL_NAMES, PLAIN, row_of, suffixes
from .states import kind_and_settings, of_state

OPTIONS = set[str]().union(*map(packing.unsettled, packing.LAYERS.values()))
"""The options of recurrent layers that weights do not settle."""

_OF_A_LAYER = re.compile(r"(?:weight|bias)_(?:ih|hh)(_l[0-9]+(?:_reverse)?)")


def from_torch(
    source: Any, *, layers: LayersGiven | None = None, report: Report | None = None, **settings: Any
) -> Module:  # fmt: skip
    """A model of torch's, or its state_dict, as a layer, a cell or `Layers` of this package, with the same outputs.

    source: an nn.RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear, Embedding, LayerNorm or Dropout, or a module with
        such inside; or a mapping of names to arrays, as in its state_dict, for which torch need not be there.
        One layer by itself becomes one of ours, in torch's own convention (reset="after", update="old"); of several,
        or of one inside another module, it makes `Layers`, by their names. These act in the order of an nn.Sequential;
        the Python code of another module does not travel, and leaves the order open until someone says it.
    layers: the names of the layers in the order in which they act, each with its kind, such as "GRU", "Linear" or
        "tanh", or None, where torch's own names and shapes tell it; or with settings of its own that a state_dict does
        not tell: {"gru": {"kind": "GRU", "batch_first": True}, "norm": {"eps": 1e-3}}. A list of names is enough where
        there is nothing else to say.
    report: takes down what went where.
    settings: options of the recurrent layers, such as activation="relu" or batch_first=True, which a state_dict does
        not tell; left out, they are what they are in torch.

    dtypes stay, but for bfloat16, which becomes float32. What is frozen, or in eval mode, stays so.

    Raises: ConversionError for what has no exact counterpart, by its name; OptionError for what is none of torch's, and
        layers= that do not fit; ShapeError, DtypeError for arrays that do not fit each other; MissingPackage.
    """
    report = Report() if report is None else report
    if unknown := settings.keys() - OPTIONS:
        raise OptionError(f"from_torch has no option {min(unknown)!r}; for recurrent layers there are "
                          f"{', '.join(sorted(OPTIONS))}")  # fmt: skip
    layers = None if layers is None else given_layers(layers)
    if isinstance(source, Mapping):
        found, order, left_out = of_state(source, layers or {}, report), None, list[str]()
    else:
        found, order, left_out = of_module(source, report)
    if layers is not None:
        order = _ordered(found, layers)
    made: dict[str, Any] = {}
    known: dict[int, Any] = {}
    for name, each in found.items():
        general = {option: value for option, value in settings.items() if each.origin or option not in each.settings}
        made[name] = known.get(id(each.origin)) or made_here(name, each, general, report)
        if each.origin is not None:
            known[id(each.origin)] = made[name]
    alone = made[""] if list(made) == [""] else None
    if isinstance(alone, Module):
        return alone
    model = Layers(made, order, left_out=left_out)
    model.training = getattr(source, "training", True)  # that of its layers is theirs
    return model


def _ordered(found: FoundLayers, layers: Mapping[str, Any]) -> list[str]:
    """The order that the user gave, which has to be of all layers that there are."""
    for name, said in layers.items():
        kind, settings = kind_and_settings(name, said)
        if name not in found:
            raise OptionError(f"layers= names {name!r}, and there are {', '.join(map(repr, found))}")
        if settings and found[name].origin is not None:
            raise OptionError(f"layers= gives {min(settings)!r} to {name!r}, and the module itself tells its settings")
        if kind is not None and kind != found[name].kind:
            raise OptionError(f"layers= says that {name!r} is of kind {kind}, but it is of kind {found[name].kind}")
    if left := [name for name in found if name not in layers and found[name].arrays]:
        raise OptionError(f"layers= leaves out {', '.join(map(repr, left))}; name every layer, in the order they act")
    return list(layers)


# -- one layer -------------------------------------------------------------------------------------------------


def made_here(name: str, found: Found, settings: dict[str, Any], report: Report) -> Any:
    if found.kind in ACTIVATIONS:
        return found.settings.get("function", FUNCTIONS[found.kind])
    prefix = f"{name}." if name else ""
    if found.kind == "Dropout":
        made: Module = Dropout(**found.settings)
    elif found.kind in PLAIN:
        made = _plain(prefix, found, report)
    elif found.kind in CELL_NAMES:
        kind = packing.CELLS[CELL_NAMES[found.kind]]
        made = _cell(row_of(kind), prefix, prefix, found, _own(kind, found.settings | settings), report)
    else:
        made = _recurrent(prefix, found, settings, report)
    return (Final(made) if found.final and isinstance(made, Recurrent) else made).train(found.training)


def _own(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a kind of cell or layer has."""
    return {each.name: settings[each.name] for each in fields(kind) if each.name in settings}


def _array(owner: str, name: str, value: Any, report: Report) -> Array:
    """An array on the host, of a tensor of torch's or of any array; bfloat16, which NumPy does not have, as float32.

    owner: what goes before its name in messages.

    Raises: ConversionError for a tensor without values, a sparse or a quantised one; DtypeError.
    """
    dtype = str(getattr(value, "dtype", ""))
    narrow = dtype.endswith("bfloat16")
    if narrow:
        layer = owner.removesuffix(".") or "the layer"
        report.note(f"{layer} was of bfloat16, which NumPy does not have, and is of float32 now: the same numbers")
    if hasattr(value, "detach") and not isinstance(value, Tensor):
        if value.is_meta:
            raise ConversionError(f"{owner}{name} has no values: it lies on torch's device 'meta'")
        if value.is_quantized or not str(value.layout).endswith("strided"):
            form, remedy = ("quantised", "dequantize()") if value.is_quantized else ("sparse", "to_dense()")
            raise ConversionError(f"{owner}{name} is {form} ({dtype}, {value.layout}), and arrays here hold every "
                                  f"number: convert what {remedy} makes of it")  # fmt: skip
        value = value.detach().cpu()
        try:
            value = (value.float() if narrow else value).numpy()
        except TypeError:
            raise DtypeError(f"{owner}{name} is {dtype}, which NumPy does not have: convert what .float() makes of "
                             "it") from None  # fmt: skip
        narrow = False
    return tensor(value.astype(np.float32) if narrow else value, backend="numpy").numpy()


def _plain(prefix: str, found: Found, report: Report) -> Module:
    kind, names, empty = PLAIN[found.kind]
    _check_names(prefix, found, names)
    arrays = {name: _array(prefix, name, array, report) for name, array in found.arrays.items()}
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1:
        raise DtypeError(f"the arrays of {prefix or found.kind} are of different dtypes, {', '.join(map(str, dtypes))}")
    settings = empty | found.settings | ({"dtype": dtypes.pop()} if dtypes else {})
    sizes = settings.pop("sizes", None) or arrays["weight"].shape[:: -1 if kind is Linear else 1]
    if len(sizes) != (1 if kind is LayerNorm else 2):
        raise ShapeError(f"{prefix}weight has shape {tuple(sizes)}, which is not that of a {found.kind}")
    made: Module = kind(*sizes, **settings, **({"bias": "bias" in arrays} if kind is Linear else {}))
    for theirs, ours in names.items():
        own: Tensor | None = getattr(made, ours)
        if own is not None:
            own.requires_grad = theirs in arrays and theirs not in found.frozen
        if own is not None and theirs in arrays:
            array = arrays[theirs].T if kind is Linear else arrays[theirs]
            if array.shape != own.shape:
                raise ShapeError(f"{prefix}{theirs} has shape {array.shape}; beside the weight, {own.shape} would fit")
            own.assign_(array)
            how = "transposed" if kind is Linear and array.ndim == 2 else ""
            report.add(f"{prefix}{theirs}", arrays[theirs].shape, f"{prefix}{ours}", own.shape, how)
    return made


def _cell(
    row: Convention, owner: str, to: str, found: Found, settings: dict[str, Any], report: Report
) -> Cell:  # fmt: skip
    """One cell, of all the arrays that were found for it."""
    _check_names(owner, found, {slot.name for slot in row.slots})
    arrays = {name: _array(owner, name, array, report) for name, array in found.arrays.items()}
    cell = packing.unpacked(row, arrays, owner=owner, report=report, to=to, **settings)
    learned = {home for slot in row.slots if slot.name in arrays and slot.name not in found.frozen
               for home in packing.homes(slot, cell)}  # fmt: skip
    for name, parameter in cell.named_parameters():
        parameter.requires_grad = name in learned
    for name in sorted(found.frozen & arrays.keys()):
        slot = next(slot for slot in row.slots if slot.name == name)
        if met := [home for home in packing.homes(slot, cell) if home in learned]:
            report.note(f"{owner}{name} is frozen in torch, and part of what is {to}{' and '.join(met)} here, which is "
                        "learned: freeze it there again when it goes back")  # fmt: skip
    return cell


def _recurrent(prefix: str, found: Found, settings: dict[str, Any], report: Report) -> Recurrent:
    kind = packing.CELLS[found.kind]
    there = {match[1] for match in map(_OF_A_LAYER.fullmatch, found.arrays) if match}
    bidirectional = any(suffix.endswith("_reverse") for suffix in there)
    layers = max(1, len(there) // (1 + bidirectional))
    rows = [row_of(kind, suffix) for suffix in suffixes(layers, bidirectional)]
    _check_names(prefix, found, {slot.name for row in rows for slot in row.slots})
    settings = _own(packing.LAYERS[kind], found.settings | settings)
    cells = []
    for place, row in enumerate(rows):
        arrays = {slot.name: found.arrays[slot.name] for slot in row.slots if slot.name in found.arrays}
        to = f"{prefix}cells.{place}."
        cells.append(_cell(row, prefix, to, replace(found, arrays=arrays), _own(kind, settings), report))
    return packing.layer_of(cells, **{"bidirectional": bidirectional} | settings)


def _check_names(owner: str, found: Found, known: Collection[str]) -> None:
    """Nothing is left out without a word."""
    for name in sorted(found.arrays.keys() - known):
        if "weight_hr" in name:
            raise ConversionError(f"{owner}{name} is a projection of the hidden state (proj_size), which no layer here "
                                  "has")  # fmt: skip
        if "parametrizations" in name or name.endswith(("_g", "_v", "_orig", "_mask")):
            raise ConversionError(
                f"{owner}{name} belongs to a parametrization of the weights, which does not travel: write what it "
                "computes into them first, with torch.nn.utils.parametrize.remove_parametrizations, "
                "torch.nn.utils.prune.remove or their like"
            )
        have = ", ".join(sorted(known))
        raise ConversionError(f"{owner}{name} is in no place that is known: a {found.kind} of this depth has {have}")
