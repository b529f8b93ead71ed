"""Models written to ONNX and run by onnxruntime, at sizes other than those they were written at."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from interop.modules import leaves, with_numbers
from interop.onnx_oracles import by_runtime, helper, info, model, onnx
from kinds import KINDS
from mutants import mutated
from samples import SAMPLES, package_primitives

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.core.modes import current
from tinygrad_rnn.errors import ConversionError, MissingPackage, OptionError
from tinygrad_rnn.interop import cells as varied
from tinygrad_rnn.interop import from_onnx, packing, to_onnx
from tinygrad_rnn.interop.layers import Final, Layers
from tinygrad_rnn.interop.onnx_ import emission as onnx_emission
from tinygrad_rnn.interop.onnx_ import proof as onnx_proof
from tinygrad_rnn.interop.onnx_ import recurrent as onnx_recurrent
from tinygrad_rnn.interop.onnx_ import writing as onnx_writing
from tinygrad_rnn.interop.onnx_.recurrent import LayerWriter
from tinygrad_rnn.interop.report import Report
from tinygrad_rnn.nn.recurrent import Recurrent
from tinygrad_rnn.train.model import LanguageModel

pytest.importorskip("onnxruntime")

I, H = 4, 5
SIZES = [(1, 2), (3, 1), (8, 6)]
"""T and N; models are written at others."""
BOUNDS = {"float32": 1e-6, "float64": 1e-12}
WAYS = {
    "plain": {},
    "both directions": {"bidirectional": True},
    "reverse": {"reverse": True},
    "two layers": {"num_layers": 2},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True},
    "no bias": {"bias": False},
}


def run(proto, given):
    """What onnxruntime makes of it, by name."""
    return dict(zip([each.name for each in proto.graph.output], by_runtime(proto, given), strict=True))


def agree(found, expected, bound=None):
    """onnxruntime's outputs and the model's."""
    assert len(found) == len(expected)
    for name, ours in zip(found, expected):
        assert found[name].dtype == ours.dtype
        bound = bound or BOUNDS.get(str(ours.dtype), 0.0)
        np.testing.assert_allclose(found[name], ours, rtol=bound, atol=bound, err_msg=name)


def sequences(layer, T, N, *, seed=5, states=False, lengths=False):
    """Inputs of a recurrent layer, by name."""
    rng, dtype = np.random.default_rng(seed), layer.cells[0].W.dtype
    shape = (N, T, I) if layer.batch_first else (T, N, I)
    found = {"x": rng.normal(size=shape).astype(dtype)}
    if states:
        for name in layer.cell_type.states:
            found[f"{name}_0"] = rng.normal(size=(len(layer.cells), N, H)).astype(dtype)
    if lengths:
        found["lengths"] = np.array([(T * n) // max(N - 1, 1) for n in range(N)], np.int32)
    return found


def held_to_the_layer(layer, *, states=False, lengths=False, **options):
    """Writes a recurrent layer and compares at several sizes; returns the model."""
    proto = to_onnx(layer, states=states, lengths=lengths, **options)
    onnx.checker.check_model(proto, full_check=True)
    for T, N in SIZES:
        given = sequences(layer, T, N, states=states, lengths=lengths)
        agree(run(proto, given), leaves(layer(**given)))
    return proto


def operators(proto):
    return [node.op_type for node in proto.graph.node]


# -- recurrent layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KINDS)
def test_a_float32_layer_is_nodes_where_these_compute_the_same(name, way):
    kind, settings = KINDS[name]
    layer = with_numbers(kind(I, H, **settings, **WAYS[way]))
    for more in ({}, {"states": True}, {"lengths": True}, {"states": True, "lengths": True}):
        proto = held_to_the_layer(layer, **more)
        node = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM", "minimal": "Scan"}[name.split()[0]]
        scans = layer.num_layers * (2 if layer.bidirectional and node == "Scan" else 1)
        assert [each for each in operators(proto) if each in ("RNN", "GRU", "LSTM", "Scan")] == [node] * scans


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KINDS)
def test_a_float64_layer_is_a_scan_and_exact(name, way):
    kind, settings = KINDS[name]
    layer = with_numbers(kind(I, H, dtype=np.float64, **settings, **WAYS[way]))
    for more in ({}, {"states": True, "lengths": True}):
        assert "Scan" in operators(held_to_the_layer(layer, **more))


@pytest.mark.parametrize("name", KINDS)
def test_never_writes_a_scan_in_float32_too(name):
    kind, settings = KINDS[name]
    assert "Scan" in operators(held_to_the_layer(with_numbers(kind(I, H, **settings)), nodes="never", states=True))


def test_a_simplified_gru_can_be_a_gru_node_with_an_open_reset_gate():
    layer = with_numbers(nn.MinimalGRU(I, H, 2, bidirectional=True))
    assert "GRU" in operators(held_to_the_layer(layer, nodes="always", states=True, lengths=True))


def test_nodes_in_float64_are_written_where_they_are_asked_for_though_onnxruntime_has_none():
    report = Report()
    proto = to_onnx(with_numbers(nn.LSTM(I, H, dtype=np.float64)), nodes="always", report=report)
    assert "LSTM" in operators(proto) and report.notes == ["this package has run it, and computes the same"]


ACTING = {
    "tanh relu": (varied.activation("Tanh"), varied.activation("Relu")),
    "with alpha": (varied.activation("HardSigmoid", 0.3, 0.4), varied.activation("LeakyRelu", 0.2)),
    "of two numbers": (varied.activation("ScaledTanh", 0.8, 1.3), varied.activation("Affine", 0.3, 0.1)),
    "hard": (varied.activation("HardSigmoid"), varied.activation("Softsign")),
    "elu": (varied.activation("Sigmoid"), varied.activation("Elu", 0.7)),
    "threshold": (varied.activation("Sigmoid"), varied.activation("ThresholdedRelu", 0.2)),
    "softplus": (varied.activation("Softsign"), varied.activation("Softplus")),
}


def of_others(acting):
    """Layers with what other libraries' cells have beyond ours, in float32."""
    f, g = ACTING[acting]
    yield varied.VariedRNN(I, H, activations=(g,), clip=0.6)
    yield varied.VariedGRU(I, H, activations=(f, g), update="old", bidirectional=True)
    yield varied.VariedGRU(I, H, activations=(f, g), reset="after", recurrent_bias=True, clip=0.5)
    yield varied.VariedLSTM(I, H, activations=(f, g, f), peepholes=True, bidirectional=True)
    yield varied.VariedLSTM(I, H, activations=(f, g, g), input_forget=True, clip=0.7, reverse=True)


