"""The tape and backward: linear time without recursion, sums over all paths, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.backend import NAMESPACE_OF
from tinygrad_rnn.core import autodiff, primitive
from tinygrad_rnn.errors import GraphError, ModifiedError, NumericalError, PrimitiveError, ShapeError

# -- size ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_chain_of_a_million_operations() -> None:
    x = tg.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(1_000_000):
        y = y * 1.0
    assert len(tg.tape(y)) == 1_000_001
    y.backward()
    assert x.grad is not None and x.grad.item() == 1
    assert tg.jvp(lambda t: chain(t, 1000), [x], [tg.ones(1)])[1].item() == 1
    y.backward(retain_graph=False)
    assert x.grad.item() == 2
    del y


def chain(x: tg.Tensor, length: int) -> tg.Tensor:
    for _ in range(length):
        x = x * 1.0
    return x


def test_a_long_chain_is_dropped_without_recursion() -> None:
    """Python frees a linked list element by element, each from within the one before, unless somebody prevents it."""
    y = chain(tg.tensor([1.0], requires_grad=True), 200_000)
    del y


def test_diamonds_ten_thousand_deep_take_linear_time() -> None:
    """Each level doubles the number of paths: 2 ** 10,000 of them, and 20,001 nodes."""
    x = tg.tensor(np.array([1.5, -2.0]), requires_grad=True)
    y = x
    for _ in range(10_000):
        y = (y + y) * 0.5
    start = time.perf_counter()
    y.backward(np.array([3.0, 5.0]))
    assert time.perf_counter() - start < 5
    assert x.grad is not None and x.grad.tolist() == [3.0, 5.0]
    assert len(tg.tape(y)) == 20_001


# -- what backward leaves behind ------------------------------------------------------------------------


def test_gradients_of_all_uses_add_up() -> None:
    x = tg.tensor(np.array(3.0), requires_grad=True)
    y = x * x + x
    y.backward()
    assert x.grad is not None and x.grad.item() == 7


def test_a_second_backward_accumulates() -> None:
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = (x * x).sum()
    y.backward()
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [8.0, 12.0]
    x.grad = None
    y.backward()
    assert x.grad.tolist() == [4.0, 6.0]


def test_a_graph_that_was_freed_says_so() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    middle = x * x
    y = middle * x
    y.backward(retain_graph=False)
    assert x.grad is not None and x.grad.item() == 12
    for again in (y.backward, middle.backward, lambda: tg.tape(y), lambda: tg.pullback(y, [x])):
        with pytest.raises(GraphError, match="freed by backward"):
            again()  # type: ignore[operator]
    z = y + x  # new work on top of a freed graph
    with pytest.raises(GraphError, match=r"mul .* was freed"):
        z.backward()


def shares_nothing(make: Callable[[tg.Tensor, tg.Tensor], tg.Tensor]) -> None:
    a, b = (tg.tensor(np.arange(3.0), requires_grad=True) for _ in range(2))
    y = make(a, b)
    seed = np.ones(y.shape)
    g = tg.tensor(seed)
    y.backward(g)
    arrays = [a.grad._array, b.grad._array, g._array, a._array, b._array]  # type: ignore[union-attr]
    for i, one in enumerate(arrays):
        assert (one.flags.writeable and one.flags.owndata) or one.base.flags.writeable
        assert not any(np.shares_memory(one, other) for other in arrays[i + 1 :])


SHARING: list[Callable[[tg.Tensor, tg.Tensor], tg.Tensor]] = [
    lambda a, b: a + b,
    lambda a, b: a - (-b),
    lambda a, b: a.reshape(3, 1).reshape(-1) + b,
    lambda a, b: tg.broadcast_to(a, shape=(2, 3)) + b,
    lambda a, b: tg.concatenate([a, b]),
    lambda a, b: tg.stack([a, b]).T,
    lambda a, b: a[::-1] + b[0:3],
    lambda a, b: a.sum() + b.mean(),
]


@pytest.mark.parametrize("make", SHARING)
def test_a_leaf_owns_its_gradient(make: Callable[[tg.Tensor, tg.Tensor], tg.Tensor]) -> None:
    shares_nothing(make)


def test_leaves_that_share_a_gradient_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chainer and DeZero do this: clipping in place then scales one gradient twice."""
    mutated(monkeypatch, autodiff, "_accumulate", "xp.array(g)", "xp.asarray(g)")
    with pytest.raises(AssertionError):
        shares_nothing(SHARING[0])


