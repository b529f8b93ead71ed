"""What the pages show of the code as tables: each is made by running the code, in the cell of a page.

Every function returns Markdown, which a cell shows as a part of its page.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES, Primitive
from tinygrad_rnn.errors import ConversionError, OptionError
from tinygrad_rnn.interop.conventions import CONVENTIONS, Convention
from tinygrad_rnn.interop.packing import convention, gate_parts, libraries, parts_for
from tinygrad_rnn.nn import GRUCell, LSTMCell, MinimalGRUCell, RNNCell
from tinygrad_rnn.nn.cells import Cell
from tinygrad_rnn.see import cell_equations
from tinygrad_rnn.see.formula import Formula, derivative_formulas
from tinygrad_rnn.see.notation import identifier


class Markdown(str):
    """Text that a notebook shows as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


def in_columns(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Markdown:
    """A table in Markdown; a bar in a cell is only itself."""
    head, *lines = [[cell.replace("|", r"\|") for cell in row] for row in (heads, *rows)]
    return Markdown("\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines]))


MATRIX, COLUMN = (2, 3), (2, 1)
# What to call a primitive with, where two-by-three matrices and the default options do not do or do not show enough.
SHAPES: dict[str, tuple[Any, ...]] = {
    "matmul": (MATRIX, (3, 4)), "contract": (MATRIX, (3, 4)), "sum_to": (MATRIX,), "broadcast_to": (COLUMN,),
    "index": (MATRIX,), "scatter": ((3,),), "diagonal": (MATRIX,), "squeeze": (COLUMN,),
    "cross_entropy_slope": ((2,), MATRIX, np.array([2, 0])),
    "softmax_cross_entropy": (MATRIX, np.array([2, 0])), "one_hot": (np.array([2, 0]),),
    "where": (np.array([[True, False, True], [False, True, True]]), MATRIX, MATRIX),
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "astype": {"dtype": np.float32},
    "broadcast_to": {"shape": MATRIX},
    "clip": {"min": -1.0, "max": 1.0},
    "contract": {"parts": ("ij", "jk"), "output": "ik"},
    "cumsum": {"axis": 0},
    "expand_dims": {"axis": 1},
    "index": {"key": 1},
    "moveaxis": {"source": 0, "destination": 1},
    "one_hot": {"size": 3},
    "pad": {"pad_width": 1},
    "recomputed": {
        "value": np.ones(MATRIX),
        "replay": lambda g, xs: [Formula(rf"\mathrm{{replay}}({g.latex})", g.value)],
    },
    "reshape": {"shape": (3, 2)},
    "roll": {"shift": 1},
    "scatter": {"key": 1, "shape": MATRIX},
    "sum_to": {"shape": COLUMN},
    "swapaxes": {"axis1": 0, "axis2": 1},
    "transfer": {"backend": "numpy"},
}
REDUCTIONS = ("sum", "mean", "max", "min", "std", "norm", "logsumexp")


def table() -> dict[str, list[Primitive]]:
    """Every primitive of the package, by the module that it stands in."""
    for module in pkgutil.walk_packages(tg.__path__, "tinygrad_rnn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, list[Primitive]] = {}
    for op in PRIMITIVES.values():
        if op.function.__module__.startswith("tinygrad_rnn."):
            found.setdefault(op.function.__module__, []).append(op)
    return found


def sample(op: Primitive) -> tuple[list[Any], dict[str, Any]]:
    """Arrays and options to show a primitive with."""
    rng = np.random.default_rng(0)
    shapes = SHAPES.get(op.name, (MATRIX,) * max(len(op.arrays), 1 + op.variadic))
    arrays = [rng.uniform(*op.domain, shape) if isinstance(shape, tuple) else shape for shape in shapes]
    return arrays, OPTIONS.get(op.name, {}) | ({"keepdims": True} if op.name in REDUCTIONS else {})


def primitives(room: str) -> Markdown:
    """The primitives of one module, such as "ops.shapes", with the formula of each rule."""
    heads = ["primitive", "", "formula", "derivatives", "kind", "domain"]
    return in_columns(heads, [row(op) for op in table()[f"tinygrad_rnn.{room}"] if not op.vjp])


def fused() -> Markdown:
    """The primitives that do the work of a whole layer, and what says what each of them means."""
    heads = ["primitive", "arrays", "what it computes", "reference"]
    return in_columns(heads, [fused_row(op) for ops in table().values() for op in ops if op.vjp])


def row(op: Primitive) -> list[str]:
    """One line of the table."""
    arrays, options = sample(op)
    y, _, derivatives = derivative_formulas(op, arrays, options)
    shown = []
    for name, made in derivatives.items():
        if op.variadic:
            shown += [rf"$\bar{{{name[0]}}}_{i + 1} = {written(each)}$" for i, each in enumerate(made)]
        else:
            shown.append(rf"$\bar{{{identifier(name)}}} = {written(made)}$")
    words = (op.function.__doc__ or "").strip().partition("\n")[0]
    low, high = op.domain
    public = vars(tg).get(op.name) is op.function
    return [
        f"{{py:func}}`{op.name} <tinygrad_rnn.{op.name}>`" if public else f"`{op.name}`",
        words,
        f"${y.latex}$",
        "<br>".join(shown) or "none",
        op.kind + (", no complex step" if op.rules and not op.analytic else ""),
        f"{low:g} to {high:g}",
    ]


def fused_row(op: Primitive) -> list[str]:
    """One line of the table of fused primitives."""
    words = (op.function.__doc__ or "").strip().partition("\n")[0]
    reference = f"{op.reference.__module__}.{op.reference.__name__}".removeprefix("tinygrad_rnn.")
    return [f"`{op.name}`", ", ".join(f"`{name}`" for name in op.arrays), words, f"`{reference}`"]


def written(made: Any) -> str:
    """What a rule returned, as LaTeX."""
    return made.latex if isinstance(made, Formula) else f"{made:g}"


def side_by_side(*cells: Cell) -> Markdown:
    """The equations of several cells beside each other, line by line."""
    columns = [[f"${line}$" for line in cell_equations(cell).lines.values()] for cell in cells]
    names = [type(cell).__name__.removesuffix("Cell") for cell in cells]
    return in_columns(names, zip_longest(*columns, fillvalue=""))


def shapes(*cells: Cell) -> Markdown:
    """The shapes of the parameters W, U and b of cells in letters; I must be another number than H."""
    rows = []
    for cell in cells:
        letters = {cell.input_size: "I"} | {n * cell.hidden_size: f"{n}H".removeprefix("1") for n in range(1, 5)}
        found = [f"({', '.join(letters[n] for n in part.shape)})" for part in cell.parameters()]
        rows.append([f"`{type(cell).__name__}`", " ".join(cell.gates), *found])
    return in_columns(["cell", "packed", "`W`", "`U`", "`b`"], rows)


FORMS: dict[str, Callable[[], Cell]] = {
    "`RNNCell`": lambda: RNNCell(2, 3),
    '`RNNCell(activation="relu")`': lambda: RNNCell(2, 3, activation="relu"),
    "`MinimalGRUCell`": lambda: MinimalGRUCell(2, 3),
    "`GRUCell`": lambda: GRUCell(2, 3),
    '`GRUCell(update="old")`': lambda: GRUCell(2, 3, update="old"),
    '`GRUCell(reset="after")`': lambda: GRUCell(2, 3, reset="after"),
    '`GRUCell(reset="after", update="old", recurrent_bias=True)`': lambda: GRUCell(
        2, 3, reset="after", update="old", recurrent_bias=True
    ),
    "`LSTMCell`": lambda: LSTMCell(2, 3),
}


def grus() -> Markdown:
    """Whose GRU answers the two questions how: what z = 1 takes, and where r acts."""
    rows = [[f"reset {reset}", answering(reset, "new"), answering(reset, "old")] for reset in ("before", "after")]
    return in_columns(["", "takes the new", "keeps the old"], rows)


def conventions(kind: type[Cell]) -> Markdown:
    """What each library's arrays of one kind of cell hold."""
    heads = ["library", "class", "gates", "arrays", "at the start", "what else"]
    return in_columns(heads, [convention_row(row) for row in CONVENTIONS if row.cell is kind])


def ways() -> Markdown:
    """What each cell of this package becomes in each library."""
    rows = [[name, *[way(make(), library) for library in libraries()]] for name, make in FORMS.items()]
    return in_columns(["", *libraries()], rows)


def sources() -> Markdown:
    """Where the rows of the conventions come from."""
    found = dict.fromkeys((row.key, row.source) for row in CONVENTIONS)
    return Markdown("\n".join(f"- {key}: {source}" for key, source in found))


def answering(reset: str, update: str) -> str:
    """Whose GRUs answer both questions in this way, ours first."""
    unusual = {"reset": reset, "update": update}.items() - {("reset", "before"), ("update", "new")}
    options = ", ".join(f'{name}="{value}"' for name, value in sorted(unusual))
    found = [f"`tg.nn.GRU({options})`" if options else "**`tg.nn.GRU`, as it comes**"]
    for row in CONVENTIONS:
        if (row.reset, row.update) == (reset, update):
            others = {other.reset for other in CONVENTIONS if other.classes == row.classes}
            name = row.classes if row.classes.startswith(row.key) else f"{row.key} {row.classes}"
            found.append(f"{name}: {row.note.partition(',')[0]}" if len(others) > 1 else row.classes)
    return "<br>".join(found)


def convention_row(row: Convention) -> list[str]:
    """One line of the table of conventions."""
    arrays = "; ".join(f"`{names}` {what}" for what, names in slot_words(row).items())
    extra = [row.note] if row.note else []
    if row.peepholes is not None:
        extra.append(f"peepholes {row.peepholes.name} in the order {', '.join(row.peepholes.gates)}")
    if row.states == "ch":
        extra.append("hands on (c, h)")
    if len(row.activations) > 1 or row.activations == ("relu",):
        extra.append(" or ".join(row.activations))
    return [row.key, row.classes, " ".join(row.order), arrays, row.start, "; ".join(extra)]


def slot_words(row: Convention) -> dict[str, str]:
    """What is in which arrays, those that hold the same of several gates together."""
    found: dict[str, list[str]] = {}
    for slot in row.slots:
        of_all = len(slot.gates) == len(row.order)
        letters = " over ".join(f"${each}$" for each in slot.holds)
        form = "" if slot.holds[0] in "bc" and slot.form != "interleaved" else f" {slot.form}"
        gates = "" if of_all else " by gate" if row.order != slot.gates and len(slot.gates) == 1 else ""
        if slot.holds == "c" and slot.gates == "n":
            letters, gates = "$c_n$", ""
        found.setdefault(f"{letters}{form}{gates}", []).append(slot.name)
    return {what: ", ".join(names) for what, names in found.items()}


def way(cell: Cell, library: str) -> str:
    """What converting a cell takes, in a few words."""
    for tensor in cell.parameters():
        tensor.assign_(np.arange(1.0, tensor.size + 1).reshape(tensor.shape))
    try:
        row = convention(library, type(cell), getattr(cell, "reset", None))
        parts = parts_for(row, cell)
    except OptionError:
        return "no row"
    except ConversionError:
        return "refused"
    if isinstance(cell, MinimalGRUCell):
        return "reset gate open"
    own = gate_parts(cell)
    return "as it is" if all(np.array_equal(parts["W"][gate], own["W"][gate]) for gate in own["W"]) else "z negated"
