"""Arithmetic and functions of single elements; arrays broadcast against each other.

Arguments of any shapes that broadcast -> the shape that they have together. Dtypes are NumPy's: a Python number takes
the dtype of the array beside it, and comparisons give bools. What has a kink or a tie is settled in docs/semantics.md.

Raises, in all of them: ShapeError for shapes that do not broadcast; BackendError for arrays of two backends;
    DtypeError for numbers that a function does not take, such as integers to a negative power.
"""

from __future__ import annotations

import math

from ..core.primitive import primitive, unchanged

# -- arithmetic ----------------------------------------------------------------------------------


@primitive("linear", latex="{a} + {b}", da=unchanged, db=unchanged)
def add(xp, a, b):
    """Sum, element by element: a + b."""
    return a + b


@primitive("linear", latex="{a} - {b}", da=unchanged, db=lambda g: -g)
def sub(xp, a, b):
    """Difference, element by element: a - b."""
    return a - b


@primitive("bilinear", latex=r"{a} \odot {b}", da=lambda g, b: g * b, db=lambda g, a: g * a)
def mul(xp, a, b):
    """Product, element by element: a * b."""
    return a * b


@primitive(
    "elementwise", latex=r"\frac{{a}}{{b}}", domain=(0.5, 2.0), da=lambda g, b: g / b, db=lambda g, y, b: -g * y / b
)
def div(xp, a, b):
    """Quotient, element by element: a / b. A division by 0 gives inf or nan, as in NumPy."""
    return a / b


@primitive(
    "elementwise", latex="{a}^{{b}}", domain=(0.5, 2.0),
    da=lambda g, a, b: g * (b * _base(a, b) ** (b - 1)), db=lambda g, y, a: g * y * _log(a),
)  # fmt: skip
def power(xp, a, b):
    """a to the power b. Where a is 0, the derivative for b is 0, if b is not negative; for a < 0 it is nan."""
    return a**b


def _base(a, b):
    """a, but 1 at 0 to the power 0, so that b * a ** (b - 1) is 0 there."""
    return a if not hasattr(b, "shape") and b else a + (a == 0) * (b == 0)


def _log(a):
    if hasattr(a, "shape"):
        return log(a + (a == 0))
    return math.log(a) if a > 0 else math.nan if a else 0.0


@primitive("linear", latex="-{x}", dx=lambda g: -g)
def neg(xp, x):
    """Negative."""
    return -x


@primitive("elementwise", latex=r"{x}^{2}", dx=lambda g, x: g * 2 * x)
def square(xp, x):
    """Square."""
    return xp.square(x)


@primitive("elementwise", latex=r"\sqrt{{x}}", domain=(0.5, 2.0), dx=lambda g, y: g / (2 * y))
def sqrt(xp, x):
    """Square root; its derivative at 0 is inf."""
    return xp.sqrt(x)


@primitive("elementwise", latex=r"\frac{1}{{x}}", domain=(0.5, 2.0), dx=lambda g, y: -g * y * y)
def reciprocal(xp, x):
    """1 / x; of integers, as in NumPy, the whole part."""
    return xp.reciprocal(x)


# -- exponentials and logarithms -----------------------------------------------------------------


@primitive("elementwise", latex="e^{{x}}", dx=lambda g, y: g * y)
def exp(xp, x):
    """e to the power x."""
    return xp.exp(x)


@primitive("elementwise", latex="e^{{x}} - 1", dx=lambda g, y: g * (y + 1))
def expm1(xp, x):
    """exp(x) - 1, exact also near 0."""
    return xp.expm1(x)


@primitive("elementwise", latex=r"\log({x})", domain=(0.5, 2.0), dx=lambda g, x: g / x)
def log(xp, x):
    """Natural logarithm: -inf at 0, nan below, as in NumPy."""
    return xp.log(x)


@primitive("elementwise", latex=r"\log(1 + {x})", domain=(-0.5, 2.0), dx=lambda g, x: g / (1 + x))
def log1p(xp, x):
    """log(1 + x), exact also near 0."""
    return xp.log1p(x)


