"""Writes the model of a picture as DOT, in which Graphviz is asked for the places, and others may draw it.

All text is escaped and monospaced, so that it fits its box on every machine.
"""

from __future__ import annotations

from typing import Any

from .graph import Edge, Graph, Group, Node
from .look import LEGEND, SHAPES, TINTS, Line, extent, frame_name, legend, lines, room_for, said, tint
from .words import printable

INK = "#222222"
BAD = "#b00020"
HASTY, STRAIGHT, LEVEL = 300, 800, 2000
"""With more boxes than this Graphviz seeks the best places less long; up to this many, states stand in one line, and
time steps side by side on one level. Each of these takes it as long again as all the rest."""
ROLES: dict[str, dict[str, str]] = {
    "operation": {"shape": "box", "style": "rounded,filled", "fillcolor": "#f4f4f4", "color": "#777777"},
    "parameter": {"shape": "box", "style": "dashed,filled", "fillcolor": "#ffffff", "color": INK},
    "input": {"shape": "cds", "style": "filled", "fillcolor": "#e4e4e4", "color": INK, "margin": "0.16,0.12"},
    "constant": {"shape": "ellipse", "style": "filled", "fillcolor": "#ffffff", "color": "#777777", "margin": "0.02"},
    "step": {"shape": "box3d", "style": "filled", "fillcolor": "#f4f4f4", "color": INK},
    "module": {"shape": "box3d", "style": "filled", "fillcolor": "#f4f4f4", "color": INK},
}


def write(
    graph: Graph, *, title: str = "", direction: str = "LR", explained: bool = True, sized: bool = False
) -> str:  # fmt: skip
    """The picture as DOT text.

    direction: "LR" for time from left to right, "TB" from top to bottom. explained: with a legend.
    sized: for the places only: boxes of the size that our own writer needs, instead of the texts in them. So every
        Graphviz finds the same places, whatever fonts it knows, and sooner.
    """
    from graphviz import Digraph  # type: ignore[import-untyped]  # a text builder, loaded only when somebody draws

    top = Digraph(
        "picture",
        graph_attr={
            "rankdir": direction, "newrank": "true", "bgcolor": "white", "fontname": "Courier", "fontsize": "12",
            "fontcolor": INK, "nodesep": "0.14", "ranksep": "0.34", "pad": "0.15", "labelloc": "t",
            **({"label": text(title)} if title else {}),
        },
        node_attr={"fontname": "Courier", "fontsize": "11", "fontcolor": INK, "margin": "0.09,0.05", "height": "0.3"},
        edge_attr={"fontname": "Courier", "fontsize": "9", "fontcolor": "#555555", "color": INK, "arrowsize": "0.55"},
    )  # fmt: skip
    count = len(graph.nodes)
    carried = carries(graph) if count <= LEVEL else []
    states = {edge.source for edge in carried} if count <= STRAIGHT else set()
    if count > HASTY:
        top.graph_attr["nslimit"] = "0.2"
    lanes = _lanes([node for node in graph.nodes if node.id in states])
    children: dict[str, list[Group | Node]] = {}
    for group in graph.groups:
        children.setdefault(group.parent, []).append(group)
    for node in graph.nodes:
        if not node.listed:
            children.setdefault(node.group, []).append(node)

    def fill(into: Any, group: str) -> None:
        for child in children.get(group, []):
            if isinstance(child, Node):
                shown = lines(child)
                look = _room(*extent(child, shown), child.role) if sized else _look(child, shown)
                into.node(child.id, **look, **lanes.get(child.id, {}))
            elif children.get(child.id):
                inner = Digraph(f"cluster_{child.id}", graph_attr=_frame(child))
                fill(inner, child.id)
                into.subgraph(inner)

    fill(top, "")
    roles = {node.id: node.role for node in graph.nodes}
    for edge in graph.edges:
        nose = sized and direction == "LR" and roles[edge.source] == "input"
        top.edge(edge.source, edge.target, **_arrow(edge, sized), **({"tailport": "e"} if nose else {}))
    for source, target in _starts(graph, carried):
        top.edge(source, target, style="invis", weight="0")
    if explained and (entries := legend(graph)):
        signs = [SHAPES.get(entry.swatch, entry.swatch.removeprefix("tint:")) for entry in entries]
        words = [f"    {e.text}" if sized or not sign else f"{sign}: {e.text}" for e, sign in zip(entries, signs)]
        note = {"shape": "note", "style": "filled", "fillcolor": "#ffffff", "color": "#bbbbbb", "id": LEGEND}
        top.node(LEGEND, **_room(*room_for(words)) if sized else {**note, "label": text(*words, justified="l")})
    return str(top.source)


