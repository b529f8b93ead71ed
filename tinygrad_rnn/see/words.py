"""Words as a picture shows them: whatever a name is made of, it can be seen, and it breaks neither DOT nor XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def safe(line: str) -> str:
    """The same as the text of an element in HTML or XML, or of an attribute."""
    return escape(printable(line))


def counted(count: int, noun: str) -> str:
    """A number of things, in the plural where it takes one."""
    return f"{grouped(count)} {noun}{'' if count == 1 else 's'}"


def grouped(count: int) -> str:
    """A whole number with its digits in threes; of a very large one, the power of ten."""
    return f"{count:,}" if count < 10**15 else f"about 10^{math.log10(count):,.0f}"


def over_axes(axes: Sequence[int]) -> str:
    """Which axes: "axis 0", or "axes 0, 2"."""
    return f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}"


def printable(line: str) -> str:
    r"""Text for one line: white space becomes spaces, whatever else has no shape of its own is written as in Python.

    So a line break is a space, and NUL, the mark of another direction of writing or half of a pair of UTF-16 are
    `\x00`, `\u202e` and `\ud800`.
    """
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in line)
