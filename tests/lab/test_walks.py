"""The order lab: its steps are the engine's, its counts those of paths walked one by one, its wrong orders wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutated
from naive import OPS, Value, gradient
from samples import SAMPLES, Sample, package_primitives

import tinygrad_rnn as tg
from tinygrad_rnn import lab, nn
from tinygrad_rnn.core import autodiff
from tinygrad_rnn.core.tensor import Tensor
from tinygrad_rnn.errors import GraphError, ModifiedError
from tinygrad_rnn.lab import mutation, walks
from tinygrad_rnn.see.ledger import ledger

P = package_primitives()
DIFFERENTIABLE = [
    pytest.param(name, sample, id=f"{name}-{i}-{sample}")
    for name, samples in SAMPLES.items()
    for i, sample in enumerate(samples)
    if P[name].differentiable
]


def scalar(value: float, name: str) -> Tensor:
    return tg.tensor(value, dtype=np.float64, requires_grad=True, name=name)


def unequal() -> tuple[Tensor, Tensor, Tensor]:
    """Two ways of different length from v to the result, each with one use of v that the other has not."""
    x, w = scalar(0.5, "x"), scalar(1.5, "w")
    v = x * w
    v.name = "v"
    return v * tg.tanh(v) + v, x, w


def doubled(times: int) -> Tensor:
    y = scalar(1.0, "x")
    for _ in range(times):
        y = y + y
    return y


# -- one step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_a_step_hands_back_what_the_ledger_saw_in_the_engines_own_pass(name: str, sample: Sample, backend: str) -> None:
    args = sample.tensors(backend)
    node = P[name].function(*args, **sample.on(backend).options)
    grad = np.random.default_rng(3).uniform(-1, 1, node.shape)
    book = ledger([node], tg.tensor(grad, dtype=node.dtype, backend=node.backend))
    expected = {
        (each.argument, x.age): each.added for x in args if isinstance(x, Tensor)
        for each in book.contributions.get(x.age, [])
    }  # fmt: skip
    found = {(use.argument, use.x.age): use.added for use in walks.step(node, book.seeds[node.age])}
    assert found.keys() == expected.keys() and found
    for key, added in found.items():
        assert added.shape == expected[key].shape and added.dtype == expected[key].dtype
        np.testing.assert_array_equal(
            tg.tensor(added).to("numpy").numpy(), tg.tensor(expected[key]).to("numpy").numpy()
        )


def test_a_step_stops_at_the_inputs_and_touches_no_grad() -> None:
    y, x, w = unequal()
    y.retain_grad()
    assert [use.argument for use in walks.step(y, np.float64(1.0))] == ["a", "b"]
    lab.order(y)
    assert x.grad is None and w.grad is None and y._grad is None


def test_visits_are_counted_and_an_engine_that_goes_by_age_the_wrong_way_is_seen() -> None:
    y, *_ = unequal()
    right = lab.order(y)
    assert [each.engine for each in right.visited] == [1] * 6
    assert "visits each tensor once: 6 visits in all" in right.text(200)
    oldest_first = {"entry = (-at, x)": "entry = (at, x)", "heappush(queue, (-at, x))": "heappush(queue, (at, x))"}
    with mutation.Mutant(autodiff.pull, oldest_first):
        wrong = lab.order(y)
    assert [each.engine for each in wrong.visited] == [1, 1, 1, 3, 3, 3] == [each.paths for each in wrong.visited]
    assert "should visit each tensor once, and does not: 12 visits in all" in wrong.text(200)
    assert wrong.markdown.count("| 3 | 3 |") == 3 and "| 1 | 3 |" in right.markdown


# -- against oracles -----------------------------------------------------------------------------------------------


def paths_one_by_one(y: Tensor, found: dict[int, int]) -> dict[int, int]:
    """Python's recursion, as nobody should do it."""
    found[y.age] = found.get(y.age, 0) + 1
    for x in y.inputs or ():
        if isinstance(x, Tensor) and x.requires_grad:
            paths_one_by_one(x, found)
    return found


steps = st.lists(
    st.tuples(st.sampled_from(["add", "sub", "mul", "tanh", "sin"]), st.integers(0, 9), st.integers(0, 9)),
    min_size=1, max_size=8,
)  # fmt: skip


