"""The command `tinygrad-rnn`: its words, in `_parser`. Bad input: one sentence and exit status 2."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self, TextIO

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from . import __version__
from .backend import backends, use_backend
from .core.tensor import Tensor, tensor
from .errors import OptionError, OutputError, TinygradError
from .nn.cells import GRUCell
from .see import flow
from .see.curve import curve
from .see.drawing import Drawing, draw, size
from .see.player import play
from .see.show import computation, of_checkpoint
from .train import checkpoint
from .train.log import LOG, Log
from .train.loop import CHOICES, TASK_DEFAULTS, Configuration, Report, Run, load_model
from .train.model import write_on

CURVE, PICTURE, README = "loss.svg", "gru_step.svg", "README.txt"
SAVED, BAD_INPUT, INTERRUPTED = 0, 2, 130
DEMO_SECONDS = 30.0
PASSING: dict[str, Any] = {"backend": None, "threads": 1, "log_every": 10, "validate_every": 250, "save_every": 100}
"""The options that no checkpoint keeps, and their defaults."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows "?"
    try:
        return _status(arguments)
    finally:
        _empty(sys.stderr)


def _status(arguments: list[str] | None) -> int:
    try:
        with _on_signals(_interrupt):
            try:
                return _done(_parser().parse_args(arguments))
            finally:
                print(end="", flush=True)  # what is wrong with the output shows here, not when Python ends
    except TinygradError as error:
        return _refused(error)
    except MemoryError as error:
        return _refused(f"there is not enough memory ({error}): take smaller sizes, as of --hidden, --layers, --batch")
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _empty(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader of our output, such as head, has had enough
            return SAVED
        return _refused(f"{error.filename or 'the output'} could not be written ({error.strerror}): make room for it")


def _empty(stream: TextIO) -> None:
    """Write what is left in a buffer; what cannot be written goes nowhere, for it would fail again when Python ends."""
    try:
        print(end="", file=stream, flush=True)
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _done(chosen: argparse.Namespace) -> int:
    backend = use_backend(chosen.backend) if chosen.backend else nullcontext()
    with threadpool_limits(chosen.threads), backend, np.errstate(all="ignore"):  # NaN has its own sentences
        return int(chosen.action(chosen))


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _on_signals(handler: Handler) -> Iterator[None]:
    """Whoever wants to stop us calls the handler; only the main thread can be told."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refused(reason: Exception | str) -> int:
    with suppress(OSError):  # where even this cannot be written, the status tells
        print("tinygrad-rnn:", " ".join(str(reason).split()), file=sys.stderr)
    return BAD_INPUT


class _Parser(argparse.ArgumentParser):
    """argparse, with one sentence in place of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; {self.prog} --help shows what it takes\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinygrad-rnn", description="Recurrent networks that learn text.")
    parser.add_argument("--version", action="version", version=f"tinygrad-rnn {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="{demo,train,sample,gates,draw,play,info}"
    )

    def command(name: str, action: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        added.set_defaults(action=action, **PASSING)
        return added

    demo = command("demo", _demo, "Learn for half a minute, write before and after, leave a folder to look at.")
    demo.add_argument("--out", type=_path, help="a new folder (default: demo-run, or the first free demo-run-2, ...)")

    train = command("train", _train, "Learn a text character by character, or the agreement of subject and verb.")
    add, known = train.add_argument, Configuration()
    add("--task", choices=CHOICES["task"], help="what to learn (default: text)")
    add("--text", type=_path, metavar="FILE", help="a UTF-8 file (default: the help pages that come with Python)")
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
    add("--threads", type=_positive, metavar="N", default=PASSING["threads"],
        help="of the linear algebra (default: 1, which small matrices and crowded machines like best)")  # fmt: skip
    add("--out", type=_path, help="a new folder (default: run, or the first free run-2, ...)")
    add("--resume", action="store_true", help="go on with the run in --out, exactly where it stopped")
    for what, result in (("log", "a line in the log"), ("validate", "the validation loss"), ("save", "a checkpoint")):
        default = PASSING[f"{what}_every"]
        words = f"steps from {result} to the next (default: {default})"
        add(f"--{what}-every", type=_positive, metavar="N", default=default, help=words)

    sample = command("sample", _sample, "Let a trained model write.")
    add = sample.add_argument
    add("--checkpoint", type=_path, required=True, metavar="DIR", help="the folder that train or demo filled")
    add("--prompt", help="what it goes on from (default: a new line)")
    add("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest symbol (default: 0.8)")
    add("--length", type=int, default=300, metavar="N", help="symbols to write (default: 300)")
    add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text (default: 0)")
    add("--backend", help="numpy, cupy or cupy:1 (default: numpy)")

    gates = command("gates", _gates, "Show what the gates of a trained model do while it reads.")
    add = gates.add_argument
    add("--checkpoint", type=_path, required=True, metavar="DIR", help="the folder that train or demo filled")
    add("--prompt", required=True, help="what it reads")
    add("--layer", type=int, default=-1, metavar="N", help="counted from 0 (default: the last)")
    add(
        "--gate",
        metavar="LETTER",
        help="such as z, or a state such as h (default: the gate that lets the new in; in a file, all)",
    )
    add("--units", type=_positive, default=flow.MOST, metavar="N", help=f"how many of them (default: {flow.MOST})")
    add(
        "--out",
        type=_path,
        metavar="FILE",
        help="a picture (.svg), a page (.html) or text (.txt), in place of the terminal",
    )
    add("--backend", help="numpy, cupy or cupy:1 (default: numpy)")

    for name, action, summary, example in (
        (
            "draw",
            _draw,
            "Draw a computation with all its values and gradients.",
            "as .svg, .html, .png, .pdf, .dot, .json",
        ),
        ("play", _play, "Make a page that steps through a computation, forward and back.", ".html"),
    ):
        add = command(name, action, summary).add_argument
        add("--cell", choices=CHOICES["cell"], help="a small layer of such cells (default: gru)")
        add("--steps", type=_positive, metavar="N", help="its time steps (default: 3)")
        add(
            "--checkpoint",
            type=_path,
            metavar="DIR",
            help="in its place, a model that train or demo filled a folder with",
        )
        add("--prompt", help="with --checkpoint: the text whose loss is shown")
        add("--fused", action="store_true", help="with --checkpoint: show each layer as the one operation that it is")
        add("--out", type=_path, required=True, metavar="FILE", help=f"the file to write: {example}")

    command("info", _info, "Say what is installed and which backends can be used, and if not, why.")
    return parser


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _train(chosen: argparse.Namespace) -> int:
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


class Display:
    """Shows a run while it goes on: a live bar in a terminal, else a line now and then; Ctrl-C ends it in good order.

    seconds: the limit by the clock, if the run has one.
    An output that cannot be written ends the run in good order too; leaving the display then raises its OSError.
    """

    def __init__(self, run: Run, seconds: float = math.inf) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self.run, self.seconds, self.console = run, seconds, Console(highlight=False)
        self.interrupted = False
        self.failure: OSError | None = None
        self.first, self.started, self.spoken, self.last = run.step, time.monotonic(), -math.inf, Report(0, 0)
        self.unit = "verb" if run.configuration.task == "agreement" else "char"
        columns = (TextColumn("step {task.fields[step]}/{task.fields[steps]}"), BarColumn(bar_width=None))
        self.progress = Progress(*columns, TextColumn("{task.fields[left]}"), expand=True)
        self.bar = self.progress.add_task("", total=1.0, step=run.step, steps=run.configuration.steps, left="")
        self.live = Live(console=self.console, get_renderable=lambda: Group(self.progress, self._below()))

    def __enter__(self) -> Self:
        self._listening = _on_signals(self._stop)
        self._listening.__enter__()
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()
        self._listening.__exit__(None, None, None)
        if self.failure:
            raise self.failure

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Only leaves word: whoever was interrupted may hold the lock of the output."""
        self.run.stopping = self.interrupted = True
        signal.signal(number, _interrupt)  # who asks twice means it

    def show(self, report: Report) -> None:
        """Bring the display up to a report."""
        now = time.monotonic()
        share = (report.step - self.first) / max(1, report.steps - self.first)
        share = max(share, min(1.0, (now - self.started) / self.seconds))
        left = _time((now - self.started) * (1 - share) / share) + " left" if share else ""
        if report.loss is not None:
            self.last = report
        self.progress.update(self.bar, completed=share, step=report.step, left=left)
        due = report.loss is not None and (now - self.spoken > 5 or report.step == report.steps)
        if report.measured or (due and not self.console.is_terminal):
            self._say(f"step {report.step}/{report.steps}  {self._words(report)}", left)
            if report.step > self.first + 1:  # the first step has its line at once, and delays no other
                self.spoken = now

    def _say(self, words: str, left: str) -> None:
        try:
            if self.console.is_terminal:
                self.console.print(words)
            else:
                print(f"{words}  {left}", flush=True)
        except OSError as error:
            self.run.stopping, self.failure = True, error

    def _words(self, report: Report) -> str:
        """Losses in nats and bits, and the speed."""
        parts = [
            f"{name} {nats:.3f} nats ({nats / math.log(2):.3f} bits/{self.unit})"
            for name, nats in (("loss", report.loss), ("validation", report.measured.get("val_loss")))
            if nats is not None
        ]
        if "accuracy" in report.measured:
            parts.append(f"right {report.measured['accuracy']:.1%}")
        return "  ".join([*parts, f"{report.tokens_per_second:,.0f} tokens/s"])

    def _below(self) -> str:
        """The line below the bar: what fits, in the fullest words that do."""
        if self.interrupted:
            return "finishing this step, then saving ..."
        if self.last.loss is None:
            return ""
        nats, bits = f"{self.last.loss:.3f} nats", f"{self.last.loss / math.log(2):.3f} bits"
        speed = f"{self.last.tokens_per_second:,.0f} tokens/s"
        forms = (f"loss {nats} ({bits}/{self.unit})  {speed}", f"{nats}  {bits}  {speed}", f"{nats}  {bits}", nats)
        return next((form for form in forms if len(form) <= self.console.width), "")


def _time(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _leave_curve(folder: Path, c: Configuration) -> None:
    entries = Log(folder / LOG, sys.maxsize).entries()
    series = {
        name: [(float(entry["step"]), entry[key]) for entry in entries if isinstance(entry.get(key), (int, float))]
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
    if vocabulary.separator:
        prompt = vocabulary.separator.join(prompt.split())
    rng = np.random.default_rng(chosen.seed)
    written = write_on(model, vocabulary, prompt, length=chosen.length, temperature=chosen.temperature, rng=rng)
    print(prompt, end="")
    for symbol in written:
        print(symbol, end="", flush=True)
    print()
    return SAVED


def _gates(chosen: argparse.Namespace) -> int:
    model, vocabulary, _ = load_model(chosen.checkpoint)
    found = flow.gates_over_text(model, vocabulary, chosen.prompt)
    if not -1 <= chosen.layer < len(found):
        raise OptionError(f"--layer is {chosen.layer}; the model has {len(found)}, counted from 0")
    picture = found[chosen.layer]
    usual = picture.shown if chosen.out else [picture.gate or picture.shown[-1]]
    names = usual if chosen.gate is None else [chosen.gate]
    picture = picture.show(*names, units=chosen.units)
    if chosen.out:
        print(f"{picture.save(chosen.out)} shows {', '.join(names)}.", *picture.sentences(), sep="\n")
    else:
        _print_rich(picture)
    return SAVED


def _print_rich(picture: Any) -> None:
    """With colours, if this is a terminal; through our own output, so that its failures are ours to explain."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(picture)
    print(captured.get(), end="")


def _draw(chosen: argparse.Namespace) -> int:
    drawing = draw(_shown(chosen), expand=not chosen.fused)
    where = "; open it in a browser" if chosen.out.suffix.lower() in (".svg", ".html") else ""
    print(f"{drawing.save(chosen.out)} shows {size(drawing.graph)}{where}")
    return SAVED


def _play(chosen: argparse.Namespace) -> int:
    player = play(_shown(chosen), expand=not chosen.fused)
    print(f"{player.save(chosen.out)} goes through {player.steps} steps; open it in a browser")
    return SAVED


def _shown(chosen: argparse.Namespace) -> Tensor:
    """The computation that draw and play are asked for."""
    if chosen.checkpoint is None:
        if chosen.prompt is not None or chosen.fused:
            raise OptionError("--prompt and --fused have no meaning without --checkpoint: name the folder of a run")
        return computation(chosen.cell or "gru", chosen.steps or 3)
    if chosen.cell or chosen.steps:
        raise OptionError("--cell and --steps have no meaning with --checkpoint: leave them out")
    if chosen.prompt is None:
        raise OptionError("--checkpoint needs --prompt: the text whose loss is to be shown")
    return of_checkpoint(chosen.checkpoint, chosen.prompt)


def _info(chosen: argparse.Namespace) -> int:
    print(f"tinygrad-rnn {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for status in backends().values():
        print(status)
    return SAVED


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


if __name__ == "__main__":
    sys.exit(main())
