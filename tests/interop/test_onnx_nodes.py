"""Recurrent nodes of ONNX with all their attributes, against ONNX Runtime and against ONNX's text in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from golden.activations import FORMULAS
from interop.modules import leaves
from interop.onnx_oracles import ALPHA, BETA, GATES, arrays_for, by_runtime, by_the_text, node_model
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ConversionError, FileError, ShapeError, TinygradError
from tinygrad_rnn.interop import OnnxModel, cells, conventions, from_onnx, packing
from tinygrad_rnn.interop.onnx_ import nodes as onnx_nodes
from tinygrad_rnn.interop.onnx_ import reading as onnx_reading
from tinygrad_rnn.interop.report import Report

STATES = ("initial_h", "initial_c")


def held(op, arrays, *, tolerance, oracle, given=("X",), **attributes):
    """The model computes what the oracle does."""
    proto, inputs = node_model(op, arrays, given=given, **attributes)
    found = from_onnx(proto)
    got = leaves(found(**inputs)) if isinstance(found, OnnxModel) else as_node(found, inputs, attributes.get("layout"))
    wanted = by_runtime(proto, inputs) if oracle == "runtime" else by_the_text(op, arrays, **attributes)
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted):
        assert mine.dtype == arrays["X"].dtype and mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


def as_node(layer, inputs, layout):
    """What a layer that stands for a whole graph returns, in ONNX's shapes."""
    X, lengths = inputs["X"], inputs.get("sequence_lens")
    states = [inputs.get(name) for name in STATES]
    if layout:
        states = [None if s is None else s.swapaxes(0, 1) for s in states]
    extra = {"c_0": states[1]} if isinstance(layer, nn.LSTM) else {}
    output, *ends = leaves(layer(X, states[0], lengths, **extra))
    Y = output.reshape(*output.shape[:2], 1 + layer.bidirectional, layer.hidden_size)
    if layout:
        return [Y, *[end.swapaxes(0, 1) for end in ends]]
    return [Y.swapaxes(1, 2), *ends]


def lists(op, directions, *names):
    """As many names of activations as a node needs, beginning with those."""
    count = {"RNN": 1, "GRU": 2, "LSTM": 3}[op] * directions
    return [names[i % len(names)] for i in range(count)]


CASES = {
    "forward": {},
    "reverse": {"direction": "reverse"},
    "both": {"direction": "bidirectional"},
    "clip": {"clip": 0.6},
    "clip in both": {"clip": 0.4, "direction": "bidirectional"},
    "no bias": {"bias": False},
    "no states": {"states": False, "direction": "bidirectional"},
    "lengths": {"lengths": True},
    "lengths in reverse": {"lengths": True, "direction": "reverse", "clip": 0.7},
    "lengths in both": {"lengths": True, "direction": "bidirectional"},
}
OF_ITS_OWN = {
    "RNN": {"relu": {"activations": ["Relu"]},
            "tanh and relu": {"activations": ["Tanh", "Relu"], "direction": "bidirectional"}},
    "GRU": {"after": {"linear_before_reset": 1}, "after, clip": {"linear_before_reset": 1, "clip": 0.5},
            "after, both": {"linear_before_reset": 1, "direction": "bidirectional", "lengths": True},
            "after, no bias": {"linear_before_reset": 1, "bias": False}},
    "LSTM": {"peepholes": {"peepholes": True}, "coupled": {"input_forget": 1},
             "all at once": {"input_forget": 1, "peepholes": True, "clip": 0.8, "direction": "bidirectional",
                             "lengths": True},
             "peepholes in both": {"peepholes": True, "direction": "bidirectional"}},
}  # fmt: skip
ALL = [(op, name, settings) for op in GATES for name, settings in (CASES | OF_ITS_OWN[op]).items()]


def parted(op, settings, dtype):
    """Arrays, and attributes of the node."""
    ours = {key: settings[key] for key in ("bias", "states", "lengths", "peepholes") if key in settings}
    attributes = {key: value for key, value in settings.items() if key not in ours}
    D = 1 + (settings.get("direction") == "bidirectional")
    return arrays_for(op, np.random.default_rng(7), D=D, dtype=dtype, **ours), attributes