def test_setting_grad_copies() -> None:
    x, g = tg.tensor(np.zeros(3), requires_grad=True), tg.tensor(np.arange(3.0))
    x.grad = g
    assert x.grad is not None and not np.shares_memory(x.grad._array, g._array)
    with pytest.raises(ShapeError, match=r"shape and dtype"):
        x.grad = tg.tensor(np.zeros(2))
    with pytest.raises(ShapeError, match=r"shape and dtype"):
        x.grad = tg.tensor(np.zeros(3, np.float32))


def test_grad_is_detached() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    (x * x * x).backward()
    assert x.grad is not None and not x.grad.requires_grad and x.grad.op is None


def test_grad_of_a_result_is_none_with_a_warning_that_says_how_to_get_it() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    y = x * x
    y.backward()
    with pytest.warns(UserWarning, match=r"retain_grad\(\).*tg\.pullback"):
        assert y.grad is None
    assert (x.detach() * 2).grad is None  # nothing to get: no warning


def test_retain_grad_keeps_the_gradient_of_a_result_and_accumulates() -> None:
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    middle = x * x
    middle.retain_grad()
    middle.retain_grad()  # asking twice is asking once
    y = (middle * 5 + middle).sum()
    y.backward()
    assert middle.grad is not None and middle.grad.tolist() == [6.0, 6.0]
    y.backward()
    assert middle.grad.tolist() == [12.0, 12.0]
    with pytest.raises(GraphError, match="does not require a gradient"):
        x.detach().retain_grad()


def test_a_leaf_without_a_gradient_is_left_alone() -> None:
    x, w = tg.tensor([1.0], requires_grad=True), tg.tensor([2.0])
    (x * w).sum().backward()
    assert w.grad is None


# -- hooks ------------------------------------------------------------------------------------------------


def test_a_hook_sees_the_summed_gradient_once_and_may_replace_it() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    middle = x * 3
    seen = []
    middle.register_hook(lambda g: seen.append(g.item()))
    middle.register_hook(lambda g: g * 10)
    middle.register_hook(lambda g: seen.append(g.item()))
    (middle + middle * 4).backward()
    assert seen == [5.0, 50.0]  # in the order of registration, each seeing what the one before made of it
    assert x.grad is not None and x.grad.item() == 150


def test_a_hook_on_a_leaf_runs_before_its_gradient_is_kept() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    take_off = x.register_hook(lambda g: g * 0 + 7)
    (x * x).backward()
    assert x.grad is not None and x.grad.item() == 7
    take_off()
    take_off()
    (x * x).backward()
    assert x.grad.item() == 11
    with pytest.raises(GraphError, match="would never run"):
        x.detach().register_hook(print)


def test_a_hook_cannot_spoil_the_gradient_that_others_get() -> None:
    a, b = (tg.tensor(np.ones(2), requires_grad=True) for _ in range(2))

    def spoil(g: tg.Tensor) -> None:
        g._array[...] = 99

    for x in (a, b):
        x.register_hook(spoil)
    (a + b).backward(np.ones(2))
    assert a.grad is not None and b.grad is not None and a.grad.tolist() == b.grad.tolist() == [1.0, 1.0]


def test_hooks_run_in_recorded_gradients_too() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    x.register_hook(lambda g: g * g)
    (d,) = tg.pullback(x**3, [x], create_graph=True)
    assert d.item() == 144
    (dd,) = tg.pullback(d, [x])
    assert dd.item() == (2 * 12 * 12) ** 2  # the hook squares this gradient as well


# -- changed values ----------------------------------------------------------------------------------------


def test_a_value_that_was_changed_after_the_tape_read_it_is_caught() -> None:
    """x * y at 2, 3 with x = 10 set before backward: micrograd and torch's .data give 10 for dy without a word."""
    x, w = tg.tensor(np.array(2.0), requires_grad=True), tg.tensor(np.array(3.0), requires_grad=True, name="w")
    y = x * w
    w.assign_(10.0)
    with pytest.raises(ModifiedError, match=r"mul used w \(\) float64, which was changed afterwards"):
        y.backward()


def test_the_message_has_the_line_under_debug() -> None:
    x, w = tg.tensor(np.array(2.0), requires_grad=True), tg.tensor(np.array(3.0), requires_grad=True, name="w")
    with tg.debug():
        y = x * w
    w.assign_(10.0)
    with pytest.raises(ModifiedError, match=r"mul at test_autodiff\.py:\d+ used w"):
        y.backward()


