"""Reads HDF5 that nobody has to trust, in a process of its own that `hdf5` starts: there it may crash, or be ended.

The file comes in through stdin; the arrays go out through stdout, as safetensors. Status REFUSED is a refusal, with the
sentence in stderr; MISSING says that a package is; any other end but 0 is damage.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

REFUSED, MISSING = 3, 4
MOST_OBJECTS, DEEPEST, LONGEST_NAME = 10_000, 20, 200
MEMORY, SECONDS = 64_000_000, 0.4
BYTES_PER_SECOND = 100e6
"""What a process that reads may take of memory and of a processor's time, beside what the size of the file allows."""


class Refused(Exception):
    """What the file has and nobody needs; the text continues "the file "."""


def arrays(h5py: Any, content: bytes) -> dict[str, Any]:
    """The arrays of numbers by their paths, little-endian; what optimizers keep is left out.

    Nothing is followed that leads elsewhere, and nothing read whose bytes are not in the file as they are.

    h5py: the package, imported before `limit`, after which no file can be opened.

    Raises: Refused; and what h5py raises.
    """
    import numpy as np  # which is there, since h5py is

    with h5py.File(io.BytesIO(content), "r") as file:
        found, total = {}, 0
        for path, dataset in _datasets(h5py, file):
            dtype, shape = _form(h5py, path, dataset)
            total += math.prod(shape) * dtype.itemsize
            if total > len(content):
                raise Refused(f"claims {total:,} bytes of numbers up to {path}, and has {len(content):,} in all")
            if dtype.kind == "V":
                bits = np.asarray(dataset[()]).view("<u2").astype("<u4")
                found[path] = (bits << 16).view("<f4").reshape(shape)  # bfloat16 is the upper half of it
            else:
                found[path] = dataset[()].astype(dtype.newbyteorder("<"), copy=False).reshape(shape)
        return found


def _datasets(h5py: Any, file: Any) -> Iterator[tuple[str, Any]]:
    """All datasets with their paths, each once."""
    seen, waiting = set[int](), [("", file)]
    while waiting:
        path, group = waiting.pop()
        if len(seen) + len(group) > MOST_OBJECTS:
            raise Refused(f"has over {MOST_OBJECTS:,} objects")
        for name in group:
            inner = f"{path}/{name}" if path else name
            if inner == "optimizer":
                continue
            if not (name.isascii() and name.isprintable()) or len(inner) > LONGEST_NAME or inner.count("/") > DEEPEST:
                raise Refused(f"has an object with the name {inner[:LONGEST_NAME]!r}")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise Refused(f"has under {inner} what is not there, but points elsewhere")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise Refused(f"has {inner} twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((inner, item))
            elif isinstance(item, h5py.Dataset):
                yield inner, item
            else:
                raise Refused(f"has {inner}, which is neither a group nor an array")


def _form(h5py: Any, path: str, dataset: Any) -> tuple[Any, tuple[int, ...]]:
    """The dtype and shape of a dataset whose numbers stand in the file one after another."""
    made = dataset.id.get_create_plist()
    if made.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or made.get_nfilters():
        raise Refused(f"has {path} in pieces, compressed or virtual; Keras writes plain arrays only")
    if made.get_layout() == h5py.h5d.CONTIGUOUS and made.get_external_count():
        raise Refused(f"has the numbers of {path} in another file")
    dtype, shape = dataset.dtype, dataset.shape
    if dtype.kind == "V" and dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16" and shape is not None:
        pass
    elif dtype.kind not in "fiu" or dtype.itemsize > 8 or h5py.check_enum_dtype(dtype) or shape is None:
        raise Refused(f"has {path} with the dtype {dtype}, which holds no plain numbers")
    size = math.prod(shape) * dtype.itemsize
    if made.get_layout() == h5py.h5d.CONTIGUOUS and dataset.id.get_storage_size() != size:
        raise Refused(f"claims {size:,} bytes for {path}, and has {dataset.id.get_storage_size():,}")
    return dtype, shape


def limit(size: int) -> None:
    """From here on little memory and time can be had, and no other file be opened or written."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, SECONDS + size / BYTES_PER_SECOND)  # nobody handles it: it ends us
    try:
        import resource
    except ImportError:
        return  # on Windows; the deadline of whoever started us is everywhere
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 3}
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        limits[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + MEMORY + 4 * size
    for kind, most in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


def main() -> int:
    """Answers for one file."""
    try:
        import h5py
        from safetensors.numpy import save
    except ImportError as error:
        print(error, file=sys.stderr)
        return MISSING
    content = sys.stdin.buffer.read()
    limit(len(content))
    try:
        answer = save(arrays(h5py, content))
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    os._exit(0)  # HDF5 has been known to crash while it cleans up


if __name__ == "__main__":
    sys.exit(main())