@pytest.mark.parametrize("op, name, settings", ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_as_onnx_runtime(op, name, settings):
    arrays, attributes = parted(op, settings, np.float32)
    held(op, arrays, tolerance=1e-6, oracle="runtime", given=("X", "sequence_lens", *STATES), **attributes)
    held(op, arrays, tolerance=1e-6, oracle="runtime", **attributes)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op, name, settings", ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_as_the_text(op, name, settings, layout):
    arrays, attributes = parted(op, settings, np.float64)
    if layout:
        turned = {"X", *STATES} & arrays.keys()
        arrays |= {name: arrays[name].swapaxes(0, 1).copy() for name in turned}
        attributes["layout"] = 1
    held(op, arrays, tolerance=1e-12, oracle="text", **attributes)
    held(op, arrays, tolerance=1e-12, oracle="text", given=("X", "sequence_lens", *STATES), **attributes)


@pytest.mark.parametrize("numbers", ["usual", "given"])
@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("name", FORMULAS)
def test_every_activation(name, op, numbers):
    """For the gates and for the rest, with alpha and beta left out and given, another one in each direction."""
    attributes = {"direction": "bidirectional", "activations": lists(op, 2, name, "Tanh", "Sigmoid", "HardSigmoid")}
    arrays = {key: 0.5 * array for key, array in arrays_for(op, np.random.default_rng(3), D=2).items()}
    if numbers == "given":
        takers = [sum(each in table for each in attributes["activations"]) for table in (ALPHA, BETA)]
        attributes |= {"activation_alpha": [0.3 + 0.1 * i for i in range(takers[0])]} if takers[0] else {}
        attributes |= {"activation_beta": [0.6 - 0.1 * i for i in range(takers[1])]} if takers[1] else {}
    elif name in ("Affine", "ScaledTanh", "ThresholdedRelu"):
        with pytest.raises(ConversionError, match=f"activation_alpha lacks a number for {name}"):
            from_onnx(node_model(op, arrays, **attributes)[0])
        return
    held(op, arrays, tolerance=1e-6, oracle="runtime", **attributes)
    wide = {key: array.astype(np.float64) for key, array in arrays.items()}
    proto, inputs = node_model(op, wide, **attributes)
    for mine, theirs in zip(leaves(from_onnx(proto)(**inputs)), by_the_text(op, wide, **attributes)):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("op", GATES)
def test_a_sequence_of_no_steps(op):
    arrays = arrays_for(op, np.random.default_rng(1), lengths=True)
    arrays["sequence_lens"][1] = 0
    held(op, arrays, tolerance=1e-6, oracle="runtime")


@pytest.mark.parametrize("op", GATES)
def test_half_precision(op):
    arrays = arrays_for(op, np.random.default_rng(1))
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    proto, inputs = node_model(op, half)
    wanted = by_the_text(op, {name: array.astype(float) for name, array in half.items()})
    for mine, theirs in zip(leaves(from_onnx(proto)(**inputs)), wanted):
        assert mine.dtype == np.float16
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-2)


@pytest.mark.parametrize("opset", [1, 3, 7, 14, 22])
@pytest.mark.parametrize("op", GATES)
def test_every_opset(op, opset):
    extra = {"output_sequence": 1} if opset < 7 else {}
    arrays = arrays_for(op, np.random.default_rng(1))
    proto, inputs = node_model(op, arrays, opset=opset, **extra)
    for mine, theirs in zip(leaves(from_onnx(proto)(**inputs)), by_the_text(op, arrays)):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


