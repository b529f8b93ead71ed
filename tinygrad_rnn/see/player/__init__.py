"""`play`: a computation as a page to step through, forward and then back, of one file that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

from ...core.tensor import Tensor
from ...errors import DrawError
from .. import dot, svg
from ..building import graph
from ..drawing import results_of, size
from ..graph import Graph, Node
from ..layout import LESS, check, render
from ..ledger import ledger
from ..look import LONG, Entry, headline, legend
from ..notation import latex_name, mathml
from ..publishing import asset, framed, page, save
from ..unfolding import unfolded
from ..words import printable, safe
from .pictures import Part, parts
from .templates import Drawing, drawings
from .trace import Trace


class Player:
    """A page to step through. A notebook shows it by itself; `.save(path)` writes it; `.html` is its text.

    trace: the steps as plain data. graph: the model of the whole picture, parts: those of the pictures in the page.
    """

    def __init__(
        self, trace: Trace, graph: Graph, parts: Sequence[Part], *, title: str = "", engine: str = "auto",
        timeout: float | None = 10.0,
    ) -> None:  # fmt: skip
        self.trace, self.graph, self.parts, self.engine, self.timeout = trace, graph, parts, engine, timeout
        self.title = printable(title) or f"How {graph.of} is computed, and its gradients"

    @cached_property
    def html(self) -> str:
        """The page. It holds all that it needs, and its policy lets nothing else run or load.

        Raises: DrawError, if no engine can lay a picture out; DrawTimeout, if that takes longer than `timeout`.
        """
        overview, drawn = self.parts[0], self._drawn[0]
        names = "".join(mathml(latex_name(self.trace.names[age])) for age in self.trace.ids)
        patterns = "".join(mathml(pattern.latex) for pattern in self.trace.patterns)
        templates = [f'<template id="names">{names}</template>', f'<template id="patterns">{patterns}</template>']
        templates += [f'<template id="part-{id}">{picture}</template>' for id, picture in drawn.items()]
        body = Template(asset("player.html")).substitute(
            title=escape(self.title), facts=escape(headline(self.graph, "")), overview=self._overview,
            legend=_explained({**dict.fromkeys(legend(overview.graph)), **dict.fromkeys(legend(self.graph))}),
            templates="\n".join(templates),
        )  # fmt: skip
        styles = ["picture.css", "player.css"]
        return page(self.title, body, styles=styles, scripts=["formulas.js", "player.js"], data={"data": self.data})

    @property
    def data(self) -> dict[str, Any]:
        """What the page knows: the trace, which boxes stand in which part, and what fills the holes of its template.

        Raises: as `html` does.
        """
        made = self._drawn[1]
        return {
            "of": self.graph.of,
            "ids": list(self.trace.ids.values()),
            "parts": [
                {
                    "id": part.id,
                    "title": printable(part.title),
                    "path": printable(part.path),
                    "nodes": [n.id for n in part.graph.nodes if not n.of],
                    "like": made[part.id].like,
                    "own": made[part.id].own,
                }
                for part in self.parts[1:]
            ],
            **self.trace.data,
        }

    @cached_property
    def _drawn(self) -> tuple[dict[str, str], dict[str, Drawing]]:
        """The templates of the insides, and what each inside puts into the holes of its one."""
        return drawings([replace(part, graph=self._named(part.graph)) for part in self.parts[1:]], self._laid_out)

    @property
    def _overview(self) -> str:
        graph = self._named(self.parts[0].graph)
        return svg.write(graph, self._laid_out(graph), title=self.title, prefix="top-", bare=True)

    def _laid_out(self, graph: Graph) -> Any:
        text = dot.write(graph, explained=False, sized=True)
        return json.loads(render(text, "json0", engine=self.engine, timeout=self.timeout, size=size(graph)))

    def _named(self, graph: Graph) -> Graph:
        return replace(graph, nodes=tuple(self._labelled(node) for node in graph.nodes))

    def _labelled(self, node: Node) -> Node:
        """A box with the name that its steps have, and what it is computed from, as far as that is short."""
        known = self.trace.nodes.get(node.of or node.id)
        if known is None:
            return node
        name = known["name"] if node.name else ""
        if node.of or not node.op:
            return replace(node, name=name)
        told = self.trace.computed(node.id)
        text = node.text if "=" in node.text or not told or len(told) > LONG else told
        return replace(node, name=name, text=f"= {text}" if name else f"{known['name']} = {text}")

    def _repr_html_(self) -> str:
        return framed(self.html, self.title, "48rem")

    @property
    def steps(self) -> int:
        """How many steps there are, forward and back."""
        return len(self.trace.data["nodes"]) + len(self.trace.data["backward"])

    def __repr__(self) -> str:
        return f"<Player of {self.steps} steps>"

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the page to a file, whole or not at all; the suffix is .html or .htm.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written; DrawError; DrawTimeout.
        """
        return save(path, dict.fromkeys((".html", ".htm"), lambda: self.html))


def play(
    y: Tensor | Iterable[Any],
    path: str | PathLike[str] | None = None,
    *,
    title: str = "",
    expand: bool = False,
    grad: Any = None,
    engine: str = "auto",
    timeout: float | None = 10.0,
    max_nodes: int = 2000,
) -> Player:
    """A page that steps through the computation of y: forward, one operation after the other, and back again.

    On the way back each step shows the gradient that has arrived, the rule, and what it adds to which gradient:
    the sum before, the contribution, the sum after. Nobody's `.grad` is touched; `backward()` need not have run.

    y: a tensor, or several in a tuple or list, however nested.
    path: a file to write the page to, ending in .html. title: of the page.
    expand: unfold every fused operation, such as a whole recurrent layer, into the operations that it stands for.
    grad: the gradient that comes in for y, as in `backward`; ones if left out, which differentiates the sum of y.
    engine, timeout: what lays out the pictures, and how many seconds it may take for each; as in `draw`.
    max_nodes: a computation of more tensors is refused.

    Raises: GraphError, if y has no graph; DrawError, if it is too large; OptionError, if `path` is no .html file.
    """
    check(engine, timeout)
    results = list(results_of(y, "play"))
    results = unfolded(results) if expand else results
    book = ledger(results, grad)
    if len(book.tensors) > max_nodes:
        raise DrawError(
            f"{len(book.tensors)} tensors are more steps than anybody takes (max_nodes={max_nodes}). {LESS}, or raise "
            "max_nodes="
        )
    full = graph(results, grad=grad)
    pictures = parts(results, full, grad=grad)
    player = Player(Trace(book), full, pictures, title=str(title), engine=engine, timeout=timeout)
    if path is not None:
        player.save(path)
    return player


def _explained(entries: Iterable[Entry]) -> str:
    """The legend as a list."""
    sign = '<svg class="tg" width="26" height="14" viewBox="0 0 26 14" aria-hidden="true">{}</svg>'
    rows = [f"<li>{sign.format(svg.swatch(e.swatch, 13, 7))} {safe(e.text)}</li>" for e in entries]
    return f'<ul class="legend">{"".join(rows)}</ul>'
