"""Writes the model of a picture as SVG, where Graphviz has laid it out: every box, arrow and line of text is ours.

So a name can be bold, a NaN red, an arrow easy to hit with a mouse, and the page dark where the reader wants it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .graph import Edge, Graph, Group, Node
from .look import LEGEND, LINE, Entry, Line, columns, counts, frame_name, headline, legend, lines, said, size, tint
from .notation import plain
from .publishing import asset
from .words import safe

FONTS = "Menlo,Consolas,DejaVu Sans Mono,monospace"
PIXELS_PER_POINT = 4 / 3


def write(graph: Graph, laid: Mapping[str, Any], *, title: str = "", prefix: str = "", bare: bool = False) -> str:
    """The picture as SVG text, ready to stand in a page.

    laid: what Graphviz answers for the DOT of the same graph in its form "json0".
    prefix: stands before every id, so that several pictures fit into one page.
    bare: without headline, style sheet and the words for a mouse that rests, for a page that has these itself.
    """
    return _Writer(graph, laid, prefix, bare).picture(title)


class _Writer:
    def __init__(self, graph: Graph, laid: Mapping[str, Any], prefix: str, bare: bool) -> None:
        self.graph, self.prefix, self.bare = graph, prefix, bare
        left, bottom, right, top = _numbers(laid["bb"])
        self.left, self.top = left - 10, top + 10
        self.width, self.height = right - left + 20, top - bottom + 20
        self.objects = {each["name"]: each for each in laid.get("objects", ())}
        self.arrows = {each["id"]: each for each in laid.get("edges", ()) if "id" in each}

    def at(self, x: float, y: float) -> tuple[float, float]:
        """From the coordinates of Graphviz, whose y grows upward, to ours."""
        return x - self.left, self.top - y

    def picture(self, title: str) -> str:
        width, height, zoom = self.width, self.height, 1 if self.bare else PIXELS_PER_POINT
        about = title if self.bare else headline(self.graph, title)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" class="tg" width="{width * zoom:.0f}" '
            f'height="{height * zoom:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" font-family="{FONTS}">',
            f"<title>{safe(about)}</title>",
        ]
        if not self.bare:
            parts += [f"<style>{asset('picture.css')}</style>", '<rect class="paper" width="100%" height="100%"/>']
            after = 10 + 8 * columns(title) + 14 if title else 10
            parts += [f'<text class="title" x="10" y="18">{safe(title)}</text>'] if title else []
            parts.append(f'<text class="counts" x="{after:.0f}" y="18">{safe(counts(self.graph))}</text>')
        return "\n".join([*parts, *self.content(), "</svg>", ""])

    def tip(self, words: str) -> str:
        """What a mouse that rests is told."""
        return "" if self.bare else f"<title>{safe(words)}</title>"

    def content(self) -> list[str]:
        """Frames, arrows and boxes, in the order in which they lie on each other."""
        parts = [self.frame(group) for group in self.graph.groups if f"cluster_{group.id}" in self.objects]
        nodes = {node.id: node for node in self.graph.nodes}
        parts += [self.arrow(edge, nodes) for edge in self.graph.edges if edge.id in self.arrows]
        parts += [self.box(node) for node in self.graph.nodes if not node.listed]
        if LEGEND in self.objects:
            parts.append(self.legend(legend(self.graph)))
        return parts

    def frame(self, group: Group) -> str:
        x_0, y_0, x_1, y_1 = _numbers(self.objects[f"cluster_{group.id}"]["bb"])
        left, top = self.at(x_0, y_1)
        step = group.step is not None
        about = f"{group.path} ({group.kind})" if group.kind else group.path
        return (
            f'<g class="group" id="{self.prefix}{group.id}">{self.tip(about)}'
            f'<rect class="frame{" step" if step else ""}" x="{left:.1f}" y="{top:.1f}" width="{x_1 - x_0:.1f}" '
            f'height="{y_1 - y_0:.1f}" rx="8"/>'
            f'<text class="frame-name" x="{left + 9:.1f}" y="{top + 15:.1f}">{safe(frame_name(group))}</text></g>'
        )

    def arrow(self, edge: Edge, nodes: Mapping[str, Node]) -> str:
        laid = self.arrows[edge.id]
        path, tip, (x, y) = self.spline(laid["pos"])
        kind = "".join(f" {name}" for name, holds in (
            ("dashed", not edge.differentiable), ("lost", edge.lost), ("loop", edge.loop)) if holds)  # fmt: skip
        hit = "" if self.bare else f'<path class="hit" d="{path}"/>'
        label = f'<text x="{x:.1f}" y="{y:.1f}">{safe(said(edge))}</text>' if said(edge) else ""
        return (
            f'<g class="edge{kind}" id="{self.prefix}{edge.id}">{self.tip(about_edge(edge, nodes))}'
            f'{hit}<path class="line" d="{path}"/>{tip}{label}</g>'
        )

    def spline(self, pos: str) -> tuple[str, str, tuple[float, float]]:
        """The path of an arrow, the triangle at its end, and where its name stands."""
        end, points = None, []
        for word in pos.split(";")[0].split():
            if word.startswith("e,"):
                end = self.at(*_numbers(word[2:]))
            elif not word.startswith("s,"):
                points.append(self.at(*_numbers(word)))
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points[1:])
        (x, y), (tip_x, tip_y) = points[-1], end or points[-1]
        length = math.hypot(tip_x - x, tip_y - y) or 1.0
        side_x, side_y = (tip_y - y) / length * 2.4, (x - tip_x) / length * 2.4
        triangle = (
            f'<path class="tip" d="M{tip_x:.1f} {tip_y:.1f}L{x + side_x:.1f} {y + side_y:.1f}'
            f'L{x - side_x:.1f} {y - side_y:.1f}Z"/>'
        )
        beside = (x - 2, y - 3 if tip_x > x else y - 9)
        return path, triangle, beside

    def box(self, node: Node) -> str:
        laid = self.objects[node.id]
        x, y = self.at(*_numbers(laid["pos"]))
        width, height = float(laid["width"]) * 72, float(laid["height"]) * 72
        shown = lines(node)
        kinds = ["node", node.role, *(["stub"] if node.of else []), *(["named"] if node.name else [])]
        kinds += ["result"] if node.result else []
        kinds += ["broken"] if any(line.kind == "bad" for line in shown) else []
        kinds += [f"t-{colour}"] if (colour := tint(node)) else []
        parts = [
            f'<g class="{" ".join(kinds)}" id="{self.prefix}{node.id}"'
            + (f' data-of="{self.prefix}{node.of}">' if node.of else ">"),
            self.tip(about(node)),
            outline(node.role, x, y, width, height, double=node.result),
            *_column(x, y, shown),
        ]
        if node.saved and not node.of:
            side = x + {"input": 6 - width / 2, "constant": 0}.get(node.role, width / 2 - 6)
            parts.append(f'<circle class="saved-disk" cx="{side:.1f}" cy="{y - height / 2 + 6:.1f}" r="2.2"/>')
        return "".join([*parts, "</g>"])

    def legend(self, entries: list[Entry]) -> str:
        laid = self.objects[LEGEND]
        x, y = self.at(*_numbers(laid["pos"]))
        width, height = float(laid["width"]) * 72, float(laid["height"]) * 72
        left, top = x - width / 2, y - LINE * len(entries) / 2
        parts = [
            f'<g class="legend" id="{self.prefix}legend"><title>Legend</title>',
            _rect("box", x, y, width, height, 3),
        ]
        for i, entry in enumerate(entries):
            middle = top + LINE * (i + 0.5)
            parts.append(swatch(entry.swatch, left + 19, middle))
            parts.append(f'<text x="{left + 34:.1f}" y="{middle + 3.7:.1f}">{safe(entry.text)}</text>')
        return "".join([*parts, "</g>"])


def outline(role: str, x: float, y: float, width: float, height: float, double: bool = False) -> str:
    """The shape of a role around a middle."""
    half, tall = width / 2, height / 2
    if role == "constant":
        return f'<ellipse class="box" cx="{x:.1f}" cy="{y:.1f}" rx="{half:.1f}" ry="{tall:.1f}"/>'
    if role == "input":
        nose = min(9.0, half / 2)
        points = [(-half, -tall), (half - nose, -tall), (half, 0), (half - nose, tall), (-half, tall)]
        d = "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in points)
        return f'<path class="box" d="M{d}Z"/>'
    radius = {"operation": 7, "module": 4, "step": 4}.get(role, 0)
    behind = _rect("box", x + 3, y + 3, width, height, radius) if role in ("module", "step") else ""
    inner = _rect("box inner", x, y, width - 7, height - 7, radius - 2) if double else ""
    return behind + _rect("box", x, y, width, height, radius) + inner


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    return (
        f'<rect class="{kind}" x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="{radius}"/>'
    )


def swatch(what: str, x: float, y: float) -> str:
    """The sign in front of a line of the legend, around a middle."""
    kind, _, name = what.partition(":")
    if kind == "tint":
        return _rect(f"box t-{name}", x, y, 20, 9, 3)
    if kind == "role":
        role = "operation" if name == "stub" else name
        return f'<g class="{role}{" stub" if name == "stub" else ""}">{outline(role, x, y, 20, 9)}</g>'
    if kind == "dashed":
        return f'<g class="dashed"><path class="line" d="M{x - 10:.1f} {y:.1f}h20"/></g>'
    if kind == "saved":
        return f'<circle class="saved-disk" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
    return ""


def _column(x: float, y: float, shown: list[Line]) -> list[str]:
    return [
        f'<text class="{line.kind}" x="{x:.1f}" y="{y + (i - (len(shown) - 1) / 2) * LINE + 3.7:.1f}">'
        f"{safe(line.text)}</text>"
        for i, line in enumerate(shown)
    ]


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(n) for n in text.split(","))


def about(node: Node) -> str:
    """A box in words: its role, name, operation, shape, numbers and where it comes from."""
    shape = f"({', '.join(map(str, node.shape))}{',' if len(node.shape) == 1 else ''})"
    made = f"= {node.text}" if node.name and node.text else node.text
    facts = [" ".join(word for word in (node.name, made, f"{node.role}, {shape} {node.dtype}") if word)]
    facts += ["requires a gradient"] if node.requires_grad and node.role == "parameter" else []
    facts += [f"computes {plain(node.formula)}"] if node.formula else []
    facts += [f"value {node.value}"] if node.value else []
    facts += [f"gradient {node.gradient}"] if node.gradient else []
    facts += [f"gradient {node.state}"] if node.state and node.state != "constant" else []
    facts += [f".grad: {node.grad}"] if node.grad else []
    facts += ["saved for the way back"] if node.saved else []
    facts += ["has another value now than the tape read"] if node.stale else []
    facts += [f"gradients stop here: {node.stop}"] if node.stop else []
    facts += [f"at {node.source}"] if node.source else []
    facts += ["a value from elsewhere, once more"] if node.of else []
    return ", ".join(facts)


def about_edge(edge: Edge, nodes: Mapping[str, Node]) -> str:
    """An arrow in words, with the local derivative that comes back along it."""
    source, target = nodes[edge.source], nodes[edge.target]
    who = source.name or source.text or source.role
    tip = f"{who} is {edge.name} of {target.text}" if edge.name != source.name else f"{who} enters {target.text}"
    if edge.lost:
        return f"{tip}; {edge.lost}"
    if not edge.differentiable:
        return f"{tip}, without a gradient"
    if edge.local:
        tip += f"; local derivative {edge.local}"
    if edge.slope:
        tip += f"; adds {plain(edge.slope)}, with \u0233 the gradient of {target.name or target.text}"
    if edge.contribution:
        tip += f": {edge.contribution}"
    return tip + (f", summed to {size(source)}" if edge.broadcast else "")
