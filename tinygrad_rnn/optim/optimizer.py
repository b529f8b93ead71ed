"""What all optimisers share: the parameters, the loop over them, weight decay, and a state that can be stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..backend import NAMESPACE_OF, Array, as_array, backend_of
from ..core.tensor import Tensor, next_age
from ..errors import CheckpointError, OptionError

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Mapping[str, Tensor]

Range = tuple[str, Callable[[float], bool]]
POSITIVE: Range = ("above 0", lambda x: 0 < x < math.inf)
NOT_NEGATIVE: Range = ("at least 0", lambda x: 0 <= x < math.inf)
FRACTION: Range = ("at least 0 and below 1", lambda x: 0 <= x < 1)
SHRINKING: Range = ("above 0 and not above 1", lambda x: 0 < x <= 1)
RANGES: dict[str, Range] = {
    "lr": POSITIVE, "betas": FRACTION, "alpha": FRACTION,  # of optimisers
    "max_norm": ("above 0", lambda x: x > 0), "norm_type": ("above 0", lambda x: x > 0),  # of clipping; inf will do
    "clip_value": ("at least 0", lambda x: x >= 0),
    "gamma": SHRINKING, "factor": ("above 0 and below 1", lambda x: 0 < x < 1),  # of schedules
    "start_factor": ("at least 0 and not above 1", lambda x: 0 <= x <= 1),
}  # fmt: skip
FLAGS = ("nesterov", "centered")
"""Every option that is named in neither is a number that is NOT_NEGATIVE."""


class Job(NamedTuple):
    """What a step has to do for one parameter; see `Optimizer.update`."""

    parameter: Tensor
    array: Array
    g: Array
    buffers: dict[str, Array]
    t: int


class Optimizer:
    """Changes parameters a little at every `step()`, so that the loss whose `backward()` ran gets smaller.

    parameters: Tensors, or pairs (name, Tensor) as `Module.named_parameters()` gives them, or a dict; the names are
        those of the state, "0", "1", ... where there are none.
    lr: the learning rate, an attribute that schedules set.
    slots: the arrays that every parameter is accompanied by, with the number that fills them at the start.

    A subclass names its buffers in `slots` and says in `update` what a parameter becomes. A parameter whose gradient
    is None is left alone, and its count of steps stands still.

    Raises: OptionError, without parameters, for one that cannot learn or comes twice, for an option out of range.
    """

    decoupled = False
    """Whether weight decay shrinks the parameter itself (AdamW) or is added to its gradient (all others)."""

    lr: float
    weight_decay: float
    options: tuple[str, ...]
    slots: dict[str, float]

    def __init__(self, parameters: Parameters, slots: Mapping[str, float], **options: Any) -> None:
        self.options, self.slots = tuple(options), dict(slots)
        for name, value in options.items():
            setattr(self, name, _checked(name, value))
        self.parameters = named(parameters)
        for name, p in self.parameters.items():
            if p.op is not None or not p.requires_grad:
                raise OptionError(
                    f"parameter {name!r}, {p.label}, cannot learn: an optimiser takes leaves with requires_grad=True"
                )
        self.steps = dict.fromkeys(self.parameters, 0)
        self.buffers = {
            name: {slot: NAMESPACE_OF[type(p._array)].full_like(p._array, start) for slot, start in slots.items()}
            for name, p in self.parameters.items()
        }

    def update(self, xp: Any, p: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        """The parameter's next value, in a fresh array of its shape and dtype.

        p, g: its value and gradient, bare arrays that belong to others. t: the number of this step, from 1.
        buffers: its arrays by slot, changed in place.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Move every parameter that has a gradient. On a GPU nothing is read back.

        The parameter gets a new array: what was read from the old one stays as read, and a tape that still needs
        the old numbers raises ModifiedError.
        """
        jobs: dict[str, list[Job]] = {}
        for name, p in self.parameters.items():
            if p._grad is None:
                continue
            array, g, buffers, home = p._array, p._grad._array, self.buffers[name], backend_of(p._array)
            home.check_place(array)
            if any(type(buffer) is not type(array) for buffer in buffers.values()):  # the model has moved
                buffers = self.buffers[name] = {s: as_array(b, p.backend) for s, b in buffers.items()}
            self.steps[name] += 1
            jobs.setdefault(home.name, []).append(Job(p, array, g, buffers, self.steps[name]))
        for some in jobs.values():
            for job, new in zip(some, self.update_all(NAMESPACE_OF[type(some[0].array)], some)):
                renew(job.parameter, new)

    def update_all(self, xp: Any, jobs: Sequence[Job]) -> Sequence[Array]:
        """The next values of some parameters of one backend."""
        return [self._updated(xp, *job[1:]) for job in jobs]

    def _updated(self, xp: Any, array: Array, g: Array, buffers: dict[str, Array], t: int) -> Array:
        decay = self.weight_decay
        if decay and self.decoupled:
            array = array * (1 - self.lr * decay)
        elif decay:
            g = g + array * decay
        return self.update(xp, array, g, buffers, t)

    def zero_grad(self) -> None:
        """Forget all gradients: `.grad` becomes None."""
        for p in self.parameters.values():
            p._grad = None

    def state_dict(self) -> dict[str, Any]:
        """All that decides the next steps, as one flat dict of JSON values and (under "name.slot") NumPy arrays."""
        state: dict[str, Any] = {"algorithm": type(self).__name__}
        state |= {name: _plain(getattr(self, name)) for name in self.options}
        for name, count in self.steps.items():
            state[f"{name}.step"] = count
            for slot, buffer in self.buffers[name].items():
                state[f"{name}.{slot}"] = np.array(backend_of(buffer).to_host(buffer), order="C")
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called: what follows is bit-identical. Options come from the state too.

        Raises: CheckpointError, if the state is not that of such an optimiser over such parameters; nothing is
            changed then.
        """
        mine = self.state_dict()
        for name in sorted(mine.keys() ^ state.keys()):
            raise CheckpointError(
                f"the optimiser's state {'lacks' if name in mine else 'has the unknown'} {name!r}; it must come from "
                f"{type(self).__name__} over the same parameters"
            )
        if state["algorithm"] != mine["algorithm"]:
            raise CheckpointError(f"this is a state of {state['algorithm']}, not of {mine['algorithm']}")
        for name, old in mine.items():
            new = state[name]
            if form(new) != form(old):
                raise CheckpointError(f"the optimiser's state {name!r} must be {form(old)}, not {form(new)}")
        for name in self.options:
            setattr(self, name, tuple(state[name]) if isinstance(state[name], list) else state[name])
        for name, p in self.parameters.items():
            self.steps[name] = state[f"{name}.step"]
            self.buffers[name] = {slot: as_array(state[f"{name}.{slot}"], p.backend) for slot in self.slots}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)}" for name in self.options)
        return f"{type(self).__name__}({len(self.parameters)} parameters, {options})"


