"""Kernels for a GPU: bodies in CUDA, compiled when they are first used, and the functions that launch them."""

from .loader import Kernels

__all__ = ["Kernels"]