# -- which layer it becomes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op, layer", [("RNN", nn.RNN), ("GRU", nn.GRU), ("LSTM", nn.LSTM)])
def test_what_our_cells_compute_becomes_our_layer(op, layer):
    arrays = arrays_for(op, np.random.default_rng(1), D=2)
    proto, _ = node_model(op, arrays, given=("X", "sequence_lens", *STATES), direction="bidirectional")
    found = from_onnx(proto)
    assert type(found) is layer and found.bidirectional and nn.fused.can(found.cells[0])
    assert all(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("op, attributes, layer", [
    ("RNN", {"clip": 1.0}, cells.VariedRNN), ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, cells.VariedGRU),
    ("LSTM", {"input_forget": 1}, cells.VariedLSTM),
])  # fmt: skip
def test_what_they_do_not_becomes_a_varied_one(op, attributes, layer):
    arrays = arrays_for(op, np.random.default_rng(1), states=False)
    assert type(from_onnx(node_model(op, arrays, **attributes)[0])) is layer


def test_states_of_the_file_are_part_of_the_model():
    arrays = arrays_for("GRU", np.random.default_rng(1))
    model = from_onnx(node_model("GRU", arrays)[0])
    assert isinstance(model, OnnxModel) and type(model.layer) is nn.GRU and list(model.layers) == ["walk"]
    assert model.weights["initial_h"].requires_grad
    tg.sum(model(arrays["X"])[1]).backward()
    assert model.weights["initial_h"].grad is not None


def test_a_start_of_zeros_is_not_trained():
    """torch writes it into the file where N is fixed; it is no parameter there either."""
    arrays = arrays_for("LSTM", np.random.default_rng(1))
    arrays["initial_h"] = 0 * arrays["initial_h"]
    model = from_onnx(node_model("LSTM", arrays)[0])
    assert list(model.constants) == ["initial_h"] and list(model.weights) == ["initial_c"]


def test_a_report_says_what_went_where():
    report = Report()
    arrays = arrays_for("LSTM", np.random.default_rng(1), states=False, peepholes=True)
    from_onnx(node_model("LSTM", arrays)[0], report=report)
    assert [(m.source, m.target) for m in report.moves] == [
        ("walk.W", "cells.0.W"), ("walk.R", "cells.0.U"), ("walk.B", "cells.0.b"), ("walk.P", "cells.0.P"),
    ]  # fmt: skip
    assert report.moves[3].how == "gates i o f"


def test_weights_that_serve_twice_are_two_and_the_report_says_so():
    arrays = arrays_for("RNN", np.random.default_rng(1), I=2, H=2, states=False)
    proto, _ = node_model("RNN", arrays)
    again = proto.graph.node.add()
    again.CopyFrom(proto.graph.node[0])
    again.name, again.output[:] = "again", ["Z", "Z_h"]
    proto.graph.output.add(name="Z")
    report = Report()
    model = from_onnx(proto, report=report)
    assert list(model.layers) == ["walk", "again"]
    assert "W serves node 'walk' (RNN) and node 'again' (RNN)" in str(report)


# -- refusals ----------------------------------------------------------------------------------------------------

