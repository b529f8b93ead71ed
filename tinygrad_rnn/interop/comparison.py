"""Two files of a model, run in the libraries that they are for, and held against the module by numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..backend import Array
from ..errors import ConversionError, MissingPackage, OptionError
from ..nn.module import Module
from . import agreement
from .calling import use_of
from .filekinds import HERE, Runner, kind_of
from .onnx_ import from_onnx
from .running import outputs_of
from .safetensors_ import is_described

ALLOWED = 1e-6
"""What outputs may always differ by; Keras multiplies float64 matrices in float32 on some of its backends."""


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


def compared(
    source: str | Path, target: str | Path, module: Module, *, names: str | None = None
) -> Iterator[Difference]:  # fmt: skip
    """What both files compute in the libraries that they are for, held against the module that came of the source.

    Each runs on the same random inputs of several sizes, states at their beginning zero. All outputs are compared,
    final states among them; where a library gives the output alone, as Keras and a torch model of several layers do,
    that one is, and the Difference says so. Where a library cannot run a file, the Difference has its reason.

    names: as in `convert`.

    Raises: ConversionError, if the outputs of a file are not as many or as large as those of the module.
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


def _difference(runner: str, run: Runner, path: Path, module: Module) -> Difference:
    apart, allowed, why = list[float](), 0.0, ""
    try:
        examples = list(_examples(module))
    except OptionError as error:
        return Difference(path.name, runner, None, why=str(error).partition(";")[0])
    for inputs in examples:
        ours, theirs = outputs_of(module, inputs), _outcome(run, path, module, inputs)
        if isinstance(theirs, str):
            if not apart:
                return Difference(path.name, runner, None, why=theirs)
            why = f"and {theirs} with {', '.join(f'{name} {x.shape}' for name, x in inputs.items())}"
            break
        if len(theirs) not in (1, len(ours)):
            raise ConversionError(f"{path.name} gives {len(theirs)} outputs in {runner}, and {len(ours)} here")
        apart += [_apart(a, b) for a, b in zip(ours, theirs)]  # theirs may be the output alone
        allowed = max(ALLOWED, agreement.tolerance([ours[0].dtype]))
        why = "of the output; it gives no final states" if len(theirs) < len(ours) else ""
    return Difference(path.name, runner, float(np.max(apart)), allowed, why)


def _outcome(run: Runner, path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array] | str:
    """What a file gives in the library that it is for; or why it does not run there."""
    try:
        return run(path, module, inputs)
    except (MissingPackage, ConversionError) as error:
        return str(error)
    except Exception as error:  # of many kinds, all their own
        return f"it cannot run it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


SIZES = ((1, 1), (7, 2))
"""T and N of the inputs that files are compared on, beside those of the usual example."""


def _examples(module: Module) -> Iterator[dict[str, Array]]:
    """Inputs of several sizes.

    Raises: OptionError, if it is not known what goes into the module.
    """
    use = use_of(module, None)
    yield use.inputs
    letters = dict.fromkeys(letter for axes in use.dynamic.values() for letter in axes.values())
    if set(letters) <= {"T", "N"}:
        letters = dict.fromkeys("TN")
    for sizes in SIZES if letters else ():
        lengths = dict(zip(letters, sizes))
        yield {name: _resized(x, [lengths.get(use.dynamic.get(name, {}).get(axis, ""), size)
                                  for axis, size in enumerate(x.shape)]) for name, x in use.inputs.items()}  # fmt: skip


def _resized(x: Array, shape: list[int]) -> Array:
    """An example of another shape; whole numbers, which are indices or lengths, are those of the example."""
    if x.dtype.kind != "f":
        return np.resize(x, shape)
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(x.dtype)


def _apart(ours: Array, theirs: Array) -> float:
    if ours.shape != theirs.shape:
        raise ConversionError(f"the outputs have the shapes {ours.shape} here and {theirs.shape} there")
    return agreement.apart(ours, theirs)
