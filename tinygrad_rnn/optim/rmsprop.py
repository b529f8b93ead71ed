"""RMSprop: the gradient over the root of a running mean of its square."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from .optimizer import Optimizer, Parameters, approach


class RMSprop(Optimizer):
    """p <- p - lr g / (sqrt(v) + eps), where v <- alpha v + (1 - alpha) g^2.

    Tieleman and Hinton 2012 (Neural networks for machine learning, lecture 6.5).

    alpha: how much of v each step keeps. eps: keeps the quotient finite where v is 0.
    momentum: steps along u <- momentum u + g / (sqrt(v) + eps) instead.
    centered: takes the variance, v - mean(g)^2, for v (Graves 2013, Generating sequences with recurrent neural
        networks, equations 38 to 45).
    weight_decay: adds weight_decay * p to the gradient.

    Raises: OptionError, as `Optimizer`.
    """

    alpha: float
    eps: float
    momentum: float
    centered: bool

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        wanted = {"square": True, "mean": centered, "velocity": momentum}
        super().__init__(
            parameters, {slot: 0.0 for slot, on in wanted.items() if on}, lr=lr, alpha=alpha, eps=eps,
            weight_decay=weight_decay, momentum=momentum, centered=centered,
        )  # fmt: skip

    def update(self, xp: Any, p: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        square, new = buffers["square"], xp.empty_like(p)
        approach(xp, square, xp.multiply(g, g, out=new), self.alpha, new)
        if self.centered:
            mean = buffers["mean"]
            approach(xp, mean, g, self.alpha, new)
            xp.multiply(mean, mean, out=new)
            square = xp.subtract(square, new, out=new)
        xp.sqrt(square, out=new)
        xp.add(new, self.eps, out=new)
        direction = xp.divide(g, new, out=new)
        if self.momentum:
            velocity = buffers["velocity"]
            xp.multiply(velocity, self.momentum, out=velocity)
            direction = xp.add(velocity, new, out=velocity)
        xp.multiply(direction, -self.lr, out=new)
        return xp.add(p, new, out=new)
