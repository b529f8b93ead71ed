"""Keras' files as bytes: `.keras`, a zip of a description and HDF5, and `.weights.h5`, the HDF5 alone.

A file from elsewhere may claim anything about itself: what it says is compared with what it has before memory is
taken for it, nothing is unpacked to the disk, and no name in it is ever used as a path.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from ...backend import Array
from ...errors import FileError
from . import hdf5

ENTRIES = ("config.json", "metadata.json", "model.weights.h5")
CONFIG, METADATA, WEIGHTS = ENTRIES
LARGEST_DIRECTORY, LARGEST_TEXT = 16_384, 1_000_000
"""Bytes of a zip's list of entries, and of the JSON in it: Keras writes three entries, and about 1,000 a layer."""
EXPANSION, SMALL = 4, 1_000_000
"""How many times as large as the zip the weights may be, unless they are small; Keras does not even compress them."""
VERSION = "3.0.0"

ByLayer = dict[str, dict[str, Array]]
"""The weights of each layer, by what files call it; in it, by their paths."""


def unzipped(content: bytes, source: str) -> tuple[dict[str, Any], bytes]:
    """The description of the model in a `.keras` file, and the HDF5 file of its weights.

    source: what messages call the file.

    Raises: FileError.
    """
    _check_directory(content, source)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = sorted(entry.filename for entry in entries)
            if len(set(names)) < len(names):
                raise FileError(f"{source} has two entries of one name, {names[:6]}")
            if missing := [name for name in ENTRIES if name not in names]:
                raise FileError(f"{source} is no file of Keras 3: it has no entry {' nor '.join(missing)}")
            if unknown := [name for name in names if name not in ENTRIES]:
                raise FileError(f"{source} has the entry {unknown[0][:60]!r}; only {', '.join(ENTRIES)} belong there")
            texts = [_json(_entry(archive, name, LARGEST_TEXT, source), f"{name} in {source}") for name in ENTRIES[:2]]
            weights = _entry(archive, WEIGHTS, max(len(content) * EXPANSION, SMALL), source)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{source} is truncated or damaged ({error})") from None
    config, metadata = texts
    version = str(metadata.get("keras_version"))[:20]
    if not version.startswith("3."):
        raise FileError(f"{source} is of Keras {version}, which computes some things otherwise: load it in Keras 3, "
                        "compare, and save it there")  # fmt: skip
    return config, weights


def _check_directory(content: bytes, source: str) -> None:
    """The end of a zip without comments or extensions: its list of entries is short, before it is read."""
    end = content[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[-2:] != b"\0\0" or content[-42:-38] == b"PK\6\7":
        raise FileError(f"{source} is truncated, or neither a zip nor HDF5 as Keras writes it")
    if (size := struct.unpack("<L", end[12:16])[0]) > LARGEST_DIRECTORY:
        raise FileError(f"{source} lists its entries in {size:,} bytes; {LARGEST_DIRECTORY:,} are more than three need")


def _entry(archive: zipfile.ZipFile, name: str, most: int, source: str) -> bytes:
    """What is in an entry, read no further than it may be long."""
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(f"{name} in {source} is compressed in a way that Keras does not use")
    if entry.file_size > most:
        raise FileError(f"{name} in {source} claims {entry.file_size:,} bytes; {most:,} are the most that it may have")
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _json(content: bytes, source: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{source} is no JSON ({type(error).__name__}: {str(error)[:100]})") from None
    if not isinstance(found, dict):
        raise FileError(f"{source} is a {type(found).__name__}, and not names and values")
    return found


def weights(content: bytes, source: str) -> ByLayer:
    """The weights in an HDF5 file of Keras, by layer. Models that are code keep them under the names of attributes.

    Raises: FileError; MissingPackage without h5py.
    """
    found: ByLayer = {}
    for path, array in hdf5.read(content, source).items():
        if path.startswith("model_weights/"):
            raise FileError(f"{source} is a model in the format of Keras 2: load it in Keras, and save it as .keras")
        owner, _, rest = path.removeprefix("layers/").partition("/")
        found.setdefault(owner, {})[rest] = array
    return found


def weights_file(layers: Mapping[str, Mapping[str, Array]]) -> bytes:
    """The bytes of a `.weights.h5` file. Raises: MissingPackage without h5py."""
    return hdf5.written({f"layers/{name}/{path}": a for name, arrays in layers.items() for path, a in arrays.items()})


def keras_file(config: Mapping[str, Any], layers: Mapping[str, Mapping[str, Array]]) -> bytes:
    """The bytes of a `.keras` file; the same model gives the same bytes. Raises: MissingPackage without h5py."""
    texts = {METADATA: {"keras_version": VERSION, "date_saved": "1980-01-01@00:00:00"}, CONFIG: config}
    parts = {name: json.dumps(text).encode() for name, text in texts.items()} | {WEIGHTS: weights_file(layers)}
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part)  # dated 1980
    return memory.getvalue()
