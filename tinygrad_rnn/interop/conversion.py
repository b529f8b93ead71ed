"""A model's file of one kind as a file of another, by their suffixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import FileError, OptionError, OutputError, TinygradError
from ..nn.module import Module
from .comparison import Difference, compared
from .filekinds import Kind, kind_of, read_run
from .files import PICKLES, named
from .layers import LayersGiven
from .onnx_ import OnnxModel, as_layers
from .report import Report


def convert(
    source: str | Path, target: str | Path, *, layers: LayersGiven | None = None, names: str | None = None,
    reading: Report | None = None, writing: Report | None = None,
    proof: Callable[[Iterator[Difference]], None] | None = None,
) -> Module:  # fmt: skip
    """Read a model of one file and write it to another, by their suffixes; returns the model.

    source: a `.safetensors`, `.keras`, `.weights.h5` or `.onnx` file, or the folder of a run.
    target: a file of any of these kinds.
    layers: for files that do not tell which layers act in which order: their names, and their kinds or None.
    names: "torch" writes a `.safetensors` file with torch's names and gates, for load_state_dict there.
    reading, writing: take down what went where.
    proof: takes what `compared` finds, before the new file is put in its place; if it raises, that is as it was.

    Raises: ConversionError with the reason, where no exact conversion exists; FileError for a file that is damaged,
        hostile or of no known kind; OptionError; MissingPackage; OutputError; and what proof raises.
    """
    reading, writing = (Report() if report is None else report for report in (reading, writing))
    source, target = Path(source), Path(target)
    kind = _written_kind(target, names)  # before any work
    if not source.suffix and not source.exists():
        raise FileError(f"there is no file or folder {source}")
    with named(source):
        module = read_run(source, layers, reading) if source.is_dir() else kind_of(source).read(source, layers, reading)
    if isinstance(module, OnnxModel) and kind.name != "onnx":
        module = as_layers(module)
    if proof is None:
        kind.write(module, target, writing)
        return module
    with _beside(target) as made:
        kind.write(module, made, writing)
        proof(compared(source, made, module, names=names))
        made.replace(target)
    return module


def _written_kind(path: Path, names: str | None) -> Kind:
    if path.suffix.lower() in PICKLES:
        raise OptionError(f"{path} would be a pickle by its name, and none is written: name a .safetensors file, with "
                          'names="torch" (--names torch), and read it with safetensors.torch.load_file')  # fmt: skip
    return kind_of(path, names)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A place for a file of the same name, from which one rename puts it there.

    Raises: OutputError, if nothing can be written there.
    """
    try:
        with TemporaryDirectory(prefix=".", dir=target.parent) as folder:
            yield Path(folder) / target.name
    except OSError as error:
        if isinstance(error, TinygradError):
            raise
        raise OutputError(f"{target} could not be written ({error.strerror}): name another place") from None
