"""The picture in the README: one step of a GRU. `python docs/building/readme_picture.py` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import tinygrad_rnn as tg

PICTURE = Path(__file__).parents[1] / "gru_step.svg"


def gru_step() -> str:
    """One step of a GRU, laid out by the WebAssembly Graphviz, so that it is the same everywhere."""
    cell = tg.nn.GRUCell(3, 5, rng=np.random.default_rng(0))
    x = tg.tensor(np.random.default_rng(1).standard_normal((4, 3)), dtype=np.float32, name="x")
    return tg.draw(cell(x), engine="wasm", timeout=60).svg


def content(svg: str) -> list[str]:
    """What has to be current: the words. Another Graphviz may put them elsewhere."""
    return sorted(re.findall(r">([^<>]+)<", svg))


if __name__ == "__main__":
    PICTURE.write_text(gru_step(), "utf-8")
