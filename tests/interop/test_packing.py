"""Each row of the table of conventions, by numbers: what the library itself computes, and what its arrays compute here.

The numbers of interop.json come from the libraries; those that are installed run once more, on arrays that came from
cells of this package.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from golden.elsewhere import CASES
from golden.loops import H, I, N, T, filled
from golden.make_interop import FILE, given, row_of, run
from interop.modules import leaves, with_numbers
from interop.wrong import NO_START, READINGS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import errors, nn
from tinygrad_rnn.interop import Report, from_arrays, from_cudnn, to_arrays, to_cudnn
from tinygrad_rnn.interop import packing as pack
from tinygrad_rnn.interop.cells import TANH, VariedGRUCell, activation
from tinygrad_rnn.interop.conventions import CONVENTIONS

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
LIVE = [name for name, case in CASES.items() if case.package != "chainer"]


def over_time(cell, x, states):
    """What a cell of ours makes of x (T, N, I): its outputs, and its final states by their letters."""
    layer = pack.layer_of([cell])
    starts = {f"{name}_0": tg.stack([tg.tensor(states[name])]) for name in cell.states}
    output, *finals = leaves(layer(x, **starts))
    return output, {name: final[0] for name, final in zip(cell.states, finals)}


def settings_of(case):
    return {"activation": case.activation} if case.cell == "RNN" else {}


def imported(name):
    case, (arrays, x, states) = CASES[name], given(name)
    cell = from_arrays(case.library, case.cell, arrays, reset=case.reset, **settings_of(case))
    return over_time(cell, x, dict(zip(row_of(case).states, states)))


def held_against_golden(name):
    output, finals = imported(name)
    found = [output, *[finals[state] for state in row_of(CASES[name]).states]]
    for mine, theirs in zip(found, GOLDEN[name], strict=True):
        np.testing.assert_allclose(mine.ravel(), theirs, rtol=0, atol=CASES[name].tolerance)


# -- from a library ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_arrays_of_a_library_compute_here_what_they_compute_there(name):
    held_against_golden(name)


def test_every_row_of_the_table_is_put_to_the_proof():
    assert GOLDEN.keys() == CASES.keys()
    proved = [(row_of(case), case.activation) for case in CASES.values()]
    assert {(id(row), activation) for row, activation in proved} == {
        (id(row), activation) for row in CONVENTIONS for activation in row.activations
    }


def with_row(monkeypatch, name, change):
    """The table with one row changed."""
    row = row_of(CASES[name])
    monkeypatch.setattr(pack, "CONVENTIONS", tuple(change(each) if each is row else each for each in CONVENTIONS))


def swapped(row):
    """The row with its first two gates in each other's place."""
    one, other = row.order[:2]
    places = str.maketrans({one: other, other: one})
    return replace(row, slots=tuple(slot._replace(gates=slot.gates.translate(places)) for slot in row.slots))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].cell != "RNN"])
def test_a_wrong_order_of_gates_is_caught(name, monkeypatch):
    with_row(monkeypatch, name, swapped)
    with pytest.raises(AssertionError):
        held_against_golden(name)


@pytest.mark.parametrize("name", CASES)
def test_a_transposed_matrix_is_caught(name, monkeypatch):
    mutated(monkeypatch, pack, *READINGS["the recurrent matrix transposed"])
    with pytest.raises(AssertionError):
        held_against_golden(name)


@pytest.mark.parametrize("name", CASES)
def test_an_ignored_initial_state_is_caught(name, monkeypatch):
    mutated(monkeypatch, *NO_START)
    with pytest.raises(AssertionError):
        held_against_golden(name)


@pytest.mark.parametrize("name", [name for name in CASES if row_of(CASES[name]).recurrent_bias])
def test_an_ignored_recurrent_bias_is_caught(name, monkeypatch):
    inside = row_of(CASES[name]).reset == "after"
    mutated(monkeypatch, pack, *READINGS[f"the {'bias inside of the reset' if inside else 'recurrent bias'} ignored"])
    with pytest.raises(AssertionError):
        held_against_golden(name)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].cell == "GRU"])
