"""The cells a second time, written by nobody who knew the package: NumPy, plain loops, one unit after the other.

`filled` makes the numbers that go in, the same everywhere, from a formula instead of a generator.
"""

from __future__ import annotations

import cmath
import zlib

import numpy as np

T, N, I, H = 4, 3, 2, 5  # noqa: E741
STEP = 1e-30


def filled(name, *shape):
    """Numbers between -0.9 and 0.9 that look random, decided by a name and a shape."""
    start = zlib.crc32(name.encode()) % 997
    count = int(np.prod(shape))
    return np.array([0.9 * np.sin(start + 1.7 * k + 0.13 * k * k) for k in range(count)]).reshape(shape)


def logistic(a):
    return 1 / (1 + cmath.exp(-a))


def affine(x, h, W, U, b, gate, j, size):
    """Unit j of block `gate`: the sum over all inputs and all states."""
    column = gate * size + j
    total = b[column]
    for i in range(len(x)):
        total = total + x[i] * W[i, column]
    for k in range(size):
        total = total + h[k] * U[k, column]
    return total


def relu(a):
    return a if a.real > 0 else 0 * a


def rnn(x, h, p, size, activation=cmath.tanh):
    return [activation(affine(x, h, p["W"], p["U"], p["b"], 0, j, size)) for j in range(size)]


def minimal_gru(x, h, p, size):
    new = []
    for j in range(size):
        z = logistic(affine(x, h, p["W"], p["U"], p["b"], 0, j, size))
        n = cmath.tanh(affine(x, h, p["W"], p["U"], p["b"], 1, j, size))
        new.append(h[j] + z * (n - h[j]))
    return new


def gru(x, h, p, size, reset, update):
    r = [logistic(affine(x, h, p["W"], p["U"], p["b"], 1, j, size)) for j in range(size)]
    new = []
    for j in range(size):
        z = logistic(affine(x, h, p["W"], p["U"], p["b"], 0, j, size))
        if reset == "before":
            a = affine(x, [r[k] * h[k] for k in range(size)], p["W"], p["U"], p["b"], 2, j, size)
        else:
            a = affine(x, [0] * size, p["W"], p["U"], p["b"], 2, j, size)
            inner = p["c"][j] if "c" in p else 0
            for k in range(size):
                inner = inner + h[k] * p["U"][k, 2 * size + j]
            a = a + r[j] * inner
        n = cmath.tanh(a)
        new.append(h[j] + z * (n - h[j]) if update == "new" else n + z * (h[j] - n))
    return new


def lstm(x, h, c, p, size):
    new_h, new_c = [], []
    for j in range(size):
        i, f, g, o = [affine(x, h, p["W"], p["U"], p["b"], gate, j, size) for gate in range(4)]
        new_c.append(logistic(f) * c[j] + logistic(i) * cmath.tanh(g))
        new_h.append(logistic(o) * cmath.tanh(new_c[j]))
    return new_h, new_c


def unrolled(cell, p):
    """All outputs (T, N, H) of a cell, from the inputs p["x"], the initial states p["h_0"] and the weights in p."""
    outputs = np.zeros((T, N, H), complex)
    for n in range(N):
        h = list(p["h_0"][n])
        for t in range(T):
            h = cell(list(p["x"][t, n]), h, p, H)
            outputs[t, n] = h
    return outputs


def parameters(blocks, recurrent_bias=False):
    """What goes into one cell: inputs, initial state, weights, biases that are not zero."""
    p = {"x": filled("x", T, N, I), "h_0": filled("h_0", N, H), "W": filled("W", I, blocks * H),
         "U": filled("U", H, blocks * H), "b": filled("b", blocks * H)}  # fmt: skip
    return p | ({"c": filled("c", H)} if recurrent_bias else {})


def gradients(cell, p):
    """Those of sum(output * "loss") + sum(h_n * "loss h_n"), by the complex step: exact, and without any rule."""
    weight = filled("loss", T, N, H)
    weight[-1] += filled("loss h_n", 1, N, H)[0]
    found = {}
    for name, array in p.items():
        found[name] = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            moved = {key: value.astype(complex) for key, value in p.items()}
            moved[name][place] += STEP * 1j
            found[name][place] = np.sum(unrolled(cell, moved).imag * weight) / STEP
    return found
