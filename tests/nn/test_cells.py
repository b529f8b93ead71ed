"""Cells: packing, names, weights from elsewhere, the other update direction, comparisons, what they refuse."""

from __future__ import annotations

import copy
from collections import namedtuple

import numpy as np
import pytest
from golden.loops import H, I, N, T, filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import CellError, DtypeError, OptionError, ShapeError

MAKERS = {
    "RNN": nn.RNNCell,
    "MinimalGRU": nn.MinimalGRUCell,
    "GRU": nn.GRUCell,
    "GRU after, c": lambda *sizes, **o: nn.GRUCell(*sizes, reset="after", recurrent_bias=True, **o),
    "LSTM": nn.LSTMCell,
}
BLOCKS = {"RNN": 1, "MinimalGRU": 2, "GRU": 3, "GRU after, c": 3, "LSTM": 4}
RNG = np.random.default_rng


def started(cell):
    return tuple(tg.tensor(filled(name, N, H), dtype=cell.W.dtype) for name in cell.states)


def called(cell, x, state=None):
    """The new states as a tuple, from the states `started`, unless others are given."""
    state = state or started(cell)
    return as_tuple(cell(x, state if len(state) > 1 else state[0]))


def as_tuple(new):
    return new if isinstance(new, tuple) else (new,)


@pytest.fixture
def x(backend):
    return tg.tensor(filled("x", N, I))


@pytest.mark.parametrize("kind", MAKERS)
def test_shapes_and_dtypes(kind, backend):
    for dtype in (np.float32, np.float64):
        cell = MAKERS[kind](I, H, dtype=dtype)
        assert cell.W.shape == (I, BLOCKS[kind] * H)
        assert cell.U.shape == (H, BLOCKS[kind] * H)
        assert cell.b.shape == (BLOCKS[kind] * H,)
        new = called(cell, tg.tensor(filled("x", N, I), dtype=dtype))
        assert [s.shape for s in new] == [(N, H)] * len(cell.states)
        assert {s.dtype for s in new} == {np.dtype(dtype)}
        new[0].sum().backward()
        assert {p.grad.dtype for p in cell.parameters()} == {np.dtype(dtype)}
        assert all(np.abs(p.grad.numpy()).max() > 0 for p in cell.parameters())


def test_blocks_are_packed_as_promised(backend):
    """The block of a gate moves that gate and no other: found out by pushing its bias to an end."""
    for make, gates in ((nn.MinimalGRUCell, "zn"), (nn.GRUCell, "zrn"), (nn.LSTMCell, "ifgo")):
        for place, gate in enumerate(gates):
            cell = make(I, H, dtype=np.float64)
            plain = cell.equation(tg.tensor(filled("x", N, I)), started(cell), cell.weights())
            biases = cell.b.numpy().copy()
            biases[place * H : (place + 1) * H] = 900.0
            cell.b.assign_(biases)
            pushed = cell.equation(tg.tensor(filled("x", N, I)), started(cell), cell.weights())
            assert (getattr(pushed, gate).numpy() == 1).all()
            others = [g for g in gates if g != gate and not (gate == "r" and g == "n")]
            for other in others:
                np.testing.assert_array_equal(getattr(pushed, other).numpy(), getattr(plain, other).numpy())


def test_gates_carry_their_letters_and_scopes(x):
    class Model(nn.Module):
        def __init__(self):
            self.memory = nn.GRUCell(I, H, dtype=np.float64)

        def forward(self, x):
            h = None
            for t in range(3):
                with tg.scope(step=t):
                    h = self.memory(x, h)
            return h

    tape = tg.tape(Model()(x))
    named = {(t.name, t.op.name, t.scope.path) for t in tape if t.op and t.op.name != "index" and t.name}
    for t in range(3):
        where = f"model[t={t}].memory"
        assert named >= {("z", "sigmoid", where), ("r", "sigmoid", where), ("n", "tanh", where), ("h", "add", where)}
    assert {t.name for t in tape if not t.op and t.requires_grad} == {"memory.W", "memory.U", "memory.b"}
    assert {t.name for t in tape if t.op and t.op.name == "index"} == {f"{p}_{g}" for p in "WUb" for g in "zrn"}


