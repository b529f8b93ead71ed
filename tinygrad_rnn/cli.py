"""The command `tinygrad-rnn`: demo, train, sample, info. Bad input: one sentence and exit status 2."""

from __future__ import annotations

import argparse
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from . import __version__
from .backend import backends, use_backend
from .core.tensor import tensor
from .errors import OptionError, OutputError, TinygradError
from .nn.cells import GRUCell
from .see.curve import curve
from .see.drawing import Drawing, draw
from .train import checkpoint
from .train.loop import CHOICES, LOG, TASK_DEFAULTS, Configuration, Log, Report, Run, load_model
from .train.model import write_on

CURVE, PICTURE, README = "loss.svg", "gru_step.svg", "README.txt"
SAVED, BAD_INPUT, INTERRUPTED = 0, 2, 130
DEMO_SECONDS = 30.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows "?"
    chosen = _parser().parse_args(arguments)
    try:
        with threadpool_limits(chosen.threads), use_backend(chosen.backend) if chosen.backend else nullcontext():
            return int(chosen.action(chosen))
    except TinygradError as error:
        return _refused(error)
    except MemoryError as error:
        return _refused(f"there is not enough memory ({error}): take a smaller --hidden, --batch or --truncation")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SAVED


def _refused(reason: Exception | str) -> int:
    print("tinygrad-rnn:", " ".join(str(reason).split()), file=sys.stderr)
    return BAD_INPUT


