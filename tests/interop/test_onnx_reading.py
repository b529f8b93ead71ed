"""`from_onnx` as its users meet it: models of PyTorch's exporters run, are drawn, explained and trained further."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from interop.onnx_oracles import arrays_for, by_runtime, helper, info, model, node_model, numpy_helper, onnx
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import ConversionError, DtypeError, OptionError, ShapeError
from tinygrad_rnn.interop import OnnxModel, as_layers, from_onnx
from tinygrad_rnn.interop.onnx_ import reading as onnx_reading
from tinygrad_rnn.interop.report import Report

torch = pytest.importorskip("torch")

T, N, V, E, H, C = 6, 3, 11, 5, 4, 7


class Reader(torch.nn.Module):
    """Symbols to log-probabilities, with one of torch's recurrent layers in between."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, E)
        self.walk = kind(E, H, **settings)
        width = H * (1 + bool(settings.get("bidirectional")))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, C)

    def forward(self, ids):
        output, _ = self.walk(self.embedding(ids))
        return torch.log_softmax(self.head(self.norm(output)), -1)


class Bare(torch.nn.Module):
    """A recurrent layer, with or without initial states."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.walk = kind(E, H, **settings)

    def forward(self, x, *state):
        output, end = self.walk(x, *([state[0] if len(state) == 1 else state] if state else []))
        return (output, *end) if isinstance(end, tuple) else (output, end)


def exported(module, inputs, path, *, dynamo=False, fold=True, free=("T", "N")):
    """What torch writes; names of inputs are x0, x1, and so on."""
    names = [f"x{i}" for i in range(len(inputs))]
    axes = {} if dynamo else {"input_names": names, "dynamic_axes": {"x0": dict(enumerate(free))}}
    axes |= {"dynamic_axes": axes["dynamic_axes"] | {name: {1: free[1]} for name in names[1:]}} if axes else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, path, dynamo=dynamo, do_constant_folding=fold, verbose=False, **axes)
    return path


def ids_of(seed, steps=T, sequences=N):
    return np.random.default_rng(seed).integers(0, V, (steps, sequences))


KINDS = {
    "RNN": (torch.nn.RNN, {}), "RNN relu": (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    "GRU": (torch.nn.GRU, {}), "LSTM": (torch.nn.LSTM, {}),
    "GRU of two layers": (torch.nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "LSTM of two layers": (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "GRU without biases": (torch.nn.GRU, {"bias": False}),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def reader(request):
    torch.manual_seed(3)
    kind, settings = KINDS[request.param]
    return Reader(kind, **settings)


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "not folded"])
def test_outputs_are_those_of_torch(reader, tmp_path, fold):
    model = from_onnx(exported(reader, (torch.tensor(ids_of(0)),), tmp_path / "reader.onnx", fold=fold))
    for ids in (ids_of(1), ids_of(2, steps=4, sequences=5)):
        wanted = reader(torch.tensor(ids)).detach().numpy()
        np.testing.assert_allclose(model(ids).numpy(), wanted, rtol=0, atol=1e-6)
        np.testing.assert_allclose(model(x0=ids.tolist()).numpy(), wanted, rtol=0, atol=1e-6)


def test_outputs_of_the_newer_exporter(tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(3)
    reader = Reader(torch.nn.GRU, num_layers=2, bidirectional=True)
    model = from_onnx(exported(reader, (torch.tensor(ids_of(0)),), tmp_path / "reader.onnx", dynamo=True))
    np.testing.assert_allclose(model(ids_of(1)).numpy(), reader(torch.tensor(ids_of(1))).detach().numpy(), atol=1e-6)
    assert len(model.layers) == 2 and not any(each.requires_grad for each in model.constants.values())


def test_training_goes_on_as_in_torch(reader, tmp_path):
    """Loss and gradients of all that both have, and a step downhill; both biases of torch have equal gradients."""
    ids, targets = ids_of(1), np.random.default_rng(5).integers(0, C, (T, N))
    model = from_onnx(exported(reader, (torch.tensor(ids),), tmp_path / "reader.onnx"))
    theirs = torch.nn.functional.nll_loss(reader(torch.tensor(ids)).reshape(-1, C), torch.tensor(targets.reshape(-1)))
    theirs.backward()
    loss = lambda: nn.nll_loss(tg.reshape(model(ids), (-1, C)), targets.reshape(-1))  # noqa: E731
    before = loss()
    before.backward()
    assert abs(before.item() - theirs.item()) < 1e-5
    gradients = dict(reader.named_parameters())
    for name in ("embedding.weight", "norm.weight", "head.bias"):
        found = model.weights[name].grad.numpy()
        np.testing.assert_allclose(found, gradients[name].grad.numpy(), rtol=0, atol=1e-5)
    cells = [cell for layer in model.layers.values() for cell in layer.cells]
    for place, cell in enumerate(cells):
        D = 1 + reader.walk.bidirectional
        end = f"l{place // D}" + "_reverse" * (place % D)
        for ours, name in (("W", "weight_ih"), ("U", "weight_hh")):
            wanted = in_our_order(gradients[f"walk.{name}_{end}"].grad.numpy(), reader.walk, cell)
            np.testing.assert_allclose(getattr(cell, ours).grad.numpy(), wanted.T, rtol=0, atol=1e-5)
        if cell.b is not None:
            wanted = in_our_order(gradients[f"walk.bias_ih_{end}"].grad.numpy(), reader.walk, cell)
            np.testing.assert_allclose(cell.b.grad.numpy(), wanted, rtol=0, atol=1e-5)
    optim.SGD(model.parameters(), 0.1).step()
    assert loss().item() < before.item()


def in_our_order(rows, layer, cell):
    """torch's blocks of gates, r z n and i f g o, in the order of our cells with the same update gate."""
    if not isinstance(layer, torch.nn.GRU):
        return rows
    assert cell.update == "old"
    r, z, n = np.split(rows, 3)
    return np.concatenate([z, r, n])


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("kind, settings", [
    (torch.nn.GRU, {}), (torch.nn.LSTM, {"bidirectional": True}), (torch.nn.RNN, {"num_layers": 2}),
    (torch.nn.LSTM, {"batch_first": True, "num_layers": 2}),
], ids=str)  # fmt: skip
def test_a_bare_layer_of_torch(kind, settings, states, tmp_path):
    torch.manual_seed(1)
    module = Bare(kind, **settings)
    D = settings.get("num_layers", 1) * (1 + bool(settings.get("bidirectional")))
    x = torch.randn((N, T, E) if settings.get("batch_first") else (T, N, E))
    given = [torch.randn(D, N, H) for _ in range(1 + (kind is torch.nn.LSTM))] if states else []
    free = ("N", "T") if settings.get("batch_first") else ("T", "N")
    model = from_onnx(exported(module, (x, *given), tmp_path / "bare.onnx", free=free))
    found = model(x.numpy(), *[state.numpy() for state in given])
    for mine, theirs in zip(found, module(x, *given), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.detach().numpy(), rtol=0, atol=1e-6)
    assert all(isinstance(layer, nn.recurrent.Recurrent) for layer in model.layers.values())


