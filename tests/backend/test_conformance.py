"""The facts about CuPy that the package relies on or guards against, for the fake and, where there is a GPU, for CuPy.

Whoever finds a fact that fails on a GPU corrects the fake, and then the package until its tests pass again.
"""

from __future__ import annotations

import ast
import copy
import operator
import pickle
from importlib import import_module
from typing import Any

import fakecupy
import numpy as np
import pytest
from devices import ReadBack, no_reads

import tinygrad_rnn as tg


@pytest.fixture
def cp(gpu: str) -> Any:
    """The module: the fake, or CuPy."""
    return fakecupy if gpu == "fakecupy" else import_module(gpu)


def ramp(cp: Any, *shape: int, dtype: Any = np.float32) -> Any:
    return cp.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def same(have: Any, want: Any) -> bool:
    have, want = have.get(), np.asarray(want)
    return have.dtype == want.dtype and have.shape == want.shape and np.allclose(have, want, rtol=1e-6, equal_nan=True)


def waits(gpu: str, action: Any) -> bool:
    """Whether an action waits for the device."""
    try:
        with no_reads(gpu):
            action()
    except ReadBack:
        return True
    return False


# -- results without axes stay arrays -------------------------------------------------------------------

REDUCTIONS = ["sum", "mean", "max", "min", "prod", "var", "std", "argmax", "argmin", "any", "all"]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_gives_an_array_without_axes(cp: Any, name: str) -> None:
    assert type(getattr(cp, name)(ramp(cp, 2, 3))) is cp.ndarray
    assert type(getattr(ramp(cp, 2, 3), name)()) is cp.ndarray


def test_one_element_is_a_view_without_axes(cp: Any) -> None:
    x = ramp(cp, 2, 3)
    one = x[1, 2]
    one += 10
    assert type(one) is cp.ndarray and one.shape == () and float(x[1, 2]) == 15.0


def test_arithmetic_without_axes_gives_arrays(cp: Any) -> None:
    one = ramp(cp, 3).sum()
    assert {type(one + 1), type(-one), type(one * one), type(one > 2), type(cp.exp(one))} == {cp.ndarray}


