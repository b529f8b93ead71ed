"""Keras' files and how they go wrong: valid ones, and damage to what is inside of them.

HDF5 is read by forked processes, which start in a hundredth of the time that a new one takes, with the same limits.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import subprocess
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from interop.fuzz import Format, damaged
from interop.modules import with_numbers
from safetensors.numpy import save

import tinygrad_rnn as tg
from tinygrad_rnn.interop import from_keras, to_keras
from tinygrad_rnn.interop.keras_ import files as keras_files
from tinygrad_rnn.interop.keras_ import hdf5, hdf5_child
from tinygrad_rnn.interop.keras_.config import FUNCTIONS
from tinygrad_rnn.interop.layers import Final, Layers

h5py = pytest.importorskip("h5py")

GOLDEN = Path(__file__).parents[1] / "golden"


def seeds() -> list[bytes]:
    """As Keras and as the package writes them."""
    layers = {
        "embedding": tg.nn.Embedding(7, 3), "gru": tg.nn.GRU(3, 2, reset="after", batch_first=True),
        "both": tg.nn.LSTM(2, 3, bidirectional=True, batch_first=True), "last": Final(tg.nn.RNN(6, 2)),
        "norm": tg.nn.LayerNorm(2), "drop": tg.nn.Dropout(0.1), "f": FUNCTIONS["softmax"], "head": tg.nn.Linear(2, 3),
    }  # fmt: skip
    model = with_numbers(Layers(layers, layers))
    with tempfile.TemporaryDirectory() as folder:
        ours = [Path(folder) / name for name in ("ours.keras", "ours.weights.h5")]
        for path in ours:
            to_keras(model, path)
        theirs = [GOLDEN / name for name in ("keras_model.keras", "keras_model.weights.h5")]
        return [path.read_bytes() for path in ours + theirs]


# -- what is inside ----------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 10**400, 1e308, 1e-320, float("nan"), float("inf"), True, False, None]
VALUES = [*NUMBERS, "", "tanh", "GRU", "a" * 300, "\ud800", "../../x", [], {}, [[]], [1, 2], {"class_name": "Lambda"}]
SETTINGS = ["axis", "time_major", "cell", "x", "mask_zero", "return_state"]
PARTS = [b"", b"[" * 10_000, b"{}", b"[]", b"1" * 5_000, b"\0" * 500_000]


def edited(whole: bytes, chance: random.Random) -> bytes:
    """One entry of an archive changed, or the list of entries; HDF5 by itself has no structure that is known here."""
    if whole.startswith(hdf5.MAGIC):
        return damaged(whole, chance)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    other, way = chance.choice(list(entries)), chance.random()
    if way < 0.6:
        entries[keras_files.CONFIG] = _configured(entries[keras_files.CONFIG], chance)
    elif way < 0.8:
        entries[keras_files.WEIGHTS] = damaged(entries[keras_files.WEIGHTS], chance)
    elif way < 0.9:
        entries[other] = chance.choice([*PARTS, 2 * entries[other]])
    listed = list(entries.items()) if way < 0.9 else _relisted(entries, other, chance)
    return _zipped(listed, chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def _relisted(entries: dict[str, bytes], which: str, chance: random.Random) -> list[tuple[str, bytes]]:
    """The entries with one gone, twice there, under another name, or one more."""
    rest, name = [each for each in entries.items() if each[0] != which], which
    match chance.choice(["gone", "twice", "renamed", "more"]):
        case "gone":
            return rest
        case "twice":
            rest.append((which, entries[which]))
        case "renamed":
            name = chance.choice(["../config.json", "/etc/x", "config.json/", "CONFIG.JSON", "\u00e9"])
        case "more":
            rest.append((f"assets/{chance.random()}", b"x"))
    return [*rest, (name, entries[which])]


def _zipped(entries: list[tuple[str, bytes]], compression: int) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, part in entries:
            archive.writestr(zipfile.ZipInfo(name), part, compression)
    return memory.getvalue()


def _configured(config: bytes, chance: random.Random) -> bytes:
    """Settings, anywhere, gone, of another value, or in another place."""
    tree = json.loads(config)
    for _ in range(chance.choice([1, 1, 2, 3])):
        places = list(_places(tree))
        owner, key = chance.choice(places)
        way, value = chance.random(), copy.deepcopy(chance.choice(VALUES))
        if way < 0.15:
            del owner[key]
        elif way < 0.3 and isinstance(owner, dict):
            owner[chance.choice(SETTINGS)] = value
        elif way < 0.5:
            other, name = chance.choice(places)
            owner[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other)
        else:
            owner[key] = value
        if not tree:
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


# -- reading -----------------------------------------------------------------------------------------------------

PROCESSES = Counter[str]()
"""How the processes that read HDF5 ended."""


def forked(content: bytes, source: str) -> subprocess.CompletedProcess:
    """In place of `hdf5._answer`: a forked process does what a new one would."""
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*fork\(\)")  # what has threads, Python and JAX, warns
        child = os.fork()
    if not child:
        status, answer = 1, b""
        try:
            hdf5_child.limit(len(content))
            answer, status = save(hdf5_child.arrays(h5py, content)), 0
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
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    PROCESSES[f"signal {-code}" if code < 0 else f"status {code}"] += 1
    return subprocess.CompletedProcess([], code, answer if not code else b"", answer if code else b"")


def read(path: Path) -> object:
    """The module in a file, whatever kind it turns out to be."""
    with mock.patch.object(hdf5, "_answer", forked):
        return from_keras(path)


FORMAT = Format(seeds, edited, ".keras", read, PROCESSES)
