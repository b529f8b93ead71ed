"""The one model of a picture: boxes, arrows and groups, in the order of the tape, and nothing about how they look.

Values that are used in many places, above all parameters, are not joined to all of them by long arrows: each
place gets a *stub*, a box of its own that stands for the value. Without that an unrolled network is unreadable,
and laying it out takes minutes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..errors import GraphError
from .summary import Summary

FORMAT = 2


@dataclass(frozen=True)
class Node:
    """One box.

    id: "n" and the place in the tape, oldest first; a stub adds the place that it stands in; "b..." for closed groups.
    role: "operation", "parameter" (a leaf with a gradient), "input" (one without), "constant"; of what is not shown in
        detail: "module", or "step" for one or several time steps.
    op: the primitive's name; text: the same with its numbers and options, such as "sub(1, ·)"; formula: in LaTeX.
    group: the id of the innermost group around it, "" for none.
    part: the named quantity of its group that it helps to complete, such as "z"; its own name if it has one.
    result: whether it is what the picture was asked for.
    of: for a stub, the id of the box that it stands for.
    value, gradient: the numbers in a few words; for a module, of the last result that leaves it.
    state: why there is no gradient: "constant", "not reached", "lost: ..." or "not run"; "" if there is one.
    grad: for a parameter, the words for what `backward()` has left in its `.grad`; "not run" if nothing.
    stop: of a leaf, why gradients end there, such as "detached" or "mul under no_grad()".
    saved: whether the way back reads its value again. stale: whether it has another value now than the tape read.
    uses: how many arguments of operations it is. count: how many operations, or equal time steps, this box stands for.
    listed: whether it is not drawn itself, but only listed, as parameters that have stubs everywhere are.
    source: the line of code, where `debug()` kept it.
    """

    id: str
    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    op: str = ""
    text: str = ""
    formula: str = ""
    group: str = ""
    part: str = ""
    result: bool = False
    of: str = ""
    value: Summary | None = None
    gradient: Summary | None = None
    state: str = ""
    grad: str = ""
    stop: str = ""
    saved: bool = False
    stale: bool = False
    uses: int = 0
    count: int = 1
    listed: bool = False
    source: str = ""

    @property
    def closed(self) -> bool:
        """Whether it stands for a call of a module or for time steps that are not shown in detail."""
        return self.role in ("module", "step")


@dataclass(frozen=True)
class Edge:
    """One arrow: the value of `source` is the argument `name` (number `place`) of `target`.

    ordered: whether the name matters: the arguments cannot change places, and their shapes do not tell them apart.
    differentiable: whether a gradient comes back along it.
    slope: the contribution to the gradient of the source, in LaTeX; y with a bar is that of the target.
    contribution: its numbers. local: those of the local derivative, where the operation works element by element.
    broadcast: whether it was summed, because the source was broadcast.
    lost: why there is no contribution, where a value was overwritten.
    loop: whether it leads from one time step into the next of the same box; count: how often, there or elsewhere.
    """

    id: str
    source: str
    target: str
    place: int
    name: str
    ordered: bool
    differentiable: bool
    slope: str = ""
    contribution: Summary | None = None
    local: Summary | None = None
    broadcast: bool = False
    lost: str = ""
    loop: bool = False
    count: int = 1


@dataclass(frozen=True)
class Group:
    """One call of a module, or one time step (`step` is its number, else None); `parent` is "" at the top.

    last: the last of the equal time steps that it stands for, where they are rolled into one.
    """

    id: str
    parent: str
    name: str
    kind: str
    step: int | None
    path: str
    last: int | None = None


@dataclass(frozen=True)
class Graph:
    """The whole picture: boxes in tape order, oldest first (a stub comes before its first use), arrows, groups.

    of: what the gradients are those of, in words, such as "loss" or "the sum of h".
    hidden: how many operations are neither drawn nor in a box: those that prepare weights for closed boxes alone.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    of: str = ""
    hidden: int = 0

    def to_json(self) -> str:
        """The model as JSON text, which `from_json` reads back."""
        data = _spelled({"format": FORMAT, **asdict(self)})
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode(errors="backslashreplace").decode()  # half a pair of UTF-16 is \ud800 in JSON too

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """The model that `to_json` wrote.

        Raises: GraphError, if the text has another format.
        """
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise GraphError(f"this is no picture of format {FORMAT}; draw it again with this version")
        nodes = tuple(
            Node(**{**n, "shape": tuple(n["shape"]), "value": _read(n["value"]), "gradient": _read(n["gradient"])})
            for n in data["nodes"]
        )
        edges = tuple(
            Edge(**{**e, "contribution": _read(e["contribution"]), "local": _read(e["local"])}) for e in data["edges"]
        )
        return cls(nodes, edges, tuple(Group(**g) for g in data["groups"]), data["of"], data["hidden"])

    @property
    def shared(self) -> dict[str, list[Node]]:
        """The stubs by the id of the box that they stand for."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.of:
                found.setdefault(node.of, []).append(node)
        return found

    @cached_property
    def _parents(self) -> dict[str, str]:
        return {group.id: group.parent for group in self.groups}

    def within(self, group: str) -> tuple[str, ...]:
        """The ids of a group and of all groups around it, the innermost first."""
        found = []
        while group:
            found.append(group)
            group = self._parents[group]
        return tuple(found)


def _spelled(data: Any) -> Any:
    """The same with numbers that JSON does not know as text: "nan", "inf", "-inf"."""
    if isinstance(data, dict):
        return {key: _spelled(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_spelled(value) for value in data]
    odd = (isinstance(data, float) and not math.isfinite(data)) or isinstance(data, complex)
    return str(data) if odd else data


def _read(data: Any) -> Summary | None:
    if data is None:
        return None
    numbers = tuple(
        complex(n) if data["kind"] == "c" else float(n) if isinstance(n, str) else n for n in data["numbers"]
    )
    ends = {key: float(data[key]) for key in ("low", "high", "norm")}
    return Summary(**{**data, **ends, "numbers": numbers})
