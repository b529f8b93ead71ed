"""gradcheck against rules and engines that are wrong: it has to name what is wrong, where, and with which numbers."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.backend import random, resolve
from tinygrad_rnn.core import autodiff
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import GradcheckError, OptionError

X, W = np.array([[0.5, -1.25, 0.75], [1.5, 0.25, -0.5]]), np.arange(12.0).reshape(3, 4) / 8 - 0.6
SQUARE = np.arange(9.0).reshape(3, 3) / 4 - 0.7


def define(kind: str, kernel: Callable[..., Any], **rules: Any) -> Any:
    """A primitive called "wrong"."""
    kernel.__name__ = "wrong"
    try:
        return tg.primitive(kind, **rules)(kernel)
    finally:
        PRIMITIVES.pop("wrong", None)  # lest the table remember it


def complaint(f: Any, *xs: Any, order: int = 1) -> str:
    with pytest.raises(GradcheckError) as caught:
        tg.gradcheck(f, *xs, order=order)
    return str(caught.value)


# -- right ones pass ----------------------------------------------------------------------------------------


def gated(x: Any, w: Any) -> Any:
    """A step of a recurrent cell in small: shared nodes, broadcasting, products of matrices."""
    a = x @ w
    z = tg.sigmoid(a[:, :2])
    return (z * tg.tanh(a[:, 2:]) + (1 - z) * x[:, :2] + w[0, :2]).sum(axis=0)


def test_right_derivatives_pass_to_third_order(backend: str) -> None:
    tg.gradcheck(gated, X, W, order=3)


def test_functions_with_several_results_numbers_lists_and_integers_among_the_arguments() -> None:
    tg.gradcheck(
        lambda x, n, i, w: (x * n, tg.exp(w)[i]), [0.5, 1.5], 2.5, np.array([1, 0]), tg.tensor([1.0, 2.0]), order=2
    )
    tg.gradcheck(lambda x, name, none: x * x, 1.5, "text", None)


def test_random_numbers_repeat_and_the_callers_go_on_as_if_nothing_had_happened() -> None:
    def dropped(x: tg.Tensor) -> tg.Tensor:
        return x * tg.tensor(random.uniform(resolve()[0], x.shape, np.float64))

    before = random.get_state()
    tg.gradcheck(dropped, X, order=2)
    assert random.get_state() == before


def test_a_function_of_a_checkpoint_is_checked_end_to_end() -> None:
    tg.gradcheck(lambda x, w: tg.checkpoint(gated, x, w) * 2, X, W, order=2)


def test_a_primitive_that_computes_in_float32_is_judged_by_what_float32_can_do() -> None:
    tg.gradcheck(lambda x: tg.tanh(x.astype(np.float32)), X)
    wrong = define("elementwise", lambda xp, x: xp.tanh(x), dx=lambda g, y: g * (1 - y * y) * 1.01)
    assert "wrong of" in complaint(lambda x: wrong(x.astype(np.float32)), X)


def test_arguments_and_parameters_keep_what_they_had() -> None:
    x = tg.tensor(X, requires_grad=True)
    (x * 2).sum().backward()
    tg.gradcheck(lambda t: t * x, x)
    assert x.grad is not None and (x.grad.numpy() == 2).all() and x.dtype == np.float64


def test_the_complex_step_is_what_the_numbers_come_from() -> None:
    """Differences would pass most checks too, and quietly lose ten digits of the claim."""
    kinds = set()

    def kernel(xp: Any, x: Any) -> Any:
        kinds.add(x.dtype.kind)
        return xp.tanh(x)

    right = define("elementwise", kernel, dx=lambda g, y: g * (1 - y * y))
    tg.gradcheck(right, X, order=2, tolerance=1e-13)
    assert kinds == {"f", "c"}
    slightly_wrong = define("elementwise", kernel, dx=lambda g, y: g * (1 - y * y) * (1 + 1e-11))
    with pytest.raises(GradcheckError, match="by the complex step"):
        tg.gradcheck(slightly_wrong, X, tolerance=1e-13)


@pytest.mark.parametrize(
    "kernel", [lambda xp, x: xp.tanh(x.real), lambda xp, x: xp.tanh(x) if x.dtype.kind == "f" else xp.floor(x)]
)
def test_a_kernel_that_takes_real_numbers_only_is_checked_by_differences(kernel: Any) -> None:
    tg.gradcheck(define("elementwise", kernel, dx=lambda g, y: g * (1 - y * y)), X, order=2)
    wrong = define("elementwise", kernel, dx=lambda g, y: g * (1 - y * y) * 1.01)
    assert "by central differences" in complaint(wrong, X)


# -- wrong rules ------------------------------------------------------------------------------------------------


def test_a_missing_factor_is_named_with_argument_element_and_both_numbers(backend: str) -> None:
    wrong = define("elementwise", lambda xp, x: x * x, dx=lambda g, x: g * x)
    with tg.scope("cell"):
        message = complaint(lambda x: tg.exp(wrong(tg.tanh(x))).sum(), X)
    found = re.fullmatch(
        r"wrong of \(tanh \(2, 3\) float64\) in cell: the first derivative for x is (\S+) at element \((\d), (\d)\), "
        r"and (\S+) by the complex step; off by a factor of 0\.5", message,
    )  # fmt: skip
    assert found, message
    rule, i, j, number = found.groups()
    assert float(rule) == pytest.approx(np.tanh(X[int(i), int(j)])), "the plain slope"
    assert float(number) == pytest.approx(2 * float(rule))


def test_the_oldest_wrong_primitive_is_named_though_the_younger_ones_are_wrong_too() -> None:
    first = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * tg.cos(x) * 2)
    first.primitive.name = "first"
    second = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g)
    assert complaint(
        lambda x: second(first(second.__wrapped__(x) if hasattr(second, "__wrapped__") else x)), X
    ).startswith("first of")
    assert complaint(lambda x: first(second(x)), X).startswith("wrong of")


def test_a_forgotten_rule_is_named() -> None:
    wrong = define("bilinear", lambda xp, a, b: a * b, da=lambda g, b: g * b)
    message = complaint(lambda x: tg.tanh(wrong(x, x)), X)
    assert message.startswith("the function as a whole") and message.endswith("; wrong has no derivative for b")


def test_a_rule_that_calls_numpy_is_told_so() -> None:
    wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * np.cos(x))
    assert "a rule uses operators and tg's functions, not NumPy's" in complaint(wrong, X, order=2)


@pytest.mark.parametrize("exponent", [1, 2], ids=["as the complex step has it", "right"])
def test_a_kernel_that_is_not_analytic_is_told_so_whatever_its_rule(exponent: int) -> None:
    def kernel(xp: Any, x: Any) -> Any:
        return x / (1 + xp.abs(x))

    rule = lambda g, x: g / (1 + tg.abs(x)) ** exponent  # noqa: E731
    assert complaint(define("elementwise", kernel, dx=rule), X).endswith("say analytic=False")
    said = define("elementwise", kernel, analytic=False, dx=rule)
    if exponent == 1:
        assert "by central differences" in complaint(said, X)
    else:
        tg.gradcheck(said, X, order=2)


def test_a_wrong_sign() -> None:
    wrong = define("linear", lambda xp, a, b: a - b, da=lambda g: g, db=lambda g: g)
    message = complaint(wrong, X, X[0])
    assert "derivative for b" in message and message.endswith("the sign is wrong")


def test_a_transposed_product() -> None:
    wrong = define("bilinear", lambda xp, a, b: a @ b, da=lambda g, b: g @ b.T, db=lambda g, a: (a.T @ g).T)
    message = complaint(wrong, SQUARE, SQUARE.T + 1)
    assert "derivative for b" in message and message.endswith("the transpose of what it should")
    wrong = define("bilinear", lambda xp, a, b: a @ b, da=lambda g, b: g @ b.T, db=lambda g, a: g.T @ a)
    assert complaint(wrong, X, W).endswith(
        "no first derivative for b: a derivative rule gave a gradient of shape (4, 3) for tensor (3, 4) float64; "
        "transposed, it would fit"
    )


def test_a_rule_that_leaves_out_a_sum() -> None:
    wrong = define("linear", lambda xp, x: x.sum(0), dx=lambda g, x: g / x.shape[0] + x * 0)
    assert "off by a factor of 0.5" in complaint(wrong, X)


def test_a_rule_that_is_wrong_by_half_a_thousandth() -> None:
    wrong = define("elementwise", lambda xp, x: xp.tanh(x), dx=lambda g, y: g * (1 - y * y) * 1.0005)
    assert complaint(wrong, X).endswith("off by a factor of 1.0005")
    kinked = define("elementwise", lambda xp, x: xp.abs(x), analytic=False, dx=lambda g, x: g * tg.sign(x) * 1.0005)
    assert re.search(r"by central differences; off by a factor of 1\.0005$", complaint(kinked, X))


def test_a_single_wrong_element_is_found_among_many() -> None:
    def spoiled(g: Any) -> Any:
        return g * np.where(np.arange(2000) == 1234, 1.01, 1.0)

    wrong = define("linear", lambda xp, x: x * 1, dx=spoiled)
    assert "at element (1234,)" in complaint(wrong, np.ones(2000))


def test_a_rule_that_is_right_at_first_order_and_dead_at_second() -> None:
    """It computes with bare arrays behind the tape's back: the reason why rules use operators only."""
    wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * np.cos(getattr(x, "_array", x)))
    tg.gradcheck(wrong, X)
    message = complaint(lambda x: wrong(x * 1), X, order=2)
    assert message.startswith("wrong of") and "the second derivative for x is 0 at" in message
    assert "outside of the tape" in message


