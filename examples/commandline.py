"""What all examples share: options from the keywords of `main`, a backend, a bar, a sentence for what goes wrong."""

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from rich.progress import track
from threadpoolctl import threadpool_limits

import tinygrad_rnn as tg
from tinygrad_rnn.errors import TinygradError

PACKAGES = {"sklearn": "scikit-learn", "vega_datasets": "vega-datasets"}
"""What pip calls a package, where that is not its name in Python."""
BAD_INPUT = 2
"""The exit status for what cannot be done, as the package's own command has it."""


def run(main: Callable[..., Any], arguments: list[str] | None = None) -> None:
    """Call main with what the command line says: an option for each of its keyword-only parameters, and --backend.

    An option is of the type of its default, or text, where that is None; whole numbers are counts, of at least 1, but
    for a seed, which may be 0. A folder `out` is made, if need be.

    Raises: SystemExit, after one sentence, for what cannot be: such a number, what the package refuses, a file that
        cannot be written, a package that is not installed.
    """
    chosen = vars(parser_of(main).parse_args(arguments))
    backend = chosen.pop("backend")
    try:
        if "out" in chosen:
            chosen["out"].mkdir(parents=True, exist_ok=True)
        with threadpool_limits(1), tg.use_backend(backend) if backend else nullcontext():
            main(**chosen)  # on one thread, which small matrices like best
    except TinygradError as error:
        stop(str(error))
    except OSError as error:
        stop(
            f"{error.filename or 'the output'} could not be written ({error.strerror}): name another folder with --out"
        )
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        stop(f"this example needs {missing}, which is not installed: pip install {PACKAGES.get(missing, missing)}")


def stop(sentence: str) -> NoReturn:
    """End here, and say why."""
    print(sentence, file=sys.stderr)
    raise SystemExit(BAD_INPUT) from None


def parser_of(main: Callable[..., Any]) -> argparse.ArgumentParser:
    """The words of the command line; the help is the docstring of main's module."""
    about, form = inspect.getmodule(main).__doc__, argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=form)
    parser.add_argument("--backend", help="numpy, cupy or cupy:1 (default: numpy)")
    for name, parameter in inspect.signature(main).parameters.items():
        start = parameter.default
        kind = str if start is None else Path if isinstance(start, Path) else type(start)
        if kind is int:
            kind = whole_number(0 if name == "seed" else 1)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=start,
            help=start if start is None else f"(default: {start})",
        )
    return parser


def whole_number(least: int) -> Callable[[str], int]:
    """What argparse asks to read a number that must not be smaller."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return int(text)

    return read


def progress(steps: int, words: str) -> Iterable[int]:
    """The numbers from 0 to steps - 1; in a terminal, a bar shows how far they have come."""
    return track(range(steps), words, transient=True, disable=not sys.stdout.isatty())
