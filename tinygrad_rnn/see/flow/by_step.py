"""The gradient of a weight, taken apart by time steps: what each contributes, and what truncation drops of it.

Each step of each cell gets weights of its own, so that one way back tells them all apart, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.autodiff import pullback
from ...core.modes import enable_grad
from ...errors import OptionError
from ...nn import options
from ...nn.recurrent import Recurrent
from .gradients import Arrays, Loss, losses, norm, total
from .heat import Strip, seen
from .picture import Picture
from .unrolled import counts, labelled, unrolled


@dataclass(frozen=True, eq=False, repr=False)
class Shares(Picture):
    """What each time step contributes to the gradient of each weight: `contributions["cells.0.W"]` is (T, I, G*H).

    They add up to what `backward` gives, `gradient`.

    packed: by weight, the gates whose blocks it packs, or none. name: the layer.
    labels (T): the symbols that were read, or the numbers of the steps.
    """

    contributions: Arrays
    packed: Mapping[str, tuple[str, ...]]
    name: str
    labels: tuple[str, ...]

    @property
    def gradient(self) -> dict[str, NDArray[Any]]:
        """The whole gradient of each weight: the sum over the steps."""
        return {name: each.sum(axis=0) for name, each in self.contributions.items()}

    @property
    def by_gate(self) -> dict[str, NDArray[Any]]:
        """The contributions apart by gate, where a weight packs several: "cells.0.W_z" is (T, I, H)."""
        return _by_gate(self.contributions, self.packed)

    @property
    def share(self) -> dict[str, NDArray[Any]]:
        """The share of each step in the gradient of each weight, by gate (T): how far it goes in its direction.

        It is <g_t, G> / <G, G> of the contribution g_t and the whole gradient G: the shares add up to 1, and a negative
        one pulls the other way. Zeros, where the gradient is zero.
        """
        return {name: _along(each) for name, each in self.by_gate.items()}

    @property
    def norms(self) -> dict[str, NDArray[Any]]:
        """The length of each step's contribution to the gradient of each weight, by gate (T)."""
        return {name: _lengths(each) for name, each in self.by_gate.items()}

    @property
    def overall(self) -> NDArray[Any]:
        """The share of each step in the gradient of all weights together (T)."""
        return _along(_flat(self.contributions))

    @property
    def title(self) -> str:
        return f"{self.name}: the share of each step in the gradient of its weights"

    def sentences(self) -> list[str]:
        shares = self.overall
        first = np.argsort(-shares, kind="stable")[:3].tolist()
        said = ", ".join(f"{shares[t]:.0%} from {_step(self.labels, t)}" for t in first)
        half = int(np.searchsorted(np.cumsum(-np.sort(-shares)), 0.9)) + 1
        return [f"Of the whole gradient come {said}; the {half} largest of {len(shares)} steps make up 90%."]

    def strips(self) -> list[Strip]:
        """A row for each weight and gate, a column for each step."""
        share = self.share
        values, overall = np.array(list(share.values())), self.overall
        size = float(max(np.abs(values).max(initial=0), np.abs(overall).max(initial=0))) or 1.0
        signed = min(float(values.min(initial=0)), float(overall.min(initial=0))) < -size * 1e-3
        note = "they add up to 1 along each row" + ("; a negative one pulls the other way" if signed else "")
        return [
            Strip("share", note, values, _short(share), self.labels, -size if signed else 0.0, size, overall,
                  "all weights", signed=signed)
        ]  # fmt: skip


def shares(
    layer: Recurrent, x: Any, h_0: Any = None, *, loss: Loss = total, at: int | Sequence[int] | None = None,
    labels: Sequence[str] | None = None, name: str | None = None,
) -> Shares:  # fmt: skip
    """What each time step contributes to the gradient of the cells' weights; exact, as each step has its own weights.

    x, h_0, loss: as in `gradient_through_time`. at: the steps whose losses are summed; left out, all of them.
    labels: the T symbols that x stands for; the numbers of the steps, if left out.

    Raises: as `gradient_through_time`; OptionError for a step that is not there; ShapeError for too few labels.
    """
    return _taken_apart(layer, x, h_0, loss, at, labels, name, cut=None)