def test_a_list_that_mixes_numbers_and_arrays_is_refused(cp: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        cp.array([[0, cp.cos(ramp(cp, 3).sum())]])


def test_item_is_the_way_out_for_one_number(cp: Any) -> None:
    assert type(ramp(cp, 3).sum().item()) is float
    one = ramp(cp, 3)[1]
    assert (float(one), int(one), complex(one), bool(one)) == (1.0, 1, 1, True)


def test_item_takes_no_index(cp: Any) -> None:
    with pytest.raises(TypeError):
        ramp(cp, 3).item(0)


# -- dtypes -----------------------------------------------------------------------------------------------

PROMOTIONS = [
    ("float32", 2.5, "float32"), ("float32", 2, "float32"), ("float16", 2.5, "float16"), ("float64", 2.5, "float64"),
    ("int64", 2, "int64"), ("int64", 2.5, "float64"), ("int32", 2, "int32"), ("bool", 2, "int64"),
    ("uint32", 0x846CA68B, "uint32"), ("float32", np.float64(2.5), "float64"), ("float32", np.float32(2.5), "float32"),
    ("float32", 1j, "complex64"), ("float32", True, "float32"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "number", "expected"), PROMOTIONS, ids=str)
def test_python_numbers_are_weak_and_numpy_numbers_are_strong(cp: Any, dtype: str, number: Any, expected: str) -> None:
    x = ramp(cp, 3).astype(dtype)
    assert (x * number).dtype == (number * x).dtype == (x + number).dtype == expected


PAIRS = [("float32", "float64", "float64"), ("int64", "float32", "float64"), ("int32", "float32", "float64"),
         ("bool", "float32", "float32"), ("float16", "float32", "float32"), ("uint32", "int32", "int64")]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
def test_arrays_promote_as_in_numpy_also_without_axes(cp: Any, one: str, other: str, expected: str) -> None:
    x, y = ramp(cp, 3).astype(one), ramp(cp, 3).astype(other)
    assert (x + y).dtype == (x * y[0]).dtype == (y + x.max()).dtype == expected


def test_integers_wrap_around(cp: Any) -> None:
    x = ramp(cp, 3, dtype=np.uint32) + 3
    assert same(x * 0x846CA68B, (np.arange(3, dtype=np.uint32) + np.uint32(3)) * np.uint32(0x846CA68B))
    assert same((x ^ (x >> 1)) << 3, np.array([16, 48, 56], np.uint32))


def test_the_default_dtype_is_float64(cp: Any) -> None:
    assert cp.zeros(2).dtype == cp.ones(2).dtype == cp.full(2, 1.5).dtype == "float64"
    assert cp.arange(2).dtype == "int64"


@pytest.mark.parametrize("data", [["a"], [object()], np.longdouble(1)], ids=["text", "object", "longdouble"])
def test_dtypes_that_a_gpu_lacks_are_refused(cp: Any, data: Any) -> None:
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.array(data)


def test_division_by_zero_is_silent(cp: Any) -> None:
    x = cp.zeros(2, np.float32)
    assert same(1 / x, np.full(2, np.inf, np.float32)) and same(x / x, np.full(2, np.nan, np.float32))
    assert same(cp.log(x - 1), np.full(2, np.nan, np.float32)) and same(cp.exp(x + 1e3), np.full(2, np.inf, np.float32))


def test_sums_keep_float32_and_widen_int32(cp: Any) -> None:
    assert cp.sum(ramp(cp, 3)).dtype == cp.cumsum(ramp(cp, 3)).dtype == "float32"
    assert cp.sum(ramp(cp, 3, dtype=np.int32)).dtype == "int64"


# -- NumPy's arrays do not mix in --------------------------------------------------------------------------

MIXES = {
    "cp + np": lambda cp, x, y: x + y,
    "np + cp": lambda cp, x, y: y + x,
    "cp.add(cp, np)": lambda cp, x, y: cp.add(x, y),
    "np.add(np, cp)": lambda cp, x, y: np.add(y, x),
    "cp @ np": lambda cp, x, y: x @ y,
    "cp < np": lambda cp, x, y: x < y,
    "cp == np": lambda cp, x, y: x == y,
    "cp += np": lambda cp, x, y: operator.iadd(x, y),
    "np += cp": lambda cp, x, y: operator.iadd(y, x),
    "cp.where": lambda cp, x, y: cp.where(x > 0, x, y),
    "cp.maximum": lambda cp, x, y: cp.maximum(x, y),
    "cp.matmul": lambda cp, x, y: cp.matmul(y, y),
    "cp.stack": lambda cp, x, y: cp.stack([y, y]),
    "cp.concatenate of both": lambda cp, x, y: cp.concatenate([x, y]),
    "cp.expand_dims": lambda cp, x, y: cp.expand_dims(y, 0),
    "cp.broadcast_to": lambda cp, x, y: cp.broadcast_to(y, (3, 3)),
    "cp.cumsum": lambda cp, x, y: cp.cumsum(y),
    "cp.split": lambda cp, x, y: cp.split(y, 3),
    "cp.moveaxis": lambda cp, x, y: cp.moveaxis(y, 0, 0),
    "a list": lambda cp, x, y: x + [1.0, 2.0, 3.0],  # noqa: RUF005
}  # fmt: skip


@pytest.mark.parametrize("name", MIXES)
def test_arrays_of_numpy_are_refused(cp: Any, name: str) -> None:
    with pytest.raises(TypeError):
        MIXES[name](cp, ramp(cp, 3), np.ones(3, np.float32))


def test_numbers_of_numpy_are_welcome(cp: Any) -> None:
    assert type(np.float32(2) * ramp(cp, 3)) is type(ramp(cp, 3) * np.float32(2)) is cp.ndarray


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # NumPy would have CuPy take one more keyword
@pytest.mark.parametrize("convert", [np.asarray, np.array, lambda x: np.asarray(x, np.float32)])
def test_nothing_becomes_a_numpy_array_by_itself(cp: Any, convert: Any) -> None:
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        convert(ramp(cp, 3))


def test_functions_of_numpy_dispatch_in_silence(cp: Any) -> None:
    assert type(np.exp(ramp(cp, 3))) is type(np.sum(ramp(cp, 3))) is cp.ndarray


def test_another_class_gets_its_turn(cp: Any) -> None:
    class Other:
        __array_ufunc__ = None
        __radd__ = __rmul__ = __rmatmul__ = __rsub__ = __rtruediv__ = lambda self, x: "ours"

    x, other = ramp(cp, 3), Other()
    assert {x + other, x * other, x @ other, x - other, x / other} == {"ours"}


def test_none_is_equal_to_nothing(cp: Any) -> None:
    assert same(ramp(cp, 2) == None, [False, False]) and same(ramp(cp, 2) != None, [True, True])  # noqa: E711


def test_get_gives_a_fresh_array_that_may_be_written(cp: Any) -> None:
    x = ramp(cp, 2, 3)
    host = x.get()
    host[...] = 7
    assert type(host) is np.ndarray and float(x.sum()) == 15.0
    assert type(x.sum().get()) is np.ndarray


def test_set_takes_numpy_arrays_of_its_own_dtype_and_shape(cp: Any) -> None:
    x = cp.zeros((2, 3), np.float32)
    x.set(np.ones((2, 3), np.float32))
    assert float(x.sum()) == 6.0
    with pytest.raises(TypeError):
        x.set(np.ones((2, 3), np.float64))
    with pytest.raises(ValueError):
        x.set(np.ones((3, 2), np.float32))


# -- indices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [3, 5, -4, -7])
def test_an_index_out_of_range_wraps_around_in_silence(cp: Any, bad: int) -> None:
    x = ramp(cp, 3)
    for found in (x[cp.array([bad])], cp.take(x, cp.array([bad])), x.take(cp.array([bad]))):
        assert same(found, np.array([bad % 3], np.float32))


def test_an_integer_out_of_range_is_an_error(cp: Any) -> None:
    with pytest.raises(IndexError):
        ramp(cp, 3)[3]
    with pytest.raises(IndexError):
        ramp(cp, 3)[0, 0]


def test_no_array_is_an_index_of_python(cp: Any) -> None:
    one = cp.array(1)
    for action in (lambda: [4, 5, 6][one], lambda: range(one), lambda: operator.index(one)):
        with pytest.raises(TypeError):
            action()


def test_lists_and_numpy_arrays_index(cp: Any) -> None:
    x = ramp(cp, 4, 2)
    assert same(x[[2, 0]], np.array([[4, 5], [0, 1]], np.float32))
    assert same(x[np.array([2, 0]), 1], np.array([5, 1], np.float32))


def test_floats_do_not_index(cp: Any) -> None:
    with pytest.raises(IndexError):
        ramp(cp, 3)[cp.array([1.0])]


def test_index_arrays_mix_with_slices_and_numbers(cp: Any) -> None:
    x, host, key = ramp(cp, 3, 4, 5), np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.array([1, 0])
    on_device = cp.array(key)
    assert same(x[1, :, on_device], host[1, :, key]) and same(x[..., on_device, 2], host[..., key, 2])
    assert same(x[on_device, on_device], host[key, key]) and same(x[None, 2, ::-2, on_device], host[None, 2, ::-2, key])
    assert same(x[cp.array(1)], host[1])


def test_masks_pick_and_write(cp: Any) -> None:
    x = ramp(cp, 2, 3)
    assert same(x[x > 2], np.array([3, 4, 5], np.float32))
    x[x > 2] += 10
    assert same(x, np.array([[0, 1, 2], [13, 14, 15]], np.float32))


def test_a_numpy_array_is_not_written_into_a_slice(cp: Any) -> None:
    with pytest.raises(ValueError):
        ramp(cp, 3)[1:] = np.ones(2, np.float32)


def test_a_slice_takes_numbers_and_arrays(cp: Any) -> None:
    x = ramp(cp, 2, 3)
    x[0] = 7
    x[1, 1:] = cp.array([8, 9])
    assert same(x, np.array([[7, 7, 7], [3, 8, 9]], np.float32))


def test_whoever_is_written_twice_keeps_one_of_the_values(cp: Any) -> None:
    x = cp.zeros(3, np.float32)
    x[cp.array([1, 1])] = cp.array([5.0, 6.0], dtype=np.float32)
    assert float(x[1]) in (5.0, 6.0) and float(x.sum()) == float(x[1])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "float16", "float32", "float64"])
