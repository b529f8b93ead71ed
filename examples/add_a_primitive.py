"""A primitive of your own: arcsinh, the inverse of sinh, with its derivative 1 / sqrt(1 + x²) above it.

What you will see: the formula of the rule, made by running the rule on symbols; the verdict of the gradient check on
the rule and on what follows from it, the second and third derivative; the same verdict on a rule with a classic
mistake, and what it says is wrong; and a picture in which arcsinh is a box like any other.
"""

from pathlib import Path

from commandline import run

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GradcheckError
from tinygrad_rnn.see.formula import derivative_formulas

AROUND_ZERO = [-3.0, -0.5, 0.25, 2.0]


@tg.primitive("elementwise", latex=r"\mathrm{arcsinh}({x})", dx=lambda g, x: g / tg.sqrt(1 + x**2))
def arcsinh(xp, x):
    """Near 0 like x; further out it grows as slowly as a logarithm, on both sides."""
    return xp.arcsinh(x)


@tg.primitive("elementwise", dx=lambda g, x: g / (1 + x**2))  # the root was forgotten
def careless_arcsinh(xp, x):
    return xp.arcsinh(x)


def main(*, out: Path = Path(".")) -> str:
    """Returns what the gradient check says of the careless rule."""
    y, _, derivatives = derivative_formulas(arcsinh.primitive, [tg.tensor(AROUND_ZERO).numpy()])
    print(f"y = {y}, in LaTeX {y.latex}")
    print(f"the gradient for x is {derivatives['x']}, in LaTeX {derivatives['x'].latex}")

    tg.gradcheck(arcsinh, AROUND_ZERO, order=3)
    print("\narcsinh agrees with differences of its values, to the third derivative")
    try:
        tg.gradcheck(careless_arcsinh, AROUND_ZERO)
        verdict = "nothing is wrong"
    except GradcheckError as error:
        verdict = str(error)
    print(f"careless_arcsinh: {verdict}")

    x = tg.tensor([AROUND_ZERO], requires_grad=True, name="x")
    picture = tg.draw(arcsinh(x).sum(), title="A primitive of your own").save(out / "arcsinh.svg")
    print(f"\n{picture} shows it between its neighbours, with values and gradients")
    return verdict


if __name__ == "__main__":
    run(main)
