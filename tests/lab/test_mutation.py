"""Mistakes on purpose: they are in the live function for everybody, and gone afterwards, however one leaves."""

from __future__ import annotations

import gc
import io
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import lab
from tinygrad_rnn.core import primitive
from tinygrad_rnn.core.broadcasting import fitted
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.core.tensor import Tensor
from tinygrad_rnn.errors import GradcheckError, LabError, PrimitiveError
from tinygrad_rnn.lab import mutation
from tinygrad_rnn.ops import matmul as matmul_module

TANH = ("g * y * y", "g * y")


@tg.primitive("elementwise", dx=lambda g, x: g * 3 * x * x)
def cubed(xp: Any, x: Any) -> Any:
    """x to the third."""
    return x * x * x


@tg.primitive("bilinear", da=lambda g, b: g * b, db=lambda g, a: g * a)
def times(xp: Any, a: Any, b: Any) -> Any:
    """Two rules in one line."""
    return a * b


def halved(x: Any) -> Any:
    return x / 2


def slope(f: Any = tg.tanh, at: float = 0.5) -> float:
    x = tg.tensor(at, dtype=np.float64, requires_grad=True)
    return float(tg.pullback(f(x), [x])[0].item())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a mistake behind, and the tanh is the same code object as before."""
    rules = [rule for op in PRIMITIVES.values() for rule in op.rules.values() if isinstance(rule, FunctionType)]
    before = [rule.__code__ for rule in rules]
    yield
    assert not mutation._on
    assert all(rule.__code__ is code for rule, code in zip(rules, before, strict=True))


# -- what has the mistake -------------------------------------------------------------------------------------------


def test_a_rule_is_wrong_inside_and_right_outside() -> None:
    right = 1 - np.tanh(0.5) ** 2
    assert slope() == pytest.approx(right)
    with lab.mutant(tg.tanh, *TANH):
        assert slope() == pytest.approx(1 - np.tanh(0.5))
    assert slope() == pytest.approx(right)


def test_graphs_that_were_recorded_before_have_it_too_and_so_have_formulas_and_second_derivatives() -> None:
    x = tg.tensor([0.5, 0.5], dtype=np.float64, requires_grad=True, name="x")
    y = tg.tanh(x)
    y.name = "y"
    assert "x̄ += ȳ - ȳ ⊙ y ⊙ y" in str(tg.explain(x, of=y))
    with lab.mutant(tg.tanh, *TANH):
        assert tg.pullback(y, [x], [1.0, 1.0])[0].tolist() == pytest.approx([1 - np.tanh(0.5)] * 2)
        assert "x̄ += ȳ - ȳ ⊙ y\n" in str(tg.explain(x, of=y))
        assert tg.hessian(lambda x: tg.tanh(x).sum())(x).tolist()[0][0] == pytest.approx(-(1 - np.tanh(0.5)))
    assert "x̄ += ȳ - ȳ ⊙ y ⊙ y" in str(tg.explain(x, of=y))


def test_own_primitives_rules_kernels_and_functions() -> None:
    with lab.mutant(cubed, "g * 3 * x * x", "g * x * x") as planted:
        assert slope(cubed) == pytest.approx(0.25)
        with pytest.raises(GradcheckError, match="cubed"):
            tg.gradcheck(cubed, 0.5)
    assert "-@tg.primitive" in planted.diff and planted.diff.startswith("--- lab/test_mutation.py")
    with lab.mutant(cubed, "return x * x * x", "return x * x"):
        assert float(cubed(tg.tensor(2.0)).item()) == 4.0
    with lab.mutant(halved, "x / 2", "x * 2"):
        assert halved(3.0) == 6.0
    assert (slope(cubed), halved(3.0)) == (pytest.approx(0.75), 1.5)


def test_rules_in_one_line_are_told_apart() -> None:
    with lab.mutant(times, "da=lambda g, b: g * b", "da=lambda g, b: -g * b"):
        a, b = (tg.tensor(v, requires_grad=True) for v in (2.0, 3.0))
        assert [float(d.item()) for d in tg.pullback(times(a, b), [a, b])] == [-3.0, 2.0]


def test_closures_methods_partials_and_rules_with_a_name() -> None:
    def made(k: float) -> Any:
        @tg.primitive("linear", dx=lambda g: g * k)
        def scaled(xp: Any, x: Any) -> Any:
            return x * k

        return scaled

    scaled, other = made(3.0), made(5.0)
    with lab.mutant(scaled, "dx=lambda g: g * k", "dx=lambda g: g + k"):
        assert (slope(scaled), slope(other)) == (4.0, 5.0)  # one of two functions of one text
    with lab.mutant(partial(halved), "/ 2", "/ 4"):
        assert halved(4.0) == 1.0
    with lab.mutant(matmul_module.matmul, "return a.T @ g", "return g.T @ a"):
        x, w = (tg.tensor(np.arange(4.0).reshape(2, 2), requires_grad=True) for _ in range(2))
        y = x @ w
        right = [[4.0, 8.0], [7.0, 14.0]]
        grad = [[1.0, 2.0], [2.0, 4.0]]
        assert tg.pullback(y, [w], grad)[0].tolist() == np.transpose(right).tolist()
    cell = tg.nn.RNNCell(2, 3)
    with lab.mutant(cell.checked_input, "checked.shape[-1:] !=", "checked.shape[-1:] =="):
        pass


def test_every_backend_has_it(backend: str) -> None:
    x = tg.tensor([0.5, -1.0, 2.0], requires_grad=True)
    right = tg.pullback(tg.tanh(x), [x], [1.0, 1.0, 1.0])[0].tolist()
    with lab.mutant(tg.tanh, *TANH):
        assert tg.pullback(tg.tanh(x), [x], [1.0, 1.0, 1.0])[0].tolist() != right


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_an_error_inside_restores_and_passes() -> None:
    with pytest.raises(ZeroDivisionError), lab.mutant(tg.tanh, *TANH):
        1 / 0  # noqa: B018
    assert slope() == pytest.approx(1 - np.tanh(0.5) ** 2)


def test_a_generator_that_is_thrown_away_restores() -> None:
    def wrong() -> Iterator[float]:
        with lab.mutant(tg.tanh, *TANH):
            yield slope()

    generator = wrong()
    assert next(generator) == pytest.approx(1 - np.tanh(0.5))
    assert slope() == pytest.approx(1 - np.tanh(0.5))  # as it says: on for everybody while it waits
    generator.close()
    assert slope() == pytest.approx(1 - np.tanh(0.5) ** 2)
    generator = wrong()
    next(generator)
    del generator
    gc.collect()


def test_different_mistakes_nest_and_may_be_left_in_any_order() -> None:
    one, other = lab.mutant(tg.tanh, *TANH), lab.mutant(cubed, "g * 3", "g * 5")
    one.__enter__()
    other.__enter__()
    one.__exit__()
    assert slope() == pytest.approx(1 - np.tanh(0.5) ** 2) and slope(cubed) == pytest.approx(1.25)
    other.__exit__()
    assert slope(cubed) == pytest.approx(0.75)


def test_one_mistake_at_a_time_in_one_function() -> None:
    planted, later = lab.mutant(tg.tanh, *TANH), lab.mutant(tg.tanh, "g - g", "g + g")
    with planted:
        for again in (planted.__enter__, later.__enter__, partial(lab.mutant, tg.tanh, "g - g", "g + g")):
            with pytest.raises(LabError, match=r"^tanh has a mistake already, 'tanh with a mistake'"):
                again()
        assert slope() == pytest.approx(1 - np.tanh(0.5))
    with later:
        assert slope() == pytest.approx(1 + np.tanh(0.5) ** 2)


def test_it_is_on_in_every_thread_and_refused_from_another() -> None:
    found: list[Any] = []

    def elsewhere() -> None:
        found.append(slope())
        try:
            lab.mutant(tg.tanh, "g - g", "g + g")
        except LabError as error:
            found.append(error)

    with lab.mutant(tg.tanh, *TANH):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found[0] == pytest.approx(1 - np.tanh(0.5)) and isinstance(found[1], LabError)


def test_leaving_what_is_not_on_leaves_others_alone() -> None:
    planted, later = lab.mutant(tg.tanh, *TANH), lab.mutant(tg.tanh, "g - g", "g + g")
    with planted:
        later.__exit__()
        assert slope() == pytest.approx(1 - np.tanh(0.5))
        with pytest.raises(LabError):
            planted.__enter__()


def test_many_threads_at_one_function_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.Mutant, "_say", lambda *_: None)
    planted = [lab.mutant(tg.tanh, *TANH) for _ in range(8)]
    start = threading.Barrier(8)

    def work(own: lab.Mutant) -> None:
        start.wait()
        for _ in range(50):
            try:
                own.__enter__()
            except LabError:
                continue
            own.__exit__()

    threads = [threading.Thread(target=work, args=(own,)) for own in planted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- how it is said ---------------------------------------------------------------------------------------------------


def test_it_is_loud_on_the_standard_error_and_only_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with lab.mutant(tg.tanh, *TANH):
        out, err = capsys.readouterr()
        assert not out and "BUG ON: tanh with a mistake" in err and "everything in this process" in err
        assert "g - g * y)" in err and "\x1b" not in err
    out, err = capsys.readouterr()
    assert not out and "BUG OFF" in err


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken, closed, lambda: None])
def test_nobody_who_listens_is_no_error(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with lab.mutant(tg.tanh, *TANH):
        assert slope() == pytest.approx(1 - np.tanh(0.5))
    assert slope() == pytest.approx(1 - np.tanh(0.5) ** 2)


def test_an_interruption_of_the_banner_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lab.Mutant, "_say", interrupted)
    with pytest.raises(KeyboardInterrupt), lab.mutant(tg.tanh, *TANH):
        pass
    assert slope() == pytest.approx(1 - np.tanh(0.5) ** 2)


# -- refused ----------------------------------------------------------------------------------------------------------


def free(k: float) -> Any:
    return lambda x: x * k


@pytest.mark.parametrize(
    ("function", "old", "new", "said"),
    [
        (tg.tanh, "no such text", "x", "tanh does not contain 'no such text'"),
        (tg.tanh, "", "x", "does not contain ''"),
        (tg.tanh, "g * y * y", "g * y *", "is no Python"),
        (tg.tanh, "g * y * y", "g  *  y * y", "would run as before"),
        (tg.tanh, "lambda g, y", "lambda g, x", "would take other arguments"),
        (tg.add, "db=unchanged", "db=lambda g: -g", "A rule `unchanged` is none"),
        (tg.sub, "da=unchanged", "da=lambda g: -g", "A rule `unchanged` is none"),
        (tg.leaky_relu, "slope=0.01", "slope=0.02", "a default is read once"),
        (primitive.unchanged, "return g", "return -g", "unchanged has no Python text"),
        (free(2.0), "x * k", "x * 2.0", "other variables"),
        (len, "a", "b", "len has no Python text"),
        (np.tanh, "a", "b", "has no Python text"),
        (3, "a", "b", "3 has no Python text"),
        (eval("lambda x: x + 1"), "x", "y", "the text of <lambda> is not there"),
    ],
)
def test_what_cannot_be_done_is_said(function: Any, old: str, new: str, said: str) -> None:
    with pytest.raises(LabError, match="(?s)" + said.replace("(", r"\(")):
        lab.mutant(function, old, new)


def test_a_file_that_was_edited_since_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "own.py"
    path.write_text("def f(x):\n    return x + 1\n")
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    with lab.mutant(namespace["f"], "x + 1", "x - 1"):
        assert namespace["f"](1) == 0
    path.write_text("def f(x):\n    return x * 11\n")
    with pytest.raises(LabError, match="not what runs"):
        lab.mutant(namespace["f"], "x * 11", "x - 1")


# -- the tests are tested ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "old", "new", "check"),
    [
        ("__exit__", "self._stop()", "exception[0] or self._stop()", test_an_error_inside_restores_and_passes),
        ("__enter__", "        self._stop()\n", "", test_an_interruption_of_the_banner_restores),
        ("__enter__", "_refuse_another(function)", "pass", test_one_mistake_at_a_time_in_one_function),
        ("_stop", "function.__code__ = right", "pass", test_a_rule_is_wrong_inside_and_right_outside),
    ],
)
def test_a_mutant_of_the_mutant_is_caught(
    function: str, old: str, new: str, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = tg.tanh.primitive.rules["x"]  # type: ignore[attr-defined]
    code = rule.__code__
    needs = [monkeypatch] if check is test_an_interruption_of_the_banner_restores else []
    mutated(monkeypatch, lab.Mutant, function, old, new)
    try:
        with pytest.raises((AssertionError, LabError, pytest.fail.Exception)):
            check(*needs)
    finally:
        rule.__code__ = code
        mutation._on.clear()


def test_a_wrong_shape_is_still_refused_by_the_engine() -> None:
    with lab.mutant(matmul_module.matmul, "return a.T @ g", "return g.T @ a"):
        x, w = tg.tensor(np.ones((2, 3)), requires_grad=True), tg.tensor(np.ones((3, 4)), requires_grad=True)
        with pytest.raises(PrimitiveError, match="gave a gradient of shape"):
            tg.pullback((x @ w).sum(), [w])
    assert isinstance(fitted(np.ones((2, 3)), Tensor(np.ones(3))), np.ndarray)
