"""Files in safetensors' format and how they go wrong: valid ones, and headers that say something else."""

from __future__ import annotations

import random
import re
import tempfile
from pathlib import Path

import numpy as np
from interop.fuzz import Format
from interop.modules import with_numbers
from safetensors.numpy import save

from tinygrad_rnn import interop, nn
from tinygrad_rnn.interop import cells
from tinygrad_rnn.ops.elementwise import tanh
from tinygrad_rnn.train import LanguageModel


def seeds() -> list[bytes]:
    """Modules of most kinds, a `state_dict` of torch, and arrays of many dtypes without metadata."""
    gates = (cells.activation("hardsigmoid"), cells.TANH, cells.activation("leakyrelu", 0.3))
    modules = [
        nn.GRU(2, 3, 2, bidirectional=True, reset="after", recurrent_bias=True),
        nn.Sequential(nn.Linear(2, 3), tanh, nn.LayerNorm(3), nn.Dropout(0.5)),
        interop.Layers({"e": nn.Embedding(4, 2), "g": interop.Final(nn.MinimalGRU(2, 3))}, ["e", "g"]),
        cells.VariedLSTM(2, 3, activations=gates, peepholes=True, clip=0.5),
        LanguageModel(4, 2, 3, cell="lstm"),
    ]
    plain = {"a": np.ones((2, 3)), "b": np.arange(4), "c": np.ones(3, bool), "d": np.array(1, np.float16)}
    files = [save(interop.torch_state(with_numbers(modules[0])), {"format": "pt"}), save(plain)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        for module in modules:
            interop.save(with_numbers(module), path, metadata={"of": "me"})
            files.append(path.read_bytes())
    return files


# -- what the header says ----------------------------------------------------------------------------------------

TOKEN = re.compile(rb'-?[0-9][0-9.e]*|\\*"[A-Za-z_0-9.]+\\*"|true|false|null|\[\]|\{\}')
VALUES = [
    b"-1", b"0", b"1", b"2", b"3", b"1000", b"2147483648", b"18446744073709551615", b"9" * 30, b"1e999", b"NaN", b"0.5",
    b"null", b"true", b"false", b"[]", b"{}", b'"F32"', b'"BF16"', b'"C64"', b'"F4"', b'"GRU"', b'"object"',
    b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000,
]  # fmt: skip
PIECES = [b",", b":", b'"', b"[", b"}", b"\xff\xfe", b"\x00", b"[" * 3000]
NUMBERS = [0, 1, 7, 8, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def edited(whole: bytes, chance: random.Random) -> bytes:
    """One to three places changed, for the most part words of the header; its length mostly follows."""
    content = whole
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = (_replaced if chance.random() < 0.75 else _changed)(content, chance) or content[:1]
    return _repaired(content, whole) if chance.random() < 0.75 else content


def _replaced(content: bytes, chance: random.Random) -> bytes:
    """Another word in place of one: mostly a text for a text, a number for a number."""
    tokens = list(TOKEN.finditer(content[:6000]))
    if not tokens:
        return content
    token = chance.choice(tokens)
    values = VALUES + [each[0] for each in tokens]
    alike = [each for each in values if (b'"' in each) is (b'"' in token[0])]
    value = chance.choice(alike if chance.random() < 0.8 else values)
    if token[0].startswith(b"\\"):  # a text within a text
        value = value.replace(b"\\", b"").replace(b'"', b'\\"')
    return content[: token.start()] + value + content[token.end() :]


def _changed(content: bytes, chance: random.Random) -> bytes:
    """A few bytes that are others, twice there, turned round or gone."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.randint(1, 12))
    put = chance.choice([
        chance.choice(PIECES), chance.randbytes(chance.randint(1, 8)), chance.choice(NUMBERS).to_bytes(8, "little"),
        2 * content[start:end], content[start:end][::-1], b"",
    ])  # fmt: skip
    return content[:start] + put + content[end:]


def _repaired(content: bytes, whole: bytes) -> bytes:
    """The length of the header follows what was put in or taken out, as far as one can tell."""
    data = len(whole) - 8 - int.from_bytes(whole[:8], "little")
    return max(0, len(content) - 8 - data).to_bytes(8, "little") + content[8:]


def read(path: Path) -> object:
    """The arrays of a file, and its module where there are metadata."""
    arrays, metadata = interop.read(path)
    return interop.load(path) if metadata else arrays


FORMAT = Format(seeds, edited, ".safetensors", read)
