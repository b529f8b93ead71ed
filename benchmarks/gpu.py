"""Our recurrent layers on a GPU, in each of their ways, against cuDNN through torch, and against our own CPU path.

Run `python -m benchmarks.gpu --json FILE`. Float32 proper on both sides: TF32 is switched off in torch, and cuBLAS
leaves it off. Every time is that of whole calls with the host in it, synchronised at the end of a few of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Worker, digits, is_present, titled, version_of, write_json

SIZES = {  # T, N, I, H
    "learner": (20, 8, 16, 32), "charrnn": (64, 32, 64, 128), "100, 1, 256": (100, 1, 256, 256),
    "100, 16, 512": (100, 16, 512, 512), "100, 64, 512": (100, 64, 512, 512), "100, 64, 1024": (100, 64, 1024, 1024),
    "100, 256, 1024": (100, 256, 1024, 1024),
}  # fmt: skip
CELLS = {
    "GRU after": ("GRU", {"reset": "after", "update": "old", "recurrent_bias": True}),
    "LSTM": ("LSTM", {}), "GRU": ("GRU", {}),
}  # fmt: skip
WAYS = ("auto", "steps", "graph", "persistent", "op by op")
LARGEST_ON_CPU = 2**14
"""N * H up to which the CPU is timed too; beyond, it would take minutes and the answer is known."""


def timed(run: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> float:
    """The median time of one run, over batches of as many as take about a tenth of the time."""
    for _ in range(8):  # a graph is captured when the arrays have found their places
        run()
    wait()
    start = time.perf_counter()
    run()
    wait()
    once = time.perf_counter() - start
    count, times = max(1, int(seconds / 10 / once)), []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        times.append((time.perf_counter() - start) / count)
    return median(times)


def passes(x: Any, g: Any, layer: Callable[[Any], Any], parameters: list[Any], backward: Callable[[Any, Any], None]):
    """The two things that are timed: forward, and forward + backward to the gradients of x and all weights."""

    def both() -> None:
        for p in (x, *parameters):
            p.grad = None
        backward(layer(x)[0], g)

    return {"forward": lambda: layer(x), "forward + backward": both}


def arrays(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    T, N, I, H = shape  # noqa: E741
    rng = np.random.default_rng(0)
    return rng.standard_normal((T, N, I), np.float32), rng.standard_normal((T, N, H), np.float32)


def ours(cell: str, shape: tuple[int, int, int, int], way: str, backend: str, seconds: float) -> dict[str, Any]:
    """Our layer in one way; with the way that it really took."""
    import tinygrad_rnn as tg
    from tinygrad_rnn.backend import resolve
    from tinygrad_rnn.backend.kernels import sequence
    from tinygrad_rnn.nn.fused import gates_of

    name, options = CELLS[cell]
    with tg.use_backend(backend):
        tg.seed(0)
        options = {**options, "fused": False} if way == "op by op" else {**options, "mode": way}
        layer = getattr(tg.nn, name)(*shape[2:], **options)
        x, g = (tg.tensor(a) for a in arrays(shape))
        x.requires_grad = True
        wait = (lambda: None) if backend == "numpy" else __import__("cupy").cuda.Device().synchronize
        runs = passes(x, g, layer, layer.parameters(), lambda y, g: y.backward(g))
        found: dict[str, Any] = {what: timed(run, wait, seconds) for what, run in runs.items()}
        fused = resolve(backend)[0].xp.fused
        if fused is not None and way != "op by op":
            found["way"] = sequence.plan(fused, way, gates_of(layer.cells[0]), shape[1], shape[3], np.dtype(np.float32))
        runs["forward + backward"]()
        found["numbers"] = [float(np.abs(t.numpy()).sum(dtype=float)) for t in (layer(x)[0], x.grad)]
        return found


def torch(cell: str, shape: tuple[int, int, int, int], seconds: float, weights: dict[str, Any]) -> dict[str, Any]:
    """cuDNN's layer, with our weights, so that both sides can be seen to compute the same."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    H = shape[3]
    layer = getattr(torch.nn, CELLS[cell][0])(shape[2], H).cuda()
    order = np.r_[H : 2 * H, 0:H, 2 * H : 3 * H] if cell == "GRU after" else np.arange(4 * H)
    pairs = {"weight_ih_l0": weights["W"][:, order].T, "weight_hh_l0": weights["U"][:, order].T,
             "bias_ih_l0": weights["b"][order], "bias_hh_l0": np.zeros_like(weights["b"])}  # fmt: skip
    if cell == "GRU after":
        pairs["bias_hh_l0"][2 * H :] = weights["c"]
    with torch.no_grad():
        for name, array in pairs.items():
            getattr(layer, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))
    layer.flatten_parameters()
    x, g = (torch.from_numpy(a).cuda() for a in arrays(shape))
    x.requires_grad_(True)
    runs = passes(x, g, layer, list(layer.parameters()), lambda y, g: y.backward(g))
    found: dict[str, Any] = {what: timed(run, torch.cuda.synchronize, seconds) for what, run in runs.items()}
    runs["forward + backward"]()
    found["numbers"] = [t.detach().double().abs().sum().item() for t in (layer(x)[0], x.grad)]
    return found


