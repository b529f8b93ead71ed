"""Nests leaf by leaf, and names that do not repeat."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from tinygrad_rnn.interop.agreement import agree, apart, tolerance
from tinygrad_rnn.interop.names import Names
from tinygrad_rnn.interop.nests import leaves, mapped, paths


class Pair(NamedTuple):
    h: Any
    c: Any


def test_a_nest_leaf_by_leaf() -> None:
    nest = {"state": Pair(1, [2, (3,)]), "key": slice(4, None, 5)}
    assert dict(paths(nest)) == {
        "state.h": 1, "state.c.0": 2, "state.c.1.0": 3, "key.start": 4, "key.stop": None, "key.step": 5,
    }  # fmt: skip
    assert list(leaves(nest)) == [1, 2, 3, 4, None, 5] and list(leaves(7)) == [7] and list(paths(7)) == [("", 7)]
    assert list(leaves([])) == []


def test_what_is_mapped_is_the_same_nest() -> None:
    nest = {"state": Pair(1, [2, (3,)]), "key": slice(4, 6, 5)}
    found = mapped(lambda x: 10 * x, nest)
    assert found == {"state": Pair(10, [20, (30,)]), "key": slice(40, 60, 50)}
    assert type(found["state"]) is Pair and mapped(str, 7) == "7"


def test_names_do_not_repeat_whatever_is_wished_for() -> None:
    names = Names()
    assert [names.free(wish) for wish in ("x", "x", "x_2", "x", "x_2")] == ["x", "x_2", "x_2_2", "x_3", "x_2_3"]


@pytest.mark.parametrize("ours, theirs, same", [
    ([1.0, 2.0], [1.0, 2.0 + 2e-6], True),
    ([1.0, 2.0], [1.0, 2.0 + 4e-6], False),
    ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], True),
    ([1.0, np.nan], [1.0, 2.0], False),
    ([1.0, np.inf], [1.0, -np.inf], False),
    ([1, 2], [1, 3], False),
    ([1.0], [[1.0]], False),
    ([1.0], [1], False),
])  # fmt: skip
def test_computations_agree_up_to_rounding(ours: list[Any], theirs: list[Any], same: bool) -> None:
    assert agree(np.array(ours), np.array(theirs), 1e-6) is same


def test_the_coarsest_dtype_says_how_far_results_may_be_apart() -> None:
    assert tolerance(["float64", np.dtype(np.float32), "int64"]) == tolerance(["float32"]) > tolerance(["float64"]) > 0
    assert tolerance(["int32"]) == 0 == tolerance([])
    assert apart(np.array([1.0, 2.0, np.nan]), np.array([1.5, 2.0, np.nan])) == 0.5