def test_the_initial_state_is_zero_when_left_out(x):
    for make in MAKERS.values():
        cell = make(I, H, dtype=np.float64)
        zeros = tuple(tg.zeros((N, H), dtype=np.float64) for _ in cell.states)
        for one, other in zip(as_tuple(cell(x)), called(cell, x, zeros)):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_leading_axes_are_free(backend):
    cell = nn.GRUCell(I, H, dtype=np.float64)
    x, h = filled("x", T, N, I), filled("h", T, N, H)
    together = cell(tg.tensor(x), tg.tensor(h)).numpy()
    one = cell(tg.tensor(x[2, 1]), tg.tensor(h[2, 1]))
    assert one.shape == (H,)
    np.testing.assert_allclose(one.numpy(), together[2, 1], atol=1e-15)


def test_without_biases(x):
    for make in MAKERS.values():
        cell, full = make(I, H, bias=False, dtype=np.float64, rng=RNG(5)), make(I, H, dtype=np.float64)
        assert cell.b is None
        full.load_state_dict(cell.state_dict() | {"b": np.zeros(full.b.shape)})
        for one, other in zip(called(cell, x), called(full, x)):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_forget_bias():
    assert (nn.LSTMCell(I, H).b.numpy()[H : 2 * H] == 1).all()
    assert (nn.LSTMCell(I, H, forget_bias=2.5).b.numpy()[H : 2 * H] == 2.5).all()
    drawn = nn.LSTMCell(I, H, forget_bias=None).b.numpy()
    assert abs(drawn).max() <= 1 / np.sqrt(H) and len(set(drawn)) == 4 * H
    others = np.delete(nn.LSTMCell(I, H).b.numpy(), slice(H, 2 * H))
    assert abs(others).max() <= 1 / np.sqrt(H)


# -- concatenated and split weights (W [x, h], W [h, x]) -----------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("order", ["xh", "hx"])
def test_concatenated_weights_there_and_back(kind, order, columns, x):
    cell = MAKERS[kind](I, H, dtype=np.float64)
    given = cell.to_concatenated(order, columns=columns)
    assert {m.shape for m in given["weights"].values()} == {(H, I + H) if columns else (I + H, H)}
    settings = {"reset": "after"} if "after" in kind else {}
    again = type(cell).from_concatenated(order=order, columns=columns, **given, **settings)
    for name, value in cell.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())
    for one, other in zip(called(cell, x), called(again, x)):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("order", ["xh", "hx"])
def test_concatenated_weights_mean_what_the_decks_write(order):
    """u = sigmoid([x, h] W_u + b_u), relevance likewise, candidate from [x, r * h]; hidden block first: [h, x]."""

    def joined(x, h):
        return np.concatenate([x, h] if order == "xh" else [h, x], axis=1)

    W = {gate: filled(f"{order} {gate}", I + H, H) for gate in "zrn"}
    b = {gate: filled(f"b {gate}", H) for gate in "zrn"}
    x, h = filled("x", N, I), filled("h", N, H)
    u, r = (1 / (1 + np.exp(-(joined(x, h) @ W[gate] + b[gate]))) for gate in "zr")
    candidate = np.tanh(joined(x, r * h) @ W["n"] + b["n"])
    wanted = u * candidate + (1 - u) * h
    cell = nn.GRUCell.from_concatenated(W, order, b=b)
    np.testing.assert_allclose(cell(tg.tensor(x), tg.tensor(h)).numpy(), wanted, rtol=0, atol=1e-14)
    other = nn.GRUCell.from_concatenated({g: np.roll(m, 1, 0) for g, m in W.items()}, order, b=b)
    assert abs(other(tg.tensor(x), tg.tensor(h)).numpy() - wanted).max() > 1e-2


