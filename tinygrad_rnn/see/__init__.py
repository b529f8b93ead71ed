"""Looking at computations. A side room: imports anything below it.

Words and numbers: `words`, `notation` (LaTeX, MathML, text), `formula` (rules run on symbols), `equations` (cells
run on symbols), `naming`, `summary`.
The way back, written down: `ledger`; from it `tables`, `explain` and `reasons` (why there is no gradient).
Pictures: `graph` (the one model), `building` (from a tape to the model), `unfolding` (what is fused), `view` (what is
shown), `look`, the writers `dot` and `svg`, `layout`, `drawing`; `show` makes the computations that the command draws.
Pages: `player` steps through a computation, `flow` shows what happens through time; `publishing` makes pages and files,
with the scripts and style sheets in `page/`, also of what is a text and a table in a notebook; `curve` is a loss curve.
"""

import importlib as _importlib
from typing import Any as _Any

from .equations import Equations, cell_equations

__all__ = ["Equations", "cell_equations"]


def __getattr__(name: str) -> _Any:
    if name == "flow":  # it knows language models, and so takes long to load
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
