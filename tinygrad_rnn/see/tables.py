"""`trace_table`: values and tangents on the way forward, adjoints on the way back, one row for each node of a tape.

It is the table of Baydin et al. (2018, Automatic differentiation in machine learning: a survey, tables 2 and 3), for
any computation: the formulas are the primitives themselves, run on symbols, and the numbers are the engine's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from numbers import Integral
from typing import Any

import numpy as np

from ..backend import NAMESPACE_OF, as_array
from ..core.modes import changed
from ..core.tensor import Tensor, keep
from ..errors import GraphError, ModifiedError, OptionError, ShapeError
from ..transforms import tangents
from .formula import Formulas, moving
from .ledger import Ledger, changed_since, ledger
from .naming import names
from .notation import escaped, mathml, plain
from .publishing import Publication
from .reasons import changed_note
from .summary import Summary, host, number, summary
from .unfolding import unfolded
from .words import printable, safe

TERMS = 4
"""Up to this many contributions to one adjoint are written out."""
DIGITS = 4
"""Of each number in a table."""
CHANGED = "now; the tape read others"
"""Beside the numbers of a leaf that was given them after the tape had read it."""
EDGES = 8
"""The cells in a line of a text table that stand around and between its three columns."""
INDENT = "    "
"""In front of what goes on in another line."""
COLUMNS = ("Forward primal trace ↓", "Forward tangent trace ↓", "Reverse adjoint trace ↑")


@dataclass(frozen=True)
class Cell:
    """One entry: what is computed, and what comes out.

    name, formula: as text; latex_name, latex: the same in LaTeX. The formula is "" where there is none.
    value: the numbers; None if there are none. shape: () where it is said beside.
    why: why there are no numbers, or what has to be known of them.
    """

    name: str
    formula: str
    latex_name: str
    latex: str
    value: Summary | None
    shape: tuple[int, ...] = ()
    why: str = ""

    @property
    def number(self) -> str:
        """The value in a few words."""
        if self.value is None:
            return self.why
        words = self.value.words(DIGITS)
        return words if self.value.numbers or not self.shape else f"{self.shape}: {words}"

    @property
    def said(self) -> str:
        """The value in a few words, and what has to be known of it."""
        return f"{self.number} ({self.why})" if self.value is not None and self.why else self.number


@dataclass(frozen=True)
class Row:
    """One node of the tape. op: "" for a leaf. where: the module call and time step. source: its line, if recorded."""

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    where: str
    source: str
    primal: Cell
    tangent: Cell
    adjoint: Cell

    @property
    def cells(self) -> tuple[Cell, Cell, Cell]:
        """The three columns."""
        return self.primal, self.tangent, self.adjoint


class TraceTable(Publication):
    """The rows, oldest first. Iterate it, `print` it, let a notebook show it, or `.save(path)` it.

    Files are .txt, .md, .html or .tex.

    title, notes: what stands above and below. rows: without those left out; `gap` is where, None if nowhere.
    """

    def __init__(self, title: str, rows: Sequence[Row], notes: Sequence[str], gap: tuple[int, str] | None) -> None:
        self.title, self.rows, self.notes, self.gap = title, tuple(rows), tuple(notes), gap

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str | int) -> Row:
        """A row by its name or its place."""
        if isinstance(name, int):
            return self.rows[name]
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row is called {name!r}; they are {', '.join(row.name for row in self.rows)}")

    def __repr__(self) -> str:
        return f"<TraceTable of {len(self.rows)} rows: print it, or .save('trace.html')>"

    def text(self, width: int = 80) -> str:
        """The table in plain text, folded to a width."""
        from rich.cells import cell_len

        lines = [[_line(cell) for cell in row.cells] for row in self.rows]
        if sum(max((cell_len(line[i]) for line in lines), default=0) for i in range(3)) + EDGES > width:
            lines = [[_folded(cell, (width - EDGES) // 3) for cell in row.cells] for row in self.rows]
        if self.gap:
            lines.insert(self.gap[0], ["⋮"] * 3)
        return printed(self.title, [(COLUMNS, lines)], self._notes(), width)

    @property
    def markdown(self) -> str:
        """The table in Markdown, its formulas between dollar signs."""
        lines = [f"**{markdown_text(self.title)}**", "", f"| {' | '.join(COLUMNS)} |", "|---|---|---|"]
        for i, row in enumerate(self.rows):
            if self.gap and i == self.gap[0]:
                lines.append("| ⋮ | ⋮ | ⋮ |")
            lines.append(f"| {' | '.join(_within(f'${_latex(each)}$') for each in row.cells)} |")
        return "\n".join([*lines, "", *[f"{markdown_text(note)}  " for note in self._notes()]]) + "\n"

    @property
    def latex(self) -> str:
        """The table as a LaTeX `longtable`; it needs the packages longtable and amsmath."""
        lines = [r"% \usepackage{amsmath, longtable}", r"\begin{longtable}{lll}"]
        heads = (r"Forward primal trace $\downarrow$", r"Forward tangent trace $\downarrow$",
                 r"Reverse adjoint trace $\uparrow$")  # fmt: skip
        head = [r"\hline", f"{' & '.join(heads)} \\\\", r"\hline"]
        title = rf"\multicolumn{{3}}{{l}}{{\textbf{{{escaped(self.title)}}}}} \\[4pt]"
        lines += [title, *head, r"\endfirsthead", *head, r"\endhead"]
        for i, row in enumerate(self.rows):
            if self.gap and i == self.gap[0]:
                lines.append(r"$\vdots$ & $\vdots$ & $\vdots$ \\")
            lines.append(f"{' & '.join(f'${_latex(each)}$' for each in row.cells)} \\\\")
        notes = " ".join(escaped(note) for note in self._notes())
        return "\n".join([*lines, r"\hline", r"\end{longtable}", "", rf"\noindent {notes}"]) + "\n"

    def _body(self) -> str:
        heads = "".join(f'<th scope="col">{head}</th>' for head in COLUMNS)
        lines = [f'<main class="trace"><h1>{escape(self.title)}</h1>']
        lines += [f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>']
        for i, row in enumerate(self.rows):
            if self.gap and i == self.gap[0]:
                lines.append(f'<tr><td colspan="3" class="soft">⋮ {escape(self.gap[1])}</td></tr>')
            lines.append(f"<tr>{''.join(_html(row, cell, head) for cell, head in zip(row.cells, COLUMNS))}</tr>")
        lines.append("</tbody></table></div>")
        return "\n".join([*lines, *[f'<p class="note">{escape(note)}</p>' for note in self._notes()], "</main>"])

    def _notes(self) -> list[str]:
        return [*self.notes, *([self.gap[1]] if self.gap else [])]

    def _forms(self) -> dict[str, Callable[[], str | bytes]]:
        return super()._forms() | {".tex": lambda: self.latex}


def trace_table(
    y: Tensor,
    *,
    wrt: Tensor | Sequence[Tensor] | None = None,
    tangents: Any = None,
    grad: Any = None,
    index: int | tuple[int, ...] | None = None,
    title: str = "",
    expand: bool = False,
    max_rows: int = 100,
) -> TraceTable:
    """How y was computed, with the tangents of forward mode beside it and the adjoints of reverse mode.

    Nobody's `.grad` is touched. Names are those of the tensors, made clear where they recur; see `see.naming`.

    wrt: the tensors that move, one or several; the default is every leaf that requires a gradient.
    tangents: how they move, one for each of `wrt`, of its shape; the default is 1 in every element, so that the tangent
        of a scalar y for one scalar x is dy/dx.
    grad: the adjoint that comes in for y; the default is 1 in every element, which differentiates their sum.
    index: show this element of each array that has it. Arrays of four elements or fewer are shown in full, others by
        their least and largest element and their norm.
    title: stands above the table.
    expand: unfold every fused operation into those that it stands for; they are computed once more for it.
    max_rows: of a longer computation the first and last rows are shown.

    Raises: GraphError, if y has no graph, or one of `wrt` has no part in it; ShapeError for a tangent that does not
        fit; OptionError for an index that no array has, for fewer rows than 2, or for a tensor that `wrt` names twice;
        ModifiedError with expand, if a value was overwritten.
    """
    if not isinstance(y, Tensor):
        raise GraphError(f"trace_table takes one tensor, not {type(y).__name__}; tg.draw takes several")
    if isinstance(max_rows, bool) or not isinstance(max_rows, Integral) or max_rows < 2:
        raise OptionError(f"max_rows is a whole number of at least 2, not {max_rows!r}")
    element = () if index is None else index if isinstance(index, tuple) else (index,)
    if not all(isinstance(i, Integral) for i in element):
        raise OptionError(f"index={index!r} is no element: give a whole number for each axis")
    if expand:
        y = unfolded([y])[0]
    return _Builder(y, wrt, tangents, grad, element).table(title, max_rows)


class _Builder:
    """What is known of one computation while its table is made."""

    def __init__(self, y: Tensor, wrt: Any, moves: Any, grad: Any, index: tuple[int, ...]) -> None:
        self.y, self.index = y, index
        self.book: Ledger = ledger([y], grad)
        self.ordered = self.book.tensors[::-1]
        self.names = names(self.ordered)
        self.changed = changed_since(self.ordered)
        self.starts = self._starts(wrt, moves)
        self.moved = {x.age: t._array for x, t in self.starts}
        self.stuck = ""
        with changed(recording=False, debug=False), np.errstate(all="ignore"):
            try:
                self.moved |= {node.age: t._array for node, t in tangents(y, self.starts)}
            except ModifiedError as error:
                self.stuck = f"lost: {printable(str(error))}"
        if self.index and not any(_has(t, self.index) for t in self.ordered):
            raise OptionError(f"no array of this computation has an element {list(self.index)}")
        self.formulas = Formulas(self.names)

    def _starts(self, wrt: Any, moves: Any) -> list[tuple[Tensor, Tensor]]:
        if wrt is None:
            found = [t for t in self.ordered if t.op is None and t.requires_grad]
        else:
            found = [wrt] if isinstance(wrt, Tensor) else list(wrt)
        for x in found:
            if not any(x is t for t in self.ordered) or not x.requires_grad:
                raise GraphError(
                    f"{x.label} has no part in {self.y.label} that a gradient could follow; see tg.explain"
                )
        for at, x in enumerate(found):
            if any(x is other for other in found[:at]):
                raise OptionError(f"wrt names {x.label} twice: name each tensor once, with one tangent")
        if moves is None:
            given: list[Any] = [NAMESPACE_OF[type(x._array)].ones(x.shape, x.dtype) for x in found]
        else:
            given = [moves] if isinstance(wrt, Tensor) or isinstance(moves, Tensor) else list(moves)
        if len(given) != len(found):
            raise ShapeError(f"there are {len(given)} tangents for {len(found)} tensors; each needs one")
        pairs = []
        for x, move in zip(found, given):
            t = move if isinstance(move, Tensor) else Tensor(as_array(move, x.backend, x.dtype))
            if t.shape != x.shape:
                raise ShapeError(f"a tangent of shape {t.shape} for {x.label}; the shapes must be equal")
            pairs.append((x, t))
        return pairs

    def table(self, title: str, max_rows: int) -> TraceTable:
        count, gap = len(self.ordered), None
        shown = list(self.ordered)
        if count > max_rows:
            first = max_rows // 2
            shown = shown[:first] + shown[count - (max_rows - first) :]
            gap = first, f"{count - max_rows} of the {count} rows, in the middle, are left out (max_rows={max_rows})."
        heading = printable(str(title)) or f"Trace of {self.names[self.y.age]}"
        return TraceTable(heading, [self._row(t) for t in shown], self._notes(), gap)

    def _row(self, t: Tensor) -> Row:
        return Row(
            name=self.names[t.age], op=t.op.name if t.op else "", shape=tuple(t.shape), dtype=str(t.dtype),
            where=t.scope.path if t.scope else "", source=t.source or "",
            primal=self._primal(t), tangent=self._tangent(t), adjoint=self._adjoint(t),
        )  # fmt: skip

    def _cell(self, t: Tensor, accent: str, write: Callable[[bool], str] | None, array: Any, why: str = "") -> Cell:
        called, latex_called = (self.formulas.name(t, as_text, accent) for as_text in (True, False))
        formula, latex = (plain(write(True)), write(False)) if write else ("", "")
        if array is None:
            return Cell(plain(called), formula, latex_called, latex, None, why=why)
        if self.index and _has(t, self.index):
            array = host(array)[self.index]
        shape = () if accent else tuple(array.shape)
        return Cell(plain(called), formula, latex_called, latex, summary(array), shape, why)

    def _primal(self, t: Tensor) -> Cell:
        write = None if t.op is None else lambda as_text: self.formulas.of(t, as_text).result
        return self._cell(t, "", write, t._array, CHANGED if t.age in self.changed else "")

    def _tangent(self, t: Tensor) -> Cell:
        array = self.moved.get(t.age)
        if array is None:
            return self._cell(
                t, "dot", None if self.stuck and t.op else lambda as_text: "0", None, self.stuck if t.op else ""
            )
        places = [i for i, x in enumerate(t.inputs or ()) if self._carries(t, i, x)]
        if t.op is None or not places or any(t is x for x, _ in self.starts):
            return self._cell(t, "dot", None, array)

        def moved(as_text: bool) -> str:
            return moving(t, places, self.formulas.inputs(t, as_text), self.formulas.name(t, as_text))

        return self._cell(t, "dot", moved, array)

    def _carries(self, t: Tensor, place: int, x: Any) -> bool:
        return isinstance(x, Tensor) and x.age in self.moved and x.age < t.age and bool(t.op and t.op.has_rule(place))

    def _adjoint(self, t: Tensor) -> Cell:
        if state := self.book.state(t):
            return self._cell(t, "bar", None, None, state)
        gradient = self.book.gradients[t.age]
        if t is self.y:
            return self._cell(t, "bar", None, gradient)
        return self._cell(t, "bar", lambda as_text: self._sum(t, as_text), gradient)

    def _sum(self, t: Tensor, as_text: bool) -> str:
        """The contributions to an adjoint, each in its consumer's rule."""
        uses = self.book.contributions[t.age]
        terms = []
        for use in uses if len(uses) <= TERMS else [*uses[: TERMS - 1], uses[-1]]:
            term = self.formulas.contribution(use.consumer, use.place, t, as_text)
            if use.broadcast:
                axes = ",".join(map(str, use.axes))
                term = rf"\mathrm{{sum}}_{{{axes}}}({term})"
            terms.append(term)
        if len(uses) > TERMS:
            terms.insert(TERMS - 1, r"\ldots")
        total = terms[0]
        for term in terms[1:]:
            total += f" - {term[1:]}" if term.startswith("-") else f" + {term}"
        if len(uses) > TERMS:
            total += rf"\; \text{{({len(uses)} terms)}}"
        return rf"\mathrm{{hook}}({total})" if any(hook is not keep for hook in t.hooks or ()) else total

    def _notes(self) -> list[str]:
        moved = [self.names[x.age] for x, _ in self.starts]
        ones = all(bool((t._array == 1).all()) for _, t in self.starts)
        listed = ", ".join(moved[:TERMS]) + (f" and {len(moved) - TERMS} more" if len(moved) > TERMS else "")
        how = f"move{'s' if len(moved) == 1 else ''} {'with 1' if ones else 'as given'}"
        seed, called = self.book.gradients[self.y.age], self.names[self.y.age]
        start = (
            number(float(seed), DIGITS) if not seed.ndim else "1 in every element" if (seed == 1).all() else "as given"
        )
        notes = [f"Tangents: {listed} {how}, all else stands still." if moved else "Tangents: nothing moves."]
        notes[0] += f" Adjoint of {called}: {start}."
        if self.index:
            notes.append(f"Where an array has it, its element {list(self.index)} is shown.")
        if self.stuck:
            notes.append(f"Tangents are incomplete, {self.stuck}")
        if self.changed:  # numbers of two times stand side by side: nothing is claimed of all of them
            return notes + changed_note(self.changed, self.names)
        return notes + self._agreement(seed, called)

    def _agreement(self, seed: Any, called: str) -> list[str]:
        """Both ways along the tape give one number: the adjoint of y times its tangent, and those of the starts."""
        ends = [(self.book.gradients.get(x.age), t._array) for x, t in self.starts if x.op is None]
        if self.y.age not in self.moved or len(ends) < len(self.starts) or any(g is None for g, _ in ends):
            return []
        forward = float((seed * self.moved[self.y.age]).sum())
        back = float(sum(float((g * t).sum()) for g, t in ends))
        parts = sum(float(abs(g * t).sum()) for g, t in ends) + float(abs(seed * self.y._array).sum())
        cancelled = 10 * float(np.finfo(self.y.dtype).eps) * parts  # what rounding leaves of terms that add up to 0
        same = bool(np.isclose(forward, back, rtol=1e-3, atol=np.nan_to_num(cancelled), equal_nan=True))
        said = "Both ways agree" if same else "The two ways differ, so that a rule, or a hook, is no derivative"
        at_y, at_ends = (number(each, DIGITS) for each in (forward, back))
        return [f"{said}: adjoint times tangent is {at_y} at {called}, {at_ends} at what moves."]


