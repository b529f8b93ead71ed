"""Adam and AdamW: every weight gets a pace of its own, from running averages of its gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backend import Array
from ..errors import OptionError
from .optimizer import Job, Optimizer, Parameters, approach


class Adam(Optimizer):
    """p <- p - lr m' / (sqrt(v') + eps), where m and v average g and g^2 and the prime takes off their start at 0.

    Kingma and Ba 2015 (Adam: a method for stochastic optimization, algorithm 1):
    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, m' = m / (1 - b1^t), v' = v / (1 - b2^t), betas = (b1, b2).

    eps: keeps the quotient finite where v is 0, and bounds the pace of weights with tiny gradients.
    weight_decay: adds weight_decay * p to the gradient, so that it is divided by sqrt(v') as well; see AdamW.

    Raises: OptionError, as `Optimizer`, and for betas that are no pair.
    """

    betas: tuple[float, float]
    eps: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise OptionError(f"betas is a pair of numbers, such as (0.9, 0.999), not {betas!r}")
        slots = {"mean": 0.0, "square": 0.0}
        super().__init__(parameters, slots, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update_all(self, xp: Any, jobs: Sequence[Job]) -> Sequence[Array]:
        own = xp.kernels.get(f"{__name__}.next_values")
        if own is None or type(self).update is not Adam.update:
            return super().update_all(xp, jobs)
        _, ps, gs, buffers, ts = zip(*jobs)
        means, squares = ([each[slot] for each in buffers] for slot in ("mean", "square"))
        paces, roots = zip(*[self._pace(t) for t in ts])
        shrink, decay = (1 - self.lr * self.weight_decay, 0.0) if self.decoupled else (1.0, self.weight_decay)
        found = own(ps, gs, means, squares, paces, [self.eps * r for r in roots], self.betas, decay, shrink)
        return super().update_all(xp, jobs) if found is NotImplemented else found

    def _pace(self, t: int) -> tuple[float, float]:
        """lr m' / (sqrt(v') + eps) = pace m / (sqrt(v) + eps root): the pace and the root."""
        b1, b2 = self.betas
        root = math.sqrt(1 - b2**t)
        return self.lr * root / (1 - b1**t), root

    def update(self, xp: Any, p: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        mean, square, (b1, b2), (pace, root) = buffers["mean"], buffers["square"], self.betas, self._pace(t)
        new = xp.empty_like(p)
        approach(xp, mean, g, b1, new)
        approach(xp, square, xp.multiply(g, g, out=new), b2, new)
        xp.sqrt(square, out=new)
        xp.add(new, self.eps * root, out=new)
        xp.divide(mean, new, out=new)
        xp.multiply(new, -pace, out=new)
        return xp.add(p, new, out=new)


class AdamW(Adam):
    """Adam in which weight decay shrinks the weights themselves: first p <- (1 - lr weight_decay) p.

    Loshchilov and Hutter 2019 (Decoupled weight decay regularization, algorithm 2, with the decay times lr).
    Options and errors are those of Adam.
    """

    decoupled = True

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)
