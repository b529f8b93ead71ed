"""Functions that are named on a command line, `FILE.py:function`, and what they are called with."""

from __future__ import annotations

import ast
import inspect
import random
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from ..backend import random as package_random
from ..core.modes import enable_grad
from ..core.tensor import Tensor, next_age, tensor
from ..errors import GraphError, LabError, TinygradError
from ..ops.elementwise import tanh

INPUTS = "inputs"
"""The function of a file that gives the arguments, a tuple or list of them, or a mapping by name."""


def loss(x: Any = ((0.5, -1.0, 2.0), (1.5, 0.25, -0.5)), w: Any = ((0.4,), (-0.3,), (0.2,)), b: float = 0.1) -> Any:
    """The example where no file is named: a neuron on N = 2 inputs, whose bias is broadcast and whose value is used
    twice."""
    y = tanh(x @ w + b)
    y.name = "y"
    return (y * y).sum()


def crossing(x: Any = 0.5, w: Any = 1.5) -> Any:
    """The example of the order lab: the two ways from v to the sum are of different length."""
    v = x * w
    v.name = "v"
    return v * tanh(v) + v


def located(where: str) -> tuple[Callable[..., Any], list[Any], Path]:
    """The function that `FILE.py:function` names, the arguments to call it with, and its file.

    The arguments are those that `inputs()` in the same file returns, if there is such a function, else the defaults.
    Without `:function`, it is the only one in the file.

    The file is run, with every random number started anew.

    Raises: LabError, if there is no such file or function, if it fails, or if arguments are missing.
    """
    file, colon, name = where.rpartition(":")
    if not (file and name.isidentifier()):
        file, colon, name = where, "", ""
    path = Path(file)
    namespace = _run(path)
    own = {
        key: value for key, value in namespace.items()
        if isinstance(value, FunctionType) and value.__module__ == namespace["__name__"] and not key.startswith("_")
    }  # fmt: skip
    choices = [key for key in own if key != INPUTS]
    if not colon and len(choices) == 1:
        name = choices[0]
    if not callable(function := namespace.get(name)):
        there = f"its functions are {', '.join(choices)}" if choices else "it has no functions"
        raise LabError(
            f"{path} has no function {name!r}; {there}" if colon else f"say which function: {path}:NAME; {there}"
        )
    with told(path, f"{INPUTS}() of {path}"):
        given = own[INPUTS]() if INPUTS in own else ()
    return function, _arguments(function, given, path), path


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise LabError(f"there is no file {path}; name it as FILE.py:function")
    package_random.seed(0)
    np.random.seed(0)
    random.seed(0)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        with told(path, str(path)):
            return runpy.run_path(str(path), run_name=f"lab_{path.stem}")
    finally:
        sys.path.pop(0)


def _arguments(function: Callable[..., Any], given: Any, path: Path) -> list[Any]:
    named = dict(given) if isinstance(given, dict) else {}
    listed = [] if named else list(given) if isinstance(given, (tuple, list)) else [given]
    parameters = [
        p for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    for p in parameters[len(listed) :]:
        if p.name not in named and p.default is p.empty:
            raise LabError(
                f"{path} does not say what {p.name} is: give it a default, or write a function {INPUTS}() beside it "
                "that returns the arguments"
            )
        listed.append(named.get(p.name, p.default))
    return listed


@contextmanager
def told(path: Path, what: str) -> Iterator[None]:
    """Inside, whatever fails in a user's file is one sentence, with the line. Our own errors have theirs."""
    try:
        yield
    except TinygradError:
        raise
    except (Exception, SystemExit) as error:
        raise LabError(f"{what} failed: {explained(error, path)}") from error


def explained(error: BaseException, path: Path) -> str:
    """An error in a few words, with the line of a file in which it happened."""
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()
    ]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {said}" + (f" (line {line})" if line else "")


def traced(function: Callable[..., Any], xs: Sequence[Any]) -> Tensor:
    """The result of a function at copies of its arguments, of which the floating ones have gradients and names.

    What it computes and still has in a variable when it returns is called like that.

    Raises: GraphError, if it returns no Tensor.
    """
    try:
        called = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):  # a builtin
        called = []
    called += [f"x{i}" for i in range(len(called), len(xs))]
    with enable_grad(), _variables_named(function):
        y = function(*[_leaf(x, name) for x, name in zip(xs, called)])
    if not isinstance(y, Tensor):
        name = getattr(function, "__name__", repr(function))
        raise GraphError(f"{name} must return a Tensor, not {type(y).__name__}: tg's functions of its arguments do")
    return y


@contextmanager
def _variables_named(function: Callable[..., Any]) -> Iterator[None]:
    """Inside, results of the function that have no name are called like the variables that it has when it returns."""
    code, born, before = getattr(function, "__code__", None), next_age(), sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            for name, value in frame.f_locals.items():
                if type(value) is Tensor and value.op is not None and value.age > born and not value.name:
                    value.name = name

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


def _leaf(x: Any, name: str) -> Any:
    if isinstance(x, (bool, int, str)) or x is None:
        return x
    if isinstance(x, Tensor):
        floating = x.dtype.kind == "f"
        return tensor(x.detach(), backend=x.backend, requires_grad=floating, name=x.name or name)
    if isinstance(x, (float, list, tuple)) or hasattr(x, "dtype"):
        made = tensor(x, name=name)
        made.requires_grad = made.dtype.kind == "f"
        return made
    return x


def run_worksheet(path: Path) -> dict[str, Any]:
    """The variables of a worksheet, line by line, so that a line that fails does not keep the others from being read.

    What a failing line was to give is the error itself.

    Raises: LabError, if there is no such file, or if it is no Python.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SyntaxError, ValueError) as error:
        raise LabError(f"{path} is no Python: {explained(error, path)}") from error
    namespace: dict[str, Any] = {"__name__": "worksheet", "__file__": str(path)}
    for line in tree.body:
        try:
            exec(compile(ast.Module([line], []), str(path.resolve()), "exec"), namespace)
        except (Exception, SystemExit) as error:
            names = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
            made = [node.id for node in names if isinstance(node.ctx, ast.Store)]
            if "drill" in made:
                raise error if isinstance(error, TinygradError) else LabError(explained(error, path)) from error
            bad = [node.id for node in names if node.id not in made and _is_missing(namespace.get(node.id))]
            said = f"it needs {bad[0]}, which is blank or fails" if bad else explained(error, path)
            namespace |= dict.fromkeys(made, LabError(said))
    return namespace


def _is_missing(value: Any) -> bool:
    return value is ... or isinstance(value, LabError)
