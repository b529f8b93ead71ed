"""Arrays: NumPy's or CuPy's, found by the type of the array."""

from .base import Array, Backend, BackendStatus, Namespace
from .registry import (
    BACKEND_OF,
    BACKENDS,
    NAMESPACE_OF,
    as_array,
    backend_of,
    backends,
    register,
    resolve,
    unregister,
    use_backend,
)

__all__ = [
    "BACKENDS",
    "BACKEND_OF",
    "NAMESPACE_OF",
    "Array",
    "Backend",
    "BackendStatus",
    "Namespace",
    "as_array",
    "backend_of",
    "backends",
    "register",
    "resolve",
    "unregister",
    "use_backend",
]
