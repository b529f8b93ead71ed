"""The cells as equations: on other numbers than Tensors, at their ends, and LSTM against GRU."""

from __future__ import annotations

import numpy as np
import pytest
from golden.loops import H, I, N, T, filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.nn import equations
from tinygrad_rnn.nn.equations import GRUGates, LSTMGates, MinimalGates

CELLS = {
    "rnn": (nn.RNNCell, {}),
    "rnn relu": (nn.RNNCell, {"activation": "relu"}),
    "minimal gru": (nn.MinimalGRUCell, {}),
    "gru": (nn.GRUCell, {}),
    "gru after, old, c": (nn.GRUCell, {"reset": "after", "update": "old", "recurrent_bias": True}),
    "lstm": (nn.LSTMCell, {}),
}


def logistic(a):
    return 1 / (1 + np.exp(-a))


def by_gate(kind, name, *shape):
    return kind(*[filled(f"{name} {gate}", *shape) for gate in kind._fields])


def weights(kind):
    return by_gate(kind, "W", I, H), by_gate(kind, "U", H, H), by_gate(kind, "b", H)


X, BEFORE, MEMORY = filled("x", N, I), filled("h", N, H), filled("c", N, H)


class Symbol:
    """Writes down what is done with it: the least that a number system has to have."""

    def __init__(self, text):
        self.text = text

    def __apply_primitive__(self, op, args, options):
        return Symbol(f"{op.name}({', '.join(_text(a) for a in args)})")

    def __add__(self, other):
        return Symbol(f"({_text(self)} + {_text(other)})")

    def __rsub__(self, other):
        return Symbol(f"({_text(other)} - {_text(self)})")

    def __mul__(self, other):
        return Symbol(f"{_text(self)}*{_text(other)}")

    def __matmul__(self, other):
        return Symbol(f"{_text(self)}{_text(other)}")


def _text(x):
    return getattr(x, "text", str(x))


def symbols(kind, letter):
    return kind(*[Symbol(f"{letter}{gate}") for gate in kind._fields])


def test_the_gru_reads_like_the_slide():
    x, h = Symbol("x"), Symbol("h")
    step = equations.gru(x, h, symbols(GRUGates, "W"), symbols(GRUGates, "U"), symbols(GRUGates, "b"))
    assert step.z.text == "sigmoid(((xWz + hUz) + bz))"
    assert step.r.text == "sigmoid(((xWr + hUr) + br))"
    assert step.n.text == f"tanh(((xWn + {step.r.text}*hUn) + bn))"
    assert step.h.text == f"({step.z.text}*{step.n.text} + (1 - {step.z.text})*h)"


def test_the_lstm_on_symbols():
    x, h, c = Symbol("x"), Symbol("h"), Symbol("c")
    step = equations.lstm(x, h, c, *[symbols(LSTMGates, letter) for letter in "WUb"])
    assert step.c.text == f"({step.f.text}*c + {step.i.text}*{step.g.text})"
    assert step.h.text == f"{step.o.text}*tanh({step.c.text})"


def bare(weights):
    """Weights by gate, as bare arrays."""
    return weights.numpy() if isinstance(weights, tg.Tensor) else type(weights)(*[part.numpy() for part in weights])


@pytest.mark.parametrize("kind", CELLS)
def test_bare_arrays_and_tensors_give_the_same(kind):
    make, settings = CELLS[kind]
    cell = make(I, H, dtype=np.float64, **settings)
    state, parts = tuple(filled(name, N, H) for name in cell.states), cell.weights()
    on_tensors = cell.equation(tg.tensor(X), tuple(map(tg.tensor, state)), parts)
    if settings.get("recurrent_bias"):
        cell.c = cell.c.numpy()
    on_arrays = cell.equation(X, state, type(parts)(*map(bare, parts)))
    for one, other in zip(on_tensors, on_arrays):
        assert type(other) is np.ndarray
        np.testing.assert_array_equal(one.numpy(), other)


def test_basic_unit_by_hand():
    W, U, b = filled("W", I, H), filled("U", H, H), filled("b", H)
    np.testing.assert_allclose(equations.rnn(X, BEFORE, W, U, b).h, np.tanh(X @ W + BEFORE @ U + b), atol=1e-15)
    relu = equations.rnn(X, BEFORE, W, U, b, activation=tg.relu).h
    np.testing.assert_allclose(relu, np.maximum(X @ W + BEFORE @ U + b, 0), atol=1e-15)


