"""Our CUDA kernels, run on the CPU by the shim, compute what NumPy computes, in as few launches as promised.

With a GPU, the same comparisons run on it. The text of the kernels is broken on purpose at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakecupy
import numpy as np
import pytest
import shim
from devices import GPU_BACKENDS, register_fake

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.backend import resolve
from tinygrad_rnn.backend.kernels import loader, sequence, training
from tinygrad_rnn.nn import fused, gates
from tinygrad_rnn.nn.layouts import BLOCKS, Columns

pytestmark = pytest.mark.skipif(bool(shim.available()), reason=str(shim.available()))

LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "RNN": (nn.RNN, {}),
    "RNN relu": (nn.RNN, {"activation": "relu"}),
    "MinimalGRU": (nn.MinimalGRU, {}),
    "GRU": (nn.GRU, {}),
    "GRU old": (nn.GRU, {"update": "old"}),
    "GRU after": (nn.GRU, {"reset": "after"}),
    "GRU after old c": (nn.GRU, {"reset": "after", "update": "old", "recurrent_bias": True}),
    "LSTM": (nn.LSTM, {}),
}
WAYS = ("steps", "graph", "persistent")
GATES = {
    "RNN": gates.RNNGates(), "RNN relu": gates.RNNGates("relu"), "MinimalGRU": gates.MinimalGRUGates(),
    "GRU": gates.GRUGates(), "GRU old": gates.GRUGates("old"), "GRU after": gates.GRUAfterGates(),
    "GRU after old": gates.GRUAfterGates("old"), "LSTM": gates.LSTMGates(),
}  # fmt: skip
FLOAT = np.dtype(np.float32)
ON = ["fakecupy", *GPU_BACKENDS]


def drawn(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def passed(
    backend: str, kind: str, way: str, *, T: int = 5, N: int = 3, I: int = 4, H: int = 6, lengths: Any = None,  # noqa: E741
    times: int = 1, dtype: Any = np.float64, **options: Any,
) -> list[np.ndarray]:  # fmt: skip
    """Everything that comes out of a layer and of its way back, after as many passes as `times`."""
    make, settings = LAYERS[kind]
    with tg.use_backend(backend):
        tg.seed(3)
        layer = make(I, H, dtype=dtype, mode=way, **settings, **options)
        names = layer.cell_type.states
        x = tg.tensor(drawn(T, N, I, dtype=dtype), requires_grad=True)
        starts = {
            f"{name}_0": tg.tensor(drawn(len(layer.cells), N, H, seed=i + 1, dtype=dtype), requires_grad=True)
            for i, name in enumerate(names)
        }
        for _ in range(times):
            for leaf in (x, *starts.values(), *layer.parameters()):
                leaf.grad = None
            output, final = layer(x, lengths=lengths, **starts)
            finals = final if isinstance(final, tuple) else (final,)
            loss = (output * output).sum() + sum((s * s * s).sum() for s in finals)
            loss.backward(retain_graph=False)
        found = [output, *finals, x.grad, *[s.grad for s in starts.values()], *[p.grad for p in layer.parameters()]]
        return [each.numpy().copy() for each in found]


def same(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float = 1e-11) -> bool:
    pairs = list(zip(found, wanted, strict=True))
    return all(np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0)) for a, b in pairs)


# -- whole layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [3, 5, 0]], ids=["whole", "lengths"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("backend", ON)
def test_every_way_gives_what_numpy_gives(backend: str, kind: str, way: str, lengths: Any) -> None:
    options = {"bidirectional": True, "lengths": lengths}
    wanted = passed("numpy", kind, "auto", **options)
    assert same(passed(backend, kind, way, times=3 if way == "graph" else 1, **options), wanted)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["GRU", "GRU after old c", "LSTM"])
def test_so_do_float32_segments_one_step_one_sequence_and_no_bias(kind: str, way: str) -> None:
    for options in (
        {"dtype": np.float32}, {"checkpoint": 2}, {"checkpoint": 3, "lengths": [5, 1, 2]}, {"T": 1}, {"N": 1},
        {"H": 1, "I": 1}, {"bias": False}, {"num_layers": 2, "bidirectional": True}, {"N": 9, "H": 33},
    ):  # fmt: skip
        wanted = passed("numpy", kind, "auto", **options)
        found = passed("fakecupy", kind, way, times=3, **options)
        assert same(found, wanted, 3e-5 if "dtype" in options else 1e-11), options


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU with little shared memory: some rows are staged at a time, and larger weights do not fit."""
    monkeypatch.setattr(fakecupy, "SHARED_MEMORY", 3000)
    register_fake()
    yield
    monkeypatch.undo()
    register_fake()


