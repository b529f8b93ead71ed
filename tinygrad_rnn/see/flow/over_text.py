"""Gates over a text: what each gate and unit of a recurrent layer does at each symbol, and which symbols open it."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ...nn.cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell
from ...nn.folding import checked_lengths
from ...nn.recurrent import Recurrent
from ...train.model import LanguageModel
from ...train.text import Vocabulary
from .heat import Strip, seen
from .picture import Picture
from .unrolled import Walk, counts, labelled, watched

MOST, FEW = 16, 5
"""How many units are shown, unless more are asked for, and how many symbols are named as the most open ones."""
NEW, OLD = "1 takes the new, 0 keeps the old", "1 keeps the old, 0 takes the new"
TAKES_NEW = {"new": NEW, "old": OLD}


class Reading(NamedTuple):
    """How to read what a cell defines: a word for each of its letters, and the gate to rank symbols by.

    gate: the one that lets the new in, as far as that is known. opens: 1, if it is open at 1; -1, if it is open at 0.
    """

    words: Mapping[str, str]
    gate: str = ""
    opens: int = 1


def _gru_like(cell: Any) -> Reading:
    update = getattr(cell, "update", "new")
    words = {"z": f"update gate: {TAKES_NEW[update]}", "r": "reset gate: 0 leaves the past out of the candidate n",
             "n": "candidate, the new", "h": "hidden state"}  # fmt: skip
    return Reading(words, "z", 1 if update == "new" else -1)


READINGS: dict[Any, Callable[[Any], Reading]] = {
    RNNCell.equation: lambda cell: Reading({"h": "hidden state"}),
    MinimalGRUCell.equation: _gru_like,
    GRUCell.equation: _gru_like,
    LSTMCell.equation: lambda cell: Reading(
        {
            "i": "input gate: 1 takes the new in", "f": "forget gate: 1 keeps the old",
            "g": "candidate, the new", "o": "output gate: 1 shows the cell state", "c": "cell state",
            "h": "hidden state",
        },
        "i",
    ),
}  # fmt: skip
"""By the very equation that a cell has: a cell that changes it has no reading but its letters."""


def reading(cell: Cell) -> Reading:
    """How to read what a cell defines; of a cell of one's own only which letters are gates is known."""
    known = READINGS.get(type(cell).equation)
    if known:
        return known(cell)
    gates = [gate for gate in cell.gates if gate != cell.candidate]
    words = {cell.candidate: "candidate", **dict.fromkeys(gates, "gate"), **dict.fromkeys(cell.states, "state")}
    return Reading(words, gates[0] if gates else "")


