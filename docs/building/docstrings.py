"""The docstrings of the package as the reference shows them: its plain form in, what Sphinx reads out.

A line such as `x, y: what they are`, with its continuation indented, is the entry of a list, and so is `Raises:`;
`code` stands between single backticks, and leads to what it names where the reference has that, as the names of
errors do; a block that is indented as a whole is code. A primitive also gets its formulas, which its rules write.
"""

from __future__ import annotations

import builtins
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import getmodule, isroutine, signature
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

import tinygrad_rnn
from building import tables
from tinygrad_rnn import errors, interop, lab, nn, optim, see, train
from tinygrad_rnn.core.primitive import Primitive
from tinygrad_rnn.nn import equations, initializers
from tinygrad_rnn.see import flow
from tinygrad_rnn.see.formula import derivative_formulas
from tinygrad_rnn.see.notation import identifier

PLAIN = re.compile(r"<(?:class|function) '?(?:\w+\.)*(\w+)'?(?: at 0x\w+)?>")
"""A class or a function as the default of a parameter, in Python's words."""
NAME = r"\*{0,2}(?!(?!Raises|Returns)[A-Z][a-z])\w+(?:\.\w+)*=?(?: \([A-Z][^)]*\))?"
ENTRY = re.compile(rf"(?P<names>Raises(?: \([^)]*\)|, [\w ]+)|{NAME}(?:, (?:and )?{NAME})*): (?P<words>\S.*)")
"""The start of an entry: one or several names, perhaps with their shapes, and what is said of them."""
ANOTHER = re.compile(rf"(?<=[.;]) (?={NAME}(?:, {NAME})*: )")
"""Where a line that is an entry goes on with the next."""
ROOMS: tuple[ModuleType, ...] = (
    nn,
    optim,
    train,
    flow,
    see,
    interop,
    lab,
    errors,
    equations,
    initializers,
    tinygrad_rnn,
)
MEMBERS = ("method", "property", "attribute")
ERRORS = {name for name, thing in vars(errors).items() if isinstance(thing, type)}
ERROR = re.compile(rf"(?<![\w`.])({'|'.join(sorted(ERRORS - {'AxisError'}, key=len, reverse=True))})(?![\w`])")


@dataclass(frozen=True)
class Place:
    """Where a docstring stands: the thing that it belongs to, and the full name of the class around that, if any."""

    thing: Any = None
    owner: str = ""

    def target(self, name: str) -> str | None:
        """Where the reference has what a name means here: "tinygrad_rnn.nn.GRU" for `GRU`."""
        if not re.fullmatch(r"\.?[A-Za-z]\w*(\.[A-Za-z]\w*)*", name):
            return None
        first, *rest = name.removeprefix(".").split(".")
        if first in self.members:
            return None if rest else f"{self.owner}.{first}"
        if name[0] != "." and first in self.parameters:
            return None
        if first in ("tg", "tinygrad_rnn"):
            first, *rest = rest or [first]
            return reached(vars(tinygrad_rnn), first, rest)
        spaces = [vars(getmodule(self.thing) or builtins), *map(vars, ROOMS)] if name[0] != "." else []
        known = next((found for space in spaces if (found := reached(space, first, rest))), None)
        return known or reached({"Tensor": tinygrad_rnn.Tensor}, "Tensor", [first, *rest])

    @property
    def members(self) -> set[str]:
        """What the class around it has, declared or given."""
        if not self.owner:
            return set()
        owner = pkgutil.resolve_name(self.owner)
        return {*dir(owner), *(name for each in owner.mro() for name in vars(each).get("__annotations__", ()))}

    @property
    def parameters(self) -> set[str]:
        """What a name means before anything else."""
        try:
            return set(signature(self.thing).parameters)
        except (TypeError, ValueError):
            return set()


def reached(space: Mapping[str, Any], first: str, rest: list[str]) -> str | None:
    """Where the reference has what is reached from a namespace by names; members are named after their class."""
    owner, at = None, space.get(first)
    for part in rest:
        owner, at = at, getattr(at, part, None)
    if at is not None and isinstance(owner, type):
        return (place := place_of(owner)) and f"{place}.{rest[-1]}"
    return place_of(at)


