"""Explanations end in what `backward()` gives, their numbers are those of the chain rule, their reasons are true."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from markup import Reader
from mutants import mutated
from rich.cells import cell_len

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import GraphError, IndexOutOfRange, ModifiedError, OptionError
from tinygrad_rnn.see import explain as module
from tinygrad_rnn.see import ledger, reasons
from tinygrad_rnn.see.words import printable

LAYERS = [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM]


def explain(*arguments, **options):
    return module.explain(*arguments, **options)


def drawn(*shape, seed=0, name=None, grad=True):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=grad, name=name)


def number(value, name=None):
    return tg.tensor(np.float64(value), requires_grad=True, name=name)


def summed_up(explanation):
    return sum(explanation.by_step().values())


# -- contributions -------------------------------------------------------------------------------------------------


def test_a_value_used_three_times_has_its_factors_and_a_running_total():
    x = number(3.0, "x")
    with tg.debug(), tg.scope("net"):
        y = x * x + x
    y.name = "y"
    found = explain(x, of=y)
    assert [(line.op, line.argument, line.formula) for line in found.lines] == [
        ("add", "b", "ȳ"), ("mul", "a", "v̄1 ⊙ x"), ("mul", "b", "v̄1 ⊙ x")]  # fmt: skip
    assert [line.so_far.low for line in found.lines] == [1.0, 4.0, 7.0]
    assert [(float(line.upstream), float(line.slope), float(line.added)) for line in found.lines] == [
        (1, 1, 1), (1, 3, 3), (1, 3, 3)]  # fmt: skip
    assert found.total == 7.0 and found.answer == "∂y/∂x = 7, the sum of 3 contributions" and x.grad is None
    line = found.lines[1]
    assert line.where == "net" and re.fullmatch(r"test_explain\.py:\d+", line.source)
    assert line.head == f"v1 = mul, argument a, at {line.source}, in net"
    text = found.text(80)
    assert "x̄ += v̄1 ⊙ x" in text and "local derivative: 3" in text and "so far: 7" in text
    at = explain(x, y, index=())
    assert "1 · 3 = 3" in at.text() and at.total == 7.0 and at.lines[2].terms == ((1.0, 3.0),)


def test_one_element_of_what_was_broadcast_and_multiplied():
    w, b, X = drawn(3, 4, name="w"), drawn(4, seed=1, name="b"), drawn(5, 3, seed=2, name="X", grad=False)
    y = (tg.tanh(X @ w + b) ** 2.0).mean()
    gradients = dict(zip("wb", tg.pullback(y, [w, b])))
    for x, index in ((w, (1, 2)), (w, (-1, 0)), (b, 3), (b, (0,))):
        found = explain(x, y, index=index)
        (line,) = found.lines
        at = index if isinstance(index, tuple) else (index,)
        assert found.total == gradients[x.name].numpy()[at] and len(line.terms) == 5
        assert sum(g * d for g, d in line.terms) == pytest.approx(found.total, rel=1e-12)
        assert line.added == pytest.approx(found.total, rel=1e-12)
    assert "the sum of 5 products" in explain(w, y, index=(1, 2)).text()
    np.testing.assert_array_equal([d for _, d in explain(w, y, index=(1, 2)).lines[0].terms], X.numpy()[:, 1])
    assert explain(b, y).lines[0].axes == (0,) and "summed over: axis 0" in explain(b, y).text()


@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", LAYERS, ids=lambda make: make.__name__)
def test_the_total_is_what_backward_gives_and_the_steps_add_up_to_it(make, fused, expand):
    layer = make(3, 5, 2, fused=fused, bidirectional=True, dtype=np.float64, rng=np.random.default_rng(2))
    x = drawn(4, 2, 3, seed=1, name="x")
    y = (layer(x, lengths=[4, 3])[0] ** 2.0).sum()
    y.backward()
    for name, p in [*layer.named_parameters(), ("x", x)]:
        found = explain(p, y, expand=expand)
        np.testing.assert_allclose(found.total, p.grad.numpy(), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(summed_up(found), p.grad.numpy(), rtol=1e-12, atol=1e-12)
        assert found.lines[-1].so_far.norm == pytest.approx(np.linalg.norm(p.grad.numpy()), rel=1e-12)
        steps = {line.step for line in found.lines}
        assert steps == ({0, 1, 2, 3} if name != "x" and (expand or not fused) else {None}), name  # x is masked first
        index = tuple(size - 1 for size in p.shape)
        one = explain(p, y, index=index, expand=expand)
        assert one.total == pytest.approx(p.grad.numpy()[index], rel=1e-11, abs=1e-12)
        assert sum(one.by_step().values()) == pytest.approx(one.total, rel=1e-11, abs=1e-12)
        for line in one.lines:
            assert sum(g * d for g, d in line.terms) == pytest.approx(line.added, rel=1e-10, abs=1e-12)


def gru(**options):
    layer = nn.GRU(3, 5, dtype=np.float64, rng=np.random.default_rng(2), **options)
    x = drawn(3, 2, 3, seed=1, name="x", grad=False)
    loss = (layer(x)[0] ** 2.0).sum()
    loss.name = "loss"
    return layer.cells[0], x, loss


def test_a_shared_weight_by_gate_and_step_is_what_numpy_says():
    """∂loss/∂U_z at step t is h[t-1]ᵀ times the gradient of the gate's argument, which the tape is asked for."""
    cell, _, loss = gru(fused=False)
    found = explain(cell.U, loss)
    assert found.table[0] == ["t", "U_n", "U_r", "U_z", "step", "so far"] and found.notes
    assert [row[0] for row in found.table[1]] == ["2", "1", "0"]
    tape = tg.tape(loss)
    for t in (0, 1, 2):
        gate = next(n for n in tape if n.name == "z" and n.scope.path.endswith(f"[t={t}]"))
        (g,) = tg.pullback(loss, [gate.inputs[0]])
        before = next(
            (n.numpy() for n in tape if n.name == "h" and n.scope.path.endswith(f"[t={t - 1}]")), np.zeros((2, 5))
        )
        line = next(line for line in found.lines if line.step == t and line.through == ("U_z",))
        np.testing.assert_allclose(line.added, before.T @ g.numpy(), rtol=1e-12, atol=1e-15)
        assert line.formula.startswith(f"h[{t - 1}]ᵀ v̄" if t else "h_0ᵀ v̄")
    whole = found.by_step()[1]
    assert whole.shape == (5, 15) and np.linalg.norm(whole) == pytest.approx(float(found.table[1][1][4]), rel=1e-3)


