"""A cell of your own: the minimal gated unit of Zhou et al. (2016), a GRU whose one gate f resets and updates.

What you will see: its equations, made by running the cell on symbols; the verdict of the gradient check; a picture of
one step; and the cell at work. It reads random numbers, some of them marked, and has to say at each step which number
was the last marked one. After a second of learning its gate opens at a mark, and much less everywhere else.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from commandline import progress, run

import tinygrad_rnn as tg
from tinygrad_rnn.see import cell_equations, flow


class Step(NamedTuple):
    f: Any
    n: Any
    h: Any


class MGUCell(tg.nn.Cell):
    gates, candidate = ("f", "n"), "n"

    def equation(self, x, state, weights):
        (h,), (W, U, b) = state, weights
        f = tg.sigmoid(x @ W.f + h @ U.f + b.f)
        n = tg.tanh(x @ W.n + (f * h) @ U.n + b.n)
        h = (1 - f) * h + f * n
        return Step(f, n, h)


class MGU(tg.nn.Recurrent):
    cell_type = MGUCell


def sequences(T: int, N: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers with their marks, the first one marked, (T, N, 2); and the last number that was marked, (T, N, 1)."""
    numbers, marked = rng.uniform(-1, 1, (T, N)), rng.random((T, N)) < 0.2
    marked[0] = True
    last = np.maximum.accumulate(np.where(marked, np.arange(T)[:, None], 0), axis=0)
    kept = np.take_along_axis(numbers, last, axis=0)[..., None]
    return np.stack([numbers, marked], axis=-1).astype(np.float32), kept.astype(np.float32)


def main(
    *, hidden: int = 4, steps: int = 500, lr: float = 0.02, seed: int = 0, out: Path = Path(".")
) -> tuple[float, dict[str, float]]:  # fmt: skip
    """Returns the mean squared error in sequences of 100 numbers, and how open the gate is with and without a mark."""
    tg.seed(seed)
    rng = np.random.default_rng(seed)
    small = MGUCell(2, 3, dtype="float64")
    x, h = (tg.tensor(rng.normal(size=(4, size)), name=name) for size, name in ((2, "x"), (3, "h_0")))
    print(cell_equations(small))
    tg.gradcheck(small, x, h, order=2)
    print("its gradients agree with differences of its values, to the second order")
    picture = tg.draw(small(x, h), title="One step of the minimal gated unit", direction="TB").save(
        out / "mgu_step.svg"
    )

    layer, head = MGU(2, hidden), tg.nn.Linear(hidden, 1)
    optimizer = tg.optim.Adam([*layer.parameters(), *head.parameters()], lr=lr)
    for _ in progress(steps, "learning"):
        x, kept = map(tg.tensor, sequences(20, 32, rng))
        loss = tg.nn.mse(head(layer(x)[0]), kept)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    numbers, kept = sequences(100, 50, rng)
    x = tg.tensor(numbers)
    error = tg.nn.mse(head(layer(x)[0]), tg.tensor(kept)).item()
    (gates,) = flow.gates(layer, x[:, :1], labels=["marked" if mark else "not marked" for mark in numbers[:, 0, 1]])
    opening = {label: mean for label, (mean, _) in gates.by_symbol("f").items()}
    print(f"\nin sequences five times as long as it learned from, its squared error is {error:.4f}; guessing 0: 0.3333")
    print("its gate is open by", ", ".join(f"{mean:.2f} where a number is {label}" for label, mean in opening.items()))
    print(f"{picture} shows one step")
    return error, opening


if __name__ == "__main__":
    run(main)
