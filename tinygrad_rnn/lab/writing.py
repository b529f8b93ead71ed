"""Python for worksheets: an operation, or a derivative rule, as an expression that runs on NumPy arrays."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from ..core.primitive import Primitive
from ..core.tensor import Tensor
from ..see.formula import Formula, applied
from ..see.summary import host

SIGNS = {
    "add": "a + b", "sub": "a - b", "mul": "a * b", "div": "a / b", "power": "a ** b", "matmul": "a @ b", "neg": "-a",
    "equal": "a == b", "not_equal": "a != b", "less": "a < b", "less_equal": "a <= b", "greater": "a > b",
    "greater_equal": "a >= b", "alias": "a", "transfer": "a",
}  # fmt: skip
"""The primitives that Python has a sign for, and those that leave an array of NumPy as it is."""
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
        return ast.unparse(self._call(node.op, node.inputs or (), node.options))

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
            return ast.unparse(self._written(made[place] if op.variadic else made))
        except Exception:  # a rule of a user's may do what only arrays can, and that of a checkpoint only Tensors
            return None

    def _written(self, x: Any) -> ast.expr:
        """A Tensor, a formula or a number."""
        if isinstance(x, Tensor):
            return ast.Name(self.names[x.age])
        if not isinstance(x, Formula):
            return self._literal(x, "number")
        return ast.Name(x.symbol) if x.op is None else self._call(x.op, x.args, x.options)

    def _call(self, op: Primitive, inputs: Sequence[Any], options: Mapping[str, Any]) -> ast.expr:
        args = list(map(self._written, inputs))
        if op.trusted and op.name in SIGNS:
            return _filled(SIGNS[op.name], args)
        if op.trusted and op.name == "transpose" and options["axes"] is None:
            return _filled("a.T", args)
        if op.trusted and op.name == "index":
            return ast.Subscript(args[0], self._key(options["key"]))
        named = [
            ast.keyword(name, self._literal(value, name))
            for name, value in options.items()
            if repr(value) != repr(op.defaults[name])
        ]
        return ast.Call(self._function(op), [ast.List(args)] if op.variadic else args, named)

    def _function(self, op: Primitive) -> ast.expr:
        home = op.function.__module__.partition(".")[2]
        if op.trusted and home in PUBLIC and op.name not in INNER:
            return ast.Attribute(ast.Name("tg"), op.name)
        return self._as_given(op.function, op.name)

    def _key(self, key: Any) -> ast.expr:
        """What stands in square brackets."""
        if isinstance(key, tuple):
            return self._key(key[0]) if len(key) == 1 else ast.Tuple(list(map(self._key, key)))
        if isinstance(key, slice):
            ends = (key.start, key.stop, key.step)
            return ast.Slice(*[None if end is None else self._literal(end, "key") for end in ends])
        return self._literal(key, "key")

    def _literal(self, value: Any, name: str) -> ast.expr:
        """A plain value as it is written; whatever has no such form is given."""
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, tuple):
            return ast.Tuple([self._literal(each, name) for each in value])
        if isinstance(value, slice):  # outside of brackets, such as the place of a part in a gradient
            ends = (value.start, value.stop, value.step)
            return ast.Call(ast.Name("slice"), [self._literal(end, name) for end in ends], [])
        if isinstance(value, (int, float)):  # a negative one is an operation to Python
            return _filled(re.sub("inf|nan", r"np.\g<0>", repr(value)))
        if isinstance(value, (np.dtype, type)):
            return ast.Constant(np.dtype(value).name)
        plain = value is None or value is ... or isinstance(value, str)
        return ast.Constant(value) if plain else self._as_given(value, name)

    def _as_given(self, value: Any, name: str) -> ast.expr:
        if id(value) not in self._known:
            word = _unused(name if name.isidentifier() else "given", self._taken)
            self._known[id(value)] = word, value
            self._taken.add(word)
            self.given[word] = host(value) if hasattr(value, "shape") else value
        return ast.Name(self._known[id(value)][0])


class _Filling(ast.NodeTransformer):
    def __init__(self, args: Sequence[ast.expr]) -> None:
        self.args = dict(zip("ab", args))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.args.get(node.id, node)


def _filled(text: str, args: Sequence[ast.expr] = ()) -> ast.expr:
    """An expression in which a and b are the arguments; parentheses come by themselves."""
    found: ast.expr = _Filling(args).visit(ast.parse(text, mode="eval").body)
    return found