def test_a_fused_layer_is_unfolded_and_says_so_or_says_how():
    cell, _, loss = gru()
    assert any("unfolded" in note for note in explain(cell.U, loss).notes)
    folded = explain(cell.U, loss, expand=False)
    assert any("expand=True" in note for note in folded.notes) and len(folded.lines) == 1
    cell.b.assign_(0.0)
    stale = explain(cell.W, loss)
    assert stale.total is None and stale.missing.startswith("the gradient of cells.0.W (3, 15) float64 is lost")


def test_what_cannot_be_computed_once_more_stays_folded():
    layer, c = nn.GRU(3, 5, dtype=np.float64, rng=np.random.default_rng(2)), drawn(5, name="c")
    loss = ((layer(drawn(3, 2, 3, seed=1))[0] + c) ** 2.0).sum()
    loss.backward()
    c.assign_(100.0)  # the sum needs it no more, but computing it again would
    found = explain(layer.cells[0].U, loss)
    assert len(found.lines) == 1 and any("stays folded" in note for note in found.notes)
    np.testing.assert_allclose(found.total, layer.cells[0].U.grad.numpy(), rtol=1e-12)
    with pytest.raises(ModifiedError, match="computed once more"):
        tg.trace_table(loss, expand=True)


def test_an_input_has_its_contributions_by_step_too():
    layer, x = nn.LSTM(3, 5, dtype=np.float64, rng=np.random.default_rng(2)), drawn(4, 2, 3, seed=1, name="x")
    found = explain(x, (layer(x)[0] ** 2.0).sum())
    assert {(line.step, line.through) for line in found.lines} == {(t, (f"x[{t}]",)) for t in range(4)}
    assert not np.any(found.by_step()[2][[0, 1, 3]]) and np.all(found.by_step()[2][2])


def test_what_only_picks_is_looked_through_but_not_a_hook():
    x = drawn(4, 3, name="x")
    y = (x[1:].T * 2.0).sum() + (x[[0, 0, 2]] ** 2.0).sum()
    found = explain(x, y)
    assert [(line.op, len(line.through)) for line in found.lines] == [("power", 1), ("mul", 2)]
    np.testing.assert_allclose(found.total, tg.pullback(y, [x])[0].numpy(), rtol=1e-12)
    np.testing.assert_allclose(summed_up(found), found.total, rtol=1e-12)
    assert explain(x, y, index=(0, 1)).total == pytest.approx(4 * x.numpy()[0, 1])
    assert len(explain(x, y, index=(0, 1)).lines) == 1 and len(explain(x, y, index=(2, 1)).lines) == 2
    u = x[1:]
    u.register_hook(lambda g: g * 10.0)
    assert explain(x, (u * 2.0).sum()).lines[0].op == "index"


def test_x_itself_a_vector_result_and_an_intermediate():
    x = drawn(3, name="x")
    u = tg.tanh(x)
    assert explain(u, u).total.tolist() == [1.0, 1.0, 1.0] and not explain(u, u).lines
    found = explain(x, u)
    assert any("no scalar" in note for note in found.notes)
    np.testing.assert_allclose(explain(x, u, grad=[1.0, 0.0, 2.0]).total, [1, 0, 2] * (1 - u.numpy() ** 2))
    assert any("retain_grad" in note for note in explain(u, (u * 2.0).sum()).notes)
    assert any("has not run" in note for note in explain(x, u).notes)
    y = (u * 2.0).sum()
    y.backward()
    assert not any("has not run" in note for note in explain(x, y).notes)