def all_of_torch(cells: list[str], sizes: list[str], seconds: float) -> dict[str, Any]:
    import tinygrad_rnn as tg

    found = {}
    for cell in cells:
        for size in sizes:
            if cell != "GRU":  # which torch does not have
                tg.seed(0)
                name, options = CELLS[cell]
                drawn = getattr(tg.nn, name)(*SIZES[size][2:], **options).cells[0]
                weights = {key: value.numpy() for key, value in drawn.state_dict().items()}
                found[f"{cell} | {size}"] = torch(cell, SIZES[size], seconds, weights)
    return found


def about() -> dict[str, str]:
    """The machine and the versions, for whoever reads the figures."""
    import cupy

    gpu = cupy.cuda.runtime.getDeviceProperties(0)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout.split("\n")[0]
    return {
        "date": datetime.date.today().isoformat(), "device": gpu["name"].decode(), "driver": driver,
        "CUDA runtime": str(cupy.cuda.runtime.runtimeGetVersion()), "cupy": cupy.__version__,
        "numpy": np.__version__, "python": platform.python_version(), "torch": version_of("torch"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=0.3, help="about how long each figure is measured")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--torch", action="store_true", help="measure torch in this process and print JSON")
    options = parser.parse_args()
    if options.torch:
        print(json.dumps(all_of_torch(options.cells, options.sizes, options.seconds)))
        return
    console, machine = Console(width=150), about()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    theirs: dict[str, Any] = {}
    if is_present("torch"):
        command = [sys.executable, "-m", "benchmarks.gpu", "--torch", "--seconds", str(options.seconds)]
        command += ["--sizes", *options.sizes, "--cells", *options.cells]
        theirs = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    figures: dict[str, Any] = {}
    cpu = Worker(range(os.cpu_count() or 1))
    for cell in options.cells:
        for size in options.sizes:
            row = {way: ours(cell, SIZES[size], way, "cupy", options.seconds) for way in options.ways}
            if SIZES[size][1] * SIZES[size][3] <= LARGEST_ON_CPU:
                row["our CPU path"] = cpu(ours, cell, SIZES[size], "auto", "numpy", options.seconds)
            if f"{cell} | {size}" in theirs:
                row["torch"] = theirs[f"{cell} | {size}"]
            figures[name := f"{cell} | {size}"] = row
            both = {way: round(found["forward + backward"] * 1e3, 3) for way, found in row.items()}
            console.print(f"[dim]{name}: {both}")
            if options.json:
                write_json(options.json, {"about": machine, "seconds": figures})
    for what in ("forward", "forward + backward"):
        columns = list(dict.fromkeys(way for row in figures.values() for way in row))
        table = titled(f"{what}, ms (ratio to torch's cuDNN layer)", *columns)
        for name, row in figures.items():
            entries = []
            for way in columns:
                seconds = row.get(way, {}).get(what)
                ratio = f" ({seconds / row['torch'][what]:.2f})" if seconds and "torch" in row else ""
                took = f" {row[way]['way']}" if way == "auto" and "way" in row[way] else ""
                entries.append("-" if seconds is None else f"{digits(seconds * 1e3)}{ratio}{took}")
            table.add_row(name, *entries)
        console.print(table)
    for name, row in figures.items():  # all have computed the same function
        for way, found in row.items():
            wanted = row.get("torch", row.get("our CPU path", found))["numbers"]
            for mine, their in zip(found["numbers"], wanted):
                if abs(mine - their) > 1e-3 * abs(their):
                    console.print(f"[red]{name}, {way}: {found['numbers']} instead of {wanted}")


if __name__ == "__main__":
    main()
