"""Fused layers against the same cells taken step by step: any sizes, options, views and gradients; what they keep."""

from __future__ import annotations

import threading
import tracemalloc
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import KINDS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.backend import NAMESPACE_OF
from tinygrad_rnn.core import autodiff
from tinygrad_rnn.errors import BackendError, GraphError, ModifiedError, NumericalError, OptionError, OutOfMemory
from tinygrad_rnn.nn import cells as cells_module
from tinygrad_rnn.nn import folding, fused, gates, layouts, recurrent, walk

VIEWS = {
    "plain": lambda a: a,
    "read-only": lambda a: a,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every second column": lambda a: np.repeat(a, 2, axis=-1)[..., 1::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "batch in front": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
}
BOTH = {"fused": True, "by steps": False}
T, N, I, H = 5, 3, 4, 2  # noqa: E741
LENGTHS = [5, 0, 2]


# -- any case ------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """What goes into a layer, and what is asked of it."""

    kind: str
    sizes: tuple[int, int, int, int]
    options: dict[str, Any]
    checkpoint: int | None
    lengths: list[int] | None
    given: set[str]  # which initial states
    views: dict[str, str]  # how x and the states lie in memory
    learned: set[str]
    loss: set[str]  # whether "outputs", "finals" or both have a part in it
    seed: int


@st.composite
def cases(draw: Any) -> Case:
    kind = draw(st.sampled_from(sorted(KINDS)))
    T, N, I, H = (draw(st.integers(1, most)) for most in (7, 4, 4, 5))  # noqa: E741
    layers = draw(st.integers(1, 3))
    options = {
        "num_layers": layers, "bidirectional": draw(st.booleans()), "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()), "dropout": draw(st.sampled_from([0.0, 0.4])) if layers > 1 else 0.0,
        "dtype": draw(st.sampled_from(["float32", "float64"])),
    }  # fmt: skip
    states = {"h_0", "c_0"} if kind == "lstm" else {"h_0"}
    return Case(
        kind, (T, N, I, H), options,
        checkpoint=draw(st.none() | st.integers(1, T)),
        lengths=draw(st.none() | st.lists(st.integers(0, T), min_size=N, max_size=N)),
        given=draw(st.sets(st.sampled_from(sorted(states)))),
        views={name: draw(st.sampled_from(sorted(VIEWS))) for name in ("x", "h_0", "c_0")},
        learned=draw(st.sets(st.sampled_from(["x", "h_0", "c_0", "W", "U", "b", "c"]))),
        loss=draw(st.sampled_from([{"outputs"}, {"finals"}, {"outputs", "finals"}])),
        seed=draw(st.integers(0, 10**6)),
    )  # fmt: skip


def flat(results):
    output, final = results
    return [output, *(final if isinstance(final, tuple) else (final,))]


def near(one, other, dtype):
    """The same numbers but for the order in which they were added."""
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * max(1, np.abs(other).max(initial=0)))


