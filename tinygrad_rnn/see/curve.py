"""Curves as SVG, ready to stand in a page: a frame, round numbers on the axes, one line per series and its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

from .flow.heat import DARK_INKS, INKS
from .flow.plots import DARK, LINES
from .words import safe

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 120, 44, 52
TONES = tuple(tone for tone, _, _ in LINES)


def curve(series: Mapping[str, Sequence[Point]], *, title: str = "", x: str = "", y: str = "") -> str:
    """An SVG with one line per series, light or dark as the reader has it.

    series: points (x, y) by name; those that are not finite break the line. A lone point is drawn as a dot.
    title, x, y: what stands above and at the axes.
    """
    points = [p for line in series.values() for p in line if _finite(p)]
    across, up = (ticks([p[axis] for p in points] or [0.0, 1.0]) for axis in (0, 1))

    def place(p: Point) -> Point:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (p[0] - across[0]) / (across[-1] - across[0]),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (p[1] - up[0]) / (up[-1] - up[0]),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tgr-curve" role="img" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica,Arial,sans-serif" font-size="12">',
        f"<title>{safe(title) or 'curve'}</title>",
        f"<style>{style()}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        _text(LEFT, 24, title, 'font-size="15" font-weight="bold"'),
    ]
    for value in up:
        _, at = place((across[0], value))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{value:g}", 'text-anchor="end"'))
    for value in across:
        at, _ = place((value, up[0]))
        parts.append(f'<path class="axis" d="M{at:.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 19, f"{value:g}", 'text-anchor="middle"'))
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, 'text-anchor="middle"'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(16, middle, y, f'text-anchor="middle" transform="rotate(-90 16 {middle:g})"'))
    ends = []
    for n, (name, line) in enumerate(series.items()):
        tone = f"tone{n % len(TONES)}"
        parts += _drawn([place(p) if _finite(p) else None for p in line], tone)
        if last := [place(p) for p in line if _finite(p)]:
            ends.append((last[-1], name, tone))
    highest = math.inf
    for (at, height), name, tone in sorted(ends, key=lambda end: -end[0][1]):
        highest = min(height + 4, highest - 15)  # names keep a line's distance, away from the axis
        parts.append(_text(at + 8, highest, name, f'class="{tone}"'))
    return "\n".join([*parts, "</svg>", ""])


@cache
def style() -> str:
    """The colours, by class; a reader who has set his machine to dark gets the dark ones."""

    def rules(inks: Mapping[str, str], tones: Sequence[str]) -> str:
        found = f".tgr-curve .paper{{fill:{inks['paper']}}}.tgr-curve text{{fill:{inks['ink']}}}"
        found += f".tgr-curve .grid{{stroke:{inks['grid']}}}.tgr-curve .axis{{stroke:{inks['faint']}}}"
        for n, tone in enumerate(tones):
            found += f".tgr-curve text.tone{n},.tgr-curve .dot.tone{n}{{fill:{tone}}}"
            found += f".tgr-curve .line.tone{n}{{stroke:{tone}}}"
        return found

    fixed = ".tgr-curve{max-width:100%;height:auto}.tgr-curve .line{fill:none;stroke-width:1.8}"
    dark = rules(DARK_INKS, [DARK[tone] for tone in TONES])
    return f"{fixed}{rules(INKS, TONES)}@media(prefers-color-scheme:dark){{{dark}}}"


def ticks(values: Sequence[float], count: int = 6) -> list[float]:
    """About `count` round numbers at equal distances, from at or below the least value to at or above the largest."""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1.0) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{n * step:.12g}") for n in range(first, max(last, first + 1) + 1)]


def _finite(p: Point) -> bool:
    return math.isfinite(p[0]) and math.isfinite(p[1])


def _text(x: float, y: float, words: str, form: str) -> str:
    return f'<text x="{x:g}" y="{y:.1f}" {form}>{safe(words)}</text>'


def _drawn(places: Sequence[Point | None], tone: str) -> list[str]:
    """Each unbroken stretch as a path, or as a dot if it is a single point."""
    stretches: list[list[Point]] = [[]]
    for at in places:
        if at is None:
            stretches.append([])
        else:
            stretches[-1].append(at)
    return [
        f'<circle class="dot {tone}" cx="{s[0][0]:.1f}" cy="{s[0][1]:.1f}" r="3"/>'
        if len(s) == 1
        else f'<path class="line {tone}" d="M{" ".join(f"{x:.1f} {y:.1f}" for x, y in s)}"/>'
        for s in stretches
        if s
    ]
