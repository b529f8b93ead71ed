"""Layers and models to and from PyTorch; the names of its state_dicts are read and written without it, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...backend import Array
from ...errors import ConversionError, OptionError
from ...nn.module import Module
from ..files import needed
from ..layers import Final, Layers
from ..report import Report
from .reading import OPTIONS, FoundLayers, made_here, of_module, of_state
from .writing import chain_class, leaves_of, made_there, state_of


def from_torch(
    source: Any, *, layers: Mapping[str, str | None] | None = None, report: Report | None = None, **settings: Any
) -> Any:  # fmt: skip
    """A model of torch's, or its state_dict, as a layer, a cell or `Layers` of this package, with the same outputs.

    source: an nn.RNN, GRU, LSTM, RNNCell, GRUCell, LSTMCell, Linear, Embedding, LayerNorm or Dropout, or a module with
        such inside; or a mapping of names to arrays, as in its state_dict, for which torch need not be there.
        One layer by itself becomes one of ours, in torch's own convention (reset="after", update="old"); of several,
        or of one inside another module, it makes `Layers`, by their names. These act in the order of an nn.Sequential;
        the Python code of another module does not travel, and leaves the order open until someone says it.
    layers: the names of the layers in the order in which they act, each with its kind, such as "GRU", "Linear" or
        "tanh", or None, where torch's own names and shapes tell it.
    report: takes down what went where.
    settings: options of the recurrent layers, such as activation="relu" or batch_first=True, which a state_dict does
        not tell; left out, they are what they are in torch.

    dtypes stay, but for bfloat16, which becomes float32. What is frozen, or in eval mode, stays so.

    Raises: ConversionError for what has no exact counterpart, by its name; OptionError for layers= that do not fit;
        ShapeError, DtypeError for arrays that do not fit each other; MissingPackage.
    """
    report = Report() if report is None else report
    if unknown := settings.keys() - OPTIONS:
        raise OptionError(f"from_torch has no option {min(unknown)!r}; for recurrent layers there are "
                          f"{', '.join(sorted(OPTIONS))}")  # fmt: skip
    if isinstance(source, Mapping):
        found, order = of_state(source, layers or {}, report), None
    else:
        found, order = of_module(source, report)
    if layers is not None:
        order = _ordered(found, layers)
    made: dict[str, Any] = {}
    known: dict[int, Any] = {}
    for name, each in found.items():
        made[name] = known.get(id(each.origin)) or made_here(name, each, settings, report)
        if each.origin is not None:
            known[id(each.origin)] = made[name]
    if list(made) == [""]:
        return made[""]
    model = Layers(made, order)
    model.training = getattr(source, "training", True)  # that of its layers is theirs
    return model


def _ordered(found: FoundLayers, layers: Mapping[str, str | None]) -> list[str]:
    """The order that the user gave, which has to be of all layers that there are."""
    for name, kind in layers.items():
        if name not in found:
            raise OptionError(f"layers= names {name!r}, and there are {', '.join(map(repr, found))}")
        if kind is not None and kind != found[name].kind:
            raise OptionError(f"layers= says that {name!r} is of kind {kind}, but it is of kind {found[name].kind}")
    if left := [name for name in found if name not in layers and found[name].arrays]:
        raise OptionError(f"layers= leaves out {', '.join(map(repr, left))}; name every layer, in the order they act")
    return list(layers)


def to_torch(module: Module, *, report: Report | None = None) -> Any:
    """A torch module with the same outputs as this one.

    module: RNN, GRU with reset="after", LSTM, MinimalGRU (as a GRU whose reset gate is held open), their cells,
        Linear, Embedding, LayerNorm, Dropout; or Layers, Sequential or LanguageModel of such. These become a module
        that sends x through its layers in their order, where a recurrent layer hands on its outputs, or in the place
        of a `Final` the last one.
    report: takes down what went where.

    dtypes, frozen parameters and eval mode are kept.

    Raises: ConversionError for what torch cannot compute, with the reason; OptionError for Layers whose order is not
        known; MissingPackage.
    """
    torch = needed("torch", "to_torch")
    report = Report() if report is None else report
    leaves, order = leaves_of(module)
    made: dict[str, Any] = {}
    known: dict[int, Any] = {}
    for name, leaf in leaves.items():
        if id(leaf) not in known:
            known[id(leaf)] = made_there(torch, leaf, f"{name}." if name else "", report)
        made[name] = known[id(leaf)]
    if list(made) == [""]:
        return made[""]
    if order is None and isinstance(module, Layers):
        raise OptionError("the order of these Layers is not known: say it, as in model.order = ['embedding', 'gru']; "
                          "or load torch_state(model) into a torch module of yours")  # fmt: skip
    if order is None:
        raise ConversionError(f"{type(module).__name__} is Python code, which does not travel: write it as a "
                              "torch.nn.Module and load torch_state(model) into that")  # fmt: skip
    final = {name for name, leaf in leaves.items() if isinstance(leaf, Final)}
    chain = chain_class()(made, order, final).train(module.training)
    for name, leaf in leaves.items():
        made[name].train(getattr(leaf, "training", module.training))
    return chain


def torch_state(module: Module, *, report: Report | None = None) -> dict[str, Array]:
    """The arrays of a module by the names that torch has for them in a state_dict; torch need not be there.

    module: as in `to_torch`, or any module that holds all its weights in such layers.
    report: takes down what went where.

    Raises: ConversionError for what torch cannot compute, with the reason.
    """
    report = Report() if report is None else report
    state: dict[str, Array] = {}
    for name, leaf in leaves_of(module)[0].items():
        prefix = f"{name}." if name else ""
        state |= {f"{prefix}{own}": array for own, (array, _) in state_of(leaf, prefix, report).items()}
    return state
