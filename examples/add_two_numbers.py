"""The adding problem (Hochreiter and Schmidhuber 1997): two numbers among fifty are marked; what is their sum?

One of them stands in the first half of the sequence, the other in the second. Who does not look at them and answers 1
has a mean squared error of 1/6 = 0.1667: the variance of a sum of two uniform numbers.

What you will see: after how many steps of learning each cell has an error below 0.02, and the curves of all four. The
gated cells find the way within a few thousand steps, the plain RNN does not.
"""

import time
from pathlib import Path

import numpy as np
from commandline import progress, run

import tinygrad_rnn as tg
from tinygrad_rnn.errors import OptionError
from tinygrad_rnn.see.curve import curve

CELLS = (tg.nn.RNN, tg.nn.MinimalGRU, tg.nn.GRU, tg.nn.LSTM)
SOLVED = 0.02


class Adder(tg.nn.Module):
    """A recurrent layer, and one number from its last output."""

    def __init__(self, layer: type[tg.nn.Recurrent], hidden: int) -> None:
        self.recurrent = layer(2, hidden)
        self.head = tg.nn.Linear(hidden, 1)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        """x (T, N, 2) -> (N, 1)."""
        output, _ = self.recurrent(x)
        return self.head(output[-1])


def problems(T: int, N: int, rng: np.random.Generator) -> tuple[tg.Tensor, tg.Tensor]:
    """Numbers from 0 to 1 with their marks, (T, N, 2), and the sums of the marked ones, (N, 1)."""
    if T < 2:
        raise OptionError(f"length is {T}; it must be at least 2, for a number is marked in each of two halves")
    numbers, marks = rng.random((T, N)), np.zeros((T, N))
    for half in (rng.integers(0, T // 2, N), rng.integers(T // 2, T, N)):
        marks[half, np.arange(N)] = 1
    x, sums = np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=0)
    return tg.tensor(x.astype(np.float32)), tg.tensor(sums[:, None].astype(np.float32))


def learn(model: Adder, T: int, steps: int, batch: int, lr: float, rng: np.random.Generator) -> list[tuple[int, float]]:
    """Until the error on 1,000 new problems, measured every 100 steps, is small enough; returns those errors."""
    x, sums = problems(T, 1000, rng)
    optimizer, errors = tg.optim.Adam(model.parameters(), lr=lr), []
    for step in progress(steps + 1, type(model.recurrent).__name__):
        if step % 100 == 0:
            with tg.no_grad():
                errors.append((step, tg.nn.mse(model(x), sums).item()))
            if errors[-1][1] < SOLVED:
                break
        inputs, targets = problems(T, batch, rng)
        loss = tg.nn.mse(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return errors


def main(
    *, length: int = 50, hidden: int = 64, steps: int = 4000, batch: int = 50, lr: float = 1e-3, seed: int = 0,
    out: Path = Path("."),
) -> dict[str, list[tuple[int, float]]]:  # fmt: skip
    """Returns for each cell its error every 100 steps, as pairs (step, error)."""
    errors = {}
    for cell in CELLS:
        tg.seed(seed)
        started, name = time.perf_counter(), cell.__name__
        errors[name] = learn(Adder(cell, hidden), length, steps, batch, lr, np.random.default_rng(seed))
        step, error = errors[name][-1]
        verdict = "solved" if error < SOLVED else "not solved"
        print(f"{name:<10} {verdict} after {step:,} steps, {time.perf_counter() - started:.0f} s: error {error:.4f}")
    drawn = {name: pairs[1:] for name, pairs in errors.items()}  # at the start it answers anything
    picture = out / "adding.svg"
    picture.write_text(curve(drawn, title=f"Adding two of {length} numbers", x="step", y="squared error"), "utf-8")
    print(f"{picture} has the curves; who always answers 1 is at 0.1667")
    return errors


if __name__ == "__main__":
    run(main)
