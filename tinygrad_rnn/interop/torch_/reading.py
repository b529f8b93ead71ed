"""What is in a module of PyTorch's or in a state_dict, and the layers of this package that compute the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
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
from ..files import needed
from ..layers import FUNCTIONS, Final
from ..report import Report
from .names import ACTIVATIONS, CELL_NAMES, PLAIN, Order, row_of, suffixes
from .writing import chain_class

OPTIONS = {option.name for kind in packing.LAYERS.values() for option in fields(kind)} - {
    "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dtype", "init", "rng",
    "reset", "update", "recurrent_bias", "forget_bias", "reverse",
}  # fmt: skip
"""The options of recurrent layers that weights do not settle."""

KINDS = (*packing.CELLS, *CELL_NAMES, *PLAIN, *ACTIVATIONS)
_OF_A_LAYER = re.compile(r"(?:weight|bias)_(?:ih|hh)(_l[0-9]+(?:_reverse)?)")


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


# -- what is in a module of torch's ------------------------------------------------------------------------------


def of_module(module: Any, report: Report) -> tuple[FoundLayers, Order]:
    torch = needed("torch", "from_torch of what is no mapping")
    if not isinstance(module, torch.nn.Module):
        raise ConversionError(f"from_torch takes a torch.nn.Module or its state_dict, not {type(module).__name__}")
    found, order = _inside(torch, module, "", report)
    values = dict(module.named_parameters(remove_duplicate=False))
    values |= dict(module.named_buffers(remove_duplicate=False))
    shared: dict[int, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, own = path.rpartition(".")
        while name not in found and name:
            name, _, before = name.rpartition(".")
            own = f"{before}.{own}"
        if name not in found:
            kind = type(module.get_submodule(path.rpartition(".")[0])).__name__
            raise ConversionError(f"{path} belongs to {kind}, for which there is no layer here")
        found[name].arrays[own] = value
        found[name].frozen |= set() if value.requires_grad else {own}
        shared.setdefault(id(value), {})[path] = found[name].origin
    for origins in shared.values():
        if len(set(map(id, origins.values()))) > 1:
            report.note(f"{' and '.join(origins)} are one array in torch, and one each here: training moves them apart")
    if not found:
        raise ConversionError(f"there is no layer in {type(module).__name__} that is known here; known are "
                              f"{', '.join(KINDS)}")  # fmt: skip
    return found, order


def _inside(torch: Any, module: Any, name: str, report: Report) -> tuple[FoundLayers, Order]:
    """The layers of a module by their paths, and in which order they act, if that is known."""
    if module._forward_hooks or module._forward_pre_hooks:
        report.note(f"{name or type(module).__name__} has hooks, which are Python code and do not travel")
    if (kind := _kind(torch, module)) is not None:
        settings = SETTINGS[kind](module, report) if kind in SETTINGS else {}
        return {name: Found(kind, settings=settings, training=module.training, origin=module)}, [name]
    chain = isinstance(module, chain_class())
    in_order = (torch.nn.Sequential, torch.nn.Identity)
    known = chain or any(isinstance(module, kind) and _unchanged(module, kind) for kind in in_order)
    found: FoundLayers = {}
    order: Order = [] if known else None
    for part, child in module._modules.items():
        inner, inner_order = _inside(torch, child, f"{name}.{part}" if name else part, report)
        found |= inner
        order = None if order is None or inner_order is None else [*order, *inner_order]
    if chain:
        order = [f"{name}.{part}" if name else part for part in module.order]
        for part in module.final:
            found[f"{name}.{part}" if name else part].final = True
    if order is None and not found:
        report.note(f"{name or type(module).__name__} ({type(module).__name__}) is Python code and does not travel")
    return found, order


def _unchanged(module: Any, kind: Any) -> bool:
    return type(module).forward is kind.forward


def _kind(torch: Any, module: Any) -> str | None:
    """What a module is, if it computes what the class of torch's computes that it is of."""
    nn = torch.nn
    for name in (*packing.CELLS, *CELL_NAMES, *PLAIN, "Dropout"):
        if isinstance(module, getattr(nn, name)) and _unchanged(module, getattr(nn, name)):
            return name
    for name, (there, settings) in ACTIVATIONS.items():
        if type(module) is getattr(nn, there) and all(getattr(module, key) == settings[key] for key in settings):
            return name
    return None


