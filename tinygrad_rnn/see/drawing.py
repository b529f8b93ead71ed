"""`draw`: the picture of how a result was computed, as SVG, HTML, DOT or JSON, or as PNG or PDF where it can be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from ..core.tensor import Tensor
from ..errors import DrawError, GraphError, OptionError
from . import dot, svg
from .building import graph
from .graph import Graph
from .layout import LESS, check, render, system_dot
from .look import headline
from .publishing import page, save
from .svg import FONTS
from .unfolding import unfolded
from .view import Collapse, Steps, View
from .words import counted

MONOSPACED = ("DejaVu Sans Mono", "Liberation Mono", "Menlo", "Consolas", "Noto Sans Mono", "Courier New", "FreeMono")


class Drawing:
    """A picture. A notebook shows it by itself; `.save(path)` writes it; `.svg`, `.html`, `.dot` and `.json` are texts.

    graph: the model, whose boxes, arrows and groups can be asked by a program.
    """

    def __init__(
        self, graph: Graph, *, title: str = "", direction: str = "LR", legend: bool = True, engine: str = "auto",
        timeout: float | None = 10.0,
    ) -> None:  # fmt: skip
        self.graph, self.title, self.engine, self.timeout = graph, title, engine, timeout
        self._direction, self._legend = direction, legend

    @cached_property
    def dot(self) -> str:
        """The picture in Graphviz' language; the same computation always gives the same text."""
        return self._written()

    def _written(self, sized: bool = False) -> str:
        heading = headline(self.graph, self.title)
        return dot.write(self.graph, title=heading, direction=self._direction, explained=self._legend, sized=sized)

    @cached_property
    def svg(self) -> str:
        """The picture as SVG, ready to stand in a page.

        Raises: DrawError, if no engine can lay it out; DrawTimeout, if that takes longer than `timeout`.
        """
        try:
            return svg.write(self.graph, self._laid_out, title=self.title, prefix=self.prefix)
        except KeyError as error:
            raise DrawError(f"Graphviz left {error} out of its layout of {size(self.graph)}; draw it again") from None

    @cached_property
    def prefix(self) -> str:
        """What stands before the ids in the SVG, so that two pictures can stand in one page."""
        return f"p{hashlib.sha256(self.dot.encode()).hexdigest()[:6]}-"

    @cached_property
    def _laid_out(self) -> dict[str, Any]:
        answer = self._rendered(self._written(sized=True), "json0", self.engine)
        try:
            found: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise DrawError(f"Graphviz broke off while it laid out {size(self.graph)}. Draw it again") from None
        return found

    @property
    def json(self) -> str:
        """The model as JSON text; `see.graph.Graph.from_json` reads it."""
        return self.graph.to_json()

    @property
    def html(self) -> str:
        """The picture as a page of its own: it scrolls, tells more under the mouse, and lights up what belongs.

        Raises: as `svg`.
        """
        heading = headline(self.graph, self.title)
        return page(heading, f'<main class="picture">\n{self.svg}</main>', scripts=["picture.js"])

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'

    def __repr__(self) -> str:
        return f"<Drawing of {size(self.graph)}>"

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; the suffix says how.

        .svg, .html, .dot (or .gv) and .json always work; .png needs resvg-py or the system's dot; .pdf the latter.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written; DrawError; DrawTimeout.
        """
        forms: dict[str, Callable[[], str | bytes]] = {
            ".svg": lambda: self.svg, ".html": lambda: self.html, ".dot": lambda: self.dot, ".gv": lambda: self.dot,
            ".json": lambda: self.json, ".png": self._pixels, ".pdf": self._pdf,
        }  # fmt: skip
        return save(path, forms)

    def _rendered(self, text: str, form: str, engine: str) -> bytes:
        return render(text, form, engine=engine, timeout=self.timeout, size=size(self.graph))

    def _pdf(self) -> bytes:
        if not system_dot():
            raise DrawError(
                "PDF needs the system's dot (apt install graphviz); SVG, HTML, DOT and JSON work without it"
            )
        return self._rendered(self.dot, "pdf", "dot")

    def _pixels(self) -> bytes:
        try:
            import resvg_py
        except ImportError:
            if self.engine != "wasm" and system_dot():
                return self._rendered(self.dot, "png", "dot")
            raise DrawError(
                "PNG needs the system's dot (apt install graphviz) or resvg-py (pip install resvg-py); "
                "SVG, HTML, DOT and JSON work without them"
            ) from None
        return _rasterised(resvg_py, self.svg)


def draw(
    y: Tensor | Iterable[Any],
    *,
    title: str = "",
    direction: str = "LR",
    depth: int | None = None,
    collapse: Collapse = "auto",
    steps: Steps = "auto",
    roll: bool = False,
    expand: bool = False,
    values: bool = True,
    grads: bool = True,
    grad: Any = None,
    legend: bool = True,
    engine: str = "auto",
    timeout: float | None = 10.0,
    max_nodes: int = 2000,
) -> Drawing:
    """The picture of everything that had a part in making y: a box for each operation, a frame for each module call.

    Each box shows the value, and the gradient of y for it; for that the engine goes back once more, without touching
    anybody's `.grad` (hooks are called, as in any pass). So a picture can be drawn before and after `backward()`,
    which it neither needs nor disturbs.

    y: a tensor, or several in a tuple or list, however nested, such as what an LSTM returns.
    title: stands above the picture. direction: "LR" (time from left to right) or "TB".
    depth: how many modules deep to go; what is deeper is one box for each call.
    collapse: what is one box besides: a list of names, kinds ("GRUCell") or paths of modules, or a function of a
        `see.graph.Group`; True closes every module, False none; "auto" closes all time steps of a loop but the first
        where there are too many boxes to read.
    steps: which time steps are shown: "all", a number, a slice or a list of numbers; "auto" shows all up to 6, else
        the first two and the last two.
    roll: draw equal time steps as one, with a loop.
    expand: unfold every fused operation, such as a whole recurrent layer, into the operations that it stands for; they
        are computed once more for it.
    values, grads: whether boxes show their value, and the gradient for it.
    grad: the gradient that comes in for y, as in `backward`; ones if left out, which differentiates the sum of y.
    legend: explain shapes, colours and marks.
    engine: "auto" (the system's `dot`, else Graphviz in WebAssembly), "dot" or "wasm".
    timeout: how many seconds laying it out may take; None or infinity for no limit.
    max_nodes: a graph with more boxes is refused, as nobody could read it.

    Raises: GraphError, if y has no graph; DrawError, if it is too large; OptionError.
    """
    check(engine, timeout)
    if direction not in ("LR", "TB"):
        raise OptionError(f"direction is 'LR' or 'TB', not {direction!r}")
    view = View(depth, collapse, steps, roll)
    results = list(results_of(y))
    model = graph(unfolded(results) if expand else results, view, values=values, grads=grads, grad=grad)
    if len(model.nodes) > max_nodes:
        raise DrawError(
            f"{size(model)} are more than anybody can read (max_nodes={max_nodes}). {LESS}, or raise max_nodes="
        )
    return Drawing(model, title=str(title), direction=direction, legend=legend, engine=engine, timeout=timeout)


def size(graph: Graph) -> str:
    """How large a picture is, in words."""
    boxes = "1 box" if len(graph.nodes) == 1 else f"{len(graph.nodes):,} boxes"
    return f"{boxes} and {counted(len(graph.edges), 'arrow')}"


def results_of(y: Any, who: str = "draw") -> Iterable[Tensor]:
    """All tensors in a nest of tuples and lists.

    Raises: GraphError, which says who does not take it, for anything else.
    """
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, (tuple, list)):
        for each in y:
            yield from results_of(each, who)
    elif y is not None:
        raise GraphError(f"{who} takes a tensor or a tuple of tensors, not {type(y).__name__}")


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