def test_a_rule_that_is_wrong_at_second_order_only() -> None:
    """On Tensors it is another rule than on arrays: what create_graph gives is not what backward gives."""
    wrong = define("linear", lambda xp, x: 2 * x, dx=lambda g: g * (2.001 if type(g) is tg.Tensor else 2))
    tg.gradcheck(wrong, X)
    assert "without create_graph=True" in complaint(wrong, X, order=2)
    lying = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * half_dead_cosine(x))
    tg.gradcheck(lying, X)
    assert "second derivative for x" in complaint(lying, X, order=2)


def half_dead_cosine(x: Any) -> Any:
    """cos(x), of which the tape sees only half."""
    return tg.cos(x) * 0.5 + np.cos(x._array if isinstance(x, tg.Tensor) else x) * 0.5


def test_a_rule_that_is_wrong_at_third_order_only() -> None:
    inner = define("elementwise", lambda xp, x: xp.cos(x), dx=lambda g, x: -g * half_dead_sine(x))
    wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * inner(x))
    tg.gradcheck(wrong, X, order=2)
    assert "third derivative for x" in complaint(wrong, X, order=3)


def half_dead_sine(x: Any) -> Any:
    return tg.sin(x) * 0.5 + np.sin(x._array if isinstance(x, tg.Tensor) else x) * 0.5


