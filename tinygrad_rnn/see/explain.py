"""`explain`: every contribution to a gradient, with its numbers; and why a gradient is missing, zero or not finite.

The contributions are those that the engine's own pass wrote down; local derivatives are the operations' own rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..core.autodiff import Part
from ..core.broadcasting import fitted
from ..core.modes import changed
from ..core.tensor import Tensor, keep
from ..errors import GraphError, IndexOutOfRange, ModifiedError, OptionError
from .formula import Formulas
from .ledger import Contribution, Ledger, changed_since, ledger
from .naming import names
from .notation import accented, latex_name, literal, mathml, plain
from .publishing import Publication
from .reasons import broken, changed_note, fading, faint, missing, moves, slopes, zero
from .summary import FEW, Summary, host, number, summary
from .tables import DIGITS, folded, markdown_text
from .unfolding import unfolded
from .words import counted, over_axes, printable

VIEWS = frozenset({
    "index", "reshape", "transpose", "swapaxes", "moveaxis", "expand_dims", "squeeze", "flip", "roll", "astype",
    "transfer", "alias",
})  # fmt: skip
"""Operations that only pick, move or copy: what uses their result uses x."""
ADD = "<mo>&#x0002B;</mo><mo>&#x0003D;</mo>", "<mo>+=</mo>"
"""A sign that a converter of LaTeX takes for two."""
OPENING = (
    "the gradient ", "the value ", "the contributions ", "the sum ", "no gradient ", "nothing that ", "a hook ",
    "the graph ", "lines of ",
)  # fmt: skip
"""How sentences begin that begin with no name: these get a capital letter."""
LINES = 12
"""Up to this many contributions are shown one by one, unless asked for more."""


@dataclass(frozen=True, eq=False)
class Line:
    """One use of x, and what it adds to the gradient.

    consumer: the name of its result; op, argument: what it is, and which argument of it x was. where, step, source: the
        module call, the time step (None outside of one) and the line, as far as they are known.
    read: the name of what it read: that of x, or of the last of `through`, the slices or copies that it came through.
    formula, latex: the contribution in the consumer's rule, with the names of its arguments.
    upstream: the gradient of the consumer, a NumPy array.
    slope: the local derivative, element by element, None where it is a matrix of partial derivatives; of one element
        of x, how each element of the consumer moves.
    terms: of one element of x, the pairs (upstream, local derivative) whose products add up to the contribution.
    axes: those over which the product was summed, as x was broadcast along them.
    added: what is added, a NumPy array of the shape of what was read; a number for one element of x.
    so_far: the sum of all contributions up to this one, as a summary.
    """

    consumer: str
    op: str
    argument: str
    where: str
    step: int | None
    source: str
    read: str
    through: tuple[str, ...]
    formula: str
    latex: str
    upstream: Any
    slope: Any
    terms: tuple[tuple[float, float], ...]
    axes: tuple[int, ...]
    added: Any
    so_far: Summary

    @property
    def head(self) -> str:
        """Which use this is, in words."""
        said = f"{self.consumer} = {self.op}, argument {self.argument}"
        said += f", at {self.source}" if self.source else ""
        said += f", in {self.where}" if self.where else ""
        return said + (f", through {', '.join(self.through)}" if self.through else "")

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The numbers, each with what it is."""
        if self.terms or (isinstance(self.added, float) and self.slope is not None):
            return [("contribution", self._products()), ("so far", self.so_far.words(DIGITS))]
        found = [("upstream", _words(self.upstream))]
        if self.slope is not None:
            found.append(("local derivative", _words(self.slope)))
        if self.axes:
            found.append(("summed over", over_axes(self.axes)))
        return [*found, ("contribution", _words(self.added)), ("so far", self.so_far.words(DIGITS))]

    def _products(self) -> str:
        if not self.terms:
            return f"upstream times a local derivative of 0 = {number(self.added, DIGITS)}"
        if len(self.terms) > FEW:
            return f"the sum of {len(self.terms)} products upstream · local derivative = {number(self.added, DIGITS)}"
        return f"{' + '.join(f'{_factor(g)} · {_factor(d)}' for g, d in self.terms)} = {number(self.added, DIGITS)}"


