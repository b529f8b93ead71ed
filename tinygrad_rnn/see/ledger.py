"""The ledger of a backward pass: every contribution to every gradient, written down while the engine adds them up.

It is the engine's own pass, over the same rules in the same order; nobody's `.grad` is touched. Where a value was
overwritten after the tape read it, what needs the old one is lost; the ledger says so, and keeps what is still true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import NAMESPACE_OF
from ..core.autodiff import Part, pull, seed_for, tape
from ..core.broadcasting import fitted
from ..core.modes import changed
from ..core.tensor import Tensor
from ..errors import ModifiedError, PrimitiveError, TinygradError
from .words import printable


@dataclass(slots=True, eq=False)
class Contribution:
    """What one use of x adds to the gradient of x.

    consumer: the result of the operation that used x, whose rule gave this. place: which argument of it x was.
    upstream: the gradient of the consumer, complete by then, as a bare array.
    product: what the rule made of it: upstream times the local derivative, before it is summed to the shape of x.
    """

    x: Tensor
    consumer: Tensor
    place: int
    upstream: Any
    product: Any

    @property
    def argument(self) -> str:
        """The name of the argument that x was: "a", or "arrays[2]"."""
        return argument(self.consumer, self.place)

    @property
    def dense(self) -> Any:
        """The product as a bare array, also where the engine keeps only the part of it that is not zero."""
        return self.product.whole() if type(self.product) is Part else self.product

    @property
    def added(self) -> Any:
        """What is added: the product, summed over the axes along which x was broadcast, in the dtype of x."""
        return fitted(self.dense, self.x)

    @property
    def broadcast(self) -> bool:
        """Whether x was broadcast, so that the product had to be summed."""
        return tuple(self.product.shape) != tuple(self.x.shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes over which the product is summed: those along which x was broadcast."""
        return stretched(self.product.shape, self.x.shape)


class Ledger:
    """What `ledger` wrote down.

    results: what was differentiated; together they are one function, the sum of everything in them.
    tensors: the tape, youngest first. gradients: by age, the whole gradient as a bare array.
    visits: by age, how often the engine came by, which should be once.
    seeds: by age of a result, the gradient that came in for it from outside.
    contributions: by age of x, in the order in which they were added.
    lost: by age, why a gradient (and all that would have been computed from it) cannot be known any more.
    """

    def __init__(self, results: Sequence[Tensor]) -> None:
        self.results = list(results)
        self.tensors = tape(*results)
        self.gradients: dict[int, Any] = {}
        self.visits = Counter[int]()
        self.seeds: dict[int, Any] = {}
        self.contributions: dict[int, list[Contribution]] = {}
        self.lost: dict[int, str] = {}
        self.missing: dict[tuple[int, int], str] = {}
        """By age of the consumer and place: why there is no contribution of this use."""

    def state(self, t: Tensor) -> str:
        """Why a tensor has no gradient here: "constant", "not reached" or "lost: ..."; "" if it has one."""
        if not t.requires_grad:
            return "constant"
        if t.age in self.lost:
            return f"lost: {self.lost[t.age]}"
        return "" if t.age in self.gradients else "not reached"

    def running(self, x: Tensor) -> list[tuple[Contribution, Any, Any]]:
        """Each contribution to the gradient of x with the sum before it (None, if there was nothing) and after it."""
        found: list[tuple[Contribution, Any, Any]] = []
        before = self.seeds.get(x.age)
        for each in self.contributions.get(x.age, []):
            added = each.added
            after = added if before is None else before + added
            found.append((each, before, after))
            before = after
        return found


