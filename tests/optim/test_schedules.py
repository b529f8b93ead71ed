"""Schedules: the rates are PyTorch's; a state continues them; what makes no sense is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from golden.make_optim import GOLDEN, LR, STEPS, measured

import tinygrad_rnn as tg
from tinygrad_rnn import optim
from tinygrad_rnn.errors import CheckpointError, OptionError

RATES = json.loads(GOLDEN.read_text())["rates"]
O = optim  # noqa: E741
MADE: dict[str, Callable[[optim.Optimizer], optim.Schedule]] = {
    "StepLR": lambda o: O.StepLR(o, 7, gamma=0.6),
    "StepLR by default": lambda o: O.StepLR(o, 20),
    "ExponentialLR": lambda o: O.ExponentialLR(o, 0.93),
    "CosineLR": lambda o: O.CosineLR(o, STEPS, lr_min=0.01),
    "CosineLR by default": lambda o: O.CosineLR(o, STEPS),
    "WarmupLR": lambda o: O.WarmupLR(o, 12, start_factor=0.1),
    "WarmupLR by default": lambda o: O.WarmupLR(o, 9),
    "ReduceLROnPlateau": lambda o: O.ReduceLROnPlateau(o, factor=0.5, patience=3, cooldown=2, lr_min=0.02),
    "ReduceLROnPlateau, upwards": lambda o: O.ReduceLROnPlateau(
        o, "max", factor=0.7, patience=2, threshold=0.2, threshold_mode="abs"
    ),
    "ReduceLROnPlateau, a share upwards": lambda o: O.ReduceLROnPlateau(
        o, "max", factor=0.5, patience=4, threshold=0.3
    ),
    "ReduceLROnPlateau by default": lambda o: O.ReduceLROnPlateau(o),
}
THEN = {"WarmupLR, then CosineLR": lambda o: O.WarmupLR(o, 10, start_factor=0.1, then=O.CosineLR(o, 30, lr_min=0.01))}


def sgd(lr: float = LR) -> optim.SGD:
    return optim.SGD([tg.ones(2, requires_grad=True)], lr=lr)


def run(schedule: optim.Schedule, first: int, last: int, upwards: bool) -> list[float]:
    rates = []
    for step in range(first, last):
        rates.append(schedule.optimizer.lr)
        schedule.step(measured(step, upwards))
    return rates


def test_every_schedule_of_torch_is_compared() -> None:
    assert set(MADE) == set(RATES)


@pytest.mark.parametrize("name", MADE)
def test_rates_are_those_of_torch(name: str) -> None:
    np.testing.assert_allclose(run(MADE[name](sgd()), 0, STEPS, "upwards" in name), RATES[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("StepLR", lambda o: O.StepLR(o, 8, gamma=0.6)),
        ("CosineLR", lambda o: O.CosineLR(o, STEPS)),
        ("WarmupLR", lambda o: O.WarmupLR(o, 12, start_factor=0.0)),
        ("ReduceLROnPlateau", lambda o: O.ReduceLROnPlateau(o, factor=0.5, patience=3, lr_min=0.02)),
        ("ReduceLROnPlateau, upwards", lambda o: O.ReduceLROnPlateau(o, "max", factor=0.7, patience=2, threshold=0.2)),
    ],
)
def test_a_wrong_schedule_is_found_out(name: str, wrong: Callable[[optim.Optimizer], optim.Schedule]) -> None:
    assert not np.allclose(run(wrong(sgd()), 0, STEPS, "upwards" in name), RATES[name], rtol=1e-12, atol=0)


def test_warmup_hands_over() -> None:
    rates = run(THEN["WarmupLR, then CosineLR"](sgd()), 0, STEPS, False)
    expected = [LR * (0.1 + 0.9 * k / 10) for k in range(10)]
    expected += [0.01 + (LR - 0.01) * (1 + math.cos(math.pi * k / 30)) / 2 for k in range(31)]
    np.testing.assert_allclose(rates, expected + [0.01] * (STEPS - 41), rtol=1e-12)


@pytest.mark.parametrize("name", [*MADE, *THEN])
def test_stopped_and_resumed_goes_on_exactly(name: str) -> None:
    make, upwards = {**MADE, **THEN}[name], "upwards" in name
    whole = run(make(sgd()), 0, STEPS, upwards)
    first = make(sgd())
    assert run(first, 0, 23, upwards) == whole[:23]
    states = json.loads(json.dumps([first.state_dict(), first.optimizer.state_dict()], allow_nan=False))
    second = make(sgd(0.7))
    second.load_state_dict(states[0])
    assert run(second, 23, STEPS, upwards) == whole[23:]
    second.load_state_dict(states[0])
    second.optimizer.load_state_dict(states[1] | {"0.step": 0})
    assert second.optimizer.lr == whole[23]


def test_a_state_of_something_else_is_refused() -> None:
    schedule = MADE["StepLR"](sgd())
    run(schedule, 0, 9, False)
    good, rate = schedule.state_dict(), schedule.optimizer.lr
    for wrong in (MADE["ExponentialLR"](sgd()).state_dict(), {**good, "best": 1}, {"count": 3}):
        with pytest.raises(CheckpointError, match="the state of a StepLR has schedule, base_lr, count"):
            schedule.load_state_dict(wrong)
        assert (schedule.state_dict(), schedule.optimizer.lr) == (good, rate)


def test_plateau_takes_a_tensor_and_needs_a_loss(backend: str) -> None:
    schedule = optim.ReduceLROnPlateau(sgd(), patience=0)
    schedule.step(tg.tensor(0.5))
    assert schedule.optimizer.lr == LR
    schedule.step(tg.tensor(0.5))
    assert schedule.optimizer.lr == LR * 0.1
    schedule.step(math.nan)  # no better than anything
    assert schedule.optimizer.lr == pytest.approx(LR * 0.01)
    with pytest.raises(OptionError, match=r"call step\(loss\)"):
        schedule.step()


def test_a_rate_below_lr_min_is_never_raised() -> None:
    schedule = optim.ReduceLROnPlateau(sgd(1e-3), patience=0, lr_min=0.1)
    assert run(schedule, 0, STEPS, False) == [1e-3] * STEPS


BAD: list[tuple[Callable[[optim.Optimizer], Any], str]] = [
    (lambda o: O.StepLR(o, 0), "step_size"),
    (lambda o: O.StepLR(o, 5, gamma=0.0), "gamma"),
    (lambda o: O.StepLR(o, 2.5), "step_size"),  # type: ignore[arg-type]
    (lambda o: O.ExponentialLR(o, 1.5), "gamma"),
    (lambda o: O.CosineLR(o, 10, lr_min=0.3), "lr_min"),
    (lambda o: O.CosineLR(o, -1), "steps"),
    (lambda o: O.WarmupLR(o, 10, start_factor=-0.1), "start_factor"),
    (lambda o: O.WarmupLR(o, 10, then=O.CosineLR(sgd(), 5)), "then="),
    (lambda o: O.WarmupLR(o, 10, then=O.ReduceLROnPlateau(o)), "then="),
    (lambda o: O.ReduceLROnPlateau(o, "least"), "mode"),  # type: ignore[arg-type]
    (lambda o: O.ReduceLROnPlateau(o, threshold_mode="none"), "threshold_mode"),  # type: ignore[arg-type]
    (lambda o: O.ReduceLROnPlateau(o, factor=1.0), "factor"),
    (lambda o: O.ReduceLROnPlateau(o, patience=-1), "patience"),
    (lambda o: O.ReduceLROnPlateau(o, threshold="x"), "threshold"),  # type: ignore[arg-type]
    (lambda o: O.ExponentialLR(o, "x"), "gamma must be a number above 0 and not above 1, not 'x'"),  # type: ignore[arg-type]
    (lambda o: O.CosineLR(o, 10, lr_min="x"), "lr_min"),  # type: ignore[arg-type]
    (lambda o: tg.optim.clip_grad_norm_(tg.ones(1), "x"), "max_norm"),  # type: ignore[arg-type]
    (lambda o: tg.optim.clip_grad_value_(tg.ones(1), -1.0), "clip_value"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_an_option_out_of_range_is_refused(make: Callable[[optim.Optimizer], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(sgd())
