"""The order lab: what the tape's order is worth, against recursion and against careless orders, on a user's own graph.

There is no second engine here: a walk in another order takes the engine's own steps, one node at a time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.autodiff import Part, pull
from ..core.broadcasting import fitted
from ..core.modes import changed
from ..core.tensor import Tensor
from ..errors import GraphError, ModifiedError
from ..see.ledger import Ledger, argument, ledger
from ..see.naming import names
from ..see.summary import host, summary
from ..see.tables import DIGITS
from ..see.unfolding import unfolded
from ..see.words import counted
from .sheet import Sheet, Table

LIMIT = 20_000
"""The most visits of a recursion that is run: a moment. More are counted."""
MOST = 2**20_000
"""Paths are counted up to here, as the digits of the counts themselves would fill the memory."""
ROWS = 24
"""Of a longer tape the first and last operations are shown."""


@dataclass(frozen=True, eq=False)
class Use:
    """What one use of x hands back to it.

    argument: which one of the node's x is. x: an input of the node. added: a bare array of its shape.
    """

    argument: str
    x: Tensor
    added: Any


def step(node: Tensor, g: Any) -> list[Use]:
    """One step of the engine: what a node makes of a gradient for itself, use by use. Nobody's `.grad` is touched.

    g: a bare array of the node's shape. Hooks on the node act, as in any pass.

    Raises: GraphError, if the graph was freed; ModifiedError, if a value was overwritten that the rule needs.
    """
    found: list[Use] = []
    at = -1

    def watch(rule: Callable[..., Any], g: Any, node: Tensor, x: Tensor | None) -> Any:
        nonlocal at
        d = rule(g, node)
        if x is None:
            return d
        at = next(i for i, each in enumerate(node.inputs or ()) if i > at and each is x and node.op.has_rule(i))  # type: ignore[union-attr]
        found.append(Use(argument(node, at), x, fitted(d.whole() if type(d) is Part else d, x)))
        return None  # it has gone to us, and no further

    inputs = [x for _, x in uses(node)]
    with changed(debug=False, recording=False), np.errstate(all="ignore"):
        pull([(node, g)], lambda *leaf: None, targets=inputs, since=node.age - 1, watch=watch)
    return found


def uses(node: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The inputs to which a node can pass a gradient, each with its place."""
    for i, x in enumerate(node.inputs or ()):
        if type(x) is Tensor and x.requires_grad and x.age < node.age and node.op and node.op.has_rule(i):
            yield i, x


# -- walks --------------------------------------------------------------------------------------------------------


def by_recursion(y: Tensor, seed: Any, *, whole: bool) -> dict[int, Any]:
    """Every path from y by itself, depth first: the gradients by age.

    whole: the mistake: at every arrival a node passes on all that it has so far, not what has arrived.
    """
    total: dict[int, Any] = {}
    waiting = [(y, seed)]  # a list in place of recursion, since deep graphs are deeper than Python's stack
    while waiting:
        x, arrived = waiting.pop()
        total[x.age] = _sum(total.get(x.age), arrived)
        if x.op is not None:
            waiting += [(use.x, use.added) for use in reversed(step(x, total[x.age] if whole else arrived))]
    return total


def first_come(y: Tensor, seed: Any) -> dict[int, Any]:
    """The mistake: breadth first, each node once, as soon as it is reached, with what it has by then."""
    total = {y.age: seed}
    waiting = deque([y])
    while waiting:
        node = waiting.popleft()
        if node.op is None:
            continue
        for use in step(node, total[node.age]):
            if use.x.age not in total:
                waiting.append(use.x)
            total[use.x.age] = _sum(total.get(use.x.age), use.added)
    return total


def _sum(before: Any, d: Any) -> Any:
    with np.errstate(all="ignore"):
        return d if before is None else before + d


def paths_to(tensors: Sequence[Tensor]) -> dict[int, int]:
    """By age, the number of paths from the first of a tape: as many as recursion makes visits. In linear time."""
    found = {tensors[0].age: 1}
    for node in tensors:
        for _, x in uses(node) if node.age in found else ():
            found[x.age] = min(found.get(x.age, 0) + found[node.age], MOST)
    return found


# -- what is shown ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Visited:
    """A tensor of the tape. op: "" for a leaf. uses: how often it was used. paths: as often does recursion come by."""

    name: str
    op: str
    uses: int
    paths: int


@dataclass(frozen=True, eq=False)
class LeafGradients:
    """The gradients of one leaf, NumPy arrays: by the engine, and in other orders; None where that was not run.

    engine: by age, the youngest first. recursion: path by path, which is right. first_come, passed_again: wrong,
    unless the graph is kind to them.
    """

    name: str
    engine: Any
    recursion: Any
    first_come: Any
    passed_again: Any

    def right(self, way: str) -> bool | None:
        """Whether the gradient of one of the ways is the engine's, up to rounding; None if it was not run."""
        found = getattr(self, way)
        if found is None:
            return None
        allowed = 1e4 * float(np.finfo(self.engine.dtype).eps)
        size = np.abs(self.engine[np.isfinite(self.engine)]).max(initial=0.0)
        return bool(np.allclose(found, self.engine, rtol=allowed, atol=allowed * size, equal_nan=True))


