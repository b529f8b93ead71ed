"""Cells beyond the package's own: as these where they are set like them, and with derivatives that are right."""

from __future__ import annotations

import numpy as np
import pytest
from interop.modules import leaves, with_numbers

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ConversionError, OptionError
from tinygrad_rnn.interop import cells
from tinygrad_rnn.interop.cells import FORMULAS, SIGMOID, TANH, VARIED, activation

T, N, I, H = 4, 2, 3, 5
NAMES = {"x": (N, I), "h": (N, H), "c": (N, H)}
ODD = {
    cells.VariedRNNCell: {"activations": (activation("Softsign"),), "clip": 2.0},
    cells.VariedGRUCell: {"activations": (activation("HardSigmoid", 0.3, 0.4), activation("ScaledTanh", 0.8, 1.3)),
                          "clip": 2.0},
    cells.VariedLSTMCell: {"activations": (SIGMOID, activation("Elu", 0.7), activation("Affine", 0.9, 0.1)),
                           "peepholes": True, "clip": 2.0},
}  # fmt: skip
PLAIN = {cells.VariedRNNCell: nn.RNNCell, cells.VariedGRUCell: nn.GRUCell, cells.VariedLSTMCell: nn.LSTMCell}
EVERY = [
    *ODD.items(),
    (cells.VariedGRUCell, ODD[cells.VariedGRUCell] | {"reset": "after", "recurrent_bias": True, "update": "old"}),
    (cells.VariedLSTMCell, {"input_forget": True, "peepholes": True}),
]


def states(kind, dtype=np.float64):
    rng = np.random.default_rng(5)
    found = tuple(rng.uniform(-0.5, 0.5, NAMES[name]).astype(dtype) for name in kind.states)
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("kind, options", EVERY, ids=lambda value: getattr(value, "__name__", ""))
def test_derivatives_are_right(kind, options):
    """For what goes in and for every weight, of first and of second order."""
    cell = with_numbers(kind(I, H, dtype=np.float64, **options))
    weights = dict(cell.named_parameters())
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (N, I))
    start = states(kind)
    flat = start if isinstance(start, tuple) else (start,)

    def run(x, *rest):
        state, given = rest[: len(flat)], rest[len(flat) :]
        vars(cell).update(zip(weights, given))
        return cell(x, state if len(flat) > 1 else state[0])

    tg.gradcheck(run, x, *flat, *[w.numpy() for w in weights.values()], order=2)


def stepped(cell, x):
    """The states after one step, as arrays."""
    return leaves(cell(x, states(type(cell))))


@pytest.mark.parametrize("kind", PLAIN)
def test_set_like_ours_it_is_ours(kind):
    varied = with_numbers(kind(I, H, dtype=np.float64))
    plain = PLAIN[kind](I, H, dtype=np.float64)
    plain.load_state_dict(varied.state_dict())
    x = np.random.default_rng(1).standard_normal((N, I))
    assert all(map(np.array_equal, stepped(varied, x), stepped(plain, x)))


@pytest.mark.parametrize("kind, option", [(kind, name) for kind in ODD for name in ODD[kind]])
def test_every_option_makes_a_difference(kind, option):
    x = 5 * np.random.default_rng(1).standard_normal((N, I))
    options = ODD[kind] | {"clip": 0.3}
    others = {name: value for name, value in options.items() if name != option}
    one, other = (with_numbers(kind(I, H, dtype=np.float64, **each)) for each in (options, others))
    assert not np.allclose(stepped(one, x)[0], stepped(other, x)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_a_layer_is_its_cell_step_by_step(kind, bidirectional):
    layer = with_numbers(VARIED[kind](I, H, bidirectional=bidirectional, dtype=np.float64, **ODD[kind]))
    x = np.random.default_rng(1).standard_normal((T, N, I))
    output, _ = layer(x, lengths=[4, 3])
    for cell, times, part in zip(layer.cells, (range(4), range(3, -1, -1)), (slice(H), slice(H, None))):
        state = None
        for t in times:
            state = cell(x[t, :1], state)
            h = state[0] if isinstance(state, tuple) else state
            np.testing.assert_allclose(output.numpy()[t, :1, part], h.numpy(), rtol=0, atol=1e-14)
    assert not output.numpy()[3, 1].any()


POINTS = np.array([-2.0, -0.7, -0.1, 0.2, 0.6, 1.5])
SLOPES = {
    "Affine": lambda x, a, b: 0 * x + a,
    "Elu": lambda x, a, b: np.where(x > 0, 1, a * np.exp(x)),
    "HardSigmoid": lambda x, a, b: a * ((a * x + b > 0) & (a * x + b < 1)),
    "LeakyRelu": lambda x, a, b: np.where(x > 0, 1, a),
    "Relu": lambda x, a, b: 1.0 * (x > 0),
    "ScaledTanh": lambda x, a, b: a * b / np.cosh(b * x) ** 2,
    "Sigmoid": lambda x, a, b: 0.25 / np.cosh(x / 2) ** 2,
    "Softplus": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Softsign": lambda x, a, b: 1 / (1 + np.abs(x)) ** 2,
    "Tanh": lambda x, a, b: 1 / np.cosh(x) ** 2,
    "ThresholdedRelu": lambda x, a, b: 1.0 * (x > a),
}  # the values are held against ONNX Runtime


@pytest.mark.parametrize("name", FORMULAS)
def test_slopes_of_activations(name):
    x = tg.tensor(POINTS, requires_grad=True)
    tg.sum(activation(name, 0.4, 0.3)(x)).backward()
    np.testing.assert_allclose(x.grad.numpy(), SLOPES[name](POINTS, 0.4, 0.3), rtol=1e-12)


def test_activations_by_name():
    assert activation("tanh") == TANH and activation("LEAKYRELU").alpha == 0.01
    with pytest.raises(ConversionError, match=r"no activation 'swish'; known are Affine"):
        activation("swish")
    with pytest.raises(OptionError, match="finite"):
        activation("Elu", float("nan"))


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("options", [{"clip": 0}, {"clip": float("-inf")}, {"clip": "1"}, {"activations": ()},
                                     {"activations": ("tanh",) * 3}], ids=str)  # fmt: skip
def test_wrong_options(kind, options):
    with pytest.raises(OptionError):
        kind(I, H, **options)


@pytest.mark.parametrize("gate", [SIGMOID, activation("HardSigmoid", 0.3)], ids=["sigmoid", "hard sigmoid"])
def test_an_update_gate_is_turned_where_it_can_be(gate):
    usual = with_numbers(
        cells.VariedGRUCell(I, H, dtype=np.float64, clip=0.5, activations=(gate, activation("Softsign")))
    )
    x, h = np.random.default_rng(1).standard_normal((N, I)), states(cells.VariedGRUCell)
    other = nn.flipped(usual)
    assert other.update == "old"
    np.testing.assert_allclose(other(x, h).numpy(), usual(x, h).numpy(), rtol=0, atol=1e-15)
    with pytest.raises(OptionError, match="no other direction"):
        nn.flipped(cells.VariedGRUCell(I, H, activations=(activation("HardSigmoid", 0.3, 0.4), TANH)))
