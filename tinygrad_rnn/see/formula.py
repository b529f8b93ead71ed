"""Formulas: what LaTeX shows of a function is made by running that very function on symbols.

A `Formula` stands where an array or a Tensor would. It carries a sample value, so that code that looks at shapes
works, and so that a test can hold the formula against numbers.

The notation of a primitive is its `latex` template: `{name}`, for the name of an array or an option, is where that
one stands; all other braces are LaTeX's own. Parentheses are added where precedence asks for them, which is seen
from the template itself. Without a template the notation is the name applied to the arrays, as in relu(x).
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..core.primitive import Primitive
from ..core.tensor import Tensor
from ..functions.methods import operators
from ..transforms import tangent
from .notation import accented, identifier, latex_name, literal, plain, subscripted

RELATION, SUM, MINUS, BIG, PRODUCT, POWER, ATOM = range(7)
"""How tightly the parts of a formula hold together, from loose to tight; BIG is a sign in front, such as a sum's."""

NEEDS = {RELATION: SUM, SUM: SUM, MINUS: BIG, BIG: PRODUCT, PRODUCT: PRODUCT, POWER: ATOM, ATOM: RELATION}
"""What holds together in such a way needs parts that hold together at least so tightly."""

SLOT, GROUP = "\ue000", "\ue001"
"""What stands for a slot and for a pair of brackets in the outline of a template."""

NUMBERS = {r"\frac{2}{\sqrt{\pi}}": 2 / math.sqrt(math.pi), r"\frac{1}{\sqrt{2}}": math.sqrt(0.5),
           r"\frac{1}{\sqrt{2 \pi}}": 1 / math.sqrt(2 * math.pi), r"\infty": math.inf}  # fmt: skip


class Formula:
    """A symbol, or a primitive applied to formulas and numbers; `latex` is how it is written, `print` shows it as text.

    value: a bare array (or number) that the symbol could stand for.
    """

    __slots__ = ("args", "op", "options", "symbol", "value")
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(
        self, symbol: str, value: Any, op: Primitive | None = None,
        args: Sequence[Any] = (), options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.symbol, self.value, self.op, self.args, self.options = symbol, value, op, tuple(args), dict(options or {})

    inputs = property(lambda self: self.args, doc="As a node of the tape calls them.")
    shape = property(lambda self: self.value.shape, doc="That of the sample value.")
    dtype = property(lambda self: self.value.dtype, doc="That of the sample value.")
    ndim = property(lambda self: self.value.ndim, doc="That of the sample value.")
    backend = "numpy"

    def __apply_primitive__(self, op: Primitive, args: Sequence[Any], options: Mapping[str, Any]) -> Formula:
        """What the engine calls where it would have run a kernel on arrays."""
        plain = {name: _value(option) for name, option in options.items()}
        return Formula("", op.function(*[_value(x) for x in args], **plain), op, args, options)

    @property
    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        return self.written({})

    def written(self, names: Mapping[Formula, str]) -> str:
        """The same, with the parts that have a name in `names` written as that."""
        return _written(self, {id(part): name for part, name in names.items()}).text

    def _repr_latex_(self) -> str:
        return f"${self.latex}$"

    def __str__(self) -> str:
        return plain(self.latex)

    def __repr__(self) -> str:
        return f"<Formula {self.latex}>"


operators(Formula)


def symbol(name: str, value: Any) -> Formula:
    """A symbol: `name` is an identifier or LaTeX; value: what it could stand for."""
    return Formula(identifier(name), value if isinstance(value, np.ndarray) else np.asarray(value))


def derivative_formulas(
    op: Primitive, args: Sequence[Any], options: Mapping[str, Any] | None = None, *, seed: int = 0
) -> tuple[Formula, Formula, dict[str, Any]]:
    """Run a primitive and each of its rules on symbols.

    args, options: sample values to call it with; their shapes decide where a rule looks at shapes. Options that
        are floats appear under their names.
    Returns the result y, the incoming gradient ȳ (a symbol whose value is drawn with `seed`), and by the array's name
    what the rule makes of ȳ: a Formula, a number, or for a list of arrays a list.
    """
    options = {**op.defaults, **(options or {})}
    shown = {k: symbol(k, v) if isinstance(v, float) else v for k, v in options.items()}
    names = [f"{op.arrays[-1][0]}_{i + 1}" for i in range(len(args))] if op.variadic else list(op.arrays)
    symbols = [symbol(name, value) for name, value in zip(names, args, strict=True)]
    result = symbols[0].__apply_primitive__(op, symbols, shown)
    y = symbol("y", result.value)
    g = symbol(r"\bar{y}", np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype))
    return result, g, {name: applied(op, name, g, y, symbols, shown) for name in op.rules}