def test_an_lstm_with_tied_gates_and_no_output_tanh_is_a_gru():
    """i = z, f = 1 - z by the sign rule, o = 1, cell state = hidden state."""
    W, U, b = weights(MinimalGates)
    tied = [LSTMGates(i=part.z, f=-part.z, g=part.n, o=0 * part.z) for part in (W, U, b)]
    tied[2] = tied[2]._replace(o=np.full(H, 40.0))
    h = BEFORE
    simple = long = h
    for x in filled("xs", T, N, I):
        simple = equations.minimal_gru(x, simple, W, U, b).h
        step = equations.lstm(x, long, long, *tied, squash=lambda c: c)
        long = step.h
        np.testing.assert_array_equal(step.c, step.h)
        np.testing.assert_allclose(long, simple, rtol=0, atol=1e-14)
    squashed = equations.lstm(x, h, h, *tied).h
    assert abs(squashed - equations.minimal_gru(x, h, W, U, b).h).max() > 1e-3


def test_the_same_holds_for_the_full_gru_given_its_own_candidate():
    """The reset gate changes what the candidate sees; everything after the candidate is the LSTM's update."""
    W, U, b = weights(GRUGates)
    gru = equations.gru(X, BEFORE, W, U, b)
    seen = gru.r * BEFORE
    open_and_tied = [LSTMGates(i=part.z, f=-part.z, g=part.n, o=0 * part.z) for part in (W, U, b)]
    i, f = logistic(X @ W.z + BEFORE @ U.z + b.z), logistic(-(X @ W.z + BEFORE @ U.z + b.z))
    g = equations.lstm(X, seen, BEFORE, *open_and_tied).g
    np.testing.assert_allclose(f * BEFORE + i * g, gru.h, rtol=0, atol=1e-14)


@pytest.mark.parametrize("update", ["new", "old"])
@pytest.mark.parametrize("reset", ["before", "after"])
def test_update_gate_at_its_ends(reset, update):
    W, U, b = weights(GRUGates)
    for bias, takes_candidate in ((800.0, update == "new"), (-800.0, update == "old")):
        step = equations.gru(X, BEFORE, W, U, b._replace(z=np.full(H, bias)), reset=reset, update=update)
        np.testing.assert_array_equal(step.h, step.n if takes_candidate else BEFORE)


@pytest.mark.parametrize("kind", [nn.MinimalGRUCell, nn.GRUCell])
def test_a_closed_update_gate_carries_the_state_over_thousands_of_steps_without_loss(kind, backend):
    cell = kind(I, H)
    biases = np.zeros(cell.b.shape, np.float32)
    biases[:H] = -200  # z is 0 in float32
    cell.b.assign_(biases)
    start = tg.tensor(filled("h", N, H), dtype=np.float32)
    h, x = start, tg.ones((N, I))
    with tg.no_grad():
        for _ in range(3000):
            h = cell(x, h)
    np.testing.assert_array_equal(h.numpy(), start.numpy())


def test_a_nearly_closed_gate_forgets_as_slowly_as_it_must():
    """With z = 0.000001 what is left of the state after t steps is (1 - z) to the power t."""
    W, U, b = weights(GRUGates)
    W, U = [GRUGates(*[0 * part for part in parts]) for parts in (W, U)]
    z = 1e-6
    b = GRUGates(z=np.full(H, np.log(z / (1 - z))), r=b.r, n=np.zeros(H))
    h = BEFORE
    for _ in range(5000):
        h = equations.gru(X, h, W, U, b).h
    np.testing.assert_allclose(h, BEFORE * (1 - z) ** 5000, rtol=1e-9)


def test_reset_before_and_after_are_different_functions():
    W, U, b = weights(GRUGates)
    before, after = (equations.gru(X, BEFORE, W, U, b, reset=reset).h for reset in ("before", "after"))
    assert abs(before - after).max() > 1e-2
    b = b._replace(r=np.full(H, 60.0))  # an open reset gate makes them one
    before, after = (equations.gru(X, BEFORE, W, U, b, reset=reset).h for reset in ("before", "after"))
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-14)
