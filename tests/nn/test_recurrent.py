"""Layers over time: shapes, lengths, directions, dropout, derivatives, cost, what they refuse."""

from __future__ import annotations

import copy
import tracemalloc
from dataclasses import dataclass

import fakecupy
import numpy as np
import pytest
from golden.loops import H, I, N, T, filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.core.modes import listening
from tinygrad_rnn.errors import BackendError, CellError, DtypeError, OptionError, ShapeError

KINDS = {
    "RNN": (nn.RNN, {}),
    "RNN relu": (nn.RNN, {"activation": "relu"}),
    "MinimalGRU": (nn.MinimalGRU, {}),
    "GRU": (nn.GRU, {}),
    "GRU after": (nn.GRU, {"reset": "after", "update": "old", "recurrent_bias": True}),
    "LSTM": (nn.LSTM, {}),
}
KINDS |= {f"{kind}, by steps": (make, settings | {"fused": False}) for kind, (make, settings) in KINDS.items()}
BY_STEPS = [kind for kind in KINDS if kind.endswith("by steps")]
both = pytest.mark.parametrize("fused", [True, False], ids=["fused", "by steps"])
LENGTHS = [2, 4, 1]


def layer_of(kind, *more, **options):
    make, settings = KINDS[kind]
    return make(I, H, *more, **({"dtype": np.float64} | settings | options))


def states_of(final):
    return final if isinstance(final, tuple) else (final,)


def starts(layer):
    """Initial states that are not zero, as keywords."""
    return {f"{name}_0": tg.tensor(filled(name, len(layer.cells), N, H)) for name in layer.cell_type.states}