@pytest.mark.parametrize("acting", ACTING)
def test_other_activations_peepholes_clipping_and_coupled_gates(acting):
    for layer in of_others(acting):
        with_numbers(layer, 0.3)  # so that what is not bounded stays small
        held_to_the_layer(layer, states=True, lengths=True)
        held_to_the_layer(layer, nodes="never", states=True)


def test_an_update_gate_that_cannot_be_turned_is_a_scan():
    layer = with_numbers(varied.VariedGRU(I, H, activations=(varied.activation("Softsign"), varied.TANH)))
    assert "Scan" in operators(held_to_the_layer(layer))
    with pytest.raises(ConversionError, match="no RNN, GRU or LSTM node of ONNX computes what VariedGRUCell does"):
        to_onnx(layer, nodes="always")


class GatedCell(nn.Cell):
    """A minimal gated unit (Zhou et al. 2016), which is none of the package's cells."""

    gates, candidate = ("f", "n"), "n"
    Gates = staticmethod(lambda f, n: {"f": f, "n": n})

    def equation(self, x, state, weights):
        (h,), (W, U, b) = state, weights
        f = tg.sigmoid(x @ W["f"] + h @ U["f"] + b["f"])
        n = tg.tanh(x @ W["n"] + (f * h) @ U["n"] + b["n"])
        return Gated(f, n, tg.where(f > 0.5, (1 - f) * h + f * n, h))


class Gated(NamedTuple):
    """What one step of it defines."""

    f: Any
    n: Any
    h: Any


class GatedLayer(Recurrent):
    cell_type = GatedCell


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cell_of_your_own_is_a_scan(dtype):
    layer = with_numbers(GatedLayer(I, H, 2, bidirectional=True, dtype=dtype))
    held_to_the_layer(layer, states=True, lengths=True)
    with pytest.raises(ConversionError, match="node of ONNX computes what GatedCell does"):
        to_onnx(layer, nodes="always")


@pytest.mark.parametrize("make", [nn.RNNCell, nn.MinimalGRUCell, nn.GRUCell, nn.LSTMCell, GatedCell])
def test_a_cell_is_one_step(make):
    cell = with_numbers(make(I, H, dtype=np.float64))
    proto, rng = to_onnx(cell), np.random.default_rng(2)
    assert [each.name for each in proto.graph.output] == [f"{name}_next" for name in cell.states]
    x, state = rng.normal(size=(7, I)), tuple(rng.normal(size=(7, H)) for _ in cell.states)
    agree(run(proto, {"x": x} | dict(zip(cell.states, state))), leaves(cell(x, state if len(state) > 1 else state[0])))


def test_a_layer_from_torch_computes_what_torch_computes():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.GRU(I, H)
    arrays = {name.removesuffix("_l0"): value.detach().numpy() for name, value in theirs.named_parameters()}
    ours = packing.layer_of([packing.unpacked(packing.convention("torch", nn.GRUCell), arrays, report=Report())])
    x, h_0 = (np.random.default_rng(4).normal(size=s).astype(np.float32) for s in ((6, 3, I), (1, 3, H)))
    with torch.no_grad():
        expected = [each.numpy() for each in theirs(torch.from_numpy(x), torch.from_numpy(h_0))]
    agree(run(to_onnx(ours, states=True), {"x": x, "h_0": h_0}), expected)


# -- models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "minimal_gru", "gru", "lstm"])
def test_a_language_model(cell):
    model = with_numbers(LanguageModel(7, I, H, 2, cell=cell, dropout=0.5))
    for states in (False, True):
        proto = to_onnx(model, states=states)
        model.eval()
        for T, N in SIZES:
            given = sequences(model.recurrent, T, N, states=states)
            given["ids"] = np.random.default_rng(T).integers(0, 7, (T, N))
            initial = [given[name] for name in given if name.endswith("_0")]
            state = None if not initial else tuple(initial) if len(initial) > 1 else initial[0]
            expected = leaves(model(given["ids"], state))
            agree(run(proto, {name: x for name, x in given.items() if name != "x"}), expected, 2e-6)
        model.train()
        assert [each.name for each in proto.graph.output][:2] == ["logits", "h_n"]
        names = {each.name for each in proto.graph.initializer}
        assert {"embedding.W", "head.W", "head.b"} <= names


