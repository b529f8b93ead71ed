"""What one small operation costs: a chain of additions and products, and a GRU written op by op.

The same code runs on every peer; only the array type and three functions differ. Run `python -m benchmarks.overhead`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Measures, Worker, compared, in_turn, is_present, main, median_time

LENGTH = 1000  # pairs of (product, sum) in the chain
T, N, I, H = 20, 8, 16, 32  # noqa: E741 (the letters of shapes)
GATES = ("z", "r", "n")


def arrays() -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray]:
    """Weights, inputs and initial state of the GRU, float32, the same for every peer."""
    rng = np.random.default_rng(0)
    weights = {f"W{g}": rng.standard_normal((I, H)) * 0.1 for g in GATES}
    weights |= {f"U{g}": rng.standard_normal((H, H)) * 0.1 for g in GATES}
    weights |= {f"b{g}": rng.standard_normal(H) * 0.1 for g in GATES}
    xs = [rng.standard_normal((N, I)).astype(np.float32) for _ in range(T)]
    return (
        {name: w.astype(np.float32) for name, w in weights.items()},
        xs,
        rng.standard_normal((N, H)).astype(np.float32),
    )


def chain(y: Any, w: Any, b: Any) -> Any:
    """2 * LENGTH small operations."""
    for _ in range(LENGTH):
        y = y * w
        y = y + b
    return y


def gru(xs: list[Any], h: Any, p: dict[str, Any], sigmoid: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    """The GRU of the slides, reset before the product, op by op."""
    Wz, Wr, Wn, Uz, Ur, Un, bz, br, bn = (p[name] for name in ("Wz", "Wr", "Wn", "Uz", "Ur", "Un", "bz", "br", "bn"))
    for x in xs:
        z = sigmoid(x @ Wz + h @ Uz + bz)
        r = sigmoid(x @ Wr + h @ Ur + br)
        n = tanh(x @ Wn + (r * h) @ Un + bn)
        h = z * n + (1 - z) * h
    return h


def measured(constant: Callable, leaf: Callable, sigmoid: Callable, tanh: Callable, backward: Callable) -> Measures:
    """The four measures of a peer that has tensors: `backward(y, leaves)` clears the gradients and goes back from y."""
    y, w, b = constant(np.ones((2, 2))), leaf(np.ones((2, 2))), leaf(np.zeros((2, 2)))
    weights, xs, h = arrays()
    p, xs, h = {name: leaf(a) for name, a in weights.items()}, [constant(x) for x in xs], constant(h)
    per_op = 1 / (2 * LENGTH)
    return {
        "chain, forward, per op": median_time(lambda: chain(y, w, b)) * per_op,
        "chain, forward + backward, per op": median_time(lambda: backward(chain(y, w, b), [w, b])) * per_op,
        "GRU op by op, forward": median_time(lambda: gru(xs, h, p, sigmoid, tanh)),
        "GRU op by op, forward + backward": median_time(
            lambda: backward(gru(xs, h, p, sigmoid, tanh), list(p.values()))
        ),
    }


def ours() -> Measures:
    """tinygrad_rnn, with every promise of the engine on the hot path."""
    import tinygrad_rnn as tg

    def backward(y: Any, leaves: list[Any]) -> None:
        for x in leaves:
            x.grad = None
        y.sum().backward()

    return measured(tg.tensor, lambda a: tg.tensor(a, requires_grad=True), tg.sigmoid, tg.tanh, backward) | {
        "import, over import numpy": import_time("tinygrad_rnn")
    }


def torch() -> Measures:
    """PyTorch, eager, one thread."""
    import torch

    torch.set_num_threads(1)

    def backward(y: Any, leaves: list[Any]) -> None:
        for x in leaves:
            x.grad = None
        y.sum().backward()

    leaf = lambda a: torch.tensor(a, requires_grad=True)  # noqa: E731
    return measured(torch.tensor, leaf, torch.sigmoid, torch.tanh, backward) | {
        "import, over import numpy": import_time("torch")
    }


def hips() -> Measures:
    """HIPS autograd: it has no tensors, so its passes are value and gradient of a function of the weights."""
    import autograd.numpy as anp
    from autograd import value_and_grad

    def sigmoid(a: Any) -> Any:
        return 0.5 * anp.tanh(0.5 * a) + 0.5

    weights, xs, h = arrays()
    y, w, b = np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2))
    pull_chain = value_and_grad(lambda p: anp.sum(chain(y, *p)))
    pull_gru = value_and_grad(lambda p: anp.sum(gru(xs, h, p, sigmoid, anp.tanh)))
    per_op = 1 / (2 * LENGTH)
    return {
        "chain, forward + backward, per op": median_time(lambda: pull_chain((w, b))) * per_op,
        "GRU op by op, forward + backward": median_time(lambda: pull_gru(weights)),
        "import, over import numpy": import_time("autograd"),
    }


def mygrad() -> Measures:
    """MyGrad, with its memory guard as it comes."""
    import mygrad as mg

    def sigmoid(a: Any) -> Any:
        return 0.5 * mg.tanh(0.5 * a) + 0.5

    def backward(y: Any, leaves: list[Any]) -> None:
        y.sum().backward()

    constant = lambda a: mg.tensor(a, constant=True)  # noqa: E731
    return measured(constant, mg.tensor, sigmoid, mg.tanh, backward) | {
        "import, over import numpy": import_time("mygrad")
    }


def numpy() -> Measures:
    """The floor: the forward passes on bare arrays."""
    weights, xs, h = arrays()
    y, w, b = np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2))
    sigmoid = lambda a: 0.5 * np.tanh(0.5 * a) + 0.5  # noqa: E731
    return {
        "chain, forward, per op": median_time(lambda: chain(y, w, b)) / (2 * LENGTH),
        "GRU op by op, forward": median_time(lambda: gru(xs, h, weights, sigmoid, np.tanh)),
    }


def import_time(package: str) -> float:
    """How long a fresh process takes to import a package after NumPy; the smallest of three: the first compiles."""
    code = f"import numpy, time; s = time.perf_counter(); import {package}; print(time.perf_counter() - s)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-X", f"pycache_prefix={cache}", "-c", code]
        return min(float(subprocess.check_output(command, text=True, env=environment)) for _ in range(3))


def import_only(package: str) -> Measures:
    return {"import": import_time(package)}


def imports(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The section `import` of the whole benchmark: `import_time` of every package that is there, in turn."""
    worker = Worker({options.core})
    packages = [name for name in (*PEERS, "jax") if name != "numpy" and is_present(name)]
    found = in_turn({name: partial(worker, import_only, name) for name in packages}, options.rounds)
    console.print(compared("import, over import numpy", found, "ms"))
    return {"seconds": found}


PEERS = {"tinygrad_rnn": ours, "torch": torch, "autograd": hips, "mygrad": mygrad, "numpy": numpy}
PACKAGES = {name: name for name in PEERS}

if __name__ == "__main__":
    main(
        "benchmarks.overhead",
        PEERS,
        PACKAGES,
        f"small operations, one thread on one core, GRU T, N, I, H = {T}, {N}, {I}, {H}",
    )
