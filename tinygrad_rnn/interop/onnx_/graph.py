"""Graphs of ONNX, checked: what a ModelProto says, as plain nodes in order, each with the function that it runs.

Everything that can be wrong with a graph is found while it is read: unknown operators and attributes, names that nobody
defines, or that are defined twice. `run` is all that there is to running one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import numpy as np

from ...errors import ConversionError, FileError, TinygradError
from .files import Arrays, dtype_of
from .operators import MANY, NEWEST, OPERATORS, Context, Value

DEPTH = 16
"""How deep graphs lie in the nodes of others; no exporter comes near it."""
RECURRENT = ("RNN", "GRU", "LSTM")


@dataclass(eq=False)
class Node:
    """One node: its operator, the names of what goes in ("" for what is left out) and out, and its attributes.

    function: what computes the outputs of the inputs; None of a recurrent node, which becomes a layer.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    function: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"node {self.label!r} ({self.op})"

    @property
    def label(self) -> str:
        """A name for tables and dictionaries."""
        return self.name or next(filter(None, self.outputs))

    @property
    def graphs(self) -> Iterator[Graph]:
        """The graphs among the attributes."""
        return (value for value in self.attributes.values() if isinstance(value, Graph))


@dataclass(frozen=True)
class Entry:
    """An input of a graph: dtype and shape, where they are known; a dimension that may have any size has its name."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int | str, ...] | None = None


@dataclass
class Graph:
    """A graph: what goes in and out, the nodes in an order in which they can run, the arrays that it brings along.

    literals: the names of those arrays that Constant nodes gave, which no training changes.
    """

    name: str
    inputs: list[Entry]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, Value]
    literals: set[str]

    def used(self) -> set[str]:
        """All names that the nodes here and in the graphs of their attributes take, and what goes out."""
        found = set(self.outputs)
        for node in self.nodes:
            found.update(node.inputs, *(inner.used() for inner in node.graphs))
        return found

    def all(self) -> Iterator[Graph]:
        """This graph and all those in its nodes."""
        yield self
        for node in self.nodes:
            for inner in node.graphs:
                yield from inner.all()

    def trim(self) -> None:
        """Leave out nodes and arrays that nothing depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
                for inner in node.graphs:
                    inner.trim()
                    needed.update(inner.used())
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


# -- running -----------------------------------------------------------------------------------------------------


def run(graph: Graph, given: Iterable[Value], outer: Mapping[str, Value] | None = None) -> tuple[Value, ...]:
    """The outputs of a graph; given: its inputs, in order; outer: what the graphs around it have computed.

    Raises: what the operators raise, with the node that they ran in.
    """
    given = list(given)
    if len(given) != len(graph.inputs):
        raise ConversionError(f"the graph {graph.name!r} takes {len(graph.inputs)} inputs, and {len(given)} are given")
    values = {**(outer or {}), **graph.constants, **{entry.name: value for entry, value in zip(graph.inputs, given)}}
    for node in graph.nodes:
        values.update(zip(node.outputs, outputs_of(node, values)))
    return tuple([values[name] for name in graph.outputs])


def outputs_of(node: Node, values: Mapping[str, Value]) -> tuple[Value, ...]:
    """What a node computes, as many values as it has outputs."""
    bodies = {
        name: partial(run, value, outer=values) for name, value in node.attributes.items() if isinstance(value, Graph)
    }
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        found = node.function(*inputs, **bodies)  # type: ignore[misc]
    except TinygradError as error:
        error.add_note(f"in {node}")
        raise
    except Exception as error:  # of NumPy's on arrays of the host, mostly
        raise ConversionError(f"{node} cannot be computed: {error}") from error
    found = found if isinstance(found, tuple) else (found,)
    if len(found) < len(node.outputs):
        raise ConversionError(f"{node} has {len(node.outputs)} outputs, but only {len(found)} values come out of it")
    return found


# -- reading -----------------------------------------------------------------------------------------------------


