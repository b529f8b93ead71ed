"""The layers in a graph of ONNX: the chain of them that computes what the graph does, proved by running both."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from ...backend import Array
from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...errors import ConversionError, TinygradError
from ...nn import options
from ...nn.layers import Embedding, LayerNorm, Linear
from ...nn.module import Module
from ...nn.recurrent import Recurrent
from ..agreement import agree, tolerance
from ..calling import use_of
from ..layers import FUNCTIONS, Final, Layer, Layers
from ..names import Names
from ..nests import leaves
from ..packing import layer_of
from . import tracing
from .graph import Node
from .nodes import LayerNode
from .reading import OnnxModel

MOVES = frozenset({
    "Cast", "Concat", "Constant", "ConstantOfShape", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape",
    "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""The operators that only move numbers around a layer, or work out where to."""
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Elu": ("elu", {"alpha": 1.0}),
    "Gelu": ("gelu", {"approximate": "none"}),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "LogSoftmax": ("log_softmax", {}),
    "Relu": ("relu", {}),
    "Sigmoid": ("sigmoid", {}),
    "Softmax": ("softmax", {}),
    "Softplus": ("softplus", {}),
    "Tanh": ("tanh", {}),
}
"""The function that an operator is, by its name among `FUNCTIONS`, if its attributes are these, the usual ones."""

LENGTHS = (1, 2, 5, 17, 130)
"""The lengths of axes at which the layers are held against the graph, one axis after the other."""

Named = tuple[str, Layer]


def as_layers(model: OnnxModel) -> Module:
    """A copy of the model that is made of layers: one recurrent layer, or `Layers`; these can go on to any library.

    It finds Embedding, recurrent layers, Linear, LayerNorm and activations, in the order of the nodes, and passes over
    what only moves axes. Whether this chain computes what the graph does is found by running both, at many lengths of
    each axis that the graph leaves open.

    Raises: ConversionError, if the graph does more than a chain of these layers; OptionError for another model.
    """
    options.kind("as_layers", model, OnnxModel, words="what from_onnx(source, alone=False) gives")
    found = _stacked(list(_found(model)))
    _check_slices(model)
    for batch_first, final in product((False, True), repeat=2):
        made = _arranged(found, batch_first, final)
        if made is not None and _same(model, made):
            return made
    have = ", ".join(type(each).__name__ for _, each in found) or "none"
    raise ConversionError(
        f"the graph does more than its layers ({have}) do one after another, and as these alone can go to another "
        "library; model.layers holds the recurrent ones, and to_onnx writes it whole"
    )


def _found(model: OnnxModel) -> Iterator[Named]:
    """What computes in a graph, in the order of the nodes.

    Raises: ConversionError for a node that is neither a layer nor part of one, and does not only move axes.
    """
    graph = model.graph
    weights = {name: x for name, x in graph.constants.items() if isinstance(x, Tensor) and x.ndim}
    following, names = {name: node for node in graph.nodes for name in node.inputs}, Names()
    biases = set[Node]()
    for node in graph.nodes:
        if node in biases:
            continue
        own = [weights[name] for name in node.inputs if name in weights]
        after = following.get(node.outputs[0])
        if node.op in PRODUCTS and len(own) == 1 and after is not None and after.op == "Add":
            own += [weights[name] for name in after.inputs if name in weights]
            biases.add(after)
        layer = _layer(node, own)
        if layer is not None:
            yield _name(node, weights, names), layer
        elif node.op not in MOVES or own:
            raise ConversionError(f"{node} is no part of a layer that other libraries have; to_onnx writes it as it is")


def _layer(node: Node, own: list[Tensor]) -> Layer | None:
    """What a node is, with the weights among its inputs; None, if it is no layer. Whether that fits is seen later."""
    if isinstance(node.function, LayerNode):
        return copy.deepcopy(node.function.layer)
    if node.op in ACTIVATIONS:
        name, usual = ACTIVATIONS[node.op]
        plain = all(_is(node.attributes.get(key, value), value) for key, value in usual.items())
        return FUNCTIONS[name] if plain else None
    return MAKERS[node.op](node, *own) if node.op in MAKERS and 0 < len(own) <= 2 else None


def _is(given: Any, usual: Any) -> bool:
    """Whether an attribute is what it usually is; ONNX keeps its numbers in single precision."""
    return bool(np.float32(given) == np.float32(usual)) if isinstance(usual, float) else given == usual


def _linear(node: Node, W: Tensor, b: Tensor | None = None) -> Linear | None:
    array = W.numpy().T if node.attributes.get("transB", 0) else W.numpy()
    if array.ndim != 2 or (b is not None and b.shape != array.shape[1:]):
        return None
    layer = Linear(*array.shape, bias=b is not None, init="zeros", dtype=array.dtype)
    layer.W.assign_(array)
    if layer.b is not None:
        layer.b.assign_(b)
    return layer


def _embedding(node: Node, W: Tensor, *others: Tensor) -> Embedding | None:
    if W.ndim != 2 or others:
        return None
    layer = Embedding(*W.shape, init="zeros", dtype=W.dtype)
    layer.W.assign_(W)
    return layer


