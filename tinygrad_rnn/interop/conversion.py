"""A model's file of one kind as a file of another, by their suffixes, and the proof that both compute the same.

Every kind is a row of `KINDS`: how its files become modules, how modules become its files, and how a file of it runs in
the library that it is for. A conversion reads by one row and writes by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array
from ..core.modes import no_grad
from ..core.tensor import Tensor
from ..errors import ConversionError, MissingPackage, OptionError
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..train.loop import load_model
from .calling import use_of
from .files import PICKLES, named, needed, refuse_pickle
from .keras_ import from_keras, to_keras
from .onnx_.layers import as_layers
from .onnx_.reading import OnnxModel, from_onnx
from .onnx_.writing import to_onnx
from .report import Report
from .safetensors_ import is_described, load, read, save, save_arrays
from .torch_ import to_torch, torch_state

LayersGiven = Mapping[str, str | None]
"""The layers of a file that does not tell, by name, in their order: their kinds, such as "GRU", or None."""

Runner = Callable[[Path, Module, dict[str, Array]], Sequence[Array]]


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


class Difference(NamedTuple):
    """One comparison: which file ran in what, and by how much an output differed at most; or why it did not run.

    allowed: by how much rounding may let them differ.
    why: why it did not run; or what of the outputs was not compared, as the runner does not give it.
    """

    file: str
    runner: str
    largest: float | None
    allowed: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        found = "" if self.largest is None else f"largest difference {self.largest:.1e}"
        return f"{self.file} in {self.runner}: {' '.join(filter(None, (found, self.why)))}"


def convert(
    source: str | Path, target: str | Path, *, layers: LayersGiven | None = None, names: str | None = None,
    reading: Report | None = None, writing: Report | None = None,
) -> Module:  # fmt: skip
    """Read a model of one file and write it to another, by their suffixes; returns the model.

    source: a `.safetensors`, `.keras`, `.weights.h5` or `.onnx` file, or the folder of a run.
    target: a file of any of these kinds.
    layers: for files that do not tell which layers act in which order: their names, and their kinds or None.
    names: "torch" writes a `.safetensors` file with torch's names and gates, for load_state_dict there.
    reading, writing: take down what went where.

    Raises: ConversionError with the reason, where no exact conversion exists; FileError for a file that is damaged,
        hostile or of no known kind; OptionError; MissingPackage; OutputError.
    """
    reading, writing = (Report() if report is None else report for report in (reading, writing))
    source, target = Path(source), Path(target)
    kind = _written_kind(target, names)  # before any work
    with named(source):
        module = _read_run(source, reading) if source.is_dir() else kind_of(source).read(source, layers, reading)
    if isinstance(module, OnnxModel) and kind.name != "onnx":
        module = as_layers(module)
    kind.write(module, target, writing)
    return module


def _written_kind(path: Path, names: str | None) -> Kind:
    if path.suffix.lower() in PICKLES:
        raise OptionError(f"{path} would be a pickle by its name, and none is written: name a .safetensors file, with "
                          'names="torch" (--names torch), and read it with safetensors.torch.load_file')  # fmt: skip
    return kind_of(path, names)


def compared(
    source: str | Path, target: str | Path, module: Module, *, names: str | None = None
) -> Iterator[Difference]:  # fmt: skip
    """What both files compute in the libraries that they are for, held against the module that came of the source.

    Each runs on the same random inputs, states at their beginning zero. All outputs are compared, final states among
    them; where a library gives the output alone, as Keras and a torch model of several layers do, that one is, and the
    Difference says so.

    names: as in `convert`.

    Raises: OptionError, if it is not known what goes into the module.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        kind = kind_of(source)
        if kind.name == "safetensors" and not is_described(source):
            kind = kind_of(source, "torch")
        same = from_onnx(source, alone=False) if kind.name == "onnx" else module  # with the graph's inputs and outputs
        yield _difference(kind.runner, kind.run, source, same)
    kind = kind_of(target, names)
    yield _difference(kind.runner, kind.run, target, module)
    if kind.again is not None:
        yield _difference(HERE, kind.again, target, module)


def kind_of(path: Path, names: str | None = None) -> Kind:
    """What a file is by its suffix.

    Raises: FileError for a pickle; OptionError for any other suffix.
    """
    refuse_pickle(path)
    found = [kind for kind in KINDS if path.name.lower().endswith(kind.suffix)]
    if not found:
        known = ", ".join(dict.fromkeys(kind.suffix for kind in KINDS))
        raise OptionError(f"{path} ends in none of {known}, by which files are told apart")
    if names not in (None, "torch"):
        raise OptionError(f'names={names!r} is not known; "torch" is, or leave it out')
    chosen = [kind for kind in found if names in (None, kind.name)]
    if not chosen:
        raise OptionError(f"names={names!r} has no meaning for {path}: leave it out, or name a .safetensors file")
    return chosen[0]


