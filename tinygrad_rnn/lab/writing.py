"""Python for worksheets: an operation, or a derivative rule, as an expression that runs on NumPy arrays."""

from __future__ import annotations

import ast
import builtins
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from ..core.primitive import Primitive
from ..core.tensor import Tensor
from ..see.formula import Formula, applied
from ..see.summary import host

OPERATORS: dict[str, type[ast.operator]] = {
    "add": ast.Add, "sub": ast.Sub, "mul": ast.Mult, "div": ast.Div, "power": ast.Pow, "matmul": ast.MatMult,
}  # fmt: skip
COMPARISONS: dict[str, type[ast.cmpop]] = {
    "equal": ast.Eq, "not_equal": ast.NotEq, "less": ast.Lt, "less_equal": ast.LtE, "greater": ast.Gt,
    "greater_equal": ast.GtE,
}  # fmt: skip
COPIES = ("alias", "transfer")
"""What is on NumPy anyway, and needs no copy."""
PUBLIC = ("ops.elementwise", "ops.reductions", "ops.shapes", "ops.matmul", "core.broadcasting")
INNER = ("contract", "sum_to")
"""Primitives of those modules that have no public name."""
TAKEN = frozenset({"np", "tg", "drill", *keyword.kwlist, *dir(builtins)})


def identifiers(called: Mapping[int, str]) -> dict[int, str]:
    """By age, names that Python takes: all different, also from those of the gradients, which have d_ in front."""
    found: dict[int, str] = {}
    taken = set(TAKEN)
    for age, name in called.items():
        word = re.sub(r"\W+", "_", normalize("NFKC", name)).strip("_")
        word = next(w for w in (word, f"v_{word}", "v") if w.isidentifier())
        found[age] = unique = _unused(word, taken)
        taken |= {unique, f"d_{unique}"}
    return found


def _unused(word: str, taken: set[str]) -> str:
    number, unique = 1, word
    while not taken.isdisjoint({unique, f"d_{unique}"}):
        number += 1
        unique = f"{word}_{number}"
    return unique


class Writer:
    """Writes the operations of one tape. given: by name, what has no text in Python, such as an array in an index."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names, self.given = names, dict[str, Any]()
        self._known: dict[int, tuple[str, Any]] = {}  # by id; with the value, so that it stays, and its id with it
        self._taken = {*TAKEN, *names.values(), *[f"d_{name}" for name in names.values()]}

    def forward(self, node: Tensor) -> str:
        """How a node is computed."""
        assert node.op is not None
        args = [self._name(x) if isinstance(x, Tensor) else self._literal(x, "number") for x in node.inputs or ()]
        return ast.unparse(self._call(node.op, args, node.options))

    def contribution(self, node: Tensor, place: int, g: Any) -> str | None:
        """What a node with the gradient g, an array, adds to that of an input: its rule. None if it has no formula."""
        op, inputs = node.op, node.inputs or ()
        assert op is not None
        if op.vjp:
            return None
        symbols = [Formula(self.names[x.age], host(x._array)) if isinstance(x, Tensor) else x for x in inputs]
        y, incoming = (Formula(f"{d}{self.names[node.age]}", host(a)) for d, a in (("", node._array), ("d_", g)))
        try:
            with np.errstate(all="ignore"):
                made = applied(op, op.arrays[0 if op.variadic else place], incoming, y, symbols, node.options)
            return ast.unparse(self._formula(made[place] if op.variadic else made))
        except Exception:  # a rule of a user's may do what only arrays can, and that of a checkpoint only Tensors
            return None

    def _formula(self, x: Any) -> ast.expr:
        if not isinstance(x, Formula):
            return self._literal(x, "number")
        if x.op is None:
            return ast.Name(x.symbol)
        return self._call(x.op, [self._formula(each) for each in x.args], x.options)

    def _name(self, x: Tensor) -> ast.expr:
        return ast.Name(self.names[x.age])

    def _call(self, op: Primitive, args: Sequence[ast.expr], options: Mapping[str, Any]) -> ast.expr:
        if op.trusted and op.name in OPERATORS:
            return ast.BinOp(args[0], OPERATORS[op.name](), args[1])
        if op.trusted and op.name in COMPARISONS:
            return ast.Compare(args[0], [COMPARISONS[op.name]()], [args[1]])
        if op.trusted and op.name == "neg":
            return ast.UnaryOp(ast.USub(), args[0])
        if op.trusted and op.name in COPIES:
            return args[0]
        if op.trusted and op.name == "index":
            key = options["key"]
            alone = key[0] if isinstance(key, tuple) and len(key) == 1 else key
            return ast.Subscript(args[0], self._literal(alone, "key", inside=True))
        if op.trusted and op.name == "transpose" and options["axes"] is None:
            return ast.Attribute(args[0], "T")
        named = [
            ast.keyword(name, self._literal(value, name))
            for name, value in options.items()
            if not _plainly_equal(value, op.defaults[name])
        ]
        arrays: list[ast.expr] = [ast.List(list(args))] if op.variadic else list(args)
        return ast.Call(self._function(op), arrays, named)

    def _function(self, op: Primitive) -> ast.expr:
        home = op.function.__module__.partition(".")[2]
        if op.trusted and home in PUBLIC and op.name not in INNER:
            return ast.Attribute(ast.Name("tg"), op.name)
        return self._as_given(op.function, op.name)

    def _literal(self, value: Any, name: str, inside: bool = False) -> ast.expr:
        """A plain value as it is written; whatever has no such form is given. inside: of square brackets."""
        if isinstance(value, (np.bool_, np.number)):
            value = value.item()
        if isinstance(value, (np.dtype, type)):
            return ast.Constant(np.dtype(value).name)
        if isinstance(value, tuple):
            return ast.Tuple([self._literal(each, name, inside) for each in value])
        if isinstance(value, slice):
            ends = [None if end is None else self._literal(end, name) for end in (value.start, value.stop, value.step)]
            if inside:
                return ast.Slice(*ends)
            return ast.Call(ast.Name("slice"), [ast.Constant(None) if end is None else end for end in ends], [])
        if isinstance(value, float) and not math.isfinite(value):
            found: ast.expr = ast.Attribute(ast.Name("np"), "nan" if math.isnan(value) else "inf")
            return ast.UnaryOp(ast.USub(), found) if value < 0 else found
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
            return ast.UnaryOp(ast.USub(), ast.Constant(-value))
        if value is None or value is ... or isinstance(value, (bool, int, float, str)):
            return ast.Constant(value)
        return self._as_given(value, name)

    def _as_given(self, value: Any, name: str) -> ast.expr:
        if id(value) not in self._known:
            word = _unused(name if name.isidentifier() else "given", self._taken)
            self._known[id(value)] = word, value
            self._taken.add(word)
            self.given[word] = host(value) if hasattr(value, "dtype") and hasattr(value, "shape") else value
        return ast.Name(self._known[id(value)][0])


def _plainly_equal(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and not hasattr(value, "shape") and value == default)
