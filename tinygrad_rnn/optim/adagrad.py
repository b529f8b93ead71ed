"""Adagrad: the gradient over the root of the sum of all its squares so far."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from .optimizer import Optimizer, Parameters


class Adagrad(Optimizer):
    """p <- p - lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps), where s <- s + g^2.

    Duchi, Hazan and Singer 2011 (Adaptive subgradient methods, JMLR 12, figure 1, with diagonal matrices).

    lr_decay: how fast the rate falls with t, the number of the step.
    initial_accumulator_value: what s starts from. eps: keeps the quotient finite where s is 0.
    weight_decay: adds weight_decay * p to the gradient.

    Raises: OptionError, as `Optimizer`.
    """

    lr_decay: float
    initial_accumulator_value: float
    eps: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        *,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            parameters, {"total": initial_accumulator_value}, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip

    def update(self, xp: Any, p: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        total, new = buffers["total"], xp.empty_like(p)
        xp.add(total, xp.multiply(g, g, out=new), out=total)
        xp.sqrt(total, out=new)
        xp.add(new, self.eps, out=new)
        xp.divide(g, new, out=new)
        xp.multiply(new, -self.lr / (1 + (t - 1) * self.lr_decay), out=new)
        return xp.add(p, new, out=new)