def _difference(runner: str, run: Runner, path: Path, module: Module) -> Difference:
    inputs = use_of(module, None).inputs
    ours = outputs_of(module, inputs)
    try:
        theirs = run(path, module, inputs)
    except (MissingPackage, ConversionError) as error:
        return Difference(path.name, runner, None, why=str(error))
    if len(theirs) not in (1, len(ours)):
        raise ConversionError(f"{path} gives {len(theirs)} outputs in {runner}, and {len(ours)} here")
    largest = max(_apart(a, b) for a, b in zip(ours, theirs))  # theirs may be the output alone
    why = "of the output; it gives no final states" if len(theirs) < len(ours) else ""
    return Difference(path.name, runner, largest, ALLOWED.get(ours[0].dtype.name, 0.1), why)


def outputs_of(module: Module, inputs: dict[str, Array]) -> list[Array]:
    """What a module makes of its usual inputs, as arrays in a row."""
    with no_grad(), np.errstate(all="ignore"):
        found = use_of(module, None).call({name: Tensor(array) for name, array in inputs.items()})
    return [each.numpy() for each in _leaves(found)]


def _leaves(found: Any) -> Iterator[Any]:
    """What is in a nest of tuples, lists and dicts, in a row."""
    if isinstance(found, (tuple, list, dict)):
        for each in found.values() if isinstance(found, dict) else found:
            yield from _leaves(each)
    else:
        yield found


ALLOWED = {"float32": 1e-4, "float64": 1e-6}
"""By how much outputs may differ; Keras multiplies float64 matrices in float32 on some of its backends."""


def _apart(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        raise ConversionError(f"the outputs have the shapes {a.shape} here and {b.shape} there")
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))


# -- what there is -----------------------------------------------------------------------------------------------


def _read_run(folder: Path, report: Report) -> Module:
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
        raise OptionError(f"layers= says what a file does not, and {path} tells all")
    return from_onnx(path, report=report)


def _write_safetensors(module: Module, path: Path, report: Report) -> None:
    save(module, path)
    report.unchanged(module)


def _write_torch(module: Module, path: Path, report: Report) -> None:
    save_arrays(torch_state(module, report=report), path)


def _write_keras(module: Module, path: Path, report: Report) -> None:
    to_keras(module, path, report=report)


def _write_onnx(module: Module, path: Path, report: Report) -> None:
    to_onnx(module, path, report=report)


def _run_safetensors(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    return outputs_of(load(path), inputs)


def _run_torch(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    torch = needed("torch", "running it")
    theirs = to_torch(module).eval()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in read(path)[0].items()})
    x, *states = [torch.tensor(array) for array in inputs.values()]
    with torch.no_grad():
        found = theirs(x, *(states if len(states) < 2 else [tuple(states)]))
    return [each.numpy() for each in _leaves(found)]


def _run_keras(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    keras = needed("keras", "running it")
    if path.suffix.lower() == ".keras":
        model = keras.models.load_model(path, compile=False)
    else:
        made = to_keras(module)
        model = made if isinstance(made, keras.Model) else keras.Sequential([made])
        model(_batch_first(module, next(iter(inputs.values()))))  # builds it
        model.load_weights(path)
    return _as_in_keras(module, inputs, lambda x: np.asarray(keras.ops.convert_to_numpy(model(x))))


def _again_keras(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    again = from_keras(path)
    (name,) = use_of(again, None).inputs
    return _as_in_keras(module, inputs, lambda x: outputs_of(again, {name: x})[0])


def _as_in_keras(module: Module, inputs: dict[str, Array], f: Callable[[Array], Array]) -> Sequence[Array]:
    """What Keras gives for all steps, or for the last one, in the module's order of axes."""
    (x,) = inputs.values()
    y = f(_batch_first(module, x))
    return [_batch_first(module, y) if y.ndim > 2 else y]


def _batch_first(module: Module, x: Array) -> Array:
    layers = [each for _, each in module.named_modules() if isinstance(each, Recurrent)]
    return np.swapaxes(x, 0, 1) if layers and not layers[0].batch_first else x


def _run_onnx(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    runtime = needed("onnxruntime", "running it")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = runtime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        found: Sequence[Array] = session.run(None, inputs)
    except Exception as error:  # of many kinds, all its own
        raise ConversionError(f"it cannot run it ({' '.join(str(error).split())[:200]})") from None
    return found


def _again_onnx(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    return outputs_of(from_onnx(path, alone=False), inputs)


HERE = "this package"
KINDS = (
    Kind("safetensors", ".safetensors", HERE, _read_safetensors, _write_safetensors, _run_safetensors),
    Kind("torch", ".safetensors", "torch", _read_safetensors, _write_torch, _run_torch),
    Kind("keras", ".keras", "Keras", _read_keras, _write_keras, _run_keras, _again_keras),
    Kind("keras", ".weights.h5", "Keras", _read_keras, _write_keras, _run_keras),
    Kind("onnx", ".onnx", "onnxruntime", _read_onnx, _write_onnx, _run_onnx, _again_onnx),
)
