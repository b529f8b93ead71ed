"""Schedules: a learning rate that changes as training goes on.

Call `schedule.step()` once after each `optimizer.step()` (or each epoch): it counts, and sets `optimizer.lr`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from ..core.tensor import Tensor
from ..errors import CheckpointError, OptionError
from .optimizer import Optimizer, number


class Schedule:
    """The base: the rate as a function of the number of steps so far.

    base_lr: the optimiser's rate when the schedule was made. count: how often `step()` ran.

    A schedule of your own: write `lr_at`.
    """

    _kept: tuple[str, ...] = ("base_lr", "count")
    """What decides the following rates, apart from the options given at the start."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.base_lr, self.count = optimizer, optimizer.lr, 0
        optimizer.lr = self.lr_at(0)

    def lr_at(self, count: int) -> float:
        """The learning rate after `count` steps."""
        raise NotImplementedError

    def step(self, loss: float | Tensor | None = None) -> None:
        """Count one step and set the optimiser's rate.

        loss: only ReduceLROnPlateau looks at it.
        """
        self.count += 1
        self.optimizer.lr = self.lr_at(self.count)

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values; the optimiser stores its rate itself."""
        return {"schedule": type(self).__name__} | {name: getattr(self, name) for name in self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called, at the rate of then.

        Raises: CheckpointError, if the state is not that of such a schedule; nothing is changed then.
        """
        if state.keys() != self.state_dict().keys() or state["schedule"] != type(self).__name__:
            raise CheckpointError(
                f"the state of a {type(self).__name__} has {', '.join(self.state_dict())}, but this one has "
                f"{', '.join(state)} of {state.get('schedule')}"
            )
        for name in self._kept:
            setattr(self, name, state[name])
        self.optimizer.lr = self.lr_at(self.count)


class StepLR(Schedule):
    """The rate times gamma, above 0 and at most 1, after every `step_size` steps.

    Raises: OptionError for an option out of its range.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, *, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = _steps("step_size", step_size), number("gamma", gamma)
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return self.base_lr * self.gamma ** (count // self.step_size)


class ExponentialLR(Schedule):
    """The rate times gamma, above 0 and at most 1, after every step.

    Raises: OptionError for a gamma out of its range.
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = number("gamma", gamma)
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return self.base_lr * self.gamma**count


class CosineLR(Schedule):
    """Half a cosine wave from the base rate down to `lr_min` (0 to the base rate) in `steps` steps, where it stays.

    Loshchilov and Hutter 2017 (SGDR, equation 5), without restarts; PyTorch's goes up again past the end.

    Raises: OptionError for an option out of its range.
    """

    def __init__(self, optimizer: Optimizer, steps: int, *, lr_min: float = 0.0) -> None:
        self.steps, self.lr_min = _steps("steps", steps), number("lr_min", lr_min)
        if self.lr_min > optimizer.lr:
            raise OptionError(f"lr_min must lie between 0 and the optimiser's lr, {optimizer.lr}, not at {lr_min}")
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        wave = math.cos(math.pi * min(count, self.steps) / self.steps)
        return self.lr_min + (self.base_lr - self.lr_min) * (1 + wave) / 2


class WarmupLR(Schedule):
    """A straight line from start_factor (0 to 1) times the base rate up to the base rate in `steps` steps.

    Goyal et al. 2017 (Accurate, large minibatch SGD: training ImageNet in 1 hour, section 2.2), counted in steps.

    then: the schedule that takes over there, made for the same optimiser just before; its `step()` is not called by
        anybody else. None keeps the base rate.

    Raises: OptionError for an option out of its range, or a schedule that cannot take over.
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, *, start_factor: float = 1 / 3, then: Schedule | None = None
    ) -> None:
        self.steps, self.start_factor, self.then = _steps("steps", steps), number("start_factor", start_factor), then
        if then and (then.optimizer is not optimizer or isinstance(then, ReduceLROnPlateau)):
            raise OptionError("then= takes a schedule of the same optimiser, other than ReduceLROnPlateau")
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        if count < self.steps:
            return self.base_lr * (self.start_factor + (1 - self.start_factor) * count / self.steps)
        return self.then.lr_at(count - self.steps) if self.then else self.base_lr

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | ({"then": self.then.state_dict()} if self.then else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.then and "then" in state:
            self.then.load_state_dict(state["then"])
        super().load_state_dict(state)


class ReduceLROnPlateau(Schedule):
    """The rate times `factor` whenever the loss has not got better for more than `patience` steps.

    mode: "min" where smaller is better, "max" for an accuracy.
    threshold: what counts as better: by this share of the best so far ("rel"), or by this much ("abs").
    cooldown: for so many steps after a change, nothing is held against the loss.
    lr_min: the rate goes no lower.

    `step(loss)` needs the loss as a number; a Tensor on a GPU is waited for.

    Raises: OptionError for another mode, or an option out of its range.
    """

    _kept = ("base_lr", "count", "best", "bad_steps", "resting", "cuts")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        lr_min: float = 0.0,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise OptionError(
                f'mode is "min" or "max" and threshold_mode "rel" or "abs", not {mode!r} and {threshold_mode!r}'
            )
        self.sign = 1 if mode == "min" else -1
        self.relative, self.threshold = threshold_mode == "rel", number("threshold", threshold)
        self.factor, self.lr_min = number("factor", factor), number("lr_min", lr_min)
        self.patience, self.cooldown = int(number("patience", patience)), int(number("cooldown", cooldown))
        self.best: float | None = None
        self.bad_steps = self.resting = self.cuts = 0
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return min(self.base_lr, max(self.base_lr * self.factor**self.cuts, self.lr_min))

    def step(self, loss: float | Tensor | None = None) -> None:
        """Count one step, look at the loss, and set the optimiser's rate.

        Raises: OptionError without a loss.
        """
        if loss is None:
            raise OptionError("ReduceLROnPlateau looks at the loss: call step(loss)")
        value = float(loss)
        if self._better(value):
            self.best, self.bad_steps = value, 0
        else:
            self.bad_steps += 1
        if self.resting:
            self.resting, self.bad_steps = self.resting - 1, 0
        if self.bad_steps > self.patience:
            self.cuts, self.resting, self.bad_steps = self.cuts + 1, self.cooldown, 0
        super().step()

    def _better(self, value: float) -> bool:
        if self.best is None:
            return math.isfinite(value)
        margin = self.sign * self.threshold
        bound = self.best * (1 - margin) if self.relative else self.best - margin
        return self.sign * value < self.sign * bound


def _steps(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise OptionError(f"{name} is a number of steps, at least 1, not {value!r}")
    return value
