"""A state on disk, whole at every moment: a kill, a full disk or a power cut leaves the last complete one.

A checkpoint is two files of one folder. `checkpoint.json` holds numbers, names and, by a mark in place of each array,
the shape and dtype of that array; `arrays-<step>.safetensors` holds the arrays. The arrays are written and synced
under a name of their own first; then one rename of the JSON file, which names them, switches from the old state to
the new one. Both have a fingerprint, so that an altered one is noticed; what others keep in the folder stays as it is.
No pickle anywhere: reading a checkpoint runs no code of its author's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..errors import CheckpointError, OutputError
from ..optim.optimizer import form

FORMAT = "tinygrad_rnn checkpoint"
VERSION = 1
FILE = "checkpoint.json"
_MARK = "array of"
_ARRAYS = re.compile(r"arrays-\d+(-again)*\.safetensors(\.partial)?")


def exists(folder: str | Path) -> bool:
    """Whether the folder holds a checkpoint.

    Raises: OutputError, if one may not look.
    """
    try:
        os.stat(Path(folder) / FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        permit = "give yourself the permission, or " if isinstance(error, PermissionError) else ""
        raise OutputError(f"{folder} cannot be looked into ({error.strerror}): {permit}name another folder") from None
    return True


def save(folder: str | Path, state: dict[str, Any], *, step: int) -> None:
    """Put a state in place of the folder's last one, in one rename.

    state: nested dicts and lists with string keys; numbers, strings, bools, None, arrays and Tensors of any backend.
    step: counts up from save to save; it names the file of the arrays.

    Raises: OutputError, if the files cannot be written; the last checkpoint is then as it was.
    """
    from safetensors.numpy import save as serialised

    folder, arrays = Path(folder), dict[str, np.ndarray]()
    tree = _take_out(state, "", arrays)
    blob = serialised(arrays, metadata={"format": FORMAT})
    name = _free_name(folder, step)
    head = {"format": FORMAT, "format_version": VERSION, "arrays": name, "arrays_sha256": _sha256(blob), "state": tree}
    write(folder / name, blob)
    try:
        write(folder / FILE, json.dumps({**head, "head_sha256": _sha256_of_head(head)}, indent=1).encode())
    except OutputError:
        (folder / name).unlink(missing_ok=True)
        raise
    for old in folder.glob("arrays-*"):
        if old.name != name and _ARRAYS.fullmatch(old.name) and not of_others(old):
            with contextlib.suppress(OSError):  # the new one is in place, whatever stays behind
                old.unlink()


def load(folder: str | Path) -> dict[str, Any]:
    """The state that was saved, with NumPy arrays in the place of arrays.

    Raises: CheckpointError, if there is none, or one that is truncated, altered or of a newer format.
    """
    folder = Path(folder)
    try:
        return _loaded(folder)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / FILE} is damaged ({type(error).__name__}: {error}); {_REMEDY}") from None


def _loaded(folder: Path) -> dict[str, Any]:
    head = _head(folder)
    while (blob := _bytes(path := folder / head["arrays"])) is None:
        before, head = head, _head(folder)  # a run that goes on may have put both in place of the old ones meanwhile
        if head == before:
            raise CheckpointError(f"{path} is missing, which {FILE} beside it names; {_REMEDY}")
    arrays = _arrays(path, blob)
    state = _put_back(head["state"], "", arrays, path)
    if arrays:
        raise CheckpointError(f"{path} holds the extra tensor {min(arrays)!r}; {_REMEDY}")
    if _sha256(blob) != head["arrays_sha256"]:
        raise CheckpointError(f"the numbers in {path} were altered since they were saved; {_REMEDY}")
    return state  # type: ignore[no-any-return]


def of_others(path: Path) -> bool:
    """Whether there is something of this name that `save` did not make; what it made, a kill may have cut short."""
    try:
        with open(path, "rb") as file:
            return FORMAT.encode() not in file.read(100)
    except OSError:
        return os.path.lexists(path)


def write(path: str | Path, content: bytes, *, elsewhere: str = "choose another folder with --out") -> None:
    """A file that is there whole or not at all: written beside it, synced, renamed.

    elsewhere: words of the message that say how to choose another place.

    Raises: OutputError with the reason; whatever was there before is untouched.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path} could not be written ({error.strerror}); what was there before is untouched: "
            f"make room, permit it, or {elsewhere}"
        ) from error


def as_typed(option: str, folder: Path) -> str:
    """An option that names a folder, for the shell; "=" goes before a name that would itself be taken for an option."""
    return f"{option}{'=' if str(folder).startswith('-') else ' '}{shlex.quote(str(folder))}"


