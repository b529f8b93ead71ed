"""`to_keras`: objects of Keras, or its files, that compute what layers of this package do; or why there are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backend import Array
from ...core.tensor import Tensor
from ...errors import ConversionError, OptionError
from ...nn import layers as nn
from ...nn import options
from ...nn.cells import Cell, RNNCell
from ...nn.module import Module
from ...nn.recurrent import LSTM, Recurrent
from ...train.checkpoint import write
from ..cells import SIGMOID, Activation
from ..files import needed
from ..layers import Final, Layers, acts_as, parts_of
from ..names import Names
from ..packing import LAYERS, convention, layer_of, packed
from ..report import Report
from . import files
from .config import ACTIVATIONS, CELLS, FUNCTIONS, KerasLayer, described, sequential, stored_names, walking_order

SUFFIXES = (".keras", ".weights.h5")


def to_keras(module: Module, path: str | Path | None = None, *, report: Report | None = None) -> Any:
    """What Keras needs to compute what a module computes: an object of Keras, or a file that Keras reads.

    module: a layer, a cell, `Layers` with an order, a `Sequential`, or a `LanguageModel` (which gives logits). Keras
        takes (N, T, I), with batch_first=True or not.
    path: of a `.keras` file, which keras.models.load_model reads, or a `.weights.h5`, which load_weights of a model
        of the same layers reads; it is written through h5py, and Keras is not needed. None: returns the object, for
        which it is: a layer or a cell, or a Sequential, if one is not enough.
    report: takes down what went where.

    Layers of which nothing requires gradients have trainable=False there; Keras freezes no single weights.

    Raises: ConversionError with the reason, for what Keras cannot compute; MissingPackage; OptionError for what is
        no module, and a path of another kind; OutputError.
    """
    options.kind("to_keras", module, Module)
    writer = Writer(Report() if report is None else report)
    if path is not None:
        return _to_file(writer, module, Path(path))
    keras = needed("keras", "to_keras without a path")
    if isinstance(module, Cell):
        return _object(keras, writer.cell(module))
    found = writer.model(module)
    if len(found) == 1:
        return _object(keras, found[0])
    model = keras.saving.deserialize_keras_object(_model(found))
    for each, stored in zip(model.layers, found, strict=True):
        each.set_weights(_in_order(stored))
    return model


def _to_file(writer: Writer, module: Module, path: Path) -> None:
    if not path.name.lower().endswith(SUFFIXES):
        raise OptionError(f"{path} is to be a file of Keras, and ends in neither {' nor '.join(SUFFIXES)}")
    found = writer.model(module)
    weights = dict(zip(stored_names(found), (each.weights for each in found)))
    if path.suffix.lower() == ".keras":
        write(path, files.keras_file(_model(found), weights))
    else:
        write(path, files.weights_file(weights))
        writer.report.note_frozen(module, "a .weights.h5 file")


def _model(found: list[KerasLayer]) -> dict[str, Any]:
    """The Sequential of layers, with the input that they take before them."""
    first = next((each for each in found if each.shape is not None), None)
    shape = [None] if first is None else list(first.shape)
    if any(len(each.shape or ()) == 3 for each in found) and shape[-1] is not None:
        shape = [None, None, shape[-1]]
    dtype = "int32" if found[0].kind == "Embedding" else found[0].config["dtype"]
    name = Names(each.name for each in found).free("input")
    start = KerasLayer(name, "InputLayer", {"batch_shape": shape, "dtype": dtype})
    return sequential([start, *found])


def _object(keras: Any, stored: KerasLayer) -> Any:
    made = keras.saving.deserialize_keras_object(described(stored))
    made.build(tuple(stored.shape or (None,)))
    made.set_weights(_in_order(stored))
    return made


def _in_order(stored: KerasLayer) -> list[Array]:
    """Weights as Keras lists them."""
    return list(stored.weights.values())


# -- layer by layer ---------------------------------------------------------------------------------------------


class Writer:
    """Makes Keras' layers of ours, and notes down what went where.

    Raises: from all it does, ConversionError with the reason, where there are none.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def model(self, module: Module) -> list[KerasLayer]:
        """The layers of Keras that do one after another what a module does, each with a name of its own."""
        if isinstance(module, Cell):
            module = layer_of([module], batch_first=True)
        steps = list(_steps(module))
        found: list[KerasLayer] = []
        before: Any = None
        for place, (name, path, step) in enumerate(steps):
            turned = len(steps) == 1 or (place + 1 < len(steps) and steps[place + 1][2] is walking_order)
            if step is not walking_order:
                found += self._layers(name, path, step, turned=turned)
            elif not (isinstance(before, Recurrent) and before.reverse and before.batch_first):
                raise ConversionError("nothing in Keras turns the order of time but go_backwards of a recurrent layer")
            before = step
        if len(steps) == 1 and getattr(before, "reverse", False):
            self.report.note("Keras' go_backwards gives outputs in walking order: turn them along the axis of time")
        return _settled(found)

    def cell(self, cell: Cell, *, name: str = "cell", owner: str = "cell/", path: str = "") -> KerasLayer:
        """The cell of Keras. owner, path: what goes before the names of its weights there, and here."""
        if not isinstance(cell, tuple(LAYERS)):
            raise ConversionError(f"{type(cell).__name__} is a cell of its own, with no counterpart in Keras")
        row = convention("keras", type(cell), getattr(cell, "reset", None))
        for name in ("clip", "peepholes", "input_forget"):
            if value := getattr(cell, name, None):
                raise ConversionError(f"{type(cell).__name__} has {name}={value}, and Keras has no such thing")
        arrays = packed(cell, row, owner=path, report=self.report, to=owner, varied=True)
        weights = {f"vars/{i}": arrays[slot.name] for i, slot in enumerate(row.slots) if slot.name in arrays}
        f, g = _activations(cell)
        config = {"units": cell.hidden_size, "use_bias": "bias" in arrays, "activation": _name_of(cell, g)}
        if row.cell is not RNNCell:
            config["recurrent_activation"] = _name_of(cell, f)
        if row.reset is not None:
            config["reset_after"] = row.reset == "after"
        kind = next(name for name, usual in CELLS.items() if usual is row.cell)
        config |= {"dtype": str(cell.dtype), **self._learned(path.removesuffix(".") or name, cell)}
        return KerasLayer(name, f"{kind}Cell", config, weights, [None, cell.input_size])

    def _layers(self, name: str, path: str, step: Any, *, turned: bool) -> list[KerasLayer]:
        """One step of a model. turned: whether its outputs may come in walking order."""
        if acts_as(step, Final) and acts_as(step.layer, Recurrent, LSTM):
            return self._recurrent(name, f"{path}layer.", step.layer, final=True)
        if acts_as(step, Recurrent, LSTM):
            if step.reverse and not turned:
                raise ConversionError(
                    f"{name} walks in reverse and hands its outputs on in the order of time; those of "
                    "Keras' go_backwards come in walking order, and no layer turns them"
                )
            return self._recurrent(name, path, step, final=False)
        for kind, made_of in PLAIN.items():
            if acts_as(step, kind):
                found = made_of(self, name, path, step)
                return [replace(found, config={**found.config, **self._learned(name, step)})]
        if isinstance(step, Module):
            raise ConversionError(f"{name} is a {type(step).__name__}, which has no counterpart in Keras")
        return self._function(name, step)

    def _function(self, name: str, function: Any) -> list[KerasLayer]:
        for known, each in (*FUNCTIONS.items(), *ACTIVATIONS.items()):
            if each == function:
                return [KerasLayer(name, "Activation", {"activation": known})]
        raise ConversionError(f"{name} is {function!r}, and Keras has {', '.join(FUNCTIONS)} to stand there")

    # -- recurrent layers ----------------------------------------------------------------------------------------

    def _recurrent(self, name: str, path: str, layer: Recurrent, *, final: bool) -> list[KerasLayer]:
        """One layer of Keras for each of ours: the upper ones take the outputs as they come, in walking order."""
        if not layer.batch_first:
            self.report.note("Keras takes (N, T, I), and this model (T, N, I)")
        D, found = 1 + layer.bidirectional, list[KerasLayer]()
        for i in range(layer.num_layers):
            cells = layer.cells[i * D : (i + 1) * D]
            own = name if layer.num_layers == 1 else f"{name}_{i}"
            uppermost = i == layer.num_layers - 1
            flags = {"return_sequences": not (final and uppermost), "go_backwards": layer.reverse and not i}
            paths = [f"{path}cells.{i * D + d}." for d in range(D)]
            if D == 2:
                found.append(self._both(own, paths, cells, flags))
            else:
                found.append(self._one(own, f"{own}/", paths[0], cells[0], flags))
            if layer.dropout and not uppermost:
                found.append(KerasLayer(f"{own}_dropout", "Dropout", {"rate": layer.dropout}))
        return found

    def _one(self, name: str, owner: str, path: str, cell: Cell, flags: dict[str, bool]) -> KerasLayer:
        inner = self.cell(cell, owner=f"{owner}cell/", path=path)
        weights = {f"cell/{at}": array for at, array in inner.weights.items()}
        shape = [None, None, cell.input_size]
        return KerasLayer(name, inner.kind.removesuffix("Cell"), {**inner.config, **flags}, weights, shape)

    def _both(self, name: str, paths: list[str], cells: list[Cell], flags: dict[str, bool]) -> KerasLayer:
        ways = {
            way: self._one(
                f"{way}_{name}", f"{name}/{way}/", path, cell, flags | {"go_backwards": way == "backward_layer"}
            )
            for way, path, cell in zip(("forward_layer", "backward_layer"), paths, cells)
        }
        weights = {f"{way}/{path}": array for way, one in ways.items() for path, array in one.weights.items()}
        config = {
            "merge_mode": "concat",
            "layer": described(ways["forward_layer"]),
            "backward_layer": described(ways["backward_layer"]),
        }
        return KerasLayer(name, "Bidirectional", config, weights, [None, None, cells[0].input_size])

    def _learned(self, name: str, module: Module) -> dict[str, Any]:
        """The setting of a layer of which nothing is learned; Keras has one for all of its weights."""
        weights, learned = module.state_dict(), dict(module.named_parameters())
        if learned and (frozen := [each for each in weights if each not in learned]):
            self.report.note(f"{name} has {', '.join(frozen)} frozen here; Keras freezes layers as a whole: all of it "
                             "learns there")  # fmt: skip
        return {} if learned or not weights else {"trainable": False}

    # -- layers without time -------------------------------------------------------------------------------------

    def _same(self, name: str, path: str, *pairs: tuple[str, str, Tensor | None]) -> dict[str, Any]:
        """Weights that go over as they are: Keras' name, ours, and which."""
        given = [(theirs, ours, tensor.numpy().copy()) for theirs, ours, tensor in pairs if tensor is not None]
        for theirs, ours, array in given:
            self.report.add(f"{path}{ours}", array.shape, f"{name}/{theirs}", array.shape)
        return {f"vars/{i}": array for i, (_, _, array) in enumerate(given)}

    def _linear(self, name: str, path: str, layer: nn.Linear) -> KerasLayer:
        config = {"units": layer.output_size, "use_bias": layer.b is not None, "dtype": str(layer.W.dtype)}
        weights = self._same(name, path, ("kernel", "W", layer.W), ("bias", "b", layer.b))
        return KerasLayer(name, "Dense", config, weights, [None, layer.input_size])

    def _embedding(self, name: str, path: str, layer: nn.Embedding) -> KerasLayer:
        config = {"input_dim": layer.symbols, "output_dim": layer.size, "dtype": str(layer.W.dtype)}
        return KerasLayer(name, "Embedding", config, self._same(name, path, ("embeddings", "W", layer.W)), [None, None])

    def _normalization(self, name: str, path: str, layer: nn.LayerNorm) -> KerasLayer:
        config = {"axis": -1, "epsilon": layer.eps, "dtype": str(layer.gain.dtype)}
        weights = self._same(name, path, ("gamma", "gain", layer.gain), ("beta", "shift", layer.shift))
        return KerasLayer(name, "LayerNormalization", config, weights, [None, layer.size])

    def _dropout(self, name: str, path: str, layer: nn.Dropout) -> KerasLayer:
        return KerasLayer(name, "Dropout", {"rate": layer.p})