def printed(
    title: str, tables: Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]], notes: Sequence[str], width: int
) -> str:  # fmt: skip
    """A title, tables (their heads and their rows) and sentences in plain text, cells folded to fit a width."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = StringIO()
    console = Console(  # in a notebook too
        file=out, width=width, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
    )
    console.print(Text(title, style="bold"))
    console.print()
    for i, (heads, rows) in enumerate(tables):
        if i:
            console.print()
        table = Table(*heads, box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for note in notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _has(t: Tensor, index: tuple[int, ...]) -> bool:
    return t.ndim == len(index) and all(-size <= i < size for i, size in zip(index, t.shape))


def _line(cell: Cell) -> str:
    """An entry in one line."""
    made = f"{cell.name} = {cell.formula}" if cell.formula else cell.name
    return f"{made} = {cell.said}" if cell.value is not None else f"{made}: {cell.why}" if cell.why else made


def _folded(cell: Cell, width: int) -> str:
    """An entry in several lines: the formula, and below it the numbers."""
    from rich.cells import cell_len

    made = f"{cell.name} = {cell.formula}" if cell.formula else cell.name
    said = f"= {cell.said}" if cell.value is not None else cell.why
    one = _line(cell)
    return (
        one
        if cell_len(one) <= width
        else "\n".join([*folded(made, width, rest=INDENT), *folded(said, width, "  ", INDENT)])
    )


def folded(words: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Words in lines of a width in terminal cells, of which wide letters and emoji take two; long words are cut.

    first, rest: stand in front of the first line and of all others.
    """
    from rich.cells import cell_len, chop_cells

    lines, line = [], first
    for gap, word in re.findall(r"(\s*)(\S+)", words):
        if cell_len(line + gap + word) > width and line.strip():
            lines.append(line)
            line, gap = rest, ""
        while cell_len(line + gap + word) > width:  # only a word that is longer than a line
            piece = chop_cells(word, max(2, width - cell_len(line + gap)))[0]
            lines.append(line + gap + piece)
            line, gap, word = rest, "", word[len(piece) :]
        line += gap + word
    return [*lines, line] if line.strip() else lines


