"""What is composed of primitives: values as NumPy's, derivatives against numbers, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.tensor import Tensor
from tinygrad_rnn.errors import DtypeError, OptionError, ShapeError

rng = np.random.default_rng(30)
X = rng.permutation(np.linspace(-1.9, 2.1, 24)).reshape(2, 3, 4)
M, V = rng.normal(size=(3, 5)), rng.normal(size=5)
ZEROS = np.array([[0.0, 1.5, -2.0], [0.0, 0.5, 0.0]])
PLACES = np.array([[[2, 0, 1, 1]], [[0, 0, 2, 1]]])

CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "prod": (lambda x: tg.prod(x), np.prod, (X,)),
    "prod of an odd axis": (lambda x: tg.prod(x, axis=1), lambda x: np.prod(x, 1), (X,)),
    "prod of axes": (lambda x: tg.prod(x, axis=(0, -1), keepdims=True), lambda x: np.prod(x, (0, -1), keepdims=True),
        (X,)),
    "prod with zeros": (lambda x: x.prod(axis=1), lambda x: np.prod(x, 1), (ZEROS,)),
    "prod of nothing": (lambda x: tg.prod(x[:, :0], axis=1), lambda x: np.ones(2), (ZEROS,)),
    "prod of one": (lambda x: tg.prod(x[..., :1], axis=-1), lambda x: x[..., 0], (X,)),
    "var": (lambda x: tg.var(x), np.var, (X,)),
    "var of axes": (lambda x: x.var(axis=(0, 2), keepdims=True, correction=1),
        lambda x: np.var(x, (0, 2), ddof=1, keepdims=True), (X,)),
    "einsum": (lambda a, b: tg.einsum("tnh,hk->tnk", a, b), lambda a, b: np.einsum("tnh,hk->tnk", a, b),
        (X, rng.normal(size=(4, 5)))),
    "einsum implicit": (lambda a, b: tg.einsum("ba,ac", a, b), lambda a, b: np.einsum("ba,ac", a, b), (X[0].T, M)),
    "einsum ellipsis": (lambda a, b: tg.einsum("...ij,jk->...ik", a, b), lambda a,
        b: np.einsum("...ij,jk->...ik", a, b), (X, rng.normal(size=(4, 2)))),
    "einsum ellipses": (lambda a, b: tg.einsum("...i,...i", a, b), lambda a, b: np.einsum("...i,...i", a, b),
        (X, X[1])),
    "einsum trace": (lambda a: tg.einsum("ii", a[:3, :3]), lambda a: np.trace(a[:3, :3]), (M,)),
    "einsum diagonal": (lambda a: tg.einsum("iji->ji", a), lambda a: np.einsum("iji->ji", a),
        (rng.normal(size=(3, 2, 3)),)),
    "einsum three": (lambda a, b, c: tg.einsum("i,ij,j->", a, b, c), lambda a, b, c: a @ b @ c, (V[:3], M, V)),
    "einsum outer": (lambda a, b: tg.einsum("i,j->ji", a, b), lambda a, b: np.outer(b, a), (V, V[:3])),
    "einsum stretched": (lambda a, b: tg.einsum("ij,ij->i", a, b), lambda a, b: (a * b).sum(1), (M[:, :1], M)),
    "einsum of a sum": (lambda a: tg.einsum("ijk->j", a), lambda a: a.sum((0, 2)), (X,)),
    "dot": (lambda a, b: tg.dot(a, b), np.dot, (M, V)),
    "dot of scalars": (lambda a, b: tg.dot(a[0], b), lambda a, b: a[0] * b, (V, M)),
    "dot of axes": (lambda a, b: tg.dot(a, b), np.dot, (X, rng.normal(size=(5, 4, 2)))),
    "dot of a vector with axes": (lambda a, b: a.dot(b), np.dot, (V[:3], X)),
    "dot over nothing": (lambda a, b: tg.dot(a[:, :0], b[:, :0]), lambda a, b: np.dot(a[:, :0], b[:, :0]), (M, X)),
    "outer": (lambda a, b: tg.outer(a, b), np.outer, (M, V)),
    "split": (lambda x: tg.split(x, 2, axis=-1)[1], lambda x: np.split(x, 2, -1)[1], (X,)),
    "split at": (lambda x: tg.concatenate(tg.split(x, [1, 3], axis=2)[::-1], axis=2),
        lambda x: np.concatenate(np.split(x, [1, 3], 2)[::-1], 2), (X,)),
    "unstack": (lambda x: tg.unstack(x, axis=1)[2] * tg.unstack(x, 1)[0], lambda x: x[:, 2] * x[:, 0], (X,)),
    "tile": (lambda x: tg.tile(x, (2, 3)), lambda x: np.tile(x, (2, 3)), (M,)),
    "tile into more axes": (lambda x: tg.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), (M,)),
    "tile of a number of times": (lambda x: tg.tile(x, 2), lambda x: np.tile(x, 2), (X,)),
    "repeat": (lambda x: x.repeat(3), lambda x: np.repeat(x, 3), (M,)),
    "repeat along an axis": (lambda x: tg.repeat(x, 2, axis=-2), lambda x: np.repeat(x, 2, -2), (X,)),
    "ravel": (lambda x: x.ravel(), np.ravel, (X,)),
    "take": (lambda x: tg.take(x, [4, 0, 4]), lambda x: np.take(x, [4, 0, 4]), (M,)),
    "take along an axis": (lambda x: x.take(np.array([[1, 0], [1, 1]]), axis=1),
        lambda x: np.take(x, [[1, 0], [1, 1]], 1), (X,)),
    "take by bools, which count": (lambda x: x.take([True, False, True], axis=0), lambda x: x[[1, 0, 1]], (X,)),
    "take nothing": (lambda x: tg.take(x, [], 1), lambda x: x[:, :0], (X,)),
    "take_along_axis of all": (lambda x: tg.take_along_axis(x, [5, 0, 5], None), lambda x: x.ravel()[[5, 0, 5]], (X,)),
    "take_along_axis": (lambda x: tg.take_along_axis(x, PLACES, 1), lambda x: np.take_along_axis(x, PLACES, 1), (X,)),
    "take_along_axis stretched": (lambda x: tg.take_along_axis(x, PLACES[:1], 1),
        lambda x: np.take_along_axis(x, PLACES[:1], 1), (X,)),
    "diagonal": (lambda x: tg.diagonal(x), np.diagonal, (M,)),
    "diagonal above": (lambda x: x.diagonal(2, 1, 2), lambda x: np.diagonal(x, 2, 1, 2), (X,)),
    "diagonal below": (lambda x: tg.diagonal(x, -1, 2, 0), lambda x: np.diagonal(x, -1, 2, 0), (X,)),
    "diagonal outside": (lambda x: tg.diagonal(x, 7), lambda x: np.diagonal(x, 7), (M,)),
    "reshape by numbers": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1), (X,)),
    "transpose by numbers": (lambda x: x.transpose(2, 0, 1), lambda x: x.transpose(2, 0, 1), (X,)),
    "transpose of a list": (lambda x: tg.transpose(x, [1, 2, 0]), lambda x: x.transpose(1, 2, 0), (X,)),
    "reverse indexing": (lambda x: x[::-1, -1, 1:], lambda x: x[::-1, -1, 1:], (X,)),
    "indexing with tensors": (lambda x: x[:, tg.tensor([2, 2, 0])], lambda x: x[:, [2, 2, 0]], (X,)),
    "indexing with a mask": (lambda x: x[x > 0.5], lambda x: x[x > 0.5], (X,)),
    "indexing with a list": (lambda x: x[[1, 0, 1]], lambda x: x[[1, 0, 1]], (X,)),
    "indexing with NumPy's integers": (lambda x: x[np.int64(1), np.arange(2)], lambda x: x[1, :2], (X,)),
    "new axes": (lambda x: x[:, None, ..., None, 0], lambda x: x[:, None, ..., None, 0], (X,)),
    "power by a whole number": (lambda x: x**3 + x**0 + x**1, lambda x: x**3 + 1 + x, (X,)),
    "power by a negative number": (lambda x: x**-2.0, lambda x: x**-2.0, (X,)),
    "square root of a sum": (lambda x: tg.norm(x, axis=-1) + tg.std(x, axis=-1),
        lambda x: np.linalg.norm(x, axis=-1) + x.std(-1), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_and_derivatives(name: str, backend: str) -> None:
    f, reference, xs = CASES[name]
    y = f(*[tg.tensor(x) for x in xs])
    assert isinstance(y, Tensor) and y.backend.partition(":")[0] == backend
    expected = np.asarray(reference(*xs))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14)
    tg.gradcheck(f, *xs, order=2)


@pytest.mark.parametrize("call", ["prod(x, 0)", "prod(x, -1, keepdims=True)", "take(x, 0, 0)", "repeat(x, 2, 0)"])
def test_a_scalar_has_an_axis_0_where_numpy_lets_it(call: str) -> None:
    x = np.array(3.0)
    expected, found = eval(call, vars(np), {"x": x}), eval(call, vars(tg), {"x": tg.tensor(x)})
    assert found.shape == expected.shape and found.tolist() == expected.tolist()
    tg.gradcheck(lambda x: eval(call, vars(tg), {"x": x}), x)


def test_the_hessian_of_a_product_with_two_zeros_is_right() -> None:
    """d2(abc)/da db = c: dividing the product by its factors gives nan here."""
    h = tg.hessian(tg.prod)(np.array([0.0, 0.0, 5.0])).numpy()
    assert h.tolist() == [[0, 5, 0], [5, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: tg.einsum("ij,jk", x), r"'ij,jk' names 2 operands, and there are 1"),
        (lambda x: tg.einsum("ijk->i", x), r"'ijk' names 3 axes, but operand 0 has shape \(2, 3\)"),
        (lambda x: tg.einsum("ij->k", x), r"'k' of the output"),
        (lambda x: tg.einsum("ii", x), r"'i' is 2 and 3 long in one operand"),
        (lambda x: tg.einsum("ii", x[:1]), r"'i' is 1 and 3 long in one operand"),
        (lambda x: tg.einsum("...i->i", x), r"lacks the '...' for 1 axes"),
        (lambda x: tg.einsum("ij->ii", x), r"'i' stands more than once in the output"),
        (lambda x: tg.einsum("...ijk", x), r"names 3 axes, but operand 0 has shape \(2, 3\)"),
        (lambda x: tg.take_along_axis(x, np.zeros(2, int), 1), r"take_along_axis"),
        (lambda x: tg.norm(x, axis=3), r"norm of tensor \(2, 3\) float32: axis 3"),
        (lambda x: tg.prod(x, axis=2), r"axis 2 is out of bounds"),
        (lambda x: tg.mean(x, axis=2), r"mean.*axis 2"),
        (lambda x: tg.split(x, 2, axis=(0, 1)), r"axis is a single integer here, not \(0, 1\)"),
        (lambda x: tg.take(x, [0], axis=(0, 1)), r"axis is a single integer here, not \(0, 1\)"),
        (lambda x: tg.unstack(x, None), r"axis is a single integer here, not None"),
        (lambda x: tg.take(x[0, 0], 0, axis=1), r"axis 1 is out of bounds"),
        (lambda x: tg.prod(x[0, 0], axis=-2), r"axis -2 is out of bounds"),
        (lambda x: tg.split(x, 2, axis=5), r"axis 5 is out of bounds for .*\(2, 3\)"),
    ],
)
def test_misfits_say_so(call: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        call(tg.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: x.repeat(-1), "repeats is an integer of at least 0, not -1"),
        (lambda x: tg.repeat(x, 1.5), "repeats is an integer of at least 0, not 1.5"),
        (lambda x: tg.repeat(x, [1, 2, 3]), r"repeats is an integer of at least 0, not \[1, 2, 3\]"),
        (lambda x: tg.tile(x, (2, -1)), "reps is an integer of at least 0"),
        (lambda x: tg.tile(x, 2.5), "reps is an integer of at least 0"),
        (lambda x: tg.split(x, 0), "indices_or_sections is an integer of at least 1, not 0"),
    ],
)
def test_counts_are_whole(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        call(tg.zeros(3))


def test_indices_are_whole() -> None:
    for indices in (np.ones((2, 1), bool), [[0.0], [1.0]]):
        with pytest.raises(DtypeError, match="indices are integers, not"):
            tg.take_along_axis(tg.zeros((2, 3)), indices, 1)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int16, np.uint32, np.int64, np.float16, np.float32])
def test_prod_widens_small_integers_as_numpy_does(dtype: Any, backend: str) -> None:
    x = np.array([[100, 9, 3], [7, 0, 2]], dtype)
    for axis in (None, 0, 1):
        for keepdims in (False, True):
            found, expected = tg.prod(tg.tensor(x), axis, keepdims), np.prod(x, axis, keepdims=keepdims)
            assert found.dtype == expected.dtype and found.tolist() == expected.tolist()
    assert tg.prod(tg.tensor(x[:, :0]), 1).dtype == np.prod(x).dtype == tg.prod(tg.tensor(x[0, 0])).dtype


LISTS: dict[str, Callable[[Any], Any]] = {
    "prod": lambda x: tg.prod(x, 1), "var": lambda x: tg.var(x, 0), "split": lambda x: tg.split(x, 3, 1)[2],
    "split at": lambda x: tg.split(x, np.array([1]), np.int64(0))[1], "unstack": lambda x: tg.unstack(x, -1)[1],
    "tile": lambda x: tg.tile(x, np.int64(2)), "tile by an array": lambda x: tg.tile(x, np.array([2, 1])),
    "repeat": lambda x: tg.repeat(x, np.int64(2)), "repeat along": lambda x: tg.repeat(x, True, 1),
    "take": lambda x: tg.take(x, [2, 0], 1), "take a bool": lambda x: tg.take(x, True, 0),
    "take one": lambda x: tg.take(x, np.int64(5)), "take_along_axis": lambda x: tg.take_along_axis(x, [[2], [0]], 1),
    "diagonal": lambda x: tg.diagonal(x, np.int64(1)), "dot": lambda x: tg.dot(x, [1.0, 2.0, 3.0]),
    "outer": lambda x: tg.outer(x, [2.0, 1.0]), "einsum": lambda x: tg.einsum("ij,j->i", x, [1.0, 2.0, 3.0]),
    "ravel": tg.ravel,
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_arrays_and_numpys_integers_are_taken(name: str, backend: str) -> None:
    """A list gives a Tensor and an array an array, as with primitives; counts may be NumPy's, and what is 0-d."""
    x = np.array([[1.0, 2.0, 3.0], [4.0, 0.5, 6.0]], np.float32)
    of_list, of_tensor, of_array = LISTS[name](x.tolist()), LISTS[name](tg.tensor(x)), LISTS[name](x)
    assert isinstance(of_list, Tensor) and of_list.dtype == np.float32
    assert of_list.tolist() == of_tensor.tolist() == np.asarray(of_array).tolist()
    assert isinstance(of_array, (np.ndarray, np.generic)) or name in ("dot", "outer", "einsum")  # beside a list
    call = {"split at": lambda: np.split(x, [1], 0)[1], "take a bool": lambda: np.take(x, True, 0)}
    for case, expected in call.items():
        if case == name:
            np.testing.assert_array_equal(of_list.numpy(), expected())


def test_a_list_goes_to_where_its_partner_lies() -> None:
    x = tg.ones((2, 3), backend="fakecupy")
    for y in (tg.dot(x, [1, 2, 3]), tg.dot([1, 2], x), tg.outer([1, 2], x), tg.einsum("ij,j", x, [1, 2, 3])):
        assert y.backend == "fakecupy"
