"""The gate arithmetic of the four cells, forward and backward, on bare arrays: all that a cell adds to a fused layer.

Each class says it once, for NumPy; a backend may have kernels of its own under the same names, held to these.

    a (G, N, H)       a block for each gate: the input's part x W + b goes in (minus that, for those that are `negated`:
                      the logistic function asks for exp(-a), and so a pass is saved), the gate comes out
    state, new        the states before and after a step, each (N, H): h, for an LSTM also c
    d (S, N, H)       the gradients of what goes into the gates, and "q" for that of the product h U_n inside of
                      r * (h U_n + c)
    outside (N, 1)    which sequences are over: their states stand still; None where all still run

The gradients d are linear in those of the states. So `slopes` finds their factors for many steps at once, and each
step of the way back only multiplies.

`blocks` and `preactivations` name the blocks of a and of d; their order puts side by side what is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..backend import Array
from .layouts import Layout

Arrays = tuple[Array, ...]
Step = Callable[..., None]


class Gates:
    """What all cells share.

    packed: the gates in the order of the cell's weights, of which there are as many at the end of `preactivations`
        as at its start: the last ones lead to U, the first ones to W.
    negated: which blocks. states: how many there are. extra: how many blocks e (X, N, H) a step keeps beside its gates;
    keeps: whether it needs its gates again at all.
    """

    packed: ClassVar[tuple[str, ...]]
    blocks: ClassVar[tuple[str, ...]]
    preactivations: ClassVar[tuple[str, ...]]
    negated: ClassVar[slice] = slice(0, 0)
    states: ClassVar[int] = 1
    extra: ClassVar[int] = 0
    keeps: ClassVar[bool] = True

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        """The step `(a, e, state, new, outside)`, which turns a into gates and fills e and new.

        U: as `layout.stacked` gives it. b: the biases, which a has already; kernels add them here instead. c: the bias
        inside of r * (h U_n + c), or a number. like: a state.
        """
        raise NotImplementedError

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        """Fill d and keep with what the gradients are multiples of; here all arrays have an axis T before N."""
        raise NotImplementedError

    def left_of_U(self, xp: Any, a: Array, h: Array, blocks: Sequence[str]) -> list[tuple[slice, Array]]:
        """The parts of d that lead to U, in their order, each with what stands to the left of U there (T, N, H)."""
        return [(slice(len(self.preactivations) - len(self.packed), len(self.preactivations)), h)]

    def through_U(self, preactivations: Sequence[str]) -> list[tuple[slice, slice]]:
        """The parts of d that come back to h itself, each with the gates of U that it comes through."""
        return [(slice(len(preactivations) - len(self.packed), len(preactivations)), slice(None))]

    def backward(self, xp: Any, layout: Layout, U: Array, like: Array) -> Step:
        """The step `(a, d, keep, g, grads, outside)`: d and grads become those of before the step.

        g: what comes in for h from outside of the layer, or None; grads: for each state, from the step after.
        U: as `layout.turned` gives it, in the order of the last blocks of d.
        """
        add, multiply, carried = xp.add, xp.multiply, layout.carried(xp, U, like)
        of_h, over, keeps = slice(-len(self.packed), None), Over(xp), "h" not in self.packed

        def step(a: Array, d: Array, keep: Array, g: Array, grads: Arrays, outside: Array) -> None:
            (dh,) = grads
            add(g, dh, dh)
            if outside is not None:
                over.take(dh, outside)
            multiply(d, dh, d)
            carried(d[of_h], dh, keep if keeps else None)
            if outside is not None:
                over.give_back(dh)

        return step


class Over:
    """The gradients of sequences that are over: put aside before a step and given back unchanged after it."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.aside: Array = None

    def take(self, grad: Array, outside: Array) -> None:
        """Leave only the gradients of those that still run."""
        self.aside = self.xp.where(outside, grad, 0)  # not a product: 0 times an infinite gradient is none
        grad[...] = self.xp.where(outside, 0, grad)

    def give_back(self, grad: Array) -> None:
        """What was put aside."""
        self.xp.add(grad, self.aside, grad)