# -- what an OnnxModel is ----------------------------------------------------------------------------------------


def with_a_head():
    """A GRU and a product, with two outputs; the file holds the initial state."""
    rng = np.random.default_rng(4)
    arrays = arrays_for("GRU", rng, T=T)
    head = rng.standard_normal((2, C)).astype(np.float32)
    nodes = [
        helper.make_node("GRU", ["X", "W", "R", "B", "", "initial_h"], ["Y", "Y_h"], hidden_size=2, name="walk"),
        helper.make_node("Mul", ["Y", "half"], ["smaller"]),
        helper.make_node("MatMul", ["smaller", "head"], ["logits"]),
    ]
    weights = {**arrays, "head": head, "half": np.array(0.5, np.float32)}
    x = weights.pop("X")
    return model(nodes, {"X": x}, ["logits", "Y_h"], weights), x


def test_parameters_are_the_floats_with_axes():
    made = from_onnx(with_a_head()[0])
    assert [name for name, _ in made.named_parameters()] == [
        "layers.walk.cells.0.W", "layers.walk.cells.0.U", "layers.walk.cells.0.b", "weights.initial_h", "weights.head",
    ]  # fmt: skip
    assert list(made.constants) == ["half"] and type(made.layer) is nn.GRU


def test_state_goes_to_another_of_its_kind():
    one, other = (from_onnx(with_a_head()[0]) for _ in range(2))
    for parameter in one.parameters():
        parameter.assign_(parameter.numpy() * 2)
    other.load_state_dict(one.state_dict())
    x = with_a_head()[1]
    assert np.array_equal(one(x)[0].numpy(), other(x)[0].numpy())


def test_a_copy_has_weights_of_its_own():
    proto, x = with_a_head()
    made = from_onnx(proto)
    twin, before = copy.deepcopy(made), made(x)[0].numpy()
    for parameter in twin.parameters():
        parameter.assign_(parameter.numpy() * 2)
    assert np.array_equal(made(x)[0].numpy(), before) and not np.array_equal(twin(x)[0].numpy(), before)