def test_add_at_adds_up_what_is_named_twice(cp: Any, dtype: str) -> None:
    x = cp.zeros((3, 2), dtype)
    cp.add.at(x, cp.array([2, 0, 2]), cp.ones((3, 2), dtype))
    assert same(x, np.array([[1, 1], [0, 0], [2, 2]], dtype))


def test_add_at_takes_tuples_of_slices_and_arrays(cp: Any) -> None:
    x = cp.zeros((2, 3, 4), np.float32)
    cp.add.at(x, (slice(None), cp.array([1, 1]), cp.array([0, 0])), cp.ones((2, 2), np.float32))
    assert float(x[0, 1, 0]) == float(x[1, 1, 0]) == 2.0 and float(x.sum()) == 4.0


def test_add_at_does_not_know_complex_numbers(cp: Any) -> None:
    with pytest.raises(TypeError):
        cp.add.at(cp.zeros(3, np.complex64), cp.array([0, 0]), cp.ones(2, np.complex64))


def test_multiply_at_does_not_exist(cp: Any) -> None:
    with pytest.raises(NotImplementedError):
        cp.multiply.at(cp.ones(3), cp.array([0]), cp.ones(1))


def test_nonzero_wants_an_axis(cp: Any) -> None:
    with pytest.raises(ValueError):
        ramp(cp, 3).sum().nonzero()
    assert same(ramp(cp, 3).nonzero()[0], np.array([1, 2]))