def test_second_derivatives_notice_too() -> None:
    x, w = tg.tensor(np.array(2.0), requires_grad=True), tg.tensor(np.array(3.0), requires_grad=True, name="w")
    y = x * w
    w.assign_(10.0)
    with pytest.raises(ModifiedError):
        tg.pullback(y, [x], create_graph=True)


def test_a_change_does_not_block_uses_after_it_nor_rules_that_do_not_read() -> None:
    x, w = tg.tensor(np.array(2.0), requires_grad=True), tg.tensor(np.array(3.0), requires_grad=True)
    total = x + w  # the rule of a sum reads nothing
    w.assign_(10.0)
    after = x * w
    (total + after).backward()
    assert x.grad is not None and x.grad.item() == 11
    assert w.grad is not None and w.grad.item() == 3


@pytest.mark.parametrize(
    "use", [lambda x: x.sum(), lambda x: x.mean(), lambda x: x.reshape(2, 3)[0, 1:].sum(), lambda x: tg.cumsum(x).sum()]
)
def test_rules_that_ask_for_shapes_only_do_not_mind_new_numbers(use: Callable[[tg.Tensor], tg.Tensor]) -> None:
    x = tg.tensor(np.arange(6.0), requires_grad=True)
    before, y = tg.pullback(use(x), [x])[0], use(x)
    x.assign_(np.zeros(6))
    assert tg.pullback(y, [x])[0].tolist() == before.tolist()


READERS: list[Callable[[tg.Tensor], tg.Tensor]] = [
    lambda x: x * 2.0 * x, lambda x: 1 / x, lambda x: tg.relu(x), lambda x: tg.max(x),
        lambda x: tg.where(x > 1, x * x, x),
    lambda x: x @ x, lambda x: tg.sin(x), lambda x: x.std(), lambda x: abs(x),
    lambda x: tg.clip(x, 0.5, 1.5), lambda x: tg.logsumexp(x), lambda x: tg.gelu(x), lambda x: 2.0**x * x,
]  # fmt: skip


@pytest.mark.parametrize("use", READERS)
@pytest.mark.parametrize("recorded", [False, True])
def test_rules_that_read_numbers_do(use: Callable[[tg.Tensor], tg.Tensor], recorded: bool, backend: str) -> None:
    x = tg.tensor(np.array([0.75, 1.25, 1.75]), requires_grad=True, name="x")
    y = use(x).sum()
    x.assign_(1.0)
    with pytest.raises(ModifiedError, match=r"used x \(3,\) float64, which was changed"):
        tg.pullback(y, [x], create_graph=recorded)


def test_a_view_of_a_leaf_keeps_what_was_read() -> None:
    x = tg.tensor(np.arange(6.0), requires_grad=True)
    view = x.reshape(2, 3)
    y = (view * view).sum()
    x.assign_(np.zeros(6))
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [0, 2, 4, 6, 8, 10]


# -- errors -------------------------------------------------------------------------------------------------


def test_backward_without_a_graph_says_what_is_missing() -> None:
    with pytest.raises(GraphError, match="requires_grad=True"):
        tg.tensor(2.0).backward()
    with tg.no_grad():
        y = tg.tensor(2.0, requires_grad=True) * 3
    with pytest.raises(GraphError, match=r"no_grad\(\)"):
        y.backward()


def test_backward_of_a_non_scalar_wants_a_gradient_of_its_shape() -> None:
    y = tg.tensor(np.ones((2, 3)), requires_grad=True) * 2
    with pytest.raises(GraphError, match=r"mul \(2, 3\) float64 is no scalar.*y\.sum\(\).*grad="):
        y.backward()
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2, 3\)"):
        y.backward(np.ones(3))
    y.backward([[1, 2, 3], [4, 5, 6]])


def test_one_element_counts_as_a_scalar() -> None:
    x = tg.tensor(np.ones((1, 1)), requires_grad=True)
    (x * 4).backward()
    assert x.grad is not None and x.grad.tolist() == [[4.0]]


def test_pullback_wants_tensors_with_gradients() -> None:
    x, w = tg.tensor(1.0, requires_grad=True), tg.tensor(2.0, name="w")
    with pytest.raises(GraphError, match=r"w .* does not require a gradient"):
        tg.pullback(x * w, [w])