def test_it_is_drawn_and_explained():
    proto, x = with_a_head()
    made = from_onnx(proto)
    y = made(x)[0]
    assert "walk" in tg.draw(y).dot
    loss = tg.sum(y)
    assert str(tg.explain(made.layer.cells[0].W, of=loss))
    with tg.debug():
        assert tg.draw(made(x)[0]).dot


def test_the_report_shows_all_of_it():
    report = Report()
    from_onnx(with_a_head()[0], report=report)
    assert [move.source for move in report.moves] == ["walk.W", "walk.R", "walk.B", "initial_h", "head"]
    assert [move.target for move in report.moves][2:] == ["layers.walk.cells.0.b", "weights.initial_h", "weights.head"]
    assert report.notes == ["The model takes X, and gives logits, Y_h."]


def test_inputs_that_do_not_fit():
    proto, x = with_a_head()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 5
    made = from_onnx(proto)
    with pytest.raises(OptionError, match="takes X"):
        made()
    with pytest.raises(OptionError, match="takes X; given are 1 without a name, Z"):
        made(x, Z=x)
    with pytest.raises(DtypeError, match=r"X is float64.*X.astype\('float32'\) would fit"):
        made(x.astype(np.float64))
    with pytest.raises(ShapeError, match=r"X has shape .*\(X_0, X_1, 5\)"):
        made(x[:, :, 1:])
    with pytest.raises(ShapeError, match="X has shape"):
        made(x[0])
    assert np.array_equal(made(x.tolist())[0].numpy(), made(tg.tensor(x))[0].numpy())


def test_the_only_layer():
    nodes = [helper.make_node("Relu", ["X"], ["y"])]
    with pytest.raises(OptionError, match="0 recurrent layers"):
        _ = from_onnx(model(nodes, {"X": np.ones((2, 3), np.float32)}, ["y"])).layer


def test_weights_made_of_arrays_in_the_file():
    """Cut, joined, turned and shifted as exporters do it: the same layer as from whole arrays."""
    arrays = arrays_for("GRU", np.random.default_rng(0), states=False)
    whole = from_onnx(node_model("GRU", arrays)[0])
    W, R, B = (arrays[name][0] for name in "WRB")
    weights = {"W_z": W[:2].T, "W_rest": W[2:], "R_0": R, "b": B[:6], "c": B[6:] + 1, "one": np.float32(1)}
    weights |= {"first": np.array([0]), "last": np.array([6]), "sizes": np.array([1, 12]), "none": np.array([0, 1])}
    nodes = [
        helper.make_node("Transpose", ["W_z"], ["W_z2"]),
        helper.make_node("Concat", ["W_z2", "W_rest"], ["W_0"], axis=0),
        helper.make_node("Unsqueeze", ["W_0", "first"], ["W"]),
        helper.make_node("Slice", ["R_0", "first", "last"], ["R_1"]),
        helper.make_node("Unsqueeze", ["R_1", "first"], ["R"]),
        helper.make_node("Sub", ["c", "one"], ["c_0"]),
        helper.make_node("Concat", ["b", "c_0"], ["B_0"], axis=0),
        helper.make_node("Reshape", ["B_0", "sizes"], ["B"]),
        helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], hidden_size=2),
    ]
    made = from_onnx(model(nodes, {"X": arrays["X"]}, ["Y"], weights))
    assert type(made) is nn.GRU
    for mine, wanted in zip(made.parameters(), whole.parameters(), strict=True):
        np.testing.assert_allclose(mine.numpy(), wanted.numpy(), atol=1e-6)


def test_weights_made_by_another_operator():
    arrays = arrays_for("GRU", np.random.default_rng(0), states=False)
    nodes = [
        helper.make_node("Exp", ["W_0"], ["W"], name="odd"),
        helper.make_node("GRU", ["X", "W", "R"], ["Y"], name="g"),
    ]
    with pytest.raises(ConversionError, match=r"'g' \(GRU\): its W, 'W', comes out of node 'odd' \(Exp\)"):
        from_onnx(model(nodes, {"X": arrays["X"]}, ["Y"], {"W_0": arrays["W"], "R": arrays["R"]}))