def test_a_rule_that_is_not_linear_in_the_incoming_gradient() -> None:
    wrong = define("elementwise", lambda xp, x: 2 * x, dx=lambda g: g * 2 + g * g)
    assert "first derivative for x" in complaint(wrong, X)


@pytest.mark.parametrize("kind", ["linear", "elementwise"])
def test_a_wrong_kind_shows_in_forward_mode(kind: str) -> None:
    wrong = (
        define("linear", lambda xp, x: x * x, dx=lambda g, x: g * 2 * x)
        if kind == "linear"
        else define(
            "elementwise",
            lambda xp, x: x[::-1] * np.array([1.0, 2.0, 3.0]),
            dx=lambda g: (g * np.array([1.0, 2.0, 3.0]))[::-1],
        )
    )
    message = complaint(wrong, X[0])
    assert "forward mode" in message and "follows from `kind`" in message


def test_a_rule_that_cannot_run_is_named() -> None:
    wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * tg.concatenate([x, x]))
    assert complaint(lambda x: wrong(x) + 1, X).startswith(
        "wrong of (tensor (2, 3) float64): no first derivative for x: "
    )


def test_a_nan_is_a_difference() -> None:
    wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * np.nan)
    assert "is nan at element" in complaint(wrong, X)


def test_a_value_that_the_tape_does_not_see_is_found_end_to_end() -> None:
    message = complaint(lambda x, w: x * w + tg.exp(x.detach()), X, X[0])
    assert message.startswith("the function as a whole: the first derivative for argument 0")