def test_weights_by_gate_there_and_back():
    cell = nn.GRUCell(I, H, reset="after", recurrent_bias=True, bias=False)
    parts = cell.to_gates()
    assert parts["W"]["r"].shape == (I, H) and parts["c"].shape == (H,) and "b" not in parts
    np.testing.assert_array_equal(parts["U"]["r"], cell.U.numpy()[:, H : 2 * H])
    again = nn.GRUCell.from_gates(**parts, reset="after")
    assert again.W.dtype == np.float32
    for name, value in cell.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())


def test_weights_that_do_not_fit_are_named():
    parts = nn.GRUCell(I, H).to_gates()
    with pytest.raises(OptionError, match=r"W has the gates z, r; GRUCell has z, r, n"):
        nn.GRUCell.from_gates(W={g: parts["W"][g] for g in "zr"}, U=parts["U"], b=parts["b"])
    with pytest.raises(ShapeError, match=r"U has shape \(5, 4\) per gate"):
        nn.GRUCell.from_gates(W=parts["W"], U={g: m[:, :4] for g, m in parts["U"].items()}, b=parts["b"])
    with pytest.raises(ShapeError, match="every gate needs the same"):
        nn.GRUCell.from_gates(W=parts["W"] | {"z": np.ones((I, H + 1))}, U=parts["U"])
    with pytest.raises(ShapeError, match=r"gate z has shape \(5, 5\); \(I\+H, H\) is needed"):
        nn.GRUCell.from_concatenated(parts["U"], b=parts["b"])
    with pytest.raises(OptionError, match="order is 'x'"):
        nn.GRUCell(I, H).to_concatenated("x")


# -- the direction of the update gate ------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("update", ["new", "old"])
def test_flipping_the_update_changes_the_weights_and_not_the_values(reset, update, x):
    cell = nn.GRUCell(I, H, reset=reset, update=update, dtype=np.float64)
    other = nn.flipped(cell)
    assert (cell.update, other.update) in (("new", "old"), ("old", "new"))
    np.testing.assert_array_equal(other.W.numpy()[:, :H], -cell.W.numpy()[:, :H])
    np.testing.assert_array_equal(other.W.numpy()[:, H:], cell.W.numpy()[:, H:])
    np.testing.assert_allclose(called(other, x)[0].numpy(), called(cell, x)[0].numpy(), rtol=0, atol=1e-15)
    turned_only = copy.deepcopy(cell)
    turned_only.update = other.update
    assert abs(called(turned_only, x)[0].numpy() - called(cell, x)[0].numpy()).max() > 1e-2
    back = nn.flipped(other)
    for name, value in cell.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), back.state_dict()[name].numpy())


def test_flipping_a_whole_model(backend):
    model = nn.Sequential(nn.GRU(I, H, 2, bidirectional=True, dtype=np.float64))
    turned = nn.flipped(model)
    assert turned[0].update == "old" and {cell.update for cell in turned[0].cells} == {"old"}
    x = tg.tensor(filled("x", T, N, I))
    np.testing.assert_allclose(turned(x)[0].numpy(), model(x)[0].numpy(), rtol=0, atol=1e-14)
    with pytest.raises(OptionError, match="LSTM holds no GRU cell"):
        nn.flipped(nn.LSTM(I, H))


# -- side by side --------------------------------------------------------------------------------------------


