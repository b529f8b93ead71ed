"""Runs each peer in a process of its own, pinned to its cores, in turn, and takes medians.

A `Worker` is such a process. `main(...)` is the command of a module that defines `PEERS`, a dict of functions that
take nothing and return {measure: seconds}. Absolute times mean nothing on a shared machine; ratios within one run do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

Measures = dict[str, float]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ONE_THREAD = {  # of what listens to none of these
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


def median_time(run: Callable[[], Any], seconds: float = 0.5, least: int = 7, warm: int = 3) -> float:
    """The median time of one run, in seconds, after a warm-up, over about `seconds` of running."""
    for _ in range(warm):
        run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < least:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Failed(Exception):
    """A peer did not answer: what it raised, that it died, or that its time was over."""


class Worker:
    """A process of its own, pinned to `cores`, that computes what it is asked: `worker(function, *arguments)`.

    threads: of BLAS and OpenMP.
    keep: go on with the same process at the next call, for what is costly to compile. Otherwise each call has a fresh
        one, so that a median is also one over the layouts of memory, on which times depend.
    """

    def __init__(self, cores: Collection[int], threads: int = 1, keep: bool = False) -> None:
        self.cores, self.threads, self.keep = cores, threads, keep
        self.process: multiprocessing.process.BaseProcess | None = None

    def __call__(self, function: Callable[..., Any], *arguments: Any, limit: float | None = None) -> Any:
        """What the function returns. limit: seconds to wait for it.

        Raises: Failed; the next call has a fresh process.
        """
        error, answer = f"not done in {limit} seconds", None
        try:
            if self.process is None:
                self._start()
            self.pipe.send((function, arguments))
            if self.pipe.poll(limit):
                error, answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            error = "its process died"
        if error or not self.keep:
            self.close()
        if error:
            raise Failed(error)
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # from outside: libraries read both when they are loaded, and their threads inherit the cores
        settings = {**dict.fromkeys(THREADS, str(self.threads)), **ONE_THREAD}
        with patch.dict(os.environ, settings), pinned(self.cores):
            self.process.start()
        theirs.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


@contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """This thread, and what it starts, on these cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(pipe: Connection) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)  # what libraries say while they compile would tear the tables
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = None, function(*arguments)
        except Exception as error:
            answer = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", None
        pipe.send(answer)


def medians(rounds: list[Measures]) -> Measures:
    """The median over the rounds, measure by measure."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def in_turn(
    turns: dict[str, Callable[[], Measures]], rounds: int, failed: dict[str, str] | None = None
) -> dict[str, Measures]:
    """The medians of several rounds in which all take their turn.

    failed: takes the reasons of those that fail, which then have no figures. Raises: Failed, if it is left out.
    """
    found: dict[str, list[Measures]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, each in list(found.items()):
            try:
                each.append(turns[name]())
            except Failed as reason:
                if failed is None:
                    raise Failed(f"{name}: {reason}") from None
                failed[name] = str(reason)
                del found[name]
    return {name: medians(each) for name, each in found.items()}


def digits(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def titled(title: str, *headings: str) -> Table:
    """An empty table: names on the left, and figures below the headings."""
    table = Table("", title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def compared(title: str, figures: dict[str, Measures], unit: str, across: dict[str, str] | None = None) -> Table:
    """A table of times with the ratio of the first peer's to each one's; rows are peers.

    across: headings of the peers, if they are to be the columns.
    """
    first, scale = next(iter(figures)), {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
    measures = list(dict.fromkeys(name for each in figures.values() for name in each))

    def entry(peer: str, name: str) -> str:
        if name not in figures[peer]:
            return "-"
        value, ours = figures[peer][name], figures[first].get(name)
        return digits(value * scale) + ("" if peer == first or ours is None else f"  ({ours / value:.2f})")

    table = titled(f"{title} ({unit}; ratio: {first} / peer)", *(across.values() if across else measures))
    if across:
        for name in measures:
            table.add_row(name, *(entry(peer, name) for peer in across))
    else:
        for peer in figures:
            table.add_row(peer, *(entry(peer, name) for name in measures))
    return table


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

    present = [name for name in peers if is_present(packages[name])]
    worker, failed = Worker({options.core}), {}
    figures = in_turn({name: partial(worker, peers[name]) for name in present}, options.rounds, failed)
    versions = {name: version_of(packages[name]) for name in figures}
    table = compared(about, figures, unit, across={name: f"{name} {versions[name]}" for name in figures})
    console = Console(width=140)
    console.print(table)
    if absent := [name for name in peers if name not in present]:
        console.print("absent: " + ", ".join(absent))
    for name, reason in failed.items():
        console.print(f"failed: {name}: {reason}")
    if options.json:
        write_json(options.json, {"about": about_run(options.rounds), "versions": versions, "seconds": figures})


def is_present(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def about_run(rounds: int) -> dict[str, Any]:
    """Where and how figures came about."""
    return {"python": platform.python_version(), "machine": platform.machine(), "rounds": rounds}


def write_json(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")


def version_of(package: str) -> str:
    """The version of an installed distribution, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
