"""How the gates of many time steps lie in memory, and the products of matrices that this asks for.

Seen from outside both are alike: an array (G, T, N, H) has a block for each gate, and [:, t] is one step. `Blocks`
is fast on a CPU, where the work element by element wants contiguous memory and a product per gate costs nothing
more. `Columns` is fast on a GPU, where a kernel may jump but each product is a launch: one for all gates together.

W and U are those of a cell, (I, G*H), its gates side by side in the order `packed`; `order` names what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backend import Array

Names = tuple[str, ...]


class Layout:
    """What the driver of the fused layers asks of memory. dtype and backend are those of the arrays that come in."""

    def orders(self, packed: Names, blocks: Names, preactivations: Names) -> tuple[Names, Names]:
        """In which order the gates, and the gradients of what goes into them, lie here."""
        raise NotImplementedError

    def shaped(self, numbers: Array, G: int, T: int, N: int, H: int) -> Array:
        """So many numbers in a row as G blocks over T steps: (G, T, N, H)."""
        raise NotImplementedError

    def empty(self, xp: Any, G: int, T: int, N: int, H: int, dtype: Any) -> Array:
        """Room for G blocks over T steps: (G, T, N, H)."""
        return self.shaped(xp.empty(G * T * N * H, dtype), G, T, N, H)

    def stacked(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        """The weights by gate (G, I, H), for `product`."""
        raise NotImplementedError

    def turned(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        """The transposed weights by gate (G, H, I), for the way back."""
        raise NotImplementedError

    def steps_at_once(self, N: int, H: int) -> int:
        """For how many steps the way back should find its slopes, and add up the gradients of the weights, at once."""
        raise NotImplementedError

    def product(self, xp: Any) -> Callable[[Array, Array, Array], Any]:
        """The function (v (M, I), W (G, I, H), out (G, M, H)) that fills out[g] = v @ W[g]."""
        raise NotImplementedError

    def summed(
        self, xp: Any, W: Array, packed: Names, order: Names, M: int, dtype: Any
    ) -> Callable[[Array, Array], None]:  # fmt: skip
        """The function (d (G, m, H), out (m, I)), m <= M, that fills out with the sum of d[g] @ W[g].T over the gates.

        W: as the cell has it. order: names the blocks of d.
        """
        raise NotImplementedError

    def carried(self, xp: Any, U: Array, like: Array) -> Callable[[Array, Array, Any], None]:
        """The function (d (G, N, H), dh, keep) that makes dh what it leads back to: dh * keep + sum of d[g] @ U[g]."""
        raise NotImplementedError

    def gathered(self, xp: Any, rows: int, H: int, packed: Names, order: Names, dtype: Any) -> Gathered:
        """Room for the gradient of weights (rows, G*H), which adds up piece by piece; order: names the blocks of d."""
        raise NotImplementedError

    def summed_up(self, xp: Any, H: int, packed: Names, order: Names, dtype: Any) -> SummedUp:
        """Room for the gradient of biases (G*H), which adds up piece by piece; order: names the blocks of d."""
        raise NotImplementedError


class SummedUp:
    """The gradient of the biases of G gates, the sum of d over all pieces that are added."""

    def add(self, d: Array) -> None:
        """Add a piece, d (G, M, H)."""
        raise NotImplementedError

    def found(self) -> Array:
        """The sum (G*H), in the form of the cell's biases."""
        raise NotImplementedError


class Gathered:
    """The gradient of the weights of G gates, x.T @ d[g] for each, summed over all pieces that are added."""

    def add(self, x: Array, d: Array, at: int = 0) -> None:
        """Add a piece for some of the gates, from the block `at` on: x (M, I), d (some, M, H)."""
        raise NotImplementedError

    def found(self) -> Array:
        """The sum (I, G*H), in the form of the cell's weights."""
        raise NotImplementedError