REFUSED = {
    "an attribute of no node": ({"shape": 3}, "shape"),
    "one of another node": ({"input_forget": 1}, "input_forget"),
    "direction": ({"direction": "sideways"}, "sideways"),
    "activation": ({"activations": ["Sigmoid", "Swish"]}, "Swish"),
    "too few": ({"activations": ["Sigmoid"]}, "2 are needed"),
    "alphas to spare": ({"activations": ["HardSigmoid", "Tanh"], "activation_alpha": [0.1, 0.2]}, "activation_alpha"),
    "clip": ({"clip": -1.0}, "clip"),
    "layout": ({"layout": 2}, "layout"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_names_node_and_attribute(what):
    attributes, word = REFUSED[what]
    proto, _ = node_model("GRU", arrays_for("GRU", np.random.default_rng(1)), **attributes)
    with pytest.raises(ConversionError, match=f"'walk' .*{word}"):
        from_onnx(proto)


def test_attributes_of_a_wrong_type():
    proto, _ = node_model("GRU", arrays_for("GRU", np.random.default_rng(1)), clip=1)
    with pytest.raises(FileError, match="clip = 1"):
        from_onnx(proto)


@pytest.mark.parametrize(
    "name, shape", [("W", (1, 6, 5)), ("W", (2, 6, 5)), ("R", (6, 2)), ("B", (1, 11)), ("P", (1, 5))]
)
def test_arrays_that_do_not_fit(name, shape):
    arrays = arrays_for("LSTM", np.random.default_rng(1)) | {name: np.ones(shape, np.float32)}
    with pytest.raises(ShapeError, match="walk"):
        from_onnx(node_model("LSTM", arrays)[0])


def test_hidden_size_is_checked():
    proto, _ = node_model("GRU", arrays_for("GRU", np.random.default_rng(1)))
    next(a for a in proto.graph.node[0].attribute if a.name == "hidden_size").i = 3
    with pytest.raises(ShapeError, match="hidden_size is 3"):
        from_onnx(proto)


def test_weights_that_depend_on_an_input():
    proto, _ = node_model("GRU", arrays_for("GRU", np.random.default_rng(1)), given=("X", "R"))
    with pytest.raises(ConversionError, match="its R, 'R', is an input"):
        from_onnx(proto)


def test_arrays_of_two_dtypes():
    arrays = arrays_for("GRU", np.random.default_rng(1))
    with pytest.raises(TinygradError, match="float64"):
        from_onnx(node_model("GRU", arrays | {"B": arrays["B"].astype(np.float64)})[0])


# -- wrong implementations ---------------------------------------------------------------------------------------

MUTANTS = {
    "gates in another order": ("GRU", {}, conventions.Slot, None),
    "matrix not transposed": ("RNN", {}, packing, ("_blocks", "block.T", "block.T[::-1]")),
    "recurrent bias ignored": ("GRU", {}, packing, ("_cell", "c.get(gate, 0))", "0)")),
    "recurrent bias of the reset ignored": (
        "GRU", {"linear_before_reset": 1}, packing, ("_cell", 'c["n"]', '0 * c["n"]')),
    "initial state ignored": ("GRU", {}, onnx_nodes.LayerNode, ("__call__", "x, h_0, lengths)", "x, None, lengths)")),
    "initial cell state ignored": ("LSTM", {}, onnx_nodes.LayerNode, ("__call__", "c_0=c_0", "c_0=None")),
    "lengths ignored": ("GRU", {"lengths": True}, onnx_nodes.LayerNode, ("__call__", "h_0, lengths", "h_0, None")),
    "linear_before_reset ignored": (
        "GRU", {"linear_before_reset": 1}, onnx_nodes.NodeSettings, ("__init__", '"after" if', '"before" if')),
    "clip ignored": ("GRU", {"clip": 0.5}, cells, ("_clipped", "bound is None", "True")),
    "peepholes in another order": (
        "LSTM", {"peepholes": True}, packing, ("_reordered", "in target.gates", "in source.gates")),
    "output gate sees the state before": (
        "LSTM", {"peepholes": True}, cells.VariedLSTMCell,
        ("equation", "self.P[2 * H :] * c)", "self.P[2 * H :] * (c - i * g) / f)")),
    "input_forget ignored": (
        "LSTM", {"input_forget": 1}, cells.VariedLSTMCell, ("equation", "if self.input_forget", "if False")),
    "direction ignored": ("GRU", {"direction": "reverse"}, onnx_reading, ("layer_from", "== (True,)", "is None")),
    "alphas in another order": (
        "GRU", {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.1]}, onnx_nodes.NodeSettings,
        ("_activations", ".pop(0)", ".pop()")),
}  # fmt: skip


@pytest.mark.parametrize("wrong", MUTANTS)
def test_a_wrong_reader_is_caught(wrong, monkeypatch):
    op, settings, owner, change = MUTANTS[wrong]
    arrays, attributes = parted(op, settings, np.float64)
    held(op, arrays, tolerance=1e-12, oracle="text", **attributes)
    if change is None:
        rows = [row for row in conventions.CONVENTIONS if (row.key, row.classes) == ("onnx", op)]
        for row in rows:
            slots = tuple(slot._replace(gates=slot.gates[::-1]) for slot in row.slots)
            monkeypatch.setitem(vars(row), "slots", slots)
    else:
        mutated(monkeypatch, owner, *change)
    with pytest.raises(AssertionError):
        held(op, arrays, tolerance=1e-12, oracle="text", **attributes)
