"""A whole layer in one launch, or all its launches recorded once and replayed: how a GPU takes many small steps fast.

`plan` chooses between three ways, which compute the same:

    steps       a product and a kernel for each step, launched one after the other; always possible
    graph       the same launches, captured as a CUDA graph and replayed wherever the arrays lie where they lay before
    persistent  one cooperative launch that keeps the weights in shared memory, where these fit
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .gates import array, row
from .loader import Kernels

WAYS = ("auto", "steps", "graph", "persistent")
CELLS = {
    "RNNGates": ("RNN", 1, "activation"), "MinimalGRUGates": ("MINIMAL_GRU", 2, ""), "GRUGates": ("GRU", 3, "update"),
    "GRUAfterGates": ("GRU_AFTER", 3, "update"), "LSTMGates": ("LSTM", 4, ""),
}  # fmt: skip
WORTH = 2**14
"""Up to so many hidden numbers (N * H), the persistent way is taken: beyond, cuBLAS makes up for its launches."""


@dataclass(frozen=True)
class Fit:
    """How a layer is spread over a GPU: blocks, units of each, sequences staged at a time, bytes of shared memory."""

    blocks: int
    units: int
    rows: int
    shared: int


def fit(kernels: Kernels, gates: Any, N: int, H: int, itemsize: int, back: bool) -> Fit | None:
    """How it would be spread, or None where it does not fit.

    One block for each multiprocessor at most, as large as its shared memory and registers allow: so all are there at
    once, as waiting for each other asks for. CuPy would launch fewer blocks, and some units would never be computed.
    """
    processors, limit = kernels.limit(kernels.cupy.cuda.Device().id)
    G = CELLS[type(gates).__name__][1]
    units = -(-H // processors)
    weights, per_row = units * G * H, (G * H + units) if back else (H + units * G)
    rows = min(N, (limit // itemsize - weights) // per_row)
    if rows < min(N, 4):
        return None
    return Fit(-(-H // units), units, rows, (weights + rows * per_row) * itemsize)


def plan(kernels: Kernels, mode: str, gates: Any, N: int, H: int, dtype: Any) -> str:
    """The way for a mode: "auto" chooses by size; a way that does not fit gives way to the next one that does."""
    if mode in ("steps", "graph") or (mode == "auto" and N * H > WORTH):
        return "graph" if mode == "auto" else mode
    key = type(gates), N, H, dtype, kernels.cupy.cuda.Device().id
    if key not in kernels.fits:
        kernels.fits[key] = N * H > 0 and all(
            fit(kernels, gates, N, H, dtype.itemsize, back) is not None
            and kernel(kernels, gates, name, dtype).max_threads_per_block >= kernels.threads
            for name, back in (("sequence_forward", False), ("sequence_backward", True))
        )
    return "persistent" if kernels.fits[key] else "graph"


def kernel(kernels: Kernels, gates: Any, name: str, dtype: Any) -> Any:
    """The kernel of a cell."""
    return kernels.function("sequence", name, dtype, "COOPERATIVE", f"CELL={CELLS[type(gates).__name__][0]}")


def _launch(kernels: Kernels, gates: Any, name: str, like: Any, back: bool, args: Sequence[Any]) -> None:
    (T, N, H), option = like.shape, CELLS[type(gates).__name__][2]
    found, run = fit(kernels, gates, N, H, like.itemsize, back), kernel(kernels, gates, name, like.dtype)
    assert found is not None
    if found.shared > 48 * 1024:
        run.max_dynamic_shared_size_bytes = found.shared
    sizes = [T, N, H, found.units, found.rows]
    if not back:
        sizes.append(int(bool(option) and getattr(gates, option) in ("relu", "old")))
    whole = [np.int32(size) for size in sizes]
    run((found.blocks,), (kernels.threads,), (*whole, *args), shared_mem=found.shared)


def forward(
    kernels: Kernels, gates: Any, a: Any, U: Any, b: Any, c: Any, rows: Any, cells: Any, outside: Any, reverse: bool
) -> None:  # fmt: skip
    """All steps of a segment: a (G, T, N, H) becomes gates; rows and cells (T + 1, N, H) are filled.

    U (H, G*H): as the cell has it. outside (T, N, 1): which sequences are over, or None.
    """
    _, T, N, H = a.shape
    step, first, start, sign = N * H, T - 1 if reverse else 0, T if reverse else 0, -1 if reverse else 1
    a_step = np.int64(sign * (a.strides[1] // a.itemsize))
    reset = kernels.scratch("reset", (N, H), a.dtype)
    args = [
        a[0, first], np.int32(row(a)), a_step, U, array(b), array(c), rows[start], np.int64(sign * step),
        None if cells is None else cells[start], reset, None if outside is None else outside[first], np.int64(sign * N),
    ]  # fmt: skip
    _launch(kernels, gates, "sequence_forward", a[0], False, args)


def backward(
    kernels: Kernels, gates: Any, a: Any, d: Any, U: Any, keep: Any, g: Any, grads: Sequence[Any], outside: Any,
    reverse: bool,
) -> None:  # fmt: skip
    """All steps back: d (S, T, N, H) becomes the gradients, grads those of the states, but for the last product."""
    _, T, N, H = d.shape
    first, sign = 0 if reverse else T - 1, 1 if reverse else -1
    steps = [np.int64(sign * (x.strides[1] // x.itemsize)) for x in (a, d)]
    args = [
        a[0, first], np.int32(row(a)), steps[0], d[0, first], np.int32(row(d)), steps[1], U, keep[first], g[first],
        np.int64(sign * N * H), grads[0], grads[-1], None if outside is None else outside[first], np.int64(sign * N),
    ]  # fmt: skip
    _launch(kernels, gates, "sequence_backward", d[0], True, args)


GRAPHS, PATIENCE = 64, 12
"""How many graphs are kept, and how many are captured in a row without one that is replayed before it is given up."""


def replay(kernels: Kernels, what: Hashable, arrays: Sequence[Any], launch: Callable[[], None]) -> None:
    """Launch something, or replay what was captured of it when its arrays lay in the same places.

    what: all else that decides what is launched. arrays: all that is not the same room in every call.

    Memory that is freed and asked for again tends to come back from CuPy's pool, so that the steps of a training meet
    the same few places over and over. Where they do not, capturing would cost more than it gains, and is given up. The
    first call of a kind is never captured: it loads the kernels, which a capture would refuse.
    """
    here = kernels.here()
    place = what, *[x.data.ptr for x in arrays]
    graph = here.graphs.get(place)
    if graph is not None:
        here.tries[what] = 0
        graph.launch()
        return
    tries = here.tries[what] = here.tries.get(what, -1) + 1
    if tries == 0 or tries > PATIENCE:
        launch()
        return
    stream = kernels.cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            launch()
        finally:
            graph = stream.end_capture()
    if len(here.graphs) >= GRAPHS:
        here.graphs.pop(next(iter(here.graphs)))  # the oldest one
    here.graphs[place] = graph
    graph.launch()