WAYS = {
    "engine": "by the tape",
    "recursion": "by recursion",
    "first_come": "wrong: first come",
    "passed_again": "wrong: passed again",
}
"""The orders, and what stands above their columns."""
MEANT = (
    "First come: breadth first, a tensor passes its gradient on as soon as it is reached, with what it has by then.",
    "Passed again: in recursion, a tensor passes on at every arrival all that it has, not what has arrived.",
)


class Order(Sheet):
    """What `order` found.

    visited: every tensor that a gradient goes to, youngest first. leaves: the gradients of each leaf.
    operations, edges, paths: how many there are. visits: what recursion needs. ran: whether it was run, or counted.
    """

    def __init__(self, visited: Sequence[Visited], leaves: Sequence[LeafGradients], edges: int, ran: bool) -> None:
        self.visited, self.leaves, self.edges, self.ran = tuple(visited), tuple(leaves), edges, ran
        self.operations = sum(bool(each.op) for each in visited)
        self.paths = min(sum(each.paths for each in visited if not each.op), MOST)
        self.visits = min(sum(each.paths for each in visited), MOST)
        nodes = counted(self.operations, "operation")
        title = f"{count_of(self.paths, 'path')}, {nodes}, {counted(edges, 'edge')}"
        super().__init__(title, [self._visits(), self._gradients()], self._said())

    def _visits(self) -> Table:
        rows = [[each.name, each.op or "leaf", str(each.uses), "1", count_of(each.paths)] for each in self.visited]
        if len(rows) > ROWS:
            rows = [*rows[: ROWS // 2], ["⋮"] * 5, *rows[-ROWS // 2 :]]
        return Table(["tensor", "made by", "uses", "visits by the tape", "visits by recursion"], rows)

    def _gradients(self) -> Table:
        rows = []
        for leaf in self.leaves:
            row = [leaf.name]
            for way in WAYS:
                mark = {True: "", False: " ✗", None: ""}[leaf.right(way)]
                found = getattr(leaf, way)
                row.append("not run" if found is None else f"{summary(found).words(DIGITS)}{mark}")
            rows.append(row)
        return Table(["gradient of", *WAYS.values()], rows)

    def _said(self) -> list[str]:
        saved = f"The tape visits each tensor once, {counted(len(self.visited), 'visit')} in all"
        made = "makes" if self.ran else "would make"
        said = [f"{saved}; recursion along every path {made} {count_of(self.visits, 'visit')}."]
        if not self.ran:
            said.append(f"Recursion was counted, not run: more than {LIMIT:,} visits take too long (limit=).")
        kind = [way for way in ("first_come", "passed_again") if all(leaf.right(way) for leaf in self.leaves)]
        if kind and self.leaves:
            which = " and ".join(f"({WAYS[way]})" for way in kind)
            said.append(f"This graph is kind to carelessness {which}: the numbers come out right. Others are not.")
        return [*said, *MEANT]


def count_of(count: int, noun: str = "") -> str:
    """A number in words, however large."""
    word = f" {noun}{'' if count == 1 else 's'}" if noun else ""
    if count >= MOST:
        return f"more than 10^{math.log10(MOST):,.0f}{word}"
    return f"{count:,}{word}" if count < 10**15 else f"about 10^{math.log10(count):,.0f}{word}"


def order(y: Tensor, grad: Any = None, *, expand: bool = False, limit: int = LIMIT) -> Order:
    """How the engine goes back from y, against recursion along every path and two careless orders, on this very graph.

    Nobody's `.grad` is touched; hooks act as in any pass, in each of the orders.

    grad: the gradient that comes in for y, of its shape; ones if left out.
    expand: unfold fused operations first. limit: a recursion of more visits than this is counted, not run.

    Raises: GraphError, if y has no graph, or it was freed; ModifiedError, if a value was overwritten since.
    """
    if not isinstance(y, Tensor):
        raise GraphError(f"order takes one Tensor, not {type(y).__name__}")
    if expand:
        y = unfolded([y])[0]
    book = ledger([y], grad)
    if lost := next(iter(book.lost.values()), ""):
        raise ModifiedError(lost)
    called, seed = names(book.tensors), book.seeds[y.age]
    paths = paths_to(book.tensors)
    reached = [t for t in book.tensors if t.age in paths]
    used = [x.age for node in reached for _, x in uses(node)]
    ran = sum(paths.values()) <= limit
    walks = _gradients(book, y, seed, ran)
    times = dict.fromkeys(paths, 0)
    for age in used:
        times[age] += 1
    return Order(
        [Visited(called[t.age], t.op.name if t.op else "", times[t.age], paths[t.age]) for t in reached],
        [
            LeafGradients(called[t.age], **{way: _there(walk, t) for way, walk in walks.items()})
            for t in reached
            if t.op is None
        ],
        len(used),
        ran,
    )


def _gradients(book: Ledger, y: Tensor, seed: Any, ran: bool) -> dict[str, dict[int, Any] | None]:
    """By the order, all gradients by age; None if it was not run."""
    return {
        "engine": book.gradients,
        "recursion": by_recursion(y, seed, whole=False) if ran else None,
        "first_come": first_come(y, seed),
        "passed_again": by_recursion(y, seed, whole=True) if ran else None,
    }


def _there(walk: dict[int, Any] | None, t: Tensor) -> Any:
    return None if walk is None else host(walk[t.age]) if t.age in walk else np.zeros(t.shape, t.dtype)
