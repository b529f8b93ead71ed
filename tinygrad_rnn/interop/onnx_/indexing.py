"""Indexing in ONNX: x[key] as slices, gathers and new axes, by NumPy's rules; and its derivative, scatter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConversionError
from .building import Builder, Item, Result
from .tracing import Size

LAST, FIRST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
"""Ends of a slice that goes all the way, forward and backward."""


class Key(NamedTuple):
    """An index, with an entry for each axis.

    entries: a slice keeps an axis, an integer or an array of them picks from it, None makes a new one.
    """

    entries: tuple[Any, ...]

    @property
    def by_axis(self) -> list[Any]:
        """The entries without those that make new axes."""
        return [each for each in self.entries if each is not None]

    @property
    def picks(self) -> dict[int, Any]:
        """Those that pick, by axis."""
        return {axis: each for axis, each in enumerate(self.by_axis) if not isinstance(each, slice)}

    @property
    def depth(self) -> int:
        """How many axes the arrays among them make together."""
        return max([each.ndim for each in self.picks.values() if isinstance(each, Item)], default=0)

    @property
    def place(self) -> int:
        """Where these axes come in, among the entries that do not pick.

        It is where the entries that pick stand, if they stand side by side; if anything is between them, it is first.
        """
        picking = [i for i, each in enumerate(self.entries) if each is not None and not isinstance(each, slice)]
        apart = picking != list(range(picking[0], picking[-1] + 1)) if picking else True
        return 0 if apart else picking[0]

    @property
    def kept_before(self) -> int:
        """How many of the axes that are kept come before those of the arrays."""
        return sum(each is not None for each in self.entries[: self.place])

    @property
    def new_axes(self) -> list[int]:
        """Where the new axes are in the result."""
        made: list[Any] = [each for each in self.entries if each is None or isinstance(each, slice)]
        made[self.place : self.place] = [Ellipsis] * self.depth
        return [i for i, each in enumerate(made) if each is None]


def index(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    """x[key]: first what slices do, then integers and arrays of them, then new axes."""
    x: Item = inputs[0]
    key = _parsed(g, options["key"], x.ndim)
    name = _picked(g, _sliced(g, x.name, key.by_axis), key)
    return g.add("Unsqueeze", name, g.integers(key.new_axes)) if key.new_axes else name


def _parsed(g: Builder, key: Any, ndim: int) -> Key:
    """What stands between the brackets, written out; a mask as the places where it holds."""
    parts: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, Item) and part.dtype.kind == "b":
            parts += _where_true(g, part)
        elif isinstance(part, (bool, np.bool_)):
            raise ConversionError("x[True] has no counterpart in ONNX; use x[None]")
        else:
            parts.append(part)
    used = sum(part is not None and part is not Ellipsis for part in parts)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return Key((*parts[:at], *[slice(None)] * (ndim - used), *parts[at + 1 :]))


def _where_true(g: Builder, mask: Item) -> list[Item]:
    """The places where a mask holds, axis by axis."""
    if mask.array is not None:
        return [Item(g.constant(where), where.dtype, where.shape, where) for where in np.nonzero(mask.array)]
    places = g.add("NonZero", mask.name)
    rows = [g.add("Gather", places, g.constant(np.int64(axis)), axis=0) for axis in range(mask.ndim)]
    return [Item(row, np.dtype(np.int64), (Size(("found",)),)) for row in rows]


def _sliced(g: Builder, name: str, key: list[Any]) -> str:
    """The slices of a key, all in one node."""
    cuts = [(axis, each) for axis, each in enumerate(key) if isinstance(each, slice) and each != slice(None)]
    if not cuts:
        return name
    ends: list[list[Any]] = [[], [], [], []]
    for axis, cut in cuts:
        step = 1 if cut.step is None else cut.step
        start = cut.start if cut.start is not None else 0 if step > 0 else LAST
        stop = cut.stop if cut.stop is not None else LAST if step > 0 else FIRST
        for each, end in zip(ends, (start, stop, axis, step)):
            each.append(end)
    return g.add("Slice", name, *[g.sizes(each) for each in ends])


def _picked(g: Builder, name: str, key: Key) -> str:
    """What integers and arrays of them pick: one axis after the other, or several at once, whose places go together."""
    picks = key.picks
    if len(picks) < 2 or not any(isinstance(each, Item) for each in picks.values()):
        for axis in sorted(picks, reverse=True):
            name = g.add("Gather", name, g.of(picks[axis], np.int64), axis=axis)
        return name
    rest = [axis for axis in range(len(key.by_axis)) if axis not in picks]
    if list(picks) != list(range(len(picks))):
        name = g.add("Transpose", name, perm=[*picks, *rest])
    name, depth, before = g.add("GatherND", name, _places(g, picks.values())), key.depth, key.kept_before
    if not before or not depth:
        return name
    perm = [*range(depth, depth + before), *range(depth), *range(depth + before, depth + len(rest))]
    return g.add("Transpose", name, perm=perm)


def _places(g: Builder, picks: Iterable[Any]) -> str:
    """The places along several axes side by side on a new last axis, as GatherND takes them."""
    picks = list(picks)
    arrays: list[Any] = [each.array if isinstance(each, Item) else each for each in picks]
    if all(each is not None and not isinstance(each, Size) for each in arrays):
        return g.constant(np.stack(np.broadcast_arrays(*arrays), axis=-1).astype(np.int64))
    names = [g.of(each, np.int64) for each in picks]
    total = names[0]
    for other in names[1:]:
        total = g.add("Add", total, other)
    shape, last = g.add("Shape", total), g.integers([-1])
    return g.add("Concat", *[g.add("Unsqueeze", g.add("Expand", each, shape), last) for each in names], axis=-1)


def scatter(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
    """Zeros with x added at the places of a key, which has to be known beforehand."""
    shape, key = out[0].shape, options["key"]
    key = key if isinstance(key, tuple) else (key,)
    if any(isinstance(each, Size) for each in (*shape, *key)) or any(
        isinstance(each, Item) and each.array is None for each in key
    ):
        raise ConversionError("scatter is written only where its shape and its places are fixed")
    key = tuple([each.array if isinstance(each, Item) else each for each in key])
    fixed = [int(each) for each in shape if not isinstance(each, Size)]
    places = np.arange(math.prod(fixed)).reshape(fixed)[key]
    zeros = g.constant(np.zeros(math.prod(fixed), out[0].dtype))
    flat = g.reshaped(inputs[0].name, (-1,))
    added = g.add("ScatterElements", zeros, g.integers(np.ravel(places).tolist()), flat, axis=0, reduction="add")
    return g.reshaped(added, shape)
