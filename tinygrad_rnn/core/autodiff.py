"""The tape and the two ways along it: gradients from the youngest to the oldest, tangents the other way.

A value used in two places gets a gradient from both, and they add up: by the chain rule, dy/dx sums over all
paths from x to y. Taking the tape youngest first makes that sum complete before anybody passes it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush, heappushpop
from threading import Lock
from typing import Any

from ..backend import NAMESPACE_OF, Array, as_array, backend_of
from ..errors import BackendError, GraphError, NumericalError, PrimitiveError, ShapeError, memory_explained, operands
from .broadcasting import fitted
from .modes import current, enable_grad, inspect_result, no_grad
from .primitive import Pull, passed, primitive, read, unchanged
from .tensor import Tensor, keep, next_age

Sink = Callable[[Tensor, Any, bool], None]
Watch = Callable[[Pull, Any, Tensor, Tensor | None], Any]
"""(rule, g, node, x) -> the contribution of a node to the gradient of its input x, or None for no contribution.

It calls `rule(g, node)`. If x is None, the rule gives one for each input.
"""
_adding = Lock()  # two threads may add into one leaf


@primitive("linear", latex="{x}", dx=unchanged)
def alias(xp: Any, x: Array) -> Array:
    """x itself under a new age, so that derivatives for this use of x can be told from those for x."""
    return x


class Tape(Sequence[Tensor]):
    """Everything that had a part in making some results, youngest first. Iterate it, index it, print it.

    Raises: as `tape`, which makes it.
    """

    def __init__(self, *results: Tensor) -> None:
        found = {y.age: y for y in results}
        waiting = list(results)
        while waiting:
            for x in living_inputs(waiting.pop()):
                if type(x) is Tensor and x.age not in found:
                    found[x.age] = x
                    waiting.append(x)
        self._nodes = [found[age] for age in sorted(found, reverse=True)]

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, index: Any) -> Any:
        return self._nodes[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._nodes)

    def __repr__(self) -> str:
        """A table: age, op, inputs by name or age, shape, scope, and the source line where `debug()` kept it."""
        rows, names = [("age", "op", "name", "inputs", "shape", "scope", "source")], Counter(t.name for t in self)
        short = {t.age: t.name if t.name and names[t.name] == 1 else f"{t.name or ''}#{t.age}" for t in self}
        for t in self._nodes:
            inputs = ", ".join(short[x.age] if type(x) is Tensor else repr(x) for x in t.inputs or ())
            path = t.scope.path if t.scope else ""
            rows.append(
                (f"#{t.age}", t.op.name if t.op else "leaf", t.name or "", inputs, str(t.shape), path, t.source or "")
            )
        widths = [max(len(row[i]) for row in rows) for i in range(7)]
        shown = [i for i in range(7) if any(row[i] for row in rows[1:])]
        return "\n".join("  ".join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in rows)


def tape(*results: Tensor) -> Tape:
    """The tape of one or more results: what they were made from, youngest first; `print` shows it as a table.

    Raises: GraphError, if a part of it was freed by `backward(retain_graph=False)`.
    """
    return Tape(*results)


def living_inputs(node: Tensor) -> tuple[Any, ...]:
    """The inputs of a node of the tape, provided that they are still there."""
    if node.inputs is None:
        raise _freed(node)
    return node.inputs


def _freed(node: Tensor) -> GraphError:
    return GraphError(
        f"the graph behind {node.label} was freed by backward(retain_graph=False); "
        "run the forward computation again, or keep the graph with retain_graph=True"
    )


class Part:
    """A gradient that is zero outside of an index: the accumulator adds it in place, so that slices stay cheap.

    Without it T slices of an array of length T would cost T arrays of length T. shape: that of the whole.
    """

    __slots__ = ("g", "index", "shape", "unique")

    def __init__(self, g: Any, index: Any, unique: bool, shape: tuple[int, ...]) -> None:
        self.g, self.index, self.unique, self.shape = g, index, unique, shape

    dtype = property(lambda self: self.g.dtype)

    def whole(self) -> Any:
        """The gradient with its zeros."""
        return self.added_to(NAMESPACE_OF[type(self.g)].zeros(self.shape, self.dtype))

    def added_to(self, total: Any) -> Any:
        """total after total[index] += g, where an element that is named twice receives both."""
        if self.unique:
            total[self.index] += self.g
        else:
            NAMESPACE_OF[type(total)].add_at(total, self.index, self.g)
        return total


def pull(
    seeds: Sequence[tuple[Tensor, Any]],
    sink: Sink,
    *,
    targets: Sequence[Tensor] = (),
    since: int = 0,
    recorded: bool = False,
    retain: bool = True,
    watch: Watch | None = None,
) -> None:
    """Reverse mode. Hands each leaf (or each target) its whole gradient, and whether that array is nobody else's.

    seeds: results with the gradients that come in for them, as bare arrays, or as Tensors if `recorded`.
    targets: the tensors whose gradients are wanted; () is every leaf that requires one. Nothing else is visited.
    since: results no younger than this age count as leaves.
    retain: False frees every node once it has passed its gradient on.
    watch: runs the rules in the engine's place, as `Watch` says, and so sees every contribution to every gradient.
    """
    wanted = {x.age for x in targets}
    useful = concerned([y for y, _ in seeds], targets, since) if targets else None
    pending: dict[int, Any] = {}  # the gradients so far, by the age of the tensor that they belong to
    queue: list[tuple[int, Tensor]] = []  # those tensors by negative age: a heap with the youngest on top
    ours: set[int] = set()  # the gradients that were summed here, so that we may add to them in place
    bounded, debug = bool(targets or since), current().debug
    watch = watch or (_inspected if debug else None)

    for y, g in seeds:
        if y.age in pending:
            pending[y.age] = pending[y.age] + g
        elif y._requires_grad and (useful is None or y.age in useful):
            pending[y.age] = g
            heappush(queue, (-y.age, y))
    entry = heappop(queue) if queue else None
    while entry is not None:
        node, entry = entry[1], None
        age, array = node.age, node._array
        g = pending.pop(age)
        if g.dtype is not array.dtype or g.shape != array.shape:
            g = fitted(g, node)
        if debug:
            inspect_result(g._array if recorded else g, f"the sum of the gradients for {node.label}", node.source)
        if node.hooks and age > since:  # below `since`, this is a part of the gradient only
            g = _hooked(node, g, recorded, keeping=not targets)
            ours.discard(age)
        op = node.op
        if op is None or (bounded and (age in wanted or age <= since)):
            sink(node, g, age in ours)
            if op is None or age <= since:
                entry = heappop(queue) if queue else None
                continue
        rules = op.recorded_pulls if recorded else op.pulls
        inputs = living_inputs(node) if node.inputs is None else node.inputs
        if op.variadic or op.vjp:
            joint = partial(_jointly, wanted=[_wants(x, age, useful) for x in inputs], recorded=recorded)
            each = joint(g, node) if watch is None else watch(joint, g, node, None)
            if each is None:
                each = (None,) * len(inputs)
            elif op.vjp and not recorded:
                ours.update([age for age in _fresh(node, g, inputs, each) if age not in pending])
            if len(each) != len(inputs):
                raise PrimitiveError(f"the rule of {op.name} gave {len(each)} gradients for {len(inputs)} arrays")
            rules = tuple([d if d is None else lambda g, node, d=d: d for d in each])
        for x, rule in zip(inputs, rules):
            if type(x) is not Tensor or not x._requires_grad or rule is None:
                continue
            at = x.age
            if at > age or (useful is not None and at not in useful):  # younger: it was a constant when it was read
                continue
            if watch is None:
                d = g if rule is passed else rule(g, node)
            elif (d := watch(rule, g, node, x)) is None:
                continue
            if at not in pending:
                if entry is None:
                    entry = (-at, x)
                else:
                    heappush(queue, (-at, x))
                if type(d) is Part and not (_takes_parts(x, d) and at > since and at not in wanted and watch is None):
                    d = d.whole()
                    ours.add(at)
                pending[at] = d
            elif type(d) is Part:
                before = pending[at].whole() if type(pending[at]) is Part else fitted(pending[at], x)
                xp = NAMESPACE_OF[type(before)]
                total = xp.asarray(before) if at in ours else xp.array(before)
                pending[at] = d.added_to(total)
                ours.add(at)
            else:
                before = pending[at]
                if type(before) is Part:
                    before = before.whole()
                if d.shape != before.shape:  # one of them was broadcast
                    d, before = fitted(d, x), fitted(before, x)
                if at in ours:
                    before += d
                    pending[at] = before  # a NumPy scalar cannot change in place
                else:
                    pending[at] = before + d
                    if not recorded:
                        ours.add(at)
        if not retain:
            node.inputs = None
            if op.vjp:
                node.saved = None
        entry = heappushpop(queue, entry) if entry is not None else heappop(queue) if queue else None


def _takes_parts(x: Tensor, part: Part) -> bool:
    """Whether x was made by a fused primitive that can do with a part of its gradient, and nobody else looks at it."""
    return x.op is not None and x.op.sparse and not x.hooks and part.dtype == x._array.dtype


def _wants(x: Any, age: int, useful: dict[int, Tensor] | None) -> bool:
    """Whether a gradient for this input has somewhere to go."""
    return type(x) is Tensor and x._requires_grad and x.age < age and (useful is None or x.age in useful)


def _jointly(g: Any, node: Tensor, *, wanted: Sequence[bool], recorded: bool) -> Sequence[Any]:
    """The gradients of all arrays at once, of a primitive that has one rule for a list of them, or a `vjp`."""
    op = node.op
    assert op is not None
    if op.vjp:
        return (by_reference if recorded else _by_hand)(g, node, wanted)
    rules = op.recorded_pulls if recorded else op.pulls
    return rules[0](g, node)  # type: ignore[misc, no-any-return]


def _by_hand(g: Any, node: Tensor, wanted: Sequence[bool]) -> Sequence[Any]:
    """The gradients of a fused primitive's arrays, by its `vjp`, on bare arrays."""
    op, inputs = node.op, [read(x, node, recorded=False) for x in living_inputs(node)]
    assert op is not None and op.vjp is not None
    xp = NAMESPACE_OF[type(node._array)]
    each = op.vjp(xp, g, node._array, node.saved, *inputs, wanted=tuple(wanted), **node.options)
    if not isinstance(each, (list, tuple)) or not all([d is None or hasattr(d, "dtype") for d in each]):
        raise PrimitiveError(f"the vjp of {op.name} returns a list: for each array its gradient, or None")
    return each