# -- angles ----------------------------------------------------------------------------------------


@primitive("elementwise", latex=r"\sin({x})", dx=lambda g, x: g * cos(x))
def sin(xp, x):
    """Sine of radians."""
    return xp.sin(x)


@primitive("elementwise", latex=r"\cos({x})", dx=lambda g, x: -g * sin(x))
def cos(xp, x):
    """Cosine of radians."""
    return xp.cos(x)


@primitive("elementwise", latex=r"\tan({x})", domain=(-1.2, 1.2), dx=lambda g, y: g * (1 + y * y))
def tan(xp, x):
    """Tangent of radians."""
    return xp.tan(x)


@primitive("elementwise", latex=r"\arcsin({x})", domain=(-0.9, 0.9), dx=lambda g, x: g / sqrt(1 - x * x))
def arcsin(xp, x):
    """The angle in [-pi/2, pi/2] with this sine."""
    return xp.arcsin(x)


@primitive("elementwise", latex=r"\arccos({x})", domain=(-0.9, 0.9), dx=lambda g, x: -g / sqrt(1 - x * x))
def arccos(xp, x):
    """The angle in [0, pi] with this cosine."""
    return xp.arccos(x)


@primitive("elementwise", latex=r"\arctan({x})", domain=(-0.9, 0.9), dx=lambda g, x: g / (1 + x * x))
def arctan(xp, x):
    """The angle in (-pi/2, pi/2) with this tangent."""
    return xp.arctan(x)


@primitive("elementwise", latex=r"\sinh({x})", dx=lambda g, x: g * cosh(x))
def sinh(xp, x):
    """Hyperbolic sine."""
    return xp.sinh(x)


@primitive("elementwise", latex=r"\cosh({x})", dx=lambda g, x: g * sinh(x))
def cosh(xp, x):
    """Hyperbolic cosine."""
    return xp.cosh(x)


# -- activations -----------------------------------------------------------------------------------


@primitive("elementwise", latex=r"\tanh({x})", dx=lambda g, y: g - g * y * y)
def tanh(xp, x):
    """Hyperbolic tangent."""
    return xp.tanh(x)


@primitive("elementwise", latex=r"\sigma({x})", dx=lambda g, y: g * (y - y * y))
def sigmoid(xp, x):
    """Logistic function 1 / (1 + exp(-x)), computed as e / (1 + e) with e = exp(x), exact also where it is tiny."""
    e = xp.exp(xp.minimum(x, 11.0 if x.dtype.char == "e" else 40.0))  # from there on it is 1, and e cannot overflow
    return e / (1 + e)


@primitive("elementwise", analytic=False, dx=lambda g, x: where(x > 0, g, 0))
def relu(xp, x):
    """max(x, 0), with derivative 0 at 0."""
    return xp.maximum(x, 0)


@primitive("elementwise", analytic=False, dx=lambda g, x, slope: where(x > 0, g, g * slope))
def leaky_relu(xp, x, *, slope=0.01):
    """x above 0, slope * x below, with derivative `slope` at 0 (Maas et al. 2013)."""
    return xp.where(x > 0, x, x * slope)


@primitive("elementwise", analytic=False, dx=lambda g, y, x, alpha: where(x > 0, g, g * (y + alpha)))
def elu(xp, x, *, alpha=1.0):
    """x above 0, alpha * (exp(x) - 1) below (Clevert et al. 2016)."""
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


