"""What happens through time: gates are those of the layer itself, gradients those of calculus, parts add up."""

from __future__ import annotations

import copy
import math
from types import ModuleType

import numpy as np
import pytest
from kinds import KINDS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import GraphError, OptionError, ShapeError, TextError
from tinygrad_rnn.nn import folding
from tinygrad_rnn.nn.cells import flipped
from tinygrad_rnn.see import flow
from tinygrad_rnn.see.flow import by_step as shares_module
from tinygrad_rnn.see.flow import gradients, unrolled
from tinygrad_rnn.see.flow import over_text as gates_module
from tinygrad_rnn.train.model import LanguageModel
from tinygrad_rnn.train.text import Vocabulary

T, N, I, H = 7, 3, 4, 5  # noqa: E741
LENGTHS = [7, 4, 0]


def made(kind: str, *shape: int, rng: int = 3, **options: object) -> nn.Recurrent:
    """A layer in float64 whose biases are not zero."""
    layer, own = KINDS[kind]
    return layer(I, H, *shape, dtype="float64", rng=np.random.default_rng(rng), **own, **options)


def given_x(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape or (T, N, I))


def sigma(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def broken(monkeypatch: pytest.MonkeyPatch, owner: ModuleType, function: str, old: str, new: str) -> None:
    """A mutant in the place of a function, also where others have taken it by name."""
    mutated(monkeypatch, owner, function, old, new)
    for other in (flow, gates_module, gradients, shares_module):
        if hasattr(other, function):
            monkeypatch.setattr(other, function, getattr(owner, function))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# -- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_the_states_are_those_that_the_layer_returns(kind: str, fused: bool, lengths: list[int] | None) -> None:
    layer = made(kind, 2, bidirectional=True, fused=fused)
    found = flow.gates(layer, given_x(), lengths=lengths)
    assert [g.name.split(", ", 1)[1] for g in found] == [
        f"layer {n}, {way}" for n in (0, 1) for way in ("forwards", "backwards")
    ]
    output, ends = layer(given_x(), lengths=lengths)
    top = np.concatenate([g.values["h"] for g in found[2:]], axis=-1)
    np.testing.assert_allclose(np.nan_to_num(top), output.numpy(), rtol=1e-12, atol=1e-13)
    h_n, *c_n = (ends,) if isinstance(ends, tg.Tensor) else ends
    for name, last in zip("hc", (h_n, *c_n)):
        for each, end in zip(found, last.numpy()):
            for n, length in enumerate(lengths or [T] * N):
                if length:
                    at = 0 if "backwards" in each.name else length - 1
                    np.testing.assert_allclose(each.values[name][at, n], end[n], rtol=1e-12, atol=1e-13)
    for each in found:
        assert list(each.values) == list(type(each.cell.equation(*step_of(each.cell)))._fields)
        assert all(value.shape == (T, N, H) for value in each.values.values())
        inside = np.arange(T)[:, None] < np.array(lengths or [T] * N)
        assert all((np.isfinite(value).all(axis=-1) == inside).all() for value in each.values.values())


def step_of(cell: nn.Cell) -> tuple[object, ...]:
    return np.ones((1, cell.input_size)), (np.ones((1, H)),) * len(cell.states), cell.weights()


def test_gates_are_what_the_formulas_say() -> None:
    """The update gate of the slides, of both layers, by NumPy."""
    layer, x = made("gru before new", 2), given_x()
    below, above = flow.gates(layer, x)
    for each, inputs in ((below, x), (above, below.values["h"])):
        W, U, b = (each.cell.to_gates()[name]["z"] for name in "WUb")
        before = np.concatenate([np.zeros((1, N, H)), each.values["h"][:-1]])
        np.testing.assert_allclose(each.values["z"], sigma(inputs @ W + before @ U + b), rtol=1e-12)
    lstm, x = made("lstm"), given_x()
    (each,) = flow.gates(lstm, x)
    c = np.concatenate([np.zeros((1, N, H)), each.values["c"][:-1]])
    np.testing.assert_allclose(each.values["c"], each.values["f"] * c + each.values["i"] * each.values["g"], rtol=1e-12)


def test_an_initial_state_and_a_batch_in_front() -> None:
    h, c = np.random.default_rng(5).standard_normal((2, 1, N, H))
    layer = made("lstm", batch_first=True)
    x = given_x(N, T, I)
    (found,) = flow.gates(layer, x, (h, c))
    np.testing.assert_allclose(found.values["h"].swapaxes(0, 1), layer(x, (h, c))[0].numpy(), rtol=1e-12)


def test_looking_leaves_no_trace() -> None:
    model = LanguageModel(6, I, H, 2, dropout=0.4, rng=np.random.default_rng(0))
    model(np.array([[1], [2]]))
    names = [p.name for p in model.parameters()]
    before = tg.backend.random.get_state()
    one, two = (flow.gates(model.recurrent, model.embedding(np.array([[1], [2], [3]]))) for _ in range(2))
    np.testing.assert_array_equal(one[1].values["h"], two[1].values["h"], "dropout is off")
    flow.shares(model.recurrent, given_x().astype("f"))
    assert model.recurrent.training and model.recurrent.drop.training and model.recurrent.fused
    assert [p.name for p in model.parameters()] == names == [name for name, _ in model.named_parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert tg.backend.random.get_state() == before
    for cell in model.recurrent.cells:
        assert not {"advance", "equation"} & vars(cell).keys()


def test_weights_that_are_not_learned_and_no_grad_are_no_obstacle() -> None:
    layer = made("gru before new")
    whole = flow.shares(layer, given_x()).gradient
    for p in layer.parameters():
        p.requires_grad = False
    with tg.no_grad():
        frozen = flow.shares(layer, given_x()).gradient
    assert all((whole[name] == frozen[name]).all() and whole[name].any() for name in whole)
    with tg.debug():
        assert flow.gates(layer, given_x())[0].values["z"].shape == (T, N, H)


def test_on_every_backend(backend: str) -> None:
    layer = made("gru after old", 2, bidirectional=True)
    x = given_x()
    wanted = flow.gates(layer, x, lengths=LENGTHS)[3].values["z"]
    norms, dropped = flow.gradient_through_time(layer, x).norms, flow.truncation(layer, x, 2).dropped
    layer.to(backend)
    x = tg.tensor(x, backend=backend)
    np.testing.assert_allclose(flow.gates(layer, x, lengths=LENGTHS)[3].values["z"], wanted, rtol=1e-10)
    np.testing.assert_allclose(flow.gradient_through_time(layer, x).norms, norms, rtol=1e-10)
    assert flow.truncation(layer, x, 2).dropped == pytest.approx(dropped, rel=1e-9)


class Leaky(nn.Cell):
    """h' = (1 - a) h + a n, with a gate and a rate of its own."""

    gates, candidate = ("a", "n"), "n"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate = tg.tensor(np.full(self.hidden_size, 0.7), requires_grad=True)
        self.parts = [nn.Linear(self.hidden_size, self.hidden_size, dtype="float64", rng=np.random.default_rng(8))]

    def equation(self, x, state, weights):
        (h,), (W, U, b) = state, weights
        a = tg.sigmoid(x @ W[0] + h @ U[0] + b[0])
        n = tg.tanh(self.rate * (x @ W[1]) + self.parts[0](h) @ U[1] + b[1])
        return Step(a, n, (1 - a) * h + a * n)


class Step(tuple):
    _fields = ("a", "n", "h")

    def __new__(cls, *each):
        return super().__new__(cls, each)

    a, n, h = (property(lambda self, at=at: self[at]) for at in range(3))


class LeakyLayer(nn.Recurrent):
    cell_type = Leaky


def leaky(layers: int = 1, **options: object) -> LeakyLayer:
    return LeakyLayer(I, H, layers, dtype="float64", rng=np.random.default_rng(6), **options)


def test_a_cell_of_ones_own_is_seen_too() -> None:
    layer = leaky(2, bidirectional=True)
    found = flow.gates(layer, given_x(), lengths=LENGTHS)
    output, _ = layer(given_x(), lengths=LENGTHS)
    np.testing.assert_allclose(
        np.nan_to_num(np.concatenate([g.values["h"] for g in found[2:]], axis=-1)), output.numpy(), rtol=1e-12
    )
    assert found[0].gate == "a" and list(found[0].values) == ["a", "n", "h"]
    assert "The gate a is most open at" in found[0].sentences()[0]
    whole = flow.shares(layer, given_x())
    loss = layer(given_x())[0].sum()
    loss.backward()
    wanted = {name: p.grad.numpy() for name, p in layer.named_parameters()}
    assert whole.gradient.keys() == wanted.keys() and {"cells.3.rate", "cells.0.parts.0.W"} <= wanted.keys()
    for name, each in wanted.items():
        np.testing.assert_allclose(whole.gradient[name], each, rtol=1e-11, atol=1e-13)


def test_a_changed_equation_is_read_by_its_letters_only() -> None:
    class Odd(nn.GRUCell):
        def equation(self, x, state, weights):
            return super().equation(x, state, weights)

    class OddLayer(nn.GRU):
        cell_type = Odd

    (found,) = flow.gates(OddLayer(I, H, dtype="float64"), given_x())
    assert [s.note for s in found.strips()] == ["gate", "gate", "candidate", "state"]


def test_a_cell_without_an_equation_is_told_so() -> None:
    class Silent(nn.RNNCell):
        def advance(self, x, state, weights):
            return (tg.tanh(x @ weights.W + state[0] @ weights.U),)

    class SilentLayer(nn.RNN):
        cell_type = Silent

    layer = SilentLayer(I, H, dtype="float64")
    with pytest.raises(OptionError, match="Silent does not go through its equation"):
        flow.gates(layer, given_x())
    assert flow.gradient_through_time(layer, given_x()).norms.shape == (T, T)


@pytest.mark.parametrize(
    ("layer", "says"),
    [(nn.Linear(I, H), "not in Linear"), (nn.GRUCell(I, H), "cell_type"), ("gru", "not in str")],
    ids=["a Linear", "a cell", "a word"],
)
def test_what_is_no_layer_is_refused(layer: object, says: str) -> None:
    for function in (flow.gates, flow.gradient_through_time, flow.shares):
        with pytest.raises(OptionError, match=says):
            function(layer, given_x())


def test_the_check_of_the_states_notices_a_direction_that_is_not_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, unrolled, "_in_time", "if walk.reverse", "if False")
    with pytest.raises(AssertionError):
        test_the_states_are_those_that_the_layer_returns("gru before new", True, None)


def test_the_check_of_leaving_no_trace_notices_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, unrolled, "_twin", ", training=False", "")
    with pytest.raises(AssertionError):
        test_looking_leaves_no_trace()