def compare(program: list[tuple[str, int, int]]) -> None:
    values = np.random.default_rng(0).uniform(0.5, 1.5, (2, 3))
    ours: list[Any] = [tg.tensor(v, requires_grad=True, name=f"x{i}") for i, v in enumerate(values)]
    theirs = [Value(v) for v in values]
    functions = {"add": tg.add, "sub": tg.sub, "mul": tg.mul, "tanh": tg.tanh, "sin": tg.sin}
    for name, i, j in program:
        chosen = [i % len(ours), j % len(ours)][: 1 if name in ("tanh", "sin") else 2]
        ours.append(functions[name](*[ours[k] for k in chosen]))
        theirs.append(OPS[name](*[theirs[k] for k in chosen]))
    found = lab.order(ours[-1], limit=10**6)
    counts = paths_one_by_one(ours[-1], {})
    assert sorted(each.paths for each in found.visited) == sorted(counts.values())
    assert found.visits == sum(counts.values())
    leaves = {leaf.name: leaf for leaf in found.leaves}
    for k in (0, 1):
        expected = gradient(theirs[-1], theirs[k], np.ones(3))
        if (leaf := leaves.get(f"x{k}")) is None:
            assert ours[k].age not in counts
            continue
        for way in ("engine", "recursion"):
            np.testing.assert_allclose(getattr(leaf, way), expected, rtol=1e-9, atol=1e-9)
        assert leaf.right("recursion")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps)
def test_random_graphs(program: list[tuple[str, int, int]]) -> None:
    compare(program)


