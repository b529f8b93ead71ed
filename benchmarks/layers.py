"""The recurrent layers against their peers: time of a pass, with one thread and two, and as the sequence grows."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness import Failed, Measures, Worker, compared, digits, in_turn, is_present, median_time, titled
from benchmarks.peers import CELLS, OURS, PEERS, SIZES, Arrays, Case, Shape, arrays, has, same_function

FORWARD, BOTH = "forward", "forward + backward"
TORCH = "torch layer"
TORCH_LIKE = ("GRU after", "LSTM")
"""The cells that are exactly torch's, gates and all."""


# -- in the peer's process -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def case(peer: str, cell: str, shape: Shape) -> Case:
    """The peer's layer, ready: what is compiled at the first pass is compiled."""
    made = PEERS[peer].build(CELLS[cell], arrays(CELLS[cell], shape))
    made.forward()
    made.both()
    return made


def outcome(peer: str, cell: str, shape: Shape) -> Arrays:
    found = case(peer, cell, shape).found
    return found() if found else {}


def timed(peer: str, cell: str, shape: Shape) -> Measures:
    it = case(peer, cell, shape)
    passes = {FORWARD: it.forward, BOTH: it.both}
    return {name: median_time(run, seconds=0.3, least=3, warm=1) for name, run in passes.items()}


def timed_both(peer: str, cell: str, shape: Shape) -> Measures:
    return {BOTH: median_time(case(peer, cell, shape).both, seconds=0.3, least=3, warm=1)}


# -- the sections ----------------------------------------------------------------------------------------------------


def disagreement(found: Arrays, expected: Arrays, tolerance: float = 1e-4) -> str | None:
    """Which result is another one, by the largest difference in parts of the largest number; None if none is."""
    for name, array in expected.items():
        off = float(np.abs(found[name] - array).max() / np.abs(array).max())
        if not off <= tolerance:
            return f"another function than ours: {name} is off by {off:.1e}"
    return None


def layers(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Both passes of every cell, size and peer; each peer's results are held against ours first."""
    present = [name for name, peer in PEERS.items() if name in (OURS, *options.peers) and is_present(peer.package)]
    workers = {name: Worker({options.core}, keep=name == "torch.compile") for name in present}
    figures: dict[str, dict[str, Measures]] = {}
    failures: list[str] = []
    for cell in options.cells:
        figures[cell] = {name: {} for name in present if has(name, cell)}
        for size in options.sizes:
            asked = {
                name: partial(workers[name], limit=options.limit)
                for name in figures[cell]
                if size in (options.compile if name == "torch.compile" else PEERS[name].sizes)
            }
            wrong = disagreements(asked, cell, SIZES[size])
            turns = {n: partial(ask, timed, n, cell, SIZES[size]) for n, ask in asked.items() if n not in wrong}
            found = in_turn(turns, options.rounds, wrong)
            if OURS in wrong:
                raise Failed(f"{OURS}, {cell}, {size}: {wrong[OURS]}")
            for name, measures in found.items():
                figures[cell][name] |= {f"{size}, {measure}": time for measure, time in measures.items()}
            failures += [f"{name}, {cell}, {size}: {reason}" for name, reason in wrong.items()]
        console.print(compared(cell, {name: each for name, each in figures[cell].items() if each}, "ms"))
    for worker in workers.values():
        worker.close()
    if "GRU" in options.cells:
        console.print('torch layer and torch cells, GRU: torch has reset="after" only, which is another function')
    for failure in failures:
        console.print(f"not working: {failure}")
    return {"seconds": figures, "not working": failures}


def disagreements(asked: dict[str, Callable[..., Any]], cell: str, shape: Shape) -> dict[str, str]:
    """Which peers fail at their first pass, or compute another function than ours, and how."""
    expected, found = asked[OURS](outcome, OURS, cell, shape), {}
    for name, ask in asked.items():
        try:
            got = ask(outcome, name, cell, shape)
        except Failed as reason:
            found[name] = str(reason)
            continue
        if same_function(name, cell) and (wrong := disagreement(got, expected)):
            found[name] = wrong
    return found


def threads(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Forward + backward with one thread and with two, both on two cores, beside torch's layer."""
    cores = {options.core, *two_cores(options.core)}
    if len(cores) < 2:
        console.print("threads: there is only one core to run on")
        return {}
    peers = [name for name in (OURS, TORCH) if is_present(PEERS[name].package)]
    figures: dict[str, Measures] = {}
    headings = [*(f"{p}, {n}" for p in peers for n in (1, 2)), *(f"{p}, 2 / 1" for p in peers)]
    headings += [f"{OURS} / {TORCH}, 2"] if TORCH in peers else []
    table = titled(f"{BOTH}, one and two threads on two cores (ms)", *headings)
    workers = {(p, n): Worker(cores, threads=n) for p in peers for n in (1, 2)}
    for cell in [name for name in options.cells if name in TORCH_LIKE]:
        for size in options.sizes:
            turns = {f"{p}, {n}": partial(w, timed_both, p, cell, SIZES[size]) for (p, n), w in workers.items()}
            found = in_turn(turns, options.rounds)
            figures[f"{cell}, {size}"] = time = {name: each[BOTH] for name, each in found.items()}
            ratios = [time[f"{p}, 2"] / time[f"{p}, 1"] for p in peers]
            ratios += [time[f"{OURS}, 2"] / time[f"{TORCH}, 2"]] if TORCH in peers else []
            table.add_row(f"{cell}, {size}", *(digits(1e3 * t) for t in time.values()), *(f"{r:.2f}" for r in ratios))
    console.print(table)
    return {"seconds": figures}


def two_cores(core: int) -> list[int]:
    """This core and another one, if this process may run on another one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [core, *[other for other in allowed if other != core][:1]]


def growth(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The time of one step of forward + backward for longer and longer sequences: it must not grow."""
    lengths, (N, I, H) = (10, 100, 1000, 10_000), (8, 16, 32)  # noqa: E741
    title = f"{BOTH}, N, I, H = {N}, {I}, {H}: time of one step (µs)"
    table, figures = titled(title, *(f"T = {T:,}" for T in lengths), "largest / smallest", "last / before"), {}
    for peer in (name for name in (OURS, TORCH) if is_present(PEERS[name].package)):
        for cell in [name for name in options.cells if name in TORCH_LIKE]:
            worker = Worker({options.core})
            turns = {str(T): partial(worker, timed_both, peer, cell, (T, N, I, H)) for T in lengths}
            found = in_turn(turns, options.rounds)
            steps = {T: each[BOTH] / int(T) for T, each in found.items()}
            figures[f"{peer}, {cell}"] = steps
            *_, before, last = times = list(steps.values())
            ratios = max(times) / min(times), last / before  # short sequences bear what a call costs
            table.add_row(f"{peer}, {cell}", *(digits(1e6 * time) for time in times), *(f"{r:.2f}" for r in ratios))
    console.print(table)
    return {"seconds per step": figures}