def test_layers_by_name_with_lengths():
    both = {"bidirectional": True, "batch_first": True}
    parts = {"embedding": nn.Embedding(7, I), "gru": nn.GRU(I, H, **both), "last": Final(nn.LSTM(2 * H, 3, **both)),
             "head": nn.Linear(6, 2)}  # fmt: skip
    model = with_numbers(Layers(parts, parts))
    proto = to_onnx(model, lengths=True)
    ids, lengths = np.random.default_rng(3).integers(0, 7, (4, 9)), np.array([9, 1, 0, 5], np.int32)
    agree(run(proto, {"ids": ids, "lengths": lengths}), leaves(model(ids, lengths=lengths)))
    assert [each.dim_param for each in proto.graph.input[0].type.tensor_type.shape.dim] == ["N", "T"]


def test_modules_without_time():
    model = with_numbers(nn.Sequential(nn.LayerNorm(I), nn.Linear(I, H), tg.gelu, nn.Linear(H, 2, bias=False)))
    x = np.random.default_rng(3).normal(size=(7, I)).astype(np.float32)
    agree(run(to_onnx(model), {"x": x}), leaves(model(x)))
    wide = to_onnx(model, inputs={"x": x[None]}, dynamic={"x": {0: "A", 1: "B"}}, outputs=["y"])
    agree(run(wide, {"x": np.stack([x, x - 1])}), leaves(model(np.stack([x, x - 1]))))
    assert [[each.dim_param or each.dim_value for each in end.type.tensor_type.shape.dim]
            for end in (*wide.graph.input, *wide.graph.output)] == [["A", "B", I], ["A", "B", 2]]  # fmt: skip


def test_examples_of_a_known_model_leave_its_sizes_free():
    layer = with_numbers(nn.GRU(I, H))
    given = sequences(layer, 4, 3, states=True, lengths=True)
    proto, other = to_onnx(layer, inputs=given), sequences(layer, 6, 2, states=True, lengths=True)
    agree(run(proto, other), leaves(layer(**other)))
    fixed = to_onnx(layer, inputs=[given["x"]], dynamic={})
    assert [each.dim_value for each in fixed.graph.input[0].type.tensor_type.shape.dim] == [4, 3, I]
    agree(run(fixed, {"x": given["x"]}), leaves(layer(given["x"])))


class Odd(nn.Module):
    """A layer that is called twice, a weight in two places, a number and integers among the state."""

    def __init__(self):
        self.gru, self.gain, self.steps = with_numbers(nn.GRU(I, H)), tg.tensor(2.0), tg.tensor([1, 2])
        self.tied = self.also = with_numbers(nn.Linear(H, H))

    def forward(self, x, scale=0.5):
        y, h = self.gru(x)
        y, h = self.gru(y[..., :I], h)
        return {"y": self.also(self.tied(y)) * self.gain * scale + self.steps.sum(), "h": h}


def test_a_module_of_many_parts():
    model, x = Odd(), np.random.default_rng(2).normal(size=(6, 2, I)).astype(np.float32)
    proto = to_onnx(model, inputs={"x": x[:3, :1]}, dynamic={"x": {0: "T", 1: "N"}})
    found = run(proto, {"x": x})
    assert list(found) == ["y", "h"] and found["y"].dtype == np.float64  # integers made it so
    agree(found, leaves(tuple(model(x).values())), 2e-6)
    assert operators(proto).count("GRU") == 2
    assert sorted(each.name for each in proto.graph.initializer if each.name[0] in "gt") == [
        "gain", "gru.B", "gru.R", "gru.W", "tied.W", "tied.b"]  # fmt: skip


def test_equal_weights_keep_their_names():
    model = nn.Sequential(nn.Linear(I, I, init="zeros"), nn.Linear(I, I, init="zeros"))
    names = {each.name for each in to_onnx(model).graph.initializer}
    assert names == {"layers.0.W", "layers.0.b", "layers.1.W", "layers.1.b"}


# -- functions ---------------------------------------------------------------------------------------------------

