"""Drills: a user's function as a worksheet, forward line by line, its derivative lines blank; and their checker."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from ..backend import as_array
from ..core.tensor import Tensor, keep
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
from ..see.words import counted, over_axes
from .sources import loss, result_of, run_worksheet
from .tracing import traced
from .verdicts import Known, Verdict, Verdicts, judged, numbers
from .writing import Writer, identifiers

MOST = 500
"""The most operations that a worksheet has; nobody could do more by hand."""
LEVELS = (1, 2, 3)
"""Of hints: who used a variable, the formulas too, the numbers too."""
WORKSHEET = """\
# The gradients of {what}, by hand.
# To check it: {how}
import numpy as np
import tinygrad_rnn as tg

{origin}# What it begins from.
{given}

# Forward: one operation a line.
{forward}

# Backward, youngest first: write NumPy, or tg's functions, in place of each `...`.
d_{y} = np.ones_like({y})  # given
{backward}
"""


class Drill:
    """A worksheet. `print` it; `text` is Python that runs, in a file or in the cell of a notebook.

    given: by name, what it begins from: the values of leaves as NumPy arrays, and what has no text in Python.
    forward: the lines that compute y. names: the variables whose gradients are asked for, as `d_y`, youngest first.
    """

    def __init__(self, y: Tensor, origin: Callable[[Path | None], str] | None = None) -> None:
        """origin: the Python that makes this drill, for a worksheet in a file, or elsewhere.

        Raises: LabError, if there are too many operations, or a hook; GraphError, if y has no graph.
        """
        self.y, self.origin, self.book = y, origin, ledger([y])
        ordered = self.book.tensors[::-1]
        operations = [t for t in ordered if t.op]
        if len(operations) > MOST:
            raise LabError(f"it has {len(operations):,} operations, and a worksheet up to {MOST}: take smaller sizes")
        words = names(ordered)
        self.called = identifiers({t.age: words[t.age] for t in ordered})
        self._tensors = {self.called[t.age]: t for t in ordered}
        if hooked := [name for name, t in self._tensors.items() if {*(t.hooks or ())} - {keep}]:
            raise LabError(f"{hooked[0]} has a hook, which may replace its gradient unseen: take it off first")
        self._asked = {self._d(t): t for t in self.book.tensors if t is not y and not self.book.state(t)}
        self.names = list(self._asked)
        self._writer = Writer(self.called)
        self.forward = [f"{self.called[t.age]} = {self._writer.forward(t)}  # {t.shape}" for t in operations]
        self._solved = {name: self._derivative(t) for name, t in self._asked.items()}
        self.given = {self.called[t.age]: host(t._array) for t in ordered if not t.op} | self._writer.given

    def _d(self, t: Tensor) -> str:
        return f"d_{self.called[t.age]}"

    def _uses(self, t: Tensor) -> list[Contribution]:
        return self.book.contributions[t.age]

    def _by(self, use: Contribution) -> str:
        return f"{self.called[use.consumer.age]} ({use.argument})"

    # -- the worksheet ------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The worksheet, its derivative lines blank."""
        return self._text(dict.fromkeys(self.names, "..."))

    def solution(self) -> str:
        """The worksheet with all lines filled in."""
        return self._text(self._solved)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        operations, blanks = counted(len(self.forward), "operation"), counted(len(self.names), "blank")
        return f"<Drill of {operations} and {blanks}: print it>"

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}```\n"

    def _text(self, answers: Mapping[str, str], file: Path | None = None) -> str:
        """file: where it will be."""
        y, origin, how = self.called[self.y.age], "", "print(drill.check(globals()))"
        if file is not None:
            how = f"print(drill.check({str(file)!r})), in the Python session that made it"
        if self.origin is not None:
            origin = f"drill = {self.origin(file)}\n"
            how = how if file is None else f"tinygrad-rnn lab check {quote(str(file))}"
        backward = []
        for name, t in self._asked.items():
            first, *rest = f"{name} = {answers[name]}".split("\n")
            backward += [f"{first}  # {t.shape}", *rest]
        return WORKSHEET.format(
            y=y, what=y if self.y.size == 1 else f"the sum of {y}", how=how, origin=origin,
            given="\n".join(f'{name} = drill.given["{name}"]{_about(value)}' for name, value in self.given.items()),
            forward="\n".join(self.forward), backward="\n".join(backward),
        )  # fmt: skip

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the worksheet to a .py file, whole or not at all, which says how it is checked.

        Raises: OptionError for another suffix; OutputError, if the file cannot be written.
        """
        return save(path, {".py": lambda: self._text(dict.fromkeys(self.names, "..."), Path(path))})

    # -- the solution -------------------------------------------------------------------------------------------

    def _derivative(self, t: Tensor) -> str:
        """The right-hand side of a derivative line: the contributions of all uses."""
        uses = self._uses(t)
        if len(uses) == 1:
            return self._term(uses[0])
        terms = [f"    {'+ ' if i else ''}{self._term(use)}  # by {self._by(use)}" for i, use in enumerate(uses)]
        return "\n".join(["(", *terms, ")"])

    def _term(self, use: Contribution) -> str:
        """One contribution in Python: the rule, summed where the value was broadcast."""
        made = self._writer.contribution(use.consumer, use.place, use.upstream)
        if made is None:
            return f'drill.rule("{self.called[use.consumer.age]}", "{use.argument}", {self._d(use.consumer)})'
        if not use.broadcast:
            return made
        axes = use.axes[0] if len(use.axes) == 1 else use.axes
        flat = len(use.axes) == len(use.product.shape) - use.x.ndim
        return f"np.sum({made}, axis={axes})" + ("" if flat else f".reshape({use.x.shape})")

    def rule(self, variable: str, argument: str, g: Any) -> Any:
        """The engine's own rule: what the operation that made a variable adds to the gradient of one of its arguments.

        g: the gradient of the variable, of its shape. Returns a NumPy array of the argument's shape.

        Raises: OptionError, if there is no such variable or argument, or if g has another shape.
        """
        node, given = self._tensors.get(variable), numbers(g)
        if node is not None and (given is None or given.shape != node.shape):
            raise OptionError(f"a gradient for {variable} has its shape, {node.shape}")
        for use in self._step(node, given) if node is not None else ():
            if use.argument == argument:
                return host(use.added)
        raise OptionError(f"no operation made {variable!r} with an argument {argument!r} that has a gradient")

    def _step(self, node: Tensor, g: Any) -> list[Contribution]:
        """What a node makes of a gradient that somebody gives for it; nothing, if that has not its shape."""
        fits = g is not None and g.shape == node.shape
        return step(node, as_array(g, node.backend, node.dtype)) if fits else []

    # -- the checker --------------------------------------------------------------------------------------------

    def check(self, answers: Mapping[str, Any] | str | PathLike[str]) -> Verdicts:
        """A verdict on each variable.

        answers: by name, as `globals()` has them: arrays, Tensors, lists or numbers; or the path of a worksheet.

        Raises: LabError for other answers, or a worksheet that cannot be read, or is of another function.
        """
        if isinstance(answers, (str, PathLike)):
            _, answers = read(Path(answers), self)
        if not isinstance(answers, Mapping):
            raise LabError(f"check takes names and answers, as in globals(), or a path, not {type(answers).__name__}")
        found: list[Verdict] = []
        for name, t in self._asked.items():
            wrong = {verdict.name for verdict in found if not verdict.right}
            with np.errstate(all="ignore"):
                found.append(self._verdict(name, t, answers, wrong))
        return Verdicts(f"Gradients of {self.called[self.y.age]}, by hand", found)

    def _verdict(self, name: str, t: Tensor, answers: Mapping[str, Any], wrong: set[str]) -> Verdict:
        """wrong: the names of those above whose answers are not right."""
        uses = self._uses(t)
        parts = {self._by(use): host(use.added) for use in uses}
        known = Known(host(self.book.gradients[t.age]), parts, any(use.broadcast for use in uses))
        through = [above for above in dict.fromkeys(self._d(use.consumer) for use in uses) if above in wrong]
        follows = self._following(t, answers) if through else None
        return judged(name, answers.get(name), known, follows, " and ".join(through))

    def _following(self, t: Tensor, answers: Mapping[str, Any]) -> Any:
        """The gradient that the right rules make of the learner's gradients; None, if these do not allow it."""
        total = None
        for node in {use.consumer.age: use.consumer for use in self._uses(t)}.values():
            theirs = self.book.gradients[node.age] if node is self.y else answers.get(self._d(node))
            uses = self._step(node, numbers(theirs))
            if not uses:
                return None
            for added in [host(use.added) for use in uses if use.x is t]:
                total = added if total is None else total + added
        return total

    # -- hints --------------------------------------------------------------------------------------------------

    def hint(self, name: str, level: int = 1) -> str:
        """A hint for one of the blanks, such as "d_h". level: 1 who used the variable, 2 the formulas, 3 the numbers.

        Raises: OptionError, if there is no such blank, or no such level.
        """
        if name not in self.names:
            raise OptionError(f"there is no blank {name!r}; they are {', '.join(self.names)}")
        if level not in LEVELS:
            raise OptionError(f"the level of a hint is 1, 2 or 3, not {level!r}")
        t = self._asked[name]
        uses = self._uses(t)
        often = "once" if len(uses) == 1 else f"{len(uses)} times, and all of it adds up"
        out = [f"{self.called[t.age]} {t.shape} is used {often}:"]
        for use in uses:
            op = use.consumer.op
            assert op is not None
            out.append(f"  by {self._by(use)} = {op.name}")
            more = (self._how(use) if level > 1 else []) + (self._how_much(use) if level > 2 else [])
            out += [f"    {line}" for line in more]
        return "\n".join(out)

    def _how(self, use: Contribution) -> list[str]:
        name = self.called[use.x.age]
        formula = plain(Formulas(self.called).contribution(use.consumer, use.place, use.x, True))
        summed = [f"summed over {over_axes(use.axes)}: {name} was broadcast"] if use.axes else []
        return [f"{plain(accented('bar', literal(name)))} += {formula}", *summed]

    def _how_much(self, use: Contribution) -> list[str]:
        facts = {self._d(use.consumer): use.upstream, "local derivative": slopes(use), "contribution": use.added}
        return [f"{what}: {summary(found).words(DIGITS)}" for what, found in facts.items() if found is not None]


def drill(f: Callable[..., Any], *xs: Any, expand: bool = False) -> Drill:
    """The worksheet of a function at xs: forward line by line, and blanks for the derivatives of its result.

    A result of many elements stands for their sum.

    xs: numbers, lists, arrays or Tensors. Copies of the floating ones are differentiated for, in the widest dtype that
        one of them has (float32 for numbers alone); so are the parameters that f takes from elsewhere.
    expand: unfold fused layers into their operations.

    Raises: GraphError, if f returns no Tensor, or one that depends on nothing; LabError for too many operations, for
        a hook, and for a function that does not tell its arguments.
    """
    y = traced(f, *xs)
    return Drill(unfolded([y])[0] if expand else y)


def drill_of(where: str | None = None, *, beside: str | PathLike[str] = "", expand: bool = False) -> Drill:
    """The worksheet of a function in a file, which says itself where it comes from: a file that stands alone.

    where: "FILE.py:function", whose arguments are what a function `inputs()` in the same file returns, else its
        defaults; or None for a small example. beside: a file, such as `__file__`, whose folder FILE.py is relative to,
        in place of the current one. expand: unfold fused layers.

    Raises: LabError, if there is no such function, or it fails; and as `drill`.
    """
    if isinstance(where, str):
        where = str(Path(beside).parent / where)
    y = result_of(where, loss)

    def origin(file: Path | None) -> str:
        folder = os.path.realpath(file.parent if file else ".")
        words = (
            [] if where is None else [json.dumps(os.path.relpath(os.path.realpath(where), folder), ensure_ascii=False)]
        )
        words += ["beside=__file__"] * (where is not None and file is not None) + ["expand=True"] * expand
        return f"tg.lab.drill_of({', '.join(words)})"

    return Drill(unfolded([y])[0] if expand else y, origin)


def read(path: Path, drill: Drill | None = None) -> tuple[Drill, dict[str, Any]]:
    """A worksheet that was filled in: the drill that it is of, by itself if none is given, and all its variables.

    Raises: LabError, if it cannot be read, if there is no drill, or if that has other lines forward by now.
    """
    answers, lines = run_worksheet(path, drill)
    drill = drill or answers["drill"]
    if not isinstance(drill, Drill):
        there = f"if a drill in a Python session wrote it, say there: print(drill.check({str(path)!r}))"
        raise LabError(f"{path} does not say what it is of, by a line `drill = tg.lab.drill_of(...)`; {there}")
    if not {ast.unparse(ast.parse(line)) for line in drill.forward} <= lines:
        raise LabError(f"{path} was written for another version of {drill.called[drill.y.age]}: write it anew")
    return drill, answers


def _about(value: Any) -> str:
    """A comment on something given: the numbers, or what a function does."""
    if isinstance(value, np.ndarray):
        return f"  # {value.shape}: {summary(value).words(DIGITS)}"
    told = (value.__doc__ or "").strip().partition("\n")[0] if callable(value) else ""
    return f"  # {told}" if told else ""
