"""The weights of any module in a safetensors file, beside a description from which the module is built again.

A safetensors file is the length of its header, the header as JSON, and bare numbers: reading one runs nothing, and
what it claims is held against the size of the file before anything is made of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, overload

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialised

from ..backend import Array
from ..errors import CheckpointError, ConversionError, DtypeError, FileError, OptionError, TinygradError
from ..nn import options
from ..nn.module import Module
from ..train.checkpoint import write
from .description import built, described
from .files import named, opened, widened
from .layers import LayersGiven
from .report import Report
from .torch_ import from_torch

M = TypeVar("M", bound=Module)

KEY = "tinygrad_rnn"
"""What our entry in the metadata is called: JSON with the version, the module, what is frozen and the mode."""
VERSION = 1
MOST_HEADER = 2_000_000
"""The longest header that is read, in bytes: enough for 10,000 arrays, and too little to fill the memory."""

MOST_ARRAYS = 2_000
"""How many arrays of a file without description become layers: those of 500 recurrent ones, more than models have."""

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "BF16": "uint16",
    "C64": "complex64",
}  # fmt: skip
"""NumPy's names of the format's dtypes; it has none for BF16, the upper half of a float32."""


def save(module: Module, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a module's `state_dict` to a safetensors file, from the host, wherever its arrays lie.

    Beside it goes a description of the module, from which `load` builds it again. A module with code of your own has
    none, and is loaded with `load(path, into=module)`.

    metadata: texts of yours by their names, which `read` gives back.

    Raises: OptionError for what is no module, and for metadata that are no texts; DtypeError for an array of a dtype
        that the format lacks; OutputError, if the file cannot be written; what was there before is then as it was.
    """
    options.kind("save", module, Module)
    texts = dict(metadata or {})
    if not all(isinstance(each, str) for pair in texts.items() for each in pair) or KEY in texts:
        raise OptionError(f"metadata are texts by names other than {KEY!r}, not {metadata!r}")
    arrays = {name: own.numpy() for name, own in module.state_dict().items()}
    learned = {name for name, _ in module.named_parameters()}
    entry: dict[str, Any] = {"version": VERSION, "module": described(module), "training": module.training}
    entry["other_mode"] = [name for name, part in module.named_modules() if part.training != module.training]
    entry["frozen"] = [name for name in arrays if name not in learned]
    save_arrays(arrays, path, metadata=texts | {KEY: json.dumps(entry)})


