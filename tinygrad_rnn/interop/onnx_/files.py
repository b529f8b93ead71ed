"""ONNX files to protocol buffers and arrays: every size is checked before its content, and nothing leaves the folder.

`onnx` itself never loads anything here: it parses bytes, and the arrays are taken out of the messages by this file.
"""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from ...backend import Array
from ...errors import ConversionError, FileError
from ...nn import options
from ..files import content, needed, widened

SHARED = 4
"""How often over tensors may take the bytes of one file of external data: tied weights do so twice."""
MOST = 2**31 - 1
"""The bytes of a protocol buffer, by its own definition; what is larger lies in external data."""
MESSAGES, FIELDS, NESTED = 2**17, 2**19, 100
"""How many parts a model may have, and how deep in each other, so that what they become is small beside 100 MB."""
EACH = {"NodeProto": 2**15, "TensorProto": 2**15}
"""How many of those parts may be nodes, and how many tensors: as many as are read in part of a second."""
NUMBERS = 2**21
"""How many whole numbers may be written without a fixed width, each of which is one byte or more, and becomes eight.

Weights are not written like this, other than halves that do not lie in raw bytes.
"""
VARYING = {3, 4, 5, 8, 13, 14, 17, 18}
"""The types of fields, by the numbers that descriptors give them, whose numbers are written so."""

AXES = 32
"""How many axes an array may have."""


class DataType(NamedTuple):
    """A data type of ONNX: the NumPy dtype of raw bytes, and the field that holds numbers which are not raw."""

    dtype: str
    field: str


DATA_TYPES: dict[int, DataType] = {
    1: DataType("<f4", "float_data"),
    2: DataType("<u1", "int32_data"),
    3: DataType("<i1", "int32_data"),
    4: DataType("<u2", "int32_data"),
    5: DataType("<i2", "int32_data"),
    6: DataType("<i4", "int32_data"),
    7: DataType("<i8", "int64_data"),
    9: DataType("?", "int32_data"),
    10: DataType("<f2", "int32_data"),
    11: DataType("<f8", "double_data"),
    12: DataType("<u4", "uint64_data"),
    13: DataType("<u8", "uint64_data"),
    16: DataType("<f4", "int32_data"),  # bfloat16, the upper half of a float32: read as one
}
"""By the number that TensorProto.DataType gives it; text, complex numbers and those below 8 bits are not read."""
BFLOAT16 = 16
NUMBERS_IN = {"float_data": np.float32, "double_data": np.float64, "uint64_data": np.uint64, "int64_data": np.int64,
             "int32_data": np.int32}  # fmt: skip
"""The dtype of the numbers in each field."""


def dtype_of(number: int, what: str) -> np.dtype[Any]:
    """The dtype that arrays of a data type of ONNX have here; what: what has it, for the message.

    Raises: ConversionError for one that has none.
    """
    if number not in DATA_TYPES:
        raise ConversionError(f"{what} has the ONNX data type {number}, which no array here has")
    return np.dtype(DATA_TYPES[number].dtype).newbyteorder("=")


def parsed(source: Any) -> tuple[Any, Path | None]:
    """A ModelProto, and the folder for its external data: of a path; of a ModelProto, itself and None.

    Raises: FileError; OptionError for another type; MissingPackage without onnx.
    """
    onnx = needed("onnx", "reading ONNX")
    if isinstance(source, onnx.ModelProto):
        return source, None
    options.kind("from_onnx", source, str, PathLike, words="the path of a file or an onnx.ModelProto")
    path = Path(source)
    return from_bytes(content(path, most=MOST), str(path)), path.parent


def from_bytes(data: bytes, what: str = "this model") -> Any:
    """The ModelProto that bytes hold; what: what to call it.

    Raises: FileError, if they hold none; MissingPackage without onnx.
    """
    onnx = needed("onnx", "reading ONNX")
    model = onnx.ModelProto()
    _check_parts(data, model.DESCRIPTOR, what)
    try:
        model.ParseFromString(data)
    except Exception as error:  # the parser has no type of error of its own that could be imported from one place
        raise FileError(f"{what} is no ONNX model: it cannot be parsed ({error})") from None
    return model


def _check_parts(data: bytes, descriptor: Any, what: str) -> None:
    """Walk through the messages of a protocol buffer without making any: a few bytes of it can become a hundred.

    The format is that of protobuf.dev/programming-guides/encoding: a key says of each field its number, and whether a
    number follows, eight bytes, four, or a length and as many bytes.

    Raises: FileError.
    """
    at, end, kind, around = 0, len(data), descriptor, list[tuple[int, Any]]()
    each, messages, fields, numbers = dict.fromkeys(EACH, 0), 0, 0, 0
    while True:
        while at == end:
            if not around:
                return
            end, kind = around.pop()
        key, at = _varint(data, at, what)
        fields, wire = fields + 1, key & 7
        length, at = _varint(data, at, what) if wire in (0, 2) else ({1: 8, 5: 4}.get(wire, -1), at)
        length = 0 if wire == 0 else length
        if length < 0 or at + length > end:
            raise FileError(f"{what} is truncated, damaged, or no ONNX model: a field ends at byte {at + length}")
        field = kind.fields_by_number.get(key >> 3) if wire == 2 else None
        if field is not None and field.message_type is not None:
            around.append((end, kind))
            end, kind, messages = at + length, field.message_type, messages + 1
            if kind.name in each:
                each[kind.name] += 1
                if each[kind.name] > EACH[kind.name]:
                    raise FileError(f"{what} has more than {EACH[kind.name]:,} parts of the kind {kind.name}, which no "
                                    "model needs")  # fmt: skip
        else:
            if length and field is not None and field.type in VARYING:
                numbers += int(np.count_nonzero(np.frombuffer(data, np.uint8, length, at) < 128))
            at += length
        if messages > MESSAGES or fields > FIELDS or len(around) > NESTED or numbers > NUMBERS:
            raise FileError(f"{what} has more than {MESSAGES:,} messages, {FIELDS:,} fields, {NESTED} levels or "
                            f"{NUMBERS:,} numbers of no fixed width, which no model needs")  # fmt: skip