class Blocks(Layout):
    """Each gate a block of its own over all steps: (G, T, N, H) in memory."""

    def orders(self, packed: Names, blocks: Names, preactivations: Names) -> tuple[Names, Names]:
        return blocks, preactivations

    def shaped(self, numbers: Array, G: int, T: int, N: int, H: int) -> Array:
        return numbers.reshape(G, T, N, H)

    def stacked(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        G, rows, H = len(order), W.size // W.shape[-1] if W.ndim > 1 else 1, W.shape[-1] // len(packed)
        out, blocks = xp.empty((G, rows, H), W.dtype), W.reshape(rows, G, H).swapaxes(0, 1)
        for here, there in runs(order, packed):
            out[here] = blocks[there]
        return out if W.ndim > 1 else out[:, 0]

    def turned(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        # Copied, not viewed: products with a transposed matrix take up to twice as long in OpenBLAS.
        G, rows, H = len(order), len(W), W.shape[1] // len(packed)
        out, blocks = xp.empty((G, H, rows), W.dtype), W.reshape(rows, G, H).transpose(1, 2, 0)
        for here, there in runs(order, packed):
            out[here] = blocks[there]
        return out

    def steps_at_once(self, N: int, H: int) -> int:
        return max(16, 2**16 // max(N * H, 1))  # so that they are still in a cache near the core when they are used

    def product(self, xp: Any) -> Callable[[Array, Array, Array], Any]:
        return xp.matmul  # type: ignore[no-any-return]

    def summed(
        self, xp: Any, W: Array, packed: Names, order: Names, M: int, dtype: Any
    ) -> Callable[[Array, Array], None]:  # fmt: skip
        matmul, total, turned = xp.matmul, xp.add.reduce, self.turned(xp, W, packed, order)
        terms = xp.empty((len(order), M, len(W)), dtype)

        def fill(d: Array, out: Array) -> None:
            here = terms[:, : len(out)]
            matmul(d, turned, here)
            total(here, 0, None, out)

        return fill

    def carried(self, xp: Any, U: Array, like: Array) -> Callable[[Array, Array, Any], None]:
        matmul, multiply, total = xp.matmul, xp.multiply, xp.add.reduce
        terms = xp.empty((len(U) + 1, *like.shape), like.dtype)
        products, kept = terms[:-1], terms[-1]

        def carry(d: Array, dh: Array, keep: Any) -> None:
            matmul(d, U, products)
            if keep is None:
                total(products, 0, None, dh)
            else:
                multiply(dh, keep, kept)
                total(terms, 0, None, dh)

        return carry

    def gathered(self, xp: Any, rows: int, H: int, packed: Names, order: Names, dtype: Any) -> Gathered:
        return GatheredBlocks(xp, rows, H, packed, order, dtype)

    def summed_up(self, xp: Any, H: int, packed: Names, order: Names, dtype: Any) -> SummedUp:
        return SummedBlocks(xp, packed, order)


class SummedBlocks(SummedUp):
    """A row for each gate, (G, H)."""

    def __init__(self, xp: Any, packed: Names, order: Names) -> None:
        self.xp, self.runs = xp, runs(order, packed)
        self.total: Array = None

    def add(self, d: Array) -> None:
        row = self.xp.empty((1, d.shape[1]), d.dtype)
        row.fill(1)
        piece = self.xp.matmul(row, d)[:, 0]  # in half the time of a sum along the middle axis
        self.total = piece if self.total is None else self.xp.add(self.total, piece, self.total)

    def found(self) -> Array:
        out = self.xp.empty_like(self.total)
        for here, there in self.runs:
            out[there] = self.total[here]
        return out.ravel()


class GatheredBlocks(Gathered):
    """A block for each gate, (G, I, H)."""

    def __init__(self, xp: Any, rows: int, H: int, packed: Names, order: Names, dtype: Any) -> None:
        self.xp, self.packed, self.order, self.begun = xp, packed, order, set[int]()
        self.piece: Array = None
        self.total = xp.empty((len(order), rows, H), dtype)

    def add(self, x: Array, d: Array, at: int = 0) -> None:
        total = self.total[at : at + len(d)]
        if at not in self.begun:
            self.begun.add(at)
            self.xp.matmul(x.T, d, total)
            return
        if self.piece is None:
            self.piece = self.xp.empty_like(self.total)
        piece = self.piece[: len(d)]
        self.xp.matmul(x.T, d, piece)
        self.xp.add(total, piece, total)

    def found(self) -> Array:
        G, rows, H = self.total.shape
        if G == 1:
            return self.total[0]
        out = self.xp.empty((rows, G, H), self.total.dtype)
        blocks = out.swapaxes(0, 1)
        for here, there in runs(self.order, self.packed):
            blocks[there] = self.total[here]
        return out.reshape(rows, G * H)


class Columns(Layout):
    """The gates of a sequence side by side, (T, N, G, H) in memory: as in a cell's weights, which need no copy.

    gemm: `(a, b, out, add)`, a product of two matrices with any distance between their rows; see `kernels.Kernels`.
    """

    def __init__(self, gemm: Callable[[Array, Array, Array, bool], None]) -> None:
        self.gemm = gemm

    def orders(self, packed: Names, blocks: Names, preactivations: Names) -> tuple[Names, Names]:
        return packed, preactivations if len(preactivations) > len(packed) else packed

    def shaped(self, numbers: Array, G: int, T: int, N: int, H: int) -> Array:
        return numbers.reshape(T, N, G, H).transpose(2, 0, 1, 3)

    def stacked(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        W = _ordered(xp, W, packed, order)
        apart = W.reshape(*W.shape[:-1], len(order), -1)
        return apart.swapaxes(0, 1) if apart.ndim == 3 else apart

    def turned(self, xp: Any, W: Array, packed: Names, order: Names) -> Array:
        return self.stacked(xp, W, packed, order).swapaxes(1, 2)

    def steps_at_once(self, N: int, H: int) -> int:
        return 2**31  # nothing is gained by going back and forth, and every launch costs

    def product(self, xp: Any) -> Callable[[Array, Array, Array], Any]:
        return lambda v, W, out: self.gemm(v, _side_by_side(W), _side_by_side(out), False)

    def back(self, U: Array) -> Callable[[Array, Array, bool], None]:
        """The function (d (G, M, H), out (M, I), add) that makes out, or adds to it, the sum of d[g] @ U[g].

        U (G, H, I): as `turned` gives it.
        """
        matrix = _side_by_side(U.swapaxes(1, 2)).T
        return lambda d, out, add: self.gemm(_side_by_side(d), matrix, out, add)

    def summed(
        self, xp: Any, W: Array, packed: Names, order: Names, M: int, dtype: Any
    ) -> Callable[[Array, Array], None]:  # fmt: skip
        H = W.shape[1] // len(packed)
        parts = [(here, W[:, there.start * H : there.stop * H].T) for here, there in runs(order, packed)]

        def fill(d: Array, out: Array) -> None:
            for add, (here, turned) in enumerate(parts):
                self.gemm(_side_by_side(d[here]), turned, out, add > 0)

        return fill

    def gathered(self, xp: Any, rows: int, H: int, packed: Names, order: Names, dtype: Any) -> Gathered:
        return GatheredColumns(self, xp, rows, H, packed, order, dtype)

    def summed_up(self, xp: Any, H: int, packed: Names, order: Names, dtype: Any) -> SummedUp:
        return SummedColumns(xp, GatheredColumns(self, xp, 1, H, packed, order, dtype))


class SummedColumns(SummedUp):
    """The gates side by side, as the product of a row of ones with d."""

    def __init__(self, xp: Any, gathered: GatheredColumns) -> None:
        self.xp, self.gathered = xp, gathered

    def add(self, d: Array) -> None:
        self.gathered.add(self.xp.fused.ones(d.shape[1], d.dtype), d)

    def found(self) -> Array:
        return self.gathered.found().ravel()


class GatheredColumns(Gathered):
    """The gates side by side, (I, G*H), each in its place from the start."""

    def __init__(
        self, layout: Columns, xp: Any, rows: int, H: int, packed: Names, order: Names, dtype: Any
    ) -> None:  # fmt: skip
        self.gemm, self.H, self.packed, self.order, self.begun = layout.gemm, H, packed, order, set[int]()
        self.total = xp.empty((rows, len(packed) * H), dtype)

    def add(self, x: Array, d: Array, at: int = 0) -> None:
        for here, there in runs(self.order[at : at + len(d)], self.packed):
            columns = self.total[:, there.start * self.H : there.stop * self.H]
            self.gemm(x.T, _side_by_side(d[here]), columns, at in self.begun)
        self.begun.add(at)

    def found(self) -> Array:
        return self.total


@cache
def runs(order: Names, packed: Names) -> list[tuple[slice, slice]]:
    """What lies side by side in both orders: the parts of `order`, each with its place in `packed`."""
    found: list[tuple[slice, slice]] = []
    for i, name in enumerate(order):
        at = packed.index(name)
        if found and found[-1][1].stop == at:
            here, there = found.pop()
            found.append((slice(here.start, i + 1), slice(there.start, at + 1)))
        else:
            found.append((slice(i, i + 1), slice(at, at + 1)))
    return found


def _side_by_side(blocks: Array) -> Array:
    """(G, M, H), of which the gates lie side by side, as the matrix (M, G*H)."""
    G, M, H = blocks.shape
    return blocks.swapaxes(0, 1).reshape(M, G * H)


def _ordered(xp: Any, W: Array, have: Names, want: Names) -> Array:
    """The columns of W by gate in another order, as a copy where it is another one."""
    if have == want:
        return W
    H = W.shape[-1] // len(have)
    return xp.concatenate([W[..., have.index(name) * H : (have.index(name) + 1) * H] for name in want], -1)


def layout_for(xp: Any, dtype: Any) -> Layout:
    """What suits the backend of a namespace and a dtype: columns where there are kernels for it."""
    kernels = xp.fused
    return Columns(kernels.gemm) if kernels is not None and dtype in kernels.dtypes else BLOCKS


BLOCKS = Blocks()
