"""Derivatives held against numbers: `gradcheck` names the first primitive whose rule is wrong.

The numbers come from the complex step, Im f(x + ih) / h with h = 1e-30, exact to rounding (Squire and Trapp 1998,
SIAM Review 40, 110-112), where every primitive on the way is analytic; else from central differences of fourth order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from .backend import Array, backend_of, random
from .core.autodiff import pullback, tape
from .core.modes import enable_grad, no_grad
from .core.tensor import Tensor, tensor
from .errors import GradcheckError
from .nn import options
from .nn.module import Module, replaced
from .ops.shapes import concatenate
from .transforms import push, recomputed

Function = Callable[..., Tensor]
STEP = 1e-30
ORDINALS = {1: "first", 2: "second", 3: "third"}
SUM, RANDOM = " (of the sum of the result)", " (weighted by random numbers)"
"""What the two numbers in a message are, where they are no plain slopes."""
KINK = "; this may be a kink, where a derivative is a choice (docs/semantics.md): check away from it"


def gradcheck(f: Callable[..., Any], *xs: Any, order: int = 1, tolerance: float = 1e-9) -> None:
    """Check all derivatives that the tape of f(*xs) gives, first each primitive by itself, then f as a whole.

    f: takes Tensors and returns a Tensor, or a tuple of them. Random numbers from the package repeat in every call.
        Of a Module, such as a cell, the parameters are checked too, in a copy in float64.
    xs: tensors, arrays, lists or numbers, or tuples of arrays such as the states of a cell; the floating ones are
        converted to float64 and differentiated for, whatever else there is goes to f as it is. Keep them away from
        kinks and ties (relu at 0, equal maxima): there, differences see the mean of both sides, and the rule a choice
        (docs/semantics.md).
    order: 2 checks the derivatives of the derivatives as well, recorded against numbers from the fast path; and so on.
    tolerance: how far a derivative may be off, relative to the size of the terms that it is summed from.

    Each primitive is checked oldest first, at its very inputs, reverse and forward mode, so that the first complaint
    is about the cause and not about what it spoils. Then f end to end, which finds what no single rule can do wrong:
    gradients that overwrite each other, a broadcast that is not summed up.

    What a plain function takes from elsewhere stands still in the check of the whole; the primitives that read it are
    checked for it all the same. To check the weights of a module in it, make it a Module, or give the module itself.

    An own primitive is checked by calling it: `gradcheck(my_op, x, w)`, options with `functools.partial`.

    Raises: GradcheckError, naming the primitive, the argument, the element and both numbers: the derivatives of the sum
        of the result, or where that does not show the mistake, of its elements times random numbers. OptionError for
        an order below 1.
    """
    order = options.count("order", order)
    f, given = _apart(f, xs)
    names, arguments = list(given), [_doubled(x) for x in given.values()]
    moving = [i for i, x in enumerate(arguments) if type(x) is Tensor and x.dtype.kind == "f"]
    if not moving:
        raise GradcheckError("there is nothing to check: none of the arguments is a floating number or array")
    state = random.get_state()

    def run(*args: Any) -> Tensor:
        now = random.get_state()
        random.set_state(state)
        try:
            return packed(f(*args))
        finally:
            random.set_state(now)

    with enable_grad():
        y = run(*_leaves(arguments, moving))
    silent: set[str] = set()
    for node in reversed(tape(y)):
        if node.op is None or node.op.function is recomputed:
            continue  # a checkpoint is not a function of its inputs, but the memory of one: seen end to end
        inputs = list(node.inputs or ())
        wanted = [i for i, x in enumerate(inputs) if type(x) is Tensor and x.requires_grad]
        at = [i for i in wanted if node.op.has_rule(i)]
        silent |= {f"{node.op.name} has no derivative for {_names(node)[i]}" for i in wanted if i not in at}
        if at:
            args = [_doubled(x) if type(x) is Tensor else x for x in inputs]
            told = _names(node), _described(node), tolerance
            Check(partial(_again, node), args, at, *told, node.op.kind == "elementwise", node.op.trusted).run(order)
    try:
        Check(run, arguments, moving, names, "the function as a whole", tolerance).run(order)
    except GradcheckError as error:  # a rule that was forgotten cannot be checked by itself
        raise GradcheckError("; ".join([str(error), *sorted(silent)])) from error.__cause__


def _again(node: Tensor, *args: Any) -> Tensor:
    """The operation of a node of the tape, with other arguments."""
    op = node.op
    assert op is not None
    result: Tensor = op.function(*([args] if op.variadic else args), **node.options)
    return result


def _apart(f: Function, xs: Sequence[Any]) -> tuple[Function, dict[str, Any]]:
    """f as a function of single arrays, and these by name: tuples of arrays one by one, and a module's parameters."""
    several = [isinstance(x, tuple) and any(hasattr(part, "dtype") for part in x) for x in xs]
    given: dict[str, Any] = {}
    for i, (x, many) in enumerate(zip(xs, several)):
        given |= {f"argument {i}[{j}]": part for j, part in enumerate(x)} if many else {f"argument {i}": x}
    module = f if isinstance(f, Module) else Module()
    learned = dict(module.named_parameters())
    fixed = {id(t): _doubled(t) for _, t in module._named_state() if not t.requires_grad}

    def apart(*args: Any) -> Any:
        rest = iter(args)
        joined = [_rebuilt(x, islice(rest, len(x))) if many else next(rest) for x, many in zip(xs, several)]
        leaves = dict(zip(learned, rest))
        for name, leaf in leaves.items():
            leaf.name = name
        own = {id(learned[name]): leaf for name, leaf in leaves.items()}
        return (replaced(f, {**fixed, **own}) if f is module else f)(*joined)

    return apart, given | learned