def _layer_norm(node: Node, gain: Tensor, shift: Tensor | None = None) -> LayerNorm | None:
    if gain.ndim != 1 or (shift is not None and shift.shape != gain.shape):
        return None
    layer = LayerNorm(gain.size, eps=node.attributes.get("epsilon", 1e-5), dtype=gain.dtype)
    layer.gain.assign_(gain)
    layer.shift.assign_(0 if shift is None else shift)
    return layer


PRODUCTS = ("MatMul", "Gemm")
MAKERS: dict[str, Callable[..., Layer | None]] = {
    "MatMul": _linear, "Gemm": _linear, "Gather": _embedding, "LayerNormalization": _layer_norm,
}  # fmt: skip
"""What makes a layer of a node and its weights."""


def _name(node: Node, weights: Collection[str], names: Names) -> str:
    """What to call a layer: as its weights are, up to the last dot, or as its node is; each name once."""
    held = next((name.rpartition(".")[0] for name in node.inputs if name in weights), "")
    plain = (held or node.label).split("::")[-1].strip("/").replace("/", ".")
    plain = re.sub(r"^(layers\.)+", "", plain).removesuffix(f".{node.op}")  # as to_onnx calls those of `Layers`
    return names.free(plain)


def _stacked(found: list[Named]) -> list[Named]:
    """Recurrent layers of the same kind and size, right on top of each other, as one."""
    stacked: list[Named] = []
    for name, layer in found:
        below = stacked[-1][1] if stacked else None
        if isinstance(layer, Recurrent) and isinstance(below, Recurrent) and _fits(below, layer):
            cells = [*below.cells, *layer.cells]
            stacked[-1] = (stacked[-1][0], layer_of(cells, bidirectional=below.bidirectional, batch_first=False))
        else:
            stacked.append((name, layer))
    return stacked


def _fits(below: Recurrent, layer: Recurrent) -> bool:
    """Whether a layer can be one more layer of the one below it."""
    settings = [
        {name: value for name, value in vars(each.cells[0]).items() if not isinstance(value, Tensor) and name[0] != "_"}
        for each in (below, layer)
    ]
    width = below.hidden_size * (1 + below.bidirectional)
    same = settings[0] | {"input_size": width} == settings[1] and type(below) is type(layer)
    return same and below.bidirectional == layer.bidirectional and not (below.reverse or layer.reverse)


def _arranged(found: list[Named], batch_first: bool, final: bool) -> Module | None:
    """The layers in a row; final: the last recurrent one hands its last output on. None, if there is none."""
    recurrent = [each for _, each in found if isinstance(each, Recurrent)]
    if final and not recurrent:
        return None
    for each in recurrent:
        each.batch_first = batch_first
    layers = {name: Final(each) if final and each is recurrent[-1] else each for name, each in found}
    only = next(iter(layers.values())) if len(layers) == 1 else None
    return only if isinstance(only, Module) else Layers(layers, layers)


def _same(model: OnnxModel, made: Module) -> bool:
    """Whether the model has one input, and its first output is what the layers make of it, at many lengths."""
    return all(_agree(model, made, inputs) for inputs in _examples(model, made))


def _agree(model: OnnxModel, made: Module, inputs: Mapping[str, Array]) -> bool:
    with no_grad(), np.errstate(all="ignore"):
        try:
            theirs, ours = (next(leaves(each(*inputs.values()))).numpy() for each in (model, made))
        except TinygradError:
            return False
    dtypes = [ours.dtype, *[weight.dtype for weight in made.parameters()]]
    return agree(ours, theirs, tolerance(dtypes))


def _examples(model: OnnxModel, made: Module) -> Iterator[Mapping[str, Array]]:
    """Inputs as the model declares them, as the layers take them, and with each axis that may change at `LENGTHS`."""
    use, rng = use_of(model), np.random.default_rng(2)
    yield use.inputs
    yield use_of(made).inputs
    base = {letter: use.inputs[name].shape[axis] for name, axes in use.dynamic.items() for axis, letter in axes.items()}
    for letter in base:
        for length in LENGTHS:
            yield tracing.resized(use.inputs, use.dynamic, base | {letter: length}, rng)


def _check_slices(model: OnnxModel) -> None:
    """No step of an axis that may change is left out, not even of sequences that are longer than those of the proof.

    Raises: ConversionError for a slice from or to a fixed place that is not the first or the last.
    """
    use = use_of(model)
    program = tracing.program(use.call, use.inputs, use.dynamic, {})
    for call in program.calls:
        x, key = call.inputs[0] if call.name == "index" else None, call.options.get("key")
        if not isinstance(x, tracing.Traced):
            continue
        for length, each in zip(program.shapes[x.number], key if isinstance(key, tuple) else (key,)):
            if not isinstance(length, tracing.Size) or not isinstance(each, slice):
                continue
            for end in (each.start, each.stop):
                if isinstance(end, int) and 1 < abs(end) < np.iinfo(np.int32).max:
                    raise ConversionError(
                        f"the graph cuts an axis of the length {length} at {end}, which no layer does; to_onnx writes "
                        "it as it is"
                    )