def _of_recurrent(module: Any, report: Report) -> dict[str, Any]:
    if module.proj_size:
        raise ConversionError(f"proj_size={module.proj_size} projects the hidden state (weight_hr), which no layer "
                              "here does")  # fmt: skip
    activation = {"activation": module.nonlinearity} if module.mode.startswith("RNN") else {}
    dropout = module.dropout if module.num_layers > 1 else 0.0  # it acts between layers
    return {"batch_first": module.batch_first, "dropout": float(dropout), **activation}


def _of_embedding(module: Any, report: Report) -> dict[str, Any]:
    if module.max_norm is not None:
        raise ConversionError(f"max_norm={module.max_norm} makes torch's Embedding shorten its rows while it runs, "
                              "which the one here does not")  # fmt: skip
    if module.padding_idx is not None:
        report.note(f"padding_idx={module.padding_idx} keeps that row of the Embedding as it is in torch; here it is "
                    "learned like any other")  # fmt: skip
    if module.scale_grad_by_freq:
        report.note("scale_grad_by_freq scales the gradients of torch's Embedding; here they are as they are")
    return {}


def _of_norm(module: Any, report: Report) -> dict[str, Any]:
    if len(module.normalized_shape) != 1:
        raise ConversionError(f"LayerNorm over {tuple(module.normalized_shape)} takes several axes together; the one "
                              "here takes the last")  # fmt: skip
    return {"eps": float(module.eps), "sizes": tuple(module.normalized_shape)}


SETTINGS: dict[str, Callable[[Any, Report], dict[str, Any]]] = {
    **dict.fromkeys(packing.CELLS, _of_recurrent),
    "RNNCell": lambda module, report: {"activation": module.nonlinearity},
    "Embedding": _of_embedding,
    "LayerNorm": _of_norm,
    "Dropout": lambda module, report: {"p": float(module.p)},
}
"""The options of our layer, read off torch's."""


# -- what is in a state_dict -------------------------------------------------------------------------------------


def of_state(state: Mapping[str, Any], kinds: Mapping[str, str | None], report: Report) -> FoundLayers:
    """The layers that the names speak of, in their order; those of layers= that have no arrays come along."""
    found: FoundLayers = {}
    for path, value in state.items():
        if not hasattr(value, "shape"):
            raise ConversionError(f"{path} is of type {type(value).__name__} and no array: from_torch takes the "
                                  "state_dict of a model, and not what else a checkpoint holds")  # fmt: skip
        name, _, own = str(path).rpartition(".")
        found.setdefault(name, Found("")).arrays[own] = value
    if not found:
        raise ConversionError("there is no array in this state_dict")
    for name, kind in kinds.items():
        if kind is not None and kind not in KINDS:
            raise OptionError(f"layers= has {name!r} of kind {kind!r}; choose from {', '.join(KINDS)}")
        if kind in ACTIVATIONS:
            found.setdefault(name, Found(""))
    for name, each in found.items():
        each.kind = kinds.get(name) or _inferred(name, each.arrays, report)
    return found