def applied(
    op: Primitive, name: str, g: Formula, y: Formula, symbols: Sequence[Any], options: Mapping[str, Any]
) -> Any:  # fmt: skip
    """What the rule of one array makes of the gradient g, on symbols; for a list of arrays a list."""
    known = {"g": g, "y": y, **options}
    known |= {op.arrays[-1]: list(symbols)} if op.variadic else dict(zip(op.arrays, symbols))
    rule = op.rules[name]
    made = rule(g, *[known[need] for need in list(inspect.signature(rule).parameters)[1:]])
    return list(made) if isinstance(made, tuple) else made


class Local(NamedTuple):
    """What one node of a tape computes, and what it makes of its gradient, as LaTeX.

    result: the formula of its value. slopes: by the place of an argument, the contribution to its gradient, as a
    formula of the node's own gradient, which has a bar over its name.
    """

    result: str
    slopes: dict[int, str]


def local(node: Tensor, names: Mapping[int, str] | None = None, name: str = "y") -> Local:
    """The formulas of one node: its primitive and its rules, run on symbols.

    names: LaTeX for its arguments by their place; those left out have the name of the argument. name: of the node.
    A fused primitive has no formula but its name. Nor has a rule of a user's that takes no symbols.
    """
    op, inputs = node.op, node.inputs or ()
    assert op is not None
    if op.vjp:
        return Local(_named(op), {})
    symbols = _symbols(node, names or {})
    y = Formula(name, np.ones(node.shape, node.dtype))
    g = Formula(accented("bar", name), y.value)
    slopes: dict[int, str] = {}
    for argument in op.rules:
        try:
            with np.errstate(all="ignore"):
                made = applied(op, argument, g, y, symbols, node.options)
        except Exception:  # a rule of a user's may do what only arrays can
            continue
        places = range(len(inputs)) if op.variadic else [op.arrays.index(argument)]
        each = zip(places, made if op.variadic else [made])
        slopes |= {i: _written(slope, {}).text for i, slope in each if isinstance(inputs[i], Tensor)}
    return Local(Formula("", y.value, op, symbols, node.options).latex, slopes)


def moving(node: Tensor, places: Sequence[int], names: Mapping[int, str] | None = None, name: str = "y") -> str:
    """How the tangent of one node follows from those of its inputs: the law of forward mode, run on symbols.

    places: of the inputs that move; the tangent of each is its name with a dot. names, name: as for `local`.
    Of what is neither linear, bilinear nor elementwise, the Jacobian times the tangent.
    """
    op, symbols = node.op, _symbols(node, names or {})
    assert op is not None
    dots = {i: Formula(accented("dot", symbols[i].symbol), symbols[i].value) for i in places}
    if op.kind != "general":
        ways: dict[int, Formula] = dict(dots)
        if op.kind == "linear":  # in all arrays together: what stands still has its place too
            ways |= {
                i: Formula("0", x.value * 0) for i, x in enumerate(symbols) if isinstance(x, Formula) and i not in dots
            }
        stand_in = Formula(name, np.ones(node.shape, node.dtype), op, symbols, node.options)
        try:
            with np.errstate(all="ignore"):
                return _written(tangent(stand_in, list(ways.items())), {id(stand_in): name}).text
        except Exception:  # as above
            pass
    return " + ".join(rf"{jacobian(node, symbols[i].symbol)} \cdot {dot.symbol}" for i, dot in dots.items())


