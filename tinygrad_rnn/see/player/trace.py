"""A computation as steps, in plain data: forward from the oldest to the youngest, and back with all that is added.

Every number is the ledger's, rounded as `DETAILS` says; what JSON has no number for is text: "nan", "inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...core.tensor import Tensor
from ..formula import local
from ..ledger import Contribution, Ledger, argument, changed_since, stopped
from ..naming import names
from ..notation import plain
from ..reasons import pointwise
from ..summary import host, summary
from ..words import printable

DIGITS = 4
"""How many significant digits are shown."""
ENTRIES = 64
"""Arrays with up to this many numbers are shown whole."""
CORNER = 5
"""Of larger ones the first so many rows and columns."""
DETAILS = ((ENTRIES, CORNER, DIGITS), (36, 4, 3), (16, 3, 3))
"""These three, and those that take their place, one after the other, where there are too many numbers for a page."""
ROOM = 400_000
"""How many characters of numbers are too many."""
OWN, FIRST_SLOT = "\ue0ff", 0xE100
"""The letters that stand in a formula for the result, and for the arguments by their place."""


@dataclass(frozen=True)
class Pattern:
    """A formula with places for names: in LaTeX, where the arguments and the result are letters of `slot`."""

    latex: str

    @property
    def text(self) -> str:
        """In one line of text; the gradient of the result, a letter with a bar, is written with a nabla in front."""
        return plain(self.latex).replace(f"{OWN}\u0304", f"\u2207{OWN}")


def slot(place: int) -> str:
    """The letter that stands for an argument."""
    return chr(FIRST_SLOT + place)


class Trace:
    """The steps of one ledger.

    names: by age. ids: by age, those of `see.graph`. patterns: the formulas that occur, each once.
    data: lists, dictionaries, texts and numbers, ready for JSON:

    nodes: in tape order, oldest first, which is the order of the forward steps. For each: `id`, `name`, `op` ("" for
        a leaf), `role`, `shape`, `dtype`, `value`, `inputs` (ids, or the number that an argument is), `formula` (the
        place of its pattern, -1 for none), `each` (whether it works element by element), `where`, `source`, `state`
        (why there is no gradient, "" if there is one), `stop`, `hook` (whether a hook has changed the gradient) and
        `stale`, the nodes that were computed from other numbers than it has now.
    backward: youngest first. For each node that a gradient or its loss has come to: `node`, `gradient` (complete),
        `seed` (whether a gradient came in from outside), `waited` (the consumers that had to be done before), and
        `parts`, one for each argument that a gradient goes on to: `to`, `place`, `argument`, `rule` (a pattern),
        `product`, `summed` (the axes over which it was summed, because of a broadcast) and then `added`, `before`,
        `after`, or `lost`, why there is nothing.
    arrays: each that occurs, once; in the lists above its place here stands for it. A summary in words, the shape, the
        numbers row by row, and where these are only a corner of it, the shape of the corner.
    patterns: the formulas as text.
    """

    def __init__(self, book: Ledger) -> None:
        ordered = book.tensors[::-1]
        self.ids = {t.age: f"n{i}" for i, t in enumerate(ordered)}
        self.names = names(ordered)
        self.patterns: dict[Pattern, int] = {}
        self.arrays: dict[str, tuple[int, Excerpt]] = {}
        slopes: dict[int, dict[int, str]] = {}
        self.stale = changed_since(ordered)
        nodes = []
        for t in ordered:
            places = range(len(t.inputs or ()))
            formulas = local(t, {i: slot(i) for i in places}, OWN) if t.op else None
            slopes[t.age] = formulas.slopes if formulas else {}
            nodes.append(self._node(t, book, formulas.result if formulas else ""))
        consumers: dict[int, dict[str, None]] = {}  # of each, those that a gradient comes from, each once
        added: dict[int, list[tuple[Contribution, Any, Any]]] = {}  # by age of the consumer
        for t in book.tensors:
            for each in book.running(t):
                added.setdefault(each[0].consumer.age, []).append(each)
                consumers.setdefault(t.age, {})[self.ids[each[0].consumer.age]] = None
        backward = []
        for t in book.tensors:
            if t.age in book.gradients or t.age in book.lost:
                parts = [self._part(*each, slopes[t.age]) for each in sorted(added.get(t.age, ()), key=_place)]
                for i, x in enumerate(t.inputs or ()):
                    if why := book.missing.get((t.age, i)):
                        lost = {"to": self.ids[x.age], "place": i, "argument": argument(t, i), "lost": printable(why)}
                        parts.append(lost)
                backward.append({
                    "node": self.ids[t.age],
                    "gradient": None if t.age in book.lost else self._array(book.gradients[t.age]),
                    "seed": t.age in book.seeds,
                    "waited": list(consumers.get(t.age, ())),
                    "parts": parts,
                })  # fmt: skip
        excerpts = [excerpt for _, excerpt in self.arrays.values()]
        for detail in DETAILS:
            arrays = [excerpt.shown(*detail) for excerpt in excerpts]
            if len(json.dumps(arrays, separators=(",", ":"))) <= ROOM:
                break
        self.data: dict[str, Any] = {
            "nodes": nodes, "backward": backward, "arrays": arrays,
            "patterns": [pattern.text for pattern in self.patterns],
        }  # fmt: skip

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The nodes of `data` by their ids."""
        return {node["id"]: node for node in self.data["nodes"]}

    def computed(self, id: str) -> str:
        """What a node computes, in one line with the names of its arguments; "" for a leaf and what has no formula."""
        node = self.nodes[id]
        if node["formula"] < 0:
            return ""
        names = [self.nodes[x]["name"] if isinstance(x, str) and x in self.nodes else str(x) for x in node["inputs"]]
        text: str = self.data["patterns"][node["formula"]]
        return text.translate({FIRST_SLOT + place: name for place, name in enumerate(names)})

    def _node(self, t: Tensor, book: Ledger, formula: str) -> dict[str, Any]:
        op, last = t.op, book.running(t)[-1:]
        role = "operation" if op else "parameter" if t.requires_grad else "input"
        return {
            "id": self.ids[t.age], "name": self.names[t.age], "op": printable(op.name) if op else "", "role": role,
            "shape": list(t.shape), "dtype": str(t.dtype), "value": self._array(t._array),
            "inputs": [self.ids[x.age] if type(x) is Tensor else _spelled(x) for x in t.inputs or ()],
            "formula": self._known(formula), "each": pointwise(t),
            "where": printable(t.scope.path) if t.op and t.scope else "", "source": printable(t.source or ""),
            "state": printable(book.state(t)), "stop": stopped(t),
            "hook": bool(last) and t.age in book.gradients and not _same(last[0][2], book.gradients[t.age]),
            "stale": [self.ids[node.age] for node in self.stale.get(t.age, ())],
        }  # fmt: skip

    def _known(self, latex: str) -> int:
        return self.patterns.setdefault(Pattern(latex), len(self.patterns)) if latex else -1

    def _array(self, array: Any) -> int:
        found = Excerpt(array)
        return self.arrays.setdefault(repr(found.shown()), (len(self.arrays), found))[0]

    def _part(self, c: Contribution, before: Any, after: Any, slopes: Mapping[int, str]) -> dict[str, Any]:
        return {
            "to": self.ids[c.x.age], "place": c.place, "argument": c.argument,
            "rule": self._known(slopes.get(c.place, "")),
            "product": self._array(c.dense) if c.broadcast else None, "summed": list(c.axes),
            "added": self._array(c.added), "before": None if before is None else self._array(before),
            "after": self._array(after),
        }  # fmt: skip


