"""Drills: every primitive has lines that run and that are right, and each kind of mistake has its verdict."""

from __future__ import annotations

import functools
import keyword
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import SAMPLES, Sample

import tinygrad_rnn as tg
from tinygrad_rnn import lab, nn
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import GraphError, LabError, OptionError
from tinygrad_rnn.lab import verdicts, writing
from tinygrad_rnn.lab.drills import Drill

CASES = [pytest.param(n, s, id=f"{n}-{i}-{s}") for n, ss in SAMPLES.items() for i, s in enumerate(ss)]
DIFFERENTIABLE = [case for case in CASES if PRIMITIVES[str(case.values[0])].differentiable]


def executed(text: str, made: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"drill": made}
    with np.errstate(all="ignore"):
        exec(text, namespace)
    return namespace


def sampled(name: str, sample: Sample, backend: str) -> Drill:
    """The drill of one call of a primitive, its result weighed, so that the gradient that comes in is not 1."""
    args = sample.tensors(backend)
    y = PRIMITIVES[name].function(*args, **sample.on(backend).options)
    weights = tg.tensor(np.linspace(0.5, 1.5, y.size).reshape(y.shape), backend=y.backend)
    return Drill((y * weights).sum())


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_every_primitive_has_a_line_forward_and_one_back(name: str, sample: Sample, backend: str) -> None:
    made = sampled(name, sample, backend)
    namespace = executed(made.solution(), made)
    for t in made.book.tensors:
        np.testing.assert_allclose(namespace[made.called[t.age]], t.to("numpy").numpy(), rtol=1e-12, atol=1e-12)
    verdicts = made.check(namespace)
    assert verdicts.right, str(verdicts)
    assert len(verdicts) == len(made.names) >= 2


operations = st.lists(
    st.tuples(st.sampled_from(["add", "sub", "mul", "tanh", "sum", "column"]), st.integers(0, 9), st.integers(0, 9)),
    min_size=1, max_size=9,
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(operations)
def test_solutions_of_random_graphs_are_right_and_a_forgotten_use_is_missed(
    program: list[tuple[str, int, int]],
) -> None:
    rng = np.random.default_rng(1)
    known: list[Any] = [tg.tensor(rng.uniform(0.5, 1.5, s), requires_grad=True) for s in ((4, 3), (3,), (4, 1))]
    for name, i, j in program:
        a, b = known[i % len(known)], known[j % len(known)]
        if name in ("tanh", "sum"):
            known.append(getattr(tg, name)(a))
        elif name == "column":
            known.append(a[..., :1] if a.ndim else a * a)
        elif {a.ndim, b.ndim} != {1, 2} or a.shape[-1] == b.shape[-1] or 1 in (a.shape[-1], b.shape[-1]):
            known.append(getattr(tg, name)(a, b))
    if known[-1].op is None:
        return
    made = Drill(known[-1])
    namespace = executed(made.solution(), made)
    assert made.check(namespace).right
    for name, t in made._asked.items():
        uses = [use.added for use in made.book.contributions[t.age]]
        if len(uses) == 2 and all(np.abs(use).max() > 1e-3 for use in uses):
            found = made.check(namespace | {name: uses[0]})[name]
            assert found.kind == "missing", (found, made.solution())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=6))
def test_any_names_become_names_of_python(texts: list[str]) -> None:
    found = list(writing.identifiers(dict(enumerate(texts))).values())
    code = compile("\n".join(f"{name} = d_{name} = 0" for name in found), "names", "exec")
    assert len(set(code.co_names)) == 2 * len(texts)


# -- verdicts ------------------------------------------------------------------------------------------------------


def affine(x: Any, W: Any, b: Any) -> Any:
    h = tg.tanh(x @ W + b)
    h.name = "h"
    return (h * h + tg.sin(h)).sum()


ARGS = tuple(np.random.default_rng(4).uniform(-1, 1, shape) for shape in ((2, 3), (3, 3), (3,)))


