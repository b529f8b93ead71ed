"""Products of matrices by cuBLAS, called past CuPy: at a fourth of its cost on the host, and within a CUDA graph.

CuPy refuses to have cuBLAS captured, and copies matrices whose rows lie apart. Here every matrix is as it lies.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import BackendError

LIBRARIES = ("libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll")
WORKSPACE = 32 * 2**20  # what cuBLAS recommends for Hopper; its own allocation would be refused while capturing


class Cublas:
    """`gemm` for arrays of CuPy; one handle for each thread and GPU. The library is found when it is first needed."""

    def __init__(self, cupy: Any) -> None:
        self.cupy, self._own = cupy, threading.local()

    @cached_property
    def library(self) -> Any:
        """cuBLAS, with the types of what is called."""
        cupy = self.cupy
        cupy.zeros((1, 1), np.float32) @ cupy.zeros((1, 1), np.float32)  # has the library loaded
        library = _library()
        for name in ("cublasSgemm_v2", "cublasDgemm_v2"):
            getattr(library, name).argtypes = [
                ctypes.c_void_p, *[ctypes.c_int] * 5, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
                ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
            ]  # fmt: skip
        return library

    @cached_property
    def forms(self) -> dict[Any, Any]:
        """By dtype: the function, and 0 and 1 where cuBLAS can point to."""
        return {
            np.dtype(np.float32): (self.library.cublasSgemm_v2, *_numbers(ctypes.c_float)),
            np.dtype(np.float64): (self.library.cublasDgemm_v2, *_numbers(ctypes.c_double)),
        }

    def handle(self) -> ctypes.c_void_p:
        """The handle of this thread for the current GPU, on CuPy's current stream."""
        device, stream = self.cupy.cuda.runtime.getDevice(), self.cupy.cuda.get_current_stream().ptr
        handles: dict[Any, Any] = self._own.__dict__
        if device not in handles:
            handle, room = ctypes.c_void_p(), self.cupy.empty(WORKSPACE, np.uint8)
            _check(self.library.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
            handles[device] = [handle, None, room]
        entry = handles[device]
        if entry[1] != stream:
            _check(self.library.cublasSetStream_v2(entry[0], ctypes.c_void_p(stream)), "cublasSetStream")
            room = ctypes.c_void_p(entry[2].data.ptr)  # a change of stream takes it away
            _check(self.library.cublasSetWorkspace_v2(entry[0], room, ctypes.c_size_t(WORKSPACE)), "cublasSetWorkspace")
            entry[1] = stream
        return entry[0]  # type: ignore[no-any-return]

    def gemm(self, a: Any, b: Any, out: Any, add: bool) -> None:
        """out (+)= a @ b, for matrices of which either rows or columns are contiguous; out: the rows."""
        (m, k), n = a.shape, b.shape[1]
        if not (m and n):
            return
        function, zero, one = self.forms[out.dtype]
        # cuBLAS counts by columns: what is asked for is the transpose, b^T a^T, of matrices that it sees transposed.
        (b_turned, b_row), (a_turned, a_row) = _form(b), _form(a)
        if not k:
            if not add:
                out[...] = 0
            return
        _check(
            function(self.handle(), b_turned, a_turned, n, m, k, one, b.data.ptr, b_row, a.data.ptr, a_row,
                     one if add else zero, out.data.ptr, _form(out)[1]), "cublasGemm",
        )  # fmt: skip


def _form(matrix: Any) -> tuple[int, int]:
    """Whether a matrix lies by columns (1) or by rows (0), and how many numbers lie between two of them."""
    size, (down, along) = matrix.itemsize, matrix.strides
    rows, columns = matrix.shape
    if along == size or columns == 1:
        return 0, max(down // size, columns) if rows > 1 else max(columns, 1)
    return 1, max(along // size, rows)


def _numbers(kind: Any) -> tuple[Any, Any]:
    """0 and 1 where cuBLAS can point to."""
    return tuple(ctypes.cast(ctypes.pointer(kind(value)), ctypes.c_void_p) for value in (0, 1))  # type: ignore


def _library() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)  # CuPy has loaded it: the name is enough
        except OSError:
            continue
    raise BackendError(f"Failure finding cuBLAS, which fused layers call by itself: none of {', '.join(LIBRARIES)}")


def _check(status: int, what: str) -> None:
    if status:
        raise BackendError(f"{what} failed with status {status}; see NVIDIA's list of cublasStatus_t")


def gemm_of(cupy: Any) -> Callable[[Any, Any, Any, bool], None]:
    """`gemm` for the arrays of a CuPy with a GPU."""
    found = Cublas(cupy)
    found.library  # noqa: B018 (found now, or said to be missing)
    return found.gemm