def ledger(results: Sequence[Tensor], grad: Any = None) -> Ledger:
    """Go back from some results and write everything down.

    grad: the gradient that comes in for each result; ones if left out, which differentiates the sum of its elements.

    Raises: GraphError, if nothing that a result was made from requires a gradient, or if the graph was freed.
    """
    book = Ledger(results)
    latest: dict[int, int] = {}  # by age of a node, the place that was written down last

    def watch(rule: Callable[..., Any], g: Any, node: Tensor, x: Tensor | None) -> Any:
        place = -1
        if x is not None:
            place = latest[node.age] = next_place(node, x, latest.get(node.age, -1))
        try:
            if node.age in book.lost:
                raise ModifiedError(book.lost[node.age])
            d = rule(g, node)
        except ModifiedError as error:
            for at, other in uses(node) if x is None else [(place, x)]:
                book.lost[other.age] = book.missing[node.age, at] = printable(str(error))
            return None
        except TinygradError:
            raise
        except Exception as error:  # a rule of a user's own
            name = node.op.name if node.op else ""
            raise PrimitiveError(f"a rule of {name} failed: {type(error).__name__}: {error}") from error
        if x is not None:
            shared = node.op and node.op.vjp and type(d) is not Part  # the engine may add to it in place
            own = d.copy() if shared else d
            book.contributions.setdefault(x.age, []).append(Contribution(x, node, place, g, own))
        return d

    useful = [t for t in book.tensors if t.requires_grad]
    seeds = [(y, seed_for(y, grad if grad is not None else NAMESPACE_OF[type(y._array)].ones(y.shape, y.dtype))._array)
             for y in results if y.requires_grad or len(results) == 1]  # fmt: skip
    for y, g in seeds:
        book.seeds[y.age] = book.seeds[y.age] + g if y.age in book.seeds else g

    def sink(t: Tensor, g: Any, ours: bool) -> None:
        book.gradients[t.age] = g
        book.visits[t.age] += 1
        latest.pop(t.age, None)

    with changed(debug=False, recording=False), np.errstate(all="ignore"):
        pull(seeds, sink, targets=useful, watch=watch)
    for t in book.tensors:  # what is lost stays lost further down, whether or not anything else arrived there
        if t.age in book.lost:
            book.gradients.pop(t.age, None)
            for place, x in uses(t):
                book.lost.setdefault(x.age, book.lost[t.age])
                book.missing.setdefault((t.age, place), book.lost[t.age])
    return book


def step(node: Tensor, g: Any) -> list[Contribution]:
    """One step of the engine alone: what a node makes of a gradient for itself, use by use.

    g: a bare array of the node's shape. Nobody's `.grad` is touched; hooks on the node act, as in any pass.

    Raises: GraphError, if the graph was freed; ModifiedError, if a value was overwritten that the rule needs.
    """
    found: list[Contribution] = []

    def watch(rule: Callable[..., Any], g: Any, node: Tensor, x: Tensor | None) -> Any:
        d = rule(g, node)
        if x is None:
            return d
        found.append(Contribution(x, node, next_place(node, x, found[-1].place if found else -1), g, d))
        return None  # it has gone to us, and no further

    if inputs := [x for _, x in uses(node)]:
        with changed(debug=False, recording=False), np.errstate(all="ignore"):
            pull([(node, g)], lambda *leaf: None, targets=inputs, since=node.age - 1, watch=watch)
    return found


def uses(node: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The inputs to which a node can pass a gradient, each with its place."""
    for place, x in enumerate(node.inputs or ()):
        if type(x) is Tensor and x.requires_grad and x.age < node.age and node.op and node.op.has_rule(place):
            yield place, x


def next_place(node: Tensor, x: Tensor, last: int) -> int:
    """At which place behind the last one a node uses x: the engine takes them in their order."""
    inputs, op = node.inputs or (), node.op
    assert op is not None
    return next(place for place in range(last + 1, len(inputs)) if inputs[place] is x and op.has_rule(place))


def changed_since(tensors: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    """By age of a leaf that has other numbers now, the nodes of a tape that had read the earlier ones."""
    found: dict[int, list[Tensor]] = {}
    for node in tensors:
        for x in {x.age: x for x in node.inputs or () if isinstance(x, Tensor)}.values():
            if x.modified > node.age:
                found.setdefault(x.age, []).append(node)
    return found


def stretched(wide: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """The axes along which broadcasting stretches a shape to make a wide one of it."""
    lead = len(wide) - len(shape)
    return (*range(lead), *[lead + i for i, size in enumerate(shape) if size == 1 != wide[lead + i]])


def stopped(t: Tensor) -> str:
    """Why gradients do not pass from a leaf to what it was made from, in words; "" if it was made from nothing."""
    return "" if t.op is not None else printable(t.stop or "")


def argument(node: Tensor, place: int) -> str:
    """The name of an argument of an operation: "a", or "arrays[2]" for one of a list."""
    op = node.op
    assert op is not None
    at = min(place, len(op.arrays) - 1) if op.variadic else place
    return f"{op.arrays[at]}[{place - at}]" if op.variadic else op.arrays[at]