def save_arrays(arrays: Mapping[str, Array], path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by their names, such as those of `torch_state`, to a safetensors file.

    Raises: DtypeError, OutputError as `save`; OptionError for what are no arrays by names, or no texts.
    """
    options.kind("save_arrays", arrays, Mapping, words="arrays by their names")
    texts = [*arrays, *(text for pair in (metadata or {}).items() for text in pair)]
    if not all(map(_is_text, texts)) or "__metadata__" in arrays:
        raise OptionError("names of arrays, and metadata, are texts that UTF-8 can hold; and no array may be called "
                          "__metadata__, by which the format calls its own")  # fmt: skip
    for name, array in arrays.items():
        options.kind(f"save_arrays, of {name}", array, np.ndarray, words="a NumPy array")
        if array.dtype.name not in DTYPES.values():
            raise DtypeError(f"{name} is {array.dtype}, which a safetensors file cannot hold")
    ordered = {name: np.array(array, order="C") for name, array in arrays.items()}  # C: see checkpoint
    write(path, serialised(ordered, metadata=dict(metadata or {})), elsewhere="name another place")


def _is_text(x: Any) -> bool:
    """Whether it is a text without halves of characters."""
    return isinstance(x, str) and not any("\ud800" <= letter <= "\udfff" for letter in x)


def is_described(path: str | Path) -> bool:
    """Whether a safetensors file says which module it holds.

    Raises: FileError as `read`.
    """
    return _entry(Path(path), _read(Path(path))[1]).get("module") is not None


def read(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a safetensors file by their names, and its metadata without ours.

    Numbers of the dtype BF16 come as float32, which holds them exactly.

    Raises: FileError for a file that is not there, truncated, damaged, or not what it claims to be.
    """
    arrays, metadata = _read(Path(path))
    metadata.pop(KEY, None)
    return arrays, metadata


@overload
def load(path: str | Path, into: M, *, strict: bool = True) -> M: ...


@overload
def load(
    path: str | Path, into: None = None, *, strict: bool = True, layers: LayersGiven | None = None,
    report: Report | None = None,
) -> Module: ...  # fmt: skip


def load(
    path: str | Path, into: M | None = None, *, strict: bool = True, layers: LayersGiven | None = None,
    report: Report | None = None,
) -> M | Module:  # fmt: skip
    """The module that was saved; or `into`, with the weights of the file.

    A file without a description, such as one that torch saved, goes through `from_torch`, where names and shapes are
    enough to know what it holds; what they do not tell, such as batch_first, is then as torch has it by default. From
    such a file up to 2,000 arrays become layers, and from a description up to 1,000 layers and cells, 20 of them one
    inside another: strangers' files have no say in how long this takes. `into` has no such bounds.

    into: takes the weights over by their names, as `load_state_dict` does.
    strict: refuse missing and unexpected names. If not, `into.load_state_dict(read(path)[0], strict=False)` does the
        same and returns both lists.
    layers: as in `from_torch`, for a file without description.
    report: takes down what went where.

    Raises: FileError as `read`; CheckpointError that names everything missing, unexpected, or of a wrong shape or
        dtype; ConversionError for a file without description that is not clear; OptionError for layers= that do not
        fit, or stand beside into=, and for `into` that is no module.
    """
    options.kind("load", path, str, os.PathLike, words="the path of a file")
    path, report = Path(path), Report() if report is None else report
    if into is not None:
        options.kind("load(path, into=...)", into, Module)
        if layers is not None:
            raise OptionError("layers= says what a file does not, and into= already knows it: leave one of them out")
    arrays, metadata = _read(path)
    if into is not None:
        _fill(into, arrays, path, strict)
        report.unchanged(into)
        return into
    entry = _entry(path, metadata)
    if layers is not None and entry.get("module") is not None:
        raise OptionError(f"{path} describes itself: leave out layers= (--layers)")
    if entry and entry.get("module") is None:
        raise ConversionError(f"{path} has no description to build its module from, as that has code of its own, a "
                              "layer in two places, or too many; load(path, into=module) fills yours")  # fmt: skip
    if not entry:
        return _undescribed(path, arrays, layers, report)
    try:
        module = built(entry["module"], sum(array.nbytes for array in arrays.values()))
    except FileError as error:
        raise FileError(f"{path} is damaged: {error}") from None
    if not isinstance(module, Module):
        raise FileError(f"{path} is damaged: its description is not that of a module")
    _fill(module, arrays, path, strict)
    _set(path, module, entry)
    report.unchanged(module)
    return module


def _fill(module: Module, arrays: Mapping[str, Array], path: Path, strict: bool) -> None:
    try:
        module.load_state_dict(arrays, strict=strict)
    except CheckpointError as error:
        foreign = arrays and not arrays.keys() & module.state_dict().keys()
        hint = "; if its names are torch's: from_torch(read(path)[0])" if foreign else ""
        raise CheckpointError(f"{path}: {error}{hint}") from None


def _set(path: Path, module: Module, entry: Mapping[str, Any]) -> None:
    """What is not learned, and the mode of each part."""
    own, parts = dict(module.named_parameters()), dict(module.named_modules())
    for name in _names(path, entry, "frozen"):
        if name in own:
            own[name].requires_grad = False
    module.train(entry.get("training") is not False)
    for name in _names(path, entry, "other_mode"):
        if name in parts:
            parts[name].training = not module.training


def _names(path: Path, entry: Mapping[str, Any], key: str) -> list[str]:
    found = entry.get(key, [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise FileError(f"{path} is damaged: the names under {key!r} are none")
    return found


def _undescribed(
    path: Path, arrays: Mapping[str, Array], layers: LayersGiven | None, report: Report
) -> Module:  # fmt: skip
    if len(arrays) > MOST_ARRAYS:
        raise FileError(f"{path} has {len(arrays):,} arrays and no description of a module, and up to {MOST_ARRAYS:,} "
                        "become layers: fill a module of yours, with load(path, into=module)")  # fmt: skip
    if layers is not None:
        with named(path):
            return from_torch(arrays, layers=layers, report=report)
    try:
        return from_torch(arrays, report=report)
    except TinygradError as error:
        raise ConversionError(
            f"{path} does not say what module its arrays belong to, and as torch's they are not clear: {error}. Fill a "
            "module of yours, with load(path, into=module), or say more, with load(path, layers=...) or --layers"
        ) from None


def _entry(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Our entry in the metadata; empty, if there is none."""
    try:
        entry = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged: its description is no JSON ({error})") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("version", VERSION), int):
        raise FileError(f"{path} is damaged: its description is none")
    if entry.get("version", VERSION) > VERSION:
        raise FileError(f"{path} has a description of version {entry['version']}, and this package reads those up to "
                        f"{VERSION}: update it with pip install --upgrade tinygrad_rnn")  # fmt: skip
    return entry


# -- the format --------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    with opened(path) as file:
        header = _header(path, file)
        file.seek(0)
        whole = file.read()
    try:
        found = deserialize(whole)  # type: ignore[no-untyped-call]
        del whole
        arrays = {name: _array(each["dtype"], each["data"], each["shape"]) for name, each in found}
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise FileError(f"{path} is truncated or damaged ({error})") from None
    return {name: arrays[name] for name in header if name in arrays}, dict(header.get("__metadata__", {}))


def _array(dtype: str, data: bytearray, shape: list[int]) -> Array:
    if dtype not in DTYPES:
        raise ValueError(f"numbers of the dtype {dtype}, which NumPy does not have")
    array = np.frombuffer(data, np.dtype(DTYPES[dtype]).newbyteorder("<")).reshape(shape)
    if dtype == "BF16":
        return widened(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The header, provided that the file is as long as it says; the rest of the file is not read yet."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MOST_HEADER):
        raise FileError(f"{path} is no safetensors file, or truncated: of its {size:,} bytes, {length:,} are to be the "
                        f"header, which may have {MOST_HEADER:,}")  # fmt: skip
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_once)
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        if max(ends, default=0) != size - 8 - length:
            raise ValueError(f"{size - 8 - length:,} bytes of numbers where it speaks of {max(ends, default=0):,}")
        return dict(header)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FileError(f"{path} has a header that is none ({error})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found
