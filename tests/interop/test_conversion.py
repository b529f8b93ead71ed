"""Files of one kind as files of another: each pair there is, by the command too, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interop.modules import with_numbers
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import cli, interop
from tinygrad_rnn.errors import ConversionError, FileError, MissingPackage, OptionError
from tinygrad_rnn.interop import comparison, filekinds, packing, running
from tinygrad_rnn.interop import conversion as converting
from tinygrad_rnn.interop.files import needed
from tinygrad_rnn.interop.onnx_ import layers as onnx_layers
from tinygrad_rnn.train import checkpoint

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("onnx")
pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H, V, O = 3, 4, 7, 5
KINDS = ("safetensors", "torch.safetensors", "keras", "onnx")


def layer(dtype: Any = np.float32) -> tg.nn.GRU:
    return with_numbers(tg.nn.GRU(I, H, 2, reset="after", bidirectional=True, recurrent_bias=True, dtype=dtype))


def several() -> interop.Layers:
    lstm = tg.nn.LSTM(I, H, batch_first=True)
    layers = {"embedding": tg.nn.Embedding(V, I), "lstm": lstm, "head": tg.nn.Linear(H, O)}
    return with_numbers(interop.Layers(layers, layers))


MODELS = {"layer": layer, "several": several}
ORDER = {"layer": None, "several": {"embedding": "Embedding", "lstm": "LSTM", "head": "Linear"}}


def written(module: Any, kind: str, folder: Path) -> Path:
    path = folder / f"model.{kind}"
    if kind == "safetensors":
        interop.save(module, path)
    elif kind == "torch.safetensors":
        interop.save_arrays(interop.torch_state(module), path)
    elif kind == "keras":
        interop.to_keras(module, path)
    else:
        interop.to_onnx(module, path)
    return path


def installed(runner: str) -> bool:
    """Whether the other side of a comparison can be run here."""
    try:
        needed(runner.lower(), "this")
    except MissingPackage:
        return False
    return True


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", [*KINDS, "weights.h5"])
def test_every_kind_of_file_becomes_every_other(name: str, source: str, target: str, tmp_path: Path) -> None:
    theirs = written(MODELS[name](), source, tmp_path)
    ours = tmp_path / f"converted.{target}"
    names = "torch" if target.startswith("torch") else None
    layers = ORDER[name] if source.startswith("torch") else None
    module = converting.convert(theirs, ours, layers=layers, names=names)
    found = list(comparison.compared(theirs, ours, module, names=names))
    assert all(
        each.runner == "this package" or each.largest is not None or not installed(each.runner) for each in found
    )
    assert all(each.largest < 1e-6 for each in found if each.largest is not None), list(map(str, found))


def test_the_folder_of_a_run_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat which already ate was full. " * 40)
    options = ["--hidden", "5", "--embedding", "4", "--steps", "2", "--batch", "2", "--truncation", "6"]
    assert cli.main(["train", "--text", str(text), *options, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["convert", str(tmp_path / "run"), str(tmp_path / "run.onnx"), "--check"]) == 0
    said = capsys.readouterr().out
    assert "run.onnx holds LanguageModel" in said and "symbols of the vocabulary stay" in said
    assert "run.onnx in this package: largest difference" in said


def test_the_command_prints_what_went_where_and_by_how_much_the_sides_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = written(layer(), "torch.safetensors", tmp_path), tmp_path / "gru.onnx"
    assert cli.main(["convert", str(source), str(target), "--check"]) == 0
    said = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "weight_hh_l1_reverse 12 x 4 cells.3.U 4 x 12 gates r z n, transposed" in rows
    assert "cells.3.U 4 x 12 layer1.R[1] 12 x 4 gates z r n, transposed" in rows
    assert "gru.onnx in this package: largest difference" in said


def test_layers_are_named_for_files_that_do_not_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = written(several(), "torch.safetensors", tmp_path), tmp_path / "lm.onnx"
    assert cli.main(["convert", str(source), str(target)]) == 2
    assert "may be an Embedding, or a Linear" in capsys.readouterr().err and not target.exists()
    named = "embedding=Embedding, lstm ,head"
    assert cli.main(["convert", str(source), str(target), "--layers", named]) == 0 and target.exists()


def test_settings_of_layers_are_said_to_the_command(tmp_path: Path) -> None:
    layers = {"gru": tg.nn.GRU(I, H, reset="after", batch_first=True), "norm": tg.nn.LayerNorm(H, eps=0.3)}
    model = with_numbers(interop.Layers(layers, layers))
    source, target = written(model, "torch.safetensors", tmp_path), tmp_path / "m.safetensors"
    said = "gru:batch_first,norm=LayerNorm:eps=0.3"
    assert cli.main(["convert", str(source), str(target), "--layers", said, "--check"]) == 0
    x = np.random.default_rng(1).normal(size=(2, 5, I)).astype(np.float32)
    assert np.abs(interop.load(target)(x).numpy() - model(x).numpy()).max() < 1e-6


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["convert", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "Traceback" not in said.err
    return said.err


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gru = written(layer(), "safetensors", tmp_path)
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "noise.keras").write_bytes(bytes(range(256)))
    out = tmp_path / "out.onnx"
    assert "there is no file" in refused(capsys, tmp_path / "none.onnx", out)
    assert "none is written" in refused(capsys, gru, tmp_path / "model.pt")
    assert "ends in none of" in refused(capsys, gru, tmp_path / "model.txt")
    assert "ends in none of" in refused(capsys, tmp_path / "model.txt", out)
    assert "has no meaning" in refused(capsys, gru, out, "--names", "torch")
    assert "names each layer once" in refused(capsys, gru, out, "--layers", "a,a")
    assert "names each layer once" in refused(capsys, gru, out, "--layers", "a,,b")
    assert "noise.keras" in refused(capsys, tmp_path / "noise.keras", out)
    assert "empty.onnx" in refused(capsys, tmp_path / "empty.onnx", out)
    assert "there is no checkpoint" in refused(capsys, tmp_path, out)
    before = written(tg.nn.GRU(I, H), "safetensors", tmp_path)
    assert "reset gate" in refused(capsys, before, tmp_path / "b.safetensors", "--names", "torch")
    assert "could not be written" in refused(capsys, before, tmp_path / "nowhere" / "b.onnx")
    assert not out.exists() and {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".onnx", ".keras"}


def test_messages_speak_of_the_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts, out = written(several(), "torch.safetensors", tmp_path), tmp_path / "out.onnx"
    whole = written(layer(), "safetensors", tmp_path)
    weights = tmp_path / "m.weights.h5"
    interop.to_keras(several(), weights)
    assert "(--layers embedding=Embedding,...)" in refused(capsys, parts, out)
    assert "describes itself: leave out layers= (--layers)" in refused(capsys, whole, out, "--layers", "a")
    assert "layers= (--layers)" in refused(capsys, weights, out)
    assert "(--names torch)" in refused(capsys, whole, out, "--names", "torch")
    assert "there is no file or folder" in refused(capsys, tmp_path / "run1", out)
    assert "save it as .keras" in refused(capsys, tmp_path / "old.h5", out)
    assert "--out" not in refused(capsys, whole, tmp_path / "nowhere" / "out.onnx")
    assert "--out" not in refused(capsys, whole, tmp_path / "nowhere" / "out.keras")


def test_the_command_that_turns_a_pickle_has_a_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    tied = torch.ones(3, 3)
    torch.save({"a": tied, "b": tied, "c": tied[:2].T}, tmp_path / "m.pt")
    assert cli.main(["convert", str(tmp_path / "m.pt"), str(tmp_path / "m.onnx")]) == 2
    head, command, tail = capsys.readouterr().err.splitlines()
    assert head.startswith("tinygrad-rnn: ") and "m['model']" in tail
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert interop.read(tmp_path / "m.safetensors")[0]["c"].shape == (3, 2)


WRONG = {
    "z not negated": ('if "z" in each:', "if False:"),
    "a bias inside of the reset left out": ('"c": c}', '"c": {}}'),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_conversion_is_noticed_by_the_check(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(layer(), "safetensors", tmp_path)
    assert cli.main(["convert", str(source), str(tmp_path / "right.keras"), "--check"]) == 0
    mutated(monkeypatch, packing, "_turned", *WRONG[wrong])
    assert "computes something else" in refused(capsys, source, tmp_path / "wrong.keras", "--check")


def test_a_failed_check_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mutants import mutated

    source, target = written(layer(), "safetensors", tmp_path), tmp_path / "gru.keras"
    target.write_bytes(b"good")
    mutated(monkeypatch, packing, "_turned", *WRONG["z not negated"])
    assert "was not written" in refused(capsys, source, target, "--check")
    assert target.read_bytes() == b"good" and len(list(tmp_path.iterdir())) == 2
    assert "could not be written" in refused(capsys, source, tmp_path / "nowhere" / "gru.keras", "--check")


def test_a_file_can_take_the_place_of_its_source(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = written(layer(), "safetensors", tmp_path)
    assert cli.main(["convert", str(source), str(source), "--names", "torch", "--check"]) == 0
    assert "weight_ih_l0" in interop.read(source)[0]


@pytest.mark.parametrize("wrong", ["nan in a later output", "one step", "several steps"])
def test_each_output_at_each_size_is_compared(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(layer(), "safetensors", tmp_path)
    row = filekinds.KINDS[0]

    def run(path: Path, module: Any, inputs: dict[str, Any]) -> Any:
        first, *rest = row.run(path, module, inputs)
        if wrong == "nan in a later output":
            return [first, *[each * np.nan for each in rest]]
        return [first + ((len(first) == 1) == (wrong == "one step")), *rest]

    monkeypatch.setattr(filekinds, "KINDS", (row._replace(run=run), *filekinds.KINDS[1:]))
    found = next(comparison.compared(source, source, interop.load(source)))
    assert found.largest is not None and not found.largest <= found.allowed


def test_whatever_a_library_raises_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(layer(), "safetensors", tmp_path)

    def run(path: Path, module: Any, inputs: dict[str, Any]) -> Any:
        raise NotImplementedError("no kernel\nfor float16")

    monkeypatch.setattr(filekinds, "KINDS", (filekinds.KINDS[0]._replace(run=run), *filekinds.KINDS[1:]))
    found = next(comparison.compared(source, source, interop.load(source)))
    assert found.largest is None and found.why == "it cannot run it (NotImplementedError: no kernel for float16)"


def keras_files(folder: Path) -> dict[str, Path]:
    """What Keras itself writes."""
    keras = pytest.importorskip("keras")
    L, start = keras.layers, lambda: keras.Input((None, I))
    models = {
        "the last output": [L.GRU(H)],
        "walking order": [L.GRU(H, go_backwards=True, return_sequences=True)],
        "no recurrence": [L.Dense(H, activation="tanh"), L.Dense(2)],
    }
    found = {name: folder / f"{place}.keras" for place, name in enumerate(models)}
    for name, path in found.items():
        keras.Sequential([start(), *models[name]]).save(path)
    found["capitals"] = folder / "M.KERAS"
    found["capitals"].write_bytes(found["the last output"].read_bytes())
    return found


@pytest.mark.parametrize("name", ["the last output", "walking order", "no recurrence", "capitals"])
@pytest.mark.parametrize("target", ["keras", "safetensors", "onnx", "weights.h5", "WEIGHTS.H5"])
def test_what_keras_wrote_computes_the_same_elsewhere(name: str, target: str, tmp_path: Path) -> None:
    def prove(found: Any) -> None:
        for each in found:
            assert each.largest is not None or not installed(each.runner), each
            assert each.largest is None or each.largest < 1e-6, each

    converting.convert(keras_files(tmp_path)[name], tmp_path / f"made.{target}", proof=prove)


def test_a_wrong_final_state_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    lstm = with_numbers(tg.nn.LSTM(I, H))
    source, target = written(lstm, "safetensors", tmp_path), tmp_path / "lstm.torch.safetensors"
    module = converting.convert(source, target, names="torch")
    assert max(each.largest or 0 for each in comparison.compared(source, target, module, names="torch")) < 1e-6
    right = torch.nn.LSTM.forward

    def wrong(self: Any, x: Any, hx: Any = None) -> Any:
        output, (h_n, c_n) = right(self, x, hx)
        return output, (h_n, c_n + 1)

    monkeypatch.setattr(torch.nn.LSTM, "forward", wrong)
    last = list(comparison.compared(source, target, module, names="torch"))[-1]
    assert last.runner == "torch" and last.largest == pytest.approx(1, abs=1e-6)


def test_a_number_of_outputs_that_is_another_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(with_numbers(tg.nn.LSTM(I, H)), "safetensors", tmp_path)
    row = filekinds.KINDS[0]
    short = row._replace(run=lambda *given: row.run(*given)[:2])
    monkeypatch.setattr(filekinds, "KINDS", (short, *filekinds.KINDS[1:]))
    with pytest.raises(ConversionError, match="2 outputs in this package, and 3 here"):
        list(comparison.compared(source, source, interop.load(source)))


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    source, target = written(layer(), "safetensors", tmp_path), tmp_path / "gru.keras"
    found = list(comparison.compared(source, target, converting.convert(source, target)))
    assert [str(each).endswith("of the output; it gives no final states") for each in found] == [False, True, True]


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str, purpose: str) -> Any:
        raise MissingPackage(f"{purpose} needs {package}: pip install {package}")

    monkeypatch.setattr(running, "needed", missing)
    source, target = written(layer(), "safetensors", tmp_path), tmp_path / "gru.keras"
    found = list(comparison.compared(source, target, converting.convert(source, target)))
    assert [str(each) for each in found][1] == "gru.keras in Keras: running it needs keras: pip install keras"
    assert [each.largest is None for each in found] == [False, True, False]


def test_a_library_without_the_one_that_it_is_built_on_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keras.py").write_text("import no_such_backend.core")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(MissingPackage, match=r"needs keras, which is there but lacks no_such_backend .*KERAS_BACKEND"):
        needed("keras", "this")


def test_names_are_those_of_torch_or_none(tmp_path: Path) -> None:
    source = written(layer(), "safetensors", tmp_path)
    with pytest.raises(OptionError, match="names='keras' is not known"):
        converting.convert(source, tmp_path / "m.keras", names="keras")


def test_capitals_in_a_suffix_are_the_same(tmp_path: Path) -> None:
    for name in ("A.KERAS", "B.Weights.H5"):
        interop.to_keras(layer(), tmp_path / name)
        assert interop.from_keras(tmp_path / name).parameters()


def test_a_library_that_cannot_be_imported_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keras.py").write_text("raise ImportError('no backend')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(MissingPackage, match=r"there and cannot be imported \(no backend\); KERAS_BACKEND chooses"):
        needed("keras", "this")


# -- layers in a graph -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_of_a_graph_are_found_again(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    made = interop.as_layers(interop.from_onnx(written(model, "onnx", tmp_path)))
    assert type(made) is type(model)
    for mine, again in zip(model.parameters(), made.parameters(), strict=True):
        if name == "several":
            assert mine.shape == again.shape
    if name == "layer":
        assert made.num_layers == 2 and made.bidirectional


def test_the_last_output_is_told_from_all(tmp_path: Path) -> None:
    gru = layer()
    made = interop.as_layers(interop.from_onnx(written(interop.Final(gru), "onnx", tmp_path)))
    assert isinstance(made, interop.Final) and made.layer.num_layers == 2


class Residual(tg.nn.Module):
    """More than a chain: what goes in is added to what comes out."""

    def __init__(self) -> None:
        self.gru = with_numbers(tg.nn.GRU(I, I))

    def forward(self, x: Any) -> Any:
        return self.gru(x)[0] + x


class Twice(tg.nn.Module):
    """More than a chain: nothing but recurrent layers and axes that move, and yet not one after another."""

    def __init__(self) -> None:
        self.first, self.second = with_numbers(tg.nn.GRU(I, H)), with_numbers(tg.nn.GRU(I, H))

    def forward(self, x: Any) -> Any:
        return tg.concatenate(self.first(x)[0], self.second(x)[0], axis=-1)


@pytest.mark.parametrize("kind", [Residual, Twice])
def test_a_graph_that_is_no_chain_is_refused(kind: Any, tmp_path: Path) -> None:
    x, path = np.ones((5, 2, I), np.float32), tmp_path / "model.onnx"
    model = kind()
    interop.to_onnx(model, path, [x], dynamic={"x": {0: "T", 1: "N"}})
    found = interop.from_onnx(path)
    assert np.abs(found(x).numpy() - model(x).numpy()).max() < 1e-6
    with pytest.raises(ConversionError, match="to_onnx writes it"):
        interop.as_layers(found)
    again = converting.convert(path, tmp_path / "again.onnx")
    assert all(
        each.largest < 1e-6 for each in comparison.compared(path, tmp_path / "again.onnx", again) if each.largest
    )


def test_numbers_decide_whether_a_chain_is_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = interop.from_onnx(written(layer(), "onnx", tmp_path))
    right = onnx_layers._arranged

    def wrong(*arguments: Any) -> Any:
        made = right(*arguments)
        for tensor in made.parameters() if made is not None else ():
            tensor.assign_(tensor.numpy() * 1.001)
        return made

    monkeypatch.setattr(onnx_layers, "_arranged", wrong)
    with pytest.raises(ConversionError):
        interop.as_layers(found)


def test_every_writer_leaves_a_whole_file_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = layer()
    paths = [written(module, kind, tmp_path) for kind in KINDS]
    before = [path.read_bytes() for path in paths]
    monkeypatch.setattr(checkpoint.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    for kind in KINDS:
        with pytest.raises(tg.errors.OutputError, match="No space left"):
            written(module, kind, tmp_path)
    assert [path.read_bytes() for path in paths] == before and len(list(tmp_path.iterdir())) == len(paths)


def test_options_of_the_function(tmp_path: Path) -> None:
    source = written(layer(), "onnx", tmp_path)
    with pytest.raises(OptionError, match="tells all"):
        converting.convert(source, tmp_path / "out.onnx", layers={"gru": None})
    with pytest.raises(FileError, match="pickle"):
        converting.convert(tmp_path / "model.pth", tmp_path / "out.onnx")
