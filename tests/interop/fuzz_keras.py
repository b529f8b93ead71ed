"""Keras' files and how they go wrong: seeds, and mutations of what is inside, for one run of many or a few in CI.

    PYTHONPATH=tests python tests/interop/fuzz_keras.py 100000 [first]

A seed is a name and bytes; `read` takes bytes, as a file of any name. `Forked` has HDF5 read in forked processes, which
start in a hundredth of the time that a new one takes, with the same limits.
"""

from __future__ import annotations

import collections
import copy
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import tinygrad_rnn as tg
from tinygrad_rnn.errors import TinygradError
from tinygrad_rnn.interop import from_keras, to_keras
from tinygrad_rnn.interop.keras_ import files as keras_files
from tinygrad_rnn.interop.keras_ import hdf5, hdf5_child
from tinygrad_rnn.interop.keras_.config import FUNCTIONS
from tinygrad_rnn.interop.layers import Final, Layers

GOLDEN = Path(__file__).parents[1] / "golden"


def seeds() -> Iterator[tuple[str, bytes]]:
    """Valid files: as Keras and as the package writes them."""
    model = Layers({
        "embedding": tg.nn.Embedding(7, 3), "gru": tg.nn.GRU(3, 2, reset="after", batch_first=True),
        "both": tg.nn.LSTM(2, 3, bidirectional=True, batch_first=True), "last": Final(tg.nn.RNN(6, 2)),
        "norm": tg.nn.LayerNorm(2), "drop": tg.nn.Dropout(0.1), "f": FUNCTIONS["softmax"], "head": tg.nn.Linear(2, 3),
    })  # fmt: skip
    model.order = list(model.layers)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ours.keras", "ours.weights.h5"):
            to_keras(model, Path(folder) / name)
            yield name, (Path(folder) / name).read_bytes()
    for name in ("keras_model.keras", "keras_model.weights.h5"):
        yield name, (GOLDEN / name).read_bytes()


def read(content: bytes) -> object:
    """The module in a file, whatever kind it turns out to be."""
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        file.write(content)
        file.flush()
        return from_keras(file.name)


