"""Mistakes on purpose: a function of the package, or of a user's, runs with a piece of its text replaced, for a while.

The text is the real one. What it compiles to is put into the live function, so that whoever holds that function has the
mistake too: the engine, recorded graphs, formulas in pictures, names imported elsewhere. Leaving puts it back.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from threading import Lock
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple, Self

from ..core.primitive import Primitive, passed, unchanged
from ..errors import LabError

KINDS = 0x3FF
"""The flags of code that say what a function is, and not from which __future__ it comes."""
_lock = Lock()
_on: dict[FunctionType, Mutant] = {}
"""The functions that have a mistake now, each with it."""
Swap = tuple[FunctionType, CodeType, CodeType]
"""A function, its code, and its code with the mistake."""


class Mutant:
    """A function with a mistake, which it has inside a `with`. It is there for the whole process: for every thread.

    name: of the mistake. diff: what differs, in the function's own text. where: its file and line.
    """

    def __init__(self, function: Any, edits: Mapping[str, str], name: str = "") -> None:
        """Raises: LabError, as `mutant` says."""
        called = getattr(function, "name", None) or getattr(function, "__name__", None) or repr(function)
        self.name = name or f"{called} with a mistake"
        text, self._swaps = _planned(called, functions_of(function), edits)
        self.where = f"{_shortened(text.file)}:{text.first}"
        self.diff = "\n".join(
            difflib.unified_diff(
                "".join(text.lines).splitlines(), text.edited(edits).splitlines(), self.where.partition(":")[0],
                "with the mistake", n=1, lineterm="",
            )
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.name}\n{self.diff}"

    def __repr__(self) -> str:
        return f"<Mutant {self.name!r} of {self.where}>"

    def __enter__(self) -> Self:
        self.start()
        try:
            self._say(f"BUG ON: {self.name}. It is on for everything in this process, until the `with` ends.", True)
        except BaseException:  # interrupted while it said so: nobody else would put it back
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._say(f"BUG OFF: {self.name}. Everything is as it was.", False)

    def start(self) -> None:
        """Put the mistake in, without a word.

        Raises: LabError, if one of the functions has a mistake already.
        """
        with _lock:
            for function, _, _ in self._swaps:
                _refuse_another(function)
            for function, _, wrong in self._swaps:
                _on[function] = self
                function.__code__ = wrong

    def stop(self) -> None:
        """Put everything back, if the mistake is on."""
        with _lock:
            for function, right, _ in self._swaps:
                if _on.get(function) is self:
                    function.__code__ = right
                    del _on[function]

    def _say(self, words: str, on: bool) -> None:
        """A banner on the standard error; where that is closed, nobody is told."""
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        body = Text(words, style="bold red" if on else "bold green")
        if on:
            body.append(f"\n{self.diff}", style="not bold default")
        with suppress(OSError, ValueError):
            out = StringIO()  # of its own: on a broken pipe, rich would end the process
            console = Console(file=out, force_terminal=sys.stderr.isatty(), force_jupyter=False, highlight=False)
            console.print(Panel(body, border_style="red" if on else "green"))
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


def functions_of(target: Any) -> list[FunctionType]:
    """What runs of a primitive, or of a function.

    Raises: LabError for anything that is not written in Python.
    """
    op = target if isinstance(target, Primitive) else getattr(target, "primitive", None)
    parts: list[Any] = [op.kernel, *op.rules.values(), op.vjp, op.reference] if isinstance(op, Primitive) else [target]
    found: list[FunctionType] = []
    for part in parts:
        while isinstance(part, (functools.partial, MethodType, staticmethod, classmethod)):
            part = part.func if isinstance(part, functools.partial) else part.__func__
        part = inspect.unwrap(part) if callable(part) else part
        if isinstance(part, FunctionType) and part not in (*found, unchanged, passed):
            found.append(part)
    if not found:
        known = target is unchanged or target is passed
        what = "is known to the engine, which never calls it" if known else "has no Python text"
        raise LabError(f"{getattr(target, '__name__', repr(target))} {what}: name a function written in Python")
    return found


class _Text(NamedTuple):
    """The lines of a file, and where in them a statement begins (from 1) and ends."""

    file: str
    lines: tuple[str, ...]
    first: int
    last: int

    @property
    def statement(self) -> str:
        """The statement as it stands there."""
        return "".join(self.lines[self.first - 1 : self.last])

    def edited(self, edits: Mapping[str, str]) -> str:
        """The whole file, with each old piece replaced in the statement, all at once."""
        made = re.sub("|".join(map(re.escape, edits)), lambda match: edits[match[0]], self.statement)
        return "".join([*self.lines[: self.first - 1], made, *self.lines[self.last :]])


def _refuse_another(function: FunctionType) -> None:
    if function in _on:
        raise LabError(f"{function.__name__} has a mistake already, {_on[function].name!r}: leave that `with` first")


def _text_of(function: FunctionType) -> _Text:
    code = function.__code__
    try:
        lines, _ = inspect.findsource(code)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError):
        raise LabError(f"the text of {function.__name__} is not there: define it in a file or a notebook") from None
    spans = []
    for node in ast.walk(tree):  # from the outside in, so that the outer of two statements in one line comes first
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *[d.lineno for d in getattr(node, "decorator_list", [])]])
            if first <= code.co_firstlineno <= (node.end_lineno or first):
                spans.append((first, node.end_lineno or first))
    first, last = min(spans, key=lambda span: span[1] - span[0], default=(1, len(lines)))
    return _Text(code.co_filename, tuple(lines), first, last)


def _planned(called: str, functions: list[FunctionType], edits: Mapping[str, str]) -> tuple[_Text, list[Swap]]:
    """The text that holds all old pieces, and the code to swap, for the functions that stand in it."""
    texts = {function: _text_of(function) for function in functions}
    text = next((t for t in texts.values() if all(old and old in t.statement for old in edits)), None)
    if text is None:
        statement = texts[functions[0]].statement
        missing = next((o for o in edits if not any(o in t.statement for t in texts.values())), next(iter(edits)))
        raise LabError(f"{called} does not contain {missing!r}; its text is\n{textwrap.dedent(statement)}")
    try:
        right = compile("".join(text.lines), text.file, "exec", dont_inherit=True)
        wrong = compile(text.edited(edits), text.file, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise LabError(f"{' and '.join(map(repr, edits.values()))} in {called} is no Python: {error.msg}") from None
    pairs = list(_pairs(right, wrong))
    swaps = []
    for function in [function for function, own in texts.items() if own == text]:
        live = function.__code__
        _refuse_another(function)
        pair = next((pair for pair in pairs if _place(pair[0]) == _place(live)), None)
        if pair is None:
            raise LabError(f"the text of {called} in {_shortened(text.file)} is not what runs: was it edited since?")
        if _meaning(pair[1]) != _meaning(live):
            if pair[1].co_freevars != live.co_freevars:
                raise LabError(f"{called} would use other variables of the function around it, which cannot be changed")
            if _interface(pair[1]) != _interface(live):
                raise LabError(f"{called} would take other arguments, and its callers would not know: change its body")
            swaps.append((function, live, pair[1]))
    if not swaps:
        raise LabError(
            f"{called} would run as before: {', '.join(map(repr, edits.values()))} changes no function that is there. "
            "(A rule `unchanged` is none, and a default is read once: change the body of a function)"
        )
    return text, swaps


def _pairs(right: CodeType, wrong: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The functions of two versions of a text that are each other's: as many of a name in both, in their order."""
    yield right, wrong
    inside = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (right, wrong)]
    for name in dict.fromkeys(c.co_name for c in inside[0]):
        ours, theirs = ([c for c in codes if c.co_name == name] for codes in inside)
        if len(ours) == len(theirs):
            for pair in zip(ours, theirs):
                yield from _pairs(*pair)


def _place(code: CodeType) -> tuple[Any, ...]:
    """Which function of a file it is; lambdas in one line are told apart by their columns."""
    return code.co_name, code.co_firstlineno, code.co_code, tuple(code.co_positions())


def _meaning(code: CodeType) -> tuple[Any, ...]:
    """What it does, wherever it stands."""
    consts = tuple(_meaning(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, consts, _interface(code)


def _interface(code: CodeType) -> tuple[Any, ...]:
    """What it takes: its parameters, and the variables around it."""
    count = code.co_argcount + code.co_kwonlyargcount
    own_flags = code.co_flags & KINDS
    return code.co_varnames[:count], code.co_argcount, code.co_posonlyargcount, own_flags, code.co_freevars


def _shortened(file: str) -> str:
    parts = Path(file).parts
    return "/".join(parts[-2:]) if len(parts) > 2 and Path(file).is_absolute() else file
