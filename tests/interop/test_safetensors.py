"""Weights in safetensors files: whole, exact, readable by others, and no file from elsewhere does any harm."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
from golden.loops import filled
from interop.modules import with_numbers
from mutants import mutated
from safetensors.numpy import load_file, save_file

import tinygrad_rnn as tg
from tinygrad_rnn import errors, nn
from tinygrad_rnn.interop import (  # fmt: skip
    Final,
    Layers,
    Report,
    cells,
    description,
    from_torch,
    load,
    read,
    safetensors_,
    save,
    save_arrays,
    torch_state,
)
from tinygrad_rnn.train import LanguageModel

ACTIVATIONS = (cells.activation("hardsigmoid"), cells.TANH, cells.activation("leakyrelu", 0.3))
MODULES = {
    "RNN": lambda: nn.RNN(2, 3, activation="relu", batch_first=True),
    "GRU": lambda: nn.GRU(2, 3, 2, reset="after", recurrent_bias=True, bidirectional=True, dropout=0.25),
    "GRU in double precision": lambda: nn.GRU(2, 3, update="old", bias=False, reverse=True, dtype=np.float64),
    "MinimalGRU": lambda: nn.MinimalGRU(2, 3, 2, fused=False),
    "LSTM": lambda: nn.LSTM(2, 3, forget_bias=None, checkpoint=2),
    "RNNCell": lambda: nn.RNNCell(2, 3),
    "GRUCell": lambda: nn.GRUCell(2, 3, update="old"),
    "MinimalGRUCell": lambda: nn.MinimalGRUCell(2, 3),
    "LSTMCell": lambda: nn.LSTMCell(2, 3),
    "VariedRNN": lambda: cells.VariedRNN(2, 3, activations=ACTIVATIONS[2:], clip=0.5),
    "VariedGRU": lambda: cells.VariedGRU(2, 3, 2, activations=ACTIVATIONS[:2]),
    "VariedLSTM": lambda: cells.VariedLSTM(2, 3, activations=ACTIVATIONS, peepholes=True, input_forget=True),
    "VariedLSTMCell": lambda: cells.VariedLSTMCell(2, 3, activations=ACTIVATIONS, clip=2.0),
    "Linear": lambda: nn.Linear(2, 3, bias=False, dtype=np.float16),
    "Embedding": lambda: nn.Embedding(5, 2),
    "LayerNorm": lambda: nn.LayerNorm(3, eps=0.1),
    "Dropout": lambda: nn.Dropout(0.25),
    "Sequential": lambda: nn.Sequential(nn.Linear(2, 3), tg.tanh, nn.Sequential(nn.LayerNorm(3), nn.Dropout(0.5))),
    "Layers": lambda: Layers({"e": nn.Embedding(5, 2), "g": Final(nn.LSTM(2, 3)), "r": tg.relu}, ["e", "g"]),
    "Layers in no order": lambda: Layers({"a.b": nn.Linear(2, 3)}),
    "LanguageModel": lambda: LanguageModel(7, 2, 3, 2, cell="lstm", dropout=0.5),
}


class Own(nn.Module):
    """A module with code of its own."""

    def __init__(self):
        self.first, self.rest = nn.Linear(2, 3), {"norm": nn.LayerNorm(3)}


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name, own in one.items():
        assert own.dtype == other[name].dtype
        np.testing.assert_array_equal(own.numpy(), other[name].numpy())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# -- whole and exact ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_module_comes_back_with_its_settings_its_weights_and_its_mode(name, path):
    module = with_numbers(MODULES[name]()).eval()
    for parameter in module.parameters()[::2]:
        parameter.requires_grad = False
    save(module, path)
    assert safetensors_.is_described(path)
    again = load(path)
    assert type(again) is type(module)
    same(again, module)
    assert description.described(again) == description.described(module) is not None
    assert [n for n, _ in again.named_parameters()] == [n for n, _ in module.named_parameters()]
    assert not any(part.training for _, part in again.named_modules())


def test_a_model_that_came_back_computes_the_same(path):
    model, ids = with_numbers(LanguageModel(7, 2, 3, 2, cell="gru")), np.arange(15).reshape(5, 3) % 7
    save(model, path)
    for one, other in zip(load(path)(ids), model(ids)):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_module_of_ones_own_is_filled(path):
    module = with_numbers(Own())
    save(module, path)
    assert not safetensors_.is_described(path)
    fresh = Own()
    assert load(path, into=fresh) is fresh
    same(fresh, module)
    with pytest.raises(errors.ConversionError, match=r"no description .* code of its own.* load\(path, into=module\)"):
        load(path)


@pytest.mark.parametrize("change", ["cell", "shared", "tied", "function", "subclass"])
def test_what_is_more_than_its_settings_has_no_description(change, path):
    module = nn.Sequential(nn.GRU(2, 2), nn.GRU(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    if change == "cell":
        module.layers[0].cells[0].update = "old"
    elif change == "shared":
        module.layers[1] = module.layers[0]
    elif change == "tied":
        module.layers[2].W = module.layers[3].W
    elif change == "function":
        module.layers.append(lambda x: x)
    else:
        module.layers[0] = type("Mine", (nn.GRU,), {})(2, 2)
    assert description.described(module) is None
    with_numbers(module)
    save(module, path)
    same(load(path, into=module), module)


def test_metadata_of_the_user_stay(path):
    save(nn.Linear(2, 3), path, metadata={"format": "pt", "who": "mé"})
    assert read(path)[1] == {"format": "pt", "who": "mé"}
    for wrong in ({"who": 1}, {1: "who"}, {"tinygrad_rnn": "{}"}):
        with pytest.raises(errors.OptionError, match="metadata are texts by names other than 'tinygrad_rnn'"):
            save(nn.Linear(2, 3), path, metadata=wrong)


def test_others_read_what_was_written_and_it_reads_theirs(path):
    module = with_numbers(MODULES["GRU"]())
    save(module, path)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, module.state_dict()[name].numpy())
    arrays = {"a": filled("a", 2, 3), "b": np.arange(4, dtype=np.int16), "c": np.array([True, False]),
              "d": np.array(1.5, np.float16), "e": np.zeros((0, 3), np.uint8), "f": np.ones(2, bool)}  # fmt: skip
    save_file(arrays, path, metadata={"of": "others"})
    found, metadata = read(path)
    assert metadata == {"of": "others"} and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


def fortran():
    module = nn.Linear(2, 3)
    module.W = tg.Tensor(np.asfortranarray(filled("W", 2, 3)), requires_grad=True)
    return module


def test_an_array_in_another_order_of_memory_is_written_right(path, monkeypatch):
    save(fortran(), path)
    np.testing.assert_array_equal(read(path)[0]["W"], filled("W", 2, 3))
    mutated(monkeypatch, safetensors_, "save_arrays", 'np.array(array, order="C")', "array")
    if safetensors.__version__ == "0.8.0":  # this version scrambles it
        save(fortran(), path)
        assert not np.array_equal(read(path)[0]["W"], filled("W", 2, 3))


def test_weights_on_a_gpu_are_saved_from_the_host(gpu, path):
    with tg.use_backend("numpy"):
        module = with_numbers(MODULES["GRU"]())
    save(module.to(gpu), path)
    again = load(path)
    assert again.cells[0].W.backend == module.cells[0].W.backend
    same(again, module)


def test_a_dtype_that_the_format_lacks_is_refused(path):
    module = nn.Linear(2, 3)
    module.table = tg.Tensor(np.ones(2, np.complex128))
    with pytest.raises(errors.DtypeError, match="table is complex128, which a safetensors file cannot hold"):
        save(module, path)
    assert not path.exists()


def test_writing_leaves_the_old_file_or_the_new_one(path, monkeypatch):
    save(with_numbers(nn.Linear(2, 3)), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(errors.OutputError, match="untouched: make room, permit it, or name another place"):
        save(nn.Linear(3, 4), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# -- strict ------------------------------------------------------------------------------------------------------


def test_names_that_are_missing_or_unexpected_are_listed(path):
    save(with_numbers(nn.GRU(2, 3)), path)
    module = nn.GRU(2, 3, 2, bias=False)
    before = {name: own.numpy().copy() for name, own in module.state_dict().items()}
    with pytest.raises(errors.CheckpointError) as caught:
        load(path, into=module)
    for text in ("model.safetensors", "cells.1.W is missing", "cells.1.U is missing", "cells.0.b is unexpected"):
        assert text in str(caught.value)
    assert all(np.array_equal(own.numpy(), before[name]) for name, own in module.state_dict().items())
    assert load(path, into=module, strict=False) is module
    assert not np.array_equal(module.cells[0].W.numpy(), before["cells.0.W"])
    with pytest.raises(errors.CheckpointError, match=r"cells.0.W has shape \(2, 9\), and \(4, 9\) is needed"):
        load(path, into=nn.GRU(4, 3), strict=False)
    with pytest.raises(errors.CheckpointError, match=r"cells.0.W is float32, and float64 is needed"):
        load(path, into=nn.GRU(2, 3, dtype=np.float64))
    with pytest.raises(errors.CheckpointError, match=r"W is missing.*if its names are torch's: from_torch\(read"):
        load(path, into=nn.Linear(2, 3))


# -- files that torch saved --------------------------------------------------------------------------------------


def test_a_state_that_torch_saved_is_read(path, monkeypatch):
    torch = pytest.importorskip("torch")
    stored = pytest.importorskip("safetensors.torch")
    module = torch.nn.LSTM(2, 3, 2, bidirectional=True)
    stored.save_file(module.state_dict(), path)
    same(load(path), from_torch(module))
    stored.save_file({name: array.bfloat16() for name, array in module.state_dict().items()}, path)
    same(load(path), from_torch(module.bfloat16()))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as where it is not installed
    same(load(path), from_torch(module))
    stored.save_file(torch.nn.Embedding(5, 2).state_dict(), path)
    with pytest.raises(errors.ConversionError, match="it may be an Embedding, or a Linear without bias"):
        load(path)
    embedding = from_torch(read(path)[0], layers={"": "Embedding"})
    np.testing.assert_array_equal(embedding.W.numpy(), load_file(path)["weight"])


def test_arrays_under_names_of_torch_are_read_back_by_torch(path):
    torch = pytest.importorskip("torch")
    stored = pytest.importorskip("safetensors.torch")
    layer = with_numbers(nn.GRU(2, 3, 2, reset="after"))
    save_file(torch_state(layer), path)
    module = torch.nn.GRU(2, 3, 2)
    module.load_state_dict(stored.load_file(path))
    x = filled("x", 5, 4, 2).astype(np.float32)
    output = module(torch.tensor(x))[0].detach().numpy()
    np.testing.assert_allclose(output, layer(x)[0].numpy(), rtol=0, atol=1e-6)


# -- files that lie ----------------------------------------------------------------------------------------------


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


EIGHT = bytes(8)
HEADERS = {
    "empty": b"",
    "cut in its length": b"\x08\x00",
    "a header longer than the file": file_of({"a": entry()}, EIGHT, 10_000),
    "a header of 2**64 - 1 bytes": file_of({"a": entry()}, EIGHT, 2**64 - 1),
    "cut in its numbers": file_of({"a": entry()}, EIGHT[:5]),
    "more numbers than it speaks of": file_of({"a": entry()}, EIGHT + b"more"),
    "no JSON": file_of(b"\x80\x04pickle"),
    "a list": file_of([entry()], EIGHT),
    "a number": file_of(b"7"),
    "UTF-16": file_of(json.dumps({"a": entry()}).encode("utf-16"), EIGHT),
    "nested deeply": file_of(b"[" * 900_000),
    "nested deeply, in an entry": file_of(b'{"a":' * 300_000),
    "a long list of objects": file_of(b'{"a":[' + b"{}," * 600_000 + b"{}]}"),
    "many names": file_of("{{{}}}".format(",".join(f'"{k:x}":{{}}' for k in range(150_000))).encode()),
    "a number of many digits": file_of(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "a name twice": file_of(f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode(), EIGHT),
    "an entry that is none": file_of({"a": 3}, EIGHT),
    "an entry without offsets": file_of({"a": {"dtype": "F32", "shape": [2]}}, EIGHT),
    "offsets that overlap": file_of({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "offsets with a hole": file_of({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "offsets the wrong way round": file_of({"a": entry(offsets=(8, 0)), "b": entry()}, EIGHT),
    "offsets below zero": file_of({"a": entry(offsets=(-8, 0)), "b": entry()}, EIGHT),
    "offsets beyond 64 bits": file_of({"a": entry(offsets=(0, 2**70))}, EIGHT),
    "offsets that are no numbers": file_of({"a": entry(offsets=("0", "8"))}, EIGHT),
    "one offset": file_of({"a": entry(offsets=(0,))}, EIGHT),
    "a shape of other size": file_of({"a": entry(shape=(3,))}, EIGHT),
    "a huge shape": file_of({"a": entry(shape=(2**40, 2**40))}, EIGHT),
    "a shape that overflows to fit": file_of({"a": entry(shape=(2**63, 2**2))}, EIGHT),
    "a huge shape of no numbers": file_of({"a": entry(shape=(2**62, 2**62, 0), offsets=(0, 0))}),
    "a shape below zero": file_of({"a": entry(shape=(-2,))}, EIGHT),
    "an unknown dtype": file_of({"a": entry("F128")}, EIGHT),
    "a dtype that NumPy lacks": file_of({"a": entry("F8_E4M3", (8,))}, EIGHT),
    "metadata that are no texts": file_of({"__metadata__": {"a": 1}, "a": entry()}, EIGHT),
    "metadata that are a list": file_of({"__metadata__": ["a"], "a": entry()}, EIGHT),
}  # fmt: skip


def refused(path, function=load):
    """The error of a file: within a second and 100 MB, and nothing was written."""
    before = list(path.parent.iterdir())
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises((errors.FileError, errors.CheckpointError)) as caught:
            function(path)
        seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6 and seconds < 5, (peak, seconds)  # a second, with room for a busy machine that counts bytes
    assert list(path.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies_is_refused(what, path):
    path.write_bytes(HEADERS[what])
    functions = [load, read, lambda path: load(path, into=nn.Linear(2, 3))]
    for function in functions[: 1 if len(HEADERS[what]) > 10_000 else 3]:
        assert str(path) in refused(path, function)


def unit_arrays(kind):
    """Many tiny layers under torch's names, of which making each takes time."""
    if kind == "one above another":
        return {f"weight_{way}_l{k}": np.ones((1, 1), np.float32) for k in range(9_000) for way in ("ih", "hh")}
    names = {"weight_ih_l0": (4, 1), "weight_hh_l0": (4, 1), "bias_ih_l0": (4,), "bias_hh_l0": (4,)}
    return {f"{k}.{name}": np.ones(shape, np.float32) for k in range(2_800) for name, shape in names.items()}


