"""Which backend an array belongs to (one dictionary look-up on its type), and which one is the default."""

from __future__ import annotations

import os
from contextvars import ContextVar, Token
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import BackendError, BackendUnavailable, DtypeError, ShapeError
from . import cupy_
from .base import Array, Backend, BackendStatus, Namespace
from .numpy_ import NumpyBackend

BACKENDS: dict[str, Backend] = {}
BACKEND_OF: dict[type, Backend] = {}
NAMESPACE_OF: dict[type, Namespace] = {}

VARIABLE = "TINYGRAD_RNN_BACKEND"
_default: ContextVar[str | None] = ContextVar("tinygrad_rnn_backend", default=None)


def register(backend: Backend) -> Backend:
    """Make a backend known by its name and its array types; the last registration of a name wins."""
    BACKENDS[backend.name] = backend
    for array_type in backend.types:
        BACKEND_OF[array_type] = backend
        NAMESPACE_OF[array_type] = backend.xp
    return backend


def unregister(name: str) -> None:
    """Forget a backend, such as one that a test has made."""
    backend = BACKENDS.pop(name)
    for array_type in backend.types:
        del BACKEND_OF[array_type], NAMESPACE_OF[array_type]


def backend_of(array: Array) -> Backend:
    """The backend of a bare array.

    Raises: BackendError, if its type belongs to none.
    """
    found = BACKEND_OF.get(type(array))
    if found is None:
        raise BackendError(
            f"{type(array).__module__}.{type(array).__qualname__} is no array of a known backend "
            f"({', '.join(BACKENDS)}); make a tensor of it with tg.tensor(numpy.asarray(...))"
        )
    return found


def resolve(name: str | None = None) -> tuple[Backend, int | None]:
    """The backend and the device number behind a name such as "numpy", "cupy" or "cupy:1"; None is the default.

    Raises: BackendUnavailable, with the reason and what to install. There is no silent fall-back.
    """
    source = ""
    if name is None and (name := _default.get()) is None:
        name = os.environ.get(VARIABLE) or "numpy"
        source = f" (from the environment variable {VARIABLE})" if VARIABLE in os.environ else ""
    family, colon, device = str(name).partition(":")
    if family == "cupy" and family not in BACKENDS:
        register(cupy_.connect())
    if family not in BACKENDS or bool(colon) != device.isdecimal():
        known = ", ".join(sorted({*BACKENDS, "cupy"}))
        raise BackendUnavailable(
            f"there is no backend {name!r}{source}; the known ones are {known}, on a GPU with its number as in cupy:1"
        )
    return BACKENDS[family], int(device) if device else None


def as_array(data: Any, backend: str | None = None, dtype: DTypeLike | None = None) -> Array:
    """A fresh bare array of numbers, nested lists, an array or a Tensor.

    Floats in lists become float32, arrays keep their dtype. Host data goes to the named or the default backend, an
    array on a GPU stays there unless `backend` is given.

    Raises: DtypeError for what is not numbers; ShapeError for ragged lists; BackendUnavailable.
    """
    data = getattr(data, "_array", data)
    if type(data) not in BACKEND_OF:
        if isinstance(data, (list, tuple)) and any(hasattr(x, "_array") for x in data):
            raise DtypeError("a list of tensors would lose their graph: join them with tg.stack or tg.concatenate")
        if isinstance(data, np.ma.MaskedArray):
            raise DtypeError("a masked array would lose its mask: use .filled(value), or a mask and tg.where")
        has_dtype = hasattr(data, "dtype")
        try:
            data = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"the nested lists have rows of different lengths: {error}") from None
        if data.dtype == np.float64 and dtype is None and not has_dtype:
            data = data.astype(np.float32)
    if data.dtype.kind not in "biuf":
        raise DtypeError(f"a tensor holds real numbers, not dtype {data.dtype}")
    try:
        kind = np.dtype(dtype).kind if dtype is not None else "f"
    except TypeError as error:
        raise DtypeError(f"{dtype!r} is no dtype: {error}; float32, float64, int64 and bool are") from None
    if kind not in "biuf":
        raise DtypeError(f"a tensor holds real numbers, not dtype {np.dtype(dtype)}")
    if not data.dtype.isnative:  # of a machine of the other byte order, and nothing that computes takes it
        data = data.astype(data.dtype.newbyteorder("="))
    source = backend_of(data)
    if backend is None and source.name != "numpy":
        backend = source.name_of(data)
    target, device = resolve(backend)
    return target.asarray(data if source is target else source.to_host(data), dtype, device)


class use_backend:
    """Make a backend the default for new tensors: from here on as a call, or inside a `with`.

    name: "numpy", "cupy" or "cupy:1" (which also makes that GPU the current one).

    Raises: BackendUnavailable, with the reason and what to install.
    """

    def __init__(self, name: str) -> None:
        backend, device = resolve(name)
        self._device = backend.on(device)
        self._device.__enter__()
        self._token: Token[str | None] = _default.set(name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        _default.reset(self._token)
        self._device.__exit__(None, None, None)


def backends() -> dict[str, BackendStatus]:
    """Every backend by name and whether it can be used here; CuPy is tried out once, down to a first kernel.

    Each is `usable` or not; `detail` says which version it is, or what is missing, and `remedy` what to do; printed, it
    says all of it.
    """
    found = {"numpy": BackendStatus("numpy", True, f"NumPy {np.__version__}"), "cupy": cupy_.status()}
    others = {name: BackendStatus(name, True, "registered") for name in BACKENDS if name not in found}
    return {**found, **others}


register(NumpyBackend())
