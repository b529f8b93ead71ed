"""The NumPy backend: its own error function and sigmoid, and views that cannot be written."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.backend import numpy_

EDGES = [0.0, 5e-324, 1e-300, 1e-8, 0.46874999, 0.46875, 0.46875001, 1.0, 3.999999, 4.0, 4.00001, 5.9, 6.0, 9.0, 1e300]


def erf_error(erf) -> float:
    """The largest distance from the C library's error function, in units of the last place of the result."""
    x = np.concatenate([EDGES, np.linspace(0, 7, 20_011)])
    x = np.concatenate([x, -x])
    want = np.array([math.erf(each) for each in x])
    return float(np.max(np.abs(erf(x) - want) / np.spacing(np.maximum(np.abs(want), 1e-300))))


def test_erf_is_right_to_the_last_digits() -> None:
    assert erf_error(numpy_.erf) <= 4


def test_a_wrong_coefficient_of_erf_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for piece, wrong in {"_NEAR": 1e-12, "_MIDDLE": 1e-12, "_FAR": 1.0}.items():  # far out, erf is 1 to eight digits
        (first, *others), below = getattr(numpy_, piece)
        with monkeypatch.context() as patch:
            patch.setattr(numpy_, piece, ((first * (1 + wrong), *others), below))
            assert erf_error(numpy_.erf) > 4, piece


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_keeps_dtype_shape_and_the_ends(dtype: type) -> None:
    x = np.array([[-np.inf, np.inf, np.nan]], dtype)
    np.testing.assert_array_equal(numpy_.erf(x), np.array([[-1, 1, np.nan]], dtype))
    assert numpy_.erf(x).dtype == tg.gelu(np.ones(2, dtype)).dtype == dtype
    assert numpy_.erf(np.float64(0.5)) == math.erf(0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.bool])
def test_sigmoid_is_the_kernel_of_the_table(dtype: type) -> None:
    x = np.linspace(-30, 30, 97).astype(dtype)
    expected = tg.sigmoid.primitive.kernel(np, x)
    found = numpy_.sigmoid(x)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    exact, limits = 1 / (1 + np.exp(-x.astype(np.float64))), np.finfo(found.dtype)
    np.testing.assert_allclose(found, exact, rtol=2 * limits.eps, atol=limits.tiny)
    assert float(numpy_.sigmoid(x[5])) == float(expected[5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sigmoid_goes_to_its_ends_without_a_warning(dtype: type) -> None:
    x = np.array([-np.inf, -np.finfo(dtype).max, np.finfo(dtype).max, np.inf, np.nan], dtype)
    for found in (numpy_.sigmoid(x), np.array([numpy_.sigmoid(each) for each in x]), tg.silu(x[1:3]) / x[1:3]):
        np.testing.assert_array_equal(
            found, np.array([0, 0, 1, 1, np.nan])[1 if found.size == 2 else 0 :][: found.size]
        )
    wave = np.array([-3 + 1e-20j, 0.5j])
    np.testing.assert_allclose(numpy_.sigmoid(wave), 1 / (1 + np.exp(-wave)), rtol=1e-15)


def test_sigmoid_does_not_write_into_its_argument() -> None:
    x = np.ones(3, np.float32)
    numpy_.sigmoid(x)
    assert (x == 1).all()


def test_numbers_are_seen_through_a_view_that_cannot_be_written() -> None:
    t = tg.tensor([1.0, 2.0])
    view = t.numpy()
    assert np.shares_memory(view, t._array)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 3


def test_tensors_copy_what_they_are_made_of() -> None:
    data = np.ones(3, np.float32)
    t = tg.tensor(data)
    data[:] = 5
    assert t.tolist() == [1.0, 1.0, 1.0]
