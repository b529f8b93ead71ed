"""Files of strangers, broken by the thousand: each comes to a result or a typed error, soon, and nothing is written.

    PYTHONPATH=tests python -m interop.fuzz keras 100000 [first]

keras, onnx and safetensors each have a file beside this one, with their valid files and ways to break these that get
past a first check. A broken file is decided by its number: `broken(form, 271)` makes the 271st once more.
"""

from __future__ import annotations

import importlib
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tinygrad_rnn.errors import TinygradError


class Format(NamedTuple):
    """What is fuzzed: valid files, how their structure is broken, the suffix, the reader, and what else it counts."""

    seeds: Callable[[], list[bytes]]
    edited: Callable[[bytes, random.Random], bytes]
    suffix: str
    read: Callable[[Path], object]
    counts: Mapping[str, int] = MappingProxyType({})


def format_of(name: str) -> Format:
    """The format of a file `fuzz_*.py`, whose seeds are made only once."""
    form = importlib.import_module(f"interop.fuzz_{name}").FORMAT
    return form._replace(seeds=cache(form.seeds))


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Bytes that know of no structure: overwritten in some places, or a piece of them gone, doubled or put in."""
    start, end = sorted(chance.randrange(len(whole)) for _ in range(2))
    match chance.choice(["overwritten"] * 8 + ["cut", "put in", "twice", "gone"]):
        case "cut":
            return whole[:start]
        case "put in":
            return whole[:start] + chance.randbytes(chance.choice((1, 3, 9))) + whole[start:]
        case "twice":
            return whole[:end] + whole[start:]
        case "gone":
            return whole[:start] + whole[end:]
    return _overwritten(whole, chance)


def _overwritten(whole: bytes, chance: random.Random) -> bytes:
    """Bits, numbers and blocks, for the most part where there is more than zeros. The length stays."""
    content, size = bytearray(whole), len(whole)
    places = [at for at, byte in enumerate(whole) if byte] if chance.random() < 0.8 else []
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at, way, width = chance.choice(places or range(size)), chance.random(), chance.choice((1, 1, 2, 4, 8))
        if way < 0.35:
            content[at] ^= 1 << chance.randrange(8)
        elif way < 0.8:
            number = chance.choice((0, 1, 127, chance.randrange(256), chance.randrange(size), 2 ** (8 * width - 1), -1))
            content[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        else:
            other, many = chance.randrange(size), chance.choice((8, 24, 96, 512))
            content[at : at + many] = content[other : other + many]
        content = content[:size].ljust(size, b"\0")
    return bytes(content)


def broken(form: Format, number: int) -> bytes:
    """The broken file of this number; now and then it is whole."""
    chance = random.Random(number)
    whole = chance.choice(form.seeds())
    return (damaged if chance.random() < 0.25 else form.edited)(whole, chance)


def end_of(form: Format, content: bytes) -> str:
    """What became of a file: the name of the typed error, or "read". Any other error comes out, and so does a trace."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"broken{form.suffix}"
        path.write_bytes(content)
        try:
            with np.errstate(all="ignore"):  # infinity is a number of the file, and no fault of the reader
                form.read(path)
            end = "read"
        except TinygradError as error:
            end = type(error).__name__
        assert list(Path(folder).iterdir()) == [path], "something was written"
        assert path.read_bytes() == content, "the file was changed"
    return end


def fuzz(form: Format, count: int, first: int = 0) -> bool:
    """Reads that many broken files and prints how they ended, the slowest and the memory; whether all ended well."""
    for whole in form.seeds():
        assert end_of(form, whole) == "read", "a file is refused before it is broken"
    ends, slowest, memory = Counter[str](), (0.0, first), most_memory()
    for number in range(first, first + count):
        content, start = broken(form, number), time.perf_counter()
        try:
            ends[end_of(form, content)] += 1
        except Exception as error:
            ends["wrong"] += 1
            print(f"file {number}: {type(error).__name__}: {error}"[:300], flush=True)
        slowest = max(slowest, (time.perf_counter() - start, number))
    print(f"{count:,} files: " + ", ".join(f"{many:,} {end}" for end, many in {**ends, **form.counts}.items()))
    print(
        f"the slowest, file {slowest[1]}: {slowest[0]:.2f} s; {most_memory() - memory:.1f} MB more memory than before"
    )
    return not ends["wrong"]


def most_memory() -> float:
    """The most that this process has had in memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(not fuzz(format_of(sys.argv[1]), *map(int, sys.argv[2:])))
