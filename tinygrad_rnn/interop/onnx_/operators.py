"""ONNX's operators as functions of the package: the table that imported graphs run by.

A function's signature is all that is known of its operator: inputs stand before the `*`, attributes behind it, with
ONNX's defaults; what was an attribute in older opsets and is an input today may be given as either. `Literal` lists the
choices of an attribute that are computed, `node` asks for what is known of the node.

The functions take Tensors and NumPy arrays alike. Where all that goes in are arrays of the host, as in the arithmetic
of shapes, so is what comes out; no number of a shape ever becomes a Tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np

from ...backend import Array, as_array
from ...core.broadcasting import broadcast_to
from ...core.modes import current, scope
from ...core.tensor import Tensor
from ...errors import ConversionError, DtypeError, OptionError, ShapeError
from ...functions import composed
from ...ops import elementwise as e
from ...ops import reductions, shapes
from ...ops.indexing import scatter
from ...ops.shapes import axis_of
from ..cells import Activation
from ..layers import gelu_tanh
from .files import AXES

NEWEST = 28
"""The newest opset whose operators mean what the functions below compute."""
LARGEST = 2**28
"""As many elements may an array have that an operator makes larger than all that goes into it."""

Value = Any  # a Tensor, or a NumPy array on the host
Ints = tuple[int, ...]


class Context(NamedTuple):
    """What a function may know of its node: what messages call it, its opset, the number of its outputs."""

    name: str
    opset: int
    outputs: int


# -- reading inputs ----------------------------------------------------------------------------------------------


def host(x: Value) -> Array:
    """The numbers on the host."""
    return x.numpy() if isinstance(x, Tensor) else np.asarray(x)


def ints(x: Value) -> Ints:
    """Integers, such as a shape or axes, from an input or an attribute.

    Raises: DtypeError.
    """
    found = host(x)
    if found.dtype.kind not in "iu" and found.size:
        raise DtypeError(f"integers are needed here, not {found.dtype}")
    return tuple([int(n) for n in found.reshape(-1).tolist()])


def beside(x: Value, *others: Value) -> Value:
    """An array of the host where Tensors lie that it meets, such as a mask that was computed from integers."""
    home = next((other.backend for other in others if isinstance(other, Tensor)), None)
    return x if home is None or isinstance(x, Tensor) else Tensor(as_array(x, home))


def room(shape: Sequence[int]) -> Ints:
    """A shape, if an array of it is made.

    Raises: ShapeError for a negative length, or more than `AXES` axes or `LARGEST` elements.
    """
    if len(shape) > AXES or any(n < 0 for n in shape) or math.prod(shape) > LARGEST:
        raise ShapeError(f"no array of shape {str(tuple(shape))[:200]} is made: more than {AXES} axes, more than "
                         f"{LARGEST:,} elements, or fewer than 0")  # fmt: skip
    return tuple(shape)


def like(x: Value, y: Value) -> Value:
    """y in the dtype of x: sums of small integers stay small integers in ONNX."""
    return y if y.dtype == x.dtype else y.astype(x.dtype)


# -- arithmetic --------------------------------------------------------------------------------------------------


def divide(a: Value, b: Value, /) -> Value:
    """Of integers, without the fraction."""
    if a.dtype.kind not in "iu":
        return a / b
    quotient = _quotient(a, b)
    return quotient + _falls_short(a, b, a - quotient * b)


def modulo(a: Value, b: Value, /, *, fmod: int = 0) -> Value:
    """The remainder, with the sign of b; with fmod, of a."""
    if a.dtype.kind in "iu":
        rest = a - _quotient(a, b) * b
        return rest - _falls_short(a, b, rest) * b if fmod else rest
    quotient = a.astype(np.float64) / b.astype(np.float64)
    rest = a - like(a, e.sign(quotient) * e.floor(e.abs(quotient)) if fmod else e.floor(quotient)) * b
    beyond = a if fmod else e.where(e.less(e.sign(a) * e.sign(b), 0), b, a)  # of an infinite b no multiple comes off
    return e.where(e.logical_not(e.less(e.abs(a), np.inf)), rest, e.where(e.equal(e.abs(b), np.inf), beyond, rest))


def _quotient(a: Value, b: Value) -> Value:
    """Of integers, rounded down, exactly: what float64 cannot hold of it is found by the remainder."""
    if not any(isinstance(x, Tensor) for x in (a, b)):
        return np.floor_divide(a, b)
    whole = _approximately(a, b)
    whole = whole + _approximately(a - whole * b, b)  # now at most 1 off
    rest = (a - whole * b) * e.sign(b)
    return whole + like(a, e.greater_equal(rest, e.abs(b))) - like(a, e.less(rest, 0))


def _approximately(a: Value, b: Value) -> Value:
    return like(a, e.floor(a.astype(np.float64) / b.astype(np.float64)))


def _falls_short(a: Value, b: Value, rest: Value) -> Value:
    """1 where rounding a quotient down went away from 0, else 0."""
    return like(a, e.logical_not(e.equal(rest, 0))) * like(a, e.less(e.sign(a) * e.sign(b), 0))


def clip(x: Value, /, min: Value = None, max: Value = None) -> Value:
    bounds = [None if bound is None else host(bound).item() for bound in (min, max)]
    return e.clip(x, min=bounds[0], max=bounds[1])


def gelu(x: Value, /, *, approximate: Literal["none", "tanh"] = "none") -> Value:
    if approximate == "none":
        return e.gelu(x)
    return gelu_tanh(x)


def cast(x: Value, /, *, to: np.dtype[Any], saturate: int = 1, round_mode: str = "up") -> Value:
    return x if x.dtype == to else x.astype(to)


def matmul(a: Value, b: Value, /) -> Value:
    return a @ b


def gemm(
    a: Value, b: Value, c: Value = None, /, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Value:  # fmt: skip
    y = (a.T if transA else a) @ (b.T if transB else b)
    y = y if alpha == 1 else alpha * y
    return y if c is None else y + (c if beta == 1 else beta * c)


def einsum(*xs: Value, equation: str) -> Value:
    return composed.einsum(equation, *xs)


def layer_norm(
    x: Value, scale: Value, bias: Value = None, /, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Value, ...]:  # fmt: skip
    axes = tuple(range(axis_of(x, axis), x.ndim))
    mean = reductions.mean(x, axis=axes, keepdims=True)
    away = x - mean
    inverse = 1 / e.sqrt(reductions.mean(e.square(away), axis=axes, keepdims=True) + epsilon)
    y = away * inverse * scale
    return (y if bias is None else y + bias), mean, inverse


# -- reductions --------------------------------------------------------------------------------------------------


def reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that reduces over axes; no axes are all of them, unless noop_with_empty_axes says otherwise."""

    def reduced(x: Value, /, axes: Value = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        found = () if axes is None else ints(axes)
        return like(x, function(x, axis=found if found or noop_with_empty_axes else None, keepdims=bool(keepdims)))

    return reduced


def extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the largest or the smallest element is."""

    def place(x: Value, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
        if not select_last_index:
            return function(x, axis=axis, keepdims=bool(keepdims))
        return x.shape[axis] - 1 - function(shapes.flip(x, axis=axis), axis=axis, keepdims=bool(keepdims))

    return place


def along(function: Callable[..., Any]) -> Callable[..., Any]:
    """softmax and its kin: along one axis; before opset 13 over that axis and all behind it at once."""

    def over(x: Value, /, *, axis: int | None = None, node: Context) -> Value:
        if node.opset >= 13:
            return function(x, axis=-1 if axis is None else axis)
        return function(flatten(x, axis=1 if axis is None else axis), axis=-1).reshape(x.shape)

    return over


def sum_of_squares(x: Value, axis: Any, keepdims: bool) -> Value:
    return reductions.sum(e.square(x), axis=axis, keepdims=keepdims)


def sum_of_sizes(x: Value, axis: Any, keepdims: bool) -> Value:
    return reductions.sum(e.abs(x), axis=axis, keepdims=keepdims)


def log_of_sum(x: Value, axis: Any, keepdims: bool) -> Value:
    return e.log(reductions.sum(x, axis=axis, keepdims=keepdims))


def cumsum(x: Value, axis: Value, /, *, exclusive: int = 0, reverse: int = 0) -> Value:
    (along_axis,) = ints(axis)
    y = shapes.flip(x, axis=along_axis) if reverse else x
    total = like(x, reductions.cumsum(y, axis=along_axis))
    total = total - y if exclusive else total
    return shapes.flip(total, axis=along_axis) if reverse else total


# -- shapes ------------------------------------------------------------------------------------------------------


def shape(x: Value, /, *, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[start:end], np.int64)


def reshape(x: Value, /, shape: Value, *, allowzero: int = 0) -> Value:
    wanted = ints(shape)
    if not allowzero:
        if any(n == 0 and i >= x.ndim for i, n in enumerate(wanted)):
            raise ShapeError(f"reshape of {x.shape} to {wanted}: a 0 keeps an axis, and there is none to keep")
        wanted = tuple([n or x.shape[i] for i, n in enumerate(wanted)])
    return shapes.reshape(x, shape=wanted)


def transpose(x: Value, /, *, perm: tuple[int, ...] = ()) -> Value:
    return shapes.transpose(x, axes=perm or None)


def flatten(x: Value, /, *, axis: int = 1) -> Value:
    if not -x.ndim <= axis <= x.ndim:
        raise ShapeError(f"flatten at axis {axis} of an array of shape {x.shape}, which has no such axis")
    at = axis + x.ndim if axis < 0 else axis
    return shapes.reshape(x, shape=(math.prod(x.shape[:at]), math.prod(x.shape[at:])))


def squeeze(x: Value, /, axes: Value = None) -> Value:
    return shapes.squeeze(x, axis=None if axes is None else ints(axes))


def unsqueeze(x: Value, /, axes: Value) -> Value:
    return shapes.expand_dims(x, axis=ints(axes))


def expand(x: Value, shape: Value, /) -> Value:
    wanted = ints(shape)
    try:
        whole = np.broadcast_shapes(tuple(x.shape), room(wanted))
    except ValueError:
        raise ShapeError(f"an array of shape {tuple(x.shape)} does not broadcast with {wanted}") from None
    return broadcast_to(x, shape=room(whole))


def tile(x: Value, repeats: Value, /) -> Value:
    times = ints(repeats)
    room([n * size for n, size in zip(times, x.shape)])
    return composed.tile(x, times)


def concat(*xs: Value, axis: int) -> Value:
    return shapes.concatenate(list(xs), axis=axis)


def split(x: Value, /, split: Value = None, *, axis: int = 0, num_outputs: int = 0, node: Context) -> tuple[Value, ...]:
    length, n = x.shape[axis_of(x, axis)], num_outputs or node.outputs
    sizes = [-(-length // n)] * n if split is None else ints(split)
    ends = np.cumsum(sizes)
    if split is not None and (ends[-1:] != length or min(sizes) < 0):
        raise ShapeError(f"pieces of {sizes} do not make up the {length} of axis {axis}")
    return tuple(composed.split(x, [min(int(end), length) for end in ends[:-1]], axis))


def slices(x: Value, /, starts: Value, ends: Value, axes: Value = None, steps: Value = None) -> Value:
    first, last = ints(starts), ints(ends)
    along_axes = range(len(first)) if axes is None else ints(axes)
    key = [slice(None)] * x.ndim
    for axis, a, b, step in zip(along_axes, first, last, ints(steps) if steps is not None else [1] * len(first)):
        if not step:
            raise OptionError("a slice goes in steps of 0")
        at = axis_of(x, axis)
        a = max(a, -x.shape[at]) if step < 0 else a  # ONNX begins at 0 at the least, on the way back too
        key[at] = slice(a, b, step)
    return x[tuple(key)]


def pad(
    x: Value, /, pads: Value, constant_value: Value = None, axes: Value = None,
    *, mode: Literal["constant"] = "constant", value: float = 0.0,
) -> Value:  # fmt: skip
    """Negative pads take off."""
    widths = ints(pads)
    at = range(x.ndim) if axes is None else [axis_of(x, axis) for axis in ints(axes)]
    if len(widths) != 2 * len(at):
        raise ShapeError(f"{len(at)} axes need {2 * len(at)} pads, not {len(widths)}")
    pairs, key = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in zip(at, widths, widths[len(at) :]):
        pairs[axis] = max(before, 0), max(after, 0)
        key[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
    room([n + before + after for n, (before, after) in zip(x.shape, pairs)])
    fill = value if constant_value is None else host(constant_value).item()
    return shapes.pad(x[tuple(key)], pad_width=tuple(pairs), constant_values=fill)


def trilu(x: Value, k: Value = None, /, *, upper: int = 1) -> Value:
    return (shapes.triu if upper else shapes.tril)(x, k=0 if k is None else ints(k)[0])


def constant(
    *, value: np.ndarray | None = None, value_float: float | None = None, value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None, value_ints: tuple[int, ...] | None = None,
) -> Array:  # fmt: skip
    given = [each for each in (value, value_float, value_floats, value_int, value_ints) if each is not None]
    if len(given) != 1:
        raise ConversionError(f"a Constant has one value, not {len(given)}")
    if value is not None:
        return value
    floats = value_float is not None or value_floats is not None
    return np.array(given[0], np.float32 if floats else np.int64)


def constant_of_shape(shape: Value, /, *, value: np.ndarray | None = None) -> Array:
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(room(ints(shape)), fill.reshape(-1)[0], fill.dtype)


def counting(start: Value, limit: Value, delta: Value, /) -> Array:
    dtype = start.dtype
    a, b, step = (host(x).item() for x in (start, limit, delta))
    count = (b - a) / step if step else math.nan
    if not math.isfinite(count):
        raise OptionError(f"a Range from {a} to {b} in steps of {step} has no end")
    (n,) = room([max(math.ceil(count), 0)])
    return (a + step * np.arange(n)).astype(dtype)


# -- picking elements --------------------------------------------------------------------------------------------


def gather(x: Value, indices: Value, /, *, axis: int = 0) -> Value:
    return composed.take(x, indices, axis)


def gather_elements(x: Value, indices: Value, /, *, axis: int = 0) -> Value:
    at = axis_of(x, axis)
    x = x[tuple([slice(None) if i == at else slice(n) for i, n in enumerate(indices.shape)])]
    return composed.take_along_axis(x, indices, at)


def gather_nd(x: Value, indices: Value, /, *, batch_dims: Literal[0] = 0) -> Value:
    return x[_places(indices)]


def _places(indices: Value) -> tuple[Array, ...]:
    """Indices of several axes, which lie along the last axis, as one array for each."""
    return tuple(np.moveaxis(host(indices), -1, 0))


def _put(x: Value, key: tuple[Array, ...], updates: Value, reduction: str) -> Value:
    """x with updates at the places of a key; of several at one place the last stays, or all are added to x."""
    if reduction == "add":
        return x + scatter(updates, key=key, shape=tuple(x.shape))
    places, rest = np.broadcast_shapes(*[each.shape for each in key]), x.shape[len(key) :]
    count = math.prod(places)
    if not count:
        return x
    order = np.full(x.shape[: len(key)], -1)
    order[key] = np.arange(count).reshape(places)
    chosen = shapes.reshape(updates, shape=(count, *rest))[np.maximum(order, 0)]
    written = (order >= 0).reshape(*order.shape, *[1] * len(rest))
    return e.where(beside(written, x, updates), chosen, x)


def scatter_nd(
    x: Value, indices: Value, updates: Value, /, *, reduction: Literal["none", "add"] = "none"
) -> Value:  # fmt: skip
    return _put(x, _places(indices), updates, reduction)


def scatter_elements(
    x: Value, indices: Value, updates: Value, /, *, axis: int = 0, reduction: Literal["none", "add"] = "none"
) -> Value:  # fmt: skip
    key = list(np.indices(indices.shape, sparse=True))
    key[axis_of(x, axis)] = host(indices)
    return _put(x, tuple(np.broadcast_arrays(*key)), updates, reduction)


def one_hot(indices: Value, depth: Value, values: Value, /, *, axis: int = -1) -> Value:
    (n,), found = ints(depth), host(indices)
    at = axis + found.ndim + 1 if axis < 0 else axis
    room([n, *found.shape])
    wrapped = np.expand_dims(np.where(found < 0, found + n, found), at)
    hot = wrapped == np.arange(n).reshape(-1, *[1] * (found.ndim - at))
    return e.where(beside(hot, values), values[1], values[0])


def reverse_sequence(x: Value, sequence_lens: Value, /, *, time_axis: int = 0, batch_axis: int = 1) -> Value:
    """Turns the first steps of each sequence around, as many as it has."""
    if {time_axis, batch_axis} != {0, 1}:
        raise OptionError(f"time_axis and batch_axis are 0 and 1, not {time_axis} and {batch_axis}")
    T, N, lengths = x.shape[time_axis], x.shape[batch_axis], host(sequence_lens)
    steps = np.arange(T)[:, None]
    turned = np.where(steps < lengths, lengths - 1 - steps, steps)
    key = [turned, np.broadcast_to(np.arange(N), turned.shape)]
    return x[tuple(key) if time_axis == 0 else (key[1].T, key[0].T)]


# -- control flow ------------------------------------------------------------------------------------------------


def scan(
    *values: Value, body: Callable[..., tuple[Value, ...]], num_scan_inputs: int,
    scan_input_axes: tuple[int, ...] = (), scan_input_directions: tuple[int, ...] = (),
    scan_output_axes: tuple[int, ...] = (), scan_output_directions: tuple[int, ...] = (), node: Context,
) -> tuple[Value, ...]:  # fmt: skip
    """A body once for each step: of its outputs, the first are the states, the others one slice of each result."""
    if node.opset < 9:
        raise ConversionError(f"{node.name} has the form that Scan had before opset 9, which is not read")
    count = len(values) - num_scan_inputs
    states, sequences = values[:count], list(values[count:])
    for i, x in enumerate(sequences):
        sequences[i] = shapes.moveaxis(x, source=_at(scan_input_axes, i), destination=0)
        if _at(scan_input_directions, i):
            sequences[i] = shapes.flip(sequences[i], axis=0)
    lengths = {x.shape[0] for x in sequences}
    if len(lengths) != 1 or 0 in lengths:
        raise ShapeError(f"a Scan needs sequences of one length, at least 1, not {sorted(lengths)}")
    taken = getattr(current().listener, "scan", steps)  # by a listener that takes it as a whole
    ends, results = taken(states, sequences, body)
    for i, x in enumerate(results):
        x = shapes.flip(x, axis=0) if _at(scan_output_directions, i) else x
        results[i] = shapes.moveaxis(x, source=0, destination=_at(scan_output_axes, i))
    return (*ends, *results)


def steps(
    states: Sequence[Value], sequences: Sequence[Value], body: Callable[..., tuple[Value, ...]]
) -> tuple[list[Value], list[Value]]:
    """A body once for each step along the first axis -> the last states, and the other outputs along a first axis."""
    rows, ends = [], list(states)
    for t in range(sequences[0].shape[0]):
        with scope(step=t):
            found = body([*ends, *[x[t] for x in sequences]])
        ends = list(found[: len(states)])
        rows.append(found[len(states) :])
    return ends, [shapes.stack(list(column), axis=0) for column in zip(*rows)]


def _at(given: Ints, i: int) -> int:
    return given[i] if i < len(given) else 0


def branch(condition: Value, /, *, then_branch: Callable[..., Any], else_branch: Callable[..., Any]) -> Any:
    return (then_branch if host(condition).item() else else_branch)([])


def dropout(
    x: Value, /, ratio: Value = None, training_mode: Value = None, *, seed: int = 0, node: Context
) -> tuple[Value, ...]:  # fmt: skip
    """Nothing, as the file is for inference."""
    if training_mode is not None and host(training_mode).item():
        raise ConversionError(f"{node.name} has training_mode = True: its random numbers are not those of any other "
                              "library; export the model in the mode of evaluation")  # fmt: skip
    return (x,) if node.outputs == 1 else (x, np.ones(x.shape, bool))


OPERATORS: dict[str, Callable[..., Any]] = {
    # arithmetic
    "Add": lambda a, b, /: a + b,
    "Sub": lambda a, b, /: a - b,
    "Mul": lambda a, b, /: a * b,
    "Div": divide,
    "Mod": modulo,
    "Pow": lambda a, b, /: like(a, e.power(a, beside(b, a))),
    "Neg": lambda x, /: -x,
    "Abs": lambda x, /: e.abs(x),
    "Exp": lambda x, /: e.exp(x),
    "Log": lambda x, /: e.log(x),
    "Sqrt": lambda x, /: e.sqrt(x),
    "Reciprocal": lambda x, /: e.reciprocal(x),
    "Sin": lambda x, /: e.sin(x),
    "Cos": lambda x, /: e.cos(x),
    "Tan": lambda x, /: e.tan(x),
    "Asin": lambda x, /: e.arcsin(x),
    "Acos": lambda x, /: e.arccos(x),
    "Atan": lambda x, /: e.arctan(x),
    "Sinh": lambda x, /: e.sinh(x),
    "Cosh": lambda x, /: e.cosh(x),
    "Erf": lambda x, /: e.erf(x),
    "Sign": lambda x, /: e.sign(x),
    "Floor": lambda x, /: e.floor(x),
    "Ceil": lambda x, /: -e.floor(-x),
    "Max": lambda *xs: reduce(e.maximum, xs),
    "Min": lambda *xs: reduce(e.minimum, xs),
    "Sum": lambda *xs: reduce(lambda a, b: a + b, xs),
    "Mean": lambda *xs: reduce(lambda a, b: a + b, xs) / len(xs),
    "Clip": clip,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    # activations
    "Tanh": lambda x, /: e.tanh(x),
    "Sigmoid": lambda x, /: e.sigmoid(x),
    "Relu": lambda x, /: e.relu(x),
    "LeakyRelu": lambda x, /, *, alpha=0.01: Activation("LeakyRelu", alpha, 0.0)(x),
    "PRelu": lambda x, slope, /: e.where(x > 0, x, x * slope),
    "Elu": lambda x, /, *, alpha=1.0: Activation("Elu", alpha, 0.0)(x),
    "Softplus": lambda x, /: e.softplus(x),
    "Softsign": lambda x, /: Activation("Softsign", 0.0, 0.0)(x),
    "Gelu": gelu,
    "HardSigmoid": lambda x, /, *, alpha=0.2, beta=0.5: Activation("HardSigmoid", alpha, beta)(x),
    "HardSwish": lambda x, /: x * Activation("HardSigmoid", 1 / 6, 0.5)(x),
    "ThresholdedRelu": lambda x, /, *, alpha=1.0: Activation("ThresholdedRelu", alpha, 0.0)(x),
    "Softmax": along(reductions.softmax),
    "LogSoftmax": along(reductions.log_softmax),
    "LayerNormalization": layer_norm,
    "Dropout": dropout,
    # choices
    "Where": lambda condition, a, b, /: e.where(beside(condition, a, b), a, b),
    "Equal": lambda a, b, /: e.equal(a, b),
    "Greater": lambda a, b, /: e.greater(a, b),
    "GreaterOrEqual": lambda a, b, /: e.greater_equal(a, b),
    "Less": lambda a, b, /: e.less(a, b),
    "LessOrEqual": lambda a, b, /: e.less_equal(a, b),
    "Not": lambda x, /: e.logical_not(x),
    "And": lambda a, b, /: e.minimum(a, b),
    "Or": lambda a, b, /: e.maximum(a, b),
    "Xor": lambda a, b, /: e.not_equal(a, b),
    # reductions
    "ReduceSum": reduction(reductions.sum),
    "ReduceMean": reduction(reductions.mean),
    "ReduceMax": reduction(reductions.max),
    "ReduceMin": reduction(reductions.min),
    "ReduceProd": reduction(composed.prod),
    "ReduceL1": reduction(sum_of_sizes),
    "ReduceL2": reduction(reductions.norm),
    "ReduceSumSquare": reduction(sum_of_squares),
    "ReduceLogSum": reduction(log_of_sum),
    "ReduceLogSumExp": reduction(reductions.logsumexp),
    "ArgMax": extreme(reductions.argmax),
    "ArgMin": extreme(reductions.argmin),
    "CumSum": cumsum,
    # shapes
    "Cast": cast,
    "CastLike": lambda x, target, /, *, saturate=1, round_mode="up": like(target, x),
    "Identity": lambda x, /: x,
    "Shape": shape,
    "Size": lambda x, /: np.array(math.prod(x.shape), np.int64),
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "Slice": slices,
    "Pad": pad,
    "Trilu": trilu,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": counting,
    # picking elements
    "NonZero": lambda x, /: np.stack(np.nonzero(host(x))).astype(np.int64),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    # control flow
    "Scan": scan,
    "If": branch,
}
"""The function of each operator, by its name in ONNX."""
MANY = {"Split": None, "Scan": None, "If": None, "Dropout": 2, "LayerNormalization": 3}
"""How many outputs those operators have that have more than one; None: as many as the node names."""