class Excerpt:
    """What may be shown of an array: a summary, its shape, and its numbers or, if they are many, a corner of them."""

    def __init__(self, array: Any) -> None:
        whole = host(array)
        self.summary, self.shape, self.size = str(summary(array)), list(whole.shape), whole.size
        self.numbers = (whole if whole.size <= ENTRIES else _corner(whole, CORNER)).copy()

    def shown(self, entries: int = ENTRIES, corner: int = CORNER, digits: int = DIGITS) -> list[Any]:
        """The summary, the shape, the numbers, and the shape of the corner if they are no more."""
        part = self.numbers if self.size <= entries else _corner(self.numbers, corner)
        numbers = [_spelled(n, digits) for n in part.ravel().tolist()]
        return [self.summary, self.shape, numbers, *([list(part.shape)] if self.size > entries else [])]


def _corner(array: Any, length: int) -> Any:
    """The first rows and columns of the first of all matrices."""
    return array[(0,) * (array.ndim - 2)][tuple(slice(length) for _ in range(min(array.ndim, 2)))]


def _spelled(n: Any, digits: int = DIGITS) -> Any:
    """A number as it is shown, or as text if JSON has none like it."""
    if isinstance(n, (bool, int)):
        return n
    if isinstance(n, float):
        return float(f"{n + 0.0:.{digits}g}") if math.isfinite(n) else str(n)
    return f"{n:.{digits}g}" if isinstance(n, complex) else printable(str(n))


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is the same as NaN here


def _place(each: tuple[Contribution, Any, Any]) -> int:
    return each[0].place