@pytest.mark.parametrize("field, values", [("reset", ("before", "after")), ("update", ("new", "old"))])
def test_a_wrong_formula_is_caught(name, field, values, monkeypatch):
    if field == "reset" and row_of(CASES[name]).key in ("keras", "onnx"):
        return  # the row itself is looked up by it
    with_row(monkeypatch, name, lambda row: replace(row, **{field: values[getattr(row, field) == values[0]]}))
    with pytest.raises(AssertionError):
        held_against_golden(name)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].cell == "LSTM"])
def test_a_wrong_order_of_states_is_caught(name, monkeypatch):
    with_row(monkeypatch, name, lambda row: replace(row, states=row.states[::-1]))
    with pytest.raises(AssertionError):
        held_against_golden(name)


def test_a_forgotten_offset_is_caught(monkeypatch):
    with_row(monkeypatch, "haiku LSTM", lambda row: replace(row, offsets={}))
    with pytest.raises(AssertionError):
        held_against_golden("haiku LSTM")


# -- to a library ------------------------------------------------------------------------------------------------


def filled_cell(kind, **settings):
    return with_numbers(kind(I, H, dtype=np.float64, **settings))


def cells_for(row):
    """Cells of ours that a row can hold, in every convention that it can make up for."""
    if row.cell is nn.RNNCell:
        return [filled_cell(nn.RNNCell, activation=activation) for activation in row.activations]
    if row.cell is nn.LSTMCell:
        return [filled_cell(nn.LSTMCell)]
    cells = [filled_cell(nn.GRUCell, reset=row.reset, update=update) for update in ("new", "old")]
    if row.recurrent_bias and row.reset == "after":
        cells += [filled_cell(nn.GRUCell, reset="after", update=update, recurrent_bias=True)
                  for update in ("new", "old")]  # fmt: skip
    return [*cells, filled_cell(nn.MinimalGRUCell), filled_cell(nn.GRUCell, reset=row.reset, bias=False)]


def exported(cell, row):
    """The arrays of a cell, and what it computes itself."""
    x, states = filled("x", T, N, I), {name: filled(f"{name}_0", N, H) for name in cell.states}
    return pack.packed(cell, row, report=Report()), x, states, over_time(cell, x, states)


def there_and_back(row):
    for cell in cells_for(row):
        arrays, x, states, (output, finals) = exported(cell, row)
        settings = {"activation": cell.activation} if row.cell is nn.RNNCell else {}
        again, ends = over_time(pack.unpacked(row, arrays, report=Report(), **settings), x, states)
        np.testing.assert_allclose(again, output, rtol=0, atol=1e-14)
        for name, final in finals.items():
            np.testing.assert_allclose(ends[name], final, rtol=0, atol=1e-14)


ROWS = {f"{row.key} {row.cell.__name__} {row.reset or ''}": row for row in CONVENTIONS}


@pytest.mark.parametrize("name", ROWS)
def test_there_and_back_is_the_same_function(name):
    there_and_back(ROWS[name])