def test_through_checkpoint_and_general_operations():
    x = drawn(4, name="x")
    y = tg.checkpoint(lambda v: tg.softmax(tg.tanh(v) * 3.0), x).max() + tg.norm(x)
    for index in range(4):
        found = explain(x, y, index=index)
        for line in found.lines:
            assert sum(g * d for g, d in line.terms) == pytest.approx(line.added, rel=1e-9)
    np.testing.assert_allclose(explain(x, y).total, tg.pullback(y, [x])[0].numpy(), rtol=1e-12)


def test_lines_that_are_many_become_a_table_by_step_that_fits():
    cell, _, loss = gru(fused=False)
    text = explain(cell.U, loss).text(80, lines=4)
    assert "Norms of the contributions by time step" in text and "so far" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "argument b" in explain(cell.U, loss).text(80)
    assert "not all columns fit" in explain(cell.U, loss).text(40, lines=4)


def test_lines_that_are_many_outside_of_any_step_are_cut_and_it_is_said():
    x = number(1.0, "x")
    y = x * 1.0
    for _ in range(20):
        y = y + x * 2.0
    found = explain(x, y)
    assert found.total == 41.0 and found.text().count("argument a") == 12
    for text in (found.text(), found.markdown, found.html):
        assert "9 more contributions are left out" in text
    assert "more contributions" not in found.text(lines=30)


def test_the_slices_of_a_sequence_share_a_column():
    layer, x = nn.LSTM(3, 5, dtype=np.float64, rng=np.random.default_rng(2)), drawn(4, 2, 3, seed=1, name="x")
    found = explain(x, (layer(x)[0] ** 2.0).sum())
    heads, rows = found.table
    assert heads == ["t", "x", "step", "so far"] and [row[0] for row in rows] == ["3", "2", "1", "0"]
    assert all(row[1] == row[2] for row in rows)
    assert float(rows[-1][3]) == pytest.approx(np.linalg.norm(found.total), rel=1e-3)
    assert "| t | x |" in found.markdown and '<table class="sums">' in found.html


# -- none ----------------------------------------------------------------------------------------------------------


def test_why_there_is_none():
    x, w = drawn(3, name="x"), drawn(3, seed=1, name="w")
    with tg.debug(), tg.scope("net"):
        cut = tg.tanh(w).detach()
        with tg.no_grad():
            hidden = w * 2.0
        stairs = (w > 0.0).astype("float64")
    cases = {
        r"x \(3,\) float64 is a constant": explain(tg.tensor(x.numpy(), name="x"), (w * 2.0).sum()),
        r"k \(3,\) int64 holds no floating numbers": explain(tg.tensor([1, 2, 3], name="k"), (w * 2.0).sum()),
        r"cut off .* detached at test_explain\.py:\d+ in net": explain(cut, (w * cut).sum()),
        r"cut off .* mul under no_grad\(\) at test_explain\.py:\d+ in net": explain(hidden, (w * hidden).sum()),
        r"nothing that led to sum \(\) float64 has used w": explain(w, (x * 2.0).sum()),
        r"w .* itself is not on the tape .* stop here: .*\(detached at test_explain.py:\d+ in net\)\. If w":
            explain(w, (x * cut).sum()),
        r"w .* itself is not on the tape .*mul under no_grad\(\)": explain(w, (x * hidden).sum()),
        r"w .* itself is not on the tape .*greater has no derivative": explain(w, (x * stairs).sum()),
        r"tensor \(\) float32 has no graph: nothing that": explain(w, tg.tensor([1.0]).sum()),
        r"has no graph: it is cut off, detached": explain(w, cut),
    }  # fmt: skip
    for pattern, found in cases.items():
        assert re.search(pattern, found.missing), (pattern, found.missing)
        assert found.total is None and not found.lines and "none" in found.answer
        assert found.missing in re.sub(r"\s+", " ", found.text(200)) or found.missing[1:] in found.text(500)


def test_what_is_not_on_the_tape_is_never_told_as_a_fact():
    """What is cut off does not know what it was made from, so that the sentence says "if"."""
    w, q, v = drawn(3, name="w"), drawn(3, seed=1, name="q"), drawn(3, seed=2, name="v")
    for used, operation in ((w > 1.5, "greater"), (tg.argmax(w), "argmax")):
        said = explain(w, (used * v).sum()).missing
        assert f"({operation} has no derivative" in said and "If w led to this, that is why; else nothing" in said
    a, b, c, d = (f(q).detach() for f in (tg.exp, tg.sin, tg.tanh, tg.cos))
    said = explain(w, (v * a * b).sum()).missing  # w led to none of them
    assert said.count("detached") == 2 and "If w led to one of these" in said and "more" not in said
    said = explain(w, (v * a * b * c * d).sum()).missing
    assert said.count("detached") == reasons.CUTS == 3 and "; and 1 more. If w" in said
    assert "another tensor of that name is (detached)" in explain(w, (w.detach() * v).sum()).missing


