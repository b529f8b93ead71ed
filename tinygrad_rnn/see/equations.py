"""The equations of a cell, in LaTeX and in text, written by the cell: its own `equation`, run on symbols."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.modes import no_grad
from ..core.tensor import Tensor
from ..errors import OptionError
from ..nn.cells import Cell, GRUCell, Weights
from ..nn.recurrent import Recurrent
from .formula import Formula, equations, symbol
from .notation import latex_name, plain, subscripted

SAMPLE = 0.5
"""What stands for every number while an equation runs on symbols: it keeps roots and logarithms in their domain."""


class Equations:
    """What one step of a cell defines, line by line. A notebook shows it typeset, `print` shows it as text.

    name: the cell's. lines: LaTeX by the name of what a line defines, as in {"z": "z_t = ...", "h": "h_t = ..."}.
    """

    def __init__(self, name: str, lines: Mapping[str, str]) -> None:
        self.name, self.lines = name, dict(lines)

    @property
    def latex(self) -> str:
        """The lines one below the other, their signs of equality too; without dollar signs."""
        aligned = [line.replace("=", "&=", 1) + r" \\" for line in self.lines.values()]
        return "\n".join([r"\begin{aligned}", *aligned, r"\end{aligned}"])

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"

    def __str__(self) -> str:
        return "\n".join(map(plain, self.lines.values()))

    def __repr__(self) -> str:
        return f"<Equations of {self.name}: {', '.join(self.lines)}>"


def cell_equations(cell: Cell | Recurrent, *, index: str = "t") -> Equations:
    """The equations of a cell, of one of your own too, or of those that a recurrent layer folds over time.

    Row vectors: x_t (N, I), h_{t-1} (N, H); for each gate W (I, H), U (H, H) and b (H), with the letter of the gate
    below it; a cell without gates has W, U and b alone. Further weights of the cell have their own names.

    index: what stands for the step.

    Raises: OptionError for what is neither a cell nor a layer of cells; NotImplementedError for a cell without
        `equation`; CellError for one that calls NumPy, or does not return its states by name.
    """
    one = cell.cells[0] if isinstance(cell, Recurrent) else cell
    if not isinstance(one, Cell):
        raise OptionError(f"cell_equations takes a recurrent cell or layer, not a {type(cell).__name__}")
    with no_grad():
        weights = one.weights()
    x = symbol(subscripted("x", index), np.full((1, one.input_size), SAMPLE))
    states = tuple(
        symbol(subscripted(name, f"{index}-1"), np.full((1, one.hidden_size), SAMPLE)) for name in one.states
    )
    symbols = Weights(*[_symbols(name, part) for name, part in zip(weights._fields, weights)])
    return Equations(type(one).__name__, equations(_with_symbols(one)._defined, x, states, symbols, index=index))


def _symbols(name: str, part: Any) -> Any:
    """What stands for W, U or b: a symbol for each gate, with its letter, or one alone; 0 where there is no bias."""
    if hasattr(part, "_fields"):
        return type(part)(*[_symbols(subscripted(name, gate), each) for gate, each in zip(part._fields, part)])
    return _symbol(name, part) if isinstance(part, Tensor) else part


def _symbol(name: str, weight: Tensor) -> Formula:
    return symbol(name, np.full(weight.shape, SAMPLE))


def _with_symbols(cell: Cell) -> Cell:
    """A copy whose equation sees symbols where the cell has weights of its own beside W, U and b."""
    inside = {"c": "c_n"} if isinstance(cell, GRUCell) else {}  # the candidate's second bias, not a state
    found = copy.copy(cell)
    vars(found).update({
        name: _symbol(inside.get(name) or latex_name(name), weight)
        for name, weight in vars(cell).items() if isinstance(weight, Tensor)
    })  # fmt: skip
    return found
