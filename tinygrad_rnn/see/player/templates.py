"""Pictures that differ in names and numbers only are laid out once and written once, with holes for what differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import unescape
from typing import Any

from .. import svg
from ..graph import Graph
from ..look import extent, lines
from .pictures import Part

HOLE = "\ue0fe"
"""The letter that stands in a template where its pictures differ."""
DIFFERENT = re.compile(r'(?<= id=")[^"]*|(?<= data-of=")[^"]*|(?<=>)[^<>]+(?=</t)')
"""What may differ: ids, and the texts and the title."""


@dataclass(frozen=True)
class Drawing:
    """One picture: like: the id of the part whose template it has; own: what goes into the holes, one by one.

    All ids start with a hyphen, before which the page puts the id of the part.
    """

    like: str
    own: Sequence[str]


def drawings(
    parts: Sequence[Part], laid_out: Callable[[Graph], Mapping[str, Any]]
) -> tuple[dict[str, str], dict[str, Drawing]]:  # fmt: skip
    """The templates, SVG by the id of a part, and by the id of each part how it is made from one of them.

    laid_out: what Graphviz answers for a graph in its form "json0".
    """
    alike: dict[Any, list[Part]] = {}
    for part in parts:
        alike.setdefault(_structure(part.graph), []).append(part)
    drawn: dict[str, str] = {}
    made: dict[str, Drawing] = {}
    for group in alike.values():
        laid = laid_out(_widest([part.graph for part in group]))
        written: dict[str, list[tuple[Part, str]]] = {}
        for part in group:
            places = _moved(laid, group[0].graph, part.graph)
            text = svg.write(part.graph, places, title=part.path, prefix="-", bare=True)
            written.setdefault(DIFFERENT.sub(HOLE, text), []).append((part, text))
        for same in written.values():
            like, first = same[0]
            found = [DIFFERENT.findall(text) for _, text in same]
            differs = [len(set(column)) > 1 for column in zip(*found, strict=True)]
            place = iter(differs)
            drawn[like.id] = DIFFERENT.sub(lambda match: HOLE if next(place) else match[0], first)  # noqa: B023
            for (part, _), texts in zip(same, found, strict=True):
                own = [unescape(text) for text, holds in zip(texts, differs, strict=True) if holds]
                made[part.id] = Drawing(like.id, own)
    return drawn, made


def _structure(graph: Graph) -> Any:
    """What two pictures have in common that can have the same places: boxes, frames and arrows, in the same order."""
    node = {node.id: i for i, node in enumerate(graph.nodes)}
    group = {group.id: i for i, group in enumerate(graph.groups)}
    boxes = [
        (n.role, n.result, bool(n.of), n.listed, group.get(n.group), tuple(line.kind for line in lines(n)))
        for n in graph.nodes
    ]
    frames = [(group.get(g.parent), g.step is None) for g in graph.groups]
    return tuple(boxes), tuple(frames), tuple((node[e.source], node[e.target], e.name) for e in graph.edges)


def _widest(graphs: Sequence[Graph]) -> Graph:
    """The first of some graphs of one structure, with boxes in which the texts of all have room."""
    nodes = []
    for same in zip(*[graph.nodes for graph in graphs], strict=True):
        widest = max(same, key=lambda node: extent(node, lines(node)))
        nodes.append(replace(widest, id=same[0].id, of=same[0].of, group=same[0].group))
    return replace(graphs[0], nodes=tuple(nodes))


def _moved(laid: Mapping[str, Any], first: Graph, other: Graph) -> dict[str, Any]:
    """The places of one graph as those of another one."""
    names = {one.id: two.id for one, two in zip(first.nodes, other.nodes, strict=True)}
    names |= {f"cluster_{one.id}": f"cluster_{two.id}" for one, two in zip(first.groups, other.groups, strict=True)}
    arrows = {one.id: two.id for one, two in zip(first.edges, other.edges, strict=True)}
    return {
        **laid,
        "objects": [{**each, "name": names.get(each["name"], each["name"])} for each in laid.get("objects", ())],
        "edges": [{**each, "id": arrows[each["id"]]} for each in laid.get("edges", ()) if each.get("id") in arrows],
    }
