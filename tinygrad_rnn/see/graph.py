"""The one model of a picture: boxes, arrows and groups, in the order of the tape, and nothing about how they look.

Values that are used in many places, above all parameters, are not joined to all of them by long arrows: each
place gets a *stub*, a box of its own that stands for the value. Without that an unrolled network is unreadable,
and laying it out takes minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..core.autodiff import tape
from ..core.modes import Scope, changed
from ..core.tensor import Tensor
from ..errors import GraphError

FORMAT = 1
PLAIN = (type(None), bool, int, float, str)
SYMMETRIC = frozenset({"add", "mul", "maximum", "minimum", "equal", "not_equal"})
"""Operations whose arguments may change places, so that their arrows need no names."""
MANY = 6
"""How many arrows may leave one leaf within one group, or join time steps into one value; above, stubs do it."""


@dataclass(frozen=True)
class Node:
    """One box.

    id: "n" and the place in the tape, oldest first; a stub adds the place that it stands in.
    role: "operation", "parameter" (a leaf with a gradient), "input" (one without) or "constant".
    op: the primitive's name; text: the same with its numbers and options, such as "sub(1, ·)".
    group: the id of the innermost group around it, "" for none.
    part: the named quantity of its group that it helps to complete, such as "z"; its own name if it has one.
    result: whether it is what the picture was asked for.
    of: for a stub, the id of the box that it stands for.
    """

    id: str
    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    op: str = ""
    text: str = ""
    group: str = ""
    part: str = ""
    result: bool = False
    of: str = ""


@dataclass(frozen=True)
class Edge:
    """One arrow: the value of `source` is the argument `name` (number `place`) of `target`.

    ordered: whether the name matters: the arguments cannot change places, and their shapes do not tell them apart.
    differentiable: whether a gradient comes back along it.
    """

    id: str
    source: str
    target: str
    place: int
    name: str
    ordered: bool
    differentiable: bool


@dataclass(frozen=True)
class Group:
    """One call of a module, or one time step (`step` is its number, else None); `parent` is "" at the top."""

    id: str
    parent: str
    name: str
    kind: str
    step: int | None
    path: str


@dataclass(frozen=True)
class Graph:
    """The whole picture: boxes in tape order, oldest first (a stub comes before its first use), arrows, groups."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]

    def to_json(self) -> str:
        """The model as JSON text, which `from_json` reads back."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()  # half a pair of UTF-16 is \ud800 in JSON too

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """The model that `to_json` wrote.

        Raises: GraphError, if the text has another format.
        """
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise GraphError(f"this is no picture of format {FORMAT}; draw it again with this version")
        nodes = tuple(Node(**{**each, "shape": tuple(each["shape"])}) for each in data["nodes"])
        return cls(nodes, tuple(Edge(**e) for e in data["edges"]), tuple(Group(**g) for g in data["groups"]))

    @property
    def shared(self) -> dict[str, list[Node]]:
        """The stubs by the id of the box that they stand for."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.of:
                found.setdefault(node.of, []).append(node)
        return found

    def within(self, group: str) -> tuple[str, ...]:
        """The ids of a group and of all groups around it, the innermost first."""
        parents = {g.id: g.parent for g in self.groups}
        found = []
        while group:
            found.append(group)
            group = parents[group]
        return tuple(found)


def graph(results: Sequence[Tensor]) -> Graph:
    """The model of everything that had a part in making some results.

    Raises: GraphError, if there is nothing to draw, or if the graph was freed.
    """
    if not any(y.op for y in results):
        raise GraphError(
            f"{results[0].label if results else 'nothing'} has no graph to draw: nothing that it was made from "
            "requires a gradient, or it was made under no_grad(); set requires_grad=True on the tensors to learn"
        )
    return _Builder(results).graph()


def unfolded(results: Sequence[Tensor]) -> list[Tensor]:
    """The results once more, made by the reference of each fused primitive instead, operation by operation.

    What comes before the first fused primitive stays; what comes after it is computed again, each in its own scope.

    Raises: GraphError, if the graph was freed.
    """
    found: dict[int, Tensor] = {}
    for node in tape(*results)[::-1]:
        op, inputs = node.op, [found.get(x.age, x) if type(x) is Tensor else x for x in node.inputs or ()]
        if op is None or not (op.vjp or any(new is not old for new, old in zip(inputs, node.inputs or ()))):
            continue
        with changed(recording=True, debug=False, scope=node.scope):
            again: Tensor = (op.reference or op.function)(*([inputs] if op.variadic else inputs), **node.options)
        again.name = node.name or again.name
        found[node.age] = again
    return [found.get(y.age, y) for y in results]


