"""Every example runs, on every backend, and shows what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tinygrad_rnn as tg

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def loaded(name: str) -> ModuleType:
    """An example as a module, without running its main()."""
    path = next(each for each in EXAMPLES if each.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_closed_gate_forgets_nothing(backend, monkeypatch):
    example = loaded("carry_a_bit")
    monkeypatch.setattr(example, "STEPS", 200)
    with tg.use_backend(backend):
        found = example.main()
    for bit, (state, slope) in zip((1, -1), found["GRU"], strict=True):
        assert state == pytest.approx(bit, abs=2e-3) and slope == pytest.approx(1, abs=1e-3)
    assert found["RNN"][0] == found["RNN"][1], "the plain unit ends in the same state, whatever was written"
    assert all(slope < 1e-20 for _, slope in found["RNN"])


def test_the_weights_are_those_that_the_docstring_names():
    """z = sigmoid(28 write - 13.8), n = tanh(5 bit), whatever the state is."""
    example = loaded("carry_a_bit")
    cell = example.gru_that_remembers()
    (write, bias), (bit,) = (
        re.search(pattern, example.gru_that_remembers.__doc__).groups()
        for pattern in (r"z = sigmoid\(([\d.]+) write - ([\d.]+)\)", r"n = tanh\(([\d.]+) bit\)")
    )
    np.testing.assert_allclose(cell.W.numpy(), [[float(write), 0, 0], [0, 0, float(bit)]])
    np.testing.assert_allclose(cell.b.numpy()[[0, 2]], [-float(bias), 0], rtol=1e-6)
    assert not cell.U.numpy().any()


@pytest.mark.slow
def test_for_ten_thousand_steps():
    found = loaded("carry_a_bit").main()
    assert [round(state, 2) for state, _ in found["GRU"]] == [0.99, -0.99]
    assert all(slope > 0.98 for _, slope in found["GRU"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_one_idea(path):
    assert len(path.read_text().splitlines()) < 100
    assert path.stem in Path(__file__).read_text(), "each example has its test here"