class _Parser(argparse.ArgumentParser):
    """argparse, with one sentence in place of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; {self.prog} --help shows what it takes\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinygrad-rnn", description="Recurrent networks that learn text.")
    parser.add_argument("--version", action="version", version=f"tinygrad-rnn {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="{demo,train,sample,info}")

    def command(name: str, action: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        added.set_defaults(action=action, backend=None, threads=1)
        return added

    demo = command("demo", _demo, "Learn for half a minute, write before and after, leave a folder to look at.")
    demo.add_argument("--out", type=Path, help="a new folder (default: demo-run, or the first free demo-run-2, ...)")

    train = command("train", _train, "Learn a text character by character, or the agreement of subject and verb.")
    add, known = train.add_argument, Configuration()
    add("--task", choices=CHOICES["task"], help="what to learn (default: text)")
    add("--text", metavar="FILE", help="a UTF-8 file (default: the help pages that come with Python)")
    add("--cell", choices=CHOICES["cell"], help=f"(default: {known.cell})")
    add("--reset", choices=CHOICES["reset"], help=f"of a GRU: before or after the product (default: {known.reset})")
    add("--update", choices=CHOICES["update"], help=f"of a GRU: z = 1 takes new or keeps old (default: {known.update})")
    for name, kind, meaning in (
        ("embedding", int, "size of a symbol's vector"),
        ("hidden", int, "size of the hidden state"),
        ("layers", int, "recurrent layers"),
        ("dropout", float, "between the layers"),
        ("batch", int, "parallel streams"),
        ("truncation", int, "symbols per window of back-propagation"),
        ("steps", int, "weight updates"),
        ("lr", float, "step size of Adam"),
        ("clip", float, "largest norm of the gradient"),
        ("seed", int, "of every random number"),
    ):
        special = "".join(f", {task}: {own[name]}" for task, own in TASK_DEFAULTS.items() if name in own)
        add(f"--{name}", type=kind, metavar="N" if kind is int else "X",
            help=f"{meaning} (default: {getattr(known, name)}{special})")  # fmt: skip
    add("--schedule", choices=CHOICES["schedule"], help=f"of the step size (default: {known.schedule})")
    add("--backend", help="numpy, cupy or cupy:1 (default: numpy)")
    add("--threads", type=_positive, metavar="N", default=1,
        help="of the linear algebra (default: 1, which small matrices and crowded machines like best)")  # fmt: skip
    add("--out", type=Path, help="a new folder (default: run, or the first free run-2, ...)")
    add("--resume", action="store_true", help="go on with the run in --out, exactly where it stopped")
    for what, default, result in (
        ("log", 10, "a line in the log"),
        ("validate", 250, "the validation loss"),
        ("save", 100, "a checkpoint"),
    ):
        words = f"steps from {result} to the next (default: {default})"
        add(f"--{what}-every", type=_positive, metavar="N", default=default, help=words)

    sample = command("sample", _sample, "Let a trained model write.")
    add = sample.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="the folder that train or demo filled")
    add("--prompt", help="what it goes on from (default: a new line)")
    add("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest symbol (default: 0.8)")
    add("--length", type=int, default=300, metavar="N", help="symbols to write (default: 300)")
    add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text (default: 0)")
    add("--backend", help="numpy, cupy or cupy:1 (default: numpy)")

    command("info", _info, "Say what is installed and which backends can be used, and if not, why.")
    return parser


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _train(chosen: argparse.Namespace) -> int:
    options = {name: getattr(chosen, name) for name in Configuration.__dataclass_fields__}
    options = {name: value for name, value in options.items() if value is not None}
    if "text" in options:
        options["text"] = str(Path(options["text"]).resolve())
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
        print(f"stopped after step {run.step}, all is saved; go on with\n  tinygrad-rnn train --resume --out {folder}")
        return INTERRUPTED
    _leave_curve(folder, c)
    print(
        f"{folder} holds the checkpoint, {LOG}, {CURVE}; let it write with\n  tinygrad-rnn sample --checkpoint {folder}"
    )
    return 0


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
        folder = next(f for n in range(1, 10**6) if not (f := Path(default if n == 1 else f"{default}-{n}")).exists())
    if checkpoint.exists(folder):
        raise OutputError(
            f"{folder} holds another run: go on with it by tinygrad-rnn train --resume --out {folder}, "
            "or name a new folder with --out"
        )
    if there := [name for name in files if (folder / name).exists()]:
        raise OutputError(f"{folder} holds a file {there[0]} already: name a new folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): name another with --out") from None
    return folder


class Display:
    """Shows a run while it goes on: a live bar in a terminal, else a line now and then; Ctrl-C ends it in good order.

    seconds: the limit by the clock, if the run has one.
    """

    def __init__(self, run: Run, seconds: float = math.inf) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.run, self.seconds, self.console = run, seconds, Console(highlight=False)
        self.unit = "verb" if run.configuration.task == "agreement" else "char"
        self.progress = Progress(
            TextColumn("step {task.fields[step]}/{task.fields[steps]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.bar = self.progress.add_task("", total=1.0, step=run.step, steps=run.configuration.steps)
        self.interrupted = False
        self.first, self.started, self.spoken, self.last = run.step, time.monotonic(), -math.inf, Report(0, 0)

    def __enter__(self) -> Self:
        self._before = {name: signal.signal(name, self._stop) for name in (signal.SIGINT, signal.SIGTERM)}
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.run.stopping = self.interrupted = True
        signal.signal(number, self._before[signal.Signals(number)])  # who asks twice means it
        self.progress.console.print("finishing this step, then saving ...")

    def show(self, report: Report) -> None:
        """Bring the display up to a report."""
        now = time.monotonic()
        share = (report.step - self.first) / max(1, report.steps - self.first)
        share = max(share, min(1.0, (now - self.started) / self.seconds))
        if report.loss is not None:
            self.last = report
        self.progress.update(self.bar, completed=share, step=report.step, description=self._words(self.last))
        due = report.loss is not None and (now - self.spoken > 5 or report.step == report.steps)
        if report.measured or (due and not self.console.is_terminal):
            line = f"step {report.step}/{report.steps}  {self._words(report)}{self._left(share, now)}"
            self.console.print(line, soft_wrap=True)
            self.spoken = now

    def _words(self, report: Report) -> str:
        """Losses in nats and bits, and the speed."""
        if report.loss is None:
            return ""
        parts = [
            f"{name} {nats:.3f} nats ({nats / math.log(2):.3f} bits/{self.unit})"
            for name, nats in (("loss", report.loss), ("validation", report.measured.get("val_loss")))
            if nats is not None
        ]
        if "accuracy" in report.measured:
            parts.append(f"right {report.measured['accuracy']:.1%}")
        return "  ".join([*parts, f"{report.tokens_per_second:,.0f} tokens/s"])

    def _left(self, share: float, now: float) -> str:
        if self.console.is_terminal or not share:
            return ""
        left = (now - self.started) * (1 - share) / share
        return f"  {int(left) // 60}:{int(left) % 60:02d} left"


def _leave_curve(folder: Path, c: Configuration) -> None:
    entries = Log(folder / LOG, sys.maxsize).entries()
    series = {
        name: [(entry["step"], entry[key]) for entry in entries if entry[key] is not None]
        for name, key in (("training", "loss"), ("validation", "val_loss"))
    }
    title = f"{c.cell}, hidden {c.hidden}, {c.task}"
    checkpoint.write(folder / CURVE, curve(series, title=title, x="step", y="loss (nats)").encode())


def _sample(chosen: argparse.Namespace) -> int:
    if chosen.seed < 0:
        raise OptionError(f"--seed is {chosen.seed}; it must be 0 or more")
    model, vocabulary, _ = load_model(chosen.checkpoint)
    prompt = chosen.prompt
    if prompt is None:
        prompt = "\n" if "\n" in vocabulary.symbols else vocabulary.symbols[0]
    rng = np.random.default_rng(chosen.seed)
    written = write_on(model, vocabulary, prompt, length=chosen.length, temperature=chosen.temperature, rng=rng)
    print(prompt, end="")
    for symbol in written:
        print(symbol, end="", flush=True)
    print()
    return 0


def _info(chosen: argparse.Namespace) -> int:
    print(f"tinygrad-rnn {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for status in backends().values():
        print(status)
    return 0


def _demo(chosen: argparse.Namespace) -> int:
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
    checkpoint.write(folder / README, _readme(folder, run, before, after).encode())
    print(f"{folder} holds the checkpoint, the loss curve and a picture of one GRU step; {folder / README} says more.")
    return INTERRUPTED if display.interrupted else 0


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
    c = run.configuration
    return f"""\
What is in this folder
======================

A GRU of {c.hidden} units that has learned the help pages of Python, character by character, for {run.step} steps.

{checkpoint.FILE:<20} the checkpoint: configuration, vocabulary, position in the text, random state
arrays-*.safetensors its arrays: weights, state of the optimiser, recurrent state
{LOG:<20} one line per 10 steps: loss and validation loss in nats, tokens per second
{CURVE:<20} the loss curve; open it in a browser
{PICTURE:<20} one step of a GRU, operation by operation; open it in a browser
{README:<20} this

Let it write:

    tinygrad-rnn sample --checkpoint {folder} --prompt "The " --temperature 0.5

Let it learn on, from exactly where it stopped:

    tinygrad-rnn train --resume --out {folder} --steps {2 * c.steps}

Let it learn a text of yours:

    tinygrad-rnn train --text FILE

What it wrote before:

{before}

What it wrote after:

{after}
"""