@pytest.mark.parametrize("kind", ["GRU", "GRU after", "LSTM"])
def test_a_batch_is_staged_in_parts_where_shared_memory_is_small(kind: str, small_memory: None) -> None:
    kernels, N, H = resolve("fakecupy")[0].xp.fused, 20, 13
    for back in (False, True):
        found = sequence.fit(kernels, GATES[kind], N, H, 8, back)
        assert found and found.units == 2 and 4 <= found.rows < N and found.shared <= 3000
    assert same(passed("fakecupy", kind, "persistent", N=N, H=H), passed("numpy", kind, "auto", N=N, H=H))


def test_what_does_not_fit_shared_memory_takes_another_way(small_memory: None) -> None:
    kernels = resolve("fakecupy")[0].xp.fused
    assert sequence.fit(kernels, GATES["LSTM"], 2, 64, 4, False) is None
    assert sequence.plan(kernels, "persistent", GATES["LSTM"], 2, 64, FLOAT) == "graph"
    assert sequence.plan(kernels, "auto", GATES["LSTM"], 2, 64, FLOAT) == "graph"
    assert same(passed("fakecupy", "LSTM", "persistent", H=64), passed("numpy", "LSTM", "auto", H=64))


def test_a_kernel_that_needs_too_many_registers_takes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more threads than a block of it can have, CuPy would launch fewer blocks than there are units."""
    register_fake()
    kernels = resolve("fakecupy")[0].xp.fused
    monkeypatch.setattr(fakecupy.RawKernel, "max_threads_per_block", kernels.threads - 32)
    assert sequence.plan(kernels, "persistent", GATES["LSTM"], 2, 8, FLOAT) == "graph"
    assert sequence.plan(kernels, "persistent", GATES["LSTM"], 2, 8, FLOAT) == "graph"  # remembered
    register_fake()


def test_the_way_is_chosen_by_size_unless_one_is_named() -> None:
    kernels, gru = resolve("fakecupy")[0].xp.fused, GATES["GRU"]
    assert sequence.plan(kernels, "auto", gru, 1, 32, FLOAT) == "persistent"
    assert sequence.plan(kernels, "auto", gru, 4096, 32, FLOAT) == "graph"
    assert {way: sequence.plan(kernels, way, gru, 2, 32, FLOAT) for way in WAYS} == {way: way for way in WAYS}


def test_other_dtypes_go_without_kernels() -> None:
    found, wanted = (passed(backend, "GRU", "auto", dtype=np.float16) for backend in ("fakecupy", "numpy"))
    assert same(found, wanted, 0)  # NumPy's arithmetic, to the last bit


# -- launches -----------------------------------------------------------------------------------------------------


def launches(kind: str, way: str, T: int, times: int = 1) -> tuple[int, int]:
    """Launches of the last forward and of the last backward pass of several."""
    make, settings = LAYERS[kind]
    with tg.use_backend("fakecupy"):
        layer, x = make(4, 6, mode=way, **settings), tg.tensor(drawn(T, 3, 4, dtype=np.float32), requires_grad=True)
        g = tg.tensor(drawn(T, 3, 6, dtype=np.float32))
        for _ in range(times):
            with fakecupy.counting() as forward:
                y, _ = layer(x)
            with fakecupy.counting() as backward:
                y.backward(g)
    assert forward["h2d"] == forward["syncs"] == backward["h2d"] == backward["syncs"] == 0
    return forward["launches"], backward["launches"]


@pytest.mark.parametrize(
    ("kind", "per_step"), [(kind, 4 if kind in ("GRU", "GRU old") else 2) for kind in LAYERS], ids=list(LAYERS)
)
def test_a_step_is_two_launches_each_way_or_four_with_two_products(kind: str, per_step: int) -> None:
    (f_5, b_5), (f_9, b_9) = launches(kind, "steps", 5), launches(kind, "steps", 9)
    assert (f_9 - f_5) / 4 == (b_9 - b_5) / 4 == per_step
    assert f_5 - 5 * per_step <= 6 and b_5 - 5 * per_step <= 14  # before and after the loop


@pytest.mark.parametrize("kind", LAYERS)
def test_the_persistent_way_has_as_few_launches_however_long_the_sequence(kind: str) -> None:
    assert launches(kind, "persistent", 3) == launches(kind, "persistent", 9)


def test_a_graph_is_captured_once_and_replayed_where_its_arrays_lie_again() -> None:
    with fakecupy.counting() as first:
        passed("fakecupy", "LSTM", "graph")
    assert first["replayed"] == 0  # the first call of a kind loads the kernels
    kernels = resolve("fakecupy")[0].xp.fused
    here, arrays, done = kernels.here(), [fakecupy.zeros(3), fakecupy.zeros(3)], []
    launch = lambda: fakecupy._launch(lambda: done.append(1))  # noqa: E731
    for step, array in enumerate([0, 0, 0, 1, 1, 0]):
        with fakecupy.counting() as count:
            sequence.replay(kernels, "a kind", [arrays[array]], launch)
        assert count["replayed"] == (step > 0) and len(done) == step + 1
    assert sum(place[0] == "a kind" for place in here.graphs) == 2


def test_capturing_is_given_up_where_arrays_never_come_back() -> None:
    kernels = resolve("fakecupy")[0].xp.fused
    kept, done = [fakecupy.zeros(2) for _ in range(30)], []
    with fakecupy.counting() as count:
        for array in kept:
            sequence.replay(kernels, "another kind", [array], lambda: fakecupy._launch(lambda: done.append(1)))
    assert len(done) == 30 and count["replayed"] == sequence.PATIENCE
    assert len(kernels.here().graphs) <= sequence.GRAPHS


def test_forgotten_rooms_take_their_graphs_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "ROOMS", 3)
    register_fake()
    for H in (5, 6, 7, 8):
        wanted = passed("numpy", "GRU after", "auto", H=H)
        assert same(passed("fakecupy", "GRU after", "graph", H=H, times=4), wanted)
    register_fake()


# -- the arithmetic of a step: the same arguments, the same numbers ----------------------------------------------------


def columns_of(blocks: np.ndarray, have: tuple[str, ...], want: tuple[str, ...]) -> fakecupy.ndarray:
    """Blocks (G, ..., H) as a kernel has them: in its order, side by side in memory."""
    ordered = np.moveaxis(np.stack([blocks[have.index(name)] for name in want]), 0, -2)
    return fakecupy.ndarray._around(np.moveaxis(np.ascontiguousarray(ordered), -2, 0))


@pytest.mark.parametrize("over", [False, True], ids=["all run", "one is over"])
@pytest.mark.parametrize("kind", GATES)
def test_a_step_forward_and_back_is_that_of_the_reference(kind: str, over: bool) -> None:
    these, (N, H) = GATES[kind], (3, 5)
    kernels = resolve("fakecupy")[0].xp.fused
    layout, name = Columns(kernels.gemm), type(these).__name__
    blocks, preactivations = layout.orders(these.packed, these.blocks, these.preactivations)
    G, S, X = len(these.packed), len(these.preactivations), these.extra
    U, b, c = drawn(H, G * H), drawn(G * H), drawn(H)
    state = tuple(drawn(N, H, seed=7 + i) for i in range(these.states))
    outside = np.array([[False], [True], [False]]) if over else None
    fake = lambda x: None if x is None else fakecupy.array(x)  # noqa: E731
    numpy_xp, fake_xp = (resolve(backend)[0].xp for backend in ("numpy", "fakecupy"))

    # forward: the reference has the biases in a, with the sign of `negated`; kernels add them
    given = drawn(G, N, H, seed=9)
    kept = np.concatenate([given + BLOCKS.stacked(np, b, these.packed, these.blocks)[:, None], np.zeros((X, N, H))])
    kept[:G][these.negated] *= -1
    new = tuple(np.empty((N, H)) for _ in state)
    step = these.forward(numpy_xp, BLOCKS, BLOCKS.stacked(np, U, these.packed, these.blocks), b, c, new[0])
    step(kept[:G], kept[G:], state, new, outside)
    order = (*blocks, *"x" * X)
    theirs = columns_of(np.concatenate([given, np.zeros((X, N, H))]), (*these.blocks, *"x" * X), order)
    fresh = tuple(fakecupy.empty((N, H)) for _ in state)
    stacked = layout.stacked(fake_xp, fake(U), these.packed, blocks)
    run = kernels.gates[f"{name}.forward"](these, fake_xp, layout, stacked, fake(b), fake(c), fresh[0])
    run(theirs[:G], theirs[G:], tuple(map(fake, state)), fresh, fake(outside))
    for mine, wanted in zip(fresh, new):
        np.testing.assert_allclose(mine.get(), wanted, rtol=1e-13, atol=1e-15)
    if kind.startswith("RNN"):
        return  # which keeps no gates, and whose slopes the whole layers test
    running = slice(None) if outside is None else ~outside[:, 0]
    wanted = columns_of(kept, (*these.blocks, *"x" * X), order)
    np.testing.assert_allclose(theirs.get()[:, running], wanted.get()[:, running], rtol=1e-13, atol=1e-15)

    # back
    before, after = [s[None] for s in state], [s[None] for s in new]
    d, keep = np.empty((S, 1, N, H)), np.empty((1, N, H))
    these.slopes(numpy_xp, kept[:G, None], kept[G:, None], before, after, d, keep)
    room = columns_of(np.zeros((S, 1, N, H)), preactivations, preactivations)
    keeps = fakecupy.empty((1, N, H))
    lifted = fakecupy.ndarray._around(wanted._buffer[:, None])
    here = [[fake(x) for x in xs] for xs in (before, after)]
    kernels.gates[f"{name}.slopes"](these, fake_xp, lifted[:G], lifted[G:], *here, room, keeps)
    np.testing.assert_allclose(keeps.get(), keep, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(room.get(), columns_of(d, these.preactivations, preactivations).get(), rtol=1e-12)
    g, grads = (
        drawn(N, H, seed=11),
        tuple(drawn(N, H, seed=12 + i) for i in range(these.states)),
    )
    named = lambda order: tuple("n" if each == "q" else each for each in order[S - G :])  # noqa: E731
    turned = BLOCKS.turned(np, U, these.packed, named(these.preactivations))
    theirs_back = tuple(map(fake, grads))
    these.backward(numpy_xp, BLOCKS, turned, g)(kept[:G], d[:, 0], keep[0], g, grads, outside)
    turned = layout.turned(fake_xp, fake(U), these.packed, named(preactivations))
    back = kernels.gates[f"{name}.backward"](these, fake_xp, layout, turned, fake(g))
    back(wanted[:G], room[:, 0], keeps[0], fake(g), theirs_back, fake(outside))
    for mine, wanted_grad in zip(theirs_back, grads):
        np.testing.assert_allclose(mine.get(), wanted_grad, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        room.get()[:, 0], columns_of(d[:, 0], these.preactivations, preactivations).get(), rtol=1e-12, atol=1e-14
    )


# -- loss, Adam, clipping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 5, 33), (70, 100)])
def test_cross_entropy_and_its_slope_are_those_of_numpy(shape: tuple[int, ...], dtype: Any) -> None:
    results = []
    for backend in ("numpy", *ON):
        with tg.use_backend(backend):
            logits = tg.tensor(30 * drawn(*shape, dtype=dtype), requires_grad=True)
            targets = tg.tensor(np.random.default_rng(1).integers(0, shape[-1], shape[:-1]))
            loss = nn.cross_entropy(logits, targets, ignore_index=0, reduction="sum")
            loss.backward()
            results.append([loss.numpy(), logits.grad.numpy()])
    for found in results[1:]:
        assert same(found, results[0], 1e-5 if dtype is np.float32 else 1e-12)
        assert [x.dtype for x in found] == [np.dtype(dtype)] * 2


def test_a_target_out_of_range_wraps_around_as_in_cupy() -> None:
    with tg.use_backend("fakecupy"):
        found = []
        for targets in ([-1, 4, 1], [3, 0, 1]):
            logits = tg.tensor(drawn(3, 4), requires_grad=True)
            losses = nn.cross_entropy(logits, tg.tensor(targets), reduction="none")
            losses.sum().backward()
            found.append([losses.numpy(), logits.grad.numpy()])
    for wrapped, inside in zip(*found):
        np.testing.assert_array_equal(wrapped, inside)


def test_each_gpu_has_ones_of_its_own() -> None:
    for device in ("fakecupy", "fakecupy:1", "fakecupy"):
        assert same(passed(device, "GRU", "steps"), passed("numpy", "GRU", "auto"))


def test_a_nan_among_logits_is_a_nan_in_the_loss() -> None:
    with tg.use_backend("fakecupy"):
        logits = tg.tensor([[1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]])
        losses = nn.cross_entropy(logits, tg.tensor([0, 1]), reduction="none").numpy()
    assert np.isnan(losses).tolist() == [True, False]


SIZES = [(4, 5), (7,), (300, 7), (1,), *[(3, 2)] * (training.TABLE + 3)]  # more than one table


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: tg.optim.Adam(p, 0.01), lambda p: tg.optim.Adam(p, 0.01, weight_decay=0.1),
        lambda p: tg.optim.AdamW(p, 0.01, weight_decay=0.1, betas=(0.5, 0.75)),
    ],
    ids=["Adam", "Adam with decay", "AdamW"],
)  # fmt: skip
def test_adam_and_clipping_are_those_of_numpy(make: Any, dtype: Any) -> None:
    results = []
    for backend in ("numpy", *ON):
        with tg.use_backend(backend):
            p = [tg.tensor(drawn(*shape, seed=i, dtype=dtype), requires_grad=True) for i, shape in enumerate(SIZES)]
            optimizer, found = make(p), []
            for step in range(3):
                for i, each in enumerate(p):
                    each.grad = tg.tensor(drawn(*each.shape, seed=100 * step + i, dtype=dtype))
                p[1].grad = p[1].grad if step else None  # it starts a step later
                found.append(tg.optim.clip_grad_norm_(p, 3.0).numpy())
                found += [each.grad.numpy() for each in p if each.grad is not None]
                with fakecupy.counting() as count:
                    optimizer.step()
            results.append([*found, *[each.numpy() for each in p]])
        if backend == "fakecupy":
            assert count["launches"] == 2  # one for each table
    for found in results[1:]:
        assert same(found, results[0], 1e-5 if dtype is np.float32 else 1e-12)


def test_clipping_is_two_launches_and_knows_nan_and_infinity() -> None:
    with tg.use_backend("fakecupy"):
        p = tg.tensor(np.ones(5), requires_grad=True)
        for values, norm, wanted in (
            ([3.0, 4.0, 0, 0, 0], 5.0, [0.6, 0.8, 0, 0, 0]),
            ([0.1, 0, 0, 0, 0], 0.1, [0.1, 0, 0, 0, 0]),
            ([np.nan, 1, 0, 0, 0], np.nan, [np.nan] * 5),
        ):
            p.grad = tg.tensor(np.array(values))
            with fakecupy.counting() as count:
                found = tg.optim.clip_grad_norm_([p], 1.0)
            assert count["launches"] == 2
            np.testing.assert_allclose(found.numpy(), norm, rtol=1e-12)
            np.testing.assert_allclose(p.grad.numpy(), wanted, rtol=1e-5)


def test_a_subclass_that_changes_adam_is_not_passed_over() -> None:
    class Still(tg.optim.Adam):
        def update(self, xp: Any, p: Any, g: Any, buffers: Any, t: int) -> Any:
            return p + 0

    with tg.use_backend("fakecupy"):
        p = tg.tensor(np.ones(3), requires_grad=True)
        p.grad = tg.tensor(np.ones(3))
        Still([p], 0.1).step()
    assert (p.numpy() == 1).all()


# -- under sanitizers ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "thread"])
@pytest.mark.parametrize("cell", ["RNN", "MINIMAL_GRU", "GRU", "GRU_AFTER", "LSTM"])
def test_whole_sequences_are_clean_under_the_sanitizers(cell: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every launch of a forward and a backward pass, on shapes that do not divide evenly."""
    reports, plain = [], shim.Kernel.__call__

    def watched(self: Any, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
        if self.name.startswith("sequence"):
            options = ("-std=c++17", "-DREAL=double", "-DCOOPERATIVE", f"-DCELL={cell}")
            reports.append(
                shim.sanitized(loader.source("sequence"), options, kind, self.name, grid, block, args, shared_mem)
            )
        else:
            plain(self, grid, block, args, shared_mem)

    monkeypatch.setattr(shim.Kernel, "__call__", watched)
    name = {"RNN": "RNN", "MINIMAL_GRU": "MinimalGRU", "GRU": "GRU", "GRU_AFTER": "GRU after old c", "LSTM": "LSTM"}[
        cell
    ]
    lengths = [2, 1, 0]
    found = passed("fakecupy", name, "persistent", T=2, H=9, lengths=lengths)
    assert reports == ["", ""]
    assert same(found, passed("numpy", name, "auto", T=2, H=9, lengths=lengths))


# -- wrong kernels -------------------------------------------------------------------------------------------------

WRONG = {  # file, what stands there, what would be wrong, and the layer and the way that notice
    "the new state on the wrong side": ("gates", "h + z * (candidate - h)", "h + z * (h - candidate)", "GRU", "steps"),
    "reset and update swapped": (
        "gates", "REAL r = sigmoid(a[H] + p[step]", "REAL r = sigmoid(a[0] + p[0]", "GRU after", "steps"),
    "a bias forgotten": (
        "gates", "a[H] = tanh(a[H] + p[step] + bias(b, H))", "a[H] = tanh(a[H] + p[step])", "MinimalGRU", "steps"),
    "the slope of a gate without 1 - r": (
        "gates", "to[2 * H] = to[0] * gated * (1 - r)", "to[2 * H] = to[0] * gated", "GRU after", "steps"),
    "the cell state not carried": ("gates", "*dc = of_c * a[H]", "*dc = of_c", "LSTM", "steps"),
    "the reset gate's share of dh": ("gates", "*dh * keep + a[H] * reset", "*dh * keep", "GRU", "steps"),
    "over sequences go on": ("gates", "bool over = outside && outside[n];", "bool over = false;", "RNN", "steps"),
    "a weight too few": (
        "sequence", "k < units * GATE_COUNT * H; k", "k < units * GATE_COUNT * H - 1; k", "LSTM", "persistent"),
    "the last row of a group": (
        "sequence", "r + b < count) sums", "r + b + 1 < count) sums", "GRU after", "persistent"),
    "the gradients of n for those of q": (
        "sequence", "lead = CELL == GRU_AFTER ? H : 0", "lead = 0", "GRU after", "persistent"),
    "a step back not carried": ("sequence", "if (t) dh[i] += sum[0];", ";", "RNN", "persistent"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, right, broken, kind, way = WRONG[wrong]
    sound = loader.text
    assert right in sound(file), "the text has changed: choose another way to break it"
    monkeypatch.setattr(
        loader, "text", lambda name: sound(name).replace(right, broken) if name == file else sound(name)
    )
    register_fake()
    wanted = passed("numpy", kind, "auto", lengths=[3, 5, 0])
    try:
        found = passed("fakecupy", kind, way, lengths=[3, 5, 0])
    finally:
        monkeypatch.undo()
        register_fake()
    assert not same(found, wanted, 1e-6)
    assert fused.can(LAYERS[kind][0](2, 2).cells[0])
