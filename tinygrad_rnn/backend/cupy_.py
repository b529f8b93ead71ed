"""The CuPy backend: imports CuPy only when somebody asks for it, tries it out, and says precisely what is missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import BackendError, BackendUnavailable, DtypeError
from .base import Array, Backend, BackendStatus, Namespace
from .kernels import Kernels, cublas

OLDEST = 14  # the first version whose Python numbers take the dtype of the array beside them, as NumPy's do


class CupyBackend(Backend):
    """Arrays on NVIDIA GPUs. "cupy" is GPU 0, "cupy:1" the next one; what is computed lies on the current GPU.

    cupy: the module, or one with its names. erf: the error function of its arrays, which CuPy keeps elsewhere.
    fused: the kernels, or None to go without.
    """

    def __init__(
        self, cupy: Any, erf: Callable[[Array], Array], name: str = "cupy", fused: Kernels | None = None
    ) -> None:  # fmt: skip
        self.name, self._cupy = name, cupy
        self.xp = Namespace(
            cupy,
            dict(fused.training) if fused else {},
            fused,
            erf=erf,
            add_at=partial(_add_at, cupy.add.at),
            **{name: _with_scalars(getattr(cupy, name)) for name in AXIS_OF_A_SCALAR},
        )
        self.types = (cupy.ndarray,)
        self._count = cupy.cuda.runtime.getDeviceCount()

    def asarray(self, data: Any, dtype: DTypeLike | None = None, device: int | None = None) -> Array:
        with self.on(device):
            if type(data) in self.types and data.device.id != (device or 0):
                data = data.copy()  # onto the current GPU
            try:
                return self._cupy.array(data, dtype=dtype)
            except ValueError as error:
                raise DtypeError(f"{error}; {self.name} has bool, integers, float16 to float64 and complex") from None

    def to_host(self, array: Array) -> np.ndarray:
        host: np.ndarray = array.get()
        host.flags.writeable = False
        return host

    def name_of(self, array: Array) -> str:
        device = array.device.id
        return f"{self.name}:{device}" if device else self.name

    def on(self, device: int | None) -> AbstractContextManager[Any]:
        if device is not None and device >= self._count:
            last = f" to {self.name}:{self._count - 1}" if self._count > 1 else ""
            raise BackendUnavailable(
                f"there is no GPU {device}: CuPy sees {self._count}, called {self.name}:0{last}; "
                "CUDA_VISIBLE_DEVICES decides which ones it sees"
            )
        found: AbstractContextManager[Any] = self._cupy.cuda.Device(device or 0)
        return found

    def check_place(self, *arrays: Array) -> None:
        if self._count == 1:
            return
        here = self._cupy.cuda.Device().id
        for x in arrays:
            if type(x) in self.types and x.device.id != here:
                raise BackendError(
                    f"an operand lies on {self.name_of(x)}, but GPU {here} is the current one; "
                    f"compute inside `with tg.use_backend({self.name_of(x)!r})`, or move the operand with .to()"
                )

    def guarded(self, name: str, kernel: Callable[..., Array]) -> Callable[..., Array]:
        if self._count == 1 or name == "transfer":
            return kernel

        def checked(*args: Any, **options: Any) -> Array:
            self.check_place(*args)
            return kernel(*args, **options)

        return checked


AXIS_OF_A_SCALAR = ("sum", "max", "min", "cumsum", "argmax", "argmin")
"""What lets an array without axes have an axis 0 in NumPy, but not in CuPy."""


def _with_scalars(function: Callable[..., Array]) -> Callable[..., Array]:
    def run(x: Array, axis: Any = None, **options: Any) -> Array:
        if axis is not None and not x.ndim and axis in (0, -1, (0,), (-1,)):
            axis = None
        return function(x, axis=axis, **options)

    return run


def _add_at(at: Callable[..., None], total: Array, key: Any, g: Array) -> None:
    """total[key] += g where an element may be named twice; CuPy does not know how to for complex numbers."""
    if total.dtype.kind == "c":
        at(total.real, key, g.real)
        at(total.imag, key, g.imag)
    else:
        at(total, key, g)


def _erf(x: Array) -> Array:
    from cupyx.scipy.special import erf

    return erf(x)


def connect() -> CupyBackend:
    """The backend of the CuPy that is installed.

    Raises: BackendUnavailable, with the reason and the remedy.
    """
    backend, found = _tried()
    if backend is None:
        raise BackendUnavailable(f"the backend cupy cannot be used here: {found.detail}. {found.remedy}")
    return backend


def status() -> BackendStatus:
    """Whether CuPy works here, down to a first kernel; found out once per process (the driver can take seconds)."""
    return _tried()[1]


@cache
def _tried() -> tuple[CupyBackend | None, BackendStatus]:
    def unusable(reason: str, detail: str, remedy: str) -> tuple[None, BackendStatus]:
        return None, BackendStatus("cupy", False, detail, remedy, reason)

    try:
        import cupy
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return unusable(
                "not-installed", "CuPy is not installed",
                'Install it with: pip install "tinygrad_rnn[cuda13]" (or [cuda12]; nvidia-smi shows which CUDA version '
                "the driver can do)",
            )  # fmt: skip
        first = str(error).strip().partition("\n")[0]
        return unusable(
            "import-failed", f"CuPy is installed but cannot be imported: {type(error).__name__}: {first}",
            "Reinstall it, and see that only one cupy-cuda* package is there: pip list",
        )  # fmt: skip
    if int(cupy.__version__.partition(".")[0]) < OLDEST:
        return unusable(
            "too-old", f"CuPy {cupy.__version__} is older than {OLDEST}.0",
            'Upgrade it with: pip install --upgrade "tinygrad_rnn[cuda13]" (or [cuda12])',
        )  # fmt: skip
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        if "NoDevice" not in str(error):
            return unusable(
                "no-driver",
                "there is no NVIDIA driver, or one older than this CuPy needs (the driver reports "
                f"{runtime.driverGetVersion()}, CuPy was built for {runtime.runtimeGetVersion()}; {error})",
                "Install or upgrade the NVIDIA driver, or take a CuPy of an older CUDA: "
                'pip install "tinygrad_rnn[cuda12]"',
            )  # fmt: skip
        count = 0
    if count == 0:
        return unusable(
            "no-device", "the driver works but shows no GPU",
            "See whether CUDA_VISIBLE_DEVICES is empty, or a container was started without --gpus",
        )  # fmt: skip
    try:  # context, memory, compiler, cuBLAS
        x = cupy.arange(4, dtype="f").reshape(2, 2)
        total = float((x @ x + 1).sum())
        fused = Kernels(cupy, cublas.gemm_of(cupy)) if total == 26.0 else None
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        missing = "Failure finding" in str(error)
        built = runtime.runtimeGetVersion() // 1000
        return unusable(
            "first-kernel-failed", f"the first kernel failed: {type(error).__name__}: {first}",
            f'NVRTC or cuBLAS is missing; install them with: pip install "cupy-cuda{built}x[ctk]"' if missing
            else "See that the GPU is free and healthy with nvidia-smi, and that the driver is as new as CuPy",
        )  # fmt: skip
    if total != 26.0:
        return unusable(
            "wrong-result", f"the first kernel computed {total} in place of 26.0",
            "Do not trust this GPU: look at its error counters with nvidia-smi -q, and reinstall driver and CuPy",
        )  # fmt: skip
    gpu = runtime.getDeviceProperties(0)
    more = f" and {count - 1} more" if count > 1 else ""
    detail = (
        f"CuPy {cupy.__version__}, CUDA {_version(runtime.runtimeGetVersion())}, driver for CUDA "
        f"{_version(runtime.driverGetVersion())}, {gpu['name'].decode()} (compute capability "
        f"{gpu['major']}.{gpu['minor']}, {gpu['totalGlobalMem'] / 2**30:.1f} GiB){more}"
    )
    return CupyBackend(cupy, _erf, "cupy", fused), BackendStatus("cupy", True, detail)


def _version(number: int) -> str:
    """CUDA writes 13.2 as 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"