def test_a_result_of_another_tape_and_swapped_arguments():
    a, b = drawn(3, name="a"), drawn(3, seed=1, name="b")
    y = (a * a).sum()
    found = explain(tg.tanh(b), of=y)
    assert found.missing == "nothing that led to sum () float64 has used tanh (3,) float64" and "v3" in found.title
    swapped = explain(y, of=a)
    assert (
        swapped.missing == "sum () float64 was made from a (3,) float64, not the other way round: are the two swapped?"
    )
    b_freed = (b * 2.0).sum()
    b_freed.backward(retain_graph=False)
    assert explain(b_freed, of=y).missing.startswith("nothing that led to sum")


def test_a_result_that_ran_under_no_grad_says_where():
    w = drawn(3, name="w")
    with tg.debug(), tg.no_grad():
        y = (w * 2.0).sum()
    said = r"tensor \(\) float64 has no graph: it is cut off, mul under no_grad\(\) at test_explain\.py:\d+"
    assert re.fullmatch(said, explain(w, y).missing)


def test_a_parameter_that_was_a_constant_when_it_was_read():
    w, x = tg.tensor(np.ones(3), name="w"), drawn(3, name="x")
    with tg.debug():
        y = (x * w).sum()
    w.requires_grad = True
    assert re.match(r"mul at test_explain.py:\d+ read w \(3,\) float64 before it required", explain(w, y).missing)
    other = drawn(3, name="x", seed=5)
    assert "another tensor of that name is" in explain(other, y).missing


@tg.primitive("general", dx=lambda g, scale: g * scale)
def half_known(xp, x, scale):
    return x * scale


def test_an_argument_without_a_derivative_and_what_lies_behind_it():
    x, w = drawn(3, name="x"), drawn(3, seed=1, name="w")
    y = half_known(x, tg.tanh(w)).sum()
    assert explain(w, y).missing.startswith("half_known has no derivative for its argument scale, which is tanh (3,)")
    assert explain(x, y).total is not None


def test_a_freed_graph_and_a_changed_value():
    x = drawn(3, name="x")
    y = (x * x).sum()
    y.backward(retain_graph=False)
    assert "freed" in explain(x, y).missing and "\nThe graph behind" in explain(x, y).text(200)
    w = drawn(3, seed=1, name="w")
    y = (x * w).sum()
    w.assign_(0.0)
    assert re.match("the gradient of x .* is lost: mul used w", explain(x, y).missing)


def test_numbers_that_the_tape_has_not_read_are_marked():
    w, b, far = drawn(3, name="w"), drawn(3, seed=1, name="b"), drawn(3, seed=2, name="far")
    y = ((w + b) * 2.0).sum() + far.sum()
    assert not any("other numbers" in note for note in explain(w, y).notes)
    b.assign_(0.0)
    far.assign_(0.0)  # stands in no formula that is shown
    (said,) = [note for note in explain(w, y).notes if "other numbers" in note]
    assert said == "b has other numbers now than the tape read; all that was computed is as it was."
    w.assign_(1.0)
    assert any(note.startswith("w, b have other numbers now") for note in explain(w, y).notes)
    assert "w, b have other numbers now" in explain(w, y).text(200)
    late = tg.tensor(np.ones(3), requires_grad=True, name="late")
    late.assign_(2.0)  # before anything read it
    assert not any("other numbers" in note for note in explain(late, (late * 2.0).sum()).notes)


def test_missing_is_a_sentence_for_tooltips_and_empty_where_there_is_a_gradient():
    x, w = drawn(3, name="x"), drawn(3, seed=1, name="w")
    y = (x * 2.0).sum()
    assert reasons.missing(x, y) == "" and reasons.missing(w, y).startswith("nothing that led to")


# -- zero ----------------------------------------------------------------------------------------------------------


def saturated(op, at):
    x = tg.tensor(np.array([at, at + 1.0]), requires_grad=True, name="x")
    with tg.scope("gru", "GRU"), tg.scope(step=2):
        z = op(x)
    z.name = "z"
    return x, (z * 3.0).sum()


def zero_cases():
    x = drawn(3, name="x")
    h = tg.tensor(np.zeros((2, 3)), name="h_0")
    U = drawn(3, 5, name="U")
    E = drawn(4, 3, name="E")
    negative = tg.tensor([-1.0, -2.0], dtype="float64", requires_grad=True, name="x")
    tiny = tg.tensor([1e-30], requires_grad=True, name="x")
    none = drawn(0, 3, name="x")
    picked = tg.tensor(np.array([1.0, 5.0, 2.0]), requires_grad=True, name="x")
    return {
        r"sigmoid in gru\[t=2\] is saturated: z is exactly 1": (*saturated(tg.sigmoid, 800.0), None),
        r"tanh in gru\[t=2\] is saturated: z is exactly -1": (*saturated(tg.tanh, -50.0), None),
        r"relu is switched off: its argument x is not above 0": (negative, tg.relu(negative).sum(), None),
        r"matmul multiplies U by h_0, which is exactly 0": (U, tg.tanh(h @ U + 1.0).sum(), None),
        r"mul multiplies x by the number, which is exactly 0": (x, (x * 0.0).sum(), None),
        r"max chose something else than x": (picked, picked.max(), 0),
        r"maximum chose something else": (x, tg.maximum(x, 100.0).sum(), None),
        r"where chose something else": (x, tg.where(x.numpy() > 9.0, x, 1.0).sum(), None),
        r"clip cuts x off, which lies outside of \[5": (x, tg.clip(x, 5.0, 6.0).sum(), None),
        r"index does not read this part of E": (E, (E[np.array([0, 2])] ** 2.0).sum(), (1, 2)),
        r"the contributions to x cancel: those of v2 = mul and v1 = mul add up": (x, (x * 2.0 + x * -2.0).sum(), None),
        r"mul makes a contribution to x that is below the least number": (tiny, (tiny * 1e-30 * 1e-30).sum(), None),
        r"floor does not change with x": (x, tg.floor(x).sum(), None),
        r"the gradient that comes in for v\d is 0": (x, tg.tanh(x), None),
        r"^x has no elements": (none, (none * 2.0).sum(), None),
        r"products to v1 that add up to 0": (
            x, (x.reshape((1, 3)) @ tg.tensor(np.array([[1.0, -1.0]] * 3))).sum() * 1.0, None),
    }  # fmt: skip


