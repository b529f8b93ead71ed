"""Where a primitive could easily leave NumPy's ways: small integers, empty axes, the forms of an option, 0 to the 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import DtypeError, ModifiedError, OptionError, ShapeError


def test_the_norm_of_small_integers_does_not_overflow(backend: str) -> None:
    x = np.array([[100, 100, 7], [-128, 3, 0]], np.int8)
    np.testing.assert_allclose(tg.norm(tg.tensor(x), axis=1).numpy(), np.linalg.norm(x, axis=1))
    assert tg.norm(tg.tensor([True, True])).item() == pytest.approx(2**0.5)


def test_a_norm_that_underflows_to_0_has_the_slope_0() -> None:
    for f in (tg.norm, tg.std):
        x = tg.tensor(np.array([3e-25, -4e-25], np.float32), requires_grad=True)
        assert f(x).item() == 0 and tg.pullback(f(x), [x])[0].tolist() == [0, 0]


def test_the_order_of_a_norm_is_the_euclidean_one_or_refused() -> None:
    x = np.array([[3.0, 1.0, 2.0], [4.0, 5.0, 6.0]])
    np.testing.assert_allclose(tg.norm(x, 2, axis=0), np.linalg.norm(x, 2, axis=0))
    np.testing.assert_allclose(tg.norm(x[0], ord=2), np.linalg.norm(x[0], ord=2))
    np.testing.assert_allclose(tg.norm(x, None, 1, True), np.linalg.norm(x, None, 1, True))
    for order, axis in ((1, 0), (np.inf, 0), (2, None), (2, (0, 1)), ("fro", None)):  # 2 of a matrix is spectral
        with pytest.raises(OptionError, match="norm is the Euclidean one"):
            tg.norm(x, order, axis=axis)


def test_the_mean_of_float16_does_not_overflow(backend: str) -> None:
    x = tg.tensor(np.full((3, 70), 2000, np.float16), requires_grad=True)
    y = tg.mean(x, axis=1)
    assert y.dtype == np.float16 and y.tolist() == [2000.0] * 3
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.full((3, 70), 1 / 70), rtol=1e-3)  # type: ignore[union-attr]


def test_0_to_the_power_0_has_slopes_0_in_arrays_too(backend: str) -> None:
    a, b = np.array([0.0, 0.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.0, 3.0])
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    da, db = tg.pullback((x**y).sum(), [x, y], create_graph=True)
    assert da.tolist() == [0, 1, 0, 0] and db.tolist() == [0, 0, float(np.log(2)), 0]
    assert tg.pullback(da[2], [y])[0].tolist() == [0, 0, 0.5, 0]  # d/db of b a^(b-1), at b = 0 no less


@pytest.mark.parametrize("axis", [None, 1])
def test_logsumexp_of_what_is_infinite(axis: int | None, backend: str) -> None:
    """-inf - -inf would be nan: taking the largest off helps only where it is finite."""
    for numbers, expected in (([-np.inf, -np.inf], -np.inf), ([np.inf, 2.0], np.inf), ([-np.inf, 2.0], 2.0)):
        with np.errstate(divide="ignore"):  # log(0) is the right value; nan would warn of an invalid one
            found = tg.logsumexp(tg.tensor([numbers]), axis=axis)
        np.testing.assert_array_equal(found.numpy(), np.full((1,) if axis else (), expected, np.float32))


def test_a_condition_that_changed_is_noticed(backend: str) -> None:
    """`where` is linear in a and b, whose numbers its rules never read, but not in its condition."""
    condition = tg.tensor([True, False, True], name="condition")
    a, b = tg.ones(3, requires_grad=True), tg.zeros(3, requires_grad=True)
    y = tg.where(condition, a, b)
    a.assign_([2.0, 3.0, 4.0])
    y.sum().backward()
    assert a.grad is not None and a.grad.tolist() == [1, 0, 1]
    condition.assign_([False, False, True])
    with pytest.raises(ModifiedError, match=r"where .*used condition"):
        y.sum().backward()
    assert a.grad.tolist() == [1, 0, 1] and b.grad is not None and b.grad.tolist() == [0, 1, 0]


@pytest.mark.parametrize("f", [tg.sign, tg.floor])
def test_steps_have_slope_0_also_at_infinity(f: Any) -> None:
    x = tg.tensor([-np.inf, 0.5, np.inf], requires_grad=True)
    f(x).backward(np.ones(3))
    assert x.grad is not None and x.grad.tolist() == [0, 0, 0]
    assert tg.jvp(f, [x], [tg.ones(3)])[1].tolist() == [0, 0, 0]


def test_concatenate_of_all_elements(backend: str) -> None:
    tg.gradcheck(lambda a, b: tg.concatenate([a, b], axis=None), np.ones((2, 3)), np.full((4, 1), 2.0), order=2)
    assert tg.concatenate([tg.ones((2, 3)), tg.zeros(())], axis=None).tolist() == [1] * 6 + [0]


@pytest.mark.parametrize(("left", "right"), [
    ((3, 0), (0, 4)), ((2, 3, 0), (0, 4)), ((2, 3, 0), (2, 0, 4)), ((0,), (0, 4)), ((3, 0), (0,)), ((2, 3, 0), (0,)),
    ((0, 3), (3, 4)), ((0, 2, 3), (3, 4)), ((2, 3), (3, 0)), ((2, 0, 3), (3, 4)),
])  # fmt: skip
def test_products_of_matrices_with_an_axis_of_length_0(left: Any, right: Any, backend: str) -> None:
    a, b = tg.ones(left, requires_grad=True), tg.ones(right, requires_grad=True)
    y = a @ b
    assert y.shape == (np.ones(left) @ np.ones(right)).shape and (y.numpy() == 0).all()
    for x, d in zip((a, b), tg.pullback(y.sum(), [a, b], create_graph=True), strict=True):
        assert d.shape == x.shape and (d.numpy() == 0).all()


def test_a_batch_of_matrices_times_one_matrix_is_a_single_product() -> None:
    """(T, N, D) @ (D, H): on its own, NumPy would make T small products of it."""
    met = []

    class Watched(np.ndarray[Any, Any]):
        def __matmul__(self, other: Any) -> Any:
            met.append((self.shape, other.shape))
            return np.asarray(self) @ other

    a, b = np.arange(24.0).reshape(2, 3, 4), np.arange(20.0).reshape(4, 5)
    kernel = PRIMITIVES["matmul"].kernel_for(np.ndarray)
    np.testing.assert_array_equal(kernel(a.view(Watched), b), a @ b)
    assert met == [((6, 4), (4, 5))]


def test_its_gradient_goes_by_the_same_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    op, met = PRIMITIVES["matmul"], []
    kernel = op.kernel_for(np.ndarray)

    def watched(a: Any, b: Any) -> Any:
        met.append((a.shape, b.shape))
        return kernel(a, b)

    monkeypatch.setitem(op.kernels, np.ndarray, watched)
    x, w = tg.tensor(np.ones((2, 3, 4)), requires_grad=True), tg.tensor(np.ones((4, 5)))
    tg.pullback((x @ w).sum(), [x])
    assert met == [((2, 3, 4), (4, 5)), ((2, 3, 5), (5, 4))]


@pytest.mark.parametrize("width", [
    1, np.int64(2), np.array(1), (1,), (1, 2), [0, 2], ((1, 2),), ((0, 1), (3, 2)), [[0, 1], [3, 2]], ((1,), (2,)),
    np.array([[1, 0], [0, 2]]),
])  # fmt: skip
def test_pad_width_in_all_of_numpys_forms(width: Any, backend: str) -> None:
    x = np.arange(6.0).reshape(2, 3)
    found = tg.pad(tg.tensor(x), width, "constant", constant_values=0.5)
    np.testing.assert_array_equal(found.numpy(), np.pad(x, width, constant_values=0.5))
    tg.gradcheck(lambda x: tg.pad(x, width), x, order=2)


def test_what_pad_does_not_do_is_said() -> None:
    for width in (-1, (1, -2), 1.5, True):
        with pytest.raises(OptionError, match="pad_width is whole numbers of at least 0"):
            tg.pad(tg.zeros((2, 3)), width)
    with pytest.raises(ShapeError, match=r"pad_width=\(1, 2, 3\)"):
        tg.pad(tg.zeros((2, 3)), (1, 2, 3))
    with pytest.raises(OptionError, match="mode='constant' only, not 'edge'"):
        tg.pad(tg.zeros((2, 3)), 1, "edge")


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "std", "cumsum", "flip", "argmax"])
def test_an_axis_of_a_scalar_is_as_in_numpy(name: str, backend: str) -> None:
    x = tg.tensor(np.array(3.0), requires_grad=True)
    try:
        expected = getattr(np, name)(np.array(3.0), axis=0)
    except np.exceptions.AxisError:
        with pytest.raises(ShapeError, match=name):
            getattr(tg, name)(x, axis=0)
        return
    y = getattr(tg, name)(x, axis=0)
    np.testing.assert_array_equal(y.numpy(), expected)
    if y.requires_grad:
        y.sum().backward()
        assert x.grad is not None and x.grad.item() == 1


def test_an_empty_list_is_an_index_that_picks_nothing(backend: str) -> None:
    x = tg.ones((2, 3), requires_grad=True)
    assert x[[]].shape == (0, 3) and x[:, []].shape == (2, 0) and x[[[]]].shape == (1, 0, 3)
    x[[]].sum().backward()
    assert x.grad is not None and (x.grad.numpy() == 0).all()
    with pytest.raises(DtypeError, match="indices must be of integer"):
        x[np.zeros(0)]  # an array has said what it is


def test_a_mean_of_more_elements_than_float16_can_count_has_its_gradient(backend: str) -> None:
    x = tg.tensor(np.ones(70000, np.float16), requires_grad=True)
    (x.mean() * 8).backward()
    np.testing.assert_allclose(x.grad.numpy(), 8 / 70000, rtol=2e-3)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_variance_of_too_few_elements_is_infinite_as_in_numpy(backend: str) -> None:
    x = tg.tensor([1.0, 2.0])
    assert tg.var(x, correction=3).item() == tg.std(x, correction=3).item() == np.inf


def test_shapes_that_do_not_fit_say_what_would_have(backend: str) -> None:
    with pytest.raises(ShapeError, match="at axis -3, 2 and 3 meet; equal sizes or a 1 would fit"):
        tg.ones((2, 3, 4)) @ tg.ones((3, 4, 5))
    with pytest.raises(ShapeError, match="at axis -1, 3 and 4 meet"):
        tg.broadcast_to(tg.ones((2, 3)), (4, 4))
    with pytest.raises(ShapeError, match="an axis is an integer"):
        tg.prod(tg.ones(2), axis="x")
