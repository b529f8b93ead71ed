"""What the benchmarks measured, as tables: read from `benchmarks/results`, as are the ratios that pages assert."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.gpu import SIZES as GPU_SIZES
from benchmarks.peers import SIZES
from building.tables import Markdown, in_columns

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BOTH = "forward + backward"
OURS, TORCH = "tinygrad_rnn", "torch layer"
CPU, OTHERS, GPU = "cpu-2026-11-26", "cpu-others-2026-11-26", "h100-2026-11-26"


@cache
def results(name: str) -> Any:
    """One file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def digits(number: float) -> str:
    """A number with three digits that count."""
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}".rstrip(".")


def beside(ratio: float) -> str:
    """A ratio in brackets."""
    return f" ({ratio:.2f})" if ratio < 10 else f" ({ratio:.0f})"


def times(cell: str) -> dict[str, dict[str, float]]:
    """Seconds of a pass forward and back on a CPU, by peer and size."""
    found = results(CPU)["sections"]["layers"]["seconds"]
    peers = found[cell] if cell in found else results(OTHERS)["sections"]["layers"]["seconds"][cell]
    return {
        peer: {size: each[f"{size}, {BOTH}"] for size in SIZES if f"{size}, {BOTH}" in each}
        for peer, each in peers.items()
    }


def ratio(cell: str, size: str, peer: str = TORCH) -> float:
    """Our time in parts of a peer's, on a CPU."""
    return times(cell)[OURS][size] / times(cell)[peer][size]


def layers(cell: str) -> Markdown:
    """Milliseconds of each peer at each size; in brackets our time in parts of the peer's."""
    rows = []
    for peer, each in times(cell).items():
        shown = [peer]
        for size in SIZES:
            of_ours = "" if peer == OURS or size not in each else beside(ratio(cell, size, peer))
            shown.append(f"{digits(1000 * each[size])}{of_ours}" if size in each else "")
        rows.append(shown)
    return in_columns([cell, *[f"{name}<br>{', '.join(map(str, shape))}" for name, shape in SIZES.items()]], rows)


def memory() -> Markdown:
    """By how many MB a pass raises the peak of memory, by the number of steps."""
    found = results(CPU)["sections"]["memory"]["bytes"]["GRU after"]
    lengths = list(found[OURS])
    rows = [[peer, *[digits(each[T] / 1e6) for T in lengths]] for peer, each in found.items()]
    return in_columns(["GRU after, MB", *[f"T = {int(T):,}" for T in lengths]], rows)


def on_gpu(cell: str, size: str, way: str = "auto") -> float | None:
    """Seconds of a pass forward and back on a GPU, of one way to take the steps, or of "torch"."""
    found = results(GPU)["seconds"][f"{cell} | {size}"].get(way)
    return found and float(found[BOTH])


COLUMNS = {
    "GRU after": ("GRU after", "auto"),
    "the same, op by op": ("GRU after", "op by op"),
    "the same on the CPU": ("GRU after", "our CPU path"),
    "LSTM": ("LSTM", "auto"),
    'GRU (`reset="before"`)': ("GRU", "auto"),
}
"""What the table of the GPU shows: of which cell, and how the steps were taken."""


def gpu() -> Markdown:
    """Milliseconds on the GPU that was measured; in brackets our time in parts of cuDNN's."""
    rows = []
    for size, shape in GPU_SIZES.items():
        shown = [", ".join(map(str, shape))]
        for cell, way in COLUMNS.values():
            ours, theirs = on_gpu(cell, size, way), on_gpu(cell, size, "torch")
            of_theirs = beside(ours / theirs) if ours and theirs and way != "our CPU path" else ""
            shown.append(f"{digits(1000 * ours)}{of_theirs}" if ours else "")
        rows.append([*shown, results(GPU)["seconds"][f"GRU after | {size}"]["auto"]["way"]])
    return in_columns(["T, N, I, H", *COLUMNS, "the first by"], rows)


def conditions(name: str) -> Markdown:
    """With what, and when, it was measured."""
    found = results(name)
    about = found["about"]
    versions = found.get("versions", about)
    named = {"numpy": "NumPy", "cupy": "CuPy", "jax": "JAX", "mygrad": "MyGrad"}
    shown = [about["device"]] if "device" in about else []
    shown += [f"Python {about['python']}"]
    shown += [
        f"{named.get(each, each)} {versions[each]}"
        for each in ("numpy", "cupy", "torch", "jax", "autograd", "mygrad")
        if each in versions
    ]
    return Markdown(f"{', '.join([*shown, about['date']])}; `benchmarks/results/{name}.json` has all figures.")
