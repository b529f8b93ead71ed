"""Every primitive gives the same numbers on every backend: on the fake, whose arithmetic is NumPy's, bit for bit.

Some have kernels of their own there, which round otherwise.
"""

from __future__ import annotations

import fakecupy
import numpy as np
import pytest
from devices import ReadBack, no_reads
from samples import SAMPLES, Sample

import tinygrad_rnn as tg
from tinygrad_rnn.backend import backend_of, resolve
from tinygrad_rnn.core.primitive import PRIMITIVES

CASES = [pytest.param(name, sample, id=f"{name}-{sample}") for name, found in SAMPLES.items() for sample in found]


def run(name: str, sample: Sample, dtype: type) -> list[np.ndarray]:
    """The value, first and second derivatives for whatever has one, where the arrays of the sample lie."""
    function = PRIMITIVES[name].function
    args = [tg.Tensor(x.astype(dtype) if x.dtype.kind == "f" else x) if hasattr(x, "dtype") else x for x in sample.args]
    for x in args:
        if isinstance(x, tg.Tensor) and x.dtype.kind == "f":
            x.requires_grad = True
    y = function(*args, **sample.options)
    wrt = [x for x in args if isinstance(x, tg.Tensor) and x.requires_grad]
    results = [y]
    if y.requires_grad:
        g = tg.tensor(np.linspace(0.5, 1.5, y.size).reshape(y.shape).astype(y.dtype), backend=y.backend)
        first = tg.pullback(y, wrt, g, create_graph=True)
        bent = [(d * d).sum() for d in first if d.requires_grad]
        results += [*first, *(d for total in bent for d in tg.pullback(total, wrt))]
    if name != "transfer":
        assert {type(t._array) for t in results} <= set(backend_of(wrt[0]._array if wrt else y._array).types)
    return [t.numpy() for t in results]


OWN_KERNELS = {"softmax_cross_entropy", "cross_entropy_slope"} | {name for name, op in PRIMITIVES.items() if op.vjp}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "sample"), CASES)
def test_values_and_gradients_are_those_of_numpy(gpu: str, name: str, sample: Sample, dtype: type) -> None:
    expected = run(name, sample.on("numpy"), dtype)
    with np.errstate(all="ignore"):
        found = run(name, sample.on(gpu), dtype)
    for have, want in zip(found, expected, strict=True):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        if gpu == "fakecupy" and name not in OWN_KERNELS:
            np.testing.assert_array_equal(have, want)
        else:
            tolerance = 1e-4 if dtype is np.float32 else 1e-12
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


COMPOSED = {
    "prod": lambda x: tg.prod(x, axis=(0, 2)),
    "var": lambda x: tg.var(x, axis=1, correction=1),
    "take": lambda x: tg.take(x, [2, 0, 2], axis=1),
    "take all": lambda x: tg.take(x, np.array([[59, 0], [7, 7]])),
    "take_along_axis": lambda x: tg.take_along_axis(x, tg.argmax(x, axis=2, keepdims=True), 2),
    "diagonal": lambda x: tg.diagonal(x, 1, 2, 0),
    "einsum": lambda x: tg.einsum("tnh,tmh,h->nm", x, x * 2, x[0, 0]),
    "einsum of a diagonal": lambda x: tg.einsum("...ii->...i", x[:3, :, :3]),
    "outer": lambda x: tg.outer(x[0], x[:, 1, 1]),
    "dot": lambda x: tg.dot(x, x[1, 0]) + tg.dot(x[0, 0, 0], x[0, 0, 1]),
    "split": lambda x: tg.concatenate(tg.split(x, [1, 2], axis=2)[::-1], axis=2),
    "unstack": lambda x: tg.stack(tg.unstack(x, 1)[::-1], axis=-1),
    "tile": lambda x: tg.tile(x, (2, 1, 3)),
    "repeat": lambda x: tg.repeat(x, 2, axis=1),
    "ravel": lambda x: tg.ravel(x.T) * 2,
    "mask": lambda x: x[x > 0.1],
    "where": lambda x: tg.where(x > 0, x * x, -x),
    "checkpoint": lambda x: tg.checkpoint(lambda x: tg.tanh(x * 3) * x, x),
    "jacobian": lambda x: tg.jacobian(lambda v: tg.softmax(v * v))(x[0, 0]),
    "hessian": lambda x: tg.hessian(lambda v: tg.logsumexp(v * v))(x[0, 0]),
    "jvp": lambda x: tg.jvp(lambda v: tg.tanh(v) * v, [x], [x * 0.5])[1],
    "hvp": lambda x: tg.hvp(lambda v: (tg.exp(v) * v).sum(), x, x * 0.5),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_what_is_composed_of_them_gives_the_same_too(gpu: str, name: str) -> None:
    data = np.random.default_rng(5).standard_normal((4, 3, 5))
    found = {}
    for backend in ("numpy", gpu):
        x = tg.tensor(data, requires_grad=True, backend=backend)
        y = COMPOSED[name](x)
        assert y.backend == backend
        found[backend] = [y, *tg.pullback((y * y).sum(), [x])]
    for want, have in zip(found["numpy"], found[gpu], strict=True):
        if gpu == "fakecupy":
            np.testing.assert_array_equal(have.numpy(), want.numpy())
        else:
            np.testing.assert_allclose(have.numpy(), want.numpy(), rtol=1e-12, atol=1e-12)


WRONG = {
    "a keyword of NumPy's": (lambda xp, x: xp.sum(x, where=x > 0), TypeError),
    "a function that CuPy lacks": (lambda xp, x: xp.unstack(x), AttributeError),
    "a detour over the host": (lambda xp, x: np.tanh(np.asarray(x)), TypeError),
    "an array of NumPy's": (lambda xp, x: x * np.ones(3), TypeError),
    "a number as an index": (lambda xp, x: range(x.shape[0])[xp.argmax(x)], TypeError),
    "a branch on a value": (lambda xp, x: x if (x > 0).all() else -x, ReadBack),
    "a scale from a value": (lambda xp, x: x / float(xp.max(x)), ReadBack),
    "a mask": (lambda xp, x: xp.sum(x[x > 0]), ReadBack),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_a_gpu_would_refuse_or_wait_for_is_caught(name: str) -> None:
    kernel, error = WRONG[name]
    x = fakecupy.arange(3.0)
    kernel(np, np.arange(3.0))  # NumPy has no objection
    with pytest.raises(error), no_reads("fakecupy"):
        kernel(resolve("fakecupy")[0].xp, x)


READS_A_MASK = {"index", "scatter"}  # how many elements a mask picks, only the device knows


@pytest.mark.parametrize(("name", "sample"), [case for case in CASES if case.values[0] != "transfer"])
def test_nothing_is_read_back_from_the_device(name: str, sample: Sample) -> None:
    moved = sample.on("fakecupy")
    with fakecupy.counting() as count, tg.use_backend("fakecupy"):
        args = [tg.Tensor(x, requires_grad=x.dtype.kind == "f") if hasattr(x, "dtype") else x for x in moved.args]
        y = PRIMITIVES[name].function(*args, **moved.options)
        if y.requires_grad:
            y.backward(tg.Tensor(fakecupy.ones(y.shape, y.dtype)))
    key = sample.options.get("key")
    masked = any(getattr(part, "dtype", None) == np.bool for part in (key if isinstance(key, tuple) else (key,)))
    assert count["d2h"] == 0 or (masked and name in READS_A_MASK)
    assert count["h2d"] == 0