class Explanation(Publication):
    """How a gradient comes about. `print` it, let a notebook show it, or `.save(path)` it.

    title: what is explained, "∂loss/∂w[0, 2]". x, y: the names. index: of the element that is explained, None for all.
    lines: the contributions, in the order in which they are added.
    total: the gradient as a NumPy array, a number for one element, None if there is none.
    missing: why there is none. reasons: why it is zero, or not finite. notes: what else there is to know.
    """

    def __init__(
        self, x: str, y: str, about: str, index: tuple[int, ...] | None, lines: Sequence[Line], total: Any,
        missing: str, reasons: Sequence[str], notes: Sequence[str], embed: Callable[[int], Any],
    ) -> None:  # fmt: skip
        at = "" if not index else f"[{', '.join(map(str, index))}]"
        self.title = f"∂{y}/∂{x}{at}"
        self.x, self.y, self.about, self.index, self.lines, self.total = x, y, about, index, tuple(lines), total
        self.missing, self.reasons, self.notes, self._embed = (
            missing,
            tuple(reasons),
            tuple(map(_sentence, notes)),
            embed,
        )

    def by_step(self) -> dict[int | None, Any]:
        """By time step (None: in none), the sum of the contributions: of the shape of x, or of one element a number."""
        found: dict[int | None, Any] = {}
        with np.errstate(all="ignore"):
            for i, line in enumerate(self.lines):
                added = line.added if self.index is not None else self._embed(i)
                found[line.step] = found[line.step] + added if line.step in found else added
        return found

    def __repr__(self) -> str:
        return f"<Explanation of {self.title}: print it>"

    @property
    def answer(self) -> str:
        """The gradient in a line."""
        if self.total is None:
            return f"{self.title}: none"
        sum_of = f", the sum of {counted(len(self.lines), 'contribution')}" if self.lines else ""
        return f"{self.title} = {_words(self.total)}{sum_of}"

    def text(self, width: int = 80, lines: int = LINES) -> str:
        """The explanation in plain text, folded to a width.

        lines: if there are more contributions, they are shown as a table by time step, or as the first of them.
        """
        out = [*folded(f"{self.title}, {self.about}", width), ""]
        for i, line in enumerate(self._shown(lines)):
            out += folded(f"{i + 1}  {line.head}", width, rest="   ")
            made = f"{plain(accented('bar', literal(line.read)))} += {line.formula}"
            out += folded(made, width, "     ", "         ")
            for name, words in line.facts:
                out += folded(f"{name}: {words}", width, "     ", "       ")
        if not self._shown(lines) and self.lines:
            out += self._columns(width)
        for sentence in (self._left_out(lines), "", self.answer, *self._said(), *self.notes):
            out += folded(sentence, width) or [""]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out))

    def _shown(self, lines: int) -> tuple[Line, ...]:
        """The contributions to show one by one: none of them, if there are many, in several time steps."""
        many = len(self.lines) > lines
        return () if many and len({line.step for line in self.lines}) > 1 else self.lines[:lines]

    def _left_out(self, lines: int) -> str:
        count = len(self.lines) - len(self._shown(lines))
        return f"{count} more contributions are left out: .lines has them all." if self._shown(lines) and count else ""

    def _said(self) -> list[str]:
        """Why there is no gradient, or one that is zero or not finite."""
        return [_sentence(each) for each in (self.missing, *self.reasons) if each]

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The heads and rows of the contributions by time step, in columns by the slice of x (or the operation) read.

        Of one element the numbers, else the norms. The last two columns are those of the whole step, and of all steps
        so far.
        """
        with np.errstate(all="ignore"):
            return self._table()

    def _table(self) -> tuple[list[str], list[list[str]]]:
        columns = list(dict.fromkeys(_column(line) for line in self.lines))
        parts: dict[tuple[int | None, str], dict[str, Any]] = {}  # by step and column: the sum for each slice of x
        for line in self.lines:
            sums = parts.setdefault((line.step, _column(line)), {})
            sums[line.read] = sums[line.read] + line.added if line.read in sums else line.added
        heads, rows, so_far = ["t", *columns, "step", "so far"], [], None
        for step, whole in self.by_step().items():
            so_far = whole if so_far is None else so_far + whole
            row = [_size(*parts.get((step, column), {}).values()) for column in columns]
            rows.append(["" if step is None else str(step), *row, _size(whole), _size(so_far)])
        return heads, rows

    def _measure(self) -> str:
        return "Contributions" if self.index is not None else "Norms of the contributions"

    def _columns(self, width: int) -> list[str]:
        """The table in plain text; what does not fit is left out, and said."""
        heads, rows = self.table
        if len(rows) > 2 * LINES:
            left_out = len(rows) - 2 * LINES
            rows = [*rows[:LINES], ["⋮"] + [""] * (len(heads) - 1), *rows[-LINES:]]
        else:
            left_out = 0
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        out = [f"{self._measure()} by time step:"]
        while len(heads) > 4 and sum(widths) + 2 * len(widths) > width:  # columns that do not fit
            del heads[-3], widths[-3]
            rows = [[*row[:-3], *row[-2:]] for row in rows]
            out = [f"{self._measure()} by time step (not all columns fit):"]
        out += ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in [heads, *rows]]
        return out + ([f"{left_out} steps in the middle are left out."] if left_out else [])

    @property
    def markdown(self) -> str:
        """The explanation in Markdown, its formulas between dollar signs."""
        out = [f"**{markdown_text(self.title)}**, {markdown_text(self.about)}", ""]
        for i, line in enumerate(self._shown(LINES)):
            bar = accented("bar", latex_name(line.read))
            out += [f"{i + 1}. {markdown_text(line.head)}", "", f"   ${bar} \\mathrel{{+}}= {line.latex}$", ""]
            out += [f"   - {name}: {markdown_text(words)}" for name, words in line.facts]
        if not self._shown(LINES) and self.lines:
            heads, rows = self.table
            out += [f"{self._measure()} by time step:", "", f"| {' | '.join(map(markdown_text, heads))} |"]
            out += [f"|{'---:|' * len(heads)}", *[f"| {' | '.join(map(markdown_text, row))} |" for row in rows]]
        out += ["", f"**{markdown_text(self.answer)}**", ""]
        said = [self._left_out(LINES), *self._said(), *self.notes]
        return "\n".join([*out, *[f"{markdown_text(each)}  " for each in said if each]]) + "\n"

    def _body(self) -> str:
        out = [f'<main class="explain"><h1>{escape(self.title)}</h1><p class="note">{escape(self.about)}</p>']
        if not self.lines:
            pass
        elif self._shown(LINES):
            out.append("<ol>")
            for line in self._shown(LINES):
                formula = mathml(f"{accented('bar', latex_name(line.read))} += {line.latex}").replace(*ADD)
                facts = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in line.facts)
                head = f"<small>{escape(line.head)}</small>"
                out.append(f"<li>{head}<div>{formula}</div><dl>{facts}</dl></li>")
            out.append("</ol>")
            out += [f'<p class="note">{left_out}</p>'] if (left_out := self._left_out(LINES)) else []
        else:
            heads, rows = self.table
            out.append(f'<p class="note">{self._measure()} by time step:</p>')
            out.append('<div class="wide"><table class="sums"><thead><tr>')
            out += [f'<th scope="col">{escape(head)}</th>' for head in heads]
            out.append("</tr></thead><tbody>")
            out += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
            out.append("</tbody></table></div>")
        bad = " bad" if self.total is not None and not np.isfinite(self.total).all() else ""
        out.append(f'<p class="total{bad}">{escape(self.answer)}</p>')
        out += [f"<p>{escape(each)}</p>" for each in self._said()]
        out += [f'<p class="note">{escape(note)}</p>' for note in self.notes]
        return "\n".join([*out, "</main>"])


def explain(
    x: Tensor, of: Tensor, index: int | tuple[int, ...] | None = None, *, grad: Any = None, expand: bool = True
) -> Explanation:  # fmt: skip
    """Where the gradient of a result for x comes from, contribution by contribution; or why there is none.

    Nobody's `.grad` is touched. What only picks from x or moves it, as the gates' slices of a cell's weights, is looked
    through, so that a weight of a recurrent layer has its contributions by time step.

    of: the result, mostly a loss. If it is no scalar and `grad` is left out, the sum of its elements is explained.
    index: explain one element of x: then all numbers are numbers of that element.
    grad: the gradient that comes in for the result.
    expand: unfold a fused layer that x goes into, so that its time steps can be seen; it is computed once more for it.

    Raises: GraphError, if x or the result is no Tensor; IndexOutOfRange, OptionError for an index that is no element
        of x.
    """
    for t, name in ((x, "x"), (of, "of")):
        if not isinstance(t, Tensor):
            raise GraphError(f"explain: {name} is a Tensor, not {type(t).__name__}")
    return _Builder(x, of, _checked(x, index), grad, expand).explanation()


class _Builder:
    """What is known of one gradient while it is explained."""

    def __init__(self, x: Tensor, y: Tensor, index: tuple[int, ...] | None, grad: Any, expand: bool) -> None:
        self.asked, self.x, self.y, self.index = x, x, y, index
        self.notes: list[str] = []
        self.book: Ledger | None = None
        self.missing = ""
        self.uses: list[tuple[Contribution, tuple[Contribution, ...]]] = []
        try:
            self.book = ledger([y], grad)
        except GraphError as error:
            self.missing = missing(x, y) or str(error)
            self.names = names([x, y]) if x is not y else names([x])
            return
        self.uses = self._uses()
        fused = [use.consumer.op.name for use, _ in self.uses if use.consumer.op and use.consumer.op.vjp]
        if fused and expand:
            try:
                self.y, self.x = unfolded([y, x])
            except ModifiedError as error:
                self.notes.append(f"{fused[0]} stays folded, since {error}")
            else:
                self.notes.append(f"{fused[0]} is unfolded into its operations, which were computed once more for this")
                self.book = ledger([self.y], grad)
                self.uses = self._uses()
        elif fused:
            self.notes.append(f"{fused[0]} is fused: expand=True shows its operations")
        self.names = names([*self.book.tensors, *([] if any(x is t for t in self.book.tensors) else [x])])
        self.missing = missing(self.x, self.book)
        self.formulas = Formulas(self.names)

    def _uses(self) -> list[tuple[Contribution, tuple[Contribution, ...]]]:
        """The contributions to x in their order, each with the views of x that it came through."""
        assert self.book is not None
        found: list[tuple[Contribution, tuple[Contribution, ...]]] = []
        waiting: list[tuple[Contribution, tuple[Contribution, ...]]] = []
        waiting += [(use, ()) for use in reversed(self.book.contributions.get(self.x.age, []))]
        while waiting:
            use, chain = waiting.pop()
            inner = self.book.contributions.get(use.consumer.age, [])
            if inner and self._is_view(use.consumer):
                waiting += [(each, (*chain, use)) for each in reversed(inner)]
            else:
                found.append((use, chain))
        return found

    def _is_view(self, node: Tensor) -> bool:
        op = node.op
        return op is not None and op.trusted and op.name in VIEWS and not node.hooks and node is not self.y

    def explanation(self) -> Explanation:
        total, lines, reasons = None, [], []
        if self.book is not None and not self.missing:
            gradient = host(self.book.gradients[self.x.age])
            total = gradient if self.index is None else float(gradient[self.index])
            with np.errstate(all="ignore"):  # what is not finite is told in the reasons
                lines = self._lines()
                reasons = self._reasons(total)
                self._remark(total)
        about = (
            f"{self.asked.shape} {self.asked.dtype}"
            if self.index is None
            else f"one element of {self.asked.shape} {self.asked.dtype}"
        )
        return Explanation(
            self.names[self.x.age] if self.x.age in self.names else self.names[self.asked.age], self.names[self.y.age],
            about, self.index, lines, total, self.missing, reasons, self.notes, lambda i: _embedded(*self.uses[i]),
        )  # fmt: skip

    def _lines(self) -> list[Line]:
        lines: list[Line] = []
        so_far: Any = None
        for use, chain in self.uses:
            unit = self._unit(chain)
            if unit is not None and not np.any(unit):
                continue  # the chosen element is not in this slice
            if unit is None:
                added, whole = host(use.added), _embedded(use, chain)
            else:
                picked = unit != 0
                added = whole = float((host(use.added)[picked] * unit[picked]).sum())
            so_far = whole if so_far is None else so_far + whole
            lines.append(self._line(use, chain, unit, added, summary(np.asarray(so_far))))
        return lines

    def _unit(self, chain: Sequence[Contribution]) -> Any:
        """Which elements of the last view are the chosen element of x: 1 there, 0 elsewhere; None if all are meant."""
        if self.index is None:
            return None
        unit = np.zeros(self.x.shape, self.x.dtype)
        unit[self.index] = 1
        for view in chain:
            unit = moves(view, unit)
        return unit

    def _line(self, use: Contribution, chain: Sequence[Contribution], unit: Any, added: Any, so_far: Summary) -> Line:
        node, upstream = use.consumer, host(use.upstream)
        terms: tuple[tuple[float, float], ...] = ()
        assert node.op is not None
        if unit is None:
            slope = slopes(use)
        else:
            slope = moves(use, unit)
            if slope is not None:
                at = slope != 0
                terms = tuple(zip(upstream[at].tolist(), slope[at].tolist()))
        formula, latex = (self.formulas.contribution(node, use.place, use.x, as_text) for as_text in (True, False))
        scope = node.scope
        while scope is not None and scope.step is None:
            scope = scope.parent
        return Line(
            consumer=self.names[node.age], op=node.op.name, argument=use.argument,
            where=printable(node.scope.path) if node.scope else "",
            step=None if scope is None or scope.step is None else int(scope.step), source=printable(node.source or ""),
            read=self.names[use.x.age], through=tuple(self.names[view.consumer.age] for view in chain),
            formula=plain(formula), latex=latex, upstream=upstream, slope=slope, terms=terms,
            axes=use.axes,
            added=added, so_far=so_far,
        )  # fmt: skip

    def _reasons(self, total: Any) -> list[str]:
        assert self.book is not None
        mask = None
        if self.index is not None:
            mask = np.zeros(self.x.shape, bool)
            mask[self.index] = True
        if not np.isfinite(total).all():
            return broken(self.x, self.book, mask)
        return [] if np.any(total) else zero(self.x, self.book, mask)

    def _remark(self, total: Any) -> None:
        x, y, book = self.asked, self.y, self.book
        assert book is not None
        name = self.names[x.age]
        if y.size != 1:
            self.notes.append(
                f"{self.names[y.age]} is no scalar: backward() needs grad=; without it, this is about the sum"
            )
        if x.op is not None and keep not in (x.hooks or ()):
            self.notes.append(
                f"{name}.grad stays None, since {x.op.name} made it: .retain_grad() before backward() keeps it"
            )
        elif x._grad is None:
            self.notes.append(f"{name}.grad is None so far: backward() has not run, or it was cleared")
        if any(hook is not keep for hook in x.hooks or ()):
            self.notes.append(f"a hook on {name} changes the sum of the contributions")
        shown = [use.consumer for line, chain in self.uses for use in (line, *chain)]
        self.notes += changed_note(changed_since(shown), self.names)
        if not any(t.source for t in book.tensors):
            self.notes.append("lines of code are recorded under tg.debug() only")
        if self.index is None and np.isfinite(total).all():
            self.notes += [*faint(self.x, book), *fading(self.x, book)]


def _embedded(use: Contribution, chain: Sequence[Contribution]) -> Any:
    """What a use of a view of x adds to the gradient of x itself: the views' own rules, as they are linear."""
    added = use.added
    with changed(recording=False, debug=False):
        for view in reversed(chain):
            op = view.consumer.op
            assert op is not None
            rule = op.pulls[view.place]
            assert rule is not None
            d = rule(added, view.consumer)
            added = fitted(d.whole() if type(d) is Part else d, view.x)
    return host(added)