@pytest.mark.parametrize("pattern", zero_cases())
def test_why_a_gradient_is_zero(pattern):
    x, y, index = zero_cases()[pattern]
    grad = np.zeros(3) if "comes in" in pattern else None
    found = explain(x, y, index, grad=grad)
    assert not np.any(found.total) and found.reasons, found.text()
    assert any(re.search(pattern, reason) for reason in found.reasons), found.reasons


def test_zero_is_followed_to_where_it_began_and_an_element_by_itself():
    x = tg.tensor(np.array([-1.0, 2.0, 800.0]), requires_grad=True, name="x")
    with tg.debug():
        y = (tg.exp(tg.relu(x * 3.0)[:2]) * 2.0).sum()
    assert re.fullmatch(
        r"v2 = relu at test_explain\.py:\d+ is switched off: its argument v1 is not above 0", *explain(x, y, 0).reasons
    )
    assert not explain(x, y, 1).reasons and explain(x, y, 1).total != 0
    assert explain(x, y, 2).reasons[0].startswith("v3 = index at")


def test_a_hook_that_makes_a_gradient_zero_is_no_cancellation():
    x = number(3.0, "x")
    t = x * 2.0
    t.register_hook(lambda g: g * 0.0)
    y = t * t
    assert explain(x, y).reasons == ("a hook on v1 has replaced the gradient, which was 12, by 0",)
    at = tg.tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True, name="x")
    at.register_hook(lambda g: g * np.array([0.0, 1.0, 0.0]))
    y = (tg.relu(at - 1.0) * np.array([1.0, 2.0, 5.0])).sum()
    (said,) = explain(at, y, index=2).reasons
    assert said == "a hook on x has replaced the gradient, which was 5, by 0"
    (said,) = explain(at, y, index=0).reasons  # here it was 0 before the hook saw it
    assert "switched off" in said
    kept = tg.tanh(number(0.0, "x"))
    kept.retain_grad()
    assert "is 0" in explain(kept, kept, grad=0.0).reasons[0]
    assert "is 0" in explain(at, at, index=1, grad=[1.0, 0.0, 1.0]).reasons[0]
    both = number(2.0, "both")
    both.register_hook(lambda g: g * 0.0)
    assert "replaced the gradient, which was 1," in explain(both, both).reasons[0]


def test_a_zero_factor_is_the_reason_whatever_stands_beside_it():
    x = tg.tensor(np.array([0.0, 1.0]), requires_grad=True, name="x")
    for beside in (np.nan, np.inf):
        d = tg.tensor(np.array([beside, 0.0]), name="d")
        with np.errstate(all="ignore"):
            (said,) = explain(x, (x * d).sum(), index=1).reasons
        assert said == "v1 = mul multiplies x by d, which is exactly 0"
    far = tg.tensor(np.array([800.0, 0.0, 800.0]), requires_grad=True, name="far")
    with np.errstate(all="ignore"):
        y = tg.exp(far).sum()
        assert explain(far, y, index=1).lines[0].terms == ((1.0, 1.0),)
        assert explain(far, y, index=0).lines[0].terms == ((1.0, np.inf),)


@pytest.mark.parametrize("name", ["a", "the", "no", "nothing", "lines"])
def test_a_name_in_front_of_a_sentence_keeps_its_letters(name):
    x = tg.tensor(np.array([1.0, np.nan]), requires_grad=True, name=name)
    assert f"\n{name} itself holds nan at element (1,)." in explain(x, (x * x).sum()).text(120)


def test_what_is_exactly_saturated_is_a_reason_and_no_note():
    x, y = saturated(tg.sigmoid, 800.0)
    found = explain(x, y)
    assert "is saturated" in found.reasons[0] and not any("nearly" in note for note in found.notes)
    x, y = saturated(tg.sigmoid, 20.0)
    assert any("nearly saturated" in note for note in explain(x, y).notes)


def test_reasons_that_say_something_come_before_those_that_read_elsewhere():
    x = tg.tensor(np.array([-1.0, 1.0, 2.0, 3.0, 4.0, 5.0]), requires_grad=True, name="x")
    others = [(x[i : i + 1] * 2.0).sum() for i in range(1, 6)]
    y = sum(others, tg.relu(x[:1]).sum())
    found = explain(x, y, index=0)
    assert "switched off" in found.reasons[0] and len(found.reasons) == reasons.REASONS
    assert all("does not read this part" in reason for reason in found.reasons[1:])