# -- mutations -------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 10**400, 1e308, 1e-320, float("nan"), float("inf"), True, False, None]
VALUES = [*NUMBERS, "", "tanh", "GRU", "a" * 300, "\ud800", "../../x", [], {}, [[]], [1, 2], {"class_name": "Lambda"}]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One file, wrong in some way; now and then it is still right."""
    if content.startswith(hdf5.MAGIC):
        return _bytes(content, rng)
    way = rng.random()
    if way < 0.2:
        return _bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [[name, archive.read(name)] for name in archive.namelist()]
    if way < 0.65:
        entry = next(each for each in entries if each[0] == keras_files.CONFIG)
        entry[1] = _edited(entry[1], rng)
    elif way < 0.8:
        entry = next(each for each in entries if each[0] == keras_files.WEIGHTS)
        entry[1] = _bytes(entry[1], rng)
    elif way < 0.9:
        entry = rng.choice(entries)
        entry[1] = rng.choice([b"", b"[" * 10_000, b"{}", b"[]", b"1" * 5_000, b"\0" * 500_000, entry[1] * 2])
    else:
        which = rng.randrange(len(entries))
        change = rng.choice(["drop", "twice", "rename", "more"])
        if change == "drop":
            del entries[which]
        elif change == "rename":
            entries[which][0] = rng.choice(["../config.json", "/etc/x", "config.json/", "CONFIG.JSON", "\u00e9"])
        else:
            entries.append(list(entries[which]) if change == "twice" else [f"assets/{rng.random()}", b"x"])
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, part in entries:
            archive.writestr(zipfile.ZipInfo(name), part, archive.compression)
    made = memory.getvalue()
    return _bytes(made, rng) if rng.random() < 0.1 else made


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits, bytes, numbers and blocks overwritten, or the end cut off: where there is structure rather than zeros."""
    if rng.random() < 0.1:
        return content[: rng.randrange(len(content))]
    found = bytearray(content)
    places = [i for i, byte in enumerate(content) if byte] if rng.random() < 0.8 else range(len(content))
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at, width = min(rng.choice(places), len(found) - 1), rng.choice([1, 2, 4, 8])
        number = rng.choice([0, 1, rng.randrange(256), rng.randrange(len(content)), 2 ** (8 * width - 1), -1])
        way = rng.random()
        if way < 0.4:
            found[at] ^= 1 << rng.randrange(8)
        elif way < 0.8:
            found[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        else:
            other, many = rng.randrange(len(content)), rng.choice([8, 24, 96, 512])
            found[at : at + many] = found[other : other + many]
        del found[len(content) :]
    return bytes(found)


def _edited(config: bytes, rng: random.Random) -> bytes:
    """A setting, anywhere, gone, of another value, or in another place."""
    tree = json.loads(config)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(tree))
        owner, key = rng.choice(places)
        way = rng.random()
        if way < 0.15:
            del owner[key]
        elif way < 0.3 and isinstance(owner, dict):
            owner[rng.choice(["axis", "time_major", "cell", "x", "mask_zero", "return_state"])] = copy.deepcopy(
                rng.choice(VALUES)
            )
        elif way < 0.5:
            other, name = rng.choice(places)
            owner[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other))
        else:
            owner[key] = copy.deepcopy(rng.choice(VALUES))
        if not isinstance(tree, dict) or not tree:
            break
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: object) -> Iterator[tuple]:
    """All settings, as (what holds them, the key)."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        for key, part in each.items() if isinstance(each, dict) else enumerate(each):
            yield each, key
            if isinstance(part, (dict, list)):
                waiting.append(part)


# -- many of them ----------------------------------------------------------------------------------------------------


class Forked:
    """In place of `hdf5._answer`: a forked process does what a new one would. It counts how they end."""

    def __init__(self) -> None:
        import h5py
        from safetensors.numpy import save

        self.h5py, self.save, self.ends = h5py, save, collections.Counter()

    def __call__(self, content: bytes, source: str) -> subprocess.CompletedProcess:
        out, into = os.pipe()
        child = os.fork()
        if not child:
            status, answer = 1, b""
            try:
                hdf5_child.limit(len(content))
                answer, status = self.save(hdf5_child.arrays(self.h5py, content)), 0
            except hdf5_child.Refused as error:
                answer, status = str(error).encode(), hdf5_child.REFUSED
            except BaseException as error:
                answer = str(error).encode(errors="replace")
            finally:
                with open(into, "wb", closefd=False) as file:
                    file.write(answer)
                os._exit(status)
        os.close(into)
        with open(out, "rb") as file:
            answer = file.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        self.ends[f"signal {-code}" if code < 0 else f"status {code}"] += 1
        return subprocess.CompletedProcess([], code, answer if not code else b"", answer if code else b"")


def main(count: int, first: int = 0) -> int:
    """Reads so many mutated files, and says how it went. What is neither read nor refused is an error."""
    import resource

    hdf5._answer = forked = Forked()
    files, ends, slowest, wrong = list(seeds()), collections.Counter(), 0.0, 0
    for number in range(first, first + count):
        rng = random.Random(number)
        name, content = rng.choice(files)
        made, start = mutated(content, rng), time.perf_counter()
        try:
            read(made)
            ends["read"] += 1
        except TinygradError as error:
            ends[type(error).__name__] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong += 1
            print(f"file {number} of {name}: {type(error).__name__}: {error}"[:300], flush=True)
        taken = time.perf_counter() - start
        if taken > 0.9:
            print(f"file {number} of {name} took {taken:.2f} s", flush=True)
        slowest = max(slowest, taken)
        if (number + 1 - first) % 5_000 == 0:
            print(f"{number + 1 - first:,} so far, {wrong} wrong", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count:,} files: {dict(ends)}; processes: {dict(forked.ends)}; slowest {slowest:.2f} s; peak {peak} MB; "
          f"{wrong} wrong")  # fmt: skip
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
