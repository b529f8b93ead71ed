"""Gradient descent, with or without momentum."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..errors import OptionError
from .optimizer import Optimizer, Parameters


class SGD(Optimizer):
    """p <- p - lr g; with momentum p <- p - lr v, where v <- momentum v + (1 - dampening) g (v starts as g).

    momentum: how much of v each step keeps (Polyak 1964, the heavy ball). dampening: how much of g is left out of it.
    nesterov: look ahead, p <- p - lr (g + momentum v), as in Sutskever et al. 2013 (On the importance of
        initialization and momentum in deep learning, section 2); needs momentum and no dampening.
    weight_decay: adds weight_decay * p to the gradient.

    Raises: OptionError, as `Optimizer`, and for nesterov without momentum or with dampening.
    """

    momentum: float
    dampening: float
    nesterov: bool

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        slots = {"velocity": 0.0} if momentum else {}
        super().__init__(
            parameters, slots, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov,
        )  # fmt: skip
        if nesterov and (not momentum or dampening):
            raise OptionError(f"nesterov needs momentum above 0 and dampening 0, not {momentum} and {dampening}")

    def update(self, xp: Any, p: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        new = xp.empty_like(p)
        if self.momentum:
            velocity = buffers["velocity"]
            if t == 1:
                velocity[...] = g
            else:
                xp.multiply(velocity, self.momentum, out=velocity)
                xp.add(velocity, xp.multiply(g, 1 - self.dampening, out=new), out=velocity)
            if self.nesterov:
                xp.multiply(velocity, self.momentum, out=new)
                g = xp.add(g, new, out=new)
            else:
                g = velocity
        xp.multiply(g, -self.lr, out=new)
        return xp.add(p, new, out=new)