@pytest.fixture(params=[np.float32, np.float64])
def made(request: pytest.FixtureRequest) -> Drill:
    return lab.drill(affine, *[x.astype(request.param) for x in ARGS])


def answered(made: Drill, **changes: Any) -> dict[str, Any]:
    """The right answers, but for some."""
    namespace = executed(made.solution(), made)
    return namespace | {name: change(namespace[name]) for name, change in changes.items()}


def verdict(made: Drill, name: str, change: Callable[[Any], Any]) -> tuple[str, str]:
    found = made.check(answered(made, **{name: change}))[name]
    return found.kind, found.words


def test_a_solution_is_right_and_an_empty_worksheet_blank(made: Drill) -> None:
    found = made.check(answered(made))
    assert found.right and {each.kind for each in found.values()} <= {"exact", "close"} and "9 of 9" in str(found)
    assert list(found) == made.names == ["d_v5", "d_v4", "d_v3", "d_h", "d_v2", "d_v1", "d_b", "d_W", "d_x"]
    for answers in ({}, executed(made.text, made), dict.fromkeys(made.names)):
        found = made.check(answers)
        assert not found.right and {each.kind for each in found.values()} == {"blank"}


CHANGES: dict[str, tuple[str, Callable[[Any], Any], str, str]] = {
    "nothing": ("d_W", lambda d: d, "exact|close", ""),
    "a little": ("d_W", lambda d: d * (1 + 3 * np.finfo(d.dtype).eps), "close", "the largest difference is"),
    "a Tensor": ("d_W", lambda d: tg.tensor(d), "exact|close", ""),
    "a list": ("d_W", lambda d: d.tolist(), "exact|close", ""),
    "finite differences": ("d_W", lambda d: d + 5e-6 * np.abs(d).max(), "close", "the largest difference is"),
    "rounded": (
        "d_W", lambda d: d * 1.0003, "wrong",
        r"the largest difference is \S+, of \S+: rounded to too few digits, or without something small"
    ),
    "twice": ("d_W", lambda d: 2 * d, "factor", "2 times what it should be"),
    "a half": ("d_b", lambda d: d / 2, "factor", "1/2 times what it should be"),
    "an odd factor": ("d_b", lambda d: d * 0.1234567, "factor", "0.1235 times what it should be"),
    "sign": ("d_W", lambda d: -d, "factor", "the sign is wrong"),
    "transposed": ("d_W", lambda d: d.T, "transposed", "rows and columns"),
    "transposed, not square": ("d_x", lambda d: d.T, "transposed", r"it has the shape \(3, 2\), and needs \(2, 3\)"),
    "not summed": (
        "d_b", lambda d: np.stack([d / 2, d / 2]), "wrong shape",
        r"it has the shape \(2, 3\), and needs \(3,\), that of the variable: sum it over axis 0, along which the "
        "variable was broadcast",
    ),
    "not summed, nor right": (
        "d_b", lambda d: np.stack([d, d]), "wrong shape", r"needs \(3,\), that of the variable$"
    ),
    "summed too far": ("d_W", lambda d: d.sum(), "wrong shape", r"needs \(3, 3\), that of the variable$"),
    "one use": ("d_h", lambda d: d * 0, "wrong", "the largest difference is"),
    "something else": ("d_W", lambda d: d + 1, "wrong", "the largest difference is 1"),
    "not a number": ("d_W", lambda d: d * np.nan, "wrong", "nan"),
    "infinite": ("d_W", lambda d: d * np.inf, "wrong", "inf"),
    "words": ("d_W", lambda d: "0.5", "wrong", "str is no array of numbers"),
    "ragged": ("d_W", lambda d: [[1.0], [2.0, 3.0]], "wrong", "list is no array of numbers"),
    "a function": ("d_W", lambda d: np.sin, "wrong", "ufunc is no array of numbers"),
    "a dot": ("d_W", lambda d: ..., "blank", ""),
}  # fmt: skip