# -- which symbols open a gate ---------------------------------------------------------------------------------------


def seen_as(values: np.ndarray, cell: nn.Cell, labels: str) -> flow.Gates:
    """Gates with update gates (T, H) of our choice."""
    z = values[:, None]
    return flow.Gates({"z": z, "h": 2 * z - 1}, cell, "made up", tuple(labels), ("z", "h"))


def test_symbols_by_how_open_they_make_the_gate() -> None:
    values = np.array([[0.1, 0.3], [0.9, 0.7], [0.5, 0.5], [0.3, 0.5]])
    new = seen_as(values, nn.MinimalGRUCell(I, 2), "aba,")
    assert new.by_symbol() == {
        "b": (pytest.approx(0.8), 1), ",": (pytest.approx(0.4), 1), "a": (pytest.approx(0.35), 2)
    }  # fmt: skip
    assert list(new.by_symbol()) == ["b", ",", "a"]
    np.testing.assert_allclose(new.mean("z"), [0.2, 0.8, 0.5, 0.4])
    (said,) = new.sentences()
    assert said == 'The update gate z is most open at "b" 0.80, "," 0.40, "a" 0.35 (2x).'
    old = seen_as(values, nn.GRUCell(I, 2, update="old"), "aba,")
    assert list(old.by_symbol()) == ["a", ",", "b"] and old.by_symbol()["b"][0] == pytest.approx(0.2)
    assert old.sentences()[0].endswith("(open is 1 - z).")
    assert "1 keeps the old" in old.strips()[0].note and "1 takes the new" in new.strips()[0].note


