"""Curves as SVG, ready to stand in a page: a frame, round numbers on the axes, one line per series and its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from .words import printable, safe

Point = tuple[float, float]
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 120, 44, 52
COLOURS = ("#3b6ea5", "#c4562c", "#4a8a4f", "#7a5aa0")


def curve(series: Mapping[str, Sequence[Point]], *, title: str = "", x: str = "", y: str = "") -> str:
    """An SVG with one line per series.

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
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:100%;height:auto" font-family="Helvetica,Arial,sans-serif" '
        f'font-size="12" fill="#333">',
        f"<title>{escape(printable(title) or 'curve')}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 24, title, 'font-size="15" font-weight="bold"'),
    ]
    for value in up:
        _, at = place((across[0], value))
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e3e3e3"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{value:g}", 'text-anchor="end"'))
    for value in across:
        at, _ = place((value, up[0]))
        parts.append(f'<path d="M{at:.1f} {HEIGHT - BOTTOM}v5" stroke="#888"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 19, f"{value:g}", 'text-anchor="middle"'))
    parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#888"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, 'text-anchor="middle"'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(16, middle, y, f'text-anchor="middle" transform="rotate(-90 16 {middle:g})"'))
    ends = []
    for (name, line), colour in zip(series.items(), COLOURS * len(series), strict=False):
        parts += _drawn([place(p) if _finite(p) else None for p in line], colour)
        if last := [place(p) for p in line if _finite(p)]:
            ends.append((last[-1], name, colour))
    highest = math.inf
    for (at, height), name, colour in sorted(ends, key=lambda end: -end[0][1]):
        highest = min(height + 4, highest - 15)  # names keep a line's distance, away from the axis
        parts.append(_text(at + 8, highest, name, f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


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


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:.1f}" {style}>{safe(words)}</text>'


def _drawn(places: Sequence[Point | None], colour: str) -> list[str]:
    """Each unbroken stretch as a path, or as a dot if it is a single point."""
    stretches: list[list[Point]] = [[]]
    for at in places:
        if at is None:
            stretches.append([])
        else:
            stretches[-1].append(at)
    line = f'fill="none" stroke="{colour}" stroke-width="1.8"'
    return [
        f'<circle cx="{s[0][0]:.1f}" cy="{s[0][1]:.1f}" r="3" fill="{colour}"/>'
        if len(s) == 1
        else f'<path d="M{" ".join(f"{x:.1f} {y:.1f}" for x, y in s)}" {line}/>'
        for s in stretches
        if s
    ]
