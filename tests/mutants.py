"""Breaking the package on purpose: a check that does not notice is worth nothing."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType

import pytest


def mutated(monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, old: str, new: str) -> None:
    """Replace a piece of a function's source text, wherever it occurs in it; the text has to be there."""
    source = textwrap.dedent(inspect.getsource(getattr(module, function)))
    assert old in source, f"{function} no longer contains {old!r}: choose another way to break it"
    before = module.__dict__[function]
    exec(compile(source.replace(old, new), f"<mutated {function}>", "exec"), module.__dict__)
    broken = module.__dict__[function]
    module.__dict__[function] = before
    monkeypatch.setattr(module, function, broken)