class _Builder:
    """What is known of one tape while its model is made."""

    def __init__(self, results: Sequence[Tensor]) -> None:
        self.tensors = tape(*results)[::-1]
        self.results = {y.age for y in results}
        self.ids = {t.age: f"n{i}" for i, t in enumerate(self.tensors)}
        self.names = {t.age: _word(t.name) for t in self.tensors}
        self.groups: dict[Scope, Group] = {}
        self.steps: dict[str, str] = {"": ""}  # the innermost time step around a group
        for t in self.tensors:
            if t.op is not None and t.scope is not None:
                self._group(t.scope)
        self.users: dict[int, list[Tensor]] = {t.age: [] for t in self.tensors}
        for t in self.tensors:
            for age in dict.fromkeys(x.age for x in t.inputs or () if type(x) is Tensor):
                self.users[age].append(t)
        self.gathering: set[int] = set()  # by age, what is made from the results of many time steps, such as a stack
        for t in self.tensors:
            steps = {self.steps[self._home(x)] for x in t.inputs or () if type(x) is Tensor}
            if not self.steps[self._home(t)] and len(steps) > MANY:
                self.gathering.add(t.age)

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

    def _role(self, t: Tensor) -> str:
        if t.op is not None:
            return "operation"
        if t.requires_grad:
            return "parameter"
        return "constant" if not self.names[t.age] and (t.size == 1 or t.dtype.kind == "b") else "input"

    def _places(self, t: Tensor) -> dict[int, str]:
        """Where to draw what the users (by age) of a tensor see of it: the name of a place, "" for where it is itself.

        Parameters stand in the innermost group of their user, inputs in its time step. The result of an operation
        stays where it was born, unless it is used in several other time steps, or by something that gathers many steps.
        """
        role, users = self._role(t), self.users[t.age]
        homes = {user.age: self._home(user) for user in users}
        if role != "parameter":
            homes = {age: self.steps[home] for age, home in homes.items()}
        if role == "operation":
            own = self.steps[self._home(t)]
            others = {home for home in homes.values() if home not in ("", own)}
            found = {age: home if len(others) > 1 and home in others else "" for age, home in homes.items()}
            return found | {age: self.ids[age] for age in homes if own and age in self.gathering}
        counts = [list(homes.values()).count(home) for home in set(homes.values())]
        if len(counts) == 1 and counts[0] <= MANY:
            return dict.fromkeys(homes, "")
        crowded = {home for home in homes.values() if list(homes.values()).count(home) > MANY}
        return {age: self.ids[age] if home in crowded else home or "top" for age, home in homes.items()}

    def graph(self) -> Graph:
        nodes: list[Node] = []
        edges: list[Edge] = []
        drawn: set[str] = set()
        places = {t.age: self._places(t) for t in self.tensors}
        parts = self._parts()
        for t in self.tensors:
            for place, x in enumerate(t.inputs or ()):
                if type(x) is Tensor:
                    stub = places[x.age][t.age]
                    if stub and (name := f"{self.ids[x.age]}_{stub}") not in drawn:
                        drawn.add(name)
                        group = stub if stub in self.steps else self._home(t) if stub != "top" else ""
                        nodes.append(self._node(x, parts, id=name, group=group, of=self.ids[x.age]))
                    edges.append(self._edge(x, t, place, f"{self.ids[x.age]}_{stub}" if stub else self.ids[x.age]))
            nodes.append(self._node(t, parts, id=self.ids[t.age], group=self._own_group(t, places[t.age])))
        return Graph(tuple(nodes), tuple(edges), tuple(self.groups.values()))

    def _own_group(self, t: Tensor, places: Mapping[int, str]) -> str:
        """Where a tensor itself is drawn; a leaf with stubs everywhere is only listed, outside of all groups."""
        if t.op is not None:
            return self._home(t)
        if not places or any(places.values()):
            return ""
        home = self._home(self.users[t.age][0])
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
        role = self._role(t)
        said = _text(t) if t.op else _number(t) if role == "constant" else ""
        if of and t.op:  # a stub does not repeat the operation; it says which step its value comes from
            step = next((g.step for g in self.groups.values() if g.id == self.steps[self._home(t)]), None)
            said = ", ".join(([] if self.names[t.age] else [said]) + ([] if step is None else [f"t = {step}"]))
        return Node(
            id=id, role=role, name=self.names[t.age], shape=tuple(t.shape), dtype=str(t.dtype),
            requires_grad=t.requires_grad, op=t.op.name if t.op else "", text=said,
            group=group, part=parts.get(t.age, ""), result=t.age in self.results and not of, of=of,
        )  # fmt: skip

    def _edge(self, x: Tensor, t: Tensor, place: int, source: str) -> Edge:
        op = t.op
        assert op is not None
        at = min(place, len(op.arrays) - 1) if op.variadic else place
        name = f"{op.arrays[at]}[{place - at}]" if op.variadic else op.arrays[at]
        shapes = [other.shape for other in t.inputs or () if type(other) is Tensor]
        told = op.kind == "bilinear" and len(set(shapes)) > 1  # by the shapes, as in x @ W
        return Edge(
            id=f"e{source}_{self.ids[t.age]}_{place}", source=source, target=self.ids[t.age], place=place, name=name,
            ordered=len(shapes) > 1 and not told and op.name not in SYMMETRIC,
            differentiable=x.requires_grad and op.has_rule(at),
        )  # fmt: skip


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
