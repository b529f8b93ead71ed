"""Keras models to and from here: layer objects, and the files `.keras` and `.weights.h5`, which need no Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backend import Array
from ...errors import ConversionError, FileError, OptionError
from ...nn.cells import Cell
from ...nn.module import Module
from ...train.checkpoint import write
from ..files import content, needed
from ..names import Names
from ..packing import cell_by_matrix
from ..report import Report
from . import files
from .config import CELLS, SNAKES, Stored, described, layer, plural, sequential, short, stored_names
from .hdf5 import MAGIC
from .reading import Reader
from .writing import Writer

SUFFIXES = (".keras", ".weights.h5")
PURPOSE = "an object of Keras"


def from_keras(
    source: Any, *, layers: Mapping[str, Any] | None = None, masks: str = "refuse", report: Report | None = None
) -> Module:  # fmt: skip
    """A module that computes what a layer, a model or a file of Keras computes; in evaluation mode, as Keras' are.

    source: a layer or a cell (SimpleRNN, GRU, LSTM, RNN of their cells, Bidirectional, Dense, Embedding, Dropout,
        LayerNormalization, Activation), a Sequential, or a Functional without branches, each of them built; or the
        path of a `.keras` or `.weights.h5` file, for which h5py is needed, and Keras is not.
    layers: for `.weights.h5` only, which holds neither settings nor order: what the file calls the layers, in the
        order in which they act. To each its class, such as "GRU", or a mapping of settings that differ from Keras'
        defaults, such as {"class_name": "GRU", "return_sequences": False}, or None to go by the shapes of the weights.
        Without it the order is left open, and outputs of all steps and the usual activations are taken for granted.
    masks: "lengths" leaves the masks of Embedding(mask_zero=True) and Masking out, and lengths= at each call does
        what they did, if only the ends of sequences are padding; "refuse" refuses.
    report: takes down what went where, and what did not come along.

    Returns a recurrent layer with batch_first=True, or a layer of another kind, if there is only one; a recurrent
    layer alone gives all its outputs in the order of time, and its final states, whatever return_sequences and
    go_backwards say. Else `Layers` with Keras' names and order, where `Final` stands for return_sequences=False.

    Raises: ConversionError that names the layer and the setting, for what has no exact counterpart; FileError for a
        file that is damaged, hostile or of another kind; OptionError, ShapeError or DtypeError for weights that are
        missing, unexpected, or do not fit; MissingPackage without h5py.
    """
    report = Report() if report is None else report
    reader = Reader(report, masks)
    if isinstance(source, (str, Path)):
        return _from_file(Path(source), layers, reader)
    if layers is not None:
        raise OptionError("layers= says what a .weights.h5 file does not; everything else brings it along")
    return _from_object(source, reader)


def _from_file(path: Path, layers: Mapping[str, Any] | None, reader: Reader) -> Module:
    found = content(path)
    if not found.startswith(MAGIC):
        if layers is not None:
            raise OptionError(f"layers= says what a .weights.h5 file does not; {path} brings it along")
        config, weights = files.unzipped(found, str(path))
        return reader.model(reader.chain(config, files.weights(weights, f"{files.WEIGHTS} in {path}")))
    stored = files.weights(found, str(path))
    if not stored:
        raise FileError(f"{path} has no weights")
    wanted = dict.fromkeys(sorted(stored)) if layers is None else layers
    if apart := sorted(stored.keys() - wanted.keys()):
        raise OptionError(f"layers= does not name {plural(apart)}, which {path} holds")
    reader.report.note(f"{path} holds no settings: Keras' defaults were assumed for all that the shapes of the weights "
                       "do not show, and that recurrent layers return all outputs")  # fmt: skip
    guessed = [_guessed(name, given, stored.get(name, {})) for name, given in wanted.items()]
    return reader.model(guessed, ordered=layers is not None)


def _guessed(name: str, given: Any, weights: dict[str, Array]) -> Stored:
    """A layer by the shapes of its weights, and what somebody said about it."""
    if not (given is None or isinstance(given, (str, Mapping))):
        raise OptionError(f"layers= has {short(given)} for {name}; a class, a mapping of settings or None would fit")
    settings = {"class_name": given} if isinstance(given, str) else dict(given or {})
    kind = settings.pop("class_name", None) or _kind(name, weights)
    below = next((each for each in ("forward_layer/cell/", "cell/") if f"{each}vars/0" in weights), "")
    bias = weights.get(f"{below}vars/{1 if kind == 'Dense' else 2}")
    guess: dict[str, Any] = {"use_bias": bias is not None} if below or kind == "Dense" else {}
    if below:
        guess["return_sequences"] = True
    inner = _by_recurrence(weights, below) if kind in ("Bidirectional", "RNN") else kind
    if inner == "GRU" and bias is not None:
        guess["reset_after"] = bias.ndim == 2
    if kind == "Bidirectional":
        inside = {"module": "keras.layers", "class_name": inner, "config": guess | settings}
        return Stored(name, kind, {"layer": inside}, weights)
    if kind == "RNN":
        kind = str(inner)
    return Stored(name, kind, guess | settings, weights)


def _kind(name: str, weights: Mapping[str, Array]) -> str:
    """The class of a layer, by what its weights look like."""
    shapes = [weights[path].ndim for path in sorted(weights)]
    if "forward_layer/cell/vars/0" in weights:
        return "Bidirectional"
    if "cell/vars/0" in weights:
        return _by_recurrence(weights, "cell/")
    by_name = next((kind for kind, snake in SNAKES.items() if name.rstrip("0123456789").rstrip("_") == snake), None)
    found = by_name or {(2, 1): "Dense", (1, 1): "LayerNormalization"}.get(tuple(shapes))
    if found is None:
        raise ConversionError(f"the weights of {short(name)} do not show what it is; say it, as in "
                              f"layers={{{name[:60]!r}: 'Embedding', ...}}")  # fmt: skip
    return found


def _by_recurrence(weights: Mapping[str, Array], below: str) -> str:
    shape = weights[f"{below}vars/1"].shape if f"{below}vars/1" in weights else ()
    found = cell_by_matrix("keras", shape)
    if found is None:
        raise ConversionError(f"a recurrent kernel of shape {shape} is that of no cell: (H, H), (H, 3H) or (H, 4H) is")
    return next(kind for kind, cell in CELLS.items() if cell is found)


# -- objects -----------------------------------------------------------------------------------------------------


def _from_object(source: Any, reader: Reader) -> Module:
    if not hasattr(source, "get_config") or not hasattr(source, "weights"):
        raise OptionError(f"from_keras takes a layer or a model of Keras, or a path, not a {type(source).__name__}")
    keras = needed("keras", PURPOSE)
    try:
        config = keras.saving.serialize_keras_object(source)
    except NotImplementedError:
        raise ConversionError(f"{type(source).__name__} is a model in code of its author's, which does not say what it "
                              "does; convert its layers one by one") from None  # fmt: skip
    parts = list(getattr(source, "layers", [])) or [source]
    if idle := [each.name for each in parts if not each.built]:
        raise ConversionError(f"{plural(idle)} has no weights yet: call the model once, or build it")
    if not hasattr(source, "layers"):
        return reader.alone(replace(layer(config), weights=dict(_variables(keras, source))))
    names = {each.name: dict(_variables(keras, each)) for each in parts}
    return reader.model([replace(each, weights=names.get(each.name, {})) for each in reader.chain(config, {})])


def _variables(keras: Any, part: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """The weights of a layer of Keras by their paths in a file."""
    inner = [name for name in ("forward_layer", "backward_layer", "cell") if hasattr(part, name)]
    for name in inner:
        yield from _variables(keras, getattr(part, name), f"{path}{name}/")
    if not inner:
        yield from ((f"{path}vars/{i}", keras.ops.convert_to_numpy(each)) for i, each in enumerate(part.weights))


def to_keras(module: Module, path: str | Path | None = None, *, report: Report | None = None) -> Any:
    """What Keras needs to compute what a module computes: an object of Keras, or a file that Keras reads.

    module: a layer, a cell, `Layers` with an order, a `Sequential`, or a `LanguageModel` (which gives logits). Keras
        takes (N, T, I), with batch_first=True or not.
    path: of a `.keras` file, which keras.models.load_model reads, or a `.weights.h5`, which load_weights of a model
        of the same layers reads; it is written through h5py, and Keras is not needed. None: returns the object, for
        which it is: a layer or a cell, or a Sequential, if one is not enough.
    report: takes down what went where.

    Raises: ConversionError with the reason, for what Keras cannot compute; MissingPackage; OptionError for a path of
        another kind; OutputError.
    """
    writer = Writer(Report() if report is None else report)
    if path is not None:
        return _to_file(writer.model(module), Path(path))
    keras = needed("keras", PURPOSE)
    if isinstance(module, Cell):
        return _object(keras, writer.cell(module))
    found = writer.model(module)
    if len(found) == 1:
        return _object(keras, found[0])
    model = keras.saving.deserialize_keras_object(_model(found))
    for each, stored in zip(model.layers, found, strict=True):
        each.set_weights(_in_order(stored))
    return model


def _to_file(found: list[Stored], path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise OptionError(f"{path} is to be a file of Keras, and ends in neither {' nor '.join(SUFFIXES)}")
    weights = dict(zip(stored_names(found), (each.weights for each in found)))
    write(path, files.keras_file(_model(found), weights) if path.suffix == ".keras" else files.weights_file(weights))


def _model(found: list[Stored]) -> dict[str, Any]:
    """The Sequential of layers, with the input that they take before them."""
    first = next((each for each in found if each.shape is not None), None)
    shape = [None] if first is None else list(first.shape)
    if any(len(each.shape or ()) == 3 for each in found) and shape[-1] is not None:
        shape = [None, None, shape[-1]]
    dtype = "int32" if found[0].kind == "Embedding" else found[0].config["dtype"]
    name = Names(each.name for each in found).free("input")
    start = Stored(name, "InputLayer", {"batch_shape": shape, "dtype": dtype})
    return sequential([start, *found])


def _object(keras: Any, stored: Stored) -> Any:
    made = keras.saving.deserialize_keras_object(described(stored))
    made.build(tuple(stored.shape or (None,)))
    made.set_weights(_in_order(stored))
    return made


def _in_order(stored: Stored) -> list[Array]:
    """Weights as Keras lists them."""
    return list(stored.weights.values())
