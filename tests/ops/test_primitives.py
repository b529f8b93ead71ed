"""Every primitive of the package, on every backend: value, derivatives both ways to second order, dtypes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from samples import SAMPLES, Sample, package_primitives

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES

CASES = [
    pytest.param(name, s, id=f"{name}-{i}-{s}") for name, samples in SAMPLES.items() for i, s in enumerate(samples)
]
# a checkpoint's primitive is the memory of a function, not a function: test_transforms.py checks it
DIFFERENTIABLE = [c for c in CASES if PRIMITIVES[str(c.values[0])].differentiable and c.values[0] != "recomputed"]


def test_every_primitive_has_samples_and_a_reference_and_none_is_stale() -> None:
    table = set(package_primitives())
    assert not table - set(SAMPLES), "these primitives need a line in tests/samples.py"
    assert not set(SAMPLES) - table, "these lines are of no primitive"
    assert all(SAMPLES.values())
    silent = {name for name, samples in SAMPLES.items() for s in samples if not (s.reference or hasattr(np, name))}
    assert not silent, "NumPy has no function of these names: say with held_to(...) what their values are to be"


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_value_is_that_of_the_reference(name: str, sample: Sample, backend: str) -> None:
    y = PRIMITIVES[name].function(*sample.tensors(backend), **sample.on(backend).options)
    expected = sample.expected(name)
    assert y.shape == expected.shape
    assert y.backend.partition(":")[0] == (backend if name != "transfer" else "numpy")
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_bare_arrays_run_the_same_kernel(name: str, sample: Sample, backend: str) -> None:
    moved, function = sample.on(backend), PRIMITIVES[name].function
    bare, wrapped = function(*moved.args, **moved.options), function(*sample.tensors(backend), **moved.options)
    assert not isinstance(bare, tg.Tensor)
    assert np.array_equal(tg.tensor(bare).numpy(), wrapped.numpy())


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_first_and_second_derivatives_both_ways(name: str, sample: Sample, backend: str) -> None:
    options = sample.on(backend).options
    tg.gradcheck(partial(PRIMITIVES[name].function, **options), *sample.tensors(backend), order=2, tolerance=1e-10)


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_float32_stays_float32_and_gradients_have_the_shape_of_what_they_belong_to(
    name: str, sample: Sample, backend: str
) -> None:
    args, options = sample.tensors(backend, np.float32), sample.on(backend).options
    if name == "astype":
        options["dtype"] = np.float32
    y = PRIMITIVES[name].function(*args, **options)
    assert y.dtype == np.float32
    y.backward(np.ones(y.shape))
    exact = sample.tensors(backend)
    z = PRIMITIVES[name].function(*exact, **{**options, **({"dtype": np.float64} if name == "astype" else {})})
    z.backward(np.ones(z.shape))
    for x, wide in zip(args, exact, strict=True):
        if isinstance(x, tg.Tensor) and x.requires_grad:
            assert x.grad is not None and wide.grad is not None
            assert (x.grad.dtype, x.grad.shape, x.grad.backend) == (np.float32, x.shape, x.backend)
            np.testing.assert_allclose(x.grad.numpy(), wide.grad.numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_strided_arguments_give_the_same(name: str, sample: Sample, backend: str) -> None:
    """Every second element of a wider, transposed array: neither contiguous in rows nor in columns."""
    options = sample.on(backend).options
    plain, strided = sample.tensors(backend), sample.tensors(backend)
    for x in strided:
        if isinstance(x, tg.Tensor) and x.ndim:
            home = tg.backend.backend_of(x._array)
            room = home.asarray(np.empty(tuple(2 * n for n in reversed(x.shape)), x.dtype))
            view = room.T[tuple(slice(1, None, 2) for _ in x.shape)]
            view[...] = x._array
            x._array = view
            assert x.size < 2 or not x._array.flags.c_contiguous
    function = PRIMITIVES[name].function
    one, other = function(*plain, **options), function(*strided, **options)
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-13, atol=1e-14)
    g = np.random.default_rng(1).normal(size=one.shape)
    one.backward(g)
    other.backward(g)
    for x, x_strided in zip(plain, strided, strict=True):
        if isinstance(x, tg.Tensor) and x.requires_grad:
            assert x.grad is not None and x_strided.grad is not None
            np.testing.assert_allclose(x.grad.numpy(), x_strided.grad.numpy(), rtol=1e-12, atol=1e-14)


ELEMENTWISE = [
    name for name, op in PRIMITIVES.items()
    if op.kind in ("elementwise", "bilinear", "linear") and name in SAMPLES and op.rules
    and name not in ("matmul", "contract", "recomputed") and not SAMPLES[name][0].options and not op.variadic
]  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_arrays_without_elements(name: str, shape: tuple[int, ...], backend: str) -> None:
    op = PRIMITIVES[name]
    xs = [tg.tensor(np.zeros(shape, bool if a == "condition" else float), backend=backend) for a in op.arrays]
    for x in xs:
        x.requires_grad = x.dtype.kind == "f"
    y = op.function(*xs)
    assert y.size == 0
    y.sum().backward()
    assert all(x.grad.shape == shape for x in xs if x.requires_grad)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "power", "maximum", "minimum"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("number", [2, 1.7, True])
def test_python_numbers_are_weak_on_either_side(name: str, dtype: Any, number: Any, backend: str) -> None:
    function = PRIMITIVES[name].function
    for place in (0, 1):
        x = tg.tensor(np.array([0.5, 1.25, 1.5], dtype), requires_grad=True, backend=backend)
        y = function(*((x, number) if place else (number, x)))
        assert y.dtype == dtype
        y.backward(np.ones(3))
        assert x.grad is not None and x.grad.dtype == dtype


def test_promotion_follows_numpy_and_gradients_follow_their_owner(backend: str) -> None:
    x = tg.tensor(np.ones((2, 3), np.float32), requires_grad=True, backend=backend)
    w = tg.tensor(np.full(3, 2.0), requires_grad=True, backend=backend)
    y = x * w
    assert y.dtype == np.float64
    y.sum().backward()
    assert (x.grad.dtype, w.grad.dtype) == (np.float32, np.float64)  # type: ignore[union-attr]
    assert x.grad.tolist() == [[2.0] * 3] * 2 and w.grad.tolist() == [2.0] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if n != "reciprocal"])  # 1 / 0 warns
def test_integers_are_taken_as_numpy_takes_them_and_make_no_graph(name: str, backend: str) -> None:
    op = PRIMITIVES[name]
    low, high = op.domain
    whole = np.arange(math.ceil(low), math.floor(high) + 1)
    args = [whole != 1 if argument == "condition" else whole for argument in op.arrays]
    y = op.function(*[tg.tensor(x) for x in args])
    assert not y.requires_grad
    expected = Sample(tuple(args), {}, SAMPLES[name][0].reference).expected(name)
    assert y.dtype.kind == np.asarray(expected).dtype.kind
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [n for n, op in PRIMITIVES.items() if not op.differentiable and n in SAMPLES])
def test_what_has_no_rule_makes_no_graph(name: str) -> None:
    sample = SAMPLES[name][0]
    y = PRIMITIVES[name].function(*sample.tensors("numpy"), **sample.options)
    assert y.op is None and not y.requires_grad