def _rebuilt(like: tuple[Any, ...], parts: Iterable[Any]) -> tuple[Any, ...]:
    """A tuple of other parts, named if the first one was."""
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def packed(y: Any) -> Tensor:
    """One Tensor of everything in a tuple or list of Tensors, nested as you like."""
    if isinstance(y, (tuple, list)):
        return concatenate([packed(each).ravel() for each in y])
    if not isinstance(y, Tensor):
        raise GradcheckError(f"the function must return a Tensor or a tuple of them, not {type(y).__name__}")
    return y


@dataclass
class Check:
    """One function at one point: its derivatives for the arguments `moving`, to any order.

    pointwise: whether each element of the result depends on one of each argument. trusted: False looks whether the
    function is analytic, as the complex step believes.
    """

    function: Function
    args: list[Any]
    moving: list[int]
    names: list[str]
    what: str
    tolerance: float
    pointwise: bool = False
    trusted: bool = True

    def run(self, order: int) -> None:
        """Raises: GradcheckError, at the first order that is wrong."""
        self.rng = np.random.default_rng(0)
        fast = recorded = self.function
        args, moving, names, exact = list(self.args), list(self.moving), list(self.names), True
        for level in range(1, order + 1):
            ordinal = ORDINALS.get(level, f"{level}th")
            try:
                g, exact = self._level(fast, recorded, args, moving, names, ordinal, exact)
            except GradcheckError:
                raise
            except Exception as error:
                raise self._failed(f"{ordinal} derivative", error) from error
            # next, the gradients are themselves the function, of the same arguments and the gradient that came in
            fast, recorded = _gradients(recorded, moving, False), _gradients(recorded, moving, True)
            args, moving, names = [*args, g], [*moving, len(args)], [*names, "g"]

    def _level(
        self, fast: Function, recorded: Function, args: list[Any], moving: list[int], names: list[str],
        ordinal: str, exact: bool,
    ) -> tuple[Tensor, bool]:  # fmt: skip
        """One order of derivatives. Returns the random gradient that went in, and whether the complex step applies."""
        leaves = _leaves(args, moving)
        with enable_grad():
            y = recorded(*leaves)
        nodes = tape(y)
        exact = exact and all(node.op.analytic for node in nodes if node.op) and _takes_complex(fast, args, moving)
        epsilon = max(float(np.finfo(node.dtype).eps) for node in nodes if node.dtype.kind in "fc")
        if fast is not recorded:
            self._same_value(fast(*_leaves(args, moving)).numpy(), y.numpy(), ordinal)
        g = self._random(y)
        wrt = [leaves[i] for i in moving]
        found = [d.numpy() for d in self._pulled(y, wrt, [names[i] for i in moving], g, ordinal)]
        slope = partial(_slope, fast, args, moving, exact=exact, epsilon=epsilon)
        weight, noise = g.numpy(), 0.0
        allowed = self.tolerance if exact else max(self.tolerance, 100 * epsilon**0.8)
        if not exact:
            noise = 10 * epsilon**0.8 * float(np.abs(weight * y.numpy()).sum())
        ways, total = [self._random(x) for x in wrt], np.zeros(y.shape)
        for i, x, rule, way in zip(moving, wrt, found, ways, strict=True):
            change = slope(i, way.numpy())
            if exact and not self.trusted and fast is recorded:
                self._analytic(change, slope(i, way.numpy(), exact=False), names[i])
            total = total + change
            terms, numbers = rule * way.numpy(), weight * change
            if not _close(terms.sum(), numbers.sum(), allowed * (np.abs(terms).sum() + np.abs(numbers).sum()) + noise):
                bent = None if exact else partial(_bent, partial(_moved, fast, args, moving, i), epsilon)
                self._defined(y.numpy())
                self._wrong(y, x, names[i], g, ordinal, partial(slope, i), bent)
        if y.requires_grad:
            with no_grad():
                moved = push(y, list(zip(wrt, ways, strict=True))).numpy()
            size = float(np.abs(total).sum() + np.abs(moved).sum()) / max(1, total.size)
            if not np.all(np.abs(moved - total) <= allowed * (np.abs(moved) + np.abs(total) + size) + noise):
                which, hint = f"forward mode ({ordinal} order; follows from `kind`)", _guess(moved, total)
                self._complain(which, moved, total, exact, RANDOM, hint)
        return g, exact

    def _pulled(self, y: Tensor, wrt: Sequence[Tensor], names: Sequence[str], g: Tensor, ordinal: str) -> list[Tensor]:
        """The gradients for some arguments, zeros without a graph; if that fails, the first one that does is named."""
        if not y.requires_grad:
            return [tensor(np.zeros(x.shape), backend=x.backend) for x in wrt]
        try:
            return pullback(y, wrt, g)
        except Exception as error:
            if len(wrt) > 1:
                for x, name in zip(wrt, names, strict=True):
                    self._pulled(y, [x], [name], g, ordinal)
            raise self._failed(f"{ordinal} derivative for {names[0]}", error) from error

    def _failed(self, what: str, error: Exception) -> GradcheckError:
        hint = "; a rule uses operators and tg's functions, not NumPy's" if "ufunc" in str(error) else ""
        return GradcheckError(f"{self.what}: no {what}: {error}{hint}")

    def _wrong(
        self, y: Tensor, x: Tensor, name: str, g: Tensor, ordinal: str,
        slope: Callable[[np.ndarray], np.ndarray], bent: Callable[[np.ndarray, np.ndarray], bool] | None,
    ) -> NoReturn:  # fmt: skip
        """Complain of the derivative for one argument: of the sum of the result, if the mistake shows there too.

        bent: whether the result, weighted, has a kink in some direction; None where it is smooth for sure.
        """
        weights = tensor(np.ones(y.shape), backend=y.backend), g
        columns = (slope(_alone(element, x.shape)) for element in np.ndindex(x.shape))
        sums = np.array([[(each.numpy() * column).sum() for each in weights] for column in columns])
        rules = [self._pulled(y, [x], [name], each, ordinal)[0].numpy() for each in weights]
        numericals = [sums[:, at].reshape(x.shape) for at in (0, 1)]
        at = int(_near(rules[0], numericals[0]))
        rule, numerical, weight = rules[at], numericals[at], weights[at]
        kink = bent is not None and bent(_alone(_worst(rule, numerical), x.shape), weight.numpy())
        hint = KINK if kink else _guess(rule, numerical)
        plain = y.size == 1 or (self.pointwise and x.shape == y.shape)
        note = RANDOM if at or ordinal != ORDINALS[1] else "" if plain else SUM
        self._complain(f"the {ordinal} derivative for {name}", rule, numerical, bent is None, note, hint)

    def _defined(self, values: np.ndarray) -> None:
        """Refuse a point at which there is no derivative: what the numbers say there is nonsense."""
        if not np.isfinite(values).all():
            at = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
            raise GradcheckError(
                f"{self.what}: the result is {values[at]:.10g}{_at(at)}, where there is no derivative: "
                "check it where the function is defined"
            )

    def _random(self, like: Tensor) -> Tensor:
        return tensor(self.rng.uniform(-1, 1, like.shape), backend=like.backend)

    def _same_value(self, fast: np.ndarray, recorded: np.ndarray, ordinal: str) -> None:
        if not np.all(np.abs(fast - recorded) <= 1e-6 * (np.abs(fast) + np.abs(recorded)) + 1e-12):
            raise GradcheckError(
                f"{self.what}: the {ordinal} derivative is {_both(recorded, fast)} without create_graph=True{RANDOM}"
            )

    def _analytic(self, exact: np.ndarray, differences: np.ndarray, name: str) -> None:
        """Refuse a kernel that the complex step is wrong about: it would blame a right rule, and excuse a wrong one."""
        sizes = np.abs(exact) + np.abs(differences)
        if np.any(np.abs(exact - differences) > 1e-3 * (sizes + sizes.mean())):
            raise GradcheckError(
                f"{self.what}: for {name} the complex step gives {_both(exact, differences)} by central differences"
                f"{RANDOM}; where a kernel takes abs, compares or chooses, say analytic=False"
            )

    def _complain(
        self, which: str, rule: np.ndarray, numerical: np.ndarray, exact: bool, note: str, hint: str
    ) -> NoReturn:  # fmt: skip
        how = "the complex step" if exact else "central differences"
        raise GradcheckError(f"{self.what}: {which} is {_both(rule, numerical)} by {how}{note}{hint}")


