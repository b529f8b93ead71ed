"""From a tape to the model of a picture: which boxes there are, what stands in them, and what is left out."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.autodiff import tape
from ..core.modes import Scope
from ..core.primitive import Primitive
from ..core.tensor import Tensor
from ..errors import GraphError, PrimitiveError
from .formula import Local, local
from .graph import Edge, Graph, Group, Node
from .ledger import Contribution, Ledger, argument, changed_since, ledger, stopped
from .reasons import slopes
from .summary import Summary, host, summary
from .view import Box, View, boxes, rolled
from .words import printable

PLAIN = (type(None), bool, int, float, str)
SYMMETRIC = frozenset({"add", "mul", "maximum", "minimum", "equal", "not_equal"})
"""Operations whose arguments may change places, so that their arrows need no names."""
MANY = 6
"""How many arrows may leave one leaf within one group, or join time steps into one value; above, stubs do it."""


def graph(
    results: Sequence[Tensor], view: View | None = None, *, values: bool = True, grads: bool = True, grad: Any = None
) -> Graph:  # fmt: skip
    """The model of everything that had a part in making some results.

    view: what is shown of it; without one, everything. values, grads: whether the numbers are wanted.
    grad: the gradient that comes in for each result; ones if left out.

    Raises: GraphError, if there is nothing to draw, or if the graph was freed.
    """
    if not any(y.op for y in results):
        raise GraphError(f"{results[0].label if results else 'nothing'} has no graph to draw: {_why_none(results)}")
    book, problem = None, ""
    if grads:
        try:
            book = ledger(results, grad)
        except PrimitiveError as error:  # a rule of a user's own that does not work
            problem = printable(str(error))
    return _Builder(results, view or View(steps="all", collapse=False), values, book, problem).graph()


def _why_none(results: Sequence[Tensor]) -> str:
    if results and results[0].stop:
        return f"{printable(results[0].stop)}, so that nothing is known of what it was made from"
    if results and results[0].requires_grad:
        return "nothing was computed yet; draw what is made from it"
    return (
        "nothing that it was made from requires a gradient; set requires_grad=True on the tensors to learn, "
        "and compute outside of no_grad()"
    )


class _Builder:
    """What is known of one tape while its model is made."""

    def __init__(
        self, results: Sequence[Tensor], view: View, values: bool, book: Ledger | None, problem: str
    ) -> None:  # fmt: skip
        self.view, self.values, self.book, self.problem = view, values, book, problem
        self.formulas: dict[Any, Local] = {}
        self.tensors = tape(*results)[::-1]
        self.results = {y.age: y for y in results}
        self.ids = {t.age: f"n{i}" for i, t in enumerate(self.tensors)}
        self.names = {t.age: _word(t.name) for t in self.tensors}
        self.groups: dict[Scope, Group] = {}
        self.steps: dict[str, str] = {"": ""}  # the innermost time step around a group
        for t in self.tensors:
            if t.op is not None and t.scope is not None:
                self._group(t.scope)
        self.parents = {g.id: g.parent for g in self.groups.values()}
        self.users: dict[int, list[Tensor]] = {t.age: [] for t in self.tensors}
        self.uses = dict.fromkeys(self.users, 0)
        for t in self.tensors:
            for x in t.inputs or ():
                if type(x) is Tensor:
                    self.uses[x.age] += 1
                    if not (users := self.users[x.age]) or users[-1] is not t:
                        users.append(t)
        around = {g.parent for g in self.groups.values() if g.step is not None}
        self.weights: set[int] = set()  # by age, what a loop has made of parameters alone, such as a slice of a weight
        for t in self.tensors:
            made_of = [x for x in t.inputs or () if type(x) is Tensor]
            alone = all(x.age in self.weights or self._role(x) == "parameter" for x in made_of)
            if t.op and alone and self._home(t) in around:
                self.weights.add(t.age)
        self._fold()
        self.saved = {
            x.age
            for t in self.tensors
            if t.op
            for x, name in [*((x, argument(t, i).partition("[")[0]) for i, x in enumerate(t.inputs or ())), (t, "y")]
            if type(x) is Tensor and name in _read_again(t.op)
        }
        self.changed = changed_since(self.tensors)
        self.contributions: dict[tuple[int, int], Contribution] = {}
        if book:
            for each in book.contributions.values():
                self.contributions |= {(c.consumer.age, c.place): c for c in each}

    def _group(self, scope: Scope) -> Group:
        chain: list[Scope] = []
        inner: Scope | None = scope
        while inner is not None and inner not in self.groups:
            chain.append(inner)
            inner = inner.parent
        for s in reversed(chain):
            parent = self.groups[s.parent].id if s.parent else ""
            step = s.step if s.step is None else int(s.step)  # NumPy's integers are none to JSON
            group = Group(f"c{len(self.groups)}", parent, _word(s.name), _word(s.kind), step, s.path)
            self.groups[s] = group
            self.steps[group.id] = group.id if s.step is not None else self.steps[parent]
        return self.groups[scope]

    def _home(self, t: Tensor) -> str:
        """The group that a tensor was born in; leaves are drawn where they are used instead."""
        return self.groups[t.scope].id if t.op is not None and t.scope is not None else ""

    def _fold(self) -> None:
        """Decide which box or which counterpart stands for a tensor, and which are drawn at all."""
        sizes: dict[str, int] = {}
        for t in self.tensors:
            if t.op is not None:
                sizes[self._home(t)] = sizes.get(self._home(t), 0) + 1
        self.boxes = boxes(list(self.groups.values()), sizes, self.view)
        self.beside = self._beside_steps()
        self.models: dict[int, Tensor] = {}  # by age, what stands for a tensor of a rolled loop
        if self.view.roll:
            loops: dict[str, dict[str, list[Tensor]]] = {}
            for t in self.tensors:
                step = self.beside.get(t.age) or self.steps[self._home(t)]
                if step and step not in self.boxes:  # what a box hides is rolled into nothing
                    loops.setdefault(self.parents[step], {}).setdefault(step, []).append(t)
            for loop in loops.values():
                self.models |= rolled(loop.values())
        number = {g.id: g.step for g in self.groups.values()}
        pairs = [(self.models[t.age], t) for t in self.tensors if t.op and t.age in self.models]
        self._last = {self._step(model): number[self._step(t)] for model, t in pairs}
        self._rolled = {*self.models, *(t.age for t in self.models.values())}
        self.members: dict[int, list[Tensor]] = {}
        for t in self.tensors:
            if t.age in self.models:
                self.members.setdefault(self.models[t.age].age, []).append(t)
        self.box_of = {
            t.age: box.id
            for t in self.tensors
            if t.op is not None and (box := self.boxes.get(self.beside.get(t.age) or self._home(t)))
        }
        for t in self.tensors:
            if t.age in self.box_of:
                self.boxes[self.beside.get(t.age) or self._home(t)].tensors.append(t)
        self.by_id = {box.id: box for box in self.boxes.values() if box.tensors}
        self.gathering: set[int] = set()  # by age, what is made from the results of many time steps, such as a stack
        for t in self.tensors:
            shown = {self._step_shown(x) for x in t.inputs or () if type(x) is Tensor}
            if not self._step_shown(t) and len(shown) > MANY:
                self.gathering.add(t.age)

    def _beside_steps(self) -> dict[int, str]:
        """By age, the time step whose own preparation or finish an operation is, though it stands outside of it.

        Such as one slice of x, or the masked output of one step: it lies in the loop's own frame and touches one step.
        """
        around = {g.parent for g in self.groups.values() if g.step is not None}
        found: dict[int, str] = {}
        for t in self.tensors:
            if t.op is None or self._home(t) not in around or t.age in self.results:
                continue
            before = {self.steps[self._home(x)] for x in t.inputs or () if type(x) is Tensor and x.op}
            after = {self.steps[self._home(user)] for user in self.users[t.age]}
            if before <= {""} and len(after) == 1:
                found[t.age] = after.pop()
            elif len(before - {""}) == 1 and after <= {""}:
                found[t.age] = (before - {""}).pop()
        return {age: step for age, step in found.items() if step}

    def _step_shown(self, t: Tensor) -> str:
        """The time step that a tensor was born in, or the box that hides it."""
        return self.box_of.get(t.age) or self.steps[self._home(self.models.get(t.age, t))]

    def _shown(self, t: Tensor) -> str:
        """The id of the box that stands for a tensor."""
        return self.box_of.get(t.age) or self.ids[self.models.get(t.age, t).age]

    def _role(self, t: Tensor) -> str:
        if t.op is not None:
            return "operation"
        if t.requires_grad:
            return "parameter"
        return "constant" if not self.names[t.age] and (t.size == 1 or t.dtype.kind == "b") else "input"

    def _places(self, t: Tensor) -> dict[int, str | None]:
        """Where to draw what the users (by age) of a tensor see of it: the name of a place, "" for where it is itself.

        Parameters stand in the innermost group of their user, inputs in its time step. The result of an operation
        stays where it was born, unless it is used in several other time steps, or by something that gathers many steps.
        None: nothing is drawn, because the user is hidden in a box, for which weights are taken for granted; of
        very many boxes the first one gets an arrow for all.
        """
        role, users = self._role(t), self.users[t.age]
        inside = {user.age: self.box_of[user.age] for user in users if user.age in self.box_of}
        homes = {user.age: self._home(self.models.get(user.age, user)) for user in users if user.age not in inside}
        if role != "parameter":
            homes = {age: self.steps[home] for age, home in homes.items()}
        shown = {user.age: self._shown(user) for user in users}
        found: dict[int, str | None] = {}
        if role == "operation":
            own = self._step_shown(t)
            others = {step for step in [*homes.values(), *inside.values()] if step not in ("", own)}
            found |= {age: home if len(others) > 1 and home in others else "" for age, home in homes.items()}
            found |= {age: shown[age] for age in homes if own and age in self.gathering}
            boxes = list(dict.fromkeys(inside.values()))
            shown_in = () if t.age in self.weights else boxes if len(boxes) <= MANY else boxes[:1]
            return found | {age: "" if box in shown_in else None for age, box in inside.items()}
        counts = Counter(dict(zip((shown[age] for age in homes), homes.values())).values())
        if len(counts) == 1 and max(counts.values()) <= MANY and not (inside and role == "parameter"):
            found |= dict.fromkeys(homes, "")
        else:
            found |= {age: shown[age] if counts[home] > MANY else home or "top" for age, home in homes.items()}
        alone = role == "input" and len(set(inside.values())) == 1 and self.names[t.age]
        several = alone and len(self.by_id[next(iter(inside.values()))].groups) > 1
        return found | dict.fromkeys(inside, "" if alone and not several else None)

    def graph(self) -> Graph:
        nodes: list[Node] = []
        edges: dict[str, Edge] = {}
        drawn: set[str] = set()
        self.places: dict[int, dict[int, str | None]] = {}
        parts = self._parts()
        last = {box.id: box.tensors[-1].age for box in self.by_id.values()}
        for t in self.tensors:
            op, target, hidden = t.op, self._shown(t), t.age in self.box_of
            for place, x in enumerate(t.inputs or ()):
                if type(x) is not Tensor or (hidden and self._shown(x) == target):
                    continue
                if op is None or (where := self._placed(x)[t.age]) is None:
                    continue
                source = self._shown(x)
                if where:
                    of, source = source, f"{source}_{where}"
                    if source not in drawn:
                        drawn.add(source)
                        home = self._home(self.models.get(t.age, t))
                        group = where if where in self.steps else home if where != "top" else ""
                        nodes.append(self._node(self.models.get(x.age, x), parts, id=source, group=group, of=of))
                many = op.variadic and (x.age in self.box_of or x.age in self._rolled)
                name = f"e{source}_{target}_{self.ids[x.age] if hidden else 'all' if many else place}"
                if known := edges.get(name):
                    edges[name] = replace(known, count=known.count + 1)
                else:
                    edges[name] = self._edge(x, t, place, many, name, source, target)
            if hidden:
                if last[target] == t.age:
                    nodes.append(self._module(self.by_id[target]))
            elif t.age not in self.models and (t.op or t.requires_grad or set(self._placed(t).values()) != {None}):
                nodes.append(self._node(t, parts, id=target, group=self._own_group(t, self._placed(t))))
        nodes, kept, gone = _tidied(nodes, list(edges.values()))
        shown = {name for node in nodes if not node.listed for name in self._around(node.group)}
        groups = [replace(g, last=self._last.get(g.id)) for g in self.groups.values() if g.id in shown]
        return Graph(tuple(nodes), tuple(kept), tuple(groups), self._of(), gone)

    def _placed(self, t: Tensor) -> dict[int, str | None]:
        if t.age not in self.places:
            self.places[t.age] = self._places(t)
        return self.places[t.age]

    def _around(self, group: str) -> Iterable[str]:
        while group:
            yield group
            group = self.parents[group]

    def _of(self) -> str:
        """What the gradients are those of, in words."""
        names = [self.names[y.age] or (y.op.name if y.op else "result") for y in self.results.values()]
        words = " and ".join(dict.fromkeys(names))
        return words if len(names) == 1 and next(iter(self.results.values())).size == 1 else f"the sum of {words}"

    def _own_group(self, t: Tensor, places: Mapping[int, str | None]) -> str:
        """Where a tensor itself is drawn; a leaf with stubs everywhere is only listed, outside of all groups."""
        if t.op is not None:
            return self._home(t)
        if not places or any(places.values()) or None in places.values():
            return ""
        home = next((self._home(user) for user in self.users[t.age] if user.age not in self.box_of), "")
        return home if self._role(t) == "parameter" else self.steps[home]

    def _parts(self) -> dict[int, str]:
        """By age, the named quantity that an operation leads to, where there is only one within its group."""
        parts: dict[int, str] = {}
        for t in reversed(self.tensors):
            if t.op is not None:
                near = {parts[user.age] for user in self.users[t.age] if user.scope is t.scope}
                parts[t.age] = self.names[t.age] or (near.pop() if len(near) == 1 else "")
        return parts

    def _node(self, t: Tensor, parts: Mapping[int, str], *, id: str, group: str, of: str = "") -> Node:
        role, members = self._role(t), [t, *self.members.get(t.age, [])]
        said = _text(t) if t.op else _number(t) if role == "constant" else ""
        if of and t.op:  # a stub does not repeat the operation; it says which step its value comes from
            step = next((g.step for g in self.groups.values() if g.id == self.steps[self._home(t)]), None)
            said = ", ".join(([] if self.names[t.age] else [said]) + ([] if step is None else [f"t = {step}"]))
        kept = t._grad
        return Node(
            id=id, role=role, name=self.names[t.age], shape=tuple(t.shape), dtype=str(t.dtype),
            requires_grad=t.requires_grad, op=t.op.name if t.op else "", text=said,
            formula=self._formulas(t).result if t.op and not of else "", group=group, part=parts.get(t.age, ""),
            result=t.age in self.results and not of, of=of, **self._numbers(members),
            grad="" if role != "parameter" else "not run" if kept is None else str(summary(kept._array)),
            stop=stopped(t), saved=t.age in self.saved, uses=self.uses[t.age], count=len(members),
            source=t.source or "", stale=t.age in self.changed,
        )  # fmt: skip

    def _numbers(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The numbers of one value, or of all that one box stands for."""
        found: dict[str, Any] = {"value": _together([t._array for t in tensors]) if self.values else None}
        if self.problem:
            return found | {"state": f"not run: {self.problem}"}
        if self.book is None:
            return found
        state = self.book.state(tensors[-1])
        gradients = [self.book.gradients[t.age] for t in tensors if t.age in self.book.gradients]
        return found | {"gradient": _together(gradients) if gradients and not state else None, "state": state}

    def _module(self, box: Box) -> Node:
        """The box of one or several calls or time steps; it shows the last value that leaves it."""
        inside = {t.age for t in box.tensors}
        leaving = [
            t for t in box.tensors if t.age in self.results or any(u.age not in inside for u in self.users[t.age])
        ]
        out = (leaving or box.tensors)[-1]
        first, last = box.groups[0], box.groups[-1]
        if first.step is None:
            text = first.kind or first.name
        elif first is last:
            text = f"t = {first.step}"
        else:
            text = f"\u2026 {len(box.groups)} more steps \u2026"
        return Node(
            id=box.id, role="module" if first.step is None else "step", name=self.names[out.age],
            shape=tuple(out.shape), dtype=str(out.dtype), requires_grad=out.requires_grad, text=text,
            group=first.parent, part=self.names[out.age], result=any(t.age in self.results for t in box.tensors),
            count=len(box.tensors), **self._numbers([out]),
        )  # fmt: skip

    def _edge(self, x: Tensor, t: Tensor, place: int, many: bool, id: str, source: str, target: str) -> Edge:
        op = t.op
        assert op is not None
        hidden = t.age in self.box_of
        at = min(place, len(op.arrays) - 1) if op.variadic else place
        shapes = [other.shape for other in t.inputs or () if type(other) is Tensor]
        told = op.kind == "bilinear" and len(set(shapes)) > 1  # by the shapes, as in x @ W
        given = None if hidden else self.contributions.get((t.age, place))
        lost = "" if hidden or self.book is None else self.book.missing.get((t.age, place), "")
        return Edge(
            id=id, source=source, target=target, place=place,
            name=self.names[x.age] if hidden else op.arrays[-1] if many else argument(t, place),
            ordered=len(shapes) > 1 and not told and op.name not in SYMMETRIC and not hidden and not many,
            differentiable=x.requires_grad and op.has_rule(at),
            slope="" if hidden or not x.requires_grad else self._formulas(t).slopes.get(place, ""),
            contribution=summary(given.dense) if given else None, local=_local(given),
            broadcast=given is not None and given.broadcast, lost=lost,
            loop=self._in_loop(x, t),
        )  # fmt: skip

    def _in_loop(self, x: Tensor, t: Tensor) -> bool:
        """Whether a value goes from one time step into another that is drawn as the same."""
        step = self._step_shown(t)
        return (
            bool(step) and t.age not in self.box_of and step == self._step_shown(x) and self._step(x) != self._step(t)
        )

    def _step(self, t: Tensor) -> str:
        return self.beside.get(t.age) or self.steps[self._home(t)]

    def _formulas(self, t: Tensor) -> Local:
        """The formulas of an operation; equal ones are worked out once."""
        if t in self.formulas:
            return self.formulas[t]
        known = tuple(x.shape if type(x) is Tensor else x for x in t.inputs or ())
        key = (_text(t), known, t.shape)
        if key not in self.formulas:
            self.formulas[key] = local(t)
        self.formulas[t] = self.formulas[key]
        return self.formulas[t]