@pytest.mark.parametrize("name", LIVE)
def test_a_cell_of_ours_computes_the_same_in_the_library(name, monkeypatch):
    case, row = CASES[name], row_of(CASES[name])
    if find_spec(case.package) is None:
        pytest.skip(f"{case.package} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    for cell in cells_for(row):
        if getattr(cell, "activation", case.activation) != case.activation or cell.b is None:
            continue
        arrays, x, states, (output, finals) = exported(cell, row)
        with warnings.catch_warnings(action="ignore"):  # those of the libraries are their own business
            theirs, ends = run(name, arrays, x, [states[state] for state in row.states])
        np.testing.assert_allclose(theirs, output, rtol=0, atol=case.tolerance)
        for state, end in zip(row.states, ends):
            np.testing.assert_allclose(end, finals[state], rtol=0, atol=case.tolerance)


WRONG_WAYS_OUT = {
    "z not negated": ("torch GRUCell after", "_turned", '-each["z"]', 'each["z"]'),
    "bias of z not negated": ("flax.nnx GRUCell after", "_turned", "(W, U, b)", "(W, U)"),
    "reset gate not open": ("haiku GRUCell before", "_turned", "np.full_like(zeros, OPEN)", "zeros"),
    "offset forgotten": ("haiku LSTMCell ", "_turned", "- np.asarray(offset", "- 0 * np.asarray(offset"),
    "recurrent bias left out": ("torch GRUCell after", "_turned", '"c": c}', '"c": {}}'),
    "matrix not transposed": ("torch LSTMCell ", "_joined", "block.T", "block.reshape(block.T.shape)"),
    "gates not interleaved": ("chainer LSTMCell ", "_joined", 'slot.form == "rows"', "True"),
    "letters in the wrong order": ("haiku LSTMCell ", "arrays_of", "in slot.holds]", "in slot.holds[::-1]]"),
}


@pytest.mark.parametrize("wrong", WRONG_WAYS_OUT)
def test_a_wrong_way_out_is_caught(wrong, monkeypatch):
    name, function, old, new = WRONG_WAYS_OUT[wrong]
    there_and_back(ROWS[name])
    mutated(monkeypatch, pack, function, old, new)
    with pytest.raises((AssertionError, errors.TinygradError)):
        there_and_back(ROWS[name])


# -- what is refused, and what is said ---------------------------------------------------------------------------


def test_what_no_weights_can_do_is_refused_with_the_reason():
    with pytest.raises(
        errors.ConversionError, match=r"train a GRU with\s+reset='before', or convert this one to torch"
    ):
        to_arrays(filled_cell(nn.GRUCell, reset="after"), "haiku")
    with pytest.raises(errors.ConversionError, match=r"flax\.nnx\.GRUCell has no bias inside of the reset"):
        to_arrays(filled_cell(nn.GRUCell, reset="after", recurrent_bias=True), "flax.nnx")
    with pytest.raises(errors.ConversionError, match=r"haiku\.VanillaRNN computes relu, not tanh"):
        to_arrays(filled_cell(nn.RNNCell), "haiku")
    with pytest.raises(errors.ConversionError, match="VariedGRUCell is a cell of its own"):
        to_arrays(filled_cell(VariedGRUCell), "torch")


def test_arrays_that_do_not_fit_are_refused_by_their_names():
    arrays = to_arrays(filled_cell(nn.LSTMCell), "torch")
    wrong = {
        "weight_hh is missing; other is unexpected": {**arrays, "other": arrays["weight_hh"]} | {"weight_hh": None},
        r"bias_ih has shape \(3,\); beside I = 2 inputs and H = 5 units, \(20,\) would fit": {
            **arrays, "bias_ih": np.ones(3)},
        "which is not made of 4 blocks, one for each of i, f, g, o": {**arrays, "weight_hh": np.ones((18, 5))},
        "bias_hh float32": {**arrays, "bias_hh": arrays["bias_hh"].astype(np.float32)},
    }  # fmt: skip
    for message, each in wrong.items():
        with pytest.raises(errors.TinygradError, match=message):
            from_arrays("torch", "LSTM", {name: array for name, array in each.items() if array is not None})
    with pytest.raises(errors.OptionError, match="there is no library 'theano' in the table; choose from torch, cudnn"):
        from_arrays("theano", "LSTM", arrays)
    with pytest.raises(errors.OptionError, match="cell is 'TRU'"):
        from_arrays("torch", "TRU", arrays)
    with pytest.raises(errors.OptionError, match=r"update='new' is not what torch\.nn\.GRU, GRUCell"):
        from_arrays("torch", "GRU", to_arrays(filled_cell(nn.GRUCell, reset="after"), "torch"), update="new")


def test_a_report_says_what_went_where():
    report = Report()
    cell = filled_cell(nn.MinimalGRUCell)
    pack.packed(cell, pack.convention("keras", nn.GRUCell, "after"), owner="ours.", report=report, to="theirs.")
    row = pack.convention("chainer", nn.LSTMCell)
    pack.unpacked(row, pack.packed(filled_cell(nn.LSTMCell), row, report=Report()), report=report)
    row = pack.convention("haiku", nn.LSTMCell)
    pack.unpacked(row, pack.packed(filled_cell(nn.LSTMCell), row, report=Report()), report=report)
    row = pack.convention("torch", nn.GRUCell)
    there = filled_cell(nn.GRUCell, reset="after", recurrent_bias=True)
    pack.unpacked(row, pack.packed(there, row, report=report), report=report)
    report.note("And this.")
    report.note("And this.")
    assert [re.sub(" {2,}", " | ", line) for line in str(report).splitlines()] == [
        "from | shape | to | shape | how",
        "ours.W | 2 x 10 | theirs.kernel | 2 x 15 | gates z r n, r held open, z negated",
        "ours.U | 5 x 10 | theirs.recurrent_kernel | 5 x 15 | gates z r n, r held open, z negated",
        "ours.b | 10 | theirs.bias | 2 x 15 | gates z r n, the second zeros, r held open, z negated",
        "upward/W | 20 x 2 | W | 2 x 20 | gates g i f o, interleaved, transposed",
        "lateral/W | 20 x 5 | U | 5 x 20 | gates g i f o, interleaved, transposed",
        "upward/b | 20 | b | 20 | gates g i f o, interleaved",
        "linear/w | 7 x 20 | W and U | 2 x 20 | gates i g f o",
        "linear/b | 20 | b | 20 | gates i g f o, +1 for f",
        "W | 2 x 15 | weight_ih | 15 x 2 | gates r z n, transposed, z negated",
        "U | 5 x 15 | weight_hh | 15 x 5 | gates r z n, transposed, z negated",
        "b | 15 | bias_ih | 15 | gates r z n, z negated",
        "b and c | 15 | bias_hh | 15 | gates r z n, zeros but for n",
        "weight_ih | 15 x 2 | W | 2 x 15 | gates r z n, transposed",
        "weight_hh | 15 x 5 | U | 5 x 15 | gates r z n, transposed",
        "bias_ih | 15 | b | 15 | gates r z n",
        "bias_hh | 15 | b and c | 15 | gates r z n, added to b",
        "And this.",
    ]
    assert len({line.index("gates") for line in str(report).splitlines()[1:-1]}) == 1  # columns


def test_an_update_gate_that_has_no_other_direction_is_refused_by_name():
    row = pack.convention("keras", nn.GRUCell, "after")
    for f, turns in {"Sigmoid": True, "HardSigmoid": True, "Relu": False}.items():
        cell = VariedGRUCell(I, H, reset="after", activations=(activation(f), TANH))
        if turns:
            pack.packed(cell, row, report=Report(), varied=True)
            continue
        with pytest.raises(errors.ConversionError, match=r"name='Relu'.*cannot be turned"):
            pack.packed(cell, row, report=Report(), varied=True)


@pytest.mark.parametrize("library", ["torch", "keras"])
def test_a_recurrent_matrix_tells_the_cell(library):
    for G, cell in {1: nn.RNNCell, 3: nn.GRUCell, 4: nn.LSTMCell, 2: None, 5: None}.items():
        shape = (G * H, H) if library == "torch" else (H, G * H)
        assert pack.cell_by_matrix(library, shape) is cell
    assert all(pack.cell_by_matrix(library, shape) is None for shape in ((), (H,), (0, 0), (H, H, H)))


def test_a_report_names_what_is_frozen_where_that_is_lost():
    report, layer = Report(), nn.GRU(I, H, 2)
    report.note_frozen(layer, "ONNX")
    assert not report.notes
    layer.cells[1].U.requires_grad = False
    report.note_frozen(layer, "ONNX")
    assert report.notes == ["frozen here, which ONNX does not hold: cells.1.U"]


def test_options_that_a_vector_of_cudnn_settles_are_no_options():
    vector = to_cudnn(nn.GRU(2, 3, reset="after", recurrent_bias=True))
    for wrong in ({"bias": False}, {"dtype": "float64"}, {"foo": 1}, {"activation": "relu"}):
        with pytest.raises(errors.OptionError, match="no option"):
            from_cudnn(vector, "GRU", 2, 3, **wrong)
    with pytest.raises(errors.ShapeError, match="less than one number"):
        from_cudnn(vector, "GRU", 2, 3, 10**9)
    with pytest.raises(errors.OptionError, match="arrays by their names"):
        from_arrays("haiku", "GRU", [1])