@pytest.mark.parametrize("kind", ["one above another", "side by side"])
def test_many_tiny_layers_are_refused_before_any_is_made(kind, path):
    save_file(unit_arrays(kind), path)
    assert "load(path, into=module)" in refused(path)


def test_as_many_layers_as_are_read_are_described(path):
    save(nn.RNN(1, 1, 999), path)
    assert load(path).num_layers == 999
    save(nn.RNN(1, 1, 1_001), path)
    with pytest.raises(errors.ConversionError, match="into=module"):
        load(path)
    same(load(path, into=nn.RNN(1, 1, 1_001)), load(path, into=nn.RNN(1, 1, 1_001)))


def test_a_file_that_is_larger_than_the_memory_is_refused_unread(path):
    path.write_bytes(file_of({"a": entry()}))
    with open(path, "r+b") as file:
        file.truncate(2**43)
    assert "bytes of numbers where it speaks of 8" in refused(path)


def deep(levels):
    found = {"class": "Dropout", "settings": {"p": 0.5}}
    for _ in range(levels):
        found = {"class": "Sequential", "parts": {"0": found}}
    return found


def gru(**settings):
    return {"class": "GRU", "settings": {"input_size": 2, "hidden_size": 3} | settings}


DESCRIPTIONS = {
    "a giant layer": gru(hidden_size=10**9),
    "a giant input": gru(input_size=10**30),
    "many layers": gru(num_layers=10**9),
    "a layer of many small ones": gru(input_size=1, hidden_size=1, num_layers=10**8),
    "a giant embedding": {"class": "Embedding", "settings": {"symbols": 10**6, "size": 10**6}},
    "a giant norm": {"class": "LayerNorm", "settings": {"size": 10**12}},
    "a wide dtype": gru(dtype="S1000000000"),
    "a dtype of objects": gru(dtype="O"),
    "sizes that are no numbers": gru(hidden_size="3"),
    "sizes below one": gru(hidden_size=-3),
    "a bool for a size": gru(num_layers=True),
    "an unknown class": {"class": "Popen", "settings": {"args": "ls"}},
    "an unknown option": gru(activation="tanh"),
    "a weight for an option": gru(init="ones", rng=1),
    "no settings": {"class": "GRU"},
    "no class": {"settings": {}},
    "an unknown function": {"class": "Sequential", "parts": {"0": {"function": "eval"}}},
    "a function alone": {"function": "tanh"},
    "parts that are a list": {"class": "Sequential", "parts": [gru()]},
    "parts of a layer": {"class": "GRU", "parts": {}},
    "nested deeply": b'{"module": ' + b'{"class": "Sequential", "parts": {"0": ' * 9_000 + b"1" + b"}}" * 9_000 + b"}",
    "nested more deeply than a model": deep(21),
    "more layers than a model": gru(input_size=1, hidden_size=1, num_layers=1_001),
    "a wide tree": {"class": "Sequential", "parts": {str(k): deep(0) for k in range(20_000)}},
    "a final of no layer": {"class": "Final", "parts": {"layer": deep(0)}},
    "layers in an unknown order": {"class": "Layers", "parts": {"a": deep(0)}, "order": ["b"]},
    "an order that is no list": {"class": "Layers", "parts": {"a": deep(0)}, "order": 3},
    "an unknown activation": {
        "class": "VariedRNN", "settings": gru()["settings"] | {"activations": [["system", 0, 0]]}},
    "a language model without parts": {"class": "LanguageModel", "parts": {"embedding": deep(0)}},
    "a text": "GRU",
    "a list": ["GRU"],
    "a number": 7,
}  # fmt: skip


