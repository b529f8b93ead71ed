"""Functions of functions agree with each other and with formulas; checkpoints change memory and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.backend import backend_of, random
from tinygrad_rnn.errors import GraphError, ModifiedError, OptionError, ShapeError

X, W = np.array([0.5, -1.25, 0.75]), np.array([[1.5, 0.25, -0.5], [-0.75, 1.25, 2.0]])


def bowl(x: tg.Tensor) -> tg.Tensor:
    """x0**2 x1 + sin(x2) x0, scalar."""
    return x[0] ** 2 * x[1] + tg.sin(x[2]) * x[0]


BOWL_GRADIENT = np.array([2 * X[0] * X[1] + np.sin(X[2]), X[0] ** 2, X[0] * np.cos(X[2])])
BOWL_HESSIAN = np.array([[2 * X[1], 2 * X[0], np.cos(X[2])], [2 * X[0], 0, 0], [np.cos(X[2]), 0, -X[0] * np.sin(X[2])]])


def affine(x: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return tg.tanh(w @ x)


AFFINE = np.tanh(W @ X)
AFFINE_JACOBIAN = (1 - AFFINE**2)[:, None] * W


def test_grad_and_value_and_grad(backend: str) -> None:
    np.testing.assert_allclose(tg.grad(bowl)(tg.tensor(X)).numpy(), BOWL_GRADIENT)
    value, d = tg.value_and_grad(bowl)(X)
    assert value.item() == pytest.approx(X[0] ** 2 * X[1] + np.sin(X[2]) * X[0])
    np.testing.assert_allclose(d.numpy(), BOWL_GRADIENT)
    assert not value.requires_grad and not d.requires_grad
    dw, dx = tg.grad(lambda x, w: affine(x, w).sum(), argnums=[1, 0])(X, W)
    np.testing.assert_allclose(dx.numpy(), AFFINE_JACOBIAN.sum(0))
    np.testing.assert_allclose(dw.numpy(), (1 - AFFINE**2)[:, None] * X)
    assert tg.grad(lambda x: x**3)(2.0).item() == 12


def test_grad_of_grad_and_so_on() -> None:
    f: Any = lambda x: x**4  # noqa: E731
    for expected in (32.0, 48.0, 48.0, 24.0, 0.0):
        f = tg.grad(f)
        assert f(np.float64(2)).item() == expected


def test_gradients_of_unused_arguments_and_constants_are_zeros() -> None:
    assert tg.grad(lambda x, w: (w * 2).sum())(X, tg.tensor(W)).tolist() == [0, 0, 0]
    assert tg.grad(lambda x: tg.tensor(3.0))(X).tolist() == [0, 0, 0]
    assert tg.jvp(lambda x: tg.tensor([3.0, 1.0]), [X], [X])[1].tolist() == [0, 0]


def test_jvp_vjp_and_jacobian_are_one_matrix(backend: str) -> None:
    t, g = np.array([1.0, -2.0, 0.5]), np.array([3.0, -1.0])
    y, moved = tg.jvp(lambda x: affine(x, tg.tensor(W)), [X], [t])
    np.testing.assert_allclose(y.numpy(), AFFINE)
    np.testing.assert_allclose(moved.numpy(), AFFINE_JACOBIAN @ t)
    y, back = tg.vjp(affine, X, W)
    np.testing.assert_allclose(back(g)[0].numpy(), g @ AFFINE_JACOBIAN)
    np.testing.assert_allclose(back(tg.tensor(g))[1].numpy(), (g * (1 - AFFINE**2))[:, None] * X)
    np.testing.assert_allclose(tg.jacobian(affine)(X, tg.tensor(W)).numpy(), AFFINE_JACOBIAN)


def test_jacobian_of_a_scalar_and_of_infinite_values(backend: str) -> None:
    scalar = tg.jacobian(lambda x: (x * x).sum())(tg.tensor(X))
    np.testing.assert_allclose(scalar.numpy(), 2 * X)
    infinite = tg.jacobian(lambda x: x + 1)(tg.tensor([np.inf, 2.0]))
    np.testing.assert_array_equal(infinite.numpy(), np.eye(2))
    assert tg.jacobian(affine, argnums=1)(tg.tensor(X), W).shape == (2, 2, 3)


def test_hessian_and_hvp(backend: str) -> None:
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(tg.hessian(bowl)(X).numpy(), BOWL_HESSIAN, atol=1e-15)
    np.testing.assert_allclose(tg.hvp(bowl, X, v).numpy(), BOWL_HESSIAN @ v, atol=1e-15)
    reverse_over_reverse = tg.grad(lambda x: (tg.grad(bowl)(x) * tg.tensor(v)).sum())(X)
    np.testing.assert_allclose(reverse_over_reverse.numpy(), BOWL_HESSIAN @ v, atol=1e-15)
    reverse_over_forward = tg.grad(lambda x: tg.jvp(bowl, [x], [v])[1])(X)
    np.testing.assert_allclose(reverse_over_forward.numpy(), BOWL_HESSIAN @ v, atol=1e-15)
    forward_over_forward = tg.jvp(lambda x: tg.jvp(bowl, [x], [v])[1], [X], [v])[1]
    np.testing.assert_allclose(forward_over_forward.numpy(), v @ BOWL_HESSIAN @ v, atol=1e-15)


def test_derivatives_of_what_is_around_the_function() -> None:
    """d/dw of a gradient for x: the closure is part of the outer graph."""
    w = tg.tensor(np.array(3.0), requires_grad=True)
    d = tg.grad(lambda x: w * x**2)(tg.tensor(np.array(2.0)))
    assert d.item() == 12 and d.requires_grad
    d.backward()
    assert w.grad is not None and w.grad.item() == 4


def test_a_perturbation_is_not_confused_with_the_one_around_it() -> None:
    """d/dx (x * d/dy (x + y)) at 1 is 1, not 2 (Siskind and Pearlmutter 2005)."""
    one = np.float64(1)
    assert tg.grad(lambda x: x * tg.grad(lambda y: x + y)(one))(one).item() == 1
    inner = lambda x: tg.jvp(lambda y: x + y, [one], [one])[1]  # noqa: E731
    assert tg.jvp(lambda x: x * inner(x), [one], [one])[1].item() == 1


def test_under_no_grad_they_still_differentiate() -> None:
    with tg.no_grad():
        assert tg.grad(lambda x: x**3)(np.float64(2)).item() == 12
        assert tg.grad(tg.grad(lambda x: x**3))(np.float64(2)).item() == 12


def test_arguments_keep_their_grad() -> None:
    x = tg.tensor(X, requires_grad=True)
    tg.grad(bowl)(x), tg.hessian(bowl)(x), tg.hvp(bowl, x, X)
    assert x.grad is None


def test_what_does_not_fit_says_so() -> None:
    with pytest.raises(GraphError, match=r"grad needs a scalar function.*\(3,\).*jacobian"):
        tg.grad(lambda x: x * 2)(X)
    with pytest.raises(GraphError, match="must return a Tensor, not float"):
        tg.grad(lambda x: 2.0)(X)
    with pytest.raises(ShapeError, match=r"tangent of shape \(2,\) for an argument of shape \(3,\)"):
        tg.jvp(bowl, [X], [X[:2]])


# -- checkpoint ---------------------------------------------------------------------------------------------------


class Segment:
    """A function with parameters in its closure, random numbers and shared nodes; it counts its runs."""

    def __init__(self) -> None:
        self.w = tg.tensor(W, requires_grad=True, name="w")
        self.b = tg.tensor(np.array([0.25, -0.5]), requires_grad=True, name="b")
        self.runs = 0

    def __call__(self, x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        self.runs += 1
        mask = tg.tensor(random.uniform(backend_of(x._array), (2,), np.float64) + 0.5, backend=x.backend)
        h = tg.tanh(self.w @ x + self.b) * mask
        return h * h + y[:2] * self.b


def gradients(run: Callable[..., Any], order: int) -> tuple[list[np.ndarray], Segment]:
    """All gradients of a loss through the segment, to first or second order, with the same random numbers."""
    tg.seed(7)
    segment = Segment()
    x, y = tg.tensor(X, requires_grad=True), tg.tensor(X * 2, requires_grad=True)
    middle = tg.sin(x)
    out = run(segment, middle, y)
    loss = (out * out).sum() + (middle * y).sum() + (segment.b**3).sum()
    leaves = [x, y, segment.w, segment.b]
    found = tg.pullback(loss, leaves, create_graph=order > 1)
    if order > 1:
        found = tg.pullback(sum((d * d).sum() for d in found), leaves)  # type: ignore[arg-type]
    after = tg.tensor(random.uniform(backend_of(x._array), (1,), np.float64), backend=x.backend)
    return [d.numpy() for d in (*found, out, after)], segment


@pytest.mark.parametrize("order", [1, 2])
def test_a_checkpoint_has_the_gradients_of_the_plain_function(order: int, backend: str) -> None:
    """Also those of parameters in the closure, with the random numbers of the first run, which are not drawn again."""
    plain, _ = gradients(lambda f, *xs: f(*xs), order)
    saved, segment = gradients(tg.checkpoint, order)
    for one, other in zip(plain, saved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    assert segment.runs > 1


def test_backward_through_a_checkpoint_adds_into_the_leaves() -> None:
    tg.seed(7)
    segment = Segment()
    x = tg.tensor(X, requires_grad=True)
    out = tg.checkpoint(segment, x, X)
    out.sum().backward()
    out.sum().backward()
    tg.seed(7)
    other = Segment()
    x_other = tg.tensor(X, requires_grad=True)
    other(x_other, tg.tensor(X)).sum().backward(np.array(2.0))
    for one, two in [(x, x_other), (segment.w, other.w), (segment.b, other.b)]:
        np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), rtol=1e-12)  # type: ignore[union-attr]


def test_a_checkpoint_of_several_results_and_without_gradients_for_its_arguments() -> None:
    w = tg.tensor(W, requires_grad=True)
    h, c = tg.checkpoint(lambda x: (w @ x, tg.exp(w[0, 0]) * x), tg.tensor(X))
    assert h.shape == (2,) and c.shape == (3,)
    np.testing.assert_allclose(c.numpy(), np.exp(1.5) * X)
    (h.sum() * 2 + c.sum()).backward()
    expected = np.tile(2 * X, (2, 1))
    expected[0, 0] += np.exp(1.5) * X.sum()
    np.testing.assert_allclose(w.grad.numpy(), expected)  # type: ignore[union-attr]


def test_a_backward_through_a_checkpoint_leaves_the_random_numbers_where_they_were() -> None:
    """Else the masks that were drawn between the checkpoint and its backward would come a second time."""
    x = tg.tensor(X, requires_grad=True)
    numbers = lambda x: tg.tensor(random.uniform(backend_of(x._array), x.shape)) + tg.randn(3)  # noqa: E731
    drawn = []
    for run in (lambda f, x: f(x), tg.checkpoint):
        tg.seed(7)
        y = run(lambda x: x * numbers(x), x)
        between = numbers(x).tolist()
        y.sum().backward()
        drawn.append([between, numbers(x).tolist()])
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[0][1]


def test_a_checkpoint_that_fails_when_it_runs_again_leaves_the_random_numbers_too() -> None:
    x, runs = tg.tensor(X, requires_grad=True), iter([2.0])
    y = tg.checkpoint(lambda x: x * tg.randn(3) * next(runs), x)
    tg.randn(2)
    before = random.get_state()
    with pytest.raises(StopIteration):
        y.sum().backward()
    assert random.get_state() == before


def test_a_checkpoint_under_no_grad_just_runs() -> None:
    segment = Segment()
    with tg.no_grad():
        y = tg.checkpoint(segment, tg.tensor(X), tg.tensor(X))
    assert not y.requires_grad and segment.runs == 1


def test_checkpoints_may_be_nested() -> None:
    w = tg.tensor(np.array(1.5), requires_grad=True)
    inner = lambda x: tg.checkpoint(lambda t: tg.sin(t * w), x) * w  # noqa: E731
    for f in (lambda x: tg.checkpoint(inner, x), lambda x: tg.sin(x * w) * w):
        w.grad, x = None, tg.tensor(X, requires_grad=True)
        f(x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), np.cos(X * 1.5) * 1.5**2)  # type: ignore[union-attr]
        np.testing.assert_allclose(w.grad.numpy(), (np.sin(X * 1.5) + 1.5 * X * np.cos(X * 1.5)).sum())  # type: ignore[union-attr]


def test_a_checkpoint_whose_parameters_changed_meanwhile_is_caught() -> None:
    """Run again with other parameters, it would give the gradients of another function."""
    w = tg.tensor(np.array(1.5), requires_grad=True, name="w")
    y = tg.checkpoint(lambda x: tg.sin(x * w), tg.tensor(X, requires_grad=True))
    w.assign_(7.0)
    with pytest.raises(GraphError, match=r"used w .* changed"):
        y.sum().backward()


# -- what is easily got wrong -----------------------------------------------------------------------------------


def test_a_checkpoint_of_what_is_passed_and_captured_gets_both_gradients() -> None:
    x = tg.tensor([2.0, 3.0], requires_grad=True)
    for depth, expected in enumerate([[4.0, 6.0], [2.0, 2.0]]):
        f = tg.grad(lambda v: tg.checkpoint(lambda z: (z * v).sum(), v))
        f = tg.grad(lambda v, f=f: f(v).sum()) if depth else f
        assert f(x).tolist() == expected


def test_hooks_of_what_a_checkpoint_captures_run_once() -> None:
    w, x = tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor([3.0, 4.0], requires_grad=True)
    w.register_hook(lambda g: g * 2)
    z = w * 1
    z.retain_grad()
    tg.checkpoint(lambda x: (x * w * z).sum(), x).backward()
    assert z.grad is not None and z.grad.tolist() == [3.0, 8.0]
    assert w.grad is not None and w.grad.tolist() == [12.0, 32.0]


def test_a_checkpoint_notices_a_constant_that_changed() -> None:
    c, x = tg.tensor(2.0, name="c"), tg.tensor([3.0, 4.0], requires_grad=True)
    y = tg.checkpoint(lambda x: (x * x * c).sum(), x)
    c.assign_(5.0)
    with pytest.raises(ModifiedError, match="used c"):
        y.backward()


def test_a_checkpoint_takes_and_gives_what_is_nested() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (double, [more]), total = tg.checkpoint(lambda x, none, n: ((x * n, [x + 1]), x.sum()), x, None, 2)
    assert (double.tolist(), more.tolist(), total.item()) == ([2.0, 4.0], [2.0, 3.0], 3.0)
    (double.sum() + (more * more).sum() + total).backward()
    assert x.grad is not None and x.grad.tolist() == [2 + 4 + 1, 2 + 6 + 1]


def test_arguments_are_counted_as_python_counts() -> None:
    f = lambda x, w: (x * w * w).sum()  # noqa: E731
    x, w = tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])
    assert tg.grad(f, argnums=-1)(x, w).tolist() == tg.grad(f, argnums=1)(x, w).tolist() == [6.0, 16.0]
    assert tg.jacobian(lambda x, w: x * w, argnums=-1)(x, w).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    for wrong in (2, -3, [0, 0], [0, -2]):
        with pytest.raises(OptionError, match="argnums"):
            tg.grad(f, argnums=wrong)(x, w)


def test_what_stands_still_moves_by_zero_even_where_it_is_infinite() -> None:
    mask = np.array([True, True, False])
    masked = lambda x: tg.logsumexp(tg.where(mask, x, -np.inf))  # noqa: E731
    found = tg.hvp(masked, [1.0, 2.0, 3.0], [1.0, 0.0, 0.0])
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(found.numpy(), [p * (1 - p), -p * (1 - p), 0], rtol=1e-6)
    assert tg.jvp(lambda x: x + tg.tensor([np.inf]), [[1.0]], [[2.0]])[1].tolist() == [2.0]
    assert tg.grad(lambda x: tg.ones(1).sum())([np.inf]).tolist() == [0.0]


def test_forward_mode_notices_what_changed_too() -> None:
    buffer = tg.tensor(2.0)

    def f(x: tg.Tensor) -> tg.Tensor:
        y = x * buffer
        buffer.assign_(buffer * 10)
        return y

    with pytest.raises(ModifiedError):
        tg.jvp(f, [1.0], [1.0])


def test_tangents_take_the_dtype_of_their_arguments() -> None:
    y, t = tg.jvp(lambda x: x * x, [tg.tensor([3.0])], [np.array([1.0])])
    assert (y.dtype, t.dtype, t.tolist()) == (np.float32, np.float32, [6.0])
