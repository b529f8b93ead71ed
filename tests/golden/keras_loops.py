"""Keras' layers a second time: the formulas of its documentation in NumPy, step by step, with its arrays as they are.

They know nothing of the package: no gate is moved, and no sign turned.
"""

from __future__ import annotations

import numpy as np
from golden.activations import formula

ACTIVATIONS = {
    "tanh": formula("Tanh"), "sigmoid": formula("Sigmoid"), "hard_sigmoid": formula("HardSigmoid", 1 / 6, 0.5),
    "linear": formula("Affine", 1), "relu": formula("Relu"), "leaky_relu": formula("LeakyRelu", 0.2),
    "elu": formula("Elu", 1), "softplus": formula("Softplus"), "softsign": formula("Softsign"),
}  # fmt: skip


def simple_rnn(x, states, kernel, recurrent_kernel, bias=0.0, activation="tanh"):
    """One step: h' = g(x K + h R + b)."""
    (h,) = states
    return [ACTIVATIONS[activation](x @ kernel + h @ recurrent_kernel + bias)]


def gru(x, states, kernel, recurrent_kernel, bias=None, activation="tanh", recurrent_activation="sigmoid",
        reset_after=True):  # fmt: skip
    """One step, with the blocks z, r, h: h' = z h + (1 - z) candidate."""
    (h,) = states
    f, g, H = ACTIVATIONS[recurrent_activation], ACTIVATIONS[activation], h.shape[-1]
    inner = np.zeros(3 * H) if bias is None else bias if bias.ndim == 1 else bias[0]
    outer = np.zeros(3 * H) if bias is None or bias.ndim == 1 else bias[1]
    of_x = x @ kernel + inner
    of_h = h @ recurrent_kernel + outer
    z, r = f(of_x[:, :H] + of_h[:, :H]), f(of_x[:, H : 2 * H] + of_h[:, H : 2 * H])
    candidate = r * of_h[:, 2 * H :] if reset_after else (r * h) @ recurrent_kernel[:, 2 * H :]
    return [z * h + (1 - z) * g(of_x[:, 2 * H :] + candidate)]


def lstm(x, states, kernel, recurrent_kernel, bias=0.0, activation="tanh", recurrent_activation="sigmoid"):
    """One step, with the blocks i, f, c, o."""
    h, c = states
    f, g = ACTIVATIONS[recurrent_activation], ACTIVATIONS[activation]
    a = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
    c = f(a[1]) * c + f(a[0]) * g(a[2])
    return [f(a[3]) * g(c), c]


STEPS = {"SimpleRNN": simple_rnn, "GRU": gru, "LSTM": lstm}


def walk(kind, x, weights, *, go_backwards=False, mask=None, **settings):
    """x (N, T, I) -> all outputs (N, T, H) in walking order, and the final states. Masked steps leave all as it was."""
    N, T, _ = x.shape
    H = weights[1].shape[0]
    states, outputs = [np.zeros((N, H)) for _ in range(1 + (kind == "LSTM"))], []
    for t in range(T)[:: -1 if go_backwards else 1]:
        new = STEPS[kind](x[:, t], states, *weights, **settings)
        if mask is not None:
            new = [np.where(mask[:, t : t + 1], after, before) for after, before in zip(new, states)]
        states = new
        outputs.append(states[0])
    return np.stack(outputs, axis=1), states
