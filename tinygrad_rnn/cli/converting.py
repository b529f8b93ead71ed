"""`convert`: a model's file of one kind as one of another."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConversionError, OptionError
from ..interop.conversion import KINDS, compared, convert
from ..interop.report import Report
from ..nn.module import Module
from .ending import SAVED

SUFFIXES = tuple(dict.fromkeys(kind.suffix for kind in KINDS))


def convert_file(chosen: argparse.Namespace) -> int:
    """`convert IN OUT`."""
    reading, writing = Report(), Report()
    layers = None if chosen.layers is None else _layers(chosen.layers)
    module = convert(chosen.source, chosen.target, layers=layers, names=chosen.names, reading=reading, writing=writing)
    print(f"{chosen.source} to tinygrad_rnn\n\n{reading}\n\ntinygrad_rnn to {chosen.target}\n\n{writing}\n")
    parameters = sum(tensor.size for tensor in module.parameters())
    print(f"{chosen.target} holds {type(module).__name__} of {parameters:,} parameters")
    if chosen.check:
        _check(chosen.source, chosen.target, module, chosen.names)
    return SAVED


def _layers(text: str) -> dict[str, str | None]:
    """NAME[=KIND],... as a mapping."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if not all(name for name, _, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
        raise OptionError(f"--layers is {text!r}; it names each layer once, as in emb=Embedding,gru,head")
    return {name: kind or None for name, _, kind in pairs}


def _check(source: Path, target: Path, module: Module, names: str | None) -> None:
    """Say what each side computes.

    Raises: ConversionError, if they do not compute the same.
    """
    wrong = []
    for found in compared(source, target, module, names=names):
        print(found)
        if found.largest is not None and not found.largest <= found.allowed:
            wrong.append(found)
    if wrong:
        raise ConversionError(f"{wrong[0].file} computes something else in {wrong[0].runner}: do not use {target}")
