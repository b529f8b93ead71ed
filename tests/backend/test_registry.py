"""Which backend is meant, by array, by name, by default; nothing ever falls back in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import fakecupy
import numpy as np
import pytest
from devices import no_traces

import tinygrad_rnn as tg
from tinygrad_rnn.backend import (
    BACKEND_OF,
    BACKENDS,
    Backend,
    Namespace,
    backend_of,
    cupy_,
    register,
    resolve,
    unregister,
)
from tinygrad_rnn.errors import BackendError, BackendUnavailable


def test_numpy_is_the_default() -> None:
    assert tg.zeros(2).backend == "numpy" and resolve() == (BACKENDS["numpy"], None)


def test_the_scalars_of_numpy_are_arrays_of_numpy() -> None:
    for scalar in (np.float32(1), np.float64(1), np.int64(1), np.bool(True), np.complex64(1), np.longlong(1)):
        assert backend_of(scalar).name == "numpy"


def test_use_backend_is_a_call_and_a_with() -> None:
    with tg.use_backend("fakecupy"):
        assert tg.zeros(2).backend == "fakecupy"
        with tg.use_backend("numpy"):
            assert tg.zeros(2).backend == "numpy"
        assert tg.randn(2).backend == "fakecupy"
    assert tg.zeros(2).backend == "numpy"
    chosen = tg.use_backend("fakecupy")
    assert tg.zeros(2).backend == "fakecupy"
    chosen.__exit__()
    assert tg.zeros(2).backend == "numpy"


def test_use_backend_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), tg.use_backend("fakecupy:1"):
        raise ZeroDivisionError
    assert tg.zeros(2).backend == "numpy" and fakecupy.Device().id == 0


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYGRAD_RNN_BACKEND", "fakecupy")
    assert tg.zeros(2).backend == "fakecupy"
    with tg.use_backend("numpy"):  # a call says more than the environment
        assert tg.zeros(2).backend == "numpy"
    monkeypatch.setenv("TINYGRAD_RNN_BACKEND", "")
    assert tg.zeros(2).backend == "numpy"


@pytest.mark.parametrize("name", ["tpu", "", "numpy:", "numpy:x", "fakecupy:-1", "fakecupy:1:2", "Numpy", "fakecupy:²"])
def test_unknown_names_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for action in (lambda: tg.use_backend(name), lambda: tg.zeros(2, backend=name), lambda: tg.zeros(2).to(name)):
        with pytest.raises(BackendUnavailable, match=r"no backend '.*'; the known ones are cupy, fakecupy, numpy"):
            action()
    if name:
        monkeypatch.setenv("TINYGRAD_RNN_BACKEND", name)
        with pytest.raises(BackendUnavailable, match="from the environment variable TINYGRAD_RNN_BACKEND"):
            tg.zeros(2)
    assert resolve("numpy")[0].name == "numpy"


def test_a_name_is_text() -> None:
    with pytest.raises(BackendUnavailable, match="there is no backend 3"):
        tg.zeros(2, backend=3)


def test_numpy_has_no_devices() -> None:
    for action in (lambda: tg.use_backend("numpy:0"), lambda: tg.zeros(2, backend="numpy:0")):
        with pytest.raises(BackendUnavailable, match="numpy has no devices to choose from; say 'numpy'"):
            action()


def test_a_gpu_that_is_not_there_gets_one_sentence() -> None:
    for action in (lambda: tg.use_backend("fakecupy:7"), lambda: tg.zeros(2, backend="fakecupy:7")):
        with pytest.raises(BackendUnavailable) as caught:
            action()
        assert str(caught.value) == (
            "there is no GPU 7: CuPy sees 2, called fakecupy:0 to fakecupy:1; "
            "CUDA_VISIBLE_DEVICES decides which ones it sees"
        )
    assert tg.zeros(2).backend == "numpy"


def test_threads_have_defaults_of_their_own() -> None:
    inside, go_on = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        seen.append(tg.zeros(2).backend)
        with tg.use_backend("fakecupy"):
            inside.set()
            go_on.wait(10)
            seen.append(tg.zeros(2).backend)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    seen.append(tg.zeros(2).backend)
    go_on.set()
    thread.join(10)
    assert seen == ["numpy", "numpy", "fakecupy"]


def test_operations_follow_their_data_not_the_default() -> None:
    x = tg.ones(2, backend="fakecupy")
    assert (x * 2).backend == (x @ x).backend == "fakecupy"
    with tg.use_backend("fakecupy"):
        assert (tg.ones(2, backend="numpy") * 2).backend == "numpy"


def test_a_list_beside_a_tensor_goes_where_the_tensor_lies() -> None:
    assert (tg.ones(2, backend="fakecupy") * [1.0, 2.0]).tolist() == [1.0, 2.0]


LEAVINGS = {
    "another default backend": lambda: tg.use_backend("fakecupy").__exit__,
    "another current GPU": lambda: tg.use_backend("fakecupy:1").__exit__,
    "another grad mode, debug mode or scope": lambda: entered(tg.no_grad()),
    "another set of backends": lambda: (register(NotedBackend()), lambda: unregister("noted"))[1],
}


def entered(context: AbstractContextManager[None]) -> Callable[[], Any]:
    context.__enter__()
    return lambda: context.__exit__(None, None, None)


@pytest.mark.parametrize("what", LEAVINGS)
def test_a_test_that_leaves_settings_behind_fails(what: str) -> None:
    undo: Callable[[], Any] = lambda: None  # noqa: E731
    try:
        with pytest.raises(AssertionError, match=f"left behind: .*{what}"), no_traces():
            undo = LEAVINGS[what]()
    finally:
        undo()


# -- several GPUs ------------------------------------------------------------------------------------------


def test_each_gpu_has_its_name() -> None:
    assert tg.ones(2, backend="fakecupy:0").backend == tg.ones(2, backend="fakecupy").backend == "fakecupy"
    x = tg.ones(2, backend="fakecupy:1")
    assert x.backend == "fakecupy:1" and x.numpy().tolist() == [1.0, 1.0]


def test_a_whole_step_runs_on_the_second_gpu() -> None:
    with tg.use_backend("fakecupy:1"):
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        assert x.grad.backend == "fakecupy:1" and x.grad.tolist() == [2.0, 4.0]
        x.assign_([3.0, 4.0])
        assert x.backend == "fakecupy:1" and x.tolist() == [3.0, 4.0]


def test_arrays_move_between_gpus() -> None:
    x = tg.tensor([1.0, 2.0], backend="fakecupy:1")
    y = x.to("fakecupy")
    assert y.backend == "fakecupy" and (y * 2).tolist() == [2.0, 4.0]
    assert y.to("fakecupy:1").backend == "fakecupy:1" and x.to("numpy").tolist() == [1.0, 2.0]


def test_whoever_computes_beside_the_current_gpu_is_told() -> None:
    x, y = tg.ones(2, backend="fakecupy:1"), tg.ones(2, backend="fakecupy")
    there = r"lies on fakecupy:1, but GPU 0 is the current one; .*use_backend\('fakecupy:1'\)"
    for action in (lambda: x * 2, lambda: y * x):
        with pytest.raises(BackendError, match=there):
            action()
    with tg.use_backend("fakecupy:1"), pytest.raises(BackendError, match="lies on fakecupy, but GPU 1 is the"):
        y + x


# -- a backend of one's own ---------------------------------------------------------------------------------


class Noted(np.ndarray):
    """An array type that stands for somebody's own."""


