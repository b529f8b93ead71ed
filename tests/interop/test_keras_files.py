"""Files of Keras without Keras: what it saved is read, what is written is read again, and bad files do no harm."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from interop.modules import with_numbers
from interop.wrong import READINGS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ConversionError, FileError, MissingPackage, OutputError, TinygradError
from tinygrad_rnn.interop import from_keras, packing, to_keras
from tinygrad_rnn.interop.keras_ import files as keras_files
from tinygrad_rnn.interop.keras_ import hdf5, hdf5_child
from tinygrad_rnn.interop.layers import Final, Layers

h5py = pytest.importorskip("h5py")

GOLDEN = Path(__file__).parents[1] / "golden"
SAVED = json.loads((GOLDEN / "keras_model.json").read_text(encoding="utf-8"))
ORDER = {"embedding": None, "gru": {"return_sequences": False}, "dense": {"activation": "softmax"}}
LINUX = Path("/proc/self/statm").exists()
RNG = np.random.default_rng(5)


def saved(suffix):
    """The golden model, read from what Keras wrote."""
    return from_keras(GOLDEN / f"keras_model{suffix}", layers=ORDER if suffix == ".weights.h5" else None)


# -- right files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_what_keras_saved_computes_what_keras_did(suffix):
    output = saved(suffix)(np.array(SAVED["ids"])).numpy()
    assert np.abs(output - SAVED["formula"]).max() < 1e-6
    assert np.abs(output - SAVED["output"]).max() < 1e-6


@pytest.mark.parametrize("name", READINGS)
def test_a_wrong_reading_of_it_is_caught(name, monkeypatch):
    mutated(monkeypatch, packing, *READINGS[name])
    with pytest.raises((AssertionError, TinygradError)):
        test_what_keras_saved_computes_what_keras_did(".keras")


def test_it_is_read_where_there_is_no_keras():
    code = f"""
        import sys
        sys.modules["keras"] = None  # an import of it fails
        from tinygrad_rnn.interop import from_keras, to_keras
        from tinygrad_rnn.errors import MissingPackage
        model = from_keras({str(GOLDEN / "keras_model.keras")!r})
        print(model({SAVED["ids"]}).tolist())
        try:
            to_keras(model)
        except MissingPackage as error:
            assert "pip install keras" in str(error)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert not ran.stderr
    assert np.abs(np.array(json.loads(ran.stdout)) - SAVED["formula"]).max() < 1e-6


def test_a_missing_h5py_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("site-packages")])
    with pytest.raises(MissingPackage, match=r"h5py.*pip install 'tinygrad_rnn\[keras\]'"):
        from_keras(GOLDEN / "keras_model.keras")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackage, match=r"h5py.*pip install 'tinygrad_rnn\[keras\]'"):
        to_keras(tg.nn.GRU(2, 3), tmp_path / "m.keras")


MODELS = {
    "RNN": lambda: tg.nn.RNN(3, 5, 2, activation="relu"),
    "GRU": lambda: tg.nn.GRU(3, 5, bidirectional=True, dtype=np.float64),
    "GRU after": lambda: tg.nn.GRU(3, 5, reset="after", recurrent_bias=True, batch_first=True),
    "LSTM": lambda: tg.nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True),
    "a tagger": lambda: Layers(
        {"e": tg.nn.Embedding(4, 3), "r": Final(tg.nn.LSTM(3, 5, reverse=True)), "n": tg.nn.LayerNorm(5, eps=0.3)},
        "ern",
    ),
    "without time": lambda: tg.nn.Sequential(tg.nn.Linear(3, 4), tg.silu, tg.nn.Linear(4, 2, bias=False), tg.softmax),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_again(name, tmp_path):
    module = with_numbers(MODELS[name]())
    to_keras(module, tmp_path / "m.keras")
    first = (tmp_path / "m.keras").read_bytes()
    read = from_keras(tmp_path / "m.keras")
    time_first = getattr(module, "batch_first", True) is False
    numbers = RNG.normal(size=(2, 6, 3)).astype(module.parameters()[0].dtype)
    x = RNG.integers(0, 4, (2, 6)) if name == "a tagger" else numbers
    mine, theirs = module(x.swapaxes(0, 1) if time_first else x), read(x)
    if name == "a tagger":
        mine = module["n"](module["r"](module["e"](x.T)))
    mine, theirs = (each[0] if isinstance(each, tuple) else each for each in (mine, theirs))
    assert np.abs((mine.numpy().swapaxes(0, 1) if time_first else mine.numpy()) - theirs.numpy()).max() < 1e-6
    to_keras(read, tmp_path / "m.keras")
    again = from_keras(tmp_path / "m.keras")
    assert str(again) == str(read)
    to_keras(module, tmp_path / "m.keras")
    assert (tmp_path / "m.keras").read_bytes() == first


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError):
        to_keras(tg.nn.GRU(2, 3), tmp_path / "missing" / "m.keras")
    assert not list(tmp_path.iterdir())