def _checked(x: Tensor, index: Any) -> tuple[int, ...] | None:
    if index is None:
        return None
    given = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(i, (int, np.integer)) for i in given) or len(given) != x.ndim:
        raise OptionError(f"index={index!r} is no element of {x.label}: it takes {x.ndim} whole numbers")
    for axis, (i, size) in enumerate(zip(given, x.shape)):
        if not -size <= i < size:
            raise IndexOutOfRange(f"index {i} is out of range for axis {axis} of {x.label}")
    return tuple(int(i) % size for i, size in zip(given, x.shape))


def _column(line: Line) -> str:
    """The slice of x that was read, whatever its step; or the operation that read x itself."""
    return re.sub(r"\[[\d,]+\]$", "", line.through[-1]) if line.through else f"{line.op}.{line.argument}"


def _words(array: Any) -> str:
    host_array = np.asarray(array)
    said = summary(host_array).words(DIGITS)
    return said if host_array.size <= FEW else f"{host_array.shape}: {said}"


def _size(*parts: Any) -> str:
    """A number as it is; the norm of an array, or of several that are slices of one; "" of nothing."""
    if not parts:
        return ""
    if np.ndim(parts[0]) == 0:
        return number(float(sum(parts)), DIGITS)
    return number(math.hypot(*[summary(part).norm for part in parts]), DIGITS)


def _factor(x: float) -> str:
    return f"({number(x, DIGITS)})" if x < 0 else number(x, DIGITS)


def _sentence(words: str) -> str:
    """Words as a sentence; names in front of it stay as they are."""
    words = f"{words[0].upper()}{words[1:]}" if words.startswith(OPENING) else words
    return words if words.endswith(".") else f"{words}."
