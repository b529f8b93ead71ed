"""Whole training steps of the character model, tokens per second, against a torch twin that reads the same batches.

Embedding, recurrent layer, head, cross entropy, clipping, Adam; T, N, I, H, V = 64, 32, 64, 128, 65.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import text
from benchmarks.harness import Measures, Worker, in_turn, is_present, median_time, titled
from benchmarks.peers import OURS, SIZES
from tinygrad_rnn.train.loop import Configuration

(T, N, I, H), V = SIZES["charrnn"], 65  # noqa: E741
CELLS: dict[str, dict[str, str]] = {
    "GRU after": {"cell": "gru", "reset": "after", "update": "old"},
    "GRU": {"cell": "gru"},
    "LSTM": {"cell": "lstm"},
}


def advance(peer: str, cell: str) -> text.Advance:
    """What takes one training step, on symbols drawn by chance: only their number matters here."""
    symbols = np.random.default_rng(0).integers(ord("0"), ord("0") + V, 500_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "symbols.txt"
        path.write_text("".join(map(chr, symbols)), encoding="utf-8")
        c = Configuration(text=str(path), embedding=I, hidden=H, batch=N, truncation=T, **CELLS[cell])
        return (text.ours(c) if peer == OURS else text.twin(c, same_weights=False))[0]


def timed(peer: str, cell: str) -> Measures:
    return {"step": median_time(advance(peer, cell), seconds=1.0, least=5)}


def training(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """A row for each cell; torch's GRU stands beside both of ours."""
    peers = [name for name in (OURS, "torch") if is_present(name)]
    title = f"training, T, N, I, H, V = {T}, {N}, {I}, {H}, {V}: tokens per second"
    table, figures = titled(title, *peers, *([f"time, {OURS} / torch"] if "torch" in peers else [])), {}
    for cell in [name for name in options.cells if name in CELLS]:
        found = in_turn({p: partial(Worker({options.core}), timed, p, cell) for p in peers}, options.rounds)
        figures[cell] = time = {name: each["step"] for name, each in found.items()}
        ratio = [f"{time[OURS] / time['torch']:.2f}"] if "torch" in time else []
        table.add_row(cell, *(f"{T * N / each:,.0f}" for each in time.values()), *ratio)
    console.print(table)
    return {"seconds per step": figures}
