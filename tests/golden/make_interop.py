"""Writes interop.json: what the cells of other libraries give for the numbers that `loops.filled` makes.

Of each case the outputs, then the final states in the order of the library.

    KERAS_BACKEND=torch CHAINER_PYTHON=/path/to/python python tests/golden/make_interop.py

CHAINER_PYTHON: a Python that has Chainer 7.8.1 and NumPy 1.23.5, which nothing else here works with.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import elsewhere
from golden.loops import H, I, N, T, filled

from tinygrad_rnn.interop import packing
from tinygrad_rnn.interop.conventions import Convention

FILE = Path(__file__).with_name("interop.json")


def row_of(case: elsewhere.Case) -> Convention:
    """The row of the table that a case puts to the proof."""
    return packing.convention(case.library, packing.CELLS[case.cell], case.reset)


def given(name: str) -> tuple[dict[str, np.ndarray], np.ndarray, list[np.ndarray]]:
    """The arrays, the inputs and the initial states of a case, in the order that its library has the states."""
    row = row_of(elsewhere.CASES[name])
    arrays = {slot.name: filled(f"{name} {slot.name}", *packing.shape_of(slot, I, H)) for slot in row.slots}
    return arrays, filled("x", T, N, I), [filled(f"state {place}", N, H) for place, _ in enumerate(row.states)]


def run(name: str, arrays, x, states):
    """What the library itself gives."""
    case = elsewhere.CASES[name]
    if case.package == "chainer":
        return elsewhere.in_another_python(os.environ["CHAINER_PYTHON"], name, arrays, x, states)
    return case.run(arrays, x, states)


if __name__ == "__main__":
    lines = []
    for name in elsewhere.CASES:
        output, finals = run(name, *given(name))
        plain = [[float(f"{number:.14g}") for number in value.ravel()] for value in (output, *finals)]
        lines.append(f"{json.dumps(name)}: {json.dumps(plain)}")
        print(name)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
