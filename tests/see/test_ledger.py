"""The ledger: what the engine added up, piece by piece, held against `pullback`, NumPy and its own sums."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import GraphError, ModifiedError
from tinygrad_rnn.see import ledger as module
from tinygrad_rnn.see.ledger import Ledger


def ledger(*arguments, **options):
    return module.ledger(*arguments, **options)  # looked up at each call, so that a test can break it


def stopped(t):
    return module.stopped(t)


def number(value, name=None, shape=()):
    return tg.tensor(np.full(shape, value), requires_grad=True, name=name)


def drawn(*shape, seed=0, name=None):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True, name=name)


def sums_agree(book: Ledger) -> None:
    """Every gradient is the sum of what was added to it, and is what the engine gives to whoever asks for it alone."""
    for t in book.tensors:
        if book.state(t):
            assert t.age not in book.gradients
            continue
        total = book.gradients[t.age]
        assert total.dtype == t.dtype and total.shape == t.shape
        if steps := book.running(t):
            assert steps[0][1] is book.seeds.get(t.age)
            assert all(before is after for (_, _, after), (_, before, _) in pairwise(steps))
            np.testing.assert_allclose(steps[-1][2], total, rtol=1e-13, atol=1e-14)
        else:
            assert book.seeds[t.age] is total
        if len(book.results) == 1:
            y = book.results[0]
            np.testing.assert_array_equal(tg.pullback(y, [t], np.ones(y.shape, y.dtype))[0].numpy(), total)


def test_a_value_used_twice_has_two_contributions():
    x = number(3.0, "x")
    y = x * x + x
    book = ledger([y])
    found = [(c.consumer.op.name, c.argument, float(c.upstream), float(c.product)) for c in book.contributions[x.age]]
    assert found == [("add", "b", 1.0, 1.0), ("mul", "a", 1.0, 3.0), ("mul", "b", 1.0, 3.0)]
    assert [(b and float(b), float(a)) for _, b, a in book.running(x)] == [(None, 1.0), (1.0, 4.0), (4.0, 7.0)]
    assert x.grad is None and float(book.gradients[x.age]) == 7.0


def test_what_was_broadcast_is_summed_and_says_so():
    w, b = drawn(3, 4, name="w"), drawn(4, seed=1, name="b")
    (only,) = ledger([w + b]).contributions[b.age]
    assert only.broadcast and only.product.shape == (3, 4)
    np.testing.assert_array_equal(only.added, np.full(4, 3.0))
    (other,) = ledger([w + b]).contributions[w.age]
    assert not other.broadcast


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM], ids=lambda make: make.__name__)
def test_the_sums_of_a_recurrent_layer_agree(make, fused):
    layer = make(3, 5, 2, fused=fused, bidirectional=True, dtype=np.float64, rng=np.random.default_rng(2))
    output, _ = layer(drawn(4, 2, 3, seed=1, name="x"), lengths=[4, 2])
    book = ledger([(output * output).sum()])
    sums_agree(book)
    for name, parameter in layer.named_parameters():
        assert book.state(parameter) == "", name
        assert len(book.contributions[parameter.age]) == (1 if fused else len(layer.cells[0].gates)), name


def test_slices_concatenations_and_fused_results_that_meet_other_uses():
    x = drawn(4, 3, name="x")
    layer = nn.GRU(3, 5, dtype=np.float64, rng=np.random.default_rng(3))
    both = tg.stack([x, x * 2.0])
    first = (both * both).sum()
    y = first + layer(both)[0].sum() + tg.concatenate([x[1:], x[:2], x[[0, 0]]]).sum() + (x * x).sum()
    sums_agree(ledger([y]))


def test_several_results_are_one_function_their_sum():
    x = drawn(3, name="x")
    a, b = x * 2.0, tg.tanh(x)
    both = ledger([a, b]).gradients[x.age]
    np.testing.assert_allclose(both, tg.pullback(a.sum() + b.sum(), [x])[0].numpy())
    sums_agree(ledger([a, tg.tanh(a)]))  # one of them is on the way to the other
    np.testing.assert_array_equal(ledger([a], grad=[1.0, 2.0, 3.0]).gradients[x.age], [2.0, 4.0, 6.0])


def test_nobodys_grad_is_touched_and_hooks_count():
    x = number(2.0, "x")
    y = x * 3.0
    y.retain_grad()
    y.register_hook(lambda g: g * 10.0)
    book = ledger([y * 1.0])
    assert x.grad is None and y._grad is None
    assert float(book.gradients[y.age]) == 10.0 and float(book.gradients[x.age]) == 30.0


def test_it_works_under_debug_and_no_grad_and_with_nan():
    x = number(0.0, "x")
    y = tg.sqrt(x) * 0.0
    with tg.debug(), tg.no_grad():
        book = ledger([y])
    assert np.isnan(book.gradients[x.age])


def test_what_was_overwritten_is_lost_and_the_rest_is_still_true():
    x, w, v = number(2.0, "x"), number(3.0, "w"), number(5.0, "v")
    u = tg.sin(w)
    y = x * u + v * 7.0 + tg.exp(u)
    x.assign_(100.0)  # the derivative of x * u for u needs it
    book = ledger([y])
    assert book.state(x) == "" and float(book.gradients[x.age]) == pytest.approx(np.sin(3.0))
    assert book.state(v) == "" and float(book.gradients[v.age]) == 7.0
    assert book.state(u).startswith("lost: mul used x") and book.state(w) == book.state(u)
    assert u.age not in book.gradients and w.age not in book.gradients
    assert len(book.contributions[u.age]) == 1 and w.age not in book.contributions  # that of exp is true
    with pytest.raises(ModifiedError):
        y.backward()


@pytest.mark.parametrize("fused", [True, False])
def test_a_changed_weight_takes_with_it_what_needs_it_and_no_more(fused):
    layer, x = nn.GRU(3, 5, fused=fused, dtype=np.float64), drawn(4, 2, 3, name="x")
    head = drawn(5, name="head")
    y = (layer(x)[0] @ head).sum()
    before = ledger([y])
    layer.cells[0].U.assign_(0.0)
    book = ledger([y])
    lost = {t.name for t in book.tensors if t.op is None and book.state(t).startswith("lost")}
    assert "head" not in lost and "x" in lost if fused else lost == set()
    np.testing.assert_array_equal(book.gradients[head.age], before.gradients[head.age])


def test_states_tell_apart_why_there_is_no_gradient():
    x, c, unused = drawn(3, name="x"), tg.tensor([1.0, 2.0, 3.0]), drawn(3, name="unused")
    y = (x * c).sum()
    book = ledger([y])
    assert (book.state(x), book.state(c), book.state(unused)) == ("", "constant", "not reached")


def test_a_result_without_a_graph_is_refused():
    with pytest.raises(GraphError, match="no graph"):
        ledger([tg.tensor([1.0])])
    y = number(2.0) * 3.0
    y.backward(retain_graph=False)
    with pytest.raises(GraphError, match="freed"):
        ledger([y])


@tg.primitive("elementwise")
def stairs(xp, x):
    return xp.floor(x)


def test_why_gradients_stop_at_a_leaf():
    x = drawn(3, name="x")
    with tg.no_grad():
        double, whole, also = x * 2.0, x.sum(), tg.tanh(x)
    assert stopped(double) == "mul under no_grad()" and stopped(whole) == "sum under no_grad()"
    assert stopped(also) == "tanh under no_grad()"
    assert stopped(x.detach()) == "detached" and stopped(tg.tanh(x).detach()) == "detached"
    assert stopped(tg.argmax(x)) == "argmax has no derivative" and stopped(x > 0.0) == "greater has no derivative"
    assert stopped(stairs(x)) == "stairs has no derivative"
    assert stopped(x) == stopped(tg.tensor(1.0)) == stopped(x * 2.0) == stopped(tg.tensor(1.0) * 2.0) == ""
    assert stopped(tg.tensor(1.0).detach()) == ""


def test_under_debug_a_stop_is_handed_on_with_its_line():
    x = drawn(3, name="x")
    with tg.debug():
        with tg.no_grad():
            first = x * 2.0
            y = first + 1.0
        z = y.sum() * 3.0
    assert first.source.startswith("test_ledger.py:")
    for later in (y, z):
        assert stopped(later) == "mul under no_grad()" and later.source == first.source
    with tg.debug():
        stairs = (x > 0.0).astype("float64") * 2.0
    assert stopped(stairs) == "greater has no derivative"
    cut = x.detach()
    assert stopped(cut[0]) == stopped(cut * 2.0) == stopped(2.0 * cut) == stopped(tg.tanh(cut)) == "detached"
    assert stopped(tg.tanh(tg.tensor([1.0]) + cut).reshape(1, 3)) == "detached" and stopped(cut * x) == ""


@pytest.mark.parametrize(
    ("function", "old", "new", "check"),
    [
        ("ledger", "d.copy() if", "d if", test_slices_concatenations_and_fused_results_that_meet_other_uses),
        ("ledger", "node.age in book.lost", "False", test_what_was_overwritten_is_lost_and_the_rest_is_still_true),
        ("ledger", "latest.get(node.age, -1)", "-1", test_a_value_used_twice_has_two_contributions),
        ("ledger", "debug=False", "debug=True", test_it_works_under_debug_and_no_grad_and_with_nan),
    ],
)
def test_a_ledger_that_breaks_a_promise_is_caught(function, old, new, check, monkeypatch):
    check()
    mutated(monkeypatch, module, function, old, new)
    with pytest.raises((AssertionError, KeyError, tg.errors.TinygradError)):
        check()
