"""The docstrings of the package as the reference shows them: its plain form in, what Sphinx reads out.

A line such as `x, y: what they are`, with its continuation indented, is the entry of a list, and so is `Raises:`;
`code` stands between single backticks; a block that is indented as a whole is code.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\.\w+)*=?(?:, (?:and )?\*{0,2}\w+=?)*): (?P<words>\S.*)")
"""The start of an entry: one or several names, and what is said of them."""


def rewritten(lines: list[str]) -> list[str]:
    """A docstring in Sphinx' language."""
    found: list[str] = []
    kind = "text"  # what the lines before belong to: text, an entry, or code
    for line in lines:
        indented, words = line.startswith((" ", "\t")), line.strip()
        if not words:
            found.append("")
            kind = "text" if kind == "entry" else kind
        elif indented and (kind == "code" or (kind == "text" and (not found or not found[-1]))):
            found += ["::", ""] if kind != "code" else []
            found.append(f"    {line}")
            kind = "code"
        elif indented:
            found.append(f"    {plain(words)}" if kind == "entry" else plain(words))
        else:
            found += [""] if kind == "code" else []
            kind = "text"
            for part in re.split(r"(?<=\.) (?=\w+: )", words) if ENTRY.fullmatch(words) else [words]:
                if entry := ENTRY.fullmatch(part):
                    names = ", ".join(f"``{name}``" for name in re.split(r", (?:and )?", entry["names"]))
                    heading = entry["names"] if entry["names"] in ("Raises", "Returns") else names
                    found += [*([""] if found and found[-1] else []), heading, f"    {plain(entry['words'])}"]
                    kind = "entry"
                else:
                    found.append(plain(part))
    return [*found, ""]


def plain(words: str) -> str:
    """Text whose stars, bars and underscores are only themselves, and whose code is marked as such."""
    pieces = re.split(r"(`[^`]+`)", words)
    return "".join(f"`{piece}`" if piece.startswith("`") else re.sub(r"([*|_\\])", r"\\\1", piece) for piece in pieces)


def rewrite(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Give Sphinx the docstring of one thing."""
    lines[:] = rewritten(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
