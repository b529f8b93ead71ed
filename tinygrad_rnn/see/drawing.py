"""`draw`: the picture of how a result was computed, as SVG, DOT or JSON, and as PNG or PDF where the machine can."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from ..core.tensor import Tensor
from ..errors import DrawError, GraphError, OptionError, OutputError
from .dot import write
from .graph import Graph, Node, graph, unfolded
from .layout import LESS, check, render, system_dot, write_atomically
from .words import printable

FONTS = "Menlo,Consolas,DejaVu Sans Mono,monospace"
MONOSPACED = ("DejaVu Sans Mono", "Liberation Mono", "Menlo", "Consolas", "Noto Sans Mono", "Courier New", "FreeMono")
SUFFIXES = (".svg", ".dot", ".gv", ".json", ".png", ".pdf")
PIXELS_PER_POINT = 4 / 3


class Drawing:
    """A picture. A notebook shows it by itself; `.save(path)` writes it; `.svg`, `.dot` and `.json` are its texts.

    graph: the model, whose boxes, arrows and groups can be asked by a program.
    """

    def __init__(self, graph: Graph, *, title: str, direction: str, engine: str, timeout: float | None) -> None:
        self.graph, self.title, self.engine, self.timeout = graph, title, engine, timeout
        self._direction = direction

    @cached_property
    def dot(self) -> str:
        """The picture in Graphviz' language; the same computation always gives the same text."""
        return write(self.graph, title=self.title, direction=self._direction)

    @cached_property
    def svg(self) -> str:
        """The picture as SVG, ready to stand in a page.

        Raises: DrawError, if no engine can lay it out; DrawTimeout, if that takes longer than `timeout`.
        """
        return finished(self._laid_out("svg", self.engine).decode(), self.graph, self.title)

    @property
    def json(self) -> str:
        """The model as JSON text; `see.graph.Graph.from_json` reads it."""
        return self.graph.to_json()

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Drawing of {size(self.graph)}>"

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; the suffix says how.

        .svg, .dot (or .gv) and .json always work; .png needs the system's dot or resvg-py; .pdf the system's dot.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written; DrawError; DrawTimeout.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise OptionError(f"cannot tell from {target.name!r} what to write; known suffixes are {known}")
        if suffix in (".dot", ".gv", ".json", ".svg"):
            data = {".svg": "svg", ".json": "json"}.get(suffix, "dot")
            content = str(getattr(self, data)).encode()
        else:
            content = self._pixels() if suffix == ".png" else self._pdf()
        try:
            write_atomically(target, content)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write {target}: {reason}; choose another folder or name") from error
        return target

    def _laid_out(self, form: str, engine: str) -> bytes:
        return render(self.dot, form, engine=engine, timeout=self.timeout, size=size(self.graph))

    def _pdf(self) -> bytes:
        if not system_dot():
            raise DrawError("PDF needs the system's dot (apt install graphviz); SVG, DOT and JSON work without it")
        return self._laid_out("pdf", "dot")

    def _pixels(self) -> bytes:
        if self.engine != "wasm" and system_dot():
            return self._laid_out("png", "dot")
        try:
            import resvg_py
        except ImportError:
            raise DrawError(
                "PNG needs the system's dot (apt install graphviz) or resvg-py (pip install resvg-py); "
                "SVG, DOT and JSON work without them"
            ) from None
        return _rasterised(resvg_py, self.svg)


def draw(
    y: Tensor | Iterable[Any],
    *,
    title: str = "",
    direction: str = "LR",
    expand: bool = False,
    engine: str = "auto",
    timeout: float | None = 10.0,
    max_nodes: int = 2000,
) -> Drawing:
    """The picture of everything that had a part in making y: a box for each operation, a frame for each module call.

    It can be drawn before and after `backward()`, which it neither needs nor disturbs.

    y: a tensor, or several in a tuple or list, however nested, such as what an LSTM returns.
    direction: "LR" (time from left to right) or "TB".
    title: stands above the picture.
    expand: unfold every fused operation, such as a whole recurrent layer, into the operations that it stands for; they
        are computed once more for it.
    engine: "auto" (the system's `dot`, else Graphviz in WebAssembly), "dot" or "wasm".
    timeout: how many seconds laying it out may take; None or infinity for no limit.
    max_nodes: a graph with more boxes is refused, as nobody could read it.

    Raises: GraphError, if y has no graph; DrawError, if it is too large; OptionError.
    """
    check(engine, timeout)
    if direction not in ("LR", "TB"):
        raise OptionError(f"direction is 'LR' or 'TB', not {direction!r}")
    results = list(_results(y))
    model = graph(unfolded(results) if expand else results)
    if len(model.nodes) > max_nodes:
        raise DrawError(
            f"{size(model)} are more than anybody can read (max_nodes={max_nodes}). {LESS}, or raise max_nodes="
        )
    return Drawing(model, title=str(title), direction=direction, engine=engine, timeout=timeout)


