"""Arguments for every primitive of the package: one line each, drawn from its domain, away from kinks and ties.

All sizes differ, no matrix is square unless the primitive asks for it, and two-array primitives broadcast.
A primitive without a line and a line without a primitive both fail a test.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from golden import loops

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.backend import resolve
from tinygrad_rnn.core.primitive import PRIMITIVES, Primitive

rng = np.random.default_rng(20)


@dataclass(frozen=True)
class Sample:
    """Arguments (float64 arrays, masks or Python numbers) and options of one call of a primitive."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None

    def expected(self, name: str) -> np.ndarray:
        """What a primitive has to give: by its reference, or else by NumPy's function of its name."""
        return np.asarray((self.reference or getattr(np, name))(*self.args, **self.options))

    def on(self, backend: str) -> Sample:
        """The same with every array moved to a backend, the arrays in options too."""
        return Sample(
            tuple(_moved(x, backend) for x in self.args),
            {k: _moved(v, backend) for k, v in self.options.items()},
            self.reference,
        )

    def tensors(self, backend: str, dtype: Any = None) -> list[Any]:
        """The arguments as tensors on a backend, the floating ones with a gradient; numbers stay numbers."""
        made = [tg.tensor(x, backend=backend) if isinstance(x, np.ndarray) else x for x in self.args]
        for i, x in enumerate(made):
            if isinstance(x, tg.Tensor) and x.dtype.kind == "f":
                made[i] = tg.tensor(x, dtype=dtype, requires_grad=True)
        return made

    def __str__(self) -> str:
        sizes = "-".join(
            "x".join(map(str, x.shape)) or "0d" if isinstance(x, np.ndarray) else str(x) for x in self.args
        )
        return sizes + "".join(f"-{k}" for k, v in self.options.items() if v is not None)


def _moved(value: Any, backend: str) -> Any:
    if isinstance(value, np.ndarray):
        return resolve(backend)[0].asarray(value)
    return tuple(_moved(each, backend) for each in value) if isinstance(value, tuple) else value


def package_primitives() -> dict[str, Primitive]:
    """The table of the whole package: every module of it is imported first."""
    for module in pkgutil.walk_packages(tg.__path__, "tinygrad_rnn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {name: op for name, op in PRIMITIVES.items() if op.function.__module__.startswith("tinygrad_rnn.")}


def spread(*shape: int, low: float = -2.0, high: float = 2.0, shift: float = 0.0) -> np.ndarray:
    """Numbers evenly spaced over (low, high) in random order: none twice, and with a shift none near 0."""
    n = int(np.prod(shape))
    return np.asarray(rng.permutation(low + (high - low) * (np.arange(n) + 0.5 + shift) / n)).reshape(shape)


def draw(f: Any, *shape: int) -> np.ndarray:
    """Random numbers in the domain of f."""
    return np.asarray(rng.uniform(*f.primitive.domain, shape))


def one(f: Any, **options: Any) -> list[Sample]:
    """Calls of a function of single elements."""
    low, high = f.primitive.domain
    return [
        Sample((spread(*shape, low=low, high=high, shift=0.2),), options) for shape in [(2, 3), (4, 1, 5), (1,), ()]
    ]


def two(f: Any) -> list[Sample]:
    """Calls of a function of two arrays, which broadcast in several ways, and of an array and a Python number."""
    shapes = [((2, 3), (2, 3)), ((4, 1), (3,)), ((5,), (2, 3, 5)), ((2, 1, 3), (4, 1)), ((), (3, 2)), ((), ())]
    low, high = f.primitive.domain
    of = {"low": low, "high": high}
    pairs = [Sample((spread(*a, **of), spread(*b, **of, shift=0.25))) for a, b in shapes]
    return [*pairs, Sample((spread(3, 4, **of), 1.25)), Sample((0.75, spread(4, **of))), Sample((spread(5, **of), 2))]


def ax(f: Any, *axes: Any, **options: Any) -> list[Sample]:
    """Calls of a function with an axis, over arrays of three axes."""
    return [Sample((spread(2, 3, 4),), {"axis": axis, **options}) for axis in axes]


def of(*shapes: tuple[int, ...], **options: Any) -> Sample:
    """A call with random arrays of these shapes."""
    return Sample(tuple(np.asarray(rng.uniform(-2, 2, shape)) for shape in shapes), options)


def keyed(shape: tuple[int, ...], *keys: Any) -> list[Sample]:
    """Calls of indexing, one for each key."""
    return [of(shape, key=key) for key in keys]


def back(shape: tuple[int, ...], *keys: Any) -> list[Sample]:
    """Calls of the transpose of indexing into an array of this shape, one for each key."""
    return [of(np.empty(shape)[key].shape, key=key, shape=shape) for key in keys]


def held_to(reference: Callable[..., Any], samples: list[Sample]) -> list[Sample]:
    """The same calls, whose values are not those of NumPy's function of the primitive's name, but the reference's."""
    return [replace(sample, reference=reference) for sample in samples]


def scattered(g: np.ndarray, *, key: Any, shape: tuple[int, ...]) -> np.ndarray:
    places = np.arange(math.prod(shape)).reshape(shape)[key]
    return np.bincount(np.ravel(places), np.ravel(g), math.prod(shape)).reshape(shape)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2)), otypes=[float])(x)