CROSSING = [("mul", 0, 1), ("tanh", 2, 2), ("mul", 2, 3), ("add", 4, 2)]


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("by_recursion", "total[x.age] if whole else arrived", "total[x.age]"),
        ("step", "g, d))", "g, 2 * d))"),
        ("paths_to", "found.get(x.age, 0) + found[node.age]", "found[node.age]"),
        ("paths_to", "found.get(x.age, 0) + found[node.age]", "found.get(x.age, 0) + 1"),
        ("uses", "x.requires_grad and", "x.requires_grad and place == 0 and"),
    ],
)
def test_a_wrong_walk_is_caught(function: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(CROSSING)
    mutated(monkeypatch, walks, function, old, new)
    with pytest.raises((AssertionError, KeyError)):
        compare(CROSSING)


# -- the careless orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_careless_orders_give_what_they_give_by_hand(dtype: Any, backend: str) -> None:
    """y = a + f(a), a = x w: first come, a passes on 1 before f'(a) has arrived; or it passes on 1, and then all."""
    x, w = (tg.tensor(v, dtype=dtype, requires_grad=True, name=n) for v, n in (([0.5, -0.25], "x"), (1.5, "w")))
    a = x * w
    y = a + tg.tanh(a)
    found = lab.order(y)
    by_name = {leaf.name: leaf for leaf in found.leaves}
    d = 1 - np.tanh(np.array([0.75, -0.375])) ** 2
    close = {"rtol": 1e-6}
    np.testing.assert_allclose(by_name["x"].engine, 1.5 * (1 + d), **close)
    np.testing.assert_allclose(by_name["x"].first_come, 1.5 * np.ones(2), **close)
    np.testing.assert_allclose(by_name["x"].passed_again, 1.5 * (1 + 1 + d), **close)
    np.testing.assert_allclose(by_name["w"].engine, ([0.5, -0.25] * (1 + d)).sum(), rtol=1e-5)
    np.testing.assert_allclose(by_name["w"].first_come, 0.25, rtol=1e-5)
    assert by_name["x"].engine.dtype == dtype and by_name["w"].engine.shape == ()
    assert [by_name["x"].right(way) for way in walks.WAYS] == [True, True, False, False]
    assert "✗" in str(found) and "kind to" not in found.text(200)


def test_a_graph_that_is_kind_to_carelessness_is_told_from_others() -> None:
    y, *_ = unequal()
    assert not any("is kind" in note for note in lab.order(y).notes)
    x = scalar(2.0, "x")
    chain = lab.order(tg.sin(tg.tanh(x)))
    assert "kind to carelessness (wrong: first come) and (wrong: passed again)" in chain.text(300)


# -- counts --------------------------------------------------------------------------------------------------------


def test_twenty_doublings_are_a_million_paths_and_forty_edges() -> None:
    found = lab.order(doubled(20))
    assert found.title == "1,048,576 paths, 20 operations, 40 edges"
    assert (found.paths, found.operations, found.edges, found.visits) == (2**20, 20, 40, 2**21 - 1)
    assert not found.ran and found.leaves[0].recursion is None and found.leaves[0].right("recursion") is None
    assert "counted, not run" in found.text(200)
    assert float(found.leaves[0].engine) == 2.0**20


def test_ten_thousand_doublings_and_more_digits_than_python_prints() -> None:
    found = lab.order(doubled(1000))
    assert found.paths == 2**1000 and "about 10^301 paths, 1,000 operations" in found.title
    with np.errstate(over="ignore"):
        found = lab.order(doubled(10_000))
    assert found.paths == 2**10_000 and len(str(found)) < 10_000


def test_a_limit_decides_whether_recursion_is_run() -> None:
    y = doubled(4)  # 31 visits
    assert lab.order(y, limit=31).ran and not lab.order(y, limit=30).ran


def test_what_needs_no_gradient_is_no_part_of_it() -> None:
    x, c = scalar(0.5, "x"), tg.tensor([1.0, 2.0, 3.0], dtype=np.float64, name="c")
    found = lab.order((x * c).sum())
    assert [each.name for each in found.visited] == ["v2", "v1", "x"] and found.edges == 2
    assert "the sum" not in found.title


def test_fused_layers_can_be_unfolded() -> None:
    layer = nn.GRU(3, 5, dtype=np.float64, rng=np.random.default_rng(1))
    output, _ = layer(np.random.default_rng(2).uniform(-1, 1, (4, 2, 3)))
    folded, unfolded = (lab.order(output, expand=expand, limit=10**5) for expand in (False, True))
    assert unfolded.operations > 10 * folded.operations and unfolded.paths > folded.paths
    for one, other in zip(folded.leaves, unfolded.leaves, strict=True):
        np.testing.assert_allclose(one.engine, other.engine, rtol=1e-9)
    assert not all(leaf.right("first_come") for leaf in unfolded.leaves)


def test_hooks_and_debug_are_as_in_any_pass() -> None:
    x = scalar(2.0, "x")
    v = x * 3.0
    v.register_hook(lambda g: g * 10.0)
    y = v * 1.0
    with tg.debug(), tg.no_grad():
        found = lab.order(y)
    assert float(found.leaves[0].engine) == 30.0 == float(found.leaves[0].recursion)


# -- shown ---------------------------------------------------------------------------------------------------------


def test_it_is_shown_as_text_markdown_and_a_page(tmp_path: Any) -> None:
    y, *_ = unequal()
    found = lab.order(y)
    assert "visits by recursion" in found.text(100) and max(map(len, found.text(70).splitlines())) <= 70
    assert found.markdown.count("|---") == 5 + 5
    assert "<table>" in found._repr_html_() and "Content-Security-Policy" in found.html
    assert found.save(tmp_path / "order.html").read_text(encoding="utf-8") == found.html
    assert repr(found).startswith("<Order: 6 paths")


def test_hostile_names_break_no_page() -> None:
    x = scalar(1.0, '<script>alert("x")</script>|`\n')
    page = lab.order(x * 2.0).html
    assert "<script>alert" not in page


def test_a_long_tape_is_cut_in_the_middle() -> None:
    text = lab.order(doubled(30)).text(120)
    assert "⋮" in text and "v30" in text and "v2 " in text and "v15" not in text


# -- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_a_sentence() -> None:
    with pytest.raises(GraphError, match="one Tensor, not int"):
        lab.order(3)
    with pytest.raises(GraphError, match="has no graph"):
        lab.order(tg.tensor(1.0) * 2.0)
    y, x, _ = unequal()
    x.assign_(7.0)
    with pytest.raises(ModifiedError, match="changed afterwards"):
        lab.order(y)
    y, *_ = unequal()
    y.backward(retain_graph=False)
    with pytest.raises(GraphError, match="freed"):
        lab.order(y)


def test_a_leaf_by_itself_is_one_path() -> None:
    found = lab.order(scalar(1.0, "x"))
    assert (found.paths, found.operations, found.edges) == (1, 0, 0)
