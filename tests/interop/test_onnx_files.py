"""ONNX files that are damaged or hostile: a typed error, soon and in little memory, and nothing outside is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from interop.onnx_oracles import arrays_for, helper, info, model, node_model, numpy_helper, onnx

import tinygrad_rnn.interop.onnx_.files as onnx_files
from tinygrad_rnn.errors import ConversionError, FileError, MissingPackage, OptionError, TinygradError
from tinygrad_rnn.interop import from_onnx
from tinygrad_rnn.interop.report import Report

X = np.ones((4, 3, 5), np.float32)


def gru(**settings):
    arrays = arrays_for("GRU", np.random.default_rng(0), states=False)
    return node_model("GRU", arrays, **settings)[0]


def tensor_of(proto, name):
    return next(each for each in proto.graph.initializer if each.name == name)


# -- data types --------------------------------------------------------------------------------------------------

ARRAYS = [np.array([[-3, 2, 1], [5, 4, 0]]).astype(dtype) for dtype in
          ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]  # fmt: skip


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("array", [*ARRAYS, ARRAYS[1][:, :0], ARRAYS[4][0, 0]], ids=lambda a: f"{a.dtype}{a.shape}")
def test_every_data_type_is_read(array, raw):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    numbers = array.tobytes() if raw else array.reshape(-1).tolist()
    made = helper.make_tensor("it", kind, array.shape, numbers, raw=raw)
    found = onnx_files.Arrays(None).array(made, "it")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, numpy_helper.to_array(made)) and np.array_equal(found, array)


@pytest.mark.parametrize("raw", [True, False])
def test_bfloat16_becomes_float32_and_the_report_says_so(raw):
    arrays = arrays_for("GRU", np.random.default_rng(0), states=False)
    proto, _ = node_model("GRU", arrays)
    for name, array in arrays.items():
        if name != "X":
            halves = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
            numbers = halves.tobytes() if raw else array.reshape(-1).tolist()
            tensor_of(proto, name).CopyFrom(helper.make_tensor(name, 16, array.shape, numbers, raw=raw))
    proto.graph.input[0].type.tensor_type.elem_type = 16
    report = Report()
    layer = from_onnx(proto, report=report)
    assert layer.dtype == np.float32 and "bfloat16 is computed in float32" in str(report)
    np.testing.assert_allclose(layer.cells[0].W.numpy(), _as_ours(arrays["W"][0]), atol=2e-2)


def _as_ours(W):
    """The gates z, r, n of a GRU of ONNX, side by side."""
    return np.concatenate(np.split(W, 3), axis=0).T


def change(proto, name, **fields):
    """A TensorProto with some fields changed."""
    tensor = tensor_of(proto, name)
    for field, value in fields.items():
        if isinstance(value, list):
            tensor.ClearField(field)
            getattr(tensor, field).extend(value)
        else:
            setattr(tensor, field, value)
    return proto


WRONG_TENSORS = {
    "too few bytes": {"raw_data": b"1234"},
    "negative size": {"dims": [1, -6, -5]},
    "huge sizes": {"dims": [2**40, 2**40]},
    "huge sizes that wrap to nothing": {"dims": [2**32, 2**32]},
    "many axes": {"dims": [1] * 40},
    "huge sizes of nothing": {"dims": [2**62, 0], "raw_data": b""},
    "huge sizes of nothing, twice": {"dims": [2**62, 2**62, 0], "raw_data": b""},
    "no such type": {"data_type": 77},
    "text": {"data_type": 8},
    "complex": {"data_type": 14},
    "numbers twice": {"float_data": [1.0]},
}


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_wrong_tensors(what):
    with pytest.raises((FileError, ConversionError), match="'W'"):
        from_onnx(change(gru(), "W", **WRONG_TENSORS[what]))


def test_segments_and_sparse_tensors():
    proto = gru()
    tensor_of(proto, "W").segment.begin = 1
    with pytest.raises(FileError, match="segment"):
        from_onnx(proto)
    proto = gru()
    proto.graph.sparse_initializer.add()
    with pytest.raises(ConversionError, match="sparse"):
        from_onnx(proto)


# -- files -------------------------------------------------------------------------------------------------------


def test_no_model_at_all(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileError, match="no file"):
        from_onnx(path)
    for data in (b"", b"\x00", b"hello", b"PK\x03\x04" + bytes(50), bytes(range(256))):
        path.write_bytes(data)
        with pytest.raises(FileError):
            from_onnx(path)
    with pytest.raises(FileError, match="pickle"):
        from_onnx(tmp_path / "model.pt")
    with pytest.raises(FileError, match="is no file"):
        from_onnx(tmp_path)


def test_every_truncation(tmp_path):
    data = gru().SerializeToString()
    for length in range(len(data)):
        with pytest.raises(TinygradError):
            from_onnx(onnx_files.from_bytes(data[:length]))
    from_onnx(onnx_files.from_bytes(data))


@pytest.mark.parametrize("source", [None, 3, b"model.onnx", np.ones(3)])
def test_what_is_neither_a_path_nor_a_model(source):
    with pytest.raises(OptionError, match=r"takes the path of a file or an onnx\.ModelProto, not "):
        from_onnx(source)


@pytest.mark.parametrize("field, kind, count", [("int64_data", 7, 2**21), ("int32_data", 10, 2**20)])
def test_many_numbers_of_no_fixed_width_are_read_up_to_a_bound(field, kind, count, tmp_path):
    numbers = np.arange(count) % 100
    for more in (0, onnx_files.NUMBERS):
        tensor = onnx.TensorProto(name="W", data_type=kind, dims=[count + more])
        getattr(tensor, field).extend(np.resize(numbers, count + more).tolist())
        proto = model([helper.make_node("Shape", ["W"], ["y"])], {}, ["y"])
        proto.graph.initializer.append(tensor)
        if more:
            with pytest.raises(FileError, match="numbers of no fixed width"):
                onnx_files.from_bytes(proto.SerializeToString())
        else:
            onnx_files.from_bytes(proto.SerializeToString())
            found = onnx_files.Arrays(None).array(tensor, "W")
            assert np.array_equal(found.view(np.uint16) if kind == 10 else found, numbers)


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackage, match=r"pip install 'tinygrad_rnn\[onnx\]'"):
        from_onnx("model.onnx")


def relu(name, x, y):
    return helper.make_node("Relu", [x], [y], name=name)


def nested(depth):
    last = graph = helper.make_graph([relu("last", "X", "q")], "inner", [], [info("q")])
    for i in range(depth):
        node = helper.make_node("If", ["c"], [f"q{i}"], then_branch=graph, else_branch=last)
        graph = helper.make_graph([node], "outer", [], [info(f"q{i}")])
    return model(graph.node, {"X": X, "c": np.array(True)}, [graph.output[0].name])


def with_functions():
    proto = model([relu("a", "X", "y")], {"X": X}, ["y"])
    proto.functions.add(name="mine", domain="own")
    return proto


def with_a_sequence():
    proto = model([relu("a", "X", "y")], {"X": X}, ["y"])
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])))
    return proto


def without_opset():
    proto = model([relu("a", "X", "y")], {"X": X}, ["y"])
    proto.ClearField("opset_import")
    return proto


WRONG_GRAPHS = {
    "a circle": (lambda: model([relu("a", "z", "y"), relu("b", "y", "z")], {"X": X}, ["z"]), "'a' .*takes 'z'"),
    "not in order": (lambda: model([relu("a", "z", "y"), relu("b", "X", "z")], {"X": X}, ["y"]), "takes 'z'"),
    "defined twice": (lambda: model([relu("a", "X", "y"), relu("b", "X", "y")], {"X": X}, ["y"]),
    "'y' is defined twice"),
    "defined over an input": (lambda: model([relu("a", "X", "X")], {"X": X}, ["X"]), "'X' is defined twice"),
    "no output": (lambda: model([relu("a", "X", "y")], {"X": X}, []), "no output"),
    "output of nobody": (lambda: model([relu("a", "X", "y")], {"X": X}, ["z"]), "nothing defines 'z'"),
    "node without output": (lambda: model([helper.make_node("Relu", ["X"], [])], {"X": X}, ["X"]), "has no output"),
    "deep nesting": (lambda: nested(20), "more than 16 deep"),
    "functions": (with_functions, "'mine', are not read"),
    "no opset": (without_opset, "opset 0"),
    "sequences": (with_a_sequence, "'X' is a sequence_type"),
    "nothing": (onnx.ModelProto, "no graph"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_GRAPHS)
def test_wrong_graphs(what):
    make, words = WRONG_GRAPHS[what]
    with pytest.raises((FileError, ConversionError), match=words):
        from_onnx(make())


def test_graphs_in_graphs_are_read_to_some_depth():
    assert np.array_equal(from_onnx(nested(3))(X, np.array(True)).numpy(), X)


# -- external data -----------------------------------------------------------------------------------------------


def outside(folder: Path, location="weights.bin", **entries):
    """A model in a folder whose W lies in a file of its own."""
    proto = gru()
    tensor = tensor_of(proto, "W")
    (folder / "weights.bin").write_bytes(bytes(16) + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in ({"location": location, "offset": "16", "length": str(6 * 5 * 4)} | entries).items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_model(tmp_path):
    wanted = from_onnx(gru()).cells[0].W.numpy()
    assert np.array_equal(from_onnx(outside(tmp_path)).cells[0].W.numpy(), wanted)
    (tmp_path / "below").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "below" / "w.bin")
    path = outside(tmp_path, "below/w.bin")
    assert np.array_equal(from_onnx(path).cells[0].W.numpy(), wanted)


@pytest.mark.parametrize("location", [
    "../weights.bin", "below/../../weights.bin", "/etc/passwd", "..\\weights.bin", "C:\\weights.bin", "\\\\host\\share",
    "", ".", "missing.bin", "weights.bin\0", "a" * 5000, "link.bin", "folder/weights.bin", "loop",
])  # fmt: skip
def test_external_data_elsewhere(tmp_path, location):
    inside = tmp_path / "model"
    inside.mkdir()
    path = outside(inside, location)
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    with pytest.raises(FileError, match="external data at"):
        from_onnx(path)


@pytest.mark.parametrize("entries", [
    {"offset": "17"}, {"offset": "-1"}, {"offset": "1e1"}, {"offset": str(2**64)}, {"offset": "9" * 10**4},
    {"length": "4"}, {"length": "-120"}, {"length": str(2**62)}, {"offset": "٣"}, {"offset": str(2**63 - 1)},
], ids=str)  # fmt: skip
def test_external_data_of_wrong_sizes(tmp_path, entries):
    with pytest.raises(FileError, match="'W'"):
        from_onnx(outside(tmp_path, **entries))


def test_external_data_that_many_tensors_share(tmp_path):
    path = outside(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for i in range(20):
        proto.graph.initializer.add().CopyFrom(tensor_of(proto, "W"))
        proto.graph.initializer[-1].name = f"W{i}"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(FileError, match="overlaps"):
        from_onnx(path)


def test_external_data_of_a_model_without_a_folder(tmp_path):
    proto = onnx.load(outside(tmp_path), load_external_data=False)
    with pytest.raises(FileError, match="without a folder"):
        from_onnx(proto)


def test_a_special_file_as_external_data(tmp_path):
    path = outside(tmp_path)
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(FileError, match="no such file"):
        from_onnx(path)


# -- small files that ask for much ---------------------------------------------------------------------------------


def message(tag: int, body: bytes) -> bytes:
    """A field of a protocol buffer that holds another message."""
    length, found = len(body), bytearray([tag])
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    return bytes(found) + bytes([length]) + body


def walks(W, R, nodes):
    made = [helper.make_node("GRU", ["X", "W", "R"], [f"y{i}"]) for i in range(nodes)]
    return model(made, {"X": X}, ["y0"], {"W": W, "R": R})


def doubled(times):
    arrays = arrays_for("GRU", np.random.default_rng(0), states=False)
    nodes = [helper.make_node("Concat", [f"w{i}"] * 2, [f"w{i + 1}"], axis=0) for i in range(times)]
    nodes.append(helper.make_node("GRU", ["X", f"w{times}", "R"], ["y"]))
    return model(nodes, {"X": X}, ["y"], {"w0": arrays["W"], "R": arrays["R"]})


def unknown(*before, **arrays):
    """A graph whose last node is of an operator that nobody knows."""
    proto = model([*before, helper.make_node("Nope", ["X"], ["y"])], {"X": X}, ["y"], arrays)
    for tensor in proto.graph.initializer:  # one byte for each number
        tensor.ClearField("raw_data")
        tensor.int64_data.extend(arrays[tensor.name].tolist())
    return proto


def added(numbers):
    W = np.zeros(numbers, np.int64)
    proto = unknown(W=W)
    proto.graph.node[-1].CopyFrom(helper.make_node("Add", ["W", "W"], ["y"]))
    return proto


def constants(count):
    return unknown(*[helper.make_node("Constant", [], [f"a{i}"], value_int=1) for i in range(count)])


def identities(count):
    return unknown(*[helper.make_node("Identity", [f"a{i - 1}" if i else "X"], [f"a{i}"]) for i in range(count)])


def made_of(*nodes, **arrays):
    R = np.zeros((1, 6, 2), np.float32)
    return model([*nodes, helper.make_node("GRU", ["X", "W", "R"], ["y"])], {"X": X}, ["y"], {"R": R, **arrays})


def node(op, *inputs):
    return helper.make_node(op, inputs, ["W"])


SMALL = np.ones((1, 6, 5), np.float32)
COLUMN, ROW = np.ones((1, 3000, 1), np.float32), np.ones((1, 1, 3000), np.float32)
DEMANDING = {
    "messages of nothing": lambda: b"\x08\x08\x42\x02\x10\x11" + message(0x3A, b"\x0a\x00" * 2_000_000),
    "messages in messages": lambda: b"".join([b"\x3a\xff\xff\xff\xff\x07"] * 1000),
    "sizes of nothing": lambda: change(gru(), "W", dims=[2**62] * 100_000),
    "a huge shape": lambda: change(gru(), "W", dims=[2**31, 2**31], raw_data=b""),
    "doubled again and again": lambda: doubled(60),
    "a huge constant": lambda: made_of(node("ConstantOfShape", "s"), s=np.array([1, 10**6, 10**6])),
    "a constant of huge rank": lambda: made_of(node("ConstantOfShape", "s"), s=np.full(10**5, 2)),
    "a huge expansion": lambda: made_of(node("Expand", "a", "s"), a=SMALL, s=np.array([10**9, 6, 5])),
    "a huge sum": lambda: made_of(node("Add", "a", "b"), a=COLUMN, b=ROW),
    "a huge choice": lambda: made_of(node("Gather", "a", "b"), a=COLUMN, b=np.zeros((300, 300), np.int64)),
    "the same weights again and again": lambda: walks(np.zeros((1, 300, 200)), np.zeros((1, 300, 100)), 2000),
    "layers again and again": lambda: walks(np.zeros((1, 3, 1)), np.zeros((1, 3, 1)), 5000),
    "a thousand layers": lambda: walks(np.zeros((1, 3, 1)), np.zeros((1, 3, 1)), 999),
    "small numbers": lambda: added(3_000_000),
    "numbers for nobody": lambda: unknown(W=np.zeros(4_000_000, np.int64)),
    "fewer numbers for nobody": lambda: unknown(W=np.zeros(2_000_000, np.int64)),
    "nodes for nobody": lambda: identities(100_000),
    "fewer nodes for nobody": lambda: identities(2**15 - 1),
    "constants for nobody": lambda: constants(60_000),
    "fewer constants for nobody": lambda: constants(2**15 - 1),
    "arrays for nobody": lambda: unknown(**{f"w{i}": np.zeros(1, np.int64) for i in range(2**15)}),
}  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="where the memory of a process is not told")
@pytest.mark.parametrize("what", DEMANDING)
def test_small_files_that_ask_for_much(what, tmp_path):
    """In a process of its own: the memory that it has more after reading than before, and the time that it took."""
    data = DEMANDING[what]()
    path = tmp_path / "model.onnx"
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    program = textwrap.dedent(f"""
        import pathlib, time, onnx
        from tinygrad_rnn.errors import FileError, ConversionError
        from tinygrad_rnn.interop import from_onnx
        status = pathlib.Path("/proc/self/status")  # not getrusage, which knows the largest of the parent too
        most = lambda: int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
        before, start = most(), time.process_time()
        try:
            from_onnx({str(path)!r})
        except (FileError, ConversionError) as error:
            print(most() - before, time.process_time() - start)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    memory, seconds = map(float, done.stdout.split())
    assert memory < 100 and seconds < 4