def room(xp: Any, layout: Layout, G: int, like: Array) -> Array:
    """Room for G blocks of one step, (G, N, H)."""
    N, H = like.shape
    return layout.empty(xp, G, 1, N, H, like.dtype)[:, 0]


def stay(xp: Any, state: Arrays, new: Arrays, outside: Array) -> None:
    """Past the end of a sequence its states stand still."""
    for old, fresh in zip(state, new):
        fresh[...] = xp.where(outside, old, fresh)


def sigmoid(xp: Any, like: Array) -> Callable[[Array, Array], None]:
    """The logistic function of -a, (a, out), for arrays of one shape: 1 / (1 + exp(a)), exact near 0 as well as near 1.

    It works in a, which should be contiguous: each pass over several blocks that lie apart costs half a microsecond.
    """
    exp, add, divide, ones = xp.exp, xp.add, xp.divide, xp.ones(like.shape, like.dtype)

    def apply(a: Array, out: Array) -> None:
        exp(a, a)
        add(a, ones, a)
        divide(ones, a, out)

    return apply


class RNNGates(Gates):
    """h' = g(a), with a = x W + h U + b."""

    packed = blocks = preactivations = ("h",)
    keeps = False  # the slope of tanh and of relu is known from the state

    def __init__(self, activation: str = "tanh") -> None:
        self.activation = activation

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        product, add, p = layout.product(xp), xp.add, room(xp, layout, 1, like)
        activate = xp.tanh if self.activation == "tanh" else lambda a, out: xp.maximum(a, 0, out=out)

        def step(a: Array, e: Array, state: Arrays, new: Arrays, outside: Array) -> None:
            product(state[0], U, p)
            add(a, p, p)
            activate(p[0], new[0])
            if outside is not None:
                stay(xp, state, new, outside)

        return step

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        if self.activation == "tanh":
            xp.multiply(after[0], after[0], d[0])
            xp.subtract(1, d[0], d[0])
        else:
            d[0] = after[0] > 0


class MinimalGRUGates(Gates):
    """h' = z n + (1 - z) h."""

    packed = blocks = preactivations = ("z", "n")
    negated = slice(0, 1)

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        product, add, subtract, tanh = layout.product(xp), xp.add, xp.subtract, xp.tanh
        p = room(xp, layout, 2, like)
        (p_z, p_n), squash, mix = p, sigmoid(xp, like), mixed(xp, like, "new")

        def step(a: Array, e: Array, state: Arrays, new: Arrays, outside: Array) -> None:
            z, n = a
            product(state[0], U, p)
            subtract(z, p_z, p_z)
            squash(p_z, z)
            add(n, p_n, p_n)
            tanh(p_n, n)
            mix(z, n, state[0], new[0])
            if outside is not None:
                stay(xp, state, new, outside)

        return step

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        mixed_slopes(xp, a[0], a[1], before[0], "new", dz=d[0], dn=d[1], keep=keep)


def mixed(xp: Any, like: Array, update: str) -> Callable[[Array, Array, Array, Array], None]:
    """The new state of a GRU between the old one and the candidate, in three operations.

    With update="old" it goes from the candidate to h, as in torch: where z = 1 keeps h, it is h to the rounding of n.
    """
    subtract, multiply, add, change = xp.subtract, xp.multiply, xp.add, xp.empty(like.shape, like.dtype)

    def to_new(z: Array, n: Array, h: Array, new: Array) -> None:
        subtract(n, h, change)
        multiply(z, change, change)
        add(h, change, new)

    def to_old(z: Array, n: Array, h: Array, new: Array) -> None:
        subtract(h, n, change)
        multiply(z, change, change)
        add(n, change, new)

    return to_new if update == "new" else to_old


