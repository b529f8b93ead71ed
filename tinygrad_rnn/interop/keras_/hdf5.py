"""HDF5 files of arrays: what comes from elsewhere is read in a process of its own, what goes out is written here.

The library that reads HDF5 is large and trusts the file: a damaged one makes it crash, wait for ever or ask for any
amount of memory. So it does its work in a short-lived process with little memory and time; see `hdf5_child`.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from ...backend import Array
from ...errors import FileError
from ..files import missing, needed
from .hdf5_child import BYTES_PER_SECOND, MISSING, REFUSED

MAGIC = b"\x89HDF\r\n\x1a\n"
PURPOSE = "a file of Keras"
PATIENCE = 20.0
"""How many seconds a process may take, beside what its size allows, where its processor time cannot be limited."""

_START = "import runpy, sys; sys.path[:] = {!r}; runpy.run_path({!r}, run_name='__main__')"


def read(content: bytes, source: str) -> dict[str, Array]:
    """The arrays of numbers in an HDF5 file, by their paths.

    source: what the messages call the file.

    Raises: FileError; MissingPackage without h5py.
    """
    if not content.startswith(MAGIC):
        raise FileError(f"{source} is no HDF5 file: it begins with {content[:8]!r}")
    ended = _answer(content, source)
    reason = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
    if ended.returncode == MISSING:
        raise missing("h5py", PURPOSE, reason)
    if ended.returncode == REFUSED:
        raise FileError(f"{source} {reason}")
    if ended.returncode:
        raise FileError(f"{source} is truncated or damaged ({reason or f'reading it ended with {ended.returncode}'})")
    try:
        return load(ended.stdout)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{source} is damaged ({error})") from None


def _answer(content: bytes, source: str) -> subprocess.CompletedProcess[bytes]:
    start = _START.format([path for path in sys.path if path], str(Path(__file__).with_name("hdf5_child.py")))
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": "/nowhere"}
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", start], input=content, capture_output=True, env=os.environ | alone,
            timeout=PATIENCE + len(content) / BYTES_PER_SECOND,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FileError(f"{source} is damaged: reading it comes to no end") from None
    except OSError as error:
        raise FileError(f"{source} cannot be read: {sys.executable!r} does not start ({error.strerror})") from None


def written(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of an HDF5 file with arrays by their paths, plain and uncompressed.

    Raises: MissingPackage without h5py.
    """
    h5py, memory = needed("h5py", PURPOSE), io.BytesIO()
    with h5py.File(memory, "w") as file:
        for path, array in arrays.items():
            file.create_dataset(path, data=array, track_times=False)
    return memory.getvalue()
