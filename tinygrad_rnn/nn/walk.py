"""The walk over time that the fused layers of all cells share: the loop on bare arrays, forward and back.

Here is, once: the product of all inputs before the loop, the buffers, lengths, the reverse direction, segments that are
computed again, and the gradients of the weights after the loop. `gates` has what differs, `layouts` how it all lies in
memory. A history is in the order of time: the initial state comes before the first step that is taken (so at the end,
where the walk is a reverse one).

What is kept for the way back of one step of one sequence, beside x and the history, is in numbers (times 4 bytes in
float32, times 8 in float64): RNN 0 (on a GPU H), MinimalGRU 2H, GRU 3H, GRU with reset="after" 4H, LSTM 5H. With
`checkpoint=k` it is that for k steps at a time, and H numbers per state for every k-th step. A pass through torch's CPU
layers takes more than twice the memory (measured by `benchmarks/memory.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..backend import Array
from ..backend.kernels import sequence
from ..core.autodiff import Part
from .gates import Gates, Step
from .layouts import Columns, layout_for


@dataclass
class Segment:
    """The steps first <= t < last, and what the way back wants to see of them.

    start: the states before the first step that is taken.
    gates (G + X, T, N, H): the gates and the extra blocks; None where they are to be computed again.
    cells (T + 1, N, H): the cell states of an LSTM, in the order of the history.
    """

    first: int
    last: int
    start: Sequence[Array]
    gates: Any = None
    cells: Any = None


class Walk:
    """One layer in one direction over one batch: what both ways have to know.

    Arrays are x (T, N, I), states (N, H) each, W (I, G*H), U (H, G*H), b (G*H) or a number, c (H) or a number, inside
    (T, N, 1) or True.
    """

    def __init__(
        self, xp: Any, gates: Gates, x: Array, states: Sequence[Array], W: Array, U: Array, b: Any, c: Any,
        inside: Any, reverse: bool, shortest: int | None, mode: str,
    ) -> None:  # fmt: skip
        self.xp, self.gates, self.reverse, self.states = xp, gates, reverse, states
        dtypes = {each.dtype for each in (x, *states, W, U, b, c) if hasattr(each, "dtype")}
        self.dtype = x.dtype if len(dtypes) == 1 else np.result_type(*dtypes)
        self.layout = layout_for(xp, self.dtype)
        self.kernels: Any = xp.fused if isinstance(self.layout, Columns) else None
        if self.kernels is not None:  # which take no strides
            self.kernels.tidy()
            x, W, U, b, c = (a.copy() if _is_array(a) and not a.flags.c_contiguous else a for a in (x, W, U, b, c))
        self.x, self.W, self.U, self.b, self.c = x, W, U, b, c
        self.blocks, self.preactivations = self.layout.orders(gates.packed, gates.blocks, gates.preactivations)
        self.of_h = slice(len(self.preactivations) - len(self.blocks), len(self.preactivations))
        self.names_of_h = tuple(["n" if name == "q" else name for name in self.preactivations[self.of_h]])
        self.T, self.N, self.H, self.G = x.shape[0], x.shape[1], U.shape[0], len(self.blocks)
        self.shortest = self.T if inside is True else shortest or 0  # the number of steps that all sequences have
        self.outside: Any = None if self.shortest == self.T else xp.ascontiguousarray(xp.logical_not(inside))
        self.plan = "steps"
        if self.kernels is not None:
            self.plan = sequence.plan(self.kernels, mode, gates, self.N, self.H, self.dtype)
        self.before = int(reverse)  # the state before step t is row t + before of the history, that after it,
        self.after = 1 - self.before  # which is also the output, row t + after

    def own(self, name: str) -> Callable[..., Any]:
        """A method of the gates, or the backend's kernel in its place."""
        found = self.kernels and self.kernels.gates.get(f"{type(self.gates).__name__}.{name}")
        return partial(found, self.gates) if found else getattr(self.gates, name)

    def launched(self, what: str, first: int, last: int, arrays: Sequence[Any], loop: Callable[[], None]) -> None:
        """Run a loop over time; on a GPU perhaps as a graph, which is known by what it does and by its arrays."""
        if self.plan != "graph":
            loop()
            return
        options = tuple(sorted(vars(self.gates).items()))
        sizes = first, last, self.N, self.H, self.shortest, self.reverse, str(self.dtype)
        given = [x is not None for x in (*arrays, self.outside)] + [_is_array(x) for x in (self.b, self.c)]
        present = [x for x in (*arrays, self.outside) if x is not None]
        sequence.replay(self.kernels, (what, type(self.gates), options, sizes, *given), present, loop)

    def still(self, name: str, weights: Any) -> Any:
        """Weights where a graph finds them again: an optimiser's step puts them elsewhere."""
        if self.plan != "graph" or not _is_array(weights):
            return weights
        room = self.kernels.scratch(name, weights.shape, weights.dtype)
        room[...] = weights
        return room

    def pieces(self, first: int, last: int, length: int) -> list[tuple[int, int]]:
        """The steps from first to last in pieces (first, last) of at most so many, in the order of the walk."""
        ends = [(t, min(t + length, last)) for t in range(first, last, length)]
        return [(first + last - b, first + last - a) for a, b in ends] if self.reverse else ends

    def outsides(self, first: int, last: int) -> list[Any]:
        """For each step, which sequences are over (N, 1), or None where all still run."""
        running = min(max(self.shortest - first, 0), last - first)
        return [None] * running + ([] if running == last - first else list(self.outside[first + running : last]))

    def start_of(self, chain: Array) -> Array:
        """The row of a history that comes before the first step that is taken."""
        return chain[len(chain) - 1 if self.reverse else 0]

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(self, length: int | None) -> tuple[Array, list[Segment]]:
        """The history, and the segments of at most `length` steps, whose gates are kept unless there is a length.

        length: None for all steps; 0 for as many as suit the cache, where nobody will go back.
        """
        if length == 0:
            length = self.layout.steps_at_once(self.N, self.H)
        T, xp, start = self.T, self.xp, tuple(self.states)
        history, run = xp.empty((T + len(self.states), self.N, self.H), self.dtype), self.runner()
        self.start_of(history[: T + 1])[...] = start[0]
        segments = []
        for first, last in self.pieces(0, T, length or T):
            segment = Segment(first, last, start)
            run(segment, history[first : last + 1])
            segments.append(segment)
            end = first if self.reverse else last
            start = (history[end], *([] if segment.cells is None else [segment.cells[end - first]]))
            if length and segment.gates.size:  # else they are not kept anyway
                start = tuple([state.copy() for state in start])
                segment.gates = segment.cells = None
        for place, state in enumerate(start[1:], T + 1):
            history[place] = state
        return history, segments

    def runner(self) -> Callable[[Segment, Array], None]:
        """The function that takes the steps of a segment: it fills the gates, the cells and the rows of the history."""
        xp, layout, gates, G, N, H = self.xp, self.layout, self.gates, self.G, self.N, self.H
        packed, way = gates.packed, slice(None, None, -1 if self.reverse else 1)
        W, U, b, c = layout.stacked(xp, self.W, packed, self.blocks), self.U, self.b, self.c
        if self.kernels is not None:  # kernels add the bias on the way
            U, b, c = (self.still(name, weights) for name, weights in (("U", U), ("b", b), ("c", c)))
        else:
            xp.negative(W[gates.negated], W[gates.negated])
            if _is_array(b):
                b = layout.stacked(xp, b, packed, self.blocks).reshape(G, 1, 1, H)
                xp.negative(b[gates.negated], b[gates.negated])
        product = layout.product(xp)
        step = self.own("forward")(xp, layout, layout.stacked(xp, U, packed, self.blocks), b, c, self.like())

        def run(segment: Segment, rows: Array) -> None:
            first, last = segment.first, segment.last
            T = last - first
            size, cells = (G + gates.extra) * T * N * H, (gates.states - 1) * (T + 1) * N * H
            kept = xp.empty(size + cells, self.dtype)  # in one piece, which the C library then keeps at hand
            segment.gates = layout.shaped(kept[:size], G + gates.extra, T, N, H)
            a, e = segment.gates[:G], segment.gates[G:]
            product(self.x[first:last].reshape(T * N, self.x.shape[2]), W, a.reshape(G, T * N, H))
            if self.kernels is None and _is_array(b):
                xp.add(a, b, a)
            if gates.states > 1:
                segment.cells = kept[size:].reshape(T + 1, N, H)
                self.start_of(segment.cells)[...] = segment.start[1]
            if self.plan == "persistent":
                outside = None if self.outside is None else self.outside[first:last]
                sequence.forward(self.kernels, gates, a, U, b, c, rows, segment.cells, outside, self.reverse)
                return
            chains = [rows] if segment.cells is None else [rows, segment.cells]

            def loop() -> None:
                state, *after = zip(*[chain[way] for chain in chains])
                steps = zip(a.swapaxes(0, 1)[way], e.swapaxes(0, 1)[way], after, self.outsides(first, last)[way])
                with np.errstate(over="ignore"):  # exp(-a) of a gate that is shut for good
                    for at, et, new, outside in steps:
                        step(at, et, state, new, outside)
                        state = new

            self.launched("forward", first, last, [a, *chains], loop)
            if not gates.keeps and self.kernels is None:
                segment.gates = layout.empty(xp, 0, T, N, H, self.dtype)

        return run

    def like(self) -> Array:
        """An array of a state's shape and dtype."""
        return self.xp.empty((self.N, self.H), self.dtype)

    # -- and back ------------------------------------------------------------------------------------------------

    def backward(self, g: Any, history: Array, segments: Sequence[Segment], wanted: Sequence[bool]) -> list[Any]:
        """The gradients for x, the states, W, U, b and c, as far as they are wanted."""
        xp, layout, gates, N, H, G = self.xp, self.layout, self.gates, self.N, self.H, self.G
        outputs, start, finals = self.incoming(g)
        outputs = outputs.copy() if self.kernels is not None and not outputs.flags.c_contiguous else outputs
        grads = (xp.zeros((N, H), self.dtype), *[xp.array(final, self.dtype) for final in finals])
        grads += tuple([xp.zeros((N, H), self.dtype) for _ in self.states[len(grads) :]])
        U = layout.turned(xp, self.still("U", self.U), gates.packed, self.names_of_h)
        step = self.own("backward")(xp, layout, U, grads[0])
        slopes, run = self.own("slopes"), None
        widest = max(H, self.x.shape[2])
        length = min(layout.steps_at_once(N, widest), max(each.last - each.first for each in segments))
        room = layout.empty(xp, len(self.preactivations), length, N, H, self.dtype)
        keeps, sums = xp.empty((length, N, H), self.dtype), Sums(self, wanted, length)
        way = slice(None, None, 1 if self.reverse else -1)
        for segment in reversed(segments):
            if segment.gates is None:
                run, segment = run or self.runner(), Segment(segment.first, segment.last, segment.start)
                rows = xp.empty((segment.last - segment.first + 1, N, H), self.dtype)
                self.start_of(rows)[...] = segment.start[0]
                run(segment, rows)
            for first, last in reversed(self.pieces(segment.first, segment.last, length)):
                here = slice(first - segment.first, last - segment.first)
                a, e = segment.gates[:G, here], segment.gates[G:, here]
                d, keep, g_here = room[:, : last - first], keeps[: last - first], outputs[first:last]
                before, after = ([history[first + k : last + k]] for k in (self.before, self.after))
                if segment.cells is not None:
                    for chain, k in ((before, self.before), (after, self.after)):
                        chain.append(segment.cells[here.start + k : here.stop + k])
                slopes(xp, a, e, before, after, d, keep)
                self.steps_back(step, U, a, d, keep, g_here, grads, first, last, way)
                sums.add(first, last, a, d, before[0])
        return sums.found((grads[0] if start is None else grads[0] + start, *grads[1:]))

    def steps_back(
        self, step: Step, U: Array, a: Array, d: Array, keep: Array, g: Array, grads: tuple[Array, ...],
        first: int, last: int, way: slice,
    ) -> None:  # fmt: skip
        """The steps first <= t < last on the way back: d and grads become those of before them."""
        if self.plan == "persistent":
            outside = None if self.outside is None else self.outside[first:last]
            sequence.backward(self.kernels, self.gates, a, d, self.U, keep, g, grads, outside, self.reverse)
            assert isinstance(self.layout, Columns)
            earliest = d[:, last - first - 1 if self.reverse else 0]
            for part, to_h in self.gates.through_U(self.preactivations):
                self.layout.back(U[to_h])(earliest[part], grads[0], True)
            return

        def loop() -> None:
            per_step = [each.swapaxes(0, 1)[way] for each in (a, d)] + [keep[way], g[way]]
            for at, dt, kept, gt, outside in zip(*per_step, self.outsides(first, last)[way]):
                step(at, dt, kept, gt, grads, outside)

        self.launched("backward", first, last, [a, d, keep, g, *grads], loop)

    def incoming(self, g: Any) -> tuple[Array, Any, list[Any]]:
        """What comes in for the outputs (T, N, H), for the initial state (or None), and for further final states.

        What is left out there is zero.
        """
        T, rows = self.T, slice(self.after, self.T + self.after)
        if (
            type(g) is Part and len(g.index) == 1 and type(g.index[0]) is slice and g.index[0] == rows
        ):  # the usual case: nobody but the next layer looks at the outputs
            return g.g, None, []
        g = g.whole() if type(g) is Part else g
        return g[rows], self.start_of(g[: T + 1]), list(g[T + 1 :])