def test_a_cell_in_the_body_of_a_scan():
    """A simplified GRU, op by op, with its weights outside of the body: as ONNX Runtime, and gradients reach them."""
    rng = np.random.default_rng(8)
    W, U, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((E, 2 * H), (H, 2 * H), (2 * H,)))
    x, h = rng.standard_normal((T, N, E)).astype(np.float32), rng.standard_normal((N, H)).astype(np.float32)
    steps = [
        ("MatMul", "xW", "a"), ("MatMul", "hU", "c"), ("Add", "ac", "d"), ("Add", "db", "e"), ("Split", "e", "pq"),
        ("Sigmoid", "p", "z"), ("Tanh", "q", "n"), ("Sub", "nh", "g"), ("Mul", "zg", "s"), ("Add", "hs", "k"),
        ("Identity", "k", "y"),
    ]  # fmt: skip
    extra = {"Split": {"axis": 1, "num_outputs": 2}}
    nodes = [helper.make_node(op, ins, outs, **extra.get(op, {})) for op, ins, outs in steps]
    body = helper.make_graph(nodes, "step", [info("h", h), info("x", x[0])], [info("k", h), info("y", h)])
    scan = helper.make_node("Scan", ["h_0", "X"], ["h_n", "Y"], body=body, num_scan_inputs=1)
    proto = model([scan], {"X": x, "h_0": h}, ["h_n", "Y"], {"W": W, "U": U, "b": b})
    made = from_onnx(proto)
    for mine, theirs in zip(made(x, h), by_runtime(proto, {"X": x, "h_0": h}), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-6)
    cell = nn.MinimalGRUCell(E, H)
    for name, value in (("W", W), ("U", U), ("b", b)):
        getattr(cell, name).assign_(value)
    layer = nn.MinimalGRU(E, H)
    layer.cells = [cell]
    tg.sum(tg.square(layer(x, h[None])[0])).backward()
    tg.sum(tg.square(made(x, h)[1])).backward()
    for name in "WUb":
        np.testing.assert_allclose(
            made.weights[name].grad.numpy(), getattr(cell, name).grad.numpy(), rtol=1e-5, atol=1e-5
        )


def test_bodies_that_use_a_name_again():
    """Two bodies may each have an array of the same name; both are kept."""

    def branch(value):
        weights = [numpy_helper.from_array(np.array([value], np.float32), "w")]
        return helper.make_graph([helper.make_node("Mul", ["X", "w"], ["y"])], "branch", [], [info("y")], weights)

    node = helper.make_node("If", ["c"], ["z"], then_branch=branch(2.0), else_branch=branch(5.0))
    made = from_onnx(model([node], {"X": np.ones(3, np.float32), "c": np.array(True)}, ["z"]))
    assert sorted(made.weights) == ["w", "w_2"]
    assert [made(np.ones(3, np.float32), np.array(c)).tolist() for c in (True, False)] == [[2.0] * 3, [5.0] * 3]


def test_what_nothing_depends_on_is_left_out():
    nodes = [helper.make_node("Relu", ["X"], ["y"]), helper.make_node("Add", ["X", "unused"], ["z"])]
    made = from_onnx(model(nodes, {"X": np.ones(3, np.float32)}, ["y"], {"unused": np.ones(3, np.float32)}))
    assert not made.parameters()


def test_it_runs_on_a_gpu(gpu):
    proto, x = with_a_head()
    with tg.use_backend("numpy"):
        made = from_onnx(proto)
        wanted = [each.numpy() for each in made(x)]
    made.to(gpu)
    for mine, theirs in zip(made(x), wanted, strict=True):
        assert mine.backend.startswith(gpu.partition(":")[0])
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5)


def test_lengths_may_be_tensors_here_and_on_a_gpu(gpu):
    arrays = arrays_for("GRU", np.random.default_rng(1), T=6, lengths=True, states=False)
    proto, inputs = node_model("GRU", arrays, given=("X", "sequence_lens"))
    with tg.use_backend("numpy"):
        made = from_onnx(proto, alone=False)
        wanted = [each.numpy() for each in made(**inputs)]
    made.to(gpu)
    for home in ("numpy", gpu):
        lengths = tg.tensor(inputs["sequence_lens"], backend=home)
        for mine, theirs in zip(made(X=inputs["X"], sequence_lens=lengths), wanted, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5)


def test_a_model_from_torch_runs_on_a_gpu(gpu, tmp_path):
    with tg.use_backend("numpy"):
        torch.manual_seed(3)
        reader = Reader(torch.nn.GRU, num_layers=2, bidirectional=True, batch_first=True)
        made = from_onnx(exported(reader, (torch.tensor(ids_of(0)),), tmp_path / "reader.onnx"))
    made.to(gpu)
    np.testing.assert_allclose(made(ids_of(1)).numpy(), reader(torch.tensor(ids_of(1))).detach().numpy(), atol=1e-5)