@pytest.fixture
def x(backend):
    return tg.tensor(filled("x", T, N, I), requires_grad=True)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_dtypes(kind, backend):
    for dtype in (np.float32, np.float64):
        layer = layer_of(kind, 2, bidirectional=True, dtype=dtype)
        output, final = layer(tg.tensor(filled("x", T, N, I), dtype=dtype))
        assert output.shape == (T, N, 2 * H)
        assert [s.shape for s in states_of(final)] == [(4, N, H)] * (2 if kind.startswith("LSTM") else 1)
        output.sum().backward()
        assert {output.dtype, *[p.grad.dtype for p in layer.parameters()]} == {np.dtype(dtype)}
        assert [cell.W.shape[0] for cell in layer.cells] == [I, I, 2 * H, 2 * H]


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_near_float64(kind, backend):
    exact = layer_of(kind, 2)
    short = layer_of(kind, 2, dtype=np.float32)
    short.load_state_dict({name: value.astype(np.float32) for name, value in exact.state_dict().items()})
    results = []
    for layer, dtype in ((exact, np.float64), (short, np.float32)):
        output, _ = layer(tg.tensor(filled("x", T, N, I), dtype=dtype))
        (output * output).sum().backward()
        results.append([output.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    for one, other in zip(*results):
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_can_be_carried_from_call_to_call(kind, x):
    layer = layer_of(kind, 2)
    whole, final = layer(x)
    first, state = layer(x[:2])
    second, ended = layer(x[2:], state)
    np.testing.assert_allclose(tg.concatenate([first, second]).numpy(), whole.numpy(), rtol=0, atol=1e-15)
    for one, other in zip(states_of(ended), states_of(final)):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first(kind, x):
    layer, other = layer_of(kind, 2, bidirectional=True), layer_of(kind, 2, bidirectional=True, batch_first=True)
    other.load_state_dict(layer.state_dict())
    one, final = layer(x, lengths=LENGTHS, **starts(layer))
    two, ended = other(tg.swapaxes(x, 0, 1), lengths=LENGTHS, **starts(layer))
    np.testing.assert_array_equal(np.swapaxes(two.numpy(), 0, 1), one.numpy())
    for s, e in zip(states_of(final), states_of(ended)):
        np.testing.assert_array_equal(s.numpy(), e.numpy())


# -- lengths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_as_if_each_sequence_ran_alone(kind, x):
    layer = layer_of(kind, 2, bidirectional=True)
    given = starts(layer)
    output, final = layer(x, lengths=LENGTHS, **given)
    for n, length in enumerate(LENGTHS):
        alone, ended = layer(x[:length, n : n + 1], **{name: s[:, n : n + 1] for name, s in given.items()})
        np.testing.assert_allclose(output.numpy()[:length, n], alone.numpy()[:, 0], rtol=0, atol=1e-15)
        assert (output.numpy()[length:, n] == 0).all()
        for s, e in zip(states_of(final), states_of(ended)):
            np.testing.assert_allclose(s.numpy()[:, n], e.numpy()[:, 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_past_the_end_is_without_effect_even_nan(kind, backend):
    layer = layer_of(kind, bidirectional=True)
    clean = filled("x", T, N, I)
    dirty = clean.copy()
    for n, length in enumerate(LENGTHS):
        dirty[length:, n] = np.nan
    results = []
    for array in (clean, dirty):
        layer.zero_grad()
        x = tg.tensor(array, requires_grad=True)
        output, final = layer(x, lengths=LENGTHS)
        (sum((s * s).sum() for s in states_of(final)) + (output * output).sum()).backward()
        results.append([output.numpy(), x.grad.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)
    gradient = results[0][1]
    for n, length in enumerate(LENGTHS):
        assert (gradient[length:, n] == 0).all() and (gradient[:length, n] != 0).all()


@both
def test_full_lengths_change_nothing_and_length_zero_leaves_the_state(x, fused):
    layer = layer_of("LSTM", 2, bidirectional=True, fused=fused)
    given = starts(layer)
    plain, _ = layer(x, **given)
    full, _ = layer(x, lengths=[T] * N, **given)
    np.testing.assert_array_equal(full.numpy(), plain.numpy())
    output, (h_n, c_n) = layer(x, lengths=np.array([T, 0, 2]), **given)
    np.testing.assert_array_equal(h_n.numpy()[:, 1], given["h_0"].numpy()[:, 1])
    np.testing.assert_array_equal(c_n.numpy()[:, 1], given["c_0"].numpy()[:, 1])
    assert (output.numpy()[:, 1] == 0).all()


@both
def test_lengths_that_do_not_fit(x, fused):
    layer = layer_of("GRU", fused=fused)
    for lengths, error, words in (
        ([2, 3], ShapeError, r"lengths has shape \(2,\); x has N = 3 sequences of T = 4 steps, .* \(in gru\)"),
        ([[2], [3, 1], [1]], ShapeError, "lengths are nested lists .* 3 integers from 0 to 4 would fit"),
        (4, ShapeError, r"lengths has shape \(\)"),
        ([[2, 3, 1]], ShapeError, r"lengths has shape \(1, 3\)"),
        ([2, 5, 1], ShapeError, r"lengths\[1\] is 5; x has .* T = 4 steps, .* 0 to 4 would fit"),
        ([2, 3, -1], ShapeError, r"lengths\[2\] is -1"),
        ([2.0, 3.0, 1.0], DtypeError, "lengths are float64; x has .* 3 integers from 0 to 4 would fit"),
        ([True, True, False], DtypeError, "lengths are bool"),
    ):
        with pytest.raises(error, match=words):
            layer(x, lengths=lengths)
    assert layer(x, lengths=tg.tensor(LENGTHS, backend="numpy"))[0].shape == (T, N, H)


def test_lengths_on_a_gpu_are_refused(gpu):
    layer, x = layer_of("GRU"), tg.tensor(filled("x", T, N, I))
    with pytest.raises(BackendError, match="needed on the host"):
        layer(x, lengths=tg.tensor(LENGTHS))
    with pytest.raises(BackendError, match="needed on the host"):
        layer(x, lengths=tg.tensor(LENGTHS)._array)


# -- several layers ------------------------------------------------------------------------------------------


@both
def test_dropout_acts_between_layers_and_only_while_training(x, fused):
    layer = layer_of("GRU", 3, dropout=0.5, fused=fused)
    calm = layer_of("GRU", 3, fused=fused)
    calm.load_state_dict(layer.state_dict())
    tg.seed(3)
    one, two = layer(x)[0].numpy(), layer(x)[0].numpy()
    tg.seed(3)
    np.testing.assert_array_equal(layer(x)[0].numpy(), one)
    assert abs(one - two).max() > 1e-3
    y, _ = layer(x)
    masks = [node for node in tg.tape(y) if node.name == "mask"]
    assert [mask.shape for mask in masks] == [(T, N, H)] * 2  # none behind the last layer, none before the first
    assert set(np.unique([mask.numpy() for mask in masks])) == {0.0, 2.0}
    np.testing.assert_array_equal(layer.eval()(x)[0].numpy(), calm(x)[0].numpy())


def test_dropout_with_one_layer_warns():
    with pytest.warns(UserWarning, match="dropout acts between layers"):
        nn.GRU(I, H, dropout=0.25)


def test_options_reach_every_cell():
    layer = nn.GRU(I, H, 2, bidirectional=True, reset="after", update="old", recurrent_bias=True, bias=False)
    assert {(c.reset, c.update, c.b, c.c.shape) for c in layer.cells} == {("after", "old", None, (H,))}
    assert (layer.reset, layer.update) == ("after", "old")
    assert {c.activation for c in nn.RNN(I, H, 2, activation="relu").cells} == {"relu"}
    biases = [c.b.numpy()[H : 2 * H] for c in nn.LSTM(I, H, 2, forget_bias=3.0).cells]
    assert (np.array(biases) == 3).all()


def test_the_same_generator_gives_the_same_weights(backend):
    one, two, other = (nn.GRU(I, H, 2, rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        assert (a.numpy() != c.numpy()).all()
    tg.seed(9)
    first = nn.LSTM(I, H).state_dict()["cells.0.W"].numpy()
    tg.seed(9)
    np.testing.assert_array_equal(nn.LSTM(I, H).cells[0].W.numpy(), first)


def test_a_cell_of_ones_own():
    class Leaky(nn.Cell):
        """h' = (h + n) / 2."""

        gates, candidate, Gates = ("n",), "n", staticmethod(lambda n: n)

        def equation(self, x, state, weights):
            n = tg.tanh(x @ weights.W + state[0] @ weights.U + weights.b)
            return nn.equations.RNNStep(0.5 * (state[0] + n))

    class LeakyLayer(nn.Recurrent):
        cell_type = Leaky

    layer = LeakyLayer(I, H, 2, dtype=np.float64)
    x = tg.tensor(filled("x", T, N, I))
    output, h_n = layer(x, lengths=LENGTHS)
    assert output.shape == (T, N, H) and h_n.shape == (2, N, H)
    tg.gradcheck(lambda x: layer(x, lengths=LENGTHS)[0], x)


@pytest.mark.parametrize("attributes", [{}, {"cell_type": nn.Linear}, {"cell_type": "GRUCell"}])
def test_a_layer_without_a_cell_type_is_told_so(attributes):
    with pytest.raises(CellError, match=r"Leaky has cell_type = .*: set it to the class of its cells"):
        type("Leaky", (nn.Recurrent,), attributes)(I, H)


def test_fields_of_a_layer_of_ones_own_are_options_of_its_cells():
    @dataclass(eq=False, repr=False, kw_only=True)
    class Leaky(nn.RNNCell):
        leak: float = 0.5

    @dataclass(eq=False, repr=False, kw_only=True)
    class LeakyLayer(nn.RNN):
        cell_type = Leaky
        leak: float = 0.5

    layer = LeakyLayer(I, H, 2, leak=0.25, activation="relu")
    assert {(cell.leak, cell.activation) for cell in layer.cells} == {(0.25, "relu")}


def test_settings_are_attributes():
    layer = nn.GRU(I, H, 2, bias=False, dropout=0.25, dtype="float64", init="orthogonal")
    for module in (layer, *layer.cells):
        assert (module.bias, module.dtype, module.init) == (False, np.dtype("float64"), "orthogonal")
    assert (layer.dropout, layer.num_layers, layer.hidden_size) == (0.25, 2, H)


# -- where things are born -----------------------------------------------------------------------------------


def test_scopes_tell_layer_cell_and_time_step(x):
    class Model(nn.Module):
        def __init__(self):
            self.memory = nn.GRU(I, H, bidirectional=True, dtype=np.float64, fused=False)

        def forward(self, x):
            return self.memory(x)[0]

    tape = tg.tape(Model()(x))
    found = {(node.scope.path, node.name) for node in tape if node.op}
    for k in range(2):
        for t in range(T):
            assert {(f"model.memory.cells.{k}[t={t}]", name) for name in "zrnh"} <= found
    steps = [node.scope for node in tape if node.name == "z"]
    assert {(s.parent.kind, s.parent.parent.kind) for s in steps} == {("GRUCell", "GRU")}
    reverse = [s.step for s in steps if s.parent.name == "cells.1"]
    assert reverse == list(range(T))  # youngest first: the reverse direction ends at step 0


@both
def test_the_state_may_come_in_a_list(x, fused):
    layer = layer_of("LSTM", fused=fused)
    h, c = starts(layer).values()
    expected = layer(x, (h, c))
    for given in ([h, c], [h.numpy().tolist(), c]):
        for found, wanted in zip([*layer(x, given)[1]], [*expected[1]]):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    alone = layer(x, h.numpy().tolist(), c_0=c)  # nested numbers are h_0 itself
    np.testing.assert_array_equal(alone[0].numpy(), expected[0].numpy())


class Pair(nn.Recurrent):
    """A layer over a cell of two states, as users write it."""

    cell_type = nn.LSTMCell


def test_a_layer_of_ones_own_carries_as_many_states_as_its_cell(x):
    known, own = layer_of("LSTM", 2, bidirectional=True), Pair(I, H, 2, bidirectional=True, dtype=np.float64)
    own.load_state_dict(known.state_dict())
    h, c = starts(known).values()
    for given in (None, (h, c), h):
        expected, found = known(x, given, LENGTHS), own(x, given, LENGTHS)
        for wanted, seen in zip((expected[0], *expected[1]), (found[0], *found[1]), strict=True):
            np.testing.assert_array_equal(seen.numpy(), wanted.numpy())
    with pytest.raises(ShapeError, match=r"h_0 is a tuple of 3; Pair carries 2 states, so that \(h_0, c_0\) would fit"):
        own(x, (h, c, c))
    with pytest.raises(ShapeError, match="c_0 is given twice"):
        known(x, (h, c), c_0=c)


# -- derivatives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives(kind):
    layer = layer_of(kind, bidirectional=True)
    first = layer.cells[0]
    own = [parameter.numpy() for parameter in first.parameters()]

    def through(x, *arguments):
        states, weights = arguments[: len(own_states)], arguments[len(own_states) :]
        borrowed = copy.copy(layer)
        twin = copy.copy(first)
        for (name, _), weight in zip(first.named_parameters(), weights):
            vars(twin)[name] = weight
        vars(borrowed)["cells"] = [twin, layer.cells[1]]
        output, final = borrowed(x, lengths=LENGTHS, **dict(zip(own_states, states)))
        return (output, *states_of(final))

    own_states = starts(layer)
    x = filled("inputs", T, N, I)  # for which no relu comes near its kink
    arguments = [x, *[s.numpy() for s in own_states.values()], *own]
    tg.gradcheck(through, *arguments, order=2, tolerance=1e-7)


# -- cost ----------------------------------------------------------------------------------------------------


def nodes_and_bytes(layer, T, lengths):
    x = tg.tensor(filled("x", T, N, I), requires_grad=True)
    tape = tg.tape(layer(x, lengths=lengths)[0])
    return len(tape), sum(node.size for node in tape if node.op)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("kind", BY_STEPS)
def test_the_tape_grows_linearly(kind, lengths):
    layer = layer_of(kind, 2, bidirectional=True)
    counts, sizes = zip(*[nodes_and_bytes(layer, T, [T, 0, T // 2] if lengths else None) for T in (6, 12, 18)])
    assert counts[1] - counts[0] == counts[2] - counts[1] > 0
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] > 0


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BY_STEPS])
def test_the_tape_of_a_fused_layer_is_as_long_for_any_number_of_steps(kind, lengths):
    layer = layer_of(kind, 2, bidirectional=True)
    counts, sizes = zip(*[nodes_and_bytes(layer, T, [T, 0, T // 2] if lengths else None) for T in (6, 12, 18)])
    assert counts[0] == counts[1] == counts[2] < 60
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] > 0


@both
def test_backward_takes_linear_memory(fused):
    """Slices of the inputs must not each bring a gradient of the whole length."""
    layer = nn.GRU(64, 3, fused=fused)

    def peak(T):
        x = tg.zeros((T, 8, 64), requires_grad=True)
        loss = layer(x)[0].sum()
        tracemalloc.start()
        loss.backward(retain_graph=False)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)
    short, long = peak(200), peak(400)
    assert long < 2.3 * short


def test_weights_are_taken_apart_once_per_call():
    layer = layer_of("GRU", fused=False)
    tape = tg.tape(layer(tg.tensor(filled("x", 9, N, I)))[0])
    assert sum(node.op is not None and node.op.name == "index" for node in tape) == 9  # three gates of W, U and b


# -- on a GPU ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_back_and_gives_the_same_numbers(kind):
    """On the stand-in, which counts copies; the losses are those of NumPy, by steps even bit by bit."""
    results = {}
    for home in ("numpy", "fakecupy"):
        with tg.use_backend(home):
            tg.seed(1)
            layer = layer_of(kind, 2, bidirectional=True, dropout=0.25, dtype=np.float32)
            x = tg.tensor(filled("x", T, N, I), dtype=np.float32)
            with fakecupy.counting() as counter:
                for _ in range(3):
                    layer.zero_grad()
                    output, _ = layer(x, lengths=LENGTHS)
                    loss = (output * output).sum()
                    loss.backward()
                    for parameter in layer.parameters():
                        parameter.assign_((parameter - 0.1 * parameter.grad).detach())
            results[home] = [loss.numpy(), *[p.numpy() for p in layer.parameters()]]
    assert counter["d2h"] == counter["syncs"] == 0
    assert counter["h2d"] == 3  # the lengths, once per call
    assert counter["launches"] > (1000 if kind in BY_STEPS else 20)
    for one, other in zip(results["numpy"], results["fakecupy"]):
        if kind in BY_STEPS:
            np.testing.assert_array_equal(other, one)
        else:  # kernels of its own may round otherwise
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_on_a_gpu_works_whatever_the_default_backend_is(kind, gpu):
    """Lengths and initial states are made where the weights are."""
    with tg.use_backend("numpy"):
        layer = layer_of(kind, 2, bidirectional=True)
        x = tg.tensor(filled("x", T, N, I))
        expected, _ = layer(x, lengths=LENGTHS)
        output, final = layer.to(gpu)(x.to(gpu), lengths=LENGTHS)
    assert {output.backend, *[s.backend for s in states_of(final)]} == {gpu}
    np.testing.assert_allclose(output.numpy(), expected.numpy(), rtol=0, atol=1e-12)


# -- what they refuse ----------------------------------------------------------------------------------------


@both
def test_inputs_that_do_not_fit(x, fused):
    layer = layer_of("GRU", 2, fused=fused)
    for given, error, words in (
        (
            tg.ones((T, N, 3), dtype=np.float64),
            ShapeError,
            r"x has shape \(4, 3, 3\).*input_size=2.*\(4, 3, 2\) would fit",
        ),
        (tg.ones((T, I), dtype=np.float64), ShapeError, r"x has shape \(4, 2\), but GRU takes three axes, \(T, N, I\)"),
        (tg.ones((0, N, I), dtype=np.float64), ShapeError, "x has no time step"),
        (tg.ones((T, N, I)), DtypeError, r"x is float32 and the weights are float64"),
        (tg.ones((T, N, I), dtype=np.int64), DtypeError, "x is int64"),
    ):
        with pytest.raises(error, match=words):
            layer(given)
    with pytest.raises(ShapeError, match=r"h_0 has shape \(3, 5\).*\(2, 3, 5\) would fit \(in gru\)"):
        layer(x, tg.ones((N, H), dtype=np.float64))
    lstm = layer_of("LSTM", fused=fused)
    with pytest.raises(ShapeError, match="c_0 has shape"):
        lstm(x, c_0=tg.ones((2, N, H), dtype=np.float64))
    with pytest.raises(ShapeError, match="h_0 is a tuple of 3"):
        lstm(x, (None, None, None))
    with pytest.raises(ShapeError, match="h_0 is a list of 3"):
        lstm(x, [tg.ones((1, N, H), dtype=np.float64)] * 3)


@pytest.mark.parametrize("shape", [(5, 4), (5, I), (4,), (), (T, N, I, 1)])
@pytest.mark.parametrize("letters", ["T, N, I", "N, T, I"])
@both
def test_what_has_not_three_axes_is_told_so_whatever_their_lengths(shape, letters, fused):
    fitting = rf"x has shape .*, but LSTM takes three axes, \({letters}\): shape \({letters[:-1]}{I}\) would fit"
    with pytest.raises(ShapeError, match=fitting):
        nn.LSTM(I, H, batch_first=letters[0] == "N", fused=fused)(np.ones(shape, np.float32))


def test_options_that_are_none():
    for make in (
        lambda: nn.GRU(I, 0),
        lambda: nn.GRU(I, H, 0),
        lambda: nn.GRU(I, H, 1.5),
        lambda: nn.GRU(I, H, 2, dropout=1.0),
        lambda: nn.GRU(I, H, 2, dropout=-0.1),
        lambda: nn.GRU(I, H, 2, dropout="0.5"),
        lambda: nn.GRU(I, H, reset="sometimes"),
        lambda: nn.RNN(I, H, activation="step"),
        lambda: nn.LSTM(I, H, init="xavier"),
        lambda: nn.LSTM(I, H, forget_bias="large"),
        lambda: nn.LSTM(I, H, forget_bias=True),
        lambda: nn.GRU(I, H, checkpoint=0),
        lambda: nn.GRU(I, H, checkpoint=2.5),
        lambda: nn.GRU(I, H, checkpoint=2, fused=False),
        lambda: nn.GRU(I, H, mode="fast"),
        lambda: nn.GRU(I, H, mode=None),
    ):
        with pytest.raises(OptionError):
            make()
    with pytest.raises(DtypeError, match="'flot32' is no dtype; float32"):
        nn.GRU(I, H, dtype="flot32")
    for rng in (0, 3, np.random.RandomState(3)):  # 0 is false, but not nothing
        with pytest.raises(OptionError, match=r"rng is .*; it must be a numpy\.random\.Generator"):
            nn.GRU(I, H, rng=rng)
    with pytest.raises(TypeError, match="peephole"):
        nn.LSTM(I, H, peephole=True)


def test_whoever_takes_layers_whole_sees_them_in_place_of_their_operations():
    layer, x, seen = nn.LSTM(I, H, batch_first=True), tg.tensor(filled("x", N, T, I), dtype=np.float32), []

    class Whole:
        def __call__(self, op, inputs, options, result):
            pass

        def layer(self, layer, x, initial, lengths):
            seen.append((layer, x.shape, initial, lengths))
            with listening(None):
                return layer._over_time(x, initial, lengths)

    with listening(Whole()):
        output, _ = layer(x, lengths=[1] * N)
    assert seen == [(layer, (T, N, I), (None, None), [1] * N)]
    np.testing.assert_array_equal(output.numpy(), layer(x, lengths=[1] * N)[0].numpy())
    assert len(seen) == 1
