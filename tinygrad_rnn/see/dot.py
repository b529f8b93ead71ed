"""Writes the model of a picture as DOT: how boxes, arrows and groups look is decided here, and only here.

Nothing is told by colour alone: roles differ in shape and line, named quantities carry their name in the box.
All text is escaped and monospaced, so that it fits its box on every machine.
"""

from __future__ import annotations

from typing import Any

from .graph import Edge, Graph, Group, Node
from .words import printable

INK = "#222222"
# Tints and lines after the palette of Okabe and Ito, which colour-blind readers can tell apart; text stays above 4.5:1.
TINTS = {
    "blue": ("#d3e9f8", "#0072b2"), "orange": ("#fde6c4", "#a85a00"), "green": ("#d0efe4", "#00735a"),
    "violet": ("#f1dbe9", "#96497c"), "yellow": ("#f8f3bf", "#7d7100"), "red": ("#fadccc", "#b14700"),
}  # fmt: skip
QUANTITIES = {
    "z": "blue", "r": "orange", "n": "green", "h": "violet",
    "f": "blue", "i": "orange", "g": "green", "o": "yellow", "c": "red",
}  # fmt: skip
ROLES: dict[str, dict[str, str]] = {
    "operation": {"shape": "box", "style": "rounded,filled", "fillcolor": "#f4f4f4", "color": "#777777"},
    "parameter": {"shape": "box", "style": "dashed,filled", "fillcolor": "#ffffff", "color": INK},
    "input": {"shape": "cds", "style": "filled", "fillcolor": "#e4e4e4", "color": INK, "margin": "0.16,0.12"},
    "constant": {"shape": "ellipse", "style": "filled", "fillcolor": "#ffffff", "color": "#777777", "margin": "0.02"},
}


def write(graph: Graph, *, title: str = "", direction: str = "LR") -> str:
    """The picture as DOT text. direction: "LR" for time from left to right, "TB" from top to bottom."""
    from graphviz import Digraph  # type: ignore[import-untyped]  # a text builder, loaded only when somebody draws

    usual = _usual_dtype(graph)
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
    carried = carries(graph)
    states = {edge.source for edge in carried}
    lanes = _lanes([node for node in graph.nodes if node.id in states])
    stubs = graph.shared
    children: dict[str, list[Group | Node]] = {}
    for group in graph.groups:
        children.setdefault(group.parent, []).append(group)
    for node in graph.nodes:
        if node.role == "operation" or node.id not in stubs:  # a leaf with stubs is listed below
            children.setdefault(node.group, []).append(node)

    def fill(into: Any, group: str) -> None:
        for child in children.get(group, []):
            if isinstance(child, Node):
                into.node(child.id, _label(child, usual), **_look(child), **lanes.get(child.id, {}))
            elif children.get(child.id):
                inner = Digraph(f"cluster_{child.id}", graph_attr=_frame(child))
                fill(inner, child.id)
                into.subgraph(inner)

    fill(top, "")
    for edge in graph.edges:
        top.edge(edge.source, edge.target, **_arrow(edge))
    for source, target in _starts(graph, carried):
        top.edge(source, target, style="invis", weight="0")
    return str(top.source)


def carries(graph: Graph) -> list[Edge]:
    """The arrows that lead from one time step into another of the same loop: the state on its way."""
    inside = {node.id: node for node in graph.nodes}
    groups = {group.id: group for group in graph.groups}

    def step(node: str) -> Group | None:
        return next((groups[g] for g in graph.within(inside[node].group) if groups[g].step is not None), None)

    found = []
    for edge in graph.edges:
        one, other = step(edge.source), step(edge.target)
        if one and other and one.id != other.id and one.parent == other.parent:
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
        step = next(g for g in inside[edge.target] if g in steps)
        pairs.update({(edge.source, start): None for start in members.get(step, [])})
    for edge in graph.edges:
        if nodes[edge.source].role == "input" and nodes[edge.target].group:
            pairs.update({(edge.source, start): None for start in parameters.get(nodes[edge.target].group, [])})
    return list(pairs)


def _look(node: Node) -> dict[str, str]:
    look = {**ROLES[node.role], "id": node.id}
    if node.role == "operation":
        if node.part:
            look["fillcolor"], look["color"] = TINTS[tint(node.part)]
        if node.of:
            look["style"] = "rounded,dashed,filled"
        elif node.name:
            look["penwidth"] = "1.6"
    if node.result:
        look.update(peripheries="2", penwidth="1.6")
    return look


def tint(part: str) -> str:
    """The colour of a named quantity: gates and their weights (W_z) have fixed ones, others one for their name."""
    part = part.rpartition("_")[2] or part
    return QUANTITIES.get(part) or list(TINTS)[sum(map(ord, part)) % len(TINTS)]


def _frame(group: Group) -> dict[str, Any]:
    step = group.step is not None
    name = "" if group.name == group.kind.lower() else group.name
    words = [name, f"t = {group.step}"] if step else [group.kind, name]
    return {
        "label": text(" ".join(w for w in words if w)), "id": group.id, "labeljust": "r", "margin": "10",
        "style": "rounded,filled" if step else "rounded", "color": "#bbbbbb" if step else "#555555",
        "fillcolor": "#fafafa",
    }  # fmt: skip


def _arrow(edge: Edge) -> dict[str, str]:
    look = {"id": edge.id}
    if edge.ordered:
        look["headlabel"] = text(edge.name[edge.name.find("[") :] if "[" in edge.name else edge.name)
    if not edge.differentiable:
        look.update(style="dashed", color="#777777")
    return look


def _label(node: Node, usual: str) -> Any:
    """Name, operation, shape; the dtype where it is not the usual one of the picture."""
    if node.role == "constant" and node.text:
        return text(node.text)
    facts = "\u00d7".join(map(str, node.shape)) or "scalar"
    lines = [node.name, node.text if node.role == "operation" else ""]
    lines = lines if any(lines) else [node.role]
    return text(*lines, facts if node.dtype == usual else f"{facts} {node.dtype}")


def _usual_dtype(graph: Graph) -> str:
    kinds = [node.dtype for node in graph.nodes]
    return max(dict.fromkeys(kinds), key=kinds.count)


def text(*lines: str) -> Any:
    """A label of these lines, those without a letter left out, of which Graphviz interprets nothing.

    It is plain text: not every Graphviz, and not the one in WebAssembly, knows HTML-like labels.
    """
    from graphviz import nohtml

    shown = (printable(line) for line in lines if line)
    return nohtml("\\n".join(line.replace("&", "&amp;").replace("\\", "\\\\") for line in shown) or " ")
