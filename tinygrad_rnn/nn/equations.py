"""The cells as equations: pure functions that read like the slide, on Tensors, bare arrays or symbols alike.

Row vectors: x (N, I), h and c (N, H). W, U and b hold a matrix (I, H), a matrix (H, H) and a vector (H) for each
gate, by its letter. Only operators and primitives occur here, so whatever has those can be put in.

Each function returns everything that its equations define, by name and in their order, the new states among it:
`gru(...).z` is the update gate, `gru(...).h` the new hidden state. Formulas and labels come from these names.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from ..ops.elementwise import sigmoid, tanh

MinimalGates = namedtuple("MinimalGates", "z n")
MinimalGates.__doc__ = "One thing for each gate of a simplified GRU: z update, n candidate."
GRUGates = namedtuple("GRUGates", "z r n")
GRUGates.__doc__ = "One thing for each gate of a GRU: z update, r reset, n candidate."
LSTMGates = namedtuple("LSTMGates", "i f g o")
LSTMGates.__doc__ = "One thing for each gate of an LSTM: i input, f forget, g candidate, o output."

RNNStep = namedtuple("RNNStep", "h")
RNNStep.__doc__ = "What one step of the basic unit defines: the hidden state h (N, H)."
MinimalGRUStep = namedtuple("MinimalGRUStep", "z n h")
MinimalGRUStep.__doc__ = "What one step of a simplified GRU defines: z, n, and the hidden state h, each (N, H)."
GRUStep = namedtuple("GRUStep", "z r n h")
GRUStep.__doc__ = "What one step of a GRU defines: z, r, n, and the hidden state h, each (N, H)."
LSTMStep = namedtuple("LSTMStep", "i f g o c h")
LSTMStep.__doc__ = "What one step of an LSTM defines: i, f, g, o, the cell state c and the hidden state h, each (N, H)."


def rnn(x: Any, h: Any, W: Any, U: Any, b: Any, *, activation: Callable[[Any], Any] = tanh) -> RNNStep:
    """The basic unit (Elman 1990, Finding structure in time); with a single gate, W, U and b are the arrays themselves.

    activation: g of h' = g(x W + h U + b).

    Raises: ShapeError, if the arrays do not fit each other; so do all functions here.
    """
    h = activation(x @ W + h @ U + b)
    return RNNStep(h)


def minimal_gru(x: Any, h: Any, W: Any, U: Any, b: Any) -> MinimalGRUStep:
    """The simplified GRU: an update gate only (as in the lectures; the reset gate of `gru` stays open)."""
    z = sigmoid(x @ W.z + h @ U.z + b.z)
    n = tanh(x @ W.n + h @ U.n + b.n)
    h = z * n + (1 - z) * h
    return MinimalGRUStep(z, n, h)


def gru(
    x: Any, h: Any, W: Any, U: Any, b: Any, c: Any = None, *, reset: str = "before", update: str = "new"
) -> GRUStep:  # fmt: skip
    """The gated recurrent unit (Cho et al. 2014; with these defaults as in Chung et al. 2014, section 3.2).

    reset: the gate r acts "before" the product with U.n, or "after" it, where c, if given, is a bias (H) inside.
    update: what z = 1 takes, the "new" candidate or the "old" state.
    """
    z = sigmoid(x @ W.z + h @ U.z + b.z)
    r = sigmoid(x @ W.r + h @ U.r + b.r)
    if reset == "before":
        n = tanh(x @ W.n + (r * h) @ U.n + b.n)
    elif c is None:
        n = tanh(x @ W.n + b.n + r * (h @ U.n))
    else:
        n = tanh(x @ W.n + b.n + r * (h @ U.n + c))
    h = z * n + (1 - z) * h if update == "new" else (1 - z) * n + z * h
    return GRUStep(z, r, n, h)


def lstm(
    x: Any, h: Any, c: Any, W: Any, U: Any, b: Any, *, squash: Callable[[Any], Any] = tanh
) -> LSTMStep:  # fmt: skip
    """Long short-term memory with a forget gate (Gers et al. 2000, Learning to forget).

    squash: what the cell state goes through on its way out. Left out (`lambda c: c`), with i = z, f = 1 - z and
        o = 1, the cell is a GRU whose reset gate is open.
    """
    i = sigmoid(x @ W.i + h @ U.i + b.i)
    f = sigmoid(x @ W.f + h @ U.f + b.f)
    g = tanh(x @ W.g + h @ U.g + b.g)
    o = sigmoid(x @ W.o + h @ U.o + b.o)
    c = f * c + i * g
    h = o * squash(c)
    return LSTMStep(i, f, g, o, c, h)