PLAIN: dict[type[Module], Callable[[Writer, str, str, Any], KerasLayer]] = {
    nn.Linear: Writer._linear,
    nn.Embedding: Writer._embedding,
    nn.LayerNorm: Writer._normalization,
    nn.Dropout: Writer._dropout,
}


def _steps(module: Any) -> Iterator[tuple[str, str, Any]]:
    """What a module does one after another: a name for Keras, where it lies in the module, and the layer itself."""
    parts = parts_of(module)
    if parts is None or isinstance(module, Final):
        yield _usual_name(module), "", module
        return
    if parts.order is None:
        what = "set its order first" if acts_as(module, Layers) else "its forward is Python code, which does not travel"
        raise ConversionError(f"it is not known in which order the layers of this {type(module).__name__} act: {what}")
    for name in parts.order:
        step = parts.layers[name]
        yield _usual_name(step) if isinstance(module, nn.Sequential) else name, f"{parts.path}{name}.", step


def _usual_name(step: Any) -> str:
    return (type(step).__name__ if isinstance(step, Module) else getattr(step, "__name__", "activation")).lower()


def _settled(layers: list[KerasLayer]) -> list[KerasLayer]:
    """With names that Keras takes, each once and without slashes or dots; and a dtype, lest Keras round to its own."""
    dtype = next((each.config["dtype"] for each in layers if "dtype" in each.config), "float32")
    names = Names()
    return [replace(each, name=names.free(re.sub("[/.]", "_", each.name)), config={"dtype": dtype, **each.config})
            for each in layers]  # fmt: skip


def _activations(cell: Any) -> tuple[Activation, Activation]:
    """What a cell has for its gates, and for what is new."""
    chosen = getattr(cell, "activations", None)
    if chosen is None:
        return SIGMOID, ACTIVATIONS[getattr(cell, "activation", "tanh")]
    *gates, new = chosen[:2]
    if chosen[1:2] != chosen[-1:] and len(chosen) == 3:
        raise ConversionError(f"Keras has one activation for what is new and for what goes out, not {chosen[1:]}")
    return (gates or [SIGMOID])[0], new


def _name_of(cell: Cell, function: Activation) -> str:
    known = next((name for name, each in ACTIVATIONS.items() if each == function), None)
    if known is None:
        raise ConversionError(f"{type(cell).__name__} has {function}; Keras has {', '.join(ACTIVATIONS)}, with fixed "
                              "alpha and beta")  # fmt: skip
    return known
