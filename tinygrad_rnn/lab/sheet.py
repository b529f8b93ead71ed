"""A sheet: tables with a title above and sentences below, as text, Markdown or HTML. What the lab finds is shown so."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..see.publishing import Publication
from ..see.tables import markdown_text, printed

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Words in columns: their heads, and the rows."""


class Sheet(Publication):
    """`print` it, let a notebook show it, or `.save(path)` it as .txt, .md or .html.

    title: stands above. code: lines that stay as they are, below it. tables; notes: sentences at the end.
    """

    def __init__(self, title: str, tables: Sequence[Table], notes: Sequence[str] = (), *, code: str = "") -> None:
        self.title, self.tables, self.notes, self.code = title, tuple(tables), tuple(notes), code

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.title}. Print it>"

    def text(self, width: int = 80) -> str:
        """The sheet in plain text, folded to a width; code stays as it is."""
        words = printed(self.title, self.tables, ["", *self.notes] if self.notes else [], width)
        return words.replace("\n\n", f"\n\n{self.code}\n\n", 1) if self.code else words

    @property
    def markdown(self) -> str:
        """The sheet in Markdown."""
        out = [f"**{markdown_text(self.title)}**", ""]
        out += ["```diff", self.code, "```", ""] if self.code else []
        for heads, rows in self.tables:
            head, *lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in (heads, *rows)]
            out += [head, "|---" * len(heads) + "|", *lines, ""]
        return "\n".join([*out, *[f"{markdown_text(note)}  " for note in self.notes]]) + "\n"

    def _body(self) -> str:
        out = [f'<main class="trace"><h1>{escape(self.title)}</h1>']
        out += [f'<pre class="wide">{escape(self.code)}</pre>'] if self.code else []
        for heads, rows in self.tables:
            top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
            out.append(f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>')
            for row in rows:
                cells = [f'<td data-of="{escape(head)}">{escape(cell)}</td>' for head, cell in zip(heads, row)]
                out.append(f"<tr>{''.join(cells)}</tr>")
            out.append("</tbody></table></div>")
        return "\n".join([*out, *[f'<p class="note">{escape(note)}</p>' for note in self.notes], "</main>"])
