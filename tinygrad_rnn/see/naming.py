"""What to call each tensor of a tape: its own name, made clear where it recurs, else v1, v2, ... in order of birth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..core.modes import Scope
from ..core.tensor import Tensor
from .words import printable


class _Home(NamedTuple):
    """Where something was computed: the steps of all loops around it, and the modules, the outermost first."""

    steps: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()


def names(tensors: Iterable[Tensor]) -> dict[int, str]:
    """By age, a name for every tensor of a tape: all different, each in one line of characters that can be seen.

    A tensor keeps its own name if no other has it. If one does, it gets as much as tells them apart: the time step, as
    in h[2], then the modules around it, as in cells.1.h[2], and if all that is the same too, a count, as in h[2]#2.
    What was made in no time step, such as x[2] before the step that reads it, counts as of that step where it helps.
    """
    ordered = sorted(tensors, key=lambda t: t.age)
    homes = _homes(ordered)
    nearest = homes | _readers(ordered, homes)
    groups: dict[str, list[Tensor]] = {}
    for t in ordered:
        if own := _own(t):
            groups.setdefault(own, []).append(t)
    marked: dict[int, str] = {}
    for own, group in groups.items():
        ages = [t.age for t in group]
        marked.update(zip(ages, _told_apart(own, [homes[age] for age in ages], [nearest[age] for age in ages])))
    found: dict[int, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for age, name in marked.items():
        unique = name
        while unique in taken:
            counts[name] = counts.get(name, 1) + 1
            unique = f"{name}#{counts[name]}"
        found[age] = unique
        taken.add(unique)
    number = 0
    for t in ordered:
        if t.age not in found:
            number += 1
            while f"v{number}" in taken:
                number += 1
            found[t.age] = f"v{number}"
    return found


def _own(t: Tensor) -> str:
    """The name that somebody gave to a tensor, as it can be shown; "" if there is none."""
    return "" if t.name is None else printable(str(t.name)).strip()


def _told_apart(own: str, *choices: Sequence[_Home]) -> list[str]:
    """The shortest marks for tensors of one name that leave as few of them alike as any marks would.

    choices: where the tensors are, in one or more ways of seeing it; the first is the best if it tells as much.
    """
    count, depth = len(choices[0]), max(len(home.modules) for homes in choices for home in homes)
    best: list[str] = []
    for homes in choices:
        for steps, modules in [(0, 0), (1, 0), *[(1, d) for d in range(1, min(depth, 3) + 1)], (-1, depth)]:
            marked = [_marked(own, home, steps, modules) for home in homes]
            if len(set(marked)) > len(set(best)):
                best = marked
            if len(set(best)) == count:
                return best
    return best


def _marked(own: str, home: _Home, steps: int, modules: int) -> str:
    """A name with the innermost of the modules in front, and the innermost step (or all of them: -1) behind."""
    around = home.modules[len(home.modules) - modules :] if modules else ()
    inside = home.steps[-1:] if steps == 1 else home.steps if steps else ()
    return ".".join([*around, own]) + (f"[{','.join(map(str, inside))}]" if inside else "")


def _homes(ordered: Sequence[Tensor]) -> dict[int, _Home]:
    """By age, where each tensor was made."""
    known: dict[Scope, _Home] = {}
    return {t.age: _home(t.scope, known) for t in ordered}


def _readers(ordered: Sequence[Tensor], homes: Mapping[int, _Home]) -> dict[int, _Home]:
    """By age, of what was made in no time step, where all that read it are, if that is in one step."""
    found: dict[int, _Home | None] = {}
    for t in ordered:
        for x in t.inputs or ():
            if type(x) is Tensor and x.age in homes and not homes[x.age].steps:
                found[x.age] = homes[t.age] if found.get(x.age, homes[t.age]) == homes[t.age] else None
    return {age: home for age, home in found.items() if home is not None and home.steps}


def _home(scope: Scope | None, known: dict[Scope, _Home]) -> _Home:
    chain: list[Scope] = []
    while scope is not None and scope not in known:
        chain.append(scope)
        scope = scope.parent
    home = known[scope] if scope is not None else _Home()
    for inner in reversed(chain):
        if inner.step is not None:
            home = _Home((*home.steps, int(inner.step)), home.modules)
        else:
            home = _Home(home.steps, (*home.modules, printable(str(inner.name))))
        known[inner] = home
    return home
