"""The order lab: what the tape's order is worth, against recursion and against careless orders, on a user's own graph.

There is no second engine here: a walk in another order takes the engine's own steps, one node at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..errors import GraphError, ModifiedError
from ..see.ledger import ledger, step, uses
from ..see.naming import names
from ..see.summary import host, summary
from ..see.tables import DIGITS
from ..see.unfolding import unfolded
from ..see.words import counted, grouped
from .sheet import Sheet, Table

LIMIT = 20_000
"""The most visits of a recursion that is run: a moment. More are counted."""
ROWS = 24
"""Of a longer tape the first and last operations are shown."""
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


# -- walks --------------------------------------------------------------------------------------------------------


def by_recursion(y: Tensor, seed: Any, *, whole: bool = False) -> dict[int, Any]:
    """Every path from y by itself, depth first: the gradients by age.

    whole: the mistake: at every arrival a node passes on all that it has so far, not what has arrived.
    """
    total: dict[int, Any] = {}
    waiting = [(y, seed)]  # a list in place of recursion, since deep graphs are deeper than Python's stack
    while waiting:
        x, arrived = waiting.pop()
        total[x.age] = total[x.age] + arrived if x.age in total else arrived
        waiting += [(use.x, use.added) for use in reversed(step(x, total[x.age] if whole else arrived))]
    return total


def first_come(y: Tensor, seed: Any) -> dict[int, Any]:
    """The mistake: breadth first, each node once, as soon as it is reached, with what it has by then."""
    total = {y.age: seed}
    waiting = deque([y])
    while waiting:
        node = waiting.popleft()
        for use in step(node, total[node.age]):
            if use.x.age in total:
                total[use.x.age] = total[use.x.age] + use.added
            else:
                total[use.x.age] = use.added
                waiting.append(use.x)
    return total


def paths_to(tensors: Sequence[Tensor]) -> dict[int, int]:
    """By age, the number of paths from the first of a tape: as many as recursion makes visits. In linear time."""
    found = {tensors[0].age: 1}
    for node in tensors:
        for _, x in uses(node) if node.age in found else ():
            found[x.age] = found.get(x.age, 0) + found[node.age]
    return found


# -- what is shown ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Visited:
    """A tensor. op: "" for a leaf. uses: how often it was used. engine, paths: how often that and recursion come by."""

    name: str
    op: str
    uses: int
    engine: int
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
        size = summary(self.engine).largest
        return bool(np.allclose(found, self.engine, rtol=allowed, atol=allowed * size, equal_nan=True))

    def shown(self, way: str) -> str:
        """The gradient of one of the ways in a few words, with a mark if it is wrong."""
        if (found := getattr(self, way)) is None:
            return "not run"
        return summary(found).words(DIGITS) + ("" if self.right(way) else " ✗")


class Order(Sheet):
    """What `order` found.

    visited: every tensor that a gradient goes to, youngest first. leaves: the gradients of each leaf.
    operations, edges, paths: how many there are. visits: what recursion needs. ran: whether it was run, or counted.
    """

    def __init__(self, visited: Sequence[Visited], leaves: Sequence[LeafGradients], edges: int, ran: bool) -> None:
        self.visited, self.leaves, self.edges, self.ran = tuple(visited), tuple(leaves), edges, ran
        self.operations = sum(bool(each.op) for each in visited)
        self.paths = sum(each.paths for each in visited if not each.op)
        self.visits = sum(each.paths for each in visited)
        counts = (self.paths, "path"), (self.operations, "operation"), (edges, "edge")
        gradients = [[leaf.name, *map(leaf.shown, WAYS)] for leaf in leaves]
        tables = [self._visits(), (["gradient of", *WAYS.values()], gradients)]
        super().__init__(", ".join(counted(*each) for each in counts), tables, self._said())

    def _visits(self) -> Table:
        rows = [[t.name, t.op or "leaf", str(t.uses), str(t.engine), grouped(t.paths)] for t in self.visited]
        if len(rows) > ROWS:
            rows = [*rows[: ROWS // 2], ["⋮"] * 5, *rows[-ROWS // 2 :]]
        return (["tensor", "made by", "uses", "visits by the tape", "visits by recursion"], rows)

    def _said(self) -> list[str]:
        visits = [each.engine for each in self.visited]
        does = "visits each tensor once" if set(visits) == {1} else "should visit each tensor once, and does not"
        tape = f"The tape {does}: {counted(sum(visits), 'visit')} in all"
        makes = "makes" if self.ran else "would make"
        said = [f"{tape}; recursion along every path {makes} {counted(self.visits, 'visit')}."]
        if not self.ran:
            said.append("Recursion was counted, not run: so many visits take too long (limit=).")
        kind = [WAYS[way] for way in ("first_come", "passed_again") if all(leaf.right(way) for leaf in self.leaves)]
        if kind:
            which = " and ".join(f"({way})" for way in kind)
            said.append(f"This graph is kind to carelessness {which}: the numbers come out right. Others are not.")
        return [*said, *MEANT]


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
    if book.lost:
        raise ModifiedError(next(iter(book.lost.values())))
    called, paths, seed = names(book.tensors), paths_to(book.tensors), book.seeds[y.age]
    ran = sum(paths.values()) <= limit
    with np.errstate(all="ignore"):
        walks = {
            "engine": book.gradients,
            "recursion": by_recursion(y, seed) if ran else None,
            "first_come": first_come(y, seed),
            "passed_again": by_recursion(y, seed, whole=True) if ran else None,
        }

    def gradient(way: str, leaf: Tensor) -> Any:
        if (walk := walks[way]) is None:
            return None
        return host(walk[leaf.age]) if leaf.age in walk else np.zeros(leaf.shape, leaf.dtype)

    reached = [t for t in book.tensors if t.age in paths]
    times = Counter(x.age for node in reached for _, x in uses(node))
    often = {t.age: (times[t.age], book.visits[t.age], paths[t.age]) for t in reached}
    return Order(
        [Visited(called[t.age], t.op.name if t.op else "", *often[t.age]) for t in reached],
        [LeafGradients(called[t.age], *[gradient(way, t) for way in WAYS]) for t in reached if t.op is None],
        times.total(),
        ran,
    )