# -- keywords and names -------------------------------------------------------------------------------------

REFUSED = {
    "sum(where=)": lambda cp, x: cp.sum(x, where=x > 0),
    "sum(initial=)": lambda cp, x: cp.sum(x, initial=1),
    "max(initial=)": lambda cp, x: cp.max(x, initial=1),
    "mean(where=)": lambda cp, x: cp.mean(x, where=x > 0),
    "std(correction=)": lambda cp, x: cp.std(x, correction=1),
    "var(correction=)": lambda cp, x: cp.var(x, correction=1),
    "clip(min=)": lambda cp, x: cp.clip(x, min=0, max=1),
    "argsort(stable=)": lambda cp, x: cp.argsort(x, stable=True),
    "exp(where=)": lambda cp, x: cp.exp(x, where=x > 0),
    "x.astype(casting=)": lambda cp, x: x.astype("float64", casting="safe"),
    "x.sum(where=)": lambda cp, x: x.sum(where=x > 0),
    "einsum(out=)": lambda cp, x: cp.einsum("i->i", x, out=x),
    "broadcast_to(subok=)": lambda cp, x: cp.broadcast_to(x, (2, 3), subok=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_keywords_that_numpy_has_are_refused(cp: Any, name: str) -> None:
    with pytest.raises(TypeError):
        REFUSED[name](cp, ramp(cp, 3))


def test_only_sums_and_products_reduce(cp: Any) -> None:
    assert same(cp.add.reduce(ramp(cp, 3)), np.float32(3))
    with pytest.raises(NotImplementedError):
        cp.maximum.reduce(ramp(cp, 3))


ABSENT = ["unstack", "vecdot", "block", "geomspace", "insert", "matvec", "vecmat", "erf", "einsum_path", "float128"]


@pytest.mark.parametrize("name", ABSENT)
def test_names_that_are_not_there(cp: Any, name: str) -> None:
    assert not hasattr(cp, name)


@pytest.mark.parametrize("name", ["to_device", "__array_namespace__", "__index__", "resize"])
def test_methods_that_are_not_there(cp: Any, name: str) -> None:
    assert not hasattr(cp.ndarray, name) and not hasattr(ramp(cp, 2), name)


def test_out_has_the_exact_shape_and_a_dtype_of_the_same_kind(cp: Any) -> None:
    x, out = ramp(cp, 2, 3), cp.empty((2, 3), np.float32)
    assert cp.add(x, 1, out=out) is out and same(out, np.arange(1, 7, dtype=np.float32).reshape(2, 3))
    with pytest.raises(ValueError):
        cp.add(x, 1, out=cp.empty((2, 4), np.float32))  # into a larger one, CuPy broadcasts; the fake refuses that too
    with pytest.raises(TypeError):
        cp.add(x, 1, out=cp.empty((2, 3), np.int32))


def test_a_scalar_has_no_axis(cp: Any) -> None:
    for name in ("sum", "max", "min", "cumsum", "argmax"):
        with pytest.raises(np.exceptions.AxisError):
            getattr(cp, name)(cp.array(3.0), axis=0)


def test_a_number_is_no_matrix(cp: Any) -> None:
    with pytest.raises(TypeError):
        ramp(cp, 2, 3) @ 2


def test_writing_in_place_keeps_array_and_dtype(cp: Any) -> None:
    x = before = ramp(cp, 3)
    x += cp.ones(3, np.float64)
    assert x is before and x.dtype == "float32"
    with pytest.raises(TypeError):
        x = ramp(cp, 3, dtype=np.int64)
        x += 0.5


def test_clip_takes_its_bounds_by_position_and_none(cp: Any) -> None:
    x = ramp(cp, 4)
    assert same(cp.clip(x, 1, 2.5), np.array([1, 1, 2, 2.5], np.float32))
    assert same(cp.clip(x, None, 2), np.array([0, 1, 2, 2], np.float32))
    assert same(cp.clip(x, 1, None), np.array([1, 1, 2, 3], np.float32))


def test_where_keeps_the_dtype_beside_python_numbers(cp: Any) -> None:
    x = ramp(cp, 3)
    assert same(cp.where(x > 1, x, 0), np.array([0, 0, 2], np.float32)) and cp.where(x > 1, 1.5, x).dtype == "float32"
    with pytest.raises(ValueError):
        cp.where(x > 1, x)
    with pytest.raises(AttributeError):
        cp.where(True, x, x)


def test_extremes_pass_nan_on(cp: Any) -> None:
    x = cp.array([np.nan, 1.0])
    assert np.isnan(cp.maximum(x, 2.0).get()[0]) and np.isnan(float(cp.max(x))) and np.isnan(float(cp.min(x)))
    assert np.isnan(cp.clip(x, 0, 1).get()[0])


def test_an_extreme_of_nothing_is_an_error_and_a_sum_is_zero(cp: Any) -> None:
    with pytest.raises(ValueError):
        cp.max(cp.zeros((0, 3)), axis=0)
    assert same(cp.sum(cp.zeros((0, 3)), axis=0), np.zeros(3)) and float(cp.prod(cp.zeros(0))) == 1.0


def test_the_first_of_equals_is_the_argmax(cp: Any) -> None:
    assert int(cp.argmax(cp.array([1.0, 3.0, 3.0]))) == 1 and int(cp.argmin(cp.array([1.0, 1.0, 3.0]))) == 0
    assert cp.argmax(ramp(cp, 2, 3), axis=1, keepdims=True).shape == (2, 1)
    assert cp.argmax(ramp(cp, 2, 3)).dtype == "int64"


# -- shapes ---------------------------------------------------------------------------------------------------

MOVES = {
    "reshape": lambda xp, x: x.reshape(4, -1),
    "transpose": lambda xp, x: xp.transpose(x, (2, 0, 1)),
    "swapaxes": lambda xp, x: xp.swapaxes(x, 0, -1),
    "moveaxis": lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)),
    "expand_dims": lambda xp, x: xp.expand_dims(x, (0, 3)),
    "squeeze": lambda xp, x: xp.squeeze(x[:, :1, None], (1, 2)),
    "flip": lambda xp, x: xp.flip(x, (0, 2)),
    "broadcast_to": lambda xp, x: xp.broadcast_to(x, (5, 2, 3, 4)),
    "step backwards": lambda xp, x: x[::-1, 2:0:-1],
}
MAKES = {
    "roll": lambda xp, x: xp.roll(x, (1, 2), (0, -1)),
    "pad": lambda xp, x: xp.pad(x, ((0, 1), (2, 0), (1, 1)), constant_values=1.5),
    "tril": lambda xp, x: xp.tril(x, -1),
    "triu": lambda xp, x: xp.triu(x, 1),
    "stack": lambda xp, x: xp.stack([x, x], -1),
    "concatenate": lambda xp, x: xp.concatenate([x, x], 1),
    "cumsum": lambda xp, x: xp.cumsum(x, axis=1),
    "einsum": lambda xp, x: xp.einsum("abc,abd->acd", x, x),
    "matmul of stacks": lambda xp, x: x @ xp.swapaxes(x, 1, 2),
    "vector by matrix": lambda xp, x: x[0, 0] @ x[0].T,
    "sum over axes": lambda xp, x: xp.sum(x, axis=(0, -1), keepdims=True),
    "sum over no axes": lambda xp, x: x.sum(()),
    "logical_not": lambda xp, x: xp.logical_not(x - 3),
    "abs, sign, floor": lambda xp, x: xp.abs(x - 5.5) * xp.sign(x - 5.5) + xp.floor(x / 2),
    "expm1, log1p": lambda xp, x: xp.expm1(x / 9) + xp.log1p(x),
    "hyperbolic": lambda xp, x: xp.sinh(x / 9) + xp.cosh(x / 9) - xp.tanh(x),
    "angles": lambda xp, x: xp.sin(x) + xp.cos(x) + xp.tan(x / 30),
    "arcs": lambda xp, x: xp.arcsin(x / 30) + xp.arccos(x / 30) + xp.arctan(x),
    "isfinite": lambda xp, x: xp.isfinite(x) & ~(x > 3),
    "powers": lambda xp, x: x**2 + x**0.5 + 2.0 ** (x / 9),
}


