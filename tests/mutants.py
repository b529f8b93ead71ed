"""Breaking the package on purpose: a check that does not notice is worth nothing."""

from __future__ import annotations

import inspect
import sys
import textwrap
from types import ModuleType
from typing import Any

import pytest


def mutated(monkeypatch: pytest.MonkeyPatch, owner: ModuleType | type, function: str, old: str, new: str) -> None:
    """Replace a piece of a function's or a method's source text, wherever it occurs in it; the text has to be there."""
    before = vars(owner)[function]
    source = textwrap.dedent(inspect.getsource(before))
    assert old in source, f"{function} no longer contains {old!r}: choose another way to break it"
    made: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"<mutated {function}>", "exec"), vars(sys.modules[before.__module__]), made)
    monkeypatch.setattr(owner, function, made[function])
