"""Optimisers take PyTorch's way, step by step; their state survives a stop; wrong variants are found out."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import fakecupy
import numpy as np
import pytest
from golden import make_optim
from golden.make_optim import CASES, GOLDEN, KEPT, STEPS, objective, start

import tinygrad_rnn as tg
from tinygrad_rnn import optim
from tinygrad_rnn.errors import CheckpointError, ModifiedError, OptionError

PATHS = json.loads(GOLDEN.read_text())["paths"]
ALGORITHMS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"]


def leaves(values: dict[str, Any] | None = None) -> dict[str, tg.Tensor]:
    return {k: tg.tensor(v, requires_grad=True, name=k) for k, v in (values or start()).items()}


def advance(optimizer: optim.Optimizer, first: int, last: int, clipped: tuple[Any, ...] = ()) -> list[tg.Tensor]:
    """The steps from `first` up to `last`; the norms before clipping."""
    p, norms = optimizer.parameters, []
    for step in range(first, last + 1):
        optimizer.zero_grad()
        objective(p, step).backward()
        if clipped and clipped[0] == "norm":
            norms.append(optim.clip_grad_norm_(p.values(), clipped[1], clipped[2]))
        elif clipped:
            optim.clip_grad_value_(p.values(), clipped[1])
        optimizer.step()
    return norms


def follow(name: str, algorithm: Any = None) -> None:
    """Take the way of a case; AssertionError where it leaves PyTorch's."""
    default, options, clipped = CASES[name]
    optimizer = (algorithm or getattr(optim, default))(leaves(), **options)
    norms: list[tg.Tensor] = []
    for before, step in zip((0, *KEPT), KEPT, strict=False):
        norms += advance(optimizer, before + 1, step, clipped)
        for key, expected in PATHS[name]["kept"][str(step)].items():
            np.testing.assert_allclose(optimizer.parameters[key].numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([n.item() for n in norms], PATHS[name]["norms"], rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_path_is_that_of_torch(name: str, backend: str) -> None:
    follow(name)


def test_golden_paths_and_rates_are_what_torch_says_today() -> None:
    pytest.importorskip("torch")
    made = json.loads(json.dumps({"paths": make_optim.paths(), "rates": make_optim.rates()}))
    golden = json.loads(GOLDEN.read_text())
    assert set(made["paths"]) == set(golden["paths"]) and set(made["rates"]) == set(golden["rates"])
    for name, path in golden["paths"].items():
        np.testing.assert_allclose(made["paths"][name]["norms"], path["norms"], rtol=1e-10)
        for step, values in path["kept"].items():
            for key, value in values.items():
                np.testing.assert_allclose(made["paths"][name]["kept"][step][key], value, rtol=1e-10, atol=1e-12)
    for name, rates in golden["rates"].items():
        np.testing.assert_allclose(made["rates"][name], rates, rtol=1e-12)


# -- wrong variants that the golden paths must tell from the right ones ------------------------------------


class WithoutBiasCorrection(optim.Adam):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        return super().update(xp, p, g, buffers, 10**6)


class EpsInsideTheRoot(optim.Adam):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        super().update(xp, p, g, buffers, t)
        b1, b2 = self.betas
        mean, square = buffers["mean"] / (1 - b1**t), buffers["square"] / (1 - b2**t)
        return p - self.lr * mean / xp.sqrt(square + self.eps)


class CoupledDecay(optim.AdamW):
    decoupled = False


class DecoupledDecay(optim.Adam):
    decoupled = True


class NesterovWithoutLookingAhead(optim.SGD):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        self.nesterov = False
        return super().update(xp, p, g, buffers, t)


class DampedFromTheStart(optim.SGD):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        return super().update(xp, p, g, buffers, t + 1)


class NotCentered(optim.RMSprop):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        self.centered = False
        return super().update(xp, p, g, buffers, t)


class DecayingOneStepEarly(optim.Adagrad):
    def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
        return super().update(xp, p, g, buffers, t + 1)


class OneClockForAll(optim.Adam):
    def step(self) -> None:
        super().step()
        self.steps = dict.fromkeys(self.steps, max(self.steps.values()))


class ZeroForAMissingGradient(optim.Adam):
    def step(self) -> None:
        for p in self.parameters.values():
            p.grad = p.grad if p.grad is not None else p * 0
        super().step()


class WithoutDecay(optim.Optimizer):
    def step(self) -> None:
        self.weight_decay = 0.0
        super().step()


WRONG: list[tuple[str, type[optim.Optimizer]]] = [
    ("Adam", WithoutBiasCorrection),
    ("Adam", EpsInsideTheRoot),
    ("Adam", DecoupledDecay),
    ("Adam", OneClockForAll),
    ("Adam", ZeroForAMissingGradient),
    ("AdamW", CoupledDecay),
    ("AdamW by default", CoupledDecay),
    ("SGD with Nesterov's momentum", NesterovWithoutLookingAhead),
    ("SGD with dampening", DampedFromTheStart),
    ("RMSprop, centered with momentum", NotCentered),
    ("Adagrad", DecayingOneStepEarly),
    *[
        (name, type("WithoutDecay", (WithoutDecay, getattr(optim, name)), {}))
        for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
    ],
]


@pytest.mark.parametrize(("name", "algorithm"), WRONG, ids=[f"{name}-{a.__name__}" for name, a in WRONG])
def test_a_wrong_variant_leaves_the_path(name: str, algorithm: type[optim.Optimizer]) -> None:
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        follow(name, algorithm)


def test_a_norm_taken_parameter_by_parameter_leaves_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    together = optim.clip_grad_norm_
    monkeypatch.setattr(optim, "clip_grad_norm_", lambda ps, *how: list(map(lambda p: together(p, *how), ps)).pop())
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        follow("SGD, norm clipped")


# -- the state ------------------------------------------------------------------------------------------


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint stores it: arrays in one file, everything else in JSON."""
    arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
    assert all(v.flags.c_contiguous for v in arrays.values())
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    rest = json.loads(json.dumps({k: v for k, v in state.items() if k not in arrays}, allow_nan=False))
    return {**np.load(file), **rest}


@pytest.mark.parametrize("name", CASES)
def test_stopped_and_resumed_is_bit_identical(name: str, backend: str) -> None:
    algorithm, options, clipped = CASES[name]
    make = getattr(optim, algorithm)
    whole, first = make(leaves(), **options), make(leaves(), **options)
    advance(whole, 1, STEPS, clipped)
    advance(first, 1, 20, clipped)
    state, values = through_files(first.state_dict()), {k: p.numpy().copy() for k, p in first.parameters.items()}
    advance(first, 21, 23, clipped)  # must not reach into the state that was handed out
    second = make(leaves(values), lr=0.5)
    if second.state_dict().keys() == state.keys():
        second.load_state_dict(state)  # brings the options too
    else:  # other options need other buffers, and that is said
        with pytest.raises(CheckpointError, match=r"lacks|unknown"):
            second.load_state_dict(state)
        second = make(leaves(values), **{**options, "lr": 0.5})
        second.load_state_dict(state)
    advance(second, 21, STEPS, clipped)
    for key, p in whole.parameters.items():
        assert p.numpy().tobytes() == second.parameters[key].numpy().tobytes()
    assert through_files(second.state_dict()).keys() == through_files(whole.state_dict()).keys()
    for key, value in whole.state_dict().items():
        assert np.array_equal(second.state_dict()[key], value)


def test_a_state_without_its_buffers_does_not_continue_the_path() -> None:
    whole, broken = optim.Adam(leaves()), optim.Adam(leaves())
    advance(whole, 1, 6)
    advance(broken, 1, 3)
    state = broken.state_dict()
    broken.load_state_dict({k: np.zeros_like(v) if isinstance(v, np.ndarray) else v for k, v in state.items()})
    advance(broken, 4, 6)
    assert any((whole.parameters[k].numpy() != p.numpy()).any() for k, p in broken.parameters.items())


def test_what_does_not_fit_a_state_is_refused_and_changes_nothing() -> None:
    optimizer = optim.Adam(leaves(), lr=0.02)
    advance(optimizer, 1, 4)
    good = optimizer.state_dict()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({k: v for k, v in good.items() if k != "W.mean"}, "lacks 'W.mean'"),
        ({**good, "V.mean": np.zeros(3)}, "unknown 'V.mean'"),
        ({**good, "W.mean": np.zeros((3, 2))}, r"'W.mean' must be an array of shape \(2, 3\)"),
        ({**good, "W.mean": np.zeros((2, 3), np.float32)}, "dtype float64, not an array .* float32"),
        ({**good, "W.mean": [[0.0] * 3] * 2}, "not of type list|not a list"),
        ({**good, "W.step": "4"}, "'W.step' must be of type int, not of type str"),
        ({**good, "betas": [0.9]}, "a list of 2 numbers, not a list of 1"),
        (optim.AdamW(leaves()).state_dict(), "a state of AdamW, not of Adam"),
        (optim.SGD(leaves(), momentum=0.9).state_dict(), "must come from Adam"),
    ]
    for state, message in wrong:
        with pytest.raises(CheckpointError, match=message):
            optimizer.load_state_dict({**state, "lr": 9.0})
        assert all(np.array_equal(optimizer.state_dict()[key], value) for key, value in good.items())


# -- what a step leaves alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_read_from_the_device_nor_sent_to_it(name: str) -> None:
    algorithm, options, clipped = CASES[name]
    with tg.use_backend("fakecupy"):
        optimizer = getattr(optim, algorithm)(leaves(), **options)
        objective(optimizer.parameters, 1).backward()
        with fakecupy.counting() as seen:
            if clipped and clipped[0] == "norm":
                norm = optim.clip_grad_norm_(optimizer.parameters, *clipped[1:])
                assert norm.backend.startswith("fakecupy") and norm.shape == ()
            elif clipped:
                optim.clip_grad_value_(optimizer.parameters, clipped[1])
            optimizer.step()
            optimizer.step()
            optimizer.zero_grad()
        assert seen["launches"] > 0
        assert seen["d2h"] == seen["h2d"] == seen["syncs"] == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_arrays_that_others_hold_stay_as_they_are(algorithm: str, backend: str) -> None:
    optimizer = getattr(optim, algorithm)(leaves(), lr=0.1, weight_decay=0.1)
    p = optimizer.parameters
    objective(p, 1).backward()
    held = [(x._array, x.numpy().copy()) for q in p.values() for x in (q, q.grad)]
    optim.clip_grad_norm_(p, 0.01)
    optim.clip_grad_value_(p, 0.001)
    optimizer.step()
    assert all(np.array_equal(tg.tensor(array).numpy(), before) for array, before in held)
    assert all((q.numpy() != before).any() for q, (_, before) in zip(p.values(), held[::2], strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_dtype_shape_place_and_identity_stay(algorithm: str, backend: str) -> None:
    values = {k: v.astype(np.float32) for k, v in start().items()}
    p = leaves(values)
    optimizer = getattr(optim, algorithm)(p, weight_decay=0.1)
    for step in (1, 2, 3):
        objective(p, step).backward()
        optim.clip_grad_norm_(p, 1.0)
        optimizer.step()
    for key, value in values.items():
        q = p[key]
        assert optimizer.parameters[key] is q and q.requires_grad and q.op is None
        assert (q.shape, q.dtype, q.backend.partition(":")[0]) == (value.shape, np.float32, backend)
        assert type(q._array) is type(tg.zeros(2)._array)
        assert all((b.shape, b.dtype) == (value.shape, np.float32) for b in optimizer.buffers[key].values())


def test_a_tape_from_before_the_step_notices(backend: str) -> None:
    p = leaves()
    optimizer = optim.SGD(p)
    loss = objective(p, 1)
    loss.backward()
    optimizer.step()
    with pytest.raises(ModifiedError, match="changed"):
        loss.backward()


def test_a_parameter_without_a_gradient_is_left_alone(backend: str) -> None:
    p = leaves()
    optimizer = optim.AdamW(p, weight_decay=0.5)
    (p["x"].sum() * 2).backward()
    optimizer.step()
    assert np.array_equal(p["u"].numpy(), start()["u"]) and optimizer.steps["u"] == 0
    assert (p["x"].numpy() != start()["x"]).all() and optimizer.steps["x"] == 1
    optimizer.zero_grad()
    assert all(q.grad is None for q in p.values())


def test_a_model_that_moved_takes_its_buffers_along() -> None:
    stay, move = optim.Adam(leaves(), lr=0.1), optim.Adam(leaves(), lr=0.1)
    for optimizer in (stay, move):
        advance(optimizer, 1, 5)
    for q in move.parameters.values():
        q._array = q.to("fakecupy")._array
    for optimizer in (stay, move):
        advance(optimizer, 6, 9)
    assert all(q.backend.startswith("fakecupy") for q in move.parameters.values())
    assert all(np.array_equal(q.numpy(), stay.parameters[k].numpy()) for k, q in move.parameters.items())


def test_parameters_come_as_a_list_a_generator_pairs_or_a_dict() -> None:
    p = leaves()
    assert list(optim.SGD(list(p.values())).parameters) == ["0", "1", "2", "3"]
    assert list(optim.SGD(q for q in p.values()).parameters.values()) == list(p.values())
    assert optim.SGD(p.items()).parameters == optim.SGD(p).parameters == p
    assert set(optim.SGD(p, momentum=0.5).state_dict()) >= {"x.velocity", "W.step", "momentum", "nesterov"}
    assert repr(optim.SGD(p, lr=0.5)).startswith("SGD(4 parameters, lr=0.5, momentum=0.0")


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("SGD", {"lr": 0}, "lr must be a number above 0, not 0"),
    ("Adam", {"lr": -1e-3}, "lr must be"),
    ("Adam", {"lr": math.nan}, "lr must be"),
    ("Adam", {"lr": math.inf}, "lr must be"),
    ("Adam", {"lr": "0.1"}, "lr must be a number above 0, not '0.1'"),
    ("Adam", {"betas": (0.9, 1.0)}, "betas must be a number at least 0 and below 1, not 1.0"),
    ("AdamW", {"betas": (-0.1, 0.9)}, "betas must be"),
    ("Adam", {"betas": (0.9,)}, "betas is a pair"),
    ("Adam", {"betas": 0.9}, "betas is a pair"),
    ("Adam", {"eps": -1e-8}, "eps must be a number at least 0"),
    ("AdamW", {"weight_decay": -0.1}, "weight_decay must be"),
    ("SGD", {"momentum": -0.5}, "momentum must be"),
    ("SGD", {"nesterov": True}, "nesterov needs momentum"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs momentum"),
    ("RMSprop", {"alpha": 1.0}, "alpha must be"),
    ("Adagrad", {"lr_decay": -1.0}, "lr_decay must be"),
    ("Adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value must be"),
]


@pytest.mark.parametrize(("algorithm", "options", "message"), BAD)
def test_an_option_out_of_range_is_refused(algorithm: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        getattr(optim, algorithm)(leaves(), **options)


def test_parameters_that_cannot_learn_are_refused() -> None:
    x = tg.ones(3, requires_grad=True, name="x")
    used_up = iter([x])
    list(used_up)
    for parameters, message in [
        ([], "no parameters"),
        (used_up, "used up"),
        ([x, tg.ones(2)], r"parameter '1', tensor \(2,\) float32, cannot learn"),
        ([x * 2], "takes leaves"),
        ([x, x], "comes twice"),
        ([("a", x), ("a", tg.ones(2, requires_grad=True))], "comes twice"),
        ([np.ones(3)], "is a ndarray, not a Tensor"),
    ]:
        with pytest.raises(OptionError, match=message):
            optim.SGD(parameters)  # type: ignore[arg-type]


# -- clipping -------------------------------------------------------------------------------------------


def with_gradients(*gradients: Any) -> list[tg.Tensor]:
    made = []
    for g in gradients:
        p = tg.tensor(np.zeros_like(g), requires_grad=True)
        p.grad = tg.tensor(g)
        made.append(p)
    return made


def test_a_small_gradient_keeps_its_length_and_a_long_one_its_direction(backend: str) -> None:
    a, b = with_gradients(np.array([3.0, 0.0]), np.array([[0.0, 4.0, 0.0]]))
    assert optim.clip_grad_norm_([a, b], 7.0).item() == pytest.approx(5.0)
    assert a.grad.tolist() == [3.0, 0.0] and b.grad.tolist() == [[0.0, 4.0, 0.0]]
    norm = optim.clip_grad_norm_([a, b], 1.0)
    assert (norm.item(), norm.shape, norm.requires_grad) == (pytest.approx(5.0), (), False)
    np.testing.assert_allclose(a.grad.numpy(), [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [[0.0, 0.8, 0.0]], rtol=1e-6)


def test_clipping_keeps_dtypes_apart_and_skips_what_has_no_gradient(backend: str) -> None:
    a, b = with_gradients(np.array([30.0, 0.0], np.float32), np.array([40.0]))
    rest = tg.ones(2, requires_grad=True)
    assert optim.clip_grad_norm_([a, rest, b], 5.0).item() == pytest.approx(50.0)
    assert (a.grad.dtype, b.grad.dtype, rest.grad) == (np.float32, np.float64, None)
    np.testing.assert_allclose([a.grad.numpy()[0], b.grad.item()], [3.0, 4.0], rtol=1e-6)
    optim.clip_grad_value_([a, rest, b], 3.5)
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose([a.grad.numpy()[0], b.grad.item()], [3.0, 3.5], rtol=1e-6)
    assert optim.clip_grad_norm_(rest, 1.0).item() == 0.0


def test_a_gradient_that_is_nan_or_zero_passes_without_a_warning(backend: str) -> None:
    (a,) = with_gradients(np.array([1.0, math.nan]))
    assert math.isnan(optim.clip_grad_norm_(a, 1.0).item()) and np.isnan(a.grad.numpy()).all()
    (b,) = with_gradients(np.zeros(3))
    assert optim.clip_grad_norm_(b, 1.0).item() == 0.0 and b.grad.tolist() == [0.0] * 3


def test_two_leaves_that_share_an_upstream_gradient_are_each_clipped_once(backend: str) -> None:
    a, b = (tg.tensor(np.full(2, 5.0), requires_grad=True) for _ in range(2))
    ((a + b) * tg.tensor(np.array([3.0, 4.0]))).sum().backward()
    assert optim.clip_grad_norm_([a, b], 1.0).item() == pytest.approx(math.sqrt(50))
    joined = np.concatenate([a.grad.numpy(), b.grad.numpy()])
    assert np.sqrt((joined**2).sum()) == pytest.approx(1.0, rel=1e-5)


def test_clipping_refuses_what_makes_no_sense() -> None:
    (a,) = with_gradients(np.ones(2))
    for call in (
        lambda: optim.clip_grad_norm_(a, 0.0),
        lambda: optim.clip_grad_norm_(a, math.nan),
        lambda: optim.clip_grad_norm_(a, 1.0, 0.0),
        lambda: optim.clip_grad_value_(a, -1.0),
        lambda: optim.clip_grad_norm_([], 1.0),
    ):
        with pytest.raises(OptionError):
            call()
    b = tg.tensor(np.ones(3), requires_grad=True, backend="fakecupy")
    b.grad = tg.tensor(np.ones(3), backend="fakecupy")
    with pytest.raises(tg.errors.BackendError, match="numpy and fakecupy"):
        optim.clip_grad_norm_([a, b], 1.0)


@pytest.mark.parametrize("make", [
    lambda p: tg.optim.RMSprop(p, lr=0.01, alpha=0.0), lambda p: tg.optim.Adam(p, lr=0.01, betas=(0.0, 0.0)),
    lambda p: tg.optim.Adam(p, lr=0.01, betas=(0.0, 1e-6)),
])  # fmt: skip
def test_an_average_that_keeps_next_to_nothing_is_the_last_number(make):
    """With nothing kept, g / sqrt(g^2) is 1 at each step; a difference of squares has lost that."""
    p = tg.tensor([1.0], requires_grad=True)
    optimizer = make([p])
    for g in (1.0, 1e-2):
        p.grad = tg.tensor([g])
        optimizer.step()
    assert p.item() == pytest.approx(0.98, abs=1e-4)