def test_the_table_is_read_from_the_objects():
    cells = [make(I, H) for make in MAKERS.values()]
    table = nn.compare(*cells, nn.GRUCell(I, H, bias=False))
    one = I * H + H * H + H
    assert [row.parameters for row in table] == [one, 2 * one, 3 * one, 3 * one + H, 4 * one, 3 * (one - H)]
    assert [len(row.gates) for row in table] == [0, 1, 2, 2, 3, 2]
    assert [row.states for row in table] == [("h",)] * 4 + [("h", "c"), ("h",)]
    assert [row.candidate for row in table] == ["h", "n", "n", "n", "g", "n"]
    lines = str(table).splitlines()
    assert lines[3].split() == ["GRUCell", "h", "z,", "r", "n", "3(I·H", "+", "H·H", "+", "H)", "=", "120"]
    assert lines[4].endswith("3(I·H + H·H + H) + H  = 125")
    assert lines[6].endswith("3(I·H + H·H)          = 105")


def test_layers_are_compared_too():
    bare = nn.GRU(I, H, bias=False)
    table = nn.compare(nn.LSTM(I, H, 3, bidirectional=True), nn.RNN(I, H, 2), bare, bare.cells[0])
    first, upper = I * H + H * H + H, 2 * H * H + H * H + H
    assert [row.parameters for row in table[:2]] == [8 * first + 16 * upper, first + H * H + H * H + H]
    assert [(row.name, row.states, row.candidate) for row in table[:2]] == [
        ("LSTM", ("h", "c"), "g"),
        ("RNN", ("h",), "h"),
    ]
    assert [row.formula for row in table[:2]] == [
        "8(I·H + H·H + H) + 16(2H·H + H·H + H)",
        "I·H + H·H + H + H·H + H·H + H",
    ]
    assert table[2][1:] == table[3][1:]
    deep = nn.GRU(I, H, 2, reset="after", recurrent_bias=True, bidirectional=True)
    (row,) = nn.compare(deep)
    assert row.formula == "6(I·H + H·H + H) + 2H + 6(2H·H + H·H + H) + 2H"
    assert row.parameters == eval(
        row.formula.replace("·", "*").replace("2H", "2*H").replace("(", "*("), {"I": I, "H": H}
    )
    with pytest.raises(OptionError, match="recurrent cells and layers, not a Linear"):
        nn.compare(nn.Linear(I, H))


# -- what they refuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [0, -3, 2.0, "5", True, None])
def test_sizes_that_are_none(kind, size):
    with pytest.raises(OptionError, match=r"hidden_size is .*at least 1"):
        MAKERS[kind](I, size)
    with pytest.raises(OptionError, match=r"input_size is .*at least 1"):
        MAKERS[kind](size, H)


def test_options_that_are_none():
    for make in (
        lambda: nn.GRUCell(I, H, reset="during"),
        lambda: nn.GRUCell(I, H, update=1),
        lambda: nn.GRUCell(I, H, recurrent_bias=True),
        lambda: nn.RNNCell(I, H, activation="gelu"),
        lambda: nn.GRUCell(I, H, init="xavier"),
        lambda: nn.GRUCell(I, H, init={"V": "zeros"}),
        lambda: nn.GRUCell(I, H, init="zeros", rng=0),
        lambda: nn.LSTMCell(I, H, forget_bias="large"),
    ):
        with pytest.raises(OptionError):
            make()
    with pytest.raises(DtypeError, match="int64"):
        nn.GRUCell(I, H, dtype=np.int64)
    with pytest.raises(DtypeError, match="'flot32' is no dtype; float32"):
        nn.GRUCell(I, H, dtype="flot32")
    assert nn.GRUCell(np.int64(I), np.int32(H)).W.shape == (I, 3 * H)


