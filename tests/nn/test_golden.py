"""Values and gradients of cells and layers against numbers computed elsewhere, and wrong cells that these catch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden.loops import H, I, N, T, filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.nn import equations, recurrent

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recurrent.json").read_text(encoding="utf-8"))
LENGTHS = [4, 2, 3]
KINDS = {
    "rnn tanh": (nn.RNN, {}),
    "rnn relu": (nn.RNN, {"activation": "relu"}),
    "minimal": (nn.MinimalGRU, {}),
    "gru before new": (nn.GRU, {}),
    "gru before old": (nn.GRU, {"update": "old"}),
    "gru after new": (nn.GRU, {"reset": "after"}),
    "gru after old": (nn.GRU, {"reset": "after", "update": "old"}),
    "lstm": (nn.LSTM, {}),
}


def layer_of(name):
    """The layer that a golden case speaks of, with the numbers of the formula in its weights."""
    kind, settings = KINDS[name.split(",")[0]]
    settings = dict(settings, num_layers=2 if "2 layers" in name else 1, bidirectional="both directions" in name)
    if ", c" in name:
        settings["recurrent_bias"] = True
    layer = kind(I, H, dtype=np.float64, **settings)
    for k, cell in enumerate(layer.cells):
        for own, parameter in cell.named_parameters():
            parameter.assign_(filled(f"{own}.{k}" if k else own, *parameter.shape))
    return layer


def inputs_of(layer):
    names = ("h_0", "c_0")[: len(layer.cell_type.states)]
    found = {"x": filled("x", T, N, I)} | {name: filled(name, len(layer.cells), N, H) for name in names}
    return {name: tg.tensor(array, requires_grad=True) for name, array in found.items()}


def weighed(named):
    """One number that depends on every element of every result."""
    return sum((value * tg.tensor(filled(name, *value.shape))).sum() for name, value in named.items())


def agree(found, wanted):
    assert found is not None
    np.testing.assert_allclose(found.numpy().ravel(), wanted, rtol=1e-10, atol=1e-10)


def held_against_golden(name):
    layer, wanted = layer_of(name), GOLDEN[name]
    inputs = inputs_of(layer)
    output, state = layer(**inputs, lengths=LENGTHS if "lengths" in name else None)
    results = dict(zip(("h_n", "c_n"), state if isinstance(state, tuple) else (state,)))
    agree(output, wanted["output"])
    for key, value in results.items():
        agree(value, wanted[key])
    weighed({"loss": output} | {f"loss {key}": value for key, value in results.items()}).backward()
    gradients = {key: tensor.grad for key, tensor in inputs.items()}
    for k, cell in enumerate(layer.cells):
        gradients |= {f"{own}.{k}" if k else own: parameter.grad for own, parameter in cell.named_parameters()}
    assert gradients.keys() == wanted["gradients"].keys()
    for key, gradient in gradients.items():
        agree(gradient, wanted["gradients"][key])


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_have_the_values_and_gradients_computed_elsewhere(name, backend):
    held_against_golden(name)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "layers" not in name and "directions" not in name
                                  and "lengths" not in name])  # fmt: skip
def test_cells_called_step_by_step_give_the_same(name, backend):
    layer = layer_of(name)
    inputs, cell, wanted = inputs_of(layer), layer.cells[0], GOLDEN[name]
    state = tuple(start[0] for key, start in inputs.items() if key != "x")
    outputs = []
    for x in inputs["x"]:
        new = cell(x, state if len(state) == 2 else state[0])
        state = new if isinstance(new, tuple) else (new,)
        outputs.append(state[0])
    output = tg.stack(outputs)
    agree(output, wanted["output"])
    finals = dict(zip(("loss h_n", "loss c_n"), [tg.stack([s]) for s in state]))
    weighed({"loss": output} | finals).backward()
    for key, tensor in {**inputs, **dict(cell.named_parameters())}.items():
        agree(tensor.grad, wanted["gradients"][key])


def without(function, *positions):
    """The equation with some of its arguments out of its sight."""
    return lambda *args, **o: function(*[None if i in positions else a for i, a in enumerate(args)], **o)


def gates(change):
    """The GRU with what `change` makes of W, U and b, each by gate."""
    return lambda x, h, W, U, b, *rest, **o: gru(x, h, change(W), change(U), change(b), *rest, **o)


gru, lstm, fold = equations.gru, equations.lstm, recurrent.fold
PLAIN, AFTER, BOTH = "gru before new", "gru after old, c", "gru after old, c, 2 layers, both directions, lengths"
ALL = "lstm, 2 layers, both directions, lengths"
WRONG = {
    "z and r swapped": (PLAIN, equations, "gru", gates(lambda g: g._replace(z=g.r, r=g.z))),
    "r and n swapped": (PLAIN, equations, "gru", gates(lambda g: g._replace(r=g.n, n=g.r))),
    "reset after instead of before": (PLAIN, equations, "gru", lambda *a, **o: gru(*a, **o | {"reset": "after"})),
    "reset before instead of after": (AFTER, equations, "gru", lambda *a, **o: gru(*a, **o | {"reset": "before"})),
    "update to the old": (PLAIN, equations, "gru", lambda *a, **o: gru(*a, **o | {"update": "old"})),
    "update to the new": (AFTER, equations, "gru", lambda *a, **o: gru(*a, **o | {"update": "new"})),
    "U transposed": (
        PLAIN, equations, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, type(U)(*[u.T for u in U]), b, c, **o)),
    "recurrent bias ignored": (AFTER, equations, "gru", without(gru, 5)),
    "recurrent bias outside of the reset": (
        AFTER, equations, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, U, b._replace(n=b.n + c), None, **o)),
    "bias ignored": (PLAIN, equations, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, U, type(b)(0, 0, 0), c, **o)),
    "i and f swapped": (
        "lstm", equations, "lstm",
        lambda x, h, c, *p: lstm(x, h, c, *[g._replace(i=g.f, f=g.i) for g in p])),
    "cell state not squashed": ("lstm", equations, "lstm", lambda *p: lstm(*p, squash=lambda c: c)),
    "h and c swapped": ("lstm", equations, "lstm", lambda x, h, c, *p: lstm(x, c, h, *p)),
    "initial state ignored": (
        PLAIN, recurrent, "fold", lambda cell, x, state, *rest, **o: fold(cell, x, [0 * s for s in state], *rest, **o)),
    "states cut off from the gradient": (
        PLAIN, recurrent, "fold",
        lambda cell, x, state, *rest, **o: fold(cell, x, [s.detach() for s in state], *rest, **o)),
    "lengths ignored": (
        BOTH, recurrent, "fold", lambda cell, x, state, valid, reverse: fold(cell, x, state, None, reverse)),
    "no walk in reverse": (
        BOTH, recurrent, "fold", lambda cell, x, state, valid, reverse: fold(cell, x, state, valid, False)),
    "outputs of the reverse direction in walking order": (
        ALL, recurrent, "fold",
        lambda *a, reverse: (lambda y, s: (tg.flip(y, 0) if reverse else y, s))(*fold(*a, reverse))),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_cell_or_layer_is_caught(wrong, monkeypatch):
    name, module, function, replacement = WRONG[wrong]
    held_against_golden(name)
    monkeypatch.setattr(module, function, replacement)
    with pytest.raises(AssertionError):
        held_against_golden(name)
