"""Runs each peer in a process of its own, pinned to one core, in turn, and takes medians.

A benchmark module defines `PEERS`, a dict of functions that take nothing and return {measure: seconds},
and calls `main(...)`. Absolute times mean nothing on a shared machine; ratios within one run do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Measures = dict[str, float]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def median_time(run: Callable[[], Any], seconds: float = 0.5, least: int = 7) -> float:
    """The median time of one run, in seconds, after a warm-up, over about `seconds` of running."""
    for _ in range(3):
        run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < least:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(module: str, peer: str, core: int | None, threads: int) -> Measures:
    """One peer's measures from a fresh process."""
    environment = {**os.environ, **{name: str(threads) for name in THREADS}}
    command = [sys.executable, "-m", module, "--peer", peer]
    pin = None if core is None or not hasattr(os, "sched_setaffinity") else (lambda: os.sched_setaffinity(0, {core}))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=pin)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds: list[Measures]) -> Measures:
    """The median over the rounds, measure by measure."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main(
    module: str, peers: dict[str, Callable[[], Measures]], packages: dict[str, str], about: str, unit: str = "µs"
) -> None:
    """The command of a benchmark: measure every peer that can be imported, print a table, write JSON if asked to.

    packages: the distribution that a peer needs; absent ones are listed as absent, nothing is installed.
    The first peer is the one that the others are compared with.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--peer", choices=peers, help="measure this peer in this process and print JSON")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all peers take their turn (default 5)")
    parser.add_argument("--core", type=int, default=0, help="the processor core to run on (default 0)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peers[options.peer]()))
        return

    present = [name for name in peers if importlib.util.find_spec(packages[name])]
    rounds: dict[str, list[Measures]] = {name: [] for name in present}
    for _ in range(options.rounds):
        for name in present:
            rounds[name].append(measure(module, name, options.core, threads=1))
    figures = {name: medians(each) for name, each in rounds.items()}

    first = present[0]
    scale = {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
    table = Table(title=f"{about} ({unit}; ratio: {first} / peer)")
    table.add_column("")
    for name in present:
        table.add_column(f"{name} {_version(packages[name])}", justify="right")
    for row in figures[first]:
        cells = []
        for name in present:
            if row not in figures[name]:
                cells.append("-")
                continue
            ratio = "" if name == first else f"  ({figures[first][row] / figures[name][row]:.2f})"
            cells.append(f"{figures[name][row] * scale:.2f}{ratio}")
        table.add_row(row, *cells)
    console = Console(width=140)
    console.print(table)
    if absent := [name for name in peers if name not in present]:
        console.print("absent: " + ", ".join(absent))
    if options.json:
        about_run = {"python": platform.python_version(), "machine": platform.machine(), "rounds": options.rounds}
        versions = {name: _version(packages[name]) for name in present}
        options.json.write_text(
            json.dumps({"about": about_run, "versions": versions, "seconds": figures}, indent=1) + "\n"
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