@dataclass(frozen=True, eq=False, repr=False)
class Truncation(Picture):
    """What is dropped where the state is detached every k steps, as truncated back-propagation does.

    full, kept: what each step contributes to the gradients, without and with the cuts.
    """

    k: int
    full: Shares
    kept: Shares

    @property
    def dropped(self) -> dict[str, float]:
        """By weight and gate, the length of what is dropped relative to that of the full gradient; nan for 0 of 0."""
        kept = self.kept.by_gate
        return {name: _relative(g.sum(axis=0), kept[name].sum(axis=0)) for name, g in self.full.by_gate.items()}

    @property
    def overall(self) -> float:
        """The same of all weights together."""
        full, kept = (_flat(each.contributions).sum(axis=0) for each in (self.full, self.kept))
        return _relative(full, kept)

    @property
    def by_step(self) -> dict[str, NDArray[Any]]:
        """By weight and gate, for each step what is dropped of its contribution, relative to its length (T)."""
        kept = self.kept.by_gate
        return {name: _each_relative(g, kept[name]) for name, g in self.full.by_gate.items()}

    @property
    def title(self) -> str:
        return f"{self.full.name}: what truncation after {self.k} step{'s' * (self.k > 1)} drops"

    def sentences(self) -> list[str]:
        ranked = sorted(self.dropped.items(), key=lambda entry: -np.nan_to_num(entry[1]))
        names = dict(zip(self.dropped, _short(self.dropped)))
        said = ", ".join(f"{value:.1%} of {names[name]}" for name, value in ranked)
        return [f"Dropped of the gradient of all weights: {self.overall:.1%}. By weight: {said}."]

    def strips(self) -> list[Strip]:
        """A row for each weight and gate, a column for each step."""
        found = self.by_step
        line = _each_relative(_flat(self.full.contributions), _flat(self.kept.contributions))
        often = f"every {self.k} steps" if self.k > 1 else "each step"
        note = f"of each step's contribution; the state is cut after {often}"
        return [
            Strip("dropped share", note, np.array(list(found.values())), _short(found), self.full.labels,
                  line=line, line_name="all weights")
        ]  # fmt: skip


def truncation(
    layer: Recurrent, x: Any, k: int, h_0: Any = None, *, loss: Loss = total, at: int | Sequence[int] | None = None,
    labels: Sequence[str] | None = None, name: str | None = None,
) -> Truncation:  # fmt: skip
    """What detaching the state every k steps drops from the gradient of the cells' weights.

    The losses are the same with and without; in a reverse direction the cuts count from the end. All else: as `shares`.

    Raises: as `shares`; OptionError for a k below 1.
    """
    k = options.count("k", k)
    full, kept = (_taken_apart(layer, x, h_0, loss, at, labels, name, cut=cut) for cut in (None, k))
    return Truncation(k, full, kept)


def _taken_apart(
    layer: Recurrent, x: Any, h_0: Any, loss: Loss, at: int | Sequence[int] | None, labels: Sequence[str] | None,
    name: str | None, cut: int | None,
) -> Shares:  # fmt: skip
    """The contributions, with the state cut before every `cut`-th step."""
    walks = unrolled(layer, x, h_0, cut=cut)
    each = losses(layer, walks, loss)
    T = len(each)
    named = labelled(labels, T)
    chosen = list(range(T)) if at is None else list(at) if isinstance(at, Iterable) else [at]
    if not chosen:
        raise OptionError("at names no step: give at least one, or leave it out for all of them")
    for t in chosen:
        if not counts(t, -T, T):
            raise OptionError(f"at names step {t!r}; there are T = {T}, counted from 0")
    with enable_grad():
        summed = sum([each[t] for t in chosen[1:]], each[chosen[0]])
    leaves = [leaf for walk in walks for step in walk.weights for leaf in step.values()]
    pulled = iter(pullback(summed, leaves))
    found: dict[str, NDArray[Any]] = {}
    packed: dict[str, tuple[str, ...]] = {}
    for walk in walks:
        steps = [{weight: next(pulled).numpy() for weight in step} for step in walk.weights]
        for weight in steps[0]:
            path = f"cells.{walk.number}.{weight}"
            found[path] = np.stack([step[weight] for step in steps])
            several = len(walk.cell.gates) > 1 and weight in ("W", "U", "b")
            packed[path] = walk.cell.gates if several else ()
    return Shares(found, packed, name or type(layer).__name__, named)


def _by_gate(arrays: Arrays, packed: Mapping[str, tuple[str, ...]]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        gates = packed[name]
        parts = np.split(array, len(gates), axis=-1) if gates else [array]
        found |= dict(zip([f"{name}_{gate}" for gate in gates] or [name], parts))
    return found


def _short(names: Mapping[str, Any]) -> list[str]:
    """The names of weights without what all of them have in front."""
    alone = all(name.startswith("cells.0.") for name in names)
    return [name.removeprefix("cells.0.") if alone else name for name in names]


def _flat(arrays: Arrays) -> NDArray[Any]:
    """All weights in one row per step (T, ...)."""
    return np.concatenate([each.reshape(len(each), -1).astype(np.float64) for each in arrays.values()], axis=1)


def _along(contributions: NDArray[Any]) -> NDArray[Any]:
    flat = contributions.reshape(len(contributions), -1).astype(np.float64)
    whole = flat.sum(axis=0)
    square = float(whole @ whole)
    return flat @ whole / square if square else np.zeros(len(flat))


def _step(labels: Sequence[str], t: int) -> str:
    return f"step {t}" if labels[t] == str(t) else f'"{seen(labels[t])}" (t = {t})'


def _lengths(contributions: NDArray[Any]) -> NDArray[Any]:
    return np.array([norm(each) for each in contributions])


def _relative(full: NDArray[Any], kept: NDArray[Any]) -> float:
    """The length of the difference relative to that of the first; nan, if there is nothing to drop."""
    length = norm(full)
    return norm(full.astype(np.float64) - kept) / length if length else float("nan")


def _each_relative(full: NDArray[Any], kept: NDArray[Any]) -> NDArray[Any]:
    return np.array([_relative(*pair) for pair in zip(full, kept)])