def _gradients(function: Function, moving: Sequence[int], create_graph: bool) -> Function:
    """The function of (*args, g) that gives all gradients of `function` for the arguments `moving` in one Tensor."""

    def gradients(*args: Any) -> Tensor:
        with enable_grad():
            y = function(*args[:-1])
            wrt = [args[i] for i in moving]
            if y.requires_grad:
                return packed(pullback(y, wrt, args[-1], create_graph=create_graph))
            return packed([(x * 0).detach() for x in wrt])

    return gradients


def _moved(function: Function, args: list[Any], moving: list[int], at: int, change: np.ndarray) -> np.ndarray:
    """The value where `change` has been added to argument `at`."""
    shifted = list(args)
    for i in moving:
        array = args[i].numpy() + (change if i == at else np.zeros((), change.dtype))  # all of them complex, or none
        shifted[i] = _leaf(backend_of(args[i]._array).asarray(array), True)
    result: np.ndarray = function(*shifted).numpy()
    return result


def _takes_complex(function: Function, args: list[Any], moving: list[int]) -> bool:
    """Whether the kernels can do the complex step: some take real numbers only, or drop what is imaginary."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return np.iscomplexobj(_moved(function, args, moving, moving[0], np.array(STEP * 1j)))
    except (TypeError, NotImplementedError, np.exceptions.ComplexWarning):
        return False


def _slope(
    function: Function, args: list[Any], moving: list[int], at: int, way: np.ndarray, *, exact: bool, epsilon: float
) -> np.ndarray:
    """How the value changes when argument `at` moves along `way`."""
    value, way = partial(_moved, function, args, moving, at), np.asarray(way)
    if exact:
        return np.asarray(value(way * (STEP * 1j)).imag / STEP)
    step = epsilon**0.2
    near, far = value(step * way) - value(-step * way), value(2 * step * way) - value(-2 * step * way)
    return np.asarray((8 * near - far) / (12 * step))


def _bent(value: Callable[[np.ndarray], np.ndarray], epsilon: float, way: np.ndarray, weight: np.ndarray) -> bool:
    """Whether the slope along a way differs from side to side: where it is smooth, by as much as the step is long."""
    step, middle = epsilon**0.2, value(0 * way)
    far, near = ((weight * (value(h * way) - 2 * middle + value(-h * way))).sum() / h for h in (2 * step, step))
    noise = 100 * epsilon / step * np.abs(weight * middle).sum()
    return bool(abs(far - 2 * near) > 0.05 * abs(far) + noise)


def _close(a: float, b: float, allowed: float) -> bool:
    return bool(abs(a - b) <= allowed)


def _worst(rule: np.ndarray, numerical: np.ndarray) -> Any:
    """The element where they differ most; a NaN on either side is the worst."""
    off = np.abs(np.asarray(rule) - numerical)
    return np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)


def _both(rule: np.ndarray, numerical: np.ndarray) -> str:
    """Both numbers at the element where they differ most."""
    element = _worst(rule, numerical)
    return f"{rule[element]:.10g}{_at(element)}, and {numerical[element]:.10g}"


def _at(element: Sequence[Any]) -> str:
    return f" at element {tuple(int(i) for i in element)}" if len(element) else ""


def _alone(element: Any, shape: tuple[int, ...]) -> np.ndarray:
    """1 at one element, 0 elsewhere."""
    found = np.zeros(shape)
    found[element] = 1
    return found


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Element by element, whether two arrays agree as far as a guess goes."""
    return np.asarray(np.isclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b)[np.isfinite(b)].max(initial=0)))


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(_same(a, b).all())


