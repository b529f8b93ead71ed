"""The words of the command, in `_parser`, and how it ends. Bad input: one sentence and exit status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import chain, pairwise
from pathlib import Path
from typing import NoReturn, TextIO

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .. import __version__
from ..backend import use_backend
from ..errors import TinygradError
from ..see import flow
from ..train.loop import CHOICES, TASK_DEFAULTS, Configuration
from . import lab
from .converting import SUFFIXES, convert_file
from .ending import BAD_INPUT, INTERRUPTED, SAVED, interrupt, on_signals
from .showing import draw_picture, make_page, say_what_is_there, show_gates, write
from .training import PASSING, demonstrate, learn

COMMAND = "  python "
"""How a line begins that is to be run."""


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
        with on_signals(interrupt):
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


def _refused(reason: Exception | str) -> int:
    with suppress(OSError):  # where even this cannot be written, the status tells
        print("tinygrad-rnn:", _in_lines(str(reason)), file=sys.stderr)
    return BAD_INPUT


def _in_lines(text: str) -> str:
    """One line, but for commands that it shows, which keep a line of their own."""
    kept = [line if line.startswith(COMMAND) else " ".join(line.split()) for line in text.splitlines()]
    breaks = ["\n" if COMMAND in (one[: len(COMMAND)], other[: len(COMMAND)]) else " " for one, other in pairwise(kept)]
    return "".join(chain.from_iterable(zip(kept, [*breaks, ""])))


class _Parser(argparse.ArgumentParser):
    """argparse, with one sentence in place of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; {self.prog} --help shows what it takes\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinygrad-rnn", description="Recurrent networks that learn text.")
    parser.add_argument("--version", action="version", version=f"tinygrad-rnn {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="{demo,train,sample,gates,draw,play,convert,lab,info}"
    )

    def command(name: str, action: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, formatter_class=_Help)
        added.set_defaults(action=action, **PASSING)
        return added

    demo = command("demo", demonstrate, "Learn for half a minute, write before and after, leave a folder to look at.")
    demo.add_argument("--out", type=_path, help="a new folder (default: demo-run, or the first free demo-run-2, ...)")

    train = command("train", learn, "Learn a text character by character, or the agreement of subject and verb.")
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

    sample = command("sample", write, "Let a trained model write.")
    add = sample.add_argument
    add("--checkpoint", type=_path, required=True, metavar="DIR", help="the folder that train or demo filled")
    add("--prompt", help="what it goes on from (default: a new line)")
    add("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest symbol (default: 0.8)")
    add("--length", type=int, default=300, metavar="N", help="symbols to write (default: 300)")
    add("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text (default: 0)")
    add("--backend", help="numpy, cupy or cupy:1 (default: numpy)")

    gates = command("gates", show_gates, "Show what the gates of a trained model do while it reads.")
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
            draw_picture,
            "Draw a computation with all its values and gradients.",
            "as .svg, .html, .png, .pdf, .dot, .json",
        ),
        ("play", make_page, "Make a page that steps through a computation, forward and back.", ".html"),
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

    add = command("convert", convert_file, "Turn the file of a model into one of another library.").add_argument
    add("source", type=_path, metavar="IN", help=f"a file ({', '.join(SUFFIXES)}), or the folder of train or demo")
    add("target", type=_path, metavar="OUT", help="the file to write, of any of these kinds")
    add("--check", action="store_true", help="run both where their libraries are installed, and compare")
    add("--names", choices=("torch",), help="write a .safetensors file for load_state_dict of torch")
    add(
        "--layers",
        metavar="LAYERS",
        help="where IN does not tell: its layers in the order in which they act, each as NAME[=KIND][:SETTING=VALUE], "
        "such as emb=Embedding,gru:batch_first,norm:eps=1e-3,head",
    )

    summary = "Learn how gradients go wrong: the order of the way back, classic bugs, and drills to work out by hand."
    lab.add_commands(command("lab", say_what_is_there, summary), _Help)

    command("info", say_what_is_there, "Say what is installed and which backends can be used, and if not, why.")
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
