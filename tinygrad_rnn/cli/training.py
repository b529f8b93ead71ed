"""`train` and `demo`: runs, and the folders that they leave."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..core.tensor import tensor
from ..errors import OptionError, OutputError
from ..nn.cells import GRUCell
from ..see.curve import curve
from ..see.drawing import Drawing, draw
from ..train import checkpoint
from ..train.log import LOG, Log
from ..train.loop import TASK_DEFAULTS, Configuration, Run
from ..train.model import write_on
from .display import Display
from .ending import INTERRUPTED, SAVED

CURVE, PICTURE, README = "loss.svg", "gru_step.svg", "README.txt"
DEMO_SECONDS = 30.0
PASSING: dict[str, Any] = {"backend": None, "threads": 1, "log_every": 10, "validate_every": 250, "save_every": 100}
"""The options that no checkpoint keeps, and their defaults."""


def learn(chosen: argparse.Namespace) -> int:
    options = {name: getattr(chosen, name) for name in Configuration.__dataclass_fields__}
    options = {name: value for name, value in options.items() if value is not None}
    if "text" in options:
        options["text"] = os.path.abspath(options["text"])
    if chosen.resume:
        run, folder = _resumed(chosen.out, options)
    else:
        run = Run(_configuration(options))
        folder = _claimed(chosen.out, "run", (checkpoint.FILE, LOG, CURVE))
    c = run.configuration
    sizes = f"{len(run.task.vocabulary)} symbols, embedding {c.embedding}, hidden {c.hidden}, layers {c.layers}"
    print(f"{c.task}, {c.cell}: {sizes}; step {run.step} to {c.steps}, in {folder}", flush=True)
    with Display(run) as display:
        for report in run.train(
            folder, log_every=chosen.log_every, validate_every=chosen.validate_every, save_every=chosen.save_every
        ):
            display.show(report)
    if run.step < c.steps:
        _say_how_to_go_on(chosen, run, folder)
        return INTERRUPTED
    _leave_curve(folder, c)
    to_sample = f"tinygrad-rnn sample {checkpoint.as_typed('--checkpoint', folder)}"
    print(f"{folder} holds the checkpoint, {LOG}, {CURVE}; let it write with\n  {to_sample}")
    return SAVED


def _say_how_to_go_on(chosen: argparse.Namespace, run: Run, folder: Path) -> None:
    """Print the command that goes on with a run, its passing options as they were."""
    words = ["tinygrad-rnn train --resume", checkpoint.as_typed("--out", folder)]
    for name, default in PASSING.items():
        if (value := getattr(chosen, name)) != default:
            words += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    print(f"stopped after step {run.step}, all is saved; go on with\n  {' '.join(words)}")


def _configuration(options: dict[str, Any]) -> Configuration:
    """The options given, over the defaults of the task; one that would have no effect is refused."""
    configuration = Configuration(**{**TASK_DEFAULTS.get(options.get("task", "text"), {}), **options})
    for name, where, homes in (
        ("text", "task", ("text",)),
        ("truncation", "task", ("text",)),
        ("reset", "cell", ("gru",)),
        ("update", "cell", ("gru",)),
    ):
        if name in options and getattr(configuration, where) not in homes:
            raise OptionError(f"--{name} has no meaning with --{where} {getattr(configuration, where)}: leave it out")
    return configuration


def _resumed(folder: Path | None, options: dict[str, Any]) -> tuple[Run, Path]:
    if folder is None:
        raise OptionError("--resume needs --out: name the folder of the run to go on with")
    if not checkpoint.exists(folder):
        raise OptionError(f"there is no run in {folder} to go on with: leave out --resume to start one")
    return Run.resumed(folder, **options), folder


def _claimed(folder: Path | None, default: str, files: Iterable[str]) -> Path:
    """A folder that can be written to and has none of these files: the one asked for, or a new one beside us.

    Raises: OutputError.
    """
    if folder is None:
        names = (Path(default if n == 1 else f"{default}-{n}") for n in count(1))
        folder = next(name for name in names if not os.path.lexists(name))
    if checkpoint.exists(folder):
        raise OutputError(
            f"{folder} holds another run: go on with it by tinygrad-rnn train --resume "
            f"{checkpoint.as_typed('--out', folder)}, or name a new folder with --out"
        )
    wanted = (folder / f"{name}{end}" for name in files for end in ("", ".partial"))
    if there := next(filter(checkpoint.of_others, wanted), None):
        raise OutputError(f"{folder} holds a file {there.name} already: name a new folder with --out")
    if folder.is_symlink() and not folder.exists():
        raise OutputError(f"{folder} is a link to {folder.readlink()}, which is not there: name another with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): name another with --out") from None
    return folder


def demonstrate(chosen: argparse.Namespace) -> int:
    run = Run(Configuration())
    folder = _claimed(chosen.out, "demo-run", (checkpoint.FILE, LOG, CURVE, PICTURE, README))
    print(f"A GRU learns the help pages of Python, character by character, for {DEMO_SECONDS:.0f} seconds.\n")
    before = _excerpt(run)
    print(f"What it writes before:\n\n{before}\n", flush=True)
    with Display(run, DEMO_SECONDS) as display:
        for report in run.train(folder, validate_every=100, seconds=DEMO_SECONDS):
            display.show(report)
    after = _excerpt(run)
    print(f"\nWhat it writes after {run.step} steps:\n\n{after}\n", flush=True)
    _leave_curve(folder, run.configuration)
    _one_step().save(folder / PICTURE)
    checkpoint.write(folder / README, _readme(folder, run, before, after).encode(errors="surrogateescape"))
    print(f"{folder} holds the checkpoint, the loss curve and a picture of one GRU step; {folder / README} says more.")
    if not display.interrupted:
        return SAVED
    _say_how_to_go_on(chosen, run, folder)
    return INTERRUPTED


def _excerpt(run: Run) -> str:
    written = write_on(run.model, run.task.vocabulary, "The ", length=240, rng=np.random.default_rng(0))
    text = "The " + "".join(written)
    return "\n".join(f"    {line}" for line in text.splitlines())


def _one_step() -> Drawing:
    """The picture of one step of a small GRU."""
    cell = GRUCell(3, 4, rng=np.random.default_rng(0))
    x, h = (tensor(np.zeros((2, size), np.float32), name=name) for size, name in ((3, "x"), (4, "h")))
    return draw(cell(x, h), title="One step of a GRU")


def _readme(folder: Path, run: Run, before: str, after: str) -> str:
    c, here = run.configuration, shlex.quote(str(folder.resolve()))
    program = f"{shlex.quote(sys.executable)} -m tinygrad_rnn.cli"
    return f"""\
