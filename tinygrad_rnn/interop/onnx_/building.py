"""An ONNX graph in the making: nodes and constants by name, sizes of axes as small computations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...backend import Array
from ...errors import ConversionError
from .. import files
from ..names import Names
from ..nests import mapped
from ..report import Report
from .tracing import Constant, Counted, Filled, Program, Size, Traced

Shape = tuple[int | Size, ...]


@dataclass(frozen=True)
class Item:
    """A value of the graph: its name, its dtype and shape, and its numbers if it is a constant."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    array: Array | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Result(NamedTuple):
    """What an operation has to give."""

    dtype: np.dtype[Any]
    shape: Shape


Emitter = Callable[["Builder", list[Any], dict[str, Any], list[Result]], Any]
"""(graph, inputs, options, results) -> the name of its result, or a list of them; each input an Item, or a number."""


def name_of(text: str) -> str:
    """A name that every reader of ONNX takes."""
    return re.sub(r"[^A-Za-z0-9_.\[\]=/*+-]", "_", text)


class Shared:
    """What a graph has in common with all the bodies in it: names, constants, and what is computed once.

    constants: by name. known: the names of constants by their contents, and of sizes by the body and the size.
    """

    def __init__(self) -> None:
        self.names = Names()
        self.constants: dict[str, Array] = {}
        self.known: dict[Any, str] = {}


