"""What stands around the network in a training step: loss, clipping, optimisers; on the sizes of the text model.

Run `python -m benchmarks.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Measures, main, median_time

T, N, I, H, V = 64, 32, 32, 128, 90  # noqa: E741
ALGORITHMS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
OPTIONS = {"SGD": {"momentum": 0.9}}


def arrays() -> dict[str, np.ndarray]:
    """The twelve parameters of the text model with a GRU, its gates apart; float32, the same for every peer."""
    shapes = {"embedding": (V, I), "head": (H, V), "bias": (V,)}
    for gate in "zrn":
        shapes |= {f"W{gate}": (I, H), f"U{gate}": (H, H), f"b{gate}": (H,)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def measured(
    leaf: Callable[[np.ndarray], Any], give: Callable, cross_entropy: Callable, clip: Callable, of: Any
) -> Measures:
    """`give(p, array)` sets a gradient; `of` holds the optimisers."""
    rng = np.random.default_rng(1)
    logits = leaf(rng.standard_normal((T, N, V)).astype(np.float32))
    targets = rng.integers(0, V, (T, N))

    def loss() -> None:
        logits.grad = None
        cross_entropy(logits, targets).backward()

    p = [leaf(a) for a in arrays().values()]
    for each in p:
        give(each, rng.standard_normal(each.shape).astype(np.float32))
    found = {
        "cross entropy, forward + backward": median_time(loss),
        "clip_grad_norm_": median_time(lambda: clip(p, 1e9)),
    }
    for name in ALGORITHMS:
        found[name] = median_time(getattr(of, name)(p, lr=1e-9, **OPTIONS.get(name, {})).step)
    return found


def ours() -> Measures:
    import tinygrad_rnn as tg

    def give(p: Any, array: np.ndarray) -> None:
        p.grad = tg.tensor(array)

    return measured(
        lambda a: tg.tensor(a, requires_grad=True), give, tg.nn.cross_entropy, tg.optim.clip_grad_norm_, tg.optim
    )


def torch() -> Measures:
    import torch

    torch.set_num_threads(1)

    def give(p: Any, array: np.ndarray) -> None:
        p.grad = torch.tensor(array)

    def cross_entropy(logits: Any, targets: np.ndarray) -> Any:
        return torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.from_numpy(targets).reshape(-1))

    return measured(
        lambda a: torch.tensor(a, requires_grad=True), give, cross_entropy, torch.nn.utils.clip_grad_norm_, torch.optim
    )


PEERS = {"tinygrad_rnn": ours, "torch": torch}
PACKAGES = {name: name for name in PEERS}

if __name__ == "__main__":
    about = f"loss, clipping, optimisers, one thread on one core, T, N, I, H, V = {T}, {N}, {I}, {H}, {V}"
    main("benchmarks.optimizers", PEERS, PACKAGES, about)
