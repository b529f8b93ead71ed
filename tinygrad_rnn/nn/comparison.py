"""Cells and layers side by side: states, gates and numbers to learn, read from the objects themselves."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import OptionError
from .cells import Cell
from .recurrent import Recurrent


class CellFacts(NamedTuple):
    """One row of a comparison."""

    name: str
    states: tuple[str, ...]
    gates: tuple[str, ...]
    candidate: str
    formula: str
    parameters: int


class Comparison(tuple[CellFacts, ...]):
    """Cells side by side; print it as a table."""

    def __str__(self) -> str:
        rows = [("cell", "states", "gates", "candidate", "parameters", "")]
        rows += [(f.name, ", ".join(f.states), ", ".join(f.gates) or "-", f.candidate, f.formula, f"= {f.parameters:,}")
                 for f in self]  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        return "\n".join("  ".join(entry.ljust(width) for entry, width in zip(row, widths)).rstrip() for row in rows)


def compare(*models: Cell | Recurrent) -> Comparison:
    """The number of states, gates and parameters of cells and layers; `print` shows a table.

    Raises: OptionError for what is neither.
    """
    return Comparison(_facts(model) for model in models)


def _facts(model: Cell | Recurrent) -> CellFacts:
    if not isinstance(model, (Cell, Recurrent)):
        raise OptionError(f"compare takes recurrent cells and layers, not a {type(model).__name__}")
    cells = model.cells if isinstance(model, Recurrent) else [model]
    first, D = cells[0], 1 + (isinstance(model, Recurrent) and model.bidirectional)
    formula = _formula(first, D, "I")
    if above := len(cells) - D:
        formula += f" + {_formula(first, above, 'H' if D == 1 else f'{D}H')}"
    gates = tuple([gate for gate in first.gates if gate != first.candidate])
    total = sum(parameter.size for parameter in model.parameters())
    return CellFacts(type(model).__name__, first.states, gates, first.candidate, formula, total)


def _formula(cell: Cell, count: int, rows: str) -> str:
    """How many parameters there are in so many cells like this one with so many rows in W."""
    blocks = count * len(cell.gates)
    formula = f"{rows}·H + H·H" + (" + H" if cell.bias else "")
    formula = formula if blocks == 1 else f"{blocks}({formula})"
    return formula + (f" + {'' if count == 1 else count}H" if getattr(cell, "c", None) is not None else "")
