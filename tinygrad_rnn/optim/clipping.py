"""Clipping: keep one exploding gradient from undoing what a thousand steps have learned."""

from __future__ import annotations

import math
from typing import Any

from ..backend import NAMESPACE_OF, Array, backend_of
from ..core.tensor import Tensor, tensor
from ..errors import BackendError
from .optimizer import Parameters, named, number, renew


def clip_grad_norm_(parameters: Parameters | Tensor, max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Shorten all gradients by one common factor, so that their norm together is at most `max_norm`.

    Pascanu, Mikolov and Bengio 2013 (On the difficulty of training recurrent neural networks, algorithm 1).

    norm_type: the p of the norm (sum of |g|^p)^(1/p); `math.inf` is the largest |g|.
    Returns the norm as it was before, of no axes, where the gradients lie: on a GPU neither this nor the decision
    to clip waits for the device. A norm that is nan makes all gradients nan. Shapes and dtypes stay as they are.

    Raises: OptionError, if max_norm or norm_type is not above 0; BackendError for gradients on two backends.
    """
    max_norm, norm_type = number("max_norm", max_norm), number("norm_type", norm_type)
    gradients = _gradients(parameters)
    if not gradients:
        return tensor(0.0)
    homes = {g.backend: g for g in gradients}
    if len(homes) > 1:
        raise BackendError(f"gradients on {' and '.join(homes)} have no common norm; clip them apart")
    xp = NAMESPACE_OF[type(gradients[0]._array)]
    own = xp.kernels.get(f"{__name__}.clipped") if norm_type == 2 else None
    found = own([g._array for g in gradients], max_norm) if own else NotImplemented
    if found is not NotImplemented:
        for g, new in zip(gradients, found[0]):
            renew(g, new)
        return Tensor(found[1])
    total = _power_sum(xp, gradients[0]._array, norm_type)
    for g in gradients[1:]:
        part = _power_sum(xp, g._array, norm_type)
        total = xp.maximum(total, part) if norm_type == math.inf else total + part
    norm = total if norm_type == math.inf else xp.sqrt(total) if norm_type == 2 else total ** (1 / norm_type)
    scale = xp.minimum(max_norm / (norm + 1e-6), 1)
    for g in gradients:
        renew(g, xp.asarray(g._array * scale.astype(g.dtype, copy=False)))
    return Tensor(xp.asarray(norm))


def _power_sum(xp: Any, g: Array, power: float) -> Array:
    """The sum of |g|^p, or the largest |g| for p = inf, left on the device."""
    g = g.ravel()
    if power == 2:
        return xp.dot(g, g)
    return xp.max(xp.abs(g)) if power == math.inf else xp.sum(xp.abs(g) ** power)


def clip_grad_value_(parameters: Parameters | Tensor, clip_value: float) -> None:
    """Bring every element of every gradient into [-clip_value, clip_value]. Shapes and dtypes stay as they are.

    Raises: OptionError, if clip_value is negative.
    """
    clip_value = number("clip_value", clip_value)
    for g in _gradients(parameters):
        xp = backend_of(g._array).xp
        renew(g, xp.asarray(xp.clip(g._array, -clip_value, clip_value)))


def _gradients(parameters: Parameters | Tensor) -> list[Tensor]:
    return [p._grad for p in named(parameters).values() if p._grad is not None]