def test_what_cannot_be_checked_says_so() -> None:
    assert "nothing to check" in complaint(lambda n: n, 3)
    assert "must return a Tensor" in complaint(lambda x: x.numpy(), X)


# -- what the numbers are, and what they look like ----------------------------------------------------------------


def test_numbers_are_slopes_or_said_to_be_something_else() -> None:
    wrong = define("elementwise", lambda xp, a, b: a * b * b, da=lambda g, b: g * b * b, db=lambda g, a, b: g * a * b)
    assert re.search(r"for b is 3 .* and 6 by the complex step; off", complaint(wrong, [2.0, 3.0], [1.0, 1.0]))
    found = complaint(wrong, [2.0, 3.0], [1.0])  # b is broadcast
    assert "for b is 5 at element (0,), and 10 by the complex step (of the sum of the result); off" in found
    cancelling = define("linear", lambda xp, x: x * np.array([1.0, 2.0]), dx=lambda g: (g * np.array([1.0, 2.0]))[::-1])
    assert "(of the sum of the result)" in complaint(lambda x: cancelling(x)[0] * 1.0, [0.5, 0.25])
    hidden = define("linear", lambda xp, x: xp.flip(x, 0), dx=lambda g: g)
    assert complaint(hidden, [0.5, 0.25]).endswith("by the complex step (weighted by random numbers)")
    late = define("elementwise", lambda xp, x: xp.sin(x), dx=lambda g, x: g * half_dead_cosine(x))
    assert "by the complex step (weighted by random numbers)" in complaint(late, [0.5, 0.25], order=2)


def test_a_single_number_is_off_by_a_telling_factor_or_by_none() -> None:
    telling = {0.5: "off by a factor of 0.5", 3.0: "off by a factor of 3", -2.0: "off by a factor of -2"}
    for factor, says in {1.37: "by the complex step", -1.0: "the sign is wrong", **telling}.items():
        wrong = define("elementwise", lambda xp, x: xp.sin(x), dx=scaled_cosine(factor))
        assert complaint(wrong, 0.5).endswith(says)


def scaled_cosine(factor: float) -> Callable[..., Any]:
    return lambda g, x: g * tg.cos(x) * factor


@pytest.mark.parametrize("x", [-1.0, [2.0, -1.0, 0.5]])
def test_outside_of_the_domain_there_is_no_derivative(x: Any) -> None:
    with np.errstate(all="ignore"):
        own = define("elementwise", lambda xp, x: xp.log(x), dx=lambda g, x: g / x)
        for f, name in ((tg.log, "log"), (own, "wrong")):
            said = complaint(f, x)
            assert said.startswith(f"{name} of") and "the result is nan" in said
            assert said.endswith("check it where the function is defined")
            assert ("at element (1,)" in said) is isinstance(x, list) and "factor" not in said


@pytest.mark.parametrize("order", [0, -1, "2", 1.5, True, None])
def test_an_order_that_is_none_is_refused(order: Any) -> None:
    with pytest.raises(OptionError, match=r"order is .*; it must be a whole number of at least 1"):
        tg.gradcheck(tg.tanh, X, order=order)