class Builder:
    """The nodes of a graph, or of the body of a Scan in it; names are unique in all of the model.

    emitters: how each operation is written. axes: the length of each axis that may change, as the name of a value, or
        as what makes one. report: takes down what went where. place: the module that is being written.
    shared: what all bodies have in common.
    """

    def __init__(self, emitters: Mapping[str, Emitter], report: Report, shared: Shared | None = None) -> None:
        self.onnx: Any = files.needed("onnx", "to_onnx")
        self.emitters, self.report = emitters, report
        self.shared, self.is_body = shared or Shared(), shared is not None
        self.nodes: list[Any] = []
        self.axes: dict[str, Callable[[], str] | str] = {}
        self.place = ""

    def body(self) -> Builder:
        """The body of a node of this graph, to be built; constants and sizes of this graph are seen there too."""
        inner = Builder(self.emitters, self.report, self.shared)
        inner.place = self.place
        return inner

    # -- names and nodes -----------------------------------------------------------------------------------------

    def free(self, wish: str) -> str:
        """A name that nobody has yet."""
        return self.shared.names.free(name_of(wish))

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output; returns that output's name."""
        return self.many(kind, inputs, [name or kind.lower()], **attributes)[0]

    def many(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """A node with some outputs, whose names are wishes."""
        names = [self.free(wish) if wish else "" for wish in outputs]
        label = self.free("/".join(filter(None, [self.place, kind])))
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, name=label, **attributes))
        return names

    # -- constants -----------------------------------------------------------------------------------------------

    def constant(self, array: Any, name: str | None = None) -> str:
        """A constant by a name of its own; equal ones of one name, or of none, are stored once."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key, shared = (name, array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()), self.shared
        if key not in shared.known:
            shared.known[key] = self.free(name or "constant")
            shared.constants[shared.known[key]] = array
        return shared.known[key]

    def integers(self, numbers: Sequence[int]) -> str:
        """Whole numbers on one axis, as axes, starts and the like are given."""
        return self.constant(np.array(numbers, np.int64))

    def number(self, x: Any, dtype: Any) -> str:
        """A Python number, or a Size, as a scalar of a dtype."""
        if isinstance(x, Size):
            return self.cast(self.add("Squeeze", self.size(x), self.integers([0])), np.int64, dtype)
        return self.constant(np.asarray(x).astype(dtype))

    # -- dtypes --------------------------------------------------------------------------------------------------

    def element(self, dtype: Any) -> int:
        """ONNX's number of a dtype."""
        try:
            return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        except (KeyError, ValueError):
            raise ConversionError(f"ONNX has no tensors of {dtype}") from None

    def cast(self, name: str, have: Any, want: Any) -> str:
        """A value in another dtype; nothing, where it has that dtype."""
        return name if np.dtype(have) == np.dtype(want) else self.add("Cast", name, to=self.element(want))

    def of(self, x: Any, dtype: Any) -> str:
        """An input of an operation, an Item or a number, in a dtype."""
        return self.cast(x.name, x.dtype, dtype) if isinstance(x, Item) else self.number(x, dtype)

    # -- sizes ---------------------------------------------------------------------------------------------------

    def size(self, size: int | Size) -> str:
        """The length of an axis as an array of one integer."""
        if not isinstance(size, Size):
            return self.integers([size])
        if (self, size) not in self.shared.known:
            names = [self._axis(letter) for letter in size.axes]
            total = names[0]
            for other in names[1:]:
                total = self.add("Mul", total, other)
            if size.factor != 1:
                total = self.add("Mul", total, self.integers([size.factor]))
            if size.offset:
                total = self.add("Add", total, self.integers([size.offset]))
            self.shared.known[self, size] = total
        return self.shared.known[self, size]

    def _axis(self, letter: str) -> str:
        found = self.axes.get(letter)
        if found is None:
            raise ConversionError(
                f"{self.place or 'the model'} makes a length that is no simple formula of those of its inputs, and "
                "that nothing made before has; fix the sizes with dynamic={}"
            )
        if not isinstance(found, str):
            found = self.axes[letter] = found()
        return found

    def _measurable(self, item: Item) -> None:
        """Remember where the lengths of axes can be measured, once somebody wants to know."""
        for axis, size in enumerate(item.shape):
            if isinstance(size, Size) and size == Size(size.axes[:1]):
                measure = partial(self.add, "Shape", item.name, name=size.axes[0], start=axis, end=axis + 1)
                self.axes.setdefault(size.axes[0], measure)

    def sizes(self, shape: Sequence[int | Size]) -> str:
        """A shape as an array of integers."""
        fixed = [int(each) for each in shape if not isinstance(each, Size)]
        if len(fixed) == len(shape):
            return self.integers(fixed)
        return self.add("Concat", *[self.size(each) for each in shape], axis=0)

    def reshaped(self, name: str, shape: Sequence[int | Size], have: Shape = ()) -> str:
        """The same elements in another shape; lengths that depend on sizes are copied, or left for ONNX to find out.

        have: the shape before.
        """
        if 0 in shape:
            return self.add("Reshape", name, self.sizes(shape), allowzero=1)
        short = [0 if isinstance(each, Size) and have[i : i + 1] == (each,) else each for i, each in enumerate(shape)]
        unknown = [i for i, each in enumerate(short) if isinstance(each, Size)]
        if len(unknown) == 1 and -1 not in short:
            short[unknown[0]] = -1
        return self.add("Reshape", name, self.sizes(short))

    # -- programs ------------------------------------------------------------------------------------------------

    def write(self, program: Program, given: Sequence[Item]) -> Any:
        """The operations of a program as nodes; returns its outputs, an Item at each place.

        given: the inputs.

        Raises: ConversionError for an operation that ONNX has not.
        """
        items = dict(enumerate(given))
        for item in given:
            self._measurable(item)
        found = lambda x: self._item(x, items)  # noqa: E731
        outer = self.place
        for call in program.needed:
            self.place = call.place
            results = [Result(np.dtype(program.dtype(n)), program.shapes[n]) for n in call.results]
            if call.name not in self.emitters:
                raise ConversionError(
                    f"{call.name}{f' (in {call.place})' if call.place else ''} has no counterpart in ONNX that the "
                    "package knows of; write the model with other operations, or add how it is written to "
                    "tinygrad_rnn.interop.onnx_.emission.EMITTERS"
                )
            before = len(self.nodes)
            made = self.emitters[call.name](self, mapped(found, call.inputs), mapped(found, call.options), results)
            if isinstance(made, str) and (wish := program.runs[0].tensors[call.results[0]].name):
                made = self._renamed(made, wish, before)
            for number, name, result in zip(call.results, [made] if isinstance(made, str) else made, results):
                items[number] = Item(name, *result)
                self._measurable(items[number])
        self.place = outer
        return mapped(found, program.outputs)

    def _renamed(self, name: str, wish: str, since: int) -> str:
        """What the youngest node makes, called as the Tensor is, such as a gate after its letter."""
        if len(self.nodes) > since and self.nodes[-1].output[0] == name:
            name = self.nodes[-1].output[0] = self.free(wish)
        return name

    def _item(self, x: Any, items: Mapping[int, Item]) -> Any:
        """An array of the program as a value of the graph; whatever else as it is."""
        if isinstance(x, Traced):
            return items[x.number]
        if isinstance(x, Constant):
            return Item(self.constant(x.array, x.name), x.array.dtype, x.array.shape, x.array)
        if isinstance(x, Filled):
            number = self.constant(np.asarray(x.number))
            return Item(self.add("Expand", number, self.sizes(x.shape)), np.asarray(x.number).dtype, x.shape)
        if isinstance(x, Counted):
            axis = next(i for i, each in enumerate(x.shape) if each != 1)
            along = self.cast(self.counted(x.shape[axis]), np.int64, x.dtype)
            rest = [i for i in range(len(x.shape)) if i != axis]
            name = self.add("Unsqueeze", along, self.integers(rest)) if rest else along
            return Item(name, np.dtype(x.dtype), x.shape)
        return x

    def counted(self, size: int | Size) -> str:
        """0, 1, 2, ... up to below a size."""
        ends = [self.constant(np.int64(0)), self.number(size, np.int64), self.constant(np.int64(1))]
        return self.add("Range", *ends, name="range")

    def deliver(self, items: Sequence[Item], wishes: Sequence[str]) -> list[Item]:
        """Values as outputs of this graph, called as is wished; the node that makes one calls it so, where it can."""
        makers = {name: node for node in self.nodes for name in node.output}
        found: list[Item] = []
        for place, (item, wish) in enumerate(zip(items, wishes)):
            also = any(each.name == item.name for each in items[place + 1 :])
            if item.name in makers and not also and item.name not in names_read(self.nodes):
                outputs = makers[item.name].output
                outputs[list(outputs).index(item.name)] = wish
            else:
                self.nodes.append(self.onnx.helper.make_node("Identity", [item.name], [wish], name=self.free(wish)))
            found.append(replace(item, name=wish))
        return found

    def finished(self, name: str, inputs: Sequence[Item], outputs: Sequence[Item]) -> Any:
        """The graph in ONNX's form; a constant that no node reads is left out."""
        read = names_read(self.nodes)
        constants = {} if self.is_body else self.shared.constants
        kept = [self.onnx.numpy_helper.from_array(array, each) for each, array in constants.items() if each in read]
        described = [list(map(self._described, items)) for items in (inputs, outputs)]
        return self.onnx.helper.make_graph(self.nodes, name, *described, kept)

    def _described(self, item: Item) -> Any:
        """What ONNX wants to know of an input or output."""
        lengths = [str(each) if isinstance(each, Size) else int(each) for each in item.shape]
        return self.onnx.helper.make_tensor_value_info(item.name, self.element(item.dtype), lengths)


def names_read(nodes: Sequence[Any]) -> set[str]:
    """The names that nodes read, in the bodies inside of them too."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= names_read(attribute.g.node) | {each.name for each in attribute.g.output}
    return found