def check_form(state: Any, wanted: Any, path: str = "") -> None:
    """Compare a state with one like it in all but the numbers: names, lengths, types, shapes and dtypes.

    Raises: CheckpointError with the path of the first part that differs.
    """
    parts, needed = _parts(state), _parts(wanted)
    if parts is None or needed is None:
        if _form(state) != _form(wanted):
            raise CheckpointError(f"{path} is {_form(state)} instead of {_form(wanted)}")
        return
    for name in sorted(parts.keys() ^ needed.keys(), key=str):
        raise CheckpointError(f"{path}/{name} is missing or unknown".lstrip("/"))
    for name, part in needed.items():
        check_form(parts[name], part, f"{path}/{name}".lstrip("/"))


def _parts(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else None


def _form(value: Any) -> str:
    if type(value) is int and not 0 <= value < 2**128:
        return "a whole number out of range"
    if type(value) is float and not math.isfinite(value):
        return str(value)
    return form(value)


_REMEDY = "restore the folder from a copy, or train anew into another one"
_ANOTHER = "name the folder that train --out or demo filled"


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder last through a power cut, where the system can; done is the rename in any case."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of_head(head: dict[str, Any]) -> str:
    """The fingerprint of the JSON file: of all that it says but this."""
    rest = {name: value for name, value in head.items() if name != "head_sha256"}
    return _sha256(json.dumps(rest, sort_keys=True).encode())


def _free_name(folder: Path, step: int) -> str:
    """A name for the arrays of a step: neither that of the last checkpoint, whole until then, nor a file of others'."""
    last, name = _current(folder), f"arrays-{step}.safetensors"
    while name == last or any(map(of_others, (folder / name, folder / f"{name}.partial"))):
        name = name.replace(".", "-again.", 1)
    return name


def _take_out(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The same tree as JSON can hold it; each array goes into `arrays` under its path and leaves a mark behind."""
    if isinstance(value, dict):
        return {name: _take_out(part, f"{path}/{name}" if path else name, arrays) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_out(part, f"{path}/{i}", arrays) for i, part in enumerate(value)]
    if isinstance(value, np.generic) and not value.ndim:
        return value.item()
    if isinstance(value, (Tensor, np.ndarray)):
        # 0.8.0 of safetensors silently scrambles what is not C-contiguous
        array = np.array(value.numpy() if isinstance(value, Tensor) else value, order="C")
        arrays[path] = array
        return {_MARK: [str(array.dtype), list(array.shape)]}
    return value


def _put_back(value: Any, path: str, arrays: dict[str, np.ndarray], file: Path) -> Any:
    """The inverse: every mark becomes the array of its path, which is taken from `arrays`."""
    if isinstance(value, list):
        return [_put_back(part, f"{path}/{i}", arrays, file) for i, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        return {name: _put_back(part, f"{path}/{name}" if path else name, arrays, file) for name, part in value.items()}
    if path not in arrays:
        raise CheckpointError(f"{file} lacks the tensor {path!r}; {_REMEDY}")
    array, (dtype, shape) = arrays.pop(path), value[_MARK]
    for what, has, needs in (("shape", array.shape, tuple(shape)), ("dtype", str(array.dtype), dtype)):
        if has != needs:
            raise CheckpointError(f"the tensor {path!r} in {file} has {what} {has} instead of {needs}; {_REMEDY}")
    return array


def _current(folder: Path) -> str | None:
    try:
        return str(_head(folder)["arrays"])
    except (CheckpointError, RecursionError):
        return None


def _head(folder: Path) -> dict[str, Any]:
    """The JSON file, provided that it is one of ours and of a format that we know."""
    path = folder / FILE
    try:
        head = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        there_is = f"{folder} is a file" if folder.is_file() else f"there is no checkpoint in {folder}"
        raise CheckpointError(f"{there_is}: {_ANOTHER}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): permit it, or {_REMEDY}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); {_REMEDY}") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT or not isinstance(head.get("format_version"), int):
        raise CheckpointError(f"{path} is not a {FORMAT}: {_ANOTHER}")
    if head["format_version"] > VERSION:
        raise CheckpointError(
            f"{path} has format {head['format_version']}, and this version reads formats up to {VERSION}: "
            "update it with pip install --upgrade tinygrad_rnn"
        )
    name = head.get("arrays")
    if not isinstance(name, str) or Path(name).name != name or not {"state", "head_sha256"} <= head.keys():
        raise CheckpointError(f"{path} is damaged: an entry is missing or wrong; {_REMEDY}")
    if _sha256_of_head(head) != head["head_sha256"]:
        raise CheckpointError(f"the entries of {path} were altered since they were saved; {_REMEDY}")
    return head


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): permit it, or {_REMEDY}") from None


def _arrays(path: Path, blob: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialised

    try:
        return deserialised(blob)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or has a wrong header ({error}); {_REMEDY}") from None