def check_change(made: Drill, case: str) -> None:
    name, change, kind, words = CHANGES[case]
    found = verdict(made, name, change)
    assert re.fullmatch(kind, found[0]) and re.search(words, found[1]), found


@pytest.mark.parametrize("case", CHANGES)
def test_each_mistake_has_its_verdict(case: str, made: Drill) -> None:
    check_change(made, case)


def test_a_contribution_that_is_missing_is_named(made: Drill) -> None:
    ns = answered(made)
    h, upstream = ns["h"], ns[made.names[1]]
    uses = [use.argument for use in made.book.contributions[made._tensors["h"].age]]
    assert sorted(uses) == ["a", "b", "x"]
    without_sine, only_sine = 2 * h * upstream, np.cos(h) * upstream
    kind, words = verdict(made, "d_h", lambda d: without_sine)
    assert kind == "missing" and words.startswith("without the contribution of v4 (x)")
    kind, words = verdict(made, "d_h", lambda d: only_sine)
    assert kind == "missing" and "v3 (a), v3 (b)" in words


def test_what_follows_from_an_earlier_mistake_is_said_to(made: Drill) -> None:
    ns = answered(made)
    ns["d_v2"] = ns["d_h"] * (1 - ns["h"])  # the factor that is forgotten
    for line in made.solution().splitlines():
        if re.match(r"d_(v1|b|W|x) =", line):
            exec(line, ns)
    found = made.check(ns)
    assert found["d_h"].right and found["d_v2"].kind == "wrong"
    for name in ("d_v1", "d_b"):
        assert (found[name].kind, found[name].words) == ("follows", "right, given your d_v2")
    assert found["d_W"].words == "right, given your d_v1" and not found.right
    ns["d_v2"] = "nonsense"
    assert made.check(ns)["d_b"].kind == "wrong"


def test_numbers_of_other_dtypes_and_devices_are_compared(made: Drill, backend: str) -> None:
    ns = answered(made)
    found = made.check({name: tg.tensor(np.float64(ns[name]), backend=backend) for name in made.names})
    assert found.right


def test_of_one_number_only_plain_factors_are_believed() -> None:
    made = lab.drill(lambda x: tg.exp(x) * 2.0, 0.5)
    assert verdict(made, "d_x", lambda d: 3 * d) == ("factor", "3 times what it should be")
    assert verdict(made, "d_x", lambda d: 1.2345 * d)[0] == "wrong"


@pytest.mark.parametrize("exponent", range(-16, 0))
def test_no_factor_is_once_what_it_should_be(exponent: int, made: Drill) -> None:
    """Off by the same share everywhere, as by the step of a difference or a rounded constant."""
    alone = lab.drill(lambda x: tg.exp(x) * 2.0, 0.5)
    for by in (0.5 * 10.0**exponent, -0.5 * 10.0**exponent):
        for drill, name in ((made, "d_W"), (made, "d_b"), (alone, "d_x")):
            kind, words = verdict(drill, name, lambda d, by=by: np.float64(d) * (1 + by))
            assert not words.startswith("1 times") and (kind != "factor" or exponent == -1), (by, kind, words)
            assert (kind in ("exact", "close")) is (exponent <= -5), (by, kind)


def test_answers_by_finite_differences_and_in_float32_are_close() -> None:
    made = lab.drill(affine, *ARGS)
    step = 1e-6

    def loss(b: Any) -> Any:
        h = np.tanh(ARGS[0] @ ARGS[1] + b)
        return (h * h + np.sin(h)).sum()

    d_b = [(loss(ARGS[2] + step * e) - loss(ARGS[2])) / step for e in np.eye(3)]
    assert verdict(made, "d_b", lambda _: d_b)[0] == "close"
    single = {name: np.asarray(value, "float32") for name, value in made.given.items()}
    short = executed(made.solution(), SimpleNamespace(given=single))
    assert short["d_W"].dtype == np.float32 and {v.kind for v in made.check(short).values()} <= {"close", "exact"}