@primitive("elementwise", analytic=False, dx=lambda g, x: g * sigmoid(x))
def softplus(xp, x):
    """log(1 + exp(x)), without overflow."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def _silu_slope(g, y, x):
    s = sigmoid(x)
    return g * (s + y * (1 - s))


@primitive("elementwise", latex=r"{x} \odot \sigma({x})", dx=_silu_slope)
def silu(xp, x):
    """x * sigmoid(x), also called swish (Elfwing et al. 2018)."""
    return x * sigmoid(x)


@primitive("elementwise", analytic=False, dx=lambda g, x: g * exp(-x * x) * (2 / math.sqrt(math.pi)))
def erf(xp, x):
    """Error function, the integral of 2 / sqrt(pi) * exp(-t * t) from 0 to x."""
    return xp.erf(x)


@primitive(
    "elementwise", analytic=False, latex=r"{x} \odot \Phi({x})",
    dx=lambda g, x: g * (0.5 + 0.5 * erf(x * math.sqrt(0.5)) + x * exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))),
)  # fmt: skip
def gelu(xp, x):
    """x times the normal distribution function at x, exactly, not by tanh (Hendrycks and Gimpel 2016)."""
    return x * (0.5 + 0.5 * xp.erf(x * math.sqrt(0.5)))


# -- choices: kinks and ties are settled in docs/semantics.md ----------------------------------------


@primitive("elementwise", analytic=False, latex=r"\lvert {x} \rvert", dx=lambda g, x: g * sign(x))
def abs(xp, x):
    """Absolute value, with derivative 0 at 0."""
    return xp.abs(x)


def _if_greater(g, a, b):
    """All of g where a is ahead of b, half at a tie, nothing behind."""
    return where(a == b, g * 0.5, where(a > b, g, 0))


def _if_less(g, a, b):
    return _if_greater(g, b, a)


@primitive("elementwise", analytic=False, latex=r"\max({a}, {b})", da=_if_greater, db=_if_less)
def maximum(xp, a, b):
    """The larger of two; at a tie each gets half of the gradient."""
    return xp.maximum(a, b)


@primitive("elementwise", analytic=False, latex=r"\min({a}, {b})", da=_if_less, db=_if_greater)
def minimum(xp, a, b):
    """The smaller of two; at a tie each gets half of the gradient."""
    return xp.minimum(a, b)


@primitive("elementwise", analytic=False, dx=lambda g, x, min, max: _inside(g, x, min, max))
def clip(xp, x, *, min=None, max=None):
    """x kept between min and max (numbers, or None for no bound); on a bound the gradient passes."""
    return xp.clip(x, min, max) if min is not None or max is not None else x


def _inside(g, x, low, high):
    g = g if low is None else where(x >= low, g, 0)
    return g if high is None else where(x <= high, g, 0)


@primitive(
    "linear", analytic=False,
    da=lambda g, condition: where(condition, g, 0), db=lambda g, condition: where(condition, 0, g),
)  # fmt: skip
def where(xp, condition, a, b):
    """a where the condition (bools, or 0 for no) holds, else b; all three broadcast."""
    return xp.where(condition, a, b)


@primitive("elementwise", analytic=False, dx=lambda g: g * 0)
def sign(xp, x):
    """-1, 0 or 1, with derivative 0."""
    return xp.sign(x)


@primitive("elementwise", analytic=False, latex=r"\lfloor {x} \rfloor", dx=lambda g: g * 0)
def floor(xp, x):
    """The largest integer not above x, with derivative 0."""
    return xp.floor(x)


# -- comparisons: no gradient ------------------------------------------------------------------------


@primitive("elementwise", analytic=False, latex="[{a} = {b}]")
def equal(xp, a, b):
    """Whether a == b."""
    return a == b


@primitive("elementwise", analytic=False, latex=r"[{a} \neq {b}]")
def not_equal(xp, a, b):
    """Whether a != b."""
    return a != b


@primitive("elementwise", analytic=False, latex="[{a} < {b}]")
def less(xp, a, b):
    """Whether a < b."""
    return a < b


@primitive("elementwise", analytic=False, latex=r"[{a} \leq {b}]")
def less_equal(xp, a, b):
    """Whether a <= b."""
    return a <= b


@primitive("elementwise", analytic=False, latex="[{a} > {b}]")
def greater(xp, a, b):
    """Whether a > b."""
    return a > b


@primitive("elementwise", analytic=False, latex=r"[{a} \geq {b}]")
def greater_equal(xp, a, b):
    """Whether a >= b."""
    return a >= b


@primitive("elementwise", analytic=False, latex=r"\neg({x})")
def logical_not(xp, x):
    """Whether x is false (zero)."""
    return xp.logical_not(x)
