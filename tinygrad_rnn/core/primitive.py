"""The one definition form: a primitive is a forward kernel with the derivative of each argument above it.

    @primitive("elementwise", dx=lambda g, y: g * (1 - y * y))
    def tanh(xp, x):
        return xp.tanh(x)

Positional parameters are arrays, keyword-only ones are options; a parameter without a `d...` has no derivative.
A rule names what it needs: `g` (the incoming gradient) first, then `y` (the result), arrays or options by name.
It is written with operators and other primitives only, because the same rule runs on bare arrays (training),
on Tensors (higher derivatives) and on symbols (the formulas in docs and pictures).

A fused primitive does the work of many operations at once, its gradients too:

    @primitive("general", reference=by_operations, vjp=backward)
    def forward(xp, x, w, *, option): -> result, saved
    def backward(xp, g, y, saved, x, w, *, wanted, option): -> gradients, one for each array, None where not wanted

Both work on bare arrays. `reference` has the arrays and options of `forward` and computes the same of Tensors, by other
primitives: it says what is meant, and is what second derivatives, forward mode and unfolded pictures use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec

from ..backend import BACKEND_OF, NAMESPACE_OF, Array
from ..errors import ModifiedError, PrimitiveError, ShapeError
from .recording import recorder
from .tensor import Tensor

P = ParamSpec("P")
Pull = Callable[..., Any]
KINDS = ("linear", "bilinear", "elementwise", "general")
PRIMITIVES: dict[str, Primitive] = {}


def unchanged(g: Any) -> Any:
    """The rule of sums and their like: the gradient passes as it is."""
    return g


def passed(g: Any, node: Tensor) -> Any:
    """The same as it is wired: the engine knows it, and saves the call."""
    return g


class Primitive:
    """What is known of one primitive: the row of the table that everything else is derived from.

    function: what users call. kernel: the forward computation on bare arrays. rules: by the array's name.
    kind, analytic, domain, latex, reference, vjp, sparse: as `primitive` takes them. Forward mode (`transforms.push`)
        follows from the kind; a sparse `vjp` takes an `autodiff.Part`.
    """

    def __init__(
        self, kernel: Callable[..., Array], kind: str, rules: dict[str, Callable[..., Any]],
        analytic: bool, domain: tuple[float, float], latex: str | None,
        reference: Callable[..., Any] | None = None, vjp: Callable[..., Any] | None = None, sparse: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.kernel, self.kind, self.rules = kernel.__name__, kernel, kind, rules
        self.analytic, self.domain, self.latex = analytic, domain, latex
        self.reference, self.vjp, self.sparse = reference, vjp, sparse
        self.differentiable = bool(rules or vjp)
        self.trusted = str(kernel.__module__).startswith("tinygrad_rnn.")  # what users write is looked at as it runs
        self.kernels: dict[type, Callable[..., Array]] = {}
        parameters = list(inspect.signature(kernel).parameters.values())
        if not parameters or parameters.pop(0).name != "xp":
            raise PrimitiveError(f"{self.name}: the first parameter of a kernel is xp, the functions of NumPy or CuPy")
        self.arrays = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL))
        self.variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters)
        self.defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
        if kind not in KINDS:
            raise PrimitiveError(f"{self.name}: kind is one of {', '.join(KINDS)}, not {kind!r}")
        if (reference is None) != (vjp is None) or (vjp and (rules or self.variadic or kind != "general")):
            raise PrimitiveError(
                f"{self.name}: a fused primitive has both reference= and vjp=, no rules, the kind 'general' and "
                "arrays with names"
            )
        if strangers := rules.keys() - set(self.arrays):
            raise PrimitiveError(f"{self.name}: there is a rule d{strangers.pop()}, but its arrays are {self.arrays}")
        self.pulls = tuple(self._wired(name, recorded=False) for name in self.arrays)
        self.recorded_pulls = tuple(self._wired(name, recorded=True) for name in self.arrays)
        self.function = recorder(self)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def _wired(self, argument: str, recorded: bool) -> Pull | None:
        """The rule of one argument as a function of (g, node); `recorded` hands it Tensors instead of bare arrays."""
        rule = self.rules.get(argument)
        if rule is None or rule is unchanged:
            return rule and passed
        if not callable(rule):
            raise PrimitiveError(f"{self.name}: d{argument} is a function of g, not {rule!r}")
        first, *needs = [*inspect.signature(rule).parameters] or ["nothing"]
        rule = rule if self.trusted or self.variadic else _sane(rule, f"the rule d{argument} of {self.name}")
        if first != "g":
            raise PrimitiveError(f"{self.name}: the first parameter of d{argument} is g, the incoming gradient")
        readers = [self._reader(need, argument, recorded) for need in needs]
        if needs and needs[0] in self.arrays and not (needs[1:] or recorded or self.variadic):
            at, one = self.arrays.index(needs[0]), readers[0]

            def direct(g: Any, node: Tensor) -> Any:  # the commonest case written out: backward spends its time here
                x = node.inputs[at]  # type: ignore[index]
                if type(x) is Tensor:
                    return rule(g, x._array if x.modified < node.age else one(node))
                return rule(g, x)

            return direct
        match readers:
            case []:
                return lambda g, node: rule(g)
            case [one]:
                return lambda g, node: rule(g, one(node))
            case [one, two]:
                return lambda g, node: rule(g, one(node), two(node))
        return lambda g, node: rule(g, *[each(node) for each in readers])

    def _reader(self, need: str, argument: str, recorded: bool) -> Callable[[Any], Any]:
        """How to get from a node of the tape what a rule asks for by name. The only magic, and all of it."""
        if need == "y":
            return (lambda node: node) if recorded else lambda node: node._array
        if need in self.defaults:
            return lambda node: node.options[need]
        if need not in self.arrays:
            known = ", ".join(["g", "y", *self.arrays, *self.defaults])
            raise PrimitiveError(f"{self.name}: d{argument} asks for {need!r}; a rule may ask for {known}")
        # The derivative of a linear function depends on no number of its argument, only on the shape, which stays.
        shape_only = self.kind == "linear" and need in self.rules
        if self.variadic:
            return lambda node: [read(x, node, recorded, shape_only) for x in node.inputs]
        at = self.arrays.index(need)
        return lambda node: read(node.inputs[at], node, recorded, shape_only)

    def has_rule(self, place: int) -> bool:
        """Whether there is a derivative for the argument at this place."""
        return self.vjp is not None or self.pulls[min(place, len(self.pulls) - 1)] is not None

    def kernel_for(self, array_type: type) -> Callable[..., Array]:
        """The kernel for a type of array, without `xp`: the backend's own for this primitive, or the primitive's."""
        found = self.kernels.get(array_type)
        if found is None:
            xp = NAMESPACE_OF[array_type]
            own = xp.kernels.get(f"{self.kernel.__module__}.{self.name}")
            kernel = self.kernel
            if not (self.trusted or self.vjp):
                kernel = _sane(kernel, f"the kernel of {self.name}")
            if getattr(own, "partial", False):  # the backend's own knows some dtypes only
                own = _first_of(own, partial(kernel, xp))
            found = BACKEND_OF[array_type].guarded(self.name, own or partial(kernel, xp))
            self.kernels[array_type] = found
        return found

    def bind(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Options given by position, as NumPy allows (`x.sum(0)`), get their names, the others their defaults."""
        count = len(self.arrays)
        if self.variadic and args and isinstance(args[0], (list, tuple)):  # concatenate([a, b], 1)
            args, extra = tuple(args[0]), args[1:]
        elif self.variadic:
            args, extra = args, ()
            if len(args) == 1 and type(args[0]) is Tensor and inspect.Parameter.empty not in self.defaults.values():
                raise ShapeError(f"{self.name} takes a list of arrays; tg.unstack(x) gives the slices of x")
        else:
            args, extra = args[:count], args[count:]
        if len(extra) > len(self.defaults):
            raise PrimitiveError(f"{self.name} takes {count} arrays and {len(self.defaults)} options, not more")
        options = {**self.defaults, **dict(zip(self.defaults, extra)), **options}
        for name, value in options.items():
            if name not in self.defaults:
                raise PrimitiveError(
                    f"{self.name} takes no option {name!r}; its options are {', '.join(self.defaults)}"
                )
            if value is inspect.Parameter.empty:
                raise PrimitiveError(f"{self.name} needs the option {name}=")
            if type(value) is Tensor:
                raise PrimitiveError(f"{self.name}: the option {name}= is a plain value, not a Tensor")
            if isinstance(value, list) or type(value) in BACKEND_OF:  # what is recorded must not change later
                options[name] = tuple(value) if isinstance(value, list) else value.copy()
        return args, options