def logsumexp(x: np.ndarray, *, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def summed_to(x: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    """By the definition of a transpose: each element of the result collects the places that it is copied to."""
    places = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), x.shape)
    return np.bincount(places.ravel(), x.ravel(), math.prod(shape)).reshape(shape)


STEPS = {
    nn.RNNCell: lambda cell, x, state, p, H: [
        loops.rnn(x, *state, p, H, **({"activation": loops.relu} if cell.activation == "relu" else {}))],
    nn.MinimalGRUCell: lambda cell, x, state, p, H: [loops.minimal_gru(x, *state, p, H)],
    nn.GRUCell: lambda cell, x, state, p, H: [loops.gru(x, *state, p, H, cell.reset, cell.update)],
    nn.LSTMCell: lambda cell, x, state, p, H: loops.lstm(x, *state, p, H),
}  # fmt: skip


def history(x: np.ndarray, *rest: Any, cell: nn.Cell, reverse: bool = False, **_: Any) -> np.ndarray:
    """What the primitive of a recurrent layer gives, one unit after the other."""
    S, T, N = len(cell.states), *x.shape[:2]
    starts, (W, U, b, *c, inside) = rest[:S], rest[S:]
    H, inside = U.shape[0], np.broadcast_to(inside, (T, N, 1))
    p = {"W": W, "U": U, "b": np.broadcast_to(b, U.shape[1]), "c": np.broadcast_to(c[0] if c else 0.0, H)}
    found = np.empty((T + S, N, H), complex)
    for n in range(N):
        state = [start[n] for start in starts]
        found[T if reverse else 0, n] = state[0]
        for t in reversed(range(T)) if reverse else range(T):
            if inside[t, n]:
                state = STEPS[type(cell)](cell, x[t, n], state, p, H)
            found[t if reverse else t + 1, n] = state[0]
        for place, last in enumerate(state[1:], T + 1):
            found[place, n] = last
    return found.real


def layer(
    make: type[nn.Cell], *, bias: bool = True, lengths: Any = None, own: dict[str, Any] | None = None, **options: Any
) -> Sample:
    """A call of the primitive of a recurrent layer; own: options of its cell."""
    T, N, I, H = 3, 2, 4, 5  # noqa: E741
    cell = make(I, H, **(own or {}), rng=np.random.default_rng(0))
    G, draw = len(cell.gates), lambda *shape: np.asarray(rng.uniform(-1, 1, shape))
    args = [draw(T, N, I), *[draw(N, H) for _ in cell.states], draw(I, G * H), draw(H, G * H)]
    args.append(draw(G * H) if bias else 0)
    if make is nn.GRUCell:
        args.append(draw(H) if cell.recurrent_bias else 0)
    if lengths is None:
        return Sample((*args, True), {"cell": cell, **options})
    inside = np.arange(T)[:, None, None] < np.array(lengths)[:, None]
    return Sample((*args, inside), {"cell": cell, "shortest": min(lengths), **options})


