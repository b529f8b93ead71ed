"""The character model against torch on one recipe: same text, same batches, same first weights; losses and speed.

Embedding 32, hidden 128, batch 32, truncation 64, Adam 3e-3. Run `python -m benchmarks.text [--text FILE]`.

    same function   our GRU with torch's conventions (reset="after", update="old"), op by op
    torch twin      torch.nn.GRU from the same weights; its second biases, which our cell lacks, stay at zero
    default         our GRU as the lectures have it (reset="before", update="new")
    torch default   torch.nn.GRU from weights of its own, with both biases
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import THREADS
from tinygrad_rnn.train.language import LanguageTask
from tinygrad_rnn.train.loop import Configuration, Run
from tinygrad_rnn.train.model import detached
from tinygrad_rnn.train.text import Streams, once_through, read_text

PEERS = ("same function", "torch twin", "default", "torch default")
MARKS = (100, 500, 1500)
Advance = Callable[[], None]
Validate = Callable[[], float]


def ours(c: Configuration) -> tuple[Advance, Validate]:
    """Our own loop."""
    run = Run(c)
    return run.advance, lambda: run.validate()["val_loss"]


def twin(c: Configuration, same_weights: bool) -> tuple[Advance, Validate]:
    """The same recipe in torch, on the batches that ours reads; a GRU, or an LSTM from weights of its own."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(c.seed)
    task = LanguageTask(read_text(c.text), c.batch, c.truncation)
    V = len(task.vocabulary)
    embedding, recurrent, head = (
        torch.nn.Embedding(V, c.embedding),
        (torch.nn.LSTM if c.cell == "lstm" else torch.nn.GRU)(c.embedding, c.hidden),
        torch.nn.Linear(c.hidden, V),
    )
    if same_weights:
        _copy(Run(c), embedding, recurrent, head)
    parameters = [p for module in (embedding, recurrent, head) for p in module.parameters() if p.requires_grad]
    optimizer, streams, carried = torch.optim.Adam(parameters, lr=c.lr), Streams(task.learned, c.batch), None

    def loss(x: np.ndarray, y: np.ndarray, state: Any) -> tuple[Any, Any]:
        output, state = recurrent(embedding(torch.from_numpy(x)), state)
        return torch.nn.functional.cross_entropy(head(output).reshape(-1, V), torch.from_numpy(y.ravel())), state

    def advance() -> None:
        nonlocal carried
        optimizer.zero_grad()
        value, state = loss(*streams.take(c.truncation), carried)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, c.clip)
        optimizer.step()
        carried = detached(state)

    @torch.no_grad()
    def validate() -> float:
        total, count, state = 0.0, 0, None
        for x, y in once_through(task.held_back, c.batch, 256):
            value, state = loss(x, y, state)
            total, count = total + value.item() * y.size, count + y.size
        return total / count

    return advance, validate


def _copy(run: Run, embedding: Any, gru: Any, head: Any) -> None:
    """Our first weights in torch's layout: gates r, z, n instead of z, r, n; matrices transposed."""
    import torch

    H = run.configuration.hidden
    order = np.r_[H : 2 * H, 0:H, 2 * H : 3 * H]
    w = {name: tensor.numpy() for name, tensor in run.model.state_dict().items()}
    cell = "recurrent.cells.0."
    pairs = [
        (embedding.weight, w["embedding.W"]), (head.weight, w["head.W"].T), (head.bias, w["head.b"]),
        (gru.weight_ih_l0, w[cell + "W"][:, order].T), (gru.weight_hh_l0, w[cell + "U"][:, order].T),
        (gru.bias_ih_l0, w[cell + "b"][order]), (gru.bias_hh_l0, np.zeros(3 * H, np.float32)),
    ]  # fmt: skip
    with torch.no_grad():
        for parameter, array in pairs:
            parameter.copy_(torch.from_numpy(np.array(array, order="C")))
    gru.bias_hh_l0.requires_grad_(False)


def trained(peer: str, text: str | None, steps: int, seed: int) -> dict[str, float]:
    """Train one peer in this process: validation losses in nats at the marks, and tokens per second."""
    torch_like = {} if peer == "default" else {"reset": "after", "update": "old"}
    c = Configuration(text=text, steps=steps, seed=seed, **torch_like)
    advance, validate = twin(c, peer == "torch twin") if peer.startswith("torch") else ours(c)
    figures, busy = {}, 0.0
    for step in range(1, steps + 1):
        started = time.perf_counter()
        advance()
        busy += time.perf_counter() - started
        if step in MARKS or step == steps:
            figures[f"nats at {step}"] = validate()
    return {**figures, "tokens/s": steps * c.batch * c.truncation / busy}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__.partition("\n")[0])
    parser.add_argument("--text", help="a UTF-8 file (default: the help pages of Python)")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--peer", choices=PEERS, help="train this one in this process and print JSON")
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(trained(options.peer, options.text, options.steps, options.seed)))
        return
    figures = {}
    for peer in PEERS:
        if peer.startswith("torch") and not importlib.util.find_spec("torch"):
            continue
        command = [sys.executable, "-m", "benchmarks.text", "--peer", peer, "--steps", str(options.steps)]
        command += ["--seed", str(options.seed), *(["--text", options.text] if options.text else [])]
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        figures[peer] = json.loads(subprocess.check_output(command, env=environment, text=True).splitlines()[-1])
    table = Table(title=f"character model, {options.text or 'the help pages of Python'}, one thread")
    rows = list(figures[PEERS[0]])
    for column in ("", *rows):
        table.add_column(column, justify="right" if column else "left")
    for peer, found in figures.items():
        table.add_row(peer, *(f"{found[row]:,.0f}" if row == "tokens/s" else f"{found[row]:.4f}" for row in rows))
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
