"""Layers without time, and the initialisers."""

from __future__ import annotations

import numpy as np
import pytest
from golden.loops import filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import BackendError, DtypeError, IndexOutOfRange, OptionError, ShapeError
from tinygrad_rnn.nn.initializers import INITIALIZERS, constant


def test_linear(backend):
    layer = nn.Linear(4, 3, dtype=np.float64)
    x = filled("x", 5, 2, 4)
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), x @ layer.W.numpy() + layer.b.numpy(), atol=1e-15)
    assert abs(layer.W.numpy()).max() <= 0.5 and abs(layer.b.numpy()).min() > 0
    bare = nn.Linear(4, 3, bias=False, dtype=np.float64)
    np.testing.assert_allclose(bare(tg.tensor(x)).numpy(), x @ bare.W.numpy(), atol=1e-15)
    assert [name for name, _ in bare.named_parameters()] == ["W"]
    tg.gradcheck(lambda x: layer(x), tg.tensor(x[0]), order=2)
    with pytest.raises(ShapeError, match=r"x has shape \(5, 3\), but Linear takes input_size=4.*\(5, 4\) would fit"):
        layer(tg.ones((5, 3)))
    with pytest.raises(OptionError, match="output_size is 0"):
        nn.Linear(4, 0)


def test_embedding(backend):
    layer = nn.Embedding(7, 3, dtype=np.float64)
    ids = np.array([[1, 6, 1], [0, 1, 2]])
    for given in (ids, ids.tolist(), tg.tensor(ids), tg.tensor(ids, backend="numpy"), ids.astype(np.uint8)):
        y = layer(given)
        assert y.backend == backend
        np.testing.assert_array_equal(y.numpy(), layer.W.numpy()[ids])
    weight = filled("weight", 2, 3, 3)
    (y * tg.tensor(weight)).sum().backward()
    wanted = np.zeros((7, 3))
    for place in np.ndindex(ids.shape):
        wanted[ids[place]] += weight[place]
    np.testing.assert_allclose(layer.W.grad.numpy(), wanted, atol=1e-15)
    assert layer(np.zeros((0, 2), int)).shape == (0, 2, 3)


def test_embedding_out_of_range(backend):
    layer = nn.Embedding(7, 3)
    for ids, worst in (([2, 7, 1], 7), ([2, -1, 6], -1), ([[99]], 99)):
        words = rf"index {worst} is out of range for Embedding of 7 symbols, which takes 0 to 6 \(in embedding\)"
        with pytest.raises(IndexOutOfRange, match=words):
            layer(ids)
        with pytest.raises(IndexOutOfRange, match=words):
            layer(np.array(ids))
        with tg.debug(), pytest.raises(IndexOutOfRange, match=words):
            layer(tg.tensor(ids))
    with pytest.raises(DtypeError, match="Embedding takes integers, not float32"):
        layer(tg.ones(3))


def test_embedding_of_ids_on_a_gpu_needs_its_rows_there(gpu):
    with tg.use_backend("numpy"):
        layer = nn.Embedding(7, 3)
    with pytest.raises(BackendError, match=rf"ids lie on {gpu}.*, but the rows of Embedding on numpy"):
        layer(tg.tensor([1, 2]))


def test_dropout(backend):
    x = tg.tensor(filled("x", 40, 50), requires_grad=True)
    layer = nn.Dropout(0.25)
    tg.seed(4)
    y = layer(x)
    kept = y.numpy() != 0
    np.testing.assert_allclose(y.numpy()[kept], x.numpy()[kept] / 0.75, rtol=1e-15)
    assert 0.70 < kept.mean() < 0.80
    assert (layer(x).numpy() != 0).tolist() != kept.tolist()
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.where(kept, 1 / 0.75, 0), rtol=1e-15)
    with tg.use_backend("numpy"):
        tg.seed(4)
        np.testing.assert_array_equal(layer(tg.tensor(filled("x", 40, 50))).numpy(), y.numpy())
    assert layer.eval()(x) is x and nn.Dropout(0)(x) is x
    assert layer.train()(tg.ones((3, 4))).dtype == np.float32
    for p in (1, 1.0, -0.5, "half", None, True):
        with pytest.raises(OptionError, match="0 <= p < 1"):
            nn.Dropout(p)