def noted(function: Callable[..., np.ndarray]) -> Callable[..., Noted]:
    return lambda *args, **keywords: function(*args, **keywords).view(Noted)


class NotedBackend(Backend):
    name = "noted"
    types = (Noted,)
    xp = Namespace(
        np, {"tanh": lambda x: np.tanh(x).view(Noted)},
        add_at=np.add.at, **{name: noted(getattr(np, name)) for name in ("array", "asarray", "zeros", "ones")},
    )  # fmt: skip

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)


def test_a_backend_of_ones_own_registers_computes_and_leaves() -> None:
    register(NotedBackend())
    try:
        x = tg.tensor([0.5, 1.0], backend="noted", requires_grad=True)
        tg.tanh(x).sum().backward()
        assert type(x.grad._array) is Noted and tg.backends()["noted"].usable
    finally:
        unregister("noted")
    assert "noted" not in BACKENDS and Noted not in BACKEND_OF


def test_an_array_of_nobody_is_refused() -> None:
    stranger = SimpleNamespace(shape=(2,))
    with pytest.raises(BackendError, match="SimpleNamespace is no array of a known backend"):
        backend_of(stranger)


# -- what is usable ------------------------------------------------------------------------------------------


def test_backends_says_what_is_usable() -> None:
    found = tg.backends()
    assert found["numpy"].usable and np.__version__ in str(found["numpy"])
    assert found["fakecupy"].usable
    assert found["cupy"].usable == (found["cupy"].reason == "ok") == (not found["cupy"].remedy)
    assert str(found["cupy"]).startswith("cupy: usable, " if found["cupy"].usable else "cupy: not usable, ")


