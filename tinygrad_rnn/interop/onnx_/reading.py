"""`from_onnx`: a model of ONNX as a module that runs, is drawn, explained and trained further like any other."""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from typing import Any

import numpy as np

from ...backend import Array, as_array
from ...core.modes import place
from ...core.tensor import Tensor
from ...errors import ConversionError, DtypeError, FileError, OptionError, ShapeError
from ...nn import options
from ...nn.module import Module
from ...nn.recurrent import Recurrent
from ..calling import SEQUENCES, STEPS, Usage
from ..files import named
from ..names import Names
from ..report import Report
from .files import Arrays, parsed
from .graph import RECURRENT, Entry, Graph, Node, outputs_of, read_graph, run
from .nodes import GIVEN, LayerNode, in_order, inputs_of, layer_from
from .operators import Value, ints

SPARE = 2**20
"""So many numbers may weights take that are computed or used more than once, beside four times those in the file."""
MOST_LAYERS = 256
"""How many recurrent nodes a model may have, each of which takes milliseconds to read."""
FOLDABLE = frozenset({
    "Identity", "Transpose", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Cast", "Neg",
    "Add", "Sub", "Mul", "Gather", "Shape", "ConstantOfShape", "Expand",
})  # fmt: skip
"""The operators that may stand between arrays of the file and the weights of a recurrent node."""


@np.errstate(all="ignore")  # a file may hold any numbers, nan among them
def from_onnx(source: Any, *, alone: bool = True, report: Report | None = None) -> Module:
    """A module that computes what an ONNX model does.

    source: the path of a file, or an `onnx.ModelProto`. External data are read from the folder of the file only.
    alone: a graph that is one recurrent node becomes that layer; False makes an `OnnxModel` of it, too.
    report: takes down what went where.

    The result is an `OnnxModel`, which takes and gives what the graph does, in ONNX's shapes. Its recurrent nodes are
    layers of this package, in `model.layers`: `from_onnx("gru.onnx").layer` is the `nn.GRU` of a file that holds one.
    If the whole graph is one recurrent node and its inputs come from outside, the result is that layer itself, which
    takes and gives what layers of this package do: `output, h_n = gru(x, h_0, lengths)`, with output (T, N, D*H).

    Float arrays with axes become parameters; single numbers, integers, Constant nodes and initial states that are zeros
    stay constants. bfloat16 is read as float32. The biases of a recurrent node that come twice are added up, where the
    cell has one for both.

    Raises: FileError for a file that is damaged or hostile, or larger than the bounds that `files` states;
        ConversionError that names the node for what has no counterpart; ShapeError, DtypeError for weights that do not
        fit; OptionError for a source that is neither; MissingPackage without onnx.
    """
    model, folder = parsed(source)
    arrays, report = Arrays(folder), Report() if report is None else report
    with nullcontext() if folder is None else named(source):
        graph = read_graph(model, arrays)
        weights = _weights_in(graph, report)
        graph.trim()
        alone = alone and _is_one_layer(graph)
        layers = _put_in_place(weights, report, "" if alone else "layers.{}.")
    if arrays.halves:
        report.note(f"bfloat16 is computed in float32 here: {', '.join(arrays.halves[:5])}"
                    f"{' and others' if len(arrays.halves) > 5 else ''}")  # fmt: skip
    if alone:
        only: Recurrent = graph.nodes[0].function.layer  # type: ignore[union-attr]
        return only
    made = OnnxModel(graph, layers, report)
    report.note(f"The model takes {', '.join(entry.name for entry in graph.inputs)}, and gives "
                f"{', '.join(graph.outputs)}.")  # fmt: skip
    return made


def _is_one_layer(graph: Graph) -> bool:
    """Whether a graph is one recurrent node, all of whose inputs come from outside."""
    if len(graph.nodes) != 1 or graph.nodes[0].op not in RECURRENT:
        return False
    (node,) = graph.nodes
    given, entries = sorted(filter(None, node.inputs)), sorted(entry.name for entry in graph.inputs)
    return given == entries and set(graph.outputs) <= set(node.outputs)


