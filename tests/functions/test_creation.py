"""New tensors: the values of NumPy, in the dtypes of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import DtypeError, OptionError


@pytest.mark.parametrize("dtype", ["flot32", object, "U3", complex])
@pytest.mark.parametrize("make", [
    lambda dtype: tg.zeros((2, 3), dtype=dtype), lambda dtype: tg.ones(2, dtype=dtype),
    lambda dtype: tg.full(2, 1.5, dtype=dtype), lambda dtype: tg.eye(3, dtype=dtype),
    lambda dtype: tg.randn(2, dtype=dtype), lambda dtype: tg.rand(2, dtype=dtype),
    lambda dtype: tg.arange(3, dtype=dtype),
])  # fmt: skip
def test_what_is_no_dtype_of_numbers_is_refused(make: Any, dtype: Any) -> None:
    with pytest.raises(DtypeError, match="dtype"):
        make(dtype)


@pytest.mark.parametrize("dtype", ["float16", np.float64, np.dtype("int8"), bool])
def test_the_dtype_that_is_asked_for(dtype: Any) -> None:
    for made in (tg.zeros((2, 3), dtype=dtype), tg.ones(2, dtype=dtype), tg.full(2, 1, dtype=dtype),
                 tg.eye(3, dtype=dtype), tg.rand(2, dtype=dtype), tg.arange(2, dtype=dtype)):  # fmt: skip
        assert made.dtype == dtype


def test_arange_of_floats_is_float32_even_if_empty() -> None:
    for bounds in ((0.0,), (2.5,), (1.0, 4), (0, 1, 0.25), (3, 1.0)):
        made = tg.arange(*bounds)
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made.numpy(), np.arange(*bounds))
    for whole in ((0,), (4,), (5, 1, -2), (3, 1)):
        assert tg.arange(*whole).dtype == np.int64 and tg.arange(*whole).tolist() == np.arange(*whole).tolist()


@pytest.mark.parametrize("make", [tg.randn, tg.rand])
def test_a_seed_is_no_generator(make: Any) -> None:
    for seed in (0, 1):  # 0 is false, but not nothing
        with pytest.raises(OptionError, match=rf"rng is {seed}; it must be a numpy\.random\.Generator"):
            make(2, rng=seed)
    drawn = make(2, 3, rng=np.random.default_rng(5)).tolist()
    assert drawn == make(2, 3, rng=np.random.default_rng(5)).tolist() != make(2, 3).tolist()


def test_full_takes_numpys_keyword() -> None:
    assert tg.full((2, 1), fill_value=2.5).tolist() == [[2.5], [2.5]]
