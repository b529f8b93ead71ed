"""A sheet: tables with a title above and sentences below, as text, Markdown or HTML. What the lab finds is shown so."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from os import PathLike
from pathlib import Path
from shutil import get_terminal_size
from typing import NamedTuple

from ..see.publishing import inlined, page, save
from ..see.tables import markdown_text, printed


class Table(NamedTuple):
    """Words in columns."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Sheet:
    """`print` it, let a notebook show it, or `.save(path)` it.

    title: stands above. code: lines that stay as they are, below it. tables; notes: sentences at the end.
    """

    def __init__(self, title: str, tables: Sequence[Table], notes: Sequence[str] = (), *, code: str = "") -> None:
        self.title, self.tables, self.notes, self.code = title, tuple(tables), tuple(notes), code

    def __str__(self) -> str:
        return self.text(get_terminal_size((80, 24)).columns)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.title}. Print it>"

    def text(self, width: int = 80) -> str:
        """The sheet in plain text, folded to a width; code stays as it is."""
        words = printed(self.title, self.tables, ["", *self.notes] if self.notes else [], width)
        return words if not self.code else words.replace("\n\n", f"\n\n{self.code.rstrip()}\n\n", 1)

    @property
    def markdown(self) -> str:
        """The sheet in Markdown."""
        out = [f"**{markdown_text(self.title)}**", ""]
        out += ["```diff", self.code.rstrip(), "```", ""] if self.code else []
        for heads, rows in self.tables:
            out += [f"| {' | '.join(map(markdown_text, row))} |" for row in (heads, *rows)]
            out.insert(len(out) - len(rows), "|---" * len(heads) + "|")
            out.append("")
        return "\n".join([*out, *[f"{markdown_text(note)}  " for note in self.notes]]) + "\n"

    @property
    def html(self) -> str:
        """The sheet as a page of its own."""
        return page(self.title, self._body(), styles=["tables.css"])

    def _repr_html_(self) -> str:
        return inlined(self._body(), "tables.css")

    def _body(self) -> str:
        out = [f'<main class="trace"><h1>{escape(self.title)}</h1>']
        out += [f'<pre class="wide">{escape(self.code.rstrip())}</pre>'] if self.code else []
        for heads, rows in self.tables:
            top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
            out.append(f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>')
            for row in rows:
                cells = [f'<td data-of="{escape(h)}">{escape(cell)}</td>' for h, cell in zip(heads, row)]
                out.append(f"<tr>{''.join(cells)}</tr>")
            out.append("</tbody></table></div>")
        return "\n".join([*out, *[f'<p class="note">{escape(note)}</p>' for note in self.notes], "</main>"])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the sheet to a file, whole or not at all: .txt, .md or .html.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written.
        """
        forms = {".txt": lambda: self.text(120) + "\n", ".md": lambda: self.markdown, ".html": lambda: self.html}
        return save(path, forms)
