"""Layers of this package with the settings and weights of Keras' layers; or the setting that stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...backend import Array
from ...errors import ConversionError, OptionError
from ...nn import layers as nn
from ...nn import options
from ...nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from ...nn.module import Module
from ...nn.recurrent import Recurrent
from ..cells import SIGMOID, TANH, Activation
from ..layers import Final, Layer, Layers
from ..names import Names
from ..packing import convention, layer_of, unpacked, varied_of
from ..report import Report
from .config import (
    ACTIVATIONS,
    CELLS,
    FUNCTIONS,
    KerasLayer,
    Settings,
    chain,
    layer,
    no_counterpart,
    plural,
    walking_order,
)

MASKS = {
    "refuse": "masks steps, which the layers after it then skip wherever they stand, and no layer here does. If only "
    'ends of sequences are padding, masks="lengths" leaves the mask out, and lengths= at each call does what it did',
    "lengths": "masks steps, and does not here: give lengths= at each call. Outputs past the end are then zero, where "
    "Keras may repeat the last one; final states are the same",
}
FLAGS = ("return_sequences", "return_state", "go_backwards", "time_major", "stateful")


class Reader:
    """Makes our layers of Keras' ones, and notes down what went where.

    masks: "refuse" or "lengths", what to do about layers that make masks.

    Raises: from all it does, ConversionError for what has no counterpart here; OptionError, ShapeError or DtypeError
        for weights that are missing, unexpected or do not fit.
    """

    def __init__(self, report: Report, masks: str = "refuse") -> None:
        self.report, self.masks = report, options.choice("masks", masks, MASKS)

    def chain(self, model: Any, weights: Mapping[str, Mapping[str, Array]]) -> list[KerasLayer]:
        """The layers of a model as Keras describes it, in their order; see `config.chain`."""
        return chain(model, weights, masks=self.masks == "refuse")

    def model(self, layers: Sequence[KerasLayer], *, ordered: bool = True) -> Module:
        """All layers of a model; if there is only one, it alone. ordered: whether they act in this order."""
        layers = [each for each in layers if each.kind != "InputLayer"]
        if len(layers) == 1:
            return self.alone(layers[0])
        return _joined([part for stored in layers for part in self.parts(stored, f"layers.{stored.name}.")], ordered)

    def alone(self, stored: KerasLayer) -> Module:
        """A layer by itself: a recurrent one gives all its outputs in the order of time, and its final states."""
        if stored.kind in RECURRENT:
            made, flags = self._recurrent(stored, "")
            if not flags["return_sequences"]:
                self.report.note(f"{stored} has return_sequences=False: what it returned is the final state here")
            if flags["go_backwards"]:
                self.report.note(f"{stored} has go_backwards=True: its outputs came in the order in which it walks, "
                                 "and come in the order of time here")  # fmt: skip
            return made.eval()
        if stored.kind.endswith("Cell"):
            return self._cell(stored, stored.weights, f"{stored.name}/", "").eval()
        parts = self.parts(stored, "")
        only = parts[0][1] if len(parts) == 1 else None
        return only.eval() if isinstance(only, Module) else _joined(parts)

    def parts(self, stored: KerasLayer, to: str) -> list[tuple[str, Layer]]:
        """What does the same here, by names: no layer, one, or several one after another."""
        if stored.kind in PLAIN:
            settings = Settings(str(stored), stored.config, self.report)
            found = PLAIN[stored.kind](self, stored, settings, to)
            settings.nothing_left()
            _freeze(stored, *[made for _, made in found])
            return found
        if stored.kind not in RECURRENT:
            raise no_counterpart(stored)
        made, flags = self._recurrent(stored, to if _gives_all(stored.config) else f"{to}layer.")
        if flags["return_state"]:
            raise ConversionError(f"{stored} has return_state=True; nothing within a model takes its states here")
        if not flags["return_sequences"]:
            return [(stored.name, Final(made))]
        turned = [(f"{stored.name}_walking_order", walking_order)] if flags["go_backwards"] else []
        return [(stored.name, made), *turned]

    # -- recurrent layers ----------------------------------------------------------------------------------------

    def _recurrent(self, stored: KerasLayer, to: str) -> tuple[Recurrent, dict[str, bool]]:
        """A layer around one cell, or two, and what Keras does with its outputs."""
        if stored.kind == "Bidirectional":
            return self._bidirectional(stored, to)
        cell, flags = self._walked(stored, stored.weights, f"{stored.name}/", f"{to}cells.0.")
        return layer_of([cell], batch_first=True, reverse=flags["go_backwards"]), flags

    def _bidirectional(self, stored: KerasLayer, to: str) -> tuple[Recurrent, dict[str, bool]]:
        settings = Settings(str(stored), stored.config, self.report)
        settings.needs("merge_mode", "concat", because="outputs of both directions stand side by side here")
        forward = settings.take("layer", Mapping, None)
        backward = settings.take("backward_layer", (Mapping, type(None)), None)
        settings.nothing_left()
        walks = []
        weights = _below(stored, "forward_layer/", "backward_layer/")
        for place, (part, described) in enumerate(zip(weights, (forward, backward or forward))):
            each = layer(described)
            walks.append(self._walked(each, weights[part], f"{stored.name}/{part}", f"{to}cells.{place}."))
        (one, flags), (other, flags_back) = walks
        if flags["go_backwards"] or (backward and not flags_back["go_backwards"]):
            raise ConversionError(f"{stored} has go_backwards={flags['go_backwards']} for its forward layer and "
                                  f"{flags_back['go_backwards']} for the other; False and True convert")  # fmt: skip
        different = [name for name in ("return_sequences", "return_state") if flags[name] != flags_back[name]]
        different += [name for name in ("activation", "activations", "reset", "bias")
                      if getattr(one, name, None) != getattr(other, name, None)]  # fmt: skip
        if type(one) is not type(other) or different:
            raise ConversionError(f"the two directions of {stored} differ in {plural(different or ['class'])}; only "
                                  "their weights may")  # fmt: skip
        _freeze(stored, one, other)
        return layer_of([one, other], batch_first=True, bidirectional=True), flags

    def _walked(
        self, stored: KerasLayer, weights: Mapping[str, Array], owner: str, to: str
    ) -> tuple[Cell, dict[str, bool]]:  # fmt: skip
        """The cell of a layer that walks in one direction, and what Keras does with its outputs."""
        of_cell = {name: value for name, value in stored.config.items() if name not in FLAGS}
        flags = Settings(str(stored), {k: v for k, v in stored.config.items() if k in FLAGS}, self.report)
        found = {name: flags.flag(name) for name in ("return_sequences", "return_state", "go_backwards")}
        flags.needs("time_major", False, because="only x of (N, T, I) converts")
        if flags.flag("stateful"):
            self.report.note(f"{stored} is stateful: hand the final state of one call to the next one yourself")
        cell = KerasLayer(stored.name, stored.kind, of_cell)
        if stored.kind == "RNN":
            cell = layer(of_cell.pop("cell", None))
            if not cell.kind.endswith("Cell"):
                raise ConversionError(f"{stored} walks with {cell}, which is no cell that converts")
            Settings(str(stored), of_cell, self.report).nothing_left()
        below = {path.removeprefix("cell/"): array for path, array in weights.items()}
        made = self._cell(cell, below, f"{owner}cell/", to)
        _freeze(stored, made)
        return made, found

    def _cell(self, stored: KerasLayer, weights: Mapping[str, Array], owner: str, to: str) -> Cell:
        """The cell of its own kind, or that of a layer."""
        if stored.kind.removesuffix("Cell") not in CELLS:
            raise ConversionError(f"the cell {stored} has no counterpart here; those of {', '.join(CELLS)} have one")
        usual = CELLS[stored.kind.removesuffix("Cell")]
        settings = Settings(str(stored), stored.config, self.report)
        bias = settings.flag("use_bias", True)
        g = settings.function("activation", "tanh", ACTIVATIONS)
        f = settings.function("recurrent_activation", "sigmoid", ACTIVATIONS) if usual is not RNNCell else SIGMOID
        reset = ("after" if settings.flag("reset_after", True) else "before") if usual is GRUCell else None
        row = convention("keras", usual, reset)
        arrays = _numbered(str(stored), weights, [slot.name for slot in row.slots][: 2 + bias])
        how = _activations(usual, f, g)
        cell = unpacked(row, arrays, owner=owner, report=self.report, to=to, **how)
        settings.size("units", cell.hidden_size)
        for name in ("dropout", "recurrent_dropout"):
            settings.while_training(name)
        settings.nothing_left()
        _freeze(stored, cell)
        return cell

    # -- layers without time -------------------------------------------------------------------------------------

    def _same(self, stored: KerasLayer, to: str, *names: tuple[str, str]) -> list[Array]:
        """Weights that go over as they are, by pairs of Keras' name and ours."""
        arrays = _numbered(str(stored), stored.weights, [theirs for theirs, _ in names])
        for theirs, ours in names:
            array = arrays[theirs]
            if array.dtype.kind != "f" or not array.size:
                raise ConversionError(
                    f"{stored} has {theirs} {array.shape} {array.dtype}; numbers with a point convert"
                )
            self.report.add(f"{stored.name}/{theirs}", array.shape, f"{to}{ours}", array.shape)
        return list(arrays.values())

    def _masks(self, stored: KerasLayer) -> None:
        if self.masks == "refuse":
            raise ConversionError(f"{stored} {MASKS[self.masks]}")
        self.report.note(f"{stored} {MASKS[self.masks]}")

    def _dense(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        bias = settings.flag("use_bias", True)
        W, *b = self._same(stored, to, ("kernel", "W"), *[("bias", "b")] * bias)
        if W.ndim != 2 or any(each.shape != W.shape[1:] for each in b):
            raise ConversionError(f"{stored} has weights {plural([W.shape, *(each.shape for each in b)])}; "
                                  "a matrix (I, O) and a bias (O) convert")  # fmt: skip
        settings.size("units", W.shape[1])
        linear = nn.Linear(*W.shape, bias=bias, init="zeros", dtype=W.dtype)
        linear.load_state_dict(dict(zip(("W", "b"), (W, *b))))
        return [(stored.name, linear), *self._function(stored, settings, f"{stored.name}_activation")]

    def _function(self, stored: KerasLayer, settings: Settings, name: str) -> list[tuple[str, Layer]]:
        function = settings.function("activation", "linear", FUNCTIONS)
        return [] if function is FUNCTIONS["linear"] else [(name, function)]

    def _activation(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        self._same(stored, to)
        return self._function(stored, settings, stored.name)

    def _embedding(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        (W,) = self._same(stored, to, ("embeddings", "W"))
        if W.ndim != 2:
            raise ConversionError(f"{stored} has embeddings of shape {W.shape}; a matrix (V, E) converts")
        settings.size("input_dim", W.shape[0])
        settings.size("output_dim", W.shape[1])
        if settings.flag("mask_zero"):
            self._masks(stored)
        embedding = nn.Embedding(*W.shape, init="zeros", dtype=W.dtype)
        embedding.load_state_dict({"W": W})
        return [(stored.name, embedding)]

    def _normalization(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        scale, center = settings.flag("scale", True), settings.flag("center", True)
        settings.needs("rms_scaling", False, because="what converts takes off the mean")
        rank = len(stored.shape) if isinstance(stored.shape, Sequence) else None
        last = (-1, [-1]) if rank is None else (-1, [-1], rank - 1, [rank - 1])
        settings.needs("axis", *last, because="only the last axis alone can be normalised here")
        eps = settings.number("epsilon", 1e-3)
        arrays = self._same(stored, to, *[("gamma", "gain")] * scale, *[("beta", "shift")] * center)
        if not arrays:
            raise ConversionError(
                f"{stored} has scale=False and center=False, and so no weights that say how wide it is"
            )
        given = dict(zip(["gain"] * scale + ["shift"] * center, arrays))
        if len({each.shape for each in arrays}) > 1 or arrays[0].ndim != 1:
            raise ConversionError(f"{stored} has weights {plural([each.shape for each in arrays])}; one axis converts")
        made = nn.LayerNorm(arrays[0].size, eps=eps, dtype=arrays[0].dtype)
        made.load_state_dict(given, strict=False)
        if len(given) < 2:
            self.report.note(
                f"{stored} has no {'shift' if scale else 'gain'}; the one here starts without effect, and learns"
            )
        return [(stored.name, made)]

    def _dropout(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        self._same(stored, to)
        settings.needs("noise_shape", None, because="every number is dropped for itself here")
        return [(stored.name, nn.Dropout(settings.number("rate", 0.0)))]

    def _masking(self, stored: KerasLayer, settings: Settings, to: str) -> list[tuple[str, Layer]]:
        self._same(stored, to)
        settings.number("mask_value", 0.0)
        self._masks(stored)
        return []


RECURRENT = (*CELLS, "RNN", "Bidirectional")
PLAIN: dict[str, Callable[[Reader, KerasLayer, Settings, str], list[tuple[str, Layer]]]] = {
    "Dense": Reader._dense,
    "Embedding": Reader._embedding,
    "LayerNormalization": Reader._normalization,
    "Dropout": Reader._dropout,
    "Activation": Reader._activation,
    "Masking": Reader._masking,
}


def _freeze(stored: KerasLayer, *layers: Any) -> None:
    """Nothing of a layer is learned here, if it is not there."""
    if stored.config.get("trainable") is False:
        for module in layers:
            for parameter in module.parameters() if isinstance(module, Module) else ():
                parameter.requires_grad = False


def _gives_all(config: Mapping[str, Any]) -> bool:
    """Whether a recurrent layer gives all its outputs, as far as its settings make sense."""
    inner = config.get("layer")
    if isinstance(inner, Mapping) and isinstance(inner.get("config"), Mapping):
        config = inner["config"]
    return bool(config.get("return_sequences"))


def _joined(parts: Sequence[tuple[str, Layer]], ordered: bool = True) -> Layers:
    """Layers, each under a name of its own."""
    names = Names()
    made = {names.free(name): part for name, part in parts}
    return Layers(made, made if ordered else None).eval()


def _activations(usual: type[Cell], f: Activation, g: Activation) -> dict[str, Any]:
    """The kind of cell, and its options, that has f for its gates and g for what is new."""
    if usual is RNNCell and g in (TANH, ACTIVATIONS["relu"]):
        return {"activation": g.name.lower()}
    if (f, g) == (SIGMOID, TANH):
        return {}
    chosen = {RNNCell: (g,), GRUCell: (f, g), LSTMCell: (f, g, g)}[usual]
    return {"kind": varied_of(usual), "activations": chosen}


def _numbered(text: str, weights: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The weights of one layer or cell by their names, where Keras numbers them; no more and no fewer than needed."""
    wanted = {f"vars/{i}": name for i, name in enumerate(names)}
    have = {path: array for path, array in weights.items() if "seed_generator/" not in path}
    wrong = [f"{wanted[path]} ({path}) is missing" for path in wanted if path not in have]
    wrong += [f"{path} is unexpected" for path in sorted(have) if path not in wanted]
    if wrong:
        raise OptionError(f"the weights of {text} do not fit its settings: {plural(wrong)}")
    return {name: np.asarray(have[path]) for path, name in wanted.items()}


def _below(stored: KerasLayer, *parts: str) -> dict[str, dict[str, Array]]:
    """The weights of the layers within a layer."""
    found: dict[str, dict[str, Array]] = {part: {} for part in parts}
    for path, array in stored.weights.items():
        part = next((each for each in parts if path.startswith(each)), None)
        if part is None:
            raise OptionError(f"the weights of {stored} do not fit its settings: {path} is unexpected")
        found[part][path.removeprefix(part)] = array
    return found
