"""A training step stays on its device, and gives the same losses wherever it runs."""

from __future__ import annotations

from collections import Counter
from functools import partial

import fakecupy
import numpy as np
import pytest
from devices import ReadBack, no_reads, without_kernels

import tinygrad_rnn as tg

T, N, V, E, H = 6, 3, 7, 4, 5


def losses(backend: str, steps: int, dtype: type = np.float32) -> tuple[list[float], Counter[str]]:
    """Train a small GRU, written out in operations, and read nothing inside a step; the losses, and what was moved."""
    rng = np.random.default_rng(11)
    draw = lambda *shape: tg.tensor(rng.standard_normal(shape).astype(dtype) * 0.4, requires_grad=True, backend=backend)  # noqa: E731
    table, head, start = draw(V, E), draw(H, V), draw(N, H)
    W, U, b = draw(E, 3 * H), draw(H, 3 * H), draw(3 * H)
    weights = [table, head, start, W, U, b]
    text = rng.integers(0, V, (T + 1, N))
    inputs, targets = tg.tensor(text[:-1], backend=backend), tg.tensor(text[1:], backend=backend)
    found, moved = [], Counter()
    for _ in range(steps):
        with no_reads(backend), fakecupy.counting() as count:
            x = table[inputs] @ W + b  # the gates' input parts for all time steps: (T, N, 3H)
            h, states = start, []
            for t in range(T):
                gates = tg.sigmoid(x[t, :, : 2 * H] + h @ U[:, : 2 * H])
                z, r = gates[:, :H], gates[:, H:]
                n = tg.tanh(x[t, :, 2 * H :] + (r * h) @ U[:, 2 * H :])
                h = z * n + (1 - z) * h
                states.append(h)
            scores = tg.log_softmax(tg.stack(states) @ head)
            loss = -tg.take_along_axis(scores, targets.reshape(T, N, 1), 2).mean()
            loss.backward()
            norm = tg.sqrt(sum((p.grad * p.grad).sum() for p in weights))
            for p in weights:
                p.assign_(p - p.grad * (0.5 / tg.maximum(norm, 1.0)))  # clipped without a branch on its value
                p.grad = None
        moved += count
        found.append(loss.item())
    return found, moved


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_are_those_of_numpy(gpu: str, dtype: type) -> None:
    expected, _ = losses("numpy", 30, dtype)
    found, _ = losses(gpu, 30, dtype)
    assert expected[-1] < 0.8 * expected[0]
    if gpu == "fakecupy":
        assert found == expected  # bit for bit
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3 if dtype is np.float32 else 1e-9)


def test_a_step_copies_nothing_either_way() -> None:
    _, moved = losses("fakecupy", 3)
    assert {name: moved[name] for name in ("d2h", "h2d", "syncs")} == {"d2h": 0, "h2d": 0, "syncs": 0}
    assert moved["launches"] > 3 * T


LAYERS = {
    "RNN": partial(tg.nn.RNN, E, H, 2, dropout=0.3),
    "MinimalGRU": partial(tg.nn.MinimalGRU, E, H),
    "GRU": partial(tg.nn.GRU, E, H, update="old", bidirectional=True),
    "GRU after": partial(tg.nn.GRU, E, H, 2, reset="after", recurrent_bias=True, dropout=0.3),
    "LSTM": partial(tg.nn.LSTM, E, H, 2, bidirectional=True),
}
OPTIMIZERS = {
    "SGD": lambda p: tg.optim.SGD(p, 0.3, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: tg.optim.Adam(p, 0.02),
    "AdamW": lambda p: tg.optim.AdamW(p, 0.02, weight_decay=0.1),
    "RMSprop": lambda p: tg.optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
    "Adagrad": lambda p: tg.optim.Adagrad(p, 0.1),
}


def layered(
    backend: str, layer: str, optimizer: str, lengths: bool, fused: bool, steps: int = 6
) -> tuple[list[float], int]:
    """The losses of a model of the package's own layers, trained with nothing read inside a step; copies to the GPU."""
    tg.seed(2)
    rng = np.random.default_rng(13)
    with tg.use_backend(backend):
        embedding, recurrent = tg.nn.Embedding(V, E), LAYERS[layer](fused=fused)
        width = recurrent(tg.zeros((1, 1, E)))[0].shape[-1]
        norm, head = tg.nn.LayerNorm(width), tg.nn.Linear(width, V)
        weights = [p for part in (embedding, recurrent, norm, head) for p in part.parameters()]
        chosen = OPTIMIZERS[optimizer](weights)
        text = rng.integers(0, V, (T + 1, N))
        text[-1, 0] = -1
        inputs, targets = tg.tensor(text[:-1]), tg.tensor(text[1:])
        ends = np.array([T, 2, T - 1]) if lengths else None
        found, copies = [], 0
        for _ in range(steps):
            with no_reads(backend), fakecupy.counting() as count:
                output, _ = recurrent(embedding(inputs), lengths=ends)
                loss = tg.nn.cross_entropy(head(norm(output)), targets, ignore_index=-1)
                chosen.zero_grad()
                loss.backward()
                tg.optim.clip_grad_norm_(weights, 0.5)
                tg.optim.clip_grad_value_(weights, 0.4)
                chosen.step()
            copies += count["h2d"]
            found.append(loss.item())
    return found, copies


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "by steps"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize(("layer", "optimizer"), list(zip(LAYERS, OPTIMIZERS, strict=True)))
def test_layers_and_optimisers_stay_on_the_gpu(
    gpu: str, layer: str, optimizer: str, lengths: bool, fused: bool
) -> None:
    expected, _ = layered("numpy", layer, optimizer, lengths, fused)
    found, copies = layered(gpu, layer, optimizer, lengths, fused)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5 if gpu == "fakecupy" else 1e-3)
    if gpu == "fakecupy":
        assert lengths or copies == 0
        with without_kernels():
            found, _ = layered(gpu, layer, optimizer, lengths, fused)
        assert found == expected  # bit for bit


def test_a_step_that_reads_is_noticed(gpu: str) -> None:
    weight = tg.tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ReadBack), no_reads(gpu):
        float((weight * weight).sum())
    with pytest.raises(ReadBack), no_reads(gpu):
        weight[weight > 2]


def test_the_counters_see_copies_both_ways() -> None:
    weight = tg.tensor(np.ones(3), requires_grad=True, backend="fakecupy")
    with fakecupy.counting() as count:
        loss = (weight * weight).sum()
        if loss > 1:  # the mistake
            loss.backward()
        weight.assign_(np.zeros(3))  # and another one
    assert (count["d2h"], count["syncs"], count["h2d"]) == (1, 1, 1)
