"""`from_keras`: objects of Keras and its files, `.keras` and `.weights.h5`, as modules; the files need no Keras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backend import Array
from ...errors import ConversionError, FileError, OptionError
from ...nn import options
from ...nn.module import Module
from ..files import content, named, needed
from ..layers import LayersGiven, given_layers
from ..report import Report
from . import files
from .config import MOST_LAYERS, layer, plural
from .guessing import guessed
from .hdf5 import MAGIC
from .layers import Reader


def from_keras(
    source: Any, *, layers: LayersGiven | None = None, masks: str = "refuse", report: Report | None = None
) -> Module:  # fmt: skip
    """A module that computes what a layer, a model or a file of Keras computes; in evaluation mode, as Keras' are.

    What has trainable=False there requires no gradients here.

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

    Returns of a layer one of the same kind, with batch_first=True; a recurrent one gives all its outputs in the order
    of time, and its final states, whatever return_sequences and go_backwards say. Of a model the same, if it has one
    layer that gives all its outputs in the order of time; else `Layers` with Keras' names and order, where `Final`
    stands for return_sequences=False, and `walking_order` for what go_backwards does; or one `Final` alone.

    Raises: ConversionError that names the layer and the setting, for what has no exact counterpart; FileError for a
        file that is damaged, hostile or of another kind; OptionError, ShapeError or DtypeError for weights that are
        missing, unexpected, or do not fit; MissingPackage without h5py.
    """
    report = Report() if report is None else report
    reader = Reader(report, masks)
    if isinstance(source, (str, Path)):
        with named(source):
            return _from_file(Path(source), layers, reader)
    if layers is not None:
        raise OptionError("layers= says what a .weights.h5 file does not; everything else brings it along")
    return _from_object(source, reader)


def _from_file(path: Path, layers: LayersGiven | None, reader: Reader) -> Module:
    found = content(path)
    if not found.startswith(MAGIC):
        if layers is not None:
            raise OptionError(f"layers= (--layers) says what a .weights.h5 file does not; {path} brings it along")
        config, weights = files.unzipped(found, str(path))
        return reader.model(reader.chain(config, files.weights(weights, f"{files.WEIGHTS} in {path}")))
    stored = files.weights(found, str(path))
    if not 0 < len(stored) <= MOST_LAYERS:
        have = f"weights of {len(stored):,} layers; up to {MOST_LAYERS:,} are read" if stored else "no weights"
        raise FileError(f"{path} has {have}")
    wanted = dict.fromkeys(sorted(stored)) if layers is None else given_layers(layers)
    if apart := sorted(stored.keys() - wanted.keys()):
        raise OptionError(f"layers= does not name {plural(apart)}, which {path} holds")
    reader.report.note(f"{path} holds no settings: Keras' defaults were assumed for all that the shapes of the weights "
                       "do not show, and that recurrent layers return all outputs")  # fmt: skip
    guesses = [guessed(name, given, stored.get(name, {})) for name, given in wanted.items()]
    return reader.model(guesses, ordered=layers is not None)


def _from_object(source: Any, reader: Reader) -> Module:
    if not hasattr(source, "get_config") or not hasattr(source, "weights"):
        options.kind("from_keras", source, str, Path, words="a layer or a model of Keras, or a path")
    keras = needed("keras", "from_keras of an object")
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
