"""Functions of functions: gradients, products with Jacobians, second derivatives, and time traded for memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .backend import NAMESPACE_OF, Array, random
from .core.autodiff import concerned, pull, pullback
from .core.broadcasting import broadcast_to, fitted
from .core.modes import current, enable_grad, no_grad
from .core.primitive import Lost, primitive, unchanged
from .core.tensor import Tensor, next_age, tensor
from .errors import GraphError, ShapeError
from .ops.shapes import concatenate, stack


@primitive("linear", latex="{x}", dx=unchanged)
def alias(xp: Any, x: Array) -> Array:
    """x itself under a new age, so that derivatives for this use of x can be told from those for x."""
    return x


@primitive("general", dxs=lambda g, xs, replay: replay(g, xs))
def recomputed(xp: Any, *xs: Array, value: Array, replay: Callable[..., list[Any]]) -> Array:
    """A value whose graph was thrown away; `replay` makes it again when its gradient comes."""
    return value


def push(y: Tensor, starts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Forward mode: the tangent of y when each start moves with its tangent; the tape is walked oldest first."""
    tangents = {x.age: t for x, t in starts}
    for age, node in sorted(concerned([y], [x for x, _ in starts]).items()):
        if age not in tangents:
            inputs = enumerate(node.inputs or ())
            moving = [(i, tangents[x.age]) for i, x in inputs if type(x) is Tensor and x.age in tangents]
            tangents[age] = _tangent(node, moving)
    return tangents[y.age] if y.age in tangents else Tensor(NAMESPACE_OF[type(y._array)].zeros(y.shape, y.dtype))


def _tangent(node: Tensor, moving: list[tuple[int, Tensor]]) -> Tensor:
    """The tangent of one node, from the kind of its primitive; no primitive needs a second rule for it."""
    op, inputs = node.op, node.inputs
    assert op is not None and inputs is not None
    if op.kind == "linear":
        still = [x if rule is None else x * 0 for x, rule in zip(inputs, op.pulls * len(inputs), strict=False)]
        args = [dict(moving).get(i, x) for i, x in enumerate(still)]
        moved: Tensor = op.function(*args, **node.options)
        return moved
    parts: list[Tensor] = []
    for i, t in moving:
        if op.kind == "bilinear":
            parts.append(op.function(*inputs[:i], t, *inputs[i + 1 :], **node.options))
            continue
        rule = op.recorded_pulls[0 if op.variadic else i]
        if op.kind == "elementwise":  # its Jacobian is diagonal, hence its own transpose
            parts.append(rule(broadcast_to(t, shape=node.shape), node))  # type: ignore[misc]
        else:  # g -> rule(g) is linear: transpose it once more, at any point, to have it the other way round
            with enable_grad():
                g = Tensor(NAMESPACE_OF[type(node._array)].zeros(node.shape, node.dtype), requires_grad=True)
                back = rule(g, node)  # type: ignore[misc]
                back = fitted(back[i] if op.variadic else back, inputs[i])
            parts += pullback(back, [g], t, create_graph=current().recording)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _fresh(x: Any) -> Tensor:
    """A tensor to differentiate for: connected to x if x has a gradient of its own, else a leaf."""
    if isinstance(x, Tensor) and x.requires_grad:
        with enable_grad():
            return alias(x)
    return Tensor(x._array if isinstance(x, Tensor) else tensor(x)._array, requires_grad=True)


def _run(f: Callable[..., Tensor], fresh: Sequence[Tensor], since: int) -> tuple[Tensor, bool]:
    """f's value on a tape, and whether anything older has a part in it: then derivatives must be differentiable."""
    with enable_grad():
        y = f(*fresh)
    if not isinstance(y, Tensor):
        raise GraphError(f"the function must return a Tensor, not {type(y).__name__}")
    return y, current().recording and any(age < since for age in concerned([y], since=since))


def vjp(f: Callable[..., Tensor], *xs: Any) -> tuple[Tensor, Callable[..., list[Tensor]]]:
    """The value of f at xs, and the function that takes a gradient for it to the gradients for xs."""
    since = next_age()
    fresh = [_fresh(x) for x in xs]
    y, connected = _run(f, fresh, since)

    def pull_to_arguments(grad: Any = None) -> list[Tensor]:
        if not y.requires_grad:
            return [(x * 0).detach() for x in fresh]
        return pullback(y, fresh, grad, create_graph=connected)

    return (y if connected else y.detach()), pull_to_arguments


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns f's scalar value and its gradient for the argument `argnums` (a list for several).

    Raises (when called): GraphError, if f returns no scalar.
    """

    def valued(*args: Any) -> tuple[Tensor, Any]:
        places = [argnums] if isinstance(argnums, int) else list(argnums)

        def of_chosen(*chosen: Tensor) -> Tensor:
            given = dict(zip(places, chosen, strict=True))
            return f(*[given.get(i, x) for i, x in enumerate(args)])

        y, back = vjp(of_chosen, *[args[i] for i in places])
        if y.size != 1:
            raise GraphError(f"grad needs a scalar function, and it returned {y.label}; use tg.jacobian or tg.vjp")
        found = back()
        return y, found[0] if isinstance(argnums, int) else found

    return valued


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the gradient of the scalar function f for the argument `argnums` (a list for several).

    `grad(grad(f))` is the second derivative, and so on to any order.
    """
    valued = value_and_grad(f, argnums)
    return lambda *args: valued(*args)[1]


