"""`to_torch`, `torch_state`: layers of this package as PyTorch's, with the same weights; their arrays by its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from ...backend import Array
from ...core.tensor import Tensor
from ...errors import ConversionError, OptionError
from ...nn import options
from ...nn.cells import Cell, MinimalGRUCell, RNNCell
from ...nn.layers import Dropout, Embedding, LayerNorm, Linear
from ...nn.module import Module
from ...nn.recurrent import LSTM, Recurrent
from .. import packing
from ..cells import Activation
from ..conventions import Convention
from ..files import needed
from ..layers import FUNCTIONS, Final, Layers, Order, acts_as, parts_of
from ..report import Report
from .names import ACTIVATIONS, PLAIN, SLOPES, row_of, suffixes

KINDS = (Recurrent, LSTM, Cell, Linear, Embedding, LayerNorm, Dropout, Final)
"""The layers that have a counterpart."""

State = dict[str, tuple[Array, bool]]
"""Arrays by torch's names, each with whether it is learned."""


def to_torch(module: Module, *, report: Report | None = None) -> Any:
    """A torch module with the same outputs as this one.

    module: RNN, GRU with reset="after", LSTM, MinimalGRU (as a GRU whose reset gate is held open), their cells,
        Linear, Embedding, LayerNorm, Dropout; or Layers, Sequential or LanguageModel of such. These become a module
        that sends x through its layers in their order, where a recurrent layer hands on its outputs, or in the place
        of a `Final` the last one.
    report: takes down what went where.

    dtypes, frozen parameters and eval mode are kept.

    Raises: ConversionError for what torch cannot compute, with the reason; OptionError for what is no module, and
        Layers whose order is not known; MissingPackage.
    """
    options.kind("to_torch", module, Module)
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
    if order is None and isinstance(module, Layers) and acts_as(module, Layers):
        raise OptionError(f"{module.without_order()}, or load torch_state(model) into a torch module of yours")
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

    Raises: ConversionError for what torch cannot compute, with the reason; OptionError for what is no module.
    """
    options.kind("torch_state", module, Module)
    report = Report() if report is None else report
    state: dict[str, Array] = {}
    for name, leaf in leaves_of(module)[0].items():
        prefix = f"{name}." if name else ""
        state |= {f"{prefix}{own}": array for own, (array, _) in state_of(leaf, prefix, report).items()}
        if untold := _untold(leaf.layer if isinstance(leaf, Final) else leaf):
            report.note(f"a state_dict does not hold {', '.join(untold)}{f' of {name}' if name else ''}: give that to "
                        "the module there, or to from_torch with layers=")  # fmt: skip
    report.note_frozen(module, "a state_dict")
    return state


def _untold(leaf: Any) -> list[str]:
    """The settings of a layer that its arrays do not tell, where they are not what everybody takes for granted."""
    usual = {"batch_first": False, "dropout": 0.0, "activation": "tanh"}
    usual |= {"eps": 1e-5} if isinstance(leaf, LayerNorm) else {}
    found = {name: getattr(leaf, name, value) for name, value in usual.items()}
    return [f"{name}={value!r}" for name, value in found.items() if value != usual[name]]


# -- what a module holds ----------------------------------------------------------------------------------------


def leaves_of(module: Any, name: str = "") -> tuple[dict[str, Any], Order]:
    """The layers of a module that have a counterpart, by their paths, and in which order they act, if that is known."""
    if isinstance(module, Final):
        name = name or "layer"  # alone, it becomes a chain of one
    if isinstance(module, KINDS) and not acts_as(module, *KINDS):
        raise ConversionError(f"{type(module).__name__} has a forward of its own, which does not travel")
    if isinstance(module, (*KINDS, Activation)) or module in FUNCTIONS.values():
        return {name: module}, [name]
    parts, order = _inside(module)
    found: dict[str, Any] = {}
    inner: dict[str, Order] = {}
    for own, part in parts.items():
        leaves, inner[own] = leaves_of(part, f"{name}.{own}" if name else own)
        found |= leaves
    if order is None or any(inner[own] is None for own in order):
        return found, None
    return found, [path for own in order for path in inner[own] or ()]


def _inside(module: Any) -> tuple[dict[str, Any], Order]:
    if (known := parts_of(module)) is not None:
        return known.layers, known.order
    if not isinstance(module, Module):
        raise ConversionError(f"{getattr(module, '__name__', type(module).__name__)} is Python code, which does not "
                              "travel")  # fmt: skip
    parts = dict(_topmost(module))
    for path in module.state_dict():
        if not any(path.startswith(f"{name}.") for name in parts):
            raise ConversionError(f"{path} of {type(module).__name__} is in no layer that torch has")
    return parts, None


def _topmost(module: Module) -> Iterator[tuple[str, Module]]:
    """The modules right inside of one."""
    paths: list[str] = []
    for path, part in module.named_modules():
        if path and not any(path.startswith(f"{upper}.") for upper in paths):
            paths.append(path)
            yield path, part


def state_of(leaf: Any, prefix: str, report: Report) -> State:
    """The arrays of one layer, under its own names there; prefix: what goes before them in the report.

    Raises: ConversionError with the reason, if torch cannot compute what the layer computes.
    """
    if isinstance(leaf, Final):
        return state_of(leaf.layer, prefix, report)
    if isinstance(leaf, Recurrent):
        return _state_of_layer(leaf, prefix, report)
    if isinstance(leaf, Cell):
        return _state_of_cell(leaf, row_of(packing.kind_of(leaf)), prefix, prefix, report)
    names = next((names for kind, names, _ in PLAIN.values() if isinstance(leaf, kind)), {})
    state: State = {}
    for theirs, ours in names.items():
        own: Tensor | None = getattr(leaf, ours, None)
        if own is not None:
            array = np.array(own.numpy().T if isinstance(leaf, Linear) else own.numpy(), order="C")
            state[theirs] = array, own.requires_grad
            how = "transposed" if isinstance(leaf, Linear) and array.ndim == 2 else ""
            report.add(f"{prefix}{ours}", own.shape, f"{prefix}{theirs}", array.shape, how)
    return state


def _state_of_cell(cell: Cell, row: Convention, owner: str, to: str, report: Report) -> State:
    arrays = packing.packed(cell, row, owner=owner, report=report, to=to)
    if isinstance(cell, MinimalGRUCell):
        report.note("torch has no simplified GRU: the reset gate is held open by a bias, and training there moves it")
    learned = {slot.name: [getattr(cell, home).requires_grad for home in packing.homes(slot, cell)]
               for slot in row.slots}  # fmt: skip
    for name in arrays:
        if any(learned[name]) and not all(learned[name]):
            report.note(f"{to}{name} is learned there, since part of it is learned here, and part is frozen")
    return {name: (array, any(learned[name])) for name, array in arrays.items()}


def _state_of_layer(layer: Recurrent, prefix: str, report: Report) -> State:
    if layer.reverse:
        raise ConversionError("torch has no recurrent layer that walks in reverse alone (reverse=True), only both "
                              "directions together: turn x yourself, and the outputs back")  # fmt: skip
    state: State = {}
    for place, (cell, suffix) in enumerate(zip(layer.cells, suffixes(layer.num_layers, layer.bidirectional))):
        row = row_of(packing.kind_of(cell), suffix)
        state |= _state_of_cell(cell, row, f"{prefix}cells.{place}.", prefix, report)
    return state


def made_there(torch: Any, leaf: Any, prefix: str, report: Report) -> Any:
    """One layer there, with the values of ours."""
    if isinstance(leaf, Activation) or leaf in FUNCTIONS.values():
        return _activation(torch, leaf)
    state = state_of(leaf, prefix, report)
    layer = leaf.layer if isinstance(leaf, Final) else leaf
    with torch.random.fork_rng(devices=[]):  # whoever seeded torch finds its generator as it was
        made = _empty(torch, layer, state)
    made.load_state_dict({name: torch.from_numpy(array) for name, (array, _) in state.items()})
    for name, parameter in made.named_parameters():
        parameter.requires_grad = state[name][1]
    return made.train(layer.training)


def _activation(torch: Any, function: Any) -> Any:
    own = function.name if isinstance(function, Activation) else function.__name__
    known = next((each for each, other in SLOPES.items() if other == own), own.lower())
    if known not in ACTIVATIONS:
        raise ConversionError(
            f"{function if isinstance(function, Activation) else own} has no module in torch that computes the same"
        )
    name, settings = ACTIVATIONS[known]
    if isinstance(function, Activation):
        settings = dict.fromkeys(settings, function.alpha)
    return getattr(torch.nn, name)(**settings)


def _empty(torch: Any, layer: Any, state: State) -> Any:
    """A layer there of the same form; its values are still to come."""
    nn = torch.nn
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.p)
    dtype = getattr(torch, str(next(iter(state.values()))[0].dtype))
    if isinstance(layer, Linear):
        return nn.Linear(layer.input_size, layer.output_size, bias="bias" in state, dtype=dtype)
    if isinstance(layer, Embedding):
        return nn.Embedding(layer.symbols, layer.size, dtype=dtype)
    if isinstance(layer, LayerNorm):
        return nn.LayerNorm(layer.size, eps=layer.eps, dtype=dtype)
    cell = layer.cells[0] if isinstance(layer, Recurrent) else layer
    name = packing.name_of(cell)
    settings: dict[str, Any] = {"bias": any(each.startswith("bias") for each in state), "dtype": dtype}
    if isinstance(cell, RNNCell):
        settings["nonlinearity"] = cell.activation
    if not isinstance(layer, Recurrent):
        return getattr(nn, f"{name}Cell")(layer.input_size, layer.hidden_size, **settings)
    settings |= {each: getattr(layer, each) for each in ("num_layers", "batch_first", "dropout", "bidirectional")}
    return getattr(nn, name)(layer.input_size, layer.hidden_size, **settings)


@cache
def chain_class() -> Any:
    """The class of torch modules that send x through layers; made when it is first needed, as torch is."""
    torch = needed("torch", "a chain of torch modules")

    class Chain(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Layers one after another; recurrent ones hand on their outputs, those of `final` the last one."""

        def __init__(self, layers: Mapping[str, Any], order: Iterable[str], final: Iterable[str]) -> None:
            super().__init__()
            self.order, self.final = list(order), set(final)
            for path, layer in layers.items():
                *above, name = path.split(".")
                holder = self
                for each in above:
                    if each not in holder._modules:
                        holder.add_module(each, torch.nn.Module())
                    holder = holder._modules[each]
                holder.add_module(name, layer)

        def forward(self, x: Any) -> Any:
            for name in self.order:
                layer = self.get_submodule(name)
                x = layer(x)
                if isinstance(layer, torch.nn.RNNBase):
                    output, state = x
                    h_n = state[0] if isinstance(state, tuple) else state
                    last = list(h_n[-2:] if layer.bidirectional else h_n[-1:])
                    x = torch.cat(last, dim=-1) if name in self.final else output
            return x

    return Chain