def test_a_constant_node_is_not_trained(monkeypatch):
    value = numpy_helper.from_array(np.array([2.0, 3.0], np.float32))
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Mul", ["X", "c"], ["y"])]
    proto = model(nodes, {"X": np.ones(2, np.float32)}, ["y"])
    assert not from_onnx(proto).parameters()
    mutated(monkeypatch, onnx_reading.OnnxModel, "_take", "name in graph.literals", "False")
    assert from_onnx(proto).parameters()


def test_a_path_is_text_or_a_path(tmp_path):
    proto, _ = with_a_head()
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto), full_check=True)
    onnx.save(proto, tmp_path / "model.onnx")
    assert isinstance(from_onnx(tmp_path / "model.onnx"), OnnxModel)
    assert isinstance(from_onnx(str(tmp_path / "model.onnx")), OnnxModel)


@pytest.mark.parametrize("op, attributes, function", [
    ("Elu", {}, tg.elu), ("Elu", {"alpha": 1.01}, None), ("LeakyRelu", {"alpha": 0.01}, tg.leaky_relu),
    ("LeakyRelu", {"alpha": 0.0101}, None), ("Gelu", {}, tg.gelu), ("Gelu", {"approximate": "tanh"}, None),
    ("LogSoftmax", {}, tg.log_softmax), ("Softplus", {}, tg.softplus),
])  # fmt: skip
def test_functions_between_layers_are_found_where_they_are_the_usual_ones(op, attributes, function):
    rng = np.random.default_rng(4)
    weights = {"l.W": rng.normal(size=(4, 3)).astype(np.float32), "l.b": rng.normal(size=3).astype(np.float32)}
    nodes = [helper.make_node("Gemm", ["X", "l.W", "l.b"], ["y"]), helper.make_node(op, ["y"], ["z"], **attributes)]
    proto = model(nodes, {"X": rng.normal(size=(5, 4)).astype(np.float32)}, ["z"], weights)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    if function is None:
        with pytest.raises(ConversionError, match=f"{op}.* is no part of a layer"):
            as_layers(from_onnx(proto))
    else:
        assert list(as_layers(from_onnx(proto)).layers.values())[1] is function


@pytest.mark.parametrize("other", [None, nn.GRU(3, 4)], ids=str)
def test_layers_are_those_of_a_graph(other):
    with pytest.raises(OptionError, match=r"as_layers takes what from_onnx\(source, alone=False\) gives, not"):
        as_layers(other)


class CutShort(torch.nn.Module):
    """A recurrent layer that does not see, or does not show, all steps."""

    def __init__(self, before, after):
        super().__init__()
        self.walk, self.head, self.before, self.after = torch.nn.GRU(E, H), torch.nn.Linear(H, C), before, after

    def forward(self, x):
        return self.head(self.walk(x[self.before])[0][self.after])


EVERY = slice(None)


@pytest.mark.parametrize("before, after, whole", [
    (EVERY, EVERY, True), (EVERY, -1, True), (slice(20), EVERY, False), (slice(1000), EVERY, False),
    (EVERY, slice(-1000, None), False), (EVERY, 4, False), (EVERY, 0, False), (slice(1, None), EVERY, False),
])  # fmt: skip
def test_layers_are_not_those_of_a_graph_that_leaves_steps_out(before, after, whole, tmp_path):
    torch.manual_seed(8)
    path = exported(CutShort(before, after), (torch.randn(30, 2, E),), tmp_path / "cut.onnx")
    found = from_onnx(path, alone=False)
    if whole:
        x = np.random.default_rng(3).normal(size=(9, 2, E)).astype(np.float32)
        np.testing.assert_allclose(as_layers(found)(x).numpy(), found(x).numpy(), atol=1e-6)
        return
    with pytest.raises(ConversionError, match=r"graph (cuts an axis of the length T|does more than its layers)"):
        as_layers(found)


def test_examples_of_whole_numbers_fit_what_takes_them():
    arrays = arrays_for("GRU", np.random.default_rng(1), T=9, lengths=True, states=False)
    proto, _ = node_model("GRU", arrays, given=("X", "sequence_lens"))
    for axis, size in enumerate(arrays["X"].shape):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    use = from_onnx(proto, alone=False).example_usage()
    lengths = use.inputs["sequence_lens"]
    assert lengths.min() >= 1 and lengths.max() <= 9 and len(set(lengths.tolist())) > 1
    nodes = [
        helper.make_node("Cast", ["ids"], ["whole"], to=7),
        helper.make_node("Gather", ["W", "whole"], ["y"], axis=1),
    ]
    W = np.ones((2, 40, 3), np.float32)
    ids = from_onnx(model(nodes, {"ids": np.ones((50, 2), np.int32)}, ["y"], {"W": W})).example_usage().inputs["ids"]
    assert ids.min() >= 0 and 30 < ids.max() < 40