@pytest.mark.parametrize("kind", MAKERS)
def test_inputs_that_do_not_fit_are_told_what_would(kind, backend):
    cell = MAKERS[kind](I, H)
    name = type(cell).__name__
    with tg.scope("model", "Model"), tg.scope(step=7):
        with pytest.raises(
            ShapeError, match=rf"x has shape \(3, 4\).*{name} takes input_size=2.*\(3, 2\) would fit.*model\[t=7\]"
        ):
            cell(tg.ones((N, 4)))
        state = (tg.ones((N, 4)),) * len(cell.states)
        with pytest.raises(ShapeError, match=r"h has shape \(3, 4\).*hidden_size=5.*\(3, 5\) would fit.*model\[t=7\]"):
            cell(tg.ones((N, I)), state if len(state) > 1 else state[0])
        with pytest.raises(DtypeError, match=r"x is float64 and the weights are float32: x.astype\('float32'\)"):
            cell(np.ones((N, I)))
        with pytest.raises(DtypeError, match="x is int64"):
            cell(tg.ones((N, I), dtype=np.int64))
    assert called(cell, [[0.5, 0.25]] * N)[0].dtype == np.float32


def test_a_state_of_the_wrong_kind():
    with pytest.raises(ShapeError, match=r"the state of LSTMCell is \(h, c\), not 3 arrays"):
        nn.LSTMCell(I, H)(tg.ones((3, I)), tg.ones((3, H)))
    with pytest.raises(ShapeError, match=r"the state of LSTMCell is \(h, c\), not 1 arrays"):
        nn.LSTMCell(I, H)(tg.ones((3, I)), 1.0)


# -- cells of one's own --------------------------------------------------------------------------------------

Step = namedtuple("Step", "f n h")


def unit(x, h, W, U, b):
    """The minimal gated unit (Zhou et al. 2016)."""
    f = tg.sigmoid(x @ W.f + h @ U.f + b.f)
    n = tg.tanh(x @ W.n + (f * h) @ U.n + b.n)
    return Step(f, n, (1 - f) * h + f * n)


def own(name="Own", base=nn.Cell, **attributes):
    """A cell class of one's own: by default the minimal gated unit, packed [n|f]."""
    equation = {"equation": lambda self, x, state, weights: unit(x, *state, *weights)}
    return type(name, (base,), {"gates": ("n", "f"), "candidate": "n", **equation, **attributes})


def test_the_letters_of_the_equation_are_those_of_the_packing(x):
    """to_gates, W.f inside of the equation and the numbers of a loop agree, in whatever order the gates are packed."""
    h, results = filled("h", N, H), []
    for gates in (("n", "f"), ("f", "n")):
        cell = own(gates=gates)(I, H, dtype=np.float64)
        parts = {name: {g: filled(f"{name} {g}", *part.shape) for g, part in by_gate.items()}
                 for name, by_gate in cell.to_gates().items()}  # fmt: skip
        results.append(type(cell).from_gates(**parts)(x, tg.tensor(h)).numpy())
    W, U, b = (Tuple(**parts[name]) for name in "WUb")
    f = 1 / (1 + np.exp(-(x.to("numpy").numpy() @ W.f + h @ U.f + b.f)))
    n = np.tanh(x.to("numpy").numpy() @ W.n + (f * h) @ U.n + b.n)
    for found in results:
        np.testing.assert_allclose(found, (1 - f) * h + f * n, rtol=0, atol=1e-14)


Tuple = namedtuple("Tuple", "n f")


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"Gates": namedtuple("Gates", "f n")}, "in the order of gates, n, f, and its Gates has f, n: leave Gates out"),
        ({"Gates": namedtuple("Gates", "n f o")}, "its Gates has n, f, o"),
        ({"gates": ("n", "f", "f")}, "duplicate field name"),
        ({"gates": ("n", "forget gate")}, "valid identifiers"),
        ({"gates": 2}, "Own has gates = 2, which cannot be names"),
        ({"candidate": "q"}, "Own has candidate = 'q': it is the one of n, f that is no gate"),
    ],
)
def test_letters_that_do_not_fit_each_other_are_refused_where_the_class_is_defined(attributes, says):
    with pytest.raises(CellError, match=says):
        own(**attributes)


