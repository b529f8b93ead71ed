"""`convert`: a model's file of one kind as one of another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConversionError, OptionError
from ..interop.comparison import Difference
from ..interop.conversion import convert
from ..interop.filekinds import KINDS
from ..interop.report import Report
from .ending import SAVED

SUFFIXES = tuple(dict.fromkeys(kind.suffix for kind in KINDS))


def convert_file(chosen: argparse.Namespace) -> int:
    """`convert IN OUT`."""
    reading, writing = Report(), Report()
    layers = None if chosen.layers is None else _layers(chosen.layers)

    def table() -> None:
        print(f"{chosen.source} to tinygrad_rnn\n\n{reading}\n\ntinygrad_rnn to {chosen.target}\n\n{writing}\n")

    def prove(found: Iterator[Difference]) -> None:
        table()
        _check(found, chosen.target)

    module = convert(
        chosen.source, chosen.target, layers=layers, names=chosen.names, reading=reading, writing=writing,
        proof=prove if chosen.check else None,
    )  # fmt: skip
    if not chosen.check:
        table()
    parameters = sum(tensor.size for tensor in module.parameters())
    print(f"{chosen.target} holds {type(module).__name__} of {parameters:,} parameters")
    return SAVED


def _layers(text: str) -> dict[str, dict[str, Any]]:
    """NAME[=KIND][:SETTING=VALUE]...,... as a mapping."""
    found = {}
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        head, *said = part.split(":")
        name, _, kind = head.partition("=")
        pairs = [setting.partition("=") for setting in said]
        found[name] = {"kind": kind or None} | {setting: _value(value or "true") for setting, _, value in pairs}
    if "" in found or len(found) < len(parts):
        raise OptionError(f"--layers is {text!r}; it names each layer once, as in emb=Embedding,gru:batch_first,head")
    return found


def _value(text: str) -> Any:
    """A number, true, false, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check(found: Iterator[Difference], target: Path) -> None:
    """Say what each side computes.

    Raises: ConversionError, if they do not compute the same.
    """
    wrong = []
    for each in found:
        print(each)
        if each.largest is not None and not each.largest <= each.allowed:
            wrong.append(each)
    if wrong:
        raise ConversionError(f"{wrong[0].file} computes something else in {wrong[0].runner}: {target} was not written")
