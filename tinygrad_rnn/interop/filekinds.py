"""The kinds of files that hold models: how each becomes a module, how a module becomes one, and in what it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..backend import Array
from ..errors import ConversionError, FileError, OptionError
from ..nn.module import Module
from ..train.loop import load_model
from .calling import use_of
from .files import refuse_pickle
from .keras_ import from_keras, to_keras
from .layers import LayersGiven
from .onnx_ import from_onnx, to_onnx
from .report import Report
from .running import again_keras, again_onnx, run_keras, run_onnx, run_safetensors, run_torch
from .safetensors_ import load, save, save_arrays
from .torch_ import torch_state

Runner = Callable[[Path, Module, dict[str, Array]], Sequence[Array]]
"""As in `running`."""


class Kind(NamedTuple):
    """What the files of one suffix are.

    name: of their form. suffix: how their names end; of rows with the same one, the first is the usual one.
    runner: the library that they are for. read: (path, layers, report) -> a module. write: (module, path, report).
    run: (path, module, inputs) -> the outputs that the library computes; module: what the file is said to be.
    again: the same, as a module read from the file computes them here; None, if a file does not tell enough for that.
    """

    name: str
    suffix: str
    runner: str
    read: Callable[[Path, LayersGiven | None, Report], Module]
    write: Callable[[Module, Path, Report], Any]
    run: Runner
    again: Runner | None = None


def kind_of(path: Path, names: str | None = None) -> Kind:
    """What a file is by its suffix.

    Raises: FileError for a pickle, and for a file of old Keras; OptionError for any other suffix.
    """
    refuse_pickle(path)
    found = [kind for kind in KINDS if path.name.lower().endswith(kind.suffix)]
    if not found and path.suffix.lower() in (".h5", ".hdf5"):
        raise FileError(f"{path} has the old format of Keras by its name: load it in Keras, and save it as .keras")
    if not found:
        known = ", ".join(dict.fromkeys(kind.suffix for kind in KINDS))
        raise OptionError(f"{path} ends in none of {known}, by which files are told apart")
    if names not in (None, "torch"):
        raise OptionError(f'names={names!r} is not known; "torch" is, or leave it out')
    chosen = [kind for kind in found if names in (None, kind.name)]
    if not chosen:
        raise OptionError(
            f"names={names!r} (--names {names}) has no meaning for {path}: leave it out, or name a .safetensors file"
        )
    return chosen[0]


def read_run(folder: Path, layers: LayersGiven | None, report: Report) -> Module:
    if layers is not None:
        raise OptionError(f"layers= (--layers) says what a file does not, and the run in {folder} tells all")
    model, vocabulary, _ = load_model(folder)
    report.unchanged(model)
    report.note(
        f"the {len(vocabulary)} symbols of the vocabulary stay in {folder}: no file of a model has a place for them"
    )
    return model


def _read_safetensors(path: Path, layers: LayersGiven | None, report: Report) -> Module:
    return load(path, layers=layers, report=report)


def _read_keras(path: Path, layers: LayersGiven | None, report: Report) -> Module:
    return from_keras(path, layers=layers, report=report)


def _read_onnx(path: Path, layers: LayersGiven | None, report: Report) -> Module:
    if layers is not None:
        raise OptionError(f"layers= (--layers) says what a file does not, and {path} tells all")
    return from_onnx(path, report=report)


def _write_safetensors(module: Module, path: Path, report: Report) -> None:
    save(module, path)
    report.unchanged(module)


def _write_torch(module: Module, path: Path, report: Report) -> None:
    save_arrays(torch_state(module, report=report), path)


def _write_keras(module: Module, path: Path, report: Report) -> None:
    to_keras(module, path, report=report)


def _write_onnx(module: Module, path: Path, report: Report) -> None:
    try:
        use_of(module)
    except OptionError as error:
        raise ConversionError(f"{str(error).partition(';')[0]}: say the order of its layers with layers= (--layers), "
                              "or call to_onnx with inputs=") from None  # fmt: skip
    to_onnx(module, path, report=report)


HERE = "this package"
KINDS = (
    Kind("safetensors", ".safetensors", HERE, _read_safetensors, _write_safetensors, run_safetensors),
    Kind("torch", ".safetensors", "torch", _read_safetensors, _write_torch, run_torch),
    Kind("keras", ".keras", "Keras", _read_keras, _write_keras, run_keras, again_keras),
    Kind("keras", ".weights.h5", "Keras", _read_keras, _write_keras, run_keras),
    Kind("onnx", ".onnx", "onnxruntime", _read_onnx, _write_onnx, run_onnx, again_onnx),
)