def test_gates_that_are_nearly_saturated_are_named_with_their_step():
    cell, x, _ = gru(fused=False)
    b = cell.b.numpy().copy()
    b[:5] = 30.0
    cell.b.assign_(b)
    layer = nn.GRU(3, 5, dtype=np.float64, fused=False, rng=np.random.default_rng(2))
    layer.cells[0].b.assign_(b)
    found = explain(layer.cells[0].U, layer(x)[0].sum())
    said = [note for note in found.notes if "nearly saturated" in note]
    assert said[0].startswith("z[0] = sigmoid in gru.cells.0[t=0] is nearly saturated: its slope is at most")
    assert len(said) == 3


@pytest.mark.parametrize(("f", "slope"), [(tg.sigmoid, lambda y: y * (1 - y)), (tg.tanh, lambda y: 1 - y * y)])
def test_gates_of_which_half_are_nearly_saturated_are_counted(f, slope):
    for far in range(7):
        x = tg.tensor(
            np.array([0.5] * (6 - far) + [8.0, -9.0, 800.0, 7.5, -30.0, 20.0][:far]), requires_grad=True, name="x"
        )
        z = f(x)
        z.name = "z"
        count = int((slope(z.numpy()) < 0.01).sum())
        assert count == far
        said = [note for note in explain(x, z.sum()).notes if "nearly" in note]
        where = f"z = {f.primitive.name}"
        if far == 6:
            assert said[0].startswith(f"{where} is nearly saturated: its slope is at most")
        else:
            half = f"{far} of the 6 elements of {where} are nearly saturated: their slope is below 0.01."
            assert said == ([half] if far >= 3 else [])


def test_a_gradient_that_shrinks_from_step_to_step_is_told_with_its_rate():
    """Against the norms that `pullback` gives for the states, by hand."""
    rng = np.random.default_rng(0)
    W, U = tg.tensor(rng.standard_normal((3, 8)), requires_grad=True, name="W"), rng.standard_normal((8, 8)) * 0.2
    inputs = rng.standard_normal((40, 4, 3))
    states = [tg.sigmoid(tg.tensor(inputs[0]) @ W)]
    for x in inputs[1:]:
        states.append(tg.tanh(states[-1] @ tg.tensor(U) + x.sum(axis=1, keepdims=True) * 0.1))
    loss = (states[-1] * states[-1]).sum()
    early, late = (np.linalg.norm(d.numpy()) for d in tg.pullback(loss, [states[1], states[-1]]))
    found = [note for note in explain(W, loss).notes if "shrinks" in note]
    assert found == [
        f"The gradient shrinks on its way back through 39 tanh in a row, from a norm of {late:.3g} to {early:.3g}: "
        f"by about ×{(early / late) ** (1 / 38):.2g} at each."
    ]
    assert not any("shrinks" in note for note in explain(W, (states[3] ** 2.0).sum()).notes)


FORGETTING = {"RNN": "tanh called h", "GRU": "add called h", "LSTM": "add called c"}


@pytest.mark.parametrize("make", FORGETTING)
@pytest.mark.parametrize("fused", [True, False])
def test_what_shrinks_in_a_layer_is_its_state(make, fused):
    layer = getattr(nn, make)(3, 8, fused=fused, rng=np.random.default_rng(1))
    x = tg.tensor(np.random.default_rng(2).standard_normal((60, 1, 3)), dtype="float32")
    h_0 = tg.tensor(np.full((1, 1, 8), 0.5), dtype="float32", requires_grad=True, name="h_0")
    _, last = layer(x, h_0)
    last = last[0] if isinstance(last, tuple) else last
    (said,) = [note for note in explain(h_0, last.sum()).notes if "shrinks" in note]
    assert f"through 60 {FORGETTING[make]} in a row" in said
    assert not any("shrinks" in note for note in explain(layer.cells[0].W, last.sum()).notes)  # read at every step


# -- not finite ----------------------------------------------------------------------------------------------------


def not_finite_cases():
    def at(*values, name="x"):
        return tg.tensor(np.array(values), requires_grad=True, name=name)

    x, z, big, pair = at(1.0, 0.0, 4.0), at(0.0, 1.0), at(800.0, 1.0), at(0.0, 0.0)
    nan = at(1.0, np.nan)
    return {
        r"sqrt is the first to give x .* nan at element \(1,\): upstream 0 times slope inf, and 0 · inf has no value":
            (x, lambda: (tg.sqrt(x) * np.array([1.0, 0.0, 1.0])).sum()),
        r"log is the first .* inf at element \(0,\): upstream 1 times slope inf; log has no finite slope": (
            z, lambda: tg.log(z).sum()),
        r"div is the first .* division by 0": (pair, lambda: (np.ones(2) / pair).sum()),
        r"the value was not finite before: v1 = exp made inf at element \(0,\) from x = 800": (
            big, lambda: tg.exp(big).sum()),
        r"x itself holds nan at element \(1,\)": (nan, lambda: (nan * nan).sum()),
        r"the gradient that comes in for v\d is not finite": (x, lambda: tg.tanh(x)),
    }  # fmt: skip


