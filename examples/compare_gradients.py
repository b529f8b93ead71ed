"""How far back a gradient comes: RNN, simplified GRU, GRU and LSTM on the same input.

What you will see: what is left of the gradient of a loss for the states 1, 10 and more steps before it, in numbers and
as curves on a logarithmic axis. First for new layers: each step takes about the same factor, and a new GRU forgets too,
as its gates stand half open. Then for the same layers with their gates nearly shut: what gates give is the possibility
to keep. An LSTM has two states; what it remembers passes through c.
"""

from pathlib import Path

import numpy as np
from commandline import run

import tinygrad_rnn as tg
from tinygrad_rnn.see import flow

KEEPING = {tg.nn.MinimalGRU: ("z", -4.0), tg.nn.GRU: ("z", -4.0), tg.nn.LSTM: ("f", 4.0)}
"""The gate that keeps the old, and a bias with which it nearly does so: sigmoid(4) = 0.98."""


def set_bias(cell: tg.nn.Cell, gate: str, value: float) -> None:
    """Give all units of one gate this bias."""
    by_gate = cell.to_gates()["b"]
    by_gate[gate][:] = value
    cell.b.assign_(np.concatenate(list(by_gate.values())))


def main(
    *, steps: int = 60, inputs: int = 8, hidden: int = 16, seed: int = 0, out: Path = Path(".")
) -> tuple[flow.Decay, flow.Decay]:  # fmt: skip
    """Returns what is left of the gradient with distance, before and after the gates were shut."""
    rng = np.random.default_rng(seed)
    layers = {layer.__name__: layer(inputs, hidden, dtype="float64", rng=rng) for layer in (tg.nn.RNN, *KEEPING)}
    x = tg.tensor(rng.standard_normal((steps, 1, inputs)))
    new = flow.decay(layers, x, name="Layers as they are made")
    for layer in layers.values():
        if gate := KEEPING.get(type(layer)):
            set_bias(layer.cells[0], *gate)
    shut = flow.decay(layers, x, name="Layers with their gates nearly shut")

    for measured, name in ((new, "new"), (shut, "shut")):
        print(f"{measured.name}:")
        print("\n".join(measured.sentences()))
        print(measured.save(out / f"gradients_{name}.svg"), "has the curves\n")
    return new, shut


if __name__ == "__main__":
    run(main)
