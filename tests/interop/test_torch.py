"""Weights to and from PyTorch: the same outputs, states, gradients and training on both sides."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from golden.loops import filled
from interop.modules import leaves, with_numbers
from interop.wrong import NO_START, READINGS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import errors, interop, nn
from tinygrad_rnn.interop import Final, Layers, Report, from_torch, load, packing, save, to_torch, torch_state
from tinygrad_rnn.interop.cudnn import from_cudnn, to_cudnn
from tinygrad_rnn.interop.torch_ import modules as torch_modules
from tinygrad_rnn.interop.torch_ import reading as torch_reading
from tinygrad_rnn.train import LanguageModel

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")

T, N, I, H = 5, 3, 4, 6
LENGTHS = [5, 2, 3]
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
LAYERS = {
    "RNN": (torch.nn.RNN, {}),
    "RNN relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "GRU": (torch.nn.GRU, {}),
    "LSTM": (torch.nn.LSTM, {}),
}
FORMS = {
    "one layer": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "two layers, both directions, batch first": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}


def numbers(module):
    """The module with numbers of a formula in all its weights, not one of them zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(0.5 * filled(name, *parameter.shape)))  # so that relu stays small
    return module


def made(kind, dtype="float64", **settings):
    return numbers(kind(I, H, dtype=getattr(torch, dtype), **settings))


def inputs(module, dtype="float64"):
    """x and the initial states for a layer of torch's, as arrays."""
    D = 1 + module.bidirectional
    shape = (N, T, I) if module.batch_first else (T, N, I)
    states = 2 if isinstance(module, torch.nn.LSTM) else 1
    starts = [filled(f"state {k}", module.num_layers * D, N, H).astype(dtype) for k in range(states)]
    return filled("x", *shape).astype(dtype), starts


def theirs(module, x, starts, lengths=None):
    """Outputs and final states of torch's layer."""
    x, starts = torch.tensor(x), tuple(map(torch.tensor, starts))
    axis = 0 if module.batch_first else 1
    if lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=axis == 0, enforce_sorted=False)
    output, finals = module(x, starts if len(starts) > 1 else starts[0])
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=axis == 0, total_length=T)
    finals = finals if isinstance(finals, tuple) else (finals,)
    return [each.detach().numpy() for each in (output, *finals)]


def ours(layer, x, starts, lengths=None):
    return leaves(layer(x, **dict(zip(("h_0", "c_0"), starts)), lengths=lengths))


def agree(found, wanted, dtype="float64"):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype])