def _inferred(name: str, arrays: Mapping[str, Any], report: Report) -> str:
    """The kind of a layer by the names and shapes of its arrays.

    Raises: ConversionError, if they fit several, or none.
    """
    where = f"layer {name!r}" if name else "the layer"
    for suffix, ending in (("", "Cell"), ("_l0", "")):
        if f"weight_hh{suffix}" in arrays:
            return f"{_by_blocks(where, arrays[f'weight_hh{suffix}'].shape, ending, report)}{ending}"
    axes = {own: len(array.shape) for own, array in arrays.items()}
    if axes == {"weight": 2, "bias": 1}:
        return "Linear"
    if axes == {"weight": 1, "bias": 1}:
        report.note(f"{where} is taken for a LayerNorm with eps=1e-05, which its arrays do not tell")
        return "LayerNorm"
    example = f"layers={{{name!r}: 'Embedding', ...}}"
    if axes == {"weight": 2}:
        raise ConversionError(f"{where} has a matrix and nothing else: it may be an Embedding, or a Linear without "
                              f"bias. Say which, as in {example}")  # fmt: skip
    have = ", ".join(f"{own} {tuple(array.shape)}" for own, array in arrays.items())
    raise ConversionError(f"{where} has {have}, which is no layer that is known here. Those that are known can be "
                          f"named, as in {example}: {', '.join(KINDS)}")  # fmt: skip


def _by_blocks(where: str, shape: tuple[int, ...], ending: str, report: Report) -> str:
    cell = packing.cell_by_matrix("torch", tuple(shape))
    if cell is None:
        raise ConversionError(f"weight_hh of {where} has shape {tuple(shape)}; (G * H, H) with G = 1, 3 or 4 would be "
                              "that of an RNN, GRU or LSTM, and other shapes are those of none")  # fmt: skip
    kind = packing.name_of(cell)
    options = ["activation='tanh'"] * (kind == "RNN") + ["batch_first=False", "dropout=0.0"] * (not ending)
    if options:
        report.note(f"{where} is taken to have {', '.join(options)}, if you do not say otherwise: arrays do not tell")
    return kind


# -- the layers here ---------------------------------------------------------------------------------------------


def made_here(name: str, found: Found, settings: dict[str, Any], report: Report) -> Any:
    if found.kind in ACTIVATIONS:
        return FUNCTIONS[found.kind]
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


def _array(name: str, value: Any, report: Report) -> Array:
    """An array on the host, of a tensor of torch's or of any array; bfloat16, which NumPy does not have, as float32.

    Raises: ConversionError for a tensor without values; DtypeError.
    """
    narrow = str(getattr(value, "dtype", "")).endswith("bfloat16")
    if narrow:
        report.note(f"{name} was bfloat16, which NumPy does not have, and is float32 now: the same numbers")
    if hasattr(value, "detach") and not isinstance(value, Tensor):
        if value.is_meta:
            raise ConversionError(f"{name} has no values: it lies on torch's device 'meta'")
        value = value.detach().cpu()
        return tensor((value.float() if narrow else value).numpy(), backend="numpy").numpy()
    return tensor(value.astype(np.float32) if narrow else value, backend="numpy").numpy()


def _plain(prefix: str, found: Found, report: Report) -> Module:
    kind, names, empty = PLAIN[found.kind]
    _check_names(prefix, found, names)
    arrays = {name: _array(f"{prefix}{name}", array, report) for name, array in found.arrays.items()}
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
    arrays = {name: _array(f"{owner}{name}", array, report) for name, array in found.arrays.items()}
    cell = packing.unpacked(row, arrays, owner=owner, report=report, to=to, **settings)
    learned = {home for slot in row.slots if slot.name in arrays and slot.name not in found.frozen
               for home in packing.homes(slot, cell)}  # fmt: skip
    for name, parameter in cell.named_parameters():
        parameter.requires_grad = name in learned
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
        if "parametrizations" in name or name.endswith(("_g", "_v", "_orig")):
            raise ConversionError(
                f"{owner}{name} belongs to a parametrization of the weights, which does not travel: write what it "
                "computes into them first, with torch.nn.utils.parametrize.remove_parametrizations or its like"
            )
        have = ", ".join(sorted(known))
        raise ConversionError(f"{owner}{name} is in no place that is known: a {found.kind} of this depth has {have}")