def mixed_slopes(
    xp: Any, z: Array, n: Array, h: Array, update: str, *, dz: Array, dn: Array, keep: Array
) -> None:  # fmt: skip
    """Of h' = z n + (1 - z) h (or the other way round): the factors of what goes into z and n, and of h itself.

    They are (n - h) z (1 - z), z (1 - n^2) and 1 - z.
    """
    xp.subtract(1, z, keep)
    xp.multiply(n, n, dn)
    xp.subtract(1, dn, dn)
    xp.multiply(dn, z if update == "new" else keep, dn)
    xp.subtract(*((n, h) if update == "new" else (h, n)), dz)
    xp.multiply(dz, z, dz)
    xp.multiply(dz, keep, dz)
    if update == "old":
        keep[...] = z


class GRUGates(Gates):
    """The reset gate before the product: n = tanh(x W_n + b_n + (r * h) U_n)."""

    packed, blocks, preactivations = ("z", "r", "n"), ("n", "z", "r"), ("n", "z", "r")
    negated = slice(1, 3)

    def __init__(self, update: str = "new") -> None:
        self.update = update

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        product, add, subtract, multiply, tanh = layout.product(xp), xp.add, xp.subtract, xp.multiply, xp.tanh
        p = room(xp, layout, 3, like)
        reset = xp.empty(like.shape, like.dtype)
        squash, mix = sigmoid(xp, p[1:]), mixed(xp, like, self.update)
        U_n, U_zr, p_n, p_zr = U[:1], U[1:], p[:1], p[1:]

        def step(a: Array, e: Array, state: Arrays, new: Arrays, outside: Array) -> None:
            (h,) = state
            zr, (n, z, r) = a[1:], a
            product(h, U_zr, p_zr)
            subtract(zr, p_zr, p_zr)
            squash(p_zr, zr)
            multiply(r, h, reset)
            product(reset, U_n, p_n)
            add(n, p_n[0], n)
            tanh(n, n)
            mix(z, n, h, new[0])
            if outside is not None:
                stay(xp, state, new, outside)

        return step

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        (n, z, r), (dn, dz, dr) = a, d
        mixed_slopes(xp, z, n, before[0], self.update, dz=dz, dn=dn, keep=keep)
        xp.subtract(1, r, dr)
        xp.multiply(dr, r, dr)
        xp.multiply(dr, before[0], dr)

    def left_of_U(self, xp: Any, a: Array, h: Array, blocks: Sequence[str]) -> list[tuple[slice, Array]]:
        reset, at = a[blocks.index("r")] * h, blocks.index("n")
        ((zr, _),) = self.through_U(blocks)
        return sorted([(slice(at, at + 1), reset), (zr, h)], key=lambda part: part[0].start)

    def through_U(self, preactivations: Sequence[str]) -> list[tuple[slice, slice]]:
        zr = slice(preactivations.index("z"), preactivations.index("r") + 1)
        return [(zr, zr)]

    def backward(self, xp: Any, layout: Layout, U: Array, like: Array) -> Step:
        add, multiply, product = xp.add, xp.multiply, layout.product(xp)
        carried, over = layout.carried(xp, U[1:], like), Over(xp)
        reset = room(xp, layout, 1, like)  # the gradient of r * h
        U_n = U[:1]

        def step(a: Array, d: Array, keep: Array, g: Array, grads: Arrays, outside: Array) -> None:
            (dh,) = grads
            add(g, dh, dh)
            if outside is not None:
                over.take(dh, outside)
            nz = d[:2]
            multiply(nz, dh, nz)
            product(d[0], U_n, reset)
            multiply(d[2], reset[0], d[2])
            carried(d[1:], dh, keep)
            multiply(a[2], reset[0], reset[0])
            add(dh, reset[0], dh)
            if outside is not None:
                over.give_back(dh)

        return step