def _varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    """A number, seven bits in a byte, and where the next begins."""
    number = shift = 0
    for byte in data[at : at + 10]:
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise FileError(f"{what} is truncated, damaged, or no ONNX model: no number ends at byte {at}")


class Arrays:
    """The arrays of the TensorProtos of one model.

    folder: where external data may lie, with all below it; None, if the model came without one.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.taken: dict[Path, int] = {}
        self.halves: list[str] = []

    def array(self, tensor: Any, name: str) -> Array:
        """The array of a TensorProto, read-only; name: what to call it.

        Raises: FileError for sizes that do not fit each other, and for external data outside of the folder;
            ConversionError for a data type that is not read.
        """
        what, dims = f"the tensor {name!r}", [int(n) for n in tensor.dims]
        dtype = dtype_of(tensor.data_type, what)
        if any(n < 0 for n in dims) or len(dims) > AXES or math.prod([n for n in dims if n]) > MOST:
            raise FileError(f"{what} has the dimensions {dims[:AXES]}; at most {AXES} of at least 0, which together "
                            f"make no more than {MOST:,}, make an array")  # fmt: skip
        size = math.prod(dims)
        if tensor.HasField("segment"):
            raise FileError(f"{what} is one segment of several, which no array of a model is")
        if tensor.data_type == BFLOAT16:
            self.halves.append(name)
        data_type = DATA_TYPES[tensor.data_type]
        bytes_each = 2 if tensor.data_type == BFLOAT16 else np.dtype(data_type.dtype).itemsize
        typed = [field for field in {each.field for each in DATA_TYPES.values()} if len(getattr(tensor, field))]
        external = tensor.data_location == 1
        if len(typed) + tensor.HasField("raw_data") + external > 1:
            raise FileError(f"{what} holds its numbers more than once")
        if external:
            raw = self._external(tensor, what, size * bytes_each)
        elif typed or not tensor.HasField("raw_data"):
            return _numbers(tensor, data_type.field, what, dims, dtype)
        else:
            raw = tensor.raw_data
        if len(raw) != size * bytes_each:
            raise FileError(f"{what} of dimensions {dims} needs {size * bytes_each:,} bytes, and has {len(raw):,}")
        if tensor.data_type == BFLOAT16:
            return widened(np.frombuffer(raw, "<u2")).reshape(dims)
        if data_type.dtype == "?":
            return (np.frombuffer(raw, "u1") != 0).reshape(dims)
        return np.frombuffer(raw, data_type.dtype).astype(dtype, copy=False).reshape(dims)

    def _external(self, tensor: Any, what: str, length: int) -> bytes:
        """The bytes of a tensor outside of the model's own file."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = self._place(entries.get("location", ""), what)
        offset, given = (_count(entries.get(key, default), what, key)
                         for key, default in (("offset", "0"), ("length", str(length))))  # fmt: skip
        if given != length:
            raise FileError(f"{what} needs {length:,} bytes, and its external data are {given:,}")
        try:
            size = path.stat().st_size
            self.taken[path] = self.taken.get(path, 0) + length
            if offset + length > size:
                raise FileError(f"{what} ends at byte {offset + length:,} of {path}, which has {size:,}")
            if self.taken[path] > SHARED * size:
                raise FileError(f"{what} overlaps with other tensors in {path}: together they take more than {SHARED} "
                                "times what is there")  # fmt: skip
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise FileError(f"{path}, the external data of {what}, cannot be read ({error.strerror})") from None

    def _place(self, location: str, what: str) -> Path:
        if self.folder is None:
            raise FileError(f"{what} lies in external data, {location!r}, and the model came without a folder: give "
                            "the path of its file instead")  # fmt: skip
        refusal = FileError(f"{what} lies in external data at {location!r}, outside of the model's own folder")
        parts = PureWindowsPath(location)  # which knows the separators of both systems
        if not location or "\0" in location or parts.anchor or ".." in parts.parts:
            raise refusal
        try:
            folder = self.folder.resolve()
            path = (folder / location).resolve()
            inside, there = path.is_relative_to(folder), path.is_file()
        except (OSError, RuntimeError, ValueError):  # names that are too long, links in a circle
            raise refusal from None
        if not inside:
            raise refusal
        if not there:
            raise FileError(f"{what} lies in external data at {location!r}, and there is no such file beside the model")
        return path


def _count(text: str, what: str, key: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FileError(f"{what} has external data with {key} = {text[:40]!r}, which is no size")
    return int(text)


def _numbers(tensor: Any, field: str, what: str, dims: list[int], dtype: np.dtype[Any]) -> Array:
    """An array from one of the fields for numbers; halves of floats come as the bits that they have."""
    found = getattr(tensor, field)
    if len(found) != math.prod(dims):
        raise FileError(
            f"{what} of dimensions {dims} needs {math.prod(dims):,} numbers in {field}, and has {len(found):,}"
        )
    if tensor.data_type in (10, BFLOAT16):
        bits = np.fromiter(found, np.int64, len(found)).astype(np.uint16)
        return (widened(bits) if tensor.data_type == BFLOAT16 else bits.view(np.float16)).reshape(dims)
    return np.fromiter(found, NUMBERS_IN[field], len(found)).astype(dtype, copy=False).reshape(dims)
