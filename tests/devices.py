"""Which GPUs there are for tests, and two checks of a block of code: nothing is read back, nothing is left behind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import fakecupy
import shim

from tinygrad_rnn.backend import BACKENDS, cupy_, register, resolve
from tinygrad_rnn.backend.kernels import Kernels
from tinygrad_rnn.core.modes import current
from tinygrad_rnn.core.primitive import PRIMITIVES

GPU_REQUIRED = bool(os.environ.get("TINYGRAD_RNN_REQUIRE_GPU"))
GPU_BACKENDS = ["cupy"] if GPU_REQUIRED or cupy_.status().usable else []


def register_fake(kernels: bool = True) -> None:
    """The strict fake of CuPy as a backend of its own name; with our kernels, if there is a compiler for them."""
    fused = Kernels(fakecupy, fakecupy.gemm, threads=64) if kernels and not shim.available() else None
    register(cupy_.CupyBackend(fakecupy, fakecupy.special_erf, "fakecupy", fused))
    for op in PRIMITIVES.values():
        op.kernels.pop(fakecupy.ndarray, None)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Inside, the fake does everything in NumPy's arithmetic, to the last bit."""
    register_fake(kernels=False)
    try:
        yield
    finally:
        register_fake()


class ReadBack(AssertionError):
    """Something inside of `no_reads` copied numbers to the host or waited for the device."""


@contextmanager
def no_reads(backend: str) -> Iterator[None]:
    """Inside, nothing is copied from the GPU to the host, and nobody waits for it; on "numpy" there is nothing to see.

    Raises: ReadBack.
    """
    if backend == "cupy":
        import cupyx

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy deprecates the switch, which misses what others than CuPy do
            switch = cupyx.allow_synchronize(False)
            switch.__enter__()
        try:
            yield
        except cupyx.DeviceSynchronized as error:
            raise ReadBack("the host waited for the GPU") from error
        finally:
            switch.__exit__(None, None, None)
    else:
        with fakecupy.counting() as count:
            yield
        if count["d2h"] or count["syncs"]:
            raise ReadBack(f"{count['d2h']} copies to the host, {count['syncs']} waits for the device")


@contextmanager
def no_traces() -> Iterator[None]:
    """Afterwards the default backend, the mode, the scope, the set of backends and the current GPU are as before.

    Raises: AssertionError, which names what is not.
    """
    mode, home, known = current(), resolve(), set(BACKENDS)
    yield
    left = {
        "another default backend": resolve() != home,
        "another grad mode, debug mode or scope": current() is not mode,
        "another set of backends": set(BACKENDS) - {"cupy"} != known - {"cupy"},
        "another current GPU": fakecupy.Device().id != 0,
    }
    assert not any(left.values()), f"left behind: {', '.join(what for what, yes in left.items() if yes)}"