class GRUAfterGates(Gates):
    """The reset gate after the product: n = tanh(x W_n + b_n + r * (h U_n + c)); it keeps r * (h U_n + c) in e."""

    packed, blocks, preactivations = ("z", "r", "n"), ("n", "z", "r"), ("n", "z", "r", "q")
    negated, extra = slice(1, 3), 1

    def __init__(self, update: str = "new") -> None:
        self.update = update

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        product, add, subtract, multiply, tanh = layout.product(xp), xp.add, xp.subtract, xp.multiply, xp.tanh
        p = room(xp, layout, 3, like)
        squash, mix = sigmoid(xp, p[1:]), mixed(xp, like, self.update)
        p_zr, q = p[1:], p[0]
        inner = None if isinstance(c, (int, float)) else c + xp.zeros(like.shape, like.dtype)

        def step(a: Array, e: Array, state: Arrays, new: Arrays, outside: Array) -> None:
            (h,) = state
            zr, (n, z, r), (gated,) = a[1:], a, e
            product(h, U, p)
            subtract(zr, p_zr, p_zr)
            squash(p_zr, zr)
            if inner is not None:
                add(q, inner, q)
            multiply(r, q, gated)
            add(n, gated, n)
            tanh(n, n)
            mix(z, n, h, new[0])
            if outside is not None:
                stay(xp, state, new, outside)

        return step

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        (n, z, r), (dn, dz, dr, dq) = a, d
        mixed_slopes(xp, z, n, before[0], self.update, dz=dz, dn=dn, keep=keep)
        xp.multiply(dn, r, dq)
        xp.subtract(1, r, dr)
        xp.multiply(dr, e[0], dr)
        xp.multiply(dr, dn, dr)


class LSTMGates(Gates):
    """c' = f c + i g, h' = o tanh(c'); all its products have h on the left, as in the other cells."""

    packed, blocks, preactivations, states = ("i", "f", "g", "o"), ("o", "i", "f", "g"), ("o", "i", "f", "g"), 2
    negated = slice(0, 3)

    def forward(self, xp: Any, layout: Layout, U: Array, b: Any, c: Any, like: Array) -> Step:
        product, add, subtract, multiply, tanh = layout.product(xp), xp.add, xp.subtract, xp.multiply, xp.tanh
        p = room(xp, layout, 4, like)
        p_oif, p_g, part = p[:3], p[3], xp.empty(like.shape, like.dtype)
        squash = sigmoid(xp, p_oif)

        def step(a: Array, e: Array, state: Arrays, new: Arrays, outside: Array) -> None:
            (h, c), (new_h, new_c), (o, i, f, g), oif = state, new, a, a[:3]
            product(h, U, p)
            subtract(oif, p_oif, p_oif)
            squash(p_oif, oif)
            add(g, p_g, p_g)
            tanh(p_g, g)
            multiply(f, c, part)
            multiply(i, g, new_c)
            add(part, new_c, new_c)
            tanh(new_c, part)
            multiply(o, part, new_h)
            if outside is not None:
                stay(xp, state, new, outside)

        return step

    def slopes(self, xp: Any, a: Array, e: Array, before: Arrays, after: Arrays, d: Array, keep: Array) -> None:
        (o, i, f, g), (do, di, df, dg) = a, d
        one_less, squared, times = xp.subtract, xp.multiply, xp.multiply
        xp.tanh(after[1], df)
        squared(df, df, keep)  # of c' through h': o (1 - tanh(c')^2)
        one_less(1, keep, keep)
        times(keep, o, keep)
        one_less(1, o, do)
        times(do, o, do)
        times(do, df, do)
        one_less(1, i, di)
        times(di, i, di)
        times(di, g, di)
        one_less(1, f, df)
        times(df, f, df)
        times(df, before[1], df)
        squared(g, g, dg)
        one_less(1, dg, dg)
        times(dg, i, dg)

    def backward(self, xp: Any, layout: Layout, U: Array, like: Array) -> Step:
        add, multiply, carried = xp.add, xp.multiply, layout.carried(xp, U, like)
        over_h, over_c = Over(xp), Over(xp)

        def step(a: Array, d: Array, keep: Array, g: Array, grads: Arrays, outside: Array) -> None:
            dh, dc = grads
            add(g, dh, dh)
            if outside is not None:
                over_h.take(dh, outside)
                over_c.take(dc, outside)
            multiply(keep, dh, keep)
            add(dc, keep, dc)
            do, difg = d[0], d[1:]
            multiply(do, dh, do)
            multiply(difg, dc, difg)
            carried(d, dh, None)
            multiply(dc, a[2], dc)
            if outside is not None:
                over_h.give_back(dh)
                over_c.give_back(dc)

        return step