def _guess(rule: np.ndarray, numerical: np.ndarray) -> str:
    """What kind of mistake it looks like."""
    wrong = ~_same(rule, numerical)
    if wrong.any() and not rule[wrong].any():
        where = "wherever it is wrong" if rule.any() else "everywhere"
        return f"; the rule gives 0 {where}, as if something in it were computed outside of the tape"
    if rule.ndim > 1 and _near(rule.swapaxes(-1, -2), numerical):
        return "; the rule gives the transpose of what it should"
    factor = float((rule * numerical).sum() / (numerical**2).sum()) if numerical.any() else 0.0
    if not _near(rule, factor * numerical) or (np.count_nonzero(numerical) == 1 and not _telling(factor)):
        return ""
    return "; the sign is wrong" if _near(-rule, numerical) else f"; off by a factor of {factor:.6g}"


def _telling(factor: float) -> bool:
    """Whether a factor says something even of a single number: a whole number, or one over one."""
    return any(abs(each - round(each)) < 1e-6 * abs(each) and round(each) for each in (factor, 1 / factor))


def _leaves(args: Sequence[Any], moving: Sequence[int]) -> list[Any]:
    """The same arguments as fresh leaves, those in `moving` with a gradient."""
    return [_leaf(x._array, i in moving) if type(x) is Tensor else x for i, x in enumerate(args)]


