"""What the commands `draw` and `play` show: a small recurrent layer, or the loss of a trained model on a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.tensor import Tensor, tensor
from ..errors import OptionError
from ..nn.losses import cross_entropy
from ..train.loop import load_model
from ..train.model import CELLS

N, I, H = 2, 3, 5  # noqa: E741
"""The sizes of the small layer: sequences, inputs, units."""
LONGEST = 40
"""The most time steps, or symbols of a prompt: more would be pictures that nobody can read."""


def computation(cell: str = "gru", steps: int = 3) -> Tensor:
    """The loss of a small recurrent layer, operation by operation: the sum of the squares of all its outputs.

    cell: "rnn", "minimal_gru", "gru" or "lstm". steps: the length T of the sequences, 1 to `LONGEST`.

    Raises: OptionError.
    """
    if cell not in CELLS:
        raise OptionError(f"there is no cell {cell!r}; choose one of {', '.join(CELLS)}")
    if not 1 <= steps <= LONGEST:
        raise OptionError(f"the number of steps is {steps}; it must be from 1 to {LONGEST}")
    layer = CELLS[cell](I, H, fused=False, rng=np.random.default_rng(0))
    x = tensor(np.random.default_rng(1).standard_normal((steps, N, I)).astype(np.float32), name="x")
    output, _ = layer(x)
    loss: Tensor = (output * output).sum()
    loss.name = "loss"
    return loss


def of_checkpoint(folder: str | Path, prompt: str) -> Tensor:
    """The loss of a trained model on a prompt: how badly it foretells each symbol from those before it, in nats.

    Its layers are single, fused operations; `expand=True` opens them.

    Raises: CheckpointError; TextError for a symbol that the model never saw; OptionError, if the prompt is too short or
        longer than `LONGEST`.
    """
    model, vocabulary, _ = load_model(folder)
    ids = vocabulary.encode(vocabulary.separator.join(prompt.split()) if vocabulary.separator else prompt)
    if not 2 <= len(ids) <= LONGEST:
        raise OptionError(f"the prompt is {len(ids)} long: give 2 to {LONGEST} symbols, so that one can be foretold")
    logits, _ = model(ids[:-1, None])
    loss: Tensor = cross_entropy(logits, ids[1:, None])
    loss.name = "loss"
    return loss