def test_checkpoint_replays_dropout(backend):
    layer = nn.Sequential(nn.Linear(3, 4, dtype=np.float64), nn.Dropout(0.5))
    x = tg.tensor(filled("x", 6, 3), requires_grad=True)
    gradients = []
    for run in (layer, lambda x: tg.checkpoint(layer, x)):
        tg.seed(2)
        layer.zero_grad()
        x.grad = None
        run(x).sum().backward()
        gradients.append([x.grad.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    for one, other in zip(*gradients):
        np.testing.assert_array_equal(one, other)


def test_layer_norm(backend):
    layer = nn.LayerNorm(6, eps=1e-3, dtype=np.float64)
    layer.gain.assign_(filled("gain", 6))
    layer.shift.assign_(filled("shift", 6))
    x = filled("x", 4, 3, 6)
    away = x - x.mean(-1, keepdims=True)
    wanted = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-3) * filled("gain", 6) + filled("shift", 6)
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), wanted, rtol=0, atol=1e-14)
    tg.gradcheck(lambda x: layer(x), tg.tensor(x[:2, 0]), order=2, tolerance=1e-7)
    with pytest.raises(ShapeError, match=r"LayerNorm takes \(5, 6\)"):
        layer(tg.ones((5, 4)))
    with pytest.raises(OptionError, match="eps is 'small'"):
        nn.LayerNorm(6, eps="small")


def test_sequential(backend):
    model = nn.Sequential(nn.Linear(3, 4), tg.tanh, nn.Linear(4, 2))
    x = tg.tensor(filled("x", 5, 3), dtype=np.float32)
    np.testing.assert_array_equal(model(x).numpy(), model[2](tg.tanh(model[0](x))).numpy())
    assert len(model) == 3 and [n for n, _ in model.named_parameters()] == [
        f"layers.{i}.{p}" for i in (0, 2) for p in "Wb"
    ]


def test_lists_and_arrays_are_taken_as_by_primitives(backend):
    """What a Tensor gives, an array gives, and a list of the same numbers, in the dtype of the weights."""
    for dtype in (np.float32, np.float64):
        x = np.array([[0.1, -2.0, 0.5], [1.5, 0.25, -1.0]], dtype)
        for layer in (nn.Linear(3, 4, dtype=dtype), nn.LayerNorm(3, dtype=dtype), nn.Dropout().eval()):
            expected = layer(tg.tensor(x))
            for given in (x, x.tolist()):
                found = layer(given)
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
                assert (type(found), found.backend) == (tg.Tensor, backend)
                assert found.dtype == dtype or isinstance(layer, nn.Dropout)
    assert set(nn.Dropout()([[1.0, 1.0, 1.0, 1.0]] * 9).numpy().ravel()) == {0.0, 2.0}
    rows = nn.Embedding(5, 2)
    np.testing.assert_array_equal(rows([[4, 0, 1]]).numpy(), rows(np.array([[4, 0, 1]])).numpy())
    for layer, name in ((nn.Linear(3, 4), "x"), (nn.LayerNorm(3), "x"), (nn.Dropout(), "x"), (rows, "ids")):
        kind = type(layer).__name__.lower()
        with pytest.raises(ShapeError, match=rf"(?s)^{name}: the nested lists .* \(in {kind}\)$"):
            layer([[1, 2], [3]])


# -- initialisers --------------------------------------------------------------------------------------------


def made(name, shape, size=4):
    return INITIALIZERS[name](np.random.default_rng(7), shape, size)


