"""Plots by matplotlib, the extra `plot`: curves on a logarithmic axis, and matrices. In a terminal they are strips."""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DrawError
from ..words import printable, safe
from .heat import powers_of_ten, seen
from .picture import Picture

# After the palette of Okabe and Ito; each line has a form of its own, too, and its name at its end.
LINES = (("#0072b2", "-", "o"), ("#b85c00", "--", "s"), ("#00805f", "-.", "^"), ("#a8518a", ":", "D"),
         ("#7d7100", (0, (5, 1, 1, 1, 1, 1)), "v"), ("#707070", (0, (1, 1)), "P"))  # fmt: skip
INK, FAINT, PAPER, GRID = "#222221", "#595958", "#fffffe", "#d5d5d4"
"""Colours that nothing else has, so that a dark page can have others in their place."""
DARK = {
    INK: "#e8e8e8", FAINT: "#b4b4b4", PAPER: "#1b1c1f", GRID: "#44474d", "#0072b2": "#56b4e9", "#b85c00": "#f0a050",
    "#00805f": "#3fc79a", "#a8518a": "#e29fc9", "#7d7100": "#d6c94a", "#707070": "#b5b5b5",
}  # fmt: skip
MOST = 12
"""How many powers of ten an axis has at most: further below, numbers are rounding."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Lines by name over 0, 1, 2, ...; the other axis is logarithmic. x, y: what stands at the axes."""

    lines: Mapping[str, NDArray[Any]]
    x: str
    y: str

    size = (7.6, 4.4)

    def put(self, figure: Any) -> None:
        """Draw it into a figure of matplotlib."""
        axes = figure.add_subplot()
        top = max([float(np.nanmax(line, initial=0)) for line in self.lines.values()]) or 1.0
        ends = []
        for n, (name, line) in enumerate(self.lines.items()):
            tone, dash, mark = LINES[n % len(LINES)]
            shown = np.where(np.isfinite(line) & (line > top * 10.0**-MOST), line, np.nan)
            axes.plot(np.arange(len(line)), shown, color=tone, linestyle=dash, marker=mark, markersize=4,
                      markevery=max(1, len(line) // 8), linewidth=1.8)  # fmt: skip
            if (there := np.flatnonzero(np.isfinite(shown))).size:
                ends.append((float(shown[there[-1]]), int(there[-1]), name, tone))
        axes.set_yscale("log")
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        axes.margins(x=0.02)
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        self._name(axes, ends)

    def _name(self, axes: Any, ends: list[tuple[float, int, str, str]]) -> None:
        """The name of each line at its end; beside the frame, they stand a line's height apart."""
        low, high = np.log10(axes.get_ylim())
        above, right = -np.inf, max([last for _, last, _, _ in ends], default=0)
        for value, last, name, tone in sorted(ends):
            if last < right:  # a line that ends on the way
                axes.annotate(printable(name), (last, value), xytext=(6, 2), textcoords="offset points", color=tone,
                              parse_math=False)  # fmt: skip
                continue
            at = above = max((np.log10(value) - low) / (high - low), above + 0.06)
            axes.annotate(
                printable(name), (last, value), xytext=(1.03, at), textcoords=axes.transAxes, color=tone, va="center",
                parse_math=False,
                arrowprops={"arrowstyle": "-", "color": tone, "linewidth": 0.6, "alpha": 0.6}, annotation_clip=False,
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Matrix:
    """Positive numbers (T, T) as colours on a logarithmic scale, row 0 on top; zeros are left blank.

    labels (T): of rows and columns. x, y: what stands at the axes. scale: what the colours say.
    """

    values: NDArray[Any]
    labels: Sequence[str]
    x: str
    y: str
    scale: str

    size = (6.4, 5.2)

    def put(self, figure: Any) -> None:
        """Draw it into a figure of matplotlib."""
        from matplotlib.colors import LogNorm

        axes = figure.add_subplot()
        shown = np.ma.masked_less_equal(np.nan_to_num(self.values), 0)
        mesh = axes.pcolormesh(shown, norm=LogNorm(*powers_of_ten(self.values, MOST)), cmap="cividis", rasterized=True)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        count = len(self.labels)
        steps = range(0, count, 1 if count <= 24 else 5 * math.ceil(count / 60))
        turned = {"rotation": 90} if any(len(label) > 3 for label in self.labels) else {}
        for axis, look in ((axes.xaxis, turned), (axes.yaxis, {})):
            names = [seen(self.labels[step]) for step in steps]
            axis.set_ticks([step + 0.5 for step in steps], names, parse_math=False, **look)
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        figure.colorbar(mesh, ax=axes, label=self.scale)


class Plot(Picture):
    """A picture that matplotlib draws; as text it needs nothing but a terminal."""

    def drawn(self) -> Curve | Matrix:
        """What is plotted."""
        raise NotImplementedError

    def figure(self) -> Any:
        """The plot as a Figure of matplotlib, to be changed or placed as you like.

        Raises: DrawError, if matplotlib is not installed.
        """
        try:
            from matplotlib import rc_context
            from matplotlib.figure import Figure
        except ImportError:
            raise DrawError(
                'plots need matplotlib: pip install "tinygrad_rnn[plot]"; print() shows this one without'
            ) from None
        plot = self.drawn()
        with rc_context(STYLE):
            figure: Any = Figure(figsize=plot.size, layout="constrained")
            plot.put(figure)
            figure.suptitle(printable(self.title), fontsize=11, fontweight="bold", parse_math=False)
        return figure

    @property
    def svg(self) -> str:
        """The plot as SVG, ready to stand in a page.

        Raises: DrawError, if matplotlib is not installed.
        """
        drawn = self._written("svg").decode()
        size = re.search(r'width="[\d.]+pt" height="[\d.]+pt" viewBox="[^"]+"', drawn)
        assert size is not None
        body = drawn[drawn.index("<defs>", drawn.index("</metadata>")) :]
        styles: dict[str, str] = {}
        body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
        body = re.sub(r' style="([^"]*)"', lambda found: f' class="{_class_of(found[1], styles)}"', body)
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="tgr-plot" '
            f'role="img" {size[0]}>',
            f"<title>{safe(self.title)}</title>",
            f"<desc>{safe(' '.join(self.sentences()))}</desc>",
            f"<style>{_sheet(styles)}</style>",
            body,
        ])  # fmt: skip

    @property
    def _figure(self) -> str:
        return self.svg

    def _forms(self) -> dict[str, Callable[[], str | bytes]]:
        pixels = {".png": lambda: self._written("png"), ".pdf": lambda: self._written("pdf")}
        return super()._forms() | pixels

    def _written(self, form: str) -> bytes:
        figure, file = self.figure(), io.BytesIO()
        from matplotlib import rc_context

        stamp = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
        with rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # an SVG has letters, and other fonts
            figure.savefig(file, format=form, metadata=stamp, dpi=200, facecolor=PAPER)
        return file.getvalue()


STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10, "text.color": INK,
    "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT,
    "axes.facecolor": PAPER, "figure.facecolor": PAPER, "svg.fonttype": "none", "svg.hashsalt": "tinygrad_rnn",
    "mathtext.fontset": "dejavusans", "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.1,
}  # fmt: skip


def _class_of(style: str, styles: dict[str, str]) -> str:
    """A class in the place of a style in an element, which pages forbid; the same style has the same class anywhere."""
    name = f"s{hashlib.sha256(style.encode()).hexdigest()[:6]}"
    styles[name] = unescape(style)
    return name


def _sheet(styles: dict[str, str]) -> str:
    """The styles of all classes, and in the dark those with other colours; the matrix stays as it is."""
    light = "".join(f".tgr-plot .{name}{{{style}}}" for name, style in styles.items())
    dark = re.sub("|".join(DARK), lambda tone: DARK[tone[0]], light)
    every = ".tgr-plot{max-width:100%;height:auto}.tgr-plot *{stroke-linejoin:round;stroke-linecap:butt}"
    return f"{every}{light}@media(prefers-color-scheme:dark){{{dark}}}"
