"""Loss, optimiser and clipping as launches: one or two for all rows, or for all parameters, together.

Each function has the arguments of the one that it stands for, in `nn.losses` and `optim`, and returns NotImplemented
where there is no kernel for the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .loader import Kernels

TABLE = 40
"""How many arrays one launch takes; also in optimizers.cuh."""
THREADS, SHARE = 256, 32
"""Threads of a block, and the most blocks that share an array."""

WEIGHTS = np.dtype([*[(name, np.uint64) for name in ("p", "g", "mean", "square", "next")],
                    ("size", np.int64), ("pace", np.float64), ("eps", np.float64)])  # fmt: skip
GRADIENTS = np.dtype([("g", np.uint64), ("out", np.uint64), ("size", np.int64)])


def of_training(kernels: Kernels) -> dict[str, Callable[..., Any]]:
    """The functions by the names of those that they stand for."""
    cupy, int32, int64 = kernels.cupy, np.int32, np.int64

    def losses(logits: Any, targets: Any, name: str, out: Any, *scale: Any) -> Any:
        rows, V = targets.size, logits.shape[-1]
        if rows:
            kernel = kernels.function("losses", name, logits.dtype)
            blocks = min((rows * 32 + THREADS - 1) // THREADS, 2**16)
            arrays = [solid(x) for x in (*scale, logits)]
            kernel((blocks,), (THREADS,), (int64(rows), int32(V), *arrays, whole(targets), out))
        return out

    def whole(targets: Any) -> Any:
        return solid(targets.astype(int64, copy=False))

    def softmax_cross_entropy(logits: Any, targets: Any) -> Any:
        if logits.dtype not in kernels.dtypes:
            return NotImplemented
        return losses(logits, targets, "softmax_cross_entropy", cupy.empty(targets.shape, logits.dtype))

    def cross_entropy_slope(scale: Any, logits: Any, targets: Any) -> Any:
        if logits.dtype not in kernels.dtypes or scale.dtype != logits.dtype:
            return NotImplemented
        out = cupy.empty(logits.shape, logits.dtype)
        return losses(logits, targets, "cross_entropy_slope", out, scale)

    def adam(
        ps: Sequence[Any], gs: Sequence[Any], means: Sequence[Any], squares: Sequence[Any], paces: Sequence[float],
        epss: Sequence[float], betas: tuple[float, float], decay: float, shrink: float,
    ) -> Any:  # fmt: skip
        """The next values, as parts of one array."""
        dtype = ps[0].dtype
        if dtype not in kernels.dtypes or {x.dtype for x in (*ps, *gs, *means, *squares)} != {dtype}:
            return NotImplemented
        gs, ps = ([solid(x) for x in xs] for xs in (gs, ps))
        flat = cupy.empty(sum(p.size for p in ps), dtype)
        ends = np.cumsum([p.size for p in ps]).tolist()
        news = [flat[end - p.size : end].reshape(p.shape) for p, end in zip(ps, ends)]
        kernel = kernels.function("optimizers", "adam", dtype)
        real = dtype.type
        rates = [real(x) for b in betas for x in (b, 1 - b)]
        rows = [(*[x.data.ptr for x in arrays], arrays[0].size, pace, eps)
                for *arrays, pace, eps in zip(ps, gs, means, squares, news, paces, epss)]  # fmt: skip
        for grid, table in tables(rows, WEIGHTS):
            kernel(grid, (THREADS,), (table, *rates, real(decay), real(shrink)))
        return news

    def clipped(gs: Sequence[Any], longest: float) -> Any:
        """The gradients, shortened to a norm of at most `longest` together, and the norm as it was."""
        dtype = gs[0].dtype
        if dtype not in kernels.dtypes or {g.dtype for g in gs} != {dtype}:
            return NotImplemented
        gs = [solid(g) for g in gs]
        outs = [cupy.empty_like(g) for g in gs]
        rows = [(g.data.ptr, out.data.ptr, g.size) for g, out in zip(gs, outs)]
        laid = list(tables(rows, GRADIENTS))
        counts = [grid[0] * grid[1] for grid, _ in laid]
        sums, norm = kernels.scratch("sums", (sum(counts),), dtype), cupy.empty((), dtype)
        done = 0
        for (grid, table), count in zip(laid, counts):
            kernels.function("optimizers", "squares", dtype)(grid, (THREADS,), (table, sums[done:]))
            done += count
        last = (sums, int32(done), dtype.type(longest), norm)
        for grid, table in laid:
            kernels.function("optimizers", "shortened", dtype)(grid, (THREADS,), (table, *last))
        return outs, norm

    softmax_cross_entropy.partial = cross_entropy_slope.partial = True  # type: ignore[attr-defined]
    return {
        "tinygrad_rnn.nn.losses.softmax_cross_entropy": softmax_cross_entropy,
        "tinygrad_rnn.nn.losses.cross_entropy_slope": cross_entropy_slope,
        "tinygrad_rnn.optim.adam.next_values": adam,
        "tinygrad_rnn.optim.clipping.clipped": clipped,
    }


def solid(x: Any) -> Any:
    """An array without gaps; unlike `ascontiguousarray`, one without axes stays one."""
    return x if x.flags.c_contiguous else x.copy()


def tables(rows: Sequence[tuple[Any, ...]], dtype: np.dtype[Any]) -> Iterator[tuple[tuple[int, int], Any]]:
    """The grid and the table of each launch."""
    size = dtype.names.index("size")  # type: ignore[union-attr]
    for first in range(0, len(rows), TABLE):
        some = rows[first : first + TABLE]
        table = np.zeros((), np.dtype([("of", dtype, (TABLE,))]))
        table["of"][: len(some)] = np.array(some, dtype)
        widest = max(row[size] for row in some)
        yield (min(SHARE, max(1, -(-widest // (4 * THREADS)))), len(some)), table
