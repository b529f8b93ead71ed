"""The table of primitives, and what is composed of them. Floor 2."""

from . import creation, elementwise, indexing, matmul, methods, reductions, shapes

__all__ = ["creation", "elementwise", "indexing", "matmul", "methods", "reductions", "shapes"]
