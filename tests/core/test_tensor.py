"""A Tensor: what it holds, how it converts, and the questions that beginners put to it."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import BackendError, DtypeError, GraphError, ModifiedError, ShapeError

# -- making ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"), (2, "int64"), (True, "bool"), ([1.0, 2], "float32"), ([[1, 2]], "int64"), ([True], "bool"),
            ([], "float32"),
        (np.array(1.5), "float64"), (np.float64(1.5), "float64"), (np.float16(1), "float16"),
            (np.arange(3, dtype=np.int32), "int32"),
        (np.ones(2, np.uint8), "uint8"), (range(3), "int64"), ((1.0, 2.0), "float32"),
    ],
)  # fmt: skip
def test_numbers_and_lists_become_float32_arrays_keep_their_dtype(data: Any, dtype: str, backend: str) -> None:
    t = tg.tensor(data)
    assert t.dtype == dtype and t.backend.partition(":")[0] == backend
    assert np.array_equal(t.numpy(), np.asarray(data, dtype))
    assert tg.tensor(data, dtype="float16").dtype == np.float16


def test_the_byte_order_is_that_of_the_machine() -> None:
    t = tg.tensor(np.arange(3, dtype=">f8"))
    assert t.dtype.isnative and t.dtype == "float64" and t.tolist() == [0, 1, 2]


def test_the_data_is_copied(backend: str) -> None:
    source = np.zeros(3)
    t = tg.tensor(source)
    again = tg.tensor(t)
    source[0] = 1
    t.assign_(np.ones(3) * 5)
    assert t.tolist() == [5.0] * 3 and again.tolist() == [0.0] * 3


@pytest.mark.parametrize("data", ["text", [None], {"a": 1}, [object()], ["a", "b"], 2j, np.ones(3, np.complex128)])
def test_what_is_not_numbers_is_refused(data: Any) -> None:
    with pytest.raises(DtypeError, match="holds real numbers"):
        tg.tensor(data)


def test_ragged_lists_and_lists_of_tensors_say_what_to_do() -> None:
    with pytest.raises(ShapeError, match="rows of different lengths"):
        tg.tensor([[1, 2], [3]])
    with pytest.raises((DtypeError, ShapeError), match=r"tg\.stack"):
        tg.tensor([tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])])


@pytest.mark.parametrize("data", [1, [True], np.arange(3)])
def test_integers_cannot_require_a_gradient(data: Any) -> None:
    with pytest.raises(DtypeError, match=r"only floating tensors have gradients.*astype"):
        tg.tensor(data, requires_grad=True)


def test_attributes(backend: str) -> None:
    t = tg.tensor(np.arange(6.0).reshape(2, 3), name="w", requires_grad=True)
    assert (t.shape, t.ndim, t.size, t.dtype, t.name) == ((2, 3), 2, 6, np.float64, "w")
    assert t.requires_grad and t.grad is None and t.op is None and t.inputs == () and t.options == {}
    assert t.T.shape == (3, 2) and t.source is None
    assert tg.tensor(1.0).name is None


def test_creation(backend: str) -> None:
    assert tg.zeros((2, 3)).tolist() == [[0.0] * 3] * 2 and tg.zeros(2).dtype == np.float32
    assert tg.ones(3, dtype=np.float64).dtype == np.float64
    assert tg.full((2,), 7.0).tolist() == [7.0, 7.0] and tg.full(2, 7).dtype == np.int64
    assert tg.full(2, 7.0).dtype == np.float32
    assert tg.arange(3).tolist() == [0, 1, 2] and tg.arange(3).dtype == np.int64
    assert tg.arange(1, 2, 0.25).tolist() == [1, 1.25, 1.5, 1.75] and tg.arange(1, 2, 0.25).dtype == np.float32
    assert tg.arange(3, 3).shape == (0,) and tg.arange(0.0, 0.0).shape == (0,)
    assert tg.eye(2).tolist() == [[1, 0], [0, 1]]
    assert tg.zeros(2, requires_grad=True, name="b").requires_grad
    draws = tg.randn(4, 3, rng=np.random.default_rng(1)), tg.rand(4, 3, rng=np.random.default_rng(1))
    assert np.array_equal(draws[0].numpy(), np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32))
    assert np.array_equal(draws[1].numpy(), np.random.default_rng(1).random((4, 3)).astype(np.float32))
    assert all(t.backend.partition(":")[0] == backend for t in (tg.zeros(1), tg.eye(2), *draws))


def test_seed_repeats(backend: str) -> None:
    tg.seed(5)
    first = tg.randn(3).tolist()
    second = tg.randn(3).tolist()
    tg.seed(5)
    assert tg.randn(3).tolist() == first != second


# -- reading ------------------------------------------------------------------------------------------


def test_numpy_is_read_only() -> None:
    t = tg.tensor([1.0, 2.0])
    view = t.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5
    assert np.shares_memory(view, t._array)
    assert t._array.flags.writeable


def test_conversions(backend: str) -> None:
    one, several = tg.tensor([[2.5]]), tg.tensor([1.0, 2.0])
    assert (one.item(), float(one), int(one), bool(one)) == (2.5, 2.5, 2, True)
    assert several.tolist() == [1.0, 2.0] and isinstance(one.item(), float) and isinstance(tg.tensor(3).item(), int)
    for convert in (bool, float, int, lambda t: t.item()):
        with pytest.raises(ShapeError, match=r"exactly one element.*tolist"):
            convert(several)
    assert [10, 20, 30][tg.tensor(1)] == 20
    with pytest.raises(DtypeError, match="integer tensors"):
        [10, 20, 30][tg.tensor(1.0)]


def test_len_and_iteration_go_along_the_first_axis(backend: str) -> None:
    t = tg.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    assert len(t) == 3
    rows = list(t)
    assert [row.tolist() for row in rows] == [[0, 1], [2, 3], [4, 5]] and all(row.requires_grad for row in rows)
    (rows[0] * rows[2]).sum().backward()
    assert t.grad is not None and t.grad.tolist() == [[4, 5], [0, 0], [0, 1]]
    with pytest.raises(ShapeError, match="without axes"):
        len(tg.tensor(1.0))
    with pytest.raises(ShapeError, match="without axes"):
        list(tg.tensor(1.0))


def test_numpy_functions_read_tensors_on_the_host_only(gpu: str) -> None:
    assert np.asarray(tg.tensor([1.0], backend="numpy")).tolist() == [1.0]
    assert np.asarray(tg.tensor([1.0], backend="numpy"), np.float64).dtype == np.float64
    with pytest.raises(BackendError, match=r"\.numpy\(\)"):
        np.asarray(tg.tensor([1.0]))


def test_a_numpy_array_on_the_left_is_ours() -> None:
    t = tg.tensor(np.array([3.0, 4.0]), requires_grad=True)
    for y, expected in [
        (np.array([1.0, 2.0]) * t, [3, 8]), (np.float64(2) * t, [6, 8]), (np.array([1.0, 2.0]) @ t, 11),
        (np.array([1.0, 2.0]) - t, [-2, -2]), (np.array([9.0, 8.0]) / t, [3, 2]), (np.float64(2) ** t, [8, 16]),
    ]:  # fmt: skip
        assert isinstance(y, tg.Tensor) and y.requires_grad and y.tolist() == expected
    assert (np.array([3.0, 5.0]) == t).tolist() == [True, False]
    assert (np.array([3.0, 5.0]) > t).tolist() == [False, True]


def test_operators_are_those_of_python(backend: str) -> None:
    a, b = tg.tensor([5.0, -2.0]), tg.tensor([2.0, 4.0])
    assert (a + b).tolist() == [7, 2] and (1 + a).tolist() == [6, -1] and (a - 1).tolist() == [4, -3]
    assert (1 - a).tolist() == [-4, 3] and (a * b).tolist() == [10, -8] and (a / b).tolist() == [2.5, -0.5]
    assert (1 / b).tolist() == [0.5, 0.25] and (b**2).tolist() == [4, 16] and (2**b).tolist() == [4, 16]
    assert (-a).tolist() == [-5, 2] and abs(a).tolist() == [5, 2] and (a @ b).item() == 2
    assert (~(a > b)).tolist() == [False, True] and (a == 5).tolist() == [True, False]
    assert (
        (a != b).tolist() == [True, True] and (a <= b).tolist() == [False, True] and (a > 3).tolist() == [True, False]
    )


def test_tensors_are_hashed_by_identity() -> None:
    a, b = tg.tensor(1.0), tg.tensor(1.0)
    assert len({a, b, a}) == 2


def test_repr_shows_numbers_and_what_is_unusual(backend: str) -> None:
    assert repr(tg.tensor([1.0, 2.5], backend="numpy")) == "tensor([1. , 2.5])"
    w = tg.tensor(np.ones(2), requires_grad=True, name="w", backend="numpy")
    assert repr(w) == "tensor([1., 1.], dtype=float64, name='w', requires_grad=True)"
    assert "op=mul" in repr(w * 2)
    assert (f"backend='{backend}" in repr(tg.tensor(1.0))) == (backend != "numpy")


# -- changing ------------------------------------------------------------------------------------------


def test_assign_broadcasts_and_casts_and_leaves_what_was_read_alone(backend: str) -> None:
    t = tg.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    before, alias = t.numpy(), t.detach()
    assert t.assign_([1, 2, 3]) is t
    assert t.tolist() == [[1, 2, 3]] * 2 and t.dtype == np.float32 and t.requires_grad and t.op is None
    assert not before.any() and not alias.numpy().any()
    t.assign_(tg.tensor(np.full((2, 1), 4.0)))
    assert t.tolist() == [[4] * 3] * 2
    with pytest.raises(ShapeError, match=r"\(4,\).*\(2, 3\)"):
        t.assign_(np.zeros(4))
    with pytest.raises(GraphError, match=r"result of mul; assign to leaves only.*detach"):
        (t * 2).assign_(0)


def test_assigned_numbers_belong_to_the_tensor() -> None:
    source, t = np.zeros(3), tg.zeros(3, dtype=np.float64)
    t.assign_(source)
    source[0] = 1
    assert t.tolist() == [0, 0, 0] and t._array.flags.writeable
    t.assign_(5.0)
    assert t._array.flags.writeable and t._array.strides == (8,)


def test_a_number_that_changed_stops_backward_before_any_leaf_has_its_gradient(backend: str) -> None:
    """`last` is younger than the product that was spoilt, so that its gradient is ready first."""
    x, w = tg.tensor(2.0, requires_grad=True), tg.tensor(3.0, requires_grad=True, name="w")
    product = x * w
    last, known = tg.tensor(5.0, requires_grad=True), tg.tensor(7.0, requires_grad=True)
    (known * 1).backward()
    w.assign_(4.0)
    with pytest.raises(ModifiedError, match="used w"):
        (product * last + known).backward()
    assert x.grad is None and w.grad is None and last.grad is None
    assert known.grad is not None and known.grad.item() == 1


def test_writing_into_elements_says_what_to_do_instead() -> None:
    t = tg.zeros(3)
    with pytest.raises(GraphError, match=r"tg\.where.*assign_"):
        t[0] = 1
    with pytest.raises(AttributeError, match=r"'data'.*\.numpy\(\).*\.assign_"):
        t.data  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'dta'"):
        t.dta  # noqa: B018
    with pytest.raises(AttributeError):
        t.colour = "red"


def test_requires_grad_is_set_on_leaves_only() -> None:
    t = tg.tensor([1.0])
    t.requires_grad = True
    y = t * 2
    assert y.requires_grad
    with pytest.raises(GraphError, match=r"leaves only.*detach"):
        y.requires_grad = False
    t.requires_grad = False
    assert not (t * 2).requires_grad


def test_in_place_operators_bind_a_new_result() -> None:
    t = x = tg.tensor([1.0, 2.0], requires_grad=True)
    t += 1
    t *= t
    assert t is not x and x.tolist() == [1, 2]
    t.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [4, 6]


def test_detach_shares_numbers_and_forgets_history(backend: str) -> None:
    x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x * 3
    d = y.detach()
    assert d.op is None and not d.requires_grad and d.tolist() == y.tolist() and d._array is y._array
    (d * x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 6]


def test_astype_lets_gradients_through_floats_and_stops_them_at_integers(backend: str) -> None:
    x = tg.tensor(np.array([1.5, 2.5]), requires_grad=True)
    y = x.astype(np.float32)
    assert y.dtype == np.float32
    (y * 3).sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float64 and x.grad.tolist() == [3, 3]
    whole = x.astype(int)
    assert whole.tolist() == [1, 2] and not whole.requires_grad


def test_to_moves_and_the_gradient_comes_back(gpu: str) -> None:
    x = tg.tensor(np.array([1.5, 2.5]), requires_grad=True, backend="numpy")
    y = x.to(gpu)
    assert y.backend.partition(":")[0] == gpu and y.requires_grad
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.backend == "numpy" and x.grad.tolist() == [3, 5]


def test_backends_never_mix_and_the_error_says_which_call_mends_it(gpu: str) -> None:
    a, b = tg.tensor([1.0], backend="numpy", name="a"), tg.tensor([1.0], name="b")
    with pytest.raises(BackendError, match=r"mul: a \(a \(1,\) float32\) lies on numpy, but b .* on .*\.to\('numpy'\)"):
        a * b
    with pytest.raises(BackendError):
        tg.where(a > 0, a, b)
    with pytest.raises(BackendError, match=r"arrays\[1\]"):
        tg.concatenate([a, b])
    with pytest.raises(BackendError):
        b @ np.ones(1)


# -- copies ----------------------------------------------------------------------------------------------


def test_deepcopy_of_a_leaf_copies_numbers_and_gradient(backend: str) -> None:
    x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True, name="w")
    (x * x).sum().backward()
    y = copy.deepcopy(x)
    assert (y.tolist(), y.name, y.requires_grad) == ([1, 2], "w", True)
    assert x.grad is not None and y.grad is not None and y.grad.tolist() == [2, 4]
    assert y._array is not x._array and y.grad._array is not x.grad._array and y.age > x.age
    pair = copy.deepcopy({"a": x, "b": x})
    assert pair["a"] is pair["b"]
    with pytest.raises(GraphError, match=r"detach"):
        copy.deepcopy(x * 2)


def test_copies_and_pickles_of_a_leaf_are_leaves_with_an_age_of_their_own() -> None:
    """With the age of the original, the tape would take one for the other."""
    x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True, name="w")
    for y in (copy.copy(x), pickle.loads(pickle.dumps(x))):
        y.assign_(0)
        assert x.tolist() == [1, 2] and y.requires_grad and y.name == "w" and y.age > x.age
        ((x + 1) * y).sum().backward()
        assert y.grad is not None and y.grad.tolist() == [2, 3]
    with pytest.raises(GraphError, match="detach"):
        pickle.dumps(x * 2)


def test_a_result_whose_gradient_will_be_kept_says_nothing() -> None:
    y = tg.tensor(1.0, requires_grad=True) * 2
    y.retain_grad()
    assert y.grad is None


def test_a_gradient_of_another_backend_is_refused(gpu: str) -> None:
    w = tg.tensor([1.0], requires_grad=True, backend=gpu)
    with pytest.raises(BackendError, match=r"grad\.to"):
        w.grad = tg.tensor([1.0], backend="numpy")


def test_threads_that_add_into_one_leaf_lose_nothing() -> None:
    w = tg.tensor(np.zeros(1000), requires_grad=True)

    def add() -> None:
        for _ in range(200):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert w.grad is not None and (w.grad.numpy() == 800).all()