def _local(given: Contribution | None) -> Summary | None:
    """The local derivative, where it has one number for each number of the result."""
    found = None if given is None or (given.consumer.op and given.consumer.op.vjp) else slopes(given)
    return None if found is None else summary(found)


def _tidied(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[list[Node], list[Edge], int]:
    """Without what leads only to hidden things, and how many operations that is; leaves of that kind are listed."""
    leaving = Counter(edge.source for edge in edges)
    entering: dict[str, list[Edge]] = {}
    for edge in edges:
        entering.setdefault(edge.target, []).append(edge)
    stubs = Counter(node.of for node in nodes if node.of)
    idle = [n for n in nodes if not (n.result or leaving[n.id] or stubs[n.id] or n.closed or n.role == "parameter")]
    gone: set[str] = set()
    by_id = {node.id: node for node in nodes}
    while idle:
        node = idle.pop()
        gone.add(node.id)
        for edge in entering.get(node.id, []):
            leaving[edge.source] -= 1
            source = by_id[edge.source]
            if not leaving[source.id]:
                stubs[source.of] -= 1
                if source.of or not (source.role == "parameter" or source.result or stubs[source.id]):
                    idle.append(source)
    found = []
    for node in nodes:
        if node.id in gone:
            continue
        leaf = not (node.op or node.of or node.closed)
        listed = leaf and not node.result and not leaving[node.id]
        found.append(replace(node, listed=True, group="") if listed else node)
    hidden = sum(by_id[name].role == "operation" and not by_id[name].of for name in gone)
    return found, [edge for edge in edges if edge.target not in gone], hidden


@lru_cache
def _read_again(op: Primitive) -> frozenset[str]:
    """Which arguments, and "y" for the result, the way back through a primitive reads again."""
    if op.vjp:
        return frozenset({*op.arrays, "y"})
    needs = {need for rule in op.rules.values() for need in inspect.signature(rule).parameters}
    shapes = op.rules.keys() if op.kind == "linear" else set()  # it only looks at the shape of such
    return frozenset(needs & {*op.arrays, "y"} - shapes)


def _together(arrays: Sequence[Any]) -> Summary:
    """The summary of all numbers of some arrays."""
    if len(arrays) == 1:
        return summary(arrays[0])
    return summary(np.concatenate([host(array).ravel() for array in arrays]))


def _word(name: Any) -> str:
    """A name as text, also if somebody has numbered things instead of naming them."""
    return "" if name is None else str(name)


def _text(t: Tensor) -> str:
    """The operation with what is no tensor among its arguments: "sub(1, ·)", "sum(axis=0)", "index[:, 0]".

    Of a fused one, which has many arguments, only the plain options.
    """
    op, inputs = t.op, t.inputs or ()
    assert op is not None
    if op.name == "index":
        return _short(f"index[{_key(t.options['key'])}]")
    parts = []
    if any(type(x) is not Tensor for x in inputs) and not op.vjp:
        parts = ["·" if type(x) is Tensor else f"{x:.6g}" if type(x) is float else str(x) for x in inputs]
    told = {k: v for k, v in t.options.items() if not op.vjp or isinstance(v, PLAIN)}
    parts += [f"{k}={_option(v)}" for k, v in told.items() if not _equal(v, op.defaults[k])]
    return _short(f"{op.name}({', '.join(parts)})" if parts else op.name)


def _number(t: Tensor) -> str:
    return f"{t.item():.6g}" if t.size == 1 and t.dtype.kind in "biuf" else ""


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and isinstance(value, PLAIN) and bool(value == default)


def _option(value: Any) -> str:
    if isinstance(value, PLAIN):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(_option(each) for each in value)}{',' if len(value) == 1 else ''})"
    if hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return getattr(value, "__name__", type(value).__name__)


def _key(key: Any) -> str:
    parts: Iterable[Any] = key if isinstance(key, tuple) else (key,)
    return ", ".join(_slice(p) if isinstance(p, slice) else "..." if p is Ellipsis else _option(p) for p in parts)


def _slice(part: slice) -> str:
    ends = [part.start, part.stop] + ([part.step] if part.step not in (None, 1) else [])
    return ":".join("" if end is None else str(end) for end in ends)


def _short(text: str, width: int = 36) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
