"""How each primitive of the package is written in ONNX: one table, from its name to the nodes that compute the same.

Where ONNX's own operation takes its options in single precision, or has no kernel of double precision in onnxruntime,
float64 is written with simpler operations. log1p is log(1 + x), which near 0 is exact to rounding of 1 only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .building import Builder, Emitter, Item, Result, Shape
from .indexing import FIRST, LAST, index, scatter
from .tracing import Size

# -- element by element ------------------------------------------------------------------------------------------


def _plain(kind: str) -> Emitter:
    """An operation that ONNX has: its inputs in the dtype of the result."""
    return lambda g, inputs, options, out: g.add(kind, *[g.of(x, out[0].dtype) for x in inputs])


def _common(inputs: Sequence[Any]) -> Any:
    """The dtype in which inputs meet: Python numbers follow the arrays."""
    return np.result_type(*[x.dtype if isinstance(x, Item) else 1 if isinstance(x, Size) else x for x in inputs])


def _compared(kind: str, negated: bool = False) -> Emitter:
    """A comparison: its inputs in the dtype in which they meet."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        dtype = _common(inputs)
        dtype = np.dtype(np.int32) if dtype.kind == "b" else dtype  # which not all of them have
        found = g.add(kind, *[g.of(x, dtype) for x in inputs])
        return g.add("Not", found) if negated else found

    return emit


def _formula(write: Callable[..., str], single: str | None = None) -> Emitter:
    """A function of one array in the dtype of its result: write(formula, x, **options).

    single: ONNX's own operation, which is for float32.
    """

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        x = g.of(inputs[0], out[0].dtype)
        if single and out[0].dtype == np.float32:
            return g.add(single, x)
        return write(Formula(g, out[0].dtype), x, **options)

    return emit


class Formula:
    """Writes arithmetic on values of one dtype, numbers among them."""

    def __init__(self, g: Builder, dtype: Any) -> None:
        self.g, self.dtype = g, dtype

    def __call__(self, kind: str, *inputs: str | float | Size, **attributes: Any) -> str:
        return self.g.add(kind, *[x if isinstance(x, str) else self.g.number(x, self.dtype) for x in inputs],
                          **attributes)  # fmt: skip

    def positive(self, x: str) -> str:
        return self("Greater", x, 0.0)

    def over(self, kind: str, x: str, axes: Sequence[int], keepdims: bool) -> str:
        """A reduction; over no axes it is nothing."""
        return self.g.add(kind, x, self.g.integers(axes), keepdims=int(keepdims)) if len(axes) else x


def _expm1(f: Formula, x: str) -> str:
    return f("Mul", f("Tanh", f("Mul", x, 0.5)), f("Add", f("Exp", x), 1.0))  # exact near 0 too


def _elu(f: Formula, x: str, alpha: float) -> str:
    return f("Where", f.positive(x), x, f("Mul", alpha, _expm1(f, f("Min", x, 0.0))))


def _softplus(f: Formula, x: str) -> str:
    return f("Add", f("Max", x, 0.0), f("Log", f("Add", f("Exp", f("Neg", f("Abs", x))), 1.0)))


def _gelu(f: Formula, x: str) -> str:
    half = f("Mul", f("Erf", f("Mul", x, math.sqrt(0.5))), 0.5)
    return f("Mul", x, f("Add", half, 0.5))