def test_initialisers_by_name():
    assert sorted(INITIALIZERS) == ["glorot", "normal", "ones", "orthogonal", "uniform", "zeros"]
    wide = made("uniform", (200, 300), 16)
    assert 0.2499 < abs(wide).max() <= 0.25 and abs(wide.mean()) < 1e-3
    glorot = made("glorot", (200, 300))
    assert 0.999 * np.sqrt(6 / 500) < abs(glorot).max() <= np.sqrt(6 / 500)
    assert abs(made("normal", (200, 300)).std() - 1) < 0.01
    tall, flat = made("orthogonal", (7, 4)), made("orthogonal", (4, 7))
    np.testing.assert_allclose(tall.T @ tall, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-14)
    assert (made("zeros", (2, 3)) == 0).all() and (made("ones", (2, 3)) == 1).all()
    assert (constant(0.3)(np.random.default_rng(1), (2, 3), 9) == 0.3).all()
    for name in ("glorot", "orthogonal"):
        assert (made(name, (5,)) == 0).all()


def test_orthogonal_matrices_favour_no_rotation():
    """The signs on the diagonal of QR are undone: otherwise all first entries would have one sign."""
    entries = [INITIALIZERS["orthogonal"](np.random.default_rng(k), (3, 3), 3)[0, 0] for k in range(40)]
    assert 8 < sum(entry > 0 for entry in entries) < 32


def test_each_gate_is_drawn_by_itself():
    cell = nn.GRUCell(4, 3, init={"U": "orthogonal", "W": "glorot", "b": 0.5}, dtype=np.float64)
    for block in np.split(cell.U.numpy(), 3, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(3), atol=1e-14)
    assert abs(cell.W.numpy()).max() <= np.sqrt(6 / 7)
    assert (cell.b.numpy() == 0.5).all()


def test_other_forms_of_init():
    drawn = nn.GRUCell(4, 3, init=lambda rng, shape, size: np.full(shape, float(size)))
    assert (drawn.W.numpy() == 3).all()
    assert (nn.Linear(4, 3, init={"b": "zeros"}).b.numpy() == 0).all()
    assert abs(nn.Linear(4, 3, init={"b": "zeros"}).W.numpy()).min() > 0
    assert (nn.Embedding(5, 3, init="zeros").W.numpy() == 0).all()
    with pytest.raises(OptionError, match=r"no initialiser is called 'he'; there are uniform, normal, glorot"):
        nn.Linear(4, 3, init="he")
    with pytest.raises(OptionError, match="init= names 'U'; the parameters are W, b"):
        nn.Linear(4, 3, init={"U": "zeros"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda init: nn.Linear(4, 3, init=init), r"init of W returned shape \(2, 5\), but W needs \(4, 3\)$"),
        (
            lambda init: nn.GRU(4, 3, init={"U": init}),
            r"U returned shape \(2, 5\), but U needs \(3, 3\) for each gate$",
        ),
        (lambda init: nn.Embedding(6, 3, init=init), r"init of W returned shape \(2, 5\), but W needs \(6, 3\)$"),
    ],
)
def test_an_initialiser_that_returns_the_wrong_shape(make, message):
    with pytest.raises(ShapeError, match=message):
        make(lambda rng, shape, size: np.ones((2, 5)))
    with pytest.raises(DtypeError, match=r"^init of [WU]: "):
        make(lambda rng, shape, size: None)
    for strange in (["uniform"], None, True):
        with pytest.raises(OptionError, match="no initialiser is called"):
            make(strange)


def test_an_initialiser_may_return_lists_or_tensors(backend):
    for form in (np.ndarray.tolist, tg.tensor):
        layer = nn.Linear(2, 3, init=lambda rng, shape, size, form=form: form(np.full(shape, 0.1)), dtype=np.float64)
        assert (layer.W.numpy() == 0.1).all() and layer.b.shape == (3,)


def test_weights_are_the_same_on_every_backend(gpu):
    for make in (nn.Linear, nn.GRUCell, nn.LSTM, nn.Embedding):
        here = make(4, 3, rng=np.random.default_rng(3))
        with tg.use_backend("numpy"):
            there = make(4, 3, rng=np.random.default_rng(3))
        for one, other in zip(here.parameters(), there.parameters()):
            assert (one.backend, other.backend) == (gpu, "numpy")
            np.testing.assert_array_equal(one.numpy(), other.numpy())
