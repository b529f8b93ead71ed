"""What is shown of a computation: which modules are open, which time steps are left out, and which are drawn as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from numbers import Integral
from typing import Any

from ..core.tensor import Tensor
from ..errors import OptionError
from .graph import Group

Collapse = str | bool | Collection[str] | Callable[[Group], bool]
Steps = str | int | slice | Collection[int]
ENDS = 2
"""How many time steps are shown at either end where some are left out."""
LONG = 6
"""Up to this many time steps, all are shown."""
READABLE = 120
"""With more operations than this in open steps, only the first step of each loop stays open by itself."""


@dataclass(frozen=True)
class View:
    """The choices of whoever looks; `draw` says what they mean."""

    depth: int | None = None
    collapse: Collapse = "auto"
    steps: Steps = "auto"
    roll: bool = False

    def __post_init__(self) -> None:
        if self.depth is not None and not _counts(self.depth):
            raise OptionError(f"depth is how many modules deep a picture goes, 0 or more, not {self.depth!r}")
        names = isinstance(self.collapse, Collection) and all(isinstance(name, str) for name in self.collapse)
        if not (isinstance(self.collapse, bool) or callable(self.collapse) or names) or (
            isinstance(self.collapse, str) and self.collapse != "auto"
        ):
            raise OptionError(f"collapse is 'auto', True, False, a list of names or a function, not {self.collapse!r}")
        numbers = isinstance(self.steps, Collection) and all(_counts(n) for n in self.steps)
        if not (_counts(self.steps) or isinstance(self.steps, slice) or numbers or self.steps in ("auto", "all")):
            raise OptionError(f"steps is 'auto', 'all', a number, a slice or a list of numbers, not {self.steps!r}")
        if not isinstance(self.roll, bool):
            raise OptionError(f"roll is True or False, not {self.roll!r}")

    def closes(self, group: Group, depth: int) -> bool:
        """Whether a group is one box because somebody said so; depth: how many groups are around it."""
        if self.depth is not None and depth >= self.depth:
            return True
        if isinstance(self.collapse, (bool, str)):
            return self.collapse is True and group.step is None
        if callable(self.collapse):
            return bool(self.collapse(group))
        return not {group.name, group.kind, group.path}.isdisjoint(self.collapse)

    def keeps(self, steps: Sequence[int]) -> list[bool]:
        """Which of the time steps of a loop are shown."""
        count, chosen = len(steps), self.steps
        if chosen == "all" or (chosen == "auto" and (count <= LONG or self.roll)):
            return [True] * count
        if chosen == "auto":
            return [i < ENDS or i >= count - ENDS for i in range(count)]
        if _counts(chosen):
            return [i < int(chosen) for i in range(count)]  # type: ignore[arg-type]
        ordered = sorted(steps)
        wanted = set(ordered[chosen]) if isinstance(chosen, slice) else {int(n) for n in chosen}  # type: ignore[union-attr]
        return [step in wanted for step in steps]


def _counts(n: Any) -> bool:
    """Whether something is a whole number of at least 0."""
    return isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 0


@dataclass
class Box:
    """One or several groups drawn as one box; `groups` are the outermost ones of them."""

    id: str
    groups: list[Group]
    tensors: list[Tensor] = field(default_factory=list)


def boxes(groups: Sequence[Group], sizes: Mapping[str, int], view: View) -> dict[str, Box]:
    """The box of every group that is not open, by the group's id.

    sizes: how many operations stand directly in a group.
    """
    children: dict[str, list[Group]] = {}
    for group in groups:
        children.setdefault(group.parent, []).append(group)
    whole = dict(sizes)  # with everything inside
    for group in reversed(groups):
        whole[group.parent] = whole.get(group.parent, 0) + whole.get(group.id, 0)
    found: dict[str, Box] = {}
    waiting = [("", 0)]
    open_steps: list[tuple[Group, bool]] = []  # with whether it is the first of its loop
    while waiting:
        parent, depth = waiting.pop()
        siblings = children.get(parent, [])
        loop = [g for g in siblings if g.step is not None]
        kept = dict(zip((g.id for g in loop), view.keeps([g.step or 0 for g in loop])))
        for shown, run in groupby(siblings, key=partial(_is_shown, kept)):
            for group in run if shown else ():
                if view.closes(group, depth):
                    _close(found, [group], children)
                else:
                    waiting.append((group.id, depth + 1))
            if not shown:
                _close(found, list(run), children)
        shown_steps = [g for g in loop if g.id not in found]
        open_steps += [(g, g is shown_steps[0]) for g in shown_steps]
    by_itself = view.collapse == "auto" and view.steps == "auto" and not view.roll
    if by_itself and sum(whole[g.id] for g, _ in open_steps) > READABLE:
        for group, first in open_steps:
            if not first:
                _close(found, [group], children)
    return found


def _is_shown(kept: Mapping[str, bool], group: Group) -> bool:
    return kept.get(group.id, True)


def _close(found: dict[str, Box], run: list[Group], children: Mapping[str, list[Group]]) -> None:
    """Put groups, and all that is inside of them, into one box."""
    box = Box(f"b{run[0].id[1:]}" + (f"_{run[-1].id[1:]}" if len(run) > 1 else ""), run)
    waiting = list(run)
    while waiting:
        group = waiting.pop()
        found[group.id] = box
        waiting += children.get(group.id, [])


def rolled(steps: Iterable[Sequence[Tensor]]) -> dict[int, Tensor]:
    """For every tensor of a loop, by age, the one that stands for it: its counterpart in the first of equal steps.

    steps: the operations of each time step, in order. Steps are equal if they do the same operations in the same order;
    what feeds them one by one (such as the x of each step) has counterparts too.
    """
    found: dict[int, Tensor] = {}
    for _, run in groupby(steps, lambda step: tuple(_signature(t) for t in step)):
        first, *others = run
        for step in others:
            found |= {t.age: model for t, model in zip(step, first)}
            for t, model in zip(step, first):
                for x, other in zip(t.inputs or (), model.inputs or ()):
                    if _same_kind(x, other):
                        found.setdefault(x.age, other)
    return found


def _signature(t: Tensor) -> tuple[Any, ...]:
    assert t.op is not None
    return (t.op.name, t.shape, str(t.dtype), len(t.inputs or ()), t.name)


def _same_kind(x: Any, other: Any) -> bool:
    """Whether two values that enter equal steps at the same place are one each, as the x of a step, not one for all."""
    return (
        isinstance(x, Tensor) and isinstance(other, Tensor) and x is not other and x.op is None and other.op is None
        and not x.requires_grad and x.shape == other.shape and x.name == other.name
    )  # fmt: skip
