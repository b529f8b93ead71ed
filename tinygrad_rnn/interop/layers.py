"""Models of several layers as other libraries have them: layers by name, one after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ..core.tensor import Tensor
from ..errors import OptionError
from ..nn.layers import Sequential
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..ops import elementwise as e
from ..ops.reductions import log_softmax, softmax
from ..ops.shapes import concatenate, flip
from ..train.model import LanguageModel

Layer = Callable[[Any], Any]
Order = list[str] | None
"""The layers of a model in the order in which they act, if that is known."""


def gelu_tanh(x: Any) -> Any:
    """`gelu` by a formula with tanh, which is close to it and not the same (Hendrycks and Gimpel 2016)."""
    return x * (0.5 + 0.5 * e.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def walking_order(x: Any) -> Any:
    """(N, T, ...) with its steps in the opposite order: Keras hands on what `go_backwards` gives as it comes."""
    return flip(x, axis=1)


FUNCTIONS: dict[str, Layer] = {
    function.__name__: function
    for function in (e.tanh, e.sigmoid, e.relu, e.leaky_relu, e.elu, e.softplus, e.gelu, gelu_tanh, e.silu, softmax,
                     log_softmax, walking_order)
}  # fmt: skip
"""The functions that stand between layers, by their names."""


class Layers(Module):
    """Layers by name: `model["gru"]` is one of them, `model(x)` sends x through all of them in their order.

    A recurrent layer hands all its outputs on, and its final state to nobody; `Final` hands on the last output only.

    layers: modules, or plain functions such as `tg.relu`, by their names.
    order: the names in the order in which they act; None, if it is not known, as it is Python code elsewhere.
    left_out: what stood among them elsewhere and has no counterpart here, in words such as "act (Hardtanh)".

    Raises: OptionError for a name in the order that is not among the layers.
    """

    def __init__(
        self, layers: Mapping[str, Layer], order: Iterable[str] | None = None, *, left_out: Iterable[str] = ()
    ) -> None:  # fmt: skip
        self.left_out = [str(each) for each in left_out]
        self.layers = dict(layers)
        self.order = None if order is None else list(order)
        self._check_order()

    def _check_order(self) -> None:
        """The order may be set at any time."""
        if not isinstance(self.order, Iterable | None):
            raise OptionError(f"the order is {self.order!r}; it is a list of names, of {', '.join(self.layers)}")
        if unknown := [name for name in self.order or () if name not in self.layers]:
            raise OptionError(f"there is no layer {unknown[0]!r} to put in order, only {', '.join(self.layers)}")

    def forward(self, x: Any, lengths: Any = None) -> Any:
        """x through all layers; lengths: as in `Recurrent`, for all that are recurrent.

        Raises: OptionError, if the order is not known; else what the layers raise.
        """
        if self.order is None:
            raise OptionError(f"{self.without_order()}, or call the layers yourself, as in model['gru'](x)")
        self._check_order()
        for name in self.order:
            layer = self.layers[name]
            x = layer(x, lengths=lengths) if isinstance(layer, (Recurrent, Final, Layers)) else layer(x)
            x = x[0] if isinstance(layer, Recurrent) else x
        return x

    def without_order(self) -> str:
        """Why it is not known in which order the layers act, and how to say it, in words."""
        apart = ""
        if self.left_out:
            have, they, them = ("has", "it", "it") if len(self.left_out) == 1 else ("have", "they", "them")
            apart = (
                f"; {', '.join(self.left_out)} {have} no counterpart here, and where {they} should act no order "
                f"without {them} is the model: put a function of yours there first, as in "
                f"model.layers[{self.left_out[0].partition(' ')[0]!r}] = f"
            )
        return (
            f"it is not known in which order {', '.join(self.layers)} act, as the model came from code of another "
            f"library, which does not travel{apart}. Say the order, as in model.order = ['embedding', 'gru', 'head']"
        )

    def __getitem__(self, name: str) -> Any:
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)


class Final(Module):
    """The last output of a recurrent layer, of both directions side by side, in place of all: x -> (N, D*H)."""

    def __init__(self, layer: Recurrent) -> None:
        """layer: a layer of this package, whose directions come side by side.

        Raises: OptionError for what is no recurrent layer.
        """
        if not isinstance(layer, Recurrent):
            raise OptionError(f"Final takes a recurrent layer, not {type(layer).__name__}")
        self.layer = layer

    def forward(self, x: Any, lengths: Any = None) -> Tensor:
        """x as the layer takes it -> the final hidden state of its uppermost cells, (N, D*H).

        Raises: what the layer raises.
        """
        _, state = self.layer(x, lengths=lengths)
        h_n: Tensor = state[0] if isinstance(state, tuple) else state
        uppermost = [h_n[i] for i in range(-2 if self.layer.bidirectional else -1, 0)]
        return uppermost[0] if len(uppermost) == 1 else concatenate(uppermost, axis=-1)


LayersGiven = Mapping[str, Any] | Collection[str]
"""The layers of a file that does not tell, by name, in their order: what each is, or None; or their names alone."""


def given_layers(layers: Any) -> dict[str, Any]:
    """What the user says of layers, by their names.

    Raises: OptionError for what is neither a mapping nor a list of names.
    """
    if isinstance(layers, Mapping):
        found = dict(layers)
    elif isinstance(layers, (list, tuple)):
        found = dict.fromkeys(layers)
    else:
        found = {None: None}
    if not all(isinstance(name, str) for name in found):
        raise OptionError(f"layers= is {layers!r}; it takes the names of layers in their order, as a list, or as a "
                          'mapping to what they are, such as {"gru": "GRU"}')  # fmt: skip
    return found


# -- what is made of others --------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What a module is made of.

    layers: by their names. order: in which they act. path: what goes before their names in those of its weights.
    """

    layers: dict[str, Any]
    order: Order
    path: str = ""


def _of_language_model(model: Any) -> Parts:
    layers = {name: getattr(model, name) for name in ("embedding", "recurrent", "head")}
    return Parts(layers, list(layers))


def _of_sequential(model: Any) -> Parts:
    layers = {str(place): layer for place, layer in enumerate(model.layers)}
    return Parts(layers, list(layers), "layers.")


HOLDERS: dict[type[Module], Callable[[Any], Parts]] = {
    Layers: lambda model: Parts(model.layers, model.order, "layers."),
    Sequential: _of_sequential,
    Final: lambda model: Parts({"layer": model.layer}, ["layer"]),
    LanguageModel: _of_language_model,
}
"""The modules that are made of others, each with what tells its parts."""


def parts_of(module: Any) -> Parts | None:
    """What a module is made of; None, if it is none of those that are made of others.

    Where its forward is code of somebody's, the order is not known.
    """
    for kind, read in HOLDERS.items():
        if isinstance(module, kind):
            return read(module) if acts_as(module, kind) else read(module)._replace(order=None)
    return None


def acts_as(module: Any, *kinds: Any) -> bool:
    """Whether a module computes what one of these classes does, being of it or made of it without code of its own.

    Modules of torch's can be asked about, too.
    """
    own = type(module)
    return "forward" not in getattr(module, "__dict__", ()) and any(
        isinstance(module, kind) and own.forward is kind.forward and own.__call__ is kind.__call__ for kind in kinds
    )
