"""Makes recurrent.json: values and gradients of every cell and layer, computed without the package.

Cells that PyTorch has come from PyTorch, in its own layout of weights; the others from the plain loops of loops.py.
Where both can, both do, and the script stops unless they agree. Run: python tests/golden/make_recurrent.py
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import loops
import numpy as np
import torch
from loops import H, I, N, T, filled

torch.set_default_dtype(torch.float64)
LENGTHS = [4, 2, 3]


def from_loops(cell, blocks, recurrent_bias=False):
    p = loops.parameters(blocks, recurrent_bias)
    output = loops.unrolled(cell, p).real
    return {"output": output, "h_n": output[-1], "gradients": loops.gradients(cell, p)}


def rows(packed, order, blocks):
    """Our blocks, side by side, as PyTorch's, one above the other: `order` says which of ours comes where."""
    parts = np.split(packed, blocks, axis=-1)
    return torch.tensor(np.concatenate([parts[i].T if packed.ndim == 2 else parts[i] for i in order]))


def blocks_of(gradient, order, blocks):
    """The way back: a gradient in PyTorch's layout as one in ours."""
    parts = np.split(gradient.numpy(), blocks)
    ours = [None] * blocks
    for place, i in enumerate(order):
        ours[i] = parts[place].T if gradient.ndim == 2 else parts[place]
    return np.concatenate(ours, axis=-1)


def from_torch(
    kind, order, *, layers=1, bidirectional=False, lengths=None, states=1, recurrent_bias=False, **options
):  # fmt: skip
    """A layer of PyTorch with our numbers in its weights: output, final states, all gradients, in our layout."""
    G, D = len(order), 1 + bidirectional
    layer = kind(I, H, layers, bidirectional=bidirectional, **options)
    suffixes = [f"_l{n}{'_reverse' * d}" for n in range(layers) for d in range(D)]
    for k, suffix in enumerate(suffixes):
        tag = f".{k}" if k else ""
        width = I if k < D else D * H
        hidden_bias = np.zeros(G * H)
        if recurrent_bias:
            hidden_bias[-H:] = filled("c" + tag, H)  # PyTorch's order of gates ends with the candidate, too
        values = {"weight_ih": rows(filled("W" + tag, width, G * H), order, G),
                  "weight_hh": rows(filled("U" + tag, H, G * H), order, G),
                  "bias_ih": rows(filled("b" + tag, G * H), order, G),
                  "bias_hh": torch.tensor(hidden_bias)}  # fmt: skip
        for name, value in values.items():
            getattr(layer, name + suffix).data.copy_(value)
    x = torch.tensor(filled("x", T, N, I), requires_grad=True)
    shape = (layers * D, N, H)
    starts = [torch.tensor(filled(name, *shape), requires_grad=True) for name in ("h_0", "c_0")[:states]]
    given = x
    if lengths:
        given = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, final = layer(given, starts[0] if states == 1 else tuple(starts))
    if lengths:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, total_length=T)
    finals = dict(zip(("h_n", "c_n"), [final] if states == 1 else final))
    loss = (output * torch.tensor(filled("loss", T, N, D * H))).sum()
    for name, value in finals.items():
        loss = loss + (value * torch.tensor(filled("loss " + name, *shape))).sum()
    loss.backward()
    gradients = {"x": x.grad.numpy()} | {n: s.grad.numpy() for n, s in zip(("h_0", "c_0"), starts)}
    for k, suffix in enumerate(suffixes):
        tag = f".{k}" if k else ""
        gradients["W" + tag] = blocks_of(getattr(layer, "weight_ih" + suffix).grad, order, G)
        gradients["U" + tag] = blocks_of(getattr(layer, "weight_hh" + suffix).grad, order, G)
        gradients["b" + tag] = blocks_of(getattr(layer, "bias_ih" + suffix).grad, order, G)
        if recurrent_bias:
            gradients["c" + tag] = getattr(layer, "bias_hh" + suffix).grad.numpy()[-H:]
    values = {name: value.detach().numpy() for name, value in ({"output": output} | finals).items()}
    return values | {"gradients": gradients}


def agreeing(one, other):
    """Two results of two origins, the first of which is kept."""
    np.testing.assert_allclose(one["output"], other["output"], rtol=0, atol=1e-13)
    for name, gradient in one["gradients"].items():
        theirs = other["gradients"][name]
        np.testing.assert_allclose(gradient.reshape(theirs.shape), theirs, rtol=0, atol=1e-12, err_msg=name)
    return other


RNN, GRU, LSTM = torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM
ZRN, IFGO = (1, 0, 2), (0, 1, 2, 3)  # which of our blocks PyTorch puts first, second, ...

GOLDEN = {
    "rnn tanh": agreeing(from_torch(RNN, (0,)), from_loops(loops.rnn, 1)),
    "rnn relu": from_torch(RNN, (0,), nonlinearity="relu"),
    "minimal": from_loops(loops.minimal_gru, 2),
    "gru before new": from_loops(partial(loops.gru, reset="before", update="new"), 3),
    "gru before old": from_loops(partial(loops.gru, reset="before", update="old"), 3),
    "gru after new": from_loops(partial(loops.gru, reset="after", update="new"), 3),
    "gru after new, c": from_loops(partial(loops.gru, reset="after", update="new"), 3, recurrent_bias=True),
    "gru after old": agreeing(
        from_torch(GRU, ZRN), from_loops(partial(loops.gru, reset="after", update="old"), 3)
    ),
    "gru after old, c": agreeing(
        from_torch(GRU, ZRN, recurrent_bias=True),
        from_loops(partial(loops.gru, reset="after", update="old"), 3, recurrent_bias=True),
    ),
    "lstm": from_torch(LSTM, IFGO, states=2),
    "rnn tanh, 2 layers, both directions, lengths": from_torch(
        RNN, (0,), layers=2, bidirectional=True, lengths=LENGTHS
    ),
    "gru after old, c, 2 layers": from_torch(GRU, ZRN, layers=2, recurrent_bias=True),
    "gru after old, c, both directions": from_torch(GRU, ZRN, bidirectional=True, recurrent_bias=True),
    "gru after old, c, lengths": from_torch(GRU, ZRN, lengths=LENGTHS, recurrent_bias=True),
    "gru after old, c, 2 layers, both directions, lengths": from_torch(
        GRU, ZRN, layers=2, bidirectional=True, lengths=LENGTHS, recurrent_bias=True
    ),
    "lstm, 2 layers": from_torch(LSTM, IFGO, layers=2, states=2),
    "lstm, 2 layers, both directions, lengths": from_torch(
        LSTM, IFGO, layers=2, bidirectional=True, lengths=LENGTHS, states=2
    ),
}  # fmt: skip


def plain(value):
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [float(f"{number:.13g}") for number in np.asarray(value).ravel()]


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(plain(result))}" for name, result in GOLDEN.items()]
    Path(__file__).with_name("recurrent.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