def test_floating_arguments_share_the_widest_dtype() -> None:
    def dtypes(*xs: Any) -> set[Any]:
        made = lab.drill(lambda a, b: (a * b).sum(), *xs)
        return {value.dtype for value in made.given.values()}

    wide, narrow = np.array([1.0, 2.0]), np.array([1.0, 2.0], "float32")
    assert (
        dtypes(wide, 0.1) == dtypes(0.1, wide) == dtypes(narrow, wide) == dtypes([0.1], tg.tensor(wide)) == {wide.dtype}
    )
    assert dtypes(narrow, 0.1) == dtypes(1.0, [0.1, 0.2]) == {narrow.dtype}
    assert lab.drill(lambda a, b: (a * b).sum(), wide, 0.1).given["b"] == 0.1


def test_a_gradient_of_zero_has_no_factor_and_tolerates_no_number() -> None:
    made = lab.drill(lambda x: tg.floor(x).sum(), [0.5, 1.5])
    assert verdict(made, "d_x", lambda d: d)[0] == "exact"
    assert verdict(made, "d_x", lambda d: d + 1e-3)[0] == "wrong"


@pytest.mark.parametrize(
    ("function", "old", "new", "case"),
    [
        (verdicts.judged, "if np.array_equal(found, known.right, equal_nan=True):", "if True:", "twice"),
        (verdicts.judged, "if known.same(found):", "if True:", "something else"),
        (verdicts.judged, "_scaled(found, known) or", "", "sign"),
        (verdicts._scaled, "found.ndim > 1 and", "False and", "transposed"),
        (verdicts._of_shape, "_stretches(shape, found.shape)", "False", "not summed"),
        (verdicts._of_shape, "if known.same(found.sum(axes).reshape(shape)):", "if True:", "not summed, nor right"),
        (verdicts._scaled, "abs(factor - 1) <= NO_FACTOR or", "", "rounded"),
        (verdicts.Known.same, "max(allowed, NEAR)", "allowed", "finite differences"),
        (verdicts._of_shape, "if found.ndim > 1 and", "if False and", "transposed, not square"),
    ],
)
def test_a_careless_checker_is_caught(function: Any, old: str, new: str, case: str) -> None:
    fresh = lab.drill(affine, *ARGS)
    check_change(fresh, case)
    with lab.mutant(function, old, new), pytest.raises(AssertionError):
        check_change(fresh, case)


# -- worksheets ----------------------------------------------------------------------------------------------------


def test_names_are_pythons_and_never_clash() -> None:
    x, dx, odd = (tg.tensor(v, requires_grad=True, name=n) for v, n in ((1.0, "x"), (2.0, "d_x"), (3.0, "h[2]")))
    lam, tilde, rl, np_ = (tg.tensor(1.0, requires_grad=True, name=n) for n in ("lambda", "~!", "cells.1.h[2]", "np"))
    fi = tg.tensor(1.0, requires_grad=True, name="ﬁ")
    made = lab.drill(lambda: tg.sin(x * dx * odd * lam * tilde * rl * np_ * fi))
    names = list(made.called.values())
    assert {"x", "h_2", "cells_1_h_2", "np_2", "lambda_2", "d_x_2", "fi"} <= set(names)
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    both = [*names, *[f"d_{name}" for name in names]]
    assert len(set(both)) == len(both) and not {"np", "tg", "drill"} & set(both)
    assert made.check(executed(made.solution(), made)).right


def test_parameters_that_a_function_takes_from_elsewhere_have_blanks() -> None:
    cell = nn.GRUCell(3, 5, dtype=np.float64, rng=np.random.default_rng(2))
    h = np.random.default_rng(3).uniform(-1, 1, (2, 5))
    made = lab.drill(lambda x: (cell(x, h) ** 2).sum(), np.random.default_rng(4).uniform(-1, 1, (2, 3)))
    assert {"d_z", "d_r", "d_n", "d_W", "d_U", "d_b", "d_x", "d_W_z", "d_U_n"} <= set(made.names)
    assert made.check(executed(made.solution(), made)).right and cell.W.grad is None


