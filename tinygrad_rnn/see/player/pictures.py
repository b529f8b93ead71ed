"""One computation as several pictures: an overview whose time steps are closed boxes, and the inside of each box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...core.tensor import Tensor
from ..building import graph
from ..graph import Edge, Graph, Group, Node
from ..view import READABLE, View


@dataclass(frozen=True)
class Part:
    """One picture. Ids of boxes and groups are those of the full graph, so that one box can be found in all of them.

    id: "" for the overview, else the id of the box there that this is the inside of; a picture of what no box of the
        overview stands for, such as the weights of all time steps, has the id of a group with an "x" in front.
    title: short, such as "t = 3" where there is only one loop. path: the whole way to it.
    """

    id: str
    title: str
    path: str
    graph: Graph


def parts(results: Sequence[Tensor], full: Graph, *, grad: Any = None) -> list[Part]:
    """The overview, and the inside of each of its closed boxes, in order of time; together they show every operation.

    full: the graph of the results, with everything open.

    Time steps are closed. Where even that leaves too many boxes, calls of modules are too, the innermost first.
    """
    overview = full
    if any(group.step is not None for group in full.groups) or _drawn(full) > READABLE:
        deepest = max([len(full.within(group.id)) for group in full.groups], default=0)
        views = [View(steps="all", collapse=_is_step)]
        views += [View(steps="all", collapse=_is_step, depth=depth) for depth in range(deepest - 1, -1, -1)]
        for view in views:
            overview = graph(results, view, grad=grad)
            if _drawn(overview) <= READABLE:
                break
    overview = _calm(overview)
    homes = _homes(full, overview)
    members: dict[str, list[Node]] = {}
    for node in full.nodes:
        if (home := homes.get(node.id)) is not None and not node.listed:
            members.setdefault(home, []).append(node)
    groups = {group.id: group for group in full.groups}
    own = {home: groups.get(home.lstrip("x").replace("b", "c")) for home in members}
    around = {group.parent for group in full.groups if group.step is not None}
    loops = {group.parent for home, group in own.items() if group and home[0] == "b"}
    found = [Part("", "", "", overview)]
    for home in sorted(members, key=_order):
        group = own[home]
        path = group.path if group else "the rest"
        title = f"t = {group.step}" if group and group.step is not None and len(loops) == 1 else _short(group, groups)
        more = ", around its steps" if group and home[0] == "x" and group.id in around else ""
        found.append(Part(home, title + more, path + more, _inside(home, members[home], full)))
    titles = Counter(part.title for part in found)
    return [part if titles[part.title] == 1 else replace(part, title=part.path) for part in found]


def _short(group: Group | None, groups: Mapping[str, Group]) -> str:
    """A module by its own name, a time step by that of its module."""
    if group is None:
        return "the rest"
    step = "" if group.step is None else f"[t={group.step}]"
    module: Group | None = group
    while module and module.step is not None:
        module = groups.get(module.parent)
    return (module.name if module else "") + step


def _calm(overview: Graph) -> Graph:
    """The overview without what would crowd it.

    Leaves that only closed boxes see stand in the pictures of those; what gathers the results of many steps has one
    arrow for all of them, from the last.
    """
    closed = {node.id for node in overview.nodes if node.closed}
    open_too = {edge.source for edge in overview.edges if edge.target not in closed}
    leaves = {
        n.id for n in overview.nodes if n.role in ("input", "parameter", "constant") and not (n.result or n.listed)
    }
    hidden = leaves - open_too
    box = {node.id: node.of for node in overview.nodes if node.of in closed}
    gathered: dict[str, list[str]] = {}
    for edge in overview.edges:
        if edge.source in box:
            gathered.setdefault(edge.target, []).append(edge.source)
    hidden |= box.keys()
    edges = []
    for edge in overview.edges:
        if edge.source in box and edge.source == (sources := gathered[edge.target])[-1]:
            edges.append(replace(edge, source=box[edge.source], name=f"of {len(sources)} steps"))
        elif edge.source not in hidden:
            edges.append(replace(edge, name="") if edge.source in closed and edge.target not in closed else edge)
    nodes = tuple(node for node in overview.nodes if node.id not in hidden)
    return replace(overview, nodes=nodes, edges=tuple(edges))


def _drawn(graph: Graph) -> int:
    return sum(not node.listed for node in graph.nodes)


def _is_step(group: Group) -> bool:
    return group.step is not None


def _order(home: str) -> tuple[bool, int]:
    """What stands outside of the steps comes first."""
    number = home.lstrip("bxc")
    return home[0] != "x", int(number or -1)


def _homes(full: Graph, overview: Graph) -> dict[str, str]:
    """By id of a box of the full graph, the picture that shows it, where that is not the overview."""
    drawn = {node.id for node in overview.nodes if not node.listed}
    closed = {node.id for node in overview.nodes if node.closed}
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for edge in full.edges:
        before.setdefault(edge.target, []).append(edge.source)
        after.setdefault(edge.source, []).append(edge.target)
    found: dict[str, str] = {}
    for node in full.nodes:
        boxes = [f"b{group[1:]}" for group in full.within(node.group)]
        found[node.id] = next((box for box in reversed(boxes) if box in closed), "")
        if not found[node.id] and node.id not in drawn:
            found[node.id] = f"x{node.group}"
    for node in reversed(full.nodes):  # what prepares or finishes one step stands in its picture; leaves and stubs too
        if found[node.id].startswith("x"):
            for near in (after.get(node.id, ()), before.get(node.id, ())):
                around = {found[other] for other in near}
                if len(around) == 1 and (node.of or not node.op or next(iter(around)).startswith("b")):
                    found[node.id] = around.pop()
                    break
    return {id: home for id, home in found.items() if home}


def _inside(home: str, nodes: Sequence[Node], full: Graph) -> Graph:
    """The picture of some boxes, with stubs for what enters from outside."""
    own = {node.id for node in nodes}
    known = {node.id: node for node in full.nodes}
    outer = (
        set(full.within(f"c{home[1:]}")) if home[0] == "b" else {g for node in nodes for g in full.within(node.group)}
    )
    groups = {g for node in nodes for g in full.within(node.group)} - outer
    entering: dict[str, Node] = {}
    edges: list[Edge] = []
    for edge in full.edges:
        if edge.target in own:
            source = known[edge.source]
            if source.id not in own:
                stub = f"{source.id}_{home}"
                entering[stub] = _stub(source, stub, full)
                edge = replace(edge, source=stub)
            edges.append(edge)
    inner = [replace(node, group=node.group if node.group in groups else "") for node in nodes]
    frames = [replace(g, parent=g.parent if g.parent in groups else "") for g in full.groups if g.id in groups]
    return Graph((*entering.values(), *inner), tuple(edges), tuple(frames), full.of)


def _stub(node: Node, id: str, full: Graph) -> Node:
    """What stands for a box of elsewhere; it says which step its value comes from."""
    around: Iterable[str] = full.within(node.group)
    step = next((g.step for name in around for g in full.groups if g.id == name and g.step is not None), None)
    text = node.text if not node.name else "" if step is None else f"t = {step}"
    return replace(node, id=id, of=node.of or node.id, group="", text=text, formula="", result=False)
