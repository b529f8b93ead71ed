"""docs/semantics.md tells the truth: each row of its tables is run, here and in PyTorch where it is installed."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import errors

PAGE = (Path(__file__).parents[1] / "docs" / "semantics.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line[:2] == "| "
    )
    if cells[0] != "where"
}
NAMES: dict[str, Any] = {"tg": tg, "np": np, "inf": math.inf, "nan": math.nan}
exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], NAMES)


def value(code: str) -> Any:
    """What a cell of code says; inf and nan are names, not literals."""
    return eval(code.strip("`"), NAMES)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6) or one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("where", ROWS)
def test_what_the_row_says_is_so(where: str, backend: str) -> None:
    code, gives, _ = ROWS[where]
    if not gives.startswith("`"):
        with pytest.raises(getattr(errors, gives)):
            value(code)
    else:
        assert same(value(code), value(gives)), f"{code} gives {value(code)}"


def test_the_page_has_no_row_twice_and_covers_the_edges_that_libraries_differ_in() -> None:
    assert len(ROWS) == len(re.findall(r"^\| (?!where \|)", PAGE, re.M)) > 60
    for word in (
        "relu at 0",
        "abs at 0",
        "clip on its bounds",
        "maximum: half",
        "max of all",
        "std of equal",
        "split by a slice",
    ):
        assert any(where.startswith(word) or word in where for where in ROWS)


def test_a_wrong_row_would_be_caught() -> None:
    assert not same(value("slope(tg.relu, [0.0])"), [0.5])
    assert not same(value("tg.zeros((4, 5, 6))[3, 2:, [1, 3]].shape"), (3, 2))
    assert not same([math.nan], [0.0]) and not same("float64", "float32") and not same(1, 1.0)


# -- PyTorch ------------------------------------------------------------------------------------------------


def torch_answers() -> dict[str, Callable[[], Any]]:
    """The rows in PyTorch's words."""
    import torch
    import torch.nn.functional as F

    def slope(f: Any, x: Any) -> Any:
        x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        f(x).sum().backward()
        return x.grad.tolist()

    def twice() -> Any:
        x = torch.tensor([3.0], requires_grad=True)
        y = (x * x).sum()
        y.backward()
        y.backward()

    def no_part() -> Any:
        x, other = torch.tensor([1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
        other.sum().backward()
        return [x.grad]

    def pullback_of_no_part() -> Any:
        x, w = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
        return torch.autograd.grad(w * 2, [x])

    t, inf, nan, zeros = torch.tensor, math.inf, math.nan, torch.zeros
    short = lambda dtype: str(dtype).removeprefix("torch.")  # noqa: E731
    return {
        "relu at 0": lambda: slope(torch.relu, [0.0]),
        "leaky_relu at 0": lambda: slope(lambda x: F.leaky_relu(x, 0.25), [0.0]),
        "elu at 0": lambda: slope(lambda x: F.elu(x, alpha=2.0), [0.0]),
        "abs at 0": lambda: slope(torch.abs, [0.0]),
        "sign everywhere": lambda: slope(torch.sign, [-1.0, 0.0, 2.0]),
        "floor everywhere": lambda: slope(torch.floor, [0.0, 0.5]),
        "clip on its bounds: the gradient passes": lambda: slope(lambda x: x.clamp(1, 3), [0.5, 1.0, 2.0, 3.0, 3.5]),
        "clip with bounds in the wrong order": lambda: t([5.0]).clamp(3, 1).tolist(),
        "sqrt at 0": lambda: slope(torch.sqrt, [0.0]),
        "norm of zeros": lambda: slope(torch.linalg.norm, [0.0, 0.0]),
        "norm of zeros, squared": lambda: slope(lambda x: torch.linalg.norm(x) ** 2, [0.0, 0.0]),
        "std of equal numbers": lambda: slope(lambda x: x.std(correction=0), [1.5, 1.5]),
        "0 to the power 0, a number": lambda: slope(lambda x: x**0, [0.0]),
        "0 to the power 0, an array": lambda: slope(lambda x: x ** zeros(1), [0.0]),
        "0 to the power 2, for the base": lambda: slope(lambda x: x**2, [0.0]),
        "0 to the power 2, for the exponent": lambda: slope(lambda b: zeros(1) ** b, [2.0]),
        "a negative base and a whole exponent": lambda: slope(lambda x: x**3, [-2.0]),
        "a product with one zero": lambda: slope(torch.prod, [0.0, 3.0, 5.0]),
        "a product with two zeros": lambda: slope(torch.prod, [0.0, 0.0, 5.0]),
        "softplus far out": lambda: slope(F.softplus, [-800.0, 0.0, 800.0]),
        "sigmoid far out": lambda: torch.sigmoid(t([-800.0, 800.0])).tolist(),
        "softmax with an excluded entry": lambda: slope(lambda x: torch.softmax(x, -1)[0], [0.0, 0.0, -inf]),
        "logsumexp of nothing but -inf": lambda: slope(lambda x: torch.logsumexp(x, 0), [-inf, -inf]),
        "maximum: half each": lambda: slope(lambda x: torch.maximum(x, t(2.0)), [2.0]),
        "minimum: half each": lambda: slope(lambda x: torch.minimum(x, t(2.0)), [2.0]),
        "maximum of x and x": lambda: slope(lambda x: torch.maximum(x, x), [2.0]),
        "max of all: an even share": lambda: slope(torch.max, [1.0, 3.0, 3.0]),
        "min of all: an even share": lambda: slope(torch.min, [1.0, 1.0, 1.0, 3.0, 1.0]),
        "max along an axis: an even share, as `amax`": lambda: slope(lambda x: x.amax(0), [1.0, 3.0, 3.0]),
        "relu is not maximum(x, 0)": lambda: slope(lambda x: torch.maximum(x, t(0.0)), [0.0]),
        "argmax: the first": lambda: torch.argmax(t([1.0, 3.0, 3.0])).item(),
        "argmin: the first": lambda: torch.argmin(t([1.0, 0.0, 0.0])).item(),
        "sum": lambda: zeros(0).sum().item(),
        "prod": lambda: zeros(0).prod().item(),
        "mean": lambda: zeros(0).mean().item(),
        "var": lambda: zeros(0).var(correction=0).item(),
        "var of one, correction 1": lambda: zeros(1).var(correction=1).item(),
        "norm": lambda: torch.linalg.norm(zeros(0)).item(),
        "logsumexp": lambda: torch.logsumexp(zeros(0), 0).item(),
        "softmax": lambda: torch.softmax(zeros(0), -1).tolist(),
        "sums along an empty axis": lambda: zeros((2, 0)).sum(1).tolist(),
        "max": lambda: zeros(0).max(),
        "argmax": lambda: zeros(0).argmax(),
        "concatenate": lambda: torch.cat([]),
        "a product of matrices over an empty axis": lambda: (zeros((2, 0)) @ zeros((0, 1))).tolist(),
        "arrays of indices split by a slice: their axis moves to the front": lambda: tuple(
            zeros((4, 5, 6))[3, 2:, [1, 3]].shape
        ),
        "an element that is picked twice": lambda: slope(lambda x: x[[0, 0, 2]], [1.0, 2.0, 3.0]),
        "where with a number: the gradient has the number's shape": lambda: slope(
            lambda s: torch.where(t([True, False, True]), s, 1.0), 5.0
        ),
        "cumsum without an axis runs over all elements": lambda: t([[1, 2], [3, 4]]).cumsum(),
        "argmax without an axis counts over all elements": lambda: t([[1, 2], [9, 4]]).argmax().item(),
        "take without an axis indexes all elements": lambda: t([[1, 2], [3, 4]]).take(t([3])).tolist(),
        "std and var divide by n": lambda: t([1.0, 3.0]).var().item(),
        "max along an axis returns values only": lambda: t([[1, 5]]).max(1),
        "a quotient of integers is float64": lambda: short((t([1, 2]) / 2).dtype),
        "a mean of integers is float64": lambda: t([1, 2]).mean(),
        "a sum of bools counts": lambda: t([True, True, False]).sum().item(),
        "bool plus bool is bool": lambda: (t([True]) + t([True])).tolist(),
        "a mask times floats": lambda: slope(lambda x: x * (x > 1), [1.0, 2.0]),
        "an integer with a float32 array": lambda: short((t([1]) * t([1.0])).dtype),
        "an integer with a Python float": lambda: short((t([1]) * 0.5).dtype),
        "float32 with a Python number": lambda: short((t([1.0]) * 3).dtype),
        "comparisons make no graph": lambda: (t([1.0], requires_grad=True) > 0).requires_grad,
        "max with a NaN": lambda: t([1.0, nan]).max().item(),
        "the slope of abs at a NaN": lambda: slope(torch.abs, [nan]),
        "the slope of relu at a NaN": lambda: slope(torch.relu, [nan]),
        "the slope of maximum at a NaN": lambda: slope(lambda x: torch.maximum(x, t(1.0)), [nan]),
        "NaN equals nothing": lambda: (t([nan]) == t([nan])).tolist(),
        "1 / 0": lambda: (1 / t([0.0])).tolist(),
        "log of 0": lambda: t([0.0]).log().tolist(),
        "a leaf that had no part keeps no gradient": no_part,
        "a second backward adds the same once more": twice,
        "a pullback for what had no part is zeros": pullback_of_no_part,
        "the second derivative of relu": lambda: torch.autograd.functional.hessian(
            lambda x: torch.relu(x).sum(), t([1.0, -1.0])
        ).tolist(),
    }


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compared where PyTorch is installed")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_the_rows_say_of_pytorch_is_so() -> None:
    answers = torch_answers()
    assert set(answers) == set(ROWS)
    for where, (_, gives, in_torch) in ROWS.items():
        if in_torch.startswith("an error"):
            with pytest.raises((RuntimeError, TypeError, IndexError, ValueError)):
                answers[where]()
        elif in_torch == "same" or in_torch.startswith("`"):
            found = answers[where]()
            assert same(found, value(gives if in_torch == "same" else in_torch)), f"{where}: PyTorch gives {found}"
        else:
            assert in_torch == "values and indices" and len(answers[where]()) == 2


def test_expressions_of_the_page_parse() -> None:
    for code, gives, _ in ROWS.values():
        ast.parse(code.strip("`"))
        assert gives.startswith("`") or hasattr(errors, gives)
