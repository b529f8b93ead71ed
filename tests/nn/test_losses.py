"""Losses: values and gradients are PyTorch's, derivatives are checked to second order, bad input is named."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import fakecupy
import numpy as np
import pytest
from golden import make_losses
from golden.make_losses import CASES, GOLDEN, wave

import tinygrad_rnn as tg
from tinygrad_rnn.errors import BackendError, DtypeError, GradcheckError, IndexOutOfRange, OptionError, ShapeError
from tinygrad_rnn.nn import losses

LOSSES = json.loads(GOLDEN.read_text())
CLASSES = np.array([[5, 0, 2, 2], [1, 3, 5, 2], [4, 4, 2, 0]])


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_torch(name: str, backend: str) -> None:
    loss, x, target, options = CASES[name]
    leaf = tg.tensor(x, requires_grad=True)
    value = getattr(losses, loss)(leaf, tg.tensor(target), **options)
    expected = LOSSES[name]
    np.testing.assert_allclose(value.numpy(), expected["value"], rtol=1e-12, atol=1e-300)
    value.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), expected["gradient"], rtol=1e-10, atol=1e-15)
    assert (value.dtype, leaf.grad.dtype, value.backend) == (np.float64, np.float64, leaf.backend)


def test_golden_numbers_are_what_torch_says_today() -> None:
    pytest.importorskip("torch")
    made = make_losses.losses()
    assert set(made) == set(LOSSES) == set(CASES)
    for name, expected in LOSSES.items():
        for kind in ("value", "gradient"):
            np.testing.assert_allclose(made[name][kind], expected[kind], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [None, 2])
def test_cross_entropy_is_nll_of_log_softmax_to_second_order(reduction: Any, ignored: int | None, backend: str) -> None:
    """The primitive against the same thing op by op: value, gradient, and the gradient of a gradient."""
    x, targets, v = (
        tg.tensor(wave(3, 4, 6), requires_grad=True),
        tg.tensor(CLASSES),
        tg.tensor(wave(3, 4, 6, shift=2.0)),
    )
    found = []
    for loss in (
        losses.cross_entropy(x, targets, ignored, reduction),
        losses.nll_loss(tg.log_softmax(x), targets, ignored, reduction),
    ):
        weights = tg.tensor(wave(*loss.shape))
        (first,) = tg.pullback(loss, [x], weights, create_graph=True)
        (second,) = tg.pullback((first * v).sum(), [x])
        found.append([loss.numpy(), first.numpy(), second.numpy()])
    for fused, composed in zip(*found, strict=True):
        np.testing.assert_allclose(fused, composed, rtol=1e-11, atol=1e-15)
    assert np.abs(found[0][2]).max() > 1e-3


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 2}])
def test_derivatives_over_classes(loss: str, options: dict[str, Any], backend: str) -> None:
    tg.gradcheck(lambda x: getattr(losses, loss)(x, tg.tensor(CLASSES), **options), wave(3, 4, 6), order=2)


@pytest.mark.parametrize("loss", ["mse", "huber", "binary_cross_entropy_with_logits"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_derivatives_over_numbers_for_both_arguments(loss: str, reduction: str, backend: str) -> None:
    f = partial(getattr(losses, loss), reduction=reduction)
    tg.gradcheck(f, wave(2, 3, 4), wave(2, 3, 4, shift=1.1), order=2)


def test_a_wrong_rule_of_softmax_cross_entropy_is_found_out() -> None:
    for wrong in (
        lambda g, logits, targets: tg.expand_dims(g, axis=-1) * tg.softmax(logits, axis=-1),  # no one-hot
        lambda g, logits, targets: tg.softmax(logits, axis=-1) - losses.one_hot(targets, size=logits.shape[-1]),  # no g
        lambda g, logits, targets: tg.expand_dims(g, axis=-1) * (
            tg.softmax(logits, axis=-1) - losses.one_hot(targets * 0, size=logits.shape[-1])
        ),
    ):  # fmt: skip
        rule = tg.primitive("general", dlogits=wrong)(losses.softmax_cross_entropy.primitive.kernel)
        try:
            with pytest.raises(GradcheckError, match="softmax_cross_entropy"):
                tg.gradcheck(lambda x, rule=rule: rule(x, tg.tensor(CLASSES)), wave(3, 4, 6))
        finally:
            tg.core.primitive.PRIMITIVES["softmax_cross_entropy"] = losses.softmax_cross_entropy.primitive


def test_one_hot(backend: str) -> None:
    hot = losses.one_hot(tg.tensor([[1, 0, 3]]), size=4)
    assert hot.tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]] and hot.dtype == np.float32
    assert losses.one_hot(tg.tensor(2), size=3, dtype=np.float64).tolist() == [0, 0, 1]


def test_memory_in_any_order(backend: str) -> None:
    """Classes moved to the last axis: the array is a view whose rows do not lie one after the other."""
    logits = tg.moveaxis(tg.tensor(wave(6, 3, 4), requires_grad=True), 0, -1)
    (slope,) = tg.pullback(losses.cross_entropy(logits, CLASSES.tolist(), reduction="sum"), [logits])
    expected = tg.softmax(logits, axis=-1).numpy() - np.eye(6)[CLASSES]
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-12)


# -- extremes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_logits_neither_overflow_nor_lose_their_slope(dtype: Any, backend: str) -> None:
    big = float(np.finfo(dtype).max) / 4
    x = tg.tensor(np.array([[big, 0.0, -big], [-big, big, big], [1.0, 1.0, 1.0]], dtype), requires_grad=True)
    loss = losses.cross_entropy(x, tg.tensor([0, 1, 2]), reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0.0, math.log(2), math.log(3)], rtol=1e-3)
    loss.sum().backward()
    third = 1 / 3
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0, 0], [0, -0.5, 0.5], [third, third, third - 1]], rtol=1e-3)
    hopeless = losses.cross_entropy(x, tg.tensor([1, 0, 0]), reduction="none")
    np.testing.assert_allclose(hopeless.numpy()[:2], [big, 2 * big], rtol=1e-3)
    assert (loss.dtype, x.grad.dtype) == (dtype, dtype)


def test_a_class_that_cannot_be_has_probability_zero(backend: str) -> None:
    x = tg.tensor(np.array([[-np.inf, 1.0, 2.0]]), requires_grad=True)
    losses.cross_entropy(x, tg.tensor([2])).backward()
    p = 1 / (1 + math.e)
    np.testing.assert_allclose(x.grad.numpy(), [[0.0, p, -p]], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sure_answer_keeps_its_small_loss(dtype: Any, backend: str) -> None:
    """softplus(x) - t x would be 0 for the one, (1 - t) x + softplus(-x) for the other: exp(-40) is lost beside 40."""
    x = tg.tensor(np.array([40.0, -40.0], dtype))
    loss = losses.binary_cross_entropy_with_logits(x, tg.tensor(np.array([1.0, 0.0], dtype)), "none")
    np.testing.assert_allclose(loss.numpy(), [math.exp(-40)] * 2, rtol=1e-6)


def test_huber_meets_at_delta_and_is_square_within(backend: str) -> None:
    x = tg.tensor(np.array([-3.0, -0.5, 0.0, 0.5, 0.7, 3.0]), requires_grad=True)
    losses.huber(x, tg.zeros(6, dtype=np.float64), "sum", delta=0.5).backward()
    np.testing.assert_allclose(x.grad.numpy(), [-0.5, -0.5, 0.0, 0.5, 0.5, 0.5])
    (slope,) = tg.pullback(losses.huber(x, tg.zeros(6, dtype=np.float64), "sum"), [x], create_graph=True)
    np.testing.assert_allclose(tg.pullback(slope.sum(), [x])[0].numpy(), [0, 1, 1, 1, 1, 0])  # 1 at 0 too


def test_a_mean_over_nothing_is_nan_and_says_so() -> None:
    x = tg.tensor(wave(2, 3), requires_grad=True)
    with pytest.warns(RuntimeWarning, match="invalid value"):
        assert math.isnan(losses.cross_entropy(x, [1, 1], ignore_index=1).item())
    assert losses.cross_entropy(x, [1, 1], ignore_index=1, reduction="sum").item() == 0.0


# -- what comes in --------------------------------------------------------------------------------------


def test_lists_and_arrays_are_taken_as_they_are(backend: str) -> None:
    x = tg.tensor(wave(3, 4, 6), requires_grad=True)
    expected = losses.cross_entropy(x, tg.tensor(CLASSES)).item()
    assert losses.cross_entropy(x, CLASSES.tolist()).item() == expected
    for dtype in (np.uint8, np.int32, np.uint64):
        for ignored in (None, -100):
            assert losses.cross_entropy(x, tg.tensor(CLASSES.astype(dtype)), ignored).item() == pytest.approx(expected)
    y = losses.mse(x, wave(3, 4, 6, shift=1.0).tolist())
    assert (y.backend, y.shape) == (x.backend, ())
    assert losses.cross_entropy(wave(3, 4, 6), CLASSES.tolist()).item() == expected


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ([4, 0, 6, 1], {}, r"target 6 at position \(2,\) names no class: .*\(4, 6\) .* has the 6 classes 0 to 5"),
        ([-1, 0, 9, 1], {}, r"target -1 at position \(0,\)"),
        ([-100, 0, 9, 1], {"ignore_index": -100}, r"target 9 at position \(2,\)"),
        ([-100, 0, 5, 1], {"ignore_index": 0}, r"target -100 at position \(0,\)"),
    ],
)
@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
def test_a_class_out_of_range_is_named(loss: str, targets: list[int], options: Any, message: str, backend: str) -> None:
    x, f = tg.tensor(wave(4, 6)), getattr(losses, loss)
    with pytest.raises(IndexOutOfRange, match=message):  # a list is host data on every backend
        f(x, targets, **options)
    with pytest.raises(IndexOutOfRange, match=message), tg.debug():
        f(x, tg.tensor(targets), **options)


def test_a_class_out_of_range_is_named_at_any_depth_and_place() -> None:
    with tg.scope("model", "Model"), pytest.raises(IndexOutOfRange, match=r"at position \(1, 2\) .* \(in model\)"):
        losses.cross_entropy(tg.tensor(wave(2, 3, 4)), np.array([[0, 1, 2], [3, 0, 4]]))
    with pytest.raises(IndexOutOfRange, match=r"target 5 at position \(\)"):
        losses.cross_entropy(tg.tensor(wave(4)), tg.tensor(5))


def test_targets_on_the_device_are_not_read_inside_a_step() -> None:
    with tg.use_backend("fakecupy"):
        x, targets = tg.tensor(wave(3, 4, 6), requires_grad=True), tg.tensor(CLASSES)
        others = tg.tensor(wave(3, 4, 6, shift=1.1))
        with fakecupy.counting() as seen:
            losses.cross_entropy(x, targets).backward()
            losses.cross_entropy(x, targets, ignore_index=2).backward()
            losses.nll_loss(x, targets, ignore_index=2).backward()
            for loss in (losses.mse, losses.huber, losses.binary_cross_entropy_with_logits):
                loss(x, others).backward()
        assert seen["launches"] > 0
        assert seen["d2h"] == seen["h2d"] == seen["syncs"] == 0


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize(
    ("x", "targets", "error", "message"),
    [
        (
            wave(3, 4, 6),
            CLASSES.T,
            ShapeError,
            r"targets of shape \(4, 3\) for .*\(3, 4, 6\).*shape \(3, 4\) would fit",
        ),
        (wave(3, 6, 4), np.zeros((3, 4), int), ShapeError, r"axis 1: use tg.moveaxis\(logits, 1, -1\)"),
        (wave(4, 6), np.zeros((4, 1), int), ShapeError, r"targets of shape \(4,\) would fit"),
        (wave(), np.array(0), ShapeError, "needs an axis of classes"),
        (wave(4, 6), np.zeros(4), DtypeError, "integers, not float64"),
        (wave(4, 6), np.zeros(4, bool), DtypeError, "integers, not bool"),
        (np.zeros((4, 6), int), np.zeros(4, int), DtypeError, r"floats, not .*int64; use .astype"),
    ],
)
def test_what_does_not_fit_is_refused(loss: str, x: Any, targets: Any, error: Any, message: str, backend: str) -> None:
    with pytest.raises(error, match=message):
        getattr(losses, loss)(tg.tensor(x), tg.tensor(targets))


@pytest.mark.parametrize("loss", ["mse", "huber", "binary_cross_entropy_with_logits"])
def test_nothing_is_broadcast_in_silence(loss: str, backend: str) -> None:
    for a, b in [((5, 1), (5,)), ((5,), (5, 1)), ((2, 3), (3,)), ((3,), ())]:
        with pytest.raises(ShapeError) as caught:
            getattr(losses, loss)(tg.tensor(wave(*a)), tg.tensor(wave(*b)))
        assert str(a) in str(caught.value) and str(b) in str(caught.value)


def test_options_out_of_their_choices_are_refused() -> None:
    x, targets = tg.tensor(wave(4, 6)), tg.tensor([0, 1, 2, 3])
    for call in (
        lambda: losses.cross_entropy(x, targets, reduction="average"),  # type: ignore[arg-type]
        lambda: losses.cross_entropy(x, targets, 2, "average"),  # type: ignore[arg-type]
        lambda: losses.mse(x, x, "max"),  # type: ignore[arg-type]
        lambda: losses.huber(x, x, delta=0.0),
        lambda: losses.huber(x, x, delta=math.nan),
        lambda: losses.huber(x, x, delta="far"),  # type: ignore[arg-type]
    ):
        with pytest.raises(OptionError):
            call()


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "mse", "huber", "binary_cross_entropy_with_logits"])
def test_a_refusal_begins_with_the_name_of_the_loss(name: str) -> None:
    loss, scores = getattr(losses, name), wave(4, 6)
    truth = np.array([0, 1, 2, 3]) if name in ("cross_entropy", "nll_loss") else wave(4, 6)
    for call, error in (
        (lambda: loss(scores, truth[:3]), ShapeError),
        (lambda: loss(scores, [[1], [1, 2]]), ShapeError),
        (lambda: loss([[1.0], [1.0, 2.0]], truth), ShapeError),
        (lambda: loss(scores > 0, truth > 0), DtypeError),
        (lambda: loss(scores, ["a"]), DtypeError),
        (lambda: loss(scores, None), DtypeError),
        (lambda: loss(tg.tensor(scores, backend="fakecupy"), truth), BackendError),
    ):
        with tg.scope("model", "Model"), pytest.raises(error, match=rf"(?s)^{name}: .*\(in model\)$"):
            call()
    if truth.ndim == 1:
        for wrong in ("a", 1.5):
            with pytest.raises(OptionError, match=f"^{name}: ignore_index"):
                loss(scores, truth, ignore_index=wrong)


def test_two_backends_do_not_mix() -> None:
    x = tg.tensor(wave(4, 6), backend="fakecupy")
    with pytest.raises(BackendError, match=r"targets.*lies on|lies on .* but targets"):
        losses.cross_entropy(x, np.array([0, 1, 2, 3]))
    with pytest.raises(BackendError, match="lies on"):
        losses.mse(x, wave(4, 6))
