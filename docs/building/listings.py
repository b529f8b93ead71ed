"""What the reference lists that docstrings do not tell: operators, functions as methods, the words of the command.

Every function returns Markdown, which a cell shows as a part of its page.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from typing import Any

import tinygrad_rnn as tg
from building.tables import Markdown, in_columns
from tinygrad_rnn.cli import main
from tinygrad_rnn.functions.methods import COMPARISONS, METHODS, OPERATORS

SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "matmul": "@",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
OTHERS = {"-x": tg.neg, "abs(x)": tg.abs, "~x": tg.logical_not}


def link(function: Callable[..., Any]) -> str:
    """A function by its short name, which leads to its entry."""
    return f"{{py:func}}`tg.{function.__name__} <tinygrad_rnn.{function.__name__}>`"


def operators() -> Markdown:
    """Python's operators, and the functions that they call."""
    found = {f"x {SIGNS[name]} y": function for name, function in (OPERATORS | COMPARISONS).items()} | OTHERS
    rows = [(f"`{each}`", link(function)) for each, function in found.items()]
    return in_columns(["written", "is"], [*rows, ("`x[key]`", "[as NumPy indexes](functions.md#picking-elements)")])


def methods() -> Markdown:
    """The functions that Tensor has as methods, too."""
    return Markdown(", ".join(link(function) for function in [*METHODS, tg.reshape, tg.transpose]))


def command_help(*words: str) -> Markdown:
    """What a command says of itself, such as `command_help("train")`."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main([*words, "--help"])
    return Markdown(f"```text\n{said.getvalue().rstrip()}\n```")