def named(parameters: Parameters | Tensor) -> dict[str, Tensor]:
    """Parameters by name, in whichever of the usual forms they come.

    Raises: OptionError for none at all, for something else than a Tensor, and for a name or a Tensor that comes twice.
    """
    given: Iterable[Any] = parameters.items() if isinstance(parameters, Mapping) else parameters
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for i, entry in enumerate([parameters] if isinstance(parameters, Tensor) else given):
        name, p = entry if isinstance(entry, tuple) and len(entry) == 2 else (str(i), entry)
        if not isinstance(p, Tensor):
            raise OptionError(f"parameter {name!r} is a {type(p).__name__}, not a Tensor; pass model.parameters()")
        if name in found or id(p) in seen:
            raise OptionError(f"parameter {name!r}, {p.label}, comes twice and would be changed twice")
        found[name] = p
        seen.add(id(p))
    if not found:
        raise OptionError("there are no parameters to change; was a generator passed that had been used up?")
    return found


def renew(tensor: Tensor, array: Array) -> None:
    """Give a tensor a new array without a copy, as `assign_` does with one: a tape that needs the old one notices."""
    tensor._array = array
    tensor.modified = next_age()


def approach(xp: Any, average: Array, target: Array, keep: float, scratch: Array) -> None:
    """average <- keep average + (1 - keep) target, in place; scratch may be the target.

    Not average + (1 - keep) (target - average): where little is kept, the difference has lost the target's digits.
    """
    xp.multiply(average, keep, out=average)
    xp.multiply(target, 1 - keep, out=scratch)
    xp.add(average, scratch, out=average)


def _checked(name: str, value: Any) -> Any:
    """An option as plain Python numbers, provided that they lie in its range."""
    if isinstance(value, (tuple, list)):
        return tuple([_checked(name, each) for each in value])
    if name in FLAGS:
        return bool(value)
    return number(name, value)


def number(name: str, value: Any) -> float:
    """An option as a Python float, provided that it lies in the range of its name.

    Raises: OptionError.
    """
    wanted, holds = RANGES.get(name, NOT_NEGATIVE)
    if isinstance(value, bool) or not isinstance(value, Real) or not holds(float(value)):
        raise OptionError(f"{name} must be a number {wanted}, not {value!r}")
    return float(value)


def _plain(value: Any) -> Any:
    """An option as JSON has it: lists instead of tuples."""
    return list(value) if isinstance(value, tuple) else value


def form(value: Any) -> str:
    """What a value of the state looks like, for comparing and for messages."""
    if isinstance(value, (np.ndarray, Tensor)):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"a list of {len(value)} numbers"
    return f"of type {type(value).__name__}"