def described_as(path, module, **changes):
    """A valid file of a small GRU, whose description says something else."""
    arrays = {name: own.numpy() for name, own in nn.GRU(2, 3).state_dict().items()}
    text = json.dumps({"version": 1, "module": module} | changes) if not isinstance(module, bytes) else module.decode()
    save_file(arrays, path, metadata={"tinygrad_rnn": text})


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_description_that_lies_is_refused(what, path):
    described_as(path, DESCRIPTIONS[what])
    assert "damaged" in refused(path)


@pytest.mark.parametrize("entry_", [b"{", b"[]", b"7", b"[" * 100_000, b'{"version": "1", "module": {}}'])
def test_a_description_that_is_none_is_refused(entry_, path):
    described_as(path, entry_)
    assert "its description is n" in refused(path)


def test_what_a_description_says_besides_is_checked(path):
    described_as(path, gru(), version=2)
    assert "description of version 2, and this package reads those up to 1" in refused(path)
    described_as(path, gru(), frozen=[3])
    assert "the names under 'frozen' are none" in refused(path)
    described_as(path, gru(hidden_size=2))
    assert "cells.0.U has shape (3, 9), and (2, 6) is needed" in refused(path)
    described_as(path, gru(), frozen=["cells.0.b", "elsewhere"], training=False)
    layer = load(path)
    assert not layer.training and [name for name, _ in layer.named_parameters()] == ["cells.0.W", "cells.0.U"]


