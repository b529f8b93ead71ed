"""Whether an embedded symbol's product with W pays as a row of E W; NumPy only.

x = E[ids] (T, N, I) and x W (T, N, G*H) on one side, (E W)[ids] on the other; V = 65 symbols, G = 3 gates.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Measures, Worker, compared, in_turn, median_time
from benchmarks.peers import SIZES

V, G = 65, 3


def timed(way: str) -> Measures:
    """One way's times at both sizes."""
    return {name: time for size in ("charrnn", "medium") for name, time in timed_at(way, size).items()}


def timed_at(way: str, size: str) -> Measures:
    """Its forward and backward pass; the latter goes from D, the gradient of x W, to those of E and W."""
    T, N, I, H = SIZES[size]  # noqa: E741
    rng = np.random.default_rng(0)
    E, W = rng.standard_normal((V, I), np.float32), rng.standard_normal((I, G * H), np.float32)
    D, ids = rng.standard_normal((T * N, G * H), np.float32), rng.integers(0, V, T * N)

    def product() -> Any:
        return E[ids] @ W

    def product_back() -> Any:
        dE = np.zeros_like(E)
        np.add.at(dE, ids, D @ W.T)
        return dE, E[ids].T @ D

    def gather() -> Any:
        return (E @ W)[ids]

    def gather_back() -> Any:
        one_hot = np.zeros((T * N, V), np.float32)
        one_hot[np.arange(T * N), ids] = 1
        table = one_hot.T @ D
        return table @ W.T, E.T @ table

    def gather_add_at_back() -> Any:
        table = np.zeros((V, G * H), np.float32)
        np.add.at(table, ids, D)
        return table @ W.T, E.T @ table

    forward, backward = {
        "product, add at": (product, product_back),
        "gather, one-hot product": (gather, gather_back),
        "gather, add at": (gather, gather_add_at_back),
    }[way]
    return {f"{size}, forward": median_time(forward, 0.2), f"{size}, backward": median_time(backward, 0.2)}


WAYS = ("product, add at", "gather, one-hot product", "gather, add at")


def embedding(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The ways side by side."""
    worker = Worker({options.core})
    found = in_turn({way: partial(worker, timed, way) for way in WAYS}, options.rounds)
    console.print(compared(f"embedding and input product, V = {V}", found, "ms"))
    return {"seconds": found}
