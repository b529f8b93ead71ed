"""Files from elsewhere, which nobody has to trust: their size and what they claim to be come before their content."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..backend import Array
from ..errors import FileError, MissingPackage, TinygradError

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
"""What torch.save and the like write: pickles, which run code of their author's when they are read."""
INSTALLS = {"h5py": "'tinygrad_rnn[keras]'", "onnx": "'tinygrad_rnn[onnx]'"}
"""What to say to pip, where that is not the name of the package."""


def needed(package: str, purpose: str) -> Any:
    """An optional package, imported; purpose begins the message.

    Raises: MissingPackage, if it or what it is built on is not there.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise missing(package, purpose, str(error), error.name) from None


def missing(package: str, purpose: str, reason: str, name: str | None = None) -> MissingPackage:
    """The error of an optional package that cannot be imported; name: what was looked for in vain, if that is known."""
    inner = (name or package).partition(".")[0]
    if inner == package:
        return MissingPackage(f"{purpose} needs {package} ({reason}): pip install {INSTALLS.get(package, package)}")
    choice = "; KERAS_BACKEND chooses between torch, jax and tensorflow" if package == "keras" else ""
    return MissingPackage(f"{purpose} needs {package}, which is there but lacks {inner} ({reason}): pip install {inner}"
                          f"{choice}")  # fmt: skip


def refuse_pickle(path: str | Path) -> None:
    """No pickle is ever read.

    Raises: FileError that shows how to make a safetensors file of a torch one.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise FileError(
            f"{path} is a pickle by its name, and reading one runs code of its author's: where you trust it, run once\n"
            f'  python -c "import torch, safetensors.torch as s; m = torch.load({str(path)!r}, weights_only=True); '
            f's.save_file({{k: v.contiguous() for k, v in m.items()}}, {str(path.with_suffix(".safetensors"))!r})"\n'
            f"and name {path.with_suffix('.safetensors')} in its place"
        )


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """A file to read from.

    Raises: FileError, if it is not there, cannot be read, or is a pickle.
    """
    path = Path(path)
    refuse_pickle(path)
    try:
        if not path.is_file():  # neither a folder, nor a pipe that never ends
            raise FileError(f"there is no file {path}" if not path.exists() else f"{path} is no file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror})") from None


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Inside, what is wrong with a file begins with its name."""
    try:
        yield
    except TinygradError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None


def content(path: str | Path, *, most: int | None = None) -> bytes:
    """All of a file.

    most: the number of bytes from which on it is refused.

    Raises: FileError as `opened`, or if it is too large.
    """
    with opened(path) as file:
        found = file.read() if most is None else file.read(most + 1)
    if most is not None and len(found) > most:
        raise FileError(f"{path} has more than {most:,} bytes, which no file of its kind needs")
    return found


def widened(bits: Array) -> Array:
    """Numbers of bfloat16, which NumPy does not have, as float32: they are its upper halves, here as whole numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
