"""CuPy that is absent, broken, old, or without driver, GPU or compiler: each its reason and remedy; arrays on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakecupy
import numpy as np
import pytest
from devices import GPU_REQUIRED
from pages import CELL, ROOT, blocks

import tinygrad_rnn as tg
from tinygrad_rnn.backend import cupy_, resolve
from tinygrad_rnn.backend.kernels import cublas
from tinygrad_rnn.errors import BackendError, BackendUnavailable, DtypeError, IndexOutOfRange


@pytest.fixture
def untried() -> Iterator[None]:
    """CuPy is tried out anew, and after the test once more."""
    cupy_._tried.cache_clear()
    yield
    cupy_._tried.cache_clear()


class StandIn:
    """The fake, with some of its names replaced."""

    def __init__(self, **replaced: Any) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(fakecupy, name)


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **keywords: Any) -> Any:
        raise error

    return fail


def with_runtime(**replaced: Any) -> StandIn:
    runtime = SimpleNamespace(**{**vars(fakecupy.cuda.runtime), **replaced})
    return StandIn(cuda=SimpleNamespace(Device=fakecupy.Device, runtime=runtime))


DRIVER = fakecupy.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
NO_GPU = fakecupy.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
NO_NVRTC = RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12"\nTried: everywhere')
CASES = {
    "not-installed": (None, "CuPy is not installed", 'pip install "tinygrad_rnn[cuda13]" (or [cuda12]'),
    "too-old": (StandIn(__version__="13.6.0"), "CuPy 13.6.0 is older than 14.0", "pip install --upgrade"),
    "no-driver": (
        with_runtime(getDeviceCount=failing(DRIVER), driverGetVersion=lambda: 0),
        "no NVIDIA driver, or one older than this CuPy needs (the driver reports 0, CuPy was built for 13020; cudaErr",
        "Install or upgrade the NVIDIA driver",
    ),
    "no-device": (with_runtime(getDeviceCount=failing(NO_GPU)), "driver works but shows no", "CUDA_VISIBLE_DEVICES"),
    "no-device of count 0": (with_runtime(getDeviceCount=lambda: 0), "the driver works but shows no GPU", "--gpus"),
    "first-kernel-failed for want of NVRTC": (
        StandIn(arange=failing(NO_NVRTC)), 'RuntimeError: Failure finding "libnvrtc', 'pip install "cupy-cuda13x[ctk]"'
    ),
    "first-kernel-failed": (
        StandIn(arange=failing(MemoryError("out of memory"))), "kernel failed: MemoryError: out of memory", "nvidia-smi"
    ),
    "wrong-result": (
        StandIn(arange=lambda n, dtype: fakecupy.ones(n, dtype)),
        "the first kernel computed 12.0 in place of 26.0", "Do not trust",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_and_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, detail, remedy = CASES[case]
    monkeypatch.setitem(sys.modules, "cupy", module)
    found = cupy_.status()
    assert not found.usable and found.reason == case.split(" ")[0]
    assert detail in found.detail and remedy in found.remedy
    assert "\n" not in found.detail + found.remedy
    with pytest.raises(BackendUnavailable) as caught:
        cupy_.connect()
    assert found.detail in str(caught.value) and found.remedy in str(caught.value)


@pytest.mark.usefixtures("untried")
def test_a_cupy_that_works_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    monkeypatch.setattr(cublas, "gemm_of", lambda cupy: None)  # the fake comes without the library
    found = cupy_.status()
    assert str(found) == (
        "cupy: usable, CuPy 14.2.0, CUDA 13.2, driver for CUDA 13.0, "
        "no GPU at all (compute capability 9.0, 8.0 GiB) and 1 more"
    )
    assert cupy_.connect() is cupy_.connect() and cupy_.connect().name == "cupy"


@pytest.mark.usefixtures("untried")
def test_cupy_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(sys.modules, "cupy", with_runtime(getDeviceCount=lambda: asked.append(1) or 0))
    assert cupy_.status() is cupy_.status() is tg.backends()["cupy"]
    assert len(asked) == 1


BROKEN = {
    "raise ImportError('libcublas.so.13: no\\nsuch file')": "ImportError: libcublas.so.13: no. Reinstall it",
    "import a_part_of_cupy": "ModuleNotFoundError: No module named 'a_part_of_cupy'. Reinstall it, and see",
    "raise RuntimeError": "RuntimeError",
}


@pytest.mark.parametrize("body", BROKEN)
def test_a_broken_cupy_is_told_from_an_absent_one(body: str, tmp_path: Path) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(body)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code = "from tinygrad_rnn.backend import resolve; resolve('cupy')"
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert "CuPy is installed but cannot be imported: " + BROKEN[body] in ran.stderr


# -- arrays on a GPU -------------------------------------------------------------------------------------------


def test_tensors_go_to_the_gpu_and_back(gpu: str) -> None:
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    t = tg.tensor(data)
    assert (t.backend, t.shape, t.dtype) == (gpu, (2, 3), np.float32)
    host = t.numpy()
    assert type(host) is np.ndarray and not host.flags.writeable
    np.testing.assert_array_equal(host, data)
    assert t.tolist() == data.tolist() and t.sum().item() == 15.0 and float(t.max()) == 5.0
    assert "backend='" + gpu in repr(t)


def test_dtypes_that_a_gpu_lacks_are_errors_of_ours(gpu: str) -> None:
    with pytest.raises(DtypeError, match=f"Unsupported dtype .*; {gpu} has bool, integers, float16 to float64"):
        tg.tensor(np.ones(2, np.longdouble))


def test_numpy_does_not_take_a_tensor_of_the_gpu_by_itself(gpu: str) -> None:
    t = tg.tensor([1.0, 2.0], name="h")
    for convert in (np.asarray, np.array, lambda t: np.asarray(t, np.float64)):
        with pytest.raises(BackendError, match=rf"h \(2,\) float32 lies on {gpu}; .*call \.numpy\(\)"):
            convert(t)
    host = tg.tensor([1.0, 2.0], backend="numpy")
    np.testing.assert_array_equal(np.asarray(host), [1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(host, np.float64), [1.0, 2.0])


def test_an_array_of_numpy_beside_a_tensor_reaches_the_tensor(backend: str) -> None:
    t, array = tg.tensor([1.0, 2.0]), np.array([3.0, 4.0], np.float32)
    if backend == "numpy":
        for result in (array * t, array + t, array / t, array**t, array @ t, array - t):
            assert isinstance(result, tg.Tensor)
        assert (array * t).tolist() == [3.0, 8.0] and (array < t).tolist() == [False, False]
    else:
        for action in (lambda: array * t, lambda: t * array, lambda: array @ t, lambda: array < t):
            with pytest.raises(BackendError, match=f"numpy, but .* on {backend}|{backend}, but .* on numpy"):
                action()


def test_arrays_of_two_backends_never_mix(gpu: str) -> None:
    h, W = tg.ones((2, 3), backend="numpy", name="h"), tg.ones((3, 4), name="W")
    with pytest.raises(BackendError) as caught:
        h @ W
    assert str(caught.value) == (
        f"matmul: a (h (2, 3) float32) lies on numpy, but b (W (3, 4) float32) on {gpu}; "
        "bring them together, as in b.to('numpy')"
    )
    actions = {
        "add": lambda: h + tg.ones(3),
        "where": lambda: tg.where(tg.tensor([True], backend="numpy"), h, tg.ones(3)),
        "concatenate": lambda: tg.concatenate([h, h, tg.ones((2, 3))]),
        "contract": lambda: tg.einsum("nh,hk->nk", h, W),
    }
    for name, action in actions.items():
        with pytest.raises(BackendError, match=rf"{name}: .* lies on numpy, but .* on {gpu}; bring them together"):
            action()


def test_a_bare_array_of_the_gpu_is_welcome(gpu: str) -> None:
    bare = tg.ones(3)._array
    assert tg.tensor(bare, backend=None).backend == gpu and (tg.ones(3) * bare).backend == gpu
    assert tg.tensor(bare)._array is not bare


def test_gradients_cross_from_one_backend_to_the_other(gpu: str) -> None:
    x = tg.tensor([1.0, 2.0, 3.0], backend="numpy", requires_grad=True)
    w = tg.tensor([2.0, 2.0, 5.0], requires_grad=True)
    y = ((x.to(gpu) * w).to("numpy") * x).sum()
    (gx, gw) = tg.pullback(y, [x, w], create_graph=True)
    assert (gx.backend, gw.backend, y.backend) == ("numpy", gpu, "numpy")
    assert gx.tolist() == [4.0, 8.0, 30.0] and gw.tolist() == [1.0, 4.0, 9.0]
    assert tg.pullback(gx.sum(), [x])[0].tolist() == [4.0, 4.0, 10.0]
    tangent = tg.jvp(lambda x: x.to(gpu) * w, [x.detach()], [tg.ones(3, backend="numpy")])[1]
    assert tangent.backend == gpu and tangent.tolist() == [2.0, 2.0, 5.0]
    assert x.to("numpy").tolist() == x.tolist()


@pytest.mark.parametrize(
    ("key", "axis", "bad"),
    [
        (lambda i: i, 0, 4), (lambda i: (slice(None), i), 1, 3), (lambda i: (..., i), 2, -6),
        (lambda i: (np.array([0, 1]), ..., i), 2, 5), (lambda i: (None, 1, i), 1, -4),
    ],
)  # fmt: skip
def test_an_index_out_of_range_is_caught_in_debug(backend: str, key: Any, axis: int, bad: int) -> None:
    x, inside = tg.tensor(np.ones((4, 3, 5)), name="table"), tg.tensor([0, 1])
    with tg.debug():
        assert x[key(inside)].size > 0
        with pytest.raises(IndexOutOfRange, match=f"index of table .*: index {bad} is out of range for axis {axis} of"):
            x[key(tg.tensor([0, bad]))]


def test_without_debug_nobody_waits_for_an_index(gpu: str) -> None:
    x, far = tg.tensor(np.arange(3.0)), tg.tensor([4])
    if gpu == "fakecupy":
        with fakecupy.counting() as count:
            x[far]
        assert count["syncs"] == 0
    assert x[far].tolist() == [1.0]  # wrapped around: that is why debug() looks


def test_a_scatter_of_complex_numbers_adds_both_parts(gpu: str) -> None:
    """Tensors hold real numbers only; but the complex step of a gradient check runs kernels on complex ones."""
    backend, _ = resolve(gpu)
    values, key = backend.asarray(np.array([1 + 1j, 2, 3j])), (backend.asarray(np.array([0, 2, 2])),)
    total = backend.xp.zeros((3,), np.complex128)
    backend.xp.add_at(total, key, values)
    np.testing.assert_allclose(backend.to_host(total), [1 + 1j, 0, 2 + 3j])


# -- is there a GPU? --------------------------------------------------------------------------------------------


def test_there_is_a_gpu() -> None:
    """Says in the report why nothing ran on a GPU; with TINYGRAD_RNN_REQUIRE_GPU=1 that is a failure."""
    found = cupy_.status()
    if not found.usable and not GPU_REQUIRED:
        pytest.skip(f"nothing ran on a GPU: {found}")
    assert found.usable, str(found)


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU too, where there is one; the site runs it without."""
    cells = [block.text for block in blocks((ROOT / "docs" / "gpu.md").read_text("utf-8")) if block.language == CELL]
    namespace: dict[str, Any] = {}
    for cell in cells[:2]:
        exec(cell, namespace)
    assert capsys.readouterr().out.splitlines()[-1] == "[3. 8.]"


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("first-kernel-failed", "wrong-result")])
def test_the_docs_know_the_usual_reasons(case: str) -> None:
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    assert CASES[case][1].partition(" (")[0].removeprefix("RuntimeError: ") in page
