"""Makes optim.json: where PyTorch's optimisers, clipping and schedules go. Run it: python tests/golden/make_optim.py

The objective and the cases are shared with the tests, which take the same way with tinygrad_rnn.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 50
KEPT = (1, 2, 3, 10, 50)

SHAPES = {"x": (5,), "W": (2, 3), "s": (), "u": (4,)}


def start() -> dict[str, np.ndarray]:
    """Parameters of four shapes, none of them zero."""
    return {name: np.asarray(1.3 * np.sin(1 + len(shape) + 1.7 * np.arange(math.prod(shape)))).reshape(shape)
            for name, shape in SHAPES.items()}  # fmt: skip


def objective(p: dict[str, Any], step: int) -> Any:
    """Rosenbrock's valley, double wells and a coupled tanh; `u` has a part in it in two steps out of three only."""
    x, W, s, u = p["x"], p["W"], p["s"], p["u"]
    valley = (5 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    wells = 0.25 * ((W * W - 1) ** 2).sum()
    coupled = (((W @ x[1:4]).tanh() * s - x[:2]) ** 2).sum()
    loss = valley + wells + coupled
    return loss + ((u * u * u - u * s) ** 2).sum() if step % 3 else loss


# algorithm, options, and how the gradients are clipped: ("norm", max_norm, norm_type) or ("value", clip_value)
CASES: dict[str, tuple[str, dict[str, Any], tuple[Any, ...]]] = {
    "SGD by default": ("SGD", {}, ()),
    "SGD": ("SGD", {"lr": 0.01, "weight_decay": 0.1}, ()),
    "SGD with momentum": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.05}, ()),
    "SGD with dampening": ("SGD", {"lr": 0.02, "momentum": 0.8, "dampening": 0.3}, ()),
    "SGD with Nesterov's momentum": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, ()),
    "Adam by default": ("Adam", {}, ()),
    "Adam": ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}, ()),
    "AdamW by default": ("AdamW", {}, ()),
    "AdamW": ("AdamW", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}, ()),
    "RMSprop by default": ("RMSprop", {}, ()),
    "RMSprop": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}, ()),
    "RMSprop, centered with momentum": (
        "RMSprop", {"lr": 0.005, "alpha": 0.9, "eps": 1e-2, "momentum": 0.7, "centered": True, "weight_decay": 0.1}, ()
    ),
    "Adagrad by default": ("Adagrad", {}, ()),
    "Adagrad": (
        "Adagrad", {"lr": 0.3, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3}, ()
    ),
    "SGD, norm clipped": ("SGD", {"lr": 0.05, "momentum": 0.9}, ("norm", 1.5, 2.0)),
    "SGD, largest element clipped": ("SGD", {"lr": 0.05}, ("norm", 0.8, math.inf)),
    "SGD, another norm clipped": ("SGD", {"lr": 0.05}, ("norm", 2.0, 1.5)),
    "Adam, values clipped": ("Adam", {"lr": 0.05}, ("value", 0.4)),
}  # fmt: skip

LR = 0.2
SCHEDULES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "StepLR": ("StepLR", (7,), {"gamma": 0.6}),
    "StepLR by default": ("StepLR", (20,), {}),
    "ExponentialLR": ("ExponentialLR", (0.93,), {}),
    "CosineLR": ("CosineAnnealingLR", (STEPS,), {"eta_min": 0.01}),
    "CosineLR by default": ("CosineAnnealingLR", (STEPS,), {}),
    "WarmupLR": ("LinearLR", (), {"start_factor": 0.1, "total_iters": 12}),
    "WarmupLR by default": ("LinearLR", (), {"total_iters": 9}),
    "ReduceLROnPlateau": ("ReduceLROnPlateau", ("min",), {"factor": 0.5, "patience": 3, "cooldown": 2, "min_lr": 0.02}),
    "ReduceLROnPlateau, upwards": (
        "ReduceLROnPlateau", ("max",), {"factor": 0.7, "patience": 2, "threshold": 0.2, "threshold_mode": "abs"}
    ),
    "ReduceLROnPlateau, a share upwards": (
        "ReduceLROnPlateau", ("max",), {"factor": 0.5, "patience": 4, "threshold": 0.3}
    ),
    "ReduceLROnPlateau by default": ("ReduceLROnPlateau", (), {}),
}  # fmt: skip


def measured(step: int, upwards: bool) -> float:
    """A loss that falls, stalls, jumps and creeps up again; or an accuracy that does the opposite."""
    loss = 1 / (1 + 0.3 * min(step, 12)) + 0.1 * math.sin(2.1 * step) + 0.01 * max(0, step - 12)
    loss += 0.4 if 20 < step < 26 else 0
    return 4 * (1.4 - loss) if upwards else loss


def paths() -> dict[str, Any]:
    """The parameters after the steps in KEPT, and the norms before clipping, for each case."""
    import torch

    made = {}
    for name, (algorithm, options, clipped) in CASES.items():
        p = {key: torch.tensor(value, requires_grad=True) for key, value in start().items()}
        optimizer = getattr(torch.optim, algorithm)(p.values(), **options)
        kept, norms = {}, []
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            objective(p, step).backward()
            if clipped and clipped[0] == "norm":
                norms.append(torch.nn.utils.clip_grad_norm_(p.values(), clipped[1], clipped[2]).item())
            elif clipped:
                torch.nn.utils.clip_grad_value_(p.values(), clipped[1])
            optimizer.step()
            if step in KEPT:
                kept[str(step)] = {key: value.tolist() for key, value in p.items()}
        made[name] = {"kept": kept, "norms": norms}
    return made


def rates() -> dict[str, list[float]]:
    """The learning rate before each of STEPS steps, for each schedule."""
    import torch

    made = {}
    for name, (kind, args, options) in SCHEDULES.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
        schedule = getattr(torch.optim.lr_scheduler, kind)(optimizer, *args, **options)
        seen = []
        for step in range(STEPS):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step(*[measured(step, "max" in args)] * (kind == "ReduceLROnPlateau"))
        made[name] = seen
    return made


GOLDEN = Path(__file__).with_name("optim.json")

if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({"paths": paths(), "rates": rates()}, indent=0) + "\n")
