"""How a model is called: with which inputs, which of their axes may change, and what its outputs are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import Array, as_array
from ..core.tensor import Tensor
from ..errors import OptionError
from ..nn import options
from ..nn.cells import Cell
from ..nn.layers import Embedding, LayerNorm, Linear
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..train.model import LanguageModel
from .layers import parts_of

Dynamic = Mapping[str, Mapping[int, str]]
"""By input and axis the name of a length that may change."""

STEPS, SEQUENCES = 5, 3
"""T and N of the example that is made where nobody gives one."""
BESIDE: Dynamic = {"h_0": {1: "N"}, "c_0": {1: "N"}, "lengths": {0: "N"}}
"""The axes that may change of what recurrent layers take beside their sequences."""


@dataclass
class Usage:
    """One way to call a model.

    call: takes the inputs by name. inputs: examples of them. dynamic: which of their axes may change.
    outputs: what these are called, or () if nobody knows better.
    """

    call: Callable[[dict[str, Any]], Any]
    inputs: dict[str, Array]
    dynamic: Dynamic = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def use_of(
    model: Any, inputs: Mapping[str, Any] | Sequence[Any] | None = None, dynamic: Dynamic | None = None, *,
    states: bool = False, lengths: bool = False,
) -> Usage:  # fmt: skip
    """A module or function with its inputs.

    inputs: examples, by name or in order; None, where they follow from the model. dynamic: None is T and N, where they
        could, else nothing. states: with the initial states. lengths: with lengths (N).

    Raises: OptionError.
    """
    use = _usual(model) if inputs is None else _given(model, inputs)
    if use is None:
        raise OptionError(
            f"what goes into {getattr(model, '__name__', type(model).__name__)} is not known; give inputs=, example "
            'arrays by name or in order, and dynamic=, as in dynamic={"x": {0: "T", 1: "N"}}'
        )
    recurrent = _recurrent_in(model)
    batch = 0 if recurrent is not None and recurrent.batch_first else 1
    if states:
        _add_states(use, model, batch)
    if lengths:
        _add_lengths(use, model, batch)
    use.dynamic = {name: axes for name, axes in _checked(use, dynamic).items() if axes}
    return use


# -- where the inputs are given ----------------------------------------------------------------------------------


def _given(model: Any, inputs: Any) -> Usage:
    """A model with inputs that somebody gives: of its usual ones, only what fits these is taken over."""
    if isinstance(inputs, Mapping):
        examples, order = dict(inputs), []
    else:
        found = [inputs] if hasattr(inputs, "shape") else inputs
        options.kind("inputs=", found, list, tuple, words="example arrays by name or in order")
        order = _parameters(model, len(found))
        examples = dict(zip(order, found))
    if not examples:
        raise OptionError("inputs is empty; give an example array for each argument of the model")

    def call(given: dict[str, Any]) -> Any:
        return model(*[given[name] for name in order], **{name: given[name] for name in given.keys() - set(order)})

    use, usual = Usage(call, {name: as_array(x, "numpy") for name, x in examples.items()}), _usual(model)
    if usual is not None:
        use.dynamic, use.outputs = _fitting(usual, use.inputs, _recurrent_in(model)), usual.outputs
    return use


def _fitting(usual: Usage, inputs: Mapping[str, Array], recurrent: Recurrent | None) -> Dynamic:
    """The axes that may change of those inputs that are called as is usual, and have as many axes."""
    alike = {name for name, x in usual.inputs.items() if name in inputs and x.ndim == inputs[name].ndim}
    beside = BESIDE if alike and recurrent is not None else {}
    return {name: axes for name, axes in {**beside, **usual.dynamic}.items()
            if name in alike or (name in beside and name in inputs)}  # fmt: skip


def _parameters(model: Any, count: int) -> list[str]:
    """The names of a model's first arguments."""
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [name for name, kind in _signature(model).items() if kind in places]
    return [found[i] if i < len(found) else f"input_{i}" for i in range(count)]


def _signature(model: Any) -> dict[str, Any]:
    """The arguments of a model, each with its kind."""
    function = model.forward if isinstance(model, Module) else model
    try:
        return {name: each.kind for name, each in inspect.signature(function).parameters.items()}
    except (TypeError, ValueError):
        return {}


# -- where they follow from the model ----------------------------------------------------------------------------


def _usual(model: Any) -> Usage | None:
    """How a model is called that nobody gives inputs for; None, if that is not known."""
    if isinstance(model, Cell):
        return _cell(model)
    if hasattr(model, "example_usage"):  # a model that knows itself, such as a graph of ONNX
        found: Usage | None = model.example_usage()
        return found
    recurrent = _recurrent_in(model)
    first = _met_first(model, recurrent)
    if first is None:
        return None
    name, array, axes = first
    outputs: tuple[str, ...] = ()
    if isinstance(model, (Recurrent, LanguageModel)) and recurrent is not None:
        last = [f"{state}_n" for state in recurrent.cell_type.states]
        outputs = ("logits" if isinstance(model, LanguageModel) else "output", *last)
    call = lambda given: model(given[name], **{other: x for other, x in given.items() if other != name})  # noqa: E731
    return Usage(call, {name: array}, {name: dict(enumerate(axes))}, outputs)


