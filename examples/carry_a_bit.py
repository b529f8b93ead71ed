"""One bit carried over 10,000 steps: a closed update gate forgets nothing, and neither does its gradient.

With z = 0.000001 the GRU's h' = z n + (1 - z) h keeps h, whatever comes in meanwhile. The weights are set by hand, so
that the gate opens only when the first input says "write"; the second input is the bit, and noise ever after.
A plain RNN with the strongest memory that a single unit can have is shown beside it.

What you will see: for each of the two, what it still knows of a +1 and of a -1 at the end, and how much of a gradient
comes back from there to the step at which the bit was written.
"""

import numpy as np
from commandline import run

import tinygrad_rnn as tg


def gru_that_remembers() -> tg.nn.GRUCell:
    """A GRU cell of one unit: z = sigmoid(28 write - 13.8), n = tanh(5 bit), whatever the state is."""
    cell = tg.nn.GRUCell(2, 1)
    z, r, n = range(3)  # the order in which the gates are packed
    W, U, b = np.zeros((2, 3)), np.zeros((1, 3)), np.zeros(3)
    W[0, z], b[z] = 28.0, -13.8  # sigmoid(-13.8) = 0.000001
    W[1, n] = 5.0
    b[r] = 1.0
    for parameter, value in ((cell.W, W), (cell.U, U), (cell.b, b)):
        parameter.assign_(value)
    return cell


def rnn_that_tries() -> tg.nn.RNNCell:
    """A plain unit h' = tanh(5 bit + 1.5 h): two stable states, the nearest thing to a memory it has."""
    cell = tg.nn.RNNCell(2, 1)
    cell.W.assign_([[0.0], [5.0]])
    cell.U.assign_([[1.5]])
    cell.b.assign_([0.0])
    return cell


def carried(cell: tg.nn.Cell, bit: float, steps: int) -> tuple[float, float]:
    """The state after so many steps of noise, and its derivative for the state right after the bit was written."""
    rng = np.random.default_rng(7)
    h = cell(tg.tensor([[1.0, bit]]), tg.zeros((1, 1)))
    start = h = tg.tensor(h, requires_grad=True)
    for noise in rng.normal(0, 0.5, steps):
        h = cell(tg.tensor([[0.0, noise]]), h)
    (slope,) = tg.pullback(h, [start])
    return h.item(), slope.item()


def main(*, steps: int = 10_000) -> dict[str, list[tuple[float, float]]]:
    """Returns for each cell the state at the end and its derivative, of a +1 and of a -1."""
    found = {}
    for name, cell in (("GRU", gru_that_remembers()), ("RNN", rnn_that_tries())):
        found[name] = [carried(cell, bit, steps) for bit in (1.0, -1.0)]
        for bit, (state, slope) in zip((1, -1), found[name], strict=True):
            print(f"{name}: wrote {bit:+d}, after {steps:,} steps h = {state:+.3f}, dh_T/dh_1 = {slope:.3g}")
    return found


if __name__ == "__main__":
    run(main)
