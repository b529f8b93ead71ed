"""Why a gradient is missing, zero or not finite: sentences that name the operation, where it ran, and the numbers.

Everything is read from the ledger of the pass, and asked of the operations' own rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from ..backend import NAMESPACE_OF, as_array
from ..core.autodiff import Part, concerned, tape
from ..core.broadcasting import fitted
from ..core.modes import changed
from ..core.tensor import Tensor, keep
from ..errors import GraphError, ModifiedError, PrimitiveError
from ..transforms import tangent
from .ledger import Contribution, Ledger, argument, ledger, stopped
from .naming import names
from .summary import host, number, summary
from .words import printable

REASONS = 4
"""Up to this many reasons for one zero are told."""
CUTS = 3
"""Up to this many places at which a tape ends are told."""
FAINT = 1e-2
"""Below this slope, an element of a gate lets next to nothing through."""
CHAIN, FADED = 5, 1e-2
"""A gradient that so many operations of one kind in a row have shrunk to so little is worth a note."""


# -- none ----------------------------------------------------------------------------------------------------------


def missing(x: Tensor, of: Tensor | Ledger) -> str:
    """In one sentence, why x gets no gradient from a result (or from those of a ledger); "" if it gets one."""
    if isinstance(of, Tensor):
        if not of.requires_grad:
            why = stopped(of)
            return f"{_label(of)} has no graph: " + (
                f"it is cut off, {why}{place_of(of)}" if why else "nothing that it was made from requires a gradient"
            )
        try:
            of = ledger([of])
        except GraphError as error:
            return str(error)
    if not x.requires_grad:
        if x.dtype.kind not in "fc":
            return f"{_label(x)} holds no floating numbers, and only those have gradients: use x.astype('float32')"
        if why := stopped(x):
            return f"{_label(x)} is cut off from what it was made from: {why}{place_of(x)}"
        return f"{_label(x)} is a constant: set requires_grad=True before the computation"
    state = of.state(x)
    if state != "not reached":
        return f"the gradient of {_label(x)} is {state}" if state else ""
    if not any(x is t for t in of.tensors):
        return _never_read(x, of)
    return _dead_end(x, of)


def _never_read(x: Tensor, book: Ledger) -> str:
    """x requires a gradient and is not on the tape. What is cut off does not know what it was made from: maybe x."""
    y = book.results[0]
    result = _label(y)
    if _made_from(x, y):
        return f"{_label(x)} was made from {result}, not the other way round: are the two swapped?"
    cut = [f"{_label(t)} ({why}{place_of(t)})" for t in book.tensors if (why := stopped(t))]
    twin = next((t for t in book.tensors if x.name and t.name == x.name), None)
    if twin is not None:
        how = f" ({stopped(twin)}{place_of(twin)})" if stopped(twin) else ": x was copied or replaced"
        return f"{_label(x)} is not on the tape of {result}, but another tensor of that name is{how}"
    if not cut:
        return f"nothing that led to {result} has used {_label(x)}"
    places = "; ".join(cut[:CUTS]) + (f"; and {len(cut) - CUTS} more" if len(cut) > CUTS else "")
    which = "this" if len(cut) == 1 else "one of these"
    return (
        f"{_label(x)} itself is not on the tape of {result}, on which gradients stop here: {places}. "
        f"If {_name(x)} led to {which}, that is why; else nothing has used it"
    )


def _made_from(x: Tensor, y: Tensor) -> bool:
    try:
        return any(t is y for t in tape(x))
    except GraphError:  # the graph of x was freed
        return False


def _dead_end(x: Tensor, book: Ledger) -> str:
    """x is on the tape, and no gradient came: the first place, on the way back, at which it was not passed on."""
    readers: dict[int, list[tuple[Tensor, int]]] = {}
    for node in book.tensors:
        for place, t in enumerate(node.inputs or ()):
            if isinstance(t, Tensor):
                readers.setdefault(t.age, []).append((node, place))
    waiting, seen = [x], {x.age}
    while waiting:
        t = waiting.pop()
        for node, place in readers.get(t.age, []):
            if t.age > node.age:
                return f"{told(node)} read {_label(t)} before it required a gradient: set requires_grad=True earlier"
            if node.op is not None and not node.op.has_rule(place):
                return f"{told(node)} has no derivative for its argument {argument(node, place)}, which is {_label(t)}"
            if node.age not in seen and node.age not in book.gradients:
                seen.add(node.age)
                waiting.append(node)
    return f"no gradient came to {_label(x)}"


# -- zero ----------------------------------------------------------------------------------------------------------


def zero(x: Tensor, book: Ledger, chosen: Any = None) -> list[str]:
    """Why the gradient of x is exactly zero: where, on the way back, it was not zero yet.

    chosen: a mask of the elements of x that are meant; all, if left out.
    """
    called = names(book.tensors)
    if not x.size:
        return [f"{called[x.age]} has no elements"]
    found: dict[str, None] = {}
    elsewhere: dict[
        str, None
    ] = {}  # what reads other parts of x than those that are meant: a reason if nothing else is
    waiting = [(x, np.ones(x.shape, bool) if chosen is None else chosen)]
    seen = {x.age}
    while waiting and len(found) < REASONS:
        t, mask = waiting.pop(0)
        uses = book.contributions.get(t.age, [])
        if any(t is y for y in book.results) and not uses and not np.any(host(book.seeds[t.age])[mask]):
            found[f"the gradient that comes in for {called[t.age]} is 0"] = None
        if replaced := _replaced(t, mask, book, called):
            found[replaced] = None
            continue
        moved = [use for use in uses if np.any(host(use.added)[mask] != 0)]
        if moved:
            ops = " and ".join(dict.fromkeys(_made_by(use.consumer, called) for use in moved))
            found[f"the contributions to {called[t.age]} cancel: those of {ops} add up to 0"] = None
            continue
        for use in uses:
            onward = _influence(use, mask)
            upstream = host(use.upstream)
            if not onward.any() and pointwise(use.consumer):
                onward = np.broadcast_to(mask, use.consumer.shape)
                if (upstream[onward] != 0).any():
                    found[_switched_off(use, onward, called)] = None
                    continue
            elif not onward.any():
                picks = use.consumer.op is not None and use.consumer.op.name == "index"
                (elsewhere if picks else found)[_switched_off(use, None, called)] = None
                continue
            elif (upstream[onward] != 0).any():
                found[_small_or_balanced(use, called)] = None
                continue
            if use.consumer.age not in seen:
                seen.add(use.consumer.age)
                waiting.append((use.consumer, onward))
    return [*found, *elsewhere][:REASONS]


def _replaced(t: Tensor, mask: Any, book: Ledger, called: Mapping[int, str]) -> str:
    """Whether a hook has made the gradient of some elements 0; "" if it was 0 before, or there is no hook."""
    if not any(hook is not keep for hook in t.hooks or ()):
        return ""
    with np.errstate(all="ignore"):
        before = [after for _, _, after in book.running(t)][-1:] or [book.seeds.get(t.age, np.zeros(t.shape))]
    parts = host(before[0])[mask]
    if not np.any(parts) or np.any(host(book.gradients[t.age])[mask]):
        return ""
    return f"a hook on {called[t.age]} has replaced the gradient, which was {summary(parts).words()}, by 0"


def _influence(use: Contribution, mask: Any) -> Any:
    """Which elements of the consumer move when the chosen elements of x do."""
    probe = np.where(mask, np.random.default_rng(0).uniform(1, 2, use.x.shape), 0).astype(use.x.dtype)
    moved = moves(use, probe)
    return np.ones(use.consumer.shape, bool) if moved is None else moved != 0


def moves(use: Contribution, way: Any) -> Any:
    """How the consumer moves when x moves in a way, as a NumPy array: its own rules, forward; None where that fails."""
    t = Tensor(as_array(way, use.x.backend, use.x.dtype))
    with changed(recording=False, debug=False), np.errstate(all="ignore"):
        try:
            moved = host(tangent(use.consumer, [(use.place, t)])._array)
        except (ModifiedError, PrimitiveError):
            return None
    return np.where(way == 0, 0, moved) if pointwise(use.consumer) else moved  # 0 · nan is nan, and yet does not move


def slopes(use: Contribution) -> Any:
    """The local derivative of an operation that acts element by element, as a NumPy array; None of all others."""
    node, op = use.consumer, use.consumer.op
    if op is None or not pointwise(node) or op.variadic:
        return None
    with changed(recording=False, debug=False), np.errstate(all="ignore"):
        rule, ones = op.pulls[use.place], NAMESPACE_OF[type(node._array)].ones(node.shape, node.dtype)
        try:
            return None if rule is None else host(rule(ones, node))
        except ModifiedError:
            return None


POINTWISE = frozenset({"add", "sub", "mul", "neg", "astype", "alias"})
"""Of the linear and bilinear operations, those that act element by element."""


def pointwise(node: Tensor) -> bool:
    return node.op is not None and (node.op.kind == "elementwise" or node.op.name in POINTWISE)


def _switched_off(use: Contribution, at: Any, called: Mapping[int, str]) -> str:
    """Why the derivative of an operation is exactly 0, for the elements `at` of its result."""
    node, op = use.consumer, use.consumer.op
    assert op is not None
    here, result = _made_by(node, called), called[node.age]
    values = host(node._array) if at is None else host(node._array)[at]
    others = [x for i, x in enumerate(node.inputs or ()) if i != use.place]
    if op.name in ("sigmoid", "tanh") and values.size:
        said = " or ".join(dict.fromkeys(map(number, np.unique(values)[:2].tolist())))
        return f"{here} is saturated: {result} is exactly {said}, where its slope is 0"
    if op.name == "relu":
        return f"{here} is switched off: its argument {called[use.x.age]} is not above 0"
    if op.kind == "bilinear":
        for x in others:
            if not isinstance(x, Tensor) or not np.any(host(x._array) if at is None else _there(x, at)):
                name = called[x.age] if isinstance(x, Tensor) else "the number"
                return f"{here} multiplies {called[use.x.age]} by {name}, which is exactly 0"
    if op.name == "index":
        return f"{here} does not read this part of {called[use.x.age]}"
    if op.name in ("maximum", "minimum", "where", "max", "min"):
        return f"{here} chose something else than {called[use.x.age]}"
    if op.name == "clip":
        return f"{here} cuts {called[use.x.age]} off, which lies outside of {_bounds(node)}"
    return f"{here} does not change with {called[use.x.age]} here: its slope is exactly 0"


def _bounds(node: Tensor) -> str:
    return f"[{node.options.get('min')}, {node.options.get('max')}]"


def _there(x: Tensor, at: Any) -> Any:
    return np.broadcast_to(host(x._array), at.shape)[at]


def _small_or_balanced(use: Contribution, called: Mapping[int, str]) -> str:
    """Why a product is 0 though neither factor is."""
    here, x = _made_by(use.consumer, called), called[use.x.age]
    local = slopes(use)
    if local is not None and not use.broadcast:
        return f"{here} makes a contribution to {x} that is below the least number that {use.x.dtype} can hold"
    if local is not None and np.any(host(use.dense) != 0):
        return f"{here} gives contributions to {x} whose sum over the broadcast axes is 0"
    return f"{here} gives products to {x} that add up to 0"


def faint(x: Tensor, book: Ledger) -> list[str]:
    """The sigmoids and tanhs on the way to x that are nearly saturated, all of them or at least half."""
    called, found = names(book.tensors), []
    for node in concerned(book.results, [x]).values() if x.requires_grad else ():
        if node.op is not None and node.op.name in ("sigmoid", "tanh") and node.size:
            y = np.abs(host(node._array).astype(np.float64))
            slope = y * (1 - y) if node.op.name == "sigmoid" else 1 - y * y
            count, largest = int((slope < FAINT).sum()), float(slope.max())
            if not largest:
                continue  # what is saturated exactly is the reason of a zero, and told there
            if count == node.size:
                found.append(f"{_made_by(node, called)} is nearly saturated: its slope is at most {largest:.1g}")
            elif 2 * count >= node.size:
                of = f"{count} of the {node.size} elements of {_made_by(node, called)}"
                found.append(f"{of} are nearly saturated: their slope is below {FAINT}")
    return found[:REASONS] + ([f"{len(found) - REASONS} more are nearly saturated"] if len(found) > REASONS else [])


def fading(x: Tensor, book: Ledger) -> list[str]:
    """Whether the gradient shrinks step by step on its way to x: in a long chain of operations of one kind and name.

    It is looked for on one way, which at each fork is the one by which the largest contribution comes.
    """
    chains: dict[tuple[str, str], list[Tensor]] = {}
    while uses := book.contributions.get(x.age):
        x = max(uses, key=lambda use: summary(host(use.added)).norm).consumer
        chains.setdefault((x.op.name if x.op else "", x.name or ""), []).append(x)
    longest = max(map(len, chains.values()), default=0)
    chains = {kind: chain for kind, chain in chains.items() if len(chain) >= max(CHAIN, longest / 2)}
    if not chains:
        return []
    (op, name), chain = max(chains.items(), key=lambda each: (_curved(each[1][0]), each[0][1] != ""))
    early, late = (summary(host(book.gradients[t.age])).norm for t in (chain[0], chain[-1]))
    if not 0 < early < FADED * late:
        return []
    said = f"{len(chain)} {op}" + (f" called {printable(name)}" if name else "")
    return [
        f"the gradient shrinks on its way back through {said} in a row, from a norm of {number(late)} to "
        f"{number(early)}: by about ×{(early / late) ** (1 / (len(chain) - 1)):.2g} at each"
    ]


def _curved(node: Tensor) -> bool:
    """Whether its slope differs from element to element, as that of a squashing function does."""
    return node.op is not None and node.op.kind == "elementwise"


# -- not finite ----------------------------------------------------------------------------------------------------

CAUSES = {
    "div": "a division by 0", "reciprocal": "a division by 0", "log": "log has no finite slope at 0",
    "log1p": "log(1 + x) has no finite slope at -1", "sqrt": "the slope of sqrt is infinite at 0",
    "power": "the slope of this power is infinite at 0", "norm": "the slope of a norm has no value at 0",
    "std": "the slope of std has no value where all numbers are equal", "arcsin": "its slope is infinite at 1 and -1",
    "arccos": "its slope is infinite at 1 and -1", "exp": "exp is beyond the largest number of its dtype",
}  # fmt: skip


def broken(x: Tensor, book: Ledger, chosen: Any = None) -> list[str]:
    """Why the gradient of x is not finite: the first operation on the way back, and on the way forward, to make it.

    chosen: a mask of the elements of x that are meant; all, if left out.
    """
    called = names(book.tensors)
    way = reached(x, book, chosen)
    found = [*_first_backward(way, book, called), *_first_forward(_read(way, book), book, called)]
    if not found and chosen is not None:  # a part of the way that could not be told element by element
        return broken(x, book)
    return found or [f"the sum of the contributions to {called[x.age]} is beyond the largest number of {x.dtype}"]


def reached(x: Tensor, book: Ledger, chosen: Any = None) -> dict[int, Any]:
    """By age of all that is made from x, which elements of it are made from the chosen ones (all, if left out)."""
    if chosen is None:
        return {age: np.ones(t.shape, bool) for age, t in concerned(book.results, [x]).items()}
    way = {x.age: chosen}
    for t in book.tensors[::-1]:  # the oldest first: what x has come to is complete before it is passed on
        if t.age not in way:
            continue
        for use in book.contributions.get(t.age, []):
            node = use.consumer
            part = np.broadcast_to(way[t.age], node.shape) if pointwise(node) else _influence(use, way[t.age])
            way[node.age] = way[node.age] | part if node.age in way else part
    return way


def _read(way: Mapping[int, Any], book: Ledger) -> dict[int, Any]:
    """By age, the elements whose values the rules along a way look at, and those that these were made from.

    Linear operations look at none, bilinear ones at the other factor. Where it is not known, it is the whole array.
    """
    found: dict[int, Any] = {}

    def add(t: Any, mask: Any) -> None:
        if isinstance(t, Tensor):
            found[t.age] = found[t.age] | mask if t.age in found else mask

    for age in way:
        for use in book.contributions.get(age, []):
            node = use.consumer
            kind, mask = node.op.kind if node.op else "", way.get(node.age)
            if mask is None or kind == "linear":
                continue
            others = [t for at, t in enumerate(node.inputs or ()) if kind != "bilinear" or at != use.place]
            for t in others if kind == "bilinear" else [*others, node]:
                add(t, _sources(node, t, mask))
    for node in book.tensors:  # the youngest first
        if node.age in found:
            for t in node.inputs or ():
                add(t, _sources(node, t, found[node.age]))
    return found


def _sources(node: Tensor, t: Any, mask: Any) -> Any:
    """Which elements of an input (or of the node itself) have a part in those of the node."""
    if not isinstance(t, Tensor):
        return None
    if t is node or (pointwise(node) and t.shape == node.shape):
        return mask
    op, rules = node.op, node.op.pulls if node.op and node.op.kind == "linear" and not node.op.variadic else ()
    place = next((at for at, x in enumerate(node.inputs or ()) if x is t), -1)
    rule = rules[place] if place < len(rules) else None
    if op is None or op.vjp or rule is None:
        return np.ones(t.shape, bool)
    g = as_array(mask.astype(node.dtype), node.backend, node.dtype)
    with changed(recording=False, debug=False), np.errstate(all="ignore"):
        try:
            d = rule(g, node)
        except ModifiedError:
            return np.ones(t.shape, bool)
    return host(fitted(d.whole() if type(d) is Part else d, t)) != 0


def _first_backward(way: Mapping[int, Any], book: Ledger, called: Mapping[int, str]) -> Iterator[str]:
    for y in book.results:
        if y.age in way and y.age in book.seeds and not _finite(host(book.seeds[y.age])[way[y.age]]):
            yield f"the gradient that comes in for {called[y.age]} is not finite"
            return
    uses = [use for age in way for use in book.contributions.get(age, []) if use.consumer.age in way]
    for use in sorted(uses, key=lambda use: -use.consumer.age):
        rows, upstream = host(use.dense), host(use.upstream)[way[use.consumer.age]]
        meant = np.broadcast_to(way[use.x.age], rows.shape)
        if _finite(upstream) and not _finite(rows[meant]):
            yield _made(use, rows, meant, called)
            return
    for t in book.tensors:
        hooked = t.age in way and any(hook is not keep for hook in t.hooks or ())
        if hooked and not _finite(host(book.gradients.get(t.age, np.zeros(t.shape)))[way[t.age]]):
            yield f"a hook on {called[t.age]} gave a gradient that is not finite"
            return


def _made(use: Contribution, rows: Any, meant: Any, called: Mapping[int, str]) -> str:
    node, local = use.consumer, slopes(use)
    at = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(rows) & meant)) if rows.ndim else ()
    where = f" at element {at}" if at else ""
    value = number(float(rows[at]))
    said = f"{_made_by(node, called)} is the first to give {called[use.x.age]} a contribution that is not finite, "
    said += f"{value}{where}"
    if local is not None and local.shape == rows.shape == node.shape:
        up, slope = float(host(use.upstream)[at]), float(local[at])
        said += f": upstream {number(up)} times slope {number(slope)}"
        said += ", and 0 · inf has no value" if up == 0 and np.isinf(slope) else ""
    outside = (
        local is not None and local.shape == rows.shape and np.isnan(local[at])
    )  # no slope at all, not a steep one
    cause = CAUSES.get(node.op.name if node.op and not outside else "")
    inputs = [(called[t.age], host(t._array)) for t in node.inputs or () if isinstance(t, Tensor)]
    holds = [name for name, held in inputs if not _finite(held[at] if held.shape == rows.shape else held)]
    if holds:
        return f"{said}; {holds[0]} is not finite itself"
    return f"{said}; {cause}" if cause else said


def _first_forward(read: Mapping[int, Any], book: Ledger, called: Mapping[int, str]) -> Iterator[str]:
    for node in book.tensors[::-1]:
        values = host(node._array)
        if node.age not in read or _finite(values[read[node.age]]):
            continue
        inputs = [t for t in node.inputs or () if isinstance(t, Tensor)]
        if any(not _finite(host(t._array)[read[t.age]]) for t in inputs):
            continue
        at = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(values) & read[node.age])) if values.ndim else ()
        where, value = f" at element {at}" if at else "", number(float(np.real(values[at])))
        if node.op is None:
            yield f"{called[node.age]} itself holds {value}{where}"
            return
        given = [
            f"{called[t.age]} = {number(float(np.real(host(t._array)[at])))}" for t in inputs if t.shape == node.shape
        ]
        source = f" from {', '.join(given)}" if given else ""
        yield f"the value was not finite before: {_made_by(node, called)} made {value}{where}{source}"
        return


# -- other numbers since -------------------------------------------------------------------------------------------


def changed_note(leaves: Collection[int], called: Mapping[int, str]) -> list[str]:
    """A sentence about the leaves, by age, that have other numbers now; none, if there are none."""
    if not leaves:
        return []
    listed = ", ".join(called[age] for age in sorted(leaves)[:REASONS])
    more = f" and {len(leaves) - REASONS} more" if len(leaves) > REASONS else ""
    have = "has" if len(leaves) == 1 else "have"
    return [f"{listed}{more} {have} other numbers now than the tape read; all that was computed is as it was."]


# -- words ---------------------------------------------------------------------------------------------------------


def told(node: Tensor) -> str:
    """An operation, and where it ran: "mul at train.py:12 in gru[t=2].cell"."""
    return f"{node.op.name if node.op else 'a leaf'}{place_of(node)}"


def _made_by(node: Tensor, called: Mapping[int, str]) -> str:
    return f"{called[node.age]} = {told(node)}"


def place_of(t: Tensor) -> str:
    """Where something was computed, as far as it is known: " at train.py:12 in gru[t=2].cell"."""
    source = f" at {printable(t.source)}" if t.source else ""
    return source + (f" in {printable(t.scope.path)}" if t.scope else "")


def _label(t: Tensor) -> str:
    return printable(t.label)


def _name(t: Tensor) -> str:
    return printable(t.name) if t.name else "it"


def _finite(array: Any) -> bool:
    values = host(array)
    return bool(np.isfinite(values).all()) if values.dtype.kind in "fc" else True