def test_layers_are_one_line_or_unfolded() -> None:
    layer = nn.GRU(3, 4, dtype=np.float64, rng=np.random.default_rng(2))
    x = np.random.default_rng(3).uniform(-1, 1, (3, 2, 3))
    folded, unfolded = (lab.drill(lambda x: layer(x)[0].sum(), x, expand=expand) for expand in (False, True))
    assert "gru_layer(x," in folded.text and 'drill.rule("' in folded.solution()
    assert "gru_layer" not in unfolded.text and "drill.rule" not in unfolded.solution()
    assert "scatter(" in unfolded.solution() and "slice(" in unfolded.solution() and "key" not in unfolded.given
    for made in (folded, unfolded):
        assert made.check(executed(made.solution(), made)).right


def test_own_primitives_are_called_by_their_name() -> None:
    @tg.primitive("elementwise", dx=lambda g, x: g * 3 * x * x)
    def cubed(xp: Any, x: Any) -> Any:
        return x * x * x

    @tg.primitive("elementwise", dx=lambda g, x: np.multiply(g, np.cos(x)))
    def unspeakable(xp: Any, x: Any) -> Any:
        return xp.sin(x)

    made = lab.drill(lambda x: (cubed(x) + unspeakable(x)).sum(), [0.5, -1.0, 2.0])
    assert "= cubed(x)" in made.text and "* 3 * x * x" in made.solution()
    assert 'drill.rule("v2", "x", d_v2)' in made.solution()
    assert made.check(executed(made.solution(), made)).right