W = np.random.default_rng(8).normal(size=(6, 4))
GRU = with_numbers(nn.GRU(6, H, dtype=np.float64))
FUNCTIONS = {
    "branches that depend on numbers": lambda x: tg.where(x > 0.2, x, x * 2),
    "an array of its own": lambda x: tg.tanh(x @ W),
    "a layer of its own": lambda x: GRU(x)[0][-1],
    "lengths of its own": lambda x: GRU(x, lengths=[2] * x.shape[1] if len(x) > 1 else None)[0][-1],
    "mean over time": lambda x: x.mean(axis=0),
    "division by a size": lambda x: x.sum(0) / x.shape[0] * float(x.shape[1]),
    "the last step": lambda x: x[x.shape[0] - 1],
    "backwards": lambda x: x[::-1],
    "two sizes in one": lambda x: x.reshape((x.shape[0] * x.shape[1], 6)),
    "two sizes side by side": lambda x: x.reshape((x.shape[0], x.shape[1], 2, 3)),
    "zeros in front": lambda x: tg.concatenate([tg.zeros((1, *x.shape[1:]), dtype=np.float64), x], axis=0),
    "counting": lambda x: x * tg.arange(x.shape[0], dtype=np.float64).reshape((-1, 1, 1)),
    "std": lambda x: x.std(axis=0, correction=1),
    "var": lambda x: tg.var(x, axis=(0, 1)),
    "attention": lambda x: tg.softmax(tg.swapaxes(x, 0, 1) @ tg.moveaxis(x, 0, 2), axis=-1),
    "roll": lambda x: tg.roll(x, 2, axis=0),
    "repeat": lambda x: tg.repeat(x, 2, axis=0),
    "tile": lambda x: tg.tile(x, (2, 1, 1)),
    "the largest": lambda x: tg.take_along_axis(x, tg.expand_dims(tg.argmax(x, axis=-1), -1), -1),
    "einsum": lambda x: tg.einsum("tni,ij->ntj", x, W),
    "copies": lambda x: tg.broadcast_to(x[0], x.shape),
    "a triangle": lambda x: tg.tril(tg.einsum("tni,sni->ts", x, x)),
    "parts": lambda x: tuple(tg.split(x, 3, axis=2)),
    "the input itself, twice": lambda x: (x, x),
    "checkpoint": lambda x: tg.checkpoint(lambda y: tg.tanh(y @ W), x),
    "without gradients": lambda x: (x * 2).detach() + 1,
    "a mask that is computed": lambda x: tg.tanh(x[x.sum(axis=2) > 0]).sum(axis=0),
    "lengths that depend on numbers": lambda x: x[x > 0.3] * 2,
    "a size times itself": lambda x: tg.einsum("tni,sni->ts", x, x).reshape((-1,)).reshape((x.shape[0] ** 2, 1)),
    "a size times itself, said in full": lambda x: tg.einsum("tni,sni->ts", x, x).reshape((x.shape[0] ** 2, 1)),
    "a size and one, times another": lambda x: tg.pad(x, ((1, 0), (0, 0), (0, 0))).reshape((-1, 6)) @ W,
    "padded": lambda x: tg.pad(x, ((1, 2), (0, 0), (0, 0))),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_of_tensors(what):
    f, rng = FUNCTIONS[what], np.random.default_rng(1)
    proto = to_onnx(f, inputs=[rng.normal(size=(4, 3, 6))], dynamic={"x": {0: "T", 1: "N"}})
    for T, N in SIZES:
        if T > 1 or what != "std":
            x = rng.normal(size=(T, N, 6))
            agree(run(proto, {"x": x}), leaves(f(tg.tensor(x))))


def test_a_loop_over_fixed_sizes_is_unrolled():
    f, x = lambda x: sum(x[t] * t for t in range(len(x))), np.random.default_rng(1).normal(size=(4, 3))
    agree(run(to_onnx(f, inputs=[x]), {"x": x}), leaves(f(tg.tensor(x))))
    agree(run(to_onnx(f, inputs=[x], dynamic={"x": {1: "N"}}), {"x": x[:, :2]}), leaves(f(tg.tensor(x[:, :2]))))


def test_outputs_are_called_after_the_keys_of_a_dictionary_or_as_is_wished():
    f, x = lambda x: {"a": x + 1, "b": (x, x * 2)}, np.ones((2, 3))
    assert [each.name for each in to_onnx(f, inputs=[x]).graph.output] == ["a", "b.0", "b.1"]
    assert [each.name for each in to_onnx(f, inputs=[x], outputs="pqr").graph.output] == ["p", "q", "r"]
    with pytest.raises(OptionError, match="3 different names are needed"):
        to_onnx(f, inputs=[x], outputs=["p", "q", "q"])


# -- primitives --------------------------------------------------------------------------------------------------

P = package_primitives()
WITHOUT_KERNEL = {"arccos", "arcsin", "arctan", "erf", "gelu"}
"""For these onnxruntime has kernels of float32 only."""


def test_the_table_speaks_of_primitives_that_are_there():
    """One that it does not speak of is refused, with a sentence, so that a new one need not stand here."""
    spoken = [*onnx_emission.EMITTERS, *onnx_emission.REFUSED]
    assert set(spoken) <= P.keys() and len(set(spoken)) == len(spoken)


@pytest.mark.parametrize("name", onnx_emission.EMITTERS)
def test_each_primitive_by_itself(name):
    dtype = np.dtype(np.float32 if name in WITHOUT_KERNEL else np.float64)
    for sample in SAMPLES[name]:
        arrays = {f"input_{i}": np.asarray(x, dtype if x.dtype.kind == "f" else x.dtype)
                  for i, x in enumerate(sample.args) if isinstance(x, np.ndarray)}  # fmt: skip

        def f(sample=sample, **given):
            places = [given.get(f"input_{i}", x) for i, x in enumerate(sample.args)]
            return P[name].function(*places, **sample.options)

        proto = to_onnx(f, inputs=arrays)
        tensors = {key: tg.tensor(array) for key, array in arrays.items()}
        agree(run(proto, arrays), leaves(f(**tensors)), 1e-6 if dtype == np.float32 else None)


def test_float64_is_not_computed_in_single_precision():
    x = np.linspace(-3, 3, 41)
    for f in (lambda x: tg.elu(x, alpha=1.7), lambda x: tg.leaky_relu(x, slope=0.3), lambda x: tg.clip(x, 0.1, 0.7)):
        agree(run(to_onnx(f, inputs=[x]), {"x": x}), leaves(f(tg.tensor(x))), 1e-15)


def test_indices_that_are_inputs():
    x, i, j = np.arange(60.0).reshape(3, 4, 5), np.array([2, 0]), np.array([[1], [3], [0]])
    for f in (lambda x, i, j: x[i] * x[:, :1, j].sum(), lambda x, i, j: x[:, j] * i[0], lambda x, i, j: x[i, j],
              lambda x, i, j: x[:, i, j], lambda x, i, j: x[1, :, i] * j[0], lambda x, i, j: x[i, :, j, None],
              lambda x, i, j: x[:, i, None, j], lambda x, i, j: x[:, None, i, j], lambda x, i, j: x[:, i, j, None],
              lambda x, i, j: tg.take(x, j, axis=1) + i[1]):  # fmt: skip
        proto = to_onnx(f, inputs=[x, i, j], dynamic={"i": {0: "K"}})
        i_ = np.array([1, 2, 0])
        agree(run(proto, {"x": x, "i": i_, "j": j}), leaves(f(tg.tensor(x), tg.tensor(i_), tg.tensor(j))))


# -- and back again ----------------------------------------------------------------------------------------------

AGAIN = {
    "gru": (lambda: nn.GRU(I, H), {}),
    "lstm": (lambda: nn.LSTM(I, H, 2, bidirectional=True), {"states": True}),
    "layers": (lambda: Layers({"e": nn.Embedding(7, I), "g": nn.GRU(I, H), "h": nn.Linear(H, 2)}, "egh"), {}),
}


@pytest.mark.parametrize("uniform", [False, True], ids=["examples of its own", "one length in the example"])
@pytest.mark.parametrize("kind", AGAIN)
def test_what_was_read_is_written_again_with_its_lengths(kind, uniform):
    make, options = AGAIN[kind]
    proto, rng, (T, N) = to_onnx(with_numbers(make()), lengths=True, **options), np.random.default_rng(5), (6, 3)
    given = {"lengths": np.array([6, 0, 3], np.int32)}
    given |= {"ids": rng.integers(0, 7, (T, N))} if kind == "layers" else {"x": rng.normal(size=(T, N, I))}
    given |= {name: rng.normal(size=(4, N, H)) for name in ("h_0", "c_0") if options}
    given = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in given.items()}
    example = given | {"lengths": np.full(N, 5, np.int32)}
    again = to_onnx(from_onnx(proto, alone=False), None, example if uniform else None)
    expected, found = run(proto, given), run(again, given)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer, options", [
    (nn.MinimalGRU(I, H), {"lengths": True}),
    (nn.MinimalGRU(I, H, 2, bidirectional=True, batch_first=True), {"lengths": True, "states": True}),
    (nn.GRU(I, H, reverse=True, dtype=np.float64), {"lengths": True}),
    (nn.LSTM(I, H, bidirectional=True), {"nodes": "never", "states": True}),
], ids=lambda x: type(x).__name__)  # fmt: skip
def test_a_scan_that_was_read_is_written_as_a_scan(layer, options):
    proto = to_onnx(with_numbers(layer), **options)
    again = to_onnx(from_onnx(proto, alone=False))
    count = lambda made: sum(node.op_type == "Scan" for node in made.graph.node)  # noqa: E731
    assert count(again) == count(proto) == len(layer.cells)
    onnx.checker.check_model(again, full_check=True)
    for T, N in SIZES:
        given = sequences(layer, T, N, **{name: on for name, on in options.items() if name != "nodes"})
        expected, found = run(proto, given), run(again, given)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)