# -- hostile files ---------------------------------------------------------------------------------------------------

CONTENT = (GOLDEN / "keras_model.keras").read_bytes()
WEIGHTS = (GOLDEN / "keras_model.weights.h5").read_bytes()
CONFIG = zipfile.ZipFile(io.BytesIO(CONTENT)).read("config.json")


def zipped(entries=(), compression=zipfile.ZIP_STORED, **changed):
    """A `.keras` file with entries changed ("config", "metadata", "weights"; None: left out), or more of them."""
    usual = {"metadata": b'{"keras_version": "3.15.1"}', "config": CONFIG, "weights": WEIGHTS} | changed
    parts = zip(("metadata.json", "config.json", "model.weights.h5"), usual.values())
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for name, part in [*parts, *entries]:
            if part is not None:
                archive.writestr(name, part)
    return memory.getvalue()


def made(build):
    """An HDF5 file with what `build` puts into it."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        build(file)
    return memory.getvalue()


def patched(content, old, new, count=1):
    assert old in content
    return content.replace(old, new, count)


def lying_size():
    """An array whose shape says a million rows, and whose storage is that of four."""
    whole = made(lambda f: f.create_dataset("layers/gru/cell/vars/0", data=np.ones((4, 9))))
    return patched(whole, (4).to_bytes(8, "little") + (9).to_bytes(8, "little"), (10**6).to_bytes(8, "little") * 2)


def lying_storage():
    """An array whose shape and storage both say 10 GB."""
    content = lying_size()
    return patched(content, (4 * 9 * 8).to_bytes(8, "little"), (8 * 10**12).to_bytes(8, "little"), 9)


def hard_cycle(file):
    group = file.create_group("layers/a")
    group["again"] = file["layers"]


def virtual(file):
    layout = h5py.VirtualLayout((1000, 1000), "f8")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (1000, 1000))
    file.create_virtual_dataset("layers/v", layout)


def deep(file):
    group = file
    for _ in range(60):
        group = group.create_group("g")


def many(file):
    for i in range(300):
        file.create_group(f"layers/{i}")
        file[f"layers/{i}/again"] = file["layers"]


def undeclared_bomb():
    """100 MB of zeros, of which the list of entries says that they are 1,000."""
    content = zipped(weights=bytes(100_000_000), compression=zipfile.ZIP_DEFLATED)
    return content.replace((100_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))


def long_directory():
    return zipped([(f"assets/{i:0200}", b"") for i in range(200)])


SPACE = ("layers/dense/vars/0", (40_000, 40_000), "f8")
HOSTILE = {
    "no bytes": lambda: b"",
    "a zip of nothing": lambda: b"PK\5\6" + bytes(18),
    "a zip that was cut": lambda: CONTENT[:-30],
    "random bytes": lambda: RNG.bytes(100_000),
    "HDF5 in name": lambda: hdf5.MAGIC + RNG.bytes(100_000),
    "HDF5 alone": lambda: hdf5.MAGIC,
    "a comment": lambda: CONTENT[:-2] + b"\1\0x",
    "a declared bomb": lambda: zipped(weights=bytes(100_000_000), compression=zipfile.ZIP_DEFLATED),
    "an undeclared bomb": undeclared_bomb,
    "a bomb of text": lambda: zipped(config=b" " * 50_000_000, compression=zipfile.ZIP_DEFLATED),
    "a long text": lambda: zipped(config=b'"' + b"a" * 5_000_000 + b'"'),
    "many small values": lambda: zipped(config=b"[" + b"[]," * 320_000 + b"[]]"),
    "lzma": lambda: zipped(compression=zipfile.ZIP_LZMA),
    "a path": lambda: zipped([("../../x", b"x")]),
    "an absolute path": lambda: zipped([("/tmp/x", b"x")]),
    "two of a name": lambda: zipped([("config.json", b"{}")]),
    "a long list of entries": long_directory,
    "no config": lambda: zipped(config=None),
    "no weights": lambda: zipped(weights=None),
    "no version": lambda: zipped(metadata=b"{}"),
    "Keras 2": lambda: zipped(metadata=b'{"keras_version": "2.15.0"}'),
    "deep JSON": lambda: zipped(config=b"[" * 900_000),
    "deep JSON, closed": lambda: zipped(config=b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a long number": lambda: zipped(config=b"1" * 1_000_000),
    "no JSON": lambda: zipped(config=b"\xff\xfe"),
    "a list": lambda: zipped(config=b"[]"),
    "weights that are none": lambda: zipped(weights=b"x" * 1000),
    "weights that were cut": lambda: zipped(weights=WEIGHTS[: len(WEIGHTS) // 2]),
    "a shape that lies": lying_size,
    "a shape and a storage that lie": lying_storage,
    "a huge shape without storage": lambda: made(lambda f: f.create_dataset(*SPACE)),
    "a huge shape in pieces": lambda: made(lambda f: f.create_dataset(*SPACE, chunks=(100, 100), fillvalue=1)),
    "compressed": lambda: made(lambda f: f.create_dataset(*SPACE, chunks=(4000, 4000), compression="gzip")),
    "an external link": lambda: made(lambda f: f.__setitem__("layers", h5py.ExternalLink("/etc/hostname", "x"))),
    "numbers elsewhere": lambda: made(
        lambda f: f.create_dataset("layers/x", (20,), "u1", external=[("/etc/hostname", 0, 20)])),
    "virtual": lambda: made(virtual),
    "a soft link to itself": lambda: made(lambda f: f.__setitem__("layers", h5py.SoftLink("/layers"))),
    "a hard link in a circle": lambda: made(hard_cycle),
    "many links in circles": lambda: made(many),
    "deep groups": lambda: made(deep),
    "many groups": lambda: made(lambda f: [f.create_group(f"layers/{i}") for i in range(12_000)] and None),
    "texts": lambda: made(lambda f: f.create_dataset("layers/x", data=["a" * 100] * 3)),
    "objects": lambda: made(lambda f: f.create_dataset("layers/x", (3,), h5py.vlen_dtype(np.float32))),
    "references": lambda: made(lambda f: f.create_dataset("layers/x", (3,), h5py.ref_dtype)),
    "compounds": lambda: made(lambda f: f.create_dataset("layers/x", (3,), [("a", "f4"), ("b", "f8", (1000,))])),
    "complex numbers": lambda: made(lambda f: f.create_dataset("layers/x", data=np.ones(3, complex))),
    "choices": lambda: made(lambda f: f.create_dataset("layers/x", data=np.ones(3, bool))),
    "bytes": lambda: made(lambda f: f.create_dataset("layers/x", data=np.void(b"abc"))),
    "nothing": lambda: made(lambda f: f.create_dataset("layers/x", data=h5py.Empty("f4"))),
    "a named dtype": lambda: made(lambda f: f.__setitem__("layers/x", np.dtype("f8"))),
    "a long name": lambda: made(lambda f: f.create_dataset("layers/" + "x" * 50_000, data=1.0)),
    "a name that is none": lambda: made(lambda f: f.create_dataset(b"layers/\xff\xfe", data=1.0)),
    "no group": lambda: made(lambda f: None),
    "Keras 2 alone": lambda: made(lambda f: f.create_dataset("model_weights/gru/kernel", data=1.0)),
    "a pickle": lambda: b"\x80\x04cos\nsystem\n(S'touch /tmp/x'\ntR.",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_time_and_room(name, tmp_path):
    path, content = tmp_path / "model.keras", HOSTILE[name]()
    path.write_bytes(content)
    start, on_the_wall = sum(os.times()[:4]), time.perf_counter()
    with pytest.raises(FileError) as error:
        from_keras(path)
    taken, on_the_wall = sum(os.times()[:4]) - start, time.perf_counter() - on_the_wall
    tracemalloc.start()
    with pytest.raises(FileError):
        from_keras(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1 and on_the_wall < 10  # processor time, also of the process that reads: the machine may be busy
    assert peak < 100e6 + len(content)
    assert len(str(error.value)) < 600 and str(path) in str(error.value)
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.skipif(not LINUX, reason="asks the kernel of Linux")
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_neither_this_process_nor_the_one_that_reads_takes_100_megabytes(tmp_path):
    """A process of its own, which has had no memory yet, reads all that is hostile but small."""
    small = {name: content for name, build in HOSTILE.items() if len(content := build()) < 10_000_000}
    for number, content in enumerate(small.values()):
        (tmp_path / str(number)).write_bytes(content)
    code = f"""
        import pathlib, re, resource
        from tinygrad_rnn.errors import FileError
        from tinygrad_rnn.interop import from_keras
        def most():
            own = re.search("VmHWM: *([0-9]+)", pathlib.Path("/proc/self/status").read_text().replace(chr(9), " "))
            return int(own[1]) / 1000, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
        from_keras({str(GOLDEN / "keras_model.keras")!r})
        own, child = most()
        for path in pathlib.Path({str(tmp_path)!r}).iterdir():
            try:
                from_keras(path)
            except FileError:
                pass
        print(most()[0] - own, most()[1] - child)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert not ran.stderr
    assert len(small) > 40 and max(map(float, ran.stdout.split())) < 100


