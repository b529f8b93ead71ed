"""Makes losses.json: values and gradients of PyTorch's losses. Run it: python tests/golden/make_losses.py

The cases are shared with the tests. Classes stand on the last axis here and on axis 1 there.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np


def wave(*shape: int, scale: float = 2.0, shift: float = 0.3) -> np.ndarray:
    """Numbers without a pattern, none twice, none 0."""
    return scale * np.sin(shift + 1.7 * np.arange(1, math.prod(shape) + 1)).reshape(shape)


TARGETS = {
    "(6,)": np.array([4, 0, 2, 2, 1, 3]),
    "(3, 4)": np.array([[5, 0, 2, 2], [1, 3, 5, 2], [4, 4, 2, 0]]),
    "()": np.array(3),
}
CASES: dict[str, tuple[str, np.ndarray, np.ndarray, dict[str, Any]]] = {}
for _loss in ("cross_entropy", "nll_loss"):
    for _reduction in ("mean", "sum", "none"):
        CASES |= {
            f"{_loss} {_reduction} (N, V)": (_loss, wave(6, 5), TARGETS["(6,)"], {"reduction": _reduction}),
            f"{_loss} {_reduction} (T, N, V)": (_loss, wave(3, 4, 6), TARGETS["(3, 4)"], {"reduction": _reduction}),
            f"{_loss} {_reduction} ignoring 2": (
                _loss, wave(3, 4, 6), TARGETS["(3, 4)"], {"reduction": _reduction, "ignore_index": 2}),
            f"{_loss} {_reduction} ignoring -100": (
                _loss, wave(6, 5), np.where(TARGETS["(6,)"] == 2, -100, TARGETS["(6,)"]),
                {"reduction": _reduction, "ignore_index": -100}),
        }  # fmt: skip
    CASES |= {
        f"{_loss} (V,)": (_loss, wave(5), TARGETS["()"], {}),
        f"{_loss} far apart": (_loss, wave(6, 5, scale=1e4), TARGETS["(6,)"], {}),
        f"{_loss} far off": (_loss, wave(6, 5) + 1e6, TARGETS["(6,)"], {}),
    }
for _reduction in ("mean", "sum", "none"):
    for _loss, _options in (("mse", {}), ("huber", {}), ("huber", {"delta": 0.7})):
        CASES[f"{_loss} {_reduction} {_options}"] = (
            _loss, wave(2, 3, 4), wave(2, 3, 4, shift=1.1), {**_options, "reduction": _reduction})  # fmt: skip
    CASES[f"binary_cross_entropy_with_logits {_reduction}"] = (
        "binary_cross_entropy_with_logits", wave(4, 3), 0.5 + wave(4, 3, scale=0.5, shift=0.9),
        {"reduction": _reduction},
    )  # fmt: skip
CASES["huber far apart"] = ("huber", wave(5, scale=1e200), wave(5, shift=0.8), {"reduction": "none"})
CASES["binary_cross_entropy_with_logits far apart"] = (
    "binary_cross_entropy_with_logits", np.array([800.0, -800, 800, -800, 30]), np.array([1.0, 0, 0, 1, 1]),
    {"reduction": "none"},
)  # fmt: skip

NAMES = {"mse": "mse_loss", "huber": "huber_loss"}


def losses() -> dict[str, Any]:
    """The value of each case and the gradient of its sum for the first argument."""
    import torch

    made = {}
    for name, (loss, x, target, options) in CASES.items():
        leaf = torch.tensor(x, requires_grad=True)
        moved = leaf.movedim(-1, 1) if loss in ("cross_entropy", "nll_loss") and leaf.ndim > 1 else leaf
        value = getattr(torch.nn.functional, NAMES.get(loss, loss))(moved, torch.tensor(target), **options)
        value.sum().backward()
        made[name] = {"value": value.tolist(), "gradient": leaf.grad.tolist()}
    return made


GOLDEN = Path(__file__).with_name("losses.json")

if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(losses(), indent=0) + "\n")