SCANNED = {
    "around": [helper.make_node("Add", ["s", "doubled"], ["sum"]), helper.make_node("Add", ["sum", "step"], ["next"])],
    "steered around": [helper.make_node("Add", ["s", "step"], ["sum"]),
                       helper.make_node("ReduceSum", ["sum", "k"], ["next"], keepdims=0)],
    "steered inside": [helper.make_node("Cast", ["s"], ["whole"], to=7),
                       helper.make_node("ReduceSum", ["step", "whole"], ["sum"], keepdims=0),
                       helper.make_node("Mul", ["s", "sum"], ["next"])],
}  # fmt: skip


@pytest.mark.parametrize("what", SCANNED)
def test_a_body_that_depends_on_the_input_otherwise_than_by_its_states_is_refused(what):
    x, k, s = np.ones((4, 3), np.float32), np.zeros(1, np.int64), np.zeros((), np.float32)
    s = np.zeros((3,), np.float32) if what == "around" else s
    body = helper.make_graph([*SCANNED[what], helper.make_node("Identity", ["next"], ["shown"])], "body",
                             [info("s"), info("step")], [info("next"), info("shown")])  # fmt: skip
    nodes = [helper.make_node("Gather", ["x", "k"], ["row"]), helper.make_node("Squeeze", ["row"], ["doubled"]),
             helper.make_node("Scan", ["s0", "x"], ["end", "all"], body=body, num_scan_inputs=1)]  # fmt: skip
    graph = from_onnx(model(nodes, {"x": x, "k": k, "s0": s}, ["end", "all"]))
    graph(x=x, k=k, s0=s)
    with pytest.raises(ConversionError, match=r"body of a Scan uses a value|numbers of .* are read"):
        to_onnx(graph, inputs={"x": x, "k": k, "s0": s})


STEERED = {
    "If": (["k"], np.array(True)),
    "Slice": (["x", "zero", "k"], np.array([1])),
    "Expand": (["x", "k"], np.array([4, 3])),
    "GatherND": (["x", "k"], np.array([[1], [1]])),
    "Trilu": (["x", "k"], np.array(1)),
}