@settings(max_examples=250, deadline=None)
@given(cases())
def test_a_fused_layer_is_the_same_cells_step_by_step(case):
    tg.seed(case.seed)
    rng = np.random.default_rng(case.seed)
    (T, N, I, H), dtype = case.sizes, case.options["dtype"]  # noqa: E741
    make, own = KINDS[case.kind]
    layer = make(I, H, checkpoint=case.checkpoint, **case.options, **own)
    twin = make(I, H, fused=False, **case.options, **own)
    twin.load_state_dict(layer.state_dict())
    count = len(layer.cells)
    arrays = {"x": (N, T, I) if case.options["batch_first"] else (T, N, I)}
    arrays |= {name: (count, N, H) for name in sorted(case.given)}
    inputs = {}
    for name, shape in arrays.items():
        array = VIEWS[case.views[name]](rng.uniform(-1, 1, shape).astype(dtype))
        array.flags.writeable = case.views[name] != "read-only"
        inputs[name] = tg.Tensor(array, requires_grad=name in case.learned, name=name)
    for module in (layer, twin):
        for name, parameter in module.named_parameters():
            parameter.requires_grad = name.rpartition(".")[2] in case.learned
    before = [t.numpy().copy() for t in (*inputs.values(), *layer.state_dict().values())]
    weights: list[np.ndarray] = []
    values, gradients = {}, {}
    for module in (layer, twin):
        tg.seed(case.seed)
        results = flat(module(**inputs, lengths=case.lengths))
        weights = weights or [rng.uniform(-1, 1, y.shape).astype(dtype) for y in results]
        values[module] = [y.numpy().copy() for y in results]
        chosen = [*(["outputs"] if "outputs" in case.loss else []), *["finals"] * ("finals" in case.loss)]
        parts = [(y * tg.tensor(w)).sum() for y, w in zip(results, weights)]
        loss = sum(parts[1:] if "finals" in chosen else [], parts[0] * ("outputs" in chosen))
        wrt = [*inputs.values(), *dict(module.named_parameters()).values()]
        wrt = [t for t in wrt if t.requires_grad]
        assert any(y.requires_grad for y in results) == bool(wrt)
        if wrt:
            gradients[module] = [d.numpy() for d in tg.pullback(loss, wrt)]
            if module is layer:
                again = [d.numpy() for d in tg.pullback(loss, wrt)]
                recorded = [d.numpy() for d in tg.pullback(loss, wrt, create_graph=True)]
        else:
            assert not any(node.op for node in tg.tape(*results))
    for one, other in zip(values[layer], values[twin]):
        near(one, other, dtype)
    after = [t.numpy() for t in (*inputs.values(), *layer.state_dict().values())]
    for one, other in zip(before, after):
        np.testing.assert_array_equal(one, other)
    if gradients:
        for fast, by_steps, by_reference, repeated in zip(gradients[layer], gradients[twin], recorded, again):
            near(fast, by_steps, dtype)
            near(fast, by_reference, dtype)
            np.testing.assert_array_equal(fast, repeated)  # what was kept for the way back is as it was


# -- fixed cases ---------------------------------------------------------------------------------------------


def layer_of(kind, *more, **options):
    make, own = KINDS[kind]
    return make(I, H, *more, **({"dtype": "float64", "rng": np.random.default_rng(3)} | own | options))


def given_x(*shape, **options):
    return tg.tensor(np.random.default_rng(1).uniform(-1, 1, shape or (T, N, I)), requires_grad=True, name="x")