class Defined:
    """The names that are defined so far: here, and in the graphs around this one."""

    def __init__(self, outer: Defined | None = None) -> None:
        self.own: set[str] = set()
        self.outer = outer

    def __contains__(self, name: str) -> bool:
        return name in self.own or (self.outer is not None and name in self.outer)

    def define(self, name: str) -> None:
        """Raises: FileError, if it is no name or has been defined."""
        if not name:
            raise FileError("an input or an initializer of a graph has no name")
        if name in self:
            raise FileError(f"{name!r} is defined twice")
        self.own.add(name)


def read_graph(model: Any, arrays: Arrays) -> Graph:
    """The graph of a ModelProto; arrays: takes those of its tensors out.

    Raises: FileError for what is damaged, ConversionError for what is not known.
    """
    if not model.HasField("graph"):
        raise FileError("this is no ONNX model: it has no graph")
    if len(model.functions):
        raise ConversionError(f"functions of the model's own, such as {model.functions[0].name!r}, are not read: "
                              "onnx.inliner.inline_local_functions(model) puts their nodes in place")  # fmt: skip
    opsets = {each.domain: each.version for each in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if not 1 <= opset <= NEWEST:
        raise ConversionError(f"the model has opset {opset} of ONNX; 1 to {NEWEST} are read")
    return _Reader(opset, arrays).graph(model.graph)


class _Reader:
    """Reads the graphs of one model, each with those in its nodes.

    Raises, in all of its methods: as `read_graph`.
    """

    def __init__(self, opset: int, arrays: Arrays) -> None:
        self.opset, self.arrays = opset, arrays

    def graph(self, proto: Any, outer: Defined | None = None, depth: int = 0) -> Graph:
        """outer: the names that are defined around it. depth: how many graphs are."""
        if depth > DEPTH:
            raise FileError(f"graphs lie in graphs more than {DEPTH} deep")
        if len(proto.sparse_initializer):
            raise ConversionError("the model has sparse initializers, which are not read: write them as dense ones")
        for each in proto.node:  # before arrays take room
            self._check_operator(each)
        known, constants = Defined(outer), {}
        for tensor in proto.initializer:
            known.define(tensor.name)
            constants[tensor.name] = self.arrays.array(tensor, tensor.name)
        inputs = [_entry(info) for info in proto.input if info.name not in constants]
        for entry in inputs:
            known.define(entry.name)
        nodes, literals = [], set()
        for each in proto.node:
            node = self._node(each, known, depth)
            if missing := [name for name in node.inputs if name and name not in known]:
                raise FileError(f"{node} takes {missing[0]!r}, which nothing before it defines")
            for name in node.outputs:
                if name:
                    known.define(name)
            if node.op == "Constant":
                constants[node.outputs[0]] = outputs_of(node, {})[0]
                literals.add(node.outputs[0])
            else:
                nodes.append(node)
        outputs = [info.name for info in proto.output]
        if wrong := [name for name in outputs if name not in known]:
            raise FileError(f"nothing defines {wrong[0]!r}, an output of the graph")
        if not outputs:
            raise FileError("a graph has no output")
        return Graph(proto.name, inputs, outputs, nodes, constants, literals)

    def _check_operator(self, proto: Any) -> None:
        if not any(proto.output):
            raise FileError(f"a node {proto.name!r} ({proto.op_type}) has no output")
        if proto.domain in ("", "ai.onnx") and (proto.op_type in OPERATORS or proto.op_type in RECURRENT):
            return
        node = Node(proto.op_type, proto.name, (), tuple(proto.output), {}, self.opset)
        if proto.domain not in ("", "ai.onnx"):
            raise ConversionError(f"{node} is of the domain {proto.domain!r}; only ONNX's own operators are known")
        known_ones = ", ".join(sorted([*OPERATORS, *RECURRENT]))
        raise ConversionError(f"{node} is of an operator that is not known; known are {known_ones}")

    def _node(self, proto: Any, known: Defined, depth: int) -> Node:
        attributes: dict[str, Any] = {}
        node = Node(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), attributes, self.opset)
        for each in proto.attribute:
            if each.name in attributes:
                raise FileError(f"{node} has the attribute {each.name} twice")
            attributes[each.name] = self._attribute(each, node, known, depth)
        if node.op not in RECURRENT:
            node.function = bound(node)
        return node

    def _attribute(self, proto: Any, node: Node, known: Defined, depth: int) -> Any:
        if proto.ref_attr_name:
            raise FileError(f"{node}: the attribute {proto.name} refers to one of a function, and is in none")
        match proto.type:
            case 1 | 2 as kind:
                return float(proto.f) if kind == 1 else int(proto.i)
            case 3:
                return _text(proto.s, node)
            case 4:
                return self.arrays.array(proto.t, f"{node.name}.{proto.name}")
            case 5:
                return self.graph(proto.g, known, depth + 1)
            case 6 | 7 as kind:
                return tuple(proto.floats if kind == 6 else proto.ints)
            case 8:
                return tuple([_text(each, node) for each in proto.strings])
        raise ConversionError(f"{node}: the attribute {proto.name} is of the kind {proto.type}, which is not read")