KINKED = {
    "relu": tg.relu, "abs": tg.abs, "maximum": lambda x: tg.maximum(x, 2 * x), "clip": lambda x: tg.clip(x, 0, 1)
}  # fmt: skip


@pytest.mark.parametrize(("name", "at"), [("relu", 0.0), ("clip", 0.0), *[(name, 3e-4) for name in KINKED]])
def test_a_kink_is_told_from_a_mistake(name: str, at: float) -> None:
    """On it, or so near to it that differences step across. (At 0, abs and maximum choose what differences see.)"""
    message = complaint(KINKED[name], [0.5, at, -1.0])
    assert message.startswith(name) and "at element (1,)" in message
    assert message.endswith("may be a kink, where a derivative is a choice (docs/semantics.md): check away from it")
    tg.gradcheck(KINKED[name], [0.5, 0.01, -1.0])


def test_a_mistake_away_from_the_kinks_is_told_from_them() -> None:
    for kernel, rule in (
        (lambda xp, x: xp.abs(x), lambda g, x: g * tg.sign(x) * 2),
        (lambda xp, x: xp.abs(x) * x, lambda g, x: g * tg.abs(x)),
        (lambda xp, x: xp.cos(40 * x), lambda g, x: g * 40 * tg.sin(40 * x)),
        (lambda xp, x: 1e6 + x, lambda g, x: g * 0.0),
    ):
        assert "kink" not in complaint(define("elementwise", kernel, analytic=False, dx=rule), X)


def test_a_named_result_is_told_by_its_primitive_too() -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        z = wrong(x)
        z.name = "z"
        return z * 2

    wrong = define("elementwise", lambda xp, x: x * x, dx=lambda g, x: g * x)
    assert complaint(f, X).startswith("z = wrong of (tensor (2, 3) float64): ")


# -- modules ------------------------------------------------------------------------------------------------------


class Leaving(nn.Cell):
    """A simplified GRU in which a weight of the candidate leaves the tape."""

    gates, candidate = ("z", "n"), "n"

    def equation(self, x: Any, state: Any, weights: Any) -> Any:
        (h,), (W, U, b) = state, weights
        z = tg.sigmoid(x @ W.z + h @ U.z + b.z)
        n = tg.tanh(x @ self.seen(W.n) + h @ U.n + b.n)
        return nn.equations.MinimalGRUStep(z, n, z * n + (1 - z) * h)

    def seen(self, weight: Any) -> Any:
        return weight


class Left(Leaving):
    def seen(self, weight: Any) -> Any:
        return tg.tensor(weight.numpy())


def test_the_weights_of_a_cell_are_moved_too() -> None:
    cell, h = Leaving(3, 4, rng=np.random.default_rng(0)), np.linspace(-1, 1, 8).reshape(2, 4)
    before = {name: t.numpy().copy() for name, t in cell.state_dict().items()}
    tg.gradcheck(cell, X, h, order=2)
    left = Left(3, 4, dtype="float64", rng=np.random.default_rng(0))
    message = complaint(left, X, h)
    assert re.match(r"the function as a whole: the first derivative for W is 0 at element \(\d, [4-7]\), and", message)
    assert message.endswith("gives 0 wherever it is wrong, as if something in it were computed outside of the tape")
    tg.gradcheck(lambda x, h: left(x, h), X, h)  # a plain function: its weights stand still
    assert "for cells.0.W is" in complaint(type("Layer", (nn.Recurrent,), {"cell_type": Left})(3, 4), X[None])
    for name, t in cell.named_parameters():
        assert t.name == name and t.dtype == np.float32 and t.grad is None and t.requires_grad
        np.testing.assert_array_equal(t.numpy(), before[name])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM])
def test_layers_are_checked_with_their_weights(make: Any, fused: bool, backend: str) -> None:
    layer = make(3, 4, 2, fused=fused, bidirectional=True, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).uniform(-1, 1, (3, 2, 3))
    tg.gradcheck(layer, x, order=2)


