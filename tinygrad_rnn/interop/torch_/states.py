"""What is in a state_dict of PyTorch's: layers by the names and shapes of their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConversionError, OptionError
from .. import packing
from ..report import Report
from .found import KINDS, Found, FoundLayers
from .names import ACTIVATIONS


def kind_and_settings(name: str, said: Any) -> tuple[str | None, dict[str, Any]]:
    """What layers= says of one layer: its kind, or None, and settings of it.

    Raises: OptionError for what is neither a kind nor a mapping of settings.
    """
    settings = dict(said) if isinstance(said, Mapping) else {"kind": said}
    kind = settings.pop("kind", None)
    if kind is not None and kind not in KINDS:
        raise OptionError(f"layers= has {name!r} of kind {kind!r}; choose from {', '.join(KINDS)}")
    return kind, settings


def _check_settings(name: str, found: Found) -> None:
    """Settings that layers= gives to a layer are such as its kind has."""
    known = {"eps"} if found.kind == "LayerNorm" else set[str]()
    if found.kind in packing.CELLS:
        known = packing.unsettled(packing.LAYERS[packing.CELLS[found.kind]])
    elif found.kind == "RNNCell":
        known = {"activation"}
    if unknown := found.settings.keys() - known:
        raise OptionError(f"layers= gives {min(unknown)!r} to {name!r}, a {found.kind}, which has "
                          f"{', '.join(sorted(known)) or 'no settings'}")  # fmt: skip


def of_state(state: Mapping[str, Any], given: Mapping[str, Any], report: Report) -> FoundLayers:
    """The layers that the names speak of, in their order; those of layers= that have no arrays come along."""
    found: FoundLayers = {}
    for path, value in state.items():
        if not hasattr(value, "shape"):
            raise ConversionError(f"{path} is of type {type(value).__name__} and no array: from_torch takes the "
                                  "state_dict of a model, and not what else a checkpoint holds")  # fmt: skip
        name, _, own = str(path).rpartition(".")
        found.setdefault(name, Found("")).arrays[own] = value
    if not found:
        raise ConversionError("there is no array in this state_dict")
    kinds: dict[str, str | None] = {}
    for name, said in given.items():
        kinds[name], settings = kind_and_settings(name, said)
        if kinds[name] in ACTIVATIONS:
            found.setdefault(name, Found(""))
        if name in found:
            found[name].settings = settings
    for name, each in found.items():
        each.kind = kinds.get(name) or _inferred(name, each, report)
        _check_settings(name, each)
    return found


def _inferred(name: str, found: Found, report: Report) -> str:
    """The kind of a layer by the names and shapes of its arrays.

    Raises: ConversionError, if they fit several, or none.
    """
    where, arrays = f"layer {name!r}" if name else "the layer", found.arrays
    for suffix, ending in (("", "Cell"), ("_l0", "")):
        if f"weight_hh{suffix}" in arrays:
            return f"{_by_blocks(where, arrays[f'weight_hh{suffix}'].shape, ending, found.settings, report)}{ending}"
    axes = {own: len(array.shape) for own, array in arrays.items()}
    if axes == {"weight": 2, "bias": 1}:
        return "Linear"
    if axes == {"weight": 1, "bias": 1}:
        if "eps" not in found.settings:
            report.note(f"{where} is taken for a LayerNorm with eps=1e-05, which its arrays do not tell")
        return "LayerNorm"
    example = f"layers={{{name!r}: 'Embedding', ...}} (--layers {name}=Embedding,...)"
    if axes == {"weight": 2}:
        raise ConversionError(f"{where} has a matrix and nothing else: it may be an Embedding, or a Linear without "
                              f"bias. Say which, as in {example}")  # fmt: skip
    have = ", ".join(f"{own} {tuple(array.shape)}" for own, array in arrays.items())
    raise ConversionError(f"{where} has {have}, which is no layer that is known here. Those that are known can be "
                          f"named, as in {example}: {', '.join(KINDS)}")  # fmt: skip


def _by_blocks(where: str, shape: tuple[int, ...], ending: str, said: Mapping[str, Any], report: Report) -> str:
    cell = packing.cell_by_matrix("torch", tuple(shape))
    if cell is None:
        raise ConversionError(f"weight_hh of {where} has shape {tuple(shape)}; (G * H, H) with G = 1, 3 or 4 would be "
                              "that of an RNN, GRU or LSTM, and other shapes are those of none")  # fmt: skip
    kind = packing.name_of(cell)
    usual: dict[str, Any] = {"activation": "tanh"} if kind == "RNN" else {}
    usual |= {} if ending else {"batch_first": False, "dropout": 0.0}
    options = [f"{name}={value!r}" for name, value in usual.items() if name not in said]
    if options:
        report.note(f"{where} is taken to have {', '.join(options)}, if you do not say otherwise: arrays do not tell")
    return kind
