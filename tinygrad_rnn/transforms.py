"""Functions of functions: gradients, products with Jacobians, second derivatives, and time traded for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .backend import NAMESPACE_OF, Array, random
from .core.autodiff import alias, by_reference, concerned, pull, pullback
from .core.broadcasting import astype, broadcast_to, fitted
from .core.modes import current, enable_grad, no_grad
from .core.primitive import primitive, read
from .core.tensor import Tensor, next_age, tensor
from .errors import GraphError, OptionError, ShapeError, mixed
from .ops.shapes import concatenate, ravel, reshape, stack


@primitive("general", dxs=lambda g, xs, replay: replay(g, xs))
def recomputed(xp: Any, *xs: Array, value: Array, replay: Callable[..., list[Any]]) -> Array:
    """A value whose graph was thrown away; `replay` makes it again when its gradient comes."""
    return value


def push(y: Tensor, starts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Forward mode: the tangent of y when each start moves with its tangent."""
    moved = {x.age: t for x, t in starts} | {node.age: t for node, t in tangents(y, starts)}
    return moved[y.age] if y.age in moved else _still(y)


def tangents(y: Tensor, starts: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each result that moves on the way from the starts to y, oldest first, with its tangent.

    Raises: ModifiedError, at a node that needs a value which was overwritten.
    """
    known = {x.age: t for x, t in starts}
    for age, node in sorted(concerned([y], [x for x, _ in starts]).items()):
        moving = [(i, known[x.age]) for i, x in enumerate(node.inputs or ()) if _moves(node, i, x, known)]
        if moving and age not in known:
            known[age] = tangent(node, moving)
            yield node, known[age]


def _moves(node: Tensor, place: int, x: Any, known: Mapping[int, Tensor]) -> bool:
    """Whether an input takes its node along: it moves, has a rule, and was no constant yet when it was read."""
    return type(x) is Tensor and x.age in known and x.age < node.age and bool(node.op and node.op.has_rule(place))


def tangent(node: Any, moving: Sequence[tuple[int, Any]]) -> Any:
    """The tangent of one node, from the kind of its primitive; no primitive needs a second rule for it.

    moving: the tangents of its inputs by their place. For formulas, too, unless the kind is "general".
    """
    op, inputs = node.op, node.inputs
    assert op is not None and inputs is not None
    if op.kind == "linear":
        still = [x if rule is None else _still(x) for x, rule in zip(inputs, op.pulls * len(inputs))]
        args = [dict(moving).get(i, x) for i, x in enumerate(still)]
        moved: Tensor = op.function(*([args] if op.variadic else args), **node.options)
        return moved
    parts: list[Tensor] = []
    for i, t in moving:
        if op.kind == "bilinear":
            args = [t if j == i else read(x, node, recorded=True) for j, x in enumerate(inputs)]
            parts.append(op.function(*([args] if op.variadic else args), **node.options))
            continue
        rule = op.recorded_pulls[0 if op.variadic else i]
        if op.vjp:
            only = [j == i for j in range(len(inputs))]
            rule = lambda g, node, i=i, only=only: by_reference(g, node, only)[i]  # noqa: E731
        if op.kind == "elementwise":  # its Jacobian is diagonal, hence its own transpose
            wide = t if t.shape == node.shape else broadcast_to(t, shape=node.shape)
            parts.append(rule(wide, node))
        else:  # g -> rule(g) is linear: transpose it once more, at any point, to have it the other way round
            with enable_grad():
                g = Tensor(NAMESPACE_OF[type(node._array)].zeros(node.shape, node.dtype), requires_grad=True)
                back = rule(g, node)
                back = fitted(back[i] if op.variadic else back, inputs[i])
            parts += pullback(back, [g], t, create_graph=current().recording)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _still(x: Any) -> Any:
    """What stands still moves by zero, even where it is infinite."""
    return Tensor(NAMESPACE_OF[type(x._array)].zeros(x.shape, x.dtype)) if isinstance(x, Tensor) else 0


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
    """The value of f at xs, and the function that takes a gradient for it to the gradients for xs.

    f: takes Tensors, returns one. xs: tensors, arrays, lists or numbers, all floating.
    The function takes a gradient of the value's shape (left out, 1 of a scalar) and returns a list, one for each x.

    Raises: GraphError, if f returns no Tensor; DtypeError for an x that is not floating; the function, as `backward`.
    """
    since = next_age()
    fresh = [_fresh(x) for x in xs]
    y, connected = _run(f, fresh, since)

    def pull_to_arguments(grad: Any = None) -> list[Tensor]:
        if not y.requires_grad:
            return [_still(x) for x in fresh]
        return pullback(y, fresh, grad, create_graph=connected)

    return (y if connected else y.detach()), pull_to_arguments


def _place(argnum: int, args: Sequence[Any]) -> int:
    if not -len(args) <= argnum < len(args):
        raise OptionError(f"argnums names argument {argnum}, but there are {len(args)}")
    return argnum % len(args)


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns f's scalar value and its gradient for the argument `argnums` (a list for several).

    Raises (when called): GraphError, if f returns no scalar; OptionError, if there is no such argument.
    """

    def valued(*args: Any) -> tuple[Tensor, Any]:
        places = [_place(n, args) for n in ([argnums] if isinstance(argnums, int) else argnums)]

        def of_chosen(*chosen: Tensor) -> Tensor:
            given = dict(zip(places, chosen))
            return f(*[given.get(i, x) for i, x in enumerate(args)])

        if len(set(places)) < len(places):
            raise OptionError(f"argnums {argnums} names an argument twice")
        y, back = vjp(of_chosen, *[args[i] for i in places])
        if y.size != 1:
            raise GraphError(f"grad needs a scalar function, and it returned {y.label}; use tg.jacobian or tg.vjp")
        found = back()
        return y, found[0] if isinstance(argnums, int) else found

    return valued


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the gradient of the scalar function f for the argument `argnums` (a list for several).

    `grad(grad(f))` is the second derivative, and so on to any order. The gradient has the argument's shape.

    Raises (when called): as `value_and_grad`.
    """
    valued = value_and_grad(f, argnums)
    return lambda *args: valued(*args)[1]


def jvp(f: Callable[..., Tensor], xs: Sequence[Any], ts: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """The value of f at xs, and how fast it changes when each x moves with its tangent t (forward mode).

    xs, ts: lists of as many tensors, arrays or numbers; each t has the shape of its x, both results that of f.

    Raises: ShapeError, if a tangent is missing or does not have the shape of its argument; BackendError; GraphError,
        if f returns no Tensor.
    """
    since = next_age()
    if len(xs) != len(ts):
        raise ShapeError(f"jvp needs a tangent for each argument: {len(xs)} arguments, {len(ts)} tangents")
    fresh = [_fresh(x) for x in xs]
    tangents = [t if isinstance(t, Tensor) else tensor(t, backend=x.backend) for x, t in zip(fresh, ts)]
    for x, t in zip(fresh, tangents, strict=True):
        if x.backend != t.backend:
            raise mixed("jvp", ("x", "its tangent"), (x, t), "")
        if x.shape != t.shape:
            raise ShapeError(f"a tangent of shape {t.shape} for an argument of shape {x.shape}; they must be equal")
    tangents = [t if t.dtype == x.dtype else astype(t, dtype=x.dtype) for x, t in zip(fresh, tangents)]
    y, connected = _run(f, fresh, since)
    connected = connected or (current().recording and any(t.requires_grad for t in tangents))
    with enable_grad() if connected else no_grad():
        moved = push(y, list(zip(fresh, tangents, strict=True)))
    return (y, moved) if connected else (y.detach(), moved.detach())


def jacobian(f: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Tensor]:
    """A function that returns all partial derivatives of f, of shape y.shape + x.shape: a backward pass per element.

    Raises (when called): OptionError, if there is no argument `argnums`; GraphError, if f returns no Tensor.
    """

    def all_partials(*args: Any) -> Tensor:
        at = _place(argnums, args)
        x = args[at] if isinstance(args[at], Tensor) else tensor(args[at])
        y, back = vjp(lambda x: f(*args[:at], x, *args[at + 1 :]), x)
        rows = []
        for i in range(y.size):
            one_hot = np.zeros(y.shape, y.dtype)
            one_hot.flat[i] = 1
            rows.append(back(tensor(one_hot, backend=y.backend))[0])
        return stack(rows).reshape((*y.shape, *x.shape))

    return all_partials


def hessian(f: Callable[..., Tensor], argnums: int = 0) -> Callable[..., Tensor]:
    """A function that returns the second derivatives of the scalar function f, of shape x.shape + x.shape.

    Raises (when called): as `value_and_grad`.
    """
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Callable[..., Tensor], x: Any, v: Any) -> Tensor:
    """The Hessian of the scalar function f at x times v, of x's shape, without ever making the Hessian.

    Forward mode over reverse mode (Pearlmutter 1994, Fast exact multiplication by the Hessian).

    Raises: as `jvp`, of v beside x; GraphError, if f returns no scalar.
    """
    return jvp(grad(f), [x], [v])[1]


def checkpoint(f: Callable[..., Any], *xs: Any) -> Any:
    """f(*xs), keeping none of what it computes on the way: backward runs f once more, with the same random numbers.

    Gradients reach the tensors among xs and whatever else f uses, such as the parameters of a module; second
    derivatives too. Numbers that change in between are noticed, as everywhere: ModifiedError.

    f: takes xs as they are and returns a Tensor, or tuples and lists of Tensors of one dtype, nested as you like.

    Raises: GraphError, if f returns anything else; what f raises.
    """
    if not current().recording:
        return f(*xs)
    state, since = random.get_state(), next_age()
    result = f(*[Tensor(x._array, x.requires_grad) if isinstance(x, Tensor) else x for x in xs])
    y = _packed(result)
    nodes = [node for node in concerned([y], since=since).values() if node.age > since]
    given = [x for x in xs if isinstance(x, Tensor)]
    older = [x for node in nodes for x in node.inputs or () if isinstance(x, Tensor) and x.age < since]
    used = list({x.age: x for x in older}.values())

    def replay(g: Any, inputs: list[Any]) -> list[Any]:
        recorded = isinstance(g, Tensor)
        with enable_grad():
            again = [alias(x) if recorded else Tensor(x, old.requires_grad) for x, old in zip(inputs, given)]
            now, born, fresh = random.get_state(), next_age(), iter(again)
            random.set_state(state)
            try:
                y = _packed(f(*[next(fresh) if isinstance(x, Tensor) else x for x in xs]))
            finally:
                random.set_state(now)
        found: dict[int, Any] = {}
        targets = [x for x in (*again, *used) if x.requires_grad]
        pull([(y, g)], lambda x, g, ours: found.update({x.age: g}), targets=targets, since=born, recorded=recorded)
        return [found.get(x.age, _still(x) if recorded else _still(x)._array) for x in (*again, *used)]

    pieces = recomputed([*given, *used], value=y._array, replay=replay)
    return _unpacked(pieces, result, 0)[0]


def _packed(result: Any) -> Tensor:
    """Nested tensors as one, so that they are one node of the tape; a single one as it is."""
    if isinstance(result, Tensor):
        return result
    if not isinstance(result, (tuple, list)):
        raise GraphError(f"checkpoint: the function must return Tensors, not {type(result).__name__}")
    return concatenate([ravel(_packed(each)) for each in result])


def _unpacked(pieces: Tensor, like: Any, start: int) -> tuple[Any, int]:
    """The packed tensors in their own shapes and nesting again, and where the next one starts."""
    if isinstance(like, Tensor):
        if pieces.shape == like.shape and not start:
            return pieces, like.size
        return reshape(pieces[start : start + like.size], shape=like.shape), start + like.size
    parts = []
    for each in like:
        part, start = _unpacked(pieces, each, start)
        parts.append(part)
    return like._make(parts) if hasattr(like, "_make") else type(like)(parts), start
