"""Drills: a user's function as a worksheet, forward line by line, its derivative lines blank; and their checker."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import as_array
from ..core.tensor import Tensor
from ..errors import LabError, OptionError
from ..see.formula import Formulas
from ..see.ledger import Contribution, ledger, step
from ..see.naming import names
from ..see.notation import accented, literal, plain
from ..see.publishing import save
from ..see.reasons import slopes
from ..see.summary import host, summary
from ..see.tables import DIGITS
from ..see.unfolding import unfolded
from ..see.words import counted
from .sources import located, loss, told, traced
from .verdicts import Known, Verdict, Verdicts, judged, numbers
from .writing import Writer, identifiers

MOST = 500
"""The most operations that a worksheet has; nobody could do more by hand."""
BLANK = "..."


class Drill:
    """A worksheet. `print` it; `text` is Python that runs, in a file or in the cell of a notebook.

    given: by name, what it begins from: the values of leaves as NumPy arrays, and what has no text in Python.
    names: the variables whose gradients are asked for, `d_` and the variable, youngest first.
    """

    def __init__(self, y: Tensor, called: str = "y", origin: str = "") -> None:
        """Raises: LabError, if there are too many operations; GraphError, if y has no graph."""
        self.book = ledger([y])
        tensors = self.book.tensors
        count = sum(t.op is not None for t in tensors)
        if count > MOST:
            raise LabError(f"{called} has {count:,} operations, and a worksheet up to {MOST}: take smaller sizes")
        words = names(tensors)
        self.origin, self.y, self.ordered = origin, y, tensors[::-1]
        self.called = identifiers({t.age: called if t is y and not y.name else words[t.age] for t in self.ordered})
        self.formulas, self._writer = Formulas(self.called), Writer(self.called)
        self._tensors = {self.called[t.age]: t for t in tensors}
        self._asked = [t for t in tensors if t is not y and not self.book.state(t)]
        self._forward = [
            f"{self.called[t.age]} = {self._writer.forward(t)}  # {_shape(t)}" for t in self.ordered if t.op is not None
        ]
        self.names = [self._d(t) for t in self._asked]
        self._solved = {self._d(t): self._derivative(t) for t in self._asked}
        self.given = {self.called[t.age]: host(t._array) for t in self.ordered if t.op is None} | self._writer.given

    def _d(self, t: Tensor) -> str:
        return f"d_{self.called[t.age]}"

    # -- the worksheet ------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The worksheet, its derivative lines blank."""
        return self._text({})

    def solution(self) -> str:
        """The worksheet with all lines filled in."""
        return self._text(self._solved)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"<Drill of {counted(len(self._forward), 'operation')} and {counted(len(self.names), 'blank')}: print it>"
        )

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```\n"

    def _text(self, filled: Mapping[str, str]) -> str:
        y, many = self.called[self.y.age], self.y.size != 1
        lines = [f"# The gradients of {'the sum of ' if many else ''}{y}, by hand.", "import numpy as np"]
        lines += ["import tinygrad_rnn as tg", "", *([f"drill = {self.origin}"] if self.origin else [])]
        lines += ["# What it begins from."]
        for name, value in self.given.items():
            lines.append(f'{name} = drill.given["{name}"]{_about(value)}')
        lines += ["", "# Forward: one operation a line.", *self._forward]
        lines += ["", "# Backward, youngest first: write NumPy, or tg's functions, in place of each `...`."]
        lines += [f"d_{y} = np.ones_like({y})  # given"]
        for t in self._asked:
            body, note = filled.get(self._d(t), BLANK), f"  # {_shape(t)}"
            first, *rest = f"{self._d(t)} = {body}".split("\n")
            lines += [first + note, *rest]
        return "\n".join([*lines, "", "# Then: print(drill.check(globals()))", ""])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the worksheet to a .py file, whole or not at all.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written.
        """
        return save(path, {".py": lambda: self.text})

    # -- the solution -------------------------------------------------------------------------------------------

    def _derivative(self, t: Tensor) -> str:
        """The right-hand side of a derivative line: the contributions of all uses."""
        terms = [self._term(use) for use in self._parts(t)]
        if len(terms) == 1:
            return terms[0]
        uses = [f"    {'+ ' if i else ''}{term}  # by {self._use(use)}"
                for i, (term, use) in enumerate(zip(terms, self._parts(t)))]  # fmt: skip
        return "\n".join(["(", *uses, ")"])

    def _parts(self, t: Tensor) -> list[Contribution]:
        return self.book.contributions[t.age]

    def _use(self, use: Contribution) -> str:
        return f"{self.called[use.consumer.age]} ({use.argument})"

    def _term(self, use: Contribution) -> str:
        """One contribution in Python: the rule, summed where the value was broadcast."""
        node = use.consumer
        made = self._writer.contribution(node, use.place, use.upstream)
        if made is None:
            return f'drill.rule("{self.called[node.age]}", "{use.argument}", {self._d(node)})'
        if not use.broadcast:
            return made if len(self._parts(use.x)) == 1 else _held_together(made)
        shape, lead = tuple(use.x.shape), len(use.product.shape) - use.x.ndim
        inner = [axis for axis in use.axes if axis >= lead]
        axes = use.axes[0] if len(use.axes) == 1 else use.axes
        if not inner:
            return f"np.sum({made}, axis={axes})"
        return f"np.sum({made}, axis={axes}" + (f").reshape({shape})" if lead else ", keepdims=True)")

    def rule(self, variable: str, argument: str, g: Any) -> Any:
        """The engine's own rule: what the operation that made a variable adds to the gradient of one of its arguments.

        g: the gradient of the variable, of its shape. Returns a NumPy array of the argument's shape.

        Raises: OptionError, if there is no such variable or argument.
        """
        node = self._tensors.get(variable)
        uses = {} if node is None or node.op is None else {use.argument: use.added for use in self._step(node, g)}
        if argument not in uses:
            raise OptionError(f"no operation made {variable!r} with an argument {argument!r} that has a gradient")
        return host(uses[argument])

    def _step(self, node: Tensor, g: Any) -> list[Any]:
        found = numbers(g)
        if found is None or found.shape != node.shape:
            raise OptionError(f"a gradient for {self.called[node.age]} has its shape, {node.shape}")
        return step(node, as_array(found, node.backend, node.dtype))

    # -- the checker --------------------------------------------------------------------------------------------

    def check(self, answers: Mapping[str, Any]) -> Verdicts:
        """A verdict on each variable. answers: by name, as `globals()` has them: arrays, Tensors, lists or numbers."""
        found, wrong = [], set[int]()
        for t in self._asked:
            with np.errstate(all="ignore"):
                found.append(self._verdict(t, answers, wrong))
            if not found[-1].right:
                wrong.add(t.age)
        return Verdicts(f"Gradients of {self.called[self.y.age]}, by hand", found)

    def _verdict(self, t: Tensor, answers: Mapping[str, Any], wrong: set[int]) -> Verdict:
        """wrong: the ages of those, younger, whose answers are not right."""
        uses = self._parts(t)
        parts = {self._use(use): host(use.added) for use in uses}
        known = Known(host(self.book.gradients[t.age]), parts, any(use.broadcast for use in uses))
        upstream = {use.consumer.age: use.consumer for use in uses if use.consumer.age in wrong}
        follows = self._following(t, answers) if upstream else None
        return judged(
            self._d(t), answers.get(self._d(t)), known, follows, " and ".join(map(self._d, upstream.values()))
        )

    def _following(self, t: Tensor, answers: Mapping[str, Any]) -> Any:
        """The gradient that the right rules make of the learner's gradients; None, if these do not allow it."""
        total = None
        for node in {use.consumer.age: use.consumer for use in self._parts(t)}.values():
            theirs = numbers(self.book.gradients[node.age] if node is self.y else answers.get(self._d(node)))
            if theirs is None or theirs.shape != node.shape:
                return None
            for use in self._step(node, theirs):
                if use.x is t:
                    total = host(use.added) if total is None else total + host(use.added)
        return total

    # -- hints --------------------------------------------------------------------------------------------------

    def hint(self, name: str, level: int = 1) -> str:
        """A hint for one of the blanks, such as "d_h". level: 1 who used the variable, 2 the formulas, 3 the numbers.

        Raises: OptionError, if there is no such blank, or no such level.
        """
        if name not in self.names:
            raise OptionError(f"there is no blank {name!r}; they are {', '.join(self.names)}")
        if level not in (1, 2, 3):
            raise OptionError(f"the level of a hint is 1, 2 or 3, not {level!r}")
        t = self._asked[self.names.index(name)]
        uses, called = self._parts(t), self.called[t.age]
        out = [
            f"{called} {_shape(t)} is used {'once' if len(uses) == 1 else f'{len(uses)} times, and all of it adds up'}:"
        ]
        for use in uses:
            assert use.consumer.op is not None
            out.append(f"  by {self._use(use)} = {use.consumer.op.name}")
            if level > 1:
                formula = plain(self.formulas.contribution(use.consumer, use.place, t, True))
                out.append(f"    {plain(accented('bar', literal(called)))} += {formula}")
                if use.axes:
                    axes = ", ".join(map(str, use.axes))
                    out.append(
                        f"    summed over ax{'i' if len(use.axes) == 1 else 'e'}s {axes}: {called} was broadcast"
                    )
            if level > 2:
                out += [
                    f"    {what}: {summary(host(a)).words(DIGITS)}" for what, a in self._numbers(use) if a is not None
                ]
        return "\n".join(out)

    def _numbers(self, use: Contribution) -> list[tuple[str, Any]]:
        return [(self._d(use.consumer), use.upstream), ("local derivative", slopes(use)), ("contribution", use.added)]


def drill(f: Callable[..., Any], *xs: Any, expand: bool = False) -> Drill:
    """The worksheet of a function at xs: forward line by line, and blanks for the derivatives of its result.

    A result of many elements stands for their sum.

    xs: numbers, lists, arrays or Tensors. Copies of the floating ones are differentiated for; so are the parameters
        that f takes from elsewhere. expand: unfold fused layers into their operations.

    Raises: GraphError, if f returns no Tensor, or one that depends on nothing; LabError for too many operations.
    """
    y = traced(f, xs)
    called = getattr(f, "__name__", "y")
    return Drill(unfolded([y])[0] if expand else y, called if called.isidentifier() else "y")  # a lambda has no name


def drill_of(where: str | None = None, *, expand: bool = False) -> Drill:
    """The worksheet of a function in a file, which says itself where it comes from: a file that stands alone.

    where: "FILE.py:function", whose arguments are what a function `inputs()` in the same file returns, else its
        defaults; or None for a small example.

    Raises: LabError, if there is no such function, or it fails; and as `drill`.
    """
    if where is None:
        made = drill(loss, *loss.__defaults__ or (), expand=expand)
    else:
        function, xs, path = located(where)
        with told(path, where):
            made = drill(function, *xs, expand=expand)
    named = "" if where is None else json.dumps(where, ensure_ascii=False)
    made.origin = f"tg.lab.drill_of({named}{', expand=True' if expand and where else ''})"
    return made


def _held_together(term: str) -> str:
    """A term of a sum, in parentheses where it is a sum itself."""
    tree = ast.parse(term, mode="eval").body
    loose = isinstance(tree, ast.Compare) or (isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub)))
    return f"({term})" if loose else term


def _about(value: Any) -> str:
    """A comment on something given: the numbers, or what a function does."""
    if isinstance(value, np.ndarray):
        return f"  # {value.shape}: {summary(value).words(DIGITS)}"
    told = (value.__doc__ or "").strip().partition("\n")[0] if callable(value) else ""
    return f"  # {told}" if told else ""


def _shape(t: Tensor) -> str:
    return str(tuple(t.shape))
