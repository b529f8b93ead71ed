"""The page that builds an engine: seven steps of at most fifteen lines, which by themselves differentiate."""

from __future__ import annotations

import re
from inspect import signature
from itertools import count
from typing import Any

import numpy as np
import pytest
from pages import ROOT, blocks

PAGE = ROOT / "docs" / "autograd_from_nothing.md"
MOST = 15


def engine(page: str) -> dict[int, str]:
    """The code of the engine, by the number of the step whose heading stands above it."""
    parts = re.split(r"^## (\d)", page, flags=re.M)
    steps = dict(zip(map(int, parts[1::2]), parts[2::2]))
    return {
        number: "\n".join(block.text for block in blocks(text) if "engine" in block.tags)
        for number, text in steps.items()
    }


def lines(code: str) -> int:
    """How many lines there are to type: all that are not empty."""
    return sum(bool(line.strip()) for line in code.splitlines())


def test_there_are_seven_steps_of_at_most_fifteen_lines():
    counts = {number: lines(code) for number, code in engine(PAGE.read_text("utf-8")).items()}
    assert list(counts) == [1, 2, 3, 4, 5, 6, 7]
    assert all(0 < each <= MOST for each in counts.values()), counts
    assert 80 < sum(counts.values()) < 90, "as the page says"


def test_a_line_too_many_is_seen():
    code = "a = 1\n\n" * (MOST + 1)
    page = f"## 1 A\n```{{code-cell}} python\n:tags: [engine]\n{code}```\n"
    assert lines(engine(page)[1]) == MOST + 1


def after(step: int) -> dict[str, Any]:
    """What is defined after a step, by nothing but the code of the engine."""
    names: dict[str, Any] = {"np": np, "signature": signature, "count": count}
    for number, code in engine(PAGE.read_text("utf-8")).items():
        if number <= step:
            exec(compile(code, f"step {number}", "exec"), names)
    return names


@pytest.mark.parametrize("step", [3, 4, 5])
def test_gradients_add_from_the_fourth_step_on(step):
    names = after(step)
    x = names["Tensor"](3.0)
    names["backward"](x * x + x)
    assert x.grad == (3.0 if step == 3 else 7.0)


@pytest.mark.parametrize("step", [4, 5])
def test_broadcasting_is_undone_from_the_fifth_step_on(step):
    names = after(step)
    x, b = names["Tensor"](np.ones((4, 3))), names["Tensor"](np.array([[2.0]]))
    names["backward"](x * b, np.full((4, 3), 0.5))
    assert b.grad.shape == ((4, 3) if step == 4 else (1, 1))
    assert step == 4 or b.grad.item() == 6.0


def test_the_last_engine_gives_a_rule_what_it_names():
    names = after(7)
    halved = names["primitive"](dx=lambda g, y, by: g * y / by)(_halved)
    x = names["Tensor"](np.array([6.0, 8.0]))
    names["backward"](halved(x, by=2.0), np.array([1.0, 10.0]))
    assert x.grad.tolist() == [1.5, 20.0]


def _halved(xp, x, *, by):
    return x / by
