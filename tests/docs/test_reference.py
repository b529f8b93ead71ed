"""The reference names every public thing once and nothing else, and docstrings say what can go wrong."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from pages import ROOT, documented

import tinygrad_rnn as tg
from tinygrad_rnn import errors
from tinygrad_rnn.cli.command import main

PAGES = ROOT / "docs" / "reference"
ROOMS = ["", "nn", "nn.equations", "nn.initializers", "optim", "train", "see", "see.flow", "interop", "lab", "errors"]
EXTENSIONS = {
    "nn.initializers": {"Initializer", "Maker", "Values", "initializer"},  # what layers are made with
    "errors": {"explained", "memory_explained", "misfit", "mixed", "operands"},  # the words of messages
}
"""What stands in a room without __all__ for the package itself, not for its users."""
ELSEWHERE = {"tinygrad_rnn.see.reasons.missing"}
ERRORS = {name for name, thing in vars(errors).items() if isinstance(thing, type)} - {"AxisError", "memory_explained"}


def public(room: str) -> dict[str, Any]:
    """The names of a room that are for its users, modules left out."""
    module = importlib.import_module(f"tinygrad_rnn.{room}".rstrip("."))
    listed = getattr(module, "__all__", None)
    own = [
        name for name, thing in vars(module).items()
        if not name.startswith("_") and (not room or getattr(thing, "__module__", None) == module.__name__)
    ]  # fmt: skip
    found = {name: getattr(module, name) for name in listed or own if name not in EXTENSIONS.get(room, ())}
    return {f"{module.__name__}.{name}": x for name, x in found.items() if callable(x)}


PUBLIC = {name: thing for room in ROOMS for name, thing in public(room).items()}


ENTRIES = Counter(
    name for page in sorted(PAGES.glob("*.md")) for kind, name in documented(page.read_text("utf-8"))
    if kind != "automodule"
)  # fmt: skip


def test_every_public_name_is_in_the_reference() -> None:
    assert sorted(PUBLIC.keys() - ENTRIES.keys()) == []


def test_no_name_is_there_twice() -> None:
    assert [name for name, times in ENTRIES.items() if times > 1] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_every_name_of_the_reference_exists(name: str) -> None:
    assert pkgutil.resolve_name(name).__doc__
    assert name in PUBLIC or name in ELSEWHERE or name.startswith("tinygrad_rnn.Tensor.")


def test_the_members_of_tensor_are_all_there() -> None:
    entries = re.findall(r"(?:^|[.;] |^    )(\w+(?:, \w+)*): ", inspect.getdoc(tg.Tensor) or "", re.M)
    told = {name for entry in entries for name in entry.split(", ")}
    for name in {name for name in dir(tg.Tensor) if not name.startswith("_")} - vars(tg).keys():
        assert f"tinygrad_rnn.Tensor.{name}" in ENTRIES or name in told, name


def test_what_the_directives_mean() -> None:
    page = ".. currentmodule:: a.b\n.. autofunction:: f\n.. autoclass:: C\n   :members:\n.. automodule:: a.c\n"
    assert list(documented(page)) == [("autofunction", "a.b.f"), ("autoclass", "a.b.C"), ("automodule", "a.c")]


# -- what docstrings say -----------------------------------------------------------------------------------


def functions_of(name: str, thing: Any) -> Iterator[tuple[str, str, Any]]:
    """A public function, or the public methods of a class: name, docstring, function."""
    if not isinstance(thing, type):
        primitive = getattr(thing, "primitive", None)
        yield name, inspect.getdoc(thing) or "", primitive.kernel if primitive else thing
        return
    for key, value in vars(thing).items():
        function = value.fget if isinstance(value, property) else getattr(value, "func", value)
        function = getattr(function, "__func__", function)
        written = isinstance(function, types.FunctionType) and not function.__code__.co_filename.startswith("<")
        if written and function.__module__ == thing.__module__:
            if key in ("__init__", "__post_init__"):
                yield f"{name}.{key}", f"{inspect.getdoc(thing)}\n\n{function.__doc__ or ''}", function
            elif not key.startswith("_"):
                yield f"{name}.{key}", inspect.getdoc(getattr(thing, key)) or "", function


FUNCTIONS = [entry for name, thing in PUBLIC.items() for entry in functions_of(name, thing)]


def raised(source: str) -> set[str]:
    """The names of our errors that a function raises itself."""
    nodes = [node for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Raise)]
    called = [node.exc.func if isinstance(node.exc, ast.Call) else node.exc for node in nodes]
    return {node.id for node in called if isinstance(node, ast.Name)} & ERRORS


def untold(docstring: str, source: str) -> set[str]:
    """The errors that a function raises itself, and that its docstring leaves out."""
    told = docstring.partition("Raises")[2]
    return set() if re.search(r"\bas `", told) else {name for name in raised(source) if name not in told}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    doc = PUBLIC[name].__doc__
    assert doc and not doc.startswith(f"{name.rpartition('.')[2]}("), "a generated docstring says nothing"


@pytest.mark.parametrize("name, docstring, function", FUNCTIONS, ids=[name for name, _, _ in FUNCTIONS])
def test_a_function_that_raises_an_error_says_so(name: str, docstring: str, function: Any) -> None:
    assert not untold(docstring, inspect.getsource(inspect.unwrap(function)))


def test_an_error_that_is_not_told_is_caught() -> None:
    source = "def f(x):\n    if x:\n        raise ShapeError('no')\n    raise OptionError from None\n"
    assert untold("Computes.", source) == {"ShapeError", "OptionError"}
    assert untold("Computes.\n\nRaises: ShapeError, if x.", source) == {"OptionError"}
    assert untold("Computes.\n\nRaises: as `g`.", source) == set()


# -- the command -------------------------------------------------------------------------------------------


def test_every_command_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    (names,) = re.findall(r"\{([\w,]+)\}", capsys.readouterr().out.partition("commands:")[2])
    page = (PAGES / "command.md").read_text("utf-8")
    assert re.findall(r"^## (\w+)$", page, re.M) == names.split(",")
    assert re.findall(r'^command_help\("(\w+)"\)$', page, re.M) == names.split(",")
