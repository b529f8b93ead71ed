"""Models of several layers: who hands what on to whom."""

from __future__ import annotations

import numpy as np
import pytest
from golden.loops import filled
from interop.modules import with_numbers

import tinygrad_rnn as tg
from tinygrad_rnn import errors, nn
from tinygrad_rnn.interop import Final, Layers, from_arrays, from_cudnn, load, save, to_arrays, to_cudnn, torch_state

T, N, I, H = 5, 3, 4, 6
LENGTHS = [5, 2, 3]


def double(kind, *sizes, **settings):
    return with_numbers(kind(*sizes, dtype=np.float64, **settings))


def test_layers_act_in_their_order_and_recurrent_ones_hand_on_their_outputs():
    lstm, head = double(nn.LSTM, I, H), double(nn.Linear, H, 2)
    model = Layers({"head": head, "lstm": lstm, "tanh": tg.tanh}, ["lstm", "tanh", "head"])
    x = filled("x", T, N, I)
    wanted = head(tg.tanh(lstm(x, lengths=LENGTHS)[0]))
    np.testing.assert_array_equal(model(x, lengths=LENGTHS).numpy(), wanted.numpy())
    assert model["lstm"] is lstm and len(model) == 3
    outer = Layers({"inner": model, "tanh": tg.tanh}, ["inner", "tanh"])
    np.testing.assert_array_equal(outer(x, lengths=LENGTHS).numpy(), tg.tanh(wanted).numpy())


def test_an_order_that_nobody_said_is_asked_for():
    model = Layers({"lstm": nn.LSTM(I, H), "head": nn.Linear(H, 2)})
    with pytest.raises(errors.OptionError, match=r"in which order lstm, head act.*as in model\.order = \["):
        model(np.ones((T, N, I), np.float32))
    with pytest.raises(errors.OptionError, match="no layer 'tail' to put in order, only lstm, head"):
        Layers(model.layers, ["lstm", "tail"])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_the_last_output_is_that_of_the_last_valid_step_of_both_directions(kind):
    layer = double(kind, I, H, 2, bidirectional=True)
    x = filled("x", T, N, I)
    output = layer(x, lengths=LENGTHS)[0].numpy()
    last = np.stack([output[length - 1, n, :H] for n, length in enumerate(LENGTHS)])
    found = Final(layer)(x, lengths=LENGTHS).numpy()
    np.testing.assert_allclose(found, np.concatenate([last, output[0, :, H:]], axis=1), rtol=0, atol=1e-15)
    with pytest.raises(errors.OptionError, match="Final takes a recurrent layer, not Linear"):
        Final(nn.Linear(2, 3))


def test_weights_come_and_go_on_every_backend(backend, tmp_path):
    layer = double(nn.GRU, I, H, reset="after", recurrent_bias=True)
    x = tg.tensor(filled("x", T, N, I))
    wanted = layer(x)[0].numpy()
    path = tmp_path / "gru.safetensors"
    save(layer, path)
    vector = to_cudnn(layer)
    cell = from_arrays("keras", "GRU", to_arrays(layer.cells[0], "keras"), reset="after")
    layers = [load(path), from_cudnn(vector, "GRU", I, H)]
    assert all(type(array) is np.ndarray for array in (vector, *torch_state(layer).values()))
    for each in [*layers, cell]:
        assert each.to(backend) is each
    np.testing.assert_allclose(layers[0](x)[0].numpy(), wanted, rtol=0, atol=0)
    np.testing.assert_allclose(layers[1](x)[0].numpy(), wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(cell(x[0]).numpy(), wanted[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", [["a", "q"], 3, "aq"])
def test_an_order_that_is_set_later_is_checked_when_it_is_needed(order):
    model = Layers({"a": nn.Linear(2, 2), "h": nn.Linear(2, 3)})
    model.order = order
    with pytest.raises(errors.OptionError, match="order"):
        model(np.ones((1, 2), np.float32))
