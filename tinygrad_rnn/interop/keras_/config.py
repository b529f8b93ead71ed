"""Keras models as plain data: layers one after another, each with the settings and weights that Keras knows it by.

What `get_config` of an object says and what `config.json` of a file says is the same, so that both are read here,
and what is written for both is made here. Nothing of it is ever executed.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...backend import Array
from ...errors import ConversionError
from ...nn.cells import Cell
from ...ops import elementwise as e
from ...ops.reductions import log_softmax, softmax
from ...ops.shapes import flip
from ..cells import Activation, activation
from ..conventions import CONVENTIONS
from ..report import Report

Config = Mapping[str, Any]
MOST_LAYERS = 1_000

FILE_NAMES = {
    "SimpleRNN": "simple_rnn", "GRU": "gru", "LSTM": "lstm", "RNN": "rnn", "Bidirectional": "bidirectional",
    "Dense": "dense", "Embedding": "embedding", "LayerNormalization": "layer_normalization", "Dropout": "dropout",
    "Activation": "activation", "InputLayer": "input_layer", "Masking": "masking",
}  # fmt: skip
"""What files call the layers of a class: this, and the next of the same class this with _1 and so on."""

CELLS: dict[str, type[Cell]] = {row.classes.rpartition(".")[2]: row.cell for row in CONVENTIONS if row.key == "keras"}
"""The recurrent layers around one cell, by Keras' names, each with the cell of this package."""

ACTIVATIONS: dict[str, Activation] = {
    "elu": activation("Elu"),
    "hard_sigmoid": activation("HardSigmoid", 1 / 6, 0.5),  # in Keras 3; it was 0.2 x + 0.5 before
    "leaky_relu": activation("LeakyRelu", 0.2),
    "linear": activation("Affine"),
    "relu": activation("Relu"),
    "sigmoid": activation("Sigmoid"),
    "softplus": activation("Softplus"),
    "softsign": activation("Softsign"),
    "tanh": activation("Tanh"),
}
"""The activations that cells can have, by Keras' names."""

FUNCTIONS: dict[str, Any] = ACTIVATIONS | {
    "elu": e.elu, "exponential": e.exp, "gelu": e.gelu, "log_softmax": log_softmax, "relu": e.relu,
    "sigmoid": e.sigmoid, "silu": e.silu, "softmax": softmax, "softplus": e.softplus, "tanh": e.tanh,
}  # fmt: skip
"""The functions that can stand between layers, by Keras' names."""


def walking_order(x: Any) -> Any:
    """(N, T, ...) with its steps in the opposite order: Keras hands on what `go_backwards` gives as it comes."""
    return flip(x, axis=1)


@dataclass(frozen=True)
class KerasLayer:
    """A layer of Keras: its name and class, its settings, and its weights by their paths below the layer's own.

    shape: of what it takes, where that is known; None for an axis of any size.
    """

    name: str
    kind: str
    config: Config
    weights: Mapping[str, Array] = field(default_factory=dict)
    shape: Any = None

    def __str__(self) -> str:
        return f"{self.kind} {short(self.name)}"


def short(value: Any) -> str:
    """What somebody else wrote, in a message: not more of it than fits."""
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = 60
    return cut.repr(value)