def test_each_part_keeps_its_mode(path):
    model = Layers({"a": nn.GRU(2, 3), "b": nn.Dropout(0.5), "c": nn.Linear(3, 2)}, "abc")
    model["b"].eval()
    save(model, path)
    assert [part.training for _, part in load(path).named_modules()] == [
        part.training for _, part in model.named_modules()
    ]
    model.eval()["b"].train()
    save(model, path)
    again = load(path)
    assert not again.training and again["b"].training and not again["c"].training


def test_the_size_is_compared_before_anything_is_made(path, monkeypatch):
    described_as(path, gru(hidden_size=400))
    monkeypatch.setattr(description, "_built", lambda *a: pytest.fail("it was made"))
    assert "speaks of 1,929,600 bytes of weights, and the file has 216" in refused(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".BIN", ".ckpt", ".pkl"])
def test_no_pickle_is_read(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    for function in (load, read):
        with pytest.raises(errors.FileError, match=r"(?s)is a pickle by its name.*weights_only=True.*safetensors"):
            function(path)


def test_a_place_that_is_no_file_is_named(tmp_path):
    with pytest.raises(errors.FileError, match="is no file"):
        load(tmp_path)
    with pytest.raises(errors.FileError, match="there is no file"):
        load(str(tmp_path / "none.safetensors"))


def test_what_a_file_does_not_say_is_said_with_layers(path):
    embedding = with_numbers(nn.Embedding(5, 3))
    save_arrays({"weight": embedding.W.numpy()}, path)
    with pytest.raises(errors.ConversionError, match=r"load\(path, layers="):
        load(path)
    report = Report()
    same(load(path, layers={"": "Embedding"}, report=report), embedding)
    assert [move.target for move in report.moves] == ["W"]
    with pytest.raises(errors.OptionError, match=r"into= already knows it"):
        load(path, embedding, layers={"": "Embedding"})
    with pytest.raises(errors.OptionError, match=r"into=\.\.\.\) takes a Module, not list"):
        load(path, [])
    with pytest.raises(errors.OptionError, match="load takes the path of a file, not int"):
        load(3)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(path):
    path.write_bytes(b"as it was")
    for arrays in (None, [1], {"a": "x"}, {1: np.ones(2)}, {"__metadata__": np.ones(2)}, {"\ud800": np.ones(2)}):
        with pytest.raises(errors.OptionError):
            save_arrays(arrays, path)
    with pytest.raises(errors.OptionError):
        save(nn.Linear(2, 3), path, metadata={"a": "\ud800"})
    assert path.read_bytes() == b"as it was"


def test_a_layer_in_two_places_is_saved_and_fills_another(path):
    gru = with_numbers(nn.GRU(3, 3, reset="after"))
    twice = Layers({"a": gru, "b": gru}, ["a", "b"])
    save(twice, path)
    with pytest.raises(errors.ConversionError, match="a layer in two places"):
        load(path)
    other = nn.GRU(3, 3, reset="after")
    load(path, into=Layers({"a": other, "b": other}, ["a", "b"]))
    same(other, gru)