def _where(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    condition, a, b = inputs
    return g.add("Where", g.of(condition, bool), g.of(a, out[0].dtype), g.of(b, out[0].dtype))


def _clip(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, bounds = g.of(inputs[0], out[0].dtype), [options["min"], options["max"]]
    if any(isinstance(each, Item) and each.ndim for each in bounds):
        for kind, bound in zip(("Max", "Min"), bounds):
            x = x if bound is None else g.add(kind, x, g.of(bound, out[0].dtype))
        return x
    return g.add("Clip", x, *["" if each is None else g.of(each, out[0].dtype) for each in bounds])


def _cast(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    return g.of(inputs[0], out[0].dtype)


# -- reductions --------------------------------------------------------------------------------------------------


def _axes(ndim: int, axis: Any) -> list[int]:
    """The axes that an integer, a tuple of them or None names, counted from the front."""
    axes = range(ndim) if axis is None else (axis,) if hasattr(axis, "__index__") else axis
    return sorted(int(each) % ndim for each in axes)


def _reduced(write: Callable[..., str]) -> Emitter:
    """A reduction in the dtype of its result: write(formula, x, axes, keepdims, count, **options)."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        rest = dict(options)
        x, axes = inputs[0], _axes(inputs[0].ndim, rest.pop("axis"))
        lengths = [x.shape[axis] for axis in axes]
        keepdims = rest.pop("keepdims")
        return write(Formula(g, out[0].dtype), g.of(x, out[0].dtype), axes, keepdims, lengths, **rest)

    return emit


def _over(kind: str) -> Emitter:
    return _reduced(lambda f, x, axes, keepdims, lengths: f.over(kind, x, axes, keepdims))


def _std(f: Formula, x: str, axes: list[int], keepdims: bool, lengths: Shape, correction: float) -> str:
    away = f("Sub", x, f.over("ReduceMean", x, axes, True))
    squares = f.over("ReduceSum", f("Mul", away, away), axes, keepdims)
    count = f.g.number(1, f.dtype)
    for each in lengths:
        count = f("Mul", count, each)
    return f("Sqrt", f("Div", squares, f("Max", f("Sub", count, correction), 0.0)))


def _norm(f: Formula, x: str, axes: list[int], keepdims: bool, lengths: Shape, ord: Any) -> str:
    return f("Sqrt", f.over("ReduceSum", f("Mul", x, x), axes, keepdims))


def _softmaxed(kind: str) -> Emitter:
    """softmax or its logarithm; along several axes at once by its formula."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        axes, x = _axes(inputs[0].ndim, options["axis"]), g.of(inputs[0], out[0].dtype)
        if len(axes) == 1:
            return g.add(kind, x, axis=axes[0])
        f = Formula(g, out[0].dtype)
        logarithm = f("Sub", x, f.over("ReduceLogSumExp", x, axes, True))
        return logarithm if kind == "LogSoftmax" else f("Exp", logarithm)

    return emit


def _place_of(kind: str) -> Emitter:
    """argmax or argmin."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        x, axis, keepdims = inputs[0], options["axis"], options["keepdims"]
        name = g.of(x, np.int32 if x.dtype.kind == "b" else x.dtype)
        if axis is not None:
            return g.add(kind, name, axis=axis % x.ndim, keepdims=int(keepdims))
        found = g.add(kind, g.reshaped(name, (-1,)), axis=0, keepdims=0)
        return g.reshaped(found, (1,) * x.ndim) if keepdims else found

    return emit


def _cumsum(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, axis = g.of(inputs[0], out[0].dtype), options["axis"]
    x = g.reshaped(x, (-1,)) if axis is None else x
    return g.add("CumSum", x, g.constant(np.int64((axis or 0) % max(1, len(out[0].shape)))))


# -- shapes ------------------------------------------------------------------------------------------------------


def _reshape(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, shape = inputs[0], out[0].shape
    return x.name if x.shape == shape else g.reshaped(x.name, shape, x.shape)


def _broadcast(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, shape = inputs[0], out[0].shape
    return x.name if x.shape == shape else g.add("Expand", x.name, g.sizes(shape))


def _sum_to(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, shape = inputs[0], out[0].shape
    lead = x.ndim - len(shape)
    stretched = [lead + i for i, size in enumerate(shape) if size == 1 != x.shape[lead + i]]
    total = Formula(g, x.dtype).over("ReduceSum", x.name, [*range(lead), *stretched], False)
    return g.reshaped(total, shape)


def _permuted(order: Callable[..., Any]) -> Emitter:
    """Axes in another order: order(axes as an array of as many axes, options)."""

    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        name, ndim = str(inputs[0].name), inputs[0].ndim
        if ndim < 2:
            return name
        sizes = order(np.broadcast_to(np.int8(0), range(2, ndim + 2)), **options).shape  # each axis by its length
        perm = [size - 2 for size in sizes]
        return name if perm == sorted(perm) else g.add("Transpose", name, perm=perm)

    return emit


def _expand_dims(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    return g.add("Unsqueeze", inputs[0].name, g.integers(_axes(len(out[0].shape), options["axis"])))


def _squeeze(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, axis, name = inputs[0], options["axis"], str(inputs[0].name)
    axes = [i for i, size in enumerate(x.shape) if size == 1] if axis is None else _axes(x.ndim, axis)
    return g.add("Squeeze", name, g.integers(axes)) if axes else name


def _concatenate(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    axis, names = options["axis"], [g.of(x, out[0].dtype) for x in inputs]
    if axis is None:
        axis, names = 0, [g.reshaped(name, (-1,)) for name in names]
    return g.add("Concat", *names, axis=axis % len(out[0].shape))


def _stack(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    axis = options["axis"] % len(out[0].shape)
    names = [g.add("Unsqueeze", g.of(x, out[0].dtype), g.integers([axis])) for x in inputs]
    return g.add("Concat", *names, axis=axis)


def _flip(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    axes = _axes(inputs[0].ndim, options["axis"])
    ends = [g.integers(each) for each in ([-1] * len(axes), [FIRST] * len(axes), axes, [-1] * len(axes))]
    return g.add("Slice", inputs[0].name, *ends)


def _roll(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, shift, axis, name = inputs[0], options["shift"], options["axis"], str(inputs[0].name)
    if axis is None:
        return g.reshaped(_rolled(g, g.reshaped(name, (-1,)), shift, 0), x.shape)
    shifts, axes = np.broadcast_arrays(shift, axis)
    for each, along in zip(np.atleast_1d(shifts), np.atleast_1d(axes)):
        name = _rolled(g, name, int(each), int(along) % x.ndim)
    return name


def _rolled(g: Builder, name: str, shift: int, axis: int) -> str:
    """Both parts of an axis change places; which length it has is found out at run time."""
    length = g.add("Shape", name, start=axis, end=axis + 1)
    cut = g.add("Mod", g.integers([-shift]), length)
    along = g.integers([axis])
    parts = g.add("Slice", name, cut, g.integers([LAST]), along), g.add("Slice", name, g.integers([0]), cut, along)
    return g.add("Concat", *parts, axis=axis)


def _pad(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    x, width = inputs[0], options["pad_width"]
    width = width.array if isinstance(width, Item) else width
    pairs = np.broadcast_to(np.asarray(width), (x.ndim, 2))
    value = g.of(options["constant_values"], x.dtype)
    return g.add("Pad", x.name, g.integers(pairs.T.ravel().tolist()), value)


def _triangle(upper: int) -> Emitter:
    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        return g.add("Trilu", inputs[0].name, g.constant(np.int64(options["k"])), upper=upper)

    return emit


# -- products ----------------------------------------------------------------------------------------------------


def _einsum(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    equation = f"{','.join(options['parts'])}->{options['output']}"
    return g.add("Einsum", *[g.of(x, out[0].dtype) for x in inputs], equation=equation)


# -- classes -----------------------------------------------------------------------------------------------------


def _one_hot(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    return _hot(g, inputs[0], out[0].shape[-1], out[0].dtype)


def _hot(g: Builder, targets: Item, size: int | Size, dtype: Any) -> str:
    """A new last axis with 1 at the target: as an equation, since ONNX's OneHot refuses a single target."""
    one = g.add("Unsqueeze", g.of(targets, np.int64), g.integers([-1]))
    return g.cast(g.add("Equal", one, g.counted(size)), bool, dtype)


def _cross_entropy(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    logits, targets = inputs
    last = g.integers([-1])
    scores = g.add("LogSoftmax", g.of(logits, out[0].dtype), axis=-1)
    chosen = g.add("GatherElements", scores, g.add("Unsqueeze", g.of(targets, np.int64), last), axis=-1)
    return g.add("Neg", g.add("Squeeze", chosen, last))


def _cross_entropy_slope(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    (scale, logits, targets), dtype = inputs, out[0].dtype
    away = g.add("Sub", g.add("Softmax", g.of(logits, dtype), axis=-1), _hot(g, targets, logits.shape[-1], dtype))
    return g.add("Mul", g.add("Unsqueeze", g.of(scale, dtype), g.integers([-1])), away)


# -- the table ---------------------------------------------------------------------------------------------------

EMITTERS: dict[str, Emitter] = {
    **{
        name: _plain(kind)
        for name, kind in {
            "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "power": "Pow", "neg": "Neg", "sqrt": "Sqrt",
            "reciprocal": "Reciprocal", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tanh": "Tanh",
            "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan", "sigmoid": "Sigmoid", "erf": "Erf", "abs": "Abs",
            "maximum": "Max", "minimum": "Min", "sign": "Sign", "floor": "Floor", "matmul": "MatMul",
        }.items()
    },
    **{
        name: _compared(kind)
        for name, kind in {
            "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
            "greater_equal": "GreaterOrEqual",
        }.items()
    },
    "not_equal": _compared("Equal", negated=True),
    "logical_not": lambda g, inputs, options, out: g.add("Not", g.of(inputs[0], bool)),
    "square": _formula(lambda f, x: f("Mul", x, x)),
    "expm1": _formula(_expm1),
    "log1p": _formula(lambda f, x: f("Log", f("Add", x, 1.0))),
    "tan": _formula(lambda f, x: f("Div", f("Sin", x), f("Cos", x)), "Tan"),
    "sinh": _formula(lambda f, x: f("Mul", f("Sub", _expm1(f, x), _expm1(f, f("Neg", x))), 0.5), "Sinh"),
    "cosh": _formula(lambda f, x: f("Mul", f("Add", f("Exp", x), f("Exp", f("Neg", x))), 0.5), "Cosh"),
    "relu": _formula(lambda f, x: f("Max", x, 0.0), "Relu"),
    "leaky_relu": _formula(lambda f, x, slope: f("Where", f.positive(x), x, f("Mul", x, slope))),
    "elu": _formula(_elu),
    "softplus": _formula(_softplus, "Softplus"),
    "silu": _formula(lambda f, x: f("Mul", x, f("Sigmoid", x))),
    "gelu": _formula(_gelu, "Gelu"),
    "clip": _clip,
    "where": _where,
    "astype": _cast,
    "alias": _cast,
    "transfer": _cast,
    "sum": _over("ReduceSum"),
    "mean": _over("ReduceMean"),
    "max": _over("ReduceMax"),
    "min": _over("ReduceMin"),
    "logsumexp": _over("ReduceLogSumExp"),
    "std": _reduced(_std),
    "norm": _reduced(_norm),
    "softmax": _softmaxed("Softmax"),
    "log_softmax": _softmaxed("LogSoftmax"),
    "cumsum": _cumsum,
    "argmax": _place_of("ArgMax"),
    "argmin": _place_of("ArgMin"),
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "sum_to": _sum_to,
    "transpose": _permuted(np.transpose),
    "swapaxes": _permuted(np.swapaxes),
    "moveaxis": _permuted(np.moveaxis),
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concatenate": _concatenate,
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    "pad": _pad,
    "tril": _triangle(0),
    "triu": _triangle(1),
    "contract": _einsum,
    "index": index,
    "scatter": scatter,
    "one_hot": _one_hot,
    "softmax_cross_entropy": _cross_entropy,
    "cross_entropy_slope": _cross_entropy_slope,
}  # fmt: skip

REFUSED = {
    "rnn_layer": "call the layer that it belongs to, nn.RNN",
    "minimal_gru_layer": "call the layer that it belongs to, nn.MinimalGRU",
    "gru_layer": "call the layer that it belongs to, nn.GRU",
    "lstm_layer": "call the layer that it belongs to, nn.LSTM",
    "recomputed": "tg.checkpoint is for training: call the function itself",
}
"""The primitives of the package that are not written, and what to do."""
