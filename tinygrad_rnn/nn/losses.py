"""Losses: how far an answer is from the truth, as a number to make small.

`reduction` is "mean" (over all elements), "sum" or "none" (one loss per element); another word is an OptionError.
Classes stand on the last axis, so that logits (T, N, V) go with targets (T, N) and nothing has to be reshaped. The
result has no axes, or with "none" those of the targets, and the dtype that the prediction and the target have together.
Whatever is refused, the message begins with the name of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..backend import BACKEND_OF, Array, as_array, backend_of
from ..core.modes import current, place
from ..core.primitive import primitive
from ..core.recording import home_of
from ..core.tensor import Tensor
from ..errors import DtypeError, IndexOutOfRange, OptionError, ShapeError, mixed
from ..functions.composed import take_along_axis
from ..ops.elementwise import clip, not_equal, softplus, square, where
from ..ops.reductions import mean, softmax, sum
from ..ops.shapes import expand_dims
from . import options

Reduction = Literal["mean", "sum", "none"]


@primitive("general", analytic=False)
def one_hot(xp: Any, targets: Array, *, size: int, dtype: Any = np.float32) -> Array:
    """A new last axis of length `size` with 1 at the index that the target names and 0 elsewhere. No gradient."""
    hot = xp.zeros((targets.size, size), dtype)
    hot[xp.arange(targets.size), targets.ravel()] = xp.ones((), dtype)  # a Python number would be copied to the GPU
    return hot.reshape((*targets.shape, size))


def _exponentials(xp: Any, logits: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Rows of exp(logits - largest), their sums, and logits - largest at the targets: (M, V), (M), (M).

    On short rows, argmax with a look-up takes half the time of max, and einsum a quarter of that of sum.
    """
    rows, places = logits.reshape(targets.size, logits.shape[-1]), xp.arange(targets.size)
    away = rows - rows[places, rows.real.argmax(axis=-1)].real[:, None]
    chosen = away[places, targets.ravel()]
    xp.exp(away, out=away)
    return away, xp.einsum("mv->m", away), chosen


def _through_softmax(g: Any, p: Any) -> Any:
    """From the gradient of p = softmax(logits) to that of the logits."""
    return p * (g - sum(g * p, axis=-1, keepdims=True))


@primitive(
    "general", latex=r"{scale} \odot (\mathrm{softmax}({logits}) - \mathrm{one\ hot}({targets}))",
    dscale=lambda g, logits, targets: sum(
        g * (softmax(logits, axis=-1) - one_hot(targets, size=logits.shape[-1], dtype=logits.dtype)), axis=-1
    ),
    dlogits=lambda g, scale, logits: _through_softmax(g * expand_dims(scale, axis=-1), softmax(logits, axis=-1)),
)  # fmt: skip
def cross_entropy_slope(xp: Any, scale: Array, logits: Array, targets: Array) -> Array:
    """scale * (softmax(logits) - one_hot(targets)) along the last axis: (...), (..., V), (...) -> (..., V)."""
    slope, sums, _ = _exponentials(xp, logits, targets)
    scale = scale.ravel()
    slope *= (scale / sums)[:, None]
    slope[xp.arange(targets.size), targets.ravel()] -= scale
    return slope.reshape(logits.shape)


@primitive(
    "general", latex=r"-\log \mathrm{softmax}({logits})_{{targets}}",
    dlogits=lambda g, logits, targets: cross_entropy_slope(g, logits, targets),
)  # fmt: skip
def softmax_cross_entropy(xp: Any, logits: Array, targets: Array) -> Array:
    """-log(softmax(logits)) at the targets, along the last axis: logits (..., V), targets (...) -> (...).

    The largest logit is taken off first, so that nothing overflows and a hopeless logit still has a slope. Unlike
    `cross_entropy`, it trusts its targets to be in range.
    """
    _, sums, chosen = _exponentials(xp, logits, targets)
    return (xp.log(sums) - chosen).reshape(targets.shape)