def _leaf(array: Array, requires_grad: bool) -> Tensor:
    """Users' tensors hold real numbers; the complex step alone asks for the gradients of complex ones."""
    leaf = Tensor(array)
    leaf._requires_grad = requires_grad
    return leaf


def _doubled(x: Any) -> Any:
    """A floating number, list, array or tensor as a float64 leaf; anything else as it is."""
    if type(x) is Tensor:
        return tensor(x.detach(), dtype=np.float64, backend=x.backend) if x.dtype.kind == "f" else x.detach()
    if type(x) in (float, list) or getattr(getattr(x, "dtype", None), "kind", "") == "f":
        found = tensor(x)
        return tensor(x, dtype=np.float64) if found.dtype.kind == "f" else x
    return x


def _names(node: Tensor) -> list[str]:
    op = node.op
    assert op is not None and node.inputs is not None
    single = len(op.arrays) - op.variadic
    return [op.arrays[i] if i < single else f"{op.arrays[-1]}[{i - single}]" for i in range(len(node.inputs))]


def _described(node: Tensor) -> str:
    place = f" in {node.scope.path}" if node.scope else ""
    line = f" at {node.source}" if node.source else ""
    shapes = ", ".join(x.label if type(x) is Tensor else repr(x) for x in node.inputs or ())
    name = f"{node.name} = " if node.name else ""
    return f"{name}{node.op.name if node.op else ''} of ({shapes}){place}{line}"
