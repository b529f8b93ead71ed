"""`sample`, `gates`, `draw`, `play` and `info`: what is there to see."""

from __future__ import annotations

import argparse
import platform
from typing import Any

import numpy as np

from .. import __version__
from ..backend import backends
from ..core.tensor import Tensor
from ..errors import OptionError
from ..see import flow
from ..see.drawing import draw, size
from ..see.player import play
from ..see.show import computation, of_checkpoint
from ..train.loop import load_model
from ..train.model import write_on
from .ending import SAVED


def write(chosen: argparse.Namespace) -> int:
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


def show_gates(chosen: argparse.Namespace) -> int:
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


def draw_picture(chosen: argparse.Namespace) -> int:
    drawing = draw(_shown(chosen), expand=not chosen.fused)
    where = "; open it in a browser" if chosen.out.suffix.lower() in (".svg", ".html") else ""
    print(f"{drawing.save(chosen.out)} shows {size(drawing.graph)}{where}")
    return SAVED


def make_page(chosen: argparse.Namespace) -> int:
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


def say_what_is_there(chosen: argparse.Namespace) -> int:
    print(f"tinygrad-rnn {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for status in backends().values():
        print(status)
    return SAVED