def carries(graph: Graph) -> list[Edge]:
    """The arrows that lead from one time step into another of the same loop: the state on its way."""
    inside = {node.id: node for node in graph.nodes}
    groups = {group.id: group for group in graph.groups}

    def step(node: Node) -> tuple[str, str] | None:
        """The time step around a box, and what is around that."""
        if node.role == "step":
            return node.id, node.group
        return next(((g, groups[g].parent) for g in graph.within(node.group) if groups[g].step is not None), None)

    found = []
    for edge in graph.edges:
        one, other = step(inside[edge.source]), step(inside[edge.target])
        if one and other and one[0] != other[0] and one[1] == other[1]:
            found.append(edge)
    return found


def _lanes(states: list[Node]) -> dict[str, dict[str, str]]:
    """For each state on its way, the attribute that keeps it in one line with those of its name in the other steps."""
    names = list(dict.fromkeys(node.name or node.op for node in states))
    return {node.id: {"group": f"lane{names.index(node.name or node.op)}"} for node in states}


def _starts(graph: Graph, carried: list[Edge]) -> list[tuple[str, str]]:
    """Invisible arrows to what starts by itself: the state stands left of the next step, inputs left of parameters."""
    nodes = {node.id: node for node in graph.nodes}
    inside = {node.id: graph.within(node.group) for node in graph.nodes}
    steps = {group.id for group in graph.groups if group.step is not None}
    idle = nodes.keys() - {edge.target for edge in graph.edges}
    parameters: dict[str, list[str]] = {}
    members: dict[str, list[str]] = {}
    for node in graph.nodes:
        for group in inside[node.id] if node.id in idle else ():
            members.setdefault(group, []).append(node.id)
        if node.role == "parameter":
            parameters.setdefault(node.group, []).append(node.id)
    pairs: dict[tuple[str, str], None] = {}
    for edge in carried:
        step = next((g for g in inside[edge.target] if g in steps), "")
        pairs.update({(edge.source, start): None for start in members.get(step, [])})
    for edge in graph.edges:
        if nodes[edge.source].role == "input" and nodes[edge.target].group:
            pairs.update({(edge.source, start): None for start in parameters.get(nodes[edge.target].group, [])})
    return list(pairs)


def _look(node: Node, shown: list[Line]) -> dict[str, str]:
    words = [line.text for line in shown]
    if node.saved and not node.of:
        words[0] += f" {SHAPES['saved']}"
    look = {**ROLES[node.role], "id": node.id, "label": text(*words)}
    if colour := tint(node):
        look["fillcolor"], look["color"] = TINTS[colour]
    if node.of:
        look["style"] = "rounded,dashed,filled" if node.op else "dashed,filled"
    elif node.name and node.role == "operation":
        look["penwidth"] = "1.6"
    if any(line.kind == "bad" for line in shown):
        look.update(color=BAD, fontcolor=BAD)
    if node.result:
        look.update(peripheries="2", penwidth="1.6")
    return look


def _frame(group: Group) -> dict[str, Any]:
    step = group.step is not None
    return {
        "label": text(frame_name(group)), "id": group.id, "labeljust": "l", "margin": "10",
        "style": "rounded,filled" if step else "rounded", "color": "#bbbbbb" if step else "#555555",
        "fillcolor": "#fafafa",
    }  # fmt: skip


def _room(width: float, height: float, role: str = "") -> dict[str, str]:
    """The room that a box takes, in points, instead of the text in it."""
    return {
        "label": "",
        "shape": "ellipse" if role == "constant" else "box",
        "fixedsize": "true",
        "width": f"{width / 72:.3f}",
        "height": f"{height / 72:.3f}",
    }


def _arrow(edge: Edge, sized: bool) -> dict[str, str]:
    look = {"id": edge.id}
    if sized:
        room = {"minlen": "2"} if len(said(edge)) > 4 else {}  # a long name needs more than the usual distance
        return look | ({"constraint": "false"} if edge.loop else room)
    if words := said(edge):
        look["headlabel"] = text(words)
    if not edge.differentiable:
        look.update(style="dashed", color="#777777")
    if edge.loop:
        look.update(constraint="false", penwidth="1.6")
    if edge.lost:
        look["color"] = BAD
    return look


def text(*lines: str, justified: str = "n") -> Any:
    """A label of these lines, those without a letter left out, of which Graphviz interprets nothing.

    It is plain text: not every Graphviz, and not the one in WebAssembly, knows HTML-like labels.
    justified: "n" puts the lines into the middle, "l" to the left.
    """
    from graphviz import nohtml

    shown = (printable(line) for line in lines if line)
    written = [line.replace("&", "&amp;").replace("\\", "\\\\") for line in shown] or [" "]
    return nohtml("\\n".join(written) if justified == "n" else "".join(f"{line}\\l" for line in written))