@pytest.mark.parametrize("op", STEERED)
def test_inputs_that_steer_a_graph_that_was_read_are_refused(op):
    given, steering = STEERED[op]
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "branch", [], [info("z")])
    other = helper.make_graph([helper.make_node("Exp", ["x"], ["u"])], "other", [], [info("u")])
    node = helper.make_node(op, given, ["y"], **({"then_branch": branch, "else_branch": other} if op == "If" else {}))
    inputs = {"x": np.ones((4, 3), np.float32), "k": steering}
    graph = from_onnx(model([node], inputs, ["y"], {"zero": np.array([0])}))
    for example in (None, inputs):
        with pytest.raises(ConversionError, match=r"numbers of k .* depends? on the input"):
            to_onnx(graph, inputs=example)


# -- what is refused ---------------------------------------------------------------------------------------------

REFUSALS = {
    r"numbers of x \(4, 3, 6\) float64, which depends on the input, are read, by": lambda x: x + np.abs(x.numpy()),
    r"numbers of max \(\) float64": lambda x: x * x.max().item(),
    r"numbers of mean \(\) float64": lambda x: x * 2 if x.mean().item() > 0 else x * -3,
    r"numbers of sum \(\) float64": lambda x: x * 2 if float(x.sum()) < 1e9 else x * -3,
    r"numbers of less .* bool, which": lambda x: x * 2 if bool((x < 1e9).numpy().any()) else x,
    r"numbers of less \(\) bool": lambda x: x * 2 if x.min() < 1e9 else x,
    r"numbers of astype \(\) int64": lambda x: x[: int(x[0, 0, 0].astype(np.int64))],
    r"numbers of x \(4, 3, 6\) float64, which depends on the input": lambda x: x + np.sort(np.asarray(x.detach())),
    r"numbers of index \(6,\) float64": lambda x: x * x[0, 0].tolist()[0],
    r"an operand of mul is 2 at T = 4, N = 3, and 3 at T = 164, N = 3": lambda x: x * (2 if len(x) < 100 else 3),
    r"a length that is no simple formula of those of its inputs": lambda x: x[: min(len(x), 50)],
    r"key= of index is 1 at T = 4, N = 3, and 0 at T = 3": lambda x: x * x[min(len(x) - 3, 1)],
    r"a Python loop or an if that follows": lambda x: sum(x[t] for t in range(len(x))),
    r"an operand of mul is 2 at T = 4, N = 3, and 3 at T = 6, N = 3": lambda x: x * (x.shape[0] // 2),
    r"the model makes a length that is no": lambda x: x[: x.shape[0] // 2],
    r"a length that is no simple formula": lambda x: tg.broadcast_to(x[:1, :1, 0], (x.shape[0] ** 2, 3)),
    r"an operand of stack is one of 4 in one run of the model, and one of 6": lambda x: tg.stack([x[0]] * len(x)),
    r"dtype= of astype is 'float32' in one run of the model, and 'float64' in another": lambda x: x.astype(
        "float32" if len(x) == 4 else "float64"),
    r"an operand of add depends on the input by a way": lambda x: x + tg.tensor(
        np.random.default_rng().normal()),
    r"random numbers": lambda x: x * tg.rand(*x.shape),
    r"the model returns 's' among its outputs, which is no tensor": lambda x: (x, "s"),
    r"the model returns nothing": lambda x: (),
    r"runs at T = 4, N = 3, but not at T = 6, N = 3: .* leave that axis out": lambda x: x + tg.ones((4, 3, 6)),
    r"gru_layer is not written to ONNX: call the layer": lambda x: nn.fused.gru_layer(
        x, tg.zeros((x.shape[1], H), dtype=np.float64), GRU.cells[0].W, GRU.cells[0].U, GRU.cells[0].b, 0.0, True,
        cell=GRU.cells[0]),
    r"twice has no counterpart in ONNX": lambda x: twice(x),
}  # fmt: skip


@tg.primitive("linear", dx=lambda g: g + g)
def twice(xp, x):
    """A primitive of somebody's own."""
    return x + x


@pytest.mark.parametrize("message", REFUSALS)
def test_what_cannot_be_written_is_refused_with_the_reason(message):
    x = np.random.default_rng(1).normal(size=(4, 3, 6))
    with pytest.raises(ConversionError, match=message):
        to_onnx(REFUSALS[message], inputs=[x], dynamic={"x": {0: "T", 1: "N"}})


def test_what_changes_only_at_sizes_that_were_not_traced_is_caught_by_the_proof():
    for length in (11, 215):
        f = lambda x, length=length: x * (2 if x.shape[0] != length else 3)  # noqa: E731
        with pytest.raises(ConversionError, match=rf"computes another output.* with x \({length}, 3\)"):
            to_onnx(f, inputs=[np.ones((4, 3))], dynamic={"x": {0: "T"}})


def test_numbers_of_constants_may_be_read_and_those_of_inputs_shown():
    x, W = np.arange(12.0).reshape(4, 3), tg.tensor(np.arange(1.0, 4.0))
    f = lambda x: (x * W.numpy().max() * float((W * 2).sum()), repr(x))[0]  # noqa: E731
    agree(run(to_onnx(f, inputs=[x], dynamic={"x": {0: "T"}}), {"x": x}), leaves(f(tg.tensor(x))))


def test_a_model_that_takes_no_fewer_steps_is_written_all_the_same():
    f = lambda x: x[4] * 2  # noqa: E731
    x = np.arange(15.0).reshape(5, 3)
    agree(run(to_onnx(f, inputs=[x], dynamic={"x": {0: "T"}}), {"x": x}), leaves(f(tg.tensor(x))))


@pytest.mark.parametrize("wrong, message", [
    ({"nodes": "yes"}, "nodes is 'yes'"),
    ({"opset": 7}, "opset is 7"),
    ({"dynamic": {"y": {0: "T"}}}, "dynamic speaks of 'y', and the inputs are x"),
    ({"dynamic": {"x": {3: "T"}}}, "the number of an axis"),
    ({"dynamic": {"x": {0: "T", 1: "T"}}}, "T is 5 in one example, and 3 in x"),
    ({"inputs": []}, "inputs is empty"),
    ({"outputs": ["a"]}, "2 different names are needed"),
    ({"outputs": 5}, "outputs= takes a list of names, not int"),
    ({"outputs": ["a", 5]}, "outputs= takes names, not int"),
    ({"path": 5}, "path= takes the path of a file, not int"),
    ({"inputs": 5}, "inputs= takes example arrays by name or in order, not int"),
    ({"dynamic": 5}, "dynamic= takes the axes by input"),
    ({"dynamic": {"x": ["T"]}}, "dynamic= takes the axes by input"),
])  # fmt: skip
def test_wrong_options_say_what_would_be_right(wrong, message):
    with pytest.raises(OptionError, match=message):
        to_onnx(nn.GRU(I, H), **wrong)


def test_models_whose_inputs_are_not_known_ask_for_them():
    with pytest.raises(OptionError, match="what goes into tanh is not known; give inputs="):
        to_onnx(tg.tanh)
    with pytest.raises(OptionError, match="states=True is for recurrent layers"):
        to_onnx(nn.Linear(I, H), states=True)
    with pytest.raises(OptionError, match="which Linear does not"):
        to_onnx(nn.Linear(I, H), lengths=True)
    with pytest.raises(OptionError, match="a module or a function of tensors, not a int"):
        to_onnx(3)


def test_without_onnx_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackage, match=r"to_onnx needs onnx .*pip install 'tinygrad_rnn\[onnx\]'"):
        to_onnx(nn.GRU(I, H))


def test_the_message_for_what_is_not_written_names_the_table():
    with pytest.raises(
        ConversionError, match=r"twice has no counterpart .* add how it is written to (\S+)$"
    ) as refusal:
        to_onnx(twice, inputs=[np.ones(3)])
    module, _, table = str(refusal.value).split()[-1].rpartition(".")
    assert getattr(importlib.import_module(module), table) is onnx_emission.EMITTERS


def test_a_primitive_of_your_own_can_be_taught(monkeypatch):
    monkeypatch.setitem(onnx_emission.EMITTERS, "twice", lambda g, inputs, options, out: g.add(
        "Add", g.of(inputs[0], out[0].dtype), g.of(inputs[0], out[0].dtype)))  # fmt: skip
    x = np.arange(6.0).reshape(2, 3)
    agree(run(to_onnx(twice, inputs=[x]), {"x": x}), leaves(twice(tg.tensor(x))))


def test_without_onnxruntime_the_package_proves_what_it_has_written(monkeypatch):
    monkeypatch.setattr(onnx_proof, "RUNTIMES", {"this package": onnx_proof._ours})
    for layer, mutant in ((nn.MinimalGRU(I, H), "ended sequences that go on"), (nn.GRU(I, H), "lengths ignored")):
        report = Report()
        to_onnx(with_numbers(layer), lengths=True, report=report)
        assert report.notes == ["this package has run it, and computes the same"]
        with monkeypatch.context() as patch:
            mutated(patch, *MUTANTS[mutant])
            with pytest.raises(ConversionError, match="computes another"):
                to_onnx(with_numbers(layer), lengths=True)


@pytest.mark.parametrize("ours, theirs, message", [
    ([1.0, 2.0], [1.0, 2.1], "computes another y, off by 0.1"),
    ([1.0, np.nan], [1.0, 2.0], "computes another y"),
    ([1.0, np.inf], [1.0, -np.inf], "computes another y"),
    ([1, 2], [1, 3], "off by 1"),
    ([True, False], [True, True], "off by 1"),
    ([1.0], [1], "as int64"),
    ([1.0], [[1.0]], "gives y as float64"),
])  # fmt: skip
def test_the_proof_sees_what_differs(ours, theirs, message):
    with pytest.raises(ConversionError, match=message):
        onnx_proof._compare("y", np.array(ours), np.array(theirs), "x", 1e-6)
    onnx_proof._compare("y", np.array(ours), np.array(ours), "x", 1e-6)


# -- the model stays as it was -----------------------------------------------------------------------------------


def test_the_model_stays_as_it_was():
    model = with_numbers(LanguageModel(7, I, H, 2, cell="gru", dropout=0.5))
    (model(np.array([[1], [2]]))[0] ** 2).sum().backward()
    calls = []
    model.head.W.register_hook(calls.append)
    before = [(t, t.numpy().copy(), t.grad.numpy().copy(), t.age, t.name) for t in model.parameters()]
    mode = current()
    to_onnx(model, states=True)
    for tensor, value, grad, age, name in before:
        assert (tensor.age, tensor.name) == (age, name) and tensor.requires_grad
        np.testing.assert_array_equal(tensor.numpy(), value)
        np.testing.assert_array_equal(tensor.grad.numpy(), grad)
    assert model.training and model.recurrent.drop.training and not calls and current() is mode
    assert model(np.array([[1], [2]]))[0].requires_grad


def test_a_file_is_the_model(tmp_path):
    report = Report()
    proto = to_onnx(nn.LSTM(I, H), tmp_path / "lstm.onnx", report=report)
    assert onnx.load(tmp_path / "lstm.onnx") == proto and list(tmp_path.iterdir()) == [tmp_path / "lstm.onnx"]
    assert proto.producer_name == "tinygrad_rnn" and proto.opset_import[0].version == 22 and proto.ir_version == 10
    assert [(move.source, move.target) for move in report.moves] == [
        ("cells.0.W", "W[0]"), ("cells.0.U", "R[0]"), ("cells.0.b", "B[0]")]  # fmt: skip
    assert "gates i o f g, transposed" in str(report)


def test_frozen_weights_are_noted():
    gru, report = nn.GRU(I, H), Report()
    gru.cells[0].U.requires_grad = False
    to_onnx(gru, report=report)
    assert "ONNX has no place for what is frozen (requires_grad=False): cells.0.U" in report.notes


def test_what_is_refused_leaves_no_file(tmp_path):
    with pytest.raises(ConversionError):
        to_onnx(lambda x: x * x.numpy(), tmp_path / "x.onnx", inputs=[np.ones((2, 3)) - np.eye(2, 3)])
    assert not list(tmp_path.iterdir())


def test_opsets():
    for opset in (20, 21, 23):
        proto = to_onnx(with_numbers(nn.GRU(I, H)), opset=opset)
        assert proto.opset_import[0].version == opset
        onnx.checker.check_model(proto, full_check=True)


# -- wrong ways that the checks above catch ----------------------------------------------------------------------

MUTANTS = {
    "wrong gate order": (packing, "arrays_of", "for gate in slot.gates]", "for gate in slot.gates[::-1]]"),
    "a transposed matrix": (packing, "_joined", "block.T for block in blocks", "block for block in blocks"),
    "the recurrent bias ignored": (packing, "gate_parts", '{"n": c}', "{}"),
    "the initial state ignored": (LayerWriter, "_node", "if start is not None}", "if False}"),
    "the initial state of another layer": (
        LayerWriter, "_start", "([at * D]), g.integers([at * D + D])", "([0]), g.integers([D])",
    ),
    "the other direction": (onnx_recurrent, "_attributes", '"reverse"', '"forward"'),
    "the reset after the product ignored": (onnx_recurrent, "_attributes", '"after"', '"never"'),
    "lengths ignored": (LayerWriter, "_node", 'given["sequence_lens"] = ', "ignored = "),
    "lengths ignored in a Scan": (LayerWriter, "_scans", "if self.lengths is None else", "if True else"),
    "a Scan forward only": (LayerWriter, "_scan", "int(reverse)", "0"),
    "ended sequences that go on": (LayerWriter, "_scan", "each.name, given[name].name", "each.name, each.name"),
    "sequences of no steps that begin at zero": (LayerWriter, "_kept", "end, start)", "end, end)"),
    "peepholes in our order": (packing, "_reordered", "in target.gates", "in source.gates"),
}  # fmt: skip


def every_layer():
    """Layers that between them use whatever a layer can have; wide enough that transposed matrices are square too."""
    more = {"states": True, "lengths": True}
    after = {"reset": "after", "recurrent_bias": True}
    yield nn.GRU(H, H, reverse=True, **after), more
    yield nn.LSTM(H, H, 2), more
    yield nn.GRU(H, H, dtype=np.float64, reverse=True, **after), more
    yield varied.VariedLSTM(H, H, peepholes=True), more


def held(layer, options):
    proto, (T, N) = to_onnx(layer, **options), SIZES[-1]
    given = sequences(layer, T, N, **options)
    given["x"] = np.random.default_rng(9).normal(size=(T, N, H)).astype(layer.cells[0].W.dtype)
    agree(run(proto, given), leaves(layer(**given)))


@pytest.mark.parametrize("proved", [True, False], ids=["by the proof", "by these tests"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_way_is_caught(mutant, proved, monkeypatch):
    layers = [(with_numbers(layer), options) for layer, options in every_layer()]
    for layer, options in layers:
        held(layer, options)
    mutated(monkeypatch, *MUTANTS[mutant])
    if not proved:
        monkeypatch.setattr(onnx_writing, "prove", lambda *_: True)
    caught = 0
    for layer, options in layers:
        try:
            held(layer, options)
        except (ConversionError, AssertionError) as error:
            caught += isinstance(error, ConversionError) == proved
    assert caught


@pytest.mark.parametrize("between", [(12, 100), (30, 50), (90, 130), (150, 200), (0, 4)])
def test_an_if_on_a_length_is_refused_where_one_of_the_lengths_shows_it(between):
    low, high = between
    x = np.ones((5, 2, I), np.float32)
    with pytest.raises(ConversionError):
        to_onnx(lambda x: x * 3 if low < x.shape[0] < high else tg.tanh(x), inputs={"x": x}, dynamic={"x": {0: "T"}})