AFTER = {"reset": "after", "update": "old", "recurrent_bias": True}
KEYS = [
    1, (slice(None), -1), (slice(3, None, -2), None, slice(1, 2)), (..., slice(0, 2)), (np.array([2, 0, 2, 2]),),
    (slice(None), np.array([[0, 2], [2, 1]])), (np.array([3, 0, 3]), np.array([1, 2, 1])),
    (1, slice(None), np.array([1, 0])),
    np.array([True, False, True, True]), (np.arange(12).reshape(4, 3) % 5 < 2,), (slice(2, 2),),
]  # fmt: skip
BOTH = (None, 0, -1, (0, 2), (-1, 1))
mask = lambda *shape: rng.uniform(size=shape) < 0.5  # noqa: E731
P = package_primitives()

SAMPLES: dict[str, list[Sample]] = {
    **{
        name: one(P[name].function)
        for name in (
            "square",
            "sqrt",
            "reciprocal",
            "exp",
            "expm1",
            "log",
            "log1p",
            "sin",
            "cos",
            "tan",
            "arcsin",
            "arccos",
            "arctan",
            "sinh",
            "cosh",
            "tanh",
            "abs",
            "sign",
            "floor",
        )
    },
    **{
        name: two(P[name].function)
        for name in (
            "power",
            "maximum",
            "minimum",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
        )
    },
    "neg": held_to(np.negative, one(tg.neg)),
    "sigmoid": held_to(lambda x: 1 / (1 + np.exp(-x)), one(tg.sigmoid)),
    "relu": held_to(lambda x: x * (x > 0), one(tg.relu)),
    "softplus": held_to(lambda x: np.logaddexp(0, x), one(tg.softplus)),
    "silu": held_to(lambda x: x / (1 + np.exp(-x)), one(tg.silu)),
    "erf": held_to(lambda x: np.vectorize(math.erf, otypes=[float])(x), one(tg.erf)),
    "gelu": held_to(lambda x: x * normal_cdf(x), one(tg.gelu)),
    "alias": held_to(lambda x: x, one(P["alias"].function)),
    "add": held_to(np.add, two(tg.add)),
    "sub": held_to(np.subtract, two(tg.sub)),
    "mul": held_to(np.multiply, two(tg.mul)),
    "div": held_to(np.divide, two(tg.div)),
    "leaky_relu": held_to(
        lambda x, slope=0.01: np.where(x < 0, slope * x, x), [*one(tg.leaky_relu, slope=0.3), *one(tg.leaky_relu)]
    ),
    "elu": held_to(
        lambda x, alpha=1.0: np.where(x < 0, alpha * (np.exp(x) - 1), x), [*one(tg.elu, alpha=1.7), *one(tg.elu)]
    ),
    "clip": held_to(
        lambda x, min=None, max=None: np.minimum(
            np.inf if max is None else max, np.maximum(-np.inf if min is None else min, x)
        ),
        [*one(tg.clip, min=-1.1, max=0.9), *one(tg.clip, max=0.3), *one(tg.clip, min=0.3), *one(tg.clip)],
    ),
    "where": [
        Sample((mask(2, 3), spread(2, 3), spread(2, 3))),
        Sample((mask(4, 1), spread(5), spread(3, 1, 1))),
        Sample((mask(3), spread(2, 3), 0)),
        Sample((mask(4), 1.5, spread(2, 1))),
        Sample((np.array(True), spread(2), spread())),
    ],
    "equal": [*two(tg.equal), Sample((np.arange(6.0).reshape(2, 3), np.array([0.0, 4.0, 2.0])))],
    "not_equal": [*two(tg.not_equal), Sample((np.arange(6.0).reshape(2, 3), np.array([0.0, 4.0, 2.0])))],
    "logical_not": [Sample((mask(2, 3),)), Sample((np.array([0.0, 1.5, -2.0]),))],
    "astype": held_to(
        lambda x, dtype: x.astype(dtype),
        [of((2, 3), dtype=np.float64), of((4,), dtype=np.dtype("float64")), of((), dtype="float64")],
    ),
    "broadcast_to": [
        of((3,), shape=(2, 3)),
        of((2, 1, 3), shape=(4, 2, 5, 3)),
        of((), shape=(2,)),
        of((2, 3), shape=(2, 3)),
    ],
    "sum_to": held_to(
        summed_to,
        [of((2, 3), shape=(3,)), of((4, 2, 5, 3), shape=(2, 1, 3)), of((2,), shape=()), of((2, 3), shape=(2, 3))],
    ),
    "reshape": held_to(
        lambda x, shape: np.reshape(x, shape),
        [of((2, 3, 4), shape=(6, 4)), of((2, 6), shape=(3, -1)), of((), shape=(1, 1)), of((5,), shape=-1)],
    ),
    "transpose": [of((2, 3, 4)), of((2, 3, 4, 5), axes=(2, 0, -1, 1)), of((3,))],
    "swapaxes": [of((2, 3, 4), axis1=0, axis2=-1), of((2, 3), axis1=1, axis2=0)],
    "moveaxis": [of((2, 3, 4), source=0, destination=-1), of((2, 3, 4, 5), source=(0, 2), destination=(-1, 0))],
    "expand_dims": [of((2, 3), axis=1), of((2, 3), axis=-1), of((2, 3), axis=(0, 3)), of((), axis=0)],
    "squeeze": [of((1, 3, 1)), of((1, 3, 1), axis=0), of((2, 1, 3), axis=-2), of((1, 2, 1), axis=(0, 2))],
    "concatenate": held_to(
        lambda *arrays, axis=0: np.concatenate(arrays, axis),
        [
            of((2, 3), (4, 3)),
            of((2, 3), (2, 1), (2, 4), axis=-1),
            of((2, 1, 3), (2, 4, 3), axis=1),
            of((3,), (0,), (2,)),
        ],
    ),
    "stack": held_to(
        lambda *arrays, axis=0: np.stack(arrays, axis),
        [of((2, 3), (2, 3)), of((2, 3), (2, 3), (2, 3), (2, 3), axis=-1), of((), (), axis=0)],
    ),
    "flip": [of((2, 3)), of((2, 3, 4), axis=1), of((2, 3, 4), axis=(0, -1))],
    "roll": [of((2, 3), shift=2), of((2, 5), shift=-3, axis=1), of((2, 3, 4), shift=(1, 2), axis=(0, -1))],
    "pad": [
        of((2, 3), pad_width=2),
        of((2, 3), pad_width=(1, 2)),
        of((2, 3), pad_width=((0, 1), (3, 2)), constant_values=1.5),
    ],
    "tril": [of((3, 4)), of((2, 4, 3), k=-1), of((4, 5), k=2)],
    "triu": [of((3, 4)), of((2, 4, 3), k=-1), of((4, 5), k=2)],
    "transfer": held_to(lambda x, backend: x, [of((2, 3), backend="numpy"), of((), backend="numpy")]),
    "index": held_to(lambda x, key: x[key], [*keyed((4, 3, 5), *KEYS), of((5,), key=2), of((), key=None)]),
    "scatter": held_to(scattered, [*back((4, 3, 5), *KEYS), of((), key=2, shape=(5,))]),
    "sum": [*ax(tg.sum, *BOTH), *ax(tg.sum, *BOTH, keepdims=True), of(())],
    "mean": [*ax(tg.mean, *BOTH), *ax(tg.mean, *BOTH, keepdims=True), of(())],
    "max": [*ax(tg.max, *BOTH), *ax(tg.max, *BOTH, keepdims=True), of(())],
    "min": [*ax(tg.min, *BOTH), *ax(tg.min, *BOTH, keepdims=True), of(())],
    "std": held_to(
        lambda x, axis=None, keepdims=False, correction=0: np.std(x, axis=axis, keepdims=keepdims, ddof=correction),
        [*ax(tg.std, *BOTH), *ax(tg.std, *BOTH, keepdims=True), *ax(tg.std, *BOTH, correction=1)],
    ),
    "norm": held_to(
        lambda x, axis=None, keepdims=False: np.sqrt(np.sum(np.abs(x) ** 2, axis=axis, keepdims=keepdims)),
        [*ax(tg.norm, *BOTH), *ax(tg.norm, *BOTH, keepdims=True), of((3,))],
    ),
    "logsumexp": held_to(logsumexp, [*ax(tg.logsumexp, *BOTH), *ax(tg.logsumexp, *BOTH, keepdims=True), of((3,))]),
    "softmax": held_to(
        lambda x, axis=-1: np.exp(x - logsumexp(x, axis=axis, keepdims=True)),
        [*ax(tg.softmax, 0, 1, -1, (0, 2)), of((5,))],
    ),
    "log_softmax": held_to(
        lambda x, axis=-1: x - logsumexp(x, axis=axis, keepdims=True), [*ax(tg.log_softmax, 0, 1, -1, (0, 2)), of((5,))]
    ),
    "cumsum": [*ax(tg.cumsum, None, 0, -1), of((5,))],
    "argmax": [*ax(tg.argmax, None, 0, -1), *ax(tg.argmax, 1, keepdims=True)],
    "argmin": [*ax(tg.argmin, None, 0, -1), *ax(tg.argmin, 1, keepdims=True)],
    "recomputed": held_to(
        lambda *xs, value, replay: value, [of((2, 3), value=np.arange(6.0).reshape(2, 3), replay=lambda g, xs: [g])]
    ),
    "matmul": [
        of((2, 3), (3, 4)),
        of((3,), (3,)),
        of((2, 3), (3,)),
        of((3,), (3, 4)),
        of((5, 2, 3), (3, 4)),
        of((2, 3), (5, 3, 4)),
        of((5, 2, 3), (5, 3, 4)),
        of((6, 1, 2, 3), (5, 3, 4)),
        of((5, 2, 3), (3,)),
        of((3,), (5, 3, 4)),
        of((6, 5, 2, 3), (3, 4)),
    ],
    "contract": held_to(
        lambda *arrays, parts, output: np.einsum(",".join(parts) + "->" + output, *arrays),
        [
            of((2, 3), (3, 4), parts=("ij", "jk"), output="ik"),
            of((2, 3, 4), parts=("abc",), output="ca"),
            of((2, 3), (3, 4), (4,), parts=("ij", "jk", "k"), output="i"),
            of((2, 3), (4,), parts=("ij", "k"), output=""),
        ],
    ),
    "one_hot": held_to(
        lambda targets, size, dtype=np.float32: np.eye(size, dtype=dtype)[targets],
        [
            Sample((np.array([2, 0, 4]),), {"size": 5}),
            Sample((np.array([[1, 0], [2, 2], [0, 1]]),), {"size": 3}),
            Sample((np.array(1),), {"size": 2, "dtype": np.float64}),
        ],
    ),
    "cross_entropy_slope": held_to(
        lambda scale, x, targets: (
            scale[..., None] * (np.exp(x) / np.exp(x).sum(-1, keepdims=True) - np.eye(x.shape[-1])[targets])
        ),
        [
            Sample((spread(4), spread(4, 3), np.array([2, 0, 1, 1]))),
            Sample((spread(), spread(5), np.array(3))),
            Sample((spread(2, 3), spread(2, 3, 5), np.array([[4, 0, 2], [2, 2, 1]]))),
        ],
    ),
    "softmax_cross_entropy": held_to(
        lambda x, targets: logsumexp(x, axis=-1) - (x * np.eye(x.shape[-1])[targets]).sum(-1),
        [
            Sample((spread(4, 3), np.array([2, 0, 1, 1]))),
            Sample((spread(5), np.array(3))),
            Sample((spread(2, 3, 5), np.array([[4, 0, 2], [2, 2, 1]]))),
        ],
    ),
    "rnn_layer": held_to(
        history,
        [
            layer(nn.RNNCell, reverse=True),
            layer(nn.RNNCell, own={"activation": "relu"}, bias=False),
            layer(nn.RNNCell, lengths=[1, 3]),
        ],
    ),
    "minimal_gru_layer": held_to(
        history, [layer(nn.MinimalGRUCell), layer(nn.MinimalGRUCell, lengths=[2, 0], reverse=True, checkpoint=2)]
    ),
    "gru_layer": held_to(
        history,
        [
            layer(nn.GRUCell),
            layer(nn.GRUCell, own={"update": "old"}, bias=False, checkpoint=1),
            layer(nn.GRUCell, own={"reset": "after"}, reverse=True),
            layer(nn.GRUCell, own=AFTER, lengths=[3, 1]),
        ],
    ),
    "lstm_layer": held_to(
        history, [layer(nn.LSTMCell, checkpoint=2), layer(nn.LSTMCell, lengths=[0, 2], bias=False, reverse=True)]
    ),
}