What is in this folder
======================

A GRU of {c.hidden} units that learns the help pages of Python, character by character. This file and the picture are
from the end of the demo, after {run.step} steps; all else moves on when the run does.

{checkpoint.FILE:<20} the checkpoint: configuration, vocabulary, position in the text, random state
arrays-*.safetensors its arrays: weights, state of the optimiser, recurrent state
{LOG:<20} one line per 10 steps: loss and validation loss in nats, tokens per second
{CURVE:<20} the loss curve; open it in a browser
{PICTURE:<20} one step of a GRU, operation by operation; open it in a browser
{README:<20} this

Let it write:

    {program} sample --checkpoint {here} --prompt "The " --temperature 0.5

Let it learn on, from exactly where it stopped, to a step of your choice:

    {program} train --resume --out {here} --steps {2 * c.steps}

Let it learn a text of yours:

    {program} train --text FILE

What it wrote before:

{before}

What it wrote after:

{after}
"""


def _leave_curve(folder: Path, c: Configuration) -> None:
    entries = Log(folder / LOG, sys.maxsize).entries()
    series = {
        name: [(float(entry["step"]), entry[key]) for entry in entries if isinstance(entry.get(key), (int, float))]
        for name, key in (("training", "loss"), ("validation", "val_loss"))
    }
    title = f"{c.cell}, hidden {c.hidden}, {c.task}"
    checkpoint.write(folder / CURVE, curve(series, title=title, x="step", y="loss (nats)").encode())