def test_the_direction_of_the_update_gate_changes_no_ranking() -> None:
    layer = made("gru before new")
    labels = [*"abcabca"]
    one, other = (flow.gates(each, given_x(), labels=labels)[0] for each in (layer, flipped(layer)))
    np.testing.assert_allclose(one.values["z"], 1 - other.values["z"], rtol=1e-10)
    assert one.by_symbol().keys() == other.by_symbol().keys()
    assert [v for v, _ in one.by_symbol().values()] == pytest.approx([v for v, _ in other.by_symbol().values()])


def test_the_check_of_the_ranking_notices_the_wrong_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, gates_module, "_gru_like", '1 if update == "new" else -1', "1")
    for equation in (nn.GRUCell.equation, nn.MinimalGRUCell.equation):
        monkeypatch.setitem(gates_module.READINGS, equation, gates_module._gru_like)
    with pytest.raises(AssertionError):
        test_symbols_by_how_open_they_make_the_gate()
    with pytest.raises(AssertionError):
        test_the_direction_of_the_update_gate_changes_no_ranking()


def test_what_is_past_the_end_opens_nothing() -> None:
    found = flow.gates(made("gru before new"), given_x(), lengths=LENGTHS, labels=[*"abcdefg"])[0]
    assert set(found.show(sequence=1).by_symbol()) == {*"abcd"}
    assert found.show(sequence=2).by_symbol() == {}
    assert found.show(sequence=2).svg and str(found.show(sequence=2))


def test_a_gate_that_is_none_is_refused() -> None:
    (found,) = flow.gates(made("gru before new"), given_x())
    for name in ("n", "h", "q"):
        with pytest.raises(OptionError, match=f"GRUCell has no gate '{name}'"):
            found.by_symbol(name)
    (found,) = flow.gates(made("rnn tanh"), given_x())
    assert found.gate == "" and found.sentences() == []
    with pytest.raises(OptionError, match="RNNCell has no gate"):
        found.by_symbol()


