"""Arrays: NumPy's or CuPy's, found by the type of the array. Floor 0: knows nothing of tensors."""

from .base import Array, Backend, Namespace
from .registry import (
    BACKEND_OF,
    NAMESPACE_OF,
    BackendStatus,
    backend_of,
    backends,
    register,
    resolve,
    unregister,
    use_backend,
)

__all__ = [
    "BACKEND_OF",
    "NAMESPACE_OF",
    "Array",
    "Backend",
    "BackendStatus",
    "Namespace",
    "backend_of",
    "backends",
    "register",
    "resolve",
    "unregister",
    "use_backend",
]