class Formulas:
    """The formulas of a tape, with the names of its tensors, each worked out once.

    names: by age. All is LaTeX; `as_text` spells names letter by letter, as `plain` gives them back.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self._known: dict[tuple[int, bool], Local] = {}

    def name(self, t: Tensor, as_text: bool, accent: str = "") -> str:
        """What a tensor is called; with an accent ("bar", "dot"), its gradient or its tangent."""
        latex = (literal if as_text else latex_name)(self.names[t.age])
        return accented(accent, latex) if accent else latex

    def inputs(self, t: Tensor, as_text: bool) -> dict[int, str]:
        """The names of the tensors among the inputs of a node, by their place."""
        return {i: self.name(x, as_text) for i, x in enumerate(t.inputs or ()) if isinstance(x, Tensor)}

    def of(self, t: Tensor, as_text: bool) -> Local:
        """The formulas of one node."""
        key = t.age, as_text
        if key not in self._known:
            self._known[key] = local(t, self.inputs(t, as_text), self.name(t, as_text))
        return self._known[key]

    def contribution(self, node: Tensor, place: int, x: Tensor, as_text: bool) -> str:
        """What a node adds to the gradient of its input x: its rule, or if that has no formula, a product."""
        found = self.of(node, as_text).slopes.get(place)
        if found is not None:
            return found
        return rf"{self.name(node, as_text, 'bar')} \cdot {jacobian(node, self.name(x, as_text))}"


def jacobian(node: Tensor, argument: str) -> str:
    """What stands for the partial derivatives of a node that has no formula. argument: the name of its input."""
    assert node.op is not None
    return rf"\frac{{\partial {_named(node.op)}}}{{\partial {argument}}}"


def _named(op: Primitive) -> str:
    return rf"\mathrm{{{op.name.replace('_', chr(92) + ' ')}}}"


def _symbols(node: Tensor, names: Mapping[int, str]) -> list[Any]:
    """What stands for the inputs of a node: a symbol of the name given for its place, or of the argument's name."""
    op, symbols = node.op, []
    assert op is not None
    for i, x in enumerate(node.inputs or ()):
        argument = f"{op.arrays[-1][0]}_{i + 1}" if op.variadic else identifier(op.arrays[i])
        symbols.append(Formula(names.get(i, argument), np.ones(x.shape, x.dtype)) if hasattr(x, "shape") else x)
    return symbols


def equations(step: Callable[..., Any], *args: Any, index: str = "t", **options: Any) -> dict[str, str]:
    """The lines of a cell's function, by the names of what it returns: {"z": "z_t = ...", "h": "h_t = ..."}.

    args, options: symbols, or tuples of them, as the function takes them; what it has returned earlier in the line
    of its results appears under its name in the later ones.
    """
    results = step(*args, **options)._asdict()
    lines: dict[str, str] = {}
    names: dict[Formula, str] = {}
    for name, formula in results.items():
        defined = subscripted(name, index)
        lines[name] = f"{defined} = {formula.written(names)}"
        names[formula] = defined
    return lines


def template(op: Primitive) -> str:
    """The notation of a primitive: its own, or its name applied to its arrays."""
    arrays = ", ".join(f"{{{name}}}" for name in op.arrays)
    return op.latex or rf"{_named(op)}({arrays})"


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Formula) else x


class _Text(NamedTuple):
    """A piece of LaTeX, how tightly it holds together, and the operation on its outside if that is a product."""

    text: str
    strength: int
    product: Primitive | None = None


def _written(x: Any, names: Mapping[int, str]) -> _Text:
    if not isinstance(x, Formula):
        text = _number(x)
        return _Text(text, MINUS if text.startswith("-") else ATOM)
    if id(x) in names:
        return _Text(names[id(x)], ATOM)
    if x.op is None:
        return _Text(x.symbol, ATOM)
    if x.op.name == "add" and (terms := [term for term in x.args if not _is_zero(term)]) and len(terms) < 2:
        return _written(terms[0], names)  # as where a cell has no bias
    if x.op.kind == "bilinear" and len(x.args) == 2 and _is_scalar(x.args[0]) != _is_scalar(x.args[1]):
        return _scaled(*(x.args if _is_scalar(x.args[0]) else x.args[::-1]), names)
    return _filled(x, names)


def _is_zero(x: Any) -> bool:
    return isinstance(x, (int, float)) and x == 0


def _is_scalar(x: Any) -> bool:
    """A plain number, or the symbol of one: such factors stand in front."""
    return not isinstance(x, Formula) or (x.op is None and x.value.ndim == 0)


def _scaled(number: Any, x: Formula, names: Mapping[int, str]) -> _Text:
    if _is_zero(number):
        return _Text("0", ATOM)
    factor, rest = _written(number, names), _written(x, names)
    text = f"({rest.text})" if rest.strength < PRODUCT else rest.text
    between = r" \cdot " if text[0].isdigit() else " "
    return _Text(factor.text + between + text, MINUS if factor.strength == MINUS else PRODUCT, rest.product)


def _number(x: Any) -> str:
    if isinstance(x, float) and not x.is_integer():
        for text, value in NUMBERS.items():
            if math.isclose(abs(x), value, rel_tol=1e-12):
                return "-" * (x < 0) + text
        return f"{x:.4g}"
    if isinstance(x, tuple):
        return ", ".join(map(_number, x))
    if isinstance(x, slice):
        ends = [x.start, x.stop] + ([x.step] if x.step not in (None, 1) else [])
        return ":".join("" if end is None else str(end) for end in ends)
    if hasattr(x, "shape"):
        return r"\cdot"
    return str(int(x)) if isinstance(x, (bool, int, float)) else r"\ldots" if x is ... else rf"\mathrm{{{x}}}"