@dataclass(frozen=True, eq=False, repr=False)
class Gates(Picture):
    """What one cell did over a sequence: `values["z"]` is the update gate, (T, N, H), and so for all that it defines.

    values: as the equation of the cell names them; nan past the end of a sequence. cell: whose they are.
    name: where it stands, such as "GRU, layer 0". labels (T): the symbols that were read, or the numbers of the steps.
    shown: which of the values a picture shows. units: how many units (those that move most), or which.
    sequence: which of the N sequences.
    """

    values: Mapping[str, NDArray[Any]]
    cell: Cell
    name: str
    labels: tuple[str, ...]
    shown: tuple[str, ...]
    units: int | tuple[int, ...] = MOST
    sequence: int = 0

    def show(
        self, *names: str, units: int | Sequence[int] | None = None, sequence: int | None = None
    ) -> Gates:  # fmt: skip
        """The same with another choice of what its picture shows; what is left out stays as it is.

        Raises: OptionError for a name, unit or sequence that is not there.
        """
        for name in names:
            if name not in self.values:
                raise OptionError(
                    f"{type(self.cell).__name__} defines {', '.join(self.values)}, and no {name!r}: choose among those"
                )
        N, H = next(iter(self.values.values())).shape[1:]
        chosen: Any = self.units if units is None else units
        many = isinstance(chosen, Iterable)
        chosen = tuple(chosen) if many else chosen
        if not all(counts(unit, 0, H) for unit in chosen) if many else not counts(chosen, 0, sys.maxsize):
            raise OptionError(f"units is {units!r}; it is how many of the {H} units to show, or their numbers from 0")
        sequence = self.sequence if sequence is None else sequence
        if not counts(sequence, 0, N):
            raise OptionError(f"sequence is {sequence!r}; there are {N}, counted from 0")
        chosen = tuple(map(int, chosen)) if many else int(chosen)
        return dataclasses.replace(self, shown=names or self.shown, units=chosen, sequence=int(sequence))

    def mean(self, name: str) -> NDArray[Any]:
        """The mean of one value over all units, step by step (T)."""
        return np.asarray(self.values[name][:, self.sequence].mean(axis=-1), np.float64)

    @property
    def gate(self) -> str:
        """The gate that `by_symbol` takes: the one that lets the new in, z or the LSTM's i; "" if there is none.

        Of a cell of your own it is the first gate, whatever that does: name another one, if you mean it.
        """
        return reading(self.cell).gate

    def by_symbol(self, name: str | None = None) -> dict[str, tuple[float, int]]:
        """How open a gate is at each symbol, in the mean over units and places, and at how many places it stands.

        The most open one comes first. Open is 1; but of an update gate that keeps the old at 1, open is 0.
        name: the gate; left out, it is `gate`.

        Raises: OptionError, if the cell has no gate of this name.
        """
        name = self.gate if name is None else name
        if name not in self.cell.gates or name == self.cell.candidate:
            raise OptionError(f"{type(self.cell).__name__} has no gate {name!r} that could open")
        found: dict[str, list[float]] = {}
        for label, value in zip(self.labels, self.mean(name)):
            if math.isfinite(value):
                found.setdefault(label, []).append(float(1 - value if self._turned(name) else value))
        means = {label: (float(np.mean(values)), len(values)) for label, values in found.items()}
        return dict(sorted(means.items(), key=lambda entry: -entry[1][0]))

    def _turned(self, name: str) -> bool:
        known = reading(self.cell)
        return name == known.gate and known.opens < 0

    # -- showing -----------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        N, H = next(iter(self.values.values())).shape[1:]
        of = f", sequence {self.sequence} of {N}" if N > 1 else ""
        which = " (those that move most)" if isinstance(self.units, int) and self.units < H else ""
        return f"{self.name}: {', '.join(self.shown)} in {len(self._units())} of {H} units{which}{of}"

    def strips(self) -> list[Strip]:
        """One grid for each value shown: the mean as a line, and the units that were chosen."""
        words, chosen = reading(self.cell).words, self._units()
        H = next(iter(self.values.values())).shape[2]
        found = []
        for name in self.shown:
            values = self.values[name][:, self.sequence]
            low, high = self._scale(name, values)
            rows = [f"unit {unit}" for unit in chosen]
            found.append(
                Strip(
                    name, words.get(name, ""), values[:, chosen].T, rows, self.labels, low, high,
                    self.mean(name), f"mean of {H}", signed=low < 0,
                )
            )  # fmt: skip
        return found

    def sentences(self) -> list[str]:
        """Which symbols open and close the gates that are shown."""
        found = []
        for name in self.shown:
            if name in self.cell.gates and name != self.cell.candidate:
                ranked = [f'"{seen(label)}" {mean:.2f}' + (f" ({count}x)" if count > 1 else "")
                          for label, (mean, count) in self.by_symbol(name).items()]  # fmt: skip
                gate = reading(self.cell).words.get(name, "gate").partition(":")[0]
                turned = f" (open is 1 - {name})" if self._turned(name) else ""
                least = f"; least at {', '.join(ranked[: -FEW - 1 : -1])}" if len(ranked) > 2 * FEW else ""
                found.append(f"The {gate} {name} is most open at {', '.join(ranked[:FEW])}{least}{turned}.")
        return found

    def _units(self) -> list[int]:
        """The units to show, by their numbers.

        Unless they were named, those that move most in the first value shown, from low to high in the mean.
        """
        if not isinstance(self.units, int):
            return list(self.units)
        values = self.values[self.shown[0]][:, self.sequence]
        there = values[np.isfinite(values).all(axis=-1)]
        if not len(there):
            return list(range(min(self.units, values.shape[1])))
        moving = np.argsort(-there.std(axis=0), kind="stable")[: self.units]
        return sorted(moving.tolist(), key=lambda unit: (float(there[:, unit].mean()), unit))

    def _scale(self, name: str, values: NDArray[Any]) -> tuple[float, float]:
        """0 to 1 for gates, -1 to 1 for all else; round numbers further out, where a cell goes beyond."""
        there = values[np.isfinite(values)]
        gate = name in self.cell.gates and name != self.cell.candidate
        if gate and (not there.size or (there.min() >= 0 and there.max() <= 1)):
            return 0.0, 1.0
        size = float(max(np.abs(there).max(initial=0), 1))
        step = 10.0 ** math.floor(math.log10(size))
        end = math.ceil(size / step) * step
        return -end, end

    def __repr__(self) -> str:
        return f"<Gates of {self.name}: {', '.join(self.values)} over {len(self.labels)} steps>"


def gates(
    layer: Recurrent, x: Any, h_0: Any = None, lengths: Any = None, *, labels: Sequence[str] | None = None
) -> list[Gates]:  # fmt: skip
    """What all gates of a layer do over a sequence, one `Gates` for each of `layer.cells`, fused or not.

    Nothing is recorded, and dropout is off.

    x, h_0, lengths: as the layer takes them (for an LSTM h_0 may be the pair).
    labels: the T symbols that x stands for; the numbers of the steps, if left out.

    Raises: OptionError for what is no recurrent layer, or a cell without an equation; ShapeError; as the layer does.
    """
    walks = watched(layer, x, h_0, lengths)
    T = len(walks[0].defined)
    if not T:
        raise OptionError(
            f"{type(walks[0].cell).__name__} does not go through its equation(x, state, weights), which names the gates"
        )
    named = labelled(labels, T)
    found = []
    for walk in walks:
        values = _values(walk)
        if lengths is not None:
            ends = checked_lengths(lengths, T, next(iter(values.values())).shape[1])
            values = {name: np.where(np.arange(T)[:, None, None] < ends[:, None], each, np.nan)
                      for name, each in values.items()}  # fmt: skip
        way = "" if not layer.bidirectional else ", backwards" if walk.reverse else ", forwards"
        place = f"{type(layer).__name__}, layer {walk.number // (1 + layer.bidirectional)}{way}"
        found.append(Gates(values, walk.cell, place, named, tuple(values)))
    return found


def gates_over_text(model: LanguageModel, vocabulary: Vocabulary, text: str) -> list[Gates]:
    """What the gates of a trained model do while it reads a text, as `train.load_model` returns both.

    Raises: TextError for a symbol that the model never saw; OptionError for an empty text.
    """
    ids = vocabulary.encode(text)
    if not len(ids):
        raise OptionError("the text is empty: give the model at least one symbol to read")
    return gates(model.recurrent, model.embedding(ids[:, None]), labels=[vocabulary.symbols[i] for i in ids])


def _values(walk: Walk) -> dict[str, NDArray[Any]]:
    """Everything that a cell defines, each stacked over time: (T, N, H)."""
    names = walk.defined[0]._fields
    return {name: np.stack([getattr(step, name).numpy() for step in walk.defined]) for name in names}
