"""Values and gradients of cells and layers against numbers computed elsewhere, and wrong cells that these catch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden.loops import H, I, N, T, filled
from kinds import KINDS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.nn import equations, folding, fused, gates, layouts, walk

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recurrent.json").read_text(encoding="utf-8"))
LENGTHS = [4, 2, 3]
WAYS = {"fused": {}, "in segments": {"checkpoint": 3}, "by steps": {"fused": False}}


def layer_of(name, **options):
    """The layer that a golden case speaks of, with the numbers of the formula in its weights."""
    kind, settings = KINDS[name.split(",")[0]]
    settings = dict(settings, num_layers=2 if "2 layers" in name else 1, bidirectional="both directions" in name)
    if ", c" in name:
        settings["recurrent_bias"] = True
    layer = kind(I, H, dtype=np.float64, **settings, **options)
    for k, cell in enumerate(layer.cells):
        for own, parameter in cell.named_parameters():
            parameter.assign_(filled(f"{own}.{k}" if k else own, *parameter.shape))
    return layer


def inputs_of(layer):
    names = ("h_0", "c_0")[: len(layer.cell_type.states)]
    found = {"x": filled("x", T, N, I)} | {name: filled(name, len(layer.cells), N, H) for name in names}
    return {name: tg.tensor(array, requires_grad=True) for name, array in found.items()}


def weighed(named):
    """One number that depends on every element of every result."""
    return sum((value * tg.tensor(filled(name, *value.shape))).sum() for name, value in named.items())


def agree(found, wanted):
    assert found is not None
    np.testing.assert_allclose(found.numpy().ravel(), wanted, rtol=1e-10, atol=1e-10)


def held_against_golden(name, **options):
    layer, wanted = layer_of(name, **options), GOLDEN[name]
    inputs = inputs_of(layer)
    output, state = layer(**inputs, lengths=LENGTHS if "lengths" in name else None)
    results = dict(zip(("h_n", "c_n"), state if isinstance(state, tuple) else (state,)))
    agree(output, wanted["output"])
    for key, value in results.items():
        agree(value, wanted[key])
    weighed({"loss": output} | {f"loss {key}": value for key, value in results.items()}).backward()
    gradients = {key: tensor.grad for key, tensor in inputs.items()}
    for k, cell in enumerate(layer.cells):
        gradients |= {f"{own}.{k}" if k else own: parameter.grad for own, parameter in cell.named_parameters()}
    assert gradients.keys() == wanted["gradients"].keys()
    for key, gradient in gradients.items():
        agree(gradient, wanted["gradients"][key])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GOLDEN)
def test_layers_have_the_values_and_gradients_computed_elsewhere(name, way, backend):
    held_against_golden(name, **WAYS[way])


@pytest.mark.parametrize("name", [name for name in GOLDEN if "layers" not in name and "directions" not in name
                                  and "lengths" not in name])  # fmt: skip
def test_cells_called_step_by_step_give_the_same(name, backend):
    layer = layer_of(name)
    inputs, cell, wanted = inputs_of(layer), layer.cells[0], GOLDEN[name]
    state = tuple(start[0] for key, start in inputs.items() if key != "x")
    outputs = []
    for x in inputs["x"]:
        new = cell(x, state if len(state) == 2 else state[0])
        state = new if isinstance(new, tuple) else (new,)
        outputs.append(state[0])
    output = tg.stack(outputs)
    agree(output, wanted["output"])
    finals = dict(zip(("loss h_n", "loss c_n"), [tg.stack([s]) for s in state]))
    weighed({"loss": output} | finals).backward()
    for key, tensor in {**inputs, **dict(cell.named_parameters())}.items():
        agree(tensor.grad, wanted["gradients"][key])


def without(function, *positions):
    """The equation with some of its arguments out of its sight."""
    return lambda *args, **o: function(*[None if i in positions else a for i, a in enumerate(args)], **o)


def by_gate(change):
    """The GRU with what `change` makes of W, U and b, each by gate."""
    return lambda x, h, W, U, b, *rest, **o: gru(x, h, change(W), change(U), change(b), *rest, **o)


gru, lstm = equations.gru, equations.lstm
PLAIN, AFTER, BOTH = "gru before new", "gru after old, c", "gru after old, c, 2 layers, both directions, lengths"
ALL = "lstm, 2 layers, both directions, lengths"
WRONG_EQUATIONS = {
    "z and r swapped": (PLAIN, "gru", by_gate(lambda g: g._replace(z=g.r, r=g.z))),
    "r and n swapped": (PLAIN, "gru", by_gate(lambda g: g._replace(r=g.n, n=g.r))),
    "reset after instead of before": (PLAIN, "gru", lambda *a, **o: gru(*a, **o | {"reset": "after"})),
    "reset before instead of after": (AFTER, "gru", lambda *a, **o: gru(*a, **o | {"reset": "before"})),
    "update to the old": (PLAIN, "gru", lambda *a, **o: gru(*a, **o | {"update": "old"})),
    "update to the new": (AFTER, "gru", lambda *a, **o: gru(*a, **o | {"update": "new"})),
    "U transposed": (
        PLAIN, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, type(U)(*[u.T for u in U]), b, c, **o)),
    "recurrent bias ignored": (AFTER, "gru", without(gru, 5)),
    "recurrent bias outside of the reset": (
        AFTER, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, U, b._replace(n=b.n + c), None, **o)),
    "bias ignored": (PLAIN, "gru", lambda x, h, W, U, b, c, **o: gru(x, h, W, U, type(b)(0, 0, 0), c, **o)),
    "i and f swapped": ("lstm", "lstm", lambda x, h, c, *p: lstm(x, h, c, *[g._replace(i=g.f, f=g.i) for g in p])),
    "cell state not squashed": ("lstm", "lstm", lambda *p: lstm(*p, squash=lambda c: c)),
    "h and c swapped": ("lstm", "lstm", lambda x, h, c, *p: lstm(x, c, h, *p)),
}  # fmt: skip
WRONG_FOLDS = {
    "initial state ignored": (
        PLAIN, lambda fold: lambda cell, x, state, *rest, **o: fold(cell, x, [0 * s for s in state], *rest, **o)),
    "states cut off from the gradient": (
        PLAIN, lambda fold: lambda cell, x, state, *rest, **o: fold(cell, x, [s.detach() for s in state], *rest, **o)),
    "lengths ignored": (BOTH, lambda fold: lambda cell, x, state, valid, **o: fold(cell, x, state, None, **o)),
    "no walk in reverse": (BOTH, lambda fold: lambda *a, reverse, **o: fold(*a, reverse=False, **o)),
    "outputs of the reverse direction in walking order": (
        ALL,
        lambda fold: lambda *a, reverse, **o: (
            lambda y, s: (tg.flip(y, 0) if reverse else y, s))(*fold(*a, reverse=reverse, **o))),
}  # fmt: skip
Walk, Sums, Blocks, Gathered = walk.Walk, walk.Sums, layouts.Blocks, layouts.GatheredBlocks
RNN, GRU, After, LSTM = gates.RNNGates, gates.GRUGates, gates.GRUAfterGates, gates.LSTMGates
MINIMAL = "minimal"
WRONG_ARITHMETIC = {
    # forward
    "r and z swapped": (PLAIN, GRU, "forward", "(n, z, r) = a[1:], a", "(n, r, z) = a[1:], a"),
    "r and z swapped, after": (AFTER, After, "forward", "(n, z, r), (gated,)", "(n, r, z), (gated,)"),
    "h not reset": (PLAIN, GRU, "forward", "multiply(r, h, reset)", "reset[...] = h"),
    "product not reset": (AFTER, After, "forward", "multiply(r, q, gated)", "gated[...] = q"),
    "recurrent bias ignored": (AFTER, After, "forward", "inner is not None", "False"),
    "state mixed the other way round": (PLAIN, gates, "mixed", 'update == "new"', 'update == "old"'),
    "plain unit without the state": ("rnn tanh", RNN, "forward", "add(a, p, p)", "p[...] = a"),
    "relu for tanh": ("rnn tanh", RNN, "forward", 'self.activation == "tanh"', "False"),
    "i and f swapped": ("lstm", LSTM, "forward", "(o, i, f, g), oif", "(o, f, i, g), oif"),
    "cell state not squashed": ("lstm", LSTM, "forward", "tanh(new_c, part)", "part[...] = new_c"),
    "logistic function of -a": (MINIMAL, gates, "sigmoid", "exp(a, a)", "exp(-a, a)"),
    "bias ignored": (PLAIN, Walk, "runner", "xp.add(a, b, a)", "pass"),
    "gates of W out of order": (PLAIN, Blocks, "stacked", "runs(order, packed)", "runs(order, order)"),
    "lengths ignored": (BOTH, Walk, "outsides", "self.shortest - first", "last - first"),
    "states go on past the end": (BOTH, gates, "stay", "xp.where(outside, old, fresh)", "fresh"),
    "steps not in reverse": (ALL, Walk, "runner", "-1 if self.reverse else 1", "1"),
    "segments not in reverse": (ALL, Walk, "pieces", "if self.reverse else ends", "if False else ends"),
    "each segment starts anew": (PLAIN, Walk, "forward", "Segment(first, last, start)",
        "Segment(first, last, tuple(self.states)); history[first] = self.states[0]"),
    "last cell state not that of the last step": ("lstm", Walk, "forward", "segment.cells[end - first]",
        "segment.cells[0]"),
    # slopes
    "no slope of tanh": ("rnn tanh", RNN, "slopes", "xp.subtract(1, d[0], d[0])", "d[0][...] = 1"),
    "relu passes everything": ("rnn relu", RNN, "slopes", "after[0] > 0", "after[0] >= 0"),
    "no 1 - n^2": (MINIMAL, gates, "mixed_slopes", "xp.subtract(1, dn, dn)", "dn[...] = 1"),
    "no 1 - z": (MINIMAL, gates, "mixed_slopes", "xp.multiply(dz, keep, dz)", "pass"),
    "dz of the other sign": (PLAIN, gates, "mixed_slopes", '(n, h) if update == "new" else (h, n)', "h, n"),
    "dn by 1 - z in place of z": (PLAIN, gates, "mixed_slopes", 'z if update == "new" else keep', "keep"),
    "old state kept by 1 - z in place of z": (AFTER, gates, "mixed_slopes", "keep[...] = z", "pass"),
    "no 1 - r": (PLAIN, GRU, "slopes", "xp.subtract(1, r, dr)", "dr[...] = 1"),
    "no r": (PLAIN, GRU, "slopes", "xp.multiply(dr, r, dr)", "pass"),
    "dr without h": (PLAIN, GRU, "slopes", "xp.multiply(dr, before[0], dr)", "pass"),
    "no 1 - r, after": (AFTER, After, "slopes", "xp.subtract(1, r, dr)", "dr[...] = 1"),
    "dr of h in place of the product": (AFTER, After, "slopes", "xp.multiply(dr, e[0], dr)",
        "xp.multiply(dr, before[0], dr)"),
    "dr without dn": (AFTER, After, "slopes", "xp.multiply(dr, dn, dr)", "pass"),
    "dq not reset": (AFTER, After, "slopes", "xp.multiply(dn, r, dq)", "dq[...] = dn"),
    "no 1 - i": ("lstm", LSTM, "slopes", "one_less(1, i, di)", "di[...] = 1"),
    "df of the new cell state": ("lstm", LSTM, "slopes", "times(df, before[1], df)", "times(df, after[1], df)"),
    "do of c in place of tanh(c)": ("lstm", LSTM, "slopes", "times(do, df, do)", "times(do, after[1], do)"),
    "no slope of the tanh on the way out": ("lstm", LSTM, "slopes", "one_less(1, keep, keep)", "keep[...] = 1"),
    "di and dg swapped": ("lstm", LSTM, "slopes", "(do, di, df, dg) = a, d", "(do, dg, df, di) = a, d"),
    # steps back
    "U not transposed": (PLAIN, Walk, "backward", "U = layout.turned(", "U = layout.stacked("),
    "dh not carried by 1 - z": (PLAIN, GRU, "backward", "carried(d[1:], dh, keep)", "carried(d[1:], dh, None)"),
    "dh not carried by 1 - z, one gate": (MINIMAL, gates.Gates, "backward", "keep if keeps else None", "None"),
    "dh carried where there is no gate": ("rnn tanh", gates.Gates, "backward", "keep if keeps else None", "1"),
    "no way back through r * h": (PLAIN, GRU, "backward", "add(dh, reset[0], dh)", "pass"),
    "r * h taken for h on the way back": (PLAIN, GRU, "backward", "multiply(a[2], reset[0], reset[0])", "pass"),
    "dc not carried by f": ("lstm", LSTM, "backward", "multiply(dc, a[2], dc)", "pass"),
    "dc without what comes through h": ("lstm", LSTM, "backward", "add(dc, keep, dc)", "pass"),
    "outputs without a gradient": (PLAIN, Walk, "incoming", "return g[rows]", "return 0 * g[rows]"),
    "gradient of another step": (PLAIN, Walk, "incoming", "return g[rows]", "return g[: self.T]"),
    "final cell state without a gradient": ("lstm", Walk, "incoming", "list(g[T + 1 :])", "list(0 * g[T + 1 :])"),
    "gradients past the end go on": (BOTH, gates.Over, "take", "grad[...] = self.xp.where(outside, 0, grad)", "pass"),
    "gradients past the end are lost": (BOTH, gates.Over, "give_back", "self.xp.add(grad, self.aside, grad)", "pass"),
    "cell states' gradients past the end are lost": (ALL, LSTM, "backward", "over_c.give_back(dc)", "pass"),
    "way back not in reverse": (ALL, Walk, "backward", "1 if self.reverse else -1", "-1"),
    "segments not backwards": (PLAIN, Walk, "backward", "in reversed(segments)", "in segments"),
    "state after in place of before": (PLAIN, Walk, "backward", "for k in (self.before, self.after))",
        "for k in (self.after, self.before))"),
    # sums
    "r * h taken for h beside U_n": (PLAIN, GRU, "left_of_U", 'a[blocks.index("r")] * h', "h"),
    "gradient of W of a piece too many": (PLAIN, Sums, "add", "walk.x[first:last]", "walk.x[: last - first]"),
    "no gradient of the recurrent bias": (AFTER, Sums, "add", 'rooms["c"].add(flat[G:])',
        'rooms["c"].add(0 * flat[G:])'),
    "gradient of the recurrent bias not reset": (AFTER, Sums, "add", 'rooms["c"].add(flat[G:])',
        'rooms["c"].add(flat[:1])'),
    "U's gradient from what leads to W": (AFTER, Sums, "add", "flat[part]", "flat[:G]"),
    "pieces not added up": (PLAIN, Gathered, "add", "self.xp.add(total, piece, total)", "total[...] = piece"),
    "gradients of weights out of order": (
        PLAIN, Gathered, "found", "runs(self.order, self.packed)", "runs(self.order, self.order)"),
    "x without the last gate": (PLAIN, Sums, "add", "self.to_input(flat[:G],",
        "flat[G - 1] *= 0; self.to_input(flat[:G],"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_EQUATIONS)
def test_a_wrong_cell_is_caught(wrong, monkeypatch):
    name, function, replacement = WRONG_EQUATIONS[wrong]
    held_against_golden(name, fused=False)
    monkeypatch.setattr(equations, function, replacement)
    with pytest.raises(AssertionError):
        held_against_golden(name, fused=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", WRONG_FOLDS)
def test_a_wrong_layer_is_caught(wrong, way, monkeypatch):
    name, change = WRONG_FOLDS[wrong]
    held_against_golden(name, **WAYS[way])
    module = folding if way == "by steps" else fused
    monkeypatch.setattr(module, "fold", change(module.fold))
    with pytest.raises(AssertionError):
        held_against_golden(name, **WAYS[way])


@pytest.mark.parametrize("wrong", WRONG_ARITHMETIC)
def test_wrong_arithmetic_of_a_fused_layer_is_caught(wrong, monkeypatch):
    name, owner, function, old, new = WRONG_ARITHMETIC[wrong]
    held_against_golden(name, checkpoint=3)
    mutated(monkeypatch, owner, function, old, new)
    with pytest.raises(AssertionError):
        held_against_golden(name, checkpoint=3)