def _cell(cell: Cell) -> Usage:
    """x (N, I) and the states (N, H) -> the states after it."""
    inputs = {"x": _drawn(cell.W, SEQUENCES, cell.input_size)}
    inputs |= {name: _drawn(cell.W, SEQUENCES, cell.hidden_size) for name in cell.states}

    def call(given: dict[str, Any]) -> Any:
        state = tuple([given[name] for name in cell.states])
        return cell(given["x"], state if len(state) > 1 else state[0])

    return Usage(call, inputs, {name: {0: "N"} for name in inputs}, tuple([f"{name}_next" for name in cell.states]))


def _drawn(beside: Tensor, *shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(beside.dtype)


def _met_first(model: Any, recurrent: Recurrent | None) -> tuple[str, Array, tuple[str, ...]] | None:
    """The only input of a model: its name, an example, and the names of its leading axes; None, if it is not known."""
    first = _first_in(model)
    lead, axes = (STEPS, SEQUENCES), ("T", "N")
    if recurrent is not None and recurrent.batch_first:
        lead, axes = lead[::-1], axes[::-1]
    if isinstance(first, Embedding):
        return "ids", np.random.default_rng(0).integers(0, first.symbols, lead), axes
    if isinstance(first, Recurrent):
        return "x", _drawn(first.cells[0].W, *lead, first.input_size), axes
    if isinstance(first, (Linear, LayerNorm)):
        weight, size = (first.W, first.input_size) if isinstance(first, Linear) else (first.gain, first.size)
        if recurrent is None:
            return "x", _drawn(weight, SEQUENCES, size), ("N",)
        return "x", _drawn(weight, *lead, size), axes
    return None


def _first_in(model: Any) -> Any:
    """What the input of a model meets first, functions aside."""
    parts = parts_of(model)
    layers = [parts.layers[name] for name in parts.order] if parts is not None and parts.order else []
    inner = next((each for each in layers if isinstance(each, Module)), None)
    return model if inner is None else _first_in(inner)


def _recurrent_in(model: Any) -> Recurrent | None:
    """The first recurrent layer of a model."""
    modules = [each for _, each in model.named_modules()] if isinstance(model, Module) else []
    return next((each for each in modules if isinstance(each, Recurrent)), None)


# -- further inputs ----------------------------------------------------------------------------------------------


def _batch(use: Usage, axis: int) -> tuple[int, str | None]:
    """N, and what it is called if it may change."""
    name, first = next(iter(use.inputs.items()))
    return first.shape[axis], use.dynamic.get(name, {}).get(axis)


def _add_states(use: Usage, model: Any, axis: int) -> None:
    layer = model.recurrent if isinstance(model, LanguageModel) else model
    if not isinstance(layer, Recurrent):
        raise OptionError(f"states=True is for recurrent layers and LanguageModel, not {type(model).__name__}")
    (N, letter), inner = _batch(use, axis), use.call
    names = [f"{state}_0" for state in layer.cell_type.states]
    for name in names:
        use.inputs[name] = _drawn(layer.cells[0].W, len(layer.cells), N, layer.hidden_size)
        use.dynamic = {**use.dynamic, name: {1: letter} if letter else {}}

    def call(given: dict[str, Any]) -> Any:
        initial = tuple([given[name] for name in names])
        rest = {name: x for name, x in given.items() if name not in names}
        argument = "state" if isinstance(model, LanguageModel) else "h_0"
        return inner(rest | {argument: initial if len(initial) > 1 else initial[0]})

    use.call = call


def _add_lengths(use: Usage, model: Any, axis: int) -> None:
    known = _signature(model)
    if "lengths" not in known and inspect.Parameter.VAR_KEYWORD not in known.values():
        raise OptionError(f"lengths=True is for models that take lengths=, which {type(model).__name__} does not")
    T, (N, letter) = next(iter(use.inputs.values())).shape[1 - axis], _batch(use, axis)
    use.inputs["lengths"] = np.linspace(T, 0, N).astype(np.int32)
    use.dynamic = {**use.dynamic, "lengths": {0: letter} if letter else {}}


def _checked(use: Usage, dynamic: Dynamic | None) -> Dynamic:
    """What the user says of the axes that may change, or what follows from the model.

    Raises: OptionError.
    """
    found = use.dynamic if dynamic is None else dynamic
    for each in [found, *found.values()] if isinstance(found, Mapping) else [found]:
        options.kind("dynamic=", each, Mapping, words='the axes by input, as in {"x": {0: "T"}}')
    lengths: dict[str, int] = {}
    for name, axes in found.items():
        if name not in use.inputs:
            raise OptionError(f"dynamic speaks of {name!r}, and the inputs are {', '.join(use.inputs)}")
        shape = use.inputs[name].shape
        for axis, letter in axes.items():
            if axis not in range(len(shape)) or not (isinstance(letter, str) and letter.isidentifier()):
                raise OptionError(f"dynamic has {axis!r}: {letter!r} for {name} of shape {shape}; it takes the "
                                  "number of an axis, from 0, and a name for its length")  # fmt: skip
            if lengths.setdefault(letter, shape[axis]) != shape[axis]:
                raise OptionError(f"{letter} is {lengths[letter]} in one example, and {shape[axis]} in {name}")
    return found