def test_a_text_is_read_symbol_by_symbol() -> None:
    vocabulary = Vocabulary.of("the cat")
    model = LanguageModel(len(vocabulary), I, H, 2, cell="lstm", rng=np.random.default_rng(0))
    found = flow.gates_over_text(model, vocabulary, "that")
    assert [g.labels for g in found] == [(*"that",)] * 2
    output, _ = model.read(vocabulary.encode("that")[:, None])
    np.testing.assert_allclose(found[1].values["h"], output.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(TextError, match="'Q'"):
        flow.gates_over_text(model, vocabulary, "Q")
    with pytest.raises(OptionError, match="empty"):
        flow.gates_over_text(model, vocabulary, "")


def test_choices_that_are_not_there_are_refused() -> None:
    (found,) = flow.gates(made("gru before new"), given_x())
    for choice, says in (
        ({"units": [H]}, "how many of the 5 units"), ({"units": -1}, "units"), ({"sequence": N}, "there are 3"),
        ({"sequence": -1}, "there are 3"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=says):
            found.show(**choice)
    with pytest.raises(OptionError, match="defines z, r, n, h, and no 'q'"):
        found.show("q")
    for wrong in (1.5, "a", True, None):
        with pytest.raises(OptionError, match="units is"):
            found.show(units=[wrong])
    for wrong in (1.5, "a", True):
        for choice in ("units", "sequence"):
            with pytest.raises(OptionError, match=f"{choice} is"):
                found.show(**{choice: wrong})
    with pytest.raises(OptionError, match="labels is 3; it must be a sequence of T = 7"):
        flow.gates(made("gru before new"), given_x(), labels=3)
    with pytest.raises(ShapeError, match="3 labels for T = 7"):
        flow.gates(made("gru before new"), given_x(), labels=[*"abc"])


@pytest.mark.parametrize("kind_of_number", [np.int64, np.int32, np.uint8], ids=lambda kind: kind.__name__)
def test_whole_numbers_of_numpy_choose_as_those_of_python_do(kind_of_number: type) -> None:
    layer, two, one = made("gru before new"), kind_of_number(2), kind_of_number(1)
    (found,) = flow.gates(layer, given_x())
    assert found.show(units=two, sequence=one).svg == found.show(units=2, sequence=1).svg
    assert found.show(units=np.array([two, one])).svg == found.show(units=[2, 1]).svg != found.show(units=[1, 2]).svg
    whole = flow.shares(layer, given_x(), at=2).gradient
    for at in (two, [two], np.array([two])):
        for name, g in flow.shares(layer, given_x(), at=at).gradient.items():
            np.testing.assert_array_equal(g, whole[name])
    assert flow.gradient_through_time(layer, given_x(), cell=kind_of_number(0)).norms.shape == (T, T)


def test_the_units_shown_are_those_that_move_most() -> None:
    values = np.array([[0.1, 0.5, 0.9, 0.4], [0.1, 0.6, 0.2, 0.9], [0.2, 0.5, 0.8, 0.1], [0.1, 0.5, 0.9, 0.5]])
    found = seen_as(values, nn.MinimalGRUCell(I, 4), "abcd")
    assert found.show(units=2).strips()[0].rows == ["unit 3", "unit 2"]  # the more closed one first
    assert found.show(units=[1, 0]).strips()[1].rows == ["unit 1", "unit 0"]
    np.testing.assert_array_equal(found.show(units=[1, 0]).strips()[0].values, values[:, [1, 0]].T)
    assert found.show(units=99).strips()[0].values.shape == (4, 4)


def test_scales_fit_what_is_shown() -> None:
    (found,) = flow.gates(made("lstm"), 9 * given_x())
    scales = {strip.title: (strip.low, strip.high) for strip in found.strips()}
    assert all(scales[name] == (0, 1) for name in "ifo") and scales["g"] == scales["h"] == (-1, 1)
    low, high = scales["c"]
    assert -low == high >= np.abs(found.values["c"][:, 0]).max() and high > 1
    (found,) = flow.gates(made("rnn relu"), 99 * given_x())
    assert found.strips()[0].high >= found.values["h"][:, 0].max() > 1


# -- from step to step -----------------------------------------------------------------------------------------------


def by_jacobians(layer: nn.Recurrent, x: np.ndarray) -> np.ndarray:
    """||dL_t/dh_k|| for L_t = sum(h_t), as products of the Jacobians of single steps, sequence by sequence."""
    cell, squares = layer.cells[0], np.zeros((T, T))
    for n in range(N):
        h, steps = tg.zeros(H, dtype="float64"), []
        for t in range(T):
            steps.append(tg.jacobian(lambda h, t=t, n=n: cell(x[t, n], h))(h).numpy())
            h = cell(x[t, n], h).detach()
        for t in range(T):
            row = np.ones(H)
            for k in range(t, -1, -1):
                squares[t, k] += (row**2).sum()
                row = row @ steps[k]
    return np.sqrt(squares)


def lstm_by_numpy(layer: nn.Recurrent, x: np.ndarray, state: str) -> np.ndarray:
    """The same of an LSTM by its own formulas: the pair (dh, dc) is taken back step by step."""
    cell, squares = layer.cells[0], np.zeros((T, T))
    U = cell.to_gates()["U"]
    (seen,) = flow.gates(layer, x)
    v = seen.values
    before = np.concatenate([np.zeros((1, N, H)), v["c"][:-1]])
    for t in range(T):
        dh, dc = np.ones((N, H)), np.zeros((N, H))
        for k in range(t, -1, -1):
            through = dc + dh * v["o"][k] * (1 - np.tanh(v["c"][k]) ** 2)
            squares[t, k] = ((dh if state == "h" else through) ** 2).sum()
            do = dh * np.tanh(v["c"][k]) * v["o"][k] * (1 - v["o"][k])
            di = through * v["g"][k] * v["i"][k] * (1 - v["i"][k])
            df = through * before[k] * v["f"][k] * (1 - v["f"][k])
            dg = through * v["i"][k] * (1 - v["g"][k] ** 2)
            dh, dc = do @ U["o"].T + di @ U["i"].T + df @ U["f"].T + dg @ U["g"].T, through * v["f"][k]
    return np.sqrt(squares)


def test_the_matrix_is_the_product_of_the_jacobians_of_the_steps(kind: str) -> None:
    layer, x = made(kind), given_x()
    found = flow.gradient_through_time(layer, x).norms
    oracle = lstm_by_numpy(layer, x, "h") if kind == "lstm" else by_jacobians(layer, x)
    assert not np.triu(found, 1).any(), "no state reaches back in time"
    np.testing.assert_allclose(found, oracle, rtol=1e-10, atol=1e-15)
    assert np.diagonal(found) == pytest.approx(math.sqrt(N * H))


def test_the_cell_state_of_an_lstm_sees_all_that_remembering_brings() -> None:
    layer, x = made("lstm"), given_x()
    of_c = flow.gradient_through_time(layer, x, state="c").norms
    np.testing.assert_allclose(of_c, lstm_by_numpy(layer, x, "c"), rtol=1e-10)
    assert of_c[-1, 0] > flow.gradient_through_time(layer, x).norms[-1, 0]


def test_the_plain_unit_by_a_formula_of_numpy() -> None:
    """dh_t/dh_k = product of diag(1 - h^2) U^T."""
    layer, x = made("rnn tanh"), given_x()
    h, U = layer(x)[0].numpy(), layer.cells[0].U.numpy()
    wanted = np.zeros((T, T))
    for t in range(T):
        g = np.ones((N, H))
        for k in range(t, -1, -1):
            wanted[t, k] = np.sqrt((g**2).sum())
            g = (g * (1 - h[k] ** 2)) @ U.T
    np.testing.assert_allclose(flow.gradient_through_time(layer, x).norms, wanted, rtol=1e-10)


def test_the_matrix_by_central_differences(kind: str) -> None:
    """Move one number of the states at step k, and let the layer go on from there."""
    layer, x, step = made(kind), given_x(T, 1, I), 1e-5
    (seen,) = flow.gates(layer, x)
    found = flow.gradient_through_time(layer, x).norms
    for k in (0, 3, T - 2):
        states = [seen.values[name][k] for name in layer.cells[0].states]
        slopes = np.zeros((T - 1 - k, H))
        for unit in range(H):
            ends = []
            for way in (1, -1):
                moved = [s.copy() for s in states]
                moved[0][0, unit] += way * step
                start = tuple(m[None] for m in moved)
                output, _ = layer(x[k + 1 :], start if len(start) > 1 else start[0])
                ends.append(output.numpy().sum(axis=(1, 2)))
            slopes[:, unit] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found[k + 1 :, k], np.linalg.norm(slopes, axis=1), rtol=2e-7, atol=1e-9)


def test_several_layers_and_both_directions() -> None:
    layer, x = made("gru before new", 2, bidirectional=True), given_x()
    backward = flow.gradient_through_time(layer, x, cell=3)
    assert backward.reverse and not np.tril(backward.norms, -1).any() and backward.norms[0, T - 1] > 0
    below = flow.gradient_through_time(layer, x, cell=0)
    assert (below.norms > 0).all(), "through the reverse direction above, every step reaches every loss"
    assert backward.decay[0] == pytest.approx(1) and (np.diff(backward.decay) < 0).all()
    np.testing.assert_allclose(
        flow.gradient_through_time(layer, x).norms, flow.gradient_through_time(layer, x, cell=2).norms
    )
    flipped_norms = flow.gradient_through_time(made("gru before new", bidirectional=True), x[::-1], cell=1).norms
    alone = made("gru before new", bidirectional=True)
    forward = made("gru before new")
    for name in "WUb":
        getattr(forward.cells[0], name).assign_(getattr(alone.cells[1], name))
    np.testing.assert_allclose(flipped_norms[::-1, ::-1], flow.gradient_through_time(forward, x).norms, rtol=1e-10)


def test_a_loss_of_ones_own() -> None:
    layer, x = made("gru before new"), given_x()
    head, targets = nn.Linear(H, 3, dtype="float64"), np.arange(T * N).reshape(T, N) % 3
    loss = lambda h, t: nn.cross_entropy(head(h), targets[t])  # noqa: E731
    found = flow.gradient_through_time(layer, x, loss=loss).norms
    (seen,) = flow.gates(layer, x)
    h = tg.tensor(seen.values["h"][2], requires_grad=True)
    assert found[2, 2] == pytest.approx(np.linalg.norm(tg.pullback(loss(h, 2), [h])[0].numpy()), rel=1e-10)
    for bad in (lambda h, t: h, lambda h, t: 1.0):
        with pytest.raises(GraphError, match="the loss of step 0 must be"):
            flow.gradient_through_time(layer, x, loss=bad)


def test_decay_is_the_mean_over_all_steps() -> None:
    norms = np.array([[2.0, 0, 0], [1.0, 4.0, 0], [0.5, 1.0, 5.0]])
    found = flow.GradientThroughTime(norms, "made up")
    np.testing.assert_allclose(found.decay, [1, (1 / 4 + 1 / 5) / 2, 0.5 / 5])
    np.testing.assert_allclose(found.forgotten, 1 - found.decay)
    np.testing.assert_allclose(flow.GradientThroughTime(norms.T, "made up", reverse=True).decay[2], 0.5 / 2)
    np.testing.assert_allclose(flow.GradientThroughTime(norms.T[::-1, ::-1], "", reverse=False).decay[0], 1)
    assert np.isnan(flow.GradientThroughTime(np.zeros((2, 2)), "dead").decay).all()


def test_the_decay_of_all_four_cells_in_one_picture() -> None:
    kinds = {"RNN": "rnn tanh", "MinimalGRU": "minimal", "GRU": "gru before new", "LSTM": "lstm"}
    layers = {name: made(kind) for name, kind in kinds.items()}
    found = flow.decay(layers, given_x())
    assert list(found.curves) == ["RNN", "MinimalGRU", "GRU", "LSTM, h", "LSTM, c"]
    for name, layer in layers.items():
        for state in ("h", "c") if name == "LSTM" else ("h",):
            key = f"{name}, {state}" if name == "LSTM" else name
            wanted = flow.gradient_through_time(layer, given_x(), state=state).decay
            np.testing.assert_array_equal(found.curves[key], wanted)
            np.testing.assert_array_equal(found.forgotten[key], 1 - wanted)
    with pytest.raises(OptionError, match="no layer"):
        flow.decay({}, given_x())


def test_what_cannot_be_compared_is_refused() -> None:
    layer = made("gru before new")
    for layers in ([layer], layer, "GRU", {3: layer}, None):
        with pytest.raises(OptionError, match="a dict of layers by name"):
            flow.decay(layers, given_x())  # type: ignore[arg-type]
    for layers, says in (
        ({}, "no layer to compare"),
        ({"GRU": 3}, "not in int"),
        ({"GRU": layer.cells[0]}, "in GRUCell"),
    ):
        with pytest.raises(OptionError, match=says):
            flow.decay(layers, given_x())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="loss is 3; it must be a function"):
        flow.decay({"GRU": layer}, given_x(), loss=3)  # type: ignore[arg-type]


