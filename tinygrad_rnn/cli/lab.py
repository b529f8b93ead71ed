"""`lab`: the order lab, the bug gallery and the drills in the shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from ..errors import OptionError
from ..lab import gallery
from ..lab.drills import LEVELS, drill_of, read
from ..lab.sources import crossing, result_of
from ..lab.walks import order
from .ending import SAVED

NOT_ALL_RIGHT = 1
"""The exit status of `lab check`, if something is wrong or blank."""
HOW = "FILE.py:function (called with what a function inputs() beside it returns, else with its defaults)"


def add_commands(lab: argparse.ArgumentParser, help_format: type[argparse.HelpFormatter]) -> None:
    """The words of `tinygrad-rnn lab`."""
    commands = lab.add_subparsers(title="commands", required=True, metavar="{order,bugs,drill,check,hint}")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary, formatter_class=help_format)

    def takes_function(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("where", nargs="?", metavar="FUNCTION", help=f"{HOW} (default: a small example)")
        parser.add_argument("--expand", action="store_true", help="unfold fused layers into their operations")

    summary = "The way back through a computation in the engine's order, against recursion and careless orders."
    parser = command("order", summary)
    parser.set_defaults(action=show_order)
    takes_function(parser)

    parser = command("bugs", "Classic mistakes, made on purpose: what each does, and who notices it.")
    parser.set_defaults(action=show_bugs)
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of them, such as 'missing factor' (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a picture with the mistake in it: .svg, .html, .png")

    parser = command("drill", "Write a function as a worksheet: forward line by line, the derivatives left blank.")
    parser.set_defaults(action=make_drill)
    takes_function(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the worksheet to write, a .py file, which stays if it is there"
    )

    parser = command("check", "Check a worksheet: a verdict on each line. Exit status 0 only if all are right, else 1.")
    parser.set_defaults(action=check)
    parser.add_argument("worksheet", type=Path, metavar="WORKSHEET", help="the file that drill wrote and you filled in")

    parser = command("hint", "A hint for one line of a worksheet.")
    parser.set_defaults(action=hint)
    parser.add_argument("worksheet", type=Path, metavar="WORKSHEET", help="the file that drill wrote")
    parser.add_argument("variable", metavar="VARIABLE", help="such as d_h")
    parser.add_argument("--level", type=int, choices=LEVELS, default=1,
        help="1: who used the variable, 2: the formulas too, 3: the numbers too (default: 1)")  # fmt: skip


def show_order(chosen: argparse.Namespace) -> int:
    print(order(result_of(chosen.where, crossing), expand=chosen.expand))
    return SAVED


def show_bugs(chosen: argparse.Namespace) -> int:
    if chosen.name is None:
        if chosen.out:
            raise OptionError("--out needs the NAME of a bug, whose picture it is")
        print(gallery.bugs())
        return SAVED
    symptom = gallery.symptom(chosen.name)
    print(symptom)
    if chosen.out:
        print(f"{symptom.picture.save(chosen.out)} shows the computation with the mistake in it")
    return SAVED


def make_drill(chosen: argparse.Namespace) -> int:
    drill = drill_of(chosen.where, expand=chosen.expand)
    if chosen.out is None:
        print(drill, end="")
        return SAVED
    if chosen.out.exists():
        raise OptionError(f"{chosen.out} is there already, and may hold somebody's work: take another name")
    again = f"tinygrad-rnn lab check {quote(str(chosen.out))}"
    print(f"{drill.save(chosen.out)} has {len(drill.names)} blanks; {again} checks them")
    return SAVED


def check(chosen: argparse.Namespace) -> int:
    drill, answers = read(chosen.worksheet)
    verdicts = drill.check(answers)
    print(verdicts)
    return SAVED if verdicts.right else NOT_ALL_RIGHT


def hint(chosen: argparse.Namespace) -> int:
    drill, _ = read(chosen.worksheet)
    print(drill.hint(chosen.variable, chosen.level))
    return SAVED
