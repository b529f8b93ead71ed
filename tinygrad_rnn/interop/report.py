"""What went where in a conversion: a list that the conversions fill and the command prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..nn.module import Module


class Move(NamedTuple):
    """One array: what it was called and shaped there, and is here; and what was done to it."""

    source: str
    source_shape: Any
    target: str
    target_shape: Any
    how: str


class Report:
    """What a conversion did: `print(report)` shows a table, and below it what did not come along.

    moves: array by array. notes: sentences.
    """

    def __init__(self) -> None:
        self.moves: list[Move] = []
        self.notes: list[str] = []

    def add(self, source: str, source_shape: Any, target: str, target_shape: Any, how: str = "") -> None:
        """Write down one array."""
        self.moves.append(Move(source, source_shape, target, target_shape, how))

    def unchanged(self, module: Module) -> None:
        """Write down that every weight of a module keeps its name and its place."""
        for name, tensor in module.state_dict().items():
            self.add(name, tensor.shape, name, tensor.shape)

    def note(self, sentence: str) -> None:
        """Write down what a user should know, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def note_frozen(self, module: Module, form: str) -> None:
        """Write down what of a module is not learned, if it goes to a form that does not hold that, such as "ONNX"."""
        learned = {name for name, _ in module.named_parameters()}
        if frozen := [name for name in module.state_dict() if name not in learned]:
            more = f" and {len(frozen) - 4} more" if len(frozen) > 4 else ""
            self.note(f"frozen here, which {form} does not hold: {', '.join(frozen[:4])}{more}")

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The table's rows as text."""
        return [(m.source, _shape(m.source_shape), m.target, _shape(m.target_shape), m.how) for m in self.moves]

    def __str__(self) -> str:
        head = ("from", "shape", "to", "shape", "how")
        lines: list[Sequence[str]] = [head, *self.rows()] if self.moves else []
        widths = [max(len(line[i]) for line in lines) for i in range(5)] if lines else []
        table = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([*table, *self.notes])


def _shape(shape: Any) -> str:
    return "" if shape == "" else " x ".join(map(str, shape)) or "1"
