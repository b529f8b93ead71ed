"""The model of every task here: an embedding, recurrent layers and a linear head; and what it writes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.modes import no_grad
from ..core.tensor import Tensor
from ..errors import NumericalError, OptionError
from ..nn.layers import Embedding, Linear
from ..nn.module import Module
from ..nn.recurrent import GRU, LSTM, RNN, MinimalGRU
from .text import Ids, Vocabulary

CELLS: dict[str, Any] = {"rnn": RNN, "minimal_gru": MinimalGRU, "gru": GRU, "lstm": LSTM}
State = Any
"""What a recurrent layer carries on: h (layers, N, H), or (h, c) for an LSTM; None is zeros."""


class LanguageModel(Module):
    """Says of each symbol which one comes next.

    vocabulary: V, the number of symbols. embedding: the size I of a symbol's vector. hidden: H. layers: how many.
    cell: "rnn", "minimal_gru", "gru" or "lstm". dropout: between the layers.
    reset, update: the GRU's convention, as in `nn.GRU`; the other cells have only one.
    rng: draws the first weights.

    Raises: OptionError for another cell; as `nn.Recurrent` for sizes out of range.
    """

    def __init__(
        self, vocabulary: int, embedding: int, hidden: int, layers: int = 1, *, cell: str = "gru",
        reset: str = "before", update: str = "new", dropout: float = 0.0, rng: np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        if cell not in CELLS:
            raise OptionError(f"there is no cell {cell!r}; choose one of {', '.join(CELLS)}")
        options = {"reset": reset, "update": update} if cell == "gru" else {}
        self.embedding = Embedding(vocabulary, embedding, rng=rng)
        self.recurrent = CELLS[cell](embedding, hidden, layers, dropout=dropout, rng=rng, **options)
        self.head = Linear(hidden, vocabulary, rng=rng)

    def read(self, ids: Ids | Tensor, state: State = None) -> tuple[Tensor, State]:
        """What the layers make of symbols (T, N): their outputs (T, N, H) and the state after the last one."""
        output, state = self.recurrent(self.embedding(ids), state)
        return output, state

    def forward(self, ids: Ids | Tensor, state: State = None) -> tuple[Tensor, State]:
        """The logits (T, N, V) of what follows each of the symbols (T, N), and the state to go on from."""
        output, state = self.read(ids, state)
        return self.head(output), state


def detached(state: State) -> State:
    """The state without its history: here truncated back-propagation cuts."""
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def write_on(
    model: LanguageModel, vocabulary: Vocabulary, prompt: str, *,
    length: int = 300, temperature: float = 0.8, rng: np.random.Generator | None = None,
) -> Iterator[str]:  # fmt: skip
    """What the model writes after a prompt, symbol by symbol.

    temperature: divides the logits; 0 always takes the likeliest symbol, 1 samples from the model's own distribution.
    rng: decides; the same generator state and model give the same text.

    Raises: TextError for a symbol in the prompt that the model never saw; OptionError for an empty prompt, a negative
        length or temperature; while it writes, NumericalError, if the weights are so large that a logit is not finite.
    """
    ids = vocabulary.encode(prompt)
    if not len(ids):
        raise OptionError("the prompt is empty: give the model at least one symbol to start from")
    if not (temperature >= 0 and np.isfinite(temperature)):
        raise OptionError(f"the temperature is {temperature}; it must be 0 (the likeliest symbol) or a positive number")
    if length < 0:
        raise OptionError(f"the length is {length}; it must be 0 or more")
    return _written(model, vocabulary, ids, length, temperature, rng or np.random.default_rng(0))


def _written(
    model: LanguageModel, vocabulary: Vocabulary, ids: Ids, length: int, temperature: float, rng: np.random.Generator
) -> Iterator[str]:
    state: State = None
    for _ in range(length):
        with no_grad():  # inside the loop, so that the caller's mode is his own between two symbols
            output, state = model.read(ids[:, None], state)
            logits = model.head(output[-1]).numpy()[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise NumericalError("the weights are too large to compute with: train anew with a smaller --lr or --clip")
        if temperature:
            weights = np.exp((logits - logits.max()) / temperature).cumsum()
            chosen = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        else:
            chosen = int(logits.argmax())
        ids = np.array([chosen])
        yield vocabulary.separator + vocabulary.symbols[chosen]
