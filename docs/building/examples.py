"""The examples as the site shows them: run in the cell of a page, with the pictures that they save."""

from __future__ import annotations

import importlib
import sys
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))


class Pictures:
    """Pictures in files, one below the other. words: what stands for one that has no words inside."""

    def __init__(self, paths: list[Path], words: str) -> None:
        self.shown = [path.read_text("utf-8") if path.suffix == ".svg" else image(path, words) for path in paths]

    def _repr_html_(self) -> str:
        return "".join(f'<div style="overflow-x:auto">{each}</div>' for each in self.shown)


def image(path: Path, words: str) -> str:
    """A PNG file as an element that holds it."""
    data = b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(words)}" width="480" src="data:image/png;base64,{data}">'


def ran(name: str, **options: Any) -> Pictures | None:
    """Run an example in the current folder; what it prints stands above the pictures that it has saved there."""
    before, example = set(Path().iterdir()), importlib.import_module(name)
    example.main(**options)
    saved = sorted(path for path in set(Path().iterdir()) - before if path.suffix in (".svg", ".png"))
    return Pictures(saved, (example.__doc__ or name).partition("\n")[0]) if saved else None
