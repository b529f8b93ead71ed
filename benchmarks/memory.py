"""How much memory one forward and backward pass of a layer needs on top of its inputs, each in a process of its own."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness import Failed, Worker, digits, is_present, titled
from benchmarks.layers import TORCH, TORCH_LIKE
from benchmarks.peers import CELLS, OURS, PEERS, arrays

LENGTHS, N, I, H = (250, 1000, 4000), 32, 64, 128  # noqa: E741


def peak() -> int:
    """The most bytes that this process had resident: on Linux since `forget_peak`, elsewhere since it started."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Start anew from what is resident now; ru_maxrss would still hold the peak of the parent process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def growth_of_peak(peer: str, cell: str, T: int, options: dict[str, Any]) -> int:
    """Bytes, for one pass after a warm-up at a tiny size; options: of our layer."""
    build, of = PEERS[peer].build, CELLS[cell]
    build(of, arrays(of, (3, 2, 2, 2)), **options).both()
    inputs = arrays(of, (T, N, I, H))  # kept to the end, so that the pass cannot have their memory
    case = build(of, inputs, **options)
    forget_peak()
    before = peak()
    case.both()
    return peak() - before


def memory(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """A table for each of the cells that are torch's."""
    variants = {
        OURS: (OURS, lambda T: {}),
        f"{OURS}, checkpoint=sqrt(T)": (OURS, lambda T: {"checkpoint": round(math.sqrt(T))}),
        "op by op": ("op by op", lambda T: {}),
        TORCH: (TORCH, lambda T: {}),
    }
    figures: dict[str, dict[str, dict[str, int]]] = {}
    for cell in [name for name in options.cells if name in TORCH_LIKE]:
        title = f"{cell}, N, I, H = {N}, {I}, {H}: growth of peak memory (MB; ratio: {OURS} / peer)"
        table = titled(title, *(f"T = {T:,}" for T in LENGTHS))
        figures[cell] = {}
        for name, (peer, settings) in variants.items():
            if not is_present(PEERS[peer].package):
                continue
            found = figures[cell][name] = {}
            for T in LENGTHS:
                try:
                    found[str(T)] = Worker({options.core})(growth_of_peak, peer, cell, T, settings(T))
                except Failed as reason:
                    if name == OURS:
                        raise
                    console.print(f"not working: {name}, {cell}, T = {T:,}: {reason}")
                    break
            ours = figures[cell][OURS]
            entries = [digits(b / 1e6) + (f"  ({ours[T] / b:.2f})" if name != OURS else "") for T, b in found.items()]
            table.add_row(name, *entries, *["-"] * (len(LENGTHS) - len(entries)))
        console.print(table)
    return {"bytes": figures}