class Tied(nn.Module):
    """One matrix used twice, a module in two places, in a list and a named tuple, and a tensor that is not learned."""

    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.up = nn.Linear(3, 3, rng=rng)
        self.twice = [self.up, nn.Embedding(4, 3, rng=rng)]
        self.pair = Pair(tg.tensor([0.5, -0.25, 2.0]), self.up.W)
        self.drop, self.itself = nn.Dropout(0.5), self

    def forward(self, x: Any, symbols: Any) -> Any:
        h = self.drop(self.twice[0](tg.tanh(self.up(x)))) @ self.pair.b + self.twice[1](symbols) * self.pair.a
        return h, (h * h, [x])


class Pair(NamedTuple):
    a: Any
    b: Any


def test_a_module_with_shared_parts_is_checked_as_it_is() -> None:
    model = Tied()
    names = [name for name, _ in model.named_parameters()]
    tg.gradcheck(model, X, [1, 3], order=2)
    assert [name for name, _ in model.named_parameters()] == names and model.itself is model
    assert model.pair.b is model.up.W and model.training
    seen: list[int] = []
    tg.gradcheck(Told(seen.append), X)
    assert set(seen) == {1}


class Told(nn.Module):
    """Tells, at each call, how many different tensors its two names for one are."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.a = self.b = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
        self._tell = tell

    def forward(self, x: Any) -> Any:
        self._tell(len({id(self.a), id(self.b)}))
        return x * self.a * self.b


def test_a_tuple_of_arrays_is_taken_apart_and_other_tuples_are_not() -> None:
    cell = nn.LSTMCell(3, 4, rng=np.random.default_rng(0))
    h, c = np.random.default_rng(1).uniform(-1, 1, (2, 2, 4))
    tg.gradcheck(cell, X, (h, c), order=2)
    assert "for argument 1[1] is 0" in complaint(lambda x, s: s[0] * x + s[1].detach(), 0.5, (h, tg.tensor(c)))
    tg.gradcheck(lambda x, shape: x.reshape(shape), X, (3, 2))


def test_a_module_of_whole_numbers_has_its_parameters() -> None:
    tg.gradcheck(nn.Embedding(4, 3), [1, 2])
    with pytest.raises(GradcheckError, match="nothing to check"):
        tg.gradcheck(nn.Dropout(0.5), 3)


# -- wrong engines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "old", "new"),
    [
        (lambda x, w: (x * x) @ w + tg.sin(x) @ w, "pending[at] = before + d", "pending[at] = d"),  # = for +=
        (lambda x, w: x * w[:, 0], "g = fitted(g, node)", "g = g[0] if g.ndim > node.ndim else g"),  # no sum
        (lambda x, w: x[0] * x[1] + x[1], "pending[at] = d.added_to(total)", "pending[at] = total"),
        (lambda x, w: tg.sin(x) * x, "(-at, x)", "(at, x)"),  # the oldest first
    ],
)
def test_an_engine_that_is_wrong_is_found_end_to_end(
    f: Any, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tg.gradcheck(f, X, W)
    mutated(monkeypatch, autodiff, "pull", old, new)
    with pytest.raises((GradcheckError, KeyError)) as caught:
        tg.gradcheck(f, X, W)
    if caught.type is GradcheckError and old != "g = fitted(g, node)":  # that one shows in the product itself
        assert "the function as a whole" in str(caught.value)


def test_options_of_an_own_primitive_are_given_by_partial() -> None:
    tg.gradcheck(partial(tg.leaky_relu, slope=0.3), X, order=2)


def test_a_named_tuple_stays_one():
    Pair = namedtuple("Pair", "h c")
    h, c = np.array([0.5, -1.0]), np.array([2.0, 0.25])
    tg.gradcheck(lambda x, s: x * s.h * s.c, [1.0, 3.0], Pair(h, c), order=2)
