"""Mistakes on purpose: a function of the package, or of a user's, runs with a piece of its text replaced, for a while.

The text is the real one. What it compiles to is put into the live function, so that whoever holds that function has the
mistake too: the engine, recorded graphs, formulas in pictures, names imported elsewhere. Leaving puts it back.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from threading import Lock
from types import CodeType, FunctionType
from typing import Any, NamedTuple, Self

from ..core.primitive import Primitive, passed, unchanged
from ..errors import LabError

_lock = Lock()
_on: dict[FunctionType, Mutant] = {}
"""The functions that have a mistake now, each with it."""
Swap = tuple[FunctionType, CodeType, CodeType]
"""A function, its code, and its code with the mistake."""


class Mutant:
    """A function with a mistake, which it has inside a `with`. It is there for the whole process: for every thread.

    name: of the mistake. diff: what differs, in the function's own text.
    """

    def __init__(self, function: Any, edits: Mapping[str, str], name: str = "") -> None:
        """Raises: LabError, as `mutant` says."""
        called = getattr(function, "__name__", repr(function))
        self.name, self.called = name or f"{called} with a mistake", called
        text, self._swaps = _planned(called, functions_of(function), edits)
        both = text.whole.splitlines(), text.edited(edits).splitlines()
        file = "/".join(Path(text.file).parts[-2:])
        self.diff = "\n".join(difflib.unified_diff(*both, file, "with the mistake", n=1, lineterm=""))

    def __repr__(self) -> str:
        return f"<Mutant {self.name!r}>"

    def __enter__(self) -> Self:
        """Raises: LabError, if one of the functions has a mistake already."""
        with _lock:
            for function, _, _ in self._swaps:
                _refuse_another(function)
            for function, _, wrong in self._swaps:
                _on[function] = self
                function.__code__ = wrong
        try:
            on = f"BUG ON: {self.name}. It is on for everything in this process, until the `with` ends.\n{self.diff}"
            self._say(on, "red")
        except BaseException:  # interrupted while it said so: nobody else would put it back
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._say(f"BUG OFF: {self.name}. Everything is as it was.", "green")

    def _stop(self) -> None:
        """Put everything back, if the mistake is on."""
        with _lock:
            for function, right, _ in self._swaps:
                if _on.get(function) is self:
                    function.__code__ = right
                    del _on[function]

    def _say(self, words: str, colour: str) -> None:
        """A banner on the standard error; where that is closed, or there is none, nobody is told."""
        if sys.stderr is None:
            return
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        with suppress(OSError, ValueError):
            out = StringIO()  # of its own: on a broken pipe, rich would end the process
            console = Console(file=out, force_terminal=sys.stderr.isatty(), force_jupyter=False)
            console.print(Panel(Text(words, style=f"bold {colour}"), border_style=colour))
            print(out.getvalue(), end="", file=sys.stderr, flush=True)


def mutant(function: Any, old: str, new: str) -> Mutant:
    """A mistake for a `with`: inside it, `old` in the text of a function is `new`.

    function: any function written in Python, or a primitive, also one of your own: then its kernel and its rules are
        meant, those above the kernel and those that have a name of their own.
    old: a piece of its source text, as it stands there; all places are replaced. new: what stands there instead.

    The mistake is there for the whole process: every thread, and every other user of the function. A kernel that a
    backend has of its own stays right. Each function has one mistake at a time.

    Raises: LabError, if there is no text, if `old` is not in it, if `new` is no Python or makes no difference, or where
        the mistake would change which functions there are, or what they take; on entering, if there is one already.
    """
    return Mutant(function, {old: new})


def _refuse_another(function: FunctionType) -> None:
    if function in _on:
        on = _on[function]
        raise LabError(f"{on.called} has a mistake already, {on.name!r}: leave that `with` first")


# -- the text -----------------------------------------------------------------------------------------------------


def functions_of(target: Any) -> list[FunctionType]:
    """What runs of a primitive, or of a function.

    Raises: LabError for anything that is not written in Python.
    """
    op = getattr(target, "primitive", target)
    parts: list[Any] = [target]
    if isinstance(op, Primitive):
        parts = [op.kernel, *op.rules.values(), op.vjp, op.reference]
    plain = [inspect.unwrap(getattr(part, "__func__", getattr(part, "func", part))) for part in parts]
    found = [f for f in plain if isinstance(f, FunctionType) and f not in (unchanged, passed)]  # which never run
    if not found:
        raise LabError(f"{getattr(target, '__name__', repr(target))} has no Python text: name a function that has")
    return found


class Passage(NamedTuple):
    """A statement in a file, and what stands before and after it."""

    file: str
    before: str
    statement: str
    after: str

    @property
    def whole(self) -> str:
        """The file."""
        return self.before + self.statement + self.after

    def edited(self, edits: Mapping[str, str]) -> str:
        """The file with each old piece in the statement replaced, all at once."""
        pieces = "|".join(map(re.escape, edits))
        return self.before + re.sub(pieces, lambda old: edits[old[0]], self.statement) + self.after


def passage_of(function: FunctionType) -> Passage:
    """The innermost statement that a function stands in: its `def`, or what a lambda is a part of.

    Raises: LabError, if there is no text.
    """
    code = function.__code__
    try:
        lines, _ = inspect.findsource(code)
        statements = [node for node in ast.walk(ast.parse("".join(lines))) if isinstance(node, ast.stmt)]
    except (OSError, SyntaxError):
        raise LabError(f"the text of {function.__name__} is not there: define it in a file or a notebook") from None
    first, last = 1, len(lines)
    for node in statements:  # from the outside in
        start = min([node.lineno, *[each.lineno for each in getattr(node, "decorator_list", [])]])
        end = node.end_lineno or start
        if start <= code.co_firstlineno <= end and end - start < last - first:
            first, last = start, end
    before, after = lines[: first - 1], lines[last:]
    return Passage(code.co_filename, "".join(before), "".join(lines[first - 1 : last]), "".join(after))


# -- what it compiles to ------------------------------------------------------------------------------------------


def _planned(called: str, functions: list[FunctionType], edits: Mapping[str, str]) -> tuple[Passage, list[Swap]]:
    """The text that holds all old pieces, and the code to swap, for the functions that stand in it."""
    texts = {function: passage_of(function) for function in functions}
    text = next((t for t in texts.values() if all(old and old in t.statement for old in edits)), None)
    if text is None:
        statement = texts[functions[0]].statement
        missing = next(old for old in edits if not old or old not in statement)
        raise LabError(f"{called} does not contain {missing!r}; its text is\n{textwrap.dedent(statement)}")
    pieces = " and ".join(map(repr, edits.values()))
    try:
        versions = text.whole, text.edited(edits)
        right, wrong = (list(_codes(compile(each, text.file, "exec", dont_inherit=True))) for each in versions)
    except SyntaxError as error:
        raise LabError(f"{pieces} in {called} is no Python: {error.msg}") from None
    swaps = []
    for function in [function for function, own in texts.items() if own == text]:
        _refuse_another(function)
        code = function.__code__
        mistaken = _counterpart(code, right, wrong)
        if mistaken and _meaning(mistaken) != _meaning(code):
            swaps.append((function, code, mistaken))
    if not swaps:
        raise LabError(
            f"{called} would run as before: {pieces} changes no function that is there. "
            "(A rule `unchanged` is none, and a default is read once: change the body of a function)"
        )
    if any(_interface(code) != _interface(mistaken) for _, code, mistaken in swaps):
        raise LabError(
            f"{called} would take other arguments, or other variables of the function around it, and nobody would give "
            "it those: change what it does with the ones it has"
        )
    return text, swaps


def _counterpart(code: CodeType, right: list[CodeType], wrong: list[CodeType]) -> CodeType | None:
    """What a function becomes: that of its name and number in the changed text, if there are as many of the name."""
    ours, theirs = ([c for c in version if c.co_qualname == code.co_qualname] for version in (right, wrong))
    at = next((i for i, each in enumerate(ours) if _place(each) == _place(code)), None)
    if at is None:
        raise LabError(f"the text of {code.co_name} in {code.co_filename} is not what runs: was it edited since?")
    return theirs[at] if len(ours) == len(theirs) else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A piece of code, and all functions that are defined in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _place(code: CodeType) -> tuple[Any, ...]:
    """Which function of a file it is; lambdas in one line are told apart by their columns."""
    return code.co_name, code.co_firstlineno, code.co_code, tuple(code.co_positions())


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """What it does, wherever it stands."""
    consts = tuple(_meaning(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, consts, _interface(code)


def _interface(code: CodeType) -> tuple[Any, ...]:
    """What it takes: its parameters, and the variables around it."""
    return inspect.getargs(code), code.co_argcount, code.co_posonlyargcount, code.co_freevars