def test_the_check_of_numpys_numbers_notices_a_check_for_int(monkeypatch: pytest.MonkeyPatch) -> None:
    mutated(monkeypatch, unrolled, "counts", "Integral", "int")
    monkeypatch.setattr(gates_module, "counts", unrolled.counts)
    with pytest.raises(OptionError, match="units is"):
        test_whole_numbers_of_numpy_choose_as_those_of_python_do(np.int64)


def test_an_open_way_through_time_keeps_the_gradient() -> None:
    """Row 9 of the equations: z = 0 keeps all, so that nothing decays; the plain unit forgets."""
    gru = made("gru before new")
    bias = gru.cells[0].b.numpy().copy()
    bias[:H] = -40
    gru.cells[0].b.assign_(bias)
    np.testing.assert_allclose(flow.gradient_through_time(gru, given_x()).decay, 1, rtol=1e-12)
    assert flow.gradient_through_time(made("rnn tanh"), given_x()).decay[-1] < 0.2


@pytest.mark.parametrize(
    "choice", [{"cell": 4}, {"cell": -1}, {"cell": "a"}, {"cell": 0.0}, {"cell": False}, {"state": "c"}], ids=str
)
def test_states_that_are_not_there_are_refused(choice: dict) -> None:
    with pytest.raises(OptionError, match=r"the layer has 1|has the states h"):
        flow.gradient_through_time(made("gru before new"), given_x(), **choice)


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("gradient_through_time", "pullback(lost, states)", "pullback(lost, states[::-1])"),
        ("gradient_through_time", "norms[t] =", "norms[:, t] ="),
        ("norm", "array.astype(np.float64).ravel()", "array.sum(axis=0)"),
        ("total", "output.sum()", "(output * output).sum()"),
    ],
)
def test_the_checks_of_the_matrix_notice(monkeypatch: pytest.MonkeyPatch, function: str, old: str, new: str) -> None:
    broken(monkeypatch, gradients, function, old, new)
    if function == "total":
        monkeypatch.setitem(gradients.gradient_through_time.__kwdefaults__, "loss", gradients.total)
    with pytest.raises(AssertionError):
        test_the_matrix_is_the_product_of_the_jacobians_of_the_steps("rnn tanh")