@cache
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of an operator, with its annotations as types."""
    return inspect.signature(function, eval_str=True)


def bound(node: Node) -> Callable[..., Any]:
    """The function of a node: its operator, with the node's attributes.

    Raises: ConversionError for inputs, outputs or attributes that the operator does not have; FileError for those of a
        wrong type.
    """
    signature = signature_of(OPERATORS[node.op])
    attributes, context = dict(node.attributes), {}
    if "node" in signature.parameters:
        context["node"] = Context(str(node), node.opset, len(node.outputs))
    try:
        places = signature.bind(*node.inputs, **attributes, **context).arguments
    except TypeError as error:
        takes = ", ".join(name for name in signature.parameters if name != "node")
        raise ConversionError(f"{node} of opset {node.opset}: {error}; it is known with {takes}") from None
    if len(node.outputs) > (MANY.get(node.op, 1) or len(node.outputs)):
        raise ConversionError(f"{node} has {len(node.outputs)} outputs; {MANY.get(node.op, 1)} are known")
    for name, parameter in signature.parameters.items():
        if name in attributes:
            attributes[name] = _checked(node, parameter, attributes[name])
        elif places.get(name) == "" and parameter.default is parameter.empty:
            raise FileError(f"{node} is without its input {name}")
        elif parameter.kind is parameter.VAR_POSITIONAL and (not places.get(name) or "" in places[name]):
            raise FileError(f"{node} is without one of its inputs")
    plain = {name: value for name, value in attributes.items() if not isinstance(value, Graph)}
    return partial(OPERATORS[node.op], **plain, **context)


def _checked(node: Node, parameter: inspect.Parameter, value: Any) -> Any:
    """An attribute, if it fits the annotation of its parameter, or without one has the type of the default value."""
    wanted = type(parameter.default) if parameter.annotation is parameter.empty else parameter.annotation
    if wanted == np.dtype[Any] and isinstance(value, int):
        return dtype_of(value, f"{parameter.name} of {node}")
    if not fits(value, wanted):
        raise FileError(f"{node}: the attribute {parameter.name} = {str(value)[:40]} has a wrong type")
    if get_origin(wanted) is Literal and value not in get_args(wanted):
        choices = " or ".join(repr(choice) for choice in get_args(wanted))
        raise ConversionError(f"{node}: {parameter.name} = {value!r} is not computed here, only {choices}")
    return value


def fits(value: Any, wanted: Any) -> bool:
    """Whether an attribute is of a type, as annotations write it; of a Literal, of the type of its choices."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin is Callable or isinstance(value, Graph):
        return origin is Callable and isinstance(value, Graph)
    if origin is UnionType:
        return any(fits(value, each) for each in parts)
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(each, parts[0]) for each in value)
    return wanted is Any or isinstance(value, type(parts[0]) if origin is Literal else wanted)


def _text(data: bytes, node: Node) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FileError(f"{node} has an attribute that is no text: {data[:40]!r}") from None


def _entry(info: Any) -> Entry:
    what = f"the input {info.name!r}"
    if info.type.WhichOneof("value") not in ("tensor_type", None):
        raise ConversionError(f"{what} is a {info.type.WhichOneof('value')}, not a tensor")
    tensor = info.type.tensor_type
    dtype = dtype_of(tensor.elem_type, what) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Entry(info.name, dtype)
    sizes = [each.dim_value if each.dim_value > 0 else each.dim_param or "?" for each in tensor.shape.dim]
    return Entry(info.name, dtype, tuple(sizes))