def both_ways(kind, dtype="float64", lengths=None, **settings):
    module = made(kind, dtype, **settings)
    x, starts = inputs(module, dtype)
    layer = from_torch(module)
    wanted = theirs(module, x, starts, lengths)
    agree(ours(layer, x, starts, lengths), wanted, dtype)
    agree(theirs(to_torch(layer), x, starts, lengths), wanted, dtype)
    given = {"activation": module.nonlinearity} if isinstance(module, torch.nn.RNN) else {}
    again = from_torch(torch_state(layer), batch_first=module.batch_first, **given)
    agree(ours(again, x, starts, lengths), wanted, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_on_both_sides_and_back(name, form, lengths, dtype):
    kind, settings = LAYERS[name]
    both_ways(kind, dtype, lengths, **settings, **FORMS[form])


@pytest.mark.parametrize("settings", [{}, {"bias": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_a_cell_computes_the_same_on_both_sides_and_back(name, settings):
    module = made(getattr(torch.nn, name), **settings)
    x, h, c = filled("x", N, I), filled("h", N, H), filled("c", N, H)
    state = (h, c) if name == "LSTMCell" else h
    tensors = tuple(map(torch.tensor, state)) if name == "LSTMCell" else torch.tensor(h)
    cell = from_torch(module)
    assert type(cell).__name__ == name
    found, wanted, back = cell(x, state), module(torch.tensor(x), tensors), to_torch(cell)(torch.tensor(x), tensors)
    found, wanted, back = [each if isinstance(each, tuple) else (each,) for each in (found, wanted, back)]
    agree([each.numpy() for each in found], [each.detach().numpy() for each in wanted])
    agree([each.detach().numpy() for each in back], [each.detach().numpy() for each in wanted])
    assert torch_state(cell).keys() == module.state_dict().keys()


def test_the_convention_of_torch_is_kept_verbatim():
    layer = from_torch(made(torch.nn.GRU, num_layers=2, dropout=0.25).eval())
    assert (layer.reset, layer.update, layer.recurrent_bias, layer.dropout) == ("after", "old", True, 0.25)
    assert not any(module.training for _, module in layer.named_modules())
    module = made(torch.nn.GRU)
    np.testing.assert_array_equal(from_torch(module).cells[0].c.numpy(), module.bias_hh_l0.detach().numpy()[2 * H :])


def spoiling(*change):
    return lambda patch: mutated(patch, *change)


WRONG = {name: ("GRU", spoiling(packing, *change)) for name, change in READINGS.items()} | {
    "initial state ignored": ("GRU", spoiling(*NO_START)),
    "second bias ignored": ("LSTM", spoiling(packing, *READINGS["the recurrent bias ignored"])),
    "directions swapped": ("LSTM", spoiling(torch_reading, "suffixes", '("", "_reverse")[', '("_reverse", "")[')),
    "activation forgotten": ("RNN relu", lambda patch: patch.setitem(
        torch_modules.SETTINGS, "RNN", lambda module, report: {})),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_conversion_is_caught(wrong, monkeypatch):
    name, spoil = WRONG[wrong]
    kind, settings = LAYERS[name]
    both_ways(kind, bidirectional=True, **settings)
    spoil(monkeypatch)
    with pytest.raises((AssertionError, errors.TinygradError)):
        both_ways(kind, bidirectional=True, **settings)


# -- training ----------------------------------------------------------------------------------------------------


def trajectory_there(module, steps):
    x, starts = inputs(module)
    optimizer, losses = torch.optim.SGD(module.parameters(), lr=0.1), []
    target = torch.tensor(filled("target", T, N, H * (1 + module.bidirectional)))
    for _ in range(steps):
        starts_ = tuple(map(torch.tensor, starts))
        output, _ = module(torch.tensor(x), starts_ if len(starts) > 1 else starts_[0])
        loss = ((output - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trajectory_here(layer, module, steps):
    x, starts = inputs(module)
    optimizer, losses = tg.optim.SGD(layer.parameters(), lr=0.1), []
    target = filled("target", T, N, H * (1 + module.bidirectional))
    for _ in range(steps):
        output, _ = layer(x, **dict(zip(("h_0", "c_0"), starts)))
        loss = nn.mse(output, tg.tensor(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_goes_on_here_as_it_would_there():
    """A GRU has its two biases of n apart on both sides, so that the steps of plain gradient descent are the same.

    The two biases of all other gates are one here: a step of both there moves their sum twice as far, unless one of
    them is frozen.
    """
    module = made(torch.nn.GRU, num_layers=2, bidirectional=True)
    for name, parameter in module.named_parameters():
        if "bias_hh" in name:
            parameter.register_hook(lambda g: torch.cat([0 * g[: 2 * H], g[2 * H :]]))
    layer = from_torch(module)
    np.testing.assert_allclose(trajectory_here(layer, module, 5), trajectory_there(module, 5), rtol=0, atol=1e-12)
    x, starts = inputs(module)
    agree(ours(layer, x, starts), theirs(module, x, starts))
    agree(theirs(to_torch(layer), x, starts), theirs(module, x, starts))


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_training_goes_on_there_as_it_would_here(name):
    kind, settings = LAYERS[name]
    layer = from_torch(made(kind, **settings))
    back = to_torch(layer)
    back.bias_hh_l0.requires_grad_(False)
    np.testing.assert_allclose(trajectory_there(back, 5), trajectory_here(layer, back, 5), rtol=0, atol=1e-12)


# -- models ------------------------------------------------------------------------------------------------------


class Tagger(torch.nn.Module):
    """What users write: layers by name, and Python code that connects them."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, I)
        self.encoder = torch.nn.ModuleDict({"gru": torch.nn.GRU(I, H, batch_first=True)})
        self.norm = torch.nn.LayerNorm(H, eps=1e-3)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Sequential(torch.nn.Linear(H, 8), torch.nn.GELU(), torch.nn.Linear(8, 9, bias=False))
        self.loss = torch.nn.CrossEntropyLoss()

    def forward(self, ids):
        output, _ = self.encoder["gru"](self.embedding(ids))
        return self.head(self.drop(self.norm(output)))


NAMES = ["embedding", "encoder.gru", "norm", "drop", "head.0", "head.1", "head.2"]
IDS = np.arange(N * T).reshape(N, T) % 7


def tagger():
    return numbers(Tagger().double()).eval()


def test_a_model_comes_as_its_layers_by_name_and_goes_back_into_its_own_class():
    model, report = tagger(), Report()
    model.head[2].weight.requires_grad_(False)
    model.head[0].bias.requires_grad_(False)
    layers = from_torch(model, report=report)
    assert list(layers.layers) == NAMES
    assert {move.source for move in report.moves} == model.state_dict().keys()
    assert [name for name, _ in model.named_parameters() if name not in dict(layers.named_parameters())]
    frozen = {name for name, own in layers._named_state() if not own.requires_grad}
    assert frozen == {"layers.head.2.W", "layers.head.0.b"}
    with pytest.raises(errors.OptionError, match=r"it is not known in which order embedding, encoder\.gru"):
        layers(IDS)
    with pytest.raises(errors.OptionError, match="it is not known in which order"):
        to_torch(layers)
    layers.order = NAMES
    wanted = model(torch.tensor(IDS)).detach().numpy()
    agree([layers(IDS).numpy()], [wanted])
    back = to_torch(layers)
    assert not any(module.training for module in back.modules())
    agree([back(torch.tensor(IDS)).detach().numpy()], [wanted])
    assert {name for name, p in back.named_parameters() if not p.requires_grad} == {"head.2.weight", "head.0.bias"}
    fresh = Tagger().double().eval()
    fresh.load_state_dict(back.state_dict())
    agree([fresh(torch.tensor(IDS)).detach().numpy()], [wanted])
    fresh.load_state_dict({name: torch.tensor(array) for name, array in torch_state(layers).items()})
    agree([from_torch(back)(IDS).numpy()], [wanted])
    assert from_torch(back).order == NAMES


def test_the_order_of_layers_and_their_kinds_can_be_said():
    model = tagger()
    agree([from_torch(model, layers=dict.fromkeys(NAMES))(IDS).numpy()], [model(torch.tensor(IDS)).detach().numpy()])
    state = {name: array.numpy() for name, array in model.state_dict().items()}
    kinds = {"embedding": "Embedding", "encoder.gru": "GRU", "head.0": None, "head.1": "gelu", "head.2": "Linear"}
    del state["norm.weight"], state["norm.bias"]
    layers = from_torch(state, layers=kinds, batch_first=True)
    model.norm = torch.nn.Identity()
    agree([layers(IDS).numpy()], [model(torch.tensor(IDS)).detach().numpy()])
    for kinds_, message in {
        (("embedding", "Embedding"),): "layer 'head.2' has a matrix and nothing else",
        (("embedding", "Embedding"), ("head.2", "Linear")): "layers= leaves out 'encoder.gru', 'head.0'",
        (("decoder", None),): "layer 'embedding' has a matrix and nothing else",
        (("head.0", "Conv"),): "layers= has 'head.0' of kind 'Conv'; choose from RNN, GRU",
    }.items():
        with pytest.raises((errors.OptionError, errors.ConversionError), match=message):
            from_torch(state, layers=dict(kinds_))
    with pytest.raises(errors.OptionError, match="layers= names 'decoder', and there are 'embedding'"):
        from_torch(model, layers={"decoder": None})
    with pytest.raises(errors.OptionError, match="'embedding' is of kind Linear, but it is of kind Embedding"):
        from_torch(model, layers={"embedding": "Linear"})


def test_a_chain_of_layers_keeps_its_order():
    inner = torch.nn.Sequential(torch.nn.Linear(H, 2), torch.nn.Softmax(-1))
    chain = torch.nn.Sequential(torch.nn.Linear(I, H), torch.nn.Tanh(), torch.nn.Identity(), inner)
    chain = numbers(chain.double())
    layers = from_torch(chain)
    assert layers.order == ["0", "1", "3.0", "3.1"]
    x = filled("x", T, N, I)
    agree([layers(x).numpy()], [chain(torch.tensor(x)).detach().numpy()])
    agree([to_torch(layers)(torch.tensor(x)).detach().numpy()], [layers(x).numpy()])
    assert to_torch(layers).state_dict().keys() == chain.state_dict().keys()


@pytest.mark.parametrize(
    "function",
    [torch.nn.LeakyReLU(0.2), torch.nn.LeakyReLU(), torch.nn.ELU(0.5), torch.nn.GELU("tanh"), torch.nn.GELU()],
    ids=str,
)
def test_a_function_keeps_its_settings(function, tmp_path):
    there = numbers(torch.nn.Sequential(torch.nn.Linear(I, H), function, torch.nn.Linear(H, 2)).double())
    here, x = from_torch(there), filled("x", N, I)
    save(here, tmp_path / "model.safetensors")
    for each in (here, load(tmp_path / "model.safetensors")):
        np.testing.assert_allclose(each(x).numpy(), there(torch.tensor(x)).detach().numpy(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            to_torch(each)(torch.tensor(x)).detach().numpy(), each(x).numpy(), rtol=0, atol=1e-12
        )


def test_what_was_left_out_is_named_where_the_order_is_asked_for(tmp_path):
    here = from_torch(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Hardtanh(), torch.nn.Linear(2, 3)))
    save(here, tmp_path / "model.safetensors")
    for each in (here, load(tmp_path / "model.safetensors")):
        for use in (each, to_torch):
            with pytest.raises(errors.OptionError, match=r"; 1 \(Hardtanh\) has no counterpart .*layers\['1'\] = f"):
                use(each if use is to_torch else np.ones((1, 2), np.float32))
    here.layers["1"] = lambda x: tg.clip(x, min=-1, max=1)
    here.order = ["0", "1", "2"]
    assert here(np.ones((1, 2), np.float32)).shape == (1, 3)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_compiled_layer_is_what_it_was_made_of():
    layer = numbers(torch.nn.Linear(I, H))
    here, x = from_torch(torch.compile(layer)), np.ones((2, I), np.float32)
    assert here.order == ["_orig_mod"]
    np.testing.assert_allclose(here(x).numpy(), layer(torch.tensor(x)).detach().numpy(), rtol=0, atol=1e-6)


def test_a_layer_in_two_places_stays_one():
    linear = numbers(torch.nn.Linear(I, I)).double()
    layers = from_torch(torch.nn.Sequential(linear, torch.nn.Tanh(), linear))
    assert layers["0"] is layers["2"]
    back = to_torch(layers)
    assert back.get_submodule("0") is back.get_submodule("2")


def test_tied_weights_are_spoken_of():
    model, report = torch.nn.Module(), Report()
    model.embedding, model.head = torch.nn.Embedding(7, I), torch.nn.Linear(I, 7)
    model.head.weight = model.embedding.weight
    from_torch(model, report=report)
    assert report.notes[-1].startswith("embedding.weight and head.weight are one array in torch, and one each here")


@pytest.mark.parametrize("cell", ["rnn", "minimal_gru", "lstm", "gru"])
def test_a_language_model_goes_to_torch(cell):
    settings = {"reset": "after"} if cell == "gru" else {}
    model, report = LanguageModel(7, I, H, 2, cell=cell, **settings), Report()
    there = to_torch(with_numbers(model), report=report)
    logits, _ = model(IDS)
    agree([there(torch.tensor(IDS)).detach().numpy()], [logits.numpy()], "float32")
    assert any("no simplified GRU" in note for note in report.notes) is (cell == "minimal_gru")
    agree([from_torch(there)(IDS).numpy()], [logits.numpy()], "float32")


@pytest.mark.parametrize("kind", [nn.MinimalGRU, lambda *a, **o: nn.GRU(*a, reset="after", **o), nn.LSTM])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_ours_compute_the_same_there(kind, bias):
    layer = with_numbers(kind(I, H, 2, bidirectional=True, bias=bias, dtype=np.float64))
    there = to_torch(layer)
    x, starts = inputs(there)
    agree(theirs(there, x, starts), ours(layer, x, starts))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_output_can_be_all_that_is_handed_on(bidirectional):
    lstm = nn.LSTM(I, H, 2, bidirectional=bidirectional, dtype=np.float64)
    model = Layers({"lstm": Final(lstm), "head": nn.Linear(H * (1 + bidirectional), 2, dtype=np.float64)},
                   ["lstm", "head"])  # fmt: skip
    x = filled("x", T, N, I)
    there = to_torch(model)
    agree([there(torch.tensor(x)).detach().numpy()], [model(x).numpy()])
    again = from_torch(there)
    assert isinstance(again["lstm"], Final)
    agree([again(x).numpy()], [model(x).numpy()])
    alone = to_torch(Final(lstm))
    agree([alone(torch.tensor(x)).detach().numpy()], [Final(lstm)(x).numpy()])


def test_a_model_of_ones_own_gives_its_arrays_under_names_of_torch():
    class Own(nn.Module):
        def __init__(self):
            self.read = nn.GRU(I, H, reset="after")
            self.heads = [nn.Linear(H, 2), nn.LayerNorm(2)]

    assert list(torch_state(Own())) == [
        "read.weight_ih_l0", "read.weight_hh_l0", "read.bias_ih_l0", "read.bias_hh_l0",
        "heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"]  # fmt: skip
    with pytest.raises(errors.ConversionError, match=r"load torch_state\(model\) into"):
        to_torch(Own())
    strange = Own()
    strange.scale = tg.tensor([1.0], requires_grad=True)
    with pytest.raises(errors.ConversionError, match="scale of Own is in no layer that torch has"):
        torch_state(strange)


# -- dtypes, settings and what does not travel -------------------------------------------------------------------


def test_half_precision_stays_and_bfloat16_becomes_what_holds_it():
    assert from_torch(torch.nn.Linear(I, H).half()).W.dtype == np.float16
    module, report = torch.nn.LayerNorm(I).bfloat16(), Report()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(filled("gain", I)))
    norm = from_torch(module, report=report)
    assert norm.gain.dtype == np.float32
    np.testing.assert_array_equal(norm.gain.numpy(), module.weight.float().detach().numpy())
    assert (
        "the layer was of bfloat16, which NumPy does not have, and is of float32 now: the same numbers" in report.notes
    )
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = {name: array.numpy().astype(ml_dtypes.bfloat16) for name, array in module.float().state_dict().items()}
    np.testing.assert_array_equal(from_torch(values).gain.numpy(), norm.gain.numpy())


def test_arrays_of_the_other_byte_order_become_those_of_this_machine(tmp_path):
    native = numbers(torch.nn.Linear(I, H)).state_dict()
    layer = from_torch({name: array.numpy().astype(">f4") for name, array in native.items()})
    assert all(own.dtype.isnative for own in layer.parameters())
    np.testing.assert_array_equal(to_torch(layer).weight.detach(), native["weight"])
    save(layer, tmp_path / "model.safetensors")


def test_what_is_frozen_in_part_is_noted():
    report, module = Report(), made(torch.nn.GRU)
    module.bias_ih_l0.requires_grad_(False)
    from_torch(module, report=report)
    assert [
        note for note in report.notes if note.startswith("bias_ih_l0 is frozen in torch, and part of what is cells")
    ]
    module.bias_hh_l0.requires_grad_(False)
    layer = from_torch(module, report=(report := Report()))
    assert not report.notes
    layer.cells[0].c.requires_grad = True
    assert to_torch(layer, report=report).bias_hh_l0.requires_grad
    assert report.notes == ["bias_hh_l0 is learned there, since part of it is learned here, and part is frozen"]


def test_one_line_speaks_of_the_dtype_of_a_layer():
    report = Report()
    from_torch(torch.nn.GRU(I, H, 2).bfloat16(), report=report)
    assert report.notes == [
        "the layer was of bfloat16, which NumPy does not have, and is of float32 now: the same numbers"
    ]


def test_a_norm_without_weights_keeps_to_ones_and_zeros():
    norm = from_torch(torch.nn.LayerNorm(I, elementwise_affine=False, eps=0.5))
    assert norm.eps == 0.5 and not norm.parameters()
    x = filled("x", N, I).astype(np.float32)
    agree([norm(x).numpy()], [torch.nn.functional.layer_norm(torch.tensor(x), (I,), eps=0.5).numpy()], "float32")
    assert not from_torch(torch.nn.LayerNorm(I, bias=False)).shift.requires_grad


def test_the_generators_of_both_stay_where_they_are():
    torch.manual_seed(1)
    tg.seed(1)
    before = torch.get_rng_state()
    layer = from_torch(torch_state(nn.GRU(I, H, reset="after", rng=np.random.default_rng(0))))
    to_torch(layer)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = nn.Linear(2, 3).W.numpy()
    tg.seed(1)
    np.testing.assert_array_equal(nn.Linear(2, 3).W.numpy(), drawn)


class Shouting(torch.nn.GRU):
    def forward(self, x):
        return 2 * super().forward(x)[0]


class Doubling(torch.nn.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


def hooked(module, before=False):
    """The module, or the first one in it, with a hook that doubles."""
    inner = module[0] if isinstance(module, torch.nn.Sequential) else module
    if before:
        inner.register_forward_pre_hook(lambda module, given: (2 * given[0],))
    else:
        inner.register_forward_hook(lambda module, given, output: 2 * output)
    return module


def with_forward(module):
    """The module with a function on the instance in place of its class's forward."""
    module.forward = lambda x: 5 * x
    return module


def spectral():
    return torch.nn.utils.parametrizations.spectral_norm(torch.nn.GRU(I, H), "weight_hh_l0")


REFUSED = {
    "a lazy layer": (lambda: from_torch(torch.nn.LazyLinear(5)), "LazyLinear has no weights yet: call"),
    "a sparse tensor": (
        lambda: from_torch({"weight": torch.eye(3).to_sparse(), "bias": torch.ones(3)}), "^weight is sparse .*to_den"),
    "a quantised tensor": (
        lambda: from_torch({"weight": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)},
                           layers={"": "Linear"}), r"^weight is quantised .*dequantize\(\)"),
    "a dtype that NumPy lacks": (
        lambda: from_torch({"e.weight": torch.eye(3).to(torch.float8_e4m3fn)}, layers={"e": "Linear"}),
        "^e.weight is torch.float8_e4m3fn, which NumPy"),
    "a compiled module": (lambda: from_torch(torch.jit.script(torch.nn.Linear(2, 3))), "was compiled by torch.jit"),
    "pruned weights in a state": (
        lambda: from_torch(prune.l1_unstructured(torch.nn.Linear(2, 3), "weight", 0.5).state_dict(),
                           layers={"": "Linear"}), "weight_mask belongs to .*prune.remove"),
    "a projection": (lambda: from_torch(torch.nn.LSTM(I, H, proj_size=2)), r"proj_size=2 projects the hidden state"),
    "a projection in a state": (
        lambda: from_torch(torch.nn.LSTM(I, H, proj_size=2).state_dict()), "weight_hh of the layer has shape"),
    "a projection by its name": (
        lambda: from_torch(torch.nn.LSTM(I, H, proj_size=2).state_dict(), layers={"": "LSTM"}),
        "weight_hr_l0 is a projection of the hidden state"),
    "another layer": (lambda: from_torch(torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1))), "0.weight belongs to Conv1d"),
    "a buffer": (lambda: from_torch(torch.nn.BatchNorm1d(3, affine=False)), "running_mean belongs to BatchNorm1d"),
    "a function alone": (lambda: from_torch(torch.nn.Softmax(0)), "there is no layer in Softmax that is known"),
    "no module": (lambda: from_torch("model.pt"), "from_torch takes a torch.nn.Module or its state_dict, not str"),
    "an optimizer's state": (lambda: from_torch({"epoch": 3}), "epoch is of type int and no array"),
    "nothing": (lambda: from_torch({}), "there is no array"),
    "a forward of its own": (lambda: from_torch(Shouting(I, H)), "weight_ih_l0 belongs to Shouting"),
    "a call of its own": (lambda: from_torch(Doubling(2, 3)), "weight belongs to Doubling"),
    "a hook": (lambda: from_torch(hooked(torch.nn.Linear(2, 3))), "^Linear has the hook <lambda>, which is"),
    "a hook before": (
        lambda: from_torch(hooked(torch.nn.Sequential(torch.nn.Linear(2, 3)), True)), r"^0 \(Linear\) has the hook"),
    "a hook on a function": (
        lambda: from_torch(hooked(torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(2, 3)))), r"^0 \(Tanh\) has"),
    "a forward on the instance": (
        lambda: from_torch(with_forward(torch.nn.Linear(2, 3))), "^Linear has a forward of its own"),
    "a forward on a chain": (
        lambda: from_torch(with_forward(torch.nn.Sequential(torch.nn.Linear(2, 3)))), "^Sequential has a forward of"),
    "a forward on the instance here": (lambda: to_torch(with_forward(nn.Linear(2, 3))), "a forward of its own"),
    "pruned weights": (
        lambda: from_torch(prune.l1_unstructured(torch.nn.Linear(2, 3), "weight", 0.5)),
        "the hook L1Unstructured.*prune.remove"),
    "parametrized weights": (lambda: from_torch(spectral()), "belongs to a parametrization of the weights"),
    "weight norm, old": (
        lambda: from_torch({"weight_hh_l0": np.ones((3, 3)), "weight_ih_l0_g": np.ones(3)}),
        "weight_ih_l0_g belongs to a parametrization"),
    "max_norm": (lambda: from_torch(torch.nn.Embedding(7, I, max_norm=1.0)), "max_norm=1.0 makes"),
    "a norm of two axes": (lambda: from_torch(torch.nn.LayerNorm((2, 3))), r"LayerNorm over \(2, 3\) takes several"),
    "a matrix alone": (lambda: from_torch({"e.weight": np.ones((2, 3))}), "may be an Embedding, or a Linear without"),
    "unknown arrays": (lambda: from_torch({"e.kernel": np.ones((2, 3))}), r"layer 'e' has kernel \(2, 3\), which is"),
    "blocks of no cell": (lambda: from_torch({"weight_hh": np.ones((10, 5))}), r"has shape \(10, 5\); \(G \* H, H\)"),
    "no values": (lambda: from_torch(torch.nn.Linear(I, H, device="meta")), "it lies on torch's device 'meta'"),
    "an unknown option": (lambda: from_torch(torch.nn.GRU(I, H), update="new"), "from_torch has no option 'update'"),
    "a gap in the layers": (
        lambda: from_torch({**made(torch.nn.RNN).state_dict(), "weight_hh_l7": np.ones((H, H))}),
        "weight_hh_l7 is in no place that is known: a RNN of this depth has"),
    "a missing array": (
        lambda: from_torch({"weight_hh_l0": np.ones((H, H))}), "weight_ih_l0 is missing: torch.nn.RNN, RNNCell has"),
    "a misfit": (
        lambda: from_torch({"weight": np.ones((2, 3)), "bias": np.ones(3)}),
        r"bias has shape \(3,\); beside the weight, \(2,\) would fit"),
    "two dtypes": (
        lambda: from_torch({"weight": np.ones((2, 3)), "bias": np.ones(2, np.float32)}), "are of different dtypes"),
    "reset before": (lambda: to_torch(nn.GRU(I, H)), "the reset gate of this cell acts before the product"),
    "a forward of one's own": (lambda: to_torch(type("Mine", (nn.Linear,), {"forward": None})(2, 3)), "of its own"),
    "reverse": (lambda: to_torch(nn.RNN(I, H, reverse=True)), "walks in reverse alone"),
    "a function of one's own": (lambda: to_torch(nn.Sequential(nn.Linear(2, 3), lambda x: x)), "is Python code"),
    "a vector of another length": (
        lambda: from_cudnn(np.ones(3), "GRU", I, H), r"the vector has shape \(3,\); GRU with input_size=4"),
    "a layer in reverse for cuDNN": (lambda: to_cudnn(nn.RNN(I, H, reverse=True)), "walks in reverse alone"),
    "a cell for cuDNN": (lambda: to_cudnn(nn.RNNCell(I, H)), "to_cudnn takes a recurrent layer, not RNNCell"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(what):
    function, message = REFUSED[what]
    with pytest.raises(errors.TinygradError, match=message):
        function()


def test_what_does_not_change_the_outputs_is_noted():
    report = Report()
    module = torch.nn.Embedding(7, I, padding_idx=2, scale_grad_by_freq=True)
    from_torch(module, report=report)
    assert [note.split()[0] for note in report.notes] == ["padding_idx=2", "scale_grad_by_freq"]
    from_torch(hooked(Tagger()), report=report)
    assert report.notes[-2].startswith("Tagger has the hook <lambda>")
    from_torch(torch.nn.Sequential(torch.nn.Linear(2, 3), Tagger().loss), report=report)
    assert report.notes[-1] == "1 (CrossEntropyLoss) has no counterpart here and was left out"
    from_torch(torch.nn.RNN(I, H).state_dict(), report=report)
    assert "activation='tanh', batch_first=False, dropout=0.0" in report.notes[-1]


def test_a_state_dict_needs_no_torch():
    """As on a machine without it."""
    program = (
        "import sys, json, numpy as np; sys.modules['torch'] = None\n"
        "from tinygrad_rnn import interop, nn, errors\n"
        "layer = interop.from_torch(interop.torch_state(nn.LSTM(2, 3)))\n"
        "try: interop.to_torch(layer)\n"
        "except errors.MissingPackage as error: print(json.dumps([type(layer).__name__, str(error)]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name, message = json.loads(found.stdout)
    assert name == "LSTM" and message.startswith("to_torch needs torch") and message.endswith("pip install torch")


# -- cuDNN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_vector_of_cudnn_is_that_of_torch(name, bidirectional):
    """torch keeps its weights in cuDNN's order: all matrices, then all biases."""
    kind, settings = LAYERS[name]
    module = made(kind, num_layers=2, bidirectional=bidirectional, **settings)
    weights = [weight for cell in module.all_weights for weight in cell[:2]]
    biases = [bias for cell in module.all_weights for bias in cell[2:]]
    vector = torch.cat([each.detach().ravel() for each in weights + biases]).numpy()
    given = {"activation": module.nonlinearity} if kind is torch.nn.RNN else {}
    layer = from_cudnn(vector, kind.__name__, I, H, 2, bidirectional=bidirectional, **given)
    x, starts = inputs(module)
    agree(ours(layer, x, starts), theirs(module, x, starts))
    again = from_cudnn(to_cudnn(layer), kind.__name__, I, H, 2, bidirectional=bidirectional, **given)
    agree(ours(again, x, starts), theirs(module, x, starts))


def test_what_is_no_module_is_refused_in_one_way(tmp_path):
    for function in (to_torch, torch_state, to_cudnn, lambda each: interop.save(each, tmp_path / "m.safetensors")):
        with pytest.raises(errors.OptionError, match=r"takes a .*, not int"):
            function(1)
    with pytest.raises(errors.OptionError, match=r"from_torch takes a torch\.nn\.Module"):
        from_torch(1)


def test_a_sequential_with_a_forward_of_its_own_has_no_known_order():
    class Own(nn.Sequential):
        def forward(self, x):
            return x

    own = Own(nn.Linear(I, H), nn.Linear(H, 2))
    assert torch_state(own).keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    with pytest.raises(errors.ConversionError, match="Own is Python code"):
        to_torch(own)


def test_a_function_alone_is_a_model_of_one_layer():
    model = from_torch(torch.nn.Tanh())
    agree([model(tg.ones((2, 3))).numpy()], [np.tanh(np.ones((2, 3), "float32"))], "float32")
    assert isinstance(to_torch(model), torch.nn.Tanh)


def test_a_state_dict_holds_nothing_of_what_is_frozen_and_the_report_says_so():
    linear, report = nn.Linear(I, H), Report()
    linear.b.requires_grad = False
    torch_state(linear, report=report)
    assert report.notes == ["frozen here, which a state_dict does not hold: b"]


def test_what_a_state_dict_does_not_hold_is_noted_and_can_be_said_again():
    layers = {"gru": nn.GRU(I, H, reset="after", batch_first=True), "norm": nn.LayerNorm(H, eps=0.3),
              "plain": nn.RNN(H, H, activation="relu", batch_first=True)}  # fmt: skip
    model = with_numbers(interop.Layers(layers, layers))
    report = interop.Report()
    state = interop.torch_state(model, report=report)
    told = "\n".join(report.notes)
    assert "batch_first=True of gru" in told and "eps=0.3 of norm" in told and "activation='relu' of plain" in told
    said = {"gru": {"batch_first": True}, "norm": {"kind": "LayerNorm", "eps": 0.3},
            "plain": {"kind": "RNN", "activation": "relu", "batch_first": True}}  # fmt: skip
    x = np.random.default_rng(2).normal(size=(2, 5, I)).astype(np.float32)
    again = interop.from_torch(state, layers=said)
    np.testing.assert_allclose(again(x).numpy(), model(x).numpy(), rtol=0, atol=1e-6)
    wrong = interop.from_torch(state, layers=["gru", "norm", "plain"])  # torch's defaults, as the notes say
    assert np.abs(wrong(x).numpy() - model(x).numpy()).max() > 1e-2


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"gru": {"eps": 1.0}}, "gives 'eps' to 'gru'"),
        ({"gru": {"kind": "Conv"}}, "of kind 'Conv'"),
        (3, "names of layers in their order"),
        ("gru", "names of layers in their order"),
    ],
)
def test_what_is_said_of_layers_is_checked(layers, words):
    with pytest.raises(errors.OptionError, match=words):
        interop.from_torch({f"gru.{name}": x for name, x in interop.torch_state(nn.GRU(I, H, reset="after")).items()},
                           layers=layers)  # fmt: skip
