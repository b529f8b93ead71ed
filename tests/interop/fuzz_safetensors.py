"""Readers of files that nobody has to trust, given thousands of broken ones: a typed error or a result, nothing else.

    PYTHONPATH=tests python tests/interop/fuzz_safetensors.py safetensors 100000

A reader registers itself in `READERS`: valid files to start from, what reads a file, and what makes a broken file
plausible again, so that the damage gets past the first check.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tinygrad_rnn import errors, interop, nn
from tinygrad_rnn.interop import cells
from tinygrad_rnn.ops.elementwise import tanh
from tinygrad_rnn.train import LanguageModel


class Reader(NamedTuple):
    """What is fuzzed: valid files, the suffix, the function that reads a path, and what repairs lengths and sums."""

    files: Callable[[], list[bytes]]
    suffix: str
    read: Callable[[Path], Any]
    repaired: Callable[[bytes, bytes], bytes] = lambda broken, whole: broken


TOKEN = re.compile(rb'-?[0-9][0-9.e]*|\\*"[A-Za-z_0-9.]+\\*"|true|false|null|\[\]|\{\}')
VALUES = [
    b"-1", b"0", b"1", b"2", b"3", b"1000", b"2147483648", b"18446744073709551615", b"9" * 30, b"1e999", b"NaN", b"0.5",
    b"null", b"true", b"false", b"[]", b"{}", b'"F32"', b'"BF16"', b'"C64"', b'"F4"', b'"GRU"', b'"object"',
    b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000,
]  # fmt: skip
PIECES = [b",", b":", b'"', b"[", b"}", b"\xff\xfe", b"\x00", b"[" * 3000]
NUMBERS = [0, 1, 7, 8, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
KINDS = ["value"] * 20 + ["piece", "bytes", "number", "cut", "twice", "gone", "turned"]


@st.composite
def broken(draw: Any, wholes: list[bytes], repaired: Callable[[bytes, bytes], bytes]) -> bytes:
    """One of the files with one to three places changed."""
    whole = draw(st.sampled_from(wholes))
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        content = _changed(draw, content) or content[:1]
    return repaired(content, whole) if draw(st.integers(0, 3)) else content


def _changed(draw: Any, content: bytes) -> bytes:
    kind = draw(st.sampled_from(KINDS))
    if kind == "value" and (tokens := list(TOKEN.finditer(content[:6000]))):
        token = draw(st.sampled_from(tokens))
        values = VALUES + [each[0] for each in tokens]
        alike = [each for each in values if (b'"' in each) is (b'"' in token[0])]  # text for text, number for number
        value = draw(st.sampled_from(alike if draw(st.integers(0, 4)) else values))
        if token[0].startswith(b"\\"):  # a text within a text
            value = value.replace(b"\\", b"").replace(b'"', b'\\"')
        return content[: token.start()] + value + content[token.end() :]
    start = draw(st.integers(0, len(content) - 1))
    end = min(len(content), start + draw(st.integers(1, 12)))
    put = {
        "piece": lambda: draw(st.sampled_from(PIECES)),
        "bytes": lambda: draw(st.binary(min_size=1, max_size=8)),
        "number": lambda: draw(st.sampled_from(NUMBERS)).to_bytes(8, "little"),
        "twice": lambda: 2 * content[start:end],
        "turned": lambda: content[start:end][::-1],
    }
    if kind == "cut":
        return content[:start]
    return content[:start] + (put[kind]() if kind in put else b"") + content[end:]


# -- safetensors -------------------------------------------------------------------------------------------------


def safetensors_files() -> list[bytes]:
    gates = (cells.activation("hardsigmoid"), cells.TANH, cells.activation("leakyrelu", 0.3))
    rng = np.random.default_rng(0)
    modules = [
        nn.GRU(2, 3, 2, bidirectional=True, reset="after", recurrent_bias=True, rng=rng),
        nn.Sequential(nn.Linear(2, 3, rng=rng), tanh, nn.LayerNorm(3), nn.Dropout(0.5)),
        interop.Layers(
            {"e": nn.Embedding(4, 2, rng=rng), "g": interop.Final(nn.MinimalGRU(2, 3, rng=rng))}, ["e", "g"]
        ),
        cells.VariedLSTM(2, 3, activations=gates, peepholes=True, clip=0.5, rng=rng),
        LanguageModel(4, 2, 3, cell="lstm", rng=rng),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        files = []
        for module in modules:
            interop.save(module, path, metadata={"of": "me"})
            files.append(path.read_bytes())
    from safetensors.numpy import save

    files.append(save(interop.torch_state(modules[0])))
    files.append(save({"a": np.ones((2, 3)), "b": np.arange(4), "c": np.ones(3, bool), "d": np.array(1, np.float16)}))
    return files


def safetensors_repaired(content: bytes, whole: bytes) -> bytes:
    """The length of the header follows what was put in or taken out, as far as one can tell."""
    data = len(whole) - 8 - int.from_bytes(whole[:8], "little")
    return max(0, len(content) - 8 - data).to_bytes(8, "little") + content[8:]


READERS: dict[str, Reader] = {
    "safetensors": Reader(safetensors_files, ".safetensors", interop.load, safetensors_repaired),
}


# -- running -----------------------------------------------------------------------------------------------------


def fuzz(name: str, count: int) -> Counter[str]:
    """Give a reader that many broken files, and count what came of them; anything but a typed error is raised."""
    reader, outcomes = READERS[name], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"broken{reader.suffix}"

        @settings(max_examples=count, database=None, deadline=None, report_multiple_bugs=False,
                  phases=[Phase.generate, Phase.shrink],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(broken(reader.files(), reader.repaired))
        def check(content: bytes) -> None:
            path.write_bytes(content)
            try:
                reader.read(path)
                outcomes["read"] += 1
            except errors.TinygradError as error:
                outcomes[type(error).__name__] += 1
            assert [each.name for each in Path(folder).iterdir()] == [path.name], "something was written"

        check()
    return outcomes


if __name__ == "__main__":
    chosen, wanted = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    began = time.perf_counter()
    print(chosen, json.dumps(fuzz(chosen, wanted)), f"{time.perf_counter() - began:.0f} s")
