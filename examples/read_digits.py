"""Handwritten digits, read row by row by each of the four cells: the state after the last row has to name the digit.

An image of 8 by 8 pixels is a sequence of 8 steps with 8 inputs. A network sees one row at a time, so that it has to
remember the upper ones. The 1,797 images come with scikit-learn; 360 of them are kept for the test.

What you will see: for each cell, how many numbers it learned, how many digits of the test it names, and which digits
the GRU takes for which.
"""

import time

import numpy as np
from commandline import progress, run

import tinygrad_rnn as tg

CELLS = (tg.nn.RNN, tg.nn.MinimalGRU, tg.nn.GRU, tg.nn.LSTM)
HELD_BACK = 360


class Reader(tg.nn.Module):
    """A recurrent layer, and the scores of ten digits from its last output."""

    def __init__(self, layer: type[tg.nn.Recurrent], hidden: int) -> None:
        self.recurrent = layer(8, hidden)
        self.head = tg.nn.Linear(hidden, 10)

    def forward(self, rows: tg.Tensor) -> tg.Tensor:
        """rows (T, N, 8) -> (N, 10)."""
        output, _ = self.recurrent(rows)
        return self.head(output[-1])


def digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All images as sequences of rows, (8, 1797, 8), and the digits that they show, (1797), in random order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = rng.permutation(len(data.target))
    return (data.images[order].swapaxes(0, 1) / 16).astype(np.float32), data.target[order]


def learn(
    model: Reader, images: np.ndarray, truth: np.ndarray, epochs: int, lr: float, rng: np.random.Generator
) -> None:
    """Go through all images in batches of 32, so many times."""
    optimizer = tg.optim.Adam(model.parameters(), lr=lr)
    for _ in progress(epochs, type(model.recurrent).__name__):
        for chosen in np.array_split(rng.permutation(len(truth)), len(truth) // 32):
            loss = tg.nn.cross_entropy(model(tg.tensor(images[:, chosen])), tg.tensor(truth[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(*, hidden: int = 32, epochs: int = 40, lr: float = 3e-3, seed: int = 0) -> dict[str, float]:
    """Returns the share of digits of the test that each cell names."""
    images, truth = digits(np.random.default_rng(seed))
    unseen, answers = tg.tensor(images[:, :HELD_BACK]), truth[:HELD_BACK]
    found, accuracy = {}, {}
    for cell in CELLS:
        tg.seed(seed)
        name, started, model = cell.__name__, time.perf_counter(), Reader(cell, hidden)
        learn(model, images[:, HELD_BACK:], truth[HELD_BACK:], epochs, lr, np.random.default_rng(seed))
        found[name] = model(unseen).argmax(axis=-1).numpy()
        accuracy[name] = float((found[name] == answers).mean())
        size = sum(parameter.size for parameter in model.parameters())
        print(f"{name:<10} {size:6,} numbers  {accuracy[name]:.1%} right  {time.perf_counter() - started:.1f} s")

    print("\nThe GRU; a row for each digit, a column for each answer:")
    print(np.histogram2d(answers, found["GRU"], bins=[np.arange(11)] * 2)[0].astype(int))
    return accuracy


if __name__ == "__main__":
    run(main)
