"""An expression of numbers, drawn and stepped through: each value, each gradient, and where a gradient comes from.

What you will see: a table of all values and gradients; the three contributions that add up to the gradient of x, which
is used three times; a picture, and a page that goes through the same steps one by one, forward and then back.
"""

from pathlib import Path

from commandline import run

import tinygrad_rnn as tg


def main(*, x: float = 0.5, w: float = -2.0, b: float = 1.5, out: Path = Path(".")) -> dict[str, float]:
    """Returns the gradients of y = x tanh(x w + b) + x², by name."""
    x, w, b = (tg.tensor(value, requires_grad=True, name=name) for name, value in (("x", x), ("w", w), ("b", b)))
    y = x * tg.tanh(x * w + b) + x**2
    y.name = "y"
    y.backward()

    print(tg.trace_table(y))
    print()
    print(tg.explain(x, of=y))

    picture = tg.draw(y, title="y = x tanh(x w + b) + x²").save(out / "expression.svg")
    page = out / "expression.html"
    tg.play(y, page, title="y = x tanh(x w + b) + x², step by step")
    print(f"\n{picture} is the picture; open {page} in a browser and press the right arrow key")
    return {leaf.name: leaf.grad.item() for leaf in (x, w, b)}


if __name__ == "__main__":
    run(main)