def plural(words: Sequence[Any]) -> str:
    """A few of many names."""
    return ", ".join(str(each)[:60] for each in words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


class Settings:
    """The settings of a layer, each to be taken once: what is left in the end is what nobody knows.

    Raises: ConversionError, from everything here, with the name of the setting.
    """

    def __init__(self, owner: str, config: Any, report: Report) -> None:
        self.owner, self._report = owner, report
        self._left = dict(mapping(owner, config))
        self._left.pop("name", None)

    def take(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """A setting of a type."""
        value = self._left.pop(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConversionError(f"{self.owner} has {name}={short(value)}, which is none that Keras would write")
        return value

    def number(self, name: str, default: float) -> float:
        """A setting that is a finite number."""
        value = self.take(name, (int, float), default)
        if not -1e300 < value < 1e300:
            raise ConversionError(f"{self.owner} has {name}={short(value)}, which is no finite number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A setting that is true or false."""
        return bool(self.take(name, bool, default))

    def needs(self, name: str, *values: Any, because: str) -> None:
        """A setting that has to have one of these values, or be left out."""
        value = self._left.pop(name, values[0])
        if not any(type(value) is type(each) and value == each for each in values):
            raise ConversionError(f"{self.owner} has {name}={short(value)}; {because}")

    def size(self, name: str, actual: int) -> None:
        """A setting that says how large the weights are."""
        self.needs(name, actual, because=f"its weights have {actual}")

    def function(self, name: str, default: str, known: Mapping[str, Any]) -> Any:
        """A function by its name. Only by its name: what else can stand here is code."""
        value = self._left.pop(name, default)
        value = "linear" if value is None else value
        if not isinstance(value, str) or value not in known:
            raise ConversionError(
                f"{self.owner} has {name}={short(value)}; what can be converted there is {', '.join(sorted(known))}"
            )
        return known[value]

    def while_training(self, name: str) -> None:
        """A setting that acts while training only."""
        if self._left.pop(name, None):
            self._report.note(f"{self.owner}: {name} acts while training, and did not come along")

    def nothing_left(self) -> None:
        """Nothing may be left but what has no effect on what the layer computes."""
        for name in list(self._left):
            if name.endswith(("_regularizer", "_constraint")):
                self.while_training(name)
            elif name.endswith("_initializer") or name in WITHOUT_EFFECT:
                del self._left[name]
        dtype = self._left.pop("dtype", None)
        self._dtype(dtype)
        if unknown := [name for name, value in self._left.items() if value is not None and value is not False]:
            known = [f"{each[:60]}={short(self._left[each])}" for each in unknown]
            raise ConversionError(f"{self.owner} has {plural(known)}, which is not known here")

    def _dtype(self, dtype: Any) -> None:
        """The dtype of the weights is their own; what it is computed in besides may be another."""
        if isinstance(dtype, Mapping):
            inner = dtype.get("config")
            dtype = (
                inner.get("name") if isinstance(inner, Mapping) and dtype.get("class_name") == "DTypePolicy" else dtype
            )
        if isinstance(dtype, str) and dtype.startswith("mixed_"):
            self._report.note(f"{self.owner} computed in {dtype[:30]} there, and does in the dtype of its weights here")
        elif not (dtype is None or isinstance(dtype, str)):
            raise ConversionError(f"{self.owner} has dtype={short(dtype)}; only plain floating dtypes are converted")


WITHOUT_EFFECT = ("trainable", "seed", "unroll", "implementation", "use_cudnn", "unit_forget_bias",
                  "zero_output_for_mask", "batch_input_shape", "input_length", "sparse", "input_dtype")  # fmt: skip


def mapping(owner: str, value: Any) -> Config:
    """value, provided that it is an object of JSON.

    Raises: ConversionError.
    """
    if not isinstance(value, Mapping):
        raise ConversionError(f"{owner} is described by {short(value)}, and not by names and values as Keras does")
    return value


def layer(described: Any) -> KerasLayer:
    """A layer as Keras serialises it: {"module": ..., "class_name": ..., "config": {"name": ..., ...}}.

    Raises: ConversionError for a class that is not one of Keras' own, or not converted.
    """
    described = mapping("a layer", described)
    kind, config = described.get("class_name"), mapping("a layer", described.get("config"))
    module, registered = described.get("module"), described.get("registered_name")
    if isinstance(module, str) and module.startswith("keras.src.ops"):
        raise ConversionError(f"the model computes {short(kind)} between its layers; layers one after another convert, "
                              'and a mask, if only ends of sequences are padding, with masks="lengths"')  # fmt: skip
    foreign = not (module is None or module in ("keras.layers", "keras")) or registered not in (None, kind)
    if not isinstance(kind, str) or foreign:
        what = short(kind) if not foreign else f"{short(kind)} of {short(registered or module)}"
        raise ConversionError(f"{what} is none of Keras' own layers: what it computes is code, which is not run")
    name = config.get("name", FILE_NAMES.get(kind, kind))
    if not isinstance(name, str) or not name:
        raise ConversionError(f"a layer {short(kind)} has the name {short(name)}")
    built = described.get("build_config")
    shape = built.get("input_shape") if isinstance(built, Mapping) else None
    return KerasLayer(name, kind, config, shape=shape)


def no_counterpart(stored: KerasLayer) -> ConversionError:
    """The refusal of a layer."""
    return ConversionError(
        f"the layer {stored} has no counterpart here; these have one: {', '.join(sorted(FILE_NAMES))}"
    )


def chain(model: Any, weights: Mapping[str, Mapping[str, Array]], *, masks: bool = True) -> list[KerasLayer]:
    """The layers of a Sequential or Functional model in the order in which they act.

    weights: of each layer, by the name that `stored_names` gives it.
    masks: whether those that a Functional computes between its layers are part of it; False leaves them out.

    Raises: ConversionError for models with branches, several inputs or outputs, or layers within layers.
    """
    model = mapping("the model", model)
    kind, config = model.get("class_name"), mapping("the model", model.get("config"))
    described = config.get("layers")
    if kind not in ("Sequential", "Functional", "Model") or not isinstance(described, Sequence):
        raise ConversionError(f"the model is a {short(kind)}, which is code of its author's and not run; a Sequential "
                              "or a Functional without branches converts, and of all others each layer")  # fmt: skip
    if not masks:
        described = [each for each in described if not _makes_a_mask(each)]
    if len(described) > MOST_LAYERS:
        raise ConversionError(f"the model has {len(described):,} layers; up to {MOST_LAYERS:,} are converted")
    plain = [layer(each) for each in described]
    if unknown := [each for each in plain if each.kind not in FILE_NAMES]:
        raise no_counterpart(unknown[0])
    found = {each.name: replace(each, weights=weights.get(at, {})) for each, at in zip(plain, stored_names(plain))}
    if len(found) < len(plain):
        name = Counter(each.name for each in plain).most_common(1)[0][0]
        raise ConversionError(f"several layers have the name {short(name)}")
    if unused := sorted(weights.keys() - set(stored_names(plain))):
        raise ConversionError(f"there are weights of {plural(unused)}, which are none of the model's layers")
    return [found[name] for name in (found if kind == "Sequential" else _path(config, described, list(found), masks))]


def _makes_a_mask(described: Any) -> bool:
    """Whether this is one of the operations that a Functional has beside an Embedding(mask_zero=True) or a Masking."""
    kind = (described.get("module"), described.get("class_name")) if isinstance(described, Mapping) else ()
    return kind in (("keras.src.ops.numpy", "NotEqual"), ("keras.src.ops.numpy", "Any"))


def _path(config: Config, described: Sequence[Any], names: list[str], masks: bool) -> list[str]:
    """The layers of a Functional from its input to its output, provided that each has one input, the one before."""
    first, last = (_only(config.get(key), key) for key in ("input_layers", "output_layers"))
    before = {name: _input(name, each.get("inbound_nodes"), masks) for name, each in zip(names, described)}
    path: dict[str, None] = {}
    name: str | None = last
    while name is not None and name in before and name not in path:
        path[name] = None
        name = before[name]
    if list(path)[-1:] != [first] or len(path) < len(names):
        apart = [each for each in names if each not in path] or [last]
        raise ConversionError(f"the model is no plain chain from {short(first)} to {short(last)}: {plural(apart)} "
                              "stands apart; convert its layers one by one")  # fmt: skip
    return list(path)[::-1]


def _only(ends: Any, which: str) -> str:
    """The one input or output of a model, ["name", 0, 0]."""
    end = ends[0] if isinstance(ends, Sequence) and len(ends) == 1 else ends
    if isinstance(end, Sequence) and len(end) == 3 and isinstance(end[0], str):
        return end[0]
    raise ConversionError(f"the model has {which}={short(ends)}; only models with one input and one output convert")


def _input(name: str, nodes: Any, masks: bool) -> str | None:
    """The layer that the one call of a layer takes its input from; None for that which takes none."""
    if nodes == []:
        return None
    if isinstance(nodes, Sequence) and len(nodes) == 1 and isinstance(nodes[0], Mapping):
        args, keywords = nodes[0].get("args"), nodes[0].get("kwargs", {})
        plain = isinstance(keywords, Mapping) and not any(
            value for keyword, value in keywords.items() if masks or keyword != "mask"
        )
        if plain and isinstance(args, Sequence) and len(args) == 1 and isinstance(args[0], Mapping):
            history = mapping(name, args[0].get("config")).get("keras_history")
            if isinstance(history, Sequence) and len(history) == 3 and isinstance(history[0], str):
                return history[0]
    raise ConversionError(f"the layer {short(name)} is called with {short(nodes)}; one call with one input converts")


def stored_names(layers: Sequence[KerasLayer]) -> list[str]:
    """What files call layers: after their class, and counted."""
    counts: Counter[str] = Counter()
    names = []
    for each in layers:
        snake = FILE_NAMES[each.kind]
        names.append(f"{snake}_{counts[snake]}" if counts[snake] else snake)
        counts[snake] += 1
    return names


def described(stored: KerasLayer) -> dict[str, Any]:
    """The layer as Keras serialises it, with what it cannot do without; the rest is Keras' defaults."""
    config = {"name": stored.name, **stored.config}
    return {"module": "keras.layers", "class_name": stored.kind, "config": config, "registered_name": None}


def sequential(layers: Sequence[KerasLayer]) -> dict[str, Any]:
    """The Sequential of layers, as Keras serialises it."""
    config = {"name": "model", "layers": [described(each) for each in layers]}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