def size(graph: Graph) -> str:
    """How large a picture is, in words."""
    return f"{len(graph.nodes)} boxes and {len(graph.edges)} arrows"


def _results(y: Any) -> Iterable[Tensor]:
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, (tuple, list)):
        for each in y:
            yield from _results(each)
    elif y is not None:
        raise GraphError(f"draw takes a tensor or a tuple of tensors, not {type(y).__name__}")


def finished(svg: str, graph: Graph, title: str) -> str:
    """Graphviz' SVG made fit for a page: no prolog, fonts that every machine has, sizes in pixels, our own tooltips."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.S)
    svg = re.sub(r'font-family="[^"]*"', f'font-family="{FONTS}"', svg)
    box = re.search(r'viewBox="([-\d. ]+)"', svg)
    if box is None:
        raise DrawError("Graphviz returned a picture without a size")
    width, height = (round(float(n) * PIXELS_PER_POINT) for n in box[1].split()[2:])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'width="{width}" height="{height}" viewBox="{box[1]}" style="max-width:100%;height:auto">'
    )
    tips = _tooltips(graph)
    tips["picture"] = title or f"Computation graph: {size(graph)}"
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"<title>(.*?)</title>", lambda m: _title(tips.get(m[1].replace("&#45;", "-"), "")), body, flags=re.S)
    named = {node.id: node for node in graph.nodes}
    body = re.sub(r'<g id="(\w+)" class="node">.*?</g>', lambda m: _weighted(m[0], named[m[1]]), body, flags=re.S)
    return head + body.rstrip() + "\n"


def _weighted(box: str, node: Node) -> str:
    """A box with its name in bold and its shape in grey: plain labels know only one kind of text."""
    first, last = box.find("<text "), box.rfind("<text ")
    if first < last:
        box = box[:last] + box[last:].replace('fill="#222222"', 'fill="#595959"')
    if node.name:
        box = box[:first] + '<text font-weight="bold" ' + box[first + 6 :]
    return box


def _title(text: str) -> str:
    return f"<title>{escape(printable(text), quote=False)}</title>" if text else ""


def _tooltips(graph: Graph) -> dict[str, str]:
    """What the mouse tells, by the name that Graphviz gives to a box, a frame or an arrow."""
    nodes = {node.id: node for node in graph.nodes}
    tips = {node.id: describe(node) for node in graph.nodes}
    tips |= {f"cluster_{g.id}": f"{g.path} ({g.kind})" if g.kind else g.path for g in graph.groups}
    for edge in graph.edges:
        source, target = nodes[edge.source], nodes[edge.target]
        key = f"{edge.source}-&gt;{edge.target}"
        tip = f"{source.name or source.text or source.role} is {edge.name} of {target.text}"
        tip += "" if edge.differentiable else ", without a gradient"
        tips[key] = f"{tips[key]}; {tip}" if key in tips else tip
    return tips


def describe(node: Node) -> str:
    """A box in words: its role, name, operation, shape and dtype."""
    shape = f"({', '.join(map(str, node.shape))}{',' if len(node.shape) == 1 else ''})"
    made = f"= {node.text}" if node.name and node.text else node.text
    words = [node.name, made, f"{node.role}, {shape} {node.dtype}"]
    facts = ["requires a gradient"] if node.requires_grad and node.role == "parameter" else []
    facts += [f"the same tensor as {node.of}"] if node.of else []
    return ", ".join([" ".join(word for word in words if word), *facts])


def _rasterised(resvg: Any, svg: str, zoom: int = 2) -> bytes:
    """SVG to PNG. The renderer leaves out text whose font is missing without a word, so one that is there is named."""
    probe = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">{}</svg>'
    blank = resvg.svg_to_bytes(svg_string=probe.format(""))
    for font in MONOSPACED:
        letter = f'<text x="2" y="15" font-family="{font}">m</text>'
        if resvg.svg_to_bytes(svg_string=probe.format(letter)) != blank:
            return bytes(resvg.svg_to_bytes(svg_string=svg.replace(FONTS, font), zoom=zoom, dpi=96))
    raise DrawError(
        f"PNG needs a monospaced font, and none is installed of {', '.join(MONOSPACED)} "
        "(apt install fonts-dejavu-core); SVG works without"
    )
