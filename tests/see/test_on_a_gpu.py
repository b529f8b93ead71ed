"""What is shown of arrays on a GPU is what is shown of the same arrays on the host, to the last letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from devices import without_kernels

import tinygrad_rnn as tg
from tinygrad_rnn.see import flow

SHOWN: dict[str, Callable[[Any, Any, Any], str]] = {
    "picture": lambda gru, x, loss: tg.draw(loss).json,
    "unfolded picture": lambda gru, x, loss: tg.draw(loss, expand=True, roll=True).json,
    "page": lambda gru, x, loss: tg.play(loss, expand=True).html,
    "table": lambda gru, x, loss: tg.trace_table(loss).markdown,
    "explanation": lambda gru, x, loss: str(tg.explain(gru.cells[0].U, of=loss)),
    "explanation of an element": lambda gru, x, loss: str(tg.explain(x, of=loss, index=(0, 1, 2))),
    "gates": lambda gru, x, loss: str(flow.gates(gru, x)),
    "gradient through time": lambda gru, x, loss: str(flow.gradient_through_time(gru, x)),
    "shares": lambda gru, x, loss: str(flow.shares(gru, x)),
    "truncation": lambda gru, x, loss: str(flow.truncation(gru, x, 2)),
}


def shown(what: str, backend: str, fused: bool) -> str:
    gru = tg.nn.GRU(3, 5, fused=fused, rng=np.random.default_rng(0), dtype=np.float64).to(backend)
    data = np.random.default_rng(1).standard_normal((4, 2, 3))
    x = tg.tensor(data, requires_grad=True, backend=backend, name="x")
    loss = (gru(x)[0] ** 2.0).sum()
    loss.name = "loss"
    return SHOWN[what](gru, x, loss)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("what", SHOWN)
def test_it_looks_the_same_on_a_gpu(what, fused, gpu):
    with without_kernels():  # whose sums have another order
        there, here = shown(what, gpu, fused), shown(what, "numpy", fused)
    if gpu == "fakecupy":
        assert there == here
    else:  # a real one rounds in its own way
        assert len(there) == pytest.approx(len(here), rel=0.05)
