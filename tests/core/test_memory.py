"""Memory: a graph goes the moment nobody holds it, without the garbage collector, and training does not grow."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def living() -> int:
    return sum(type(each) is tg.Tensor for each in gc.get_objects())


GRAPHS: dict[str, Callable[[tg.Tensor], Any]] = {
    "plain": lambda x: tg.tanh(x * 2 + 1).sum(),
    "shared": lambda x: ((x + x) * (x + x)).mean(),
    "slices": lambda x: sum((x[i] * x[i - 1] for i in range(3)), tg.zeros(2)).sum(),
    "composed": lambda x: x.std() + tg.einsum("ij,ij->", x, x) + tg.concatenate([x, x]).prod(),
    "recorded": lambda x: tg.pullback((x**3).sum(), [x], create_graph=True)[0].sum(),
    "checkpoint": lambda x: tg.checkpoint(lambda t: tg.tanh(t * x).sum(), x),
    "jvp": lambda x: tg.jvp(lambda t: t * t * x, [x], [x])[1].sum(),
    "broken": lambda x: tg.grad(lambda t: (t * t * x).sum())(x).sum(),
    "layer": lambda x: tg.nn.GRU(2, 3, 2, dtype="float64")(x[:, None])[0].sum(),
    "layer, recorded": lambda x: (
        tg.hvp(lambda t: tg.nn.LSTM(2, 3, dtype="float64")(t[:, None])[0].sum(), x, x).sum()
        + tg.nn.RNN(2, 3, dtype="float64", checkpoint=2)(x[:, None])[1].sum()
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_dropped_result_frees_its_graph_at_once(name: str, backend: str) -> None:
    x = tg.tensor(np.arange(1.0, 7.0).reshape(3, 2), requires_grad=True)
    for _ in range(2):
        before = living()
        y = GRAPHS[name](x)
        y.backward()
        nodes = [weakref.ref(t) for t in tg.tape(y) if t is not x]
        assert nodes
        del y
        assert [ref() for ref in nodes if ref() is not None] == []
        x.grad = None
        assert living() == before


def test_a_failing_operation_leaves_nothing_behind() -> None:
    x = tg.tensor(np.ones((2, 3)), requires_grad=True)
    y = x * 2
    ref = weakref.ref(y)
    with contextlib.suppress(ValueError):
        y @ y
    del y
    assert ref() is None


def test_hooks_scopes_and_debug_make_no_cycles() -> None:
    x = tg.tensor(np.ones(3), requires_grad=True)
    with tg.debug(), tg.scope("cell", "GRUCell"):
        y = x * 2
        y.retain_grad()
        y.register_hook(lambda g: g * 2)
        z = (y * y).sum()
    z.backward()
    refs = [weakref.ref(y), weakref.ref(z)]
    del y, z
    assert [ref() for ref in refs] == [None, None]


def test_freeing_as_it_goes_lets_go_of_the_inputs() -> None:
    x = tg.tensor(np.ones(3), requires_grad=True)
    middle = x * 2
    y = tg.tanh(middle).sum()
    ref = weakref.ref(middle)
    del middle
    assert ref() is not None
    y.backward(retain_graph=False)
    assert ref() is None


def test_gradients_do_not_hold_the_graph() -> None:
    x = tg.tensor(np.ones(3), requires_grad=True)
    y = tg.tanh(x).sum()
    y.backward()
    ref = weakref.ref(y)
    held = x.grad, tg.pullback(y, [x])
    del y
    assert ref() is None and held


def test_a_checkpoint_keeps_none_of_what_it_computed() -> None:
    """Counted, not believed: the tensors alive after a segment of 100 operations, with and without it."""

    def segment(x: tg.Tensor) -> tg.Tensor:
        for _ in range(100):
            x = tg.tanh(x * 1.5)
        return x

    counts = {}
    for name, run in {"plain": segment, "checkpoint": lambda x: tg.checkpoint(segment, x)}.items():
        x = tg.tensor(np.ones(3), requires_grad=True)
        before = living()
        y = x
        for _ in range(5):
            y = run(y)
        counts[name] = living() - before
        y.sum().backward()
        del y
    assert counts["plain"] >= 1000
    assert counts["checkpoint"] <= 20


TRAINING = """
import json, resource, sys
import numpy as np
import tinygrad_rnn as tg

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

rng = np.random.default_rng(0)
w = tg.tensor(rng.normal(size=(3, 4)), requires_grad=True)
b = tg.tensor(rng.normal(size=4), requires_grad=True)
x = tg.tensor(rng.normal(size=(5, 3)))
sizes = []
for step in range(20_000):
    h = tg.tanh(x @ w + b)
    loss = (h[:, 0] * h[:, 1:].sum(axis=1)).mean() + (w * w).mean()
    w.grad = b.grad = None
    loss.backward()
    w.assign_(w.detach() - w.grad * 0.01)
    b.assign_(b.detach() - b.grad * 0.01)
    if step in (999, 19_999):
        sizes.append(resident())
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_twenty_thousand_steps_end_with_the_memory_of_a_thousand() -> None:
    result = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True, timeout=300)
    after_thousand, at_end = json.loads(result.stdout)
    assert at_end <= after_thousand * 1.02
