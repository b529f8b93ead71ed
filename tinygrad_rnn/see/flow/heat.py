"""Grids of numbers as coloured cells over the symbols or the steps of a sequence, as SVG.

Nothing is told by colour alone: one scale goes from light to dark, the other marks what is negative; a line shows
the mean; the mouse tells each number. The scale is always printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..summary import number
from ..svg import FONTS
from ..words import printable, safe

LEVELS = 17
# From low to high; negative is orange and positive blue, which all kinds of colour-blind readers can tell apart.
SCALES = {
    "s": ("#f1f5f9", "#c3dbee", "#72b0d9", "#2271b2", "#08306b"),
    "d": ("#7a3300", "#d97a1f", "#f8d9b5", "#f4f4f4", "#bcd9ec", "#3f8dc4", "#08306b"),
}
DARK_SCALES = {
    "s": ("#232c37", "#21496f", "#2f7fb8", "#7fc1ea", "#e8f6ff"),
    "d": ("#ffdcae", "#e39443", "#714617", "#303338", "#1f4d73", "#3c94d0", "#c4e6ff"),
}
INKS = {"paper": "#ffffff", "ink": "#1c1c1c", "faint": "#595959", "grid": "#d8d8d8"}
DARK_INKS = {"paper": "#1b1c1f", "ink": "#e8e8e8", "faint": "#b4b4b4", "grid": "#44474d"}
LEFT, RIGHT, ROW, PANEL, LETTER = 84, 44, 14, 40, 7.3
LONGEST_LINE = 60
"""How many columns stand side by side before the picture goes on below, like a text."""
SEEN = {" ": "␣", "\n": "⏎", "\t": "⇥"}
"""What white space looks like."""


@dataclass(frozen=True, eq=False)
class Strip:
    """One grid: a row for each unit or weight, a column for each symbol or step.

    title, note: what it shows, and how to read it. values (R, C): nan where there is nothing.
    rows, columns: their labels. low, high: the ends of the scale; signed: it has two colours, and 0 in the middle.
    line (C): a curve above the cells on the same scale, such as the mean; line_name: what it is.
    ends: what stands at the ends of the scale, where that is not low and high.
    """

    title: str
    note: str
    values: NDArray[Any]
    rows: Sequence[str]
    columns: Sequence[str]
    low: float = 0.0
    high: float = 1.0
    line: NDArray[Any] | None = None
    line_name: str = ""
    signed: bool = False
    ends: tuple[str, str] | None = None

    @property
    def kind(self) -> str:
        """The scale: "s" from light to dark, "d" for negative and positive."""
        return "d" if self.signed else "s"

    @property
    def scale(self) -> tuple[str, str]:
        """The ends of the scale as words."""
        return self.ends or (number(self.low), number(self.high))

    def level(self, value: float, levels: int = LEVELS) -> int:
        """The step of the scale that a number falls on, from 0 to levels - 1."""
        share = (value - self.low) / (self.high - self.low)
        return min(max(round(share * (levels - 1)), 0), levels - 1)

    @property
    def stepped(self) -> bool:
        """Whether the columns are the numbers of steps, of which a few are enough."""
        return all(map(str.isdecimal, self.columns)) and any(len(label) > 1 for label in self.columns)

    @property
    def lines(self) -> list[range]:
        """The columns that stand side by side, line by line; all lines are about equally long."""
        count = len(self.columns)
        length = math.ceil(count / max(1, math.ceil(count / LONGEST_LINE)))
        return [range(start, min(start + length, count)) for start in range(0, count, max(1, length))]


def seen(symbol: str) -> str:
    """A symbol as a label: white space has a sign of its own, and nothing is invisible."""
    return "".join(SEEN.get(c) or printable(c) for c in symbol) or "''"


# -- SVG -------------------------------------------------------------------------------------------------------------


def svg(title: str, strips: Sequence[Strip], about: str = "", *, headed: bool = True) -> str:
    """The strips, one below the other, ready to stand in a page.

    about: what is to be seen in words, for who cannot see it. headed: whether the title stands above the picture.
    """
    below, parts = (34.0, [_text(12, 22, title, "title")]) if headed else (4.0, [])
    for strip in strips:
        drawn, below = _drawn(strip, below)
        parts += drawn
    columns = max((len(line) for strip in strips for line in strip.lines), default=0)
    words = max([1.25 * len(title) * headed, *[len(strip.title) + len(strip.note) + 4 for strip in strips]])
    width = math.ceil(max(LEFT + columns * max(map(_column, strips), default=0) + RIGHT, 24 + words * LETTER, 420))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tgr-heat" role="img" width="{width}" '
            f'height="{below:.0f}" viewBox="0 0 {width} {below:.0f}" '
            f'font-family="{FONTS}" font-size="12">',
            f"<title>{safe(title)}</title>",
            *([f"<desc>{safe(about)}</desc>"] if about else []),
            f"<style>{style()}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


@cache
def style() -> str:
    """The colours, by class; a reader who has set his machine to dark gets the dark ones."""

    def rules(scales: dict[str, tuple[str, ...]], inks: dict[str, str]) -> str:
        found = [
            f".tgr-heat .{kind}{n}{{fill:{colour(anchors, n / (LEVELS - 1))}}}"
            for kind, anchors in scales.items()
            for n in range(LEVELS)
        ]
        found += [f".tgr-heat .{name}{{fill:{tone}}}" for name, tone in inks.items()]
        found += [
            f".tgr-heat .title,.tgr-heat .name{{fill:{inks['ink']}}}",
            f".tgr-heat .rule{{stroke:{inks['grid']};fill:none}}",
            f".tgr-heat .line{{stroke:{inks['ink']};stroke-width:1.6;fill:none}}",
            f".tgr-heat .minus{{stroke:{inks['ink']};fill:none}}",
            f".tgr-heat .minus-deep{{stroke:{inks['paper']};fill:none}}",
        ]
        return "".join(found)

    fixed = ".tgr-heat{max-width:100%;height:auto}.tgr-heat .title{font-size:15px}"
    fixed += ".tgr-heat .title,.tgr-heat .name{font-weight:bold}"
    fixed += ".tgr-heat .small{font-size:10px}.tgr-heat .over{fill:none;pointer-events:all}"
    dark = rules(DARK_SCALES, DARK_INKS)
    return f"{fixed}{rules(SCALES, INKS)}@media(prefers-color-scheme:dark){{{dark}}}"


def colour(anchors: Sequence[str], share: float) -> str:
    """The colour at a place between 0 and 1 on a scale that is given by colours at equal distances."""
    at = share * (len(anchors) - 1)
    first = min(int(at), len(anchors) - 2)
    pair = [[int(tone[i : i + 2], 16) for i in (1, 3, 5)] for tone in anchors[first : first + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (at - first)):02x}" for a, b in zip(*pair))


def _column(strip: Strip) -> int:
    """The width of a column: words stand upright, and need a little more than letters."""
    return 15 if strip.stepped or all(len(seen(label)) == 1 for label in strip.columns) else 18


def _drawn(strip: Strip, top: float) -> tuple[list[str], float]:
    """The SVG of a strip that begins at a height, and where it ends."""
    parts = [f'<text x="12" y="{top + 14:.0f}" class="name">{safe(strip.title)}<tspan class="faint" dx="14" '
             f'font-weight="normal">{safe(strip.note)}</tspan></text>']  # fmt: skip
    parts += _legend(strip, top + 22)
    top += 42
    for line in strip.lines:
        drawn, top = _line_of(strip, line, top)
        parts += drawn
    return parts, top + 8


def _legend(strip: Strip, top: float) -> list[str]:
    low, high = strip.scale
    parts = [_text(LEFT - 6, top + 10, low, "faint small", "end")]
    for n in range(LEVELS):
        parts.append(f'<rect x="{LEFT + 9 * n}" y="{top}" width="9" height="11" class="{strip.kind}{n}"/>')
    if strip.kind == "d":
        parts.append(_minus([(LEFT + 9 * n, top - 1, 9, n) for n in range(LEVELS // 2)]))
    parts.append(_text(LEFT + 9 * LEVELS + 6, top + 10, high, "faint small"))
    if strip.line is not None:
        at = LEFT + 9 * LEVELS + 60
        parts.append(f'<path class="line" d="M{at} {top + 6}h22"/>')
        parts.append(_text(at + 28, top + 10, strip.line_name, "faint small"))
    return parts


def _line_of(strip: Strip, line: range, top: float) -> tuple[list[str], float]:
    """One line of columns: the curve, the labels, the cells."""
    width, parts = _column(strip), []
    if strip.line is not None:
        parts += _curve(strip, strip.line, line, top)
        top += PANEL + 12
    labels = {c: seen(strip.columns[c]) for c in line}
    tall = [] if strip.stepped else [8 + LETTER * len(label) for label in labels.values() if len(label) > 1]
    head = max([15.0, *tall])
    for c, label in labels.items():
        x = LEFT + width * (c - line.start) + width / 2
        if strip.stepped:
            parts += [_text(x, top + head - 4, label, "faint small", "middle")] if c % 5 == 0 else []
        elif len(label) == 1:
            parts.append(_text(x, top + head - 4, label, "ink", "middle"))
        else:
            turned = f'transform="translate({x + 4:.1f} {top + head - 4:.0f}) rotate(-90)" class="ink"'
            parts.append(f"<text {turned}>{escape(label)}</text>")
    top += head
    marks = []
    for r, name in enumerate(strip.rows):
        y = top + ROW * r
        parts.append(_text(LEFT - 6, y + 11, name, "faint small", "end"))
        for c in line:
            value, x = float(strip.values[r, c]), LEFT + width * (c - line.start)
            if math.isfinite(value):
                level = strip.level(value)
                tip = f"{labels[c]} (t = {c}), {name}: {number(value)}"
                parts.append(f'<rect x="{x}" y="{y:.0f}" width="{width - 1}" height="{ROW - 1}" '
                             f'class="{strip.kind}{level}"><title>{safe(tip)}</title></rect>')  # fmt: skip
                if strip.signed and level < LEVELS // 2:
                    marks.append((x, y, width - 1, level))
    if marks:
        parts.append(_minus(marks))
    return parts, top + ROW * len(strip.rows) + 12


def _minus(marks: Sequence[tuple[float, float, float, int]]) -> str:
    """A dash in each cell that is negative: (x, y, width, level); a light one in a deep colour."""
    found = []
    for deep, group in groupby(sorted(marks, key=lambda m: m[3] < 4), key=lambda m: m[3] < 4):
        path = "".join(f"M{x + width / 2 - 2:.1f} {y + 6.5:.1f}h4" for x, y, width, _ in group)
        found.append(f'<path class="{"minus-deep" if deep else "minus"}" d="{path}"/>')
    return "".join(found)


def powers_of_ten(values: NDArray[Any], most: int) -> tuple[float, float]:
    """The ends of a logarithmic scale for positive numbers: the largest, and the smallest that is to be told from less.

    It has three powers of ten at least, so that what hardly changes looks like it, and at most so many.
    """
    there = values[np.isfinite(values) & (values > 0)]
    top = float(there.max(initial=0)) or 1.0
    return min(max(float(there.min(initial=top)), top * 10.0**-most), top / 1000), top


def logarithmic(
    title: str, note: str, values: NDArray[Any], rows: Sequence[str], columns: Sequence[str], decades: int = 8
) -> Strip:
    """A strip of positive numbers on a logarithmic scale, of at most so many powers of ten."""
    least, top = powers_of_ten(values, decades)
    with np.errstate(divide="ignore"):
        powers = np.log10(values)
    return Strip(title, note, powers, rows, columns, math.log10(least), math.log10(top),
                 ends=(number(least), f"{number(top)}, in powers of ten"))  # fmt: skip


def _curve(strip: Strip, curve: NDArray[Any], line: range, top: float) -> list[str]:
    """The line above the cells, its highest and its lowest place with their numbers."""
    width = _column(strip)

    def place(c: int) -> tuple[float, float]:
        share = min(max((curve[c] - strip.low) / (strip.high - strip.low), 0), 1)
        return LEFT + width * (c - line.start) + width / 2, top + 6 + PANEL * (1 - share)

    end = LEFT + width * len(line) - 1
    parts = []
    for value in sorted({strip.low, 0.0, strip.high}):
        y = top + 6 + PANEL * (strip.high - value) / (strip.high - strip.low)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{end}"/>')
        parts.append(_text(LEFT - 6, y + 3.5, number(value), "faint small", "end"))
    there = [c for c in line if math.isfinite(curve[c])]
    for run in _runs(there):
        points = " ".join(f"{x:.1f} {y:.1f}" for x, y in map(place, run))
        parts.append(f'<path class="line" d="M{points}{"h0.1" if len(run) == 1 else ""}"/>')
    if there:
        for best, side in ((max(there, key=curve.__getitem__), -6), (min(there, key=curve.__getitem__), 12)):
            x, y = place(best)
            parts.append(f'<circle class="ink" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
            parts.append(_text(x, y + side, f"{round(float(curve[best]), 2) + 0:.2f}", "ink small", "middle"))
    for c in there:
        tip = f"{seen(strip.columns[c])} (t = {c}), {strip.line_name}: {number(float(curve[c]))}"
        parts.append(f'<rect class="over" x="{LEFT + width * (c - line.start)}" y="{top}" width="{width}" '
                     f'height="{PANEL + 12}"><title>{safe(tip)}</title></rect>')  # fmt: skip
    return parts


def _runs(columns: Sequence[int]) -> Iterator[list[int]]:
    """The columns in stretches without a gap."""
    for _, run in groupby(enumerate(columns), key=lambda pair: pair[1] - pair[0]):
        yield [c for _, c in run]


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{side}>{safe(words)}</text>'
