"""What tests of interchange do with modules: give them numbers to compute with, and look at what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from golden.loops import filled


def with_numbers(module: Any, size: float = 0.5) -> Any:
    """The module with numbers up to about `size` in all its parameters, decided by their names; biases are not zero."""
    for name, parameter in module.named_parameters():
        parameter.assign_((size / 0.9 * filled(name, *parameter.shape)).astype(parameter.dtype))
    return module


def leaves(found: Any) -> list[np.ndarray]:
    """Results of a module as arrays in one list, however they are nested."""
    if isinstance(found, (tuple, list)):
        return [array for each in found for array in leaves(each)]
    return [found.numpy()]