def _fresh(node: Tensor, g: Any, inputs: Sequence[Any], each: Sequence[Any]) -> Iterator[int]:
    """The ages of the inputs whose gradients a `vjp` has made for them alone: these need not be copied."""
    saved = node.saved if isinstance(node.saved, (list, tuple)) else (node.saved,)
    theirs = [g, getattr(g, "g", None), node._array, *saved, *[x._array for x in inputs if type(x) is Tensor]]
    taken = set(map(id, theirs))
    for x, d in zip(inputs, each):
        if type(x) is Tensor and d is not None and getattr(d, "base", d) is None and id(d) not in taken:
            yield x.age
        taken.add(id(d))


def by_reference(g: Tensor, node: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """The same on Tensors, by going back through its reference: what is computed here has gradients itself."""
    inputs, born = [read(x, node, recorded=True) for x in living_inputs(node)], next_age()
    with enable_grad():
        inputs = [alias(x) if wants else x for x, wants in zip(inputs, wanted)]
        y = node.op.reference(*inputs, **node.options)  # type: ignore[union-attr, misc]
    found: dict[int, Any] = {}
    targets = [x for x, wants in zip(inputs, wanted) if wants]
    pull([(y, g)], lambda x, d, ours: found.update({x.age: d}), targets=targets, since=born, recorded=True)
    return [found.get(x.age, _as_gradient(None, x)) if wants else None for x, wants in zip(inputs, wanted)]


def concerned(results: Sequence[Tensor], targets: Sequence[Tensor] = (), since: int = 0) -> dict[int, Tensor]:
    """The part of the tape that gradients have to visit, by age; what is no younger than `since` counts as a leaf."""
    found = {y.age: y for y in results if y._requires_grad}
    waiting = list(found.values())
    while waiting:
        node = waiting.pop()
        if node.age > since:
            for x in living_inputs(node):
                if type(x) is Tensor and x._requires_grad and x.age not in found and x.age < node.age:
                    found[x.age] = x
                    waiting.append(x)
    if not targets:
        return found
    kept = {x.age: x for x in targets if x.age in found}
    for age in sorted(found):
        if age > since and any([type(x) is Tensor and x.age in kept for x in found[age].inputs or ()]):
            kept[age] = found[age]
    return kept


def _inspected(rule: Pull, g: Any, node: Tensor, x: Tensor | None) -> Any:
    """What a rule gives, under `debug()`: a NaN or an infinity is blamed on it, though made by an operation inside."""
    if x is None:  # what a joint rule gives is looked at one by one
        return rule(g, node)
    what = f"the derivative of {node.op.name if node.op else ''} for {x.label}"
    try:
        d = rule(g, node)
    except NumericalError as error:
        raise NumericalError(f"{what} at {node.source}: {error}") from None
    inspect_result(d.g if type(d) is Part else d._array if type(d) is Tensor else d, what, node.source)
    return d


def _hooked(node: Tensor, g: Any, recorded: bool, keeping: bool) -> Any:
    for hook in list(node.hooks or ()):
        if hook is keep and not keeping:
            continue
        replaced = hook(node, g if recorded else Tensor(g.copy()))
        if replaced is not None:
            if getattr(replaced, "shape", None) != node.shape or not isinstance(replaced, Tensor):
                raise ShapeError(f"a hook on {node.label} returns a Tensor of its shape, or None, not {replaced!r}")
            g = replaced if recorded else fitted(replaced._array, node)
    return g


def seed_for(y: Tensor, grad: Any) -> Tensor:
    """The gradient that comes in for y: `grad`, or 1 if y is a scalar."""
    if not y._requires_grad:
        raise GraphError(
            f"{y.label} has no graph to go back through: nothing that it was made from requires a gradient, "
            "or it was made under no_grad(); set requires_grad=True on the tensors to learn"
        )
    backend_of(y._array).check_place(y._array)
    if grad is None:
        if y.size != 1:
            raise GraphError(f"{y.label} is no scalar: reduce it first, as in y.sum(), or say grad= of its shape")
        return Tensor(NAMESPACE_OF[type(y._array)].ones(y.shape, y.dtype))
    seed = grad if isinstance(grad, Tensor) else Tensor(as_array(grad, y.backend, y.dtype))
    if seed.shape != y.shape:
        raise ShapeError(f"grad has shape {seed.shape}, but it belongs to {y.label}; the shapes must be equal")
    if seed.backend != y.backend:
        raise BackendError(f"grad lies on {seed.backend}, but {y.label} on {y.backend}: use grad.to({y.backend!r})")
    return seed


def _accumulate(leaf: Tensor, g: Any, ours: bool) -> None:
    """Add into `.grad`; no two leaves ever share an array."""
    xp = NAMESPACE_OF[type(g)]
    if leaf._grad is None:
        leaf._grad = Tensor(xp.asarray(g) if ours else xp.array(g))
    else:
        leaf._grad = Tensor(xp.asarray(leaf._grad._array + g))


REMEDY = "retain_graph=False frees on the way, tg.checkpoint keeps less; or take a smaller batch or shorter sequences"


def backward(y: Tensor, grad: Any = None, retain_graph: bool = True) -> None:
    """Add dy/dx into `x.grad` for every leaf x that requires it.

    grad: the gradient that comes in for y, of y's shape; may be left out if y has one element.
    retain_graph: keep the graph, so that it can be drawn, explained and run again (a second call adds the same
        gradients once more); False frees it on the way.

    Raises: GraphError without a graph, after it was freed, or for a non-scalar without `grad`;
        ShapeError, if `grad` has another shape, BackendError, if it lies elsewhere; ModifiedError, if a value was
        overwritten since; OutOfMemory; NumericalError under `debug()`.
    """
    complete: list[tuple[Tensor, Any, bool]] = []  # so that a pass that fails half-way leaves no half gradients
    with memory_explained(lambda: f"the way back from {y.label}", REMEDY):
        pull([(y, seed_for(y, grad)._array)], lambda *leaf: complete.append(leaf), retain=retain_graph)
    with _adding:
        for leaf in complete:
            _accumulate(*leaf)


def pullback(
    y: Tensor, wrt: Tensor | Sequence[Tensor], grad: Any = None, create_graph: bool = False
) -> list[Tensor]:  # fmt: skip
    """The gradients of y for the tensors `wrt`, leaves or results, without touching anybody's `.grad`.

    grad: the gradient that comes in for y, of y's shape; may be left out if y has one element.
    create_graph: record the computation of the gradients, so that they have gradients themselves.
    Returns a list with one Tensor for each of `wrt`; zeros where y does not depend on it.

    Raises: as `backward`; GraphError, if one of `wrt` does not require a gradient.
    """
    wrt = [wrt] if isinstance(wrt, Tensor) else list(wrt)
    for x in wrt:
        if not isinstance(x, Tensor) or not x._requires_grad:
            raise GraphError(f"{operands([x])} does not require a gradient; make it with requires_grad=True")
    found: dict[int, Any] = {}
    seed = seed_for(y, grad)
    with enable_grad() if create_graph else no_grad(), memory_explained(lambda: f"the way back from {y.label}", REMEDY):
        pull(
            [(y, seed if create_graph else seed._array)],
            lambda x, g, ours: found.update({x.age: g}),
            targets=wrt,
            recorded=create_graph,
        )
    return [_as_gradient(found.get(x.age), x) for x in wrt]


def _as_gradient(g: Any, x: Tensor) -> Tensor:
    if g is None:
        return Tensor(NAMESPACE_OF[type(x._array)].zeros(x.shape, x.dtype))
    return g if type(g) is Tensor else Tensor(NAMESPACE_OF[type(g)].asarray(g))
