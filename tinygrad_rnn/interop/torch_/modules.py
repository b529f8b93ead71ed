"""What is in a module of PyTorch's: its layers, and in which order they act, if that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ConversionError
from ...nn import options
from .. import packing
from ..files import needed
from ..layers import Order, acts_as
from ..report import Report
from .found import KINDS, Found, FoundLayers
from .names import ACTIVATIONS, CELL_NAMES, PLAIN
from .writing import chain_class


def of_module(module: Any, report: Report) -> tuple[FoundLayers, Order]:
    torch = needed("torch", "from_torch of what is no mapping")
    options.kind("from_torch", module, torch.nn.Module, words="a torch.nn.Module or its state_dict")
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
    known = chain or acts_as(module, torch.nn.Sequential, torch.nn.Identity)
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


def _kind(torch: Any, module: Any) -> str | None:
    """What a module is, if it computes what the class of torch's computes that it is of."""
    nn = torch.nn
    for name in (*packing.CELLS, *CELL_NAMES, *PLAIN, "Dropout"):
        if acts_as(module, getattr(nn, name)):
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
