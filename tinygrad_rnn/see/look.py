"""How boxes look: the lines in them, their shapes and their colours, in light and in dark, for every writer.

Nothing is told by colour alone: roles differ in shape and line, named quantities carry their name in the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from .graph import Edge, Graph, Group, Node
from .notation import plain
from .summary import Summary, number
from .words import counted, printable


class Tint(NamedTuple):
    """A fill and a line; `page/picture.css` has them for a light page and for a dark one."""

    fill: str
    line: str


TINTS = {
    "blue": Tint("#d3e9f8", "#0072b2"),
    "orange": Tint("#fde6c4", "#a85a00"),
    "green": Tint("#d0efe4", "#00735a"),
    "violet": Tint("#f1dbe9", "#96497c"),
    "yellow": Tint("#f8f3bf", "#7d7100"),
    "red": Tint("#fadccc", "#b14700"),
}
"""After the palette of Okabe and Ito, which colour-blind readers can tell apart; text stays above 4.5:1."""

QUANTITIES = {
    "z": ("blue", "update gate"), "r": ("orange", "reset gate"), "n": ("green", "candidate"), "h": ("violet", "state"),
    "f": ("blue", "forget gate"), "i": ("orange", "input gate"), "g": ("green", "candidate"),
    "o": ("yellow", "output gate"), "c": ("red", "cell state"),
}  # fmt: skip
"""Colour and meaning of what cells name."""

ROLES = {
    "operation": "operation, with its result",
    "parameter": "parameter: has a gradient",
    "input": "input: has none",
    "constant": "constant",
    "module": "call of a module, closed",
    "step": "time step, closed",
}


LONG = 24
"""Formulas with more letters than this stay out of the boxes; the mouse tells them."""


LINE, LETTER = 13.2, 6.65
"""The height of a line and the width of a letter in points: 1.2 and 0.605 of the size of a monospaced font."""


class Line(NamedTuple):
    """A line of a box; kind: "name", "op", "facts", "value", "grad", "bad" (not finite, or lost) or "mark"."""

    text: str
    kind: str


def lines(node: Node) -> list[Line]:
    """What stands in a box: name, operation and formula, shape and dtype, value, gradient, marks."""
    if node.role == "constant" and node.text and not node.name:
        return [Line(node.text, "op")]
    found = [Line(node.name, "name")] if node.name and not node.closed else []
    if node.closed:
        found.append(Line(node.text, "name"))
        found.append(Line(f"{node.count} operations", "facts"))
    elif node.of and node.text:
        found.append(Line(node.text, "op"))
    elif node.role == "operation" and not node.of:
        formula, options = plain(node.formula), "=" in node.text or "[" in node.text
        told = (
            options
            or not any(map(str.isalpha, formula))
            or formula.partition("(")[0].replace(" ", "_") == node.op
            or len(formula) > LONG
        )
        found.append(Line(node.text if told else f"{node.op}  {formula}", "op"))
    elif not node.name:
        found.append(Line(node.role, "op"))
    out = f"{node.name}: " if node.closed and node.name else ""
    found.append(Line(f"{out}{size(node)} {node.dtype}", "facts"))
    if node.of:
        return found
    if node.value:
        found += _numbers("=", node.value, "value")
    if node.gradient:
        found += _numbers("\u2207", node.gradient, "grad")
    elif node.state and node.state != "constant":
        found.append(Line(f"\u2207 {node.state.partition(':')[0]}", "bad" if node.state.startswith("lost") else "grad"))
    if node.stale:
        found.append(Line("changed since it was read", "bad"))
    if node.stop:
        found.append(Line(f"\u2225 {node.stop}", "mark"))
    return found


def _numbers(sign: str, found: Summary, kind: str) -> list[Line]:
    """The lines of a summary; what is not finite stands in the last one."""
    *others, last = found.lines
    return [*[Line(f"{sign} {text}", kind) for text in others], Line(f"{sign} {last}", "bad" if found.broken else kind)]


def room_for(texts: Sequence[str]) -> tuple[float, float]:
    """The width and the height that some lines of text need, with a margin, in points."""
    return LETTER * max(map(columns, texts), default=0) + 13, LINE * len(texts) + 7


def extent(node: Node, shown: Sequence[Line]) -> tuple[float, float]:
    """The width and the height of a box, in points: shapes that taper need more than their text."""
    width, height = room_for([line.text for line in shown])
    if node.role == "constant":
        return (width * 1.15 + 4, height * 1.15 + 4) if len(shown) < 3 else (width * 1.42, height * 1.42)
    border = 7 if node.result else 0
    return width + border + (9 if node.role == "input" else 0), height + border


def columns(text: str) -> int:
    """How many letters wide a text is: signs of East Asia and emoji take two, marks on other letters none."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in printable(text))


