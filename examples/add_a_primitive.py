"""A primitive of your own: softsign, x / (1 + |x|), with its derivative above it.

What you will see: the formula of the rule, made by running the rule on symbols; the verdict of the gradient check on
the rule and on what follows from it, the second and third derivative; the same verdict on a rule with a classic
mistake, and what it says is wrong; and a picture in which softsign is a box like any other.
"""

from pathlib import Path

from commandline import run

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GradcheckError
from tinygrad_rnn.see.formula import derivative_formulas

AROUND_ZERO = [-3.0, -0.5, 0.25, 2.0]  # not 0 itself, where the second derivative jumps


@tg.primitive(
    "elementwise", analytic=False, latex=r"\frac{{x}}{1 + \lvert {x} \rvert}",
    dx=lambda g, y: g * (1 - abs(y)) ** 2,
)  # fmt: skip
def softsign(xp, x):
    """Like tanh it stays between -1 and 1, but it gets there slowly (Bergstra et al. 2009)."""
    return x / (1 + xp.abs(x))


@tg.primitive("elementwise", analytic=False, dx=lambda g, y: g * (1 - abs(y)))  # the square was forgotten
def careless_softsign(xp, x):
    return x / (1 + xp.abs(x))


def main(*, out: Path = Path(".")) -> str:
    """Returns what the gradient check says of the careless rule."""
    y, _, derivatives = derivative_formulas(softsign.primitive, [tg.tensor(AROUND_ZERO).numpy()])
    print(f"y = {y}, in LaTeX {y.latex}")
    print(f"the gradient for x is {derivatives['x']}, in LaTeX {derivatives['x'].latex}")

    tg.gradcheck(softsign, AROUND_ZERO, order=3)
    print("\nsoftsign agrees with differences of its values, to the third derivative")
    try:
        tg.gradcheck(careless_softsign, AROUND_ZERO)
        verdict = "nothing is wrong"
    except GradcheckError as error:
        verdict = str(error)
    print(f"careless_softsign: {verdict}")

    x = tg.tensor([AROUND_ZERO], requires_grad=True, name="x")
    picture = tg.draw(softsign(x).sum(), title="A primitive of your own").save(out / "softsign.svg")
    print(f"\n{picture} shows it between its neighbours, with values and gradients")
    return verdict


if __name__ == "__main__":
    run(main)