def cross_entropy(logits: Any, targets: Any, ignore_index: int | None = None, reduction: Reduction = "mean") -> Tensor:
    """The surprise at the true class, in nats: -log(softmax(logits)[target]).

    logits: (..., V), one score per class on the last axis; any real numbers.
    targets: (...), the true classes, integers from 0 to V - 1.
    ignore_index: positions with this target count for nothing, neither in the sum nor in the mean's denominator;
        a mean over no position at all is nan.
    reduction: "mean", "sum" (both without axes), or "none": one loss per target.

    Raises: ShapeError, if targets and logits do not fit each other; BackendError; DtypeError, if the targets are no
        integers or the logits no floats; OptionError for an ignore_index that is no integer, or another reduction;
        IndexOutOfRange for a class outside of 0 ... V - 1. Targets on a GPU are looked at only under `debug()`:
        reading them costs a wait.
    """
    return _over_classes("cross_entropy", softmax_cross_entropy, logits, targets, ignore_index, reduction)


def nll_loss(
    log_probabilities: Any, targets: Any, ignore_index: int | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Minus the logarithm of the probability of the true class; what `log_softmax` returns goes in.

    log_probabilities: (..., V). Other shapes, options and errors are those of `cross_entropy`.
    """
    return _over_classes("nll_loss", _negated_choice, log_probabilities, targets, ignore_index, reduction)


def mse(prediction: Any, target: Any, reduction: Reduction = "mean") -> Tensor:
    """The squared distance, element by element: (prediction - target)^2.

    prediction, target: numbers, of one shape. reduction: "mean", "sum" (both without axes), or "none": of that shape.

    Raises: DtypeError; BackendError; ShapeError, if the shapes are not equal: nothing is broadcast, since (N, 1)
        against (N,) would compare everything with everything; OptionError for another reduction.
    """
    prediction, target = _equals("mse", prediction, target)
    return _reduced(square(prediction - target), reduction)


def huber(prediction: Any, target: Any, reduction: Reduction = "mean", *, delta: float = 1.0) -> Tensor:
    """Half the squared distance up to `delta`, from there on as steep as at `delta` (Huber 1964).

    prediction, target: numbers, of one shape. reduction: as in `mse`.

    Raises: DtypeError; BackendError; ShapeError, if the shapes are not equal; OptionError, unless delta is above 0, and
        for another reduction.
    """
    if not options.number("huber: delta", delta) > 0:
        raise OptionError(f"huber: delta is {delta}; it is where the square becomes a line, and must be above 0")
    prediction, target = _equals("huber", prediction, target)
    away = prediction - target
    near = clip(away, min=-delta, max=delta)
    return _reduced(near * (away - 0.5 * near), reduction)


def binary_cross_entropy_with_logits(logits: Any, targets: Any, reduction: Reduction = "mean") -> Tensor:
    """The surprise, in nats, at a yes-or-no truth: -t log(s) - (1 - t) log(1 - s), where s = sigmoid(logit).

    targets: probabilities in [0, 1], of the logits' shape. reduction: as in `mse`.

    Computed as t softplus(-x) + (1 - t) softplus(x), which stays exact where s is 0 or 1 to rounding.

    Raises: DtypeError; BackendError; ShapeError, if the shapes are not equal; OptionError for another reduction.
    """
    logits, targets = _equals("binary_cross_entropy_with_logits", logits, targets)
    return _reduced(targets * softplus(-logits) + (1 - targets) * softplus(logits), reduction)


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise OptionError(f'reduction is "mean", "sum" or "none", not {reduction!r}')
    return losses if reduction == "none" else mean(losses) if reduction == "mean" else sum(losses)


def _equals(loss: str, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
    """The two sides of a loss as tensors, provided that they are alike in shape and lie together."""
    if not isinstance(prediction, Tensor):
        prediction = Tensor(options.array(f"{loss}: the prediction", prediction))
    if not isinstance(target, Tensor):
        target = Tensor(options.array(f"{loss}: the target", target, home_of(target, prediction)))
    if prediction.backend != target.backend:
        raise mixed(loss, ("prediction", "target"), (prediction, target), place())
    if prediction.dtype.kind == "b":
        raise DtypeError(
            f"{loss}: the prediction {prediction.label} has to be numbers: .astype('float32') fits{place()}"
        )
    if prediction.shape != target.shape:
        raise ShapeError(
            f"{loss}: the prediction {prediction.label} and the target {target.label} must have one shape; "
            f"bring the target to {prediction.shape}, with .reshape() or tg.broadcast_to{place()}"
        )
    return prediction, target


def _negated_choice(scores: Tensor, targets: Tensor) -> Tensor:
    chosen: Tensor = take_along_axis(scores, expand_dims(targets, axis=-1), -1)
    return -chosen.reshape(targets.shape)


def _over_classes(
    loss: str, function: Callable[[Tensor, Tensor], Tensor], scores: Any, targets: Any, ignored: int | None,
    reduction: Reduction,
) -> Tensor:  # fmt: skip
    """The checks, the ignored class and the reduction around a loss of scores (..., V) and targets (...)."""
    if not isinstance(scores, Tensor):
        scores = Tensor(options.array(f"{loss}: the scores", scores))
    bare = targets._array if isinstance(targets, Tensor) else targets
    bare = bare if type(bare) in BACKEND_OF else options.array(f"{loss}: the targets", bare, "numpy")
    _check_classes(loss, scores, bare, ignored)
    if not isinstance(targets, Tensor):
        targets = Tensor(as_array(bare, home_of(targets, scores)))
    if scores.backend != targets.backend:
        raise mixed(loss, ("scores", "targets"), (scores, targets), place())
    if ignored is None:
        return _reduced(function(scores, targets), reduction)
    kept = not_equal(targets, ignored)
    losses = where(kept, function(scores, where(kept, targets, 0)), 0)
    if reduction == "mean":
        return sum(losses) / sum(kept).astype(losses.dtype)
    return _reduced(losses, reduction)


def _check_classes(loss: str, scores: Tensor, targets: Array, ignored: int | None) -> None:
    """Refuse targets that name no class; those on a GPU are read only under `debug()`."""
    if not (ignored is None or isinstance(ignored, (int, np.integer))):
        raise OptionError(f"{loss}: ignore_index is the number of a class or None, not {ignored!r}")
    if scores.dtype.kind not in "fc":
        raise DtypeError(
            f"{loss}: scores of classes are floats, not {scores.label}; use .astype('float32') first{place()}"
        )
    if targets.dtype.kind not in "iu":
        raise DtypeError(
            f"{loss}: targets are the numbers of the true classes, hence integers, not {targets.dtype} of shape "
            f"{targets.shape}{place()}"
        )
    if not scores.ndim or targets.shape != scores.shape[:-1]:
        swapped = scores.ndim > 1 and targets.shape == (scores.shape[0], *scores.shape[2:])
        hint = "; its classes seem to stand on axis 1: use tg.moveaxis(logits, 1, -1)" if swapped else ""
        fitting = f"targets of shape {scores.shape[:-1]} would fit" if scores.ndim else "it needs an axis of classes"
        raise ShapeError(f"{loss}: targets of shape {targets.shape} for {scores.label}: {fitting}{hint}{place()}")
    if targets.size and (backend_of(targets).name == "numpy" or current().debug):
        classes = scores.shape[-1]
        host = backend_of(targets).to_host(targets)
        if host.min() < 0 or host.max() >= classes:
            wrong = (host < 0) | (host >= classes)
            if ignored is not None:
                wrong &= host != ignored
            if wrong.any():
                at = tuple(int(i[0]) for i in np.atleast_1d(wrong).nonzero())[: wrong.ndim]
                raise IndexOutOfRange(
                    f"{loss}: target {host[at]} at position {at} names no class: {scores.label} has the {classes} "
                    f"classes 0 to {classes - 1}{place()}"
                )