@pytest.mark.parametrize("name", [*MOVES, *MAKES])
def test_functions_of_the_kernels_mean_what_they_mean_in_numpy(cp: Any, name: str) -> None:
    function = {**MOVES, **MAKES}[name]
    have = function(cp, ramp(cp, 2, 3, 4)).get()
    want = function(np, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    assert (have.dtype, have.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["reshape", "transpose", "swapaxes", "expand_dims", "flip", "step backwards"])
def test_moves_are_views(cp: Any, name: str) -> None:
    x = ramp(cp, 2, 3, 4)
    view = MOVES[name](cp, x)
    view += 100
    assert (x.get() >= 100).any()


def test_the_parts_of_complex_numbers_are_views(cp: Any) -> None:
    x = cp.zeros(3, np.complex64)
    x.real[...] = 2
    cp.add.at(x.imag, cp.array([0, 0]), cp.ones(2, np.float32))
    assert same(x, np.array([2 + 2j, 2, 2], np.complex64))


MISFITS = {
    "add": lambda cp: cp.ones((2, 3)) + cp.ones((2, 4)),
    "matmul": lambda cp: cp.ones((2, 3)) @ cp.ones((2, 4)),
    "matmul of a number": lambda cp: cp.ones((2, 3)) @ cp.ones(()),
    "vectors": lambda cp: cp.ones(3) @ cp.ones(4),
    "reshape": lambda cp: cp.ones(6).reshape(4, 2),
    "concatenate": lambda cp: cp.concatenate([cp.ones((2, 3)), cp.ones((2, 4))]),
    "stack": lambda cp: cp.stack([cp.ones(2), cp.ones(3)]),
    "broadcast_to": lambda cp: cp.broadcast_to(cp.ones(2), (3,)),
    "squeeze": lambda cp: cp.squeeze(cp.ones((2, 3)), 0),
    "sum": lambda cp: cp.sum(cp.ones((2, 3)), axis=5),
    "truth": lambda cp: bool(cp.ones(2)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_a_value_error(cp: Any, name: str) -> None:
    with pytest.raises(ValueError):
        MISFITS[name](cp)


def test_a_misfit_of_shapes_speaks_of_broadcasting(cp: Any) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        MISFITS["add"](cp)


def test_an_array_without_axes_has_no_length(cp: Any) -> None:
    for action in (len, iter):
        with pytest.raises(TypeError):
            action(cp.ones(()))


# -- copies, devices, waiting ---------------------------------------------------------------------------------


def test_array_copies_and_asarray_does_not(cp: Any) -> None:
    x = ramp(cp, 3)
    copied, kept = cp.array(x), cp.asarray(x)
    x += 1
    assert same(copied, np.arange(3, dtype=np.float32)) and same(kept, np.arange(1, 4, dtype=np.float32))
    assert cp.array(np.ones(2), dtype="float32").dtype == "float32"


def test_arrays_copy_and_pickle(cp: Any) -> None:
    x = ramp(cp, 3)
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy(), x.astype(np.float32)):
        assert type(other) is cp.ndarray and other is not x and same(other, x.get())
    assert x.astype(np.float32, copy=False) is x
    with pytest.raises(TypeError):
        hash(x)


def test_arrays_know_their_device(cp: Any) -> None:
    assert ramp(cp, 3).device.id == cp.cuda.Device().id == 0
    with cp.cuda.Device(cp.cuda.runtime.getDeviceCount() - 1) as last:
        assert ramp(cp, 3).device == last


def test_a_device_that_is_not_there_is_an_error_of_the_runtime(cp: Any) -> None:
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cp.cuda.Device(99).use()


def test_copy_brings_an_array_to_the_current_device(cp: Any) -> None:
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is only one GPU")
    x = ramp(cp, 3)
    with cp.cuda.Device(1):
        assert x.copy().device.id == 1
    assert same(x.copy(), x.get())


WAITING = {
    "item": lambda cp, x: x[0].item(),
    "float": lambda cp, x: float(x[0]),
    "if": lambda cp, x: bool(x[0] > 0),
    "get": lambda cp, x: x.get(),
    "tolist": lambda cp, x: x.tolist(),
    "print": lambda cp, x: str(x),
    "mask": lambda cp, x: x[x > 1],
    "nonzero": lambda cp, x: x.nonzero(),
    "where of one": lambda cp, x: cp.where(x > 1),
    "unique": lambda cp, x: cp.unique(x),
}
FLOWING = {
    "arithmetic": lambda cp, x: cp.tanh(x * 2 + x) @ x,
    "reductions": lambda cp, x: x.max() + cp.sum(x) / 3,
    "index arrays": lambda cp, x: x[cp.zeros(2, np.int64)],
    "add.at": lambda cp, x: cp.add.at(x, cp.zeros(2, np.int64), cp.ones(2, np.float32)),
    "where of three": lambda cp, x: cp.where(x > 1, x, 0),
    "slices": lambda cp, x: operator.setitem(x, slice(1, 3), x[:2] * 2),
    "joining": lambda cp, x: cp.concatenate([x, cp.stack([x, x]).ravel()]),
}


@pytest.mark.parametrize("name", WAITING)
def test_whoever_reads_waits_for_the_device(cp: Any, gpu: str, name: str) -> None:
    x = ramp(cp, 4)
    assert waits(gpu, lambda: WAITING[name](cp, x))


@pytest.mark.parametrize("name", FLOWING)
def test_whoever_computes_does_not_wait(cp: Any, gpu: str, name: str) -> None:
    x = ramp(cp, 4)
    assert not waits(gpu, lambda: FLOWING[name](cp, x))


def test_erf_is_that_of_numpy(gpu: str) -> None:
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(tg.erf(tg.tensor(x)).numpy(), tg.erf(tg.tensor(x, backend="numpy")).numpy(), rtol=1e-14)


# -- where the fake is stricter than CuPy ------------------------------------------------------------------------


LENIENT = ["sum", "mean", "max", "var", "reshape", "transpose", "clip", "take", "swapaxes", "squeeze", "sort", "ravel"]


@pytest.mark.parametrize("name", LENIENT)
def test_functions_that_cupy_would_hand_to_numpy_in_silence_are_refused_by_the_fake(name: str) -> None:
    more = {"reshape": (1, 3), "clip": (0, 1), "take": (0,), "swapaxes": (0, 0)}.get(name, ())
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy.ndarray'>"):
        getattr(fakecupy, name)(np.ones(3), *more)


def test_the_fake_takes_its_names_from_the_real_one() -> None:
    """The table is what the real CuPy says, wherever that can be imported; it needs no GPU for that."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed, so that its names cannot be compared")
    if cupy.__version__ != fakecupy.__version__:
        pytest.skip(f"the table is of CuPy {fakecupy.__version__}; make it anew with make_cupy_names.py")
    from make_cupy_names import table

    written = ast.parse(fakecupy.NAMES.read_text())
    assert ast.unparse(ast.parse("\n".join(table(cupy)))) == ast.unparse(written)