class Sums:
    """The gradients that add up over all steps: those of the weights; and those of the inputs, piece by piece."""

    def __init__(self, walk: Walk, wanted: Sequence[bool], length: int) -> None:
        self.walk, xp, layout, gates = walk, walk.xp, walk.layout, walk.gates
        self.wanted = dict(zip(["x", *(f"state {i}" for i in range(len(walk.states))), "W", "U", "b", "c"], wanted))
        of_x, H = walk.preactivations[: walk.G], walk.H
        rows = {"W": (walk.x.shape[2], of_x), "U": (H, walk.names_of_h)}
        self.rooms: dict[str, Any] = {
            name: layout.gathered(xp, size, H, gates.packed, order, walk.dtype)
            for name, (size, order) in rows.items()
            if self.wanted[name]
        }
        if self.wanted["b"]:
            self.rooms["b"] = layout.summed_up(xp, H, gates.packed, of_x, walk.dtype)
        if self.wanted["c"]:
            self.rooms["c"] = layout.summed_up(xp, H, ("n",), ("n",), walk.dtype)
        if self.wanted["x"]:
            self.to_input = layout.summed(xp, walk.W, gates.packed, of_x, length * walk.N, walk.dtype)
            self.dx = xp.empty(walk.x.shape, walk.dtype)

    def add(self, first: int, last: int, a: Array, d: Array, h: Array) -> None:
        """Add what these steps contribute; h: the states before them."""
        walk, rooms, G = self.walk, self.rooms, self.walk.G
        M, H = (last - first) * walk.N, walk.H
        flat = d.reshape(len(d), M, H)
        if self.wanted["x"]:
            self.to_input(flat[:G], self.dx[first:last].reshape(M, self.dx.shape[2]))
        if "W" in rooms:
            rooms["W"].add(walk.x[first:last].reshape(M, walk.x.shape[2]), flat[:G])
        if "U" in rooms:
            for part, left in walk.gates.left_of_U(walk.xp, a, h, walk.blocks):
                rooms["U"].add(left.reshape(M, H), flat[part], part.start - walk.of_h.start)
        if "b" in rooms:
            rooms["b"].add(flat[:G])
        if "c" in rooms:
            rooms["c"].add(flat[G:])

    def found(self, grads: Sequence[Array]) -> list[Any]:
        """The gradients in the order of the layer's arrays, in the form of the cell's weights; None if not wanted."""
        made: dict[str, Any] = {name: room.found() for name, room in self.rooms.items()}
        if self.wanted["x"]:
            made["x"] = self.dx
        made |= {f"state {i}": grad for i, grad in enumerate(grads) if self.wanted[f"state {i}"]}
        return [made.get(name) for name in self.wanted]


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype")