@pytest.mark.parametrize("pattern", not_finite_cases())
def test_why_a_gradient_is_not_finite(pattern):
    x, run = not_finite_cases()[pattern]
    with np.errstate(all="ignore"):
        y = run()
        found = explain(x, y, grad=np.full(3, np.nan) if "comes in" in pattern else None)
    assert not np.isfinite(found.total).all()
    assert any(re.search(pattern, reason) for reason in found.reasons), found.reasons
    assert 'class="total bad"' in found.html


def test_of_one_element_only_what_touches_it_is_blamed():
    def at(*values, name="x"):
        return tg.tensor(np.array(values), requires_grad=True, name=name)

    with np.errstate(all="ignore"):
        x = at(0.0, 0.0)
        y = (tg.sqrt(x[0:1]) * 0.0 + tg.log(x[1:2]) * 0.0).sum()
        (said,) = explain(x, y, index=0).reasons
        assert "sqrt is the first" in said and "0 · inf has no value" in said
        said = explain(x, y, index=1).reasons
        assert "log is the first" in said[0] and not any("sqrt" in each for each in said)
        x = at(4.0, 0.0, -1.0)
        y = (tg.sqrt(x) * tg.log(x)).sum()
        said = explain(x, y, index=2).reasons
        assert "at element (2,)" in said[0] and "made nan at element (2,)" in said[1]
        said = explain(x, tg.sqrt(x).sum(), index=2).reasons[0]
        assert "nan at element (2,): upstream 1 times slope nan" in said and "infinite at 0" not in said
        said = explain(x, y, index=1).reasons[0]
        assert "(1,)" in said and "v2 is not finite itself" in said and not explain(x, y, index=0).reasons
        x, c = at(1.0, 2.0, 3.0), at(1.0, np.inf, np.nan, name="c")
        y = (x * tg.exp(c * 2.0)).sum()
        assert "c itself holds inf at element (1,)" in explain(x, y, index=1).reasons
        assert "c itself holds nan at element (2,)" in explain(x, y, index=2).reasons
        x = at(0.0, 5.0)  # the way back is inf times 0, and nothing moves on the way forward
        assert "log is the first" in explain(x, tg.log(x * 0.0).sum(), index=0).reasons[0]
        w = at(1.0, 2.0, 3.0)  # from an element through a whole: all of it has a part
        y = (w.sum() * tg.log(w - 3.0).sum()).reshape((1,)).sum()
        assert any("made nan" in each for each in explain(w, y, index=2).reasons)


def test_sums_beyond_the_largest_number_are_told_without_a_warning():
    """Warnings are errors here: whoever explains an overflow must not overflow himself."""
    x = tg.tensor([1.0, 2.0], dtype="float32", requires_grad=True, name="x")
    parts = []
    with np.errstate(all="ignore"):
        for t in range(3):
            with tg.scope(step=t):
                parts.append((x * np.float32(3e38)).sum())
        y = parts[0] + parts[1] + parts[2]
    for index in (None, 0):
        found = explain(x, y, index=index)
        assert np.isinf(found.total).all() and "beyond the largest number of float32" in found.reasons[0]
        assert "inf" in found.text(80, lines=2) and "inf" in found.html and list(found.by_step()) == [2, 1, 0]


def test_the_first_of_two_is_blamed_and_its_line_named():
    x = tg.tensor(np.array([4.0, 0.0]), requires_grad=True, name="x")
    with np.errstate(all="ignore"):
        y = (tg.sqrt(x) * 0.0).sum() + tg.sqrt(tg.sqrt(x * 1.0)).sum()
        found = explain(x, y)
    assert found.reasons[0].startswith("v6 = sqrt is the first to give v5 a contribution") and len(found.reasons) == 1


# -- shapes, names, scripts ----------------------------------------------------------------------------------------


def test_an_index_is_one_element():
    x = drawn(3, 4, name="x")
    y = (x * 2.0).sum()
    with pytest.raises(OptionError, match="takes 2 whole numbers"):
        explain(x, y, index=1)
    with pytest.raises(IndexOutOfRange, match="axis 1"):
        explain(x, y, index=(0, 4))
    with pytest.raises(GraphError, match="is a Tensor"):
        explain(x, 3.0)


@pytest.mark.parametrize(
    "name", ["<script>x</script>", 'a "b" & c', "back\\slash", "two\nlines", "重み🙂", "\u202eabc", "a|b$_*`"]
)
def test_any_name_is_literal_in_every_script(name):
    x = tg.tensor([1.0, 2.0, 3.0, 4.0, 5.0], requires_grad=True, name=name)
    with tg.scope(name):
        y = (x * x).sum()
    y.name = name
    found, page = explain(x, y), Reader()
    page.feed(found.html)
    assert printable(name) in page.words and not page.tags & {"script", "img", "a", "iframe"}
    assert printable(name) in re.sub(r"\s+", " ", found.text(300))
    assert "default-src 'none'" in found.html and "unsafe" not in found.html
    assert found.markdown.count("$") % 2 == 0 or "\\$" in found.markdown
    assert max(map(cell_len, found.text(40).splitlines())) <= 40
    none = explain(tg.tensor(1.0, name=name), y)
    assert printable(name) in none.text(300)


