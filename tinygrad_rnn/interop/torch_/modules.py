"""What is in a module of PyTorch's: its layers, and in which order they act, if that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ConversionError
from ...nn import options
from .. import packing
from ..cells import activation
from ..files import needed
from ..layers import Order, acts_as
from ..report import Report
from .found import KINDS, Found, FoundLayers
from .names import ACTIVATIONS, CELL_NAMES, PLAIN, SLOPES
from .writing import chain_class


def of_module(module: Any, report: Report) -> tuple[FoundLayers, Order, list[str]]:
    """The layers of a module by their paths; in which order they act, if that is known; and what was left out."""
    torch = needed("torch", "from_torch of what is no mapping")
    options.kind("from_torch", module, torch.nn.Module, words="a torch.nn.Module or its state_dict")
    left_out: list[str] = []
    found, order = _inside(torch, module, "", report, left_out)
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
    return found, order, left_out


def _inside(
    torch: Any, module: Any, name: str, report: Report, left_out: list[str]
) -> tuple[FoundLayers, Order]:  # fmt: skip
    """The layers of a module by their paths, and in which order they act, if that is known."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(f"{name or 'the module'} was compiled by torch.jit, and does not say what it is: convert "
                              "the module that it was made of, or its state_dict")  # fmt: skip
    if any(map(torch.nn.parameter.is_lazy, module._parameters.values())):
        raise ConversionError(
            f"{name or type(module).__name__} has no weights yet: call the model once, which makes them"
        )
    kind = _kind(torch, module)
    chain = isinstance(module, chain_class())
    compiled = type(module).__module__ == "torch._dynamo.eval_frame"  # by torch.compile, around what it computes
    known = chain or compiled or acts_as(module, torch.nn.Sequential, torch.nn.Identity)
    if not compiled and (code := _code_on(module)):
        what = f"{name} ({type(module).__name__})" if name else type(module).__name__
        if kind is not None or known or type(module).__module__.startswith("torch."):
            raise ConversionError(
                f"{what} has {code}, which is Python code that changes what it computes, and does not travel: take it "
                "off first, as torch.nn.utils.prune.remove and remove_weight_norm do with theirs"
            )
        report.note(f"{what} has {code}, which is Python code and does not travel")
    if kind is not None:
        settings = SETTINGS[kind](module, report) if kind in SETTINGS else {}
        if kind in SLOPES and not _is_ours(module, kind):
            settings = {"function": activation(SLOPES[kind], getattr(module, next(iter(ACTIVATIONS[kind][1]))))}
        return {name: Found(kind, settings=settings, training=module.training, origin=module)}, [name]
    found: FoundLayers = {}
    order: Order = [] if known else None
    for part, child in module._modules.items():
        inner, inner_order = _inside(torch, child, f"{name}.{part}" if name else part, report, left_out)
        found |= inner
        order = None if order is None or inner_order is None else [*order, *inner_order]
    if chain:
        order = [f"{name}.{part}" if name else part for part in module.order]
        for part in module.final:
            found[f"{name}.{part}" if name else part].final = True
    if order is None and not found:
        left_out.append(f"{name or type(module).__name__} ({type(module).__name__})")
        report.note(f"{left_out[-1]} has no counterpart here and was left out")
    return found, order


def _code_on(module: Any) -> str:
    """What hangs on a module of torch's and has a say in its outputs, beside its class, in words; "" for nothing."""
    if hooks := [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]:
        words = (getattr(each, "__name__", type(each).__name__) for each in hooks)
        return f"the hook{'s' * (len(hooks) > 1)} {', '.join(words)}"
    return "a forward of its own" if vars(module).keys() & {"forward", "_call_impl"} else ""


def _kind(torch: Any, module: Any) -> str | None:
    """What a module is, if it computes what the class of torch's computes that it is of."""
    nn = torch.nn
    for name in (*packing.CELLS, *CELL_NAMES, *PLAIN, "Dropout"):
        if acts_as(module, getattr(nn, name)):
            return name
    for name, (there, _) in ACTIVATIONS.items():
        if type(module) is getattr(nn, there) and (name in SLOPES or _is_ours(module, name)):
            return name
    return None


def _is_ours(module: Any, name: str) -> bool:
    """Whether a function has the settings with which it computes ours."""
    return all(getattr(module, key) == value for key, value in ACTIVATIONS[name][1].items())


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
