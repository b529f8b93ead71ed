"""The same grids for a terminal: each cell a block whose height tells the number, and coloured where colours are on.

Letters stand above the columns, as they are read. Words would not fit there, so a grid over words is turned: a line
for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from ..words import printable
from .heat import LEVELS, Strip, colour, seen

BLOCKS, DIGITS, ABSENT = "▁▂▃▄▅▆▇█", "01234567", " "
SIGNED = {BLOCKS: "▁▂▃─▅▆█", DIGITS: "0123456"}
"""For numbers of both signs: what is about zero is a line."""
IN_ASCII = str.maketrans("␣⏎⇥─", "_/>-")
COLOURS = {"s": ("#808890", "#3d8fd6", "#1f9bff"), "d": ("#ff8c1a", "#c98a4b", "#808890", "#4b8fc9", "#1f9bff")}
"""Of the blocks, low to high; none of them is lost on a dark or on a light terminal."""
Piece = tuple[str, str]
"""Characters and their colours in the words of `rich`, "" for the usual ones."""


def lines(strip: Strip, width: int = 80, blocks: str = BLOCKS) -> Iterator[list[Piece]]:
    """The strip line by line, each in pieces, none wider than `width` as long as that leaves room for a few columns.

    blocks: the characters for numbers, lowest first: `BLOCKS`, or `DIGITS` where a terminal has letters only.
    """
    low, high = strip.scale
    blocks = SIGNED[blocks] if strip.signed else blocks
    yield [(printable(strip.title), "bold"), (f"  {printable(strip.note)}" if strip.note else "", "")]
    turned = not strip.stepped and any(len(seen(label)) > 1 for label in strip.columns)
    yield from (_turned if turned else _upright)(strip, width, blocks)
    yield [(f"scale: {low} {blocks} {high}", "dim")]


def plain(strip: Strip, width: int = 80, blocks: str = BLOCKS) -> str:
    """The same without colours."""
    return "\n".join("".join(words for words, _ in line).rstrip() for line in lines(strip, width, blocks))


def _upright(strip: Strip, width: int, blocks: str) -> Iterator[list[Piece]]:
    names = [printable(strip.line_name) if strip.line is not None else "", *map(printable, strip.rows)]
    margin = max(map(cell_len, names)) + 2
    symbols = [seen(label) for label in strip.columns]
    cell = max([1, *[cell_len(label) for label in symbols if not strip.stepped]])
    length = max((width - margin) // cell, 8)
    for start in range(0, len(symbols), length):
        part = range(start, min(start + length, len(symbols)))
        if strip.stepped:
            ruler = "".join(symbols[c].ljust(10) for c in part if c % 10 == 0)
            lead = min(-start % 10, len(part))
            yield [(" " * (margin + lead) + ruler[: len(part) - lead], "dim")]
        else:
            yield [(" " * margin + "".join(_padded(symbols[c], cell) for c in part), "bold")]
        if strip.line is not None:
            yield [(_padded(names[0], margin), ""), *_cells(strip, [strip.line[c] for c in part], blocks, cell)]
        for name, row in zip(names[1:], strip.values):
            yield [(_padded(name, margin), "dim"), *_cells(strip, [row[c] for c in part], blocks, cell)]


def _turned(strip: Strip, width: int, blocks: str) -> Iterator[list[Piece]]:
    labels = [seen(label) for label in strip.columns]
    margin, told = max(map(cell_len, labels)) + 2, printable(strip.line_name) if strip.line is not None else ""
    before = max(cell_len(told), 8) + 2 if told else 0
    room = max(width - margin - before, 8)
    names = [name.split()[-1] if name.split() else "" for name in map(printable, strip.rows[:room])]
    tall = max(map(len, names), default=0)
    for n, letters in enumerate(zip(*[name.rjust(tall) for name in names])):  # the names of the rows, upright
        lead = _padded(told if n == tall - 1 else "", before)
        yield [(" " * margin + lead + "".join(letters), "dim")]
    for c, label in enumerate(labels):
        words = [(_padded(label, margin), "bold")]
        if told and strip.line is not None:
            value = float(strip.line[c])
            words += [(f"{value:5.2f} " if math.isfinite(value) else "    - ", "")]
            words += [*_cells(strip, [value], blocks, 1), (" " * (before - 7), "")]
        yield [*words, *_cells(strip, strip.values[:room, c].tolist(), blocks, 1)]


def _padded(words: str, width: int) -> str:
    """With spaces behind, so that it takes so many columns of a terminal, where some letters take two."""
    return words + " " * (width - cell_len(words))


def _cells(strip: Strip, values: Sequence[float], blocks: str, cell: int) -> list[Piece]:
    pieces = []
    for value in values:
        if math.isfinite(value):
            tone = colour(COLOURS[strip.kind], strip.level(value) / (LEVELS - 1))
            pieces.append((blocks[strip.level(value, len(blocks))] * cell, tone))
        else:
            pieces.append((ABSENT * cell, "dim"))
    return pieces
