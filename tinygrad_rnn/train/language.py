"""Learning to say which character comes next, by truncated back-propagation with the state carried over."""

from __future__ import annotations

from typing import Any

from ..core.modes import no_grad
from ..core.tensor import Tensor, tensor
from ..errors import TextError
from ..nn.losses import cross_entropy
from .model import LanguageModel, State, detached
from .text import Streams, Vocabulary, digest, once_through, split

_WINDOW = 256
"""Symbols at a time when nothing has to be kept for a gradient."""


class LanguageTask:
    """A text, learned by N readers at once in windows of `truncation` characters; tested on its last tenth.

    Raises: TextError, if the text is too short for that.
    """

    def __init__(self, text: str, batch: int, truncation: int) -> None:
        self.vocabulary = Vocabulary.of(text)
        self.learned, self.held_back = split(self.vocabulary.encode(text), batch, truncation)
        self._streams, self._batch, self._truncation = Streams(self.learned, batch), batch, truncation
        self._digest = digest(text)

    @property
    def tokens(self) -> int:
        """How many characters were read so far."""
        return self._streams.position * self._batch

    def loss(self, model: LanguageModel, carried: State) -> tuple[Tensor, State]:
        """The mean cross-entropy over the next window in nats, and the state to go on from, without its history."""
        inputs, targets = self._streams.take(self._truncation)
        logits, state = model(inputs, carried)
        return cross_entropy(logits, tensor(targets, backend=logits.backend)), detached(state)

    def validate(self, model: LanguageModel) -> dict[str, float]:
        """The mean loss over the held-back text in nats per character, the state carried through from its start."""
        total, count, state = 0.0, 0, None
        for inputs, targets in once_through(self.held_back, self._batch, _WINDOW):
            with no_grad():
                logits, state = model(inputs, state)
                loss = cross_entropy(logits, tensor(targets, backend=logits.backend))
            total, count = total + loss.item() * targets.size, count + targets.size
        return {"val_loss": total / count}

    def state_dict(self) -> dict[str, Any]:
        """The position in the text, and which text it is."""
        return {"position": self._streams.position, "text": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises: TextError, if the text is not the one that the run has learned so far.
        """
        if state["text"] != self._digest:
            raise TextError(
                "the text is not the one that this run has learned so far: name the same file with --text "
                "(the default text differs between versions of Python)"
            )
        self._streams.position = state["position"]