# -- by step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [None, -1, [1, 4]])
@pytest.mark.parametrize("fused", [True, False])
def test_the_contributions_add_up_to_what_backward_gives(kind: str, fused: bool, at: object) -> None:
    layer = made(kind, 2, bidirectional=True, fused=fused)
    found = flow.shares(layer, given_x(), at=at)
    output, _ = layer(given_x())
    (output if at is None else output[at if isinstance(at, list) else [at]]).sum().backward()
    wanted = {name: p.grad.numpy() for name, p in layer.named_parameters()}
    assert found.gradient.keys() == wanted.keys()
    for name, each in wanted.items():
        assert found.contributions[name].shape == (T, *each.shape)
        np.testing.assert_allclose(found.gradient[name], each, rtol=1e-12, atol=1e-12)
    for name, share in found.share.items():
        assert share.shape == (T,) and share.sum() == pytest.approx(float(found.norms[name].any()))
        assert (found.norms[name] >= 0).all()
    assert found.overall.sum() == pytest.approx(1)


def test_one_contribution_by_central_differences(kind: str) -> None:
    """Move one number of a weight at one step only."""
    layer, x, at, step = made(kind), given_x(), 2, 1e-5
    found = flow.shares(layer, x).contributions
    cell, S = layer.cells[0], len(layer.cells[0].states)
    for name, p in list(cell.named_parameters()):
        index = tuple(min(1, n - 1) for n in p.shape)
        ends = []
        for way in (1, -1):
            other = copy.deepcopy(cell)
            moved = p.numpy().copy()
            moved[index] += way * step
            dict(other.named_parameters())[name].assign_(moved)
            state, total = None, 0.0
            for t in range(T):
                state = (other if t == at else cell)(x[t], state)
                total += (state[0] if S > 1 else state).numpy().sum()
            ends.append(total)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found[f"cells.0.{name}"][(at, *index)] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_gates_are_told_apart() -> None:
    found = flow.shares(made("gru after new, c"), given_x())
    assert list(found.by_gate) == [f"cells.0.{w}_{g}" for w in "WUb" for g in "zrn"] + ["cells.0.c"]
    np.testing.assert_array_equal(found.by_gate["cells.0.U_r"], found.contributions["cells.0.U"][..., H : 2 * H])
    assert found.strips()[0].rows[:2] == ["W_z", "W_r"]
    assert flow.shares(made("rnn tanh", 2), given_x()).strips()[0].rows == [
        f"cells.{n}.{name}" for n in (0, 1) for name in "WUb"
    ]


