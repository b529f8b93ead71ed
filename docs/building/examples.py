"""The examples as the site shows them: run in the cell of a page, with the pictures that they save."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))


class Pictures:
    """Pictures in SVG files, one below the other."""

    def __init__(self, paths: list[Path]) -> None:
        self.shown = [path.read_text("utf-8") for path in paths]

    def _repr_html_(self) -> str:
        return "".join(f'<div style="overflow-x:auto">{each}</div>' for each in self.shown)


def ran(name: str, **options: Any) -> Pictures | None:
    """Run an example in the current folder; what it prints stands above the pictures that it has saved there."""
    before, example = set(Path().glob("*.svg")), importlib.import_module(name)
    example.main(**options)
    saved = sorted(set(Path().glob("*.svg")) - before)
    return Pictures(saved) if saved else None