def test_a_rule_of_the_wrong_shape_is_refused() -> None:
    @tg.primitive("general", dx=lambda g, x: x[0])
    def wrongly_shaped(xp, x):  # type: ignore[no-untyped-def]
        return x * 2

    x = tg.tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(PrimitiveError, match=r"gradient of shape \(3,\).*\(2, 3\)"):
        wrongly_shaped(x).backward(np.ones((2, 3)))


# -- pullback -------------------------------------------------------------------------------------------------


def test_pullback_touches_nobodys_grad_and_reaches_results_too() -> None:
    x = tg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    unrelated = tg.tensor(np.ones((2, 1)), requires_grad=True)
    middle = x * x
    y = (middle * middle).sum()
    at_middle, at_x, at_y, nowhere = tg.pullback(y, [middle, x, y, unrelated])
    assert at_middle.tolist() == [8.0, 18.0]
    assert at_x.tolist() == [32.0, 108.0]
    assert at_y.item() == 1
    assert nowhere.tolist() == [[0.0], [0.0]] and nowhere.dtype == np.float64
    assert x.grad is None and not at_x.requires_grad


def test_pullback_visits_only_what_leads_to_the_targets() -> None:
    x, w = tg.tensor(np.array(2.0), requires_grad=True), tg.tensor(np.array(3.0), requires_grad=True)
    visited = []
    side = w * w
    side.register_hook(lambda g: visited.append("side"))
    assert tg.pullback(x * side, [x])[0].item() == 9
    assert visited == []


def test_create_graph_gives_gradients_that_have_gradients() -> None:
    x = tg.tensor(np.array(2.0), requires_grad=True)
    d = x**5
    for expected in (80.0, 160.0, 240.0, 240.0, 120.0):
        (d,) = tg.pullback(d, [x], create_graph=True)
        assert d.item() == expected


# -- slices ---------------------------------------------------------------------------------------------------


def test_slices_of_one_array_cost_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """T slices must not make T gradients of length T: a single array of zeros is made, and all are added into it."""
    x = tg.tensor(np.ones((70, 5)), requires_grad=True)
    y = sum((x[t] * (t + 1) for t in range(70)), tg.zeros(5, dtype=np.float64)).sum()
    xp, made = NAMESPACE_OF[np.ndarray], []
    zeros = xp.zeros
    monkeypatch.setattr(xp, "zeros", lambda shape, *options: made.append(shape) or zeros(shape, *options))
    y.backward()
    assert made == [(70, 5)]
    assert x.grad is not None and (x.grad.numpy() == np.arange(1, 71)[:, None]).all()


# -- the tape ---------------------------------------------------------------------------------------------------


def test_the_tape_is_youngest_first_and_holds_each_node_once() -> None:
    x, w = tg.tensor(2.0, requires_grad=True), tg.tensor(3.0)
    y = x * w
    z = y + y
    assert list(tg.tape(z)) == [z, y, w, x]
    assert tg.tape(z)[0] is z and len(tg.tape(z, y)) == 4
    assert [t.age for t in tg.tape(z)] == sorted((t.age for t in tg.tape(z)), reverse=True)


def test_the_printed_tape_tells_tensors_of_one_name_apart() -> None:
    x, h = tg.tensor(1.0, requires_grad=True, name="x"), tg.tensor(2.0, requires_grad=True, name="h")
    after = x * h
    after.name = "h"
    lines = str(tg.tape(after + h)).splitlines()
    assert f"h#{after.age}, h#{h.age}" in lines[1] and f"x, h#{h.age}" in lines[2]


def test_the_printed_tape_shows_age_op_inputs_shape_scope_and_source() -> None:
    x = tg.tensor(np.ones((2, 3)), requires_grad=True, name="x")
    with tg.debug(), tg.scope("cell", "GRUCell"), tg.scope(step=4):
        y = tg.tanh(x) * 2.5
    lines = repr(tg.tape(y)).splitlines()
    assert lines[0].split() == ["age", "op", "name", "inputs", "shape", "scope", "source"]
    youngest = lines[1].split("  ")
    youngest = [part.strip() for part in youngest if part]
    assert youngest[:2] == [f"#{y.age}", "mul"]
    assert youngest[2] == f"#{y.inputs[0].age}, 2.5"  # type: ignore[index]
    assert youngest[3] == "(2, 3)" and youngest[4] == "cell[t=4]"
    assert youngest[5].startswith("test_autodiff.py:")
    assert lines[2].split()[1:3] == ["tanh", "x"]
    assert lines[3].split()[1:3] == ["leaf", "x"]