@pytest.mark.parametrize("part", range(0, 32))
def test_a_file_cut_short_is_refused(part, tmp_path):
    for content in (CONTENT, WEIGHTS):
        (tmp_path / "m").write_bytes(content[: len(content) * part // 32])
        with pytest.raises(FileError):
            from_keras(tmp_path / "m")


def test_what_is_code_is_named_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    lambdas = {"class_name": "__lambda__", "config": {"value": f"open({str(ran)!r}, 'w')"}}
    for change in (
        lambda c: c["layers"][2].update(class_name="Lambda"),
        lambda c: c["layers"][2].update(module="os", class_name="system", registered_name="os>system"),
        lambda c: c["layers"][2].update(module="builtins", class_name="exec"),
        lambda c: c["layers"][2]["config"].update(activation=lambdas),
        lambda c: c["layers"][3]["config"].update(activation=lambdas),
        lambda c: c["layers"][3]["config"].update(activation="__import__"),
    ):
        config = json.loads(CONFIG)
        change(config["config"])
        (tmp_path / "m.keras").write_bytes(zipped(config=json.dumps(config).encode()))
        with pytest.raises(ConversionError, match=r"Lambda|system|exec|activation"):
            from_keras(tmp_path / "m.keras")
    assert not ran.exists()


def test_an_unknown_setting_is_named(tmp_path):
    config = json.loads(CONFIG)
    for value in (2, "x", [0], {"a": 1}, True):
        config["config"]["layers"][2]["config"]["projection"] = value
        (tmp_path / "m.keras").write_bytes(zipped(config=json.dumps(config).encode()))
        with pytest.raises(ConversionError, match="GRU 'summary' has projection="):
            from_keras(tmp_path / "m.keras")
    config["config"]["layers"][2]["config"]["projection"] = None
    (tmp_path / "m.keras").write_bytes(zipped(config=json.dumps(config).encode()))
    from_keras(tmp_path / "m.keras")


# -- the process that reads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crime, words",
    {
        "import os; os.abort()": "ended with -",
        "import time; time.sleep(60)": "no end",
        "print('x')": "damaged",
        "import sys; sys.exit('Error: it broke')": "it broke",
    }.items(),
)
def test_a_process_that_dies_or_hangs_or_lies_is_damage(crime, words, monkeypatch):
    monkeypatch.setattr(hdf5, "_START", crime + " #{} {}")
    monkeypatch.setattr(hdf5, "PATIENCE", 2.0)
    with pytest.raises(FileError, match=words):
        hdf5.read(WEIGHTS, "m")


@pytest.mark.skipif(not LINUX, reason="the limits are those of Linux")
@pytest.mark.parametrize(
    "crime, end",
    {
        "open('/etc/hostname')": b"Too many open files",
        "bytes(300_000_000)": b"MemoryError",
        "\nwhile True: pass": -27,
        "sys.stdout.write('fine')": 0,
    }.items(),
)
def test_the_process_has_no_room_for_crime(crime, end):
    code = f"import sys, runpy; m = runpy.run_path({hdf5_child.__file__!r}); m['limit'](1000); {crime}"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, timeout=60)
    assert ran.returncode == end if isinstance(end, int) else end in ran.stderr


def test_what_keras_files_limits_is_there():
    config, weights = keras_files.unzipped(CONTENT, "m")
    assert config["class_name"] == "Sequential" and weights.startswith(hdf5.MAGIC)
