"""What is in force while operations run: recording, debugging and the scope, in one context variable.

One look-up per operation finds all three; threads and coroutines each see their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager as Switch
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backend import NAMESPACE_OF, Array
from ..errors import NumericalError

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


@dataclass(slots=True, eq=False)  # not frozen: that would treble the time of a call of a module
class Scope:
    """One call of a module, or one time step of it, inside another: where a Tensor was born.

    `name` is the attribute that holds the module ("gru"), `kind` its class ("GRU"), `step` the time step.
    Two calls of one module are two scopes, so that a picture can draw them apart.
    """

    parent: Scope | None
    name: str
    kind: str = ""
    step: int | None = None

    @property
    def path(self) -> str:
        """The whole way from the outermost module, such as "model.gru[t=3].cell"."""
        parts: list[str] = []
        scope: Scope | None = self
        while scope is not None:
            parts.append(f".{scope.name}" if scope.step is None else f"[t={scope.step}]")
            scope = scope.parent
        return "".join(reversed(parts)).removeprefix(".")


Listener = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
"""(primitive, inputs, options, result): what `listening` calls.

One that has a method `layer` takes recurrent layers as a whole: it is called in place of their operations, see
`nn.recurrent`. One that has a method `read` hears of each Tensor whose numbers are read, by `.numpy()`, `.item()`,
`bool()` and the like.
"""


@dataclass(slots=True, eq=False)
class Mode:
    """The settings that every operation reads: is it recorded, is it inspected, whose is it, who hears of it."""

    recording: bool = True
    debug: bool = False
    scope: Scope | None = None
    listener: Listener | None = None
    watched: bool = False  # debug, or a listener: the one look that an operation in a hurry takes


_mode: ContextVar[Mode] = ContextVar("tinygrad_rnn_mode", default=Mode())  # noqa: B039 (nobody writes to a Mode)
current = _mode.get


@contextmanager
def changed(**changes: bool | Scope | Listener | None) -> Iterator[None]:
    mode = replace(current(), **changes)  # type: ignore[arg-type]
    mode.watched = mode.debug or mode.listener is not None
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def no_grad() -> Switch[None]:
    """Record nothing inside the `with` (or inside the function that it decorates): results have no graph."""
    return changed(recording=False)


def enable_grad() -> Switch[None]:
    """Record again, inside a `no_grad()`: in a `with`, or in the function that it decorates."""
    return changed(recording=True)


def debug() -> Switch[None]:
    """Keep the source line of every operation and stop at the first one that makes a NaN or an infinity.

    Indices into arrays on a GPU, which CuPy would wrap around silently, are checked too.

    Raises: NumericalError, from the operation or from `backward()`, with the line and the operands.
    """
    return changed(debug=True)


def listening(listener: Listener | None) -> Switch[None]:
    """Tell a function of every operation on tensors inside the `with`, differentiable or not; None: tell nobody."""
    return changed(listener=listener)


class scope:
    """Name what is computed inside the `with`: `with scope("gru", "GRU"):` or `with scope(step=3):`.

    name: what pictures and messages call it. kind: the class of a module. step: the time step.
    """

    __slots__ = ("_token", "kind", "name", "step")

    def __init__(self, name: str = "", kind: str = "", *, step: int | None = None) -> None:
        self.name, self.kind, self.step = name, kind, step

    def __enter__(self) -> None:
        mode = current()
        inner = Scope(mode.scope, self.name, self.kind, self.step)
        self._token = _mode.set(Mode(mode.recording, mode.debug, inner, mode.listener, mode.watched))

    def __exit__(self, *exception: object) -> None:
        _mode.reset(self._token)


def place() -> str:
    """Where we are, for messages: " (in gru[t=3].cell)", or nothing outside of modules."""
    scope = current().scope
    return f" (in {scope.path})" if scope else ""


def source_line() -> str:
    """The file and line, outside of this package, that is running now; of a notebook, the line of its cell."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    file = Path(frame.f_code.co_filename)
    return f"{'cell' if file.parent.name.startswith('ipykernel_') else file.name}:{frame.f_lineno}"


def inspect_result(result: Array, what: str, source: str | None = None) -> str:
    """Under `debug()`: refuse a NaN or an infinity, else say which line is running.

    Raises: NumericalError, naming the operation, its operands, the line and the first bad element.
    """
    source = source or source_line()
    if result.dtype.kind in "fc":
        bad = ~NAMESPACE_OF[type(result)].isfinite(result)
        if bad.any():
            first = tuple(int(i[0]) for i in bad.nonzero()) if bad.ndim else ()
            raise NumericalError(f"{what} at {source} made {result[first]} at element {first}{place()}")
    return source
