"""The equations of a cell say what the cell computes: read back as LaTeX, they give its numbers."""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np
import pytest
from latex import evaluate

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import OptionError
from tinygrad_rnn.see import cell_equations

N, I, H = 2, 3, 4  # noqa: E741


class Gates(NamedTuple):
    k: Any
    n: Any


class Step(NamedTuple):
    k: Any
    n: Any
    h: Any


class Peeping(nn.Cell):
    """A cell of one's own: with a weight beside W, U and b."""

    gates, candidate, Gates = ("k", "n"), "n", Gates

    def __post_init__(self):
        super().__post_init__()
        self.p = tg.randn(self.hidden_size, dtype=self.dtype, requires_grad=True)

    def equation(self, x, state, weights):
        (h,), (W, U, b) = state, weights
        k = tg.sigmoid(x @ W.k + h @ U.k + self.p * h + b.k)
        n = tg.tanh(x @ W.n + h @ U.n + b.n)
        return Step(k, n, k * h + (1 - k) * n)


CELLS = {
    "RNN": nn.RNNCell,
    "RNN relu": lambda *sizes, **o: nn.RNNCell(*sizes, activation="relu", **o),
    "minimal GRU": nn.MinimalGRUCell,
    "GRU": nn.GRUCell,
    "GRU old": lambda *sizes, **o: nn.GRUCell(*sizes, update="old", **o),
    "GRU after": lambda *sizes, **o: nn.GRUCell(*sizes, reset="after", **o),
    "GRU after, c": lambda *sizes, **o: nn.GRUCell(*sizes, reset="after", recurrent_bias=True, **o),
    "LSTM": nn.LSTMCell,
    "one's own": Peeping,
}


def numbers_of(cell: nn.Cell) -> dict[str, Any]:
    """What each symbol stands for, from the cell's own weights and a random x and state."""
    rng = np.random.default_rng(3)
    values = {"x_t": rng.uniform(-1, 1, (N, I)), **{f"{s}_{{t-1}}": rng.uniform(-1, 1, (N, H)) for s in cell.states}}
    for name, by_gate in cell.to_gates().items():
        if name == "c":
            values["c_n"] = by_gate
        elif len(cell.gates) == 1:
            values[name] = by_gate[cell.gates[0]]
        else:
            values |= {f"{name}_{gate}": weight for gate, weight in by_gate.items()}
    return values | ({"p": cell.p.numpy()} if isinstance(cell, Peeping) else {})


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)
def test_the_lines_compute_the_cell(make, bias):
    cell = make(I, H, bias=bias, dtype="float64", rng=np.random.default_rng(2))
    values = numbers_of(cell)
    state = tuple(values[f"{name}_{{t-1}}"] for name in cell.states)
    computed = cell.equation(tg.tensor(values["x_t"]), tuple(map(tg.tensor, state)), cell.weights())._asdict()
    lines = cell_equations(cell).lines
    assert list(lines) == list(computed)
    for name, line in lines.items():
        left, _, right = line.partition(" = ")
        values[left] = evaluate(right, values)
        np.testing.assert_allclose(values[left], computed[name].numpy(), rtol=1e-12, err_msg=line)


def test_the_gru_reads_like_the_slide():
    assert list(cell_equations(nn.GRUCell(I, H)).lines.values()) == [
        r"z_t = \sigma(x_t W_z + h_{t-1} U_z + b_z)",
        r"r_t = \sigma(x_t W_r + h_{t-1} U_r + b_r)",
        r"n_t = \tanh(x_t W_n + (r_t \odot h_{t-1}) U_n + b_n)",
        r"h_t = z_t \odot n_t + (1 - z_t) \odot h_{t-1}",
    ]


def test_a_notebook_shows_it_typeset_and_print_as_text():
    shown = cell_equations(nn.RNNCell(I, H), index="k")
    assert str(shown) == "h_k = tanh(x_k W + h[k-1] U + b)"
    assert shown._repr_latex_() == (
        "$$\n\\begin{aligned}\nh_k &= \\tanh(x_k W + h_{k-1} U + b) \\\\\n\\end{aligned}\n$$"
    )
    assert repr(shown) == "<Equations of RNNCell: h>"


def test_a_gate_may_have_a_word_for_a_letter():
    class Keeping(nn.Cell):
        gates, candidate = ("keep", "n"), "n"

        def equation(self, x, state, weights):
            keep = tg.sigmoid(x @ weights.W.keep)
            return namedtuple("Step", "keep h")(keep, keep * state[0])

        Gates = namedtuple("Gates", "keep n")

    shown = cell_equations(Keeping(I, H))
    assert list(shown.lines.values()) == [
        r"\mathrm{keep}_t = \sigma(x_t W_{keep})",
        r"h_t = \mathrm{keep}_t \odot h_{t-1}",
    ]


def test_without_biases_nothing_is_added():
    assert str(cell_equations(nn.RNNCell(I, H, bias=False))) == "h_t = tanh(x_t W + h[t-1] U)"


def test_a_layer_has_the_equations_of_its_cells():
    layer = nn.GRU(I, H, 2, update="old")
    assert cell_equations(layer).lines == cell_equations(nn.GRUCell(5, 7, update="old")).lines


def test_the_cell_is_left_alone():
    layer = nn.GRU(I, H, reset="after", recurrent_bias=True)
    before = {name: (id(weight), weight.name) for name, weight in layer.named_parameters()}
    cell_equations(layer.cells[0])
    assert {name: (id(weight), weight.name) for name, weight in layer.named_parameters()} == before
    assert layer.cells[0](tg.ones((N, I))).shape == (N, H)


def test_what_has_no_equations_is_refused():
    with pytest.raises(OptionError, match="takes a recurrent cell or layer, not a Linear"):
        cell_equations(nn.Linear(I, H))
