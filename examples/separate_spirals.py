"""Three spiral arms that no straight line can part: a network of two layers bends its borders around them.

What you will see: how many points of arms that it has not seen go to which class, and a picture of the regions that it
has learned. With --hidden 2 the borders have too few bends; with a single layer they would be straight.
"""

from pathlib import Path

import numpy as np
from commandline import run

import tinygrad_rnn as tg
from tinygrad_rnn.see.flow.plots import LINES, Plot

ARMS = 3


def spirals(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) and the number of the arm that each lies on (count)."""
    arm = rng.integers(0, ARMS, count)
    radius = rng.uniform(0.05, 1, count)
    angle = 2 * np.pi * arm / ARMS + 4 * radius + rng.normal(0, 0.15, count)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32), arm


class Regions(Plot):
    """The plane in the colours of the classes that the model gives it, with points on top; light or dark, as the page.

    points (count, 2); arm (count): on which each lies.
    """

    title, size = "Which arm the network gives a point to", (5, 5)

    def __init__(self, model: tg.nn.Module, points: np.ndarray, arm: np.ndarray) -> None:
        self.model, self.points, self.arm = model, points, arm

    def drawn(self) -> "Regions":
        return self

    def put(self, figure) -> None:
        """Draw it into a figure of matplotlib."""
        x, y = np.meshgrid(*2 * [np.linspace(-1.2, 1.2, 240, dtype=np.float32)])
        with tg.no_grad():
            given = self.model(tg.tensor(np.stack([x, y], axis=-1))).argmax(axis=-1).numpy()
        axes = figure.add_subplot(aspect="equal")
        tones, _, marks = zip(*LINES[:ARMS])
        axes.contourf(x, y, given, levels=np.arange(ARMS + 1) - 0.5, colors=tones, alpha=0.2)
        for k, (tone, mark) in enumerate(zip(tones, marks)):
            axes.plot(*self.points[self.arm == k].T, mark, color=tone, markersize=3, label=f"arm {k}")
        axes.legend(loc="lower right")


def main(*, hidden: int = 64, steps: int = 500, lr: float = 0.02, seed: int = 0, out: Path = Path(".")) -> np.ndarray:
    """Returns how many points of each arm (rows) went to each class (columns), (3, 3)."""
    tg.seed(seed)
    rng = np.random.default_rng(seed)
    points, arm = spirals(600, rng)
    model = tg.nn.Sequential(tg.nn.Linear(2, hidden), tg.tanh, tg.nn.Linear(hidden, ARMS))
    optimizer = tg.optim.Adam(model.parameters(), lr=lr)
    x, y = tg.tensor(points), tg.tensor(arm)
    for step in range(1, steps + 1):
        loss = tg.nn.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    unseen, truth = spirals(1000, rng)
    found = model(tg.tensor(unseen)).argmax(axis=-1).numpy()
    confusion = np.histogram2d(truth, found, bins=ARMS)[0].astype(int)
    print("\n1,000 new points; a row for each arm, a column for each class that the network gave:")
    print(confusion)
    picture = Regions(model, unseen, truth).save(out / "spirals.svg")
    print(f"{np.trace(confusion) / 1000:.1%} are right; {picture} shows the regions")
    return confusion


if __name__ == "__main__":
    run(main)
