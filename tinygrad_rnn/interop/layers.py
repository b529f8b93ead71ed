"""Models of several layers as other libraries have them: layers by name, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..core.tensor import Tensor
from ..errors import OptionError
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..ops import elementwise as e
from ..ops.reductions import log_softmax, softmax
from ..ops.shapes import concatenate

Layer = Callable[[Any], Any]
FUNCTIONS: dict[str, Layer] = {
    function.__name__: function
    for function in (e.tanh, e.sigmoid, e.relu, e.leaky_relu, e.elu, e.softplus, e.gelu, e.silu, softmax, log_softmax)
}
"""The functions that stand between layers, by their names."""


class Layers(Module):
    """Layers by name: `model["gru"]` is one of them, `model(x)` sends x through all of them in their order.

    A recurrent layer hands all its outputs on, and its final state to nobody; `Final` hands on the last output only.

    layers: modules, or plain functions such as `tg.relu`, by their names.
    order: the names in the order in which they act; None, if it is not known, as it is Python code elsewhere.

    Raises: OptionError for a name in the order that is not among the layers.
    """

    def __init__(self, layers: Mapping[str, Layer], order: Iterable[str] | None = None) -> None:
        self.layers = dict(layers)
        self.order = None if order is None else list(order)
        if unknown := [name for name in self.order or () if name not in self.layers]:
            raise OptionError(f"there is no layer {unknown[0]!r} to put in order, only {', '.join(self.layers)}")

    def forward(self, x: Any, lengths: Any = None) -> Any:
        """x through all layers; lengths: as in `Recurrent`, for all that are recurrent.

        Raises: OptionError, if the order is not known; else what the layers raise.
        """
        if self.order is None:
            raise OptionError(
                f"it is not known in which order {', '.join(self.layers)} act: the model came from code of another "
                "library, which does not travel. Say it, as in model.order = ['embedding', 'gru', 'head'], or call "
                "the layers yourself, as in model['gru'](x)"
            )
        for name in self.order:
            layer = self.layers[name]
            x = layer(x, lengths=lengths) if isinstance(layer, (Recurrent, Final, Layers)) else layer(x)
            x = x[0] if isinstance(layer, Recurrent) else x
        return x

    def __getitem__(self, name: str) -> Any:
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)


class Final(Module):
    """The last output of a recurrent layer, of both directions side by side, in place of all: x -> (N, D*H)."""

    def __init__(self, layer: Recurrent) -> None:
        """Raises: OptionError for what is no recurrent layer."""
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
