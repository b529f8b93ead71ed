"""What can be shown in every way: as SVG, as a page of HTML, as text in a terminal, and saved by its suffix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..publishing import page, save
from ..summary import number
from ..words import printable, safe
from .heat import Strip, seen, svg
from .terminal import BLOCKS, DIGITS, IN_ASCII, lines, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class Picture:
    """A measurement that can be looked at. `print` shows it as text, a notebook as a picture, `.save(path)` writes it.

    It is made of strips, one below the other; svg, html: the picture and a page around it.
    """

    @property
    def title(self) -> str:
        """What stands above the picture."""
        raise NotImplementedError

    def strips(self) -> list[Strip]:
        """The grids that it shows."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """What is to be seen, in words."""
        return []

    def numbers(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The heads and the rows of a table for the page: the lines above the cells, column by column."""
        strips = [strip for strip in self.strips() if strip.line is not None]
        if not strips:
            return (), ()
        heads = ["t", "", *[f"{strip.title}: {strip.line_name}" for strip in strips]]
        columns = [[number(float(value)) for value in strip.line] for strip in strips if strip.line is not None]
        labels = [seen(label) for label in strips[0].columns]
        return heads, [[str(t), label, *row] for t, (label, row) in enumerate(zip(labels, zip(*columns)))]

    @property
    def svg(self) -> str:
        """The picture, ready to stand in a page."""
        return svg(self.title, self.strips(), " ".join(self.sentences()))

    @property
    def _figure(self) -> str:
        """The SVG for a page whose heading says the title."""
        return svg(self.title, self.strips(), " ".join(self.sentences()), headed=False)

    @property
    def html(self) -> str:
        """A page of its own: words, picture, numbers. No network, no script; light or dark as the reader has it."""
        said = [f"<p>{safe(each)}</p>" for each in self.sentences()]
        figure = f'<div class="picture" tabindex="0">\n{self._figure}</div>'
        heads, rows = self.numbers()
        table = _row('th scope="col"', heads) + "".join(_row("td", row) for row in rows)
        folded = f"<details><summary>The numbers</summary><div><table>{table}</table></div></details>"
        parts = [f"<h1>{safe(self.title)}</h1>", *said, figure, *([folded] if heads else [])]
        return page(self.title, "\n".join(parts), styles=["numbers.css"])

    def text(self, width: int = 80) -> str:
        """The picture in characters, without colours, its grids about `width` wide."""
        drawn = [plain(strip, width) for strip in self.strips()]
        return "\n\n".join([printable(self.title), *drawn, "\n".join(map(printable, self.sentences()))])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; the suffix says how: .svg, .html or .txt.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written.
        """
        return save(path, self._forms())

    def _forms(self) -> dict[str, Callable[[], str | bytes]]:
        """How to write the file, by its suffix."""
        return {
            ".svg": lambda: self.svg,
            ".html": lambda: self.html,
            ".txt": lambda: f"{self.text()}\n",
        }

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'  # with its words, which an image file would hide

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.title}; print it, or .save('picture.svg')>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The text with colours, as wide as the terminal."""
        from rich.text import Text

        blocks, table = (DIGITS, IN_ASCII) if options.ascii_only else (BLOCKS, {})
        yield Text(printable(self.title).translate(table), style="bold")
        for strip in self.strips():
            yield Text()
            for n, line in enumerate(lines(strip, options.max_width, blocks)):
                pieces = [(words.translate(table), style) for words, style in line]
                yield Text.assemble(*pieces, no_wrap=n > 0, overflow="crop" if n else "fold")
        yield Text()
        for sentence in self.sentences():
            yield Text(printable(sentence).translate(table))


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{safe(cell)}</{tag[:2]}>' for cell in cells)}</tr>"
