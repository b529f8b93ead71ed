"""Random numbers that are the same on every backend.

Weights and shuffles come from a NumPy generator on the host. Dropout masks, which a GPU has to make
by itself, come from a counter: each number is a hash of (seed, call, position), with no state to carry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .base import Array, Backend

_host = np.random.default_rng(0)
_counter = {"seed": 0, "call": 0}


def seed(n: int) -> None:
    """Start all random numbers of the package anew: the same n gives the same weights, shuffles and masks.

    n: an integer from 0 on.
    """
    global _host
    _host = np.random.default_rng(n)
    _counter.update(seed=n, call=0)


def host_generator() -> np.random.Generator:
    """The generator behind `tg.randn`, initialisers and shuffles where no `rng=` is given."""
    return _host


def get_state() -> dict[str, Any]:
    """Everything that decides the next random numbers, as JSON-serialisable values."""
    return {"host": _host.bit_generator.state, "counter": dict(_counter)}


def set_state(state: dict[str, Any]) -> None:
    """Go back to where `get_state` was called: what follows repeats bit by bit."""
    _host.bit_generator.state = state["host"]
    _counter.update(state["counter"])


def _scrambled(x: Array) -> Array:
    """A bijection of 32-bit integers in which each input bit flips about half of the output bits.

    Multipliers found by C. Wellons' hash prospector ("lowbias32").
    """
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


def uniform(backend: Backend, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
    """Numbers in [0, 1) with 24 random bits each, a new draw at every call, equal on all backends."""
    _counter["call"] += 1
    keys = np.random.SeedSequence((_counter["seed"], _counter["call"])).generate_state(2)
    positions = backend.xp.arange(int(np.prod(shape)), dtype=np.uint32)
    bits = _scrambled(_scrambled(positions ^ int(keys[0])) + int(keys[1]))
    return ((bits >> 8).astype(dtype) * 2.0**-24).reshape(shape)