def test_variables_of_the_function_keep_their_names() -> None:
    kept = tg.exp(tg.tensor([0.5, -1.0], requires_grad=True))

    def cost(x: Any) -> Any:
        gate, old = tg.sigmoid(x), kept
        state = gate * old
        state = state * state
        inner = (lambda hidden: tg.sin(hidden))(state)
        return inner.sum()

    made = lab.drill(cost, [0.25, 2.0])
    assert [name for name in made.names if not name.startswith("d_v")] == ["d_inner", "d_state", "d_gate", "d_x"]
    assert "d_hidden" not in made.names and not kept.name, "nobody else's tensors get names"
    assert sys.getprofile() is None
    with pytest.raises(ZeroDivisionError):
        lab.drill(lambda x: x / (1 // 0), 1.0)
    assert sys.getprofile() is None


def test_a_result_of_many_elements_stands_for_their_sum() -> None:
    made = lab.drill(lambda x: x * x, [1.0, 2.0, 3.0])
    found = made.check({"d_x": [2.0, 4.0, 6.0]})
    assert found.right and "the sum of" in made.text


def test_arguments_are_copied_and_what_is_no_float_goes_as_it_is() -> None:
    x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True, name="x")
    made = lab.drill(lambda x, k, key: (x[key] * k).sum(), x, 3, np.array([0, 0, 2]))
    assert made.names == ["d_v2", "d_v1", "d_x"] and x.grad is None
    assert made.check({"d_v2": [1, 1, 1], "d_v1": [3, 3, 3], "d_x": [6, 0, 3]}).right


def test_it_shows_itself_in_a_notebook_and_saves_a_file(tmp_path: Any) -> None:
    made = lab.drill(affine, *ARGS)
    assert made._repr_markdown_() == f"```python\n{made.text}```\n" and repr(made).startswith("<Drill of")
    saved, shown = made.save(tmp_path / "w.py").read_text(encoding="utf-8").splitlines(), str(made).splitlines()
    assert saved[0] == shown[0] and saved[2:] == shown[2:] and "print(drill.check(globals()))" in shown[1]
    with pytest.raises(OptionError, match=r"known suffixes are \.py"):
        made.save(tmp_path / "w.txt")


def test_a_worksheet_that_is_saved_in_a_session_is_checked_there(tmp_path: Any) -> None:
    made = lab.drill(affine, *ARGS)
    path = made.save(tmp_path / "it's mine.py")
    first = path.read_text(encoding="utf-8").splitlines()[1]
    assert first == f"# To check it: print(drill.check({str(path)!r})), in the Python session that made it"
    assert {each.kind for each in made.check(path).values()} == {"blank"}
    path.write_text(made.solution().replace("d_W = ", "d_W = 2 * "), encoding="utf-8")
    found = made.check(str(path))
    assert (found["d_W"].kind, found["d_b"].right, found["d_x"].right) == ("factor", True, True)
    other = lab.drill(lambda x, W, b: (tg.sigmoid(x @ W + b)).sum(), *ARGS)
    with pytest.raises(LabError, match=r"it's mine\.py was written for another version of y: write it anew"):
        other.check(path)
    with pytest.raises(LabError, match="cannot be read"):
        made.check(tmp_path / "nothing.py")
    for bad in (None, [1.0], 3):
        with pytest.raises(LabError, match=f"takes names and answers, .* not {type(bad).__name__}"):
            made.check(bad)  # type: ignore[arg-type]


def test_hints_go_from_who_to_how_to_how_much() -> None:
    made = lab.drill(affine, *ARGS)
    one, two, three = (made.hint("d_h", level) for level in (1, 2, 3))
    assert (
        one
        == "h (2, 3) is used 3 times, and all of it adds up:\n  by v4 (x) = sin\n  by v3 (a) = mul\n  by v3 (b) = mul"
    )
    assert "h̄ += v̄4 ⊙ cos(h)" in two and "h̄ += v̄3 ⊙ h" in two and "contribution" not in two
    assert "local derivative:" in three and "contribution:" in three and len(three) > len(two) > len(one)
    assert "summed over axis 0: b was broadcast" in made.hint("d_b", 2)
    for bad in (("d_y",), ("d_h", 4), ("d_h", "1")):
        with pytest.raises(OptionError):
            made.hint(*bad)


def square(x: Any) -> Any:
    return x * x


def test_a_hook_is_told_of_and_a_kept_gradient_is_none() -> None:
    w = tg.tensor(2.0, requires_grad=True, name="w")
    v = w * 3.0
    v.retain_grad()
    made = lab.drill(lambda x: x * v, 3.0)
    assert made.check(executed(made.solution(), made)).right
    off = w.register_hook(lambda d: d * 10)
    with pytest.raises(LabError, match="w has a hook"):
        lab.drill(lambda x: x * v, 3.0)
    off()
    assert lab.drill(lambda x: x * v, 3.0).names == made.names


def test_bad_input_is_refused_with_a_sentence() -> None:
    with pytest.raises(GraphError, match="must return a Tensor, not float"):
        lab.drill(lambda x: 3.0, 1.0)
    with pytest.raises(GraphError, match="has no graph"):
        lab.drill(lambda x: tg.tensor(1.0), 1.0)
    for whole in (3, [1, 2], np.arange(3), tg.tensor([1, 2])):
        with pytest.raises(GraphError, match=r"no argument of square is floating.*give 1\.0 for 1"):
            lab.drill(square, whole)
    with pytest.raises(LabError, match=r"built-in function max.*give a function of yours"):
        lab.drill(max, 1.0)
    with pytest.raises(LabError, match="3 is not a callable object"):
        lab.drill(3, 1.0)  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r'name a function as "FILE\.py:function", not as int'):
        lab.drill_of(3)  # type: ignore[arg-type]
    with pytest.raises(LabError, match="600 operations, and a worksheet up to 500"):
        lab.drill(lambda x: functools.reduce(lambda y, _: y * 1.01, range(600), x), 1.0)
    made = lab.drill(affine, *ARGS)
    for bad in (("nothing", "a", 1.0), ("h", "y", np.ones((2, 3))), ("x", "a", 1.0), ("h", "x", np.ones(3))):
        with pytest.raises(OptionError):
            made.rule(*bad)