def test_shares_where_there_is_no_gradient_are_zero() -> None:
    found = flow.shares(made("gru before new"), given_x(), loss=lambda h, t: (0 * h).sum())
    assert not found.overall.any() and found.svg and "0%" in str(found)
    labelled = flow.shares(made("gru before new"), given_x(), at=-1, labels=[*"abcdef,"])
    assert '% from "," (t = 6)' in labelled.sentences()[0] and labelled.strips()[0].columns == (*"abcdef,",)
    with pytest.raises(ShapeError, match="2 labels for T = 7"):
        flow.truncation(made("gru before new"), given_x(), 2, labels=["a", "b"])
    for at in (T, [0, -T - 1], [], 1.5, "a", True, [None], [1.0], np.float64(1)):
        with pytest.raises(OptionError, match="at names"):
            flow.shares(made("gru before new"), given_x(), at=at)


# -- truncated -------------------------------------------------------------------------------------------------------


def truncated_by_hand(layer: nn.Recurrent, x: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Window by window, the state carried over without its history, as the training loop does it."""
    layer.zero_grad()
    state = None
    for start in range(0, T, k):
        output, state = layer(x[start : start + k], state)
        output.sum().backward()
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    return {name: p.grad.numpy() for name, p in layer.named_parameters()}


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 9])
def test_truncation_is_what_windows_with_a_detached_state_give(kind: str, k: int) -> None:
    layer, x = made(kind, 2), given_x()
    found, wanted = flow.truncation(layer, x, k), truncated_by_hand(layer, x, k)
    layer.zero_grad()
    layer(x)[0].sum().backward()
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(found.kept.gradient[name], wanted[name], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.full.gradient[name], p.grad.numpy(), rtol=1e-12, atol=1e-12)
    lost = [wanted[name] - p.grad.numpy() for name, p in layer.named_parameters()]
    length = math.sqrt(sum((g**2).sum() for g in lost) / sum((p.grad.numpy() ** 2).sum() for p in layer.parameters()))
    assert found.overall == pytest.approx(length, abs=1e-12)
    assert (found.overall == 0) == (k >= T)


def test_what_is_dropped_by_weight_and_by_step() -> None:
    layer, x, k = made("gru before new"), given_x(), 3
    found = flow.truncation(layer, x, k)
    full, cut = found.full.gradient["cells.0.U"], found.kept.gradient["cells.0.U"]
    wanted = np.linalg.norm((full - cut)[:, :H]) / np.linalg.norm(full[:, :H])
    assert found.dropped["cells.0.U_z"] == pytest.approx(wanted)
    steps = found.by_step["cells.0.W_n"]
    assert not steps[6:].any(), "nothing is cut after the last window's start"
    assert steps[0] < steps[1] < steps[2] and steps[3] < steps[4] < steps[5], "the end of a window loses most"
    assert np.isnan(found.by_step["cells.0.U_r"][0]), "h_0 = 0 gives U nothing that could be dropped"
    for bad in (0, -1, 2.5, True):
        with pytest.raises(OptionError, match="k"):
            flow.truncation(layer, x, bad)


def test_backwards_the_cuts_count_from_the_end() -> None:
    found = flow.truncation(made("rnn tanh", bidirectional=True), given_x(), 3)
    forward, backward = found.by_step["cells.0.W"], found.by_step["cells.1.W"]
    assert not forward[6:].any() and not backward[:1].any() and backward[4] > backward[5] > backward[6] > 0


@pytest.mark.parametrize(
    ("owner", "function", "old", "new"),
    [
        (unrolled, "_with_record_of_steps", "% cut == 0", "% (cut + 1) == 0"),
        (unrolled, "_with_record_of_steps", "walk.states and ", "len(walk.states) > cut and "),
        (shares_module, "truncation", "(None, k)", "(None, k + 1)"),
    ],
)
def test_the_checks_of_truncation_notice(
    monkeypatch: pytest.MonkeyPatch, owner: object, function: str, old: str, new: str
) -> None:
    broken(monkeypatch, owner, function, old, new)
    with pytest.raises(AssertionError):
        for k in (1, 2):
            test_truncation_is_what_windows_with_a_detached_state_give("gru before new", k)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cells.{walk.number}", "cells.{len(walks) - 1 - walk.number}"),
        ("np.stack([step[weight] for step in steps])", "np.stack([step[weight] for step in steps[1:] + steps[1:2]])"),
        ("else [at]", "else [0]"),
    ],
)
def test_the_checks_of_the_sum_notice(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    broken(monkeypatch, shares_module, "_taken_apart", old, new)
    with pytest.raises((AssertionError, KeyError)):
        for at in (None, -1):
            test_the_contributions_add_up_to_what_backward_gives("gru before new", True, at)


def test_the_check_of_one_contribution_notices_steps_that_are_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over steps that is right, of contributions in the wrong order."""
    broken(monkeypatch, shares_module, "_taken_apart", "for step in steps])", "for step in steps[::-1]])")
    test_the_contributions_add_up_to_what_backward_gives("gru before new", True, None)
    with pytest.raises(AssertionError):
        test_one_contribution_by_central_differences("gru before new")


def test_the_steps_are_those_of_the_layer_itself() -> None:
    """The walk that is measured and the layer's own, by steps, are one computation."""
    layer, x = made("lstm"), given_x()
    (walk,) = unrolled.unrolled(layer, x)
    zeros = layer.cells[0].checked_state(None, (N,), "h")
    wanted = folding.steps(layer.cells[0], tg.tensor(x), (zeros, zeros), True, T, False)
    for mine, (theirs, _) in zip(walk.states, wanted, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