def test_a_column_that_nobody_needs_is_not_printed() -> None:
    assert repr(tg.tape(tg.tensor(1.0) * 1)).split("\n")[0].split() == ["age", "op", "shape"]


# -- the checks above, checked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "function", "old", "new", "check"),
    [
        (autodiff, "_hooked", "Tensor(g.copy())", "Tensor(g)", test_a_hook_cannot_spoil_the_gradient_that_others_get),
        (autodiff, "pull", "node.inputs = None", "pass", test_a_graph_that_was_freed_says_so),
        (autodiff, "_accumulate", "leaf._grad._array + g", "g", test_a_second_backward_accumulates),
        (autodiff, "_accumulate", "leaf._grad is None", "True", test_a_second_backward_accumulates),
        (autodiff, "pull", "useful is not None and at not in useful", "False",
            test_pullback_visits_only_what_leads_to_the_targets),
        (primitive, "read", "x.modified > node.age", "False",
            test_a_value_that_was_changed_after_the_tape_read_it_is_caught),
    ],
)  # fmt: skip
def test_an_engine_that_breaks_a_promise_is_caught(
    module: Any, function: str, old: str, new: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    mutated(monkeypatch, module, function, old, new)
    with pytest.raises((AssertionError, pytest.fail.Exception, KeyError, GraphError)):
        check()


# -- what is easily got wrong -----------------------------------------------------------------------------------


def test_a_leaf_that_requires_a_gradient_later_was_a_constant_before() -> None:
    a, b = tg.tensor(2.0), tg.tensor(3.0, requires_grad=True)
    y = (a * 2) * b + a * b
    a.requires_grad = True
    y.backward()
    assert a.grad is None and b.grad is not None and b.grad.item() == 6
    (a * b).backward()
    assert a.grad is not None and a.grad.item() == 3


def test_pullback_leaves_every_grad_alone() -> None:
    x = tg.tensor([2.0], requires_grad=True)
    y = x * x
    y.retain_grad()
    z = y.sum()
    z.backward()
    for create_graph in (False, True):
        tg.pullback(z, [x], create_graph=create_graph)
        assert y.grad is not None and y.grad.tolist() == [1.0] and not y.grad.requires_grad


def test_pullback_takes_one_tensor_or_several_and_nothing_else() -> None:
    x = tg.tensor([2.0, 3.0], requires_grad=True)
    assert tg.pullback((x * x).sum(), x)[0].tolist() == [4.0, 6.0]
    with pytest.raises(GraphError, match="does not require a gradient"):
        tg.pullback((x * x).sum(), [np.ones(2)])  # type: ignore[list-item]


def test_a_scalar_used_three_ways_one_of_them_indexed() -> None:
    x = tg.tensor(2.0, requires_grad=True)
    (x[None].sum() + x * 2 + x * 3).backward()
    assert x.grad is not None and x.grad.item() == 6


def test_a_pass_that_fails_leaves_no_half_gradients() -> None:
    w, v = tg.tensor(2.0, requires_grad=True), tg.tensor(3.0, requires_grad=True)
    shared = w * 1
    (shared * 1).backward(retain_graph=False)
    with pytest.raises(GraphError, match="freed"):
        (shared * v).backward()
    assert v.grad is None and w.grad is not None and w.grad.item() == 1


def test_options_are_kept_as_they_were() -> None:
    low, axes = np.zeros(2), [1, 0]
    x = tg.tensor([[3.0, 4.0]], requires_grad=True)
    y = tg.clip(x, low, None).transpose(axes)
    low[:], axes[:] = 5, [0, 1]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("spoilt", [np.ones(2), tg.ones(3), 1.0])
def test_a_hook_returns_a_tensor_of_the_shape_or_nothing(spoilt: Any) -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    x.register_hook(lambda g: spoilt)
    with pytest.raises(ShapeError, match=r"hook on x \(2,\)"):
        (x * x).sum().backward()


def test_an_overflow_of_the_sum_is_named_under_debug() -> None:
    x = tg.tensor(np.float32(1e-30), requires_grad=True, name="x")
    with tg.debug(), np.errstate(over="ignore"), pytest.raises(NumericalError, match="sum of the gradients for x"):
        (x * 3e38 + x * 3e38).backward()