def jvp(f: Callable[..., Tensor], xs: Sequence[Any], ts: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """The value of f at xs, and how fast it changes when each x moves with its tangent t (forward mode).

    Raises: ShapeError, if a tangent does not have the shape of its argument.
    """
    since = next_age()
    fresh, tangents = [_fresh(x) for x in xs], [t if isinstance(t, Tensor) else tensor(t) for t in ts]
    for x, t in zip(fresh, tangents, strict=True):
        if x.shape != t.shape:
            raise ShapeError(f"a tangent of shape {t.shape} for an argument of shape {x.shape}; they must be equal")
    y, connected = _run(f, fresh, since)
    connected = connected or (current().recording and any(t.requires_grad for t in tangents))
    with enable_grad() if connected else no_grad():
        moved = push(y, list(zip(fresh, tangents, strict=True)))
    return (y, moved) if connected else (y.detach(), moved.detach())


def jacobian(f: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Tensor]:
    """A function that returns all partial derivatives of f, of shape y.shape + x.shape: a backward pass per element."""

    def all_partials(*args: Any) -> Tensor:
        x = args[argnums] if isinstance(args[argnums], Tensor) else tensor(args[argnums])
        y, back = vjp(lambda x: f(*args[:argnums], x, *args[argnums + 1 :]), x)
        rows = []
        for i in range(y.size):
            one_hot = np.zeros(y.shape, y.dtype)
            one_hot.flat[i] = 1
            rows.append(back(tensor(one_hot, backend=y.backend))[0])
        return stack(rows).reshape((*y.shape, *x.shape))

    return all_partials


def hessian(f: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Tensor]:
    """A function that returns the second derivatives of the scalar function f, of shape x.shape + x.shape."""
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Callable[..., Tensor], x: Any, v: Any) -> Tensor:
    """The Hessian of the scalar function f at x times v, of x's shape, without ever making the Hessian.

    Forward mode over reverse mode (Pearlmutter 1994, Fast exact multiplication by the Hessian).
    """
    return jvp(grad(f), [x], [v])[1]


def checkpoint(f: Callable[..., Any], *xs: Any) -> Any:
    """f(*xs), keeping none of what it computes on the way: backward runs f once more, with the same random numbers.

    Gradients reach xs and whatever else f uses, such as the parameters of a module. Second derivatives too.

    f: takes Tensors and returns a Tensor or a tuple of Tensors of one dtype.
    """
    if not current().recording:
        return f(*xs)
    xs = tuple(x if isinstance(x, Tensor) else tensor(x) for x in xs)
    state, since = random.get_state(), next_age()

    def packed(*arguments: Tensor) -> tuple[Tensor, list[tuple[int, ...]] | None]:
        y = f(*arguments)
        if isinstance(y, Tensor):
            return y, None
        return concatenate([each.ravel() for each in y]), [each.shape for each in y]

    fresh = [_fresh(x) if x.requires_grad else x for x in xs]
    y, shapes = packed(*fresh)
    own = {x.age for x in (*fresh, *xs)}
    used = [x for age, x in concerned([y], since=since).items() if age < since and age not in own]

    def replay(g: Any, inputs: list[Any]) -> list[Any]:
        for x in inputs:
            if isinstance(x, Lost):  # run again with other numbers, f would give other gradients
                x.refuse()
        recorded = isinstance(g, Tensor)
        with enable_grad():
            again = [
                x if not old.requires_grad else alias(x) if recorded else Tensor(x, requires_grad=True)
                for x, old in zip(inputs[: len(xs)] if recorded else [*inputs], xs, strict=False)
            ]
            again = [x if isinstance(x, Tensor) else Tensor(x) for x in again]
            before, born = random.get_state(), next_age()
            random.set_state(state)
            try:
                result, _ = packed(*again)
            finally:
                random.set_state(before)
        targets = [x for x in again if x.requires_grad] + used
        found: dict[int, Any] = {}
        pull([(result, g)], lambda x, g, ours: found.update({x.age: g}), targets=targets, since=born, recorded=recorded)
        return [found.get(x.age, 0 * (x if recorded else x._array)) for x in (*again, *used)]

    out = recomputed(*xs, *used, value=y._array, replay=replay)
    if shapes is None:
        return out
    ends = [math.prod(shape) for shape in shapes]
    starts = [sum(ends[:i]) for i in range(len(ends))]
    return tuple(out[a : a + n].reshape(shape) for a, n, shape in zip(starts, ends, shapes, strict=True))