def _put_in_place(weights: Mapping[Node, Mapping[str, Array]], report: Report, to: str) -> dict[str, Recurrent]:
    """The layers of recurrent nodes, which run in the place of these from now on, by the nodes' names.

    to: what goes before the names of our weights in the report, around the name of the layer.
    """
    labels, layers = Names(), dict[str, Recurrent]()
    for node, arrays in weights.items():
        label = labels.free(node.label)
        layers[label] = layer_from(node, arrays, report, to.format(label))
        node.function = LayerNode(layers[label])
    return layers


class OnnxModel(Module):
    """A graph of ONNX on Tensors: `model(x, h)` or `model(x=x, h=h)`, by the names of its inputs.

    layers: the recurrent nodes as layers, by the names of the nodes. weights: the other parameters, by ONNX's names.
    constants: single floats, Constant nodes and initial states that are zeros, which are not trained.
    graph: the nodes, and what they take and make by name.
    """

    def __init__(self, graph: Graph, layers: dict[str, Recurrent], report: Report) -> None:
        """graph: checked, with these layers in the place of recurrent nodes; its arrays become Tensors.

        report: takes down which of them became weights.
        """
        self.layers = layers
        self.weights: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.graph, labels = graph, Names()
        for each in graph.all():
            self._take(each, labels, report)
        self._label()

    def _take(self, graph: Graph, labels: Names, report: Report) -> None:
        """Floats of a graph become Tensors of this module; integers stay on the host."""
        starts = _starts(graph)
        for name, array in graph.constants.items():
            if array.dtype.kind != "f":
                continue
            fixed = not array.ndim or name in graph.literals or (name in starts and not array.any())
            held, label = self.constants if fixed else self.weights, labels.free(name)
            graph.constants[name] = held[label] = Tensor(array.copy(), requires_grad=not fixed)
            if not fixed:
                report.add(name, array.shape, f"weights.{label}", array.shape)

    @property
    def layer(self) -> Recurrent:
        """The only recurrent layer.

        Raises: OptionError, if there is none, or more than one.
        """
        if len(self.layers) != 1:
            raise OptionError(f"the model has {len(self.layers)} recurrent layers ({', '.join(self.layers)}), not one: "
                              "model.layers holds them by name")  # fmt: skip
        return next(iter(self.layers.values()))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The graph's inputs, in order or by name, in ONNX's shapes -> its output, or a tuple of several.

        Arrays and lists of floats go to where the parameters lie.

        Raises: OptionError for inputs that are missing or unknown; ShapeError, DtypeError.
        """
        entries = self.graph.inputs
        names = [entry.name for entry in entries]
        given = dict(zip(names, inputs))
        if len(inputs) > len(names) or given.keys() & named.keys() or given.keys() | named.keys() != set(names):
            raise OptionError(f"the model takes {', '.join(names)}; given are {len(inputs)} without a name"
                              f"{''.join(f', {name}' for name in named)}{place()}")  # fmt: skip
        given |= named
        found = run(self.graph, [self._checked(entry, given[entry.name]) for entry in entries])
        outputs = tuple([x if isinstance(x, Tensor) else Tensor(as_array(x)) for x in found])
        return outputs[0] if len(outputs) == 1 else outputs

    def example_usage(self) -> Usage | None:
        """How the model is called, with examples of the inputs that the graph declares.

        Whole numbers are lengths of sequences, indices of what they pick from, or 0 and 1, and bools are both. None, if
        the dtype or the axes of an input are not known.
        """
        rng, sizes = np.random.default_rng(0), {"T": STEPS, "N": SEQUENCES}
        shapes: dict[str, list[int]] = {}
        dynamic: dict[str, dict[int, str]] = {}
        for entry in self.graph.inputs:
            if entry.dtype is None or entry.shape is None:
                return None
            dynamic[entry.name] = {axis: size for axis, size in enumerate(entry.shape) if isinstance(size, str)}
            for letter in dynamic[entry.name].values():
                sizes.setdefault(letter, STEPS + len(sizes))
            shapes[entry.name] = [sizes[size] if isinstance(size, str) else size for size in entry.shape]
        bounds, inputs = _bounds(self.graph, shapes), dict[str, Array]()
        for entry in self.graph.inputs:
            shape, (least, most) = shapes[entry.name], bounds.get(entry.name, (0, 1))
            kind = entry.dtype.kind if entry.dtype else "f"
            numbers = rng.normal(size=shape) if kind == "f" else rng.integers(least, most, shape, endpoint=True)
            inputs[entry.name] = np.asarray(numbers).astype(entry.dtype)
        return Usage(lambda given: self(**given), inputs, dynamic, tuple(self.graph.outputs))

    def _checked(self, entry: Entry, value: Any) -> Value:
        """An input: floats as a Tensor, integers as they come, so that shapes made of them stay on the host."""
        if not hasattr(value, "dtype"):
            value = options.array(entry.name, value, "numpy", entry.dtype)
        if entry.dtype is not None and value.dtype != entry.dtype:
            raise DtypeError(f"{entry.name} is {value.dtype}, and the model takes {entry.dtype}: "
                             f"{entry.name}.astype({str(entry.dtype)!r}) would fit{place()}")  # fmt: skip
        if entry.shape is not None and not _fits(tuple(value.shape), entry.shape):
            raise ShapeError(f"{entry.name} has shape {tuple(value.shape)}; the model takes "
                             f"({', '.join(map(str, entry.shape))}){place()}")  # fmt: skip
        if isinstance(value, Tensor) or value.dtype.kind != "f":
            return value
        home = next((weight.backend for weight in self.parameters()), None)
        return Tensor(as_array(value, home), name=entry.name)


def _starts(graph: Graph) -> set[str]:
    """The names of what serves as an initial state of layers, and as nothing else."""
    starts, others = set[str](), set(graph.outputs)
    for node in graph.nodes:
        given = len(node.inputs)
        if isinstance(node.function, LayerNode):
            given = GIVEN.index("initial_h")
            starts.update(node.inputs[given:])
        others.update(node.inputs[:given], *(inner.used() for inner in node.graphs))
    return starts - others


def _bounds(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """The least and the largest that whole numbers may be, of inputs of which that is known; shapes: of all inputs."""
    shortest = min([n for shape in shapes.values() if len(shape) > 1 for n in shape[:2]], default=1)
    sources, found = {name: name for name in shapes}, dict[str, tuple[int, int]]()
    for node in graph.nodes:
        given = [sources.get(name, "") for name in node.inputs]
        if node.op in ("Identity", "Cast"):
            sources[node.outputs[0]] = given[0]
        elif isinstance(node.function, LayerNode) and len(given) > 1:
            x, layer = shapes.get(given[0]), node.function.layer
            found[given[1]] = 1, shortest if x is None else x[1 if layer.batch_first else 0]
        elif node.op == "Gather" and node.inputs[0] in graph.constants:
            picked = graph.constants[node.inputs[0]]
            found[given[1]] = 0, max(picked.shape[node.attributes.get("axis", 0)] - 1, 0)
    return found


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(isinstance(n, str) or n == size for size, n in zip(shape, wanted))


def _weights_in(graph: Graph, report: Report) -> dict[Node, dict[str, Array]]:
    """The weights of recurrent nodes, by node and ONNX's names; from then on these nodes take other inputs only.

    Exporters hand them over as arrays of the file, or cut and joined from them by a few operators; those are computed
    now, within a budget, so that no small file asks for large arrays. report: learns what serves several nodes.

    Raises: ConversionError for weights that are not known before the graph runs; FileError beyond the budget.
    """
    if sum(node.op in RECURRENT for each in graph.all() for node in each.nodes) > MOST_LAYERS:
        raise ConversionError(f"the model has more than {MOST_LAYERS:,} recurrent nodes")
    held = sum([array.size for each in graph.all() for array in each.constants.values()])
    gathering = _Gathering(SPARE + 4 * held, report)
    gathering.gather(graph, ChainMap())
    return gathering.found


class _Gathering:
    """The weights that were found so far, and how many numbers more may be computed or taken."""

    def __init__(self, budget: int, report: Report) -> None:
        self.budget, self.report = budget, report
        self.found: dict[Node, dict[str, Array]] = {}
        self.taken: dict[str, str] = {}

    def gather(self, graph: Graph, outer: ChainMap[str, Array]) -> None:
        """outer: the arrays that are known in the graphs around this one."""
        known = outer.new_child(dict(graph.constants))
        needed = {name for node in graph.nodes if node.op in RECURRENT for name in weights_of(node).values()}
        wanted = set()
        for node in reversed(graph.nodes):
            if node.op in FOLDABLE and needed.intersection(node.outputs):
                needed.update(node.inputs)
                wanted.add(node)
        makers = {name: node for node in graph.nodes for name in node.outputs}
        for node in graph.nodes:
            if node.op in RECURRENT:
                self._take(node, known, makers)
            elif node in wanted and all(name in known for name in node.inputs if name):
                self._spend(_most(node, known), node)
                known.update(zip(node.outputs, map(np.asarray, outputs_of(node, known))))
            for inner in node.graphs:
                self.gather(inner, known)

    def _take(self, node: Node, known: Mapping[str, Array], makers: Mapping[str, Node]) -> None:
        names = weights_of(node)
        for letter, name in names.items():
            if name not in known:
                origin = f"comes out of {makers[name]}" if name in makers else "is an input of the graph"
                raise ConversionError(
                    f"{node}: its {letter}, {name!r}, {origin}; the weights of a layer have to be "
                    f"arrays of the file, or made of them by {', '.join(sorted(FOLDABLE))}"
                )
        self.found[node] = {letter: known[name] for letter, name in names.items()}
        self._spend(sum(array.size for array in self.found[node].values()), node)
        for name in names.values():
            if name in self.taken:
                self.report.note(f"{name} serves {self.taken[name]} and {node}: here, each has weights of its own.")
            self.taken[name] = str(node)
        node.inputs = in_order(inputs_of(node), GIVEN)

    def _spend(self, elements: int, node: Node) -> None:
        self.budget -= elements
        if self.budget < 0:
            raise FileError(f"{node} takes weights that are far larger than all arrays in the file")


def weights_of(node: Node) -> dict[str, str]:
    """The names of the arrays that become weights of a layer, by their letters."""
    return {letter: name for letter, name in inputs_of(node).items() if letter not in GIVEN}


def _most(node: Node, known: Mapping[str, Array]) -> int:
    """An upper bound for the elements that a node makes, known before it runs."""
    inputs = [known[name] for name in node.inputs if name]
    match node.op:
        case "ConstantOfShape":
            return _product(ints(inputs[0]))
        case "Expand":
            return _product([*ints(inputs[1]), inputs[0].size])
        case "Add" | "Sub" | "Mul":
            turned = zip_longest(*[array.shape[::-1] for array in inputs], fillvalue=1)
            return _product(max(sizes) for sizes in turned)
        case "Gather":
            return int(inputs[0].size * inputs[1].size // max(min(inputs[0].shape, default=1), 1))
    return sum([int(array.size) for array in inputs])


def _product(sizes: Iterable[int]) -> int:
    """Of the sizes above 0, as far as a budget can reach."""
    total = 1
    for size in sizes:
        total *= max(int(size), 1)
        if total > sys.maxsize:
            break
    return total
