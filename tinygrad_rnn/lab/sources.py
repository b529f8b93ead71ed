"""A user's files: functions named on a command line, `FILE.py:function`, and worksheets that were filled in."""

from __future__ import annotations

import ast
import random
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from ..backend import random as package_random
from ..core.tensor import Tensor
from ..errors import LabError, TinygradError
from ..ops.elementwise import tanh
from .tracing import parameters_of, traced

INPUTS = "inputs"
"""The function of a file that gives the arguments: a mapping by name, a tuple or list of them, or the only one."""


def loss(x: Any = ((0.5, -1.0, 2.0), (1.5, 0.25, -0.5)), w: Any = ((0.4,), (-0.3,), (0.2,)), b: float = 0.1) -> Any:
    """The example of a drill: a neuron on N = 2 inputs, whose bias is broadcast and whose value is used twice."""
    y = tanh(x @ w + b)
    return (y * y).sum()


def crossing(x: Any = 0.5, w: Any = 1.5) -> Any:
    """The example of the order lab: the two ways from v to the sum are of different length."""
    v = x * w
    return v * tanh(v) + v


# -- a function and its arguments ---------------------------------------------------------------------------------


def result_of(where: str | None, example: Callable[..., Any]) -> Tensor:
    """What the function that `FILE.py:function` names returns; or an example, if none is named.

    Its arguments are those that `inputs()` in the same file returns, if there is such a function, else the defaults.
    Without `:function`, it is the only one in the file. The file is run, with every random number started anew.

    Raises: LabError, if there is no such file or function, if it fails, or if arguments are missing; as `traced`.
    """
    if where is None:
        return traced(example, *example.__defaults__ or ())
    if not isinstance(where, str):
        raise LabError(f'name a function as "FILE.py:function", not as {type(where).__name__}')
    file, _, name = where.rpartition(":") if re.search(r":\w+$", where) else (where, "", "")
    path = Path(file)
    namespace = _run(path)
    own = [
        key for key, value in namespace.items()
        if isinstance(value, FunctionType) and value.__module__ == namespace["__name__"] and not key.startswith("_")
    ]  # fmt: skip
    choices = [key for key in own if key != INPUTS]
    function = namespace.get(name or (choices[0] if len(choices) == 1 else ""))
    if not callable(function):
        asked = f"{path} has no function {name!r}" if name else f"say which function: {path}:NAME"
        there = f"its functions are {', '.join(choices)}" if choices else "it has no functions"
        raise LabError(f"{asked}; {there}")
    with told(path, f"{INPUTS}() of {path}"):
        given = namespace[INPUTS]() if INPUTS in own else {}
    args = _arguments(function, given, path)
    with told(path, where):
        return traced(function, *args)


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise LabError(f"there is no file {path}; name it as FILE.py:function")
    for seed in (package_random.seed, np.random.seed, random.seed):
        seed(0)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        with told(path, str(path)):
            return runpy.run_path(str(path), run_name=f"lab_{path.stem}")
    finally:
        sys.path.pop(0)


def _arguments(function: Callable[..., Any], given: Any, path: Path) -> list[Any]:
    named = given if isinstance(given, dict) else {}
    args = [] if named is given else list(given) if isinstance(given, (tuple, list)) else [given]
    for p in parameters_of(function)[len(args) :]:
        if p.name not in named and p.default is Parameter.empty:
            raise LabError(
                f"{path} does not say what {p.name} is: give it a default, or write a function {INPUTS}() beside it "
                "that returns the arguments"
            )
        args.append(named.get(p.name, p.default))
    return args


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
    if isinstance(error, SyntaxError):
        said, lines = error.msg, [error.lineno]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        said, lines = str(error), [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return f"{type(error).__name__}: {said}" + (f" (line {lines[-1]})" if lines and lines[-1] else "")


# -- worksheets ---------------------------------------------------------------------------------------------------


def run_worksheet(path: Path, drill: Any = None) -> tuple[dict[str, Any], set[str]]:
    """The variables of a worksheet, line by line, so that a line that fails does not keep the others from being read.

    What a failing line was to give is the error itself. drill: what it has by that name, unless it makes one itself.
    Returns also its lines, as `ast.unparse` writes them.

    Raises: LabError, if there is no such file, or if it is no Python.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SyntaxError, ValueError) as error:
        raise LabError(f"{path} is no Python: {explained(error, path)}") from error
    namespace: dict[str, Any] = {"__name__": "worksheet", "__file__": str(path), "drill": drill}
    for line in tree.body:
        try:
            exec(compile(ast.Module([line], []), str(path), "exec"), namespace)
        except (Exception, SystemExit) as error:
            names = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
            made = [node.id for node in names if isinstance(node.ctx, ast.Store)]
            if "drill" in made:
                raise error if isinstance(error, TinygradError) else LabError(explained(error, path)) from error
            bad = [node.id for node in names if node.id not in made and _is_missing(namespace.get(node.id))]
            said = f"it needs {bad[0]}, which is blank or fails" if bad else explained(error, path)
            namespace |= dict.fromkeys(made, LabError(said))
    return namespace, set(map(ast.unparse, tree.body))


def _is_missing(value: Any) -> bool:
    return value is ... or isinstance(value, LabError)