def _first_of(one: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """What one function returns, or where it does not know how to, the other."""

    def run(*args: Any, **options: Any) -> Any:
        result = one(*args, **options)
        return other(*args, **options) if result is NotImplemented else result

    return run


def _sane(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        if not hasattr(result, "dtype"):
            raise PrimitiveError(f"{what} returned a {type(result).__name__}, not an array")
        return result

    return run


def read(x: Any, node: Tensor, recorded: bool, shape_only: bool = False) -> Any:
    """An input as a rule sees it, provided that nobody has given it new numbers since the operation read it."""
    if type(x) is not Tensor:
        return x
    if x.modified > node.age and not shape_only:
        name, at = node.op.name if node.op else "", f" at {node.source}" if node.source else ""
        raise ModifiedError(
            f"{name}{at} used {x.label}, which was changed afterwards, so that its derivative is lost: "
            "call backward() before assign_(), or assign to a copy"
        )
    return x if recorded else x._array


def primitive(
    kind: str,
    *,
    analytic: bool = True,
    domain: tuple[float, float] = (-2.0, 2.0),
    latex: str | None = None,
    reference: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    sparse: bool = False,
    **rules: Callable[..., Any],
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Tensor]]:
    """Make a primitive of a forward kernel with the derivative of each argument above it.

        @tg.primitive("elementwise", dx=lambda g, y: g * (1 - y * y))
        def my_tanh(xp, x):
            return xp.tanh(x)

    A kernel takes `xp`, the functions of NumPy or CuPy, then arrays; keyword-only parameters are options.

    kind: "linear" (in all its arrays together), "bilinear" (in each array while the others stand still),
        "elementwise" (element by element, arrays broadcast) or "general". Forward mode follows from it.
    rules: d and the name of an array: its derivative. A rule takes `g`, the incoming gradient, then what it names of
        `y` (the result), the arrays and the options, and is written with operators and other primitives.
    analytic: whether it is differentiable in the complex sense, so that the complex step can check it.
    domain: (low, high) of the numbers that tests and docs sample from.
    latex: its notation, with the arguments' names in braces; None is its name applied to the arguments.
    reference, vjp: make it a fused primitive, as the first lines of `core/primitive.py` say: the kernel returns
        (result, saved), `vjp(xp, g, y, saved, *arrays, wanted=..., **options)` the gradients, and `reference` computes
        the same of Tensors by other primitives.
    sparse: whether `vjp` takes a gradient that is zero outside of an index as the part that it comes as.

    Returns a decorator, which gives the function that users call.

    Raises: PrimitiveError at definition, when a rule asks for something that is not there, and so on.
    """
    if not isinstance(kind, str):
        raise PrimitiveError(f"write @primitive(kind, ...) with one of the kinds {', '.join(KINDS)}")
    if wrong := [name for name in rules if not name.startswith("d")]:
        raise PrimitiveError(f"a rule is called d and the argument's name, such as dx, not {wrong[0]!r}")

    def define(kernel: Callable[Concatenate[Any, P], Any]) -> Callable[P, Tensor]:
        own = {name[1:]: rule for name, rule in rules.items()}
        op = Primitive(kernel, kind, own, analytic, domain, latex, reference, vjp, sparse)
        signature = inspect.signature(kernel)
        attributes = {
            "__name__": op.name, "__qualname__": op.name, "__module__": kernel.__module__, "__doc__": kernel.__doc__,
            "__signature__": signature.replace(parameters=list(signature.parameters.values())[1:]), "primitive": op,
        }  # fmt: skip
        for name, value in attributes.items():
            setattr(op.function, name, value)
        # A code object of its own: profiles tell primitives apart, and the interpreter specialises each for itself.
        op.function.__code__ = op.function.__code__.replace(co_name=op.name)
        PRIMITIVES[op.name] = op
        return op.function

    return define