def size(node: Node) -> str:
    """A shape as people write it."""
    return "\u00d7".join(map(str, node.shape)) or "scalar"


def tint(node: Node) -> str:
    """The colour of what is, or leads to, a named quantity; "" for all others.

    Gates and their weights (W_z) have fixed ones, others one for their name.
    """
    if not node.part or not (node.role == "operation" or node.closed):
        return ""
    part = node.part.rpartition("_")[2] or node.part
    return QUANTITIES[part][0] if part in QUANTITIES else list(TINTS)[sum(map(ord, part)) % len(TINTS)]


def frame_name(group: Group) -> str:
    """What stands in the corner of a frame."""
    name = "" if group.name == group.kind.lower() else group.name
    if group.step is None:
        return f"{group.kind} {name}".strip()
    equal = "" if group.last is None else f" \u2026 {group.last}, equal steps drawn as one"
    return f"{name} t = {group.step}{equal}".strip()


def said(edge: Edge) -> str:
    """What stands at the head of an arrow: the argument's name, a sum if the gradient is summed, a count."""
    name = edge.name[edge.name.find("[") :] if "[" in edge.name else edge.name
    words = [name, "\u2211" if edge.broadcast else "", f"\u00d7{edge.count}" if edge.loop else ""]
    return " ".join(word for word in words if word)


LEGEND = "legend"
"""The id of the box that explains the others."""


class Entry(NamedTuple):
    """A line of the legend: what its swatch shows ("role:input", "tint:blue", "mark", ""), and the words."""

    swatch: str
    text: str


SHAPES = {
    "role:operation": "rounded box", "role:parameter": "dashed box", "role:input": "arrow", "role:constant": "ellipse",
    "role:module": "deep box", "role:step": "deep box", "role:stub": "dashed round box", "dashed": "dashed arrow",
    "saved": "\u2022",
}  # fmt: skip
"""What a swatch shows, in words, for writers that draw none."""


def legend(graph: Graph) -> list[Entry]:
    """What has to be explained in this picture: roles, gates, marks; and the parameters that are not drawn."""
    drawn = [node for node in graph.nodes if not node.listed]
    roles = {node.role for node in drawn if not node.of}
    found = [Entry(f"role:{role}", words) for role, words in ROLES.items() if role in roles]
    if any(node.of for node in drawn):
        found.append(Entry("role:stub", "a value from elsewhere, once more"))
    cells = [group.id for group in graph.groups if group.kind.endswith("Cell")]
    inside = {node.part.rpartition("_")[2] for node in drawn if any(g in cells for g in graph.within(node.group))}
    found += [Entry(f"tint:{colour}", f"{name}: {words}") for name, (colour, words) in QUANTITIES.items()
              if name in inside]  # fmt: skip
    if any(node.value for node in drawn):
        found.append(Entry("", "=  value, or least \u2026 largest \u2016norm\u2016"))
    if any(node.gradient for node in drawn):
        found.append(Entry("", f"\u2207  gradient of {graph.of}"))
    if any(not edge.differentiable for edge in graph.edges):
        found.append(Entry("dashed", "no gradient comes back along it"))
    if any(edge.broadcast for edge in graph.edges):
        found.append(Entry("", "\u2211  its gradient is summed: it was broadcast"))
    if any(node.saved for node in drawn):
        found.append(Entry("saved", "its value is read on the way back"))
    if any(node.stop for node in drawn):
        found.append(Entry("", "\u2225  gradients stop here"))
    listed = [node for node in graph.nodes if node.listed]
    return [*found, *[Entry(f"role:{node.role}", _listed(node)) for node in listed]]


def _listed(node: Node) -> str:
    words = f"{node.name or node.role} {size(node)}" + (f", used {node.uses} times" if node.uses > 1 else "")
    if node.gradient:
        words += f", \u2207 \u2016{number(node.gradient.norm)}\u2016"
    elif node.state not in ("", "constant"):
        words += f", \u2207 {node.state.partition(':')[0]}"
    return words + (", changed since it was read" if node.stale else "")


def headline(graph: Graph, title: str) -> str:
    """The title with counts."""
    return f"{title}: {counts(graph)}" if title else counts(graph)


def counts(graph: Graph) -> str:
    """How many operations and parameters there are."""
    closed = graph.hidden + sum(node.count for node in graph.nodes if node.closed)
    operations = closed + sum(node.count for node in graph.nodes if node.role == "operation" and not node.of)
    parameters = [node for node in graph.nodes if node.role == "parameter" and not node.of]
    numbers = sum(math.prod(node.shape) for node in parameters)
    found = [counted(operations, "operation")]
    if parameters:
        found.append(f"{counted(len(parameters), 'parameter')} ({counted(numbers, 'number')})")
    return ", ".join(found)