def rewritten(lines: list[str], place: Place = Place()) -> list[str]:
    """A docstring in Sphinx' language."""
    found: list[str] = []
    kind = "text"  # what the lines before belong to: text, an entry, or code
    for line in lines:
        indented, words = line.startswith((" ", "\t")), line.strip()
        if not words:
            found.append("")
            kind = "text" if kind == "entry" else kind
        elif indented and (kind == "code" or (kind == "text" and (not found or not found[-1]))):
            found += ["::", ""] if kind != "code" else []
            found.append(f"    {line}")
            kind = "code"
        elif indented:
            found += entries(words, found, place) if kind == "entry" else [plain(words, place)]
        else:
            within = kind == "text" and bool(found) and found[-1][-1:] not in ("", ".", ":")  # a sentence goes on
            entry = not within and ENTRY.fullmatch(words)
            found += [""] if kind != "text" and not entry else []
            kind = "entry" if entry else "text"
            found += entries(words, found, place) if kind == "entry" else [plain(words, place)]
    return [*found, ""]


def entries(words: str, before: list[str], place: Place) -> list[str]:
    """One line of entries, of which each after the first may start within it; or of the words of one."""
    found: list[str] = []
    for part in ANOTHER.split(words):
        entry = ENTRY.fullmatch(part)
        if entry is None:
            found.append(f"    {plain(part, place)}")
            continue
        last = (found or before or [""])[-1]
        heading = entry["names"]
        if not heading.startswith(("Raises", "Returns")):
            heading = re.sub(r"[\w.*=]+(?![^(]*\))", r"``\g<0>``", heading)
        found += [*([""] if last else []), heading, f"    {plain(entry['words'], place)}"]
    return found


def plain(words: str, place: Place = Place()) -> str:
    """Text whose stars, bars and underscores are only themselves, and whose code and errors lead to what they name."""
    pieces = re.split(r"(`[^`]+`)", words)
    shown = "".join(code(each[1:-1], place) if each.startswith("`") else text(each) for each in pieces)
    return (
        rf"\{shown}" if re.match(r"(\w|\d+|[ivxlcdm]+)[.)](\s|$)", shown, re.I) else shown
    )  # "V." would begin a list that is numbered


def text(words: str) -> str:
    """What stands between pieces of code: the names of our errors lead to what they mean."""
    escaped = re.sub(r"([*|_\\])", r"\\\1", words)
    linked = re.sub(r"docs/(\w+)\.md", lambda page: f":doc:`/{page[1]}`", escaped)
    return ERROR.sub(r":py:class:`~tinygrad_rnn.errors.\1`", linked)


def code(words: str, place: Place) -> str:
    """A piece of code, which leads to what it names."""
    target = place.target(words.removesuffix("()"))
    return f":py:obj:`{words} <{target}>`" if target else f"``{words}``"


def place_of(thing: Any) -> str | None:
    """The name under which the reference has a thing."""
    name, home = getattr(thing, "__name__", ""), str(getattr(thing, "__module__", ""))
    for room in ROOMS:
        public = name in room.__all__ if hasattr(room, "__all__") else home == room.__name__ or room is tinygrad_rnn
        if name and public and vars(room).get(name) is thing and not isinstance(thing, ModuleType):
            return f"{room.__name__}.{name}"
    return None


def formulas(op: Primitive) -> list[str]:
    """What a primitive computes and what its rules say, as the table of primitives has it."""
    arrays, options = tables.sample(op)
    y, _, derivatives = derivative_formulas(op, arrays, options)
    if not derivatives:
        return [f":math:`{y.latex}`, without a gradient", ""]
    rules = []
    for name, made in derivatives.items():
        for i, each in enumerate(made if op.variadic else [made]):
            symbol = f"{{{name[0]}}}_{{{i + 1}}}" if op.variadic else identifier(name)
            rules.append(rf":math:`\bar{{{symbol}}} = {tables.written(each)}`")
    return [f":math:`y = {y.latex}`; {', '.join(rules)}", ""]


def rewrite(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Give Sphinx the docstring of one thing."""
    op = getattr(thing, "primitive", None)
    shown = formulas(op) if isinstance(op, Primitive) and not op.vjp else []
    owner = name if what == "class" else name.rpartition(".")[0] if what in MEMBERS else ""
    lines[:] = [*rewritten(lines, Place(thing, owner)), *shown]


def left_out(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what is a plain value on a class: the entries of its docstring say what it is."""
    plain_value = not isroutine(thing) and not hasattr(thing, "fget") and not hasattr(thing, "func")
    return True if what == "class" and plain_value else None


def shortened(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A signature whose defaults are called by their names."""
    return signature and PLAIN.sub(r"\1", signature).replace("<factory>", "{}"), returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-process-signature", shortened)
    app.connect("autodoc-skip-member", left_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
