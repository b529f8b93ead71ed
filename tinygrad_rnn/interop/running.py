"""A model's file, run in the library that it is for; and its module once more, as read from the file, run here.

Each function takes the path, the module that the file is said to hold, and the module's usual inputs, by name, and
returns the outputs as arrays: all of them, or the first alone, where a library gives no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import numpy as np

from ..backend import Array
from ..core.modes import no_grad
from ..core.tensor import Tensor
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from .calling import use_of
from .files import needed
from .keras_ import from_keras, to_keras
from .keras_.writing import SUFFIXES
from .nests import leaves
from .onnx_ import from_onnx
from .onnx_.runtime import session
from .safetensors_ import load, read
from .torch_ import to_torch


def outputs_of(module: Module, inputs: dict[str, Array]) -> list[Array]:
    """What a module makes of its usual inputs, as arrays in a row."""
    with no_grad(), np.errstate(all="ignore"):
        found = use_of(module, None).call({name: Tensor(array) for name, array in inputs.items()})
    return [each.numpy() for each in leaves(found)]


def run_safetensors(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    return outputs_of(load(path), inputs)


def run_torch(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    torch = needed("torch", "running it")
    theirs = to_torch(module).eval()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in read(path)[0].items()})
    x, *states = [torch.tensor(array) for array in inputs.values()]
    with torch.no_grad():
        found = theirs(x, *(states if len(states) < 2 else [tuple(states)]))
    return [each.numpy() for each in leaves(found)]


def run_keras(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    keras = needed("keras", "running it")
    (x,) = inputs.values()
    with _in_small_letters(path) as file:
        if file.suffix == ".keras":
            model = keras.models.load_model(file, compile=False)
        else:
            made = to_keras(module)
            model = made if isinstance(made, keras.Model) else keras.Sequential([made])
            model(_batch_first(module, x))  # builds it
            model.load_weights(file)
    more = (None,) * (len(model.input_shape) - x.ndim)  # a Linear takes any number of axes, and this model so many
    first = (0,) * len(more)
    return _as_in_keras(module, inputs, lambda x: np.asarray(keras.ops.convert_to_numpy(model(x[more])))[first])


@contextmanager
def _in_small_letters(path: Path) -> Iterator[Path]:
    """The file under a name with the suffix in the letters that Keras knows it by."""
    suffix = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    if path.name.endswith(suffix):
        yield path
        return
    with TemporaryDirectory() as folder:
        yield Path(copyfile(path, Path(folder) / f"model{suffix}"))


def again_keras(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
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


def run_onnx(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    found: Sequence[Array] = session(path).run(None, inputs)
    return found


def again_onnx(path: Path, module: Module, inputs: dict[str, Array]) -> Sequence[Array]:
    return outputs_of(from_onnx(path, alone=False), inputs)
