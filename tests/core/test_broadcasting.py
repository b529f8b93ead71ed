"""Broadcasting and its transpose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tinygrad_rnn as tg
from tinygrad_rnn.core.broadcasting import fitted, sum_to
from tinygrad_rnn.errors import PrimitiveError


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0), st.integers(0, 99))
def test_sum_to_is_the_transpose_of_broadcast_to(shapes: arrays.BroadcastableShapes, seed: int) -> None:
    """For all x and g: the inner product of broadcast(x) and g is that of x and sum_to(g)."""
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=shapes.input_shapes[0]), rng.normal(size=shapes.result_shape)
    back = sum_to(g, shape=x.shape)
    assert back.shape == x.shape
    np.testing.assert_allclose((np.broadcast_to(x, g.shape) * g).sum(), (x * back).sum(), rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrays.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_gradients_have_the_shape_of_what_they_belong_to_however_it_was_stretched(
    shapes: arrays.BroadcastableShapes,
) -> None:
    a, b, c = (tg.tensor(np.ones(shape), requires_grad=True) for shape in shapes.input_shapes)
    y = a * b + c * b - a
    y.backward(np.ones(y.shape))
    for x, total in [(a, 0), (b, 2), (c, 1)]:  # each element of the result contributes so much
        assert x.grad is not None and x.grad.shape == x.shape
        assert x.grad.numpy().sum() == total * y.size


def test_a_gradient_is_cast_to_what_it_belongs_to() -> None:
    x = tg.tensor(np.ones((2, 1), np.float32))
    assert fitted(np.ones((2, 3)), x).dtype == np.float32
    assert fitted(np.ones((4, 2, 3)), x).tolist() == [[12.0], [12.0]]
    for shape in [(2,), (3, 3), (1, 2)]:
        with pytest.raises(PrimitiveError, match="a derivative rule gave a gradient of shape"):
            fitted(np.ones(shape), x)