def test_a_cell_that_lacks_its_letters_is_refused():
    with pytest.raises(CellError, match="Own has no candidate: it is the one of f, n"):
        type("Own", (nn.Cell,), {"gates": ("f", "n")})
    with pytest.raises(CellError, match="Cell has no gates: set gates"):
        nn.Cell(I, H)
    with pytest.raises(CellError, match="GRUOfMine has candidate = 'q'"):
        type("GRUOfMine", (nn.GRUCell,), {"candidate": "q"})


def test_letters_may_be_inherited_and_changed(x):
    Base = type("Base", (nn.Cell,), {"scale": 2.0})  # what several cells share may come before the letters
    Small = own(base=Base)
    More = own("More", Small, gates=("f", "o", "n"), equation=lambda self, x, state, weights: Step(
        weights.W.o, weights.U.f, unit(x, *state, *weights).h))  # fmt: skip
    assert Small.Gates._fields == ("n", "f") and More.Gates._fields == ("f", "o", "n")
    assert type("Same", (More,), {}).Gates is More.Gates
    assert More(I, H, dtype=np.float64)(x).shape == (N, H)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (lambda step: None, r"the equation of Own returned None: return a named tuple .* states \(h\) among it"),
        (lambda step: step.h, "returned a Tensor: return a named tuple"),
        (lambda step: tuple(step), "returned a tuple: return a named tuple"),
        (lambda step: namedtuple("Step", "f n")(step.f, step.n), "returned a Step of f, n: .*the new states"),
        (lambda step: np.exp(step.h), "uses operators and tg's functions, not NumPy's"),
    ],
)
def test_an_equation_that_does_not_return_a_step_is_told_so(returned, says, x):
    Own = own(equation=lambda self, x, state, weights: returned(unit(x, *state, *weights)))
    layer = type("Layer", (nn.Recurrent,), {"cell_type": Own})(I, H, dtype=np.float64)
    with pytest.raises(CellError, match=says):
        layer.cells[0](x)
    with pytest.raises(CellError, match=rf"{says}.* \(in layer\.cells\.0\[t=0\]\)$"):
        layer(tg.tensor(filled("x", T, N, I)))
    if "Tensor" not in says:  # which is a symbol there
        with pytest.raises(CellError, match=says):
            tg.see.cell_equations(layer)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            lambda h: h.sum(axis=0),
            rf"made of the state h, of shape \({N}, {H}\), h \({H},\) float64: a state is a Tensor",
        ),
        (lambda h: h[:, :1], rf"h \({N}, 1\) float64: a state is a Tensor that keeps its shape"),
        (lambda h: h.to("numpy").numpy(), "a ndarray: a state is a Tensor"),
        (lambda h: 3.0, "a float: a state is a Tensor"),
    ],
)
def test_a_state_that_changes_its_form_is_refused(made, says, x):
    def equation(self, x, state, weights):
        step = unit(x, *state, *weights)
        return step._replace(h=made(step.h))

    with pytest.raises(CellError, match=says):
        own(equation=equation)(I, H, dtype=np.float64)(x)


def test_a_state_that_is_handed_on_keeps_its_name(x):
    cell = own(equation=lambda self, x, state, weights: unit(x, *state, *weights)._replace(h=state[0]))
    start = tg.tensor(filled("h", N, H), name="start")
    assert cell(I, H, dtype=np.float64)(x, start) is start and start.name == "start"


def test_gates_of_one_letter_each_may_be_a_word():
    assert own(gates="nf").Gates._fields == ("n", "f")


def test_another_mistake_in_an_equation_is_what_it_is(x):
    cell = own(equation=lambda self, x, state, weights: len(1))(I, H, dtype=np.float64)
    with pytest.raises(TypeError, match="has no len"):
        cell(x)


def test_a_state_that_the_step_does_not_have_is_named(x):
    with pytest.raises(CellError, match=r"returned a Step of f, n, h: .*the new states \(h, c\)"):
        own(states=("h", "c"), equation=lambda self, x, state, weights: unit(x, state[0], *weights))(
            I, H, dtype=np.float64
        )(x)