class _Slot(NamedTuple):
    """A place in a template: whose it is, how tightly that has to hold together, and whether a minus may lead."""

    name: str
    needed: int
    first: bool


@cache
def _parsed(text: str, names: tuple[str, ...]) -> tuple[tuple[str | _Slot, ...], int]:
    """A template as pieces and slots, and the strength of the whole: what each slot needs follows from its bracket."""
    tokens = re.findall(rf"\{{(?:{'|'.join(names)})\}}|\\[A-Za-z]+|\\.|.", text, flags=re.S)
    pieces: list[str | _Slot] = list(tokens)
    open_groups: list[list[tuple[int, str]]] = [[]]  # for each bracket that is open: its (place, token)
    for i, token in enumerate(tokens):
        if token[1:-1] in names and token[0] == "{":
            open_groups[-1].append((i, SLOT))
        elif token in ("{", "(", "[") or token in (r"\lfloor", r"\lVert", r"\lvert"):
            open_groups.append([])
        elif token in ("}", ")", "]") or token in (r"\rfloor", r"\rVert", r"\rvert"):
            _settle(open_groups.pop(), tokens, pieces)
            open_groups[-1].append((i, GROUP))
        else:
            open_groups[-1].append((i, token))
    strength = _settle(open_groups[0], tokens, pieces)
    return tuple(pieces), strength


def _settle(group: list[tuple[int, str]], tokens: list[str], pieces: list[str | _Slot]) -> int:
    """Work out the strength of what stands in one bracket, and with it what the slots in there need."""
    outline = "".join(token if len(token) == 1 else f"{token} " for _, token in group).strip()
    strength = _strength(outline)
    for i in [i for i, token in group if token == SLOT]:
        before = "".join(token for place, token in group if place < i).strip()
        needed = BIG if before.endswith("-") else NEEDS[strength]
        alone = outline == SLOT or "," in outline
        pieces[i] = _Slot(tokens[i][1:-1], RELATION if alone else needed, alone or not before)
    return strength


def _strength(outline: str) -> int:
    """How tightly something holds together, from its outline."""
    if re.search(r"[=<>]|\\(neq|leq|geq)\b", outline):
        return RELATION
    if re.match(r"-[^+-]*$", outline):
        return MINUS
    if re.search(r"[+-]", outline):
        return SUM
    if re.search(rf"\\(odot|cdot|times)|{SLOT}\s*{SLOT}", outline):
        return PRODUCT
    if re.search(rf"\\sum|\\[A-Za-z]+\s+{SLOT}", outline):
        return BIG
    return POWER if re.search(rf"{SLOT}\s*[\^_{GROUP}]", outline) else ATOM


def _filled(x: Formula, names: Mapping[int, str]) -> _Text:
    """The template of a primitive with its arguments put in, in parentheses where they need them."""
    op = x.op
    assert op is not None
    pieces, strength = _parsed(template(op), (*op.arrays, *op.defaults))
    arguments: dict[str, Sequence[Any]] = {name: [x.options[name]] for name in op.defaults}
    arguments |= {op.arrays[-1]: x.args} if op.variadic else {name: [a] for name, a in zip(op.arrays, x.args)}
    if len(pieces) == 1:  # the notation is the argument itself
        return _written(x.args[0], names)
    out, whole, product = "", strength, op if strength == PRODUCT else None
    for piece in pieces:
        if isinstance(piece, str):
            out += piece
            continue
        texts = []
        for inner in [_written(argument, names) for argument in arguments[piece.name]]:
            fits = inner.strength >= piece.needed
            if strength == PRODUCT and piece.needed == PRODUCT:
                if piece.first and inner.strength == MINUS:  # -a b is the same as -(a b)
                    fits, whole = inner.product in (None, op), MINUS if inner.product in (None, op) else PRODUCT
                fits = fits and (inner.product in (None, op) or inner.strength > PRODUCT)
            counted = strength == PRODUCT == inner.strength and inner.text[0].isdigit()  # a factor belongs in front
            if not piece.first and (inner.text[0] == "-" or counted):
                fits = False
            if strength == MINUS:
                product = inner.product
            texts.append(inner.text if fits else f"({inner.text})")
        text = ", ".join(texts)
        out += f" {text}" if re.search(r"\\[A-Za-z]+$", out) and text[0].isalpha() else text
    return _Text(out, whole, product)