def test_saved_by_suffix(tmp_path):
    cell, _, loss = gru()
    found = explain(cell.U, loss)
    assert found.save(tmp_path / "e.txt").read_text().startswith("∂loss/∂cells.0.U")
    assert found.save(tmp_path / "e.html").read_text().startswith("<!doctype html>")
    assert "| t |" in found.save(tmp_path / "e.md").read_text() or "Norms" not in found.markdown
    with pytest.raises(OptionError, match=r"\.txt, \.md, \.html"):
        found.save(tmp_path / "e.tex")


def test_on_every_backend(backend):
    layer = nn.GRU(3, 5, fused=False)
    loss = (layer(tg.randn(3, 2, 3))[0] ** 2.0).sum()
    found = explain(layer.cells[0].U, loss, index=(1, 2))
    assert len(found.lines) == 3 and found.lines[-1].step == 0 and "So far" not in found.text()
    dead = tg.tensor([-1.0, -2.0], requires_grad=True, name="x")
    assert "switched off" in explain(dead, tg.relu(dead).sum()).reasons[0]


def test_a_long_tape_is_explained_in_one_pass():
    x = y = number(1.0, "x")
    for _ in range(3000):
        y = y * 1.0
    assert explain(x, y).total == 1.0
    x = y = tg.tensor(np.array([-1.0]), requires_grad=True, name="x")
    for _ in range(1500):
        y = y * 1.0
    y = tg.relu(y)
    assert explain(x, y.sum()).reasons == ("v1501 = relu is switched off: its argument v1500 is not above 0",)


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (module._Builder, "_lines", "so_far + whole", "whole",
         test_a_value_used_three_times_has_its_factors_and_a_running_total),
        (module, "_embedded", "added = fitted(", "added = use.x._array * 0 + fitted(",
         test_what_only_picks_is_looked_through_but_not_a_hook),
        (module._Builder, "_unit", "= 1", "= 2", test_one_element_of_what_was_broadcast_and_multiplied),
        (module._Builder, "_is_view", "not node.hooks", "True", test_what_only_picks_is_looked_through_but_not_a_hook),
        (module, "_checked", "int(i) % size", "0", test_one_element_of_what_was_broadcast_and_multiplied),
        (reasons, "zero", "waiting.append((use.consumer, onward))", "pass",
         test_zero_is_followed_to_where_it_began_and_an_element_by_itself),
        (ledger, "changed_since", "x.modified > node.age", "x.modified",
         test_numbers_that_the_tape_has_not_read_are_marked),
        (reasons, "reached", "chosen is None", "True", test_of_one_element_only_what_touches_it_is_blamed),
        (reasons, "_sources", "return mask", "return np.ones(t.shape, bool)",
         test_of_one_element_only_what_touches_it_is_blamed),
        (reasons, "_made", "& meant", "& True", test_of_one_element_only_what_touches_it_is_blamed),
        (reasons, "faint", "2 * count >= node.size", "2 * count > node.size",
         partial(test_gates_of_which_half_are_nearly_saturated_are_counted, tg.tanh, lambda y: 1 - y * y)),
        (reasons, "fading", "max(uses", "min(uses", partial(test_what_shrinks_in_a_layer_is_its_state, "GRU", False)),
        (reasons, "fading", "chain[0], chain[-1]", "chain[1], chain[-1]",
         test_a_gradient_that_shrinks_from_step_to_step_is_told_with_its_rate),
        (reasons, "_replaced", "not np.any(parts) or ", "", test_a_hook_that_makes_a_gradient_zero_is_no_cancellation),
        (reasons, "moves", "way == 0", "False", test_a_zero_factor_is_the_reason_whatever_stands_beside_it),
        (reasons, "zero", "[*found, *elsewhere]", "[*elsewhere, *found]",
         test_reasons_that_say_something_come_before_those_that_read_elsewhere),
        (reasons, "_first_backward", "-use.consumer.age", "use.consumer.age",
         test_the_first_of_two_is_blamed_and_its_line_named),
        (reasons, "_dead_end", "t.age > node.age", "False", test_a_parameter_that_was_a_constant_when_it_was_read),
        (reasons, "slopes", "host(rule(ones, node))", "host(ones)",
         test_a_value_used_three_times_has_its_factors_and_a_running_total),
    ],
)  # fmt: skip
def test_an_explanation_that_lies_is_caught(owner, function, old, new, check, monkeypatch):
    check()
    mutated(monkeypatch, owner, function, old, new)
    for name in ("slopes", "zero", "broken", "missing", "faint", "fading", "changed_since"):
        monkeypatch.setattr(module, name, getattr(ledger if name == "changed_since" else reasons, name))
    with pytest.raises((AssertionError, ValueError, TypeError, IndexError)):
        check()