def test_cupy_is_not_imported_before_somebody_asks() -> None:
    code = "import sys, tinygrad_rnn as tg; tg.zeros(2) + 1; assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_name_cupy_never_means_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect() -> None:
        raise BackendUnavailable("no GPU here")

    monkeypatch.setattr(cupy_, "connect", connect)
    monkeypatch.delitem(BACKENDS, "cupy", raising=False)
    monkeypatch.setenv("TINYGRAD_RNN_BACKEND", "cupy")
    x = tg.ones(2, backend="numpy")
    for action in (lambda: tg.zeros(2), lambda: tg.use_backend("cupy"), lambda: x.to("cupy:0")):
        with pytest.raises(BackendUnavailable, match="no GPU here"):
            action()


def test_the_environment_reaches_a_fresh_process() -> None:
    code = "import tinygrad_rnn as tg; tg.zeros(2)"
    there = {**os.environ, "TINYGRAD_RNN_BACKEND": "nowhere"}
    ran = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True)
    assert ran.returncode == 1 and "there is no backend 'nowhere' (from the environment variable" in ran.stderr


def test_neither_gradients_nor_weights_move_to_another_gpu_by_themselves() -> None:
    with tg.use_backend("fakecupy:1"):
        w = tg.tensor([2.0, 3.0], requires_grad=True)
        y, optimizer = (w * w).sum(), tg.optim.Adam([w], lr=0.1)
    for action in (y.backward, lambda: tg.pullback(y, [w]), lambda: w.assign_([1.0, 2.0])):
        with pytest.raises(BackendError, match="lies on fakecupy:1, but GPU 0 is the current one"):
            action()
    with tg.use_backend("fakecupy:1"):
        y.backward()
    with pytest.raises(BackendError, match="lies on fakecupy:1, but GPU 0 is the current one"):
        optimizer.step()
    assert w.backend == w.grad.backend == "fakecupy:1" and w.tolist() == [2.0, 3.0]


def test_tangents_and_indices_of_another_backend_are_refused(gpu: str) -> None:
    x = tg.tensor([1.0, 2.0], backend=gpu)
    with pytest.raises(BackendError, match=f"jvp.*{gpu}"):
        tg.jvp(lambda x: x * 2, [x], [tg.ones(2, backend="numpy")])
    assert tg.hvp(lambda x: (x * x * x).sum(), x, [1.0, 1.0]).backend == gpu
    with pytest.raises(BackendError, match=r"index.*\.to\("):
        x[tg.tensor([0, 1], backend="numpy")]
