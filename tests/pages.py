"""The sources of the pages: README, CONTRIBUTING, the site, the examples' page; their code and what they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *[ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")],
    *SITE,
    *sorted((ROOT / "examples").glob("*.md")),
]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
CELL = "{code-cell} python"


class Block(NamedTuple):
    """A fenced block: its language ("python", "{code-cell} python", "sh", ...), its tags, and what stands in it."""

    language: str
    tags: tuple[str, ...]
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    found = []
    for language, body in re.findall(r"^```(\S[^\n]*|)\n(.*?)^```$", text, re.M | re.S):
        options = re.match(r"(?::[^\n]*\n)*", body)
        tags = re.search(r":tags: \[(.*?)\]", options[0]) if options else None
        found.append(
            Block(language.strip(), tuple(re.findall(r"[\w-]+", tags[1])) if tags else (), body[len(options[0]) :])
        )
    return found


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def text_of(page: Path) -> str:
    """A page as text; of a notebook, its cells as a page would have them."""
    if page.suffix != ".ipynb":
        return page.read_text("utf-8")
    cells = json.loads(page.read_text("utf-8"))["cells"]
    sources = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    return "\n\n".join(s if kind == "markdown" else f"```{CELL}\n{s}\n```" for s, kind in sources)


def documented(text: str) -> Iterator[tuple[str, str]]:
    """What the directives of a page of the reference document: the directive, and the full name of the thing."""
    module = ""
    for kind, argument in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)", text, re.M):
        if kind == "currentmodule":
            module = argument
        else:
            yield kind, argument if kind == "automodule" else f"{module}.{argument}"