def _latex(cell: Cell) -> str:
    made = " = ".join(part for part in (cell.latex_name, cell.latex) if part)
    if cell.value is None:
        return made + (rf": \text{{{escaped(cell.why)}}}" if cell.why else "")
    mark = rf"\;\text{{({escaped(cell.why)})}}" if cell.why else ""
    return f"{made} = {latex_number(cell.number)}{mark}"


def latex_number(words: str) -> str:
    """The words of a summary as a formula."""
    words = re.sub(r"‖(.*?)‖", r"\\; \\lVert \1 \\rVert", words)
    words = re.sub(r"(\d)e([+-])0*(\d+)", lambda m: rf"{m[1]} \cdot 10^{{{m[2].replace('+', '')}{m[3]}}}", words)
    words = re.sub(r"\b(nan|inf|True|False|empty|all)\b", r"\\mathrm{\1}", words)
    return words.replace("…", r"\ldots").replace(": ", r":\; ")


def _within(cell: str) -> str:
    return cell.replace("|", "\\|")


def markdown_text(words: str) -> str:
    """Words for Markdown, in which no letter has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~&])", r"\\\1", words)


def _html(row: Row, cell: Cell, head: str) -> str:
    formula = mathml(" = ".join(part for part in (cell.latex_name, cell.latex) if part))
    bad = " bad" if cell.value is not None and cell.value.broken else ""
    said = f'<span class="number{bad}">= {escape(cell.number)}</span>' if cell.value is not None else ""
    why = f"({cell.why})" if cell.value is not None and cell.why else cell.why
    said += f'<span class="soft"> {escape(why)}</span>' if why else ""
    if cell is row.primal and (facts := ", ".join(fact for fact in (row.where, row.source) if fact)):
        said += f'<span class="soft where">{safe(facts)}</span>'
    return f'<td data-of="{head}">{formula}{said}</td>'