def fused_nodes(*results):
    return [node for node in tg.tape(*results) if node.op and node.op.vjp]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_to_second_order_against_numbers(kind, reverse):
    """The numbers of the second order come from the fast path, so that it is held to the reference here as well."""
    cell = layer_of(kind).cells[0]
    valid = folding.Validity([3, 1], 3, 2, "numpy")
    rng = np.random.default_rng(4)
    names = [name for name, _ in cell.named_parameters()]

    def through(x, *rest):
        twin = object.__new__(type(cell))
        vars(twin).update({**vars(cell), **dict(zip(names, rest[len(cell.states) :]))})
        output, states = fused.fold(twin, x, rest[: len(cell.states)], valid, reverse, checkpoint=2)
        return output, *states

    arguments = [rng.uniform(-1, 1, (3, 2, I)), *[rng.uniform(-1, 1, (2, H)) for _ in cell.states]]
    tg.gradcheck(through, *arguments, *[p.numpy() for p in cell.parameters()], order=2, tolerance=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_computed_for_what_needs_no_gradient(kind, monkeypatch):
    """Counted where it would be: the products for x, and the room for the gradients of each kind of weights."""
    made: list[Any] = []
    summed, gathered = layouts.Blocks.summed, layouts.Blocks.gathered
    monkeypatch.setattr(layouts.Blocks, "summed", lambda *a: made.append("x") or summed(*a))
    named = {I: "W", H: "U"}  # by the number of rows
    monkeypatch.setattr(
        layouts.Blocks, "gathered", lambda self, xp, rows, *a: made.append(named[rows]) or gathered(self, xp, rows, *a)
    )
    summed_up = layouts.Blocks.summed_up
    monkeypatch.setattr(layouts.Blocks, "summed_up", lambda *a: made.append("b or c") or summed_up(*a))
    layer = layer_of(kind)
    parameters = dict(layer.cells[0].named_parameters())
    for learned in product([False, True], repeat=1 + len(parameters)):
        wanted = dict(zip(["x", *parameters], learned))
        if not any(learned):
            continue
        x = tg.tensor(given_x().numpy(), requires_grad=wanted["x"])
        for name, parameter in parameters.items():
            parameter.grad, parameter.requires_grad = None, wanted[name]
        made.clear()
        layer(x)[0].sum().backward()
        expected = [name if name in "xWU" else "b or c" for name, yes in wanted.items() if yes]
        assert sorted(made) == sorted(expected)
        for name, tensor in {"x": x, **parameters}.items():
            assert (tensor.grad is not None) == wanted[name], name


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_gives_none_where_nothing_is_wanted(kind):
    layer = layer_of(kind)
    (node,) = fused_nodes(layer(given_x())[0])
    arrays = [x._array if isinstance(x, tg.Tensor) else x for x in node.inputs]
    xp, g = NAMESPACE_OF[np.ndarray], np.ones(node.shape)
    useful = [i for i, x in enumerate(arrays[:-1]) if isinstance(x, np.ndarray)]
    every = node.op.vjp(xp, g, node._array, node.saved, *arrays,
                        wanted=tuple(i in useful for i in range(len(arrays))), **node.options)  # fmt: skip
    assert [d is not None for d in every] == [i in useful for i in range(len(arrays))]
    for place in useful:
        wanted = tuple(i == place for i in range(len(arrays)))
        found = node.op.vjp(xp, g, node._array, node.saved, *arrays, wanted=wanted, **node.options)
        assert [d is not None for d in found] == list(wanted)
        np.testing.assert_array_equal(found[place], every[place])


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_are_arrays_that_nobody_else_keeps(kind, checkpoint):
    """The engine adds into them."""
    (node,) = fused_nodes(layer_of(kind, checkpoint=checkpoint)(given_x())[0])
    arrays = [x._array if isinstance(x, tg.Tensor) else x for x in node.inputs]
    wanted = tuple(isinstance(x, np.ndarray) for x in arrays)
    kept = [a for s in node.saved for a in (*s.start, s.gates, s.cells) if a is not None]
    for part in (False, True):
        g = np.ones(node.shape)
        given_g = autodiff.Part(g[1 : T + 1], (slice(1, T + 1),), True, node.shape) if part else g
        xp = NAMESPACE_OF[np.ndarray]
        found = node.op.vjp(xp, given_g, node._array, node.saved, *arrays, wanted=wanted, **node.options)
        found = [d for d in found if d is not None]
        others = [g, node._array, *kept, *[x for x in arrays if isinstance(x, np.ndarray)]]
        for i, one in enumerate(found):
            assert one.flags.writeable
            assert not any(np.shares_memory(one, other) for other in [*others, *found[i + 1 :]])


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_case_makes_no_gradient_of_the_whole_history(kind, directions, monkeypatch):
    def refused(part):
        raise AssertionError("zeros for the whole history")

    layer = layer_of(kind, 2, bidirectional=directions == 2)
    x = given_x()
    loss = (layer(x)[0] ** 2).sum()
    monkeypatch.setattr(autodiff.Part, "whole", refused)
    loss.backward()
    assert x.grad is not None


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_backward_adds_the_same_once_more(kind, checkpoint):
    layer = layer_of(kind, 2, bidirectional=True, checkpoint=checkpoint)
    x = given_x()
    output, final = layer(x, lengths=LENGTHS)
    loss = (output * output).sum() + sum(s.sum() for s in flat((output, final))[1:])
    loss.backward()
    first = [t.grad.numpy().copy() for t in (x, *layer.parameters())]
    loss.backward()
    for tensor, once in zip((x, *layer.parameters()), first):
        np.testing.assert_array_equal(tensor.grad.numpy(), 2 * once)


def kept(segments):
    """The bytes of the arrays that are kept for the way back."""
    arrays = [array for s in segments for array in (*s.start, s.gates, s.cells) if array is not None]
    return sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpoint", [1, 2, 5, 7, 100])
def test_a_checkpoint_keeps_no_gates_and_gives_the_same(kind, checkpoint):
    x, results, saved = tg.tensor(np.random.default_rng(1).uniform(-1, 1, (40, N, I)), requires_grad=True), [], []
    for length in (None, checkpoint):
        layer = layer_of(kind, bidirectional=True, checkpoint=length)
        output, final = layer(x)
        loss = (output * output).sum() + sum((s * s).sum() for s in flat((output, final))[1:])
        results.append([output.numpy(), *[d.numpy() for d in tg.pullback(loss, [x, *layer.parameters()])]])
        saved.append([node.saved for node in fused_nodes(output)])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    for whole, segments in zip(*saved):
        assert len(whole) == 1 and len(segments) == -(-40 // checkpoint)
        assert all((s.gates is None or not s.gates.size) and s.cells is None for s in segments)
        assert checkpoint == 1 or "rnn" in kind or kept(segments) <= 0.5 * kept(whole)  # an RNN keeps nothing anyway


def test_what_is_kept_is_what_the_documentation_says():
    """Numbers for each step and sequence beside the history, in units of H."""
    for kind, blocks in (("rnn tanh", 0), ("minimal", 2), ("gru before new", 3), ("gru after old", 4), ("lstm", 5)):
        (node,) = fused_nodes(layer_of(kind)(given_x(200, N, I))[0])
        (segment,) = node.saved
        assert kept(node.saved) / (200 * N * H * 8) == pytest.approx(blocks, rel=0.02, abs=0.02)
        assert node.shape == (201 + (kind == "lstm"), N, H) and segment.gates.dtype == np.float64


def test_freeing_the_graph_lets_go_of_the_gates():
    layer = layer_of("lstm", 2)
    x = given_x()
    output, (h_n, _) = layer(x)
    loss = output.sum() + h_n.sum()
    nodes = fused_nodes(loss)
    assert len(nodes) == 2 and all(node.saved for node in nodes)
    loss.backward(retain_graph=False)
    assert all(node.saved is None and node.inputs is None for node in nodes)
    for again in (loss.backward, output.sum().backward, lambda: tg.pullback(h_n.sum(), [x])):
        with pytest.raises(GraphError, match="freed"):
            again()


@pytest.mark.parametrize("name", ["x", "W", "U", "b"])
@pytest.mark.parametrize("recorded", [False, True])
def test_what_was_changed_after_the_layer_read_it_is_noticed(name, recorded):
    layer = layer_of("gru before new")
    x = given_x()
    y = layer(x)[0].sum()
    changed = x if name == "x" else getattr(layer.cells[0], name)
    changed.assign_(0.5)
    with pytest.raises(ModifiedError, match=r"gru_layer used .*(x|cells\.0\.\w) \(.*changed afterwards"):
        tg.pullback(y, [x], create_graph=recorded)


def test_without_gradients_nothing_is_kept():
    layer = layer_of("gru before new")
    with tg.no_grad():
        output, h_n = layer(given_x())
    assert not output.requires_grad and not fused_nodes(output, h_n)
    for parameter in layer.parameters():
        parameter.requires_grad = False
    assert not layer(tg.tensor(given_x().numpy()))[0].requires_grad


def test_without_gradients_no_gates_are_in_memory_but_of_a_few_steps():
    x, layer = tg.randn(4096, 8, I), nn.LSTM(I, 64)
    peaks = []
    for switch in (tg.no_grad, tg.enable_grad):
        with switch():
            tracemalloc.start()
            layer(x)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    outputs = 4096 * 8 * 64 * 4
    assert peaks[0] < 2 * outputs and peaks[1] > 5 * outputs


def test_threads_that_run_one_layer_do_not_disturb_each_other():
    layer = layer_of("gru after old, c", 2, bidirectional=True)
    inputs = [tg.tensor(np.random.default_rng(k).uniform(-1, 1, (9, N, I)), requires_grad=True) for k in range(2)]

    def run(x):
        output, h_n = layer(x)
        loss = (output * output).sum() + h_n.sum()
        return [output.numpy(), *[d.numpy() for d in tg.pullback(loss, [x, *layer.parameters()])]]

    expected, start, found = [run(x) for x in inputs], threading.Barrier(2, timeout=10), {}

    def work(k):
        start.wait()
        found[k] = [run(inputs[k]) for _ in range(15)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        for results in found[k]:
            for one, other in zip(results, expected[k]):
                np.testing.assert_array_equal(one, other)


# -- who looks at gradients on the way -----------------------------------------------------------------------


def test_an_infinite_gradient_is_put_aside_and_given_back_as_it_is():
    """Zero times infinity is not a number: what is put aside of a batch with lengths is chosen, never multiplied."""
    layer = nn.RNN(I, H, rng=np.random.default_rng(0), dtype="float64")
    x = tg.tensor(np.random.default_rng(1).normal(size=(T, N, I)), requires_grad=True)
    _, final = layer(x, lengths=[2, T, 3])
    seed = np.ones(final.shape)
    seed[..., 0, 0] = np.inf
    with np.errstate(all="ignore"):
        final.backward(seed)
    grad = x.grad.numpy()
    assert np.isinf(grad[1, 0]).all()  # its last step
    assert np.isfinite(grad[:, 1:]).all() and not grad[2:, 0].any()


@pytest.mark.parametrize("is_fused", BOTH.values(), ids=BOTH)
def test_hooks_and_kept_gradients_of_the_results(is_fused):
    layer = layer_of("lstm", fused=is_fused)
    x, seen = given_x(), []
    output, (h_n, c_n) = layer(x)
    (plain,) = tg.pullback(output.sum() * 3.0 + h_n.sum() * 5.0 + c_n.sum(), [x])
    for result in (output, h_n, c_n):
        result.retain_grad()
    output.register_hook(lambda g: seen.append(g.shape))
    loss = output.sum() * 3.0 + h_n.sum() * 5.0 + c_n.sum()
    loss.backward()
    assert seen == [(T, N, H)]
    assert (output.grad.numpy() == 3).all() and (h_n.grad.numpy() == 5).all() and (c_n.grad.numpy() == 1).all()
    np.testing.assert_allclose(x.grad.numpy(), plain.numpy(), rtol=1e-13)
    x.grad = None
    for result in (output, h_n, c_n):
        result.register_hook(lambda g: g * 2.0)
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * plain.numpy(), rtol=1e-13)


def test_the_whole_history_is_a_node_that_can_be_asked_too():
    layer = layer_of("gru before new")
    x = given_x()
    output, _ = layer(x)
    (node,) = fused_nodes(output)
    loss = (output * 2.0).sum()
    (plain,) = tg.pullback(loss, [x])
    (g,) = tg.pullback(loss, [node])
    assert g.shape == (T + 1, N, H) and (g.numpy()[0] == 0).all() and (g.numpy()[1:] == 2).all()
    node.register_hook(lambda g: g * 3.0)
    np.testing.assert_allclose(tg.pullback(loss, [x])[0].numpy(), 3 * plain.numpy(), rtol=1e-13)


def test_any_use_of_the_history_brings_its_gradient_home():
    """Indices with arrays, the initial row, several parts of different dtypes: all that is no plain run of outputs."""
    cell = layer_of("lstm").cells[0]
    x, h, c = given_x(), *[tg.tensor(np.full((N, H), 0.25), requires_grad=True) for _ in range(2)]
    uses = {
        "rows": lambda y: y[1 : T + 1],
        "other rows": lambda y: y[0:T],
        "some rows": lambda y: y[[0, 2, 2, T + 1]],
        "a column": lambda y: y[:, 1],
        "two uses": lambda y: (y[1 : T + 1].sum() + (y[2:4] * 3.0).sum() + y[T + 1].sum()) * 1.0,
        "another dtype": lambda y: y[1 : T + 1].astype("float32"),
        "whole": lambda y: y * y,
    }
    history = fused.lstm_layer(x, h, c, cell.W, cell.U, cell.b, True, cell=cell)
    reference = history.op.reference(*history.inputs, **history.options)
    for name, use in uses.items():
        wrt = [x, h, c, cell.W, cell.U, cell.b]
        pairs = zip(*[tg.pullback(use(y).sum(), wrt) for y in (history, reference)])
        for one, other in pairs:
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6, atol=1e-12, err_msg=name)


# -- when it is not fused ------------------------------------------------------------------------------------


class Halved(nn.GRUCell):
    """A cell with an equation of its own."""

    def equation(self, x, state, weights):
        step = super().equation(x, state, weights)
        return step._replace(h=step.h * 0.5)


class HalvedGRU(nn.GRU):
    cell_type = Halved


def test_a_cell_with_another_equation_goes_step_by_step():
    class OnlyRenamed(nn.GRUCell):
        pass

    class RenamedGRU(nn.GRU):
        cell_type = OnlyRenamed

    x = given_x()
    own, renamed = HalvedGRU(I, H, dtype="float64"), RenamedGRU(I, H, dtype="float64")
    assert not fused.can(own.cells[0]) and fused.can(renamed.cells[0])
    output, h_n = own(x)
    assert not fused_nodes(output) and len(fused_nodes(renamed(x)[0])) == 1
    h = own.cells[0](x[0])
    np.testing.assert_allclose(output.numpy()[0], h.numpy(), rtol=1e-13)
    assert {node.scope.step for node in tg.tape(h_n) if node.name == "z"} == set(range(T))


def test_under_debug_the_first_bad_step_is_named():
    layer = layer_of("gru before new")
    values = given_x().numpy().copy()
    values[3, 1, 2] = np.inf
    with tg.debug(), np.errstate(invalid="ignore"), pytest.raises(NumericalError, match=r"gru\.cells\.0\[t=3\]"):
        layer(tg.tensor(values))
    with tg.debug():
        assert not fused_nodes(layer(given_x())[0])
    plain = nn.RNN(1, 1, activation="relu", bias=False, dtype="float64")
    plain.cells[0].W.assign_(1e200)
    loss = plain(tg.tensor([[[1e-200]]], dtype="float64", requires_grad=True, name="x"))[0].sum() * 1e200
    with tg.debug(), np.errstate(over="ignore"), pytest.raises(NumericalError, match="derivative of rnn_layer for x"):
        loss.backward()  # fused, and the way back is looked at all the same


@pytest.mark.parametrize(
    "change", ["advance", "weights", "the order of the gates", "how weights are taken apart", "an equation of its own"]
)
def test_whatever_of_a_cell_is_changed_counts(change):
    """A cell may do its step, or take its weights apart, in another way, for its class or for itself alone."""

    class Changed(nn.GRUCell):
        if change == "advance":

            def advance(self, x, state, weights):
                return tuple(s * 0.5 for s in super().advance(x, state, weights))

        if change == "weights":

            def weights(self):
                apart = super().weights()
                return apart._replace(b=apart.b._replace(z=apart.b.z - 3.0))

        if change == "the order of the gates":
            gates = ("r", "z", "n")
            Gates = namedtuple("Gates", gates)

        if change == "how weights are taken apart":

            def _apart(self, packed, name):
                return self.Gates(*[2.0 * part for part in super()._apart(packed, name)])

    class ChangedGRU(nn.GRU):
        cell_type = Changed

    layer, x = ChangedGRU(I, H, dtype="float64"), given_x()
    (cell,) = layer.cells
    if change == "an equation of its own":
        plain = cell.equation
        vars(cell)["equation"] = lambda *given: (lambda step: step._replace(h=step.h * 0.5))(plain(*given))
    h = tg.zeros((N, H), dtype="float64")
    (first,) = cell.advance(x[0], (h,), cell.weights())
    np.testing.assert_allclose(layer(x)[0].numpy()[0], first.numpy(), rtol=1e-13)


def test_an_activation_of_your_own(monkeypatch):
    monkeypatch.setitem(cells_module.ACTIVATIONS, "sigmoid", tg.sigmoid)
    layer, x = nn.RNN(I, H, activation="sigmoid", dtype="float64"), given_x()
    h = layer.cells[0](x[0])
    np.testing.assert_allclose(layer(x)[0].numpy()[0], h.numpy(), rtol=1e-13)


def test_cells_of_one_layer_may_differ():
    layer, x = layer_of("gru before new", bidirectional=True), given_x()
    layer.cells[1] = Halved(I, H, dtype="float64")
    output, _ = layer(x)
    assert len(fused_nodes(output)) == 1
    np.testing.assert_allclose(output.numpy()[-1, :, H:], layer.cells[1](x[-1]).numpy(), rtol=1e-13)


def test_options_of_a_cell_are_those_of_the_call():
    layer, x = layer_of("gru before new"), given_x()
    y = layer(x)[0].sum()
    (before,) = tg.pullback(y, [x])
    layer.cells[0].update = "old"
    np.testing.assert_array_equal(tg.pullback(y, [x])[0].numpy(), before.numpy())
    np.testing.assert_allclose(tg.pullback(y, [x], create_graph=True)[0].numpy(), before.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "is_fused",
    [True, False],
    ids=["fused", "by steps"],
)
@pytest.mark.parametrize("lengths", [None, []], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_sequences(kind, lengths, is_fused):
    layer = layer_of(kind, 2, bidirectional=True, fused=is_fused)
    x = tg.zeros((T, 0, I), dtype="float64", requires_grad=True)
    output, _ = layer(x, lengths=lengths)
    output.sum().backward()
    assert output.shape == (T, 0, 2 * H) and x.grad.shape == (T, 0, I)
    assert all((p.grad.numpy() == 0).all() for p in layer.parameters())


# -- memory --------------------------------------------------------------------------------------------------


def too_much(*_, **__):
    """What NumPy says when it is asked for more than there is."""
    return np.empty((2**50, 3))


def test_memory_that_runs_out_is_explained_forward(monkeypatch):
    layer = layer_of("gru before new")
    monkeypatch.setattr(layouts.Blocks, "empty", too_much)
    with pytest.raises(OutOfMemory) as caught:
        layer(given_x())
    message = str(caught.value)
    assert "GRU over T = 5 steps of N = 3 sequences (in gru)" in message
    assert "Unable to allocate 24.0 PiB" in message
    assert "checkpoint=k" in message and "smaller batch" in message
    assert isinstance(caught.value, MemoryError)


def test_memory_that_runs_out_is_explained_on_the_way_back(monkeypatch):
    for options in ({}, {"checkpoint": 2}):
        loss = layer_of("gru before new", **options)(given_x())[0].sum()
        with monkeypatch.context() as patch, pytest.raises(OutOfMemory) as caught:
            patch.setattr(layouts.Blocks, "empty", too_much)
            loss.backward()
        message = str(caught.value)
        assert "the way back through GRUCell over T = 5 steps of N = 3 sequences" in message
        assert "Unable to allocate 24.0 PiB" in message and "checkpoint=k" in message


def test_memory_that_runs_out_step_by_step_is_explained_too(monkeypatch):
    layer = layer_of("gru before new", fused=False)
    monkeypatch.setattr(folding, "stack", too_much)
    with pytest.raises(OutOfMemory, match=r"GRU over T = 5 steps of N = 3 sequences \(in gru\): Unable to allocate"):
        layer(given_x())


def test_memory_that_runs_out_between_the_cells_is_explained_too(monkeypatch):
    layer = layer_of("gru before new", bidirectional=True)
    monkeypatch.setattr(recurrent, "concatenate", too_much)
    with pytest.raises(OutOfMemory, match=r"GRU over T = 5 steps of N = 3 sequences \(in gru\): .*checkpoint=k"):
        layer(given_x())


def test_memory_that_runs_out_in_a_second_derivative_is_explained_too(monkeypatch):
    x = given_x()
    loss = layer_of("gru before new")(x)[0].sum()
    monkeypatch.setattr(fused, "stack", too_much)
    with pytest.raises(OutOfMemory, match="GRUCell operation by operation over T = 5 steps of N = 3 sequences: Unable"):
        tg.pullback(loss, [x], create_graph=True)


def test_the_advice_is_one_that_can_be_followed(monkeypatch):
    with pytest.raises(OptionError, match="checkpoint= is an option of the fused layers, and there is none of Halved"):
        HalvedGRU(I, H, checkpoint=2)
    monkeypatch.setattr(folding, "stack", too_much)
    with pytest.raises(OutOfMemory) as caught:
        HalvedGRU(I, H, dtype="float64")(given_x())
    assert "smaller batch" in str(caught.value) and "checkpoint" not in str(caught.value)


def peak_of_way_back(layer, x):
    """In bytes, beyond what the way forward keeps."""
    loss = (layer(x)[0] ** 2).sum()
    tracemalloc.start()
    try:
        tg.pullback(loss, [x, *layer.parameters()])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("home", ["numpy", "fakecupy"])
def test_a_checkpoint_bounds_the_memory_of_the_way_back(home):
    """What is needed beside the gradients of the outputs and of x, which are as long as they are."""
    with tg.use_backend(home):
        peaks = [
            peak_of_way_back(layer_of("lstm", dtype="float32", checkpoint=k), tg.randn(4096, 8, I, requires_grad=True))
            for k in (None, 64)
        ]
    outputs = 4096 * 8 * H * 4
    assert peaks[1] < 12 * outputs
    assert home == "numpy" or peaks[1] < peaks[0] / 2


def test_wide_inputs_are_not_multiplied_all_at_once():
    x = tg.randn(4096, 1, 512, requires_grad=True)
    assert peak_of_way_back(nn.LSTM(512, 1), x) < 2 * x.numpy().nbytes


# -- the same complaints -------------------------------------------------------------------------------------


def with_weight(layer, name, *shape):
    setattr(layer.cells[0], name, tg.zeros(shape, dtype="float64", requires_grad=True))
    return layer(given_x())


BAD: dict[str, Any] = {
    "two axes": lambda layer: layer(np.ones((T, I))),
    "no step": lambda layer: layer(np.ones((0, N, I))),
    "wide": lambda layer: layer(np.ones((T, N, I + 1))),
    "another dtype": lambda layer: layer(np.ones((T, N, I), np.float32)),
    "a state too wide": lambda layer: layer(given_x(), np.ones((1, N, H + 1))),
    "a state too many": lambda layer: layer(given_x(), np.ones((2, N, H))),
    "a length too long": lambda layer: layer(given_x(), lengths=[1, T + 1, 2]),
    "a length too few": lambda layer: layer(given_x(), lengths=[1, 2]),
    "U of another size": lambda layer: with_weight(layer, "U", H + 1, 3 * H),
    "W of another size": lambda layer: with_weight(layer, "W", I, 2 * H),
    "b of another size": lambda layer: with_weight(layer, "b", H),
    "an array of a GPU": lambda layer: layer(tg.zeros((T, N, I), dtype="float64", backend="fakecupy")),
    "a state of a GPU": lambda layer: layer(given_x(), tg.zeros((1, N, H), dtype="float64", backend="fakecupy")),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused_in_the_same_words(bad):
    messages = []
    for is_fused in BOTH.values():
        with pytest.raises(tg.errors.TinygradError) as caught:
            BAD[bad](layer_of("gru before new", fused=is_fused))
        messages.append((caught.type, str(caught.value)))
    if "GPU" in bad:  # named by the operation that they meet in, which is another one
        assert [error for error, _ in messages] == [BackendError] * 2
        assert all("on fakecupy" in text and "bring them together" in text for _, text in messages)
    else:
        assert messages[0] == messages[1]


def test_weights_of_a_shape_that_fits_all_the_same_are_taken():
    found = []
    for is_fused in BOTH.values():
        layer, x = layer_of("gru after new, c", fused=is_fused), given_x()
        (cell,) = layer.cells
        cell.b = tg.tensor(cell.b.numpy()[None], requires_grad=True)
        output, _ = layer(x)
        found.append([output.numpy(), *[d.numpy() for d in tg.pullback(output.sum(), [x, cell.b, cell.U])]])
    for one, other in zip(*found):
        near(one, other, "float64")


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_numbers(kind, gpu):
    found = {}
    for home, dtype in product(("numpy", gpu), ("float32", "float64")):
        with tg.use_backend(home):
            layer = layer_of(kind, 2, bidirectional=True, dtype=dtype, checkpoint=3)
            x = tg.tensor(given_x().numpy(), dtype=dtype, requires_grad=True)
            results = flat(layer(x, lengths=LENGTHS))
            gradients = tg.pullback(sum((y * y).sum() for y in results), [x, *layer.parameters()])
            found[home, dtype] = [t.numpy() for t in (*results, *gradients)]
    for dtype in ("float32", "float64"):
        for one, other in zip(found[gpu, dtype], found["numpy", dtype]):
            near(one, other, dtype)


# -- the checks above, checked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (walk.Sums, "__init__", "if self.wanted[name]", "if True",
            partial(test_nothing_is_computed_for_what_needs_no_gradient, "gru after new, c")),
        (walk.Sums, "__init__", 'if self.wanted["x"]', "if True",
            partial(test_nothing_is_computed_for_what_needs_no_gradient, "lstm")),
        (walk.Walk, "forward", "segment.gates = segment.cells = None", "pass",
            lambda patch: test_a_checkpoint_keeps_no_gates_and_gives_the_same("lstm", 5)),
        (walk.Walk, "runner", "G + gates.extra", "G + gates.extra + 1",
            lambda patch: test_what_is_kept_is_what_the_documentation_says()),
        (autodiff, "pull", "node.saved = None", "pass",
            lambda patch: test_freeing_the_graph_lets_go_of_the_gates()),
        (autodiff, "_takes_parts", "return ", "return False and ",
            partial(test_the_usual_case_makes_no_gradient_of_the_whole_history, "gru before new", 1)),
        (fused, "fold", "history[0:T]", "history[:T]",
            partial(test_the_usual_case_makes_no_gradient_of_the_whole_history, "gru before new", 2)),
        (walk.Walk, "backward", "max(each.last - each.first for each in segments)", "self.T",
            lambda patch: test_a_checkpoint_bounds_the_memory_of_the_way_back("fakecupy")),
        (walk.Walk, "backward", "max(H, self.x.shape[2])", "H",
            lambda patch: test_wide_inputs_are_not_multiplied_all_at_once()),
        (gates.GRUGates, "slopes", "xp.subtract(1, r, dr)", "xp.subtract(1, r, r); dr[...] = r",
            lambda patch: test_a_second_backward_adds_the_same_once_more("gru before new", None)),
    ],
)  # fmt: skip
def test_a_layer_that_breaks_a_promise_is_caught(owner, function, old, new, check, monkeypatch):
    with monkeypatch.context() as patch:
        check(patch)
    mutated(monkeypatch, owner, function, old, new)
    with monkeypatch.context() as patch, pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
        check(patch)
